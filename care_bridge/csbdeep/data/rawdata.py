"""csbdeep.data.RawData: pairs of raw images, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.arrays import array_of
from care_bridge.errors import InputError
from care_bridge.images import read_image, stored_shape

Pair = tuple[NDArray[Any], NDArray[Any], str, NDArray[np.bool_] | None]
"""Source, target, axes of both, and a mask of where patches may lie."""


class RawData(NamedTuple):
    """Pairs of raw images.

    Attributes
    ----------
    generator : callable
        Without arguments; gives an iterator over (source, target, axes, mask).
    size : int
        How many pairs it yields.
    description : str
    names : tuple of str
        Of the pairs, for messages and provenance; empty where they have none.
    """

    generator: Callable[[], Iterator[Pair]]
    size: int
    description: str
    names: tuple[str, ...] = ()

    @staticmethod
    def from_folder(
        basepath: str | os.PathLike[str],
        source_dirs: Iterable[str],
        target_dir: str,
        axes: str = "CZYX",
        pattern: str = "*.tif*",
    ) -> RawData:
        """Pairs of TIFFs of equal name in folders below `basepath`.

        Parameters
        ----------
        basepath : path
        source_dirs : sequence of str
            Folders of source images.
        target_dir : str
            Folder of their targets.
        axes : str
            Of all images; files with fewer dimensions take the last letters.
        pattern : str
            Which files of the source folders.

        Returns
        -------
        RawData
            Sorted by folder and name. Images are read one at a time.

        Raises
        ------
        FileNotFoundError
            If there is no image, or for all images together that have no target.
        """
        base = Path(basepath)
        axes = check_axes(axes)
        folders = [base / folder for folder in source_dirs]
        pairs = _paired(folders, base / target_dir, pattern)

        def generate() -> Iterator[Pair]:
            for source, target in pairs:
                x, y = _read(source, axes), _read(target, axes)
                yield x, y, axes[-x.ndim :], None

        description = (
            f"{basepath}: target='{target_dir}', sources={[folder.name for folder in folders]}, "
            f"axes='{axes}', pattern='{pattern}'"
        )
        names = tuple(str(source.relative_to(base)) for source, _ in pairs)
        return RawData(generate, len(pairs), description, names)

    @staticmethod
    def from_arrays(
        X: Sequence[NDArray[Any]],
        Y: Sequence[NDArray[Any]],
        axes: str = "CZYX",
    ) -> RawData:
        """Pairs of arrays; those with fewer dimensions than `axes` take its last letters."""
        if len(X) != len(Y):
            raise InputError(f"X has {len(X)} images and Y {len(Y)}; give one target a source")

        def generate() -> Iterator[Pair]:
            for source, target in zip(X, Y, strict=True):
                x, y = array_of(source, "X"), array_of(target, "Y")
                if x.ndim > len(axes):
                    raise InputError(f"an image has {x.ndim} dimensions, axes={axes!r} name {len(axes)}")
                yield x, y, axes[-x.ndim :], None

        return RawData(generate, len(X), "numpy array", tuple(f"image {index}" for index in range(len(X))))


def _paired(folders: Sequence[Path], target: Path, pattern: str) -> list[tuple[Path, Path]]:
    """Sources in order of folder and name, each with its target."""
    files = [file for folder in folders for file in sorted(folder.glob(pattern))]
    if not files:
        raise FileNotFoundError(
            f"no image fits {pattern!r} in {', '.join(str(folder) for folder in folders)}; "
            "give other folders or another pattern"
        )
    pairs = [(file, target / file.name) for file in files]
    missing = [str(wanted) for _, wanted in pairs if not wanted.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(pairs)} targets do not exist: {', '.join(missing)}")
    return pairs


def _read(path: Path, axes: str) -> NDArray[Any]:
    shape = stored_shape(path)
    if len(shape) > len(axes):
        raise InputError(
            f"{str(path)!r} has {len(shape)} dimensions (shape {shape}), axes={axes!r} name {len(axes)}"
        )
    return read_image(path, axes[-len(shape) :]).data
