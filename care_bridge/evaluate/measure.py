"""Measure a model on pairs with a ground truth."""

from __future__ import annotations

import math
import platform
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import __version__
from care_bridge.defaults import APPLICATIONS, TargetScale
from care_bridge.errors import InputError
from care_bridge.evaluate.applications import Omission, verdict
from care_bridge.evaluate.baselines import Baseline, tune
from care_bridge.evaluate.certainty import Answers, TrainingInputs, judge, training_inputs
from care_bridge.evaluate.evaluation import INPUT, SINGLE, Evaluation, Row, Shown, application_name
from care_bridge.evaluate.histograms import Saturation, made_by_writer, wasserstein_1
from care_bridge.evaluate.pairs import Pair, naming, seen_in_training
from care_bridge.evaluate.profiles import Line
from care_bridge.evaluate.registration import pair_warnings
from care_bridge.evaluate.robustness import Point, curves
from care_bridge.evaluate.scores import Scores, comparable, fields, score_image, valid_pixels
from care_bridge.evaluate.views import View, view
from care_bridge.images import Image
from care_bridge.metrics import align
from care_bridge.noise import Noise, NoiseRange, measure_channels, unlike
from care_bridge.predictor import ImagesOnly, Predictor, Runtime, apply_repeatedly, mean_channels, not_again
from care_bridge.progress import Progress, silent
from care_bridge.words import counted, listed

SHOWN = 12
"""Images whose pictures are kept until it is known which are the best, the middle and the worst."""


