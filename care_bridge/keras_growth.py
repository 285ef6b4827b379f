"""How many weights and values a Keras configuration asks for: told before Keras makes them.

Keras makes the weights of every layer when it opens a file, before it looks at those that the file holds; a
configuration of a few bytes can ask for any number. As in `growth`, what is not followed counts as one, so that what is
told is the least that the network takes for an image of 64x64 pixels, or of 16x16x16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from care_bridge.growth import NOTHING, Growth, Least, Step
from care_bridge.zips import FREE_OF_RATIO, MOST_RATIO

_IMAGE = {1: 64, 2: 64, 3: 16}
"""Pixels along an axis of any size, by the number of axes."""

_MOST = 1 << 40
_MODELS = ("Functional", "Sequential", "Model")
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "SimpleRNN": 1, "SimpleRNNCell": 1}


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ALIKE = _words("""
    Activation ActivityRegularization Add AlphaDropout Average Dropout ELU GaussianDropout GaussianNoise Masking Maximum
    Minimum Multiply Rescaling Relu Sigmoid Softmax Subtract Tanh
""")
"""Layers that give what they get, or what is largest of it."""


@dataclass
class _Layer(Step):
    """A call of a layer, its class is the operation; or, with `part`, its weights or those of a layer that it wraps."""

    config: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    built_for: tuple[int, ...] | None = None


def keras_growth(configuration: Any, size: int) -> str:
    """Why a model is not to be built; "" where it may be.

    Parameters
    ----------
    configuration : mapping
        `config.json` of a .keras file, or `model_config` of an .h5 file.
    size : int
        Bytes of the file: one that holds many weights may ask for many.
    """
    steps = _steps(configuration)
    weights = _weights_of(steps)
    needed = sum(weights.values())
    if needed > max(FREE_OF_RATIO, MOST_RATIO * size):
        layer, _, kind = max(weights, key=lambda name: weights[name]).partition(" weights of ")
        return (
            f"its layers take {needed:.2g} weights at least (most of them {layer.rpartition(':')[0]!r}, a {kind}), which a "
            f"file of {size} bytes does not hold; save the whole model again"
        )
    # A network may be for large images of one size: what it makes is told for a small one.
    growth = Growth(size)
    growth.follow({name: step for name, step in steps.items() if name not in weights}, _of_small)
    return growth.refusal


def least_weights(configuration: Any) -> int:
    """So many weights Keras makes at least when it builds a configuration."""
    return sum(_weights_of(_steps(configuration)).values())


def _steps(configuration: Any) -> dict[str, _Layer]:
    steps: dict[str, _Layer] = {}
    if isinstance(configuration, dict):
        _add_model(configuration, "", steps)
    return steps


def _weights_of(steps: dict[str, _Layer]) -> dict[str, int]:
    found = Growth(0).follow(steps, _of_keras)
    return {name: found[name].count for name, step in steps.items() if step.part}


# --- steps of a configuration


def _add_model(model: Mapping[str, Any], path: str, steps: dict[str, _Layer]) -> str:
    """Add a model's calls; gives the name of the one whose result is the model's."""
    config = model.get("config")
    layers = config.get("layers") if isinstance(config, dict) else config  # a list in the oldest files
    last = ""
    for number, layer in enumerate(layers if isinstance(layers, list) else ()):
        if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict | list):
            continue
        inner = layer["config"]
        said = layer.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
        name = f"{path}{said if isinstance(said, str) else number}"
        nodes = layer.get("inbound_nodes")
        calls = [[f"{path}{source}" for source in _sources(node)] for node in _listed(nodes)] or [[]]
        if nodes is None and last:
            calls = [[last]]  # one after the other
        for call, inputs in enumerate(calls):
            last = f"{name}:{call}"
            _add_layer(layer, last, inputs, steps, built=call == 0)
    ends = config.get("output_layers") if isinstance(config, dict) else None
    return next((f"{path}{end}" for end in _histories(ends)), last)


def _add_layer(
    layer: Mapping[str, Any], name: str, inputs: list[str], steps: dict[str, _Layer], *, built: bool
) -> None:
    kind, config = str(layer.get("class_name")), layer["config"]
    if kind in _MODELS:
        steps[name] = _Layer("Identity", [_add_model(layer, f"{name}/", steps)])
        return
    if not isinstance(config, dict):
        return
    steps[name] = _Layer(kind, inputs, config=config)
    if not built:
        return
    asked = layer.get("build_config")
    shape = asked.get("input_shape") if isinstance(asked, dict) else None
    for part, inner in _parts(kind, config):
        # Keras builds a layer for the sizes that are written down with it, whatever it is given.
        steps[f"{name} weights of {part}"] = _Layer(
            part, inputs, config=inner, part=part, built_for=_shape(shape)
        )


def _parts(kind: str, config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A layer and those that it wraps: the cells of a recurrent one, the layer of TimeDistributed."""
    yield kind, config
    for value in config.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict) and isinstance(inner.get("config"), dict) and depth < 8:
                yield from _parts(str(inner.get("class_name")), inner["config"], depth + 1)


