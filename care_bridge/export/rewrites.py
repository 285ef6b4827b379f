"""Operations that TensorFlow 1.12 lacks, written with operations that it has; only where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2


class HasOp(Protocol):
    """Whether the target has an operation, and an attribute of it."""

    def __call__(self, op: str, attr: str | None = None) -> bool: ...


Rewrite = Callable[[node_def_pb2.NodeDef, "dict[str, Any]"], Callable[..., Any] | None]


def rewrite(graph: graph_pb2.GraphDef, *, has_op: HasOp) -> graph_pb2.GraphDef:
    """The same graph with newer operations replaced.

    Parameters
    ----------
    graph : GraphDef
        Frozen.
    has_op : callable
        `has_op(op, attr)` for the target.

    Returns
    -------
    GraphDef
        What has no exact replacement stays as it is, for the caller to refuse.

    Notes
    -----
    LeakyRelu becomes Maximum(x, a*x) (a <= 1; else Minimum); half-pixel bilinear and nearest resizing become
    two gathers and a weighted sum a dimension, with the kernel's own float32 coordinates
    (tensorflow/core/kernels/image/resize_bilinear_op.cc: HalfPixelScaler); FusedBatchNormV3 becomes
    FusedBatchNorm, or one product and one sum for stacks; SelectV2 becomes Select of broadcast operands;
    EnsureShape becomes nothing; Erfc becomes 1 - Erf.
    """
    constants = {
        node.name: tf.make_ndarray(node.attr["value"].tensor) for node in graph.node if node.op == "Const"
    }
    result = graph_pb2.GraphDef()
    result.versions.CopyFrom(graph.versions)
    result.library.CopyFrom(graph.library)
    for node in graph.node:
        function = _replacement(node, constants, has_op)
        if function is None:
            result.node.add().CopyFrom(node)
        else:
            _insert(result, node, function)
    return result


def _replacement(
    node: node_def_pb2.NodeDef, constants: dict[str, Any], has_op: HasOp
) -> Callable[..., Any] | None:
    attr = node.attr
    if node.op == "LeakyRelu" and not has_op("LeakyRelu"):
        slope = attr["alpha"].f if "alpha" in attr else 0.2
        return lambda x: (tf.maximum if slope <= 1 else tf.minimum)(x, x * slope)
    if node.op in ("ResizeBilinear", "ResizeNearestNeighbor") and attr["half_pixel_centers"].b:
        if has_op(node.op, "half_pixel_centers"):
            return None
        return _half_pixel_bilinear if node.op == "ResizeBilinear" else _half_pixel_nearest
    fused = node.op in ("FusedBatchNormV2", "FusedBatchNormV3") and not has_op("FusedBatchNormV3")
    if fused and not attr["is_training"].b:
        return _batch_norm(node)
    if node.op == "Erfc" and not has_op("Erfc"):
        return lambda x: 1 - tf.math.erf(x)
    if node.op == "SelectV2" and not has_op("SelectV2"):
        return _select
    if node.op == "EnsureShape" and not has_op("EnsureShape"):
        return lambda x: tf.raw_ops.Identity(input=x)
    return None


def _half_pixel_nearest(images: Any, size: Any) -> Any:
    for axis in (1, 2):
        images = tf.raw_ops.GatherV2(params=images, indices=_nearest(images, size, axis), axis=axis)
    return images


def _nearest(images: Any, size: Any, axis: int) -> Any:
    position = _positions(images, size, axis, shift=0.0)
    last = tf.raw_ops.Shape(input=images)[axis] - 1
    return tf.minimum(tf.cast(tf.floor(position), tf.int32), last)


def _half_pixel_bilinear(images: Any, size: Any) -> Any:
    for axis in (2, 1):
        position = _positions(images, size, axis, shift=-0.5)
        below = tf.floor(position)
        last = tf.raw_ops.Shape(input=images)[axis] - 1
        low = tf.maximum(tf.cast(below, tf.int32), 0)
        high = tf.minimum(tf.cast(tf.raw_ops.Ceil(x=position), tf.int32), last)
        weight = tf.reshape(position - below, [-1, *[1] * (3 - axis)])
        first = tf.raw_ops.GatherV2(params=images, indices=low, axis=axis)
        second = tf.raw_ops.GatherV2(params=images, indices=high, axis=axis)
        images = first + (second - first) * weight
    return images


def _positions(images: Any, size: Any, axis: int, *, shift: float) -> Any:
    """Where each output pixel's centre lies in the input, in float32 as the kernel computes it."""
    there = tf.cast(tf.raw_ops.Shape(input=images)[axis], tf.float32)
    scale = there / tf.cast(size[axis - 1], tf.float32)
    return (tf.cast(tf.range(size[axis - 1]), tf.float32) + 0.5) * scale + shift


def _batch_norm(node: node_def_pb2.NodeDef) -> Callable[..., Any] | None:
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    layout = node.attr["data_format"].s.decode() if "data_format" in node.attr else "NHWC"
    if layout == "NHWC":

        def fused(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
            return tf.raw_ops.FusedBatchNorm(
                x=x,
                scale=scale,
                offset=offset,
                mean=mean,
                variance=variance,
                epsilon=epsilon,
                is_training=False,
            ).y

        return fused
    if layout == "NDHWC":

        def folded(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
            factor = scale * tf.math.rsqrt(variance + epsilon)
            return x * factor + (offset - mean * factor)

        return folded
    return None


def _select(condition: Any, then: Any, otherwise: Any) -> Any:
    shape = tf.raw_ops.BroadcastArgs(s0=tf.raw_ops.Shape(input=condition), s1=tf.raw_ops.Shape(input=then))
    shape = tf.raw_ops.BroadcastArgs(s0=shape, s1=tf.raw_ops.Shape(input=otherwise))
    parts = (tf.raw_ops.BroadcastTo(input=part, shape=shape) for part in (condition, then, otherwise))
    return tf.raw_ops.Select(**dict(zip(("condition", "x", "y"), parts, strict=True)))


def _insert(graph: graph_pb2.GraphDef, node: node_def_pb2.NodeDef, function: Callable[..., Any]) -> None:
    """Put what a function traces to in a node's place, under the node's name."""
    inputs = [reference for reference in node.input if not reference.startswith("^")]
    integer = node.op.startswith("Resize")
    with tf.Graph().as_default() as traced:
        holders = []
        for index in range(len(inputs)):
            dtype = (
                tf.int32
                if integer and index == 1
                else tf.bool
                if node.op == "SelectV2" and index == 0
                else tf.float32
            )
            shape = [None] * 4 if integer and index == 0 else [2] if integer else None
            holders.append(tf.compat.v1.placeholder(dtype, shape, name=f"holder_{index}"))
        out = tf.identity(function(*holders), name="replaced")
    sources = {holder.op.name: reference for holder, reference in zip(holders, inputs, strict=True)}
    for inner in traced.as_graph_def().node:
        if inner.name in sources:
            continue
        added = graph.node.add()
        added.CopyFrom(inner)
        added.name = node.name if inner.name == out.op.name else f"{node.name}/{inner.name}"
        del added.input[:]
        for reference in inner.input:
            control = "^" if reference.startswith("^") else ""
            name, colon, slot = reference.removeprefix("^").partition(":")
            added.input.append(control + sources.get(name, f"{node.name}/{name}{colon}{slot}"))
