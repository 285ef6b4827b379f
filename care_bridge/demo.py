"""The whole story in a few minutes: pairs, training, a bundle, Fiji's TensorFlow, and a report that shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge import __version__
from care_bridge.comparing.page import add_histogram, add_pictures, add_rows
from care_bridge.comparing.report import ParityReport
from care_bridge.config import CareConfig
from care_bridge.defaults import DEMO_EPOCHS, SEED, TF1_OF_FIJI
from care_bridge.errors import InputError
from care_bridge.evaluate.baselines import Baseline, tune
from care_bridge.evaluate.pairs import read_pairs
from care_bridge.evaluate.planes import Plane, on_truth, plane_of
from care_bridge.evaluate.profiles import profile, structured_line
from care_bridge.evaluate.scores import score_image
from care_bridge.files import writable_folder, write_text
from care_bridge.images import Image, list_images, read_image, write_image
from care_bridge.levels import why_not
from care_bridge.page import NOT_FOR_QUANTIFICATION, Page, Picture, chart
from care_bridge.predictor import apply_repeatedly, mean_channels
from care_bridge.progress import Progress, silent

BETTER_DB = 1.0
"""A restoration is plainly better than its input when its PSNR is higher by so much."""

RECIPE_DRAWN, RECIPE_IMAGES = "tubules", "semisynthetic"

N_PATCHES = 1600
CONFIG: dict[str, Any] = {
    "unet_n_first": 16,
    "unet_kern_size": 3,
    "train_batch_size": 8,
    "train_steps_per_epoch": 100,
    "train_learning_rate": 1e-3,
    "train_reduce_lr": {"factor": 0.5, "patience": 3, "min_delta": 0},
    "train_augment": ("flips", "rot90"),
}


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo made.

    Attributes
    ----------
    report, bundle, model : Path
    scores : list of dict
        PSNR, SSIM and NRMSE of the input, the tuned Gaussian filter, restored once and twice.
    parity : mapping of str to ParityReport
        By version of TensorFlow 1.x.
    not_run : mapping of str to str
        Versions that are not on this machine, and the command that adds them.
    """

    report: Path
    bundle: Path
    model: Path
    scores: list[dict[str, Any]]
    parity: dict[str, ParityReport]
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def gain_db(self) -> float:
        """PSNR of the restored image minus that of its input."""
        by_name = {row["image"]: row["PSNR (dB)"] for row in self.scores}
        return float(by_name["restored"] - by_name["input"])

    @property
    def good(self) -> bool:
        """Restored is plainly better than the input, and both sides agree wherever they were compared."""
        return self.gain_db >= BETTER_DB and all(report.passed for report in self.parity.values())

    @property
    def verdict(self) -> str:
        """A few sentences for the top of the report."""
        by_name = {row["image"]: row["PSNR (dB)"] for row in self.scores}
        again = float(by_name["restored twice"] - by_name["restored"])
        quality = (
            f"Restoring raises the PSNR of an image that the network never saw by {self.gain_db:.1f} dB; restoring the "
            f"result once more {'gains' if again > 0 else 'costs'} {abs(again):.1f} dB."
        )
        gaussian = max(value for name, value in by_name.items() if name.startswith("Gaussian"))
        if gaussian > by_name["restored"]:
            quality += (
                f" A Gaussian filter tuned on the same images does better ({gaussian:.1f} dB against "
                f"{by_name['restored']:.1f}): train longer, or on more images."
            )
        if not self.parity:
            return (
                f"{quality} Fiji's TensorFlow is not on this machine, so nothing was compared with Fiji; "
                "run: care-bridge doctor --install tf1"
            )
        if all(report.passed for report in self.parity.values()):
            worst = max(row.max_abs for report in self.parity.values() for row in report.rows)
            return (
                f"{quality} Python and Fiji's TensorFlow ({' and '.join(sorted(self.parity))}) give the same image, once "
                f"and twice in a row: no pixel differs by more than {worst:.0e} of the intensity range."
            )
        failed = [version for version, report in self.parity.items() if not report.passed]
        return f"{quality} But TensorFlow {' and '.join(failed)} does not agree with Python; see the table."


