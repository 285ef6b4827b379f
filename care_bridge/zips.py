"""The one way of opening a zip here: whatever is wrong with it is one sentence that names the file."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from care_bridge.errors import InputError

# What `zipfile` raises for damaged, encrypted and unknown content; OSError stays one, a disk may be full.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, ValueError)


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that ends as a zip does."""
    return zipfile.is_zipfile(path)


def names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the entries in their order; folders end in "/".

    Raises
    ------
    InputError
        If it is no zip.
    """
    with _opened(path) as archive:
        return tuple(archive.namelist())


def read(path: str | os.PathLike[str], name: str) -> bytes | None:
    """Content of one entry; None where there is no such entry.

    Raises
    ------
    InputError
        If it is no zip, or the entry is damaged.
    """
    with _opened(path) as archive:
        return archive.read(name) if name in archive.namelist() else None


def unpack(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], *, only: Sequence[str] | None = None
) -> Path:
    """Lay a zip's entries into a folder.

    Parameters
    ----------
    path : path
    folder : path
        Made where it is missing; nothing is written outside of it.
    only : sequence of str, optional
        Names of the entries that are wanted; None takes all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If it is no zip, an entry is damaged, or one points outside of the folder (nothing is unpacked then).
    """
    folder = Path(folder)
    with _opened(path) as archive:
        for name in archive.namelist() if only is None else only:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{path}: the entry {name!r} points outside of the zip; it was not unpacked")
        archive.extractall(folder, only)
    return folder


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise InputError(
            f"{path}: not a zip file ({error}); was it cut short while it was copied?"
        ) from error
    with archive:
        try:
            yield archive
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(f"{path}: the zip is damaged ({error}); take it again") from error
