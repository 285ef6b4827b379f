"""An image: pixels, axis letters and pixel size, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.errors import InputError


@dataclass(frozen=True)
class Channel:
    """What a file says of a channel.

    Attributes
    ----------
    name : str
        E.g. of the dye; "" where nobody says.
    colour : str
        RRGGBB as viewers show it; "" where nobody says.
    """

    name: str = ""
    colour: str = ""


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels with their meaning.

    Attributes
    ----------
    data : ndarray
        One dimension a letter of `axes`; integers or floats.
    axes : str
        Letters of STCZYX, slowest first, as NumPy orders them.
    pixel_size_um : mapping of str to float
        Micrometres a pixel for the space axes that are calibrated; empty when nothing is known.
    frame_interval_s : float, optional
        Seconds a frame; None when unknown.
    unit : str
        How the file that the image came from spells its unit of length; written again when saved.
    name : str
        Title, usually the file's name.
    has_widths : bool
        Whether the second half of the channels are the widths of a probabilistic network's means, the first half. Who
        predicted says so; counting channels cannot tell them from those of a network that gives twice as many.
    normalized : bool
        Whether the values lie on a network's scale (about 0 to 1) and not on the raw range of what was restored.
    channels : tuple of Channel
        What is known of each channel; empty where nothing is, or where there are more or fewer channels than that.
    """

    data: NDArray[Any]
    axes: str
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_interval_s: float | None = None
    unit: str = "micron"
    name: str = ""
    has_widths: bool = False
    normalized: bool = False
    channels: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if isinstance(self.data, np.memmap):
            data = self.data  # asarray would drop that it is mapped
        if data.dtype.kind not in "buif":
            raise InputError(f"image {self.name!r} holds {data.dtype}; integers or floats can be restored")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "axes", check_axes(self.axes, ndim=data.ndim))
        if len(self.channels) != self.size("C"):
            object.__setattr__(self, "channels", ())

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def size(self, axis: str) -> int:
        """Size along an axis; 1 where the image has no such axis."""
        return self.data.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def middle_plane(self) -> NDArray[Any]:
        """The plane to look at, shape (Y, X): of the first series, frame and channel the middle Z."""
        volume: NDArray[Any] = move_axes(self.data, self.axes, "STCZYX")[0, 0, 0]
        plane: NDArray[Any] = volume[volume.shape[0] // 2]
        return plane

    def replace(self, **changes: Any) -> Image:
        """The same image with some attributes changed."""
        return dataclasses.replace(self, **changes)


def only_channel(image: Image, channel: int | None) -> Image:
    """One channel of an image, as an image without channels; None takes the image as it is.

    Parameters
    ----------
    image : Image
        One without an axis C has channel 0 only.
    channel : int, optional
        From 0.

    Raises
    ------
    InputError
        If there is no such channel.
    """
    if channel is None:
        return image
    check_channel(channel, image.size("C"), name=image.name)
    if "C" not in image.axes:
        return image
    index = tuple(channel if letter == "C" else slice(None) for letter in image.axes)
    return image.replace(
        data=image.data[index],
        axes=image.axes.replace("C", ""),
        channels=image.channels[channel : channel + 1],
    )


def check_channel(channel: int, n: int, *, name: str) -> None:
    """Refuse a channel, counted from 0, that is none of n."""
    if not 0 <= channel < n:
        has = f"channels 0-{n - 1}" if n > 1 else "one channel, 0"
        raise InputError(f"channel={channel} is not in {name!r}, which has {has} (they are counted from 0)")
