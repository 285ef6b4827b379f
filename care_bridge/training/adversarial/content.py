"""What two images are held against each other by, beside their pixels: features of a network or of a bank of filters."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.batches import BatchSource

CONTENT = 9
"""Second entry of the seeds of what is drawn here, as in `batches` (0, 1), `streams` (2 to 5) and `blind_spots` (6 to 8)."""

_RATE = 1e-3
_NOISE = (0.1, 1.0)
_SCALES = (1.0, 2.0, 4.0)
_FAR = 1 << 29


class Content(Protocol):
    """Tells how far the content of two images is apart."""

    def learn(self, data: BatchSource) -> None:
        """Get ready, from the targets of the training patches."""
        ...

    def distance(self, one: Any, other: Any) -> Any:
        """0 where both have the same features; a number."""
        ...

    def variables(self) -> list[Any]:
        """What it has learnt."""
        ...


def content_of(config: CareConfig) -> Content:
    """What `config.gan_content_net` names."""
    return Encoder(config) if config.gan_content_net == "encoder" else Filters(config.n_channel_out)


class Encoder:
    """The way down of a small network that has learnt to take noise off the training targets.

    Features are of the images' own kind, and need nothing from elsewhere. Differences count in standard deviations of each
    of the three layers that are looked at.
    """

    def __init__(self, config: CareConfig) -> None:
        self.config = config
        random = np.random.default_rng([config.seed, CONTENT])

        def convolve(layer: Any, features: int, name: str, strides: int = 1, activation: str = "relu") -> Any:
            start = keras.initializers.GlorotUniform(seed=int(random.integers(2**31)))
            return keras.layers.Conv2D(
                features,
                3,
                strides,
                padding="same",
                activation=activation,
                kernel_initializer=start,
                name=name,
            )(layer)

        channels = config.n_channel_out
        inputs = keras.layers.Input((None, None, channels), name="image")
        first = convolve(inputs, 16, "content_0")
        second = convolve(first, 32, "content_1", 2)
        third = convolve(second, 64, "content_2", 2)
        layer = convolve(third, 64, "content_3")
        for number, features in enumerate((32, 16)):
            layer = keras.layers.UpSampling2D(2, name=f"content_raised_{number}")(layer)
            layer = convolve(layer, features, f"content_back_{number}")
        self._whole = keras.Model(inputs, convolve(layer, channels, "content_image", activation="linear"))
        self.network = keras.Model(inputs, [first, second, third], name="content")
        self._spread = tf.Variable(np.ones(3, np.float32), trainable=False)

    def learn(self, data: BatchSource) -> None:
        config, network = self.config, self._whole
        optimizer = keras.optimizers.Adam(_RATE)
        optimizer.build(network.trainable_variables)

        def step(noisy: Any, clean: Any) -> None:
            with tf.GradientTape() as tape:
                given = network(noisy, training=True)
                # Sizes that are no multiple of 4 come back larger.
                given = given[:, : tf.shape(clean)[1], : tf.shape(clean)[2]]
                loss = tf.reduce_mean(tf.abs(given - clean))
            optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)

        learn = tf.function(step, reduce_retracing=True, autograph=False)
        for number in range(config.gan_content_steps):
            clean = data.batch_at(_FAR + number, size=config.train_batch_size, seed=config.seed)[1]
            learn(tf.constant(self._noisy(clean, number)), tf.constant(clean))
        clean = data.batch_at(_FAR, size=4 * config.train_batch_size, seed=config.seed)[1]
        spread = [float(np.std(np.asarray(layer))) for layer in self.network(clean)]
        self._spread.assign(np.maximum(spread, 1e-3))

    def _noisy(self, clean: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        random = np.random.default_rng([self.config.seed, CONTENT, number])
        strength = random.uniform(*_NOISE) * max(float(clean.std()), 1e-3)
        return np.asarray(clean + random.normal(0, strength, clean.shape), np.float32)

    def distance(self, one: Any, other: Any) -> Any:
        pairs = zip(self.network(one), self.network(other), strict=True)
        apart = [tf.reduce_mean(tf.abs(here - there)) for here, there in pairs]
        return tf.reduce_mean(tf.stack(apart) / self._spread)

    def variables(self) -> list[Any]:
        return [*self.network.weights, self._spread]


class Filters:
    """A bank of fixed filters: at three scales a Gaussian, its slopes along x and y, its Laplacian and four Gabors.

    Each is scaled so that the sizes of its numbers add up to 1.
    """

    def __init__(self, channels: int) -> None:
        self._banks = [tf.constant(np.repeat(_bank(scale), channels, axis=2)) for scale in _SCALES]

    def learn(self, data: BatchSource) -> None:
        """They are fixed."""

    def distance(self, one: Any, other: Any) -> Any:
        # Filters are linear: those of the difference are the difference of theirs.
        difference = one - other
        apart = [
            tf.reduce_mean(tf.abs(tf.nn.depthwise_conv2d(difference, bank, [1, 1, 1, 1], "SAME")))
            for bank in self._banks
        ]
        return tf.reduce_mean(tf.stack(apart))

    def variables(self) -> list[Any]:
        return []


def _bank(scale: float) -> NDArray[np.float32]:
    """Filters of one scale, shape (y, x, 1, filter)."""
    reach = int(3 * scale)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] / scale
    bell = np.exp(-(x**2 + y**2) / 2)
    filters = [bell, -x * bell, -y * bell, (x**2 + y**2 - 2) * bell]
    for angle in np.arange(4) * np.pi / 4:
        wave = np.cos(2 * (x * np.cos(angle) + y * np.sin(angle)))
        # Without what a constant image gives.
        filters.append(bell * (wave - (bell * wave).sum() / bell.sum()))
    return np.stack([one / np.abs(one).sum() for one in filters], axis=-1)[:, :, None].astype(np.float32)
