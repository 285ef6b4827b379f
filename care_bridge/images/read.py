"""TIFF, OME-TIFF, ImageJ hyperstacks and OME-Zarr, read."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
from care_bridge.errors import InputError
from care_bridge.images.calibration import calibration
from care_bridge.images.claims import check_claims, check_pixels
from care_bridge.images.image import Image
from care_bridge.images.layout import HeaderWarning, Layout, full_size, layout, named
from care_bridge.images.ome_zarr import is_zarr, open_ome_zarr
from care_bridge.images.volume import Volume
from care_bridge.images.whole import check_imagej_stack, check_whole

Shape = tuple[int, ...]


def read_image(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | None = None, mapped: bool = False
) -> Image:
    """Read a TIFF, an OME-TIFF, an ImageJ hyperstack or an OME-Zarr.

    Parameters
    ----------
    path : path
    axes : str, optional
        What the dimensions of the file mean, slowest first, e.g. "TYX" where ImageJ took frames for slices.
        None takes what the file says; needed where it says nothing. A letter that the file lacks has size 1.
    series : int, optional
        Which of several image series to read, from 0. None reads all, but for those marked as smaller copies
        (thumbnails) or masks; those of an OME-TIFF become the axis S. Of an OME-Zarr one has to be chosen.
    mapped : bool
        Leave the pixels on the disk and map them into memory (read-only) where the file allows it: one
        uncompressed block. Otherwise they are read; an OME-Zarr always.

    Returns
    -------
    Image
        Pixels as stored, in the machine's byte order unless mapped. Dimensions of size 1 other than Y and X
        are left out, since files do not tell them from missing ones. Several samples a pixel are channels, where
        the file does not call them colours; one bit a pixel becomes 0 and 255. `pixel_size_um` is empty for an
        uncalibrated file. Of an OME-Zarr the largest of its pyramid, with the names and colours of channels.

    Warns
    -----
    HeaderWarning
        If the header promises other planes than the file holds; those that are there are taken. If an OME-Zarr lacks
        smaller copies, says a version that is not its own, or gives sizes without a unit.

    Raises
    ------
    InputError
        If the file is no TIFF or OME-Zarr, is cut short or unfinished, cannot be decoded, holds colours, is larger than
        memory, or `axes` does not fit.
    FileNotFoundError
        If it is not there.

    Notes
    -----
    Calibration: OME-XML (PhysicalSize, TimeIncrement); ImageJ's description (unit, spacing, finterval) with
    the resolution tags; resolution tags in centimetres where they give at most 50 um a pixel. Resolutions in
    inches are what printers use and count only where ImageJ says that its unit is the inch. ImageJ stores
    signed 16-bit images as unsigned ones with an offset of -32768; they come back signed.
    """
    path = Path(path)
    if is_zarr(path):
        return open_ome_zarr(path, axes, series=series).read()
    with _opened(path) as file:
        data, file_axes = _pixels(file, path, axes, series, mapped)
        pixel_size_um, unit, frame_interval_s = calibration(file)
        data = _unsigned(data, _is_signed(file, data.dtype))
    return Image(
        data=data,
        axes=file_axes,
        pixel_size_um={
            letter: pixel_size_um[letter]
            for letter in SPACE
            if letter in pixel_size_um and letter in file_axes
        },
        frame_interval_s=frame_interval_s if "T" in file_axes else None,
        unit=unit,
        name=path.name,
    )


def open_volume(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | None = None
) -> Volume:
    """An image of any size, whose pixels stay on the disk until a box of them is asked for.

    Parameters
    ----------
    path, axes, series
        As for `read_image`, whose result a volume's `read` gives.

    Returns
    -------
    Volume
        Sliced like an array. Of an uncompressed TIFF the box alone is read, of any other whole planes.

    Raises
    ------
    InputError
        As `read_image`; also if a TIFF's images would become an axis S.
    """
    path = Path(path)
    if is_zarr(path):
        return open_ome_zarr(path, axes, series=series)
    with _opened(path) as file:
        found, letters, shape = _series(file, path, axes, series)
        if len(found) > 1:
            raise InputError(
                f"{str(path)!r} holds {len(found)} images; choose one with series=0 (predict --series 0)"
            )
        pixel_size_um, unit, frame_interval_s = calibration(file)
        signed = _is_signed(file, found[0].dtype)
        stored = found[0]
        page = tuple(stored.series.keyframe.shape)
        offset = stored.series.dataoffset
        mappable = (
            stored.planes is None
            and stored.series.dtype.kind != "b"
            and offset is not None
            and stored.series.keyframe.is_memmappable
        )
    dtype = np.dtype(np.int16) if signed else stored.dtype
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype

    def mapped(box: tuple[slice, ...]) -> NDArray[Any]:
        kind = stored.series.dtype.newbyteorder(stored.series.keyframe.parent.byteorder)
        # Mapped anew, so that what was read does not count as memory of this process.
        whole = np.memmap(path, kind, mode="r", offset=offset, shape=shape)
        return _unsigned(np.array(whole[box], kind.newbyteorder("=")), signed)

    def decoded(box: tuple[slice, ...]) -> NDArray[Any]:
        return _unsigned(_planes_in(path, series, box, shape), signed)

    return Volume(
        path=path,
        axes=letters,
        shape=shape,
        dtype=dtype,
        read_box=mapped if mappable else decoded,
        block=tuple(
            size if not mappable and len(shape) - number <= _page_dimensions(shape, page) else 1
            for number, size in enumerate(shape)
        ),
        pixel_size_um={
            letter: pixel_size_um[letter] for letter in SPACE if letter in pixel_size_um and letter in letters
        },
        frame_interval_s=frame_interval_s if "T" in letters else None,
        unit=unit,
        name=path.name,
    )


def _page_dimensions(shape: Shape, page: Shape) -> int:
    """How many of the last dimensions one page fills."""
    n = 0
    while n < len(shape) and prod(shape[len(shape) - n :]) < prod(page):
        n += 1
    return n


def _planes_in(path: Path, series: int | None, box: tuple[slice, ...], shape: Shape) -> NDArray[Any]:
    """A box of an image whose planes have to be decoded whole."""
    with _opened(path) as file:
        found = _series(file, path, None, series)[0][0] if series is not None else None
        found = found or layout(file, full_size(file)[0], path)
        pages = found.planes if found.planes is not None else found.series.pages
        n = _page_dimensions(shape, tuple(found.series.keyframe.shape))
        leading, inner = box[: len(shape) - n], box[len(shape) - n :]
        counts = shape[: len(shape) - n]
        out: NDArray[Any] | None = None
        for place in np.ndindex(*(part.stop - part.start for part in leading)):
            where = tuple(part.start + number for part, number in zip(leading, place, strict=True))
            plane = pages[int(np.ravel_multi_index(where, counts)) if counts else 0].asarray()
            data = plane.reshape(shape[len(shape) - n :])[inner]
            if out is None:
                sizes = tuple(part.stop - part.start for part in box)
                out = np.empty(sizes, np.uint8 if data.dtype.kind == "b" else data.dtype.newbyteorder("="))
            out[place] = data * np.uint8(255) if data.dtype.kind == "b" else data
    assert out is not None
    return out


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its pixels without their being read.

    Attributes
    ----------
    axes : str
    shape : tuple of int
    dtype : dtype
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_header(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | None = None
) -> ImageHeader:
    """Axes, shape and type of an image, with the checks of `read_image` but without reading its pixels."""
    path = Path(path)
    if is_zarr(path):
        volume = open_ome_zarr(path, axes, series=series)
        return ImageHeader(volume.axes, volume.shape, volume.dtype)
    with _opened(path) as file:
        found, letters, shape = _series(file, path, axes, series)
        dtype = found[0].dtype
        return ImageHeader(letters, shape, np.dtype(np.uint8) if dtype.kind == "b" else dtype)


def stored_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Shape of a TIFF's first image, whatever its dimensions mean, or of an OME-Zarr.

    Dimensions of size 1 other than Y and X are left out.
    """
    path = Path(path)
    if is_zarr(path):
        return open_ome_zarr(path).shape
    with _opened(path) as file:
        found = layout(file, full_size(file)[0], path)
        check_pixels([found], path)
    return tuple(
        size for letter, size in zip(found.axes, found.shape, strict=True) if size > 1 or letter in "YX"
    )


