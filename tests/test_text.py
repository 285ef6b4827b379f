"""The one reader of text: what it gives, and one sentence for all that is made to harm."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from care_bridge import text
from care_bridge.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1] / "care_bridge"

BOMB = "a0: &a0 {source: x}\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 9)}]\n" for n in range(9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{<<: [{','.join([f'*a{n}'] * 9)}]}}\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (
            "YAML",
            "a: [1, 2.5, yes, ~, x]\nday: 2020-01-02\nbase: &b {k: 1}\nother: {<<: *b, l: 2}\non: 3\n4: 5\n",
        ),
        (
            "JSON",
            '{"a": [1, 2.5, true, null, "x"], "day": "2020-01-02", "base": {"k": 1}, "other": {"k": 1, "l": 2}, '
            '"on": 3, "4": 5}',
        ),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_what_is_written_comes_back_as_plain_values(kind: text.Format, written: str, mark: str) -> None:
    found = text.parse((mark + written).encode(), kind, name="it")
    assert found == {
        "a": [1, 2.5, True, None, "x"],
        "day": "2020-01-02",
        "base": {"k": 1},
        "other": {"k": 1, "l": 2},
        "on": 3,
        "4": 5,
    }


def test_toml_comes_back_with_dates_as_text() -> None:
    found = text.parse("\ufeffday = 2020-01-02\n[[people]]\nname = 'A'\n", "TOML", name="it")
    assert found == {"day": "2020-01-02", "people": [{"name": "A"}]}


@pytest.mark.parametrize(
    ("kind", "written", "said"),
    [
        ("YAML", BOMB, "unfolds to"),
        ("YAML", MERGED, "unfolds to"),
        ("YAML", "a: &a [*a]", "holds itself"),
        ("YAML", "a: &a {b: {c: *a}}", "holds itself"),
        ("YAML", "a: " + "[" * 10_000, "nested too deep"),
        ("YAML", "a: " + "[" * 100 + "]" * 100, "nested 61 levels deep"),
        ("YAML", "a: " + "9" * 10_000, "is not YAML"),
        ("YAML", "a: " + "9" * 300, "a whole number of 997 bits"),
        ("YAML", "a: !!set {b, c}", "!!set in line 1 is not read"),
        ("YAML", "a: !!binary aGk=", "!!binary in line 1 is not read"),
        ("YAML", "a: !!python/object/apply:os.system [ls]", "is not read"),
        ("YAML", "a: 1\na: 2", "'a' is there twice"),
        ("YAML", "{[1]: 2}", "is no text"),
        ("YAML", "a: [", "is not YAML"),
        ("YAML", "a: \0", "is not YAML"),
        ("YAML", 'a: "\\ud800"', "is not YAML"),
        ("JSON", "[" * 10_000, "nested too deep"),
        ("JSON", "[" * 100 + "]" * 100, "nested too deep"),
        ("JSON", '{"a": ' + "9" * 10_000 + "}", "is not JSON"),
        ("JSON", '{"a": ' + "9" * 300 + "}", "a whole number of 997 bits"),
        ("JSON", '{"a": 1, "a": 2}', "'a' is there twice"),
        ("JSON", '{"a": "\\ud800"}', "is not JSON"),
        ("JSON", "", "is not JSON"),
        ("TOML", "a = " + "[" * 10_000, "nested too deep"),
        ("TOML", "a = " + "[" * 100 + "]" * 100, "nested too deep"),
        ("TOML", "a" + ".a" * 10_000 + " = 1", "more than 500 dots"),
        ("TOML", "a" + ".a" * 400 + " = 1", "nested too deep"),
        ("TOML", "a = " + "9" * 300, "a whole number of 997 bits"),
        ("TOML", "a = 2020-13-45", "is not TOML"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else value,
)
def test_what_is_made_to_harm_is_one_sentence_in_no_time(kind: text.Format, written: str, said: str) -> None:
    clock = time.monotonic()
    with pytest.raises(InputError, match=said) as caught:
        text.parse(written, kind, name="'rdf.yaml'")
    assert time.monotonic() - clock < 5
    assert str(caught.value).startswith("'rdf.yaml' ")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_sentence() -> None:
    with pytest.raises(InputError, match="is not JSON"):
        text.parse(b"\xff\xfe\x00", "JSON", name="it")


def test_dates_that_are_none_are_their_text() -> None:
    assert text.parse("a: 2020-13-45", "YAML", name="it") == {"a": "2020-13-45"}


def test_a_long_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rdf.yaml"
    path.write_bytes(b"# " + bytes(text.MOST_YAML_BYTES))
    with pytest.raises(InputError, match=r"has 524,290 bytes of YAML, and at most 524,288 are read"):
        text.read(path, "YAML")


def test_text_of_others_is_read_here_only() -> None:
    """`json.loads` of what a worker or we ourselves wrote stays; YAML and TOML have no other reader."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if names & {"yaml", "tomllib"}:
                found.add(file.relative_to(PACKAGE).as_posix())
    # The others write YAML; zoo_spec reads back what bioimageio.spec has just saved.
    assert found == {"text.py", "simulate/recipe.py", "export/zoo_spec.py", "checking/packages.py"}
