"""Looking through an image pair, slab by slab: eligible positions, percentiles, and a hash to know it by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.defaults import TargetScale
from care_bridge.errors import InputError
from care_bridge.patches.fitting import FitSums, GreyFit, block_means
from care_bridge.patches.foreground import Foreground, any_in_window, bright_corners
from care_bridge.patches.pairs import ImagePair, Stored
from care_bridge.patches.scale import PatchPercentiles, Ranks


class NothingToSeeError(InputError):
    """An image without a patch that is worth drawing."""


SLAB_BYTES = 1 << 27
"""Images above this size are looked at slab by slab, so that memory stays bounded."""


def fingerprint(read: Callable[[slice], NDArray[Any]], shape: Sequence[int], nbytes: int) -> str:
    """Hash by which equal images are recognised, of all pixels, or of 16 planes of a large image.

    Parameters
    ----------
    read : callable
        Gives the pixels of some positions along the first dimension.
    shape : sequence of int
    nbytes : int
        Of the whole image; above `SLAB_BYTES` it is large.

    Notes
    -----
    Equal images never differ here. Different ones that agree in those planes count as equal, which costs the split
    some freedom and leaks nothing.
    """
    sha = hashlib.sha256(str(tuple(shape)).encode())
    if nbytes <= SLAB_BYTES:
        parts = [slice(0, shape[0])]
    else:
        starts = np.unique(np.linspace(0, shape[0] - 1, 16).astype(int))
        parts = [slice(int(start), int(start) + 1) for start in starts]
    for part in parts:
        sha.update(np.ascontiguousarray(read(part)).data)
    return sha.hexdigest()


def reader(stored: Stored, array: Any, axes: str) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
    if isinstance(array, np.ndarray):
        view = move_axes(array, stored.axes, axes)
        return lambda box: view[box]
    return lambda box: stored.read(array, axes, box)


class Looked:
    """One pair, read slab by slab: eligible positions and percentiles."""

    def __init__(self, pair: ImagePair, axes: str, size: tuple[int, ...], reduced: str) -> None:
        self.pair, self.axes, self.size, self.reduced = pair, axes, size, reduced
        self.shape = tuple(pair.source.size(letter) for letter in axes)
        self.corners = tuple(length - pixels + 1 for length, pixels in zip(self.shape, size, strict=True))
        self.target_size = tuple(
            1 if letter in reduced else pixels for letter, pixels in zip(axes, size, strict=True)
        )
        self._source = reader(pair.source, self._open(pair.source), axes + "C")
        self._target = reader(pair.target, self._open(pair.target), axes + "C")
        self._ranks: dict[bool, list[Ranks]] = {}
        self.unfitted = ""

    def _open(self, stored: Stored) -> Any:
        array = stored.open()
        # Small images are read once; large ones stay where they are.
        small = int(np.prod(stored.shape)) * stored.dtype.itemsize <= SLAB_BYTES
        return np.asarray(array[(slice(None),) * len(stored.shape)]) if small else array

    def fingerprint(self) -> str:
        """Of the target, by `fingerprint`."""
        stored = self.pair.target
        shape = [stored.size(letter) for letter in self.axes + "C"]
        rest = tuple(slice(0, size) for size in shape[1:])
        nbytes = int(np.prod(shape)) * stored.dtype.itemsize
        return fingerprint(lambda part: self._target((part, *rest)), shape, nbytes)

    def positions(self, foreground: Foreground | None, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """First pixels of n patches, shape (n, d)."""
        slabs = list(self._slabs(self.corners[0], self.shape))
        counts = [int(np.count_nonzero(self._eligible(slab, foreground))) for slab in slabs]
        total = sum(counts)
        if not total:
            raise NothingToSeeError(
                "no patch passes the foreground filter (is the target constant?); take patches of empty background "
                "too (--all-patches; foreground=None), or lower the filter's threshold"
            )
        chosen = rng.choice(total, n, replace=total < n, shuffle=True)
        position = np.empty((n, len(self.size)), np.int64)
        before = 0
        for slab, count in zip(slabs, counts, strict=True):
            here = np.flatnonzero((chosen >= before) & (chosen < before + count))
            if len(here):
                mask = self._eligible(slab, foreground)
                flat = np.flatnonzero(mask)[chosen[here] - before]
                position[here] = np.stack(np.unravel_index(flat, mask.shape), axis=1)
                position[here, 0] += slab.start
            before += count
        return position

    def ranges(
        self,
        percentiles: PatchPercentiles | None,
        n: int,
        rng: np.random.Generator,
        scale: TargetScale = "own",
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw values that become 0 and 1 in each of n patches, for source and target: shape (n, 2, channels).

        Where the target cannot be laid on the source's scale it keeps its own, and `unfitted` says why.
        """
        if percentiles is None:
            return np.empty((n, 0, 0)), np.empty((n, 0, 0))
        pmin, pmax = percentiles.draw(rng, n)
        ranges = []
        for is_target in (False, True):
            low = np.zeros_like(pmin) if percentiles.relu_last and is_target else pmin
            name = "target" if is_target else "source"
            spans = [ranks.span(low, pmax, name=f"{self.pair.name}, {name}") for ranks in self._of(is_target)]
            ranges.append(np.stack([np.stack(span, axis=1) for span in spans], axis=2))
            if scale != "own" and not is_target:
                laid = self._laid(ranges[0], scale)
                if laid is not None:
                    return ranges[0], laid
        return ranges[0], ranges[1]

    def _laid(self, ranges: NDArray[np.float64], scale: TargetScale) -> NDArray[np.float64] | None:
        """The target's values that become 0 and 1 on the source's scale; None where there is no such scale."""
        channels = self.pair.target.size("C")
        if ranges.shape[2] != channels:
            ranges = np.repeat(ranges.mean(axis=2, keepdims=True), channels, axis=2)
        if not np.all(ranges[:, 1] > ranges[:, 0]):
            self.unfitted = "its source is constant"
            return None
        if scale == "source":
            return ranges.copy()
        fits = [self.fit(channel) for channel in range(channels)]
        if not all(fit.holds for fit in fits):
            least = min(fit.correlation for fit in fits)
            self.unfitted = f"it is unlike its source: their correlation is {least:.2f}"
            return None
        laid: NDArray[np.float64] = (ranges - [fit.offset for fit in fits]) / [fit.gain for fit in fits]
        return laid

    def fit(self, channel: int) -> GreyFit:
        """The line from a channel of the target to the source: to the same channel of it where both have equally many,
        else to the mean of its channels; of a projection to the brightest along the axes that the target lacks.
        """
        sums, brightest = FitSums(), None
        over = tuple(self.axes.index(letter) for letter in self.reduced)
        rest = (slice(None),) * (len(self.axes) - 1)
        same = self.pair.source.size("C") == self.pair.target.size("C")
        of_source = slice(channel, channel + 1) if same else slice(None)
        of_target = slice(channel, channel + 1)
        for slab in self._slabs(self.shape[0], self.shape):
            source = np.asarray(self._source((slab, *rest, of_source)))
            source = source[..., 0] if source.shape[-1] == 1 else source.mean(axis=-1, dtype=np.float64)
            if over:
                source = source.max(axis=over, keepdims=True)
            if 0 in over:
                brightest = source if brightest is None else np.maximum(brightest, source)
                continue
            target = self._target((slab, *rest, of_target))[..., 0]
            sums.add(block_means(source, self.axes), block_means(target, self.axes))
        if brightest is not None:
            target = self._target((slice(None), *rest, of_target))[..., 0]
            sums.add(block_means(brightest, self.axes), block_means(target, self.axes))
        return sums.fit()

    def _of(self, is_target: bool) -> list[Ranks]:
        if is_target not in self._ranks:
            stored = self.pair.target if is_target else self.pair.source
            shape = tuple(stored.size(letter) for letter in self.axes)
            read = self._target if is_target else self._source
            rest = (slice(None),) * (len(shape) - 1)
            self._ranks[is_target] = [
                Ranks(
                    (
                        read((slab, *rest, slice(channel, channel + 1)))
                        for slab in self._slabs(shape[0], shape)
                    ),
                    name=f"{self.pair.name}, {'target' if is_target else 'source'}",
                    total=int(np.prod(shape)),
                )
                for channel in range(stored.size("C"))
            ]
        return self._ranks[is_target]

    def _slabs(self, length: int, shape: tuple[int, ...]) -> Iterator[slice]:
        rows = max(1, SLAB_BYTES // 8 // max(1, int(np.prod(shape[1:]))))
        for start in range(0, length, rows):
            yield slice(start, min(start + rows, length))

    def _eligible(self, slab: slice, foreground: Foreground | None) -> NDArray[np.bool_]:
        """Which of the corners of a slab (along the first axis) may be drawn."""
        shape = (slab.stop - slab.start, *self.corners[1:])
        allowed = np.ones(shape, bool)
        rest = (slice(None),) * (len(self.axes) - 1)
        rows = slice(slab.start, slab.stop + self.size[0] - 1)
        there = slice(0, 1) if self.axes[0] in self.reduced else rows
        for channel in range(self.pair.target.size("C")) if foreground is not None else ():
            assert foreground is not None
            values = self._target((there, *rest, slice(channel, channel + 1)))[..., 0]
            level = foreground.level(self._of(True)[channel])
            bright = bright_corners(values, self.target_size, level)
            allowed = np.broadcast_to(bright, shape) if not channel else allowed | bright
        for read, stored, sizes, window in (
            (self._source, self.pair.source, self.size, rows),
            (self._target, self.pair.target, self.target_size, there),
        ):
            if stored.dtype.kind != "f":
                continue
            broken = ~np.isfinite(read((window, *rest, slice(None)))).all(axis=-1)
            if broken.any():
                allowed = allowed & ~any_in_window(broken, sizes)
        if self.pair.mask is not None:
            closed = ~move_axes(self.pair.mask, self.pair.source.axes, self.axes + "C")[(rows, *rest)]
            allowed = allowed & ~any_in_window(np.any(closed, axis=-1), self.size)
        return allowed


def check_pairs(pairs: Sequence[ImagePair], axes: str, size: tuple[int, ...], reduced: str) -> None:
    problems = []
    first = pairs[0]
    for pair in pairs:
        source, target = pair.source, pair.target
        extra = [letter for letter in "STZYX" if letter not in axes and source.size(letter) > 1]
        if extra:
            problems.append(
                f"{pair.name}: has {', '.join(extra)} (axes {source.axes}, shape {source.shape}), the patches "
                f"have axes {axes}; add them to the patches, or give one image a position"
            )
            continue
        small = [letter for letter, pixels in zip(axes, size, strict=True) if source.size(letter) < pixels]
        if small:
            problems.append(
                f"{pair.name}: is smaller than a patch along {', '.join(small)} (axes {source.axes}, "
                f"shape {source.shape}; patch {size} for {axes})"
            )
        for letter in axes:
            wanted = 1 if letter in reduced else source.size(letter)
            if target.size(letter) != wanted:
                problems.append(
                    f"{pair.name}: target (axes {target.axes}, shape {target.shape}) has {target.size(letter)} along "
                    f"{letter} where {wanted} is needed"
                )
        for side, one, model in (("source", source, first.source), ("target", target, first.target)):
            if one.size("C") != model.size("C"):
                problems.append(
                    f"{pair.name}: its {side} has {one.size('C')} channels, that of {first.name} {model.size('C')}"
                )
    if problems:
        raise InputError(
            f"{len(problems)} problems with {len(pairs)} image pairs:\n  " + "\n  ".join(problems)
        )
