"""The claims of the five papers, one by one: what shows each here, our figure beside the paper's, and whether it holds.

    python benchmarks/papers.py --rows 000-4,003-6 --data ../shared/data --out papers    # these, a minute or two each
    python benchmarks/papers.py --rows all --data ../shared/data --out papers            # all that can be run
    python benchmarks/papers.py --out papers --page docs/papers.md                       # write the page, run nothing

The claims stand in benchmarks/papers.toml, numbered by paper. Each run writes OUT/rows/NUMBER.json; one that lies there is
finished and read again (--again runs it anew). Networks and pairs that rows share lie in OUT/work, and go on where they
were stopped. The page is rendered from docs/papers.json, which takes up the rows of OUT first; rows that nobody has run stay
"not run". Rows without a run of their own cite one that is recorded in a document, or say what does not exist yet.

Networks are tiny and trained for minutes on one core, with one seed: they show directions, not what a method can do.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
DOCS = HERE.parent / "docs"
STORE = DOCS / "papers.json"
CLAIMS = HERE / "papers.toml"

PAPERS = {
    "000": "Semi-Synthetic Test Data Generation and CARE of Fluorescent Microscopy Images (anonymous, 2020)",
    "001": "Content-Aware Image Restoration (Weigert et al. 2018), slides",
    "002": "Multi-defect microscopy image restoration, CIN-GAN and cGAN (Razdaibiedina et al. 2019)",
    "003": "Exploring denoising for CARE, a replication of Weigert et al.",
    "004": "c2GAN for unpaired restoration (Li et al. 2020)",
}
HOLDS = ("holds", "partly", "does not hold", "not yet", "not run")


@dataclass(frozen=True)
class Row:
    """What is known of one claim; the page shows nothing else.

    Attributes
    ----------
    number, claim : str
    shown_by : str
        Command, or what else shows it.
    paper : str
        The paper's own figure; "" where it gives none.
    here : str
        Ours.
    holds : str
        One of `HOLDS`.
    settings : str
        What was run, how small, or where it is recorded.
    document : str
        In which a run is recorded that the figure comes from; "" for a run of this row's own.
    seconds : float
        Of the run; 0 where there was none.
    """

    number: str
    claim: str
    shown_by: str
    paper: str
    here: str = ""
    holds: str = "not run"
    settings: str = ""
    document: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A claim as benchmarks/papers.toml has it.

    Attributes
    ----------
    number, claim, shown_by, paper, here, holds, settings, document
        See `Row`.
    words : str
        Of `document`, which hold the figure.
    tests, asserts : tuple of str, str
        What pytest is given, and what those tests say.
    """

    number: str
    claim: str
    shown_by: str
    paper: str = ""
    here: str = ""
    holds: str = "not run"
    settings: str = ""
    document: str = ""
    words: str = ""
    tests: tuple[str, ...] = ()
    asserts: str = ""


@dataclass(frozen=True)
class Found:
    """What a run gave: our figure, whether the claim holds, and how small it was."""

    here: str
    holds: str
    settings: str = ""


@dataclass(frozen=True)
class Work:
    """Where rows find images and keep what they share."""

    data: Path
    folder: Path
    steps: int


Run = Callable[[Work], Found]


# ---- what rows share


