"""Pairs of a source image and its target, where they lie: in memory, in folders of images, in zarr."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.errors import InputError
from care_bridge.images import (
    PATTERN,
    check_channel,
    is_zarr,
    list_images,
    only_channel,
    open_volume,
    read_header,
    read_image,
)
from care_bridge.patches.pairing import pair_files, same_place
from care_bridge.words import counted

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """An array that may lie on a disk.

    Attributes
    ----------
    open : callable
        Gives something with a shape that can be sliced: an ndarray, a memory map, a zarr array. Called again
        after the array was let go.
    axes : str
        One letter a dimension.
    shape : tuple of int
    dtype : dtype
    """

    open: Callable[[], Any]
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def size(self, axis: str) -> int:
        """Size along an axis; 1 where there is none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def read(self, array: Any, axes: str, box: Box) -> NDArray[Any]:
        """Part of what `open` gave, its dimensions in the order of `axes`; only that part is read.

        Parameters
        ----------
        array : array
            What `open` gave.
        axes : str
            The order wanted; letters that the array lacks become dimensions of size 1.
        box : tuple of slice
            One a letter of `axes`.
        """
        where = dict(zip(axes, box, strict=True))
        index = tuple(where.get(letter, slice(None)) for letter in self.axes)
        return move_axes(np.asarray(array[index]), self.axes, axes)


@dataclass(frozen=True, eq=False)
class ImagePair:
    """A source image and its target.

    Attributes
    ----------
    source, target : Stored
        Equal sizes along the space axes, except along those that the target lacks (projections).
    name : str
        For messages and provenance.
    mask : ndarray of bool, optional
        Where patches may lie, in the source's axes and shape; a patch must lie in it whole. None: everywhere.
    image : str
        What the pair shows, e.g. the clean image that it was simulated from. Pairs of equal name here are never
        split between training and validation. "": not known; equal targets are found by their pixels anyway.
    files : tuple of Path
        Source and target; empty for images that are in no files of their own.
    """

    source: Stored
    target: Stored
    name: str
    mask: NDArray[np.bool_] | None = field(default=None)
    image: str = ""
    files: tuple[Path, ...] = ()


def in_memory(data: ArrayLike, axes: str) -> Stored:
    """An array in memory as something stored."""
    array = np.asarray(data)
    return Stored(lambda: array, check_axes(axes, ndim=array.ndim), array.shape, array.dtype)


def in_file(path: str | os.PathLike[str], axes: str | None = None, *, channel: int | None = None) -> Stored:
    """An image file, or one channel of it; opened, a TIFF is mapped into memory where it is uncompressed, else read.

    An OME-Zarr stays on the disk, and what is asked for is read.

    Parameters
    ----------
    path : path
    axes : str, optional
        None takes what the file says.
    channel : int, optional
        From 0, as `images.only_channel` takes it.
    """
    if is_zarr(path):
        volume = open_volume(path, axes).only_channel(channel)
        return Stored(lambda: volume, volume.axes, volume.shape, volume.dtype)
    header = read_header(path, axes)
    letters, shape = header.axes, header.shape
    if channel is not None:
        sizes = dict(zip(letters, shape, strict=True))
        check_channel(channel, sizes.pop("C", 1), name=Path(path).name)
        letters, shape = "".join(sizes), tuple(sizes.values())
    return Stored(
        lambda: only_channel(read_image(path, axes, mapped=True), channel).data, letters, shape, header.dtype
    )


def pairs_from_arrays(
    sources: Sequence[ArrayLike],
    targets: Sequence[ArrayLike],
    *,
    axes: str,
    target_axes: str | None = None,
    names: Sequence[str] | None = None,
) -> list[ImagePair]:
    """Pairs of arrays in memory.

    Parameters
    ----------
    sources, targets : sequence of ndarray
        Equally many.
    axes : str
        Axes of the sources, e.g. "YX" or "CYX".
    target_axes : str, optional
        Axes of the targets; None: the same.
    names : sequence of str, optional
        For messages; None numbers them.
    """
    if len(sources) != len(targets):
        raise InputError(
            f"{len(sources)} sources and {len(targets)} targets were given; give one target a source"
        )
    names = names or [f"image {index}" for index in range(len(sources))]
    return [
        ImagePair(in_memory(source, axes), in_memory(target, target_axes or axes), name)
        for source, target, name in zip(sources, targets, names, strict=True)
    ]


