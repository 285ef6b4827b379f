"""Training from a zarr larger than memory: the highest memory of a process that samples patches and trains on them.

    python benchmarks/stream_memory.py [--gigabytes 2] [--folder DIR]

Writes a pair of uint16 volumes of so many GB together (about a quarter of that on the disk), then, in a process of its
own for each: loads TensorFlow and trains on patches of a volume of 64 MB; does the same with the large one. Prints the
highest resident memory of both; the difference is what the size of the data costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

PLANE = (512, 512)
CHUNK = (16, *PLANE)

CHILD = """
import sys, resource, time
from care_bridge.config import CareConfig
from care_bridge.patches import pairs_from_zarr, sample_patches
from care_bridge.training.fit import train
source, target, out = sys.argv[1:]
start = time.perf_counter()
patches = sample_patches(pairs_from_zarr(source, target, axes="ZYX"), patch_size=(16, 64, 64), n_patches_per_image=64)
sampled = time.perf_counter() - start
training, validation = patches.split(0.2)
config = CareConfig("ZYX", unet_n_first=8, train_batch_size=4, train_epochs=1, train_steps_per_epoch=16)
train(config, training, validation, out)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{sampled:.1f} {time.perf_counter() - start:.1f} {peak / (1 << 20 if sys.platform == 'darwin' else 1 << 10):.0f}")
"""


def write(path: Path, n_bytes: float, noise: np.ndarray) -> int:
    """A volume of chunks of noise; its size in bytes."""
    planes = max(1, round(n_bytes / noise.nbytes)) * CHUNK[0]
    volume = zarr.create_array(str(path), shape=(planes, *PLANE), chunks=CHUNK, dtype="u2")
    for first in range(0, planes, CHUNK[0]):
        volume[first : first + CHUNK[0]] = noise
    return planes * noise.nbytes // CHUNK[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument(
        "--folder", type=Path, help="where the volumes are written; else the temporary folder"
    )
    given = parser.parse_args()
    # Sixteen grey levels, so that the disk holds a quarter of it.
    noise = np.random.default_rng(0).integers(0, 16, CHUNK).astype(np.uint16) * 200
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        peaks = []
        for label, wanted in (("small", 64e6), ("large", given.gigabytes * 1e9)):
            paths = [Path(name) / f"{label}-{side}" for side in ("source", "target")]
            start = time.perf_counter()
            size = sum(write(path, wanted / 2, noise) for path in paths)
            print(f"{label}: {size / 1e9:.2f} GB, written in {time.perf_counter() - start:.0f} s", flush=True)
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                CHILD,
                *map(str, paths),
                str(Path(name) / f"model-{label}"),
            ]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            sampled, whole, peak = map(float, told[-3:])
            peaks.append(peak)
            print(
                f"  sampled in {sampled} s, trained after {whole} s, highest memory {peak:.0f} MiB",
                flush=True,
            )
    print(f"the large volume costs {peaks[1] - peaks[0]:.0f} MiB more")


if __name__ == "__main__":
    main()
