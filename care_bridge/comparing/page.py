"""The parts of a comparison's page: what both sides computed, where they differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.comparing.ladder import Rung
from care_bridge.comparing.rows import ParityRow
from care_bridge.comparing.where import residual
from care_bridge.images import Image
from care_bridge.page import Mark, Page, Picture, chart


def add_pictures(page: Page, results: Mapping[str, Image]) -> None:
    """Results of both sides after each application, and the differences.

    Parameters
    ----------
    page : Page
    results : mapping of str to Image
        As in `ParityReport.results`.
    """
    applications = sum(key.startswith("reference") for key in results)
    pixel_um = results["input"].pixel_size_um.get("X")
    for application in range(1, applications + 1):
        reference = results[f"reference {application}"].middle_plane
        candidate = results[f"candidate {application}"].middle_plane
        difference = _residual_image(results, application).middle_plane
        limit = _largest(difference)
        page.pictures(
            [
                Picture(reference, f"reference, application {application}"),
                Picture(candidate, f"candidate, application {application}"),
                Picture(difference, "candidate - reference", limits=(-limit, limit), lut="PuOr"),
            ],
            pixel_um=pixel_um,
            caption=f"Application {application}; the last picture is scaled to its own largest difference.",
        )


def add_rows(page: Page, rows: Sequence[ParityRow]) -> None:
    """The table of all comparisons."""
    page.table([_table_row(row) for row in rows], caption="Differences in units of the output", name="parity")


def add_ladder(page: Page, rungs: Sequence[Rung], *, shown_like: Image) -> None:
    """One convention after the other: what the runtimes differ by, and what each convention costs.

    Parameters
    ----------
    page : Page
    rungs : sequence of Rung
    shown_like : Image
        A result with the axes of the rungs' residuals, which are shown where all have its shape.
    """
    page.section(
        "Step by step",
        "Each rung adds one thing. The first column is Fiji's side minus Python's, both following Fiji's way; the "
        "second is what following csbdeep's way instead would change.",
    )
    page.table(
        [
            {
                "rung": rung.title,
                "Fiji - Python": rung.difference.max_abs,
                "why": f"{rung.difference.cause}: {rung.difference.words}",
                "csbdeep's way - Fiji's way": rung.cost.max_abs,
                "why csbdeep differs": f"{rung.cost.cause}: {rung.cost.words}",
            }
            for rung in rungs
        ],
        caption="The ladder",
        name="ladder",
    )
    shape = shown_like.shape
    planes = [
        shown_like.replace(data=np.abs(rung.residual)).middle_plane
        for rung in rungs
        if rung.residual.shape == shape
    ]
    if len(planes) == len(rungs):
        largest = max(_largest(data) for data in planes)
        pictures = [
            Picture(data, rung.title, lut="cividis") for data, rung in zip(planes, rungs, strict=True)
        ]
        page.pictures(
            pictures, limits=(0.0, largest), caption="|Fiji - Python| at each rung, one scale.", link="ladder"
        )


def add_histogram(page: Page, results: Mapping[str, Image], *, settings: Mapping[str, Any]) -> None:
    """How many pixels differ by how much, for each application.

    Parameters
    ----------
    page : Page
    results : mapping of str to Image
        As in `ParityReport.results`.
    settings : mapping
        With `tolerance` and `tolerance_repeated`, to be marked.
    """
    figure, axes = chart(size=(6.4, 2.8))
    rows: list[dict[str, Any]] = []
    edges = np.logspace(-10, 0, 61)
    for key in results:
        if not key.startswith("reference"):
            continue
        application = int(key.split()[1])
        size = np.nan_to_num(np.abs(_residual_image(results, application).data), nan=np.inf)
        counts, _ = np.histogram(np.clip(size, edges[0], edges[-1]), edges)
        axes.stairs(counts, edges, label=f"application {application}")
        rows += [
            {"application": application, "from": low, "to": high, "pixels": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    for tolerance, label in (("tolerance", "first"), ("tolerance_repeated", "later")):
        axes.axvline(settings[tolerance], linestyle=":", color="black")
        axes.annotate(
            f" tolerance, {label}",
            (settings[tolerance], 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            fontsize=7,
        )
    axes.set(xscale="log", xlabel="|candidate - reference|", ylabel="pixels")
    axes.legend(frameon=False)
    page.figure(figure, caption="How many pixels differ by how much", data=rows, name="differences")


def _residual_image(results: Mapping[str, Image], application: int) -> Image:
    reference, candidate = (results[f"{side} {application}"] for side in ("reference", "candidate"))
    return reference.replace(data=residual(reference, candidate))


def _largest(data: NDArray[Any]) -> float:
    """The largest finite size, for a scale: a picture cannot be shown up to infinity."""
    size = np.abs(data)
    return float(np.max(size, where=np.isfinite(size), initial=0)) or 1e-12


def _table_row(row: ParityRow) -> dict[str, Any]:
    return {
        "compared": row.stage,
        "application": row.application,
        "fed": row.fed,
        "max": row.max_abs,
        "mean": row.mean_abs,
        "RMSE": row.rmse,
        "mismatched per million": row.mismatched_ppm,
        "worst at": row.place,
        "px to tile border": row.to_seam_px,
        "px to image border": row.to_border_px,
        "tolerance": row.tolerance,
        "result": Mark("passed" if row.passed else "failed", row.passed),
    }
