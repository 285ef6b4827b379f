"""Do two predictors give the same image: once, and applied several times in a row?

Knows neither Keras nor Java: it is handed two predictors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from care_bridge.comparing.conventions import Convention, explain
from care_bridge.comparing.ladder import Rung
from care_bridge.comparing.report import ParityReport
from care_bridge.comparing.rows import ParityRow, ordinal
from care_bridge.comparing.where import NORMALIZATION, Geometry, diagnose
from care_bridge.defaults import APPLICATIONS, TOLERANCE, TOLERANCE_REPEATED
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import FIJI, PercentileRule, normalize
from care_bridge.predictor import HasVariants, PredictOptions, Predictor, mean_channels, not_again
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles

ALONE, WHOLE = "network alone", "whole prediction"
"""What a row compares: the bare networks, or the predictors as they are."""


def compare(
    *,
    reference: Predictor,
    candidate: Predictor,
    image: Image,
    applications: int = APPLICATIONS,
    tolerance: float = TOLERANCE,
    tolerance_repeated: float = TOLERANCE_REPEATED,
    rule: PercentileRule | None = FIJI,
    unit: float = 1.0,
    geometry: Geometry | None = None,
    rungs: Sequence[Rung] = (),
    more_conventions: Callable[[Image], Sequence[Convention]] | None = None,
    progress: Progress = silent,
) -> ParityReport:
    """Give two predictors the same image and say how much their results differ.

    Where it can be had, the networks are first compared alone: on the image normalised once by `rule`, whole, in
    one tile. Then the predictors themselves. From the second application on, the candidate is fed its own
    result, and once more the reference's, which separates new differences from those handed on.

    Parameters
    ----------
    reference, candidate : Predictor
    image : Image
    applications : int
        How many times in a row, at least 1.
    tolerance, tolerance_repeated : float
        Largest absolute difference for the first and for later applications. In units of the output: the
        normalised scale where results are not scaled back, as in Fiji.
    rule : PercentileRule, optional
        Normalisation for the comparison of the networks alone; None gives them the image as it is.
    unit : float
        What the tolerances count in, in units of the output: the range of the image where networks take and give grey
        levels, so that it means what it means on the normalised scale.
    geometry : Geometry, optional
        Where the candidate cuts the image, for the diagnosis.
    rungs : sequence of Rung
        The ladder, to go into the report.
    more_conventions : callable, optional
        What else to try for an image when a `NetworkPredictor` and the candidate differ; see
        `conventions.explain`.
    progress : Progress

    Returns
    -------
    ParityReport

    Raises
    ------
    InputError
        If `applications` is below 1 or the results differ in axes or shape.
    """
    if applications < 1:
        raise InputError(f"applications must be at least 1; received {applications}")
    tolerance, tolerance_repeated = tolerance * unit, tolerance_repeated * unit
    reason = not_again(reference) if applications > 1 else ""
    if reason:
        warnings.warn(f"{reason}: compared after one application", stacklevel=2)
        applications = 1
    stages = [
        *_networks_alone(reference, candidate, image, rule, tolerance, tolerance_repeated),
        _Stage(
            WHOLE,
            reference,
            candidate,
            image,
            tolerance=tolerance,
            tolerance_repeated=tolerance_repeated,
            geometry=geometry,
            more_conventions=more_conventions,
        ),
    ]
    rows: list[ParityRow] = []
    results: dict[str, Image] = {"input": image}
    done, total = 0, len(stages) * applications
    progress(done, total, "comparing")
    for stage in stages:
        for step in _applied(stage, applications):
            rows += _rows(stage, step)
            if stage.name == WHOLE:
                results[f"reference {step.application}"] = step.expected
                results[f"candidate {step.application}"] = step.actual
            done += 1
            progress(done, total, "comparing")
    return ParityReport(
        rows=_of_other_networks(rows),
        reference=reference.runtime,
        candidate=candidate.runtime,
        image=_described(image),
        settings={
            "applications": applications,
            "tolerance": tolerance,
            "tolerance_repeated": tolerance_repeated,
            "network_alone_rule": "none" if rule is None else rule.name,
            "reference_options": str(reference.options or ""),
            "candidate_options": str(candidate.options or ""),
        },
        results=results,
        rungs=tuple(rungs),
    )


@dataclass(frozen=True, eq=False)
class _Stage:
    """Two predictors to be given one image, and by what their results are judged."""

    name: str
    reference: Predictor
    candidate: Predictor
    image: Image
    tolerance: float
    tolerance_repeated: float
    geometry: Geometry | None = None
    more_conventions: Callable[[Image], Sequence[Convention]] | None = None

    def limit(self, application: int) -> float:
        return self.tolerance if application == 1 else self.tolerance_repeated


@dataclass(frozen=True, eq=False)
class _Step:
    """One application on both sides: what each was fed, and what it gave."""

    application: int
    fed_reference: Image
    expected: Image
    actual: Image


def _applied(stage: _Stage, applications: int) -> Iterator[_Step]:
    fed_reference = fed_candidate = stage.image
    for application in range(1, applications + 1):
        expected = stage.reference.predict(fed_reference)
        actual = stage.candidate.predict(fed_candidate)
        yield _Step(application, fed_reference, expected, actual)
        # Both are one network; a bundle without meta.json does not say what a model folder does.
        widths = expected.has_widths or actual.has_widths
        fed_reference = mean_channels(expected.replace(has_widths=widths), like=fed_reference)
        fed_candidate = mean_channels(actual.replace(has_widths=widths), like=fed_candidate)


def _rows(stage: _Stage, step: _Step) -> list[ParityRow]:
    if step.application == 1:
        return [_explained(stage, step, _row(stage, step, step.actual, fed="image"))]
    own = _explained(stage, step, _row(stage, step, step.actual, fed="own result"))
    crossed = stage.candidate.predict(step.fed_reference)
    return [own, _row(stage, step, crossed, fed="reference's result")]


def _explained(stage: _Stage, step: _Step, row: ParityRow) -> ParityRow:
    """The row with the convention that the candidate followed: the reference's network runs again under others."""
    if row.passed or stage.name != WHOLE or not isinstance(stage.reference, NetworkPredictor):
        return row
    first = step.application == 1
    found = explain(
        stage.reference,
        step.actual,
        step.fed_reference,
        geometry=stage.geometry,
        tolerance=stage.limit(step.application),
        more=stage.more_conventions(step.fed_reference) if stage.more_conventions and first else (),
    )
    return dataclasses.replace(row, cause=found.cause, diagnosis=found.words)


