"""Which convention makes a difference vanish: the same network run again, one convention changed at a time.

A convention is a percentile rule, a floor at zero, tiles, an order of axes, a number type. `explain` names the
one that gives the other side's result; `conventions` lists those that are in common use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from care_bridge.comparing.where import (
    AGREE,
    AXIS_ORDER,
    DEEPIMAGEJ,
    DTYPE,
    FLOOR,
    MIRRORED_BORDER,
    NAN,
    NOT_NORMALIZED,
    NOT_SCALED_BACK,
    OPERATION_LIMIT,
    PERCENTILE_RULE,
    PERCENTILES,
    POOLING,
    Finding,
    Geometry,
    diagnose,
    span_of,
)
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import (
    CSBDEEP,
    FIJI,
    PercentileRule,
    deepimagej_rank,
    normalize,
    percentile_range,
    values_at_ranks,
)
from care_bridge.tiling import FijiTiles

USUAL_PERCENTILES = ((2.0, 99.8), (3.0, 99.8), (1.0, 99.8), (0.0, 100.0), (1.0, 99.9))
"""Pairs in common use: csbdeep's and the plugin's defaults first."""


@dataclass(frozen=True, eq=False)
class Convention:
    """One way of bringing an image to the network and back.

    Attributes
    ----------
    cause : str
        What it is called when it explains a difference.
    words : str
        What the candidate did, as the end of "the candidate ...".
    result : callable
        Runs it.
    """

    cause: str
    words: str
    result: Callable[[], Image]


def explain(
    reference: NetworkPredictor,
    candidate: Image,
    image: Image,
    *,
    geometry: Geometry | None = None,
    tolerance: float = 1e-5,
    more: Sequence[Convention] = (),
) -> Finding:
    """Say why a result differs from a predictor's, by running its network under other conventions.

    Parameters
    ----------
    reference : NetworkPredictor
        The conventions that the candidate was thought to follow.
    candidate : Image
        The result that differs.
    image : Image
        What both were given.
    geometry : Geometry, optional
        Where the candidate was cut.
    tolerance : float
        Largest difference that is none, in units of the result.
    more : sequence of Convention
        Further ones to try, before the built-in ones.

    Returns
    -------
    Finding
        As `diagnose`; its cause is that of the convention under which the difference vanishes, where there
        is one.
    """
    expected = reference.predict(image)
    plain = diagnose(expected, candidate, geometry=geometry, tolerance=tolerance)
    if plain.cause in (AGREE, NAN, DTYPE) or (plain.cause == AXIS_ORDER and np.isinf(plain.max_abs)):
        return plain
    limit = max(tolerance, OPERATION_LIMIT / 5 * span_of(expected.data.astype(np.float64)))
    best: tuple[float, Convention] | None = None
    for convention, left in tried((*more, *conventions(reference, image)), candidate, tolerance=tolerance):
        if left <= limit and left < 0.1 * plain.max_abs and (best is None or left < best[0]):
            best = left, convention
        if left == 0:
            break
    if best is None:
        return plain
    words = f"the candidate {best[1].words}; then both agree to {best[0]:.1e}"
    return replace(plain, cause=best[1].cause, words=words)


def tried(
    these: Iterable[Convention], candidate: Image, *, tolerance: float = 1e-5
) -> Iterator[tuple[Convention, float]]:
    """Run conventions one after another.

    Parameters
    ----------
    these : iterable of Convention
    candidate : Image
        What their results are held against.
    tolerance : float
        Largest difference that is none.

    Yields
    ------
    Convention
    left : float
        Largest difference that is left under it. Conventions that the network or the image cannot follow, and
        those that give other axes, are left out.
    """
    for convention in these:
        try:
            left = diagnose(convention.result(), candidate, tolerance=tolerance).max_abs
        except InputError:
            continue
        yield convention, left


def conventions(reference: NetworkPredictor, image: Image) -> Iterator[Convention]:
    """Other ways in which the same network is commonly used, one change at a time.

    Parameters
    ----------
    reference : NetworkPredictor
        Whose conventions are changed.
    image : Image
    """
    trial = _Trial(reference, image)
    rule = reference.options.rule
    if rule is not None:
        yield from _percentile_rules(trial, rule)
        yield from _floors(trial, rule)
        yield from _percentiles(trial, rule)
        yield from _poolings(trial, rule)
        yield from _scalings(trial)
    yield from _number_types(trial)
    yield from _orders_of_axes(trial)
    yield from _borders(trial)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A network and an image, to be run with something changed."""

    reference: NetworkPredictor
    image: Image

    def run(self, image: Image | None = None, **changes: Any) -> Callable[[], Image]:
        """Run the network on this or another image, with some options changed."""
        options = self.reference.options.replace(**changes)
        return lambda: self.reference.with_options(options).predict(self.image if image is None else image)

    def run_as_it_is(self, image: Image, **changes: Any) -> Callable[[], Image]:
        """Run the network on an image that is normalised already."""
        return self.run(image, rule=None, pmin=None, pmax=None, **changes)

    def percentiles(self, rule: PercentileRule) -> tuple[float, float]:
        """The reference's own, the rule's where it names none."""
        pmin, pmax = self.reference.options.pmin, self.reference.options.pmax
        return rule.percentiles[0] if pmin is None else pmin, rule.percentiles[1] if pmax is None else pmax


