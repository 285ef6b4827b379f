"""Models of the zoo: built twice, held against their cards, staged."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.guard import GUARD, read_familiar, write_familiar
from care_bridge.zoo import find

pytestmark = pytest.mark.tf

NAME = "tiny-denoise-2d"


def rules(folder: Path) -> dict[str, str]:
    from care_bridge.zoo.checking import check_model

    return {rule.rule: rule.result for rule in check_model(find(folder), quick=True).rules}


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def _of_other_weights(folder: Path) -> None:
    known = read_familiar(folder)
    assert known is not None
    write_familiar(folder, dataclasses.replace(known, weights=("0" * 64,)))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda folder: (folder / GUARD).unlink(), "failed"),
        (lambda folder: (folder / GUARD).write_bytes(b"PK"), "failed"),
        (_of_other_weights, "failed"),
        (lambda folder: None, "passed"),
    ],
    ids=["missing", "damaged", "of other weights", "as it is"],
)
def test_a_guard_that_does_not_belong_to_the_weights_is_found(zoo: Path, change, rule) -> None:
    change(zoo)
    assert rules(zoo)["Its guard is of these weights"] == rule


def test_a_complete_model_passes_every_rule_of_its_folder(zoo: Path) -> None:
    assert set(rules(zoo).values()) == {"passed"}


def other_weights(folder: Path) -> None:
    from care_bridge.config import read_config
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = read_config(folder)
    save_model(folder, config, build(config, seed=9))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (other_weights, "Its weights are those that were measured"),
        (lambda at: replace(at / "README.md", "dB", "dB!"), "Its card says what was measured"),
        (
            lambda at: replace(at / "datasheet.toml", "limits = [", 'limits = ["No", '),
            "Its card says what was measured",
        ),
        (lambda at: replace(at / "datasheet.toml", 'class = "drawn"\n', ""), "Its data sheet is complete"),
        (lambda at: replace(at / "datasheet.toml", '"drawn"', '"B"'), "Its data sheet is complete"),
        (lambda at: (at / "datasheet.toml").unlink(), "Its data sheet is complete"),
        (
            lambda at: replace(at / "model.toml", "The care_bridge authors", "Jane Doe"),
            "Its card says who made it",
        ),
        (lambda at: replace(at / "model.toml", "timestamp", "version_comments"), "Its card is complete"),
        (lambda at: (at / "recipe.toml").unlink(), "Its recipe can be run"),
        (lambda at: replace(at / "recipe.toml", '"train"', '"rm"'), "Its recipe can be run"),
        (lambda at: (at / "evaluation.json").unlink(), "It was measured on images it never saw"),
        (lambda at: (at / "failure.png").unlink(), "It is shown, failures too"),
        (lambda at: (at / "big.png").write_bytes(bytes(7 << 20)), "Its folder is small"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_belong_to_the_card_is_found(
    zoo: Path, change: Callable[[Path], None], rule: str
) -> None:
    change(zoo)
    assert rules(zoo)[rule] == "failed"


def test_a_model_that_is_not_in_order_is_not_staged(zoo: Path, tmp_path: Path) -> None:
    replace(zoo / "datasheet.toml", 'class = "drawn"\n', "")
    done = CliRunner().invoke(app, ["zoo", "stage", NAME, "--out", str(tmp_path / "staged")])
    assert done.exit_code == 2
    assert "no licence class is given" in done.stderr
    assert not (tmp_path / "staged").exists()


def test_a_test_image_among_the_training_images_is_refused(zoo: Path, made: Path) -> None:
    from care_bridge.files import sha256
    from care_bridge.zoo.evaluation import evaluate_model, read_tests

    seen = sha256(made / "tests" / "cell2_noisy.tif")
    replace(zoo / "datasheet.toml", 'class = "drawn"\n', f'class = "drawn"\nsha256 = ["{seen}  cell2.tif"]\n')
    assert rules(zoo)["It was tested on images it never saw"] == "failed"
    with pytest.raises(InputError, match="was seen in training"):
        evaluate_model(find(zoo), read_tests(made / "tests.toml"))


def test_a_card_shows_figures_failures_and_the_warning(zoo: Path) -> None:
    card = (zoo / "README.md").read_text(encoding="utf-8")
    found = json.loads((zoo / "evaluation.json").read_text(encoding="utf-8"))
    assert "not for intensity-based quantification" in card
    assert "![the image with the least gain](failure.png)" in card
    assert f"| **restored** | {found['sets'][0]['mean']['restored']['psnr']:.2f} |" in card
    assert "| Gaussian, best for each truth |" in card
    assert found["hashes"]["weights_best.h5"] in card
    assert "dB below" in card  # an untrained network loses, and that is said


def test_a_model_of_stacks_is_held_against_a_gaussian_that_looks_along_z_too(
    zoo: Path, tmp_path: Path
) -> None:
    import numpy as np

    from care_bridge.config import CareConfig
    from care_bridge.images import Image, write_image
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build
    from care_bridge.zoo.entry import read_entry
    from care_bridge.zoo.evaluation import evaluate_model, read_tests
    from tests.zoo.conftest import blobs

    shutil.copytree(zoo, folder := tmp_path / "tiny-denoise-3d")
    save_model(
        folder, config := CareConfig("ZYX", unet_n_first=2, unet_n_depth=1, unet_kern_size=3), build(config)
    )
    for kind, seed in (("tests", 1), ("tuning", 2)):
        # The same plane six times: what lies above and below is all that is known of a pixel's noise.
        clean = np.broadcast_to(blobs(seed, 48), (6, 48, 48))
        noisy = np.random.default_rng(seed).poisson(clean * 20 + 3).astype(np.uint16)
        write_image(tmp_path / kind / "cell_noisy.tif", Image(noisy, "ZYX"))
        write_image(tmp_path / kind / "cell_gt.tif", Image((clean * 1000).astype(np.uint16), "ZYX"))
    told = """\
    images = "{kind}"
    truths = "{kind}"
    image_suffix = "_noisy"
    truth_suffix = "_gt"
    what = "one drawn stack"
    """
    tests = tmp_path / "tests.toml"
    said = 'name = "Blobs"\nsource = "https://github.com/care-bridge/care-bridge"\nlicence = "MIT"\nclass = "drawn"\n'
    tests.write_text(
        f"[[sets]]\n{said}{told.format(kind='tests')}\n[tuning]\n{told.format(kind='tuning')}",
        encoding="utf-8",
    )
    found = evaluate_model(read_entry(folder), read_tests(tests), cost=False).evaluation
    means = found["sets"][0]["mean"]
    flat, stacked = (means[f"Gaussian{how}, best for each truth"]["psnr"] for how in ("", " in 3-D"))
    assert stacked > flat + 1
    assert "one in the plane and one along Z" in found["tuned"]
    assert "| Gaussian in 3-D, best for each truth |" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def built(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from care_bridge.zoo.building import build_model

    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder in folders:
        build_model(find(made / "zoo" / NAME), folder)
    return folders


def test_built_twice_every_file_is_the_same_bytes(built: tuple[Path, Path]) -> None:
    one, two = ({file.name: file.read_bytes() for file in (at / NAME).iterdir()} for at in built)
    assert {f"{NAME}.fiji.zip", f"{NAME}.onnx", f"{NAME}.bioimageio.zip", "SHA256SUMS"} <= set(one)
    assert one == two


def test_a_package_is_known_again_and_one_edited_by_hand_is_not(
    zoo: Path, built: tuple[Path, Path], tmp_path: Path
) -> None:
    from care_bridge.zoo.checking import check_package_of_zoo

    package = built[0] / NAME / f"{NAME}.bioimageio.zip"
    assert check_package_of_zoo(package).accepted
    edited = tmp_path / "edited.zip"
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(edited, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"Takes white noise", b"Takes all noise"))
    done = CliRunner().invoke(app, ["zoo", "check", str(edited)])
    assert done.exit_code == 1
    assert "differ: " in done.stdout
    assert "rdf.yaml" in done.stdout


def test_a_staged_model_is_what_the_upload_wants(zoo: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["zoo", "stage", NAME, "--out", str(tmp_path / "staged")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "staged" / "package" / "rdf.yaml").is_file()
    assert "Sign in at https://bioimage.io" in (tmp_path / "staged" / "LAST-STEPS.md").read_text(
        encoding="utf-8"
    )
    again = CliRunner().invoke(app, ["zoo", "stage", NAME, "--out", str(tmp_path / "staged")])
    assert again.exit_code == 2


def test_a_recipe_is_filled_and_needs_its_images(zoo: Path, tmp_path: Path) -> None:
    from care_bridge.zoo.recipe import filled, read_recipe, train_again

    step = filled(read_recipe(zoo), data="pairs", out="new")[0]
    assert step[:5] == ("train", "pairs/noisy", "pairs/clean", "--out", "new")
    with pytest.raises(InputError, match="DATA=FOLDER"):
        train_again(zoo, data=None, out=tmp_path, say=print)


def test_bundles_go_into_a_fiji_and_out_again_and_others_files_stay(zoo: Path, tmp_path: Path) -> None:
    fiji = tmp_path / "Fiji.app"
    for name in ("jars", "plugins"):
        (fiji / name).mkdir(parents=True)
    bundle = fiji / "models" / "CARE_bridge" / f"{NAME}.zip"
    for _ in range(2):
        done = CliRunner().invoke(app, ["macros", "install", str(fiji), "--models", "zoo"])
        assert done.exit_code == 0, done.output
        assert zipfile.is_zipfile(bundle)
    assert CliRunner().invoke(app, ["macros", "install", str(fiji)]).exit_code == 0
    assert bundle.is_file()
    assert CliRunner().invoke(app, ["macros", "uninstall", str(fiji)]).exit_code == 0
    assert not bundle.parent.exists()
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"somebody's")
    done = CliRunner().invoke(app, ["macros", "install", str(fiji), "--models", "zoo"])
    assert done.exit_code == 2
    assert "is not ours" in done.stderr
    assert bundle.read_bytes() == b"somebody's"


def test_a_page_shows_every_model_before_and_after(zoo: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["zoo", "index", "--out", str(tmp_path / "models.html")])
    assert done.exit_code == 0, done.output
    html = (tmp_path / "models.html").read_text(encoding="utf-8")
    assert html.count('class="slider"') == 2
    assert f"care-bridge predict {NAME} cell.tif" in html
    assert "not for intensity-based quantification" in html
    assert "https://cdn" not in html


def test_pairs_of_one_folder_are_taken_by_their_pattern_and_tuning_never_on_them(
    made: Path, tmp_path: Path
) -> None:
    from care_bridge.zoo.evaluation import evaluate_model, read_tests

    told = (made / "tests.toml").read_text(encoding="utf-8").replace('"tests"', f'"{made / "tests"}"')
    told = told.replace("pictures = true", 'pattern = "cell2*"')
    tests = tmp_path / "tests.toml"
    tests.write_text(told.replace('"tuning"', f'"{made / "tuning"}"'), encoding="utf-8")
    assert [pair.name for pair in read_tests(tests).sets[0].pairs] == ["cell2_noisy.tif"]
    tests.write_text(told.replace('"tuning"', f'"{made / "tests"}"'), encoding="utf-8")
    with pytest.raises(InputError, match="would be tuned on the test images"):
        evaluate_model(find(made / "zoo" / NAME), read_tests(tests))
    tests.write_text(told.replace('class = "A"', 'class = "C"\npictures = true'), encoding="utf-8")
    with pytest.raises(InputError, match="class 'C' are not shown on a card"):
        read_tests(tests)
