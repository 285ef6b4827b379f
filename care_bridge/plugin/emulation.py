"""The CSBDeep plugin's "Run your network" in NumPy: what it does before and after the network, faults
included.

An image goes through the same steps as in the plugin: its axes are named, the network's input is looked
at, pixels are normalised, single-pixel axes dropped, dimensions added until the network's rank is reached,
tiles cut, run and put together, and the result's axes named. Each step is written after the plugin's own
(CSBDeep/CSBDeep_fiji 0.6.0: ImageTensor, DefaultInputValidator, TensorFlowNetwork, DefaultTiling,
DatasetOutputProcessor; imagej/imagej-tensorflow: Tensors), and held against recordings of the real plugin.
Where the plugin gives no result and stays silent, there is an exception with its reason.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import WorkerError
from care_bridge.images import Image
from care_bridge.normalize import FIJI, MAX_FIJI_PIXELS, normalize
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import UNLABELLED, Plan, PluginFailure, name_unlabelled, plan
from care_bridge.predictor import Closable, Network, Runtime, Tensor
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles, mirrored, take_rows

RESULT_NAME = "result"
"""Title of everything that the plugin gives."""


@dataclass(frozen=True, eq=False)
class PluginResult:
    """What the plugin gives.

    Attributes
    ----------
    data : ndarray of float32
        NumPy order.
    axes : str
        "?" for a dimension that the plugin leaves without a label.
    plan : Plan
        What was done.
    name : str
        Always "result".
    """

    data: NDArray[np.float32]
    axes: str
    plan: Plan
    name: str = RESULT_NAME


def run_plugin(
    network: Network,
    data: NDArray[Any],
    axes: str,
    *,
    options: PluginOptions | None = None,
    progress: Progress = silent,
) -> PluginResult:
    """Do with an array what "Run your network" does.

    Parameters
    ----------
    network : Network
        Anything that runs the bundle's network: TensorFlow 1.x, or Keras' TensorFlow.
    data : ndarray
        NumPy order; integers or floats.
    axes : str
        See `plan.plan`.
    options : PluginOptions, optional
        None takes the plugin's defaults.
    progress : Progress
        Told after each tile.

    Raises
    ------
    PluginRefusal, PluginFailure
        Where the plugin gives nothing; the network's own exceptions come as `PluginFailure`, as in the
        plugin.

    Notes
    -----
    Out of memory: a message with "OOM" halves the batch, then doubles the tiles, and all is run again, as
    the plugin does.
    """
    options = options or PluginOptions()
    again = options
    tried: tuple[int, int] | None = None
    pixels: NDArray[np.float32] | None = None
    while True:
        steps = plan(
            data.shape,
            axes,
            input_shape=network.input_shape,
            output_shape=network.output_shape,
            options=again,
        )
        if pixels is None:
            pixels = plugin_pixels(data, options)
        try:
            result = run_tiles(network, in_plugin_order(pixels, steps), steps, progress=progress)
            break
        except _OutOfMemoryError as error:
            now = (steps.n_tiles, again.batchSize)
            if now == tried:
                raise PluginFailure(
                    "java.lang.OutOfMemoryError: Out of memory exception occurred. Plugin exit."
                ) from error
            tried = now
            again = _with_less_at_once(again, steps.n_tiles)
    return _wrap(result, steps)


class _OutOfMemoryError(Exception):
    pass


def _with_less_at_once(options: PluginOptions, n_tiles: int) -> PluginOptions:
    if options.batchSize > 1:
        return options.replace(batchSize=options.batchSize // 2, nTiles=n_tiles)
    return options.replace(nTiles=n_tiles * 2)


def plugin_pixels(data: NDArray[Any], options: PluginOptions) -> NDArray[np.float32]:
    """The pixels as the network gets them: normalised, if the options say so."""
    if not options.normalizeInput:
        return np.asarray(data, np.float32)
    return normalize(
        data, rule=FIJI, pmin=options.percentileBottom, pmax=options.percentileTop, clip=options.clip
    )[0]


def in_plugin_order(pixels: NDArray[np.float32], steps: Plan) -> NDArray[np.float32]:
    """Fastest dimension first, single positions dropped, and dimensions added until the network's rank is reached."""
    image = pixels.transpose()
    image = image[tuple(0 if d in steps.dropped else slice(None) for d in range(image.ndim))]
    return image[(...,) + (np.newaxis,) * (len(steps.input_node.sizes) - image.ndim)]


