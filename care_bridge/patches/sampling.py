"""Where patches are cut, and cutting them: all at once, or while a network trains."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.errors import InputError
from care_bridge.patches.pairs import ImagePair, Stored
from care_bridge.patches.scale import PatchPercentiles, Ranks, is_narrow, place, rescale
from care_bridge.patches.split import FRACTION, By, split_patches
from care_bridge.progress import Progress, silent

SLAB_BYTES = 1 << 27
"""Images above this size are looked at slab by slab, so that memory stays bounded."""

CACHE_BYTES = 1 << 30
"""Images that cannot be mapped are kept in memory up to this many bytes while patches are cut from them."""

_MAX_OPEN = 200  # mapped files each hold a file descriptor

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


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


@dataclass(frozen=True, eq=False)
class PatchOrigin:
    """Where each of n patches comes from, and its scale.

    Attributes
    ----------
    image : ndarray of int32, shape (n,)
        Which image pair.
    position : ndarray of int64, shape (n, d)
        First pixel along the space axes of the patches.
    source_range, target_range : ndarray of float64, shape (n, 2, channels)
        Raw values that became 0 and 1; empty (n, 0, 0) where patches are not normalised.
    group : ndarray of int32, shape (n,), optional
        Image pairs that show the same pixels have the same number here: they are split as one image. None: every
        pair shows its own.
    """

    image: NDArray[np.int32]
    position: NDArray[np.int64]
    source_range: NDArray[np.float64]
    target_range: NDArray[np.float64]
    group: NDArray[np.int32] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        if self.group is None:
            object.__setattr__(self, "group", self.image)

    def __len__(self) -> int:
        return len(self.image)

    def select(self, indices: NDArray[np.intp]) -> PatchOrigin:
        """Those of some patches."""
        return PatchOrigin(*(getattr(self, name)[indices] for name in self.__dataclass_fields__))


def shared_groups(fingerprints: Sequence[str], images: Sequence[str]) -> NDArray[np.int32]:
    """Which pairs belong together: those of equal target, or of equal clean image, or linked by others.

    Parameters
    ----------
    fingerprints : sequence of str
        Of each pair's target, see `fingerprint`.
    images : sequence of str
        What each pair shows, see `ImagePair.image`; "" where that is not known.

    Returns
    -------
    ndarray of int32
        The number of each group's first pair.
    """
    group = np.arange(len(fingerprints), dtype=np.int32)
    for names in (fingerprints, images):
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            if name:
                other = group[first.setdefault(name, index)]
                pair = sorted((int(other), int(group[index])))
                group[group == pair[1]] = pair[0]
    return group


def fingerprint(read: Callable[[slice], NDArray[Any]], shape: Sequence[int], nbytes: int) -> str:
    """Hash by which equal images are recognised, of all pixels, or of 16 planes of a large image.

    Parameters
    ----------
    read : callable
        Gives the pixels of some positions along the first dimension.
    shape : sequence of int
    nbytes : int
        Of the whole image; above `SLAB_BYTES` it is large.

    Notes
    -----
    Equal images never differ here. Different ones that agree in those planes count as equal, which costs the split
    some freedom and leaks nothing.
    """
    sha = hashlib.sha256(str(tuple(shape)).encode())
    if nbytes <= SLAB_BYTES:
        parts = [slice(0, shape[0])]
    else:
        starts = np.unique(np.linspace(0, shape[0] - 1, 16).astype(int))
        parts = [slice(int(start), int(start) + 1) for start in starts]
    for part in parts:
        sha.update(np.ascontiguousarray(read(part)).data)
    return sha.hexdigest()


# Eligible positions ------------------------------------------------------------------------------------------


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


# Sampling ---------------------------------------------------------------------------------------------------


def sample_patches(
    pairs: Sequence[ImagePair],
    *,
    patch_size: Sequence[int],
    n_patches_per_image: int,
    axes: str | None = None,
    foreground: Foreground | None = Foreground(),
    percentiles: PatchPercentiles | None = PatchPercentiles(),  # noqa: B008 - frozen values
    reduced: str = "",
    seed: int = 0,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress = silent,
) -> ImagePatches:
    """Draw positions of patches and the percentiles of their scale; pixels are cut when they are asked for.

    Parameters
    ----------
    pairs : sequence of ImagePair
    patch_size : sequence of int
        Pixels along `axes`.
    n_patches_per_image : int
        Drawn without replacement, with where an image has fewer positions.
    axes : str, optional
        Space axes (and T) of a patch, e.g. "YX"; None takes the first source's own, without C. Channels are
        always taken all.
    foreground : Foreground, optional
        Which positions are worth drawing. None: all.
    percentiles : PatchPercentiles, optional
        Scale of each patch, from the whole image, channel by channel, source and target at the same
        percentiles. None leaves raw values.
    reduced : str
        Axes that the target lacks or has one plane of (projections); they are left out of the target patches.
    seed : int
        Image number i draws from ``numpy.random.default_rng([seed, i])``, whatever the other images are.
    cache_bytes : int
        Memory for images that cannot be mapped.
    progress : Progress

    Returns
    -------
    ImagePatches

    Raises
    ------
    InputError
        With all images at once: smaller than a patch, other channels than the first, no position that
        passes the filter, no finite value.
    """
    if not pairs:
        raise InputError("no image pairs were given; give at least one")
    if n_patches_per_image < 1:
        raise InputError(f"n_patches_per_image must be at least 1; received {n_patches_per_image}")
    axes = check_axes(axes or pairs[0].source.axes.replace("C", ""))
    size = tuple(int(pixels) for pixels in patch_size)
    if len(size) != len(axes) or min(size) < 1:
        raise InputError(f"patch_size={size} does not fit axes {axes!r}; give one positive number a letter")
    if "C" in axes or not set(reduced) <= set(axes):
        raise InputError(f"axes={axes!r} must hold every letter of reduced={reduced!r} and no C")
    _check_pairs(pairs, axes, size, reduced)
    origins, problems, fingerprints = [], [], []
    for index, pair in enumerate(pairs):
        progress(index, len(pairs), "looking for patches")
        try:
            rng = np.random.default_rng([seed, index])
            looked = _Looked(pair, axes, size, reduced)
            position = looked.positions(foreground, n_patches_per_image, rng)
            ranges = looked.ranges(percentiles, n_patches_per_image, rng)
            image = np.full(n_patches_per_image, index, np.int32)
            origins.append(PatchOrigin(image, position, *ranges))
            fingerprints.append(looked.fingerprint())
        except InputError as error:
            problems.append(f"{pair.name}: {error}")
    if problems:
        raise InputError(
            f"{len(problems)} of {len(pairs)} image pairs cannot be used:\n  " + "\n  ".join(problems)
        )
    progress(len(pairs), len(pairs), "looking for patches")
    joined = PatchOrigin(
        *(
            np.concatenate([getattr(one, name) for one in origins])
            for name in PatchOrigin.__dataclass_fields__
        )
    )
    group = shared_groups(fingerprints, [pair.image for pair in pairs])[joined.image]
    joined = replace(joined, group=group)
    return ImagePatches(pairs, joined, patch_size=size, axes=axes, reduced=reduced, cache_bytes=cache_bytes)


class ImagePatches:
    """Patches that are cut from their images when they are asked for; the same index gives the same patch.

    Made by `sample_patches`. Mapped TIFFs and zarr arrays are read patch by patch, other files as a whole and
    kept, up to `cache_bytes`, so memory is bounded by that whatever the images' size.

    Attributes
    ----------
    axes : str
        Of a batch: S, the patch's axes, C.
    patch_size : tuple of int
        Without S and C.
    reduced : str
        Axes that target patches lack.
    origin : PatchOrigin
        Where each patch comes from.
    names : tuple of str
        Of the images.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        origin: PatchOrigin,
        *,
        patch_size: Sequence[int],
        axes: str,
        reduced: str = "",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pairs, self.origin = tuple(pairs), origin
        self.patch_size, self.axes, self.reduced = tuple(patch_size), f"S{axes}C", reduced
        self.names = tuple(pair.name for pair in pairs)
        self.cache_bytes = cache_bytes
        self._opened: OrderedDict[tuple[int, bool], Callable[[tuple[slice, ...]], NDArray[Any]]] = (
            OrderedDict()
        )
        self._kept: dict[tuple[int, bool], int] = {}

    def __len__(self) -> int:
        return len(self.origin)

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        """Normalised patches.

        Parameters
        ----------
        indices : ndarray of int
            Positions in `origin`, each from 0 to ``len(self) - 1``.

        Returns
        -------
        source, target : ndarray of float32, shape (n, [z,] y, x, channel)
            The target without the `reduced` axes.
        """
        indices = np.asarray(indices)
        first, second = self.pairs[0].source, self.pairs[0].target
        flat = tuple(
            1 if letter in self.reduced else size
            for letter, size in zip(self.axes[1:-1], self.patch_size, strict=True)
        )
        sources = np.empty((len(indices), *self.patch_size, first.size("C")), np.float32)
        targets = np.empty((len(indices), *flat, second.size("C")), np.float32)
        images, positions = self.origin.image[indices].tolist(), self.origin.position[indices].tolist()
        for is_target, out, stored in ((False, sources, first), (True, targets, second)):
            ranges = (self.origin.target_range if is_target else self.origin.source_range)[indices]
            shift = ranges.size and not is_narrow(stored.dtype)
            where = [is_target and letter in self.reduced for letter in self.axes[1:-1]]
            for row, (image, position) in enumerate(zip(images, positions, strict=True)):
                box = [
                    slice(0, 1) if whole else slice(start, start + size)
                    for start, size, whole in zip(position, self.patch_size, where, strict=True)
                ]
                raw = self._reader(image, is_target)((*box, slice(None)))
                if shift:
                    place(raw, ranges[row, 0], out[row])
                else:
                    out[row] = raw
        for span, out, stored in (
            (self.origin.source_range[indices], sources, first),
            (self.origin.target_range[indices], targets, second),
        ):
            if span.size:
                rescale(out, span[:, 0], span[:, 1], raw=stored.dtype)
        gone = tuple(self.axes.index(letter) for letter in self.reduced)
        return sources, targets.squeeze(gone) if gone else targets

    def load(self, *, progress: Progress = silent) -> Batch:
        """All patches, in memory."""
        return self.batch(np.arange(len(self)))

    def select(self, indices: NDArray[np.intp]) -> ImagePatches:
        """Some of the patches, in the order of `indices`."""
        return ImagePatches(
            self.pairs,
            self.origin.select(indices),
            patch_size=self.patch_size,
            axes=self.axes[1:-1],
            reduced=self.reduced,
            cache_bytes=self.cache_bytes,
        )

    def split(
        self, fraction: float = FRACTION, *, by: By = "auto", gap_px: int = 0, seed: int = 0
    ) -> tuple[ImagePatches, ImagePatches]:
        """Training and validation patches that share no pixel; see `split_patches`."""
        training, validation = split_patches(
            self.origin.group,
            self.origin.position,
            patch_size=self.patch_size,
            fraction=fraction,
            by=by,
            gap_px=gap_px,
            seed=seed,
        )
        return self.select(training), self.select(validation)

    def _reader(self, image: int, is_target: bool) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
        key = (image, is_target)
        if key in self._opened:
            self._opened.move_to_end(key)
            return self._opened[key]
        stored = self.pairs[image].target if is_target else self.pairs[image].source
        array = stored.open()
        self._opened[key] = _reader(stored, array, self.axes[1:])
        held = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
        self._kept[key] = array.nbytes if held else 0
        while len(self._opened) > 1 and (
            sum(self._kept.values()) > self.cache_bytes or len(self._opened) > _MAX_OPEN
        ):
            oldest, _ = self._opened.popitem(last=False)
            del self._kept[oldest]
        return self._opened[key]


