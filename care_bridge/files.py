"""Files appear whole or not at all.

What is being written lies beside under a name that tells whose it is, `.part-PLACE-PID-...`, so that the next run can
take away what a killed one left, and nothing of one that still runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from care_bridge.errors import InputError

_LEFTOVER = re.compile(r"\.(?:part|old)-(?:[0-9a-f]{8}-\d+-)?\w+(?:\..*)?", re.DOTALL)
_SCRATCH = re.compile(r"care-bridge-(?:\w+-)?[0-9a-f]{8}-\d+-\w+")
_OWNER = re.compile(r"-(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-\w+(?:\..*)?", re.DOTALL)
_OLD_S = 24 * 3600.0
"""What somebody else's process (on another machine, in another container) has not touched for so long is left over."""


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write beside, flush, rename.

    Parameters
    ----------
    path : path
        Where the finished file is to lie. Missing parent folders are made.

    Yields
    ------
    Path
        A temporary name in the same folder, with the same suffix; write the file there. It replaces
        `path` when the block ends, and is removed when the block raises (a full disk, Ctrl-C).

    Raises
    ------
    InputError
        If the folder cannot be made or written to, or if `path` is a folder.
    OSError
        If the disk is full, with the number ENOSPC and the name of `path` whoever noticed it.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{str(target)!r} is a folder, so no file can be written there; name a file")
    parent = writable_folder(target.parent)
    # A short name: the target's own may already be as long as the file system allows.
    handle, name = tempfile.mkstemp(prefix=owned(".part-"), suffix=target.suffix, dir=parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _flush(part)
        # mkstemp makes private files; a result should be readable by whom the umask allows.
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if _is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder beside, then rename it; as `atomic_file`. An existing folder at `path` is replaced."""
    target = Path(path)
    parent = writable_folder(target.parent)
    part = Path(tempfile.mkdtemp(prefix=owned(".part-"), dir=parent))
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o777 & ~umask)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=owned(".old-"), dir=parent))
            os.replace(target, old / target.name)
            try:
                os.replace(part, target)
            except BaseException:
                os.replace(old / target.name, target)
                old.rmdir()
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder if it is missing, and say so in one sentence if that or writing to it is impossible.

    What killed runs left in it goes, once a process: a folder of many thousand files is not listed for each of them.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # os.access is wrong for root and on network shares; trying is not.
        with tempfile.NamedTemporaryFile(prefix=owned(".part-"), dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to folder {str(folder)!r}: {error.strerror or error}; choose one that you may write to"
        ) from error
    _clear_once(str(folder.absolute()))
    return folder


def owned(prefix: str) -> str:
    """A prefix for names of temporary files that tells `clear_leftovers` whose they are."""
    return f"{prefix}{_place()}-{os.getpid()}-"


def clear_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Take away what killed runs of ours were writing in a folder when they died.

    Only names that `atomic_file` and `atomic_folder` give, and only where their process is no more; one of another
    machine or container is not known, so its files have to lie untouched for a day. What an interrupted replacement
    had moved out of its place goes back there. Never fails: what cannot be removed stays.

    Returns
    -------
    list of Path
        What was removed.
    """
    return _clear(folder, _LEFTOVER)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files, gone after the block; as `make_scratch_folder`."""
    path = make_scratch_folder()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make_scratch_folder(name: str = "care-bridge-") -> Path:
    """A folder for temporary files, which the caller takes away; of a killed run, the next call does.

    Parameters
    ----------
    name : str
        What its name begins with: `care-bridge-` and perhaps a word and a dash.
    """
    _clear_scratch_once(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=owned(name)))


def _clear(folder: str | os.PathLike[str], names: re.Pattern[str]) -> list[Path]:
    removed = []
    with contextlib.suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if names.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                if is_left_over(path):
                    _put_back(path)
                    _remove(path)
                    removed.append(path)
    return removed


def is_left_over(path: Path) -> bool:
    """Whether a name made with `owned` belongs to a process that is no more."""
    known = _OWNER.search(path.name)
    if known and known["place"] == _place():
        return not _is_running(int(known["pid"]))
    touched = [path.lstat().st_mtime]
    if path.is_dir() and not path.is_symlink():
        touched += [inside.lstat().st_mtime for inside in path.rglob("*")]
    return time.time() - max(touched) > _OLD_S


_clear_once = functools.cache(clear_leftovers)
_clear_scratch_once = functools.cache(lambda folder: _clear(folder, _SCRATCH))


@functools.cache
def _place() -> str:
    """Where process numbers mean the same: this boot of this machine, and this container in it."""
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there, and somebody else's
        return True


def _put_back(path: Path) -> None:
    """A folder that was moved aside for its successor, which never came."""
    if path.name.startswith(".old-") and path.is_dir() and not path.is_symlink():
        for inside in path.iterdir():
            if not (path.parent / inside.name).exists():
                os.replace(inside, path.parent / inside.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder, as 64 hexadecimal digits."""
    folder = Path(path)
    if folder.is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        lines = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_full(error: BaseException) -> bool:
    # NumPy's tofile, which tifffile writes with, counts what was written and forgets why it is too little.
    short = isinstance(error, OSError) and error.errno is None and "requested and" in str(error)
    return short or (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def _flush(path: Path) -> None:
    # A rename is only as safe as the bytes behind it.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
