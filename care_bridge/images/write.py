"""TIFF, OME-TIFF, ImageJ hyperstacks and OME-Zarr, written, and what happened to the values on the way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from care_bridge.axes import move_axes
from care_bridge.defaults import OME_ZARR
from care_bridge.files import atomic_file, atomic_folder
from care_bridge.images.image import Image
from care_bridge.images.ome_zarr import ZARR
from care_bridge.images.ome_zarr_write import (
    STORED,
    check_replaceable,
    create_level,
    plan_ome_zarr,
    write_metadata,
    write_pyramid,
)
from care_bridge.images.storage import for_storage, kept_dtype, scaled_to_type
from care_bridge.images.units import OME_UNIT, UM_PER_UNIT

IMAGEJ, OME = "imagej-tiff", "ome-tiff"
"""The two kinds of TIFF that are written."""

_IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")
_MANY_CLIPPED = 0.01
# Offsets of a classic TIFF are 32 bits; ImageJ's own way around that is not TIFF any more.
_IMAGEJ_LIMIT_BYTES = 2**32 - 2**25


@dataclass(frozen=True)
class WriteReport:
    """What happened to the values of an image while it was saved.

    Attributes
    ----------
    path : Path
    format : str
        `imagej-tiff`, `ome-tiff`, `ome-zarr-0.4` or `ome-zarr-0.5`.
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

    @property
    def many_clipped(self) -> bool:
        """Whether so many were clipped (1 % and more) that another way of writing is worth a word."""
        return self.clipped >= _MANY_CLIPPED

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