def _reader(stored: Stored, array: Any, axes: str) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
    if isinstance(array, np.ndarray):
        view = move_axes(array, stored.axes, axes)
        return lambda box: view[box]
    return lambda box: stored.read(array, axes, box)


class _Looked:
    """One pair, read slab by slab: eligible positions and percentiles."""

    def __init__(self, pair: ImagePair, axes: str, size: tuple[int, ...], reduced: str) -> None:
        self.pair, self.axes, self.size, self.reduced = pair, axes, size, reduced
        self.shape = tuple(pair.source.size(letter) for letter in axes)
        self.corners = tuple(length - pixels + 1 for length, pixels in zip(self.shape, size, strict=True))
        self.target_size = tuple(
            1 if letter in reduced else pixels for letter, pixels in zip(axes, size, strict=True)
        )
        self._source = _reader(pair.source, self._open(pair.source), axes + "C")
        self._target = _reader(pair.target, self._open(pair.target), axes + "C")
        self._ranks: dict[bool, list[Ranks]] = {}

    def _open(self, stored: Stored) -> Any:
        array = stored.open()
        # Small images are read once; large ones stay where they are.
        small = int(np.prod(stored.shape)) * stored.dtype.itemsize <= SLAB_BYTES
        return np.asarray(array[(slice(None),) * len(stored.shape)]) if small else array

    def fingerprint(self) -> str:
        """Of the target, by `fingerprint`."""
        stored = self.pair.target
        shape = [stored.size(letter) for letter in self.axes + "C"]
        rest = tuple(slice(0, size) for size in shape[1:])
        nbytes = int(np.prod(shape)) * stored.dtype.itemsize
        return fingerprint(lambda part: self._target((part, *rest)), shape, nbytes)

    def positions(self, foreground: Foreground | None, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """First pixels of n patches, shape (n, d)."""
        slabs = list(self._slabs(self.corners[0], self.shape))
        counts = [int(np.count_nonzero(self._eligible(slab, foreground))) for slab in slabs]
        total = sum(counts)
        if not total:
            raise InputError(
                "no patch passes the foreground filter (is the target constant?); lower its threshold, or take none"
            )
        chosen = rng.choice(total, n, replace=total < n, shuffle=True)
        position = np.empty((n, len(self.size)), np.int64)
        before = 0
        for slab, count in zip(slabs, counts, strict=True):
            here = np.flatnonzero((chosen >= before) & (chosen < before + count))
            if len(here):
                mask = self._eligible(slab, foreground)
                flat = np.flatnonzero(mask)[chosen[here] - before]
                position[here] = np.stack(np.unravel_index(flat, mask.shape), axis=1)
                position[here, 0] += slab.start
            before += count
        return position

    def ranges(
        self, percentiles: PatchPercentiles | None, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw values that become 0 and 1 in each of n patches, for source and target: shape (n, 2, channels)."""
        if percentiles is None:
            return np.empty((n, 0, 0)), np.empty((n, 0, 0))
        pmin, pmax = percentiles.draw(rng, n)
        ranges = []
        for is_target in (False, True):
            low = np.zeros_like(pmin) if percentiles.relu_last and is_target else pmin
            name = "target" if is_target else "source"
            spans = [ranks.span(low, pmax, name=f"{self.pair.name}, {name}") for ranks in self._of(is_target)]
            ranges.append(np.stack([np.stack(span, axis=1) for span in spans], axis=2))
        return ranges[0], ranges[1]

    def _of(self, is_target: bool) -> list[Ranks]:
        if is_target not in self._ranks:
            stored = self.pair.target if is_target else self.pair.source
            shape = tuple(stored.size(letter) for letter in self.axes)
            read = self._target if is_target else self._source
            rest = (slice(None),) * (len(shape) - 1)
            self._ranks[is_target] = [
                Ranks(
                    (
                        read((slab, *rest, slice(channel, channel + 1)))
                        for slab in self._slabs(shape[0], shape)
                    ),
                    name=f"{self.pair.name}, {'target' if is_target else 'source'}",
                    total=int(np.prod(shape)),
                )
                for channel in range(stored.size("C"))
            ]
        return self._ranks[is_target]

    def _slabs(self, length: int, shape: tuple[int, ...]) -> Iterator[slice]:
        rows = max(1, SLAB_BYTES // 8 // max(1, int(np.prod(shape[1:]))))
        for start in range(0, length, rows):
            yield slice(start, min(start + rows, length))

    def _eligible(self, slab: slice, foreground: Foreground | None) -> NDArray[np.bool_]:
        """Which of the corners of a slab (along the first axis) may be drawn."""
        shape = (slab.stop - slab.start, *self.corners[1:])
        allowed = np.ones(shape, bool)
        rest = (slice(None),) * (len(self.axes) - 1)
        rows = slice(slab.start, slab.stop + self.size[0] - 1)
        there = slice(0, 1) if self.axes[0] in self.reduced else rows
        for channel in range(self.pair.target.size("C")) if foreground is not None else ():
            assert foreground is not None
            values = self._target((there, *rest, slice(channel, channel + 1)))[..., 0]
            level = foreground.level(self._of(True)[channel])
            bright = bright_corners(values, self.target_size, level)
            allowed = np.broadcast_to(bright, shape) if not channel else allowed | bright
        for read, stored, sizes, window in (
            (self._source, self.pair.source, self.size, rows),
            (self._target, self.pair.target, self.target_size, there),
        ):
            if stored.dtype.kind != "f":
                continue
            broken = ~np.isfinite(read((window, *rest, slice(None)))).all(axis=-1)
            if broken.any():
                allowed = allowed & ~any_in_window(broken, sizes)
        if self.pair.mask is not None:
            closed = ~move_axes(self.pair.mask, self.pair.source.axes, self.axes + "C")[(rows, *rest)]
            allowed = allowed & ~any_in_window(np.any(closed, axis=-1), self.size)
        return allowed


def _check_pairs(pairs: Sequence[ImagePair], axes: str, size: tuple[int, ...], reduced: str) -> None:
    problems = []
    first = pairs[0]
    for pair in pairs:
        source, target = pair.source, pair.target
        extra = [letter for letter in "STZYX" if letter not in axes and source.size(letter) > 1]
        if extra:
            problems.append(
                f"{pair.name}: has {', '.join(extra)} (axes {source.axes}, shape {source.shape}), the patches "
                f"have axes {axes}; add them to the patches, or give one image a position"
            )
            continue
        small = [letter for letter, pixels in zip(axes, size, strict=True) if source.size(letter) < pixels]
        if small:
            problems.append(
                f"{pair.name}: is smaller than a patch along {', '.join(small)} (axes {source.axes}, "
                f"shape {source.shape}; patch {size} for {axes})"
            )
        for letter in axes:
            wanted = 1 if letter in reduced else source.size(letter)
            if target.size(letter) != wanted:
                problems.append(
                    f"{pair.name}: target (axes {target.axes}, shape {target.shape}) has {target.size(letter)} along "
                    f"{letter} where {wanted} is needed"
                )
        for side, one, model in (("source", source, first.source), ("target", target, first.target)):
            if one.size("C") != model.size("C"):
                problems.append(
                    f"{pair.name}: its {side} has {one.size('C')} channels, that of {first.name} {model.size('C')}"
                )
    if problems:
        raise InputError(
            f"{len(problems)} problems with {len(pairs)} image pairs:\n  " + "\n  ".join(problems)
        )
