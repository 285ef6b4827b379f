"""How long ten images of 512 x 512 take with two applications and every filter, and how large the report is.

    python benchmarks/evaluation.py

The restoration is a Gaussian filter: its own time is not what is measured. Aim: under 90 s on two cores, under 10 MB.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from care_bridge.evaluate import Pair, evaluate, write_report
from care_bridge.images import Image
from care_bridge.predictor import ImagesOnly, Runtime

SIZE, IMAGES = 512, 10


class Smoother(ImagesOnly):
    runtime = Runtime("scipy")

    def predict(self, image: Image) -> Image:
        return image.replace(data=gaussian_filter(image.data.astype(np.float32), 1.0))


def pair(seed: int) -> Pair:
    draw = np.random.default_rng(seed)
    truth = np.zeros((SIZE, SIZE))
    truth[tuple(draw.integers(8, SIZE - 8, (2, 900)))] = draw.uniform(0.3, 1, 900)
    truth = gaussian_filter(truth, 2) + 0.3 * gaussian_filter(draw.normal(size=truth.shape), 12)
    truth = 200 + 3000 * (truth - truth.min()) / np.ptp(truth)
    noisy = draw.poisson(truth / 20) * 20.0 + draw.normal(0, 40, truth.shape)
    images = [
        Image(np.clip(a, 0, 65535).round().astype(np.uint16), "YX", {"X": 0.1, "Y": 0.1})
        for a in (noisy, truth)
    ]
    return Pair(*images, f"image {seed}")


def main() -> None:
    pairs = [pair(seed) for seed in range(IMAGES)]
    training = [pair(100 + seed) for seed in range(4)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    found = evaluate(Smoother(), pairs, training=training, model="a Gaussian filter")
    measured = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        size = write_report(found, Path(folder) / "report.html").stat().st_size
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{IMAGES} images: {measured:.1f} s, with the report {wall:.1f} s ({cpu:.1f} s CPU), {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
