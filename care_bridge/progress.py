"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from care_bridge.words import duration

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called by anything that may take over two seconds; None where nobody listens.

What stands behind ": " in `what` may change from call to call, e.g. "training: epoch 3 of 100, loss 0.02".
"""

LINE_EVERY_S = 60.0
"""Seconds between plain lines where there is no terminal for a bar; shorter work says nothing."""


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
            work = what.partition(": ")[0]
            if work not in tasks:
                tasks[work] = bars.add_task(what, total=total)
            bars.update(tasks[work], completed=done, total=total, description=what)

        yield show


def lines(write: Callable[[str], object], *, every_s: float = LINE_EVERY_S) -> Progress:
    """A listener for logs and pipes: one plain line now and then, with the time left.

    Parameters
    ----------
    write : callable
        Takes a line, without its end.
    every_s : float
        Seconds from the first news of something to its first line, and between lines.
    """
    begun: dict[str, tuple[float, int]] = {}
    said: dict[str, float] = {}

    def show(done: int, total: int, what: str) -> None:
        work, now = what.partition(": ")[0], time.monotonic()
        started, before = begun.setdefault(work, (now, done))
        if now - said.setdefault(work, now) < every_s or done >= total:
            return
        said[work] = now
        left = (now - started) * (total - done) / (done - before) if done > before else None
        write(f"{what}, {done} of {total}" + (f", about {duration(left)} left" if left is not None else ""))

    return show
