"""How close a prediction is to the ground truth: one formula a name, with its settings as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from care_bridge.errors import InputError

TRUTH_PMIN, TRUTH_PMAX = 0.1, 99.9
"""Percentiles of the ground truth that become 0 and 1 before errors are measured (CARE supplement 2.2)."""


@dataclass(frozen=True)
class SsimSetting:
    """Which of the many quantities called SSIM.

    Attributes
    ----------
    name : str
        What tables call it.
    gaussian_sigma : float, optional
        Width of the Gaussian window in pixels; None takes the uniform window of `window_px`.
    window_px : int, optional
        Side of the uniform window; None where the window is Gaussian (cut at 3.5 sigma, so 11 pixels wide).
    sample_covariance : bool
        Whether covariances are divided by N - 1 instead of N.
    """

    name: str
    gaussian_sigma: float | None
    window_px: int | None
    sample_covariance: bool

    @property
    def width_px(self) -> int:
        """Pixels that the window needs along each axis."""
        if self.window_px is not None:
            return self.window_px
        assert self.gaussian_sigma is not None
        return 2 * int(3.5 * self.gaussian_sigma + 0.5) + 1

    @property
    def window(self) -> dict[str, Any]:
        """As `skimage.metrics.structural_similarity` is told it."""
        shape: dict[str, Any] = (
            {"win_size": self.window_px}
            if self.gaussian_sigma is None
            else {"gaussian_weights": True, "sigma": self.gaussian_sigma}
        )
        return {"use_sample_covariance": self.sample_covariance} | shape


WEIGERT = SsimSetting("gaussian", gaussian_sigma=1.5, window_px=None, sample_covariance=False)
"""Gaussian window of sigma 1.5, as Wang et al. 2004 and the CARE evaluations; the default."""

UNIFORM = SsimSetting("uniform-7", gaussian_sigma=None, window_px=7, sample_covariance=True)
"""Uniform window of 7 pixels and sample covariance: scikit-image's defaults."""

Array = NDArray[np.float64]


def normalize_minmse(prediction: ArrayLike, ground_truth: ArrayLike) -> Array:
    """Scale and shift a prediction so that its mean squared error to the ground truth is smallest.

    Parameters
    ----------
    prediction, ground_truth : ndarray
        Of equal shape.

    Returns
    -------
    ndarray of float64
        ``alpha * prediction + beta`` with alpha = cov / (var + 1e-10), N - 1 in both.

    Notes
    -----
    The 1e-10 is csbdeep's (utils.normalize_minmse); it makes a constant prediction the mean of the truth.
    """
    given, truth = _checked(prediction, ground_truth)
    return _fitted(given, truth)


def align(prediction: ArrayLike, ground_truth: ArrayLike) -> tuple[Array, Array]:
    """Both images on the scale that errors are measured on.

    Returns
    -------
    prediction, ground_truth : ndarray of float64
        The truth with its percentiles 0.1 and 99.9 at 0 and 1, and the prediction fitted to that by
        `normalize_minmse`.

    Raises
    ------
    InputError
        If shapes differ, either holds NaN or infinities, or the ground truth has no range.
    """
    given, truth = _checked(prediction, ground_truth)
    low, high = np.percentile(truth, [TRUTH_PMIN, TRUTH_PMAX])
    if high <= low:
        raise InputError(
            f"ground_truth has {low:g} at both percentiles {TRUTH_PMIN} and {TRUTH_PMAX}: errors relative to "
            "its range are undefined; give data_range=..."
        )
    truth = (truth - low) / (high - low)
    return _fitted(given, truth), truth


def nrmse(prediction: ArrayLike, ground_truth: ArrayLike, *, data_range: float | None = None) -> float:
    """Root mean square error relative to the range of the ground truth.

    Parameters
    ----------
    prediction, ground_truth : ndarray
        Of equal shape.
    data_range : float, optional
        Divide the plain root mean square error by this. None aligns the two first (`align`), as the CARE
        paper; the result is then normalised already.

    Returns
    -------
    float
        0 is perfect.
    """
    given, truth, scale = _scaled(prediction, ground_truth, data_range)
    return float(np.sqrt(np.mean((given - truth) ** 2))) / scale


