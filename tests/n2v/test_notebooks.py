"""n2v's example notebooks and scripts as scripts of our own: they run when only the imports are changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from care_bridge.images import Image, write_image

NOTEBOOKS = sorted((Path(__file__).parent / "notebooks").glob("*.py"))

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # noise of rows, few images: as the notebooks are
]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_its_imports_changed(notebook: Path, tmp_path: Path, monkeypatch) -> None:
    if "export_TF" in notebook.read_text(encoding="utf-8"):
        pytest.importorskip("bioimageio.spec")
    monkeypatch.chdir(tmp_path)
    text = notebook.read_text(encoding="utf-8")
    changed = re.sub(r"^from (n2v|csbdeep)\.", r"from care_bridge.\1.", text, flags=re.M)
    changed = changed.replace(
        "import csbdeep.io", "import care_bridge.csbdeep.io\nfrom care_bridge import csbdeep"
    )
    assert changed != text
    exec(compile(changed, notebook.name, "exec"), {"__name__": "__main__"})

    restored = np.load(tmp_path / "prediction.npy")
    assert np.isfinite(restored).all()
    model = tmp_path / "models" / "my_model"
    there = {file.name for file in model.iterdir()}
    assert {"config.json", "weights_best.h5", "weights_last.h5"} <= there
    if "export_TF" in text:
        assert {"my_model.bioimage.io.zip", "TF_SavedModel.zip"} <= there
    config = json.loads((model / "config.json").read_text())
    assert config["care_bridge"]["method"] == "n2v"
    if notebook.stem != "rgb":  # a network for each channel, which n2v cannot run
        assert config["n2v_patch_shape"][-1] in (16, 32)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    noise = np.random.default_rng(0).normal(100, 20, (200, 130)).clip(0).astype(np.uint16)
    write_image(tmp_path / "data" / "a.tif", Image(noise, "YX"))
    page = Path(__file__).resolve().parents[2] / "docs" / "from-n2v.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    small = "N2VConfig(patches, unet_n_first=4, train_epochs=1, train_steps_per_epoch=2, train_batch_size=2,"
    names: dict[str, object] = {}
    exec(example.replace("N2VConfig(patches,", small), names)
    assert np.shape(names["restored"]) == (200, 130)
