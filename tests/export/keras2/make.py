"""Write the models of this folder: `python make.py` with tensorflow-cpu 2.15.1, `python make.py old` with Keras 2.2.4."""

import sys
from pathlib import Path

import numpy as np

if sys.argv[1:] == ["old"]:
    import keras
else:
    import tensorflow as tf

    keras = tf.keras
layers = keras.layers
HERE = Path(__file__).parent


def hard_sigmoid():
    inputs = layers.Input((None, None, 1))
    tensor = layers.ELU(0.5)(layers.Conv2D(3, 3, padding="same", activation="swish")(inputs))
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="hard_sigmoid", name="gate")(tensor))


def arithmetic():
    inputs = layers.Input((None, None, 1))
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(inputs) * 0.5 + inputs)


def slicing():
    inputs = layers.Input((None, None, 2))
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(inputs[..., :1]))


def nested():
    inner = keras.Sequential(
        [layers.Conv2D(3, 3, padding="same", input_shape=(None, None, 1)), layers.BatchNormalization()],
        name="encoder",
    )
    inputs = layers.Input((None, None, 1))
    tensor = layers.SpatialDropout2D(0.2)(layers.LeakyReLU(0.2)(inner(inputs)))
    return keras.Model(inputs, layers.Add()([layers.Conv2D(1, 1)(tensor), inputs]))


def separable():
    inputs = layers.Input((None, None, 2))
    tensor = layers.SeparableConv2D(3, 3, padding="same", activation="relu")(inputs)
    tensor = layers.ThresholdedReLU(0.1)(layers.DepthwiseConv2D(3, padding="same")(tensor))
    return keras.Model(inputs, layers.Conv2D(1, 1)(tensor))


def bilinear():
    inputs = layers.Input((None, None, 1))
    tensor = layers.UpSampling2D(interpolation="bilinear", name="smooth_up")(layers.MaxPooling2D()(inputs))
    return keras.Model(inputs, layers.Conv2D(1, 1)(tensor))


def write(build, suffix):
    keras.backend.clear_session()
    random, model = np.random.RandomState(0), build()
    weights = []
    for value in model.get_weights():
        low = 0.5 if value.ndim == 1 else -1
        weights.append(random.uniform(low, 1, value.shape).astype(np.float32))
    model.set_weights(weights)
    path = HERE / f"{build.__name__}{suffix}"
    model.save(str(path))
    image = np.random.RandomState(1).rand(1, 8, 12, model.input_shape[-1]).astype(np.float32)
    np.savez(str(path.with_suffix(".npz")), image=image, output=model.predict(image))


if __name__ == "__main__":
    if sys.argv[1:] == ["old"]:
        write(separable, ".h5")
        write(bilinear, ".h5")
    else:
        write(hard_sigmoid, ".h5")
        write(arithmetic, ".keras")
        write(slicing, ".h5")
        write(nested, ".keras")
