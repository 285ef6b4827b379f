"""Level `onnx`: the scripts, unchanged, in real ImageJ with the real ONNX Runtime; nothing answers for the plugin."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from care_bridge.images import Image, read_image
from care_bridge.java import runtimes
from care_bridge.normalize import FIJI, normalize

pytestmark = [pytest.mark.java, pytest.mark.tf]
pytest.importorskip("onnx")

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
ONCE, TWICE = 1e-6, 5e-6
"""In parts of the result's range; seen: 2e-7 and 6e-7."""


@pytest.fixture(scope="module")
def imagej() -> Iterator[Any]:
    from tests.macros.conftest import _ready

    _ready("onnx")
    from care_bridge.java.imagej import ImageJ

    with ImageJ(onnx=True, timeout_s=120) as running:
        yield running


def run(
    imagej: Any, name: str, tmp_path: Path, image: Path | None = None, **parameters: Any
) -> tuple[Any, dict[str, Any]]:
    """Run a script of the folder; its result and what its sentinel says."""
    sentinel = tmp_path / "sentinel.json"
    sentinel.unlink(missing_ok=True)
    result = imagej.run_script(MACROS / f"{name}.groovy", {**parameters, "sentinel": sentinel}, image=image)
    assert result.error == "", result.log
    assert result.plugin_runs == 0
    return result, json.loads(sentinel.read_text(encoding="utf-8"))


def off(one: Image, other: Image) -> float:
    """Largest difference in parts of the range."""
    assert (one.axes, one.shape) == (other.axes, other.shape)
    return float(np.abs(one.data.astype(np.float64) - other.data).max() / np.ptp(other.data))


def python(bundle: Path, image: Image, **options: Any) -> Image:
    """The model by TensorFlow 2 under the plugin's rule, in one tile."""
    from care_bridge.comparing.sides import open_reference, recommended_options

    with open_reference(bundle, recommended_options(bundle).replace(**options)) as predictor:
        return predictor.predict(image)


def cases() -> list[tuple[str, str, tuple[int, ...], int]]:
    """Models, axes, sizes and tilings from one seed."""
    rng = np.random.default_rng(17)
    found = []
    for axes, model in [("YX", "planes"), ("ZYX", "planes"), ("TYX", "planes"), ("ZYX", "stacks")] * 3:
        shape = [int(rng.integers(9, 80)) for _ in "YX"]
        if len(axes) == 3:
            shape.insert(0, int(rng.integers(2, 9)))
        found.append((model, axes, tuple(shape), int(rng.integers(1, 8))))
    return found


@pytest.mark.parametrize(("model", "axes", "shape", "n_tiles"), cases())
def test_at_any_size_axes_and_tiling_it_is_pythons_image_and_the_plugins_tensorflow(
    imagej, bundles, tf1, model, axes, shape, n_tiles
):
    from care_bridge.comparing.sides import recommended_options
    from care_bridge.java.imagej_onnx import ImageJOnnxPredictor
    from care_bridge.plugin.emulation import EmulatedPlugin

    bundle = getattr(bundles, model)
    image = Image(np.random.default_rng(shape).poisson(200, shape).astype(np.uint16), axes)
    one_tile = recommended_options(bundle)
    here = ImageJOnnxPredictor(bundle, one_tile.replace(nTiles=n_tiles), imagej=imagej).predict(image)
    assert off(here, python(bundle, image)) <= ONCE
    assert off(here, EmulatedPlugin(tf1.open(bundle), one_tile).predict(image)) <= ONCE


def test_frames_of_stacks_are_restored_one_by_one_and_everything_else_is_kept(
    imagej, bundles, write_image, tmp_path
):
    source, output = write_image("cell one.tif", "TZYX", (2, 5, 36, 41)), tmp_path / "out" / "cell.tif"
    result, ending = run(imagej, "Restore_Image", tmp_path, source, model=bundles.planes, output=output)
    assert ending["status"] == "done"
    assert "planes.zip is run by ONNX Runtime 1.18.0" in result.log
    made, given = read_image(output), read_image(source)
    # The percentiles are those of the whole series, so a frame is compared on that scale.
    scaled = normalize(given.data, rule=FIJI, pmin=3.0, pmax=99.8)[0]
    for frame in range(2):
        alone = given.replace(data=scaled[frame], axes="ZYX")
        expected = python(bundles.planes, alone, normalizeInput=False)
        assert off(made.replace(data=made.data[frame], axes="ZYX"), expected) <= ONCE
    assert dict(made.pixel_size_um) == pytest.approx(dict(given.pixel_size_um), rel=1e-7)
    assert (made.unit, made.frame_interval_s) == (given.unit, given.frame_interval_s)
    with tifffile.TiffFile(output) as one, tifffile.TiffFile(source) as other:
        about = one.imagej_metadata
        assert about["Labels"] == other.imagej_metadata["Labels"]
        assert "ONNX Runtime 1.18.0, tiles=1" in about["Info"]


