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
from care_bridge.evaluate.applications import summarise_applications
from care_bridge.evaluate.evaluation import INPUT, SINGLE, Evaluation, Shown
from care_bridge.evaluate.reliability import Calibration
from care_bridge.evaluate.robustness import UNITS
from care_bridge.evaluate.scores import METRICS, Summary
from care_bridge.files import write_text
from care_bridge.page import (
    COLOURS,
    NOT_FOR_QUANTIFICATION,
    Mark,
    Page,
    Picture,
    chart,
    display_limits,
    number,
)

LARGEST_BYTES = 10_000_000
"""Reports are mailed around; pictures of the best, then of the worst image are left out to stay below."""

GREY = "#8a8f98"

LABELS = {"once": "restored", "twice": "restored twice"}


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
    for shown in evaluation.shown[:pictures]:
        _add_pictures(page, evaluation, shown)
    _add_applications(page, evaluation)
    _add_profile(page, evaluation)
    _add_histogram(page, evaluation)
    _add_reliability(page, evaluation)
    _add_robustness(page, evaluation)
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


def add_sweep(page: Page, rows: Sequence[Mapping[str, Any]], *, metric: str = "") -> None:
    """Add the table of a grid of settings, the best marked.

    Parameters
    ----------
    page : Page
    rows : sequence of mappings
        Settings and scores; numbers may be text, as `csv` reads them.
    metric : str
        Column that decides. Empty takes the first that is known: a lower NRMSE, else a higher PSNR or SSIM.
    """
    table = [_numbers(row) for row in rows]
    page.section("Grid of settings")
    chosen, sign = _deciding(table, metric)
    known = [row for row in table if isinstance(row.get(chosen), float | int)]
    best = min(known, key=lambda row: sign * row[chosen]) if known else None
    caption = f"The best by {chosen} is marked" if best else "Grid of settings"
    marked = [{"": Mark("best", True) if row is best else None, **row} for row in table]
    page.table(marked, caption=caption, name="sweep")


def add_cross(page: Page, rows: Sequence[Mapping[str, Any]], *, metric: str = "") -> None:
    """Add a matrix of models against data sets.

    Parameters
    ----------
    page : Page
    rows : sequence of mappings
        With `model`, `data` (or `dataset`) and scores.
    metric : str
        As `add_sweep`.
    """
    table = [_numbers(row) for row in rows]
    data_key = next((key for key in ("data", "dataset", "data_set") if table and key in table[0]), "")
    if not data_key or "model" not in table[0]:
        raise InputError(
            "a cross table needs the columns model and data; found " + ", ".join(table[0] if table else [])
        )
    page.section("Models and data sets")
    chosen, _ = _deciding(table, metric)
    matrix: dict[str, dict[str, Any]] = {}
    for row in table:
        matrix.setdefault(str(row["model"]), {"model": row["model"]})[str(row[data_key])] = row.get(chosen)
    page.table(matrix.values(), caption=f"{chosen}: a model a line, a data set a column", name="cross")
    page.table(table, caption="The same, with every score", name="cross all")


