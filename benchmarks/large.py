"""Restoring piece by piece: what it costs beside the bare network calls, how much memory, and whether kills lose pixels.

    python benchmarks/large.py [--features 8] [--size 64,512,512] [--tiles 2,3,3] [--kills 20] [--seed 0]

In one run: seconds of `predict_volume` (percentiles, halo reads, shards, smaller copies and all) against the network called
as often on tensors of the same shape; the peak of its memory in a process of its own; what dask costs a task that does
nothing; and kill -9 at random moments with --resume after each. Exit code 1 when a pixel is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from care_bridge.images import Image, read_image, write_image


def make(folder: Path, features: int, size: tuple[int, ...]) -> None:
    """A model and a volume."""
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.startup import load_tensorflow

    load_tensorflow()
    from care_bridge.training.unet import build

    config = CareConfig(axes="ZYX", unet_n_first=features, unet_n_depth=2, unet_kern_size=3)
    save_model(folder / "model", config, build(config))
    data = np.random.default_rng(0).gamma(2.0, 300.0, size).astype(np.uint16)
    write_image(folder / "in.ome.zarr", Image(data, "ZYX", {"Z": 0.5, "Y": 0.1, "X": 0.1}))


def child(folder: Path, tiles: dict[str, int]) -> None:
    """Time both ways in this process, and print the figures."""
    from care_bridge.images import open_volume
    from care_bridge.inference.large import predict_volume
    from care_bridge.opening import open_network_predictor
    from care_bridge.piecewise import Pieces
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles
    from care_bridge.training.startup import load_tensorflow

    load_tensorflow()
    predictor = open_network_predictor(
        folder / "model", PredictOptions(tiles=CsbdeepTiles(tiles)), runtime="keras"
    )
    pieces = Pieces(predictor, open_volume(folder / "in.ome.zarr"))
    tensor = pieces.prepare(0, pieces.ranges()).tensor
    predictor.network(tensor)  # traced once
    begun = time.perf_counter()
    for _ in range(pieces.n):
        predictor.network(tensor)
    bare = time.perf_counter() - begun
    begun = time.perf_counter()
    predict_volume(predictor, folder / "in.ome.zarr", folder / "timed.ome.zarr")
    whole = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"pieces": pieces.n, "tile": tensor.shape[1:-1], "bare": bare, "whole": whole, "peak": peak}
        )
    )


def overhead() -> float:
    """Milliseconds a task that does nothing takes of two workers."""
    from care_bridge.cluster import open_cluster

    with open_cluster("local:2") as cluster:
        for _ in cluster.each(int, range(50)):
            pass
        begun = time.perf_counter()
        for _ in cluster.each(int, range(2000)):
            pass
        return (time.perf_counter() - begun) / 2000 * 1e3


def main() -> int:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--size", default="64,512,512")
    parser.add_argument("--tiles", default="2,3,3")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    tiles = dict(zip("ZYX", map(int, given.tiles.split(",")), strict=True))
    if given.child is not None:
        child(given.child, tiles)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, given.features, tuple(map(int, given.size.split(","))))
        told = subprocess.run(
            [sys.executable, __file__, "--child", str(folder), "--tiles", given.tiles],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(told.stdout.splitlines()[-1])
        print(f"{found['pieces']} pieces of {found['tile']}")
        print(f"bare calls {found['bare']:.1f} s, piece by piece {found['whole']:.1f} s: "
              f"{found['whole'] / found['bare']:.2f} x; peak {found['peak']:.0f} MiB")  # fmt: skip
        print(f"a task of two workers that does nothing: {overhead():.2f} ms", flush=True)
        return 1 if killed(folder, given) else 0


def killed(folder: Path, given: argparse.Namespace) -> int:
    """Kill whole runs at random moments, go on after each, and count wrong pixels."""
    expected = read_image(folder / "timed.ome.zarr").data
    out, work = folder / "out.ome.zarr", folder / "out.ome.zarr.unfinished"
    command = [
        "care-bridge", "predict", str(folder / "model"), str(folder / "in.ome.zarr"), "--out", str(out), "--n-tiles",
        given.tiles, "--quiet",
    ]  # fmt: skip
    command[0] = str(Path(sys.executable).with_name("care-bridge"))
    drawn, kills, wrong, runs, last = random.Random(given.seed), 0, 0, 0, 0
    while kills < given.kills:
        process = subprocess.Popen([*command, *(["--resume"] if work.exists() else [])])
        before = time.monotonic()
        while process.poll() is None and not (work / "done.txt").exists() and time.monotonic() - before < 120:
            time.sleep(0.02)
        try:
            process.wait(drawn.uniform(0, 8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if work.exists():
            last = max(last, len((work / "done.txt").read_text().splitlines()))
        if out.exists():
            runs += 1
            wrong += int((read_image(out).data != expected).sum())
            shutil.rmtree(out)
    if work.exists():
        subprocess.run([*command, "--resume"], check=True)
        runs += 1
        wrong += int((read_image(out).data != expected).sum())
    print(f"{kills} kills, {runs} whole results after them, {wrong} wrong pixels")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
