"""The macros that people open are what their source says, and short where they are read; no Java."""

from __future__ import annotations

from pathlib import Path

import pytest

from care_bridge.errors import InputError
from care_bridge.macros import generate, shipped

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
BELOW = ("// ---- Below this line: how", "// ---- The same in every")


def test_the_committed_files_are_what_the_source_gives():
    texts = generate.generated()
    assert sorted(texts) == sorted(entry.path.name for entry in shipped())
    for name, text in texts.items():
        assert (MACROS / name).read_text(encoding="ascii") == text, (
            f"{name} is not as its source; make macros"
        )


@pytest.mark.parametrize("entry", shipped(), ids=lambda entry: entry.path.name)
def test_what_it_does_stands_in_the_first_forty_lines(entry):
    lines = entry.path.read_text(encoding="ascii").splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith(BELOW)), len(lines))
    assert first <= 40
    steps = "\n".join(lines[:first])
    others = ("Forget_Remembered_Model", "Train", "Evaluate", "Check_Model")
    assert entry.name in others or "restore" in steps.partition("\n\n")[2]
    if entry.kind == "macro":
        assert "\nfunction " not in steps
        assert "setBatchMode" in steps


def test_making_them_writes_only_what_changed(tmp_path):
    assert len(generate.write(tmp_path)) == len(shipped())
    (tmp_path / "restore_image.ijm").write_text("changed")
    assert [path.name for path in generate.write(tmp_path)] == ["restore_image.ijm"]
    assert generate.write(tmp_path) == []


def test_an_installed_package_has_no_source_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "macros_folder", lambda: tmp_path)
    with pytest.raises(InputError, match="in a checkout of care_bridge only"):
        generate.generated()
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.ijm").write_text("// include: b.ijm\n")
    with pytest.raises(InputError, match=r"includes 'b\.ijm', which is not there"):
        generate.generated()
