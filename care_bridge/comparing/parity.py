"""Do two predictors give the same image: once, and applied several times in a row?

Knows neither Keras nor Java: it is handed two predictors.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge import __version__
from care_bridge.comparing.diagnosis import (
    NORMALIZATION,
    Convention,
    Geometry,
    Rung,
    Variable,
    diagnose,
    explain,
)
from care_bridge.defaults import TOLERANCE, TOLERANCE_REPEATED
from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import FIJI, PercentileRule, normalize
from care_bridge.predictor import PredictOptions, Predictor, Runtime, mean_channels
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles


@dataclass(frozen=True)
class ParityRow:
    """One comparison of two results.

    Attributes
    ----------
    stage : str
        What was compared: the network alone, or the whole prediction.
    application : int
        1 = the first.
    fed : str
        What the candidate was given: `image`, `own result` or `reference's result`.
    max_abs, mean_abs, rmse : float
        Differences candidate - reference, in units of the output.
    mismatched_ppm : float
        Elements that differ by more than the tolerance, per million.
    worst : tuple of int
        Index of the largest difference, in the order of `axes`.
    axes : str
        Axes of the results.
    tolerance : float
    passed : bool
        Whether `max_abs` is within the tolerance; NaN at one side only never is.
    to_seam_px, to_border_px : int
        From the worst place to the nearest border between tiles (None where nothing was cut) and to the nearest
        border of the image.
    cause, diagnosis : str
        What the difference comes from, in a word and in a sentence; see `diagnosis.diagnose`.
    """

    stage: str
    application: int
    fed: str
    max_abs: float
    mean_abs: float
    rmse: float
    mismatched_ppm: float
    worst: tuple[int, ...]
    axes: str
    tolerance: float
    passed: bool
    to_seam_px: int | None
    to_border_px: int
    cause: str
    diagnosis: str

    @property
    def title(self) -> str:
        return f"{self.stage}, {_ordinal(self.application)} application, fed the {self.fed}"


@dataclass(frozen=True, eq=False)
class ParityReport:
    """What a comparison found; text, JSON, Markdown and HTML are renderings of it.

    Attributes
    ----------
    rows : sequence of ParityRow
    reference, candidate : Runtime
    image : mapping
        Name, shape, axes, dtype and SHA-256 of the pixels that were fed.
    settings : mapping
        What was asked for, JSON values.
    results : mapping of str to Image
        Pictures for the report: `input`, and `reference 1`, `candidate 1`, `reference 2`, ...
    rungs : sequence of Rung
        The ladder of `diagnosis.stepwise`, where it was climbed.
    """

    rows: Sequence[ParityRow]
    reference: Runtime
    candidate: Runtime
    image: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: Mapping[str, Image] = field(default_factory=dict)
    rungs: Sequence[Rung] = ()

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.passed:
            worst = max(self.rows, key=lambda row: row.max_abs)
            return (
                f"Both sides agree in all {len(self.rows)} comparisons; the largest difference is "
                f"{worst.max_abs:.1e} ({worst.title})."
            )
        failed = [row for row in self.rows if not row.passed]
        worst = max(failed, key=lambda row: np.inf if np.isnan(row.max_abs) else row.max_abs)
        return (
            f"{len(failed)} of {len(self.rows)} comparisons differ by more than the tolerance; the worst is "
            f"{worst.max_abs:.1e} at {_place(worst)} ({worst.title}; tolerance {worst.tolerance:.0e}). "
            f"Why: {worst.cause}: {worst.diagnosis}."
        )

    @property
    def diagnoses(self) -> list[str]:
        """A sentence for every row that failed: where its worst pixel lies and what the difference comes from."""
        return [
            f"{row.title}: {row.cause}: {row.diagnosis} ({_distances(row)})"
            for row in self.rows
            if not row.passed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "reference": _runtime_dict(self.reference),
            "candidate": _runtime_dict(self.candidate),
            "image": dict(self.image),
            "settings": dict(self.settings),
            "rows": [{**dataclasses.asdict(row), "worst": list(row.worst)} for row in self.rows],
            "rungs": [
                {
                    "title": rung.title,
                    "difference": dataclasses.asdict(rung.difference),
                    "cost": dataclasses.asdict(rung.cost),
                }
                for rung in self.rungs
            ],
            "care_bridge": __version__,
            "python": platform.python_version(),
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def __str__(self) -> str:
        ladder = [_aligned([_LADDER, *(_rung_cells(rung) for rung in self.rungs)]), ""] if self.rungs else []
        return "\n".join(
            [
                f"reference  {self.reference}",
                f"candidate  {self.candidate}",
                f"image      {self.image['name'] or 'unnamed'}, {self.image['axes']} {tuple(self.image['shape'])}",
                "",
                _aligned([_HEADER, *(_cells(row) for row in self.rows)]),
                "",
                *ladder,
                *(f"- {sentence}" for sentence in self.diagnoses),
                self.verdict,
            ]
        )

    def to_markdown(self) -> str:
        """The table for an issue or a note."""
        tables = [_markdown([_HEADER, *(_cells(row) for row in self.rows)])]
        if self.rungs:
            tables.append(_markdown([_LADDER, *(_rung_cells(rung) for rung in self.rungs)]))
        return "\n".join(
            [
                "# Do both sides agree?",
                "",
                self.verdict,
                "",
                f"- reference: {self.reference}",
                f"- candidate: {self.candidate}",
                f"- image: {self.image['name'] or 'unnamed'}, {self.image['axes']} {tuple(self.image['shape'])}",
                "",
                "\n\n".join(tables),
                "",
                *(f"- {sentence}" for sentence in self.diagnoses),
            ]
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report; the suffix chooses between .html, .json, .md and .txt.

        Raises
        ------
        InputError
            For another suffix.
        """
        target = Path(path)
        match target.suffix.lower():
            case ".json":
                text = json.dumps(self.to_dict(), indent=2) + "\n"
            case ".md":
                text = self.to_markdown()
            case ".txt":
                text = f"{self}\n"
            case ".html":
                from care_bridge.comparing.page import parity_page

                parity_page(self).save(target)
                return target
            case other:
                raise InputError(
                    f"a report ends in .html, .json, .md or .txt; received {other or 'no suffix'!r} ({target})"
                )
        write_text(target, text)
        return target


