from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from care_bridge.errors import InputError
from care_bridge.simulate import structures

SAMPLES = [structures.tubules, structures.granules, structures.sarcomeres, structures.nuclei]


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("shape", [(48, 56), (12, 40, 44)])
def test_samples_have_the_shape_and_are_the_same_for_the_same_seed(sample, shape) -> None:
    first, again, other = sample(shape, seed=3), sample(shape, seed=3), sample(shape, seed=4)
    assert first.shape == shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() == 1
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("sample", SAMPLES)
def test_two_channels_share_what_they_are_told_to(sample) -> None:
    same = sample((160, 160), seed=1, channels=2, shared=1.0)
    apart = sample((160, 160), seed=1, channels=2, shared=0.0)
    some = sample((160, 160), seed=1, channels=2, shared=0.5)
    assert same.shape == (2, 160, 160)
    correlation = [float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1]) for pair in (apart, some, same)]
    assert correlation[0] < 0.3
    assert correlation[0] < correlation[1] < correlation[2]
    assert correlation[2] > 0.9


def test_a_spot_is_integrated_over_its_pixels() -> None:
    # A Gaussian's integral over pixels equals a 16 times finer sampling, averaged.
    fine = np.indices((9 * 16, 11 * 16)) / 16 - 0.5 + 1 / 32
    expected = np.exp(-(((fine[0] - 4.3) ** 2) + (fine[1] - 5.8) ** 2) / (2 * 0.7**2)) / (2 * np.pi * 0.7**2)
    expected = expected.reshape(9, 16, 11, 16).mean(axis=(1, 3))
    found = structures.splat((9, 11), np.array([[4.3, 5.8]]), weights=np.ones(1), sigma_px=0.7)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert found.sum() == pytest.approx(1, abs=1e-3)


def test_spots_at_the_border_lose_what_lies_outside() -> None:
    found = structures.splat((20, 20), np.array([[-0.5, 10.0]]), weights=np.ones(1), sigma_px=1.0)
    assert found.sum() == pytest.approx(0.5, abs=1e-4)


def test_tubules_are_as_wide_as_said_and_bend_gently() -> None:
    image = structures.tubules((200, 200), seed=2, count=1, width_px=1.5)
    skeleton = image > 0.5 * image.max()
    # A Gaussian of 1.5 px is 3.5 px wide at half maximum, along its whole length.
    distance = ndimage.distance_transform_edt(skeleton)
    assert 1.4 < distance.max() < 3.0


def test_sarcomeres_repeat_at_the_period() -> None:
    image = structures.sarcomeres((256, 256), seed=5, period_px=16, fibril_px=12)
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256), indexing="ij"))
    period = 1 / frequency.ravel()[power.ravel().argmax()]
    # The image's own period lies within 10 % of what was asked for.
    assert 16 * 0.88 < period < 16 * 1.12


def test_nuclei_do_not_touch() -> None:
    image = structures.nuclei((128, 128), seed=1, count=10, radius_px=(8, 8))
    assert ndimage.label(image > 0)[1] == 10


def test_nuclei_of_coarse_planes_are_flat_in_pixels() -> None:
    image = structures.nuclei((9, 96, 96), seed=2, count=4, radius_px=(12, 12), voxel_aspect=4.0)
    boxes = ndimage.find_objects(ndimage.label(image > 0)[0])
    whole = [box for box in boxes if box[0].start > 0 and box[0].stop < 9]
    for z, y, x in whole:
        assert (z.stop - z.start) < 0.5 * max(y.stop - y.start, x.stop - x.start)


def test_granules_are_dense_as_said() -> None:
    image = structures.granules((200, 200), seed=1, density=0.1, cluster_share=0, sigma_px=(0.7, 0.7))
    peaks = (image == ndimage.maximum_filter(image, 5)) & (image > 0.02)
    # 0.1 per 100 px makes 40; a few fall together or off the border.
    assert 33 <= peaks.sum() <= 41


def test_perlin_noise_is_smooth_and_fills_its_range() -> None:
    noise = structures.perlin((128, 128), seed=1, period_px=32, octaves=1)
    assert noise.min() == 0
    assert noise.max() == 1
    # 6 t^5 - 15 t^4 + 10 t^3 rises by at most 1.875 a period; dots add at most as much again.
    assert np.abs(np.diff(noise, axis=0)).max() < 0.2
    power = np.abs(np.fft.rfft2(noise - noise.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    assert power[frequency < 2 / 32].sum() > 0.9 * power.sum()


def test_perlin_octaves_add_detail() -> None:
    rough = structures.perlin((64, 64), seed=1, period_px=32, octaves=4)
    smooth = structures.perlin((64, 64), seed=1, period_px=32, octaves=1)
    assert np.abs(np.diff(rough)).mean() > 1.5 * np.abs(np.diff(smooth)).mean()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: structures.tubules((5,), seed=0),
        lambda: structures.granules((0, 5), seed=0),
        lambda: structures.nuclei((16, 16), seed=0, shared=2, channels=2),
        lambda: structures.perlin((8, 8), seed=0, period_px=0),
    ],
)
def test_impossible_samples_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="received"):
        wrong()
