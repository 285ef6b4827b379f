"""Fixtures of the Java side: what is fetched once by `care-bridge doctor --install`."""

from __future__ import annotations

import os

import pytest

from care_bridge.fiji import runtimes


def _ready(what: str) -> None:
    """Skip with the command to run, or fail where the Java side is demanded (CARE_BRIDGE_REQUIRE_JAVA=1)."""
    lacking = runtimes.missing(what)
    if not lacking:
        return
    message = f"not here: {', '.join(lacking)}; run: care-bridge doctor --install {what}"
    if os.environ.get("CARE_BRIDGE_REQUIRE_JAVA", "") not in ("", "0"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def tf1_ready() -> None:
    """TensorFlow 1.12.0 and 1.15.0 are here."""
    _ready("tf1")


@pytest.fixture(scope="session")
def imagej_ready() -> None:
    """Headless ImageJ is here."""
    _ready("imagej")
