"""The guard: an image unlike the training patches is noticed, a familiar one is not, and what cannot be known is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.errors import InputError
from care_bridge.guard import (
    GUARD,
    Familiar,
    Likeness,
    fit_group,
    read_familiar,
    spectrum,
    tiles_of,
    write_familiar,
)
from care_bridge.guard.tiles import BANDS
from care_bridge.images import Image, read_image, write_image
from care_bridge.model_names import named_models
from care_bridge.noise import NoiseRange
from care_bridge.opening import open_guard, open_members, open_predictor

run = CliRunner().invoke


def a_group(n: int = 200, features: int = 6):
    random = np.random.default_rng(0)
    drawn = random.normal(size=(n + 100, features)) * np.arange(1, features + 1) + 5
    return fit_group(drawn[:n], drawn[n:])


def test_a_patch_of_training_lies_at_one_and_a_shifted_image_beyond_the_limit() -> None:
    group, random = a_group(), np.random.default_rng(1)
    alike = random.normal(size=(400, 6)) * np.arange(1, 7) + 5
    # A mean of d squares of standard normal numbers is 1.
    assert np.sqrt(np.mean(group.distances(alike) ** 2)) == pytest.approx(1, abs=0.1)
    assert group.ratio(alike[:30]) < 1
    assert group.ratio(alike[:30] + 4 * np.arange(1, 7)) > 1.5


def test_more_features_than_patches_are_no_trouble() -> None:
    group = a_group(n=12, features=40)
    assert np.isfinite(group.distances(np.zeros((3, 40)))).all()


def test_a_spectrum_has_the_mean_power_of_white_noise_in_every_band_and_less_of_blurred() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (20, 32, 32, 2)).astype(np.float32)
    found = spectrum(noise)
    assert found.shape == (20, 2 * BANDS)
    # The window has a sum of squares of 1, so that a pixel's power is the variance, 0.01.
    assert found.mean(axis=0)[2:] == pytest.approx(-2, abs=0.15)
    blurred = spectrum(gaussian_filter(noise, (0, 1, 1, 0)))
    assert (blurred.mean(axis=0)[-4:] < -4).all()


def test_tiles_are_taken_where_something_is() -> None:
    frame = np.zeros((64, 96, 1), np.float32)
    frame[40:48, 70:80] = 1
    tiles = tiles_of(frame, (16, 16))
    assert len(tiles) >= 2
    assert (tiles.max(axis=(1, 2, 3)) == 1).all()
    assert tiles_of(frame[:15], (16, 16)).shape == (0, 16, 16, 1)


def test_what_is_familiar_is_written_and_read_back(tmp_path) -> None:
    group = a_group()
    noise = NoiseRange(photons=(5.0, 80.0))
    written = write_familiar(tmp_path, Familiar((16, 16), {"structure": group}, noise, np.array([0.1, 0.2])))
    found = read_familiar(tmp_path)
    assert found is not None
    assert (found.patch_size, found.noise) == ((16, 16), noise)
    there = np.random.default_rng(2).normal(size=(5, 6))
    np.testing.assert_allclose(found.groups["structure"].distances(there), group.distances(there), rtol=1e-5)
    written.write_bytes(written.read_bytes()[:200])
    with pytest.raises(InputError):
        read_familiar(tmp_path)


@pytest.mark.parametrize(
    ("likeness", "foreign", "words"),
    [
        (Likeness({"structure": 0.9}), False, ""),
        (
            Likeness({"structure": 2.0, "spectrum": 0.5}),
            True,
            "structure (features of the network's encoder) 2.0 times",
        ),
        (Likeness({}, unknown="why"), None, "cannot be known: why"),
    ],
)
def test_a_verdict_is_one_sentence(likeness, foreign, words) -> None:
    assert likeness.foreign is foreign
    assert words in likeness.sentence()
    assert bool(likeness.sentence()) == bool(words)
    json.dumps(likeness.as_dict())


# ---- with a network


def dots(seed: int, *, size: int = 96) -> np.ndarray:
    random = np.random.default_rng(seed)
    clean = np.zeros((size, size))
    clean[random.integers(0, size, 60), random.integers(0, size, 60)] = 1
    clean = gaussian_filter(clean, 1.5)
    return clean / clean.max()


def stripes(seed: int, *, size: int = 96) -> np.ndarray:
    x = np.broadcast_to(np.arange(size), (size, size))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (x + seed) / 5)


def taken(clean: np.ndarray, seed: int) -> Image:
    noisy = np.random.default_rng([seed, 1]).poisson(60 * clean) / 60
    return Image(np.rint(100 + 1000 * noisy).astype(np.uint16), "YX")


SHORT = [
    word
    for setting in (
        *("unet_n_first=4", "unet_kern_size=3", "unet_n_depth=1", "train_epochs=1"),
        *("train_steps_per_epoch=2", "train_batch_size=4"),
    )
    for word in ("--set", setting)
]


def _never(*_):
    raise AssertionError("a network was loaded again")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of `care-bridge train`, its training images beside it."""
    place = tmp_path_factory.mktemp("guard")
    for seed in range(6):
        clean = dots(seed)
        write_image(place / "source" / f"{seed}.tif", taken(clean, seed))
        write_image(
            place / "target" / f"{seed}.tif", Image(np.rint(100 + 1000 * clean).astype(np.uint16), "YX")
        )
    words = ["train", str(place / "source"), str(place / "target"), "--out", str(place / "model"), "--quiet"]
    words += ["--patch-size", "32,32", "--patches-per-image", "16"]
    done = run(app, [*words, *SHORT])
    assert done.exit_code == 0, done.output
    assert 0 < (place / "model" / GUARD).stat().st_size < 100_000
    for name, clean in (("dots", dots(77)), ("stripes", stripes(77))):
        write_image(place / "new" / f"{name}.tif", taken(clean, 77))
        write_image(place / "truth" / f"{name}.tif", Image(clean.astype(np.float32), "YX"))
    write_image(place / "small" / "s.tif", taken(dots(7, size=16), 7))
    return place


