"""Where the noise of an image is another than a model was trained for, each command that takes both says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.images import Image, write_image
from care_bridge.model_files import stated_noise
from care_bridge.model_names import named_models
from care_bridge.noise import NoiseRange, measure_channels, measure_some, unlike

CAMERA = {"step": "camera", "photons": [5, 200], "bright_photons": [200, 2000], "bright_share": 0.15,
          "neighbours": [0.0, 0.8], "neighbours_share": 0.0, "rows": [0.05, 0.5], "rows_share": 0.3}  # fmt: skip


def noisy(*, shared: bool) -> Image:
    """Spots with 40 photons at the bright end."""
    random = np.random.default_rng(0)
    field = np.zeros((256, 256))
    field[tuple(random.integers(0, 256, (2, 60)))] = 1
    field = gaussian_filter(field, 4)
    clean = field / field.max() * 40 + 3
    noise = random.poisson(clean) - clean
    if shared:
        noise = gaussian_filter(noise, 0.8) * 1.6
    return Image(np.asarray(100 + 10 * (clean + noise), np.float32), "YX")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose recipe says what noise it knows; images of both kinds."""
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("noise")
    config = CareConfig(unet_n_first=2, unet_n_depth=1, unet_kern_size=3)
    network = build(config)
    save_model(folder / "unknown", config, network)
    recipe = {"name": "some", "sets": [{"name": "camera", "steps": [CAMERA]}]}
    save_model(folder / "white", config.replace(provenance={"data": {"recipe": recipe}}), network)
    for kind in ("white", "shared"):
        write_image(folder / f"{kind}.tif", noisy(shared=kind == "shared"))
        write_image(folder / "truth" / f"{kind}.tif", noisy(shared=kind != "shared"))
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    return done.exit_code, done.stdout, done.stderr


SAID = "its neighbouring pixels share their noise (coefficient "


# ---- what is known


@pytest.mark.tf
def test_the_noise_of_a_recipe_is_from_none_to_the_most(made: Path) -> None:
    # A bright image has up to 2000 photons; no image's neighbours share noise, and 3 of 10 have rows.
    assert stated_noise(made / "white") == NoiseRange((5.0, 2000.0), (0.0, 0.0), (0.0, 0.5))
    assert stated_noise(made / "unknown") == NoiseRange()


def test_shipped_models_say_what_they_were_trained_for() -> None:
    known = {name: stated_noise(folder) for name, folder in named_models().items()}
    assert known["fluorescence-denoise-2d"] == NoiseRange((5.0, 2000.0), (0.0, 0.0), (0.0, 0.0))
    correlated = known["fluorescence-denoise-2d-correlated"]
    assert correlated.correlation == (0.0, 0.8)
    assert correlated.rows == (0.0, 0.5)


def test_a_data_sheet_says_what_config_json_leaves_open(tmp_path: Path) -> None:
    noise = {"photons": [7, 70]}
    for name, said in (("white", (0.0, 0.1)), ("any", None)):
        folder = tmp_path / name
        folder.mkdir()
        values: dict[str, Any] = {"axes": "YXC", "n_channel_in": 1, "n_channel_out": 1}
        values["care_bridge"] = {"provenance": {"data": {"noise": noise}}}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        sheet = f'noise = "{name}"\nphotons = [1, 9]\nneighbour_correlation = [0.0, 0.1]\n'
        (folder / "datasheet.toml").write_text(sheet, encoding="utf-8")
        assert stated_noise(folder) == NoiseRange(photons=(7.0, 70.0), correlation=said)


