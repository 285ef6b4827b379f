"""Keras models of the kinds that people bring: built here, never trained. Used by the tests of exporting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

Build = Callable[[], keras.Model]


def seeded(model: keras.Model) -> keras.Model:
    """The same weights in every run, none of them zero (biases and means would hide mistakes otherwise)."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if "var" in weight.path.rsplit("/", 1)[-1]:
            weight.assign(random.uniform(0.5, 1.5, shape))
        elif len(shape) >= 2:
            weight.assign(random.normal(0, 1, shape) * np.sqrt(1.5 / np.prod(shape[:-1])))
        else:
            weight.assign(random.uniform(-0.1, 0.1, shape) + (1 if "gamma" in weight.path else 0))
    return model


def _unet(
    *,
    n_dim: int = 2,
    channels: int = 1,
    size: int | None = None,
    block: Callable[[Any, int], Any],
    down: Callable[[Any, int], Any],
    up: Callable[[Any, int], Any],
    last: str = "linear",
) -> keras.Model:
    inputs = keras.Input((size,) * n_dim + (channels,), name="image")
    skips, tensor = [], inputs
    for features in (6, 8):
        tensor = block(tensor, features)
        skips.append(tensor)
        tensor = down(tensor, features)
    tensor = block(tensor, 12)
    for features, skip in ((8, skips[1]), (6, skips[0])):
        tensor = layers.Concatenate()([up(tensor, features), skip])
        tensor = block(tensor, features)
    head = (layers.Conv2D if n_dim == 2 else layers.Conv3D)(1, 1, activation=last, name="head")
    return keras.Model(inputs, head(tensor))


def _pool(tensor: Any, features: int) -> Any:
    return layers.MaxPooling2D()(tensor)


def _double(tensor: Any, features: int) -> Any:
    return layers.UpSampling2D()(tensor)


def batch_norm() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        tensor = layers.Conv2D(features, 3, padding="same", use_bias=False)(tensor)
        return layers.ReLU()(layers.BatchNormalization()(tensor))

    return _unet(
        block=block, down=lambda t, f: layers.MaxPooling2D()(t), up=lambda t, f: layers.UpSampling2D()(t)
    )


def leaky_strided_transposed() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        return layers.LeakyReLU(negative_slope=0.2)(layers.Conv2D(features, 3, padding="same")(tensor))

    return _unet(
        block=block,
        down=lambda t, f: layers.Conv2D(f, 3, strides=2, padding="same", activation="leaky_relu")(t),
        up=lambda t, f: layers.Conv2DTranspose(f, 4, strides=2, padding="same")(t),
        last="tanh",
    )


def bilinear() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        return layers.Conv2D(features, 3, padding="same", activation="elu")(tensor)

    # Keras cannot build interpolating layers at a free size: people build them at a fixed one.
    return _unet(
        size=64,
        block=block,
        down=lambda t, f: layers.AveragePooling2D(2)(t),
        up=lambda t, f: layers.UpSampling2D(interpolation="bilinear")(t),
    )


def group_norm_3d() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        tensor = layers.Conv3D(features, 3, padding="same")(tensor)
        return layers.Activation("swish")(layers.GroupNormalization(groups=2)(tensor))

    return _unet(
        n_dim=3,
        block=block,
        down=lambda t, f: layers.MaxPooling3D((1, 2, 2))(t),
        up=lambda t, f: layers.UpSampling3D((1, 2, 2))(t),
    )


def instance_norm() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        tensor = layers.Conv2D(features, 3, padding="same")(tensor)
        return layers.LeakyReLU()(layers.GroupNormalization(groups=-1)(tensor))

    return _unet(
        channels=2,
        block=block,
        down=lambda t, f: layers.MaxPooling2D()(t),
        up=lambda t, f: layers.UpSampling2D()(t),
    )


def separable_dilated_sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.SeparableConv2D(8, 3, padding="same", activation="relu6"),
            layers.Conv2D(8, 3, padding="same", dilation_rate=2),
            layers.PReLU(shared_axes=[1, 2]),
            layers.DepthwiseConv2D(5, padding="same", activation="softplus"),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.1),
            layers.Conv2D(3, 1, activation="sigmoid"),
        ]
    )


def fixed_size_with_bilinear_sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="gelu"),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )


def nested() -> keras.Model:
    inner = keras.Sequential(
        [
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.3),
        ],
        name="encoder",
    )
    inputs = keras.Input((None, None, 1))
    tensor = layers.ZeroPadding2D(1)(inner(inputs))
    tensor = layers.Conv2D(1, 3, padding="valid")(tensor)
    return keras.Model(inputs, layers.Add()([tensor, inputs]))


