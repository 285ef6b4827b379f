"""The network for ONNX Runtime in a bundle: there, the same network, and refused where it is not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.bundle import ONNX, ONNX_META, read_bundle, read_onnx
from care_bridge.errors import InputError

pytestmark = pytest.mark.tf
pytest.importorskip("onnx")

Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def bundle(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from care_bridge.export.savedmodel import write_bundle

    return write_bundle(tiny, tmp_path_factory.mktemp("both") / "tiny.zip", how_to=False)


def changed(bundle: Path, target: Path, change: Callable[[Entries], None]) -> Path:
    """The bundle with other entries."""
    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target


def judged(path: Path) -> tuple[str, str]:
    """Result and reason of the rule about ONNX."""
    from care_bridge.checking.onnx_beside import run_onnx
    from care_bridge.checking.report import Findings

    findings = Findings()
    run_onnx(read_bundle(path), findings)
    (rule,) = findings.report(path, "bundle").rules
    return rule.result, rule.run


def test_a_bundle_holds_its_network_for_onnx_runtime_and_what_a_script_must_know(
    bundle: Path, tiny: Path
) -> None:
    from care_bridge.config import read_config
    from care_bridge.inference.onnx import OnnxNetwork
    from care_bridge.inference.savedmodel import SavedModelNetwork

    beside, config = read_onnx(bundle), read_config(tiny)
    assert beside.why_not == ""
    assert beside.about["normalisation"] == {
        "rule": "fiji",
        "pmin": config.norm_pmin,
        "pmax": config.norm_pmax,
    }
    assert beside.about["size_multiple"] == {axis: config.size_multiple[axis] for axis in "YX"}
    assert beside.about["halo"] == {axis: config.halo[axis] for axis in "YX"}
    image = np.random.default_rng(0).random((2, 24, 32, 1), np.float32)
    with SavedModelNetwork(bundle) as network:
        assert np.abs(OnnxNetwork(beside.onnx)(image) - network(image)).max() <= 1e-6
    assert judged(bundle)[0] == "passed"


def test_exported_again_it_has_the_same_bytes(bundle: Path, tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle

    assert write_bundle(tiny, tmp_path / "tiny.zip", how_to=False).read_bytes() == bundle.read_bytes()


def test_a_bundle_of_before_is_as_good_as_it_was(bundle: Path, tmp_path: Path) -> None:
    def without(entries: Entries) -> None:
        del entries[ONNX], entries[ONNX_META]

    result, said = judged(changed(bundle, tmp_path / "old.zip", without))
    assert result == "not run"
    assert said.startswith("exported earlier, without ONNX")


def test_an_onnx_of_another_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    import hashlib

    import onnx

    model = onnx.load_model_from_string(read_onnx(bundle).onnx)
    weights = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weights)
    for tensor in model.graph.initializer:
        if onnx.numpy_helper.to_array(tensor).dtype == np.float32:
            weights, array = tensor, onnx.numpy_helper.to_array(tensor)
    weights.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(0.5), weights.name))
    other = model.SerializeToString()

    def exchanged(entries: Entries) -> None:
        entries[ONNX] = other

    def and_signed(entries: Entries) -> None:
        about = json.loads(entries[ONNX_META])
        about["onnx_sha256"] = hashlib.sha256(other).hexdigest()
        entries |= {ONNX: other, ONNX_META: json.dumps(about).encode()}

    result, said = judged(changed(bundle, tmp_path / "exchanged.zip", exchanged))
    assert (result, said.split(" is not")[0]) == ("failed", f"its {ONNX}")
    result, said = judged(changed(bundle, tmp_path / "signed.zip", and_signed))
    assert result == "failed"
    assert said.startswith("largest difference")


def test_where_onnx_cannot_hold_the_network_the_zip_goes_without_and_says_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from care_bridge.cli import app
    from care_bridge.export import onnx as export_onnx

    def refuse(*_args: object, **_settings: object) -> bytes:
        raise InputError("the network cannot be written as ONNX opset 17: no Frobnicate")

    monkeypatch.setattr(export_onnx, "onnx_bytes", refuse)
    done = CliRunner().invoke(app, ["export", str(tiny), "--out", str(tmp_path / "tiny.zip")])
    assert done.exit_code == 0
    assert "without ONNX, so it needs TensorFlow 1.x in Fiji: the network cannot be written" in done.output
    beside = read_onnx(tmp_path / "tiny.zip")
    assert (beside.onnx, "no Frobnicate" in beside.why_not) == (b"", True)
    assert "no Frobnicate" in (tmp_path / "HOW-TO-RUN-IN-FIJI.txt").read_text(encoding="utf-8")