def pairs_from_folders(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    axes: str | None = None,
    target_axes: str | None = None,
    pattern: str = PATTERN,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
    channel: int | None = None,
    look: bool = False,
    factor: float = 1.0,
) -> list[ImagePair]:
    """Pairs of TIFFs in two folders, by their names; pixels are read when they are needed.

    Parameters
    ----------
    source : path or several
        Folder, or folders (e.g. several exposures of the same targets).
    target : path
        Folder.
    axes, target_axes : str, optional
        Axes of the files; None takes what each file says (for targets: `axes`).
    pattern : str
        Which files of the source folders.
    source_suffix, target_suffix : str, optional
        What names end with where they are not equal, see `pairing.pair_files`; both None find such a difference.
    channel : int, optional
        The only channel to take of each image, from 0; an image without channels is taken as it is.
    look : bool
        Refuse pairs of equal pixels, for which they are read as far as the first difference.
    factor : float
        Targets have so many times as many planes, rounded: those of models that fill up stacks.

    Returns
    -------
    list of ImagePair
        Sorted by name, so that the file system does not decide the order. Their `image` is what a manifest.csv
        beside the target folder says, as `care-bridge simulate` writes it.

    Raises
    ------
    InputError
        If a folder is missing or empty, source and target are the same folder, or for all files together: without
        target, not readable, of unequal shapes, of equal pixels.
    """
    several = [source] if isinstance(source, str | os.PathLike) else list(source)
    folders = [Path(folder) for folder in several]
    target = Path(target)
    missing = [folder for folder in (*folders, target) if not folder.is_dir()]
    if missing:
        raise InputError(
            f"no folder at {', '.join(repr(str(folder)) for folder in missing)}; give existing folders"
        )
    given = source_suffix is not None or target_suffix is not None
    for folder in folders:
        if same_place(folder, target) and not given:
            raise InputError(
                f"source and target are the same folder, {str(target)!r}: each image would be its own truth; give the "
                "folder of the truths as target, or say which files are which by --source-suffix and --target-suffix"
            )
    files = [file for folder in folders for file in list_images(folder, pattern)]
    if not files:
        raise InputError(
            f"no file fits {pattern!r} in {', '.join(repr(str(folder)) for folder in folders)}; "
            "put the source images there, or give another pattern"
        )
    images = _manifest_images(target.resolve().parent / "manifest.csv")
    there = list_images(target)
    found = pair_files(files, there, source_suffix=source_suffix, target_suffix=target_suffix)
    pairs, problems = [], []
    for file, partner in found:
        if partner is None:
            problems.append(
                f"{file.name}: has no target; {_lacking(file, target, source_suffix, target_suffix)}"
            )
            continue
        try:
            pair = ImagePair(
                in_file(file, axes, channel=channel),
                _target_in_file(partner, target_axes or axes, channel),
                file.name,
                image=images.get(file.stem, ""),
                files=(file, partner),
            )
            problem = _unequal(pair, factor) or (look and _own_truth(pair) and EQUAL_PIXELS)
        except (InputError, OSError) as error:
            problems.append(f"{file.name}: {error}")
            continue
        if problem:
            problems.append(f"{file.name}: {problem}")
        pairs.append(pair)
    _raise_all(problems, len(found))
    return pairs


def _target_in_file(path: Path, axes: str | None, channel: int | None) -> Stored:
    """A target, whose one channel is right whichever channel of the source it belongs to."""
    whole = in_file(path, axes)
    return whole if channel is None or "C" not in whole.axes else in_file(path, axes, channel=channel)


EQUAL_PIXELS = (
    "source and target hold the same pixels, so there is nothing to restore; is one a copy of the other?"
)


def equal_pixels(first: Any, second: Any) -> bool:
    """Whether two arrays of equal axes hold the same values, and not one value only, as an empty field does.

    Parameters
    ----------
    first, second : array
        Anything with a shape that can be indexed along its first dimension; read as far as the first difference.
    """
    if tuple(first.shape) != tuple(second.shape) or not first.shape or not first.shape[0]:
        return False
    values: set[float] = set()
    for index in range(first.shape[0]):
        one, other = np.asarray(first[index]), np.asarray(second[index])
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f"):
            return False
        if len(values) < 2:
            values |= {float(one.min()), float(one.max())}
    return len(values) > 1


def refuse_own_truths(names: Sequence[str], n: int) -> None:
    """Refuse those of n pairs, by their names, whose source and target hold the same pixels."""
    _raise_all([f"{name}: {EQUAL_PIXELS}" for name in names], n)


