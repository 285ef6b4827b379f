"""Numbers and table cells as people read them, and tables as CSV."""

from __future__ import annotations

import csv
import io
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """A table cell that is good or bad, shown by a sign as well as by colour."""

    text: str
    good: bool

    def __str__(self) -> str:
        return self.text


def csv_text(rows: Iterable[Row]) -> str:
    """Rows as CSV with a header line; columns in order of first appearance, numbers unrounded."""
    rows = [dict(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def number(value: Any, digits: int = 4) -> str:
    """A number as people read it: significant digits, exponents only where zeros would be counted."""
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace(",", " ").replace("-", "−")
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 6:
        return f"{value:.{max(digits - 2, 1)}e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{value:.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Columns of all rows, in order of first appearance."""
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def cell(value: Any, digits: int) -> dict[str, Any]:
    """A table cell: its text, and the class that colours or aligns it."""
    if isinstance(value, Mark):
        return {"text": ("✓ " if value.good else "✗ ") + value.text, "css": "good" if value.good else "bad"}
    if isinstance(value, bool | np.bool_):
        return {"text": "yes" if value else "no", "css": ""}
    if isinstance(value, numbers.Real):
        return {
            "text": number(value, digits),
            "css": "n",
        }
    return {"text": "" if value is None else str(value), "css": ""}


def plain_text(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(part) for part in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(value) if isinstance(value, float) else str(value)


def _csv_value(value: Any) -> Any:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else value
