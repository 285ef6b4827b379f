"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called by anything that may take over two seconds; None where nobody listens."""


def silent(done: int, total: int, what: str) -> None:
    """Listen to nothing; the default."""


@contextmanager
def bar() -> Iterator[Progress]:
    """A bar with the time left for each thing told of: on stderr in a terminal, below the cell in a notebook.

    Yields
    ------
    callable
        What goes to the parameter `progress` of anything that has one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show
