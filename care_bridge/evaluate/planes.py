"""The one plane of an image that pictures, profiles, filters and maps are taken from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.images import Image

Plane = NDArray[np.float32]


def plane_of(image: Image) -> Plane:
    """First series, frame and channel; middle Z."""
    return np.asarray(image.middle_plane, np.float32)


def on_truth(plane: Plane, truth: Plane) -> Plane:
    """A plane scaled and shifted onto the truth's intensities (least squares), so that one contrast fits both."""
    valid = np.isfinite(plane) & np.isfinite(truth)
    scale = slope(plane[valid], truth[valid])
    shifted = scale * (plane - plane[valid].mean(dtype=np.float64)) + truth[valid].mean(dtype=np.float64)
    return np.asarray(shifted, np.float32)


def slope(given: NDArray[Any], truth: NDArray[Any]) -> float:
    """Of the least-squares line from given to true intensities; 0 where the given ones are constant."""
    centred = np.asarray(given, np.float64) - np.mean(given, dtype=np.float64)
    power = float(np.sum(centred**2))
    return float(np.sum(centred * (truth - np.mean(truth, dtype=np.float64)))) / power if power > 0 else 0.0


def intensity_range(plane: NDArray[Any]) -> tuple[float, float]:
    """Percentiles 2 and 99.8 of the finite intensities: csbdeep's range."""
    low, high = np.percentile(plane[np.isfinite(plane)], (2, 99.8))
    return float(low), float(high)
