"""Volumes restored piece by piece are what the prediction in memory gives, whatever happens on the way."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge import normalize as normalizing
from care_bridge.axes import move_axes
from care_bridge.errors import InputError
from care_bridge.images import Channel, Image, read_header, read_image, write_image
from care_bridge.inference.large import fits_memory, predict_volume
from care_bridge.normalize import BIOIMAGEIO, CSBDEEP, FIJI, NotFinitePixelsWarning, normalize, undo_of_blocks
from care_bridge.piecewise import Pieces
from care_bridge.predictor import mean_channels, scale_channels
from care_bridge.tiling import CsbdeepTiles

_spec = importlib.util.spec_from_file_location(
    "piecewise_network", Path(__file__).with_name("piecewise_network.py")
)
assert _spec is not None
assert _spec.loader is not None
network = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(network)


def volume(shape: tuple[int, ...], axes: str, dtype: str = "uint16") -> Image:
    values = np.random.default_rng(sum(shape)).gamma(2.0, 300.0, shape)
    return Image(values.astype(dtype), axes, {"Y": 0.1, "X": 0.1})


# --- the same as in memory


@settings(max_examples=25)
@given(data=st.data())
def test_pieces_are_bit_for_bit_the_prediction_in_memory(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Sizes from one pixel on, below the halo of 9, odd, and tiles that are larger than shards.
    draw = data.draw
    space = draw(st.sampled_from(["YX", "ZYX"]))
    frames = draw(st.sampled_from(["", "T", "Z"] if space == "YX" else ["", "T"]))
    channels = draw(st.sampled_from([1, 1, 2]))
    letters = frames + ("C" if channels > 1 else "") + space
    sizes = {"T": 2, "Z": 3, "C": channels}
    sizes |= {letter: draw(st.integers(1, 17 if letter == "Z" else 60), label=letter) for letter in space}
    sizes |= {
        letter: max(2, sizes[letter]) for letter in "YX"
    }  # a stack of lines has its axes in another order
    axes = draw(st.permutations(letters)) if draw(st.booleans()) else list(letters)
    tiles = {
        letter: draw(st.integers(1, 7 - 2 * len(space) + (space == "ZYX")), label=f"tiles of {letter}")
        for letter in space
    }
    rule = draw(st.sampled_from([CSBDEEP, FIJI, BIOIMAGEIO, None]))
    by = draw(st.sampled_from(["image", "frame"]))
    border = draw(st.sampled_from([0, 0, 3]))
    widths = draw(st.booleans())
    name = draw(st.sampled_from(["out.ome.zarr", "out.tif", "out.ome.tif"]))
    version = draw(st.sampled_from(["0.4", "0.5"]))
    folder = tmp_path_factory.mktemp("pieces")
    image = volume(tuple(sizes[letter] for letter in axes), "".join(axes))
    source = folder / draw(st.sampled_from(["in.ome.zarr", "in.tif"]))
    write_image(source, image, ome_zarr=version)
    restores = network.predictor(
        tiles, axes=space + "C", rank=len(space) + 2, channels=channels, widths=widths
    )
    restores = restores.with_options(
        restores.options.replace(rule=rule, normalize_by=by, border_px=border, denormalize=rule is not FIJI)
    )
    in_memory = restores.predict(read_image(source))
    # This network sums in an order that no tile changes.
    whole = restores.with_options(restores.options.replace(tiles=None)).predict(read_image(source))
    assert np.array_equal(in_memory.data, whole.data)
    pieces = Pieces(restores, open_source(source))
    shards = None
    if name.endswith(".zarr") and draw(st.booleans()):
        shards = {}
        for letter in space:
            core = pieces.cores.get(letter, 1)
            shards[letter] = draw(st.sampled_from([core // n for n in (1, 2, 3) if core % n == 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant images
        reports = predict_volume(
            restores, source, folder / name, scales=widths, ome_zarr=version, shards=shards
        )
    like = read_image(source)
    expected = [mean_channels(in_memory, like=like)]
    if widths:
        expected.append(scale_channels(in_memory, like=like))
    assert len(reports) == len(expected)
    for report, wanted in zip(
        sorted(reports, key=lambda one: "_scale" in one.path.name), expected, strict=True
    ):
        found = read_image(report.path)
        assert set(found.axes) >= {a for a, n in zip(wanted.axes, wanted.shape, strict=True) if n > 1}
        squeezed = found.data.reshape([found.size(letter) for letter in found.axes])
        assert np.array_equal(move_axes(squeezed, found.axes, wanted.axes), wanted.data)
        assert found.pixel_size_um == pytest.approx(image.pixel_size_um)
    assert not list(folder.glob("*.unfinished"))
    assert not np.array_equal(expected[0].data.ravel(), image.data.ravel())  # something was restored
    shutil.rmtree(folder)


def open_source(path: Path) -> Any:
    from care_bridge.images import open_volume

    return open_volume(path)


def test_values_in_whole_numbers_are_those_of_memory_and_what_was_clipped_is_said(tmp_path: Path) -> None:
    image = volume((9, 30, 31), "ZYX", "uint8")
    write_image(tmp_path / "in.tif", image)
    restores = network.predictor({"Y": 3})
    (report,) = predict_volume(restores, tmp_path / "in.tif", tmp_path / "a.zarr", dtype=None)
    told = write_image(tmp_path / "b.tif", restores.predict(image), "uint8")
    assert np.array_equal(read_image(tmp_path / "a.zarr").data, read_image(tmp_path / "b.tif").data)
    assert report.dtype == "uint8"
    assert (report.clipped_low, report.clipped_high) == pytest.approx((told.clipped_low, told.clipped_high))


def test_names_and_colours_of_channels_are_kept(tmp_path: Path) -> None:
    channels = (Channel("DAPI", "0000FF"), Channel("actin", "FF0000"))
    image = volume((2, 5, 20, 21), "CZYX").replace(channels=channels, frame_interval_s=None, unit="nm")
    write_image(tmp_path / "in.ome.zarr", image)
    restores = network.predictor({"Y": 2}, channels=2)
    predict_volume(restores, tmp_path / "in.ome.zarr", tmp_path / "out.ome.zarr")
    found = read_image(tmp_path / "out.ome.zarr")
    assert (found.channels, found.unit) == (channels, "nanometer")


def test_without_tiles_as_many_are_taken_as_memory_asks_for(tmp_path: Path) -> None:
    from care_bridge.images import open_volume

    write_image(tmp_path / "in.tif", volume((40, 200, 200), "ZYX"))
    small, large = (
        Pieces(network.predictor(None), open_volume(tmp_path / "in.tif"), memory_gib=gib)
        for gib in (1.0, 8.0)
    )
    assert large.n == 1
    assert small.n > 4
    # 30 bytes a pixel and feature, of 32: networks of that size were measured at 23 to 25.
    prepared = small.prepare(small.n // 2, small.ranges())
    assert prepared.tensor.size * 30 * 32 <= (1.0 - 0.85) * 2**30


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    """Half a gigabyte of result in a process that never holds a third of it beside its libraries."""
    import zarr

    write_image(tmp_path / "in.ome.zarr", volume((2, 16, 16), "ZYX"))
    shutil.rmtree(tmp_path / "in.ome.zarr" / "0")
    shape, block = (32, 2048, 2048), (16, 1024, 1024)
    large = zarr.create_array(
        store=str(tmp_path / "in.ome.zarr" / "0"),
        shape=shape,
        dtype="uint16",
        chunks=(16, 256, 256),
        shards=block,
    )
    pixels = np.random.default_rng(0).integers(0, 5000, block).astype("uint16")
    for place in np.ndindex(2, 2, 2):
        large[tuple(slice(n * edge, (n + 1) * edge) for n, edge in zip(place, block, strict=True))] = pixels
    script = Path(__file__).with_name("piecewise_network.py")
    command = [sys.executable, str(script), str(tmp_path / "in.ome.zarr"), str(tmp_path / "out.ome.zarr")]
    done = subprocess.run([*command, "memory"], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert read_header(tmp_path / "out.ome.zarr").shape == shape
    assert after - before < (1 << 29) / 3, (before, after)


# --- the range of the whole


@settings(max_examples=60)
@given(data=st.data())
def test_the_range_of_blocks_is_the_range_of_the_image(data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(
        st.sampled_from(
            ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"]
        )
    )
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 12)), draw(st.integers(2, 9)))
    seed = draw(st.integers(0, 1000))
    values = np.random.default_rng(seed).normal(50, draw(st.sampled_from([0.0, 5.0, 40.0])), shape)
    image = np.clip(values, 0, 120).astype(dtype) if dtype[0] in "ui" else values.astype(dtype)
    if dtype[0] == "f" and draw(st.booleans()):
        image[0, 0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    rule = draw(st.sampled_from([CSBDEEP, BIOIMAGEIO, FIJI]))
    pmin, pmax = draw(st.sampled_from([(None, None), (0, 100), (2, 99.8), (50, 51)]))
    cut = draw(st.integers(1, 5))

    def blocks() -> Any:
        for channel, plane in enumerate(image):
            for start in range(0, len(plane), cut):
                yield channel, plane[start : start + cut]

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # As for images above 16 million pixels, or not.
        patch.setattr(normalizing, "_SMALL", draw(st.sampled_from([0, 1 << 24])))
        patch.setattr(normalizing, "_CHUNK", draw(st.sampled_from([5, 1 << 22])))
        try:
            expected = normalize(image, rule=rule, axes="CYX", pmin=pmin, pmax=pmax)[1]
        except InputError as error:
            with pytest.raises(InputError, match=str(error)[:20]):
                undo_of_blocks(blocks, dtype=dtype, channels=len(image), rule=rule, pmin=pmin, pmax=pmax)
            return
        if rule is FIJI and np.isnan(image).any():
            with pytest.raises(InputError, match="holds NaN"):
                undo_of_blocks(blocks, dtype=dtype, channels=len(image), rule=rule, pmin=pmin, pmax=pmax)
            return
        found = undo_of_blocks(blocks, dtype=dtype, channels=len(image), rule=rule, pmin=pmin, pmax=pmax)
    assert np.array_equal(found.low, expected.low)
    assert np.array_equal(found.high, expected.high)


def test_planes_of_nothing_are_left_out_of_the_range_and_said(tmp_path: Path) -> None:
    image = volume((6, 20, 20), "ZYX", "float32")
    image.data[2] = np.nan
    write_image(tmp_path / "in.ome.zarr", image)
    restores = network.predictor({"Z": 2})
    with pytest.warns(NotFinitePixelsWarning, match="400 of 2400 pixels are NaN"):
        predict_volume(restores, tmp_path / "in.ome.zarr", tmp_path / "out.tif")
    with pytest.warns(NotFinitePixelsWarning):
        expected = restores.predict(image).data
    assert np.array_equal(read_image(tmp_path / "out.tif").data, expected, equal_nan=True)


# --- killed and gone on with


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif"])
def test_a_killed_run_is_gone_on_with_and_no_pixel_is_wrong(tmp_path: Path, name: str) -> None:
    image = volume((12, 60, 50), "ZYX")
    write_image(tmp_path / "in.ome.zarr", image)
    script = Path(__file__).with_name("piecewise_network.py")
    command = [sys.executable, str(script), str(tmp_path / "in.ome.zarr"), str(tmp_path / name), "0.03"]
    drawn = random.Random(0)
    done: list[set[str]] = []
    work = tmp_path / f"{name}.unfinished"
    for number in range(4):
        child = subprocess.Popen([*command, *(["--resume"] if number else [])], stderr=subprocess.PIPE)
        begun = time.monotonic()
        while not (work / "done.txt").exists() and child.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if not work.exists():
            break
        done.append({line for line in (work / "done.txt").read_text().splitlines() if line[:1].isdigit()})
        assert not (tmp_path / name).exists()
    assert done
    assert all(before <= after for before, after in pairwise(done))
    if work.exists():
        subprocess.run([*command, "--resume"], check=True)
    expected = network.predictor({"Z": 2, "Y": 4, "X": 3}).predict(image).data
    assert np.array_equal(read_image(tmp_path / name).data, expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.ome.zarr", name]


class _StoppedError(Exception):
    """What ends a run in a test."""


def stopped_after(pieces: int, **job: Any) -> None:
    """A run that is ended after so many pieces."""

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("restoring") and done >= pieces:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        predict_volume(progress=stop, **job)


def test_resuming_restores_what_is_left_and_nothing_twice(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    restores = network.predictor({"Y": 4, "X": 2})
    job = {"predictor": restores, "source": tmp_path / "in.tif", "out": tmp_path / "out.ome.zarr"}
    stopped_after(3, **job)
    calls = []
    original = restores.network.__call__

    class Counting(type(restores.network)):  # type: ignore[misc]
        def __call__(self, tensor: np.ndarray) -> np.ndarray:
            calls.append(1)
            return original(tensor)

    restores.network.__class__ = Counting
    predict_volume(**job, resume=True)
    assert len(calls) == 8 - 3
    expected = network.predictor({"Y": 4, "X": 2}).predict(read_image(tmp_path / "in.tif")).data
    assert np.array_equal(read_image(tmp_path / "out.ome.zarr").data, expected)


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    job = {
        "predictor": network.predictor({"Y": 4}),
        "source": tmp_path / "in.tif",
        "out": tmp_path / "out.tif",
    }
    stopped_after(2, **job)
    listed = tmp_path / "out.tif.unfinished" / "done.txt"
    listed.write_bytes(listed.read_bytes() + b"3 [0.0, 0")
    predict_volume(**job, resume=True)
    expected = job["predictor"].predict(read_image(tmp_path / "in.tif")).data
    assert np.array_equal(read_image(tmp_path / "out.tif").data, expected)


def test_unfinished_work_is_gone_on_with_only_when_asked_and_only_by_the_same_job(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    more = {"source": tmp_path / "in.tif", "out": tmp_path / "out.ome.zarr"}
    stopped_after(1, predictor=network.predictor({"Y": 4}), model="a", **more)
    with pytest.raises(InputError, match="--resume goes on with it"):
        predict_volume(network.predictor({"Y": 4}), model="a", **more)
    with pytest.raises(InputError, match='model was "a", now "b"'):
        predict_volume(network.predictor({"Y": 4}), model="b", resume=True, **more)
    with pytest.raises(InputError, match=r"n_tiles was .*; results was"):
        predict_volume(network.predictor({"Y": 2}), model="a", resume=True, **more)
    write_image(tmp_path / "in.tif", volume((8, 40, 44), "ZYX"))
    with pytest.raises(InputError, match=r"source shape was .* 40, 40.*now .* 40, 44"):
        predict_volume(network.predictor({"Y": 4}), model="a", resume=True, **more)


def test_two_runs_into_one_output_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    more = {"source": tmp_path / "in.tif", "out": tmp_path / "out.ome.zarr"}
    said = []

    def second(done: int, total: int, what: str) -> None:
        if what.startswith("restoring") and done == 2:
            with pytest.raises(InputError, match="another run is writing") as caught:
                predict_volume(network.predictor({"Y": 4}), resume=True, **more)
            said.append(str(caught.value))

    predict_volume(network.predictor({"Y": 4}), progress=second, **more)
    assert len(said) == 1


@pytest.mark.parametrize("out", ["in.ome.zarr", "in.ome.zarr/result.ome.zarr", "."])
def test_an_output_over_the_input_is_refused(tmp_path: Path, out: str) -> None:
    write_image(tmp_path / "in.ome.zarr", volume((8, 40, 40), "ZYX"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="would replace the image"):
        predict_volume(network.predictor(None), tmp_path / "in.ome.zarr", tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    write_image(tmp_path / "out.ome.zarr", volume((3, 20), "YX"))
    with pytest.raises(InputError, match="is there already"):
        predict_volume(network.predictor(None), tmp_path / "in.tif", tmp_path / "out.ome.zarr", resume=True)
    assert read_image(tmp_path / "out.ome.zarr").shape == (3, 20)
    assert not (tmp_path / "out.ome.zarr.unfinished").exists()


def test_tiles_smaller_than_a_shard_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    with pytest.raises(InputError, match="tiles of 10 pixels along Y cut through shards of 16"):
        predict_volume(
            network.predictor({"Y": 4}), tmp_path / "in.tif", tmp_path / "out.ome.zarr", shards={"Y": 16}
        )
    assert [file.name for file in tmp_path.iterdir()] == ["in.tif"]


def test_a_full_disk_leaves_what_is_done_and_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from care_bridge.images.target import Target

    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    job = {
        "predictor": network.predictor({"Y": 4}),
        "source": tmp_path / "in.tif",
        "out": tmp_path / "out.tif",
    }
    original, boxes = Target.write, []

    def full(self: Target, path: Path, box: Any, data: Any) -> None:
        boxes.append(box)
        if len(boxes) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(self, path, box, data)

    monkeypatch.setattr(Target, "write", full)
    with pytest.raises(OSError, match="No space left"):
        predict_volume(**job)
    assert not (tmp_path / "out.tif").exists()
    predict_volume(**job, resume=True)
    expected = job["predictor"].predict(read_image(tmp_path / "in.tif")).data
    assert np.array_equal(read_image(tmp_path / "out.tif").data, expected)


def test_large_is_what_memory_cannot_hold_six_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("care_bridge.inference.large.free_bytes", lambda: 24 * 1000)
    assert fits_memory((10, 100))
    assert not fits_memory((10, 101))


def test_tiles_of_the_plugin_are_refused(tmp_path: Path) -> None:
    from care_bridge.tiling import FijiTiles

    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    restores = network.predictor(None)
    restores = restores.with_options(restores.options.replace(tiles=FijiTiles()))
    with pytest.raises(InputError, match="piece by piece only a network alone is run"):
        predict_volume(restores, tmp_path / "in.tif", tmp_path / "out.tif")


def test_the_job_is_written_down_in_plain_words(tmp_path: Path) -> None:
    write_image(tmp_path / "in.tif", volume((8, 40, 40), "ZYX"))
    stopped_after(
        1,
        predictor=network.predictor({"Y": 4}),
        source=tmp_path / "in.tif",
        out=tmp_path / "o.zarr",
        model="m",
    )
    said = json.loads((tmp_path / "o.zarr.unfinished" / "job.json").read_text())
    assert said["n_tiles"] == {"Z": 1, "Y": 4, "X": 1}
    assert said["rule"] == "csbdeep"
    assert CsbdeepTiles(said["n_tiles"]).counts("ZYX") == {"Z": 1, "Y": 4, "X": 1}
