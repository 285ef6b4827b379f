"""Two traps for networks that learn without pairs: CycleGAN and c2GAN on each, several seeds.

    python benchmarks/traps.py --out traps [--seeds 0 1 2 3 4] [--traps inversion content]

inversion    Fields of which half is foreground, the other domain of the same kind, so that a critic likes the inverted
             image as well as the right one, and there and back again holds for both. What is told is the correlation of
             the restored, held-out images with their hidden truth: below 0 they are inverted.
content      Noisy images of 6 spots, clean ones of 6 spots elsewhere. What is told is the share of hidden spots that have
             one of the restored image's 6 brightest maxima within 2 pixels.

Images of 32 x 32, a generator of 8 features and 2 residual blocks as CycleGAN has it (no skip connections, the input is
not added), 300 steps of 4 at 1e-3. Both methods differ in the saliency constraint alone. What is there already is not
trained again.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from care_bridge.config import CareConfig
from care_bridge.training.batches import Arrays
from care_bridge.training.fit import train
from care_bridge.training.unpaired import Strangers, Unpaired

SIZE, SPOTS, NEAR = 32, 6, 2
NOISE = {"inversion": 0.35, "content": 0.4}
METHODS = ("cyclegan", "c2gan")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("traps"))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--traps", nargs="+", default=list(NOISE), choices=list(NOISE))
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for trap in args.traps:
        rows = _rows(args.out / f"{trap}.csv")
        for seed in args.seeds:
            for method in METHODS:
                if (method, str(seed)) in {(row["method"], row["seed"]) for row in rows}:
                    continue
                rows.append(_row(trap, method, seed, args.steps))
                print(trap, *rows[-1].values(), flush=True)
                with open(args.out / f"{trap}.csv", "w", newline="", encoding="utf-8") as file:
                    table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    table.writeheader()
                    table.writerows(rows)
        for method in METHODS:
            scores = [float(row["score"]) for row in rows if row["method"] == method]
            told = f"{np.mean(scores):.2f} +- {np.std(scores):.2f}"
            wrong = (
                f", {sum(score < 0 for score in scores)} of {len(scores)} inverted"
                if trap == "inversion"
                else ""
            )
            print(f"{trap}: {method} {told}{wrong} (as it comes: {rows[0]['input']})")
    return 0


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as stored:
        return list(csv.DictReader(stored))


def _row(trap: str, method: str, seed: int, steps: int) -> dict[str, Any]:
    random = np.random.default_rng([7, seed])
    draw = _halves if trap == "inversion" else _spots
    parts = [draw(n, random) for n in (256, 256, 32)]
    (other, _), (hidden, _), (truth, places) = parts
    noisy, held = (
        np.asarray(clean + random.normal(0, NOISE[trap], clean.shape), np.float32)
        for clean in (hidden, truth)
    )
    config = CareConfig(
        "YX",
        method=method,
        seed=seed,
        unet_n_first=8,
        unet_residual=False,
        resnet_n_blocks=2,
        resnet_skips=False,
        gan_critic_n_first=8,
        gan_critic_n_depth=2,
        train_epochs=5,
        train_steps_per_epoch=steps // 5,
        train_learning_rate=1e-3,
    )
    clock = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = train(
            config,
            Unpaired(_alone(noisy), _alone(other)),
            Strangers(_alone(held), _alone(other[:32])),
            Path(folder) / "model",
        ).model
    restored = np.asarray(model.network(held[..., None]))[..., 0]
    score = _correlation if trap == "inversion" else _recall
    return {
        "method": method,
        "seed": str(seed),
        "score": f"{score(restored, truth, places):.3f}",
        "input": f"{score(held, truth, places):.3f}",
        "processor seconds": f"{time.process_time() - clock:.0f}",
    }


def _alone(images: NDArray[Any]) -> Arrays:
    return Arrays(images[..., None], images[..., None])


def _halves(n: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Half foreground, half background, and nothing tells which is which."""
    field = gaussian_filter(random.standard_normal((n, SIZE, SIZE)), (0, 3, 3), mode="wrap")
    return (0.5 + 0.35 * np.tanh(3 * field / field.std())).astype(np.float32), np.empty(0)


def _spots(n: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Spots of 1.5 pixels (sigma), and where they are."""
    places = random.uniform(3, SIZE - 3, (n, SPOTS, 2))
    y, x = np.mgrid[:SIZE, :SIZE]
    far = (y - places[..., 0, None, None]) ** 2 + (x - places[..., 1, None, None]) ** 2
    return np.exp(-far / (2 * 1.5**2)).max(axis=1).astype(np.float32), places


def _correlation(images: NDArray[Any], truth: NDArray[Any], places: NDArray[Any]) -> float:
    return float(np.corrcoef(images.ravel(), truth.ravel())[0, 1])


def _recall(images: NDArray[Any], truth: NDArray[Any], places: NDArray[Any]) -> float:
    found = []
    for image, spots in zip(images, places, strict=True):
        blurred = gaussian_filter(image, 1)
        peaks = np.argwhere((blurred == maximum_filter(blurred, 5)) & (blurred > blurred.min()))
        if not len(peaks):
            found.append(0.0)  # one grey
            continue
        best = peaks[np.argsort(-blurred[tuple(peaks.T)])[:SPOTS]]
        away = np.sqrt(((spots[:, None] - best[None]) ** 2).sum(-1)).min(axis=1)
        found.append(float((away <= NEAR).mean()))
    return float(np.mean(found))


if __name__ == "__main__":
    raise SystemExit(main())
