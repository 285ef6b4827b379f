"""The noise of an image, measured in that image alone: how much, whether neighbours share it, how many photons.

Variance is held against brightness (the photon-transfer curve) in blocks that hold little structure, so one frame is
enough. Neighbours are compared along one axis after a second difference along the other: where noise is made by a camera
or by resampling the two are independent, while structure, blurred by optics, hardly survives. What a single image cannot
show is said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.errors import InputError
from care_bridge.images import Image, only_channel
from care_bridge.noise.blocks import Blocks, Plane, block_means, enlarged, lagged, second_difference
from care_bridge.noise.curve import BLOCK, Array, Curve, fit_curve, flattest
from care_bridge.noise.value import Noise, NoiseRange

MOST_PLANES = 8

MOST_IMAGES = 8
"""Of many images so many are measured, spread over all."""

_MOST_PIXELS = 1 << 22

_MOST_SIDE = 2048

_LEAST_BLOCKS = 30

_LAGS = 9
"""Neighbours are looked at up to this distance; at the last three noise is taken to be unrelated."""

_FLAT = 0.1
"""Share of the blocks, those with least structure for their noise, that correlation is measured in."""

_FLAT_BLOCKS = 200
"""In small images more of them, or chance would decide."""

_LOWEST = 0.01
"""Fewer pixels at the smallest value than this share say nothing."""

_KEPT = 0.05
"""A second difference of nearer neighbours than leave this share of the noise's variance says too little of it."""

_ROWS_AT = 0.1
"""Offsets of rows are shares of the noise at this part of the way from background to bright, as `simulate` has them."""

_FEW = 0.5
"""From so many different values a pixel on grey levels are continuous, however floats are spaced."""


def measure_noise(image: Image, *, channel: int | None = None) -> Noise:
    """Measure the noise of one channel of an image.

    Parameters
    ----------
    image : Image
        Of a stack or a movie up to 8 planes are taken together, evenly chosen; of large planes the middle 2048 x 2048.
    channel : int, optional
        From 0; needed where there are several.

    Returns
    -------
    Noise
        With what cannot be told left None, and said in `unknown`.

    Raises
    ------
    InputError
        If the image has several channels and none was named, or no such channel.

    Notes
    -----
    A camera is taken to add variance ``gain * light + constant``. On simulated images of 5 to 500 photons and white noise
    gain was within 15 % of the true one, correlation within 0.05; on sharp textures of more than 34 dB, and where
    neighbours share noise by 0.8, structure and noise are hard to tell apart and gain may be several times too large.
    """
    if channel is None and image.size("C") > 1:
        raise InputError(
            f"{image.name or 'the image'} has {image.size('C')} channels, whose noise differs; name one with channel="
        )
    one = only_channel(image, channel)
    return _measure(_planes(one))


def measure_channels(image: Image) -> tuple[Noise, ...]:
    """Measure the noise of each channel of an image by itself, as `measure_noise`."""
    return tuple(measure_noise(image, channel=number) for number in range(image.size("C")))


def measure_some(count: int, image: Callable[[int], Image]) -> list[Noise]:
    """Measure the noise of a few of many images: what a data set's noise is.

    Parameters
    ----------
    count : int
        How many images there are.
    image : callable
        Gives the image of a number below `count`; asked for those that are measured alone, `MOST_IMAGES` spread over all.

    Returns
    -------
    list of Noise
        One for each channel of each image that was measured.
    """
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(int))
    return [noise for number in chosen for noise in measure_channels(image(int(number)))]


def unlike(image: Image, trained: NoiseRange, *, measured: Sequence[Noise] | None = None) -> str:
    """What of an image's noise a model was not trained for, as one sentence.

    Parameters
    ----------
    image : Image
    trained : NoiseRange
        Of a model that knows nothing nothing is said, and nothing measured.
    measured : sequence of Noise, optional
        One a channel, where they were measured already.

    Returns
    -------
    str
        Empty where there is nothing to say.
    """
    if trained == NoiseRange():
        return ""
    each = [trained.covers(noise) for noise in measured or measure_channels(image)]
    said = [
        (f"in channel {number} " if len(each) > 1 else "") + sentence
        for number, sentences in enumerate(each)
        for sentence in sentences
    ]
    return "; ".join(said)


