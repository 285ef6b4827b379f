"""A model of the zoo measured on real pairs that it never saw, against filters tuned on training images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge import text
from care_bridge.errors import InputError
from care_bridge.evaluate import Pair, read_pairs
from care_bridge.evaluate.pairs import seen_in_training
from care_bridge.evaluate.planes import Plane, on_truth
from care_bridge.evaluate.scores import score_image
from care_bridge.files import atomic_file, scratch_folder, write_text
from care_bridge.images import PATTERN, Image
from care_bridge.opening import open_predictor
from care_bridge.page import display_limits, png
from care_bridge.predictor import Predictor, mean_channels
from care_bridge.progress import Progress, silent
from care_bridge.zoo.cards import INPUT, RESTORED, write_card
from care_bridge.zoo.checking import trained_on
from care_bridge.zoo.entry import COVER, EVALUATION, FAILURE, Entry, read_entry
from care_bridge.zoo.rivals import Rivals, error_of, rivals_of

PANEL_PX = 256
"""Side of each of a picture's three panels."""

_OF_SET = ("name", "what", "source", "licence", "class", "images", "truths", "image_suffix", "truth_suffix")
_MORE_OF_SET = ("only", "pictures", "axes", "channel", "pattern")
_OF_TUNING = ("what", "images", "truths", "image_suffix", "truth_suffix", "axes", "channel", "pattern")


@dataclass(frozen=True)
class TestSet:
    """Real pairs of one origin.

    Attributes
    ----------
    name, what, source, licence, licence_class : str
        As they stand on the card; `source` is an address.
    pairs : tuple of Pair
    pictures : bool
        Whether small pieces of these images may be shown: their licence allows it.
    """

    name: str
    what: str
    source: str
    licence: str
    licence_class: str
    pairs: tuple[Pair, ...]
    pictures: bool = False


@dataclass(frozen=True)
class Tests:
    """What a model is measured on, and what filters are tuned on.

    Attributes
    ----------
    sets : tuple of TestSet
    tuning : tuple of Pair
        Training images.
    tuned_on : str
        What these are, in words.
    """

    sets: tuple[TestSet, ...]
    tuning: tuple[Pair, ...]
    tuned_on: str


