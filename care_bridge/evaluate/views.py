"""What the middle plane of a pair shows: applications, a profile, the histogram, error maps and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from care_bridge.evaluate.applications import Application, Omission, compare_applications, omissions
from care_bridge.evaluate.certainty import Answers, Certainty, TrainingInputs, certainty
from care_bridge.evaluate.evaluation import INPUT, Peaks, Shown
from care_bridge.evaluate.histograms import Saturation, distributions, saturation
from care_bridge.evaluate.pairs import Pair
from care_bridge.evaluate.planes import Plane, on_truth, plane_of
from care_bridge.evaluate.profiles import Line, compare_profiles, profile, structured_line
from care_bridge.images import Image
from care_bridge.metrics import TRUTH_PMAX, TRUTH_PMIN
from care_bridge.page import shrink


@dataclass(frozen=True, eq=False)
class View:
    """One pair, seen on one plane; parts are empty where holes or a small size do not allow them.

    Attributes
    ----------
    saturations : mapping of str to Saturation
        By method, and the truth's; of the whole images.
    series : tuple of Application
    omissions : tuple of Omission
    peaks : tuple of Peaks
    profiles : mapping
        The line, and the values along it by method.
    histograms : tuple of mapping
    certainty : Certainty, optional
    foreign : tuple of str
        Why the source is unlike the training images.
    shown : Shown, optional
        Small pictures; None where others are shown instead.
    """

    saturations: Mapping[str, Saturation]
    series: tuple[Application, ...]
    omissions: tuple[Omission, ...]
    peaks: tuple[Peaks, ...]
    profiles: Mapping[str, Any]
    histograms: tuple[Mapping[str, float], ...]
    certainty: Certainty | None
    foreign: tuple[str, ...]
    shown: Shown | None


def view(
    pair: Pair,
    results: Mapping[str, Image],
    members: Sequence[Image],
    *,
    line: Line | None,
    known: TrainingInputs,
    answers: Answers = Answers(),  # noqa: B008 - a frozen value
) -> View | None:
    """Look at one plane of a pair.

    Parameters
    ----------
    pair : Pair
    results : mapping of str to Image
        By method; `once` is there.
    members : sequence of Image
        What each member of an ensemble, or the only net, gave in its first application.
    line : Line, optional
        For the profile. None chooses one across much structure.
    known : TrainingInputs
        What training images look like.
    answers : Answers
        On what scale the model answers, and its temperature.

    Returns
    -------
    View, optional
        None where the truth's plane is blank: the stack can be scored, but there is nothing to look at.
    """
    truth = plane_of(pair.target)
    finite = truth[np.isfinite(truth)]
    if not finite.size or not np.ptp(np.percentile(finite, (TRUTH_PMIN, TRUTH_PMAX))):
        return None
    planes = {method: on_truth(plane_of(image), truth) for method, image in results.items()}
    steps = [key for key in planes if key in (INPUT, "once", "twice") or key.endswith(" times")]
    whole = all(np.isfinite(plane).all() for plane in (truth, *planes.values()))
    series, lost = _applications(planes, steps, truth) if whole else ((), ())
    peaks, curves = _profiles(pair.name, planes, truth, line) if whole else ((), {})
    maps: dict[str, Plane] = {"error": np.abs(planes["once"] - truth).astype(np.float32)}
    if "twice" in planes:
        maps["change"] = np.abs(planes["twice"] - planes["once"])
    sure: Certainty | None = None
    odd: tuple[str, ...] = ()
    source = plane_of(pair.source)
    if np.isfinite(source).all():
        sure, more = certainty(pair, members, truth=truth, error=maps["error"], answers=answers)
        maps |= more
        odd = known.oddities(source, sure.d_mean if sure else None)
    ordered = [*steps, *(key for key in planes if key not in steps)]
    return View(
        saturations={method: _saturation(image, pair) for method, image in results.items()}
        | {"truth": saturation(pair.target)},
        series=series,
        omissions=lost,
        peaks=peaks,
        profiles=curves,
        histograms=tuple(distributions({"truth": truth} | {key: planes[key] for key in steps})),
        certainty=sure,
        foreign=odd,
        shown=Shown(
            pair.name,
            {key: _small(planes[key]) for key in ordered} | {"truth": _small(truth)},
            {key: _small(value) for key, value in maps.items()},
            pair.target.pixel_size_um.get("X") or pair.source.pixel_size_um.get("X"),
        ),
    )


def _applications(
    planes: Mapping[str, Plane], steps: Sequence[str], truth: Plane
) -> tuple[tuple[Application, ...], tuple[Omission, ...]]:
    if INPUT not in planes or min(truth.shape) < 16:
        return (), ()
    series = compare_applications([planes[key] for key in steps], truth)
    return tuple(series), tuple(omissions(planes["once"], truth))


def _profiles(
    name: str, planes: Mapping[str, Plane], truth: Plane, line: Line | None
) -> tuple[tuple[Peaks, ...], dict[str, Any]]:
    if min(truth.shape) < 8:
        return (), {}
    chosen = line or structured_line(truth)
    curve = profile(truth, chosen)
    values = {"truth": curve} | {key: profile(plane, chosen) for key, plane in planes.items()}
    return tuple(Peaks(name, key, chosen, compare_profiles(curve, values[key])) for key in planes), {
        "image": name,
        "line": asdict(chosen),
        "macro": str(chosen),
        "values": {key: [round(float(v), 4) for v in value] for key, value in values.items()},
    }


def _saturation(image: Image, pair: Pair) -> Saturation:
    # A float result is asked what the source's type would clip.
    return saturation(image, dtype=image.dtype if image.dtype.kind in "ui" else pair.source.dtype)


def _small(plane: Plane) -> Plane:
    return np.asarray(shrink(plane)[0], np.float32)
