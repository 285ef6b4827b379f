"""The options of "Run your network": one text, whoever writes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from care_bridge.macros import for_model, lint
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.quoting import Code

PACKAGE = Path(__file__).resolve().parents[2] / "care_bridge"
OPTIONS = PluginOptions(percentileBottom=2, percentileTop=99.87654321, nTiles=4, blockMultiple=16, overlap=48)
TEXT = (
    "normalizeinput=true percentilebottom=2.0 percentiletop=99.87654321 clip=false ntiles=4 blockmultiple=16 "
    "overlap=48 batchsize=1 showprogressdialog=false modelfile=[/m/a.zip] modelurl=[]"
)


def test_a_macro_gets_every_option_and_every_digit() -> None:
    assert OPTIONS.macro_line(model="/m/a.zip") == f'run("Run your network", "{TEXT}");'
    line = OPTIONS.macro_line(model=r"\m\a.zip", source=Code("getTitle()"))
    assert line == f'run("Run your network", "{TEXT} input=[" + getTitle() + "]");'
    assert not {"unknown-option", "missing-parameter", "camel-case", "value"} & {
        found.rule for found in lint(line)
    }


def test_what_a_bundle_tells_is_taken_and_what_it_does_not_is_the_plugins() -> None:
    told = PluginOptions.told({"nTiles": 1, "tiles_allowed": True}, overlap=None, percentileTop=99.0)
    assert told == PluginOptions(nTiles=1, percentileTop=99.0)


def test_the_persons_fiji_is_asked_with_the_same_line(tmp_path: Path, write_bundle: Any) -> None:
    from care_bridge.java.pyimagej import FijiPlugin

    bundle = write_bundle(tmp_path / "a.zip")
    plugin = FijiPlugin(bundle, OPTIONS, session=SimpleNamespace())  # type: ignore[arg-type]
    line = OPTIONS.macro_line(model=bundle.as_posix(), source="input.tif")
    assert plugin.macro("/in/input.tif") == f'open("/in/input.tif");\n{line}\n'


def test_the_line_for_a_model_is_the_same_line(tmp_path: Path, write_bundle: Any) -> None:
    bundle = write_bundle(tmp_path / "a.zip")
    made = for_model(bundle)
    assert made.line == made.options.macro_line(model=bundle.as_posix(), source=Code("getTitle()"))


@pytest.mark.tf
def test_the_line_beside_an_exported_bundle_is_the_same_line(tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import macro_line

    meta = {"care_bridge": {"fiji": OPTIONS.values() | {"tiles_allowed": True}}}
    assert macro_line(tmp_path / "a.zip", meta) == OPTIONS.macro_line(model=str(tmp_path / "a.zip"))


def test_nobody_quotes_for_imagej_by_hand() -> None:
    """Whoever builds such a text puts a value behind `run(`, `open(`, `key=[` or an option's name in lower case."""
    found = set()
    names = "|".join(name.lower() for name in vars(OPTIONS))
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr) and re.search(
                rf"(?:{names})=|=\[\{{|\b(?:run|call|open)\(", ast.unparse(node)
            ):
                found.add(file.relative_to(PACKAGE).as_posix())
    # lint tells people what to write
    others = {"macros/lint.py"}
    assert found - others == {"plugin/options.py", "plugin/quoting.py", "macros/write.py", "java/pyimagej.py"}
