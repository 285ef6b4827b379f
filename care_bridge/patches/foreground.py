"""Which positions of an image are worth a patch: those whose middle is bright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.patches.scale import Ranks


@dataclass(frozen=True)
class Foreground:
    """Which patches hold something: their middle must reach a share of the image's bright end.

    Attributes
    ----------
    threshold : float
        Share, 0-1, of the bright end that the brightest target pixel in the middle half of a patch must exceed.
    percentile : float
        Percentile of the target that stands for its bright end.
    background : float, optional
        Percentile of the target that is subtracted first. None subtracts nothing, as csbdeep: with a camera
        offset of 40 % of the bright end every patch passes.

    Notes
    -----
    csbdeep's `no_background_patches`: a maximum filter of half the patch size.
    """

    threshold: float = 0.4
    percentile: float = 99.9
    background: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must lie within 0-1; received {self.threshold}")
        for name, value in (("percentile", self.percentile), ("background", self.background or 0)):
            if not 0 <= value <= 100:
                raise InputError(f"{name} must lie within 0-100; received {value}")

    def level(self, ranks: Ranks) -> float:
        """Intensity that the middle of a patch must exceed."""
        low = 0.0 if self.background is None else float(ranks.at(self.background))
        return low + self.threshold * (float(ranks.at(self.percentile)) - low)


def any_in_window(mask: NDArray[np.bool_], sizes: Sequence[int]) -> NDArray[np.bool_]:
    """Whether any value is true in each window of `sizes` that lies in `mask` whole; shape ``d - size + 1``."""
    for axis, size in enumerate(sizes):
        have, lead = 1, (slice(None),) * axis
        # Windows grow by or-ing two shorter ones: log2(size) passes over bytes.
        while have < size:
            step = min(have, size - have)
            mask = mask[(*lead, slice(None, -step))] | mask[(*lead, slice(step, None))]
            have += step
    return mask


def bright_corners(target: NDArray[Any], patch_size: Sequence[int], level: float) -> NDArray[np.bool_]:
    """First pixels of the patches whose middle half exceeds a level somewhere.

    Parameters
    ----------
    target : ndarray
    patch_size : sequence of int
        One a dimension.
    level : float
        Raw intensity.

    Returns
    -------
    ndarray of bool, shape ``d - patch_size + 1``
        Equal to ``maximum_filter(target, patch_size // 2) > level`` read at the patches' centres.
    """
    middle = [size // 2 if size > 1 else 1 for size in patch_size]
    if target.dtype.kind in "ui":
        limits = np.iinfo(target.dtype)
        whole = int(np.floor(level))  # comparing integers saves a copy in float64
        above = target > target.dtype.type(np.clip(whole, limits.min, limits.max))
        if whole < limits.min:
            above[...] = True
    else:
        above = target > level
    offset = [size // 2 - half // 2 for size, half in zip(patch_size, middle, strict=True)]
    inner = tuple(
        slice(start, start + length - size + half)
        for start, length, size, half in zip(offset, target.shape, patch_size, middle, strict=True)
    )
    return any_in_window(above[inner], middle)
