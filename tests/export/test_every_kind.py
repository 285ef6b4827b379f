"""Every kind of model: saved, reloaded, predicting whole and tiled, and the same in TensorFlow 1.12.0 and 1.15.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.java]

TILES = {"Y": 2}
KINDS: dict[str, dict[str, Any]] = {
    "2-D": {},
    "3-D": {"axes": "ZYX"},
    "multi-channel": {"n_channel_in": 3, "n_channel_out": 2},
    "probabilistic": {"probabilistic": True},
    "upsampling": {"axes": "ZYX", "kind": "UpsamplingCARE", "factor": 2.0},
    "isotropic": {"kind": "IsotropicCARE", "factor": 2.0},
    "projection": {"axes": "ZYX", "kind": "ProjectionCARE", "proj_n_depth": 1, "proj_n_filt": 2},
    "anisotropic": {"axes": "ZYX", "unet_pool": (1, 2, 2)},
    "ensemble": {"probabilistic": True},
    "residual 2-D": {"architecture": "resnet", "resnet_n_blocks": 2},
    "residual 3-D": {"axes": "ZYX", "architecture": "resnet", "resnet_n_blocks": 1},
    "residual without skips": {
        "architecture": "resnet",
        "resnet_n_blocks": 1,
        "resnet_skips": False,
        "unet_residual": False,
    },
    "of a defect": {"method": "cin-gan", "n_channel_in": 2, "gan_defects": ("noise",), "resnet_n_blocks": 1},
    "fast 2-D": {"architecture": "fast"},
    "fast 3-D": {"axes": "ZYX", "architecture": "fast"},
    "fast probabilistic": {"architecture": "fast", "probabilistic": True},
    "fast isotropic": {"kind": "IsotropicCARE", "factor": 2.0, "architecture": "fast"},
    "fast upsampling": {
        "axes": "ZYX",
        "kind": "UpsamplingCARE",
        "factor": 2.0,
        "architecture": "fast",
        "unet_pool": (1, 2, 2),
    },
    "fast projection": {
        "axes": "ZYX",
        "kind": "ProjectionCARE",
        "proj_n_depth": 1,
        "proj_n_filt": 2,
        "architecture": "fast",
    },
}


def save(kind: str, folder: Path) -> Path:
    """A folder with an untrained model; one with two members for the ensemble."""
    from care_bridge.config import CareConfig, write_config
    from care_bridge.training.folder import MEMBERS, save_model
    from care_bridge.training.unet import build

    config = CareConfig(**KINDS[kind], unet_n_first=4, unet_n_depth=1, unet_kern_size=3, seed=1)
    if kind != "ensemble":
        save_model(folder, config, build(config))
        return folder
    members = [f"member_{number}" for number in (1, 2)]
    for seed, name in enumerate(members):
        one = config.replace(seed=seed)
        save_model(folder / name, one, build(one))
    write_config(folder, config.replace(provenance={MEMBERS: members}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_gives_everywhere_what_it_gives_in_keras(kind: str, tf1: Any, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.images import Image
    from care_bridge.inference.volumes import of_kind
    from care_bridge.network_predictor import NetworkPredictor
    from care_bridge.opening import open_predictor
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles
    from care_bridge.training.folder import load_model

    folder = save(kind, tmp_path / "model")
    config = load_model(folder).config
    stack = "Z" in config.axes or config.kind == "IsotropicCARE"
    axes, shape = ("ZYX", (4, 40, 18)) if stack else ("YX", (40, 18))
    if config.n_channel_in > 1:
        axes, shape = axes + "C", (*shape, config.n_channel_in)
    image = Image(np.random.default_rng(2).random(shape, np.float32), axes)
    options = PredictOptions(rule=None)

    whole = open_predictor(folder, runtime="keras", options=options).predict(image)
    tiled = open_predictor(
        folder, runtime="keras", options=options.replace(tiles=CsbdeepTiles(TILES))
    ).predict(image)
    assert tiled.axes == whole.axes
    np.testing.assert_allclose(tiled.data, whole.data, rtol=0, atol=1e-5)

    bundle = write_bundle(folder, tmp_path / "bundle.zip", how_to=False)
    for session in tf1:
        with session.open(bundle) as network:
            there = of_kind(
                NetworkPredictor(
                    network,
                    options,
                    axes=config.axes,
                    size_multiple=config.size_multiple,
                    halo=config.halo,
                    probabilistic=config.probabilistic,
                ),
                config,
            ).predict(image)
        assert (there.axes, there.shape) == (whole.axes, whole.shape)
        np.testing.assert_allclose(there.data, whole.data, rtol=0, atol=1e-5 * max(1, np.ptp(whole.data)))


@pytest.mark.parametrize("name", ["CARE", "UpsamplingCARE", "IsotropicCARE", "ProjectionCARE"])
def test_export_tf_of_csbdeeps_classes_opens_in_tensorflow_1(name: str, tf1: Any, tmp_path: Path) -> None:
    from care_bridge.csbdeep import models

    small = {"unet_n_first": 4, "unet_n_depth": 1, "unet_kern_size": 3}
    if name == "ProjectionCARE":
        config = models.ProjectionConfig("ZYX", 1, 1, proj_n_depth=1, proj_n_filt=2, **small)
    else:
        config = models.Config("YX" if name == "IsotropicCARE" else "ZYX", 1, 1, **small)
    model = getattr(models, name)(config, "model", tmp_path)
    model.export_TF(tmp_path / "bundle.zip")
    image = np.random.default_rng(3).random((1, *(8,) * (len(config.axes) - 1), 1), np.float32)
    expected = np.asarray(model.keras_model(image, training=False))
    for session in tf1:
        with session.open(tmp_path / "bundle.zip") as network:
            np.testing.assert_allclose(network(image), expected, rtol=0, atol=1e-5)