def _measure(planes: Sequence[Plane]) -> Noise:
    values = np.concatenate([plane.ravel() for plane in planes])
    step = _step(values)
    low, high = float(values.min()), float(values.max())
    saturated, lowest = _cut_off(values, high), _at_lowest(values, low)
    light: dict[str, Any] = {"saturated_share": saturated, "lowest_share": lowest, "step": step}
    if not high > low:
        why = f"every pixel is {low:g}: there is no noise to measure"
        return Noise(low, high, 0.0, 0.0, 0.0, unknown=(why,), **light)
    each = [Blocks(plane, low=low, high=high, lowest=lowest, saturated=saturated) for plane in planes]
    if sum(int(one.usable.sum()) for one in each) < _LEAST_BLOCKS:
        why = (
            "the image is too small, or too much of it is cut off, for its noise to be measured: "
            f"fewer than {_LEAST_BLOCKS} blocks of {BLOCK} x {BLOCK} pixels are left"
        )
        rough, dark, bright = _rough(values), *(float(np.percentile(values, at)) for at in (5, 99.8))
        return Noise(dark, bright, rough, rough, rough, unknown=(why,), **light)
    rounding = step**2 / 12
    level = np.concatenate([one.level[one.usable] for one in each])
    near = np.concatenate([one.mean_square(1, 1)[one.usable] for one in each])
    structure = np.concatenate([one.structure[one.usable] for one in each])
    near_curve = fit_curve(level, near, structure, area=0.0)
    flatness = structure / np.maximum(near_curve(level), 1e-12 * (high - low) ** 2)
    flat = max(int(_FLAT * len(flatness)), min(_FLAT_BLOCKS, len(flatness) // 2))
    limit = float(np.sort(flatness)[flat - 1])
    for one in each:
        one.weigh(near_curve, limit=limit, tiny=1e-12 * (high - low) ** 2)
    along_x, along_y = (_correlations(each, axis, rounding=rounding) for axis in (1, 0))
    unknown = []
    known = along_x is not None and along_y is not None
    if not known:
        unknown.append("whether neighbours share the noise cannot be told: rounding leaves none of it")
    of_x = along_x if along_x is not None else np.zeros(_LAGS)
    of_y = along_y if along_y is not None else np.zeros(_LAGS)
    apart = tuple(_apart(one) for one in (of_y, of_x))
    kept = _kept(of_y, apart[0]) * _kept(of_x, apart[1])
    measured = np.concatenate([one.mean_square(*apart)[one.usable] for one in each])
    variance = np.maximum(measured - rounding, 0) / kept + rounding
    area = float((1 + 2 * of_x.sum()) * (1 + 2 * of_y.sum()))
    curve = fit_curve(level, variance, structure, area=max(area, 1.0), base=near_curve, scale=1 / kept)
    darkest = flattest(np.argsort(level)[: max(20, len(level) // 20)], structure)
    background, dark_variance = float(level[darkest].mean()), float(variance[darkest].mean())
    bright = float(np.percentile(np.concatenate([one.smoothed.ravel() for one in each]), 99.8))
    line = curve.line()
    average = float(np.mean(values, dtype=np.float64))
    found: dict[str, Any] = {}
    if line is None or bright <= background:
        unknown.append(
            "gain and photons cannot be told: "
            + (
                "the blocks have about one brightness"
                if len(curve.level) < 3 or curve.level[-1] - curve.level[0] < 3 * math.sqrt(dark_variance)
                else "the variance does not rise with brightness"
            )
        )
        at_mean, at_bright = (max(float(curve(np.array([x]))[0]), 0.0) for x in (average, bright))
    else:
        gain, at_zero = line
        at_mean, at_bright = (max(gain * x + at_zero, dark_variance) for x in (average, bright))
        found = {
            "gain": gain,
            "variance_at_zero": at_zero,
            "read_noise": math.sqrt(dark_variance) / gain,
            "photons": (bright - background) / gain,
        }
    tenth = math.sqrt(max(float(curve(np.array([background + _ROWS_AT * (bright - background)]))[0]), 0.0))
    rows, columns = (
        _offsets(each, axis, curve, along=along, pixel=tenth) for axis, along in ((0, of_x), (1, of_y))
    )
    return Noise(
        background,
        bright,
        math.sqrt(dark_variance),
        math.sqrt(at_mean),
        math.sqrt(at_bright),
        **found,
        correlation_x=float(of_x[0]) if known else None,
        correlation_y=float(of_y[0]) if known else None,
        rows=rows,
        columns=columns,
        hot_share=_hot_share(each, curve, gain=found.get("gain", 0.0)),
        **light,
        detail_px=_detail_px(each[len(each) // 2].plane, at_mean, of_x, of_y),
        unknown=tuple(unknown),
    )


def _correlations(each: Sequence[Blocks], axis: int, *, rounding: float) -> Array | None:
    """Of the noise along an axis, at distances 1 to `_LAGS`; None where there is no noise left."""
    sums = np.zeros(_LAGS + 1)
    weights = 0.0
    for one in each:
        across = second_difference(one.plane, 1 - axis, 1)
        weights += float(one.weight.sum())
        for distance in range(_LAGS + 1):
            sums[distance] += float((block_means(lagged(across, axis, distance)) * one.weight).sum())
    whole = float(sums[0])
    # Rounding is white, whatever the noise is.
    sums[0] -= rounding * weights
    sums -= sums[-3:].mean()
    if not sums[0] > 0.1 * whole:
        return None
    found = sums[1:] / sums[0]
    return np.where(np.abs(found) < 0.02, 0.0, np.clip(found, -1, 1))


def _kept(correlations: Array, apart: int) -> float:
    """Share of the noise's variance that a second difference of pixels so far apart keeps."""
    near, far = (correlations[k - 1] if k <= len(correlations) else 0.0 for k in (apart, 2 * apart))
    return float((6 - 8 * near + 2 * far) / 6)


def _apart(correlations: Array) -> int:
    """Nearest neighbours whose second difference keeps enough of the noise: the nearer, the less structure."""
    for distance in range(1, _LAGS // 2):
        if _kept(correlations, distance) >= _KEPT:
            return distance
    return _LAGS // 2


def _offsets(each: Sequence[Blocks], axis: int, curve: Curve, *, along: Array, pixel: float) -> float:
    """How far whole rows (axis 0) or columns (1) are offset, as a share of a pixel's noise."""
    excess, by_chance, count = 0.0, 0.0, 0
    for one in each:
        rough = second_difference(one.plane, axis, 1)
        flat = one.usable & (
            one.structure <= np.median(one.structure[one.usable]) if one.usable.any() else False
        )
        spread = np.sqrt(np.maximum(curve(one.level), 1e-30))
        weight = enlarged(np.where(flat, 1 / spread, 0.0), one.plane.shape)
        standard = np.clip(rough * weight, -4, 4)
        total = weight.sum(axis=1 - axis)
        enough = (weight > 0).sum(axis=1 - axis) >= 2 * BLOCK
        if enough.sum() < 4 * BLOCK:
            continue
        means = (standard.sum(axis=1 - axis) / np.maximum(total, 1e-30))[enough]
        chance = (standard**2).sum(axis=1 - axis)[enough] / total[enough] ** 2 * max(1 + 2 * along.sum(), 0.1)
        # The median, because single rows at an edge of the structure stand far out.
        excess += float(np.median(means**2)) / 0.455 * len(means)
        by_chance += float(np.median(chance)) * len(means)
        count += len(means)
    if not count or pixel <= 0:
        return 0.0
    excess, by_chance = excess / count, by_chance / count
    if excess <= by_chance * (1.3 + 6 / math.sqrt(count)):
        return 0.0
    return math.sqrt(excess - by_chance) / pixel


def _hot_share(each: Sequence[Blocks], curve: Curve, *, gain: float) -> float:
    from scipy.ndimage import maximum_filter

    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    hot = 0
    for one in each:
        around = maximum_filter(one.plane, footprint=ring, mode="reflect")
        over = one.plane - around
        likely = np.flatnonzero(over > 6 * math.sqrt(max(float(curve.variance.min()), 0.0)))
        if not likely.size:
            continue
        spread = np.sqrt(np.maximum(curve(around.ravel()[likely].astype(np.float64)), 0))
        # Few photons come in clumps: one of them is no hot pixel.
        hot += int(np.count_nonzero(over.ravel()[likely] > 6 * spread + 8 * gain))
    return hot / sum(one.plane.size for one in each)


def _detail_px(plane: Plane, variance: float, of_x: Array, of_y: Array) -> float | None:
    """Half the period down to which the power spectrum is at least twice the noise's."""
    side = min(*plane.shape, 1024)
    top, left = ((size - side) // 2 for size in plane.shape)
    piece = plane[top : top + side, left : left + side]
    window = np.hanning(side).astype(np.float32)
    power = np.abs(np.fft.rfft2((piece - piece.mean()) * np.outer(window, window))) ** 2
    of_noise = (
        variance * float(np.sum(window**2)) ** 2 * np.outer(_spectrum(of_y, side), _spectrum(of_x, side))
    )
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    ring = np.minimum((frequency * side).astype(int), side // 2).ravel()
    counts = np.maximum(np.bincount(ring), 1)
    signal, noise = (
        np.bincount(ring, each.ravel())[: side // 2] / counts[: side // 2]
        for each in (power, of_noise[:, : side // 2 + 1])
    )
    signal = np.convolve(signal, np.ones(3) / 3, mode="same")
    below = np.flatnonzero(signal[1:-1] < 2 * noise[1:-1])
    if not below.size:
        return 1.0
    return None if below[0] == 0 else float(side / (2 * (below[0] + 1)))


def _spectrum(correlations: Array, side: int) -> Array:
    frequency = np.fft.fftfreq(side)
    waves = np.cos(2 * np.pi * np.outer(frequency, np.arange(1, len(correlations) + 1)))
    return np.asarray(np.maximum(1 + 2 * waves @ correlations, 0.0), np.float64)


def _planes(image: Image) -> list[Plane]:
    outer = "".join(letter for letter in image.axes if letter not in "YX")
    stack = move_axes(image.data, image.axes, outer + "YX")
    stack = stack.reshape(-1, *stack.shape[-2:])
    height, width = (min(size, _MOST_SIDE) for size in stack.shape[-2:])
    top, left = (stack.shape[1] - height) // 2, (stack.shape[2] - width) // 2
    most = max(1, min(MOST_PLANES, len(stack), _MOST_PIXELS // max(height * width, 1)))
    places = np.unique(np.linspace(0, len(stack) - 1, most + 2)[1:-1].round().astype(int))
    return [_filled(stack[place, top : top + height, left : left + width]) for place in places]


def _filled(plane: NDArray[Any]) -> Plane:
    values = np.array(plane, np.float32)
    valid = np.isfinite(values)
    if not valid.all():
        values[~valid] = values[valid].mean() if valid.any() else 0
    return values


def _step(values: Plane) -> float:
    """Between grey levels, where there are few enough of them to see it."""
    some = np.unique(values[:: max(1, values.size >> 16)].astype(np.float64))
    if not 1 < len(some) < _FEW * len(values[:: max(1, values.size >> 16)]):
        return 0.0
    gaps = np.diff(some)
    least = float(gaps.min())
    whole = gaps / least
    return least if float(np.abs(whole - np.rint(whole)).max()) < 1e-2 else 0.0


def _cut_off(values: Plane, most: float) -> float:
    """Share of the pixels at the largest value, where more are there than just below it."""
    at_most = int(np.count_nonzero(values == most))
    if at_most < max(5, 1e-5 * values.size):
        return 0.0
    span = most - float(values.min())
    below = int(np.count_nonzero((values < most) & (values >= most - 0.02 * span)))
    return at_most / values.size if at_most > below else 0.0


def _at_lowest(values: Plane, least: float) -> float:
    share = float(np.count_nonzero(values == least)) / values.size
    return share if share >= _LOWEST else 0.0


def _rough(values: Plane) -> float:
    """Noise of an image that is too small for more: from the differences of pixels that follow each other."""
    return float(np.median(np.abs(np.diff(values)))) / 0.6745 / math.sqrt(2) if values.size > 1 else 0.0