def _add_first_screen(page: Page, evaluation: Evaluation) -> None:
    if evaluation.shown:
        first = evaluation.shown[0]
        kept = evaluation.kept if evaluation.kept in first.planes else "once"
        left = INPUT if INPUT in first.planes else kept
        right = kept if left == INPUT else "truth"
        page.slider(
            first.planes[left],
            first.planes[right],
            labels=(_label(left), _label(right)),
            limits=_limits(first),
            pixel_um=first.pixel_um,
            caption=f"{first.name}. Intensities are fitted to the truth's.",
            link="first",
        )
    for name, notes in evaluation.warnings.items():
        page.text(f"{name}: {'; '.join(notes)}.", important=True)
    for name, reasons in evaluation.foreign.items():
        page.text(f"{name} is unlike the training images: {'; '.join(reasons)}.", important=True)
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
        row: dict[str, Any] = {"": _label(method)}
        for metric in METRICS:
            summary = evaluation.summary(method, metric.key)
            row[metric.label] = _with_interval(summary)
        seconds = [r.seconds for r in evaluation.rows if r.method == method]
        row["s / image"] = float(np.mean(seconds)) if seconds and math.isfinite(seconds[0]) else None
        if method in (evaluation.kept, SINGLE):
            row[f"{_label(evaluation.kept)} against it"] = None
        else:
            test = evaluation.against(method)
            row[f"{_label(evaluation.kept)} against it"] = Mark(
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
    if len(evaluation.images) == 1:
        page.text("One image: there is no interval and no test; more images would give both.")
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
    axes.set_yticks(range(len(evaluation.methods)), [_label(method) for method in evaluation.methods])
    axes.invert_yaxis()
    axes.set_xlabel("NRMSE (shorter is better; a dot is an image)")
    page.figure(figure, caption="Error of every method on every image.", data=data, name="errors")


def _add_pictures(page: Page, evaluation: Evaluation, shown: Shown) -> None:
    filter_name = evaluation.best_filter
    wanted = [INPUT, *LABELS, *(key for key in shown.planes if key.endswith(" times"))]
    wanted += [filter_name] if filter_name else []
    wanted += ["truth"]
    page.section(f"{_place(evaluation, shown)} image: {shown.name}")
    pictures = [Picture(shown.planes[key], _label(key)) for key in wanted if key in shown.planes]
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
            label,
            limits=(
                0.0,
                max(float(np.nanpercentile(shown.maps[key], 99.9)), 1e-3) if key == "D" else ceiling,
            ),
            lut="cividis" if key == "D" else "magma",
            unit="" if key == "D" else "grey values",
        )
        for key, label in words.items()
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


def _add_applications(page: Page, evaluation: Evaluation) -> None:
    if not evaluation.series or evaluation.applications_verdict is None:
        return
    page.section("Once or twice?", evaluation.applications_verdict.text)
    page.text(
        "A further application is recommended if it lowers the mean NRMSE by at least 1 % and on most images, is not "
        "contradicted by the test where there are images enough for one, and does not invent more than 10 % more "
        "maxima. Invented: a clear maximum (10 % of the truth's range above its surroundings) with none within "
        "2.5 px in the truth, not even a faint one; omitted: the reverse."
    )
    page.table(
        summarise_applications(evaluation.series), caption="Application by application", name="applications"
    )
    lost = [
        {
            "by": row.by,
            "third": row.group,
            "maxima of the truth": row.n,
            "omitted": row.omitted,
            "share (%)": 100 * row.share,
        }
        for row in evaluation.omissions
    ]
    if lost:
        page.table(lost, caption="What the first application leaves out", name="omissions", digits=2)


def _add_profile(page: Page, evaluation: Evaluation) -> None:
    found = evaluation.profiles
    if not found:
        return
    page.section(
        "Profile along a line",
        f"{found['image']}, {found['macro']}; the same numbers as ImageJ's Plot Profile gives for the truth.",
    )
    names = ["truth", INPUT, "once", "twice", *([evaluation.best_filter] if evaluation.best_filter else [])]
    names = [name for name in names if name in found["values"]]
    figure, axes = chart(size=(7.2, 3.2))
    for place, name in enumerate(names):
        style = (
            {"color": "black", "linewidth": 2.0} if name == "truth" else {"color": COLOURS[(place - 1) % 6]}
        )
        faint = {"alpha": 0.45} if name == INPUT else {}
        axes.plot(found["values"][name], label=_label(name), **style, **faint)
    axes.set(xlabel="distance (steps of about 1 px)", ylabel="intensity, truth's grey values")
    axes.legend(frameon=False, fontsize=8, ncols=3)
    rows = [
        {"step": step} | {name: found["values"][name][step] for name in names}
        for step in range(len(found["values"]["truth"]))
    ]
    page.figure(figure, caption="Intensities along the line.", data=rows, name="profile")
    table = []
    for method in dict.fromkeys(peak.method for peak in evaluation.peaks):
        matches = [peak.match for peak in evaluation.peaks if peak.method == method]
        table.append(
            {
                "": _label(method),
                "peaks of the truth": sum(match.truth for match in matches),
                "found": sum(match.matched for match in matches),
                "recall": _share(sum(m.matched for m in matches), sum(m.truth for m in matches)),
                "precision": _share(sum(m.matched for m in matches), sum(m.found for m in matches)),
                "position error (px)": _mean([m.position_error_px for m in matches]),
                "width / truth's": _mean([m.width_ratio for m in matches]),
            }
        )
    page.table(table, caption="Peaks found again, one line an image", name="peaks", digits=3)


