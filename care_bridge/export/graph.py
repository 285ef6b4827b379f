"""One frozen TensorFlow graph that TensorFlow 1.12 to 1.15 load, or a refusal that names what they lack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import graph_pb2, node_def_pb2

from care_bridge.defaults import OLDEST_TF1
from care_bridge.errors import InputError
from care_bridge.export.layers import every_layer
from care_bridge.export.ops import Op, op_table, plain_value
from care_bridge.export.rewrites import rewrite
from care_bridge.export.tensorflow_private import op_defaults, with_constants

INPUT, OUTPUT = "input", "output"
"""Names of the graph's only input and output operation, of the signature's keys and of ONNX's tensors."""

PRODUCER, MIN_CONSUMER = 27, 12
"""GraphDef versions written down: TensorFlow 1.12's own, readable by everything since 1.0."""

Shape = tuple[int | None, ...]

_REMEDIES = {
    "Einsum": "write the product with convolutions, Dense or Multiply",
    "BatchMatMulV2": "attention and batched products do not exist there; use convolutions",
    "BatchMatMulV3": "attention and batched products do not exist there; use convolutions",
    "ResizeBicubic": "upsample with interpolation='bilinear' or 'nearest', or a transposed convolution",
    "ScaleAndTranslate": "upsample with interpolation='bilinear' or 'nearest', or a transposed convolution",
    "ResizeArea": "pool with AveragePooling",
    "While": "loops cannot be written down; build the network from plain layers",
    "StatelessWhile": "loops cannot be written down; build the network from plain layers",
    "If": "branches cannot be written down; build the network for prediction only (training=False)",
    "StatelessIf": "branches cannot be written down; build the network for prediction only (training=False)",
    "PartitionedCall": "functions cannot be written down; build the network from plain layers",
    "StatefulPartitionedCall": "functions cannot be written down; build the network from plain layers",
    "PyFunc": "Python code cannot travel with a graph; write the layer with keras.ops",
    "EagerPyFunc": "Python code cannot travel with a graph; write the layer with keras.ops",
    "VarHandleOp": "a variable was left in the graph; make it a weight of the layer (self.add_weight)",
    "ReadVariableOp": "a variable was left in the graph; make it a weight of the layer (self.add_weight)",
}
_RANDOM = (
    "RandomUniform",
    "RandomStandardNormal",
    "TruncatedNormal",
    "StatelessRandom",
    "Multinomial",
    "RandomGamma",
)


def freeze(model: keras.Model, *, target: str | None = OLDEST_TF1) -> graph_pb2.GraphDef:
    """A model as constants and TensorFlow 1.x operations, with free spatial sizes.

    Parameters
    ----------
    model : keras.Model
        One float32 input (batch, [z,] y, x, channel), one output. Fixed spatial sizes are freed.
    target : str, optional
        Oldest TensorFlow release that must load the graph. None writes for today's.

    Returns
    -------
    GraphDef
        Input operation `input`, output operation `output`, no variables, no functions, attributes at their
        defaults left out, node names that hang on nothing but the network: freezing twice gives equal bytes.

    Raises
    ------
    InputError
        If the model has several inputs or outputs, another data type, sizes that cannot be freed, or an
        operation or attribute that `target` lacks and that has no exact replacement; with operation, layer
        and remedy, all at once.

    Notes
    -----
    What TensorFlow 1.12 lacks is rewritten where that is exact: see `rewrites`. An attribute that is newer
    than `target` may go when it stands at its default, for that default is what older releases do.
    """
    _check_ends(model)
    graph = _trace(model)
    if target is None:
        return _named_by_structure(_clean(graph, _layer_names(model)))
    graph = rewrite(graph, has_op=lambda op, attr=None: _has(op, attr, target))
    graph = _clean(graph, _layer_names(model))
    problems = lacking(graph, target=target, layers=_layer_names(model))
    if problems:
        raise InputError(
            f"this model cannot run in TensorFlow {target}, which Fiji uses:\n"
            + "\n".join(f"  {p}" for p in problems)
        )
    return _named_by_structure(_stripped(graph, target))


