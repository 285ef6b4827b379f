"""What the fast network costs and how good it gets, beside csbdeep's default and a small one of csbdeep's layers.

    python benchmarks/architectures.py cost [--size 1024] [--turns 5] [--what onnx tf1 keras]
    python benchmarks/architectures.py quality CLEAN/ --test SOURCE TARGET --recipe RECIPE --cpu-seconds 180 --out DIR
    python benchmarks/architectures.py table DIR

`cost`: every network runs the same image by turns in one process, in ONNX Runtime, in TensorFlow 1.15.0 (the worker
that stands for Fiji), and in Keras with float32 and bfloat16. Printed are the fastest wall time and the ratio of that to
the default's. Wall time is what a person waits for; turns and the fastest of them keep another program's load out.

`quality`: trains each network for the same CPU seconds (steps by what a step of each costs here, so that another program's
load counts for little) on patches that are simulated while it trains, three seeds, and scores test images that it never
saw. A network and seed whose score is in DIR is not trained again, so the command can be stopped and given again. `table`
prints the means, and the range of the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS: dict[str, dict[str, Any]] = {
    "CARE, kernel 5, 32 features": {},
    "CARE, kernel 3, 32 features": {"unet_kern_size": 3},
    "CARE, kernel 3, 24 features": {"unet_kern_size": 3, "unet_n_first": 24},
    "fast, kernel 3, 32 features": {"architecture": "fast"},
}
FIRST = next(iter(NETWORKS))
EPOCHS, BATCH = 5, 16
Run = Callable[[np.ndarray], Any]


@contextmanager
def runs(settings: dict[str, Any], what: str, folder: Path) -> Iterator[tuple[Run, int]]:
    """A network of fresh weights as a function of a tensor in one runtime, and how many weights it has."""
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import load_model, save_model
    from care_bridge.training.unet import build

    config = CareConfig("YX", seed=1, **settings)
    network = build(config)
    count = network.count_params()
    save_model(folder, config, network)
    if what == "onnx":
        from care_bridge.export.onnx import write_onnx
        from care_bridge.inference.onnx import OnnxNetwork

        yield OnnxNetwork(write_onnx(folder, folder / "net.onnx")), count
    elif what == "tf1":
        from care_bridge.export.savedmodel import write_bundle
        from care_bridge.java.tf1 import Tf1Session

        bundle = write_bundle(folder, folder / "net.zip", how_to=False)
        session = Tf1Session("1.15.0")
        try:
            with session.open(bundle) as opened:
                yield opened, count
        finally:
            session.close()
    else:
        from care_bridge.inference.keras import KerasNetwork

        precision = "bfloat16" if what == "bfloat16" else "float32"
        yield KerasNetwork(load_model(folder, precision=precision).network), count


def cost(size: int, turns: int, kinds: list[str]) -> None:
    """Print the table for one size of image."""
    image = np.random.default_rng(0).random((1, size, size, 1), np.float32)
    print(f"{size} x {size}, fastest of {turns} by turns, {os.cpu_count()} cores")
    for what in kinds:
        with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
            folders = {label: Path(name) / str(number) for number, label in enumerate(NETWORKS)}
            running = {
                label: stack.enter_context(runs(settings, what, folders[label]))
                for label, settings in NETWORKS.items()
            }
            for run, _ in running.values():
                run(image)  # tracing and plans
            times: dict[str, list[float]] = {label: [] for label in running}
            for _ in range(turns):
                for label, (run, _) in running.items():
                    start = time.perf_counter()
                    run(image)
                    times[label].append(time.perf_counter() - start)
            base = times[FIRST]
            for label, (_, count) in running.items():
                rows = times[label]
                by_turn = statistics.median(a / b for a, b in zip(rows, base, strict=True))
                print(
                    f"  {what:9} {label:28} {count / 1e6:5.2f} M weights  {min(rows):6.3f} s  "
                    f"{min(rows) / min(base):5.2f} of the default (median of the turns {by_turn:.2f})"
                )


def step_cost(settings: dict[str, Any], folder: Path) -> float:
    """CPU seconds of a training step: 22 steps less 2, without what begins and ends a training."""
    from care_bridge.config import CareConfig
    from care_bridge.training.fit import train
    from care_bridge.training.presets import SHORT

    rng = np.random.default_rng(0)
    patches = (rng.random((64, 64, 64, 1), np.float32), rng.random((64, 64, 64, 1), np.float32))
    spent = []
    for steps in (2, 22):
        config = CareConfig(
            "YX",
            **{**SHORT, **settings},
            train_batch_size=BATCH,
            seed=1,
            train_epochs=1,
            train_steps_per_epoch=steps,
        )
        start = time.process_time()
        train(config, patches, patches, folder / str(steps))
        spent.append(time.process_time() - start)
    return (spent[1] - spent[0]) / 20


def quality(given: argparse.Namespace) -> None:
    """Train and score what is not scored yet; each in a process of its own, through the command line."""
    from care_bridge.training.presets import SHORT

    given.out.mkdir(parents=True, exist_ok=True)
    costs = given.out / "costs.json"
    if not costs.is_file():
        with tempfile.TemporaryDirectory() as name:
            found = {
                label: step_cost(sizes_of(label), Path(name, str(n))) for n, label in enumerate(NETWORKS)
            }
        costs.write_text(json.dumps(found))
    cost_of = json.loads(costs.read_text())
    care_bridge = [sys.executable, "-m", "care_bridge"]
    for seed in given.seeds:
        for number, label in enumerate(NETWORKS):
            place = given.out / f"{number}-{seed}"
            if (place / "score.json").is_file():
                continue
            steps = round(given.cpu_seconds / cost_of[label] / EPOCHS)
            command = [
                *care_bridge,
                "train",
                "--simulate",
                given.recipe,
                given.clean,
                "--out",
                place / "model",
            ]
            command += ["--batch-size", BATCH, "--epochs", EPOCHS, "--steps", steps, "--seed", seed]
            for key, value in {**SHORT, **sizes_of(label)}.items():
                command += ["--set", f"{key}={value}"]
            # What a stopped run left goes on; a network that never began begins.
            subprocess.run([*map(str, command), "--resume"], check=True)
            found = place / "evaluation.json"
            evaluated = [
                *care_bridge,
                "evaluate",
                place / "model",
                *given.test,
                "--out",
                place / "report.html",
            ]
            evaluated += ["--json", found, "--no-baselines", "--applications", 1]
            evaluated += ["--source-suffix", given.source_suffix] if given.source_suffix else []
            evaluated += ["--target-suffix", given.target_suffix] if given.target_suffix else []
            # Exit code 1 is a network that does not beat its input: a finding here, and no fault.
            subprocess.run([*map(str, evaluated)], check=False)
            once = json.loads(found.read_text())["summary"]["once"]
            score = {
                "network": label,
                "seed": seed,
                "cpu_seconds": given.cpu_seconds,
                "steps": EPOCHS * steps,
            }
            score |= {key: once[key]["mean"] for key in ("psnr", "ssim")}
            (place / "score.json").write_text(json.dumps(score))
            print(json.dumps(score), flush=True)


def sizes_of(label: str) -> dict[str, Any]:
    """Each size is given: what a command would choose by itself is not what is compared."""
    sizes = {"architecture": "care", "unet_n_first": 32, "unet_kern_size": 5, **NETWORKS[label]}
    return sizes | ({"unet_kern_size": 3, "unet_n_depth": 3} if sizes["architecture"] == "fast" else {})


def table(out: Path) -> None:
    """Print what the scores in a folder say, a row a network, ready for docs/training.md."""
    scores = [json.loads(path.read_text()) for path in sorted(out.glob("*/score.json"))]
    print("| network | steps | seeds | PSNR, mean (range of the seeds) | SSIM |\n|---|---|---|---|---|")
    for label in NETWORKS:
        of = [one for one in scores if one["network"] == label]
        if not of:
            continue
        psnr, ssim = ([one[key] for one in of] for key in ("psnr", "ssim"))
        print(
            f"| {label} | {of[0]['steps']} | {len(of)} | {statistics.mean(psnr):.2f} "
            f"({min(psnr):.2f} to {max(psnr):.2f}) | {statistics.mean(ssim):.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("cost")
    one.add_argument("--size", type=int, nargs="*", default=[1024])
    one.add_argument("--turns", type=int, default=5)
    one.add_argument("--what", nargs="*", default=["onnx", "tf1", "float32", "bfloat16"])
    one = parts.add_parser("quality")
    one.add_argument("clean", type=Path)
    one.add_argument("--test", type=Path, nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--cpu-seconds", type=float, default=180)
    one.add_argument("--source-suffix", help="as evaluate has it")
    one.add_argument("--target-suffix")
    one.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    one.add_argument("--recipe", required=True)
    one = parts.add_parser("table")
    one.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.part == "cost":
        for size in given.size:
            cost(size, given.turns, given.what)
    elif given.part == "quality":
        quality(given)
    else:
        table(given.out)


if __name__ == "__main__":
    main()
