"""What predicts: a network (tensor in, tensor out) and a predictor (image in, image out), anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.normalize import CSBDEEP, PercentileRule
from care_bridge.tiling import CsbdeepTiles, FijiTiles

Tensor = NDArray[np.float32]
Sizes = int | Mapping[str, int]


@dataclass(frozen=True)
class Runtime:
    """What executed a prediction.

    Attributes
    ----------
    name : str
        `keras`, `tensorflow`, `onnx`, `tf1`, `imagej`, `imagej-onnx` or `fiji`.
    versions : mapping of str to str
        Versions of everything that takes part, e.g. ``{"tensorflow": "1.15.0", "java": "17.0.9"}``.
    level : str
        How much of Fiji is really there: `fiji`, `imagej`, `tf1`, `onnx`, `emulation`, or "" for Python's own way.
    """

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    level: str = ""

    def __str__(self) -> str:
        versions = ", ".join(f"{key} {value}" for key, value in self.versions.items())
        label = f"{self.name} ({versions})" if versions else self.name
        return f"{label}, level {self.level}" if self.level else label


class Closable:
    """A context manager that `close` ends; inherited by what holds nothing that must be ended."""

    def close(self) -> None:
        """End what runs the network, such as a worker process; here there is nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class UnhintedNetwork(Closable):
    """What is inherited by a network that knows neither its size multiple nor its reach: they are measured.

    Attributes
    ----------
    size_multiple, halo : None
        See `Network`.
    probabilistic : bool or None
        Whether the second half of the output's channels are widths, where the file says so.
    """

    size_multiple: Sizes | None = None
    halo: Sizes | None = None
    probabilistic: bool | None = None


@runtime_checkable
class Network(Protocol):
    """The bare network: float32, channels last, no normalisation, no tiles; a context manager.

    Attributes
    ----------
    runtime : Runtime
    input_shape, output_shape : tuple of int or None
        As written in the signature: batch, spatial sizes, channels; None = any size. The output of a
        projection net has one dimension less.
    size_multiple : int or mapping of str to int, or None
        What sizes must be multiples of, one for all axes or by letter; None where it is not known.
    halo : int or mapping of str to int, or None
        Receptive field in pixels a side; None where it is not known.

    Notes
    -----
    A class of your own inherits `UnhintedNetwork` and adds what is left.
    """

    @property
    def runtime(self) -> Runtime: ...
    @property
    def input_shape(self) -> tuple[int | None, ...]: ...
    @property
    def output_shape(self) -> tuple[int | None, ...]: ...
    @property
    def size_multiple(self) -> Sizes | None: ...
    @property
    def halo(self) -> Sizes | None: ...
    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out."""
        ...

    def close(self) -> None:
        """End what runs it, such as a worker process, where that is its own."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...


