"""Restores images with any network, as csbdeep does or as options say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.normalize import Undo, normalize
from care_bridge.predictor import Closable, Network, PredictOptions, Runtime, Sizes, Tensor
from care_bridge.progress import Progress, silent
from care_bridge.reach import LONGEST, measured_lost_axis, measured_receptive_field, measured_size_multiple
from care_bridge.tiling import BATCH, SPATIAL, CsbdeepTiles, FijiTiles, round_up, run_fiji_tiles


class NetworkPredictor(Closable):
    """Restores images with any network, as csbdeep does or as `options` say.

    Parameters
    ----------
    network : Network
    options : PredictOptions, optional
        None predicts as csbdeep.
    axes : str, optional
        What the network's dimensions after the batch mean, e.g. "YXC", "ZYXC", "TYXC". None reads it from the
        rank: "YXC" or "ZYXC".
    size_multiple : int or mapping of str to int, optional
        What sizes must be multiples of (2 to the power of the depth), one for all axes or by letter. None
        asks the network's attribute of this name, or else tries small sizes.
    halo : int or mapping of str to int, optional
        Receptive field in pixels a side. None asks the network's attribute of this name, or else measures
        it, when tiles of csbdeep are wanted.
    probabilistic : bool, optional
        Whether the second half of the output's channels are widths. None asks the network's attribute of this name;
        where nothing says so they are channels, however many.
    lost_axis : str, optional
        The axis that a projection network removes, "" for none. None: it is measured where the output has one
        dimension less.
    features : int, optional
        Channels of its first layer, by which tiles are made to fit memory; None where nobody says.

    Attributes
    ----------
    network, options, axes, features : as given
    on_retry : callable
        Told the number of tiles by axis letter before each try with more of them, when memory ran out.
    """

    def __init__(
        self,
        network: Network,
        options: PredictOptions | None = None,
        *,
        axes: str | None = None,
        size_multiple: Sizes | None = None,
        halo: Sizes | None = None,
        probabilistic: bool | None = None,
        lost_axis: str | None = None,
        features: int | None = None,
    ) -> None:
        self.network = network
        self.options = options or PredictOptions()
        rank = len(network.input_shape)
        if axes is None:
            if rank not in (4, 5):
                raise InputError(
                    f"a network with input shape {network.input_shape} needs its axes named, e.g. 'YXC'"
                )
            axes = "YXC" if rank == 4 else "ZYXC"
        self.axes = check_axes(axes)
        if "C" not in self.axes:
            self.axes += "C"
        if self.axes[-1] != "C" or len(self.axes) != rank - 1:
            raise InputError(
                f"axes {axes!r} do not fit a network with input shape {network.input_shape}; "
                f"give {rank - 2} letters of space or time, then C"
            )
        self.space = self.axes[:-1]
        self._size_multiple = size_multiple
        self._halo = halo
        said = getattr(network, "probabilistic", None) if probabilistic is None else probabilistic
        self.probabilistic = bool(said)
        self.on_retry: Callable[[Mapping[str, int]], None] = _untold
        self._lost_axis = lost_axis
        self.features = features

    @property
    def runtime(self) -> Runtime:
        """What executes the network."""
        return self.network.runtime

    @property
    def normalized(self) -> bool:
        """Whether results stay on the network's scale instead of going back to the raw range.

        They do if nobody wants it undone, and, as in csbdeep, if the network gives other channels than it takes:
        there is no way back to those.
        """
        if self.options.rule is None:
            return False
        return not self.options.denormalize or not self._undoes(self.network.output_shape[-1])

    def means_of(self, channels: int) -> int:
        """How many of a result's channels are no widths."""
        return channels // 2 if self.probabilistic and channels % 2 == 0 else channels

    def _undoes(self, channels: int | None) -> bool:
        wanted = self.network.input_shape[-1]
        return wanted is None or channels is None or self.means_of(channels) == wanted

    def with_options(self, options: PredictOptions) -> NetworkPredictor:
        """The same network with other options; what was measured of it is kept."""
        made = NetworkPredictor(
            self.network,
            options,
            axes=self.axes,
            size_multiple=self.size_multiple,
            halo=self._halo,
            probabilistic=self.probabilistic,
            lost_axis=self._lost_axis,
            features=self.features,
        )
        made.on_retry = self.on_retry
        return made

    def close(self) -> None:
        """End what runs the network."""
        self.network.close()

    @property
    def lost_axis(self) -> str:
        """The axis that a projection network removes; "" for any other network."""
        if self._lost_axis is None:
            self._lost_axis = measured_lost_axis(self.network, self.space, self.size_multiple)
        return self._lost_axis

    @property
    def size_multiple(self) -> dict[str, int]:
        """What sizes must be multiples of, by axis."""
        if self._size_multiple is None:
            self._size_multiple = self.network.size_multiple
        if self._size_multiple is None:
            self._size_multiple = measured_size_multiple(self.network, self.space)
        return _by_axis(self._size_multiple, self.space)

    @property
    def halo(self) -> dict[str, int]:
        """Receptive field in pixels a side, by axis."""
        if self._halo is None:
            self._halo = self.network.halo
        if self._halo is None:
            found = measured_receptive_field(self.network, self.space, self.size_multiple)
            # What sees the whole image is given the whole image: the halo is cut at its borders.
            self._halo = {axis: LONGEST if reach is None else reach for axis, reach in found.items()}
        return _by_axis(self._halo, self.space)

    def predict(self, image: Image, *, progress: Progress = silent) -> Image:
        """Restore an image.

        Parameters
        ----------
        image : Image
            Any order of axes. Axes that the network lacks are predicted one after another; axes of the
            network that the image lacks count as one pixel.
        progress : Progress
            Told after each tile or frame.

        Returns
        -------
        Image
            float32, axes in the order of the input; without the axis that a projection network removes;
            with a C last where the network gives several channels and the input had none. A probabilistic
            network gives the means, then the widths.

        Raises
        ------
        InputError
            If the number of channels is not the network's.
        MemoryError
            If memory runs out in the smallest tiles as well.

        Notes
        -----
        When memory runs out, the longest axis is cut in two, up to 8 times; tiles do not change the result.
        """
        options = self.options
        frames, data = self.in_order(image)
        stack = data.reshape((-1, *data.shape[len(frames) :]))
        whole: Undo | None = None
        if options.rule is None:
            stack = stack.astype(np.float32)
        elif options.normalize_by == "image":
            stack, whole = self._normalize(stack, self._stack_axes)
        run = self._runner(image, progress)
        if isinstance(options.tiles, FijiTiles) and (whole or options.rule is None):
            result = run(cast(Tensor, stack))
            undone = self.undone(result, whole) if whole else result
        else:
            results = []
            for number, frame in enumerate(stack):
                undo = whole
                if options.rule is not None and whole is None:
                    frame, undo = self._normalize(frame, self.axes)  # noqa: PLW2901
                restored = run(cast(Tensor, frame[np.newaxis]))[0]
                results.append(self.undone(restored, undo) if undo else restored)
                progress(number + 1, len(stack), "frames")
            undone = np.stack(results) if len(results) > 1 else results[0][np.newaxis]
        return self.as_image(undone.reshape((*data.shape[: len(frames)], *undone.shape[1:])), frames, image)

    def normalized_stack(self, image: Image) -> Tensor:
        """What the network is given of an image, before sizes are filled up: normalised over all frames.

        Parameters
        ----------
        image : Image
            As for `predict`.

        Returns
        -------
        ndarray of float32, shape (frame, [z,] y, x, channel)

        Raises
        ------
        InputError
            If the number of channels is not the network's.
        """
        frames, data = self.in_order(image)
        stack = data.reshape((-1, *data.shape[len(frames) :]))
        if self.options.rule is None:
            return stack.astype(np.float32)
        return self._normalize(stack, self._stack_axes)[0]

    @property
    def _stack_axes(self) -> str:
        return "T" + self.axes.replace("T", "S")

    def in_order(self, image: Image) -> tuple[str, NDArray[Any]]:
        """The axes that the network lacks, and the pixels with those first and the network's own behind."""
        frames = "".join(axis for axis in image.axes if axis not in self.axes)
        order = frames + self.axes
        missing = "".join(axis for axis in order if axis not in image.axes)
        data = image.data[(...,) + (np.newaxis,) * len(missing)]
        data = data.transpose([(image.axes + missing).index(axis) for axis in order])
        self.check_channels(data.shape[-1], image.axes, image.shape)
        return frames, data

    def channels_out(self, channels: int) -> int:
        """How many channels come out, where so many go in; the smallest image that can be is tried if nobody says."""
        given = self.network.output_shape[-1]
        if given is None:
            sizes = [self.size_multiple[axis] for axis in self.space]
            given = self.network(np.zeros((1, *sizes, channels), np.float32)).shape[-1]
        return given

    def check_channels(self, channels: int, axes: str, shape: tuple[int, ...]) -> None:
        """Refuse an image that has other channels than the network takes."""
        wanted = self.network.input_shape[-1]
        if wanted is not None and channels != wanted:
            hint = (
                "name the channel axis C, or take one channel"
                if wanted == 1
                else "give all of them along an axis C"
            )
            raise InputError(
                f"the network takes {wanted} channel{'s' * (wanted != 1)}, the image (axes {axes!r}, "
                f"shape {shape}) has {channels}; {hint}"
            )

    def _normalize(self, data: NDArray[Any], axes: str) -> tuple[Tensor, Undo]:
        options = self.options
        assert options.rule is not None
        return normalize(
            data, rule=options.rule, axes=axes, pmin=options.pmin, pmax=options.pmax, clip=options.clip
        )

    def undone(self, result: Tensor, undo: Undo) -> Tensor:
        """The network's result, of a stack or of one frame, on the raw range, where that is wanted and can be."""
        if not self.options.denormalize:
            return result
        axes = ("T" if result.ndim > len(self.axes) - len(self.lost_axis) else "") + self.axes.replace(
            "T", "S"
        )
        axes = axes.replace(self.lost_axis or "?", "")
        if not self._undoes(result.shape[-1]):
            return result
        means = self.means_of(result.shape[-1])
        restored = undo(result[..., :means], axes)
        if means == result.shape[-1]:
            return restored
        return np.concatenate([restored, undo(result[..., means:], axes, scale=True)], axis=-1)

    def as_image(self, data: Tensor, frames: str, image: Image) -> Image:
        """A result with the axes that the network lacks first, as an image with the axes of what was restored."""
        channels = data.shape[-1]
        axes = frames + self.axes.replace(self.lost_axis or "?", "")
        wanted = image.axes.replace(self.lost_axis or "?", "")
        if "C" not in wanted and data.shape[-1] > 1:
            wanted += "C"
        gone = [position for position, axis in enumerate(axes) if axis not in wanted]
        data = data.squeeze(tuple(gone))
        axes = "".join(axis for axis in axes if axis in wanted)
        data = data.transpose([axes.index(axis) for axis in wanted])
        sizes = {axis: size for axis, size in image.pixel_size_um.items() if axis in wanted}
        return image.replace(
            data=np.ascontiguousarray(data),
            axes=wanted,
            pixel_size_um=sizes,
            has_widths=self.means_of(channels) < channels,
            normalized=self.normalized,
        )

    def _runner(self, image: Image, progress: Progress) -> Callable[[Tensor], Tensor]:
        tiles = self.options.tiles
        if isinstance(tiles, FijiTiles):
            return lambda tensor: self._run_fiji(tensor, tiles)
        by_axis = None
        if tiles is not None:
            counts = tiles.counts(image.axes, cut=self.space)
            by_axis = CsbdeepTiles({axis: count for axis, count in counts.items() if axis in self.space})
        return lambda tensor: self._run_padded(tensor, by_axis, progress)

    def _run_fiji(self, tensor: Tensor, tiles: FijiTiles) -> Tensor:
        # The plugin's order of dimensions is the reverse of NumPy's, channels aside.
        if self.lost_axis:
            raise InputError(
                "FijiTiles cut a projection network's input in ways only EmulatedPlugin follows; use that"
            )
        front = tuple(range(len(self.space), -1, -1))
        image = tensor.transpose(*front, tensor.ndim - 1)
        layout = tiles.layout(image.shape[:-1], [SPATIAL] * len(self.space) + [BATCH])

        def network(tile: NDArray[Any]) -> NDArray[Any]:
            result = self.network(np.ascontiguousarray(tile.transpose(*front, tile.ndim - 1)))
            return result.transpose(*front, result.ndim - 1)

        return run_fiji_tiles(layout, image, network).transpose(*front, image.ndim - 1)

    def _run_padded(self, tensor: Tensor, tiles: CsbdeepTiles | None, progress: Progress) -> Tensor:
        pads = self.pads(tensor.shape[1:-1])
        if any(map(any, pads)):
            tensor = np.pad(tensor, ((0, 0), *pads, (0, 0)), mode="reflect")
        result = self._run_within_memory(tensor, tiles, pads, progress)
        kept = [
            slice(before, before + size - before - after)
            for (before, after), size, axis in zip(pads, tensor.shape[1:-1], self.space, strict=True)
            if axis != self.lost_axis
        ]
        return result[(slice(None), *kept)]

    def pads(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """How many reflected pixels are added before and behind each axis of the network, without channels."""
        multiple, border = self.size_multiple, self.options.border_px
        found = []
        for size, axis in zip(sizes, self.space, strict=True):
            more = round_up(size + 2 * border, multiple[axis]) - size - 2 * border
            found.append((border + more // 2, border + more - more // 2))
        return found

    def _run_within_memory(
        self, tensor: Tensor, tiles: CsbdeepTiles | None, pads: Sequence[tuple[int, int]], progress: Progress
    ) -> Tensor:
        counts = tiles.counts(self.space, cut=self.space) if tiles is not None else {}
        sizes = dict(zip(self.space, tensor.shape[1:-1], strict=True))
        for attempt in range(_MOST_RETRIES + 1):
            try:
                if max(counts.values(), default=1) == 1:
                    return self.network(tensor)
                return self._run_tiles(tensor, CsbdeepTiles(counts), pads, progress)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if attempt == _MOST_RETRIES:
                    given_up = ", ".join(f"{count} along {axis}" for axis, count in counts.items())
                    raise MemoryError(f"it does not do even for tiles: {given_up}") from error
            longest = max(
                (axis for axis in self.space if axis != self.lost_axis),
                key=lambda axis: sizes[axis] / counts.get(axis, 1),
            )
            counts = {**counts, longest: 2 * counts.get(longest, 1)}
            self.on_retry(counts)
        raise AssertionError("the last attempt returns or raises")

    def _run_tiles(
        self, tensor: Tensor, tiles: CsbdeepTiles, pads: Sequence[tuple[int, int]], progress: Progress
    ) -> Tensor:
        space, counts = self.space, tiles.counts(self.space, cut=self.space)
        if counts.get(self.lost_axis, 1) > 1:
            raise InputError(f"n_tiles: {self.lost_axis} is projected by this network and cannot be cut")
        pieces = CsbdeepTiles(counts).split(
            tensor.shape[1:-1], space, halo=self.halo, size_multiple=self.size_multiple, pads=pads
        )
        kept = [number for number, axis in enumerate(space) if axis != self.lost_axis]
        out: Tensor | None = None
        for number, piece in enumerate(pieces):
            result = self.network(np.ascontiguousarray(tensor[(slice(None), *piece.read)]))
            if out is None:
                sizes = [tensor.shape[1 + position] for position in kept]
                out = np.empty((tensor.shape[0], *sizes, result.shape[-1]), np.float32)
            inner = tuple(piece.inner[position] for position in kept)
            write = tuple(piece.write[position] for position in kept)
            out[(slice(None), *write)] = result[(slice(None), *inner)]
            progress(number + 1, len(pieces), "tiles")
        assert out is not None
        return out


_MOST_RETRIES = 8
"""How often the number of tiles is doubled when memory runs out, as csbdeep does."""


def _untold(counts: Mapping[str, int]) -> None:
    """Nobody asked."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether what a network raised says that memory ran out, whichever runtime runs it."""
    text = str(error)
    return isinstance(error, MemoryError) or "OOM" in text or "RESOURCE_EXHAUSTED" in text


def _by_axis(sizes: Sizes, space: str) -> dict[str, int]:
    if isinstance(sizes, int):
        return dict.fromkeys(space, sizes)
    return {axis: int(sizes.get(axis, 1)) for axis in space}
