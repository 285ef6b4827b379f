"""`care-bridge train`: says how long and what next, and `--resume` needs no setting said again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import read_config
from care_bridge.images import Image, write_image
from care_bridge.words import duration

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    draw = np.random.default_rng(0)
    for side, suffix in (("low", "_noisy"), ("high", "_gt")):
        for stem in "ab":
            image = draw.integers(0, 999, (2, 64, 64)).astype(np.uint16)
            write_image(tmp_path / side / f"{stem}{suffix}.tif", Image(image, "CYX"))
    return [str(tmp_path / "low"), str(tmp_path / "high")]


SETTINGS = [
    "--preset",
    "mito",
    "--epochs",
    "2",
    "--steps",
    "10",
    "--batch-size",
    "2",
    "--depth",
    "1",
    "--features",
    "2",
    "--kernel",
    "3",
    "--patch-size",
    "16,16",
    "--seed",
    "7",
    "--patches-per-image",
    "20",
    "--validation",
    "0.3",
    "--all-patches",
    "--channel",
    "1",
    "--augment",
    "flips",
    "--learning-rate",
    "0.001",
]


def train(folders: list[str], out: Path, *more: str) -> str:
    result = CliRunner().invoke(app, ["train", *folders, "--out", str(out), *more])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_resume_alone_takes_the_settings_that_were_begun_with(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model"
    train(folders, out, *SETTINGS)
    before = read_config(out)
    said = train(folders, out, "--resume", "--epochs", "3")
    assert "settings from" in said
    after = read_config(out)
    # The temperature is found anew, of other weights.
    assert after.replace(train_epochs=2, temperature=None, provenance={}) == before.replace(
        temperature=None, provenance={}
    )
    assert after.train_epochs == 3
    assert after.provenance["data"] == before.provenance["data"]
    assert (out / "training" / "history.csv").read_text().count("\n") == 4
    # A setting that is said is not passed over.
    result = CliRunner().invoke(app, ["train", *folders, "--out", str(out), "--resume", "--features", "4"])
    assert result.exit_code == 2
    assert "unet_n_first was 2 and is 4" in result.stderr


def test_a_presets_own_percentiles_are_those_of_every_patch_and_a_resumed_run_cuts_the_same(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    for number in range(4):
        clean = random.normal(100, 20, (8, 32, 32))
        for side, noise in (("source", 10), ("target", 0)):
            data = (clean + random.normal(0, 1, clean.shape) * noise).astype(np.float32)
            write_image(tmp_path / side / f"{number}.tif", Image(data, "ZYX"))
    folders, out = [str(tmp_path / "source"), str(tmp_path / "target")], tmp_path / "model"
    words = [
        "--patch-size",
        "8,16,16",
        "--patches-per-image",
        "4",
        "--batch-size",
        "2",
        "--steps",
        "2",
        "--features",
        "4",
    ]
    train(folders, out, "--preset", "tribolium", *words, "--epochs", "1")
    data = read_config(out).provenance["data"]
    assert data["percentiles"] == {"pmin": [3.0, 3.0], "pmax": [99.8, 99.8]}
    train(folders, out, "--resume", "--epochs", "2")  # other patches would be refused
    assert read_config(out).provenance["data"] == data


def test_resume_alone_goes_on_with_a_smoke_run_and_an_ensemble(folders: list[str], tmp_path: Path) -> None:
    small = [word for word in SETTINGS if word not in ("--preset", "mito")]
    out = tmp_path / "five"
    train(folders, out, *small, "--ensemble", "2", "--smoke")
    said = train(folders, out, "--resume", "--ensemble", "2", "--epochs", "3")
    assert "member 2, epoch 3" in said
    assert "smoke run" in read_config(out).provenance["notice"]


def test_training_says_how_long_it_will_take_and_what_to_do_next(folders: list[str], tmp_path: Path) -> None:
    said = train(folders, tmp_path / "model", *SETTINGS)
    assert said.index("this takes about") < said.index("epoch 1:")
    assert "kept epoch" in said
    assert "care-bridge evaluate" in said[said.index("kept epoch") :]
    assert "history.png" in said


def test_times_are_said_as_people_say_them() -> None:
    seconds = (0.1, 40, 700, 12000, 100000, 200000)
    assert [duration(one) for one in seconds] == [
        "1 s",
        "40 s",
        "12 min",
        "3 h 20 min",
        "27 h 50 min",
        "2 days 7 h",
    ]