def _series(file: Any, path: Path, axes: str | None, series: int | None) -> tuple[list[Layout], str, Shape]:
    """The image series to read, letters for their dimensions, and the shape that all have together."""
    if series is not None:
        every = list(file.series)
        if not 0 <= series < len(every):
            raise InputError(
                f"{str(path)!r} has {len(every)} image series; series={series} is none of 0-{len(every) - 1}"
            )
        chosen = [every[series]]
    else:
        chosen = full_size(file)
    if len({(one.shape, one.axes, one.dtype) for one in chosen}) > 1:
        numbers = [list(file.series).index(one) for one in chosen]
        kinds = ", ".join(f"{one.axes} {one.shape} {one.dtype}" for one in chosen[:6])
        raise InputError(
            f"{str(path)!r} holds {len(chosen)} images of different kinds ({kinds}); "
            f"choose one with series={numbers[0]} (predict --series {numbers[0]}), or save one image a file"
        )
    found = [layout(file, one, path) for one in chosen]
    if len({one.shape for one in found}) > 1:
        longest = max(prod(one.shape) for one in found)
        short = [number for number, one in enumerate(found) if prod(one.shape) < longest]
        found = [one for one in found if prod(one.shape) == longest]
        warnings.warn(
            f"{str(path)!r}: of its {len(chosen)} image series, those that were stopped early are left out "
            f"({', '.join(map(str, short))}); read one with series=... (predict --series)",
            HeaderWarning,
            stacklevel=2,
        )
    check_pixels(found, path)
    letters, shape = named(found[0], path, axes, n_series=len(found), imagej=bool(file.is_imagej))
    if found[0].dtype.kind not in "buif":
        raise InputError(f"{str(path)!r} holds {found[0].dtype}; integers or floats can be restored")
    return found, letters, shape