def test_training_on_pairs_writes_down_the_noise_of_its_sources(made: Path, tmp_path: Path) -> None:
    from care_bridge.training.data import data_from_folders

    for name in ("a", "b"):
        write_image(tmp_path / "source" / f"{name}.tif", noisy(shared=True))
        write_image(tmp_path / "target" / f"{name}.tif", noisy(shared=False))
    data = data_from_folders(tmp_path / "source", tmp_path / "target", patch_size=(64, 64))
    measured = NoiseRange.of(measure_channels(noisy(shared=True)))
    assert data.provenance["noise"] == measured.as_dict()
    for kind, known in (("CARE", NoiseRange.from_dict(measured.as_dict())), ("IsotropicCARE", NoiseRange())):
        folder = tmp_path / kind
        folder.mkdir()
        values: dict[str, Any] = {"axes": "YXC", "n_channel_in": 1, "n_channel_out": 1}
        values["care_bridge"] = {"provenance": {"data": data.provenance}, "class": kind}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        # An isotropic network's sources were blurred on purpose: their noise is not that of the stacks it restores.
        assert stated_noise(folder) == known


@pytest.mark.parametrize(
    ("count", "asked"), [(0, []), (1, [0]), (3, [0, 1, 2]), (15, [0, 2, 4, 6, 8, 10, 12, 14])]
)
def test_of_many_images_eight_evenly_spread_are_measured(count: int, asked: list[int]) -> None:
    seen: list[int] = []

    def image(number: int) -> Image:
        seen.append(number)
        return Image(np.zeros((2, 8, 8), np.float32), "CYX")

    assert len(measure_some(count, image)) == 2 * len(asked)
    assert seen == asked


@pytest.mark.tf
def test_a_bundle_knows_what_its_model_knew_wherever_it_lies(made: Path, tmp_path: Path) -> None:
    from care_bridge.export.formats import export_model

    export_model(made / "white", format="fiji", out=tmp_path / "white.zip")
    assert stated_noise(tmp_path / "white.zip") == stated_noise(made / "white")


def test_each_channel_is_measured_and_named() -> None:
    image = Image(np.stack([noisy(shared=False).data, noisy(shared=True).data]), "CYX")
    said = unlike(image, NoiseRange(correlation=(0.0, 0.1)))
    assert said.startswith("in channel 1 its neighbouring pixels share")
    assert ";" not in said


# ---- what is said


@pytest.mark.tf
def test_predict_says_it_of_the_image_alone_that_is_unlike(made: Path, tmp_path: Path) -> None:
    images = (made / "white.tif", made / "shared.tif")
    code, _, said = run("predict", made / "white", *images, "--out", tmp_path / "a")
    assert code == 0, said
    assert f"shared.tif: {SAID}" in said
    assert "white.tif: " not in said
    code, _, said = run("predict", made / "unknown", *images, "--out", tmp_path / "b")
    assert code == 0, said
    assert said.startswith("unknown: whether the model was trained on such images cannot be known")
    assert "shared.tif" not in said
    code, _, said = run("predict", made / "white", *images, "--out", tmp_path / "c", "--quiet")
    assert (code, said) == (0, "")


@pytest.mark.tf
def test_advise_says_it_and_gives_the_measured_noise(made: Path) -> None:
    code, printed, _ = run("advise", made / "white", made / "shared.tif", "--no-compare")
    assert code == 0
    assert f"Note: {SAID}" in printed
    assert "Noise: about " in printed
    code, printed, _ = run("advise", made / "unknown", made / "shared.tif", "--no-compare", "--json")
    found = json.loads(printed)
    assert found["noise"][0]["correlated"] is True
    assert not any(SAID in note for note in found["notes"])


@pytest.mark.tf
def test_evaluate_warns_of_it_and_lists_the_noise_of_every_source(made: Path, tmp_path: Path) -> None:
    report, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    _, _, said = run(
        "evaluate", made / "white", made / "shared.tif", made / "truth" / "shared.tif", "--no-baselines",
        "--applications", 1, "--out", report, "--json", numbers,
    )  # fmt: skip
    assert SAID in said
    assert SAID in report.read_text(encoding="utf-8")
    noise = json.loads(numbers.read_text(encoding="utf-8"))["noise"]
    assert [(one["image"], one["channel"], one["correlated"]) for one in noise] == [("shared.tif", 0, True)]
