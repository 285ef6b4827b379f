"""What predicts: a network (tensor in, tensor out) and a predictor (image in, image out), wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.images import Image

Tensor = NDArray[np.float32]


@dataclass(frozen=True)
class Runtime:
    """What executed a prediction.

    Attributes
    ----------
    name : str
        `keras`, `tensorflow`, `onnx`, `tf1`, `imagej` or `fiji`.
    versions : mapping of str to str
        Versions of everything that takes part, e.g. ``{"tensorflow": "1.15.0", "java": "17.0.9"}``.
    level : str
        How much of Fiji is really there: `fiji`, `imagej`, `tf1`, `emulation`, or "" for Python's own way.
    """

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    level: str = ""

    def __str__(self) -> str:
        versions = ", ".join(f"{key} {value}" for key, value in self.versions.items())
        label = f"{self.name} ({versions})" if versions else self.name
        return f"{label}, level {self.level}" if self.level else label


@runtime_checkable
class Network(Protocol):
    """The bare network: float32, channels last, no normalisation, no tiles.

    Attributes
    ----------
    runtime : Runtime
    input_shape, output_shape : tuple of int or None
        As written in the signature: batch, spatial sizes, channels; None = any size. The output of a projection
        net has one dimension less.
    """

    @property
    def runtime(self) -> Runtime: ...
    @property
    def input_shape(self) -> tuple[int | None, ...]: ...
    @property
    def output_shape(self) -> tuple[int | None, ...]: ...
    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """Anything that restores an image and says what it is."""

    @property
    def runtime(self) -> Runtime: ...
    def predict(self, image: Image) -> Image: ...


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
    """
    if applications < 1:
        raise InputError(f"applications must be at least 1; received {applications}")
    for application in range(applications):
        if application:
            image = mean_channels(image, like=source)
        source = image
        image = predictor.predict(image)
        yield image


def mean_channels(image: Image, *, like: Image) -> Image:
    """Keep the first channels of a result, as many as the net's input had: the means of a probabilistic net.

    Parameters
    ----------
    image : Image
        A result.
    like : Image
        The input that gave it.
    """
    if "C" not in image.axes:
        return image
    axis = image.axes.index("C")
    wanted = like.data.shape[like.axes.index("C")] if "C" in like.axes else 1
    if image.data.shape[axis] != 2 * wanted:
        return image
    data = np.take(image.data, range(wanted), axis=axis)
    if "C" in like.axes:
        return image.replace(data=data)
    return image.replace(data=data.squeeze(axis), axes=image.axes.replace("C", ""))
