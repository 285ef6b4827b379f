"""Every package that care_bridge imports is one that its installation asks for."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"care_bridge", "fiji_macros"}

# Python's side of Java packages, made by JPype and scyjava.
FROM_JAVA = {"java"}

# What a person may have, and nothing here asks for: its licence allows non-commercial use only.
A_PERSONS_OWN = {"bm3d"}


def canonical(requirement: str) -> str:
    """The name in a requirement, in the one spelling that the index knows (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~\[;(]", requirement, maxsplit=1)[0]).lower()


def declared() -> set[str]:
    """What users can ask for: the dependencies and the extras, without those for developers."""
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(one for name in extras if name != "dev" for one in extras[name])]
    return {canonical(requirement) for requirement in asked}


def imported(file: Path) -> set[str]:
    """First parts of the names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - OURS - FROM_JAVA - A_PERSONS_OWN


@functools.cache
def installed() -> dict[str, list[str]]:
    """Which distributions bring a module."""
    return dict(packages_distributions())


USED = sorted(set().union(*map(imported, (ROOT / "care_bridge").rglob("*.py"))))


@pytest.mark.parametrize("module", USED)
def test_what_is_imported_is_declared(module: str) -> None:
    distributions = {canonical(name) for name in installed().get(module, ())}
    if not distributions:
        pytest.skip(f"{module} is not installed, so nobody here knows which package brings it")
    assert distributions & declared(), f"declare {' or '.join(distributions)} in pyproject.toml"
