"""The worker protocol, with a worker that needs no Java."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from care_bridge.errors import InputError, WorkerError
from care_bridge.java.worker import Answer, Worker, heap_mb

HERE = Path(__file__).parent
TOY = {"PYTHONPATH": str(HERE)}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the toy worker uses signals")


def toy(**settings: object) -> Worker:
    return Worker("toy_worker", settings=settings, environment=TOY)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with toy() as worker:
        yield worker


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 700, 800)], ids=str)
def test_an_array_comes_back_as_it_should(worker: Worker, dtype: str, shape: tuple[int, ...]) -> None:
    image = np.arange(np.prod(shape), dtype="int64").reshape(shape) % 100
    image = image.astype(dtype)
    if not shape:
        image = np.array(21, dtype=dtype)
    answer = worker.call("double", arrays={"image": image}, factor=2)
    assert answer.arrays["image"].dtype == image.dtype
    np.testing.assert_array_equal(answer.arrays["image"], image * 2)
    assert answer.values["factor"] == 2
    assert type(answer.arrays["image"]) is np.ndarray


def test_a_strided_array_and_a_result_fed_back_come_through(worker: Worker) -> None:
    image = np.random.default_rng(0).random((900, 1000), dtype=np.float32)[::2, ::-1].T
    once = worker.call("double", arrays={"image": image}).arrays["image"]
    twice = worker.call("double", arrays={"image": once}).arrays["image"]
    np.testing.assert_array_equal(twice, image * 4)
    twice += 1  # a result belongs to the caller


def test_nothing_is_left_in_the_workers_folder_between_calls(worker: Worker) -> None:
    for _ in range(3):
        worker.call("double", arrays={"image": np.ones((600, 600), np.float32)})
    assert [file.name for file in worker.folder.iterdir()] == ["log.txt"]


def test_what_is_printed_goes_to_the_log_and_not_into_the_protocol(worker: Worker) -> None:
    worker.call("say", text='{"values": {}, "arrays": {}}')
    worker.call("say", text="grüße")
    assert "grüße" in worker.log()
    assert "from C" in worker.log()
    assert "from stderr" in worker.log()


def test_a_users_mistake_arrives_as_input_error_and_the_worker_lives_on(worker: Worker) -> None:
    with pytest.raises(InputError, match=r"^the image is upside down$"):
        worker.call("misbehave", how="input")
    with pytest.raises(WorkerError, match="ZeroDivisionError: nothing to divide by"):
        worker.call("misbehave", how="bug")
    assert worker.alive
    assert worker.call("double", arrays={"image": np.ones(3)}).values["mean"] == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "killed by SIGSEGV"),
        ("killed", "SIGKILL, as the system does when memory runs out"),
        ("exit", "code 7"),
    ],
)
def test_a_crash_is_one_error_with_the_last_words(how: str, words: str) -> None:
    worker = toy()
    with pytest.raises(WorkerError, match=words) as caught:
        worker.call("misbehave", how=how)
    assert f"now: {how}" in str(caught.value)
    assert not worker.alive
    assert not worker.folder.exists()
    with pytest.raises(WorkerError, match="the worker is gone: it died"):
        worker.call("double", arrays={"image": np.ones(3)})


def test_a_hanging_worker_is_ended_after_its_timeout() -> None:
    worker = toy()
    start = time.monotonic()
    with pytest.raises(
        WorkerError, match=r"no sign of life for 0\.5 s while 'misbehave'.*CARE_BRIDGE_TIMEOUT"
    ):
        worker.call("misbehave", how="hang", timeout_s=0.5)
    assert time.monotonic() - start < 3
    assert gone(worker.pid)


def test_progress_is_a_sign_of_life(worker: Worker) -> None:
    heard: list[tuple[int, int, str]] = []
    worker.call("count", pause_s=0.3, timeout_s=0.8, progress=lambda *state: heard.append(state))
    assert heard == [(1, 3, "counting"), (2, 3, "counting"), (3, 3, "counting")]


def test_what_a_worker_started_ends_with_it() -> None:
    worker = toy()
    children: list[int] = []
    with pytest.raises(WorkerError, match="no sign of life"):
        worker.call("misbehave", how="child", timeout_s=1, progress=lambda pid, _0, _1: children.append(pid))
    assert gone(worker.pid)
    assert gone(children[0])


def test_a_worker_that_does_not_start_says_why() -> None:
    with pytest.raises(InputError, match=r"^the thing is not there$"):
        toy(fails=True)
    with pytest.raises(
        WorkerError, match=r"died while 'starting': killed by SIGSEGV\nIts last words:\nabout to die"
    ):
        toy(dies=True)
    with pytest.raises(WorkerError, match="no sign of life for 1 s while 'starting'"):
        Worker("toy_worker", settings={"hangs": True}, environment=TOY, start_timeout_s=1)
    with pytest.raises(WorkerError, match="No module named 'no_such_worker'"):
        Worker("no_such_worker")


def test_no_folder_is_left_by_workers_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.suppress(InputError):
        toy(fails=True)
    with contextlib.suppress(WorkerError):
        toy(dies=True)
    with toy() as worker:
        assert worker.folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_not_a_crash() -> None:
    with toy() as worker:
        with pytest.raises(WorkerError, match=r"OSError.*File too large"):
            worker.call("misbehave", how="full disk")
        assert worker.alive


def test_a_full_disk_on_the_way_to_the_worker_is_one_sentence_and_leaves_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, *_what: object, **_how: object) -> None:
        path.write_bytes(b"half")
        raise OSError("1000000 requested and 4096 written")  # as NumPy says it, without a number

    monkeypatch.setattr(np, "save", fill)
    with pytest.raises(OSError, match="no room for an array of 1 MiB; set TMPDIR") as caught:
        worker.call("double", arrays={"image": np.ones(1 << 20, np.uint8)})
    assert caught.value.errno == errno.ENOSPC
    assert [file.name for file in worker.folder.iterdir()] == ["log.txt"]


def test_a_worker_can_ask_back(worker: Worker) -> None:
    def answer(name: str, arguments: dict[str, object], arrays: dict[str, np.ndarray]) -> Answer:
        assert (name, arguments) == ("triple", {"extra": "yes"})
        return Answer({"heard": "you"}, {"image": arrays["image"] * 3})

    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    got = worker.call("ask", arrays={"image": image}, answer=answer)
    np.testing.assert_array_equal(got.arrays["image"], image * 3)
    assert got.values == {"heard": "you"}


def test_a_failure_while_answering_reaches_the_worker_and_comes_back(worker: Worker) -> None:
    def refuse(*_what: object) -> Answer:
        raise InputError("three channels are too many")

    with pytest.raises(InputError, match="three channels are too many"):
        worker.call("ask", arrays={"image": np.ones(3, np.float32)}, answer=refuse)
    with pytest.raises(WorkerError, match="nobody here answers 'triple'"):
        worker.call("ask", arrays={"image": np.ones(3, np.float32)})


def test_a_temporary_folder_with_blanks_and_umlauts_of_300_characters_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "mit Leerzeichen" / "Übergröße µ" / ("x" * 200) / ("y" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with toy() as worker:
        image = np.ones((600, 600), np.float32)
        np.testing.assert_array_equal(
            worker.call("double", arrays={"image": image}).arrays["image"], 2 * image
        )


PARENT = """
import json, os, sys, time
sys.path.insert(0, {here!r})
from care_bridge.java.worker import Worker
worker = Worker("toy_worker", environment={{"PYTHONPATH": {here!r}}})
if {forked}:
    child = os.fork()  # holds the other end of the worker's pipe
    if not child:
        time.sleep(1000)