def tests(*arguments: str) -> tuple[int, int]:
    """How many tests passed and how many did not run or failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    said = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False).stdout
    last = said.strip().splitlines()[-1] if said.strip() else ""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    passed = counts.pop("passed", 0)
    if not passed:
        raise RuntimeError(f"no test of {arguments} passed: {last}")
    return passed, sum(counts.values())


def by_tests(words: str, *arguments: str) -> Run:
    """A row that tests show; `words` says what they assert."""

    def run(_: Work) -> Found:
        passed, others = tests(*arguments)
        return Found(
            f"{words}: {passed} tests pass" + (f", {others} do not" if others else ""),
            "holds" if not others else "does not hold",
        )

    return run


def recipe(work: Work, name: str) -> Mapping[str, Any]:
    """The evaluation of a network trained on pairs of a recipe, by benchmarks/recipes.py."""
    import recipes

    given = SimpleNamespace(out=work.folder / "recipes", data=work.data, steps=work.steps, seed=0)
    return recipes.measured(name, given)


def recipe_settings(work: Work) -> str:
    return f"16 features, kernel 3, {work.steps} steps of 8 patches of 64 x 64, one seed"


def replication(work: Work, part: str) -> list[dict[str, str]]:
    """A CSV of benchmarks/paper_003.py, which is run where it is not there."""
    import paper_003

    out = work.folder / "paper_003"
    table = (
        out / {"conditions": "conditions.csv", "cross": "cross/cross-eval.csv", "sweep": "runtime.csv"}[part]
    )
    if not table.is_file():
        kinds = paper_003.prepared(work.data, out)
        if part == "conditions":
            paper_003.conditions(kinds, out)
        elif part == "cross":
            paper_003.cross(kinds, out)
        else:
            paper_003.sweep(out, epochs=3)
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


SMALL_003 = "8 features, 400 steps of 8 patches of 64 x 64, HeLa and BPAE mitochondria and z-discs, three photon budgets"


# ---- paper 000


def minimum_filter(work: Work) -> Found:
    from care_bridge.images import read_image
    from care_bridge.simulate.degrade import minimum_filter as minimum

    passed, others = tests("tests/simulate/test_degrade.py", "-k", "minimum_filter or radius")
    noisy = read_image(work.data / "pairs_fmd" / "BPAE_R_noisy.tif").data.astype(float)
    places = [(y, x) for y in range(0, 480, 32) for x in range(0, 480, 32)]
    pieces = {(y, x): noisy[y : y + 32, x : x + 32] for y, x in places}
    bright = [place for place, piece in pieces.items() if piece.mean() > np.median(noisy)]
    y, x = min(bright, key=lambda place: pieces[place].std() / pieces[place].mean())
    sd = [
        image[y : y + 32, x : x + 32].std()
        for image in (noisy, minimum(noisy, radius_px=0.5), minimum(noisy, radius_px=1))
    ]
    return Found(
        f"pixel for pixel ImageJ's at radius 0.5 to 4 ({passed} tests); smoothest bright square of a real frame: "
        f"standard deviation {sd[0]:.2f}, {sd[1]:.2f} at 0.5 px, {sd[2]:.2f} at 1 px; a radius above a quarter of the "
        "structure is refused",
        "holds" if not others and sd[2] < sd[0] else "partly",
        "BPAE_R of FMD, of its 32 x 32 pixels above the median the smoothest",
    )


def order_of_noise(_: Work) -> Found:
    from care_bridge.simulate.degrade import gaussian, modulate, poisson

    rng = np.random.default_rng(0)
    light, photons, sigma, strength, factor = 0.5, 50.0, 0.03, 1.2, 0.6
    data = poisson(np.full((1000, 1000), light), photons=photons, reference=1.0, rng=rng)
    data = modulate(gaussian(data, sigma=sigma, intensity=strength, rng=rng), factor=factor)
    law = factor**2 * (light / photons + (strength * sigma) ** 2)
    other = factor * light / photons + (strength * sigma) ** 2
    passed, others = tests("tests/simulate/test_degrade.py", "-k", "law or order")
    return Found(
        f"variance {data.var() / law:.4f} of the law of this order, {data.var() / other:.2f} of that of light dimmed first; "
        f"{passed} tests pass",
        "holds" if not others and abs(data.var() / law - 1) < 0.01 else "does not hold",
        "a million pixels; steps in another order are said by `care-bridge simulate`",
    )


def three_sets(work: Work) -> Found:
    import recipes

    folder = work.folder / "recipes" / "mito"
    recipes.make_pairs("mito", folder, work.data, 0)
    with (folder / "train" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = len({row["image"] for row in rows})
    names = list(dict.fromkeys(row["set"] for row in rows))
    snr = [float(np.mean([float(row["snr_db"]) for row in rows if row["set"] == name])) for name in names]
    passed, others = tests("tests/simulate/test_dataset.py", "-k", "papers_images or uniform or falls")
    good = len(rows) == 3 * images and snr == sorted(snr, reverse=True) and not others
    return Found(
        f"{images} -> {len(rows)} pairs; signal to noise "
        + ", ".join(f"{name} {value:.1f} dB" for name, value in zip(names, snr, strict=True))
        + f"; {passed} tests pass (78 -> 234, drawn values uniform)",
        "holds" if good else "does not hold",
        "fields of 224 x 224 of HeLa and BPAE mitochondria",
    )


def schedules(work: Work) -> Found:
    """Both presets, scaled down: history and learning rate."""
    said, good, fell = [], True, False
    for name in ("mito", "cardio"):
        history = smoke_history(work, name)
        rates = [row["learning_rate"] for row in history]
        good &= history[-1]["val_mae"] < history[0]["val_mae"] and rates == sorted(rates, reverse=True)
        fell |= rates[-1] < rates[0]
        said.append(
            f"{name}: validation MAE {history[0]['val_mae']:.3f} -> {history[-1]['val_mae']:.3f}, rate {rates[0]:g} -> "
            f"{rates[-1]:g}"
        )
    return Found(
        "; ".join(said)
        + ("" if fell else "; no plateau came, on which it would fall")
        + "; `--schedule cosine` falls to zero",
        "holds" if good and fell else "partly" if good else "does not hold",
        "presets with --smoke: 6 epochs of 50 steps, 8 features, kernel 3",
    )


def smoke_history(work: Work, name: str) -> list[dict[str, float]]:
    """Epochs of a preset that is scaled down, trained on pairs of its recipe where that was not done."""
    import recipes

    from care_bridge.training.from_files import train_from_files
    from care_bridge.training.history import read_history

    folder = work.folder / "recipes" / name
    model = work.folder / "smoke" / name
    if not (model / "training" / "history.csv").is_file():
        recipes.make_pairs(name, folder, work.data, 0)
        pairs = folder / "train"
        train_from_files(
            pairs / "source", pairs / "target", out=model, preset=name, scaled_down=True, overwrite=True
        )
    return read_history(model)


def training_curves(work: Work) -> Found:
    said, good = [], True
    for name in ("mito", "cardio"):
        last = smoke_history(work, name)[-1]
        files = [work.folder / "smoke" / name / "training" / f"history.{end}" for end in ("csv", "png")]
        good &= all(file.is_file() for file in files)
        said.append(f"{name}: MAE {last['mae']:.3f} in training, {last['val_mae']:.3f} in validation")
    return Found(
        "; ".join(said) + "; curves of MAE, loss and rate in history.csv and history.png",
        "holds" if good else "does not hold",
        "other images and 300 steps instead of 500,000: not to be compared with the paper's values",
    )


def profiles(work: Work) -> Found:
    found = recipe(work, "mito")

    def total(method: str, key: str) -> float:
        return sum(one[key] for one in found["peaks"] if one["method"] == method)

    recall = {method: total(method, "matched") / total(method, "truth") for method in ("input", "once")}
    precise = {method: total(method, "matched") / total(method, "found") for method in ("input", "once")}
    ratios = [one["width_ratio"] for one in found["peaks"] if one["method"] == "once" and one["width_ratio"]]
    ratio = float(np.mean(ratios))
    good = recall["once"] >= 0.9 and precise["once"] > precise["input"] and 1 < ratio < 1.5
    return Found(
        f"{recall['once']:.0%} of the truth's maxima found again (input {recall['input']:.0%}), {precise['once']:.0%} of "
        f"those found are true (input {precise['input']:.0%}); width at half maximum {ratio:.2f} of the truth's",
        "holds" if good else "partly",
        f"recipe mito, a line an image, {len(found['images'])} unseen images; {recipe_settings(work)}",
    )


def in_fiji(work: Work) -> Found:
    from care_bridge.comparing.sides import compare
    from care_bridge.export.formats import export_model
    from care_bridge.images import read_image

    recipe(work, "mito")
    model = work.folder / "recipes" / "mito" / "model"
    bundle = work.folder / "mito.zip"
    export_model(model, bundle)
    image = read_image(
        next(iter(sorted((work.folder / "recipes" / "mito" / "test" / "source").glob("*.tif"))))
    )
    said, good = [], True
    for version in ("1.12.0", "1.15.0"):
        report = compare(
            reference=model, candidate=bundle, image=image, level="tf1", version=version, applications=2
        )
        good &= report.passed
        said.append(f"{max(row.max_abs for row in report.rows):.1e} in TensorFlow {version}")
    return Found(
        "largest difference to Python, applied once and twice, on the 0-1 scale: " + ", ".join(said),
        "holds" if good else "does not hold",
        "level tf1: the plugin's own TensorFlow and its tiles; a whole Fiji was not at hand",
    )


def second_application(work: Work) -> Found:
    said, gains = [], {}
    for name in ("mito", "cardio"):
        summary = recipe(work, name)["summary"]
        once, twice = (summary[method]["psnr"]["mean"] for method in ("once", "twice"))
        gains[name] = twice - once
        said.append(
            f"{name}: {once:.2f} -> {twice:.2f} dB, SSIM {summary['once']['ssim']['mean']:.3f} -> "
            f"{summary['twice']['ssim']['mean']:.3f}"
        )
    good = gains["mito"] > 0 and gains["mito"] > gains["cardio"]
    return Found(
        "; ".join(said),
        "holds" if good else "does not hold",
        f"unseen images of both recipes; {recipe_settings(work)}",
    )


def other_instrument(work: Work) -> Found:
    from care_bridge.evaluate.files import evaluate_files

    recipe(work, "mito")
    folder = work.folder / "recipes" / "mito"
    pairs = work.data / "pairs_fmd"
    found = evaluate_files(
        folder / "model",
        pairs / "BPAE_R_noisy.tif",
        pairs / "BPAE_R_gt_avg50.tif",
        out=work.folder / "other" / "report.html",
        train_source=folder / "train" / "source",
        train_target=folder / "train" / "target",
        applications=1,
        filters=("Gaussian",),
    )
    levels = {method: found.summary(method, "psnr").mean for method in ("input", "once", "Gaussian")}
    noticed = any(one.foreign for one in found.guard.values())
    return Found(
        f"input {levels['input']:.2f} dB, restored {levels['once']:.2f} dB, Gaussian {levels['Gaussian']:.2f} dB; the guard "
        f"{'says' if noticed else 'does not say'} that the image is unlike the training images",
        "holds" if levels["once"] > max(levels["input"], levels["Gaussian"]) else "does not hold",
        f"recipe mito on another confocal's mitochondria (BPAE_R of FMD); {recipe_settings(work)}",
    )


def omissions(work: Work) -> Found:
    rows = recipe(work, "mito")["omissions"]
    share = {(row["by"], row["group"]): row["omitted"] / row["n"] for row in rows if row["n"]}
    said = [f"{group} {value:.0%}" for (_, group), value in share.items()]
    dim, small = share["intensity", "dim"], share["size", "small"]
    good = dim == max(share["intensity", one] for one in ("dim", "middle", "bright")) and small > 0
    return Found(
        f"maxima of the truth that the first application leaves out, by thirds: {', '.join(said)}",
        "holds" if good else "does not hold",
        f"recipe mito, unseen images; the page of `evaluate` says it; {recipe_settings(work)}",
    )


def better_and_faster(work: Work) -> Found:
    import recipes

    said, good, faster = [], True, True
    for name in ("mito", "cardio", "tubules", "granules"):
        rows = recipes.table(name, recipe(work, name))
        (network,) = (row for row in rows if row["method"] == "network")
        filters = [row for row in rows if row["method"] not in ("network", "twice", "input")]
        best = {key: max(filters, key=lambda row, key=key: row[key]) for key in ("psnr", "ssim")}
        good &= recipes.beaten(rows)
        faster &= all(network["seconds"] < row["seconds"] for row in best.values())
        said.append(
            f"{name}: network {network['psnr']:.2f} dB, {network['ssim']:.3f}, {network['seconds']:.2f} s; "
            f"{best['psnr']['method']} {best['psnr']['psnr']:.2f} dB in {best['psnr']['seconds']:.2f} s, "
            f"{best['ssim']['method']} {best['ssim']['ssim']:.3f} in {best['ssim']['seconds']:.2f} s"
        )
    verdict = "holds" if good and faster else "partly" if good or faster else "does not hold"
    return Found(
        "; ".join(said), verdict, f"best of six tuned filters by PSNR and by SSIM; {recipe_settings(work)}"
    )


# ---- paper 001


def channels_together(work: Work) -> Found:
    """A network of two channels that share structures, against two of one channel each."""
    from care_bridge.evaluate.cross import score_pairs
    from care_bridge.evaluate.pairs import Pair, read_pairs
    from care_bridge.images import only_channel
    from care_bridge.opening import open_predictor
    from care_bridge.simulate.folder import write_pairs
    from care_bridge.simulate.recipe import Recipe, load_recipe
    from care_bridge.training.from_files import train_from_files

    folder = work.folder / "channels"
    values = load_recipe("tubules").model_dump()
    for part, number, seed in (("train", 16, 0), ("test", 6, 1000)):
        if not (folder / part / "manifest.csv").is_file():
            values["clean"] |= {"images": number, "channels": 2, "shared": 0.7, "shape": (192, 192)}
            write_pairs(Recipe.model_validate(values), out=folder / part, seed=seed)
    settings = {"unet_n_first": 12, "unet_kern_size": 3, "train_batch_size": 8, "train_epochs": 6}
    settings |= {"train_steps_per_epoch": 60, "train_learning_rate": 1e-3, "train_schedule": "cosine"}
    models = {}
    for name, channel in (("both", None), ("first", 0), ("second", 1)):
        model = folder / name
        if not (model / "weights_best.h5").is_file():
            train_from_files(
                folder / "train" / "source",
                folder / "train" / "target",
                out=model,
                settings=settings,
                channel=channel,
                overwrite=True,
            )
        models[name] = open_predictor(model, runtime="keras")
    pairs = read_pairs(folder / "test" / "source", folder / "test" / "target")
    together = score_pairs(models["both"], pairs)
    apart = []
    for channel, name in enumerate(("first", "second")):
        alone = [
            Pair(only_channel(pair.source, channel), only_channel(pair.target, channel), pair.name)
            for pair in pairs
        ]
        apart.append(score_pairs(models[name], alone))
    mean, level = (float(np.mean([getattr(one, key) for one in apart])) for key in ("nrmse", "psnr"))
    better = (together.nrmse < mean, together.psnr > level)
    return Found(
        f"NRMSE {together.nrmse:.4f} of one network of both channels, {mean:.4f} of two of one channel each "
        f"({together.psnr:.2f} against {level:.2f} dB)",
        "holds" if all(better) else "partly" if any(better) else "does not hold",
        "drawn tubules, two channels that share 70 %; 12 features, 360 steps for each network, one seed",
    )


def planes_and_stacks(work: Work) -> Found:
    from care_bridge.comparing.sides import compare
    from care_bridge.export.formats import export_model
    from care_bridge.images import Image

    said, good = [], True
    for axes, shape in (("YX", (64, 80)), ("ZYX", (16, 32, 48))):
        model, bundle = tiny(work, axes), work.folder / f"tiny-{axes}.zip"
        export_model(model, bundle)
        noise = np.random.default_rng(0).poisson(20, shape).astype(np.uint16)
        report = compare(reference=model, candidate=bundle, image=Image(noise, axes), level="tf1")
        good &= report.passed
        said.append(f"{axes}: {max(row.max_abs for row in report.rows):.1e}")
    return Found(
        "largest difference of TensorFlow 1.x to Keras, applied twice: " + "; ".join(said),
        "holds" if good else "does not hold",
        "untrained networks of 8 features",
    )


def tiny(work: Work, axes: str) -> Path:
    """A folder of an untrained network."""
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    model = work.folder / f"tiny-{axes}"
    if not model.is_dir():
        config = CareConfig(axes, unet_n_first=8, unet_kern_size=3, probabilistic=True)
        save_model(model, config, build(config))
    return model


def not_for_quantification(work: Work) -> Found:
    import zipfile

    from care_bridge.export.formats import export_model

    bundle = work.folder / "tiny-warning.zip"
    export_model(tiny(work, "YX"), bundle)
    with zipfile.ZipFile(bundle) as opened:
        name = next(one for one in opened.namelist() if one.endswith("meta.json"))
        said = json.loads(opened.read(name)).get("care_bridge", {}).get("limitations", "")
    passed, others = tests("tests/evaluate/test_report.py", "-k", "with_its_warning")
    good = "intensity-based quantification" in str(said) and not others
    return Found(
        "stands in every bundle's meta.json, in every package, in every report and in the Info of images that our scripts "
        f"restore; {passed} test passes",
        "holds" if good else "does not hold",
    )


# ---- paper 003


def conditions_in_order(work: Work) -> Found:
    rows = [row for row in replication(work, "conditions") if row["data"] in ("mito", "zdisc")]
    said, good = [], True
    for kind in ("mito", "zdisc"):
        for what in ("input", "network"):
            line = [float(row["nrmse"]) for row in rows if (row["data"], row["what"]) == (kind, what)]
            good &= line == sorted(line)
            said.append(f"{kind} {what} {', '.join(f'{value:.3f}' for value in line)}")
    return Found(
        "NRMSE from C1 (bright) to C3 (dark): " + "; ".join(said),
        "holds" if good else "does not hold",
        f"planes, not stacks; {SMALL_003}",
    )


def accuracy(work: Work) -> Found:
    rows = replication(work, "conditions")
    said, better = [], []
    for kind in ("mito", "zdisc"):
        for condition in ("C1", "C2", "C3"):
            one = {row["what"]: row for row in rows if (row["data"], row["condition"]) == (kind, condition)}
            better.append(
                float(one["network"]["nrmse"]) < float(one["input"]["nrmse"])
                and float(one["network"]["ssim"]) > float(one["input"]["ssim"])
            )
            said.append(
                f"{kind} {condition}: {float(one['input']['nrmse']):.3f} -> {float(one['network']['nrmse']):.3f}, "
                f"{float(one['input']['ssim']):.2f} -> {float(one['network']['ssim']):.2f}"
            )
    return Found(
        "NRMSE and SSIM, input -> network: " + "; ".join(said),
        "holds" if all(better) else "partly" if any(better) else "does not hold",
        f"claim taken as: better than the input under each condition; {SMALL_003}",
    )


def runtimes(work: Work) -> Found:
    rows = [row for row in replication(work, "sweep") if row["condition"] == "C2"]
    said, good = [], True
    for setting in ("batch_size", "steps_per_epoch"):
        mine = [row for row in rows if row["setting"] == setting]
        seconds = [float(row["seconds"]) for row in mine]
        good &= seconds == sorted(seconds)
        said.append(
            f"{setting.replace('_', ' ')} "
            + ", ".join(
                f"{row['value']}: {float(row['seconds']):.1f} s, NRMSE {float(row['nrmse']):.3f}"
                for row in mine
            )
        )
    batch = [float(row["seconds"]) for row in rows if row["setting"] == "batch_size"]
    factor = (batch[-1] / batch[0]) ** (1 / (len(batch) - 1))
    return Found(
        "; ".join(said) + f"; time x {factor:.2f} for each doubling of the batch",
        "holds" if good else "partly",
        "8 features, 3 epochs, one core, condition C2; curves: pictures/paper_003_runtime.png",
    )


def carried_over(work: Work) -> Found:
    cells = {(row["model"], row["dataset"]): float(row["nrmse"]) for row in replication(work, "cross")}
    kinds = ("mito", "zdisc")
    said = [f"{model} on {data} {cells[model, data]:.4f}" for data in kinds for model in kinds]
    worse = [cells[other, data] > cells[data, data] for data in kinds for other in kinds if other != data]
    return Found(
        "NRMSE: " + ", ".join(said),
        "holds" if all(worse) else "partly" if any(worse) else "does not hold",
        f"claim taken as: a model is worse on the other's images; condition C2; {SMALL_003}",
    )


def non_local_means(work: Work) -> Found:
    rows = [row for row in replication(work, "conditions") if row["data"] in ("mito", "zdisc")]
    said, slower = [], []
    for kind in ("mito", "zdisc"):
        mine = [row for row in rows if row["data"] == kind]
        level = {
            what: np.mean([float(row["psnr"]) for row in mine if row["what"] == what])
            for what in ("network", "non-local means")
        }
        times = {
            what: np.mean([float(row["seconds"]) for row in mine if row["what"] == what]) for what in level
        }
        slower.append(times["non-local means"] > times["network"])
        said.append(
            f"{kind}: {level['non-local means']:.2f} dB in {times['non-local means']:.2f} s, network "
            f"{level['network']:.2f} dB in {times['network']:.2f} s"
        )
    return Found(
        "; ".join(said),
        "holds" if all(slower) else "partly" if any(slower) else "does not hold",
        f"the fast variant of scikit-image, 256 x 256 pixels, first call of the network included; {SMALL_003}",
    )


def architecture(_: Work) -> Found:
    from care_bridge.config import CareConfig
    from care_bridge.training.presets import get_preset
    from care_bridge.training.unet import build

    settings = get_preset("planaria").settings
    network = build(CareConfig("ZYX", **settings, probabilistic=True))
    kinds = [type(layer).__name__ for layer in network.layers]
    pools, convolutions = kinds.count("MaxPooling3D"), kinds.count("Conv3D")
    good = (pools, settings["unet_kern_size"], settings["unet_n_first"]) == (2, 3, 32)
    return Found(
        f"{pools} poolings, kernel {settings['unet_kern_size']}, {settings['unet_n_first']} features, {convolutions} "
        f"convolutions, {network.count_params():,} weights, {network.outputs[0].shape[-1]} output channels",
        "holds" if good else "does not hold",
        "the 23 layers and the cropping that the text quotes are the first U-Net's; csbdeep has neither",
    )


def settings_of_training(_: Work) -> Found:
    from care_bridge.config import CareConfig
    from care_bridge.training.presets import get_preset

    wrong = []
    for name in ("planaria", "tribolium"):
        preset = get_preset(name)
        config = CareConfig("ZYX", **preset.settings)
        stated = {
            "train_batch_size": 16, "train_steps_per_epoch": 400, "train_learning_rate": 4e-4, "train_epochs": 200
        }  # fmt: skip
        wrong += [key for key, value in stated.items() if getattr(config, key) != value]
        reduce = config.train_reduce_lr or {}
        wrong += [] if (reduce.get("factor"), reduce.get("patience")) == (0.5, 10) else ["train_reduce_lr"]
        wrong += [] if preset.percentiles == (3.0, 99.8) else ["percentiles"]
    return Found(
        "presets planaria and tribolium have these values" if not wrong else f"differ in {', '.join(wrong)}",
        "holds" if not wrong else "does not hold",
    )


# ---- paper 004


def saturation(work: Work) -> Found:
    found = recipe(work, "mito")
    parts = []
    for method in ("input", "once"):
        distance = np.mean([row["wasserstein"] for row in found["rows"] if row["method"] == method])
        high = found["saturations"][method]["at_high"]
        parts.append(f"{label(method)}: {100 * distance:.2f} % of the range, {100 * high:.3f} % at the top")
    return Found(
        "Wasserstein-1 distance to the truth, and share of pixels at the type's upper end: "
        + "; ".join(parts),
        "not yet",
        f"the report exists, for a supervised network; c2GAN does not; {recipe_settings(work)}",
    )


def label(method: str) -> str:
    return {"once": "restored"}.get(method, method)


# ---- running, storing, rendering

RUNS: Mapping[str, Run] = {
    "000-1": minimum_filter,
    "000-3": order_of_noise,
    "000-4": three_sets,
    "000-7": schedules,
    "000-8": training_curves,
    "000-9": profiles,
    "000-10": in_fiji,
    "000-11": second_application,
    "000-12": other_instrument,
    "000-13": omissions,
    "000-15": better_and_faster,
    "001-4": channels_together,
    "001-5": planes_and_stacks,
    "001-9": not_for_quantification,
    "003-1": conditions_in_order,
    "003-4": architecture,
    "003-5": settings_of_training,
    "003-6": accuracy,
    "003-7": runtimes,
    "003-8": carried_over,
    "003-9": non_local_means,
    "004-3": saturation,
}
"""Rows that are measured here; those with `tests` in the list of claims are run by pytest."""


def claims() -> dict[str, Claim]:
    """All claims by their numbers, in the papers' order."""
    from care_bridge.text import read

    return {number: Claim(number=number, **words) for number, words in read(CLAIMS, "TOML").items()}


