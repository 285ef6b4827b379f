from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.simulate.recipe import Recipe, Views, load_recipe
from care_bridge.training.data import TrainingData
from care_bridge.training.fit import train
from care_bridge.training.from_files import train_from_files
from care_bridge.training.streams import Stream, _area_means, data_from_stream, stream_axes

SMALL: dict[str, Any] = {"unet_n_first": 4, "unet_n_depth": 1, "unet_kern_size": 3, "train_batch_size": 4}


def recipe(**changes: Any) -> Recipe:
    """`denoise` without drawn samples."""
    whole = load_recipe("denoise")
    views = {**(whole.stream or Views()).model_dump(), "drawn": (), "validation": 8, **changes}
    return whole.model_copy(update={"stream": Views(**views)})


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two smooth images in a folder of a folder: one of 16 bits with an offset, one of floats about 0."""
    folder = tmp_path / "clean"
    (folder / "below").mkdir(parents=True)
    y, x = np.mgrid[:160, :200]
    waves = np.sin(y / 9) * np.cos(x / 7) + 1
    tifffile.imwrite(folder / "offset.tif", (waves * 5000 + 32768).astype(np.uint16))
    tifffile.imwrite(folder / "below" / "floats.tif", (waves * 3 - 1).astype(np.float32))
    return folder


def open_stream(
    clean: Path | None, *, axes: str = "YX", size: Any = (32, 32), **changes: Any
) -> TrainingData:
    return data_from_stream(recipe(**changes), clean, patch_size=size, axes=axes)


def stream(data: TrainingData) -> Stream:
    assert isinstance(data.training, Stream)
    return data.training


def test_a_step_and_a_seed_give_the_same_patches_whatever_was_made_before(clean: Path) -> None:
    one, other = stream(open_stream(clean)), stream(open_stream(clean))
    for step in range(3):
        one.batch_at(step, size=4, seed=1)
    for first, second in zip(one.batch_at(7, size=4, seed=1), other.batch_at(7, size=4, seed=1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.batch_at(7, size=4, seed=1)[0], one.batch_at(8, size=4, seed=1)[0])
    assert not np.array_equal(one.batch_at(7, size=4, seed=1)[0], one.batch_at(7, size=4, seed=2)[0])


def test_a_training_that_was_stopped_and_taken_up_equals_the_one_that_was_not(
    clean: Path, tmp_path: Path
) -> None:
    config = CareConfig("YXC", 1, 1, **SMALL, train_epochs=4, train_steps_per_epoch=3)
    data = open_stream(clean)
    whole = train(config, data.training, data.validation, tmp_path / "whole")
    train(config.replace(train_epochs=2), data.training, data.validation, tmp_path / "parts")
    again = open_stream(clean)
    parts = train(config, again.training, again.validation, tmp_path / "parts", resume=True)
    for first, second in zip(
        whole.model.network.get_weights(), parts.model.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_from_a_folder_of_clean_images_to_a_model_that_says_what_it_was_trained_on(
    clean: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = {**SMALL, "train_epochs": 1, "train_steps_per_epoch": 2}
    train_from_files(
        clean,
        out=tmp_path / "model",
        simulate=recipe(),
        settings=settings,
        patch_size=(32, 32),
        say=said.append,
    )
    data = json.loads((tmp_path / "model" / "config.json").read_text())["care_bridge"]["provenance"]["data"]
    assert sorted(data["target"]) == ["below/floats.tif", "offset.tif"]
    assert data["recipe"]["sets"][0]["steps"][0]["photons"] == [5.0, 200.0]
    assert "new patches of 2 clean files" in "\n".join(said)
    with pytest.raises(InputError, match="other"):
        train_from_files(clean / "offset.tif", out=tmp_path / "model", resume=True)
    train_from_files(clean, out=tmp_path / "model", settings={"train_epochs": 2}, resume=True)


def test_source_and_target_agree_but_for_the_noise(clean: Path) -> None:
    """Over many patches their difference has no mean, and hangs on no brightness."""
    source, target = stream(open_stream(clean)).batch_at(0, size=200, seed=3)
    noise, level = (source - target).ravel(), target.ravel()
    assert abs(noise.mean()) < 0.01
    dim, bright = noise[level < np.median(level)], noise[level >= np.median(level)]
    assert abs(dim.mean() - bright.mean()) < 0.02
    assert noise.std() > 0.02


def test_a_patch_lies_on_the_scale_of_its_whole_image(clean: Path) -> None:
    """Sources of all patches together have their percentiles near 0 and 1, whatever one patch shows."""
    source, _ = stream(open_stream(clean)).batch_at(0, size=300, seed=0)
    low, high = np.percentile(source, [2, 99.7])
    assert low == pytest.approx(0, abs=0.06)
    assert high == pytest.approx(1, abs=0.12)


def test_planes_of_a_patch_lie_as_far_apart_as_the_recipe_says(tmp_path: Path) -> None:
    # Each plane's level is its number, so a patch says which planes it was made of.
    stack = np.broadcast_to(np.arange(13)[:, None, None] * 100, (13, 64, 64)) + np.eye(64) * 5
    tifffile.imwrite(tmp_path / "stack.tif", stack.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    plain: dict[str, Any] = {
        "zoom": (1, 1),
        "gamma": (1, 1),
        "level": (0, 0),
        "blur_share": 0,
        "turns": False,
    }
    found = {}
    for most in (1, 9):
        patches = stream(
            open_stream(tmp_path, axes="ZYX", size=(4, 32, 32), plane_step=most, places=1, **plain)
        )
        views = [patches._view(patches.images[0], np.random.default_rng(n))[0] for n in range(40)]
        levels = [np.median(view, axis=(1, 2)) * 12 for view in views]
        found[most] = {tuple(np.rint(np.diff(one)).astype(int)) for one in levels}
    assert found[1] == {(1, 1, 1)}
    # Nine would not fit: three gaps of four are the twelve that 13 planes have.
    assert found[9] == {(gap,) * 3 for gap in (1, 2, 3, 4)}


@pytest.mark.parametrize("zoom", [0.3, 0.5, 0.77, 1.0])
def test_means_over_areas_are_those_of_the_fine_pixels(zoom: float) -> None:
    rng = np.random.default_rng(0)
    data, start, size = rng.random((40, 3)).astype(np.float32), 1.25, 11
    fine = np.repeat(data, 400, axis=0)
    edges = np.rint((start + np.arange(size + 1) / zoom) * 400).astype(int)
    wanted = [fine[a:b].mean(0) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(_area_means(data, size, start, zoom, 0), wanted, atol=2e-3)


def test_no_validation_pixel_trains(clean: Path) -> None:
    """Training draws nothing of a strip that is marked, and validation draws from nothing else."""
    for file in clean.glob("**/*.tif"):
        image = tifffile.imread(file).astype(np.float32)
        image[128:] = image.max() * 40  # 160 rows: the last patch of 32 validates
        tifffile.imwrite(file, image)
    data = open_stream(clean)
    for image in stream(data).images:
        assert image.rows == (0, 128)
    _, target = stream(data).batch_at(0, size=64, seed=0)
    assert target.max() < 1.01
    assert data.validation.batch(np.arange(8))[1].min() > 0.5


def test_of_eight_files_whole_ones_validate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        tifffile.imwrite(
            tmp_path / f"{number}.tif", rng.random((2, 48, 64)).astype(np.float32), metadata={"axes": "TYX"}
        )
    data = open_stream(tmp_path)
    assert len(stream(data).images) == 7  # one file, of two frames each, is held out
    assert all(image.rows == (0, 48) for image in stream(data).images)
    assert data.provenance["validation_fraction"] == 0.15


def test_stacks_give_patches_of_three_dimensions_or_their_planes(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).random((2, 9, 80, 70)).astype(np.float32)
    tifffile.imwrite(tmp_path / "s.tif", stack, metadata={"axes": "CZYX"}, ome=True)
    assert stream_axes(tmp_path) == "ZYX"
    data = open_stream(tmp_path, axes="ZYX", size=(8, 32, 32))
    assert stream(data).batch_at(0, size=2, seed=0)[0].shape == (2, 8, 32, 32, 1)
    planes = open_stream(tmp_path, axes="YX")
    assert len(stream(planes).images) == 2  # channels
    assert stream(planes).batch_at(0, size=2, seed=0)[1].shape == (2, 32, 32, 1)
    with pytest.raises(InputError, match="9 planes along Z; the patches have 16"):
        open_stream(tmp_path, axes="ZYX", size=(16, 32, 32))
    with pytest.raises(InputError, match=r"channel=2, but image .s\.tif. has 2"):
        data_from_stream(recipe(), tmp_path, patch_size=(32, 32), axes="YX", channel=2)


def test_drawn_samples_train_alone_or_beside_clean_images(clean: Path) -> None:
    drawn = [{"kind": "granules", "images": 2, "shape": [96, 96]}]
    alone = stream(open_stream(None, drawn=drawn))
    assert [image.drawn for image in alone.images] == [True, True]
    both = stream(open_stream(clean, drawn=drawn, drawn_share=0.25))
    assert [image.drawn for image in both.images] == [False, False, True, True]
    np.testing.assert_allclose(np.diff(both._cumulative, prepend=0), [0.375, 0.375, 0.125, 0.125])
    volume = stream(open_stream(None, axes="ZYX", size=(8, 32, 32), drawn=drawn))
    assert volume.batch_at(0, size=1, seed=0)[0].shape == (1, 8, 32, 32, 1)
    with pytest.raises(InputError, match="degrades clean images; name a folder"):
        open_stream(None)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((80, 80), 7, np.uint8), "constant between its percentiles"),
        (np.full((80, 80), np.nan, np.float32), "NaN or infinite"),
        (np.zeros((80, 31), np.uint8), "80 x 31 pixels; the patches have 32 x 32"),
        (np.zeros((80, 80, 3), np.uint8), "colour|RGB"),
    ],
)
def test_an_image_that_cannot_be_used_is_one_sentence(pixels: Any, message: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "bad.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    with pytest.raises(InputError, match=message) as caught:
        open_stream(tmp_path)
    assert "bad.tif" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_no_stream_can_be_made_of_is_said(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.tif, \.tiff or \.zarr image, nor do the folders"):
        open_stream(tmp_path / "empty")
    with pytest.raises(InputError, match="no clean images at"):
        open_stream(tmp_path / "nothing")
    with pytest.raises(InputError, match="recipe 'mito' is made for whole images"):
        data_from_stream("mito", clean, patch_size=(32, 32), axes="YX")
    with pytest.raises(InputError, match="none can both train and validate"):
        open_stream(clean, size=(96, 96))
    with pytest.raises(InputError, match="YX or ZYX; received axes 'TYX'"):
        open_stream(clean, axes="TYX")
    with pytest.raises(InputError, match="leave out the second folder"):
        train_from_files(clean, clean, out=tmp_path / "m", simulate="denoise")
    with pytest.raises(InputError, match="name the images to train on"):
        train_from_files(None, out=tmp_path / "m")
    with pytest.raises(InputError, match="trains CARE networks; received kind 'UpsamplingCARE'"):
        train_from_files(clean, out=tmp_path / "m", simulate="denoise", settings={"kind": "UpsamplingCARE"})
    assert not (tmp_path / "m").exists()


# Fibre bundles -------------------------------------------------------------------------------------------------


def bundles(**changes: Any) -> Recipe:
    """`fibre` without drawn samples and with a step of its own."""
    whole = load_recipe("fibre")
    bundle, camera = whole.sets[0].steps
    bundle = type(bundle).model_validate({"target": "seen", **changes})
    camera = camera.model_copy(update={"bits_8_share": 0.0, "photons": (500.0, 500.0), "hot_share": 0.0})
    sets = (whole.sets[0].model_copy(update={"steps": (bundle, camera)}),)
    views = {**(whole.stream or Views()).model_dump(), "drawn": (), "validation": 8, "blur_share": 0.0}
    return whole.model_copy(update={"sets": sets, "stream": Views(**views)})


def test_patches_through_a_bundle_have_a_honeycomb_and_targets_none_at_the_same_brightness(
    clean: Path,
) -> None:
    from care_bridge.simulate.fibre import lattice_power

    recipe = bundles(mode="random", pitch_px=[6, 6], halo=[0.2, 0.5], cladding=[0, 0.2])
    made = stream(data_from_stream(recipe, clean, patch_size=(64, 64), axes="YX"))
    sources, targets = made.batch_at(0, size=12, seed=1)
    for source, target in zip(sources[..., 0], targets[..., 0], strict=True):
        assert (
            lattice_power(source, pitch_px=6) * source.var()
            > 50 * lattice_power(target, pitch_px=6) * target.var()
        )
    assert sources.mean() == pytest.approx(targets.mean(), rel=0.05)
    # Percentiles are those of what the camera sees, honeycomb included: 0.2 % of the pixels lie above 1.
    assert np.mean(sources > 1) == pytest.approx(0.002, abs=0.01)
    again = stream(data_from_stream(recipe, clean, patch_size=(64, 64), axes="YX"))
    np.testing.assert_array_equal(again.batch_at(0, size=12, seed=1)[0], sources)


def test_a_stream_like_a_persons_bundle_says_which_file_it_is_like(clean: Path, tmp_path: Path) -> None:
    from care_bridge.files import sha256
    from care_bridge.simulate import cores, fibre

    like = tmp_path / "like.tif"
    drawn = fibre.bundle((160, 160), seed=1, pitch_px=7, turn=True)
    tifffile.imwrite(like, (100 * fibre.through_bundle(np.ones((160, 160)), drawn)).astype(np.float32))
    data = data_from_stream(bundles(like=str(like)), clean, patch_size=(64, 64), axes="YX")
    assert data.provenance["bundle"] == {"like.tif": sha256(like)}
    sources, _ = stream(data).batch_at(3, size=4, seed=1)
    pitches = [cores.measured_pitch(source) for source in sources[..., 0]]
    assert np.median(pitches) == pytest.approx(7, rel=0.08)


def test_patches_may_be_dark_on_bright(clean: Path) -> None:
    usual, turned = (
        stream(open_stream(clean, inverted_share=share, gamma=1, level=0, blur_share=0))
        for share in (0.0, 1.0)
    )
    (_, first), (_, second) = (one.batch_at(0, size=32, seed=1) for one in (usual, turned))
    # Two waves on 0 to 1, sin x cos y + 1: their mirror image has the same mean and other bright places.
    assert not np.allclose(first, second)
    assert np.median(second) == pytest.approx(1 - np.median(first), abs=0.2)


def test_stacks_are_not_seen_through_a_bundle(clean: Path) -> None:
    with pytest.raises(InputError, match="whose images are planes; give --network-axes YX"):
        data_from_stream(bundles(), clean, patch_size=(4, 32, 32), axes="ZYX")
