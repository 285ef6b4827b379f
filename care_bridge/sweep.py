"""Grids of settings: train each, measure time and quality, in a folder that can be taken up again."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from care_bridge.config import CareConfig
from care_bridge.defaults import PATCH_2D, PATCHES_PER_IMAGE, SEED
from care_bridge.errors import InputError
from care_bridge.evaluate.cross import score_pairs
from care_bridge.evaluate.pairs import read_pairs
from care_bridge.files import atomic_file, sha256, write_text
from care_bridge.patches import pairs_from_folders
from care_bridge.pools import pool
from care_bridge.progress import Progress, silent
from care_bridge.training.startup import load_tensorflow

PATCH_SIZE = "patch_size"
"""The one key of a grid that is no setting of `CareConfig`."""

_ROW = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """What is trained and measured.

    Attributes
    ----------
    source, target : str
        Folders of training images.
    grid : mapping of str to sequence
        Values to try for each key: settings of `CareConfig`, or `patch_size`. Every combination is trained.
    settings : mapping
        What all have in common.
    patch_size : tuple of int
        Where the grid has none.
    test_source, test_target : str
        Folders of other images to measure on; "" measures the loss of the validation patches only.
    n_patches_per_image, validation_fraction, seed
        See `data.data_from_folders`.
    axes : str
        Of the network; "" takes the images' own.
    """

    source: str
    target: str
    grid: Mapping[str, Sequence[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    patch_size: tuple[int, ...] = PATCH_2D
    test_source: str = ""
    test_target: str = ""
    n_patches_per_image: int = PATCHES_PER_IMAGE
    validation_fraction: float = 0.1
    seed: int = SEED
    axes: str = ""

    def points(self) -> dict[str, dict[str, Any]]:
        """Folder name and settings of every combination.

        Raises
        ------
        InputError
            If a key is unknown or has no values.
        """
        known = set(CareConfig.model_fields) | {PATCH_SIZE}
        for key, values in self.grid.items():
            if not values:
                raise InputError(f"the grid has no values for {key!r}; give e.g. {key}=8,16")
            if key not in known:
                CareConfig(**{key: values[0]})  # raises, with the nearest known key
        points = {}
        for values in itertools.product(*self.grid.values()):
            settings = dict(zip(self.grid, values, strict=True))
            parts = (f"{key.removeprefix('train_')}-{_short(value)}" for key, value in settings.items())
            points["_".join(parts)] = settings
        return points


@dataclass(frozen=True)
class SweepRow:
    """One combination and what came of it.

    Attributes
    ----------
    name : str
        Its folder.
    settings : dict
        Its values of the grid.
    seconds : float
        Time of all epochs.
    epochs : int
    val_loss, val_mae : float
        Lowest of the validation patches.
    psnr, nrmse, ssim : float or None
        Means over the test images, see `evaluate.scores`; None without any.
    """

    name: str
    settings: dict[str, Any]
    seconds: float
    epochs: int
    val_loss: float
    val_mae: float
    psnr: float | None = None
    nrmse: float | None = None
    ssim: float | None = None


def run_sweep(
    sweep: Sweep, out: str | os.PathLike[str], *, processes: int = 1, progress: Progress = silent
) -> list[SweepRow]:
    """Train every combination of a grid and write a table and a figure.

    Parameters
    ----------
    sweep : Sweep
    out : path
        A model folder for each combination, sweep.csv and sweep.png. Combinations that are finished there
        already are not trained again, the unfinished one goes on from its checkpoint.
    processes : int
        How many are trained at the same time, each in a process with its share of the processor's cores. Times
        compare only within one number of processes.
    progress : Progress

    Returns
    -------
    list of SweepRow
        One a combination, as in sweep.csv.

    Raises
    ------
    InputError
        If a setting is impossible or the folder holds another sweep.
    """
    folder = Path(out)
    points = sweep.points()
    _check_possible(sweep, points)
    _check_same(sweep, folder)
    _check_pairs(sweep)
    write_text(folder / "sweep-settings.json", json.dumps(_plain(asdict(sweep)), indent=1) + "\n")
    rows: dict[str, SweepRow] = {}
    wanted = [name for name in points if not _finished(folder / name, rows)]
    progress(len(rows), len(points), "settings")
    if processes <= 1:
        for name in wanted:
            rows[name] = _one(sweep, name, str(folder), 0)
            progress(len(rows), len(points), "settings")
            _write(folder, points, rows)
    else:
        threads = max(1, (os.cpu_count() or 1) // processes)
        # Ctrl-C, or one impossible setting, ends the others; their checkpoints are kept.
        with pool(processes, tasks_per_child=1) as children:
            waiting = {children.submit(_one, sweep, name, str(folder), threads): name for name in wanted}
            for done in as_completed(waiting):
                rows[waiting[done]] = done.result()
                progress(len(rows), len(points), "settings")
                _write(folder, points, rows)
    _write(folder, points, rows)
    return [rows[name] for name in points]


def _check_possible(sweep: Sweep, points: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an impossible combination before the first is trained."""
    from care_bridge.training.data import network_axes

    axes = network_axes(sweep.source, sweep.target, axes=sweep.axes or None)
    for point in points.values():
        CareConfig(
            axes, **{**sweep.settings, **{key: one for key, one in point.items() if key != PATCH_SIZE}}
        )


