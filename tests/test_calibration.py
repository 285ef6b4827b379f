"""Intervals that hold what they say: one temperature, found after training, the same in every reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.intervals import Mixture, disagreement, temperature_of
from care_bridge.opening import open_network, open_predictor

from .export.conftest import CARD

run = CliRunner().invoke
SMALL = {"unet_n_first": 4, "unet_kern_size": 3, "unet_n_depth": 1}


# ---- the number


@pytest.mark.parametrize("wrong", [0.25, 1.0, 3.0])
def test_the_temperature_of_scales_that_are_wrong_by_a_factor_is_that_factor(wrong: float) -> None:
    random = np.random.default_rng(1)
    means, scales = random.normal(size=(1, 40_000)), random.uniform(0.5, 2, (1, 40_000))
    truth = random.laplace(means[0], wrong * scales[0])
    found = temperature_of(truth, Mixture(means, scales))
    # The 90 % quantile of 40,000 draws is known to about 1 %.
    assert found == pytest.approx(wrong, rel=0.03)


def test_the_temperature_of_an_ensemble_is_that_of_its_mixture() -> None:
    random = np.random.default_rng(2)
    mixture = Mixture(random.normal(size=(3, 20_000)), random.uniform(0.3, 1, (3, 20_000)))
    truth = np.array(mixture.quantile(0.5))  # shape alone
    for number, share in enumerate(random.uniform(0.001, 0.999, 50)):
        truth[number::50] = mixture.stretched(2.0).quantile(float(share))[number::50]
    found = temperature_of(truth, mixture)
    low, high = mixture.stretched(found).interval(0.9)
    assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(0.9, abs=1e-3)
    assert found == pytest.approx(2.0, rel=0.1)


def test_stretching_multiplies_the_deviation_and_leaves_mean_and_disagreement() -> None:
    random = np.random.default_rng(3)
    mixture = Mixture(random.normal(size=(4, 50)), random.uniform(0.3, 1, (4, 50)))
    wider = mixture.stretched(1.7)
    np.testing.assert_allclose(wider.mean, mixture.mean)
    np.testing.assert_allclose(wider.variance, 1.7**2 * mixture.variance)
    np.testing.assert_allclose(
        disagreement(wider.means, wider.scales), disagreement(mixture.means, mixture.scales), atol=1e-4
    )


def test_no_pixel_has_no_temperature() -> None:
    assert np.isnan(temperature_of(np.empty(0), Mixture(np.empty((1, 0)), np.empty((1, 0)))))


@pytest.mark.parametrize("value", [0, -1, "nan", "hot"])
def test_a_temperature_that_is_none_is_said(tmp_path: Path, value: object) -> None:
    write_config(tmp_path, CareConfig(axes="YX", probabilistic=True, temperature=2.0))
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["care_bridge"]["temperature"] == 2.0
    content["care_bridge"]["temperature"] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="temperature"):
        read_config(tmp_path)


def test_only_networks_with_widths_have_one() -> None:
    with pytest.raises(InputError, match="this one has none"):
        CareConfig(axes="YX", temperature=2.0)
    assert "temperature" not in CareConfig(axes="YX", probabilistic=True).to_json()["care_bridge"]


# ---- the network


@pytest.mark.tf
@pytest.mark.parametrize(
    ("how", "shape"),
    [
        ({"axes": "YX"}, (1, 8, 8, 1)),
        ({"axes": "ZYX"}, (1, 4, 8, 8, 1)),
        ({"axes": "YX", "architecture": "fast"}, (1, 16, 16, 1)),
        ({"axes": "ZYX", "kind": "ProjectionCARE", "proj_n_depth": 1}, (1, 4, 8, 8, 1)),
        ({"axes": "YX", "n_channel_in": 2, "n_channel_out": 2}, (1, 8, 8, 2)),
    ],
    ids=["2-D", "3-D", "fast", "projection", "two channels"],
)
def test_scales_of_every_kind_are_multiplied_and_means_are_the_same_bits(how, shape) -> None:
    from care_bridge.training.unet import build, mean_of

    config = CareConfig(**{**SMALL, **how}, probabilistic=True, seed=1)
    plain, warm = build(config), build(config.replace(temperature=1.5))
    tensor = np.random.default_rng(0).random(shape).astype(np.float32)
    half = config.n_channel_out
    before, after = np.asarray(plain(tensor)), np.asarray(warm(tensor))
    np.testing.assert_array_equal(after[..., :half], before[..., :half])
    np.testing.assert_allclose(after[..., half:], 1.5 * before[..., half:], rtol=1e-6)
    assert [one.shape for one in plain.weights] == [one.shape for one in warm.weights]
    other = build(config, seed=2)
    single, mixed = (
        np.asarray(mean_of([plain, other], probabilistic=True, temperature=factor)(tensor))
        for factor in (None, 1.5)
    )
    np.testing.assert_array_equal(mixed[..., :half], single[..., :half])
    np.testing.assert_allclose(mixed[..., half:], 1.5 * single[..., half:], rtol=1e-6)


@pytest.mark.tf
def test_every_reader_has_the_temperature_in_its_widths(tmp_path: Path) -> None:
    from care_bridge.export.bioimageio import write_package
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(**SMALL, axes="YX", probabilistic=True, seed=1)
    tensor = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)
    cold = np.asarray(build(config)(tensor))
    folder = tmp_path / "model"
    save_model(folder, config.replace(temperature=1.5), build(config))
    written = {
        "keras": folder,
        "tensorflow": write_bundle(folder, tmp_path / "fiji.zip", how_to=False),
        "onnx": write_onnx(folder, tmp_path / "model.onnx"),
    }
    package = write_package(folder, tmp_path / "package.zip", metadata=CARD, measure_cost=False).path
    places = [*written.items(), ("keras", package), ("onnx", package), ("tensorflow", package)]
    for runtime, place in places:
        with open_network(place, runtime=runtime) as network:
            got = network(tensor)
        np.testing.assert_allclose(got[..., :1], cold[..., :1], atol=1e-5, err_msg=f"{runtime} {place}")
        np.testing.assert_allclose(got[..., 1:], 1.5 * cold[..., 1:], rtol=1e-4, err_msg=f"{runtime} {place}")


# ---- after training


def dots(seed: int, size: int = 128) -> np.ndarray:
    random = np.random.default_rng(seed)
    clean = np.zeros((size, size))
    clean[random.integers(0, size, 100), random.integers(0, size, 100)] = 1
    clean = gaussian_filter(clean, 1.5)
    return clean / clean.max()


def pairs(place: Path, seeds: range, *, size: int = 128, axes: str = "YX") -> list[str]:
    for seed in seeds:
        clean = dots(seed, size)
        noisy = np.random.default_rng([seed, 1]).poisson(60 * clean) / 60
        for side, data in (("source", noisy), ("target", clean)):
            grey = np.rint(100 + 1000 * data).astype(np.uint16)
            shape = (*(2 if axis == "C" else 1 for axis in axes[:-2]), size, size)
            write_image(place / side / f"{seed}.tif", Image(np.broadcast_to(grey, shape), axes))
    return [str(place / "source"), str(place / "target")]


SHORT = [
    *("--patch-size", "32,32", "--patches-per-image", "16", "--quiet", "--probabilistic"),
    *(
        "--features",
        "4",
        "--kernel",
        "3",
        "--depth",
        "1",
        "--epochs",
        "2",
        "--steps",
        "10",
        "--batch-size",
        "4",
    ),
]


def done(words: list[str], code: int = 0) -> str:
    found = run(app, words)
    assert found.exit_code == code, found.output
    if code == 2:
        assert len(found.stderr.splitlines()) == 1, found.stderr
    return found.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("calibration")
    where = pairs(place, range(6))
    done(["train", *where, "--out", str(place / "model"), *SHORT])
    done(["train", *where, "--out", str(place / "two"), "--ensemble", "2", *SHORT])
    pairs(place / "new", range(20, 24))
    return place


@pytest.mark.tf
@pytest.mark.parametrize("name", ["model", "two"])
def test_training_stores_a_temperature_by_which_90_percent_of_the_validation_pixels_lie_inside(
    trained: Path, name: str
) -> None:
    config = read_config(trained / name)
    assert config.temperature is not None
    told = config.provenance["calibration"]
    assert told["after"]["0.9"] == pytest.approx(0.9, abs=0.002)
    assert told["before"]["0.9"] != pytest.approx(0.9, abs=0.01)
    if name == "two":
        assert read_config(trained / "two" / "member_1").temperature is None


@pytest.mark.tf
@pytest.mark.parametrize("name", ["model", "two"])
def test_the_command_finds_what_training_found_on_the_same_blocks(
    trained: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(trained / name, tmp_path / name)
    config = read_config(trained / name)
    write_config(tmp_path / name, config.replace(temperature=None))
    words = ["calibrate", str(tmp_path / name), str(trained / "source"), str(trained / "target")]
    for _ in range(2):  # once without a temperature, once with the right one: it is not multiplied again
        assert "intervals of 50 % held" in done(words)
        assert read_config(tmp_path / name).temperature == pytest.approx(config.temperature, rel=1e-3)


@pytest.mark.tf
def test_other_pairs_are_looked_at_whole(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    done(
        ["calibrate", str(tmp_path / "model"), *(str(trained / "new" / one) for one in ("source", "target"))]
    )
    told = read_config(tmp_path / "model").provenance["calibration"]
    assert told["after"]["0.9"] == pytest.approx(0.9, abs=0.002)
    # 4 images with 16 patches of 32 x 32 pixels at most; of the training images 10 % of 6 validate.
    assert told["pixels"] > 2 * read_config(trained / "model").provenance["calibration"]["pixels"]


@pytest.mark.tf
def test_a_training_that_is_taken_up_begins_without_and_ends_with_one(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    words = ["train", str(trained / "source"), str(trained / "target"), "--out", str(tmp_path / "model")]
    done([*words, "--resume", "--epochs", "3", "--quiet"])
    config = read_config(tmp_path / "model")
    assert config.temperature is not None
    assert config.train_epochs == 3
    assert read_config(trained / "model").temperature != config.temperature


@pytest.mark.tf
def test_evaluate_says_what_the_intervals_held_before_and_hold_now(trained: Path, tmp_path: Path) -> None:
    for name in ("model", "two"):
        words = [
            "evaluate",
            str(trained / name),
            *(str(trained / "new" / one) for one in ("source", "target")),
        ]
        words += [
            "--out",
            str(tmp_path / f"{name}.html"),
            "--json",
            str(tmp_path / f"{name}.json"),
            "--quiet",
        ]
        found = run(app, [*words, "--no-baselines"])
        assert found.exit_code in (0, 1), found.output
        sure = json.loads((tmp_path / f"{name}.json").read_text())["reliability"]
        temperature = read_config(trained / name).temperature
        assert sure["temperature"] == temperature
        before, after = sure["uncalibrated"][0], sure["calibrations"][0]
        at = before["levels"].index(0.9)
        wider = np.sign(after["coverage"][at] - before["coverage"][at])
        assert wider == np.sign(temperature - 1)
        assert f"90 % intervals hold {100 * after['coverage'][at]:.0f} %" in found.output


@pytest.mark.tf
def test_widths_of_a_prediction_have_it(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    image = read_image(trained / "new" / "source" / "20.tif")
    warm = open_predictor(trained / "model", runtime="keras").predict(image).data
    config = read_config(trained / "model")
    write_config(tmp_path / "model", config.replace(temperature=None))
    cold = open_predictor(tmp_path / "model", runtime="keras").predict(image).data
    np.testing.assert_array_equal(warm[..., 0], cold[..., 0])
    np.testing.assert_allclose(warm[..., 1], config.temperature * cold[..., 1], rtol=1e-4)


# ---- what cannot be


@pytest.mark.tf
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no widths", "predicts no widths, so it has no intervals to calibrate"),
        ("some of training", "5 of 6 pairs are among the 6 that the model was trained on"),
        ("no targets", "name the folders of both, SOURCE and TARGET"),
        ("16 pixels", "16"),
        ("two channels", "channels"),
        ("no folder", "nowhere"),
    ],
)
def test_what_cannot_be_calibrated_is_one_sentence(
    trained: Path, tmp_path: Path, kind: str, said: str
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()
    where = [str(trained / "new" / one) for one in ("source", "target")]
    if kind == "no widths":
        config = CareConfig(axes="YX", **SMALL)
        write_config(tmp_path / "model", config)
        before = (tmp_path / "model" / "config.json").read_bytes()
    elif kind == "some of training":
        where = pairs(tmp_path / "mixed", range(1, 7))
    elif kind == "no targets":
        where = where[:1]
    elif kind == "16 pixels":
        where = pairs(tmp_path / "small", range(30, 32), size=16)
    elif kind == "two channels":
        where = pairs(tmp_path / "both", range(30, 34), axes="CYX")
    elif kind == "no folder":
        where = [str(tmp_path / "nowhere"), where[1]]
    assert said in done(["calibrate", str(tmp_path / "model"), *where], code=2)
    assert (tmp_path / "model" / "config.json").read_bytes() == before


@pytest.mark.tf
def test_a_folder_of_csbdeep_has_temperature_1_until_it_is_calibrated(trained: Path, tmp_path: Path) -> None:
    """What csbdeep writes: its own keys alone; what it was trained on nobody knows."""
    shutil.copytree(trained / "model", tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    del content["care_bridge"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(content))
    assert read_config(tmp_path / "model").temperature is None
    where = pairs(tmp_path / "large", range(40, 44), size=256)
    done(["calibrate", str(tmp_path / "model"), *where, "--quiet"])
    assert read_config(tmp_path / "model").temperature is not None


@pytest.mark.tf
def test_a_model_of_simulated_patches_is_calibrated_from_the_clean_images_alone(tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    for seed in range(3):
        write_image(
            clean / f"{seed}.tif", Image(np.rint(100 + 1000 * dots(seed, 160)).astype(np.uint16), "YX")
        )
    short = [word for word in SHORT if word not in ("--patches-per-image", "16")]
    done(["train", "--simulate", "denoise", str(clean), "--out", str(tmp_path / "model"), *short])
    config = read_config(tmp_path / "model")
    assert config.temperature is not None
    write_config(tmp_path / "model", config.replace(temperature=None))
    done(["calibrate", str(tmp_path / "model"), str(clean), "--quiet"])
    assert read_config(tmp_path / "model").temperature == pytest.approx(config.temperature, rel=1e-3)
    said = done(["calibrate", str(tmp_path / "model"), str(clean), str(clean)], code=2)
    assert "name their folder alone" in said
