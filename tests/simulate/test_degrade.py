from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, signal

from care_bridge.errors import InputError
from care_bridge.simulate import degrade

RECORDED = np.load(Path(__file__).with_name("data") / "minimum.npz")
RADII = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


@pytest.fixture
def uneven() -> np.ndarray:
    """The image that data/record_minimum.py gave to ImageJ."""
    y, x = np.mgrid[:23, :31]
    return ((37 * x + 101 * y + 7 * x * y + x**3) % 251).astype(np.uint8)


@pytest.mark.parametrize("radius", RADII)
def test_minimum_filter_is_imagejs_pixel_for_pixel(uneven: np.ndarray, radius: float) -> None:
    # Recorded from ImageJ 1.54p by data/record_minimum.py.
    np.testing.assert_array_equal(
        degrade.minimum_filter(uneven, radius_px=radius), RECORDED[f"radius_{radius}"]
    )


@pytest.mark.java
@pytest.mark.usefixtures("imagej_ready")
def test_minimum_filter_is_that_of_the_macro_command(uneven: np.ndarray, tmp_path: Path) -> None:
    from care_bridge.images import Image, read_image, write_image
    from care_bridge.java.imagej import ImageJ

    write_image(tmp_path / "in.tif", Image(uneven, "YX"))
    lines = [
        f'open("{tmp_path}/in.tif"); run("Minimum...", "radius={radius}"); '
        f'saveAs("Tiff", "{tmp_path}/out_{radius}.tif"); close();'
        for radius in RADII
    ]
    macro = tmp_path / "minimum.ijm"
    macro.write_text("\n".join(lines))
    with ImageJ(open_network=lambda path: pytest.fail(f"no network is wanted: {path}")) as imagej:
        imagej.run_macro(macro)
    for radius in RADII:
        np.testing.assert_array_equal(
            degrade.minimum_filter(uneven, radius_px=radius), read_image(tmp_path / f"out_{radius}.tif").data
        )


def test_minimum_filter_works_slice_by_slice_on_any_axes(uneven: np.ndarray) -> None:
    stack = np.stack([uneven, uneven[::-1]], axis=-1)
    found = degrade.minimum_filter(stack, radius_px=2, axes="YXC")
    np.testing.assert_array_equal(found[..., 1], degrade.minimum_filter(uneven[::-1], radius_px=2))


def test_a_radius_that_would_change_the_structure_is_refused(uneven: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"radius 2 px is more than 25% .* use at most 1.5 px"):
        degrade.minimum_filter(uneven, radius_px=2, structure_px=6)


def test_minimum_filter_thins_a_line_by_twice_the_radius() -> None:
    image = np.zeros((41, 41))
    image[:, 15:26] = 1
    assert degrade.minimum_filter(image, radius_px=2)[20].sum() == 11 - 2 * 2


def test_convolution_keeps_the_mean_and_puts_a_point_where_it_was() -> None:
    image = np.zeros((31, 32))
    image[12, 20] = 5
    kernel = np.arange(1.0, 16).reshape(3, 5)
    found = degrade.convolve(image, psf=kernel)
    assert found.sum() == pytest.approx(5, rel=1e-12)
    # By definition of a convolution, a point becomes the kernel, its middle on the point.
    np.testing.assert_allclose(found[11:14, 18:23], 5 * kernel / kernel.sum(), atol=1e-12)


def test_convolution_is_scipys_with_reflected_borders() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.uniform(size=(5, 12, 14)), rng.uniform(size=(3, 5, 5))
    expected = ndimage.convolve(image, kernel / kernel.sum(), mode="reflect")
    np.testing.assert_allclose(degrade.convolve(image, psf=kernel, axes="ZYX"), expected, atol=1e-12)


