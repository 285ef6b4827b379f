"""Patches cut from their images when they are asked for: all at once, or while a network trains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.patches.looking import reader
from care_bridge.patches.origin import PatchOrigin
from care_bridge.patches.pairs import ImagePair
from care_bridge.patches.scale import is_narrow, place, rescale
from care_bridge.patches.split import FRACTION, By, split_patches
from care_bridge.progress import Progress, silent

CACHE_BYTES = 1 << 30
"""Images that cannot be mapped are kept in memory up to this many bytes while patches are cut from them."""

_MAX_OPEN = 200  # mapped files each hold a file descriptor

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


class ImagePatches:
    """Patches that are cut from their images when they are asked for; the same index gives the same patch.

    Made by `sample_patches`. Mapped TIFFs and zarr arrays are read patch by patch, other files as a whole and
    kept, up to `cache_bytes`, so memory is bounded by that whatever the images' size.

    Attributes
    ----------
    axes : str
        Of a batch: S, the patch's axes, C.
    patch_size : tuple of int
        Without S and C.
    reduced : str
        Axes that target patches lack.
    origin : PatchOrigin
        Where each patch comes from.
    names : tuple of str
        Of the images.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        origin: PatchOrigin,
        *,
        patch_size: Sequence[int],
        axes: str,
        reduced: str = "",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pairs, self.origin = tuple(pairs), origin
        self.patch_size, self.axes, self.reduced = tuple(patch_size), f"S{axes}C", reduced
        self.names = tuple(pair.name for pair in pairs)
        self.cache_bytes = cache_bytes
        self._opened: OrderedDict[tuple[int, bool], Callable[[tuple[slice, ...]], NDArray[Any]]] = (
            OrderedDict()
        )
        self._kept: dict[tuple[int, bool], int] = {}

    def __len__(self) -> int:
        return len(self.origin)

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        """Normalised patches.

        Parameters
        ----------
        indices : ndarray of int
            Positions in `origin`, each from 0 to ``len(self) - 1``.

        Returns
        -------
        source, target : ndarray of float32, shape (n, [z,] y, x, channel)
            The target without the `reduced` axes.
        """
        indices = np.asarray(indices)
        first, second = self.pairs[0].source, self.pairs[0].target
        flat = tuple(
            1 if letter in self.reduced else size
            for letter, size in zip(self.axes[1:-1], self.patch_size, strict=True)
        )
        sources = np.empty((len(indices), *self.patch_size, first.size("C")), np.float32)
        targets = np.empty((len(indices), *flat, second.size("C")), np.float32)
        images, positions = self.origin.image[indices].tolist(), self.origin.position[indices].tolist()
        for is_target, out, stored in ((False, sources, first), (True, targets, second)):
            ranges = (self.origin.target_range if is_target else self.origin.source_range)[indices]
            shift = ranges.size and not is_narrow(stored.dtype)
            where = [is_target and letter in self.reduced for letter in self.axes[1:-1]]
            for row, (image, position) in enumerate(zip(images, positions, strict=True)):
                box = [
                    slice(0, 1) if whole else slice(start, start + size)
                    for start, size, whole in zip(position, self.patch_size, where, strict=True)
                ]
                raw = self._reader(image, is_target)((*box, slice(None)))
                if shift:
                    place(raw, ranges[row, 0], out[row])
                else:
                    out[row] = raw
        for span, out, stored in (
            (self.origin.source_range[indices], sources, first),
            (self.origin.target_range[indices], targets, second),
        ):
            if span.size:
                rescale(out, span[:, 0], span[:, 1], raw=stored.dtype)
        gone = tuple(self.axes.index(letter) for letter in self.reduced)
        return sources, targets.squeeze(gone) if gone else targets

    def load(self, *, progress: Progress = silent) -> Batch:
        """All patches, in memory."""
        return self.batch(np.arange(len(self)))

    def select(self, indices: NDArray[np.intp]) -> ImagePatches:
        """Some of the patches, in the order of `indices`."""
        return ImagePatches(
            self.pairs,
            self.origin.select(indices),
            patch_size=self.patch_size,
            axes=self.axes[1:-1],
            reduced=self.reduced,
            cache_bytes=self.cache_bytes,
        )

    def split(
        self, fraction: float = FRACTION, *, by: By = "auto", gap_px: int = 0, seed: int = 0
    ) -> tuple[ImagePatches, ImagePatches]:
        """Training and validation patches that share no pixel; see `split_patches`."""
        training, validation = split_patches(
            self.origin.group,
            self.origin.position,
            patch_size=self.patch_size,
            fraction=fraction,
            by=by,
            gap_px=gap_px,
            seed=seed,
        )
        return self.select(training), self.select(validation)

    def _reader(self, image: int, is_target: bool) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
        key = (image, is_target)
        if key in self._opened:
            self._opened.move_to_end(key)
            return self._opened[key]
        stored = self.pairs[image].target if is_target else self.pairs[image].source
        array = stored.open()
        self._opened[key] = reader(stored, array, self.axes[1:])
        held = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
        self._kept[key] = array.nbytes if held else 0
        while len(self._opened) > 1 and (
            sum(self._kept.values()) > self.cache_bytes or len(self._opened) > _MAX_OPEN
        ):
            oldest, _ = self._opened.popitem(last=False)
            del self._kept[oldest]
        return self._opened[key]