def _sources(node: Any) -> list[str]:
    """The calls that a call takes its tensors from, in Keras 3's way of writing and in Keras 2's."""
    found: list[str] = []
    stack = [node]
    while stack:
        value = stack.pop()
        inner: list[Any] = []
        if isinstance(value, dict):
            found += _histories(value.get("keras_history"))
            inner = [part for key, part in value.items() if key != "keras_history"]
        elif isinstance(value, list):
            here = _histories(value) if value and isinstance(value[0], str) else []
            found += here
            inner = value[3:] if here else value
        stack += reversed(inner)
    return found


def _histories(value: Any) -> list[str]:
    """`["conv", 0, 0]`, or a list of such, as names of calls."""
    if not isinstance(value, list) or not value:
        return []
    if isinstance(value[0], str):
        call = value[1] if len(value) > 1 and isinstance(value[1], int) else 0
        return [f"{value[0]}:{call}"]
    return [name for one in value if isinstance(one, list) for name in _histories(one)]


# --- what each layer makes


def _of_keras(step: Step, given: Sequence[Least]) -> Least:
    assert isinstance(step, _Layer)
    if step.part:
        return Least(min(_weights(step, given), _MOST))
    sizes = _sizes(step.op, step.config, given)
    if sizes is None:
        return NOTHING
    sizes = tuple(min(size, _MOST) for size in sizes)
    return Least(min(math.prod(sizes), _MOST), sizes)


def _of_small(step: Step, given: Sequence[Least]) -> Least:
    found = _of_keras(step, given)
    if step.op != "InputLayer" or found.sizes is None:
        return found
    free = _IMAGE.get(len(found.sizes) - 1, 1)
    sizes = (*(min(size, free) for size in found.sizes[:-1]), found.sizes[-1])
    return Least(math.prod(sizes), sizes)


