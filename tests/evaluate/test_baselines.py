import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.errors import InputError
from care_bridge.evaluate.baselines import (
    FILTERS,
    Baseline,
    noise_sd,
    richardson_lucy,
    tune,
    tuning_pieces,
    wiener,
)
from care_bridge.evaluate.scores import score_image
from care_bridge.images import Image


@pytest.fixture(scope="module")
def training(make_pair):
    return [make_pair(seed, noise=300.0) for seed in range(2)]


@pytest.fixture(scope="module")
def tuned(training):
    return tune(training, tuned_on="two training images")


def test_every_filter_improves_an_image_it_was_not_tuned_on(tuned, make_pair):
    source, target = make_pair(7, noise=300.0)
    before = score_image(source, target).nrmse
    after = {baseline.name: score_image(baseline.predict(source), target).nrmse for baseline in tuned}
    assert set(after) == set(FILTERS)
    assert all(error < before for error in after.values()), (before, after)


def test_tuning_takes_the_best_of_the_settings_it_tried(tuned, training):
    (gaussian,) = (baseline for baseline in tuned if baseline.name == "Gaussian")
    pieces = tuning_pieces(training)
    from care_bridge.metrics import nrmse

    errors = {
        setting["sigma_px"]: np.mean([nrmse(gaussian_filter(s, setting["sigma_px"]), t) for s, t in pieces])
        for setting in FILTERS["Gaussian"][1]
    }
    assert gaussian.parameters["sigma_px"] == min(errors, key=errors.get)
    assert gaussian.tuned_on == "two training images"
    assert not gaussian.at_edge


def test_a_setting_at_the_end_of_the_grid_is_marked(training):
    blank = [(source, target.replace(data=gaussian_filter(target.data, 12))) for source, target in training]
    (found,) = tune(blank, tuned_on="", names=["median"])
    assert found.at_edge


def test_noise_is_measured_beside_structure(make_pair):
    source, _ = make_pair(1, (200, 200), noise=150.0)
    assert noise_sd(source.data) == pytest.approx(150, rel=0.1)


@pytest.mark.parametrize(
    ("filtered", "options"),
    [
        (wiener, {"sigma_px": 1.5, "noise_to_signal": 1e-4}),
        (richardson_lucy, {"sigma_px": 1.5, "iterations": 30}),
    ],
)
def test_deconvolution_undoes_blur_without_noise(filtered, options, make_pair):
    truth = make_pair(1)[1].data.astype(np.float32)
    blurred = gaussian_filter(truth, 1.5)
    assert np.abs(filtered(blurred, **options) - truth).mean() < 0.5 * np.abs(blurred - truth).mean()


def test_richardson_lucy_keeps_the_sum(make_pair):
    plane = make_pair(1)[0].data.astype(np.float32)
    assert richardson_lucy(plane, sigma_px=1.0, iterations=6).mean() == pytest.approx(plane.mean(), rel=0.01)


def test_stacks_and_channels_are_filtered_plane_by_plane():
    data = np.random.default_rng(0).normal(100, 10, (2, 3, 24, 24)).astype(np.float32)
    found = Baseline("Gaussian", {"sigma_px": 1.0}).predict(Image(data, "ZCYX"))
    assert found.axes == "ZCYX"
    np.testing.assert_allclose(found.data[1, 2], gaussian_filter(data[1, 2], 1.0), rtol=1e-5)


def test_a_hole_does_not_spread():
    data = np.full((24, 24), 5.0, np.float32)
    data[10, 10] = np.nan
    assert Baseline("Gaussian", {"sigma_px": 1.0}).predict(Image(data, "YX")).data == pytest.approx(5.0)


def test_no_training_pair_is_said():
    with pytest.raises(InputError, match="no training pair"):
        tune([], tuned_on="")


def test_an_unknown_filter_is_said(training):
    with pytest.raises(InputError, match="no baseline is called BM3D"):
        tune(training, tuned_on="", names=["BM3D"])
