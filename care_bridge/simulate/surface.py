"""A flat picture laid onto a curved sheet in a stack: sources whose projection is known.

What lies above and below the sheet in tissue (yolk, cuticle, other cells) is played by blobs, so that the brightest
pixel along Z is often not the sheet's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.simulate.structures import perlin

FAR_PLANES = 2.5
"""Blobs lie at least so far from the sheet, or they would hide what is asked for."""


def height_map(
    shape: tuple[int, int], *, planes: int, span: float, period_px: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The plane at which a curved sheet lies, pixel by pixel.

    Parameters
    ----------
    shape : (int, int)
        Y and X.
    planes : int
        Of the stack.
    span : float
        Share of the planes between the sheet's lowest and highest place, 0-1; one plane at either end is left free.
    period_px : float
        How wide its hills are.
    rng : Generator

    Returns
    -------
    ndarray, shape (y, x)
    """
    smooth = np.asarray(perlin(shape, seed=rng, period_px=period_px, octaves=1), np.float64)
    reach = float(np.ptp(smooth)) or 1.0
    room = max(planes - 3.0, 0.0)
    rise = span * room
    start = 1 + rng.random() * (room - rise)
    return np.asarray(start + rise * (smooth - smooth.min()) / reach)


def on_surface(
    picture: NDArray[Any],
    height: NDArray[Any],
    *,
    planes: int,
    thickness: float,
    blobs: int = 0,
    blob_level: tuple[float, float] = (0.3, 1.0),
    blob_px: tuple[float, float] = (2.0, 5.0),
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """A picture on a sheet.

    Parameters
    ----------
    picture : ndarray, shape (y, x)
    height : ndarray, shape (y, x)
        The plane at which the sheet lies, see `height_map`.
    planes : int
    thickness : float
        Standard deviation of the sheet along Z, in planes; its middle is as bright as the picture.
    blobs : int
        Round things above and below.
    blob_level : (float, float)
        How bright they are, as a share of the picture's brightest 0.2 percent.
    blob_px : (float, float)
        Standard deviation in the plane; along Z a third of it.
    rng : Generator

    Returns
    -------
    ndarray, shape (z, y, x)

    Raises
    ------
    InputError
        If the picture is not flat, or there are fewer than 4 planes.
    """
    if np.ndim(picture) != 2:
        raise InputError(f"a surface wants a flat picture; received one of shape {np.shape(picture)}")
    if planes < 4:
        raise InputError(f"a surface in {planes} planes has no room; give at least 4")
    z = np.arange(planes, dtype=np.float64)[:, None, None]
    stack: NDArray[np.float64] = np.asarray(picture, np.float64) * np.exp(
        -0.5 * ((z - height) / thickness) ** 2
    )
    white = float(np.percentile(picture, 99.8))
    for _ in range(blobs):
        middle = [int(rng.integers(0, size)) for size in height.shape]
        at = float(height[middle[0], middle[1]])
        level, width = rng.uniform(*blob_level) * white, rng.uniform(*blob_px)
        place = rng.uniform(0, planes - 1)
        if abs(place - at) < FAR_PLANES:
            continue
        cut = tuple(
            slice(max(0, one - int(4 * width)), min(size, one + int(4 * width) + 1))
            for one, size in zip(middle, height.shape, strict=True)
        )
        y, x = np.ogrid[cut]
        flat = np.exp(-0.5 * ((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / width**2)
        stack[:, cut[0], cut[1]] += level * flat * np.exp(-0.5 * ((z - place) / (width / 3)) ** 2)
    return stack
