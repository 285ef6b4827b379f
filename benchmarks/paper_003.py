"""The protocol of "Exploring denoising for CARE" (a replication of Weigert et al. 2018) in small, on real images.

    python benchmarks/paper_003.py IMAGES --out DIR [--parts conditions cross sweep]

IMAGES is a folder that holds hela/ (mitochondria) and cardio/ (z-discs), see its README. The images are taken for
the truth; noise of three conditions is put on them (photons at their bright end, and read noise), four pieces of an image
train, three others test. Written to DIR:

- conditions.csv: NRMSE and SSIM of input, network, Gaussian filter and non-local means under each condition, the
  replication's values and the original's beside them (its tables 1 and 2); KIND/report.html: the same as a page;
- cross/: models x data sets (its section 5.3);
- sweep/ and runtime.csv, runtime.png: accuracy under each condition and training time against batch size and against
  steps an epoch (its figures 4 and 5), its own times in the CSV.

About five minutes on two quiet cores, and it goes on where it was stopped; the paper trained for hours on a GPU, so only
directions compare, not values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.config import CareConfig
from care_bridge.evaluate import read_pairs
from care_bridge.evaluate.cross import cross_evaluate, score_pairs
from care_bridge.evaluate.files import evaluate_files
from care_bridge.files import atomic_file, write_text
from care_bridge.images import Image, read_image, write_image
from care_bridge.opening import open_predictor
from care_bridge.page import COLOURS, chart
from care_bridge.page.cells import csv_text
from care_bridge.sweep import Sweep, run_sweep
from care_bridge.training.data import data_from_folders
from care_bridge.training.fit import train

CONDITIONS = {"C1": 200.0, "C2": 40.0, "C3": 10.0}  # photons at percentile 99.8
READ_NOISE = 0.8  # photons, standard deviation
TESTED = 3  # pieces of each kind that no network trains on
FILTERS = ("Gaussian", "non-local means")
SETTINGS = {
    "unet_n_first": 8,
    "unet_kern_size": 3,
    "train_batch_size": 8,
    "train_learning_rate": 2e-3,
    "train_steps_per_epoch": 50,
    "train_epochs": 8,
    "train_reduce_lr": {"factor": 0.5, "patience": 2, "min_delta": 0},
}
GRIDS = {"train_batch_size": [4, 8, 16], "train_steps_per_epoch": [10, 25, 50]}
# Tables 1 and 2 of the replication: NRMSE and SSIM of input and network, its own and the original's (Weigert et al. 2018).
# Its tribolium conditions run from dark to bright, its planaria conditions and ours the other way.
PUBLISHED = {
    ("planaria", "C1"): ((0.19068, 0.02666, 0.08384, 0.03768), (0.10476, 0.91439, 0.21176, 0.70774)),
    ("planaria", "C2"): ((0.23019, 0.03133, 0.08818, 0.03942), (0.07513, 0.89586, 0.17071, 0.70803)),
    ("planaria", "C3"): ((0.30839, 0.04347, 0.09103, 0.0478), (0.04263, 0.79344, 0.14415, 0.60972)),
    ("tribolium", "C3"): ((0.16192, 0.09671, 0.09556, 0.03301), (0.07729, 0.33225, 0.17048, 0.88278)),
    ("tribolium", "C2"): ((0.1284, 0.08481, 0.0891, 0.02751), (0.12726, 0.45318, 0.22931, 0.9067)),
    ("tribolium", "C1"): ((0.09521, 0.07256, 0.07629, 0.02356), (0.23354, 0.61392, 0.36174, 0.92217)),
}
WHOSE = ("replication, input", "replication, network", "original, input", "original, network")
# Its section 5.2: minutes of 100 epochs on one GPU.
MINUTES = {
    "train_batch_size": {8: 143, 16: 240, 32: 445, 64: 868},
    "train_steps_per_epoch": {25: 51, 100: 89, 400: 240},
}


def truths(images: Path) -> dict[str, list[np.ndarray]]:
    """Pieces of 256 x 256 of each kind of structure; the last three are for testing."""
    hela = read_image(images / "hela" / "hela_lyso_mito_nuc_cyx_uint16.tif").data[1]
    bpae = read_image(images / "hela" / "bpae_mito_uint16.tif").data
    discs = read_image(images / "cardio" / "zdisc_confocal_uint16.tif").data
    return {
        "mito": [hela[:256, x : x + 256] for x in (0, 256)]
        + [
            bpae[y : y + 256, x : x + 256]
            for y, x in ((100, 100), (100, 420), (360, 680), (380, 420), (100, 760))
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


def write_pairs(out: Path, pieces: Sequence[np.ndarray], *, seed: int, folders: bool) -> None:
    """Noisy and clean TIFFs: a folder a condition with truths that all share, or all in one folder."""
    random = np.random.default_rng(seed)
    for number, piece in enumerate(pieces):
        low, high = np.percentile(piece, (0.1, 99.8))
        clean = np.clip((piece - low) / (high - low), 0, None)
        for name, bright in CONDITIONS.items():
            photons = random.poisson(clean * bright) + random.normal(0, READ_NOISE, clean.shape)
            file = f"{name}/{number}.tif" if folders else f"{number}_{name}.tif"
            write_image(out / "source" / file, Image((photons / bright).astype(np.float32), "YX"))
            truth = f"{number}.tif" if folders else file
            write_image(out / "target" / truth, Image(clean.astype(np.float32), "YX"))


def write_published(path: Path) -> None:
    """The replication's tables as `care-bridge evaluate --published` reads them."""
    rows = [
        {"condition": condition, "method": f"{whose} ({kind})", "nrmse": nrmse, "ssim": ssim}
        for (kind, condition), (errors, similarities) in PUBLISHED.items()
        for whose, nrmse, ssim in zip(WHOSE, errors, similarities, strict=True)
    ]
    write_text(path, csv_text(rows))


