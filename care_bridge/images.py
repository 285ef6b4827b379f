"""Images: pixels, axis letters and pixel size, checked once; read from and written to TIFF."""

from __future__ import annotations

import dataclasses
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from care_bridge.axes import SPACE, check_axes, move_axes
from care_bridge.errors import InputError
from care_bridge.files import atomic_file

IMAGEJ, OME = "imagej-tiff", "ome-tiff"
"""The two kinds of TIFF that are written."""

_UM_PER_UNIT = {
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre", "um", "\u00b5m", "\u03bcm"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
}
_SECONDS_PER_UNIT = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("\u00b5s", "us", "usec"), 1e-6),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}
_OME_UNIT = {
    1.0: "\u00b5m",
    1e-3: "nm",
    1e-6: "pm",
    1e-4: "\u00c5",
    1e3: "mm",
    1e4: "cm",
    1e6: "m",
    25400.0: "in",
}

# Coarser "pixels a centimetre" are a printer's resolution (72 dpi is 353 um), not a microscope's.
_COARSEST_UM = 50.0

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")
# Offsets of a classic TIFF are 32 bits; ImageJ's own way around that is not TIFF any more.
_IMAGEJ_LIMIT_BYTES = 2**32 - 2**25


def um_per_unit(unit: str) -> float | None:
    """Micrometres in a unit of length as files spell it ("micron", "nm", "\u00b5m"...); None for what is none."""
    return _UM_PER_UNIT.get(_spelling(unit).lower())


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels with their meaning.

    Attributes
    ----------
    data : ndarray
        One dimension a letter of `axes`; integers or floats.
    axes : str
        Letters of STCZYX, slowest first, as NumPy orders them.
    pixel_size_um : mapping of str to float
        Micrometres a pixel for the space axes that are calibrated; empty when nothing is known.
    frame_interval_s : float, optional
        Seconds a frame; None when unknown.
    unit : str
        How the file that the image came from spells its unit of length; written again when saved.
    name : str
        Title, usually the file's name.
    """

    data: NDArray[Any]
    axes: str
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_interval_s: float | None = None
    unit: str = "micron"
    name: str = ""

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if isinstance(self.data, np.memmap):
            data = self.data  # asarray would drop that it is mapped
        if data.dtype.kind not in "buif":
            raise InputError(f"image {self.name!r} holds {data.dtype}; integers or floats can be restored")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "axes", check_axes(self.axes, ndim=data.ndim))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def size(self, axis: str) -> int:
        """Size along an axis; 1 where the image has no such axis."""
        return self.data.shape[self.axes.index(axis)] if axis in self.axes else 1

    def replace(self, **changes: Any) -> Image:
        """The same image with some attributes changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class WriteReport:
    """What happened to the values of an image while it was saved.

    Attributes
    ----------
    path : Path
    format : str
        `imagej-tiff` or `ome-tiff`.
    dtype : str
        Type in the file.
    clipped_low, clipped_high : float
        Share of pixels, 0-1, that lay below or above what the type can hold and were set to its limits.
    not_a_number : float
        Share of pixels, 0-1, that were NaN and became 0 because integers have no NaN.
    notes : tuple of str
        Everything else that was decided for the caller, a sentence each.
    """

    path: Path
    format: str
    dtype: str
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    not_a_number: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def clipped(self) -> float:
        """Share of pixels that were clipped, 0-1."""
        return self.clipped_low + self.clipped_high

    def __str__(self) -> str:
        parts = [f"{self.path.name}: {self.dtype}, {self.format}"]
        if self.clipped:
            parts.append(
                f"{100 * self.clipped:.3g} % of the pixels clipped "
                f"({100 * self.clipped_low:.3g} % below, {100 * self.clipped_high:.3g} % above)"
            )
        if self.not_a_number:
            parts.append(f"{100 * self.not_a_number:.3g} % of the pixels were NaN and are 0 now")
        return "; ".join([*parts, *self.notes])


# Reading ----------------------------------------------------------------------------------------------------


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
        pixel_size_um, unit, frame_interval_s = _calibration(file)
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


def _calibration(file: Any) -> tuple[dict[str, float], str, float | None]:
    """Micrometres a pixel, the unit as spelt, seconds a frame."""
    if file.is_ome:
        return _ome_calibration(file.ome_metadata)
    if file.is_imagej:
        return _imagej_calibration(file)
    page = file.pages.first
    sizes = {}
    if _tag(page, "ResolutionUnit") == 3:
        sizes = {axis: size * 1e4 for axis, size in _resolution(page).items() if size * 1e4 <= _COARSEST_UM}
    return sizes, "micron" if sizes else "pixel", None