def _add_histogram(page: Page, evaluation: Evaluation) -> None:
    rows = evaluation.histograms
    if not rows:
        return
    page.section(
        "Intensities and saturation",
        "A network that changes intensities as a whole shows here. Results were fitted to the truth by a scale and an "
        "offset first. Saturation in a result is mostly made when it is written as integers: shares are of pixels that "
        "lie at, or in a float result would be clipped to, the ends of the type.",
    )
    figure, axes = chart(size=(6.4, 2.8))
    for place, name in enumerate(key for key in rows[0] if key != "intensity"):
        values = [row[name] for row in rows]
        axes.plot([row["intensity"] for row in rows], values, label=_label(name), color=_colour(name, place))
    axes.set(xlabel="intensity, truth's grey values", ylabel="density", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    first = evaluation.shown[0].name if evaluation.shown else ""
    page.figure(figure, caption=f"Distributions of {first}.", data=rows, name="histogram")
    table = []
    for method, found in evaluation.saturations.items():
        distances = [
            r.wasserstein for r in evaluation.rows if r.method == method and math.isfinite(r.wasserstein)
        ]
        table.append(
            {
                "": _label(method),
                "Wasserstein-1 to the truth (% of range)": 100 * float(np.mean(distances))
                if distances
                else None,
                "type": found.dtype,
                "at its low end (%)": 100 * found.at_low,
                "at its high end (%)": 100 * found.at_high,
            }
        )
    page.table(table, caption="Distances and saturation", name="saturation", digits=3)


def _add_reliability(page: Page, evaluation: Evaluation) -> None:
    found = evaluation.reliability
    if found is None:
        return
    who = f"an ensemble of {found.members}" if found.members > 1 else "a single probabilistic net"
    page.section(
        "How sure",
        f"Predicted by {who}: a Laplace distribution a pixel. The interval of mass p is mean ± scale · (−ln(1 − p)), "
        "that is 0.69, 2.3 and 3.0 scales for 50, 90 and 95 %. Calibrated means that p of the pixels lie inside. This "
        "depends on the intensity scale on which truth and prediction are compared, so two are shown: percentiles of "
        "two images never agree exactly, and the shift looks like overconfidence.",
    )
    curves = [*found.calibrations, *([found.mended] if found.mended else [])]
    figure, axes = chart(1, 3, size=(10.5, 3.3))
    axes[0].plot([0, 1], [0, 1], ":", color="black", linewidth=1)
    for place, curve in enumerate(curves):
        axes[0].plot(
            curve.levels, curve.coverage, "o-", markersize=3, color=COLOURS[place], label=_short(curve)
        )
    axes[0].set(xlabel="mass of the interval", ylabel="share of pixels inside", xlim=(0, 1), ylim=(0, 1))
    axes[0].legend(frameon=False, fontsize=7)
    scales = [row["scale"] for row in found.by_scale]
    axes[1].plot([0, max(scales)], [0, max(scales)], ":", color="black", linewidth=1)
    axes[1].plot(scales, [row["mean |error|"] for row in found.by_scale], "o-", markersize=3)
    axes[1].set(xlabel="predicted scale", ylabel="mean |error|")
    intensity = [row["intensity"] for row in found.by_intensity]
    for place, key in enumerate(("scale", "mean |error|")):
        axes[2].plot(
            intensity,
            [row[key] for row in found.by_intensity],
            "o-",
            markersize=3,
            color=COLOURS[place],
            label=key,
        )
    axes[2].set(xlabel="predicted intensity", ylabel="in percentile ranges")
    axes[2].legend(frameon=False, fontsize=7)
    data = [
        {"intensity scale": curve.scale, "level": level, "coverage": share}
        for curve in curves
        for level, share in zip(curve.levels, curve.coverage, strict=True)
    ]
    page.figure(
        figure,
        caption="Left: calibration. Middle: predicted scale against error; the dotted line is a Laplace distribution's. "
        "Right: both against intensity.",
        data=data,
        name="calibration",
    )
    page.table(
        [
            {
                "intensity scale": curve.scale,
                "50 % holds (%)": 100 * curve.at(0.5),
                "90 % holds (%)": 100 * curve.at(0.9),
                "95 % holds (%)": 100 * curve.at(0.95),
                "largest deviation": curve.largest,
                "mean deviation": curve.mean_error,
                "factor": curve.factor,
                "bias (scales)": round(curve.bias, 6),
            }
            for curve in curves
        ],
        caption="Calibration; multiply predicted scales by the factor to mend them",
        name="coverage",
        digits=3,
    )
    facts: dict[str, Any] = {
        "rank correlation of scale and |error| (8 px blocks)": found.correlation_scale,
        "negative log likelihood, single net (nats)": found.nll_single,
    }
    if found.members > 1:
        facts |= {
            "negative log likelihood, mixture (nats)": found.nll_ensemble,
            "rank correlation of D and |error| (8 px blocks)": found.correlation_d,
            "NRMSE of the members": [round(v, 5) for v in found.member_nrmse],
            "mean D, image by image": {name: f"{value:.4f}" for name, value in found.d_mean.items()},
        }
    page.settings(facts)


def _add_robustness(page: Page, evaluation: Evaluation) -> None:
    points = evaluation.robustness
    if not points:
        return
    page.section(
        "Where it holds",
        "The input was made worse step by step. Valid is where the restoration beats that input and errs at most 1.5 "
        "times as much as on the unchanged one: "
        + "; ".join(str(found) for found in evaluation.valid_ranges)
        + ".",
    )
    changes = list(dict.fromkeys(point.change for point in points))
    figure, axes = chart(1, len(changes), size=(3.5 * len(changes), 3.0))
    titles = {"noise": "added noise", "blur": "added blur", "factor": "intensity factor"}
    for place, (change, axis) in enumerate(zip(changes, np.atleast_1d(axes), strict=True)):
        line = [point for point in points if point.change == change]
        levels = [point.level for point in line]
        axis.plot(levels, [p.input_nrmse for p in line], "o--", markersize=3, color=GREY, label="input")
        axis.plot(
            levels, [p.restored_nrmse for p in line], "o-", markersize=3, color=COLOURS[0], label="restored"
        )
        axis.set(xlabel=f"{titles[change]} ({UNITS[change]})", ylim=(0, None))
        if change == "factor":
            axis.set_xscale("log")
        if place == 0:
            axis.set_ylabel("NRMSE")
            axis.legend(frameon=False, fontsize=8)
    rows = [vars(point) for point in points]
    page.figure(figure, caption="Error against noise, blur and intensity.", data=rows, name="robustness")


def _add_every_image(page: Page, evaluation: Evaluation) -> None:
    page.section("Every image")
    rows = [
        {"image": r.image, "method": _label(r.method)}
        | {metric.label: r.scores[metric.key] for metric in METRICS}
        | {"Wasserstein-1": r.wasserstein, "seconds": r.seconds}
        for r in evaluation.rows
    ]
    page.table(rows, caption="Scores of every image", name="every image")


def _limits(shown: Shown) -> tuple[float, float]:
    return display_limits(shown.planes["truth"])


def _label(method: str) -> str:
    if method == SINGLE:
        return "single net (mean of members)"
    if method.endswith(" times"):
        return f"restored {method}"
    return LABELS.get(method, method)


def _colour(method: str, place: int) -> str:
    """Black is the page's ink; the input is grey, so that it stays behind in light and dark."""
    return {"truth": "black", INPUT: GREY}.get(method, COLOURS[place % len(COLOURS)])


def _short(curve: Calibration) -> str:
    if "scales x" in curve.scale:
        return "aligned, mended by the factor"
    return "own percentiles" if "own" in curve.scale else "aligned"


def _with_interval(summary: Summary) -> str:
    if not summary.n:
        return "–"
    if summary.n < 2 or not math.isfinite(summary.high):
        return number(summary.mean)
    # Spaces that do not break, so that a number and its interval stay on one line.
    return f"{number(summary.mean)}\u00a0±\u00a0{number(summary.high - summary.mean, 2)}"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _as_number(value) if isinstance(value, str) else value for key, value in row.items()}


def _as_number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _deciding(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[str, float]:
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    if metric and metric not in columns:
        raise InputError(f"no column {metric!r}; there are {', '.join(columns)}")
    order = [metric] if metric else ["nrmse", "psnr", "ssim", "val_loss", "loss"]
    filled = [key for key in columns if any(isinstance(row.get(key), float | int) for row in rows)]
    for wanted in order:
        for column in filled:
            if wanted.lower() in column.lower():
                higher = any(word in column.lower() for word in ("psnr", "ssim"))
                return column, -1.0 if higher else 1.0
    return filled[-1] if filled else "", 1.0