@dataclass(frozen=True, eq=False)
class _Data:
    """Pairs to train on, and the one that is kept out of training."""

    training: list[tuple[Image, Image]]
    source: Image
    target: Image
    origin: str


def run_demo(
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    hold_out: str | None = None,
    epochs: int = DEMO_EPOCHS,
    seed: int = SEED,
    progress: Progress = silent,
) -> DemoResult:
    """Make or read training pairs, train, export, run in Fiji's TensorFlow, compare, and write a report.

    Parameters
    ----------
    out : path
        Folder for everything: `pairs/`, `model/`, `fiji/` (the bundle and how to use it), `images/`,
        `report.html` and its numbers.
    images : path, optional
        Folder of clean images to degrade. None draws tubules.
    source, target : path, optional
        Folders of a person's own pairs, equal names; instead of `images`.
    hold_out : str, optional
        File name of the pair that is kept out of training and shown in the report. None takes the last one.
    epochs : int
        Of 100 steps each.
    seed : int
    progress : Progress

    Returns
    -------
    DemoResult

    Raises
    ------
    InputError
        If only one of `source` and `target` is given, fewer than two images are there, or `hold_out` is not
        among them.
    """
    if (source is None) != (target is None):
        raise InputError("own pairs need both folders: give source and target")
    if source is not None and images is not None:
        raise InputError("give clean images to degrade, or pairs of source and target, not both")
    if source is not None and target is not None:
        _check_pairs(source, target, hold_out)
        folder = writable_folder(out)
        data = _own_pairs(source, target, hold_out)
    else:
        if images is not None:
            _clean_files(images)
        folder = writable_folder(out)
        data = _simulate(folder / "pairs", images, hold_out, seed, progress)
    # First, as it refuses pairs without structure, which cost the minutes of training otherwise.
    progress(0, 1, "tuning the Gaussian filter")
    gaussian = tune(data.training, tuned_on="the training images", names=("Gaussian",))[0]
    model = _train(data, folder / "model", epochs=epochs, seed=seed, progress=progress)
    return _show(folder, data, gaussian, model, progress)


# Data ----------------------------------------------------------------------------------------------------------


def _check_pairs(
    source: str | os.PathLike[str], target: str | os.PathLike[str], hold_out: str | None
) -> None:
    """Refuse, by the headers of a person's pairs, what one network of one channel cannot learn."""
    from care_bridge.patches import pairs_from_folders

    pairs = pairs_from_folders(source, target)
    flat = [pair.name for pair in pairs if "Z" not in pair.source.axes]
    deep = [pair.name for pair in pairs if "Z" in pair.source.axes]
    if flat and deep:
        raise InputError(
            f"the pairs mix images ({_some(flat)}) and stacks ({_some(deep)}); put one kind into folders of its own"
        )
    problems = [
        f"{pair.name} has axes {pair.source.axes} (source) and {pair.target.axes} (target); the demo takes one "
        "channel and one time point on both sides, care-bridge train takes more"
        for pair in pairs
        if set(pair.source.axes) - set("ZYX") or pair.target.axes != pair.source.axes
    ]
    if problems:
        raise InputError("\n".join(problems))
    _held_out([pair.name for pair in pairs], hold_out)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _own_pairs(source: str | os.PathLike[str], target: str | os.PathLike[str], hold_out: str | None) -> _Data:
    found = read_pairs(source, target)
    both, names = [(pair.source, pair.target) for pair in found], [pair.name for pair in found]
    return _hold_one_out(both, names, hold_out, f"pairs of {os.fspath(source)} and {os.fspath(target)}")


def _clean_files(images: str | os.PathLike[str]) -> list[Path]:
    files = list_images(images)
    if not files:
        raise InputError(f"no TIFF in {os.fspath(images)!r}; give a folder of clean images")
    return files


