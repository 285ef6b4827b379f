"""Fixtures of the export lane: small models, written once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from care_bridge.java.tf1 import Tf1Session


CARD = {
    "name": "CARE denoising of filaments - test - 2D",
    "description": "Denoises drawn filaments; made by a test.",
    "license": "CC-BY-4.0",
    "modality": "fluorescence-light-microscopy",
    "content": "cells",
    "authors": [
        {
            "name": "Ada Tester",
            "affiliation": "Institute of Tests",
            "orcid": "0000-0001-5109-3700",
            "github_user": "offline-ada",
        }
    ],
}


@pytest.fixture
def card() -> dict[str, Any]:
    """What model.toml must say, and no more."""
    return dict(CARD)


@pytest.fixture(scope="session")
def foreign() -> ModuleType:
    """The module of models that people bring; see foreign.py."""
    spec = importlib.util.spec_from_file_location(
        "care_bridge_foreign", Path(__file__).with_name("foreign.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tf1() -> Iterator[list[Tf1Session]]:
    """The oldest and the newest TensorFlow that Fiji uses, each in its worker."""
    from care_bridge.java import runtimes
    from care_bridge.java.tf1 import Tf1Session

    versions = ("1.12.0", "1.15.0")
    missing = [version for version in versions if runtimes.missing(f"tf1-{version}")]
    if missing:
        pytest.skip(f"TensorFlow {', '.join(missing)} is not fetched; care-bridge doctor --install adds it")
    sessions = [Tf1Session(version) for version in versions]
    yield sessions
    for session in sessions:
        session.close()


@pytest.fixture
def noise() -> Any:
    """`noise(seed, shape)`: a normalised image with nothing in it, float32."""
    return lambda seed, shape: np.random.default_rng(seed).random(shape, np.float32)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a small 2-D network."""
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(unet_n_first=8, unet_kern_size=3, seed=3)
    folder = tmp_path_factory.mktemp("models") / "tiny_care"
    save_model(folder, config, build(config))
    return folder


@pytest.fixture(scope="session")
def minimal(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package of the small network with no more metadata than it must have."""
    pytest.importorskip("bioimageio.core")
    from care_bridge.export.bioimageio import write_package

    return write_package(tiny, tmp_path_factory.mktemp("package"), metadata=CARD)
