"""`care-bridge calibrate`: let the intervals of a model that was trained before hold what they say."""

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
    app.command("calibrate")(command(calibrate))


def calibrate(
    model: Annotated[Path, Argument(help="Folder of a probabilistic model, ours or csbdeep's.")],
    source: Annotated[
        Path | None,
        Argument(
            help="Folder of low-quality images that it was not trained on, or of all that it was; of a model whose patches "
            "were simulated the clean images."
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
    """Find a probabilistic model's temperature and store it in its config.json.

    Its scales are multiplied by it in everything that is predicted and exported afterwards, so that 90 % intervals hold
    90 %. Training does it by itself; this is for folders that were trained before, or by csbdeep. Of training images only
    the blocks that validated are looked at.
    """
    load_tensorflow()
    from care_bridge.training.from_files import calibrate_from_files

    with progress_bar(quiet=quiet) as progress:
        found = calibrate_from_files(
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
        typer.echo(str(found))
    return DONE
