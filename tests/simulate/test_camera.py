from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge.images import Image
from care_bridge.simulate.camera import (
    NEIGHBOURS_MOST,
    REACH_PX,
    CameraSetting,
    expected,
    expose,
    neighbour_kernel,
)
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.recipe import parse_recipe
from care_bridge.simulate.steps import Camera

FLAT = np.full((400, 400), 0.5, np.float32)


def noise(setting: CameraSetting, clean: np.ndarray = FLAT, seed: int = 0) -> np.ndarray:
    taken = expose(clean, setting, rng=np.random.default_rng(seed))
    return taken.astype(float) - expected(clean, setting)


@given(st.floats(0, NEIGHBOURS_MOST))
def test_the_kernel_of_neighbours_correlates_them_as_asked_and_keeps_the_variance(correlation: float) -> None:
    taps = neighbour_kernel(correlation).astype(float)
    assert len(taps) == 2 * REACH_PX + 1
    assert np.sum(taps**2) == pytest.approx(1, abs=1e-5)
    assert np.sum(taps[1:] * taps[:-1]) == pytest.approx(correlation, abs=2e-3)


@pytest.mark.parametrize("neighbours", [0.0, 0.3, 0.6, 0.8])
def test_variance_and_correlation_of_the_noise_are_what_is_asked(neighbours: float) -> None:
    setting = CameraSetting(photons=80, read_noise=3, gain=2, offset=50, neighbours=neighbours)
    found = noise(setting)
    # 160,000 pixels; correlated ones count for fewer
    assert found.var() == pytest.approx((80 * 0.5 + 3**2) * 2**2, rel=0.05)
    for axis in (0, 1):
        first, second = np.delete(found, 0, axis), np.delete(found, -1, axis)
        assert np.mean(first * second) / found.var() == pytest.approx(neighbours, abs=0.02)


def test_rows_share_an_offset_of_the_width_that_is_asked() -> None:
    setting = CameraSetting(photons=100, read_noise=2, rows=0.5)
    rows = noise(setting, np.full((2000, 500), 0.5, np.float32)).mean(1)
    white = (100 * 0.5 + 4) / 500  # what is left of the pixels' own noise
    assert rows.std() == pytest.approx(np.sqrt((0.5**2) * (10 + 4) + white), rel=0.06)


def test_correlated_noise_of_a_step_keeps_each_sides_variance() -> None:
    step = np.concatenate([np.full((300, 200), 0.05), np.full((300, 200), 1.0)], 1).astype(np.float32)
    found = noise(CameraSetting(photons=100, neighbours=0.6), step)
    assert found[:, :200].var() == pytest.approx(5, rel=0.1)
    assert found[:, 200:].var() == pytest.approx(100, rel=0.1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_the_mean_of_many_exposures_is_what_is_expected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = Camera(neighbours_share=0.5, rows_share=0.5, hot_share=0, bits_8_share=0, offset=(60, 500))
    setting = camera.draw(rng)
    clean = rng.random((8, 8)).astype(np.float32)
    many = np.mean([expose(clean, setting, rng=rng) for _ in range(400)], axis=0)
    width = setting.gain * np.sqrt((1 + setting.rows) * (setting.photons + setting.read_noise**2) + 1)
    assert np.abs(many - expected(clean, setting)).max() < 5 * width / np.sqrt(400)


def test_8_bit_images_hold_whole_levels_of_8_bits() -> None:
    camera = Camera(bits_8_share=1)
    rng = np.random.default_rng(0)
    for _ in range(10):
        taken = expose(FLAT[:32, :32], camera.draw(rng), rng=rng)
        assert taken.min() >= 0
        assert taken.max() <= 255
        np.testing.assert_array_equal(taken, np.rint(taken))


@pytest.mark.parametrize("neighbours", [0.0, 0.6])
def test_scattered_pixels_are_spread_as_those_of_the_image(neighbours: float) -> None:
    y, x = np.mgrid[:300, :300]
    clean = (((np.sin(y / 9) * np.cos(x / 7) + 1) / 2) ** 2).astype(np.float32)
    setting = CameraSetting(photons=20, read_noise=1.5, offset=100, neighbours=neighbours)
    whole = expose(clean, setting, rng=np.random.default_rng(0))
    sample = np.sort(clean.ravel())[22::45]
    found = expose(sample, setting, rng=np.random.default_rng(1), scattered=True)
    wanted = np.percentile(whole, [2, 50, 99.7])
    # a fiftieth of the pixels: their percentiles themselves vary by about this share of the range
    np.testing.assert_allclose(np.percentile(found, [2, 50, 99.7]), wanted, atol=0.06 * np.ptp(wanted))


def test_a_recipe_with_a_camera_gives_source_and_target_in_its_grey_levels() -> None:
    text = "name: r\nsets:\n  - name: a\n    steps:\n      - {step: camera, photons: 1000, bright_share: 0, hot_share: 0}\n"
    clean = Image(np.stack([FLAT[:64, :48], FLAT[:64, :48] / 2]), "CYX", name="cell")
    (pair,) = make_pairs(parse_recipe(text, name="r.yaml"), [clean])
    assert pair.source.shape == pair.target.shape == clean.shape
    for side in (pair.source, pair.target):
        means = side.data.mean((1, 2)) - pair.parameters["camera.offset"]
        assert means[0] == pytest.approx(500 * pair.parameters["camera.gain"], rel=0.01)
        assert means[1] == pytest.approx(250 * pair.parameters["camera.gain"], rel=0.01)
