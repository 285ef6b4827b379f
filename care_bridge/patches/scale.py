"""The scale of a training patch: percentiles of its whole image, drawn anew for every patch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.normalize import NotFinitePixelsWarning, SparseImageWarning

EPS = 1e-20
"""What csbdeep adds to the range, so that constant images give 0 instead of NaN."""

_SAMPLE = 1 << 26  # values; larger images of 32 bits and more are looked at in this many
_PIECE = 1 << 20
_NARROW = {"b1", "u1", "i1", "u2", "i2", "f2", "f4"}  # what float32 holds exactly


@dataclass(frozen=True)
class PatchPercentiles:
    """From which intervals the two percentiles of each patch are drawn.

    Random percentiles make a network indifferent to how exactly an image was normalised (CARE paper; csbdeep's
    `norm_percentiles` and `sample_percentiles`).

    Attributes
    ----------
    pmin, pmax : (float, float)
        Intervals within 0-100; equal ends fix a percentile.
    relu_last : bool
        Take the target's lowest value as 0, for networks whose last activation is ReLU.
    """

    pmin: tuple[float, float] = (1.0, 3.0)
    pmax: tuple[float, float] = (99.5, 99.9)
    relu_last: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in (("pmin", self.pmin), ("pmax", self.pmax)):
            if not 0 <= low <= high <= 100:
                raise InputError(f"{name}=({low}, {high}) is no interval within 0-100")
        if not self.pmin[1] < self.pmax[0]:
            raise InputError(f"pmin={self.pmin} must lie below pmax={self.pmax}")

    def draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Percentiles of n patches."""
        return rng.uniform(*self.pmin, n), rng.uniform(*self.pmax, n)


class Ranks:
    """The values of an image in order, ready for any number of percentiles.

    Parameters
    ----------
    blocks : iterable of ndarray
        The image, whole or in pieces of one type. NaN and infinite values are left out.
    name : str
        For messages.

    Notes
    -----
    8- and 16-bit images are counted and others sorted; both are several times faster than `numpy.percentile` with
    hundreds of percentiles. Percentiles are linear between ranks. Of images of more than 2**26 values of 32 bits
    and more, every n-th value is taken.
    """

    def __init__(self, blocks: Iterable[NDArray[Any]], *, name: str = "image", total: int = 0) -> None:
        counts: NDArray[np.int64] | None = None
        parts = []
        left_out = 0
        step = max(1, -(-total // _SAMPLE))
        for block in blocks:
            values = np.asarray(block).reshape(-1)
            self.dtype = values.dtype
            if values.dtype.kind in "bui" and values.dtype.itemsize <= 2:
                counted = _count(values)
                counts = counted if counts is None else counts + counted
                continue
            if values.dtype.kind == "f":
                finite = np.isfinite(values)
                missing = values.size - int(np.count_nonzero(finite))
                if missing:
                    left_out += missing
                    values = values[finite]
            parts.append(values[::step] if step > 1 else values)
        if left_out:
            warnings.warn(
                f"{name}: {left_out} pixels are NaN or infinite; percentiles and patches leave them out",
                NotFinitePixelsWarning,
                stacklevel=3,
            )
        self._cumulative = None if counts is None else np.cumsum(counts)
        self._sorted = None
        if counts is None:
            joined = np.concatenate(parts) if len(parts) != 1 else parts[0]
            self._sorted = np.sort(joined)
        self.size = int(self._cumulative[-1]) if self._cumulative is not None else len(self._sorted)  # type: ignore[arg-type]
        if not self.size:
            raise InputError(f"{name} holds no finite value")

    def at(self, percentiles: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Values at percentiles 0-100."""
        position = (self.size - 1) * (np.asarray(percentiles, np.float64) / 100)
        rank = np.floor(position).astype(np.int64)
        first, second = self._value(rank), self._value(np.minimum(rank + 1, self.size - 1))
        step, share = (second - first).astype(np.float64), position - rank
        first, second = first.astype(np.float64), second.astype(np.float64)
        # NumPy's own two-sided formula, so that values are equal to the last bit.
        between: NDArray[np.float64] = np.where(
            share >= 0.5, second - step * (1 - share), first + step * share
        )
        return between

    def span(
        self, pmin: NDArray[np.float64], pmax: NDArray[np.float64], *, name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values at two percentiles; where both are equal, the maximum takes the place of the upper one."""
        low, high = self.at(pmin), self.at(pmax)
        flat = ~(high > low)
        if np.any(flat):
            highest = float(self.at(100.0))
            if highest > float(np.min(low[flat])):
                warnings.warn(
                    f"{name}: its percentiles are equal although it is not constant (values up to {highest:g}); "
                    "the maximum was taken as the upper value",
                    SparseImageWarning,
                    stacklevel=3,
                )
                high = np.where(flat, highest, high)
        return low, high

    def _value(self, rank: NDArray[np.int64]) -> NDArray[Any]:
        if self._sorted is not None:
            return self._sorted[rank]
        assert self._cumulative is not None
        offset = 0 if self.dtype.kind != "i" else 1 << (8 * self.dtype.itemsize - 1)
        return np.searchsorted(self._cumulative, rank, side="right") - offset


def _count(values: NDArray[Any]) -> NDArray[np.int64]:
    size = values.dtype.itemsize
    unsigned = values.view(np.uint8 if size == 1 else values.dtype.newbyteorder("=").str.replace("i", "u"))
    if values.dtype.kind == "i":
        unsigned = unsigned ^ unsigned.dtype.type(1 << (8 * size - 1))  # order of signed values, from 0
    counts = np.zeros(1 << (8 * size), np.int64)
    # Piece by piece: bincount copies what it is given into 64 bits.
    for start in range(0, unsigned.size, _PIECE):
        counts += np.bincount(unsigned[start : start + _PIECE], minlength=counts.size)
    return counts


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every value of a type."""
    return dtype.str[1:] in _NARROW


def place(raw: NDArray[Any], low: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Write a raw patch as float32; of types that float32 cannot hold, the difference to `low`.

    Parameters
    ----------
    raw, out : ndarray, shape (..., channel)
    low : ndarray, shape (channel,)
    """
    # uint32 at 2**26 with 50 grey levels keeps 7 of them in float32, so the subtraction comes first there.
    out[...] = raw if is_narrow(raw.dtype) else raw - low


def rescale(
    patches: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64], *, raw: np.dtype[Any]
) -> None:
    """Finish in place what `place` began: ``(patch - low) / (high - low + 1e-20)``, in float32 as csbdeep.

    Parameters
    ----------
    patches : ndarray of float32, shape (n, ..., channel)
    low, high : ndarray, shape (n, channel)
    raw : dtype
        Type that the patches had.
    """
    shape = (len(low), *(1,) * (patches.ndim - 2), low.shape[1])
    lo, hi = low.reshape(shape), high.reshape(shape)
    if is_narrow(raw):
        lo, hi = lo.astype(np.float32), hi.astype(np.float32)
        patches -= lo
    patches /= (hi - lo).astype(np.float32) + np.float32(EPS)
