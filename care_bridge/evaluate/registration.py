"""Whether source and target show the same place, and other reasons to distrust a pair before scoring it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import fields
from care_bridge.images import Image

WARN_PX = 1.0
"""Shift at which a pair is called misregistered; half a pixel is common in averaged frames."""

SATURATED_SHARE = 1e-3
"""Share of pixels at the highest value at which a truth is called saturated."""


@dataclass(frozen=True)
class Shift:
    """Displacement of the target against the source.

    Attributes
    ----------
    zyx_px : tuple of float
        How far the target lies along each axis of the field (two or three numbers), in pixels.
    certainty : float
        Height of the correlation peak, 1 for equal images.
    """

    zyx_px: tuple[float, ...]
    certainty: float

    @property
    def distance_px(self) -> float:
        return float(math.hypot(*self.zyx_px))

    def __str__(self) -> str:
        letters = "ZYX"[-len(self.zyx_px) :]
        return ", ".join(f"{letter} {value:+.1f}" for letter, value in zip(letters, self.zyx_px, strict=True))


def shift_between(source: NDArray[np.generic], target: NDArray[np.generic]) -> Shift:
    """Shift of a target against its source, from the peak of their Fourier cross-correlation.

    Parameters
    ----------
    source, target : ndarray, shape ([Z,] Y, X)
        Of equal shape.

    Notes
    -----
    Both are smoothed by a Gaussian of 1 pixel, freed of their background (16 pixels) and faded out by a Hann
    window, whose pull towards shift 0 is divided out again; the peak is refined by a parabola. Keeping the
    phase alone gives noise the same say as structure and found smooth stacks half a pixel short.
    """
    from scipy.ndimage import gaussian_filter

    if source.shape != target.shape:
        raise InputError(f"source has shape {source.shape}, target {target.shape}; they must be equal")
    window = np.ones(source.shape)
    for axis, size in enumerate(source.shape):
        if size > 4:
            window *= np.hanning(size).reshape([-1 if place == axis else 1 for place in range(source.ndim)])
    spectra, power = [], 1.0
    for image in (source, target):
        data = np.nan_to_num(np.asarray(image, np.float64))
        data = gaussian_filter(data, 1.0) - gaussian_filter(data, 16.0)
        data = (data - np.sum(data * window) / window.sum()) * window
        power *= float(np.sum(data**2))
        spectra.append(np.fft.rfftn(data))
    correlation = np.fft.irfftn(spectra[1] * np.conj(spectra[0]), s=source.shape, axes=range(source.ndim))
    overlap = np.fft.irfftn(np.abs(np.fft.rfftn(window)) ** 2, s=source.shape, axes=range(source.ndim))
    overlap /= overlap.flat[0]
    # Shifts that leave less than a third of the picture in common are guesses.
    fair = np.where(overlap > 1 / 3, correlation / np.maximum(overlap, 1 / 3), -np.inf)
    peak = np.unravel_index(int(np.argmax(fair)), fair.shape)
    zyx = tuple(_refined(fair, peak, axis) for axis in range(fair.ndim))
    return Shift(zyx, float(correlation[peak]) / math.sqrt(power) if power > 0 else 0.0)


def pair_warnings(source: Image, target: Image) -> list[str]:
    """What is wrong with a pair, a sentence each: shifted, saturated, constant, of different bit depths.

    Parameters
    ----------
    source, target : Image
        Of equal shape.
    """
    warnings = []
    (_, low), (_, high) = next(iter(fields(source))), next(iter(fields(target)))
    if np.array_equal(low, high, equal_nan=True):
        warnings.append("source and target are the same image: no restoration can be better than its input")
    elif low.shape == high.shape and np.ptp(np.nan_to_num(low)) and np.ptp(np.nan_to_num(high)):
        shift = shift_between(low, high)
        if shift.distance_px >= WARN_PX:
            warnings.append(
                f"the target is shifted by {shift.distance_px:.1f} px against the source ({shift}); register "
                "the pair, else every score blames the restoration for it"
            )
    share = saturated_share(target)
    if share >= SATURATED_SHARE:
        warnings.append(
            f"{100 * share:.2g} % of the ground truth's pixels are at its highest value "
            f"{np.nanmax(target.data):g}: saturated, so errors in the brightest structures are not seen"
        )
    holes = int(np.count_nonzero(~np.isfinite(target.data)) + np.count_nonzero(~np.isfinite(source.data)))
    if holes:
        warnings.append(f"{holes} pixels are NaN or infinite; they and their windows are left out")
    if source.dtype != target.dtype:
        warnings.append(
            f"source is {source.dtype}, target {target.dtype}; scores and histograms are taken after an "
            "affine fit, so the bit depths need not match"
        )
    return warnings


def saturated_share(image: Image) -> float:
    """Share of an image's pixels at the top: at its data type's end, or heaped at its own maximum.

    Notes
    -----
    Cameras of 10 to 14 bits saturate below the end of uint16, so the maximum itself counts when at least ten
    times as many pixels share it as the values just below; images of few grey levels are not judged by that.
    """
    data = image.data[np.isfinite(image.data)]
    if not data.size or data.min() == data.max():
        return 0.0
    top = data.max()
    at_top = int(np.count_nonzero(data == top))
    share = at_top / int(data.size)
    if image.dtype.kind in "ui" and top == np.iinfo(image.dtype).max:
        return share
    values, counts = np.unique(data, return_counts=True)
    if values.size < 64:
        return 0.0
    heaped = at_top >= 10 * max(float(counts[-9:-1].max()), 1.0)
    return share if heaped else 0.0


def _refined(correlation: NDArray[np.float64], peak: tuple[np.intp, ...], axis: int) -> float:
    size = correlation.shape[axis]
    place = int(peak[axis])
    signed = place - size if place > size // 2 else place
    if size < 3:
        return float(signed)
    line = [
        float(correlation[tuple((place + step) % size if a == axis else int(p) for a, p in enumerate(peak))])
        for step in (-1, 0, 1)
    ]
    if not np.isfinite(line).all():
        return float(signed)
    curvature = line[0] - 2 * line[1] + line[2]
    return float(signed) + (0.5 * (line[0] - line[2]) / curvature if curvature < 0 else 0.0)
