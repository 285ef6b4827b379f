from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge import images
from care_bridge.axes import move_axes
from care_bridge.errors import InputError
from care_bridge.images import Image, read_header, read_image, write_image

SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}


def picture(axes: str, dtype: str = "uint16") -> Image:
    shape = [SIZES[letter] for letter in axes]
    values = np.arange(np.prod(shape)).reshape(shape) % 250
    return Image(values.astype(dtype), axes)


SUBSETS = ["".join(order) for n in (0, 1, 2, 3) for order in itertools.permutations("TCZ", n)]


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize("leading", SUBSETS)
def test_every_subset_of_axes_comes_back_with_its_calibration(
    tmp_path: Path, leading: str, suffix: str
) -> None:
    size = {letter: um for letter, um in (("Z", 0.5), ("Y", 0.125), ("X", 0.25)) if letter in leading + "YX"}
    interval = 1.5 if "T" in leading else None
    image = picture(leading + "YX").replace(pixel_size_um=size, frame_interval_s=interval)
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(move_axes(back.data, back.axes, image.axes), image.data)
    assert back.pixel_size_um == pytest.approx(size)
    assert back.frame_interval_s == interval
    assert back.axes == "".join(letter for letter in "TZCYX" if letter in image.axes)


@pytest.mark.parametrize("order", ["XY", "YXZ", "YXC", "XZYCT"])
def test_unusual_orders_are_stored_as_readers_expect(tmp_path: Path, order: str) -> None:
    image = picture(order)
    write_image(tmp_path / "a.tif", image)
    back = read_image(tmp_path / "a.tif")
    assert np.array_equal(move_axes(back.data, back.axes, order), image.data)


@pytest.mark.parametrize(
    ("dtype", "stored", "kind"),
    [
        ("uint8", "uint8", images.IMAGEJ),
        ("uint16", "uint16", images.IMAGEJ),
        ("int16", "int16", images.IMAGEJ),
        ("float32", "float32", images.IMAGEJ),
        ("float16", "float32", images.IMAGEJ),
        ("float64", "float32", images.IMAGEJ),
        ("int8", "int8", images.OME),
        ("uint32", "uint32", images.OME),
        ("int32", "int32", images.OME),
        ("int64", "int32", images.OME),
        ("uint64", "uint32", images.OME),
    ],
)
def test_each_type_is_stored_as_one_that_readers_know_and_changes_are_said(
    tmp_path, dtype, stored, kind
) -> None:
    image = picture("ZYX", dtype)
    report = write_image(tmp_path / "a.tif", image)
    back = read_image(tmp_path / "a.tif")
    assert (back.dtype.name, report.dtype, report.format) == (stored, stored, kind)
    assert np.array_equal(back.data, image.data)
    assert bool(report.notes) == (dtype != stored or kind == images.OME)
    assert report.clipped == 0


def test_masks_become_what_imagej_calls_a_mask(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", Image(np.array([[True, False]]), "YX"))
    assert read_image(tmp_path / "a.tif").data.tolist() == [[255, 0]]


def test_integers_are_rounded_and_clipped_and_the_share_is_reported(tmp_path: Path) -> None:
    # csbdeep's astype makes 65535 of -1.5 and 4464 of 70000 (care-training.md, section 1.3).
    data = np.array([[-1.5, 70000, 2.5, 3.5], [np.nan, np.inf, -0.4, 65535.4]], np.float32)
    report = write_image(tmp_path / "a.tif", Image(data, "YX"), dtype="uint16")
    assert read_image(tmp_path / "a.tif").data.tolist() == [[0, 65535, 2, 4], [0, 65535, 0, 65535]]
    assert (report.clipped_low, report.clipped_high, report.not_a_number) == (1 / 8, 2 / 8, 1 / 8)
    assert "37.5 % of the pixels clipped" in str(report)
    assert "NaN" in str(report)


@pytest.mark.parametrize(("dtype", "lowest"), [("uint8", 0), ("int8", -128), ("uint16", 0)])
def test_scaling_fills_the_type_and_says_how_to_get_the_values_back(tmp_path: Path, dtype, lowest) -> None:
    values = np.array([[-20.5, 0.0, 40000.0], [70000.0, 12.0, np.nan]], np.float32)
    report = write_image(tmp_path / "a.tif", Image(values, "YX"), dtype=dtype, scale=True)
    stored = read_image(tmp_path / "a.tif")
    assert (stored.data.min(), stored.data.max()) == (lowest, np.iinfo(dtype).max)
    assert report.clipped == 0
    (said,) = (note for note in report.notes if note.startswith("scaled: "))
    if report.format == images.IMAGEJ:  # int8 is not
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert said in file.imagej_metadata["Info"]
    back = eval(said.split("value = ")[1], {"grey": stored.data.astype(np.float64)})
    step = 70020.5 / (2 ** (8 * stored.dtype.itemsize) - 1)
    np.testing.assert_allclose(back.ravel()[:5], values.ravel()[:5], atol=0.501 * step)


@pytest.mark.parametrize(
    ("data", "dtype"), [(np.full((2, 2), 7.4, np.float32), "uint8"), (np.eye(2, dtype=np.float32), "float32")]
)
def test_nothing_is_scaled_where_there_is_one_value_or_a_float_type(tmp_path: Path, data, dtype) -> None:
    report = write_image(tmp_path / "a.tif", Image(data, "YX"), dtype=dtype, scale=True)
    assert report.notes == ()
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, data.astype(dtype))


