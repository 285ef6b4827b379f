"""csbdeep.data normalisers and resizers: what is done to an image before a network and undone after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.utils import move_image_axes, normalize_mi_ma
from care_bridge.errors import InputError
from care_bridge.normalize import normalize

Array = NDArray[Any]


class Normalizer(ABC):
    """What people derive their own normalisers from, as in csbdeep."""

    @abstractmethod
    def before(self, x: Array, axes: str) -> Array:
        """Image as the network gets it."""

    @abstractmethod
    def after(self, mean: Array, scale: Array | None, axes: str) -> tuple[Array, Array | None]:
        """Result, and widths of a probabilistic one, as the image was."""

    def __call__(self, x: Array, axes: str) -> Array:
        """`before`."""
        return self.before(x, axes)

    @property
    @abstractmethod
    def do_after(self) -> bool:
        """Whether `after` is to be called."""


class NoNormalizer(Normalizer):
    """Leaves images as they are.

    Parameters
    ----------
    do_after : bool
        Whether `after` may be called; it changes nothing.
    """

    def __init__(self, do_after: bool = False) -> None:
        self._do_after = do_after

    def before(self, x: Array, axes: str) -> Array:
        return x

    def after(self, mean: Array, scale: Array | None, axes: str) -> tuple[Array, Array | None]:
        if not self._do_after:
            raise InputError("this NoNormalizer was made with do_after=False")
        return mean, scale

    @property
    def do_after(self) -> bool:
        return self._do_after


class PercentileNormalizer(Normalizer):
    """Two percentiles of the image, channel by channel, become 0 and 1.

    Parameters
    ----------
    pmin, pmax : float
        Percentiles, 0-100.
    do_after : bool
        Whether results are brought back to the image's range (not to its type).
    dtype : type
        Type of the normalised image.
    kwargs
        `clip` and `eps` of `utils.normalize_mi_ma`.

    Attributes
    ----------
    mi, ma : ndarray
        Raw values at the percentiles of the last image, once `before` was called.
    """

    def __init__(
        self,
        pmin: float = 2,
        pmax: float = 99.8,
        do_after: bool = True,
        dtype: Any = np.float32,
        **kwargs: Any,
    ) -> None:
        if not 0 <= pmin < pmax <= 100:
            raise InputError(f"pmin={pmin} and pmax={pmax} must be percentiles with 0 <= pmin < pmax <= 100")
        self.pmin, self.pmax, self._do_after, self.dtype, self.kwargs = pmin, pmax, do_after, dtype, kwargs

    def before(self, x: Array, axes: str) -> Array:
        self.axes_before = check_axes(axes, ndim=x.ndim)
        normalized, undo = normalize(x, axes=self.axes_before, pmin=self.pmin, pmax=self.pmax)
        shape = [size if letter == "C" else 1 for letter, size in zip(self.axes_before, x.shape, strict=True)]
        self.mi = undo.low.reshape(shape).astype(self.dtype)
        self.ma = undo.high.reshape(shape).astype(self.dtype)
        if self.dtype is np.float32 and not self.kwargs:
            return normalized
        return normalize_mi_ma(x, self.mi, self.ma, dtype=self.dtype, **self.kwargs)

    def after(self, mean: Array, scale: Array | None, axes: str) -> tuple[Array, Array | None]:
        if not self._do_after:
            raise InputError("this PercentileNormalizer was made with do_after=False")
        self.axes_after = check_axes(axes, ndim=mean.ndim)
        before = self.axes_before
        gone = [position for position, letter in enumerate(before) if letter not in self.axes_after]
        kept = "".join(letter for letter in before if letter in self.axes_after)
        low, high = (
            move_image_axes(value.squeeze(tuple(gone)), kept, self.axes_after, True)
            for value in (self.mi, self.ma)
        )
        span = high - low
        widths = None if scale is None else (span * scale).astype(self.dtype, copy=False)
        return (span * mean + low).astype(self.dtype, copy=False), widths

    @property
    def do_after(self) -> bool:
        return self._do_after


class Resizer(ABC):
    """What people derive their own resizers from, as in csbdeep."""

    @abstractmethod
    def before(self, x: Array, axes: str, axes_div_by: Iterable[int]) -> Array:
        """Image with sizes that `axes_div_by` divide."""

    @abstractmethod
    def after(self, x: Array, axes: str) -> Array:
        """Result with the size that the image had."""


class NoResizer(Resizer):
    """Leaves images as they are, and complains where a network cannot take them."""

    def before(self, x: Array, axes: str, axes_div_by: Iterable[int]) -> Array:
        wrong = [
            f"{size} (axis {letter}) by {divisor}"
            for letter, divisor, size in zip(check_axes(axes, ndim=x.ndim), axes_div_by, x.shape, strict=True)
            if size % divisor
        ]
        if wrong:
            raise InputError(f"not divisible: {', '.join(wrong)}; use PadAndCropResizer, or crop the image")
        return x

    def after(self, x: Array, axes: str) -> Array:
        return x


class PadAndCropResizer(Resizer):
    """Fills sizes up, half before and half after, and cuts that off the result.

    Parameters
    ----------
    mode : str
        Of `numpy.pad`.
    kwargs
        Of `numpy.pad`.
    """

    def __init__(self, mode: str = "reflect", **kwargs: Any) -> None:
        self.mode, self.kwargs = mode, kwargs
        self.pad: dict[str, tuple[int, int]] = {}

    def before(self, x: Array, axes: str, axes_div_by: Iterable[int]) -> Array:
        axes = check_axes(axes, ndim=x.ndim)
        missing = [-size % divisor for size, divisor in zip(x.shape, axes_div_by, strict=True)]
        self.pad = {letter: (more // 2, more - more // 2) for letter, more in zip(axes, missing, strict=True)}
        mode: Any = self.mode
        return np.pad(x, [self.pad[letter] for letter in axes], mode=mode, **self.kwargs)

    def after(self, x: Array, axes: str) -> Array:
        axes = check_axes(axes, ndim=x.ndim)
        unknown = [letter for letter in axes if letter not in self.pad]
        if unknown:
            raise InputError(
                f"the image before had no {', '.join(unknown)}; call before() with these axes first"
            )
        box = tuple(
            slice(before, size - behind)
            for size, (before, behind) in zip(x.shape, (self.pad[letter] for letter in axes), strict=True)
        )
        return x[box]
