"""Folders of csbdeep open here and the reverse, weight for weight; predictions are the same."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.inference.keras import KerasPredictor
from care_bridge.inference.volumes import of_kind
from care_bridge.predictor import PredictOptions
from care_bridge.tiling import CsbdeepTiles
from care_bridge.training.folder import load_model, load_weights, save_model
from care_bridge.training.unet import build

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:output path for model already exists"),
]

KINDS = [
    pytest.param("CARE", {"axes": "YX"}, "YX", (37, 50), None, id="2-D"),
    pytest.param(
        "CARE",
        {"axes": "YX", "probabilistic": True, "n_channel_in": 2, "n_channel_out": 2},
        "CYX",
        (2, 37, 50),
        None,
        id="2-D, two channels, probabilistic",
    ),
    pytest.param("CARE", {"axes": "ZYX", "probabilistic": True}, "ZYX", (9, 20, 26), None, id="3-D"),
    pytest.param(
        "CARE",
        {"axes": "ZYX", "n_channel_in": 2, "n_channel_out": 1},
        "ZCYX",
        (9, 2, 20, 26),
        None,
        id="3-D, two channels to one",
    ),
    pytest.param("UpsamplingCARE", {"axes": "ZYX"}, "ZYX", (5, 20, 26), 2.5, id="upsampling"),
    pytest.param(
        "IsotropicCARE", {"axes": "YX", "probabilistic": True}, "ZYX", (5, 21, 26), 3.0, id="isotropic"
    ),
    pytest.param(
        "ProjectionCARE",
        {"axes": "ZYX", "proj_n_depth": 2, "probabilistic": True},
        "ZYX",
        (9, 20, 26),
        None,
        id="projection",
    ),
]


@pytest.fixture
def peer():
    return pytest.importorskip("csbdeep.models")


def _csbdeep_model(peer, kind, settings, folder):
    config = peer.ProjectionConfig if kind == "ProjectionCARE" else peer.Config
    model = getattr(peer, kind)(config(**settings, unet_n_first=4), folder.name, str(folder.parent))
    random = np.random.default_rng(0)
    model.keras_model.set_weights(
        [weight + random.normal(0, 0.05, weight.shape) for weight in model.keras_model.get_weights()]
    )
    model.keras_model.save_weights(str(folder / "weights_best.h5"))
    return model


@pytest.mark.filterwarnings("ignore:skipping normalization step")  # csbdeep's, of unequal channels
@pytest.mark.parametrize(("kind", "settings", "axes", "shape", "factor"), KINDS)
def test_predictions_are_those_of_csbdeep_whole_and_tiled(
    peer, tmp_path, kind, settings, axes, shape, factor
):
    theirs = _csbdeep_model(peer, kind, settings, tmp_path / "model")
    pixels = (np.random.default_rng(1).random(shape) * 1000 + 100).astype(np.float32)
    more = {} if factor is None else {"factor": factor}
    if settings.get("probabilistic"):
        result = theirs.predict_probabilistic(pixels, axes, **more)
        if "C" in axes:
            expected = np.concatenate([result.mean(), result.scale()], axis=axes.index("C"))
        else:
            expected = np.stack([result.mean(), result.scale()], axis=-1)
    else:
        expected = theirs.predict(pixels, axes, **more)
    model = load_model(tmp_path / "model")
    config = model.config.replace(kind=kind)
    for tiles in (None, CsbdeepTiles({"Y": 2, "X": 3})):
        predictor = of_kind(KerasPredictor(model, PredictOptions(tiles=tiles)), config, factor=factor)
        ours = predictor.predict(Image(pixels, axes)).data
        assert ours.shape == expected.shape
        # float32 rounding with equal weights, other tiles than csbdeep's and roots of products: 1.1e-6 of the range seen
        assert np.abs(ours - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize(("kind", "settings", "axes", "shape", "factor"), KINDS)
def test_csbdeep_opens_our_folder_with_the_same_weights(peer, tmp_path, kind, settings, axes, shape, factor):
    config = CareConfig(**settings, unet_n_first=4, kind=kind)
    network = build(config)
    save_model(tmp_path / "model", config, network)
    theirs = getattr(peer, kind)(None, "model", str(tmp_path))
    for one, other in zip(network.get_weights(), theirs.keras_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = np.random.default_rng(0).random((1, *(16,) * config.n_dim, config.n_channel_in), np.float32)
    np.testing.assert_array_equal(network(x), theirs.keras_model(x))


def test_csbdeep_refuses_a_net_that_it_would_build_differently(peer, tmp_path):
    config = CareConfig("ZYX", unet_pool=(1, 2, 2), unet_n_first=4)
    save_model(tmp_path / "model", config, build(config))
    with pytest.raises(AttributeError, match="care_bridge"):
        peer.CARE(None, "model", str(tmp_path))


def test_csbdeep_says_of_a_fast_network_what_opens_it_and_that_opens_it(peer, tmp_path):
    from care_bridge.csbdeep.models import CARE

    config = CareConfig(architecture="fast", unet_n_first=4, unet_n_depth=1)
    network = build(config)
    save_model(tmp_path / "model", config, network)
    with pytest.raises(
        AttributeError, match=r"open it with care_bridge\.csbdeep\.models\.CARE\(None, name\)"
    ):
        peer.CARE(None, "model", str(tmp_path))
    opened = CARE(None, "model", str(tmp_path))
    assert opened.config.architecture == "fast"
    assert not any("csbdeep" in key for key in vars(opened.config))
    x = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(opened.keras_model(x), network(x))
    opened.predict(np.ones((9, 7)), "YX")


def test_newest_best_weights_are_chosen_as_csbdeep_does(tmp_path):
    config = CareConfig(unet_n_first=4)
    for number, name in enumerate(("weights_best.h5", "weights_last.h5")):
        save_model(tmp_path, config, build(config, seed=number), weights=name)
        os.utime(tmp_path / name, (number, number))
    best = build(config, seed=0).get_weights()[0]
    np.testing.assert_array_equal(load_model(tmp_path).network.get_weights()[0], best)
    last = load_model(tmp_path, weights="weights_last.h5").network.get_weights()[0]
    assert not np.array_equal(last, best)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path):
    config = CareConfig(unet_n_first=4)
    save_model(tmp_path, config, build(config))
    with pytest.raises(InputError, match=r"another architecture.*down_level_0_no_0/kernel has shape"):
        load_weights(build(CareConfig(unet_n_first=8)), tmp_path / "weights_best.h5")
    with pytest.raises(InputError, match="the network has 30 weights, the file 22"):
        load_weights(build(config.replace(unet_n_depth=3)), tmp_path / "weights_best.h5")


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "nan", "other"])
def test_damaged_weights_are_one_sentence(tmp_path, damage):
    config = CareConfig(unet_n_first=4)
    save_model(tmp_path, config, build(config))
    path = tmp_path / "weights_best.h5"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "nan":
        with h5py.File(path, "r+") as file:
            file["middle_0/middle_0/bias"][0] = np.nan
    else:
        with h5py.File(path, "w") as file:
            file["data"] = np.zeros(3)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saving_on_a_full_disk_leaves_the_previous_weights(tmp_path, monkeypatch):
    config = CareConfig(unet_n_first=4)
    save_model(tmp_path, config, build(config))
    before = (tmp_path / "weights_best.h5").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path, config, build(config, seed=9))
    monkeypatch.undo()
    assert (tmp_path / "weights_best.h5").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "weights_best.h5"]


def test_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        load_model(tmp_path / "nowhere")
    shutil.rmtree(tmp_path)
