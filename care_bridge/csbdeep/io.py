"""csbdeep.io: training data and TIFFs for ImageJ."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.arrays import array_of
from care_bridge.errors import InputError
from care_bridge.images import Image, WriteReport, um_per_unit, write_image
from care_bridge.patches import LeakingSplitWarning, StoredPatches, load_patches, open_patches
from care_bridge.patches.store import write_npz

__all__ = ["load_training_data", "save_tiff_imagej_compatible", "save_training_data"]

Array = NDArray[Any]


class Column:
    """Sources or targets of patches that stay on the disk; read when they are indexed.

    Parameters
    ----------
    patches : StoredPatches
    is_target : bool
    """

    def __init__(self, patches: StoredPatches, is_target: bool) -> None:
        self.patches, self.is_target = patches, is_target
        array = patches.target if is_target else patches.source
        self.shape = (len(patches), *array.shape[1:])
        self.ndim, self.dtype = len(self.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, rows: Any) -> Array:
        wanted = np.arange(len(self))[rows]
        batch = self.patches.batch(np.atleast_1d(wanted))[self.is_target]
        return batch if np.ndim(wanted) else batch[0]


def save_tiff_imagej_compatible(
    file: str | os.PathLike[str], img: Array, axes: str, **imsave_kwargs: Any
) -> WriteReport:
    """Save an image in a type and order of axes that ImageJ opens.

    Parameters
    ----------
    file : path
    img : ndarray
    axes : str
        Of `img`, without S.
    imsave_kwargs
        As tifffile's `imwrite` takes them: `resolution` (pixels a unit, x and y), `metadata` (unit, spacing,
        finterval, Info), `compression`.

    Returns
    -------
    WriteReport
        csbdeep returns nothing. Floats become float32, unsigned integers of two bytes and more uint16,
        signed ones int16: clipped, where csbdeep lets them wrap around.

    Raises
    ------
    InputError
        If the axes hold S or an argument is not known.

    Warns
    -----
    UserWarning
        If the type changes or pixels are clipped.
    """
    img = array_of(img, "img")
    axes = check_axes(axes, ndim=img.ndim)
    if "S" in axes:
        raise InputError(f"axes={axes!r} hold S, which ImageJ does not have; save one image at a time")
    unknown = sorted(set(imsave_kwargs) - {"metadata", "resolution", "compression", "imagej"})
    if unknown:
        raise InputError(
            f"{', '.join(unknown)}: not known; give resolution, metadata and compression, or write with tifffile"
        )
    dtype = _imagej_dtype(img.dtype)
    if dtype is not None and dtype != img.dtype:
        warnings.warn(f"{img.dtype} becomes {dtype}, which ImageJ knows", stacklevel=2)
    metadata = imsave_kwargs.get("metadata") or {}
    image = _with_scale(img, axes, metadata, imsave_kwargs.get("resolution"), name=Path(file).name)
    report = write_image(
        file,
        image,
        dtype=dtype,
        compression=imsave_kwargs.get("compression"),
        provenance=str(metadata.get("Info", "")),
    )
    if report.clipped:
        warnings.warn(str(report), stacklevel=2)
    return report


def _with_scale(
    img: Array, axes: str, metadata: Mapping[str, Any], resolution: Sequence[float] | None, *, name: str
) -> Image:
    unit = str(metadata.get("unit", "micron"))
    um = um_per_unit(unit)
    sizes = {}
    if um is not None and resolution is not None:
        sizes = {axis: um / float(pixels) for axis, pixels in zip("XY", resolution, strict=True)}
    if um is not None and "spacing" in metadata:
        sizes["Z"] = um * float(metadata["spacing"])
    return Image(
        img,
        axes,
        pixel_size_um={axis: size for axis, size in sizes.items() if axis in axes},
        frame_interval_s=metadata.get("finterval"),
        unit=unit,
        name=name,
    )


def save_training_data(file: str | os.PathLike[str], X: Array, Y: Array, axes: str) -> None:
    """Write training patches as an .npz with X, Y and axes.

    Parameters
    ----------
    file : path
        The suffix becomes .npz.
    X, Y : ndarray
    axes : str
        Of X, e.g. "SCYX".

    Notes
    -----
    ``create_patches(..., save_file=...)`` also writes where each patch comes from, so that
    `load_training_data` can split without leaks.
    """
    X, Y = array_of(X, "X"), array_of(Y, "Y")
    write_npz(Path(file).with_suffix(".npz"), X, Y, check_axes(axes, ndim=X.ndim))


def load_training_data(
    file: str | os.PathLike[str],
    validation_split: float = 0,
    axes: str | None = None,
    n_images: int | None = None,
    verbose: bool = False,
) -> tuple[tuple[Any, Any], tuple[Any, Any] | None, str]:
    """Read training patches and set some aside for validation.

    Parameters
    ----------
    file : path
        An .npz, or a .zarr of `create_patches`, which stays on the disk.
    validation_split : float
        Share, 0-1, of the patches; 0 sets none aside.
    axes : str, optional
        Of X; needed where the file does not say.
    n_images : int, optional
        Take only so many patches from the start.
    verbose : bool
        Accepted for csbdeep's sake; nothing is printed.

    Returns
    -------
    (X, Y), (X_val, Y_val) or None, axes
        Channels last.

    Raises
    ------
    InputError
        If the file holds no patches, or fewer than `n_images`, or the share is none.

    Warns
    -----
    patches.LeakingSplitWarning
        If the file does not say where its patches come from, so that validation and training patches overlap
        (csbdeep's files, and `save_training_data`), or they are all of one image too small to be parted.
    UserWarning
        If images are so small that whole ones validate, more patches than asked for.
    """
    stored = open_patches(file) if Path(file).suffix == ".zarr" else load_patches(file, axes=axes)
    if n_images is not None:
        if not 0 < n_images <= len(stored):
            raise InputError(f"n_images={n_images}, but {str(file)!r} holds {len(stored)} patches")
        stored = stored.select(np.arange(n_images))
    if not 0 <= validation_split < 1:
        raise InputError(f"validation_split must lie within 0-1; received {validation_split}")
    if validation_split == 0:
        return _columns(stored), None, stored.axes
    training, validation = _split(stored, validation_split)
    return _columns(training), _columns(validation), stored.axes


def _split(stored: StoredPatches, fraction: float) -> tuple[StoredPatches, StoredPatches]:
    """Apart where that can be had; a notebook goes on where it cannot, and is told."""
    try:
        return stored.split(fraction)
    except InputError:
        if stored.origin is None:
            raise
    n = len(stored)
    if len(np.unique(stored.origin.group)) > 1:
        training, validation = stored.split(fraction, by="image")
        warnings.warn(
            f"patches of these small images cannot be had apart within an image: whole images, {len(validation)} of "
            f"{n} patches, validate instead of {fraction:g} of them",
            stacklevel=3,
        )
        return training, validation
    held = round(n * fraction)
    if not 0 < held < n:
        raise InputError(
            f"{fraction:g} of {n} patches is {held}; give a validation_split that leaves some of each"
        )
    warnings.warn(
        f"all {n} patches are of one small image: the last {held} validate, and most of their pixels are training "
        "pixels too; give more images, or cut smaller patches",
        LeakingSplitWarning,
        stacklevel=3,
    )
    return stored.select(np.arange(n - held)), stored.select(np.arange(n - held, n))


def _columns(patches: StoredPatches) -> tuple[Any, Any]:
    if isinstance(patches.source, np.ndarray):
        return patches.load()
    return Column(patches, False), Column(patches, True)


def _imagej_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.kind == "u":
        return np.dtype(np.uint16 if dtype.itemsize >= 2 else np.uint8)
    return np.dtype(np.int16) if dtype.kind == "i" else None
