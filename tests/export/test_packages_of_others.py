"""Packages as people have them: named otherwise, at addresses, damaged, too old, one folder too deep."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from care_bridge.checking import CheckReport, check
from care_bridge.checking.package_files import unpack
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError
from care_bridge.opening import open_network
from care_bridge.package import is_package

pytestmark = pytest.mark.tf

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(minimal: Any, tmp_path: Path) -> Path:
    """The smallest package, unpacked."""
    made = tmp_path / "mine"
    with zipfile.ZipFile(minimal.path) as archive:
        archive.extractall(made)
    return made


def changed(folder: Path, change: Change) -> Path:
    """The folder with `change(rdf)` applied to its description."""
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return folder


def row(report: CheckReport, rule: str) -> Any:
    """The one rule whose name begins so."""
    (found,) = [one for one in report.rules if one.rule.startswith(rule)]
    return found


def quickly(path: Path) -> CheckReport:
    """Judged without bioimageio.core and without TensorFlow 1.x."""
    return check(path, core=False, versions=())


def zipped(folder: Path, path: Path, within: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{within}{file.name}")
    return path


def test_a_package_is_judged_from_where_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    passed = check(Path("mine"), versions=())
    assert row(passed, "bioimageio.spec finds it valid").result == "passed"
    assert row(passed, "bioimageio.core reproduces the test output from keras_hdf5").result == "passed"
    monkeypatch.chdir(folder)
    for path in (Path(), Path("rdf.yaml")):
        report = quickly(path)
        assert report.facts["deepimagej"] == "runs with tensorflow_saved_model_bundle", str(report)
        assert report.verdict.startswith(("mine:", "rdf.yaml:"))


@pytest.mark.parametrize("name", ["care.bioimageio.yaml", "bioimageio.yaml", "model.yaml", "x.rdf.yaml"])
def test_a_description_of_another_name_is_judged_and_the_name_told(name: str, folder: Path) -> None:
    (folder / "rdf.yaml").rename(folder / name)
    for path in (folder, folder / name, zipped(folder, folder.parent / "p.zip")):
        assert is_package(path)
        report = quickly(path)
        rule = row(report, "The description is called rdf.yaml")
        assert (rule.result, rule.run) == ("failed", f"it is called {name}")
        assert report.facts["deepimagej"] == "runs with tensorflow_saved_model_bundle"
        assert open_network(path).runtime.name == "keras"


def test_of_two_descriptions_the_one_that_was_named_is_judged(folder: Path) -> None:
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    other = folder / "older.yaml"
    other.write_text(yaml.safe_dump({**rdf, "name": 5}))
    assert "name is 5" in row(quickly(other), "deepImageJ's engine").run
    assert (
        row(quickly(other), "There is one description").run == "older.yaml is judged; rdf.yaml lies beside it"
    )
    assert row(quickly(folder), "deepImageJ's engine").result == "passed"


def test_a_package_zipped_with_its_folder_says_where_the_description_lies(
    folder: Path, tmp_path: Path
) -> None:
    from care_bridge.export.import_package import import_package

    path = zipped(folder, tmp_path / "p.zip", "mine/")
    report = quickly(path)
    assert not report.accepted
    assert "mine/rdf.yaml lies one folder too deep" in report.verdict
    for use in (lambda: import_package(path, tmp_path / "out"), lambda: open_network(path)):
        with pytest.raises(InputError, match=r"mine/rdf\.yaml"):
            use()


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0-csbdeep", "0.3.1"])
def test_a_format_that_nobody_reads_is_told_by_its_number(version: str, tmp_path: Path) -> None:
    (tmp_path / "rdf.yaml").write_text(f"format_version: {version}\ninputs: []\n")
    assert f"format_version {version}" in check(tmp_path).verdict


def test_a_description_without_a_type_says_its_format(tmp_path: Path) -> None:
    (tmp_path / "rdf.yaml").write_text("format_version: 0.5.3\n")
    assert "it has no type; format_version 0.5.3" in check(tmp_path).verdict


ADDRESS = "https://a.invalid/file"


def _at_address(rdf: dict[str, Any], what: str) -> None:
    if what == "documentation":
        rdf["documentation"] = f"{ADDRESS}.md"
    elif what == "cover":
        rdf["covers"] = [f"{ADDRESS}.png"]
    elif what == "weights":
        rdf["weights"]["onnx"] = {"source": f"{ADDRESS}.onnx", "opset_version": 17}
    elif what == "attachment":
        rdf["attachments"] = [{"source": f"{ADDRESS}.txt"}]
    else:
        rdf["inputs"][0]["test_tensor"] = {"source": f"{ADDRESS}.npy"}


@pytest.mark.parametrize("what", ["documentation", "cover", "weights", "attachment", "test tensor"])
def test_what_lies_at_an_address_is_not_looked_at_and_nothing_is_fetched(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("somebody went online")

    monkeypatch.setattr(socket.socket, "connect", refused)
    report = check(changed(folder, lambda rdf: _at_address(rdf, what)), versions=())
    rule = row(report, ADDRESS)
    assert (rule.result, rule.decisive) == ("not run", False)
    assert "not looked at" in rule.run
    assert row(report, "bioimageio.spec finds it valid").result == "passed", str(report)
    failed = [one.rule for one in report.rules if one.result == "failed"]
    assert failed == [], str(report)
    keras = [one.result for one in report.rules if "core reproduces the test output from keras" in one.rule]
    assert keras == ([] if what == "test tensor" else ["passed"]), str(report)


def test_weights_that_all_lie_at_addresses_are_not_judged(folder: Path) -> None:
    def away(rdf: dict[str, Any]) -> None:
        for name, entry in rdf["weights"].items():
            entry["source"] = f"https://a.invalid/{name}"

    report = quickly(changed(folder, away))
    assert report.verdict.startswith("mine: not judged: deepImageJ's engine gives a result: not looked at")


def test_the_spec_s_own_rules_are_asked_also_without_test_tensors(folder: Path) -> None:
    def bare(rdf: dict[str, Any]) -> None:
        rdf["inputs"][0].pop("test_tensor")
        rdf["outputs"][0].pop("test_tensor")
        rdf["authors"] = None

    report = check(changed(folder, bare), versions=())
    assert row(report, "bioimageio.spec finds it valid").result == "failed"
    assert not report.accepted


def _not_a_picture(folder: Path) -> None:
    (folder / "cover.png").write_text("x")


def _no_numbers(folder: Path) -> None:
    np.savez(folder / "test_input.npy", a=np.zeros(3))
    (folder / "test_input.npy.npz").replace(folder / "test_input.npy")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cover": _not_a_picture,
    "sample": lambda folder: (folder / "sample_input.tif").write_bytes(b"II*\0\xff\xff\xff\xff"),
    "input cut short": lambda folder: (folder / "test_input.npy").write_bytes(b"\x93NUMPY\x01\0"),
    "input of archives": _no_numbers,
    "output": lambda folder: (folder / "test_output.npy").write_text("no"),
    "bundle": lambda folder: (folder / "tiny_care.zip").write_text("no"),
    "onnx": lambda folder: (folder / "tiny_care.onnx").write_text("no"),
    "keras": lambda folder: (folder / "tiny_care.h5").write_text("no"),
    "weights a list": lambda folder: changed(folder, lambda rdf: rdf.update(weights=[{"source": "a"}])),
    "weights a text": lambda folder: changed(folder, lambda rdf: rdf.update(weights="a.h5")),
    "a weights format a text": lambda folder: changed(
        folder, lambda rdf: rdf["weights"].update(onnx="a.onnx")
    ),
    "inputs a mapping": lambda folder: changed(folder, lambda rdf: rdf.update(inputs={"a": 1})),
    "inputs texts": lambda folder: changed(folder, lambda rdf: rdf.update(inputs=["a"], outputs=["b"])),
    "axes a number": lambda folder: changed(folder, lambda rdf: rdf["inputs"][0].update(axes=5)),
    "config a list": lambda folder: changed(folder, lambda rdf: rdf.update(config=[1])),
    "covers a mapping": lambda folder: changed(folder, lambda rdf: rdf.update(covers={"source": 5})),
    "a loop": lambda folder: changed(folder, lambda rdf: rdf["inputs"].append(rdf["inputs"])),
}


@pytest.mark.parametrize("part", DAMAGE)
def test_every_damaged_part_is_a_row_and_never_a_traceback(part: str, folder: Path) -> None:
    def unhashed(rdf: dict[str, Any]) -> None:
        for entry in [
            *rdf["weights"].values(),
            *(tensor["test_tensor"] for tensor in rdf["inputs"] + rdf["outputs"]),
        ]:
            entry.pop("sha256", None)
        rdf["inputs"][0]["sample_tensor"].pop("sha256", None)

    changed(folder, unhashed)
    DAMAGE[part](folder)
    report = quickly(folder)
    if part in ("config a list", "covers a mapping"):  # for bioimageio.spec to say, and JDLL
        assert report.rules
        return
    failed = [rule for rule in report.rules if rule.result == "failed"]
    assert failed, str(report)
    assert "Traceback" not in str(report)


def test_importing_a_package_whose_weights_are_a_list_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    from care_bridge.export.import_package import import_package

    changed(folder, lambda rdf: rdf.update(weights=[{"source": "a.h5"}]))
    with pytest.raises(InputError, match="weights"):
        import_package(folder, tmp_path / "new")
    with pytest.raises(InputError, match="weights"):
        open_network(folder)


@pytest.mark.parametrize("way", ["up", "absolute"])
def test_a_source_outside_the_package_is_not_opened(way: str, folder: Path, tmp_path: Path) -> None:
    from care_bridge.export.import_package import import_package

    away = shutil.move(folder / "tiny_care.h5", tmp_path / "tiny_care.h5")
    source = "../tiny_care.h5" if way == "up" else str(away)
    changed(folder, lambda rdf: rdf["weights"]["keras_hdf5"].update(source=source))
    report = quickly(folder)
    assert "outside of the package" in report.verdict
    assert not report.accepted
    with pytest.raises(InputError, match="outside of the package"):
        import_package(folder, tmp_path / "new")


def test_what_the_example_says_and_what_was_drawn_is_said_loudly(tiny: Path, tmp_path: Path) -> None:
    import tomllib

    from care_bridge.export.formats import export_model
    from care_bridge.export.metadata import EXAMPLE

    card = tmp_path / "model.toml"
    card.write_text(EXAMPLE)
    notes = export_model(tiny, tmp_path / "p.zip", format="bioimageio", metadata=card).notes
    assert "'Jane Doe'" in notes[0]
    assert "drawn here, not nuclei" in notes[1]
    report = quickly(tmp_path / "p.zip")
    assert row(report, "It says who made it").result == "warning"
    assert row(report, "Cover and sample show").result == "warning"
    assert tomllib.loads(EXAMPLE)["authors"][0]["name"] in row(report, "It says who made it").run


def test_an_image_that_was_given_is_nothing_to_warn_of(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.bioimageio import write_package
    from care_bridge.images import Image
    from tests.export.conftest import CARD

    image = Image(np.random.default_rng(0).integers(0, 200, (64, 64)).astype(np.uint16), "YX")
    made = write_package(tiny, tmp_path / "p.zip", metadata=CARD, test_image=image)
    assert made.warnings == ()
    rules = {rule.rule: rule.result for rule in quickly(made.path).rules}
    assert rules["It says who made it"] == "passed"
    assert "Cover and sample show what the model is for" not in rules


def test_only_entries_at_the_root_are_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._rdf.yaml", "")
        archive.writestr("notes.yaml", "a: 1")
    assert not is_package(path)
    findings = Findings()
    assert unpack(path, tmp_path / "out", findings) is None
    assert findings.rules[0].run == "there is none at the root"
