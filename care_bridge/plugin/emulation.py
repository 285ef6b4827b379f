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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError, WorkerError
from care_bridge.images import Image
from care_bridge.normalize import FIJI, MAX_FIJI_PIXELS, normalize
from care_bridge.plugin.options import PluginOptions
from care_bridge.predictor import Closable, Network, Runtime, Tensor
from care_bridge.progress import Progress, silent
from care_bridge.tiling import BATCH, NONE, SPATIAL, FijiLayout, FijiTiles, mirrored, take_rows

RESULT_NAME = "result"
"""Title of everything that the plugin gives."""

UNLABELLED = "?"
_KNOWN = "XYZTC"  # in the order in which the plugin names unlabelled axes
_LABELS = {"X": "X", "Y": "Y", "Z": "Z", "T": "Time", "C": "Channel"}


class PluginError(InputError):
    """The plugin gives no result.

    Attributes
    ----------
    reason : str
        The plugin's own message, or Java's.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"the CSBDeep plugin gives no result: {reason}{'; ' * bool(advice)}{advice}")
        self.reason = reason


class PluginRefusal(PluginError):  # noqa: N818
    """The plugin looks at image and network and says no; nothing was computed."""


class PluginFailure(PluginError):  # noqa: N818
    """The plugin runs into an exception, prints it to the console and gives nothing."""


@dataclass
class Node:
    """One end of the network, and the image there: the plugin's `ImageTensor`.

    Attributes
    ----------
    sizes : list of int
        Of the tensor; -1 = any.
    types : list of str or None
        What each dimension of the tensor means; None where the plugin does not know.
    image : list of (str or None, int)
        Axes and sizes of the image, fastest first.
    mapping : list of int or None
        Which dimension of the image each dimension of the tensor is.
    """

    sizes: list[int]
    types: list[str | None]
    image: list[tuple[str | None, int]]
    mapping: list[int | None] = field(default_factory=list)

    def size_of(self, axis: str) -> int:
        return next((size for name, size in self.image if name == axis), 1)

    def set_defaults(self) -> None:
        if len(self.sizes) == 5:
            self.types = ["T", "Z", "Y", "X", "C"]
            if self.size_of("Z") <= 1 and self.size_of("T") > 1:
                self.types[:2] = ["Z", "T"]
        elif len(self.sizes) == 4:
            self.types = ["Z" if self.size_of("Z") > 1 else "T", "Y", "X", "C"]

    def generate_mapping(self) -> None:
        names = [name for name, _ in self.image]
        found = [names.index(axis) if axis is not None and axis in names else None for axis in self.types]
        used = set(found)
        for index in range(len(found)):
            if index not in used and None in found:
                found[found.index(None)] = index
        self.mapping = found

    def drop_singletons(self) -> list[int]:
        dropped = []
        for index in reversed(range(len(self.image))):
            if self.image[index][1] != 1:
                continue
            dropped.append(index)
            del self.image[index]
            # As often as there are axes behind the dropped one; that is how the plugin loses track of them.
            for _ in range(index, len(self.image)):
                self.mapping = [
                    position - 1 if position is not None and position > index else position
                    for position in self.mapping
                ]
        return dropped

    def final_axes(self) -> list[str | None]:
        return [
            self.types[self.mapping.index(index)] if index in self.mapping else UNLABELLED
            for index in range(len(self.sizes))
        ]

    def tiling_actions(self) -> list[str]:
        count = max(len(self.image), len(self.sizes))
        actions = [NONE] * count
        actions[0] = BATCH
        for index in range(1, len(self.sizes) - 1):
            if self.sizes[index] < 0:
                actions[index] = SPATIAL
        of_image = [NONE] * count
        for index in range(len(self.mapping)):
            if index not in self.mapping:
                raise PluginFailure(
                    f"java.lang.ArrayIndexOutOfBoundsException: Index -1 out of bounds for length {count}",
                    "an axis with one position stands before a larger one; remove axes with one position",
                )
            of_image[index] = actions[self.mapping.index(index)]
        return of_image

    def output_axes(self) -> list[str | None]:
        has_channel = any(name == "C" for name, _ in self.image)
        count = len(self.sizes)
        if not has_channel and count <= len(self.image):
            count = len(self.image) + 1
        result: list[str | None] = [UNLABELLED] * count
        if not has_channel:
            result[len(self.image)] = "C"
        for index, (name, _) in enumerate(self.image[: len(self.types)]):
            if name is not None and name in self.types:
                result[index] = name
        return result

    def to_tensor_order(self) -> list[int]:
        """Which dimension of the tensor each dimension of the image becomes."""
        if None in self.mapping:
            raise PluginFailure("java.lang.NullPointerException: a dimension of the network has no axis")
        return [
            self.mapping.index(index) if index in self.mapping else 0 for index in range(len(self.mapping))
        ]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the plugin will do with an image, before any pixel is touched.

    Attributes
    ----------
    axes : str
        Axes of the image with unlabelled ones named, NumPy order.
    tile_axes : tuple of str or None
        What the dimensions that are cut mean, fastest first.
    layout : FijiLayout
        The tiles; None for networks that lose more than one dimension, which get the image whole.
    n_tiles : int
        Tiles of one batch, as the plugin reports them.
    dropped : tuple of int
        Dimensions with a single position that are left out, fastest first.
    input_node, output_node : Node
        The two ends of the network.
    """

    axes: str
    tile_axes: tuple[str | None, ...]
    layout: FijiLayout | None
    n_tiles: int
    dropped: tuple[int, ...]
    input_node: Node
    output_node: Node

    @property
    def seams(self) -> dict[str, list[int]]:
        """First pixel after each border between tiles, by axis; only axes that are cut."""
        if self.layout is None:
            return {}
        found = {
            axis: self.layout.seams(d) for d, axis in enumerate(self.tile_axes) if axis and self.layout.pad[d]
        }
        return {axis: seams for axis, seams in found.items() if seams}

    @property
    def lost(self) -> dict[str, int]:
        """Rows at the far end that never reach the network and are filled with mirrored results, by axis."""
        if self.layout is None:
            return {}
        return {
            axis: rows for axis, rows in zip(self.tile_axes, self.layout.lost, strict=False) if axis and rows
        }


