"""What of an image decides which model fits it: its noise, whether neighbours share it, and how fine its details are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from care_bridge.evaluate.planes import Plane, plane_of
from care_bridge.images import Image

_BLOCK = 16
_FAR = 4
"""Pixels apart at which noise is taken to be unrelated: cameras' interpolation reaches two or three."""

_FLAT = 0.05
"""Share of the blocks, those with least structure for their noise, that noise is measured in."""

CORRELATED = 0.25
"""From here on neighbours share the noise; structure alone has been seen to give 0.17 on white noise."""

CLEAN_DB, CLEAN_DB_CORRELATED = 34.0, 37.0
"""From here on an image is good already: networks have lost against a Gaussian of 0.6 pixels on such.

Noise that neighbours share is underestimated by the difference of neighbours, so more is asked for.
"""


@dataclass(frozen=True)
class Measured:
    """An image's first plane, measured.

    Attributes
    ----------
    noise_sd : float
        Standard deviation of the noise where the image is bright, in its grey levels.
    noise_db : float
        The range of the image over that noise, in dB: about the PSNR that it has.
    neighbour_correlation : float
        Of the noise of pixels beside each other, 0 to 1.
    detail_px : float or None
        Half the period at which the image falls to its noise; None where neighbours share the noise.
    """

    noise_sd: float
    noise_db: float
    neighbour_correlation: float
    detail_px: float | None

    @property
    def clean(self) -> bool:
        """Whether it is good already."""
        return self.noise_db >= (CLEAN_DB_CORRELATED if self.correlated else CLEAN_DB)

    @property
    def correlated(self) -> bool:
        """Whether neighbours share the noise."""
        return self.neighbour_correlation >= CORRELATED

    def __str__(self) -> str:
        kind = "correlated" if self.correlated else "white"
        detail = "" if self.detail_px is None else f", details down to {self.detail_px:.1f} pixels"
        return f"noise {kind} (neighbours {self.neighbour_correlation:.2f}), about {self.noise_db:.0f} dB{detail}"


def measure_image(image: Image) -> Measured:
    """Measure the noise and the detail of an image's first series, frame and channel, in its middle plane."""
    plane = plane_of(image).astype(np.float64)
    plane = np.where(
        np.isfinite(plane), plane, np.median(plane[np.isfinite(plane)]) if np.isfinite(plane).any() else 0
    )
    low, high = np.percentile(plane, (0.1, 99.9))
    span = float(high - low)
    if span <= 0 or min(plane.shape) < 3 * _BLOCK:
        return Measured(0.0, float("inf") if span <= 0 else 0.0, 0.0, None)
    near, far, level, curved = _block_differences(plane)
    structure = curved / np.maximum(near, 1e-12 * span**2)
    flat = structure <= np.quantile(structure, _FLAT)
    total = float(far[flat].sum())
    correlation = _correlation(float(near[flat].sum()) / total) if total > 0 else 0.0
    # Where it is bright: shot noise is largest there, and that is what a person sees and a network is for.
    bright = level >= np.quantile(level, 0.8)
    sd = float(np.sqrt(max(float(np.quantile(near[bright] / 6, 0.25)), 0.0)))
    decibel = 20 * float(np.log10(span / sd)) if sd > 0 else float("inf")
    detail = _detail_px(plane) if correlation < CORRELATED else None
    return Measured(sd, decibel, correlation, detail)


def _block_differences(plane: Plane | NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Of every block: mean squared second differences of near and far pixels, its level, and its structure.

    Notes
    -----
    For noise of variance v whose correlation at a distance k is r(k), E[(p(-k) - 2 p(0) + p(k))^2] is
    v (6 - 8 r(k) + 2 r(2k)), and slopes give nothing.
    """
    from scipy.ndimage import gaussian_filter

    found = []
    for distance in (1, _FAR):
        each = []
        for axis in (0, 1):
            back, forth = np.roll(plane, distance, axis), np.roll(plane, -distance, axis)
            each.append((back - 2 * plane + forth) ** 2)
        found.append(_blocks((each[0] + each[1]) / 2))
    smooth = gaussian_filter(plane, 3)
    structure = sum(np.roll(smooth, _FAR, axis) - np.roll(smooth, -_FAR, axis) for axis in (0, 1)) ** 2
    return found[0], found[1], _blocks(smooth), _blocks(structure)


def _blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of whole blocks, without those at the rim, where rolling wraps around."""
    height, width = (size // _BLOCK * _BLOCK for size in values.shape)
    blocks = (
        values[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).mean(axis=(1, 3))
    )
    return np.asarray(blocks[1:-1, 1:-1].ravel(), np.float64)


def _correlation(ratio: float) -> float:
    """Neighbour coefficient from near over far second differences, for noise smoothed by a Gaussian: r(2) = r(1)^4."""
    tried = np.linspace(0, 0.99, 100)
    expected = (6 - 8 * tried + 2 * tried**4) / 6
    return float(tried[int(np.argmin(np.abs(expected - ratio)))])


def _detail_px(plane: NDArray[np.float64]) -> float | None:
    """Half the period at which the power spectrum falls to twice its floor."""
    side = min(*plane.shape, 1024)
    piece = plane[:side, :side] - plane[:side, :side].mean()
    window = np.hanning(side)
    power = np.abs(np.fft.fft2(piece * window[:, None] * window[None, :])) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    ring = np.minimum((frequency * side).astype(int), side // 2)
    counts = np.bincount(ring.ravel())
    radial = np.bincount(ring.ravel(), power.ravel()) / np.maximum(counts, 1)
    radial = np.convolve(radial[: side // 2], np.ones(3) / 3, mode="same")[1:-1]
    floor = float(np.median(radial[-len(radial) // 6 :]))
    below = np.flatnonzero(radial < 2 * floor)
    if not below.size or below[0] == 0:
        return None
    return float(side / (2 * (below[0] + 1)))
