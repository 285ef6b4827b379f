"""Once or twice? What a second application of a network to its own output gains and what it makes up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import Summary, paired_test, summarise
from care_bridge.metrics import align, nrmse

Array = NDArray[np.float64]

MAXIMUM_CONTRAST = 0.1
"""Height of a spot above its surroundings, relative to the truth's range, from which it counts."""

ABSENT_CONTRAST = MAXIMUM_CONTRAST / 2
"""Below this a spot is called absent; between the two nobody is blamed."""

MATCH_PX = 2.5
SMOOTH_PX = 1.0
SURROUNDINGS_PX = 15

GAIN = 0.01
"""Relative gain in NRMSE from which a further application is recommended."""

ORDINALS = ("zeroth", "first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True, eq=False)
class Maxima:
    """Local maxima of a plane.

    Attributes
    ----------
    yx_px : ndarray, shape (n, 2)
    contrast : ndarray, shape (n,)
        Height above the median of the surroundings.
    intensity : ndarray, shape (n,)
    width_px : ndarray, shape (n,)
        Full width at half maximum of a Gaussian with the same height and curvature.
    """

    yx_px: Array
    contrast: Array
    intensity: Array
    width_px: Array


@dataclass(frozen=True)
class Application:
    """One image after so many applications; application 0 is the input.

    Attributes
    ----------
    application : int
    nrmse : float
    contrast_to_noise : float
        (mean of structure - mean of background) / sd of background; both are regions of the truth.
    change : float
        Mean |f_k - f_(k-1)| relative to the truth's range; NaN for the input.
    gradient_energy : float
        Mean squared gradient relative to the truth's; above 1 = rougher, below = smoother.
    invented, omitted : int
        Maxima here and not in the truth, and the reverse.
    maxima, truth_maxima : int
        How many there are here and in the truth.
    """

    application: int
    nrmse: float
    contrast_to_noise: float
    change: float
    gradient_energy: float
    invented: int
    omitted: int
    maxima: int
    truth_maxima: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Omission:
    """Share of the truth's maxima of one class that a result lacks."""

    by: str
    group: str
    n: int
    omitted: int

    @property
    def share(self) -> float:
        return self.omitted / self.n if self.n else math.nan


@dataclass(frozen=True)
class Verdict:
    """How often to apply, and why, in words."""

    applications: int
    text: str


def compare_applications(planes: Sequence[NDArray[Any]], ground_truth: NDArray[Any]) -> list[Application]:
    """Follow one image through its applications.

    Parameters
    ----------
    planes : sequence of ndarray, shape (Y, X)
        The input, the result of the first application, of the second, ...
    ground_truth : ndarray, shape (Y, X)
        All without holes.
    """
    from skimage.filters import threshold_otsu

    pairs = [align(plane, ground_truth) for plane in planes]
    truth = pairs[0][1]
    structure = truth > threshold_otsu(truth)
    there = maxima(truth)
    found = []
    for place, (given, _) in enumerate(pairs):
        here = maxima(given)
        change = math.nan if place == 0 else float(np.mean(np.abs(given - pairs[place - 1][0])))
        found.append(
            Application(
                application=place,
                nrmse=nrmse(given, truth, data_range=1.0),
                contrast_to_noise=contrast_to_noise(given, structure),
                change=change,
                gradient_energy=gradient_energy(given) / (gradient_energy(truth) or math.nan),
                invented=int(np.count_nonzero(unmatched(here, there))),
                omitted=int(np.count_nonzero(unmatched(there, here))),
                maxima=int(np.count_nonzero(here.contrast >= MAXIMUM_CONTRAST)),
                truth_maxima=int(np.count_nonzero(there.contrast >= MAXIMUM_CONTRAST)),
            )
        )
    return found


def maxima(plane: Array) -> Maxima:
    """Local maxima above `ABSENT_CONTRAST` of a plane whose range is 1.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        On the scale of `metrics.align`.
    """
    from scipy.ndimage import gaussian_filter, gaussian_laplace, maximum_filter, median_filter, zoom

    smooth = gaussian_filter(np.asarray(plane, np.float64), SMOOTH_PX)
    # A median over 15 pixels of every second pixel: the same surroundings at a quarter of the time.
    coarse = median_filter(smooth[::2, ::2], SURROUNDINGS_PX // 2)
    around = zoom(coarse, [n / c for n, c in zip(smooth.shape, coarse.shape, strict=True)], order=1)
    contrast = smooth - around
    peak = (smooth == maximum_filter(smooth, 3)) & (contrast >= ABSENT_CONTRAST)
    yx = np.argwhere(peak).astype(np.float64)
    heights = contrast[peak]
    # The Laplacian of a Gaussian of height A and width s is -2 A / s^2 at its centre.
    bend = np.maximum(-gaussian_laplace(np.asarray(plane, np.float64), SMOOTH_PX)[peak], 1e-9)
    spread = np.maximum(2 * heights / bend - SMOOTH_PX**2, 0.25)
    return Maxima(yx, heights, smooth[peak], 2.3548 * np.sqrt(spread))


def unmatched(present: Maxima, elsewhere: Maxima) -> NDArray[np.bool_]:
    """Which clear maxima of one image have no counterpart, not even a faint one, in another."""
    from scipy.spatial import cKDTree

    clear = present.contrast >= MAXIMUM_CONTRAST
    if not clear.any() or not len(elsewhere.yx_px):
        return clear
    distance, _ = cKDTree(elsewhere.yx_px).query(present.yx_px, distance_upper_bound=MATCH_PX)
    return np.asarray(clear & ~np.isfinite(distance))


def omissions(plane: NDArray[Any], ground_truth: NDArray[Any]) -> list[Omission]:
    """What a result leaves out, by intensity and by size of the truth's maxima (thirds of each).

    Parameters
    ----------
    plane, ground_truth : ndarray, shape (Y, X)
    """
    given, truth = align(plane, ground_truth)
    there = maxima(truth)
    lost = unmatched(there, maxima(given))
    clear = there.contrast >= MAXIMUM_CONTRAST
    rows = []
    for by, values, words in (
        ("intensity", there.intensity, ("dim", "middle", "bright")),
        ("size", there.width_px, ("small", "middle", "large")),
    ):
        if not clear.any():
            continue
        low, high = np.quantile(values[clear], (1 / 3, 2 / 3))
        thirds = (values <= low, (values > low) & (values <= high), values > high)
        for word, third in zip(words, thirds, strict=True):
            chosen = clear & third
            rows.append(Omission(by, word, int(chosen.sum()), int(np.count_nonzero(lost & chosen))))
    return rows


def contrast_to_noise(plane: Array, structure: NDArray[np.bool_]) -> float:
    """(mean of structure - mean of the rest) / sd of the rest; NaN where one of them is empty or flat."""
    if structure.all() or not structure.any():
        return math.nan
    rest = plane[~structure]
    sd = float(rest.std())
    return float(plane[structure].mean() - rest.mean()) / sd if sd > 0 else math.nan


def gradient_energy(plane: Array) -> float:
    """Mean squared central difference, summed over both axes."""
    return float(sum(np.mean(part**2) for part in np.gradient(np.asarray(plane, np.float64))))


def verdict(images: Sequence[Sequence[Application]]) -> Verdict:
    """How many applications to keep, from every image's series.

    Parameters
    ----------
    images : sequence of sequence of Application
        Each from `compare_applications`, of equal lengths of at least 2 (input and once).

    Notes
    -----
    A further application is kept if it lowers the mean NRMSE by at least 1 %, lowers it on most images, is
    not contradicted by the signed-rank test where there are enough images for one, and does not invent more
    than 10 % more maxima. The next one is asked only if the one before was kept.
    """
    if not images or len({len(series) for series in images}) != 1 or len(images[0]) < 2:
        raise InputError("a verdict needs the same number of applications, at least one, for every image")
    errors = np.array([[step.nrmse for step in series] for series in images])
    invented = np.array([[step.invented for step in series] for series in images]).sum(axis=0)
    contrast = np.array([[step.contrast_to_noise for step in series] for series in images]).mean(axis=0)
    keep, reasons = 0, []
    for step in range(1, errors.shape[1]):
        test = paired_test(errors[:, step].tolist(), errors[:, step - 1].tolist(), higher_is_better=False)
        before, after = float(errors[:, step - 1].mean()), float(errors[:, step].mean())
        gain = 1 - after / before if before > 0 else 0.0
        clear = gain >= GAIN and 2 * test.better > test.n and not test.p_value >= 0.05
        # Noise makes maxima too, so that the first application may invent fewer than the input has.
        tame = step == 1 or invented[step] <= 1.1 * invented[step - 1] + len(images)
        word = ORDINALS[step] if step < len(ORDINALS) else f"{step}th"
        direction = "lowers" if gain > 0 else "raises"
        sure = "" if math.isnan(test.p_value) else f", {test}"
        reasons.append(
            f"the {word} application {direction} NRMSE from {before:.4f} to {after:.4f} (better on {test.better} "
            f"of {test.n} images{sure}), contrast to noise {contrast[step - 1]:.1f} to {contrast[step]:.1f}, "
            f"invented maxima {invented[step - 1]} to {invented[step]}"
        )
        if not (clear and tame):
            break
        keep = step
    advice = {
        0: "Do not apply this network to such images",
        1: "Apply once",
        2: "Apply twice",
    }.get(keep, f"Apply {keep} times")
    return Verdict(keep, f"{advice}: {'; '.join(reasons)}.")


def summarise_applications(images: Sequence[Sequence[Application]]) -> list[dict[str, Any]]:
    """One row an application: means over images with their intervals."""
    rows: list[dict[str, Any]] = []
    for step in range(len(images[0])):
        each = [series[step] for series in images]
        summary: dict[str, Summary] = {
            key: summarise([getattr(one, key) for one in each])
            for key in ("nrmse", "contrast_to_noise", "change", "gradient_energy")
        }
        rows.append(
            {
                "applications": step,
                "NRMSE": str(summary["nrmse"]),
                "contrast to noise": str(summary["contrast_to_noise"]),
                "mean |f(k) - f(k-1)|": "" if step == 0 else str(summary["change"]),
                "gradient energy / truth": str(summary["gradient_energy"]),
                "maxima": sum(one.maxima for one in each),
                "maxima of the truth": sum(one.truth_maxima for one in each),
                "invented": sum(one.invented for one in each),
                "omitted": sum(one.omitted for one in each),
            }
        )
    return rows
