""" "Run your IsoNet", from its source; nothing was recorded of it."""

from __future__ import annotations

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.plugin.isotropic import enlarged, run_isotropic_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginFailure
from care_bridge.predictor import Runtime, UnhintedNetwork

RAW = PluginOptions(normalizeInput=False, nTiles=1, blockMultiple=4)


class Toy(UnhintedNetwork):
    input_shape = output_shape = (None, None, None, 1)
    runtime = Runtime("numpy")

    def __init__(self, function=lambda tensor: tensor):
        self.function, self.seen = function, []

    def __call__(self, tensor):
        self.seen.append(tensor.shape)
        return self.function(tensor)


def test_planes_are_enlarged_between_the_first_and_the_last():
    image = np.float32([[0, 10, 40]])
    np.testing.assert_allclose(enlarged(image, 1, 2.0), [[0, 5, 10, 25, 40]])
    assert enlarged(image, 1, 2.7).shape == (1, 6)  # floor(2 x 2.7) + 1
    np.testing.assert_array_equal(enlarged(image, 1, 1.0), image)


def test_a_network_that_does_nothing_gives_the_enlarged_stack():
    data = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    network = Toy()
    result = run_isotropic_plugin(network, data, "ZYX", scale=2.5, options=RAW)
    assert result.axes == "CZYX"  # the single channel stays, last in Fiji's order
    np.testing.assert_allclose(result.data[0], enlarged(data, 0, 2.5), rtol=1e-6)
    # planes of Z and Y, then of X and Z; batches of 4 filled up, sizes filled up to multiples of 4
    assert {shape[1:3] for shape in network.seen} == {(8, 8)}


def test_the_two_directions_are_the_planes_of_z_and_y_and_of_x_and_z():
    data = np.random.default_rng(0).random((4, 8, 12)).astype(np.float32)
    network = Toy()
    run_isotropic_plugin(network, data, "ZYX", scale=1, options=RAW.replace(batchSize=4))
    # X takes the place of Z as batch: 12 planes of Y by Z; then Y does: 8 planes of X by Z
    assert [shape[:3] for shape in network.seen] == [(4, 8, 4)] * 3 + [(4, 12, 4)] * 2


def test_different_signs_give_nan_as_in_the_plugin():
    calls = iter([1.0, -1.0])
    sign = {}

    def turn(tensor):
        key = tensor.shape
        if key not in sign:
            sign[key] = next(calls)
        return tensor * np.float32(sign[key])

    data = np.ones((4, 8, 12), np.float32)
    result = run_isotropic_plugin(Toy(turn), data, "ZYX", scale=1, options=RAW.replace(batchSize=16))
    assert np.isnan(result.data).all()


def test_tiles_change_nothing_for_a_network_without_neighbours():
    data = np.random.default_rng(0).random((4, 24, 20)).astype(np.float32)
    whole = run_isotropic_plugin(Toy(), data, "ZYX", scale=3, options=RAW)
    tiled = run_isotropic_plugin(Toy(), data, "ZYX", scale=3, options=RAW.replace(nTiles=6, overlap=4))
    np.testing.assert_array_equal(whole.data, tiled.data)


def test_what_it_cannot_do_is_said():
    with pytest.raises(PluginFailure, match="needs X, Y and Z"):
        run_isotropic_plugin(Toy(), np.ones((8, 8)), "YX")
    with pytest.raises(InputError, match=r"scale=0\.5"):
        run_isotropic_plugin(Toy(), np.ones((4, 8, 8)), "ZYX", scale=0.5)
