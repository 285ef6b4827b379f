from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def oracle():
    """The installed csbdeep."""
    return pytest.importorskip("csbdeep", reason="csbdeep is not installed: pip install 'care-bridge[dev]'")


@pytest.fixture
def images():
    """Pairs of uint16 images with bright and dark parts."""

    def make(shape=(64, 72), n=3, dtype="uint16"):
        rng = np.random.default_rng(0)
        pairs = []
        for _ in range(n):
            clean = rng.gamma(0.5, 800, shape)
            pairs.append((rng.poisson(clean / 10) * 10, clean))
        return tuple([np.asarray(one).astype(dtype) for one in side] for side in zip(*pairs, strict=True))

    return make
