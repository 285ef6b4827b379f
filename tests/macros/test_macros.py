"""Every macro, unchanged, in a real headless ImageJ with TensorFlow 1.x behind "Run your network"."""

from __future__ import annotations

import csv
import json
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from care_bridge.images import Image, read_image
from care_bridge.predictor import apply_repeatedly

pytestmark = pytest.mark.java

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
ONCE, TWICE = 1e-5, 5e-5


def expected(
    tf1: Any, bundle: Path, path: Path, *, applications: int = 1, again: bool = True, **options: Any
) -> Image:
    """What Python gives by the plugin's rule with the same TensorFlow."""
    from care_bridge.plugin.emulation import EmulatedPlugin
    from care_bridge.plugin.options import PluginOptions

    predictor = EmulatedPlugin(tf1.open(bundle), PluginOptions(**options))
    first, *others = apply_repeatedly(predictor, read_image(path), applications=applications if again else 1)
    if again or applications == 1:
        return [first, *others][-1]
    return EmulatedPlugin(tf1.open(bundle), PluginOptions(**options, normalizeInput=False)).predict(first)


def run(imagej: Any, name: str, tmp_path: Path, arguments: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """Run a macro of the folder; its result and what its sentinel says."""
    sentinel = tmp_path / "sentinel.json"
    sentinel.unlink(missing_ok=True)
    result = imagej.run_macro(MACROS / f"{name}.ijm", f"{arguments} sentinel=[{sentinel}]", **more)
    return result, json.loads(sentinel.read_text()) if sentinel.exists() else {}


def difference(one: Image, other: Image) -> float:
    assert one.axes == other.axes
    assert one.shape == other.shape
    return float(np.abs(one.data.astype(np.float64) - other.data).max())


def assert_kept(output: Path, source: Path) -> None:
    """Calibration, units and labels are the source's."""
    made, given = read_image(output), read_image(source)
    assert dict(made.pixel_size_um) == pytest.approx(dict(given.pixel_size_um), rel=1e-7)
    assert made.unit == given.unit
    assert made.frame_interval_s == given.frame_interval_s
    with tifffile.TiffFile(output) as one, tifffile.TiffFile(source) as other:
        about = one.imagej_metadata
        # ImageJ keeps the label of a single plane elsewhere.
        labels = (
            about["Properties"]["Slice_Label"]
            if one.series[0].size == made.size("Y") * made.size("X")
            else about["Labels"]
        )
        assert labels == other.imagej_metadata["Labels"]


def test_one_image_equals_python_and_keeps_what_the_plugin_loses(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("cell one.tif"), tmp_path / "out" / "cell one.tif"
    result, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done", result
    made = read_image(output)
    assert difference(made, expected(tf1, bundles.planes, source, nTiles=1)) <= ONCE
    assert made.dtype == np.float32
    assert_kept(output, source)
    with tifffile.TiffFile(output) as file:
        assert file.imagej_metadata["Info"].count("not for intensity-based quantification") == 1
    assert "CARE bridge: restored cell one_restored" in result.log
    assert result.plugin_runs == 1


@pytest.mark.parametrize(
    ("axes", "shape", "bundle"),
    [("ZYX", (3, 40, 44), "planes"), ("TYX", (4, 40, 44), "planes"), ("ZYX", (8, 40, 44), "stacks")],
)
def test_stacks_and_series_keep_their_axes(imagej, bundles, tf1, write_image, tmp_path, axes, shape, bundle):
    source, output = write_image("stack.tif", axes, shape), tmp_path / "out.tif"
    model = getattr(bundles, bundle)
    _, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{model}] ntiles=4 blockmultiple=16 overlap=16 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done"
    reference = expected(tf1, model, source, nTiles=4, blockMultiple=16, overlap=16)
    assert difference(read_image(output), reference) <= ONCE
    assert_kept(output, source)


@pytest.mark.parametrize("again", [True, False])
def test_twice_in_a_row_equals_python(imagej, bundles, tf1, write_image, tmp_path, again):
    source, output = write_image("cell.tif"), tmp_path / "out"
    _, sentinel = run(
        imagej,
        "restore_twice",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}] normalizeagain={str(again).lower()}",
    )
    assert sentinel["status"] == "done"
    once, twice = read_image(output / "cell_once.tif"), read_image(output / "cell_twice.tif")
    assert difference(once, expected(tf1, bundles.planes, source, nTiles=1)) <= ONCE
    reference = expected(tf1, bundles.planes, source, applications=2, again=again, nTiles=1)
    assert difference(twice, reference) <= TWICE
    assert_kept(output / "cell_twice.tif", source)


