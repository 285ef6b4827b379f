"""One source of percentiles: whatever leaves a model, or is said of it, carries the model's own."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from care_bridge.cli import app

pytestmark = pytest.mark.tf

LOW, HIGH = 1.25, 97.5
"""Nobody's defaults: csbdeep's are 2 and 99.8, the plugin's 3 and 99.8, the zoo's 0 and 100."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with unusual percentiles, and the bundle and the .onnx file that were exported into it."""
    from care_bridge.config import CareConfig
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(unet_n_first=4, unet_kern_size=3, unet_n_depth=1, norm_pmin=LOW, norm_pmax=HIGH)
    folder = tmp_path_factory.mktemp("percentiles") / "unusual"
    save_model(folder, config, build(config))
    write_bundle(folder, folder)
    write_onnx(folder, folder)
    return folder


@pytest.fixture(scope="module")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pytest.importorskip("bioimageio.core")
    from care_bridge.export.bioimageio import write_package

    card = {
        "name": "CARE of filaments - test - 2D",
        "description": "Denoises drawn filaments; made by a test.",
        "license": "CC-BY-4.0",
        "modality": "fluorescence-light-microscopy",
        "content": "cells",
        "authors": [{"name": "A Tester", "affiliation": "Institute", "orcid": "0000-0002-1825-0097"}],
    }
    written = write_package(model, tmp_path_factory.mktemp("package"), metadata=card)
    with zipfile.ZipFile(written.path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cell.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(100, 4000, (64, 64)).astype(np.uint16))
    return path


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def in_meta(text: bytes | str) -> None:
    own = json.loads(text)["care_bridge"]
    assert (own["normalisation"]["pmin"], own["normalisation"]["pmax"]) == (LOW, HIGH)
    assert (own["fiji"]["percentileBottom"], own["fiji"]["percentileTop"]) == (LOW, HIGH)


def in_options(options: Any) -> None:
    assert (options.percentileBottom, options.percentileTop) == (LOW, HIGH)


def test_the_bundle_its_how_to_and_its_macro_carry_them(model: Path) -> None:
    with zipfile.ZipFile(model / "unusual.zip") as archive:
        in_meta(archive.read("meta.json"))
    how_to = (model / "HOW-TO-RUN-IN-FIJI.txt").read_text()
    assert re.search(rf"Bottom percentile +{LOW}\n", how_to)
    assert re.search(rf"Top percentile +{HIGH}\n", how_to)
    for text in (how_to, (model / "unusual.ijm").read_text()):
        assert set(re.findall(r"percentile(?:bottom|top)=([\d.]+)", text)) == {str(LOW), str(HIGH)}


def test_the_package_carries_them_in_its_description_its_readme_and_every_weights_file(package: Any) -> None:
    rdf = yaml.safe_load(package["rdf.yaml"])
    kwargs = rdf["inputs"][0]["preprocessing"][0]["kwargs"]
    assert (kwargs["min_percentile"], kwargs["max_percentile"]) == (LOW, HIGH)
    assert rdf["config"]["care_bridge"]["percentiles"] == [LOW, HIGH]
    readme = package["README.md"].decode()
    assert f"with percentiles {LOW} and\n{HIGH}" in readme
    assert f"its {LOW} and {HIGH} percentiles" in readme
    in_meta(json.dumps(json.loads(package["care_bridge.json"])["meta"]))


def test_what_is_exported_is_opened_with_them(model: Path) -> None:
    from care_bridge.model_files import stated_percentiles
    from care_bridge.normalize import FIJI
    from care_bridge.opening import open_network_predictor
    from care_bridge.predictor import PredictOptions

    for path, runtime in ((model, "keras"), (model / "unusual.zip", None), (model / "unusual.onnx", None)):
        for options in (PredictOptions(), PredictOptions(rule=FIJI)):
            found = open_network_predictor(path, options, runtime=runtime).options
            assert (found.pmin, found.pmax) == (LOW, HIGH), (path, options)
    assert stated_percentiles(model) == stated_percentiles(model / "unusual.zip") == (LOW, HIGH)


def test_predict_types_them_into_a_fiji(model: Path) -> None:
    from care_bridge.opening import own_plugin_options

    for path in (model, model / "unusual.zip"):
        in_options(own_plugin_options(path))
    assert own_plugin_options(model, percentileTop=90.0, nTiles=None).percentileTop == 90.0


def test_compare_types_them_also_where_the_bundle_states_none(model: Path, tmp_path: Path) -> None:
    from care_bridge.comparing.sides import recommended_options

    silent = tmp_path / "silent.zip"
    with zipfile.ZipFile(model / "unusual.zip") as archive, zipfile.ZipFile(silent, "w") as without:
        for name in archive.namelist():
            if name != "meta.json":
                without.writestr(name, archive.read(name))
    in_options(recommended_options(model / "unusual.zip"))
    in_options(recommended_options(silent, model=model))


def test_advise_and_the_macros_say_them(model: Path, image: Path) -> None:
    text = said("advise", model, image, "--no-compare")
    assert re.search(rf"\(percentileBottom\) +{LOW}\n", text)
    assert re.search(rf"\(percentileTop\) +{HIGH}\n", text)
    options = json.loads(said("advise", model / "unusual.zip", image, "--no-compare", "--json"))["options"]
    assert (options["percentileBottom"], options["percentileTop"]) == (LOW, HIGH)
    lines = said("macros", "for", model)
    assert set(re.findall(r"percentile(?:bottom|top)=([\d.]+)", lines)) == {str(LOW), str(HIGH)}


def test_percentiles_given_for_one_export_go_everywhere_instead(model: Path, tmp_path: Path) -> None:
    from care_bridge.bundle import read_meta
    from care_bridge.export.savedmodel import write_bundle

    bundle = write_bundle(model, tmp_path / "other.zip", pmin=0.5)
    told = read_meta(bundle)
    assert (told.pmin, told.pmax) == (0.5, HIGH)
    assert (told.fiji["percentileBottom"], told.fiji["percentileTop"]) == (0.5, HIGH)
    assert "percentilebottom=0.5 percentiletop=97.5" in (tmp_path / "other.ijm").read_text()


def test_the_how_to_and_the_page_for_fiji_have_their_sections_in_one_order(model: Path) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs" / "fiji.md"
    headings = [line.removeprefix("## ") for line in docs.read_text().splitlines() if line.startswith("## ")]
    lines = (model / "HOW-TO-RUN-IN-FIJI.txt").read_text().splitlines()
    found = [line for line in lines if line in headings]
    assert found == ["You need", "One image: four clicks", "What the numbers mean", "In your own macros"]
    assert found == [heading for heading in headings if heading in found]
    assert "1 channel, not RGB" in "\n".join(lines)
