"""A bundle run by TensorFlow 2: the network that Fiji gets, without Fiji."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from care_bridge.bundle import SAVED_MODEL, SIGNATURE, TAG, TensorInfo, read_bundle
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder
from care_bridge.predictor import Runtime, Tensor, UnhintedNetwork

_CONVOLUTIONS = {"Conv2D", "Conv3D", "DepthwiseConv2dNative"}
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}


class SavedModelNetwork(UnhintedNetwork):
    """The network of a bundle, by the TensorFlow that is installed here; see `predictor.Network`.

    Parameters
    ----------
    path : path
        A zip with `saved_model.pb` at its root, or a folder that holds one.

    Attributes
    ----------
    runtime : Runtime
    input_shape, output_shape : tuple of int or None
        As written in the signature, which is what the plugin reads too.
    size_multiple, halo : dict of str to int, or None
        What sizes must be multiples of, and the receptive field in pixels a side, by axis; from
        `meta.json` if there is one. Measured by `NetworkPredictor` otherwise.

    Raises
    ------
    InputError
        If it is no zip, holds no SavedModel at its root, lacks the tag `serve` or the signature
        `serving_default`, its `meta.json` makes no sense, or this TensorFlow cannot load it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runtime = Runtime("tensorflow", {"tensorflow": tf.__version__})
        bundle = read_bundle(self.path)
        meta, outputs = bundle.meta, {info.key: info for info in bundle.signature.outputs}
        feed = bundle.signature.inputs[0]
        fetch = outputs.get("output", bundle.signature.outputs[0])
        self.input_shape, self.output_shape = feed.shape or (), fetch.shape or ()
        self.size_multiple, self.halo = meta.size_multiple, meta.halo
        self.probabilistic = meta.probabilistic
        with scratch_folder() as folder:
            root = bundle.unpack(Path(folder))
            meta_graph = _meta_graph_in(root)
            graph = graph_before(meta_graph.graph_def, fetch.name)
            self._check = functools.partial(_check_shape, graph, _tensor_name(feed))
            self._fitting: set[tuple[int | None, ...]] = set()
            try:
                self._function = _function(root, meta_graph, graph, _tensor_name(feed), _tensor_name(fetch))
            except (ValueError, KeyError, RuntimeError, OSError, tf.errors.OpError) as error:
                raise InputError(
                    f"{self.path}: TensorFlow {tf.__version__} cannot load it: {_first(error)}"
                ) from error

    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out.

        Raises
        ------
        InputError
            If the graph refuses the tensor; with TensorFlow's reason.
        """
        fed = tf.constant(np.ascontiguousarray(tensor, np.float32))
        try:
            if (shape := (*[None] * (tensor.ndim - 1), *tensor.shape[-1:])) not in self._fitting:
                self._check(shape)
                self._fitting.add(shape)
            result = self._function(fed)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise InputError(
                f"{self.path.name} refuses a tensor of shape {tensor.shape}: {_first(error)}"
            ) from error
        array: Tensor = np.asarray(result, np.float32)
        return array


def graph_in(folder: Path) -> graph_pb2.GraphDef:
    """The graph with the tag `serve` of an unpacked bundle.

    Raises
    ------
    InputError
        If TensorFlow's own reader does not take the file, or none of its graphs has the tag.
    """
    found: graph_pb2.GraphDef = _meta_graph_in(folder).graph_def
    return found


def graph_before(graph: graph_pb2.GraphDef, *tensors: str) -> graph_pb2.GraphDef:
    """The part of a graph that some tensors hang on: without training, saving and the variables' initialisers.

    Parameters
    ----------
    graph : GraphDef
    tensors : str
        Names of tensors or operations; one that the graph does not have leaves it whole, for TensorFlow to complain.
    """
    names = {node.name for node in graph.node}
    wanted = [tensor.removeprefix("^").split(":")[0] for tensor in tensors]
    if not names.issuperset(wanted):
        return graph
    part: graph_pb2.GraphDef = tf.compat.v1.graph_util.extract_sub_graph(graph, wanted)
    return part


def _meta_graph_in(folder: Path) -> Any:
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((folder / SAVED_MODEL).read_bytes())
    except Exception as error:
        # protobuf's DecodeError lives in different modules of its generations.
        raise InputError(f"{folder}: its {SAVED_MODEL} cannot be read: {error}") from error
    for graph in message.meta_graphs:
        if TAG in graph.meta_info_def.tags:
            return graph
    raise InputError(f"{folder}: no graph has the tag {TAG!r}")


def _function(root: Path, meta_graph: Any, graph: Any, feed: str, fetch: str) -> Callable[..., Any]:
    """By tensor names, as the plugin does: a graph whose signature fixes a size still runs at others."""
    if meta_graph.HasField("object_graph_def"):
        return _by_tensorflow_2(root, graph, feed, fetch)
    if not {node.op for node in graph.node} & _VARIABLES:
        return _of_constants(graph, feed, fetch)
    return _in_a_session(root, meta_graph, feed, fetch)


def _of_constants(graph: Any, feed: str, fetch: str) -> Callable[..., Any]:
    frozen = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    pruned: Callable[..., Any] = frozen.prune(feed, fetch)
    return pruned


def _by_tensorflow_2(root: Path, graph: Any, feed: str, fetch: str) -> Callable[..., Any]:
    if not {node.op for node in graph.node} & _VARIABLES:
        return _of_constants(graph, feed, fetch)
    loaded = tf.saved_model.load(str(root), tags=[TAG])
    signature = loaded.signatures[SIGNATURE]
    (key,) = signature.structured_input_signature[1]

    def call(fed: Any) -> Any:
        # Variables live only as long as the object that brought them, which `loaded` keeps here.
        return next(iter(loaded.signatures[SIGNATURE](**{key: fed}).values()))

    return call


def _in_a_session(root: Path, meta_graph: Any, feed: str, fetch: str) -> Callable[..., Any]:
    """As TensorFlow 1.x runs it: only what the output hangs on, its variables filled by the graph's own operation.

    What was trained in Fiji, or saved from a session, brings its training along, which TensorFlow 2 need not know.
    """
    saver = meta_graph.saver_def
    restore = [saver.restore_op_name] if saver.restore_op_name else []
    with tf.Graph().as_default() as own:
        tf.import_graph_def(graph_before(meta_graph.graph_def, fetch, *restore), name="")
    session = tf.compat.v1.Session(graph=own)
    if restore:
        session.run(restore[0], {saver.filename_tensor_name: str(root / "variables" / "variables")})
    return lambda fed: session.run(fetch, {feed: np.asarray(fed)})


def _check_shape(graph: Any, feed: str, shape: tuple[int | None, ...]) -> None:
    """Raise TensorFlow's own ValueError where a graph's operations cannot take a tensor of this shape.

    TensorFlow 2's oneDNN kernels trust shapes, and end the process or overwrite memory where these do not fit
    (seen with 2.21 on processors with AMX), so what TensorFlow 1.x refuses is found out before anything is computed.
    """
    with tf.Graph().as_default() as checked:
        fed = tf.compat.v1.placeholder(tf.float32, shape)
        tf.import_graph_def(graph, {feed: fed}, name="")
    for op in checked.get_operations():
        if op.type not in _CONVOLUTIONS:
            continue
        given, kernel = (tensor.shape for tensor in op.inputs[:2])
        if None not in (given.rank, kernel.rank) and given.rank != kernel.rank:
            raise ValueError(f"Shape must be rank {kernel.rank} but is rank {given.rank}")
        if None not in (given.rank, kernel.rank, given[-1], kernel[-2]) and given[-1] != kernel[-2]:
            # More channels than the kernel has would be taken for groups, which 1.x cannot compute on a CPU.
            raise ValueError(f"input depth {given[-1]} does not fit a convolution of depth {kernel[-2]}")


def _tensor_name(info: TensorInfo) -> str:
    return info.name if ":" in info.name else f"{info.name}:0"


def _first(error: Exception) -> str:
    """The sentence of TensorFlow's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line, after in itertools.pairwise(lines):
        if after.startswith("[[{{node"):
            return line
    return lines[0].split(" for '{{node")[0] if lines else type(error).__name__
