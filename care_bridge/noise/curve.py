"""Variance against brightness: the photon-transfer curve of one image, and the line through it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 8

_FLAT_OF_LEVEL = 0.3

_LEVELS = 24

_LEAST_OF_LEVEL = 8

_TOLD = 4.0
"""A slope below so many of its standard errors is none."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Variance at some brightnesses, in the flattest blocks of each."""

    level: Array
    variance: Array
    error: Array

    def __call__(self, level: Array) -> Array:
        """Between the levels straight, beyond them constant."""
        return np.asarray(np.interp(level, self.level, self.variance), np.float64)

    def line(self) -> tuple[float, float] | None:
        """Slope and variance at 0, or None where no slope can be told.

        Notes
        -----
        Structure only adds variance, so what lies above the line counts less than what lies below.
        """
        if len(self.level) < 3 or self.level[-1] <= self.level[0]:
            return None
        x, y, error = self.level - self.level[0], self.variance, np.maximum(self.error, 1e-30)
        design = np.stack([x, np.ones_like(x)], axis=1)
        weight = 1 / error**2
        for _ in range(20):
            normal = design.T * weight @ design
            slope, at_first = np.linalg.solve(normal, design.T * weight @ y)
            off = (y - design @ (slope, at_first)) / error
            spread = max(1.4826 * float(np.median(np.abs(off))), 1.0)
            far = np.maximum(np.abs(off) / (1.5 * spread), 1.0)
            weight = np.where(off > 0, far**-2, far**-1) / error**2
        uncertain = spread * math.sqrt(float(np.linalg.inv(normal)[0, 0]))
        # A line that fits no better than this has a slope by chance.
        if not slope > _TOLD * uncertain:
            return None
        return float(slope), float(at_first - slope * self.level[0])


def fit_curve(
    level: Array,
    variance: Array,
    structure: Array,
    *,
    area: float,
    base: Curve | None = None,
    scale: float = 1.0,
) -> Curve:
    """Variance against brightness.

    Notes
    -----
    Bins are wider than the noise of a block's own mean, of which `area` pixels share the noise: else blocks of one true
    brightness would be spread over many bins, and the slope would come out too small.
    """
    low, high = float(level.min()), float(level.max())
    edges = [low]
    while edges[-1] < high:
        wide = 0.0
        if base is not None:
            wide = 6 * math.sqrt(max(area * scale * float(base(np.array([edges[-1]]))[0]), 0.0)) / BLOCK
        edges.append(edges[-1] + max((high - low) / _LEVELS, wide))
        if len(edges) > 2 * _LEVELS:
            break
    places = np.digitize(level, edges[1:-1])
    found = []
    for place in range(len(edges) - 1):
        among = np.flatnonzero(places == place)
        if len(among) < _LEAST_OF_LEVEL:
            continue
        taken = flattest(among, structure)
        mean = float(variance[taken].mean())
        # Of the second differences of a block about a quarter are independent of each other.
        error = max(mean, 1e-30) / math.sqrt(len(taken) * BLOCK * BLOCK / 4)
        found.append((float(level[taken].mean()), mean, error))
    if not found:
        found = [(float(level.mean()), float(variance.mean()), 1.0)]
    columns = np.array(sorted(found)).T
    return Curve(columns[0], columns[1], columns[2])


def flattest(among: NDArray[np.intp], structure: Array) -> NDArray[np.intp]:
    """Of some blocks those with least structure.

    Notes
    -----
    All up to twice the 30th percentile, and not the lowest 30 %: where no block holds any structure, choosing the lowest
    would choose those with little noise.
    """
    some = structure[among]
    limit = 2 * float(np.quantile(some, _FLAT_OF_LEVEL))
    least = float(
        np.partition(some, min(_LEAST_OF_LEVEL, len(some)) - 1)[min(_LEAST_OF_LEVEL, len(some)) - 1]
    )
    return among[some <= max(limit, least)]
