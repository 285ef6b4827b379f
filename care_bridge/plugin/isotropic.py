"""The CSBDeep plugin's "Run your IsoNet" in NumPy.

Written from its source (CSBDeep/CSBDeep_fiji 0.6.0, GenericIsotropicNetwork.java), and held against recordings of the
real command: over the same TensorFlow every value is equal bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.plugin.emulation import (
    PluginResult,
    channels_in_front,
    in_plugin_order,
    plugin_pixels,
    run_tiles,
)
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import UNLABELLED, Plan, PluginFailure, name_unlabelled, plan
from care_bridge.predictor import Closable, Network, Runtime
from care_bridge.progress import Progress, silent
from care_bridge.tiling import BATCH, NONE, SPATIAL, FijiTiles, round_up

DEFAULT_SCALE = 10.2
"""The plugin's "Scale factor of Z-Axis"."""

BATCH_MULTIPLE = 4
"""The plugin rounds the batch size up to it."""


def run_isotropic_plugin(
    network: Network,
    data: NDArray[Any],
    axes: str,
    *,
    scale: float = DEFAULT_SCALE,
    options: PluginOptions | None = None,
    progress: Progress = silent,
) -> PluginResult:
    """Do with a stack what "Run your IsoNet" does.

    Z is enlarged by linear interpolation, the stack is restored twice by a 2-D network, in planes that
    hold Z and X and in planes that hold Z and Y, and the two results are multiplied and rooted.

    Parameters
    ----------
    network : Network
        Of rank 4.
    data : ndarray
        NumPy order; with X, Y and Z.
    axes : str
        As for `plan.plan`.
    scale : float
        How many planes one becomes; at least 1.
    options : PluginOptions, optional
        None takes the plugin's defaults.
    progress : Progress

    Returns
    -------
    PluginResult
        floor((planes - 1) x scale) + 1 planes. The channel axis stays even with one position, and so does a
        single plane, whose axis has no label. NaN where the two results have different signs.

    Raises
    ------
    PluginRefusal, PluginFailure
        With the plugin's reason.
    InputError
        If the network is not 2-D. The plugin runs one of rank 5 too, on planes that it takes for volumes.
    """
    if (rank := len(network.input_shape)) not in (0, 4):
        raise InputError(
            f'"Run your IsoNet" is for 2-D networks, of 4 dimensions, and this one has {rank}: what the plugin gives '
            'with it means nothing; use "Run your network"'
        )
    if not scale >= 1:
        raise InputError(f"scale={scale} must be at least 1, the number of planes that one becomes")
    options = options or PluginOptions()
    options = options.replace(batchSize=round_up(options.batchSize, BATCH_MULTIPLE))
    steps = plan(
        data.shape, axes, input_shape=network.input_shape, output_shape=network.output_shape, options=options
    )
    order = steps.axes[::-1]
    x, y, z = (order.find(axis) for axis in "XYZ")
    if min(x, y, z) < 0 or steps.layout is None:
        raise PluginFailure(
            "java.lang.ArrayIndexOutOfBoundsException: Index -1 out of bounds", "it needs X, Y and Z"
        )
    image = enlarged(in_plugin_order(plugin_pixels(data, options), steps), z, scale)
    over_x = image.swapaxes(x, z)
    over_y = over_x.swapaxes(y, z)
    first, second = _restored(network, (over_x, over_y), steps, options.tiles, progress)
    first = first.swapaxes(x, z)
    second = second.swapaxes(y, z).swapaxes(x, z)
    with np.errstate(invalid="ignore"):
        mean = np.sqrt((first * second).astype(np.float64)).astype(np.float32)
    names = [axis or UNLABELLED for axis in steps.output_node.output_axes()[: mean.ndim]]
    return PluginResult(
        data=np.ascontiguousarray(mean.transpose()), axes="".join(reversed(names)), plan=steps
    )


def _restored(
    network: Network,
    stacks: Sequence[NDArray[np.float32]],
    steps: Plan,
    tiles: FijiTiles,
    progress: Progress,
) -> list[NDArray[np.float32]]:
    """Each stack restored plane by plane."""
    results = []
    actions = [
        SPATIAL if axis in ("X", "Y") else BATCH if axis in ("Z", "T") else NONE for axis in steps.tile_axes
    ]
    for number, rotated in enumerate(stacks):
        layout = tiles.layout(rotated.shape, actions)
        results.append(run_tiles(network, rotated, dataclasses.replace(steps, layout=layout)))
        # One object cuts both stacks in the plugin, and remembers what the first one came to.
        cut = math.prod(c for c, action in zip(layout.counts, actions, strict=True) if action == SPATIAL)
        batch = next(b for b, action in zip(layout.blocks, actions, strict=True) if action == BATCH)
        tiles = dataclasses.replace(tiles, n_tiles=cut, batch_size=batch)
        progress(number + 1, len(stacks), "directions")
    return results


def enlarged(image: NDArray[np.float32], axis: int, scale: float) -> NDArray[np.float32]:
    """Linear interpolation along an axis, as imglib2's: weights in double, products and sums in float.

    Parameters
    ----------
    image : ndarray of float32
    axis : int
    scale : float
        The plugin's, a Java float.

    Returns
    -------
    ndarray
        floor((n - 1) x scale) + 1 positions; the last ones of the image lie on or before the last of the
        result.
    """
    factor = float(np.float32(scale))
    count = math.floor((image.shape[axis] - 1) * factor) + 1
    places = np.arange(count) * (1.0 / factor)
    below = np.floor(places).astype(np.intp)
    weight = places - below
    shape = [-1 if d == axis else 1 for d in range(image.ndim)]
    last = image.shape[axis] - 1
    left = np.take(image, np.minimum(below, last), axis) * (1 - weight).reshape(shape)
    right = np.take(image, np.minimum(below + 1, last), axis) * weight.reshape(shape)
    result: NDArray[np.float32] = left.astype(np.float32) + right.astype(np.float32)
    return result


class EmulatedIsoNet(Closable):
    """Restores stacks as "Run your IsoNet" of Fiji would; level `emulation`, or `tf1` over TensorFlow 1.x.

    Parameters
    ----------
    network : Network
        The bundle's network in any runtime.
    options : PluginOptions, optional
        None takes the plugin's defaults.
    scale : float
        See `run_isotropic_plugin`.
    """

    # What the network does alone is not what the command does with a stack.
    network: None = None

    def __init__(
        self, network: Network, options: PluginOptions | None = None, *, scale: float = DEFAULT_SCALE
    ) -> None:
        self._network = network
        self.options = options or PluginOptions()
        self.scale = scale

    @property
    def runtime(self) -> Runtime:
        """What executes the network, and the level."""
        runtime = self._network.runtime
        return Runtime(runtime.name, runtime.versions, level="tf1" if runtime.name == "tf1" else "emulation")

    def predict(self, image: Image, *, progress: Progress = silent) -> Image:
        """Restore a stack; errors as of `run_isotropic_plugin`."""
        image = channels_in_front(image)
        result = run_isotropic_plugin(
            self._network, image.data, image.axes, scale=self.scale, options=self.options, progress=progress
        )
        axes = "".join(axis or UNLABELLED for axis in reversed(name_unlabelled(result.axes[::-1])))
        return Image(result.data, axes, name=result.name)

    def close(self) -> None:
        """End what runs the network."""
        self._network.close()
