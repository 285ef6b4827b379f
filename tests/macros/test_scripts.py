"""Every script, unchanged, compiled and run by the real Groovy, beside objects that answer like the plugin's."""

from __future__ import annotations

import csv
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from care_bridge.images import Image, read_image

pytestmark = pytest.mark.java

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
SCRIPTS = (
    "Restore",
    "Restore_Channels",
    "Restore_Time_Series",
    "Restore_Image",
    "Restore_Folder",
    "Restore_Twice",
    "Compare_With_Python",
    "Forget_Remembered_Model",
    "Train",
    "Evaluate",
    "Check_Model",
)
ONCE, TWICE = 1e-5, 5e-5


def expected(tf1: Any, bundle: Path, image: Image, **options: Any) -> Image:
    """What Python gives by the plugin's rule with the same TensorFlow."""
    from care_bridge.plugin.emulation import EmulatedPlugin
    from care_bridge.plugin.options import PluginOptions

    return EmulatedPlugin(tf1.open(bundle), PluginOptions(**options)).predict(image)


def run(
    imagej: Any, name: str, tmp_path: Path, image: Path | None = None, **parameters: Any
) -> tuple[Any, dict[str, Any]]:
    """Run a script of the folder; its result and what its sentinel says."""
    sentinel = tmp_path / "sentinel.json"
    sentinel.unlink(missing_ok=True)
    result = imagej.run_script(MACROS / f"{name}.groovy", {**parameters, "sentinel": sentinel}, image=image)
    assert result.error == ""
    return result, json.loads(sentinel.read_text()) if sentinel.exists() else {}


def difference(one: Image, other: Image) -> float:
    assert one.axes == other.axes
    assert one.shape == other.shape
    return float(np.abs(one.data.astype(np.float64) - other.data).max())


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_real_groovy_compiles_it(groovy_imagej, name):
    assert groovy_imagej.compile_script(MACROS / f"{name}.groovy").startswith("4.0")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_parameter_is_read_and_none_is_remembered(name):
    from care_bridge.java.imagej_scripts import parameters_of

    text = (MACROS / f"{name}.groovy").read_text(encoding="ascii")
    parameters = parameters_of(text)
    assert len({variable for _, variable, _ in parameters}) == len(parameters)
    for kind, variable, properties in parameters:
        if not kind.endswith("Service"):
            # Remembered parameters are shared by all scripts of a Fiji under their bare names.
            assert properties.get("persist") == "false", variable
            assert properties.get("required") == "false" or kind in ("ImagePlus", "File"), variable


