"""What Noise2Void gives on one noisy image, beside a supervised network of the same size; and what shared noise does to it.

    python benchmarks/n2v.py --data DIR --out n2v [--minutes 5 | --steps 1000] [--seed 0] [--features 16]

BPAE_R of the Fluorescence Microscopy Denoising data set (one frame, and the mean of 50 as truth) has to lie in
DIR/pairs_fmd. All networks have kernel 3, batch 8, patches of 64 x 64 and the same steps or time.

1. Noise2Void and N2V2 from the noisy frame alone; CARE from the frame and its truth, of the same rows.
2. Noise2Void and structN2V (a box of 1 x 9 hidden) on the same frame with streaks added: white noise averaged over 5
   pixels of a row, as strong as a quarter of the image's deviation. What is left of the streaks is their coefficient in a
   least-squares fit of the restored image's difference to the truth: 1 where they stay as they are, 0 where they are gone.

PSNR after the truth's percentiles 0.1 and 99.9 and a least-squares fit. "last rows": the tenth of the rows that no
network trained on. Targets: Noise2Void at least 2.5 dB above the frame, at most 1.5 dB below the supervised network;
structN2V takes out streaks that Noise2Void keeps.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from care_bridge.images import Image, read_image, write_image
from care_bridge.metrics import psnr
from care_bridge.opening import open_predictor
from care_bridge.training.from_files import train_from_files
from care_bridge.training.presets import N2V2

HELD_SHARE = 0.1
STREAK = 5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("n2v"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument(
        "--steps", type=int, default=1000, help="of each network, where no --minutes are given"
    )
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of networks, else all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = args.data / "pairs_fmd"
    noisy = read_image(pairs / "BPAE_R_noisy.tif").data.astype(np.float32)
    truth = read_image(pairs / "BPAE_R_gt_avg50.tif").data.astype(np.float32)
    first = noisy.shape[0] - max(64, round(HELD_SHARE * noisy.shape[0]) // 4 * 4)
    random = np.random.default_rng(7)
    streaks = uniform_filter1d(random.standard_normal(noisy.shape), STREAK, axis=1)
    streaks *= noisy.std() / 4 / streaks.std()
    streaked = np.asarray(noisy + streaks, np.float32)
    files = {
        "noisy": _saved(args.out / "noisy" / "frame.tif", noisy),
        "streaked": _saved(args.out / "streaked" / "frame.tif", streaked),
        "source": _saved(args.out / "source" / "frame.tif", noisy[:first]),
        "target": _saved(args.out / "target" / "frame.tif", truth[:first]),
    }
    blind: dict[str, Any] = {"method": "n2v"}
    mask = ((1,) * 9,)
    runs: dict[str, tuple[str, str, dict[str, Any]]] = {
        "Noise2Void": ("noisy", "", blind),
        "N2V2": ("noisy", "", {**blind, **N2V2}),
        "CARE, supervised": ("source", "target", {"target_scale": "source", "train_loss": "mse"}),
        "Noise2Void, streaks": ("streaked", "", blind),
        "structN2V, streaks": ("streaked", "", {**blind, "n2v_structmask": mask}),
    }
    rows = [
        _row("noisy frame", noisy, truth, first, None, 0.0),
        _row("noisy frame, streaks", streaked, truth, first, streaks, 0.0),
    ]
    for name, (source, target, settings) in runs.items():
        if args.only and name not in args.only:
            continue
        clock = time.process_time()
        folder = args.out / f"{name.replace(',', '').replace(' ', '_')}_{args.seed}"
        done = (folder / "done").is_file()
        if not done:
            _train(folder, files[source].parent, files[target].parent if target else None, settings, args)
            (folder / "done").write_text(f"{time.process_time() - clock:.0f}")
        fed = streaked if source == "streaked" else noisy
        with open_predictor(folder, runtime="keras") as predictor:
            restored = predictor.predict(Image(fed, "YX")).data
        seconds = float((folder / "done").read_text())
        rows.append(_row(name, restored, truth, first, streaks if source == "streaked" else None, seconds))
        print(rows[-1], flush=True)
    with open(args.out / f"n2v_{args.seed}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(" | ".join(str(value) for value in row.values()))
    return 0


def _train(folder: Path, source: Path, target: Path | None, settings: dict[str, Any], args: Any) -> None:
    usual: dict[str, Any] = {
        "unet_kern_size": 3,
        "unet_n_first": args.features,
        "train_batch_size": 8,
        "train_schedule": "cosine",
        "train_average": 0.99,
        "train_learning_rate": 1.6e-3,
        "seed": args.seed,
    }
    if args.minutes is None:
        usual |= {"train_epochs": 10, "train_steps_per_epoch": max(1, args.steps // 10)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that neighbours share the streaks is what is measured here
        train_from_files(
            source,
            target,
            out=folder,
            settings={**usual, **settings},
            patch_size=(64, 64),
            minutes=args.minutes,
            n_patches_per_image=512,
            overwrite=True,
            say=lambda text: print(f"  {text}", flush=True),
        )


def _saved(path: Path, data: NDArray[np.float32]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Image(data, "YX"))
    return path


def _row(
    name: str,
    restored: NDArray[np.float32],
    truth: NDArray[np.float32],
    first: int,
    streaks: NDArray[Any] | None,
    seconds: float,
) -> dict[str, object]:
    found: dict[str, object] = {"what": name}
    for where, rows in (("whole", slice(None)), ("last rows", slice(first, None))):
        found[f"PSNR {where}"] = round(psnr(restored[rows], truth[rows]), 2)
    left = ""
    if streaks is not None:
        pattern = streaks - streaks.mean()
        error = restored - truth
        left = f"{float((error * pattern).sum() / (pattern**2).sum()):.2f}"
    found["streaks left"] = left
    found["processor seconds"] = round(seconds)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