def _percentile_rules(trial: _Trial, rule: PercentileRule) -> Iterator[Convention]:
    low, high = trial.percentiles(rule)
    for other in PercentileRule:
        if other is not rule:
            words = f"takes percentiles {low:g} and {high:g} by the rule of {other}, not of {rule}"
            yield Convention(PERCENTILE_RULE, words, trial.run(rule=other, pmin=low, pmax=high))
    java = trial.run_as_it_is(_as_deepimagej(trial.image, low, high), denormalize=False)
    words = f"takes percentiles {low:g} and {high:g} as deepImageJ does: rank floor(n p), + 1e-6, no floor at zero"
    yield Convention(DEEPIMAGEJ, words, java)


def _floors(trial: _Trial, rule: PercentileRule) -> Iterator[Convention]:
    low, high = trial.percentiles(rule)
    if rule is FIJI:
        unfloored = trial.run_as_it_is(_without_floor(trial.image, low, high))
        yield Convention(FLOOR, "does not cut off at zero below the lower percentile", unfloored)
    else:
        floored = trial.run_as_it_is(_with_floor(trial.image, rule, low, high), denormalize=False)
        yield Convention(FLOOR, "cuts off at zero below the lower percentile", floored)


def _percentiles(trial: _Trial, rule: PercentileRule) -> Iterator[Convention]:
    low, high = trial.percentiles(rule)
    for pair in USUAL_PERCENTILES:
        if pair != (low, high):
            words = f"takes percentiles {pair[0]:g} and {pair[1]:g}, not {low:g} and {high:g}"
            yield Convention(PERCENTILES, words, trial.run(pmin=pair[0], pmax=pair[1]))


def _poolings(trial: _Trial, rule: PercentileRule) -> Iterator[Convention]:
    low, high = trial.percentiles(rule)
    if rule is CSBDEEP:
        pooled = trial.run_as_it_is(_pooled(trial.image, low, high), denormalize=False)
        yield Convention(POOLING, "takes percentiles of all channels together", pooled)
    elif "C" in trial.image.axes:
        each = trial.run_as_it_is(_each_channel(trial.image, rule, low, high))
        yield Convention(POOLING, "takes percentiles channel by channel, not of all together", each)


def _scalings(trial: _Trial) -> Iterator[Convention]:
    options = trial.reference.options
    yield Convention(NOT_NORMALIZED, "does not normalise", trial.run_as_it_is(trial.image))
    turned = trial.run(denormalize=not options.denormalize)
    yield Convention(NOT_SCALED_BACK, "scales back otherwise than the reference", turned)
    by = "frame" if options.normalize_by == "image" else "image"
    yield Convention(PERCENTILES, f"takes percentiles by {by}", trial.run(normalize_by=by))


