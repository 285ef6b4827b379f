"""csbdeep's command line: its options, and what it makes of them."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from care_bridge.csbdeep import models
from care_bridge.csbdeep.scripts import care_predict
from care_bridge.images import Image, write_image
from care_bridge.training.folder import save_weights

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("care_predict")
    model = models.CARE(models.Config("ZYX", unet_n_first=4, unet_n_depth=1), "my model", basedir=base)
    save_weights(model.keras_model, base / "my model" / "weights_best.h5")
    rng = np.random.default_rng(0)
    for name in ("one", "below/two"):
        path = base / "data" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = rng.poisson(300, (6, 20, 24)).astype(np.uint16)
        write_image(path, Image(stack, "ZYX", pixel_size_um={"Z": 0.5, "Y": 0.1, "X": 0.1}))
    return base


def words(folder: Path, more: str = "") -> list[str]:
    return [
        *("--input-dir", str(folder / "data"), "--input-axes", "ZYX", "--model-basedir", str(folder)),
        *("--model-name", "my model", *shlex.split(more)),
    ]


def test_it_takes_the_options_that_csbdeeps_takes(oracle, monkeypatch) -> None:
    from csbdeep.scripts import care_predict as theirs

    monkeypatch.setattr(sys, "argv", ["care_predict"])
    expected: argparse.ArgumentParser = theirs.parse_args()[0]
    got = care_predict._parser()
    assert {a.option_strings[0]: a.default for a in got._actions} == {
        a.option_strings[0]: a.default for a in expected._actions
    }


def test_a_folder_is_restored_tile_by_tile_as_the_notebook_does_it(folder: Path, tmp_path: Path) -> None:
    more = f"--input-pattern **/*.tif --n-tiles 1 2 2 --output-dir '{tmp_path}'"
    assert care_predict.main(words(folder, more)) == 0
    model = models.CARE(None, "my model", basedir=folder)
    for name in ("one.tif", "below/two.tif"):
        expected = model.predict(tifffile.imread(folder / "data" / name), "ZYX")
        got = tifffile.imread(tmp_path / "my model" / name)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    with tifffile.TiffFile(tmp_path / "my model" / "one.tif") as file:
        assert file.imagej_metadata["spacing"] == 0.5


def test_values_beyond_the_type_asked_for_are_clipped(folder: Path, tmp_path: Path, capsys) -> None:
    more = f"--quiet --output-dtype uint8 --output-name {{file_name}}_8.tif --output-dir '{tmp_path}'"
    assert care_predict.main(words(folder, more)) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "clipped" in said.err
    assert tifffile.imread(tmp_path / "one_8.tif").dtype == np.uint8


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    assert care_predict.main(words(folder, f"--dry-run --output-dir '{tmp_path}'")) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--output-dir out --n-tiles 0 1 1", "whole number of at least 1"),
        ("--output-dir out --n-tiles 2 2", "one per axis"),
        ("--output-dir out --model-name other", "no model folder"),
        ("--output-dir out --model-weights other.h5", "other.h5"),
        ("--output-dir out --output-name {file_name}.png", "is no TIFF"),
        ("--output-dir out --norm-undo no --output-dtype uint16", "write float32"),
    ],
)
def test_wrong_use_is_one_line(folder: Path, tmp_path: Path, monkeypatch, capsys, more, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert care_predict.main(words(folder, more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("care_predict: ")
    assert message in said
    assert said.count("\n") == 1


def test_what_is_required_is_said(capsys) -> None:
    with pytest.raises(SystemExit):
        care_predict.main(["--input-dir", "data"])
    assert "required: --input-axes, --model-basedir" in capsys.readouterr().err


def test_it_is_a_console_command() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    module, function = tomllib.loads(text)["project"]["scripts"]["care_predict"].split(":")
    assert (module, function) == (care_predict.__name__, "main")
    command = [sys.executable, "-m", care_predict.__name__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--n-tiles" in done.stdout
