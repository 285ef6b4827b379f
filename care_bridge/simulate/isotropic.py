"""Poor axial resolution played by lateral slices: kernels and sampling for isotropic restoration.

A lateral slice is a sharp picture of the same sample; blurred and subsampled along one of its axes as the
microscope does along Z, it is a source whose target is known (Weigert et al., MICCAI 2017, arXiv 1704.01510).
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from care_bridge.errors import InputError
from care_bridge.simulate.optics import Optics, gaussian_sigmas_um, psf

Array = NDArray[np.float64]
KernelMode = Literal["split", "gaussian", "full"]

LARGEST_FACTOR = 10.0
LARGEST_CROP = 0.2
"""Share of an axis that may be cut so that the factor divides it; csbdeep's crop_threshold."""


def axial_kernel(
    optics: Optics, *, pixel_um: float, mode: KernelMode = "split", iterations: int = 200
) -> Array:
    """What makes a lateral slice look like an axial one.

    Parameters
    ----------
    optics : Optics
    pixel_um : float
        Size of the lateral pixels; the kernel has it along both axes.
    mode : str
        `split`: the kernel k with k * lateral section = axial section, because a lateral slice is blurred
        laterally already; found by Richardson-Lucy deconvolution, so it has no negative values.
        `gaussian`: the same for Gaussians in closed form, sigma^2 = axial^2 - lateral^2 along Z only.
        `full`: the axial section itself.
    iterations : int
        Of the deconvolution.

    Returns
    -------
    ndarray, shape (z, x)
        Odd sizes, sum 1, its middle the brightest.
    """
    return _axial_kernel(optics, pixel_um, mode, iterations).copy()


@functools.lru_cache(maxsize=16)
def _axial_kernel(optics: Optics, pixel_um: float, mode: KernelMode, iterations: int) -> Array:
    if mode == "gaussian":
        lateral, axial = gaussian_sigmas_um(optics, optics.emission_nm / 1000)
        sigma = np.sqrt(max(axial**2 - lateral**2, 0.0)) / pixel_um
        reach = max(1, int(np.ceil(4 * sigma)))
        places = np.arange(-reach, reach + 1)
        line = np.exp(-(places**2) / (2 * sigma**2)) if sigma > 0 else (places == 0).astype(np.float64)
        return np.asarray((line / line.sum())[:, None])
    sizes = dict.fromkeys("ZYX", pixel_um)
    axial_section = psf(optics, pixel_size_um=sizes, axes="ZX")
    if mode == "full":
        return axial_section
    lateral_section = psf(optics, pixel_size_um=sizes, axes="YX")
    return split_kernel(axial_section, lateral_section, iterations=iterations)


def split_kernel(axial: NDArray[Any], lateral: NDArray[Any], *, iterations: int = 200) -> Array:
    """The kernel that, convolved with `lateral`, gives `axial`; no negative values, sum 1.

    Parameters
    ----------
    axial : ndarray, shape (z, x)
    lateral : ndarray, shape (y, x)
        Sections of a point spread function on the same pixels, odd sizes.
    """
    wanted = np.asarray(axial, dtype=np.float64) / axial.sum()
    known = np.asarray(lateral, dtype=np.float64) / lateral.sum()
    mirrored = known[::-1, ::-1]
    kernel = wanted.copy()
    for _ in range(iterations):
        estimate = np.maximum(signal.fftconvolve(kernel, known, mode="same"), 1e-12)
        kernel = np.maximum(kernel * signal.fftconvolve(wanted / estimate, mirrored, mode="same"), 0.0)
    return np.asarray(kernel / kernel.sum())


def usable_factor(length: int, factor: float, *, largest_crop: float = LARGEST_CROP) -> tuple[float, int]:
    """The subsampling factor and the part of an axis that fit together.

    Parameters
    ----------
    length : int
        Size along the axis.
    factor : float
        Wanted factor, at least 1.
    largest_crop : float
        Share of the axis that may be cut.

    Returns
    -------
    float
        The wanted factor, or the factor rounded to as many decimals as fit.
    int
        Size that it divides into a whole number of samples.

    Raises
    ------
    InputError
        If no rounding fits.

    Notes
    -----
    csbdeep 0.8.2, data/transform.py: decimals are dropped, last first, until at most the share is cut.
    """
    if not 1 <= factor <= length:
        raise InputError(
            f"factor must be between 1 and the size along the axis, {length}; received {factor:g}"
        )
    for decimals in range(6, -1, -1):
        exact = Fraction(str(round(factor, decimals)))
        samples = int(length / exact) // exact.denominator * exact.denominator
        size = int(samples * exact)
        if size and (length - size) / length <= largest_crop:
            return float(exact), size
    raise InputError(
        f"factor {factor:g} leaves less than {1 - largest_crop:.0%} of {length} pixels; "
        "take a smaller one or larger images"
    )


def subsample(data: NDArray[Any], *, factor: float, dimension: int) -> NDArray[Any]:
    """Take every `factor`-th plane (nearest) and bring the image back to its size (linear).

    Parameters
    ----------
    data : ndarray
        Its size along `dimension` must be a multiple of the factor, see `usable_factor`.
    factor : float
    dimension : int

    Returns
    -------
    ndarray
        The same shape.

    Notes
    -----
    First and last plane stay where they are in both directions, as scipy.ndimage.zoom and csbdeep do it.
    """
    zoom = np.ones(data.ndim)
    zoom[dimension] = factor
    few = ndimage.zoom(data, 1 / zoom, order=0)
    zoom[dimension] = data.shape[dimension] / few.shape[dimension]
    return np.asarray(ndimage.zoom(few, zoom, order=1))


def cropped(data: NDArray[Any], *, size: int, dimension: int) -> NDArray[Any]:
    """The middle part along a dimension; of an odd rest the larger half goes at the end."""
    start = (data.shape[dimension] - size) // 2
    return np.take(data, range(start, start + size), axis=dimension)
