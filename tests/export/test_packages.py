"""BioImage.IO packages: built, judged, and made into folders again; deepImageJ's engine followed in NumPy."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from care_bridge.checking import check, jdll, package_files, packages
from care_bridge.checking.jdll.rdf import _bucket as bucket
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError

pytestmark = pytest.mark.tf


@pytest.fixture(scope="session")
def package(minimal: Any) -> Path:
    return Path(minimal.path)


@pytest.fixture
def unpacked(package: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def changed(folder: Path, change: Any) -> Path:
    """The folder with `change(rdf)` applied to its description."""
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return folder


# --- deepImageJ's engine


def cases(shared: Path) -> tuple[Path, list[dict[str, Any]]]:
    folder = shared / "deepimagej-recorded"
    return folder, json.loads((folder / "cases.json").read_text())["cases"]


def test_jdll_s_results_and_failures_are_predicted(shared: Path, tmp_path: Path) -> None:
    from care_bridge.inference.onnx import OnnxNetwork
    from care_bridge.inference.savedmodel import SavedModelNetwork

    folder, recorded = cases(shared)
    for case in recorded:
        image = np.load(folder / case["input"])
        with zipfile.ZipFile(folder / case["package"]) as archive:
            rdf = yaml.safe_load(archive.read("rdf.yaml"))
            archive.extractall(tmp_path / case["id"])
        try:
            description = jdll.read(rdf)
            chosen = jdll.choose_weights(rdf["weights"])
            open_network = OnnxNetwork if chosen == "onnx" else SavedModelNetwork
            network = open_network(tmp_path / case["id"] / rdf["weights"][chosen]["source"])
            result = jdll.predict(description, network, image)
        except jdll.JdllError as error:
            stopped = error.stage
        else:
            stopped = None
        assert stopped == case.get("stage"), case["id"]
        if stopped:
            continue
        assert case["ok"], case["id"]
        for number, file in enumerate(sorted((folder / "outputs").glob(f"{case['id']}*.npy"))):
            if number:  # the engine put the preprocessed tensor into the caller's list
                result = jdll.predict(
                    description, network, jdll.process(image, "byxc", description.preprocessing)
                )
            expected = np.load(file)
            # 2e-5 of the range: threads and processors; most are within 3e-7
            assert np.abs(result - expected).max() <= 2e-5 * np.ptp(expected), case["id"]


def test_the_engine_is_chosen_by_java_s_hash_order(shared: Path) -> None:
    choice = json.loads((shared / "deepimagej-recorded" / "cases.json").read_text())["engine_choice"]
    for version, key in (("1.15.0", "tf_1_15_0"), ("1.15", "tf_1_15"), ("1.15.5", "tf_1_15_5")):
        bundle = bucket(f"tensorflow_saved_model_bundle_v{version}")
        first = [opset for opset in range(7, 23) if bucket(f"onnx_v{opset}") < bundle]
        assert first == choice[key]["onnx_first"]


def test_recorded_packages_are_judged_as_jdll_did(shared: Path) -> None:
    folder, recorded = cases(shared)
    for case in recorded:
        report = check(
            folder / case["package"], image=np.load(folder / case["input"]), core=False, versions=()
        )
        assert report.accepted is case["ok"], (case["id"], str(report))


@pytest.mark.parametrize(
    ("change", "stage", "why"),
    [
        (lambda rdf: rdf["config"]["bioimageio"].pop("nickname"), "read", "nickname"),
        (lambda rdf: rdf.update(format_version=0.5), "read", "format_version"),
        (lambda rdf: rdf["inputs"][0]["axes"][1].pop("id"), "read", "axis id"),
        (lambda rdf: rdf["inputs"][0]["axes"][1].update(id="Y"), "read", "lower case"),
        (lambda rdf: rdf["inputs"][0]["axes"][1].pop("type"), "read", "no type"),
        (lambda rdf: rdf["inputs"][0]["axes"][1]["size"].update(min=50), "read", "multiple"),
        (lambda rdf: rdf["outputs"][0]["data"].update(type="uint16"), "run", "float32"),
        (
            lambda rdf: rdf["weights"]["tensorflow_saved_model_bundle"].pop("tensorflow_version"),
            "read",
            "version",
        ),
    ],
)
def test_what_stops_deepimagej_is_named(change: Any, stage: str, why: str, unpacked: Path) -> None:
    report = check(changed(unpacked, change), core=False, versions=())
    (rule,) = [rule for rule in report.rules if rule.rule == "deepImageJ's engine gives a result"]
    assert rule.result == "failed"
    assert re.search(f"at {stage}: .*{why}", rule.run)


X = {"id": "x", "type": "space", "size": {"min": 36, "step": 4}}
SCALE = {"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 3.0, "max_percentile": 99.8}}


def small_rdf() -> dict[str, Any]:
    """The part of a 2-D description that deepImageJ's engine reads: halo 16, step 4."""
    axes = [{"type": "batch"}, {**X, "id": "y"}, dict(X), {"type": "channel", "channel_names": ["raw"]}]
    out = [{**axis, "halo": 16, "size": {"tensor_id": "input", "axis_id": axis["id"]}} for axis in axes[1:3]]
    return {
        "format_version": "0.5.10",
        "name": "small",
        "config": {"bioimageio": {"nickname": "small"}},
        "inputs": [{"id": "input", "axes": axes, "preprocessing": [SCALE]}],
        "outputs": [{"id": "output", "axes": [{**axes[0]}, *out, axes[3]], "data": {"type": "float32"}}],
        "weights": {"tensorflow_saved_model_bundle": {"source": "net.zip", "tensorflow_version": "1.15"}},
    }


