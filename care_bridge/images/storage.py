"""Values in the type that a file holds: rounded, clipped and never wrapped, and what that did to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.images.image import Image

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
"""Types that TIFF readers share."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Values as a file holds them, and what became of them; shares are of the pixels, 0-1."""

    data: NDArray[Any]
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    not_a_number: float = 0.0
    notes: tuple[str, ...] = ()


def for_storage(image: Image, dtype: np.dtype[Any] | None) -> Stored:
    """Values in the type that is written (None: the image's own where readers share it)."""
    data = image.data
    if data.size == 0:
        raise InputError(
            f"image {image.name!r} has shape {data.shape}, no pixel at all; nothing can be saved"
        )
    if data.dtype == bool:
        data = data.astype(np.uint8) * np.uint8(255)
    notes: tuple[str, ...] = ()
    if dtype is None:
        dtype = _own_dtype(data, image.name)
        if dtype != image.dtype:
            notes = (f"{image.dtype} is not a type that TIFF readers share: saved as {dtype}",)
    if dtype.name not in DTYPES:
        raise InputError(
            f"dtype={dtype} is not a type that TIFF readers share; use one of {', '.join(DTYPES)}"
        )
    stored = _to_integers(data, dtype) if dtype.kind in "ui" else _to_floats(data, dtype, image.name)
    return replace(stored, notes=notes + stored.notes)


def kept_dtype(image: Image) -> np.dtype[Any]:
    """Type in a file for a result that is to be stored as the image that it was made of.

    The image's own where TIFF readers share it; float16 becomes float32, bool uint8, and int64 and uint64 become int32
    and uint32.

    Raises
    ------
    InputError
        If those cannot hold the image's values.
    """
    if image.dtype.kind == "f":
        return np.dtype(np.float64 if image.dtype.itemsize > 4 else np.float32)
    return np.dtype(np.uint8) if image.dtype.kind == "b" else _own_dtype(image.data, image.name)


def check_levels(image: Image, dtype: np.dtype[Any]) -> None:
    """Refuse whole numbers for floats that lie so close together that next to none of them would differ.

    Raises
    ------
    InputError
        If the image's finite values are not all equal and span less than two grey levels.
    """
    if dtype.kind not in "ui" or image.dtype.kind != "f":
        return
    finite = image.data[np.isfinite(image.data)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if 0 < high - low < _FEWEST_LEVELS:
        raise InputError(
            f"image {image.name!r} holds {image.dtype} from {low:.3g} to {high:.3g}, which are next to no grey levels "
            f"as {dtype}; write float32 (--dtype float32)"
        )


_FEWEST_LEVELS = 2


def scaled_to_type(image: Image, dtype: np.dtype[Any]) -> tuple[Image, str]:
    """The image with its least and greatest value at the ends of an integer type, and a sentence about it.

    Parameters
    ----------
    image : Image
        One line for the whole of it: planes, frames and channels keep their brightness against each other. Values that
        are not finite do not count.
    dtype : dtype
        Integers use the range from 0 (signed ones from their least); a float type changes nothing.

    Returns
    -------
    Image
        float64. The image as it is where there is nothing to scale: a float type, or one value only.
    str
        How to get the values back; empty where nothing was changed.

    Notes
    -----
    What Fiji does with Edit > Options > Conversions > Scale when converting, where the whole range is displayed.
    """
    finite = image.data[np.isfinite(image.data)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if dtype.kind not in "ui" or not high > low:
        return image, ""
    limits = np.iinfo(dtype)
    step = (high - low) / (float(limits.max) - float(limits.min))
    data = (image.data.astype(np.float64) - low) / step + float(limits.min)
    grey = "grey" if limits.min == 0 else f"(grey + {-limits.min})"
    back = f"{step:.9g} * {grey} {'+' if low >= 0 else '-'} {abs(low):.9g}"
    return image.replace(data=data), (
        f"scaled: {low:.6g} ... {high:.6g} became {limits.min} ... {limits.max}, so value = {back}"
    )


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


def _to_floats(data: NDArray[Any], dtype: np.dtype[Any], name: str) -> Stored:
    if data.dtype == dtype:
        return Stored(data)
    with np.errstate(over="ignore"):  # looked for below
        changed = data.astype(dtype)
    if data.dtype.kind == "f" and np.isinf(changed).sum() > np.isinf(data).sum():
        raise InputError(f"image {name!r} holds values beyond the range of {dtype}; use dtype='float64'")
    if data.dtype.kind in "ui" and not np.array_equal(changed.astype(np.float64), data.astype(np.float64)):
        return Stored(changed, notes=(f"{data.dtype} values above 2**24 lost their last digits in {dtype}",))
    return Stored(changed)


def _to_integers(data: NDArray[Any], dtype: np.dtype[Any]) -> Stored:
    limits = np.iinfo(dtype)
    not_a_number = 0.0
    if data.dtype.kind == "f":
        missing = np.isnan(data)
        if missing.any():
            not_a_number = float(missing.mean())
            data = np.where(missing, 0, data)
        # float32 cannot hold 2**32 - 1; float64 holds every limit of 32 bits exactly.
        data = np.rint(data, dtype=np.float64 if dtype.itemsize > 2 or data.itemsize > 4 else np.float32)
    low, high = data < limits.min, data > limits.max
    with np.errstate(invalid="ignore"):  # what does not fit is replaced on the next line
        stored = data.astype(dtype)
    stored[low], stored[high] = limits.min, limits.max
    return Stored(
        stored,
        clipped_low=float(low.sum() / data.size),
        clipped_high=float(high.sum() / data.size),
        not_a_number=not_a_number,
    )
