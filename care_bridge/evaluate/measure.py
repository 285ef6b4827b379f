"""Measure a model on pairs with a ground truth."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import __version__
from care_bridge.defaults import APPLICATIONS
from care_bridge.errors import InputError
from care_bridge.evaluate.applications import (
    Application,
    Omission,
    compare_applications,
    omissions,
    verdict,
)
from care_bridge.evaluate.baselines import FILTERS, Baseline, tune
from care_bridge.evaluate.evaluation import (
    ALIGNED,
    INPUT,
    OWN,
    SINGLE,
    Array,
    Evaluation,
    Peaks,
    Plane,
    Reliability,
    Row,
    Shown,
    application_name,
)
from care_bridge.evaluate.histograms import (
    Saturation,
    distributions,
    made_by_writer,
    saturation,
    wasserstein_1,
)
from care_bridge.evaluate.pairs import Pair, naming
from care_bridge.evaluate.profiles import Line, compare_profiles, profile, structured_line
from care_bridge.evaluate.registration import pair_warnings
from care_bridge.evaluate.reliability import (
    Calibration,
    Mixture,
    aligned_truth,
    binned,
    block_correlation,
    calibrate,
    disagreement,
    foreign,
    input_statistics,
    laplace_nll,
)
from care_bridge.evaluate.robustness import Point, curves
from care_bridge.evaluate.scores import (
    comparable,
    fields,
    score_image,
    valid_pixels,
)
from care_bridge.images import Image
from care_bridge.metrics import TRUTH_PMAX, TRUTH_PMIN, align
from care_bridge.page import MAX_PX
from care_bridge.predictor import Predictor, apply_repeatedly, mean_channels, scale_channels
from care_bridge.progress import Progress, silent

SHOWN = 12
"""Images whose pictures are kept until it is known which are the best, the middle and the worst."""

SAMPLE_PX = 65_536
"""Pixels an image that calibration is measured on."""


def evaluate(
    predictor: Predictor,
    pairs: Sequence[Pair],
    *,
    members: Sequence[Predictor] = (),
    training: Sequence[Pair] = (),
    applications: int = APPLICATIONS,
    baselines: Sequence[str] = tuple(FILTERS),
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
    applications : int
        How many times in a row.
    baselines : sequence of str
        Keys of `baselines.FILTERS`; empty for none.
    robustness : bool
        Whether to measure curves against noise, blur and intensity (16 more predictions of up to 2 images).
    line : Line, optional
        For profiles. None chooses one across much structure, for each image.
    model : str
        Name for the report.
    settings : mapping, optional
        Further lines for the end of the report (paths, hashes, seed).
    progress : Progress

    Raises
    ------
    InputError
        If there is no pair, channels or sizes do not fit, or a truth has no range.
    """
    if not pairs:
        raise InputError("no pair to evaluate; give a folder of images and one of their ground truths")
    if applications < 1:
        raise InputError(f"applications must be at least 1; received {applications}")
    filters = _tuned(pairs, training, baselines, progress)
    methods = [INPUT, *(application_name(k + 1) for k in range(applications))]
    gathered = _Gathered()
    known = _familiar(members, training)
    for number, pair in enumerate(pairs):
        progress(number, len(pairs), "images")
        with naming(pair):
            _evaluate_pair(pair, predictor, members, applications, filters, line, known, gathered)
    progress(len(pairs), len(pairs), "images")
    ranges: list[Point] = []
    if robustness:
        few = [(p.source, p.target) for p in pairs[:2] if comparable(p.source, p.target)]
        ranges = curves(_Ensemble(members) if members else predictor, few, progress=progress) if few else []
    if len(members) > 1:
        methods.append(SINGLE)
    methods += [baseline.name for baseline in filters]
    present = {row.method for row in gathered.rows}
    order = _order_shown(gathered)
    first = order[0] if order else None
    return Evaluation(
        model=model,
        images=tuple(pair.name for pair in pairs),
        methods=tuple(method for method in methods if method in present),
        rows=tuple(gathered.rows),
        warnings=gathered.warnings,
        baselines=tuple(filters),
        series=tuple(gathered.series),
        applications_verdict=verdict(gathered.series) if gathered.series else None,
        omissions=_summed(gathered.omissions),
        peaks=tuple(gathered.peaks),
        profiles=gathered.profiles.get(first.name, {}) if first else {},
        histograms=tuple(gathered.histograms.get(first.name, ())) if first else (),
        saturations=_mean_saturations(gathered.saturations),
        reliability=_reliability(gathered, max(1, len(members))),
        robustness=tuple(ranges),
        foreign=gathered.foreign,
        settings={
            "runtime": str(predictor.runtime),
            "applications": applications,
            "members": len(members) or 1,
            "baselines tuned on": filters[0].tuned_on if filters else "none used",
            "training images given": len(training),
            **(settings or {}),
            "care_bridge": __version__,
            **_versions(),
            "platform": f"{platform.platform()}, Python {platform.python_version()}",
        },
        shown=tuple(order),
    )


