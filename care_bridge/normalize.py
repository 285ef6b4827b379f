"""Percentile normalisation: four readers, three rules, each under its own name.

======================  ===============================  ==========================  =================
                        CSBDEEP                          FIJI                        BIOIMAGEIO
======================  ===============================  ==========================  =================
percentile              linear between ranks             nearest rank, float32       linear
pooled over             everything but the channels      everything                  all but channels
formula                 (x - lo) / (hi - lo + 1e-20)     max(0, (x - lo) * factor)   ... + 1e-6
values below `lo`       negative                         0                           negative
default percentiles     2, 99.8                          3, 99.8                     0, 100
======================  ===============================  ==========================  =================
"""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from care_bridge.axes import check_axes
from care_bridge.errors import InputError


class PercentileRule(enum.Enum):
    """Whose arithmetic is followed."""

    CSBDEEP = "csbdeep"
    """`PercentileNormalizer` of Python's csbdeep."""
    FIJI = "fiji"
    """`PercentileNormalizer` of the CSBDeep plugin, bit for bit."""
    BIOIMAGEIO = "bioimageio"
    """`scale_range` of bioimageio.core."""

    @property
    def percentiles(self) -> tuple[float, float]:
        """The reader's default `pmin` and `pmax`."""
        return _DEFAULTS[self]

    def __str__(self) -> str:
        return self.value


CSBDEEP = PercentileRule.CSBDEEP
FIJI = PercentileRule.FIJI
BIOIMAGEIO = PercentileRule.BIOIMAGEIO

_DEFAULTS = {CSBDEEP: (2.0, 99.8), FIJI: (3.0, 99.8), BIOIMAGEIO: (0.0, 100.0)}
_EPS = {CSBDEEP: 1e-20, BIOIMAGEIO: 1e-6}

MAX_FIJI_PIXELS = 2**31 - 1
"""The plugin counts pixels in a Java int."""

_CHUNK = 1 << 22
_SMALL = 1 << 24
_NARROW = {"b1", "u1", "i1", "u2", "i2", "f2", "f4"}


class NotFinitePixelsWarning(UserWarning):
    """NaN or infinite pixels were left out of the percentiles (or, following Fiji, were not)."""


class SparseImageWarning(UserWarning):
    """Both percentiles are the same in an image that is not constant, so the maximum took the place of `high`."""


@dataclass(frozen=True, eq=False)
class Undo:
    """Gives back the raw range; what `normalize` returns beside the array.

    Attributes
    ----------
    rule : PercentileRule
    pmin, pmax : float
        Percentiles that were taken, 0-100.
    low, high : ndarray
        Raw intensities at the percentiles, float64; one a channel where the rule looks at channels one by
        one, else one.
    """

    rule: PercentileRule
    pmin: float
    pmax: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def span(self) -> NDArray[np.float64]:
        """Raw intensity of one normalised unit."""
        span = self.high - self.low
        if self.rule is FIJI:
            return np.where(span < 1e-7, 1.0, span)
        return span

    def __call__(
        self, data: NDArray[Any], axes: str | None = None, *, scale: bool = False
    ) -> NDArray[np.float32]:
        """Normalised values as raw intensities.

        Parameters
        ----------
        data : ndarray
            Values in normalised units, such as a network's output.
        axes : str, optional
            Axes of `data`; needed only where the channels were normalised one by one.
        scale : bool
            Whether these are widths (the scale of a probabilistic net): multiplied, not shifted.

        Returns
        -------
        ndarray of float32
            Where channels were normalised one by one and `data` has another number of channels, there is
            no way back, and the values are returned as they are, as csbdeep does.
        """
        low, span = self.low, self.span
        if low.size > 1:
            channel = -1 if axes is None else axes.upper().find("C")
            if channel < 0 or data.shape[channel] != low.size:
                return data.astype(np.float32)
            shape = [1] * data.ndim
            shape[channel] = low.size
            low, span = low.reshape(shape), span.reshape(shape)
        else:
            low, span = low.reshape(()), span.reshape(())
        out: NDArray[np.float32] = np.multiply(data, span.astype(np.float32), dtype=np.float32)
        if not scale:
            out += low.astype(np.float32)
        return out


