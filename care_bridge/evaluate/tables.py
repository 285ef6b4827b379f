"""Tables that a person gives, and those of `care-bridge sweep` and `cross-eval` as parts of a page."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError
from care_bridge.page import Mark, Page


def read_table(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line.

    Raises
    ------
    InputError
        If it cannot be read or has no row.
    """
    try:
        # Excel begins its UTF-8 with a byte order mark, which would be part of the first column's name.
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            found = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {str(path)!r}: {error}") from error
    if not found:
        raise InputError(f"the table {str(path)!r} has no row; give a CSV with a header line")
    # Cells beyond the header's come under None.
    return [{key: value for key, value in row.items() if key is not None} for row in found]


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
