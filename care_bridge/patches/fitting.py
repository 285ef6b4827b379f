"""How the grey levels of a target lie to those of its source: the gain and offset that fit one to the other."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 4
"""Means of so many pixels a side are fitted. Blur and a shift of half a pixel make a fit of single pixels too flat,
because bright pixels of the target meet darker ones of the source; they hardly change these means."""

LIKE = 0.2
"""Correlation of those means below which a pair is not taken to show the same."""


@dataclass(frozen=True)
class GreyFit:
    """The straight line from a target's grey levels to its source's: ``source = gain * target + offset``.

    Attributes
    ----------
    gain, offset : float
        By least squares. Of a constant target the gain is 1 and the offset the difference of the means.
    correlation : float
        -1 to 1; 0 where source or target is constant.
    low, high : float
        Darkest and brightest of the target's means.
    constant : bool
        Whether the target has one value only.
    """

    gain: float
    offset: float
    correlation: float
    low: float = 0.0
    high: float = 0.0
    constant: bool = False

    @property
    def holds(self) -> bool:
        """Whether the target can be laid on the source's scale by it."""
        return self.constant or (self.gain > 0 and self.correlation >= LIKE)


class FitSums:
    """What a straight line needs to know of two images, added up piece by piece."""

    def __init__(self) -> None:
        self.n = 0
        self._first: tuple[float, float] | None = None
        self._sums = np.zeros(5)
        self._low, self._high = math.inf, -math.inf

    def add(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        """Add pieces of equal shape; pairs of which one is not finite are left out."""
        s, t = np.asarray(source, np.float64).ravel(), np.asarray(target, np.float64).ravel()
        finite = np.isfinite(s) & np.isfinite(t)
        s, t = s[finite], t[finite]
        if not s.size:
            return
        self._low, self._high = min(self._low, float(t.min())), max(self._high, float(t.max()))
        if self._first is None:
            self._first = float(s.mean()), float(t.mean())
        # Differences to a near mean: squares of large grey levels would leave no digits for what is above them.
        s, t = s - self._first[0], t - self._first[1]
        self.n += s.size
        self._sums += (s.sum(), t.sum(), np.dot(s, s), np.dot(t, t), np.dot(s, t))

    def fit(self) -> GreyFit:
        """The line through all that was added."""
        if self._first is None:
            return GreyFit(1.0, 0.0, 0.0)
        s, t, ss, tt, st = self._sums / self.n
        covariance, of_source, of_target = st - s * t, ss - s * s, tt - t * t
        mean_source, mean_target = self._first[0] + s, self._first[1] + t
        if not self._high > self._low:
            return GreyFit(1.0, float(mean_source - mean_target), 0.0, self._low, self._high, constant=True)
        gain = covariance / max(of_target, sys.float_info.min)
        both = of_source * of_target
        correlation = float(np.clip(covariance / math.sqrt(both), -1, 1)) if both > 0 else 0.0
        return GreyFit(
            float(gain), float(mean_source - gain * mean_target), correlation, self._low, self._high
        )


def block_means(values: NDArray[Any], axes: str) -> NDArray[np.float64]:
    """Means of `BLOCK_PX` pixels along Y and X; axes shorter than two blocks stay as they are.

    Parameters
    ----------
    values : ndarray
    axes : str
        A letter a dimension. What is left at the end of an axis is not used.
    """
    means = np.asarray(values, np.float64)
    for position, letter in enumerate(axes):
        n = means.shape[position] // BLOCK_PX
        if letter in "YX" and n >= 2:
            whole = means[(slice(None),) * position + (slice(0, n * BLOCK_PX),)]
            shape = (*whole.shape[:position], n, BLOCK_PX, *whole.shape[position + 1 :])
            means = whole.reshape(shape).mean(axis=position + 1)
    return means
