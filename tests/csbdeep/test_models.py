"""Models under csbdeep's names, held against the installed csbdeep with the same weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import laplace

from care_bridge.csbdeep import data, io, models
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
    with pytest.raises(InputError, match="give its name and basedir"):
        models.CARE(None, basedir=None)
    with pytest.raises(InputError, match="takes a ProjectionConfig"):
        models.ProjectionCARE(models.Config("ZYX"), "a", basedir=None)


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
