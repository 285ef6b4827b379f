"""A network with a mean and deviation of its own, in every reader: grey levels in, grey levels out, once and twice."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from care_bridge.errors import InputError
from care_bridge.images import Image

pytestmark = pytest.mark.tf

KINDS: dict[str, dict[str, Any]] = {
    "2-D": {},
    "N2V2": {"unet_blurpool": True, "unet_top_skip": False, "n2v_manipulator": "median"},
    "N2V2 3-D, z not pooled": {
        "axes": "ZYX",
        "unet_blurpool": True,
        "unet_top_skip": False,
        "unet_pool": (1, 2, 2),
    },
    "two channels": {
        "n_channel_in": 2,
        "n_channel_out": 2,
        "means": (500.0, 20000.0),
        "stds": (40.0, 900.0),
    },
    "N2V2 as n2v builds it": {"unet_blurpool": "n2v", "unet_top_skip": False, "unet_batch_norm": True},
    "a network for each channel": {
        "n_channel_in": 2,
        "n_channel_out": 2,
        "means": (500.0, 20000.0),
        "stds": (40.0, 900.0),
        "unet_batch_norm": True,
        "unet_per_channel": True,
        "unet_residual": True,
    },
}


def folder(place: Path, **settings: Any) -> Path:
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    usual = {"method": "n2v", "unet_n_depth": 1, "unet_n_first": 4, "means": (500.0,), "stds": (40.0,)}
    config = CareConfig(**{**usual, "seed": 3, **settings})
    save_model(place, config, build(config))
    return place


def raw(config: Any, *sizes: int) -> Image:
    """Camera counts around the mean that the network was trained on, in whole numbers."""
    random = np.random.default_rng(4)
    channels = [random.normal(mean, std, sizes) for mean, std in zip(config.means, config.stds, strict=True)]
    data = np.stack(channels) if len(channels) > 1 else channels[0]
    space = "ZYX"[-len(sizes) :]
    return Image(np.round(data).astype(np.uint16), ("C" if len(channels) > 1 else "") + space)


@pytest.mark.java
@pytest.mark.parametrize("name", KINDS)
def test_fiji_gives_what_python_gives_on_raw_images_once_and_twice(
    name: str, tf1: Any, tmp_path: Path
) -> None:
    from care_bridge.comparing.sides import compare, recommended_options
    from care_bridge.config import read_config
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.opening import open_predictor
    from care_bridge.plugin.emulation import EmulatedPlugin

    model = folder(tmp_path / "model", **KINDS[name])
    bundle = write_bundle(model, tmp_path / "bundle.zip")
    config = read_config(model)
    options = recommended_options(bundle)
    assert options.normalizeInput is False
    image = raw(config, *(4, 32, 24) if config.n_dim == 3 else (48, 40))
    for session in tf1:
        with session.open(bundle) as network:
            report = compare(
                reference=model, candidate=EmulatedPlugin(network, options), image=image, options=options
            )
        assert report.passed, str(report)
        assert {row.application for row in report.rows} == {1, 2}
    # Grey levels, not the network's own scale.
    with open_predictor(model, runtime="keras") as here:
        result = here.predict(image)
    levels = result.data.reshape(len(config.means), -1) if len(config.means) > 1 else result.data[None]
    for level, mean, std in zip(levels, config.means, config.stds, strict=True):
        assert abs(level.mean() - mean) < 3 * std
    assert not result.normalized


@pytest.mark.parametrize("name", KINDS)
def test_an_onnx_file_alone_says_that_its_scale_is_in_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from care_bridge.config import read_config
    from care_bridge.export.onnx import write_onnx
    from care_bridge.opening import open_predictor

    model = folder(tmp_path / "model", **KINDS[name])
    config = read_config(model)
    image = raw(config, *(4, 32, 24) if config.n_dim == 3 else (48, 40))
    alone = write_onnx(model, tmp_path / "alone.onnx")
    with open_predictor(model, runtime="keras") as here, open_predictor(alone, runtime="onnx") as there:
        assert there.options.rule is None
        np.testing.assert_allclose(there.predict(image).data, here.predict(image).data, rtol=2e-6)


def test_how_to_macro_and_meta_say_that_nothing_is_normalised(tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import HOW_TO, write_bundle
    from care_bridge.opening import open_predictor, own_plugin_options

    model = folder(tmp_path / "model")
    bundle = write_bundle(model, tmp_path / "bundle.zip")
    text = (tmp_path / HOW_TO).read_text()
    assert "Normalize image                    off" in text
    assert "takes the\ngrey levels of the image as they are" in text
    macro = (tmp_path / "bundle.ijm").read_text()
    assert "normalizeinput=false" in macro
    assert "takes the grey levels as they are" in macro
    with zipfile.ZipFile(bundle) as file:
        meta, beside = (json.loads(file.read(name)) for name in ("meta.json", "care_bridge.json"))
    assert meta["care_bridge"]["fiji"]["normalizeInput"] is False
    assert beside["normalisation"] == {"rule": "none", "means": [500.0], "stds": [40.0]}
    assert beside["range"] == "raw"
    assert "normalisation" not in meta  # at its top: what a reader would have to do
    for path in (model, bundle):
        assert own_plugin_options(path).normalizeInput is False
    with open_predictor(bundle, runtime="tensorflow") as alone:
        assert alone.options.rule is None
    # As somebody who types nothing into the dialog would have it.
    with pytest.warns(UserWarning, match="switch 'Normalize image' off"):
        open_predictor(bundle, "emulation").close()


@pytest.mark.filterwarnings("ignore:.*states its own mean")
@pytest.mark.parametrize("name", ["2-D", "two channels"])
def test_a_package_is_read_by_everybody_and_becomes_the_folder_again(
    name: str, card: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("bioimageio.core")
    from care_bridge.checking import check
    from care_bridge.config import read_config
    from care_bridge.export.bioimageio import write_package
    from care_bridge.export.import_package import import_package
    from care_bridge.opening import open_predictor

    model = folder(tmp_path / "model", **KINDS[name])
    config = read_config(model)
    image = raw(config, 64, 64)
    package = write_package(
        model, tmp_path / "p.zip", metadata=card, test_image=image, measure_cost=False
    ).path
    with zipfile.ZipFile(package) as file:
        rdf = yaml.safe_load(file.read("rdf.yaml"))
    if name == "2-D":
        assert rdf["inputs"][0]["preprocessing"] == [
            {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 500.0, "std": 40.0}}
        ]
        assert rdf["outputs"][0]["postprocessing"] == [
            {"id": "scale_linear", "kwargs": {"gain": 40.0, "offset": 500.0}}
        ]
    else:  # deepImageJ's engine takes no lists for a fixed mean: the scale stays in the network
        assert "preprocessing" not in rdf["inputs"][0] or not rdf["inputs"][0]["preprocessing"]
    with open_predictor(model, runtime="keras") as here:
        expected = here.predict(image).data
    for runtime in ("keras", "onnx", "tensorflow"):
        with open_predictor(package, runtime=runtime) as there:
            np.testing.assert_allclose(there.predict(image).data, expected, rtol=2e-6)
    said = {rule.rule: rule.result for rule in check(package, versions=()).rules}
    assert [rule for rule, result in said.items() if result == "failed"] == []
    for weights in ("keras_hdf5", "onnx", "tensorflow_saved_model_bundle"):
        assert said[f"bioimageio.core reproduces the test output from {weights}"] == "passed"
    back = import_package(package, tmp_path / "back")
    with open_predictor(back, runtime="keras") as again:
        np.testing.assert_array_equal(again.predict(image).data, expected)


def test_percentiles_are_refused_where_a_network_has_its_own_scale(tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.opening import open_predictor
    from care_bridge.predictor import PredictOptions

    model = folder(tmp_path / "model")
    with pytest.raises(InputError, match="takes no percentiles"):
        write_bundle(model, tmp_path / "bundle.zip", pmin=1)
    bundle = write_bundle(model, tmp_path / "bundle.zip", how_to=False)
    for path in (model, bundle):
        with pytest.raises(InputError, match="percentiles"):
            open_predictor(
                path, runtime="tensorflow" if path == bundle else "keras", options=PredictOptions(pmin=1)
            )
