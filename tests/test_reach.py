"""One answer to what sizes a network takes and how far it looks, whoever asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from care_bridge.predictor import Runtime, UnhintedNetwork
from care_bridge.reach import (
    LONGEST,
    Geometry,
    measured_geometry,
    measured_lost_axis,
    measured_receptive_field,
    measured_size_multiple,
)


class Function(UnhintedNetwork):
    """A network of one line."""

    runtime = Runtime("numpy")

    def __init__(self, function: Any, *, dims: int = 2, lost: int = 0) -> None:
        self.function = function
        self.input_shape = (*[None] * (dims + 1), 1)
        self.output_shape = (*[None] * (dims + 1 - lost), 1)

    def __call__(self, tensor: np.ndarray) -> np.ndarray:
        return self.function(tensor).astype(np.float32)


# Settings of a network, its sizes, and how far it looks (`tiling.receptive_field`, an upper bound) for each axis.
NETWORKS: dict[str, dict[str, Any]] = {
    f"depth {depth}, kernel {kernel}": {"unet_n_depth": depth, "unet_kern_size": kernel}
    for depth in (1, 2, 3)
    for kernel in (3, 5)
} | {
    "not pooled": {"unet_n_depth": 1, "unet_pool": (1, 1), "unet_kern_size": 3},
    "pooled along Y only": {"unet_n_depth": 2, "unet_pool": (2, 1), "unet_kern_size": 3},
    "3-D": {"axes": "ZYX", "unet_n_depth": 1, "unet_kern_size": 3},
    "3-D, pooled in the plane": {
        "axes": "ZYX",
        "unet_n_depth": 2,
        "unet_pool": (1, 2, 2),
        "unet_kern_size": 3,
    },
    "fast": {"architecture": "fast"},
    "fast, kernel 5": {"architecture": "fast", "unet_n_depth": 1, "unet_kern_size": 5},
    "fast 3-D": {"architecture": "fast", "axes": "ZYX", "unet_n_depth": 1},
    "fast 3-D, pooled in the plane": {
        "architecture": "fast",
        "axes": "ZYX",
        "unet_n_depth": 2,
        "unet_pool": (1, 2, 2),
    },
    "fast projection": {
        "architecture": "fast",
        "kind": "ProjectionCARE",
        "axes": "ZYX",
        "unet_n_depth": 1,
        "proj_n_depth": 1,
    },
    "projection": {"kind": "ProjectionCARE", "axes": "ZYX", "unet_n_depth": 1, "unet_kern_size": 3},
    "blurred": {"unet_blurpool": True, "unet_top_skip": False, "unet_kern_size": 3},
    "blurred 3-D, pooled in the plane": {
        "axes": "ZYX",
        "unet_blurpool": True,
        "unet_n_depth": 1,
        "unet_pool": (1, 2, 2),
    },
    # Black is 100 deviations below the mean: what is lit there must be seen all the same.
    "a scale of its own": {"method": "n2v", "means": (500.0,), "stds": (5.0,), "unet_n_depth": 1},
}


@pytest.mark.tf
@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_and_reach_are_the_same_for_the_running_network_and_for_its_graph(name: str) -> None:
    pytest.importorskip("tensorflow")
    from care_bridge.config import CareConfig
    from care_bridge.export.graph import freeze
    from care_bridge.export.probe import measure
    from care_bridge.inference.keras import KerasNetwork
    from care_bridge.training.unet import build

    settings = dict(NETWORKS[name])
    config = CareConfig(settings.pop("axes", "YX"), unet_n_first=2, unet_residual=False, **settings)
    network = build(config, seed=1)
    space = config.axes.replace("C", "")
    # With positive kernels nothing that is in reach is hidden.
    network.set_weights([np.abs(weight) for weight in network.get_weights()])
    running = KerasNetwork(network)
    graph = measure(freeze(network))
    multiple = measured_size_multiple(running, space)
    assert tuple(multiple.values()) == graph.size_multiple
    assert multiple == {axis: size for axis, size in config.size_multiple.items() if axis in space}
    lost = measured_lost_axis(running, space, multiple)
    assert lost == (config.proj_axis or "")
    kept = [place for place, axis in enumerate(space) if axis != lost]
    exact = {space[place]: graph.receptive_field[place] for place in kept}
    for axis, reach in exact.items():
        assert config.halo[axis] - multiple[axis] < reach <= config.halo[axis]
    found = measured_receptive_field(running, space, multiple)
    if lost:
        # Its own softmax saturates and hides some of what its logits come from; the graph's is taken out.
        assert all(0 < found[axis] <= reach for axis, reach in exact.items())
    else:
        assert {axis: found[axis] for axis in exact} == exact


def test_the_axis_that_a_projection_takes_is_found_wherever_it_stands() -> None:
    for place, axis in enumerate("ZYX"):
        network = Function(lambda x, at=place + 1: x.max(axis=at), dims=3, lost=1)
        assert measured_lost_axis(network, "ZYX", dict.fromkeys("ZYX", 1)) == axis
        assert measured_geometry(network) == Geometry(
            (1, 1, 1), tuple(None if at == place else 0 for at in range(3)), place
        )


def test_a_network_that_sees_the_whole_image_has_no_reach_and_gets_the_whole_image() -> None:
    from care_bridge.images import Image
    from care_bridge.network_predictor import NetworkPredictor
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles

    network = Function(lambda x: x - x.mean(axis=(1, 2), keepdims=True))
    assert measured_receptive_field(network, "YX", {"Y": 1, "X": 1}) == {"Y": None, "X": None}
    predictor = NetworkPredictor(network, PredictOptions(rule=None, tiles=CsbdeepTiles((3, 2))))
    assert predictor.halo == {"Y": LONGEST, "X": LONGEST}
    image = Image(np.random.default_rng(0).random((700, 40)).astype(np.float32), "YX")
    whole = NetworkPredictor(network, PredictOptions(rule=None)).predict(image)
    np.testing.assert_allclose(predictor.predict(image).data, whole.data, atol=1e-6)


def test_a_network_that_makes_one_size_of_every_image_keeps_none() -> None:
    # It gives 8 x 8 back for 8 x 8, which one size alone would take for a multiple of 8.
    network = Function(lambda x: np.zeros((1, 8, 8, 1)))
    assert measured_geometry(network) is None
    assert measured_size_multiple(network, "YX") == {"Y": 1, "X": 1}


def test_what_takes_two_axes_away_makes_no_image() -> None:
    assert measured_geometry(Function(lambda x: x.max(axis=(1, 2)), dims=3, lost=2)) is None


def test_an_axis_with_a_fixed_size_is_neither_a_multiple_nor_looked_beyond() -> None:
    network = Function(lambda x: x + np.roll(x, 1, axis=1))
    network.input_shape = (None, 6, None, 1)
    assert measured_size_multiple(network, "YX") == {"Y": 1, "X": 1}
    assert measured_receptive_field(network, "YX", {"Y": 1, "X": 1}) == {"Y": 1, "X": 0}
