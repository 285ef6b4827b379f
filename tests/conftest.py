"""Fixtures that every lane shares. Lanes keep their own in tests/<lane>/conftest.py."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from care_bridge.java import runtimes

SHARED = Path(os.environ.get("CARE_BRIDGE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
REQUIRED = os.environ.get("CARE_BRIDGE_REQUIRE_JAVA", "") not in ("", "0")
"""Set in CI: what is not fetched then fails instead of being skipped."""


# A busy machine is no failure of a property. In CI the examples are the same every time; elsewhere new ones are tried.
settings.register_profile("care_bridge", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("care_bridge")


def pytest_configure() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MPLBACKEND", "Agg")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job inherits a SIGINT that is ignored, and hands it on to what the tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `java` skips with the command to run where the Java side was not fetched, or fails in CI."""
    if item.get_closest_marker("java"):
        _ready("all")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and recorded outputs that lies beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(
            f"the shared images and recorded outputs are not at {SHARED}; simulated images serve instead"
        )
    return SHARED


@pytest.fixture(scope="session")
def tf1_ready() -> None:
    """TensorFlow 1.12.0 and 1.15.0 are here."""
    _ready("tf1")


@pytest.fixture(scope="session")
def imagej_ready() -> None:
    """Headless ImageJ is here."""
    _ready("imagej")


def _ready(what: str) -> None:
    lacking = _missing(what)
    if not lacking:
        return
    message = f"not here: {', '.join(lacking)}; run: care-bridge doctor --install {what}"
    if REQUIRED:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@functools.cache
def _missing(what: str) -> tuple[str, ...]:
    return tuple(runtimes.missing(what))
