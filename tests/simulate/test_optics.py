from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.simulate.optics import Optics, from_beads, profile, psf

RECORDED = np.load(Path(__file__).with_name("data") / "psfs.npz")
OIL: dict[str, Any] = {"na": 1.4, "immersion_index": 1.518, "emission_nm": 580}
WATER: dict[str, Any] = {"na": 1.2, "immersion_index": 1.33, "emission_nm": 600}
AIR: dict[str, Any] = {"na": 0.3, "immersion_index": 1.0, "emission_nm": 600}
MISMATCH = {"coverslip_index": 1.518, "coverslip_design_index": 1.518}
VOXEL = {"Z": 0.1, "Y": 0.05, "X": 0.05}


def width(values: NDArray[np.float64], step: float) -> float:
    """Full width at half maximum of a half profile that starts at its peak."""
    values = values / values[0]
    after = int(np.argmax(values < 0.5))
    return 2 * step * (after - 1 + (values[after - 1] - 0.5) / (values[after - 1] - values[after]))


def widths(optics: Optics) -> tuple[float, float]:
    """Lateral and axial full width at half maximum, from profiles sampled every 2 nm and 50 nm."""
    lateral = profile(optics, radius_um=np.arange(1000) * 0.002, z_um=np.zeros(1))[0]
    axial = profile(optics, radius_um=np.zeros(1), z_um=np.arange(300) * 0.05)[:, 0]
    return width(lateral, 0.002), width(axial, 0.05)


# One number a formula, from the sources that Optics.lateral_fwhm_um names; n - sqrt(n^2 - NA^2) = 0.046061 for AIR.
@pytest.mark.parametrize(
    ("changes", "lateral_um", "axial_um"),
    [
        pytest.param({"model": "scalar"}, 0.51 * 0.6 / 0.3, 0.88 * 0.6 / 0.046061, id="scalar"),
        pytest.param({"model": "vectorial"}, 0.51 * 0.6 / 0.3, 0.88 * 0.6 / 0.046061, id="vectorial"),
        pytest.param(
            {"model": "gibson-lanni", "sample_index": 1.0},
            0.51 * 0.6 / 0.3,
            0.88 * 0.6 / 0.046061,
            id="gibson-lanni",
        ),
        pytest.param(
            {"microscope": "confocal", "excitation_nm": 600, "pinhole_au": 0.25},
            0.37 * 0.6 / 0.3,
            0.64 * 0.6 / 0.046061,
            id="confocal, closed pinhole",
        ),
        pytest.param(
            {"microscope": "confocal", "excitation_nm": 600, "pinhole_au": 3},
            0.51 * 0.6 / 0.3,
            0.88 * 0.6 / 0.046061,
            id="confocal, open pinhole",
        ),
        pytest.param(
            {"microscope": "two-photon", "excitation_nm": 800},
            2 * np.sqrt(np.log(2)) * 0.320 * 0.8 / (np.sqrt(2) * 0.3),
            2 * np.sqrt(np.log(2)) * 0.532 * 0.8 / np.sqrt(2) / 0.046061,
            id="two-photon",
        ),
    ],
)
def test_widths_at_small_aperture_follow_the_closed_formulas(
    changes: dict[str, Any], lateral_um: float, axial_um: float
) -> None:
    optics = Optics(**(AIR | changes))
    assert widths(optics) == pytest.approx((lateral_um, axial_um), rel=0.02)
    assert (optics.lateral_fwhm_um, optics.axial_fwhm_um) == pytest.approx((lateral_um, axial_um), rel=0.01)


@pytest.mark.parametrize(
    ("name", "settings", "pixel_average"),
    [
        ("vectorial_oil", OIL, True),
        ("vectorial_water", WATER, True),
        ("gibson_lanni", {**OIL, **MISMATCH, "model": "gibson-lanni", "sample_index": 1.518}, True),
        (
            "gibson_lanni_deep",
            {**OIL, **MISMATCH, "model": "gibson-lanni", "sample_index": 1.33, "depth_um": 2.0},
            True,
        ),
        ("gaussian", {**OIL, "model": "gaussian"}, False),
        ("confocal", {**OIL, "microscope": "confocal", "excitation_nm": 534, "pinhole_au": 1.0}, True),
    ],
)
def test_psf_is_that_of_an_independent_library(
    name: str, settings: dict[str, Any], pixel_average: bool
) -> None:
    # Recorded from psfmodels 0.3.3 by data/record_psfs.py; differences are shares of the peak.
    mine = psf(
        Optics(**settings), pixel_size_um=VOXEL, axes="ZYX", shape=(33, 33, 33), pixel_average=pixel_average
    )
    peak = mine / mine.max()
    found = np.stack([peak[:, 16, 16:], peak[16, :, 16:]])
    assert np.abs(found - RECORDED[name]).max() < 0.005


