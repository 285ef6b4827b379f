"""Models x data sets: does a model carry over to images that it was not trained for?"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.evaluate.evaluation import INPUT
from care_bridge.evaluate.pairs import Pair, naming
from care_bridge.evaluate.scores import Scores, comparable, mean_scores, score_image
from care_bridge.files import atomic_file, write_text
from care_bridge.predictor import Predictor, mean_channels
from care_bridge.progress import Progress, silent


def score_pairs(predictor: Predictor | None, pairs: Sequence[Pair]) -> Scores:
    """Restore each source, score it as `evaluate` does, and take the mean over images.

    Parameters
    ----------
    predictor : Predictor, optional
        Of a probabilistic one the means are scored. None scores the sources as they are, where they have the
        shape of their ground truth.
    pairs : sequence of Pair
    """
    each = []
    for pair in pairs:
        with naming(pair):
            if predictor is not None:
                result = mean_channels(predictor.predict(pair.source), like=pair.source)
            elif comparable(pair.source, pair.target):
                result = pair.source
            else:
                continue
            each.append(score_image(result, pair.target, mask=pair.mask))
    return mean_scores(each)


@dataclass(frozen=True)
class Matrix:
    """Models x data sets.

    Attributes
    ----------
    models, datasets : tuple of str
        The first is `INPUT`: no restoration.
    cells : mapping of (str, str) to Scores
        Means over images, by model and data set; NaN where nothing could be scored.
    images : mapping of str to int
        Pairs of each data set.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: Mapping[tuple[str, str], Scores]
    images: Mapping[str, int]

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
            table.writerow((model, data, cell.psnr, cell.nrmse, cell.ssim, self.images[data]))
        write_text(Path(folder) / "cross-eval.csv", text.getvalue())
        _draw_matrix(self, Path(folder) / "cross-eval.png")


def cross_evaluate(
    models: Mapping[str, Predictor],
    datasets: Mapping[str, Sequence[Pair]],
    *,
    progress: Progress = silent,
) -> Matrix:
    """Every model on every data set, and the data sets as they are.

    Parameters
    ----------
    models : mapping of str to Predictor
    datasets : mapping of str to sequence of Pair
        Images that none of the models was trained on, or the diagonal means nothing.
    progress : Progress

    Returns
    -------
    Matrix
        Mean scores by model and data set; its first row is the unrestored images.

    Raises
    ------
    InputError
        If there is no model or no data set, or a model has the name of that first row.
    """
    if not models or not datasets:
        raise InputError("a cross-evaluation needs at least one model and one data set")
    if INPUT in models:
        raise InputError(f"a model cannot be called {INPUT!r}; that is the row of the unrestored images")
    rows: dict[str, Predictor | None] = {INPUT: None, **models}
    cells = {}
    for number, (model, predictor) in enumerate(rows.items()):
        for column, (name, pairs) in enumerate(datasets.items()):
            cells[model, name] = score_pairs(predictor, pairs)
            progress(number * len(datasets) + column + 1, len(rows) * len(datasets), "models x data sets")
    images = {name: len(pairs) for name, pairs in datasets.items()}
    return Matrix(tuple(rows), tuple(datasets), cells, images)


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
        known = good[np.isfinite(good)]
        middle = (known.min() + known.max()) / 2 if known.size else math.nan
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
