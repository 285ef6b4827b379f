"""The scale of training targets: their source's, fitted to their source, or their own; and which one a data set gets."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.patches import (
    PatchPercentiles,
    TargetScaleWarning,
    choose_target_scale,
    pairs_from_arrays,
    pairs_from_folders,
    sample_patches,
)

FIXED = PatchPercentiles((2.0, 2.0), (99.8, 99.8))


def structures(seed: int = 0, shape: tuple[int, ...] = (96, 96)) -> np.ndarray:
    """Bright squares on a dark ground, 100 to 1100 grey levels."""
    random = np.random.default_rng(seed)
    image = np.full(shape, 100.0, np.float32)
    for _ in range(25 * (shape[0] if len(shape) == 3 else 1)):
        corner = [int(random.integers(size)) for size in shape]
        where = tuple(slice(c, c + 9) for c in corner[-2:])
        image[(*corner[:-2], *where)] = random.uniform(300, 1100)
    return image


def noisy(clean: np.ndarray, seed: int = 1, sigma: float = 80) -> np.ndarray:
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).astype(np.float32)


def patches(source: np.ndarray, target: np.ndarray, scale: str, axes: str = "YX", **more):
    size = [16 if letter in "YX" else 2 for letter in axes if letter != "C"]
    space = axes.replace("C", "")
    pairs = pairs_from_arrays([source], [target], axes=axes, target_axes=more.pop("target_axes", None))
    more = {"foreground": None, "percentiles": FIXED} | more
    return sample_patches(
        pairs, patch_size=size, axes=space, n_patches_per_image=6, target_scale=scale, **more
    ).load()


def test_source_scale_keeps_the_difference_of_source_and_target():
    clean = structures()
    source, target = patches(noisy(clean), clean, "source")
    low, high = np.percentile(noisy(clean), [2, 99.8])
    # In grey levels again, both are what they were: the noise is all that is between them.
    assert np.std((source - target) * (high - low)) == pytest.approx(80, rel=0.05)
    assert abs(np.mean((source - target) * (high - low))) < 5


def test_source_scale_takes_the_percentiles_that_were_drawn_for_the_source():
    clean = structures()
    pairs = pairs_from_arrays([noisy(clean)], [clean], axes="YX")
    origin = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=20, target_scale="source").origin
    assert np.array_equal(origin.source_range, origin.target_range)
    assert len(np.unique(origin.source_range[:, 0])) > 10


def test_fitted_scale_undoes_any_gain_and_offset_of_the_target():
    clean = structures()
    there = patches(noisy(clean), clean, "source")[1]
    for gain, offset in ((37.0, -5000.0), (1e-4, 3.0)):
        fitted = patches(noisy(clean), (clean * gain + offset).astype(np.float32), "fitted")[1]
        np.testing.assert_allclose(fitted, there, atol=0.02)


def test_fitted_scale_is_not_flattened_by_blur():
    clean = structures()
    blurred = sum(np.roll(clean, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9
    fitted = patches(blurred.astype(np.float32), clean * 50, "fitted")[1]
    np.testing.assert_allclose(fitted, patches(blurred.astype(np.float32), clean, "source")[1], atol=0.06)


def test_own_scale_is_csbdeeps():
    clean = structures()
    target = patches(noisy(clean), clean * 7, "own")[1]
    low, high = np.percentile(clean * 7, [2, 99.8])
    assert target.min() * (high - low) + low == pytest.approx(700, rel=1e-3)


def test_integers_of_32_bits_keep_their_digits_on_every_scale():
    clean = structures().astype(np.uint32) + np.uint32(1 << 26)
    wide = noisy(structures()).clip(0).astype(np.uint32) + np.uint32(1 << 26)
    plain = patches(noisy(structures()).clip(0).astype(np.uint32), structures().astype(np.uint32), "source")
    for scale in ("source", "fitted"):
        np.testing.assert_allclose(
            patches(wide, clean, scale)[1], plain[1], atol=1e-4 if scale == "source" else 0.02
        )


def test_each_channel_has_its_own_line():
    clean = np.stack([structures(0), structures(3)])
    source = noisy(clean)
    target = clean * np.float32([[[10]], [[0.1]]])
    fitted = patches(source, target, "fitted", axes="CYX")[1]
    np.testing.assert_allclose(fitted, patches(source, clean, "source", axes="CYX")[1], atol=0.02)


def test_targets_of_other_channels_are_fitted_to_the_mean_channel_and_refuse_the_sources_percentiles():
    clean = structures()
    source = np.stack([noisy(clean, 1), noisy(clean, 2)])
    more = {"axes": "CYX", "target_axes": "YX"}
    assert np.isfinite(patches(source, clean * 5, "fitted", **more)[1]).all()
    with pytest.raises(InputError, match="sources have 2 and targets 1; use 'fitted'"):
        patches(source, clean, "source", **more)
    pairs = pairs_from_arrays([source], [clean], axes="CYX", target_axes="YX")
    assert choose_target_scale(pairs, axes="YX").scale == "fitted"


@pytest.mark.parametrize("scale", ["source", "fitted"])
def test_a_projection_has_a_scale_too(scale):
    clean = structures(shape=(4, 64, 64))
    target = clean.max(axis=0, keepdims=True)
    got = patches(noisy(clean), target * (1 if scale == "source" else 9), scale, axes="ZYX", reduced="Z")[1]
    assert got.shape[1:] == (16, 16, 1)
    assert -0.5 < got.min() < got.max() < 2


@pytest.mark.parametrize("scale", ["source", "fitted"])
def test_constant_and_unlike_images_give_finite_patches_and_a_warning(scale):
    clean, flat = structures(), np.full((96, 96), 500, np.float32)
    with pytest.warns(TargetScaleWarning, match=r"1 of 1 targets .*image 0 \(its source is constant\)"):
        _, target = patches(flat, clean, scale)
    assert np.abs(target).max() < 10
    _, target = patches(noisy(clean), flat, scale)
    assert np.abs(target).max() < 10
    with pytest.warns(TargetScaleWarning):
        _, target = patches(flat, flat, scale)
    assert not target.any()
    if scale == "fitted":
        with pytest.warns(TargetScaleWarning, match="unlike its source"):
            _, target = patches(noisy(clean), 1200 - clean, scale)
        assert np.abs(target).max() < 10


def test_a_pixel_that_is_not_finite_does_not_spoil_the_fit():
    clean = structures()
    broken = clean.copy() * 20
    broken[50, 50] = np.nan
    target = patches(noisy(clean), broken, "fitted")[1]
    assert np.isfinite(target).all()
    assert 0.9 < target.max() < 1.2


@pytest.mark.parametrize(
    ("gain", "offset", "expected"),
    [
        (1, 0, "source"),
        (1.4, 50, "source"),
        (1, 3000, "fitted"),
        (20, 0, "fitted"),
        (0.05, 100, "fitted"),
        (-1, 2000, "own"),
    ],
)
def test_the_scale_of_a_data_set_follows_its_unit(gain, offset, expected):
    clean = [structures(seed) for seed in range(4)]
    targets = [(image * gain + offset).astype(np.float32) for image in clean]
    pairs = pairs_from_arrays([noisy(image, sigma=200) for image in clean], targets, axes="YX")
    found = choose_target_scale(pairs, axes="YX")
    assert found.scale == expected, found.because


def test_gains_that_differ_from_image_to_image_are_fitted():
    clean = [structures(seed) for seed in range(6)]
    targets = [image * np.float32(0.6 + 0.2 * number) for number, image in enumerate(clean)]
    pairs = pairs_from_arrays([noisy(image) for image in clean], targets, axes="YX")
    found = choose_target_scale(pairs, axes="YX")
    assert found.scale == "fitted"
    assert "from 0.6" in found.because


def test_noise_without_structure_keeps_its_own_scale():
    flat = np.full((64, 64), 200, np.float32)
    pairs = pairs_from_arrays([noisy(flat)], [noisy(flat, 7)], axes="YX")
    assert choose_target_scale(pairs, axes="YX").scale == "own"


def write_pairs(root, *, gain=1.0, offset=0.0, n=3):
    for number in range(n):
        clean = structures(number, (64, 64))
        write_image(root / "source" / f"{number}.tif", Image(noisy(clean), "YX"))
        write_image(
            root / "target" / f"{number}.tif", Image((clean * gain + offset).astype(np.float32), "YX")
        )
    return root / "source", root / "target"


def test_simulated_pairs_keep_one_unit_whatever_background_was_added(tmp_path):
    folders = write_pairs(tmp_path, offset=-900)
    assert choose_target_scale(pairs_from_folders(*folders), axes="YX").scale == "fitted"
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "image"), *((str(k), f"clean {k}") for k in range(3))])
    found = choose_target_scale(pairs_from_folders(*folders), axes="YX")
    assert (found.scale, found.because[:24]) == ("source", "the pairs were simulated")


def test_a_wrong_scale_is_one_sentence():
    clean = structures()
    with pytest.raises(InputError, match="target_scale='sauce': give source, fitted, own"):
        patches(clean, clean, "sauce")
    with pytest.raises(InputError, match="raw patches"):
        patches(clean, clean, "source", percentiles=None)
    with pytest.raises(InputError, match="target_scale"):
        CareConfig("YX", target_scale="sauce")


def test_config_takes_the_scale_from_the_record_of_its_data_and_keeps_it(tmp_path):
    config = CareConfig("YX", provenance={"data": {"target_scale": "fitted"}})
    assert config.target_scale == "fitted"
    assert config.to_json()["care_bridge"]["target_scale"] == "fitted"
    assert (
        CareConfig("YX").target_scale == "own"
    )  # csbdeep's, and every model's from before there was a choice
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    assert read_config(tmp_path).target_scale == "fitted"


SMALL = {
    "unet_n_first": 2,
    "unet_n_depth": 1,
    "unet_kern_size": 3,
    "train_epochs": 1,
    "train_steps_per_epoch": 2,
    "train_batch_size": 2,
}


@pytest.mark.tf
def test_training_decides_says_records_and_keeps_the_scale(tmp_path):
    from care_bridge.training.from_files import train_from_files

    folders = write_pairs(tmp_path, gain=30.0)
    told: list[str] = []
    how = {"patch_size": (16, 16), "n_patches_per_image": 4, "say": told.append}
    train_from_files(*folders, out=tmp_path / "model", settings=SMALL, **how)
    assert read_config(tmp_path / "model").target_scale == "fitted"
    assert any(line.startswith("target scale 'fitted', since source and target are in diff") for line in told)
    # A run that is taken up keeps its scale, even if the images now looked otherwise; another one is refused.
    train_from_files(*folders, out=tmp_path / "model", settings={"train_epochs": 2}, resume=True, **how)
    assert read_config(tmp_path / "model").target_scale == "fitted"
    with pytest.raises(InputError, match="target_scale was 'fitted' and is 'own'"):
        train_from_files(
            *folders, out=tmp_path / "model", settings={"target_scale": "own"}, resume=True, **how
        )
    train_from_files(*folders, out=tmp_path / "paper", preset="mito", settings=SMALL, **how)
    assert read_config(tmp_path / "paper").target_scale == "own"


@pytest.mark.tf
def test_a_checkpoint_from_before_there_was_a_scale_goes_on(tmp_path):
    from care_bridge.training.checkpoint import load_checkpoint, save_checkpoint
    from care_bridge.training.from_files import train_from_files

    folders = write_pairs(tmp_path)
    how = {"patch_size": (16, 16), "n_patches_per_image": 4}
    settings = {**SMALL, "target_scale": "own"}
    train_from_files(*folders, out=tmp_path / "model", settings=settings, **how)
    state, weights, optimizer = load_checkpoint(tmp_path / "model")
    del state.settings["care_bridge"]["target_scale"]
    save_checkpoint(tmp_path / "model", state, weights=weights, optimizer=optimizer)
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    del content["care_bridge"]["target_scale"]
    file.write_text(json.dumps(content))
    train_from_files(*folders, out=tmp_path / "model", settings={"train_epochs": 2}, resume=True, **how)
    assert read_config(tmp_path / "model").train_epochs == 2


@pytest.mark.tf
def test_patches_of_a_file_have_their_scale_already(tmp_path):
    from care_bridge.training.from_files import train_from_files

    x = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
    np.savez(tmp_path / "data.npz", X=x, Y=x * 2, axes="SCYX")
    with pytest.raises(InputError, match="have their scale already"):
        train_from_files(tmp_path / "data.npz", out=tmp_path / "model", settings={"target_scale": "source"})