def test_two_photon_is_the_square_of_the_excitation() -> None:
    # h = h_ex^2: the recorded widefield function of psfmodels at 580 nm, squared.
    settings = {**OIL, "emission_nm": 500, "excitation_nm": 580, "microscope": "two-photon"}
    mine = psf(Optics(**settings), pixel_size_um=VOXEL, axes="ZYX", shape=(33, 33, 33), pixel_average=False)
    one = psf(Optics(**OIL), pixel_size_um=VOXEL, axes="ZYX", shape=(33, 33, 33), pixel_average=False)
    np.testing.assert_allclose(mine / mine.max(), (one / one.max()) ** 2, atol=1e-6)


@pytest.mark.parametrize("model", ["vectorial", "scalar", "gibson-lanni", "gaussian"])
@pytest.mark.parametrize("axes", ["YX", "ZYX", "ZX"])
def test_psf_has_sum_one_and_its_peak_in_the_middle(model: str, axes: str) -> None:
    kernel = psf(Optics(**OIL, model=model), pixel_size_um=VOXEL, axes=axes)  # type: ignore[arg-type]
    assert kernel.sum() == pytest.approx(1)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == tuple(size // 2 for size in kernel.shape)
    assert kernel.min() >= 0


def test_a_mismatched_psf_is_centred_too_and_has_its_tail_on_one_side() -> None:
    optics = Optics(**OIL, model="gibson-lanni", sample_index=1.33, depth_um=10)
    kernel = psf(optics, pixel_size_um=VOXEL, axes="ZYX", shape=(81, 9, 9))
    assert kernel.argmax() == kernel.size // 2
    # Water below oil focuses short: outer rays meet before the focus, so the tail lies at smaller z.
    assert kernel[:40].sum() > 1.5 * kernel[41:].sum()


def test_a_section_is_the_middle_of_the_volume() -> None:
    volume = psf(Optics(**OIL), pixel_size_um=VOXEL, axes="ZYX", shape=(9, 15, 15))
    plane = psf(Optics(**OIL), pixel_size_um=VOXEL, axes="YX", shape=(15, 15))
    np.testing.assert_allclose(plane, volume[4] / volume[4].sum(), rtol=1e-12)


def test_an_aperture_above_the_index_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"na=1.5 is not below immersion_index=1.33.*needs oil"):
        Optics(na=1.5, immersion_index=1.33, emission_nm=600)


def test_a_confocal_needs_its_laser() -> None:
    with pytest.raises(ValidationError, match="needs excitation_nm"):
        Optics(**OIL, microscope="confocal")


def test_pixels_too_coarse_are_refused_in_numbers() -> None:
    with pytest.raises(InputError, match=r"pixels of 0.5 um along Y are too coarse .* 0.255 um wide"):
        psf(Optics(**WATER), pixel_size_um={"Y": 0.5, "X": 0.1})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"X": 0.1}, "pixel size along Y is not known"), ({"Y": 0, "X": 0.1}, "must be above 0 um")],
)
def test_pixel_sizes_must_be_known(sizes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        psf(Optics(**WATER), pixel_size_um=sizes)


def test_even_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="odd size"):
        psf(Optics(**WATER), pixel_size_um=VOXEL, shape=(16, 17))


def bead_stack(centres: list[tuple[float, float, float]]) -> Image:
    """Gaussian beads of 1.5, 2 and 2 px on a background of 10."""
    grid = np.indices((41, 80, 80))
    data = np.full((41, 80, 80), 10.0)
    for centre in centres:
        far = sum(((g - c) / s) ** 2 for g, c, s in zip(grid, centre, (3, 2, 2), strict=True))
        data += 200 * np.exp(-far / 2)
    return Image(data, "ZYX", name="beads")


def test_a_measured_psf_comes_from_the_beads_that_stand_alone() -> None:
    alone, pair = (20.0, 20.3, 20.0), [(20.0, 60.0, 58.0), (20.0, 60.0, 64.0)]
    kernel = from_beads(bead_stack([alone, *pair]), shape=(21, 15, 15))
    assert kernel.sum() == pytest.approx(1)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (10, 7, 7)
    # The bead was drawn with standard deviations 3, 2, 2; linear interpolation may widen it by a little.
    profile_z = kernel.sum(axis=(1, 2))
    assert np.sqrt((profile_z * (np.arange(21) - 10.0) ** 2).sum()) == pytest.approx(3, rel=0.06)


def test_without_a_bead_that_stands_alone_it_says_so() -> None:
    with pytest.raises(InputError, match="no bead stands alone"):
        from_beads(bead_stack([(20.0, 60.0, 58.0), (20.0, 60.0, 64.0)]), shape=(21, 15, 15))


def test_the_measured_beads_of_a_confocal_look_like_its_psf(shared: Path) -> None:
    from care_bridge.images import read_image

    stack = read_image(shared / "data" / "stacks3d" / "beads_confocal.tif")
    kernel = from_beads(stack, shape=(31, 25, 25))
    middle = np.unravel_index(kernel.argmax(), kernel.shape)
    np.testing.assert_allclose(middle, (15, 12, 12), atol=1)
    # A round lens blurs Y and X alike.
    spread = [
        np.sqrt((kernel.sum(axis=other) * (np.arange(25) - 12.0) ** 2).sum()) for other in ((0, 2), (0, 1))
    ]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)
