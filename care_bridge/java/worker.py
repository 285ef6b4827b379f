"""A worker: another Python process that may load Java or TensorFlow 1.x, reached through messages and files.

TensorFlow 1.x and 2 in one process crash, a process can start only one JVM, and neither can be stopped from
within. So whatever is Java or TensorFlow 1.x runs in a process of its own, started here, with one protocol:

- one JSON object a line: calls on the worker's stdin, results on its stdout;
- arrays as `.npy` files in the worker's own folder, memory-mapped on both sides, named in the message;
- whatever Java or TensorFlow print is caught in a log, and its end stands in the error if the worker dies.

How to add a worker
-------------------
Write a module with two names and start it with `Worker("care_bridge.java.mine_worker", settings={...})`:

    def start(settings: dict[str, Any]) -> dict[str, Any]:
        # load what is needed, try that it works (the canary), and answer facts such as versions:
        # they are `Worker.facts`
        return {"java": worker_java.start_jvm(...)}

    def double(call: Call) -> dict[str, Any]:
        # call.arguments: what was given by keyword; call.arrays: read-only arrays; call.folder: scratch
        call.output("image", shape=..., dtype=np.float32)[...] = 2 * call.arrays["image"]
        return {"seen": call.arguments["factor"]}

    HANDLERS = {"double": double}

On this side ``answer = worker.call("double", arrays={"image": image}, factor=2)`` gives
`answer.values["seen"]` and `answer.arrays["image"]`. A handler may raise InputError (a user's mistake;
arrives here as InputError) or anything else (arrives as WorkerError with the innermost Java cause). It may
ask back in the middle of its work, ``call.ask("predict", arrays={"image": image})``, which the `answer=`
function of `Worker.call` answers in the main process. `worker_java.start_jvm` starts the JVM inside a worker.

Environment
-----------
CARE_BRIDGE_TIMEOUT
    Seconds without any sign of life after which a worker counts as hanging and is killed.
CARE_BRIDGE_HEAP_MB
    Java heap of every worker, in MiB, instead of the size chosen from the free memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.files import make_scratch_folder
from care_bridge.progress import Progress, silent
from care_bridge.surroundings import settle

DEFAULT_TIMEOUT_S = 900.0
"""Seconds without a sign of life; a large stack through a large net on two cores takes minutes."""

DEFAULT_START_TIMEOUT_S = 120.0

_LOG_TAIL_LINES = 15
_MAPPED_FROM_BYTES = 1 << 20
_CLOSING_TIMEOUT_S = 5.0
_KILLED_TIMEOUT_S = 5.0
"""A killed process is gone at once, unless it waits for a disk that does not answer."""

_KINDS: dict[str, type[Exception]] = {
    "InputError": InputError,
    "NotInstalledError": NotInstalledError,
    "WorkerError": WorkerError,
}

Array = NDArray[Any]
Answering = Callable[[str, dict[str, Any], dict[str, Array]], "Answer"]
"""`answer(name, arguments, arrays)`: what the main process does when a worker asks back."""


@dataclass(frozen=True)
class Answer:
    """What a call gave.

    Attributes
    ----------
    values : dict
        What the handler returned.
    arrays : dict of str to ndarray
        Its output arrays; large ones are memory-mapped, private to this process and writable.
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


