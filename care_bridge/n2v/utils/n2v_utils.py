"""n2v's n2v_utils: what is put into blind spots, validation patches, autocorrelation, eight positions of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "autocorrelation",
    "get_subpatch",
    "manipulate_val_data",
    "mask_center",
    "normal_int",
    "pm_identity",
    "pm_mean",
    "pm_median",
    "pm_normal_additive",
    "pm_normal_fitted",
    "pm_normal_withoutCP",
    "pm_uniform_withCP",
    "pm_uniform_withoutCP",
    "random_neighbor",
    "sample_coords",
    "tta_backward",
    "tta_forward",
]

Array = NDArray[Any]
Manipulator = Callable[..., list[Any]]
"""Called with a patch, the coordinates of its blind spots (an array an axis), and the number of its axes."""


def get_subpatch(
    patch: Array, coord: Sequence[int], local_sub_patch_radius: int, crop_patch: bool = True
) -> tuple[Array, Any, Any]:
    """The pixels around one.

    Parameters
    ----------
    patch : ndarray
    coord : sequence of int
    local_sub_patch_radius : int
        Pixels a side.
    crop_patch : bool
        Leave out what lies beyond the border; False moves the window inwards.

    Returns
    -------
    window : ndarray
    before, after : ndarray of int, or 0 and 0
        Pixels that are cut off at the lower border (negative) and the upper one.
    """
    here, size = np.asarray(coord), np.asarray(patch.shape)
    low, high = here - local_sub_patch_radius, here + local_sub_patch_radius + 1
    if crop_patch:
        before, after = np.minimum(low, 0), np.maximum(high - size, 0)
        low, high = low - before, high - after
    else:
        before = after = 0
        low = np.maximum(low, 0)
        high = low + 2 * local_sub_patch_radius + 1
        inwards = np.minimum(size - high, 0)
        low, high = low + inwards, high + inwards
    return patch[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))], before, after


def random_neighbor(shape: Sequence[int], coord: Sequence[int]) -> list[int]:
    """A pixel nearby, in no coordinate the same.

    Parameters
    ----------
    shape : sequence of int
        Of the patch.
    coord : sequence of int

    Returns
    -------
    list of int
    """
    while True:
        found = sample_coords(shape, coord)
        if all(there != here for there, here in zip(found, coord, strict=False)):
            return found


def sample_coords(shape: Sequence[int], coord: Sequence[int], sigma: float = 4) -> list[int]:
    """A pixel nearby, which may be the same.

    Parameters
    ----------
    shape : sequence of int
        Of the patch.
    coord : sequence of int
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    list of int
    """
    return [normal_int(here, sigma, size) for here, size in zip(coord, shape, strict=False)]


def normal_int(mean: float, sigma: float, w: int) -> int:
    """A whole number, normally distributed, of at least 0 and below `w`.

    Parameters
    ----------
    mean, sigma : float
    w : int

    Returns
    -------
    int
    """
    return int(np.clip(np.round(np.random.normal(mean, sigma)), 0, w - 1))


def mask_center(local_sub_patch_radius: int, ndims: int = 2) -> NDArray[np.bool_]:
    """True for every pixel of a window but the middle one.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.
    ndims : int

    Returns
    -------
    ndarray of bool
    """
    mask = np.ones((2 * local_sub_patch_radius + 1,) * ndims, bool)
    mask[(local_sub_patch_radius,) * ndims] = False
    return mask


def _manipulator(name: str, radius: float) -> Manipulator:
    """One of `training.blind_spots`, in n2v's shape."""

    def manipulate(patch: Array, coords: Any, dims: int, structN2Vmask: Any = None) -> list[Any]:
        from care_bridge.training.blind_spots import offsets_of, stand_ins

        places = tuple(np.asarray(axis, np.intp) for axis in coords)
        n_dim = len(places)
        # What is left of the patch's axes are channels.
        pixels: Array = np.asarray(patch, np.float64).reshape(1, *patch.shape[:n_dim], -1)
        spots = (np.zeros(len(places[0]), np.intp), *places)
        rng = np.random.default_rng(np.random.randint(2**31))
        found = stand_ins(
            pixels, spots, name, radius=radius, hidden=offsets_of(structN2Vmask, n_dim), rng=rng
        )
        return [float(one[0]) if one.size == 1 else one for one in found]

    return manipulate


def pm_normal_withoutCP(local_sub_patch_radius: int) -> Manipulator:  # noqa: N802 - n2v's name
    """A pixel about 4 pixels off.

    Parameters
    ----------
    local_sub_patch_radius : int
        Not looked at.

    Returns
    -------
    callable
    """
    return _manipulator("normal_withoutCP", local_sub_patch_radius)


def pm_mean(local_sub_patch_radius: int) -> Manipulator:
    """The mean of the pixels around.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.

    Returns
    -------
    callable
    """
    return _manipulator("mean", local_sub_patch_radius)