@dataclass
class _Gathered:
    rows: list[Row] = field(default_factory=list)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    series: list[tuple[Application, ...]] = field(default_factory=list)
    omissions: list[Omission] = field(default_factory=list)
    peaks: list[Peaks] = field(default_factory=list)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    histograms: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    saturations: list[dict[str, Saturation]] = field(default_factory=list)
    foreign: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    sampled: list[dict[str, Array]] = field(default_factory=list)
    member_nrmse: list[list[float]] = field(default_factory=list)
    correlations: list[tuple[float, float]] = field(default_factory=list)
    d_mean: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Familiar:
    statistics: tuple[Any, ...] = ()
    d_mean: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Ensemble:
    """The mean of several predictors, as one."""

    members: Sequence[Predictor]

    @property
    def runtime(self) -> Any:
        return self.members[0].runtime

    def predict(self, image: Image) -> Image:
        each = [member.predict(image) for member in self.members]
        if len({one.shape for one in each}) != 1:
            raise InputError("the members of the ensemble give results of different shapes")
        return each[0].replace(data=np.mean([one.data for one in each], axis=0, dtype=np.float32))


def _tuned(
    pairs: Sequence[Pair], training: Sequence[Pair], names: Sequence[str], progress: Progress
) -> list[Baseline]:
    if not names:
        return []
    used = training or pairs
    usable = [(p.source, p.target) for p in used if comparable(p.source, p.target)]
    if not usable:
        return []
    where = (
        f"{len(usable)} training image{'s' * (len(usable) > 1)}"
        if training
        else "the evaluated images themselves, which flatters the filters (give the training images)"
    )
    return tune(usable, tuned_on=where, names=names, progress=progress)


def _evaluate_pair(
    pair: Pair,
    predictor: Predictor,
    members: Sequence[Predictor],
    applications: int,
    filters: Sequence[Baseline],
    line: Line | None,
    known: _Familiar,
    gathered: _Gathered,
) -> None:
    name, source, target = pair.name, pair.source, pair.target
    same = comparable(source, target)
    notes = pair_warnings(source, target) if same else []
    results: dict[str, tuple[Image, float]] = {INPUT: (source, math.nan)} if same else {}
    started = time.perf_counter()
    each = [member.predict(source) for member in members]
    whole = _Ensemble(members) if members else predictor
    first: Image | None = None
    if members:
        first = each[0].replace(data=np.mean([one.data for one in each], axis=0, dtype=np.float32))
    for number, result in enumerate(_series(whole, source, applications, first)):
        mean = mean_channels(result, like=source)
        results[application_name(number + 1)] = (mean, time.perf_counter() - started)
        if number == 0:
            first = result
            clipped = made_by_writer(mean, target)
            notes += [clipped] if clipped else []
        started = time.perf_counter()
    if same:
        for baseline in filters:
            started = time.perf_counter()
            restored = baseline.predict(source)
            results[baseline.name] = (restored, time.perf_counter() - started)
    for method, (image, seconds) in results.items():
        found = score_image(image, target, mask=pair.mask)
        gathered.rows.append(Row(name, method, seconds, found.as_dict(), _distance(image, target, pair.mask)))
    if len(each) > 1:
        scored = [
            score_image(mean_channels(one, like=source), target, mask=pair.mask).as_dict() for one in each
        ]
        gathered.member_nrmse.append([one["nrmse"] for one in scored])
        average = {key: float(np.mean([one[key] for one in scored])) for key in scored[0]}
        gathered.rows.append(Row(name, SINGLE, results["once"][1] / len(each), average, math.nan))
    if notes:
        gathered.warnings[name] = tuple(notes)
    assert first is not None
    _look_at(pair, results, each or [first], line, known, gathered)


