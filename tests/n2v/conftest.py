from __future__ import annotations

import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """Folders of models that n2v trained; see README.md."""
    folder = tmp_path_factory.mktemp("n2v")
    with zipfile.ZipFile(Path(__file__).parent / "recorded.zip") as packed:
        packed.extractall(folder)
    return folder
