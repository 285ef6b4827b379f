"""Judging a BioImage.IO package."""

from pathlib import Path
from typing import Any


def is_package(path: Path) -> bool:
    return False


def check_package(path: Path, **options: Any) -> Any:
    raise NotImplementedError