def test_a_model_that_has_its_scale_in_it_is_given_grey_levels_whatever_is_ticked(
    imagej, write_image, tmp_path
):
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    config = CareConfig(method="n2v", unet_n_first=4, unet_n_depth=1, means=(200.0,), stds=(30.0,), seed=2)
    bundle = write_bundle(CareModel(config, build(config)), tmp_path / "blind.zip", how_to=False)
    source, output = write_image("cell.tif"), tmp_path / "out"
    # Nothing is said of normalising: the script's own "Normalize first" is on.
    result, ending = run(
        imagej, "Restore_Twice", tmp_path, source, model=bundle, output=output, engine="onnx"
    )
    assert ending["status"] == "done"
    assert "takes grey levels as they are" in result.log
    once = python(bundle, read_image(source))
    assert abs(float(once.data.mean()) - 200) < 200  # grey levels, as the image's
    assert off(read_image(output / "cell_once.tif"), once) <= ONCE
    assert off(read_image(output / "cell_twice.tif"), python(bundle, once)) <= TWICE


@pytest.mark.parametrize("model", ["planes", "probabilistic"])
def test_twice_in_a_row_is_pythons(imagej, bundles, write_image, tmp_path, model):
    source, output, bundle = write_image("cell.tif"), tmp_path / "out", getattr(bundles, model)
    _, ending = run(imagej, "Restore_Twice", tmp_path, source, model=bundle, output=output, engine="onnx")
    assert ending["status"] == "done"
    once = python(bundle, read_image(source))
    assert off(read_image(output / "cell_once.tif"), once) <= ONCE
    mean = once if model == "planes" else once.replace(data=once.data[0], axes="YX")
    assert off(read_image(output / "cell_twice.tif"), python(bundle, mean)) <= TWICE


def test_a_folder_goes_on_after_bad_files_with_one_session(imagej, bundles, write_image, tmp_path, bad_files):
    for number in range(4):
        write_image(f"in/{number}.tif", seed=number)
    bad = bad_files(tmp_path / "in")
    _, ending = run(
        imagej,
        "Restore_Folder",
        tmp_path,
        model=bundles.planes,
        input=tmp_path / "in",
        outputFolder=tmp_path / "out",
        engine="onnx",
    )
    # One bad file for the plugin is none here: planes of Z and T at once are planes.
    assert (ending["done"], ending["failed"]) == (5, len(bad) - 1)
    assert (
        off(
            read_image(tmp_path / "out" / "3.tif"),
            python(bundles.planes, read_image(tmp_path / "in" / "3.tif")),
        )
        <= ONCE
    )
    settings = (tmp_path / "out" / "care_settings.txt").read_text()
    assert settings.strip().endswith("engine=onnx")


def test_it_agrees_with_what_python_wrote(imagej, bundles, write_image, tmp_path):
    source = write_image("cell.tif")
    there = tmp_path / "python.tif"
    from care_bridge.images import write_image as save

    save(there, python(bundles.planes, read_image(source)))
    _, ending = run(
        imagej, "Compare_With_Python", tmp_path, source, model=bundles.planes, python=there, tolerance=1e-6
    )
    assert ending["status"] == "done", ending


