"""Runs n2v's own tests, examples and scripts against `care_bridge.n2v`: every import of n2v and csbdeep is swapped.

    git clone --depth 1 https://github.com/juglab/n2v
    python benchmarks/n2v_tests.py n2v [--only tests examples scripts] [-k part_of_a_name ...]

All is copied into a temporary folder and changed there. Nothing is downloaded: images are drawn, of the sizes that the tests
count on. Of the examples the code cells run, with 4 features, batches of 4 and one epoch of 2 steps. Names that
`care_bridge.n2v` lacks stay n2v's, and are printed: files that need them are left out where n2v is not installed, as it
cannot be beside today's TensorFlow. docs/from-n2v.md says what to know of the results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_IMPORT = re.compile(r"^( *)from (n2v|csbdeep)(\.[\w.]+)? import ([\w, *]+)$", re.M)

DOWNLOADS = '''
"""Instead of downloads: drawn images under the names that are asked for."""
import io, os, urllib.request, zipfile
import numpy as np


def drawn(*shape, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    return (100 + 50 * np.sin(x / 9) * np.cos(y / 7) + rng.normal(0, 20, shape)).astype(np.float32)


def tiff(image):
    import tifffile
    content = io.BytesIO()
    tifffile.imwrite(content, image.clip(0).astype(np.uint16))
    return content.getvalue()


def png(image):
    from matplotlib.image import imsave
    content = io.BytesIO()
    imsave(content, image, format="png")
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def objects(images):
    found = np.empty(len(images), object)
    found[:] = images
    return found


BSD = "BSD68_reproducibility_data/"
FILES = {
    "BSD68": lambda: {
        BSD + "train/DCNN400_train_gaussian25.npy": npy(drawn(24, 180, 180)),
        BSD + "val/DCNN400_validation_gaussian25.npy": npy(drawn(4, 180, 180, seed=1)),
        BSD + "test/bsd68_groundtruth.npy": npy(objects([drawn(60, 83, seed=2), drawn(83, 60, seed=3)])),
        BSD + "test/bsd68_gaussian25.npy": npy(objects([drawn(60, 83, seed=4), drawn(83, 60, seed=5)])),
    },
    "RGB": lambda: {"longBeach.png": png(np.moveaxis(drawn(3, 1100, 2800), 0, -1).clip(0, 255) / 255)},
    "SEM": lambda: {"train.tif": tiff(drawn(400, 400)), "validation.tif": tiff(drawn(300, 300, seed=1))},
    "flywing": lambda: {"flywing.tif": tiff(drawn(35, 520, 692))},
}
# The addresses of older tests do not say what they give.
FILES["Frru2hsjjAljpfW"], FILES["pXgfbobntrw06lC"] = FILES["RGB"], FILES["SEM"]
FILES["RKStdwKo4FlFrxE"] = FILES["flywing"]


def retrieve(url, path):
    name = next((name for name in FILES if name in url), None)
    if name is None:
        whole = tiff(drawn(2, 1024, 480)) if url.endswith(".tif") else npy(drawn(900, 64, 64) / 255)
        open(path, "wb").write(whole)
        return path, None
    with zipfile.ZipFile(path, "w") as packed:
        for inside, content in FILES[name]().items():
            packed.writestr(inside, content)
    return path, None


urllib.request.urlretrieve = retrieve
os.environ.setdefault("MPLBACKEND", "Agg")
'''

# What reads packages today: the tests name functions that bioimageio.core has no more.
READERS = """
from bioimageio.core import load_description as load_resource_description
from bioimageio.core import test_description as described


def test_model(description):
    return [{"status": described(description).status}]


test_model.__test__ = False
"""

SMALLER = """
from care_bridge.n2v.models import N2VConfig

usual = N2VConfig.__init__
small = dict(unet_n_first=4, train_epochs=1, train_steps_per_epoch=2, train_batch_size=4)
N2VConfig.__init__ = lambda self, X, **settings: usual(self, X, **{**settings, **small})
"""

EXAMPLES = {
    "2D/denoising2D_BSD68": ["BSD68_reproducibility"],
    "2D/denoising2D_SEM": ["01_training", "02_prediction"],
    "2D/denoising2D_RGB": ["01_training", "02_prediction"],
    "2D/structN2V_2D_convallaria": ["01_training", "02_prediction"],
    "2D/structN2V_2D_synth_mem": ["train_and_predict"],
    "3D": ["01_training", "02_prediction"],
}
"""Notebooks below n2v's folder of examples, in the order in which they run."""


def swapped(text: str) -> tuple[str, list[str]]:
    """A file that imports from `care_bridge` what is there, and the names that are not."""
    kept: list[str] = []

    def swap(found: re.Match[str]) -> str:
        blank, package, module, names = found[1], found[2], found[3] or "", found[4].split(",")
        here = [name.strip() for name in names if _has(f"{package}{module}", name.strip().split(" as ")[0])]
        there = [name.strip() for name in names if name.strip() not in here]
        kept.extend(f"{package}{module}.{name}" for name in there)
        lines = [f"{blank}from care_bridge.{package}{module} import {', '.join(here)}"] if here else []
        return "\n".join(
            lines + ([f"{blank}from {package}{module} import {', '.join(there)}"] if there else [])
        )

    text = _IMPORT.sub(swap, text)
    return re.sub(
        r"^import csbdeep\.io$",
        "import care_bridge.csbdeep.io\nfrom care_bridge import csbdeep",
        text,
        flags=re.M,
    ), kept


def _has(module: str, name: str) -> bool:
    try:
        loaded = importlib.import_module(f"care_bridge.{module}")
        return hasattr(loaded, name) or bool(importlib.import_module(f"care_bridge.{module}.{name}"))
    except ModuleNotFoundError:
        return False


