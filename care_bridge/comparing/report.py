"""What a comparison found, as a value; text, JSON, Markdown and a page are renderings of it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge import __version__
from care_bridge.comparing.ladder import Rung
from care_bridge.comparing.page import add_histogram, add_ladder, add_pictures, add_rows
from care_bridge.comparing.rows import ParityRow
from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.images import Image
from care_bridge.page import NOT_FOR_QUANTIFICATION, Page
from care_bridge.predictor import Runtime


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
        The ladder of `ladder.stepwise`, where it was climbed.
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
            f"{worst.max_abs:.1e} at {worst.place} ({worst.title}; tolerance {worst.tolerance:.0e}). "
            f"Why: {worst.cause}: {worst.diagnosis}."
        )

    @property
    def diagnoses(self) -> list[str]:
        """A sentence for every row that failed: where its worst pixel lies and what the difference comes from."""
        return [
            f"{row.title}: {row.cause}: {row.diagnosis} ({row.distances})"
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

    def to_page(self) -> Page:
        """A page that opens without a network; not yet saved, so that others can go on with it."""
        page = Page("Do Fiji and Python agree?", verdict=self.verdict, good=self.passed)
        add_pictures(page, self.results)
        page.section("Numbers")
        add_rows(page, self.rows)
        add_histogram(page, self.results, settings=self.settings)
        if self.rungs:
            add_ladder(page, self.rungs, shown_like=self.results["reference 1"])
        page.text(NOT_FOR_QUANTIFICATION, important=True)
        page.section("What ran")
        page.settings(
            {
                "reference": str(self.reference),
                "candidate": str(self.candidate),
                "image": f"{self.image['name']} {self.image['axes']} {tuple(self.image['shape'])} {self.image['dtype']}",
                "SHA-256 of the pixels": self.image["sha256"],
                **self.settings,
            }
        )
        page.attach("parity.json", json.dumps(self.to_dict(), indent=2))
        return page

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
                self.to_page().save(target)
                return target
            case other:
                raise InputError(
                    f"a report ends in .html, .json, .md or .txt; received {other or 'no suffix'!r} ({target})"
                )
        write_text(target, text)
        return target


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
        row.place,
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


def _runtime_dict(runtime: Runtime) -> dict[str, Any]:
    return {"name": runtime.name, "level": runtime.level, "versions": dict(runtime.versions)}
