"""Bundles: what goes in, what comes out in TensorFlow 1.12 and 1.15, and what is refused."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError

pytestmark = pytest.mark.tf

ACCEPTED = (
    "batch_norm",
    "leaky_strided_transposed",
    "bilinear",
    "group_norm_3d",
    "instance_norm",
    "separable_dilated_sequential",
    "fixed_size_with_bilinear_sequential",
    "nested",
    "custom_layer",
    "transposed_3d",
    "residual_pixel_shuffle_free",
)
REFUSED = (
    "bicubic",
    "upscaling",
    "valid_convolutions",
    "dense_bottleneck",
    "attention",
    "two_outputs",
    "float64",
    "half_precision",
    "rank_3",
    "random_in_prediction",
)
CONFIGS: dict[str, dict[str, Any]] = {
    "2-D": {"unet_kern_size": 3},
    "2-D, not residual, probabilistic": {"unet_residual": False, "probabilistic": True},
    "2-D, three channels to one": {"n_channel_in": 3},
    "3-D": {"axes": "ZYX"},
    "3-D, z not pooled": {"axes": "ZYX", "unet_pool": (1, 2, 2)},
    "fast": {"architecture": "fast"},
    "fast, probabilistic": {"architecture": "fast", "probabilistic": True},
    "fast 3-D": {"architecture": "fast", "axes": "ZYX", "unet_n_depth": 2},
    "fast 3-D, z not pooled": {"architecture": "fast", "axes": "ZYX", "unet_pool": (1, 2, 2)},
    "fast projection": {"architecture": "fast", "axes": "ZYX", "kind": "ProjectionCARE"},
    "fast upsampling": {"architecture": "fast", "axes": "ZYX", "kind": "UpsamplingCARE", "unet_n_depth": 1},
    "fast isotropic": {"architecture": "fast", "kind": "IsotropicCARE"},
    "projection": {"axes": "ZYX", "kind": "ProjectionCARE"},
    "upsampling": {"axes": "ZYX", "kind": "UpsamplingCARE"},
    "isotropic": {"kind": "IsotropicCARE"},
}


@pytest.mark.java
@pytest.mark.parametrize("name", ACCEPTED)
def test_models_of_anybody_give_in_tensorflow_1_what_they_give_here(
    name: str, foreign: ModuleType, tf1: Any, noise: Any, tmp_path: Path
) -> None:
    from care_bridge.export.graph import freeze, run
    from care_bridge.export.probe import measure
    from care_bridge.export.savedmodel import write_bundle

    model = foreign.seeded(foreign.ACCEPTED[name]())
    bundle = write_bundle(model, tmp_path / "bundle.zip")
    graph = freeze(model)
    size = [max(2 * multiple, 16) for multiple in measure(graph).size_multiple]
    image = noise(1, (2, *size, model.inputs[0].shape[-1]))
    expected = run(graph, image)
    if None in model.inputs[0].shape[1:-1]:
        np.testing.assert_allclose(expected, model(image, training=False), atol=1e-5)
    for session in tf1:
        with session.open(bundle) as network:
            assert np.abs(network(image) - expected).max() <= 1e-5 * max(1, np.ptp(expected))


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_fiji_cannot_run_are_refused_with_reason_and_remedy(
    name: str, foreign: ModuleType, tmp_path: Path
) -> None:
    from care_bridge.export.savedmodel import write_bundle

    build, why = foreign.REFUSED[name]
    model = build()
    with pytest.raises(InputError) as caught:
        write_bundle(model, tmp_path / "bundle.zip")
    assert re.search(why, str(caught.value), re.DOTALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.java
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_network_runs_in_tensorflow_1_once_and_twice(
    name: str, tf1: Any, noise: Any, tmp_path: Path
) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    config = CareConfig(unet_n_first=8, seed=1, **CONFIGS[name])
    network = build(config)
    bundle = write_bundle(CareModel(config, network), tmp_path / "bundle.zip")
    image = noise(2, (1, *(max(16, multiple) for multiple in list(config.size_multiple.values())[:-1]), 1))
    image = np.repeat(image, config.n_channel_in, axis=-1)
    once = np.asarray(network(image, training=False))
    for session in tf1:
        with session.open(bundle) as candidate:
            there = candidate(image)
            assert there.shape == once.shape
            assert np.abs(there - once).max() <= 1e-5
            if once.shape == image.shape:
                assert np.abs(candidate(there) - network(once, training=False)).max() <= 5e-5


def test_exporting_twice_gives_equal_bytes_also_after_other_models_were_built(
    tiny: Path, tmp_path: Path, foreign: ModuleType
) -> None:
    from care_bridge.export.savedmodel import write_bundle

    first = write_bundle(tiny, tmp_path / "a.zip").read_bytes()
    foreign.batch_norm()
    assert write_bundle(tiny, tmp_path / "b.zip").read_bytes() == first


def test_a_bundle_is_laid_out_as_the_plugin_unpacks_it(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.bundle import read_bundle
    from care_bridge.export.savedmodel import write_bundle

    path = write_bundle(tiny, tmp_path / "zips")
    assert path == tmp_path / "zips" / "tiny_care.zip"
    bundle = read_bundle(path)
    assert bundle.entries == (
        "variables/",
        "saved_model.pb",
        "meta.json",
        "care_bridge.onnx",
        "care_bridge.json",
    )
    (tensor,), (result,) = bundle.signature.inputs, bundle.signature.outputs
    assert (tensor.key, tensor.name, tensor.dtype, tensor.shape) == (
        "input",
        "input:0",
        1,
        (None, None, None, 1),
    )
    assert (result.key, result.name, result.shape) == ("output", "output:0", (None, None, None, 1))
    meta = json.loads(zipfile.ZipFile(path).read("meta.json"))
    # csbdeep 0.8.2, models/care_standard.py, export_TF
    assert list(meta)[:6] == ["type", "version", "probabilistic", "axes", "axes_div_by", "tile_overlap"]
    assert (meta["type"], meta["axes"], meta["axes_div_by"]) == ("CARE", "YXC", [4, 4, 1])
    fiji = meta["care_bridge"]["fiji"]
    assert fiji["blockMultiple"] == 4
    assert fiji["overlap"] == 24
    text = path.with_name("HOW-TO-RUN-IN-FIJI.txt").read_text()
    macro = path.with_suffix(".ijm").read_text()
    assert "Run your network" in text
    assert f"modelfile=[{path}]" in text
    assert f'var model = "{path}";' in macro
    # The plugin takes the model of its last run otherwise: before and behind the run.
    for written in (text, macro):
        assert written.count("remove('GenericNetwork_modelfile')") == 2
    assert macro.isascii()


def test_the_receptive_field_is_what_csbdeep_measures_or_a_pixel_more() -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.graph import freeze
    from care_bridge.export.probe import measure
    from care_bridge.training.unet import build

    # csbdeep 0.8.2, internals/predict.py, tile_overlap: kernel 5 -> 43, kernel 3 -> 22 (lit at one place of
    # the
    # pooling grid only; the farthest of the four places is one pixel more).
    for kernel, expected in ((5, 43), (3, 23)):
        geometry = measure(freeze(build(CareConfig(unet_n_first=4, unet_kern_size=kernel))))
        assert geometry.receptive_field == (expected, expected)
        assert geometry.size_multiple == (4, 4)


def test_an_interrupted_export_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from care_bridge.export import savedmodel

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(savedmodel, "check_written", interrupt)
    with pytest.raises(KeyboardInterrupt):
        savedmodel.write_bundle(tiny, tmp_path / "bundle.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing", "no model at"), ("notes.txt", "not a model that can be exported"), ("empty", "config.json")],
)
def test_what_is_no_model_is_refused_in_a_sentence(name: str, why: str, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle

    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=why):
        write_bundle(tmp_path / name, tmp_path / "bundle.zip")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_exports_without_its_training(suffix: str, foreign: ModuleType, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle

    model = foreign.leaky_strided_transposed()
    model.compile("adam", "mse")
    file = tmp_path / f"my net{suffix}"
    model.save(file)
    assert write_bundle(file, tmp_path).name == "my_net.zip"


def test_a_file_of_keras_2_with_arguments_that_keras_3_lacks_exports(
    foreign: ModuleType, tmp_path: Path
) -> None:
    import h5py

    from care_bridge.export.savedmodel import write_bundle

    model = foreign.leaky_strided_transposed()
    file = tmp_path / "keras2.h5"
    model.save(file)
    with h5py.File(file, "r+") as content:
        config = json.loads(content.attrs["model_config"])
        transposed = [
            layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2DTranspose"
        ]
        assert transposed
        for layer in transposed:
            layer["config"]["groups"] = 1  # as TensorFlow 2.10 wrote it
        content.attrs["model_config"] = json.dumps(config)
        content.attrs["keras_version"] = "2.10.0"
    assert write_bundle(file, tmp_path).is_file()


def test_a_folder_that_csbdeep_trained_in_exports(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle

    folder = tmp_path / "from csbdeep"
    folder.mkdir()
    config = json.loads((tiny / "config.json").read_text())
    del config["care_bridge"]  # csbdeep 0.8.2 writes its own keys alone
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "weights_best.h5").write_bytes((tiny / "weights_best.h5").read_bytes())
    assert write_bundle(folder, tmp_path).name == "from_csbdeep.zip"


def test_a_file_with_a_custom_layer_says_which_and_what_to_do(tmp_path: Path) -> None:
    import keras

    from care_bridge.export.savedmodel import write_bundle

    class Odd(keras.layers.Layer):
        def call(self, tensor: Any) -> Any:
            return tensor * 2.0

    inputs = keras.Input((None, None, 1))
    keras.Model(inputs, Odd()(inputs)).save(tmp_path / "odd.keras")
    with pytest.raises(InputError, match=r"Odd.*custom_objects"):
        write_bundle(tmp_path / "odd.keras", tmp_path / "bundle.zip")
    assert write_bundle(tmp_path / "odd.keras", tmp_path / "b.zip", custom_objects={"Odd": Odd}).is_file()


@pytest.mark.java
def test_a_probabilistic_network_gets_a_bundle_of_its_means(tf1: Any, noise: Any, tmp_path: Path) -> None:
    from care_bridge.bundle import read_bundle
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    config = CareConfig(probabilistic=True, unet_n_first=4, unet_kern_size=3, unet_n_depth=1)
    model = CareModel(config, build(config))
    whole = write_bundle(model, tmp_path / "net.zip")
    image = noise(0, (1, 24, 28, 1))
    expected = np.asarray(model.network(image, training=False))
    assert expected.shape[-1] == 2
    session = next(session for session in tf1 if session.version == "1.15.0")
    received = {}
    for file in (whole, tmp_path / "net_mean.zip"):
        folder = tmp_path / file.stem
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        with session.open(read_bundle(folder)) as network:
            received[file.stem] = network(image)
    np.testing.assert_allclose(received["net"], expected, atol=1e-5)
    np.testing.assert_allclose(received["net_mean"], expected[..., :1], atol=1e-5)
    # Means alone go in again.
    assert received["net_mean"].shape == image.shape
    meta = json.loads((tmp_path / "net_mean" / "meta.json").read_text())
    assert meta["probabilistic"] is False
    assert meta["care_bridge"]["n_channel_out"] == 1
    assert "_mean.zip" in (tmp_path / "HOW-TO-RUN-IN-FIJI.txt").read_text()
