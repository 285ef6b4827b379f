import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.errors import InputError
from care_bridge.evaluate.applications import (
    compare_applications,
    contrast_to_noise,
    gradient_energy,
    maxima,
    omissions,
    summarise_applications,
    unmatched,
    verdict,
)


def spots(places, heights, *, sigma=2.0, size=120):
    image = np.zeros((size, size))
    y, x = np.mgrid[0:size, 0:size]
    for (cy, cx), height in zip(places, heights, strict=True):
        image += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
    return image


PLACES = [(20, 20), (20, 60), (60, 20), (60, 90), (95, 50), (100, 100)]


def test_maxima_are_where_the_spots_are_and_as_wide():
    found = maxima(spots(PLACES, [1.0] * 6))
    assert sorted(map(tuple, found.yx_px.astype(int).tolist())) == sorted(PLACES)
    assert found.width_px == pytest.approx(2.3548 * 2.0, rel=0.15)


def test_a_made_up_spot_is_invented_and_a_lost_one_omitted():
    truth = spots(PLACES, [1.0] * 6)
    candidate = spots([*PLACES[:5], (40, 40)], [1.0] * 6)
    once = compare_applications([truth, candidate], truth)[1]
    assert (once.invented, once.omitted, once.maxima, once.truth_maxima) == (1, 1, 6, 6)


def test_a_faint_counterpart_blames_nobody():
    clear, faint = maxima(spots(PLACES[:1], [0.15])), maxima(spots(PLACES[:1], [0.09]))
    assert not unmatched(clear, faint).any()


def test_omissions_are_told_by_intensity():
    heights = [0.25, 0.26, 0.6, 0.62, 0.99, 1.0]
    truth, candidate = spots(PLACES, heights), spots(PLACES[2:], heights[2:])
    rows = {(row.by, row.group): (row.n, row.omitted) for row in omissions(candidate, truth)}
    assert rows["intensity", "dim"] == (2, 2)
    assert rows["intensity", "bright"] == (2, 0)


def test_contrast_to_noise_by_hand():
    plane = np.array([[1.0, 3.0], [10.0, 12.0]])
    structure = np.array([[False, False], [True, True]])
    assert contrast_to_noise(plane, structure) == pytest.approx((11 - 2) / 1.0)  # sd of 1 and 3 is 1


def test_gradient_energy_of_a_ramp_is_its_slope_squared():
    assert gradient_energy(np.add.outer(2.0 * np.arange(8), 3.0 * np.arange(9))) == pytest.approx(4 + 9)


def series(truth, seeds, *, second):
    images = []
    for seed in seeds:
        noisy = truth + np.random.default_rng(seed).normal(0, 0.15, truth.shape)
        once = gaussian_filter(noisy, 1.0)
        images.append(compare_applications([noisy, once, second(once)], truth))
    return images


@pytest.fixture(scope="module")
def truth():
    return spots(PLACES, [1.0, 0.9, 0.8, 0.9, 1.0, 0.7], sigma=3)


def test_a_second_application_that_blurs_is_not_recommended(truth):
    found = verdict(series(truth, range(6), second=lambda once: gaussian_filter(once, 6)))
    assert found.applications == 1
    assert found.text.startswith("Apply once: ")
    assert "the second application raises NRMSE" in found.text


def test_a_second_application_that_helps_is_recommended(truth):
    found = verdict(series(truth, range(6), second=lambda once: gaussian_filter(once, 1.5)))
    assert found.applications == 2
    assert "better on 6 of 6 images, p = 0.031" in found.text  # 2 / 2**6


def test_a_network_that_harms_is_not_recommended_at_all(truth):
    noisy = truth + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    images = [compare_applications([noisy, gaussian_filter(truth, 9)], truth)]
    assert verdict(images).text.startswith("Do not apply this network")


def test_rows_name_every_application(truth):
    rows = summarise_applications(series(truth, range(2), second=lambda once: once))
    assert [row["applications"] for row in rows] == [0, 1, 2]
    assert rows[0]["mean |f(k) - f(k-1)|"] == ""
    assert float(rows[2]["mean |f(k) - f(k-1)|"].split()[0]) == 0


def test_different_numbers_of_applications_are_said(truth):
    with pytest.raises(InputError, match="same number of applications"):
        verdict([compare_applications([truth], truth)])
