"""Cut the pieces that fluorescence-denoise-3d is measured on: python stacks.py FOLDER-OF-CLEAN-STACKS WORK."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from care_bridge.images import Image, read_image, write_image

PIECES = {
    # name: file, folder, planes, side in pixels, factor to whole grey levels
    "ovule": ("ovule_near_isotropic_zyx.tif", "A", slice(8, 24), 128, 1),
    "mitotic_plate": ("mitotic_plate_zyx.tif", "A", slice(None), 192, 1),
    "pollen": ("pollen_zyx.tif", "B", slice(8, 24), 128, 1),
    "neuron": ("neuron_25pct_zyx.tif", "B", slice(8, 24), 128, 200),
    "cho_nuclei": ("ctc_cho_zyx.tif", "B", slice(None), 192, 1),
}
STEP_PX = 16


def main(clean: Path, work: Path) -> None:
    for name, (file, folder, planes, side, factor) in PIECES.items():
        stack = read_image(clean / file, "ZYX").data[planes]
        brightest = stack.max(axis=0).astype(np.float64)
        corners = [
            (y, x)
            for y in range(0, brightest.shape[0] - side + 1, STEP_PX)
            for x in range(0, brightest.shape[1] - side + 1, STEP_PX)
        ]
        y, x = max(corners, key=lambda at: brightest[at[0] : at[0] + side, at[1] : at[1] + side].std())
        piece = stack[:, y : y + side, x : x + side]
        data = (piece * factor).astype(np.uint16) if factor != 1 else piece
        write_image(work / folder / f"{name}.tif", Image(data, "ZYX", name=name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
