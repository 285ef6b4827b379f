"""What every command shares: errors as one line, exit codes, progress bars."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from care_bridge.endings import WRONG_USE, ending, let_go_of_output, one_line, say
from care_bridge.progress import Progress, bar, lines, silent

DONE, NO = 0, 1
"""Exit codes: done and good; done and the answer is no. Those of what could not be done are in `endings`."""


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a function that returns an exit code into a command: a mistake is one line, a fault of ours a report too."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                # Whatever a shell's PYTHONWARNINGS says: each is shown once, and none ends a command.
                warnings.simplefilter("default")
                warnings.showwarning = _show_warning
                code = function(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(end(error)) from None
        raise typer.Exit(code or DONE)

    return run


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What a person should know as one line; what a programmer should (deprecations of libraries), not at all."""
    if issubclass(category, UserWarning | RuntimeWarning):
        say(f"warning: {message}")


def end(error: BaseException) -> int:
    """Say in one line on stderr why a command ended; its exit code."""
    message, code = ending(error)
    let_go_of_output()
    if message:
        say(message)
    return code


def fail(message: str, *, code: int = WRONG_USE) -> None:
    """Say what is wrong on stderr, in one line, and leave."""
    say(one_line(message))
    raise typer.Exit(code)


@contextmanager
def progress_bar(*, quiet: bool = False, lines_in_pipe: bool = False) -> Iterator[Progress]:
    """A bar with time left on stderr; in a pipe nothing, or a plain line now and then; nothing with `quiet`."""
    # None where a queue or a window without a console closed it.
    if quiet or sys.stderr is None:
        yield silent
        return
    if not sys.stderr.isatty():
        yield lines(lambda line: typer.echo(line, err=True)) if lines_in_pipe else silent
        return
    with bar() as show:
        yield show
