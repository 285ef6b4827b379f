"""Child processes end with their parent, however it ends (care_bridge/pools.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from care_bridge.errors import WorkerError
from care_bridge.images import Image, write_image
from care_bridge.pools import pool

PATIENCE_S = 5.0
"""In which no process may be left."""

SCRIPT = """
import os, sys, time
from pathlib import Path
from care_bridge.files import atomic_file
from care_bridge.pools import pool

def write(folder, number):
    with atomic_file(Path(folder) / f"{number}.txt") as part:
        part.write_text("half")
        (Path(folder) / f"begun-{number}").touch()
        time.sleep(60)
        part.write_text("whole")

if __name__ == "__main__":
    with pool(2) as children:
        futures = [children.submit(write, sys.argv[1], number) for number in range(3)]
        if "fork" in sys.argv and not os.fork():
            time.sleep(60)  # it holds the other end of the children's pipes
        [future.result() for future in futures]
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_for(there, process: subprocess.Popen[bytes], patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not there():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_of(children: list[psutil.Process]) -> list[psutil.Process]:
    """Which still run at the end of our patience; one that nobody waited for runs no more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        left = [child for child in children if child.is_running()]
        left = [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> list[psutil.Process]:
    """Send a signal to the parent alone; the children that outlive it for too long."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    process.wait(60)
    return left_of(children)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_children_end_with_their_parent_and_leave_no_half_file(
    number: signal.Signals, tmp_path: Path
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    out.mkdir()
    process = start([sys.executable, str(script), str(out)])
    wait_for(lambda: len(list(out.glob("begun-*"))) == 2, process)
    assert end(process, number) == []
    assert sorted(path.name for path in out.iterdir()) == ["begun-0", "begun-1"]


@posix
def test_children_end_with_their_parent_though_a_fork_of_it_lives_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = start([sys.executable, str(script), str(tmp_path), "fork"])
    try:
        wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2, process)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        process.kill()
        process.wait(60)
        assert left_of(workers) == []
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@posix
def test_a_child_that_is_killed_is_one_sentence() -> None:
    def lose_one() -> None:
        with pool(1) as children:
            pid = children.submit(os.getpid).result()
            os.kill(pid, signal.SIGKILL)
            children.submit(os.getpid).result()

    with pytest.raises(WorkerError, match="ended from outside, as the system does when memory runs out"):
        lose_one()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_simulate_with_jobs_is_ended_whole_and_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in range(16):
        pixels = random.integers(100, 3000, (128, 128)).astype(np.uint16)
        write_image(
            tmp_path / "clean" / f"{name}.tif", Image(pixels, "YX", pixel_size_um={"Y": 0.1, "X": 0.1})
        )
    command = [sys.executable, "-m", "care_bridge", "simulate", "mito", str(tmp_path / "clean"), "--quiet"]
    out = tmp_path / "out"
    process = start([*command, "--out", str(out), "--jobs", "2"])
    wait_for(lambda: len(list(out.glob("target/[0-9]*.tif"))) > 3, process)
    assert end(process, number) == []
    before = sorted(out.rglob("*"))
    time.sleep(1)
    assert sorted(out.rglob("*")) == before
    again = subprocess.run(
        [*command, "--out", str(out), "--jobs", "2", "--resume"], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    expected = {path: (tmp_path / "whole" / path).read_bytes() for path in files}
    assert files == expected
    assert len(files) == sum(path.is_file() for path in (tmp_path / "whole").rglob("*"))


@posix
@pytest.mark.tf
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_sweep_with_processes_is_ended_whole_and_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for side in ("source", "target"):
        for name in range(4):
            write_image(tmp_path / side / f"{name}.tif", Image(random.random((32, 32), np.float32), "YX"))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "care_bridge",
        "sweep",
        str(tmp_path / "source"),
        str(tmp_path / "target"),
    ]
    command += ["--out", str(out), "--grid", "seed=1,2", "--processes", "2", "--patch-size", "8,8", "--quiet"]
    command += ["--patches-per-image", "8", "--set", "unet_n_first=2", "--set", "unet_n_depth=1"]
    command += [
        "--set",
        "train_steps_per_epoch=1",
        "--set",
        "train_batch_size=2",
        "--set",
        "train_epochs=40",
    ]
    process = start(command)
    wait_for(lambda: len(list(out.glob("*/training/history.csv"))) == 2, process)
    assert end(process, number) == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len((out / "sweep.csv").read_text().splitlines()) == 3
    assert not [path for path in out.rglob(".*") if path.is_file()]


TIDYING = """
import os, signal, sys, time
from pathlib import Path
from care_bridge.pools import pool

def work(folder, number):
    (Path(folder) / f"begun-{number}").touch()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        (Path(folder) / f"tidied-{number}").touch()

if __name__ == "__main__":
    with pool(1) as children:
        futures = [children.submit(work, sys.argv[1], number) for number in range(2)]
        [future.result() for future in futures]
"""


@posix
def test_a_child_told_twice_to_end_tidies_once_and_begins_nothing_more(tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(TIDYING)
    out.mkdir()
    assert start([sys.executable, str(script), str(out)]).wait(60) != 0
    assert sorted(path.name for path in out.iterdir()) == ["begun-0", "tidied-0"]
