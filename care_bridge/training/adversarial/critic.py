"""The critic: a number for each patch of an image, high where it takes it for real; and what both sides lose by it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from care_bridge.config import CareConfig

PENALTY = 10.0
"""Weight of the penalty on the critic's gradient (Gulrajani et al. 2017)."""

BETAS = {"lsgan": (0.5, 0.999), "bce": (0.5, 0.999), "wgan-gp": (0.5, 0.9)}
"""Of Adam, for both sides, as the papers have them."""


def build_critic(config: CareConfig, channels: int, *, seed: int, name: str = "critic") -> keras.Model:
    """A critic with fresh weights.

    Parameters
    ----------
    config : CareConfig
    channels : int
        Of what it looks at: an image, or an image behind what it was made from.
    seed : int
    name : str

    Notes
    -----
    The patch critic of Isola et al. 2017: strided convolutions of 4 x 4, then two more; no layer normalises, so that the
    gradient penalty is that of each image by itself.
    """
    random = np.random.default_rng(seed)

    def convolve(layer: Any, features: int, strides: int, number: int) -> Any:
        start = keras.initializers.GlorotUniform(seed=int(random.integers(2**31)))
        return keras.layers.Conv2D(
            features, 4, strides, padding="same", kernel_initializer=start, name=f"{name}_{number}"
        )(layer)

    inputs = keras.layers.Input((None, None, channels), name="looked_at")
    layer, first, depth = inputs, config.gan_critic_n_first, config.gan_critic_n_depth
    for number in range(depth + 1):
        # Not deeper than 8 times the first, as the paper.
        layer = convolve(layer, first << min(number, 3), 2 if number < depth else 1, number)
        layer = keras.layers.LeakyReLU(0.2, name=f"{name}_{number}_leaky")(layer)
    return keras.Model(inputs, convolve(layer, 1, 1, depth + 1), name=name)


def drawn(seed: int, what: int) -> int:
    """A seed of its own for each network that is drawn."""
    return int(np.random.default_rng([seed, what]).integers(2**31))


def adam(config: CareConfig, variables: Any) -> keras.optimizers.Optimizer:
    """The optimiser of either side."""
    first, second = BETAS[config.gan_loss]
    made = keras.optimizers.Adam(config.train_learning_rate, beta_1=first, beta_2=second)
    made.build(variables)
    return made


class Critic:
    """A critic with its optimiser.

    Parameters
    ----------
    config : CareConfig
    channels : int
        Of what it looks at.
    what : int
        Second entry of the seeds of its weights.
    """

    def __init__(self, config: CareConfig, channels: int, *, what: int, name: str = "critic") -> None:
        self.config = config
        self.network = build_critic(config, channels, seed=drawn(config.seed, what), name=name)
        self.optimizer = adam(config, self.network.trainable_variables)
        self._what = what

    def judge(self, image: Any) -> Any:
        """High where it takes it for real."""
        return self.network(image, training=True)

    def learn(self, real: Any, made: Any, number: Any) -> Any:
        """One step, on real and on made images; `number` is the step's, for what is drawn at random. What it lost."""
        kind, network = self.config.gan_loss, self.network
        with tf.GradientTape() as tape:
            loss = critic_loss(kind, network(real, training=True), network(made, training=True))
            if kind == "wgan-gp":
                seed = tf.stack([tf.constant((self.config.seed + self._what) % 2**31), number])
                loss += gradient_penalty(network, real, made, seed)
        variables = network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def variables(self) -> list[Any]:
        """Its weights and its optimiser's."""
        return [*self.optimizer.variables, *self.network.weights]


def critic_loss(kind: str, real: Any, made: Any) -> Any:
    """What the critic loses by its judgement of real images and of made ones."""
    if kind == "lsgan":
        return 0.5 * (tf.reduce_mean(tf.square(real - 1)) + tf.reduce_mean(tf.square(made)))
    if kind == "bce":
        return 0.5 * (tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(made)))
    return tf.reduce_mean(made) - tf.reduce_mean(real)


def generator_loss(kind: str, made: Any) -> Any:
    """What the generator loses by the critic's judgement of what it made."""
    if kind == "lsgan":
        return tf.reduce_mean(tf.square(made - 1))
    if kind == "bce":
        return tf.reduce_mean(tf.nn.softplus(-made))
    return -tf.reduce_mean(made)


def gradient_penalty(critic: keras.Model, real: Any, made: Any, seed: Any) -> Any:
    """How far the critic's gradient between real and made images is from 1.

    Parameters
    ----------
    critic : keras.Model
    real, made : tensor
        Of one shape.
    seed : tensor of two int32
        Where between them it is taken.
    """
    share = tf.random.stateless_uniform([tf.shape(real)[0], 1, 1, 1], seed)
    between = real + share * (made - real)
    with tf.GradientTape() as tape:
        tape.watch(between)
        judged = tf.reduce_sum(tf.reduce_mean(critic(between, training=True), [1, 2, 3]))
    slope = tf.sqrt(tf.reduce_sum(tf.square(tape.gradient(judged, between)), [1, 2, 3]) + 1e-12)
    return PENALTY * tf.reduce_mean(tf.square(slope - 1))
