"""`care-bridge export`: a model written down for Fiji, ONNX Runtime or the model zoo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, fail
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import OLDEST_TF1

FORMATS = ("fiji", "onnx", "bioimageio")
_MEANT_FOR = {
    "oldest_tensorflow": ("fiji",),
    "pmin": ("fiji", "bioimageio"),
    "pmax": ("fiji", "bioimageio"),
    "metadata": ("bioimageio",),
    "test_image": ("bioimageio",),
    "ground_truth": ("bioimageio",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    old = old_spellings({"--target": "--oldest-tensorflow"})
    app.command("export", context_settings=old)(command(export))


def _show_example(wanted: bool) -> None:
    if wanted:
        from care_bridge.export.metadata import EXAMPLE

        typer.echo(EXAMPLE, nl=False)
        raise typer.Exit(DONE)


def export(
    model: Annotated[
        Path,
        Argument(help="A model folder (ours or csbdeep's), a .keras or .h5 file, or a name of `zoo list`."),
    ],
    *,
    format: Annotated[str, Option(help="fiji, onnx or bioimageio.")] = "fiji",
    out: Annotated[
        Path | None, Option(help="The file to write, or a folder; beside the model when left out.")
    ] = None,
    oldest_tensorflow: Annotated[
        str | None,
        Option(help=f"Oldest TensorFlow that must open a Fiji bundle; {OLDEST_TF1} when left out."),
    ] = None,
    pmin: options.Pmin = None,
    pmax: options.Pmax = None,
    metadata: Annotated[
        Path | None,
        Option(
            help="model.toml with authors, licence, citations (bioimageio); in the model folder when left out."
        ),
    ] = None,
    test_image: Annotated[
        Path | None, Option(help="A TIFF to show and test the package with (bioimageio).")
    ] = None,
    ground_truth: Annotated[
        Path | None, Option(help="The TIFF that the test image should become (bioimageio).")
    ] = None,
    example: Annotated[
        bool,
        Option(
            "--example", help="Print a model.toml to fill, and stop.", is_eager=True, callback=_show_example
        ),
    ] = False,
) -> int:
    """Write a model for Fiji, ONNX Runtime or the model zoo."""
    if format not in FORMATS:
        fail(f"--format {format!r} is none of {', '.join(FORMATS)}")
    given = _meant_for(
        format,
        {
            "oldest_tensorflow": oldest_tensorflow,
            "pmin": pmin,
            "pmax": pmax,
            "metadata": metadata,
            "test_image": test_image,
            "ground_truth": ground_truth,
        },
    )
    load_tensorflow()
    from care_bridge.export.formats import export_model

    done = export_model(model, out, format=format, **given)
    typer.echo("\n".join((f"wrote {done.path}", *done.notes)))
    return DONE


def _meant_for(format: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, all of which mean something for the format."""
    given = {option: value for option, value in wanted.items() if value is not None}
    for option in given:
        if format not in _MEANT_FOR[option]:
            name = option.replace("_", "-")
            fail(f"--{name} is for --format {' and '.join(_MEANT_FOR[option])}; leave it out for {format}")
    return given
