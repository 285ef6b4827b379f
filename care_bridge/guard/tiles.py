"""Pieces of an image that a network is asked about, as large as a training patch, and their power spectra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from care_bridge.patches import Foreground

MOST_TILES = 48

BANDS = 10
"""Of a spectrum, of equal width from 0 to half a cycle a pixel."""

_SMOOTH_PX = 1.5
"""A training patch is chosen by its clean target, and of an image to be restored there is only the noisy source."""


def tiles_of(
    frame: NDArray[np.float32], size: Sequence[int], *, most: int = MOST_TILES, seed: int = 0
) -> NDArray[np.float32]:
    """Pieces that hold something, as training patches do.

    Parameters
    ----------
    frame : ndarray, shape ([z,] y, x, channel)
    size : sequence of int
        Of a training patch, without channels.
    most : int
        So many are drawn of those that there are.
    seed : int

    Returns
    -------
    ndarray, shape (tiles, [z,] y, x, channel)
        On a grid of half a patch; none where the frame is smaller than a patch. Those whose middle reaches the share of
        the bright end that training asks of a patch (`patches.Foreground`), in the first channel, slightly smoothed; the
        brightest quarter where none does.
    """
    from scipy.ndimage import gaussian_filter

    if any(have < want for have, want in zip(frame.shape[:-1], size, strict=True)):
        return np.empty((0, *size, frame.shape[-1]), np.float32)
    corners = np.stack(
        np.meshgrid(
            *(
                np.unique([*range(0, have - want + 1, max(want // 2, 1)), have - want])
                for have, want in zip(frame.shape[:-1], size, strict=True)
            ),
            indexing="ij",
        ),
        axis=-1,
    ).reshape(-1, len(size))
    smooth = gaussian_filter(frame[..., 0], [0] * (len(size) - 2) + [_SMOOTH_PX, _SMOOTH_PX])
    rule = Foreground()
    low = float(np.percentile(smooth, 2))
    level = low + rule.threshold * (float(np.percentile(smooth, rule.percentile)) - low)
    brightest = np.array([smooth[_middle(corner, size)].max() for corner in corners])
    kept = corners[brightest > level]
    if not len(kept):
        kept = corners[brightest >= np.quantile(brightest, 0.75)]
    if len(kept) > most:
        kept = kept[np.sort(np.random.default_rng(seed).choice(len(kept), most, replace=False))]
    return np.stack([frame[_piece(corner, size)] for corner in kept]).astype(np.float32)


def spectrum(tiles: NDArray[np.float32]) -> NDArray[np.float64]:
    """How a tile's power is spread over spatial frequencies: what blur, noise, pixel size and texture leave.

    Parameters
    ----------
    tiles : ndarray, shape (tiles, [z,] y, x, channel)
        As the network sees them.

    Returns
    -------
    ndarray, shape (tiles, BANDS * channels)
        Decimal logarithms of the mean power of a pixel in rings of the plane (Y, X), mean of the planes.
    """
    tiles = np.asarray(tiles, np.float64)
    height, width = tiles.shape[-3:-1]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    window /= np.sqrt(np.sum(window**2))
    planes = tiles.reshape(len(tiles), -1, height, width, tiles.shape[-1])
    planes = planes - planes.mean(axis=(2, 3), keepdims=True)
    power = np.abs(np.fft.rfft2(planes * window[..., None], axes=(2, 3))) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS)  # corners, beyond half a cycle, are left out
    found = [
        power[:, :, ring == band].mean(axis=(1, 2))
        if (ring == band).any()
        else np.zeros((len(tiles), tiles.shape[-1]))
        for band in range(BANDS)
    ]
    return np.log10(np.concatenate(found, axis=1) + 1e-7)


def _piece(corner: NDArray[np.int_], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(at, at + length) for at, length in zip(corner, size, strict=True))


def _middle(corner: NDArray[np.int_], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(at + length // 4, at + max(length - length // 4, length // 4 + 1))
        for at, length in zip(corner, size, strict=True)
    )
