from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import spatial

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.simulate import fibre
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.recipe import parse_recipe


def fibre_recipe(step: str) -> str:
    return f"name: f\nsets:\n  - name: b\n    steps:\n      - {{step: fibre, {step}}}\n"


def test_cores_form_a_honeycomb() -> None:
    cores = fibre.bundle((160, 160), seed=1, pitch_px=8, jitter=0)
    inner = np.all((cores.centres_px > 8) & (cores.centres_px < 152), axis=1)
    distance, _ = spatial.cKDTree(cores.centres_px).query(cores.centres_px[inner], k=7)
    np.testing.assert_allclose(distance[:, 1:], 8, rtol=1e-9)
    # One core takes sqrt(3) / 2 pitch^2.
    assert inner.sum() == pytest.approx(144**2 / (8**2 * np.sqrt(3) / 2), rel=0.05)


def test_transmission_and_dead_cores_are_as_many_as_said() -> None:
    cores = fibre.bundle((800, 800), seed=1, transmission_spread=0.1, dead_share=0.05)
    count = len(cores.transmission)
    dead = cores.transmission == 0
    assert dead.mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / count))
    alive = cores.transmission[~dead]
    assert alive.mean() == pytest.approx(1, abs=3 * 0.1 / np.sqrt(count))
    assert alive.std() == pytest.approx(0.1, rel=0.05)


def test_crosstalk_leaks_to_the_six_neighbours_only() -> None:
    shape = (60, 60)
    cores = fibre.bundle(shape, seed=1, pitch_px=10, jitter=0, transmission_spread=0, dead_share=0)
    lit = int(np.argmin(np.linalg.norm(cores.centres_px - 30, axis=1)))
    image = np.zeros(shape)
    y, x = np.rint(cores.centres_px[lit]).astype(int)
    image[y, x] = 1
    settings = {"mode_radius": 0.15, "cladding": 0.0}
    tight = fibre.through_bundle(image, cores, crosstalk=0.0, **settings)
    leaky = fibre.through_bundle(image, cores, crosstalk=0.05, **settings)
    far = np.linalg.norm(cores.centres_px - cores.centres_px[lit], axis=1)
    for index in np.flatnonzero(far < 25):
        py, px = np.rint(cores.centres_px[index]).astype(int)
        gained = (leaky - tight)[py, px] / tight[y, x]
        if index == lit:
            assert gained == pytest.approx(-6 * 0.05, abs=0.01)
        elif far[index] < 11:
            # The pixel is up to 0.7 px from the core's middle, whose spot has a sigma of 1.5 px.
            assert 0.04 < gained < 0.056
        else:
            assert abs(gained) < 0.005


def test_a_flat_image_shows_the_lattice_at_its_frequency() -> None:
    cores = fibre.bundle((256, 256), seed=1, pitch_px=8)
    shown = fibre.through_bundle(np.ones((256, 256)), cores)
    power = np.abs(np.fft.fft2((shown - shown.mean()) * np.outer(np.hanning(256), np.hanning(256)))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256), indexing="ij"))
    strongest = frequency.ravel()[power.ravel().argmax()]
    # Rows of a hexagonal lattice lie sqrt(3) / 2 pitch apart.
    assert strongest == pytest.approx(2 / (np.sqrt(3) * 8), rel=0.03)
    assert fibre.lattice_frequencies(cores) == pytest.approx(2 / (np.sqrt(3) * 8))
    plain = np.random.default_rng(0).standard_normal((256, 256))
    assert fibre.lattice_power(shown, pitch_px=8) > 20 * fibre.lattice_power(plain, pitch_px=8)


def test_a_fixed_bundle_is_the_same_for_every_image_and_a_random_one_is_not(
    clean_image: Callable[..., Image],
) -> None:
    flat = [clean_image(name=name).replace(data=np.ones((64, 64))) for name in ("a", "b")]
    for mode, same in (("fixed", True), ("random", False)):
        recipe = parse_recipe(fibre_recipe(f"mode: {mode}"), name="f.yaml")
        first, second = (pair.source.data for pair in make_pairs(recipe, flat))
        assert np.array_equal(first, second) is same


def test_a_fixed_bundle_has_one_pitch() -> None:
    with pytest.raises(InputError, match="a fixed bundle has one pitch_px"):
        parse_recipe(fibre_recipe("mode: fixed, pitch_px: [6, 8]"), name="f.yaml")


def test_a_pitch_below_two_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="pitch of 2 px or more"):
        fibre.bundle((32, 32), seed=0, pitch_px=1.5)
