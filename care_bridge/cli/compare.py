"""`care-bridge compare`: do Python and Fiji give the same image, once and applied in a row?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._parse import one_of
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import (
    APPLICATIONS,
    LEVEL,
    LEVELS,
    TF1_VERSION,
    TF1_VERSIONS,
    TOLERANCE,
    TOLERANCE_REPEATED,
)
from care_bridge.errors import InputError

REPORTS = (".html", ".json", ".md", ".txt")


def compare(
    model: Annotated[
        Path,
        Argument(
            help="Python's side: a model folder, a .keras or .h5 file, a bundle, or a name of `zoo list`."
        ),
    ],
    bundle: Annotated[
        Path,
        Argument(
            help="Fiji's side: a bundle (.zip), a model folder with one in it, or a name of `zoo list`."
        ),
    ],
    image: Annotated[Path, Argument(help="A TIFF or OME-Zarr.")],
    *,
    applications: options.Applications = APPLICATIONS,
    level: options.Level = LEVEL,
    tensorflow: options.Tensorflow = TF1_VERSION,
    tolerance: Annotated[
        float, Option(min=0, help="Largest difference after one application, normalised scale.")
    ] = TOLERANCE,
    tolerance_repeated: Annotated[
        float, Option(min=0, help="The same after two or more.")
    ] = TOLERANCE_REPEATED,
    image_axes: options.ImageAxes = None,
    n_tiles: Annotated[
        int | None, Option(min=1, help="The plugin's nTiles; else what the bundle says.")
    ] = None,
    block_multiple: Annotated[
        int | None, Option(min=1, help="The plugin's blockMultiple; else likewise.")
    ] = None,
    overlap: Annotated[int | None, Option(min=0, help="The plugin's overlap; else likewise.")] = None,
    pmin: options.Pmin = None,
    pmax: options.Pmax = None,
    normalize: Annotated[
        bool | None, Option(help="The plugin's normalizeInput; else what the bundle says.")
    ] = None,
    fiji: options.Fiji = None,
    factor: options.Factor = None,
    report: Annotated[
        list[Path] | None, Option(help="Write the report to FILE.html, .json, .md or .txt; may be repeated.")
    ] = None,
    stepwise: Annotated[
        bool, Option("--stepwise", help="Climb the ladder: what each convention costs, and why.")
    ] = False,
    quiet: options.NoBar = False,
) -> int:
    """Compare Python's prediction with Fiji's on one image.

    Exit code 1 when they differ.
    """
    reports = report or []
    _check(reports, pmin, pmax)
    one_of("--level", level, (LEVEL, *LEVELS))
    one_of("--tensorflow", tensorflow, TF1_VERSIONS)
    load_tensorflow()
    from care_bridge.comparing.sides import compare as compare_sides
    from care_bridge.comparing.sides import recommended_options
    from care_bridge.images import read_image

    options = recommended_options(
        bundle,
        model=model,
        nTiles=n_tiles,
        blockMultiple=block_multiple,
        overlap=overlap,
        percentileBottom=pmin,
        percentileTop=pmax,
        normalizeInput=normalize,
    )
    with progress_bar(quiet=quiet) as progress:
        found = compare_sides(
            reference=model,
            candidate=bundle,
            image=read_image(image, image_axes),
            applications=applications,
            tolerance=tolerance,
            tolerance_repeated=tolerance_repeated,
            level=level,
            version=tensorflow,
            options=options,
            fiji=fiji,
            factor=factor,
            climb=stepwise,
            progress=progress,
        )
    typer.echo(str(found))
    for path in reports:
        typer.echo(f"wrote {found.save(path)}")
    return DONE if found.passed else NO


def _check(reports: list[Path], pmin: float | None, pmax: float | None) -> None:
    """What can be refused before anything is computed."""
    from care_bridge.files import writable_folder

    for option, value in (("--pmin", pmin), ("--pmax", pmax)):
        if value is not None and not 0 <= value <= 100:
            raise InputError(f"{option} {value:g} is no percentile; give 0-100")
    if pmin is not None and pmax is not None and pmin >= pmax:
        raise InputError(f"--pmin {pmin:g} must be below --pmax {pmax:g}")
    for path in reports:
        if path.suffix not in REPORTS or path.is_dir():
            raise InputError(f"--report {str(path)!r} must be a file that ends in {', '.join(REPORTS)}")
        writable_folder(path.parent)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", context_settings=old_spellings({"--axes": "--image-axes"}))(command(compare))