def plan(
    shape: Sequence[int],
    axes: str,
    *,
    input_shape: Sequence[int | None] | None,
    output_shape: Sequence[int | None] | None,
    options: PluginOptions,
) -> Plan:
    """What the plugin will do with an image of this size and meaning.

    Parameters
    ----------
    shape : sequence of int
        Sizes, NumPy order.
    axes : str
        Letters of TCZYX, or "?" for a dimension without a label; an S is one, since the plugin does not
        know series.
    input_shape, output_shape : sequence of int or None
        As in the network's signature; None or empty for a signature that does not say its rank.
    options : PluginOptions

    Raises
    ------
    PluginRefusal, PluginFailure
        With the plugin's reason.
    """
    if len(axes) != len(shape):
        raise InputError(f"axes={axes!r} names {len(axes)} dimensions, but the image has {len(shape)}")
    labels = [axis if axis in _KNOWN else UNLABELLED for axis in reversed(axes.upper())]
    sizes = list(reversed(shape))
    named = _name_unlabelled(labels)
    ends = []
    for node_shape in (input_shape, output_shape):
        node_sizes = [-1 if size is None else int(size) for size in node_shape or ()]
        node = Node(node_sizes, [None] * len(node_sizes), list(zip(named, sizes, strict=True)))
        node.set_defaults()
        ends.append(node)
    first, last = ends
    whole = _reduce_dimensions(first, last)
    for node in ends:
        node.generate_mapping()
    _validate(first, dict(zip(labels, sizes, strict=True)))
    for node in ends:
        node.set_defaults()
    _check_pixels(sizes, options)

    last.drop_singletons()
    dropped = first.drop_singletons()
    kept = [size for index, size in enumerate(sizes) if index not in dropped]
    kept += [1] * (len(first.sizes) - len(kept))
    if not first.sizes:
        raise PluginFailure(
            'java.lang.NullPointerException: Cannot load from object array because "<parameter3>" is null',
            "the bundle's signature does not say the rank of its input",
        )
    actions = first.tiling_actions()
    tile_axes = first.final_axes()
    if len(kept) > len(tile_axes):
        raise PluginFailure(
            f"java.lang.ArrayIndexOutOfBoundsException: Index {len(tile_axes)} out of bounds for length "
            f"{len(tile_axes)}",
            "the image has more dimensions than the network",
        )
    if len(first.sizes) not in (4, 5):
        raise PluginFailure(
            'java.lang.NullPointerException: Cannot invoke "Object.equals(Object)" because '
            '"de.csbdresden.csbdeep.tiling.AdvancedTiledView.getOriginalAxes()[<local8>]" is null',
            f"the plugin knows networks with 4 or 5 dimensions; this one has {len(first.sizes)}",
        )
    layout = None if whole else options.tiles.layout(kept, actions[: len(kept)])
    n_tiles = 1
    if layout is not None:
        n_tiles = math.prod(c for c, action in zip(layout.counts, actions, strict=True) if action == SPATIAL)
    return Plan(
        axes="".join(axis or UNLABELLED for axis in reversed(named)),
        tile_axes=tuple(tile_axes),
        layout=layout,
        n_tiles=n_tiles,
        dropped=tuple(dropped),
        input_node=first,
        output_node=last,
    )


