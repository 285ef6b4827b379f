"""Fixtures that every lane shares. Lanes keep their own in tests/<lane>/conftest.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("CARE_BRIDGE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_configure() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and recorded outputs that lies beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(
            f"the shared images and recorded outputs are not at {SHARED}; simulated images serve instead"
        )
    return SHARED