@runtime_checkable
class Predictor(Protocol):
    """Anything that restores an image and says what it is; a context manager.

    Attributes
    ----------
    runtime : Runtime
    network : Network or None
        The network behind it; None where only images go in and out.
    options : object
        How images are brought to the network: `PredictOptions`, or the plugin's `PluginOptions`; None where
        there are none.

    Notes
    -----
    A class of your own inherits `ImagesOnly` and adds `runtime` and `predict`.
    """

    @property
    def runtime(self) -> Runtime: ...
    @property
    def network(self) -> Network | None: ...
    @property
    def options(self) -> object: ...
    def predict(self, image: Image) -> Image:
        """Restore an image."""
        ...

    def close(self) -> None:
        """End what runs it, such as a worker process, where that is its own."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...


class ImagesOnly(Closable):
    """What is inherited by a predictor that shows no network and has no options, such as a filter.

    Attributes
    ----------
    network, options : None
        See `Predictor`.
    """

    network: None = None
    options: object = None


@runtime_checkable
class HasVariants(Protocol):
    """A predictor whose normalisation and tiles can be chosen: `plugin.emulation.EmulatedPlugin` and its kin."""

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> Predictor:
        """The same network, with or without normalisation, in other tiles."""
        ...


def apply_repeatedly(predictor: Predictor, image: Image, *, applications: int) -> Iterator[Image]:
    """Feed a predictor its own output.

    Parameters
    ----------
    predictor : Predictor
    image : Image
    applications : int
        How many times in a row, at least 1.

    Yields
    ------
    Image
        The result of each application, the first one first. Of a probabilistic net's (mean, scale) channels
        only the mean is fed on, because the net has as many input channels as means.

    Raises
    ------
    InputError
        If the image is to be restored less than once; before anything is computed, if more than once and the network
        cannot take its own result.
    """
    if applications < 1:
        raise InputError(f"applications must be at least 1; received {applications}")
    if applications > 1 and (reason := not_again(predictor)):
        raise InputError(f"applications={applications} (--applications): {reason}; give 1")
    for application in range(applications):
        result = predictor.predict(image)
        yield result
        if application + 1 < applications:
            image = mean_channels(result, like=image)


def on_network_scale(predictor: Predictor) -> bool:
    """Whether a predictor's results stay on the network's scale, about 0 to 1, instead of the raw range."""
    said = getattr(predictor, "normalized", None)
    return bool(getattr(predictor.options, "normalizeInput", False) if said is None else said)


def not_again(predictor: Predictor) -> str:
    """Why a predictor cannot be fed its own result; "" if it can, or if that is not known."""
    network = predictor.network
    if network is None:
        return ""
    taken, given = network.input_shape[-1], network.output_shape[-1]
    if taken is None or given is None:
        return ""
    if getattr(predictor, "probabilistic", None):
        given //= 2
    if taken == given:
        return ""
    return f"the network takes {_channels(taken)} and gives {given}, so it cannot be fed its own result"


def _channels(n: int) -> str:
    return f"{n} channel{'s' * (n != 1)}"


def mean_channels(image: Image, *, like: Image) -> Image:
    """The means of a probabilistic net's result, which are the first half of its channels; any other as it is.

    Parameters
    ----------
    image : Image
        A result; it says itself whether it `has_widths`.
    like : Image
        The input that gave it: without an axis C there, a single mean has none either.

    Returns
    -------
    Image
        The result itself where it has no widths.
    """
    if not image.has_widths or "C" not in image.axes:
        return image
    axis = image.axes.index("C")
    count = image.shape[axis] // 2
    data = np.take(image.data, range(count), axis=axis)
    if "C" in like.axes or count > 1:
        return image.replace(data=data, has_widths=False)
    return image.replace(data=data.squeeze(axis), axes=image.axes.replace("C", ""), has_widths=False)


def scale_channels(image: Image, *, like: Image) -> Image | None:
    """The widths of a probabilistic net's result, in the shape of its means; None where it has none.

    Parameters
    ----------
    image, like : Image
        As for `mean_channels`.
    """
    means = mean_channels(image, like=like)
    if means is image:
        return None
    axis = image.axes.index("C")
    count = image.shape[axis] // 2
    widths = np.take(image.data, range(count, 2 * count), axis=axis)
    return means.replace(data=widths.reshape(means.shape))


@dataclass(frozen=True)
class PredictOptions:
    """How an image is brought to a network and back.

    Attributes
    ----------
    rule : PercentileRule, optional
        Whose percentile normalisation; None feeds the pixels as they are.
    pmin, pmax : float, optional
        Percentiles, 0-100; None takes the rule's own default (csbdeep 2 and 99.8, Fiji 3 and 99.8).
    clip : bool
        Whether normalised values are cut off at 0 and 1.
    denormalize : bool
        Whether the result is brought back to the raw range. csbdeep does, the plugin does not.
    normalize_by : str
        "image" takes the percentiles over all frames, "frame" for each frame anew: for axes that the network
        lacks (S, T, and Z with a 2-D network), which are predicted one after another.
    tiles : CsbdeepTiles or FijiTiles, optional
        None gives the network the whole image at once. `FijiTiles` also fills up sizes the plugin's way:
        mirrored at the far end; otherwise csbdeep's: reflected, half before and half after.
    border_px : int
        Reflected border added on every side and cut off the result, against the zero padding of
        convolutions at the image's edge. csbdeep has none.
    """

    rule: PercentileRule | None = CSBDEEP
    pmin: float | None = None
    pmax: float | None = None
    clip: bool = False
    denormalize: bool = True
    normalize_by: Literal["image", "frame"] = "image"
    tiles: CsbdeepTiles | FijiTiles | None = None
    border_px: int = 0

    def __post_init__(self) -> None:
        if self.normalize_by not in ("image", "frame"):
            raise InputError(f"normalize_by={self.normalize_by!r} must be 'image' or 'frame'")
        if self.border_px < 0:
            raise InputError(f"border_px={self.border_px} must not be negative")

    def replace(self, **changes: Any) -> PredictOptions:
        """The same options with some changed."""
        return dataclasses.replace(self, **changes)
