"""How long do the paper's 234 pairs take? 78 clean images of 1024 x 1024 through the three sets of `mito`.

    python benchmarks/simulate_speed.py [--jobs 2] [--images 78]

The limit is 4 minutes on 2 cores; exit code 1 when it takes longer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from care_bridge.images import Image, write_image
from care_bridge.simulate import structures
from care_bridge.simulate.folder import write_pairs

LIMIT_S = 240


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--images", type=int, default=78)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(options.images):
            data = structures.tubules((1024, 1024), seed=index, count=60, width_px=2)
            grey = np.rint(100 + 3000 * data).astype(np.uint16)
            write_image(
                folder / "clean" / f"cell{index:02d}.tif",
                Image(grey, "YX", pixel_size_um={"Y": 0.1, "X": 0.1}),
            )
        start = time.perf_counter()
        summary = write_pairs("mito", [folder / "clean"], out=folder / "out", jobs=options.jobs)
        seconds = time.perf_counter() - start
    limit = LIMIT_S * options.images / 78
    sys.stdout.write(
        f"{summary.pairs} pairs of 1024 x 1024 in {seconds:.0f} s with {options.jobs} processes (limit {limit:.0f} s)\n"
    )
    return int(seconds > limit)


if __name__ == "__main__":
    sys.exit(main())
