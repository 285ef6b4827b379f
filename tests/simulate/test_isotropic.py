from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import signal
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate import isotropic
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.optics import Optics, gaussian_sigmas_um, psf
from care_bridge.simulate.recipe import load_recipe, parse_recipe

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


CONFOCAL = {"excitation_nm": 532, "microscope": "confocal"}


@pytest.mark.parametrize(
    ("more", "expected", "recipe"),
    [
        # Measured on psf() itself, whose laws are held elsewhere; a plane of a wide-field loses no light out of focus.
        ({}, 0.88, "isotropic"),
        (CONFOCAL, 0.255, "isotropic-confocal"),
        (CONFOCAL | {"pinhole_au": 3.0}, 0.68, "isotropic"),
        ({"excitation_nm": 532, "microscope": "two-photon"}, 0.14, "isotropic-confocal"),
    ],
)
def test_haze_tells_microscopes_that_cut_slices_from_those_that_do_not(
    more: dict[str, object], expected: float, recipe: str
) -> None:
    optics = Optics(**(LOW.model_dump(exclude_defaults=True) | more))
    pixel_um = optics.lateral_fwhm_um / 3
    share = isotropic.haze(psf(optics, pixel_size_um=dict.fromkeys("ZYX", pixel_um), axes="ZYX"))
    assert share == pytest.approx(expected, abs=0.03)
    assert isotropic.recipe_for(share) == recipe


def test_each_isotropic_recipe_says_what_is_to_be_expected() -> None:
    for name, says in isotropic.EXPECTED.items():
        (said,) = load_recipe(name).expected()
        assert says in said
    assert load_recipe("isotropic").expected()[0].startswith("a plane gets 90% of the light")
    assert load_recipe("mito").expected() == []


def beads(function: np.ndarray, *, step_um: float = 0.2, x_um: float = 0.1) -> Image:
    """Two beads far from each other."""
    stack = np.zeros((61, 120, 120), np.float32)
    stack[30, 40, 40] = stack[30, 80, 80] = 1000
    stack = signal.fftconvolve(stack, function, mode="same").astype(np.float32)
    return Image(
        np.maximum(stack, 0), "ZYX", pixel_size_um={"Z": step_um, "Y": x_um, "X": x_um}, name="beads.tif"
    )


@pytest.mark.parametrize(("more", "recipe"), [({}, "isotropic"), (CONFOCAL, "isotropic-confocal")])
def test_beads_choose_the_recipe_and_blur_by_themselves(
    more: dict[str, object], recipe: str, tmp_path: Path
) -> None:
    optics = Optics(na=1.0, immersion_index=1.33, emission_nm=600, **more)
    sizes = {"Z": 0.2, "Y": 0.1, "X": 0.1}
    write_image(tmp_path / "beads.tif", beads(psf(optics, pixel_size_um=sizes, axes="ZYX")))
    clean = np.random.default_rng(1).integers(100, 900, (64, 64)).astype(np.uint16)
    write_image(tmp_path / "clean" / "cell.tif", Image(clean, "YX", pixel_size_um={"Y": 0.1, "X": 0.1}))
    out = tmp_path / "out"
    words = ["simulate", "isotropic", tmp_path / "clean", "--beads", tmp_path / "beads.tif", "--out", out]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert f"care-bridge: {recipe}: a plane gets " in done.stderr
    assert load_recipe(out / "recipe.yaml").name == recipe
    found = read_image(out / "psf" / "along-y.tif").data
    wanted = isotropic.axial_kernel(optics, pixel_um=0.1)
    # As long as the optics' own: beads are sampled at 0.2 um and drawn again at 0.1 um.
    lengths = [
        np.sqrt((line * (np.arange(len(line)) - len(line) // 2) ** 2).sum() / line.sum())
        for line in (kernel.sum(axis=1) for kernel in (found, wanted))
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.15)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mito", "--beads", "there.tif"], "has no such step"),
        (["isotropic", "--beads", "missing.tif"], "there is no file"),
        (["isotropic", "--beads", "there.tif"], "tells its sizes along Z, Y and X"),
        (["isotropic", "--beads", "flat.tif"], "tells its sizes along Z, Y and X"),
    ],
)
def test_beads_that_do_not_serve_are_refused_in_a_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack = beads(np.ones((1, 1, 1)))
    write_image(tmp_path / "there.tif", stack.replace(pixel_size_um={}))
    write_image(tmp_path / "flat.tif", Image(stack.data[30], "YX", pixel_size_um={"Y": 0.1, "X": 0.1}))
    write_image(tmp_path / "cell.tif", Image(np.ones((32, 32), np.uint16), "YX"))
    done = CliRunner().invoke(app, ["simulate", words[0], "cell.tif", *words[1:], "--out", "out"])
    assert done.exit_code == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()
