"""The noise of one image: simulated images with known values, and what is said of them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, shift

from care_bridge.errors import InputError
from care_bridge.images import Image, read_image
from care_bridge.noise import Noise, NoiseRange, measure_channels, measure_noise
from care_bridge.simulate.camera import CameraSetting, expose

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def scene(side: int = 384, seed: int = 0, finest: float = 2.0) -> np.ndarray:
    """Spots and filaments of a microscope's sharpness on a sloping background; 1 is the white level."""
    random = np.random.default_rng(seed)
    field = np.zeros((side, side))
    for size, count in ((finest, 300), (2 * finest, 80), (8 * finest, 20)):
        spots = np.zeros((side, side))
        spots[tuple(random.integers(0, side, (2, count)))] = random.uniform(0.3, 1, count)
        spots = gaussian_filter(spots, size)
        field += spots / spots.max()
    field /= np.percentile(field, 99.8)
    return np.asarray(0.95 * field + np.linspace(0.0, 0.05, side), np.float64)


def taken(*, side: int = 384, seed: int = 0, **setting: float) -> Image:
    """The scene as a camera takes it, with whole grey levels unless `levels` is 0."""
    given = {"gain": 2.0, "offset": 100.0, "read_noise": 1.0, "levels": 1 << 16, **setting}
    grey = expose(scene(side, seed), CameraSetting(**given), rng=np.random.default_rng(seed + 1))  # type: ignore[arg-type]
    return Image(grey if not given["levels"] else grey.astype(np.uint16), "YX")


# ---- numbers


@pytest.mark.parametrize(
    ("photons", "gain", "neighbours"),
    [
        (photons, gain, neighbours)
        for photons in (5, 30, 200)
        for gain, neighbours in ((2.0, 0.0), (0.5, 0.0), (20.0, 0.3), (2.0, 0.6), (2.0, 0.8))
        if (photons, neighbours) != (5, 0.8)  # see the next test
    ],
)
def test_gain_photons_and_correlation_are_those_of_the_camera(
    photons: float, gain: float, neighbours: float
) -> None:
    found = measure_noise(taken(photons=photons, gain=gain, neighbours=neighbours, seed=3))
    # Where neighbours share so much, little of the noise is finer than the structure.
    tolerance = 0.15 if neighbours < 0.5 else 0.35
    assert found.gain == pytest.approx(gain, rel=tolerance)
    assert found.photons == pytest.approx(photons, rel=tolerance + 0.1, abs=2)
    assert found.correlation_x == pytest.approx(neighbours, abs=0.06)
    assert found.correlation_y == pytest.approx(neighbours, abs=0.06)
    assert found.correlated is (neighbours > 0.2)
    light = max(found.background - 100, 0) / gain
    assert found.read_noise == pytest.approx(math.sqrt(1 + light), abs=0.4 if neighbours < 0.7 else 0.6)
    assert found.noise_bright == pytest.approx(gain * math.sqrt(photons + 1), rel=0.2)
    assert not found.unknown


def test_gain_is_not_told_where_correlated_noise_hides_the_brightness_of_blocks() -> None:
    found = measure_noise(taken(photons=5, neighbours=0.8, seed=3))
    assert found.gain is None
    assert found.correlation == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("seed", range(6))
def test_white_noise_on_other_scenes_is_white(seed: int) -> None:
    found = measure_noise(taken(photons=40, seed=seed))
    assert found.correlation is not None
    assert found.correlation < 0.1
    assert found.gain == pytest.approx(2, rel=0.12)
    assert (found.rows, found.columns) == (0, 0)


@pytest.mark.parametrize("blur", [1.0, 2.0, 4.0])
def test_blurred_structure_is_not_taken_for_correlated_noise(blur: float) -> None:
    camera = CameraSetting(photons=60, read_noise=1, gain=2, offset=100)
    blurred = gaussian_filter(scene(), blur)
    found = measure_noise(Image(expose(blurred, camera, rng=np.random.default_rng(0)), "YX"))
    assert found.correlation is not None
    assert found.correlation < 0.1


