"""Processes that work for this one, and end with it.

A child that lost its parent would go on writing into a folder that the next run writes into too. So each watches: the
pipe that the parent holds open closes, or the parent's number changes (a fork of the parent may hold the pipe), and
within about two seconds the child is gone, its half-written files with it.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

from care_bridge.errors import WorkerError

_PARENT_CHECK_S = 0.5
_TIDYING_S = 1.0
"""A child that computes in C does not hear that it is to end; it has written nothing to take away."""

_ENDED = 128 + signal.SIGTERM

P = ParamSpec("P")
T = TypeVar("T")


class _Ended(BaseException):
    """The child is to end; not an Exception, so that the work's own handlers let it through."""


class Pool:
    """What `pool` gives: hand over work with `submit`."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a child call a function of a module; its result is told by the future."""
        work: Callable[..., T] = _work
        return self._executor.submit(work, function, *args, **kwargs)


@contextmanager
def pool(processes: int, *, tasks_per_child: int | None = None) -> Iterator[Pool]:
    """Child processes for the length of a block.

    Parameters
    ----------
    processes : int
        How many at the same time.
    tasks_per_child : int, optional
        After so many a child makes room for a fresh one; None keeps it.

    Raises
    ------
    WorkerError
        If a child dies.

    Notes
    -----
    The block left by an exception (also Ctrl-C) ends the children at once, whatever they are doing.
    """
    # spawn: forking a process that holds threads (BLAS, TensorFlow) may hang.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_end_with_parent,
        initargs=(os.getpid(),),
        max_tasks_per_child=tasks_per_child,
    ) as executor:
        try:
            yield Pool(executor)
        except BaseException as error:
            executor.shutdown(wait=False, cancel_futures=True)
            _end([child for child in multiprocessing.active_children() if child not in others])
            if isinstance(error, BrokenProcessPool):
                raise WorkerError(
                    "one of the processes was ended from outside, as the system does when memory runs out; "
                    "what was finished is kept: go on with fewer processes"
                ) from error
            raise


def _end(children: list[multiprocessing.process.BaseProcess]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + 2 * _TIDYING_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def _end_with_parent(parent_pid: int) -> None:
    """Prepare a child: Ctrl-C in the terminal is for the parent alone, and its end is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_work)
    threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()


_working = threading.Event()
_ending = threading.Event()


def _work(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    if _ending.is_set():  # the end came between two pieces of work, where the executor swallows it
        _leave()
    _working.set()
    try:
        return function(*args, **kwargs)
    except _Ended:
        _leave()
    finally:
        _working.clear()


def _end_work(_number: int, _frame: FrameType | None) -> None:
    # Said twice (by `_end` and by the executor), the second would interrupt the tidying, leave a half file, and let
    # the executor hand out the next piece of work.
    if _ending.is_set():
        return
    _ending.set()
    if _working.is_set():
        raise _Ended  # so that what is half written goes
    _leave()


def _watch(parent_pid: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not wait([parent.sentinel], _PARENT_CHECK_S):
        if sys.platform != "win32" and os.getppid() != parent_pid:
            break
    if hasattr(signal, "pthread_kill"):
        # What the main thread waits in is to be interrupted too.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
    time.sleep(_TIDYING_S)
    _leave()


def _leave() -> NoReturn:
    # TensorFlow's threads would keep an orderly end from coming.
    os._exit(_ENDED)
