"""The one way of opening a zip."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import pytest

from care_bridge import zips
from care_bridge.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1] / "care_bridge"

# Who writes zips or reads jars of its own, or tells damage from reading an archive of another kind.
NOT_FOR_OTHERS = {
    "zips.py",
    "export/bioimageio.py",
    "export/savedmodel.py",
    "export/keras2.py",
    "java/installation.py",
    "java/runtimes.py",
    "patches/store.py",
    "training/checkpoint.py",
}


def write(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_entries_come_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", one=b"1", two=b"2")
    assert zips.is_zip(path)
    assert zips.names(path) == ("one", "two")
    assert (zips.read(path, "two"), zips.read(path, "three")) == (b"2", None)
    assert zips.unpack(path, tmp_path / "new" / "out", only=["one"]) == tmp_path / "new" / "out"
    assert [file.name for file in (tmp_path / "new" / "out").iterdir()] == ["one"]


def test_what_is_no_zip_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", one=b"1")
    path.write_bytes(path.read_bytes()[:-20])
    for call in (
        zips.names,
        lambda file: zips.read(file, "one"),
        lambda file: zips.unpack(file, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match=r"a\.zip: not a zip file") as caught:
            call(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "place", [(14, "wrong CRC"), (8, "unknown method"), (6, "encrypted")], ids=lambda p: p[1]
)
def test_a_damaged_entry_is_one_sentence_that_names_the_file(tmp_path: Path, place: tuple[int, str]) -> None:
    path = write(tmp_path / "a.zip", one=b"content")
    data = bytearray(path.read_bytes())
    # In the local header and in the directory behind it, where the same field lies two bytes later.
    directory = data.index(b"PK\x01\x02")
    for at in (place[0], directory + place[0] + 2):
        data[at] ^= 0x01 if place[1] == "encrypted" else 0x55
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip: the zip is damaged \(.+\); take it again"):
        zips.read(path, "one")
    with pytest.raises(InputError, match="the zip is damaged"):
        zips.unpack(path, tmp_path / "out")


def test_nothing_is_unpacked_where_one_entry_points_outside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", **{"one": b"1", "../outside": b"2"})
    with pytest.raises(InputError, match=r"'\.\./outside' points outside of the zip"):
        zips.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "outside").exists()


def test_zips_of_other_people_are_opened_here_only() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import) and any(alias.name == "zipfile" for alias in node.names):
                found.add(file.relative_to(PACKAGE).as_posix())
    assert found == NOT_FOR_OTHERS
