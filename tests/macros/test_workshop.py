"""Train, Evaluate and Check Model: the scripts in real headless ImageJ, with the Python that runs these tests."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.images import Image, read_image, write_image
from care_bridge.macros import PYTHON_FILE

pytestmark = [pytest.mark.java, pytest.mark.tf]

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
TINY = "--patch-size 16,16 --set unet_n_first=2 --set unet_n_depth=1 --set unet_kern_size=3 --set train_batch_size=2"
STEPS = TINY + " --epochs 2 --steps 3"


@pytest.fixture(scope="module")
def imagej() -> Iterator[Any]:
    from tests.macros.conftest import _ready

    _ready("onnx")
    from care_bridge.java.imagej import ImageJ

    with ImageJ(onnx=True, timeout_s=300) as running:
        yield running


@pytest.fixture(scope="module")
def models(imagej: Any) -> Path:
    """models/CARE_bridge of the Fiji, whose scripts know the Python that installed them."""
    scripts = imagej.fiji_folder / "scripts" / "Plugins" / "CARE_bridge"
    scripts.mkdir(parents=True)
    (scripts / PYTHON_FILE).write_text(sys.executable + "\n", encoding="utf-8")
    return Path(imagej.fiji_folder, "models", "CARE_bridge")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of spots, in a folder with a blank and an umlaut."""
    folder = tmp_path_factory.mktemp("pairs") / "Bilder für heute"
    random = np.random.default_rng(3)
    for number in range(3):
        clean = gaussian_filter(random.random((64, 64)), 2)
        clean = 1000 * (clean - clean.min()) / np.ptp(clean)
        noisy = clean + random.normal(0, 60, clean.shape)
        write_image(folder / "noisy" / f"{number}.tif", Image(noisy.astype(np.float32), "YX"))
        write_image(folder / "clean" / f"{number}.tif", Image(clean.astype(np.float32), "YX"))
    return folder


def run(imagej: Any, script: str, tmp_path: Path, **parameters: Any) -> tuple[Any, dict[str, Any]]:
    sentinel = tmp_path / "sentinel.json"
    sentinel.unlink(missing_ok=True)
    result = imagej.run_script(MACROS / f"{script}.groovy", {**parameters, "sentinel": sentinel})
    assert result.error == "", result.log
    return result, json.loads(sentinel.read_text(encoding="utf-8"))


def test_what_was_trained_in_fiji_restores_there_by_its_name_and_is_evaluated_and_checked(
    imagej: Any, models: Path, folders: Path, tmp_path: Path
) -> None:
    pairs = {"source": folders / "noisy", "target": folders / "clean"}
    result, ended = run(imagej, "Train", tmp_path, **pairs, name="my spots", options=STEPS, minutes=0)
    assert ended["status"] == "done", result.log
    assert "Restore has it by this name now" in ended["message"]
    assert (models / "my spots" / "training" / "history.csv").is_file()
    output = tmp_path / "restored.tif"
    cell = folders / "noisy" / "0.tif"
    restored = imagej.run_script(
        MACROS / "Restore.groovy", {"model": "my spots", "output": output, "sentinel": ""}, image=cell
    )
    assert restored.error == "", restored.log
    assert read_image(output).shape == (64, 64)
    page = tmp_path / "report.html"
    _, ended = run(
        imagej, "Evaluate", tmp_path, model="my spots", **pairs, report=page, options="--no-baselines"
    )
    assert ended["status"] == "done"
    assert page.is_file()
    result, ended = run(imagej, "Check_Model", tmp_path, model="my spots")
    assert ended["status"] == "done", result.log
    assert "TensorFlow" in result.log
    # The name is taken: what was trained is never overwritten.
    _, ended = run(imagej, "Train", tmp_path, **pairs, name="my spots", options=STEPS)
    assert ended["status"] == "failed"
    assert "give the new one another name" in ended["message"]


def test_a_training_that_was_stopped_goes_on_by_its_name(
    imagej: Any, models: Path, folders: Path, tmp_path: Path
) -> None:
    given = {"source": folders / "noisy", "name": "stopped", "minutes": 0}
    many = TINY + " --epochs 2000 --steps 5"
    stop = threading.Thread(target=_kill_when_begun, args=(models / "stopped",))
    stop.start()
    _, ended = run(imagej, "Train", tmp_path, **given, options=many)
    stop.join()
    assert ended["status"] == "failed"  # its Python was killed: a crash, or a machine that went off
    assert not (models / "stopped.zip").exists()
    settings = json.loads((models / "stopped" / "config.json").read_text(encoding="utf-8"))
    settings["train_epochs"] = 2
    (models / "stopped" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    result, ended = run(imagej, "Train", tmp_path, **given, options=many)
    assert "going on with stopped" in result.log
    assert ended["status"] == "done", result.log
    assert (models / "stopped.zip").is_file()


def _kill_when_begun(folder: Path) -> None:
    import psutil

    history = folder / "training" / "history.csv"
    for _ in range(600):
        if history.is_file():
            break
        time.sleep(0.2)
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or ()):
            process.kill()


@pytest.mark.parametrize(
    ("script", "parameters", "words"),
    [
        ("Train", {"source": "no/such"}, "does not exist; choose a folder of TIFF files"),
        ("Train", {"name": "../up"}, "letters, digits, blanks"),
        ("Train", {"options": "--set unet_n_dpeth=1"}, "unet_n_depth"),
        ("Evaluate", {"model": "nobody"}, "nobody"),
        ("Check_Model", {"model": "nobody"}, "there is no model nobody"),
    ],
)
@pytest.mark.usefixtures("models")
def test_what_cannot_be_done_is_one_line(
    imagej: Any, folders: Path, tmp_path: Path, script: str, parameters: dict[str, str], words: str
) -> None:
    pairs = {"source": folders / "noisy", "target": folders / "clean"}
    usual: dict[str, Any] = {"Train": {**pairs, "name": "new"}, "Evaluate": pairs, "Check_Model": {}}[script]
    _, ended = run(imagej, script, tmp_path, **{**usual, **parameters})
    assert ended["status"] == "failed"
    assert words in ended["message"]
    assert "Traceback" not in ended["message"]


def test_without_a_python_it_says_what_to_do(
    imagej: Any, models: Path, folders: Path, tmp_path: Path
) -> None:
    written = imagej.fiji_folder / "scripts" / "Plugins" / "CARE_bridge" / PYTHON_FILE
    there = written.read_text(encoding="utf-8")
    given = {"source": folders / "noisy", "name": "new"}
    try:
        written.write_text("/gone/python\n", encoding="utf-8")
        _, ended = run(imagej, "Train", tmp_path, **given)
        assert "the Python that installed these scripts is gone (/gone/python)" in ended["message"]
        written.unlink()
        _, ended = run(imagej, "Train", tmp_path, **given)
        assert "no Python installed these scripts" in ended["message"]
        assert "pip install" in ended["message"]
    finally:
        written.write_text(there, encoding="utf-8")
    assert not (models / "new").exists()
