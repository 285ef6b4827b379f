"""What methods are called and how they are drawn, the same in every section of the report."""

from __future__ import annotations

from care_bridge.evaluate.evaluation import INPUT, SINGLE
from care_bridge.page import COLOURS

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
