"""The cores of a real fibre bundle, found in an image: their distance, places, profile and transmission.

Also interpolation between them, the classical way of taking a honeycomb away (e.g. Rupp et al. 2009, Elter et al. 2006).
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from care_bridge.errors import InputError
from care_bridge.images import read_image
from care_bridge.simulate.fibre import HALO_RADIUS, Bundle, bundle, spots

Array = NDArray[np.float64]

PITCHES = (3.0, 24.0)
"""Distances of cores that are looked for, in pixels: below, cores are not resolved; above, they are objects."""

SMALLEST_PX = 48
"""Images with a shorter side hold too few cores to know their distance."""

VISIBLE = 8.0
"""How far the ring of a honeycomb stands above the spectrum beside it, as a ratio of powers: six real images of bundles
have 80 to 140, sixty of cells without a bundle at most 3."""

SMOOTH = 0.15
"""Standard deviation of the filter before cores are looked for or read, as a share of the pitch."""

GAP = 0.7
"""Places farther than this share of the pitch from all cores are taken to hold one that is not seen."""


def measured_pitch(plane: NDArray[Any]) -> float:
    """Distance of neighbouring cores, from the ring that a honeycomb has in the spectrum.

    Parameters
    ----------
    plane : ndarray, shape (y, x)

    Returns
    -------
    float
        In pixels, within `PITCHES`.

    Raises
    ------
    InputError
        If the image is too small, or no ring stands out.
    """
    data = np.asarray(plane, dtype=np.float64)
    if data.ndim != 2 or min(data.shape) < SMALLEST_PX:
        raise InputError(
            f"has {' x '.join(map(str, data.shape))} pixels; cores are found in planes of {SMALLEST_PX} x {SMALLEST_PX} "
            "and more"
        )
    place, height = _ring(data)
    if not height >= VISIBLE:
        raise InputError(
            f"shows no cores {PITCHES[0]:g} to {PITCHES[1]:g} px apart: no ring stands out in its spectrum; give the raw "
            "image of a bundle, neither filtered nor made smaller"
        )
    return float(2 / (np.sqrt(3) * place))


def _ring(data: Array) -> tuple[float, float]:
    """Frequency of the strongest ring in cycles a pixel, and its power over that beside it."""
    size = min(data.shape)
    window = np.outer(*(np.hanning(side) for side in data.shape))
    power = np.abs(np.fft.fft2((data - data.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in data.shape), indexing="ij"))
    # Bins of 2 % of a ring's radius and at least one frequency wide, even on a logarithmic scale.
    low, high = (2 / (np.sqrt(3) * pitch) for pitch in (2 * PITCHES[1], PITCHES[0] / 1.3))
    edges = np.geomspace(low, high, int(np.log(high / low) / max(0.03, 1.5 / (size * low) * 0.1)) + 1)
    number = np.digitize(frequency.ravel(), edges)
    counts = np.bincount(number, minlength=len(edges) + 1)[1:-1]
    sums = np.bincount(number, power.ravel(), minlength=len(edges) + 1)[1:-1]
    middle = np.sqrt(edges[1:] * edges[:-1])
    kept = counts > 0
    mean, middle = sums[kept] / counts[kept], middle[kept]
    ratios = np.ones(len(middle))
    for index, place in enumerate(middle):
        # Structure falls steadily with the frequency, so the level below a ring is that of both sides.
        left = mean[(middle > 0.55 * place) & (middle < 0.78 * place)]
        right = mean[(middle > 1.28 * place) & (middle < 1.5 * place)]
        if len(left) and len(right) and 2 / np.sqrt(3) / PITCHES[1] <= place <= 2 / np.sqrt(3) / PITCHES[0]:
            ratios[index] = mean[index] / max(np.sqrt(np.median(left) * np.median(right)), 1e-300)
    best = int(np.argmax(ratios))
    if not float(np.var(data)) > 0:
        return float(middle[best]), 0.0
    near = slice(max(best - 2, 0), best + 3)
    weights = mean[near]
    return float(np.sum(weights * middle[near]) / np.sum(weights)), float(ratios[best])


def find_cores(plane: NDArray[Any], *, pitch_px: float, fill: bool = True) -> tuple[Array, NDArray[np.bool_]]:
    """Centres of cores.

    Parameters
    ----------
    plane : ndarray, shape (y, x)
    pitch_px : float
    fill : bool
        Put a centre into each gap, where a core is too dark to be seen.

    Returns
    -------
    centres_px : ndarray, shape (n, 2)
        (y, x), to a tenth of a pixel or so.
    seen : ndarray of bool, shape (n,)
        False for those in gaps.
    """
    smooth = ndimage.gaussian_filter(np.asarray(plane, dtype=np.float64), SMOOTH * pitch_px)
    # Contrast is local: cores beside bright ones, or in the dark, are cores too.
    mean = ndimage.gaussian_filter(smooth, pitch_px)
    contrast = (smooth - mean) / np.sqrt(
        ndimage.gaussian_filter((smooth - mean) ** 2, 1.5 * pitch_px) + 1e-12
    )
    best = (contrast == ndimage.maximum_filter(contrast, 3)) & (contrast > 0)
    best[[0, -1]], best[:, [0, -1]] = False, False
    y, x = np.nonzero(best)
    points, height = np.stack([y, x], axis=1), contrast[y, x]
    close = (
        spatial.cKDTree(points).query_pairs(0.5 * pitch_px, output_type="ndarray")
        if len(points)
        else points[:0]
    )
    weaker = np.where(height[close[:, 0]] < height[close[:, 1]], close[:, 0], close[:, 1])
    points = np.delete(points, np.unique(weaker), axis=0)
    centres: Array = points.astype(np.float64) + np.stack(
        [_parabola(smooth, points, axis) for axis in (0, 1)], axis=1
    )
    seen = np.ones(len(centres), dtype=bool)
    if fill:
        added = _gaps(centres, smooth.shape, pitch_px)
        centres, seen = np.concatenate([centres, added]), np.concatenate([seen, np.zeros(len(added), bool)])
    return centres, seen


def _parabola(data: Array, points: NDArray[np.int64], axis: int) -> Array:
    y, x = points.T
    step = (1, 0) if axis == 0 else (0, 1)
    before, after = data[y - step[0], x - step[1]], data[y + step[0], x + step[1]]
    curve = before - 2 * data[y, x] + after
    return np.clip(np.where(curve < 0, 0.5 * (before - after) / np.minimum(curve, -1e-12), 0), -0.5, 0.5)


def _gaps(centres: Array, shape: tuple[int, ...], pitch_px: float) -> Array:
    """Points at least `GAP` pitches from all centres and each other, in an image."""
    lattice = bundle(shape, seed=0, pitch_px=max(pitch_px / 2, 2.0), jitter=0, dead_share=0).centres_px
    lattice = lattice[np.all((lattice >= 0) & (lattice <= np.array(shape) - 1), axis=1)]
    distance = spatial.cKDTree(centres).query(lattice)[0] if len(centres) else np.full(len(lattice), np.inf)
    order = np.argsort(-distance, kind="stable")
    lattice = lattice[order][distance[order] > GAP * pitch_px]
    tree = spatial.cKDTree(lattice) if len(lattice) else None
    free, chosen = np.ones(len(lattice), dtype=bool), []
    for index in range(len(lattice)):
        if free[index] and tree is not None:
            chosen.append(index)
            free[tree.query_ball_point(lattice[index], GAP * pitch_px)] = False
    return lattice[chosen].reshape(-1, 2)


def core_values(plane: NDArray[Any], centres_px: Array, *, pitch_px: float) -> Array:
    """Brightness of each core: the image at its centre after a filter much narrower than the core."""
    smooth = ndimage.gaussian_filter(np.asarray(plane, dtype=np.float64), SMOOTH * pitch_px)
    return np.asarray(ndimage.map_coordinates(smooth, np.asarray(centres_px).T, order=1, mode="nearest"))


def between_cores(
    plane: NDArray[Any], *, centres_px: Array | None = None, values: Array | None = None
) -> NDArray[np.float32]:
    """The image of a fibre bundle by linear interpolation between its cores, over Delaunay's triangles.

    Parameters
    ----------
    plane : ndarray, shape (y, x)
    centres_px : ndarray, shape (n, 2), optional
        (y, x) of the cores, e.g. from an image of the same bundle without a sample; None finds them in the plane.
    values : ndarray, shape (n,), optional
        Of the cores, e.g. `core_values` over those of a flat field; None reads the plane.

    Returns
    -------
    ndarray of float32
        Outside of all triangles, the value of the nearest core.

    Raises
    ------
    InputError
        If no cores are visible and none are given.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    if centres_px is None or values is None:
        pitch = measured_pitch(plane)
        centres = find_cores(plane, pitch_px=pitch)[0] if centres_px is None else centres_px
        values = core_values(plane, centres, pitch_px=pitch)
    else:
        centres = centres_px
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in plane.shape), indexing="ij"), axis=-1)
    found = LinearNDInterpolator(centres, values)(grid)
    outside = np.isnan(found)
    if outside.any():
        found[outside] = NearestNDInterpolator(centres, values)(grid[outside])
    return np.asarray(found, np.float32)


