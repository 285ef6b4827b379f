"""What every command shares: errors as one line, exit codes, progress bars."""

from __future__ import annotations

import errno
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.progress import Progress, bar, silent

DONE, NO, WRONG_USE = 0, 1, 2
"""Exit codes: done and good; done and the answer is no; wrong use or bad input."""

MOST_PROBLEMS = 10
"""So many of one message are said; a folder of a thousand unreadable files fills no screen."""


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a function that returns an exit code into a command: a user's mistake is one line, a bug a traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code = function(*args, **kwargs)
        except (InputError, NotInstalledError, WorkerError) as error:
            fail(str(error))
        except KeyboardInterrupt:
            fail("interrupted; what was finished is kept", code=130)
        except MemoryError as error:
            # NumPy's own says how much was wanted.
            fail(
                f"not enough memory{f' ({error})' if str(error) else ''}; work on smaller images, or in more tiles"
            )
        except OSError as error:
            if error.errno is None:
                raise
            if error.filename and isinstance(error, FileNotFoundError):
                fail(f"no file or folder at {str(error.filename)!r}; look at how the path is written")
            if error.filename and isinstance(error, IsADirectoryError):
                fail(f"{str(error.filename)!r} is a folder where a file is needed; name the file itself")
            where = f"{error.filename}: " if error.filename else ""
            hint = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
            fail(f"{where}{error.strerror}{hint}")
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
        typer.echo(f"care-bridge: warning: {message}", err=True)


def fail(message: str, *, code: int = WRONG_USE) -> None:
    """Say what is wrong on stderr, in one line, and leave."""
    typer.echo(f"care-bridge: {_one_line(message)}", err=True)
    raise typer.Exit(code)


def _one_line(message: str) -> str:
    """All problems of a message in one line: scripts read lines, and people mend all of them at once."""
    problems = [line.strip() for line in message.splitlines() if line.strip()]
    if len(problems) > MOST_PROBLEMS:
        more = len(problems) - MOST_PROBLEMS
        problems = [*problems[:MOST_PROBLEMS], f"and {more} more"]
    return "; ".join(problems).replace(":; ", ": ")  # a headline and what stands below it


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """A bar with time left on stderr; nothing in a pipe or with `quiet`."""
    # None where a queue or a window without a console closed it.
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield silent
        return
    with bar() as show:
        yield show
