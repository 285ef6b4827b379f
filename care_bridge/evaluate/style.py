"""What methods are called and how they are drawn, the same in every section of the report."""

from __future__ import annotations

import math

from care_bridge.evaluate.evaluation import INPUT, SINGLE
from care_bridge.evaluate.scores import Summary
from care_bridge.page import COLOURS, number

GREY = "#8a8f98"

LABELS = {"once": "restored", "twice": "restored twice"}


def label(method: str) -> str:
    """What a method is called on the page."""
    if method == SINGLE:
        return "single net (mean of members)"
    if method.endswith(" times"):
        return f"restored {method}"
    return LABELS.get(method, method)


def colour(method: str, place: int) -> str:
    """Black is the page's ink; the input is grey, so that it stays behind in light and dark."""
    return {"truth": "black", INPUT: GREY}.get(method, COLOURS[place % len(COLOURS)])


def with_interval(summary: Summary) -> str:
    """A mean, and half of its interval where there is one."""
    if not summary.n:
        return "–"
    if not math.isfinite(summary.high):
        return number(summary.mean)
    # Spaces that do not break, so that a number and its interval stay on one line.
    return f"{number(summary.mean)}\u00a0±\u00a0{number(summary.high - summary.mean, 2)}"
