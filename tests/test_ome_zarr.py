"""OME-Zarr in and out: what is said of an image comes back, and what cannot be read is one sentence."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from care_bridge.axes import move_axes
from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.images import (
    Channel,
    HeaderWarning,
    Image,
    is_zarr,
    list_images,
    only_channel,
    open_volume,
    read_header,
    read_image,
    write_image,
)

SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 9, "X": 7}
VERSIONS = ("0.4", "0.5")

run = CliRunner().invoke


def picture(axes: str, dtype: str = "uint16") -> Image:
    shape = [SIZES[letter] for letter in axes]
    return Image((np.arange(np.prod(shape)).reshape(shape) % 250).astype(dtype), axes)


def attributes(path: Path) -> dict[str, Any]:
    """What a group says, whichever version it is."""
    if (path / "zarr.json").exists():
        return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    return json.loads((path / ".zattrs").read_text())


def change(path: Path, how: Any) -> None:
    """Let `how` change a group's metadata in place."""
    file = path / "zarr.json" if (path / "zarr.json").exists() else path / ".zattrs"
    values = json.loads(file.read_text())
    how(values["attributes"]["ome"] if file.name == "zarr.json" else values)
    file.write_text(json.dumps(values))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["YX", "ZYX", "TCZYX", "YXC", "XZYCT", "CYX"])