class Worker:
    """A running worker process; use it as a context manager, or `close` it.

    Parameters
    ----------
    module : str
        Module with `start` and `HANDLERS`, see the module's docstring.
    settings : mapping, optional
        Handed to `start`, with "worker_folder" added; must be JSON.
    environment : mapping of str to str, optional
        Added to the environment of the process; a value None takes a variable away.
    start_timeout_s, timeout_s : float, optional
        Seconds without a sign of life after which the process is killed; None takes `CARE_BRIDGE_TIMEOUT` or
        the defaults above.

    Attributes
    ----------
    facts : dict
        What `start` answered (versions).

    Raises
    ------
    WorkerError, NotInstalledError, InputError
        If it does not start.
    """

    def __init__(
        self,
        module: str,
        *,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str | None] | None = None,
        start_timeout_s: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.module = module
        self._timeout_s = timeout_s if timeout_s is not None else _timeout_from_environment(DEFAULT_TIMEOUT_S)
        start_timeout_s = start_timeout_s or _timeout_from_environment(DEFAULT_START_TIMEOUT_S)
        self._folder = make_scratch_folder()
        self._log_path = self._folder / "log.txt"
        try:
            with open(self._log_path, "wb") as log:
                self._process = _spawn(module, self._folder, log, environment or {})
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True)
        reader.start()
        self._calls = 0
        self._why_gone = ""
        # Runs when this object is forgotten and when the interpreter ends.
        self._end = weakref.finalize(self, _end, self._process, self._folder, os.getpid())
        try:
            self._send({"settings": {**(settings or {}), "worker_folder": str(self._folder)}}, "starting")
            self.facts: dict[str, Any] = self._wait("starting", start_timeout_s, silent, None).values
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return not self._why_gone and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Its scratch folder, removed with it."""
        return self._folder

    def call(
        self,
        do: str,
        *,
        arrays: Mapping[str, Array] | None = None,
        timeout_s: float | None = None,
        progress: Progress = silent,
        answer: Answering | None = None,
        **arguments: Any,
    ) -> Answer:
        """Let the worker do something and wait for it.

        Parameters
        ----------
        do : str
            Name in the worker's `HANDLERS`.
        arrays : mapping of str to ndarray, optional
            Handed over as files; never copied in memory.
        timeout_s : float, optional
            Seconds without a sign of life before it is killed; None takes the worker's own.
        progress : callable
        answer : callable, optional
            Answers what the worker asks back.
        **arguments
            JSON values for the handler.

        Raises
        ------
        InputError, NotInstalledError
            As the handler raised them.
        WorkerError
            If the handler failed (the worker lives on), or the worker hung, crashed or was killed.
        """
        if self._why_gone:
            raise WorkerError(f"the worker is gone: {self._why_gone}")
        self._calls += 1
        written: list[Path] = []
        try:
            paths = hand_over(arrays or {}, self._folder, f"call{self._calls}", written)
            self._send({"do": do, "arguments": arguments, "arrays": paths}, do)
            return self._wait(do, self._timeout_s if timeout_s is None else timeout_s, progress, answer)
        except (KeyboardInterrupt, SystemExit):
            # It may be anywhere in its work, so its next answer could be to this call.
            self.kill()
            raise
        finally:
            for path in written:
                _remove(path)

    def log(self) -> str:
        """What the process printed so far, Java and TensorFlow included."""
        try:
            return self._log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        """Ask it to end, wait a moment, end it; its folder goes too. Nothing happens the second time."""
        if self.alive:
            with contextlib.suppress(OSError, ValueError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a busy machine; it is ended below
                self._process.wait(_CLOSING_TIMEOUT_S)
        self._why_gone = self._why_gone or "it was closed"
        self._end()

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        self._why_gone = self._why_gone or "it was killed"
        self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any], doing: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._crashed(doing) from None

    def _wait(self, doing: str, timeout_s: float, progress: Progress, answer: Answering | None) -> Answer:
        while True:
            try:
                message = self._messages.get(timeout=timeout_s)
            except queue.Empty:
                text = f"the worker gave no sign of life for {timeout_s:g} s while {doing!r} and was ended"
                self._why_gone = text
                hint = "; give it longer with CARE_BRIDGE_TIMEOUT (seconds)"
                error = WorkerError(text + hint + self._log_tail())
                self.kill()
                raise error from None
            if message is None:
                raise self._crashed(doing)
            if "progress" in message:
                progress(*message["progress"])
            elif "ask" in message:
                self._answer(message, answer, doing)
            elif "error" in message:
                raise _KINDS.get(message["kind"], WorkerError)(message["error"])
            else:
                return Answer(message["values"], take_over(message["arrays"], consume=True))

    def _answer(self, message: dict[str, Any], answer: Answering | None, doing: str) -> None:
        written: list[Path] = []
        if answer is None:
            reply: dict[str, Any] = {"reply": {"error": f"nobody here answers {message['ask']!r}"}}
        else:
            try:
                given = answer(message["ask"], message["arguments"], take_over(message["arrays"]))
                arrays = hand_over(given.arrays, self._folder, f"reply{self._calls}", written)
                reply = {"reply": {"values": given.values, "arrays": arrays}}
            except Exception as error:  # whatever it is, the worker must go on and say what it was doing
                reply = {"reply": {"error": str(error) or type(error).__name__, "kind": type(error).__name__}}
        self._send(reply, doing)

    def _crashed(self, doing: str) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSING_TIMEOUT_S)
        code = self._process.poll()
        self._why_gone = f"it died while {doing!r} ({_exit_in_words(code)})"
        error = WorkerError(
            f"the worker process died while {doing!r}: {_exit_in_words(code)}{self._log_tail()}"
        )
        self.kill()
        return error

    def _log_tail(self) -> str:
        lines = [line for line in self.log().splitlines() if line.strip()]
        return (
            "\nIts last words:\n" + "\n".join(lines[-_LOG_TAIL_LINES:]) if lines else "; it printed nothing"
        )


def heap_mb(*, share: float, least_mb: int = 256, most_mb: int = 32768) -> int:
    """Java heap size from the memory that is free now.

    Parameters
    ----------
    share : float
        Part of the free memory, 0-1. Arrays shared with NumPy lie outside the heap.
    least_mb, most_mb : int
        Bounds, in MiB.
    """
    named = os.environ.get("CARE_BRIDGE_HEAP_MB")
    if named:
        if not named.isdigit() or int(named) < 16:
            raise InputError(
                f"CARE_BRIDGE_HEAP_MB={named!r} is not a number of MiB of at least 16, e.g. 2048"
            )
        return int(named)
    import psutil

    free_mb = int(psutil.virtual_memory().available * share) >> 20
    return max(least_mb, min(most_mb, free_mb))


def hand_over(
    arrays: Mapping[str, Array], folder: Path, name: str, written: list[Path] | None = None
) -> dict[str, str]:
    """Write arrays as .npy files into a folder; paths by name. A disk that fills leaves nothing behind."""
    paths: dict[str, str] = {}
    for key, array in arrays.items():
        path = folder / f"{name}-{len(paths)}.npy"
        try:
            np.save(path, array, allow_pickle=False)
        except BaseException as error:
            _remove(path)
            if isinstance(error, OSError) and error.errno in (None, errno.ENOSPC):
                # NumPy says how much was written, and not why it was no more.
                raise no_room(folder, array.nbytes) from error
            raise
        if written is not None:
            written.append(path)
        paths[key] = str(path)
    return paths


def no_room(folder: Path, needed_bytes: int) -> OSError:
    """What to say where the disk for a worker's arrays is full."""
    text = f"no room for an array of {needed_bytes / 2**20:.0f} MiB; set TMPDIR to a folder on a larger disk"
    return OSError(errno.ENOSPC, text, str(folder))


