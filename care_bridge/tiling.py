"""Tiles: an image cut for prediction and put together again, as csbdeep does it and as the CSBDeep plugin
does it.

csbdeep's tiles give the same result as no tiles::

    |<-------------- axis ---------------->|
    [ core ][ core ][ core ][ core ][ core ]     cores: equal, multiples of `size_multiple`, from the image's first pixel
        |<-halo->[ core ]<-halo->|               read: never outside the image, shifted inwards at its ends
                                                 halo: at least the receptive field

The plugin's tiles reach over the image border, where they see it mirrored, and are filled up to a multiple
at the far end; when rows do not divide, the last ones are lost and replaced by mirrored results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
from care_bridge.errors import InputError

Slices = tuple[slice, ...]


# ---- how far a U-Net looks


def receptive_field(
    *,
    n_depth: int,
    kern_size: int | Sequence[int],
    pool: int | Sequence[int] = 2,
    n_conv_per_depth: int = 2,
    axes: str = "YX",
) -> dict[str, int]:
    """How many pixels to each side an output pixel of a U-Net can depend on.

    Parameters
    ----------
    n_depth : int
        Poolings, one after another.
    kern_size, pool : int or sequence of int
        Kernel size and pooling factor; one for all, or one a letter of `axes`.
    n_conv_per_depth : int
        Convolutions a level on the way down, and as many on the way up.
    axes : str
        Axes of space, e.g. "YX" or "ZYX"; a C is passed over.

    Returns
    -------
    dict of str to int
        Pixels a side for each axis.

    Notes
    -----
    Half a kernel for every convolution, at the pixel size of its level: levels above the lowest are passed
    on the way down and up, the lowest once. Pooling lets the place of a pixel within its block decide: up
    to the block's size - 1 more. An upper bound for any depth and kernel, where csbdeep has a table of
    measured values that ends at depth 5 and kernel 7.
    """
    space = [axis for axis in axes.upper() if axis != "C"]
    result = {}
    for number, axis in enumerate(space):
        kernel, factor = (_of_axis(value, number, len(space)) for value in (kern_size, pool))
        if kernel < 1 or factor < 1 or n_depth < 0:
            raise InputError(f"n_depth={n_depth}, kern_size={kernel}, pool={factor}: no such network")
        above = 2 * sum(factor**level for level in range(n_depth))
        result[axis] = n_conv_per_depth * (kernel // 2) * (above + factor**n_depth) + factor**n_depth - 1
    return result


def _of_axis(value: int | Sequence[int], number: int, count: int) -> int:
    if isinstance(value, int):
        return value
    if len(value) != count:
        raise InputError(
            f"{tuple(value)} has {len(value)} entries for {count} axes of space; give one for each"
        )
    return int(value[number])


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is not below `size`."""
    return -(-size // multiple) * multiple


# ---- csbdeep's way


@dataclass(frozen=True)
class Tile:
    """One piece.

    Attributes
    ----------
    read : tuple of slice
        What of the image goes into the network.
    inner : tuple of slice
        What of the network's result is kept.
    write : tuple of slice
        Where in the whole result it goes.
    """

    read: Slices
    inner: Slices
    write: Slices


@dataclass(frozen=True)
class CsbdeepTiles:
    """Tiles that change nothing: cores aligned to the pooling grid, a halo of the receptive field around
    each.

    Attributes
    ----------
    n_tiles : tuple of int or mapping of str to int
        How many tiles: one entry an image axis, as csbdeep takes it, or by axis letter, e.g. ``{"Y": 2,
        "X": 2}``. A target: fewer when a core would be smaller than `size_multiple`.
    """

    n_tiles: tuple[int, ...] | Mapping[str, int]

    def counts(self, axes: str, *, cut: str = SPACE) -> dict[str, int]:
        """Number of tiles by axis letter.

        Parameters
        ----------
        axes : str
            Axes of the image.
        cut : str
            Axes that may be cut.

        Returns
        -------
        dict of str to int
            One for each axis of the image.

        Raises
        ------
        InputError
            If there is not one entry an axis, or an entry is not a whole number of at least 1, or an axis
            other than those of space is to be cut.
        """
        if isinstance(self.n_tiles, Mapping):
            counts = {axis.upper(): count for axis, count in self.n_tiles.items()}
        else:
            if len(self.n_tiles) != len(axes):
                raise InputError(
                    f"n_tiles has {len(self.n_tiles)} entries for axes {axes!r}; give one per axis, "
                    f"e.g. {tuple(2 if axis in SPACE else 1 for axis in axes)}"
                )
            counts = dict(zip(axes, self.n_tiles, strict=True))
        for axis, count in counts.items():
            if int(count) != count or count < 1:
                raise InputError(
                    f"n_tiles={self.n_tiles!r}: {count!r} for {axis} must be a whole number of at least 1"
                )
            if count > 1 and axis not in SPACE:
                raise InputError(f"n_tiles={self.n_tiles!r}: only {', '.join(SPACE)} can be cut, not {axis}")
        return {axis: int(count) for axis, count in counts.items()}

    def split(
        self,
        shape: Sequence[int],
        axes: str,
        *,
        halo: Mapping[str, int],
        size_multiple: Mapping[str, int],
        pads: Sequence[tuple[int, int]] | None = None,
    ) -> list[Tile]:
        """Where to cut.

        Parameters
        ----------
        shape : sequence of int
            Sizes by axis of `axes`, each a multiple of that axis's `size_multiple`.
        axes : str
            Axes of space.
        halo : mapping of str to int
            Receptive field in pixels a side, by axis; rounded up to `size_multiple` here.
        size_multiple : mapping of str to int
            Sizes and starts of what is read are multiples of it.
        pads : sequence of pairs of int, optional
            How many pixels before and behind each axis were added to the image; no core lies there. None: nowhere.

        Returns
        -------
        list of Tile
            In C order. Along one axis all tiles have the same size, so that a compiled network sees one
            shape.
        """
        counts = self.counts(axes, cut=axes)
        along = [
            list(cut_axis(size, counts.get(axis, 1), halo.get(axis, 0), size_multiple.get(axis, 1), pad=pad))
            for axis, size, pad in zip(axes, shape, pads or [(0, 0)] * len(axes), strict=True)
        ]
        tiles = []
        for index in np.ndindex(*map(len, along)):
            pieces = [along[axis][position] for axis, position in enumerate(index)]
            tiles.append(Tile(*(tuple(piece[part] for piece in pieces) for part in range(3))))
        return tiles


def core_px(size: int, count: int, multiple: int) -> int:
    """How long the cores of so many tiles are along an axis of a filled-up size."""
    return round_up(-(-size // count), multiple)


def cut_axis(
    size: int, count: int, halo: int, multiple: int, *, pad: tuple[int, int] = (0, 0)
) -> Iterator[tuple[slice, slice, slice]]:
    """Tiles along one axis: what is read, what is kept of it, where it goes; all in the filled-up image.

    Parameters
    ----------
    size : int
        Filled up, a multiple of `multiple`.
    count, halo, multiple : int
        See `CsbdeepTiles`.
    pad : pair of int
        What was added before and behind. Cores begin at the image's own first pixel, so that they are the same whether
        the image is in memory or written piece by piece, and what is read is longer by as much as that is off the grid.
    """
    core = core_px(size, count, multiple)
    before, end = pad[0], size - pad[1]
    first = (before - halo) // multiple * multiple
    length = min(size, round_up(before + core + halo, multiple) - first) if core < end - before else size
    for start in range(before, end, core):
        stop = min(start + core, end)
        read = min(max(first + start - before, 0), size - length)
        yield slice(read, read + length), slice(start - read, stop - read), slice(start, stop)


# ---- the plugin's way

NONE, SPATIAL, BATCH = "none", "spatial", "batch"
"""What the plugin does along a dimension: nothing, tiles with margins, batches."""


@dataclass(frozen=True)
class FijiTiles:
    """How the CSBDeep plugin cuts an image; the defaults are the plugin's own.

    Attributes
    ----------
    n_tiles : int
        At least so many tiles; counts grow one by one, so 8 gives 3 x 3 on a square image.
    block_multiple : int
        Sizes of tiles without margin are multiples of it.
    overlap : int
        Margin in pixels a side; only along dimensions that are cut.
    batch_size : int
        Planes (or frames) at once.
    """

    n_tiles: int = 8
    block_multiple: int = 32
    overlap: int = 32
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, least in (("n_tiles", 1), ("block_multiple", 1), ("overlap", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if int(value) != value or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}; received {value!r}")

    def layout(self, shape: Sequence[int], actions: Sequence[str]) -> FijiLayout:
        """Where the plugin cuts.

        Parameters
        ----------
        shape : sequence of int
            Sizes in the plugin's order of dimensions: fastest first, X Y C Z T.
        actions : sequence of str
            NONE, SPATIAL or BATCH for each.

        Returns
        -------
        FijiLayout

        Notes
        -----
        CSBDeep/CSBDeep_fiji, DefaultTiling.java. The size of a tile is taken of a whole-number quotient,
        which is how rows get lost: 97 rows in 3 tiles of 32.
        """
        spatial = [d for d, action in enumerate(actions) if action == SPATIAL]
        counts = [1] * len(shape)
        while math.prod(counts) < self.n_tiles:
            sizes = {d: _block(shape[d], counts[d], self.block_multiple) for d in spatial}
            large = {d: size for d, size in sizes.items() if size > self.block_multiple}
            if not large:
                break
            counts[max(large, key=lambda d: large[d])] += 1
        pad = [self.overlap if count > 1 else 0 for count in counts]
        blocks, order = list(shape), []
        batch = self.batch_size
        for d, action in enumerate(actions):
            if action == BATCH:
                counts[d] = math.ceil(np.float32(shape[d]) / np.float32(batch))
                batch = math.ceil(np.float32(shape[d]) / np.float32(counts[d]))
        for action, multiple in ((BATCH, batch), (SPATIAL, self.block_multiple)):
            for d in (d for d, name in enumerate(actions) if name == action):
                blocks[d] = _block(shape[d], counts[d], multiple)
                order.append(d)
        return FijiLayout(
            shape=tuple(shape),
            counts=tuple(counts),
            blocks=tuple(blocks),
            pad=tuple(pad),
            last=order[-1] if order else -1,
        )


def _block(size: int, count: int, multiple: int) -> int:
    return math.ceil(size // count / multiple) * multiple


@dataclass(frozen=True)
class FijiLayout:
    """The plugin's cut of one image; everything in the plugin's order of dimensions, fastest first.

    Attributes
    ----------
    shape : tuple of int
        Sizes of the image.
    counts : tuple of int
        Tiles (or batches) along each dimension.
    blocks : tuple of int
        Size of a tile without margins.
    pad : tuple of int
        Margin a side.
    last : int
        The dimension that was filled up last; outside it is mirrored once, where all others are mirrored
        twice.
    """

    shape: tuple[int, ...]
    counts: tuple[int, ...]
    blocks: tuple[int, ...]
    pad: tuple[int, ...]
    last: int

    @property
    def filled(self) -> tuple[int, ...]:
        """Sizes after filling up; smaller than `shape` where rows are lost."""
        return tuple(count * block for count, block in zip(self.counts, self.blocks, strict=True))

    @property
    def lost(self) -> tuple[int, ...]:
        """Rows at the far end of each dimension that never reach the network."""
        return tuple(max(0, size - filled) for size, filled in zip(self.shape, self.filled, strict=True))

    def seams(self, dimension: int) -> list[int]:
        """First pixel after each border between two tiles along a dimension."""
        return [number * self.blocks[dimension] for number in range(1, self.counts[dimension])]

    def positions(self) -> Iterator[tuple[int, ...]]:
        """Places in the grid of tiles in the order of the plugin: first dimension fastest."""
        for reverse in np.ndindex(*self.counts[::-1]):
            yield reverse[::-1]

    def source(self, dimension: int, number: int) -> NDArray[np.intp]:
        """Which rows of the image a tile sees along a dimension, margins and mirroring included."""
        block, pad = self.blocks[dimension], self.pad[dimension]
        wanted = np.arange(number * block - pad, (number + 1) * block + pad)
        if dimension != self.last:
            wanted = mirrored(wanted, self.filled[dimension])
        return mirrored(wanted, self.shape[dimension])

    def read(self, image: NDArray[Any], position: Sequence[int]) -> NDArray[Any]:
        """The tile that the network is given."""
        for dimension, number in enumerate(position):
            image = take_rows(image, self.source(dimension, number), dimension)
        return image


def mirrored(positions: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Positions brought into 0..size-1 by mirroring, edge repeated: imglib2's `extendMirrorDouble`."""
    positions = np.mod(positions, 2 * size)
    return np.where(positions < size, positions, 2 * size - 1 - positions)


def take_rows(image: NDArray[Any], rows: NDArray[np.intp], dimension: int) -> NDArray[Any]:
    """Rows of an image along a dimension; a view where they follow each other.

    Keeps the first dimension fastest in memory, as images in the plugin's order have it.
    """
    if rows.size == 1 or bool(np.all(np.diff(rows) == 1)):
        return image[(slice(None),) * dimension + (slice(int(rows[0]), int(rows[-1]) + 1),)]
    return np.take(image.T, rows, axis=image.ndim - 1 - dimension).T


def run_fiji_tiles(
    layout: FijiLayout, image: NDArray[Any], network: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Run a network that keeps sizes over the plugin's tiles, and put the results together as the plugin
    does.

    Parameters
    ----------
    layout : FijiLayout
    image : ndarray
        Dimensions in the layout's order; further ones (channels) last.
    network : callable
        Tile in, result out, the same order; the further dimensions may change.

    Returns
    -------
    ndarray
        Sizes of the image; lost rows hold the mirrored result.
    """
    merged: NDArray[Any] | None = None
    for position in layout.positions():
        result = network(layout.read(image, position))
        if merged is None:
            merged = np.empty((*layout.filled, *result.shape[len(layout.shape) :]), result.dtype, order="F")
        kept = tuple(slice(pad, pad + block) for pad, block in zip(layout.pad, layout.blocks, strict=True))
        where = tuple(
            slice(n * block, (n + 1) * block) for n, block in zip(position, layout.blocks, strict=True)
        )
        merged[where] = result[kept]
    assert merged is not None
    for dimension, size in enumerate(layout.shape):
        merged = take_rows(merged, mirrored(np.arange(size), layout.filled[dimension]), dimension)
    return merged
