"""Why two results differ: where the differences lie, and which convention makes them vanish.

Two ways of finding out. `diagnose` looks at two results and at where tiles begin, and needs no network.
`explain` runs the network again under other conventions (percentile rule, floor at zero, tiles, axis
order, number type) and names the one that gives the other side's result. `stepwise` climbs from the bare
network to repeated application and says at every rung how far the two sides are apart, and what following
csbdeep instead of Fiji would cost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
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
from care_bridge.predictor import PredictOptions, Predictor, mean_channels
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles

AGREE = "agree"
NAN = "NaN"
LOST_ROWS = "lost rows"
OVERLAP = "overlap below the receptive field"
SHIFTED = "overlap shifts the pooling"
MIRRORED_BORDER = "mirrored border"
PERCENTILE_RULE = "percentile rule"
DEEPIMAGEJ = "deepImageJ's percentiles"
PERCENTILES = "percentiles"
FLOOR = "floor at zero"
POOLING = "pooled channels"
NOT_NORMALIZED = "normalisation missing"
NOT_SCALED_BACK = "not scaled back"
DTYPE = "number type"
AXIS_ORDER = "axis order"
OPERATION = "TensorFlow operation"
NORMALIZATION = "normalisation"
UNKNOWN = "unknown"

OPERATION_LIMIT = 1e-4
"""Of the result's range: what other builds, threads and instructions of TensorFlow differ by; 2e-5 is what is seen."""