def take_over(paths: Mapping[str, str], *, consume: bool = False) -> dict[str, Array]:
    """Open .npy files, large ones memory-mapped and writable in private; `consume` removes the files."""
    arrays: dict[str, Array] = {}
    for key, path in paths.items():
        if os.path.getsize(path) < _MAPPED_FROM_BYTES:
            arrays[key] = np.load(path, allow_pickle=False)
        else:
            mapped = np.load(path, mmap_mode="c", allow_pickle=False)
            arrays[key] = np.asarray(mapped)
            if consume and sys.platform == "win32":
                # A mapped file cannot be removed there.
                weakref.finalize(mapped, _remove, Path(path))
                continue
        if consume:
            _remove(Path(path))
    return arrays


def _spawn(
    module: str, folder: Path, log: IO[bytes], environment: Mapping[str, str | None]
) -> subprocess.Popen[bytes]:
    merged: dict[str, str] = dict(os.environ)
    merged.pop("CLASSPATH", None)
    settle(merged)
    for key, value in environment.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    package_parent = str(Path(__file__).resolve().parents[2])
    merged["PYTHONPATH"] = os.pathsep.join(filter(None, (package_parent, merged.get("PYTHONPATH"))))
    merged["PYTHONIOENCODING"] = "utf-8"
    if sys.platform not in ("win32", "darwin") and "utf" not in _locale(merged).lower():
        # Java spells file names in the locale's encoding: without this an umlaut in a path is lost.
        merged["LC_ALL"] = "C.UTF-8"
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        # A group of its own: Ctrl-C in the terminal is for us alone, and what it starts can be ended with it.
        options["start_new_session"] = True
    return subprocess.Popen(
        [
            sys.executable,
            "-X",
            "utf8",
            "-m",
            "care_bridge.java.worker_process",
            module,
            str(folder),
            str(os.getpid()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=merged,
        **options,
    )


def _locale(environment: Mapping[str, str]) -> str:
    return next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "C")


def _read(stream: IO[bytes], messages: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            try:
                messages.put(json.loads(line))
            except ValueError:
                break
    messages.put(None)


def _end(process: subprocess.Popen[bytes], folder: Path, owner_pid: int) -> None:
    if os.getpid() != owner_pid:
        return  # a fork of the owner forgets it; the worker is not its to end
    if process.poll() is None:
        _kill_group(process)
    else:
        # What it started itself may outlive it.
        _kill_group(process, leader_gone=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_TIMEOUT_S)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
    shutil.rmtree(folder, ignore_errors=True)


def _kill_group(process: subprocess.Popen[bytes], *, leader_gone: bool = False) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    if not leader_gone:
        process.kill()


def _exit_in_words(code: int | None) -> str:
    if code is None:
        return "it closed its output but did not end"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"exit code {code}"


def _remove(path: Path) -> None:
    # Windows refuses while another process still maps it; the folder goes with the worker.
    with contextlib.suppress(OSError):
        path.unlink()


def _timeout_from_environment(default_s: float) -> float:
    named = os.environ.get("CARE_BRIDGE_TIMEOUT")
    if not named:
        return default_s
    try:
        seconds = float(named)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"CARE_BRIDGE_TIMEOUT={named!r} is not a number of seconds, e.g. 600")
    return seconds
