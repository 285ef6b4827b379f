"""csbdeep.data patches: training data from pairs of raw images, draw by draw as csbdeep makes them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.data._cutting import Patches, corners_of, cut, joined, patches_of_images
from care_bridge.csbdeep.data._scale import (
    Normalization,
    PatchFilter,
    PercentileScale,
    no_background_patches,
    norm_percentiles,
    sample_percentiles,
)
from care_bridge.csbdeep.data.rawdata import Pair, RawData
from care_bridge.csbdeep.data.transform import Transform, broadcast_target, permute_axes
from care_bridge.errors import InputError
from care_bridge.patches import PatchOrigin
from care_bridge.patches.store import PatchWriter, write_npz

__all__ = [
    "TrainingPatches",
    "create_patches",
    "create_patches_reduced_target",
    "no_background_patches",
    "norm_percentiles",
    "sample_patches_from_multiple_stacks",
    "sample_percentiles",
    "shuffle_inplace",
]

Array = NDArray[Any]


class TrainingPatches(tuple[Array, Array, str]):
    """(X, Y, axes) as csbdeep returns it, with where the patches come from.

    Attributes
    ----------
    origin : PatchOrigin
        In the order of X. Positions are along all axes of the images but C.
    names : tuple of str
        Of the images.
    """

    origin: PatchOrigin
    names: tuple[str, ...]

    def __new__(
        cls, x: Array, y: Array, axes: str, origin: PatchOrigin, names: Sequence[str]
    ) -> TrainingPatches:
        made = super().__new__(cls, (x, y, axes))
        made.origin, made.names = origin, tuple(names)
        return made


def sample_patches_from_multiple_stacks(
    datas: Sequence[Array],
    patch_size: Sequence[int],
    n_samples: int,
    datas_mask: NDArray[np.bool_] | None = None,
    patch_filter: PatchFilter | None = None,
    verbose: bool = False,
) -> list[Array]:
    """Cut patches at the same random positions from arrays of equal shape.

    Parameters
    ----------
    datas : sequence of ndarray
        The first one is what the filter looks at.
    patch_size : sequence of int
        One a dimension.
    n_samples : int
        Without repeats where there are enough positions.
    datas_mask : ndarray of bool, optional
        Patches must lie in it whole.
    patch_filter : callable, optional
        Gives a mask of the patches' centres.
    verbose : bool
        Accepted for csbdeep's sake.

    Returns
    -------
    list of ndarray
        Patches of each array, the same places in all.
    """
    corners = corners_of(datas, patch_size, n_samples, datas_mask, patch_filter, np.random)
    return [cut(data, corners, patch_size) for data in datas]


def create_patches(
    raw_data: RawData,
    patch_size: Sequence[int],
    n_patches_per_image: int,
    patch_axes: str | None = None,
    save_file: str | os.PathLike[str] | None = None,
    transforms: Sequence[Transform] | None = None,
    patch_filter: PatchFilter | None = no_background_patches(),  # noqa: B008
    normalization: Normalization | None = PercentileScale(sample_percentiles(), False),  # noqa: B008 - as csbdeep
    shuffle: bool = True,
    verbose: bool = True,
    *,
    seed: int | None = None,
) -> TrainingPatches:
    """Cut normalised training patches from pairs of raw images.

    Parameters
    ----------
    raw_data : RawData
    patch_size : sequence of int
        Along all axes of the (transformed) images; all channels.
    n_patches_per_image : int
        Of each image after the transforms.
    patch_axes : str, optional
        Order that images are brought into first; None leaves them.
    save_file : path, optional
        Where to write them: an .npz for csbdeep and `io.load_training_data`, or a name ending in .zarr,
        which is written image by image, so that memory is bounded by one image and its patches.
    transforms : sequence of Transform, optional
    patch_filter : callable, optional
        Gives a mask of eligible centres for (target, source) and the patch size. None takes all.
    normalization : callable, optional
        Called with (patches_x, patches_y, x, y, mask, channel). None leaves raw values.
    shuffle : bool
        Mix the patches of all images. A .zarr is never shuffled; training takes random patches anyway.
    verbose : bool
        Accepted for csbdeep's sake; nothing is printed.
    seed : int, optional
        None draws from NumPy's global generator: after ``numpy.random.seed(k)`` the patches are csbdeep's.

    Returns
    -------
    TrainingPatches
        (X, Y, axes): float32, shape (n, channel, ...), axes "SC...". For a .zarr, X and Y are zarr arrays with
        channels last and axes "S...C".

    Raises
    ------
    InputError
        If images and patch do not fit, naming the image.
    MemoryError
        If the patches do not fit into free memory; give `save_file` a .zarr then.
    """
    steps = _steps(transforms, patch_axes)
    n_images = raw_data.size * int(np.prod([step.size for step in steps], dtype=int))
    size = tuple(int(pixels) for pixels in patch_size)
    names = _names(raw_data, n_images)
    rng: Any = np.random if seed is None else np.random.RandomState(seed)
    images = patches_of_images(
        _stream(raw_data, steps), size, n_patches_per_image, n_images, names, patch_filter, normalization, rng
    )
    n = n_images * n_patches_per_image
    if save_file is not None and Path(save_file).suffix == ".zarr":
        return _to_zarr(images, Path(save_file), n, names)
    _check_memory(2 * 4 * n * int(np.prod(size)))
    x, y, axes, origin = _in_memory(images, n, size)
    if shuffle:
        order = np.arange(len(x))
        rng.shuffle(order)
        _reorder(x, order)
        _reorder(y, order)
        origin = origin.select(order)
    x, y = (_channel_second(one, axes) for one in (x, y))
    axes = "SC" + axes.replace("C", "")
    if save_file is not None:
        write_npz(Path(save_file).with_suffix(".npz"), x, y, axes, origin, names)
    return TrainingPatches(x, y, axes, origin, names)


def create_patches_reduced_target(
    raw_data: RawData,
    patch_size: Sequence[int | None],
    n_patches_per_image: int,
    reduction_axes: str,
    target_axes: str | None = None,
    **kwargs: Any,
) -> TrainingPatches:
    """Training patches whose targets have one plane along some axes (projections).

    Parameters
    ----------
    raw_data, n_patches_per_image
        See `create_patches`.
    patch_size : sequence of int or None
        None takes an axis whole; only for `reduction_axes`.
    reduction_axes : str
        Axes along which targets have size 1.
    target_axes : str, optional
        Of the raw targets; None: those of the sources.
    kwargs
        Of `create_patches`.

    Returns
    -------
    TrainingPatches
        Y has size 1 along `reduction_axes`.

    Raises
    ------
    InputError
        If they are to be written as anything but .npz, and for what `create_patches` refuses.

    Warns
    -----
    UserWarning
        If the targets are not constant along them, or had size 1 already.
    """
    reduced = check_axes(reduction_axes, argument="reduction_axes")
    transforms = [broadcast_target(target_axes), *(kwargs.pop("transforms", None) or ())]
    save_file = kwargs.pop("save_file", None)
    if save_file is not None and Path(save_file).suffix == ".zarr":
        raise InputError("targets with reduced axes are written as .npz only; give save_file another suffix")
    sizes = list(patch_size)
    if any(size is None for size in sizes):
        steps = _steps(transforms, kwargs.get("patch_axes"))
        sizes = _whole_axes(patch_size, reduced, _stream(raw_data, steps))
    made = create_patches(
        raw_data, [int(size or 1) for size in sizes], n_patches_per_image, transforms=transforms, **kwargs
    )
    x, y, axes = made
    y = _first_planes(y, axes, reduced)
    if save_file is not None:
        write_npz(Path(save_file).with_suffix(".npz"), x, y, axes, made.origin, made.names)
    return TrainingPatches(x, y, axes, made.origin, made.names)


def shuffle_inplace(*arrs: Array, **kwargs: Any) -> None:
    """Shuffle arrays along their first axis, all in the same way; `seed` as `numpy.random.RandomState` takes it.

    Parameters
    ----------
    *arrs : ndarray
        Of equal length.
    **kwargs
        `seed` alone.
    """
    seed = kwargs.pop("seed", None)
    rng = np.random if seed is None else np.random.RandomState(seed)
    order = np.arange(len(arrs[0])) if arrs else np.arange(0)
    rng.shuffle(order)
    for array in arrs:
        _reorder(array, order)


def _steps(transforms: Sequence[Transform] | None, patch_axes: str | None) -> list[Transform]:
    return [*(transforms or ()), *([permute_axes(patch_axes)] if patch_axes is not None else ())]


def _stream(raw_data: RawData, steps: Sequence[Transform]) -> Iterator[Pair]:
    return reduce(lambda pairs, step: step.generator(pairs), steps, raw_data.generator())


def _whole_axes(patch_size: Sequence[int | None], reduced: str, stream: Iterator[Pair]) -> list[int | None]:
    """The size of the first image in place of None."""
    x, _, axes, _ = next(stream)
    for letter, size in zip(axes, patch_size, strict=True):
        if size is None and letter not in reduced:
            raise InputError(f"patch_size={tuple(patch_size)} is None along {letter}, which is not reduced")
    return [length if size is None else size for length, size in zip(x.shape, patch_size, strict=True)]


def _first_planes(y: Array, axes: str, reduced: str) -> Array:
    for letter in reduced:
        if letter not in axes:
            raise InputError(f"reduction_axes={reduced!r} holds {letter}, the patches have axes {axes!r}")
        axis = axes.index(letter)
        if y.shape[axis] == 1:
            warnings.warn(f"targets have size 1 along {letter} already", stacklevel=3)
            continue
        first = y.take([0], axis=axis)
        if not np.array_equal(first, y.take([1], axis=axis)):
            warnings.warn(f"targets vary along {letter}; their first plane was taken", stacklevel=3)
        y = first
    return y


def _in_memory(
    images: Iterator[Patches], n: int, size: tuple[int, ...]
) -> tuple[Array, Array, str, PatchOrigin]:
    x, y = (np.empty((n, *size), np.float32) for _ in range(2))
    origins, axes, row = [], "", 0
    for patches_x, patches_y, axes, origin in images:  # noqa: B007 - the last axes are those of all
        rows = slice(row, row + len(patches_x))
        x[rows], y[rows], row = patches_x, patches_y, row + len(patches_x)
        origins.append(origin)
    return x[:row], y[:row], axes, joined(origins)


def _channel_second(patches: Array, axes: str) -> Array:
    return np.moveaxis(patches, 1 + axes.index("C"), 1) if "C" in axes else patches[:, np.newaxis]


def _reorder(array: Array, order: NDArray[np.int64]) -> None:
    """``array[...] = array[order]`` with one row of extra memory instead of a copy of all."""
    done = np.zeros(len(order), bool)
    for start in np.flatnonzero(order != np.arange(len(order))).tolist():
        if done[start]:
            continue
        kept, row = array[start].copy(), start
        while (source := int(order[row])) != start:
            array[row] = array[source]
            done[row] = True
            row = source
        array[row], done[row] = kept, True


def _names(raw_data: RawData, n_images: int) -> list[str]:
    names = getattr(raw_data, "names", ())
    if not names:
        return [f"image {index}" for index in range(n_images)]
    # Transforms may make several images of one; which of them is which only they know.
    each = max(1, n_images // len(names))
    return [name if each == 1 else f"{name} ({number})" for name in names for number in range(each)]


def _check_memory(needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"the patches need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "give save_file='patches.zarr' to write them image by image, or take fewer"
        )


def _to_zarr(images: Iterator[Patches], path: Path, n: int, names: Sequence[str]) -> TrainingPatches:
    from care_bridge.patches.store import open_patches

    with PatchWriter(path, n, names) as writer:
        for patches_x, patches_y, axes, origin in images:
            last = [
                one[..., np.newaxis] if "C" not in axes else np.moveaxis(one, 1 + axes.index("C"), -1)
                for one in (patches_x, patches_y)
            ]
            writer.append(*last, axes=f"S{axes.replace('C', '')}C", origin=origin)
    stored = open_patches(path)
    if stored.origin is None:
        raise InputError("there is no image; give at least one pair")
    return TrainingPatches(stored.source, stored.target, stored.axes, stored.origin, names)
