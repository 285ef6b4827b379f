"""What people do wrong, through the commands they type: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from care_bridge import files
from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("bad") / "model"
    config = CareConfig(axes="YX", unet_n_first=8, unet_kern_size=3)
    save_model(folder, config, build(config, seed=1))
    write_bundle(folder, folder / "fiji.zip", how_to=False)
    return folder


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).poisson(50, shape).astype(np.uint16)


def tiff(path: Path, data: Any = None, axes: str = "YX") -> Path:
    write_image(path, Image(noise(40, 44) if data is None else data, axes))
    return path


def refused(arguments: list[Any], *words: str, code: int = 2) -> str:
    """Run a command that must be refused; gives what it said."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    said = done.stderr
    assert done.exit_code == code, f"{done.exit_code}: {done.output}\n{done.exception!r}"
    assert len(said.splitlines()) == 1, said
    for word in words:
        assert word in said, said
    return said


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not [path for path in folder.rglob("*") if path.is_file()]


# The command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ("'trian'", "see care-bridge --help")),
        (["train"], ("'--out'", "see care-bridge train --help")),
        (["predict", "model", "--out", "out", "--applications", "0"], ("--applications", "1")),
        (["predict", "model", "--nix"], ("--nix", "see care-bridge predict --help")),
        (["macros", "run"], ("'name'", "see care-bridge macros run --help")),
    ],
)
def test_a_mistyped_command_line_is_answered_in_one_line(
    arguments: list[str], words: tuple[str, ...]
) -> None:
    refused(arguments, "care-bridge: ", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "model", "cell.tif", "--out", ""], "--out is given nothing"),
        (["predict", "model", "cell.tif", "--out="], "--out is given nothing"),
        (["predict", "model", " ", "--out", "o"], "an argument is empty"),
        (["evaluate", "", "source", "target"], "an argument is empty"),
    ],
)
def test_an_empty_word_is_no_path_to_this_folder(arguments: list[str], words: str) -> None:
    refused(arguments, words, "a variable is not set")


def test_a_thousand_problems_fill_no_screen(model: Path, tmp_path: Path) -> None:
    said = refused(["predict", model, *(f"{number}.tif" for number in range(30)), "--out", tmp_path / "out"])
    assert "'9.tif'; and 20 more" in said
    assert "'10.tif'" not in said


def test_the_help_names_every_option_in_full() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "80"}).output
    for option in ("--patches-per-image", "--no-probabilistic", "train_steps_per_epoch"):
        assert option in shown


def test_a_path_that_is_not_there_or_a_folder_is_said_in_words(model: Path, tmp_path: Path) -> None:
    refused(["advise", model, tmp_path / "nix.tif"], "nix.tif", "no file or folder")
    (tmp_path / "folder").mkdir()
    refused(["advise", model, tmp_path / "folder"], "folder", "name the file itself")


# Images --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_tiff_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("not an image", encoding="utf-8")
    refused(["predict", model, tmp_path / "text.tif", "--out", tmp_path / "out"], "text.tif")
    assert nothing_in(tmp_path / "out")


def test_a_truncated_tiff_is_not_filled_with_zeros(model: Path, tmp_path: Path) -> None:
    whole = tiff(tmp_path / "whole.tif", noise(200, 200)).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) * 2 // 3])
    refused(["predict", model, tmp_path / "cut.tif", "--out", tmp_path / "out"], "cut.tif")
    assert nothing_in(tmp_path / "out")


