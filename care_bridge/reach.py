"""What sizes a network takes and how far it looks, measured by feeding it small tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from care_bridge.predictor import Network
from care_bridge.tiling import round_up


def measured_size_multiple(network: Network, space: str) -> dict[str, int]:
    """What sizes must be multiples of, found by feeding small tensors of zeros.

    Parameters
    ----------
    network : Network
    space : str
        Axes between batch and channels.

    Returns
    -------
    dict of str to int
        The smallest powers of two, up to 64, that the network takes and gives back at the same size; 1 for
        an axis whose size is fixed, or where none is taken.
    """
    fixed = network.input_shape[1:-1]
    lost = len(network.input_shape) - len(network.output_shape)

    def works(sizes: Sequence[int]) -> bool:
        shape = (
            1,
            *(size or free for size, free in zip(fixed, sizes, strict=True)),
            network.input_shape[-1] or 1,
        )
        try:
            result = network(np.zeros(shape, np.float32))
        except Exception:
            # Whatever the runtime calls it, the answer is that this size does not fit.
            return False
        return result.shape[1:-1] == shape[1 + lost : -1]

    powers = [1 << exponent for exponent in range(7)]
    multiple = next((power for power in powers if works([power] * len(space))), 1)
    sizes = [multiple] * len(space)
    for position in range(len(space)):
        for power in powers:
            trial = [*sizes[:position], power, *sizes[position + 1 :]]
            if power >= multiple or works(trial):
                sizes[position] = min(power, multiple)
                break
    return {
        axis: 1 if size is not None else found for axis, size, found in zip(space, fixed, sizes, strict=True)
    }


def measured_receptive_field(
    network: Network, space: str, size_multiple: Mapping[str, int]
) -> dict[str, int]:
    """How far a single changed pixel shows, in pixels a side, by axis.

    Parameters
    ----------
    network : Network
    space : str
        Axes between batch and channels.
    size_multiple : mapping of str to int
        Sizes that are tried are multiples of it.

    Notes
    -----
    Strong changes of both signs at both ends of a pooling block, on noise from a fixed seed. What cannot
    be seen this way does not reach the last bit of a result either; still, a value from the network's
    depth and kernel (`tiling.receptive_field`) is to be preferred.
    """
    limit = 512 if len(space) == 2 else 128
    size, found = 64, dict.fromkeys(space, 0)
    lost = len(network.input_shape) - len(network.output_shape)
    while size <= limit:
        shape = [
            fixed or round_up(size, size_multiple[axis])
            for fixed, axis in zip(network.input_shape[1:-1], space, strict=True)
        ]
        noise = np.random.default_rng(0).random((1, *shape, network.input_shape[-1] or 1), dtype=np.float32)
        plain = network(noise)
        found = dict.fromkeys(space, 0)
        for last in (False, True):
            start = [
                round_up(length // 2, size_multiple[axis]) + (size_multiple[axis] - 1) * last
                for length, axis in zip(shape, space, strict=True)
            ]
            start = [min(position, length - 1) for position, length in zip(start, shape, strict=True)]
            for change in (1e3, -1e3):
                changed = noise.copy()
                changed[(0, *start)] += change
                seen = np.argwhere((network(changed) != plain).any(axis=(0, -1)))
                for column, axis in enumerate(space[lost:]):
                    if len(seen):
                        distances = np.abs(seen[:, column] - start[column + lost])
                        found[axis] = max(found[axis], int(distances.max()))
        if all(
            2 * found[axis] + 2 * size_multiple[axis] < length
            for axis, length in zip(space, shape, strict=True)
        ):
            break
        size *= 2
    return found
