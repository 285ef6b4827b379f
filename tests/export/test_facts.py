"""What a package says about its model: known, measured or stated by a person, and nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from care_bridge.images import Image, write_image
from care_bridge.page import NOT_FOR_QUANTIFICATION

pytestmark = pytest.mark.tf

CARD: dict[str, Any] = {
    "name": "CARE denoising of waves - test - 2D",
    "description": "Denoises waves; made by a test.",
    "license": "CC-BY-4.0",
    "modality": "fluorescence-light-microscopy",
    "content": "cells",
    "authors": [{"name": "Jane Doe", "orcid": "0000-0002-1825-0097", "github_user": "offline-jane"}],
    "packaged_by": [{"name": "Jane Doe"}],
    "version": "1.0.0",
    "version_comment": "first",
    "git_repo": "https://example.com/waves",
    "uploader": {"email": "jane@example.com"},
    "training_data": {"id": "wavy-waves", "source": "https://example.com/waves-data"},
    "funded_by": "nobody",
    "memory_requirements_training": "1 GB",
    "environmental_impact": {
        "hardware_type": "laptop",
        "cloud_provider": "none",
        "compute_region": "none",
        "co2_emitted": 0.001,
    },
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `care-bridge train` leaves it: two epochs of two steps."""
    from care_bridge.config import CareConfig
    from care_bridge.training.data import data_from_folders
    from care_bridge.training.fit import train

    root = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(0)
    for number in range(2):
        clean = 500 + 400 * np.sin(np.arange(96) / (5 + number))[:, None] * np.cos(np.arange(96) / 9)
        for name, data in (("high", clean), ("low", random.poisson(clean))):
            (root / name).mkdir(exist_ok=True)
            write_image(root / name / f"{number}.tif", Image(data.astype(np.float32), "YX"))
    data = data_from_folders(root / "low", root / "high", patch_size=(32, 32), n_patches_per_image=12)
    config = CareConfig(
        unet_n_first=8,
        unet_kern_size=3,
        train_epochs=2,
        train_steps_per_epoch=2,
        train_batch_size=4,
        provenance={"data": data.provenance},  # as the command writes it
    )
    train(config, data.training, data.validation, root / "waves")
    return root / "waves"


@pytest.fixture(scope="session")
def packaged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("bioimageio.core")
    from care_bridge.export.bioimageio import write_package

    return write_package(trained, tmp_path_factory.mktemp("facts"), metadata=CARD)


@pytest.fixture(scope="session")
def rdf(packaged: Any) -> dict[str, Any]:
    with zipfile.ZipFile(packaged.path) as archive:
        return dict(yaml.safe_load(archive.read("rdf.yaml")))


def test_a_trained_model_with_a_full_model_toml_is_complete_enough(packaged: Any) -> None:
    assert packaged.completeness >= 0.8
    assert [line.split(":")[0] for line in packaged.to_fill] == ["parent"]


def test_a_model_toml_filled_as_the_examples_say_is_complete_enough(trained: Path, tmp_path: Path) -> None:
    from care_bridge.export.bioimageio import write_package
    from care_bridge.export.metadata import EXAMPLE, check_card, read_card

    example = Path(__file__).parents[2] / "model_zoo" / "example.toml"
    # The one that the error message shows fills what the one to copy fills, and it is a model.toml.
    assert set(tomllib.loads(EXAMPLE)) == set(tomllib.loads(example.read_text())) - {"cite"}
    assert check_card(tomllib.loads(EXAMPLE)).more["version"] == read_card(example).more["version"]
    assert write_package(trained, tmp_path, metadata=example).completeness >= 0.8


def test_a_mistyped_key_of_model_toml_is_named() -> None:
    from care_bridge.errors import InputError
    from care_bridge.export.metadata import check_card

    with pytest.raises(InputError, match=r"funded_from: no key of model\.toml; funded_by is"):
        check_card({**CARD, "funded_from": "agency"})


def test_training_is_told_by_its_own_record(rdf: dict[str, Any], trained: Path) -> None:
    from care_bridge.training.history import read_history

    rows = read_history(trained)
    told = rdf["config"]["bioimageio"]["training"]
    assert told["training_epochs"] == 2
    assert told["training_batch_size"] == 4
    assert told["loss_function"] == "mae"
    assert told["training_duration"] == pytest.approx(sum(row["seconds"] for row in rows) / 3600, abs=1e-4)
    assert rdf["config"]["bioimageio"]["environmental_impact"]["hours_used"] == told["training_duration"]
    assert "patches of 32x32 pixels" in told["training_preprocessing"]
    own = rdf["config"]["care_bridge"]["training"]
    assert own["seed"] == 0
    assert sorted(line.split("  ")[1] for line in own["source_sha256"]) == ["0.tif", "1.tif"]


def test_the_evaluation_is_that_of_the_kept_weights_and_says_so(rdf: dict[str, Any], trained: Path) -> None:
    from care_bridge.training.history import read_history

    best = min(read_history(trained), key=lambda row: row["val_loss"])
    (evaluation,) = rdf["config"]["bioimageio"]["evaluations"]
    assert evaluation["dataset_role"] == "validation"
    assert evaluation["sample_count"] > 0
    assert evaluation["dataset_source"] == CARD["training_data"]["source"]
    assert evaluation["results"][0][0] == pytest.approx(best["val_mae"], rel=1e-3)


