"""An image restored piece by piece: which pieces there are, and each of them as it is within the whole.

A piece is a tile of one frame, cut as the prediction in memory cuts with the same `n_tiles`. It reads its own halo, is
normalised by the range of the whole image, and gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.defaults import MEMORY_GIB
from care_bridge.errors import InputError
from care_bridge.images import Image, Volume
from care_bridge.network_predictor import NetworkPredictor, is_out_of_memory
from care_bridge.normalize import FIJI, Undo, normalize_by, undo_of_blocks
from care_bridge.predictor import Tensor
from care_bridge.progress import Progress, silent
from care_bridge.tiling import CsbdeepTiles, FijiTiles, core_px, cut_axis

Box = tuple[slice, ...]
Cut = tuple[slice, slice, slice]

_BASE_GIB = 0.85
# Measured with U-Nets of 8 and 32 features in Keras, 2-D and 3-D: 22 to 25 bytes a pixel and feature of the first layer.
_BYTES_PER_FEATURE = 30
_BYTES_BESIDE = 48  # of the tiles that are read ahead, normalised, and written behind
_FEATURES = 32
_LEAST_PX = 1 << 16
_PASS_PX = 1 << 22


class Pieces:
    """How a volume is restored by a predictor.

    Parameters
    ----------
    predictor : NetworkPredictor
        Its options are followed; tiles other than `CsbdeepTiles` are refused. Where there are none, so many are taken
        as memory asks for.
    volume : Volume
    memory_gib : float
        For the process; what TensorFlow takes by itself is included.

    Attributes
    ----------
    n_tiles : dict of str to int
        Along each axis of the network but channels.
    n : int
        How many pieces there are.
    axes, shape : str, tuple of int
        Of the result, as the prediction in memory gives it.
    cores : dict of str to int
        Pixels of a piece along each axis of the result; all but the last ones of an axis are as long.
    """

    def __init__(
        self, predictor: NetworkPredictor, volume: Volume, *, memory_gib: float = MEMORY_GIB
    ) -> None:
        self.predictor, self.volume = predictor, volume
        if isinstance(predictor.options.tiles, FijiTiles):
            raise InputError("the plugin's tiles follow the whole image; piece by piece csbdeep's are cut")
        self.frames = "".join(letter for letter in volume.axes if letter not in predictor.axes)
        space = predictor.space
        sizes = [volume.size(letter) for letter in space]
        channels = volume.size("C")
        predictor.check_channels(channels, volume.axes, volume.shape)
        self._pads = predictor.pads(sizes)
        self._filled = [
            size + before + after for size, (before, after) in zip(sizes, self._pads, strict=True)
        ]
        self.n_tiles = self._counts(memory_gib)
        lost = predictor.lost_axis
        if self.n_tiles.get(lost, 1) > 1:
            raise InputError(f"n_tiles: {lost} is projected by this network and cannot be cut")
        self._along: list[list[Cut]] = [
            list(
                cut_axis(
                    filled,
                    self.n_tiles[letter],
                    predictor.halo[letter],
                    predictor.size_multiple[letter],
                    pad=pad,
                )
            )
            for letter, filled, pad in zip(space, self._filled, self._pads, strict=True)
        ]
        self._frames_shape = tuple(volume.size(letter) for letter in self.frames)
        self._grid = (*self._frames_shape, *map(len, self._along))
        self.n = math.prod(self._grid)
        given = predictor.channels_out(channels)
        self.axes = volume.axes.replace(lost or "?", "")
        if "C" not in self.axes and given > 1:
            self.axes += "C"
        self.shape = tuple(given if letter == "C" else volume.size(letter) for letter in self.axes)
        self.cores = {
            letter: min(size, self._core(letter)) for letter, size in zip(self.axes, self.shape, strict=True)
        }

    def _core(self, letter: str) -> int:
        if letter in self.frames:
            return 1
        if letter == "C":
            return self.shape[self.axes.index("C")]
        at = self.predictor.space.index(letter)
        return core_px(self._filled[at], self.n_tiles[letter], self.predictor.size_multiple[letter])

    def _counts(self, memory_gib: float) -> dict[str, int]:
        predictor, space = self.predictor, self.predictor.space
        tiles = predictor.options.tiles
        if isinstance(tiles, CsbdeepTiles):
            given = tiles.counts(self.volume.axes, cut=space)
            return {letter: given.get(letter, 1) for letter in space}
        features = predictor.features or _FEATURES
        most = max(
            _LEAST_PX,
            int((memory_gib - _BASE_GIB) * 2**30) // (_BYTES_PER_FEATURE * features + _BYTES_BESIDE),
        )
        return _fitting(
            dict(zip(space, self._filled, strict=True)),
            dict(zip(space, self._pads, strict=True)),
            predictor.halo,
            predictor.size_multiple,
            cut="".join(letter for letter in "ZYX" if letter in space and letter != predictor.lost_axis),
            most_px=most,
        )

    # --- the range of the whole

    def ranges(self, progress: Progress = silent) -> list[Undo]:
        """The range that pixels are normalised by: of the whole, or of each frame; none where no rule is followed."""
        options = self.predictor.options
        if options.rule is None:
            return []
        each: list[tuple[int, ...] | None] = [None]
        if options.normalize_by == "frame":
            each = [tuple(place) for place in np.ndindex(*self._frames_shape)]
        pooled = options.rule is FIJI
        return [
            undo_of_blocks(
                lambda frame=frame: self._blocks(frame, pooled, progress),  # type: ignore[misc]
                dtype=self.volume.dtype,
                channels=1 if pooled else self.volume.size("C"),
                rule=options.rule,
                pmin=options.pmin,
                pmax=options.pmax,
            )
            for frame in each
        ]

    def _blocks(
        self, frame: tuple[int, ...] | None, pooled: bool, progress: Progress
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        volume = self.volume
        edges = list(volume.block)
        for number in reversed(range(volume.ndim)):
            fits = max(1, _PASS_PX // math.prod(edges))
            edges[number] = min(volume.shape[number], edges[number] * fits)
        begin = [0] * volume.ndim
        shape = list(volume.shape)
        if frame is not None:
            for letter, place in zip(self.frames, frame, strict=True):
                at = volume.axes.index(letter)
                begin[at], shape[at], edges[at] = place, 1, 1
        counts = [-(-size // edge) for size, edge in zip(shape, edges, strict=True)]
        n, channel = math.prod(counts), volume.axes.find("C")
        for done, block in enumerate(np.ndindex(*counts), start=1):
            box = tuple(
                slice(start + number * edge, start + min((number + 1) * edge, size))
                for number, edge, size, start in zip(block, edges, shape, begin, strict=True)
            )
            data = volume.read_box(box)
            if pooled or channel < 0:
                yield 0, data
            else:
                for number in range(data.shape[channel]):
                    yield box[channel].start + number, data.take(number, axis=channel)
            progress(done, n, "looking at grey levels")

    # --- one piece

    def place(self, number: int) -> tuple[tuple[int, ...], list[Cut]]:
        """The frame of a piece and its cut along each axis of the network."""
        index = np.unravel_index(number, self._grid) if self._grid else ()
        n = len(self.frames)
        frame = tuple(int(place) for place in index[:n])
        return frame, [along[int(place)] for along, place in zip(self._along, index[n:], strict=True)]

    def box(self, number: int) -> Box:
        """Where the result of a piece lies in the whole, along `axes`."""
        frame, cuts = self.place(number)
        where = {letter: slice(place, place + 1) for letter, place in zip(self.frames, frame, strict=True)}
        for letter, (_, _, write), (before, _) in zip(self.predictor.space, cuts, self._pads, strict=True):
            where[letter] = slice(write.start - before, write.stop - before)
        return tuple(
            slice(0, size) if letter == "C" else where[letter]
            for letter, size in zip(self.axes, self.shape, strict=True)
        )

    def prepare(self, number: int, ranges: Sequence[Undo]) -> Prepared:
        """What the network is given for a piece: read with its halo, reflected at the image's ends, normalised."""
        predictor, (frame, cuts) = self.predictor, self.place(number)
        rows = [
            np.pad(np.arange(self.volume.size(letter)), pad, mode="reflect")[read]
            for letter, pad, (read, _, _) in zip(predictor.space, self._pads, cuts, strict=True)
        ]
        where = {letter: slice(place, place + 1) for letter, place in zip(self.frames, frame, strict=True)}
        for letter, wanted in zip(predictor.space, rows, strict=True):
            where[letter] = slice(int(wanted.min()), int(wanted.max()) + 1)
        box = tuple(
            slice(0, size) if letter == "C" else where[letter]
            for letter, size in zip(self.volume.axes, self.volume.shape, strict=True)
        )
        part = Image(
            self.volume.read_box(box),
            self.volume.axes,
            self.volume.pixel_size_um,
            channels=self.volume.channels,
        )
        data = predictor.in_order(part)[1]
        data = data.reshape(data.shape[len(self.frames) :])
        undo = ranges[_at(frame, self._frames_shape) if len(ranges) > 1 else 0] if ranges else None
        tensor: Tensor
        if undo is None:
            tensor = data.astype(np.float32)
        else:
            tensor = normalize_by(data, undo, axes=predictor.axes, clip=predictor.options.clip)
        for axis, (letter, wanted) in enumerate(zip(predictor.space, rows, strict=True)):
            if len(wanted) != tensor.shape[axis] or (np.diff(wanted) != 1).any():
                tensor = tensor.take(wanted - where[letter].start, axis=axis)
        return Prepared(number, np.ascontiguousarray(tensor[np.newaxis]), part, undo)

    def restore(self, prepared: Prepared) -> Image:
        """The result of a piece, along `axes`, as the prediction in memory has it there.

        Raises
        ------
        MemoryError
            If it does not do for the network.
        """
        predictor, (_, cuts) = self.predictor, self.place(prepared.number)
        try:
            result = predictor.network(prepared.tensor)[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"it does not do for tiles of {' x '.join(map(str, prepared.tensor.shape[1:-1]))}; give more of them "
                "(--n-tiles), or less memory (--memory), which makes them smaller"
            ) from error
        kept = tuple(
            inner
            for letter, (_, inner, _) in zip(predictor.space, cuts, strict=True)
            if letter != predictor.lost_axis
        )
        result = result[kept]
        if prepared.undo is not None:
            result = predictor.undone(result, prepared.undo)
        data = result.reshape((1,) * len(self.frames) + result.shape)
        return predictor.as_image(data, self.frames, prepared.part)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network is given for a piece, shape (1, [z,] y, x, channel), and what leads back from its result."""

    number: int
    tensor: Tensor
    part: Image
    undo: Undo | None


def _at(frame: tuple[int, ...], shape: tuple[int, ...]) -> int:
    number = 0
    for place, size in zip(frame, shape, strict=True):
        number = number * size + place
    return number


def _fitting(
    filled: dict[str, int],
    pads: dict[str, tuple[int, int]],
    halo: dict[str, int],
    multiple: dict[str, int],
    *,
    cut: str,
    most_px: int,
) -> dict[str, int]:
    """Tiles of which the network is given at most so many pixels at once, as alike along all axes as can be."""
    counts = dict.fromkeys(filled, 1)

    def read_px(letter: str) -> int:
        first = next(
            cut_axis(filled[letter], counts[letter], halo[letter], multiple[letter], pad=pads[letter])
        )
        return int(first[0].stop - first[0].start)

    while math.prod(map(read_px, filled)) > most_px:
        cores = {letter: core_px(filled[letter], counts[letter], multiple[letter]) for letter in cut}
        # A core far below its halo costs more than it saves.
        able = [
            letter
            for letter in cut
            if cores[letter] > max(multiple[letter], min(halo[letter], filled[letter]) // 2)
        ]
        if not able:
            break
        longest = max(able, key=read_px)
        smaller = cores[longest] - multiple[longest]
        counts[longest] = -(-filled[longest] // smaller)
    return counts