def test_the_largest_unsigned_number_survives(tmp_path: Path) -> None:
    data = np.array([[2.0**32 - 1, 2.0**33, 5.0]], np.float64)
    write_image(tmp_path / "a.tif", Image(data, "YX"), dtype="uint32")
    assert read_image(tmp_path / "a.tif").data.tolist() == [[2**32 - 1, 2**32 - 1, 5]]


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "uint32", "int8"]),
)
def test_no_value_ever_wraps(tmp_path_factory, values, dtype) -> None:
    path = tmp_path_factory.getbasetemp() / "wrap.tif"
    write_image(path, Image(np.array([values], np.float32), "YX"), dtype=dtype)
    limits = np.iinfo(dtype)
    expected = np.clip(np.rint(np.array(values, np.float32).astype(np.float64)), limits.min, limits.max)
    assert np.array_equal(read_image(path).data.ravel(), expected)


@pytest.mark.parametrize(
    ("spelt", "um"),
    [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("inch", 25400)],
)
def test_imagej_units_become_micrometres_and_stay_spelt_as_they_were(tmp_path, spelt, um) -> None:
    metadata = {"axes": "ZYX", "unit": spelt, "spacing": 3.0, "finterval": 2}
    data = np.zeros((4, 5, 6), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, resolution=(2, 4), metadata=metadata)
    image = read_image(tmp_path / "a.tif")
    assert image.pixel_size_um == pytest.approx({"Z": 3 * um, "Y": um / 4, "X": um / 2})
    write_image(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.imagej_metadata["unit"] == ("micron" if spelt.startswith("\\") else spelt)
        assert file.imagej_metadata["spacing"] == pytest.approx(3)
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(2)
    assert read_image(tmp_path / "b.tif").pixel_size_um == pytest.approx(image.pixel_size_um)


def test_a_frame_interval_in_other_units_becomes_seconds(tmp_path: Path) -> None:
    metadata = {"axes": "TYX", "finterval": 250, "tunit": "ms"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 6), np.uint8), imagej=True, metadata=metadata)
    assert read_image(tmp_path / "a.tif").frame_interval_s == 0.25


