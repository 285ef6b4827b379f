"""csbdeep's networks, layer for layer, with today's Keras; the same at half the resolution; and where others are built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import psutil

from care_bridge.config import CareConfig, too_large
from care_bridge.errors import InputError
from care_bridge.n2v_keys import BLURPOOL
from care_bridge.training.resnet import Norm, resnet

BLOCKS = "blocks"
"""Name of the layer that takes the fast architecture down to half the resolution; its weights are known by it."""

_MEMBER = "member_{}"

SCALE_MIN = 1e-3
"""Added to the scale of a probabilistic network, so that its logarithm stays finite (csbdeep)."""


def build(
    config: CareConfig,
    *,
    seed: int | None = None,
    precision: str = "float32",
    scaled: bool = True,
    norm: Norm | None = None,
) -> keras.Model:
    """A network with fresh weights.

    Parameters
    ----------
    config : CareConfig
    seed : int, optional
        Of the first weights. None takes `config.seed`.
    precision : {"float32", "bfloat16"}
        What is computed in; weights, and the heads with the addition of the input, are float32 always.
    scaled : bool
        Whether a network with means and stds of its own holds them, so that grey levels go in and come out. Training and
        packages take it without; it has the same weights.
    norm : callable, optional
        What normalises in a residual network while it is trained; see `resnet.resnet`. Other networks have none.

    Returns
    -------
    keras.Model
        Input `input`, float32 (batch, [z,] y, x, channel). Output the same with `config.n_channel_predicted`
        channels; a projection network's has one dimension less. Weights are in csbdeep's order.

    Raises
    ------
    InputError
        If its weights are larger than this machine's memory.

    Notes
    -----
    Architecture: csbdeep 0.8.2, internals/nets.py, internals/blocks.py, models/care_projection.py. Only
    layers of Keras itself are used, so a `.keras` file opens in safe mode and without this package.

    ``architecture="fast"`` is that U-Net on blocks of 2 x 2 pixels: its first convolution has twice the kernel and
    stride 2 along Y and X (space-to-depth and a convolution in one), its heads are transposed convolutions of 2 x 2
    with stride 2 (a 1x1 convolution and depth-to-space in one); the input is added at full resolution.

    N2V2 (Hoeck et al. 2022) blurs before it drops pixels, and leaves out the finest skip connection. Here the largest of
    three is averaged over three, and two of these over two: ``[1 2 2 1] / 6``, in the middle of its block, by
    pooling layers alone, which every runtime has in 2-D and 3-D.
    """
    memory = psutil.virtual_memory().total
    if config.weight_bytes > memory:
        raise InputError(f"{too_large(config)}; this machine has {memory / 1e9:,.0f} GB")
    make = _Convolutions(
        config.seed if seed is None else seed,
        "mixed_bfloat16" if precision == "bfloat16" else None,
        normed=config.unet_batch_norm,
    )
    if config.kind == "ProjectionCARE":
        return _projection(config, make)
    if config.architecture == "resnet":
        return resnet(config, make, norm)
    return _unet(config, make, config.unet_input_shape, scaled=scaled)


def bare(config: CareConfig, network: keras.Model) -> keras.Model:
    """A network without the mean and deviation that it has of its own; itself where it has none.

    Parameters
    ----------
    config : CareConfig
    network : keras.Model
        As `build` gives it, or an average of such networks.

    Returns
    -------
    keras.Model
        With copies of the weights; of what is no single network of `build` the same with its scale around undone.
    """
    own = config.own_scale
    if own is None:
        return network
    made = build(config, scaled=False)
    if [weight.shape for weight in made.weights] == [weight.shape for weight in network.weights]:
        made.set_weights(network.get_weights())
        return made
    inputs = keras.layers.Input(network.input_shape[1:], name="input")
    raised = _rescaled(inputs, own.means, own.stds, back=True)
    outputs = _rescaled(network(raised), own.means, own.stds, back=False)
    return keras.Model(inputs, outputs, name="bare")


def _rescaled(layer: Any, means: Sequence[float], stds: Sequence[float], *, back: bool) -> Any:
    # First the mean, then the deviation: together the difference of two large numbers would be rounded.
    shift: Any = [float(np.float32(mean)) for mean in means]
    width: Any = [float(np.float32(std)) for std in stds]
    if len(shift) == 1:
        shift, width = shift[0], width[0]
    if back:
        return keras.layers.Rescaling(width, offset=shift)(layer)
    minus = -shift if isinstance(shift, float) else [-mean for mean in shift]
    over = 1 / width if isinstance(width, float) else [1 / std for std in width]
    return keras.layers.Rescaling(over)(keras.layers.Rescaling(1.0, offset=minus)(layer))


def mean_of(
    networks: Sequence[keras.Model], *, probabilistic: bool, temperature: float | None = None
) -> keras.Model:
    """One network that runs several and averages them: an ensemble for any runtime.

    Parameters
    ----------
    networks : sequence of keras.Model
        Of one architecture.
    probabilistic : bool
        Whether the second half of their channels are scales. The result's scale is that of the Laplace
        distribution with the mixture's variance: ``sqrt(mean(scale**2) + var(mean) / 2)``.
    temperature : float, optional
        What that scale is multiplied by, as `intervals.Mixture.stretched` does; None is 1.

    Returns
    -------
    keras.Model
        Input and output as those of one of `networks`.
    """
    average = keras.layers.Average
    inputs = keras.layers.Input(networks[0].input_shape[1:], name="input")
    outputs = [
        keras.Model(network.inputs[0], network.outputs[0], name=_MEMBER.format(number + 1))(inputs)
        for number, network in enumerate(networks)
    ]
    if not probabilistic:
        return keras.Model(inputs, average(name="mean")(outputs), name="ensemble")
    half = networks[0].output_shape[-1] // 2
    means = [output[..., :half] for output in outputs]
    mean = average(name="mean")(means)
    # Laplace: variance = 2 scale^2; that of a mixture adds the spread of its means.
    inner = average(name="inner")([keras.ops.square(output[..., half:]) for output in outputs])
    spread = average(name="spread")([keras.ops.square(one - mean) for one in means])
    scale = keras.ops.sqrt(inner + spread * 0.5)
    if temperature is not None:
        scale = keras.layers.Rescaling(float(np.float32(temperature)), name="temperature")(scale)
    both = keras.layers.Concatenate(axis=-1, name="mean_and_scale")
    return _steady(keras.Model(inputs, both([mean, scale]), name="ensemble"))


def _steady(network: keras.Model) -> keras.Model:
    """Name what Keras numbers through: files must not hang on what else was built in this process."""
    for number, operation in enumerate(network.operations):
        if not isinstance(operation, keras.layers.Layer):
            operation.name = f"{type(operation).__name__.lower()}_{number}"
    return network


def parts_of_mean(network: keras.Model, count: int) -> list[keras.Model]:
    """The networks that `mean_of` averaged, in their order; ValueError where there are not so many."""
    return [network.get_layer(_MEMBER.format(number + 1)) for number in range(count)]


class _Convolutions:
    """Convolution layers with first weights from one seed, the same whatever else was built before."""

    def __init__(self, seed: int, dtype: str | None, *, normed: bool = False) -> None:
        self._random = np.random.default_rng(seed)
        self.dtype, self.normed = dtype, normed

    def __call__(
        self,
        features: int,
        kernel: tuple[int, ...],
        activation: str,
        name: str | None = None,
        *,
        head: bool = False,
        strides: tuple[int, ...] | int = 1,
        transposed: bool = False,
    ) -> Callable[[Any], Any]:
        layers = keras.layers
        normed = self.normed and not head
        if len(kernel) == 2:
            layer = layers.Conv2DTranspose if transposed else layers.Conv2D
        else:
            layer = layers.Conv3DTranspose if transposed else layers.Conv3D
        convolve: Callable[[Any], Any] = layer(
            features,
            kernel,
            strides=strides,
            padding="same",
            activation="linear" if normed else activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=int(self._random.integers(2**31))),
            name=name,
            dtype=None if head else self.dtype,
        )
        if not normed:
            return convolve
        norm = layers.BatchNormalization(name=f"{name}_norm", dtype=self.dtype)
        activate = layers.Activation(activation, name=f"{name}_{activation}", dtype=self.dtype)
        return lambda tensor: activate(norm(convolve(tensor)))


def _unet(
    config: CareConfig, make: _Convolutions, input_shape: tuple[int | None, ...], *, scaled: bool = False
) -> keras.Model:
    inputs = keras.layers.Input(input_shape, name="input")
    own = config.own_scale if scaled else None
    first = inputs if own is None else _rescaled(inputs, own.means, own.stds, back=False)
    if config.unet_per_channel and config.n_channel_in > 1:
        restored = _channel_by_channel(config, make, first)
        if own is not None:
            restored = _rescaled(restored, own.means, own.stds, back=True)
        return _steady(keras.Model(inputs, restored, name="unet"))
    features = _features(config, make, first)
    # A fast network's heads also bring back the full resolution; csbdeep's are convolutions of one pixel.
    block = config.stride
    how: dict[str, Any] = {"head": True, "strides": block, "transposed": config.architecture == "fast"}
    mean = make(config.n_channel_out, block, "linear", "mean", **how)(features)
    if config.unet_residual:
        mean = keras.layers.Add(name="residual")([mean, first])
    outputs = keras.layers.Activation(config.unet_last_activation, name="activation")(mean)
    if own is not None:
        outputs = _rescaled(outputs, own.means, own.stds, back=True)
    if config.probabilistic:
        scale = make(config.n_channel_out, block, "softplus", "scale", **how)(features)
        # The temperature takes no operation of its own, so that every reader's graph has it.
        factor = float(np.float32(config.temperature or 1.0))
        scale = keras.layers.Rescaling(factor, offset=factor * SCALE_MIN, name="scale_min")(scale)
        outputs = keras.layers.Concatenate(axis=-1, name="mean_and_scale")([outputs, scale])
    return keras.Model(inputs, outputs, name="unet")


def _channel_by_channel(config: CareConfig, make: _Convolutions, layer: Any) -> Any:
    """A U-Net for each channel, none of which sees another (n2v, nets/unet.py)."""
    parts = []
    for number in range(config.n_channel_in):
        prefix = f"channel_{number}_"
        channel = layer[..., number : number + 1]
        features = _features(config, make, channel, prefix)
        part = make(1, config.stride, "linear", f"{prefix}mean", head=True)(features)
        if config.unet_residual:
            part = keras.layers.Add(name=f"{prefix}residual")([part, channel])
        parts.append(keras.layers.Activation(config.unet_last_activation, name=f"{prefix}activation")(part))
    return keras.layers.Concatenate(axis=-1, name="channels")(parts)


def _features(config: CareConfig, make: _Convolutions, layer: Any, prefix: str = "") -> Any:
    kernel, pool, depth, first = config.kernel, config.unet_pool, config.unet_n_depth, config.unet_n_first
    pooling, upsampling = _pooling(len(kernel))
    skipped = []
    for level in range(depth):
        for i in range(2):
            if config.architecture == "fast" and level == i == 0:
                layer = _into_blocks(config, make)(layer)
                continue
            layer = make(first * 2**level, kernel, "relu", f"{prefix}down_level_{level}_no_{i}")(layer)
        skipped.append(layer)
        if config.unet_blurpool:
            how = _blurred_as_n2v if config.unet_blurpool == BLURPOOL else _blurred
            layer = how(layer, pool, f"{prefix}{{}}_{level}", make.dtype)
        else:
            layer = pooling(pool, name=f"{prefix}max_{level}", dtype=make.dtype)(layer)
    layer = make(first * 2**depth, kernel, "relu", f"{prefix}middle_0")(layer)
    layer = make(first * 2 ** max(0, depth - 1), kernel, "relu", f"{prefix}middle_2")(layer)
    for level in reversed(range(depth)):
        raised = upsampling(pool, name=f"{prefix}up_{level}", dtype=make.dtype)(layer)
        layer = raised
        if level or config.unet_top_skip:
            both = [raised, skipped[level]]
            layer = keras.layers.Concatenate(axis=-1, name=f"{prefix}skip_{level}", dtype=make.dtype)(both)
        wide = first if config.unet_narrow_up else first * 2**level
        layer = make(wide, kernel, "relu", f"{prefix}up_level_{level}_no_0")(layer)
        layer = make(first * 2 ** max(0, level - 1), kernel, "relu", f"{prefix}up_level_{level}_no_2")(layer)
    return layer


def _into_blocks(config: CareConfig, make: _Convolutions) -> Callable[[Any], Any]:
    size = tuple(width * stride for width, stride in zip(config.kernel, config.stride, strict=True))
    return make(config.unet_n_first, size, "relu", BLOCKS, strides=config.stride)


def _projection(config: CareConfig, make: _Convolutions) -> keras.Model:
    # Two models inside one, as csbdeep nests them: its weight files have a group for each.
    axis, kernel, pool = config.proj_axis or "Z", config.proj_kern or (3, 3, 3), config.proj_pool or (1, 2, 2)
    position = 1 + config.axes.index(axis)
    pooling, upsampling = _pooling(3)
    inputs = keras.layers.Input(config.unet_input_shape, name="input")
    layer = inputs

    def convolve(layer: Any, name: str) -> Any:
        for i in range(config.proj_n_conv_per_depth or 1):
            layer = make(config.proj_n_filt or 8, kernel, "relu", f"{name}_no_{i}")(layer)
        return layer

    # Names keep files from hanging on what else was built in this process.
    depth = config.proj_n_depth or 4
    for level in range(depth):
        layer = convolve(layer, f"proj_down_{level}")
        layer = pooling(pool, name=f"proj_max_{level}", dtype=make.dtype)(layer)
    layer = convolve(layer, "proj_middle")
    for level in reversed(range(depth)):
        layer = upsampling(pool, name=f"proj_up_{level}", dtype=make.dtype)(layer)
        layer = convolve(layer, f"proj_up_{level}")
    layer = make(1, kernel, "linear", "surface", head=True)(layer)
    # Where along the axis the surface is, as probabilities; then the input's expectation under them.
    layer = keras.layers.Softmax(axis=position, name="probability")(layer)
    layer = keras.layers.Multiply(name="weighted")([inputs, layer])
    projecting = _steady(keras.Model(inputs, keras.ops.sum(layer, axis=position), name="projection"))

    flat = list(config.unet_input_shape)
    del flat[position - 1]
    restoring = _unet(config, make, tuple(flat))
    return keras.Model(inputs, restoring(projecting(inputs)), name="projection_and_unet")


def _blurred(layer: Any, pool: tuple[int, ...], name: str, dtype: str | None) -> Any:
    """Pooling that is blurred, so that no pattern of the pooling grid is left (N2V2)."""
    layers = keras.layers
    largest, average = layers.MaxPooling3D, layers.AveragePooling3D
    if len(pool) == 2:
        largest, average = layers.MaxPooling2D, layers.AveragePooling2D
    wide = tuple(3 if factor > 1 else 1 for factor in pool)
    layer = largest(wide, strides=1, padding="same", name=name.format("max"), dtype=dtype)(layer)
    layer = average(wide, strides=1, padding="same", name=name.format("blur"), dtype=dtype)(layer)
    return average(pool, name=name.format("half"), dtype=dtype)(layer)


def _blurred_as_n2v(layer: Any, pool: tuple[int, ...], name: str, dtype: str | None) -> Any:
    """The same as n2v does it, nets/blurpool.py: its largest of two by two, blurred by a kernel that is a weight."""
    layers = keras.layers
    layer = layers.MaxPooling2D(pool, strides=1, padding="same", name=name.format("max"), dtype=dtype)(layer)
    blur = layers.DepthwiseConv2D(
        3,
        strides=pool,
        padding="same",
        use_bias=False,
        trainable=False,
        name=name.format("blur"),
        dtype=dtype,
    )
    blurred = blur(layer)
    line = np.array([0.25, 0.5, 0.25], np.float32)
    kernel = np.multiply.outer(line, line)[:, :, None, None]
    blur.set_weights([np.repeat(kernel, layer.shape[-1], axis=2)])
    return blurred


def _pooling(n_dim: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if n_dim == 2:
        return keras.layers.MaxPooling2D, keras.layers.UpSampling2D
    return keras.layers.MaxPooling3D, keras.layers.UpSampling3D