def prepared(images: Path, out: Path) -> list[str]:
    """Write all pairs and train a network for each kind; what is finished is left alone."""
    kinds = truths(images)
    write_published(out / "published.csv")
    for kind, pieces in kinds.items():
        folder = out / kind / "train"
        if not (out / kind / "test").is_dir():
            write_pairs(folder, pieces[:-TESTED], seed=0, folders=False)
            write_pairs(out / kind / "test", pieces[-TESTED:], seed=1, folders=True)
        data = data_from_folders(
            folder / "source", folder / "target", patch_size=(64, 64), n_patches_per_image=24
        )
        config = CareConfig(data.axes, **SETTINGS, provenance={"data": data.provenance})
        train(config, data.training, data.validation, out / kind / "model", resume=True)
    return list(kinds)


def conditions(kinds: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Input, network and filters under each condition, the papers' values beside them; a report a kind."""
    rows = []
    for kind in kinds:
        folder = out / kind
        found = evaluate_files(
            folder / "model",
            folder / "test" / "source",
            folder / "test" / "target",
            out=folder / "report.html",
            train_source=folder / "train" / "source",
            train_target=folder / "train" / "target",
            conditions="subfolders",
            published=out / "published.csv",
            applications=1,
            filters=FILTERS,
        )
        for sentence in found.condition_sentences():
            print(f"{kind}: {sentence}", flush=True)
        for one in found.by_condition():
            if one.published and kind != kinds[0]:
                continue  # once in the table
            rows.append(
                {"data": one.method.partition("(")[2].rstrip(")") if one.published else kind}
                | {"condition": one.condition, "photons": "" if one.published else CONDITIONS[one.condition]}
                | {"what": {"once": "network"}.get(one.method, one.method.partition(" (")[0])}
                | {"images": one.images or "", "seconds": one.seconds}
                | {
                    key: one.scores[key].mean if key in one.scores else ""
                    for key in ("nrmse", "psnr", "ssim")
                }
            )
    write_text(out / "conditions.csv", csv_text(rows))
    return rows


def cross(kinds: Sequence[str], out: Path) -> None:
    """Each model on each kind's unseen images of condition C2."""
    models = {kind: open_predictor(out / kind / "model", runtime="keras") for kind in kinds}
    sets = {
        kind: read_pairs(out / kind / "test" / "source" / "C2", out / kind / "test" / "target")
        for kind in kinds
    }
    matrix = cross_evaluate(models, sets)
    matrix.save(out / "cross")
    print(matrix, flush=True)


def sweep(out: Path, epochs: int) -> list[dict[str, Any]]:
    """Networks of every batch size and every number of steps, each scored under every condition."""
    folder = out / "mito"
    test = folder / "test"
    rows: list[dict[str, Any]] = []
    for key, values in GRIDS.items():
        asked = Sweep(
            str(folder / "train" / "source"),
            str(folder / "train" / "target"),
            grid={key: values},
            settings={**SETTINGS, "train_epochs": epochs},
            patch_size=(64, 64),
            n_patches_per_image=24,
        )
        place = out / "sweep" / key
        for one in run_sweep(asked, place):
            predictor = open_predictor(place / one.name, runtime="keras")
            for name in CONDITIONS:
                scores = score_pairs(predictor, read_pairs(test / "source" / name, test / "target"))
                rows.append(
                    {"setting": key.removeprefix("train_"), "value": one.settings[key], "condition": name}
                    | {"nrmse": scores.nrmse, "psnr": scores.psnr, "ssim": scores.ssim}
                    | {"seconds": one.seconds, "epochs": one.epochs}
                    | {"replication: minutes of 100 epochs": MINUTES[key].get(one.settings[key], "")}
                )
                print(
                    f"{key} {one.settings[key]:3} {name}: {one.seconds:.1f} s, NRMSE {scores.nrmse:.4f}, "
                    f"SSIM {scores.ssim:.3f}",
                    flush=True,
                )
    write_text(out / "runtime.csv", csv_text(rows))
    draw(rows, out / "runtime.png")
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """As the replication's figures 4 and 5: accuracy under each condition, and time, against each setting."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure, axes = chart(3, len(settings), size=(3.6 * len(settings), 6.6))
    labels = {"nrmse": "NRMSE", "ssim": "SSIM (Gaussian 1.5)", "seconds": "training time (s)"}
    for column, setting in enumerate(settings):
        mine = [row for row in rows if row["setting"] == setting]
        values = list(dict.fromkeys(row["value"] for row in mine))
        for axis, (key, text) in zip(axes[:, column], labels.items(), strict=True):
            for place, name in enumerate(CONDITIONS if key != "seconds" else ["C1"]):
                line = [row[key] for row in mine if row["condition"] == name]
                colour = "black" if key == "seconds" else COLOURS[place]
                axis.plot(
                    range(len(values)),
                    line,
                    "o-",
                    color=colour,
                    label=f"{name}, {CONDITIONS[name]:g} photons",
                )
            axis.set_xticks(range(len(values)), values)
            axis.set_ylim(0, 1.1 * max(row[key] for row in rows))
            axis.margins(x=0.15)
            if column == 0:
                axis.set_ylabel(text)
        axes[2, column].set_xlabel({"batch_size": "batch size", "steps_per_epoch": "steps an epoch"}[setting])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("conditions", "cross", "sweep"),
        default=("conditions", "cross", "sweep"),
    )
    parser.add_argument("--epochs", type=int, default=3, help="of each network of the sweep")
    given = parser.parse_args()
    kinds = prepared(given.images, given.out)
    if "conditions" in given.parts:
        conditions(kinds, given.out)
    if "cross" in given.parts:
        cross(kinds, given.out)
    if "sweep" in given.parts:
        sweep(given.out, given.epochs)


if __name__ == "__main__":
    main()