def test_ome_sizes_in_nanometres_become_micrometres(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((5, 6), np.uint16), metadata=metadata)
    assert read_image(tmp_path / "a.ome.tif").pixel_size_um == pytest.approx({"X": 0.25, "Y": 0.5})


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_an_uncalibrated_image_stays_uncalibrated(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", picture("ZYX"))
    back = read_image(tmp_path / f"a{suffix}")
    assert back.pixel_size_um == {}
    assert back.frame_interval_s is None


def test_a_printers_resolution_is_no_calibration(tmp_path: Path) -> None:
    for unit, resolution, expected in (
        ("INCH", 300, {}),
        ("CENTIMETER", 28.35, {}),
        ("CENTIMETER", 1e5, {"X": 0.1, "Y": 0.1}),
    ):
        data = np.zeros((5, 6), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", data, resolution=(resolution, resolution), resolutionunit=unit)
        assert read_image(tmp_path / "a.tif").pixel_size_um == pytest.approx(expected)


def test_signed_images_of_imagej_come_back_signed(tmp_path: Path) -> None:
    # ImageJ stores 16-bit signed images as unsigned ones with this calibration function.
    stored = np.array([[0, 32768, 65535]], np.uint16)
    metadata = {"axes": "YX", "cf": 0, "c0": -32768, "c1": 1}
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata=metadata)
    assert read_image(tmp_path / "a.tif").data.tolist() == [[-32768, 0, 32767]]


def test_a_plain_stack_of_imagej_is_one_of_slices(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((7, 5, 6), np.uint16),
        description="ImageJ=1.54f\nimages=7\n",
        metadata=None,
    )
    assert read_image(tmp_path / "a.tif").axes == "ZYX"


def test_axes_that_the_caller_gives_win(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", picture("ZYX"))
    assert read_image(tmp_path / "a.tif", "TYX").axes == "TYX"
    assert read_header(tmp_path / "a.tif", "tyx").axes == "TYX"
    with pytest.raises(InputError, match=r"has 3 dimensions .*ZYX.*axes='YX' names 2"):
        read_image(tmp_path / "a.tif", "YX")
    with pytest.raises(InputError, match="holds Q"):
        read_image(tmp_path / "a.tif", "QYX")


def test_a_stack_that_does_not_say_what_it_is_asks_for_axes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, 5, 6), np.uint16))
    with pytest.raises(
        InputError, match=r"does not say what its dimensions mean; give axes, e\.g\. axes='ZYX'"
    ):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", "ZYX").shape == (7, 5, 6)


def test_colours_are_refused_with_the_way_out(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"colour image .*Split Channels.*axes='YXC'"):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", "YXC").shape == (5, 6, 3)


def test_several_series_become_one_axis(tmp_path: Path) -> None:
    image = Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), "SYX")
    report = write_image(tmp_path / "a.tif", image)
    assert report.format == images.OME
    back = read_image(tmp_path / "a.tif")
    assert back.axes == "SYX"
    assert np.array_equal(back.data, image.data)
    assert np.array_equal(read_image(tmp_path / "a.tif", series=1).data, image.data[1])
    with pytest.raises(InputError, match="series=3 is none of 0-2"):
        read_image(tmp_path / "a.tif", series=3)


def test_series_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for size in (5, 6):
            writer.write(np.zeros((size, 7), np.uint8), metadata={"axes": "YX"})
    with pytest.raises(InputError, match=r"different kinds \(YX \(5, 7\) uint8, YX \(6, 7\) uint8\)"):
        read_image(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_compressed_files_are_read(tmp_path: Path, compression: str) -> None:
    image = picture("ZYX")
    write_image(tmp_path / "a.tif", image, compression=compression)
    assert np.array_equal(read_image(tmp_path / "a.tif", mapped=True).data, image.data)


def test_uncompressed_files_can_be_mapped(tmp_path: Path) -> None:
    image = picture("ZYX").replace(pixel_size_um={"X": 1.0})
    for name in ("a.tif", "a.ome.tif"):
        write_image(tmp_path / name, image)
        back = read_image(tmp_path / name, mapped=True)
        assert isinstance(back.data, np.memmap)
        assert np.array_equal(back.data, image.data)
        assert not back.data.flags.writeable


def test_big_endian_files_come_back_in_the_machines_order(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(6, dtype=">u2").reshape(2, 3), byteorder=">")
    back = read_image(tmp_path / "a.tif")
    assert back.dtype == np.uint16
    assert back.dtype.isnative
    assert back.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_image(tmp_path / "a.tif", mapped=True).data.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "z.tif"])
def test_a_file_cut_short_anywhere_is_refused_or_whole(tmp_path: Path, name: str) -> None:
    image = picture("TZYX")
    write_image(tmp_path / name, image, compression="zlib" if name == "z.tif" else None)
    content = (tmp_path / name).read_bytes()
    refused = 0
    for length in range(0, len(content), 7):
        (tmp_path / "cut.tif").write_bytes(content[:length])
        try:
            assert np.array_equal(read_image(tmp_path / "cut.tif").data, image.data)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - the loop needs both outcomes
            refused += 1
    assert refused > len(content) // 7 * 0.5