def _imagej_calibration(file: Any) -> tuple[dict[str, float], str, float | None]:
    meta = file.imagej_metadata
    interval = _positive(meta.get("finterval"))
    if interval is not None:
        interval *= _SECONDS_PER_UNIT.get(str(meta.get("tunit", "")).lower(), 1.0)
    unit = _spelling(meta.get("unit", ""))
    um = _UM_PER_UNIT.get(unit.lower())
    if um is None:
        return {}, "pixel", interval
    sizes = _resolution(file.pages.first)
    spacing = _positive(meta.get("spacing"))
    if spacing is not None:
        sizes["Z"] = spacing
    # ImageJ adds yunit and zunit only where they differ from unit.
    factors = {
        "X": um,
        **{axis: _UM_PER_UNIT.get(_spelling(meta.get(f"{axis.lower()}unit", unit)).lower()) for axis in "YZ"},
    }
    return {axis: size * factor for axis, size in sizes.items() if (factor := factors[axis])}, unit, interval


def _ome_calibration(xml: str) -> tuple[dict[str, float], str, float | None]:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}, "pixel", None
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return {}, "pixel", None
    sizes, unit = {}, "pixel"
    for axis in SPACE:
        size = _positive(pixels.get(f"PhysicalSize{axis}"))
        spelt = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
        um = _UM_PER_UNIT.get(spelt.lower())
        if size is not None and um is not None:
            sizes[axis], unit = size * um, spelt  # X comes last: its spelling wins
    interval = _positive(pixels.get("TimeIncrement"))
    if interval is not None:
        interval *= _SECONDS_PER_UNIT.get(pixels.get("TimeIncrementUnit", "s").lower(), 1.0)
    return sizes, unit, interval


def _spelling(unit: Any) -> str:
    # ImageJ writes letters beyond ASCII as \u00B5.
    return str(unit).strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")


def _resolution(page: Any) -> dict[str, float]:
    """Size of a pixel from the resolution tags, in the unit that they are a number a."""
    sizes = {}
    for axis in "XY":
        value = _tag(page, f"{axis}Resolution")
        if value and value[0] > 0 and value[1] > 0:
            sizes[axis] = value[1] / value[0]
    return sizes


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _positive(value: Any) -> float | None:
    try:
        number = abs(float(value))  # ImageJ writes a negative spacing for stacks taken downwards
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A whole TIFF as tifffile has it; everything that damage makes tifffile raise becomes one sentence."""
    import tifffile

    directories = _check_whole(path)
    # No log lines on stderr: what they tell of is looked at, and said, here.
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as file:
            _check_imagej_stack(file, path, directories)
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


# Is the file whole? -----------------------------------------------------------------------------------------


def _check_whole(path: Path) -> int:
    """Follow the chain of image directories and see that every strip or tile lies inside the file.

    Returns the number of directories.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(16)
        if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            what = "is empty" if not size else f"is not a TIFF (it starts with {header[:4]!r})"
            raise InputError(
                f"{str(path)!r} {what}; save it as TIFF, e.g. in Fiji with File > Save As > Tiff..."
            )
        try:
            ends = list(_extents(file, header))
        except struct.error:  # also for offsets and counts that no file has
            ends = [size + 1]
    needed = max(ends, default=0)
    if needed > size:
        raise InputError(
            f"{str(path)!r} is cut short: it has {size} bytes, its directories point to byte {needed} "
            "or beyond; copy or save it again"
        )
    return len(ends)


