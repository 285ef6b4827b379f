"""Who may import whom, read from the imports themselves, and what `import care_bridge` really loads.

The table of who stands above whom is the drawing in docs/architecture.md: a part may import what is drawn in lower
rows, and of its own row only what stands before an arrow (`training <- inference`: inference may import training).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "care_bridge"

KERAS_LANE = {"training", "inference", "export"}
JAVA_LANE = {"java"}
# What the drawing alone would allow.
KEEPS_OFF = {
    "evaluate": KERAS_LANE | JAVA_LANE,  # what it opens, `opening` opens
    "macros": KERAS_LANE,
}
HEAVY_KERAS, HEAVY_JAVA = {"tensorflow", "keras"}, {"jpype", "imagej", "scyjava"}
HEAVY = HEAVY_KERAS | HEAVY_JAVA


def drawn(text: str) -> list[list[list[str]]]:
    """Rows of the drawing, the lowest first; each a list of chains, in which later parts may import earlier ones."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("    "))
    block = takewhile(lambda line: not line or line.startswith("    "), lines[start:])
    rows = (re.findall(r"\w+(?: <- \w+)*", line.partition("#")[0]) for line in block)
    return [[chain.split(" <- ") for chain in row] for row in rows if row][::-1]


def allowed(rows: list[list[list[str]]]) -> dict[str, set[str]]:
    """What each part of a drawing may import, beside itself."""
    found: dict[str, set[str]] = {}
    for row in rows:
        below = set(found)
        for chain in row:
            for place, part in enumerate(chain):
                assert part not in found, f"{part} is drawn twice"
                found[part] = below | set(chain[:place])
    return found


ROWS = drawn((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
# The package itself holds names and its version; what `python -m care_bridge` runs stands above everything.
MAY_IMPORT = {part: others | {"__init__"} for part, others in allowed(ROWS).items()} | {"__init__": set()}
MAY_IMPORT["__main__"] = set(MAY_IMPORT)
LOWEST_LANE = next(
    number for number, row in enumerate(ROWS) if KERAS_LANE & {part for chain in row for part in chain}
)
BELOW_THE_LANES = {part for row in ROWS[:LOWEST_LANE] for chain in row for part in chain}


def part_of(file: Path) -> str:
    """The module or folder directly under care_bridge that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever in the file.

    What the package itself shows to type checkers is left out: it is everything public, and never runs.
    """
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if file == PACKAGE / "__init__.py":
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file.name}:{node.lineno} imports relatively; write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_graph(package: Path) -> dict[str, set[str]]:
    """Which module of a package names which other one in an import, at whatever place."""
    modules = {
        ".".join((package.name, *file.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in package.rglob("*.py")
    }
    graph = {}
    for module, file in modules.items():
        graph[module] = set()
        for name in imports(file):
            while name and name not in modules:
                name = name.rpartition(".")[0]  # noqa: PLW2901  (a name in a module is an import of the module)
            graph[module] |= {name} - {module, ""}
    return graph


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in turn; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


FILES = sorted(PACKAGE.rglob("*.py"))
PARTS = {part_of(file) for file in FILES}


def test_the_drawing_names_every_part_and_nothing_else() -> None:
    missing, unknown = PARTS - set(MAY_IMPORT), set(MAY_IMPORT) - PARTS - {"__main__"}
    assert not missing, f"draw them in docs/architecture.md, in a row above all that they import: {missing}"
    assert not unknown, f"docs/architecture.md draws what does not exist: {unknown}"


def test_the_exceptions_name_parts_that_exist() -> None:
    named = KERAS_LANE | JAVA_LANE | set(KEEPS_OFF) | {part for parts in KEEPS_OFF.values() for part in parts}
    assert named <= PARTS


def test_a_drawing_is_read_from_below_and_along_its_arrows() -> None:
    text = (
        "words\n\n    d      # words <- here\n      |\n    b <- c  e\n\n    a\n\nmore words\n\n    x <- y\n"
    )
    assert allowed(drawn(text)) == {
        "a": set(),
        "b": {"a"},
        "c": {"a", "b"},
        "e": {"a"},
        "d": {"a", "b", "c", "e"},
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_downwards_only(file: Path) -> None:
    part = part_of(file)
    used = {name.split(".")[1] for name in imports(file) if name.startswith("care_bridge.")}
    upwards = (used & PARTS) - MAY_IMPORT.get(part, set()) - {part}
    assert not upwards, f"{part} is not drawn above {upwards} in docs/architecture.md"
    assert not used & KEEPS_OFF.get(part, set())


@pytest.mark.parametrize("file", sorted((PACKAGE / "comparing").glob("*.py")), ids=lambda file: file.name)
def test_a_comparison_is_handed_predictors_and_only_sides_opens_them(file: Path) -> None:
    used = {name.split(".")[1] for name in imports(file) if name.startswith("care_bridge.")}
    above = used & PARTS - BELOW_THE_LANES - {"__init__", "comparing"}
    assert not above or file.name == "sides.py"


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not circle(module_graph(PACKAGE))


@pytest.mark.parametrize(
    "back",
    [
        "from bridge.high import name\n",
        "import bridge.high\n",
        "def late():\n    from bridge import high\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bridge.high import Name\n",
        "from bridge import name\n",
    ],
    ids=["at the top", "as a module", "in a function", "for types only", "through the package"],
)
def test_a_circle_is_seen_wherever_its_imports_stand(tmp_path: Path, back: str) -> None:
    package = tmp_path / "bridge"
    package.mkdir()
    (package / "__init__.py").write_text("from bridge.low import other\n")
    (package / "high.py").write_text("from bridge import low\n")
    (package / "low.py").write_text("")
    assert not circle(module_graph(package))
    (package / "low.py").write_text(back)
    assert circle(module_graph(package))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_two_lanes_know_tensorflow_and_java(file: Path) -> None:
    part = part_of(file)
    heavy = {name.split(".")[0] for name in imports(file)} & HEAVY
    permitted: set[str] = set()
    if part not in BELOW_THE_LANES | JAVA_LANE and not KEEPS_OFF.get(part, set()) & KERAS_LANE:
        permitted |= HEAVY_KERAS
    if part in JAVA_LANE:
        permitted |= HEAVY_JAVA
    assert not heavy - permitted


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


def test_what_stands_below_the_lanes_loads_neither_tensorflow_nor_java() -> None:
    names = sorted(
        ".".join(("care_bridge", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in FILES
        if part_of(file) in BELOW_THE_LANES
    )
    assert "care_bridge.plugin.emulation" in names
    assert not loaded_by(f"import {', '.join(names)}") & HEAVY


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    loaded = loaded_by("import care_bridge.cli")
    assert not loaded & (HEAVY | {"matplotlib", "scipy", "skimage", "pandas"})


def test_every_public_name_of_the_package_is_there() -> None:
    import care_bridge

    for name in care_bridge.__all__:
        assert getattr(care_bridge, name) is not None
