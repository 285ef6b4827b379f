"""What a network does to sizes, and how far it sees: measured, not computed from its layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2

from care_bridge.errors import InputError
from care_bridge.export.graph import INPUT, reason, runner, signature
from care_bridge.predictor import Runtime, Tensor, UnhintedNetwork
from care_bridge.reach import MULTIPLES, Geometry, measured_geometry


class _GraphNetwork(UnhintedNetwork):
    """A frozen graph as a network of any size: a size that its signature alone fixes binds nobody."""

    def __init__(self, graph: graph_pb2.GraphDef) -> None:
        inputs, outputs = signature(graph)
        self.runtime = Runtime("tensorflow", {"tensorflow": tf.__version__})
        self.input_shape = (*[None] * (len(inputs) - 1), inputs[-1])
        self.output_shape = (*[None] * (len(outputs) - 1), outputs[-1])
        self._run = runner(graph)

    def __call__(self, tensor: Tensor) -> Tensor:
        result: Tensor = self._run(tensor)
        return result


def measure(graph: graph_pb2.GraphDef) -> Geometry:
    """Find out which sizes a frozen graph takes and how far it sees.

    Parameters
    ----------
    graph : GraphDef
        As `graph.freeze` gives it.

    Raises
    ------
    InputError
        If the output's size is not the input's: Fiji cuts and mirrors such results without a word.

    Notes
    -----
    The reach is seen, not calculated: every kernel is set to positive numbers and every bias to zero, one
    pixel is lit at each place of the pooling grid, and the farthest output that changes is the reach.
    """
    network = _GraphNetwork(graph)
    found = measured_geometry(network, seen=_GraphNetwork(_positive(graph)))
    if found is None:
        raise InputError(_size_message(network, (2 * MULTIPLES[-1],) * (len(network.input_shape) - 2)))
    return found


def _size_message(network: _GraphNetwork, shape: Sequence[int]) -> str:
    try:
        out = network(np.zeros((1, *shape, network.input_shape[-1] or 1), np.float32)).shape[1:-1]
    except Exception as error:
        return f"the network fails on an image of {shape} pixels ({reason(error)}); it must take any size"
    if len(out) < len(shape) - 1:
        return (
            f"the network makes no image of {tuple(shape)} pixels but {len(out) + 2} dimensions; Fiji's plugin takes "
            "only networks that give an image: leave out what comes after the last image (pooling, Flatten, Dense)"
        )
    return (
        f"the network makes {out} pixels of {tuple(shape)}; Fiji's plugin takes only networks that keep the "
        "size, and would cut or mirror the result without a word: resize the image before, or the result after, the "
        "network"
    )


def _positive(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """The same connections with kernels of ones and biases of zeros: what is seen adds up."""
    changed = graph_pb2.GraphDef()
    changed.CopyFrom(graph)
    constants = {node.name: node for node in changed.node if node.op == "Const"}
    aliases = {node.name: node.input[0] for node in changed.node if node.op == "Identity"}

    def constant(reference: str) -> str | None:
        while reference in aliases:
            reference = aliases[reference]
        return reference if reference in constants else None

    kernels = set()
    for node in changed.node:
        if node.op.startswith(("Conv", "DepthwiseConv")) and len(node.input) > 1:
            kernels.add(constant(node.input[1]))
    for name, node in constants.items():
        value = tf.make_ndarray(node.attr["value"].tensor)
        if value.dtype != np.float32 or not value.ndim:
            continue
        ones = np.full(value.shape, 1 / value.shape[-2], np.float32) if name in kernels else None
        value = np.abs(value) if ones is None else ones
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    for node in changed.node:
        if node.op in _BOUNDED:
            _keep_only(node, node.input[0])
        elif node.op == "Minimum":
            free = [reference for reference in node.input if constant(reference) is None]
            if len(free) == 1:
                _keep_only(node, free[0])
    for node in [node for node in changed.node if node.op == "Softmax"]:
        _add_the_sum(changed, node)
    # A mean that is taken off at the entrance makes black dark, and what is lit there stays below zero.
    entrance = {INPUT}
    for node in changed.node:
        free = [reference for reference in node.input if constant(reference) is None]
        if node.op in (*_ADDING, "Mul", "Identity") and len(free) == 1 and free[0] in entrance:
            entrance.add(node.name)
            if node.op in _ADDING:
                _keep_only(node, free[0])
    biases = {constant(node.input[1]) for node in changed.node if node.op == "BiasAdd"} - {None}
    for name in biases:
        tensor = constants[str(name)].attr["value"].tensor
        value = np.zeros_like(tf.make_ndarray(tensor))
        tensor.CopyFrom(tf.make_tensor_proto(value))
    return changed


_ADDING = ("Add", "AddV2", "Sub")
_BOUNDED = ("Tanh", "Sigmoid", "Relu6", "Softsign", "Erf", "ClipByValue")


def _keep_only(node: node_def_pb2.NodeDef, reference: str) -> None:
    """Let one input through unchanged: what saturates hides what is seen."""
    node.op = "Identity"
    del node.input[:]
    node.input.append(reference)
    for key in [key for key in node.attr if key != "T"]:
        del node.attr[key]


def _add_the_sum(graph: graph_pb2.GraphDef, node: node_def_pb2.NodeDef) -> None:
    """Make a softmax the sum of all that it sees and of each: it saturates, and hides what its logits come from."""
    (logits,), kind = node.input, node.attr["T"].type
    axis = graph.node.add(name=f"{node.name}_axis", op="Const")
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.array([-1], np.int32)))
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    total = graph.node.add(name=f"{node.name}_sum", op="Sum", input=[logits, axis.name])
    total.attr["T"].type = kind
    total.attr["Tidx"].type = tf.int32.as_datatype_enum
    total.attr["keep_dims"].b = True
    node.op = "AddV2"
    node.input.append(total.name)