def test_an_image_comes_back_with_all_that_is_said_of_it(tmp_path: Path, axes: str, version: str) -> None:
    size = {letter: um for letter, um in (("Z", 0.5), ("Y", 0.125), ("X", 0.25)) if letter in axes}
    channels = tuple(Channel(f"dye {n}", f"00FF0{n}") for n in range(SIZES["C"] if "C" in axes else 1))
    image = picture(axes).replace(
        pixel_size_um=size, frame_interval_s=1.5 if "T" in axes else None, unit="nm", channels=channels
    )
    report = write_image(tmp_path / "a.ome.zarr", image, ome_zarr=version)
    assert report.format == f"ome-zarr-{version}"
    back = read_image(tmp_path / "a.ome.zarr")
    assert back.axes == "".join(letter for letter in "TCZYX" if letter in axes)
    assert np.array_equal(move_axes(back.data, back.axes, axes), image.data)
    assert back.dtype == image.dtype
    assert back.pixel_size_um == pytest.approx(size)
    assert (back.frame_interval_s, back.unit, back.channels, back.name) == (
        image.frame_interval_s, "nanometer", channels, "a.ome.zarr",
    )  # fmt: skip


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3)])
def test_the_metadata_are_what_the_specification_says(tmp_path: Path, version: str, zarr_format: int) -> None:
    # ngff.openmicroscopy.org 0.4 and 0.5: order and units of axes, scale then translation, contrast of each channel.
    image = Image(np.zeros((3, 2, 600, 500), np.uint16), "CZYX", {"Z": 1.0, "Y": 0.1, "X": 0.1})
    write_image(tmp_path / "a.zarr", image, ome_zarr=version)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert group.metadata.zarr_format == zarr_format
    said = attributes(tmp_path / "a.zarr")
    (multiscale,) = said["multiscales"]
    assert multiscale.get("version", said.get("version")) == version
    assert multiscale["axes"] == [
        {"name": "c", "type": "channel"},
        *({"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"),
    ]
    shapes = [group[one["path"]].shape for one in multiscale["datasets"]]
    assert shapes == [(3, 2, 600, 500), (3, 2, 300, 250), (3, 2, 150, 125)]
    scales = [one["coordinateTransformations"][0]["scale"] for one in multiscale["datasets"]]
    assert scales == [[1.0, 1.0, 0.1, 0.1], [1.0, 1.0, 0.2, 0.2], [1.0, 1.0, 0.4, 0.4]]
    # The middle of the first 2 x 2 pixels lies half a pixel from the middle of the first.
    assert multiscale["datasets"][1]["coordinateTransformations"][1]["translation"] == [0.0, 0.0, 0.05, 0.05]
    assert [set(one["window"]) for one in said["omero"]["channels"]] == [{"min", "max", "start", "end"}] * 3
    assert all(len(one["color"]) == 6 for one in said["omero"]["channels"])


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(257, 530), st.integers(2, 40)),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]),
)
def test_smaller_copies_are_means_of_what_lies_below_them(
    shape: tuple[int, int, int], dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pyramid")
    data = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    write_image(folder / "a.zarr", Image(data, "ZYX"))
    planes, rows, columns = (-(-size // step) for size, step in zip(shape, (1, 2, 2), strict=True))
    wide = np.pad(data, ((0, 0), (0, shape[1] % 2), (0, shape[2] % 2)), mode="edge").astype(np.float64)
    mean = wide.reshape(planes, rows, 2, columns, 2).mean(axis=(2, 4))
    expected = np.rint(mean) if np.dtype(dtype).kind in "ui" else mean
    # Halves are rounded after each axis: at most one grey level from the mean of all four.
    found = np.asarray(zarr.open_array(str(folder / "a.zarr" / "1"), mode="r")[...]).astype(np.float64)
    assert np.abs(found - expected).max() <= (0 if np.dtype(dtype).kind in "ui" else 1e-4)
    shutil.rmtree(folder)


def test_planes_are_halved_along_z_only_where_its_pixels_are_as_small(tmp_path: Path) -> None:
    for name, z in (("alike.zarr", 0.1), ("thick.zarr", 0.5)):
        image = Image(np.zeros((8, 300, 300), np.uint8), "ZYX", {"Z": z, "Y": 0.1, "X": 0.1})
        write_image(tmp_path / name, image)
    assert zarr.open_array(str(tmp_path / "alike.zarr" / "1")).shape == (4, 150, 150)
    assert zarr.open_array(str(tmp_path / "thick.zarr" / "1")).shape == (8, 150, 150)


@pytest.mark.parametrize("name", ["a.tif", "b.ome.tif", "c.ome.zarr"])
def test_a_box_of_a_volume_is_that_of_the_image(tmp_path: Path, name: str) -> None:
    image = picture("TCZYX", "int16").replace(pixel_size_um={"Z": 0.5, "Y": 0.1, "X": 0.1})
    for place, compression in (("plain", None), ("packed", "zlib")):
        path = tmp_path / place / name
        write_image(path, image, compression=None if name.endswith(".zarr") else compression)
        whole, volume = read_image(path), open_volume(path)
        assert (volume.axes, volume.shape, volume.dtype) == (whole.axes, whole.shape, whole.dtype)
        assert (volume.pixel_size_um, volume.unit) == (whole.pixel_size_um, whole.unit)
        for index in [
            (1, 2),
            (slice(None), 0, slice(1, 3)),
            (..., slice(2, 8, 3)),
            (0, 1, 2, slice(4, 5), -1),
        ]:
            assert np.array_equal(volume[index], whole.data[index])
        assert np.array_equal(volume.only_channel(1)[1], only_channel(whole, 1).data[1])
        assert read_header(path).shape == whole.shape


def test_what_is_shown_of_a_hyperstack_s_planes_is_what_was_recorded(tmp_path: Path) -> None:
    import tifffile

    data = np.arange(3 * 5 * 6, dtype=np.uint16).reshape(3, 5, 6)
    tifffile.imwrite(
        tmp_path / "a.tif", data, compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"}
    )
    assert np.array_equal(open_volume(tmp_path / "a.tif")[1:3, 2], data[1:3, 2])


@pytest.mark.parametrize(("shards", "zarr_format"), [(None, 2), (None, 3), ((2, 8, 8), 3)])
def test_images_of_other_writers_are_read(tmp_path: Path, shards: Any, zarr_format: int) -> None:
    data = np.arange(4 * 9 * 7, dtype=">u2").reshape(1, 1, 4, 9, 7)
    path = tmp_path / "theirs"  # the name need not say what it is
    group = zarr.create_group(str(path), zarr_format=zarr_format)
    array = group.create_array(
        "s0", shape=data.shape, dtype=data.dtype, chunks=(1, 1, 2, 4, 4), shards=shards and (1, 1, *shards)
    )
    array[...] = data
    image = {
        "axes": [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}]
        + [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"],
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 4, 2, 2]}]}
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 100, 50, 50]}],
    }
    said = {"multiscales": [image]}
    group.attrs.update(said if zarr_format == 2 else {"ome": {"version": "0.5", **said}})
    found = read_image(path)
    assert found.axes == "ZYX"
    assert np.array_equal(found.data, data[0, 0])
    assert found.data.dtype == np.uint16  # in the machine's order, also when stored in the other
    assert found.pixel_size_um == pytest.approx({"Z": 0.4, "Y": 0.1, "X": 0.1})
    assert read_image(path / "s0", axes="TCZYX").shape == (4, 9, 7)