@pytest.mark.parametrize(
    ("settings", "axes", "shape"),
    [
        ({"kind": "ProjectionCARE", "axes": "ZYX"}, "ZYX", (6, 41, 38)),
        ({"axes": "ZYX", "unet_pool": (1, 2, 2)}, "ZYX", (5, 41, 38)),
        ({"n_channel_in": 2, "n_channel_out": 3}, "CYX", (2, 41, 38)),
        ({"architecture": "fast", "unet_n_first": 8}, "YX", (61, 50)),
    ],
    ids=["projection", "flat pooling", "channels", "fast"],
)
def test_every_kind_of_network_gives_what_it_gives_python_in_one_tile_and_in_several(
    imagej, tmp_path, settings, axes, shape
):
    from care_bridge.comparing.sides import recommended_options
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.java.imagej_onnx import ImageJOnnxPredictor
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    small = {"unet_n_first": 4, "unet_kern_size": 3, "unet_n_depth": 1, "seed": 3}
    config = CareConfig(**{**small, **settings})
    bundle = write_bundle(CareModel(config, build(config)), tmp_path / "net.zip", how_to=False)
    image = Image(np.random.default_rng(0).poisson(200, shape).astype(np.uint16), axes)
    expected = python(bundle, image)
    for n_tiles in (1, 5):
        options = recommended_options(bundle).replace(nTiles=n_tiles)
        made = ImageJOnnxPredictor(bundle, options, imagej=imagej).predict(image)
        assert off(made, expected) <= ONCE


@pytest.mark.parametrize(
    ("settings", "axes", "shape"),
    [
        ({"kind": "UpsamplingCARE", "axes": "ZYX", "factor": 2.0}, "ZYX", (5, 41, 38)),
        ({"kind": "IsotropicCARE", "axes": "YX", "factor": 3.0}, "ZYX", (5, 41, 38)),
        ({"kind": "IsotropicCARE", "axes": "YX", "factor": 2.5, "probabilistic": True}, "ZYX", (4, 24, 21)),
    ],
    ids=["upsampling", "isotropic", "isotropic with widths"],
)
def test_stacks_are_filled_up_as_python_does_and_say_how_far_their_planes_are(
    imagej, tmp_path, settings, axes, shape
):
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.images import write_image as save
    from care_bridge.opening import open_predictor
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import FijiTiles
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    small = {"unet_n_first": 4, "unet_kern_size": 3, "unet_n_depth": 1, "seed": 3}
    config = CareConfig(**{**small, **settings})
    model = save_model(tmp_path / "model", config, build(config))
    bundle = write_bundle(model, tmp_path / "net.zip", how_to=False)
    data = np.random.default_rng(0).poisson(200, shape).astype(np.uint16)
    sizes = {"Z": 0.6, "Y": 0.2, "X": 0.2}
    save(tmp_path / "stack.tif", Image(data, axes, pixel_size_um=sizes))
    upsampling = config.kind == "UpsamplingCARE"
    # Sizes that are no multiple are filled up at the far end by the plugin and the script, csbdeep halves it.
    tiles = {"tiles": FijiTiles(n_tiles=1, block_multiple=2, overlap=0)} if upsampling else {}
    options = PredictOptions(rule=FIJI, pmin=3.0, pmax=99.8, denormalize=False, **tiles)
    with open_predictor(model.path, runtime="keras", options=options) as predictor:
        expected = predictor.predict(read_image(tmp_path / "stack.tif"))
    for n_tiles in (1, 3):
        _, ending = run(
            imagej,
            "Restore_Image",
            tmp_path,
            tmp_path / "stack.tif",
            model=bundle,
            output=tmp_path / "out.tif",
            engine="onnx",
            percentileBottom=3.0,
            nTiles=n_tiles,
        )
        assert ending["status"] == "done", ending
        made = read_image(tmp_path / "out.tif")
        assert dict(made.pixel_size_um) == pytest.approx(sizes | {"Z": 0.6 / config.factor}, rel=1e-6)
        order = [expected.axes.index(axis) for axis in made.axes]
        assert off(made, expected.replace(data=expected.data.transpose(order), axes=made.axes)) <= ONCE


def test_both_sides_of_a_comparison_fill_up_stacks(imagej, tmp_path):
    from care_bridge.comparing.sides import compare
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(
        kind="IsotropicCARE", factor=2.0, unet_n_first=4, unet_kern_size=3, unet_n_depth=1, seed=3
    )
    model = save_model(tmp_path / "model", config, build(config))
    write_bundle(model, tmp_path / "model" / "fiji.zip", how_to=False)
    image = Image(np.random.default_rng(0).poisson(200, (5, 24, 23)).astype(np.uint16), "ZYX")
    report = compare(
        reference=tmp_path / "model", candidate=tmp_path / "model", image=image, level="onnx", applications=2
    )
    assert report.passed
    assert report.results["candidate 1"].shape == (10, 24, 23)


