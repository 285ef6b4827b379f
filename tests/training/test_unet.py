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
        # The depth-3 net after space-to-depth: 1.37 M.
        ({"architecture": "fast"}, 1_366_433),
        ({"architecture": "fast", "probabilistic": True}, 1_366_562),
    ],
)
def test_default_networks_have_the_parameters_of_csbdeep(settings, parameters):
    assert build(CareConfig(**settings)).count_params() == parameters


@pytest.mark.parametrize(
    "settings",
    [
        {"probabilistic": True, "unet_n_first": 4},
        {"architecture": "fast", "probabilistic": True, "unet_n_first": 4, "unet_n_depth": 1},
        {"architecture": "fast", "axes": "ZYX", "unet_n_first": 4, "unet_n_depth": 1},
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


def test_the_fast_network_is_a_unet_on_blocks_of_two_by_two_pixels():
    """Its first and last layers against space-to-depth, a plain convolution, and depth-to-space."""
    tf = pytest.importorskip("tensorflow")
    config = CareConfig(architecture="fast", unet_n_first=4, unet_n_depth=1, seed=2)
    network = build(config)
    x = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    blocks, mean = network.get_layer("blocks"), network.get_layer("mean")
    kernel, bias = (np.asarray(value) for value in blocks.get_weights())
    # (6, 6, 1, n) -> (3, 2, 3, 2, n) -> (3, 3, 4, n): the four pixels of a block become its channels.
    kernel = kernel.reshape(3, 2, 3, 2, 4).transpose(0, 2, 1, 3, 4).reshape(3, 3, 4, 4)
    expected = tf.nn.relu(tf.nn.conv2d(tf.nn.space_to_depth(x, 2), kernel, 1, "SAME") + bias)
    np.testing.assert_allclose(blocks(x), expected, atol=1e-6)
    kernel, bias = (np.asarray(value) for value in mean.get_weights())
    kernel = kernel.reshape(1, 1, 4, 4).transpose(0, 1, 3, 2)
    ended = tf.nn.depth_to_space(tf.nn.conv2d(expected, kernel, 1, "SAME"), 2) + bias
    np.testing.assert_allclose(mean(expected), ended, atol=1e-6)


@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_the_fast_network_adds_its_input_and_its_scales_are_positive(axes):
    config = CareConfig(axes, architecture="fast", unet_n_first=4, unet_n_depth=1, probabilistic=True)
    network = build(config)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    x = np.random.default_rng(0).random((1, *(8,) * len(axes), 1), np.float32)
    result = np.asarray(network(x))
    np.testing.assert_array_equal(result[..., :1], x)
    np.testing.assert_allclose(result[..., 1:], np.log(2) + 1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"axes": "YX", "probabilistic": True},
        {"axes": "YX", "architecture": "fast"},
        {"axes": "ZYX", "kind": "ProjectionCARE"},
    ],
    ids=["probabilistic", "fast", "projection"],
)
def test_built_again_in_one_process_a_network_and_its_ensemble_are_the_same_to_the_letter(
    settings: dict[str, object],
) -> None:
    config = CareConfig(**({"unet_n_first": 2, "unet_kern_size": 3} | settings))
    one, two = (build(config).to_json() for _ in range(2))
    assert one == two
    several = [mean_of([build(config), build(config)], probabilistic=config.probabilistic) for _ in range(2)]
    assert several[0].to_json() == several[1].to_json()
