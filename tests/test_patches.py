from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.normalize import NotFinitePixelsWarning, SparseImageWarning
from care_bridge.patches import (
    Foreground,
    LeakingSplitWarning,
    PatchPercentiles,
    load_patches,
    looking,
    open_patches,
    pairs_from_arrays,
    pairs_from_folders,
    pairs_from_zarr,
    sample_patches,
    save_patches,
    split_patches,
)
from care_bridge.patches.foreground import bright_corners
from care_bridge.patches.scale import Ranks


def noise(shape: tuple[int, ...], seed: int = 0, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 500, shape).astype(dtype)


def sampled(shape=(60, 70), n=10, axes="YX", patch=(16, 16), images=2, dtype="uint16", **options):
    sources = [noise(shape, seed, dtype) for seed in range(images)]
    targets = [noise(shape, 100 + seed, dtype) for seed in range(images)]
    pairs = pairs_from_arrays(sources, targets, axes=axes)
    patches = sample_patches(pairs, patch_size=patch, n_patches_per_image=n, **options)
    return sources, targets, patches


# Percentiles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_percentiles_are_numpys(dtype: str) -> None:
    values = (
        np.random.default_rng(0).normal(50, 30, 4321).clip(0 if dtype[0] == "u" else -100, 120).astype(dtype)
    )
    percentiles = np.array([0, 1.2345, 2, 50, 99.5, 99.87654, 100])
    np.testing.assert_array_equal(Ranks([values]).at(percentiles), np.percentile(values, percentiles))


def test_percentiles_of_slabs_are_those_of_the_whole() -> None:
    values = noise((40, 30))
    for dtype in ("uint16", "float32"):
        whole = Ranks([values.astype(dtype)])
        slabs = Ranks(values.astype(dtype)[start : start + 7] for start in range(0, 40, 7))
        assert slabs.at(np.array([1.5, 99.7])).tolist() == whole.at(np.array([1.5, 99.7])).tolist()


def test_nan_pixels_are_left_out_and_said() -> None:
    values = np.array([1.0, 2, np.nan, 3, np.inf])
    with pytest.warns(NotFinitePixelsWarning, match="2 pixels"):
        ranks = Ranks([values], name="cell")
    assert ranks.at(50.0) == 2


def test_sparse_images_take_their_maximum() -> None:
    # Both percentiles 0: csbdeep divides by 1e-20 and trains on 1e22 (care-training.md, section 7 row 4).
    sparse = np.zeros((100, 100), np.uint16)
    sparse[50, 40:44] = 1000
    pairs = pairs_from_arrays([sparse], [sparse], axes="YX")
    with pytest.warns(SparseImageWarning, match="maximum"):
        patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=4)
    source, target = patches.load()
    assert source.max() == target.max() == 1


def test_large_integers_keep_their_grey_levels() -> None:
    # float32 keeps 7 of 50 grey levels at 2**26 (care-training.md, section 7 row 18).
    image = (2**26 + np.random.default_rng(0).integers(0, 50, (64, 64))).astype(np.uint32)
    pairs = pairs_from_arrays([image], [image], axes="YX")
    source, _ = sample_patches(pairs, patch_size=(64, 64), n_patches_per_image=1).load()
    assert len(np.unique(source)) == 50


@pytest.mark.parametrize("arguments", [{"pmin": (3, 1)}, {"pmax": (99, 101)}, {"pmin": (1, 99.6)}])
def test_percentiles_out_of_order_are_refused(arguments) -> None:
    with pytest.raises(InputError):
        PatchPercentiles(**arguments)


