"""Images to be scored and their truths, read from files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import Mask, fields
from care_bridge.files import sha256
from care_bridge.images import Image, read_image
from care_bridge.patches.pairs import PATTERN, pairs_from_folders


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
    """

    source: Image
    target: Image
    name: str
    mask: Mask | None = None
    hashes: tuple[str, ...] = ()


def read_pairs(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    axes: str | None = None,
    pattern: str = PATTERN,
    limit: int | None = None,
) -> list[Pair]:
    """Read pairs from two folders by equal file names, or from two files.

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
        The first so many by name; None reads all.

    Returns
    -------
    list of Pair
        Sorted by name.

    Raises
    ------
    InputError
        If something is missing, unreadable or does not fit; all problems of a folder at once.
    """
    first, second = Path(source), Path(target)
    if first.is_dir():
        if second.is_file():
            raise InputError(f"{str(first)!r} is a folder and {str(second)!r} a file; give two of a kind")
        # Checks names, readability and shapes of all files before the first is read.
        names = [pair.name for pair in pairs_from_folders(first, second, axes=axes, pattern=pattern)][:limit]
        files = [(first / name, second / name) for name in names]
    else:
        if first.is_file() and second.is_dir():
            raise InputError(f"{str(first)!r} is a file and {str(second)!r} a folder; give two of a kind")
        missing = [str(path) for path in (first, second) if not path.exists()]
        if missing:
            raise InputError(f"no file or folder at {', '.join(map(repr, missing))}")
        files = [(first, second)]
    if (
        masks is not None
        and Path(masks).is_dir()
        and not any((Path(masks) / one.name).exists() for one, _ in files)
    ):
        raise InputError(
            f"no mask in {str(masks)!r} has the name of an image, e.g. {files[0][0].name!r}; rename them"
        )
    return [_read(one, other, masks, axes) for one, other in files]


@contextmanager
def naming(pair: Pair) -> Iterator[None]:
    """Say which pair an error is about."""
    try:
        yield
    except InputError as error:
        if not pair.name or pair.name in str(error):
            raise
        raise InputError(f"{pair.name}: {error}") from error


def _read(source: Path, target: Path, masks: str | os.PathLike[str] | None, axes: str | None) -> Pair:
    low, high = read_image(source, axes), read_image(target, axes)
    mask = None
    if masks is not None:
        file = Path(masks) / source.name if Path(masks).is_dir() else Path(masks)
        if file.is_file():
            mask = _mask(read_image(file, None), high, file)
        elif not Path(masks).is_dir():
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