def normalize(
    data: NDArray[Any],
    *,
    rule: PercentileRule = CSBDEEP,
    axes: str | None = None,
    pmin: float | None = None,
    pmax: float | None = None,
    clip: bool = False,
) -> tuple[NDArray[np.float32], Undo]:
    """Scale intensities so that two percentiles become 0 and 1.

    Parameters
    ----------
    data : ndarray
        Raw intensities; integers or floats.
    rule : PercentileRule
        Whose arithmetic is followed.
    axes : str, optional
        Axes of `data`. Where it holds a C, CSBDEEP and BIOIMAGEIO take percentiles channel by channel;
        None and axes without C pool everything. FIJI always pools everything.
    pmin, pmax : float, optional
        Percentiles, 0-100; None takes the rule's own default.
    clip : bool
        Whether to cut values off at 1 above (and 0 below; FIJI cuts off at 0 even without).

    Returns
    -------
    normalized : ndarray of float32
        Same shape.
    undo : Undo
        Called with an array, gives back the raw range.

    Raises
    ------
    InputError
        If the percentiles are not ordered within 0-100 (FIJI accepts any, as the plugin does), if the
        image is empty or holds nothing finite, or has more pixels than the plugin can count.

    Warns
    -----
    NotFinitePixelsWarning
        If there are NaN or infinite pixels. CSBDEEP and BIOIMAGEIO leave them out of the percentiles and
        keep them in the image. FIJI does what the plugin does: they take part in a sort that knows no
        order for them.
    SparseImageWarning
        If both percentiles are the same in an image that is not constant (a few bright spots on nothing).
        CSBDEEP and BIOIMAGEIO then take the image's maximum as the upper value, so that the spots stay
        finite and visible, where csbdeep itself divides by 1e-20.

    Notes
    -----
    CSBDEEP and BIOIMAGEIO subtract in float64 for types that float32 cannot hold (uint32, int32, 64 bit), and
    cast after. FIJI casts first, because the plugin does. FIJI: CSBDeep/CSBDeep_fiji,
    HistogramPercentile.java and PercentileNormalizer.java: nearest rank, float32, multiplication by the
    reciprocal, range below 1e-7 not scaled, always cut off at 0 from below.
    """
    data = np.asarray(data)
    if not data.size:
        raise InputError(f"the image is empty (shape {data.shape}); give one with pixels")
    pmin, pmax = _percentiles(rule, pmin, pmax)
    if rule is FIJI:
        pair = _fiji_range(data, pmin, pmax)
        undo = Undo(rule, float(pmin), float(pmax), *(np.array([value], np.float64) for value in pair))
    else:
        ranges = [_linear_range(plane, pmin, pmax) for plane in _planes_of(data, _channel(data, axes))]
        low, high = (np.array([pair[side] for pair in ranges]) for side in (0, 1))
        undo = Undo(rule, float(pmin), float(pmax), low, high)
    return normalize_by(data, undo, axes=axes, clip=clip), undo


def normalize_by(
    data: NDArray[Any], undo: Undo, *, axes: str | None = None, clip: bool = False
) -> NDArray[np.float32]:
    """Part of an image as `normalize` scales the whole, whose range is known.

    Parameters
    ----------
    data : ndarray
        Raw intensities, with all channels of the image.
    undo : Undo
        What `normalize` or `undo_of_blocks` gave for the whole.
    axes, clip
        As they were given there.

    Returns
    -------
    ndarray of float32
        The same values, to the last bit, as in the whole.
    """
    if undo.rule is FIJI:
        return _scale_fiji(data, np.float32(undo.low[0]), np.float32(undo.high[0]), clip)
    out = np.empty(data.shape, np.float32)
    channel = _channel(data, axes)
    for plane, where, low, high in zip(
        _planes_of(data, channel), _planes_of(out, channel), undo.low, undo.high, strict=True
    ):
        _scale_linear(plane, where, low=float(low), high=float(high), eps=_EPS[undo.rule], clip=clip)
    return out


