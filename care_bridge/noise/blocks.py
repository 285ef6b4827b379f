"""A plane in blocks: their brightness, their structure, and what is left of them after differences of neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.noise.curve import BLOCK, Array, Curve

Plane = NDArray[np.float32]


class Blocks:
    """A plane, cut into blocks; arrays have one entry a block, shape (rows, columns).

    Attributes
    ----------
    plane, smoothed : ndarray
        As given, and slightly smoothed.
    level, structure : ndarray
        Mean of a block, and how much larger features vary in it and around it.
    usable : ndarray of bool
        Neither at the rim nor cut off.
    weight : ndarray
        For correlation: 1 over the noise's variance where there is least structure, else 0.
    """

    def __init__(self, plane: Plane, *, low: float, high: float, lowest: float, saturated: float) -> None:
        from scipy.ndimage import gaussian_filter, uniform_filter

        self.plane = plane
        self.smoothed = gaussian_filter(plane, 1)
        middle = gaussian_filter(plane, 2)
        self.level = block_means(plane)
        # Neighbouring blocks too, so that a block's own noise hardly decides whether it is taken for flat.
        self.structure = uniform_filter(block_means((middle - gaussian_filter(middle, 5)) ** 2), 3)
        self.usable = np.zeros(self.level.shape, bool)
        self.usable[1:-1, 1:-1] = True
        if saturated:
            self.usable &= block_means(np.asarray(plane == high, np.float32)) < 0.02
        if lowest:
            self.usable &= block_means(np.asarray(plane == low, np.float32)) < 0.25
        # What was filled in (borders, masks) has no noise at all, and would pass for flat.
        self.usable &= self.mean_square(1, 1) > 0
        self.weight = np.zeros_like(self.level)

    def mean_square(self, apart_y: int, apart_x: int) -> Array:
        """Of second differences along both axes; white noise gives its variance."""
        twice = second_difference(second_difference(self.plane, 0, apart_y), 1, apart_x)
        return block_means(twice**2)

    def weigh(self, curve: Curve, *, limit: float, tiny: float) -> None:
        expected = np.maximum(curve(self.level), tiny)
        self.weight = np.where(self.usable & (self.structure / expected <= limit), 1 / expected, 0.0)


def block_means(values: NDArray[Any]) -> Array:
    height, width = (size // BLOCK * BLOCK for size in values.shape)
    cut = values[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return np.asarray(cut.mean(axis=(1, 3), dtype=np.float64), np.float64)


def enlarged(blocks: Array, shape: tuple[int, ...]) -> Plane:
    """Back to pixels; 0 where no block is whole."""
    whole = np.repeat(np.repeat(blocks, BLOCK, axis=0), BLOCK, axis=1)
    found = np.zeros(shape, np.float32)
    found[: whole.shape[0], : whole.shape[1]] = whole
    return found


def second_difference(plane: Plane, axis: int, apart: int) -> Plane:
    """With squares that sum to 1, so that white noise keeps its variance; 0 at the rim."""
    found = np.zeros_like(plane)
    size = plane.shape[axis]
    if size <= 2 * apart:
        return found
    before, here, behind = (_cut(axis, start, size - 2 * apart + start) for start in (0, apart, 2 * apart))
    found[here] = (2 * plane[here] - plane[before] - plane[behind]) / np.float32(math.sqrt(6))
    return found


def lagged(plane: Plane, axis: int, distance: int) -> Plane:
    """Products of pixels at a distance."""
    found = np.zeros_like(plane)
    size = plane.shape[axis]
    if size > distance:
        found[_cut(axis, 0, size - distance)] = (
            plane[_cut(axis, 0, size - distance)] * plane[_cut(axis, distance, size)]
        )
    return found


def _cut(axis: int, start: int, stop: int) -> tuple[slice, slice]:
    one = slice(start, stop)
    return (one, slice(None)) if axis == 0 else (slice(None), one)