def test_of_a_probabilistic_model_the_mean_is_fed_on(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("cell.tif"), tmp_path / "out"
    _, sentinel = run(
        imagej,
        "restore_twice",
        tmp_path,
        f"model=[{bundles.probabilistic}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done"
    twice = read_image(output / "cell_twice.tif")
    assert twice.axes == "CYX"
    assert difference(twice, expected(tf1, bundles.probabilistic, source, applications=2, nTiles=1)) <= TWICE
    assert dict(twice.pixel_size_um) == pytest.approx({"Y": 0.07, "X": 0.065})


@pytest.mark.parametrize("normalization", ["series", "frame"])
def test_a_series_of_stacks_is_restored_frame_by_frame(
    imagej, bundles, tf1, write_image, tmp_path, normalization
):
    source, output = write_image("series.tif", "TZYX", (3, 2, 40, 44)), tmp_path / "out.tif"
    result, sentinel = run(
        imagej,
        "restore_time_series",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}] normalization={normalization}",
    )
    assert sentinel == {**sentinel, "status": "done", "done": 3}, result
    image = read_image(source)
    made = read_image(output)
    for frame in range(3):
        if normalization == "frame":
            reference = predict_array(tf1, bundles.planes, image.data[frame], nTiles=1)
        else:
            reference = predict_array(
                tf1, bundles.planes, fiji_normalized(image.data)[frame], nTiles=1, normalizeInput=False
            )
        assert np.abs(made.data[frame] - reference).max() <= ONCE
    assert_kept(output, source)


def predict_array(tf1: Any, bundle: Path, data: Any, **options: Any) -> Any:
    from care_bridge.plugin.emulation import run_plugin
    from care_bridge.plugin.options import PluginOptions

    axes = "ZYX"[-data.ndim :]
    return run_plugin(tf1.open(bundle), data, axes, options=PluginOptions(**options)).data


def fiji_normalized(data: Any) -> Any:
    from care_bridge.normalize import FIJI, normalize

    return normalize(data, rule=FIJI, axes="TZYX"[-data.ndim :])[0]


def test_channels_are_normalised_by_themselves_and_keep_their_colours(
    imagej, bundles, tf1, write_image, tmp_path
):
    source, output = write_image("colours.tif", "CYX", (3, 40, 44)), tmp_path / "out.tif"
    result, sentinel = run(
        imagej,
        "restore_channels",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 channels=1,3 input=[{source}] output=[{output}]",
    )
    assert sentinel == {**sentinel, "status": "done", "done": 2}, result
    image, made = read_image(source), read_image(output)
    for channel in (0, 2):
        reference = predict_array(tf1, bundles.planes, image.data[channel], nTiles=1)
        assert np.abs(made.data[channel] - reference).max() <= ONCE
    assert np.array_equal(made.data[1], image.data[1])
    assert_kept(output, source)