@dataclass(frozen=True)
class Geometry:
    """Where one side cut the image.

    Attributes
    ----------
    seams : mapping of str to sequence of int
        First pixel after each border between tiles, by axis.
    lost : mapping of str to int
        Rows at the far end that never reached the network, by axis.
    halo_px : mapping of str to int
        Receptive field in pixels a side, by axis of space.
    overlap_px : int, optional
        Margin of the tiles.
    mirrored : bool
        Whether the border of the image saw its mirror image on one side only.
    size_multiple : mapping of str to int
        2^depth of the network, by axis of space: where tiles must begin.
    """

    seams: Mapping[str, Sequence[int]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    halo_px: Mapping[str, int] = field(default_factory=dict)
    overlap_px: int | None = None
    mirrored: bool = False
    size_multiple: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """How far two results are apart, where, and what it comes from.

    Attributes
    ----------
    max_abs, mean_abs, rmse : float
        candidate - reference, in units of the results. Equal infinities and NaN on both sides are no difference;
        NaN or another infinity on one side only is an infinite one.
    mismatched_ppm : float
        Elements that differ by more than the tolerance, per million.
    worst : tuple of int
        Where the largest difference is, in the order of `axes`.
    axes : str
    tolerance : float
        Largest difference that is none.
    to_seam_px : int, optional
        From the worst place to the nearest border between tiles; None where nothing was cut.
    to_border_px : int
        From there to the nearest border of the image.
    cause : str
        One of this module's words.
    words : str
        The cause in a sentence.
    """

    max_abs: float
    mean_abs: float
    rmse: float
    mismatched_ppm: float
    worst: tuple[int, ...]
    axes: str
    tolerance: float
    to_seam_px: int | None
    to_border_px: int
    cause: str
    words: str

    @property
    def passed(self) -> bool:
        """Whether the largest difference is within the tolerance; an infinite one never is."""
        return _within(self.max_abs, self.tolerance)

    def __str__(self) -> str:
        return f"{self.cause}: {self.words} (max {self.max_abs:.2e} at {self.place}, {self.distances})"

    @property
    def place(self) -> str:
        """The worst place as people read it: "y=2 x=3"."""
        return " ".join(f"{axis.lower()}={index}" for axis, index in zip(self.axes, self.worst, strict=True))

    @property
    def distances(self) -> str:
        """How far the worst place is from where tiles and the image end."""
        seam = "" if self.to_seam_px is None else f"{self.to_seam_px} px from a tile border, "
        return f"{seam}{self.to_border_px} px from the image border"


# ---- from two results alone


def diagnose(
    reference: Image,
    candidate: Image,
    *,
    geometry: Geometry | None = None,
    tolerance: float = 1e-5,
) -> Finding:
    """Measure how far two results are apart, and say why, from where and how they differ.

    Parameters
    ----------
    reference, candidate : Image
        The same axes in any order.
    geometry : Geometry, optional
        Where the candidate was cut.
    tolerance : float
        Largest difference that is none.

    Returns
    -------
    Finding

    Raises
    ------
    InputError
        If the two do not have the same axes.
    """
    geometry = geometry or Geometry()
    candidate = _same_letters(reference, candidate)
    if candidate.shape != reference.shape:
        return _unequal_shapes(reference, candidate, tolerance)
    pair = _Pair.of(reference, candidate, tolerance)
    cause, words = _cause(pair, geometry)
    return Finding(
        max_abs=pair.largest,
        mean_abs=float(pair.size.mean()),
        rmse=float(np.sqrt(np.mean(np.square(pair.size)))),
        mismatched_ppm=float(np.mean((pair.size > tolerance) | np.isinf(pair.size)) * 1e6),
        worst=pair.worst,
        axes=pair.axes,
        tolerance=tolerance,
        to_seam_px=_to_seam(pair.worst, pair.axes, geometry),
        to_border_px=_to_border(pair.worst, pair.axes, pair.size.shape),
        cause=cause,
        words=words,
    )


def residual(reference: Image, candidate: Image) -> NDArray[np.float64]:
    """Candidate - reference, in the order of the reference's axes.

    Returns
    -------
    ndarray
        0 also where both are NaN or the same infinity; NaN or infinite where one side alone is.
    """
    candidate = _same_letters(reference, candidate)
    return _minus(candidate.data.astype(np.float64), reference.data.astype(np.float64))


def _minus(second: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        difference: NDArray[np.float64] = second - first
    difference[(np.isnan(first) & np.isnan(second)) | (first == second)] = 0
    return difference


def _sizes(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.abs(_minus(second, first))
    size[np.isnan(size)] = np.inf
    return size


def _within(largest: float, tolerance: float) -> bool:
    return bool(np.isfinite(largest)) and largest <= tolerance


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two results of one shape and order of axes, and how far each pixel is apart."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    axes: str
    tolerance: float
    size: NDArray[np.float64]
    worst: tuple[int, ...]

    @classmethod
    def of(cls, reference: Image, candidate: Image, tolerance: float) -> _Pair:
        first, second = reference.data.astype(np.float64), candidate.data.astype(np.float64)
        size = _sizes(first, second)
        worst = tuple(int(index) for index in np.unravel_index(int(np.argmax(size)), size.shape))
        return cls(first, second, reference.axes, tolerance, size, worst)

    @property
    def largest(self) -> float:
        return float(self.size[self.worst])

    @property
    def span(self) -> float:
        """The range of the reference."""
        return _span(self.first)

    @property
    def finite(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        both = np.isfinite(self.first) & np.isfinite(self.second)
        return self.first[both], self.second[both]


def _same_letters(reference: Image, candidate: Image) -> Image:
    if sorted(reference.axes) != sorted(candidate.axes):
        raise InputError(
            f"the results have axes {reference.axes!r} {reference.shape} and {candidate.axes!r} {candidate.shape}; "
            "they cannot be compared pixel by pixel"
        )
    order = [candidate.axes.index(axis) for axis in reference.axes]
    return candidate.replace(data=candidate.data.transpose(order), axes=reference.axes)


def _unequal_shapes(reference: Image, candidate: Image, tolerance: float) -> Finding:
    if sorted(reference.shape) == sorted(candidate.shape):
        words = f"the sizes {reference.shape} and {candidate.shape} are the same in another order: axes were mixed up"
        cause = AXIS_ORDER
    else:
        words, cause = f"the sizes {reference.shape} and {candidate.shape} differ", UNKNOWN
    return Finding(
        max_abs=np.inf,
        mean_abs=np.inf,
        rmse=np.inf,
        mismatched_ppm=1e6,
        worst=(0,) * reference.data.ndim,
        axes=reference.axes,
        tolerance=tolerance,
        to_seam_px=None,
        to_border_px=0,
        cause=cause,
        words=words,
    )


def _span(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if finite.size and np.ptp(finite) else 1.0


def _along(distance: NDArray[np.float64], axis: int, ndim: int) -> NDArray[np.float64]:
    return distance.reshape([-1 if d == axis else 1 for d in range(ndim)])


def _seam_distances(size: int, seams: Sequence[int]) -> NDArray[np.float64]:
    rows = np.arange(size)
    distances = [np.where(rows >= seam, rows - seam, seam - 1 - rows) for seam in seams]
    return np.min(distances, axis=0).astype(np.float64) if distances else np.full(size, np.inf)


def _near_seam(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    near = np.zeros(shape, bool)
    for d, axis in enumerate(axes):
        if geometry.seams.get(axis):
            reach = geometry.halo_px.get(axis, 0)
            near |= _along(_seam_distances(shape[d], geometry.seams[axis]), d, len(shape)) < reach
    return near


def _near_border(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    near = np.zeros(shape, bool)
    for d, axis in enumerate(axes):
        if axis in SPACE:
            rows = np.arange(shape[d])
            distance = np.minimum(rows, shape[d] - 1 - rows).astype(np.float64)
            near |= _along(distance, d, len(shape)) < geometry.halo_px.get(axis, 0)
    return near


def _in_lost(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    for d, axis in enumerate(axes):
        if geometry.lost.get(axis):
            inside |= (
                _along((np.arange(shape[d]) >= shape[d] - geometry.lost[axis]).astype(float), d, len(shape))
                > 0
            )
    return inside


def _to_seam(place: Sequence[int], axes: str, geometry: Geometry) -> int | None:
    found = [
        index - seam if index >= seam else seam - 1 - index
        for index, axis in zip(place, axes, strict=True)
        for seam in geometry.seams.get(axis, ())
    ]
    return min(found, default=None)


def _to_border(place: Sequence[int], axes: str, shape: Sequence[int]) -> int:
    found = [
        min(index, size - 1 - index)
        for index, axis, size in zip(place, axes, shape, strict=True)
        if axis in SPACE
    ]
    return min(found, default=0)


def _cause(pair: _Pair, geometry: Geometry) -> tuple[str, str]:
    if _within(pair.largest, pair.tolerance):
        return AGREE, f"no pixel differs by more than {pair.tolerance:g}"
    if np.isinf(pair.largest):
        count = int(np.isinf(pair.size).sum())
        return NAN, f"{count} pixels are NaN or infinite on one side only; look for NaN in the input"
    # Whole-image relations first: they too have their worst pixel somewhere.
    for look in (_number_type, _other_order, _affine):
        found = look(pair)
        if found:
            return found
    span = pair.span
    placed = _by_place(pair, geometry, max(pair.tolerance, OPERATION_LIMIT * span / 10))
    if placed:
        return placed
    if pair.largest <= OPERATION_LIMIT * span:
        return OPERATION, (
            f"differences of at most {pair.largest / span:.0e} of the range, everywhere: the arithmetic of another "
            "TensorFlow, processor or number of threads"
        )
    off_grid = _off_the_grid(geometry)
    if off_grid:
        multiple = " and ".join(f"{geometry.size_multiple[axis]} along {axis}" for axis in off_grid)
        return SHIFTED, (
            f"differences all over the image, as tiles give that begin off the network's pooling grid: margins of "
            f"{geometry.overlap_px} px, where multiples of {multiple} are needed (care-bridge advise)"
        )
    shifted = "; or sizes were filled up at other ends, which shifts the pooling" if geometry.mirrored else ""
    return NORMALIZATION, (
        "differences all over the image: the two sides did not feed the network the same values; "
        f"compare the percentile rule, the percentiles and the floor at zero{shifted}"
    )


def _off_the_grid(geometry: Geometry) -> list[str]:
    """Axes along which some tile begins between two places of the pooling grid."""
    margin = geometry.overlap_px or 0
    return [
        axis
        for axis, seams in geometry.seams.items()
        if any((seam - margin) % geometry.size_multiple.get(axis, 1) for seam in (0, *seams))
    ]


def _by_place(pair: _Pair, geometry: Geometry, noise: float) -> tuple[str, str] | None:
    size, axes, worst, shape = pair.size, pair.axes, pair.worst, pair.size.shape
    lost, seam = _in_lost(shape, axes, geometry), _near_seam(shape, axes, geometry)
    border = _near_border(shape, axes, geometry) if geometry.mirrored or any(geometry.lost.values()) else None
    rest = ~(lost | seam | (border if border is not None else False))
    if (size[rest].max() if rest.any() else 0) > noise:
        return None
    if lost.any() and size[lost].max() > noise and (lost[worst] or size[lost].max() > 0.5 * size[worst]):
        rows = " and ".join(f"the last {count} of {axis}" for axis, count in geometry.lost.items() if count)
        return LOST_ROWS, (
            f"{rows} never reached the network and hold mirrored results; choose nTiles or blockMultiple so that "
            "the size divides (care-bridge advise)"
        )
    inner_seam = seam & ~border if border is not None else seam
    if inner_seam.any() and size[inner_seam].max() > noise and (border is None or not border[worst]):
        need = max(geometry.halo_px.values(), default=0)
        return OVERLAP, (
            f"only pixels near tile borders differ: the overlap of {geometry.overlap_px} px is below the receptive "
            f"field of {need} px"
        )
    if border is not None and size[border].max() > noise:
        more = (
            "; pixels near tile borders differ too"
            if inner_seam.any() and size[inner_seam].max() > noise
            else ""
        )
        return MIRRORED_BORDER, (
            "only pixels near the image's border differ: tiles (and filling up) show the network a mirrored image "
            f"there, a whole image shows it zeros or reflections{more}"
        )
    return None


def _number_type(pair: _Pair) -> tuple[str, str] | None:
    first, second = pair.finite
    if not np.array_equal(second, np.round(second)) or np.array_equal(first, np.round(first)):
        return None
    for bits in (8, 16):
        top = 2**bits
        cut = np.floor(first) % top
        clipped = np.clip(np.round(first), 0, top - 1)
        if (second != clipped).any() and np.mean(np.abs(second - cut) <= 1) > 0.99:
            return DTYPE, f"the candidate was wrapped into {bits}-bit integers; round and clip before saving"
    rounded = np.abs(second - np.clip(first, second.min(), second.max())) <= 0.5 + pair.tolerance
    if rounded.mean() > 0.99:
        if np.unique(second).size <= 3 < pair.span:
            return DTYPE, "the candidate holds hardly any values: it was saved as integers"
        return DTYPE, (
            f"the candidate holds whole numbers only ({np.unique(second).size} of them): it was rounded to integers"
        )
    return None


def _other_order(pair: _Pair) -> tuple[str, str] | None:
    first, second = pair.first, pair.second
    limit = max(pair.tolerance, OPERATION_LIMIT * pair.span)
    for order in itertools.permutations(range(first.ndim)):
        if order == tuple(range(first.ndim)) or second.transpose(order).shape != first.shape:
            continue
        if _sizes(first, second.transpose(order)).max() <= limit:
            swapped = "".join(pair.axes[place] for place in order)
            return AXIS_ORDER, f"the candidate's axes are mixed up: {pair.axes} was read as {swapped}"
    for d, axis in enumerate(pair.axes):
        if _sizes(first, np.flip(second, d)).max() <= limit < pair.largest:
            return AXIS_ORDER, f"the candidate runs along {axis} in the other direction"
    return None


def _affine(pair: _Pair) -> tuple[str, str] | None:
    x, y = pair.finite
    if x.size < 3 or not x.std() or not y.std():
        return None
    factor = float(np.mean((x - x.mean()) * (y - y.mean())) / np.var(x))
    offset = float(y.mean() - factor * x.mean())
    left = np.abs(y - factor * x - offset).max()
    if left > 2e-5 * np.ptp(y):
        return None
    if abs(factor - 1) < 1e-6 and abs(abs(offset) - 32768) < 1:
        return DTYPE, "the candidate is offset by 32768: signed 16-bit values were read without their offset"
    if abs(factor - 1) < 1e-3 and abs(offset) < 1e-3 * pair.span:
        return None
    return NOT_SCALED_BACK, (
        f"the candidate is {factor:.6g} x the reference {'+' if offset >= 0 else '-'} {abs(offset):.6g}, everywhere: "
        "one side was scaled back to the raw range and the other not"
    )


# ---- by trying conventions


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
    limit = max(tolerance, OPERATION_LIMIT / 5 * _span(expected.data.astype(np.float64)))
    best: tuple[float, Convention] | None = None
    for convention in (*more, *conventions(reference, image)):
        try:
            left = diagnose(convention.result(), candidate, tolerance=tolerance).max_abs
        except InputError:
            continue
        if left <= limit and left < 0.1 * plain.max_abs and (best is None or left < best[0]):
            best = left, convention
        if left == 0:
            break
    if best is None:
        return plain
    words = f"the candidate {best[1].words}; then both agree to {best[0]:.1e}"
    return replace(plain, cause=best[1].cause, words=words)


def prices(
    reference: NetworkPredictor,
    image: Image,
    *,
    geometry: Geometry | None = None,
    tolerance: float = 1e-5,
    progress: Progress = silent,
) -> tuple[tuple[Convention, Finding], ...]:
    """What each convention costs: how far the result moves when that one is changed and all others are kept.

    Parameters
    ----------
    reference : NetworkPredictor
        Where the price is counted from, e.g. Fiji's way.
    image : Image
    geometry : Geometry, optional
        Where `reference` cuts.
    tolerance : float
    progress : Progress

    Returns
    -------
    tuple of (Convention, Finding)
        The dearest first; conventions that give a result of other axes or size are left out.
    """
    expected = reference.predict(image)
    tried = list(conventions(reference, image))
    found = []
    for number, convention in enumerate(tried):
        progress(number, len(tried), "conventions")
        try:
            finding = diagnose(expected, convention.result(), geometry=geometry, tolerance=tolerance)
        except InputError:
            continue
        found.append((convention, finding))
    progress(len(tried), len(tried), "conventions")
    return tuple(sorted(found, key=lambda pair: -pair[1].rmse))


def conventions(reference: NetworkPredictor, image: Image) -> Iterator[Convention]:
    """Other ways in which the same network is commonly used, one change at a time.

    Parameters
    ----------
    reference : NetworkPredictor
        Whose conventions are changed.
    image : Image
    """
    options = reference.options

    def run(changed: PredictOptions, data: Image = image) -> Callable[[], Image]:
        return lambda: reference.with_options(changed).predict(data)

    rule, pmin, pmax = options.rule, options.pmin, options.pmax
    if rule is not None:
        low = rule.percentiles[0] if pmin is None else pmin
        high = rule.percentiles[1] if pmax is None else pmax
        for other in PercentileRule:
            if other is rule:
                continue
            same = options.replace(rule=other, pmin=low, pmax=high)
            words = f"takes percentiles {low:g} and {high:g} by the rule of {other}, not of {rule}"
            yield Convention(PERCENTILE_RULE, words, run(same))
        java = run(
            options.replace(rule=None, pmin=None, pmax=None, denormalize=False),
            _as_deepimagej(image, low, high),
        )
        words = f"takes percentiles {low:g} and {high:g} as deepImageJ does: rank floor(n p), + 1e-6, no floor at zero"
        yield Convention(DEEPIMAGEJ, words, java)
        if rule is FIJI:
            unfloored = _without_floor(image, low, high)
            no_floor = run(options.replace(rule=None, pmin=None, pmax=None), unfloored)
            yield Convention(FLOOR, "does not cut off at zero below the lower percentile", no_floor)
        else:
            floored = _with_floor(image, rule, low, high)
            cut = run(options.replace(rule=None, pmin=None, pmax=None, denormalize=False), floored)
            yield Convention(FLOOR, "cuts off at zero below the lower percentile", cut)
        for pair in ((2.0, 99.8), (3.0, 99.8), (1.0, 99.8), (0.0, 100.0), (1.0, 99.9)):
            if pair != (low, high):
                words = f"takes percentiles {pair[0]:g} and {pair[1]:g}, not {low:g} and {high:g}"
                yield Convention(PERCENTILES, words, run(options.replace(pmin=pair[0], pmax=pair[1])))
        if rule is not CSBDEEP and "C" in image.axes:
            each = _each_channel(image, rule, low, high)
            raw = options.replace(rule=None, pmin=None, pmax=None)
            yield Convention(
                POOLING, "takes percentiles channel by channel, not of all together", run(raw, each)
            )
        if rule is CSBDEEP:
            raw = options.replace(rule=None, pmin=None, pmax=None, denormalize=False)
            pooled = run(raw, _pooled(image, low, high))
            yield Convention(POOLING, "takes percentiles of all channels together", pooled)
        yield Convention(
            NOT_NORMALIZED, "does not normalise", run(options.replace(rule=None, pmin=None, pmax=None))
        )
        turned = options.replace(denormalize=not options.denormalize)
        yield Convention(NOT_SCALED_BACK, "scales back otherwise than the reference", run(turned))
        by = "frame" if options.normalize_by == "image" else "image"
        one = options.replace(normalize_by=by)  # type: ignore[arg-type]
        yield Convention(PERCENTILES, f"takes percentiles by {by}", run(one))
    if image.dtype.itemsize > 2:
        as_float32 = image.replace(data=image.data.astype(np.float32))
        yield Convention(DTYPE, "was given the image as float32", run(options, as_float32))
    for name, top in (("uint8", 255), ("uint16", 65535)):
        clipped = image.replace(data=np.clip(np.rint(image.data.astype(np.float64)), 0, top))
        yield Convention(DTYPE, f"was given the image as {name}", run(options, clipped))
    yield from _reordered(image, options, run)
    if isinstance(options.tiles, FijiTiles) and options.tiles.n_tiles > 1:
        one_tile = FijiTiles(n_tiles=1, block_multiple=options.tiles.block_multiple, overlap=0)
        yield Convention(MIRRORED_BORDER, "was run in one tile", run(options.replace(tiles=one_tile)))
    yield Convention(MIRRORED_BORDER, "was padded as csbdeep does", run(options.replace(tiles=None)))


def _reordered(
    image: Image, options: PredictOptions, run: Callable[[PredictOptions, Image], Callable[[], Image]]
) -> Iterator[Convention]:
    for one, two in itertools.combinations(range(image.data.ndim), 2):
        if image.shape[one] == image.shape[two]:
            letters = f"{image.axes[one]} and {image.axes[two]}"
            swapped = image.replace(data=image.data.swapaxes(one, two))
            yield Convention(AXIS_ORDER, f"was given {letters} exchanged", run(options, swapped))
    if "T" in image.axes and "Z" not in image.axes:
        depth = run(options, image.replace(axes=image.axes.replace("T", "Z")))
        yield Convention(AXIS_ORDER, "read time as depth", lambda: _depth_as_time(depth()))
    for d, axis in enumerate(image.axes):
        turned = image.replace(data=np.flip(image.data, d))
        yield Convention(AXIS_ORDER, f"was given {axis} in the other direction", run(options, turned))


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


# ---- the ladder


@runtime_checkable
class Variable(Protocol):
    """A predictor whose normalisation and tiles can be chosen: `plugin.emulation.FijiPredictor` and its kin."""

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> Predictor: ...


@dataclass(frozen=True, eq=False)
class Rung:
    """One step of the ladder.

    Attributes
    ----------
    title : str
        What was added at this step.
    difference : Finding
        Candidate - reference, both following Fiji's conventions: what the runtimes differ by.
    cost : Finding
        csbdeep's way - Fiji's way, both by the reference's network: what the convention changes.
    residual : ndarray
        Candidate - reference, in the order of the reference's axes.
    """

    title: str
    difference: Finding
    cost: Finding
    residual: NDArray[np.float64]


def stepwise(
    *,
    reference: NetworkPredictor,
    candidate: Predictor,
    image: Image,
    tiles: FijiTiles | None = None,
    pmin: float = 3.0,
    pmax: float = 99.8,
    clip: bool = False,
    geometry: Geometry | None = None,
    tolerance: float = 1e-5,
    progress: Progress = silent,
) -> tuple[Rung, ...]:
    """Climb from the bare network to the second application, one convention a rung.

    Parameters
    ----------
    reference : NetworkPredictor
        Python's network; its own options are csbdeep's side of each rung, apart from the scaling back.
    candidate : Predictor
        Fiji's side. The rungs that take its normalisation or tiles away need its method `variant` (see
        `Variable`) and are left out without it: nothing is said of what did not run.
    image : Image
    tiles : FijiTiles, optional
        What the candidate is run with; None takes the plugin's defaults.
    pmin, pmax, clip
        The candidate's normalisation.
    geometry : Geometry, optional
        Where the candidate cuts; None works it out from `tiles`.
    tolerance : float
        Largest difference that is none, on the normalised scale.
    progress : Progress

    Returns
    -------
    tuple of Rung
        "network alone", "tiles", "normalisation", "second application, own result", "second application, same
        input", "second application, not normalised again".
    """
    tiles = tiles or FijiTiles()
    if reference.lost_axis:
        raise InputError("the ladder has no rungs for projection networks; compare the whole prediction")
    whole = FijiTiles(n_tiles=1, block_multiple=max(reference.size_multiple.values()), overlap=0)
    geometry = geometry or geometry_of(
        image, tiles, space=reference.space, halo=reference.halo, size_multiple=reference.size_multiple
    )
    bare = PredictOptions(rule=None, denormalize=False)
    fiji = PredictOptions(rule=FIJI, pmin=pmin, pmax=pmax, clip=clip, denormalize=False, tiles=tiles)
    csbdeep = reference.options.replace(denormalize=False)
    if csbdeep.rule is None or csbdeep.rule is FIJI:
        csbdeep = PredictOptions(denormalize=False)

    def here(options: PredictOptions) -> NetworkPredictor:
        return reference.with_options(options)

    def there(*, normalized: bool, cut: FijiTiles) -> Predictor:
        if isinstance(candidate, Variable):
            return candidate.variant(normalize=normalized, tiles=cut)
        return candidate

    fed = image.replace(data=normalize(image.data, rule=FIJI, pmin=pmin, pmax=pmax, clip=clip)[0])
    none = Geometry(halo_px=geometry.halo_px)
    total, rungs = 6, []

    def rung(
        title: str,
        first: Image,
        second: Image,
        other: Image,
        cut: Geometry,
        *,
        ways: tuple[NetworkPredictor, Image] | None = None,
    ) -> None:
        difference = diagnose(first, second, geometry=cut, tolerance=tolerance)
        if difference.cause in (NORMALIZATION, SHIFTED) and ways is not None:
            difference = explain(ways[0], second, ways[1], geometry=cut, tolerance=tolerance)
        cost = diagnose(first, other, geometry=cut, tolerance=tolerance)
        rungs.append(Rung(title, difference, cost, residual(first, second)))
        progress(len(rungs), total, "comparing")

    cut_here = here(bare.replace(tiles=tiles))
    variable = isinstance(candidate, Variable)
    if variable:
        alone = here(bare.replace(tiles=whole)).predict(fed)
        plain = here(bare).predict(fed)
        rung("network alone", alone, there(normalized=False, cut=whole).predict(fed), plain, none)
        in_tiles = cut_here.predict(fed)
        rung("tiles", in_tiles, there(normalized=False, cut=tiles).predict(fed), plain, geometry)

    follows = here(fiji)
    first = follows.predict(image)
    second = there(normalized=True, cut=tiles).predict(image)
    own_way = here(csbdeep)
    once = own_way.predict(image)
    rung("normalisation", first, second, once, geometry, ways=(follows, image))

    means_first, means_second = mean_channels(first, like=image), mean_channels(second, like=image)
    again = follows.predict(means_first)
    twice = own_way.predict(mean_channels(once, like=image))
    other = there(normalized=True, cut=tiles)
    rung("second application, own result", again, other.predict(means_second), twice, geometry)
    rung(
        "second application, same input",
        again,
        other.predict(means_first),
        own_way.predict(means_first),
        geometry,
    )

    if variable:
        kept = cut_here.predict(means_first)
        other = there(normalized=False, cut=tiles)
        rung("second application, not normalised again", kept, other.predict(means_first), again, geometry)
    return tuple(rungs)


def geometry_of(
    image: Image,
    tiles: FijiTiles,
    *,
    space: str,
    halo: Mapping[str, int],
    size_multiple: Mapping[str, int] | None = None,
) -> Geometry:
    """Where the plugin's tiles cut an image.

    Parameters
    ----------
    image : Image
    tiles : FijiTiles
    space : str
        The network's axes of space.
    halo : mapping of str to int
        Its receptive field in pixels a side.
    size_multiple : mapping of str to int, optional
        What its sizes must be multiples of; None takes one tile's beginning as good as another.
    """
    axes = space[::-1]
    shape = [image.size(axis) for axis in axes]
    layout = tiles.layout(shape, ["spatial"] * len(axes))
    seams = {axis: layout.seams(d) for d, axis in enumerate(axes) if layout.counts[d] > 1}
    lost = {axis: rows for axis, rows in zip(axes, layout.lost, strict=True) if rows}
    return Geometry(
        seams=seams,
        lost=lost,
        halo_px=dict(halo),
        overlap_px=tiles.overlap if seams else None,
        size_multiple=dict(size_multiple or {}),
        mirrored=bool(seams) or any(f != s for f, s in zip(layout.filled, shape, strict=True)),
    )


def twice_through_files(
    predictor: Predictor, image: Image, *, save: Callable[[Image], Image]
) -> tuple[Finding, Image, Image]:
    """What saving between two applications costs.

    Parameters
    ----------
    predictor : Predictor
    image : Image
    save : callable
        Writes an image and reads it again, e.g. as 16-bit TIFF.

    Returns
    -------
    Finding
        Second application of what was saved - of what was not.
    direct, saved : Image
        The two results.
    """
    first = mean_channels(predictor.predict(image), like=image)
    direct, saved = predictor.predict(first), predictor.predict(save(first))
    return diagnose(direct, saved), direct, saved