def _weights(step: _Layer, given: Sequence[Least]) -> int:
    """The least number of weights of a layer."""
    kind, config = step.part, step.config
    sizes = step.built_for or next((one.sizes for one in given if one.sizes), (1,))
    channels = max(sizes[-1], given[0].sizes[-1] if given and given[0].sizes else 1)
    kernel, multiplier = _product(config.get("kernel_size")), _whole(config.get("depth_multiplier"))
    filters = max(_whole(config.get("filters")), _whole(config.get("units")))
    if kind.startswith("ConvLSTM"):
        return 4 * kernel * filters * (channels + filters)
    if kind.startswith("SeparableConv"):
        return channels * multiplier * (kernel + filters)
    if kind.startswith("DepthwiseConv"):
        return kernel * channels * multiplier
    if kind.startswith("Conv"):
        return kernel * filters * max(channels // _whole(config.get("groups")), 1)
    if kind in _GATES:
        return _GATES[kind] * filters * (channels + filters)
    if kind == "Dense":
        return channels * filters
    if kind == "Embedding":
        return _whole(config.get("input_dim")) * _whole(config.get("output_dim"))
    if kind in ("MultiHeadAttention", "GroupQueryAttention"):
        heads = _whole(config.get("num_heads", config.get("num_query_heads")))
        return heads * _whole(config.get("key_dim", config.get("head_dim"))) * channels
    if kind == "EinsumDense":
        return _einsum(config, channels)
    if kind == "PReLU":
        shared = _listed(config.get("shared_axes"))
        return math.prod(size for axis, size in enumerate(sizes, 1) if axis not in shared)
    return channels if kind.endswith("Normalization") else 0


def _einsum(config: Mapping[str, Any], channels: int) -> int:
    equation, shape = str(config.get("equation")), config.get("output_shape")
    kernel = equation.partition("->")[0].partition(",")[2]
    result = equation.partition("->")[2]
    sizes = shape if isinstance(shape, list) else [shape]
    last = dict(zip(reversed(result), reversed([_whole(size) for size in sizes]), strict=False))
    contracted = any(letter not in result for letter in kernel)
    return math.prod(last.get(letter, 1) for letter in kernel) * (channels if contracted else 1)


def _sizes(kind: str, config: Mapping[str, Any], given: Sequence[Least]) -> tuple[int, ...] | None:
    """Sizes of what a layer gives, channels last, without the batch; None where they are not followed."""
    if kind == "Identity":
        return given[0].sizes if given else None
    if not given:
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        shape = shape if shape is not None else [None, *_listed(config.get("shape"))]
        if kind == "InputLayer":
            return _shape(shape)
        given = [Least(1, _shape(shape))] if shape != [None] else given  # the first of a row, in Keras 2
    sizes = given[0].sizes if given else None
    if sizes is None:
        return None
    *space, channels = sizes
    filters = _whole(config.get("filters"))
    kernel, strides = _each(config.get("kernel_size"), space), _each(config.get("strides"), space)
    if kind.startswith("Conv") and "Transpose" in kind:
        return (*(size * stride for size, stride in zip(space, strides, strict=True)), filters)
    if kind.startswith(("Conv", "SeparableConv", "DepthwiseConv")):
        if kind.startswith("Depthwise"):
            filters = channels * _whole(config.get("depth_multiplier"))
        dilation = _each(config.get("dilation_rate"), space)
        lost = [(one - 1) * wide for one, wide in zip(kernel, dilation, strict=True)]
        if config.get("padding") in ("same", "causal"):
            lost = [0] * len(space)
        return (*_strided(space, lost, strides), filters)
    if kind.startswith(("MaxPooling", "AveragePooling")):
        pool = _each(config.get("pool_size"), space)
        strides = _each(config.get("strides"), space) if config.get("strides") else pool
        return (*_strided(space, [one - 1 for one in pool], strides), channels)
    if kind.startswith("UpSampling"):
        times = _each(config.get("size"), space)
        return (*(size * one for size, one in zip(space, times, strict=True)), channels)
    if kind.startswith("ZeroPadding"):
        padding = config.get("padding")
        each = padding if isinstance(padding, list) and len(padding) == len(space) else [padding] * len(space)
        sums = [_sum(one) if isinstance(one, list) else 2 * _sum(one) for one in each]
        return (*(size + more for size, more in zip(space, sums, strict=True)), channels)
    if kind == "Concatenate":
        return _concatenated(config.get("axis"), given)
    return _others(kind, config, sizes, given)


def _others(
    kind: str, config: Mapping[str, Any], sizes: tuple[int, ...], given: Sequence[Least]
) -> tuple[int, ...] | None:
    units, count = _whole(config.get("units")), math.prod(sizes)
    if kind == "Dense":
        return (*sizes[:-1], units)
    if kind in _GATES:
        return (sizes[0], units) if config.get("return_sequences") else (units,)
    if kind == "Embedding":
        return (*sizes, _whole(config.get("output_dim")))
    if kind == "RepeatVector":
        return (_whole(config.get("n")), sizes[-1])
    if kind == "Flatten":
        return (count,)
    if kind in ("Resizing", "Resize"):
        wanted = config.get("size")
        height, width = wanted if isinstance(wanted, list) and len(wanted) == 2 else (None, None)
        return (
            _whole(config.get("height", height)),
            _whole(config.get("width", width)),
            sizes[-1],
        )
    if kind == "Reshape":
        shape = _listed(config.get("target_shape", config.get("newshape")))
        return tuple(_whole(size) for size in shape) or None
    if kind in ("Tile", "Repeat"):
        return (*sizes[:-1], sizes[-1] * _product(config.get("repeats")))
    if kind == "BroadcastTo":
        return tuple(_whole(size) for size in _listed(config.get("shape"))) or None
    if kind == "OneHot":
        return (*sizes, _whole(config.get("num_classes")))
    if kind == "Pad":
        return (*sizes[:-1], sizes[-1] + _sum(config.get("pad_width")))
    if kind in _ALIKE or kind.endswith(("Normalization", "ReLU", "Dropout1D", "Dropout2D", "Dropout3D")):
        alike = [one.sizes for one in given if one.sizes is not None and len(one.sizes) == len(sizes)]
        return tuple(max(each) for each in zip(*alike, strict=True))
    return None


def _concatenated(axis: Any, given: Sequence[Least]) -> tuple[int, ...] | None:
    every = [one.sizes for one in given if one.sizes is not None]
    ranks = {len(sizes) for sizes in every}
    if len(ranks) != 1:
        return None
    rank = ranks.pop()
    along = axis - 1 if isinstance(axis, int) and axis > 0 else (axis if isinstance(axis, int) else -1)
    if not -rank <= along < rank:
        return None
    joined = [max(each) for each in zip(*every, strict=True)]
    joined[along] = sum(sizes[along] for sizes in every)
    return tuple(joined)


def _strided(space: Sequence[int], lost: Sequence[int], strides: Sequence[int]) -> list[int]:
    return [max((size - less) // stride, 1) for size, less, stride in zip(space, lost, strides, strict=True)]


# --- numbers as they stand there


def _shape(value: Any) -> tuple[int, ...] | None:
    """Sizes without the batch, each axis of any size as the smallest image has it."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]  # of several inputs
    if not isinstance(value, list) or len(value) < 2:
        return None
    free = _IMAGE.get(len(value) - 2, 1)
    space = [free if size is None else _whole(size) for size in value[1:-1]]
    return (*space, _whole(value[-1]))


def _whole(value: Any) -> int:
    if isinstance(value, int | float) and value > 1:
        return int(min(value, _MOST))
    return 1


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _product(value: Any) -> int:
    return math.prod(_whole(one) for one in (value if isinstance(value, list) else [value]))


def _sum(value: Any) -> int:
    if isinstance(value, list):
        return sum(_sum(one) for one in value)
    return _whole(value) if isinstance(value, int) and value > 0 else 0


def _each(value: Any, space: Sequence[int]) -> list[int]:
    if isinstance(value, list) and len(value) == len(space):
        return [_whole(one) for one in value]
    return [1 if isinstance(value, list) else _whole(value)] * len(space)
