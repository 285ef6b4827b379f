"""Restoring files: names, types, channels, and the commands around them."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.images import Image, LeftOutWarning, read_image, write_image
from care_bridge.inference.files import find_images, predict_files
from care_bridge.opening import open_predictor

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

run = CliRunner().invoke


@pytest.fixture
def images(tmp_path):
    """Two 16-bit TIFFs with a pixel size."""
    random = np.random.default_rng(0)
    for name in ("a.tif", "b.ome.tif"):
        pixels = random.integers(0, 60000, (20, 24), np.uint16)
        write_image(tmp_path / "in" / name, Image(pixels, "YX", {"Y": 0.1, "X": 0.1}))
    return tmp_path / "in"


@pytest.fixture
def truths(images):
    """Of the same names, and other pixels."""
    for file in images.iterdir():
        image = read_image(file)
        write_image(images.parent / "truths" / file.name, image.replace(data=image.data // 2))
    return images.parent / "truths"


def test_every_application_is_written_with_its_calibration(model_folder, images, tmp_path):
    done = predict_files(
        open_predictor(model_folder, runtime="keras"),
        find_images([images]),
        target=lambda file: tmp_path / "out" / file.name,
        applications=2,
        scales=True,
    )
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == sorted(
        f"{stem}_{application}{scale}{end}"
        for stem, end in (("a", ".tif"), ("b", ".ome.tif"))
        for application in (1, 2)
        for scale in ("", "_scale")
    )
    restored = read_image(tmp_path / "out" / "a_1.tif")
    assert restored.dtype == np.float32
    assert restored.pixel_size_um["X"] == pytest.approx(0.1)
    assert done[0].source.name == "a.tif"
    mean = open_predictor(model_folder, runtime="keras").predict(read_image(images / "a.tif")).data[..., 0]
    np.testing.assert_array_equal(restored.data, mean)


def test_integer_results_are_clipped_and_the_share_is_told(model_folder, images, tmp_path):
    result = run(
        app, ["predict", str(model_folder), str(images / "a.tif"), "--out", str(tmp_path), "--dtype", "uint8"]
    )
    assert result.exit_code == 0, result.output
    assert "% of the pixels clipped" in result.output
    assert "--scale-when-converting maps all of them into it" in result.output
    assert read_image(tmp_path / "a.tif").dtype == np.uint8


def test_integer_results_are_scaled_into_their_type_when_asked_and_it_is_told(model_folder, images, tmp_path):
    words = ["predict", str(model_folder), str(images / "a.tif"), "--out", str(tmp_path)]
    result = run(app, [*words, "--dtype", "uint8", "--scale-when-converting"])
    assert result.exit_code == 0, result.output
    assert "clipped" not in result.output
    assert "became 0 ... 255, so value = " in result.output
    data = read_image(tmp_path / "a.tif").data
    assert (data.dtype, data.min(), data.max()) == (np.uint8, 0, 255)
    # Results of 0 to 1 are refused as whole numbers, but for this.
    result = run(app, [*words, "--dtype", "uint8", "--scale-when-converting", "--rule", "fiji"])
    assert result.exit_code == 0, result.output


def test_options_of_csbdeeps_care_predict_are_understood(model_folder, images, tmp_path):
    result = run(
        app,
        [
            *("predict", "--input-dir", str(images), "--input-pattern", "a*.tif", "--input-axes", "YX"),
            *("--norm-pmin", "2", "--norm-pmax", "99.8", "--norm-undo", "--n-tiles", "1,2"),
            *("--model-basedir", str(model_folder.parent), "--model-name", model_folder.name),
            *("--model-weights", "weights_best.h5", "--output-dir", str(tmp_path / "out")),
            *("--output-name", "{model_name}/{file_path}/{file_name}{file_ext}", "--output-dtype", "uint16"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert read_image(tmp_path / "out" / "model" / "a.tif").dtype == np.uint16


def test_dry_run_writes_nothing(model_folder, images, tmp_path):
    result = run(
        app, ["predict", str(model_folder), str(images), "--out", str(tmp_path / "out"), "--dry-run"]
    )
    assert result.exit_code == 0
    assert "not saved" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{model}", "{images}", "--out", "{images}"], "would replace an image"),
        (["{model}", "{images}", "--out", "{out}", "--output-name", "x.tif"], "would both become"),
        (["{model}", "{images}", "--out", "{out}", "--output-name", "{{name}}"], "is not understood"),
        (["{model}", "--out", "{out}"], "no images"),
        (["{model}", "{images}/none.tif", "--out", "{out}"], "no image at"),
        (["{model}", "{out}", "--out", "{out}"], "no image at"),
        (["{out}/model", "{images}", "--out", "{out}"], "no model folder"),
        (["{model}", "{images}", "--out", "{out}", "--dtype", "float17"], "not a type"),
        (["{model}", "{images}", "--out", "{out}", "--scale-when-converting"], "is for whole numbers"),
        (["{model}", "{images}", "--out", "{out}", "--rule", "matlab"], "--rule 'matlab' is not known"),
        (["{model}", "{images}", "--out", "{out}", "--runtime", "tf3"], "--runtime 'tf3' is not known"),
        (["{model}", "{images}", "--out", "{out}", "--n-tiles", "two"], "--n-tiles 'two'"),
        (["{model}", "{images}", "--out", "{out}", "--n-tiles", "1,2,2"], "n_tiles has 3 entries"),
        (["{model}", "{images}", "--out", "{out}", "--factor", "2"], "is for UpsamplingCARE"),
        (["{model}", "{images}", "--out", "{out}", "--input-axes", "ZCX"], "ZCX"),
        (["{model}", "{images}", "--out", "{out}", "--model-weights", "w.h5"], "no weights 'w.h5'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(model_folder, images, tmp_path, arguments, sentence):
    places = {"model": model_folder, "images": images, "out": tmp_path / "out"}
    result = run(app, ["predict", *(argument.format(**places) for argument in arguments)])
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_files_that_are_not_images_are_named_all_at_once(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.warns(LeftOutWarning, match=r"notes\.txt"), pytest.raises(InputError) as caught:
        find_images([tmp_path, tmp_path / "notes.txt", tmp_path / "gone.tif"])
    assert len(str(caught.value).splitlines()) == 3


def test_training_from_the_command_line(images, truths, tmp_path):
    write = ["train", str(images), str(truths), "--out", str(tmp_path / "model"), "--quiet"]
    small = [
        "--smoke",
        "--epochs",
        "1",
        "--steps",
        "2",
        "--patch-size",
        "8,8",
        "--depth",
        "1",
        "--all-patches",
    ]
    assert run(app, [*write, *small, "--patches-per-image", "12", "--seed", "4"]).exit_code == 0
    assert (tmp_path / "model" / "weights_best.h5").is_file()
    again = run(app, [*write, *small, "--patches-per-image", "12", "--seed", "4"])
    assert again.exit_code == 2
    assert "holds a model already" in again.output
    assert run(app, [*write, *small, "--patches-per-image", "12", "--seed", "4", "--resume"]).exit_code == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--preset", "nuclei"], "no preset 'nuclei'"),
        (["--patch-size", "8;8"], "--patch-size '8;8' is not understood"),
        (["--set", "unet_ndepth=3", "--patch-size", "8,8", "--all-patches"], "did you mean 'unet_n_depth'?"),
        (["--patch-size", "64,64"], "smaller"),
        (["--preset", "planaria"], "preset 'planaria' has no patch size for YX"),
    ],
)
def test_wrong_training_is_one_line_and_exit_code_2(images, truths, tmp_path, more, sentence):
    result = run(app, ["train", str(images), str(truths), "--out", str(tmp_path / "model"), *more])
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert not (tmp_path / "model").exists()


# A file of csbdeep does not say where its patches lie.
@pytest.mark.filterwarnings("default::care_bridge.patches.LeakingSplitWarning")  # the command prints it
def test_file_of_csbdeep_trains_from_the_command_line_and_ensembles_predict(tmp_path):
    random = np.random.default_rng(0)
    x, y = (random.random((20, 1, 8, 8), np.float32) for _ in range(2))
    np.savez(tmp_path / "data.npz", X=x, Y=y, axes="SCYX")
    small = ["--smoke", "--epochs", "1", "--steps", "1", "--depth", "1", "--features", "2", "--quiet"]
    result = run(
        app,
        [
            "train",
            str(tmp_path / "data.npz"),
            "--out",
            str(tmp_path / "model"),
            "--ensemble",
            "2",
            *small,
        ],
    )
    assert "care-bridge: warning: these 20 patches do not say which image" in result.stderr
    assert result.exit_code == 0, result.output
    write_image(tmp_path / "in.tif", Image(x[0, 0], "YX"))
    result = run(
        app, ["predict", str(tmp_path / "model"), str(tmp_path / "in.tif"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert read_image(tmp_path / "out" / "in.tif").shape == (8, 8)
