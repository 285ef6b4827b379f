"""How a command ends that cannot go on: what is said of an error, its exit code, the report of a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import TextIO

from care_bridge.cache import cache_folder
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.files import write_text

WRONG_USE, CRASHED, INTERRUPTED, CLOSED_PIPE = 2, 70, 130, 141
"""Exit codes: wrong use or bad input; a fault of ours (EX_SOFTWARE); Ctrl-C; nobody reads the output (SIGPIPE).

None is 1, which says that the work was done and the answer is no.
"""

MOST_PROBLEMS = 10
"""So many of one message are said; a folder of a thousand unreadable files fills no screen."""

_FULL_DISK = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_PACKAGES = (
    "numpy",
    "tensorflow",
    "keras",
    "h5py",
    "tifffile",
    "zarr",
    "onnx",
    "onnxruntime",
    "bioimageio.core",
)
_MOST_REPORTS = 20
_MOST_LETTERS = 500
_NUMBERS = re.compile(r"(?:[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf)[\s,;\[\]()]+){8,}")
_SECRET = re.compile(r"key|token|secret|passw|credential|auth|cookie|session", re.IGNORECASE)


def ending(error: BaseException) -> tuple[str, int]:
    """What is to be said of an error that ended a command, and its exit code.

    Parameters
    ----------
    error : Exception or KeyboardInterrupt

    Returns
    -------
    message : str
        One line; "" where nobody reads it.
    code : int
    """
    if isinstance(error, InputError | NotInstalledError | WorkerError):
        return one_line(str(error)), WRONG_USE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished is kept", INTERRUPTED
    if isinstance(error, MemoryError):
        # NumPy's own says how much was wanted.
        wanted = f" ({error})" if str(error) else ""
        return one_line(f"not enough memory{wanted}; work on smaller images, or in more tiles"), WRONG_USE
    if isinstance(error, BrokenPipeError):
        return "", CLOSED_PIPE
    if isinstance(error, OSError) and error.errno is not None:
        return one_line(_of_the_system(error)), WRONG_USE
    return _crash(error), CRASHED


def one_line(message: str) -> str:
    """All problems of a message in one line: scripts read lines, and people mend all of them at once."""
    problems = [line.strip() for line in message.splitlines() if line.strip()]
    if len(problems) > MOST_PROBLEMS:
        more = len(problems) - MOST_PROBLEMS
        problems = [*problems[:MOST_PROBLEMS], f"and {more} more"]
    return "; ".join(problems).replace(":; ", ": ")  # a headline and what stands below it


def say(line: str, *, program: str = "care-bridge") -> None:
    """Write a line to stderr; where that is full or closed, the exit code has to do."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{program}: {line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        let_go(sys.stderr)


def let_go_of_output() -> None:
    """Give up the streams that cannot be written to, so that the interpreter's own end does not fail on them."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                let_go(stream)


def let_go(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _of_the_system(error: OSError) -> str:
    if error.filename and isinstance(error, FileNotFoundError):
        return f"no file or folder at {str(error.filename)!r}; look at how the path is written"
    if error.filename and isinstance(error, IsADirectoryError):
        return f"{str(error.filename)!r} is a folder where a file is needed; name the file itself"
    where = f"{error.filename}: " if error.filename else ""
    hint = "; free some space and run the same command again" if error.errno in _FULL_DISK else ""
    return f"{where}{error.strerror}{hint}"


def _crash(error: BaseException) -> str:
    """One line for a fault of ours, its report written."""
    what = (
        f"care_bridge failed where it should not ({type(error).__name__}), and your input need not be wrong"
    )
    try:
        path = write_report(error)
    except (InputError, OSError) as reason:
        return one_line(f"{what}; no report could be written: {reason}")
    return f"{what}; the report lies at {path}: send it with what you did"


def write_report(error: BaseException) -> Path:
    """Write down where an error came from and under which versions, for who mends it.

    Without pixels, without the environment: long rows of numbers and what variables with the names of secrets hold
    are taken out of messages.

    Returns
    -------
    Path
        In the cache folder; in the system's folder for temporary files where that cannot be written to.
    """
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    folder = cache_folder() / "crashes"
    text = report(error)
    try:
        write_text(folder / name, text)
    except (InputError, OSError):
        folder = Path(tempfile.gettempdir())
        write_text(folder / name, text)
    else:
        for old in sorted(folder.glob("crash-*.txt"))[:-_MOST_REPORTS]:
            old.unlink(missing_ok=True)
    return folder / name


def report(error: BaseException) -> str:
    """The text of `write_report`."""
    lines = [
        f"care_bridge {_version('care-bridge')}, Python {platform.python_version()}, {platform.platform()}"
    ]
    lines.append(", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    if len(sys.argv) > 1 and re.fullmatch(r"[a-z][a-z-]*", sys.argv[1]):
        lines.append(f"command {sys.argv[1]}")
    lines += ["", *_traceback(traceback.TracebackException.from_exception(error))]
    return _without_secrets("\n".join(lines)) + "\n"


def _traceback(told: traceback.TracebackException, depth: int = 0) -> list[str]:
    lines: list[str] = []
    before = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    if before is not None and depth < 10:
        lines += [*_traceback(before, depth + 1), "", "and then:", ""]
    lines += [line.rstrip("\n") for line in told.stack.format()]
    message = _NUMBERS.sub("... ", "".join(told.format_exception_only()).strip())
    return [*lines, message if len(message) <= _MOST_LETTERS else f"{message[:_MOST_LETTERS]}..."]


def _without_secrets(text: str) -> str:
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
