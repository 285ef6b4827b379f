"""Where patches are cut, draw by draw as csbdeep draws."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.data._scale import (
    NoBackground,
    Normalization,
    PatchFilter,
    PercentileScale,
    ranks_of,
)
from care_bridge.csbdeep.data.rawdata import Pair
from care_bridge.errors import InputError
from care_bridge.normalize import NotFinitePixelsWarning
from care_bridge.patches import PatchOrigin
from care_bridge.patches.foreground import any_in_window, bright_corners
from care_bridge.patches.looking import fingerprint

Array = NDArray[Any]

Patches = tuple[Array, Array, str, PatchOrigin]
"""Sources and targets of one image, their axes, and where they were cut."""


def patches_of_images(
    stream: Iterator[Pair],
    size: tuple[int, ...],
    n: int,
    n_images: int,
    names: Sequence[str],
    patch_filter: PatchFilter | None,
    normalization: Normalization | None,
    rng: Any,
) -> Iterator[Patches]:
    first = ""
    targets: dict[str, int] = {}
    for index, (x, y, letters, mask) in enumerate(stream):
        if index >= n_images:
            warnings.warn(f"more than the {n_images} images expected; the rest is left out", stacklevel=3)
            return
        name = names[index]
        try:
            axes = check_axes(letters, ndim=len(size))
            first = first or axes
            _check_pair(x, y, axes, first, size)
            corners = corners_of((y, x), size, n, mask, patch_filter, rng)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        patches_x, patches_y = cut(x, corners, size), cut(y, corners, size)
        channel = axes.index("C") if "C" in axes else None
        ranges = (np.empty((n, 0, 0)), np.empty((n, 0, 0)))
        if isinstance(normalization, PercentileScale):
            patches_x, patches_y = normalization(patches_x, patches_y, x, y, mask, channel, rng)
            ranges = normalization.ranges
        elif normalization is not None:
            patches_x, patches_y = normalization(patches_x, patches_y, x, y, mask, channel)
        space = [position for position, letter in enumerate(axes) if letter != "C"]
        # Several source folders of one target: its pixels count as one image when patches are split.
        group = targets.setdefault(fingerprint(y.__getitem__, y.shape, y.nbytes), index)
        image, group_of = np.full(n, index, np.int32), np.full(n, group, np.int32)
        yield patches_x, patches_y, axes, PatchOrigin(image, corners[:, space], *ranges, group_of)


def _check_pair(x: Array, y: Array, axes: str, first: str, size: tuple[int, ...]) -> None:
    problems = []
    if axes != first:
        problems.append(f"has axes {axes!r}, the first image {first!r}")
    if x.shape != y.shape:
        problems.append(f"source has shape {x.shape}, target {y.shape}")
    if any(pixels < 1 or pixels > length for pixels, length in zip(size, x.shape, strict=True)):
        problems.append(f"patch_size {size} does not fit into shape {x.shape} (axes {axes})")
    elif "C" in axes and size[axes.index("C")] != x.shape[axes.index("C")]:
        problems.append(f"patch_size {size} must hold all {x.shape[axes.index('C')]} channels")
    if problems:
        raise InputError("; ".join(problems))


def corners_of(
    datas: Sequence[Array],
    size: Sequence[int],
    n: int,
    mask: NDArray[np.bool_] | None,
    patch_filter: PatchFilter | None,
    rng: Any,
) -> NDArray[np.int64]:
    """First pixels of n patches, drawn as csbdeep draws their centres."""
    shape = datas[0].shape
    if any(data.shape != shape for data in datas):
        raise InputError(f"shapes differ: {', '.join(str(data.shape) for data in datas)}; they must be equal")
    if isinstance(patch_filter, NoBackground):
        level = patch_filter.foreground.level(ranks_of(datas[0], "target"))
        allowed = bright_corners(datas[0], size, level)
    else:
        centres = tuple(
            slice(pixels // 2, length - pixels + pixels // 2 + 1)
            for pixels, length in zip(size, shape, strict=True)
        )
        everywhere = np.ones(shape, bool) if patch_filter is None else patch_filter(datas, size)
        allowed = everywhere[centres]
    if mask is not None:
        if mask.shape != shape or mask.dtype != bool:
            raise InputError(
                f"the mask has shape {mask.shape} and type {mask.dtype}; {shape} and bool are needed"
            )
        allowed = allowed & ~any_in_window(~mask, size)
    for data in datas:
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            warnings.warn(
                "patches with NaN or infinite pixels are left out", NotFinitePixelsWarning, stacklevel=2
            )
            allowed = allowed & ~any_in_window(~np.isfinite(data), size)
    eligible = np.flatnonzero(allowed)
    if not len(eligible):
        raise InputError(
            "no patch passes the filter (is the target constant?); give another patch_filter, or None"
        )
    # csbdeep seeds Python's generator from NumPy's, and draws from that.
    draw = random.Random(int(rng.randint(0, np.iinfo(np.uint32).max, dtype=np.uint32)))
    population = range(len(eligible))
    chosen = draw.choices(population, k=n) if len(eligible) < n else draw.sample(population, k=n)
    return np.stack(np.unravel_index(eligible[chosen], allowed.shape), axis=1).astype(np.int64)


def cut(data: Array, corners: NDArray[np.int64], size: Sequence[int]) -> Array:
    patches = np.empty((len(corners), *size), data.dtype)
    for row, corner in enumerate(corners.tolist()):
        patches[row] = data[
            tuple(slice(start, start + pixels) for start, pixels in zip(corner, size, strict=True))
        ]
    return patches


def joined(origins: Sequence[PatchOrigin]) -> PatchOrigin:
    if not origins:
        raise InputError("there is no image; give at least one pair")
    return PatchOrigin(
        *(
            np.concatenate([getattr(one, name) for one in origins])
            for name in PatchOrigin.__dataclass_fields__
        )
    )
