"""What the CSBDeep plugin makes of a zip: which files reach its cache folder, and what ends the unpacking.

The plugin unpacks once, into a folder named after the zip's content, and never again while that folder
exists. It reads the zip as a stream, so what a damaged or odd zip holds before the trouble is unpacked. It
makes a folder only for an entry that is one, so a file whose folder has no entry of its own ends the
unpacking. What came before stays, and decides whether later runs find a model.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from care_bridge.errors import InputError
from care_bridge.zips import MOST_ENTRIES, check_ratio

AGAIN = "zip it again, stored or deflated, not encrypted"
"""What helps most zips that Java cannot read."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_BEHIND = 1 << 0, 1 << 3
_ZIP64, _IN_ZIP64 = 1, 0xFFFFFFFF
_PIECE, _IN_MEMORY = 1 << 20, 32 << 20


@dataclass(frozen=True)
class Unpacked:
    """What an unpacking leaves behind.

    Attributes
    ----------
    files : tuple of str
        Names that lie in the cache folder afterwards, the one that broke off included.
    reason : str
        The exception that ended it early; "" for none.
    """

    files: tuple[str, ...]
    reason: str = ""

    @property
    def advice(self) -> str:
        """What to do about `reason`; "" where there is none."""
        if "FileNotFound" in self.reason:
            return "write an entry for every folder, before the files in it"
        return AGAIN if self.reason else ""


@dataclass(frozen=True)
class _Entry:
    name: str
    content: IO[bytes] | None = None
    opens: bool = True  # whether a file is made for it before the trouble
    reason: str = ""


