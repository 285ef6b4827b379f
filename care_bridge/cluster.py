"""Work on several processes or machines, by dask.distributed: local ones, or those of a scheduler that somebody started.

One task is one shard, one image, one setting: whole, and done again where its worker dies. Workers compute with as many
threads as they have, and hold what is dear to open (a network) from task to task.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.progress import Progress, silent
from care_bridge.surroundings import settle

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

ANSWER_S = 15.0
"""How long a scheduler is waited for, and then its first worker."""

_AHEAD = 3  # tasks a thread that wait at the workers, so that none waits for the scheduler
_DEATHS = 20  # so many workers may die on one task before it is given up
_PACKAGES = ("tensorflow", "keras", "onnxruntime", "numpy")
_LOCAL = "local:"

computing = threading.Lock()
"""Held while a worker computes: its threads all belong to one task then, others read and write meanwhile."""


class Cluster:
    """What `open_cluster` gives: hand over work with `submit` or `each`.

    Parameters
    ----------
    client : distributed.Client
    n_workers : int
        How many there are at the start.
    n_threads : int
        Of all of them together.

    Attributes
    ----------
    n_workers, n_threads : as given
    """

    def __init__(self, client: Any, n_workers: int, n_threads: int) -> None:
        self._client = client
        self._executor = client.get_executor(pure=False)
        self.n_workers, self.n_threads = n_workers, n_threads

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a worker call a function of a module; its result is told by the future."""
        future: Future[T] = self._executor.submit(function, *args, **kwargs)
        return future

    def each(
        self,
        function: Callable[..., T],
        items: Iterable[Item],
        *args: Any,
        total: int = 0,
        done: int = 0,
        what: str = "",
        progress: Progress = silent,
    ) -> Iterator[tuple[Item, T]]:
        """Let workers call ``function(*args, item)`` for each item.

        Parameters
        ----------
        function : callable
            Of a module.
        items : iterable
        *args
            What all calls have in common.
        total, done, what, progress
            For the progress: how many there are, how many were done before, and what.

        Yields
        ------
        item, result
            As they come.

        Raises
        ------
        WorkerError
            If workers die again and again on one task, or the scheduler is lost.
        """
        waiting: dict[Future[T], Item] = {}
        left = iter(items)
        try:
            while True:
                for item in left:
                    waiting[self._executor.submit(function, *args, item)] = item
                    if len(waiting) >= _AHEAD * self.n_threads:
                        break
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    item = waiting.pop(future)
                    yield item, _result(future)
                    done += 1
                    progress(done, total, what)
        finally:
            for future in waiting:
                future.cancel()


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            raise WorkerError(
                f"{_DEATHS} workers died on one piece of work, as they do when memory runs out; give smaller tiles, or "
                "workers with more memory"
            ) from error
        if type(error).__name__ in ("CancelledError", "FutureCancelledError", "CommClosedError"):
            raise WorkerError(
                "the scheduler was lost; what is done is kept: start it again and go on with --resume"
            ) from error
        raise


