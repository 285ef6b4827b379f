"""What the CSBDeep plugin will do with an image, before any pixel is touched: axes, refusals, tiles.

The image's axes are named, the network's input is looked at, single-pixel axes are dropped and dimensions added until
the network's rank is reached. Each step is written after the plugin's own (CSBDeep/CSBDeep_fiji 0.6.0: ImageTensor,
DefaultInputValidator, DefaultTiling; imagej/imagej-tensorflow: Tensors), and held against recordings of the real one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from care_bridge.errors import InputError
from care_bridge.normalize import MAX_FIJI_PIXELS
from care_bridge.plugin.options import PluginOptions
from care_bridge.tiling import BATCH, NONE, SPATIAL, FijiLayout

UNLABELLED = "?"
_KNOWN = "XYZTC"  # in the order in which the plugin names unlabelled axes
_LABELS = {"X": "X", "Y": "Y", "Z": "Z", "T": "Time", "C": "Channel"}


class PluginError(InputError):
    """The plugin gives no result.

    Parameters
    ----------
    reason : str
    advice : str
        What would do, if anything.

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
    named = name_unlabelled(labels)
    image = list(zip(named, sizes, strict=True))
    first, last = (_end(node_shape, image) for node_shape in (input_shape, output_shape))
    whole = _reduce_dimensions(first, last)
    for node in (first, last):
        node.generate_mapping()
    _validate(first, dict(zip(labels, sizes, strict=True)))
    for node in (first, last):
        node.set_defaults()
    _check_pixels(sizes, options)

    last.drop_singletons()
    dropped = first.drop_singletons()
    kept = [size for index, size in enumerate(sizes) if index not in dropped]
    kept += [1] * (len(first.sizes) - len(kept))
    actions, tile_axes = _cut_dimensions(first, len(kept))
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


def _end(shape: Sequence[int | None] | None, image: Sequence[tuple[str | None, int]]) -> Node:
    sizes = [-1 if size is None else int(size) for size in shape or ()]
    node = Node(sizes, [None] * len(sizes), list(image))
    node.set_defaults()
    return node


def _cut_dimensions(first: Node, count: int) -> tuple[list[str], list[str | None]]:
    """What the plugin does along each dimension of an image of so many, and what each means, fastest first."""
    if not first.sizes:
        raise PluginFailure(
            'java.lang.NullPointerException: Cannot load from object array because "<parameter3>" is null',
            "the bundle's signature does not say the rank of its input",
        )
    actions = first.tiling_actions()
    tile_axes = first.final_axes()
    if count > len(tile_axes):
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
    return actions, tile_axes


def name_unlabelled(labels: Sequence[str]) -> list[str | None]:
    """Letters for axes without a label ("?"), as the plugin gives them."""
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
