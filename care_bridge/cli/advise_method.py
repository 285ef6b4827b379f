"""`care-bridge advise-method`: which method of training fits the images that a person has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("advise-method")(command(advise_method))


def advise_method(
    noisy: Annotated[Path, Argument(help="Folder of images to be restored, or one image.")],
    clean: Annotated[
        Path | None,
        Argument(help="Folder of good images of the same kind, or one: of the same places, or of others."),
    ] = None,
    *,
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    json_output: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> int:
    """Look at images, and say which method can learn from them, why, and what to type.

    Tells pairs from sets that only share names, measures the noise, and whether neighbours share it.
    """
    from care_bridge.methods import advise_method as advised

    found = advised(noisy, clean, image_axes=image_axes, channel=channel)
    typer.echo(json.dumps(found.as_dict(), indent=2) if json_output else str(found))
    return DONE