def psnr(prediction: ArrayLike, ground_truth: ArrayLike, *, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio in decibels: ``-20 log10(nrmse)``; infinite for equal images.

    Parameters
    ----------
    prediction, ground_truth, data_range
        As `nrmse`.
    """
    error = nrmse(prediction, ground_truth, data_range=data_range)
    return float("inf") if error == 0 else float(-20 * np.log10(error))


def ssim(
    prediction: ArrayLike,
    ground_truth: ArrayLike,
    *,
    data_range: float | None = None,
    setting: SsimSetting = WEIGERT,
    slicewise: bool = False,
) -> float:
    """Structural similarity, with K1 = 0.01 and K2 = 0.03.

    Parameters
    ----------
    prediction, ground_truth : ndarray, shape ([Z,] Y, X)
        Of equal shape; windows have as many dimensions as the images.
    data_range : float, optional
        Range of the values. None aligns the two first (`align`) and takes 1.
    setting : SsimSetting
        `WEIGERT` or `UNIFORM`; name it wherever the number is shown.
    slicewise : bool
        Mean over the 2-D slices of a stack (everything but the last two axes) instead of 3-D windows.

    Returns
    -------
    float
        1 for equal images.

    Raises
    ------
    InputError
        As `align`, or if the images are smaller than the window.
    """
    from skimage.metrics import structural_similarity

    given, truth, scale = _scaled(prediction, ground_truth, data_range)
    if slicewise and given.ndim > 2:
        given, truth = (array.reshape(-1, *array.shape[-2:]) for array in (given, truth))
        pairs = list(zip(given, truth, strict=True))
    else:
        pairs = [(given, truth)]
    width = setting.width_px
    if min(pairs[0][0].shape) < width:
        raise InputError(
            f"SSIM ({setting.name}) needs {width} pixels along each axis, the image has {pairs[0][0].shape}; "
            + ("use slicewise=True" if not slicewise and given.ndim > 2 else "use a larger image")
        )
    each = [structural_similarity(there, here, data_range=scale, **setting.window) for here, there in pairs]
    return float(np.mean(each))


def mae(prediction: ArrayLike, ground_truth: ArrayLike, *, data_range: float = 1.0) -> float:
    """Mean absolute error in units of `data_range`; nothing is aligned."""
    given, truth = _checked(prediction, ground_truth)
    return float(np.mean(np.abs(given - truth))) / _checked_range(data_range)


def pearson(prediction: ArrayLike, ground_truth: ArrayLike) -> float:
    """Pearson's correlation of the pixels, -1 to 1; NaN where one of the images is constant."""
    given, truth = (array - array.mean() for array in _checked(prediction, ground_truth))
    norm = float(np.sqrt(np.sum(given**2) * np.sum(truth**2)))
    return float(np.sum(given * truth)) / norm if norm > 0 else float("nan")


def _fitted(given: Array, truth: Array) -> Array:
    centred = given - given.mean()
    degrees = max(given.size - 1, 1)
    covariance = float(np.sum(centred * (truth - truth.mean()))) / degrees
    alpha = covariance / (float(np.sum(centred**2)) / degrees + 1e-10)
    fitted: Array = alpha * centred + truth.mean()
    return fitted


def _scaled(
    prediction: ArrayLike, ground_truth: ArrayLike, data_range: float | None
) -> tuple[Array, Array, float]:
    if data_range is None:
        return *align(prediction, ground_truth), 1.0
    return *_checked(prediction, ground_truth), _checked_range(data_range)


def _checked_range(data_range: float) -> float:
    if not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"data_range must be a positive number; received {data_range}")
    return float(data_range)


def _checked(prediction: ArrayLike, ground_truth: ArrayLike) -> tuple[Array, Array]:
    given, truth = np.asarray(prediction), np.asarray(ground_truth)
    if given.shape != truth.shape:
        raise InputError(
            f"prediction has shape {given.shape}, ground_truth {truth.shape}; crop or move the axes of one "
            "so that they are equal"
        )
    if not given.size:
        raise InputError(f"prediction and ground_truth have shape {given.shape}: no pixel to compare")
    # float64: sums of squares of 16-bit images do not fit into float32.
    given, truth = given.astype(np.float64), truth.astype(np.float64)
    for name, array in (("prediction", given), ("ground_truth", truth)):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(
                f"{name} holds {bad} values that are NaN or infinite; replace them before scoring"
            )
    return given, truth
