"""`care-bridge demo`: the whole story, with nothing but this package or with a person's own images."""

from __future__ import annotations

from pathlib import Path

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import DEMO_EPOCHS, SEED


def demo(
    out: Path = typer.Option(
        Path("demo"), help="Folder for the report, the bundle, the model and the images."
    ),
    images: Path = typer.Option(
        None, help="Folder of clean images to degrade; tubules are drawn when left out."
    ),
    source: Path = typer.Option(None, help="Folder of your own low-quality images, with --target."),
    target: Path = typer.Option(None, help="Folder of their high-quality partners, equal names."),
    hold_out: str = typer.Option(
        None, help="Image that is kept out of training and shown; the last when left out."
    ),
    epochs: int = typer.Option(DEMO_EPOCHS, min=1, help="Epochs of 100 steps."),
    seed: options.Seed = SEED,
    quiet: options.NoBar = False,
) -> int:
    """Go from images to a bundle that Fiji opens, with proof.

    The report shows that both sides agree, once and applied twice; takes a few minutes.
    """
    load_tensorflow()
    from care_bridge.demo import run_demo, summary

    with progress_bar(quiet=quiet) as progress:
        result = run_demo(
            out,
            images=images,
            source=source,
            target=target,
            hold_out=hold_out,
            epochs=epochs,
            seed=seed,
            progress=progress,
        )
    typer.echo(summary(result))
    return DONE if result.good else NO


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(command(demo))
