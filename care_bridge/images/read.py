"""TIFF, OME-TIFF and ImageJ hyperstacks, read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE, check_axes
from care_bridge.errors import InputError
from care_bridge.images.calibration import calibration
from care_bridge.images.claims import check_claims, check_pixels
from care_bridge.images.image import Image
from care_bridge.images.whole import check_imagej_stack, check_whole


def read_image(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | None = None, mapped: bool = False
) -> Image:
    """Read a TIFF, an OME-TIFF or an ImageJ hyperstack.

    Parameters
    ----------
    path : path
    axes : str, optional
        What the dimensions of the file mean, slowest first, e.g. "TYX" where ImageJ took frames for slices.
        None takes what the file says; needed where it says nothing.
    series : int, optional
        Which of several image series to read, from 0. None reads all; they become the axis S.
    mapped : bool
        Leave the pixels on the disk and map them into memory (read-only) where the file allows it: one
        uncompressed block. Otherwise they are read.

    Returns
    -------
    Image
        Pixels as stored, in the machine's byte order unless mapped. Dimensions of size 1 other than Y and X
        are left out, since files do not tell them from missing ones. `pixel_size_um` is empty for an
        uncalibrated file.

    Raises
    ------
    InputError
        If the file is no TIFF, is cut short, cannot be decoded, holds colours, or `axes` does not fit.
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
    with _opened(path) as file:
        data, file_axes = _pixels(file, path, axes, series, mapped)
        pixel_size_um, unit, frame_interval_s = calibration(file)
        data = _signed(file, data)
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
    """Axes, shape and type of a TIFF, with the checks of `read_image` but without reading its pixels."""
    path = Path(path)
    with _opened(path) as file:
        found, letters = _series(file, path, axes, series)
        shape = found[0].shape if len(found) == 1 else (len(found), *found[0].shape)
        return ImageHeader(letters, tuple(shape), found[0].dtype.newbyteorder("="))


def stored_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Shape of a TIFF's first series as the file counts its dimensions, whatever they mean.

    Dimensions of size 1 other than Y and X are left out.
    """
    with _opened(Path(path)) as file:
        check_pixels(file.series[:1], Path(path))
        return tuple(file.series[0].shape)


def _series(file: Any, path: Path, axes: str | None, series: int | None) -> tuple[list[Any], str]:
    """The image series to read, and letters for their dimensions."""
    found = list(file.series)
    if series is not None:
        if not 0 <= series < len(found):
            raise InputError(
                f"{str(path)!r} has {len(found)} image series; series={series} is none of 0-{len(found) - 1}"
            )
        found = [found[series]]
    if len({(one.shape, one.axes, one.dtype) for one in found}) > 1:
        kinds = ", ".join(f"{one.axes} {one.shape} {one.dtype}" for one in found[:6])
        raise InputError(
            f"{str(path)!r} holds {len(found)} images of different kinds ({kinds}); "
            "choose one with series=..., or save one image a file"
        )
    if file.is_ome and any(
        one.dataoffset is None and any(page is None for page in one.pages) for one in found
    ):
        raise InputError(
            f"{str(path)!r} is one file of several that make up an OME-TIFF, and the others are not beside it; "
            "copy them there, or save the image as one file"
        )
    if len(found) > 1 and not file.is_ome:
        # Only OME-TIFF means something by several series; elsewhere equal pages are one stack.
        found = found[:1]
    check_pixels(found, path)
    letters = _file_axes(found[0], path, axes, several=len(found) > 1, imagej=bool(file.is_imagej))
    return found, letters


def _pixels(
    file: Any, path: Path, axes: str | None, series: int | None, mapped: bool
) -> tuple[NDArray[Any], str]:
    found, letters = _series(file, path, axes, series)
    try:
        arrays = [_array(one, path, mapped and len(found) == 1) for one in found]
    except MemoryError as error:
        needed = sum(one.nbytes for one in found) / 2**30
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
    return data, letters


def _array(series: Any, path: Path, mapped: bool) -> NDArray[Any]:
    offset = series.dataoffset  # None unless the pixels are one uncompressed block
    if mapped and offset is not None and series.keyframe.is_memmappable:
        dtype = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
        return np.memmap(path, dtype, mode="r", offset=offset, shape=series.shape)
    data: NDArray[Any] = series.asarray()
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def _file_axes(series: Any, path: Path, axes: str | None, *, several: bool, imagej: bool) -> str:
    """Letters for the dimensions of a series, in this package's alphabet."""
    stored: str = series.axes
    shape: tuple[int, ...] = series.shape
    if several:
        shape, stored = (0, *shape), "n" + stored  # n: the series, once stacked
    if axes is not None:
        axes = check_axes(axes)
        if len(axes) != len(shape):
            raise InputError(
                f"{str(path)!r} has {len(shape)} dimensions (the file calls them {series.axes}, "
                f"shape {series.shape}), but axes={axes!r} names {len(axes)}"
            )
        return axes
    if "S" in stored:
        raise InputError(
            f"{str(path)!r} is a colour image (RGB; shape {series.shape}), where each channel should be "
            "one number a pixel; in Fiji use Image > Type > 16-bit, or Image > Color > Split Channels; "
            f"axes={stored.replace('S', 'C')!r} reads the colours as channels"
        )
    letters = stored.replace("n", "S")
    if imagej and "Z" not in letters:
        letters = letters.replace("I", "Z")  # ImageJ itself takes a plain stack for slices
    unknown = [letter for letter in letters if letter not in "STCZYX"]
    if unknown or len(set(letters)) < len(letters):
        raise InputError(
            f"{str(path)!r} (shape {series.shape}) does not say what its dimensions mean; "
            f"give axes, e.g. axes={'TCZYX'[-len(shape) :] if len(shape) != 3 else 'ZYX'!r}"
        )
    return letters


def _signed(file: Any, data: NDArray[Any]) -> NDArray[Any]:
    meta = file.imagej_metadata or {}
    if (
        data.dtype == np.uint16
        and meta.get("cf", 0) == 0
        and meta.get("c0") == -32768
        and meta.get("c1") == 1
    ):
        return (data.astype(np.int32) - 32768).astype(np.int16)
    return data


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
