"""Which patches a step takes, how they are turned, and when the learning rate falls."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.training.batches import augment, batch_indices
from care_bridge.training.losses import LOSSES, background_weighted, next_alpha
from care_bridge.training.schedule import Plateau

pytestmark = pytest.mark.tf


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (4, 4), (3, 8), (10, 1)])
def test_every_patch_comes_equally_often_whatever_the_batch_size(n, batch_size):
    taken = np.concatenate([batch_indices(step, n=n, batch_size=batch_size, seed=1) for step in range(n)])
    assert len(taken) == n * batch_size
    np.testing.assert_array_equal(np.bincount(taken, minlength=n), batch_size)


def test_a_step_is_the_same_whichever_step_came_before():
    forward = [batch_indices(step, n=9, batch_size=4, seed=2) for step in range(10)]
    backward = [batch_indices(step, n=9, batch_size=4, seed=2) for step in reversed(range(10))]
    np.testing.assert_array_equal(forward, backward[::-1])
    assert not np.array_equal(forward[0], batch_indices(0, n=9, batch_size=4, seed=3))


@pytest.mark.parametrize("axes", ["YXC", "ZYXC"])
def test_augmentation_moves_source_and_target_together(axes):
    random = np.random.default_rng(0)
    source = random.random((20, *(6,) * (len(axes) - 1), 1), np.float32)
    turned, target = augment(
        (source, 2 * source), how=("flips", "rot90"), axes=axes, axes_out=axes, random=random
    )
    np.testing.assert_array_equal(target, 2 * turned)
    assert not np.array_equal(turned, source)
    np.testing.assert_allclose(np.sort(turned, axis=None), np.sort(source, axis=None))
    if axes == "YXC":
        # flips and quarter turns give the eight symmetries of the square
        same = np.stack([source[:1]] * 200)[:, 0]
        seen, _ = augment((same, same), how=("flips", "rot90"), axes=axes, axes_out=axes, random=random)
        assert len(np.unique(seen.reshape(200, -1), axis=0)) == 8


def test_oblong_patches_are_never_laid_on_their_side():
    source = np.random.default_rng(0).random((30, 4, 6, 1), np.float32)
    turned, _ = augment(
        (source, source), how=("rot90",), axes="YXC", axes_out="YXC", random=np.random.default_rng(1)
    )
    assert turned.shape == source.shape


def test_intensity_is_one_line_for_source_and_target():
    source = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    changed, target = augment(
        (source, source**2), how=("intensity",), axes="YXC", axes_out="YXC", random=np.random.default_rng(1)
    )
    slope, offset = np.polyfit(source.ravel(), changed.ravel(), 1)
    np.testing.assert_allclose(target, slope * source**2 + offset, atol=1e-5)
    assert 0.8 <= slope <= 1.25


def test_projected_targets_are_flipped_along_their_own_axes():
    source = np.random.default_rng(0).random((10, 3, 4, 4, 1), np.float32)
    turned, target = augment(
        (source, source.max(1)),
        how=("flips", "rot90"),
        axes="ZYXC",
        axes_out="YXC",
        random=np.random.default_rng(1),
    )
    np.testing.assert_array_equal(target, turned.max(1))


def test_plateau_is_keras_own_on_any_curve():
    values = [1.0, 0.9, 0.95, 0.93, 0.94, 0.8, 0.85, 0.85, 0.85, 0.85, 0.79, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    for settings in (
        {"factor": 0.5, "patience": 2, "min_delta": 0},
        {"patience": 1, "cooldown": 2, "min_lr": 1e-5},
    ):
        theirs = keras.callbacks.ReduceLROnPlateau(**settings)
        theirs.set_model(types.SimpleNamespace(optimizer=keras.optimizers.Adam(4e-4), metrics=[]))
        theirs.monitor_op = np.less
        theirs._is_improvement = lambda now, best, d=theirs.min_delta: best is None or now < best - d
        theirs.on_train_begin()
        ours, rate = Plateau.from_settings(settings), np.float32(4e-4)
        for epoch, value in enumerate(values):
            theirs.on_epoch_end(epoch, {"val_loss": value})
            rate = np.float32(ours.next_rate(float(rate), {"val_loss": value}))
            assert rate == np.float32(np.asarray(theirs.model.optimizer.learning_rate))
        assert rate < 4e-4


def test_plateau_settings_are_checked():
    with pytest.raises(InputError, match="holds patiance"):
        Plateau.from_settings({"patiance": 3})
    with pytest.raises(InputError, match="factor 2"):
        Plateau.from_settings({"factor": 2})
    with pytest.raises(InputError, match="monitors 'acc'"):
        Plateau.from_settings({"monitor": "acc"}).next_rate(0.1, {"val_loss": 1.0})
    assert Plateau.from_settings({"epsilon": 0, "verbose": True}).min_delta == 0


def test_losses_are_the_formulas():
    target = np.array([[[0.5]]], np.float32)
    prediction = np.array([[[0.75, 0.5]]], np.float32)
    assert float(LOSSES["mae"](target, prediction)[0, 0, 0]) == 0.25
    assert float(LOSSES["mse"](target, prediction)[0, 0, 0]) == 0.0625
    # |mu - y| / s + ln s + ln 2 = 0.5 + ln 1
    assert float(LOSSES["laplace"](target, prediction)[0, 0, 0]) == pytest.approx(0.5)


def test_background_weights_are_those_of_csbdeep():
    losses = pytest.importorskip("csbdeep.internals.losses")
    random = np.random.default_rng(0)
    target, prediction = (random.random((2, 8, 8, 1), np.float32) for _ in range(2))
    threshold, alpha = 0.7, 0.8
    share = float(np.mean(target > threshold))
    below, above = 0.5 / (0.1 + (1 - share)), 0.5 / (0.1 + share)  # csbdeep 0.8.2, internals/train.py
    per_pixel = np.asarray(losses.loss_mae(mean=False)(target, prediction))
    expected = per_pixel * np.where(target <= threshold, alpha * below + 1 - alpha, alpha * above + 1 - alpha)
    ours = background_weighted(LOSSES["mae"], threshold=threshold, foreground=share, alpha=alpha)
    np.testing.assert_allclose(ours(target, prediction), expected, rtol=1e-5)
    assert next_alpha(1.0, epoch=0, decay=0.06) == pytest.approx(1 / 1.06)
    assert next_alpha(1.0, epoch=1, decay=0.06) == pytest.approx(1 / 1.12)
