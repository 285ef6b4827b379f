"""What two images are held against each other by, beside their pixels: features of a network or of a bank of filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.training.batches import BatchSource
from care_bridge.training.folder import read_weights

CONTENT = 9
"""Second entry of the seeds of what is drawn here, as in `batches` (0, 1), `streams` (2 to 5) and `blind_spots` (6 to 8)."""

_RATE = 1e-3
_NOISE = (0.1, 1.0)
_SCALES = (1.0, 2.0, 4.0)
_FAR = 1 << 29
_VGG = ((64, 2), (128, 2), (256, 3))
_VGG_MEANS = (103.939, 116.779, 123.68)
"""Of ImageNet's blue, green and red, as Keras' ``vgg16.preprocess_input`` has them."""


class Content(Protocol):
    """Tells how far the content of two images is apart."""

    def learn(self, data: BatchSource) -> None:
        """Get ready, from the targets of the training patches."""
        ...

    def distance(self, one: Any, other: Any) -> Any:
        """0 where both have the same features; a number."""
        ...

    def layers(self, image: Any) -> list[Any]:
        """The features themselves, of about one size."""
        ...

    def variables(self) -> list[Any]:
        """What it has learnt."""
        ...


def style(content: Content, one: Any, other: Any) -> Any:
    """How far the style of a batch is from another's: which features go together, wherever they are (Gatys et al. 2016).

    As a share of the other's, so that features of any size count alike.
    """
    apart = []
    for here, there in zip(content.layers(one), content.layers(other), strict=True):
        grams = [
            tf.einsum("nyxa,nyxb->ab", layer, layer)
            / tf.cast(tf.reduce_prod(tf.shape(layer)[:3]), tf.float32)
            for layer in (here, there)
        ]
        apart.append(tf.reduce_sum(tf.abs(grams[0] - grams[1])) / (tf.reduce_sum(tf.abs(grams[1])) + 1e-12))
    return tf.reduce_mean(tf.stack(apart))


def content_of(config: CareConfig) -> Content:
    """What `config.gan_content_net` names.

    Raises
    ------
    InputError
        If the weights of VGG16 are not those that are asked for.
    """
    kind = config.gan_content_net
    if kind == "encoder":
        return Encoder(config)
    return Filters(config.n_channel_out) if kind == "filters" else Vgg(config)


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
        pairs = zip(self.layers(one), self.layers(other), strict=True)
        return tf.reduce_mean(tf.stack([tf.reduce_mean(tf.abs(here - there)) for here, there in pairs]))

    def layers(self, image: Any) -> list[Any]:
        return [
            layer / spread
            for layer, spread in zip(self.network(image), tf.unstack(self._spread), strict=True)
        ]

    def variables(self) -> list[Any]:
        return [*self.network.weights, self._spread]


class Vgg:
    """The first layers of VGG16 (Simonyan and Zisserman 2015), down to block3_conv3, whose features are looked at.

    With random weights they are features of no kind of image, and still keep where things are; the weights of ImageNet
    are a file that a person has. Images are shown as VGG16 was: 0 to 1 as 0 to 255, of three equal channels, less the
    means of its training images.
    """

    def __init__(self, config: CareConfig) -> None:
        self.config = config
        random = np.random.default_rng([config.seed, CONTENT])
        inputs = keras.layers.Input((None, None, 3), name="image")
        layer = inputs
        for block, (features, count) in enumerate(_VGG, start=1):
            for number in range(1, count + 1):
                start = keras.initializers.HeNormal(seed=int(random.integers(2**31)))
                layer = keras.layers.Conv2D(
                    features,
                    3,
                    padding="same",
                    activation="relu",
                    kernel_initializer=start,
                    name=f"block{block}_conv{number}",
                )(layer)
            if block < len(_VGG):
                layer = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(layer)
        self.network = keras.Model(inputs, layer, name="vgg")
        if config.gan_vgg_file is not None:
            _fill(self.network, config.gan_vgg_file, config.gan_vgg_sha256)
        self._spread = tf.Variable(1.0, trainable=False)

    def learn(self, data: BatchSource) -> None:
        clean = data.batch_at(_FAR, size=self.config.train_batch_size, seed=self.config.seed)[1]
        self._spread.assign(max(float(np.std(np.asarray(self._features(tf.constant(clean))))), 1e-3))

    def _features(self, image: Any) -> Any:
        grey = 255 * tf.reduce_mean(image, -1, keepdims=True)
        return self.network(grey - tf.constant(_VGG_MEANS, tf.float32))

    def distance(self, one: Any, other: Any) -> Any:
        return tf.reduce_mean(tf.abs(self.layers(one)[0] - self.layers(other)[0]))

    def layers(self, image: Any) -> list[Any]:
        return [self._features(image) / self._spread]

    def variables(self) -> list[Any]:
        # Its weights are drawn, or read, again.
        return [self._spread]


def _fill(network: keras.Model, path: str, wanted: str | None) -> None:
    """Take weights from a file of the whole VGG16 or of its convolutions."""
    if not Path(path).is_file():
        raise InputError(
            f"gan_vgg_file={path!r} is not there; give a file of VGG16's weights, or another gan_content_net"
        )
    found = sha256(path)
    if wanted is not None and found != wanted:
        raise InputError(
            f"gan_vgg_file={path!r} has SHA-256 {found}, and gan_vgg_sha256 asks for {wanted}; give the file that the "
            "training was begun with"
        )
    stored = read_weights(path)[: len(network.weights)]
    shapes = [tuple(weight.shape) for weight in network.weights]
    if [array.shape for _, array in stored] != shapes:
        raise InputError(
            f"gan_vgg_file={path!r} holds other layers than VGG16's; its first kernel has {shapes[0]}"
        )
    network.set_weights([array for _, array in stored])


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
        apart = [tf.reduce_mean(tf.abs(layer)) for layer in self.layers(one - other)]
        return tf.reduce_mean(tf.stack(apart))

    def layers(self, image: Any) -> list[Any]:
        return [tf.nn.depthwise_conv2d(image, bank, [1, 1, 1, 1], "SAME") for bank in self._banks]

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