@pytest.mark.parametrize(
    ("axes", "shape", "bundle"),
    [
        ("YX", (48, 50), "planes"),
        ("ZYX", (3, 40, 44), "planes"),
        ("TYX", (4, 40, 44), "planes"),
        ("ZYX", (8, 40, 44), "stacks"),
        ("TZYX", (2, 8, 36, 40), "stacks"),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_an_image_equals_python_and_keeps_what_the_plugin_loses(
    imagej, bundles, tf1, write_image, tmp_path, axes, shape, bundle, dtype
):
    source, output = write_image("cell one.tif", axes, shape, dtype), tmp_path / "out" / "cell.tif"
    model = getattr(bundles, bundle)
    result, sentinel = run(imagej, "Restore_Image", tmp_path, source, model=model, nTiles=1, output=output)
    assert sentinel["status"] == "done", result
    made, given = read_image(output), read_image(source)
    assert difference(made, expected(tf1, model, given, nTiles=1)) <= ONCE
    assert dict(made.pixel_size_um) == pytest.approx(dict(given.pixel_size_um), rel=1e-7)
    assert (made.unit, made.frame_interval_s) == (given.unit, given.frame_interval_s)
    with tifffile.TiffFile(output) as one, tifffile.TiffFile(source) as other:
        about = one.imagej_metadata
        labels = about["Properties"]["Slice_Label"] if len(axes) == 2 else about["Labels"]
        assert labels == other.imagej_metadata["Labels"]
    assert "cell one_restored" in result.open_titles
    assert result.plugin_runs == 1


@pytest.mark.parametrize("again", [True, False])
def test_twice_in_a_row_equals_python(imagej, bundles, tf1, write_image, tmp_path, again):
    source, output = write_image("cell.tif"), tmp_path / "out"
    _, sentinel = run(
        imagej,
        "Restore_Twice",
        tmp_path,
        source,
        model=bundles.planes,
        nTiles=1,
        output=output,
        normalizeAgain=again,
    )
    assert sentinel["status"] == "done"
    once = expected(tf1, bundles.planes, read_image(source), nTiles=1)
    assert difference(read_image(output / "cell_once.tif"), once) <= ONCE
    twice = expected(tf1, bundles.planes, once, nTiles=1, normalizeInput=again)
    assert difference(read_image(output / "cell_twice.tif"), twice) <= TWICE


def test_of_a_probabilistic_model_the_mean_is_fed_on(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("cell.tif"), tmp_path / "out"
    model = bundles.probabilistic
    _, sentinel = run(imagej, "Restore_Twice", tmp_path, source, model=model, nTiles=1, output=output)
    assert sentinel["status"] == "done"
    once = expected(tf1, model, read_image(source), nTiles=1)
    mean = once.replace(data=once.data[once.axes.index("C") and 0], axes="YX") if once.axes == "CYX" else once
    twice = read_image(output / "cell_twice.tif")
    assert twice.axes == "CYX"
    assert difference(twice, expected(tf1, model, mean, nTiles=1)) <= TWICE


def test_16_bits_hold_the_grey_levels_of_the_input(imagej, bundles, tf1, write_image, tmp_path):
    noise = np.random.default_rng(2).integers(0, 65536, (2, 48, 50)).astype(np.uint16)
    source, output = write_image("cell.tif", "ZYX", data=noise), tmp_path / "out.tif"
    _, sentinel = run(
        imagej,
        "Restore_Image",
        tmp_path,
        source,
        model=bundles.planes,
        nTiles=1,
        output=output,
        bits="16",
    )
    ordered = np.sort(noise.ravel())
    low, high = (float(ordered[round((ordered.size - 1) * p / 100)]) for p in (3, 99.8))
    restored = expected(tf1, bundles.planes, read_image(source), nTiles=1).data.astype(np.float64)
    counts = restored * (high - low) + low
    made = read_image(output)
    assert made.dtype == np.uint16
    assert np.abs(made.data - np.clip(counts, 0, 65535)).max() <= 0.51
    share = float(np.mean((counts < 0) | (counts > 65535)))
    assert share > 0.001
    assert f"{100 * share:.3f} % of the pixels clipped" in sentinel["message"]


def test_a_remembered_model_is_neither_used_nor_left(imagej, bundles, tf1, write_image, tmp_path):
    imagej.remembered_model = bundles.probabilistic
    source, output = write_image("cell.tif"), tmp_path / "out.tif"
    run(imagej, "Restore_Image", tmp_path, source, model=bundles.planes, nTiles=1, output=output)
    assert difference(read_image(output), expected(tf1, bundles.planes, read_image(source), nTiles=1)) <= ONCE
    assert imagej.remembered_model == ""


def test_forgetting_says_what_was_remembered(imagej, bundles, tmp_path):
    imagej.remembered_model = bundles.planes
    result, sentinel = run(imagej, "Forget_Remembered_Model", tmp_path)
    assert sentinel["message"] == f"forgot the model {bundles.planes}"
    assert imagej.remembered_model == ""
    assert "CARE bridge: forgot the model" in result.log


def test_comparing_with_python_gives_numbers_and_a_verdict(imagej, bundles, tf1, write_image, tmp_path):
    from care_bridge.images import write_image as save

    source = write_image("cell.tif")
    python = expected(tf1, bundles.planes, read_image(source), nTiles=1)
    save(tmp_path / "python.tif", python)
    _, same = run(
        imagej,
        "Compare_With_Python",
        tmp_path,
        source,
        model=bundles.planes,
        nTiles=1,
        python=tmp_path / "python.tif",
    )
    assert same["status"] == "done"
    changed = python.data.copy()
    changed[7, 11] += 0.5
    save(tmp_path / "changed.tif", python.replace(data=changed))
    _, other = run(
        imagej,
        "Compare_With_Python",
        tmp_path,
        source,
        model=bundles.planes,
        nTiles=1,
        python=tmp_path / "changed.tif",
    )
    assert other["status"] == "different"
    assert "largest difference 0.5" in other["message"].replace("0.49999", "0.5")
    assert "at x=11 y=7 plane=1" in other["message"]


@pytest.mark.timeout(280)
def test_two_hundred_images_killed_in_the_middle(tf1, bundles, write_image, bad_files, tmp_path):
    from care_bridge.errors import WorkerError
    from care_bridge.java.imagej import ImageJ

    names = [f"{'sub/' * (number % 2)}{number:03d}.tif" for number in range(194)]
    for seed, name in enumerate(names):
        write_image(f"in/{name}", shape=(256, 256), seed=seed % 5)
    bad = bad_files(tmp_path / "in")
    output = tmp_path / "out"
    parameters = {
        "model": bundles.planes,
        "nTiles": 1,
        "input": tmp_path / "in",
        "outputFolder": output,
    }
    with ImageJ(open_network=tf1.open, groovy=True) as imagej:

        def kill_at_100() -> None:
            while len(list(output.rglob("[0-9]*.tif"))) < 100:
                time.sleep(0.005)
            imagej.worker.kill()

        threading.Thread(target=kill_at_100, daemon=True).start()
        with pytest.raises(WorkerError):
            run(imagej, "Restore_Folder", tmp_path, **parameters)
    first = {path: path.stat().st_mtime_ns for path in output.rglob("[0-9]*.tif")}
    assert 100 <= len(first) < 194
    with ImageJ(open_network=tf1.open, groovy=True) as imagej:
        result, sentinel = run(imagej, "Restore_Folder", tmp_path, **parameters)
    counts = {"done": 194 - len(first), "skipped": len(first), "failed": 6}
    assert sentinel == {**sentinel, **counts}, result.log
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.tif")) == sorted(names)
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    assert len((output / "care_failures.txt").read_text().splitlines()) == len(bad) == 6
    summary = f"200 found, {194 - len(first)} restored, {len(first)} skipped, 6 failed\n"
    assert (output / "care_summary.txt").read_text() == summary
    with open(output / "care_log.csv", newline="") as file:
        done = [line["file"] for line in csv.DictReader(file) if line["status"] == "done"]
    assert len(done) == len(set(done))
    # Killed between a file and its line in the log, at most one line is missing.
    assert len(done) >= 193
    for name in (names[0], names[-1]):
        reference = expected(tf1, bundles.planes, read_image(tmp_path / "in" / name), nTiles=1)
        assert difference(read_image(output / name), reference) <= ONCE


@pytest.mark.parametrize(
    ("typed", "top"),
    [({}, 97.5), ({"percentileBottom": -1.0, "percentileTop": -1.0}, 97.5), ({"percentileTop": 90.0}, 90.0)],
)
def test_percentiles_are_the_models_own_unless_others_are_typed(imagej, write_image, tmp_path, typed, top):
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(unet_n_first=4, unet_kern_size=3, unet_n_depth=1, norm_pmin=1.25, norm_pmax=97.5)
    save_model(tmp_path / "unusual", config, build(config))
    model = write_bundle(tmp_path / "unusual", tmp_path / "unusual.zip")
    image, output = write_image("cell.tif"), tmp_path / "out" / "cell.tif"
    _, sentinel = run(imagej, "Restore_Image", tmp_path, image, model=model, output=output, **typed)
    assert sentinel["status"] == "done", sentinel
    with tifffile.TiffFile(output) as file:
        info = file.imagej_metadata["Info"]
        assert f"percentiles 1.25-{top} " in info
        assert info.count("not for intensity-based quantification") == 1


@pytest.mark.parametrize(
    ("script", "parameters", "message"),
    [
        ("Restore_Image", {}, "no image is open"),
        ("Restore_Image", {"image": "image", "model": "/no where/m.zip"}, "/no where/m.zip does not exist"),
        ("Restore_Image", {"image": "image", "model": "{folder}"}, "is a folder"),
        ("Restore_Image", {"image": "image", "model": "{image}"}, "is no .zip"),
        ("Restore_Image", {"image": "image", "percentileBottom": 99.9}, "give two from 0 to 100"),
        ("Restore_Image", {"image": "image", "nTiles": -1}, "nTiles and blockMultiple at 0"),
        ("Restore_Image", {"image": "channels"}, "the plugin gave no result for 'channels.tif'"),
        ("Restore_Image", {"image": "image", "output": "{image}/out.tif"}, "is a file; name a folder"),
        ("Restore_Image", {"image": "image", "output": "/proc/none/out.tif"}, "cannot make the folder"),
        ("Restore_Image", {"image": "image", "output": "{folder}/" + "x" * 300 + ".tif"}, "cannot write"),
        ("Restore_Twice", {"image": "channels"}, "the plugin gave no result"),
        ("Restore_Folder", {"input": "{folder}", "outputFolder": "{folder}"}, "would overwrite the images"),
        ("Restore_Folder", {"input": "{folder}/none", "outputFolder": "{folder}/o"}, "does not exist"),
        ("Restore_Folder", {"input": "{folder}", "outputFolder": "/proc/none"}, "cannot make the folder"),
        (
            "Restore_Folder",
            {"input": "{folder}", "outputFolder": "{folder}/o", "pattern": "*.czi"},
            "no file like",
        ),
        ("Compare_With_Python", {"image": "image", "python": "{folder}/none.tif"}, "does not exist"),
        ("Compare_With_Python", {"image": "image", "python": "{image}"}, "has 16 bits"),
    ],
)
def test_a_mistake_ends_in_one_line_that_tells_what_to_do(
    imagej, bundles, write_image, tmp_path, script, parameters, message
):
    files = {
        "image": write_image("image.tif"),
        "channels": write_image("channels.tif", "CYX", (2, 40, 44)),
        "folder": tmp_path,
    }
    given = {
        key: value.format(**files) if isinstance(value, str) else value for key, value in parameters.items()
    }
    image = files[given.pop("image")] if "image" in given else None
    before = files["image"].read_bytes()
    result, sentinel = run(imagej, script, tmp_path, image, **{"model": bundles.planes, **given})
    lines = [line for line in result.log.splitlines() if line.startswith("CARE bridge: ")]
    assert len(lines) == 1, result.log
    assert message in lines[0]
    assert sentinel["status"] == "failed"
    assert files["image"].read_bytes() == before


def test_what_all_scripts_share_is_the_same_in_each():
    parts = set()
    alone = ("Forget_Remembered_Model", "Train", "Evaluate", "Check_Model")  # they restore nothing themselves
    for name in set(SCRIPTS).difference(alone):
        text = (MACROS / f"{name}.groovy").read_text(encoding="ascii")
        _, begin, rest = text.partition("// ---- The same in every script of this folder: begin")
        shared, end, _ = rest.partition("// ---- The same in every script of this folder: end")
        assert begin
        assert end
        parts.add(shared)
    assert len(parts) == 1


def test_the_command_line_runs_them_and_tells_how_they_ended(bundles, write_image, bad_files, tmp_path):
    from typer.testing import CliRunner

    from care_bridge.cli import app

    source = write_image("in/cell.tif")
    start = ["macros", "run"]
    runner = CliRunner()
    given = [f"model={bundles.planes}", f"input={source}", f"output={tmp_path / 'out.tif'}", "ntiles=1"]
    done = runner.invoke(app, [*start, "restore_image", *given])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.tif").is_file()
    assert "CARE bridge: restored cell_restored" in done.output
    wrong = runner.invoke(app, [*start, "restore_image", *given, "ntile=3"])
    assert wrong.exit_code == 2
    assert "did you mean ntiles?" in wrong.output
    bad_files(tmp_path / "in")
    folder = [f"model={bundles.planes}", f"input={tmp_path / 'in'}", f"outputFolder={tmp_path / 'all'}"]
    some = runner.invoke(app, [*start, "Restore_Folder", *folder])
    assert some.exit_code == 1
    assert "1 restored, 0 skipped, 6 failed" in some.output