def test_percentiles_of_a_float_image_are_the_plugins_own(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("float.tif", "TYX", (2, 61, 67), "float32"), tmp_path / "out.tif"
    result, sentinel = run(
        imagej,
        "restore_time_series",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done", result
    data = read_image(source).data
    reference = predict_array(tf1, bundles.planes, fiji_normalized(data)[1], nTiles=1, normalizeInput=False)
    assert np.abs(read_image(output).data[1] - reference).max() <= ONCE


def test_16_bits_hold_the_grey_levels_of_the_input_and_say_what_was_clipped(
    imagej, bundles, tf1, write_image, tmp_path
):
    noise = np.random.default_rng(2).integers(0, 65536, (48, 50)).astype(np.uint16)
    source, output = write_image("cell.tif", data=noise), tmp_path / "out.tif"
    result, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}] bits=16",
    )
    assert sentinel["status"] == "done", result
    made, image = read_image(output), read_image(source)
    assert made.dtype == np.uint16
    # The plugin's nearest rank, in single precision.
    ordered = np.sort(image.data.ravel())
    low, high = (float(ordered[round((ordered.size - 1) * p / 100)]) for p in (3, 99.8))
    counts = expected(tf1, bundles.planes, source, nTiles=1).data * (high - low) + low
    # Half a grey level by rounding, and single precision at 65535.
    assert np.abs(made.data - np.clip(counts, 0, 65535)).max() <= 0.6
    share = float(np.mean((counts < 0) | (counts > 65535)))
    assert share > 0.001
    assert f"{100 * share:.3f} % of the pixels clipped" in sentinel["message"]