def test_a_colour_picture_does_not_fit_a_network_of_one_channel(model: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", noise(40, 44, 3).astype(np.uint8), photometric="rgb")
    refused(["predict", model, tmp_path / "rgb.tif", "--out", tmp_path / "out"], "channel")
    assert nothing_in(tmp_path / "out")


def test_axes_that_are_none_are_told_with_those_that_are(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "cell.tif")
    refused(["predict", model, image, "--axes", "QX", "--out", tmp_path / "out"], "STCZYX")
    assert nothing_in(tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_a_nan_costs_its_surroundings_and_not_the_image(model: Path, tmp_path: Path) -> None:
    data = noise(64, 64).astype(np.float32)
    data[3, 4] = np.nan
    image = tiff(tmp_path / "nan.tif", data)
    done = CliRunner().invoke(app, ["predict", str(model), str(image), "--out", str(tmp_path / "out")])
    if done.exit_code == 2:
        assert "NaN" in done.stderr
        assert nothing_in(tmp_path / "out")
    else:
        (result,) = (tmp_path / "out").rglob("*.tif")
        assert np.isfinite(tifffile.imread(result)).mean() > 0.5


def test_a_constant_image_stays_finite(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "flat.tif", np.full((40, 44), 7, np.uint16))
    done = CliRunner().invoke(app, ["predict", str(model), str(image), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (result,) = (tmp_path / "out").rglob("*.tif")
    assert np.isfinite(tifffile.imread(result)).all()


# Training pairs ------------------------------------------------------------------------------------------------


def train(tmp_path: Path) -> list[Any]:
    return ["train", tmp_path / "source", tmp_path / "target", "--out", tmp_path / "new", "--smoke"]


def test_every_source_without_target_is_named_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        tiff(tmp_path / "source" / f"{name}.tif")
    tiff(tmp_path / "target" / "a.tif")
    refused(train(tmp_path), "b.tif", "c.tif", "no target")
    assert nothing_in(tmp_path / "new")


def test_pairs_of_unequal_shape_are_named(tmp_path: Path) -> None:
    tiff(tmp_path / "source" / "a.tif", noise(80, 80))
    tiff(tmp_path / "target" / "a.tif", noise(80, 79))
    refused(train(tmp_path), "a.tif", "79")
    assert nothing_in(tmp_path / "new")


def test_an_image_smaller_than_a_patch_is_named(tmp_path: Path) -> None:
    for side in ("source", "target"):
        tiff(tmp_path / side / "tiny.tif", noise(9, 9))
    refused(train(tmp_path), "tiny.tif")
    assert nothing_in(tmp_path / "new")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
    refused(train(tmp_path), "source")
    assert nothing_in(tmp_path / "new")


def test_pairs_of_unequal_sizes_are_told_in_one_line_with_their_headline(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiff(tmp_path / "source" / f"{name}.tif", noise(80, 80))
        tiff(tmp_path / "target" / f"{name}.tif", noise(80, 79))
    refused(train(tmp_path), "2 of 2 image pairs cannot be used: a.tif", "; b.tif")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--precision", "bflaot16", "'float32' or 'bfloat16'"),
        ("--kind", "Care", "'UpsamplingCARE'"),
        ("--set", "train_los=mse", "train_loss"),
    ],
)
def test_a_mistyped_setting_is_known_before_patches_are_cut(
    tmp_path: Path, option: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("source", "target"):
        tiff(tmp_path / side / "a.tif", noise(80, 80))

    def cut(*_: Any, **__: Any) -> None:
        raise AssertionError("patches were cut")

    monkeypatch.setattr("care_bridge.training.data.data_from_folders", cut)
    refused([*train(tmp_path), option, value], words)


def test_resume_where_nothing_was_begun_begins_and_says_so(tmp_path: Path) -> None:
    for seed, side in enumerate(("source", "target")):
        tiff(tmp_path / side / "a.tif", noise(150, 150, seed=seed))
    short = [*train(tmp_path), "--epochs", 1, "--steps", 1, "--patch-size", "32,32", "--resume"]
    first, second = (CliRunner().invoke(app, [str(word) for word in short]) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert "no training was begun" in first.stdout
    assert "no training was begun" not in second.stdout


def test_resume_never_replaces_weights_that_have_no_checkpoint(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "new")
    for side in ("source", "target"):
        tiff(tmp_path / side / "a.tif", noise(150, 150))
    short = [*train(tmp_path), "--epochs", 1, "--steps", 1, "--patch-size", "32,32"]
    refused([*short, "--resume"], "no training/checkpoint.npz", "new")
    refused(short, "holds a model already", "--resume", "--overwrite")
    refused([*short, "--ensemble", 2], "holds a single model")
    assert (tmp_path / "new" / "weights_best.h5").read_bytes() == (model / "weights_best.h5").read_bytes()


def test_a_single_model_is_not_trained_over_an_ensemble(tmp_path: Path) -> None:
    (tmp_path / "new" / "member_1").mkdir(parents=True)
    refused(train(tmp_path), "holds an ensemble")


# Predicting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "float8"], ("--precision 'float8'", "bfloat16")),
        (["--dtype", "U5"], ("--dtype 'U5'", "uint16")),
        (["--dtype", "bool"], ("--dtype 'bool'", "uint16")),
        (["--runtime", "tf1", "--tensorflow", "2.0"], ("--tensorflow '2.0'", "1.12.0")),
        (["--output-name", "../{file_name}.tif"], ("--output-name", "within --out")),
        (["--output-name", "/tmp/{file_name}.tif"], ("--output-name", "within --out")),
        (["--output-name", "{file_name}.png"], ("--output-name", ".tiff")),
        (["--output-name", "{file_name.nix}.tif"], ("--output-name", "not understood")),
        (["--norm-pmin", "nan"], ("pmin=nan", "percentiles")),
    ],
)
def test_an_option_that_cannot_be_is_no_prediction(
    model: Path, tmp_path: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    image = tiff(tmp_path / "cell.tif")
    refused(["predict", model, image, "--out", tmp_path / "out" / "here", *arguments], *words)
    assert nothing_in(tmp_path / "out")


def test_a_pattern_that_is_none_is_named(model: Path, tmp_path: Path) -> None:
    tiff(tmp_path / "cell.tif")
    for pattern in ("/abs/*", "a**b"):
        refused(["predict", model, tmp_path, "--out", tmp_path / "o", "--input-pattern", pattern], pattern)


@pytest.mark.parametrize("factor", ["inf", "1e12"])
def test_an_upsampling_that_no_memory_holds_is_said(
    model: Path, tmp_path: Path, factor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from care_bridge.config import read_config, write_config

    folder = shutil.copytree(model, tmp_path / "up")
    write_config(folder, read_config(folder).replace(kind="IsotropicCARE", factor=2))
    stack = tiff(tmp_path / "stack.tif", noise(5, 24, 24), "ZYX")
    said = refused(["predict", folder, stack, "--out", tmp_path / "out", "--factor", factor])
    assert "factor=inf" in said or "not enough memory" in said
    assert nothing_in(tmp_path / "out")


@pytest.mark.parametrize("kind", ["UpsamplingCARE", "IsotropicCARE"])
def test_a_network_without_what_belongs_around_it_is_not_run(tmp_path: Path, kind: str) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    axes = "YX" if kind == "IsotropicCARE" else "ZYX"
    config = CareConfig(axes=axes, kind=kind, factor=2, unet_n_first=4, unet_n_depth=1, unet_kern_size=3)
    save_model(tmp_path / "model", config, build(config))
    bundle = write_bundle(tmp_path / "model", tmp_path / "alone" / "fiji.zip", how_to=False)
    stack = tiff(tmp_path / "stack.tif", noise(5, 24, 24), "ZYX")
    predict = ["predict", bundle, stack, "--out", tmp_path / "out"]
    refused([*predict, "--runtime", "tf1"], kind, "name the model's folder")
    refused(predict, "add --runtime tf1, or name the model's folder")
    # An .onnx does not say what it is; the config.json beside it does.
    (tmp_path / "model" / "model.onnx").write_bytes(b"not looked into")
    onnx = [
        "predict",
        tmp_path / "model" / "model.onnx",
        stack,
        "--out",
        tmp_path / "out",
        "--runtime",
        "onnx",
    ]
    refused(onnx, kind, repr(str(tmp_path / "model")))
    assert nothing_in(tmp_path / "out")


# Simulating ----------------------------------------------------------------------------------------------------


def test_all_problems_of_a_recipe_are_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nsed: 3\nsets:\n- {name: a b, steps: [{step: poison}]}\n", encoding="utf-8")
    refused(
        ["simulate", "--recipe", recipe, "--out", tmp_path / "out"],
        "'poison' is not known; did you mean 'poisson'?",
        "letters, digits and -",
        "did you mean 'seed'?",
    )


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({"b.tif": (16, 16)}, ["fibre", "--like", "b.tif"], ("b.tif", "has 16 x 16 pixels", "48 x 48")),
        ({"b.tif": (128, 128)}, ["fibre", "--like", "b.tif"], ("b.tif", "shows no cores")),
        ({"b.tif": (3, 128, 128)}, ["fibre", "--like", "b.tif"], ("b.tif", "axes ZYX", "one plane")),
        ({}, ["fibre", "--like", "b.tif"], ("b.tif", "is not there")),
        ({"f.tif": (64, 64)}, ["fibre", "--flat", "f.tif"], ("--flat", "add --like")),
        ({"b.tif": (128, 128)}, ["mito", "--like", "b.tif"], ("--like", "'mito' has no step `fibre`")),
    ],
)
def test_an_image_that_is_none_of_a_bundle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any, options: list[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shape in files.items():
        tiff(tmp_path / name, noise(*shape), "ZYX"[3 - len(shape) :])
    refused(["simulate", *options, "--out", "out"], *words)
    assert nothing_in(tmp_path / "out")


def test_a_flat_field_of_another_size_is_refused(tmp_path: Path) -> None:
    from care_bridge.simulate import fibre

    drawn = fibre.bundle((128, 128), seed=1, pitch_px=7, turn=True)
    shown = 100 * fibre.through_bundle(np.ones((128, 128)), drawn)
    tiff(tmp_path / "b.tif", shown.astype(np.float32))
    tiff(tmp_path / "f.tif", shown[:100].astype(np.float32))
    command = ["simulate", "fibre", "--like", tmp_path / "b.tif", "--flat", tmp_path / "f.tif"]
    refused([*command, "--out", tmp_path / "out"], "f.tif", "flat field has 100 x 128 pixels", "128 x 128")
    assert nothing_in(tmp_path / "out")


# Comparing and evaluating --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tolerance", "nan"),
        ("--tolerance", "-1"),
        ("--pmin", "101"),
        ("--pmax", "nan"),
        ("--pmin", "99", "--pmax", "1"),
        ("--tensorflow", "2.0"),
        ("--level", "fijji"),
    ],
)
def test_values_that_cannot_be_are_no_comparison(
    model: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    image = tiff(tmp_path / "cell.tif")
    refused(["compare", model, model, image, "--level", "emulation", *arguments], arguments[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train {pairs} --out {file}", "is a file; name a folder for the model"),
        (
            "train {pairs} --out {new} --start {model} --ensemble 2",
            "--start gives all members the same weights",
        ),
        ("train {pairs} --out {new} --patch-size 0,3", "--patch-size '0,3'"),
        ("train {pairs} --out {new} --axes QX", "axes='QX' holds Q"),
        ("train {new} --out {new}", "no training patches at"),
        ("sweep {pairs} --out {new} --grid seed=1 --patch-size 64x64", "--patch-size '64x64'"),
        ("sweep {pairs} --out {new} --grid seed=1 --test-source {new}", "--test-target belong together"),
        ("sweep {pairs} --out {new} --grid seed", "--grid 'seed'"),
        ("predict {model} {image} {image} --out {new}", "would both become"),
        ("predict {model} --out {new}", "no images; give TIFFs"),
        ("predict {model} {image} --out {new} --runtime onnx --precision bfloat16", "--precision is for"),
        ("predict {model} {image} --out {new} --norm-pmin 101", "pmin=101"),
        ("evaluate {model} {pairs} --out {new}/r.html --level 2", "'--interval'"),
        ("evaluate {file} {pairs} --out {new}/r.html", "no model"),
        ("export {model} --format onnx --target 1.12.0", "--oldest-tensorflow is for --format fiji"),
        ("compare {model} {model} {image} --axes QX --level emulation", "axes='QX' holds Q"),
    ],
)
def test_what_cannot_be_is_said_by_the_option_that_is_shown(
    model: Path, tmp_path: Path, arguments: str, words: str
) -> None:
    image = tiff(tmp_path / "source" / "a.tif", noise(80, 80))
    tiff(tmp_path / "target" / "a.tif", noise(80, 80, seed=1))
    (tmp_path / "file").write_text("no model", encoding="utf-8")
    places = {
        "pairs": f"{tmp_path / 'source'} {tmp_path / 'target'}",
        "image": image,
        "file": tmp_path / "file",
        "new": tmp_path / "new",
        "model": model,
    }
    refused(arguments.format(**places).split(), words)
    assert nothing_in(tmp_path / "new")


def test_a_line_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "cell.tif")
    for line in ("1,2,3", "1,2,nan,4", "5,5,5,5", "1,2,3,inf"):
        refused(["evaluate", model, image, image, "--out", tmp_path / "x.html", "--line", line], line)


def test_restored_images_never_replace_those_that_are_evaluated(model: Path, tmp_path: Path) -> None:
    pairs = [tmp_path / "source", tmp_path / "target"]
    for folder in pairs:
        tiff(folder / "a.tif")
    before = [(folder / "a.tif").read_bytes() for folder in pairs]
    for folder in pairs:
        refused(["evaluate", model, *pairs, "--out", tmp_path / "x.html", "--images", folder], "--images")
    files = [folder / "a.tif" for folder in pairs]
    refused(["evaluate", model, *files, "--out", tmp_path / "x.html", "--images", pairs[0]], "--images")
    assert [(folder / "a.tif").read_bytes() for folder in pairs] == before


def test_the_report_is_not_its_own_json(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "cell.tif")
    out = ["--out", tmp_path / "x.html", "--json", tmp_path / "x.html"]
    refused(["evaluate", model, image, image, *out], "--json and --out are the same file")


def test_two_rows_or_columns_of_one_name_are_no_table(model: Path, tmp_path: Path) -> None:
    pairs = f"{tmp_path},{tmp_path}"
    table = ["cross-eval", "--out", tmp_path / "out", "--data", f"a={pairs}"]
    refused([*table, "--model", f"m={model}", "--model", f"m={model}"], "two are called 'm'")
    refused([*table, "--model", model, "--data", f"a={pairs}"], "two are called 'a'")
    refused([*table, "--model", f"={model}"], "one has no name")


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (["train_batch_size=4,0"], "train_batch_size=0"),
        (["train_batch_size=4,,8"], "train_batch_size=''"),
        (["seed=1", "seed=2"], "names a setting twice"),
    ],
)
def test_an_impossible_combination_is_refused_before_the_first_is_trained(
    tmp_path: Path, grid: list[str], words: str
) -> None:
    for side in ("source", "target"):
        tiff(tmp_path / side / "a.tif", noise(80, 80))
    options = [word for one in grid for word in ("--grid", one)]
    sweep = ["sweep", tmp_path / "source", tmp_path / "target", "--out", tmp_path / "out", *options]
    refused(sweep, words)
    refused([*sweep, "--patch-size", "0,0"], "names a setting twice" if len(grid) > 1 else "--patch-size")
    assert nothing_in(tmp_path / "out")


