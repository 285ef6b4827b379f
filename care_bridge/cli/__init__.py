"""The command line: one file a command; each parses, calls one function, prints and returns an exit code."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from care_bridge.surroundings import settle, settle_warnings

# Before the other imports, which may warn.
settle_warnings(os.environ)
settle(os.environ)

import typer  # noqa: E402
from typer.core import TyperGroup  # noqa: E402

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
# click's own, which typer ships without naming it in its interface


@contextmanager
def _one_line() -> Iterator[None]:
    """Say what is wrong with a command line as all other mistakes are said, without usage and frames around it."""
    try:
        yield
    except _UsageError as error:
        context: Any = getattr(error, "ctx", None)
        if context is None or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
        typer.echo(
            f"care-bridge: {message[:1].lower()}{message[1:]}; see {context.command_path} --help", err=True
        )
        raise typer.Exit(2) from None


def _refuse_blanks(words: list[str]) -> None:
    """An empty path would mean this folder: what `--out "$NOT_SET"` never wanted."""
    for before, word in zip(["", *words], words, strict=False):
        option = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else ""
        if option or not word.strip():
            named = option or (before if before.startswith("--") else "")
            what = f"{named} is given nothing" if named else "an argument is empty"
            typer.echo(f"care-bridge: {what}; give a value, or look whether a variable is not set", err=True)
            raise typer.Exit(2)


class _Commands(TyperGroup):
    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **kwargs: Any) -> Any:
        _refuse_blanks(args)
        with _one_line():
            return super().make_context(info_name, args, *rest, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


app = typer.Typer(
    name="care-bridge",
    cls=_Commands,
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
    app()