def even_cores(plane: NDArray[Any], flat: NDArray[Any]) -> NDArray[np.float32]:
    """The image of a bundle as if all of its cores passed the same share of light, by a flat field; the honeycomb stays.

    Parameters
    ----------
    plane, flat : ndarray, shape (y, x)
        A raw image, and one of an even sample through the same bundle in the same place.

    Returns
    -------
    ndarray of float32
        Each pixel over the transmission of the cores around it, which is 1 on average over any few cores: illumination
        stays.

    Raises
    ------
    InputError
        If the flat field shows no cores or has another size.
    """
    if np.shape(plane) != np.shape(flat):
        raise InputError(_OTHER_SIZE.format(*(" x ".join(map(str, np.shape(one))) for one in (flat, plane))))
    pitch = _flat_pitch(np.asarray(flat, dtype=np.float64), None)
    centres, _ = find_cores(flat, pitch_px=pitch, fill=False)
    values = core_values(flat, centres, pitch_px=pitch)
    near = spatial.cKDTree(centres).query_ball_point(centres, 3 * pitch)
    ratio = values / np.maximum([np.mean(values[some]) for some in near], 1e-9)
    width = 0.35 * pitch
    weight = spots(np.shape(flat), centres, np.ones(len(centres)), width)
    passed = spots(np.shape(flat), centres, ratio, width)
    least = 0.1 * float(np.median(weight))
    passed = np.where(weight > least, passed / np.maximum(weight, least), 1.0)
    return np.asarray(plane / np.maximum(passed, 0.2), np.float32)