# Positions --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(4, 24), min_size=1, max_size=3),
    data=st.data(),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    level=st.floats(-10, 1500),
)
def test_bright_corners_are_those_of_a_maximum_filter(shape, data, dtype, level) -> None:
    patch = [data.draw(st.integers(1, size)) for size in shape]
    image = noise(tuple(shape), sum(shape)).astype(dtype)
    filtered = maximum_filter(image, [size // 2 if size > 1 else 1 for size in patch], mode="constant")
    centres = tuple(slice(p // 2, d - p + p // 2 + 1) for p, d in zip(patch, shape, strict=True))
    expected = filtered[centres] > level  # csbdeep's no_background_patches at its border_slices
    np.testing.assert_array_equal(bright_corners(image, patch, level), expected)


def test_each_patch_is_what_its_origin_says() -> None:
    sources, targets, patches = sampled()
    source, target = patches.load()
    for row in range(len(patches)):
        image, (y, x) = patches.origin.image[row], patches.origin.position[row]
        for got, raw, (low, high) in (
            (source[row, ..., 0], sources[image], patches.origin.source_range[row, :, 0]),
            (target[row, ..., 0], targets[image], patches.origin.target_range[row, :, 0]),
        ):
            expected = (raw[y : y + 16, x : x + 16] - low) / (high - low)
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_scale_is_of_the_whole_image_at_the_same_percentiles_on_both_sides() -> None:
    sources, targets, patches = sampled(percentiles=PatchPercentiles(pmin=(2, 2), pmax=(99.8, 99.8)))
    for row in (0, 15):
        image = patches.origin.image[row]
        np.testing.assert_array_equal(
            patches.origin.source_range[row, :, 0], np.percentile(sources[image], [2, 99.8])
        )
        np.testing.assert_array_equal(
            patches.origin.target_range[row, :, 0], np.percentile(targets[image], [2, 99.8])
        )


def test_random_percentiles_stay_in_their_intervals() -> None:
    sources, _, patches = sampled(n=50)
    for image in (0, 1):
        low, high = patches.origin.source_range[patches.origin.image == image, :, 0].T
        assert np.all((low >= np.percentile(sources[image], 1)) & (low <= np.percentile(sources[image], 3)))
        assert np.all(
            (high >= np.percentile(sources[image], 99.5)) & (high <= np.percentile(sources[image], 99.9))
        )
        assert len(np.unique(low)) > 10


def test_a_seed_gives_the_same_patches_and_other_images_do_not_matter() -> None:
    _, _, one = sampled(images=1, seed=5)
    _, _, two = sampled(images=2, seed=5)
    _, _, other = sampled(images=1, seed=6)
    np.testing.assert_array_equal(one.load()[0], two.load()[0][:10])
    assert not np.array_equal(one.load()[0], other.load()[0])
    indices = np.array([7, 3, 3])
    np.testing.assert_array_equal(two.batch(indices)[1], two.load()[1][indices])


def test_no_position_is_drawn_twice_while_there_are_enough() -> None:
    _, _, patches = sampled(shape=(20, 20), n=25, images=1, foreground=None)
    assert len(np.unique(patches.origin.position, axis=0)) == 25  # all 5 x 5 of them
    _, _, patches = sampled(shape=(20, 20), n=26, images=1, foreground=None)
    assert len(patches) == 26


def test_patches_come_from_the_foreground() -> None:
    image = np.full((100, 100), 10.0, np.float32)
    image[80:90, 10:20] = 100
    pairs = pairs_from_arrays([image], [image], axes="YX")
    patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=50)
    middle = patches.origin.position + 8
    assert np.all((middle[:, 0] >= 76) & (middle[:, 0] <= 94) & (middle[:, 1] >= 6) & (middle[:, 1] <= 24))


def test_a_camera_offset_hides_the_background_unless_it_is_subtracted() -> None:
    image = np.full((100, 100), 100.0, np.float32)
    image[80:90, 10:20] = 200
    pairs = pairs_from_arrays([image], [image], axes="YX")

    def spread(foreground: Foreground) -> float:
        patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=50, foreground=foreground)
        return float(np.ptp(patches.origin.position[:, 1]))

    assert spread(Foreground()) > 60
    assert spread(Foreground(background=2)) < 20


def test_patches_with_nan_pixels_are_not_drawn() -> None:
    image = noise((64, 64), dtype="float32")
    image[30, 30] = np.nan
    with pytest.warns(NotFinitePixelsWarning):
        patches = sample_patches(
            pairs_from_arrays([image], [image], axes="YX"), patch_size=(16, 16), n_patches_per_image=200
        )
    assert np.isfinite(patches.load()[0]).all()


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled(shape=(12, 40, 50), axes="ZYX", patch=(4, 16, 16), dtype="float32")[2]
    monkeypatch.setattr(looking, "SLAB_BYTES", 8 * 40 * 50 * 2)
    slabs = sampled(shape=(12, 40, 50), axes="ZYX", patch=(4, 16, 16), dtype="float32")[2]
    np.testing.assert_array_equal(whole.origin.position, slabs.origin.position)
    np.testing.assert_array_equal(whole.load()[0], slabs.load()[0])


def test_channels_are_taken_all_and_scaled_one_by_one() -> None:
    source = np.stack([noise((40, 40)), noise((40, 40), 1) // 10])
    pairs = pairs_from_arrays([source], [source[0]], axes="CYX", target_axes="YX")
    patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=5)
    got_source, got_target = patches.load()
    assert (patches.axes, got_source.shape, got_target.shape) == ("SYXC", (5, 16, 16, 2), (5, 16, 16, 1))
    assert 0.5 < got_source[..., 0].max() / got_source[..., 1].max() < 2


def test_projection_targets_have_no_projected_axis() -> None:
    stack = noise((6, 40, 40))
    for target, axes in ((stack.max(0), "YX"), (stack.max(0, keepdims=True), "ZYX")):
        pairs = pairs_from_arrays([stack], [target], axes="ZYX", target_axes=axes)
        patches = sample_patches(
            pairs,
            patch_size=(6, 16, 16),
            n_patches_per_image=5,
            reduced="Z",
            percentiles=None,
            foreground=None,
        )
        source, got = patches.load()
        np.testing.assert_array_equal(source.max(axis=1), got)


# Split ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(50, 90), st.integers(50, 90)),
    patch=st.tuples(st.integers(4, 16), st.integers(4, 16)),
    images=st.integers(1, 4),
    fraction=st.floats(0.05, 0.4),
    by=st.sampled_from(["auto", "image", "block"]),
    gap=st.integers(0, 5),
    seed=st.integers(0, 100),
)
def test_no_validation_pixel_is_a_training_pixel(shape, patch, images, fraction, by, gap, seed) -> None:
    if by == "image" and images < 2:
        by = "block"
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), 40)
    position = np.stack(
        [rng.integers(0, d - p + 1, len(image)) for d, p in zip(shape, patch, strict=True)], axis=1
    )
    training, validation = split_patches(
        image, position, patch_size=patch, fraction=fraction, by=by, gap_px=gap, seed=seed
    )
    assert len(training)
    assert len(validation)
    painted = np.zeros((images, *shape), bool)
    for row in training:
        y, x = position[row]
        painted[image[row], y : y + patch[0], x : x + patch[1]] = True
    for row in validation:
        y, x = position[row]
        assert not painted[image[row], y : y + patch[0], x : x + patch[1]].any()


