"""Noise2Void: patches of noisy images in which some pixels are hidden, to be told from the pixels around them.

Where the noise of a pixel says nothing of its neighbours', a network that is to give back a pixel that it does not see can
give back no more than what is under the noise (Krull, Buchholz, Jug 2019). Batches hang on (seed, step) alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.training.batches import Batch

STEPS, VALIDATION, SPLIT = range(6, 9)
"""Second entry of the seeds, as in `batches` (0, 1) and `streams` (2 to 5)."""

_MOST_TRIES = 64
_NEAR = 4.0
_AT_ONCE = 1 << 12

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NoisyImage:
    """A noisy image and which rows of it may be looked at.

    Attributes
    ----------
    pixels : ndarray, shape (..., [z,] y, x, channel)
        As read; mapped files stay on the disk. What leads is frames, and planes of a 2-D network.
    rows : (int, int)
        First row, and the one after the last.
    name : str
        Of the file.
    """

    pixels: NDArray[Any]
    rows: tuple[int, int]
    name: str

    def planes(self, n_space: int) -> Iterator[NDArray[Any]]:
        """What a patch may be cut from, shape ([z,] row, x, channel), one after another."""
        lead: tuple[int, ...] = self.pixels.shape[: -1 - n_space]
        for number in range(math.prod(lead)):
            index: Any = np.unravel_index(number, lead) if lead else ()
            plane = self.pixels[index]
            yield plane[..., self.rows[0] : self.rows[1], :, :]

    def only(self, first: int, last: int) -> NoisyImage:
        """The same image with fewer rows."""
        return NoisyImage(self.pixels, (first, last), self.name)


class BlindSpots:
    """Batches of patches with blind spots, drawn anew for each step; see `batches.BatchSource`.

    Parameters
    ----------
    images : sequence of NoisyImage
    config : CareConfig
        Its means and stds scale the patches; its n2v_* say what is hidden and how.
    patch_size : sequence of int
        ([z,] y, x).
    """

    def __init__(self, images: Sequence[NoisyImage], config: CareConfig, patch_size: Sequence[int]) -> None:
        assert config.means is not None
        assert config.stds is not None
        self.images, self.config, self.patch_size = list(images), config, tuple(patch_size)
        self._mean, self._std = np.asarray(config.means, np.float32), np.asarray(config.stds, np.float32)
        n = len(self.patch_size)
        areas = [
            math.prod(image.pixels.shape[: -1 - n]) * (image.rows[1] - image.rows[0]) * image.pixels.shape[-2]
            for image in self.images
        ]
        self._cumulative = np.cumsum(np.asarray(areas, float) / sum(areas))

    def batch_at(self, step: int, *, size: int, seed: int, purpose: int = STEPS) -> Batch:
        """Patches with blind spots, and behind the true values of their channels a mask each.

        Shapes (size, [z,] y, x, channel) and (size, [z,] y, x, 2 channels).
        """
        rng = np.random.default_rng([seed, purpose, step])
        patches = np.stack([self._cut(rng) for _ in range(size)])
        return hide((patches - self._mean) / self._std, self.config, rng)

    def fingerprint(self) -> str:
        """Of a few patches: does a resumed run have the same images and the same blind spots?"""
        digest = hashlib.sha256()
        for array in self.batch_at(0, size=4, seed=0):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _cut(self, rng: np.random.Generator) -> Float32:
        image = self.images[int(np.searchsorted(self._cumulative[:-1], rng.random(), side="right"))]
        n = len(self.patch_size)
        lead, space = image.pixels.shape[: -1 - n], image.pixels.shape[-1 - n : -1]
        index: list[Any] = [int(rng.integers(size)) for size in lead]
        for place, (size, wanted) in enumerate(zip(space, self.patch_size, strict=True)):
            low, high = image.rows if place == n - 2 else (0, size)
            start = int(rng.integers(low, high - wanted + 1))
            index.append(slice(start, start + wanted))
        return np.asarray(image.pixels[tuple(index)], np.float32)


# --- hiding


def hide(patches: Float32, config: CareConfig, rng: np.random.Generator) -> Batch:
    """Put something else into some pixels, and tell where and what was there.

    Parameters
    ----------
    patches : ndarray, shape (n, [z,] y, x, channel)
        Normalised.
    config : CareConfig
        Its n2v_* say what is hidden and how.
    rng : numpy.random.Generator

    Returns
    -------
    Batch
        The patches with blind spots, and the whole ones with a mask of their blind spots behind: one channel of it a
        channel, all alike.

    Notes
    -----
    One spot a box, at a random place in it (stratified sampling of n2v, internals/N2V_DataWrapper.py), at the same
    places in all channels: noise that channels share is hidden with it. n2v draws places for each channel, and takes
    boxes of sqrt(100 / n2v_perc_pix) in 3-D too, which hides fewer than it says; here the share is right in both.
    """
    spots = draw_spots(patches.shape, config.n2v_perc_pix, rng)
    target = np.concatenate([patches, np.zeros_like(patches)], axis=-1)
    mask: Any = (*spots, slice(patches.shape[-1], None))
    target[mask] = 1
    source = patches.copy()
    hidden = struct_offsets(config)
    source[spots] = stand_ins(
        patches, spots, config.n2v_manipulator, radius=config.n2v_neighborhood_radius, hidden=hidden, rng=rng
    )
    if len(hidden):
        index, inside = _around(patches.shape, spots, hidden)
        places = tuple(axis[inside] for axis in index)
        # n2v: a flat distribution on the normalised scale, which resembles no neighbour.
        source[places] = rng.uniform(-2, 2, (len(places[0]), patches.shape[-1]))
    return source, target


def blind_box(perc_pix: float, n_dim: int) -> int:
    """Edge of the boxes that hold a blind spot each, in pixels."""
    return max(2, round(float((100 / perc_pix) ** (1 / n_dim))))


def struct_offsets(config: CareConfig) -> NDArray[np.intp]:
    """What is hidden with a blind spot, as offsets from it, shape (n, n_dim); the spot itself is none of them."""
    return offsets_of(config.n2v_structmask, config.n_dim)


def offsets_of(mask: Any, n_dim: int) -> NDArray[np.intp]:
    """The same of a mask alone: nested sequences of 0 and 1, of odd sizes; None hides nothing."""
    if mask is None:
        return np.empty((0, n_dim), np.intp)
    mask = np.array(mask)
    middle = np.array(mask.shape) // 2
    mask[tuple(middle)] = 0
    return np.asarray(np.argwhere(mask) - middle, np.intp)


def neighbourhood(config: CareConfig) -> NDArray[np.intp]:
    """From where a manipulator takes what it puts into a blind spot, as offsets, shape (n, n_dim).

    Empty for those that look at no neighbourhood of `n2v_neighborhood_radius`.

    Raises
    ------
    InputError
        If a mask of structN2V hides all of it.
    """
    return _neighbourhood(
        config.n2v_manipulator, config.n2v_neighborhood_radius, struct_offsets(config), config.n_dim
    )


def _neighbourhood(manipulator: str, radius: int, hidden: NDArray[np.intp], n_dim: int) -> NDArray[np.intp]:
    if manipulator not in _MANIPULATORS:
        return np.empty((0, n_dim), np.intp)
    offsets = np.indices((2 * radius + 1,) * n_dim).reshape(n_dim, -1).T - radius
    left_out = {tuple(one) for one in hidden.tolist()}
    if manipulator in _WITHOUT_CENTRE:
        left_out.add((0,) * n_dim)
    kept = np.array([one for one in offsets.tolist() if tuple(one) not in left_out], np.intp)
    if not len(kept):
        raise InputError(
            f"n2v_structmask hides all pixels within n2v_neighborhood_radius={radius}, so nothing is left to put into a "
            "blind spot; give a larger radius, or a smaller mask"
        )
    return kept


Spots = tuple[NDArray[np.intp], ...]
"""Indices of blind spots: of the patch, then of the pixel."""


def draw_spots(shape: tuple[int, ...], perc_pix: float, rng: np.random.Generator) -> Spots:
    """One pixel a box, at random places.

    Parameters
    ----------
    shape : tuple of int
        (n, [z,] y, x, channel).
    perc_pix : float
        Percent of the pixels.
    rng : numpy.random.Generator
    """
    space = shape[1:-1]
    box = blind_box(perc_pix, len(space))
    boxes = np.indices((shape[0], *(-(-size // box) for size in space))).reshape(1 + len(space), -1)
    places = boxes[1:] * box + rng.integers(0, box, (len(space), boxes.shape[1]))
    inside = (places < np.asarray(space)[:, None]).all(axis=0)
    return tuple(np.concatenate([boxes[:1], places])[:, inside])


def stand_ins(
    patches: Float32,
    spots: Spots,
    manipulator: str,
    *,
    radius: float,
    hidden: NDArray[np.intp],
    rng: np.random.Generator,
) -> Float32:
    """What is put into blind spots, shape (spots, channel).

    Parameters
    ----------
    patches : ndarray, shape (n, [z,] y, x, channel)
        Normalised.
    spots : tuple of ndarray
        As `draw_spots` gives them.
    manipulator : str
        One of `config.Manipulator`.
    radius : float
        Pixels a side that it looks at, a whole number; for `normal_additive` the deviation of what is added.
    hidden : ndarray of int, shape (n, n_dim)
        Offsets of pixels that are hidden with a spot, so that none of them is taken.
    rng : numpy.random.Generator

    Notes
    -----
    Names and what they do are those of n2v, utils/n2v_utils.py.
    """
    own: Float32 = patches[spots]
    if manipulator == "identity":
        return own
    if manipulator == "normal_additive":
        return np.asarray(own + radius * rng.standard_normal(own.shape), np.float32)
    if manipulator == "normal_withoutCP":
        return _near(patches, spots, hidden, rng)
    around = _neighbourhood(manipulator, int(radius), hidden, patches.ndim - 2)
    return _MANIPULATORS[manipulator](patches, spots, around, rng)


def _around(
    shape: tuple[int, ...], spots: Sequence[NDArray[np.intp]], offsets: NDArray[np.intp]
) -> tuple[tuple[NDArray[np.intp], ...], NDArray[np.bool_]]:
    """Indices of pixels around each spot, shape (spots, offsets), and which of them lie in the patch."""
    index = [np.broadcast_to(spots[0][:, None], (len(spots[0]), len(offsets)))]
    inside = np.ones(index[0].shape, bool)
    for axis, (place, size) in enumerate(zip(spots[1:], shape[1:-1], strict=True)):
        at = place[:, None] + offsets[None, :, axis]
        inside &= (at >= 0) & (at < size)
        index.append(np.clip(at, 0, size - 1))
    return tuple(index), inside


def _near(patches: Float32, spots: Spots, hidden: NDArray[np.intp], rng: np.random.Generator) -> Float32:
    """A pixel about `_NEAR` pixels off, neither the spot itself nor hidden with it; beyond the border is the border."""
    last = np.asarray(patches.shape[1:-1])[:, None] - 1
    here = np.stack(spots[1:])
    found = here.copy()
    never = np.concatenate([np.zeros((1, len(here)), np.intp), hidden])
    left = np.arange(here.shape[1])
    for _ in range(_MOST_TRIES):
        off = np.round(rng.normal(0, _NEAR, (len(here), len(left)))).astype(np.intp)
        found[:, left] = np.clip(here[:, left] + off, 0, last)
        again = (found[:, left] - here[:, left]).T[:, None, :] == never[None]
        left = left[again.all(axis=2).any(axis=1)]
        if not len(left):
            break
    return np.asarray(patches[(spots[0], *found)])


def _uniform(patches: Float32, spots: Spots, offsets: NDArray[np.intp], rng: np.random.Generator) -> Float32:
    """A pixel of the neighbourhood, each with the same chance; what lies outside of the patch is drawn again."""
    sizes = np.asarray(patches.shape[1:-1])[:, None]
    here = np.stack(spots[1:])
    found = here.copy()
    left = np.arange(here.shape[1])
    for _ in range(_MOST_TRIES):
        found[:, left] = here[:, left] + offsets[rng.integers(0, len(offsets), len(left))].T
        left = left[((found[:, left] < 0) | (found[:, left] >= sizes)).any(axis=0)]
        if not len(left):
            break
    # A corner whose neighbourhood is hidden: any pixel of the patch.
    found[:, left] = rng.integers(0, sizes, (len(sizes), len(left)))
    return np.asarray(patches[(spots[0], *found)])


def _by_window(
    reckon: Callable[[Float32, NDArray[np.bool_]], Float32],
) -> Callable[[Float32, Spots, NDArray[np.intp], np.random.Generator], Float32]:
    def manipulate(
        patches: Float32, spots: Spots, offsets: NDArray[np.intp], rng: np.random.Generator
    ) -> Float32:
        parts = []
        for first in range(0, len(spots[0]), _AT_ONCE):
            some = tuple(one[first : first + _AT_ONCE] for one in spots)
            index, inside = _around(patches.shape, some, offsets)
            parts.append(reckon(patches[index], inside))
        return np.concatenate(parts)

    return manipulate


def _mean(window: Float32, inside: NDArray[np.bool_]) -> Float32:
    weight = inside[..., None] / np.maximum(inside.sum(axis=1), 1)[:, None, None]
    return np.asarray((window * weight).sum(axis=1), np.float32)


def _median(window: Float32, inside: NDArray[np.bool_]) -> Float32:
    ordered = np.sort(np.where(inside[..., None], window, np.float32(np.inf)), axis=1)
    count = np.maximum(inside.sum(axis=1), 1)
    rows = np.arange(len(count))
    return np.asarray((ordered[rows, (count - 1) // 2] + ordered[rows, count // 2]) / 2, np.float32)


def _normal(patches: Float32, spots: Spots, offsets: NDArray[np.intp], rng: np.random.Generator) -> Float32:
    """A normal distribution with the mean and the deviation of the neighbourhood."""
    mean = _by_window(_mean)(patches, spots, offsets, rng)
    square = _by_window(_mean)(patches**2, spots, offsets, rng)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.asarray(mean + spread * rng.standard_normal(mean.shape), np.float32)


_WITHOUT_CENTRE = ("uniform_withoutCP", "mean", "median")
_MANIPULATORS: dict[str, Callable[[Float32, Spots, NDArray[np.intp], np.random.Generator], Float32]] = {
    "uniform_withCP": _uniform,
    "uniform_withoutCP": _uniform,
    "normal_fitted": _normal,
    "mean": _by_window(_mean),
    "median": _by_window(_median),
}
