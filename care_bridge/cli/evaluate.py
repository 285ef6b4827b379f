"""`care-bridge evaluate`: how good is a model on images with a ground truth, how sure, and better than a filter?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import APPLICATIONS, INTERVAL
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.evaluate.profiles import Line

_OLD = {"--axes": "--image-axes", "--images": "--images-out", "--level": "--interval"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", context_settings=old_spellings(_OLD))(command(evaluate))


def evaluate(
    model: Annotated[
        Path,
        Argument(help="Model folder (one net or several; ours or csbdeep's), or a name of `zoo list`."),
    ],
    source: Annotated[Path, Argument(help="Folder of images to restore, or one TIFF or OME-Zarr.")],
    target: Annotated[
        Path, Argument(help="Folder of their ground truths, same names; or one TIFF or OME-Zarr.")
    ],
    *,
    out: Annotated[Path, Option(help="The report; its CSVs go into a folder beside it.")] = Path(
        "report.html"
    ),
    json_file: Annotated[Path | None, Option("--json", help="Also write all numbers as JSON.")] = None,
    train_source: Annotated[
        Path | None, Option(help="Training images: filters are tuned on these, unlike inputs are flagged.")
    ] = None,
    train_target: Annotated[Path | None, Option(help="Their targets, same names.")] = None,
    applications: options.Applications = APPLICATIONS,
    masks: Annotated[Path | None, Option(help="Masks, same names: pixels that are not 0 count.")] = None,
    line: Annotated[
        str | None,
        Option(help="Profile line x1,y1,x2,y2 in pixels, as makeLine; chosen by itself when left out."),
    ] = None,
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    source_suffix: options.SourceSuffix = None,
    target_suffix: options.TargetSuffix = None,
    conditions: Annotated[
        Path | None,
        Option(
            help='Scores under each condition: a table of image and condition (CSV, or TOML of "cell.tif" = "C1"), or '
            "the word subfolders: each folder in SOURCE is one, TARGET has the same or what all share."
        ),
    ] = None,
    published: Annotated[
        Path | None,
        Option(
            help="CSV of condition, method and scores (nrmse, ssim, ...) of others, to stand beside ours."
        ),
    ] = None,
    baselines: Annotated[
        bool,
        Option(
            help="Compare with tuned filters: six, and BM3D where the package bm3d is installed "
            "(pip install bm3d; its licence: non-commercial use only)."
        ),
    ] = True,
    robustness: Annotated[
        bool,
        Option("--robustness", help="Also measure curves against noise, blur and intensity (takes longer)."),
    ] = False,
    sweep: Annotated[Path | None, Option(help="CSV of a grid of settings, to be shown as well.")] = None,
    cross: Annotated[Path | None, Option(help="CSV of models x data sets, to be shown as well.")] = None,
    images_out: Annotated[
        Path | None,
        Option(help="Folder for restored images; of probabilistic models also interval bounds and D."),
    ] = None,
    interval: Annotated[
        float, Option(min=0.01, max=0.999, help="Mass of the interval whose bounds are written.")
    ] = INTERVAL,
    quiet: options.NoBar = False,
) -> int:
    """Say whether a model beats its input and the best filter.

    Exit code 1 when it does not.
    """
    chosen = _line(line) if line else None
    load_tensorflow()
    from care_bridge.evaluate.files import evaluate_files

    with progress_bar(quiet=quiet) as progress:
        found = evaluate_files(
            model,
            source,
            target,
            out=out,
            json_file=json_file,
            images_out=images_out,
            interval=interval,
            train_source=train_source,
            train_target=train_target,
            masks=masks,
            axes=image_axes,
            channel=channel,
            source_suffix=source_suffix,
            target_suffix=target_suffix,
            conditions=conditions,
            published=published,
            applications=applications,
            filters=None if baselines else (),
            robustness=robustness,
            line=chosen,
            sweep=sweep,
            cross=cross,
            progress=progress,
        )
    for name, notes in found.warnings.items():
        typer.echo(f"{name}: {'; '.join(notes)}", err=True)
    for said in found.guard_sentences():
        typer.echo(said, err=True)
    typer.echo(found.verdict)
    if found.reliability is not None:
        typer.echo(found.reliability.sentence())
    for said in found.condition_sentences():
        typer.echo(said)
    typer.echo(f"wrote {out}" + (f" and {json_file}" if json_file else ""))
    return DONE if found.good else NO


def _line(text: str) -> Line:
    """`x1,y1,x2,y2` as a line."""
    from care_bridge.evaluate.profiles import Line

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or numbers[:2] == numbers[2:]:
        raise InputError(
            f"--line {text!r} must be four numbers x1,y1,x2,y2 of a line with a length, e.g. 10,20,200,20"
        )
    return Line(*numbers)
