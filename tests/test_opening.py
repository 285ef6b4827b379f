"""From a path to a predictor: one place opens models, whatever the file and whatever runs it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge import PluginOptions, PredictOptions
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.java import runtimes
from care_bridge.opening import (
    RUNTIMES,
    kind_of,
    open_members,
    open_network,
    open_network_predictor,
    open_predictor,
    runtime_of,
)
from care_bridge.predictor import Network, Predictor

PACKAGE = Path(__file__).resolve().parents[1] / "care_bridge"

OPENS = {
    "KerasPredictor.load",
    "OnnxNetwork",
    "SavedModelNetwork",
    "Tf1Network",
    "ImageJPredictor",
    "ImageJOnnxPredictor",
    "FijiPlugin",
    "load_members",
}
"""Calls that make a predictor or a network of a path."""
OWN = {
    "opening.py",
    "inference/keras.py",
    "inference/onnx.py",
    "inference/savedmodel.py",
    "java/tf1.py",
    "java/imagej.py",
    "java/imagej_onnx.py",
    "java/pyimagej.py",
}
NO_PATH = {
    ("export/onnx.py", "OnnxNetwork"),
    ("export/bioimageio.py", "OnnxNetwork"),
    ("checking/onnx_beside.py", "OnnxNetwork"),
}
"""Bytes that were just written, or lie in a bundle that is judged, not a file of anybody's."""


def calls(file: Path) -> set[str]:
    """Names of everything that a file calls, a method with its class."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                found.add(node.func.id)
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                found.add(f"{node.func.value.id}.{node.func.attr}")
                found.add(node.func.attr)
    return found


def test_one_place_opens_models() -> None:
    places = set()
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        called = {call for call in calls(file) & OPENS if (name, call) not in NO_PATH}
        # A network of a file that was loaded for something else would be opening too.
        if "KerasNetwork" in calls(file) and calls(file) & {"open_source", "load_model"}:
            called.add("KerasNetwork")
        if called:
            places.add(name)
    assert places - OWN == set()
    assert "opening.py" in places


CONFIG = {"unet_n_depth": 1, "unet_n_first": 2, "unet_kern_size": 3, "norm_pmin": 5.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with everything in it that is exported of one."""
    pytest.importorskip("tensorflow")
    from care_bridge.config import CareConfig
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("opening") / "model"
    config = CareConfig("YX", **CONFIG)
    network = build(config, seed=3)
    save_model(folder, config, network)
    write_bundle(folder, folder / "fiji.zip")
    write_onnx(folder, folder / "model.onnx")
    network.save(folder.parent / "whole.keras")
    with zipfile.ZipFile(folder / "fiji.zip") as archive:
        archive.extractall(folder.parent / "saved")
    return folder


@pytest.fixture(scope="module")
def package(model: Path) -> Path:
    """A BioImage.IO package put together by hand: what opening reads of one, and no more."""
    root = model.parent / "package"
    root.mkdir()
    weights = {
        "keras_hdf5": {"source": "whole.keras"},
        "tensorflow_saved_model_bundle": {"source": "fiji.zip"},
        "onnx": {"source": "model.onnx"},
    }
    step = {"id": "scale_range", "kwargs": {"min_percentile": 5.0, "max_percentile": 99.8}}
    description = {"type": "model", "weights": weights, "inputs": [{"preprocessing": [step]}]}
    (root / "rdf.yaml").write_text(json.dumps(description), encoding="utf-8")
    shutil.copy(model.parent / "whole.keras", root)
    shutil.copy(model / "fiji.zip", root)
    shutil.copy(model / "model.onnx", root)
    packed = shutil.make_archive(str(model.parent / "packed"), "zip", root)
    return Path(packed)


@pytest.fixture
def image() -> Image:
    return Image(np.random.default_rng(0).poisson(300, (22, 19)).astype(np.uint16), "YX")


def places(model: Path, package: Path) -> dict[str, Path]:
    return {
        "folder": model,
        "Keras file": model.parent / "whole.keras",
        "bundle": model / "fiji.zip",
        "SavedModel": model.parent / "saved",
        "ONNX": model / "model.onnx",
        "package": package,
        "unpacked package": package.parent / "package",
    }


