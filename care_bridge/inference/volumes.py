"""Restoring stacks whose planes lie far apart: upsample along Z first, or look at the stack from two sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import Undo, normalize
from care_bridge.predictor import ImagesOnly, PredictOptions, Predictor, Runtime, Tensor, on_network_scale
from care_bridge.progress import Progress, silent
from care_bridge.tiling import CsbdeepTiles, FijiTiles, round_up


def upsample_z(data: NDArray[Any], *, axis: int, factor: float) -> NDArray[np.float32]:
    """Linear interpolation along one axis; first and last planes stay where they are.

    Parameters
    ----------
    data : ndarray
    axis : int
        Which dimension is Z.
    factor : float
        How many times as many planes, rounded.

    Notes
    -----
    What ``scipy.ndimage.zoom(order=1)`` computes, which csbdeep calls, but in floats also for integer images,
    where csbdeep rounds to whole grey levels.
    """
    planes = data.shape[axis]
    wanted = round(planes * factor)
    if wanted < 1:
        raise InputError(f"factor={factor:g} leaves none of {planes} planes; give the upsampling, e.g. 4")
    where = np.linspace(0, planes - 1, wanted) if wanted > 1 else np.zeros(1)
    below = np.minimum(where.astype(int), max(planes - 2, 0))
    weight = (where - below).reshape([-1 if dimension == axis else 1 for dimension in range(data.ndim)])
    low = data.take(below, axis=axis).astype(np.float32)
    high = data.take(np.minimum(below + 1, planes - 1), axis=axis).astype(np.float32)
    result: NDArray[np.float32] = (low * (1 - weight) + high * weight).astype(np.float32)
    return result


class UpsamplingPredictor(ImagesOnly):
    """Upsamples a stack along Z, then restores it (csbdeep's UpsamplingCARE).

    Parameters
    ----------
    predictor : Predictor
        In any runtime.
    factor : float
        Upsampling that the training data were made with.
    """

    def __init__(self, predictor: Predictor, *, factor: float) -> None:
        self.predictor = predictor
        self.options = predictor.options
        self.factor = _checked(factor)

    @property
    def runtime(self) -> Runtime:
        """What executes the network."""
        return self.predictor.runtime

    @property
    def normalized(self) -> bool:
        """Whether results stay on the network's scale."""
        return on_network_scale(self.predictor)

    def predict(self, image: Image) -> Image:
        """Restore a stack; the result has `factor` times as many planes."""
        data = upsample_z(image.data, axis=_z_of(image), factor=self.factor)
        return self.predictor.predict(_with_finer_z(image, data, self.factor))

    def close(self) -> None:
        """End what runs the network."""
        self.predictor.close()


class IsotropicPredictor(ImagesOnly):
    """Restores a stack to the same resolution along Z as in the plane (csbdeep's IsotropicCARE).

    Upsamples along Z, lets a 2-D network restore all slices along X and all slices along Y, and takes the
    geometric mean of both (of their positive parts); of a probabilistic network's widths the larger.

    Parameters
    ----------
    predictor : NetworkPredictor
        Of a 2-D network, in any runtime; its options are followed. `CsbdeepTiles` cut along Y and X, each with
        the halo that makes the result the same, and bound the memory: only one tile is upsampled at a time.
    factor : float
        Upsampling that the training data were made with.
    batch_size : int
        Slices at once.
    """

    def __init__(self, predictor: NetworkPredictor, *, factor: float, batch_size: int = 8) -> None:
        if predictor.space != "YX":
            raise InputError(f"an isotropic model has a 2-D network; this one's axes are {predictor.axes!r}")
        if isinstance(predictor.options.tiles, FijiTiles):
            raise InputError("the plugin has no isotropic prediction to follow; use CsbdeepTiles, or none")
        self.predictor = predictor
        self.options = predictor.options
        self.factor = _checked(factor)
        self.batch_size = batch_size

    @property
    def runtime(self) -> Runtime:
        """What executes the network."""
        return self.predictor.runtime

    @property
    def normalized(self) -> bool:
        """Whether results stay on the network's scale."""
        return self.predictor.normalized

    def predict(self, image: Image, *, progress: Progress = silent) -> Image:
        """Restore a stack; the result has `factor` times as many planes.

        Parameters
        ----------
        image : Image
            With axes Z, Y and X; C where the network has channels; others are predicted one after another.
        progress : Progress

        Returns
        -------
        Image
            float32, as `NetworkPredictor.predict` gives it.
        """
        _z_of(image)
        frames = "".join(letter for letter in image.axes if letter not in "ZYXC")
        order = frames + "ZYXC"
        missing = "C" if "C" not in image.axes else ""
        data = image.data[..., np.newaxis] if missing else image.data
        data = data.transpose([(image.axes + missing).index(letter) for letter in order])
        wanted = self.predictor.network.input_shape[-1]
        if wanted is not None and data.shape[-1] != wanted:
            raise InputError(
                f"the network takes {wanted} channels, the stack (axes {image.axes!r}, shape {image.shape}) "
                f"has {data.shape[-1]}; name the channel axis C and give {wanted}"
            )
        stacks = data.reshape((-1, *data.shape[len(frames) :]))
        restored = np.stack([self._restore(stack, progress) for stack in stacks])
        has_widths = self.predictor.means_of(restored.shape[-1]) < restored.shape[-1]
        restored = restored.reshape((*data.shape[: len(frames)], *restored.shape[1:]))
        axes = image.axes
        if missing:
            if restored.shape[-1] == 1:
                restored, order = restored[..., 0], order[:-1]
            else:
                axes += "C"
        restored = restored.transpose([order.index(letter) for letter in axes])
        finer = _with_finer_z(
            image.replace(data=np.zeros((1,) * len(axes)), axes=axes), restored, self.factor
        )
        return finer.replace(
            data=np.ascontiguousarray(restored), has_widths=has_widths, normalized=self.predictor.normalized
        )

    def close(self) -> None:
        """End what runs the network."""
        self.predictor.close()

    def _restore(self, stack: NDArray[Any], progress: Progress) -> Tensor:
        options, multiple = self.predictor.options, self.predictor.size_multiple
        undo: Undo | None = None
        if options.rule is None:
            stack = stack.astype(np.float32)
        else:
            stack, undo = normalize(
                stack, rule=options.rule, axes="ZYXC", pmin=options.pmin, pmax=options.pmax, clip=options.clip
            )
        tallest = max(multiple.values())
        planes = round(stack.shape[0] * self.factor)
        # csbdeep fills up all three axes, each of which is seen by the network from one side or the other.
        pads = [(0, 0), *(_pad(size, tallest) for size in stack.shape[1:3]), (0, 0)]
        padded = np.pad(stack, pads, mode="reflect")
        out = np.empty((0, 0, 0, 0), np.float32)
        tiles = self._tiles(padded.shape[1:3], tallest)
        for number, tile in enumerate(tiles):
            piece = upsample_z(padded[:, tile.read[0], tile.read[1]], axis=0, factor=self.factor)
            over = _pad(planes, tallest)
            piece = np.pad(piece, [over, (0, 0), (0, 0), (0, 0)], mode="reflect")
            result = self._two_sides(piece)[over[0] : over[0] + planes]
            if number == 0:
                out = np.empty((planes, *padded.shape[1:3], result.shape[-1]), np.float32)
            out[:, tile.write[0], tile.write[1]] = result[:, tile.inner[0], tile.inner[1]]
            progress(number + 1, len(tiles), "tiles")
        rows, columns = (
            slice(pad[0], pad[0] + size) for pad, size in zip(pads[1:3], stack.shape[1:3], strict=True)
        )
        return self._undo(out[:, rows, columns], undo)

    def _tiles(self, shape: tuple[int, ...], multiple: int) -> list[Any]:
        counts: dict[str, int] = {}
        if isinstance(self.predictor.options.tiles, CsbdeepTiles):
            given = self.predictor.options.tiles
            axes = "YX" if not isinstance(given.n_tiles, tuple) or len(given.n_tiles) == 2 else "ZYX"
            counts = given.counts(axes)
            if counts.get("Z", 1) > 1:
                raise InputError("n_tiles: an isotropic prediction is cut along Y and X, not Z; give 1 for Z")
        halo = max(self.predictor.halo.values())
        return CsbdeepTiles({letter: counts.get(letter, 1) for letter in "YX"}).split(
            shape, "YX", halo={"Y": halo, "X": halo}, size_multiple={"Y": multiple, "X": multiple}
        )

    def _two_sides(self, stack: Tensor) -> Tensor:
        # Slices along X show Y and Z reversed, slices along Y show X and Z, as csbdeep turns the stack.
        first = self._slices(stack.transpose(2, 1, 0, 3)[:, :, ::-1])[:, :, ::-1].transpose(2, 1, 0, 3)
        second = self._slices(stack.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)
        means = self.predictor.means_of(first.shape[-1])
        mean = np.sqrt(np.maximum(first[..., :means], 0) * np.maximum(second[..., :means], 0))
        return np.concatenate([mean, np.maximum(first[..., means:], second[..., means:])], axis=-1)

    def _slices(self, slices: Tensor) -> Tensor:
        network: Callable[[Tensor], Tensor] = self.predictor.network
        starts = range(0, len(slices), self.batch_size)
        return np.concatenate(
            [network(np.ascontiguousarray(slices[start : start + self.batch_size])) for start in starts]
        )

    def _undo(self, result: Tensor, undo: Undo | None) -> Tensor:
        channels = result.shape[-1]
        means = self.predictor.means_of(channels)
        if undo is None or not self.predictor.options.denormalize:
            return result
        if means != self.predictor.network.input_shape[-1]:
            return result
        parts = [undo(result[..., :means], "ZYXC"), undo(result[..., means:], "ZYXC", scale=True)]
        return np.concatenate(parts[: 1 + (means < channels)], axis=-1)


def of_kind(predictor: NetworkPredictor, config: CareConfig, *, factor: float | None = None) -> Predictor:
    """Wrap a network's predictor, in whatever runtime, into what its kind of model does around the network.

    Parameters
    ----------
    predictor : NetworkPredictor
    config : CareConfig
    factor : float, optional
        Upsampling along Z for UpsamplingCARE and IsotropicCARE; None takes the model's own.

    Raises
    ------
    InputError
        If a factor is needed and neither given nor in the model, or given and not needed.
    """
    if config.kind not in ("UpsamplingCARE", "IsotropicCARE"):
        if factor is not None:
            raise InputError(
                f"factor={factor:g} is for UpsamplingCARE and IsotropicCARE; this is a {config.kind}"
            )
        return predictor
    factor = config.factor if factor is None else factor
    if factor is None:
        raise InputError(
            f"a {config.kind} model needs the factor that Z is upsampled by, and its config.json has none; "
            "give the one that its training data were made with"
        )
    if config.kind == "UpsamplingCARE":
        return UpsamplingPredictor(predictor, factor=factor)
    return IsotropicPredictor(predictor, factor=factor)


def with_own_percentiles(options: PredictOptions, config: CareConfig) -> PredictOptions:
    """Fill in a model's own percentiles where none are given, whichever rule says how they are taken.

    A network with a mean and deviation of its own takes grey levels as they are: then there is no rule.

    Raises
    ------
    InputError
        If percentiles are given for such a network.
    """
    if options.rule is None:
        return options
    if config.own_scale is not None:
        if options.pmin is not None or options.pmax is not None:
            raise InputError(
                f"this network has its own {config.own_scale}, and takes no percentiles; leave them out"
            )
        return options.replace(rule=None)
    return options.replace(
        pmin=config.norm_pmin if options.pmin is None else options.pmin,
        pmax=config.norm_pmax if options.pmax is None else options.pmax,
    )


def _checked(factor: float) -> float:
    if not 0 < factor < float("inf"):
        raise InputError(f"factor={factor} must be above 0 and finite; give the upsampling along Z, e.g. 4")
    return float(factor)


def _z_of(image: Image) -> int:
    if "Z" not in image.axes:
        raise InputError(f"image {image.name!r} has axes {image.axes!r}; upsampling along Z needs a stack")
    return image.axes.index("Z")


def _with_finer_z(image: Image, data: NDArray[Any], factor: float) -> Image:
    sizes = dict(image.pixel_size_um)
    if "Z" in sizes:
        sizes["Z"] /= factor
    return image.replace(data=data, pixel_size_um=sizes)


def _pad(size: int, multiple: int) -> tuple[int, int]:
    more = round_up(size, multiple) - size
    return more // 2, more - more // 2