def lacking(
    graph: graph_pb2.GraphDef, *, target: str = OLDEST_TF1, layers: Collection[str] = ()
) -> list[str]:
    """What of a graph a TensorFlow release does not have, a sentence each; empty when all is there.

    Parameters
    ----------
    graph : GraphDef
        Any; also one written by others.
    target : str
        A release of `defaults.TF1_VERSIONS`.
    layers : collection of str
        Names of the model's layers, to say where; empty guesses them from the names of the operations.
    """
    table = op_table(target)
    problems: dict[str, list[str]] = {}
    for node in graph.node:
        for problem in _lacking_of(node, table, target):
            problems.setdefault(problem, []).append(_layer(node.name, layers))
    for function in graph.library.function[:1]:
        problems.setdefault(
            f"the graph calls functions ({len(graph.library.function)} of them); inline them before freezing",
            [],
        ).append(function.signature.name)
    return [f"{', '.join(dict.fromkeys(where[:3]))}: {problem}" for problem, where in problems.items()]


def signature(graph: graph_pb2.GraphDef) -> tuple[Shape, Shape]:
    """Shapes of `input` and `output`, None for free sizes.

    Raises
    ------
    InputError
        If the rank or the number of channels of the output is not fixed.
    """
    function = _function(graph)
    inputs, outputs = (_shape(tensor) for tensor in (function.inputs[0], function.outputs[0]))
    if outputs is None or inputs is None:
        raise InputError(
            "the network's output has no fixed number of dimensions; one image in, one image out is needed"
        )
    if outputs[-1] is None:
        # Shape inference gives up behind dynamic reshapes; running tells.
        outputs = (*outputs[:-1], run(graph, np.zeros(_small(inputs), np.float32)).shape[-1])
    return inputs, outputs


def with_ends_named(graph: graph_pb2.GraphDef, feed: str, fetch: str) -> graph_pb2.GraphDef:
    """A copy of somebody's graph whose ends are called `input` and `output`, as ours are.

    Parameters
    ----------
    graph : GraphDef
    feed, fetch : str
        Tensor names as a signature gives them, e.g. "serving_default_x:0".
    """
    named = graph_pb2.GraphDef()
    named.CopyFrom(graph)
    if not any(node.name == OUTPUT for node in named.node) or fetch.removesuffix(":0") != OUTPUT:
        result = named.node.add(op="Identity", name=_unused(named, OUTPUT), input=[fetch.removesuffix(":0")])
        result.attr["T"].type = tf.float32.as_datatype_enum
        _rename(named, {result.name: OUTPUT})
    _rename(named, {feed.removesuffix(":0"): INPUT})
    return named


