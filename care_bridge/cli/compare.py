"""`care-bridge compare`: do Python and Fiji give the same image, once and applied in a row?"""

from __future__ import annotations

from pathlib import Path

import typer

from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
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
    model: Path = typer.Argument(
        ..., help="Python's side: a model folder, a .keras or .h5 file, or a bundle."
    ),
    bundle: Path = typer.Argument(
        ..., help="Fiji's side: a bundle (.zip), or a model folder with one in it."
    ),
    image: Path = typer.Argument(..., help="A TIFF."),
    applications: int = typer.Option(APPLICATIONS, min=1, help="How many times in a row."),
    level: str = typer.Option(
        LEVEL, help="How much of Fiji: best, fiji, imagej, tf1 or emulation; never lowered."
    ),
    tensorflow: str = typer.Option(
        TF1_VERSION, help=f"TensorFlow of levels imagej and tf1: {', '.join(TF1_VERSIONS)}."
    ),
    tolerance: float = typer.Option(
        TOLERANCE, min=0, help="Largest difference after one application, normalised scale."
    ),
    tolerance_repeated: float = typer.Option(TOLERANCE_REPEATED, min=0, help="The same after two or more."),
    axes: str = typer.Option(None, help="Axes of the image, e.g. ZYX; read from the file when left out."),
    n_tiles: int = typer.Option(
        None, min=1, help="The plugin's nTiles; the bundle's own advice when left out."
    ),
    block_multiple: int = typer.Option(None, min=1, help="The plugin's blockMultiple; likewise."),
    overlap: int = typer.Option(None, min=0, help="The plugin's overlap; likewise."),
    pmin: float = typer.Option(None, min=0, max=100, help="The plugin's percentileBottom, 0-100; likewise."),
    pmax: float = typer.Option(None, min=0, max=100, help="The plugin's percentileTop, 0-100; likewise."),
    normalize: bool = typer.Option(
        None, "--normalize/--no-normalize", help="The plugin's normalizeInput; likewise."
    ),
    fiji: Path = typer.Option(None, help="Your Fiji folder, for level fiji; else CARE_BRIDGE_FIJI."),
    report: list[Path] = typer.Option(
        [], help="Write the report to FILE.html, .json, .md or .txt; may be repeated."
    ),
    stepwise: bool = typer.Option(
        False, "--stepwise", help="Climb the ladder: what each convention costs, and why."
    ),
    quiet: bool = typer.Option(False, "--quiet", help="No progress bar; the table only."),
) -> int:
    """Compare Python's prediction with Fiji's on one image.

    Exit code 1 when they differ.
    """
    _check(report, pmin, pmax)
    _check_sides(level, tensorflow)
    load_tensorflow()
    from care_bridge.comparing.sides import compare as compare_sides
    from care_bridge.comparing.sides import recommended_options
    from care_bridge.images import read_image

    options = recommended_options(
        bundle,
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
            image=read_image(image, axes),
            applications=applications,
            tolerance=tolerance,
            tolerance_repeated=tolerance_repeated,
            level=level,
            version=tensorflow,
            options=options,
            fiji=fiji,
            climb=stepwise,
            progress=progress,
        )
    typer.echo(str(found))
    for path in report:
        typer.echo(f"wrote {found.save(path)}")
    return DONE if found.passed else NO


def _check(reports: list[Path], pmin: float | None, pmax: float | None) -> None:
    """What can be refused before anything is computed."""
    from care_bridge.files import writable_folder

    if pmin is not None and pmax is not None and pmin >= pmax:
        raise InputError(f"--pmin {pmin:g} must be below --pmax {pmax:g}")
    for path in reports:
        if path.suffix not in REPORTS or path.is_dir():
            raise InputError(f"--report {str(path)!r} must be a file that ends in {', '.join(REPORTS)}")
        writable_folder(path.parent)


def _check_sides(level: str, tensorflow: str) -> None:
    for option, value, known in (
        ("--level", level, ("best", *LEVELS)),
        ("--tensorflow", tensorflow, TF1_VERSIONS),
    ):
        if value not in known:
            raise InputError(f"{option} {value!r} is not known; use one of {', '.join(known)}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(command(compare))