def _check_pairs(sweep: Sweep) -> None:
    """Refuse pairs that are their own truth, by the one rule of all commands."""
    pairs_from_folders(sweep.source, sweep.target, look=True)
    if sweep.test_source:
        pairs_from_folders(sweep.test_source, sweep.test_target, look=True)


def trained_and_tested(sweep: Sweep) -> list[str]:
    """Names of test images that are training images as well, by the SHA-256 of their files."""
    if not sweep.test_source:
        return []
    trained = pairs_from_folders(sweep.source, sweep.target)
    known = {sha256(file) for pair in trained for file in pair.files}
    tested = pairs_from_folders(sweep.test_source, sweep.test_target)
    return [pair.name for pair in tested if any(sha256(file) in known for file in pair.files)]


def _one(sweep: Sweep, name: str, out: str, threads: int) -> SweepRow:
    if threads:  # a process of its own
        load_tensorflow()
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    from care_bridge.opening import open_predictor
    from care_bridge.training.data import data_from_folders
    from care_bridge.training.fit import train

    settings = dict(sweep.points()[name])
    folder = Path(out) / name
    patch_size = settings.get(PATCH_SIZE, sweep.patch_size)
    patch_size = (patch_size,) * len(sweep.patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    values = {**sweep.settings, **{key: value for key, value in settings.items() if key != PATCH_SIZE}}
    data = data_from_folders(
        sweep.source,
        sweep.target,
        patch_size=patch_size,
        axes=sweep.axes or None,
        n_patches_per_image=sweep.n_patches_per_image,
        validation_fraction=sweep.validation_fraction,
        target_scale=values.get("target_scale"),
        seed=sweep.seed,
    )
    config = CareConfig(
        data.axes,
        data.n_channel_in,
        data.n_channel_out,
        **{"seed": sweep.seed, **values},
        provenance={"data": data.provenance, "sweep": settings},
    )
    history = train(config, data.training, data.validation, folder, resume=True).history
    scores = None
    if sweep.test_source:
        scores = score_pairs(
            open_predictor(folder, runtime="keras"), read_pairs(sweep.test_source, sweep.test_target)
        )
    row = SweepRow(
        name=name,
        settings=settings,
        seconds=round(sum(record["seconds"] for record in history), 2),
        epochs=len(history),
        val_loss=min(record["val_loss"] for record in history),
        val_mae=min(record["val_mae"] for record in history),
        psnr=None if scores is None else scores.psnr,
        nrmse=None if scores is None else scores.nrmse,
        ssim=None if scores is None else scores.ssim,
    )
    write_text(folder / _ROW, json.dumps(asdict(row), indent=1) + "\n")
    return row


def _finished(folder: Path, rows: dict[str, SweepRow]) -> bool:
    path = folder / _ROW
    if not path.is_file():
        return False
    rows[folder.name] = SweepRow(**json.loads(path.read_text(encoding="utf-8")))
    return True


def _check_same(sweep: Sweep, folder: Path) -> None:
    path = folder / "sweep-settings.json"
    if not path.is_file():
        return
    before, now = json.loads(path.read_text(encoding="utf-8")), _plain(asdict(sweep))
    changed = [key for key in now if key != "grid" and before.get(key) != now[key]]
    if changed:
        raise InputError(
            f"{str(folder)!r} holds a sweep with another {', '.join(changed)}; go on with the same, or choose "
            "another folder (the grid may grow)"
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write(folder: Path, points: Mapping[str, Mapping[str, Any]], rows: Mapping[str, SweepRow]) -> None:
    done = [rows[name] for name in points if name in rows]
    if not done:
        return
    keys = list(done[0].settings)
    figures = ("seconds", "epochs", "val_loss", "val_mae", "psnr", "nrmse", "ssim")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*keys, *figures))
    for row in done:
        table.writerow(
            (*(_short(row.settings[key]) for key in keys), *(getattr(row, name) for name in figures))
        )
    write_text(folder / "sweep.csv", text.getvalue())
    _draw(done, folder / "sweep.png")


def _draw(rows: Sequence[SweepRow], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = list(rows[0].settings)
    measured = all(row.psnr is not None for row in rows)
    quality = ("psnr", "PSNR on test images (dB)") if measured else ("val_mae", "validation error")
    figures = (quality, ("seconds", "time (s)"))
    figure = Figure(figsize=(1 + 3.2 * len(keys), 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(keys), squeeze=False, sharey="row")
    for column, key in enumerate(keys):
        values = list(dict.fromkeys(_short(row.settings[key]) for row in rows))
        for line, (name, label) in enumerate(figures):
            panel = panels[line][column]
            points = [(values.index(_short(row.settings[key])), getattr(row, name)) for row in rows]
            panel.plot(*zip(*points, strict=True), "o", color="#0072b2", alpha=0.7)
            means = [
                sum(y for x, y in points if x == place) / sum(x == place for x, _ in points)
                for place in range(len(values))
            ]
            panel.plot(range(len(values)), means, color="#d55e00", label="mean")
            panel.set_xticks(range(len(values)), values)
            panel.spines[["top", "right"]].set_visible(False)
            panel.margins(x=0.2)
            if column == 0:
                panel.set_ylabel(label)
        panels[1][column].set_xlabel(key)
    panels[0][0].legend(frameon=False)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
