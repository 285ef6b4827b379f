"""The generator of adversarial training: convolutions down, residual blocks, convolutions up, of Keras' own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from care_bridge.config import CareConfig

Norm = Callable[[str], keras.layers.Layer]
"""From the name of a convolution to the layer that normalises its result while training."""


def norm_name(convolution: str) -> str:
    """Name of the layer that normalises a convolution's result."""
    return f"{convolution}_norm"


def resnet(
    config: CareConfig, make: Callable[..., keras.layers.Layer], norm: Norm | None = None
) -> keras.Model:
    """A residual network that takes and gives images of one size.

    Parameters
    ----------
    config : CareConfig
        Its ``unet_*`` are those of a U-Net: how often it goes down, the kernel, the features of the first level.
    make : callable
        From features, kernel, activation and name to a convolution (`unet.build` has it).
    norm : callable, optional
        Normalises what convolutions give while training. Afterwards it is folded into them, so None builds what is
        opened and exported.

    Returns
    -------
    keras.Model
        Input `input`, shape (batch, [z,] y, x, channel). The layers with weights of both have the same names.

    Notes
    -----
    Johnson et al. 2016, as CycleGAN and DeblurGAN have it: a wide convolution, strided ones, residual blocks of two,
    nearest neighbours and convolutions back up, a wide convolution; the input is added to the result. Theirs has no skip
    connections (``resnet_skips``): noise, which is on the finest level, then hardly finds a way through to be taken off.
    Padding is with zeros, as the U-Net's: what is padded is cut off with the rim of a tile.
    """
    kernel, pool, first = config.kernel, config.unet_pool, config.unet_n_first
    wide = tuple(2 * size + 1 for size in kernel)
    upsampling = keras.layers.UpSampling2D if len(kernel) == 2 else keras.layers.UpSampling3D

    def convolve(layer: Any, features: int, name: str, activation: str = "relu", **how: Any) -> Any:
        size = how.pop("size", kernel)
        if norm is None:
            return make(features, size, activation, name, **how)(layer)
        layer = norm(norm_name(name))(make(features, size, "linear", name, **how)(layer))
        return keras.layers.Activation(activation, name=f"{name}_{activation}")(layer)

    dtype = getattr(make, "dtype", None)
    inputs = keras.layers.Input(config.unet_input_shape, name="input")
    layer = convolve(inputs, first, "first", size=wide)
    skipped = []
    for level in range(config.unet_n_depth):
        skipped.append(layer)
        layer = convolve(layer, first << level + 1, f"down_{level}", strides=pool)
    for number in range(config.resnet_n_blocks):
        inner = convolve(layer, first << config.unet_n_depth, f"block_{number}_no_0")
        inner = convolve(inner, first << config.unet_n_depth, f"block_{number}_no_1", "linear")
        layer = keras.layers.Add(name=f"block_{number}", dtype=dtype)([layer, inner])
    for level in reversed(range(config.unet_n_depth)):
        layer = upsampling(pool, name=f"raise_{level}", dtype=dtype)(layer)
        if config.resnet_skips:
            both = [layer, skipped[level]]
            layer = keras.layers.Concatenate(axis=-1, name=f"skip_{level}", dtype=dtype)(both)
        layer = convolve(layer, first << level, f"up_{level}")
    outputs = make(config.n_channel_out, wide, "linear", "mean", head=True)(layer)
    if config.unet_residual:
        outputs = keras.layers.Add(name="residual")([outputs, inputs])
    outputs = keras.layers.Activation(config.unet_last_activation, name="activation")(outputs)
    return keras.Model(inputs, outputs, name="resnet")