def _row(stage: _Stage, step: _Step, actual: Image, *, fed: str) -> ParityRow:
    expected, application = step.expected, step.application
    if _sizes(expected) != _sizes(actual):
        raise InputError(
            f"the results cannot be compared ({stage.name}, {ordinal(application)} application): the reference has "
            f"axes {expected.axes!r} and shape {expected.shape}, the candidate {actual.axes!r} and {actual.shape}"
        )
    found = diagnose(expected, actual, geometry=stage.geometry, tolerance=stage.limit(application))
    return ParityRow.of(found, stage=stage.name, application=application, fed=fed)


def _sizes(image: Image) -> dict[str, int]:
    return dict(zip(image.axes, image.shape, strict=True))


def _described(image: Image) -> dict[str, object]:
    return {
        "name": image.name,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "sha256": hashlib.sha256(image.data.tobytes()).hexdigest(),
    }


def _networks_alone(
    reference: Predictor,
    candidate: Predictor,
    image: Image,
    rule: PercentileRule | None,
    tolerance: float,
    tolerance_repeated: float,
) -> list[_Stage]:
    """The stage that gives both networks the image normalised once, whole; none where that cannot be had."""
    sides = _alone(reference, candidate)
    if sides is None:
        return []
    fed = image
    if rule is not None:
        normalized, _ = normalize(image.data, rule=rule, axes=image.axes)
        fed = image.replace(data=normalized)
    return [_Stage(ALONE, *sides, fed, tolerance=tolerance, tolerance_repeated=tolerance_repeated)]


OTHER_NETWORK = "another network"
"""Cause of a difference that is there when both networks are fed the very same values."""


def _of_other_networks(rows: list[ParityRow]) -> list[ParityRow]:
    """Rows that name no convention where the networks themselves differ, as those of a bundle of older weights."""
    alone = next((row for row in rows if row.stage == ALONE), None)
    if alone is None or alone.passed or alone.cause != NORMALIZATION:
        return rows
    words = (
        "the networks give different results for the very same values: the bundle was not written of these weights "
        "(another model, or trained on since); export it again"
    )
    return [
        dataclasses.replace(row, cause=OTHER_NETWORK, diagnosis=words)
        if not row.passed and row.cause == NORMALIZATION
        else row
        for row in rows
    ]


def _alone(reference: Predictor, candidate: Predictor) -> tuple[Predictor, Predictor] | None:
    """Both sides without normalisation and in one tile; None where that cannot be had."""
    here, there = reference.network, candidate.network
    if here is None:
        return None
    if there is not None:
        bare = PredictOptions(rule=None, tiles=None)
        return NetworkPredictor(here, bare), NetworkPredictor(there, bare)
    if not (isinstance(reference, HasVariants) and isinstance(candidate, HasVariants)):
        return None
    # A real ImageJ or Fiji feeds its network by its own command: take away what can be switched off there.
    multiple = max(NetworkPredictor(here).size_multiple.values())
    whole = FijiTiles(n_tiles=1, block_multiple=multiple, overlap=0)
    return reference.variant(normalize=False, tiles=whole), candidate.variant(normalize=False, tiles=whole)