def _pixels(
    file: Any, path: Path, axes: str | None, series: int | None, mapped: bool
) -> tuple[NDArray[Any], str]:
    found, letters, shape = _series(file, path, axes, series)
    try:
        arrays = [_array(one, path, mapped and len(found) == 1) for one in found]
    except MemoryError as error:
        needed = sum(one.series.nbytes for one in found) / 2**30
        raise InputError(
            f"{str(path)!r} holds {needed:.3g} GiB of pixels, more than there is memory; if that cannot be, the file "
            "is damaged, else cut it into parts or save it uncompressed, so that it can be mapped"
        ) from error
    except Exception as error:
        raise InputError(
            f"{str(path)!r}: its pixels cannot be decoded ({error or type(error).__name__}); "
            "save it again from the original, uncompressed if need be"
        ) from error
    data = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    return data.reshape(shape), letters


def _array(found: Layout, path: Path, mapped: bool) -> NDArray[Any]:
    series = found.series
    if mapped and found.planes is None and series.dtype.kind != "b":
        offset = series.dataoffset  # None unless the pixels are one uncompressed block
        if offset is not None and series.keyframe.is_memmappable:
            dtype = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
            return np.memmap(path, dtype, mode="r", offset=offset, shape=found.shape)
    data = found.read()
    # One bit a pixel is 0 and 255 in ImageJ, and so it is when a mask is written here.
    return data.astype(np.uint8) * np.uint8(255) if data.dtype.kind == "b" else data


def _is_signed(file: Any, dtype: np.dtype[Any]) -> bool:
    meta = file.imagej_metadata or {}
    return bool(
        dtype == np.uint16 and meta.get("cf", 0) == 0 and meta.get("c0") == -32768 and meta.get("c1") == 1
    )


def _unsigned(data: NDArray[Any], signed: bool) -> NDArray[Any]:
    """Pixels that ImageJ stored with an offset as what they are."""
    return (data.astype(np.int32) - 32768).astype(np.int16) if signed else data


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A whole TIFF as tifffile has it; everything that damage makes tifffile raise becomes one sentence."""
    import tifffile

    directories = check_whole(path)
    # No log lines on stderr: what they tell of is looked at, and said, here.
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as file:
            check_imagej_stack(file, path, directories)
            check_claims(file, path, directories)
            yield file
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{str(path)!r} is a damaged TIFF ({type(error).__name__}: {error}); save it again from the original"
        ) from error
    finally:
        logger.setLevel(before)
