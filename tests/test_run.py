"""What every command shares (care_bridge/cli/_run.py)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from care_bridge.cli import _run
from care_bridge.csbdeep.scripts.care_predict import REQUIRED
from care_bridge.endings import WRONG_USE, write_report
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.progress import silent
from care_bridge.surroundings import settle


def invoke(function):
    app = typer.Typer()
    app.command()(_run.command(function))
    return CliRunner().invoke(app, [])


@pytest.mark.parametrize("code", [_run.DONE, _run.NO, WRONG_USE, None])
def test_what_a_command_returns_is_the_exit_code(code) -> None:
    assert invoke(lambda: code).exit_code == (code or 0)


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("axes='YQ' holds Q"), "care-bridge: axes='YQ' holds Q\n", 2),
        (NotInstalledError("needs onnx: pip install onnx"), "care-bridge: needs onnx: pip install onnx\n", 2),
        (WorkerError("the worker hung"), "care-bridge: the worker hung\n", 2),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a.tif"),
            "care-bridge: no file or folder at 'a.tif'",
            2,
        ),
        (OSError(errno.ENOSPC, "No space left"), "care-bridge: No space left; free some space", 2),
        (KeyboardInterrupt(), "care-bridge: interrupted; what was finished is kept\n", 130),
    ],
)
def test_what_a_user_can_cause_is_one_line_on_stderr(error, line, code) -> None:
    def fail() -> None:
        raise error

    result = invoke(fail)
    assert result.exit_code == code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("bug"), OSError("no errno: a bug of ours"), EOFError(), RecursionError()]
)
def test_a_fault_of_ours_is_70_and_one_line_that_names_its_report(
    error, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path))

    def fail() -> None:
        raise error

    result = invoke(fail)
    assert result.exit_code == 70
    (path,) = (tmp_path / "crashes").iterdir()
    assert type(error).__name__ in result.stderr
    assert f"the report lies at {path}: " in result.stderr
    assert result.stderr.count("\n") == 1
    text = path.read_text()
    assert "test_run.py" in text
    assert "raise error" in text
    assert f"Python {sys.version.split()[0]}" in text
    assert f"numpy {np.__version__}" in text


def test_a_report_holds_neither_pixels_nor_the_environment(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("UPLOAD_TOKEN", "s3cr3t-0f-mine")
    pixels = np.arange(1000, 1144).reshape(12, 12)

    def fail() -> None:
        try:
            raise KeyError(pixels)
        except KeyError:
            raise RuntimeError(
                f"{pixels.tolist()} came, {pixels / 7} too; {os.environ['UPLOAD_TOKEN']}"
            ) from None

    assert invoke(fail).exit_code == 70
    (path,) = (tmp_path / "crashes").iterdir()
    text = path.read_text()
    assert "s3cr3t" not in text
    assert "PATH" not in text
    assert not any(str(number) in text.partition("RuntimeError")[2] for number in (1001, 1072, 1143))


@pytest.mark.parametrize("entry", ["care_bridge.cli", "care_bridge.csbdeep.scripts.care_predict"])
def test_a_fault_outside_of_any_command_is_70_too(entry: str, tmp_path) -> None:
    broken = "app" if entry.endswith("cli") else "_predict_all"
    words = [f"--{name.replace('_', '-')}=x" for name in REQUIRED] if broken != "app" else []
    code = f"import sys, {entry} as m; m.{broken} = lambda *_: 1 / 0; sys.exit(m.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "CARE_BRIDGE_CACHE": str(tmp_path)},
    )
    assert done.returncode == 70, done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(list((tmp_path / "crashes").iterdir())) == 1


def test_twenty_reports_are_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path))
    (tmp_path / "crashes").mkdir()
    for number in range(30):
        (tmp_path / "crashes" / f"crash-20200101-0000{number:02}-1.txt").touch()
    path = write_report(ValueError("bug"))
    left = sorted(file.name for file in (tmp_path / "crashes").iterdir())
    assert len(left) == 20
    assert left[-1] == path.name


def test_a_cache_that_cannot_be_written_to_does_not_hide_a_crash(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert write_report(ValueError("bug")).parent == tmp_path


COMMANDS = {
    "help": ["--help"],
    "a command's help": ["predict", "--help"],
    "version": ["--version"],
    "list": ["simulate", "--list"],
    "recipe": ["simulate", "mito", "--show"],
    "macros": ["macros", "list"],
    "text": ["doctor"],
    "json": ["doctor", "--json"],
    "wrong": ["simulate", "--no-such-option"],
    "nothing": ["macros"],
}

full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")


@full
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_output_to_a_full_device_is_one_sentence(words: list[str]) -> None:
    with open("/dev/full", "w") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "care_bridge", *words], stdout=sink, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    if words not in (COMMANDS["wrong"], COMMANDS["nothing"]):  # they say nothing on stdout
        assert done.stderr.startswith("care-bridge: No space left on device; free some space")
        assert done.stderr.count("\n") == 1


@full
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_errors_to_a_full_device_leave_the_exit_code(words: list[str]) -> None:
    command = [sys.executable, "-m", "care_bridge", *words]
    expected = subprocess.run(command, capture_output=True, text=True)
    with open("/dev/full", "w") as sink:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sink, text=True)
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of pipe")
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_output_into_a_closed_pipe_ends_in_silence(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "care_bridge", *words], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    if words in (COMMANDS["wrong"], COMMANDS["nothing"]):
        assert done.returncode == 2
    else:
        assert (done.returncode, done.stderr) == (141, "")


def test_nothing_is_drawn_in_a_pipe() -> None:
    with _run.progress_bar() as progress:
        assert progress is silent


def test_long_work_says_a_line_now_and_then_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from care_bridge import progress

    clock = iter(range(0, 6000, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    heard: list[str] = []
    show = progress.lines(heard.append)
    for step in range(1, 6):
        show(step, 100, f"training: epoch 1 of 10, loss 0.{step}")
    assert heard == [
        "training: epoch 1 of 10, loss 0.3, 3 of 100, about 48 min left",
        "training: epoch 1 of 10, loss 0.5, 5 of 100, about 48 min left",
    ]


def test_without_any_stderr_nothing_is_drawn_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Python makes of `2>&-`, and of a window without a console.
    monkeypatch.setattr(_run.sys, "stderr", None)
    with _run.progress_bar() as progress:
        assert progress is silent
    with pytest.raises(typer.Exit):
        _run.fail("unheard")


def test_a_terminal_gets_a_bar_with_an_end(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(_run.sys.stderr, "isatty", lambda: True)
    with _run.progress_bar() as progress:
        assert progress is not silent
        progress(1, 2, "reading")
        progress(2, 2, "reading")
    with _run.progress_bar(quiet=True) as progress:
        assert progress is silent


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_the_place_in_the_source(capsys):
    import warnings

    @_run.command
    def run():
        warnings.warn("the split leaks", UserWarning, stacklevel=1)
        warnings.warn("old name", DeprecationWarning, stacklevel=1)

    with pytest.raises(typer.Exit):
        run()
    assert capsys.readouterr().err == "care-bridge: warning: the split leaks\n"


HANDED_ON = {
    "KERAS_BACKEND": "torch",
    "MPLBACKEND": "module://matplotlib_inline_that_is_not_here.backend_inline",
    "TF_USE_LEGACY_KERAS": "1",
    "PYTHONWARNINGS": "error",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "TF_CPP_MAX_VLOG_LEVEL": "2",
}
"""What a notebook or a shell may leave in the environment of a command."""


@pytest.mark.parametrize("name", HANDED_ON)
def test_a_command_starts_with_anything_that_a_notebook_hands_on(name: str) -> None:
    command = [sys.executable, "-m", "care_bridge", "predict", "--help"]
    environment = {**os.environ, name: HANDED_ON[name]}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_python_dash_m_is_the_command_line() -> None:
    command = [sys.executable, "-m", "care_bridge", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("care-bridge ")


def test_worker_processes_start_with_what_a_notebook_hands_on(monkeypatch) -> None:
    for name, value in HANDED_ON.items():
        monkeypatch.setenv(name, value)
    environment = dict(os.environ)
    settle(environment)
    command = [sys.executable, "-c", "import matplotlib.pyplot, warnings; warnings.warn('told')"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.tf
def test_commands_run_with_all_that_a_notebook_hands_on_and_say_only_their_own(tmp_path) -> None:
    patches = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    np.savez(tmp_path / "patches.npz", X=patches, Y=patches + 1, axes="SCYX")
    start = [sys.executable, "-c", "from care_bridge.cli import main; main()"]
    small = [
        "--validation",
        "0.5",
        "--epochs",
        "1",
        "--steps",
        "1",
        "--features",
        "2",
        "--depth",
        "1",
        "--kernel",
        "3",
    ]
    command = [*start, "train", str(tmp_path / "patches.npz"), "--out", str(tmp_path / "model"), *small]
    environment = {**os.environ, **HANDED_ON}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "tensorflow" not in result.stderr.lower()
    assert "cuda" not in result.stderr.lower()


def test_the_library_says_what_to_set_where_keras_runs_on_something_else() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", "import care_bridge.training"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.stderr.splitlines()[-1].endswith("set KERAS_BACKEND=tensorflow before Python starts")