Blocks = Callable[[], Iterable[tuple[int, NDArray[Any]]]]
"""Called again for each pass: all pixels of an image, in pieces of one channel each, with the channel's number."""


def undo_of_blocks(
    blocks: Blocks,
    *,
    dtype: DTypeLike,
    channels: int = 1,
    rule: PercentileRule = CSBDEEP,
    pmin: float | None = None,
    pmax: float | None = None,
) -> Undo:
    """The range of an image that does not fit into memory: the values that `normalize` finds, without a copy.

    Parameters
    ----------
    blocks : callable
        Gives the pixels; called once for 8 and 16 bits, twice for 32, four times for 64.
    dtype : dtype
        Of the pixels.
    channels : int
        How many there are. FIJI pools them.
    rule, pmin, pmax
        As for `normalize`.

    Returns
    -------
    Undo

    Raises
    ------
    InputError
        As `normalize`; also for NaN by the rule FIJI, whose order of them hangs on the whole image at once.

    Warns
    -----
    NotFinitePixelsWarning, SparseImageWarning
        As `normalize`.
    """
    pmin, pmax = _percentiles(rule, pmin, pmax)
    if rule is FIJI:
        found = _fiji_of_blocks(blocks, np.dtype(dtype), pmin, pmax)
        return Undo(rule, float(pmin), float(pmax), *(np.array([value], np.float64) for value in found))
    ranges = _linear_of_blocks(blocks, np.dtype(dtype), channels, pmin, pmax)
    low, high = (np.array([pair[side] for pair in ranges]) for side in (0, 1))
    return Undo(rule, float(pmin), float(pmax), low, high)


def _percentiles(rule: PercentileRule, pmin: float | None, pmax: float | None) -> tuple[float, float]:
    pmin = rule.percentiles[0] if pmin is None else pmin
    pmax = rule.percentiles[1] if pmax is None else pmax
    if rule is not FIJI and not 0 <= pmin < pmax <= 100:
        raise InputError(f"pmin={pmin} and pmax={pmax} must be percentiles with 0 <= pmin < pmax <= 100")
    return pmin, pmax


def percentile_range(
    data: NDArray[Any],
    *,
    rule: PercentileRule = CSBDEEP,
    pmin: float | None = None,
    pmax: float | None = None,
) -> tuple[float, float]:
    """Raw intensities at two percentiles of everything in `data`, by the rule's way of taking percentiles.

    Parameters
    ----------
    data : ndarray
        Raw intensities.
    rule : PercentileRule
        Whose arithmetic is followed.
    pmin, pmax : float, optional
        Percentiles, 0-100; None takes the rule's own default.

    Returns
    -------
    low, high : float
    """
    data = np.asarray(data)
    pmin = rule.percentiles[0] if pmin is None else pmin
    pmax = rule.percentiles[1] if pmax is None else pmax
    if rule is FIJI:
        return _fiji_range(data, pmin, pmax)
    return _linear_range(data, pmin, pmax)


# ---- csbdeep and bioimageio


def _channel(data: NDArray[Any], axes: str | None) -> int | None:
    if axes is None:
        return None
    axes = check_axes(axes, ndim=data.ndim)
    return axes.index("C") if "C" in axes else None


def _planes_of(data: NDArray[Any], channel: int | None) -> Iterator[NDArray[Any]]:
    if channel is None:
        yield data
        return
    for position in range(data.shape[channel]):
        yield data[(slice(None),) * channel + (slice(position, position + 1),)]


def _linear_range(data: NDArray[Any], pmin: float, pmax: float) -> tuple[float, float]:
    finite = _count_finite(data)
    if finite < data.size:
        _say_not_finite(finite, data.size)
        data = data[np.isfinite(data)]
    if data.size <= _SMALL:
        # One call each: given both, NumPy takes the ranks of a float32 image in float64 and csbdeep's
        # values change.
        low, high = (float(np.percentile(data, p)) for p in (pmin, pmax))
    else:
        # Above this size float32 ranks are not whole numbers any more, and a copy of the image is much.
        low, high = (_interpolated(data, p) for p in (pmin, pmax))
    return (low, high) if high > low else _of_sparse(low, float(data.max()), pmin, pmax)


