"""What a person looks at while a critic teaches: a sheet of samples an epoch, and whether either side has collapsed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from care_bridge.files import atomic_file

SAMPLES = Path("training") / "samples"
"""Where sheets lie in a model folder."""

SHOWN = 4
"""Patches on a sheet."""

_FLAT = 0.01
"""A generator has collapsed whose images, or whose differences between images, have less than this share of the deviation
of what it is to give."""

_WINS = 1e-3
"""A critic wins that loses less than this."""


def draw_samples(folder: str | os.PathLike[str], epoch: int, columns: Mapping[str, NDArray[Any]]) -> Path:
    """Draw training/samples/epoch_0001.png: patches that validate, a row each, in columns of equal contrast.

    Parameters
    ----------
    folder : path
        Of the model.
    epoch : int
        From 1.
    columns : mapping of str to ndarray, shape (n, y, x, channel)
        By what stands above them; of several channels the first is drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(SHOWN, *map(len, columns.values()))
    figure = Figure(figsize=(1.8 * len(columns), 1.7 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, len(columns), squeeze=False)
    for place, (name, images) in enumerate(columns.items()):
        for row in range(rows):
            panel = panels[row][place]
            # Patches are normalised: 0 and 1 are the percentiles of their image.
            panel.imshow(images[row, ..., 0], cmap="gray", vmin=0, vmax=1)
            panel.set_axis_off()
            if row == 0:
                panel.set_title(name, fontsize=8)
    figure.suptitle(f"epoch {epoch}", fontsize=9)
    path = Path(folder) / SAMPLES / f"epoch_{epoch:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=100, format="png")
    return path


def collapsed(made: NDArray[Any], wanted: NDArray[Any]) -> str | None:
    """Whether a generator gives nothing any more, or always the same, in words; None where it does neither.

    Parameters
    ----------
    made, wanted : ndarray, shape (n, y, x, channel)
        What it gives, and images as it should give.
    """
    spread = float(wanted.std())
    if made.std() < _FLAT * spread:
        return "it gives images of one grey"
    if len(made) > 1 and made.std(axis=0).mean() < _FLAT * float(wanted.std(axis=0).mean()):
        return "it gives every patch the same image"
    return None


def critic_wins(kind: str, lost: float) -> bool:
    """Whether a critic tells real from made every time, so that there is nothing to learn from it."""
    return kind != "wgan-gp" and lost < _WINS