def test_correlation_along_one_axis_is_told_from_the_other() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 5, (384, 384))
    noise = (noise + 0.5 * np.roll(noise, 1, axis=1)) / math.sqrt(1.25)
    found = measure_noise(Image(np.asarray(100 + 200 * scene() + noise, np.float32), "YX"))
    assert found.correlation_x == pytest.approx(0.4, abs=0.05)  # 0.5 / 1.25
    assert found.correlation_y == pytest.approx(0.0, abs=0.05)
    assert found.correlation == found.correlation_x


@pytest.mark.parametrize("rows", [0.15, 0.3, 0.5])
def test_rows_are_measured_as_the_simulation_has_them_and_columns_are_none(rows: float) -> None:
    found = measure_noise(taken(photons=50, rows=rows))
    assert found.rows == pytest.approx(rows, rel=0.25)
    assert found.columns == 0
    assert found.correlation is not None
    assert found.correlation < 0.1  # what a row shares is not what neighbours share


@pytest.mark.parametrize("photons", [5, 50])
def test_hot_pixels_are_counted_and_few_photons_are_none(photons: float) -> None:
    clean = measure_noise(taken(photons=photons, read_noise=0.1, gain=20))
    assert clean.hot_share < 1e-5
    found = measure_noise(taken(photons=50, hot_share=2e-4))
    assert found.hot_share == pytest.approx(2e-4, rel=0.6)  # those below the noise are not seen


def test_eight_bits_saturation_and_steps_are_seen() -> None:
    camera = CameraSetting(photons=30, read_noise=1, gain=12, offset=10, levels=256)
    grey = expose(scene(), camera, rng=np.random.default_rng(0))
    found = measure_noise(Image(grey.astype(np.uint8), "YX"))
    assert found.saturated_share == pytest.approx(np.mean(grey == 255), rel=1e-6)
    assert found.saturated_share > 0.001
    assert found.step == 1
    assert found.gain == pytest.approx(12, rel=0.15)
    assert measure_noise(taken(photons=30)).saturated_share == 0
    scaled = Image(np.asarray(grey * 257, np.uint16), "YX")
    assert measure_noise(scaled).step == 257
    assert measure_noise(taken(photons=30, levels=0)).step == 0


def test_noise_finer_than_the_grey_levels_is_said() -> None:
    image = Image(np.rint(10 + 100 * scene() + np.random.default_rng(0).normal(0, 0.15, (384, 384))), "YX")
    found = measure_noise(image)
    assert found.quantised
    assert "coarser than the noise" in str(found)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (257.0, 0.0), (1e-6, 0.002), (0.004, -0.3)])
def test_numbers_follow_the_scale_and_offset_of_the_grey_levels(scale: float, offset: float) -> None:
    plain = taken(photons=30, levels=0)
    found = measure_noise(plain.replace(data=np.asarray(plain.data * scale + offset, np.float64)))
    asked = measure_noise(plain)
    assert asked.gain is not None
    assert found.gain == pytest.approx(asked.gain * scale, rel=0.02)
    assert found.photons == pytest.approx(asked.photons, rel=0.02)
    assert found.noise_background == pytest.approx(asked.noise_background * scale, rel=0.02)
    assert found.correlation_x == pytest.approx(asked.correlation_x, abs=0.02)


def test_a_clean_image_is_clean_and_a_noisy_one_is_not() -> None:
    assert measure_noise(taken(photons=20_000)).clean
    assert not measure_noise(taken(photons=30)).clean
    expected = 20 * math.log10(30 / math.sqrt(1 + 30 * scene().mean()))
    assert measure_noise(taken(photons=30)).decibel == pytest.approx(expected, abs=1)


def test_the_finest_detail_is_finer_in_a_sharper_image() -> None:
    def detail(blur: float) -> float:
        camera = CameraSetting(photons=300, gain=2, offset=100)
        grey = expose(gaussian_filter(scene(), blur), camera, rng=np.random.default_rng(0))
        return measure_noise(Image(grey, "YX")).detail_px or math.inf

    assert detail(0) < detail(2) < detail(5)