def test_training_keeps_its_distance_from_validation_blocks() -> None:
    position = np.arange(100)[:, np.newaxis]
    training, validation = split_patches(
        np.zeros(100, int), position, patch_size=(8,), fraction=0.2, gap_px=5
    )
    held, kept = position[validation, 0], position[training, 0]
    gap = kept.min() - (held.max() + 8) if kept.min() > held.max() else held.min() - (kept.max() + 8)
    assert gap == 5
    # 8 + 5 - 1 patches lie across.
    assert len(training) + len(validation) == 100 - 12


def test_csbdeeps_split_does_leak_where_ours_does_not() -> None:
    # The last tenth of shuffled patches, as csbdeep takes it: most of its pixels are trained on.
    _, _, patches = sampled(shape=(256, 256), n=200, images=1, patch=(64, 64), foreground=None)
    order = np.random.default_rng(0).permutation(200)
    shares = []
    for training, validation in (
        (order[:180], order[180:]),
        split_patches(patches.origin.image, patches.origin.position, patch_size=(64, 64), fraction=0.1),
    ):
        seen, held = (np.zeros((256, 256), bool) for _ in range(2))
        for rows, canvas in ((training, seen), (validation, held)):
            for y, x in patches.origin.position[rows]:
                canvas[y : y + 64, x : x + 64] = True
        shares.append((seen & held).sum() / held.sum())
    assert shares[0] > 0.9
    assert shares[1] == 0


