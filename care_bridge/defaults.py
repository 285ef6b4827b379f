"""Defaults that the API and the command line share; imports nothing, so that the command line copies no constant."""

from __future__ import annotations

TF1_VERSION = "1.15.0"
"""TensorFlow of the CSBDeep update site; the other one that Fiji users have is 1.12.0."""
