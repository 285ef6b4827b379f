"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from care_bridge.errors import InputError


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
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=target.suffix, dir=parent)
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
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=parent))
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o777 & ~umask)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=parent))
            os.replace(target, old / target.name)
            os.replace(part, target)
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
    """Make a folder if it is missing, and say so in one sentence if that or writing to it is impossible."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # os.access is wrong for root and on network shares; trying is not.
        with tempfile.NamedTemporaryFile(prefix=".part-", dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to folder {str(folder)!r}: {error.strerror or error}; choose one that you may write to"
        ) from error
    return folder


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
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