@keras.saving.register_keras_serializable("foreign")
class FusedNorm(layers.Layer):
    """A custom layer that calls TensorFlow's fused batch norm, whose newest form TensorFlow 1.12 lacks."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.centre = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, tensor: Any) -> Any:
        import tensorflow as tf

        kept = tf.compat.v1.nn.fused_batch_norm(
            tensor,
            self.gain,
            self.centre,
            mean=self.centre * 0.5,
            variance=self.gain * 0 + 0.7,
            is_training=False,
        )[0]
        return tf.where(kept > 0.0, kept, tf.zeros([], kept.dtype))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


def custom_layer() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    tensor = FusedNorm()(layers.Conv2D(6, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(tensor))


def transposed_3d() -> keras.Model:
    def block(tensor: Any, features: int) -> Any:
        tensor = layers.Conv3D(features, (1, 3, 3), padding="same")(tensor)
        return layers.ReLU(negative_slope=0.1)(layers.BatchNormalization()(tensor))

    return _unet(
        n_dim=3,
        block=block,
        down=lambda t, f: layers.Conv3D(f, 2, strides=2)(t),
        up=lambda t, f: layers.Conv3DTranspose(f, 2, strides=2)(t),
    )


def residual_pixel_shuffle_free() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    tensor = layers.Conv2D(8, 9, padding="same", activation="relu")(inputs)
    for _ in range(2):
        inner = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(tensor))
        inner = layers.PReLU(shared_axes=[1, 2])(inner)
        tensor = layers.Add()([tensor, layers.SpatialDropout2D(0.2)(inner)])
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(tensor)
    tensor = layers.Multiply()([tensor, gate])
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same", activation="softplus")(tensor))


# --- to be refused


def bicubic() -> keras.Model:
    inputs = keras.Input((32, 32, 1))
    tensor = layers.MaxPooling2D()(inputs)
    return keras.Model(inputs, layers.UpSampling2D(interpolation="bicubic", name="smooth_up")(tensor))


def upscaling() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, layers.Conv2DTranspose(1, 3, strides=2, padding="same")(inputs))


def valid_convolutions() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, layers.Conv2D(1, 5)(inputs))


def dense_bottleneck() -> keras.Model:
    inputs = keras.Input((16, 16, 1))
    tensor = layers.Dense(256)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Reshape((16, 16, 1))(tensor))


def attention() -> keras.Model:
    inputs = keras.Input((16, 16, 4))
    tensor = layers.Reshape((-1, 4))(inputs)
    tensor = layers.MultiHeadAttention(2, 4, name="attend")(tensor, tensor)
    return keras.Model(inputs, layers.Reshape((16, 16, 4))(tensor))


def two_outputs() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, [layers.Conv2D(1, 3, padding="same")(inputs), layers.Conv2D(1, 1)(inputs)])


def float64() -> keras.Model:
    inputs = keras.Input((None, None, 1), dtype="float64")
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same", dtype="float64")(inputs))


def half_precision() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    tensor = layers.Conv2D(4, 3, padding="same", dtype="mixed_bfloat16", name="fast")(inputs)
    return keras.Model(inputs, layers.Conv2D(1, 1, dtype="float32")(tensor))


def rank_3() -> keras.Model:
    inputs = keras.Input((None, 1))
    return keras.Model(inputs, layers.Conv1D(1, 3, padding="same")(inputs))


@keras.saving.register_keras_serializable("foreign")
class Noise(layers.Layer):
    """Adds noise in prediction too."""

    def call(self, tensor: Any) -> Any:
        return tensor + keras.random.normal(keras.ops.shape(tensor))


def random_in_prediction() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, Noise(name="grain")(layers.Conv2D(1, 3, padding="same")(inputs)))


ACCEPTED: dict[str, Build] = {
    build.__name__: build
    for build in (
        batch_norm,
        leaky_strided_transposed,
        bilinear,
        group_norm_3d,
        instance_norm,
        separable_dilated_sequential,
        fixed_size_with_bilinear_sequential,
        nested,
        custom_layer,
        transposed_3d,
        residual_pixel_shuffle_free,
    )
}

REFUSED: dict[str, tuple[Build, str]] = {
    "bicubic": (bicubic, "ResizeBicubic.*bilinear"),
    "upscaling": (upscaling, "keep the size"),
    "valid_convolutions": (valid_convolutions, "keep the size"),
    "dense_bottleneck": (dense_bottleneck, "any size"),
    "attention": (attention, "free image sizes|Einsum|BatchMatMul"),
    "two_outputs": (two_outputs, "2 outputs"),
    "float64": (float64, "float64.*float32"),
    "half_precision": (half_precision, "fast.*float32"),
    "rank_3": (rank_3, "rank 3"),
    "random_in_prediction": (random_in_prediction, "grain.*random"),
}