def test_one_image_gives_about_the_share_that_is_asked_for() -> None:
    # The size of an FMD image; a border that only saves patches would leave 2 of 128 for validation.
    position = np.random.default_rng(0).integers(0, 512 - 64 + 1, (128, 2))
    training, validation = split_patches(np.zeros(128, int), position, patch_size=(64, 64), fraction=0.1)
    assert 0.07 < len(validation) / (len(training) + len(validation)) < 0.14
    assert len(training) + len(validation) > 100


def test_whole_images_validate_when_there_are_many() -> None:
    _, _, patches = sampled(images=10, n=4)
    training, validation = patches.split(0.2)
    assert set(training.origin.image) | set(validation.origin.image) == set(range(10))
    assert not set(training.origin.image) & set(validation.origin.image)
    assert len(validation) == 8


def targets_apart(training, validation) -> bool:
    """Whether no value of a validation target is in a training target, where every pixel has its own value."""
    seen = [set(part.load()[1].ravel().tolist()) for part in (training, validation)]
    assert seen[0]
    assert seen[1]
    return not seen[0] & seen[1]


def own_values(number: int) -> np.ndarray:
    return 4000 * number + np.arange(48 * 48, dtype=np.float32).reshape(48, 48)


@given(
    shown=st.lists(st.integers(0, 9), min_size=2, max_size=12),
    fraction=st.floats(0.1, 0.4),
    seed=st.integers(0, 50),
)
@settings(deadline=None, max_examples=25)
def test_sources_that_share_a_target_are_split_as_one_image(shown, fraction, seed) -> None:
    # Several sources of one target, as the sets of a simulation are: `shown` says which target each has.
    targets = [own_values(number) for number in shown]
    sources = [noise((48, 48), index) for index in range(len(shown))]
    pairs = pairs_from_arrays(sources, targets, axes="YX")
    patches = sample_patches(
        pairs, patch_size=(6, 6), n_patches_per_image=24, foreground=None, percentiles=None, seed=seed
    )
    assert targets_apart(*patches.split(fraction, seed=seed))


