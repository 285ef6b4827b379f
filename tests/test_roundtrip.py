"""Opening both sides of a comparison, and the command that does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.comparing import sides as roundtrip
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.opening import open_predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network with its bundle beside it."""
    pytest.importorskip("tensorflow")
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("roundtrip") / "tiny model"
    config = CareConfig(axes="YX", unet_n_first=8, unet_kern_size=3, norm_pmin=1.0)
    save_model(folder, config, build(config, seed=3))
    write_bundle(folder, folder / "fiji.zip")
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = np.random.default_rng(0).poisson(30, (50, 61)).astype(np.uint16)
    path = tmp_path_factory.mktemp("picture") / "noise.tif"
    write_image(path, Image(data, "YX"))
    return path


@pytest.mark.tf
def test_the_bundle_tells_what_to_type_and_the_person_may_change_it(model: Path) -> None:
    told = roundtrip.recommended_options(model)
    assert (told.percentileBottom, told.blockMultiple, told.nTiles) == (1.0, 4, 1)
    assert roundtrip.recommended_options(model / "fiji.zip", nTiles=3, clip=None).nTiles == 3


@pytest.mark.tf
def test_python_and_the_emulated_plugin_agree_through_the_command(
    model: Path, picture: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"report.{suffix}" for suffix in ("json", "html")]
    arguments = ["compare", str(model), str(model), str(picture), "--level", "emulation"]
    done = CliRunner().invoke(app, [*arguments, *(f"--report={file}" for file in files)])
    assert done.exit_code == 0, done.output
    assert "Both sides agree" in done.stdout
    assert json.loads(files[0].read_text(encoding="utf-8"))["candidate"]["level"] == "emulation"
    assert "Do Fiji and Python agree?" in files[1].read_text(encoding="utf-8")


@pytest.mark.tf
@pytest.mark.java
@pytest.mark.parametrize("version", ["1.12.0", "1.15.0"])
def test_python_and_fijis_tensorflow_agree(model: Path, picture: Path, version: str) -> None:
    arguments = ["compare", str(model), str(model), str(picture), "--level", "tf1", "--tensorflow", version]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"tensorflow {version}" in done.stdout


@pytest.mark.tf
def test_a_difference_is_exit_code_1(model: Path, picture: Path, tmp_path: Path) -> None:
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import load_model
    from care_bridge.training.unet import build

    other = write_bundle(build(load_model(model).config, seed=4), tmp_path / "other.zip")
    done = CliRunner().invoke(app, ["compare", str(model), str(other), str(picture), "--level", "emulation"])
    assert done.exit_code == 1
    assert "FAILED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "{model}", "{picture}"], "there is no model at 'nowhere'"),
        (["{model}", "{model}", "nowhere.tif"], "nowhere.tif"),
        (["{model}", "nowhere.zip", "{picture}"], "nowhere.zip"),
        (["{model}", "{model}", "{picture}", "--level", "moon"], "moon"),
        (["{model}", "{model}", "{picture}", "--axes", "QX"], "Q"),
        (["{model}", "{model}", "{picture}", "--n-tiles", "0"], "n-tiles"),
        (["{model}", "{model}", "{picture}", "--level", "fiji", "--fiji", "nowhere"], "nowhere"),
    ],
)
@pytest.mark.tf
def test_misuse_is_told_on_stderr_with_exit_code_2(
    model: Path, picture: Path, arguments: list[str], words: str
) -> None:
    filled = [text.format(model=model, picture=picture) for text in arguments]
    done = CliRunner().invoke(app, ["compare", *filled])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.tf
def test_a_reference_that_is_not_there_is_named(model: Path) -> None:
    with pytest.raises(InputError, match="there is no model at 'nowhere'"):
        roundtrip.open_reference("nowhere", roundtrip.recommended_options(None))


