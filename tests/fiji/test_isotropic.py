""" "Run your IsoNet": what was recorded of it, and its steps on small images."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.plugin.isotropic import enlarged, run_isotropic_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginFailure
from care_bridge.predictor import Runtime, UnhintedNetwork

RECORDED = (
    Path(os.environ.get("CARE_BRIDGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    / "fiji-recorded"
)
CASES = sorted((RECORDED / "isonet").glob("*/case.json")) or [
    pytest.param(None, marks=pytest.mark.skip(reason=f"what Fiji gave is not at {RECORDED / 'isonet'}"))
]

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


@pytest.fixture(scope="module")
def tensorflow_1(tf1_ready):
    """Networks of the recordings by model, in one worker."""
    from care_bridge.java.tf1 import Tf1Session

    with Tf1Session("1.15.0") as session:
        yield functools.cache(lambda model: session.open(RECORDED / "models" / f"{model}.zip"))


@pytest.mark.java
@pytest.mark.parametrize("file", CASES, ids=lambda file: file.parent.name if file else "")
def test_what_a_fiji_gave_is_given_bit_for_bit(tensorflow_1, file):
    case = json.loads(file.read_text())
    run, network = case["first"], tensorflow_1(case["model"])
    scale = run["params"].pop("scale")
    options = PluginOptions.from_mapping(run["params"])
    data = np.load(file.parent / "input.npy")
    if not run["output"] or len(network.input_shape) != 4:
        # A 3-D network is refused, although the plugin gives something.
        with pytest.raises(InputError):
            run_isotropic_plugin(network, data, run["in_axes"], scale=scale, options=options)
        return
    result = run_isotropic_plugin(network, data, run["in_axes"], scale=scale, options=options)
    assert (result.axes, result.name) == (run["out_axes"], run["out_name"])
    # The same version on another processor, or with other threads, may differ in the last bits.
    expected = np.load(file.parent / "output.npy")
    np.testing.assert_array_equal(np.isnan(result.data), np.isnan(expected))
    np.testing.assert_allclose(
        result.data, expected, rtol=0, atol=2e-5 * np.ptp(expected[np.isfinite(expected)])
    )


@pytest.mark.parametrize("axes", ["ZYX", "CZYX"])
def test_one_plane_is_restored_and_its_axis_has_no_label(axes):
    # Recorded in a Fiji: (1, 28, 36) gives ?CYX of shape (1, 1, 28, 36), whatever the scale.
    data = np.random.default_rng(0).random((1,) * (len(axes) - 2) + (28, 36)).astype(np.float32)
    result = run_isotropic_plugin(Toy(), data, axes, scale=3, options=RAW)
    assert (result.axes, result.data.shape) == ("?CYX", (1, 1, 28, 36))
    np.testing.assert_allclose(result.data[0, 0], data.squeeze(), rtol=1e-6)


@pytest.mark.parametrize("axes", ["CZYX", "TZYX"])
def test_a_slow_axis_with_one_position_changes_nothing(axes):
    data = np.random.default_rng(0).random((1, 4, 8, 12)).astype(np.float32)
    result = run_isotropic_plugin(Toy(), data, axes, scale=2, options=RAW)
    plain = run_isotropic_plugin(Toy(), data[0], "ZYX", scale=2, options=RAW)
    assert result.axes == plain.axes == "CZYX"
    np.testing.assert_array_equal(result.data, plain.data)


def test_a_network_of_volumes_is_refused():
    network = Toy()
    network.input_shape = network.output_shape = (None, None, None, None, 1)
    with pytest.raises(InputError, match="is for 2-D networks, of 4 dimensions, and this one has 5"):
        run_isotropic_plugin(network, np.ones((4, 8, 8)), "ZYX")
