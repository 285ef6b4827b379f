"""Model folders of the package n2v open here, and ours are written so that it opens them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.opening import open_predictor

pytestmark = pytest.mark.tf

OPEN = ["plain", "joint", "n2v2", "blurred", "residual", "volume"]
N2V = {"method": "n2v", "unet_n_first": 4, "means": (100.0,), "stds": (20.0,)}


@pytest.mark.parametrize("name", OPEN)
def test_a_folder_of_n2v_restores_as_n2v_does(recorded: Path, name: str) -> None:
    told = np.load(recorded / name / "io.npz")
    with open_predictor(recorded / name, runtime="keras") as predictor:
        restored = predictor.predict(Image(told["image"], str(told["axes"]))).data
    # By n2v 0.3.3 on Keras 2.13 (README.md); other kernels of TensorFlow round otherwise.
    np.testing.assert_allclose(restored, told["prediction"], atol=1e-5 * np.ptp(told["prediction"]))


def test_networks_that_n2v_gave_the_last_channel_only_are_refused(recorded: Path) -> None:
    with pytest.raises(InputError, match=r"single_net_per_channel.*the last channel.*train anew"):
        read_config(recorded / "each")


@pytest.mark.parametrize("name", ["n2v2", "volume"])
@pytest.mark.parametrize("runtime", ["onnx", "bundle"])
def test_a_folder_of_n2v_leaves_for_every_runtime(
    recorded: Path, name: str, runtime: str, tmp_path: Path
) -> None:
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import write_bundle

    told = np.load(recorded / name / "io.npz")
    if runtime == "onnx":
        written, opened = write_onnx(recorded / name, tmp_path / "model.onnx"), "onnx"
    else:
        written, opened = write_bundle(recorded / name, tmp_path / "model.zip"), "tensorflow"
    with open_predictor(written, runtime=opened) as predictor:
        restored = predictor.predict(Image(told["image"], str(told["axes"]))).data
    np.testing.assert_allclose(restored, told["prediction"], atol=1e-5 * np.ptp(told["prediction"]))


def test_what_n2v_wrote_stands_under_our_names(recorded: Path) -> None:
    config = read_config(recorded / "residual")
    written = json.loads((recorded / "residual" / "config.json").read_text())
    assert (config.method, config.unet_residual, config.unet_batch_norm) == ("n2v", True, False)
    assert config.n2v_structmask == ((0, 1, 1, 1, 0),)
    assert config.means == (float(written["means"][0]),)
    blurred = read_config(recorded / "n2v2")
    assert (blurred.unet_blurpool, blurred.unet_top_skip, blurred.unet_narrow_up) == ("n2v", False, False)
    plain = read_config(recorded / "plain")
    assert (plain.unet_batch_norm, plain.unet_narrow_up, plain.n2v_perc_pix) == (True, True, 6)


@pytest.mark.parametrize("name", OPEN)
def test_settings_of_n2v_are_written_back_as_they_were(recorded: Path, name: str) -> None:
    before = json.loads((recorded / name / "config.json").read_text())
    after = read_config(recorded / name).to_json()
    for key, value in before.items():
        kept = [float(one) for one in after[key]] if key in ("means", "stds") else after[key]
        wanted = [float(one) for one in value] if key in ("means", "stds") else value
        as_lists = json.loads(json.dumps(kept))
        assert as_lists == wanted, key
    assert after["care_bridge"]["method"] == "n2v"


LAYOUTS: dict[str, dict[str, Any]] = {
    "as n2v": {"unet_batch_norm": True, "unet_narrow_up": True},
    "N2V2 as n2v": {"unet_blurpool": "n2v", "unet_top_skip": False, "unet_batch_norm": True},
    "one level": {"unet_n_depth": 1},
    "as csbdeep": {},
    "N2V2 as here": {"unet_blurpool": True, "unet_top_skip": False},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_folder_tells_n2v_what_it_is_where_n2v_builds_that(layout: str, tmp_path: Path) -> None:
    from care_bridge.config import write_config

    config = CareConfig(**N2V, **LAYOUTS[layout], provenance={"data": {"patch_size": [32, 48]}})
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    written = json.loads((tmp_path / "config.json").read_text())
    known = {"means", "stds", "n2v_patch_shape", "single_net_per_channel", "blurpool", "skip_skipone"}
    if layout in ("as csbdeep", "N2V2 as here"):
        assert not known & set(written)
    else:
        assert known <= set(written)
        assert written["means"] == ["100.0"]
        assert written["n2v_patch_shape"] == [32, 48]


def test_a_network_for_each_channel_sees_that_channel_alone() -> None:
    from care_bridge.training.unet import bare, build

    two = {**N2V, "means": (100.0, 7.0), "stds": (20.0, 3.0)}
    config = CareConfig("YX", 2, 2, **two, unet_per_channel=True, unet_batch_norm=True)
    network = build(config)
    image = np.random.default_rng(0).normal(50, 20, (1, 16, 16, 2)).astype(np.float32)
    before = np.asarray(network(image))
    image[..., 1] += 5
    after = np.asarray(network(image))
    np.testing.assert_array_equal(before[..., 0], after[..., 0])
    assert np.abs(before[..., 1] - after[..., 1]).max() > 0.1
    normalised = (image - np.float32(two["means"])) / np.float32(two["stds"])
    plain = np.asarray(bare(config, network)(normalised)) * np.float32(two["stds"]) + np.float32(two["means"])
    np.testing.assert_allclose(plain, after, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"axes": "ZYX", "unet_blurpool": "n2v"}, "for 2-D networks"),
        ({"unet_per_channel": True, "architecture": "fast"}, "unet_per_channel is for CARE networks"),
        ({"unet_blurpool": "csbdeep"}, "unet_blurpool"),
    ],
)
def test_variants_that_cannot_be_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        CareConfig(**{"axes": "YX", **N2V, **settings})
