"""A camera with all of its noise at once: photons, reading, neighbours that share it, rows, hot pixels, whole levels.

Made for patches while a network trains: float32, and each part costs only where it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array32 = NDArray[np.float32]

REACH_PX = 4
"""How far a pixel's noise can reach into its neighbours'."""

NEIGHBOURS_MOST = 0.85
"""Largest correlation of neighbouring pixels that kernels of `REACH_PX` can give."""

ROWS_AT = 0.1
"""Rows are offset by a share of the noise that a pixel of this share of the white level has."""

HOT = (0.2, 2.0)
"""How bright hot pixels are, as shares of the white level."""


@dataclass(frozen=True)
class CameraSetting:
    """What is the same for all pixels of an image.

    Attributes
    ----------
    photons : float
        Counted at the white level 1.
    read_noise : float
        Standard deviation, in photons.
    gain, offset : float
        Grey levels a photon, and grey levels without light.
    neighbours : float
        Correlation of the noise of neighbouring pixels along Y and X, 0 to `NEIGHBOURS_MOST`.
    rows : float
        Standard deviation of the rows' offsets, as a share of the noise at `ROWS_AT` of the white level.
    hot_share : float
        Share of the pixels that are hot.
    levels : int
        Grey levels are whole numbers of 0 to `levels` - 1; 0 leaves them as they are.
    """

    photons: float
    read_noise: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    neighbours: float = 0.0
    rows: float = 0.0
    hot_share: float = 0.0
    levels: int = 0


def neighbour_kernel(correlation: float) -> Array32:
    """Taps along one axis that give white noise a correlation between neighbours and keep its variance.

    Parameters
    ----------
    correlation : float
        Of pixels next to each other along the axis, 0 to `NEIGHBOURS_MOST`.

    Returns
    -------
    ndarray, shape (2 * REACH_PX + 1,)
        A sampled Gaussian whose squares sum to 1.
    """
    sigma = float(np.interp(correlation, _CORRELATIONS, _SIGMAS))
    return _gaussian_taps(sigma).astype(np.float32)


def _gaussian_taps(sigma: float) -> NDArray[np.float64]:
    taps = np.exp(-0.5 * (np.arange(-REACH_PX, REACH_PX + 1) / sigma) ** 2)
    taps = np.where(taps < 1e-9, 0.0, taps)
    normed: NDArray[np.float64] = taps / np.sqrt(np.sum(taps**2))
    return normed


_SIGMAS = np.geomspace(0.1, 2.0, 400)
_CORRELATIONS = np.array([float(np.sum(taps[1:] * taps[:-1])) for taps in map(_gaussian_taps, _SIGMAS)])


def expected(clean: NDArray[Any], setting: CameraSetting) -> Array32:
    """Grey levels without noise, for a clean image whose white level is 1."""
    return np.asarray(clean * (setting.photons * setting.gain) + setting.offset, np.float32)


def expose(
    clean: NDArray[Any], setting: CameraSetting, *, rng: np.random.Generator, scattered: bool = False
) -> Array32:
    """Grey levels as the camera gives them.

    Parameters
    ----------
    clean : ndarray, shape ([z,] y, x)
        On a scale where 1 is the white level; what is below 0 gives no photon.
    setting : CameraSetting
    rng : numpy.random.Generator
    scattered : bool
        `clean` are single pixels in the order of their brightness, shape (n,), taken from all over an image. Their
        values are spread as the image's are; that takes no planes, which is all that percentiles need.

    Returns
    -------
    ndarray of float32
        The mean over many is `expected`, but for hot pixels and where grey levels end.
    """
    rate = np.maximum(clean, 0) * setting.photons
    noise = np.asarray(rng.poisson(rate) - rate, np.float32)
    if setting.read_noise:
        noise += np.float32(setting.read_noise) * rng.standard_normal(rate.shape, np.float32)
    if setting.neighbours:
        # The variance stays each pixel's own: what is smoothed is the noise in units of its standard deviation.
        width = np.sqrt(rate + setting.read_noise**2).astype(np.float32)
        unit = noise / np.maximum(width, np.float32(1e-6))
        smooth = _smooth_scattered if scattered else _smooth
        noise = width * smooth(unit, neighbour_kernel(setting.neighbours), rng)
    if setting.rows:
        width_of_rows = setting.rows * np.sqrt(ROWS_AT * setting.photons + setting.read_noise**2)
        shape = rate.shape if scattered else (*rate.shape[:-1], 1)
        noise = noise + np.float32(width_of_rows) * rng.standard_normal(shape, np.float32)
    if setting.hot_share:
        hot = rng.random(rate.shape, np.float32) < setting.hot_share
        count = int(np.count_nonzero(hot))
        noise[hot] += (rng.uniform(*HOT, count) * setting.photons).astype(np.float32)
    grey = (rate + noise) * setting.gain + setting.offset
    if setting.levels:
        grey = np.clip(np.rint(grey), 0, setting.levels - 1)
    return np.asarray(grey, np.float32)


def _smooth(unit: Array32, taps: Array32, rng: np.random.Generator) -> Array32:
    # A margin of plain noise, so that pixels at the border have neighbours too.
    height, width = unit.shape[-2:]
    wide = rng.standard_normal((*unit.shape[:-2], height + 2 * REACH_PX, width + 2 * REACH_PX), np.float32)
    inside = (..., slice(REACH_PX, REACH_PX + height), slice(REACH_PX, REACH_PX + width))
    wide[inside] = unit
    rows = ndimage.convolve1d(wide, taps, axis=-2, mode="constant")[inside[0], inside[1], :]
    smoothed: Array32 = ndimage.convolve1d(rows, taps, axis=-1, mode="constant")[..., inside[2]]
    return smoothed


def _smooth_scattered(unit: Array32, taps: Array32, rng: np.random.Generator) -> Array32:
    # Pixels of about the same brightness stand next to each other, so each mixes with noise like its own.
    both = np.outer(taps, taps).ravel()
    smoothed: Array32 = ndimage.convolve1d(unit, both[np.abs(both) > 1e-3], mode="reflect")
    return smoothed
