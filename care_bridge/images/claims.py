"""What a TIFF claims of itself, held against what it has, before memory is asked for.

OME-XML counts planes and names other files, directories count pixels; tifffile believes both. A file of 3 kB that says
it holds a terabyte would take the machine, and one that names a pipe as its second part would wait for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from care_bridge.errors import InputError
from care_bridge.images.layout import Layout
from care_bridge.images.whole import Directories, check_whole

MOST_PLANES = 2_000_000
"""More planes than any file has; tifffile makes a list of so many places before it looks for the planes."""

# What a byte can become at most, by the number of the compression. Of the others it is not known; a constant picture
# shrinks furthest.
_MOST_PER_BYTE = {1: 1, 5: 4096, 8: 1100, 32946: 1100, 32773: 128}
_MOST_PER_BYTE_ELSE = 1 << 15
_FREE_BYTES = 1 << 20


def check_claims(file: Any, path: Path, directories: Directories) -> None:
    """Hold the OME-XML of an opened TIFF against the file; does nothing for files without.

    Raises
    ------
    InputError
        If it counts more planes than can be, or names a part of itself outside of its folder, or one that is damaged.
    """
    if not file.is_ome:
        return
    try:
        root = ElementTree.fromstring(file.ome_metadata)
    except ElementTree.ParseError:
        return  # tifffile takes it for a plain TIFF then
    planned = 0
    for pixels in root.iter():
        if not pixels.tag.endswith("Pixels"):
            continue
        sizes = [int(pixels.get(f"Size{axis}", 1)) for axis in "XYZCT"]
        planes = max(math.prod(sizes[2:]), math.prod(sizes) // directories.smallest_px)
        for data in pixels:
            if data.tag.endswith("TiffData"):
                told = data.get("PlaneCount", data.get("NumPlanes"))
                planned += (1 if "IFD" in data.attrib else directories.count) if told is None else int(told)
        if max(planes, planned, *sizes) > MOST_PLANES:
            raise InputError(
                f"{str(path)!r} is damaged: its OME-XML counts {max(planes, planned, *sizes)} planes, "
                f"the file has {directories.count}; save it again from the original"
            )
    for along in root.iter():
        if "Along" in along.tag and "Start" in along.attrib:
            start, stop, step = (float(along.get(key, 1)) for key in ("Start", "End", "Step"))
            if not abs(stop - start) <= MOST_PLANES * abs(step):
                raise InputError(
                    f"{str(path)!r} is damaged: its OME-XML divides {start:g} to {stop:g} into steps of {step:g}; "
                    "save it again from the original"
                )
    for part in {
        name for uuid in root.iter() if uuid.tag.endswith("UUID") and (name := uuid.get("FileName"))
    } - {path.name}:
        _check_part(path, part)


def _check_part(path: Path, part: str) -> None:
    """One of several files that make up an image: beside it or below, and as whole as the first."""
    windows = PureWindowsPath(part)  # knows both kinds of slashes, drives and shares
    if windows.anchor or ".." in windows.parts or part.startswith("~") or "\0" in part:
        raise InputError(
            f"{str(path)!r} names {part!r} as a part of itself, which is not in its folder; "
            "copy the parts beside it, or save the image as one file"
        )
    beside = path.parent / part
    if beside.exists():  # one that is missing is said when the planes are looked for
        check_whole(beside)


def check_pixels(found: Sequence[Layout], path: Path) -> None:
    """See that the stored bytes can become as many pixels as the series of a TIFF are taken to have.

    Raises
    ------
    InputError
        If not; with both numbers.
    """
    for one in found:
        keyframe = one.series.keyframe
        pages: Sequence[Any]
        if one.planes is not None:
            pages = one.planes
        elif one.series.dataoffset is not None:
            pages = [keyframe]  # one block of pixels lies in one file
        else:
            pages = [page for page in one.series.pages if page is not None]
        files = {page.parent.filehandle.path: page.parent.filehandle.size for page in pages}
        stored = sum(files.values())
        most = _MOST_PER_BYTE.get(int(keyframe.compression), _MOST_PER_BYTE_ELSE)
        if keyframe.bitspersample % 8:
            most *= 16  # 1 to 15 bits become 8 or 16
        item = one.dtype.itemsize
        claimed = max(math.prod(one.shape) * item, math.prod(keyframe.chunks) * item)
        if claimed > stored * most + _FREE_BYTES:
            raise InputError(
                f"{str(path)!r} says that it holds {claimed} bytes of pixels (shape {tuple(one.shape)}, {one.dtype}), "
                f"but has {stored} bytes, which cannot become so many; it is damaged, save it again from the original"
            )
