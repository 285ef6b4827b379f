"""Data generation under csbdeep's names, held against the installed csbdeep with the same random draws."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

import care_bridge.csbdeep.data as ours
from care_bridge.csbdeep.io import load_training_data, save_tiff_imagej_compatible, save_training_data
from care_bridge.errors import InputError
from care_bridge.patches import LeakingSplitWarning

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def theirs(oracle):
    import csbdeep.data

    return csbdeep.data


def both(theirs, make):
    """The same call in both packages, after the same seed."""
    results = []
    for module in (theirs, ours):
        np.random.seed(7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(make(module))
    return results


def assert_equal_patches(theirs, make) -> None:
    (x1, y1, axes1), (x2, y2, axes2) = both(theirs, make)
    assert axes1 == axes2
    np.testing.assert_array_equal(x2, x1)
    np.testing.assert_array_equal(y2, y1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "axes", "patch"),
    [
        ((64, 72), "YX", (16, 16)),
        ((2, 64, 72), "CYX", (2, 16, 32)),
        ((8, 40, 44), "ZYX", (4, 16, 16)),
        ((40, 44, 3), "YXC", (15, 17, 3)),
    ],
)
def test_patches_are_csbdeeps_bit_for_bit(theirs, images, shape, axes, patch, dtype) -> None:
    x, y = images(shape, dtype=dtype)
    assert_equal_patches(
        theirs, lambda m: m.create_patches(m.RawData.from_arrays(x, y, axes), patch, 20, verbose=False)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"patch_filter": None},
        {"shuffle": False},
        {"normalization": None},
        {"patch_axes": "XY"},
    ],
)
def test_patches_are_csbdeeps_with_other_options(theirs, images, options) -> None:
    x, y = images()
    assert_equal_patches(
        theirs,
        lambda m: m.create_patches(m.RawData.from_arrays(x, y, "YX"), (16, 24), 9, verbose=False, **options),
    )


def test_filters_and_scales_are_csbdeeps(theirs, images) -> None:
    x, y = images()
    assert_equal_patches(
        theirs,
        lambda m: m.create_patches(
            m.RawData.from_arrays(x, y, "YX"),
            (16, 24),
            200,  # more than there are positions
            patch_filter=m.no_background_patches(0.8, 99),
            normalization=m.norm_percentiles((2, 99.5), relu_last=True),
            verbose=False,
        ),
    )
    sampler = {"pmin": (0.5, 1), "pmax": (98, 99)}
    assert_equal_patches(
        theirs,
        lambda m: m.create_patches(
            m.RawData.from_arrays(x, y, "YX"),
            (16, 24),
            5,
            normalization=m.norm_percentiles(m.sample_percentiles(**sampler)),
            verbose=False,
        ),
    )


def test_own_filters_and_normalisations_are_called_as_csbdeep_calls_them(theirs, images) -> None:
    x, y = images()

    def top(datas, patch_size):
        mask = np.zeros(datas[0].shape, bool)
        mask[:40] = True
        return mask

    def halve(patches_x, patches_y, x, y, mask, channel):
        return patches_x / 2, patches_y / 2

    assert_equal_patches(
        theirs,
        lambda m: m.create_patches(
            m.RawData.from_arrays(x, y, "YX"),
            (16, 16),
            5,
            patch_filter=top,
            normalization=halve,
            verbose=False,
        ),
    )


def test_projection_patches_are_csbdeeps(theirs, images) -> None:
    stacks, _ = images((6, 40, 44))
    targets = [stack.max(0) for stack in stacks]
    assert_equal_patches(
        theirs,
        lambda m: m.create_patches_reduced_target(
            m.RawData.from_arrays(stacks, targets, "ZYX"),
            (None, 16, 16),
            7,
            "Z",
            target_axes="YX",
            verbose=False,
        ),
    )


@pytest.mark.parametrize("subsample", [1, 2, 3, 2.5, 3.7])
@pytest.mark.parametrize(
    ("shape", "axes", "psf_axes"), [((6, 40, 60), "ZYX", "YX"), ((2, 40, 60), "CYX", "YX")]
)
def test_anisotropic_distortions_are_csbdeeps(theirs, images, subsample, shape, axes, psf_axes) -> None:
    x, _ = images(shape, n=1)
    psf = np.outer([1, 2, 1], [1, 2, 4, 2, 1]).astype(np.float64)

    def make(m):
        transform = m.anisotropic_distortions(subsample, psf, psf_axes=psf_axes, gauss_sigma=3)
        return next(iter(transform.generator([(x[0], x[0], axes, None)])))[:3]

    (x1, y1, axes1), (x2, y2, axes2) = both(theirs, make)
    assert axes1 == axes2
    np.testing.assert_array_equal(y2, y1)
    np.testing.assert_allclose(x2, x1, atol=1e-3)  # of 4,000 grey levels: the PSF is divided in float32


def test_poisson_noise_keeps_the_fraction_of_the_mean() -> None:
    # csbdeep cuts 0.9 photons down to 0 and gives nothing at all (care-training.md, section 1.1).
    dim = np.full((100, 100), 0.9, np.float32)
    with pytest.warns(UserWarning, match="no psf"):
        transform = ours.anisotropic_distortions(1, None, poisson_noise=True)
    noisy = next(iter(transform.generator([(dim, dim, "YX", None)])))[0]
    assert 0.85 < noisy.mean() < 0.95


@pytest.mark.parametrize("chain", ["permute", "crop", "broadcast"])
def test_transforms_are_csbdeeps(theirs, images, chain) -> None:
    x, y = images((6, 40, 44))
    pairs = [(x[0], y[0][:1] if chain == "broadcast" else y[0], "ZYX", x[0] > 500)]

    def make(m):
        transform = {
            "permute": lambda: m.permute_axes("YXZ"),
            "crop": lambda: m.crop_images((slice(1, 4), slice(None), slice(0, -5))),
            "broadcast": m.broadcast_target,
        }[chain]()
        return next(iter(transform.generator(pairs)))

    (x1, y1, axes1, mask1), (x2, y2, axes2, mask2) = both(theirs, make)
    assert axes1 == axes2
    for one, other in ((x1, x2), (y1, y2), (mask1, mask2)):
        np.testing.assert_array_equal(one, other)


def test_a_transformed_chain_gives_csbdeeps_patches(theirs, images) -> None:
    x, y = images((6, 40, 60))
    psf = np.ones((3, 5))

    def make(m):
        transforms = [
            m.crop_images((slice(None), slice(0, 36), slice(None))),
            m.anisotropic_distortions(2.0, psf, psf_axes="YX"),
        ]
        raw = m.RawData.from_arrays(x, y, "ZYX")
        return m.create_patches(raw, (1, 16, 16), 8, patch_axes="ZYX", transforms=transforms, verbose=False)

    (x1, y1, _), (x2, y2, _) = both(theirs, make)
    np.testing.assert_array_equal(y2, y1)
    np.testing.assert_allclose(x2, x1, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("shape", "axes"), [((40, 44), "YX"), ((3, 40, 44), "CYX"), ((5, 6, 7, 2), "ZYXC")])
def test_percentile_normalisers_are_csbdeeps(theirs, shape, axes, dtype) -> None:
    x = np.random.default_rng(0).gamma(1, 60, shape).clip(0, 255).astype(dtype)
    results = []
    for module in (theirs, ours):
        normalizer = module.PercentileNormalizer(2, 99.8)
        before = normalizer.before(x, axes)
        results.append([before, *normalizer.after(before * 1.5, np.abs(before), axes)])
    for expected, got in zip(*results, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_a_normaliser_undoes_where_an_axis_was_projected_away(theirs) -> None:
    x = np.random.default_rng(0).gamma(1, 60, (4, 10, 12, 1)).astype(np.float32)
    results = []
    for module in (theirs, ours):
        normalizer = module.PercentileNormalizer()
        results.append(normalizer.after(normalizer.before(x, "ZYXC").max(0), None, "YXC")[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (1, 9), (16, 16), (17, 30)])
def test_resizers_are_csbdeeps(theirs, shape) -> None:
    x = np.random.default_rng(0).random(shape)
    results = []
    for module in (theirs, ours):
        resizer = module.PadAndCropResizer()
        padded = resizer.before(x, "YX", (4, 8))
        results.append((padded, resizer.after(padded, "YX")))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[1][1], x)


def test_no_resizer_names_every_size_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"5 \(axis Y\) by 4, 7 \(axis X\) by 2"):
        ours.NoResizer().before(np.zeros((5, 7)), "YX", (4, 2))


def test_shuffles_are_csbdeeps(theirs) -> None:
    expected, got = np.arange(40).reshape(20, 2), np.arange(40).reshape(20, 2)
    theirs.shuffle_inplace(expected, seed=3)
    ours.shuffle_inplace(got, seed=3)
    np.testing.assert_array_equal(got, expected)


# Files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, images) -> Path:
    x, y = images()
    for name, source, target in zip("cab", x, y, strict=True):
        for folder, image in (("low", source), ("high", target)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", image)
    return tmp_path


def test_folders_come_sorted_with_names(folders: Path) -> None:
    raw = ours.RawData.from_folder(folders, ["low"], "high", axes="YX")
    assert raw.names == ("low/a.tif", "low/b.tif", "low/c.tif")
    assert raw.size == 3
    x, y, axes, mask = next(raw.generator())
    assert (x.shape, y.shape, axes, mask) == ((64, 72), (64, 72), "YX", None)


def test_every_missing_target_is_named(folders: Path) -> None:
    for name in "ac":
        (folders / "high" / f"{name}.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 3 targets.*a\.tif.*c\.tif"):
        ours.RawData.from_folder(folders, ["low"], "high", axes="YX")
    with pytest.raises(FileNotFoundError, match="no image fits"):
        ours.RawData.from_folder(folders, ["low"], "high", axes="YX", pattern="*.png")


def test_an_image_that_does_not_fit_is_named(images) -> None:
    x, y = images()
    raw = ours.RawData.from_arrays(x, [y[0], y[1][:30], y[2]], "YX")
    with pytest.raises(InputError, match=r"image 1: source has shape \(64, 72\), target \(30, 72\)"):
        ours.create_patches(raw, (16, 16), 4)
    with pytest.raises(InputError, match=r"image 0: patch_size \(80, 16\) does not fit"):
        ours.create_patches(ours.RawData.from_arrays(x, y, "YX"), (80, 16), 4)
    with pytest.raises(InputError, match="image 0: no patch passes the filter"):
        ours.create_patches(ours.RawData.from_arrays([x[0]], [y[0] * 0], "YX"), (16, 16), 4)


def test_a_seed_makes_patches_without_the_global_generator(images) -> None:
    x, y = images()
    raw = ours.RawData.from_arrays(x, y, "YX")
    np.random.seed(1)
    first = ours.create_patches(raw, (16, 16), 5, seed=3)[0]
    np.random.seed(2)
    np.testing.assert_array_equal(ours.create_patches(raw, (16, 16), 5, seed=3)[0], first)


def test_the_training_file_of_either_package_opens_in_the_other(oracle, tmp_path: Path, images) -> None:
    import csbdeep.io as their_io

    x, y = images()
    made = ours.create_patches(
        ours.RawData.from_arrays(x, y, "YX"), (16, 16), 20, save_file=tmp_path / "a.npz"
    )
    (x1, y1), _, axes = their_io.load_training_data(str(tmp_path / "a.npz"))
    assert axes == "SYXC"
    np.testing.assert_array_equal(x1[..., 0], made[0][:, 0])
    their_io.save_training_data(str(tmp_path / "b.npz"), *made)
    (x2, y2), none, axes = load_training_data(tmp_path / "b.npz")
    assert (axes, none) == ("SYXC", None)
    np.testing.assert_array_equal(x2, x1)
    np.testing.assert_array_equal(y2, y1)


def test_validation_patches_share_no_pixel_where_the_file_says_where_they_are_from(tmp_path) -> None:
    numbered = [np.arange(128 * 128, dtype=np.float32).reshape(128, 128) + 1e6 * i + 1 for i in range(3)]
    raw = ours.RawData.from_arrays(numbered, numbered, "YX")
    ours.create_patches(
        raw, (16, 16), 40, save_file=tmp_path / "a.npz", normalization=None, patch_filter=None
    )
    (training, _), (validation, _), _ = load_training_data(tmp_path / "a.npz", validation_split=0.1)
    assert not set(np.unique(training)) & set(np.unique(validation))
    assert 0.05 < len(validation) / len(training) < 0.25


def test_a_few_small_stacks_are_split_by_whole_images_and_one_alone_as_csbdeep_does(
    tmp_path: Path, images
) -> None:
    x, y = images((8, 20, 20), n=3)
    for n, shown in (
        (3, "whole images, 6 of 18 patches"),
        (1, "all 6 patches are of one small image: the last 1"),
    ):
        raw = ours.RawData.from_arrays(x[:n], y[:n], "ZYX")
        ours.create_patches(raw, (8, 16, 16), 6, save_file=tmp_path / "a.npz", patch_filter=None)
        with pytest.warns(UserWarning, match=shown) as told:
            (source, _), (held, _), _ = load_training_data(tmp_path / "a.npz", validation_split=0.1)
        assert len(source) + len(held) == 6 * n
        assert [one.category is LeakingSplitWarning for one in told] == [n == 1]


def test_patches_without_origin_split_as_csbdeep_with_a_warning(oracle, tmp_path: Path) -> None:
    import csbdeep.io as their_io

    x = np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    save_training_data(tmp_path / "a.npz", x, x, "SCYX")
    expected = their_io.load_training_data(str(tmp_path / "a.npz"), validation_split=0.1)
    with pytest.warns(LeakingSplitWarning):
        got = load_training_data(tmp_path / "a.npz", validation_split=0.1)
    np.testing.assert_array_equal(got[0][0], expected[0][0])
    np.testing.assert_array_equal(got[1][1], expected[1][1])


def test_zarr_holds_the_same_patches_and_stays_on_the_disk(tmp_path: Path, images) -> None:
    x, y = images((2, 64, 72))
    raw = ours.RawData.from_arrays(x, y, "CYX")
    expected = ours.create_patches(raw, (2, 16, 16), 10, shuffle=False, seed=1)
    made = ours.create_patches(raw, (2, 16, 16), 10, seed=1, save_file=tmp_path / "a.zarr")
    assert made[2] == "SYXC"
    np.testing.assert_array_equal(np.asarray(made[0]), np.moveaxis(expected[0], 1, -1))
    (source, target), (held, _), axes = load_training_data(tmp_path / "a.zarr", validation_split=0.2)
    assert (axes, source.shape[1:], target[3].shape) == ("SYXC", (16, 16, 2), (16, 16, 2))
    np.testing.assert_array_equal(source[[4, 1]], np.asarray(made[0])[source.patches._rows[[4, 1]]])
    assert len(source) + len(held) <= 30


def test_fewer_images_than_announced_leave_no_empty_patches(tmp_path: Path, images) -> None:
    x, y = images()
    raw = ours.RawData.from_arrays(x, y, "YX")._replace(size=5, names=())
    made = ours.create_patches(raw, (16, 16), 4, save_file=tmp_path / "a.zarr")
    assert made[0].shape == (12, 16, 16, 1)
    assert ours.create_patches(raw, (16, 16), 4)[0].shape == (12, 1, 16, 16)
    with pytest.warns(UserWarning, match="more than the 2 images"):
        ours.create_patches(raw._replace(size=2), (16, 16), 4)


def test_patches_that_do_not_fit_into_memory_are_refused_with_the_way_out(images) -> None:
    x, y = images(n=1)
    with pytest.raises(MemoryError, match=r"save_file='patches\.zarr'"):
        ours.create_patches(ours.RawData.from_arrays(x, y, "YX"), (64, 64), 10**9)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("float64", "float32"), ("uint32", "uint16"), ("int32", "int16"), ("uint8", "uint8")],
)
def test_images_for_imagej_have_csbdeeps_type_and_order(
    oracle, tmp_path: Path, dtype: str, stored: str
) -> None:
    import csbdeep.io as their_io

    image = np.arange(2 * 3 * 20 * 30).reshape(2, 3, 20, 30).astype(dtype) % 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        their_io.save_tiff_imagej_compatible(str(tmp_path / "a.tif"), image, "CZYX")
        save_tiff_imagej_compatible(tmp_path / "b.tif", image, "CZYX")
    with tifffile.TiffFile(tmp_path / "a.tif") as a, tifffile.TiffFile(tmp_path / "b.tif") as b:
        assert a.series[0].axes == b.series[0].axes == "ZCYX"
        assert a.series[0].dtype == b.series[0].dtype == stored
        np.testing.assert_array_equal(a.asarray(), b.asarray())


def test_images_for_imagej_are_clipped_and_keep_their_calibration(tmp_path: Path) -> None:
    image = np.array([[-5, 3, 70000]], np.int64)
    with pytest.warns(UserWarning, match="becomes int16"), pytest.warns(UserWarning, match="clipped"):
        report = save_tiff_imagej_compatible(
            tmp_path / "a.tif", image, "YX", resolution=(10, 10), metadata={"unit": "um"}
        )
    assert tifffile.imread(tmp_path / "a.tif").tolist() == [[-5, 3, 32767]]
    assert report.clipped == 1 / 3
    from care_bridge.images import read_image

    assert read_image(tmp_path / "a.tif").pixel_size_um == pytest.approx({"X": 0.1, "Y": 0.1})
    with pytest.raises(InputError, match="predictor: not known"):
        save_tiff_imagej_compatible(tmp_path / "a.tif", image, "YX", predictor=2)