def test_a_remembered_model_is_forgotten_before_and_after(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("cell.tif"), tmp_path / "out.tif"
    imagej.remembered_model = bundles.probabilistic
    _, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done"
    assert difference(read_image(output), expected(tf1, bundles.planes, source, nTiles=1)) <= ONCE
    assert imagej.remembered_model == ""


def test_what_an_export_writes_runs_its_own_model_and_not_the_remembered_one(
    imagej, bundles, tf1, write_image, tmp_path
):
    from care_bridge.export.savedmodel import HOW_TO, write_how_to
    from care_bridge.macros import lint
    from care_bridge.plugin.options import PluginOptions

    bundle = tmp_path / "my model.zip"
    bundle.write_bytes(bundles.planes.read_bytes())
    with zipfile.ZipFile(bundle) as opened:
        meta = json.loads(opened.read("meta.json"))
    write_how_to(bundle, meta)
    source = write_image("cell one.tif")
    options = {
        key: value for key, value in meta["care_bridge"]["fiji"].items() if key in vars(PluginOptions())
    }
    reference = expected(tf1, bundle, source, **options)
    macro = bundle.with_suffix(".ijm")
    assert lint(macro.read_text()) == []
    imagej.remembered_model = bundles.probabilistic
    result = imagej.run_macro(
        f'open("{source}"); runMacro("{macro}"); selectWindow("cell one.tif_restored"); saveAs("Tiff", "{tmp_path}/a.tif");'
    )
    assert not result.aborted, result
    assert difference(read_image(tmp_path / "a.tif"), reference) <= ONCE
    assert imagej.remembered_model == ""
    lines = [
        line for line in (tmp_path / HOW_TO).read_text().splitlines() if line.startswith(("run(", "call("))
    ]
    imagej.remembered_model = bundles.probabilistic
    result = imagej.run_macro(
        f'open("{source}");' + "".join(lines) + f'selectWindow("result"); saveAs("Tiff", "{tmp_path}/b.tif");'
    )
    assert not result.aborted, result
    assert difference(read_image(tmp_path / "b.tif"), reference) <= ONCE
    assert imagej.remembered_model == ""


def test_the_stand_in_has_the_plugins_traps(imagej, bundles, write_image, tmp_path):
    """What the macros guard against really happens without them (recorded behaviour, fiji macros page)."""
    source = write_image("cell.tif")
    call = f'run("Run your network", "input=cell.tif modelfile=[{bundles.planes}] ntiles=1 showprogressdialog=false");'
    remembered = imagej.run_macro(
        f'open("{source}"); {call} selectWindow("result"); close();'
        + call.replace(str(bundles.planes), str(bundles.probabilistic))
        + 'selectWindow("result"); return "" + nSlices;'
    )
    assert remembered.value == "1"  # the first model again: the other gives two channels
    imagej.forget()
    stale = imagej.run_macro(
        f'open("{source}"); {call} selectWindow("result"); close(); selectWindow("cell.tif");'
        f'makeRectangle(0, 0, 20, 22); run("Crop"); {call} selectWindow("result");'
        'return "" + getWidth() + "x" + getHeight();'
    )
    assert stale.value == "50x48"
    current = imagej.run_macro(f'open("{source}"); {call} return getTitle() + isOpen("result");')
    assert current.value == "cell.tif1"
    mistyped = imagej.run_macro(
        f'open("{source}"); run("Run your network", "nTiles=1 modelfile=[{bundles.planes}] clip overlapp=3"); return "on";'
    )
    assert mistyped.value == "on"
    silent = imagej.run_macro(
        f'open("{source}"); run("Run your network", "modelfile=[/no.zip]"); return getTitle();'
    )
    assert (silent.value, silent.error) == ("cell.tif", "")
    imagej.forget()
    calibration = imagej.run_macro(
        f'open("{source}"); {call} selectWindow("result"); getVoxelSize(x, y, z, unit); return unit + bitDepth();'
    )
    assert calibration.value == "pixels32"


def test_without_groovy_it_is_said_that_nothing_can_be_forgotten(
    plain_imagej, bundles, write_image, tmp_path
):
    source, output = write_image("cell.tif"), tmp_path / "out.tif"
    plain_imagej.forget()
    result, sentinel = run(
        plain_imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done"
    assert "no working Groovy in this ImageJ" in result.log


def test_an_image_called_result_and_a_selection_stay_as_they_are(imagej, bundles, tf1, write_image, tmp_path):
    source, output = write_image("result.tif"), tmp_path / "out.tif"
    text = (
        (MACROS / "restore_image.ijm")
        .read_text()
        .replace(
            "source = inputImage(",
            'open("' + str(source) + '"); rename("result"); makeRectangle(3, 4, 9, 9); source = inputImage(',
            1,
        )
        .replace(
            'writeSentinel("done"',
            'selectWindow("result"); message = "" + selectionType() + getTitle() + bitDepth(); writeSentinel("done"',
        )
    )
    sentinel = tmp_path / "s.json"
    result = imagej.run_macro(
        text, f"model=[{bundles.planes}] ntiles=1 output=[{output}] sentinel=[{sentinel}]"
    )
    assert not result.aborted, result
    assert json.loads(sentinel.read_text())["message"] == "0result16"
    assert difference(read_image(output), expected(tf1, bundles.planes, source, nTiles=1)) <= ONCE
    assert result.open_titles.count("result") == 1


def log_lines(folder: Path) -> list[dict[str, str]]:
    with open(folder / "care_log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_leaves_the_images_that_were_open(imagej, bundles, write_image, tmp_path):
    source = write_image("in/cell.tif")
    macro = (
        f'open("{source}"); rename("mine");'
        f'runMacro("{MACROS}/restore_folder.ijm", "model=[{bundles.planes}] ntiles=1 input=[{tmp_path}/in] '
        f'output=[{tmp_path}/out]"); File.saveString(String.join(getList("image.titles")), "{tmp_path}/open.txt");'
    )
    result = imagej.run_macro(macro)
    assert (tmp_path / "open.txt").read_text().strip() == "mine", result
    assert (tmp_path / "out" / "cell.tif").exists()


def test_a_folder_goes_on_after_bad_files_and_keeps_its_sub_folders(
    imagej, bundles, tf1, write_image, bad_files, tmp_path
):
    names = ["a.tif", "b [1].tif", "sub folder/c.tif", "sub folder/deeper/\u00e4pfel.TIFF"]
    for seed, name in enumerate(names):
        write_image(f"in/{name}", seed=seed)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    bad = bad_files(tmp_path / "in")
    output = tmp_path / "in" / "restored"  # below the input: must not be restored itself
    arguments = f"model=[{bundles.planes}] ntiles=1 input=[{tmp_path / 'in'}/] output=[{output}]"
    result, sentinel = run(imagej, "restore_folder", tmp_path, arguments)
    assert sentinel == {**sentinel, "status": "done with failures", "done": 4, "skipped": 0, "failed": 6}, (
        result
    )
    for name in names:
        made = (output / name).with_suffix(".tif")
        assert (
            difference(read_image(made), expected(tf1, bundles.planes, tmp_path / "in" / name, nTiles=1))
            <= ONCE
        )
        assert_kept(made, tmp_path / "in" / name)
    failures = (output / "care_failures.txt").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in failures) == sorted(bad)
    reasons = dict(line.split(": ", 1) for line in failures)
    assert "truncated" in reasons["truncated.tif"]
    assert "RGB" in reasons["rgb.tif"]
    assert "the plugin gave no result" in reasons["wrong_depth.tif"]
    assert "cannot be read as a TIFF" in reasons["empty.tif"]
    assert (output / "care_summary.txt").read_text() == "10 found, 4 restored, 0 skipped, 6 failed\n"
    lines = {line["file"]: line for line in log_lines(output)}
    assert len(lines) == 10
    ordered = np.sort(read_image(tmp_path / "in" / "a.tif").data.ravel())
    assert float(lines["a.tif"]["level_bottom"]) == ordered[round((ordered.size - 1) * 0.03)]
    assert float(lines["a.tif"]["maximum"]) == pytest.approx(
        read_image(output / "a.tif").data.max(), rel=1e-5
    )
    assert float(lines["a.tif"]["seconds"]) > 0
    assert not list(output.rglob("care_part*"))

    again, sentinel = run(imagej, "restore_folder", tmp_path, arguments)
    assert sentinel == {**sentinel, "done": 0, "skipped": 4, "failed": 6}, again
    other, sentinel = run(imagej, "restore_folder", tmp_path, arguments.replace("ntiles=1", "ntiles=2"))
    assert sentinel["status"] == "failed"
    assert "made with other settings" in other.log


@pytest.mark.timeout(280)
def test_two_hundred_images_killed_in_the_middle(tf1, bundles, write_image, bad_files, tmp_path):
    from care_bridge.errors import WorkerError
    from care_bridge.java.imagej import ImageJ

    names = [f"{number:03d}.tif" for number in range(194)]
    for seed, name in enumerate(names):
        write_image(f"in/{name}", shape=(256, 256), seed=seed % 5)
    bad = bad_files(tmp_path / "in")
    output = tmp_path / "out"
    arguments = f"model=[{bundles.planes}] ntiles=1 input=[{tmp_path / 'in'}] output=[{output}]"
    with ImageJ(open_network=tf1.open, groovy=True) as imagej:

        def kill_at_100() -> None:
            while len(list(output.glob("[0-9]*.tif"))) < 100:
                time.sleep(0.01)
            imagej.worker.kill()

        threading.Thread(target=kill_at_100, daemon=True).start()
        with pytest.raises(WorkerError):
            run(imagej, "restore_folder", tmp_path, arguments)
    first = {path.name: path.stat().st_mtime_ns for path in output.glob("[0-9]*.tif")}
    assert 100 <= len(first) < 194
    with ImageJ(open_network=tf1.open, groovy=True) as imagej:
        result, sentinel = run(imagej, "restore_folder", tmp_path, arguments)
    assert sentinel == {
        **sentinel,
        "done": 194 - len(first),
        "skipped": len(first),
        "failed": 6,
    }, result.log
    assert sorted(path.name for path in output.glob("*.tif")) == names
    assert all((output / name).stat().st_mtime_ns == written for name, written in first.items())
    assert len((output / "care_failures.txt").read_text().splitlines()) == len(bad) == 6
    done = [line["file"] for line in log_lines(output) if line["status"] == "done"]
    assert len(done) == len(set(done))
    # Killed between a file and its line in the log, at most one line is missing.
    assert len(done) >= 193
    for name in (names[0], names[-1]):
        assert (
            difference(
                read_image(output / name), expected(tf1, bundles.planes, tmp_path / "in" / name, nTiles=1)
            )
            <= ONCE
        )


@pytest.mark.parametrize(
    ("macro", "arguments", "message"),
    [
        ("restore_image", "model=[{planes}]", "no image is open"),
        (
            "restore_image",
            "model=[/no where/model.zip] input=[{image}]",
            "/no where/model.zip does not exist",
        ),
        ("restore_image", "model=[{folder}] input=[{image}]", "is a folder; give the .zip"),
        ("restore_image", "model=[{image}] input=[{image}]", "is no .zip"),
        ("restore_image", "model=[{folder}/a]b.zip] input=[{image}]", "no value"),
        ("restore_image", "input=[{image}]", "no model: give model="),
        ("restore_image", "model=[{planes}] ntile=3 input=[{image}]", "did you mean ntiles?"),
        ("restore_image", "model=[{planes}] clip input=[{image}]", "write clip=true"),
        ("restore_image", "model=[{planes}] clip=yes input=[{image}]", "neither true nor false"),
        ("restore_image", "model=[{planes}] ntiles=many input=[{image}]", "ntiles=many is no number"),
        ("restore_image", "model=[{planes}] ntiles=0 input=[{image}]", "ntiles=0 is too small"),
        ("restore_image", "model=[{planes}] ntiles=1.5 input=[{image}]", "no whole number"),
        ("restore_image", "model=[{planes}] percentilebottom=99.9 input=[{image}]", "is not below"),
        (
            "restore_image",
            "model=[{stacks}] input=[{channels}]",
            "the plugin gave no result for 'channels.tif'",
        ),
        ("restore_image", "model=[{planes}] input=[{folder}/missing.tif]", "the file is gone"),
        ("restore_image", "model=[{planes}] input=[{image}] bits=8", "too small"),
        (
            "restore_image",
            "model=[{planes}] input=[{image}] output=[{image}/out.tif]",
            "is a file; name a folder",
        ),
        (
            "restore_image",
            "model=[{planes}] input=[{image}] output=[/proc/none/out.tif]",
            "cannot make the folder",
        ),
        ("restore_image", "model=[{planes}] input=[{image}] output=[{folder}/{long}.tif]", "cannot write"),
        ("restore_image", "model=[{planes} input=[{image}", "is not closed"),
        (
            "restore_folder",
            "model=[{planes}] input=[{folder}] output=[{folder}]",
            "would overwrite the images",
        ),
        ("restore_folder", "model=[{planes}] input=[{folder}/none] output=[{folder}/o]", "does not exist"),
        ("restore_folder", "model=[{planes}] input=[{folder}] output=[/proc/none]", "cannot make the folder"),
        (
            "restore_folder",
            "model=[{planes}] input=[{folder}] output=[{folder}/o] pattern=*.czi",
            "no file like",
        ),
        ("restore_folder", "model=[{planes}] input=[{folder}]", "no folder for the results"),
        ("restore_time_series", "model=[{planes}] input=[{image}]", "has one frame"),
        (
            "restore_time_series",
            "model=[{planes}] normalization=both input=[{image}]",
            "neither series nor frame",
        ),
        ("restore_channels", "model=[{planes}] channels=4 input=[{channels}]", "has channels 1 to 2"),
        (
            "restore_channels",
            "models=[{planes};{planes};{planes}] input=[{channels}]",
            "3 models for 2 channels",
        ),
        ("restore_twice", "model=[{stacks}] input=[{channels}]", "the plugin gave no result"),
    ],
)
def test_a_mistake_ends_in_one_line_that_tells_what_to_do(
    imagej, bundles, write_image, tmp_path, macro, arguments, message
):
    image = write_image("image.tif")
    channels = write_image("channels.tif", "CYX", (2, 40, 44))
    for name, value in {
        "planes": bundles.planes,
        "stacks": bundles.stacks,
        "image": image,
        "channels": channels,
        "folder": tmp_path,
        "long": "x" * 300,
    }.items():
        arguments = arguments.replace(f"{{{name}}}", str(value))
    before = image.read_bytes()
    result, sentinel = run(imagej, macro, tmp_path, arguments)
    lines = [line for line in result.log.splitlines() if line.startswith("CARE bridge: ")]
    assert len(lines) == 1, result.log
    assert message in lines[0]
    assert result.aborted
    if sentinel:
        assert sentinel["status"] == "failed"
        assert message.split("'")[0] in sentinel["message"]
    assert image.read_bytes() == before
    assert not (tmp_path / "out.tif").exists()


def test_windows_separators_and_names_with_brackets_blanks_and_umlauts(
    imagej, bundles, tf1, write_image, tmp_path
):
    folder = tmp_path / "m\u00fctter [2] und so"
    folder.mkdir()
    model = folder / "das modell.zip"
    model.write_bytes(bundles.planes.read_bytes())
    source = write_image("m\u00fctter [2] und so/zelle [3] \u00e4.tif")
    output = folder / "aus [4]" / "zelle.tif"
    _, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{str(model).replace('/', chr(92))}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert sentinel["status"] == "done"
    assert difference(read_image(output), expected(tf1, bundles.planes, source, nTiles=1)) <= ONCE


def test_a_path_of_a_thousand_characters(imagej, bundles, write_image, tmp_path):
    deep = "/".join(["d" * 100] * 9)
    source = write_image(f"{deep}/cell.tif")
    output = tmp_path / "out" / deep / "cell.tif"
    _, sentinel = run(
        imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
    )
    assert len(str(output)) > 950
    assert sentinel["status"] == "done"
    assert output.is_file()


def test_an_image_that_is_closed_in_between_is_said_so(imagej, bundles, write_image, tmp_path):
    source = write_image("cell.tif")
    text = (
        (MACROS / "restore_image.ijm")
        .read_text()
        .replace("restored = restore(", "close(); restored = restore(", 1)
    )
    result = imagej.run_macro(text, f"model=[{bundles.planes}] input=[{source}]")
    assert "the image was closed before it could be restored" in result.log


def test_a_result_that_stays_outside_of_imagej_is_a_failure_and_not_the_input(
    plain_imagej, bundles, write_image, tmp_path
):
    source, output = write_image("cell.tif"), tmp_path / "out.tif"
    result, sentinel = run(
        plain_imagej,
        "restore_image",
        tmp_path,
        f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]",
        windows=False,
    )
    assert sentinel["status"] == "failed"
    assert "the plugin gave no result" in result.log
    assert not output.exists()


def test_without_windows_the_lost_result_is_fetched_where_groovy_is(
    imagej, bundles, tf1, write_image, tmp_path
):
    source, output = write_image("cell.tif"), tmp_path / "out"
    arguments = f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]"
    result, sentinel = run(imagej, "restore_twice", tmp_path, arguments, windows=False)
    assert sentinel["status"] == "done", result
    once = expected(tf1, bundles.planes, source, nTiles=1)
    twice = expected(tf1, bundles.planes, source, applications=2, nTiles=1)
    assert difference(read_image(output / "cell_once.tif"), once) <= ONCE
    assert difference(read_image(output / "cell_twice.tif"), twice) <= TWICE


