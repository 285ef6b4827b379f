"""Image-restoration networks trained in Python, running in Fiji, with proof that both sides agree.

Names are loaded when they are first used: importing this package loads neither TensorFlow nor Java.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BIOIMAGEIO": "normalize",
    "CSBDEEP": "normalize",
    "FIJI": "normalize",
    "CareConfig": "config",
    "CsbdeepTiles": "tiling",
    "EmulatedPlugin": "plugin.emulation",
    "FijiTiles": "tiling",
    "Image": "images",
    "InputError": "errors",
    "KerasPredictor": "inference.keras",
    "PluginOptions": "plugin.options",
    "PredictOptions": "predictor",
    "apply_repeatedly": "predictor",
    "compare": "comparing.sides",
    "open_predictor": "opening",
    "read_image": "images",
    "write_bundle": "export.savedmodel",
    "write_image": "images",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604


_RENAMED = {"FijiPredictor": "EmulatedPlugin"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        import warnings

        warnings.warn(
            f"care_bridge.{name} is called care_bridge.{_RENAMED[name]} now", DeprecationWarning, stacklevel=2
        )
        name = _RENAMED[name]
    if name in _HOME:
        if _HOME[name].startswith(("inference", "export")):
            # Keras would let TensorFlow greet, in red below the cell of a notebook.
            importlib.import_module("care_bridge.training.startup").load_tensorflow()
        return getattr(importlib.import_module(f"care_bridge.{_HOME[name]}"), name)
    raise AttributeError(f"module 'care_bridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
