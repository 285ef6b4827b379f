"""From a model folder and image files to a report in files: what `care-bridge evaluate` does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.config import TARGET_SCALES
from care_bridge.defaults import APPLICATIONS, INTERVAL
from care_bridge.errors import InputError
from care_bridge.evaluate.conditions import SUBFOLDERS, read_published
from care_bridge.evaluate.evaluation import Evaluation
from care_bridge.evaluate.measure import evaluate
from care_bridge.evaluate.pairs import Pair, files_trained_on, read_pairs
from care_bridge.evaluate.profiles import Line
from care_bridge.evaluate.reliability import interval_images
from care_bridge.evaluate.report import write_json, write_report
from care_bridge.evaluate.tables import read_table
from care_bridge.files import sha256, writable_folder
from care_bridge.images import Image, write_image
from care_bridge.model_files import stated_config
from care_bridge.model_names import model_path
from care_bridge.opening import open_guard, open_members, open_predictor
from care_bridge.predictor import Predictor, scale_channels
from care_bridge.progress import Progress, silent


def evaluate_files(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    json_file: str | os.PathLike[str] | None = None,
    images_out: str | os.PathLike[str] | None = None,
    interval: float = INTERVAL,
    train_source: str | os.PathLike[str] | None = None,
    train_target: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    axes: str | None = None,
    channel: int | None = None,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
    conditions: str | os.PathLike[str] | None = None,
    published: str | os.PathLike[str] | None = None,
    applications: int = APPLICATIONS,
    filters: Sequence[str] | None = None,
    robustness: bool = False,
    line: Line | None = None,
    sweep: str | os.PathLike[str] | None = None,
    cross: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Judge a model on image files, and write the report and what else is wanted.

    Parameters
    ----------
    model : path
        A model folder, or the name of a model of the zoo; of an ensemble's the members are judged as well.
    source, target : path
        Two folders of images of equal names, or two files.
    out : path
        The report, .html; its tables go into a folder beside it.
    json_file : path, optional
        All numbers as JSON.
    images_out : path, optional
        Folder for restored images, of probabilistic models also the bounds of an interval and the disagreement.
    interval : float
        Mass of that interval, 0-1.
    train_source, train_target : path, optional
        Training images, on which filters are tuned.
    masks, axes, channel, source_suffix, target_suffix
        See `pairs.read_pairs`.
    conditions : str or path, optional
        "subfolders", or a table of image and condition, see `pairs.read_pairs`: scores are given for each.
    published : path, optional
        CSV of scores that others published for the conditions, see `conditions.read_published`; they stand beside ours.
    applications, filters, robustness, line
        See `measure.evaluate`; `filters` is its `baselines`.
    sweep, cross : path, optional
        CSV files to show in the report as well.
    progress : Progress

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Before anything is computed, if a file cannot be read or a result would have no place or replace an image.
    """
    model, source, target, out = model_path(model), Path(source), Path(target), Path(out)
    if (train_source is None) != (train_target is None):
        raise InputError("--train-source and --train-target belong together; give both or none")
    json_path, folder = _optional(json_file), _optional(images_out)
    _check_places(out, json_path)
    if folder is not None:
        _check_replaces_nothing(folder, {"SOURCE": source, "TARGET": target, "--masks": _optional(masks)})
    for place in (out.parent, json_path.parent if json_path else None, folder):
        if place is not None:
            writable_folder(place)
    tables = [read_table(path) if path else [] for path in (sweep, cross)]
    naming: dict[str, Any] = {
        "axes": axes, "channel": channel, "source_suffix": source_suffix, "target_suffix": target_suffix
    }  # fmt: skip
    pairs = read_pairs(source, target, masks=masks, conditions=conditions, **naming)
    known = sorted({pair.condition for pair in pairs} - {""})
    others = read_published(published, known) if published is not None else []
    if folder is not None:
        for condition in known if str(conditions) == SUBFOLDERS else []:
            _check_replaces_nothing(folder / condition, {"TARGET": target, "--masks": _optional(masks)})
    training = read_pairs(train_source, train_target, **naming) if train_source and train_target else []
    members = open_members(model)
    predictor = members[0] if members else open_predictor(model, runtime="keras")
    guard = open_guard(model, opened=members or [predictor])
    config = stated_config(model)
    temperature = None if config is None else config.temperature
    found = evaluate(
        predictor,
        pairs,
        members=members,
        training=training,
        trained_on=files_trained_on(model),
        trained_noise=guard.noise,
        target_scale="own" if config is None else config.target_scale,
        temperature=temperature,
        applications=applications,
        baselines=filters,
        robustness=robustness,
        line=line,
        model=model.name,
        settings={
            "source": source.name,
            "target": target.name,
            **model_hashes(model),
            **_scale(model),
            "SHA-256 of sources and targets": {pair.name: " ".join(pair.hashes) for pair in pairs},
        },
        progress=progress,
    )
    noise = {pair.name: [one for name, _, one in found.noise if name == pair.name] for pair in pairs}
    likeness = {pair.name: guard.look(pair.source, noise[pair.name]) for pair in pairs}
    found = dataclasses.replace(found, guard=likeness, published=tuple(others))
    write_report(found, out, sweep=tables[0], cross=tables[1])
    if json_path is not None:
        write_json(found, json_path)
    if folder is not None:
        write_images(
            folder, pairs, members or [predictor], interval, temperature=temperature if members else None
        )
    return found


