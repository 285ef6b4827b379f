"""Which level is there, and that a level asked for is the one that comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from care_bridge import levels
from care_bridge.bundle import find_bundle
from care_bridge.cli import app
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.java import runtimes
from care_bridge.opening import open_predictor


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the Java side: an empty cache, no Fiji, no network."""
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("CARE_BRIDGE_OFFLINE", "1")
    monkeypatch.delenv("CARE_BRIDGE_FIJI", raising=False)
    return tmp_path


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("fiji", "no Fiji is named: set CARE_BRIDGE_FIJI"),
        ("imagej", r"run: care-bridge doctor --install all$"),
        ("tf1", r"run: care-bridge doctor --install tf1$"),
        ("onnx", r"run: care-bridge doctor --install onnx$"),
    ],
)
def test_a_level_asked_for_by_name_is_never_lowered(level: str, words: str) -> None:
    with pytest.raises(NotInstalledError, match=f"level '{level}' is not there: .*{words}"):
        levels.choose_level(level)
    with pytest.raises(NotInstalledError, match=f"level '{level}' is not there"):
        open_predictor("any.zip", level)


def test_best_is_the_strongest_that_is_there(nothing_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels.choose_level("best") == "emulation"
    there = {"onnx"}
    monkeypatch.setattr(runtimes, "missing", lambda what: [] if what in there else [what])
    assert levels.choose_level() == "onnx"  # what Apple silicon has
    there.add("tf1-1.15.0")
    assert levels.choose_level() == "tf1"
    there.add("imagej")
    assert levels.choose_level() == "imagej"
    monkeypatch.setattr(levels, "_why_no_fiji", lambda _fiji: "")
    assert levels.choose_level() == "fiji"


@pytest.mark.usefixtures("nothing_here")
def test_a_version_other_than_the_usual_names_its_own_command() -> None:
    assert levels.why_not("tf1", version="1.13.1").endswith("run: care-bridge doctor --install tf1-1.13.1")


def test_a_level_that_does_not_exist_is_refused_with_the_list() -> None:
    with pytest.raises(
        InputError, match="level='napari' is none of best, fiji, imagej, tf1, onnx, emulation"
    ):
        levels.choose_level("napari")


def test_the_bundle_of_a_model_folder_is_found(tmp_path: Path) -> None:
    assert find_bundle(tmp_path / "a.zip") == tmp_path / "a.zip"
    with pytest.raises(InputError, match=r"\(found: none\).*care-bridge export .* --format fiji --out"):
        find_bundle(tmp_path)
    (tmp_path / "fiji.zip").touch()
    assert find_bundle(tmp_path) == tmp_path / "fiji.zip"
    (tmp_path / "fiji_mean.zip").touch()  # what export writes beside a probabilistic bundle
    assert find_bundle(tmp_path) == tmp_path / "fiji.zip"
    (tmp_path / "package.zip").touch()
    with pytest.raises(InputError, match=r"found: fiji\.zip, package\.zip"):
        find_bundle(tmp_path)


def doctor(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("nothing_here")
def test_doctor_says_what_is_here_and_what_would_add_the_rest() -> None:
    code, said, _ = doctor()
    assert code == 0
    assert "NOT HERE: no Fiji is named" in said
    assert "run: care-bridge doctor --install tf1" in said
    assert "best level    emulation" in said
    assert doctor("--level", "emulation")[0] == 0
    assert doctor("--level", "tf1")[0] == 1
    code, _, error = doctor("--level", "napari")
    assert (code, error.count("\n")) == (2, 1)


def test_doctor_as_json_holds_the_same(nothing_here: Path) -> None:
    code, said, _ = doctor("--json")
    assert code == 0
    found = json.loads(said)
    assert found["best"] == "emulation"
    assert found["fiji"] is None
    assert found["tensorflow_1"] == dict.fromkeys(runtimes.TF1_VERSIONS, False)
    assert set(found["levels"]) == set(levels.LEVELS)
    assert found["cache"] == str(nothing_here / "cache")


@pytest.mark.usefixtures("nothing_here")
def test_a_fiji_without_its_plugin_is_told_by_doctor(tmp_path: Path) -> None:
    for name in ("jars", "plugins"):
        (tmp_path / "Fiji.app" / name).mkdir(parents=True)
    _, said, _ = doctor("--fiji", str(tmp_path), "--json")
    found = json.loads(said)
    assert any("the CSBDeep plugin is not in it" in problem for problem in found["fiji"]["problems"])
    assert any("it has no TensorFlow" in problem for problem in found["fiji"]["problems"])
    assert doctor("--fiji", str(tmp_path), "--level", "fiji")[0] == 1
    assert doctor("--fiji", str(tmp_path / "absent"))[0] == 0  # told among the levels


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--install"], "CARE_BRIDGE_OFFLINE forbids the network"),
        (["--install", "tf1-2.0"], "no part of the Java side is called 'tf1-2.0'"),
    ],
)
def test_an_installation_that_cannot_be_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    code, said, error = doctor(*arguments)
    assert code == 2
    assert said == ""
    assert words in error
    assert error.startswith("care-bridge: ")
    assert error.count("\n") == 1


def test_a_full_disk_is_one_line_and_exit_code_2(nothing_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = runtimes.shutil.disk_usage("/")
    monkeypatch.setattr(runtimes.shutil, "disk_usage", lambda _path: usage._replace(free=10))
    code, _, error = doctor("--install", "imagej")
    assert code == 2
    assert error.count("\n") == 1
    assert "ij-1.54p.jar needs 2 MiB and 0 MiB are free" in error


@pytest.mark.java
def test_what_doctor_says_is_there_really_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    if runtimes.missing("all"):
        pytest.skip("not all here; run: care-bridge doctor --install all")
    monkeypatch.delenv("CARE_BRIDGE_FIJI", raising=False)
    code, _, error = doctor("--try")
    assert code == 0, error
    assert "runs: tf1 (tensorflow 1.15.0, java" in error
    assert "runs: imagej (imagej 1.54p" in error
    assert "runs: imagej-onnx (imagej 1.54p" in error
    monkeypatch.setenv("CARE_BRIDGE_HEAP_MB", "999999999")
    code, _, error = doctor("--try")
    assert code == 1
    assert "DOES NOT RUN" in error


def test_looking_loads_neither_tensorflow_nor_java() -> None:
    code = "import sys; from care_bridge import levels; levels.survey(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tensorflow", "keras", "jpype", "scyjava", "imagej", "jgo"} & set(loaded)