# What each file is made for, and what else runs it.
CASES = [
    ("folder", "keras"),
    ("folder", "tensorflow"),
    ("folder", "onnx"),
    ("Keras file", "keras"),
    ("bundle", "tensorflow"),
    ("SavedModel", "tensorflow"),
    ("ONNX", "onnx"),
    ("package", "keras"),
    ("package", "tensorflow"),
    ("package", "onnx"),
    ("unpacked package", "keras"),
]


@pytest.mark.tf
@pytest.mark.parametrize(("what", "runtime"), CASES)
def test_a_model_gives_the_same_image_in_whatever_file_and_runtime(
    model: Path, package: Path, image: Image, what: str, runtime: str
) -> None:
    path = places(model, package)[what]
    # A bare Keras or ONNX file states no percentiles; all else knows the model's own, 5.
    options = PredictOptions(pmin=5.0) if what in ("Keras file", "ONNX") else None
    wanted = open_predictor(model, runtime="keras").predict(image).data
    with open_predictor(path, runtime=runtime, options=options) as predictor:
        assert isinstance(predictor, Predictor)
        assert isinstance(predictor.network, Network)
        assert (predictor.runtime.name, predictor.runtime.level) == (runtime, "")
        np.testing.assert_allclose(predictor.predict(image).data, wanted, atol=1e-4 * np.ptp(wanted))
    with open_predictor(path, "emulation", runtime=runtime) as emulated:
        assert (emulated.runtime.name, emulated.runtime.level) == (runtime, "emulation")
        assert emulated.options == PluginOptions()


@pytest.mark.tf
def test_a_file_is_run_by_what_it_is_made_for_unless_asked_otherwise(model: Path, package: Path) -> None:
    found = {what: runtime_of(path) for what, path in places(model, package).items()}
    assert found == {
        "folder": "keras",
        "Keras file": "keras",
        "bundle": "tensorflow",
        "SavedModel": "tensorflow",
        "ONNX": "onnx",
        "package": "keras",
        "unpacked package": "keras",
    }
    for what, path in places(model, package).items():
        assert open_predictor(path, "").runtime.name == found[what]
        assert open_network(path).runtime.name == found[what]