def _series(whole: Predictor, source: Image, applications: int, first: Image | None) -> Any:
    if first is None:
        yield from apply_repeatedly(whole, source, applications=applications)
        return
    # The members have already been asked once.
    yield first
    if applications > 1:
        yield from apply_repeatedly(whole, mean_channels(first, like=source), applications=applications - 1)


def _look_at(
    pair: Pair,
    results: Mapping[str, tuple[Image, float]],
    each: Sequence[Image],
    line: Line | None,
    known: _Familiar,
    gathered: _Gathered,
) -> None:
    """Measure what is measured on one plane: applications, profiles, histograms, reliability; keep pictures."""
    name = pair.name
    truth = plane_of(pair.target)
    finite = truth[np.isfinite(truth)]
    if not finite.size or not np.ptp(np.percentile(finite, (TRUTH_PMIN, TRUTH_PMAX))):
        # The stack could be scored, but its middle plane is blank: nothing to look at.
        return
    low, high = _range(truth)
    planes: dict[str, Plane] = {}
    for method, (image, _) in results.items():
        planes[method] = _on_truth(plane_of(image), truth)
    gathered.saturations.append(
        {method: saturation(image, dtype=_saturating(image, pair)) for method, (image, _) in results.items()}
        | {"truth": saturation(pair.target)}
    )
    whole = all(np.isfinite(plane).all() for plane in (truth, *planes.values()))
    steps = [key for key in planes if key in (INPUT, "once", "twice") or key.endswith(" times")]
    if whole and INPUT in planes and min(truth.shape) >= 16:
        gathered.series.append(tuple(compare_applications([planes[key] for key in steps], truth)))
        gathered.omissions += omissions(planes["once"], truth)
    if whole and min(truth.shape) >= 8:
        chosen = line or structured_line(truth)
        curve = profile(truth, chosen)
        values = {"truth": curve} | {key: profile(plane, chosen) for key, plane in planes.items()}
        gathered.peaks += [Peaks(name, key, chosen, compare_profiles(curve, values[key])) for key in planes]
        gathered.profiles[name] = {
            "image": name,
            "line": asdict(chosen),
            "macro": str(chosen),
            "values": {key: [round(float(v), 4) for v in value] for key, value in values.items()},
        }
    histogram = {"truth": truth} | {key: planes[key] for key in steps}
    gathered.histograms[name] = distributions(
        {key: np.asarray(v, np.float64) for key, v in histogram.items()}
    )
    maps: dict[str, Plane] = {"error": np.abs(planes["once"] - truth).astype(np.float32)}
    if "twice" in planes:
        maps["change"] = np.abs(planes["twice"] - planes["once"])
    if pair.source.data.size and np.isfinite(plane_of(pair.source)).all():
        maps |= _reliable(pair, each, truth, low, high, maps["error"], gathered)
        reasons = foreign(
            input_statistics(plane_of(pair.source)),
            known.statistics,
            d_mean=gathered.d_mean.get(name),
            d_reference=known.d_mean,
        )
        if reasons:
            gathered.foreign[name] = tuple(reasons)
    if len(gathered.shown) < SHOWN:
        best = [key for key in planes if key not in steps]
        gathered.shown.append(
            Shown(
                name,
                {key: _small(planes[key]) for key in (*steps, *best)} | {"truth": _small(truth)},
                {key: _small(value) for key, value in maps.items()},
                pair.target.pixel_size_um.get("X") or pair.source.pixel_size_um.get("X"),
            )
        )


