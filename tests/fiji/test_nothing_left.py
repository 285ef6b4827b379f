"""What a start that is ended leaves in a person's Fiji: nothing, whoever ends it and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from care_bridge.java.installation import FijiFolder

TOYS = Path(__file__).parent / "toy_fiji"

START = """
import sys
from care_bridge.java.worker import Worker
Worker("care_bridge.java.pyimagej_worker", settings={"fiji": sys.argv[1], "java": "", "heap_mb": 64})
"""

Started = tuple[subprocess.Popen[bytes], psutil.Process]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals; Windows ends a process in one way only"
)


@pytest.fixture
def fiji(tmp_path: Path) -> Path:
    """A folder with what a Fiji has, a script of the person's own, and no lib."""
    for name in ("jars", "plugins", "models", "scripts/Plugins"):
        (tmp_path / "Fiji.app" / name).mkdir(parents=True)
    (tmp_path / "Fiji.app" / "scripts" / "Plugins" / "mine.groovy").touch()
    return tmp_path / "Fiji.app"


@pytest.fixture
def start(fiji: Path, tmp_path: Path) -> Iterator[Callable[[], Started]]:
    """A function that starts the worker in a process of its own and waits until TensorFlow is being loaded."""
    loading, scratch = tmp_path / "loading", tmp_path / "scratch"
    loading.mkdir()
    scratch.mkdir()
    started: list[Started] = []

    def begin() -> Started:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TOYS),
            "TOY_FIJI_LOADING": str(loading),
            "TMPDIR": str(scratch),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(fiji)], env=environment, stderr=subprocess.DEVNULL
        )
        known = {worker.pid for _, worker in started}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for file in loading.iterdir():
                if int(file.name) not in known and file.read_text().endswith("True"):
                    started.append((process, psutil.Process(int(file.name))))
                    return started[-1]
            time.sleep(0.02)
        raise AssertionError("the worker did not come as far as TensorFlow")

    yield begin
    for process, worker in started:
        for one in (process, worker):
            if one.is_running() if isinstance(one, psutil.Process) else one.poll() is None:
                one.kill()
        process.wait()


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize(
    "ending", ["SIGINT", "SIGTERM", "SIGKILL", "SIGKILL of the worker", "SIGKILL of both"]
)
def test_a_start_that_is_ended_while_tensorflow_loads_leaves_the_fiji_as_it_was(
    fiji: Path, start: Callable[[], Started], ending: str
) -> None:
    before = state(fiji)
    process, worker = start()
    if ending.endswith(("worker", "both")):
        worker.kill()
    if not ending.endswith("worker"):
        process.send_signal(getattr(signal, ending.split(maxsplit=1)[0]))
    process.wait(20)
    worker.wait(20)
    assert state(fiji) == before
    assert FijiFolder(fiji)._tensorflow_problems()[0].startswith("it has no TensorFlow")


def test_of_two_starts_at_once_the_one_that_is_ended_does_not_stop_the_other(
    fiji: Path, start: Callable[[], Started]
) -> None:
    before = state(fiji)
    first, _ = start()
    first.kill()
    # It makes its own mark: the toy fails where there is one, as imagej-tensorflow does.
    _, second = start()
    assert second.is_running()
    assert state(fiji) == before


def test_a_mark_that_was_there_before_stays_and_is_told(fiji: Path, start: Callable[[], Started]) -> None:
    mark = fiji / "lib" / "linux64" / ".crashed"
    mark.parent.mkdir(parents=True)
    mark.touch()
    process, worker = start()
    process.kill()
    worker.wait(20)
    assert mark.exists()
    assert any(str(mark) in problem for problem in FijiFolder(fiji).problems())


def test_where_links_are_not_allowed_what_is_small_is_copied(
    fiji: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    mirror = FijiFolder(fiji).mirrored_in(tmp_path / "mirror")
    assert sorted(entry.name for entry in mirror.iterdir()) == ["scripts"]
    assert (mirror / "scripts" / "Plugins" / "mine.groovy").exists()