print(json.dumps([worker.pid, str(worker.folder), {forked} and child]), flush=True)
worker.call("misbehave", how="hang")
"""


@contextlib.contextmanager
def parent_process(*, forked: bool = False) -> Iterator[tuple[subprocess.Popen[str], int, Path, int]]:
    script = PARENT.format(here=str(HERE), forked=forked)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid, folder, child = json.loads(process.stdout.readline())
    try:
        yield process, pid, Path(folder), child
    finally:
        process.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        process.communicate()


def test_no_worker_outlives_a_kill_of_its_parent() -> None:
    with parent_process() as (process, worker, folder, _):
        process.kill()
        assert gone(worker)
        assert not folder.exists()


def test_no_worker_outlives_its_parent_where_a_fork_holds_the_pipe() -> None:
    with parent_process(forked=True) as (process, worker, folder, _):
        process.kill()
        process.wait()
        assert gone(worker)
        assert not folder.exists()


def test_ctrl_c_ends_the_worker_and_its_folder() -> None:
    with parent_process() as (process, worker, folder, _):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
        assert "KeyboardInterrupt" in error
        assert gone(worker)
        assert not folder.exists()


def test_no_worker_is_left_after_many_runs() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with toy() as worker:
        for _ in range(200):
            worker.call("double", arrays={"image": np.ones(10)})
    for _ in range(5):
        toy().close()
    forgotten = toy().pid  # never closed: the end of the object ends it
    assert gone(forgotten)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_worker_that_is_slow_to_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = toy()
    monkeypatch.setattr("care_bridge.java.worker._CLOSING_TIMEOUT_S", 0.0)
    slow.close()
    assert gone(slow.pid)


def test_a_large_stack_passes_without_a_second_copy_in_python(worker: Worker) -> None:
    mib = 1 << 20
    stack = np.ones((64, 1024, 1024), np.float32)  # 256 MiB
    script_memory = psutil.Process()
    before = script_memory.memory_info().rss
    result = worker.call("double", arrays={"image": stack}).arrays["image"]
    grown = script_memory.memory_info().rss - before
    assert result[-1, -1, -1] == 2
    assert grown < 64 * mib
    # Touching the result brings its pages in once, from the file, not a copy beside it.
    assert result.sum(dtype=np.float64) == 2 * stack.size
    assert script_memory.memory_info().rss - before < 256 * mib + 64 * mib


def test_heap_follows_the_free_memory_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8 << 30}))
    assert heap_mb(share=0.5) == 4096
    assert heap_mb(share=0.5, most_mb=1000) == 1000
    assert heap_mb(share=0.001, least_mb=256) == 256
    monkeypatch.setenv("CARE_BRIDGE_HEAP_MB", "123")
    assert heap_mb(share=0.5) == 123
    monkeypatch.setenv("CARE_BRIDGE_HEAP_MB", "lots")
    with pytest.raises(InputError, match="CARE_BRIDGE_HEAP_MB='lots' is not a number of MiB"):
        heap_mb(share=0.5)


def test_a_timeout_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_TIMEOUT", "soon")
    with pytest.raises(InputError, match="CARE_BRIDGE_TIMEOUT='soon' is not a number of seconds"):
        toy()