def run_tiles(
    network: Network, image: NDArray[np.float32], steps: Plan, *, progress: Progress = silent
) -> NDArray[np.float32]:
    """Cut, run and put together.

    Parameters
    ----------
    network : Network
    image : ndarray
        As from `in_plugin_order`.
    steps : Plan
        Its layout is for this image.
    progress : Progress

    Returns
    -------
    ndarray
        Fastest dimension first, before single positions are dropped.
    """
    into, back = steps.input_node.to_tensor_order(), steps.output_node.to_tensor_order()

    def execute(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        return _from_tensor(_call(network, np.ascontiguousarray(_reordered(tile, into))), back)

    layout = steps.layout
    if layout is None:
        return execute(image)
    axes = steps.output_node.final_axes()
    matching = [
        steps.tile_axes.index(axis) if axis in steps.tile_axes and axis != UNLABELLED else None
        for axis in axes
    ]
    grid = [1 if d is None else layout.counts[d] for d in matching]
    pads = [0 if d is None else layout.pad[d] for d in matching]
    wanted, total = math.prod(grid), math.prod(layout.counts)
    merged: NDArray[np.float32] | None = None
    for number, position in enumerate(layout.positions()):
        result = execute(layout.read(image, position))
        progress(number + 1, total, "tiles")
        if number < wanted:  # the plugin computes the others too, and has no place for them
            merged = _with_tile(merged, result, number, grid=grid, pads=pads)
    assert merged is not None
    for dimension, (axis, d) in enumerate(zip(axes, matching, strict=True)):
        if axis == "C" or d is None:
            continue
        rows = mirrored(np.arange(layout.shape[d]), merged.shape[dimension])
        merged = take_rows(merged, rows, dimension)
    return merged


def _with_tile(
    merged: NDArray[np.float32] | None,
    result: NDArray[np.float32],
    number: int,
    *,
    grid: Sequence[int],
    pads: Sequence[int],
) -> NDArray[np.float32]:
    """The merged image with one more result, its margins cut off; made for the sizes of the first."""
    sizes = [size - 2 * pad for size, pad in zip(result.shape, pads, strict=True)]
    if min(sizes) <= 0:
        raise PluginFailure(
            "java.lang.ArithmeticException: / by zero"
            if min(sizes) == 0
            else "java.lang.IndexOutOfBoundsException",
            "the network gives back smaller tiles than it was given; it must keep sizes",
        )
    if merged is None:
        merged = np.empty([g * size for g, size in zip(grid, sizes, strict=True)], np.float32, order="F")
    blocks = [size // count for size, count in zip(merged.shape, grid, strict=True)]
    place = np.unravel_index(number, grid, order="F")
    where = tuple(slice(int(p) * size, (int(p) + 1) * size) for p, size in zip(place, blocks, strict=True))
    merged[where] = result[tuple(slice(pad, pad + size) for pad, size in zip(pads, sizes, strict=True))]
    return merged


def _call(network: Network, tensor: Tensor) -> Tensor:
    if tensor.size > MAX_FIJI_PIXELS:
        raise PluginFailure(
            f"java.lang.NegativeArraySizeException: a tile of shape {tensor.shape} has more values than a Java array",
            "use more tiles",
        )
    try:
        result = network(tensor)
    except Exception as error:
        # Whatever a session throws ends the plugin's run, and its message is the only trace of it.
        reason = getattr(error, "reason", "")
        if isinstance(error, OSError) or (isinstance(error, WorkerError) and not reason):
            raise  # a full disk, or a worker that crashed or hung, is no answer of TensorFlow's
        if "OOM" in str(error) or isinstance(error, MemoryError):
            raise _OutOfMemoryError(str(error)) from error
        raise PluginFailure(f"java.lang.IllegalArgumentException: {reason or error}") from error
    return result


def _reordered(array: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """Move dimension i to place order[i], by the same swaps as the plugin; an odd order gives its odd result."""
    moved = list(range(array.ndim))
    for index in range(array.ndim):
        start, stop = moved[index], order[index]
        array = array.swapaxes(start, stop)
        moved[index] = stop
        moved = [start if place == stop else place for place in moved]
    return array


def _from_tensor(tensor: Tensor, order: Sequence[int]) -> Tensor:
    if tensor.ndim != len(order):
        raise PluginFailure(
            f"java.lang.ArrayIndexOutOfBoundsException: Index {len(order)} out of bounds for length {len(order)}",
            f"the network gives {tensor.ndim} dimensions, its signature says {len(order)}",
        )
    inverse = [0] * len(order)
    for index, place in enumerate(order):
        inverse[place] = index
    return _reordered(tensor, inverse)


def _wrap(result: NDArray[np.float32], steps: Plan) -> PluginResult:
    node = copy.deepcopy(steps.output_node)
    node.image = list(zip(node.final_axes(), result.shape, strict=True))
    dropped = node.drop_singletons()
    result = result[tuple(0 if d in dropped else slice(None) for d in range(result.ndim))]
    if result.ndim < 2:
        raise PluginFailure(
            "java.lang.IndexOutOfBoundsException: Index 0 out of bounds for length 0",
            f"a result with {result.ndim} dimensions is no image",
        )
    axes = node.output_axes()[: result.ndim]
    return PluginResult(
        data=np.ascontiguousarray(result.transpose()),
        axes="".join(axis or UNLABELLED for axis in reversed(axes)),
        plan=steps,
    )


def channels_in_front(image: Image) -> Image:
    """An image as Fiji holds it: never with the channels as the fastest axis.

    Python's readers may put them last (Y, X, C); no file that Fiji opens gives that, and pyimagej moves them to the
    front. Were they left there, the plugin would fail on a single one.
    """
    if not image.axes.endswith("C"):
        return image
    return image.replace(data=np.moveaxis(image.data, -1, 0), axes="C" + image.axes[:-1])


class EmulatedPlugin(Closable):
    """Restores images as "Run your network" of Fiji would; level `emulation`, or `tf1` over TensorFlow 1.x.

    Parameters
    ----------
    network : Network
        The bundle's network in any runtime.
    options : PluginOptions, optional
        None takes the plugin's defaults.
    probabilistic : bool, optional
        Whether the second half of the output's channels are widths. None asks the network's attribute of this name;
        where nothing says so they are channels.

    Notes
    -----
    The result is float32 on the normalised scale and is called "result"; the plugin loses calibration, and
    so does this.
    """

    def __init__(
        self,
        network: Network,
        options: PluginOptions | None = None,
        *,
        probabilistic: bool | None = None,
    ) -> None:
        self.network = network
        self.options = options or PluginOptions()
        said = getattr(network, "probabilistic", None) if probabilistic is None else probabilistic
        self.probabilistic = bool(said)

    @property
    def runtime(self) -> Runtime:
        """What executes the network, and the level."""
        runtime = self.network.runtime
        return Runtime(runtime.name, runtime.versions, level="tf1" if runtime.name == "tf1" else "emulation")

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> EmulatedPlugin:
        """The same network with other tiles, and with or without normalisation."""
        options = self.options.with_tiles(tiles, normalizeInput=normalize)
        return EmulatedPlugin(self.network, options, probabilistic=self.probabilistic)

    def plan(self, image: Image) -> Plan:
        """What the plugin will do with an image: tiles, seams, lost rows."""
        image = channels_in_front(image)
        return plan(
            image.shape,
            image.axes,
            input_shape=self.network.input_shape,
            output_shape=self.network.output_shape,
            options=self.options,
        )

    def predict(self, image: Image, *, progress: Progress = silent) -> Image:
        """Restore an image.

        Raises
        ------
        PluginRefusal, PluginFailure
            Where the plugin gives nothing.
        """
        image = channels_in_front(image)
        result = run_plugin(self.network, image.data, image.axes, options=self.options, progress=progress)
        axes = "".join(axis or UNLABELLED for axis in reversed(name_unlabelled(result.axes[::-1])))
        return Image(
            result.data,
            axes,
            name=result.name,
            has_widths=self.probabilistic,
            normalized=self.options.normalizeInput,
        )

    def close(self) -> None:
        """End what runs the network."""
        self.network.close()
