"""What the scale of the targets is worth: networks trained on one and the same simulated images, own scale against source.

    python benchmarks/target_scale.py --out target_scale [--steps 500] [--seeds 3] [--scales own source] [--data DIR]

Draws clean structures (tubules, granules, nuclei, sarcomeres), gives each four exposures (5 to 200 photons at the bright
end, log-uniform, read noise, offset), trains a network for each scale and seed with the same steps (so in the same time,
whatever else the machine does), and scores all on drawn images that none was trained on, and on one frame against the
mean of 50 (mitochondria, BPAE_R of the Fluorescence Microscopy Denoising data set) where DIR/pairs_fmd holds them. Scores
after the truth's percentiles 0.1 and 99.9 and a least-squares fit; the Gaussian is the best one for each image's truth.
Target: the source's percentiles are at least 2 dB above own ones, mean of the seeds.

Begun again with the same --out it goes on: finished networks are read from their row, others from their checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from care_bridge.config import CareConfig, read_config
from care_bridge.evaluate.baselines import FILTERS
from care_bridge.evaluate.registration import shift_between
from care_bridge.files import write_text
from care_bridge.images import Image, read_image
from care_bridge.metrics import psnr, ssim
from care_bridge.opening import open_predictor
from care_bridge.patches import pairs_from_arrays, sample_patches
from care_bridge.simulate import structures
from care_bridge.simulate.camera import CameraSetting, expected, expose
from care_bridge.training.batches import Arrays
from care_bridge.training.checkpoint import CHECKPOINT
from care_bridge.training.fit import train
from care_bridge.training.presets import SHORT

SIZE_PX, BORDER_PX, EXPOSURES, TESTED = 256, 8, 4, 12
EPOCHS = 5
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
Rows = list[dict[str, object]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("target_scale"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--steps", type=int, default=500, help="for each network; about 2 minutes on a quiet core"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scales", nargs="+", choices=("own", "source", "fitted"), default=("own", "source"))
    parser.add_argument("--images", type=int, default=48, help="clean images to train on")
    parser.add_argument("--average", type=float, default=SHORT["train_average"], help="0: none")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    tests = {"simulated": [pair for k in range(TESTED) for pair in drawn(10_000 + k, 1)]}
    real = real_pair(given.data)
    tests |= {"BPAE_R": [real]} if real is not None else {}
    rows = [row for name, pairs in tests.items() for row in without_network(name, pairs)]
    for seed in range(given.seeds):
        for scale in given.scales:
            rows += network(scale, seed, tests, given)
            write(given.out / "target_scale.csv", rows)
    return table(rows, list(tests))


def drawn(seed: int, exposures: int) -> list[Pair]:
    """Exposures of a drawn structure and the light without noise, both in grey levels."""
    rng = np.random.default_rng([seed, 7])
    shape, kind = (SIZE_PX, SIZE_PX), seed % 4
    if kind == 0:
        clean = structures.tubules(shape, seed=rng, width_px=rng.uniform(0.6, 2))
    elif kind == 1:
        clean = structures.granules(shape, seed=rng)
    elif kind == 2:
        clean = structures.nuclei(shape, seed=rng)
    else:
        clean = structures.sarcomeres(shape, seed=rng)
    clean = ndimage.gaussian_filter(clean, rng.uniform(0.5, 1.5))
    clean = np.clip(clean / np.percentile(clean, 99.9), 0, None) ** rng.uniform(0.7, 1.4)
    light = (clean + rng.uniform(0, 0.2)).astype(np.float32)
    pairs = []
    for _ in range(exposures):
        setting = CameraSetting(
            photons=float(np.exp(rng.uniform(np.log(5), np.log(200)))),
            read_noise=rng.uniform(0, 2),
            gain=rng.uniform(1, 10),
            offset=rng.uniform(0, 200),
        )
        pairs.append((expose(light, setting, rng=rng), expected(light, setting)))
    return pairs


def real_pair(data: Path) -> Pair | None:
    """One frame of mitochondria and the mean of 50, laid on it; None where they are not at hand."""
    folder = data / "pairs_fmd"
    if not (folder / "BPAE_R_noisy.tif").is_file():
        print(f"no {folder / 'BPAE_R_noisy.tif'}: drawn images alone are scored", flush=True)
        return None
    noisy, truth = (
        read_image(folder / f"BPAE_R_{name}.tif").data.astype(np.float32) for name in ("noisy", "gt_avg50")
    )
    found = shift_between(noisy, truth).zyx_px
    shifted = min(
        (ndimage.shift(truth, [sign * px for px in found], order=3, mode="nearest") for sign in (-1, 1)),
        key=lambda moved: float(np.mean((moved - noisy)[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] ** 2)),
    )
    return noisy, shifted.astype(np.float32)


def scores(prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[float, float]:
    inner = (slice(BORDER_PX, -BORDER_PX),) * 2
    return psnr(prediction[inner], truth[inner]), ssim(prediction[inner], truth[inner])


def row(method: str, seed: int | str, name: str, found: Sequence[tuple[float, float]]) -> dict[str, object]:
    mean = np.mean(found, axis=0)
    return {
        "method": method, "seed": seed, "images": name, "n": len(found),
        "psnr": round(float(mean[0]), 3), "ssim": round(float(mean[1]), 4),
    }  # fmt: skip


def without_network(name: str, pairs: Sequence[Pair]) -> Rows:
    function, settings = FILTERS["Gaussian"]
    best = [max(scores(function(source, **one), truth) for one in settings) for source, truth in pairs]
    return [
        row("input", "", name, [scores(*pair) for pair in pairs]),
        row("Gaussian, best for the truth", "", name, best),
    ]


def network(scale: str, seed: int, tests: dict[str, list[Pair]], given: argparse.Namespace) -> Rows:
    folder = given.out / f"{scale}-{seed}"
    done = folder / "rows.json"
    if done.is_file():
        return list(json.loads(done.read_text(encoding="utf-8")))
    pairs = [pair for k in range(given.images) for pair in drawn(1000 * seed + k, EXPOSURES)]
    # What differs between two scales of one seed is the scale alone: images, places and percentiles are the same.
    patches = sample_patches(
        pairs_from_arrays(*zip(*pairs, strict=True), axes="YX"),
        patch_size=(64, 64),
        n_patches_per_image=32,
        target_scale=scale,
        seed=seed,
    )
    training, validation = (Arrays(*part.load()) for part in patches.split(0.05, seed=seed))
    if (folder / CHECKPOINT).is_file():
        config = read_config(folder)
    else:
        chosen = {**SHORT, "train_average": given.average, "train_precision": given.precision}
        chosen |= {"train_epochs": EPOCHS, "train_steps_per_epoch": max(1, given.steps // EPOCHS)}
        config = CareConfig("YX", **chosen, seed=seed, target_scale=scale)
    print(
        f"{scale}, seed {seed}: {config.train_epochs} epochs of {config.train_steps_per_epoch} steps",
        flush=True,
    )
    train(config, training, validation, folder, resume=True)
    predictor = open_predictor(folder, runtime="keras")
    rows = [
        row(
            f"target scale {scale}", seed, name,
            [scores(predictor.predict(Image(source, "YX")).data, truth) for source, truth in found],
        )
        for name, found in tests.items()
    ]  # fmt: skip
    write_text(done, json.dumps(rows, indent=1) + "\n")
    for one in rows:
        print(f"  {one['images']}: {one['psnr']} dB, SSIM {one['ssim']}", flush=True)
    return rows


def write(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Rows, names: Sequence[str]) -> int:
    """Print mean and range over the seeds; 1 if source is not 2 dB above own somewhere."""
    print(f"{'PSNR (lowest-highest seed) / SSIM':34}" + "".join(f"{name:>32}" for name in names))
    means: dict[tuple[str, str], float] = {}
    for method in dict.fromkeys(str(one["method"]) for one in rows):
        line = f"{method:34}"
        for name in names:
            mine = [one for one in rows if one["method"] == method and one["images"] == name]
            values = [float(str(one["psnr"])) for one in mine]
            like = np.mean([float(str(one["ssim"])) for one in mine])
            means[method, name] = float(np.mean(values))
            spread = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
            line += f"{f'{np.mean(values):.2f}{spread} / {like:.3f}':>32}"
        print(line)
    gains = [
        means["target scale source", name] - means["target scale own", name]
        for name in names
        if {("target scale source", name), ("target scale own", name)} <= set(means)
    ]
    print("source above own: " + ", ".join(f"{gain:+.2f} dB" for gain in gains))
    return int(bool(gains) and min(gains) < 2)


if __name__ == "__main__":
    sys.exit(main())
