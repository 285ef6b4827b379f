"""The other end of `worker`: what runs inside a worker process.

Started as ``python -m care_bridge.java.worker_process MODULE FOLDER PARENT_PID``.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.java.worker import Answer, hand_over, no_room, take_over

_PARENT_CHECK_S = 0.5

Handler = Callable[["Call"], dict[str, Any]]


@dataclass
class Call:
    """One call of the main process, as its handler sees it.

    Attributes
    ----------
    arguments : dict
    arrays : dict of str to ndarray
        Large ones are memory-mapped.
    folder : Path
        Scratch space of this worker, removed with it.
    """

    arguments: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    folder: Path
    _link: _Link
    _outputs: dict[str, str] = field(default_factory=dict)

    def output(self, name: str, *, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array that goes back to the main process under this name; fill it in place.

        Raises
        ------
        OSError
            If the disk has no room for it.
        """
        path = self.folder / f"result{self._link.number}-{len(self._outputs)}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        if hasattr(os, "posix_fallocate"):
            # A memory map on a full disk ends the process; asking for the room first gives an error.
            with open(path, "rb+") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
                except OSError as error:
                    # Some network file systems know no such request; then it goes without.
                    if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                        path.unlink()
                        raise (
                            no_room(self.folder, array.nbytes) if error.errno == errno.ENOSPC else error
                        ) from None
        self._outputs[name] = str(path)
        return array

    def progress(self, done: int, total: int, what: str) -> None:
        """Tell how far it is; also a sign of life."""
        self._link.send({"progress": [done, total, what]})

    def ask(self, name: str, *, arrays: dict[str, NDArray[Any]] | None = None, **arguments: Any) -> Answer:
        """Let the main process do something and wait for its answer.

        Raises
        ------
        InputError, WorkerError
            If it could not.
        """
        written: list[Path] = []
        paths = hand_over(arrays or {}, self.folder, f"ask{self._link.number}", written)
        self._link.send({"ask": name, "arguments": arguments, "arrays": paths})
        reply = self._link.replies.get()
        for path in written:
            path.unlink(missing_ok=True)
        if "error" in reply:
            kind = InputError if reply.get("kind") == "InputError" else WorkerError
            raise kind(reply["error"])
        return Answer(reply["values"], take_over(reply["arrays"], consume=True))


class _Link:
    """The two pipes to the main process; when it is gone, so is this process."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes], folder: Path, parent_pid: int) -> None:
        self.number = 0
        self.calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._incoming, self._outgoing, self._folder, self._parent_pid = (
            incoming,
            outgoing,
            folder,
            parent_pid,
        )
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()
        if hasattr(os, "getppid") and sys.platform != "win32":
            threading.Thread(target=self._watch_parent, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._sending:
                self._outgoing.write(line)
                self._outgoing.flush()
        except OSError:
            self.leave()

    def leave(self, code: int = 0) -> NoReturn:
        shutil.rmtree(self._folder, ignore_errors=True)
        # Java's own threads and TensorFlow's would keep an orderly end from coming.
        os._exit(code)

    def _listen(self) -> None:
        try:
            for line in self._incoming:
                message = json.loads(line)
                if "reply" in message:
                    self.replies.put(message["reply"])
                else:
                    self.calls.put(message)
        finally:
            self.leave()

    def _watch_parent(self) -> None:
        # A killed parent closes our input, unless a fork of it still holds the other end.
        while os.getppid() == self._parent_pid:
            time.sleep(_PARENT_CHECK_S)
        self.leave()


def main(module_name: str, folder: Path, parent_pid: int) -> NoReturn:
    """Start the module, answer calls until the main process closes the pipe or dies."""
    # Whatever prints to stdout, in Python, Java or C, goes to the log; the protocol keeps a pipe of its own.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    link = _Link(sys.stdin.buffer, outgoing, folder, parent_pid)
    settings = link.calls.get()["settings"]
    try:
        module = importlib.import_module(module_name)
        link.send({"values": module.start(settings), "arrays": {}})
    except BaseException as error:
        traceback.print_exc()
        link.send({"error": in_words(error), "kind": _kind(error)})
        link.leave(1)
    while True:
        message = link.calls.get()
        link.number += 1
        call = Call(message["arguments"], take_over(message["arrays"]), folder, link)
        try:
            handler: Handler = module.HANDLERS[message["do"]]
            values = handler(call)
            # Not held until the next call: a mapped stack may be large.
            outputs = call._outputs
            del call
            link.send({"values": values, "arrays": outputs})
        except BaseException as error:  # a Java Error is no Exception, and the caller wants to hear of it
            traceback.print_exc()
            sys.stderr.flush()
            link.send({"error": in_words(error), "kind": _kind(error)})


def in_words(error: BaseException) -> str:
    """One text for an error of Python or Java; of a Java one the innermost cause comes first."""
    if not hasattr(error, "getCause"):
        text = str(error)
        return (
            text if isinstance(error, (InputError, WorkerError, NotInstalledError)) else _named(error, text)
        )
    chain = [error]
    while (cause := chain[-1].getCause()) is not None and len(chain) < 20:
        chain.append(cause)
    text = str(chain[-1].toString())  # type: ignore[attr-defined]
    if any("OutOfMemoryError" in str(link.toString()) for link in chain):  # type: ignore[attr-defined]
        text += " (Java ran out of memory: set CARE_BRIDGE_HEAP_MB higher, or use more tiles)"
    return text


def _named(error: BaseException, text: str) -> str:
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(error: BaseException) -> str:
    for kind in (InputError, NotInstalledError):
        if isinstance(error, kind):
            return kind.__name__
    return "WorkerError"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