@pytest.mark.parametrize("memory", ["nan", "inf", "-1GB", "0", "lots"])
def test_memory_that_is_no_amount_is_refused(model: Path, tmp_path: Path, memory: str) -> None:
    image = tiff(tmp_path / "cell.tif")
    refused(["advise", model, image, "--no-compare", "--memory", memory], f"--memory '{memory}'")


def test_only_the_path_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "cell.tif")
    said = refused(["evaluate", model, tmp_path / "nix", tmp_path, "--out", tmp_path / "x.html"], "nix")
    assert repr(str(tmp_path)) not in said
    refused(["evaluate", model, image, tmp_path, "--out", tmp_path / "x.html"], "two of a kind")


def test_a_folder_of_masks_without_a_mask_is_refused(model: Path, tmp_path: Path) -> None:
    for side in ("source", "target"):
        tiff(tmp_path / side / "a.tif")
    (tmp_path / "masks").mkdir()
    pairs = [tmp_path / "source", tmp_path / "target", "--out", tmp_path / "x.html"]
    refused(["evaluate", model, *pairs, "--masks", tmp_path / "masks"], "masks", "a.tif")


# Places to write to --------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_to_is_named_before_anything_runs(model: Path, tmp_path: Path) -> None:
    image = tiff(tmp_path / "cell.tif")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    refused(["predict", model, image, "--out", tmp_path / "file" / "out"], "file")
    refused(["export", model, "--out", tmp_path / "file" / "new.zip"], "file")


