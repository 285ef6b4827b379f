"""`care-bridge train` ended by Ctrl-C, or by a queue that ends it: one sentence, whole files, and --resume goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from care_bridge.training.folder import load_model

pytestmark = pytest.mark.tf

EPOCHS = 400
"""More than are trained before the signal comes."""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    random = np.random.default_rng(0)
    x, y = (random.random((24, 1, 8, 8), np.float32) for _ in range(2))
    file = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(file, X=x, Y=y, axes="SCYX")
    # A background job of a shell hands on a SIGINT that is ignored; a terminal does not.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from care_bridge.cli import main; main()"
    )
    small = ["--epochs", str(EPOCHS), "--steps", "1", "--batch-size", "2", "--depth", "1", "--features", "2"]
    small += ["--kernel", "3", "--quiet"]
    return [sys.executable, "-W", "ignore", "-c", start, "train", str(file), *small]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_training_and_resume_goes_on(
    command: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    history = out / "training" / "history.csv"
    environment = {**os.environ, "MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while process.poll() is None and not (history.is_file() and len(history.read_text().splitlines()) > 3):
        time.sleep(0.01)
    process.send_signal(number)
    said, complained = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130, complained
        assert complained.splitlines()[-1].startswith("care-bridge: interrupted")
        assert "Traceback" not in complained
        assert not list(out.rglob(".part-*"))
    else:
        assert process.returncode == -signal.SIGTERM
    assert said == ""
    load_model(out)
    reached = len(history.read_text().splitlines()) - 1
    assert 3 <= reached < EPOCHS

    # From here to the end takes one epoch more than it had.
    short = [*command, "--out", str(out), "--resume"]
    short[short.index("--epochs") + 1] = str(reached + 1)
    again = subprocess.run(short, capture_output=True, text=True, env=environment, timeout=240)
    assert again.returncode == 0, again.stderr
    assert len(history.read_text().splitlines()) - 1 == reached + 1
    assert not list(out.rglob(".part-*"))