def unpack(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Unpacked:
    """Unpack as the plugin does.

    Parameters
    ----------
    path : path
        Any file; one that is no zip gives no files and no exception, as with Java's ZipInputStream.
    folder : path
        Where to; empty, and not touched outside.

    Raises
    ------
    InputError
        If there is no such file; or one that Java would unpack, but that would fill the memory or disk (more than
        `zips.MOST_ENTRIES`, or than `zips.MOST_RATIO` times itself).

    Notes
    -----
    imagej/imagej-tensorflow, UnpackUtil.java, over java.util.zip.ZipInputStream.
    """
    path, root = Path(path), Path(folder)
    if not path.is_file():
        raise InputError(f"{path} is not there; give the bundle (.zip) that Fiji is to open")
    if not path.stat().st_size:
        return Unpacked(())
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _laid_into(root, data, path)


def _laid_into(root: Path, data: mmap.mmap, path: Path) -> Unpacked:
    files: list[str] = []
    for number, entry in enumerate(_entries(data, _Budget(path))):
        with entry.content or contextlib.nullcontext():
            if number == MOST_ENTRIES:
                raise InputError(f"{path}: more than {MOST_ENTRIES} entries; models have tens")
            end = _lay(root, entry, files)
        if end is not None:
            return Unpacked(tuple(files), end)
    return Unpacked(tuple(files))


def _lay(root: Path, entry: _Entry, files: list[str]) -> str | None:
    """Lay one entry into the cache folder; the exception that ends the unpacking with it, None where it goes on."""
    if not entry.opens:
        return entry.reason
    # Java's File(folder, "/name") lies in the folder.
    target = root / entry.name.lstrip("/")
    if "\0" in entry.name:
        return "java.io.FileNotFoundException: Invalid file path"
    if not target.resolve().is_relative_to(root.resolve()):
        return "java.lang.RuntimeException: Bad zip entry"
    if entry.name.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
        return None
    if target.is_dir():
        return f"java.io.FileNotFoundException: <model cache>/{entry.name} (Is a directory)"
    if not target.parent.is_dir():
        return f"java.io.FileNotFoundException: <model cache>/{entry.name} (No such file or directory)"
    with open(target, "wb") as file:
        if entry.content is not None:
            shutil.copyfileobj(entry.content, file, _PIECE)
    files.append(entry.name)
    return entry.reason or None


@dataclass
class _Budget:
    """What was unpacked of a file; a zip that grows too much is refused while it grows."""

    path: Path
    unpacked: int = 0

    def take(self, count: int) -> None:
        self.unpacked += count
        check_ratio(self.unpacked, self.path)


def _entries(data: mmap.mmap, budget: _Budget) -> Iterator[_Entry]:
    """Entries in the order of the stream, as java.util.zip.ZipInputStream gives them."""
    at = 0
    while data[at : at + 4] == _SIGNATURE and at + _LOCAL_HEADER.size <= len(data):
        entry, at = _entry(data, at, budget)
        yield entry
        if entry.reason:
            return


def _entry(data: mmap.mmap, at: int, budget: _Budget) -> tuple[_Entry, int]:
    """The entry that begins here, and where the next one does; nothing is read behind one with a reason."""
    _, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL_HEADER.unpack_from(data, at)
    at += _LOCAL_HEADER.size
    raw = data[at : at + name_length]
    if len(raw) < name_length:
        return _Entry("", opens=False, reason="java.io.EOFException"), at
    name = raw.decode("utf-8", errors="replace")
    at += name_length
    size, packed = _zip64_sizes(data[at : at + extra], size, packed)
    at += extra
    if flags & _ENCRYPTED:
        reason = "java.util.zip.ZipException: encrypted ZIP entry not supported"
        return _Entry(name, opens=False, reason=reason), at
    if flags & _SIZES_BEHIND and method != _DEFLATED:
        reason = "java.util.zip.ZipException: only DEFLATED entries can have EXT descriptor"
        return _Entry(name, opens=False, reason=reason), at
    if method not in (_STORED, _DEFLATED):
        return _Entry(name, reason="java.util.zip.ZipException: invalid compression method"), at
    content = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (whoever takes the entry closes it)
    try:
        if method == _STORED:
            used, found, reason = _stored(data, at, packed, content, budget)
        else:
            used, found, reason = _inflated(data, at, content, budget)
    except BaseException:
        content.close()
        raise
    length = content.tell()
    content.seek(0)
    at += used
    if flags & _SIZES_BEHIND and not reason:
        at += 4 if data[at : at + 4] == b"PK\x07\x08" else 0
        crc, packed, size = struct.unpack("<3L", data[at : at + 12].ljust(12, b"\0"))
        at += 12
    return _Entry(name, content, reason=reason or _mismatch(length, used, size, packed, found, crc)), at


def _mismatch(length: int, used: int, size: int, packed: int, found: int, crc: int) -> str:
    """What Java says where an entry is not what its header tells; "" where it is."""
    if length != size:
        got = f"(expected {size} but got {length} bytes)"
        return f"java.util.zip.ZipException: invalid entry size {got}"
    if used != packed:
        got = f"(expected {packed} but got {used} bytes)"
        return f"java.util.zip.ZipException: invalid entry compressed size {got}"
    if found != crc:
        return f"java.util.zip.ZipException: invalid entry CRC (expected 0x{crc:x} but got 0x{found:x})"
    return ""


def _zip64_sizes(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """Sizes before and after packing, where a local header keeps them in its extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            numbers = [
                number for (number,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])
            ]
            if size == _IN_ZIP64 and numbers:
                size = numbers.pop(0)
            if packed == _IN_ZIP64 and numbers:
                packed = numbers.pop(0)
        at += 4 + length
    return size, packed


def _stored(
    data: mmap.mmap, at: int, packed: int, content: IO[bytes], budget: _Budget
) -> tuple[int, int, str]:
    """Write a stored entry; how many bytes it took, its CRC, and what went wrong."""
    crc = 0
    end = min(at + packed, len(data))
    for place in range(at, end, _PIECE):
        piece = data[place : min(place + _PIECE, end)]
        budget.take(len(piece))
        crc = zlib.crc32(piece, crc)
        content.write(piece)
    return packed, crc, "" if end == at + packed else "java.util.zip.ZipException: unexpected EOF"


def _inflated(data: mmap.mmap, at: int, content: IO[bytes], budget: _Budget) -> tuple[int, int, str]:
    """Write a deflated entry; how many bytes it took, its CRC, and what went wrong."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    crc, place, rest = 0, at, b""
    while not stream.eof:
        given = rest or data[place : place + _PIECE]
        place += 0 if rest else len(given)
        try:
            piece = stream.decompress(given, _PIECE)
        except zlib.error as error:
            # zlib's own words, as Java gives them; Python puts "Error -3 while decompressing data: " in front.
            said = str(error).rpartition(": ")[2]
            return len(data) - at, crc, f"java.util.zip.ZipException: {said}"
        if not given and not piece:
            return len(data) - at, crc, "java.io.EOFException: Unexpected end of ZLIB input stream"
        rest = stream.unconsumed_tail
        budget.take(len(piece))
        crc = zlib.crc32(piece, crc)
        content.write(piece)
    return place - len(stream.unused_data) - at, crc, ""
