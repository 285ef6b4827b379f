"""Is a TIFF whole? Every image directory and every strip or tile has to lie inside the file.

tifffile reads directories too, but logs a chain that breaks off and goes on with the planes before it, so a stack cut
short would come back shorter without a word, and it follows directories in a circle for ever; and it reads every tag of
every directory, where a few will do (5000 directories: 3.4 s and 0.4 s on one machine).
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from care_bridge.errors import InputError

_HEADER_BYTES = 8
# Some writers let directories share a value (the name of the software); more than this no file does.
_MOST_SHARED = 8
_READ_TAGS = {256, 257, 273, 279, 324, 325, 330}
"""ImageWidth, ImageLength, StripOffsets, StripByteCounts, TileOffsets, TileByteCounts, SubIFDs."""
_KIND_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by the number of its type; 1 of the others."""


@dataclass(frozen=True)
class Directories:
    """What the image directories of a whole TIFF say.

    Attributes
    ----------
    count : int
        Of the chain, one a plane.
    smallest_px : int
        Pixels of the smallest picture, at least 1.
    """

    count: int
    smallest_px: int


def check_whole(path: Path) -> Directories:
    """Follow the chain of image directories and see that every strip or tile lies inside the file."""
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise InputError(f"{str(path)!r} is a pipe or a device, not a file; save the image as a file first")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(16)
        if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            what = "is empty" if not size else f"is not a TIFF (it starts with {header[:4]!r})"
            raise InputError(
                f"{str(path)!r} {what}; save it as TIFF, e.g. in Fiji with File > Save As > Tiff..."
            )
        try:
            walk = _Walk(file, header, size)
            ends = list(walk.extents())
        except _DamagedError as error:
            raise InputError(
                f"{str(path)!r} is a damaged TIFF: {error}; save it again from the original"
            ) from None
        except struct.error:  # also for offsets and counts that no file has
            ends = [size + 1]
    needed = max(ends, default=0)
    if needed > size:
        raise InputError(
            f"{str(path)!r} is cut short: it has {size} bytes, its directories point to byte {needed} "
            "or beyond; copy or save it again"
        )
    return Directories(len(ends), max(1, min(walk.sizes_px, default=1)))


class _DamagedError(Exception):
    """What a whole file cannot say, as the middle of a sentence."""


class _Walk:
    """A walk over the directories of a TIFF that ends, whatever they say.

    Nothing of a whole file lies over anything else, so all directories together are no longer than the file, nor are
    their values; what is longer was made to keep a reader busy.
    """

    def __init__(self, file: BinaryIO, header: bytes, size: int) -> None:
        self.file, self.size = file, size
        self.order = "<" if header[:2] == b"II" else ">"
        big = header[2:4] in (b"+\0", b"\0+")
        self.count = struct.Struct(self.order + ("Q" if big else "H"))
        self.entry = struct.Struct(self.order + ("HHQ8s" if big else "HHI4s"))
        self.offset = struct.Struct(self.order + ("Q" if big else "I"))
        (self.first,) = self.offset.unpack_from(header, 8 if big else 4)
        self.seen: set[int] = set()
        self.directory_bytes = 0
        self.value_bytes = 0
        self.sizes_px: set[int] = set()

    def extents(self) -> Iterator[int]:
        """For each directory of the chain, the end of what it points to, in bytes from the start of the file."""
        position = self.first
        while position:
            end, position, below = self._directory(position)
            # Smaller pictures of the same plane (tag SubIFDs); their own are read by nobody.
            yield max([end, *(self._directory(sub)[0] for sub in below if sub >= _HEADER_BYTES)])

    def _directory(self, position: int) -> tuple[int, int, tuple[int, ...]]:
        """The end of what it points to, where the next one lies, and where those below it do."""
        if position in self.seen:
            raise _DamagedError(f"its directories lead back to the one at byte {position}, in a circle")
        self.seen.add(position)
        self._seek(position)
        (count,) = self.count.unpack(self.file.read(self.count.size))
        length = self.count.size + count * self.entry.size + self.offset.size
        if length > self.size:
            raise struct.error("more entries than the file has bytes")
        self.directory_bytes += length
        if self.directory_bytes > self.size:
            raise _DamagedError("its directories lie over one another")
        block = self.file.read(count * self.entry.size + self.offset.size)
        (following,) = self.offset.unpack_from(block, count * self.entry.size)
        tags: dict[int, tuple[int, ...]] = {}
        for tag, kind, number, inline in self.entry.iter_unpack(block[: count * self.entry.size]):
            values = self._values(tag, kind, number, inline)
            if values is not None:
                tags[tag] = values
        self.sizes_px.add(math.prod(max(tags.get(tag, ()), default=1) for tag in (256, 257)))
        ends = [
            start + length
            for offsets, lengths in ((273, 279), (324, 325))
            for start, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if start
        ]
        own_end = position + length - self.offset.size
        return max([own_end, *ends]), following, tags.get(330, ())

    def _values(self, tag: int, kind: int, number: int, inline: bytes) -> tuple[int, ...] | None:
        """Values of the few tags that say where something lies; None for the others."""
        length = number * _KIND_BYTES.get(kind, 1)
        if length > len(inline):
            (start,) = self.offset.unpack(inline)
            if start + length <= self.size:  # the others are not read
                self.value_bytes += length
                if self.value_bytes > _MOST_SHARED * self.size:
                    raise _DamagedError("the values of its directories lie over one another")
        if tag not in _READ_TAGS:
            return None
        letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if letter is None:
            return ()
        if length > len(inline):
            self._seek(start)
            if length > self.size:
                raise struct.error("more values than the file has bytes")
            inline = self.file.read(length)
        return struct.unpack_from(f"{self.order}{number}{letter}", inline)

    def _seek(self, position: int) -> None:
        if position > self.size:
            raise struct.error("an offset behind the end")
        self.file.seek(position)


def check_imagej_stack(file: Any, path: Path, directories: Directories) -> None:
    # Stacks above 4 GB lie behind one directory, whose own strips say nothing about the rest.
    meta = file.imagej_metadata or {}
    page = file.pages.first
    n = meta.get("images", 1)
    if file.is_imagej and directories.count == 1 and n > 1 and page.is_contiguous:
        needed, size = page.dataoffsets[0] + n * page.nbytes, file.filehandle.size
        if needed > size:
            raise InputError(
                f"{str(path)!r} is cut short: its {n} planes need {needed} bytes, it has {size}; copy or save it again"
            )
