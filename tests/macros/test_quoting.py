"""Whatever a path or a name holds, in a macro, a line or a script it stays a path; read back by the real ImageJ."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.quoting import (
    Code,
    groovy_string,
    imagej_argument,
    imagej_options,
    imagej_string,
    option_problem,
    path_text,
    printable,
)

CANARY = "care-bridge-canary.txt"
HOSTILE = f'x"; File.saveString("x", "{CANARY}"); File.saveString("{CANARY}", "x"); a="'
KEYS = ("modelfile", "modelurl", "input", "ntiles")
PIECES = [
    *"\\\"'\n\r\t\0\x01\x1b\x7f\x85\u2028\u2029\ufeff$ab/*+;(){}[]= 0&@#<>\u00e4\u00b2\U0001f600",
    *("\\u0041", "\\101", "*/", "//", "${1}", "'''", "\\n", HOSTILE),
    *(f" {key}=" for key in KEYS),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
real = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def value(imagej: Any, code: str) -> str:
    result = imagej.run_macro(f'return "" + {code};')
    assert not result.error, result
    return str(result.value)


@pytest.mark.java
@real
@example(HOSTILE)
@given(text=texts)
def test_imagej_reads_back_what_was_quoted(groovy_imagej: Any, text: str) -> None:
    assert value(groovy_imagej, imagej_string(text)) == text


@pytest.mark.java
@real
@example("'; new File('care-bridge-canary.txt').text = ''; '")
@given(text=texts)
def test_groovy_reads_back_what_was_quoted(groovy_imagej: Any, text: str) -> None:
    code = f'call("groovy.util.Eval.me", {imagej_string(groovy_string(text))})'
    assert value(groovy_imagej, code) == text


@pytest.mark.java
@real
@given(model=texts, title=texts)
def test_imagej_takes_every_option_as_it_was_meant_or_it_was_refused(
    groovy_imagej: Any, model: str, title: str
) -> None:
    try:
        options = imagej_options(
            {"modelfile": model, "modelurl": "", "input": Code(imagej_string(title))}, others={"ntiles": "7"}
        )
    except InputError:
        assert option_problem(model, KEYS)
        return
    read = {
        key: value(groovy_imagej, f'call("ij.Macro.getValue", {options} + " ", "{key}", "none")')
        for key in KEYS[:2] + KEYS[3:]
    }
    assert read == {"modelfile": model, "modelurl": "", "ntiles": "7"}


@given(text=texts)
def test_a_literal_is_one_line_and_has_no_bare_quote(text: str) -> None:
    for quoted, mark in ((imagej_string(text), '"'), (groovy_string(text), "'")):
        assert not set("\n\r") & set(quoted)
        inside = quoted[1:-1].replace("\\\\", "").replace("\\" + mark, "")
        assert mark not in inside
        assert not inside.endswith("\\")


@given(text=texts)
def test_a_path_is_taken_whole_or_refused(text: str) -> None:
    assume("\0" not in text)
    try:
        path = path_text(f"/folder/{text}.zip")
    except InputError as error:
        assert "rename" in str(error)  # noqa: PT017 - the property needs both outcomes
        return
    assert not set("\\\n\r\t\x1b") & set(path)
    assert printable(path) == path


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\rb",
        "a\tb",
        "a\x1b[2Jb",
        "a\\b",
        "a\u2028b",
        "a\udc80b",
        "a[b",
        "a]b[",
        "x modelurl=b",
        "(INPUT=b",
    ],
)
def test_what_a_macro_cannot_hold_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match="rename") as caught:
        PluginOptions().macro_line(model=path_text(f"/m/{name}.zip"), source="input.tif")
    assert "\n" not in str(caught.value)


def test_an_argument_of_a_macro_holds_words_and_closed_brackets() -> None:
    assert imagej_argument({"model": "a b.zip", "ntiles": "4"}) == "model=[a b.zip] ntiles=[4]"
    with pytest.raises(InputError, match="single bracket"):
        imagej_argument({"model": "a] output=[b"})
    with pytest.raises(InputError, match="no name of a setting"):
        imagej_argument({"model=[a] output": "b"})


@pytest.fixture
def hostile(bundles: Any, tmp_path: Path) -> Path:
    bundle = tmp_path / f"{HOSTILE}.zip"
    bundle.write_bytes(bundles.planes.read_bytes())
    return bundle


@pytest.mark.java
def test_a_bundle_whose_name_is_code_is_run_and_its_name_is_not(
    imagej: Any, hostile: Path, write_image: Any, tmp_path: Path
) -> None:
    from care_bridge.export.savedmodel import HOW_TO, write_how_to
    from care_bridge.macros import for_model

    source = write_image('cell modelurl=[y] "one".tif')
    with zipfile.ZipFile(hostile) as opened:
        write_how_to(hostile, json.loads(opened.read("meta.json")))
    made = for_model(hostile)
    lines = [
        line for line in (tmp_path / HOW_TO).read_text().splitlines() if line.startswith(("run(", "call("))
    ]
    macros = {
        "lines": f"open({imagej_string(str(source))});" + "".join(lines) + 'selectWindow("result");',
        "line": f"open({imagej_string(str(source))});" + made.forget + made.line + 'selectWindow("result");',
        "beside": f"open({imagej_string(str(source))});" + hostile.with_suffix(".ijm").read_text(),
        "macro": made.macro,
    }
    for name, macro in macros.items():
        result = imagej.run_macro(macro, f"input=[{source}]")
        assert not result.aborted, (name, result)
        assert result.plugin_runs == 1, (name, result)
        assert not result.plugin_failures, (name, result)
    # ImageJ runs in the folder where the tests were started.
    assert not [
        folder for folder in (Path(), tmp_path) if (folder / CANARY).exists() or (folder / "x").exists()
    ]


@pytest.mark.java
def test_where_a_path_cannot_be_written_the_how_to_says_so_and_there_is_no_macro(
    bundles: Any, tmp_path: Path
) -> None:
    from care_bridge.export.savedmodel import HOW_TO, write_how_to

    bundle = tmp_path / 'a\nrun("Quit");\n.zip'
    bundle.write_bytes(bundles.planes.read_bytes())
    with zipfile.ZipFile(bundle) as opened:
        write_how_to(bundle, json.loads(opened.read("meta.json")))
    text = (tmp_path / HOW_TO).read_text()
    assert "There is no macro for it: a macro cannot hold the character '\\n'" in text
    assert not [line for line in text.splitlines() if line.startswith("run(")]
    assert not list(tmp_path.glob("*.ijm"))