def compare(
    *,
    reference: Predictor,
    candidate: Predictor,
    image: Image,
    applications: int = 2,
    tolerance: float = TOLERANCE,
    tolerance_repeated: float = TOLERANCE_REPEATED,
    rule: PercentileRule = FIJI,
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
    rule : PercentileRule
        Normalisation for the comparison of the networks alone.
    geometry : Geometry, optional
        Where the candidate cuts the image, for the diagnosis.
    rungs : sequence of Rung
        The ladder, to go into the report.
    more_conventions : callable, optional
        What else to try for an image when a `NetworkPredictor` and the candidate differ; see
        `diagnosis.explain`.
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
    stages: list[tuple[str, Predictor, Predictor, Image]] = []
    alone = _alone(reference, candidate)
    if alone:
        normalized, _ = normalize(image.data, rule=rule, axes=image.axes)
        stages.append(("network alone", *alone, image.replace(data=normalized)))
    stages.append(("whole prediction", reference, candidate, image))

    rows: list[ParityRow] = []
    results: dict[str, Image] = {"input": image}
    total = len(stages) * applications
    for number, (stage, first, second, start) in enumerate(stages):
        fed_first = fed_second = start
        for application in range(1, applications + 1):
            progress(number * applications + application - 1, total, "comparing")
            limit = tolerance if application == 1 else tolerance_repeated
            expected = first.predict(fed_first)
            actual = second.predict(fed_second)
            fed = "image" if application == 1 else "own result"
            cut = geometry if stage == "whole prediction" else None
            row = _row(stage, application, fed, expected, actual, limit, cut)
            if not row.passed and stage == "whole prediction" and isinstance(first, NetworkPredictor):
                # Run the reference under other conventions, to name the one that the candidate followed.
                more = more_conventions(fed_first) if more_conventions and application == 1 else ()
                found = explain(first, actual, fed_first, geometry=cut, tolerance=limit, more=more)
                row = dataclasses.replace(row, cause=found.cause, diagnosis=found.words)
            rows.append(row)
            if application > 1:
                crossed = second.predict(fed_first)
                rows.append(_row(stage, application, "reference's result", expected, crossed, limit, cut))
            if stage == "whole prediction":
                results[f"reference {application}"], results[f"candidate {application}"] = expected, actual
            fed_first = mean_channels(expected, like=fed_first)
            fed_second = mean_channels(actual, like=fed_second)
    progress(total, total, "comparing")
    return ParityReport(
        rows=_of_other_networks(rows),
        reference=reference.runtime,
        candidate=candidate.runtime,
        image={
            "name": image.name,
            "axes": image.axes,
            "shape": list(image.shape),
            "dtype": str(image.dtype),
            "sha256": hashlib.sha256(image.data.tobytes()).hexdigest(),
        },
        settings={
            "applications": applications,
            "tolerance": tolerance,
            "tolerance_repeated": tolerance_repeated,
            "network_alone_rule": rule.name,
            "reference_options": str(getattr(reference, "options", "")),
            "candidate_options": str(getattr(candidate, "options", "")),
        },
        results=results,
        rungs=tuple(rungs),
    )


OTHER_NETWORK = "another network"
"""Cause of a difference that is there when both networks are fed the very same values."""


def _of_other_networks(rows: list[ParityRow]) -> list[ParityRow]:
    """Rows that name no convention where the networks themselves differ, as those of a bundle of older weights."""
    alone = next((row for row in rows if row.stage == "network alone"), None)
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
    here, there = getattr(reference, "network", None), getattr(candidate, "network", None)
    if here is None:
        return None
    if there is not None:
        bare = PredictOptions(rule=None, tiles=None)
        return NetworkPredictor(here, bare), NetworkPredictor(there, bare)
    if not (isinstance(reference, Variable) and isinstance(candidate, Variable)):
        return None
    # A real ImageJ or Fiji feeds its network by its own command: take away what can be switched off there.
    multiple = max(NetworkPredictor(here).size_multiple.values())
    whole = FijiTiles(n_tiles=1, block_multiple=multiple, overlap=0)
    return reference.variant(normalize=False, tiles=whole), candidate.variant(normalize=False, tiles=whole)


def _row(
    stage: str,
    application: int,
    fed: str,
    reference: Image,
    candidate: Image,
    tolerance: float,
    geometry: Geometry | None,
) -> ParityRow:
    shape = _shape_like(candidate, reference)
    if shape != reference.shape:
        raise InputError(
            f"the results cannot be compared ({stage}, {_ordinal(application)} application): the reference has axes "
            f"{reference.axes!r} and shape {reference.shape}, the candidate {candidate.axes!r} and {candidate.shape}"
        )
    found = diagnose(reference, candidate, geometry=geometry, tolerance=tolerance)
    return ParityRow(
        stage=stage,
        application=application,
        fed=fed,
        max_abs=found.max_abs,
        mean_abs=found.mean_abs,
        rmse=found.rmse,
        mismatched_ppm=found.mismatched_ppm,
        worst=found.worst,
        axes=found.axes,
        tolerance=found.tolerance,
        passed=found.passed,
        to_seam_px=found.to_seam_px,
        to_border_px=found.to_border_px,
        cause=found.cause,
        diagnosis=found.words,
    )


def _shape_like(image: Image, other: Image) -> tuple[int, ...] | None:
    """Shape in the other's order of axes; None where they do not have the same ones."""
    if sorted(image.axes) != sorted(other.axes):
        return None
    return tuple(image.size(axis) for axis in other.axes)


_HEADER = ("compared", "application", "fed", "max", "mean", "RMSE", "ppm", "worst at", "tolerance", "result")


def _cells(row: ParityRow) -> tuple[str, ...]:
    return (
        row.stage,
        str(row.application),
        row.fed,
        f"{row.max_abs:.2e}",
        f"{row.mean_abs:.2e}",
        f"{row.rmse:.2e}",
        f"{row.mismatched_ppm:.0f}",
        _place(row),
        f"{row.tolerance:.0e}",
        "passed" if row.passed else "FAILED",
    )


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(line.rstrip() for line in lines)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


_LADDER = ("rung", "Fiji - Python", "cause", "csbdeep's way - Fiji's way", "cause")


def _rung_cells(rung: Rung) -> tuple[str, ...]:
    both = (rung.difference, rung.cost)
    return (rung.title, *(cell for found in both for cell in (f"{found.max_abs:.2e}", found.cause)))


def _distances(row: ParityRow) -> str:
    seam = "" if row.to_seam_px is None else f"{row.to_seam_px} px from a tile border, "
    return f"worst at {_place(row)}, {seam}{row.to_border_px} px from the image border"


def _place(row: ParityRow) -> str:
    return " ".join(f"{axis.lower()}={index}" for axis, index in zip(row.axes, row.worst, strict=True))


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def _runtime_dict(runtime: Runtime) -> dict[str, Any]:
    return {"name": runtime.name, "level": runtime.level, "versions": dict(runtime.versions)}