def _own_truth(pair: ImagePair) -> bool:
    if pair.source.axes != pair.target.axes or pair.source.shape != pair.target.shape:
        return False
    return equal_pixels(pair.source.open(), pair.target.open())


def _lacking(file: Path, target: Path, source_suffix: str | None, target_suffix: str | None) -> str:
    if source_suffix is None and target_suffix is None:
        return (
            f"{str(target / file.name)!r} does not exist, nor do all names differ in the same part (--source-suffix and "
            "--target-suffix say which)"
        )
    name = file.stem.removesuffix(source_suffix or "") + (target_suffix or "") + file.suffix
    return f"{str(target / name)!r} does not exist"


def pairs_from_zarr(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    axes: str,
    target_axes: str | None = None,
) -> list[ImagePair]:
    """One pair of zarr arrays, read patch by patch.

    Parameters
    ----------
    source, target : path
        Zarr arrays (not groups), version 2 or 3. With an axis S in `axes`, each of its positions is a pair.
    axes : str
    target_axes : str, optional
        None: the same as `axes`.
    """
    both = []
    for path, letters in ((source, axes), (target, target_axes or axes)):
        array = _open_zarr(path)
        both.append((array, check_axes(letters, ndim=array.ndim), Path(path).name))
    (first, first_axes, name), (second, second_axes, _) = both
    if "S" not in first_axes:
        pairs = [ImagePair(_in_zarr(first, first_axes), _in_zarr(second, second_axes), name)]
    else:
        number = first.shape[first_axes.index("S")]
        if "S" not in second_axes or second.shape[second_axes.index("S")] != number:
            raise InputError(
                f"the source has {number} images along S, the target (shape {second.shape}) not as many"
            )
        pairs = [
            ImagePair(
                _in_zarr(first, first_axes, index), _in_zarr(second, second_axes, index), f"{name}[{index}]"
            )
            for index in range(number)
        ]
    _raise_all([f"{pair.name}: {problem}" for pair in pairs if (problem := _unequal(pair))], len(pairs))
    return pairs


@dataclass(frozen=True)
class _OfSeries:
    """One position along the first axis of something larger, e.g. of a zarr array; sliced like an array."""

    array: Any
    axis: int
    index: int

    def __getitem__(self, box: Box) -> Any:
        return self.array[(*box[: self.axis], self.index, *box[self.axis :])]


def _open_zarr(path: str | os.PathLike[str]) -> Any:
    import zarr

    if not Path(path).exists():
        raise InputError(f"no zarr at {str(path)!r}; give the path of a zarr array")
    try:
        found = zarr.open(str(path), mode="r")
    except Exception as error:
        raise InputError(
            f"{str(path)!r} cannot be opened as zarr ({error}); give the path of a zarr array"
        ) from error
    if not hasattr(found, "shape"):
        raise InputError(
            f"{str(path)!r} is a zarr group; give the path of an array in it, e.g. {str(path) + '/0'!r}"
        )
    return found


def _in_zarr(array: Any, axes: str, index: int | None = None) -> Stored:
    if index is None:
        return Stored(lambda: array, axes, tuple(array.shape), np.dtype(array.dtype))
    axis = axes.index("S")
    shape = tuple(size for position, size in enumerate(array.shape) if position != axis)
    return Stored(lambda: _OfSeries(array, axis, index), axes.replace("S", ""), shape, np.dtype(array.dtype))


def _manifest_images(path: Path) -> dict[str, str]:
    """Clean image of each pair by the pair's name; none where there is no such file, or another kind of one."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"name", "image"} <= set(rows.fieldnames or ()):
            return {}
        return {row["name"]: row["image"] or "" for row in rows if row["name"]}


def _unequal(pair: ImagePair, factor: float = 1.0) -> str:
    """What is wrong with the sizes of a pair; "" if nothing."""
    source, target = pair.source, pair.target
    for letter in "STZYX":
        wanted = round(source.size(letter) * factor) if letter == "Z" else source.size(letter)
        if wanted != target.size(letter) and target.size(letter) != 1:
            more = f"; {wanted} planes are wanted" if letter == "Z" and factor != 1 else ""
            return (
                f"source (axes {source.axes}, shape {source.shape}) and target (axes {target.axes}, "
                f"shape {target.shape}) differ along {letter}{more}"
            )
    return ""


def _raise_all(problems: Sequence[str], n: int) -> None:
    if problems:
        raise InputError(
            f"{len(problems)} of {counted(n, 'image pair')} cannot be used:\n  " + "\n  ".join(problems)
        )
