"""What a microscope does to a clean image, one step a function: each alone, in any order, in 2-D and 3-D.

Intensities are floats on a scale where 1 is the white level, unless a function says otherwise. Functions that
draw take a generator and never a global state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from care_bridge.axes import SPACE, check_axes
from care_bridge.errors import InputError

Array = NDArray[Any]

MINIMUM_SHARE = 0.25
"""Largest radius of a minimum filter as a share of the structure's size: it must stay much smaller than
that.
"""


def imagej_kernel_half_widths(radius_px: float) -> NDArray[np.int64]:
    """Half widths of the rows of ImageJ's circular rank-filter kernel, from the middle row outwards.

    Parameters
    ----------
    radius_px : float
        As typed into ImageJ's Process > Filters > Minimum... ; at least 0.

    Returns
    -------
    ndarray of int
        Entry y is how many pixels the kernel reaches left and right in the rows y above and below its middle.

    Notes
    -----
    ImageJ 1.54, RankFilters: radii of 1.5 and 2.5 are rounded up to get fuller circles, then a pixel
    belongs to the kernel when dx^2 + dy^2 <= floor(radius^2) + 1. So 0.5 is a plus of 5 pixels and 1 is 3
    x 3.
    """
    if not np.isfinite(radius_px) or radius_px < 0:
        raise InputError(f"radius_px must be 0 or more; received {radius_px}")
    radius = float(radius_px)
    if 1.5 <= radius < 1.75:
        radius = 1.75
    elif 2.5 <= radius < 2.85:
        radius = 2.85
    squared = int(radius * radius) + 1
    rows = np.arange(int(np.sqrt(squared + 1e-10)) + 1)
    return np.asarray(np.sqrt(squared - rows * rows + 1e-10), dtype=np.int64)


def minimum_filter(
    data: Array,
    *,
    radius_px: float,
    axes: str = "YX",
    structure_px: float | None = None,
    largest_share: float = MINIMUM_SHARE,
) -> Array:
    """The darkest value around every pixel, as ImageJ's Minimum... filter, slice by slice.

    Parameters
    ----------
    data : ndarray
        One dimension a letter of `axes`; Y and X among them.
    radius_px : float
        ImageJ's radius; 0 leaves the image as it is.
    structure_px : float, optional
        Diameter of the thing of interest. A radius above `largest_share` of it is refused. None does not
        look.

    Raises
    ------
    InputError
        If Y or X is missing, or the radius is too large for the structure.

    Notes
    -----
    The filter takes acquisition noise off a clean image, and thins bright structures by about twice the
    radius: a network trained on such targets also sharpens.
    """
    axes = check_axes(axes, ndim=data.ndim)
    if structure_px is not None and radius_px > largest_share * structure_px:
        raise InputError(
            f"a minimum filter of radius {radius_px:g} px is more than {largest_share:.0%} of the "
            f"structure's {structure_px:g} px and would change it; use at most {largest_share * structure_px:.3g} px"
        )
    if not {"Y", "X"} <= set(axes):
        raise InputError(f"a minimum filter needs axes Y and X; the image has {axes!r}")
    if radius_px == 0:
        return data
    half_widths = imagej_kernel_half_widths(radius_px)
    ordered = np.moveaxis(data, (axes.index("Y"), axes.index("X")), (-2, -1))
    height = ordered.shape[-2]
    reach = len(half_widths) - 1
    result: Array | None = None
    # A circle is a stack of lines: one fast 1-D minimum a width, moved up and down.
    for half_width in np.unique(half_widths):
        line = ndimage.minimum_filter1d(ordered, 2 * int(half_width) + 1, axis=-1, mode="nearest")
        edge = [(0, 0)] * (line.ndim - 2) + [(reach, reach), (0, 0)]
        line = np.pad(line, edge, mode="edge")
        for row in np.flatnonzero(half_widths == half_width):
            for shift in {int(row), -int(row)}:
                moved = line[..., reach + shift : reach + shift + height, :]
                result = moved.copy() if result is None else np.minimum(result, moved, out=result)
    assert result is not None
    return np.moveaxis(result, (-2, -1), (axes.index("Y"), axes.index("X")))


def convolve(data: Array, *, psf: Array, axes: str = "YX") -> NDArray[np.float64]:
    """Blur with a point spread function.

    Parameters
    ----------
    data : ndarray
        One dimension a letter of `axes`; channels, frames and series are blurred one by one.
    psf : ndarray
        One dimension a space axis of `axes`, in their order, its centre in the middle; or with one leading
        dimension more, of one entry a channel. It is scaled to sum 1.

    Returns
    -------
    ndarray
        float64, the same shape. The image is continued by reflection, so that borders do not darken.

    Raises
    ------
    InputError
        If the dimensions do not match, or the point spread function has negative values or sum 0.
    """
    axes = check_axes(axes, ndim=data.ndim)
    space = [index for index, letter in enumerate(axes) if letter in SPACE]
    per_channel = psf.ndim == len(space) + 1
    if not per_channel and psf.ndim != len(space):
        raise InputError(
            f"the point spread function has {psf.ndim} dimensions, but the image (axes {axes!r}) has "
            f"{len(space)} of space"
        )
    channels = data.shape[axes.index("C")] if "C" in axes else 1
    if per_channel and psf.shape[0] != channels:
        raise InputError(
            f"{psf.shape[0]} point spread functions were given for {channels} channels; give one each"
        )
    kernels = [np.asarray(kernel, dtype=np.float64) for kernel in (psf if per_channel else [psf])]
    for kernel in kernels:
        if not np.all(np.isfinite(kernel)) or kernel.min() < 0 or kernel.sum() <= 0:
            raise InputError(
                "a point spread function must be finite, without negative values and not all zero"
            )
    kernels = [kernel / kernel.sum() for kernel in kernels]

    moved = np.moveaxis(data, space, range(-len(space), 0))
    others = [letter for letter in axes if letter not in SPACE]
    result = np.empty(moved.shape, dtype=np.float64)
    for index in np.ndindex(*moved.shape[: len(others)]):
        kernel = kernels[index[others.index("C")]] if per_channel else kernels[0]
        result[index] = _convolve_one(moved[index], kernel)
    return np.moveaxis(result, range(-len(space), 0), space)


def _convolve_one(data: Array, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    # Left of the centre as the convolution sees it: the kernel is mirrored, hence "after" before "before".
    pads = [((size - 1) - (size - 1) // 2, (size - 1) // 2) for size in kernel.shape]
    padded = np.pad(np.asarray(data, dtype=np.float64), pads, mode="symmetric")
    blurred = signal.fftconvolve(padded, kernel, mode="valid")
    return np.asarray(np.maximum(blurred, 0.0) if data.min() >= 0 else blurred)


def poisson(
    data: Array, *, photons: float, rng: np.random.Generator, reference: float | None = None
) -> NDArray[np.float64]:
    """Photon noise.

    Parameters
    ----------
    data : ndarray
        Intensities; negative values are taken as 0.
    photons : float
        Photons counted where the intensity is `reference`.
    reference : float, optional
        None takes the brightest pixel.

    Returns
    -------
    ndarray
        Same scale as `data`: mean data, variance data * reference / photons.
    """
    if not photons > 0:
        raise InputError(f"photons must be above 0; received {photons}")
    rate = np.maximum(np.asarray(data, dtype=np.float64), 0.0)
    level = float(rate.max(initial=0.0)) if reference is None else float(reference)
    if level <= 0:
        return np.zeros_like(rate)
    counts: NDArray[np.float64] = rng.poisson(rate * (photons / level)).astype(np.float64)
    return counts * (level / photons)


def gaussian(
    data: Array, *, sigma: float, intensity: float = 1.0, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Camera noise: data + intensity * Normal(0, sigma). Values may become negative."""
    if sigma < 0 or intensity < 0:
        raise InputError(f"sigma and intensity must be 0 or more; received {sigma} and {intensity}")
    return np.asarray(data, dtype=np.float64) + intensity * sigma * rng.standard_normal(data.shape)


