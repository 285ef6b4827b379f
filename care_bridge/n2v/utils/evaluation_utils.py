"""n2v's evaluation_utils: peak signal-to-noise ratios."""

from __future__ import annotations

from numpy.typing import ArrayLike

from care_bridge.metrics import normalize_minmse, psnr

__all__ = ["PSNR", "best_PSNR"]


def PSNR(gt: ArrayLike, img: ArrayLike, range: float) -> float:  # noqa: N802 - n2v's names
    """Peak signal-to-noise ratio in decibels.

    Parameters
    ----------
    gt, img : ndarray
        Ground truth, and what is held against it.
    range : float
        Of the ground truth's intensities, e.g. 255.

    Returns
    -------
    float
    """
    return psnr(img, gt, data_range=range)


def best_PSNR(gt: ArrayLike, img: ArrayLike, range: float) -> float:  # noqa: N802 - n2v's names
    """The same after `img` was scaled and shifted so that its squared error is smallest.

    Parameters
    ----------
    gt, img, range
        As for `PSNR`.

    Returns
    -------
    float
    """
    return psnr(normalize_minmse(img, gt), gt, data_range=range)
