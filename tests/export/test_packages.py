"""BioImage.IO packages: built, judged, and made into folders again; deepImageJ's engine followed in NumPy."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from care_bridge.checking import check, jdll
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
        bundle = jdll._bucket(f"tensorflow_saved_model_bundle_v{version}")
        first = [opset for opset in range(7, 23) if jdll._bucket(f"onnx_v{opset}") < bundle]
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
        (lambda rdf: rdf["inputs"][0]["axes"][1].update(halo=4), "run", "halo on the input"),
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
    from care_bridge.export.bioimageio import identifiers

    # bioimageio.core 0.9.6 and 0.10.4, run: 'low quality' is not a valid (Python) identifier.
    assert identifiers(["low quality", "GFP (raw)", "488"]) == ["low_quality", "GFP_raw", "channel_488"]
    rule = "Channel names are identifiers"
    before = check(unpacked, core=False, versions=())
    assert [r.result for r in before.rules if r.rule == rule] == ["passed"]

    def spaced(rdf: dict[str, Any]) -> None:
        rdf["inputs"][0]["axes"][-1]["channel_names"] = ["low quality"]

    after = check(changed(unpacked, spaced), core=False, versions=())
    assert [r.result for r in after.rules if r.rule == rule] == ["warning"]


def test_what_the_spec_saves_is_widened_for_deepimagej(unpacked: Path, tmp_path: Path) -> None:
    from bioimageio import spec

    from care_bridge.export.bioimageio import offline, widen

    rdf = yaml.safe_load((unpacked / "rdf.yaml").read_text())
    with offline(unpacked / "rdf.yaml"), spec.ValidationContext(root=unpacked, file_name="rdf.yaml"):
        description = spec.load_description(unpacked / "rdf.yaml", format_version="latest")
        spec.save_bioimageio_package_as_folder(description, output_path=tmp_path / "saved")
    saved = yaml.safe_load((tmp_path / "saved" / "rdf.yaml").read_text())
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
    assert odd == ["Metadata are at least 80% complete"]
    assert report.facts["deepimagej"] == "runs with tensorflow_saved_model_bundle"
    assert report.facts["run_your_network"] == "accepted"


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

    with pytest.raises(InputError, match=r"(?s)model\.toml.*\[\[authors\]\]"):
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
