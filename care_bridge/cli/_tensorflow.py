"""TensorFlow for commands; see `training.startup`."""

from __future__ import annotations

from care_bridge.training.startup import load_tensorflow

__all__ = ["load_tensorflow"]