def _say_not_finite(finite: int, count: int) -> None:
    if not finite:
        raise InputError("every pixel is NaN or infinite; there is nothing to take percentiles of")
    warnings.warn(
        f"{count - finite} of {count} pixels are NaN or infinite; the percentiles leave them out",
        NotFinitePixelsWarning,
        stacklevel=4,
    )


def _of_sparse(low: float, highest: float, pmin: float, pmax: float) -> tuple[float, float]:
    if highest > low:
        warnings.warn(
            f"percentiles {pmin} and {pmax} are both {low:g} in an image with values up to {highest:g}; "
            "the maximum was taken as the upper value",
            SparseImageWarning,
            stacklevel=4,
        )
        return low, highest
    return low, low


def _interpolated(data: NDArray[Any], percentile: float) -> float:
    return _between(percentile, data.size, lambda ranks: values_at_ranks(data, ranks))


def _between(percentile: float, count: int, values: Callable[[Sequence[int]], Sequence[Any]]) -> float:
    """A percentile between two ranks, whose values are asked for."""
    position = (count - 1) * percentile / 100
    below = math.floor(position)
    first, second = (float(value) for value in values((below, min(below + 1, count - 1))))
    return first + (second - first) * (position - below)


def _linear_of_blocks(
    blocks: Blocks, dtype: np.dtype[Any], channels: int, pmin: float, pmax: float
) -> list[tuple[float, float]]:
    counted = Ranks(blocks, dtype)
    for channel in range(channels):
        finite = counted.finite.get(channel, 0)
        if finite < counted.pixels.get(channel, 0) or not finite:
            _say_not_finite(finite, counted.pixels.get(channel, 0))
    small = [channel for channel in range(channels) if counted.finite[channel] <= _SMALL]
    # Few pixels are held at once, since NumPy rounds in its own way between the ranks of few.
    held: dict[int, list[NDArray[Any]]] = {channel: [] for channel in small}
    if small:
        for channel, data in blocks():
            if channel in held:
                held[channel].append(data[np.isfinite(data)] if dtype.kind == "f" else data.ravel())
    ranges = {channel: _linear_range(np.concatenate(parts), pmin, pmax) for channel, parts in held.items()}
    large = [channel for channel in range(channels) if channel not in ranges]
    wanted = {}
    for channel in large:
        n = counted.finite[channel]
        below = [math.floor((n - 1) * percentile / 100) for percentile in (pmin, pmax)]
        wanted[channel] = sorted({*below, *(min(rank + 1, n - 1) for rank in below), n - 1})
    found = counted.values(wanted) if wanted else {}
    for channel in large:
        at = found[channel]
        low, high = (
            _between(percentile, counted.finite[channel], lambda ranks, at=at: [at[rank] for rank in ranks])  # type: ignore[misc]
            for percentile in (pmin, pmax)
        )
        highest = float(at[counted.finite[channel] - 1])
        ranges[channel] = (low, high) if high > low else _of_sparse(low, highest, pmin, pmax)
    return [ranges[channel] for channel in range(channels)]


def _scale_linear(
    data: NDArray[Any], out: NDArray[np.float32], *, low: float, high: float, eps: float, clip: bool
) -> None:
    narrow = data.dtype.str[1:] in _NARROW
    lo, hi = (np.float32(low), np.float32(high)) if narrow else (np.float64(low), np.float64(high))
    span = hi - lo + type(lo)(eps)
    if narrow:
        out[...] = data
        out -= lo
        out /= span
    else:
        # Plane by plane, so that the float64 copy stays small.
        for source, target in zip(np.atleast_2d(data), np.atleast_2d(out), strict=True):
            target[...] = (source.astype(np.float64) - lo) / span
    if clip:
        np.clip(out, 0, 1, out=out)


# ---- Fiji


def _scale_fiji(data: NDArray[Any], low: np.float32, high: np.float32, clip: bool) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", over="ignore"):
        span = high - low
        factor = np.float32(1) if float(span) < 0.0000001 else np.float32(1) / span
        out = data.astype(np.float32)
        out -= low
        out *= factor
        if clip:
            np.minimum(out, np.float32(1), out=out)
        np.maximum(out, np.float32(0), out=out)
    return out