def pm_median(local_sub_patch_radius: int) -> Manipulator:
    """The median of the pixels around.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.

    Returns
    -------
    callable
    """
    return _manipulator("median", local_sub_patch_radius)


def pm_uniform_withCP(local_sub_patch_radius: int) -> Manipulator:  # noqa: N802 - n2v's name
    """Any of the pixels around, or the pixel itself.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.

    Returns
    -------
    callable
    """
    return _manipulator("uniform_withCP", local_sub_patch_radius)


def pm_uniform_withoutCP(local_sub_patch_radius: int) -> Manipulator:  # noqa: N802 - n2v's name
    """Any of the pixels around.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.

    Returns
    -------
    callable
    """
    return _manipulator("uniform_withoutCP", local_sub_patch_radius)


def pm_normal_additive(pixel_gauss_sigma: float) -> Manipulator:
    """The pixel and a normally distributed number.

    Parameters
    ----------
    pixel_gauss_sigma : float
        Standard deviation of the number.

    Returns
    -------
    callable
    """
    return _manipulator("normal_additive", pixel_gauss_sigma)


def pm_normal_fitted(local_sub_patch_radius: int) -> Manipulator:
    """A number of a normal distribution with the mean and deviation of the pixels around.

    Parameters
    ----------
    local_sub_patch_radius : int
        Pixels a side.

    Returns
    -------
    callable
    """
    return _manipulator("normal_fitted", local_sub_patch_radius)


def pm_identity(local_sub_patch_radius: int) -> Manipulator:
    """The pixel itself.

    Parameters
    ----------
    local_sub_patch_radius : int
        Not looked at.

    Returns
    -------
    callable
    """
    return _manipulator("identity", local_sub_patch_radius)


def manipulate_val_data(
    X_val: Array,
    Y_val: Array,
    perc_pix: float = 0.198,
    shape: Sequence[int] = (64, 64),
    value_manipulation: Manipulator | None = None,
) -> None:
    """Put blind spots into validation patches; both arrays are changed.

    Parameters
    ----------
    X_val : ndarray, shape (n, [z,] y, x, channel)
        Gets the blind spots.
    Y_val : ndarray, shape (n, [z,] y, x, 2 channels)
        Gets the true values of the spots, and behind them a mask; 0 elsewhere.
    perc_pix : float
        Percent of the pixels.
    shape : sequence of int
        Only the number of its entries is looked at: 2-D or 3-D.
    value_manipulation : callable, optional
        One of ``pm_...``, or one like them; None takes ``pm_uniform_withCP(5)``.
    """
    from care_bridge.training.blind_spots import draw_spots

    manipulate = pm_uniform_withCP(5) if value_manipulation is None else value_manipulation
    channels = X_val.shape[-1]
    rng = np.random.default_rng(np.random.randint(2**31))
    Y_val[...] = 0
    for number, patch in enumerate(X_val):
        coords = draw_spots((1, *patch.shape), perc_pix, rng)[1:]
        for channel in range(channels):
            at: Any = (number, *coords, channel)
            mask: Any = (number, *coords, channels + channel)
            true = X_val[at].copy()
            X_val[at] = manipulate(patch[..., channel], coords, len(shape))
            Y_val[at] = true
            Y_val[mask] = 1


def autocorrelation(x: Array) -> Array:
    """How alike an image is to itself when it is moved: 1 in the middle, where it is not.

    Parameters
    ----------
    x : ndarray
        Of any number of dimensions.

    Returns
    -------
    ndarray
        Of the same shape, the shift of nothing in the middle.

    Notes
    -----
    By Wiener and Khinchin from the power spectrum, so the image goes on at its other side.
    """
    centred = x - np.mean(x)
    power = np.fft.ifftn(np.abs(np.fft.fftn(centred)) ** 2).real
    return np.asarray(np.fft.fftshift(power / power.flat[0]))


def tta_forward(x: Array) -> list[Array]:
    """An image in its eight positions.

    Parameters
    ----------
    x : ndarray
        Turned in the plane of its first two axes.

    Returns
    -------
    list of ndarray
        Turned by 0, 90, 180 and 270 degrees, and the same mirrored along the second axis.
    """
    turned = [np.rot90(x, turns) for turns in range(4)]
    return turned + [np.flip(one, axis=1) for one in turned]


def tta_backward(x_aug: Sequence[Array]) -> Array:
    """The mean of eight results, each turned back.

    Parameters
    ----------
    x_aug : sequence of ndarray
        In the order of `tta_forward`.

    Returns
    -------
    ndarray
    """
    straight = [*x_aug[:4], *(np.flip(one, axis=1) for one in x_aug[4:])]
    return np.asarray(np.mean([np.rot90(one, -(turns % 4)) for turns, one in enumerate(straight)], axis=0))
