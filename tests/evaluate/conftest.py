"""Made images and predictors for the evaluation, none of which needs TensorFlow."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.images import Image
from care_bridge.predictor import ImagesOnly, Runtime

KERAS = Runtime("keras", {"keras": "0"})


def structure(size: tuple[int, ...] = (96, 96), *, seed: int = 0, spots: int = 40) -> np.ndarray:
    """Spots and one filament, range about 0 to 1."""
    draw = np.random.default_rng(seed)
    image = np.zeros(size)
    for place in zip(*(draw.integers(min(6, n // 3), n - min(6, n // 3), spots) for n in size), strict=True):
        image[place] = draw.uniform(0.5, 1.0)
    image[..., size[-2] // 2, 8:-8] = 0.6
    image = gaussian_filter(image, 1.5)
    return image / image.max()


@dataclass(frozen=True)
class Smoother(ImagesOnly):
    """A predictor that is a Gaussian filter."""

    sigma_px: float = 1.0
    runtime: Runtime = KERAS

    def predict(self, image: Image) -> Image:
        sigma = [self.sigma_px if letter in "YX" else 0 for letter in image.axes]
        return image.replace(data=gaussian_filter(image.data.astype(np.float32), sigma))


@dataclass(frozen=True)
class ProbabilisticSmoother(ImagesOnly):
    """A predictor with a (mean, scale) pair of channels, as a probabilistic net gives."""

    sigma_px: float = 1.0
    scale: float = 100.0
    offset: float = 0.0
    runtime: Runtime = KERAS

    def predict(self, image: Image) -> Image:
        mean = gaussian_filter(image.data.astype(np.float32), self.sigma_px) + np.float32(self.offset)
        data = np.stack([mean, np.full_like(mean, self.scale)])
        return image.replace(data=data, axes="C" + image.axes, has_widths=True)


@pytest.fixture(scope="session")
def make_pair():
    def make(seed: int = 0, size: tuple[int, ...] = (96, 96), *, noise: float = 150.0) -> tuple[Image, Image]:
        truth = 200 + 2000 * structure(size, seed=seed)
        noisy = truth + np.random.default_rng(seed + 99).normal(0, noise, truth.shape)
        axes = "ZYX"[-len(size) :]
        source = Image(np.clip(noisy, 0, 65535).round().astype(np.uint16), axes, name=f"cell_{seed}.tif")
        return source, Image(truth.round().astype(np.uint16), axes, name=f"cell_{seed}.tif")

    return make


@pytest.fixture(scope="session")
def smoother() -> Smoother:
    return Smoother()


@pytest.fixture(scope="session")
def probabilistic():
    return ProbabilisticSmoother


@pytest.fixture(scope="session")
def browser():
    # tests are imported one by one (importmode importlib), so a neighbour needs its folder named
    sys.path.insert(0, str(Path(__file__).parent))
    from browser import Browser, find_chromium

    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in CARE_BRIDGE_CHROMIUM")
    opened = Browser(program)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def pairs(make_pair):
    from care_bridge.evaluate import Pair

    return [Pair(*make_pair(seed), f"cell_{seed}.tif") for seed in range(4)]


@pytest.fixture(scope="session")
def found(pairs):
    """An evaluation with everything in it."""
    from dataclasses import replace

    from care_bridge.evaluate import evaluate
    from care_bridge.evaluate.robustness import Point

    members = [ProbabilisticSmoother(sigma_px, 40.0) for sigma_px in (0.9, 1.0, 1.1)]
    measured = evaluate(
        members[0],
        pairs,
        members=members,
        training=pairs[:2],
        baselines=("Gaussian", "median"),
        model="three <smoothers> & co",
    )
    line = [Point("noise", level, 0.1 + level, 0.05 + level, 0.5, 0.8) for level in (0.0, 0.01, 0.2)]
    return replace(measured, robustness=tuple(line))