def _fiji_of_blocks(blocks: Blocks, dtype: np.dtype[Any], pmin: float, pmax: float) -> tuple[float, float]:
    counted = Ranks(lambda: ((0, data) for _, data in blocks()), dtype, only_finite=False)
    count = counted.pixels.get(0, 0)
    if counted.finite.get(0, 0) < count:
        raise InputError(
            "the image holds NaN, for which Fiji's sort has no order but the one in memory; use the rule csbdeep, or "
            "restore it in parts"
        )
    _check_fijis_count(count)
    ranks = [fiji_rank(count, percentile) for percentile in (pmin, pmax)]
    found = counted.values({0: sorted(set(ranks))})[0]
    low, high = (float(np.float32(found[rank])) for rank in ranks)
    return low, high


def _fiji_range(data: NDArray[Any], pmin: float, pmax: float) -> tuple[float, float]:
    _check_fijis_count(data.size)
    ranks = tuple(fiji_rank(data.size, percentile) for percentile in (pmin, pmax))
    if data.dtype.kind == "f" and _count_nan(data):
        warnings.warn(
            "the image holds NaN; Fiji's sort has no order for them, so its percentiles are arbitrary",
            NotFinitePixelsWarning,
            stacklevel=4,
        )
        return tuple(_unordered_quicksort_rank(data, rank) for rank in ranks)  # type: ignore[return-value]
    # Casting to float32 keeps the order, so the value can be cast after it was found.
    low, high = (float(np.float32(value)) for value in values_at_ranks(data, ranks))
    return low, high


def _check_fijis_count(count: int) -> None:
    if count > MAX_FIJI_PIXELS:
        raise InputError(
            f"the image has {count} pixels; the plugin counts them in a Java int and fails above "
            f"{MAX_FIJI_PIXELS}; normalise in Python and send normalizeInput=false, or cut the image"
        )


def fiji_rank(count: int, percentile: float) -> int:
    """Rank, from 0, that the plugin reads a percentile at: float32 throughout, Java's Math.round.

    Parameters
    ----------
    count : int
        Number of pixels.
    percentile : float
        0-100.
    """
    position = np.float32(np.float32(np.float32(count - 1) * np.float32(percentile)) / np.float32(100))
    return min(count - 1, max(0, math.floor(float(position) + 0.5)))


def deepimagej_rank(count: int, percentile: float) -> int:
    """Rank, from 0, that deepImageJ's `scale_range` reads a percentile at.

    Parameters
    ----------
    count : int
        Number of pixels.
    percentile : float
        0-100.

    Notes
    -----
    bioimage-io/JDLL 0.6, ScaleRangeTransformation.java: count x percentile cut off to a whole number.
    """
    return min(count - 1, int(count * (percentile / 100)))


