"""What is public: `care_bridge.__all__` and docs/api.md say the same, and every name is described in full.

The page is read from its tables: what stands in backticks in a first cell is a public name, and a heading says of
which module.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import care_bridge

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "model_zoo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [name for name in care_bridge.__all__ if name != "__version__"]
OWN_ERRORS = {"InputError", "NotInstalledError", "WorkerError"}
CSBDEEP_MODULES = ("data", "io", "models", "utils", "utils.plot_utils", "utils.six", "utils.tf")
N2V_MODULES = ("models", "internals.N2V_DataGenerator", "utils.n2v_utils", "utils.evaluation_utils")
OTHERS_MODULES = tuple(
    [f"care_bridge.csbdeep.{name}" for name in CSBDEEP_MODULES]
    + [f"care_bridge.n2v.{name}" for name in N2V_MODULES]
)
NOT_OF_CSBDEEP = {
    "models": {"ProbabilisticPrediction"}
}  # csbdeep.internals.probability, which is no place to import from


# ---- reading the page, docstrings and sources


def sections_of_page() -> dict[str, dict[str, str]]:
    """Name -> line of each table of the page, by the module in backticks in the heading above it."""
    found: dict[str, dict[str, str]] = {}
    module = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            named = re.search(r"`(care_bridge[\w.]*)`", line)
            # A deeper heading is a group of the module that was named above.
            module = named.group(1) if named else module if line.startswith("###") else ""
        row = re.match(r"\| `(\w+)` \| (.+) \|$", line)
        if row and module:
            names = found.setdefault(module, {})
            assert row.group(1) not in names, f"{row.group(1)} stands twice on the page"
            names[row.group(1)] = row.group(2)
    return found


def docstring_sections(text: str) -> dict[str, str]:
    """Sections of a numpydoc docstring by their titles."""
    pieces = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}$", text, flags=re.MULTILINE)
    return {title: body.strip("\n") for title, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def described(section: str) -> list[str]:
    """Names that a section describes: what stands before " : " in lines that are not indented."""
    lines = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return [
        name.strip().lstrip("*")
        for line in lines
        for name in line.partition(" : ")[0].split(",")
        if name.strip()
    ]


def parameters_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]


def raised_in(function: Any) -> set[str]:
    """Errors of ours that a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    return {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in OWN_ERRORS
    }


def wrong_with_function(function: Any, name: str) -> list[str]:
    """What a function's docstring lacks, a sentence each."""
    text = inspect.getdoc(function) or ""
    sections = docstring_sections(text)
    wrong = [] if text else [f"{name} has no docstring"]
    given, needed = described(sections.get("Parameters", "")), parameters_of(function)
    more = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values())
    if set(needed) - set(given) or (set(given) - set(needed) and not more):
        wrong.append(f"{name} describes the parameters {given} and takes {needed}")
    returns = inspect.signature(function).return_annotation
    if returns not in {"None", None, inspect.Signature.empty} and not {"Returns", "Yields"} & set(sections):
        wrong.append(f"{name} gives {returns} and has no Returns or Yields")
    for error in raised_in(function):
        if error not in sections.get("Raises", ""):
            wrong.append(f"{name} raises {error} and does not say so under Raises")
    return wrong


def annotations_of(cls: type) -> dict[str, Any]:
    """Attributes that a class declares itself; a protocol of methods alone declares none."""
    return dict(vars(cls).get("__annotations__", {}))


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    for owner in reversed(cls.__mro__):
        if not owner.__module__.startswith("care_bridge"):
            continue
        for name, value in vars(owner).items():
            plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if not name.startswith("_") and inspect.isfunction(plain):
                yield name, plain


def fields_of(cls: type) -> list[str]:
    """Public fields of a data class or model, [] for other classes."""
    fields = getattr(cls, "__dataclass_fields__", None) or getattr(cls, "model_fields", None) or {}
    return [name for name in fields if not name.startswith("_")]


