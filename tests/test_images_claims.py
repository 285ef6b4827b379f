"""TIFFs that were made to keep a reader busy: circles, planes and pixels that are not there, parts elsewhere."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from care_bridge.errors import InputError
from care_bridge.images import Image, read_header, read_image, write_image
from care_bridge.images.read import stored_shape
from care_bridge.images.whole import check_whole

OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:00000000-0000-0000-0000-000000000001">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{x}" SizeY="5" SizeC="1"
SizeZ="{z}" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="{planes}"/>{more}
</Pixels></Image>{annotations}</OME>"""
PART = '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="{}">urn:uuid:2</UUID></TiffData>'
STEPS = (
    '<StructuredAnnotations><XMLAnnotation ID="A" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
    '<Modulo><ModuloAlongZ Type="lifetime" Start="0" End="{}" Step="{}"/></Modulo></Value></XMLAnnotation>'
    "</StructuredAnnotations>"
)


def ome(path: Path, **changes: Any) -> Path:
    told = {"x": 6, "z": 1, "planes": 1, "more": "", "annotations": ""} | changes
    tifffile.imwrite(path, np.ones((5, 6), np.uint8), description=OME.format(**told), metadata=None)
    return path


def stack(path: Path, planes: int = 3, **options: Any) -> Path:
    """A stack whose planes have a directory each."""
    with tifffile.TiffWriter(path) as file:
        for number in range(planes):
            file.write(np.full((5, 6), number, np.uint8), contiguous=False, metadata=None, **options)
    return path


def directories(content: bytes) -> list[tuple[int, int]]:
    """Where each directory of a little-endian TIFF lies, and where the place of the next one stands."""
    (position,) = struct.unpack_from("<I", content, 4)
    found = []
    while position:
        (count,) = struct.unpack_from("<H", content, position)
        found.append((position, position + 2 + 12 * count))
        (position,) = struct.unpack_from("<I", content, found[-1][1])
    return found


def set_tag(path: Path, tag: int, value: int) -> None:
    """Change the value of a tag of one value in every directory."""
    content = bytearray(path.read_bytes())
    for position, end in directories(content):
        for entry in range(position + 2, end, 12):
            if struct.unpack_from("<H", content, entry)[0] == tag:
                struct.pack_into("<HIi" if value < 0 else "<HII", content, entry + 2, 4, 1, value)
    path.write_bytes(content)


READERS = (read_image, read_header, stored_shape, lambda path: read_image(path, mapped=True))


def refused(path: Path, words: str) -> None:
    for read in READERS:
        started = time.monotonic()
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("back_to", [0, 1, 2])
def test_directories_in_a_circle_are_refused(tmp_path: Path, back_to: int) -> None:
    path = stack(tmp_path / "a.tif")
    content = bytearray(path.read_bytes())
    places = directories(content)
    struct.pack_into("<I", content, places[-1][1], places[back_to][0])
    path.write_bytes(content)
    refused(path, "in a circle")


def test_imagej_and_imageio_are_not_given_a_circle_either(tmp_path: Path) -> None:
    from care_bridge.checking.packages import _pixels
    from care_bridge.macros import run

    path = stack(tmp_path / "a.tif")
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, directories(content)[-1][1], directories(content)[0][0])
    path.write_bytes(content)
    for read in (
        lambda: _pixels(path),
        lambda: run("Restore_Image", {}, image=path),
        lambda: run("restore_image", {"input": str(path)}),
    ):
        with pytest.raises(InputError, match="in a circle"):
            read()


def test_smaller_pictures_that_lead_back_are_refused_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(np.ones((40, 40), np.uint8), subifds=1, metadata={"axes": "YX"})
        file.write(np.ones((20, 20), np.uint8), subfiletype=1)
    assert read_image(path).data.shape == (40, 40)
    content = bytearray(path.read_bytes())
    (position, _), *_ = directories(content)
    path = tmp_path / "circle.ome.tif"
    with tifffile.TiffFile(tmp_path / "pyramid.ome.tif") as opened:
        entry = opened.pages.first.tags[330]
    struct.pack_into("<I", content, entry.offset + 8, position)
    path.write_bytes(content)
    refused(path, "in a circle")


