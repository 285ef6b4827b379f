"""JDLL's tiles in NumPy, faults included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.checking.jdll.processing import process
from care_bridge.checking.jdll.rdf import Axis, Description, JdllError
from care_bridge.errors import InputError

Array = NDArray[Any]
Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]

LARGEST_TILE = 4096 * 4096 * 3
"""Pixels above which JDLL looks for a smaller tile for ever."""

_TOO_COMPLEX = (
    "its size does not follow from the image's: give tensor_id and axis_id (specs too complex for JDLL)"
)
_SHARED_MEMORY = "(reads as 'Shared memory segment already exists')"


def predict(description: Description, network: Call, image: Array) -> NDArray[np.float32]:
    """What JDLL gives for an image.

    Parameters
    ----------
    description : Description
    network : callable
        The bare network, tensor to tensor.
    image : ndarray
        One dimension an input axis, in its order.

    Raises
    ------
    JdllError
        Where JDLL fails at run.
    """
    if image.ndim != len(description.axes):
        raise JdllError(
            "run", f"the image has {image.ndim} dimensions, the description {len(description.axes)}"
        )
    sizes = {axis.letter: size for axis, size in zip(description.axes, image.shape, strict=True)}
    tiles = {axis.letter: _tile(axis, sizes[axis.letter]) for axis in description.axes}
    plans = [_plan(axis, sizes[axis.letter], tiles[axis.letter]) for axis in description.axes]
    out_plans = [_out_plan(axis, sizes, tiles) for axis in description.output_axes]
    if description.problems_at_run:
        raise JdllError("run", description.problems_at_run[0])
    if math.prod(plan.tile for plan in plans) > LARGEST_TILE:
        raise JdllError(
            "run", f"a tile of more than {LARGEST_TILE} pixels: JDLL loops for ever; crop the image"
        )
    letters = "".join(axis.letter for axis in description.axes)
    tensor = process(image, letters, description.preprocessing)
    result = _tiled(network, tensor, plans, out_plans)
    out_letters = "".join(axis.letter for axis in description.output_axes)
    return process(result, out_letters, description.postprocessing)


@dataclass(frozen=True)
class _Plan:
    """Tiles along one axis: their size, what is cut off in front, what is kept, where they start."""

    size: int
    tile: int
    pad: int
    keep: int
    starts: tuple[int, ...]


def _tile(axis: Axis, size: int) -> int:
    """The size of a tile of the input along an axis."""
    if axis.letter == "c" and axis.channels != size:
        raise JdllError("run", f"the description has {axis.channels} channels, the image {size}")
    halo, step = axis.halo, axis.step
    tile = axis.min
    if step:
        tile = (size + 2 * halo) // step * step
        if tile > 3 * size and tile - step >= axis.min:
            tile -= step
        if tile > 3 * size and -(-size // step) * step >= axis.min:
            tile = -(-size // step) * step
    if tile > 3 * size:
        raise JdllError(
            "run", f"a tile of {tile} along {axis.letter} is more than 3 times the image's {size}"
        )
    return tile


def _out_plan(axis: Axis, sizes: Mapping[str, int], tiles: Mapping[str, int]) -> _Plan:
    """Tiles of the output: they follow from the image's by reference, scale and offset."""
    if axis.reference is not None:
        if axis.reference not in sizes:
            raise JdllError(
                "run", f"the size of axis {axis.letter} refers to axis {axis.reference!r}, which is not there"
            )
        size, tile = (int(of[axis.reference] * axis.scale + 2 * axis.offset) for of in (sizes, tiles))
        return _plan(axis, size, tile)
    if axis.step:
        raise JdllError("run", f"axis {axis.letter} of the output: {_TOO_COMPLEX}")
    if axis.letter not in sizes:
        return _plan(axis, axis.min, axis.min)
    share = axis.min * sizes[axis.letter] / tiles[axis.letter]
    # A channel axis has as many as it has names, whatever the input has.
    if share != int(share):
        raise JdllError("run", f"axis {axis.letter} of the output: {_TOO_COMPLEX}")
    return _plan(axis, int(share), axis.min)


def _plan(axis: Axis, size: int, tile: int) -> _Plan:
    halo = axis.halo
    pad = max(halo, -((size - tile) // 2))
    after = max(halo, tile - size - pad)
    keep = tile - pad - after
    if keep <= 0 or tile - 2 * halo <= 0:
        raise JdllError("run", f"nothing is left of a tile of {tile} along {axis.letter} with halo {halo}")
    count = -(-size // (tile - 2 * halo))
    starts = tuple(min(keep * number, size - keep) - pad for number in range(count))
    return _Plan(size, tile, pad, keep, starts)


def _tiled(
    network: Call, tensor: NDArray[np.float32], plans: Sequence[_Plan], out_plans: Sequence[_Plan]
) -> NDArray[np.float32]:
    places = list(itertools.product(*(plan.starts for plan in plans)))
    out_places = list(itertools.product(*(plan.starts for plan in out_plans)))
    if len(places) > len(out_places):
        raise JdllError(
            "run",
            f"the image makes {len(places)} tiles, the output {len(out_places)}: write the halo on the output",
        )
    out = np.zeros([plan.size for plan in out_plans], np.float32)
    for starts, out_starts in zip(places, out_places[: len(places)], strict=True):
        piece = tensor
        for dimension, (plan, start) in enumerate(zip(plans, starts, strict=True)):
            place = _mirror(np.arange(start, start + plan.tile), tensor.shape[dimension])
            piece = np.take(piece, place, axis=dimension)
        result = _network(network, piece)
        wanted = tuple(plan.tile for plan in out_plans)
        if result.shape != wanted:
            raise JdllError(
                "run",
                f"the network makes {result.shape} of a tile, the description says {wanted} {_SHARED_MEMORY}",
            )
        read = tuple(slice(plan.pad, plan.pad + plan.keep) for plan in out_plans)
        write = tuple(
            slice(start + plan.pad, start + plan.pad + plan.keep)
            for plan, start in zip(out_plans, out_starts, strict=True)
        )
        out[write] = result[read]
    return out


def _network(network: Call, piece: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        return network(np.ascontiguousarray(piece, np.float32))
    except InputError as error:
        raise JdllError("run", f"the network fails on a tile of {piece.shape}: {error}") from error


def _mirror(places: Array, size: int) -> Array:
    folded = np.mod(places, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)
