"""TIFFs as people have them, through the script and the macro for folders, in a real headless ImageJ."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from care_bridge.images import Image, read_image

pytestmark = pytest.mark.java

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
ONCE = 1e-5


def plane(dtype: str = "uint16") -> NDArray[Any]:
    image = np.random.default_rng(0).poisson(120, (48, 50)).astype(dtype)
    image[20:30, 10:30] += 100
    return image


def save(path: Path, data: NDArray[Any] | None = None, **options: Any) -> None:
    tifffile.imwrite(path, plane() if data is None else data, **{"photometric": "minisblack", **options})


def pages(path: Path, **options: Any) -> None:
    with tifffile.TiffWriter(path) as file:
        for number in range(3):
            file.write(plane() + number, contiguous=False, metadata=None, photometric="minisblack", **options)


def pillow(path: Path, compression: str | None) -> None:
    """The directory behind the pixels, as libtiff writes it."""
    from PIL import Image as Pillow

    image = np.random.default_rng(1).poisson(120, (300, 200)).astype(np.uint16)
    Pillow.fromarray(image).save(path, compression=compression)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def sparse_stack(path: Path, dtype: str, planes: int, lacking: int = 0) -> None:
    """A stack of ImageJ with one directory and all planes behind it; zeros that take no place on the disk."""
    one = np.zeros((1, 1024, 1024), dtype)
    text = f"ImageJ=1.54p\nimages={planes}\nslices={planes}\n"
    save(path, one, description=text, metadata=None, byteorder=">")
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    os.truncate(path, start + planes * one.nbytes - lacking)


def sparse_bigtiff(path: Path) -> None:
    save(path, np.zeros((1, 1024, 1024), "uint16"), bigtiff=True)
    os.truncate(path, 2**32 + 100)


OPENS: dict[str, Callable[[Path], None]] = {
    "plain": save,
    "strips": lambda path: save(path, rowsperstrip=7),
    "lzw": lambda path: save(path, compression="lzw"),
    "lzw_strips": lambda path: save(path, compression="lzw", rowsperstrip=16),
    "lzw_predictor": lambda path: save(path, compression="lzw", predictor=True, rowsperstrip=16),
    "zlib": lambda path: save(path, compression="zlib"),
    "zlib_strips": lambda path: save(path, compression="zlib", rowsperstrip=7),
    "zlib_float": lambda path: save(path, plane("float32"), compression="zlib", rowsperstrip=7),
    "packbits": lambda path: save(path, compression="packbits"),
    "packbits_strips": lambda path: save(path, plane("uint8"), compression="packbits", rowsperstrip=9),
    "big_endian": lambda path: save(path, byteorder=">"),
    "big_endian_lzw": lambda path: save(path, byteorder=">", compression="lzw", rowsperstrip=16),
    "directory_behind": lambda path: pillow(path, None),
    "directory_behind_lzw": lambda path: pillow(path, "tiff_lzw"),
    "pages": pages,
    "pages_zlib": lambda path: pages(path, compression="zlib", rowsperstrip=8),
    "stack.ome": lambda path: save(path, np.stack([plane()] * 3), metadata={"axes": "ZYX"}),
    "lzw.ome": lambda path: save(
        path, np.stack([plane()] * 3), metadata={"axes": "ZYX"}, compression="lzw", rowsperstrip=8
    ),
}

FAILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "bigtiff": (lambda path: save(path, bigtiff=True), "it is a BigTIFF, which ImageJ cannot open"),
    "bigtiff_be": (lambda path: save(path, bigtiff=True, byteorder=">"), "it is a BigTIFF"),
    "tiles": (lambda path: save(path, tile=(16, 32)), "its pixels lie in tiles"),
    "tiles.ome": (
        lambda path: save(path, np.stack([plane()] * 3), metadata={"axes": "ZYX"}, tile=(16, 16)),
        "its pixels lie in tiles",
    ),
    "jpeg": (
        # ImageJ opens a narrow one without a word, and with wrong pixels.
        lambda path: save(path, plane("uint8"), compression="jpeg"),
        "it is compressed with JPEG, which ImageJ cannot open; open it with File > Import > Bio-Formats",
    ),
    "jpeg_strips": (
        lambda path: save(path, plane("uint8"), compression="jpeg", rowsperstrip=16),
        "compressed with JPEG",
    ),
    "zstandard": (lambda path: save(path, compression="zstd"), "compressed with Zstandard"),
    "float_predictor": (
        lambda path: save(path, plane("float32"), compression="zlib", predictor=3),
        "the floating point predictor, which ImageJ opens with wrong values",
    ),
    "two_strips": (lambda path: save(path, rowsperstrip=24), "reads the lengths of its strips wrongly"),
    "double": (lambda path: save(path, plane("float64")), "a number format that"),
    "sparse_16": (
        lambda path: sparse_stack(path, "uint16", 2200),
        "it has 2306867200 pixels, and the plugin cannot take more than 2147483647",
    ),
    "sparse_32": (lambda path: sparse_stack(path, "float32", 2040), "it needs 8160 MB, and ImageJ may use"),
    "sparse_cut": (
        lambda path: sparse_stack(path, "uint16", 2200, lacking=10),
        "truncated|cannot take more than",
    ),
    # Of more than 2 GB a macro cannot read the first bytes.
    "sparse_bigtiff": (sparse_bigtiff, "BigTIFF"),
}

CUT = (
    "strips",
    "lzw_strips",
    "zlib",
    "packbits",
    "big_endian_lzw",
    "directory_behind",
    "stack.ome",
    "pages_zlib",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files") / "in"
    made.mkdir()
    for name, write in OPENS.items():
        write(made / f"{name}.tif")
    for name, (write, _) in FAILS.items():
        write(made / f"{name}.tif")
    for name in CUT:
        OPENS[name](made / f"cut_{name}.tif")
        cut(made / f"cut_{name}.tif", 0.7)
    return made


def expected(tf1: Any, bundle: Path, image: Image) -> Image:
    from care_bridge.plugin.emulation import EmulatedPlugin
    from care_bridge.plugin.options import PluginOptions

    return EmulatedPlugin(tf1.open(bundle), PluginOptions(nTiles=1)).predict(image)


@pytest.mark.parametrize("engine", ["script", "macro"])
def test_every_kind_of_tiff_is_restored_or_refused_with_its_reason(
    imagej, bundles, tf1, folder, tmp_path, engine
):
    output, sentinel = tmp_path / "out", tmp_path / "sentinel.json"
    if engine == "script":
        given = {"model": bundles.planes, "nTiles": 1, "input": folder, "outputFolder": output}
        result = imagej.run_script(MACROS / "Restore_Folder.groovy", {**given, "sentinel": sentinel})
    else:
        given = f"model=[{bundles.planes}] ntiles=1 input=[{folder}] output=[{output}] sentinel=[{sentinel}]"
        result = imagej.run_macro(MACROS / "restore_folder.ijm", given)
    assert sentinel.exists(), result
    with (output / "care_log.csv").open(newline="") as file:
        said = {line["file"]: (line["status"], line["message"]) for line in csv.DictReader(file)}
    wrong = {name: said[f"{name}.tif"] for name in OPENS if said[f"{name}.tif"][0] != "done"}
    wrong |= {
        name: said[f"{name}.tif"]
        for name, (_, reason) in FAILS.items()
        if said[f"{name}.tif"][0] != "failed" or not re.search(reason, said[f"{name}.tif"][1])
    }
    wrong |= {
        f"cut_{name}": said[f"cut_{name}.tif"]
        for name in CUT
        if said[f"cut_{name}.tif"][0] != "failed"
        or ("truncated" not in said[f"cut_{name}.tif"][1] and "cut off" not in said[f"cut_{name}.tif"][1])
    }
    assert not wrong
    ended = json.loads(sentinel.read_text())
    assert (ended["done"], ended["failed"]) == (len(OPENS), len(FAILS) + len(CUT))
    for name in OPENS:
        axes = "ZYX" if name.startswith("pages") else None
        source = read_image(folder / f"{name}.tif", axes=axes)
        made = read_image(output / f"{name}.tif")
        reference = expected(tf1, bundles.planes, source)
        assert made.data.squeeze() == pytest.approx(reference.data.squeeze(), abs=ONCE), name
