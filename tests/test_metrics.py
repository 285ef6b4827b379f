from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from care_bridge import metrics
from care_bridge.errors import InputError


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    y, x = np.mgrid[:48, :40]
    return 100 + 50 * np.sin(x / 4) * np.cos(y / 5)


@pytest.fixture(scope="module")
def noisy(truth: np.ndarray) -> np.ndarray:
    return truth + np.random.default_rng(1).normal(0, 10, truth.shape)


def test_minmse_fit_worked_by_hand() -> None:
    # x = 0 1 2, t = 1 3 8: cov = 7/2, var = 1, so alpha = 3.5 and beta = 4 - 3.5 * 1 = 0.5.
    fitted = metrics.normalize_minmse([0.0, 1.0, 2.0], [1.0, 3.0, 8.0])
    np.testing.assert_allclose(fitted, [0.5, 4.0, 7.5], atol=1e-9)


def test_nrmse_worked_by_hand() -> None:
    # 0..1000 has 1 and 999 at its percentiles 0.1 and 99.9, so the range is 998. +3 and -3 in turn, on an
    # image that is exactly uncorrelated with them, cannot be fitted away.
    truth = np.concatenate([np.arange(1001.0), np.arange(1001.0)])
    error = np.concatenate([np.full(1001, 3.0), np.full(1001, -3.0)])
    # A fit to truth + error has alpha = var / (var + 9), and leaves sqrt(9 var / (var + 9)).
    variance = np.var(truth)
    expected = np.sqrt(9 * variance / (variance + 9)) / 998
    assert metrics.nrmse(truth + error, truth) == pytest.approx(expected, rel=1e-6)
    assert metrics.psnr(truth + error, truth) == pytest.approx(-20 * np.log10(expected), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_aligned_scores_ignore_gain_and_offset_of_the_prediction(gain: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((16, 16))
    given = truth + 0.1 * rng.random((16, 16))
    # csbdeep's 1e-10 beside the variance keeps this from being exact for tiny gains.
    assert metrics.nrmse(gain * given + offset, truth) == pytest.approx(metrics.nrmse(given, truth), rel=1e-4)
    assert metrics.ssim(gain * given + offset, truth) == pytest.approx(metrics.ssim(given, truth), abs=1e-4)


def test_minmse_fit_is_that_of_csbdeep(truth: np.ndarray, noisy: np.ndarray) -> None:
    cov = np.cov(noisy.ravel(), truth.ravel())  # the formula of csbdeep 0.8.2, utils.normalize_minmse
    alpha = cov[0, 1] / (cov[0, 0] + 1e-10)
    expected = alpha * noisy + truth.mean() - alpha * noisy.mean()
    np.testing.assert_allclose(metrics.normalize_minmse(noisy, truth), expected, rtol=1e-10)


def test_both_ssim_settings_are_those_of_scikit_image(truth: np.ndarray, noisy: np.ndarray) -> None:
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    here = metrics.ssim(noisy, truth, data_range=100)
    assert here == pytest.approx(structural_similarity(truth, noisy, data_range=100, **gaussian), abs=1e-12)
    there = metrics.ssim(noisy, truth, data_range=100, setting=metrics.UNIFORM)
    assert there == pytest.approx(structural_similarity(truth, noisy, data_range=100), abs=1e-12)
    assert abs(here - there) > 1e-4  # which of the two must be said


def test_slicewise_ssim_is_the_mean_of_the_slices(truth: np.ndarray, noisy: np.ndarray) -> None:
    stack, other = np.stack([truth, truth[::-1]]), np.stack([noisy, truth[::-1]])
    expected = (metrics.ssim(noisy, truth, data_range=100) + 1) / 2
    assert metrics.ssim(other, stack, data_range=100, slicewise=True) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(InputError, match="slicewise=True"):
        metrics.ssim(other, stack, data_range=100)


def test_equal_images_are_perfect(truth: np.ndarray) -> None:
    assert metrics.nrmse(truth, truth) == pytest.approx(0, abs=1e-9)
    assert metrics.psnr(truth, truth, data_range=1) == float("inf")
    assert metrics.ssim(truth, truth) == pytest.approx(1)
    assert metrics.pearson(truth, truth) == pytest.approx(1)
    assert metrics.mae(truth, truth) == 0


def test_mae_and_pearson_worked_by_hand() -> None:
    assert metrics.mae([1, 2, 6], [1, 4, 2], data_range=2) == 1.0  # (0 + 2 + 4) / 3 / 2
    assert metrics.pearson([0, 1, 2], [1, 3, 8]) == pytest.approx(7 / np.sqrt(2 * 26))
    assert np.isnan(metrics.pearson([1, 1, 1], [1, 3, 8]))


def test_integers_do_not_overflow() -> None:
    dark, bright = np.zeros((8, 8), np.uint16), np.full((8, 8), 65535, np.uint16)
    assert metrics.mae(dark, bright) == 65535
    assert metrics.nrmse(dark, bright, data_range=65535) == 1


def test_a_constant_prediction_becomes_the_mean_of_the_truth(truth: np.ndarray) -> None:
    np.testing.assert_allclose(metrics.normalize_minmse(np.full_like(truth, 7), truth), truth.mean())


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "options", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), {}, r"shape \(4, 4\), ground_truth \(4, 5\)"),
        (np.zeros((4, 4)), np.ones((4, 4)), {}, "1 at both percentiles"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), {}, "prediction holds 16 values that are NaN"),
        (np.zeros((0,)), np.zeros((0,)), {}, "no pixel"),
        (np.zeros((4, 4)), np.ones((4, 4)), {"data_range": 0}, "data_range must be a positive"),
    ],
)
def test_what_cannot_be_scored_is_said(prediction, ground_truth, options, message) -> None:
    with pytest.raises(InputError, match=message):
        metrics.nrmse(prediction, ground_truth, **options)


def test_an_image_smaller_than_the_ssim_window_is_said() -> None:
    small = np.random.default_rng(0).random((8, 8))
    with pytest.raises(InputError, match="needs 11 pixels"):
        metrics.ssim(small, small)