# ---- what cannot be told


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.full((64, 64), 7, np.uint8), "every pixel is 7"),
        (np.full((64, 64), np.nan, np.float32), "every pixel is 0"),
        (np.random.default_rng(0).normal(100, 5, (12, 9)), "too small"),
        (np.random.default_rng(0).normal(100, 5, (256, 256)), "gain and photons cannot be told"),
        (np.kron(np.eye(2), np.full((128, 128), 200)), "too much of it is cut off"),
    ],
)
def test_what_cannot_be_told_is_none_and_said(data: np.ndarray, said: str) -> None:
    found = measure_noise(Image(data, "YX"))
    assert found.gain is found.photons is found.variance_at_zero is None
    assert said in "; ".join(found.unknown)
    assert said in str(found)
    assert all(math.isfinite(value) for value in found.as_dict().values() if isinstance(value, float))


def test_noise_of_one_level_is_measured_though_its_gain_is_not() -> None:
    found = measure_noise(Image(np.random.default_rng(0).normal(1000, 7, (256, 256)), "YX"))
    assert found.noise_background == pytest.approx(7, rel=0.05)
    assert found.correlation == pytest.approx(0, abs=0.05)


def test_holes_and_boxes_that_were_filled_in_are_left_out() -> None:
    image = taken(photons=30, levels=0)
    data = np.array(image.data)
    data[100:180, 30:200] = 0
    data[5:40, 300:350] = np.nan
    found = measure_noise(image.replace(data=data))
    assert found.gain == pytest.approx(2, rel=0.15)
    assert found.correlation == pytest.approx(0, abs=0.06)


# ---- stacks and channels


def test_planes_of_a_stack_are_taken_together() -> None:
    planes = np.stack([taken(photons=40, side=128, seed=seed).data for seed in range(12)])
    found = measure_noise(Image(planes, "ZYX"))
    assert found.gain == pytest.approx(2, rel=0.1)
    assert measure_noise(Image(np.moveaxis(planes, 0, -1), "YXZ")) == found


def test_channels_are_measured_by_themselves() -> None:
    both = Image(np.stack([taken(photons=200).data, taken(photons=10).data]), "CYX")
    with pytest.raises(InputError, match="2 channels, whose noise differs; name one with channel="):
        measure_noise(both)
    bright, dim = measure_channels(both)
    assert bright == measure_noise(both, channel=0)
    assert bright.photons == pytest.approx(200, rel=0.2)
    assert dim.photons == pytest.approx(10, rel=0.3)
    assert len(measure_channels(taken(photons=10, side=64))) == 1


def test_a_million_pixels_take_less_than_a_second() -> None:
    image = Image(np.random.default_rng(0).normal(100, 5, (1024, 1024)).astype(np.float32), "YX")
    # Of processor time, so that a busy machine does not count.
    started = time.process_time()
    measure_noise(image)
    assert time.process_time() - started < 1.0


# ---- what a model was trained for


WHITE = NoiseRange(photons=(10.0, 200.0), correlation=(0.0, 0.05), rows=(0.0, 0.0))


def noise(**changes: float) -> Noise:
    plain = {"correlation_x": 0.0, "correlation_y": 0.0, "photons": 50.0, "gain": 2.0}
    return Noise(100.0, 200.0, 2.0, 5.0, 14.0, **{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"photons": 6.0}, None),  # within a factor of 2
        ({"photons": 390.0}, None),
        ({"photons": 4.0}, "it is dimmer (about 4 photons at the bright end)"),
        ({"photons": 500.0}, "it is brighter (about 500 photons"),
        ({"correlation_x": 0.15}, None),
        (
            {"correlation_x": 0.4},
            "share their noise (coefficient 0.40), and the model was trained for white noise",
        ),
        ({"correlation_y": 0.4}, "share their noise (coefficient 0.40)"),
        (
            {"rows": 0.4},
            "its rows differ by 0.4 of a pixel's noise, and the model was trained with none of that",
        ),
        (
            {"noise_mean": 0.5},
            "nearly clean (46 dB), and a network may do harm; if at all, a Gaussian filter of 0.6",
        ),
    ],
)
def test_what_lies_outside_a_models_range_is_a_sentence(changes: dict[str, float], said: str | None) -> None:
    base = noise(**{key: value for key, value in changes.items() if key != "noise_mean"})
    if "noise_mean" in changes:
        base = Noise(**{**vars(base), "noise_mean": changes["noise_mean"]})
    outside = WHITE.covers(base)
    assert len(outside) == (said is not None)
    if said:
        assert said in outside[0]


