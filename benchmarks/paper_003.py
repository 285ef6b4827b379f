"""The protocol of "Exploring denoising for CARE" (a replication of Weigert et al. 2018) in small, on real images.

    python benchmarks/paper_003.py IMAGES --out DIR

IMAGES is a folder that holds hela/ (mitochondria) and cardio/ (z-discs), see its README. The images are taken for
the truth; noise of three conditions is put on them (photons at their bright end, and read noise). Written to DIR:
conditions.csv (input and network under each condition), sweep/ (batch size x steps), cross/ (models x data sets).
About five minutes on two quiet cores; the paper trained for hours on a GPU, so only directions compare, not values.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from care_bridge.config import CareConfig
from care_bridge.evaluate import read_pairs
from care_bridge.evaluate.cross import cross_evaluate, score_pairs
from care_bridge.images import Image, read_image, write_image
from care_bridge.opening import open_predictor
from care_bridge.sweep import Sweep, run_sweep
from care_bridge.training.data import data_from_folders
from care_bridge.training.fit import train

CONDITIONS = {"C1": 200.0, "C2": 40.0, "C3": 10.0}  # photons at percentile 99.8
READ_NOISE = 0.8  # photons, standard deviation
SETTINGS = {
    "unet_n_first": 8,
    "unet_kern_size": 3,
    "train_batch_size": 8,
    "train_learning_rate": 2e-3,
    "train_steps_per_epoch": 50,
    "train_epochs": 8,
    "train_reduce_lr": {"factor": 0.5, "patience": 2, "min_delta": 0},
}


def truths(images: Path) -> dict[str, list[np.ndarray]]:
    """Pieces of 256 x 256 of each kind of structure; the last of each image is for testing."""
    hela = read_image(images / "hela" / "hela_lyso_mito_nuc_cyx_uint16.tif").data[1]
    bpae = read_image(images / "hela" / "bpae_mito_uint16.tif").data
    discs = read_image(images / "cardio" / "zdisc_confocal_uint16.tif").data
    return {
        "mito": [hela[:256, x : x + 256] for x in (0, 256)]
        + [
            bpae[y : y + 256, x : x + 256]
            for y, x in ((100, 100), (100, 420), (380, 100), (380, 420), (100, 760))
        ],
        "zdisc": [
            discs[y : y + 256, x : x + 256]
            for y, x in (
                (500, 500),
                (500, 800),
                (800, 500),
                (800, 800),
                (1100, 500),
                (1100, 800),
                (650, 1150),
            )
        ],
    }


def write_pairs(out: Path, pieces: list[np.ndarray], conditions: list[str], seed: int) -> None:
    """Noisy and clean TIFFs of equal names."""
    random = np.random.default_rng(seed)
    for number, piece in enumerate(pieces):
        low, high = np.percentile(piece, (0.1, 99.8))
        clean = np.clip((piece - low) / (high - low), 0, None)
        for name in conditions:
            photons = random.poisson(clean * CONDITIONS[name]) + random.normal(0, READ_NOISE, clean.shape)
            file = f"{number}_{name}.tif"
            write_image(out / "source" / file, Image((photons / CONDITIONS[name]).astype(np.float32), "YX"))
            write_image(out / "target" / file, Image(clean.astype(np.float32), "YX"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    models = {}
    for kind, pieces in truths(given.images).items():
        write_pairs(given.out / kind / "train", pieces[:-1], list(CONDITIONS), 0)
        for name in CONDITIONS:
            write_pairs(given.out / kind / name, pieces[-1:], [name], 1)
        folder = given.out / kind / "train"
        data = data_from_folders(
            folder / "source", folder / "target", patch_size=(64, 64), n_patches_per_image=24
        )
        config = CareConfig(data.axes, **SETTINGS, provenance={"data": data.provenance})
        train(config, data.training, data.validation, given.out / kind / "model", resume=True)
        models[kind] = open_predictor(given.out / kind / "model", runtime="keras")

    rows = [("data", "condition", "photons", "what", "nrmse", "psnr_db", "ssim")]
    for kind, predictor in models.items():
        for name, photons in CONDITIONS.items():
            pairs = read_pairs(given.out / kind / name / "source", given.out / kind / name / "target")
            for what, one in (("input", None), ("network", predictor)):
                scores = score_pairs(one, pairs)
                row = (kind, name, photons, what, scores.nrmse, scores.psnr, scores.ssim)
                rows.append(row)
                print("{} {} {:5g} photons {:8} NRMSE {:.4f} PSNR {:.2f} SSIM {:.3f}".format(*row))
    with open(given.out / "conditions.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)

    sets = {
        kind: read_pairs(given.out / kind / "C2" / "source", given.out / kind / "C2" / "target")
        for kind in models
    }
    matrix = cross_evaluate(models, sets)
    matrix.save(given.out / "cross")
    print(matrix)

    folder = given.out / "mito"
    sweep = Sweep(
        str(folder / "train" / "source"),
        str(folder / "train" / "target"),
        grid={"train_batch_size": [4, 8, 16], "train_steps_per_epoch": [10, 25, 50]},
        settings={**SETTINGS, "train_epochs": 3},
        patch_size=(64, 64),
        test_source=str(folder / "C2" / "source"),
        test_target=str(folder / "C2" / "target"),
        n_patches_per_image=24,
    )
    for one in run_sweep(sweep, given.out / "sweep"):
        print(f"{one.name}: {one.seconds:.0f} s, NRMSE {one.nrmse:.4f}, SSIM {one.ssim:.3f}")


if __name__ == "__main__":
    main()
