"""Scores of an image against its ground truth, summaries over images, and whether a difference is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE, move_axes
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.metrics import UNIFORM, WEIGERT, SsimSetting, align, nrmse, pearson, psnr, ssim

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FRC_THRESHOLD = 1 / 7
"""Ring correlation at which structure counts as lost (van Heel and Schatz 2005)."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales, finest first (Wang, Simoncelli and Bovik 2003)."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """What a column of scores is called and which way is better."""

    key: str
    label: str
    higher_is_better: bool


METRICS = (
    Metric("psnr", "PSNR (dB)", True),
    Metric("nrmse", "NRMSE", False),
    Metric("ssim", "SSIM (Gaussian 1.5)", True),
    Metric("ssim_uniform", "SSIM (uniform 7)", True),
    Metric("ms_ssim", "MS-SSIM", True),
    Metric("pearson", "Pearson r", True),
    Metric("frc_px", "FRC resolution (px)", False),
)
"""In the order of tables. PSNR and NRMSE are the same quantity on two scales."""


@dataclass(frozen=True)
class Scores:
    """One image against its ground truth; NaN where a score is not defined.

    Attributes
    ----------
    psnr : float
        -20 log10 of `nrmse`, in dB.
    nrmse : float
        After percentiles 0.1 and 99.9 of the truth and an affine fit of the prediction (`metrics.align`).
    ssim, ssim_uniform : float
        On the same aligned pair: Gaussian window of sigma 1.5, and uniform window of 7 pixels.
    ms_ssim : float
        Multi-scale, plane by plane; NaN with holes or below 11 pixels.
    pearson : float
    frc_px : float
        Pixels at which the Fourier ring correlation with the truth falls below 1/7; NaN with holes.
    """

    psnr: float
    nrmse: float
    ssim: float
    ssim_uniform: float
    ms_ssim: float
    pearson: float
    frc_px: float

    def as_dict(self) -> dict[str, float]:
        """Scores by their names."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """Scores of several images in one line.

    Attributes
    ----------
    n : int
        Images with a defined score.
    mean, sd : float
        `sd` is NaN for one image.
    low, high : float
        95 % interval of the mean over images (Student's t); NaN below `MIN_INTERVAL` images.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.n < MIN_INTERVAL:
            return f"{self.mean:.4g} ({'one image' if self.n == 1 else f'{self.n} images'}: no interval)"
        return f"{self.mean:.4g} ± {self.high - self.mean:.2g}"


@dataclass(frozen=True)
class PairedTest:
    """Two ways of restoring the same images.

    Attributes
    ----------
    n : int
        Images.
    difference : float
        Mean of first minus second.
    better : int
        Images on which the first is better.
    p_value : float
        Two-sided Wilcoxon signed-rank test; NaN below `MIN_IMAGES`, where no outcome could be significant.
    """

    n: int
    difference: float
    better: int
    p_value: float

    def __str__(self) -> str:
        if math.isnan(self.p_value):
            return f"{self.n} images are too few for p < 0.05"
        return f"p = {self.p_value:.2g}"


MIN_INTERVAL = 3
"""Fewest images for an interval of the mean: two give one of nine times their distance, which says nothing."""

MIN_IMAGES = 6
"""Fewest pairs for which the signed-rank test can give p < 0.05 at all (2 / 2**6 = 0.031)."""


def fields(image: Image) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Take an image apart into what scores are made of.

    Yields
    ------
    label : str
        Where the field is, e.g. "T2 C0"; empty for a plain image or stack.
    data : ndarray, shape ([Z,] Y, X)
        Without Z where the image has none or a single plane.
    """
    outer = "".join(letter for letter in "STC" if letter in image.axes)
    data = move_axes(image.data, image.axes, outer + SPACE)
    for index in np.ndindex(*data.shape[: len(outer)]):
        label = " ".join(
            f"{letter}{place}"
            for letter, place, size in zip(outer, index, data.shape, strict=False)
            if size > 1
        )
        field = data[index]
        yield label, (field[0] if field.shape[0] == 1 else field)


def comparable(first: Image, second: Image) -> bool:
    """Whether two images have the same fields in the same shape, so that one can be scored against the other."""
    one, two = dict(fields(first)), dict(fields(second))
    return {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}


def score_image(prediction: Image, ground_truth: Image, *, mask: Mask | None = None) -> Scores:
    """Score an image; series, frames and channels are scored one by one and averaged.

    Parameters
    ----------
    prediction, ground_truth : Image
        Of equal axes and shape (an axis of size 1 may be missing).
    mask : ndarray of bool, optional
        Shape of one field, ([Z,] Y, X): True where pixels count. None counts all that are finite.

    Returns
    -------
    Scores

    Raises
    ------
    InputError
        If the two do not show the same field with the same channels, or no pixel can be scored.
    """
    if not comparable(prediction, ground_truth):
        raise InputError(
            f"{ground_truth.name or 'image'}: the prediction has axes {prediction.axes} and shape "
            f"{prediction.shape}, the ground truth {ground_truth.axes} and {ground_truth.shape}; "
            "they must show the same field with the same channels"
        )
    given = dict(fields(prediction))
    each = [score(given[label], truth, mask=mask).as_dict() for label, truth in fields(ground_truth)]
    return Scores(**{key: float(np.mean([one[key] for one in each])) for key in each[0]})


def mean_scores(each: Sequence[Scores]) -> Scores:
    """Mean over images as tables show it: images on which a score is not defined do not count."""
    return Scores(
        **{one.key: summarise([getattr(scores, one.key) for scores in each]).mean for one in METRICS}
    )


def score(
    prediction: NDArray[np.generic], ground_truth: NDArray[np.generic], *, mask: Mask | None = None
) -> Scores:
    """Score one plane or stack.

    Parameters
    ----------
    prediction, ground_truth : ndarray, shape ([Z,] Y, X)
        Of equal shape. Pixels that are NaN or infinite in either do not count.
    mask : ndarray of bool, optional
        True where pixels count.

    Raises
    ------
    InputError
        If shapes differ, no pixel counts, or the ground truth has no range.
    """
    given, truth = np.asarray(prediction, np.float64), np.asarray(ground_truth, np.float64)
    if given.shape != truth.shape:
        raise InputError(
            f"prediction has shape {given.shape}, ground_truth {truth.shape}; they must be equal"
        )
    valid = valid_pixels(given, truth, mask=mask)
    whole = bool(valid.all())
    flat_given, flat_truth = align(given[valid], truth[valid])
    given, truth = _unflatten(flat_given, valid), _unflatten(flat_truth, valid)
    return Scores(
        psnr=psnr(flat_given, flat_truth, data_range=1.0),
        nrmse=nrmse(flat_given, flat_truth, data_range=1.0),
        ssim=masked_ssim(given, truth, valid, setting=WEIGERT),
        ssim_uniform=masked_ssim(given, truth, valid, setting=UNIFORM),
        ms_ssim=ms_ssim(given, truth) if whole and min(truth.shape[-2:]) >= _MS_WINDOW else math.nan,
        pearson=pearson(flat_given, flat_truth),
        frc_px=frc_resolution_px(*frc(given, truth)) if whole and min(truth.shape[-2:]) >= 16 else math.nan,
    )


def valid_pixels(*images: NDArray[np.generic], mask: Mask | None = None) -> Mask:
    """Pixels that are finite in every image and not masked out, or an error that says there are none."""
    valid = np.logical_and.reduce([np.isfinite(image) for image in images])
    if mask is not None:
        if mask.shape != valid.shape:
            raise InputError(f"the mask has shape {mask.shape}, the image {valid.shape}; they must be equal")
        valid &= mask.astype(bool)
    if not valid.any():
        raise InputError("no pixel is left to score: all are NaN, infinite or outside the mask")
    return np.asarray(valid)


def masked_ssim(
    prediction: Array, ground_truth: Array, valid: Mask, *, setting: SsimSetting = WEIGERT
) -> float:
    """Structural similarity over the windows that hold valid pixels only; NaN where there is none.

    Parameters
    ----------
    prediction, ground_truth : ndarray, shape ([Z,] Y, X)
        Already on one scale with range 1 (`metrics.align`). Stacks thinner than the window are scored plane
        by plane.
    valid : ndarray of bool
    setting : SsimSetting
    """
    width = setting.width_px
    if min(ground_truth.shape[-2:]) < width:
        return math.nan
    slicewise = ground_truth.ndim == 3 and ground_truth.shape[0] < width
    if valid.all():
        return ssim(prediction, ground_truth, data_range=1.0, setting=setting, slicewise=slicewise)
    if slicewise:
        planes = [
            masked_ssim(*plane, setting=setting)
            for plane in zip(prediction, ground_truth, valid, strict=True)
        ]
        known = [plane for plane in planes if not math.isnan(plane)]
        return float(np.mean(known)) if known else math.nan
    from scipy.ndimage import minimum_filter
    from skimage.metrics import structural_similarity

    _, local = structural_similarity(
        np.where(valid, ground_truth, 0.0),
        np.where(valid, prediction, 0.0),
        data_range=1.0,
        full=True,
        **setting.window,
    )
    # Windows that reach beyond the border or into a hole compare made-up pixels.
    counted = minimum_filter(valid, size=width, mode="constant", cval=False)
    return float(local[counted].mean()) if counted.any() else math.nan


_MS_WINDOW, _MS_SIGMA = 11, 1.5


def ms_ssim(prediction: Array, ground_truth: Array, *, data_range: float = 1.0) -> float:
    """Multi-scale structural similarity.

    Parameters
    ----------
    prediction, ground_truth : ndarray, shape ([Z,] Y, X)
        At least 11 pixels along Y and X; a stack is the mean of its planes.
    data_range : float

    Returns
    -------
    float
        1 for equal images.

    Notes
    -----
    Wang, Simoncelli and Bovik 2003: Gaussian window of 11 pixels and sigma 1.5 without a border, halving by
    2 x 2 means, five scales. An image too small for five (below 176 pixels) gets as many as fit, with
    their weights scaled to sum to 1. Negative contrast-structure terms count as 0.
    """
    if prediction.ndim == 3:
        planes = zip(prediction, ground_truth, strict=True)
        return float(np.mean([ms_ssim(*plane, data_range=data_range) for plane in planes]))
    smallest = min(ground_truth.shape)
    if smallest < _MS_WINDOW:
        raise InputError(f"MS-SSIM needs {_MS_WINDOW} pixels along Y and X; received {ground_truth.shape}")
    scales = min(len(MS_SSIM_WEIGHTS), int(math.log2(smallest / _MS_WINDOW)) + 1)
    weights = np.asarray(MS_SSIM_WEIGHTS[:scales])
    if scales < len(MS_SSIM_WEIGHTS):
        weights = weights / weights.sum()
    given, truth = np.asarray(prediction, np.float64), np.asarray(ground_truth, np.float64)
    result = 1.0
    for scale, weight in enumerate(weights):
        structure, full = _ssim_parts(given, truth, data_range)
        term = full if scale == scales - 1 else structure
        result *= max(term, 0.0) ** float(weight)
        given, truth = _halved(given), _halved(truth)
    return result


def _ssim_parts(given: Array, truth: Array, data_range: float) -> tuple[float, float]:
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_g, mean_t = _window_mean(given), _window_mean(truth)
    variance = _window_mean(given**2 + truth**2) - mean_g**2 - mean_t**2
    covariance = _window_mean(given * truth) - mean_g * mean_t
    structure = (2 * covariance + c2) / (variance + c2)
    luminance = (2 * mean_g * mean_t + c1) / (mean_g**2 + mean_t**2 + c1)
    return float(structure.mean()), float((structure * luminance).mean())


def _window_mean(image: Array) -> Array:
    from scipy.ndimage import correlate1d

    place = np.arange(_MS_WINDOW) - _MS_WINDOW // 2
    weights = np.exp(-(place**2) / (2 * _MS_SIGMA**2))
    weights /= weights.sum()
    rim = _MS_WINDOW // 2
    smooth = correlate1d(correlate1d(image, weights, axis=0), weights, axis=1)
    return np.asarray(smooth[rim : image.shape[0] - rim, rim : image.shape[1] - rim])


def _halved(image: Array) -> Array:
    height, width = (size // 2 * 2 for size in image.shape)
    blocks: Array = image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return blocks


def frc(prediction: Array, ground_truth: Array) -> tuple[Array, Array]:
    """Fourier ring correlation between a prediction and its ground truth.

    Parameters
    ----------
    prediction, ground_truth : ndarray, shape ([Z,] Y, X)
        The rings of a stack's planes are summed.

    Returns
    -------
    frequency : ndarray
        Centres of the rings in cycles a pixel, 0 excluded, up to 0.5.
    correlation : ndarray
        -1 to 1.

    Notes
    -----
    A Hann window stands against edges. It says up to where a prediction carries the truth's structure at all;
    a linear filter without zeros does not change it, so that a blurred image can have a good FRC.
    """
    given = prediction.reshape(-1, *prediction.shape[-2:])
    truth = ground_truth.reshape(-1, *ground_truth.shape[-2:])
    height, width = truth.shape[-2:]
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    spectra = [
        np.fft.rfft2((planes - planes.mean(axis=(1, 2), keepdims=True)) * window) for planes in (given, truth)
    ]
    rings = min(height, width) // 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    ring = np.rint(radius * 2 * rings).astype(int)

    def total(values: NDArray[np.generic]) -> Array:
        counts = np.bincount(ring.ravel(), np.real(values).sum(axis=0).ravel(), minlength=rings + 1)
        return np.asarray(counts[1 : rings + 1])

    cross = total(spectra[0] * np.conj(spectra[1]))
    power = total(np.abs(spectra[0]) ** 2) * total(np.abs(spectra[1]) ** 2)
    correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
    return np.arange(1, rings + 1) / (2 * rings), correlation


def frc_resolution_px(frequency: Array, correlation: Array, *, threshold: float = FRC_THRESHOLD) -> float:
    """Period in pixels at which a ring correlation first falls below the threshold; 2 if it never does.

    Notes
    -----
    Smoothed over three rings first: single rings near the threshold are noise.
    """
    from scipy.ndimage import uniform_filter1d

    smooth = uniform_filter1d(correlation, 3, mode="nearest")
    below = np.flatnonzero(smooth < threshold)
    if not below.size:
        return float(1 / frequency[-1])
    first = int(below[0])
    if first == 0:
        return float(1 / frequency[0])
    before, after = smooth[first - 1], smooth[first]
    share = (before - threshold) / (before - after)
    return float(1 / (frequency[first - 1] + share * (frequency[first] - frequency[first - 1])))


def summarise(values: Sequence[float]) -> Summary:
    """Mean over images with its 95 % interval; one or two images have none.

    Notes
    -----
    Student's t: images are the sample, not pixels, so the interval speaks about further images of this kind.
    """
    known = np.asarray([value for value in values if not math.isnan(value)], np.float64)
    if not known.size:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(known.mean())
    if known.size == 1 or not np.isfinite(known).all():
        return Summary(known.size, mean, math.nan, math.nan, math.nan)
    sd = float(known.std(ddof=1))
    if known.size < MIN_INTERVAL:
        return Summary(known.size, mean, sd, math.nan, math.nan)
    from scipy.special import stdtrit  # Student's quantile without the second that scipy.stats takes to load

    half = float(stdtrit(known.size - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(known.size)
    return Summary(known.size, mean, sd, mean - half, mean + half)


def paired_test(
    first: Sequence[float], second: Sequence[float], *, higher_is_better: bool = True
) -> PairedTest:
    """Whether two ways of restoring the same images differ.

    Parameters
    ----------
    first, second : sequence of float
        One score an image, in the same order.
    higher_is_better : bool
    """
    if len(first) != len(second):
        raise InputError(f"paired scores need equal lengths; received {len(first)} and {len(second)}")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    differences = np.asarray([a - b for a, b in pairs])
    signed = differences if higher_is_better else -differences
    p_value = math.nan
    if len(pairs) >= MIN_IMAGES and np.any(differences):
        from scipy.stats import wilcoxon

        p_value = float(wilcoxon(differences).pvalue)
    elif len(pairs) >= MIN_IMAGES:
        p_value = 1.0
    mean = float(differences.mean()) if pairs else math.nan
    return PairedTest(len(pairs), mean, int(np.count_nonzero(signed > 0)), p_value)


def _unflatten(flat: Array, valid: Mask) -> Array:
    image = np.zeros(valid.shape)
    image[valid] = flat
    return image
