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


def granules(
    shape: Sequence[int],
    *,
    seed: Seed,
    density: float | None = None,
    sigma_px: tuple[float, float] = (0.7, 1.2),
    cluster_share: float = 0.2,
    channels: int = 1,
    shared: float = 0.5,
) -> Image32:
    """Point-like vesicles, some of them closer together than a microscope resolves.

    Parameters
    ----------
    shape : sequence of int
        (y, x) or (z, y, x).
    seed : int or Generator
    density : float, optional
        Granules per 100 pixels of the image's area; None draws 0.5-4.
    sigma_px : tuple of float
        Smallest and largest standard deviation.
    cluster_share : float
        Share of the granules that get a neighbour 1-3 pixels away.
    channels, shared
        As for `tubules`.

    Returns
    -------
    ndarray of float32
        Brightness is log-normal, so most are dim; brightest pixel of a channel 1.
    """
    size = _check_shape(shape)
    rng = np.random.default_rng(seed)
    if density is None:
        density = float(rng.uniform(0.5, 4.0))
    count = max(1, round(density * size[-1] * size[-2] / 100))
    centres = rng.uniform(-0.5, np.array(size) - 0.5, size=(count, len(size)))
    partners = centres[rng.uniform(size=count) < cluster_share]
    direction = rng.standard_normal(partners.shape)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    centres = np.concatenate([centres, partners + direction * rng.uniform(1, 3, size=(len(partners), 1))])
    peak = rng.lognormal(0.0, 0.4, size=len(centres))
    sigma = rng.uniform(*sigma_px, size=len(centres))
    weight = peak * (np.sqrt(2 * np.pi) * sigma) ** len(size)
    objects = [(centre[None], np.array([value])) for centre, value in zip(centres, weight, strict=True)]
    return _render(size, objects, sigma, rng=rng, channels=channels, shared=shared)


def sarcomeres(
    shape: Sequence[int],
    *,
    seed: Seed,
    period_px: float = 20.0,
    fibril_px: float = 10.0,
    width_px: float = 1.0,
    channels: int = 1,
    shared: float = 0.5,
) -> Image32:
    """Labelled z-discs of heart muscle: short parallel bars at regular distances along myofibrils.

    Parameters
    ----------
    shape : sequence of int
        (y, x) or (z, y, x).
    seed : int or Generator
    period_px : float
        Mean distance of the discs along a myofibril; each image varies it by up to 10 %.
    fibril_px : float
        Width of a myofibril, hence length of a bar. Neighbours keep nearly the same phase, as in a muscle.
    width_px : float
        Standard deviation of a bar's profile.
    channels, shared
        As for `tubules`; what is shared are whole myofibrils.
    """
    size = _check_shape(shape)
    rng = np.random.default_rng(seed)
    direction = rng.uniform(0, np.pi)
    bend = rng.uniform(-0.4, 0.4) / max(size[-2:])
    period = period_px * rng.uniform(0.9, 1.1)
    reach = 0.75 * float(np.hypot(size[-1], size[-2]))
    centre = (np.array(size[-2:]) - 1) / 2
    layers = np.arange(0, size[0], fibril_px) if len(size) == 3 else np.zeros(1)
    objects = []
    for layer in layers:
        phase = rng.uniform(0, period)
        for offset in np.arange(-reach, reach, fibril_px):
            phase += rng.normal(0, 0.08 * period)
            along = np.arange(-reach, reach, period) + phase % period
            along = along + rng.normal(0, 0.03 * period, size=along.shape)
            bar = offset + np.arange(-0.42 * fibril_px, 0.42 * fibril_px, STEP_PX)
            u, v = (grid.ravel() for grid in np.meshgrid(along, bar, indexing="ij"))
            turned = direction + bend * u
            y = centre[0] + u * np.sin(turned) + v * np.cos(turned)
            x = centre[1] + u * np.cos(turned) - v * np.sin(turned)
            points = np.stack([y, x], axis=1)
            if len(size) == 3:
                deep = layer + np.arange(-0.42 * fibril_px, 0.42 * fibril_px, 1.0)
                z = np.repeat(deep, len(points))
                points = np.concatenate([z[:, None], np.tile(points, (len(deep), 1))], axis=1)
            objects.append((points, np.full(len(points), rng.uniform(0.5, 1.0))))
    widths = np.full(len(objects), width_px)
    return _render(size, objects, widths, rng=rng, channels=channels, shared=shared)