def _extents(file: BinaryIO, header: bytes) -> Iterator[int]:
    """For each directory of a TIFF, the end of what it points to, in bytes from the start of the file."""
    order = "<" if header[:2] == b"II" else ">"
    big = header[2:4] in (b"+\0", b"\0+")
    count_format, entry_size, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    (position,) = struct.unpack_from(order + offset_format, header, 8 if big else 4)
    seen = set()
    while position and position not in seen:
        seen.add(position)
        _seek(file, position)
        (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
        if count > os.fstat(file.fileno()).st_size:
            raise struct.error("more entries than the file has bytes")
        block = file.read(count * entry_size + struct.calcsize(offset_format))
        own_end = position + struct.calcsize("=" + count_format) + count * entry_size
        (following,) = struct.unpack_from(order + offset_format, block, count * entry_size)
        tags = {}
        for index in range(count):
            tag, kind, number = struct.unpack_from(order + "HH" + offset_format, block, index * entry_size)
            if tag in (273, 279, 324, 325):  # StripOffsets, StripByteCounts, TileOffsets, TileByteCounts
                inline = block[index * entry_size + (12 if big else 8) : (index + 1) * entry_size]
                tags[tag] = _tag_values(file, order, kind, number, inline, offset_format)
        ends = [
            start + length
            for offsets, lengths in ((273, 279), (324, 325))
            for start, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if start
        ]
        yield max([own_end, *ends])
        position = following


def _tag_values(
    file: BinaryIO, order: str, kind: int, number: int, inline: bytes, offset_format: str
) -> tuple[int, ...]:
    letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if letter is None:
        return ()
    length = number * struct.calcsize("=" + letter)
    if length > len(inline):
        _seek(file, struct.unpack(order + offset_format, inline)[0])
        if length > os.fstat(file.fileno()).st_size:
            raise struct.error("more values than the file has bytes")
        inline = file.read(length)
    return struct.unpack_from(f"{order}{number}{letter}", inline)


def _seek(file: BinaryIO, position: int) -> None:
    if position > os.fstat(file.fileno()).st_size:
        raise struct.error("an offset behind the end")
    file.seek(position)


def _check_imagej_stack(file: Any, path: Path, directories: int) -> None:
    # Stacks above 4 GB lie behind one directory, whose own strips say nothing about the rest.
    meta = file.imagej_metadata or {}
    page = file.pages.first
    n = meta.get("images", 1)
    if file.is_imagej and directories == 1 and n > 1 and page.is_contiguous:
        needed, size = page.dataoffsets[0] + n * page.nbytes, file.filehandle.size
        if needed > size:
            raise InputError(
                f"{str(path)!r} is cut short: its {n} planes need {needed} bytes, it has {size}; copy or save it again"
            )


# Writing ----------------------------------------------------------------------------------------------------


def write_image(
    path: str | os.PathLike[str],
    image: Image,
    dtype: DTypeLike | None = None,
    *,
    compression: str | None = None,
    provenance: str = "",
) -> WriteReport:
    """Save an image as a TIFF that Fiji opens as it was, whole or not at all.

    Parameters
    ----------
    path : path
        A name ending in .ome.tif or .ome.tiff gives an OME-TIFF. Any other gives an ImageJ hyperstack where
        ImageJ's format can hold the image, and an OME-TIFF (said in the notes) where it cannot.
    image : Image
    dtype : dtype, optional
        Type in the file. Integers are rounded (half to even) and clipped, never wrapped. None keeps the
        image's own type where TIFF readers know it; float16 and float64 become float32, bool becomes
        uint8 with 0 and 255, int64 and uint64 become int32 and uint32 if the values fit.
    compression : str, optional
        As tifffile spells it, e.g. "zlib". None does not compress, so that the file can be mapped.
    provenance : str
        How the image came to be; kept as ImageJ's Info (Image > Show Info...) or OME's Description.

    Returns
    -------
    WriteReport
        What was clipped, and everything else that was decided.

    Raises
    ------
    InputError
        If the type cannot be written, its values do not fit, or the folder cannot be written to.
    OSError
        If the disk is full; nothing is left behind then.

    Notes
    -----
    ImageJ's format holds uint8, uint16, int16 and float32, no axis S, and less than 4 GB; OME-TIFFs above
    that size are BigTIFF. Dimensions are stored in the order TZCYX.
    """
    import tifffile

    path = Path(path)
    data, report = _for_storage(image, None if dtype is None else np.dtype(dtype))
    notes = list(report.pop("notes"))
    kind = OME if path.name.lower().endswith((".ome.tif", ".ome.tiff")) else IMAGEJ
    if kind == IMAGEJ and (reason := _imagej_cannot(image, data)):
        notes.append(
            f"ImageJ's own TIFF cannot hold {reason}: saved as OME-TIFF, which Fiji opens by Bio-Formats"
        )
        kind = OME
    unit = image.unit if image.unit.lower() in _UM_PER_UNIT else "micron"
    with atomic_file(path) as part:
        if kind == IMAGEJ:
            tifffile.imwrite(
                part,
                move_axes(data, image.axes, "TZCYX"),
                imagej=True,
                photometric="minisblack",
                compression=compression,
                **_imagej_metadata(image, unit, provenance),
            )
        else:
            with tifffile.TiffWriter(part, ome=True, bigtiff=data.nbytes > _IMAGEJ_LIMIT_BYTES) as writer:
                for one in _each_series(data, image.axes):
                    writer.write(
                        one,
                        photometric="minisblack",
                        compression=compression,
                        metadata=_ome_metadata(image, unit, provenance),
                    )
    return WriteReport(path=path, format=kind, dtype=data.dtype.name, notes=tuple(notes), **report)


def _imagej_cannot(image: Image, data: NDArray[Any]) -> str:
    if data.dtype.name not in _IMAGEJ_DTYPES:
        return data.dtype.name
    if image.size("S") > 1:
        return "a series of images (axis S)"
    if data.nbytes > _IMAGEJ_LIMIT_BYTES:
        return f"{data.nbytes / 2**30:.1f} GiB"
    return ""


def _each_series(data: NDArray[Any], axes: str) -> Iterator[NDArray[Any]]:
    yield from move_axes(data, axes, "STZCYX")


def _imagej_metadata(image: Image, unit: str, provenance: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TZCYX"}
    arguments: dict[str, Any] = {"metadata": metadata}
    if image.pixel_size_um:
        # The description is ASCII; "micron" is how ImageJ itself spells it there.
        metadata["unit"] = unit if unit.isascii() else "micron"
        um = _UM_PER_UNIT[unit.lower()]
        sizes = {axis: size / um for axis, size in image.pixel_size_um.items()}
        if "X" in sizes or "Y" in sizes:
            x, y = sizes.get("X", sizes.get("Y", 1.0)), sizes.get("Y", sizes.get("X", 1.0))
            arguments["resolution"] = (1 / x, 1 / y)
            arguments["resolutionunit"] = "NONE"
        if "Z" in sizes:
            metadata["spacing"] = sizes["Z"]
    if image.frame_interval_s is not None:
        metadata["finterval"] = image.frame_interval_s
    if image.size("C") > 1:
        metadata["mode"] = "composite"
    if provenance:
        metadata["Info"] = provenance
    return arguments


def _ome_metadata(image: Image, unit: str, provenance: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TZCYX"}
    um = _UM_PER_UNIT[unit.lower()]
    for axis, size in image.pixel_size_um.items():
        metadata[f"PhysicalSize{axis}"] = size / um
        metadata[f"PhysicalSize{axis}Unit"] = _OME_UNIT[um]
    if image.frame_interval_s is not None:
        metadata["TimeIncrement"] = image.frame_interval_s
        metadata["TimeIncrementUnit"] = "s"
    if image.name:
        metadata["Name"] = image.name
    if provenance:
        metadata["Description"] = provenance
    return metadata


def _for_storage(image: Image, dtype: np.dtype[Any] | None) -> tuple[NDArray[Any], dict[str, Any]]:
    """Values in the type that is written, and what that did to them."""
    data, notes = image.data, []
    if data.size == 0:
        raise InputError(
            f"image {image.name!r} has shape {data.shape}, no pixel at all; nothing can be saved"
        )
    if data.dtype == bool:
        data = data.astype(np.uint8) * np.uint8(255)
    if dtype is None:
        dtype = _own_dtype(data, image.name)
        if dtype != image.dtype:
            notes.append(f"{image.dtype} is not a type that TIFF readers share: saved as {dtype}")
    if dtype.name not in DTYPES:
        raise InputError(
            f"dtype={dtype} is not a type that TIFF readers share; use one of {', '.join(DTYPES)}"
        )
    report: dict[str, Any] = {"notes": notes}
    if dtype.kind in "ui":
        data = _to_integers(data, dtype, report)
    elif data.dtype != dtype:
        with np.errstate(over="ignore"):  # looked for below
            changed = data.astype(dtype)
        if data.dtype.kind in "ui" and not np.array_equal(
            changed.astype(np.float64), data.astype(np.float64)
        ):
            notes.append(f"{data.dtype} values above 2**24 lost their last digits in {dtype}")
        if data.dtype.kind == "f" and np.isinf(changed).sum() > np.isinf(data).sum():
            raise InputError(
                f"image {image.name!r} holds values beyond the range of {dtype}; use dtype='float64'"
            )
        data = changed
    return data, report


def _own_dtype(data: NDArray[Any], name: str) -> np.dtype[Any]:
    """The type that is written when nobody asked for one."""
    if data.dtype.kind == "f":
        return np.dtype(np.float32)
    if data.dtype.itemsize < 8:
        return data.dtype.newbyteorder("=")
    dtype = np.dtype(np.int32 if data.dtype.kind == "i" else np.uint32)
    low, high = int(data.min()), int(data.max())
    limits = np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        raise InputError(
            f"image {name!r} holds {data.dtype} from {low} to {high}, more than {dtype} can hold; "
            "choose dtype='float64', or dtype='uint32' to clip"
        )
    return dtype


def _to_integers(data: NDArray[Any], dtype: np.dtype[Any], report: dict[str, Any]) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    if data.dtype.kind == "f":
        missing = np.isnan(data)
        if missing.any():
            report["not_a_number"] = float(missing.mean())
            data = np.where(missing, 0, data)
        # float32 cannot hold 2**32 - 1; float64 holds every limit of 32 bits exactly.
        data = np.rint(data, dtype=np.float64 if dtype.itemsize > 2 or data.itemsize > 4 else np.float32)
    low, high = data < limits.min, data > limits.max
    report["clipped_low"] = float(low.sum() / data.size)
    report["clipped_high"] = float(high.sum() / data.size)
    with np.errstate(invalid="ignore"):  # what does not fit is replaced on the next two lines
        stored = data.astype(dtype)
    stored[low], stored[high] = limits.min, limits.max
    return stored