def test_reports_that_cannot_be_written_are_refused_before_anything_is_computed(
    model: Path, tmp_path: Path
) -> None:
    image = tiff(tmp_path / "cell.tif")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    compare = ["compare", model, model, image, "--level", "emulation", "--report"]
    for path in ("file/x.html", "x.doc", "folder"):
        refused([*compare, tmp_path / path], path.split("/")[0])
    evaluate = ["evaluate", model, image, image, "--out", tmp_path / "new.html"]
    refused([*evaluate, "--json", tmp_path / "file" / "x.json"], "file")
    refused([*evaluate, "--json", tmp_path / "folder"], "folder")
    refused([*evaluate, "--images", tmp_path / "file" / "x"], "file")
    assert not (tmp_path / "new.html").exists()
    for out in ("file", "file/model"):
        refused([*train(tmp_path), "--out", tmp_path / out], "file")


def test_a_file_is_not_written_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder' is a folder"), files.atomic_file(tmp_path / "folder"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_nothing_half_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    image = tiff(tmp_path / "cell.tif")
    monkeypatch.setattr(files, "_flush", full)
    refused(["predict", model, image, "--out", tmp_path / "out"], "No space left on device")
    refused(["export", model, "--out", tmp_path / "exported" / "new.zip"], "No space left on device")
    assert nothing_in(tmp_path / "out")
    assert nothing_in(tmp_path / "exported")


