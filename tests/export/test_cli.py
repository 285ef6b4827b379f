"""The commands export, check and import: exit codes and one line for what a user can get wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from care_bridge.cli import app

pytestmark = pytest.mark.tf


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_export_writes_a_bundle_and_says_where(tiny: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", tiny, "--out", tmp_path / "fiji.zip")
    assert code == 0
    assert str(tmp_path / "fiji.zip") in out
    assert (tmp_path / "HOW-TO-RUN-IN-FIJI.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["export", "missing"], "no model at"),
        (["export", "{tiny}", "--format", "pickle"], "none of fiji, onnx, bioimageio"),
        (["export", "{tiny}", "--format", "bioimageio", "--out", "{tmp}"], "model.toml"),
        (["export", "{tiny}", "--target", "2.4"], "no table of operations"),
        (["export", "{tiny}", "--out", "{tmp}/o.txt"], "ending in .zip, or into a folder"),
        (
            ["export", "{tiny}", "--format", "onnx", "--out", "{tmp}/o.zip"],
            "ending in .onnx, or into a folder",
        ),
        (
            ["export", "{tiny}", "--format", "onnx", "--pmin", "3"],
            "--pmin is for --format fiji and bioimageio",
        ),
        (["export", "{tiny}", "--metadata", "m.toml"], "--metadata is for --format bioimageio"),
        (["export", "{tiny}", "--pmin", "99", "--pmax", "3", "--out", "{tmp}"], "must be below"),
        (["check", "missing.zip"], "no bundle or package"),
        (["import", "missing.zip", "--out", "{tmp}/new"], "no package"),
    ],
)
def test_a_mistake_is_said_on_stderr_with_exit_code_2(
    arguments: list[str], why: str, tiny: Path, tmp_path: Path
) -> None:
    code, out, err = run(*(text.format(tiny=tiny, tmp=tmp_path) for text in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("care-bridge: ")
    assert why in err
    assert list(tmp_path.iterdir()) == []


def test_export_prints_a_model_toml_to_fill() -> None:
    from care_bridge.export.metadata import check_card

    code, out, err = run("export", "--example")
    assert (code, err) == (0, "")
    assert check_card(tomllib.loads(out)).authors[0]["name"] == "Jane Doe"


def test_impossible_percentiles_of_a_package_are_refused_before_anything_is_written(
    tiny: Path, tmp_path: Path
) -> None:
    example = tmp_path / "model.toml"
    example.write_text(run("export", "--example")[1])
    arguments = ["export", tiny, "--format", "bioimageio", "--metadata", example, "--pmax", 150]
    code, _, err = run(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert "pmin=2 must be below pmax=150, both of 0-100" in err
    assert list(tmp_path.iterdir()) == [example]


def test_a_bundle_that_is_not_accepted_gives_exit_code_1_and_a_report(tmp_path: Path) -> None:
    (tmp_path / "odd.zip").write_bytes(b"no zip")
    code, out, _ = run("check", tmp_path / "odd.zip", "--report", tmp_path / "odd.html")
    assert code == 1
    assert "not accepted" in out
    assert "not accepted" in (tmp_path / "odd.html").read_text()


def test_every_tensorflow_that_fiji_may_have_has_its_table_of_operations() -> None:
    from care_bridge.defaults import TF1_VERSIONS
    from care_bridge.export.ops import op_table

    # Known from running the C libraries: AddV2 is in all, LeakyRelu from 1.13 on, Einsum in 1.15 alone.
    assert [all("AddV2" in op_table(v) for v in TF1_VERSIONS)] == [True]
    assert ["LeakyRelu" in op_table(v) for v in TF1_VERSIONS] == [False, True, True, True]
    assert ["Einsum" in op_table(v) for v in TF1_VERSIONS] == [False, False, False, True]
    assert "explicit_paddings" not in op_table("1.13.1")["Conv2D"]["attrs"]
    assert "explicit_paddings" in op_table("1.14.0")["Conv2D"]["attrs"]