@pytest.mark.tf
def test_the_ladder_tells_what_following_csbdeep_instead_of_fiji_would_cost(
    model: Path, picture: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ladder.json"
    page = tmp_path / "ladder.html"
    arguments = ["compare", str(model), str(model), str(picture), "--level", "emulation", "--stepwise"]
    done = CliRunner().invoke(app, [*arguments, "--n-tiles", "4", f"--report={file}", f"--report={page}"])
    assert done.exit_code == 0, done.output
    rungs = json.loads(file.read_text(encoding="utf-8"))["rungs"]
    assert [rung["title"] for rung in rungs[:3]] == ["network alone", "tiles", "normalisation"]
    # Both sides follow Fiji's way here, so only the cost of the convention is left.
    assert all(rung["difference"]["max_abs"] <= 1e-5 for rung in rungs)
    assert rungs[2]["cost"]["max_abs"] > 1e-3
    assert "Step by step" in page.read_text(encoding="utf-8")


@pytest.mark.tf
def test_a_predictor_with_fijis_rule_is_followed_in_everything_else(model: Path, picture: Path) -> None:
    from care_bridge import FIJI, KerasPredictor, PredictOptions, compare, read_image

    here = KerasPredictor.load(model, options=PredictOptions(rule=FIJI, pmin=5.0))
    report = compare(
        reference=here, candidate=model / "fiji.zip", image=read_image(picture), level="emulation"
    )
    assert report.passed, str(report)
    assert "percentileBottom=5.0" in report.settings["candidate_options"]


@pytest.mark.tf
def test_a_predictor_with_csbdeeps_rule_is_compared_as_it_is_and_told_apart(
    model: Path, picture: Path
) -> None:
    from care_bridge import KerasPredictor, compare, read_image

    report = compare(
        reference=KerasPredictor.load(model), candidate=model, image=read_image(picture), level="emulation"
    )
    assert not report.passed
    whole = next(row for row in report.rows if row.stage == "whole prediction")
    assert whole.cause == roundtrip.PLUGINS_WAY
    assert "not scaled back" in whole.diagnosis


@pytest.fixture(scope="module")
def isotropic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An isotropic model's folder with its bundle."""
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(kind="IsotropicCARE", unet_n_depth=1, unet_n_first=4, factor=2.5, seed=1)
    folder = tmp_path_factory.mktemp("isotropic") / "model"
    write_bundle(save_model(folder, config, build(config)), folder / "fiji.zip", how_to=False)
    return folder


STACK = Image(np.random.default_rng(0).integers(100, 4000, (5, 20, 24)).astype(np.uint16), "ZYX")


@pytest.mark.tf
@pytest.mark.parametrize("level", ["emulation", pytest.param("tf1", marks=pytest.mark.java)])
def test_an_isotropic_model_is_compared_as_run_your_isonet_runs_it(isotropic: Path, level: str) -> None:
    report = roundtrip.compare(
        reference=isotropic, candidate=isotropic / "fiji.zip", image=STACK, level=level
    )
    assert report.passed, str(report)
    assert report.results["candidate 1"].shape == (1, 11, 20, 24)  # floor((5 - 1) x 2.5) + 1 planes


@pytest.mark.tf
def test_an_isotropic_bundle_alone_asks_for_its_factor(isotropic: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copy(isotropic / "fiji.zip", tmp_path / "alone.zip"))
    with pytest.raises(
        InputError, match=r"does not say by what factor Z is to be upsampled; give it as factor"
    ):
        open_predictor(bundle, "emulation")
    with open_predictor(bundle, "emulation", factor=3) as predictor:
        assert predictor.predict(STACK).shape == (1, 13, 20, 24)


@pytest.mark.tf
def test_imagej_does_not_answer_for_isonet(isotropic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from care_bridge import levels

    monkeypatch.setattr(levels, "why_not", lambda *_, **__: "")
    with pytest.raises(InputError, match="level 'imagej' answers \"Run your network\" only"):
        open_predictor(isotropic, "imagej")
