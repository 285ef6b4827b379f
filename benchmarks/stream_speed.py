"""Time of a simulated batch against a training step: a stream must not make the network wait.

    python benchmarks/stream_speed.py [CLEAN] [--recipe denoise-correlated] [--features 24] [--kernel 3] [--repeats 20]

Prints the medians of a batch (16 patches of 64x64, made in one thread, with nothing else running) and of a step, and
their ratio. Target: at most 1. Seen on 2 cores: 17 ms a batch on one of them, 100 ms a step on both, ratio 0.17.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from care_bridge.config import CareConfig
from care_bridge.training.batches import BatchSource
from care_bridge.training.streams import data_from_stream
from care_bridge.training.unet import build

SIZE = (64, 64)


def median_ms(action: Callable[[int], object], repeats: int) -> tuple[float, float]:
    """Medians of the time on the wall and of the processor's, in milliseconds."""
    times = []
    for number in range(repeats + 2):
        wall, processor = time.perf_counter(), time.process_time()
        action(number)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    first, second = np.median(times[2:], axis=0) * 1000
    return float(first), float(second)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clean", nargs="?", type=Path)
    parser.add_argument("--recipe", default="denoise-correlated")
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()

    stream = data_from_stream(given.recipe, given.clean, patch_size=SIZE, axes="YX").training
    assert isinstance(stream, BatchSource)
    config = CareConfig("YXC", 1, 1, unet_n_first=given.features, unet_kern_size=given.kernel)
    network, optimizer = build(config), keras.optimizers.Adam(4e-4)
    optimizer.build(network.trainable_variables)
    source, target = map(tf.constant, stream.batch_at(0, size=given.batch_size, seed=0))

    @tf.function(autograph=False)
    def update() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(network(source, training=True) - target))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        return loss

    batch = median_ms(lambda step: stream.batch_at(step, size=given.batch_size, seed=0), given.repeats)
    step = median_ms(lambda _: update().numpy(), given.repeats)
    print(f"batch {batch[0]:.1f} ms ({batch[1]:.1f} ms of the processor)")
    print(f"step  {step[0]:.1f} ms ({step[1]:.1f} ms of the processor)")
    print(f"ratio {batch[0] / step[0]:.2f} (target: at most 1)")


if __name__ == "__main__":
    main()