def test_each_channel_can_have_its_own_psf() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 12, 14))
    kernels = np.stack([np.ones((3, 3)), signal.windows.gaussian(9, 1)[3:6, None] * np.ones((3, 3))])
    found = degrade.convolve(image, psf=kernels, axes="CYX")
    for channel in range(2):
        np.testing.assert_allclose(found[channel], degrade.convolve(image[channel], psf=kernels[channel]))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones(3), "1 dimensions"),
        (-np.ones((3, 3)), "negative"),
        (np.zeros((3, 3)), "not all zero"),
        (np.ones((3, 3, 3)), "3 point spread functions were given for 1 channels"),
    ],
)
def test_impossible_psfs_are_refused(kernel: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        degrade.convolve(np.ones((8, 8)), psf=kernel)


def degraded(order: str, *, size: int = 400) -> np.ndarray:
    """A flat image of 0.4 through photon noise (80 at white), camera noise and exposure, in an order."""
    rng = np.random.default_rng(5)
    data: np.ndarray = np.full((size, size), 0.4)
    for step in order:
        if step == "P":
            data = degrade.poisson(data, photons=80, reference=1.0, rng=rng)
        elif step == "G":
            data = degrade.gaussian(data, sigma=0.05, intensity=1.2, rng=rng)
        else:
            data = degrade.modulate(data, factor=0.7, white=None)
    return data


def test_noise_follows_the_law_of_the_papers_order_and_not_of_another() -> None:
    # Constant c, N photons at white, camera noise a * sigma, exposure m: mean m c, variance
    # m^2 (c / N + a^2 sigma^2). With Poisson after the exposure its share would be m c / N, not m^2 c / N.
    c, photons, sigma, a, m = 0.4, 80, 0.05, 1.2, 0.7
    law = m**2 * (c / photons + (a * sigma) ** 2)
    swapped_law = m * c / photons + (a * sigma) ** 2 * m**2
    for order, expected, other in (("PGM", law, swapped_law), ("MPG", None, law)):
        data = degraded(order)
        count = data.size
        assert data.mean() == pytest.approx(m * c, abs=3 * np.sqrt(data.var() / count))
        # Standard error of a variance: var * sqrt((kurtosis - 1) / n); the kurtosis here is 3 to 3.1.
        error = data.var() * np.sqrt(2.1 / count)
        assert abs(data.var() - other) > 3 * error
        if expected is not None:
            assert abs(data.var() - expected) < 3 * error


def test_photon_noise_has_the_variance_of_its_photons() -> None:
    rng = np.random.default_rng(1)
    data = degrade.poisson(np.full(200_000, 3.0), photons=50, reference=3.0, rng=rng)
    counts = data / 3.0 * 50
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert counts.mean() == pytest.approx(50, abs=3 * np.sqrt(50 / data.size))
    assert counts.var() == pytest.approx(50, abs=3 * 50 * np.sqrt(2.02 / data.size))


def test_thinning_gives_what_less_light_would() -> None:
    # Binomial thinning of Poisson counts of rate 600 to 1/60 is Poisson of rate 10: mean and variance 10.
    rng = np.random.default_rng(2)
    counts = degrade.thin(rng.poisson(600, size=200_000), fraction=1 / 60, rng=rng)
    assert counts.mean() == pytest.approx(10, abs=3 * np.sqrt(10 / counts.size))
    assert counts.var() == pytest.approx(10, abs=3 * 10 * np.sqrt(2.1 / counts.size))


def test_over_exposure_clips_at_the_white_level() -> None:
    found = degrade.modulate(np.array([0.2, 0.6, 0.9]), factor=1.5)
    np.testing.assert_allclose(found, [0.3, 0.9, 1.0])


def test_rounding_rounds_and_never_wraps() -> None:
    grey, clipped = degrade.quantize(np.array([-0.1, 0.0, 0.5019, 1.0, 1.7]), dtype="uint8")
    assert grey.tolist() == [0, 0, 128, 255, 255]
    assert clipped == pytest.approx(2 / 5)


def test_an_offset_is_the_grey_level_of_no_light_and_white_stays_the_largest() -> None:
    grey, clipped = degrade.quantize(np.array([-0.5, -0.2, 0.0, 1.0, 3.0]), dtype="uint8", white=2, offset=51)
    # 204 levels for a white of 2: -0.5 is 51 levels below the offset, 3 is half as much again as white.
    assert grey.tolist() == [0, 31, 51, 153, 255]
    assert clipped == 1 / 5


def test_rounding_adds_a_twelfth_of_a_grey_value_of_variance() -> None:
    rng = np.random.default_rng(3)
    data = rng.uniform(0.2, 0.8, size=200_000)
    error = degrade.quantize(data, dtype="uint8")[0] - data * 255
    assert error.var() == pytest.approx(1 / 12, rel=0.01)


def test_snr_knows_a_known_ratio_whatever_the_brightness() -> None:
    # Signal of variance 1, noise of variance 0.01: 20 dB.
    rng = np.random.default_rng(4)
    target = rng.standard_normal(200_000)
    source = 7 + 3 * (target + 0.1 * rng.standard_normal(target.size))
    assert degrade.snr_db(source, target) == pytest.approx(20, abs=0.05)
    assert np.isnan(degrade.snr_db(source, np.ones_like(target)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rng: degrade.poisson(np.ones(3), photons=0, rng=rng),
        lambda rng: degrade.gaussian(np.ones(3), sigma=-1, rng=rng),
        lambda _: degrade.modulate(np.ones(3), factor=0),
        lambda _: degrade.quantize(np.ones(3), dtype="int8"),
        lambda rng: degrade.thin(np.ones(3), fraction=1.5, rng=rng),
        lambda _: degrade.imagej_kernel_half_widths(-1),
        lambda _: degrade.minimum_filter(np.ones((3, 3)), radius_px=1, axes="ZX"),
    ],
)
def test_impossible_numbers_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match=r"received|needs axes"):
        wrong(np.random.default_rng(0))  # type: ignore[operator]
