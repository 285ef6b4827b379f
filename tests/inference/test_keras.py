"""Keras predictors: tiled equals whole, for any network."""

from __future__ import annotations

import numpy as np
import pytest

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.inference.keras import KerasNetwork, KerasPredictor
from care_bridge.normalize import FIJI
from care_bridge.opening import open_predictor
from care_bridge.predictor import Network, PredictOptions
from care_bridge.tiling import CsbdeepTiles
from care_bridge.training.folder import CareModel, save_model
from care_bridge.training.unet import build

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_tiled_equals_whole_for_any_depth_and_kernel(depth, kernel):
    config = CareConfig(unet_n_depth=depth, unet_kern_size=kernel, unet_n_first=1, unet_residual=False)
    network = build(config, seed=depth)
    # All weights above 0, or the ReLUs of so thin a network cut off what a wrong halo would show.
    network.set_weights([np.abs(weight) for weight in network.get_weights()])
    # Wide enough that the middle tile sees neither border.
    width = 2 * (2 * config.halo["X"] + 4 * 2**depth)
    image = Image(np.random.default_rng(depth).random((2**depth, width)).astype(np.float32), "YX")
    model = CareModel(config, network)
    whole = KerasPredictor(model).predict(image).data
    tiles = PredictOptions(tiles=CsbdeepTiles({"X": 4}))
    tiled = KerasPredictor(model, tiles).predict(image).data
    # 0 but for float32: a convolution's sums may be ordered by the tile's width.
    np.testing.assert_allclose(tiled, whole, atol=2e-6 * np.ptp(whole))


def test_a_halo_too_small_would_be_seen():
    config = CareConfig(unet_n_depth=2, unet_kern_size=5, unet_n_first=1, unet_residual=False)
    network = build(config, seed=2)
    network.set_weights([np.abs(weight) for weight in network.get_weights()])
    image = Image(np.random.default_rng(0).random((8, 512)).astype(np.float32), "YX")
    predictor = KerasPredictor(CareModel(config, network), PredictOptions(tiles=CsbdeepTiles({"X": 4})))
    predictor._halo = 8
    whole = KerasPredictor(CareModel(config, network)).predict(image).data
    assert np.abs(predictor.predict(image).data - whole).max() > 1e-4 * np.ptp(whole)


def test_keras_network_is_a_network_and_names_what_it_takes(model_folder):
    network = open_predictor(model_folder, runtime="keras").network
    assert isinstance(network, Network)
    assert isinstance(network, KerasNetwork)
    assert network.runtime.name == "keras"
    assert set(network.runtime.versions) == {"keras", "tensorflow"}
    assert network.output_shape == (None, None, None, 2)
    with pytest.raises(InputError, match=r"takes shape .* received \(1, 8, 8, 3\)"):
        network(np.zeros((1, 8, 8, 3), np.float32))


def test_options_of_the_model_fill_in_what_is_not_given(tmp_path):
    config = CareConfig(unet_n_first=2, unet_n_depth=1, norm_pmin=5.0)
    save_model(tmp_path, config, build(config))
    assert KerasPredictor.load(tmp_path).options.pmin == 5.0
    assert KerasPredictor.load(tmp_path, PredictOptions(pmin=1.0)).options.pmin == 1.0
    assert KerasPredictor.load(tmp_path, PredictOptions(rule=FIJI)).options.pmin == 5.0


def test_bfloat16_prediction_stays_near_float32(model_folder):
    image = Image(np.random.default_rng(0).random((32, 32)) * 1000, "YX")
    exact = open_predictor(model_folder, runtime="keras").predict(image).data
    rough = open_predictor(model_folder, runtime="keras", precision="bfloat16").predict(image).data
    assert np.abs(rough - exact).max() < 0.02 * np.ptp(exact)


def test_tiled_equals_whole_along_z_that_is_not_pooled():
    config = CareConfig("ZYX", unet_n_depth=1, unet_pool=(1, 2, 2), unet_kern_size=3, unet_n_first=1)
    network = build(config.replace(unet_residual=False), seed=1)
    network.set_weights([np.abs(weight) for weight in network.get_weights()])
    assert config.halo["Z"] == 6  # six convolutions one after another, half-width 1
    model = CareModel(config, network)
    image = Image(np.random.default_rng(0).random((31, 4, 4)).astype(np.float32), "ZYX")
    whole = KerasPredictor(model).predict(image).data
    tiled = KerasPredictor(model, PredictOptions(tiles=CsbdeepTiles((3, 1, 1)))).predict(image).data
    np.testing.assert_allclose(tiled, whole, atol=2e-6 * np.ptp(whole))


def test_kind_of_a_folder_of_csbdeep_can_be_named(model_folder):
    stack = Image(np.random.default_rng(0).random((3, 8, 8)), "ZYX")
    assert open_predictor(model_folder, runtime="keras", kind="IsotropicCARE", factor=2.0).predict(
        stack
    ).shape == (6, 8, 8, 2)
    with pytest.raises(InputError, match="kind='Isotropic'"):
        open_predictor(model_folder, runtime="keras", kind="Isotropic")
