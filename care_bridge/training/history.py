"""What training writes about itself: history.csv and the three curves."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from care_bridge.errors import InputError
from care_bridge.files import atomic_file, write_text

COLUMNS = (
    "epoch",
    "loss",
    "mae",
    "mse",
    "val_loss",
    "val_mae",
    "val_mse",
    "learning_rate",
    "seconds",
)

_SIDES = ("adversarial", "critic", "content", "saliency")
"""What generator and critic lose, drawn where there are such."""


def write_history(folder: str | os.PathLike[str], history: Sequence[Mapping[str, float]]) -> Path:
    """Write training/history.csv: a row an epoch, columns `COLUMNS`, then what else the method tells of its steps."""
    text = io.StringIO()
    columns = dict.fromkeys((*COLUMNS, *(key for record in history for key in record)))
    table = csv.DictWriter(text, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    path = Path(folder) / "training" / "history.csv"
    write_text(path, text.getvalue())
    return path


def read_history(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read training/history.csv of a model folder."""
    path = Path(folder) / "training" / "history.csv"
    if not path.is_file():
        raise InputError(f"no training/history.csv in {str(folder)!r}; it is written while training")
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def kept_epoch(history: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    """The record of the epoch whose weights are kept as the best: the first of the lowest validation loss."""
    known = [record for record in history if not math.isnan(record["val_loss"])]
    return min(known, key=lambda record: record["val_loss"], default=None)


def draw_history(
    folder: str | os.PathLike[str], history: Sequence[Mapping[str, float]], *, loss: str, title: str = ""
) -> Path:
    """Draw training/history.png: error, loss and learning rate by epoch, the kept epoch marked; its numbers are history.csv.

    Where a critic teaches, what both sides lose as well.

    A loss that is the mean absolute error, csbdeep's default, is drawn once.

    Parameters
    ----------
    folder : path
        Model folder.
    history : sequence of mapping
        Keys of `COLUMNS`.
    loss : str
        Name of the loss, for its axis.
    title : str
        Above the curves.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) < 20 else ""
    shown = [("mae", "mean absolute error\n(normalised intensity)"), ("loss", f"loss ({loss})")]
    if all(record["loss"] == record["mae"] and record["val_loss"] == record["val_mae"] for record in history):
        shown = [("loss", f"loss ({loss}): mean absolute error\n(normalised intensity)")]
    sides = [name for name in _SIDES if name in history[0]]
    count = len(shown) + bool(sides) + 1
    figure = Figure(figsize=(3.4 * count, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count)
    kept = kept_epoch(history)
    for panel, (key, label) in zip(panels, shown, strict=False):
        for prefix, name, colour in (("", "training", "#0072b2"), ("val_", "validation", "#d55e00")):
            values = [record[prefix + key] for record in history]
            panel.plot(epochs, values, label=name, color=colour, marker=marker, markersize=3)
        if kept is not None:
            panel.axvline(kept["epoch"], color="black", linewidth=0.8, linestyle=":")
            panel.plot(
                kept["epoch"], kept["val_" + key], "o", color="black", fillstyle="none", markersize=8,
                label=f"kept: epoch {kept['epoch']:g}",
            )  # fmt: skip
        panel.set_ylabel(label)
        panel.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    if sides:
        for name in sides:
            values = [record[name] for record in history]
            panels[-2].plot(epochs, values, label=name, marker=marker, markersize=3)
        panels[-2].set_ylabel("losses of both sides")
        panels[-2].legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    rates = [record["learning_rate"] for record in history]
    panels[-1].step(epochs, rates, where="post", color="#009e73", marker=marker, markersize=3)
    panels[-1].set_ylabel("learning rate")
    panels[-1].set_yscale("log")
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    path = Path(folder) / "training" / "history.png"
    with atomic_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return path
