"""Planes as PNG pictures with stated contrast."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError

LUTS = ("gray", "cividis", "viridis", "magma", "inferno", "PuOr")
"""Look-up tables that people with any colour vision can read; PuOr is for signed differences."""

MAX_PX = 768
"""Longest side at which a picture is embedded; larger ones are averaged down by a whole factor."""

Limits = tuple[float, float]

_NAN_INDEX = 255


@dataclass(frozen=True, eq=False)
class Picture:
    """One plane to be shown.

    Attributes
    ----------
    data : ndarray, shape (Y, X)
        Intensities; NaN is shown as a hatched hole.
    label : str
    limits : (float, float), optional
        Values shown at the two ends of the look-up table. None shares limits with the pictures beside it;
        given, the picture gets a colour bar of its own.
    lut : str
        One of `LUTS`.
    unit : str
        What the values are counted in, written at the colour bar.
    """

    data: NDArray[Any]
    label: str
    limits: Limits | None = None
    lut: str = "gray"
    unit: str = ""


def png(data: NDArray[Any], *, limits: Limits, lut: str = "gray") -> bytes:
    """Encode a plane as a PNG with 256 grey values or colours.

    Parameters
    ----------
    data : ndarray, shape (Y, X)
        NaN becomes transparent.
    limits : (float, float)
        Values at the two ends of the look-up table.
    lut : str
        One of `LUTS`.
    """
    import PIL.Image

    if data.ndim != 2:
        raise InputError(f"a picture needs shape (Y, X); received {data.shape}")
    if lut not in LUTS:
        raise InputError(f"lut={lut!r} is not one of {', '.join(LUTS)}")
    low, high = limits
    data = np.asarray(data, np.float64)
    holes = np.isnan(data)
    # With holes, the last of the 256 levels is theirs.
    levels = _NAN_INDEX if holes.any() else 256
    scaled = (np.clip(np.nan_to_num(data), low, high) - low) / ((high - low) or 1.0)
    index = np.minimum(scaled * levels, levels - 1).astype(np.uint8)
    index[holes] = _NAN_INDEX
    picture = PIL.Image.fromarray(index)
    if lut != "gray":
        picture.putpalette(_palette(lut, levels))
    file = io.BytesIO()
    picture.save(file, "PNG", **({"transparency": _NAN_INDEX} if holes.any() else {}))
    return file.getvalue()


def shrink(data: NDArray[Any], max_px: int = MAX_PX) -> tuple[NDArray[Any], int]:
    """Average a plane down by the smallest whole factor that makes its longest side at most `max_px`.

    Returns
    -------
    data : ndarray, shape (Y, X)
        Unchanged where it is small enough; a rim that does not fill a block is cut off.
    factor : int
    """
    factor = -(-max(data.shape) // max_px)
    # A strip thinner than the factor would vanish; a little too long a picture is better than none.
    factor = max(1, min(factor, *data.shape))
    if factor == 1:
        return data, 1
    height, width = (size // factor * factor for size in data.shape)
    blocks = np.asarray(data[:height, :width], np.float64).reshape(
        height // factor, factor, width // factor, factor
    )
    return blocks.mean(axis=(1, 3)), factor


def display_limits(*data: NDArray[Any], pmin: float = 0.1, pmax: float = 99.9) -> Limits:
    """Contrast limits that several pictures share: percentiles of all their finite values together."""
    values = np.concatenate([np.asarray(part, np.float64)[np.isfinite(part)].ravel() for part in data])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (pmin, pmax)))
    return (low, high) if high > low else (low, low + 1.0)


def shared_limits(data: Sequence[NDArray[Any]], limits: Limits | None) -> tuple[Limits, str]:
    """Contrast limits of pictures side by side, and the sentence that states them."""
    if limits is not None:
        return limits, f"Shown from {_short(limits[0])} to {_short(limits[1])}"
    limits = display_limits(*data)
    rule = "percentiles 0.1 and 99.9 of all together" if len(data) > 1 else "percentiles 0.1 and 99.9"
    return limits, f"Shown from {_short(limits[0])} to {_short(limits[1])} ({rule})"


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def view_of(picture: Picture, limits: Limits) -> dict[str, Any]:
    """What the page's template needs to show a picture and its colour bar."""
    if picture.data.ndim != 2:
        raise InputError(f"picture {picture.label!r} needs shape (Y, X); received {picture.data.shape}")
    data, factor = shrink(picture.data)
    return {
        "label": picture.label,
        "src": _data_uri(png(data, limits=limits, lut=picture.lut)),
        "height": data.shape[0],
        "width": data.shape[1],
        "factor": factor,
        "own_limits": picture.limits is not None,
        "low": _short(limits[0]),
        "high": _short(limits[1]),
        "unit": picture.unit,
        "bar": _data_uri(png(np.linspace(0, 1, 256)[None], limits=(0, 1), lut=picture.lut)),
    }


def scale_bar(width_px: int, pixel_um: float | None) -> dict[str, Any]:
    """Length and share of the width of a bar of 1, 2 or 5 times a power of ten, about a fifth of the picture."""
    if not pixel_um or not math.isfinite(pixel_um) or pixel_um <= 0:
        return {"bar_um": "", "bar_percent": 0.0}
    aim = width_px * pixel_um / 5
    base = 10.0 ** math.floor(math.log10(aim))
    length = max(step * base for step in (1, 2, 5) if step * base <= aim)
    return {"bar_um": f"{length:g} µm", "bar_percent": 100 * length / (width_px * pixel_um)}


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _palette(lut: str, levels: int) -> bytes:
    import matplotlib

    colours = (matplotlib.colormaps[lut](np.linspace(0, 1, levels))[:, :3] * 255).round().astype(np.uint8)
    return colours.tobytes() + b"\x00\x00\x00" * (256 - levels)
