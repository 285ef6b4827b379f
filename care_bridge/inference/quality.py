"""How well a model restores image pairs: three numbers a model and data set, and tables of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge import metrics
from care_bridge.errors import InputError
from care_bridge.files import atomic_file, write_text
from care_bridge.images import Image, read_image
from care_bridge.inference.files import split_scales
from care_bridge.predictor import Predictor
from care_bridge.progress import Progress, silent

Pairs = Sequence[tuple[Image, Image]]
"""Low-quality images and their ground truth."""

INPUT = "input"
"""Row of a matrix: the images as they are, not restored."""


@dataclass(frozen=True)
class Quality:
    """Means over image pairs, after the alignment of `metrics.align`.

    Attributes
    ----------
    nrmse, psnr, ssim : float
        See `metrics`; psnr in decibels, ssim with Weigert's window.
    n : int
        Number of pairs.
    """

    nrmse: float
    psnr: float
    ssim: float
    n: int


def read_pairs(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    axes: str | None = None,
    limit: int | None = None,
) -> list[tuple[Image, Image]]:
    """Image pairs of equal name in two folders, read into memory.

    Parameters
    ----------
    source, target : path
    axes : str, optional
        Of the files, where they do not say.
    limit : int, optional
        The first so many by name; None reads all.

    Raises
    ------
    InputError
        As `patches.pairs_from_folders`.
    """
    from care_bridge.patches import pairs_from_folders

    names = [Path(pair.name).name for pair in pairs_from_folders(source, target, axes=axes)][:limit]
    return [(read_image(Path(source) / name, axes), read_image(Path(target) / name, axes)) for name in names]


def measure(predictor: Predictor | None, pairs: Pairs) -> Quality:
    """Restore each source and compare with its ground truth; None compares the sources themselves."""
    rows = []
    for source, truth in pairs:
        result = source if predictor is None else split_scales(predictor.predict(source), like=source)[0]
        if result.shape != truth.shape:
            raise InputError(
                f"{truth.name!r} has shape {truth.shape}, but the restored image {result.shape}; give ground "
                "truth of the same size"
            )
        stack = "Z" in result.axes or "T" in result.axes
        rows.append(
            (
                metrics.nrmse(result.data, truth.data),
                metrics.psnr(result.data, truth.data),
                metrics.ssim(result.data, truth.data, slicewise=stack),
            )
        )
    nrmse, psnr, ssim = np.mean(rows, axis=0)
    return Quality(float(nrmse), float(psnr), float(ssim), len(rows))


@dataclass(frozen=True)
class Matrix:
    """Models x data sets.

    Attributes
    ----------
    models, datasets : tuple of str
        The first model is `INPUT`: no restoration.
    cells : dict of (str, str) to Quality
        By model and data set.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: Mapping[tuple[str, str], Quality]

    def __str__(self) -> str:
        width = max(len(name) for name in self.models)
        columns = [max(len(name), 22) for name in self.datasets]
        names = "  ".join(name.ljust(column) for name, column in zip(self.datasets, columns, strict=True))
        lines = [
            " " * width + "  " + names,
            " " * width + "  " + "  ".join("PSNR dB / NRMSE / SSIM" for _ in columns),
        ]
        for model in self.models:
            cells = [self.cells[model, data] for data in self.datasets]
            texts = [f"{cell.psnr:.2f} / {cell.nrmse:.4f} / {cell.ssim:.3f}" for cell in cells]
            padded = (text.ljust(column) for text, column in zip(texts, columns, strict=True))
            lines.append(f"{model.ljust(width)}  {'  '.join(padded)}".rstrip())
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write cross-eval.csv and cross-eval.png."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("model", "dataset", "psnr_db", "nrmse", "ssim", "n"))
        for (model, data), cell in self.cells.items():
            table.writerow((model, data, cell.psnr, cell.nrmse, cell.ssim, cell.n))
        write_text(Path(folder) / "cross-eval.csv", text.getvalue())
        _draw_matrix(self, Path(folder) / "cross-eval.png")


def cross_evaluate(
    models: Mapping[str, Predictor],
    datasets: Mapping[str, Pairs],
    *,
    progress: Progress = silent,
) -> Matrix:
    """Every model on every data set, and the data sets as they are.

    Parameters
    ----------
    models : mapping of str to Predictor
    datasets : mapping of str to pairs
        Images that none of the models was trained on, or the diagonal means nothing.
    progress : Progress
    """
    if not models or not datasets:
        raise InputError("a cross-evaluation needs at least one model and one data set")
    if INPUT in models:
        raise InputError(f"a model cannot be called {INPUT!r}; that is the row of the unrestored images")
    rows: dict[str, Predictor | None] = {INPUT: None, **models}
    cells = {}
    for number, (model, predictor) in enumerate(rows.items()):
        for column, (name, pairs) in enumerate(datasets.items()):
            cells[model, name] = measure(predictor, pairs)
            progress(number * len(datasets) + column + 1, len(rows) * len(datasets), "models x data sets")
    return Matrix(tuple(rows), tuple(datasets), cells)


def _draw_matrix(matrix: Matrix, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: tuple[tuple[str, str, str], ...] = (
        ("psnr", "PSNR (dB)", "{:.1f}"),
        ("nrmse", "NRMSE", "{:.3f}"),
        ("ssim", "SSIM", "{:.2f}"),
    )
    across, down = len(matrix.datasets), len(matrix.models)
    figure = Figure(figsize=(3 + 3 * max(1.0, 0.9 * across), 1.4 + 0.6 * down), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (key, title, shown) in zip(figure.subplots(1, 3, squeeze=False)[0], panels, strict=True):
        values = np.array(
            [[getattr(matrix.cells[model, data], key) for data in matrix.datasets] for model in matrix.models]
        )
        good = -values if key == "nrmse" else values
        panel.imshow(good, cmap="Blues", aspect="auto")
        middle = (good.min() + good.max()) / 2
        for row, column in np.ndindex(values.shape):
            colour: Any = "white" if good[row, column] > middle else "black"
            panel.text(column, row, shown.format(values[row, column]), ha="center", va="center", color=colour)
        panel.set_title(title)
        panel.set_xticks(range(across), matrix.datasets, rotation=30, ha="right")
        panel.set_yticks(range(down), matrix.models if panel is figure.axes[0] else [""] * down)
        panel.tick_params(length=0)
    figure.axes[0].set_ylabel("model")
    figure.supxlabel("data set")
    with atomic_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