def only(rdf: dict[str, Any], step: str, **kwargs: Any) -> None:
    rdf["inputs"][0]["preprocessing"] = [{"id": step, "kwargs": kwargs}]


def halo_of_input_alone(rdf: dict[str, Any]) -> None:
    for axis in rdf["outputs"][0]["axes"][1:3]:
        axis.pop("halo")
    rdf["inputs"][0]["axes"][1]["halo"] = 8


# Each was run in JDLL 0.6.1 with its TensorFlow 1.15.0 engine, on an image of 83x93 pixels: None gave a result.
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rdf: None, None),
        (lambda rdf: rdf.pop("name"), "no name"),
        (lambda rdf: rdf.update(license=["MIT"]), "license"),
        (lambda rdf: rdf.update(git_repo={"a": 1}), "git_repo"),
        (lambda rdf: rdf.update(authors=[{"name": 5}]), "authors: name"),
        (lambda rdf: rdf.update(authors=["me"], covers=[{"source": "c.png"}], tags={"a": 1}), None),
        (lambda rdf: rdf.update(cite=[{"text": "a", "doi": 10.1}]), "cite: doi"),
        (lambda rdf: rdf.update(id=5), "id is 5"),
        (lambda rdf: rdf.pop("config"), None),
        (lambda rdf: rdf.update(config={}), "nickname"),
        (lambda rdf: rdf.update(config="a", id="x"), "config is 'a'"),
        (lambda rdf: rdf["config"].update(bioimageio="a", deepimagej={"allow_tiling": True}), "nickname"),
        (lambda rdf: rdf["config"].update(deepimagej={"x": 1}), "allow_tiling"),
        (lambda rdf: rdf["inputs"][0].pop("id"), "no id"),
        (lambda rdf: rdf["inputs"][0].update(description=5), "description"),
        (lambda rdf: rdf["inputs"][0]["axes"][2].update(concatenable="yes"), "concatenable"),
        (lambda rdf: rdf["inputs"][0]["axes"][3].update(channel_names={"a": 1}), "channel axis"),
        (lambda rdf: rdf["inputs"][0]["axes"][1].update(halo=4), None),
        (halo_of_input_alone, "tiles"),
        (lambda rdf: rdf["outputs"][0]["axes"][1].update(halo="16"), "halo"),
        (lambda rdf: rdf["outputs"][0]["axes"][1].pop("size"), "too complex"),
        (lambda rdf: rdf["outputs"][0]["axes"][1].update(size=80), "too complex"),
        (lambda rdf: rdf["outputs"][0]["axes"][1]["size"].update(tensor_id="other"), "no input"),
        (lambda rdf: rdf["outputs"][0]["axes"][1]["size"].update(axis_id="x"), "the network makes"),
        (lambda rdf: rdf["inputs"][0]["axes"][0].update(size=2), "too complex"),
        (lambda rdf: rdf["outputs"][0]["data"].update(type=None), None),
        (lambda rdf: rdf["weights"].update(torchscript="a.pt"), "weights.torchscript"),
        (lambda rdf: rdf["weights"].update(onnx={"source": "absent.onnx", "opset_version": 17}), None),
        (
            lambda rdf: rdf["weights"]["tensorflow_saved_model_bundle"].update(
                source="https://a.org/net.zip"
            ),
            None,
        ),
        (lambda rdf: only(rdf, "scale_range", axes=["index"]), None),
        (lambda rdf: only(rdf, "scale_range", foo=1), "argument 'foo'"),
        (lambda rdf: only(rdf, "scale_range", eps=None), "eps is None"),
        (lambda rdf: only(rdf, "scale_range", min_percentile=-3.0), "below 0"),
        (
            lambda rdf: only(rdf, "scale_range", min_percentile="low"),
            "min_percentile is 'low'; JDLL needs a number",
        ),
        (lambda rdf: only(rdf, "scale_range", min_percentile=[1.0]), "JDLL needs a number"),
        (lambda rdf: only(rdf, "clip", min=0.0, max=1.0, axes=["y"]), "argument 'axes'"),
        (lambda rdf: only(rdf, "binarize"), "threshold"),
        (lambda rdf: only(rdf, "sigmoid", axes=["y"]), "argument 'axes'"),
        (lambda rdf: only(rdf, "fixed_zero_mean_unit_variance", mean=1.0), "std"),
        (
            lambda rdf: only(rdf, "fixed_zero_mean_unit_variance", mean=[1.0], std=[2.0], axis="channel"),
            "axes",
        ),
        (lambda rdf: only(rdf, "zero_mean_unit_variance", mean=1.0, std=2.0), "fixed"),
        (lambda rdf: only(rdf, "scale_linear", gain=[1.0], offset=[0.0]), "axis"),
        (lambda rdf: only(rdf, "scale_linear", gain=[1.0], offset=[0.0], axis="channel"), None),
        (lambda rdf: rdf["inputs"][0].update(preprocessing=[{"kwargs": {}}, {"id": "scaleRange"}]), None),
        (
            lambda rdf: rdf["inputs"][0].update(
                preprocessing=[{"name": "ensure_dtype", "kwargs": {"dtype": "u"}}]
            ),
            "dtype",
        ),
    ],
)
def test_jdll_takes_and_refuses_what_it_did_when_run(change: Any, why: str | None, tmp_path: Path) -> None:
    rdf = small_rdf()
    change(rdf)
    (tmp_path / "net.zip").write_bytes(b"")
    image = np.random.default_rng(0).random((1, 83, 93, 1), np.float32)

    def judged() -> None:
        assert jdll.choose_weights(rdf["weights"], tmp_path) == "tensorflow_saved_model_bundle"
        assert jdll.predict(jdll.read(rdf), lambda tensor: tensor, image).shape == image.shape

    if why is None:
        judged()
    else:
        with pytest.raises(jdll.JdllError, match=why):
            judged()