def wrong_with_class(cls: type, name: str, *, only_given: bool = False) -> list[str]:
    """What a class's docstring and those of its methods lack, a sentence each; nobody makes one that is only given."""
    text = inspect.getdoc(cls) if "__doc__" in vars(cls) else ""
    sections = docstring_sections(text or "")
    wrong = [] if text else [f"{name} has no docstring"]
    attributes = described(sections.get("Attributes", ""))
    parameters = described(sections.get("Parameters", ""))
    fields = fields_of(cls)
    if fields:
        missing = set(fields) - set(attributes) - set(parameters)
        if missing:
            wrong.append(f"{name} does not describe {sorted(missing)}")
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False) and not only_given:
        needed = parameters_of(cls.__init__)
        if sorted(parameters) != sorted(needed) and set(needed) - set(attributes):
            wrong.append(f"{name} describes the parameters {parameters} and takes {needed}")
    elif not (
        attributes
        or issubclass(cls, Exception | enum.Enum)
        or inspect.isabstract(cls)
        or (getattr(cls, "_is_protocol", False) and not annotations_of(cls))
        or cls.__base__.__module__.startswith("care_bridge")
    ):
        wrong.append(f"{name} has no Attributes")
    for method, function in public_methods(cls):
        full = f"{name}.{method}"
        if not inspect.getdoc(getattr(cls, method)):
            wrong.append(f"{full} has no docstring")
        elif "Parameters" in docstring_sections(inspect.getdoc(function) or ""):
            wrong += wrong_with_function(function, full)
    return wrong


def annotated_classes(function: Any, *, results: bool) -> set[type]:
    """Classes of ours that a function's annotations name: of its result, or of its parameters."""
    module = sys.modules[inspect.unwrap(function).__module__]
    found: set[type] = set()
    for name, annotation in inspect.unwrap(function).__annotations__.items():
        if (name == "return") is results:
            for word in set(re.findall(r"[A-Za-z_]\w*", str(annotation))):
                value = getattr(module, word, None)
                if inspect.isclass(value) and value.__module__.startswith("care_bridge"):
                    found.add(value)
    return found


PAGE_SECTIONS = sections_of_page()


def needs_keras(name: str) -> bool:
    return care_bridge._HOME[name].partition(":")[0] in care_bridge._KERAS


@functools.cache
def objects() -> dict[str, Any]:
    return {name: getattr(care_bridge, name) for name in NAMES}


def functions() -> dict[str, Any]:
    return {name: value for name, value in objects().items() if inspect.isfunction(value)}


def classes() -> dict[str, type]:
    return {name: value for name, value in objects().items() if inspect.isclass(value)}


# ---- the page


def test_the_page_and_all_name_the_same() -> None:
    page = set(PAGE_SECTIONS["care_bridge"])
    assert not set(NAMES) - page, f"docs/api.md lacks {sorted(set(NAMES) - page)}"
    assert not page - set(NAMES), f"care_bridge.__all__ lacks {sorted(page - set(NAMES))}"


def test_the_page_and_all_name_the_same_of_csbdeep_and_n2v() -> None:
    for module in OTHERS_MODULES:
        assert set(PAGE_SECTIONS[module]) == set(importlib.import_module(module).__all__), module
    assert set(PAGE_SECTIONS) == {"care_bridge", *OTHERS_MODULES}


@pytest.mark.tf
@pytest.mark.parametrize("name", CSBDEEP_MODULES)
def test_public_names_under_csbdeep_are_csbdeeps(name: str) -> None:
    pytest.importorskip("csbdeep")
    ours = importlib.import_module(f"care_bridge.csbdeep.{name}")
    theirs = importlib.import_module(f"csbdeep.{name}")
    lacking = {each for each in ours.__all__ if not hasattr(theirs, each)}
    assert lacking == NOT_OF_CSBDEEP.get(name, set())


# ---- the table in the package


