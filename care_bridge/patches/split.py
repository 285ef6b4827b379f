"""Which patches validate: never one that shares a pixel with a training patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError

By = Literal["auto", "image", "block"]

FRACTION = 0.1
"""Share of the patches that validates."""


def split_patches(
    image: NDArray[Any],
    position: NDArray[Any],
    *,
    patch_size: Sequence[int],
    fraction: float = FRACTION,
    by: By = "auto",
    gap_px: int = 0,
    seed: int = 0,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose validation patches by whole images, or by a block of every image.

    Parameters
    ----------
    image : ndarray of int, shape (n,)
        Which image each patch was cut from; one number for images that show the same pixels
        (`PatchOrigin.group`).
    position : ndarray of int, shape (n, d)
        Its first pixel in that image.
    patch_size : sequence of int, length d
    fraction : float
        Share of the patches, 0-1, that is to validate. By image it is met as closely as whole images allow.
    by : {"auto", "image", "block"}
        "image" holds whole images out. "block" holds out one end of every image, and drops the patches
        that lie across the border. "auto" takes "image" where an image is no more than twice the fraction.
    gap_px : int
        Pixels between training and validation blocks, 0 or more; the drop keeps them apart anyway.
    seed : int

    Returns
    -------
    training, validation : ndarray of int
        Indices of patches, in rising order. With "block", patches across the border are in neither.

    Raises
    ------
    InputError
        If the fraction is not within 0-1, or no such split exists.
    """
    image, position = np.asarray(image), np.asarray(position)
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction must lie between 0 and 1; received {fraction}")
    images, counts = np.unique(image, return_counts=True)
    rng = np.random.default_rng(seed)
    if by == "auto":
        by = "image" if len(images) > 1 and counts.min() <= 2 * fraction * len(image) else "block"
    if by == "image":
        held = _images(images, counts, fraction, rng)
        validates = np.isin(image, held)
        return np.flatnonzero(~validates), np.flatnonzero(validates)
    if by != "block":
        raise InputError(f"by={by!r} is none of 'auto', 'image', 'block'")
    training, validation = [], []
    for one in images:
        mine = np.flatnonzero(image == one)
        kept, held = _block(position[mine], np.asarray(patch_size), fraction, gap_px, bool(rng.integers(2)))
        training.append(mine[kept])
        validation.append(mine[held])
    train, valid = np.sort(np.concatenate(training)), np.sort(np.concatenate(validation))
    if not len(train) or not len(valid):
        raise InputError(
            f"no block of the images holds {100 * fraction:g} % of the {len(image)} patches apart from the others "
            f"(patch_size {tuple(int(size) for size in patch_size)}); take smaller patches, larger or more images"
        )
    return train, valid


def _images(
    images: NDArray[Any], counts: NDArray[Any], fraction: float, rng: np.random.Generator
) -> NDArray[Any]:
    if len(images) < 2:
        raise InputError("a split by image needs at least two images; use by='block' for one")
    order = rng.permutation(len(images))
    shares = np.cumsum(counts[order]) / counts.sum()
    n = 1 + int(np.argmin(np.abs(shares[:-1] - fraction)))
    return images[order[:n]]


def _block(
    position: NDArray[Any], size: NDArray[Any], fraction: float, gap_px: int, from_the_end: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices on both sides of a border, along the axis and at the place that cost least.

    The cost of a border is how far the share that validates is from `fraction`, in units of it, plus the share
    that lies across.
    """
    n = len(position)
    cost, best = np.inf, (np.arange(n), np.zeros(0, np.intp))
    for axis in range(position.shape[1]):
        start = position[:, axis]
        if from_the_end:
            start = -start - size[axis]  # mirrored, so that validation is always the lower end
        in_order = np.sort(start)
        borders = np.unique(start) + size[axis]
        held = np.searchsorted(in_order, borders - size[axis], side="right")
        kept = n - np.searchsorted(in_order, borders + gap_px, side="left")
        costs = np.abs(held / np.maximum(held + kept, 1) / fraction - 1) + (n - held - kept) / n
        costs[kept == 0] = np.inf
        least = int(np.argmin(costs))
        if costs[least] < cost:
            cost = float(costs[least])
            border = borders[least]
            best = (
                np.flatnonzero(start >= border + gap_px),
                np.flatnonzero(start + size[axis] <= border),
            )
    return best
