"""Images seen through a fibre bundle: a honeycomb of cores, some brighter, some dead, each leaking to the
next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial, special

from care_bridge.errors import InputError
from care_bridge.simulate.structures import Seed, splat

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bundle:
    """The cores of a fibre bundle.

    Attributes
    ----------
    pitch_px : float
        Distance of neighbouring cores.
    centres_px : ndarray, shape (n, 2)
        (y, x) of each core.
    transmission : ndarray, shape (n,)
        Brightness of each core, 1 on average, 0 when dead.
    """

    pitch_px: float
    centres_px: Array
    transmission: Array


def bundle(
    shape: Sequence[int],
    *,
    seed: Seed,
    pitch_px: float = 8.0,
    jitter: float = 0.05,
    transmission_spread: float = 0.1,
    dead_share: float = 0.005,
    turn: bool = False,
) -> Bundle:
    """Draw a hexagonal lattice of cores that covers an image.

    Parameters
    ----------
    shape : sequence of int
        (y, x).
    seed : int or Generator
    pitch_px : float
        Distance of neighbouring cores, at least 2.
    jitter : float
        Standard deviation of the centres, as a share of the pitch.
    transmission_spread : float
        Standard deviation of the cores' transmission around 1; kept within 0.3-1.5.
    dead_share : float
        Probability that a core carries no light.
    turn : bool
        Draw an offset and a rotation of the lattice too.
    """
    if len(shape) != 2 or pitch_px < 2:
        raise InputError(
            f"a fibre bundle needs a shape (y, x) and a pitch of 2 px or more; received {pitch_px:g}"
        )
    rng = np.random.default_rng(seed)
    reach = 0.5 * float(np.hypot(shape[0], shape[1])) + 3 * pitch_px
    row_distance = pitch_px * np.sqrt(3) / 2
    rows = np.arange(-int(reach / row_distance) - 1, int(reach / row_distance) + 2)
    columns = np.arange(-int(reach / pitch_px) - 1, int(reach / pitch_px) + 2)
    grid_rows, grid_columns = np.meshgrid(rows, columns, indexing="ij")
    y = (grid_rows * row_distance).ravel()
    x = ((grid_columns + 0.5 * (grid_rows % 2)) * pitch_px).ravel()
    angle = rng.uniform(0, np.pi / 3) if turn else 0.0
    offset = rng.uniform(-pitch_px, pitch_px, size=2) if turn else np.zeros(2)
    centres = np.stack([y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)], axis=1)
    centres += offset + (np.array(shape) - 1) / 2 + rng.normal(0, jitter * pitch_px, size=centres.shape)
    transmission = np.clip(rng.normal(1, transmission_spread, size=len(centres)), 0.3, 1.5)
    transmission[rng.uniform(size=len(centres)) < dead_share] = 0
    near = np.all((centres > -2 * pitch_px) & (centres < np.array(shape) + 2 * pitch_px), axis=1)
    return Bundle(pitch_px, centres[near], transmission[near])


HALO_RADIUS = 0.6
"""Standard deviation of the wide part of a spot, as a share of the pitch: wide enough to show no honeycomb."""


def seen(data: NDArray[Any], cores: Bundle, *, mode_radius: float = 0.28) -> Array:
    """What the cores can take in, were they everywhere: the image blurred by a core's own width."""
    return np.asarray(
        ndimage.gaussian_filter(
            np.asarray(data, dtype=np.float64), mode_radius * cores.pitch_px, mode="nearest", truncate=3
        )
    )


def through_bundle(
    data: NDArray[Any],
    cores: Bundle,
    *,
    mode_radius: float = 0.28,
    crosstalk: float = 0.03,
    cladding: float = 0.02,
    halo: float = 0.0,
    white: float | None = None,
) -> Array:
    """What leaves the far end of a bundle: as bright on average as what goes in.

    Parameters
    ----------
    data : ndarray, shape (y, x)
    cores : Bundle
    mode_radius : float
        Standard deviation of the spot that a core takes in and shows, as a share of the pitch.
    crosstalk : float
        Share of the difference to each of its neighbours that leaks into a core.
    cladding : float
        Light between the cores, added everywhere, as a share of the white level.
    halo : float
        Share of each core's light that it shows far wider (`HALO_RADIUS`), between the cores.
    white : float, optional
        None takes the image's maximum.
    """
    smooth = seen(data, cores, mode_radius=mode_radius)
    value = ndimage.map_coordinates(smooth, cores.centres_px.T, order=1, mode="nearest")
    if crosstalk:
        distance, neighbour = spatial.cKDTree(cores.centres_px).query(
            cores.centres_px, k=7, distance_upper_bound=1.4 * cores.pitch_px
        )
        near = np.isfinite(distance[:, 1:])
        others = np.where(near, value[np.minimum(neighbour[:, 1:], len(value) - 1)], value[:, None])
        value = value + crosstalk * (others - value[:, None]).sum(axis=1)
    # A core stands for the sqrt(3) / 2 pitch^2 around it.
    weights = cores.transmission * value * (np.sqrt(3) / 2 * cores.pitch_px**2)
    shown = spots(data.shape, cores.centres_px, weights, mode_radius * cores.pitch_px)
    if halo:
        wide = cores.pitch_px * np.sqrt(max(HALO_RADIUS**2 - mode_radius**2, 0))
        shown = (1 - halo) * shown + halo * ndimage.gaussian_filter(shown, wide, mode="nearest", truncate=3)
    return shown + cladding * (float(np.max(data, initial=0.0)) if white is None else white)


