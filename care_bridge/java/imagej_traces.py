"""Inside ImageJ's worker: what a run left behind, in the five places where ImageJ puts errors."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any


def error_in(interpreter: Any, thrown: str, log: str, value: str) -> tuple[str, int | None]:
    """Message and line of a macro's failure, from the five places where it may stand; "" when there is none."""
    import jpype

    reported = re.search(r"(?s)(?:^|\n)(?P<message>[^\n]*) in line (?P<line>\d+)(?P<rest>[^\n]*)", log)
    line = int(reported["line"]) if reported else None
    for text in (
        str(interpreter.getErrorMessage() or ""),
        str(jpype.JClass("ij.IJ").getErrorMessage() or ""),
    ):
        if text.strip():
            return text.strip(), line
    trace = re.search(
        r"(?m)^(?:Exception in thread .*? )?((?:java|ij|jdk)\.[\w.$]+(?:Exception|Error)[^\n]*)", log
    )
    if trace:
        return trace[1], line
    if thrown or value == "[aborted]":
        lines = [entry for entry in log.splitlines() if entry.strip()]
        return (lines[-1].strip() if lines else thrown or value), line
    return "", None


def cause(error: BaseException) -> str:
    """The innermost exception, in Java's words."""
    while hasattr(error, "getCause") and error.getCause() is not None:
        error = error.getCause()
    return str(error.toString()) if hasattr(error, "toString") else f"{type(error).__name__}: {error}"


def log_size(folder: Path) -> int:
    """Where the worker's log ends now."""
    _flush()
    return os.path.getsize(folder / "log.txt")


def log_since(folder: Path, start: int) -> str:
    """What was printed since a `log_size`."""
    _flush()
    with open(folder / "log.txt", "rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", errors="replace")


def _flush() -> None:
    import jpype

    system = jpype.JClass("java.lang.System")
    system.out.flush()
    system.err.flush()
    sys.stdout.flush()
    sys.stderr.flush()