def test_the_pairs_of_one_target_stay_together_in_a_file(tmp_path: Path) -> None:
    targets = [own_values(index // 2) for index in range(10)]
    pairs = pairs_from_arrays([noise((48, 48), i) for i in range(10)], targets, axes="YX")
    patches = sample_patches(
        pairs, patch_size=(6, 6), n_patches_per_image=20, foreground=None, percentiles=None
    )
    for name in ("a.npz", "a.zarr"):
        back = open_patches(save_patches(patches, tmp_path / name))
        assert set(back.origin.group) == {0, 2, 4, 6, 8}
        assert targets_apart(*back.split(0.1))
    # Split by file, as before groups were known, the same target is on both sides.
    rows = split_patches(patches.origin.image, patches.origin.position, patch_size=(6, 6), fraction=0.1)
    assert not targets_apart(*(patches.select(part) for part in rows))


def test_what_the_manifest_calls_one_image_is_one(tmp_path: Path) -> None:
    # Targets that differ, of two clean images; 0 and 2 are linked by their name, 2 and 3 by their pixels.
    for index, value in enumerate((0, 1, 2, 2)):
        for folder in ("source", "target"):
            write_image(tmp_path / folder / f"p{index}.tif", Image(own_values(value), "YX"))
    (tmp_path / "manifest.csv").write_text("name,image,set\np0,cell,mild\np1,other,mild\np2,cell,strong\n")
    pairs = pairs_from_folders(tmp_path / "source", tmp_path / "target")
    assert [pair.image for pair in pairs] == ["cell", "other", "cell", ""]
    patches = sample_patches(pairs, patch_size=(8, 8), n_patches_per_image=2)
    assert patches.origin.group.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    (tmp_path / "manifest.csv").write_text("something else\n")
    assert not any(pair.image for pair in pairs_from_folders(tmp_path / "source", tmp_path / "target"))


def test_large_equal_images_are_recognised_by_some_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "SLAB_BYTES", 4000)
    targets = [own_values(number) for number in (0, 1, 0)]
    pairs = pairs_from_arrays([noise((48, 48), i) for i in range(3)], targets, axes="YX")
    patches = sample_patches(pairs, patch_size=(8, 8), n_patches_per_image=1)
    assert patches.origin.group.tolist() == [0, 1, 0]


def test_an_image_too_small_to_split_is_said() -> None:
    _, _, patches = sampled(shape=(20, 20), images=1)
    with pytest.raises(InputError, match="take smaller patches"):
        patches.split(0.1)
    with pytest.raises(InputError, match="at least two images"):
        patches.split(0.1, by="image")
    with pytest.raises(InputError, match="between 0 and 1"):
        patches.split(1.0)


# Files ------------------------------------------------------------------------------------------------------


def test_patches_written_to_either_file_come_back(tmp_path: Path) -> None:
    _, _, patches = sampled()
    for name in ("a.npz", "a.zarr"):
        back = open_patches(save_patches(patches, tmp_path / name))
        indices = np.array([12, 0, 19])
        for got, expected in zip(back.batch(indices), patches.batch(indices), strict=True):
            np.testing.assert_array_equal(got, expected)
        assert (back.axes, back.names, len(back)) == ("SYXC", ("image 0", "image 1"), 20)
        np.testing.assert_array_equal(back.origin.position, patches.origin.position)
        training, validation = back.split(0.3)
        np.testing.assert_array_equal(training.origin.position, patches.split(0.3)[0].origin.position)
        assert validation.batch(np.arange(1))[0].shape == (1, 16, 16, 1)


def test_large_images_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise((100, 100), dtype="float32")
    whole = Ranks([values], total=values.size).at(50.0)
    monkeypatch.setattr("care_bridge.patches.scale._SAMPLE", 2500)
    part = Ranks([values], total=values.size)
    assert part.size == 2500
    assert part.at(50.0) == pytest.approx(whole, rel=0.05)


def test_the_npz_is_csbdeeps(tmp_path: Path) -> None:
    _, _, patches = sampled()
    path = save_patches(patches, tmp_path / "a.something")
    assert path.name == "a.npz"
    with np.load(path) as file:
        assert file["X"].shape == (20, 1, 16, 16)
        assert file["Y"].dtype == np.float32
        assert str(file["axes"]) == "SCYX"


def test_a_file_of_csbdeep_splits_with_a_warning(tmp_path: Path) -> None:
    x = np.arange(10 * 4 * 4, dtype=np.float32).reshape(10, 1, 4, 4)
    np.savez(tmp_path / "a.npz", X=x, Y=x, axes="SCYX")
    patches = load_patches(tmp_path / "a.npz")
    with pytest.warns(LeakingSplitWarning, match="the last 2 validate"):
        training, validation = patches.split(0.2)
    assert (len(training), len(validation)) == (8, 2)
    assert validation.load()[0][0, 0, 0, 0] == x[8, 0, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((2, 1, 4, 4))}, "lacks Y"),
        ({"X": np.zeros((2, 1, 4, 4)), "Y": np.zeros((2, 1, 4, 4))}, "give axes, e.g. axes='SCYX'"),
        (
            {"X": np.zeros((2, 1, 4, 4)), "Y": np.zeros((3, 1, 4, 4)), "axes": "SCYX"},
            r"X has shape \(2, 1, 4, 4\), Y",
        ),
        ({"X": np.zeros((2, 4, 4)), "Y": np.zeros((2, 4, 4)), "axes": "SYX"}, "must start with S and hold C"),
    ],
)
def test_training_files_that_do_not_fit_are_said(tmp_path, content, message) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(InputError, match=message):
        load_patches(tmp_path / "a.npz")


