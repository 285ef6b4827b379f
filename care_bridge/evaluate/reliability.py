"""How sure: images of intervals, calibration, and what inputs look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.defaults import INTERVAL
from care_bridge.errors import InputError
from care_bridge.evaluate.baselines import noise_sd
from care_bridge.images import Image
from care_bridge.intervals import Array, Mixture, disagreement, laplace_interval
from care_bridge.predictor import mean_channels, scale_channels

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True, eq=False)
class Sure:
    """A restoration with its interval, as images of one shape; all in the restoration's units.

    Attributes
    ----------
    mean, low, high : Image
        Bounds of the central interval.
    disagreement : Image, optional
        D of an ensemble, 0 to 1; None for a single net.
    level : float
    """

    mean: Image
    low: Image
    high: Image
    disagreement: Image | None
    level: float


def interval_images(
    results: Sequence[Image], *, like: Image, level: float = INTERVAL, temperature: float = 1.0
) -> Sure:
    """Turn probabilistic results into images of the mean, of an interval and of D.

    Parameters
    ----------
    results : sequence of Image
        What the members of an ensemble predicted, or one result: means, then widths, along C.
    like : Image
        The input that gave them; says which channels are means.
    level : float
        Mass of the central interval, 0 to 1, without the ends.
    temperature : float
        Of an ensemble, `temperature` of its config.json: what its mixture is stretched by. A single network has its own in
        the widths that it gives.

    Returns
    -------
    Sure
        Mean, both bounds, and for an ensemble the disagreement D, each as an image like the input.

    Raises
    ------
    InputError
        If a result has no widths, or the level is not between 0 and 1.
    """
    mixture = mixture_of(results, like=like, temperature=temperature)
    if mixture is None:
        raise InputError(
            "the model predicts no widths, so there is no interval; train with --probabilistic to have one"
        )
    mean = mean_channels(results[0], like=like)
    if len(results) == 1:
        low, high = laplace_interval(mixture.means[0], mixture.scales[0], level=level)
    else:
        low, high = mixture.interval(level)

    def image(data: Array) -> Image:
        return mean.replace(data=data.astype(np.float32))

    d = image(disagreement(mixture.means, mixture.scales)) if len(results) > 1 else None
    return Sure(image(mixture.mean), image(low), image(high), d, level)


def mixture_of(
    results: Sequence[Image],
    *,
    like: Image,
    pixels: Callable[[Image], NDArray[Any]] = lambda image: image.data,
    temperature: float = 1.0,
) -> Mixture | None:
    """What the members of an ensemble (or one net) predicted, as distributions.

    Parameters
    ----------
    results : sequence of Image
        One a member.
    like : Image
        The input that gave them.
    pixels : callable
        Which pixels of an image.
    temperature : float
        What the distribution is stretched by.

    Returns
    -------
    Mixture, optional
        None where a result has no widths.
    """
    means = [mean_channels(one, like=like) for one in results]
    widths = [found for one in results if (found := scale_channels(one, like=like)) is not None]
    if not results or len(widths) < len(results):
        return None
    centre, scale = (np.stack([pixels(one) for one in some]).astype(np.float64) for some in (means, widths))
    mixture = Mixture(centre, np.maximum(scale, 1e-12))
    return mixture if temperature == 1 else mixture.stretched(temperature)


@dataclass(frozen=True)
class Calibration:
    """Nominal against real coverage of central intervals.

    Attributes
    ----------
    scale : str
        The intensity scale on which it was measured; it means nothing without.
    levels, coverage : tuple of float
        Nominal shares, and the shares of pixels that lay inside.
    factor : float
        Mean |truth - mean| / scale: multiply scales by it to mend them afterwards; 1 where calibrated.
    bias : float
        Mean of truth - mean, in mean scales; intervals cannot mend it.
    """

    scale: str
    levels: tuple[float, ...]
    coverage: tuple[float, ...]
    factor: float
    bias: float

    @property
    def largest(self) -> float:
        return max(abs(c - p) for c, p in zip(self.coverage, self.levels, strict=True))

    @property
    def mean_error(self) -> float:
        return float(np.mean([abs(c - p) for c, p in zip(self.coverage, self.levels, strict=True)]))

    def at(self, level: float) -> float:
        """Coverage at one of the levels."""
        return self.coverage[[round(p, 6) for p in self.levels].index(round(level, 6))]


def calibrate(
    truth: Array, means: Array, scales: Array, *, scale: str, levels: Sequence[float] = LEVELS
) -> Calibration:
    """Measure calibration on held-out pixels.

    Parameters
    ----------
    truth : ndarray, shape (...)
        On the scale of the predictions; `aligned_truth` puts it there.
    means, scales : ndarray, shape (...) or (members, ...)
        Of a net, or of the members of an ensemble, whose mixture is then measured.
    scale : str
        What the intensity scale is called.
    levels : sequence of float
    """
    truth, means, scales = (np.asarray(a, np.float64) for a in (truth, means, scales))
    mixture = Mixture(means[None], scales[None]) if means.shape == truth.shape else Mixture(means, scales)
    spread = mixture.scales[0] if mixture.means.shape[0] == 1 else np.sqrt(mixture.variance / 2)
    error = truth - mixture.mean
    return Calibration(
        scale=scale,
        levels=tuple(float(level) for level in levels),
        coverage=mixture.coverage(truth, levels),
        factor=float(np.mean(np.abs(error) / spread)),
        bias=float(error.mean() / spread.mean()),
    )


def aligned_truth(truth: Array, prediction: Array) -> Array:
    """The truth, scaled and shifted onto a prediction's intensities (least squares).

    Notes
    -----
    Percentile normalisation puts a noisy source and its clean truth on slightly different scales. A net learns
    this shift only on average, and a calibration curve measured without alignment mostly shows it.
    """
    t, p = (np.asarray(a, np.float64) for a in (truth, prediction))
    centred = t - t.mean()
    power = float(np.sum(centred**2))
    slope = float(np.sum(centred * (p - p.mean()))) / power if power > 0 else 0.0
    return np.asarray(slope * centred + p.mean())


def binned(
    by: Array, values: dict[str, Array], *, bins: int = 20, name: str = "scale"
) -> list[dict[str, float]]:
    """Means of some images over pixels with similar values of another, as rows for a chart.

    Parameters
    ----------
    by : ndarray
        What the pixels are sorted by, e.g. the predicted scale; bins hold equally many pixels.
    values : mapping of str to ndarray
        E.g. the absolute error.
    bins : int
    name : str
        Column for the mean of `by`.
    """
    order = np.argsort(by, axis=None)
    rows = []
    for part in np.array_split(order, min(bins, order.size)):
        row = {name: float(by.ravel()[part].mean())}
        rows.append(row | {key: float(array.ravel()[part].mean()) for key, array in values.items()})
    return rows


def block_correlation(first: Array, second: Array, *, block_px: int = 8) -> float:
    """Spearman's rank correlation of two planes after averaging over blocks; NaN where one is constant."""
    from scipy.stats import spearmanr

    height, width = (size // block_px * block_px for size in first.shape)
    means = [
        a[:height, :width].reshape(height // block_px, block_px, -1, block_px).mean(axis=(1, 3)).ravel()
        for a in (first, second)
    ]
    if means[0].size < 3 or any(np.ptp(m) == 0 for m in means):
        return math.nan
    return float(spearmanr(*means).statistic)


@dataclass(frozen=True)
class InputStatistics:
    """What an input looks like to a network, free of its units.

    Attributes
    ----------
    noise : float
        Noise over the range of percentiles 2 to 99.8.
    sharpness : float
        Power between 1/8 and 1/4 cycles a pixel over that below 1/8, in dB, noise subtracted where it can be.
    filling : float
        Share of pixels above a quarter of that range.
    """

    noise: float
    sharpness: float
    filling: float


def input_statistics(plane: NDArray[Any]) -> InputStatistics:
    """Statistics of one plane, shape (Y, X), by which foreign inputs are recognised."""
    data = np.nan_to_num(np.asarray(plane, np.float64))
    low, high = np.percentile(data, (2, 99.8))
    span = float(high - low) or 1.0
    noise = noise_sd(data)
    window = np.hanning(data.shape[0])[:, None] * np.hanning(data.shape[1])[None, :]
    power = np.abs(np.fft.rfft2((data - data.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(data.shape[0])[:, None], np.fft.rfftfreq(data.shape[1])[None, :])
    floor = noise**2 * float((window**2).sum())
    fine, coarse = (
        float(np.maximum(power[(radius >= a) & (radius < b)] - floor, 0).mean()) if data.size > 64 else 1.0
        for a, b in ((0.125, 0.25), (0.01, 0.125))
    )
    tiny = 1e-12 * (float(power.max()) or 1.0)
    return InputStatistics(
        noise / span, 10 * math.log10((fine + tiny) / (coarse + tiny)), float(np.mean(data > low + span / 4))
    )


def foreign(
    statistics: InputStatistics,
    reference: Sequence[InputStatistics],
    *,
    d_mean: float | None = None,
    d_reference: Sequence[float] = (),
) -> list[str]:
    """Why an input looks unlike the training images, a sentence each; empty where it does not.

    Parameters
    ----------
    statistics : InputStatistics
    reference : sequence of InputStatistics
        Of training inputs; the span of these, widened by half, is familiar.
    d_mean : float, optional
        Mean disagreement on this image.
    d_reference : sequence of float
        Mean disagreement on images like the training's.
    """
    reasons = []
    words = {
        "noise": ("noise relative to the signal", 1.5),
        "sharpness": ("sharpness (dB)", 3.0),
        "filling": ("share of bright pixels", 1.5),
    }
    for key, (label, allowance) in words.items():
        known = [getattr(one, key) for one in reference]
        if not known:
            continue
        value = getattr(statistics, key)
        low, high = min(known), max(known)
        inside = (
            low - allowance <= value <= high + allowance
            if key == "sharpness"
            else low / allowance <= value <= high * allowance
        )
        if not inside:
            span = f"{low:.3g} to {high:.3g}" if high > low else f"{low:.3g}"
            reasons.append(f"{label} is {value:.3g}, in training it was {span}")
    if d_mean is not None and len(d_reference) and d_mean > 1.25 * max(d_reference):
        reasons.append(
            f"the networks disagree (mean D {d_mean:.3f}) more than on familiar images (up to {max(d_reference):.3f})"
        )
    return reasons
