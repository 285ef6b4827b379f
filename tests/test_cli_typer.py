"""What care_bridge/cli/_typer.py needs of typer, and the old spellings of options that it keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import care_bridge.cli
from care_bridge.cli import app

LOOK = "typer moved: look at care_bridge/cli/_typer.py, and at typer/core.py for where command lines are read now"


def test_typer_still_has_what_one_line_answers_hang_on() -> None:
    assert {"make_context", "invoke"} <= set(dir(TyperGroup)), LOOK
    assert issubclass(typer.BadParameter, typer.TyperException), LOOK
    mistake: Any = typer.BadParameter("it is odd")
    assert hasattr(mistake, "ctx"), LOOK
    assert mistake.format_message() == "Invalid value: it is odd", LOOK
    with pytest.raises(typer.TyperException) as raised:
        TyperGroup(name="group", no_args_is_help=True).make_context("group", [])
    assert type(raised.value).__name__ == "NoArgsIsHelpError", LOOK


@pytest.mark.parametrize("arguments", [[], ["macros"]])
def test_without_arguments_the_help_is_the_answer(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.output.startswith("Usage: ")


# Command, old spelling, the option that it means, and words to parse it with.
OLD = [
    ("advise", "--axes", "--image-axes", "YX"),
    ("compare", "--axes", "--image-axes", "YX"),
    ("evaluate", "--axes", "--image-axes", "YX"),
    ("evaluate", "--images", "--images-out", "restored"),
    ("evaluate", "--level", "--interval", "0.5"),
    ("export", "--target", "--oldest-tensorflow", "1.13.1"),
    ("predict", "--axes", "--image-axes", "YX"),
    ("predict", "--input-axes", "--image-axes", "YX"),
    ("predict", "--norm-pmin", "--pmin", "1"),
    ("predict", "--norm-pmax", "--pmax", "99"),
    ("predict", "--output-dir", "--out", "restored"),
    ("predict", "--output-dtype", "--dtype", "uint16"),
    ("sweep", "--axes", "--network-axes", "YX"),
    ("train", "--axes", "--network-axes", "YX"),
]
NEEDED = {
    "advise": ["m", "i"],
    "compare": ["m", "b", "i"],
    "evaluate": ["m", "s", "t"],
    "export": ["m"],
    "predict": ["m", "i", "--out", "o"],
    "sweep": ["s", "t", "--out", "o", "--grid", "seed=1"],
    "train": ["s", "t", "--out", "o"],
}


def parsed(command: str, *words: str) -> dict[str, Any]:
    found = typer.main.get_command(app).commands[command]
    return dict(found.make_context(command, [*NEEDED[command], *words]).params)


@pytest.mark.parametrize(("command", "old", "new", "value"), OLD)
def test_an_old_spelling_means_what_it_meant_and_is_not_shown(
    command: str, old: str, new: str, value: str
) -> None:
    assert parsed(command, old, value) == parsed(command, new, value) != parsed(command)
    assert parsed(command, f"{old}={value}") == parsed(command, new, value)
    shown = CliRunner().invoke(app, [command, "--help"]).output
    options = re.findall(r"--[a-z][a-z-]*", shown)
    assert new in options
    assert old not in options


# Words that mean another thing in another command, and where.
ONE_MEANING = {
    "--level": {"compare", "doctor"},
    "--images": {"demo"},
    "--image-axes": {
        "advise",
        "advise-method",
        "calibrate",
        "compare",
        "evaluate",
        "guard",
        "predict",
        "restore",
        "train",
    },
    "--network-axes": {"sweep", "train"},
    "--interval": {"evaluate"},
    "--pmin": {"compare", "export", "predict"},
    "--axes": set(),
    "--norm-pmin": set(),
}


@pytest.mark.parametrize("option", ONE_MEANING)
def test_an_option_is_shown_only_by_the_commands_in_which_it_means_the_same(option: str) -> None:
    commands = typer.main.get_command(app).commands
    having = {name for name, command in commands.items() if any(option in one.opts for one in command.params)}
    assert having == ONE_MEANING[option]


def test_only_one_module_reaches_into_typer() -> None:
    for file in Path(care_bridge.cli.__file__).parent.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert file.name == "_typer.py" or not re.search(r"typer\.core|__mro__|import click", text), file.name