@pytest.mark.parametrize("version", VERSIONS)
def test_axes_in_another_order_mean_what_they_say(tmp_path: Path, version: str) -> None:
    data = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    write_image(tmp_path / "a.zarr", Image(data, "ZYX"), ome_zarr=version)

    def rename(ome: dict[str, Any]) -> None:
        ome["multiscales"][0]["axes"] = [{"name": name} for name in "yxc"]

    change(tmp_path / "a.zarr", rename)
    found = read_image(tmp_path / "a.zarr")
    assert found.axes == "YXC"
    assert np.array_equal(found.data, data)


def test_several_images_side_by_side_are_chosen_among(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    for number in (0, 1):
        write_image(tmp_path / f"{number}.zarr", picture("YX").replace(data=picture("YX").data + number))
        shutil.move(tmp_path / f"{number}.zarr", path / str(number))
    (path / "zarr.json").write_text(
        json.dumps(
            {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"bioformats2raw.layout": 3}}}
        )
    )
    with pytest.raises(InputError, match="holds 2 images; choose one with series=0"):
        read_image(path)
    assert np.array_equal(read_image(path, series=1).data, picture("YX").data + 1)
    with pytest.raises(InputError, match="series=2 is none of 0-1"):
        read_image(path, series=2)


# --- bad input


def no_array(path: Path) -> None:
    shutil.rmtree(path / "0")


def no_pixels(path: Path) -> None:
    for entry in (path / "0").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)


def no_metadata(path: Path) -> None:
    for name in ("zarr.json", ".zattrs", ".zgroup"):
        (path / name).unlink(missing_ok=True)


def cut_metadata(path: Path) -> None:
    file = path / "zarr.json" if (path / "zarr.json").exists() else path / ".zattrs"
    file.write_bytes(file.read_bytes()[:-40])


def cut_chunks(path: Path) -> None:
    for file in (path / "0").rglob("*"):
        if file.is_file() and not file.name.startswith((".z", "zarr")):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def says(**changes: Any) -> Any:
    def how(path: Path) -> None:
        change(path, lambda ome: ome["multiscales"][0].update(changes))

    return how


def array_says(**changes: Any) -> Any:
    def how(path: Path) -> None:
        file = path / "0" / ("zarr.json" if (path / "0" / "zarr.json").exists() else ".zarray")
        values = json.loads(file.read_text())
        values.update(changes)
        file.write_text(json.dumps(values))

    return how


def plate(path: Path) -> None:
    change(path, lambda ome: ome.update(plate={"wells": []}))


def shards_disagree(path: Path) -> None:
    file = path / "0" / "zarr.json"
    values = json.loads(file.read_text())
    values["chunk_grid"]["configuration"]["chunk_shape"] = [3, 5, 5]
    values["codecs"][0]["configuration"]["chunk_shape"] = [2, 4, 4]
    file.write_text(json.dumps(values))


