"""Long work on one output: what is done lies beside it until it is whole, so that a killed run can be gone on with.

    out.ome.zarr.unfinished/
      job.json     what is made of what; another job does not go on here
      done.txt     a line for each part that is on the disk, written after it
      lock         held while a process works here

The output is moved to its name when all is done. A line that a kill cut short does not count.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError
from care_bridge.files import writable_folder, write_text

SUFFIX = ".unfinished"


class Unfinished:
    """Work on one output; made by `unfinished`.

    Attributes
    ----------
    folder : Path
        Where everything lies until it is done.
    done : dict of str to list
        What was written down of each part that is done.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, Any] = {}
        self._list = folder / "done.txt"
        whole = 0
        if self._list.is_file():
            content = self._list.read_bytes()
            whole = content.rfind(b"\n") + 1
            for line in content[:whole].splitlines():
                part, _, told = line.decode().partition(" ")
                self.done[part] = json.loads(told or "null")
        self._file = open(self._list, "ab")  # noqa: SIM115 - closed by `unfinished`
        self._file.truncate(whole)

    def mark(self, part: str, told: Any = None) -> None:
        """Write down that a part is on the disk, and what is to be known of it later."""
        self._file.write(f"{part} {json.dumps(told)}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[part] = told

    def close(self) -> None:
        """Let go of the list."""
        self._file.close()


@contextmanager
def unfinished(output: Path, job: Mapping[str, Any], *, resume: bool) -> Iterator[Unfinished]:
    """Begin work on an output, or go on with it; what is done stays when the block is left by an exception.

    Parameters
    ----------
    output : Path
        Where the whole is to lie.
    job : mapping
        What is made of what, in plain values. Work is only gone on with if it is the same.
    resume : bool
        Whether to go on with what is there.

    Yields
    ------
    Unfinished

    Raises
    ------
    InputError
        If something lies at `output`; if another process works on it; if there is unfinished work and it is not to be
        gone on with, or it is another job.
    """
    from filelock import FileLock, Timeout

    if output.exists():
        raise InputError(f"{str(output)!r} is there already; name another output, or remove it")
    folder = output.with_name(output.name + SUFFIX)
    writable_folder(output.parent)
    plain = json.loads(json.dumps(job))
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another run is writing {str(output)!r} (it works in {str(folder)!r}); wait for it, or name another output"
        ) from None
    try:
        if output.exists():  # by a run that ended between both looks
            raise InputError(f"{str(output)!r} is there already; name another output, or remove it")
        begun = folder / "job.json"
        if begun.is_file():
            if not resume:
                raise InputError(
                    f"an unfinished run lies in {str(folder)!r}; --resume goes on with it, or remove that folder"
                )
            _check_same(json.loads(begun.read_text(encoding="utf-8")), plain, folder)
        else:
            write_text(begun, json.dumps(plain, indent=2) + "\n")
        work = Unfinished(folder)
        try:
            yield work
        finally:
            work.close()
    finally:
        lock.release()


def move_out(work: Unfinished, made: Mapping[str, Path]) -> None:
    """Put what is whole in its place and take the rest away: names in the folder, and where each is to lie."""
    for name, place in made.items():
        if (work.folder / name).exists():  # a kill may have come between two of them
            os.replace(work.folder / name, place)
    shutil.rmtree(work.folder, ignore_errors=True)


def _check_same(begun: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    other = [key for key in {**begun, **now} if begun.get(key) != now.get(key)]
    if other:
        told = "; ".join(f"{key} was {_short(begun.get(key))}, now {_short(now.get(key))}" for key in other)
        raise InputError(
            f"the unfinished run in {str(folder)!r} is another one ({told}); give what it was begun with, or remove it"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
