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
from care_bridge.images import Image
from care_bridge.simulate.optics import Optics, from_beads, gaussian_sigmas_um, psf

Array = NDArray[np.float64]
KernelMode = Literal["split", "gaussian", "full"]

LARGEST_FACTOR = 10.0
LARGEST_CROP = 0.2
"""Share of an axis that may be cut so that the factor divides it; csbdeep's crop_threshold."""


HAZY = 0.5
"""Above this `haze`, lateral slices hold so much light of other planes that they are no picture of a sharp axial slice."""

EXPECTED = {
    "isotropic": "little is to be gained: SSIM of slices along Z 0.26 -> 0.33 at factor 4",
    "isotropic-confocal": "SSIM of slices along Z 0.43 -> 0.76 at factor 4, 0.32 -> 0.73 at factor 10",
}
"""What a small network gained on drawn nuclei under each microscope; `benchmarks/semisynthetic.py --only isotropic`."""


def haze(function: NDArray[Any]) -> float:
    """Light that reaches a plane from one axial width away, as a share of that from the plane itself.

    Parameters
    ----------
    function : ndarray, shape (z, y, x)
        A point spread function, its brightest voxel in the middle.

    Returns
    -------
    float
        Mean of both sides; the width is the full one at half maximum. In wide-field 0.8 to 0.9, since no light is lost
        out of focus; in a confocal 0.25 at a pinhole of 1 Airy unit and 0.65 at 3; with two photons 0.14.

    Raises
    ------
    InputError
        If the function ends before one width.
    """
    middle = tuple(size // 2 for size in function.shape)
    line = np.asarray(function[:, middle[1], middle[2]], np.float64)
    light = np.asarray(function.sum(axis=(1, 2)), np.float64)
    z = np.arange(len(line)) - middle[0]
    widths = []
    for side in (line[middle[0] :], line[middle[0] :: -1]):
        below = np.flatnonzero(side < line[middle[0]] / 2)
        if not below.size:
            raise InputError(
                f"the point spread function has {len(line)} planes and is brighter than half everywhere along Z; give more"
            )
        last = int(below[0])
        upper, lower = side[last - 1], side[last]
        widths.append(last - 1 + (upper - line[middle[0]] / 2) / (upper - lower))
    width = sum(widths)
    if width > min(middle[0], len(line) - 1 - middle[0]):
        raise InputError(
            f"the point spread function has {len(line)} planes, fewer than one full width of {width:.1f} to either side; "
            "give more"
        )
    beside = np.interp([-width, width], z, light)
    return float(beside.mean() / light[middle[0]])


def recipe_for(share: float) -> str:
    """Which of the shipped recipes is for a point spread function of this `haze`."""
    return "isotropic" if share > HAZY else "isotropic-confocal"


def expectation(share: float) -> str:
    """What is to be expected of a network trained on such lateral slices, by the `haze` of their point spread function."""
    why = (
        "so slices are full of other planes' light"
        if share > HAZY
        else "so slices are nearly free of other planes' light"
    )
    return f"a plane gets {share:.0%} of the light of one that is an axial width away, {why}; {EXPECTED[recipe_for(share)]}"


def cubic_psf(beads: Image, *, pixel_um: float) -> Array:
    """The point spread function of a stack of beads on cubic voxels.

    Parameters
    ----------
    beads : Image
        ZYX, with known pixel sizes.
    pixel_um : float
        Size of the voxels that are wanted.

    Returns
    -------
    ndarray, shape (z, y, x)
        Odd sizes, sum 1.
    """
    sizes = [beads.pixel_size_um.get(letter) for letter in "ZYX"]
    if beads.axes != "ZYX" or not all(sizes):
        raise InputError(
            f"beads {beads.name!r} have axes {beads.axes!r} and pixel sizes {dict(beads.pixel_size_um)}; give a stack "
            "along Z that tells its sizes along Z, Y and X (ImageJ: Image > Properties...)"
        )
    measured = np.maximum(from_beads(beads), 0)
    half = [
        int(size // 2 * step / pixel_um) for size, step in zip(measured.shape, sizes, strict=True) if step
    ]
    places = [
        np.arange(-reach, reach + 1) * pixel_um / step + size // 2
        for reach, size, step in zip(half, measured.shape, sizes, strict=True)
        if step
    ]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    found = ndimage.map_coordinates(measured, grid, order=1)
    return np.asarray(found / found.sum())


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