def modulate(data: Array, *, factor: float, white: float | None = 1.0) -> NDArray[np.float64]:
    """Exposure: multiply; what exceeds the white level is cut off there, as in an over-exposed image.

    Parameters
    ----------
    factor : float
        Above 1 over-exposes, between 0 and 1 under-exposes.
    white : float, optional
        None cuts nothing.
    """
    if not factor > 0:
        raise InputError(f"factor must be above 0; received {factor}")
    scaled = np.asarray(data, dtype=np.float64) * factor
    return scaled if white is None else np.minimum(scaled, white)


def quantize(data: Array, *, dtype: str, white: float = 1.0, offset: int = 0) -> tuple[Array, float]:
    """Round to whole grey values.

    Parameters
    ----------
    data : ndarray
        0 ... `white`; what lies outside is clipped.
    dtype : str
        `uint8` or `uint16`.
    offset : int
        Grey level of 0; `white` stays the type's largest.

    Returns
    -------
    ndarray
        0 ... 255 or 65535.
    float
        Share of pixels that were clipped, 0-1.
    """
    if dtype not in ("uint8", "uint16"):
        raise InputError(f"dtype must be uint8 or uint16; received {dtype!r}")
    grey = np.rint(offset + np.asarray(data, dtype=np.float64) * ((np.iinfo(dtype).max - offset) / white))
    inside = np.clip(grey, 0, np.iinfo(dtype).max)
    return inside.astype(dtype), float(np.mean(inside != grey))


def thin(counts: Array, *, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Keep each photon with a probability: what the same sample gives at a fraction of the light.

    Parameters
    ----------
    counts : ndarray
        Photons; rounded to whole numbers, negative ones are taken as 0.
    fraction : float
        Above 0, at most 1; 1/60 for sixty times less light.

    Returns
    -------
    ndarray of int64
        Binomial(counts, fraction): thinning Poisson counts gives Poisson counts of the lower rate.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must be above 0 and at most 1; received {fraction}")
    return rng.binomial(np.maximum(np.rint(counts), 0).astype(np.int64), fraction)


def snr_db(source: Array, target: Array) -> float:
    """Signal-to-noise ratio of a source against its target, in dB.

    Brightness and offset do not count: the target is scaled and shifted to fit the source best (least
    squares), and the ratio is the variance of that fit over the variance of what remains, r^2 / (1 - r^2)
    with the correlation r. Blur counts as noise. NaN when either image is constant.
    """
    first = np.asarray(source, dtype=np.float64).ravel()
    second = np.asarray(target, dtype=np.float64).ravel()
    first, second = first - first.mean(), second - second.mean()
    energy = float(first @ first) * float(second @ second)
    if energy == 0:
        return float("nan")
    explained = float(first @ second) ** 2 / energy
    return float("inf") if explained >= 1 else 10 * float(np.log10(explained / (1 - explained)))