def nuclei(
    shape: Sequence[int],
    *,
    seed: Seed,
    count: int | None = None,
    radius_px: tuple[float, float] = (8.0, 14.0),
    voxel_aspect: float = 1.0,
    channels: int = 1,
    shared: float = 0.5,
) -> Image32:
    """Textured ellipsoids that do not touch: nuclei, with soft chromatin.

    Parameters
    ----------
    shape : sequence of int
        (z, y, x), or (y, x) for a section.
    seed : int or Generator
    count : int, optional
        Wanted number; fewer are placed when there is no more room. None fills about a fifth of the volume.
    radius_px : tuple of float
        Smallest and largest half axis, in lateral pixels.
    voxel_aspect : float
        Distance of planes over size of a pixel; 1 for isotropic volumes.
    channels, shared
        As for `tubules`.
    """
    size = _check_shape(shape)
    rng = np.random.default_rng(seed)
    scale = np.array([voxel_aspect if axis == 0 and len(size) == 3 else 1.0 for axis in range(len(size))])
    extent = np.array(size) * scale
    mean = sum(radius_px) / 2
    if count is None:
        ball = np.pi * mean**2 if len(size) == 2 else 4 / 3 * np.pi * mean**3
        count = max(1, round(0.2 * float(np.prod(extent)) / ball))
    placed: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for _ in range(20 * count):
        axes = rng.uniform(*radius_px, size=len(size))
        centre = rng.uniform(0, extent)
        if all(np.linalg.norm(centre - at) > 0.9 * (axes.mean() + other.mean()) for at, other in placed):
            placed.append((centre, axes))
        if len(placed) == count:
            break
    if channels < 1 or not 0 <= shared <= 1:
        raise InputError(f"channels must be 1 or more and shared 0-1; received {channels} and {shared}")
    volume = np.zeros((channels, *size))
    for centre, axes in placed:
        both, only = rng.uniform() < shared, int(rng.integers(channels))
        brightness, turn = rng.uniform(0.4, 1.0), rng.uniform(0, np.pi)
        window, inside = _ellipsoid(size, scale, centre, axes, turn)
        if inside.size:
            for channel in range(channels):
                if channels == 1 or both or channel == only:
                    part = volume[channel][window]
                    np.maximum(part, brightness * inside, out=part)
    planes = []
    for channel in range(channels):
        texture = perlin(size, seed=rng, period_px=max(mean / 2, 2.0), octaves=3)
        planes.append(_scaled(volume[channel] * (0.5 + 0.5 * texture)))
    return planes[0] if channels == 1 else np.stack(planes)


def _ellipsoid(
    size: tuple[int, ...], scale: NDArray[Any], centre: NDArray[Any], axes: NDArray[Any], turn: float
) -> tuple[tuple[slice, ...], NDArray[Any]]:
    """Where an ellipsoid lies, and how much of each pixel there it fills (soft over one pixel), 0-1."""
    reach = float(axes.max()) + 1
    window = tuple(
        slice(max(0, int((at - reach) / step)), min(length, int((at + reach) / step) + 2))
        for at, step, length in zip(centre, scale, size, strict=True)
    )
    grids = np.meshgrid(*[np.arange(part.start, part.stop) for part in window], indexing="ij")
    away = [grid * step - at for grid, step, at in zip(grids, scale, centre, strict=True)]
    y, x = away[-2], away[-1]
    away[-2], away[-1] = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    distance = np.sqrt(sum((part / half) ** 2 for part, half in zip(away, axes, strict=True)))
    return window, np.clip((1 - distance) * float(axes.min()) + 0.5, 0, 1)


def perlin(shape: Sequence[int], *, seed: Seed, period_px: float, octaves: int = 2) -> Image32:
    """Smooth random background: Perlin's gradient noise.

    Parameters
    ----------
    shape : sequence of int
        (y, x) or (z, y, x).
    seed : int or Generator
    period_px : float
        Distance of the lattice's nodes, hence size of the blobs.
    octaves : int
        Each further one has half the period and half the amplitude.

    Returns
    -------
    ndarray of float32
        Between 0 and 1, both reached (0 everywhere when the shape has a single pixel).

    Notes
    -----
    Perlin, SIGGRAPH 2002: random unit gradients at lattice nodes, blended with 6 t^5 - 15 t^4 + 10 t^3.
    """
    size = _check_shape(shape)
    if not period_px > 0 or octaves < 1:
        raise InputError(
            f"period_px must be above 0 and octaves 1 or more; received {period_px} and {octaves}"
        )
    rng = np.random.default_rng(seed)
    total = np.zeros(size)
    for octave in range(octaves):
        total += _gradient_noise(size, rng, period_px / 2**octave) / 2**octave
    total -= total.min()
    return _scaled(total)


def _gradient_noise(size: tuple[int, ...], rng: np.random.Generator, period: float) -> NDArray[np.float64]:
    dimensions = len(size)
    # A random start, so that the lattice's nodes, where the noise is 0, lie elsewhere in every image.
    places = [np.arange(length) / period + rng.uniform() for length in size]
    nodes = [place.astype(np.int64) for place in places]
    counts = [int(node[-1]) + 2 for node in nodes]
    gradients = rng.standard_normal((dimensions, *counts))
    gradients /= np.maximum(np.linalg.norm(gradients, axis=0), 1e-12)
    result = np.zeros(size)
    for corner in np.ndindex(*(2,) * dimensions):
        index = np.ix_(*[node + step for node, step in zip(nodes, corner, strict=True)])
        weight = np.ones(size)
        dot = np.zeros(size)
        for axis in range(dimensions):
            offset = places[axis] - nodes[axis]
            fade = offset**3 * (offset * (offset * 6 - 15) + 10)
            column = [1] * dimensions
            column[axis] = -1
            weight *= (fade if corner[axis] else 1 - fade).reshape(column)
            dot += gradients[axis][index] * (offset - corner[axis]).reshape(column)
        result += weight * dot
    return result


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
