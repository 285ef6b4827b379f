"""Make the clean images that deconvolving and restoring models are trained and measured on: python pieces.py DATA WORK.

Structures that are to be restored sharper than an image shows them need truths that are sharper than their pixels: images
are averaged over squares of pixels first. DATA holds the images that data sheets and tests name. Images to train on lie in
WORK/train-NAME, one channel a file, whole; pieces to test on in WORK/clean-NAME.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from care_bridge.images import Image, read_image, write_image

PIECES = {
    # name: file, channel, folder, side of a piece, pixels along Y and X that become one, how many pieces
    "tubulin_fixed": ("cell_dna_mts_actin_cyx.tif", 1, "tubules-a", 350, 2, 1),
    "tubulin_screen": ("nuclei_tubulin_cyx.tif", 0, "tubules-a", 208, 1, 1),
    "autophagosomes": ("autophagosomes.tif", None, "granules-a", 144, 1, 1),
    "transcripts": ("hybiss_spots.tif", None, "granules-a", 512, 2, 1),
    "lysosomes": ("hela_lyso_mito_nuc_cyx_uint16.tif", 0, "granules-a", 464, 2, 1),
    "h2ax": ("speckles_h2ax.tif", None, "granules-b", 512, 2, 2),
    "zdiscs": ("zdisc_confocal_uint16.tif", None, "cardio-b", 256, 1, 4),
    "body_wall": ("celegans_widefield.tif", None, "cardio-b", 316, 1, 1),
    "bpae_2p": ("bpae_2p_avg10_intensity.tif", None, "mito-a", 360, 1, 1),
    "bpae": ("bpae_mito_uint16.tif", None, "mito-b", 320, 1, 3),
}
HELA = "hela_lyso_mito_nuc_cyx_uint16.tif"
FINE = (
    # file, channel, pixels that become one
    ("tub_h2b_cyx.tif", 0, 2),
    ("dapi_tubulin_cyx.tif", 1, 1),
    ("epi_neuron_f20.tif", None, 2),
    ("rat_hippocampal_neuron.tif", None, 1),
    ("jump_BR00117006_ch2.tif", None, 1),
    ("jump_BR00117006_ch3.tif", None, 1),
)
TRAINED = {
    # folder: what it holds
    "train-tubules": (
        *FINE,
        ("cords_thin.tif", None, 2),
        ("2p_neuron_slice1.tif", None, 1),
        ("2p_zseries_mip_ch1.tif", None, 1),
    ),
    "train-granules": (
        *FINE,
        ("nuclear_protein_control.tif", None, 2),
        ("terra_nuclei.tif", None, 2),
        ("nuclei_golgi_ch1.tif", None, 1),
        ("examplehuman_d2.tif", None, 1),
        ("chromosomes_cyx.tif", 1, 2),
        (HELA, 1, 1),
    ),
    "train-cells": (
        *FINE,
        ("bbbc022_A02_s9_cyx.tif", 1, 1),
        ("nuclear_protein_control.tif", None, 2),
        ("autophagosomes.tif", None, 1),
        ("examplehuman_d2.tif", None, 1),
        (HELA, 0, 1),
        (HELA, 1, 1),
    ),
}
STEP_PX, ZEROED_FROM_ROW = 32, 470
PIXEL_UM = dict.fromkeys(("tubules-a", "granules-a", "granules-b", "train-tubules", "train-granules"), 0.08)


def plane_of(data: Path, file: str, channel: int | None) -> NDArray[np.float64]:
    image = read_image(next(iter(sorted(data.rglob(file))))).data
    plane = (image if channel is None else image[channel]).astype(np.float64)
    return plane[:ZEROED_FROM_ROW] if file == HELA else plane  # below lies a box of zeros


def smaller(plane: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    height, width = (size // factor for size in plane.shape)
    return plane[: height * factor, : width * factor].reshape(height, factor, width, factor).mean((1, 3))


def write(folder: Path, name: str, plane: NDArray[np.float64], pixel_um: float) -> None:
    data = np.round(plane / plane.max() * 60000).clip(0).astype(np.uint16)
    write_image(
        folder / f"{name}.tif", Image(data, "YX", name=name, pixel_size_um=dict.fromkeys("YX", pixel_um))
    )


def main(data: Path, work: Path) -> None:
    for folder, images in TRAINED.items():
        for file, channel, factor in images:
            name = Path(file).stem if channel is None else f"{Path(file).stem}_{channel}"
            write(
                work / folder, name, smaller(plane_of(data, file, channel), factor), PIXEL_UM.get(folder, 0.1)
            )
    for name, (file, channel, folder, side, factor, number) in PIECES.items():
        plane = plane_of(data, file, channel)
        corners = {
            (y, x): plane[y : y + side, x : x + side].std()
            for y in range(0, plane.shape[0] - side + 1, STEP_PX)
            for x in range(0, plane.shape[1] - side + 1, STEP_PX)
        }
        for index in range(number):
            y, x = max(corners, key=lambda at: corners[at])
            corners = {
                at: value for at, value in corners.items() if max(abs(at[0] - y), abs(at[1] - x)) >= side
            }
            piece = smaller(plane[y : y + side, x : x + side], factor)
            write(work / f"clean-{folder}", f"{name}_{index}", piece, PIXEL_UM.get(folder, 0.1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
