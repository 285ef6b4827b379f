"""csbdeep's example notebooks as scripts of our own: they run when only the imports are changed."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

NOTEBOOKS = sorted((Path(__file__).parent / "notebooks").glob("*.py"))

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # no psf, patches without origin: as the notebooks are
]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_its_imports_changed(notebook: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = notebook.read_text(encoding="utf-8")
    changed = text.replace("from csbdeep", "from care_bridge.csbdeep")
    assert changed != text
    exec(compile(changed, notebook.name, "exec"), {"__name__": "__main__"})

    model = tmp_path / "models" / "my_model"
    assert {"config.json", "weights_best.h5", "weights_last.h5", "TF_SavedModel.zip"} <= {
        f.name for f in model.iterdir()
    }
    with zipfile.ZipFile(model / "TF_SavedModel.zip") as bundle:
        assert {"saved_model.pb", "variables/", "meta.json"} <= set(bundle.namelist())
        meta = json.loads(bundle.read("meta.json"))
    assert {"type", "version", "probabilistic", "axes", "axes_div_by", "tile_overlap"} <= set(meta)
    results = [*tmp_path.glob("*.tif"), *tmp_path.glob("results/*.tif")]
    assert len(results) == 1
    assert np.isfinite(tifffile.imread(results[0])).all()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_only_what_csbdeep_has(oracle, notebook: Path) -> None:
    names = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(notebook.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("csbdeep")
        for alias in node.names
    ]
    assert names
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


QUIET = """
import numpy as np
from care_bridge.csbdeep.models import CARE, Config
small = dict(unet_n_first=4, unet_n_depth=1, unet_kern_size=3, train_epochs=1, train_steps_per_epoch=1)
model = CARE(Config("YX", train_batch_size=2, **small), "a", basedir=".")
x = np.ones((4, 16, 16, 1), np.float32)
model.train(x, x, (x, x))
model.predict(np.random.default_rng(0).random((20, 24)), "YX", n_tiles=(1, 2))
model.export_TF()
"""


@pytest.mark.parametrize("code", [QUIET, "from care_bridge import KerasPredictor, write_bundle"])
def test_nothing_of_tensorflows_own_shows_below_a_cell(code: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout == ""
