"""Where patches come from, and which images show the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PatchOrigin:
    """Where each of n patches comes from, and its scale.

    Attributes
    ----------
    image : ndarray of int32, shape (n,)
        Which image pair.
    position : ndarray of int64, shape (n, d)
        First pixel along the space axes of the patches.
    source_range, target_range : ndarray of float64, shape (n, 2, channels)
        Raw values that became 0 and 1; empty (n, 0, 0) where patches are not normalised.
    group : ndarray of int32, shape (n,), optional
        Image pairs that show the same pixels have the same number here: they are split as one image. None: every
        pair shows its own.
    """

    image: NDArray[np.int32]
    position: NDArray[np.int64]
    source_range: NDArray[np.float64]
    target_range: NDArray[np.float64]
    group: NDArray[np.int32] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        if self.group is None:
            object.__setattr__(self, "group", self.image)

    def __len__(self) -> int:
        return len(self.image)

    def select(self, indices: NDArray[np.intp]) -> PatchOrigin:
        """Those of some patches."""
        return PatchOrigin(*(getattr(self, name)[indices] for name in self.__dataclass_fields__))


def shared_groups(fingerprints: Sequence[str], images: Sequence[str]) -> NDArray[np.int32]:
    """Which pairs belong together: those of equal target, or of equal clean image, or linked by others.

    Parameters
    ----------
    fingerprints : sequence of str
        Of each pair's target, see `fingerprint`.
    images : sequence of str
        What each pair shows, see `ImagePair.image`; "" where that is not known.

    Returns
    -------
    ndarray of int32
        The number of each group's first pair.
    """
    group = np.arange(len(fingerprints), dtype=np.int32)
    for names in (fingerprints, images):
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            if name:
                other = group[first.setdefault(name, index)]
                pair = sorted((int(other), int(group[index])))
                group[group == pair[1]] = pair[0]
    return group
