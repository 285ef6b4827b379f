import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.errors import InputError, NotInstalledError
from care_bridge.evaluate.baselines import (
    FILTERS,
    SHIPPED,
    Baseline,
    at_hand,
    bm3d,
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
    assert set(after) == set(at_hand())
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
    with pytest.raises(InputError, match="no baseline is called BM4D"):
        tune(training, tuned_on="", names=["BM4D"])


# ---- BM3D, whose package may be here or not; here a stand-in smooths instead


@pytest.fixture
def stand_in(monkeypatch):
    """A package `bm3d` that remembers what it was given."""
    given = []

    def denoise(plane, sd):
        given.append((plane, sd))
        return gaussian_filter(plane, 1.0 if sd else 0)

    monkeypatch.setitem(sys.modules, "bm3d", SimpleNamespace(bm3d=denoise))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    return given


def test_without_its_package_bm3d_is_not_spoken_of_unless_it_is_named(training, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    assert at_hand() == SHIPPED
    assert len(SHIPPED) == 6
    with pytest.raises(NotInstalledError, match="non-commercial use only: pip install bm3d"):
        tune(training, tuned_on="", names=["BM3D"])


def test_with_its_package_bm3d_is_tuned_on_the_same_pieces_as_the_others(stand_in, training):
    assert at_hand() == (*SHIPPED, "BM3D")
    (found,) = tune(training, tuned_on="two", names=["BM3D"])
    assert found.tuned_on == "two"
    assert len(stand_in) == len(FILTERS["BM3D"][1]) * len(tuning_pieces(training))
    assert found.runtime.versions == {"bm3d": "0"}
    source, target = training[0]
    assert score_image(found.predict(source), target).nrmse < score_image(source, target).nrmse


def test_bm3d_is_given_photons_whose_noise_is_one_everywhere(stand_in):
    truth = np.tile(np.linspace(3, 63, 256), (256, 1))
    random = np.random.default_rng(0)
    photons = random.poisson(truth) + random.normal(0, 2, truth.shape)
    result = bm3d(np.asarray(100 + 5 * photons, np.float32), strength=0.5)
    given, sd = stand_in[0]
    assert (float(given.min()), float(given.max())) == pytest.approx((0, 1), abs=1e-6)
    # Anscombe's photons have a standard deviation of 1, wherever; and half of it was asked for.
    unit = np.diff(given, axis=0) / 2**0.5 / (2 * sd)
    for part in (unit[:, :30], unit[:, 150:]):
        assert part.std() == pytest.approx(1, abs=0.1)
    # The mean of the light stays: the inverse is unbiased, where the square of the half is too dark by about a quarter
    # of a photon, 1.25 grey levels.
    assert result[truth < 6].mean() == pytest.approx(100 + 5 * truth[truth < 6].mean(), abs=0.8)


def test_bm3d_takes_noise_for_the_same_everywhere_where_no_gain_can_be_told(stand_in):
    plane = np.random.default_rng(0).normal(100, 7, (192, 192)).astype(np.float32)
    bm3d(plane, strength=1.0)
    assert stand_in[0][1] * np.ptp(plane) == pytest.approx(7, rel=0.05)
    flat = np.full((192, 192), 3, np.float32)
    assert (bm3d(flat, strength=1.0) == flat).all()
