"""Who may import whom, read from the imports themselves, and what `import care_bridge` really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "care_bridge"

# What each part may import from the package, beside itself. A part is a module or folder directly under care_bridge.
GROUND = {"__init__", "errors", "files", "axes", "progress", "defaults", "surroundings"}
FLOOR = GROUND | {"images", "normalize", "tiling", "config", "patches", "metrics", "page", "bundle", "zips"}
PREDICTOR = FLOOR | {"predictor", "network_predictor", "reach"}
KERAS_LANE = {"training", "inference", "export"}
JAVA_LANE = {"java"}
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(FLOOR - GROUND, FLOOR),
    "predictor": FLOOR,
    "reach": FLOOR | {"predictor"},
    "network_predictor": FLOOR | {"predictor", "reach"},
    "simulate": PREDICTOR,
    "plugin": PREDICTOR,
    **dict.fromkeys(KERAS_LANE, PREDICTOR | KERAS_LANE | {"simulate", "plugin"}),
    **dict.fromkeys(JAVA_LANE, PREDICTOR | JAVA_LANE | {"plugin"}),
    "macros": PREDICTOR | {"plugin", "java"},
    "evaluate": PREDICTOR | {"comparing"},
}
# Above the lanes: these bring them together.
ABOVE = {"levels", "comparing", "sweep", "checking", "demo", "zoo", "csbdeep", "cli", "__main__"}
HEAVY = {"tensorflow", "keras", "jpype", "imagej", "scyjava"}
MAY_LOAD_KERAS = KERAS_LANE | ABOVE
MAY_LOAD_JAVA = JAVA_LANE


def part_of(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file.name}:{node.lineno} imports relatively; write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_downwards_only(file: Path) -> None:
    part = part_of(file)
    used = {name.split(".")[1] for name in imports(file) if name.startswith("care_bridge.")}
    if part in ABOVE:
        allowed = {part_of(other) for other in FILES} - (
            {"cli"} if part not in ("cli", "__main__") else set()
        )
    else:
        assert part in MAY_IMPORT, f"{part} is new: say in this table what it may import"
        allowed = MAY_IMPORT[part]
    known = {part_of(other) for other in FILES}
    assert not (used & known) - allowed - {part}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_two_lanes_know_tensorflow_and_java(file: Path) -> None:
    part = part_of(file)
    heavy = {name.split(".")[0] for name in imports(file)} & HEAVY
    allowed = set()
    if part in MAY_LOAD_KERAS:
        allowed |= {"tensorflow", "keras"}
    if part in MAY_LOAD_JAVA:
        allowed |= {"jpype", "imagej", "scyjava"}
    assert not heavy - allowed


def loaded_by(statement: str) -> set[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_tensorflow_nor_java() -> None:
    assert not loaded_by("import care_bridge") & (HEAVY | {"numpy"})


def test_the_floor_loads_neither_tensorflow_nor_java() -> None:
    names = ", ".join(
        f"care_bridge.{name}"
        for name in sorted(FLOOR - {"__init__"})
        if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()
    )
    assert not loaded_by(f"import {names}") & HEAVY


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    loaded = loaded_by("import care_bridge.cli")
    assert not loaded & (HEAVY | {"matplotlib", "scipy", "skimage", "pandas"})


def test_every_public_name_of_the_package_is_there() -> None:
    import care_bridge

    for name in care_bridge.__all__:
        assert getattr(care_bridge, name) is not None