@dataclass(frozen=True, eq=False)
class View:
    """A bundle in front of one image, and how its cores pass light on; see `through_bundle`.

    Attributes
    ----------
    illumination : ndarray, shape (n,), optional
        Light at each core that is not the core's own doing, and stays in the image that is wanted. None is 1.
    """

    cores: Bundle
    mode_radius: float
    crosstalk: float
    cladding: float
    halo: float
    illumination: Array | None = None

    def through(self, data: NDArray[Any], *, white: float) -> Array:
        """What the bundle shows."""
        return through_bundle(
            self._lit(data),
            self.cores,
            mode_radius=self.mode_radius,
            crosstalk=self.crosstalk,
            cladding=self.cladding,
            halo=self.halo,
            white=white,
        )

    def wanted(self, data: NDArray[Any], *, white: float) -> Array:
        """What it would show with cores everywhere."""
        return seen(self._lit(data), self.cores, mode_radius=self.mode_radius) + self.cladding * white

    def _lit(self, data: NDArray[Any]) -> NDArray[Any]:
        if self.illumination is None:
            return data
        # Smooth by itself, so a mean of the cores around each pixel is all that it takes.
        ones = np.ones(len(self.illumination))
        width = 1.5 * self.cores.pitch_px
        weight = spots(data.shape, self.cores.centres_px, ones, width)
        light = spots(data.shape, self.cores.centres_px, self.illumination, width)
        return np.asarray(data * (light / np.maximum(weight, 1e-9)))


_DENSE = 400_000
"""Numbers of spots times pixels along a side up to which spots are made by one product of matrices: faster for patches."""


def spots(shape: Sequence[int], centres_px: Array, weights: Array, sigma_px: float) -> Array:
    """Gaussian spots of one width, each integrated over the pixels that it touches; see `structures.splat`.

    Parameters
    ----------
    shape : sequence of int
        (y, x).
    centres_px : ndarray, shape (n, 2)
    weights : ndarray, shape (n,)
        Total light of each spot.
    sigma_px : float
    """
    if len(centres_px) * max(shape) > _DENSE:
        return splat(shape, centres_px, weights=weights, sigma_px=sigma_px)
    scale = np.sqrt(2) * sigma_px
    sides = []
    for axis in (0, 1):
        edges = special.erf((np.arange(shape[axis] + 1) - 0.5 - centres_px[:, axis, None]) / scale)
        sides.append(0.5 * np.diff(edges, axis=1))
    return np.asarray((sides[0] * np.asarray(weights)[:, None]).T @ sides[1])


def lattice_frequencies(cores: Bundle) -> float:
    """Spatial frequency of the honeycomb's strongest lines, 2 / (sqrt(3) pitch), in cycles a pixel."""
    return float(2 / (np.sqrt(3) * cores.pitch_px))


def lattice_power(data: NDArray[Any], *, pitch_px: float, width: float = 0.06) -> float:
    """Mean spectral power in a ring at the honeycomb's frequency, as a share of the variance.

    Parameters
    ----------
    data : ndarray, shape (y, x)
    pitch_px : float
    width : float
        Width of the ring, as a share of its radius.

    Returns
    -------
    float
        Independent of brightness and offset; the ratio of two of them in dB is 10 log10.
    """
    image = np.asarray(data, dtype=np.float64)
    image = image - image.mean()
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    power = np.abs(np.fft.fft2(image * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in image.shape), indexing="ij"))
    wanted = 2 / (np.sqrt(3) * pitch_px)
    ring = np.abs(frequency - wanted) <= width * wanted
    return float(power[ring].mean() / max(power.mean(), 1e-300))
