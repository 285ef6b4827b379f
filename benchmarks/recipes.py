"""Do networks of a few hundred steps beat six filters on unseen images of the shipped recipes, and how long does each take?

    python benchmarks/recipes.py --data DIR --out recipes [--only mito cardio ...] [--steps 420] [--seed 0]

What a person would type: `simulate RECIPE`, `train`, `evaluate --train-source`; 16 features, kernel 3, 8 patches of 64 x 64
a step. Recipes of clean images take fields of 224 x 224 pixels of DIR (hela/ for mito, cardio/ for cardio), every fourth of
which tests and never trains; recipes that draw their samples are drawn with another seed. Filters are tuned on the training
pairs. Written to DIR: RECIPE/report.html, RECIPE/evaluation.json (all of it), results.csv (PSNR, SSIM and the median
seconds an image of input, network and filters). Finished recipes are read again, others go on from their checkpoint. Exit
code 1 unless every network is above all filters in PSNR and SSIM.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from care_bridge.evaluate.files import evaluate_files
from care_bridge.evaluate.report import write_json
from care_bridge.files import write_text
from care_bridge.images import Image, read_image, write_image
from care_bridge.page.cells import csv_text
from care_bridge.simulate.folder import write_pairs
from care_bridge.simulate.recipe import Recipe, load_recipe
from care_bridge.training.from_files import train_from_files
from care_bridge.training.presets import SHORT

FIELD_PX, TESTED_EVERY, MOST_FIELDS = 224, 4, 20
DRAWN_TO_TRAIN, DRAWN_TO_TEST = 24, 6
EPOCHS = 7
SETTINGS = {**SHORT, "unet_n_first": 16, "train_batch_size": 8, "train_augment": ("flips", "rot90")}
OF_IMAGES, DRAWN = ("mito", "cardio"), ("tubules", "granules", "sarcomeres")


def fields(data: Path, recipe: str) -> Iterator[tuple[str, np.ndarray]]:
    """Fields with structure of the real clean images, named."""
    if recipe == "cardio":
        images = {"zdisc": read_image(data / "cardio" / "zdisc_confocal_uint16.tif").data}
    else:
        # Rows from 470 on hold a zeroed box.
        images = {
            "hela": read_image(data / "hela" / "hela_lyso_mito_nuc_cyx_uint16.tif").data[1, :470],
            "bpae": read_image(data / "hela" / "bpae_mito_uint16.tif").data,
        }
    for name, image in images.items():
        bright = np.percentile(image, 99.9)
        places = itertools.product(*(range(0, size - FIELD_PX + 1, FIELD_PX) for size in image.shape))
        for y, x in places:
            field = image[y : y + FIELD_PX, x : x + FIELD_PX]
            if np.percentile(field, 99) > 0.25 * bright:
                yield f"{name}-{y}-{x}", field


def make_pairs(recipe: str, out: Path, data: Path, seed: int) -> None:
    """Training and test pairs of a recipe, in folders."""
    if (out / "test" / "manifest.csv").is_file():
        return
    if recipe in DRAWN:
        values = load_recipe(recipe).model_dump()
        for part, number, drawn in (("train", DRAWN_TO_TRAIN, seed), ("test", DRAWN_TO_TEST, seed + 1000)):
            values["clean"] |= {"images": number}
            write_pairs(Recipe.model_validate(values), out=out / part, seed=drawn)
        return
    found = list(fields(data, recipe))
    for place in np.linspace(0, len(found) - 1, min(MOST_FIELDS, len(found))).astype(int):
        name, field = found[place]
        part = "test" if place % TESTED_EVERY == TESTED_EVERY - 1 else "train"
        pixel_um = {"Y": 0.1, "X": 0.1}
        write_image(out / f"clean-{part}" / f"{name}.tif", Image(field, "YX", pixel_size_um=pixel_um))
    for part in ("train", "test"):
        write_pairs(load_recipe(recipe), [out / f"clean-{part}"], out=out / part, seed=seed)


def trained(recipe: str, given: argparse.Namespace) -> Path:
    """Model folder of a recipe's network; pairs are made and it is trained where that was not done before."""
    folder = given.out / recipe
    model = folder / "model"
    if not (folder / "evaluation.json").is_file():
        make_pairs(recipe, folder, given.data, given.seed)
        train_from_files(
            folder / "train" / "source",
            folder / "train" / "target",
            out=model,
            settings={
                **SETTINGS,
                "seed": given.seed,
                "train_epochs": EPOCHS,
                "train_steps_per_epoch": max(1, round(given.steps / EPOCHS)),
            },
            resume=(model / "config.json").is_file(),
            say=lambda text: print(f"{recipe}: {text}", flush=True),
        )
    return model


def measured(recipe: str, given: argparse.Namespace) -> Mapping[str, Any]:
    """Everything that the evaluation of a recipe's network found."""
    folder = given.out / recipe
    done = folder / "evaluation.json"
    if not done.is_file():
        several = len(load_recipe(recipe).sets) > 1
        found = evaluate_files(
            trained(recipe, given),
            folder / "test" / "source",
            folder / "test" / "target",
            out=folder / "report.html",
            train_source=folder / "train" / "source",
            train_target=folder / "train" / "target",
            conditions=folder / "test" / "manifest.csv" if several else None,
        )
        write_json(found, done)
    return dict(json.loads(done.read_text(encoding="utf-8")))


def table(recipe: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a method: means over the test images, median time of an image."""
    rows = []
    for method in found["methods"]:
        summary = found["summary"][method]
        times = [row["seconds"] for row in found["rows"] if row["method"] == method]
        rows.append(
            {"recipe": recipe, "method": {"once": "network"}.get(method, method)}
            | {"images": summary["psnr"]["n"]}
            | {key: round(summary[key]["mean"], 4) for key in ("psnr", "ssim")}
            | {"seconds": None if None in times else round(float(np.median(times)), 4)}
        )
    return rows


def beaten(rows: list[dict[str, Any]]) -> bool:
    """Whether the network, applied once, is above every filter in PSNR and in SSIM."""
    (network,) = (row for row in rows if row["method"] == "network")
    others = [row for row in rows if row["method"] not in ("network", "twice", "input")]
    return all(network[key] > row[key] for row in others for key in ("psnr", "ssim"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("recipes"))
    parser.add_argument("--only", nargs="+", choices=(*OF_IMAGES, *DRAWN), default=(*OF_IMAGES, *DRAWN))
    parser.add_argument("--steps", type=int, default=420, help="of training, for each network")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows, good = [], True
    for recipe in given.only:
        mine = table(recipe, measured(recipe, given))
        rows += mine
        write_text(given.out / "results.csv", csv_text(rows))
        good &= beaten(mine)
        for row in mine:
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.3f} s"
            print(
                f"{recipe:11} {row['method']:16} {row['psnr']:6.2f} dB  SSIM {row['ssim']:.3f}  {seconds}",
                flush=True,
            )
        print(f"{recipe:11} {'above' if beaten(mine) else 'NOT above'} all filters", flush=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
