"""An image that is written box by box: an OME-Zarr, or one uncompressed block of a TIFF.

Where nothing can go wrong is decided here: the boxes that one writer writes are whole shards of a zarr, and the bytes of
a TIFF that nobody else touches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.defaults import OME_ZARR
from care_bridge.errors import InputError
from care_bridge.images.image import Image
from care_bridge.images.ome_zarr import ZARR
from care_bridge.images.ome_zarr_write import (
    CHUNK_PX,
    STORED,
    ZarrPlan,
    create_level,
    open_level,
    plan_ome_zarr,
    write_metadata,
    write_pyramid,
)
from care_bridge.images.write import allocate_tiff, tiff_kind
from care_bridge.progress import Progress, silent

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Target:
    """Where an image goes box by box.

    Attributes
    ----------
    meaning : Image
        Of no pixels that matter: axes as the boxes have them, pixel sizes, channels, name.
    shape : tuple of int
        Along those axes.
    dtype : dtype
    format : str
        As of a `WriteReport`.
    zarr : ZarrPlan, optional
        None: a TIFF.
    """

    meaning: Image
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    format: str
    zarr: ZarrPlan | None = None

    def create(self, path: Path, provenance: str = "") -> None:
        """Make the empty image."""
        if self.zarr is not None:
            path.mkdir(parents=True)
            create_level(path, self.zarr)
        else:
            allocate_tiff(path, self.meaning, self._sizes("TZCYX"), self.dtype, self.format, provenance)

    def write(self, path: Path, box: Box, data: NDArray[Any]) -> None:
        """Write a box, whole shards of a zarr, so that it is on the disk when this returns.

        Raises
        ------
        InputError
            If a box cuts through a shard: another writer of the same one would lose pixels.
        """
        axes = self.meaning.axes
        stored = self.zarr.axes if self.zarr is not None else "TZCYX"
        where = dict(zip(axes, box, strict=True))
        place = tuple(where.get(letter, slice(0, 1)) for letter in stored)
        pixels = move_axes(np.asarray(data, self.dtype), axes, stored)
        if self.zarr is None:
            self._write_tiff(path, place, pixels)
            return
        for part, edge, size in zip(place, self.zarr.block, self.zarr.shape, strict=True):
            if part.start % edge or (part.stop % edge and part.stop != size):
                raise InputError(
                    f"box {place} cuts through shards of {self.zarr.block}; two writers of one shard would lose pixels"
                )
        array = open_level(path)
        array[place] = pixels
        for file in _block_files(path / "0", array, self.zarr, place):
            _flush(file)

    def _write_tiff(self, path: Path, place: Box, pixels: NDArray[Any]) -> None:
        import tifffile

        with tifffile.TiffFile(path) as file:
            offset, order = file.series[0].dataoffset, file.byteorder
        # Mapped anew, so that what was written does not count as memory of this process.
        kind = self.dtype.newbyteorder(order)
        mapped = np.memmap(path, kind, mode="r+", offset=offset, shape=self._sizes("TZCYX"))
        mapped[place] = pixels
        mapped.flush()

    def finish(
        self,
        path: Path,
        *,
        provenance: str = "",
        first: int = 1,
        finished: Callable[[int], object] = lambda level: None,
        progress: Progress = silent,
    ) -> None:
        """Write what a viewer needs besides: the smaller copies of a zarr from `first` on, and last its metadata."""
        if self.zarr is None:
            return
        write_pyramid(path, self.zarr, first=first, finished=finished, progress=progress)
        for left in path.rglob("*.partial"):  # what zarr was writing when it was killed
            left.unlink()
        write_metadata(path, self.zarr, provenance=provenance)

    def _sizes(self, stored: str) -> tuple[int, ...]:
        sizes = dict(zip(self.meaning.axes, self.shape, strict=True))
        return tuple(sizes.get(letter, 1) for letter in stored)


def plan_target(
    path: Path,
    meaning: Image,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    cores: Mapping[str, int],
    ome_zarr: str = OME_ZARR,
    shards: Mapping[str, int] | None = None,
) -> Target:
    """How an image is to be written in boxes of a given size.

    Parameters
    ----------
    path : Path
        Its name says what it becomes.
    meaning : Image
        See `Target`.
    shape, dtype
        Of the whole.
    cores : mapping of str to int
        Pixels of a box along each axis; boxes begin at multiples of them.
    ome_zarr : str
        Version, where it is one.
    shards : mapping of str to int, optional
        Pixels that an OME-Zarr keeps in one file, along each axis that is named; None: those of a box.

    Raises
    ------
    InputError
        If a box is smaller than a shard or cuts through one, or there is an axis S.
    """
    if "S" in meaning.axes:
        raise InputError("a series of images (axis S) is not written piece by piece; restore them one by one")
    if path.suffix.lower() != ZARR:
        nbytes = math.prod(shape) * dtype.itemsize
        return Target(meaning, shape, dtype, tiff_kind(path, meaning, dtype, nbytes))
    axes = "".join(letter for letter in STORED if letter in meaning.axes)
    sizes = dict(zip(meaning.axes, shape, strict=True))
    chunks, blocks = [], []
    for letter in axes:
        size, core = sizes[letter], 1 if letter == "C" else min(cores[letter], sizes[letter])
        block = (shards or {}).get(letter, core)
        if core < size and core % block:
            raise InputError(
                f"tiles of {core} pixels along {letter} cut through shards of {block}, of which two writers would lose "
                "pixels; give shards that tiles are whole multiples of"
            )
        most = CHUNK_PX.get(letter, 1)
        chunk = _divisor(block, most) if core < size or (shards or {}).get(letter) else min(block, most)
        chunks.append(chunk)
        blocks.append(-(-block // chunk) * chunk)
    plan = plan_ome_zarr(
        axes,
        [sizes[letter] for letter in axes],
        dtype,
        version=ome_zarr,
        pixel_size_um=meaning.pixel_size_um,
        frame_interval_s=meaning.frame_interval_s,
        unit=meaning.unit,
        name=meaning.name,
        channels=meaning.channels,
    )
    plan = plan.replace(chunks=tuple(chunks), shards=None if plan.shards is None else tuple(blocks))
    return Target(meaning, shape, dtype, f"ome-zarr-{plan.version}", plan)


def _divisor(size: int, most: int) -> int:
    """The largest divisor that is no larger; the size itself where that would be a splinter."""
    found = next(part for part in range(min(size, most), 0, -1) if size % part == 0)
    return found if 4 * found >= min(size, most) else size


def _block_files(array_path: Path, array: Any, plan: ZarrPlan, place: Box) -> list[Path]:
    numbers = [
        range(part.start // edge, -(-part.stop // edge)) for part, edge in zip(place, plan.block, strict=True)
    ]
    files = []
    for index in np.ndindex(*map(len, numbers)):
        key = array.metadata.encode_chunk_key(
            tuple(several[at] for several, at in zip(numbers, index, strict=True))
        )
        files.append(array_path / key)
    return files


def _flush(file: Path) -> None:
    try:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    except FileNotFoundError:
        return  # nothing but the fill value, which zarr leaves out
