"""`care-bridge export`: a model written down for Fiji, ONNX Runtime or the model zoo."""

from __future__ import annotations

from pathlib import Path

import typer

from care_bridge.cli._run import DONE, command, fail
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import OLDEST_TF1

FORMATS = ("fiji", "onnx", "bioimageio")
SUFFIXES = {"fiji": ".zip", "onnx": ".onnx", "bioimageio": ".zip"}
_MEANT_FOR = {
    "target": ("fiji",),
    "pmin": ("fiji", "bioimageio"),
    "pmax": ("fiji", "bioimageio"),
    "metadata": ("bioimageio",),
    "test_image": ("bioimageio",),
    "ground_truth": ("bioimageio",),
}


def _show_example(wanted: bool) -> None:
    if wanted:
        from care_bridge.export.metadata import EXAMPLE

        typer.echo(EXAMPLE, nl=False)
        raise typer.Exit(DONE)


def export(
    model: Path = typer.Argument(..., help="A model folder (ours or csbdeep's), or a .keras or .h5 file."),
    format: str = typer.Option("fiji", "--format", help="fiji, onnx or bioimageio."),
    out: Path = typer.Option(
        None, "--out", help="The file to write, or a folder; beside the model when left out."
    ),
    target: str = typer.Option(OLDEST_TF1, help="Oldest TensorFlow that must open a Fiji bundle."),
    pmin: float = typer.Option(
        None, help="Bottom percentile to type in Fiji, 0-100; the model's own if left out."
    ),
    pmax: float = typer.Option(
        None, help="Top percentile to type in Fiji, 0-100; the model's own if left out."
    ),
    metadata: Path = typer.Option(
        None,
        help="model.toml with authors, licence, citations (bioimageio); in the model folder when left out.",
    ),
    test_image: Path = typer.Option(None, help="A TIFF to show and test the package with (bioimageio)."),
    ground_truth: Path = typer.Option(None, help="The TIFF that the test image should become (bioimageio)."),
    example: bool = typer.Option(
        False,
        "--example",
        help="Print a model.toml to fill, and stop.",
        is_eager=True,
        callback=_show_example,
    ),
) -> int:
    """Write a model for Fiji, ONNX Runtime or the model zoo."""
    if format not in FORMATS:
        fail(f"--format {format!r} is none of {', '.join(FORMATS)}")
    given = {
        "target": None if target == OLDEST_TF1 else target,
        "pmin": pmin,
        "pmax": pmax,
        "metadata": metadata,
    }
    for option, value in (given | {"test_image": test_image, "ground_truth": ground_truth}).items():
        if value is not None and format not in _MEANT_FOR[option]:
            name = option.replace("_", "-")
            fail(f"--{name} is for --format {' and '.join(_MEANT_FOR[option])}; leave it out for {format}")
    if out is not None and not out.is_dir() and out.suffix.lower() not in ("", SUFFIXES[format]):
        fail(
            f"--out {str(out)!r}: {format} is written to a file ending in {SUFFIXES[format]}, or into a folder that exists"
        )
    load_tensorflow()
    folder = model if model.is_dir() else model.parent
    if format == "fiji":
        from care_bridge.export.savedmodel import HOW_TO, write_bundle

        path = write_bundle(model, out or folder, target=target, pmin=pmin, pmax=pmax)
        typer.echo(f"wrote {path}\nhow to run it in Fiji: {path.with_name(HOW_TO)}")
        return DONE
    if format == "onnx":
        from care_bridge.export.onnx import write_onnx

        typer.echo(f"wrote {write_onnx(model, out or folder)}")
        return DONE
    from care_bridge.export.bioimageio import write_package

    package = write_package(
        model,
        out or folder,
        metadata=metadata,
        test_image=test_image,
        ground_truth=ground_truth,
        pmin=pmin,
        pmax=pmax,
    )
    typer.echo(f"wrote {package.path}\ncompleteness {package.completeness:.2f} by the model zoo's formula")
    if package.to_fill:
        typer.echo("to fill in model.toml for more completeness:")
        for line in package.to_fill:
            typer.echo(f"  {line}")
    return DONE


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(command(export))
