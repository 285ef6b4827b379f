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
