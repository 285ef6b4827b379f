from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from care_bridge.errors import InputError
from care_bridge.evaluate.registration import SATURATED_SHARE, saturated_share
from care_bridge.images import Image
from care_bridge.simulate.dataset import image_pairs, make_pairs, pair_stream
from care_bridge.simulate.pair import as_arrays
from care_bridge.simulate.recipe import Recipe, builtin_recipes, load_recipe, parse_recipe

Make = Callable[..., Image]


def recipe_of(steps: str, *, prepare: str = "[]", clean: str = "{kind: images}") -> Recipe:
    text = f"name: r\nclean: {clean}\nprepare: {prepare}\nsets:\n  - name: one\n    steps: [{steps}]\n"
    return parse_recipe(text, name="r.yaml")


def small(name: str, **clean: object) -> Recipe:
    """A recipe of the package that draws few and small samples."""
    values = load_recipe(name).model_dump()
    values["clean"] |= {"images": 3, **clean}
    return Recipe.model_validate(values)


def test_the_same_seed_gives_the_same_pairs_and_another_does_not() -> None:
    recipe = small("tubules", shape=(48, 48))
    first, again, other = (list(make_pairs(recipe, seed=seed)) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.source.data, two.source.data)
        np.testing.assert_array_equal(one.target.data, two.target.data)
        assert one.parameters == two.parameters
        assert not np.array_equal(one.target.data, three.target.data)


@pytest.mark.parametrize(("name", "images", "pairs"), [("mito", 78, 234), ("cardio", 31, 93)])
def test_the_papers_images_give_the_papers_pairs(
    name: str, images: int, pairs: int, clean_image: Make
) -> None:
    # Paper 000: 78 images of mitochondria give 234 pairs, 31 of cardiomyocytes 93.
    clean = clean_image(shape=(24, 24))
    made = list(make_pairs(name, (clean.replace(name=f"cell{k}") for k in range(images))))
    assert len(made) == pairs
    assert len({pair.name for pair in made}) == pairs
    # Every drawn value lies in its set's interval.
    for pair, each in zip(made, itertools.cycle(load_recipe(name).sets), strict=False):
        steps = {step.step: step for step in each.steps}
        for key in ("poisson.photons", "gaussian.sigma", "gaussian.intensity", "intensity.factor"):
            low, high = getattr(steps[key.split(".")[0]], key.split(".")[1])
            assert low <= pair.parameters[key] <= high


def test_drawn_values_are_uniform(clean_image: Make) -> None:
    recipe = recipe_of(
        "{step: poisson, photons: [20, 50]}, {step: gaussian, sigma: [0.01, 0.05], intensity: [0.5, 1]}, "
        "{step: intensity, factor: [0.2, 1.4]}"
    )
    image = clean_image(shape=(8, 8))
    drawn = [pair.parameters for pair in itertools.islice(pair_stream(recipe, [image]), 400)]
    for key, low, high in (
        ("poisson.photons", 20, 50),
        ("gaussian.sigma", 0.01, 0.05),
        ("gaussian.intensity", 0.5, 1),
        ("intensity.factor", 0.2, 1.4),
    ):
        values = [row[key] for row in drawn]
        assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 0.01
    # And independent of each other.
    table = np.array([[row["gaussian.sigma"], row["intensity.factor"]] for row in drawn])
    assert abs(np.corrcoef(table.T)[0, 1]) < 3 / np.sqrt(len(drawn))


@pytest.mark.parametrize("name", ["mito", "cardio", "semisynthetic"])
def test_the_signal_to_noise_ratio_falls_from_set_to_set(name: str, clean_image: Make) -> None:
    for seed in range(4):
        snr = [pair.parameters["snr_db"] for pair in make_pairs(name, [clean_image(seed=seed)], seed)]
        assert snr[0] > snr[1] > snr[2]


@pytest.mark.parametrize("name", ["mito", "cardio", "semisynthetic"])
def test_rounding_cuts_no_noise_of_a_dark_background(name: str, clean_image: Make) -> None:
    # Without an offset 19 % and more of these images, and 21 to 40 % of real ones, lie at 0.
    for pair in make_pairs(name, [clean_image(seed=seed) for seed in range(3)]):
        assert np.mean(pair.source.data == 0) < 1e-4
        assert pair.target.data.min() == 16384  # the recipes' offset: no light