def _name_unlabelled(labels: Sequence[str]) -> list[str | None]:
    free = iter([axis for axis in _KNOWN if axis not in labels])
    return [next(free, UNLABELLED) if label == UNLABELLED else label for label in labels]


def _validate(node: Node, image: dict[str, int]) -> None:
    if len(node.sizes) == 4 and image.get("T", 1) > 1 and image.get("Z", 1) > 1:
        raise PluginRefusal(
            "Network is meant for 2D images and can handle one additional batch dimension (Z or TIME), but this "
            "dataset contains data in both Z and TIME dimension.",
            "send one frame at a time",
        )
    for axis, size in zip(node.types, node.sizes, strict=True):
        label = _LABELS.get(axis or "", "null")
        if size > 1 and axis not in image:
            raise PluginRefusal(f"Input should have axis of type {label} and size {size}")
        if size == 1 and axis in image and image[axis] != size:
            raise PluginRefusal(
                f"Input axis of type {label} should have size {size} but has size {image[axis]}"
            )


def _reduce_dimensions(first: Node, last: Node) -> bool:
    """Prepare a network that loses dimensions; tells whether it gets the image whole."""
    difference = len(last.sizes) - len(first.sizes)
    if difference == 0:
        return False
    if difference != -1:
        return True
    names = [name for name, _ in first.image]
    removed = "T" if "T" in names else "Z"
    count = len(names) - (removed in names)
    # The plugin looks at as many axes as remain, so one that stands behind the removed one is missed.
    last.image = [pair for pair in first.image[:count] if pair[0] != removed]
    if len(last.image) < count:
        sizes = [size for _, size in last.image] + [0] * (count - len(last.image))
        raise PluginFailure(
            f"net.imglib2.exception.InvalidDimensionsException: Expected only positive dimensions but got: {sizes}",
            f"bring {removed} to the slow end of the axes",
        )
    mapping = list(first.types)
    if removed in mapping:
        mapping.remove(removed)
    for index, axis in enumerate(mapping[: len(last.types)]):
        last.types[index] = axis
    return False


