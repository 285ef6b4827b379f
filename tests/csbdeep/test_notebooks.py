"""csbdeep's example notebooks as scripts of our own: they run when only the imports are changed."""

from __future__ import annotations

import ast
import importlib
import json
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