def test_a_model_for_correlated_noise_is_said_to_be_for_that() -> None:
    only = NoiseRange(correlation=(0.4, 0.8))
    assert "its noise is whiter (coefficient 0.00)" in only.covers(noise())[0]
    assert NoiseRange(correlation=(0.0, 0.8)).covers(noise(correlation_x=0.7)) == []
    assert NoiseRange(correlation=(0.0, 0.4)).covers(noise(correlation_x=0.7)) != []


def test_a_model_trained_on_images_as_clean_does_no_harm() -> None:
    clean = Noise(100.0, 200.0, 0.5, 0.5, 0.5)
    assert NoiseRange().covers(clean) != []
    assert NoiseRange(decibel=(30.0, 46.0)).covers(clean) == []


def test_a_range_is_that_of_its_images_and_survives_being_written() -> None:
    found = NoiseRange.of([noise(), noise(photons=20.0, correlation_x=0.3), Noise(0, 0, 0, 0, 0)])
    assert found.photons == (20.0, 50.0)
    assert found.correlation == (0.0, 0.3)
    assert NoiseRange.from_dict(found.as_dict()) == NoiseRange.from_dict(found.as_dict())
    assert NoiseRange.from_dict(found.as_dict()).photons == (20.0, 50.0)
    assert NoiseRange.of([]) == NoiseRange() == NoiseRange.from_dict({})


@pytest.mark.parametrize(
    "recorded", [None, 3, [], {"photons": "many"}, {"photons": [1, None]}, {"photons": [1]}]
)
def test_a_record_that_is_none_is_as_if_nobody_knew(recorded: object) -> None:
    assert NoiseRange.from_dict(recorded) == NoiseRange()


# ---- real frames, whose noise is known from the mean of 50


@pytest.mark.skipif(not DATA.is_dir(), reason="the real pairs are not part of the repository")
@pytest.mark.parametrize("name", ["BPAE_R", "BPAE_G", "BPAE_B", "fish", "mice"])
def test_real_frames_have_the_noise_that_is_known_from_the_mean_of_fifty(name: str) -> None:
    frame = read_image(DATA / "pairs_fmd" / f"{name}_noisy.tif")
    mean = read_image(DATA / "pairs_fmd" / f"{name}_gt_avg50.tif").data.astype(np.float64)
    found = measure_noise(frame)
    grey = frame.data.astype(np.float64)
    moved = min(
        (shift(mean, (down / 4, right / 4), mode="nearest") for down in range(-3, 4) for right in (-1, 0, 1)),
        key=lambda one: float(np.mean((grey - one)[8:-8, 8:-8] ** 2)),
    )
    # The frame is one of the fifty.
    difference, truth = (grey - moved)[8:-8, 8:-8] * math.sqrt(50 / 49), moved[8:-8, 8:-8]
    # Where the mean is steep, its half pixel of motion counts more than the noise.
    steep = gaussian_gradient_magnitude(truth, 1.5)
    bins = np.digitize(truth, np.quantile(truth, (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)))
    points = []
    for number in range(9):
        among = bins == number
        among &= steep <= np.median(steep[among])
        points.append((truth[among].mean(), difference[among].var()))
    x, y = np.array(points).T
    gain = np.polyfit(x, y, 1, w=1 / y)[0]
    assert found.gain == pytest.approx(gain, rel=0.15)
    assert found.correlation == pytest.approx(0.05, abs=0.06)