def test_a_stack_behind_one_directory_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    # ImageJ's way with stacks above 4 GB: one directory for the first plane, the others right behind it.
    first, others = np.full((20, 20), 1, np.uint8), np.full((49, 20, 20), 2, np.uint8)
    description = "ImageJ=1.54f\nimages=50\nslices=50\n"
    tifffile.imwrite(tmp_path / "a.tif", first, description=description, metadata=None)
    content = (tmp_path / "a.tif").read_bytes() + others.tobytes()
    (tmp_path / "a.tif").write_bytes(content)
    assert read_image(tmp_path / "a.tif").data[:, 0, 0].tolist() == [1] + 49 * [2]
    (tmp_path / "a.tif").write_bytes(content[:-1])
    with pytest.raises(InputError, match="its 50 planes need"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n", "is not a TIFF"),
        (b"II*\0", "cut short"),
        (b"MM\0*\xff\xff\xff\xff", "cut short"),
    ],
)
def test_what_is_not_a_tiff_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.tif")


def test_damaged_pixels_are_said(tmp_path: Path) -> None:
    write_image(
        tmp_path / "a.tif", Image(np.random.default_rng(0).random((64, 64)), "YX"), compression="zlib"
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[0]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + 200] = b"\xff" * 200
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("image", "dtype", "message"),
    [
        (Image(np.zeros((0, 5)), "YX"), None, "no pixel at all"),
        (Image(np.array([[2**40]]), "YX"), None, "more than int32 can hold"),
        (Image(np.array([[1e300]]), "YX"), "float32", "beyond the range of float32"),
        (Image(np.zeros((2, 2)), "YX"), "complex64", "not a type that TIFF readers share"),
        (Image(np.zeros((2, 2)), "YX"), "float16", "not a type that TIFF readers share"),
    ],
)
def test_what_cannot_be_saved_is_said_and_nothing_is_left(tmp_path, image, dtype, message) -> None:
    with pytest.raises(InputError, match=message):
        write_image(tmp_path / "a.tif", image, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_integers_that_float32_rounds_are_said(tmp_path: Path) -> None:
    report = write_image(tmp_path / "a.tif", Image(np.array([[2**24 + 1]], np.int32), "YX"), dtype="float32")
    assert any("lost their last digits" in note for note in report.notes)


def test_images_too_large_for_imagej_become_ome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("care_bridge.images.write._IMAGEJ_LIMIT_BYTES", 100)
    report = write_image(tmp_path / "a.tif", picture("ZYX"))
    assert report.format == images.OME
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
    assert np.array_equal(read_image(tmp_path / "a.tif").data, picture("ZYX").data)


def test_provenance_is_kept_where_fiji_shows_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", picture("YX"), provenance="restored twice\nby mito")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata["Info"] == "restored twice\nby mito"
    write_image(tmp_path / "a.ome.tif", picture("YX"), provenance="restored twice")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert "restored twice" in file.ome_metadata


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    before = tmp_path / "a.tif"
    before.write_bytes(b"before")
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from care_bridge.images import Image, write_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        f"    write_image({str(before)!r}, Image(np.zeros((300, 300), np.uint16), 'YX'))\n"
        "except OSError as error:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 7
    assert before.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.tif"]


def test_an_image_checks_its_axes_and_type() -> None:
    with pytest.raises(InputError, match="names 3 dimensions"):
        Image(np.zeros((2, 2)), "ZYX")
    with pytest.raises(InputError, match="complex64"):
        Image(np.zeros((2, 2), np.complex64), "YX")
    image = Image(np.zeros((2, 3)), "yx", name="a")
    assert (image.size("X"), image.size("Z"), image.replace(name="b").name) == (3, 1, "b")


def test_the_shared_images_are_read_as_their_list_says(shared: Path) -> None:
    for file, axes, shape in (
        ("stacks3d/dna_confocal_widefield_zcyx.tif", "ZCYX", (45, 2, 130, 133)),
        ("hela/hela_lyso_mito_nuc_cyx_uint16.tif", "CYX", (3, 512, 672)),
        ("pairs_fmd/BPAE_R_noisy.tif", "YX", (512, 512)),
    ):
        header = read_header(shared / "data" / file)
        assert (header.axes, header.shape) == (axes, shape)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "z.tif", "big.tif"])