_OTHER_SIZE = (
    "the flat field has {} pixels, the image of the bundle {}; take both with the same camera settings"
)


@dataclass(frozen=True, eq=False)
class MeasuredBundle:
    """What an image tells of a bundle; in the largest rectangle that its cores fill.

    Attributes
    ----------
    pitch_px : float
    size : (float, float)
        Of the rectangle, along Y and X, in pixels; `centres_px` count from its corner.
    centres_px : ndarray, shape (n, 2)
    transmission : ndarray, shape (n,), or None
        Of each core against those around it, from a flat field; None where there was none.
    illumination : ndarray, shape (n,), or None
        The flat field without what is of single cores, at most 1.
    transmission_spread : float
        Standard deviation of the transmissions.
    mode_radius : float
        Standard deviation of a core's spot, as a share of the pitch.
    between : float
        Share of the light that lies between the cores and shows no honeycomb: the spots' wide part, and light of the
        cladding.
    seen_share : float
        Share of the cores that were seen; the others were put into gaps.
    """

    pitch_px: float
    size: tuple[float, float]
    centres_px: Array
    transmission: Array | None
    illumination: Array | None
    transmission_spread: float
    mode_radius: float
    between: float
    seen_share: float

    def window(self, shape: tuple[int, int], *, rng: np.random.Generator) -> tuple[Bundle, Array]:
        """Cores around an image of any size, from a random place of the bundle, flipped and turned.

        Beyond the measured rectangle it is mirrored.

        Returns
        -------
        bundle : Bundle
            Without a flat field its transmissions are drawn.
        illumination : ndarray, shape (n,)
        """
        turned, flips = rng.random() < 0.5, rng.random(2) < 0.5
        wanted = np.array(shape[::-1] if turned else shape, dtype=np.float64)
        margin, size = 2 * self.pitch_px, np.array(self.size)
        start = rng.random(2) * np.maximum(size - wanted, 0) - margin
        parts, kept = [], []
        ends = start + wanted + 2 * margin
        first, last = np.floor(start / size).astype(int), np.floor(ends / size).astype(int)
        for row in range(first[0], last[0] + 1):
            for column in range(first[1], last[1] + 1):
                tile = np.array([row, column])
                moved = np.where(tile % 2, size - self.centres_px, self.centres_px) + tile * size
                inside = np.flatnonzero(np.all((moved >= start) & (moved < ends), axis=1))
                parts.append(moved[inside])
                kept.append(inside)
        which = np.concatenate(kept)
        centres = np.concatenate(parts) - start - margin
        centres = np.where(flips, wanted - 1 - centres, centres)
        centres = centres[:, ::-1] if turned else centres
        if self.transmission is None:
            transmission = np.clip(rng.normal(1, self.transmission_spread, len(which)), 0.2, 2.0)
        else:
            transmission = self.transmission[which]
        light = np.ones(len(which)) if self.illumination is None else self.illumination[which]
        return Bundle(self.pitch_px, centres, transmission), light