def test_a_pair_does_not_depend_on_what_else_is_made(clean_image: Make) -> None:
    images = [clean_image(name=f"cell{k}", seed=k) for k in range(3)]
    forward = {pair.name: pair for pair in make_pairs("mito", images, seed=7)}
    backward = {pair.name: pair for pair in make_pairs("mito", images[::-1], seed=7)}
    alone = {pair.name: pair for pair in make_pairs("mito", images[1:2], seed=7)}
    for name, pair in (backward | alone).items():
        np.testing.assert_array_equal(pair.source.data, forward[name].source.data)
        assert pair.parameters == forward[name].parameters


def test_steps_are_taken_in_the_order_of_the_recipe(clean_image: Make) -> None:
    image = clean_image().replace(data=np.full((300, 300), 0.4))
    usual = recipe_of("{step: poisson, photons: 80, reference: white}, {step: intensity, factor: 0.5}")
    swapped = recipe_of("{step: intensity, factor: 0.5}, {step: poisson, photons: 80, reference: white}")
    (one,), (two,) = list(make_pairs(usual, [image])), list(make_pairs(swapped, [image]))
    # Variances m^2 c / N = 0.00125 and m c / N = 0.0025.
    assert one.source.data.var() == pytest.approx(0.25 * 0.4 / 80, rel=0.03)
    assert two.source.data.var() == pytest.approx(0.5 * 0.4 / 80, rel=0.03)


def test_an_image_is_independent_of_its_file_suffix_and_keeps_its_calibration(clean_image: Make) -> None:
    image = clean_image()
    plain, suffixed = (next(make_pairs("mito", [image.replace(name=name)])) for name in ("a", "a.ome.tif"))
    np.testing.assert_array_equal(plain.source.data, suffixed.source.data)
    assert plain.name == suffixed.name == "a_mild"
    assert plain.source.pixel_size_um == image.pixel_size_um
    assert (plain.source.dtype, plain.target.dtype) == ("uint16", "uint16")


@pytest.mark.parametrize("shape", [(48, 48), (8, 48, 48)])
@pytest.mark.parametrize("name", ["tubules", "granules", "nuclei", "sarcomeres"])
def test_two_channels_and_volumes_go_through_synthetic_recipes(name: str, shape: tuple[int, ...]) -> None:
    pair = next(make_pairs(small(name, shape=shape, channels=2)))
    assert pair.source.shape == pair.target.shape == (2, *shape)
    assert pair.source.axes == "C" + "ZYX"[3 - len(shape) :]
    assert np.isfinite(pair.source.data).all()
    assert pair.target.data.max() == 1


def test_each_channel_can_have_its_own_wavelength() -> None:
    optics = [{"na": 1.2, "immersion_index": 1.33, "emission_nm": nm} for nm in (450, 650)]
    recipe = recipe_of(f"{{step: psf, optics: {optics}}}")
    data = np.zeros((2, 41, 41))
    data[:, 20, 20] = 1
    (pair,) = make_pairs(recipe, [Image(data, "CYX", pixel_size_um={"Y": 0.1, "X": 0.1}, name="points")])
    blue, red = pair.source.data
    assert blue.max() > 1.5 * red.max()
    assert blue.sum() == pytest.approx(red.sum(), rel=1e-5)


def test_a_background_is_added_to_the_source_only(clean_image: Make) -> None:
    recipe = recipe_of("{step: background, amplitude: 0.5}")
    image = clean_image()
    (pair,) = make_pairs(recipe, [image])
    added = pair.source.data - image.data
    np.testing.assert_array_equal(pair.target.data, image.data)
    assert added.min() == pytest.approx(0, abs=1e-3)
    assert added.max() == pytest.approx(0.5 * image.data.max(), rel=1e-5)


def test_a_stream_never_ends_and_never_repeats(clean_image: Make) -> None:
    pairs = list(itertools.islice(pair_stream("mito", [clean_image()], seed=1), 9))
    assert [pair.set for pair in pairs] == ["mild", "medium", "strong"] * 3
    np.testing.assert_array_equal(pairs[0].target.data, pairs[3].target.data)
    assert len({pair.parameters["gaussian.sigma"] for pair in pairs}) == 9


def test_arrays_for_training_have_the_axes_that_are_asked_for() -> None:
    source, target = next(as_arrays(make_pairs(small("tubules", shape=(32, 40))), axes="YXC"))
    assert source.shape == target.shape == (32, 40, 1)
    assert source.dtype == target.dtype == np.float32