def read_tests(path: str | os.PathLike[str], *, factor: float | None = None) -> Tests:
    """Read a tests.toml: ``[[sets]]`` of test images, and ``[tuning]`` with training images.

    Parameters
    ----------
    path : path
        Folders in it are relative to its own. A set has name, what, source (an address), licence, class, images and
        truths (folders; of one folder, with image_suffix and truth_suffix), and may have pattern (which files), only
        (words of names), pictures, axes, channel. Tuning has what, images, truths, the suffixes, pattern.
    factor : float, optional
        Of a model that fills up stacks: truths have so many times as many planes. None: as many.

    Raises
    ------
    InputError
        If something is missing, with all that is.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there are no tests at {str(path)!r}; write a tests.toml, see docs/zoo.md")
    told = text.read(path, "TOML")
    told = told if isinstance(told, Mapping) else {}
    sets, tuning = told.get("sets"), told.get("tuning")
    problems = []
    if not isinstance(sets, list) or not sets or not all(isinstance(one, Mapping) for one in sets):
        problems.append("[[sets]]: at least one set of test images")
        sets = []
    if not isinstance(tuning, Mapping):
        problems.append("[tuning]: training images that filters are tuned on")
        tuning = {}
    for number, one in enumerate(sets):
        asked = [key for key in _OF_SET if not key.endswith("_suffix") and not one.get(key)]
        problems += [f"sets[{number}].{key}: missing" for key in asked]
        problems += [f"sets[{number}].{key}: no key" for key in one if key not in (*_OF_SET, *_MORE_OF_SET)]
        if one.get("pictures") and one.get("class") not in ("A", "drawn"):
            problems.append(
                f"sets[{number}].pictures: images of class {one.get('class')!r} are not shown on a card; only class A is"
            )
    if isinstance(tuning, Mapping) and tuning:
        problems += [f"tuning.{key}: missing" for key in ("what", "images", "truths") if not tuning.get(key)]
        problems += [f"tuning.{key}: no key" for key in tuning if key not in _OF_TUNING]
    if problems:
        raise InputError(f"{str(path)!r} is not complete:\n" + "\n".join(f"  {one}" for one in problems))
    return Tests(
        tuple(_read_set(one, path.parent, factor or 1.0) for one in sets),
        tuple(_read(tuning, path.parent, factor or 1.0)),
        str(tuning["what"]),
    )


def _read_set(told: Mapping[str, Any], beside: Path, factor: float) -> TestSet:
    pairs = _read(told, beside, factor)
    if only := told.get("only"):
        pairs = [pair for pair in pairs if any(str(word) in pair.name for word in only)]
        if not pairs:
            raise InputError(f"{told['name']}: no image has a name with one of {', '.join(map(str, only))}")
    return TestSet(
        name=str(told["name"]),
        what=str(told["what"]),
        source=str(told["source"]),
        licence=str(told["licence"]),
        licence_class=str(told["class"]),
        pairs=tuple(pairs),
        pictures=bool(told.get("pictures")),
    )


def _read(told: Mapping[str, Any], beside: Path, factor: float) -> list[Pair]:
    return read_pairs(
        beside / str(told["images"]),
        beside / str(told["truths"]),
        source_suffix=told.get("image_suffix"),
        target_suffix=told.get("truth_suffix"),
        axes=told.get("axes"),
        channel=told.get("channel"),
        pattern=str(told.get("pattern", PATTERN)),
        factor=factor,
    )


def evaluate_model(entry: Entry, tests: Tests, *, cost: bool = True, progress: Progress = silent) -> Entry:
    """Measure a model, and write evaluation.json, its pictures and its card into its folder.

    Parameters
    ----------
    entry : Entry
    tests : Tests
    cost : bool
        Also say what a run costs on this machine.
    progress : Progress

    Returns
    -------
    Entry
        Read anew.

    Raises
    ------
    InputError
        If a test image is among those that the model was trained on.
    """
    known = set(trained_on(entry))
    for one in tests.sets:
        if seen := seen_in_training(one.pairs, known):
            raise InputError(
                f"{one.name}: {', '.join(seen)} was seen in training; test {entry.name} on others"
            )
    if set(sum((pair.hashes for pair in tests.tuning), ())) & {
        digest for one in tests.sets for pair in one.pairs for digest in pair.hashes
    }:
        raise InputError("filters would be tuned on the test images; tune them on training images")
    rivals = rivals_of(entry, tests.tuning, tuned_on=tests.tuned_on, stacks=_any_stack(tests))
    ways: dict[str, Callable[[Image], Image]] = {INPUT: rivals.as_input}
    total = sum(len(one.pairs) for one in tests.sets)
    measured, shown = [], []
    with open_predictor(entry.folder, runtime="keras") as predictor:
        ways[RESTORED] = lambda image: _restored(predictor, image)
        ways |= rivals.ways
        done = 0
        for one in tests.sets:
            images = []
            for pair in one.pairs:
                images.append(_measured(pair, ways, rivals))
                done += 1
                progress(done, total, "measuring")
            measured.append(_set(one, images))
            if one.pictures:
                shown += [(image, pair, one) for image, pair in zip(images, one.pairs, strict=True)]
        captions = _pictures(entry, shown, predictor, rivals)
    found = {
        "hashes": entry.hashes(),
        "tuned": rivals.tuned,
        "sets": measured,
        "pictures": captions,
        "cost": _cost(entry) if cost else {},
    }
    write_text(entry.folder / EVALUATION, json.dumps(found, indent=1) + "\n")
    again = read_entry(entry.folder, entry.name)
    write_card(again)
    return again


def _any_stack(tests: Tests) -> bool:
    return any(pair.source.size("Z") > 1 for one in tests.sets for pair in one.pairs)


def _restored(predictor: Predictor, image: Image) -> Image:
    return mean_channels(predictor.predict(image), like=image)


def _measured(pair: Pair, ways: Mapping[str, Callable[[Image], Image]], rivals: Rivals) -> dict[str, Any]:
    scores = {way: _scores(function(pair.source), pair) for way, function in ways.items()}
    for way, candidates in rivals.oracles.items():
        tried = list(candidates(pair.source))
        if tried:
            scores[way] = _scores(min(tried, key=partial(error_of, truth=pair.target)), pair)
    return {"name": pair.name, "sha256": list(pair.hashes), "scores": scores}


def _scores(image: Image, pair: Pair) -> dict[str, float]:
    found = score_image(image, pair.target, mask=pair.mask)
    return {"psnr": round(found.psnr, 4), "ssim": round(found.ssim, 5)}


def _set(one: TestSet, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mean = {
        way: {
            key: round(float(np.mean([image["scores"][way][key] for image in images])), 4)
            for key in ("psnr", "ssim")
        }
        for way in images[0]["scores"]
        if all(way in image["scores"] for image in images)
    }
    return {
        "name": one.name,
        "what": one.what,
        "source": one.source,
        "licence": one.licence,
        "class": one.licence_class,
        "mean": mean,
        "images": list(images),
    }


# --- pictures


def _pictures(
    entry: Entry,
    shown: Sequence[tuple[Mapping[str, Any], Pair, TestSet]],
    predictor: Predictor,
    rivals: Rivals,
) -> dict[str, str]:
    """Cover: the image with the middle gain; failure: the one with the least; what stands below each."""
    if not shown:
        return {}
    ranked = sorted(shown, key=lambda one: _gain(one[0]))
    captions = {}
    for name, file, (image, pair, origin) in (
        ("failure", FAILURE, ranked[0]),
        ("cover", COVER, ranked[len(ranked) // 2]),
    ):
        restored = _restored(predictor, pair.source)
        seen = (rivals.as_input(pair.source), restored, pair.target)
        panels = _panels(*map(rivals.plane, seen))
        with atomic_file(entry.folder / file) as part:
            part.write_bytes(png(np.concatenate(panels, axis=1), limits=display_limits(panels[-1])))
        scores = image["scores"]
        captions[name] = (
            f"{pair.name} ({origin.name}; {origin.source}, licence {origin.licence}): input "
            f"{scores[INPUT]['psnr']:.1f} dB, restored {scores[RESTORED]['psnr']:.1f} dB, truth. "
            + (
                "The test image with the middle gain."
                if name == "cover"
                else "The test image with the least gain."
            )
        )
    return captions


def _gain(image: Mapping[str, Any]) -> float:
    return float(image["scores"][RESTORED]["psnr"] - image["scores"][INPUT]["psnr"])


def _panels(source: Plane, restored: Plane, truth: Plane) -> list[Plane]:
    """The piece with the most structure of each, on the truth's intensities."""
    cut = max(_cuts(truth), key=lambda one: float(np.std(truth[one])))
    return [
        on_truth(plane, truth)[cut] if plane is not truth else truth[cut]
        for plane in (source, restored, truth)
    ]


def _cuts(plane: Plane) -> Iterator[tuple[slice, slice]]:
    sides = [min(PANEL_PX, size) for size in plane.shape]
    steps = [max(side // 2, 1) for side in sides]
    for y in range(0, plane.shape[0] - sides[0] + 1, steps[0]):
        for x in range(0, plane.shape[1] - sides[1] + 1, steps[1]):
            yield slice(y, y + sides[0]), slice(x, x + sides[1])


def _cost(entry: Entry) -> dict[str, str]:
    from care_bridge.export.cost import inference_cost
    from care_bridge.export.formats import export_model

    with scratch_folder() as name:
        network = export_model(entry.folder, Path(name) / "network.onnx", format="onnx").path
        space = entry.config.axes.replace("C", "")
        shape = [1, *(32 if letter == "Z" else 256 for letter in space), entry.config.n_channel_in]
        image = Path(name) / "image.npy"
        np.save(image, np.zeros(shape, np.float32))
        return inference_cost(network, image)