def evaluate(
    predictor: Predictor,
    pairs: Sequence[Pair],
    *,
    members: Sequence[Predictor] = (),
    training: Sequence[Pair] = (),
    trained_on: Collection[str] = (),
    trained_noise: NoiseRange | None = None,
    target_scale: TargetScale = "own",
    temperature: float | None = None,
    applications: int = APPLICATIONS,
    baselines: Sequence[str] | None = None,
    robustness: bool = False,
    line: Line | None = None,
    model: str = "",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a model on pairs that it was not trained on.

    Parameters
    ----------
    predictor : Predictor
        The model; of a probabilistic one the means are scored. For an ensemble, its mean.
    pairs : sequence of Pair
    members : sequence of Predictor
        Of an ensemble: their mean is then the restoration, their mixture the interval, their disagreement D.
    training : sequence of Pair
        Training pairs: baselines are tuned on these, and inputs unlike them are flagged. Without any, the
        baselines are tuned on the evaluated pairs, which flatters the filters, and the report says so.
    trained_on : collection of str
        SHA-256 of files that the model was trained on; with such images, or with those of `training`, among the
        pairs there is no verdict.
    trained_noise : NoiseRange, optional
        The noise that the model was trained with; a source with another is warned of. None knows nothing.
    target_scale : {"own", "source", "fitted"}
        On whose scale the model answers, as its config.json says; intervals are held against the truth on it: by
        percentiles of each image, in the source's grey levels, or fitted to them.
    temperature : float, optional
        Of its config.json. The mixture of `members` is stretched by it; a single model has it in its widths.
    applications : int
        How many times in a row.
    baselines : sequence of str, optional
        Keys of `baselines.FILTERS`; empty for none. None takes all that are here: six, and BM3D where its package is.
    robustness : bool
        Whether to measure curves against noise, blur and intensity (16 more predictions of up to 2 images).
    line : Line, optional
        For profiles. None chooses one across much structure, for each image.
    model : str
        Name for the report.
    settings : mapping, optional
        Further lines for the end of the report (paths, hashes, seed).
    progress : Progress

    Returns
    -------
    Evaluation
        Every number and the pictures for `write_report`.

    Raises
    ------
    InputError
        If there is no pair, only some have a condition, channels or sizes do not fit, or a truth has no range.
    """
    if not pairs:
        raise InputError("no pair to evaluate; give a folder of images and one of their ground truths")
    without = [pair.name for pair in pairs if not pair.condition]
    if without and len(without) < len(pairs):
        raise InputError(
            f"{len(without)} of {counted(len(pairs), 'pair')} have no condition: {listed(without)}; name one for each, or "
            "for none"
        )
    if applications < 1:
        raise InputError(f"applications must be at least 1; received {applications}")
    reason = not_again(predictor) if applications > 1 else ""
    if reason:
        warnings.warn(f"{reason}: evaluated after one application", stacklevel=2)
        applications = 1
    asked = _Asked(
        predictor,
        tuple(members),
        applications,
        tuple(_tuned(pairs, training, baselines, progress)),
        line,
        training_inputs(training, members),
        trained_noise or NoiseRange(),
        Answers(target_scale, temperature),
    )
    measured: list[_Measured] = []
    for number, pair in enumerate(pairs):
        progress(number, len(pairs), "images")
        with naming(pair):
            found = _measure(pair, asked)
        with_pictures = sum(one.view is not None and one.view.shown is not None for one in measured) < SHOWN
        measured.append(found if with_pictures else found.without_pictures())
    progress(len(pairs), len(pairs), "images")
    points = _robustness(asked.whole, pairs[:2], progress) if robustness else []
    about = {
        "runtime": str(predictor.runtime),
        "applications": applications,
        "members": len(members) or 1,
        "baselines tuned on": asked.filters[0].tuned_on if asked.filters else "none used",
        "training images given": len(training),
        **(settings or {}),
        "care_bridge": __version__,
        **_versions(),
        "platform": f"{platform.platform()}, Python {platform.python_version()}",
    }
    known = {*trained_on, *(sha for pair in training for sha in pair.hashes)}
    return _gather(
        measured,
        asked,
        model=model,
        robustness=points,
        settings=about,
        trained_on=seen_in_training(pairs, known),
    )


@dataclass(frozen=True)
class _Ensemble(ImagesOnly):
    """The mean of several predictors, as one."""

    members: Sequence[Predictor]

    @property
    def runtime(self) -> Runtime:
        return self.members[0].runtime

    def predict(self, image: Image) -> Image:
        return _mean_of([member.predict(image) for member in self.members])


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is done with every pair."""

    predictor: Predictor
    members: tuple[Predictor, ...]
    applications: int
    filters: tuple[Baseline, ...]
    line: Line | None
    known: TrainingInputs
    trained_noise: NoiseRange
    answers: Answers

    @property
    def whole(self) -> Predictor:
        """The model, or the mean of an ensemble."""
        return _Ensemble(self.members) if self.members else self.predictor


@dataclass(frozen=True, eq=False)
class _Restored:
    """One source, restored in every way.

    Attributes
    ----------
    images, seconds : mapping by method
        Means only; `input` stands first where it can be scored.
    members : list of Image
        What each member of an ensemble, or the only net, gave in its first application.
    """

    images: dict[str, Image]
    seconds: dict[str, float]
    members: list[Image]


@dataclass(frozen=True, eq=False)
class _Measured:
    """What one pair gave."""

    name: str
    rows: list[Row]
    warnings: tuple[str, ...]
    member_nrmse: list[float]
    view: View | None
    noise: tuple[Noise, ...]

    def without_pictures(self) -> _Measured:
        return replace(self, view=self.view and replace(self.view, shown=None))


def _tuned(
    pairs: Sequence[Pair], training: Sequence[Pair], names: Sequence[str] | None, progress: Progress
) -> list[Baseline]:
    if names is not None and not names:
        return []
    used = training or pairs
    usable = [(p.source, p.target) for p in used if comparable(p.source, p.target)]
    if not usable:
        return []
    where = (
        counted(len(usable), "training image")
        if training
        else "the evaluated images themselves, which flatters the filters (give the training images)"
    )
    return tune(usable, tuned_on=where, names=names, progress=progress)


def _measure(pair: Pair, asked: _Asked) -> _Measured:
    """Restore one pair's source in every way, score each result, and look at one plane of them."""
    notes = pair_warnings(pair.source, pair.target) if comparable(pair.source, pair.target) else []
    noise = measure_channels(pair.source)
    other = unlike(pair.source, asked.trained_noise, measured=noise)
    notes += [other] if other else []
    restored = _restore(pair, asked)
    clipped = made_by_writer(restored.images["once"], pair.target)
    notes += [clipped] if clipped else []
    rows = [
        Row(
            pair.name,
            method,
            restored.seconds[method],
            _scores(image, pair).as_dict(),
            _distance(image, pair.target, pair.mask),
            pair.condition,
        )
        for method, image in restored.images.items()
    ]
    member_nrmse: list[float] = []
    if len(restored.members) > 1:
        scored = [_scores(mean_channels(one, like=pair.source), pair).as_dict() for one in restored.members]
        member_nrmse = [one["nrmse"] for one in scored]
        average = {key: float(np.mean([one[key] for one in scored])) for key in scored[0]}
        seconds = restored.seconds["once"] / len(restored.members)
        rows.append(Row(pair.name, SINGLE, seconds, average, math.nan, pair.condition))
    seen = view(
        pair, restored.images, restored.members, line=asked.line, known=asked.known, answers=asked.answers
    )
    return _Measured(pair.name, rows, tuple(notes), member_nrmse, seen, noise)


def _restore(pair: Pair, asked: _Asked) -> _Restored:
    source = pair.source
    same = comparable(source, pair.target)
    images, seconds = ({INPUT: source}, {INPUT: math.nan}) if same else ({}, {})
    started = time.perf_counter()
    each = [one.predict(source) for one in asked.members or (asked.predictor,)]
    means = mean_channels(_mean_of(each) if asked.members else each[0], like=source)
    images["once"], seconds["once"] = means, time.perf_counter() - started
    if asked.applications > 1:
        started = time.perf_counter()
        again = apply_repeatedly(asked.whole, means, applications=asked.applications - 1)
        for application, result in enumerate(again, start=2):
            name = application_name(application)
            images[name], seconds[name] = mean_channels(result, like=source), time.perf_counter() - started
            started = time.perf_counter()
    for baseline in asked.filters if same else ():
        started = time.perf_counter()
        images[baseline.name] = baseline.predict(source)
        seconds[baseline.name] = time.perf_counter() - started
    return _Restored(images, seconds, each)


def _mean_of(results: Sequence[Image]) -> Image:
    if len({one.shape for one in results}) != 1:
        raise InputError("the members of the ensemble give results of different shapes")
    return results[0].replace(data=np.mean([one.data for one in results], axis=0, dtype=np.float32))


def _scores(image: Image, pair: Pair) -> Scores:
    return score_image(image, pair.target, mask=pair.mask)


def _distance(image: Image, target: Image, mask: NDArray[np.bool_] | None) -> float:
    each = []
    for (_, given), (_, truth) in zip(fields(image), fields(target), strict=True):
        valid = valid_pixels(given, truth, mask=mask)
        each.append(wasserstein_1(*align(np.asarray(given)[valid], np.asarray(truth)[valid])))
    return float(np.mean(each))


def _robustness(whole: Predictor, pairs: Sequence[Pair], progress: Progress) -> list[Point]:
    few = [(p.source, p.target) for p in pairs if comparable(p.source, p.target)]
    return curves(whole, few, progress=progress) if few else []


def _gather(
    measured: Sequence[_Measured],
    asked: _Asked,
    *,
    model: str,
    robustness: Sequence[Point],
    settings: Mapping[str, Any],
    trained_on: tuple[str, ...],
) -> Evaluation:
    """All images in one value."""
    rows = [row for one in measured for row in one.rows]
    # Pairs from memory may share a name, so views are kept in order rather than by name.
    views = [(one.name, one.view) for one in measured if one.view is not None]
    series = tuple(seen.series for _, seen in views if seen.series)
    shown = _order_shown([seen.shown for _, seen in views if seen.shown is not None], rows)
    first = next((seen for _, seen in views if shown and seen.shown is shown[0]), None)
    sure = [(name, seen.certainty) for name, seen in views if seen.certainty is not None]
    methods = [INPUT, *(application_name(k + 1) for k in range(asked.applications)), SINGLE]
    methods += [baseline.name for baseline in asked.filters]
    present = {row.method for row in rows}
    return Evaluation(
        model=model,
        images=tuple(one.name for one in measured),
        methods=tuple(method for method in methods if method in present),
        rows=tuple(rows),
        warnings={one.name: one.warnings for one in measured if one.warnings},
        baselines=asked.filters,
        series=series,
        applications_verdict=verdict(series) if series else None,
        omissions=_summed([lost for _, seen in views for lost in seen.omissions]),
        peaks=tuple(peaks for _, seen in views for peaks in seen.peaks),
        profiles=first.profiles if first else {},
        histograms=first.histograms if first else (),
        saturations=_mean_saturations([seen.saturations for _, seen in views]),
        reliability=judge(
            sure,
            member_nrmse=[one.member_nrmse for one in measured if one.member_nrmse],
            answers=asked.answers,
        ),
        robustness=tuple(robustness),
        foreign={name: seen.foreign for name, seen in views if seen.foreign},
        settings=settings,
        shown=shown,
        trained_on=trained_on,
        noise=tuple((one.name, number, noise) for one in measured for number, noise in enumerate(one.noise)),
    )


def _order_shown(shown: Sequence[Shown], rows: Sequence[Row]) -> tuple[Shown, ...]:
    """The middle image, the worst and the best by the NRMSE of the first application."""
    errors = {row.image: row.scores["nrmse"] for row in rows if row.method == "once"}
    ranked = sorted(shown, key=lambda one: errors.get(one.name, math.inf))
    if not ranked:
        return ()
    places = dict.fromkeys([len(ranked) // 2, len(ranked) - 1, 0])
    return tuple(ranked[place] for place in places)


def _summed(rows: Sequence[Omission]) -> tuple[Omission, ...]:
    keys = dict.fromkeys((row.by, row.group) for row in rows)
    return tuple(
        Omission(
            by,
            group,
            sum(r.n for r in rows if (r.by, r.group) == (by, group)),
            sum(r.omitted for r in rows if (r.by, r.group) == (by, group)),
        )
        for by, group in keys
    )


def _mean_saturations(each: Sequence[Mapping[str, Saturation]]) -> dict[str, Saturation]:
    names = dict.fromkeys(name for one in each for name in one)
    found = {}
    for name in names:
        known = [one[name] for one in each if name in one]
        found[name] = replace(
            known[0],
            at_low=float(np.mean([one.at_low for one in known])),
            at_high=float(np.mean([one.at_high for one in known])),
        )
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in ("numpy", "scipy", "scikit-image"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
