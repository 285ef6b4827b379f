"""Bundles of all kinds judged as the real plugin took them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.checking import check
from care_bridge.errors import InputError

pytestmark = pytest.mark.tf


def recorded_verdict(results: dict[str, Any], folder: Path, name: str) -> bool:
    """Whether the plugin gave full and right results in every run and version, as recorded."""
    runs = [(run, answer["output"]) for version in results[name].values() for run, answer in version.items()]
    if any(output is None for _, output in runs):
        return False
    # Right is what the same network gives in a bundle with nothing odd about it.
    for run, (_, shape) in runs:
        ours, good = (folder / f"{which}.{run}.npy" for which in (name, "ok_pb_only"))
        if shape != list(np.load(good).shape) or not np.allclose(np.load(ours), np.load(good), atol=1e-5):
            return False
    return True


@pytest.mark.java
def test_unusual_zips_are_judged_as_the_plugin_did(shared: Path, tf1: Any) -> None:
    folder = shared / "fiji-recorded" / "unusual-zips"
    results = json.loads((folder / "results.json").read_text())
    judged = {name: check(folder / f"{name}.zip", sessions=tf1).accepted for name in results}
    assert judged == {name: recorded_verdict(results, folder, name) for name in results}
    assert sorted(name for name, good in judged.items() if good) == [
        "ok_meta_extra",
        "ok_other_keys",
        "ok_pb_only",
    ]


@pytest.mark.java
def test_an_exported_bundle_is_accepted_with_the_values_it_recommends(
    tiny: Path, tf1: Any, tmp_path: Path
) -> None:
    from care_bridge.export.savedmodel import write_bundle

    report = check(write_bundle(tiny, tmp_path / "bundle.zip"), sessions=tf1)
    assert report.accepted, str(report)
    assert {rule.result for rule in report.rules} == {"passed"}
    assert report.facts["overlap"] == 24
    html = report.save(tmp_path / "check.html").read_text()
    assert "accepted" in html
    assert json.loads(report.save(tmp_path / "check.json").read_text())["accepted"] is True


def remade(tmp_path: Path, bundle: Path, change: Any) -> Path:
    """The bundle with `change(SavedModel)` applied."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString(zipfile.ZipFile(bundle).read("saved_model.pb"))
    change(model.meta_graphs[0])
    path = tmp_path / "changed.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("variables/", "")
        file.writestr("saved_model.pb", model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def bundle(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from care_bridge.export.savedmodel import write_bundle

    return write_bundle(tiny, tmp_path_factory.mktemp("bundle") / "bundle.zip")


def _second_output(meta: Any) -> None:
    signature = meta.signature_def["serving_default"]
    signature.outputs["more"].CopyFrom(signature.outputs["output"])


def _rank_3(meta: Any) -> None:
    del meta.signature_def["serving_default"].inputs["input"].tensor_shape.dim[0]


def _float64(meta: Any) -> None:
    meta.signature_def["serving_default"].inputs["input"].dtype = 2


@pytest.mark.parametrize(
    ("change", "why"),
    [(_second_output, "One input and one output"), (_rank_3, "4 or 5 dimensions"), (_float64, "float32")],
)
def test_a_signature_that_the_plugin_cannot_use_is_named(
    change: Any, why: str, bundle: Path, tmp_path: Path
) -> None:
    report = check(remade(tmp_path, bundle, change), versions=())
    failed = next(rule for rule in report.rules if rule.result == "failed")
    assert why in failed.rule
    assert failed.remedy
    assert not report.accepted


def test_rows_name_the_persons_file_and_no_file_for_temporary_ones(bundle: Path, tmp_path: Path) -> None:
    def write_a_file(meta: Any) -> None:
        meta.graph_def.node.add(name="bad", op="WriteFile")

    path = remade(tmp_path, bundle, write_a_file)
    package = tmp_path / "package.zip"
    rdf = {"type": "model", "weights": {"tensorflow_saved_model_bundle": {"source": "a.zip"}}}
    rdf["weights"] |= {"keras_hdf5": {"source": "a.h5"}, "onnx": {"source": "a.onnx"}}
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("rdf.yaml", json.dumps(rdf))
        file.write(path, "a.zip")
        file.writestr("a.h5", b"x")
        file.writestr("a.onnx", b"x")
    for given, said in (
        (path, f"{path}: its graph holds WriteFile"),
        (package, f"{package}/a.zip: its graph"),
    ):
        report = check(given, versions=())
        assert said in str([rule.run for rule in report.rules])
        assert "care-bridge-" not in json.dumps(report.to_json()).replace(str(tmp_path), "")


@pytest.mark.java
def test_a_fixed_size_in_the_signature_alone_is_a_warning_since_the_plugin_runs_it(
    bundle: Path, tf1: Any, tmp_path: Path
) -> None:
    def fix(meta: Any) -> None:
        for dim in meta.signature_def["serving_default"].inputs["input"].tensor_shape.dim[1:3]:
            dim.size = 64

    report = check(remade(tmp_path, bundle, fix), sessions=tf1)
    assert report.accepted, str(report)
    assert [rule.rule for rule in report.rules if rule.result == "warning"] == ["Spatial sizes are free"]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["model/", "model/saved_model.pb"], "too deep"),
        (["readme.txt"], "there is none"),
        (
            ["variables/variables.index", "saved_model.pb"],
            "<model cache>/variables/variables.index (No such file or directory)",
        ),
    ],
)
def test_a_zip_that_unpacks_wrongly_says_how(names: list[str], why: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("/") else b"x")
    report = check(path)
    assert not report.accepted
    assert why in str(report)


def test_what_comes_before_a_zip_hides_it_from_java(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("saved_model.pb", b"x")
    path = tmp_path / "prefixed.zip"
    path.write_bytes(b"#!/bin/sh\n" + content.getvalue())
    report = check(path)
    assert not report.accepted
    assert "it reads from the first byte on" in str(report)


def test_nothing_at_the_path_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle or package"):
        check(tmp_path / "missing.zip")