@pytest.mark.tf
def test_predict_flags_a_foreign_image_and_not_a_familiar_one(trained, tmp_path) -> None:
    done = run(app, ["predict", str(trained / "model"), str(trained / "new"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "stripes.tif: unlike what the model was trained on" in done.stderr
    assert "dots.tif: unlike" not in done.stderr
    said = json.loads((tmp_path / "guard.json").read_text())
    assert (said["stripes.tif"]["foreign"], said["dots.tif"]["foreign"]) == (True, False)
    assert said["stripes.tif"]["ratios"]["structure"] > 1.2


@pytest.mark.tf
def test_evaluate_says_it_on_the_page_and_in_the_json(trained, tmp_path) -> None:
    words = ["evaluate", str(trained / "model"), str(trained / "new"), str(trained / "truth")]
    done = run(
        app, [*words, "--out", str(tmp_path / "r.html"), "--json", str(tmp_path / "r.json"), "--quiet"]
    )
    assert done.exit_code in (0, 1), done.output
    assert "stripes.tif: unlike what the model was trained on" in done.stderr
    assert "stripes.tif: unlike what the model was trained on" in (tmp_path / "r.html").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["guard"]["stripes.tif"]["foreign"] is True


@pytest.mark.tf
def test_an_image_smaller_than_a_training_patch_is_unknown(trained, tmp_path) -> None:
    done = run(app, ["predict", str(trained / "model"), str(trained / "small"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "it has 16 x 16 pixels, and was to be held against training patches of 32 x 32" in done.stderr


@pytest.mark.tf
def test_a_folder_without_statistics_says_so_and_can_be_taught(trained, tmp_path) -> None:
    model = tmp_path / "old"
    model.mkdir()
    for name in ("config.json", "weights_best.h5"):
        (model / name).write_bytes((trained / "model" / name).read_bytes())
    words = ["predict", str(model), str(trained / "new"), "--out", str(tmp_path / "out")]
    done = run(app, words)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("cannot be known: the folder holds no statistics of its training patches") == 1
    assert not (tmp_path / "out" / "guard.json").exists()
    done = run(app, ["guard", str(model), str(trained / "source"), str(trained / "target"), "--quiet"])
    assert done.exit_code == 0, done.output
    done = run(app, words)
    assert "stripes.tif: unlike" in done.stderr
    assert "dots.tif: unlike" not in done.stderr


@pytest.mark.tf
def test_networks_that_are_open_already_are_asked_and_not_loaded_again(trained, monkeypatch) -> None:
    image = read_image(trained / "new" / "stripes.tif")
    expected = open_guard(trained / "model").look(image)
    with open_predictor(trained / "model", runtime="keras") as predictor:
        monkeypatch.setattr("care_bridge.inference.guard.load_trained", _never)
        assert open_guard(trained / "model", opened=[predictor]).look(image) == expected


@pytest.mark.tf
def test_an_ensemble_is_asked_through_its_mean_or_its_members_and_its_disagreement_is_looked_at(
    trained, tmp_path, monkeypatch
) -> None:
    words = ["train", str(trained / "source"), str(trained / "target"), "--out", str(tmp_path / "two")]
    words += ["--ensemble", "2", "--patch-size", "32,32", "--quiet", *SHORT]
    done = run(app, words)
    assert done.exit_code == 0, done.output
    image = read_image(trained / "new" / "stripes.tif")
    expected = open_guard(tmp_path / "two").look(image)
    assert expected.ratios["disagreement"] > 0
    monkeypatch.setattr("care_bridge.inference.guard.load_trained", _never)
    for opened in ([open_predictor(tmp_path / "two", runtime="keras")], open_members(tmp_path / "two")):
        assert open_guard(tmp_path / "two", opened=opened).look(image) == expected


@pytest.mark.tf
def test_statistics_of_other_weights_are_no_statistics(trained, tmp_path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    known = read_familiar(tmp_path / "model")
    assert known is not None
    assert known.weights
    write_familiar(tmp_path / "model", replace(known, weights=("0" * 64,)))
    guard = open_guard(tmp_path / "model")
    assert guard.familiar is None
    assert "was written for other weights" in guard.unknown.sentence()


@pytest.mark.tf
@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"YX": (16, 16)}, "16"),
        ({"ZYX": (1, 256, 256)}, ""),
        ({"CYX": (2, 256, 256)}, "2 channels"),
    ],
    ids=["16 pixels", "one plane", "two channels"],
)
def test_a_folder_of_csbdeep_is_taught_by_images_that_fit_it(tmp_path, images, words) -> None:
    """What csbdeep writes: its own keys alone. A stack of one plane is an image for a network of planes."""
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(axes="YX", unet_n_first=4, unet_n_depth=1, unet_kern_size=3)
    save_model(tmp_path / "model", config, build(config))
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    del written["care_bridge"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(written))
    ((axes, shape),) = images.items()
    for side in ("source", "target"):
        for seed in range(4):
            data = np.broadcast_to(np.rint(1000 * dots(seed, size=256))[: shape[-2], : shape[-1]], shape)
            noisy = np.random.default_rng(seed).poisson(data) if side == "source" else data
            write_image(tmp_path / side / f"{seed}.tif", Image(noisy.astype(np.uint16), axes))
    image = tmp_path / "source" / "0.tif"
    predict = ["predict", str(tmp_path / "model"), str(image), "--out", str(tmp_path / "out")]
    if axes != "CYX":
        done = run(app, predict)
        assert done.exit_code == 0, done.output
        assert "cannot be known: the folder holds no statistics" in done.stderr
    teach = ["guard", str(tmp_path / "model"), str(tmp_path / "source"), str(tmp_path / "target"), "--quiet"]
    done = run(app, teach)
    assert done.exit_code == (2 if words else 0), done.output
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == bool(words)
    assert (tmp_path / "model" / GUARD).exists() == (not words)
    if not words:
        done = run(app, predict)
        assert "cannot be known" not in done.stderr, done.stderr


@pytest.mark.tf
def test_a_stack_of_one_plane_is_unknown_to_a_network_of_stacks() -> None:
    guard = open_guard(named_models()["fluorescence-denoise-3d"])
    found = guard.look(Image(taken(dots(1), 1).data[np.newaxis], "ZYX"))
    assert found.foreign is None
    assert (
        found.unknown
        == "it has 1 x 96 x 96 pixels, and was to be held against training patches of 8 x 32 x 32"
    )


# ---- patches that were simulated


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A model of `train --simulate` and its clean images."""
    place = tmp_path_factory.mktemp("simulated")
    for seed in range(3):
        clean = np.rint(100 + 1000 * dots(seed, size=160)).astype(np.uint16)
        write_image(place / "clean" / f"{seed}.tif", Image(clean, "YX"))
    words = ["train", "--simulate", "denoise", str(place / "clean"), "--out", str(place / "model"), "--quiet"]
    done = run(app, [*words, "--patch-size", "32,32", *SHORT])
    assert done.exit_code == 0, done.output
    return place


@pytest.mark.tf
def test_the_guard_of_simulated_patches_is_learnt_again_from_the_clean_images_alone(
    simulated, tmp_path
) -> None:
    shutil.copytree(simulated / "model", tmp_path / "model")
    before = read_familiar(tmp_path / "model")
    (tmp_path / "model" / GUARD).unlink()
    done = run(app, ["guard", str(tmp_path / "model"), str(simulated / "clean"), "--quiet"])
    assert done.exit_code == 0, done.output
    after = read_familiar(tmp_path / "model")
    assert before is not None
    assert after is not None
    assert (after.weights, after.patch_size) == (before.weights, before.patch_size)
    # The very same patches: they hang on the seed in config.json.
    for name, group in before.groups.items():
        np.testing.assert_allclose(after.groups[name].held, group.held, rtol=1e-3)


@pytest.mark.tf
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "3 clean images, e.g. 0.tif; name their folder"),
        (["others"], "does not hold the clean images that the model was trained on: 2.tif are missing"),
        (["clean", "clean"], "name their folder alone, and no targets"),
    ],
)
def test_other_images_than_were_trained_on_teach_nothing(simulated, tmp_path, words, said) -> None:
    shutil.copytree(simulated / "model", tmp_path / "model")
    shutil.copytree(simulated / "clean", tmp_path / "clean")
    shutil.copytree(simulated / "clean", tmp_path / "others")
    write_image(tmp_path / "others" / "2.tif", taken(dots(9, size=160), 9))
    done = run(app, ["guard", str(tmp_path / "model"), *(str(tmp_path / word) for word in words)])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.tf
def test_a_model_of_pairs_wants_both_folders(trained) -> None:
    done = run(app, ["guard", str(trained / "model"), str(trained / "source")])
    assert done.exit_code == 2
    assert "was trained on pairs" in done.stderr


@pytest.mark.tf
def test_a_damaged_record_of_simulated_patches_is_one_sentence(simulated, tmp_path) -> None:
    shutil.copytree(simulated / "model", tmp_path / "model")
    config = read_config(tmp_path / "model")
    data = {**config.provenance["data"], "stream_seed": "many"}
    write_config(tmp_path / "model", config.replace(provenance={**config.provenance, "data": data}))
    done = run(app, ["guard", str(tmp_path / "model"), str(simulated / "clean")])
    assert done.exit_code == 2
    assert "what config.json says of the simulated training patches is damaged" in done.stderr


# ---- the models that come with the package


def shipped() -> list[str]:
    """Names of those that can have a guard."""
    found = []
    for name, folder in named_models().items():
        config = read_config(folder)
        if config.kind == "CARE" and config.method == "care":
            found.append(name)
    return found


@pytest.mark.tf
@pytest.mark.parametrize("name", shipped())
def test_a_shipped_model_knows_its_sample_and_no_checkerboard(name: str) -> None:
    folder = named_models()[name]
    assert (folder / GUARD).stat().st_size < 100_000
    guard = open_guard(folder)
    sample = read_image(folder / "sample.tif")
    found = guard.look(sample)
    assert found.foreign is False, found.sentence()
    y, x = np.mgrid[:64, :64] // 8
    board = np.broadcast_to((y + x) % 2, (*sample.shape[:-2], 64, 64)).astype(np.float32)
    assert guard.look(Image(board, sample.axes)).foreign is True