def measure_bundle(plane: NDArray[Any], flat: NDArray[Any] | None = None) -> MeasuredBundle:
    """Measure a fibre bundle in one of its images.

    Parameters
    ----------
    plane : ndarray, shape (y, x)
        A raw image taken through the bundle.
    flat : ndarray, shape (y, x), optional
        An image of an even sample through the same bundle in the same place: centres, profile and transmission are
        then taken from it. Without, cores in dark places are guessed, and the transmissions are only known in their
        spread.

    Raises
    ------
    InputError
        If no cores are visible, or the flat field has another size.
    """
    image = np.asarray(plane, dtype=np.float64)
    if flat is not None and np.shape(flat) != image.shape:
        raise InputError(_OTHER_SIZE.format(*(" x ".join(map(str, np.shape(one))) for one in (flat, image))))
    pitch = measured_pitch(image)
    from_flat = flat is not None
    if flat is not None:
        image = np.asarray(flat, dtype=np.float64)
        pitch = _flat_pitch(image, pitch)
    centres, seen = find_cores(image, pitch_px=pitch, fill=not from_flat)
    rows, columns = _filled(centres[_lit(image, centres, pitch) & seen], image.shape, pitch)
    corner = np.array([rows.start, columns.start])
    inside = np.all((centres >= corner) & (centres < [rows.stop, columns.stop]), axis=1)
    centres, seen, image = centres[inside] - corner, seen[inside], image[rows, columns]
    values = core_values(image, centres, pitch_px=pitch)
    neighbours = spatial.cKDTree(centres).query(centres, k=7)[1]
    around = np.median(values[neighbours], axis=1)
    radius, between = _profile(image, centres, values, pitch)
    ratio = values / np.maximum(around, 1e-9)
    # A core's own spot is a part of what is seen at its centre; a median of 7 has a spread of its own (0.47 of theirs).
    own = _own_share(centres, radius, between, pitch, image.shape)
    usable = seen & (around > 0.3 * np.percentile(values, 90))
    middle = np.median(ratio[usable])
    spread = 1.4826 * float(np.median(np.abs(ratio[usable] - middle))) / own
    transmission = illumination = None
    if from_flat:
        level = np.array(
            [np.mean(values[near]) for near in spatial.cKDTree(centres).query_ball_point(centres, 3 * pitch)]
        )
        transmission = np.clip(1 + (values / level - 1) / own, 0.02, 3.0)
        spread = float(np.std(transmission))
        illumination = level / level.max()
    return MeasuredBundle(
        pitch_px=float(pitch),
        size=(float(image.shape[0]), float(image.shape[1])),
        centres_px=centres,
        transmission=transmission,
        illumination=illumination,
        transmission_spread=float(np.clip(spread, 0.0, 0.5)),
        mode_radius=radius,
        between=between,
        seen_share=float(seen.mean()),
    )