def _simulate(
    folder: Path, images: str | os.PathLike[str] | None, hold_out: str | None, seed: int, progress: Progress
) -> _Data:
    from care_bridge.simulate.dataset import make_pairs

    recipe, clean = RECIPE_DRAWN, None
    if images is not None:
        recipe, clean = RECIPE_IMAGES, [read_image(file) for file in _clean_files(images)]
    pairs = []
    for pair in make_pairs(recipe, clean, seed):
        pairs.append(pair)
        progress(len(pairs), max(len(pairs), 16), "making training pairs")
        for side, image in (("source", pair.source), ("target", pair.target)):
            # 32-bit: the simulated values are floats, and TIFF holds them as they are.
            write_image(folder / side / f"{pair.name}.tif", image.replace(data=image.data.astype(np.float32)))
    # All pairs of one clean image stay on one side, or the network would have seen the answer.
    origin = (
        "tubules drawn and degraded" if images is None else f"clean images of {os.fspath(images)}, degraded"
    )
    groups = [pair.image for pair in pairs]
    both = [(pair.source, pair.target) for pair in pairs]
    return _hold_one_out(both, groups, hold_out, f"{origin} (recipe {recipe!r})")


def _held_out(names: Sequence[str], hold_out: str | None) -> str:
    """Name of the image that is kept out of training."""
    if len(set(names)) < 2:
        raise InputError(
            f"{len(set(names))} image is there; one is kept out to look at, so give at least two"
        )
    # Pairs are called by their file, simulated images by its stem; people type either.
    stems = {Path(name).stem: name for name in names}
    wanted = stems.get(Path(hold_out).stem, hold_out) if hold_out else names[-1]
    if wanted not in names:
        raise InputError(f"hold_out={wanted!r} is not among the images: {', '.join(sorted(set(names)))}")
    return wanted


def _hold_one_out(
    pairs: Sequence[tuple[Image, Image]], names: Sequence[str], hold_out: str | None, origin: str
) -> _Data:
    wanted = _held_out(names, hold_out)
    training = [pair for pair, name in zip(pairs, names, strict=True) if name != wanted]
    source, target = pairs[len(names) - 1 - list(reversed(names)).index(wanted)]
    return _Data(training, source, target, origin)


# Training ------------------------------------------------------------------------------------------------------