def huge_chunk(path: Path) -> None:
    edges = [1 << 20] * 3
    array_says(chunks=edges, chunk_grid={"name": "regular", "configuration": {"chunk_shape": edges}})(path)


BAD = [
    ("an array that is missing", no_array, "names '0' as its image, which is missing"),
    ("nothing written yet", no_pixels, "is unfinished: nothing of its array '0'"),
    ("no metadata", no_metadata, "is no zarr|without an image"),
    ("metadata cut short", cut_metadata, "zarr.json|zattrs"),
    ("chunks cut short", cut_chunks, "its pixels cannot be decoded"),
    ("no datasets", says(datasets=[]), "is unfinished"),
    ("axes that are none", says(axes=[{"name": n} for n in ("angle", "y", "x")]), "has axes angle, y, x"),
    ("an axis twice", says(axes=[{"name": n} for n in "yyx"]), "has axes y, y, x"),
    ("too few axes", says(axes=[{"name": n} for n in "yx"]), "2 pixel sizes|3 pixel sizes"),
    ("axes of another kind", says(axes=7), "multiscales.0.axes"),
    ("an array outside", says(datasets=[{"path": "../../b"}]), "is not in its folder"),
    ("a plate", plate, "is a plate of several images"),
    ("objects", array_says(data_type="string", dtype="|O"), "cannot be opened|holds"),
    ("a huge chunk", huge_chunk, "more than there is memory|cannot be opened"),
]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("how", "said"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, how: Any, said: str, version: str) -> None:
    path = tmp_path / "a.ome.zarr"
    write_image(path, picture("ZYX"), ome_zarr=version)
    how(path)
    with pytest.raises(InputError, match=said) as caught:
        read_image(path)
    assert "a.ome.zarr" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_shards_and_chunks_that_disagree_are_one_sentence(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", picture("ZYX"))
    shards_disagree(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="chunks and shards disagree"):
        read_image(tmp_path / "a.zarr")


def test_a_codec_that_runs_code_is_refused_before_a_pixel_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", picture("ZYX"), ome_zarr="0.4")
    array_says(filters=[{"id": "pickle"}])(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="is compressed by pickle"):
        read_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda path: shutil.rmtree(path / "1"), "'1', one of its smaller copies, is missing"),
        (says(version="0.5"), "says OME-Zarr 0.5, which lies in zarr 3, and this is zarr 2"),
        (says(version="9"), "says OME-Zarr 9, which is not known here"),
        (
            says(axes=[{"name": "y"}, {"name": "x"}]),
            "sizes along y, x without a unit",
        ),
    ],
)
def test_what_is_wrong_but_readable_is_said_and_read(tmp_path: Path, how: Any, said: str) -> None:
    image = Image(np.ones((300, 20), np.uint8), "YX", {"Y": 0.1, "X": 0.1})
    write_image(tmp_path / "a.zarr", image, ome_zarr="0.4")
    how(tmp_path / "a.zarr")
    with pytest.warns(HeaderWarning, match=said):
        assert np.array_equal(read_image(tmp_path / "a.zarr").data, image.data)


def test_an_image_larger_than_memory_is_refused_and_said_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.zarr", picture("ZYX"))
    monkeypatch.setattr("care_bridge.images.volume.free_bytes", lambda: 100)
    with pytest.raises(InputError, match="more than there is memory; predict restores it piece by piece"):
        read_image(tmp_path / "a.zarr")


def test_a_folder_that_is_no_image_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no OME-Zarr image, so it is not replaced"):
        write_image(tmp_path / "a.zarr", picture("YX"))
    assert [file.name for file in tmp_path.rglob("*")] == ["a.zarr", "notes.txt"]


def test_an_image_replaces_an_image_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", picture("ZYX"), ome_zarr="0.4")
    write_image(tmp_path / "a.zarr", picture("YX"), ome_zarr="0.5")
    assert read_image(tmp_path / "a.zarr").axes == "YX"
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]
    assert not (tmp_path / "a.zarr" / ".zattrs").exists()