def write_image(
    path: str | os.PathLike[str],
    image: Image,
    dtype: DTypeLike | None = None,
    *,
    compression: str | None = None,
    provenance: str = "",
    scale: bool = False,
    ome_zarr: str = OME_ZARR,
) -> WriteReport:
    """Save an image as a TIFF that Fiji opens as it was, or as OME-Zarr, whole or not at all.

    Parameters
    ----------
    path : path
        A name ending in .ome.tif or .ome.tiff gives an OME-TIFF, one ending in .zarr an OME-Zarr with its smaller
        copies, in the place of an OME-Zarr that was there. Any other gives an ImageJ hyperstack where
        ImageJ's format can hold the image, and an OME-TIFF (said in the notes) where it cannot.
    image : Image
    dtype : dtype, optional
        Type in the file. Integers are rounded (half to even) and clipped, never wrapped. None keeps the
        image's own type where TIFF readers know it; float16 and float64 become float32, bool becomes
        uint8 with 0 and 255, int64 and uint64 become int32 and uint32 if the values fit.
    compression : str, optional
        As tifffile spells it, e.g. "zlib". None does not compress, so that the file can be mapped. An OME-Zarr is
        always compressed.
    provenance : str
        How the image came to be; kept as ImageJ's Info (Image > Show Info...), OME's Description, or beside what
        OME-Zarr says.
    scale : bool
        For integers: map the image's least and greatest value to the ends of the type first, instead of clipping, as
        Fiji's "Scale when converting". How to get the values back stands in the notes and in the file.
    ome_zarr : str
        Version of OME-Zarr: "0.4" lies in zarr 2, "0.5" in zarr 3.

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
    path = Path(path)
    said = ""
    if scale and image.data.size:
        kind = kept_dtype(image) if dtype is None else np.dtype(dtype)
        image, said = scaled_to_type(image, kind)
        dtype = kind if said else dtype
        provenance = "; ".join(part for part in (provenance, said) if part)
    stored = for_storage(image, None if dtype is None else np.dtype(dtype))
    form, otherwise = _kind(path, image, stored.data)
    if path.suffix.lower() == ZARR:
        form = f"ome-zarr-{ome_zarr}"
        _write_zarr(path, image, stored.data, ome_zarr, provenance)
    else:
        write = _write_imagej if form == IMAGEJ else _write_ome
        with atomic_file(path) as part:
            write(part, image, stored.data, compression, provenance)
    return WriteReport(
        path=path,
        format=form,
        dtype=stored.data.dtype.name,
        clipped_low=stored.clipped_low,
        clipped_high=stored.clipped_high,
        not_a_number=stored.not_a_number,
        notes=(*stored.notes, *((said,) if said else ()), *otherwise),
    )


def tiff_kind(path: Path, image: Image, dtype: np.dtype[Any], nbytes: int) -> str:
    """The kind of TIFF that can hold such an image, whatever its name asks for."""
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        return OME
    return OME if _imagej_cannot(image, dtype, nbytes) else IMAGEJ


def allocate_tiff(
    path: Path, image: Image, shape: tuple[int, ...], dtype: np.dtype[Any], form: str, provenance: str
) -> None:
    """A TIFF of zeros in one block, with the dimensions TZCYX, to be written into; BigTIFF where it has to be.

    Parameters
    ----------
    path : Path
    image : Image
        What is said of the pixels; its own do not count.
    shape : tuple of int
    dtype : dtype
    form : str
        `tiff_kind`'s.
    provenance : str
    """
    import tifffile

    nbytes = prod(shape) * dtype.itemsize
    if form == IMAGEJ:
        described = {"imagej": True, **_imagej_metadata(image, provenance)}
    else:
        described = {
            "ome": True,
            "bigtiff": nbytes > _IMAGEJ_LIMIT_BYTES,
            "metadata": _ome_metadata(image, provenance),
        }
    tifffile.memmap(path, shape=shape, dtype=dtype, photometric="minisblack", **described)


def _kind(path: Path, image: Image, data: NDArray[Any]) -> tuple[str, tuple[str, ...]]:
    """The kind of TIFF that is written, and a sentence where it is not the one that the name asks for."""
    if path.name.lower().endswith((".ome.tif", ".ome.tiff", ZARR)):
        return OME, ()
    if reason := _imagej_cannot(image, data.dtype, data.nbytes):
        return OME, (
            f"ImageJ's own TIFF cannot hold {reason}: saved as OME-TIFF, which Fiji opens by Bio-Formats",
        )
    return IMAGEJ, ()


def _imagej_cannot(image: Image, dtype: np.dtype[Any], nbytes: int) -> str:
    if dtype.name not in _IMAGEJ_DTYPES:
        return dtype.name
    if image.size("S") > 1:
        return "a series of images (axis S)"
    if nbytes > _IMAGEJ_LIMIT_BYTES:
        return f"{nbytes / 2**30:.1f} GiB"
    return ""


def _write_imagej(
    path: Path, image: Image, data: NDArray[Any], compression: str | None, provenance: str
) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        move_axes(data, image.axes, "TZCYX"),
        imagej=True,
        photometric="minisblack",
        compression=compression,
        **_imagej_metadata(image, provenance),
    )


def _write_ome(
    path: Path, image: Image, data: NDArray[Any], compression: str | None, provenance: str
) -> None:
    import tifffile

    with tifffile.TiffWriter(path, ome=True, bigtiff=data.nbytes > _IMAGEJ_LIMIT_BYTES) as writer:
        for series in move_axes(data, image.axes, "STZCYX"):
            writer.write(
                series,
                photometric="minisblack",
                compression=compression,
                metadata=_ome_metadata(image, provenance),
            )


def _write_zarr(path: Path, image: Image, data: NDArray[Any], version: str, provenance: str) -> None:
    check_replaceable(path)
    if image.size("S") == 1:
        axes = "".join(letter for letter in STORED if letter in image.axes)
        data = move_axes(data, image.axes, axes)
    else:
        axes = image.axes
    plan = plan_ome_zarr(
        axes,
        data.shape,
        data.dtype,
        version=version,
        pixel_size_um=image.pixel_size_um,
        frame_interval_s=image.frame_interval_s,
        unit=_unit(image),
        name=image.name,
        channels=image.channels,
    )
    with atomic_folder(path) as part:
        create_level(part, plan)[...] = data
        write_pyramid(part, plan)
        write_metadata(part, plan, provenance=provenance)


def _unit(image: Image) -> str:
    return image.unit if image.unit.lower() in UM_PER_UNIT else "micron"


def _imagej_metadata(image: Image, provenance: str) -> dict[str, Any]:
    unit = _unit(image)
    metadata: dict[str, Any] = {"axes": "TZCYX"}
    arguments: dict[str, Any] = {"metadata": metadata}
    if image.pixel_size_um:
        # The description is ASCII; "micron" is how ImageJ itself spells it there.
        metadata["unit"] = unit if unit.isascii() else "micron"
        um = UM_PER_UNIT[unit.lower()]
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


def _ome_metadata(image: Image, provenance: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TZCYX"}
    um = UM_PER_UNIT[_unit(image).lower()]
    for axis, size in image.pixel_size_um.items():
        metadata[f"PhysicalSize{axis}"] = size / um
        metadata[f"PhysicalSize{axis}Unit"] = OME_UNIT[um]
    if image.frame_interval_s is not None:
        metadata["TimeIncrement"] = image.frame_interval_s
        metadata["TimeIncrementUnit"] = "s"
    if image.name:
        metadata["Name"] = image.name
    if provenance:
        metadata["Description"] = provenance
    return metadata
