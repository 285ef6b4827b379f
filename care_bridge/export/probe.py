"""What a network does to sizes, and how far it sees: measured, not computed from its layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import graph_pb2, node_def_pb2

from care_bridge.errors import InputError
from care_bridge.export.graph import reason, runner, signature

Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
LONGEST = 2048
"""Longest line of pixels a receptive field is looked for in."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and reach of a network, a number for each space axis of its input.

    Attributes
    ----------
    size_multiple : tuple of int
        Sizes must be a multiple of it; also the period of its pooling grid.
    receptive_field : tuple of int or None
        Pixels each side that an output pixel hangs on. None: the whole image (instance or group norm).
    dropped : int, optional
        Position of a projected axis among the space axes; None where none is.
    """

    size_multiple: tuple[int, ...]
    receptive_field: tuple[int | None, ...]
    dropped: int | None = None

    @property
    def block_multiple(self) -> int:
        """The plugin's `blockMultiple`: one number for all axes."""
        return int(np.lcm.reduce(self.size_multiple))

    @property
    def overlap(self) -> int | None:
        """The plugin's `overlap` for tiles without seams; None when the network sees the whole image."""
        seen = [reach for axis, reach in enumerate(self.receptive_field) if axis != self.dropped]
        if any(reach is None for reach in seen):
            return None
        return round_up(max((reach or 0 for reach in seen), default=0), self.block_multiple)


def round_up(value: int, multiple: int) -> int:
    """The next multiple, or the value itself."""
    return -(-value // multiple) * multiple


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
    inputs, outputs = signature(graph)
    channels, n_space = inputs[-1] or 1, len(inputs) - 2
    call = runner(graph)
    multiple = _size_multiple(call, n_space, channels, dropped=None if len(outputs) == len(inputs) else -1)
    dropped = _dropped_axis(call, multiple, channels) if len(outputs) < len(inputs) else None
    seen = runner(_positive(graph))
    reach = tuple(_reach(seen, axis, multiple, channels, dropped) for axis in range(n_space))
    return Geometry(multiple, reach, dropped)


def _size_multiple(call: Call, n_space: int, channels: int, *, dropped: int | None) -> tuple[int, ...]:
    kept = _keeps_size if dropped is None else _keeps_size_projected
    common = next(
        (m for m in MULTIPLES if all(kept(call, (m * k,) * n_space, channels) for k in (2, 3, 5))), None
    )
    if common is None:
        shape = (MULTIPLES[-1] * 2,) * n_space
        raise InputError(_size_message(call, shape, channels))
    best = []
    for axis in range(n_space):
        for multiple in (m for m in MULTIPLES if m <= common):
            sizes = [
                tuple(multiple * k if a == axis else 2 * common for a in range(n_space)) for k in (2, 3, 5)
            ]
            if all(kept(call, size, channels) for size in sizes):
                best.append(multiple)
                break
    return tuple(best)


def _size_message(call: Call, shape: Sequence[int], channels: int) -> str:
    try:
        out = call(np.zeros((1, *shape, channels), np.float32)).shape[1:-1]
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


def _try(call: Call, shape: Sequence[int], channels: int) -> tuple[int, ...] | None:
    try:
        return call(np.zeros((1, *shape, channels), np.float32)).shape[1:-1]
    except Exception:  # any failure of the runtime means: not this size
        return None


def _keeps_size(call: Call, shape: Sequence[int], channels: int) -> bool:
    return _try(call, shape, channels) == tuple(shape)


def _keeps_size_projected(call: Call, shape: Sequence[int], channels: int) -> bool:
    return _try(call, shape, channels) in set(itertools.combinations(tuple(shape), len(shape) - 1))


def _dropped_axis(call: Call, multiple: Sequence[int], channels: int) -> int:
    shape = [m * size for m, size in zip(multiple, (2, 3, 5), strict=False)]
    # Different sizes along every axis tell which one is gone.
    while len(set(shape)) < len(shape):
        shape = [size * (2 + axis) for axis, size in enumerate(shape)]
    out = _try(call, shape, channels)
    gone = [axis for axis in range(len(shape)) if (*shape[:axis], *shape[axis + 1 :]) == out]
    if len(gone) != 1:
        raise InputError(
            f"the network makes {out} of {tuple(shape)}; a projection takes exactly one axis away"
        )
    return gone[0]


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
    biases = {constant(node.input[1]) for node in changed.node if node.op == "BiasAdd"} - {None}
    for name in biases:
        tensor = constants[str(name)].attr["value"].tensor
        value = np.zeros_like(tf.make_ndarray(tensor))
        tensor.CopyFrom(tf.make_tensor_proto(value))
    return changed


_BOUNDED = ("Tanh", "Sigmoid", "Relu6", "Softsign", "Erf", "ClipByValue")


def _keep_only(node: node_def_pb2.NodeDef, reference: str) -> None:
    """Let one input through unchanged: what saturates hides what is seen."""
    node.op = "Identity"
    del node.input[:]
    node.input.append(reference)
    for key in [key for key in node.attr if key != "T"]:
        del node.attr[key]


def _places(multiple: int) -> list[int]:
    """Places of the pooling grid to light: all of a small one, ends and middle of a large one."""
    if multiple <= 8:
        return list(range(multiple))
    return [0, 1, 2, 3, multiple // 2 - 1, multiple // 2, multiple - 2, multiple - 1]


def _reach(seen: Call, axis: int, multiple: Sequence[int], channels: int, dropped: int | None) -> int | None:
    if axis == dropped:
        return None
    length = 32 * multiple[axis]
    while length <= LONGEST:
        shape = [length if a == axis else 2 * m for a, m in enumerate(multiple)]
        # On black everything adds up; on grey, products with the image (softmax, gates) show as well.
        grounds = [(np.zeros((1, *shape, channels), np.float32), 1.0)]
        grounds.append((np.random.default_rng(0).random((1, *shape, channels), np.float32), 1e4))
        baselines = [seen(ground) for ground, _ in grounds]
        out_axis = 1 + axis - (dropped is not None and dropped < axis)
        others = tuple(a for a in range(baselines[0].ndim) if a != out_axis)
        reach, edge = 0, False
        for shift in _places(multiple[axis]):
            place = length // 2 + shift
            index = (0, *(place if a == axis else size // 2 for a, size in enumerate(shape)))
            for (ground, light), baseline in zip(grounds, baselines, strict=True):
                lit = ground.copy()
                lit[index] += light
                changed = np.flatnonzero((seen(lit) != baseline).any(axis=others))
                if changed.size:
                    reach = max(reach, int(np.abs(changed - place).max()))
                    edge |= changed[0] == 0 or changed[-1] == length - 1
                if edge:
                    break
            if edge:
                break
        if not edge:
            return reach
        length *= 4
    return None