def test_a_second_input_stops_jdll_at_its_run_and_a_wrong_one_already_where_it_is_read() -> None:
    rdf = small_rdf()
    second = {**rdf["inputs"][0], "id": "second"}
    rdf["inputs"].append(second)
    description = jdll.read(rdf)
    with pytest.raises(jdll.JdllError, match="2 inputs and 1 outputs") as run:
        jdll.predict(description, lambda tensor: tensor, np.zeros((1, 83, 93, 1), np.float32))
    rdf["inputs"][1] = {**second, "axes": [{"type": "time", "id": "t"}]}
    with pytest.raises(jdll.JdllError, match="time axis") as read:
        jdll.read(rdf)
    assert (run.value.stage, read.value.stage) == ("run", "read")


def test_jdll_s_processing_has_its_own_faults() -> None:
    # Each as JDLL 0.6.1 gave it, run.
    image = np.random.default_rng(0).random((1, 6, 7, 2)).astype(np.float32)

    def run(step: str, **kwargs: Any) -> Any:
        return jdll.process(image, "byxc", [{"id": step, "kwargs": kwargs}])

    # The first of a list is taken for every channel.
    np.testing.assert_allclose(
        run("scale_linear", gain=[0.5, 2.0], offset=[1.0, 0.0], axis="channel"), image * 0.5 + 1
    )
    # Every channel's mean and deviation are taken off the whole image, one after the other.
    expected = image
    for channel in range(2):
        part = expected[..., channel]
        expected = (expected - part.mean()) / (part.std() + 1e-6)
    np.testing.assert_allclose(
        run("zero_mean_unit_variance", axes=["y", "x"]), expected, rtol=1e-5, atol=1e-5
    )
    # The threshold itself counts as above; eps is added to the deviation; limits the wrong way round give the upper.
    level = float(image[0, 0, 0, 0])
    assert run("binarize", threshold=level)[0, 0, 0, 0] == 1
    np.testing.assert_allclose(
        run("fixed_zero_mean_unit_variance", mean=0.0, std=1.0, eps=1), image / 2, rtol=1e-6
    )
    assert (run("clip", min=0.9, max=0.1)[image < 0.1] == np.float32(0.9)).all()
    assert (run("clip", min=0.9, max=0.1)[image >= 0.1] == np.float32(0.1)).all()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rdf: None, None),
        (lambda rdf: rdf.pop("config"), None),
        (lambda rdf: rdf.update(config={}), None),
        (lambda rdf: rdf["inputs"][0].update(axes=["b", "y", "x", "c"]), "text such as byxc"),
        (lambda rdf: rdf["inputs"][0]["shape"].pop("step"), "without step"),
        (lambda rdf: rdf["outputs"][0]["shape"].update(scale=[1, 2, 2, 1]), "the network makes"),
        (lambda rdf: rdf["outputs"][0]["shape"].update(offset=[0, 1, 1, 0]), "tiles"),
        (lambda rdf: rdf["outputs"][0].update(shape=[1, 83, 93, 1]), "too complex"),
        (lambda rdf: rdf["inputs"][0].update(shape=[1, 64, 64, 1]), None),
    ],
)
def test_descriptions_of_format_0_4_are_judged_as_jdll_did(change: Any, why: str | None) -> None:
    # Each was run in JDLL 0.6.1, as above.
    rdf = small_rdf()
    shape = {"min": [1, 36, 36, 1], "step": [0, 4, 4, 0]}
    follows = {"reference_tensor": "input", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]}
    rdf |= {
        "format_version": "0.4.10",
        "inputs": [{"name": "input", "axes": "byxc", "data_type": "float32", "shape": shape}],
        "outputs": [{"name": "output", "axes": "byxc", "shape": follows, "halo": [0, 16, 16, 0]}],
    }
    change(rdf)
    image = np.random.default_rng(0).random((1, 83, 93, 1), np.float32)
    if why is None:
        result = jdll.predict(jdll.read(rdf), lambda tensor: tensor, image)
        np.testing.assert_array_equal(result, image)
    else:
        with pytest.raises(jdll.JdllError, match=why):
            jdll.predict(jdll.read(rdf), lambda tensor: tensor, image)