def test_what_is_no_training_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK not really")
    with pytest.raises(InputError, match="not a training file"):
        load_patches(tmp_path / "a.npz")
    with pytest.raises(InputError, match="holds no patches"):
        open_patches(tmp_path / "none.zarr")


def test_folders_give_pairs_in_the_order_of_their_names(tmp_path: Path) -> None:
    for seed, name in enumerate("cab"):
        for folder in ("low", "high"):
            write_image(tmp_path / folder / f"{name}.tif", Image(noise((40, 50), seed), "YX"))
    pairs = pairs_from_folders(tmp_path / "low", tmp_path / "high")
    assert [pair.name for pair in pairs] == ["a.tif", "b.tif", "c.tif"]
    patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=3)
    arrays = pairs_from_arrays(
        [noise((40, 50), seed) for seed in (1, 2, 0)],
        [noise((40, 50), seed) for seed in (1, 2, 0)],
        axes="YX",
    )
    expected = sample_patches(arrays, patch_size=(16, 16), n_patches_per_image=3)
    np.testing.assert_array_equal(patches.load()[0], expected.load()[0])


def test_all_files_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    for name, low, high in (
        ("a", (40, 50), None),
        ("b", (40, 50), (40, 51)),
        ("c", (40, 50), (40, 50)),
        ("d", (9, 9), (9, 9)),
    ):
        write_image(tmp_path / "low" / f"{name}.tif", Image(noise(low), "YX"))
        if high:
            write_image(tmp_path / "high" / f"{name}.tif", Image(noise(high), "YX"))
    (tmp_path / "low" / "e.tif").write_bytes(b"no tiff")
    (tmp_path / "high").mkdir(exist_ok=True)
    (tmp_path / "high" / "e.tif").write_bytes(b"no tiff")
    with pytest.raises(InputError) as caught:
        pairs_from_folders(tmp_path / "low", tmp_path / "high")
    message = str(caught.value)
    assert message.startswith("3 of 5 image pairs")
    for part in ("a.tif: has no target", "b.tif: source (axes YX", "e.tif: ", "is not a TIFF"):
        assert part in message
    pairs = pairs_from_arrays([noise((40, 50)), noise((9, 9))], [noise((40, 50)), noise((9, 9))], axes="YX")
    with pytest.raises(InputError, match="image 1: is smaller than a patch along Y, X"):
        sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": (16,)}, "one positive number a letter"),
        ({"n_patches_per_image": 0}, "at least 1"),
        ({"reduced": "Z"}, "must hold every letter of reduced"),
    ],
)
def test_wrong_arguments_are_named(arguments, message) -> None:
    pairs = pairs_from_arrays([noise((40, 40))], [noise((40, 40))], axes="YX")
    with pytest.raises(InputError, match=message):
        sample_patches(pairs, **({"patch_size": (16, 16), "n_patches_per_image": 2} | arguments))


