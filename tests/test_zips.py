"""The one way of opening a zip."""

from __future__ import annotations

import ast
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.plugin.unzipping import unpack

PACKAGE = Path(__file__).resolve().parents[1] / "care_bridge"

# Who writes zips or reads jars of its own.
NOT_FOR_OTHERS = {
    "zips.py",
    "export/bioimageio.py",
    "export/savedmodel.py",
    "export/keras2.py",
    "java/installation.py",
    "java/runtimes.py",
    "java/trusted.py",
    "macros/bundle.py",
    "trial.py",
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


def _bomb(path: Path, times: int = 80) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("variables.data", "w") as file,
    ):
        for _ in range(times):
            file.write(bytes(1 << 20))
    return path


def _many(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(zips.MOST_ENTRIES + 1):
            archive.writestr(f"{number}", b"")
    return path


def _named_alike(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved_model.pb", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("saved_model.pb", b"2")
    return path


def _patched(old: bytes, new: bytes):
    def make(path: Path) -> Path:
        write(path, aaaa=b"content")
        path.write_bytes(path.read_bytes().replace(old, new))
        return path

    return make


def _nameless(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a"), b"content")
        archive.infolist()[0].filename = ""
    return path


def _newer(path: Path) -> Path:
    write(path, one=b"content")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 91
    path.write_bytes(data)
    return path


def _long_directory(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(300):
            entry = zipfile.ZipInfo(f"{number}")
            entry.comment = bytes(60_000)
            archive.writestr(entry, b"")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_bomb, "unpack to"),
        (_many, "entries, and at most 10000"),
        (_named_alike, "two entries are called 'saved_model.pb'"),
        (_patched(b"aaaa", b"a\0aa"), "holds a NUL"),
        (_patched(b"aaaa", b"./.."), r"an entry is called './\.\.'"),
        (_nameless, "an entry is called ''"),
        (_newer, "version 9.1"),
        (_long_directory, "list of entries takes 18 MB"),
    ],
    ids=[
        "bomb",
        "many entries",
        "one name twice",
        "NUL in a name",
        "a folder's name",
        "no name",
        "version 9.1",
        "long list of entries",
    ],
)
def test_what_is_made_to_harm_is_one_sentence_and_is_not_unpacked(tmp_path: Path, make, said: str) -> None:
    path = make(tmp_path / "a.zip")
    for call in (
        zips.names,
        lambda file: zips.read(file, "one"),
        lambda file: zips.unpack(file, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            call(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_more_than_the_disk_holds_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", one=b"content")
    monkeypatch.setattr(zips.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3))
    with pytest.raises(InputError, match=r"takes 7 bytes, and 3 bytes are free"):
        zips.unpack(path, tmp_path / "out")


def test_the_plugins_unpacking_ends_with_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unpack to"):
        unpack(_bomb(tmp_path / "a.zip"), tmp_path)


def test_arrays_come_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", number=np.float32(3), names=np.array("SYX"), x=np.arange(6).reshape(2, 3))
    found = zips.arrays(tmp_path / "a.npz")
    assert (float(found["number"]), str(found["names"]), found["x"].tolist()) == (
        3.0,
        "SYX",
        [[0, 1, 2], [3, 4, 5]],
    )


def test_an_array_larger_than_its_file_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117) + b"\n"
    path = write(tmp_path / "a.npz", **{"x.npy": content + bytes(16)})
    with pytest.raises(InputError, match=r"'x\.npy' says that it has the shape \(1000000000, 1000\)"):
        zips.arrays(path)


def test_python_objects_are_not_read_from_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(InputError, match="holds Python objects"):
        zips.arrays(tmp_path / "a.npz")


def test_zips_of_other_people_are_opened_here_only() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import) and any(alias.name == "zipfile" for alias in node.names):
                found.add(file.relative_to(PACKAGE).as_posix())
    assert found == NOT_FOR_OTHERS


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_content_is_one_sentence_however_it_was_packed(tmp_path: Path, method: int) -> None:
    file = tmp_path / "damaged.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a", bytes(range(256)) * 40)
    content = bytearray(file.read_bytes())
    start = 31 + 9  # behind the local header and the first bytes of what is packed
    content[start : start + 12] = b"\xff" * 12
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        zips.read(file, "a")
