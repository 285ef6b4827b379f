"""n2v's data generator and its helpers: which patches there are, and what stands in a blind spot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imsave

from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.metrics import psnr
from care_bridge.n2v.internals.N2V_DataGenerator import N2V_DataGenerator
from care_bridge.n2v.utils import n2v_utils
from care_bridge.n2v.utils.evaluation_utils import PSNR, best_PSNR


@pytest.mark.parametrize(
    ("dims", "shape", "given"),
    [
        ("YX", (1, 12, 10, 1), (12, 10)),
        ("TYX", (3, 12, 10, 1), (3, 12, 10)),
        ("ZYX", (1, 3, 12, 10, 1), (3, 12, 10)),
        ("YXC", (1, 12, 10, 2), (12, 10, 2)),
        ("TZCYX", (2, 3, 12, 10, 2), (2, 3, 2, 12, 10)),
    ],
)
def test_images_of_a_folder_come_sorted_with_time_first_and_channels_last(
    dims: str, shape: tuple[int, ...], given: tuple[int, ...], tmp_path: Path
) -> None:
    for number in (2, 0, 1):
        pixels = np.full(given, 10 * number, np.uint16)
        write_image(tmp_path / f"{number}.tif", Image(pixels, dims))
    axes = "".join(sorted(dims, key="TZCYX".index))  # the order in which they are written
    images = N2V_DataGenerator().load_imgs_from_directory(tmp_path, dims=axes)
    assert [image.shape for image in images] == [shape] * 3
    assert [image.dtype for image in images] == [np.float32] * 3
    assert [image.flat[0] for image in images] == [0, 10, 20]


def test_png_is_read_from_0_to_1_and_jpeg_is_refused(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).random((12, 10, 3))
    imsave(tmp_path / "a.png", picture)
    (image,) = N2V_DataGenerator().load_imgs_from_directory(tmp_path, filter="*.png", dims="YXC")
    assert image.shape == (1, 12, 10, 4)
    np.testing.assert_allclose(image[0, ..., :3], picture, atol=1 / 255)
    with pytest.raises(InputError, match=r"'a.JPG' is a JPEG.*Noise2Void cannot learn"):
        N2V_DataGenerator().load_imgs(["a.JPG"])
    with pytest.raises(InputError, match="no file fits"):
        N2V_DataGenerator().load_imgs_from_directory(tmp_path)
    with pytest.raises(InputError, match="Y and X are needed"):
        N2V_DataGenerator().load_imgs(["a.png"], dims="ZX")
    assert N2V_DataGenerator().load_imgs(["a"], image_reader=lambda name: np.ones((4, 5)))[0].shape == (
        1,
        4,
        5,
        1,
    )


@given(
    size=st.lists(st.integers(4, 11), min_size=2, max_size=3),
    patch=st.integers(2, 4),
    channels=st.integers(1, 2),
    frames=st.integers(1, 2),
)
def test_patches_lie_beside_one_another_and_are_pieces_of_the_image(
    size: list[int], patch: int, channels: int, frames: int
) -> None:
    image = np.arange(frames * np.prod(size) * channels, dtype=np.float32).reshape(frames, *size, channels)
    shape = (patch,) * len(size)
    patches = N2V_DataGenerator().generate_patches_from_list([image], shape=shape, augment=False)
    assert patches.shape == (frames * np.prod([one // patch for one in size]), *shape, channels)
    # Every pixel has a number of its own: none is there twice.
    assert len(np.unique(patches)) == patches.size
    drawn = N2V_DataGenerator(seed=1).generate_patches_from_list([image], 5, shape=shape, augment=False)
    assert drawn.shape == (5 * frames, *shape, channels)
    again = N2V_DataGenerator(seed=1).generate_patches_from_list([image], 5, shape=shape, augment=False)
    np.testing.assert_array_equal(drawn, again)


def test_each_patch_comes_in_its_eight_positions() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    patches = N2V_DataGenerator().generate_patches(image, shape=(4, 4))[..., 0]
    assert len({patch.tobytes() for patch in patches}) == 8
    plane = image[0, ..., 0]
    positions = [np.rot90(side, turns) for side in (plane, plane.T) for turns in range(4)]
    for patch in patches:
        assert sum(np.array_equal(patch, position) for position in positions) == 1
    with pytest.warns(UserWarning, match="cannot be turned"):
        assert len(N2V_DataGenerator().generate_patches(image, shape=(4, 2))) == 2
    with pytest.raises(InputError, match="give a smaller shape"):
        N2V_DataGenerator().generate_patches(image, shape=(8, 8))


def test_a_random_seed_of_numpy_gives_the_same_patches_again() -> None:
    image = np.random.default_rng(0).random((1, 32, 32, 1))
    found = []
    for _ in range(2):
        np.random.seed(3)
        found.append(N2V_DataGenerator().generate_patches(image, 4, shape=(8, 8)))
    np.testing.assert_array_equal(*found)


# --- n2v_utils


MANIPULATORS = {
    "pm_mean": np.mean,
    "pm_median": np.median,
}


@pytest.mark.parametrize("name", MANIPULATORS)
@pytest.mark.parametrize("dims", [2, 3])
def test_what_fills_a_spot_is_reckoned_from_the_pixels_around(name: str, dims: int) -> None:
    patch = np.random.default_rng(0).random((9,) * dims)
    inner, corner = (4,) * dims, (0,) * dims
    coords = np.array([inner, corner]).T
    found = getattr(n2v_utils, name)(1)(patch, coords, dims)
    for at, value in zip((inner, corner), found, strict=True):
        window = [tuple(np.add(at, off)) for off in itertools.product((-1, 0, 1), repeat=dims) if any(off)]
        around = np.array([patch[one] for one in window if min(one) >= 0])
        assert value == pytest.approx(MANIPULATORS[name](around))


def test_what_fills_a_spot_comes_from_where_it_says() -> None:
    patch = np.arange(400).reshape(20, 20)
    coords = (np.full(300, 10), np.full(300, 7))
    here = patch[10, 7]
    assert set(n2v_utils.pm_identity(1)(patch, coords, 2)) == {here}
    assert n2v_utils.pm_normal_additive(0)(patch, coords, 2) == [here] * 300
    around = {float(patch[y, x]) for y in range(9, 12) for x in range(6, 9)}
    assert set(n2v_utils.pm_uniform_withCP(1)(patch, coords, 2)) == around
    assert set(n2v_utils.pm_uniform_withoutCP(1)(patch, coords, 2)) == around - {float(here)}
    assert here not in n2v_utils.pm_normal_withoutCP(1)(patch, coords, 2)
    masked = n2v_utils.pm_uniform_withoutCP(1)(patch, coords, 2, structN2Vmask=[[1, 1, 1]])
    assert set(masked) == {value for value in around if not 10 * 20 <= value < 11 * 20}
    fitted = np.array(n2v_utils.pm_normal_fitted(1)(patch, coords, 2))
    spread = np.std([*around])
    assert abs(fitted.mean() - here) < 4 * spread / np.sqrt(300)
    assert fitted.std() == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("shape", [(32, 40), (8, 16, 16)])
def test_validation_patches_get_spots_values_and_masks_in_place(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    whole = rng.random((3, *shape, 2)).astype(np.float32)
    source, target = whole.copy(), np.ones((3, *shape, 4), np.float32)
    n2v_utils.manipulate_val_data(
        source, target, perc_pix=1.5, shape=shape, value_manipulation=lambda p, c, d: 7
    )
    value, mask = target[..., :2], target[..., 2:]
    assert mask.mean() == pytest.approx(1 / 64, rel=0.05)  # boxes of 8 x 8, or 4 x 4 x 4
    np.testing.assert_array_equal(source[mask == 0], whole[mask == 0])
    assert (source[mask == 1] == 7).all()
    np.testing.assert_array_equal(value, whole * mask)


def test_coordinates_nearby_lie_in_the_patch() -> None:
    for _ in range(50):
        near = n2v_utils.random_neighbor((20, 30), (0, 29))
        assert near[0] != 0
        assert near[1] != 29
        assert 0 <= near[0] < 20
        assert 0 <= near[1] < 30
    np.testing.assert_array_equal(n2v_utils.mask_center(1), [[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    assert n2v_utils.mask_center(2, ndims=3).sum() == 124


def test_a_window_is_cut_at_the_border_or_moved_inwards() -> None:
    patch = np.arange(100).reshape(10, 10)
    window, before, after = n2v_utils.get_subpatch(patch, (0, 9), 1)
    np.testing.assert_array_equal(window, patch[:2, 8:])
    np.testing.assert_array_equal(before, [-1, 0])
    np.testing.assert_array_equal(after, [0, 1])
    np.testing.assert_array_equal(
        n2v_utils.get_subpatch(patch, (0, 9), 1, crop_patch=False)[0], patch[:3, 7:]
    )
    np.testing.assert_array_equal(n2v_utils.get_subpatch(patch, (4, 5), 1)[0], patch[3:6, 4:7])


@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 2)))
def test_eight_positions_turned_back_are_the_image(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape)
    positions = n2v_utils.tta_forward(image)
    assert len(positions) == 8
    np.testing.assert_allclose(n2v_utils.tta_backward(positions), image)
    np.testing.assert_allclose(
        n2v_utils.tta_backward([one * 0 for one in positions[:4]] + positions[4:]), image / 2
    )


def test_autocorrelation_tells_how_far_noise_is_shared() -> None:
    noise = np.random.default_rng(0).normal(5, 2, (128, 128))
    shared = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, -1, axis=1)) / 3
    middle = 64
    for image, beside in ((noise, 0), (shared, 2 / 3)):
        found = n2v_utils.autocorrelation(image)
        assert found[middle, middle] == pytest.approx(1)
        assert found[middle, middle + 1] == pytest.approx(beside, abs=0.03)
        assert found[middle + 1, middle] == pytest.approx(0, abs=0.03)


def test_signal_to_noise_is_that_of_the_range_that_is_given() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((20, 20))
    image: Any = truth + rng.normal(0, 0.1, (20, 20))
    by_hand = 20 * np.log10(2.0) - 10 * np.log10(np.mean((truth - image) ** 2))
    assert PSNR(truth, image, 2.0) == pytest.approx(by_hand) == psnr(image, truth, data_range=2.0)
    assert best_PSNR(truth, 3 * image + 7, 2.0) == pytest.approx(best_PSNR(truth, image, 2.0))
    assert best_PSNR(truth, image, 2.0) >= PSNR(truth, image, 2.0)