def test_a_disk_that_fills_while_pixels_are_written_is_named_with_the_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any, **__: Any) -> None:
        # What numpy.ndarray.tofile raised on a tmpfs of 200 kB: no errno, no name.
        raise OSError("65536 requested and 51064 written")

    image = tiff(tmp_path / "cell.tif")
    monkeypatch.setattr("tifffile.imwrite", short)
    refused(["predict", model, image, "--out", tmp_path / "out"], "cell.tif: No space left on device")
    assert nothing_in(tmp_path / "out")


# Bundles -------------------------------------------------------------------------------------------------------


def repacked(bundle: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(target, "w") as packed:
        for name in source.namelist():
            packed.writestr(prefix + name, source.read(name))
    return target


@pytest.mark.java
@pytest.mark.parametrize("version", ["1.12.0", "1.15.0"])
def test_a_bundle_zipped_one_folder_too_deep_is_told_apart(model: Path, tmp_path: Path, version: str) -> None:
    deep = repacked(model / "fiji.zip", tmp_path / "deep.zip", "TF_SavedModel/")
    image = tiff(tmp_path / "cell.tif")
    refused(["compare", model, deep, image, "--level", "tf1", "--tensorflow", version], "deep.zip")
    done = CliRunner().invoke(app, ["check", str(deep)])
    assert done.exit_code in (1, 2)
    assert "TF_SavedModel" in done.output


@pytest.mark.java
def test_what_keras_exports_is_refused_with_what_fijis_tensorflow_says(model: Path, tmp_path: Path) -> None:
    from care_bridge.training.folder import load_model

    load_model(model).network.export(tmp_path / "exported", verbose=False)
    bundle = shutil.make_archive(str(tmp_path / "keras"), "zip", tmp_path / "exported")
    done = CliRunner().invoke(app, ["check", bundle])
    assert done.exit_code == 1, done.output
    # The refusal that people see in Fiji.
    assert "debug_name" in done.output
    assert "VarHandleOp" in done.output


def test_without_runtime_and_network_the_command_that_adds_it_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CARE_BRIDGE_OFFLINE", "1")
    monkeypatch.setenv("M2_REPO", str(tmp_path / "maven"))
    monkeypatch.setenv("HOME", str(tmp_path))
    image = tiff(tmp_path / "cell.tif")
    refused(["compare", model, model, image, "--level", "tf1"], "care-bridge doctor --install tf1")
    refused(["doctor", "--install", "tf1"], "CARE_BRIDGE_OFFLINE")


# Macros and the doctor -----------------------------------------------------------------------------------------


def test_no_macro_is_written_for_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    for name in ("nix", "cut.zip"):
        refused(["macros", "for", tmp_path / name, "--out", tmp_path / "new.ijm"], name)
    assert not (tmp_path / "new.ijm").exists()


def test_a_macro_that_is_not_there_is_answered_with_those_that_are() -> None:
    refused(["macros", "run", "restore_imag"], "'restore_imag' (did you mean restore_image?); there are ")


def test_a_macro_in_latin_1_is_read_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "old.ijm").write_bytes(b'print("Gr\xf6sse");\n')
    done = CliRunner().invoke(app, ["macros", "lint", str(tmp_path / "old.ijm")])
    assert done.exit_code == 1, repr(done.exception)
    assert "old.ijm: line 1" in done.stdout


def test_a_time_that_cannot_be_waited_is_refused() -> None:
    refused(["macros", "run", "restore_image", "--timeout", "-1"], "--timeout")


def test_a_part_without_install_is_not_passed_over() -> None:
    refused(["doctor", "imagej"], "care-bridge doctor --install imagej")