def as_stated(one: Claim) -> Row:
    """A row that nobody has run: a recorded figure, what does not exist yet, or nothing."""
    return Row(
        one.number, one.claim, one.shown_by, one.paper, one.here, one.holds, one.settings, one.document
    )


def run_of(one: Claim) -> Run | None:
    if one.tests:
        return by_tests(one.asserts, *one.tests)
    return RUNS.get(one.number)


def row_file(out: Path, number: str) -> Path:
    return out / "rows" / f"{number}.json"


def measured(one: Claim, work: Work, *, again: bool) -> Row:
    """One row: read where it is finished, else run."""
    from care_bridge.files import write_text

    place, run = row_file(work.folder.parent, one.number), run_of(one)
    if run is None:
        return as_stated(one)
    if not place.is_file() or again:
        started = time.perf_counter()
        found = run(work)
        seconds = max(0.1, round(time.perf_counter() - started, 1))
        write_text(place, as_json({**asdict(found), "seconds": seconds}))
    return replace(as_stated(one), **json.loads(place.read_text(encoding="utf-8")))


def stored() -> dict[str, Row]:
    """Rows of docs/papers.json by their numbers; none where it is not there."""
    if not STORE.is_file():
        return {}
    return {one["number"]: Row(**one) for one in json.loads(STORE.read_text(encoding="utf-8"))}


