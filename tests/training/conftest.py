"""Small patches and a small trained model, made once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.config import CareConfig

pytest.importorskip("tensorflow")


def noisy_patches(n: int, size: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs and the same with noise, normalised; shape (n, size, size)."""
    random = np.random.default_rng(seed)
    target = gaussian_filter(random.random((n, size, size)), (0, 2, 2))
    target = (target - target.min()) / np.ptp(target)
    source = target + random.normal(0, 0.2, target.shape)
    return source.astype(np.float32), target.astype(np.float32)


@pytest.fixture(scope="session")
def patches():
    """Training and validation pairs of 16 x 16."""
    return noisy_patches(48, 16), noisy_patches(12, 16, seed=1)


@pytest.fixture(scope="session")
def small():
    """Settings of a net that trains in seconds."""
    return CareConfig(
        "YX",
        unet_n_depth=1,
        unet_n_first=4,
        unet_kern_size=3,
        train_epochs=3,
        train_steps_per_epoch=5,
        train_batch_size=4,
        train_learning_rate=2e-3,
        seed=3,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory, patches, small):
    """A trained model: its result and folder."""
    from care_bridge.training.fit import train

    folder = tmp_path_factory.mktemp("models") / "trained"
    return train(small, *patches, folder), folder