def _flat_pitch(flat: Array, pitch: float | None) -> float:
    try:
        found = measured_pitch(flat)
    except InputError as error:
        raise InputError(f"the flat field {error}") from None
    if pitch is not None and abs(found / pitch - 1) > 0.1:
        raise InputError(
            f"the flat field's cores are {found:.2f} px apart, those of the image of the bundle {pitch:.2f} px; take both "
            "through the same bundle"
        )
    return found


def _lit(image: Array, centres: Array, pitch: float) -> NDArray[np.bool_]:
    """Which centres lie where there is a honeycomb, and not only noise: outside of a round bundle there is some."""
    smooth = ndimage.gaussian_filter(image, SMOOTH * pitch)
    contrast = ndimage.gaussian_filter((smooth - ndimage.gaussian_filter(smooth, pitch)) ** 2, 1.5 * pitch)
    there = ndimage.map_coordinates(contrast, centres.T, order=1, mode="nearest")
    return np.asarray(there > 0.01 * np.percentile(there, 99))


def _filled(centres: Array, shape: tuple[int, ...], pitch: float) -> tuple[slice, slice]:
    """The largest rectangle without an empty place, found on cells of three pitches."""
    cell = 3 * pitch
    counts = [max(int(side / cell), 1) for side in shape]
    number = [np.minimum((centres[:, axis] / cell).astype(int), counts[axis] - 1) for axis in (0, 1)]
    count = np.zeros(counts)
    np.add.at(count, tuple(number), 1)
    expected = cell**2 / (np.sqrt(3) / 2 * pitch**2)
    full = ndimage.binary_closing(np.pad(count > 0.5 * expected, 2), np.ones((3, 3)))[2:-2, 2:-2]
    full = ndimage.binary_fill_holes(full)
    best, found = 0, (0, 0, 0, 0)
    heights = np.zeros(counts[1], dtype=int)
    for row in range(counts[0]):
        heights = np.where(full[row], heights + 1, 0)
        for column in range(counts[1]):
            least = heights[column]
            for first in range(column, -1, -1):
                least = min(least, heights[first])
                if least * (column - first + 1) > best:
                    best = int(least) * (column - first + 1)
                    found = (row + 1 - int(least), row + 1, first, column + 1)
    ends = [found[1] * cell, found[3] * cell]
    top, left = int(found[0] * cell), int(found[2] * cell)
    bottom = shape[0] if found[1] == counts[0] else int(ends[0])
    right = shape[1] if found[3] == counts[1] else int(ends[1])
    if best == 0 or min(bottom - top, right - left) < 8 * pitch:
        raise InputError(
            f"shows cores in places of less than 8 x 8 of their distance ({pitch:.1f} px); give an image that the bundle "
            "fills"
        )
    return slice(top, bottom), slice(left, right)