def _number_types(trial: _Trial) -> Iterator[Convention]:
    image = trial.image
    if image.dtype.itemsize > 2:
        as_float32 = image.replace(data=image.data.astype(np.float32))
        yield Convention(DTYPE, "was given the image as float32", trial.run(as_float32))
    for name, top in (("uint8", 255), ("uint16", 65535)):
        clipped = image.replace(data=np.clip(np.rint(image.data.astype(np.float64)), 0, top))
        yield Convention(DTYPE, f"was given the image as {name}", trial.run(clipped))


def _orders_of_axes(trial: _Trial) -> Iterator[Convention]:
    image = trial.image
    for one, two in itertools.combinations(range(image.data.ndim), 2):
        if image.shape[one] == image.shape[two]:
            letters = f"{image.axes[one]} and {image.axes[two]}"
            swapped = image.replace(data=image.data.swapaxes(one, two))
            yield Convention(AXIS_ORDER, f"was given {letters} exchanged", trial.run(swapped))
    if "T" in image.axes and "Z" not in image.axes:
        depth = trial.run(image.replace(axes=image.axes.replace("T", "Z")))
        yield Convention(AXIS_ORDER, "read time as depth", lambda: _depth_as_time(depth()))
    for d, axis in enumerate(image.axes):
        turned = image.replace(data=np.flip(image.data, d))
        yield Convention(AXIS_ORDER, f"was given {axis} in the other direction", trial.run(turned))


def _borders(trial: _Trial) -> Iterator[Convention]:
    tiles = trial.reference.options.tiles
    if isinstance(tiles, FijiTiles) and tiles.n_tiles > 1:
        one_tile = FijiTiles(n_tiles=1, block_multiple=tiles.block_multiple, overlap=0)
        yield Convention(MIRRORED_BORDER, "was run in one tile", trial.run(tiles=one_tile))
    yield Convention(MIRRORED_BORDER, "was padded as csbdeep does", trial.run(tiles=None))


def _depth_as_time(image: Image) -> Image:
    return image.replace(axes=image.axes.replace("Z", "T"), pixel_size_um={})


def _without_floor(image: Image, low: float, high: float) -> Image:
    lo, hi = (np.float32(value) for value in percentile_range(image.data, rule=FIJI, pmin=low, pmax=high))
    factor = np.float32(1) if float(hi - lo) < 0.0000001 else np.float32(1) / (hi - lo)
    return image.replace(data=(image.data.astype(np.float32) - lo) * factor)


def _with_floor(image: Image, rule: PercentileRule, low: float, high: float) -> Image:
    data, _ = normalize(image.data, rule=rule, axes=image.axes, pmin=low, pmax=high)
    return image.replace(data=np.maximum(data, 0))


def _each_channel(image: Image, rule: PercentileRule, low: float, high: float) -> Image:
    axis = image.axes.index("C")
    parts = [
        normalize(np.take(image.data, [c], axis), rule=rule, pmin=low, pmax=high)[0]
        for c in range(image.size("C"))
    ]
    return image.replace(data=np.concatenate(parts, axis))


def _as_deepimagej(image: Image, low: float, high: float) -> Image:
    """Its `scale_range` as packages of this project ask for it: each channel by itself."""
    channel = image.axes.find("C")
    parts = np.split(image.data, image.size("C"), channel) if channel >= 0 else [image.data]
    scaled = []
    for part in parts:
        values = part.astype(np.float32).astype(np.float64)
        bottom, top = values_at_ranks(values, [deepimagej_rank(values.size, p) for p in (low, high)])
        scaled.append(((values - bottom) / (top - bottom + 1e-6)).astype(np.float32))
    return image.replace(data=np.concatenate(scaled, max(channel, 0)))


def _pooled(image: Image, low: float, high: float) -> Image:
    return image.replace(data=normalize(image.data, rule=CSBDEEP, pmin=low, pmax=high)[0])