def _unordered_quicksort_rank(data: NDArray[Any], rank: int) -> float:
    """Value that imglib2's `Util.quicksort` leaves at `rank` in an array with NaN.

    Notes
    -----
    Hoare's partition about the middle element, comparisons by `<` only, so NaN stops both pointers. Each
    pass is done for the part that holds `rank` alone, since the parts never exchange elements.
    """
    values = data.astype(np.float32).ravel()
    left, right = 0, values.size - 1
    while left < right:
        part = values[left : right + 1]
        pivot = part[(left + right) // 2 - left]
        up = np.flatnonzero(~(part < pivot))
        down = np.flatnonzero(~(pivot < part))[::-1]
        pairs = min(up.size, down.size)
        swaps = int(np.count_nonzero(up[:pairs] <= down[:pairs]))
        first, last = up[:swaps], down[:swaps]
        part[first], part[last] = part[last], part[first]
        i, j = int(first[-1]) + 1, int(last[-1]) - 1
        if i <= j:
            # The pointers go on to the next stop, at the latest to what was swapped last.
            i = min(int(up[swaps]) if swaps < up.size else part.size, int(last[-1]))
            j = max(int(down[swaps]) if swaps < down.size else -1, int(first[-1]))
        if rank - left <= j:
            right = left + j
        elif rank - left >= i:
            left = left + i
        else:
            break
    return float(values[rank])


# ---- ranks without a sort


def values_at_ranks(data: NDArray[Any], ranks: Sequence[int]) -> list[Any]:
    """Values at positions of the sorted image, without sorting or copying it.

    Parameters
    ----------
    data : ndarray
        Any integer or float type, without NaN.
    ranks : sequence of int
        Positions in the sorted values, from 0.

    Returns
    -------
    list
        One value a rank, of the image's own type.

    Notes
    -----
    Counts by 16 bits of the value at a time: one pass for 8- and 16-bit types, two for 32-bit, four for
    64-bit.
    """
    if data.dtype.kind == "b":
        data = data.view(np.uint8)
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    if data.size <= _CHUNK:
        values = np.partition(data, sorted(set(ranks)), axis=None)
        return [values[rank] for rank in ranks]
    return (
        [_by_digits(data, rank) for rank in ranks] if data.dtype.itemsize > 2 else _by_counting(data, ranks)
    )


def _by_counting(data: NDArray[Any], ranks: Sequence[int]) -> list[Any]:
    offset = 0 if data.dtype.kind == "u" else 1 << (8 * data.dtype.itemsize - 1)
    counts = np.zeros(1 << (8 * data.dtype.itemsize), np.int64)
    for chunk in _chunks(data):
        keys = chunk if not offset else chunk.astype(np.int32) + offset
        counts += np.bincount(keys, minlength=counts.size)
    cumulative = np.cumsum(counts)
    found = np.searchsorted(cumulative, np.asarray(ranks), side="right") - offset
    return list(found.astype(data.dtype))


def _by_digits(data: NDArray[Any], rank: int) -> Any:
    bits = 8 * data.dtype.itemsize
    unsigned = np.dtype(f"u{data.dtype.itemsize}").type
    prefix = unsigned(0)
    for shift in range(bits - 16, -1, -16):
        counts = np.zeros(1 << 16, np.int64)
        for chunk in _chunks(data):
            keys = _ordered_keys(chunk)
            if shift < bits - 16:
                keys = keys[(keys >> unsigned(shift + 16)) == prefix >> unsigned(shift + 16)]
            digits = (keys >> unsigned(shift)) & unsigned(0xFFFF)
            counts += np.bincount(digits.astype(np.intp), minlength=counts.size)
        cumulative = np.cumsum(counts)
        digit = int(np.searchsorted(cumulative, rank, side="right"))
        rank -= int(cumulative[digit - 1]) if digit else 0
        prefix |= unsigned(digit << shift)
    return _from_key(prefix, data.dtype)


class Ranks:
    """Pixels of blocks, counted by the first 16 bits of their values, and values at ranks of them.

    Parameters
    ----------
    blocks : callable
        See `Blocks`; one pass is made at once.
    dtype : dtype
    only_finite : bool
        Leave out infinite values beside NaN.

    Attributes
    ----------
    pixels, finite : dict of int to int
        How many there are in each channel, and how many are counted.
    """

    def __init__(self, blocks: Blocks, dtype: np.dtype[Any], *, only_finite: bool = True) -> None:
        self._blocks, self._only_finite = blocks, only_finite
        self._dtype = {"b": np.dtype(np.uint8)}.get(dtype.kind, dtype.newbyteorder("="))
        if dtype == np.float16:
            self._dtype = np.dtype(np.float32)
        self._bits = 8 * self._dtype.itemsize
        self.pixels: dict[int, int] = {}
        self.finite: dict[int, int] = {}
        self._first = self._count(self._bits - min(16, self._bits), None)

    def values(self, ranks: Mapping[int, Sequence[int]]) -> dict[int, dict[int, Any]]:
        """Values at ranks, from 0, of the channels that are named; one pass for every 16 bits but the first."""
        shift = self._bits - min(16, self._bits)
        counts = self._first
        # Of each rank: what is known of its key, and its rank among those that share it.
        known = {(channel, rank): (0, rank) for channel, several in ranks.items() for rank in several}
        while True:
            for place, (prefix, rank) in known.items():
                cumulative = np.cumsum(counts[place[0], prefix])
                digit = int(np.searchsorted(cumulative, rank, side="right"))
                known[place] = (
                    prefix | digit << shift, rank - (int(cumulative[digit - 1]) if digit else 0)
                )  # fmt: skip
            if not shift:
                break
            shift -= 16
            counts = self._count(shift, {(channel, known[channel, rank][0]) for channel, rank in known})
        unsigned = np.dtype(f"u{self._dtype.itemsize}").type
        found: dict[int, dict[int, Any]] = {channel: {} for channel in ranks}
        for (channel, rank), (key, _) in known.items():
            found[channel][rank] = _from_key(unsigned(key), self._dtype)
        return found

    def _count(
        self, shift: int, wanted: set[tuple[int, int]] | None
    ) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Counts of 16 bits of the keys, of those that begin as wanted; None: of all, which are counted too."""
        size = 1 << min(16, self._bits)
        unsigned = np.dtype(f"u{self._dtype.itemsize}").type
        counts: dict[tuple[int, int], NDArray[np.int64]] = {}
        for channel, block in self._blocks():
            for chunk in _chunks(block.astype(self._dtype, copy=False)):
                data = chunk
                if data.dtype.kind == "f":
                    data = data[np.isfinite(data) if self._only_finite else ~np.isnan(data)]
                if wanted is None:
                    self.pixels[channel] = self.pixels.get(channel, 0) + chunk.size
                    self.finite[channel] = self.finite.get(channel, 0) + data.size
                keys = _ordered_keys(data)
                for prefix in [0] if wanted is None else [key for own, key in wanted if own == channel]:
                    own = keys
                    if wanted is not None:
                        own = keys[keys >> unsigned(shift + 16) == unsigned(prefix >> (shift + 16))]
                    digits = (own >> unsigned(shift)) & unsigned(size - 1)
                    here = np.bincount(digits.astype(np.intp), minlength=size)
                    place = (channel, prefix)
                    counts[place] = counts[place] + here if place in counts else here
        return counts


def _ordered_keys(chunk: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers in the order of the values."""
    kind, size = chunk.dtype.kind, chunk.dtype.itemsize
    unsigned = np.dtype(f"u{size}")
    if kind == "u":
        return chunk
    top = unsigned.type(1 << (8 * size - 1))
    if kind == "i":
        return cast(NDArray[Any], chunk.view(unsigned) ^ top)
    bits = chunk.view(unsigned)
    negative = (bits.view(f"i{size}") >> (8 * size - 1)).view(unsigned)
    return cast(NDArray[Any], bits ^ (negative | top))


def _from_key(key: Any, dtype: np.dtype[Any]) -> Any:
    unsigned = np.dtype(f"u{dtype.itemsize}")
    top = unsigned.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "u":
        return dtype.type(key)
    key = ~key if dtype.kind == "f" and not key & top else key ^ top
    return np.array([key], unsigned).view(dtype.newbyteorder("="))[0]


def _chunks(data: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Pieces of at most some million pixels, native byte order, contiguous; views where that is possible."""
    native = data.dtype.newbyteorder("=")
    if data.flags.c_contiguous:
        flat = data.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            yield flat[start : start + _CHUNK].astype(native, copy=False)
        return
    rows = max(1, _CHUNK * len(data) // data.size) if data.size else 1
    for start in range(0, len(data), rows):
        block = data[start : start + rows]
        if block.size > 2 * _CHUNK and block.ndim > 1:
            yield from _chunks(block[0])
        else:
            yield np.ascontiguousarray(block, native).reshape(-1)


def _count_finite(data: NDArray[Any]) -> int:
    if data.dtype.kind != "f":
        return data.size
    return sum(int(np.count_nonzero(np.isfinite(chunk))) for chunk in _chunks(data))


def _count_nan(data: NDArray[Any]) -> int:
    return sum(int(np.count_nonzero(np.isnan(chunk))) for chunk in _chunks(data))
