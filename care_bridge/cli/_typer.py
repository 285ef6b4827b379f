"""Everything here that hangs on how typer is built inside; tests/test_cli_typer.py says what to look at when it moves.

typer documents `typer.core.TyperGroup` for one's own order of commands and `context_settings` for settings of Click's
contexts. Mistakes in a command line are said by methods of that group, which is why they are answered there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from care_bridge.cli._run import end
from care_bridge.endings import say


class Commands(TyperGroup):
    """A group of commands that says what is wrong with a command line in one line, as all other mistakes are said."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **kwargs: Any) -> Any:
        """Refuse empty words, then read the command line."""
        _refuse_blanks(args)
        with _one_line():
            return super().make_context(info_name, args, *rest, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, whose own options are only read here."""
        with _one_line():
            return super().invoke(ctx)


def old_spellings(names: Mapping[str, str]) -> dict[str, Any]:
    """Settings for `app.command(context_settings=...)`: options that go on working under old names, unseen in --help.

    Parameters
    ----------
    names : mapping
        Old spelling to the option that it means now, both with their dashes.
    """
    now = {old.removeprefix("--"): new.removeprefix("--") for old, new in names.items()}
    return {"token_normalize_func": lambda name: now.get(name, name)}


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:  # typer would end with 1
        raise typer.Exit(end(error)) from None
    except typer.TyperException as error:
        context: Any = getattr(error, "ctx", None)
        # Without arguments the help is the answer, and typer shows it as an error with a whole page.
        if context is None or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = " ".join(str(error.format_message()).split()).rstrip(".")
        say(f"{message[:1].lower()}{message[1:]}; see {context.command_path} --help")
        raise typer.Exit(2) from None


def _refuse_blanks(words: list[str]) -> None:
    """An empty path would mean this folder: what `--out "$NOT_SET"` never wanted."""
    for before, word in zip(["", *words], words, strict=False):
        option = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else ""
        if option or not word.strip():
            named = option or (before if before.startswith("--") else "")
            what = f"{named} is given nothing" if named else "an argument is empty"
            say(f"{what}; give a value, or look whether a variable is not set")
            raise typer.Exit(2)
