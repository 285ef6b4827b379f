"""Models of the zoo that do more than one image to another of its size: ensembles, stacks that grow, projections."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.zoo import find
from tests.zoo.conftest import blobs

pytestmark = pytest.mark.tf

SET = 'name = "Blobs"\nsource = "https://github.com/care-bridge/care-bridge"\nlicence = "MIT"\nclass = "drawn"\n'
FOLDERS = (
    'what = "drawn"\nimages = "{kind}"\ntruths = "{kind}"\nimage_suffix = "_noisy"\ntruth_suffix = "_gt"\n'
)


def volume(seed: int, planes: int = 24, side: int = 32) -> np.ndarray:
    """A flat picture that fades along Z and comes back."""
    along = 1 + 0.5 * np.cos(np.linspace(0, 2 * np.pi, planes))
    return np.asarray(along[:, None, None] * blobs(seed, side), np.float32)


def isotropic(seed: int) -> tuple[Image, Image]:
    # First and last planes stay where they are.
    source, truth = (volume(seed, planes) * 5000 for planes in (6, 24))
    return Image(source.astype(np.uint16), "ZYX"), Image(truth.astype(np.uint16), "ZYX")


def projected(seed: int) -> tuple[Image, Image]:
    """A flat picture in one plane of 8, and noise in all of them."""
    stack = np.random.default_rng(seed).poisson(20, (8, 48, 48)).astype(np.float32)
    stack[4] += 100 * blobs(seed, 48)
    return Image(stack.astype(np.uint16), "ZYX"), Image((100 * blobs(seed, 48)).astype(np.uint16), "YX")


ISOTROPIC = CareConfig(
    "YX", kind="IsotropicCARE", factor=4.0, unet_n_first=2, unet_n_depth=1, unet_kern_size=3
)
PROJECTION = CareConfig(
    "ZYX",
    kind="ProjectionCARE",
    unet_n_first=2,
    unet_n_depth=1,
    unet_kern_size=3,
    proj_n_depth=1,
    proj_n_filt=2,
)


def model(
    zoo: Path, name: str, config: CareConfig, family: str, pair: Callable[[int], tuple[Image, Image]]
) -> Path:
    """A model beside the zoo's one, with its tests; measured."""
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = zoo.parent / name
    save_model(folder, config, build(config))
    for file in ("model.toml", "datasheet.toml", "recipe.toml"):
        text = (zoo / file).read_text(encoding="utf-8")
        text = text.replace('name = "CARE denoising of blobs', f'name = "{name} of blobs').replace(
            '"denoise"', f'"{family}"'
        )
        (folder / file).write_text(text, encoding="utf-8")
    for kind, seed in (("tests", 1), ("tuning", 2)):
        for side, image in zip(("noisy", "gt"), pair(seed), strict=True):
            write_image(zoo.parents[1] / name / kind / f"cell_{side}.tif", image)
    tests = zoo.parents[1] / name / "tests.toml"
    tests.write_text(
        f"[[sets]]\n{SET}{FOLDERS.format(kind='tests')}pictures = true\n[tuning]\n{FOLDERS.format(kind='tuning')}",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["zoo", "card", name, "--tests", str(tests), "--quiet"])
    assert done.exit_code == 0, done.output
    return folder