def _reliable(
    pair: Pair,
    each: Sequence[Image],
    truth: Plane,
    low: float,
    high: float,
    error: Plane,
    gathered: _Gathered,
) -> dict[str, Plane]:
    """Sample pixels for calibration, and give the maps of scale and D on the truth's intensities."""
    means = np.stack([plane_of(mean_channels(one, like=pair.source)) for one in each]).astype(np.float64)
    scales = [scale_plane(one, like=pair.source) for one in each]
    if any(scale is None for scale in scales) or not np.isfinite(truth).all():
        return {}
    widths = np.maximum(np.stack([s for s in scales if s is not None]).astype(np.float64), 1e-12)
    mixture = Mixture(means, widths)
    slope = _slope(mixture.mean, truth)
    spread = np.sqrt(mixture.variance / 2)
    maps = {"scale": (slope * spread).astype(np.float32)}
    # Percentile units: of the source for what the net gives, of the truth for the truth.
    source = plane_of(pair.source)
    s_low, s_high = _range(source)
    unit = (s_high - s_low) or 1.0
    step = max(1, math.ceil(math.sqrt(truth.size / SAMPLE_PX)))
    pick = (slice(None, None, step), slice(None, None, step))
    sample = {
        "means": ((means - s_low) / unit)[(slice(None), *pick)].reshape(len(each), -1),
        "scales": (widths / unit)[(slice(None), *pick)].reshape(len(each), -1),
        "truth": ((truth.astype(np.float64) - low) / ((high - low) or 1.0))[pick].ravel(),
    }
    gathered.sampled.append(sample)
    d_correlation = math.nan
    if len(each) > 1:
        d = disagreement(means, widths)
        maps["D"] = d.astype(np.float32)
        gathered.d_mean[pair.name] = float(d.mean())
        d_correlation = block_correlation(d, np.asarray(error, np.float64))
    gathered.correlations.append((block_correlation(spread, np.asarray(error, np.float64)), d_correlation))
    return maps


