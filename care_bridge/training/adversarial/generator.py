"""A generator while it is trained, with layers that normalise, and what becomes of it: convolutions alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.resnet import norm_name
from care_bridge.training.schedule import average_decay
from care_bridge.training.unet import build

EPSILON = 1e-5
"""Added to a variance before its root is taken."""

STATISTICS_DECAY = 0.99
"""Of the average of statistics over steps."""


class Passing:
    """How far a generator has passed from each patch's own statistics to those of the training patches.

    Attributes
    ----------
    mix : tf.Variable
        0: each patch's own; 1: those of the training patches.
    share : tf.Variable
        Of the present step in the statistics of the training patches; 0 leaves them as they are.
    task : tf.Variable
        Which of several things the generator does now, from 0.
    """

    def __init__(self) -> None:
        self.mix = tf.Variable(0.0, trainable=False)
        self.share = tf.Variable(1.0, trainable=False)
        self.task = tf.Variable(0, trainable=False)


class PassingNorm(keras.layers.Layer):  # type: ignore[misc]
    """Instance normalisation that passes over into constants.

    A network that normalises by what it is given sees each tile in another light than the whole image, so at the end
    mean and variance are those of the training patches, and the layer is a factor and an offset for each channel.

    Of a generator that does several things, each has factors, offsets and statistics of its own, and all else is shared:
    conditional instance normalisation (Dumoulin et al. 2017).

    Parameters
    ----------
    passing : Passing
        Shared by all layers of a generator.
    tasks : int
        How many things it does.
    """

    def __init__(self, passing: Passing, *, tasks: int = 1, **how: Any) -> None:
        super().__init__(**how)
        self.passing, self.tasks = passing, tasks

    def build(self, shape: tuple[int | None, ...]) -> None:
        channels = (self.tasks, shape[-1])
        self.gamma = self.add_weight(shape=channels, initializer="ones", name="gamma", dtype="float32")
        self.beta = self.add_weight(shape=channels, initializer="zeros", name="beta", dtype="float32")
        self.mean = self.add_weight(
            shape=channels, initializer="zeros", trainable=False, name="mean", dtype="float32"
        )
        self.variance = self.add_weight(
            shape=channels, initializer="ones", trainable=False, name="variance", dtype="float32"
        )

    def call(self, layer: Any, training: bool = False) -> Any:
        """Normalise; with `training` the step takes part in the statistics of the training patches."""
        values = tf.cast(layer, tf.float32)
        axes = list(range(1, len(values.shape) - 1))
        mean, variance = tf.nn.moments(values, axes, keepdims=True)
        task = self.passing.task
        if training:
            of_step = tf.reduce_mean(mean, 0)
            # Of all pixels together: patches that differ in their means are part of it.
            spread = tf.reduce_mean(variance + tf.square(mean - of_step), 0)
            for kept, now in ((self.mean, of_step), (self.variance, spread)):
                change = self.passing.share * (tf.reshape(now, [-1]) - tf.gather(kept, task))
                kept.assign(kept + tf.one_hot(task, self.tasks)[:, None] * change)
        mix = self.passing.mix
        mean += mix * (tf.gather(self.mean, task) - mean)
        variance += mix * (tf.gather(self.variance, task) - variance)
        result = (values - mean) * tf.math.rsqrt(variance + EPSILON)
        result = result * tf.gather(self.gamma, task) + tf.gather(self.beta, task)
        return tf.cast(result, layer.dtype)

    def as_factor_and_offset(self, task: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What it does with the statistics of the training patches, for each channel."""
        gamma, beta, mean, variance = (
            np.asarray(one, np.float64)[task] for one in (self.gamma, self.beta, self.mean, self.variance)
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        return factor.astype(np.float32), (beta - mean * factor).astype(np.float32)

    def become_identity(self) -> None:
        """Statistics, factor and offset that leave what comes as it is, once it has passed over."""
        for weight, value in (
            (self.gamma, 1.0),
            (self.beta, 0.0),
            (self.mean, 0.0),
            (self.variance, 1.0 - EPSILON),
        ):
            weight.assign(np.full(weight.shape, value, np.float32))


class Generator:
    """A generator that is trained.

    Parameters
    ----------
    config : CareConfig
    seed : int
        Of its first weights.

    Attributes
    ----------
    network : keras.Model
        With layers that normalise, where the architecture has them.
    passing : Passing
    """

    def __init__(self, config: CareConfig, *, seed: int) -> None:
        self.config = config
        self.passing = Passing()
        self.network = build(
            config,
            seed=seed,
            precision=config.train_precision,
            norm=(lambda name: PassingNorm(self.passing, tasks=max(1, len(config.gan_defects)), name=name))
            if config.resnet_norm == "instance"
            else None,
        )
        self._deployed: keras.Model | None = None
        # 1 where the weights came from a network without layers that normalise: they are none from the start.
        self.begun = tf.Variable(0.0, trainable=False)

    def in_step(self, number: int) -> None:
        """Pass over as far as is due in a step (from 0)."""
        config = self.config
        total = config.train_epochs * config.train_steps_per_epoch
        mix = max(passed(number, total, freeze=config.gan_freeze), float(self.begun.numpy()))
        self.passing.mix.assign(mix)
        # Once nothing is left of each patch's own, what the training patches have is a constant.
        self.passing.share.assign(0.0 if mix == 1 else 1 - average_decay(STATISTICS_DECAY, number))

    @property
    def norms(self) -> dict[str, PassingNorm]:
        """By the name of the convolution before it."""
        layers = {layer.name: layer for layer in self.network.layers}
        return {
            layer.name: layers[norm_name(layer.name)]
            for layer in self.network.layers
            if isinstance(layers.get(norm_name(layer.name)), PassingNorm)
        }

    def deployed(self, task: int = 0) -> keras.Model:
        """What is opened and exported: the same with its normalisation folded into the convolutions before it."""
        if self._deployed is None:
            self._deployed = build(self.config)
        norms = self.norms
        for layer in self._deployed.layers:
            if not layer.weights:
                continue
            weights = self.network.get_layer(layer.name).get_weights()
            if layer.name in norms:
                factor, offset = norms[layer.name].as_factor_and_offset(task)
                kernel, bias = weights
                weights = [kernel * factor, bias * factor + offset]
            layer.set_weights(weights)
        return self._deployed

    def start_from(self, weights: list[NDArray[Any]]) -> None:
        """Take the weights of a deployed network, which has its normalisation in its convolutions."""
        whole = build(self.config)
        whole.set_weights(weights)
        for layer in whole.layers:
            if layer.weights:
                self.network.get_layer(layer.name).set_weights(layer.get_weights())
        for norm in self.norms.values():
            norm.become_identity()
        self.begun.assign(1.0)


def passed(number: int, total: int, *, freeze: float) -> float:
    """How far normalisation has passed over in step `number` (from 0) of `total`: 0 until half of `freeze`, 1 from it on."""
    return float(np.clip((number / total - freeze / 2) / (freeze / 2), 0, 1))
