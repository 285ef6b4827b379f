"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called by anything that may take over two seconds; None where nobody listens."""


def silent(done: int, total: int, what: str) -> None:
    """Listen to nothing; the default."""
