"""Why two results differ, from the results alone: how far they are apart, where, and near which border.

Needs no network: `diagnose` looks at two results and at where tiles begin (`geometry_of`). What needs the network
to run again is in `conventions` and `ladder`; the words for causes are all here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
from care_bridge.errors import InputError
from care_bridge.images import Image
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
        place, distances = place_of(self.axes, self.worst), distances_of(self.to_seam_px, self.to_border_px)
        return f"{self.cause}: {self.words} (max {self.max_abs:.2e} at {place}, {distances})"


def place_of(axes: str, index: Sequence[int]) -> str:
    """A place in an image as people read it: "y=2 x=3"."""
    return " ".join(f"{axis.lower()}={number}" for axis, number in zip(axes, index, strict=True))


def distances_of(to_seam_px: int | None, to_border_px: int) -> str:
    """How far a place is from where tiles (None: nothing was cut) and the image end."""
    seam = "" if to_seam_px is None else f"{to_seam_px} px from a tile border, "
    return f"{seam}{to_border_px} px from the image border"


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
        return span_of(self.first)

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


def span_of(values: NDArray[np.float64]) -> float:
    """The range of the finite values; 1 where they are all the same."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if finite.size and np.ptp(finite) else 1.0


def _marked(shape: Sequence[int], axes: str, marks: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Elements that are marked along any of their axes."""
    found = np.zeros(shape, bool)
    for d, axis in enumerate(axes):
        if axis in marks:
            found |= marks[axis].reshape([-1 if d == other else 1 for other in range(len(shape))])
    return found


def _near_seam(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    marks = {}
    for size, axis in zip(shape, axes, strict=True):
        if geometry.seams.get(axis):
            rows = np.arange(size)
            distances = [
                np.where(rows >= seam, rows - seam, seam - 1 - rows) for seam in geometry.seams[axis]
            ]
            marks[axis] = np.min(distances, axis=0) < geometry.halo_px.get(axis, 0)
    return _marked(shape, axes, marks)


def _near_border(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    marks = {}
    for size, axis in zip(shape, axes, strict=True):
        if axis in SPACE:
            rows = np.arange(size)
            marks[axis] = np.minimum(rows, size - 1 - rows) < geometry.halo_px.get(axis, 0)
    return _marked(shape, axes, marks)


def _in_lost(shape: Sequence[int], axes: str, geometry: Geometry) -> NDArray[np.bool_]:
    marks = {
        axis: np.arange(size) >= size - geometry.lost.get(axis, 0)
        for size, axis in zip(shape, axes, strict=True)
    }
    return _marked(shape, axes, marks)


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
    border = np.zeros(shape, bool)
    if geometry.mirrored or any(geometry.lost.values()):
        border = _near_border(shape, axes, geometry)

    def differs(part: NDArray[np.bool_]) -> bool:
        return bool(part.any()) and float(size[part].max()) > noise

    if differs(~(lost | seam | border)):
        return None
    if differs(lost) and (lost[worst] or size[lost].max() > 0.5 * size[worst]):
        rows = " and ".join(f"the last {count} of {axis}" for axis, count in geometry.lost.items() if count)
        return LOST_ROWS, (
            f"{rows} never reached the network and hold mirrored results; choose nTiles or blockMultiple so that "
            "the size divides (care-bridge advise)"
        )
    at_seams = differs(seam & ~border)
    if at_seams and not border[worst]:
        need = max(geometry.halo_px.values(), default=0)
        return OVERLAP, (
            f"only pixels near tile borders differ: the overlap of {geometry.overlap_px} px is below the receptive "
            f"field of {need} px"
        )
    if differs(border):
        more = "; pixels near tile borders differ too" if at_seams else ""
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
