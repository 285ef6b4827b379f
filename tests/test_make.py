"""`make` on a machine that lacks something says what to install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


def make(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    return subprocess.run(
        ["make", "demo", f"PYTHON={python}"], cwd=folder, capture_output=True, text=True, check=False
    )


def fake_python(folder: Path, script: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_no_python_is_told_with_the_versions_that_would_do(tmp_path: Path) -> None:
    done = make(tmp_path, "no-such-python")
    assert done.returncode == 2
    assert (
        "make: 'no-such-python' is not here; install Python 3.11, 3.12 or 3.13" in done.stdout + done.stderr
    )
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_is_told_its_version(tmp_path: Path) -> None:
    python = fake_python(tmp_path, 'case "$1" in --version) echo Python 3.9.1;; *) exit 1;; esac')
    done = make(tmp_path, python)
    assert done.returncode == 2
    assert "make: Python 3.9.1 is not supported" in done.stdout + done.stderr


def test_a_python_without_venv_or_pip_is_told_what_to_install(tmp_path: Path) -> None:
    python = fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    done = make(tmp_path, python)
    assert done.returncode == 2
    assert "apt install python3-venv python3-pip" in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()
