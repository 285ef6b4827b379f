from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from care_bridge.errors import InputError
from care_bridge.files import atomic_file, atomic_folder, sha256, writable_folder, write_text


def test_a_file_appears_when_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.tif"
    with atomic_file(target) as part:
        part.write_bytes(b"abc")
        assert not target.exists()
        assert part.suffix == ".tif"
    assert target.read_bytes() == b"abc"
    assert stat.S_IMODE(target.stat().st_mode) & stat.S_IRUSR
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "result.tif"
    target.write_bytes(b"before")

    def write() -> None:
        with atomic_file(target) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with atomic_folder(target) as part:
            (part / f"{text}.txt").write_text(text)
    assert [file.name for file in target.iterdir()] == ["two.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "one.txt").write_text("one")

    def write() -> None:
        with atomic_folder(target) as part:
            (part / "half.txt").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert [file.name for file in target.iterdir()] == ["one.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to folder"):
        writable_folder(tmp_path / "file" / "below")


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "µm\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc2\xb5m\n"
    assert sha256(tmp_path / "a.txt") == hashlib.sha256(b"\xc2\xb5m\n").hexdigest()
