"""The command line: one file a command; each parses, calls one function, prints and returns an exit code."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

from care_bridge.surroundings import settle, settle_warnings

# Before the other imports, which may warn.
settle_warnings(os.environ)
settle(os.environ)

import typer  # noqa: E402

from care_bridge.cli._run import end  # noqa: E402
from care_bridge.cli._typer import Commands  # noqa: E402

app = typer.Typer(
    name="care-bridge",
    cls=Commands,
    # Frames cut the names of options off in a terminal of 80 columns.
    rich_markup_mode=None,
    help="Image-restoration networks trained in Python, running in Fiji, with proof that both sides agree.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from care_bridge import __version__

        typer.echo(f"care-bridge {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


# A file here that does not start with "_" is a command (or a group of them) and adds itself by `register(app)`.
for _module in sorted(
    module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
):
    importlib.import_module(f"{__name__}.{_module}").register(app)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except Exception as error:  # outside of any command: reading the command line, showing help
        sys.exit(end(error))