@pytest.mark.tf
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"runtime": "pytorch"}, r"runtime='pytorch' is none of keras, tensorflow"),
        ({"runtime": "emulation"}, "'emulation' is a level"),
        ({"level": "keras"}, r"level='keras' is none of best, fiji"),
        (
            {"runtime": "onnx", "level": "tf1"},
            "level 'tf1' does not go with runtime 'onnx', which has '' or 'emul",
        ),
        ({"runtime": "fiji", "level": ""}, "level '' does not go with runtime 'fiji'"),
        ({"runtime": "keras", "options": PluginOptions()}, "takes PredictOptions; received PluginOptions"),
        ({"level": "emulation", "options": PredictOptions()}, "takes PluginOptions.*received PredictOptions"),
        ({"runtime": "onnx", "precision": "bfloat16"}, "precision are for runtime 'keras'"),
        ({"level": "emulation", "factor": 2.0}, "kind and factor are not for level 'emulation'"),
    ],
)
def test_what_does_not_go_together_is_refused(model: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_predictor(model, **arguments)


def test_a_runtime_and_best_is_that_runtimes_own_level(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert open_predictor(model, "best", runtime="keras").runtime.level == "emulation"
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(runtimes, "missing", lambda what: [what])
    assert open_predictor(model).runtime.level == "emulation"
    assert open_predictor(model).runtime.name == "tensorflow"


@pytest.mark.tf
def test_a_path_without_a_model_is_named() -> None:
    with pytest.raises(InputError, match="there is no model at 'nowhere'"):
        open_predictor("nowhere", "")
    with pytest.raises(InputError, match="no model folder at 'nowhere'"):
        open_predictor("nowhere", runtime="keras")


@pytest.mark.tf
def test_a_package_names_the_weights_it_has(model: Path, package: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    shutil.copytree(package.parent / "package", root)
    (root / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"holds no weights for onnx \(onnx\), only: keras_hdf5"):
        open_predictor(root, runtime="onnx")


@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_a_damaged_package_is_named_and_not_where_it_was_unpacked(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "p.zip"
    weights = {"keras_hdf5": {"source": "a.h5"}, "onnx": {"source": "a.onnx"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", json.dumps({"type": "model", "weights": weights}))
        archive.writestr("a.h5", b"x")
        archive.writestr("a.onnx", b"x")
    for opens in (open_network, open_network_predictor):
        with pytest.raises(InputError, match=rf"{re.escape(str(path))}.a\.") as caught:
            opens(path, runtime=runtime)
        assert "care-bridge-package" not in str(caught.value)


@pytest.mark.tf
def test_a_packages_unpacked_files_go_with_what_was_opened(
    package: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    predictor = open_predictor(package, runtime="onnx")
    assert list(tmp_path.glob("care-bridge-package-*"))
    predictor.predict(image)
    del predictor
    assert not list(tmp_path.glob("care-bridge-package-*"))


@pytest.mark.tf
def test_a_bare_network_of_a_model_that_upsamples_is_refused_but_where_the_bare_one_is_wanted(
    model: Path, tmp_path: Path
) -> None:
    from care_bridge.config import read_config, write_config

    folder = tmp_path / "isotropic"
    shutil.copytree(model, folder)
    write_config(folder, read_config(folder).replace(kind="IsotropicCARE", factor=2.0))
    assert kind_of(folder / "model.onnx") == "IsotropicCARE"
    with pytest.raises(InputError, match=r"name the model's folder instead, '.*isotropic'"):
        open_predictor(folder / "model.onnx", runtime="onnx")
    with pytest.raises(InputError, match=r"kind and factor need the model's config\.json"):
        open_predictor(model / "model.onnx", runtime="onnx", factor=2.0)
    assert open_network_predictor(folder / "model.onnx").space == "YX"
    stack = Image(np.zeros((3, 8, 8), np.float32), "ZYX")
    assert open_predictor(folder, runtime="onnx").predict(stack).shape == (6, 8, 8)


@pytest.mark.tf
def test_an_ensemble_is_its_mean_and_its_members(model: Path, image: Image, tmp_path: Path) -> None:
    from care_bridge.config import read_config, write_config
    from care_bridge.training.folder import MEMBERS

    config = read_config(model)
    shutil.copytree(model, tmp_path / "member_1")
    shutil.copytree(model, tmp_path / "member_2")
    write_config(tmp_path, config.replace(provenance={MEMBERS: ["member_1", "member_2"]}))
    members = open_members(tmp_path)
    assert len(members) == 2
    mean = open_predictor(tmp_path, runtime="keras").predict(image).data
    np.testing.assert_allclose(members[0].predict(image).data, mean, atol=1e-5 * np.ptp(mean))
    assert open_members(model) == []
    assert open_members(model / "model.onnx") == []


@pytest.mark.java
@pytest.mark.tf
@pytest.mark.parametrize("level", ["", "tf1"])
def test_a_packages_bundle_is_run_by_fijis_tensorflow(
    model: Path, package: Path, image: Image, level: str
) -> None:
    if runtimes.missing("tf1-1.15.0"):
        pytest.skip("no TensorFlow 1.15.0 here; run: care-bridge doctor --install tf1")
    with open_predictor(package, level, runtime="tf1") as predictor:
        assert (predictor.runtime.name, predictor.runtime.level) == ("tf1", "tf1" if level else "")
        assert predictor.predict(image).shape == image.shape


def test_the_old_name_of_the_emulation_still_works_and_says_so() -> None:
    import care_bridge
    from care_bridge.plugin.emulation import EmulatedPlugin

    with pytest.warns(DeprecationWarning, match=r"is called care_bridge\.EmulatedPlugin now"):
        assert care_bridge.FijiPredictor is EmulatedPlugin


def test_every_runtime_is_one_that_a_predictor_can_name() -> None:
    from care_bridge.predictor import Runtime

    assert all(f"`{name}`" in str(Runtime.__doc__) for name in RUNTIMES)
