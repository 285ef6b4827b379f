"""An image that stays on the disk: its meaning is known, its pixels are read box by box."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.images.image import Channel, Image, check_channel
from care_bridge.memory import free_bytes

Index = int | slice


@dataclass(frozen=True, eq=False)
class Volume:
    """Pixels on the disk with their meaning; sliced like an array, a box is read.

    Attributes
    ----------
    path : Path
    axes : str
        Letters of STCZYX, slowest first.
    shape : tuple of int
    dtype : dtype
        In the machine's byte order.
    read_box : callable
        Pixels of one slice a dimension, each with a start and a stop.
    block : tuple of int
        What is read and decoded as a whole, in pixels a dimension.
    pixel_size_um, frame_interval_s, unit, name, channels
        As of `Image`.
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read_box: Callable[[tuple[slice, ...]], NDArray[Any]]
    block: tuple[int, ...]
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_interval_s: float | None = None
    unit: str = "micron"
    name: str = ""
    channels: tuple[Channel, ...] = ()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def size(self, axis: str) -> int:
        """Size along an axis; 1 where the image has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def __getitem__(self, index: Any) -> NDArray[Any]:
        places = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in places:
            at = places.index(Ellipsis)
            places[at : at + 1] = [slice(None)] * (self.ndim - len(places) + 1)
        places += [slice(None)] * (self.ndim - len(places))
        box: list[slice] = []
        then: list[Index] = []
        for place, size in zip(places, self.shape, strict=True):
            if isinstance(place, slice):
                start, stop, step = place.indices(size)
                if step < 1:
                    raise IndexError(f"{place} goes backwards; pixels on a disk are read forwards")
                box.append(slice(start, max(start, stop)))
                then.append(slice(None, None, step))
            else:
                number = range(size)[place]
                box.append(slice(number, number + 1))
                then.append(0)
        return self.read_box(tuple(box))[tuple(then)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.read().data, dtype)

    def read(self) -> Image:
        """The whole image.

        Raises
        ------
        InputError
            If it is larger than the memory that is free, or cannot be decoded.
        """
        if self.nbytes > free_bytes():
            raise InputError(
                f"{str(self.path)!r} holds {self.nbytes / 2**30:.3g} GiB of pixels (shape {self.shape}, {self.dtype}), "
                "more than there is memory; predict restores it piece by piece (--out NAME.ome.zarr), for all else cut "
                "it into parts"
            )
        return Image(
            data=self.read_box(tuple(slice(0, size) for size in self.shape)),
            axes=self.axes,
            pixel_size_um=self.pixel_size_um,
            frame_interval_s=self.frame_interval_s,
            unit=self.unit,
            name=self.name,
            channels=self.channels,
        )

    def only_channel(self, channel: int | None) -> Volume:
        """One channel as a volume without channels, as `images.only_channel`; None takes the volume as it is."""
        if channel is None:
            return self
        check_channel(channel, self.size("C"), name=self.name)
        if "C" not in self.axes:
            return self
        at = self.axes.index("C")

        def read_box(box: tuple[slice, ...]) -> NDArray[Any]:
            whole = (*box[:at], slice(channel, channel + 1), *box[at:])
            return self.read_box(whole).squeeze(at)

        return dataclasses.replace(
            self,
            axes=self.axes.replace("C", ""),
            shape=(*self.shape[:at], *self.shape[at + 1 :]),
            block=(*self.block[:at], *self.block[at + 1 :]),
            read_box=read_box,
            channels=self.channels[channel : channel + 1],
        )
