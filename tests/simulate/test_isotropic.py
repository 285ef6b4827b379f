from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.simulate import isotropic
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.optics import Optics, gaussian_sigmas_um, psf
from care_bridge.simulate.recipe import parse_recipe

LOW = Optics(na=0.8, immersion_index=1.33, emission_nm=600)


def test_the_split_kernel_makes_a_lateral_section_axial() -> None:
    kernel = isotropic.axial_kernel(LOW, pixel_um=0.15)
    sizes = {"Z": 0.15, "Y": 0.15, "X": 0.15}
    axial, lateral = (psf(LOW, pixel_size_um=sizes, axes=axes) for axes in ("ZX", "YX"))
    again = signal.fftconvolve(kernel, lateral, mode="same")
    assert np.abs(again - axial).max() < 0.03 * axial.max()
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1)


def test_the_split_kernel_of_gaussians_is_the_closed_form() -> None:
    # Variances of Gaussians add, so the kernel's axial one is axial^2 - lateral^2 and its lateral one 0.
    optics = LOW.model_copy(update={"model": "gaussian"})
    sigma_xy, sigma_z = gaussian_sigmas_um(optics, 0.6)
    kernel = isotropic.axial_kernel(optics, pixel_um=0.1, iterations=2000)
    z = (np.arange(kernel.shape[0]) - kernel.shape[0] // 2) * 0.1
    spread = np.sqrt((kernel.sum(axis=1) * z**2).sum())
    assert spread == pytest.approx(np.sqrt(sigma_z**2 - sigma_xy**2), rel=0.05)
    simple = isotropic.axial_kernel(optics, pixel_um=0.1, mode="gaussian")
    z = (np.arange(len(simple)) - len(simple) // 2) * 0.1
    assert np.sqrt((simple.sum(axis=1) * z**2).sum()) == pytest.approx(
        np.sqrt(sigma_z**2 - sigma_xy**2), rel=0.01
    )


@pytest.mark.parametrize(
    ("length", "factor", "expected"),
    [
        (128, 4, (4, 128)),
        (130, 4, (4, 128)),
        (100, 10, (10, 100)),
        (119, 10, (10, 110)),
        (128, 2.5, (2.5, 125)),
        # 6.5 samples of 13 px each fit only in 117 px.
        (128, 6.5, (6.5, 117)),
        # 10 of 3.3: multiples of 33 px fit 99 of 128, more than a fifth is lost, so csbdeep takes 3.
        (128, 3.3, (3.0, 126)),
    ],
)
def test_the_factor_and_the_size_fit_together(
    length: int, factor: float, expected: tuple[float, int]
) -> None:
    assert isotropic.usable_factor(length, factor) == expected


@pytest.mark.parametrize(("length", "factor"), [(11, 6), (8, 0.5), (5, 9)])
def test_a_factor_that_leaves_too_little_is_refused(length: int, factor: float) -> None:
    with pytest.raises(InputError, match="factor"):
        isotropic.usable_factor(length, factor)


@pytest.mark.tf
@pytest.mark.filterwarnings("ignore:It is strongly recommended to use an appropriate PSF")  # csbdeep's
@pytest.mark.parametrize("factor", [2, 4, 10, 2.5])
@pytest.mark.parametrize("axis", ["Y", "X"])
def test_pairs_are_those_of_csbdeep(factor: float, axis: str, clean_image: Callable[..., Image]) -> None:
    # csbdeep 0.8.2 (BSD-3), data.anisotropic_distortions without noise, with the same kernel.
    csbdeep_data = pytest.importorskip("csbdeep.data")
    image = clean_image(shape=(70, 62))
    kernel = isotropic.axial_kernel(LOW, pixel_um=0.1)
    kernel = kernel if axis == "Y" else kernel.T
    # csbdeep fills beyond the border with zeros: keep away from it.
    reach = max(kernel.shape) // 2
    padded = np.pad(image.data.astype(np.float32), reach, mode="symmetric")
    transform = csbdeep_data.anisotropic_distortions(
        1, kernel.astype(np.float32), subsample_axis=axis
    ).generator
    ((blurred, _, _, _),) = list(transform([(padded, padded, "YX", None)]))
    blurred = blurred[reach:-reach, reach:-reach]
    sample = csbdeep_data.anisotropic_distortions(factor, None, subsample_axis=axis).generator
    ((source, _, _, _),) = list(sample([(blurred, blurred, "YX", None)]))
    ((_, target, _, _),) = list(sample([(image.data, image.data, "YX", None)]))
    recipe = parse_recipe(
        f"""
        name: check
        sets:
          - name: one
            steps:
              - {{step: axial_psf, optics: {{na: 0.8, immersion_index: 1.33, emission_nm: 600}}, axis: {axis}}}
              - {{step: subsample, factor: {factor}, axis: {axis}}}
        """,
        name="check.yaml",
    )
    (pair,) = make_pairs(recipe, [image])
    np.testing.assert_array_equal(pair.target.data, target)
    np.testing.assert_allclose(pair.source.data, source, rtol=1e-4, atol=0.01 * float(np.max(source)) ** 0.5)
    assert pair.parameters["subsample.factor"] == factor


def test_a_stack_is_blurred_slice_by_slice(clean_image: Callable[..., Image]) -> None:
    stack = clean_image(shape=(3, 64, 64))
    pairs = list(make_pairs("isotropic", [stack]))
    assert [pair.set for pair in pairs] == ["along-y", "along-x"]
    for index in range(3):
        alone = stack.replace(data=stack.data[index], axes="YX")
        for pair, plane in zip(pairs, make_pairs("isotropic", [alone]), strict=True):
            np.testing.assert_allclose(pair.source.data[index], plane.source.data, rtol=1e-5)


def test_both_axes_are_degraded_alike(clean_image: Callable[..., Image]) -> None:
    image = clean_image()
    turned = image.replace(data=image.data.T)
    along_y, along_x = make_pairs("isotropic", [image])
    turned_y, turned_x = make_pairs("isotropic", [turned])
    np.testing.assert_allclose(along_y.source.data, turned_x.source.data.T, rtol=1e-5)
    np.testing.assert_allclose(along_x.source.data, turned_y.source.data.T, rtol=1e-5)


def test_pixels_that_are_not_square_are_refused(clean_image: Callable[..., Image]) -> None:
    image = clean_image().replace(pixel_size_um={"Y": 0.1, "X": 0.2})
    with pytest.raises(InputError, match="square pixels"):
        list(make_pairs("isotropic", [image]))


def test_subsampling_keeps_the_ends_and_draws_straight_lines_between() -> None:
    # Two of ten samples are left, the first and the last: a line from 3 to 12.
    data = np.array([3.0, 50, 50, 50, 50, 50, 50, 50, 50, 12])
    found = isotropic.subsample(np.stack([data, data]), factor=5, dimension=1)
    np.testing.assert_allclose(found, [np.linspace(3, 12, 10)] * 2)
