"""Intensity profiles along a line, as ImageJ's Plot Profile gives them, and which peaks survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError

Array = NDArray[np.float64]

PROMINENCE = 0.1
"""Height of a peak above its surroundings, relative to the profile's range, from which it counts."""

MATCH_PX = 3.0
"""Largest distance of two peaks that are called the same."""


@dataclass(frozen=True)
class Line:
    """A line in ImageJ's coordinates: x to the right, y down; whole numbers are what `makeLine` takes.

    Attributes
    ----------
    x1, y1, x2, y2 : float
        Pixels.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def length_px(self) -> float:
        return math.hypot(self.x2 - self.x1, self.y2 - self.y1)

    def __str__(self) -> str:
        return f"makeLine({self.x1:g}, {self.y1:g}, {self.x2:g}, {self.y2:g})"


@dataclass(frozen=True)
class Peak:
    """A maximum of a profile.

    Attributes
    ----------
    position_px, width_px : float
        Refined by a parabola; full width at half maximum, above the peak's own base (half of its prominence).
    height : float
    """

    position_px: float
    width_px: float
    height: float


@dataclass(frozen=True)
class PeakMatch:
    """How well the peaks of the truth are found again.

    Attributes
    ----------
    truth, found, matched : int
        Peaks in the truth, in the candidate, and in both.
    recall, precision : float
        matched / truth and matched / found; NaN where the divisor is 0.
    position_error_px : float
        Mean distance of matched peaks.
    width_ratio : float
        Median of candidate's width over the truth's; above 1 = widened.
    truth_width_px, width_px : float
        Full width at half maximum of the matched peaks in the truth and in the candidate, median.
    """

    truth: int
    found: int
    matched: int
    recall: float
    precision: float
    position_error_px: float
    width_ratio: float
    truth_width_px: float = math.nan
    width_px: float = math.nan


def profile(plane: NDArray[Any], line: Line) -> Array:
    """Intensities along a line of width 1, equal to ImageJ's Plot Profile with interpolation (its default).

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
    line : Line

    Returns
    -------
    ndarray
        round(length) + 1 values from the first end to the second.

    Raises
    ------
    InputError
        If the line leaves the image (ImageJ would repeat or invent border pixels there).

    Notes
    -----
    imagej/ImageJ, ij/process/ImageProcessor.java, getLine: the step is the length over its rounded value, so
    it is not exactly one pixel; values are bilinear.
    """
    plane = np.asarray(plane, np.float64)
    if plane.ndim != 2:
        raise InputError(f"a profile needs a plane of shape (Y, X); received {plane.shape}")
    height, width = plane.shape
    xs, ys = (line.x1, line.x2), (line.y1, line.y2)
    if min(xs) < 0 or min(ys) < 0 or max(xs) > width - 1 or max(ys) > height - 1:
        raise InputError(f"{line} leaves the image of {width} x {height} pixels")
    steps = math.floor(line.length_px + 0.5)
    share = np.arange(steps + 1) / max(steps, 1)
    x, y = line.x1 + share * (line.x2 - line.x1), line.y1 + share * (line.y2 - line.y1)
    left, top = np.minimum(x.astype(int), width - 1), np.minimum(y.astype(int), height - 1)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    dx, dy = x - left, y - top
    upper = plane[top, left] * (1 - dx) + plane[top, right] * dx
    lower = plane[bottom, left] * (1 - dx) + plane[bottom, right] * dx
    values: Array = upper * (1 - dy) + lower * dy
    return values


def peaks(values: Array, *, prominence: float = PROMINENCE) -> list[Peak]:
    """Maxima that stand out by a share of the profile's range (percentiles 1 to 99)."""
    from scipy.signal import find_peaks, peak_widths

    values = np.asarray(values, np.float64)
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        return []
    places, _ = find_peaks(values, prominence=prominence * (high - low))
    widths = peak_widths(values, places, rel_height=0.5)[0]
    found = []
    for place, width in zip(places, widths, strict=True):
        before, here, after = values[place - 1 : place + 2]
        curvature = before - 2 * here + after
        offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
        found.append(Peak(float(place + offset), float(width), float(here)))
    return found


def match_peaks(
    truth: Sequence[Peak], candidate: Sequence[Peak], *, distance_px: float = MATCH_PX
) -> PeakMatch:
    """Pair peaks one to one so that the summed distance is smallest, none farther than `distance_px`."""
    from scipy.optimize import linear_sum_assignment

    gaps = np.abs(np.subtract.outer([p.position_px for p in truth], [p.position_px for p in candidate]))
    pairs: list[tuple[int, int]] = []
    if gaps.size:
        # A forbidden pair costs more than any allowed pairing, so that as many as possible are matched.
        cost = np.where(gaps <= distance_px, gaps, 1e6)
        pairs = [
            (i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if gaps[i, j] <= distance_px
        ]
    ratios = [candidate[j].width_px / truth[i].width_px for i, j in pairs if truth[i].width_px > 0]
    return PeakMatch(
        truth=len(truth),
        found=len(candidate),
        matched=len(pairs),
        recall=len(pairs) / len(truth) if truth else math.nan,
        precision=len(pairs) / len(candidate) if candidate else math.nan,
        position_error_px=float(np.mean([gaps[pair] for pair in pairs])) if pairs else math.nan,
        width_ratio=float(np.median(ratios)) if ratios else math.nan,
        truth_width_px=_median([truth[i].width_px for i, _ in pairs]),
        width_px=_median([candidate[j].width_px for _, j in pairs]),
    )


def compare_profiles(truth: Array, candidate: Array) -> PeakMatch:
    """Match the peaks of two profiles along the same line."""
    return match_peaks(peaks(truth), peaks(candidate))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def structured_line(plane: NDArray[Any], *, length_px: float | None = None) -> Line:
    """A horizontal, vertical or diagonal line across much structure, for reports without a drawn one.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        The ground truth.
    length_px : float, optional
        About how long. None takes a third of the shorter side, 40 to 200 pixels.

    Returns
    -------
    Line
        Of the lines over a grid of centres the one whose slightly smoothed profile varies most in steps; it
        has whole coordinates, so that it can be typed into a macro.
    """
    from scipy.ndimage import gaussian_filter

    data = gaussian_filter(np.nan_to_num(np.asarray(plane, np.float64)), 1.0)
    height, width = data.shape
    wanted = length_px or min(max(min(height, width) / 3, 40), 200)
    half = max(1, int(min(wanted, min(height, width) - 2) / 2))
    best, line = -1.0, Line(0, height // 2, width - 1, height // 2)
    for dy, dx in ((0.0, 1.0), (1.0, 0.0), (0.7071, 0.7071), (-0.7071, 0.7071)):
        reach_y, reach_x = round(half * abs(dy)), round(half * dx)
        for y in np.linspace(reach_y, height - 1 - reach_y, 12).astype(int):
            for x in np.linspace(reach_x, width - 1 - reach_x, 12).astype(int):
                sign = 1 if dy >= 0 else -1
                trial = Line(
                    int(x) - reach_x, int(y) - sign * reach_y, int(x) + reach_x, int(y) + sign * reach_y
                )
                worth = float(np.abs(np.diff(profile(data, trial))).sum())
                if worth > best:
                    best, line = worth, trial
    return line