def _reliability(gathered: _Gathered, members: int) -> Reliability | None:
    if not gathered.sampled:
        return None
    aligned = [aligned_truth(sample["truth"], sample["means"].mean(axis=0)) for sample in gathered.sampled]
    means = np.concatenate([sample["means"] for sample in gathered.sampled], axis=1)
    scales = np.concatenate([sample["scales"] for sample in gathered.sampled], axis=1)
    own = np.concatenate([sample["truth"] for sample in gathered.sampled])
    fitted = np.concatenate(aligned)
    mixture = Mixture(means, scales)
    error = np.abs(fitted - mixture.mean)
    spread = np.sqrt(mixture.variance / 2)
    half = max(1, len(aligned) // 2)
    factor, mended = _mended(gathered.sampled, aligned, half)
    correlations = np.array(gathered.correlations)
    return Reliability(
        members=members,
        calibrations=(
            calibrate(own, means, scales, scale=OWN),
            calibrate(fitted, means, scales, scale=ALIGNED),
        ),
        mended=mended,
        factor=factor,
        nll_single=float(laplace_nll(fitted, means, scales).mean()),
        nll_ensemble=float(mixture.nll(fitted).mean()),
        member_nrmse=tuple(float(v) for v in np.mean(gathered.member_nrmse, axis=0))
        if gathered.member_nrmse
        else (),
        by_scale=tuple(binned(spread, {"mean |error|": error}, name="scale")),
        by_intensity=tuple(binned(mixture.mean, {"scale": spread, "mean |error|": error}, name="intensity")),
        correlation_scale=_mean_known(correlations[:, 0]),
        correlation_d=_mean_known(correlations[:, 1]),
        d_mean=gathered.d_mean,
    )


def _mended(
    sampled: Sequence[Mapping[str, Array]], aligned: Sequence[Array], half: int
) -> tuple[float, Calibration | None]:
    """Factor of the first half of the images, and the calibration that it gives on the others."""

    def joined(part: slice) -> tuple[Array, Array, Array]:
        return (
            np.concatenate(aligned[part]),
            np.concatenate([s["means"] for s in sampled[part]], axis=1),
            np.concatenate([s["scales"] for s in sampled[part]], axis=1),
        )

    factor = calibrate(*joined(slice(0, half)), scale=ALIGNED).factor
    if len(sampled) < 2:
        return factor, None
    truth, means, scales = joined(slice(half, None))
    return factor, calibrate(truth, means, factor * scales, scale=f"{ALIGNED}, scales x {factor:.3g}")


def plane_of(image: Image) -> Plane:
    """The plane that pictures, profiles and maps are taken from: first series, frame, channel; middle Z."""
    data = next(iter(fields(image)))[1]
    return np.asarray(data if data.ndim == 2 else data[data.shape[0] // 2], np.float32)


def scale_plane(image: Image, *, like: Image) -> Plane | None:
    """The plane of widths of a probabilistic result; None where it has none."""
    widths = scale_channels(image, like=like)
    return None if widths is None else plane_of(widths)


def _familiar(members: Sequence[Predictor], training: Sequence[Pair]) -> _Familiar:
    few = (
        [training[k] for k in np.unique(np.linspace(0, len(training) - 1, 8).astype(int))] if training else []
    )
    statistics = tuple(input_statistics(part) for pair in few for part in _parts(plane_of(pair.source)))
    d_mean = []
    for pair in few[:3] if len(members) > 1 else []:
        each = [member.predict(pair.source) for member in members]
        scales = [scale_plane(one, like=pair.source) for one in each]
        if all(scale is not None for scale in scales):
            means = np.stack([plane_of(mean_channels(one, like=pair.source)) for one in each]).astype(
                np.float64
            )
            widths = np.maximum(np.stack([s for s in scales if s is not None]).astype(np.float64), 1e-12)
            d_mean.append(float(disagreement(means[:, ::2, ::2], widths[:, ::2, ::2]).mean()))
    return _Familiar(statistics, tuple(d_mean))


def _parts(plane: Plane) -> list[Plane]:
    """A plane and its quarters: evaluated images may be smaller pieces than the training images."""
    height, width = (size // 2 for size in plane.shape)
    if min(height, width) < 64:
        return [plane]
    return [plane, *(plane[y : y + height, x : x + width] for y in (0, height) for x in (0, width))]


def _saturating(image: Image, pair: Pair) -> np.dtype[Any]:
    """The type whose ends are asked about: a float result is asked what the source's type would clip."""
    return image.dtype if image.dtype.kind in "ui" else pair.source.dtype


def _distance(image: Image, target: Image, mask: NDArray[np.bool_] | None) -> float:
    each = []
    for (_, given), (_, truth) in zip(fields(image), fields(target), strict=True):
        valid = valid_pixels(given, truth, mask=mask)
        each.append(wasserstein_1(*align(np.asarray(given)[valid], np.asarray(truth)[valid])))
    return float(np.mean(each))


def _on_truth(plane: Plane, truth: Plane) -> Plane:
    valid = np.isfinite(plane) & np.isfinite(truth)
    slope = _slope(plane[valid], truth[valid])
    shifted = slope * (plane - plane[valid].mean(dtype=np.float64)) + truth[valid].mean(dtype=np.float64)
    return np.asarray(shifted, np.float32)


def _slope(given: NDArray[Any], truth: NDArray[Any]) -> float:
    centred = np.asarray(given, np.float64) - np.mean(given, dtype=np.float64)
    power = float(np.sum(centred**2))
    return float(np.sum(centred * (truth - np.mean(truth, dtype=np.float64)))) / power if power > 0 else 0.0


def _range(plane: Plane) -> tuple[float, float]:
    low, high = np.percentile(plane[np.isfinite(plane)], (2, 99.8))
    return float(low), float(high)


def _small(plane: Plane) -> Plane:
    from care_bridge.page import shrink

    return np.asarray(shrink(plane, MAX_PX)[0], np.float32)


def _order_shown(gathered: _Gathered) -> list[Shown]:
    """The middle image, the worst and the best by the NRMSE of the first application."""
    errors = {row.image: row.scores["nrmse"] for row in gathered.rows if row.method == "once"}
    ranked = sorted(gathered.shown, key=lambda shown: errors.get(shown.name, math.inf))
    if not ranked:
        return []
    places = dict.fromkeys([len(ranked) // 2, len(ranked) - 1, 0])
    return [ranked[place] for place in places]


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


def _mean_known(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _versions() -> dict[str, str]:
    found = {}
    for name in ("numpy", "scipy", "scikit-image"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
