"""csbdeep.utils.tf: how much of a GPU TensorFlow takes, and Keras under csbdeep's names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.training.startup import load_tensorflow

__all__ = ["BACKEND", "IS_KERAS_3_PLUS", "IS_TF_1", "keras_import", "limit_gpu_memory"]  # noqa: F822

IS_TF_1 = False

IS_KERAS_3_PLUS = False
"""csbdeep's code asks this to leave out what it cannot do under Keras 3 (`export_TF`). Nothing is left out here."""


def __getattr__(name: str) -> Any:
    if name == "BACKEND":  # Keras is loaded by those who ask for it
        return keras_import("backend")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def keras_import(sub: str | None = None, *names: str) -> Any:
    """Keras, a module of it, or names of that module.

    Parameters
    ----------
    sub : str, optional
        Such as "layers"; None gives Keras itself.
    names : str
        One gives the object, several a tuple of them, none the module.

    Returns
    -------
    object
    """
    load_tensorflow()
    import keras

    if sub is None:
        return keras
    module = getattr(keras, sub)
    found = tuple(getattr(module, name) for name in names)
    return module if not names else found[0] if len(found) == 1 else found


def limit_gpu_memory(
    fraction: float | None, allow_growth: bool = False, total_memory: int | Sequence[int] | None = None
) -> None:
    """Limit the memory that TensorFlow takes of each GPU; does nothing on a machine without one.

    Parameters
    ----------
    fraction : float or None
        Share, 0-1, of `total_memory`. None sets no limit.
    allow_growth : bool
        Take memory as it is needed instead of all at once. Cannot be had together with `fraction`.
    total_memory : int or sequence of int, optional
        Memory of each GPU in MB; needed with `fraction`.

    Raises
    ------
    InputError
        If the fraction is not within 0-1, or `total_memory` is missing.

    Warns
    -----
    UserWarning
        If TensorFlow has used the GPUs already: it is too late then.
    """
    if fraction is not None and not 0 <= fraction <= 1:
        raise InputError(f"fraction must lie between 0 and 1, or be None; received {fraction!r}")
    load_tensorflow()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    if fraction is not None and total_memory is None:
        raise InputError("TensorFlow needs total_memory (in MB) to take a fraction of it")
    try:
        totals = np.broadcast_to(np.asarray(total_memory or 0), len(gpus))
        for gpu, total in zip(gpus, totals, strict=True):
            if fraction is not None:
                limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(fraction * total))
                tf.config.set_logical_device_configuration(gpu, [limit])
            else:
                tf.config.experimental.set_memory_growth(gpu, bool(allow_growth))
    except RuntimeError as error:
        warnings.warn(f"too late to limit GPU memory: {error}", stacklevel=2)
