"""Patch sampling against csbdeep's create_patches, by turns in one process; and how much memory large data need.

    python benchmarks/patch_sampling.py [--rounds 5] [--gib 1 2]

2,048 patches of 64 x 64 from 8 images of 1024 x 1024 (16 bit). Aim: at least 5 times as fast as csbdeep 0.8.2.
Memory: a zarr volume of so many GiB is sampled into a zarr of patches, each size in a process of its own; the peak
is that of the process above what it has after its imports. Aim: the same for any size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MEMORY = """
import resource, sys, numpy as np
from care_bridge.patches import pairs_from_zarr, sample_patches, save_patches
import zarr
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
pairs = pairs_from_zarr(sys.argv[1], sys.argv[1], axes="ZYX")
patches = sample_patches(pairs, patch_size=(16, 64, 64), n_patches_per_image=int(sys.argv[2]))
save_patches(patches, sys.argv[3])
print(peak() - before)
"""


def speed(rounds: int) -> None:
    import csbdeep.data as theirs

    import care_bridge.csbdeep.data as ours
    from care_bridge.patches import pairs_from_arrays, sample_patches

    draw = np.random.default_rng(0)
    sources, targets = (
        [draw.gamma(2, 500, (1024, 1024)).astype(np.uint16) for _ in range(8)] for _ in range(2)
    )

    def facade(module):
        module.create_patches(
            module.RawData.from_arrays(sources, targets, "YX"), (64, 64), 256, verbose=False
        )

    def own():
        sample_patches(
            pairs_from_arrays(sources, targets, axes="YX"), patch_size=(64, 64), n_patches_per_image=256
        ).load()

    jobs = {
        "csbdeep create_patches": lambda: facade(theirs),
        "care_bridge.csbdeep create_patches": lambda: facade(ours),
        "care_bridge sample_patches": own,
    }
    wall, cpu = ({name: [] for name in jobs} for _ in range(2))
    for _ in range(rounds):
        for name, job in jobs.items():
            start, used = time.perf_counter(), time.process_time()
            job()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    first = next(iter(jobs))
    for name in jobs:
        print(
            f"{name:38s} wall min {min(wall[name]):.3f} s ({min(wall[first]) / min(wall[name]):.1f} x), "
            f"CPU median {np.median(cpu[name]):.3f} s ({np.median(cpu[first]) / np.median(cpu[name]):.1f} x)"
        )


def memory(gib: float) -> None:
    import zarr

    folder = Path(tempfile.mkdtemp())
    try:
        planes = max(16, int(gib * 2**30 / (2 * 1024 * 1024)))
        volume = zarr.create_array(
            str(folder / "volume"),
            shape=(planes, 1024, 1024),
            chunks=(16, 256, 256),
            dtype="u2",
            compressors=None,
        )
        draw = np.random.default_rng(0)
        for start in range(0, planes, 16):
            stop = min(start + 16, planes)
            volume[start:stop] = draw.integers(0, 4000, (stop - start, 1024, 1024), np.uint16)
        for n in (200, 800):
            arguments = [
                sys.executable,
                "-c",
                MEMORY,
                str(folder / "volume"),
                str(n),
                str(folder / f"{n}.zarr"),
            ]
            start = time.perf_counter()
            peak = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
            print(
                f"volume {gib:g} GiB, {n} patches ({2 * n * 16 * 64 * 64 * 4 / 2**20:.0f} MiB): "
                f"peak {float(peak):.0f} MiB above imports, {time.perf_counter() - start:.1f} s"
            )
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; 0 leaves speed out")
    parser.add_argument(
        "--gib", type=float, nargs="*", default=[1, 2], help="sizes of volumes; none leaves memory out"
    )
    given = parser.parse_args()
    if given.rounds:
        speed(given.rounds)
    for gib in given.gib:
        memory(gib)


if __name__ == "__main__":
    main()
