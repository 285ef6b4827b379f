"""The examples of docs/from-csbdeep.md run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from care_bridge.images import Image, write_image

TEXT = Path(__file__).resolve().parents[2] / "docs" / "from-csbdeep.md"

pytestmark = pytest.mark.tf


def test_the_examples_run(tmp_path: Path, monkeypatch, images) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = images((160, 170), n=2)
    for folder, side in (("low", x), ("GT", y)):
        for index, image in enumerate(side):
            for base in (tmp_path, tmp_path / "data"):
                write_image(base / folder / f"{index}.tif", Image(image, "YX"))
    first, second = re.findall(r"```python\n(.*?)```", TEXT.read_text(encoding="utf-8"), re.S)
    small = (
        "Config(axes, seed=1, unet_n_first=4, train_epochs=1, train_steps_per_epoch=2, train_batch_size=2)"
    )
    names: dict[str, object] = {}
    exec(first.replace("Config(axes, seed=1)", small), names)
    assert (tmp_path / "models" / "mito" / "TF_SavedModel.zip").is_file()
    exec(second, names)
    assert np.shape(names["source"]) == (3, 64, 64, 1)