@pytest.mark.tf
def test_each_public_name_has_one_home() -> None:
    homes = care_bridge._HOME
    assert set(homes) == set(NAMES)
    assert len(set(care_bridge.__all__)) == len(care_bridge.__all__)
    for name, home in homes.items():
        module, _, there = home.partition(":")
        value = objects()[name]
        assert value is getattr(importlib.import_module(f"care_bridge.{module}"), there or name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert (value.__module__ + ".").startswith(f"care_bridge.{module}."), (
                f"{name} only passes through"
            )
            assert value.__name__ == (there or name)
    things = [id(value) for value in objects().values()]
    assert len(things) == len(set(things)), "two public names are one thing"


def test_no_public_name_is_that_of_a_module() -> None:
    package = Path(care_bridge.__file__).parent
    modules = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert not modules & set(care_bridge.__all__), "importing the module would hide the name"


def test_type_checkers_see_the_names_where_they_are() -> None:
    tree = ast.parse(Path(care_bridge.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {
        name: f"care_bridge.{home}" if ":" in home else f"care_bridge.{home}:{name}"
        for name, home in care_bridge._HOME.items()
    }
    assert seen == loaded


def test_names_that_need_no_keras_load_none() -> None:
    light = [
        name for name, home in care_bridge._HOME.items() if home.partition(":")[0] not in care_bridge._KERAS
    ]
    code = (
        f"import sys, care_bridge\nfor name in {light!r}:\n    getattr(care_bridge, name)\n"
        "    assert not {'tensorflow', 'keras', 'jpype'} & set(sys.modules), name"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


# ---- docstrings


def test_the_reader_of_docstrings_sees_what_is_wrong() -> None:
    def good(first: int, *, second: int = 2) -> int:
        """Add.

        Parameters
        ----------
        first, second : int
            Numbers.

        Returns
        -------
        int
        """
        return first + second

    def bad(first: int, *, second: int = 2) -> int:
        """Add.

        Parameters
        ----------
        first : int
        """
        from care_bridge.errors import InputError

        raise InputError("no")

    assert not wrong_with_function(good, "good")
    assert wrong_with_function(bad, "bad") == [
        "bad describes the parameters ['first'] and takes ['first', 'second']",
        "bad gives int and has no Returns or Yields",
        "bad raises InputError and does not say so under Raises",
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.tf] * needs_keras(name)) for name in NAMES]
)
def test_a_public_name_is_described_in_full(name: str) -> None:
    value = getattr(care_bridge, name)
    if inspect.isfunction(value):
        assert not wrong_with_function(value, name)
    elif inspect.isclass(value):
        assert not wrong_with_class(value, name)
    else:  # help() cannot tell of a constant; its line on the page does
        assert len(PAGE_SECTIONS["care_bridge"][name].split()) > 2


@pytest.mark.parametrize("module", OTHERS_MODULES)
def test_a_name_of_csbdeep_or_n2v_is_described_in_full(module: str) -> None:
    loaded = importlib.import_module(module)
    values = {
        name: getattr(loaded, name) for name in loaded.__all__ if name != "BACKEND"
    }  # which loads Keras
    wrong = []
    for name, value in values.items():
        if not getattr(value, "__module__", "").startswith("care_bridge"):
            continue
        if inspect.isfunction(value):
            wrong += wrong_with_function(value, name)
        elif inspect.isclass(value):
            wrong += wrong_with_class(value, name)
    assert not wrong, "\n".join(wrong)


@pytest.mark.tf
def test_what_public_functions_give_is_described() -> None:
    wrong = []
    for name, function in functions().items():
        for cls in annotated_classes(function, results=True):
            wrong += wrong_with_class(cls, f"{cls.__name__}, which {name} gives,", only_given=True)
    assert not wrong, "\n".join(wrong)


@pytest.mark.tf
def test_what_public_functions_take_can_be_had() -> None:
    results = {cls for function in functions().values() for cls in annotated_classes(function, results=True)}
    made = {name: cls for name, cls in classes().items() if cls not in results and "__init__" in vars(cls)}
    takers = {**functions(), **{name: cls.__init__ for name, cls in made.items()}}
    wrong = {
        f"{name} takes a {cls.__name__}, which is not public"
        for name, function in takers.items()
        for cls in annotated_classes(function, results=False) - results - set(classes().values())
    }
    assert not wrong, "\n".join(sorted(wrong))


# ---- what documents show


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_imports_is_public(document: Path) -> None:
    imports = r"^ *((?:from|import) care_bridge[^(\n]*(?:\([^)]*\))?)"
    for line in re.findall(imports, document.read_text(encoding="utf-8"), re.MULTILINE):
        (node,) = ast.parse(line).body
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= set(PAGE_SECTIONS), line
            continue
        assert isinstance(node, ast.ImportFrom)
        public = PAGE_SECTIONS.get(str(node.module), {})
        assert {alias.name for alias in node.names} <= set(public), f"{document.name}: {line}"
