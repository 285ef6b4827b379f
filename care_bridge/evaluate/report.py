"""The evaluation as a page that a biologist reads and as JSON: the picture and the verdict first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.evaluate.details import (
    add_applications,
    add_conditions,
    add_histogram,
    add_profile,
    add_reliability,
    add_robustness,
)
from care_bridge.evaluate.evaluation import INPUT, SINGLE, Evaluation, Shown
from care_bridge.evaluate.scores import METRICS, MIN_INTERVAL
from care_bridge.evaluate.style import GREY, LABELS, label, with_interval
from care_bridge.evaluate.tables import add_cross, add_sweep
from care_bridge.files import write_text
from care_bridge.page import (
    COLOURS,
    NOT_FOR_QUANTIFICATION,
    Mark,
    Page,
    Picture,
    chart,
    display_limits,
)
from care_bridge.words import counted

LARGEST_BYTES = 10_000_000
"""Reports are mailed around; pictures of the best, then of the worst image are left out to stay below."""


def write_report(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    *,
    sweep: Iterable[Mapping[str, Any]] = (),
    cross: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write the page, and its CSVs into a folder beside it.

    Parameters
    ----------
    evaluation : Evaluation
    path : path
        The HTML file; CSVs go into `<name>_data`.
    sweep, cross : iterable of mappings
        Rows of a grid of settings and of models x data sets, as `care-bridge sweep` and `cross-eval` write.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    InputError
        If the file's name does not end in .html.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {str(path)!r} must end in .html")
    sweep, cross = list(sweep), list(cross)
    page = report_page(evaluation, sweep=sweep, cross=cross)
    for pictures in (2, 1):
        if len(page.html()) <= LARGEST_BYTES:
            break
        page = report_page(evaluation, sweep=sweep, cross=cross, pictures=pictures)
    return page.save(path, data_folder=path.with_name(f"{path.stem}_data"))


def write_json(evaluation: Evaluation, path: str | os.PathLike[str]) -> Path:
    """Write all numbers as JSON."""
    write_text(path, json.dumps(evaluation.to_dict(), indent=1) + "\n")
    return Path(path)


def report_page(
    evaluation: Evaluation,
    *,
    sweep: Sequence[Mapping[str, Any]] = (),
    cross: Sequence[Mapping[str, Any]] = (),
    pictures: int = 3,
) -> Page:
    """The page, not yet saved; see `write_report`. `pictures` is of how many images at most they are shown."""
    page = Page(
        f"How good is the restoration? {evaluation.model}".strip(),
        verdict=evaluation.verdict,
        good=evaluation.good,
    )
    _add_first_screen(page, evaluation)
    _add_scores(page, evaluation)
    if evaluation.conditions:
        add_conditions(page, evaluation)
    for shown in evaluation.shown[:pictures]:
        _add_pictures(page, evaluation, shown)
    add_applications(page, evaluation)
    add_profile(page, evaluation)
    add_histogram(page, evaluation)
    add_reliability(page, evaluation)
    add_robustness(page, evaluation)
    if sweep:
        add_sweep(page, sweep)
    if cross:
        add_cross(page, cross)
    _add_every_image(page, evaluation)
    page.section("What ran")
    page.settings(evaluation.settings)
    page.settings(
        {f"{b.name}": f"{b.settings} (tuned in {b.tuning_s:.1f} s)" for b in evaluation.baselines},
        caption="Settings of the filters",
    )
    page.attach("evaluation.json", json.dumps(evaluation.to_dict(), indent=1))
    return page


def _add_first_screen(page: Page, evaluation: Evaluation) -> None:
    if evaluation.shown:
        first = evaluation.shown[0]
        kept = evaluation.kept if evaluation.kept in first.planes else "once"
        left = INPUT if INPUT in first.planes else kept
        right = kept if left == INPUT else "truth"
        page.slider(
            first.planes[left],
            first.planes[right],
            labels=(label(left), label(right)),
            limits=_limits(first),
            pixel_um=first.pixel_um,
            caption=f"{first.name}. Intensities are fitted to the truth's.",
            link="first",
        )
    for name, notes in evaluation.warnings.items():
        page.text(f"{name}: {'; '.join(notes)}.", important=True)
    for name, reasons in evaluation.foreign.items():
        page.text(f"{name} is unlike the training images: {'; '.join(reasons)}.", important=True)
    for said in evaluation.guard_sentences():
        page.text(f"{said}.", important=True)
    page.text(NOT_FOR_QUANTIFICATION, important=True)


def _add_scores(page: Page, evaluation: Evaluation) -> None:
    page.section(
        "How good",
        "Means over images ± half of their 95 % interval (Student's t over images). PSNR, NRMSE and SSIM are taken after "
        "the truth's percentiles 0.1 and 99.9 became 0 and 1 and the image was fitted to it by a scale and an "
        "offset, for the input as well. FRC resolution is the period at which the correlation with the truth falls "
        "below 1/7: smaller is finer, 2 is the pixel grid's limit.",
    )
    rows = []
    for method in evaluation.methods:
        row: dict[str, Any] = {"": label(method)}
        for metric in METRICS:
            summary = evaluation.summary(method, metric.key)
            row[metric.label] = with_interval(summary)
        seconds = [r.seconds for r in evaluation.rows if r.method == method]
        row["s / image"] = float(np.mean(seconds)) if seconds and math.isfinite(seconds[0]) else None
        if method in (evaluation.kept, SINGLE):
            row[f"{label(evaluation.kept)} against it"] = None
        else:
            test = evaluation.against(method)
            row[f"{label(evaluation.kept)} against it"] = Mark(
                f"better on {test.better} of {test.n}" + ("" if math.isnan(test.p_value) else f", {test}"),
                2 * test.better > test.n,
            )
        rows.append(row)
    data = [
        {"method": method, "metric": metric.key} | asdict(evaluation.summary(method, metric.key))
        for method in evaluation.methods
        for metric in METRICS
    ]
    page.table(rows, caption="Scores", name="scores", digits=3, data=data)
    if (n := len(evaluation.images)) < MIN_INTERVAL:
        page.text(f"{counted(n, 'image')}: there is no interval and no test; more images would give both.")
    if evaluation.baselines:
        edge = [b.name for b in evaluation.baselines if b.at_edge]
        page.text(
            f"Filters were tuned on {evaluation.baselines[0].tuned_on}."
            + (f" The last setting tried was the best one for {', '.join(edge)}." if edge else "")
        )
    _add_method_chart(page, evaluation)


def _add_method_chart(page: Page, evaluation: Evaluation) -> None:
    figure, axes = chart(size=(6.4, 0.32 * len(evaluation.methods) + 0.9))
    data = []
    for place, method in enumerate(evaluation.methods):
        values = evaluation.values(method, "nrmse")
        colour = COLOURS[0] if method in LABELS or method.endswith("times") else GREY
        axes.barh(place, np.mean(values), color=colour, alpha=0.55, height=0.7)
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=3.5)
        data += [
            {"method": method, "image": image, "NRMSE": value}
            for image, value in zip(evaluation.images, values, strict=False)
        ]
    axes.set_yticks(range(len(evaluation.methods)), [label(method) for method in evaluation.methods])
    axes.invert_yaxis()
    axes.set_xlabel("NRMSE (shorter is better; a dot is an image)")
    page.figure(figure, caption="Error of every method on every image.", data=data, name="errors")


def _add_pictures(page: Page, evaluation: Evaluation, shown: Shown) -> None:
    filter_name = evaluation.best_filter
    wanted = [INPUT, *LABELS, *(key for key in shown.planes if key.endswith(" times"))]
    wanted += [filter_name] if filter_name else []
    wanted += ["truth"]
    page.section(f"{_place(evaluation, shown)} image: {shown.name}")
    pictures = [Picture(shown.planes[key], label(key)) for key in wanted if key in shown.planes]
    page.pictures(
        pictures, limits=_limits(shown), pixel_um=shown.pixel_um, link=shown.name,
        caption="Intensities are fitted to the truth's, all on one contrast.",
    )  # fmt: skip
    words = {
        "error": "|restored - truth|",
        "scale": "predicted scale (half of the errors are below 0.69 of it)",
        "change": "|twice - once|",
        "D": "disagreement D of the members",
    }
    ceiling = float(np.nanpercentile(shown.maps["error"], 99.9)) or 1.0
    maps = [
        Picture(
            shown.maps[key],
            text,
            limits=(
                0.0,
                max(float(np.nanpercentile(shown.maps[key], 99.9)), 1e-3) if key == "D" else ceiling,
            ),
            lut="cividis" if key == "D" else "magma",
            unit="" if key == "D" else "grey values",
        )
        for key, text in words.items()
        if key in shown.maps
    ]
    page.pictures(
        maps, pixel_um=shown.pixel_um, link=shown.name, caption="Errors on one scale; D on its own."
    )


def _place(evaluation: Evaluation, shown: Shown) -> str:
    """Where an image stands among those shown, by the error of the first application."""
    errors = dict(zip(evaluation.images, evaluation.values("once", "nrmse"), strict=True))
    among = [errors[one.name] for one in evaluation.shown]
    if len(among) == 1:
        return "The"
    places = {max(among): "Worst", min(among): "Best"}
    return places.get(errors[shown.name], "Middle")


def _add_every_image(page: Page, evaluation: Evaluation) -> None:
    page.section("Every image")
    rows = [
        {"image": r.image}
        | ({"condition": r.condition} if r.condition else {})
        | {"method": label(r.method)}
        | {metric.label: r.scores[metric.key] for metric in METRICS}
        | {"Wasserstein-1": r.wasserstein, "seconds": r.seconds}
        for r in evaluation.rows
    ]
    page.table(rows, caption="Scores of every image", name="every image")
    noise = [
        {
            "image": name,
            "channel": channel,
            "photons (bright end)": one.photons,
            "gain": one.gain,
            "read noise (photons)": one.read_noise,
            "dB": one.decibel,
            "neighbours along x": one.correlation_x,
            "along y": one.correlation_y,
            "rows": one.rows,
        }
        for name, channel, one in evaluation.noise
    ]
    if noise:
        page.table(noise, caption="Noise of every source, measured in it alone", name="noise", digits=3)


def _limits(shown: Shown) -> tuple[float, float]:
    return display_limits(shown.planes["truth"])