def test_one_plane_is_not_filled_up(imagej, tmp_path, write_image):
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    config = CareConfig(kind="IsotropicCARE", factor=3.0, unet_n_first=4, unet_kern_size=3, unet_n_depth=1)
    write_bundle(CareModel(config, build(config)), tmp_path / "net.zip", how_to=False)
    _, ending = run(imagej, "Restore_Image", tmp_path, write_image("cell.tif"), model=tmp_path / "net.zip")
    assert "has one plane and the model fills up stacks along Z; give it a stack" in ending["message"]


@pytest.mark.parametrize("normalization", ["series", "frame"])
def test_a_time_series_is_restored_frame_by_frame(imagej, bundles, write_image, tmp_path, normalization):
    source = write_image("movie.tif", "TZYX", (3, 4, 36, 41))
    output = tmp_path / "out" / "movie.tif"
    _, ending = run(
        imagej,
        "Restore_Time_Series",
        tmp_path,
        source,
        model=bundles.stacks,
        output=output,
        normalization=normalization,
    )
    assert (ending["status"], ending["done"]) == ("done", 3), ending
    made, given = read_image(output), read_image(source)
    together = normalization == "series"
    scaled = normalize(given.data, rule=FIJI, pmin=3.0, pmax=99.8)[0] if together else given.data
    for frame in range(3):
        alone = given.replace(data=scaled[frame], axes="ZYX")
        expected = python(bundles.stacks, alone, normalizeInput=not together)
        assert off(made.replace(data=made.data[frame], axes="ZYX"), expected) <= ONCE
    assert dict(made.pixel_size_um) == pytest.approx(dict(given.pixel_size_um), rel=1e-7)


def test_channels_are_restored_each_by_its_model_and_the_others_kept(imagej, bundles, write_image, tmp_path):
    source, output = write_image("cell.tif", "ZCYX", (2, 3, 40, 44)), tmp_path / "out" / "cell.tif"
    other = shutil.copy(bundles.planes, tmp_path / "other.zip")
    _, ending = run(
        imagej,
        "Restore_Channels",
        tmp_path,
        source,
        model=bundles.planes,
        channels="1,3",
        models=f"{bundles.planes};{other}",
        output=output,
    )
    assert (ending["status"], ending["done"]) == ("done", 2), ending
    made, given = read_image(output), read_image(source)
    assert made.axes == given.axes == "ZCYX"
    for channel in (0, 2):
        alone = given.replace(data=given.data[:, channel], axes="ZYX")
        assert (
            off(made.replace(data=made.data[:, channel], axes="ZYX"), python(bundles.planes, alone)) <= ONCE
        )
    assert (made.data[:, 1] == given.data[:, 1]).all()
    _, ending = run(imagej, "Restore_Channels", tmp_path, source, model=bundles.planes, channels="4")
    assert ending["message"].endswith("has channels 1 to 3")


# ---- what does not go


def changed(bundle: Path, target: Path, **entries: bytes | None) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for name, new in entries.items():
        key = name.replace("__", ".")
        if new is None:
            del content[key]
        else:
            content[key] = new
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_a_zip_of_before_says_how_it_gets_onnx(imagej, bundles, write_image, tmp_path, engine):
    old = changed(bundles.planes, tmp_path / "old.zip", care_bridge__onnx=None, care_bridge__json=None)
    _, ending = run(imagej, "Restore_Image", tmp_path, write_image("cell.tif"), model=old, engine=engine)
    assert ending["status"] == "failed"
    assert "old.zip was exported earlier, without ONNX; export it again" in ending["message"]
    # Neither engine is there, and both are told.
    assert ("the CSBDeep plugin is not installed" in ending["message"]) is (engine == "auto")


def test_two_networks_that_were_not_written_together_are_refused(imagej, bundles, write_image, tmp_path):
    with zipfile.ZipFile(bundles.stacks) as other:
        foreign = other.read("care_bridge.onnx")
    mixed = changed(bundles.planes, tmp_path / "mixed.zip", care_bridge__onnx=foreign)
    _, ending = run(imagej, "Restore_Image", tmp_path, write_image("cell.tif"), model=mixed)
    assert "mixed.zip holds two networks that were not written together" in ending["message"]


