"""The API and the command line have the same defaults: those of care_bridge.defaults, and no copies of them."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import typer

from care_bridge import defaults
from care_bridge.cli import app

PACKAGE = Path(defaults.__file__).parent
NAMES = sorted(name for name in vars(defaults) if name.isupper())

# What a command passes on under another function's name for it. A string is compared as typed.
SAME = {
    ("compare", "applications"): ("comparing.sides:compare", "applications"),
    ("compare", "level"): ("comparing.sides:compare", "level"),
    ("compare", "tensorflow"): ("comparing.sides:compare", "version"),
    ("compare", "tolerance"): ("comparing.sides:compare", "tolerance"),
    ("compare", "tolerance_repeated"): ("comparing.sides:compare", "tolerance_repeated"),
    ("demo", "epochs"): ("demo:run_demo", "epochs"),
    ("demo", "seed"): ("demo:run_demo", "seed"),
    ("doctor", "level"): ("levels:choose_level", "level"),
    ("evaluate", "applications"): ("evaluate.files:evaluate_files", "applications"),
    ("evaluate", "interval"): ("evaluate.files:evaluate_files", "interval"),
    ("export", "format"): ("export.formats:export_model", "format"),
    ("predict", "output_name"): ("inference.files:result_name", "pattern"),
    ("predict", "precision"): ("opening:open_predictor", "precision"),
    ("predict", "tensorflow"): ("opening:open_predictor", "version"),
    ("sweep", "patches_per_image"): ("sweep:Sweep", "n_patches_per_image"),
    ("sweep", "patch_size"): ("sweep:Sweep", "patch_size"),
    ("sweep", "seed"): ("sweep:Sweep", "seed"),
    ("train", "kind"): ("config:CareConfig", "kind"),
    ("train", "preset"): ("training.from_files:train_from_files", "preset"),
    ("train", "patches_per_image"): ("training.data:data_from_folders", "n_patches_per_image"),
    ("train", "precision"): ("config:CareConfig", "train_precision"),
    ("train", "seed"): ("training.data:data_from_folders", "seed"),
}


def default_of(function: str, parameter: str) -> object:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(f"care_bridge.{module}"), name)
    if hasattr(found, "model_fields"):
        return found.model_fields[parameter].default
    return inspect.signature(found).parameters[parameter].default


@pytest.mark.tf
@pytest.mark.parametrize(("command", "option"), SAME, ids=map("-".join, SAME))
def test_a_command_and_the_function_it_calls_have_the_same_default(command: str, option: str) -> None:
    (typed,) = (one for one in typer.main.get_command(app).commands[command].params if one.name == option)
    expected = default_of(*SAME[command, option])
    as_typed = ",".join(map(str, expected)) if isinstance(expected, tuple) else expected
    assert typed.default == as_typed


def importers(name: str) -> set[str]:
    """Which side takes a default from its one home."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            known = (
                node.names
                if isinstance(node, ast.ImportFrom) and node.module == "care_bridge.defaults"
                else []
            )
            if name in {alias.name for alias in known}:
                found.add("command line" if file.parent.name == "cli" else "API")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_take_a_default_from_its_one_home(name: str) -> None:
    assert importers(name) == {"API", "command line"}


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: file.stem)
def test_a_command_writes_no_default_down_itself(file: Path) -> None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and file.name != "_run.py":
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            numbers = [
                one for one in values if isinstance(one, ast.Constant) and not isinstance(one.value, str)
            ]
            assert not numbers, f"{file.name}:{node.lineno}: put it into care_bridge/defaults.py"
