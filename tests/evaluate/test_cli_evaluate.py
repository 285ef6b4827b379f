"""`care-bridge evaluate` on a real, tiny model; and what a person may get wrong."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.images import write_image


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_pair):
    root = tmp_path_factory.mktemp("data")
    for seed in range(2):
        for side, image in zip(("source", "target"), make_pair(seed, (64, 64)), strict=True):
            (root / side).mkdir(exist_ok=True)
            write_image(root / side / f"cell_{seed}.tif", image)
    return root


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 or "problems" in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = CareConfig("YX", unet_n_first=4, unet_kern_size=3, unet_n_depth=1)
    save_model(folder, config, build(config))
    return folder


@pytest.mark.tf
def test_report_and_json_are_written_and_an_untrained_net_is_answered_with_no(model, folders, tmp_path):
    result = run(
        model, folders / "source", folders / "target", "--out", tmp_path / "r.html", "--json", tmp_path / "r.json",
        "--train-source", folders / "source", "--train-target", folders / "target", "--line", "5,30,60,30", "--quiet",
        "--images", tmp_path / "images",
    )  # fmt: skip
    numbers = json.loads((tmp_path / "r.json").read_text())
    assert result.exit_code == (0 if numbers["good"] else 1), result.output
    assert numbers["images"] == ["cell_0.tif", "cell_1.tif"]
    assert numbers["profiles"]["macro"] == "makeLine(5, 30, 60, 30)"
    assert "SHA-256 of weights_best.h5" in numbers["settings"]
    assert numbers["verdict"] in result.stdout
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == ["cell_0.tif", "cell_1.tif"]
    assert (tmp_path / "r.html").stat().st_size > 10_000


@pytest.mark.tf
def test_a_model_whose_channels_do_not_fit_is_said(model, tmp_path, make_pair):
    for side, image in zip(("source", "target"), make_pair(0, (64, 64)), strict=True):
        write_image(tmp_path / f"{side}.tif", image.replace(data=np.stack([image.data] * 2), axes="CYX"))
    message = refused(model, tmp_path / "source.tif", tmp_path / "target.tif", "--out", tmp_path / "r.html")
    assert "takes 1 channel" in message
    assert not (tmp_path / "r.html").exists()


def test_no_model(folders):
    assert "no model folder at 'nowhere'" in refused("nowhere", folders / "source", folders / "target")


def test_no_images(folders, tmp_path):
    assert "no file or folder at" in refused("any model", tmp_path / "nothing", folders / "target")


def test_half_of_the_training_pairs(folders):
    message = refused(
        "any model", folders / "source", folders / "target", "--train-source", folders / "source"
    )
    assert "belong together" in message


def test_a_line_that_is_none(folders):
    message = refused("any model", folders / "source", folders / "target", "--line", "1,2,3")
    assert "must be four numbers" in message


def test_a_report_that_is_no_html(folders):
    assert "must end in .html" in refused(
        model, folders / "source", folders / "target", "--out", "report.pdf"
    )


def test_a_table_that_is_not_there_or_empty(folders, tmp_path):
    (tmp_path / "empty.csv").write_text("a,b\n")
    for name, words in (("none.csv", "cannot read the table"), ("empty.csv", "has no row")):
        assert words in refused(
            "any model", folders / "source", folders / "target", "--sweep", tmp_path / name
        )


def trained_on(folder, root, model):
    """The model, with a config that says it was trained on the images of `root`."""
    from care_bridge.config import read_config
    from care_bridge.files import sha256
    from care_bridge.training.folder import load_model, save_model

    made_of = {
        side: {file.name: sha256(file) for file in (root / side).iterdir()} for side in ("source", "target")
    }
    opened = load_model(model)
    config = read_config(model).replace(provenance={"data": made_of})
    save_model(folder, config, opened.network)
    return folder


@pytest.mark.tf
def test_images_that_the_model_was_trained_on_get_no_verdict_whatever_they_are_called(
    model, folders, tmp_path, make_pair
):
    known = trained_on(tmp_path / "trained", folders, model)
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "renamed.tif").write_bytes((folders / side / "cell_0.tif").read_bytes())
    for side, image in zip(("source", "target"), make_pair(7, (64, 64)), strict=True):
        write_image(tmp_path / side / "unseen.tif", image)
    result = run(
        known, tmp_path / "source", tmp_path / "target", "--out", tmp_path / "r.html", "--json", tmp_path / "r.json",
        "--quiet", "--no-baselines",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "No verdict: 1 of 2 images were in this model's training (renamed.tif;" in result.stdout
    numbers = json.loads((tmp_path / "r.json").read_text())
    assert not numbers["good"]
    assert numbers["trained_on"] == ["renamed.tif"]
    page = (tmp_path / "r.html").read_text()
    assert page.index("No verdict") < page.index("How good</")


@pytest.mark.tf
def test_images_that_are_named_as_training_images_get_no_verdict(model, folders, tmp_path):
    result = run(
        model, folders / "source", folders / "target", "--out", tmp_path / "r.html", "--quiet", "--no-baselines",
        "--train-source", folders / "source", "--train-target", folders / "target",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "No verdict: all 2 images were in this model's training" in result.stdout


def test_a_source_that_is_its_own_target_is_refused(folders, tmp_path):
    same = refused("any model", folders / "source", folders / "source")
    assert "source and target are the same folder" in same
    (tmp_path / "link").symlink_to(folders / "source")
    assert "are the same folder" in refused("any model", folders / "source", tmp_path / "link")
    one = folders / "source" / "cell_0.tif"
    assert "are the same file" in refused("any model", one, one)
    (tmp_path / "copy.tif").write_bytes(one.read_bytes())
    assert "hold the same pixels" in refused("any model", one, tmp_path / "copy.tif")
