"""Networks that learn with a critic beside CARE, on three defects at few pairs: paper 002's comparison on images at hand.

    python benchmarks/gans.py --data DIR --out gans [--pairs 10] [--defects denoise ...] [--methods care ...] [--seeds 0]

Truth is bpae_mito of DIR/hela (bovine mitochondria): fields of 128 x 128, those that train from its left 60 %, 20 held-out
ones from the rest. Three defects, made from it:

denoise      30 photons at the 99.8th percentile, and a camera's noise of one photon
inpainting   every fourth row kept, the others interpolated linearly, as between planes of a stack
resolution   blurred (sigma 2 pixels), binned 4 x 4, 100 photons, enlarged linearly

All methods have the same pairs, steps, batches of 8 patches of 64 x 64 and 16 features. CARE, and cgan on the same U-Net,
have kernel 3; resnet learns as CARE does, on residual blocks; "cgan, instance" has these with instance normalisation, and
deblurgan too, with two steps of its critic in place of five.
PSNR and SSIM of `care_bridge.metrics`, after the truth's percentiles 0.1 and 99.9 and a least-squares fit; means over the
held-out fields. What is there already is not trained again, so that a run can be stopped and taken up.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from care_bridge.images import Image, read_image, write_image
from care_bridge.metrics import psnr, ssim
from care_bridge.opening import open_predictor
from care_bridge.training.from_files import train_from_files

FIELD = 128
HELD = 20
TRAIN_SHARE = 0.6

UNET = {"unet_kern_size": 3, "unet_n_depth": 2}
METHODS: dict[str, dict[str, Any]] = {
    "care": {**UNET, "train_schedule": "cosine", "train_learning_rate": 1e-3},
    "cgan": {**UNET, "method": "cgan", "train_learning_rate": 1e-3},
    "resnet": {
        "architecture": "resnet",
        "resnet_n_blocks": 4,
        "train_schedule": "cosine",
        "train_learning_rate": 1e-3,
    },
    "deblurgan": {
        "method": "deblurgan",
        "resnet_n_blocks": 4,
        "train_learning_rate": 5e-4,
        "gan_critic_steps": 2,
    },
    "cgan, instance": {
        "method": "cgan",
        "architecture": "resnet",
        "resnet_n_blocks": 4,
        "resnet_norm": "instance",
    },
}
USUAL = {
    "unet_n_first": 16,
    "train_batch_size": 8,
    "train_learning_rate": 5e-4,
    "gan_critic_n_first": 16,
    "train_augment": ("flips", "rot90"),
    "target_scale": "source",
}


def denoise(clean: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """30 photons where the image is bright, and a camera's noise."""
    return np.asarray(random.poisson(30 * clean) + random.normal(0, 1, clean.shape)) / 30


def inpainting(clean: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Three of four rows are missing."""
    kept = np.arange(0, clean.shape[0], 4)
    rows = np.arange(clean.shape[0])
    return np.stack([np.interp(rows, kept, column[kept]) for column in clean.T], axis=1)


def resolution(clean: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """A quarter of the resolution."""
    y, x = clean.shape
    small = gaussian_filter(clean, 2).reshape(y // 4, 4, x // 4, 4).mean((1, 3))
    return np.asarray(zoom(random.poisson(100 * small) / 100, 4, order=1, grid_mode=True, mode="nearest"))


DEFECTS = {"denoise": denoise, "inpainting": inpainting, "resolution": resolution}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("gans"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--defects", nargs="+", default=list(DEFECTS), choices=list(DEFECTS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    rows = []
    for defect in args.defects:
        place = args.out / f"{defect}_{args.pairs}"
        held = _images(place, defect, args)
        rows.append({"defect": defect, "method": "input", "seed": "", **_scores(held, None), "seconds": ""})
        for method in args.methods:
            for seed in args.seeds:
                rows.append(_row(place, defect, method, seed, held, args))
                print(" | ".join(str(value) for value in rows[-1].values()), flush=True)
    with open(args.out / f"gans_{args.pairs}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(" | ".join(str(value) for value in row.values()))
    return 0


def _images(place: Path, defect: str, args: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Write the pairs that train; the held-out ones, source and truth."""
    whole = read_image(args.data / "hela" / "bpae_mito_uint16.tif").data.astype(np.float64)
    low, high = np.percentile(whole, (0.5, 99.8))
    whole = np.clip((whole - low) / (high - low), 0, None)
    edge = int(TRAIN_SHARE * whole.shape[1])
    random = np.random.default_rng(11)
    degrade = DEFECTS[defect]
    pairs = {"train": (args.pairs, 0, edge), "held": (HELD, edge, whole.shape[1])}
    held = []
    for part, (count, first, last) in pairs.items():
        found = 0
        while found < count:
            y = int(random.integers(0, whole.shape[0] - FIELD)) // 4 * 4
            x = int(random.integers(first, last - FIELD)) // 4 * 4
            clean = whole[y : y + FIELD, x : x + FIELD]
            if clean.mean() < 0.5 * whole.mean():
                continue  # hardly anything but background
            source = degrade(clean, random)
            if part == "held":
                held.append((source.astype(np.float32), clean.astype(np.float32)))
            else:
                for name, image in (("source", source), ("target", clean)):
                    (place / name).mkdir(parents=True, exist_ok=True)
                    counts = np.clip(np.round(1000 + 10000 * image), 0, 65535).astype(np.uint16)
                    write_image(place / name / f"{found:02}.tif", Image(counts, "YX"))
            found += 1
    return held


def _row(
    place: Path, defect: str, method: str, seed: int, held: list[tuple[NDArray[Any], NDArray[Any]]], args: Any
) -> dict[str, Any]:
    folder = place / f"{method.replace(', ', '_')}_{seed}"
    done = folder / "done"
    if not done.is_file():
        clock = time.process_time()
        settings = {**USUAL, **METHODS[method], "seed": seed}
        settings |= {"train_epochs": 10, "train_steps_per_epoch": args.steps // 10}
        train_from_files(
            place / "source",
            place / "target",
            out=folder,
            settings=settings,
            patch_size=(64, 64),
            n_patches_per_image=32,
            overwrite=True,
            say=lambda text: print(f"  {text}", flush=True),
        )
        done.write_text(f"{time.process_time() - clock:.0f}")
    return {
        "defect": defect,
        "method": method,
        "seed": seed,
        **_scores(held, folder),
        "seconds": done.read_text(),
    }


def _scores(held: list[tuple[NDArray[Any], NDArray[Any]]], folder: Path | None) -> dict[str, float]:
    restored = [source for source, _ in held]
    if folder is not None:
        with open_predictor(folder, runtime="keras") as predictor:
            restored = [
                predictor.predict(Image((1000 + 10000 * source).astype(np.float32), "YX")).data
                for source, _ in held
            ]
    figures = [
        (psnr(image, truth), ssim(image, truth)) for image, (_, truth) in zip(restored, held, strict=True)
    ]
    found = np.mean(figures, axis=0)
    return {"psnr": round(float(found[0]), 2), "ssim": round(float(found[1]), 3)}


if __name__ == "__main__":
    raise SystemExit(main())