def test_patches_are_sampled_while_the_images_are_being_simulated(clean_image: Make) -> None:
    from care_bridge.patches import sample_patches

    images = [clean_image(name=f"cell{k}", seed=k) for k in range(2)]
    pairs = image_pairs("mito", images, seed=3, epochs=2)
    assert len(pairs) == 2 * 2 * 3
    eager = {
        (epoch, pair.image, pair.set): pair
        for epoch in range(2)
        for pair in make_pairs("mito", images, seed=3, epoch=epoch)
    }
    for number, pair in enumerate(pairs):
        epoch, index, each = number // 6, number % 6 // 3, ("mild", "medium", "strong")[number % 3]
        wanted = eager[epoch, f"cell{index}", each]
        np.testing.assert_array_equal(pair.source.open(), wanted.source.data)
        np.testing.assert_array_equal(pair.target.open(), wanted.target.data)
        assert (pair.source.shape, pair.source.dtype) == (wanted.source.shape, wanted.source.dtype)
    patches = sample_patches(pairs, patch_size=(16, 16), n_patches_per_image=4, cache_bytes=1)
    source, target = patches.batch(np.arange(48))
    assert source.shape == target.shape == (48, 16, 16, 1)
    np.testing.assert_array_equal(source, patches.batch(np.arange(48))[0])


@pytest.mark.parametrize("shape", [(64, 64), (6, 64, 64), (2, 64, 64)], ids=["plane", "stack", "channels"])
@pytest.mark.parametrize(
    "name",
    # `surface` makes stacks of planes of one channel: tests/simulate/test_surface.py
    [name for name in builtin_recipes() if not load_recipe(name).synthetic and name != "surface"],
)
def test_recipes_of_the_package_take_planes_stacks_and_channels(
    name: str, shape: tuple[int, ...], clean_image: Make
) -> None:
    image = clean_image(shape=shape)
    if shape[0] == 2:
        image = image.replace(axes="CYX", pixel_size_um={"Y": 0.1, "X": 0.1})
    pairs = list(make_pairs(name, [image]))
    assert [pair.set for pair in pairs] == [each.name for each in load_recipe(name).sets]
    for pair in pairs:
        assert pair.source.shape == pair.target.shape
        assert pair.source.axes == image.axes
        assert np.isfinite(pair.source.data).all()


def test_fewer_photons_give_a_worse_signal_to_noise_ratio(clean_image: Make) -> None:
    snr = [pair.parameters["snr_db"] for pair in make_pairs("photons", [clean_image()])]
    assert snr == sorted(snr, reverse=True)


@pytest.mark.tf
def test_thinning_can_count_from_the_white_level(clean_image: Make) -> None:
    steps = "{step: thin, photons: 1000, fraction: 0.5, reference: %s}"
    clean = "[{step: contrast, pmin: 0, pmax: 50, cut_above: false}]"
    image = clean_image(shape=(96, 96))
    noise = {}
    for reference in ("white", "brightest"):
        (pair,) = make_pairs(recipe_of(steps % reference, prepare=clean), [image])
        bright = pair.target.data > 0.5 * pair.target.data.max()
        noise[reference] = np.std((pair.source.data - pair.target.data)[bright])
    # The variance of the share is the level over its photons: brightest is above white 1 here.
    brightest = float(pair.target.data.max())
    assert brightest > 2
    assert noise["brightest"] / noise["white"] == pytest.approx(np.sqrt(brightest), rel=0.1)


@pytest.mark.parametrize("name", [name for name in builtin_recipes() if "isotropic" not in name])
def test_no_truth_of_a_recipe_is_called_saturated(name: str, clean_image: Make) -> None:
    recipe = load_recipe(name) if not load_recipe(name).synthetic else small(name, shape=(96, 96), images=1)
    image = clean_image(shape=(256, 256))
    noisy = np.random.default_rng(0).normal(0, 20, image.shape)
    clean = image.replace(data=np.rint(image.data + np.abs(noisy)).astype(np.uint16))
    for pair in make_pairs(recipe, None if recipe.synthetic else [clean]):
        assert saturated_share(pair.target) < SATURATED_SHARE


def test_tensorflow_takes_the_arrays_as_a_data_set() -> None:
    import tensorflow as tf

    recipe = small("tubules", shape=(32, 32))
    one = tf.TensorSpec((32, 32, 1), tf.float32)
    data = tf.data.Dataset.from_generator(
        lambda: as_arrays(make_pairs(recipe), axes="YXC"), output_signature=(one, one)
    )
    assert [tuple(source.shape) for source, _ in data.batch(3)] == [(3, 32, 32, 1)]


