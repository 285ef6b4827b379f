"""restore: measures, chooses, says why, and leaves alone what it would harm."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.images import Image, write_image

NAME = "tiny-denoise-2d"


def scene(seed: int = 0, side: int = 256) -> np.ndarray:
    """Spots and a slope, 0 to about 1."""
    random = np.random.default_rng(seed)
    field = np.zeros((side, side))
    field[tuple(random.integers(0, side, (2, 60)))] = 1
    field = gaussian_filter(field, 4)
    return np.asarray(field / field.max() + np.linspace(0, 0.1, side), np.float64)


def noisy(photons: float, share: float = 0.0, seed: int = 0) -> Image:
    """A scene with noise of a camera; `share` blurs the noise, so that neighbours share it."""
    clean = scene(seed) * photons + 3
    noise = np.random.default_rng(seed + 1).poisson(clean) - clean
    if share:
        noise = gaussian_filter(noise, share) * 2 * share
    return Image(np.asarray(100 + 10 * (clean + noise), np.float32), "YX")


@pytest.fixture
def three(zoo: Path) -> Path:
    """Three models: for white noise, for correlated, and one that changes the structure."""
    for name, changes in (
        ("tiny-correlated-2d", {'"white"': '"correlated"', "[0.0, 0.1]": "[0.0, 0.8]"}),
        ("tiny-nuclei-2d", {'"denoise"': '"restore"'}),
    ):
        folder = zoo.with_name(name)
        shutil.copytree(zoo, folder)
        text = (folder / "datasheet.toml").read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "datasheet.toml").write_text(text, encoding="utf-8")
        card = (folder / "model.toml").read_text(encoding="utf-8")
        (folder / "model.toml").write_text(card.replace("of blobs", f"of {name}"), encoding="utf-8")
    return zoo


def restore(tmp_path: Path, image: Image, *arguments: str) -> tuple[int, str, list[Path]]:
    write_image(tmp_path / "cell.tif", image)
    done = CliRunner().invoke(
        app, ["restore", str(tmp_path / "cell.tif"), "--out", str(tmp_path / "out"), *arguments]
    )
    return done.exit_code, done.stderr, sorted((tmp_path / "out").rglob("*.tif"))


@pytest.mark.tf
def test_the_model_for_the_measured_noise_is_chosen_and_it_is_said_why(three: Path, tmp_path: Path) -> None:
    code, said, written = restore(tmp_path, noisy(30))
    assert code == 0, said
    assert re.search(f"{NAME}: about .* photons .*; white ", said)
    assert "--model tiny-nuclei-2d" in said
    assert len(written) == 1
    code, said, _ = restore(tmp_path, noisy(30, share=0.8))
    assert code == 0, said
    assert re.search("tiny-correlated-2d: about .* photons .*; neighbours share the noise ", said)


@pytest.mark.tf
def test_a_clean_image_is_left_unless_anyway(three: Path, tmp_path: Path) -> None:
    code, said, written = restore(tmp_path, noisy(20_000))
    assert (code, written) == (1, [])
    assert "clean already" in said
    assert "Gaussian filter of 0.6 pixels" in said
    code, said, written = restore(tmp_path, noisy(20_000), "--anyway")
    assert (code, len(written)) == (0, 1)


@pytest.mark.tf
def test_an_image_that_holds_nothing_is_left(three: Path, tmp_path: Path) -> None:
    code, said, written = restore(tmp_path, Image(np.zeros((64, 64), np.uint8), "YX"))
    assert (code, written) == (1, [])
    assert "there is no noise to measure" in said


@pytest.mark.tf
def test_of_an_image_with_channels_one_is_to_be_named(three: Path, tmp_path: Path) -> None:
    two = Image(np.stack([noisy(30).data] * 2), "CYX")
    code, said, _ = restore(tmp_path, two)
    assert code == 2
    assert "2 channels, and each may want another model; name one: --channel 0" in said
    assert restore(tmp_path, two, "--channel", "1")[0] == 0


@pytest.mark.tf
def test_rows_that_differ_are_for_the_model_that_knows_them(three: Path, tmp_path: Path) -> None:
    image = noisy(30)
    # Half of the noise of a pixel at a tenth of the way to the brightest: sqrt(3 + 3) photons of 10 grey levels each.
    rows = np.random.default_rng(5).normal(0, 0.5 * 10 * 6**0.5, (256, 1))
    image = image.replace(data=np.asarray(image.data + rows, np.float32))
    for name, most in ((NAME, 0.0), ("tiny-correlated-2d", 0.5)):
        file = three.with_name(name) / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["care_bridge"]["provenance"] = {"data": {"noise": {"rows": [0.0, most]}}}
        file.write_text(json.dumps(config), encoding="utf-8")
    code, said, _ = restore(tmp_path, image)
    assert code == 0, said
    assert "tiny-correlated-2d: " in said
    assert "rows differ by 0." in said


@pytest.mark.tf
def test_where_no_model_fits_that_is_said_with_reasons_and_nothing_is_written(
    zoo: Path, tmp_path: Path
) -> None:
    code, said, written = restore(tmp_path, noisy(30, share=0.8))
    assert (code, written) == (1, [])
    assert re.search("no model fits: about .*; neighbours share the noise ", said)
    assert f"not {NAME}: its neighbouring pixels share their noise" in said
    stack = Image(np.repeat(noisy(30).data[None], 4, axis=0), "ZYX")
    code, said, written = restore(tmp_path, stack)
    assert (code, written) == (1, [])
    assert "is for 2D images" in said


@pytest.mark.tf
def test_a_model_that_is_named_is_taken_and_what_speaks_against_it_is_said(
    three: Path, tmp_path: Path
) -> None:
    code, said, written = restore(tmp_path, noisy(30, share=0.8), "--model", NAME)
    assert (code, len(written)) == (0, 1)
    assert f"{NAME} as asked, though no model fits" in said
    code, said, _ = restore(tmp_path, noisy(30), "--model", "nothing-like-it")
    assert code == 2


@pytest.mark.tf
def test_a_dry_run_says_and_writes_nothing(three: Path, tmp_path: Path) -> None:
    code, said, written = restore(tmp_path, noisy(30), "--dry-run")
    assert (code, written) == (0, [])
    assert NAME in said


@pytest.mark.tf
def test_noise_is_measured_once_for_the_choice_and_for_the_guard(
    zoo: Path, tmp_path: Path, monkeypatch
) -> None:
    from care_bridge.noise import measure

    asked = []

    def counted(image: Image, **how):
        asked.append(image.name)
        return measure_noise(image, **how)

    measure_noise = measure.measure_noise
    monkeypatch.setattr(measure, "measure_noise", counted)
    monkeypatch.setattr("care_bridge.zoo.choosing.measure_noise", counted)
    code, said, written = restore(tmp_path, noisy(20))
    assert (code, len(written)) == (0, 1), said
    assert len(asked) == 1
