"""Kill commands at random moments: what is left of them, and is the second run right?

    python benchmarks/kills.py [--kills 100] [--seed 0] [--lanes 2]

Each kill starts a command on small images, ends it by SIGKILL, SIGTERM or SIGINT after a random part of the time
that it takes, looks for processes that are left after 5 s and for files that are half there, and runs the command
again, which has to end as if nothing had been. POSIX only. Exit code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import psutil

from care_bridge.images import Image, read_image, write_image

MARK = "CARE_BRIDGE_KILLS_RUN"
LEFT_AFTER_S = 5
SMALL = ["--steps", "2", "--depth", "1", "--features", "2", "--kernel", "3", "--patch-size", "16,16"]


def commands(given: Path) -> dict[str, tuple[list[str], list[str]]]:
    """By name: the command with OUT for where it writes, and what its second run has besides."""
    source, target, model, cell = (
        given / "source",
        given / "target",
        given / "model",
        given / "source" / "0.tif",
    )
    train = ["train", source, target, "--epochs", "3", *SMALL, "--out", "OUT/model"]
    table = {
        "train": (train, ["--resume"]),
        "sweep": (
            [
                "sweep",
                source,
                target,
                "--out",
                "OUT/sweep",
                "--grid",
                "unet_n_first=2,3",
                "--processes",
                "2",
                "--set",
                "unet_n_depth=1",
                "--set",
                "train_epochs=1",
                "--set",
                "train_steps_per_epoch=2",
                "--patch-size",
                "16,16",
                "--patches-per-image",
                "4",
            ],
            [],
        ),
        "simulate": (
            ["simulate", "tubules", "--count", "6", "--jobs", "2", "--out", "OUT/pairs"],
            ["--resume"],
        ),
        "predict": (["predict", model, source, "--out", "OUT/restored"], []),
        "predict-tf1": (
            ["predict", given / "fiji.zip", cell, "--runtime", "tf1", "--out", "OUT/restored"],
            [],
        ),
        "export-fiji": (["export", model, "--format", "fiji", "--out", "OUT/fiji.zip"], []),
        "export-onnx": (["export", model, "--format", "onnx", "--out", "OUT/net.onnx"], []),
        "export-zoo": (["export", model, "--format", "bioimageio", "--out", "OUT/zoo.zip"], []),
        "check": (["check", given / "fiji.zip"], []),
        "compare": (
            ["compare", model, given / "fiji.zip", cell, "--level", "tf1", "--report", "OUT/p.html"],
            [],
        ),
        "evaluate": (["evaluate", model, given / "test", given / "truth", "--out", "OUT/report.html"], []),
        "cross-eval": (
            [
                "cross-eval",
                "--model",
                f"m={model}",
                "--data",
                f"d={given / 'test'},{given / 'truth'}",
                "--out",
                "OUT/cross",
            ],
            [],
        ),
        "macros": (["macros", "install", "OUT"], []),
    }
    return {name: ([str(word) for word in line], more) for name, (line, more) in table.items()}


def prepare(given: Path) -> None:
    random_ = np.random.default_rng(0)
    for folder, noise, seed in (("source", 30, 0), ("target", 0, 0), ("test", 30, 1), ("truth", 0, 1)):
        for index in range(4):
            clean = np.random.default_rng([seed, index]).random((64, 64)).cumsum(0) * 100
            grey = clean + noise * random_.standard_normal((64, 64)) + 200
            write_image(given / folder / f"{index}.tif", Image(grey.astype(np.uint16), "YX"))
    train = ["train", given / "source", given / "target", "--epochs", "1", *SMALL, "--out", given / "model"]
    for line in (train, ["export", given / "model", "--format", "fiji", "--out", given / "fiji.zip"]):
        subprocess.run(
            [sys.executable, "-m", "care_bridge", *map(str, line)], check=True, capture_output=True
        )
    card = subprocess.run(
        [sys.executable, "-m", "care_bridge", "export", "--example"], check=True, capture_output=True
    )
    (given / "model" / "model.toml").write_bytes(card.stdout)


def start(line: list[str], mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "care_bridge", *line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, MARK: mark},
        start_new_session=True,
    )


def left(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _whole_zip(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() is None


def _whole_h5(file: Path) -> bool:
    with h5py.File(file) as opened:
        return len(opened) > 0


WHOLE: dict[str, Callable[[Path], object]] = {
    ".tif": read_image,
    ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
    ".zip": _whole_zip,
    ".npz": _whole_zip,
    ".h5": _whole_h5,
    ".html": lambda file: file.read_text(encoding="utf-8").rstrip().endswith("</html>"),
}


def half_there(out: Path) -> list[str]:
    found = []
    for file in out.rglob("*"):
        if not file.is_file() or ".part-" in file.as_posix():
            continue
        try:
            whole = WHOLE.get(file.suffix, lambda _: True)(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            found.append(f"{file.relative_to(out)}: {error}")
            continue
        if whole is False:
            found.append(f"{file.relative_to(out)} ends early")
    return found


def once(name: str, line: list[str], more: list[str], seconds: float, seed: int) -> list[str]:
    """One kill; what was wrong, in words."""
    draw = random.Random(seed)
    mark, by = uuid.uuid4().hex, draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "jars").mkdir()
        (Path(folder) / "plugins").mkdir()
        line = [word.replace("OUT", folder, 1) if word.startswith("OUT") else word for word in line]
        running = start(line, mark)
        time.sleep(draw.uniform(0.05, 1.0) * seconds)
        running.send_signal(by)
        running.communicate()
        until = time.monotonic() + LEFT_AFTER_S
        while left(mark) and time.monotonic() < until:
            time.sleep(0.2)
        wrong = [f"process {pid} is left" for pid in left(mark)]
        wrong += half_there(Path(folder))
        again = start([*line, *more], mark)
        words = again.communicate()[1].decode(errors="replace").strip()
        # evaluate of an untrained network answers no.
        if again.returncode not in ((0, 1) if name == "evaluate" else (0,)):
            wrong.append(f"the second run ended with {again.returncode}: {words[-300:]}")
        wrong += half_there(Path(folder))
        wrong += [f"{file} was left" for file in Path(folder).rglob("*.part-*")]
    return [f"{name}, {by.name}, seed {seed}: {one}" for one in wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="kills at the same time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder)
        prepare(given)
        table = commands(given)
        seconds = {}
        for name, (line, _) in table.items():
            with tempfile.TemporaryDirectory() as out:
                (Path(out) / "jars").mkdir()
                (Path(out) / "plugins").mkdir()
                begin = time.monotonic()
                start(
                    [w.replace("OUT", out, 1) if w.startswith("OUT") else w for w in line], ""
                ).communicate()
                seconds[name] = time.monotonic() - begin
        names = list(table)
        with ThreadPoolExecutor(options.lanes) as lanes:
            runs = [
                lanes.submit(once, name, *table[name], seconds[name], options.seed + number)
                for number, name in ((number, names[number % len(names)]) for number in range(options.kills))
            ]
            wrong = [words for run in runs for words in run.result()]
    sys.stdout.write(
        "\n".join([*wrong, f"{options.kills} kills over {len(names)} commands: {len(wrong)} wrong"]) + "\n"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
