from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.simulate.recipe import Recipe, Views, load_recipe
from care_bridge.training.data import TrainingData
from care_bridge.training.fit import train
from care_bridge.training.from_files import train_from_files
from care_bridge.training.streams import Stream, data_from_stream

SMALL: dict[str, Any] = {"unet_n_first": 4, "unet_n_depth": 1, "unet_kern_size": 3, "train_batch_size": 4}


def recipe(**changes: Any) -> Recipe:
    """`denoise` without drawn samples."""
    whole = load_recipe("denoise")
    views = {**(whole.stream or Views()).model_dump(), "drawn": (), "validation": 8, **changes}
    return whole.model_copy(update={"stream": Views(**views)})


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two smooth images in a folder of a folder: one of 16 bits with an offset, one of floats about 0."""
    folder = tmp_path / "clean"
    (folder / "below").mkdir(parents=True)
    y, x = np.mgrid[:160, :200]
    waves = np.sin(y / 9) * np.cos(x / 7) + 1
    tifffile.imwrite(folder / "offset.tif", (waves * 5000 + 32768).astype(np.uint16))
    tifffile.imwrite(folder / "below" / "floats.tif", (waves * 3 - 1).astype(np.float32))
    return folder


def open_stream(
    clean: Path | None, *, axes: str = "YX", size: Any = (32, 32), **changes: Any
) -> TrainingData:
    return data_from_stream(recipe(**changes), clean, patch_size=size, axes=axes)


def stream(data: TrainingData) -> Stream:
    assert isinstance(data.training, Stream)
    return data.training


def test_a_step_and_a_seed_give_the_same_patches_whatever_was_made_before(clean: Path) -> None:
    one, other = stream(open_stream(clean)), stream(open_stream(clean))
    for step in range(3):
        one.batch_at(step, size=4, seed=1)
    for first, second in zip(one.batch_at(7, size=4, seed=1), other.batch_at(7, size=4, seed=1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.batch_at(7, size=4, seed=1)[0], one.batch_at(8, size=4, seed=1)[0])
    assert not np.array_equal(one.batch_at(7, size=4, seed=1)[0], one.batch_at(7, size=4, seed=2)[0])


def test_a_training_that_was_stopped_and_taken_up_equals_the_one_that_was_not(
    clean: Path, tmp_path: Path
) -> None:
    config = CareConfig("YXC", 1, 1, **SMALL, train_epochs=4, train_steps_per_epoch=3)
    data = open_stream(clean)
    whole = train(config, data.training, data.validation, tmp_path / "whole")
    train(config.replace(train_epochs=2), data.training, data.validation, tmp_path / "parts")
    again = open_stream(clean)
    parts = train(config, again.training, again.validation, tmp_path / "parts", resume=True)
    for first, second in zip(
        whole.model.network.get_weights(), parts.model.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_from_a_folder_of_clean_images_to_a_model_that_says_what_it_was_trained_on(
    clean: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = {**SMALL, "train_epochs": 1, "train_steps_per_epoch": 2}
    train_from_files(
        clean,
        out=tmp_path / "model",
        simulate=recipe(),
        settings=settings,
        patch_size=(32, 32),
        say=said.append,
    )
    data = json.loads((tmp_path / "model" / "config.json").read_text())["care_bridge"]["provenance"]["data"]
    assert sorted(data["target"]) == ["below/floats.tif", "offset.tif"]
    assert data["recipe"]["sets"][0]["steps"][0]["photons"] == [5.0, 200.0]
    assert "new patches of 2 clean files" in "\n".join(said)
    with pytest.raises(InputError, match="other"):
        train_from_files(clean / "offset.tif", out=tmp_path / "model", resume=True)
    train_from_files(clean, out=tmp_path / "model", settings={"train_epochs": 2}, resume=True)
