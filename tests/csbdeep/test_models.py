"""Models under csbdeep's names, held against the installed csbdeep with the same weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import laplace

from care_bridge.csbdeep import data, io, models, utils
from care_bridge.errors import InputError

pytestmark = pytest.mark.tf

SMALL = {"unet_n_first": 4, "unet_kern_size": 3}


@pytest.fixture(scope="module")
def theirs(oracle):
    import csbdeep.models

    return csbdeep.models


@pytest.fixture(scope="module")
def image():
    def make(shape):
        return np.random.default_rng(0).gamma(2, 300, shape).astype(np.float32)

    return make


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("Config", (), {}),
        ("Config", ("ZYX", 2, 1), {"unet_n_first": 4}),
        ("Config", ("SYXC", 1, 1), {"probabilistic": True, "train_epochs": 7}),
        ("Config", ("TYX",), {"unet_residual": False, "train_reduce_lr": None}),
        ("ProjectionConfig", (), {"proj_n_depth": 2}),
    ],
)
def test_settings_are_csbdeeps(theirs, name, arguments, options) -> None:
    expected = vars(getattr(theirs, name)(*arguments, **options))
    got = vars(getattr(models, name)(*arguments, **options))
    assert set(got) == set(expected)
    # The one difference: csbdeep's default stops TensorFlow 2.21 in the first epoch (care-training.md, 2.1).
    assert expected.pop("train_tensorboard") is True
    assert got.pop("train_tensorboard") is False
    assert got == expected


def test_settings_of_ours_come_behind_csbdeeps_and_misspelt_ones_are_named() -> None:
    config = models.Config("YX", seed=5, train_augment=("flips",))
    assert (config.seed, config.settings().seed, config.settings().train_augment) == (5, 5, ("flips",))
    with pytest.raises(InputError, match="did you mean 'unet_n_depth'"):
        models.Config("YX", unet_depth=3)
    with pytest.raises(InputError, match="did you mean 'train_epochs'"):
        config.update_parameters(train_epoch=3)
    config.train_epochs = 3
    assert config.settings().train_epochs == 3
    config.unet_kern_size = 4
    assert config.is_valid() is False
    assert "odd" in config.is_valid(return_invalid=True)[1][0]
    kept = models.Config("YX", allow_new_parameters=True, my_note="hello")
    assert kept.settings().other == {"my_note": "hello"}


CASES = {
    "plain": ("CARE", "YX", {}, "YX", (37, 45), (), (2, 2)),
    "probabilistic": ("CARE", "YX", {"probabilistic": True}, "YX", (37, 45), (), (2, 1)),
    "channels": ("CARE", "YX", {"n_channel_in": 2, "n_channel_out": 3}, "CYX", (2, 37, 45), (), (1, 2, 2)),
    "channels last": (
        "CARE",
        "YX",
        {"n_channel_in": 2, "n_channel_out": 2},
        "XYC",
        (37, 45, 2),
        (),
        (2, 2, 1),
    ),
    "new channels": ("CARE", "YX", {"n_channel_out": 3}, "YX", (37, 45), (), (2, 2)),
    "stack": ("CARE", "ZYX", {}, "ZYX", (6, 37, 45), (), (1, 2, 2)),
    "upsampling": ("UpsamplingCARE", "ZYX", {}, "ZYX", (5, 37, 45), (2.5,), (1, 2, 2)),
    "isotropic": ("IsotropicCARE", "YX", {"probabilistic": True}, "ZYX", (5, 17, 21), (3,), None),
    "projection": ("ProjectionCARE", "ZYX", {"proj_n_depth": 2}, "ZYX", (5, 37, 45), (), (1, 2, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_csbdeeps(theirs, image, tmp_path: Path, case: str) -> None:
    name, axes, options, image_axes, shape, extra, n_tiles = CASES[case]
    config = "ProjectionConfig" if name == "ProjectionCARE" else "Config"
    pair = []
    for module in (theirs, models):
        settings = getattr(module, config)(axes, **SMALL, **options)
        pair.append(getattr(module, name)(settings, "model", basedir=None))
    their_model, our_model = pair
    our_model.keras_model.set_weights(their_model.keras_model.get_weights())
    x = image(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, got = (model.predict(x, image_axes, *extra) for model in pair)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-6 * np.ptp(expected))
        if n_tiles is not None:
            tiled = our_model.predict(x, image_axes, *extra, n_tiles=n_tiles)
            np.testing.assert_allclose(tiled, expected, atol=1e-6 * np.ptp(expected))
        if options.get("probabilistic"):
            expected, got = (model.predict_probabilistic(x, image_axes, *extra) for model in pair)
            np.testing.assert_allclose(got.scale(), expected.scale(), rtol=1e-5)
            np.testing.assert_allclose(got.ppf(0.9), expected.ppf(0.9), rtol=1e-5, atol=1e-2)


def test_a_folder_of_csbdeep_opens_here_and_ours_opens_there(theirs, image, tmp_path: Path) -> None:
    x = image((24, 28))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = theirs.CARE(theirs.Config("YX", probabilistic=True, **SMALL), "theirs", basedir=str(tmp_path))
        made.keras_model.save_weights(str(tmp_path / "theirs" / "weights_best.h5"))
        opened = models.CARE(None, "theirs", basedir=tmp_path)
        np.testing.assert_allclose(opened.predict(x, "YX"), made.predict(x, "YX"), rtol=1e-6)

        ours = models.CARE(models.Config("YX", probabilistic=True, **SMALL), "ours", basedir=tmp_path)
        patches = np.random.default_rng(0).random((12, 16, 16, 1), np.float32)
        ours.train(patches, patches, (patches[:2], patches[:2]), epochs=1, steps_per_epoch=2)
        opened = theirs.CARE(None, "ours", basedir=str(tmp_path))
        np.testing.assert_allclose(opened.predict(x, "YX"), ours.predict(x, "YX"), rtol=1e-6)


@pytest.fixture(scope="module")
def patches():
    rng = np.random.default_rng(0)
    x = rng.random((24, 16, 16, 1), np.float32)
    return (x[:20], 2 * x[:20]), (x[20:], 2 * x[20:])


def test_training_changes_the_weights_and_tells_how_it_went(patches) -> None:
    model = models.CARE(models.Config("YX", train_batch_size=4, **SMALL), "a", basedir=None)
    before = [weight.copy() for weight in model.keras_model.get_weights()]
    history = model.train(*patches[0], validation_data=patches[1], epochs=2, steps_per_epoch=3)
    assert history.epoch == [0, 1]
    assert {"loss", "val_loss", "mse", "val_mse", "mae", "val_mae"} <= set(history.history)
    assert len(history.history["loss"]) == 2
    after = model.keras_model.get_weights()
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_augmenter_is_called_with_each_pair(patches) -> None:
    seen = []

    def flip(x, y):
        seen.append(x.shape)
        return x[::-1], y[::-1]

    model = models.CARE(models.Config("YX", train_batch_size=4, **SMALL), "a", basedir=None)
    model.train(*patches[0], validation_data=patches[1], epochs=1, steps_per_epoch=2, augmenter=flip)
    assert set(seen) == {(16, 16, 1)}


def test_patches_on_the_disk_train_the_network_that_patches_in_memory_do(tmp_path: Path, images) -> None:
    x, y = images()
    raw = data.RawData.from_arrays(x, y, "YX")
    results = []
    for name in ("a.npz", "a.zarr"):
        data.create_patches(raw, (16, 16), 12, save_file=tmp_path / name, shuffle=False, seed=2)
        training, validation, _ = io.load_training_data(tmp_path / name, validation_split=0.2)
        model = models.CARE(
            models.Config("YX", train_batch_size=4, **SMALL), f"model {name}", basedir=tmp_path
        )
        model.train(*training, validation_data=validation, epochs=1, steps_per_epoch=3)
        results.append(model.keras_model.get_weights())
    assert isinstance(training[0], io.Column)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_movies_are_restored_frame_by_frame_on_one_scale(image) -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    movie = image((3, 20, 24))
    restored = model.predict(movie, "TYX")
    normalizer = data.PercentileNormalizer()
    stack = normalizer.before(movie, "TYX")
    frame = model.predict(stack[1], "YX", normalizer=None)
    expected = normalizer.after(np.stack([frame] * 3), None, "TYX")[0][1]
    np.testing.assert_allclose(restored[1], expected, rtol=1e-5)


def test_own_normalisers_and_resizers_are_used(image) -> None:
    class Halved(data.Normalizer):
        def before(self, x, axes):
            return (x / 1000).astype(np.float32)

        def after(self, mean, scale, axes):
            return mean * 1000, scale

        @property
        def do_after(self):
            return True

    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    x = image((20, 24))
    expected = 1000 * model.predict((x / 1000).astype(np.float32), "YX", normalizer=None)
    np.testing.assert_allclose(model.predict(x, "YX", normalizer=Halved()), expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"22 \(axis Y\) by 4"):
        model.predict(image((22, 24)), "YX", resizer=None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.predict(np.zeros((2, 20, 24), np.float32), "CYX"), "takes 1 channels, the image"),
        (lambda m: m.predict(np.zeros((20, 24), np.float32), "ZYX"), "names 3 dimensions"),
        (lambda m: m.predict(np.ones((20, 24), np.float32), "YX", n_tiles=(1, 2, 2)), "one per axis"),
        (lambda m: m.predict_probabilistic(np.ones((20, 24), np.float32), "YX"), "not a probabilistic model"),
        (
            lambda m: m.train(
                np.zeros((4, 15, 16, 1)), np.zeros((4, 15, 16, 1)), (np.zeros((1, 15, 16, 1)),) * 2
            ),
            "15",
        ),
        (lambda m: m.export_TF(), "give fname"),
        (lambda m: m.load_weights(), "no folder"),
    ],
)
def test_wrong_use_is_said(make, message) -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    with pytest.raises(InputError, match=message):
        make(model)


def test_models_that_cannot_be_opened_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model folder"):
        models.CARE(None, "none", basedir=tmp_path)
    with pytest.raises(FileNotFoundError):
        models.CARE(None, basedir=tmp_path)
    with pytest.raises(InputError, match="give its name and basedir"):
        models.CARE(None, basedir=None)
    with pytest.raises(InputError, match="takes a ProjectionConfig"):
        models.ProjectionCARE(models.Config("ZYX"), "a", basedir=None)


def test_a_model_writes_its_settings_at_once_but_never_over_a_trained_model(tmp_path: Path, patches) -> None:
    made = models.CARE(models.Config("YX", train_epochs=7, **SMALL), "a", basedir=tmp_path)
    with pytest.warns(UserWarning, match="untrained"):
        opened = models.CARE(None, "a", basedir=tmp_path)
    assert opened.config == made.config
    made.train(*patches[0], validation_data=patches[1], epochs=1, steps_per_epoch=1)
    with pytest.warns(UserWarning, match="training replaces it"):
        models.CARE(models.Config("YX", unet_n_depth=1, **SMALL), "a", basedir=tmp_path)
    assert models.CARE(None, "a", basedir=tmp_path).config.unet_n_depth == 2


@pytest.mark.parametrize("axes", ["XYS", "XSYZ", "XYZT", "CXY", "Y", "YYX"])
def test_axes_that_no_network_has_are_refused_as_csbdeep_refuses_them(theirs, axes: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        theirs.Config(axes)
    with pytest.raises(InputError, match="axes"):
        models.Config(axes)


@pytest.mark.parametrize(
    "options",
    [
        {"n_channel_out": 2, "unet_residual": True},
        {"unet_n_depth": 0},
        {"train_loss": "laplace"},
        {"unet_input_shape": (None, None, 3)},
        {"train_epochs": 0},
        {"unet_last_activation": "gelu"},
    ],
)
def test_settings_that_do_not_go_together_are_told_by_is_valid_and_refused_by_the_model(
    theirs, options
) -> None:
    assert theirs.Config("YX", **options).is_valid() is False
    config = models.Config("YX", **options)
    assert config.is_valid() is False
    with pytest.raises(InputError):
        models.CARE(config, "a", basedir=None)


@pytest.mark.parametrize(
    "n_tiles", [-1, 0, 1.2, (1, 0), (1, 1.2), (1, -2), [2.5, 2], np.array([1.5, 1]), (2,), (1, 1, 1)]
)
def test_numbers_of_tiles_that_are_none_are_refused(n_tiles) -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    with pytest.raises(ValueError, match="n_tiles"):
        model.predict(np.ones((24, 28), np.float32), "YX", n_tiles=n_tiles)


def test_one_number_of_tiles_is_for_the_longest_axis_and_a_warning_says_so(image) -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    x = image((24, 64))
    with pytest.warns(UserWarning, match=r"\(1, 2\) is taken"):
        tiled = model.predict(x, "YX", n_tiles=np.int64(2))
    np.testing.assert_allclose(tiled, model.predict(x, "YX"), rtol=1e-4)


def test_running_out_of_memory_is_printed_as_csbdeep_prints_it_and_ends_after_nine_calls(capsys) -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    calls = []

    def hungry(tensor):
        calls.append(tensor.shape)
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    model._network_predictor(None).network._call = hungry
    with pytest.raises(MemoryError):
        model.predict(np.ones((2, 64, 128), np.float32), "TYX")
    assert len(calls) == 9
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"Out of memory, retrying with n_tiles = {tiles}" for tiles in ((1, 1, 2), (1, 2, 2))]
    assert len(said) == 8


def test_what_a_projection_does_stands_in_proj_params(theirs) -> None:
    options = {"proj_n_depth": 2, "proj_axis": "Y"}
    expected = theirs.ProjectionCARE(theirs.ProjectionConfig(**options), "a", basedir=None)
    got = models.ProjectionCARE(models.ProjectionConfig(**options), "a", basedir=None)
    assert got.proj_params._asdict() == expected.proj_params._asdict()
    assert "n_conv_per_depth=1" in repr(got)


def test_an_adam_gives_its_learning_rate_and_other_optimisers_are_refused_by_name() -> None:
    model = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    model.prepare_for_training(optimizer=keras.optimizers.Adam(1e-4))
    assert model.config.train_learning_rate == 1e-4
    model.prepare_for_training()
    assert model.config.train_learning_rate == 1e-4
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for wrong, message in (
        (keras.optimizers.SGD(0.1), "optimizer=SGD.*train_learning_rate"),
        (keras.optimizers.Adam(1e-4, beta_1=0.5), "beta_1"),
        (keras.optimizers.Adam(schedule), "schedule"),
    ):
        with pytest.raises(InputError, match=message):
            model.prepare_for_training(optimizer=wrong)


def test_early_stopping_is_taken_from_the_callbacks_and_others_are_refused_by_name(patches) -> None:
    model = models.CARE(models.Config("YX", train_learning_rate=1e-12, **SMALL), "a", basedir=None)
    model.prepare_for_training()
    model.callbacks.append(keras.callbacks.EarlyStopping(patience=2))
    assert len(model.callbacks) == 1
    history = model.train(*patches[0], validation_data=patches[1], epochs=9, steps_per_epoch=1)
    assert len(history.epoch) < 9
    for add in (model.callbacks.append, lambda one: model.callbacks.insert(0, one), model.callbacks.__iadd__):
        given = keras.callbacks.CSVLogger("a.csv")
        with pytest.raises(InputError, match=r"CSVLogger.*train_early_stopping"):
            add([given] if add == model.callbacks.__iadd__ else given)
    with pytest.raises(InputError, match="val_loss"):
        model.callbacks.append(keras.callbacks.EarlyStopping(monitor="loss"))


@pytest.mark.parametrize("path", ["a.tif", Path("a.tif")])
def test_a_path_instead_of_an_array_is_said_in_one_sentence(path, tmp_path: Path) -> None:
    plain = models.CARE(models.Config("YX", **SMALL), "a", basedir=None)
    isotropic = models.IsotropicCARE(models.Config("YX", **SMALL), "a", basedir=None)
    upsampling = models.UpsamplingCARE(models.Config("ZYX", **SMALL), "a", basedir=None)
    for call in (
        lambda: plain.predict(path, "YX"),
        lambda: upsampling.predict(path, "ZYX", 2),
        lambda: isotropic.predict(path, "ZYX", 2),
        lambda: plain.train(path, path, validation_data=(path, path)),
        lambda: utils.normalize(path),
        lambda: io.save_tiff_imagej_compatible(tmp_path / "b.tif", path, "YX"),
        lambda: next(data.RawData.from_arrays([path], [path], "YX").generator()),
    ):
        with pytest.raises(InputError, match=r"is a path, 'a.tif'.*tifffile.imread"):
            call()


def test_distributions_are_laplace() -> None:
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(6, 7)), rng.uniform(0.1, 3, (6, 7))
    here, there = models.ProbabilisticPrediction(loc, scale), laplace(loc=loc, scale=scale)
    for name in ("mean", "median", "var", "std", "entropy"):
        np.testing.assert_allclose(getattr(here, name)(), getattr(there, name)(), rtol=1e-12)
    for name in ("pdf", "logpdf", "cdf", "sf", "logcdf", "logsf"):
        np.testing.assert_allclose(getattr(here, name)(0.3), getattr(there, name)(0.3), rtol=1e-9)
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(here.ppf(q), there.ppf(q), rtol=1e-9)
        np.testing.assert_allclose(here.isf(q), there.isf(q), rtol=1e-9)
    np.testing.assert_allclose(here.interval(0.9), there.interval(0.9), rtol=1e-9)
    np.testing.assert_allclose(here.stats("mvsk"), there.stats("mvsk"), rtol=1e-9)
    assert here[2:4].shape == (2, 7)
    assert (len(here), here.ndim, here.size) == (6, 2, 42)
    assert [sample.shape for sample in here.sampling_generator(2)] == [(6, 7)] * 2
    many = models.ProbabilisticPrediction(loc[0, :1], scale[0, :1]).rvs((20000, 1), random_state=0)
    assert many.mean() == pytest.approx(loc[0, 0], abs=0.1 * scale[0, 0])
    with pytest.raises(InputError, match="must be equal"):
        models.ProbabilisticPrediction(loc, scale[0])
    with pytest.raises(InputError, match="within 0-1"):
        here.interval(1)