def run(graph: graph_pb2.GraphDef, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a frozen graph in this TensorFlow, shape (batch, [z,] y, x, channel)."""
    result: NDArray[np.float32] = _function(graph)(tf.constant(tensor, tf.float32))[0].numpy()
    return result


def runner(graph: graph_pb2.GraphDef) -> Any:
    """A callable for many runs of one graph: array in, array out."""
    function = _function(graph)
    return lambda tensor: function(tf.constant(tensor, tf.float32))[0].numpy()


def _function(graph: graph_pb2.GraphDef) -> Any:
    # Importing writes default attributes into the graph that it is given.
    copy = graph_pb2.GraphDef()
    copy.CopyFrom(graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(copy, name=""), [])
    return wrapped.prune(
        [wrapped.graph.get_tensor_by_name(f"{INPUT}:0")], [wrapped.graph.get_tensor_by_name(f"{OUTPUT}:0")]
    )


def _shape(tensor: Any) -> Shape | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _small(shape: Sequence[int | None]) -> tuple[int, ...]:
    return (1, *(size or 64 for size in shape[1:-1]), shape[-1] or 1)


# --- from a model to a graph


def _check_ends(model: keras.Model) -> None:
    problems = []
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise InputError(
            f"model {model.name!r} has no fixed input (it was never built on one); call it once, or build "
            "it from keras.Input((None, None, channels))"
        )
    if len(inputs) != 1:
        problems.append(
            f"it has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); one image is needed"
        )
    if len(outputs) != 1:
        problems.append(f"it has {len(outputs)} outputs; concatenate them along channels into one")
    for tensor, what in ((inputs[0], "input"), (outputs[0], "output")):
        if str(tensor.dtype) != "float32":
            problems.append(
                f"its {what} is {tensor.dtype}; Fiji feeds and reads float32: rebuild it with dtype='float32'"
            )
    for layer in every_layer(model):
        if getattr(layer, "data_format", None) == "channels_first":
            problems.append(
                f"its layer {layer.name!r} has channels first; rebuild it with channels last, as Fiji has"
            )
            break
    rank = len(inputs[0].shape)
    if rank not in (4, 5):
        problems.append(
            f"its input has shape {tuple(inputs[0].shape)}, rank {rank}; Fiji knows rank 4 (batch, y, x, "
            "channel) and rank 5 (batch, z, y, x, channel)"
        )
    elif inputs[0].shape[-1] is None and not problems:
        problems.append("its number of input channels is free; fix it: keras.Input((None, None, channels))")
    if problems:
        raise InputError(f"model {model.name!r} cannot be exported: " + "; ".join(problems))


def _trace(model: keras.Model) -> graph_pb2.GraphDef:
    shape = [None] * (len(model.inputs[0].shape) - 1) + [model.inputs[0].shape[-1]]
    free = _with_free_upsampling(model)
    call = tf.function(lambda tensor: free(tensor, training=False))
    try:
        concrete = call.get_concrete_function(tf.TensorSpec(shape, tf.float32, name=INPUT))
        _refuse_chance(concrete.graph, model)
        frozen = with_constants(concrete)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"model {model.name!r} does not work with free image sizes, which Fiji's tiles need "
            f"({reason(error)}); use layers "
            "that do not fix the size: no Flatten, no Dense over positions, no Reshape to numbers"
        ) from error
    graph = graph_pb2.GraphDef()
    graph.CopyFrom(frozen.graph.as_graph_def())
    result = graph.node.add(
        op="Identity", name=_unused(graph, OUTPUT), input=[frozen.outputs[0].name.removesuffix(":0")]
    )
    result.attr["T"].type = tf.float32.as_datatype_enum
    _rename(graph, {frozen.inputs[0].op.name: INPUT, result.name: OUTPUT})
    return graph


def _refuse_chance(graph: Any, model: keras.Model) -> None:
    found = [(operation.type, operation.name) for operation in graph.get_operations()]
    found += [
        (node.op, node.name) for body in graph.as_graph_def().library.function for node in body.node_def
    ]
    layers = _layer_names(model)
    chance = dict.fromkeys(_layer(name, layers) for op, name in found if op.startswith(_RANDOM))
    if chance:
        raise InputError(
            f"{', '.join(chance)} of model {model.name!r} draws random numbers in prediction too, so no two "
            "runs agree; take it out, or let it act in training only"
        )


def reason(error: Exception) -> str:
    """What TensorFlow or Keras complains of, without where in its own code."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("[[{{node") and number:
            return lines[number - 1][:300]
    return " ".join(lines)[:300]


def _layer_names(model: keras.Model) -> frozenset[str]:
    return frozenset(layer.name for layer in every_layer(model))


def _unused(graph: graph_pb2.GraphDef, name: str) -> str:
    names = {node.name for node in graph.node}
    while name in names:
        name += "_"
    return name


def _rename(graph: graph_pb2.GraphDef, names: dict[str, str]) -> None:
    taken = {node.name for node in graph.node} - set(names)
    names = {**names, **{new: f"{new}_inner" for new in names.values() if new in taken}}
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for index, reference in enumerate(node.input):
            control, name, slot = _parts(reference)
            node.input[index] = f"{control}{names.get(name, name)}{slot}"


def _with_free_upsampling(model: keras.Model) -> keras.Model:
    """The same model whose interpolating UpSampling2D layers work at any size; Keras' need a fixed one."""
    first = next((layer for layer in every_layer(model) if _interpolates(layer)), None)
    if first is None:
        return model
    functional = _as_functional(model)
    if not hasattr(functional, "operations"):
        raise InputError(
            f"layer {first.name!r} (UpSampling2D, {first.interpolation}) sits in a subclassed model and "
            "needs a fixed size; build the model with keras.Model(inputs, outputs)"
        )

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _interpolates(layer):
            return _Resize(layer)(args[0])
        if isinstance(layer, keras.Model):
            return _with_free_upsampling(layer)(*args, **kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(
        functional, clone_function=lambda layer: layer, call_function=call, recursive=False
    )


def _interpolates(layer: Any) -> bool:
    return isinstance(layer, keras.layers.UpSampling2D) and layer.interpolation != "nearest"


def _as_functional(model: keras.Model) -> keras.Model:
    if not isinstance(model, keras.Sequential):
        return model
    tensor = inputs = keras.Input(model.inputs[0].shape[1:], name=INPUT)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            tensor = layer(tensor)
    return keras.Model(inputs, tensor)


class _Resize(keras.layers.Layer):  # type: ignore[misc]
    """UpSampling2D with an interpolation, its sizes taken when it runs."""

    def __init__(self, layer: Any) -> None:
        super().__init__(name=layer.name, trainable=False)
        self._factors, self._method = layer.size, layer.interpolation

    def call(self, tensor: Any) -> Any:
        return tf.image.resize(
            tensor, tf.shape(tensor)[1:3] * tf.constant(self._factors), method=self._method
        )

    def compute_output_spec(self, tensor: Any) -> Any:
        batch, y, x, channels = tensor.shape
        scaled = (size and size * factor for size, factor in zip((y, x), self._factors, strict=True))
        return keras.KerasTensor((batch, *scaled, channels), dtype=tensor.dtype)


# --- from a graph to one that older runtimes read


def _clean(graph: graph_pb2.GraphDef, layers: Collection[str] = ()) -> graph_pb2.GraphDef:
    """Only what the output hangs on, without control inputs and devices, in an order of its own."""
    nodes = {node.name: node for node in graph.node}
    cleaned = graph_pb2.GraphDef()
    cleaned.library.CopyFrom(graph.library)
    names = _upstream(nodes, OUTPUT, layers)
    for name in [*names, *([] if INPUT in names else [INPUT])]:
        node = cleaned.node.add()
        node.CopyFrom(nodes[name])
        node.device = ""
        node.ClearField("experimental_debug_info")
        del node.input[:]
        node.input.extend(_data_inputs(nodes[name]))
        for key in [key for key in node.attr if key.startswith("_")]:
            del node.attr[key]
    return cleaned


def _upstream(nodes: dict[str, node_def_pb2.NodeDef], start: str, layers: Collection[str] = ()) -> list[str]:
    """Names of everything a node hangs on, inputs before users (depth first, so always the same order)."""
    done: dict[str, None] = {}
    begun: set[str] = set()
    stack = [(start, False)]
    while stack:
        name, ready = stack.pop()
        if name in done:
            continue
        if ready:
            done[name] = None
            continue
        if name in begun:
            raise InputError(f"{_layer(name, layers)}: {_REMEDIES['While']} (operation {nodes[name].op})")
        begun.add(name)
        stack.append((name, True))
        stack.extend((_parts(reference)[1], False) for reference in reversed(_data_inputs(nodes[name])))
    return list(done)


def _data_inputs(node: node_def_pb2.NodeDef) -> list[str]:
    return [reference for reference in node.input if not reference.startswith("^")]


def _parts(reference: str) -> tuple[str, str, str]:
    control = "^" if reference.startswith("^") else ""
    name, colon, slot = reference.removeprefix("^").partition(":")
    return control, name, f"{colon}{slot}" if slot not in ("", "0") else ""


def _stripped(graph: graph_pb2.GraphDef, target: str) -> graph_pb2.GraphDef:
    """Without attributes that stand at their default, as TensorFlow 1's own builder writes."""
    table = op_table(target)
    for node in graph.node:
        known = table[node.op]["attrs"]
        for key, default in op_defaults(node.op):
            if key in node.attr and node.attr[key] == default:
                older = known.get(key)
                if older is None or older[1] == plain_value(default):
                    del node.attr[key]
    graph.versions.producer = PRODUCER
    graph.versions.min_consumer = MIN_CONSUMER
    del graph.versions.bad_consumers[:]
    graph.ClearField("library")
    return graph


def _named_by_structure(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """Names that hang on the network alone: layers are numbered anew in every process."""
    counts: dict[str, int] = {}
    names = {}
    for node in graph.node:
        if node.name in (INPUT, OUTPUT):
            continue
        counts[node.op] = counts.get(node.op, -1) + 1
        names[node.name] = f"{node.op}_{counts[node.op]}"
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for index, reference in enumerate(node.input):
            control, name, slot = _parts(reference)
            node.input[index] = f"{control}{names.get(name, name)}{slot}"
    return graph


def _has(op: str, attr: str | None, target: str) -> bool:
    table = op_table(target)
    return op in table and (attr is None or attr in table[op]["attrs"])


def _lacking_of(node: node_def_pb2.NodeDef, table: Any, target: str) -> Iterator[str]:
    if node.op.startswith(_RANDOM):
        yield f"operation {node.op} draws random numbers, so no two runs agree; predict without noise layers"
        return
    definition: Op | None = table.get(node.op)
    if definition is None:
        remedy = _REMEDIES.get(node.op, "use layers whose operations are older, or name a newer target")
        yield f"operation {node.op} is not in TensorFlow {target}; {remedy}"
        return
    defaults = dict(op_defaults(node.op))
    for key, value in sorted(node.attr.items()):
        if key.startswith("_"):
            continue
        if key not in definition["attrs"]:
            if not (key in defaults and value == defaults[key]):
                remedy = _REMEDIES.get(node.op, "use a layer without it, or name a newer target")
                # Names differ from layer to layer; one sentence for all of them is enough.
                value_shown = "" if value.HasField("s") else f"={_short(value)}"
                yield (
                    f"operation {node.op} has {key}{value_shown}, which TensorFlow {target} does not know; {remedy}"
                )
            continue
        allowed = definition["attrs"][key][2]
        plain = plain_value(value)
        for one in plain if isinstance(plain, list) else [plain]:
            if allowed and one not in allowed:
                takes = ", ".join(allowed)
                yield f"operation {node.op} works on {key}={one}; TensorFlow {target} takes {takes}"
    halves = {plain_value(value) for value in node.attr.values() if value.WhichOneof("value") == "type"}
    if halves & {"DT_HALF", "DT_BFLOAT16"}:
        yield "it computes in half precision; rebuild the model with the dtype policy 'float32'"


def _short(value: Any) -> str:
    text = str(plain_value(value))
    return text if len(text) < 60 else f"{text[:57]}..."


def _layer(name: str, layers: Collection[str]) -> str:
    """The layer that a node came from: Keras names graphs model/layer/operation, and numbers repetitions."""
    parts = name.split("/")
    for part in reversed(parts):
        for candidate in (part, part.rsplit("_", 1)[0]):
            if candidate in layers:
                return f"layer {candidate!r}"
    return f"layer {parts[-2]!r}" if len(parts) > 1 else f"node {name!r}"
