"""`care-bridge import`: a model folder from a BioImage.IO package."""

from __future__ import annotations

from pathlib import Path

import typer

from care_bridge.cli._run import DONE, command
from care_bridge.cli._tensorflow import load_tensorflow


def import_package(
    package: Path = typer.Argument(..., help="A BioImage.IO package: zip or folder."),
    out: Path = typer.Option(..., "--out", help="The model folder to make; must not exist or be empty."),
) -> int:
    """Make a model folder of a package, to train on and to predict with."""
    load_tensorflow()
    from care_bridge.export.import_package import import_package as make

    typer.echo(f"wrote {make(package, out)}")
    return DONE


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(command(import_package))