def test_an_earlier_result_without_a_window_is_not_taken_for_the_next(imagej, bundles, write_image, tmp_path):
    source, stack = write_image("cell.tif"), write_image("stack.tif", "TZYX", (2, 2, 48, 50))
    (tmp_path / "alone.ijm").write_text(
        f'open("{source}"); run("Run your network", "input=[cell.tif] ntiles=1 modelfile=[{bundles.planes}]");'
    )
    imagej.run_macro(tmp_path / "alone.ijm", windows=False)  # its result stays among SciJava's displays
    output = tmp_path / "out.tif"
    arguments = f"model=[{bundles.planes}] input=[{stack}] output=[{output}]"
    _, sentinel = run(imagej, "restore_image", tmp_path, arguments, windows=False)
    assert sentinel["status"] == "failed"
    assert "the plugin gave no result for 'stack.tif'" in sentinel["message"]
    assert not output.exists()


def test_lines_written_for_a_model_run_as_they_are(imagej, bundles, tf1, write_image, tmp_path):
    from care_bridge.macros import for_model, lint

    source, output = write_image("cell.tif", shape=(150, 150)), tmp_path / "out.tif"
    made = for_model(bundles.planes, read_image(source))
    options = {key: value for key, value in vars(made.options).items() if key != "modelFile"}
    reference = expected(tf1, bundles.planes, source, **options)
    result = imagej.run_macro(made.macro, f"input=[{source}] output=[{output}]")
    assert not result.aborted, result
    assert difference(read_image(output), reference) <= ONCE
    line = imagej.run_macro(
        f'open("{source}"); {made.line} selectWindow("result"); saveAs("Tiff", "{tmp_path}/line.tif");'
    )
    assert line.plugin_runs == 1
    assert difference(read_image(tmp_path / "line.tif"), reference) <= ONCE
    assert not {"unknown-option", "missing-parameter", "camel-case", "value"} & {
        f.rule for f in lint(made.line)
    }
    assert lint(made.macro) == []
    assert not lint(made.deepimagej.replace(str(bundles.planes.parent), "planes"))
    # What this model needs, not the plugin's defaults.
    assert (made.options.nTiles, made.options.blockMultiple) == (1, 2)
    assert f"ntiles={made.options.nTiles} blockmultiple={made.options.blockMultiple}" in made.script