def test_damage_anywhere_ends_in_a_sentence_or_an_image(tmp_path: Path, name: str, capfd) -> None:
    if name == "big.tif":
        tifffile.imwrite(
            tmp_path / name,
            picture("ZYX").data,
            bigtiff=True,
            photometric="minisblack",
            metadata={"axes": "ZYX"},
        )
    else:
        write_image(tmp_path / name, picture("ZYX"), compression="zlib" if name == "z.tif" else None)
    content = (tmp_path / name).read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in draw.integers(0, len(content), 3):
            damaged[place] = draw.integers(256)
        (tmp_path / "b.tif").write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_image(tmp_path / "b.tif")
        except InputError:
            refused += 1
    assert refused > 10
    assert capfd.readouterr().err == ""


OME_SET = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:00000000-0000-0000-0000-000000000001">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="6" SizeY="5" SizeC="1"
SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID
FileName="a.ome.tif">urn:uuid:00000000-0000-0000-0000-000000000001</UUID></TiffData>
<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID
FileName="b.ome.tif">urn:uuid:00000000-0000-0000-0000-000000000002</UUID></TiffData>
</Pixels></Image></OME>"""


def test_one_file_of_a_set_is_not_filled_up_with_zeros(tmp_path: Path, capfd) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", np.ones((5, 6), np.uint8), description=OME_SET, metadata=None)
    with pytest.raises(InputError, match="the others are not beside it"):
        read_image(tmp_path / "a.ome.tif")
    assert capfd.readouterr().err == ""


# --- headers that promise other planes than the file holds


def stopped(path: Path, frames: np.ndarray, held: int, **settings: object) -> Path:
    """A file whose header was written for all frames and that holds the first ones, as when a recording is stopped."""
    tifffile.imwrite(path, frames, **settings)
    with tifffile.TiffFile(path) as file:
        header = file.pages.first.description
    planes = frames.reshape(-1, *frames.shape[-2:])
    with tifffile.TiffWriter(path) as writer:
        for number in range(held):
            description = header.encode() if number == 0 else None
            writer.write(planes[number], description=description, metadata=None, contiguous=False)
    return path


KINDS_OF_HEADER = {"imagej": {"imagej": True}, "ome": {"ome": True}, "shaped": {}}


@pytest.mark.parametrize("axes", ["TYX", "ZYX", "CYX"])
@pytest.mark.parametrize("kind", KINDS_OF_HEADER)
def test_a_recording_that_was_stopped_keeps_what_its_axes_mean(tmp_path: Path, kind: str, axes: str) -> None:
    frames = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    path = stopped(tmp_path / "a.tif", frames, 3, metadata={"axes": axes}, **KINDS_OF_HEADER[kind])
    with pytest.warns(images.HeaderWarning, match=rf"5 planes.*holds 3.*3 of 5 along {axes[0]}"):
        image = read_image(path)
    assert image.axes == axes
    assert np.array_equal(image.data, frames[:3])


@pytest.mark.parametrize("kind", KINDS_OF_HEADER)
def test_of_a_recording_stopped_in_the_middle_of_a_stack_whole_ones_are_taken(
    tmp_path: Path, kind: str
) -> None:
    frames = np.arange(3 * 2 * 2 * 6 * 7, dtype=np.uint16).reshape(3, 2, 2, 6, 7)
    settings = {"metadata": {"axes": "TZCYX"}, **KINDS_OF_HEADER[kind]}
    path = stopped(tmp_path / "a.tif", frames, 9, **settings)
    with pytest.warns(images.HeaderWarning, match=r"2 of 3 along T; 1 plane of an unfinished T left out"):
        image = read_image(path)
    assert image.axes == "TZCYX"
    assert np.array_equal(image.data, frames[:2])


def test_axes_that_the_caller_gives_help_where_the_header_promises_too_much(tmp_path: Path) -> None:
    frames = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    path = stopped(tmp_path / "a.tif", frames, 3, metadata={"axes": "TYX"}, imagej=True)
    with pytest.warns(images.HeaderWarning):
        assert read_image(path, "ZYX").axes == "ZYX"
    with pytest.warns(images.HeaderWarning):
        assert read_header(path).shape == (3, 6, 7)


# --- dimensions of size 1, samples, colours


@pytest.mark.parametrize("settings", [{}, {"imagej": True}, {"ome": True}], ids=["plain", "imagej", "ome"])
@pytest.mark.parametrize("shape", [(16, 17, 1), (1, 1, 16, 17), (1, 16, 17)], ids=str)
def test_dimensions_of_size_1_are_no_stack_of_lines(tmp_path: Path, settings: dict, shape: tuple) -> None:
    pixels = np.arange(16 * 17, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels.reshape(shape), **settings)
    if settings.get("ome") and shape[-1] == 1:
        # This file says itself that it has 16 channels of 17 x 1 pixels.
        with pytest.raises(InputError, match=r"1 pixel along X .*axes='YXC'"):
            read_image(tmp_path / "a.tif")
        return
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "YX"
    assert np.array_equal(image.data, pixels.reshape(16, 17))


def test_pages_of_one_pixels_width_are_no_stack(tmp_path: Path) -> None:
    pixels = np.arange(42, dtype=np.uint16).reshape(6, 7)
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., np.newaxis], metadata=None)  # 6 pages of 7 x 1 pixels
    for axes in (None, "ZYX", "TYX"):
        with pytest.raises(InputError, match="axes='YXC'"):
            read_image(tmp_path / "a.tif", axes)
    for axes in ("YXC", "YX"):
        assert np.array_equal(read_image(tmp_path / "a.tif", axes).data, pixels)


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "CYX", "YX", "TZCYX"])
@pytest.mark.parametrize("settings", [{}, {"imagej": True}, {"ome": True}], ids=["plain", "imagej", "ome"])
def test_a_letter_that_the_file_lacks_has_size_1(tmp_path: Path, settings: dict, axes: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((6, 7), np.uint16), **settings)
    image = read_image(tmp_path / "a.tif", axes)
    assert (image.axes, image.shape) == ("YX", (6, 7))
    header = read_header(tmp_path / "a.tif", axes)
    assert (header.axes, header.shape) == ("YX", (6, 7))


@pytest.mark.parametrize(("planar", "axes"), [("separate", "CYX"), ("contig", "YXC")])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_samples_that_are_no_colours_are_channels(tmp_path: Path, planar: str, axes: str, n: int) -> None:
    shape = (n, 16, 17) if planar == "separate" else (16, 17, n)
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", planarconfig=planar)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == axes
    assert np.array_equal(image.data, data)


def test_transparency_is_no_channel(tmp_path: Path) -> None:
    data = np.zeros((16, 17, 2), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", data, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    with pytest.raises(InputError, match=r"grey with transparency.*--image-axes"):
        read_image(tmp_path / "a.tif")


def test_a_colour_table_is_told_from_one_that_only_shows_intensities(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ramp = np.zeros((3, 256), np.uint16)
    ramp[1] = np.arange(256) * 257  # ImageJ's Green
    tifffile.imwrite(tmp_path / "green.tif", pixels, photometric="palette", colormap=ramp)
    assert np.array_equal(read_image(tmp_path / "green.tif").data, pixels)
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "table.tif", pixels, photometric="palette", colormap=colours)
    with pytest.raises(InputError, match=r"colour image.*places in a table.*axes='YX'"):
        read_image(tmp_path / "table.tif")
    assert np.array_equal(read_image(tmp_path / "table.tif", "YX").data, pixels)


def test_a_binary_image_is_0_and_255_as_in_imagej(tmp_path: Path) -> None:
    mask = np.arange(42).reshape(6, 7) % 3 == 0
    tifffile.imwrite(tmp_path / "a.tif", mask)
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == read_header(tmp_path / "a.tif").dtype == np.uint8
    assert np.array_equal(image.data, np.where(mask, 255, 0))


def test_complex_numbers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((6, 7), np.complex64))
    with pytest.raises(InputError, match="complex64; integers or floats"):
        read_header(tmp_path / "a.tif")


# --- several images in a file


def test_a_thumbnail_beside_the_image_is_left_alone(tmp_path: Path) -> None:
    pixels = np.arange(42, dtype=np.uint16).reshape(6, 7)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pixels, metadata=None)
        writer.write(np.zeros((3, 3, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(read_image(tmp_path / "a.tif").data, pixels)
    with pytest.raises(InputError, match="colour image"):
        read_image(tmp_path / "a.tif", series=1)


def test_images_written_one_by_one_are_none_of_them_lost(tmp_path: Path) -> None:
    frames = np.arange(84, dtype=np.uint16).reshape(2, 6, 7)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for frame in frames:
            writer.write(frame)
    with pytest.raises(InputError, match=r"shape \(2, 6, 7\)\) does not say what its dimensions mean"):
        read_image(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", "TYX").data, frames)
    assert np.array_equal(read_image(tmp_path / "a.tif", series=1).data, frames[1])
