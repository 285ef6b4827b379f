"""Networks are csbdeep's, layer for layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from care_bridge.config import CareConfig
from care_bridge.training.unet import build, mean_of

pytestmark = pytest.mark.tf


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        # Counted in csbdeep 0.8.2 under Keras 3.15.
        ({}, 922_977),
        ({"probabilistic": True}, 923_010),
        ({"axes": "ZYX"}, 996_769),
    ],
)
def test_default_networks_have_the_parameters_of_csbdeep(settings, parameters):
    assert build(CareConfig(**settings)).count_params() == parameters


@pytest.mark.parametrize(
    "settings",
    [
        {"probabilistic": True, "unet_n_first": 4},
        {
            "axes": "ZYX",
            "kind": "ProjectionCARE",
            "unet_n_first": 4,
            "proj_n_depth": 2,
            "probabilistic": True,
        },
    ],
)
def test_keras_file_loads_in_safe_mode_without_this_package(tmp_path, settings):
    config = CareConfig(**settings)
    network = build(config)
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(0).random((1, *(8,) * config.n_dim, 1), np.float32)
    np.testing.assert_array_equal(again(x), network(x))
    assert all(type(layer).__module__.startswith("keras.") for layer in again.layers)


def test_seed_decides_the_first_weights_whatever_was_built_before():
    config = CareConfig(unet_n_first=4, seed=5)
    first = build(config).get_weights()
    build(CareConfig(unet_n_first=8))
    for one, other in zip(first, build(config).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], build(config, seed=6).get_weights()[0])


def test_anisotropic_pooling_leaves_five_planes_five():
    config = CareConfig("ZYX", unet_n_first=4, unet_pool=(1, 2, 2), unet_kern_size=(1, 3, 3))
    assert build(config)(np.zeros((1, 5, 8, 8, 1), np.float32)).shape == (1, 5, 8, 8, 1)


def test_bfloat16_network_keeps_float32_weights_and_output():
    config = CareConfig(unet_n_first=4)
    network = build(config, precision="bfloat16")
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    x = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    assert network(x).dtype == "float32"
    np.testing.assert_allclose(network(x), build(config)(x), atol=0.02)


def test_mean_network_averages_and_widens_by_disagreement():
    config = CareConfig(unet_n_first=4, probabilistic=True)
    members = [build(config, seed=seed) for seed in range(3)]
    x = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    each = np.stack([member(x) for member in members])
    result = np.asarray(mean_of(members, probabilistic=True)(x))
    np.testing.assert_allclose(result[..., :1], each[..., :1].mean(0), atol=1e-6)
    # A Laplace distribution of scale s has variance 2 s^2; the mixture's variance is the mean of the members'
    # and the variance of their means (Lakshminarayanan et al. 2017).
    variance = (2 * each[..., 1:] ** 2).mean(0) + each[..., :1].var(0)
    np.testing.assert_allclose(result[..., 1:], np.sqrt(variance / 2), rtol=1e-5)
