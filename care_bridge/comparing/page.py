"""The parity report as a page: what both sides computed, where they differ, and by how much."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.comparing.diagnosis import residual
from care_bridge.comparing.parity import ParityReport, ParityRow
from care_bridge.images import Image
from care_bridge.page import NOT_FOR_QUANTIFICATION, Mark, Page, Picture, chart


def parity_page(report: ParityReport) -> Page:
    """The report as a page that opens without a network.

    Parameters
    ----------
    report : ParityReport

    Returns
    -------
    Page
        Not yet saved, so that others (the demo) can go on with it.
    """
    page = Page("Do Fiji and Python agree?", verdict=report.verdict, good=report.passed)
    add_pictures(page, report)
    page.section("Numbers")
    add_rows(page, report)
    add_histogram(page, report)
    if report.rungs:
        add_ladder(page, report)
    page.text(NOT_FOR_QUANTIFICATION, important=True)
    page.section("What ran")
    page.settings(
        {
            "reference": str(report.reference),
            "candidate": str(report.candidate),
            "image": f"{report.image['name']} {report.image['axes']} {tuple(report.image['shape'])} {report.image['dtype']}",
            "SHA-256 of the pixels": report.image["sha256"],
            **report.settings,
        }
    )
    page.attach("parity.json", json.dumps(report.to_dict(), indent=2))
    return page


def add_pictures(page: Page, report: ParityReport) -> None:
    """Input and results of both sides after each application, and the differences."""
    applications = sum(key.startswith("reference") for key in report.results)
    pixel_um = report.results["input"].pixel_size_um.get("X")
    for application in range(1, applications + 1):
        reference = plane(report.results[f"reference {application}"])
        candidate = plane(report.results[f"candidate {application}"])
        difference = plane(_residual_image(report, application))
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


def add_rows(page: Page, report: ParityReport) -> None:
    """The table of all comparisons."""
    page.table(
        [_table_row(row) for row in report.rows], caption="Differences in units of the output", name="parity"
    )


def add_ladder(page: Page, report: ParityReport) -> None:
    """One convention after the other: what the runtimes differ by, and what each convention costs."""
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
            for rung in report.rungs
        ],
        caption="The ladder",
        name="ladder",
    )
    shape = report.results["reference 1"].shape
    planes = [
        plane(report.results["reference 1"].replace(data=np.abs(rung.residual)))
        for rung in report.rungs
        if rung.residual.shape == shape
    ]
    if len(planes) == len(report.rungs):
        largest = max(_largest(data) for data in planes)
        pictures = [
            Picture(data, rung.title, lut="cividis") for data, rung in zip(planes, report.rungs, strict=True)
        ]
        page.pictures(
            pictures, limits=(0.0, largest), caption="|Fiji - Python| at each rung, one scale.", link="ladder"
        )


def add_histogram(page: Page, report: ParityReport) -> None:
    """How many pixels differ by how much, for each application."""
    figure, axes = chart(size=(6.4, 2.8))
    rows: list[dict[str, Any]] = []
    edges = np.logspace(-10, 0, 61)
    for key in report.results:
        if not key.startswith("reference"):
            continue
        application = int(key.split()[1])
        size = np.nan_to_num(np.abs(_residual_image(report, application).data), nan=np.inf)
        counts, _ = np.histogram(np.clip(size, edges[0], edges[-1]), edges)
        axes.stairs(counts, edges, label=f"application {application}")
        rows += [
            {"application": application, "from": low, "to": high, "pixels": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    for tolerance, label in (("tolerance", "first"), ("tolerance_repeated", "later")):
        axes.axvline(report.settings[tolerance], linestyle=":", color="black")
        axes.annotate(
            f" tolerance, {label}",
            (report.settings[tolerance], 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            fontsize=7,
        )
    axes.set(xscale="log", xlabel="|candidate - reference|", ylabel="pixels")
    axes.legend(frameon=False)
    page.figure(figure, caption="How many pixels differ by how much", data=rows, name="differences")


def plane(image: Image) -> NDArray[Any]:
    """One plane to look at: the first of every axis but Y and X, the middle one of Z."""
    index = tuple(
        slice(None) if axis in "YX" else (size // 2 if axis == "Z" else 0)
        for axis, size in zip(image.axes, image.shape, strict=True)
    )
    data: NDArray[Any] = image.data[index]
    return data if image.axes.index("Y") < image.axes.index("X") else data.T


def _residual_image(report: ParityReport, application: int) -> Image:
    reference, candidate = (report.results[f"{side} {application}"] for side in ("reference", "candidate"))
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
        "worst at": " ".join(
            f"{axis.lower()}={index}" for axis, index in zip(row.axes, row.worst, strict=True)
        ),
        "px to tile border": row.to_seam_px,
        "px to image border": row.to_border_px,
        "tolerance": row.tolerance,
        "result": Mark("passed" if row.passed else "failed", row.passed),
    }
