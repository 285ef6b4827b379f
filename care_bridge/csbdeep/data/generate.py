"""csbdeep.data patches: training data from pairs of raw images, draw by draw as csbdeep makes them."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.data.rawdata import Pair, RawData
from care_bridge.csbdeep.data.transform import Transform, broadcast_target, permute_axes
from care_bridge.errors import InputError
from care_bridge.normalize import NotFinitePixelsWarning
from care_bridge.patches import Foreground, PatchOrigin, PatchPercentiles
from care_bridge.patches.foreground import any_in_window, bright_corners
from care_bridge.patches.looking import fingerprint
from care_bridge.patches.scale import Ranks, is_narrow, place, rescale
from care_bridge.patches.store import PatchWriter, write_npz

Array = NDArray[Any]
PatchFilter = Callable[[Sequence[Array], Sequence[int]], NDArray[np.bool_]]
Normalization = Callable[..., tuple[Array, Array]]


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


# Filters ----------------------------------------------------------------------------------------------------


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
    """
    return NoBackground(Foreground(threshold, percentile, background))


# Normalisation ----------------------------------------------------------------------------------------------


class _Sampler:
    def __init__(self, percentiles: PatchPercentiles) -> None:
        self.percentiles = percentiles

    def __call__(self, rng: Any = np.random) -> tuple[float, float]:
        return rng.uniform(*self.percentiles.pmin), rng.uniform(*self.percentiles.pmax)


def sample_percentiles(
    pmin: tuple[float, float] = (1, 3), pmax: tuple[float, float] = (99.5, 99.9)
) -> Callable[[], tuple[float, float]]:
    """A function that draws a low and a high percentile from two intervals, by NumPy's global generator."""
    for name, interval in (("pmin", pmin), ("pmax", pmax)):
        if len(interval) != 2 or not interval[0] < interval[1]:
            raise InputError(f"{name}={interval} must be two rising percentiles")
    return _Sampler(PatchPercentiles((pmin[0], pmin[1]), (pmax[0], pmax[1])))


class _PercentileScale:
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
            spans = [_ranks(plane, name).span(low, pmaxs, name=name) for plane in planes]
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
    """
    if callable(percentiles):
        low, high = percentiles()  # csbdeep looks at a first pair too, so the draws after it are the same
        PatchPercentiles((low, low), (high, high))
        return _PercentileScale(percentiles, relu_last)
    low, high = percentiles
    PatchPercentiles((low, low), (high, high))  # checks them
    return _PercentileScale(lambda: (low, high), relu_last)


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


def _ranks(plane: Array, name: str) -> Ranks:
    return Ranks([plane], name=name, total=plane.size)


# Patches ----------------------------------------------------------------------------------------------------


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
    """
    corners = _corners(datas, patch_size, n_samples, datas_mask, patch_filter, np.random)
    return [_cut(data, corners, patch_size) for data in datas]


def create_patches(
    raw_data: RawData,
    patch_size: Sequence[int],
    n_patches_per_image: int,
    patch_axes: str | None = None,
    save_file: str | os.PathLike[str] | None = None,
    transforms: Sequence[Transform] | None = None,
    patch_filter: PatchFilter | None = no_background_patches(),  # noqa: B008
    normalization: Normalization | None = _PercentileScale(sample_percentiles(), False),  # noqa: B008 - as csbdeep
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
    images = _patches_of_images(
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
    """Shuffle arrays along their first axis, all in the same way; `seed` as `numpy.random.RandomState` takes it."""
    seed = kwargs.pop("seed", None)
    rng = np.random if seed is None else np.random.RandomState(seed)
    order = np.arange(len(arrs[0])) if arrs else np.arange(0)
    rng.shuffle(order)
    for array in arrs:
        _reorder(array, order)


# Steps ------------------------------------------------------------------------------------------------------

_Patches = tuple[Array, Array, str, PatchOrigin]


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
    images: Iterator[_Patches], n: int, size: tuple[int, ...]
) -> tuple[Array, Array, str, PatchOrigin]:
    x, y = (np.empty((n, *size), np.float32) for _ in range(2))
    origins, axes, row = [], "", 0
    for patches_x, patches_y, axes, origin in images:  # noqa: B007 - the last axes are those of all
        rows = slice(row, row + len(patches_x))
        x[rows], y[rows], row = patches_x, patches_y, row + len(patches_x)
        origins.append(origin)
    return x[:row], y[:row], axes, _joined(origins)


def _channel_second(patches: Array, axes: str) -> Array:
    return np.moveaxis(patches, 1 + axes.index("C"), 1) if "C" in axes else patches[:, np.newaxis]


def _patches_of_images(
    stream: Iterator[Pair],
    size: tuple[int, ...],
    n: int,
    n_images: int,
    names: Sequence[str],
    patch_filter: PatchFilter | None,
    normalization: Normalization | None,
    rng: Any,
) -> Iterator[_Patches]:
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
            corners = _corners((y, x), size, n, mask, patch_filter, rng)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        patches_x, patches_y = _cut(x, corners, size), _cut(y, corners, size)
        channel = axes.index("C") if "C" in axes else None
        ranges = (np.empty((n, 0, 0)), np.empty((n, 0, 0)))
        if isinstance(normalization, _PercentileScale):
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


def _corners(
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
        level = patch_filter.foreground.level(_ranks(datas[0], "target"))
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


def _cut(data: Array, corners: NDArray[np.int64], size: Sequence[int]) -> Array:
    patches = np.empty((len(corners), *size), data.dtype)
    for row, corner in enumerate(corners.tolist()):
        patches[row] = data[
            tuple(slice(start, start + pixels) for start, pixels in zip(corner, size, strict=True))
        ]
    return patches


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


def _joined(origins: Sequence[PatchOrigin]) -> PatchOrigin:
    if not origins:
        raise InputError("there is no image; give at least one pair")
    return PatchOrigin(
        *(
            np.concatenate([getattr(one, name) for one in origins])
            for name in PatchOrigin.__dataclass_fields__
        )
    )


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


def _to_zarr(images: Iterator[_Patches], path: Path, n: int, names: Sequence[str]) -> TrainingPatches:
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
