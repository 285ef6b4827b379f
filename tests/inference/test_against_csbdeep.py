"""Predictions beside csbdeep's own, with the same weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import PredictOptions
from care_bridge.tiling import CsbdeepTiles

pytestmark = pytest.mark.tf


@pytest.mark.filterwarnings("ignore:skipping normalization step")
@pytest.mark.parametrize(
    ("net_axes", "channels", "probabilistic", "axes", "shape", "n_tiles"),
    [
        ("YX", (1, 1), False, "YX", (37, 45), None),
        ("YX", (2, 1), False, "YXC", (37, 45, 2), None),
        ("YX", (1, 2), False, "XY", (150, 45), (3, 1)),
        ("YX", (2, 2), True, "CYX", (2, 37, 45), None),
        ("ZYX", (1, 1), False, "YXZ", (21, 23, 9), (1, 2, 1)),
    ],
)
def test_predictions_are_csbdeeps(net_axes, channels, probabilistic, axes, shape, n_tiles):
    models = pytest.importorskip("csbdeep.models")
    from care_bridge.inference.keras import KerasNetwork

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"unet_n_first": 4, "unet_kern_size": 3, "probabilistic": probabilistic}
        config = models.Config(net_axes, *channels, **settings)
        model = models.CARE(config, name=None, basedir=None)
    data = (np.random.default_rng(0).random(shape) * 4000).astype(np.uint16)
    if probabilistic:
        found = model.predict_probabilistic(data, axes, n_tiles=n_tiles)
        expected = np.concatenate([found.mean(), found.scale()], axes.index("C"))
    else:
        expected = model.predict(data, axes, n_tiles=n_tiles)
    ours = NetworkPredictor(
        KerasNetwork(model.keras_model),
        PredictOptions(tiles=CsbdeepTiles(n_tiles) if n_tiles else None),
        axes=config.axes,
        size_multiple=4,
        halo=22,
        probabilistic=probabilistic,
    ).predict(Image(data, axes))
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours.data, expected, rtol=0, atol=1e-6 * np.ptp(expected))
