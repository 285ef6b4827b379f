"""Batches of patches: in an order, and with augmentation, that hang on the seed and the step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.errors import InputError

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Sources and targets, shape (batch, [z,] y, x, channel)."""

INTENSITY_SCALE, INTENSITY_OFFSET = (0.8, 1.25), (-0.1, 0.1)
"""Ranges of the `intensity` augmentation, in normalised intensities; source and target change together."""


class PatchSource(Protocol):
    """Where training patches come from: arrays in memory, or images read while training."""

    def __len__(self) -> int: ...
    def batch(self, indices: NDArray[np.intp]) -> Batch:
        """Normalised patches, channels last. The same index gives the same patch each time."""
        ...


@runtime_checkable
class BatchSource(Protocol):
    """What a training step takes: a batch that hangs on the step's number and the seed alone.

    Two give it: `Passes` goes through stored patches again and again, `streams.Stream` makes new ones.
    """

    def batch_at(self, step: int, *, size: int, seed: int) -> Batch:
        """Normalised patches, channels last. The same step and seed give the same patches."""
        ...

    def fingerprint(self) -> str:
        """Does a resumed run have the same data?"""
        ...


class Arrays:
    """Patches in memory, or in anything that NumPy can index (memory maps).

    Parameters
    ----------
    source, target : array, shape (n, [z,] y, x, channel)
    """

    def __init__(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        if len(source) != len(target):
            raise InputError(f"{len(source)} source patches, but {len(target)} target patches; give pairs")
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        return np.asarray(self.source[indices], np.float32), np.asarray(self.target[indices], np.float32)


def as_source(
    data: PatchSource | tuple[NDArray[Any], NDArray[Any]], config: CareConfig, *, what: str
) -> PatchSource:
    """Check that patches fit a network: the first one's shape, and all values of those in memory.

    Parameters
    ----------
    data : PatchSource or pair of arrays
        Arrays may lack the channel axis where the network has one channel.
    config : CareConfig
    what : str
        How to call the data in messages, e.g. "training".

    Raises
    ------
    InputError
        If there are none, or a shape, the number of channels or a value (NaN) cannot be trained on.
    """
    if isinstance(data, tuple | list):
        source, target = data
        if config.n_channel_in == 1 and source.ndim == config.n_dim + 1:
            source = source[..., np.newaxis]
        if config.n_channel_out == 1 and target.ndim == source.ndim - 1 and config.kind != "ProjectionCARE":
            target = target[..., np.newaxis]
        target = _without_projected(target, source, config)
        data = Arrays(source, target)
    if len(data) == 0:
        raise InputError(f"no {what} patches; give at least one pair of images larger than the patch size")
    _check_shapes(data.batch(np.arange(1)), config, what)
    if isinstance(data, Arrays):
        for name, array in (("source", data.source), ("target", data.target)):
            _check_values(array, f"{what} {name}")
    return data


def _without_projected(target: NDArray[Any], source: NDArray[Any], config: CareConfig) -> NDArray[Any]:
    # csbdeep's projection targets keep the projected axis, with size 1.
    if config.proj_axis is None or target.ndim != source.ndim:
        return target
    position = 1 + config.axes.index(config.proj_axis)
    if target.shape[position] != 1:
        raise InputError(
            f"targets have {target.shape[position]} planes along {config.proj_axis}; a ProjectionCARE "
            "network is trained on projected targets, with one plane"
        )
    projected: NDArray[Any] = target.take(0, axis=position)
    return projected


def _check_shapes(first: Batch, config: CareConfig, what: str) -> None:
    source, target = first
    problems = []
    wanted = tuple(config.axes)
    if source.ndim != 1 + len(wanted):
        raise InputError(
            f"{what} sources have shape {source.shape[1:]}; a network with axes {config.axes!r} takes "
            f"{len(wanted)} dimensions, channels last"
        )
    if source.shape[-1] != config.n_channel_in:
        problems.append(
            f"{what} sources have {source.shape[-1]} channels; n_channel_in={config.n_channel_in}"
        )
    if target.shape[-1] != config.n_channel_target:
        problems.append(
            f"{what} targets have {target.shape[-1]} channels; n_channel_out={config.n_channel_out}"
            + (", each with a mask (method 'n2v')" if config.method == "n2v" else "")
        )
    sizes = dict(zip(config.axes, source.shape[1:], strict=True))
    flat = tuple(sizes[letter] for letter in config.axes_out if letter != "C")
    if target.shape[1:-1] != flat:
        problems.append(f"{what} targets have size {target.shape[1:-1]}; their sources need {flat}")
    for letter, multiple in config.size_multiple.items():
        size = sizes[letter]
        if letter != "C" and size % multiple:
            below = size - size % multiple
            use = f"{below} or {below + multiple}" if below else f"{multiple}"
            hint = ", or pool less along it, e.g. unet_pool=(1, 2, 2)" if letter in "ZT" else ""
            problems.append(
                f"{what} patches have {size} pixels along {letter}; the network needs a multiple of "
                f"{multiple}: use {use}{hint}"
            )
    if problems:
        raise InputError("\n".join(problems))


def _check_values(array: NDArray[Any], what: str) -> None:
    if array.dtype.kind != "f":
        return
    for start in range(0, len(array), 256):
        finite = np.isfinite(array[start : start + 256]).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            number = start + int(np.argmin(finite))
            raise InputError(f"{what} patch {number} holds NaN or infinity; mend or leave out its image")


class Passes:
    """Stored patches, each seen equally often, in a new order each time; `batch_indices`.

    Parameters
    ----------
    patches : PatchSource
    """

    def __init__(self, patches: PatchSource) -> None:
        self.patches = patches

    def batch_at(self, step: int, *, size: int, seed: int) -> Batch:
        return self.patches.batch(batch_indices(step, n=len(self.patches), batch_size=size, seed=seed))

    def fingerprint(self) -> str:
        return fingerprint(self.patches)


def as_batches(
    data: BatchSource | PatchSource | tuple[NDArray[Any], NDArray[Any]], config: CareConfig
) -> BatchSource:
    """What training steps are to take, checked against the network; see `as_source`."""
    if isinstance(data, BatchSource):
        _check_shapes(data.batch_at(0, size=1, seed=config.seed), config, "training")
        return data
    return Passes(as_source(data, config, what="training"))


def fingerprint(data: PatchSource) -> str:
    """SHA-256 of the number of patches and of up to 16 of them: does a resumed run have the same data?"""
    digest = hashlib.sha256(str(len(data)).encode())
    for index in np.unique(np.linspace(0, len(data) - 1, 16).astype(np.intp)):
        for array in data.batch(np.asarray([index])):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def batch_indices(step: int, *, n: int, batch_size: int, seed: int) -> NDArray[np.intp]:
    """Which patches a training step takes.

    Batches roll over permutations of all patches, so every patch is seen equally often whatever the batch
    size (csbdeep's RollingSequence). A permutation hangs on the seed and its number alone: nothing has to be
    remembered to go on from any step.
    """
    parts, position, wanted = [], step * batch_size, batch_size
    while wanted:
        loop, start = divmod(position, n)
        part = np.random.default_rng([seed, 0, loop]).permutation(n)[start : start + wanted]
        parts.append(part)
        position, wanted = position + len(part), wanted - len(part)
    return np.concatenate(parts)


def augment(
    batch: Batch, *, how: Sequence[str], axes: str, axes_out: str, random: np.random.Generator
) -> Batch:
    """Flip, turn and scale each pair of a batch at random.

    Parameters
    ----------
    batch : Batch
    how : sequence of str
        `flips` along each space axis, `rot90` in the plane of Y and X (all eight symmetries with both),
        `intensity`: one factor and offset for source and target, within `INTENSITY_SCALE` and
        `INTENSITY_OFFSET`.
    axes, axes_out : str
        Axes of sources and targets, C last.
    random : numpy.random.Generator
    """
    pairs = [
        _augment_pair(source, target, how=how, axes=axes, axes_out=axes_out, random=random)
        for source, target in zip(*batch, strict=True)
    ]
    sources, targets = zip(*pairs, strict=True)
    return np.stack(sources), np.stack(targets)


def _augment_pair(
    source: Any, target: Any, *, how: Sequence[str], axes: str, axes_out: str, random: np.random.Generator
) -> Batch:
    if "flips" in how:
        for letter in axes.replace("C", ""):
            if random.random() < 0.5:
                source = np.flip(source, axes.index(letter))
                target = np.flip(target, axes_out.index(letter)) if letter in axes_out else target
    if "rot90" in how:
        turns = int(random.integers(4))
        if source.shape[axes.index("Y")] != source.shape[axes.index("X")]:
            turns -= turns % 2  # oblong patches can only be turned upside down
        source = np.rot90(source, turns, (axes.index("Y"), axes.index("X")))
        target = np.rot90(target, turns, (axes_out.index("Y"), axes_out.index("X")))
    if "intensity" in how:
        scale = np.float32(random.uniform(*INTENSITY_SCALE))
        offset = np.float32(random.uniform(*INTENSITY_OFFSET))
        source, target = source * scale + offset, target * scale + offset
    return source, target


def batches(
    data: BatchSource, config: CareConfig, *, start: int, stop: int, per_step: int = 1
) -> Iterator[Batch]:
    """Training batches of steps `start` to `stop`, made one ahead in a thread while the network computes.

    A step that takes several gets them as one.
    """

    def make(step: int) -> Batch:
        batch = data.batch_at(step, size=config.train_batch_size * per_step, seed=config.seed)
        if not config.train_augment:
            return batch
        random = np.random.default_rng([config.seed, 1, step])
        return augment(
            batch, how=config.train_augment, axes=config.axes, axes_out=config.axes_out, random=random
        )

    if start >= stop:
        return
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(make, start)
        for step in range(start + 1, stop + 1):
            batch = ahead.result()
            if step < stop:
                ahead = thread.submit(make, step)
            yield batch
