"""csbdeep.utils.six: names that old notebooks import from there."""

from __future__ import annotations

import builtins
import tempfile
from pathlib import Path

FileNotFoundError = builtins.FileNotFoundError

__all__ = ["FileNotFoundError", "Path", "tempfile"]