def test_directories_over_one_another_are_refused(tmp_path: Path) -> None:
    content = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(1000))
    for start in range(8, 400, 4):  # 50 entries each, of which all but the first word lie in the next one
        struct.pack_into("<H", content, start, 50)
        struct.pack_into("<I", content, start + 2 + 12 * 50, start + 4)
    (tmp_path / "a.tif").write_bytes(content)
    refused(tmp_path / "a.tif", "over one another")


def test_values_over_one_another_are_refused(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.tif", 40, software="x" * 20_000)
    content = bytearray(path.read_bytes())
    assert check_whole(path).count == 40
    for position, end in directories(content):
        for entry in range(position + 2, end, 12):
            struct.pack_into("<HII", content, entry + 2, 2, len(content) - 100, 50)
    path.write_bytes(content)
    refused(path, "values of its directories lie over one another")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"planes": 10**9}, "counts 1000000000 planes"),
        ({"planes": 10**15}, "counts 1000000000000000 planes"),
        ({"z": 10**10}, "counts 10000000000 planes"),
        ({"x": 10**9}, "counts"),
        ({"more": '<TiffData IFD="0" PlaneCount="90000"/>' * 30}, "counts 2700001 planes"),
        ({"more": PART.format("../b.ome.tif")}, "not in its folder"),
        ({"more": PART.format("/dev/zero")}, "not in its folder"),
        ({"more": PART.format("\\\\server\\share\\b.tif")}, "not in its folder"),
        ({"more": PART.format("C:b.tif")}, "not in its folder"),
        ({"more": PART.format("text.tif")}, "text.tif' is not a TIFF"),
        ({"more": PART.format("pipe.tif")}, "pipe.tif' is a pipe"),
        ({"more": PART.format("circle.tif")}, "circle.tif' is a damaged TIFF.+in a circle"),
        ({"annotations": STEPS.format(1e15, 1)}, "steps of 1"),
        ({"annotations": STEPS.format(1, 0)}, "steps of 0"),
        ({"annotations": STEPS.format("nan", 1)}, "steps of 1"),
    ],
)
def test_what_ome_xml_claims_is_held_against_the_file(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "text.tif").write_text("text")
    os.mkfifo(tmp_path / "pipe.tif")
    circle = stack(tmp_path / "circle.tif")
    content = bytearray(circle.read_bytes())
    struct.pack_into("<I", content, directories(content)[-1][1], directories(content)[0][0])
    circle.write_bytes(content)
    refused(ome(tmp_path / "a.ome.tif", **changes), words)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "is a pipe or a device")
    refused(Path("/dev/zero"), "is a pipe or a device")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("tag", [256, 257, 322])
def test_more_pixels_than_the_bytes_can_become_are_refused(
    tmp_path: Path, compression: str | None, tag: int
) -> None:
    tile = (16, 16) if tag == 322 else None
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((16, 16), np.uint16), compression=compression, metadata=None, tile=tile)
    set_tag(path, tag, 2**30)
    refused(path, "cannot become so many")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits", "lzma"])
def test_an_empty_picture_shrinks_as_far_as_it_can_and_is_read(
    tmp_path: Path, compression: str | None
) -> None:
    image = Image(np.zeros((4, 1000, 1000), np.uint16), "ZYX")
    write_image(tmp_path / "a.tif", image, compression=compression)
    assert read_image(tmp_path / "a.tif").data.shape == (4, 1000, 1000)


def test_packed_bits_become_bytes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((2000, 2000), bool), photometric="minisblack", metadata=None)
    assert read_image(tmp_path / "a.tif", "YX").data.all()
