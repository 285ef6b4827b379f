"""Samples drawn from models: tubules, granules, nuclei, sarcomeres and a smooth background, with the truth
at hand.

Every function takes a shape in pixels and a seed, and returns float32 images whose brightest pixel is 1.
Lines and points are integrated over each pixel, so nothing depends on a drawing grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal, special

from care_bridge.errors import InputError

Image32 = NDArray[np.float32]
Seed = int | np.random.Generator
Points = NDArray[np.float64]

STEP_PX = 0.5


def tubules(
    shape: Sequence[int],
    *,
    seed: Seed,
    count: int | None = None,
    persistence_px: float = 100.0,
    width_px: float = 0.6,
    channels: int = 1,
    shared: float = 0.5,
) -> Image32:
    """Microtubule-like curves.

    Parameters
    ----------
    shape : sequence of int
        (y, x) or (z, y, x).
    seed : int or Generator
    count : int, optional
        Number of curves; None draws 20-60 per 512 x 512 pixels, at least 4.
    persistence_px : float
        Length over which a curve forgets its curvature.
    width_px : float
        Standard deviation of a curve's profile: below the pixel, as 25 nm objects are.
    channels : int
        1, or 2 for two stains of one sample.
    shared : float
        Share of the curves that both channels show, 0-1.

    Returns
    -------
    ndarray of float32
        Shape `shape`, or (channels, *shape) with more than one channel; brightest pixel of a channel 1.
    """
    size = _check_shape(shape)
    rng = np.random.default_rng(seed)
    if count is None:
        area = size[-1] * size[-2] / 512**2
        count = max(4, int(rng.integers(20, 61) * area))
    curves = [_curve(size, rng, persistence_px) for _ in range(count)]
    return _render(size, curves, np.full(count, width_px), rng=rng, channels=channels, shared=shared)


def _curve(
    size: tuple[int, ...], rng: np.random.Generator, persistence_px: float
) -> tuple[Points, NDArray[Any]]:
    """Points half a pixel apart, and their brightness."""
    lateral = float(np.hypot(size[-1], size[-2]))
    steps = int(rng.uniform(0.4, 1.6) * lateral / STEP_PX) + 2
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(_curvature(steps, rng, persistence_px)) * STEP_PX
    walk = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    if len(size) == 3:
        # Tubules of a flat cell: the slope stays small.
        slope = rng.uniform(-0.3, 0.3) + np.cumsum(_curvature(steps, rng, persistence_px)) * STEP_PX
        slope = 0.5 * np.tanh(slope)
        walk = np.concatenate([np.sin(slope)[:, None], walk * np.cos(slope)[:, None]], axis=1)
    points = np.cumsum(walk * STEP_PX, axis=0)
    points += rng.uniform(0, 1, size=len(size)) * np.array(size) - points[steps // 2]
    slow = ndimage.gaussian_filter1d(rng.standard_normal(steps), 40, mode="nearest")
    slow /= max(float(np.abs(slow).max()), 1e-12)
    return points, (rng.uniform(0.6, 1.0) * (1 + 0.2 * slow)) * STEP_PX


def _curvature(steps: int, rng: np.random.Generator, persistence_px: float) -> NDArray[np.float64]:
    # Ornstein-Uhlenbeck: dk = -k / L ds + s dW, with a stationary spread of 1/150 a pixel.
    decay = STEP_PX / persistence_px
    kick = np.sqrt(2 * decay) / 150
    noise = rng.standard_normal(steps)
    noise[0] /= np.sqrt(2 * decay)
    return np.asarray(np.clip(signal.lfilter([kick], [1, decay - 1], noise), -1 / 20, 1 / 20))


def _render(
    size: tuple[int, ...],
    objects: Sequence[tuple[Points, NDArray[Any]]],
    sigma_px: NDArray[np.float64],
    *,
    rng: np.random.Generator,
    channels: int,
    shared: float,
) -> Image32:
    """Draw objects into channels: some into every channel, the others into one each."""
    if channels < 1 or not 0 <= shared <= 1:
        raise InputError(f"channels must be 1 or more and shared 0-1; received {channels} and {shared}")
    common = rng.uniform(size=len(objects)) < shared
    only = rng.integers(0, channels, size=len(objects))
    planes = []
    for channel in range(channels):
        mine = [k for k in range(len(objects)) if channels == 1 or common[k] or only[k] == channel]
        points = np.concatenate([objects[k][0] for k in mine]) if mine else np.empty((0, len(size)))
        weights = np.concatenate([objects[k][1] for k in mine]) if mine else np.empty(0)
        sigmas = (
            np.concatenate([np.full(len(objects[k][1]), sigma_px[k]) for k in mine]) if mine else np.empty(0)
        )
        planes.append(_scaled(splat(size, points, weights=weights, sigma_px=sigmas)))
    return planes[0] if channels == 1 else np.stack(planes)


def splat(
    shape: Sequence[int], points: Points, *, weights: NDArray[Any], sigma_px: NDArray[Any] | float
) -> NDArray[np.float64]:
    """Sum of Gaussian spots, each integrated over the pixels that it touches.

    Parameters
    ----------
    shape : sequence of int
    points : ndarray, shape (n, ndim)
        Centres in pixels; the middle of the first pixel is 0.
    weights : ndarray, shape (n,)
        Total intensity of each spot.
    sigma_px : float or ndarray of shape (n,)
        Standard deviations.

    Returns
    -------
    ndarray of float64
        Spots outside the image, and their parts outside, are left out.
    """
    size = tuple(shape)
    total = np.zeros(int(np.prod(size)))
    if not len(points):
        return total.reshape(size)
    sigma = np.broadcast_to(np.asarray(sigma_px, dtype=np.float64), (len(points),))
    reach = int(np.ceil(4 * sigma.max()))
    near = np.all((points > -reach - 1) & (points < np.array(size) + reach), axis=1)
    points, weights, sigma = points[near], np.asarray(weights, dtype=np.float64)[near], sigma[near]
    offsets = np.arange(-reach, reach + 1)
    for start in range(0, len(points), 20_000):
        part = slice(start, start + 20_000)
        nearest = np.rint(points[part]).astype(np.int64)
        value, index, inside = weights[part], np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
        for axis, length in enumerate(size):
            place = nearest[:, axis, None] + offsets
            edge = (place - points[part][:, axis, None]) / (np.sqrt(2) * sigma[part][:, None])
            half = 0.5 / (np.sqrt(2) * sigma[part][:, None])
            share = 0.5 * (special.erf(edge + half) - special.erf(edge - half))
            tail = (1,) * axis
            value = value[..., None] * share.reshape(len(share), *tail, -1)
            index = index[..., None] * length + place.reshape(len(place), *tail, -1)
            inside = inside[..., None] & ((place >= 0) & (place < length)).reshape(len(place), *tail, -1)
        total += np.bincount(index[inside], weights=value[inside], minlength=total.size)
    return total.reshape(size)


def _scaled(data: NDArray[Any]) -> Image32:
    brightest = float(data.max(initial=0.0))
    return (data / brightest if brightest > 0 else data).astype(np.float32)


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    size = tuple(int(length) for length in shape)
    if len(size) not in (2, 3) or min(size) < 1:
        raise InputError(f"shape must be (y, x) or (z, y, x) in pixels; received {tuple(shape)}")
    return size