def _train(data: _Data, folder: Path, *, epochs: int, seed: int, progress: Progress) -> Path:
    from care_bridge.patches import pairs_from_arrays, sample_patches
    from care_bridge.training.fit import train

    first = data.training[0][0]
    space = "".join(letter for letter in first.axes if letter in "ZYX")
    if "C" in first.axes:
        raise InputError(
            f"the demo restores images of one channel; these have axes {first.axes!r}: use care-bridge train"
        )
    sources, targets = zip(*data.training, strict=True)
    pairs = pairs_from_arrays(
        [image.data for image in sources], [image.data for image in targets], axes=first.axes
    )
    patch = dict(zip("ZYX", (16, 64, 64) if "Z" in space else (64, 64, 64), strict=True))
    patches = sample_patches(
        pairs,
        patch_size=[
            min(patch[letter], min(image.size(letter) for image in sources) // 4 * 4) for letter in space
        ],
        n_patches_per_image=max(1, N_PATCHES // len(pairs)),
        axes=space,
        seed=seed,
    )
    training, validation = patches.split(0.1, seed=seed)
    config = CareConfig(axes=f"{space}C", seed=seed, train_epochs=epochs, **CONFIG)
    train(config, training.load(), validation.load(), folder, overwrite=True, progress=progress)
    return folder


# Results -------------------------------------------------------------------------------------------------------


def _show(folder: Path, data: _Data, gaussian: Baseline, model: Path, progress: Progress) -> DemoResult:
    from care_bridge.comparing.sides import compare, recommended_options
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.opening import open_predictor

    shutil.rmtree(folder / "fiji", ignore_errors=True)
    name = f"care_{data.source.axes.lower()}"
    bundle = write_bundle(model, folder / "fiji" / f"{name}.zip")
    options = recommended_options(bundle, nTiles=1)
    here = open_predictor(model, "emulation", runtime="keras", options=options)
    reports: dict[str, ParityReport] = {}
    not_run: dict[str, str] = {}
    for version in reversed(TF1_OF_FIJI):
        reason = why_not("tf1", version=version)
        if reason:
            not_run[version] = reason
            continue
        progress(len(reports), len(TF1_OF_FIJI), "running Fiji's TensorFlow")
        reports[version] = compare(
            reference=here, candidate=bundle, image=data.source, level="tf1", version=version, options=options
        )
    if reports:
        restored = [next(iter(reports.values())).results[f"candidate {number}"] for number in (1, 2)]
    else:
        restored = list(apply_repeatedly(here, data.source, applications=2))
    # The plugin loses the calibration; what is kept for people has it.
    calibration = {"pixel_size_um": data.source.pixel_size_um, "unit": data.source.unit}
    restored = [mean_channels(image, like=data.source).replace(**calibration) for image in restored]
    shown = {
        "input": data.source,
        f"Gaussian filter ({gaussian.settings})": gaussian.predict(data.source),
        "restored": restored[0],
        "restored twice": restored[1],
        "truth": data.target,
    }
    for label, image in shown.items():
        file = folder / "images" / f"{label.split(' (')[0].replace(' ', '_')}.tif"
        write_image(file, image.replace(data=image.data.astype(np.float32)))
    result = DemoResult(
        report=folder / "report.html",
        bundle=bundle,
        model=model,
        scores=[_score(label, image, data.target) for label, image in shown.items() if label != "truth"],
        parity=reports,
        not_run=not_run,
    )
    _write_report(result, data, shown, gaussian, options)
    return result


def _score(label: str, image: Image, target: Image) -> dict[str, Any]:
    found = score_image(image, target)
    return {"image": label, "PSNR (dB)": found.psnr, "SSIM": found.ssim, "NRMSE": found.nrmse}


def _write_report(
    result: DemoResult, data: _Data, shown: dict[str, Image], gaussian: Baseline, options: Any
) -> None:
    page = Page("CARE in Fiji, and the proof", verdict=result.verdict, good=result.good)
    pixel_um = data.source.pixel_size_um.get("X")
    truth = plane_of(data.target)
    planes = {label: on_truth(plane_of(image), truth) for label, image in shown.items()}
    _add_images(page, result, data, planes)
    _add_scores(page, result, data, gaussian)
    _add_profiles(page, planes, pixel_um)
    _add_parity(page, result)
    _add_how_to(page, result, options)
    numbers = json.dumps(_numbers(result), indent=2)
    page.attach("demo.json", numbers)
    write_text(result.report.with_suffix(".json"), numbers + "\n")
    page.save(result.report, data_folder=result.report.parent / "report_data")


def _add_images(page: Page, result: DemoResult, data: _Data, planes: dict[str, Plane]) -> None:
    pixel_um = data.source.pixel_size_um.get("X")
    page.slider(
        planes["input"],
        planes["restored"],
        labels=("input", "restored"),
        pixel_um=pixel_um,
        caption=f"{data.source.name or 'The image'}: kept out of training"
        + (", restored in Fiji's TensorFlow" if result.parity else "")
        + ". Drag to compare.",
    )
    page.pictures(
        [Picture(picture, label) for label, picture in planes.items()],
        pixel_um=pixel_um,
        caption="All on the scale of the truth (least squares); the pictures zoom together.",
    )


def _add_scores(page: Page, result: DemoResult, data: _Data, gaussian: Baseline) -> None:
    page.section(
        "How good is it?", f"Trained on {data.origin}; scored on an image that was kept out of training."
    )
    page.table(
        [*result.scores],
        caption="Against the truth (percentiles 0.1 and 99.9 of the truth as range, then a least-squares fit)",
        name="scores",
    )
    page.text(
        f"The Gaussian filter was tuned on the same training images ({gaussian.settings}): a network that "
        "cannot beat it proves nothing."
    )
    page.text(NOT_FOR_QUANTIFICATION, important=True)


def _add_parity(page: Page, result: DemoResult) -> None:
    """Whether Fiji's TensorFlow agrees, and what could not be run."""
    for version, report in result.parity.items():
        page.section(f"Does Fiji agree? TensorFlow {version}", report.verdict)
        add_rows(page, report.rows)
        add_pictures(page, report.results)
        add_histogram(page, report.results, settings=report.settings)
        page.settings({"Python's side": str(report.reference), "Fiji's side": str(report.candidate)})
    if result.not_run:
        page.section("Not run on this machine")
        page.settings({f"TensorFlow {version}": reason for version, reason in result.not_run.items()})


def _add_how_to(page: Page, result: DemoResult, options: Any) -> None:
    """What to do in Fiji, and what was run here."""
    page.section("In Fiji", "Four clicks; the same text lies beside the bundle.")
    how_to = result.bundle.parent / "HOW-TO-RUN-IN-FIJI.txt"
    with suppress(OSError):
        # The file's columns of names and values, as a page without fixed widths can show them.
        page.text(re.sub(r"(?<=\S) {2,}(?=\S)", ": ", how_to.read_text(encoding="utf-8")))
    page.section("What was run")
    page.settings(
        {
            "care_bridge": __version__,
            "bundle": result.bundle.name,
            "plugin options": ", ".join(
                f"{name} {value}" for name, value in asdict(options).items() if value is not None
            ),
            "level": "tf1: the plugin's arithmetic around the TensorFlow that Fiji runs"
            if result.parity
            else "Python only",
        }
    )


def _numbers(result: DemoResult) -> dict[str, Any]:
    return {
        "verdict": result.verdict,
        "good": result.good,
        "scores": result.scores,
        "parity": {version: report.to_dict() for version, report in result.parity.items()},
        "not_run": result.not_run,
    }


def _add_profiles(page: Page, planes: dict[str, Plane], pixel_um: float | None) -> None:
    """Intensities along a line across much structure; Fiji's Plot Profile draws the same curves."""
    line = structured_line(planes["truth"])
    labels = ("input", "restored", "restored twice", "truth")
    values = {label: profile(planes[label], line) for label in labels}
    distance = np.linspace(0, line.length_px * (pixel_um or 1.0), len(values["truth"]))
    figure, axes = chart(size=(6.4, 3.0))
    for label in labels:
        style = {"color": "black", "linewidth": 1.0} if label == "truth" else {}
        axes.plot(distance, values[label], label=label, **style)
    axes.set(xlabel="µm" if pixel_um else "pixels", ylabel="intensity")
    axes.legend(frameon=False, ncols=4, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    rows = [
        {"distance": float(place), **{label: float(values[label][number]) for label in labels}}
        for number, place in enumerate(distance)
    ]
    page.figure(figure, caption=f"Intensity profile along {line}", data=rows, name="profiles")


def summary(result: DemoResult) -> str:
    """What the command line prints."""
    lines = [f"{'':34}  PSNR    SSIM    NRMSE"]
    lines += [
        f"{row['image']:34}  {row['PSNR (dB)']:5.2f}  {row['SSIM']:6.3f}  {row['NRMSE']:7.4f}"
        for row in result.scores
    ]
    for version, report in result.parity.items():
        lines += ["", f"TensorFlow {version}", str(report)]
    lines += [f"\nTensorFlow {version} was not run: {reason}" for version, reason in result.not_run.items()]
    return "\n".join([*lines, "", result.verdict, f"report  {result.report}", f"bundle  {result.bundle}"])
