"""Restoring one image with csbdeep's default network: what Python adds to the network, and csbdeep's own time.

    python benchmarks/prediction.py [2d] [3d] [--turns 5]

By turns in one process, each once a turn: the bare network (the padded and normalised tensor in, nothing else), our
`KerasPredictor`, csbdeep's `CARE.predict` with the same weights, and our predictor in bfloat16. Targets: float32 at most
1.03 of the bare call; bfloat16 at most 0.6 of csbdeep, where the processor computes in it. The difference of bfloat16
to float32 is printed as a share of the result's range.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from care_bridge.config import CareConfig
from care_bridge.images import Image
from care_bridge.inference.keras import KerasPredictor
from care_bridge.training.folder import save_model
from care_bridge.training.unet import build

SHAPES = {"2d": ("YX", (1024, 1024)), "3d": ("ZYX", (16, 256, 256))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", default=["2d", "3d"], help="2d, 3d")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    from csbdeep.models import CARE

    for which in given.which:
        axes, shape = SHAPES[which]
        with tempfile.TemporaryDirectory() as name:
            config = CareConfig(axes, seed=1)
            save_model(Path(name) / "model", config, build(config))
            float32 = KerasPredictor.load(Path(name) / "model")
            bfloat16 = KerasPredictor.load(Path(name) / "model", precision="bfloat16")
            theirs = CARE(None, "model", name)
            pixels = np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16)
            tensor = np.random.default_rng(0).random((1, *shape, 1), np.float32)
            image = Image(pixels, axes)
            runners = {
                "bare network": lambda float32=float32, tensor=tensor: float32.network(tensor),
                "care_bridge float32": lambda float32=float32, image=image: float32.predict(image).data,
                "csbdeep": lambda theirs=theirs, pixels=pixels, axes=axes: theirs.predict(pixels, axes),
                "care_bridge bfloat16": lambda bfloat16=bfloat16, image=image: bfloat16.predict(image).data,
            }
            results = {label: run() for label, run in runners.items()}  # tracing
            times: dict[str, list[tuple[float, float]]] = {label: [] for label in runners}
            for _ in range(given.turns):
                for label, run in runners.items():
                    wall, cpu = time.perf_counter(), time.process_time()
                    run()
                    times[label].append((time.perf_counter() - wall, time.process_time() - cpu))
        fastest = {label: min(wall for wall, _ in rows) for label, rows in times.items()}
        cpu = {label: statistics.median(one for _, one in rows) for label, rows in times.items()}
        print(f"{which}: {'x'.join(map(str, shape))}")
        for label in runners:
            ratios = ", ".join(
                f"{fastest[label] / fastest[to]:.2f} ({cpu[label] / cpu[to]:.2f} of its CPU) of {to}"
                for to in ("bare network", "csbdeep")
            )
            print(f"  {label:21} fastest {fastest[label]:.3f} s, CPU {cpu[label]:.3f} s: {ratios}")
        ours = results["care_bridge float32"]
        for label in ("csbdeep", "care_bridge bfloat16"):
            print(
                f"  {label} differs by at most {np.abs(results[label] - ours).max() / np.ptp(ours):.1e} of the range"
            )


if __name__ == "__main__":
    main()
