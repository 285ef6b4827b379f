"""Fixtures of the macros: small bundles, a headless ImageJ with and without Groovy, images as people have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

if TYPE_CHECKING:
    from care_bridge.java.imagej import ImageJ
    from care_bridge.java.tf1 import Tf1Session

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
BAD_FILES = ("truncated.tif", "rgb.tif", "wrong_depth.tif", "empty.tif", "text.tif", "locked.tif")


def _ready(*parts: str) -> None:
    from care_bridge.java import runtimes

    lacking = [name for part in parts for name in runtimes.missing(part)]
    if not lacking:
        return
    message = f"not here: {', '.join(lacking)}; run: care-bridge doctor --install {parts[0]}"
    if os.environ.get("CARE_BRIDGE_REQUIRE_JAVA", "") not in ("", "0"):
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True)
class Bundles:
    """Zips for Fiji and the model folder that one of them came from."""

    planes: Path
    stacks: Path
    probabilistic: Path
    model: Path


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Untrained networks of 4 features: what they compute is noise, but exactly reproducible."""
    _ready("tf1-1.15.0")
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("bundles")
    # The scripts take the percentiles of the model, the macros the plugin's own: here they are the same.
    small: dict[str, Any] = {
        "unet_n_first": 4,
        "unet_kern_size": 3,
        "unet_n_depth": 1,
        "seed": 3,
        "norm_pmin": 3.0,
    }
    written = {}
    for name, config in {
        "planes": CareConfig(**small),
        "stacks": CareConfig(axes="ZYX", **small),
        "probabilistic": CareConfig(probabilistic=True, **small),
    }.items():
        save_model(folder / name, config, build(config))
        written[name] = write_bundle(folder / name, folder / f"{name}.zip", how_to=False)
    return Bundles(**written, model=folder / "planes")


@pytest.fixture(scope="session")
def tf1() -> Iterator[Tf1Session]:
    """One TensorFlow 1.15.0 for all; one thread, so that every run sums in the same order."""
    _ready("tf1-1.15.0")
    from care_bridge.java.tf1 import Tf1Session

    with Tf1Session("1.15.0", threads=1) as session:
        yield session


@pytest.fixture(scope="session")
def plain_imagej(tf1: Tf1Session) -> Iterator[ImageJ]:
    """ImageJ as it is."""
    _ready("imagej")
    from care_bridge.java.imagej import ImageJ

    with ImageJ(open_network=tf1.open, timeout_s=120) as running:
        yield running


@pytest.fixture(scope="session")
def groovy_imagej(tf1: Tf1Session) -> Iterator[ImageJ]:
    """ImageJ with Groovy among its jars, as in Fiji."""
    _ready("imagej", "groovy")
    from care_bridge.java.imagej import ImageJ

    with ImageJ(open_network=tf1.open, groovy=True, timeout_s=120) as running:
        yield running


@pytest.fixture
def imagej(groovy_imagej: ImageJ) -> Iterator[ImageJ]:
    """A clean Fiji-like ImageJ: nothing remembered."""
    groovy_imagej.forget()
    yield groovy_imagej
    groovy_imagej.forget()


Write = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Write:
    """`write_image(name, axes, shape, dtype)`: blobs on noise, calibrated, with labels, as ImageJ saves them."""

    def write(
        name: str,
        axes: str = "YX",
        shape: tuple[int, ...] = (48, 50),
        dtype: str = "uint16",
        seed: int = 0,
        data: NDArray[Any] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, blobs(shape, seed).astype(dtype) if data is None else data, axes)
        return path

    return write


@pytest.fixture
def bad_files() -> Callable[[Path], tuple[str, ...]]:
    """`bad_files(folder)`: six files that no restoration can come of; their names."""
    return write_bad_files


def blobs(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Bright spots on a noisy background, in camera counts 100-4000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    image = 200 + 30 * rng.standard_normal(shape)
    for _ in range(6):
        cy, cx = rng.uniform(0, shape[-2]), rng.uniform(0, shape[-1])
        image = image + rng.uniform(500, 2500) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18)
    if len(shape) > 2:
        image = image * rng.uniform(0.6, 1.4, (*shape[:-2], 1, 1))
    return np.clip(image, 0, 4095)


def save_image(path: Path, data: NDArray[Any], axes: str) -> None:
    planes = int(np.prod(data.shape[:-2]))
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(1 / 0.065, 1 / 0.07),
        metadata={
            "axes": axes,
            "unit": "micron",
            "spacing": 0.3,
            "finterval": 2.5,
            "Labels": [f"plane {number}" for number in range(planes)],
            "min": 150.0,
            "max": 3000.0,
        },
    )


def write_bad_files(folder: Path) -> tuple[str, ...]:
    """Truncated, RGB, too many dimensions, empty, a renamed text, unreadable."""
    good = folder / "whole.tif"
    save_image(good, blobs((48, 50), 1).astype(np.uint16), "YX")
    content = good.read_bytes()
    good.unlink()
    (folder / "truncated.tif").write_bytes(content[: len(content) * 2 // 3])
    tifffile.imwrite(folder / "rgb.tif", np.zeros((48, 50, 3), np.uint8), photometric="rgb")
    # Z and T at once, which a network for planes cannot take.
    save_image(folder / "wrong_depth.tif", blobs((2, 3, 48, 50), 2).astype(np.uint16), "TZYX")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("a table\tof something\n" * 30)
    # Unreadable also for an administrator, whom no permission stops.
    (folder / "locked.tif").symlink_to("/proc/self/mem")
    return BAD_FILES
