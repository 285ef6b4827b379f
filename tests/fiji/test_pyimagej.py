"""The real plugin in a person's own Fiji: run where CARE_BRIDGE_FIJI names one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.java.pyimagej import FijiPlugin, FijiSession
from care_bridge.opening import open_predictor
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginFailure, PluginRefusal
from care_bridge.predictor import Predictor
from care_bridge.trial import try_level

pytestmark = pytest.mark.fiji

WriteBundle = Callable[..., Path]
ONE_TILE = PluginOptions(normalizeInput=False, nTiles=1, blockMultiple=1, overlap=0)


@pytest.fixture(scope="module")
def fiji(fiji_ready: Path) -> Iterator[FijiSession]:
    with FijiSession(fiji_ready) as session:
        yield session


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory, write_bundle: WriteBundle) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bündel mit blank") / "doubling.zip")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


def recorded(shared: Path, name: str) -> tuple[dict[str, Any], Path, Image, PluginOptions]:
    folder = shared / "fiji-recorded"
    case = json.loads((folder / "cases" / name / "case.json").read_text())
    image = Image(np.load(folder / "cases" / name / "input.npy"), case["first"]["in_axes"])
    options = PluginOptions.from_mapping(case["first"]["params"])
    return case["first"], folder / "models" / f"{case['model']}.zip", image, options


def test_runtime_says_what_computes(fiji: FijiSession, doubling: Path) -> None:
    plugin = fiji.open(doubling)
    assert isinstance(plugin, Predictor)
    assert (plugin.runtime.name, plugin.runtime.level) == ("fiji", "fiji")
    assert set(plugin.runtime.versions) == {"imagej", "csbdeep", "tensorflow", "java", "pyimagej"}
    assert all(plugin.runtime.versions.values())


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "CYX"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_and_axes_go_in_and_out_unchanged(
    fiji: FijiSession, tmp_path: Path, write_bundle: WriteBundle, axes: str, dtype: str
) -> None:
    shape = {"YX": (12, 9), "ZYX": (3, 12, 9), "TYX": (3, 12, 9), "CYX": (2, 12, 9)}[axes]
    channels = 2 if axes == "CYX" else 1
    bundle = write_bundle(tmp_path / f"{axes}.zip", shape=(None, None, None, channels))
    data = (noise(*shape) * 200).astype(dtype)
    result = fiji.open(bundle, ONE_TILE).predict(Image(data, axes))
    assert result.data.dtype == np.float32
    assert sorted(result.axes) == sorted(axes)
    ordered = np.moveaxis(result.data, range(len(axes)), [axes.index(axis) for axis in result.axes])
    np.testing.assert_array_equal(ordered, 2 * data.astype(np.float32))


def test_by_macro_and_by_command_the_same_pixels_come(fiji: FijiSession, shared: Path) -> None:
    first, bundle, image, options = recorded(shared, "a02_default_97_real")
    plugin = fiji.open(bundle, options)
    by_command, by_macro = plugin.predict(image), plugin.predict_by_macro(image)
    assert by_command.axes == by_macro.axes == first["out_axes"]
    np.testing.assert_array_equal(by_macro.data, by_command.data)


def test_a_recorded_run_comes_out_as_recorded_once_and_twice(fiji: FijiSession, shared: Path) -> None:
    _, bundle, image, options = recorded(shared, "a02_default_97_real")
    plugin = fiji.open(bundle, options)
    folder = shared / "fiji-recorded" / "cases" / "a02_default_97_real"
    result = image
    for file in ("output.npy", "output2.npy"):
        result = plugin.predict(result)
        expected = np.load(folder / file)
        assert np.abs(result.data - expected).max() <= 2e-5 * np.ptp(expected)


def test_two_models_by_turns_are_not_mixed_up(
    fiji: FijiSession, doubling: Path, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    square = fiji.open(write_bundle(tmp_path / "square.zip", op="Mul"), ONE_TILE)
    double = fiji.open(doubling, ONE_TILE)
    image = Image(noise(8, 8), "YX")
    for _ in range(2):
        for run in ("predict", "predict_by_macro"):
            np.testing.assert_array_equal(getattr(double, run)(image).data, 2 * image.data)
            np.testing.assert_array_equal(getattr(square, run)(image).data, image.data**2)


def test_what_the_plugin_refuses_comes_with_its_reason(fiji: FijiSession, doubling: Path) -> None:
    with pytest.raises(PluginRefusal, match="should have size 1 but has size 3"):
        fiji.open(doubling).predict(Image(noise(3, 8, 8), "CYX"))


def test_what_fails_inside_the_plugin_comes_with_its_java_cause(
    fiji: FijiSession, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    refused = write_bundle(tmp_path / "refused.zip", attribute="no_such_attribute")
    with pytest.raises(
        PluginFailure, match="NodeDef mentions attr 'no_such_attribute' not in Op<name=Add"
    ) as caught:
        fiji.open(refused).predict(Image(noise(8, 8), "YX"))
    assert "\n" not in str(caught.value)
    tagged = write_bundle(tmp_path / "tagged.zip", tag="train")
    with pytest.raises(PluginFailure, match="Could not find meta graph def matching supplied tags"):
        fiji.open(tagged).predict(Image(noise(8, 8), "YX"))
    assert fiji.worker.alive


def test_a_folder_or_no_zip_is_refused_before_fiji_is_asked(fiji: FijiSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; the plugin opens a bundle \(\.zip\)"):
        fiji.open(tmp_path)
    with pytest.raises(InputError, match="no such bundle"):
        fiji.open(tmp_path / "absent.zip")


def test_nothing_is_left_in_the_fiji_folder(fiji_ready: Path, doubling: Path) -> None:
    def state() -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in (fiji_ready, *fiji_ready.rglob("*"))}

    before = state()
    with FijiPlugin(doubling, ONE_TILE, fiji=fiji_ready) as plugin:
        plugin.predict(Image(noise(8, 8), "YX"))
        assert state() == before
    assert state() == before


def test_a_killed_fiji_is_started_again(fiji: FijiSession, doubling: Path) -> None:
    plugin = fiji.open(doubling, ONE_TILE)
    killed = fiji.worker  # held: asked for after its end, the session would start another
    os.kill(killed.pid, signal.SIGKILL)
    killed._process.wait()
    image = Image(noise(8, 8), "YX")
    np.testing.assert_array_equal(plugin.predict(image).data, 2 * image.data)


def test_a_macro_runs_and_tells_what_it_printed(fiji: FijiSession) -> None:
    printed = fiji.run_macro(
        'newImage("q", "16-bit black", 8, 8, 1); run("Add...", "value=7"); getStatistics(a, m); print("mean " + m);'
    )
    assert "mean 7" in printed


def test_the_level_is_opened_by_name_and_is_the_best(fiji: FijiSession, doubling: Path) -> None:
    with open_predictor(doubling, "best", options=ONE_TILE, fiji=fiji.fiji.path) as plugin:  # type: ignore[attr-defined]
        assert isinstance(plugin, FijiPlugin)
        start = time.monotonic()
        assert plugin.predict(Image(noise(8, 8), "YX")).axes == "YX"
        assert time.monotonic() - start < 120


def test_what_doctor_tries_runs(fiji: FijiSession) -> None:
    assert try_level("fiji", fiji=fiji.fiji.path).level == "fiji"
