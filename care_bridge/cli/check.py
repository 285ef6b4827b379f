"""`care-bridge check`: does a bundle or package open everywhere it is meant to open?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from care_bridge.cli._run import DONE, NO, command, fail
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.memory import hold_to_free_memory

SUFFIXES = (".html", ".json", ".txt")


def check(
    path: Path = typer.Argument(
        ...,
        help="A bundle (.zip), a BioImage.IO package (zip, folder or rdf.yaml), or a name of `zoo list` (its bundle).",
    ),
    report: list[Path] = typer.Option(
        [], help="Write the table to FILE.html, .json or .txt; may be repeated."
    ),
    image: Path = typer.Option(
        None, help="What deepImageJ is given (.npy as the package's axes); the test tensor when left out."
    ),
    trust: bool = typer.Option(
        False,
        "--trust",
        help="Also test a package's weights that run Python of its own (PyTorch); for packages of people you trust.",
    ),
    quiet: bool = typer.Option(False, "--quiet", help="The verdict only."),
) -> int:
    """Judge a bundle or package by the rules of every reader.

    Exit code 1 when it is not accepted.
    """
    for file in report:
        if file.suffix.lower() not in SUFFIXES:
            fail(f"--report {str(file)!r} must end in {', '.join(SUFFIXES)}")
    hold_to_free_memory()
    load_tensorflow()
    from care_bridge.checking import check as judge

    options: dict[str, Any] = {"trust": trust}
    if image is not None:
        from care_bridge.checking.package_files import load_tensor
        from care_bridge.errors import InputError

        try:
            options["image"] = load_tensor(image)
        except InputError as error:
            raise InputError(f"--image {str(image)!r}: {error}") from None
    result = judge(path, **options)
    typer.echo(result.verdict if quiet else str(result))
    for file in report:
        result.save(file)
    return DONE if result.accepted else NO


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(command(check))