def _check_pixels(sizes: Sequence[int], options: PluginOptions) -> None:
    pixels = math.prod(sizes)
    if not options.normalizeInput or pixels <= MAX_FIJI_PIXELS:
        return
    counted = (pixels + 2**31) % 2**32 - 2**31
    reason = (
        f"java.lang.NegativeArraySizeException: {counted}"
        if counted < 0
        else f"java.lang.ArrayIndexOutOfBoundsException: Index {counted} out of bounds for length {counted}"
    )
    raise PluginFailure(
        reason, f"it counts {pixels} pixels in a Java int; cut the image, or set normalizeInput=false"
    )


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
        See `plan`.
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
    again: PluginOptions | None = options
    tried: tuple[int, int] | None = None
    pixels: NDArray[np.float32] | None = None
    while True:
        assert again is not None
        steps = plan(
            data.shape,
            axes,
            input_shape=network.input_shape,
            output_shape=network.output_shape,
            options=again,
        )
        if pixels is None:
            pixels = _pixels(data, options)
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
            again = (
                again.replace(batchSize=again.batchSize // 2, nTiles=steps.n_tiles)
                if again.batchSize > 1
                else again.replace(nTiles=steps.n_tiles * 2)
            )
    return _wrap(result, steps)


class _OutOfMemoryError(Exception):
    pass


def _pixels(data: NDArray[Any], options: PluginOptions) -> NDArray[np.float32]:
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
    wanted, total = math.prod(grid), math.prod(layout.counts)
    merged: NDArray[np.float32] | None = None
    for number, position in enumerate(layout.positions()):
        result = execute(layout.read(image, position))
        progress(number + 1, total, "tiles")
        if number >= wanted:
            continue  # the plugin computes these too, and has no place for them
        pads = [0 if d is None else layout.pad[d] for d in matching]
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
        place = np.unravel_index(number, grid, order="F")
        where = tuple(
            slice(int(p) * s, (int(p) + 1) * s)
            for p, s in zip(place, _block_sizes(merged, grid), strict=True)
        )
        merged[where] = result[tuple(slice(pad, pad + size) for pad, size in zip(pads, sizes, strict=True))]
    assert merged is not None
    for dimension, (axis, d) in enumerate(zip(axes, matching, strict=True)):
        if axis == "C" or d is None:
            continue
        rows = mirrored(np.arange(layout.shape[d]), merged.shape[dimension])
        merged = take_rows(merged, rows, dimension)
    return merged


def _block_sizes(merged: NDArray[Any], grid: Sequence[int]) -> list[int]:
    """Size of one tile in a merged image."""
    return [size // count for size, count in zip(merged.shape, grid, strict=True)]


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


class EmulatedPlugin(Closable):
    """Restores images as "Run your network" of Fiji would; level `emulation`, or `tf1` over TensorFlow 1.x.

    Parameters
    ----------
    network : Network
        The bundle's network in any runtime.
    options : PluginOptions, optional
        None takes the plugin's defaults.

    Notes
    -----
    The result is float32 on the normalised scale and is called "result"; the plugin loses calibration, and
    so does this.
    """

    def __init__(self, network: Network, options: PluginOptions | None = None) -> None:
        self.network = network
        self.options = options or PluginOptions()

    @property
    def runtime(self) -> Runtime:
        """What executes the network, and the level."""
        runtime = self.network.runtime
        return Runtime(runtime.name, runtime.versions, level="tf1" if runtime.name == "tf1" else "emulation")

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> EmulatedPlugin:
        """The same network with other tiles, and with or without normalisation."""
        options = self.options.with_tiles(tiles, normalizeInput=normalize)
        return EmulatedPlugin(self.network, options)

    def plan(self, image: Image) -> Plan:
        """What the plugin will do with an image: tiles, seams, lost rows."""
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
        result = run_plugin(self.network, image.data, image.axes, options=self.options, progress=progress)
        axes = "".join(axis or UNLABELLED for axis in reversed(_name_unlabelled(result.axes[::-1])))
        return Image(result.data, axes, name=result.name)

    def close(self) -> None:
        """End what runs the network."""
        self.network.close()