@pytest.mark.parametrize(
    ("axes", "shape", "dtype", "words"),
    [
        ("CYX", (2, 40, 44), "uint16", "has 2 channels and the model takes 1; use Restore Channels"),
        ("YX", (40, 44), "float32", "has pixels that are not numbers"),
    ],
)
def test_an_image_that_does_not_fit_is_one_sentence(
    imagej, bundles, write_image, tmp_path, axes, shape, dtype, words
):
    data = np.random.default_rng(0).poisson(90, shape).astype(dtype)
    if dtype == "float32":
        data[3, 4] = np.nan
    source = write_image("odd.tif", axes, shape, data=data)
    _, ending = run(
        imagej, "Restore_Image", tmp_path, source, model=bundles.planes, output=tmp_path / "o.tif"
    )
    assert (ending["status"], words in ending["message"]) == ("failed", True), ending
    assert not (tmp_path / "o.tif").exists()


def test_paths_with_blanks_umlauts_and_many_letters_are_taken(imagej, bundles, write_image, tmp_path):
    folder = tmp_path / ("ein Ordner mit Umlauten äöü " + "x" * 100) / ("y" * 120)
    folder.mkdir(parents=True)
    model = Path(shutil.copy(bundles.planes, folder / "mein Modell ß.zip"))
    source = write_image("zelle.tif")
    _, ending = run(imagej, "Restore_Image", tmp_path, source, model=model, output=folder / "zelle ü.tif")
    assert ending["status"] == "done"
    assert read_image(folder / "zelle ü.tif").shape == (48, 50)


JAR = f"{runtimes.artifacts('onnx')[0].file_name}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "ONNX Runtime is not installed (no "),
        (b"PK", "has 2 bytes instead of 89063818: it was cut; run: care-bridge macros install"),
        ("changed", "is not the file that was installed, so it is not loaded"),
    ],
)
def test_a_jar_that_is_missing_or_cut_or_changed_is_told(
    bundles, write_image, tmp_path, monkeypatch, content, words
):
    from care_bridge.java.imagej import ImageJ

    there = runtimes.onnx_jar()
    jar = tmp_path / JAR
    if content == "changed":
        shutil.copyfile(there, jar)
        with open(jar, "r+b") as file:
            file.seek(1000)
            file.write(b"x")
    elif content is not None:
        jar.write_bytes(content)
    monkeypatch.setattr(runtimes, "onnx_jar", lambda: jar)
    with ImageJ(onnx=True, timeout_s=120) as running:
        _, ending = run(running, "Restore_Image", tmp_path, write_image("cell.tif"), model=bundles.planes)
    assert words in ending["message"]


def test_a_jar_of_a_persons_own_without_cuda_computes_on_the_processor_and_says_so(
    bundles, write_image, tmp_path, monkeypatch
):
    from care_bridge.java.imagej import ImageJ

    # Tried by hand too: onnxruntime_gpu 1.18.0 on a machine without CUDA says "CUDA cannot be used (...)" and goes on.
    jar = tmp_path / "my own.jar"
    shutil.copyfile(runtimes.onnx_jar(), jar)
    monkeypatch.setattr(runtimes, "onnx_jar", lambda: jar)
    with ImageJ(onnx=True, timeout_s=120) as running:
        result, ending = run(
            running, "Restore_Image", tmp_path, write_image("cell.tif"), model=bundles.planes
        )
    assert ending["status"] == "done"
    assert "was not made for CUDA (onnxruntime_gpu is); the processor computes" in result.log


def test_the_scripts_hold_the_pin_of_the_jar():
    text = (MACROS / "source" / "onnx.groovy").read_text(encoding="ascii")
    (jar,) = (artifact for artifact in runtimes.artifacts("onnx") if artifact.name == "onnxruntime")
    assert f"'{jar.file_name}'" in text
    assert f"{jar.size_bytes}L" in text
    assert f"'{jar.known_sha256}'" in text


# ---- through the command line


def test_compare_and_predict_name_the_level_and_agree(bundles, write_image, tmp_path):
    from care_bridge.cli import app

    source = write_image("cell.tif", shape=(61, 50))
    done = CliRunner().invoke(
        app, ["compare", str(bundles.model), str(bundles.planes), str(source), "--level", "onnx"]
    )
    assert done.exit_code == 0, done.output
    assert "imagej-onnx" in done.output
    out = tmp_path / "predicted"
    done = CliRunner().invoke(
        app, ["predict", str(bundles.planes), str(source), "--out", str(out), "--runtime", "imagej-onnx"]
    )
    assert done.exit_code == 0, done.output