def _profile(image: Array, centres: Array, values: Array, pitch: float) -> tuple[float, float]:
    """Standard deviation of a spot as a share of the pitch, and the share of the light between cores.

    The image is fitted by spots of each width and the same light spread wide, both with the brightness that the cores
    show; the width with the least residual is taken.
    """
    sides = tuple(min(side, 256) for side in image.shape)
    corner = [(full - side) // 2 for full, side in zip(image.shape, sides, strict=True)]
    piece = image[corner[0] : corner[0] + sides[0], corner[1] : corner[1] + sides[1]]
    places = centres - corner
    area = np.sqrt(3) / 2 * pitch**2
    best = (np.inf, 0.28, 0.0)
    for radius in np.arange(0.10, 0.45, 0.02):
        narrow = spots(sides, places, values * area, radius * pitch)
        wide = ndimage.gaussian_filter(narrow, pitch * np.sqrt(HALO_RADIUS**2 - radius**2), mode="nearest")
        design = np.stack([narrow.ravel(), wide.ravel()])
        # Normal equations: two unknowns, many pixels.
        products = design @ design.T
        fit = np.maximum(np.linalg.lstsq(products, design @ piece.ravel(), rcond=None)[0], 0)
        residual = float(np.mean((fit @ design - piece.ravel()) ** 2))
        if residual < best[0] and fit.sum() > 0:
            best = (residual, float(radius), float(fit[1] / fit.sum()))
    return best[1], min(best[2], 0.95)


def _own_share(centres: Array, radius: float, between: float, pitch: float, shape: tuple[int, ...]) -> float:
    """How much of the brightness at a core's centre is its own spot's."""
    sides = tuple(min(side, 256) for side in shape)
    area = np.sqrt(3) / 2 * pitch**2
    near = centres[np.all(centres < sides, axis=1)]
    whole = spots(sides, near, np.full(len(near), area), radius * pitch)
    seen = (1 - between) * ndimage.map_coordinates(whole, near.T, order=1, mode="nearest") + between
    own = (1 - between) * area / (2 * np.pi * ((radius * pitch) ** 2 + 1 / 12))
    return float(np.clip(own / np.median(seen), 0.2, 1.0))


def bundle_from_files(
    like: str | os.PathLike[str], flat: str | os.PathLike[str] | None = None
) -> MeasuredBundle:
    """`measure_bundle` of a person's files; measured once while they stay as they are.

    Parameters
    ----------
    like, flat : path
        TIFF files of one plane each.

    Raises
    ------
    InputError
        If a file cannot be read, is no single plane, or shows no cores; its name is said.
    """
    stamps = tuple(
        (os.fspath(path), stat.st_mtime_ns, stat.st_size)
        for path in (like, flat)
        if path is not None and (stat := _stat(path))
    )
    return _measured(stamps)


def _stat(path: str | os.PathLike[str]) -> os.stat_result:
    if not Path(path).is_file():
        raise InputError(f"image {os.fspath(path)!r} is not there; name an image taken through the bundle")
    return os.stat(path)


@functools.lru_cache(maxsize=4)
def _measured(stamps: tuple[tuple[str, int, int], ...]) -> MeasuredBundle:
    planes = [_plane(stamp[0]) for stamp in stamps]
    try:
        return measure_bundle(*planes)
    except InputError as error:
        raise InputError(f"{' and '.join(stamp[0] for stamp in stamps)}: {error}") from None


def _plane(path: str) -> Array:
    image = read_image(path)
    if any(size > 1 for letter, size in zip(image.axes, image.shape, strict=True) if letter not in "YX"):
        raise InputError(
            f"{path}: has axes {image.axes}; give one plane of one channel as the image of a bundle"
        )
    data = np.asarray(image.data, dtype=np.float64)
    if not np.all(np.isfinite(data)):
        raise InputError(f"{path}: holds NaN or infinite values; give a raw image of the bundle")
    order = [image.axes.index(letter) for letter in "YX"]
    rest = [index for index in range(data.ndim) if index not in order]
    return np.transpose(data, [*rest, *order]).reshape(data.shape[order[0]], data.shape[order[1]])