def test_the_level_imagej_predicts_as_the_emulation_does(bundles, tf1, groovy_imagej, write_image):
    from care_bridge.errors import InputError
    from care_bridge.java.imagej import ImageJPredictor
    from care_bridge.plugin.options import PluginOptions

    source = write_image("stack.tif", "ZYX", (3, 60, 70))
    options = {"nTiles": 4, "blockMultiple": 16, "overlap": 16, "percentileBottom": 1.0}
    predictor = ImageJPredictor(bundles.planes, PluginOptions(**options), imagej=groovy_imagej)
    made = predictor.predict(read_image(source))
    assert difference(made, expected(tf1, bundles.planes, source, **options)) == 0
    assert dict(predictor.runtime.versions)["imagej"] == "1.54p"
    assert predictor.runtime.level == "imagej"
    with pytest.raises(InputError, match="Network is meant for 2D images"):
        predictor.predict(read_image(write_image("both.tif", "TZYX", (2, 3, 40, 44))))
    with pytest.raises(InputError, match="there is no zip"):
        ImageJPredictor(bundles.planes.parent)


def test_python_predicts_the_same_by_the_fiji_rule(imagej, bundles, write_image, tmp_path):
    """Not the emulation but the Keras model itself: percentiles of Fiji, no tiles, sizes that need no padding."""
    from care_bridge.inference.keras import KerasPredictor
    from care_bridge.normalize import FIJI
    from care_bridge.predictor import PredictOptions

    source, output = write_image("cell.tif", shape=(64, 96)), tmp_path / "out"
    arguments = f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{output}]"
    _, sentinel = run(imagej, "restore_twice", tmp_path, arguments)
    assert sentinel["status"] == "done"
    keras = KerasPredictor.load(bundles.model, PredictOptions(rule=FIJI, denormalize=False))
    once, twice = apply_repeatedly(keras, read_image(source), applications=2)
    assert np.abs(read_image(output / "cell_once.tif").data - once.data).max() <= ONCE
    assert np.abs(read_image(output / "cell_twice.tif").data - twice.data).max() <= TWICE


def test_what_all_macros_share_is_the_same_in_each():
    parts = set()
    for path in sorted(MACROS.glob("*.ijm")):
        text = path.read_text(encoding="ascii")
        _, begin, rest = text.partition("// ---- The same in every macro of this folder: begin")
        shared, end, _ = rest.partition("// ---- The same in every macro of this folder: end")
        assert begin
        assert end
        parts.add(shared)
    assert len(parts) == 1