def merged(out: Path) -> list[Row]:
    """All rows: those of this run, else those stored; words are those of the list of claims."""
    known, rows = stored(), []
    for number, one in claims().items():
        row = as_stated(one)
        if run_of(one) is not None:
            if row_file(out, number).is_file():
                row = replace(row, **json.loads(row_file(out, number).read_text(encoding="utf-8")))
            elif number in known:
                kept = known[number]
                row = replace(
                    row, here=kept.here, holds=kept.holds, settings=kept.settings, seconds=kept.seconds
                )
        rows.append(row)
    return rows


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def page(rows: Sequence[Row]) -> str:
    """docs/papers.md."""
    counts = {word: sum(row.holds == word for row in rows) for word in HOLDS}
    lines = [
        "# The papers, claim by claim",
        "",
        "    python benchmarks/papers.py --rows 000-4,003-6 --data DIR --out papers",
        "    python benchmarks/papers.py --out papers --page docs/papers.md",
        "",
        "Written by `benchmarks/papers.py` from what is stored in [papers.json](papers.json); do not edit. Networks are",
        "tiny, trained for minutes on one core with one seed: they show directions, not what a method can do. The papers",
        "trained for hours or days on other images, so values do not compare. A claim is taken as its row says it.",
        "`--rows all` runs all that can be run; pairs and networks that rows share are made once.",
        "",
        f"Of {len(rows)} claims {counts['holds']} hold, {counts['partly']} hold in part, {counts['does not hold']} "
        f"{'does' if counts['does not hold'] == 1 else 'do'} not hold here, {counts['not yet']} wait for methods that do "
        f"not exist here yet, {counts['not run']} {'was' if counts['not run'] == 1 else 'were'} not run.",
    ]
    for paper, title in PAPERS.items():
        lines += ["", f"## {paper}: {title}", ""]
        lines += ["| | claim | shown by | the paper | here | |", "|---|---|---|---|---|---|"]
        for row in rows:
            if row.number.startswith(paper):
                here = row.here or "–"
                cells = (row.number, row.claim, row.shown_by, row.paper or "–", here, f"**{row.holds}**")
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        notes = [_note(row) for row in rows if row.number.startswith(paper) and row.settings]
        lines += ["", *dict.fromkeys(notes)]
    return "\n".join(lines) + "\n"


