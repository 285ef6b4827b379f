"""The one way of opening a zip here: whatever is wrong with it is one sentence that names the file."""

from __future__ import annotations

import errno
import io
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from care_bridge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ENTRIES = 10_000
"""So many entries are opened; bundles and packages have tens."""

MOST_BYTES = 8 << 30
"""So much is unpacked of one zip; networks in all formats together take a few hundred megabytes."""

FREE_OF_RATIO, MOST_RATIO = 64 << 20, 100
"""Up to so many bytes anything goes; more may be at most so many times what is packed. Weights hardly pack at all."""

# `ZipFile` takes the list of entries into memory in one piece; an entry's line has 46 bytes and its name.
_MOST_DIRECTORY = 16 << 20

# What `zipfile` raises for damaged, encrypted and unknown content; OSError stays one, a disk may be full.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(RuntimeError, struct.error, ValueError, OverflowError),
)
# An OSError that is damage: a place before the file's first byte, or bz2's own, which has no number.
_DAMAGED_OS = (errno.EINVAL, None)


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that ends as a zip does."""
    return zipfile.is_zipfile(path)


def names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the entries in their order; folders end in "/".

    Raises
    ------
    InputError
        If it is no zip, or one that is not opened (see `unpack`).
    """
    with _opened(path) as archive:
        return tuple(archive.namelist())


def read(path: str | os.PathLike[str], name: str) -> bytes | None:
    """Content of one entry; None where there is no such entry.

    Raises
    ------
    InputError
        If it is no zip, or one that is not opened (see `unpack`), or the entry is damaged.
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
        If it is no zip, an entry is damaged, encrypted, packed in an unknown way, called as another one or has a name
        that no file can have, if one points outside of the folder, or if it holds more than anybody's network
        (`MOST_ENTRIES`, `MOST_BYTES`, `MOST_RATIO`) or than the disk. Nothing is unpacked then, but for damage
        that shows only while an entry is read.
    """
    folder = Path(folder)
    with _opened(path) as archive:
        wanted = archive.infolist() if only is None else [archive.getinfo(name) for name in only]
        for entry in wanted:
            if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                raise InputError(
                    f"{path}: the entry {entry.filename!r} points outside of the zip; it was not unpacked"
                )
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = sum(entry.file_size for entry in wanted), shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"{path}: unpacked it takes {_size(needed)}, and {_size(free)} are free beside {folder}; free "
                "some space, or let TMPDIR name another disk"
            )
        for entry in wanted:
            archive.extract(entry, folder)  # piece by piece, never whole in memory
    return folder


def arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, which is a zip of ``.npy`` files, by name.

    Raises
    ------
    InputError
        As for `unpack`; or if an entry is no array of numbers or text, or a smaller one than it says.
    """
    import numpy as np

    found: dict[str, NDArray[Any]] = {}
    with _opened(path, most_bytes=None) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                _check_array(file, entry, path)
            with archive.open(entry) as file:
                found[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(
                    file, allow_pickle=False
                )
    return found


def check_ratio(unpacked: int, path: str | os.PathLike[str]) -> None:
    """Refuse a file that takes far more once it is unpacked.

    Parameters
    ----------
    unpacked : int
        Bytes, as far as they are known.
    path : path

    Raises
    ------
    InputError
        If they are more than `FREE_OF_RATIO`, and more than `MOST_RATIO` times the file.
    """
    packed = os.path.getsize(path)
    if unpacked > FREE_OF_RATIO and unpacked > MOST_RATIO * packed:
        raise InputError(
            f"{path}: {_size(packed)} that unpack to {_size(unpacked)} or more, over {MOST_RATIO} times as much; no "
            "network does, so it was not unpacked"
        )


def _check_array(file: Any, entry: zipfile.ZipInfo, path: str | os.PathLike[str]) -> None:
    """Hold what an array says of its size against what is there, before memory is taken for it."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: the array {entry.filename!r} holds Python objects, which are not read from a file of others"
        )
    needed = dtype.itemsize
    for size in shape:
        needed *= size
    if not 0 <= needed <= entry.file_size:
        raise InputError(
            f"{path}: the array {entry.filename!r} says that it has the shape {shape}, which is more than there is"
        )


class _Careful(io.BufferedReader):
    """A file of which no more is read in one go than a list of entries that anybody needs."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_DIRECTORY:
            raise InputError(
                f"{self.name}: its list of entries takes {_size(size)}, so it is damaged or made to harm; it was not "
                "opened"
            )
        return super().read(size)


@contextmanager
def _opened(
    path: str | os.PathLike[str], *, most_bytes: int | None = MOST_BYTES
) -> Iterator[zipfile.ZipFile]:
    with open(path, "rb", buffering=0) as raw, _Careful(raw) as file:
        try:
            archive = zipfile.ZipFile(file)
        except InputError:
            raise
        except NotImplementedError as error:
            raise InputError(f"{path}: {error} is not known here; zip it again, plainly") from error
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _DAMAGED_OS:
                raise
            raise InputError(
                f"{path}: not a zip file ({error}); was it cut short while it was copied?"
            ) from error
        with archive:
            _check(archive, path, most_bytes)
            try:
                yield archive
            except InputError:
                raise
            except (*_DAMAGE, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _DAMAGED_OS:
                    raise
                raise InputError(f"{path}: the zip is damaged ({error}); take it again") from error


def _check(archive: zipfile.ZipFile, path: str | os.PathLike[str], most_bytes: int | None) -> None:
    """Refuse by the list of entries alone what would hang, fill the disk or be read otherwise by others."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise InputError(
            f"{path}: {len(entries)} entries, and at most {MOST_ENTRIES} are opened; models have tens"
        )
    seen: set[str] = set()
    for entry in entries:
        if "\0" in entry.orig_filename:
            raise InputError(f"{path}: the name {entry.orig_filename!r} holds a NUL; zip it again")
        if not entry.filename or (not entry.is_dir() and not entry.filename.strip("./")):
            raise InputError(
                f"{path}: an entry is called {entry.filename!r}, as no file can be; zip it again"
            )
        if entry.filename in seen and not entry.is_dir():
            raise InputError(
                f"{path}: two entries are called {entry.filename!r}, and programs choose differently; zip it again"
            )
        seen.add(entry.filename)
    unpacked = sum(entry.file_size for entry in entries)
    check_ratio(unpacked, path)
    if most_bytes is not None and unpacked > most_bytes:
        raise InputError(
            f"{path}: unpacked it takes {_size(unpacked)}, and at most {_size(most_bytes)} are; name the files of "
            "one network"
        )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
