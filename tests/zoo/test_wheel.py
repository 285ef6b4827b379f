"""The models are in the wheel, beside everything that was there before."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the sources with one more model."""
    pytest.importorskip("setuptools", minversion="77")
    at = tmp_path_factory.mktemp("wheel")
    for name in ("care_bridge", "fiji_macros", "model_zoo"):
        shutil.copytree(ROOT / name, at / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, at)
    new = at / "model_zoo" / "one-more" / "deeper"
    new.mkdir(parents=True)
    for file in (new.parent / "model.toml", new.parent / "weights_best.h5", new / "weights_best.h5"):
        file.write_text("of a test", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('dist')"],
        cwd=at, check=True, capture_output=True,
    )  # fmt: skip
    return next((at / "dist").glob("*.whl"))


def test_a_wheel_holds_every_module_macro_and_model(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "care_bridge").rglob("*.py")}
    models = {
        f"care_bridge/zoo/models/{path.relative_to(ROOT / 'model_zoo').as_posix()}"
        for path in (ROOT / "model_zoo").glob("*/*")
        if path.is_file()
    }
    more = {
        "care_bridge/zoo/models/one-more/model.toml",
        "care_bridge/zoo/models/one-more/weights_best.h5",
        "care_bridge/zoo/models/one-more/deeper/weights_best.h5",
        "care_bridge/templates/zoo_card.md.j2",
        "fiji_macros/Restore_Image.groovy",
    }
    assert not (modules | models | more) - names


def test_an_installed_package_finds_its_models(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "from care_bridge.model_names import named_models; print(*named_models())"],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "one-more" in done.stdout.split()
