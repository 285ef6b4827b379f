"""csbdeep.data transforms: from a stream of image pairs to another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.csbdeep.data.rawdata import Pair
from care_bridge.csbdeep.utils import move_image_axes
from care_bridge.errors import InputError


class Transform(NamedTuple):
    """A change of image pairs.

    Attributes
    ----------
    name : str
    generator : callable
        Takes an iterator over (source, target, axes, mask) and gives another.
    size : int
        How many pairs it makes of each.
    """

    name: str
    generator: Callable[[Iterable[Pair]], Iterator[Pair]]
    size: int

    @staticmethod
    def identity() -> Transform:
        """Passes every pair on as it is."""
        return Transform("Identity", iter, 1)


def anisotropic_distortions(
    subsample: float,
    psf: NDArray[Any] | None,
    psf_axes: str | None = None,
    poisson_noise: bool = False,
    gauss_sigma: float = 0,
    subsample_axis: str = "X",
    yield_target: str = "source",
    crop_threshold: float = 0.2,
) -> Transform:
    """Make the source look as if it was seen along Z: blurred, noisy and coarse along one axis.

    In this order: convolution with the PSF, Poisson noise, Gaussian noise, every `subsample`-th plane, linear
    interpolation back to the former size.

    Parameters
    ----------
    subsample : float
        Factor along `subsample_axis`, at least 1.
    psf : ndarray or None
        Not negative; divided by its sum. None does not blur.
    psf_axes : str, optional
        None: those of the image.
    poisson_noise : bool
        Draw each pixel from a Poisson distribution whose mean is its value (negative ones count as 0).
        csbdeep cuts the mean down to a whole number first.
    gauss_sigma : float
        Standard deviation of white noise; the sum is cut off at 0 below.
    subsample_axis : str
    yield_target : {"source", "target"}
        What becomes the target: the source before the distortion, or the target that came.
    crop_threshold : float
        Share, 0-1, of the image along the axis that may be cut off so that the factor divides it. The factor
        is rounded to fewer decimals where that does not do.

    Returns
    -------
    Transform
        Noise is drawn from NumPy's global generator, as in csbdeep.

    Warns
    -----
    UserWarning
        If there is no PSF, a target is ignored, or the factor had to be changed.
    """
    axis = check_axes(subsample_axis, ndim=1, argument="subsample_axis")
    letters = None if psf_axes is None else check_axes(psf_axes, argument="psf_axes")
    _check_distortions(subsample, psf, yield_target, crop_threshold)
    if psf is None and yield_target == "source":
        warnings.warn(
            "no psf: networks trained on images that were made coarse without blur can show artefacts",
            stacklevel=2,
        )

    def distort(x: NDArray[Any], axes: str) -> NDArray[Any]:
        if psf is not None:
            x = _blur(x, axes, psf, letters)
        if poisson_noise:
            x = np.random.poisson(np.maximum(0, x)).astype(np.float32)
        if gauss_sigma > 0:
            x = np.maximum(0, x + np.random.normal(0, gauss_sigma, x.shape).astype(np.float32))
        return x

    def generate(pairs: Iterable[Pair]) -> Iterator[Pair]:
        for source, given, axes_in, mask in pairs:
            axes = check_axes(axes_in, ndim=source.ndim)
            target = _chosen_target(source, given, yield_target)
            x = distort(source.astype(np.float32, copy=False), axes)
            if subsample != 1:
                x, target = _coarser(x, target, axes.index(axis), float(subsample), crop_threshold)
            yield x, target, axes, mask

    return Transform(f"Anisotropic distortion (along {axis} axis)", generate, 1)


def _check_distortions(
    subsample: float, psf: NDArray[Any] | None, yield_target: str, crop_threshold: float
) -> None:
    if subsample < 1:
        raise InputError(f"subsample must be at least 1; received {subsample!r}")
    if psf is not None and np.min(psf) < 0:
        raise InputError("psf has negative values; a point spread function has none")
    if not 0 < crop_threshold < 1:
        raise InputError(f"crop_threshold must lie between 0 and 1; received {crop_threshold}")
    if yield_target not in ("source", "target"):
        raise InputError(f"yield_target={yield_target!r} is none of 'source', 'target'")


def _chosen_target(source: NDArray[Any], given: NDArray[Any] | None, yield_target: str) -> NDArray[Any]:
    if yield_target == "source":
        if given is not None and not np.allclose(source, given):
            warnings.warn("the targets that came are ignored (yield_target='source')", stacklevel=3)
        return source
    if given is None or source.shape != given.shape:
        shape = None if given is None else given.shape
        raise InputError(f"source has shape {source.shape}, target {shape}; they must be equal")
    return given


def permute_axes(axes: str) -> Transform:
    """Bring images (and masks) into the order of `axes`; missing axes are added with size 1.

    Parameters
    ----------
    axes : str
        As they shall be.

    Returns
    -------
    Transform
    """
    wanted = check_axes(axes)

    def generate(pairs: Iterable[Pair]) -> Iterator[Pair]:
        for x, y, axes_in, mask in pairs:
            given = check_axes(axes_in)
            if given == wanted:
                yield x, y, wanted, mask
                continue
            moved = None if mask is None else move_image_axes(mask, given, wanted, True)
            yield (
                move_image_axes(x, given, wanted, True),
                move_image_axes(y, given, wanted, True),
                wanted,
                moved,
            )

    return Transform(f"Permute axes to {wanted}", generate, 1)


def crop_images(slices: Sequence[slice]) -> Transform:
    """Cut all images (and masks), one slice a dimension.

    Parameters
    ----------
    slices : sequence of slice

    Returns
    -------
    Transform

    Raises
    ------
    InputError
        When it is applied, if there is not one slice a dimension.
    """
    box = tuple(slices)

    def generate(pairs: Iterable[Pair]) -> Iterator[Pair]:
        for x, y, axes, mask in pairs:
            if len(axes) != len(box):
                raise InputError(
                    f"{len(box)} slices were given for images with axes {axes!r}; give one an axis"
                )
            yield x[box], y[box], axes, None if mask is None else mask[box]

    return Transform(f"Crop images ({box})", generate, 1)


def broadcast_target(target_axes: str | None = None) -> Transform:
    """Repeat targets until they have the shape of their sources (a view; nothing is copied).

    Parameters
    ----------
    target_axes : str, optional
        Of the targets; None: those of the sources.

    Returns
    -------
    Transform
    """

    def generate(pairs: Iterable[Pair]) -> Iterator[Pair]:
        for x, y, axes, mask in pairs:
            target = y
            if target_axes is not None:
                target = move_image_axes(y, check_axes(target_axes, ndim=y.ndim), axes, True)
            yield x, np.broadcast_to(target, x.shape), axes, mask

    return Transform("Broadcast target image to the shape of source", generate, 1)


def _blur(x: NDArray[Any], axes: str, psf: NDArray[Any], psf_axes: str | None) -> NDArray[Any]:
    from scipy.signal import fftconvolve

    kernel = psf.astype(np.float32)
    kernel /= kernel.sum()
    if psf_axes is not None:
        kernel = move_image_axes(kernel, psf_axes, axes, True)
    if kernel.ndim != x.ndim:
        raise InputError(
            f"psf has {kernel.ndim} dimensions, the images (axes {axes!r}) {x.ndim}; give psf_axes"
        )
    if "C" not in axes:
        return np.asarray(fftconvolve(x, kernel, mode="same"))
    channel = axes.index("C")
    n, given = x.shape[channel], kernel.shape[channel]
    if given not in (1, n):
        raise InputError(f"psf has {given} channels, the images {n}; give one, or as many")
    if given < n:
        warnings.warn("the same psf blurs every channel", stacklevel=2)
    blurred = [
        fftconvolve(
            x.take(index, axis=channel), kernel.take(min(index, given - 1), axis=channel), mode="same"
        )
        for index in range(n)
    ]
    return np.stack(blurred, axis=channel)


def _coarser(
    x: NDArray[Any], target: NDArray[Any], axis: int, subsample: float, crop_threshold: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    from scipy.ndimage import zoom

    length = x.shape[axis]
    factor, size = dividing_factor(length, subsample, crop_threshold)
    if factor != subsample:
        warnings.warn(
            f"subsample={subsample} does not divide {length} pixels; {factor} was taken", stacklevel=2
        )
    before = (length - size) // 2
    box = (slice(None),) * axis + (slice(before, before + size),)
    x, target = x[box], target[box]
    factors = np.ones(x.ndim)
    factors[axis] = factor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zoom tells of rounded sizes; they were chosen to fit
        return zoom(zoom(x, 1 / factors, order=0), factors, order=1), target


def dividing_factor(length: int, subsample: float, crop_threshold: float) -> tuple[float, int]:
    """A factor that divides a length after cutting some of it off, and what is left of the length.

    Parameters
    ----------
    length : int
        Pixels.
    subsample : float
        The factor wanted; rounded to fewer decimals until no more than `crop_threshold` is lost.
    crop_threshold : float
        Share, 0-1.

    Raises
    ------
    InputError
        If even a whole factor loses more.
    """
    decimals = len(str(float(subsample)).partition(".")[2])
    for digits in range(decimals, -1, -1):
        factor = Fraction(str(round(float(subsample), digits)))
        steps = math.floor(length / factor) // factor.denominator * factor.denominator
        size = int(steps * factor)
        if size and (length - size) / length <= crop_threshold:
            return float(factor), size
    raise InputError(
        f"subsample={subsample} leaves less than {1 - crop_threshold:g} of {length} pixels; "
        "take a smaller one, larger images, or another crop_threshold"
    )
