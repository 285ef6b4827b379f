"""The same files in a person's own Fiji with the real plugin: run where CARE_BRIDGE_FIJI names one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.images import read_image

pytestmark = [pytest.mark.fiji, pytest.mark.timeout(280)]

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
OPTIONS = (
    "normalizeinput=true percentilebottom=3.0 percentiletop=99.8 clip=false ntiles=1 blockmultiple=32 overlap=32 "
    "batchsize=1"
)
# Against a live TensorFlow 1.15.0 of the same processor; other versions and threads differ by up to 1e-5.
ONCE, TWICE = 1e-5, 5e-5


@pytest.fixture(scope="module")
def fiji(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Fiji of links to the person's own, with our scripts in its menu; theirs is left as it is."""
    named = os.environ.get("CARE_BRIDGE_FIJI")
    if not named:
        pytest.skip("no Fiji of your own is named in CARE_BRIDGE_FIJI")
    from care_bridge.fiji.macros import fiji_root, install
    from care_bridge.fiji.pyimagej import FijiSession

    root = fiji_root(named)
    if not list((root / "jars").glob("groovy*.jar")):
        pytest.skip(f"{root} has no Groovy among its jars, which every Fiji has")
    copy = tmp_path_factory.mktemp("linked") / "Fiji.app"
    copy.mkdir()
    for entry in root.iterdir():
        if entry.name not in ("scripts", "models"):
            (copy / entry.name).symlink_to(entry)
    install(copy)
    with FijiSession(copy) as session:
        yield session


def expected(tf1: Any, bundle: Path, path: Path) -> tuple[Any, Any]:
    """Applied once and twice, by the plugin's rule with TensorFlow 1.15.0."""
    from care_bridge.fiji.emulation import FijiPredictor
    from care_bridge.fiji.plugin import PluginOptions
    from care_bridge.predictor import apply_repeatedly

    predictor = FijiPredictor(tf1.open(bundle), PluginOptions(nTiles=1))
    once, twice = apply_repeatedly(predictor, read_image(path), applications=2)
    return once.data, twice.data


def difference(path: Path, reference: Any) -> float:
    return float(np.abs(read_image(path).data - reference).max())


def ended(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return content


def test_macros_run_as_they_are(fiji, bundles, tf1, write_image, bad_files, tmp_path):
    source, sentinel = write_image("in/cell.tif"), tmp_path / "sentinel.json"
    once, twice = expected(tf1, bundles.planes, source)
    common = f"model=[{bundles.planes}] ntiles=1 sentinel=[{sentinel}]"

    def run(name: str, arguments: str) -> dict[str, Any]:
        printed = fiji.run_macro(f'runMacro("{MACROS}/{name}.ijm", "{common} {arguments}");')
        assert sentinel.exists(), printed
        return ended(sentinel)

    image = run("restore_image", f"input=[{source}] output=[{tmp_path}/out.tif]")
    assert image["status"] == "done"
    assert difference(tmp_path / "out.tif", once) <= ONCE
    assert run("restore_twice", f"input=[{source}] output=[{tmp_path}/twice]")["done"] == 2
    assert difference(tmp_path / "twice" / "cell_twice.tif", twice) <= TWICE
    bad_files(tmp_path / "in")
    folder = run("restore_folder", f"input=[{tmp_path}/in] output=[{tmp_path}/all]")
    assert folder == {**folder, "done": 1, "failed": 6}
    assert difference(tmp_path / "all" / "cell.tif", once) <= ONCE
    series = write_image("series.tif", "TYX", (3, 48, 50))
    made = run("restore_time_series", f"input=[{series}] output=[{tmp_path}/series_out.tif]")
    assert made["done"] == 3
    colours = write_image("colours.tif", "CYX", (2, 48, 50))
    made = run("restore_channels", f"input=[{colours}] output=[{tmp_path}/colours_out.tif]")
    assert made["done"] == 2
    for name in ("series_out", "colours_out"):
        given = read_image(tmp_path / f"{name.removesuffix('_out')}.tif")
        kept = read_image(tmp_path / f"{name}.tif")
        assert kept.axes == given.axes
        assert dict(kept.pixel_size_um) == pytest.approx(dict(given.pixel_size_um))


def test_installed_scripts_are_commands_of_this_fiji(fiji, bundles, tf1, write_image, bad_files, tmp_path):
    source, sentinel = write_image("in/cell.tif"), tmp_path / "sentinel.json"
    once, twice = expected(tf1, bundles.planes, source)
    common = f"model=[{bundles.planes}] {OPTIONS} sentinel=[{sentinel}]"

    def run(command: str, arguments: str, before: str = f'open("{source}");') -> dict[str, Any]:
        printed = fiji.run_macro(f'{before} run("{command}", "{common} {arguments}"); close("*");')
        assert sentinel.exists(), printed
        return ended(sentinel)

    image = run("Restore Image", f"imp=[cell.tif] bits=32 output=[{tmp_path}/out.tif]")
    assert image["status"] == "done"
    assert difference(tmp_path / "out.tif", once) <= ONCE
    assert run("Restore Twice", f"imp=[cell.tif] normalizeagain=true output=[{tmp_path}/two]")["done"] == 2
    assert difference(tmp_path / "two" / "cell_twice.tif", twice) <= TWICE
    compared = run("Compare With Python", f"imp=[cell.tif] python=[{tmp_path}/out.tif] tolerance=0.0001")
    assert compared["status"] == "done"
    bad_files(tmp_path / "in")
    folder = run(
        "Restore Folder",
        f"input=[{tmp_path}/in] outputfolder=[{tmp_path}/all] pattern=*.tif recursive=true overwrite=false "
        "applications=1 normalizeagain=true bits=32",
        before="",
    )
    assert folder == {**folder, "done": 1, "failed": 6}
    assert difference(tmp_path / "all" / "cell.tif", once) <= ONCE
    fiji.run_macro(f'run("Forget Remembered Model", "sentinel=[{sentinel}]");')
    assert ended(sentinel)["message"] == "no model was remembered"