def test_missing_and_empty_folders_and_uneven_lists_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        pairs_from_folders(tmp_path / "none", tmp_path)
    (tmp_path / "low").mkdir()
    with pytest.raises(InputError, match="no file fits"):
        pairs_from_folders(tmp_path / "low", tmp_path)
    with pytest.raises(InputError, match="2 sources and 1 targets"):
        pairs_from_arrays([1, 2], [1], axes="YX")
    with pytest.raises(InputError, match="no image pairs"):
        sample_patches([], patch_size=(8, 8), n_patches_per_image=1)


def test_constant_images_are_named() -> None:
    flat = np.zeros((40, 40), np.uint8)
    pairs = pairs_from_arrays([flat], [flat], axes="YX", names=["dark.tif"])
    with pytest.raises(InputError, match=r"dark\.tif: no patch passes the foreground filter"):
        sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=1)
    source, _ = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=1, foreground=None).load()
    assert source.max() == 0


def test_movies_need_to_be_told_what_a_patch_is() -> None:
    movie = noise((5, 40, 40))
    pairs = pairs_from_arrays([movie], [movie], axes="TYX")
    with pytest.raises(InputError, match="has T"):
        sample_patches(pairs, patch_size=(16, 16), axes="YX", n_patches_per_image=1)


def test_zarr_arrays_are_read_patch_by_patch(tmp_path: Path) -> None:
    import zarr

    stacks = noise((3, 6, 40, 50), dtype="float32")
    for name in ("low", "high"):
        array = zarr.create_array(str(tmp_path / name), shape=stacks.shape, chunks=(1, 2, 16, 16), dtype="f4")
        array[...] = stacks
    pairs = pairs_from_zarr(tmp_path / "low", tmp_path / "high", axes="SZYX")
    assert [pair.name for pair in pairs] == ["low[0]", "low[1]", "low[2]"]
    patches = sample_patches(pairs, patch_size=(4, 16, 16), n_patches_per_image=3)
    memory = pairs_from_arrays(list(stacks), list(stacks), axes="ZYX")
    expected = sample_patches(memory, patch_size=(4, 16, 16), n_patches_per_image=3)
    np.testing.assert_array_equal(patches.load()[0], expected.load()[0])
    with pytest.raises(InputError, match="no zarr at"):
        pairs_from_zarr(tmp_path / "none", tmp_path / "high", axes="ZYX")


def test_files_that_cannot_be_mapped_are_kept_only_up_to_the_limit(tmp_path: Path) -> None:
    for name in "abcd":
        for folder in ("low", "high"):
            write_image(tmp_path / folder / f"{name}.tif", Image(noise((40, 50)), "YX"), compression="zlib")
    pairs = pairs_from_folders(tmp_path / "low", tmp_path / "high")
    small = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=3, cache_bytes=9000)
    large = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=3)
    np.testing.assert_array_equal(small.load()[0], large.load()[0])
    assert len(small._opened) == 2  # 4,000 bytes each
    assert len(large._opened) == 8


def test_patches_load_no_tensorflow() -> None:
    code = "import sys, care_bridge.patches, care_bridge.images, care_bridge.metrics; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_nothing_is_warned_about_in_ordinary_images() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampled(dtype="float32")[2].load()


def test_memory_does_not_grow_with_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    import zarr

    monkeypatch.setattr(looking, "SLAB_BYTES", 1 << 20)
    peaks = []
    for planes in (64, 128):
        path = tmp_path / f"{planes}"
        volume = zarr.create_array(
            str(path), shape=(planes, 128, 128), chunks=(16, 128, 128), dtype="u2", compressors=None
        )
        volume[...] = np.resize(noise((16, 128, 128)), volume.shape)
        pairs = pairs_from_zarr(path, path, axes="ZYX")
        tracemalloc.start()
        patches = sample_patches(pairs, patch_size=(8, 32, 32), n_patches_per_image=8)
        save_patches(patches, tmp_path / "patches.zarr")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (
        peaks[1] - peaks[0] < 2**20
    )  # the second volume is 2 MiB larger, and read whole it is copied several times
