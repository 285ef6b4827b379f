"""`care-bridge cross-eval`: every model on every data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.errors import InputError
from care_bridge.model_names import model_path
from care_bridge.words import counted


def register(app: typer.Typer) -> None:
    app.command("cross-eval")(command(cross_eval))


def cross_eval(
    *,
    model: list[str] = typer.Option(
        ..., "--model", help="NAME=FOLDER, a folder, or a name of `zoo list`; may be repeated."
    ),
    data: list[str] = typer.Option(
        ..., "--data", help="NAME=SOURCE,TARGET: folders of image pairs; may be repeated."
    ),
    out: Path = typer.Option(..., "--out", help="Folder for cross-eval.csv and cross-eval.png."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Only the first so many pairs of each."),
    quiet: options.Silent = False,
) -> int:
    """Measure models on data sets: does a model carry over?

    A row for the images as they are stands beside them.
    """
    load_tensorflow()
    from care_bridge.evaluate.cross import cross_evaluate
    from care_bridge.evaluate.pairs import files_trained_on, read_pairs, seen_in_training
    from care_bridge.opening import open_predictor

    folders = _by_name("--model", [_model(text) for text in model])
    places = _by_name("--data", [_data(text) for text in data])
    sets = {name: read_pairs(source, target, limit=limit) for name, (source, target) in places.items()}
    with progress_bar(quiet=quiet) as progress:
        matrix = cross_evaluate(
            {name: open_predictor(folder, runtime="keras") for name, folder in folders.items()},
            sets,
            progress=progress,
        )
    matrix.save(out)
    for name, folder in folders.items():
        known = files_trained_on(folder)
        for dataset, pairs in sets.items():
            if seen := seen_in_training(pairs, known):
                typer.echo(
                    f"{name} was trained on {len(seen)} of {counted(len(pairs), 'image')} of {dataset}: that cell says how "
                    "well it remembers them",
                    err=True,
                )
    if not quiet:
        typer.echo(str(matrix))
    return DONE


def _model(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    return (name, str(model_path(folder))) if equals else (Path(text).name, str(model_path(text)))


def _data(text: str) -> tuple[str, tuple[str, str]]:
    name, equals, places = text.partition("=")
    source, comma, target = places.partition(",")
    if not equals or not comma:
        raise InputError(f"--data {text!r} is not understood; give NAME=SOURCE,TARGET")
    return name, (source, target)


def _by_name(option: str, named: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in named]
    wrong = next((name for name in names if not name or names.count(name) > 1), None)
    if wrong is not None:
        what = f"two are called {wrong!r}" if wrong else "one has no name"
        raise InputError(f"{option}: {what}; name each before its =, as the rows and columns of the table")
    return dict(named)
