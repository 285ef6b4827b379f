from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from care_bridge.errors import InputError
from care_bridge.files import (
    atomic_file,
    atomic_folder,
    clear_leftovers,
    make_scratch_folder,
    owned,
    sha256,
    writable_folder,
    write_text,
)


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


GONE = 2**22 + 1
"""No process has this number: it is above the most that Linux gives."""


def left(folder: Path, prefix: str, pid: int, place: str | None = None) -> Path:
    ours = owned(prefix).removesuffix(f"{os.getpid()}-")
    start = ours if place is None else f"{prefix}{place}-"
    return folder / f"{start}{pid}-abc_1234.tif"


def old(path: Path) -> None:
    os.utime(path, (time.time() - 2 * 86400,) * 2)


def test_what_a_killed_run_left_goes_when_its_folder_is_written_to(tmp_path: Path) -> None:
    half, folder = left(tmp_path, ".part-", GONE), left(tmp_path, ".part-", GONE).with_suffix(".d")
    half.write_bytes(b"half")
    folder.mkdir()
    (folder / "half.txt").write_text("half")
    write_text(tmp_path / "result.txt", "whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "result.txt"]


def test_what_another_running_process_writes_stays_however_old(tmp_path: Path) -> None:
    theirs = left(tmp_path, ".part-", os.getppid())
    theirs.write_bytes(b"half")
    old(theirs)
    assert clear_leftovers(tmp_path) == []
    assert theirs.exists()


@pytest.mark.parametrize("place", ["00000000", None])
def test_what_nobody_knows_stays_for_a_day(tmp_path: Path, place: str | None) -> None:
    # Another machine's, or that of a version that wrote no owner.
    theirs = left(tmp_path, ".part-", GONE, place) if place else tmp_path / ".part-abc_1234.tif"
    theirs.write_bytes(b"half")
    assert clear_leftovers(tmp_path) == []
    old(theirs)
    assert clear_leftovers(tmp_path) == [theirs]
    assert not theirs.exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    for name in (".part", ".partial-abc.tif", "part-abc.tif", ".hidden", "x.part-abc"):
        (tmp_path / name).write_text("")
        old(tmp_path / name)
    assert clear_leftovers(tmp_path) == []
    assert clear_leftovers(tmp_path / "missing") == []


def test_scratch_folders_of_killed_runs_go_when_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for prefix in ("care-bridge-", "care-bridge-imagej-"):
        (left(tmp_path, prefix, GONE).with_suffix("") / "inside").mkdir(parents=True)
    theirs, other = (
        left(tmp_path, "care-bridge-", os.getppid()).with_suffix(""),
        tmp_path / "care-bridge-mine",
    )
    for folder in (theirs, other):
        folder.mkdir()
        old(folder)
    made = make_scratch_folder()
    assert set(tmp_path.iterdir()) == {made, theirs, other}


def test_a_link_among_the_leftovers_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    left(tmp_path, ".part-", GONE).symlink_to(kept)
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


def test_a_folder_killed_between_its_two_renames_comes_back(tmp_path: Path) -> None:
    moved = left(tmp_path, ".old-", GONE) / "model"
    moved.mkdir(parents=True)
    (moved / "one.txt").write_text("one")
    writable_folder(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "one.txt"]


def test_a_folder_whose_successor_cannot_take_its_place_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "one.txt").write_text("one")
    real = os.replace

    def refuse(source: Path, destination: Path) -> None:
        if Path(source).name.startswith(".part-"):
            raise OSError(13, "Permission denied")
        real(source, destination)

    monkeypatch.setattr("care_bridge.files.os.replace", refuse)
    with pytest.raises(OSError, match="Permission denied"), atomic_folder(target) as part:
        (part / "two.txt").write_text("two")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "one.txt"]