# --- ours


def test_a_package_holds_what_the_readers_want(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        rdf = yaml.safe_load(archive.read("rdf.yaml"))
        names = set(archive.namelist())
        assert archive.open("tiny_care.zip").read(2) == b"PK"
    assert rdf["format_version"] == "0.5.10"
    assert isinstance(rdf["documentation"], str)
    assert set(rdf["weights"]) == {"keras_hdf5", "tensorflow_saved_model_bundle", "onnx"}
    assert rdf["weights"]["tensorflow_saved_model_bundle"]["tensorflow_version"] == "1.15"
    assert isinstance(rdf["config"]["bioimageio"]["nickname"], str)
    assert {"tiny_care.keras", "README.md", "cover.png"} <= names
    halo = rdf["outputs"][0]["axes"][1]["halo"]
    step = rdf["inputs"][0]["axes"][1]["size"]["step"]
    assert (halo, step) == (24, 4)
    assert rdf["config"]["care_bridge"]["test_image_percentiles_agree"] is True


def test_channel_names_are_what_older_readers_take(unpacked: Path) -> None:
    from care_bridge.export.description import identifiers

    # bioimageio.core 0.9.6 and 0.10.4, run: 'low quality' is not a valid (Python) identifier.
    assert identifiers(["low quality", "GFP (raw)", "488"]) == ["low_quality", "GFP_raw", "channel_488"]
    rule = "Channel names are identifiers"
    before = check(unpacked, core=False, versions=())
    assert [r.result for r in before.rules if r.rule == rule] == ["passed"]

    def spaced(rdf: dict[str, Any]) -> None:
        rdf["inputs"][0]["axes"][-1]["channel_names"] = ["low quality"]

    after = check(changed(unpacked, spaced), core=False, versions=())
    assert [r.result for r in after.rules if r.rule == rule] == ["warning"]


def test_judging_leaves_no_trace_in_the_environment(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bioimageio.core  # noqa: F401  # takes KERAS_BACKEND=torch for itself where none is set

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    before = dict(os.environ)
    check(package, versions=())
    assert dict(os.environ) == before


# bioimageio.spec 0.5.12 leaves the files that it copies open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_spec_saves_is_widened_for_deepimagej(unpacked: Path, tmp_path: Path) -> None:
    from bioimageio import spec

    from care_bridge.export.zoo_spec import offline, saved_by_spec, widen

    rdf = yaml.safe_load((unpacked / "rdf.yaml").read_text())
    with offline(unpacked / "rdf.yaml"), spec.ValidationContext(root=unpacked, file_name="rdf.yaml"):
        description = spec.load_description(unpacked / "rdf.yaml", format_version="latest")
        spec.save_bioimageio_package_as_folder(description, output_path=tmp_path / "saved")
    saved = saved_by_spec((tmp_path / "saved" / "rdf.yaml").read_text())
    # What spec 0.5.12 writes by itself; recorded in deepimagej-recorded: a ClassCastException.
    assert saved["format_version"] == "0.5.12"
    assert isinstance(saved["documentation"], dict)
    with pytest.raises(jdll.JdllError, match="documentation"):
        jdll.read(saved)
    assert widen(saved) == rdf
    jdll.read(widen(saved))


@pytest.mark.java
def test_a_package_passes_every_reader(package: Path, tf1: Any, tmp_path: Path) -> None:
    report = check(package, sessions=tf1)
    assert report.accepted, str(report)
    # Its metadata are the least that is taken; test_facts has a full model.toml.
    odd = [rule.rule for rule in report.rules if rule.result != "passed"]
    assert odd == ["Metadata are at least 80% complete", "Cover and sample show what the model is for"]
    assert report.facts["deepimagej"] == "runs with tensorflow_saved_model_bundle"
    assert report.facts["run_your_network"] == "accepted"


@pytest.mark.java
def test_a_package_of_a_fast_network_passes_every_reader_and_comes_back(tf1: Any, tmp_path: Path) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.bioimageio import write_package
    from care_bridge.export.import_package import import_package
    from care_bridge.package import read_description
    from care_bridge.training.folder import load_model, save_model
    from care_bridge.training.unet import build

    from .conftest import CARD

    config = CareConfig(architecture="fast", unet_n_first=8, unet_n_depth=3, seed=3)
    save_model(tmp_path / "fast", config, build(config))
    package = write_package(tmp_path / "fast", tmp_path / "package.zip", metadata=CARD).path
    report = check(package, sessions=tf1)
    assert report.accepted, str(report)
    assert report.facts["deepimagej"] == "runs with tensorflow_saved_model_bundle"
    assert report.facts["run_your_network"] == "accepted"
    with zipfile.ZipFile(package) as file:
        file.extractall(tmp_path / "unpacked")
    rdf = read_description(tmp_path / "unpacked", package)
    sizes = {axis["id"]: axis["size"] for axis in rdf["inputs"][0]["axes"] if axis["type"] == "space"}
    assert {axis: size["step"] for axis, size in sizes.items()} == {"y": 16, "x": 16}
    assert all(size["min"] % 16 == 0 for size in sizes.values())
    assert load_model(import_package(package, tmp_path / "again")).config == config


def test_a_changed_file_and_a_missing_one_are_found(unpacked: Path) -> None:
    np.save(unpacked / "test_input.npy", np.zeros((1, 64, 64, 1), np.float32))
    (unpacked / "cover.png").unlink()
    report = check(unpacked, core=False, versions=())
    assert not report.accepted
    text = str(report)
    assert "missing: cover.png" in text
    assert "another content than its sha256 says: test_input.npy" in text


def test_a_test_tensor_of_another_shape_is_one_sentence(unpacked: Path) -> None:
    np.save(unpacked / "test_input.npy", np.zeros((64, 64), np.float32))
    report = check(unpacked, core=False, versions=())
    assert not report.accepted
    assert "the test input has 2 dimensions, the description 4" in str(report)


def test_all_that_is_missing_is_asked_for_at_once(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.bioimageio import write_package

    with pytest.raises(InputError) as caught:
        write_package(
            tiny, tmp_path / "p.zip", metadata={"authors": [{"name": "A", "orcid": "0000-0002-1825-0098"}]}
        )
    for key in ("name", "description", "license", "modality", "content", "orcid"):
        assert f"{key}:" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_metadata_the_message_shows_what_to_write(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.bioimageio import write_package

    with pytest.raises(InputError, match=r"model\.toml.*care-bridge export --example"):
        write_package(tiny, tmp_path / "p.zip")


# --- the way back


def test_an_imported_package_is_the_model_that_was_exported(
    package: Path, tiny: Path, tmp_path: Path
) -> None:
    from care_bridge.export.import_package import import_package
    from care_bridge.training.folder import load_model

    folder = import_package(package, tmp_path / "again")
    ours, again = load_model(tiny), load_model(folder)
    assert again.config == ours.config
    for one, other in zip(ours.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_importing_refuses_what_is_no_package_and_folders_in_use(package: Path, tmp_path: Path) -> None:
    from care_bridge.export.import_package import import_package

    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        import_package(package, used)
    with pytest.raises(InputError, match=r"rdf\.yaml"):
        import_package(used, tmp_path / "new")
    with pytest.raises(InputError, match="no package"):
        import_package(tmp_path / "missing.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_importing_refuses_a_package_without_keras_weights(unpacked: Path, tmp_path: Path) -> None:
    from care_bridge.export.import_package import import_package

    changed(unpacked, lambda rdf: rdf["weights"].pop("keras_hdf5"))
    with pytest.raises(InputError, match="keras_hdf5"):
        import_package(unpacked, tmp_path / "new")
    shutil.rmtree(unpacked)


def test_a_description_of_format_0_4_is_followed_too(shared: Path) -> None:
    folder, recorded = cases(shared)
    case = next(case for case in recorded if case["id"] == "c01-2d-128")
    with zipfile.ZipFile(folder / case["package"]) as archive:
        rdf = yaml.safe_load(archive.read("rdf.yaml"))
    kwargs = {"mode": "per_sample", "axes": "yx", "min_percentile": 3.0, "max_percentile": 99.8}
    rdf |= {
        "format_version": "0.4.10",
        "inputs": [
            {
                "name": "input",
                "axes": "byxc",
                "data_type": "float32",
                "shape": {"min": [1, 36, 36, 1], "step": [0, 4, 4, 0]},
                "preprocessing": [{"name": "scale_range", "kwargs": kwargs}],
            }
        ],
        "outputs": [
            {
                "name": "output",
                "axes": "byxc",
                "data_type": "float32",
                "shape": {"reference_tensor": "input", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "halo": [0, 16, 16, 0],
            }
        ],
    }
    image = np.load(folder / case["input"])
    result = jdll.predict(jdll.read(rdf), lambda tensor: tensor, image)
    tensor = jdll.process(image, "byxc", rdf["inputs"][0]["preprocessing"])
    np.testing.assert_array_equal(result, tensor)


def _with_weights(rdf: dict[str, Any], name: str, **entry: Any) -> None:
    rdf["weights"] = {name: entry, **rdf["weights"]}


def test_a_packages_own_python_is_not_run_and_the_row_says_what_would(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        packages,
        "_test",
        lambda package, rdf, weights, findings, copied: (asked.append(weights), ("passed", ""))[1],
    )
    monkeypatch.setattr("care_bridge.export.zoo_spec.validate", lambda rdf, files: 1.0)
    folder = changed(unpacked, lambda rdf: _with_weights(rdf, "pytorch_state_dict", source="README.md"))
    rdf = package_files.read(folder / "rdf.yaml", Findings())
    assert rdf is not None
    rows = {}
    for trust in (False, True):
        findings = Findings()
        packages._core(package_files.Unpacked(folder, folder / "rdf.yaml"), rdf, findings, trust=trust)
        rows[trust] = {rule.rule.rpartition(" ")[2]: rule for rule in findings.rules}["pytorch_state_dict"]
    assert (rows[False].result, rows[False].decisive) == ("not run", False)
    assert "check --trust" in rows[False].remedy
    assert rows[True].result == "passed"
    assert "was run, because --trust was given" in rows[True].run
    assert asked.count("pytorch_state_dict") == 1
    assert "keras_hdf5" in asked


def test_weights_with_code_are_not_handed_to_bioimageio_core(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    def asked(package: Any, rdf: Any, weights: str, findings: Any, *, copied: bool) -> tuple[str, str]:
        assert weights != "keras_hdf5"
        return "passed", ""

    monkeypatch.setattr(packages, "_test", asked)
    monkeypatch.setattr("care_bridge.export.zoo_spec.validate", lambda rdf, files: 1.0)
    findings = Findings()
    rdf = package_files.read(unpacked / "rdf.yaml", findings)
    assert rdf is not None
    with h5py.File(unpacked / rdf["weights"]["keras_hdf5"]["source"], "r+") as file:
        file.attrs["model_config"] = '{"class_name": "Lambda", "config": {"name": "l"}}'
    packages._core(package_files.Unpacked(unpacked, unpacked / "rdf.yaml"), rdf, findings, trust=False)
    row = next(rule for rule in findings.rules if rule.rule.endswith("keras_hdf5"))
    assert row.result == "failed"
    assert "is a Lambda, whose code is not run" in row.run
