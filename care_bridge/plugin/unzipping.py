"""What the CSBDeep plugin makes of a zip: which files reach its cache folder, and what ends the unpacking.

The plugin unpacks once, into a folder named after the zip's content, and never again while that folder
exists. It reads the zip as a stream, so what a damaged or odd zip holds before the trouble is unpacked. It
makes a folder only for an entry that is one, so a file whose folder has no entry of its own ends the
unpacking. What came before stays, and decides whether later runs find a model.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from care_bridge.errors import InputError

AGAIN = "zip it again, stored or deflated, not encrypted"
"""What helps most zips that Java cannot read."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_BEHIND = 1 << 0, 1 << 3
_ZIP64, _IN_ZIP64 = 1, 0xFFFFFFFF


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
    content: bytes = b""
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
        If there is no such file.

    Notes
    -----
    imagej/imagej-tensorflow, UnpackUtil.java, over java.util.zip.ZipInputStream.
    """
    path, root = Path(path), Path(folder)
    if not path.is_file():
        raise InputError(f"{path} is not there; give the bundle (.zip) that Fiji is to open")
    files: list[str] = []
    for entry in _entries(path.read_bytes()):
        if not entry.opens:
            return Unpacked(tuple(files), entry.reason)
        # Java's File(folder, "/name") lies in the folder.
        target = root / entry.name.lstrip("/")
        if not target.resolve().is_relative_to(root.resolve()):
            return Unpacked(tuple(files), "java.lang.RuntimeException: Bad zip entry")
        if entry.name.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        if not target.parent.is_dir():
            reason = "No such file or directory"
            return Unpacked(
                tuple(files), f"java.io.FileNotFoundException: <model cache>/{entry.name} ({reason})"
            )
        target.write_bytes(entry.content)
        files.append(entry.name)
        if entry.reason:
            return Unpacked(tuple(files), entry.reason)
    return Unpacked(tuple(files))


def _entries(data: bytes) -> Iterator[_Entry]:
    """Entries in the order of the stream, as java.util.zip.ZipInputStream gives them."""
    at = 0
    while data[at : at + 4] == _SIGNATURE and at + _LOCAL_HEADER.size <= len(data):
        entry, at = _entry(data, at)
        yield entry
        if entry.reason:
            return


def _entry(data: bytes, at: int) -> tuple[_Entry, int]:
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
    if method == _STORED:
        content, used = data[at : at + packed], packed
        reason = "" if len(content) == packed else "java.util.zip.ZipException: unexpected EOF"
    elif method == _DEFLATED:
        content, used, reason = _inflated(data, at)
    else:
        return _Entry(name, reason="java.util.zip.ZipException: invalid compression method"), at
    at += used
    if flags & _SIZES_BEHIND and not reason:
        at += 4 if data[at : at + 4] == b"PK\x07\x08" else 0
        crc, packed, size = struct.unpack_from("<3L", data.ljust(at + 12, b"\0"), at)
        at += 12
    return _Entry(name, content, reason=reason or _mismatch(content, used, size, packed, crc)), at


def _mismatch(content: bytes, used: int, size: int, packed: int, crc: int) -> str:
    """What Java says where an entry is not what its header tells; "" where it is."""
    found = zlib.crc32(content)
    if len(content) != size:
        got = f"(expected {size} but got {len(content)} bytes)"
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


def _inflated(data: bytes, at: int) -> tuple[bytes, int, str]:
    """Content of a deflated entry, how many bytes it took, and what went wrong."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = b""
    try:
        content = stream.decompress(data[at:])
    except zlib.error as error:
        # zlib's own words, as Java gives them; Python puts "Error -3 while decompressing data: " in front.
        said = str(error).rpartition(": ")[2]
        return content, len(data) - at, f"java.util.zip.ZipException: {said}"
    if not stream.eof:
        return content, len(data) - at, "java.io.EOFException: Unexpected end of ZLIB input stream"
    return content, len(data) - at - len(stream.unused_data), ""
