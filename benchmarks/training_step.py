"""One training step of the default networks, by turns with csbdeep in one process.

    python benchmarks/training_step.py [2d] [3d] [--turns 3] [--steps 4] [--precision float32]

Prints, for each network, the median wall and CPU time of a step and the ratio to csbdeep's, for float32 and
bfloat16. csbdeep's steps are those of its own `train`, validation and callbacks left out; ours those of
`care_bridge.training.fit`. Wall time is worth little on a busy machine: the ratio of CPU times is the one to quote.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPES = {"2d": ("YX", 16, (64, 64)), "3d": ("ZYX", 4, (16, 64, 64))}


def ours(
    axes: str, batch: int, data: tuple[np.ndarray, np.ndarray], precision: str, features: int
) -> Callable[[int], None]:
    """Steps of our loop."""
    from care_bridge.config import CareConfig
    from care_bridge.training import fit
    from care_bridge.training.batches import as_source, batches
    from care_bridge.training.checkpoint import State

    config = CareConfig(axes, train_batch_size=batch, train_precision=precision, unet_n_first=features)
    source = as_source(data, config, what="training")
    run = fit._Run(config, source, source, State(settings={}, data=""))

    def steps(count: int) -> None:
        for one in batches(source, config, start=0, stop=count):
            run.step(one)

    return steps


def csbdeeps(
    axes: str, batch: int, data: tuple[np.ndarray, np.ndarray], features: int
) -> Callable[[int], None]:
    """Steps of csbdeep's fit."""
    from csbdeep.internals.train import DataWrapper
    from csbdeep.models import CARE, Config

    config = Config(axes, train_batch_size=batch, train_tensorboard=False, unet_n_first=features)
    model = CARE(config, "model", tempfile.mkdtemp())
    model.prepare_for_training()
    x, y = (array[..., np.newaxis] for array in data)

    def steps(count: int) -> None:
        # As CARE.train calls it, for one epoch and without its validation.
        wrapper = DataWrapper(x, y, batch, length=count)
        model.keras_model.fit(iter(wrapper), epochs=1, steps_per_epoch=count, verbose=0)

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", default=["2d"], help="2d, 3d")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--features", type=int, default=32, help="csbdeep's default is 32")
    given = parser.parse_args()
    for which in given.which:
        axes, batch, size = SHAPES[which]
        random = np.random.default_rng(0)
        data = tuple(random.random((2 * batch, *size), np.float32) for _ in range(2))
        runners = {"csbdeep float32": csbdeeps(axes, batch, data, given.features)}
        for precision in given.precision:
            runners[f"care_bridge {precision}"] = ours(axes, batch, data, precision, given.features)
        for run in runners.values():
            run(1)  # tracing
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
        for _ in range(given.turns):
            for name, run in runners.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run(given.steps)
                times[name].append(
                    ((time.perf_counter() - wall) / given.steps, (time.process_time() - cpu) / given.steps)
                )
        base = [statistics.median(column) for column in zip(*times["csbdeep float32"], strict=True)]
        print(f"{which}: {batch} patches of {'x'.join(map(str, size))}, {given.features} features")
        for name, rows in times.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"  {name:22} wall {wall:6.3f} s ({wall / base[0]:.2f})  cpu {cpu:6.3f} s ({cpu / base[1]:.2f})"
                f"  fastest {min(row[0] for row in rows):.3f} s"
            )


if __name__ == "__main__":
    if not Path("pyproject.toml").exists():
        print("run from the root of the checkout")
    main()
