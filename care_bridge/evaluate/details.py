"""Sections below the scores: by condition, once or twice, a profile, intensities, how sure, and where it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from care_bridge.evaluate.applications import summarise_applications
from care_bridge.evaluate.evaluation import ALIGNED, INPUT, OWN, ConditionScores, Evaluation, Reliability
from care_bridge.evaluate.reliability import Calibration
from care_bridge.evaluate.robustness import UNITS
from care_bridge.evaluate.scores import METRICS
from care_bridge.evaluate.style import GREY, colour, label, with_interval
from care_bridge.page import COLOURS, Page, chart, number


def add_applications(page: Page, evaluation: Evaluation) -> None:
    """Whether to apply once or twice, and what is invented or left out."""
    if not evaluation.series or evaluation.applications_verdict is None:
        return
    page.section("Once or twice?", evaluation.applications_text)
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


def add_conditions(page: Page, evaluation: Evaluation) -> None:
    """Scores under each condition, with what others published for it."""
    page.section(
        "By condition",
        "Means over the images of each condition ± half of their 95 % interval, on the scales of the table above; the "
        f"restoration is the one that is judged above ({label(evaluation.kept)}). "
        + ". ".join(evaluation.condition_sentences())
        + ".",
    )
    if evaluation.published:
        page.text(
            "Published values were measured by others on images of their own: another input, another SSIM or another "
            "network may each explain a difference."
        )
    rows = evaluation.by_condition()
    wanted = [INPUT, evaluation.kept, *([evaluation.best_filter] if evaluation.best_filter else [])]
    shown = [row for row in rows if row.published or row.method in wanted]
    table = [
        {
            "condition": row.condition,
            "": label(row.method),
            "images": None if row.published else row.images,
            **{m.label: with_interval(row.scores[m.key]) if m.key in row.scores else None for m in METRICS},
            "s / image": row.seconds if math.isfinite(row.seconds) else None,
        }
        for row in shown
    ]
    data = [
        {
            "condition": row.condition,
            "method": row.method,
            "published": row.published,
            "images": row.images,
            "metric": key,
            **asdict(summary),
            "seconds": row.seconds,
        }
        for row in rows
        for key, summary in row.scores.items()
    ]
    page.table(table, caption="Scores by condition", name="conditions", digits=3, data=data)
    _add_condition_chart(page, shown)


def _add_condition_chart(page: Page, rows: Sequence[ConditionScores]) -> None:
    conditions = list(dict.fromkeys(row.condition for row in rows))
    methods = list(dict.fromkeys((row.method, row.published) for row in rows))
    panels = [metric for metric in METRICS if metric.key in ("nrmse", "ssim")]
    figure, axes = chart(1, len(panels), size=(3.8 * len(panels) + 1.6, 3.0))
    data = []
    for metric, axis in zip(panels, axes, strict=True):
        for place, (method, published) in enumerate(methods):
            known = [
                (conditions.index(row.condition), row.scores[metric.key])
                for row in rows
                if (row.method, row.published) == (method, published) and metric.key in row.scores
            ]
            # Six colours go round; marks tell apart what has the same.
            style = "osD^v"[place // len(COLOURS) % 5] + (":" if published else "-")
            axis.plot(
                [x for x, _ in known],
                [one.mean for _, one in known],
                style,
                markersize=4,
                color=colour(method, place),
                label=label(method),
            )
            data += [
                {"metric": metric.key, "condition": conditions[x], "method": method, "published": published}
                | {"mean": one.mean, "low": one.low, "high": one.high}
                for x, one in known
            ]
            for x, one in known:
                if math.isfinite(one.high):
                    axis.plot([x, x], [one.low, one.high], color=colour(method, place), linewidth=1)
        axis.set_xticks(range(len(conditions)), conditions)
        highest = max((row.scores[metric.key].mean for row in rows if metric.key in row.scores), default=1.0)
        axis.set(ylabel=metric.label, ylim=(0, 1.15 * highest))
        axis.margins(x=0.15)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", frameon=False, fontsize=7)
    page.figure(
        figure,
        caption="Error and similarity under each condition; bars are 95 % intervals (the frame cuts wide ones), "
        "dotted lines were published.",
        data=data,
        name="by condition",
    )


def add_profile(page: Page, evaluation: Evaluation) -> None:
    """Intensities along a line, and peaks found again."""
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
        axes.plot(found["values"][name], label=label(name), **style, **faint)
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
                "": label(method),
                "peaks of the truth": sum(match.truth for match in matches),
                "found": sum(match.matched for match in matches),
                "recall": _share(sum(m.matched for m in matches), sum(m.truth for m in matches)),
                "precision": _share(sum(m.matched for m in matches), sum(m.found for m in matches)),
                "position error (px)": _mean([m.position_error_px for m in matches]),
                "FWHM (px)": _mean([m.width_px for m in matches]),
                "truth's FWHM (px)": _mean([m.truth_width_px for m in matches]),
                "width / truth's": _mean([m.width_ratio for m in matches]),
            }
        )
    page.table(table, caption="Peaks found again, one line an image", name="peaks", digits=3)
    if said := widths_sentence(evaluation):
        page.text(said)


def widths_sentence(evaluation: Evaluation) -> str:
    """How wide the restoration's peaks are against the truth's, in words; "" where none was found again."""
    matches = [peak.match for peak in evaluation.peaks if peak.method == evaluation.kept]
    ratio = _mean([match.width_ratio for match in matches])
    if math.isnan(ratio):
        return ""
    # Within 5 % nobody sees it in a plot; a tenth more is what papers call slightly widened.
    said = "as wide as the truth's" if abs(ratio - 1) <= 0.05 else "widened" if ratio > 1 else "narrowed"
    return (
        f"Peaks that are found again are {said}: full width at half maximum (above the peak's own base) "
        f"{number(_mean([m.width_px for m in matches]), 3)} px, the truth's "
        f"{number(_mean([m.truth_width_px for m in matches]), 3)} px; {number(ratio, 3)} times, mean over images."
    )


def add_histogram(page: Page, evaluation: Evaluation) -> None:
    """Distributions of intensities, their distances, and saturation."""
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
        axes.plot([row["intensity"] for row in rows], values, label=label(name), color=colour(name, place))
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
                "": label(method),
                "Wasserstein-1 to the truth (% of range)": 100 * float(np.mean(distances))
                if distances
                else None,
                "type": found.dtype,
                "at its low end (%)": 100 * found.at_low,
                "at its high end (%)": 100 * found.at_high,
            }
        )
    page.table(table, caption="Distances and saturation", name="saturation", digits=3)


def add_reliability(page: Page, evaluation: Evaluation) -> None:
    """Calibration, widths and disagreement of a probabilistic model; nothing for others."""
    found = evaluation.reliability
    if found is None:
        return
    who = f"an ensemble of {found.members}" if found.members > 1 else "a single probabilistic net"
    page.section(
        "How sure",
        f"Predicted by {who}: a Laplace distribution a pixel. The interval of mass p is mean ± scale · (−ln(1 − p)), "
        "that is 0.69, 2.3 and 3.0 scales for 50, 90 and 95 %. Calibrated means that p of the pixels lie inside. This "
        "depends on the intensity scale on which truth and prediction are compared, so two are shown: percentiles of "
        "two images never agree exactly, and the shift looks like overconfidence. "
        + (
            "The model has no temperature: its intervals are as they were trained (care-bridge calibrate finds one)."
            if found.temperature is None
            else f"The model's temperature, {found.temperature:.3g}, found on patches that validated, is in its scales."
        ),
    )
    curves = [*found.calibrations, *([found.mended] if found.mended else [])]
    _add_calibration(page, found, curves)
    page.table(
        [
            {
                "intensity scale": curve.scale,
                "temperature": "without" if curve in found.uncalibrated else found.temperature or "none",
                "50 % holds (%)": 100 * curve.at(0.5),
                "90 % holds (%)": 100 * curve.at(0.9),
                "95 % holds (%)": 100 * curve.at(0.95),
                "largest deviation": curve.largest,
                "mean deviation": curve.mean_error,
                "factor": curve.factor,
                "bias (scales)": round(curve.bias, 6),
            }
            for curve in (*found.uncalibrated, *curves)
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


def _add_calibration(page: Page, found: Reliability, curves: Sequence[Calibration]) -> None:
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


def add_robustness(page: Page, evaluation: Evaluation) -> None:
    """Curves against noise, blur and intensity, where they were measured."""
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


def _short(curve: Calibration) -> str:
    if "scales x" in curve.scale:
        return "aligned, mended by the factor"
    return {ALIGNED: "aligned", OWN: "own percentiles"}.get(curve.scale, curve.scale)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
