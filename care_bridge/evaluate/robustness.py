"""In which range of noise, blur and intensity a network still helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import score_image
from care_bridge.images import Image
from care_bridge.predictor import Predictor, mean_channels
from care_bridge.progress import Progress, silent

NOISE = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of added Gaussian noise, relative to the source's range of percentiles 2 to 99.8."""

BLUR_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
FACTOR = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Intensity factors with the noise unchanged: what a percentile normalisation leaves of them is rounding of dim
integer images and saturation of bright ones."""

LEVELS: Mapping[str, Sequence[float]] = {"noise": NOISE, "blur": BLUR_PX, "factor": FACTOR}
UNITS: Mapping[str, str] = {"noise": "of the range", "blur": "px", "factor": "x"}
NEUTRAL: Mapping[str, float] = {"noise": 0.0, "blur": 0.0, "factor": 1.0}


@dataclass(frozen=True)
class Point:
    """Scores at one strength of one change.

    Attributes
    ----------
    change : str
        `noise`, `blur` or `factor`.
    level : float
    input_nrmse, restored_nrmse, input_ssim, restored_ssim : float
        Means over images, of the changed input and of its restoration.
    """

    change: str
    level: float
    input_nrmse: float
    restored_nrmse: float
    input_ssim: float
    restored_ssim: float


@dataclass(frozen=True)
class ValidRange:
    """Levels of one change between which the network keeps helping.

    Attributes
    ----------
    change : str
    low, high : float
        NaN where it helps at no level.
    """

    change: str
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.change}: helps at no level tried"
        unit = UNITS[self.change]
        return f"{self.change}: {self.low:g} to {self.high:g} {unit}"


def degrade(image: Image, change: str, level: float, *, seed: int = 0) -> Image:
    """Change a source further: add noise, blur it or scale its intensities.

    Parameters
    ----------
    image : Image
    change : str
        `noise` (sd relative to the range), `blur` (sigma in pixels, YX) or `factor`.
    level : float
    seed : int

    Returns
    -------
    Image
        float32; after `factor` an integer image keeps its type, rounded and clipped at its ends as a camera does.
    """
    from scipy.ndimage import gaussian_filter

    data = image.data.astype(np.float32)
    if change == "noise":
        low, high = np.percentile(data[np.isfinite(data)], (2, 99.8))
        draw = np.random.default_rng(seed).standard_normal(data.shape, np.float32)
        data = data + draw * np.float32(level * (high - low))
    elif change == "blur":
        sigma = [level if letter in "YX" else 0.0 for letter in image.axes]
        data = gaussian_filter(data, sigma, mode="reflect") if level > 0 else data
    elif change == "factor":
        data = data * np.float32(level)
        if image.dtype.kind in "ui":
            ends = np.iinfo(image.dtype)
            return image.replace(data=np.clip(np.rint(data), ends.min, ends.max).astype(image.dtype))
    else:
        raise InputError(f"change={change!r} is not one of {', '.join(LEVELS)}")
    return image.replace(data=data)


def curves(
    predictor: Predictor,
    pairs: Sequence[tuple[Image, Image]],
    *,
    levels: Mapping[str, Sequence[float]] = LEVELS,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Point]:
    """Score a predictor on inputs that are made worse step by step.

    Parameters
    ----------
    predictor : Predictor
    pairs : sequence of (source, target)
        A few are enough; each level costs one prediction an image.
    levels : mapping of str to sequence of float
    seed : int
        Of the added noise.
    progress : Progress
    """
    if not pairs:
        raise InputError("no pair to measure robustness on")
    total = sum(len(values) for values in levels.values()) * len(pairs)
    done, points = 0, []
    for change, values in levels.items():
        for level in values:
            rows = []
            for place, (source, target) in enumerate(pairs):
                changed = degrade(source, change, level, seed=seed + place)
                restored = mean_channels(predictor.predict(changed), like=changed)
                before, after = score_image(changed, target), score_image(restored, target)
                rows.append((before.nrmse, after.nrmse, before.ssim, after.ssim))
                done += 1
                progress(done, total, "robustness")
            points.append(Point(change, float(level), *(float(v) for v in np.mean(rows, axis=0))))
    return points


def valid_ranges(points: Sequence[Point], *, worse: float = 1.5) -> list[ValidRange]:
    """Between which levels the restoration beats its input and errs at most `worse` times as much as unchanged.

    Notes
    -----
    Levels are followed from the unchanged input outwards until one fails, so a range has no holes.
    """
    ranges = []
    for change in dict.fromkeys(point.change for point in points):
        line = sorted((p for p in points if p.change == change), key=lambda p: p.level)
        neutral = min(range(len(line)), key=lambda i: abs(line[i].level - NEUTRAL[change]))
        limit = worse * line[neutral].restored_nrmse
        good = [p.restored_nrmse < p.input_nrmse and p.restored_nrmse <= limit for p in line]
        if not good[neutral]:
            ranges.append(ValidRange(change, float("nan"), float("nan")))
            continue
        low = high = neutral
        while low > 0 and good[low - 1]:
            low -= 1
        while high + 1 < len(line) and good[high + 1]:
            high += 1
        ranges.append(ValidRange(change, line[low].level, line[high].level))
    return ranges
