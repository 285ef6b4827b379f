"""Which patches csbdeep's functions take, and on what scale they bring them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.patches import Foreground, PatchPercentiles
from care_bridge.patches.scale import Ranks, is_narrow, place, rescale

Array = NDArray[Any]
PatchFilter = Callable[[Sequence[Array], Sequence[int]], NDArray[np.bool_]]
Normalization = Callable[..., tuple[Array, Array]]


class NoBackground:
    """Patch filter of `no_background_patches`; called as csbdeep's, gives a mask of the patches' centres."""

    def __init__(self, foreground: Foreground) -> None:
        self.foreground = foreground

    def __call__(
        self, datas: Sequence[Array], patch_size: Sequence[int], dtype: Any = np.float32
    ) -> NDArray[np.bool_]:
        from scipy.ndimage import maximum_filter

        target = datas[0] if dtype is None else datas[0].astype(dtype)
        middle = [size // 2 if size > 1 else size for size in patch_size]
        level = self.foreground.level(Ranks([target]))
        filtered: NDArray[np.bool_] = maximum_filter(target, middle, mode="constant") > level
        return filtered


def no_background_patches(
    threshold: float = 0.4, percentile: float = 99.9, *, background: float | None = None
) -> NoBackground:
    """Draw patches only where the target is bright.

    Parameters
    ----------
    threshold : float
        Share, 0-1, of the target's `percentile` that the middle of a patch must exceed.
    percentile : float
        0-100.
    background : float, optional
        Percentile that is subtracted first; None subtracts nothing, as csbdeep. Needed for images with a
        camera offset, where everything is bright otherwise.

    Returns
    -------
    callable
        For `patch_filter` of `create_patches`.
    """
    return NoBackground(Foreground(threshold, percentile, background))


class _Sampler:
    def __init__(self, percentiles: PatchPercentiles) -> None:
        self.percentiles = percentiles

    def __call__(self, rng: Any = np.random) -> tuple[float, float]:
        return rng.uniform(*self.percentiles.pmin), rng.uniform(*self.percentiles.pmax)


def sample_percentiles(
    pmin: tuple[float, float] = (1, 3), pmax: tuple[float, float] = (99.5, 99.9)
) -> Callable[[], tuple[float, float]]:
    """A function that draws a low and a high percentile from two intervals, by NumPy's global generator.

    Parameters
    ----------
    pmin, pmax : (float, float)
        Intervals within 0-100.

    Returns
    -------
    callable
        Gives a low and a high percentile at each call.

    Raises
    ------
    InputError
        If an interval is not two rising percentiles.
    """
    for name, interval in (("pmin", pmin), ("pmax", pmax)):
        if len(interval) != 2 or not interval[0] < interval[1]:
            raise InputError(f"{name}={interval} must be two rising percentiles")
    return _Sampler(PatchPercentiles((pmin[0], pmin[1]), (pmax[0], pmax[1])))


class PercentileScale:
    """What `norm_percentiles` gives: scales patches by percentiles of their whole images."""

    def __init__(self, draw: Callable[[], tuple[float, float]], relu_last: bool) -> None:
        self.draw, self.relu_last = draw, relu_last
        self.ranges: tuple[Array, Array] = (np.empty(0), np.empty(0))

    def __call__(
        self,
        patches_x: Array,
        patches_y: Array,
        x: Array,
        y: Array,
        mask: Array | None,
        channel: int | None,
        rng: Any = np.random,
    ) -> tuple[Array, Array]:
        sampler = self.draw
        drawn = [sampler(rng) if isinstance(sampler, _Sampler) else sampler() for _ in patches_x]
        pmins, pmaxs = np.array(drawn, np.float64).T
        lows = np.zeros_like(pmins) if self.relu_last else pmins
        results, ranges = [], []
        for patches, image, low, name in ((patches_x, x, pmins, "source"), (patches_y, y, lows, "target")):
            planes = [image] if channel is None else np.moveaxis(image, channel, 0)
            spans = [ranks_of(plane, name).span(low, pmaxs, name=name) for plane in planes]
            span = np.stack([np.stack(one, axis=1) for one in spans], axis=2)  # (n, 2, channels)
            results.append(_scaled(patches, span, channel, image.dtype))
            ranges.append(span)
        self.ranges = (ranges[0], ranges[1])
        return results[0], results[1]


def norm_percentiles(
    percentiles: Sequence[float] | Callable[[], tuple[float, float]] = sample_percentiles(),  # noqa: B008
    relu_last: bool = False,
) -> Normalization:
    """Scale each patch so that two percentiles of its whole image become 0 and 1, channel by channel.

    Parameters
    ----------
    percentiles : (float, float) or callable
        Fixed ones, or a function that gives a pair for each patch.
    relu_last : bool
        Take the target's lowest value as 0, for networks whose last activation is ReLU.

    Returns
    -------
    callable
        For `normalization` of `create_patches`.
    """
    if callable(percentiles):
        low, high = percentiles()  # csbdeep looks at a first pair too, so the draws after it are the same
        PatchPercentiles((low, low), (high, high))
        return PercentileScale(percentiles, relu_last)
    low, high = percentiles
    PatchPercentiles((low, low), (high, high))  # checks them
    return PercentileScale(lambda: (low, high), relu_last)


def _scaled(patches: Array, span: NDArray[np.float64], channel: int | None, raw: np.dtype[Any]) -> Array:
    last = patches[..., np.newaxis] if channel is None else np.moveaxis(patches, 1 + channel, -1)
    out = np.empty(last.shape, np.float32)
    if is_narrow(raw):
        out[...] = last
    else:
        for row, patch in enumerate(last):
            place(patch, span[row, 0], out[row])
    rescale(out, span[:, 0], span[:, 1], raw=raw)
    return out[..., 0] if channel is None else np.moveaxis(out, -1, 1 + channel)


def ranks_of(plane: Array, name: str) -> Ranks:
    return Ranks([plane], name=name, total=plane.size)