def write_images(
    folder: str | os.PathLike[str],
    pairs: Sequence[Pair],
    members: Sequence[Predictor],
    interval: float = INTERVAL,
    *,
    temperature: float | None = None,
) -> None:
    """Write restored images, and interval bounds and D where the model has them, as float32 TIFFs.

    Parameters
    ----------
    folder : path
    pairs : sequence of Pair
        Their sources are restored.
    members : sequence of Predictor
        An ensemble's, or one; several are averaged.
    interval : float
        Mass of the interval, 0-1.
    temperature : float, optional
        Of an ensemble, what its mixture is stretched by.
    """
    for pair in pairs:
        results = [member.predict(pair.source) for member in members]
        stem = pair.name.removesuffix(".tif").removesuffix(".tiff")
        if scale_channels(results[0], like=pair.source) is None:
            write_image(Path(folder) / f"{stem}.tif", _mean(results))
            continue
        sure = interval_images(results, like=pair.source, level=interval, temperature=temperature or 1.0)
        named = {"": sure.mean, "-low": sure.low, "-high": sure.high, "-D": sure.disagreement}
        for suffix, image in named.items():
            if image is not None:
                place = Path(folder) / f"{stem}{suffix}.tif"
                write_image(place, image, provenance=f"interval of mass {interval:g}")


def model_hashes(model: str | os.PathLike[str]) -> Mapping[str, Any]:
    """SHA-256 of a model's settings and weights, or of its file."""
    folder = Path(model)
    if folder.is_file():
        return {f"SHA-256 of {folder.name}": sha256(folder)}
    files = sorted([*folder.glob("config.json"), *folder.glob("**/weights_best.h5")])
    return {f"SHA-256 of {file.relative_to(folder)}": sha256(file) for file in files}


def _scale(model: Path) -> Mapping[str, str]:
    """On what scale a model was trained to answer, where it says."""
    config = stated_config(model)
    return (
        {}
        if config is None
        else {"target scale": f"{config.target_scale}: {TARGET_SCALES[config.target_scale]}"}
    )


def _mean(results: Sequence[Image]) -> Image:
    return results[0].replace(data=np.mean([one.data for one in results], axis=0, dtype=np.float32))


def _check_places(out: Path, json_file: Path | None) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {str(out)!r} must end in .html")
    for file in (out, json_file):
        if file is not None and file.is_dir():
            raise InputError(f"{str(file)!r} is a folder, so no file can be written there; name a file")
    if json_file is not None and json_file.resolve() == out.resolve():
        raise InputError(f"--json and --out are the same file, {str(out)!r}; give two names")


def _check_replaces_nothing(images_out: Path, read: Mapping[str, Path | None]) -> None:
    for option, path in read.items():
        if path is None:
            continue
        folder = path if path.is_dir() else path.parent
        if images_out.resolve() == folder.resolve():
            raise InputError(
                f"--images-out {str(images_out)!r} is the folder of {option}: its images would be replaced"
            )


def _optional(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
