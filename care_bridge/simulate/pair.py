"""A source and its target, with every value that was drawn on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.images import Image


@dataclass(frozen=True, eq=False)
class Pair:
    """A training pair.

    Attributes
    ----------
    source, target : Image
        Degraded and clean, of equal axes and shape.
    parameters : mapping
        Everything drawn or measured, e.g. ``{"gaussian.sigma": 0.02, "snr_db": 14.1}``.
    image, set : str
        Which clean image it came from, and which set of the recipe; pairs of one `image` belong on the same
        side of a training and validation split.
    """

    source: Image
    target: Image
    parameters: Mapping[str, Any] = field(default_factory=dict)
    image: str = ""
    set: str = ""

    @property
    def name(self) -> str:
        return f"{self.image}_{self.set}" if self.set else self.image

    def replace(self, **changes: Any) -> Pair:
        """The same pair with some attributes changed."""
        return dataclasses.replace(self, **changes)


def as_arrays(
    pairs: Iterable[Pair], *, axes: str | None = None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(source, target) as float32 arrays, e.g. for ``tf.data.Dataset.from_generator``.

    Parameters
    ----------
    pairs : iterable of Pair
    axes : str, optional
        Order of the dimensions; missing ones are added with size 1, so ``"YXC"`` gives channels last. None
        keeps each image's own.

    Yields
    ------
    source, target : ndarray of float32
        One pair after the other.
    """
    for pair in pairs:
        both = (pair.source, pair.target)
        first, second = (
            np.ascontiguousarray(
                image.data if axes is None else move_axes(image.data, image.axes, axes), dtype=np.float32
            )
            for image in both
        )
        yield first, second
