"""What can go wrong through no fault of this package, as types that the command line turns into one line."""

from __future__ import annotations


class InputError(ValueError):
    """An argument or a file is not what is needed; the message names it, what came and what would do.

    Several problems of one file are joined into one message, a line each, so that all are mended at once.
    """


class NotInstalledError(ImportError):
    """Something optional is not on this machine (a package, a Java runtime, a fetched jar, a Fiji).

    The message holds the command that adds it.
    """


class WorkerError(RuntimeError):
    """A worker process (Java, TensorFlow 1.x, Fiji) failed, hung or died; the message is its own reason."""