def means(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["sets"][
        0
    ]["mean"]
    return found


def test_a_model_that_fills_up_stacks_is_held_against_interpolation_and_deconvolution(zoo: Path) -> None:
    folder = model(zoo, "tiny-isotropic", ISOTROPIC, "isotropic", isotropic)
    found = means(folder)
    assert {"input", "restored", "cubic interpolation", "Richardson-Lucy along Z"} < set(found)
    # A cosine of six samples a turn: cubic splines follow it better than straight lines.
    assert found["cubic interpolation"]["psnr"] > found["input"]["psnr"] + 3
    best = found["Richardson-Lucy along Z, best for each truth"]["psnr"]
    assert best >= found["Richardson-Lucy along Z"]["psnr"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "· 3D ·" in card  # what it is given, though its network sees slices
    assert "The input is interpolated linearly" in card
    assert "care-bridge restore cell.tif --model tiny-isotropic" in card


def test_a_truth_of_other_planes_than_the_factor_makes_is_refused(zoo: Path) -> None:
    def short(seed: int) -> tuple[Image, Image]:
        source, truth = isotropic(seed)
        return source, truth.replace(data=truth.data[:-1])

    with pytest.raises(AssertionError, match="24 planes are wanted"):
        model(zoo, "tiny-isotropic", ISOTROPIC, "isotropic", short)


def test_a_projection_is_held_against_the_maximum_its_filters_and_a_surface(zoo: Path) -> None:
    folder = model(zoo, "tiny-projection", PROJECTION, "project", projected)
    found = means(folder)
    wanted = {
        "input",
        "restored",
        "mean along Z",
        "maximum of the smoothed stack",
        "surface where contrast is highest",
    }
    assert wanted | {"Gaussian", "Gaussian, best for each truth"} < set(found)
    # One plane of eight holds the picture, so a surface finds it and the mean drowns it.
    assert found["surface where contrast is highest"]["psnr"] > found["mean along Z"]["psnr"] + 3
    for name in ("cover.png", "failure.png"):
        assert (folder / name).is_file()


def test_a_projection_is_predicted_by_its_name_and_restored_when_asked_for(zoo: Path, tmp_path: Path) -> None:
    model(zoo, "tiny-projection", PROJECTION, "project", projected)
    write_image(tmp_path / "stack.tif", projected(3)[0])
    for words in (["predict", "tiny-projection"], ["restore", "--model", "tiny-projection"]):
        out = tmp_path / words[0]
        done = CliRunner().invoke(app, [*words, str(tmp_path / "stack.tif"), "--out", str(out)])
        assert done.exit_code == 0, done.output
        (result,) = out.glob("*.tif")
        assert read_image(result).shape == (48, 48)


@pytest.fixture
def ensemble(zoo: Path) -> Path:
    """Two probabilistic members in one folder."""
    from care_bridge.config import write_config
    from care_bridge.training.folder import MEMBERS, save_model
    from care_bridge.training.unet import build

    folder = zoo.parent / "tiny-ensemble"
    config = CareConfig(probabilistic=True, unet_n_first=2, unet_n_depth=1, unet_kern_size=3)
    for number in (1, 2):
        save_model(folder / f"member_{number}", config, build(config, seed=number))
    write_config(folder, config.replace(provenance={MEMBERS: ["member_1", "member_2"]}))
    for file in ("model.toml", "datasheet.toml", "recipe.toml", "sample.tif"):
        shutil.copy(zoo / file, folder / file)
    # The means are what is held against it.
    truth = read_image(zoo / "sample.tif")
    write_image(folder / "sample_truth.tif", truth.replace(data=truth.data + (truth.data > 9)))
    text = (folder / "model.toml").read_text(encoding="utf-8")
    (folder / "model.toml").write_text(
        text.replace("denoising of blobs", "ensemble of blobs"), encoding="utf-8"
    )
    return folder


def test_an_ensemble_is_built_twice_to_the_same_bytes_with_a_bundle_of_its_means(
    ensemble: Path, tmp_path: Path
) -> None:
    from care_bridge.zoo.building import build_model
    from care_bridge.zoo.checking import different_parts

    one, two = (build_model(find("tiny-ensemble"), tmp_path / name) for name in ("one", "two"))
    assert different_parts(one.package, two.package) == []
    # Keras writes what holds operations to HDF5 and cannot read it again: "Unknown layer: 'Sqrt'" (3.15).
    held = zipfile.ZipFile(one.package).namelist()
    assert not [name for name in held if name.endswith(".h5")]
    assert {"tiny-ensemble.keras", "tiny-ensemble.onnx", "tiny-ensemble.zip"} < set(held)
    assert one.means is not None
    assert one.means.is_file()
    assert f"wrote {one.means}" in one.lines()
    hashes = find("tiny-ensemble").hashes()
    assert {"member_1/weights_best.h5", "member_2/weights_best.h5", "config.json"} < set(hashes)


def test_every_weights_file_of_an_ensemble_belongs_to_its_card(ensemble: Path) -> None:
    from care_bridge.zoo.checking import check_model
    from care_bridge.zoo.evaluation import evaluate_model, read_tests

    tests = ensemble.parents[1] / "ensemble.toml"
    pair = (Image((blobs(1) * 900).astype(np.uint16), "YX"), Image((blobs(4) * 900).astype(np.uint16), "YX"))
    for kind in ("tests", "tuning"):
        for side, image in zip(("noisy", "gt"), pair if kind == "tests" else pair[::-1], strict=True):
            moved = image.data + (kind == "tuning")
            write_image(tests.parent / kind / f"cell_{side}.tif", image.replace(data=moved.astype(np.uint16)))
    tests.write_text(
        f"[[sets]]\n{SET}{FOLDERS.format(kind='tests')}[tuning]\n{FOLDERS.format(kind='tuning')}",
        encoding="utf-8",
    )
    evaluate_model(find("tiny-ensemble"), read_tests(tests), cost=False)

    def belongs() -> str:
        rules = {rule.rule: rule.result for rule in check_model(find("tiny-ensemble"), quick=True).rules}
        return rules["Its weights are those that were measured"]

    assert belongs() == "passed"
    shutil.copy(ensemble / "member_1" / "weights_best.h5", ensemble / "member_2" / "weights_best.h5")
    assert belongs() == "failed"


def test_a_model_that_fills_up_without_a_factor_says_so(zoo: Path) -> None:
    from care_bridge.zoo.rivals import rivals_of

    model(zoo, "tiny-isotropic", ISOTROPIC, "isotropic", isotropic)
    told = json.loads((zoo.parent / "tiny-isotropic" / "config.json").read_text(encoding="utf-8"))
    told["care_bridge"]["factor"] = None
    (zoo.parent / "tiny-isotropic" / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError, match="says no factor"):
        rivals_of(find("tiny-isotropic"), [], tuned_on="nothing")