def test_a_series_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no axis S"):
        write_image(tmp_path / "a.zarr", Image(np.zeros((2, 4, 4), np.uint8), "SYX"))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_both_kinds_lists_both_and_nothing_within(tmp_path: Path) -> None:
    write_image(tmp_path / "a.ome.zarr", picture("YX"))
    write_image(tmp_path / "below" / "b.zarr", picture("YX"))
    write_image(tmp_path / "c.tif", picture("YX"))
    write_image(tmp_path / "a.ome.zarr" / "thumb.tif", picture("YX"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [file.name for file in list_images(tmp_path)] == ["a.ome.zarr", "c.tif"]
        found = [file.name for file in list_images(tmp_path, "**/*.tif*")]
    assert found == ["a.ome.zarr", "b.zarr", "c.tif"]
    assert is_zarr(tmp_path / "a.ome.zarr")
    assert not is_zarr(tmp_path)


# --- where a TIFF is taken


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Folders of the same pairs as TIFF and as OME-Zarr."""
    random = np.random.default_rng(0)
    for number in range(3):
        clean = random.uniform(0, 1000, (40, 48)).cumsum(axis=1).astype(np.float32) % 3000
        noisy = clean + random.normal(0, 50, clean.shape).astype(np.float32)
        for side, data in (("source", noisy), ("target", clean)):
            image = Image(data, "YX", {"Y": 0.1, "X": 0.1})
            write_image(tmp_path / "tif" / side / f"{number}.tif", image)
            write_image(tmp_path / "zarr" / side / f"{number}.ome.zarr", image)
    return tmp_path


def test_pairs_of_ome_zarrs_are_those_of_tiffs(both: Path) -> None:
    from care_bridge.evaluate.pairs import read_pairs
    from care_bridge.patches import pairs_from_folders

    tiffs, zarrs = (read_pairs(both / kind / "source", both / kind / "target") for kind in ("tif", "zarr"))
    for one, other in zip(tiffs, zarrs, strict=True):
        assert np.array_equal(one.source.data, other.source.data)
        assert len(other.hashes[0]) == 64
    (single,) = read_pairs(both / "zarr/source/0.ome.zarr", both / "zarr/target/0.ome.zarr")
    assert np.array_equal(single.target.data, tiffs[0].target.data)
    stored = pairs_from_folders(both / "zarr" / "source", both / "zarr" / "target")
    box = (slice(2, 9), slice(3, 7))
    source = stored[1].source
    assert np.array_equal(source.read(source.open(), "YX", box), tiffs[1].source.data[box])


@pytest.mark.tf
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_commands_take_an_ome_zarr_where_they_take_a_tiff(both: Path) -> None:
    def command(*words: object) -> str:
        result = run(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    model = both / "model"
    command(
        "train", both / "zarr" / "source", both / "zarr" / "target", "--out", model, "--features", 4, "--depth", 1,
        "--kernel", 3, "--patch-size", "16,16", "--epochs", 1, "--steps", 2, "--quiet",
    )  # fmt: skip
    for kind, end in (("tif", "tif"), ("zarr", "ome.zarr")):
        command("predict", model, both / kind / "source" / f"0.{end}", "--out", both / "out", "--quiet")
    one, other = (read_image(both / "out" / name) for name in ("0.tif", "0.ome.zarr"))
    assert np.array_equal(one.data, other.data)
    assert one.pixel_size_um == pytest.approx(other.pixel_size_um)
    pairs = [both / "zarr" / "source", both / "zarr" / "target"]
    judged = run(app, ["evaluate", str(model), *map(str, pairs), "--out", str(both / "report.html")])
    assert judged.exit_code == 1, judged.output  # by their SHA-256 the model has seen them
    assert "all 3 images were in this model's training (0.ome.zarr," in judged.output
    command("simulate", "semisynthetic", both / "zarr" / "target", "--out", both / "simulated")
