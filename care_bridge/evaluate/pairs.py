"""Images to be scored and their truths, read from files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.evaluate.conditions import SUBFOLDERS, condition_folders, read_conditions
from care_bridge.evaluate.scores import Mask, fields
from care_bridge.files import sha256
from care_bridge.images import PATTERN, Image, is_zarr, only_channel, read_image
from care_bridge.model_files import stated_config
from care_bridge.patches.pairing import same_place
from care_bridge.patches.pairs import equal_pixels, pairs_from_folders, refuse_own_truths


@dataclass(frozen=True, eq=False)
class Pair:
    """A source image and its ground truth.

    Attributes
    ----------
    source, target : Image
    name : str
    mask : ndarray of bool, optional
        Shape of one field, ([Z,] Y, X): True where pixels count. None: everywhere.
    hashes : tuple of str
        SHA-256 of the source's and the target's file; empty for images from memory.
    condition : str
        Under which the source was taken (exposure, depth, ...). "": nobody says.
    """

    source: Image
    target: Image
    name: str
    mask: Mask | None = None
    hashes: tuple[str, ...] = ()
    condition: str = ""


def read_pairs(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    axes: str | None = None,
    pattern: str = PATTERN,
    limit: int | None = None,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
    channel: int | None = None,
    conditions: str | os.PathLike[str] | None = None,
    factor: float = 1.0,
) -> list[Pair]:
    """Read pairs from two folders by their file names, or from two files.

    Parameters
    ----------
    source, target : path
        Both folders or both files.
    masks : path, optional
        Folder of masks with the same names (or one file): pixels that are not 0 count. A pair without a
        mask file counts everywhere.
    axes : str, optional
        Axes of the images, where the files do not say.
    pattern : str
        Which files of the source folder.
    limit : int, optional
        The first so many by name, of each folder of a condition; None reads all.
    source_suffix, target_suffix, channel, factor
        See `patches.pairs_from_folders`.
    conditions : str or path, optional
        "subfolders": `source` holds a folder for each condition, `target` (and `masks`) folders of the same names, or
        what all share; images are then called ``C1/cell.tif``. Else a table of image and condition, CSV or TOML, see
        `conditions.read_conditions`. None: nothing is known.

    Returns
    -------
    list of Pair
        Sorted by name, below each condition's folder.

    Raises
    ------
    InputError
        If something is missing, unreadable or does not fit; all problems of a folder at once.
    """
    more: dict[str, Any] = {
        "axes": axes, "pattern": pattern, "limit": limit, "source_suffix": source_suffix, "target_suffix": target_suffix,
        "channel": channel,
        "factor": factor,
    }  # fmt: skip
    if conditions is None:
        return _read_all(source, target, masks, **more)
    if str(conditions) != SUBFOLDERS:
        pairs = _read_all(source, target, masks, **more)
        named = read_conditions(conditions, [pair.name for pair in pairs])
        return [replace(pair, condition=named[pair.name]) for pair in pairs]
    found = []
    for condition, low, high in condition_folders(Path(source), Path(target)):
        own = Path(masks) / condition if masks is not None else None
        for pair in _read_all(low, high, own if own is not None and own.is_dir() else masks, **more):
            found.append(replace(pair, name=f"{condition}/{pair.name}", condition=condition))
    return found


def _read_all(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None,
    *,
    axes: str | None,
    pattern: str,
    limit: int | None,
    source_suffix: str | None,
    target_suffix: str | None,
    channel: int | None,
    factor: float,
) -> list[Pair]:
    """Read the pairs of two folders, or of two files."""
    first, second = Path(source), Path(target)
    if first.is_dir() and not is_zarr(first):
        if second.is_file() or is_zarr(second):
            raise InputError(f"{str(first)!r} is a folder and {str(second)!r} a file; give two of a kind")
        # Checks names, readability, shapes and that pixels differ, of all files before the first is read.
        found = pairs_from_folders(
            first,
            second,
            axes=axes,
            pattern=pattern,
            source_suffix=source_suffix,
            target_suffix=target_suffix,
            channel=channel,
            factor=factor,
        )
        files = [(pair.files[0], pair.files[1]) for pair in found[:limit]]
    else:
        if first.exists() and second.is_dir() and not is_zarr(second):
            raise InputError(f"{str(first)!r} is a file and {str(second)!r} a folder; give two of a kind")
        missing = [str(path) for path in (first, second) if not path.exists()]
        if missing:
            raise InputError(f"no file or folder at {', '.join(map(repr, missing))}")
        if same_place(first, second):
            raise InputError(
                f"source and target are the same file, {str(first)!r}; give its ground truth as target"
            )
        files = [(first, second)]
    if (
        masks is not None
        and Path(masks).is_dir()
        and not is_zarr(masks)
        and not any((Path(masks) / one.name).exists() for one, _ in files)
    ):
        raise InputError(
            f"no mask in {str(masks)!r} has the name of an image, e.g. {files[0][0].name!r}; rename them"
        )
    pairs = [_read(one, other, masks, axes, channel) for one, other in files]
    own = [
        pair.name
        for pair in pairs
        if pair.source.axes == pair.target.axes and equal_pixels(pair.source.data, pair.target.data)
    ]
    refuse_own_truths(own, len(pairs))
    return pairs


def seen_in_training(pairs: Sequence[Pair], trained_on: Collection[str]) -> tuple[str, ...]:
    """Names of the pairs whose source or truth is among files that a model was trained on, by their SHA-256."""
    return tuple(pair.name for pair in pairs if set(pair.hashes) & set(trained_on))


def files_trained_on(model: str | os.PathLike[str]) -> frozenset[str]:
    """SHA-256 of the image files that a model folder or package says it was trained on; none where it does not say."""
    config = stated_config(model)
    made_of = config.provenance.get("data") if config is not None else None
    sides = [made_of.get(side) for side in ("source", "target")] if isinstance(made_of, dict) else []
    return frozenset(str(sha) for side in sides if isinstance(side, dict) for sha in side.values() if sha)


@contextmanager
def naming(pair: Pair) -> Iterator[None]:
    """Say which pair an error is about."""
    try:
        yield
    except InputError as error:
        if not pair.name or pair.name in str(error):
            raise
        raise InputError(f"{pair.name}: {error}") from error


def _read(
    source: Path,
    target: Path,
    masks: str | os.PathLike[str] | None,
    axes: str | None,
    channel: int | None,
) -> Pair:
    low, high = only_channel(read_image(source, axes), channel), read_image(target, axes)
    high = only_channel(high, channel if "C" in high.axes else None)
    mask = None
    if masks is not None:
        several = Path(masks).is_dir() and not is_zarr(masks)
        file = Path(masks) / source.name if several else Path(masks)
        if file.is_file() or is_zarr(file):
            mask = _mask(read_image(file, None), high, file)
        elif not several:
            raise InputError(f"no mask at {str(masks)!r}")
    return Pair(low, high, source.name, mask, (sha256(source), sha256(target)))


def _mask(image: Image, target: Image, file: Path) -> Mask:
    found: Any = next(iter(fields(image)))[1]
    wanted = next(iter(fields(target)))[1].shape
    if found.shape != wanted:
        raise InputError(
            f"mask {str(file)!r} has shape {found.shape}, its image {wanted}; they must be equal"
        )
    mask: Mask = np.asarray(found) != 0
    if not mask.any():
        raise InputError(f"mask {str(file)!r} is 0 everywhere; pixels that are not 0 count")
    return mask