def run_tests(repository: Path, folder: Path, of_pytest: list[str]) -> int:
    """n2v's tests, with pytest; its exit code."""
    shutil.copytree(repository / "tests" / "test_data", folder / "test_data")
    for file in sorted((repository / "tests").glob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        old = r"^ *from bioimageio\.core(\.resource_tests)? import (load_resource_description|test_model)$"
        asks = bool(re.search(old, text, re.M))
        text, kept = swapped(re.sub(old, "", text, flags=re.M))
        told = ", ".join(kept) or "nothing"
        if any(name.startswith("n2v") for name in kept):
            print(f"{file.name}: left out, it needs {told}")
            continue
        print(f"{file.name}: still theirs: {told}")
        (folder / file.name).write_text((READERS if asks else "") + text, encoding="utf-8")
    (folder / "conftest.py").write_text("import downloads\n", encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = bioimage_io\n", encoding="utf-8")
    return _python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", *of_pytest)


def run_examples(repository: Path, folder: Path) -> int:
    """The code cells of the example notebooks, one process a notebook; 1 where one fails."""
    failed = 0
    for place, notebooks in EXAMPLES.items():
        inside = folder / place
        inside.mkdir(parents=True)
        for name in notebooks:
            code = _cells(repository, place, name)
            if code is None:
                print(f"{place}/{name}: not in this copy of the repository", flush=True)
                continue
            failed |= _run(inside, name, code, f"{place}/{name}")
            if place.endswith("RGB") and name == "01_training":
                # The two notebooks do not agree on the name of the model.
                shutil.copytree(
                    inside / "models" / "n2v_2D_RGB", inside / "models" / "n2v_2D", dirs_exist_ok=True
                )
    return failed


def _cells(repository: Path, place: str, name: str) -> str | None:
    try:
        notebook = json.loads((repository / "examples" / place / f"{name}.ipynb").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # The same steps as a script, where a copy of the repository lacks its largest files.
        script = repository / "tests" / "functional" / "test_training2D_RGB.py"
        return script.read_text(encoding="utf-8") if place.endswith("RGB") and script.is_file() else None
    cells = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return "\n".join(line for cell in cells for line in cell.splitlines() if not line.rstrip().endswith("?"))


def run_scripts(repository: Path, folder: Path) -> int:
    """trainN2V.py and predictN2V.py on two images, 2-D, as a movie, in colours and 3-D; 1 where one fails."""
    failed = 0
    for dims, shape in {
        "YX": (160, 140),
        "TYX": (2, 160, 140),
        "YXC": (160, 140, 3),
        "ZYX": (16, 96, 96),
    }.items():
        inside = folder / dims
        inside.mkdir(parents=True)
        draw = "import numpy as np, tifffile, downloads\n"
        draw += (
            f"image = np.moveaxis(downloads.drawn(*{sorted(shape, key=lambda n: n > 3)}), 0, -1)\n"
            if "C" in dims
            else f"image = downloads.drawn(*{shape})\n"
        )
        draw += "tifffile.imwrite('image.tif', image.astype('uint16'))"
        failed |= _python(inside, "-c", draw)
        usual = ["--name", "a", "--dataPath", ".", "--fileName", "image.tif", "--dims", dims]
        size = ["--patchSizeXY", "32", "--patchSizeZ", "8", "--validationFraction", "20"]
        for name, more in (("trainN2V", size), ("predictN2V", ["--output", "."])):
            code = (repository / "scripts" / f"{name}.py").read_text(encoding="utf-8")
            failed |= _run(inside, name, code, f"{name}.py --dims {dims}", [*usual, *more])
        if not (inside / "image_N2V.tif").is_file():
            print(f"  {dims}: no image_N2V.tif")
            failed = 1
    return failed


def _run(folder: Path, name: str, code: str, told: str, arguments: list[str] | None = None) -> int:
    text, kept = swapped(code)
    (folder / f"{name}.py").write_text(f"import downloads, smaller\n{text}", encoding="utf-8")
    done = _python(folder, f"{name}.py", *(arguments or []), quiet=True)
    said = f"; still theirs: {', '.join(kept)}" if kept else ""
    print(f"{told}: {'failed' if done else 'ran'}{said}", flush=True)
    return done


def _python(folder: Path, *words: str, quiet: bool = False) -> int:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        check=False,
        capture_output=quiet,
        text=True,
    )
    if quiet and done.returncode:
        print(done.stderr[-3000:])
    return int(done.returncode != 0)


def main() -> int:
    """Swap, run; 0 where all that ran passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="n2v's, as git clones it")
    parts = ("tests", "examples", "scripts")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments, of_pytest = parser.parse_known_args()
    repository = arguments.repository.resolve()
    if not (repository / "tests").is_dir():
        parser.error(f"no tests in {repository}")
    with tempfile.TemporaryDirectory() as name:
        shared = Path(name) / "shared"
        shared.mkdir()
        (shared / "downloads.py").write_text(DOWNLOADS, encoding="utf-8")
        (shared / "smaller.py").write_text(SMALLER, encoding="utf-8")
        os.environ |= {"PYTHONPATH": str(shared), "MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
        failed = 0
        for part in arguments.only:
            folder = Path(name) / part
            folder.mkdir()
            if part == "tests":
                failed |= run_tests(repository, folder, of_pytest)
            elif part == "examples":
                failed |= run_examples(repository, folder)
            else:
                failed |= run_scripts(repository, folder)
    return failed


if __name__ == "__main__":
    sys.exit(main())