def grey(data: object, **changes: object) -> Image:
    settings: dict[str, object] = {
        "axes": "YX",
        "pixel_size_um": {"Y": 0.1, "X": 0.1},
        "name": "bad",
    } | changes
    return Image(np.asarray(data), **settings)  # type: ignore[arg-type]


HOLES = np.full((32, 32), 5.0)
HOLES[3, 4] = np.nan
BURNT = np.arange(1024, dtype=np.uint16).reshape(32, 32)
BURNT[:4] = 4095


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (grey(HOLES), r"image 'bad' holds NaN or infinite values \(0.10% of its pixels\)"),
        (grey(np.linspace(-1, 1, 1024).reshape(32, 32)), r"50.00% negative pixels.*negative_share"),
        (grey(BURNT), r"12.50% saturated pixels \(value 4095\).*saturated_share"),
        (grey(np.full((32, 32), 7)), "'bad' is constant between its percentiles"),
        (grey(BURNT % 100, pixel_size_um={}), "pixel size along Y is not known"),
        (grey(BURNT % 100, pixel_size_um={"Y": 0.5, "X": 0.5}), "pixels of 0.5 um along Y are too coarse"),
        (grey(np.arange(2048).reshape(2, 32, 32), axes="TYX"), "give single frames"),
        (grey(np.arange(32 * 32).reshape(32, 32), axes="ZX"), "Y and X are needed"),
    ],
)
def test_images_that_cannot_be_degraded_are_refused(image: Image, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(make_pairs("mito", [image]))


@pytest.mark.parametrize(
    ("recipe", "images", "message"),
    [
        ("mito", None, "degrades clean images; give some"),
        ("mito", [], "none were given"),
        ("tubules", [grey(BURNT)], "draws its samples itself"),
    ],
)
def test_images_are_given_where_they_are_wanted(
    recipe: str, images: list[Image] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(make_pairs(recipe, images))


def test_a_channel_that_is_not_there_is_refused(clean_image: Make) -> None:
    recipe = recipe_of("{step: poisson}", clean="{kind: images, channel: 2}")
    with pytest.raises(InputError, match="channel=2, but image 'cell' has 1"):
        list(make_pairs(recipe, [clean_image()]))


def test_a_radius_in_um_needs_the_pixel_size(clean_image: Make) -> None:
    recipe = recipe_of("{step: poisson}", prepare="[{step: minimum, radius_um: 0.2}]")
    (pair,) = make_pairs(recipe, [clean_image()])
    assert pair.parameters["minimum.radius_px"] == pytest.approx(2)
    with pytest.raises(InputError, match="needs the pixel size along X"):
        list(make_pairs(recipe, [clean_image().replace(pixel_size_um={})]))


def test_a_minimum_filter_too_large_for_the_structure_is_refused(clean_image: Make) -> None:
    recipe = recipe_of("{step: poisson}", prepare="[{step: minimum, radius_px: 2, structure_um: 0.6}]")
    with pytest.raises(InputError, match="more than 25% of the structure's 6 px"):
        list(make_pairs(recipe, [clean_image()]))


def test_a_measured_psf_comes_from_a_file(clean_image: Make, tmp_path) -> None:
    from care_bridge.images import write_image

    kernel = np.zeros((5, 5), dtype=np.float32)
    kernel[2, 1:4] = 1
    write_image(tmp_path / "psf.tif", Image(kernel, "YX"))
    recipe = recipe_of(f"{{step: psf, measured: '{tmp_path}/psf.tif'}}")
    image = clean_image()
    (pair,) = make_pairs(recipe, [image])
    expected = image.data[20, 9:12].mean()
    assert pair.source.data[20, 10] == pytest.approx(expected, rel=1e-5)


def test_a_psf_can_be_taken_from_an_image_of_beads(clean_image: Make, tmp_path) -> None:
    from care_bridge.images import write_image

    y, x = np.indices((60, 60))
    beads = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 1.5**2)) for cy, cx in ((15, 14), (45, 44)))
    write_image(tmp_path / "beads.tif", Image((1000 * beads).astype(np.uint16), "YX"))
    recipe = recipe_of(f"{{step: psf, beads: '{tmp_path}/beads.tif'}}")
    image = clean_image()
    (pair,) = make_pairs(recipe, [image])
    from scipy.ndimage import gaussian_filter

    expected = gaussian_filter(image.data.astype(float), 1.5, mode="reflect")
    np.testing.assert_allclose(pair.source.data, expected, rtol=0.05)
