"""What a notebook or a shell hands on to processes, and what a process of ours makes of it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import MutableMapping

_OURS = {
    "KERAS_BACKEND": "tensorflow",  # which Fiji has too, whatever Keras runs on in a person's other work
    "MPLBACKEND": "Agg",  # pictures go into files; a notebook's backend is missing elsewhere
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow tells of its search for GPUs and every retried size
}
_NOT_OURS = ("TF_USE_LEGACY_KERAS", "TF_CPP_MAX_VLOG_LEVEL", "TF_CPP_VMODULE", "PYTHONWARNINGS")


def settle(environment: MutableMapping[str, str]) -> None:
    """Take out of an environment what would break or drown a process of ours, in place.

    Parameters
    ----------
    environment : mapping of str to str
        ``os.environ`` of a command, before anything heavy is imported; or a copy for a worker process.
    """
    for name in _NOT_OURS:
        environment.pop(name, None)
    environment.update(_OURS)


def settle_warnings(environment: MutableMapping[str, str]) -> None:
    """Undo what PYTHONWARNINGS did at the start: ``error`` would end a command by a warning of some library."""
    if "PYTHONWARNINGS" not in environment:
        return
    sys.warnoptions.clear()
    warnings.resetwarnings()
    # Python's own, latest first.
    for category in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
