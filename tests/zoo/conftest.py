"""A zoo of one tiny model, complete but for quality, in a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

NAME = "tiny-denoise-2d"

MODEL = """\
name = "CARE denoising of blobs - test - 2D"
description = "Takes white noise from images of blobs; trained by nobody, for a test."
license = "BSD-3-Clause"
modality = "fluorescence-light-microscopy"
content = "cells"
task = "denoising"
version = "1.0.0"
version_comment = "first upload"
git_repo = "https://github.com/care-bridge/care-bridge"
funded_by = "none"
timestamp = "2026-11-28T12:00:00+00:00"
memory_requirements_training = "2 GB"

[[authors]]
name = "The care_bridge authors"
affiliation = "care_bridge"
github_user = "care-bridge"

[[packaged_by]]
name = "The care_bridge authors"

[uploader]
name = "The care_bridge authors"
email = "care-bridge@users.noreply.github.com"

[training_data]
id = "care-bridge-drawn"
source = "https://github.com/care-bridge/care-bridge"

[training]
training_preprocessing = "percentiles"
training_duration = 0.1

[environmental_impact]
hardware_type = "2 CPU cores"
cloud_provider = "none"
compute_region = "none"
co2_emitted = 0.01
"""

DATASHEET = """\
restores = "White noise on images of blobs."
family = "denoise"
noise = "white"
neighbour_correlation = [0.0, 0.1]
photons = [5, 200]
structures = ["any"]
sharpness = "details of 2 to 8 pixels"
limits = ["Images whose noise is shared by neighbouring pixels."]

[[sources]]
name = "drawn blobs"
licence = "BSD-3-Clause"
class = "drawn"
"""

RECIPE = """\
steps = [["train", "{data}/noisy", "{data}/clean", "--out", "{out}", "--seed", "1"]]
"""


def blobs(seed: int, side: int = 96) -> np.ndarray:
    """A few round spots on black, 0 to 1."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    field = np.zeros((side, side), np.float32)
    field[tuple(random.integers(0, side, (2, 40)))] = 1
    field = gaussian_filter(field, 3)
    return np.asarray(field / field.max(), np.float32)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo, measured once."""
    from care_bridge.config import CareConfig
    from care_bridge.images import Image, write_image
    from care_bridge.training.folder import save_model
    from care_bridge.training.from_files import familiar_from_files
    from care_bridge.training.unet import build
    from care_bridge.zoo.entry import read_entry
    from care_bridge.zoo.evaluation import evaluate_model, read_tests

    root = tmp_path_factory.mktemp("zoo")
    folder = root / "zoo" / NAME
    made_of = {"data": {"patch_size": [32, 32]}}
    config = CareConfig(unet_n_first=4, unet_n_depth=1, unet_kern_size=3, seed=3, provenance=made_of)
    save_model(folder, config, build(config))
    for name, text in (("model.toml", MODEL), ("datasheet.toml", DATASHEET), ("recipe.toml", RECIPE)):
        (folder / name).write_text(text, encoding="utf-8")
    for kind, seeds in (("tests", (1, 2)), ("tuning", (3,))):
        for seed in seeds:
            clean = blobs(seed)
            noisy = np.random.default_rng(seed).poisson(clean * 20 + 3).astype(np.uint16)
            write_image(root / kind / f"cell{seed}_noisy.tif", Image(noisy, "YX"))
            write_image(root / kind / f"cell{seed}_gt.tif", Image((clean * 1000).astype(np.uint16), "YX"))
    shutil.copy(root / "tests" / "cell1_noisy.tif", folder / "sample.tif")
    place = root / "tests"
    familiar_from_files(folder, place, place, source_suffix="_noisy", target_suffix="_gt")
    (root / "tests.toml").write_text(
        """\
[[sets]]
name = "Blobs, drawn"
what = "Blobs of a test."
source = "https://github.com/care-bridge/care-bridge"
licence = "BSD-3-Clause"
class = "A"
images = "tests"
truths = "tests"
image_suffix = "_noisy"
truth_suffix = "_gt"
pictures = true

[tuning]
what = "one drawn pair"
images = "tuning"
truths = "tuning"
image_suffix = "_noisy"
truth_suffix = "_gt"
""",
        encoding="utf-8",
    )
    evaluate_model(read_entry(folder), read_tests(root / "tests.toml"))
    return root


@pytest.fixture
def zoo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change, the only zoo there is; the model's folder."""
    shutil.copytree(made / "zoo", tmp_path / "zoo")
    monkeypatch.setattr("care_bridge.model_names._HERE", tmp_path / "nowhere")
    monkeypatch.setenv("CARE_BRIDGE_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo" / NAME


@pytest.fixture
def digest() -> str:
    """A SHA-256 of nothing in particular."""
    return hashlib.sha256(b"nothing").hexdigest()