def _note(row: Row) -> str:
    where = f"; recorded in [{row.document}]({row.document})" if row.document else ""
    return f"- {row.number}: {row.settings}{where}."


def write_page(out: Path, path: Path) -> None:
    """Take the rows of `out` up into the store, and render it."""
    from care_bridge.files import write_text

    rows = merged(out)
    write_text(STORE, as_json([asdict(row) for row in rows]))
    write_text(path, page(rows))


def wanted(text: str) -> list[str]:
    """Numbers of rows, in the papers' order."""
    known = claims()
    numbers = list(known)
    if text == "all":
        return [number for number, one in known.items() if run_of(one) is not None]
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := sorted(set(asked) - set(numbers)):
        raise SystemExit(
            f"--rows: there is no {', '.join(unknown)}; there are {numbers[0]} to {numbers[-1]}, or all"
        )
    return [number for number in numbers if number in asked]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=wanted, default=[], help="numbers with commas, or all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("papers"))
    parser.add_argument("--steps", type=int, default=420, help="of training, for each network of a recipe")
    parser.add_argument("--again", action="store_true", help="run finished rows anew")
    parser.add_argument("--page", type=Path, help="write the page, and docs/papers.json")
    given = parser.parse_args()
    failed = []
    known = claims()
    work = Work(given.data, given.out / "work", given.steps)
    for number in given.rows:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = measured(known[number], work, again=given.again)
        except Exception as error:  # one row that cannot be run leaves the others theirs
            failed.append(number)
            print(f"{number}: not run ({type(error).__name__}: {error})", flush=True)
            continue
        print(f"{number} {row.holds} ({row.seconds:.0f} s): {row.here}", flush=True)
    if given.page:
        write_page(given.out, given.page)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
