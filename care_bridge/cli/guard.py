"""`care-bridge guard`: let a model that was trained before know what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import PATCHES_PER_IMAGE
from care_bridge.model_names import model_path


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("guard")(command(guard))


def guard(
    model: Annotated[Path, Argument(help="Model folder, ours or csbdeep's, or a name of `zoo list`.")],
    source: Annotated[
        Path | None,
        Argument(
            help="Folder of the low-quality images that it was trained on; of a model whose patches were simulated the "
            "clean images."
        ),
    ] = None,
    target: Annotated[
        Path | None, Argument(help="Folder of their high-quality images; none where patches were simulated.")
    ] = None,
    *,
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    source_suffix: options.SourceSuffix = None,
    target_suffix: options.TargetSuffix = None,
    patches_per_image: options.PatchesPerImage = PATCHES_PER_IMAGE,
    quiet: options.Silent = False,
) -> int:
    """Store in a model's folder what its training images look like to it.

    Afterwards predict, restore and evaluate notice images that are unlike them. Training does it by itself; this is for
    folders that were trained before, or by csbdeep.
    """
    load_tensorflow()
    from care_bridge.training.from_files import familiar_from_files

    with progress_bar(quiet=quiet) as progress:
        written = familiar_from_files(
            model_path(model),
            source,
            target,
            image_axes=image_axes,
            channel=channel,
            source_suffix=source_suffix,
            target_suffix=target_suffix,
            n_patches_per_image=patches_per_image,
            progress=progress,
        )
    if not quiet:
        typer.echo(f"wrote {written}")
    return DONE