@contextmanager
def open_cluster(address: str, *, answer_s: float = ANSWER_S) -> Iterator[Cluster]:
    """Workers for the length of a block.

    Parameters
    ----------
    address : str
        ``local:N`` for N processes on this machine, which share its cores and end with the block; ``tcp://host:port`` (or
        another scheme that dask knows) of a scheduler; or the name of a scheduler's file.
    answer_s : float
        Seconds to wait for an answer.

    Yields
    ------
    Cluster

    Raises
    ------
    NotInstalledError
        If dask.distributed is missing.
    InputError
        If the address is none, or does not answer; if there is no worker, or one of another version of care_bridge or of
        what computes.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise NotInstalledError(
            "--cluster needs dask.distributed: pip install 'care-bridge[cluster]'"
        ) from None
    for name in ("distributed", "tornado", "asyncio", "bokeh"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said here
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.comm.timeouts.connect": f"{answer_s}s",
        "distributed.admin.large-graph-warning-threshold": "1GB",
    }
    with dask.config.set(settings):
        local: Any = None
        try:
            if address.startswith(_LOCAL):
                local = _local(LocalCluster, address)
                client = Client(local, timeout=answer_s, set_as_default=False)
            else:
                client = _connected(Client, address, answer_s)
        except BaseException:
            if local is not None:
                local.close()
            raise
        try:
            yield _checked(client, address, answer_s)
        finally:
            client.close(timeout=5)
            if local is not None:
                local.close(timeout=10)


def _local(local_cluster: Any, address: str) -> Any:
    try:
        n = int(address.removeprefix(_LOCAL))
    except ValueError:
        n = 0
    if n < 1:
        raise InputError(f"--cluster {address!r} is not understood; give local:N with N from 1, e.g. local:2")
    import dask

    threads = max(1, _cores() // n)
    environment = dict(os.environ)
    settle(environment)
    environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "CARE_BRIDGE_THREADS")}
    environment |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": "1"}
    changed = {key: value for key, value in environment.items() if os.environ.get(key) != value}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": changed}):
        # Two threads: one task reads and writes while another computes.
        return local_cluster(
            n_workers=n,
            threads_per_worker=2,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",  # the default may be taken
            silence_logs=logging.CRITICAL,
        )


def _connected(client: Any, address: str, answer_s: float) -> Any:
    told: dict[str, Any] = {"timeout": answer_s, "set_as_default": False}
    if "://" in address:
        told["address"] = address
    elif Path(address).is_file():
        told["scheduler_file"] = address
    else:
        raise InputError(
            f"--cluster {address!r} is no address and no file; give local:N, an address such as tcp://host:8786, or the "
            "file that the scheduler wrote"
        )
    try:
        return client(**told)
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        raise InputError(
            f"--cluster {address!r} does not answer within {answer_s:g} s ({_line(error)}); is the scheduler running, and "
            "can this machine reach it?"
        ) from error


def _checked(client: Any, address: str, answer_s: float) -> Cluster:
    try:
        client.wait_for_workers(1, timeout=answer_s)
    except TimeoutError:
        raise InputError(
            f"--cluster {address!r} has no worker after {answer_s:g} s; start some, e.g. dask worker ADDRESS"
        ) from None
    ours = versions()
    problems = []
    for worker, theirs in client.run(_versions_there, on_error="return").items():
        if isinstance(theirs, BaseException):
            problems.append(f"{worker} has no care_bridge that can be called ({_line(theirs)})")
            continue
        differing = [
            f"{name} {theirs.get(name) or 'none'} (here {ours[name] or 'none'})"
            for name in ours
            if theirs.get(name) != ours[name]
        ]
        if differing:
            problems.append(f"{worker} has {', '.join(differing)}")
    if problems:
        raise InputError(
            f"--cluster {address!r}: workers of other versions would give other pixels: {'; '.join(problems)}; install the "
            "same on all"
        )
    threads = client.nthreads()
    return Cluster(client, len(threads), sum(threads.values()))


def versions() -> dict[str, str]:
    """What decides on the pixels that a process makes: care_bridge, to the letter, and what computes."""
    return _versions_there()


@functools.cache
def _versions_there() -> dict[str, str]:
    code = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*.py")):
        code.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    found = {"care_bridge": f"{_version('care-bridge')} (code {code.hexdigest()[:8]})"}
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return found | {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _prepare() -> None:
    """Give a worker that was started by others as many threads to compute with as it has, where nothing is loaded yet."""
    from distributed import get_worker

    try:
        threads = str(get_worker().state.nthreads)
    except ValueError:
        return  # no worker
    settle(os.environ)
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", threads)
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("CARE_BRIDGE_THREADS", threads)


_held: dict[str, Any] = {}
_holding = threading.RLock()


def held(key: str, make: Callable[[], T]) -> T:
    """What a worker keeps from task to task: made by the first that asks, for a key; others of its kind are let go.

    Parameters
    ----------
    key : str
        Begins with what kind of thing it is, up to a colon, of which one is kept.
    make : callable
    """
    with _holding:
        if key not in _held:
            kind = key.partition(":")[0] + ":"
            for old in [one for one in _held if one.startswith(kind)]:
                del _held[old]
            _prepare()
            _held[key] = make()
        found: T = _held[key]
        return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