def test_cost_is_measured_and_names_size_and_machine(rdf: dict[str, Any]) -> None:
    block = rdf["config"]["bioimageio"]
    assert "256x256 pixels (fastest of 3, ONNX Runtime" in block["inference_time"]
    assert "CPU cores" in block["inference_time"]


def test_a_cost_that_cannot_be_measured_is_not_said(tmp_path: Path) -> None:
    from care_bridge.export.cost import inference_cost

    assert inference_cost(tmp_path / "missing.onnx", tmp_path / "missing.npy") == {}


def test_what_nobody_said_is_left_out_and_asked_for(minimal: Any) -> None:
    asked = {line.split(":")[0] for line in minimal.to_fill}
    assert {"git_repo", "funded_by", "training.training_duration", "evaluations", "version"} <= asked
    with zipfile.ZipFile(minimal.path) as archive:
        text = archive.read("rdf.yaml").decode()
    block = yaml.safe_load(text)["config"]["bioimageio"]
    assert "not stated" not in text
    unknown = {"funded_by", "environmental_impact", "evaluations", "memory_requirements_training"}
    assert not unknown & set(block)
    assert "training_duration" not in block["training"]
    assert "version_comment" not in yaml.safe_load(text)


def test_the_command_prints_completeness_and_what_is_left_to_fill(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from care_bridge.cli import app
    from care_bridge.export import bioimageio

    written = bioimageio.Package(Path("p.zip"), 0.734, ("git_repo: address of the code",))
    monkeypatch.setattr(bioimageio, "write_package", lambda *_, **__: written)
    said = CliRunner().invoke(app, ["export", str(tiny), "--format", "bioimageio"])
    assert "completeness 0.73" in said.stdout
    assert "  git_repo: address of the code" in said.stdout


def test_the_tolerance_is_ten_times_what_the_formats_differ_by() -> None:
    from care_bridge.export.facts import tolerance

    output = np.linspace(0, 2, 100, dtype=np.float32)
    assert tolerance(output, [output, output + np.float32(3e-5)])["absolute_tolerance"] == pytest.approx(
        3e-4, rel=0.05
    )
    # Nothing differs: 2e-5 of a range of 2.
    assert tolerance(output, [output])["absolute_tolerance"] == pytest.approx(4e-5)
    # The zoo takes no more than a hundredth of the maximum.
    assert tolerance(output, [output + 1])["absolute_tolerance"] == pytest.approx(0.02)


def test_a_tolerance_of_one_digit_stays_a_number_in_a_package() -> None:
    from care_bridge.export.zoo_spec import as_yaml, saved_by_spec

    # As bioimageio.spec writes 3e-05; PyYAML alone took it for a string.
    found = saved_by_spec("absolute_tolerance: 3e-05\nname: '3e-05'\nsha256: 3e05ab\n")
    assert found == {"absolute_tolerance": 3e-5, "name": "3e-05", "sha256": "3e05ab"}
    assert yaml.safe_load(as_yaml(found)) == found


def test_a_package_s_tolerance_is_tighter_than_the_zoo_s(rdf: dict[str, Any]) -> None:
    (entry,) = rdf["config"]["bioimageio"]["reproducibility_tolerance"]
    assert entry["relative_tolerance"] == 0
    assert 0 < entry["absolute_tolerance"] < 1e-3


def test_the_warning_about_quantification_is_in_the_readme_and_the_description(
    packaged: Any, rdf: dict[str, Any]
) -> None:
    with zipfile.ZipFile(packaged.path) as archive:
        assert NOT_FOR_QUANTIFICATION in archive.read("README.md").decode()
        inside = next(name for name in archive.namelist() if name.endswith(".zip"))
        with zipfile.ZipFile(io.BytesIO(archive.read(inside))) as bundle:
            meta = json.loads(bundle.read("meta.json"))
        assert meta["care_bridge"]["limitations"] == NOT_FOR_QUANTIFICATION
    assert NOT_FOR_QUANTIFICATION in rdf["config"]["bioimageio"]["bias_risks_limitations"]["limitations"]


def test_a_ground_truth_is_an_evaluation_of_unknown_role(trained: Path) -> None:
    from care_bridge.export import facts
    from care_bridge.export.bioimageio import _results
    from care_bridge.export.metadata import check_card
    from care_bridge.export.source import open_source

    truth = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    noisy = truth + np.float32(0.1)
    source = open_source(trained)
    card = check_card(CARD)
    (found,) = _results(card, source, [], Image(truth[0], "YXC"), noisy, truth)
    (entry,) = facts.named([found], card)
    assert entry["dataset_role"] == "unknown"
    assert entry["metrics"] == ["PSNR"]
    # Without the data set's id and address the format has no place for it.
    more = {key: value for key, value in card.more.items() if key != "training_data"}
    assert facts.named([found], dataclasses.replace(card, more=more)) == []


def test_a_table_of_model_toml_that_is_none_is_refused() -> None:
    from care_bridge.errors import InputError
    from care_bridge.export.metadata import check_card

    with pytest.raises(InputError, match=r"(?s)training: give a table.*test_image_role: one of"):
        check_card({**CARD, "training": "long", "test_image_role": "mine"})
