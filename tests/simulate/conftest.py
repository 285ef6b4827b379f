"""Fixtures of the simulation: small clean images that need no file from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from care_bridge.images import Image, write_image
from care_bridge.simulate import structures


@pytest.fixture
def clean_image() -> Callable[..., Image]:
    """Make a clean image: sarcomeres as 12-bit grey values with a dark background."""

    def make(name: str = "cell", *, seed: int = 0, shape: tuple[int, ...] = (64, 64)) -> Image:
        data = structures.sarcomeres(shape, seed=seed, period_px=12, fibril_px=8)
        grey = np.rint(100 + 3000 * data).astype(np.uint16)
        return Image(grey, "ZYX"[3 - len(shape) :], pixel_size_um={"Z": 0.2, "Y": 0.1, "X": 0.1}, name=name)

    return make


@pytest.fixture
def clean_folder(clean_image: Callable[..., Image], tmp_path: Path) -> Path:
    """Four clean TIFF images."""
    folder = tmp_path / "clean"
    for seed in range(4):
        write_image(folder / f"cell{seed}.tif", clean_image(seed=seed))
    return folder
