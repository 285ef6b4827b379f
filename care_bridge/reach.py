"""What sizes a network takes, which axis it takes away and how far it looks: measured by feeding it small tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from care_bridge.predictor import Network
from care_bridge.tiling import round_up

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
LONGEST = 2048
"""Longest line of pixels that a receptive field is looked for in."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and reach of a network, a number for each space axis of its input.

    Attributes
    ----------
    size_multiple : tuple of int
        Sizes must be a multiple of it; also the period of its pooling grid.
    receptive_field : tuple of int or None
        Pixels each side that an output pixel hangs on. None: the whole image (instance or group norm), and a
        projected axis.
    dropped : int, optional
        Position of a projected axis among the space axes; None where none is.
    """

    size_multiple: tuple[int, ...]
    receptive_field: tuple[int | None, ...]
    dropped: int | None = None

    @property
    def block_multiple(self) -> int:
        """The plugin's `blockMultiple`: one number for all axes."""
        return int(np.lcm.reduce(self.size_multiple))

    @property
    def overlap(self) -> int | None:
        """The plugin's `overlap` for tiles without seams; None when the network sees the whole image."""
        seen = [reach for axis, reach in enumerate(self.receptive_field) if axis != self.dropped]
        if any(reach is None for reach in seen):
            return None
        return round_up(max((reach or 0 for reach in seen), default=0), self.block_multiple)


def measured_geometry(network: Network, *, seen: Network | None = None) -> Geometry | None:
    """Sizes, reach and projected axis of a network.

    Parameters
    ----------
    network : Network
    seen : Network, optional
        The same connections with weights that hide nothing, such as kernels of ones; the reach is looked for in it.
        None looks in `network` itself.

    Returns
    -------
    Geometry or None
        None where the network keeps the size of no image that was tried: multiples of powers of two up to 64.
    """
    multiple = _multiples(network)
    if multiple is None:
        return None
    dropped = _dropped(network, multiple)
    reach = tuple(_reach(seen or network, axis, multiple, dropped) for axis in range(len(multiple)))
    return Geometry(multiple, reach, dropped)


def measured_size_multiple(network: Network, space: str) -> dict[str, int]:
    """What sizes must be multiples of, by axis.

    Parameters
    ----------
    network : Network
    space : str
        Axes between batch and channels.

    Returns
    -------
    dict of str to int
        Powers of two, up to 64, whose double, triple and fivefold the network takes and gives back; 1 for an axis whose
        size is fixed, or where none is taken.
    """
    multiple = _multiples(network)
    return dict.fromkeys(space, 1) if multiple is None else dict(zip(space, multiple, strict=True))


def measured_lost_axis(network: Network, space: str, size_multiple: Mapping[str, int]) -> str:
    """The axis that a projection network takes away; "" for any other network.

    Parameters
    ----------
    network : Network
    space : str
        Axes between batch and channels.
    size_multiple : mapping of str to int
        Sizes that are tried are multiples of it.
    """
    dropped = _dropped(network, [size_multiple[axis] for axis in space])
    return "" if dropped is None else space[dropped]


def measured_receptive_field(
    network: Network, space: str, size_multiple: Mapping[str, int]
) -> dict[str, int | None]:
    """How far a single changed pixel shows, in pixels a side, by axis; None where it shows in the whole image.

    Parameters
    ----------
    network : Network
    space : str
        Axes between batch and channels.
    size_multiple : mapping of str to int
        Sizes that are tried are multiples of it.

    Notes
    -----
    Seen, not calculated: one pixel is lit at each place of the pooling grid, on black and on noise from a fixed seed,
    and the farthest output that changes is the reach. What cannot be seen this way does not reach the last bit of
    a result either; still, a value from the network's depth and kernel (`tiling.receptive_field`) is to be
    preferred. A projected axis has 0: it is never cut.
    """
    multiple = [size_multiple[axis] for axis in space]
    dropped = _dropped(network, multiple)
    return {
        axis: 0 if place == dropped else _reach(network, place, multiple, dropped)
        for place, axis in enumerate(space)
    }


def _fixed(network: Network) -> tuple[int | None, ...]:
    return network.input_shape[1:-1]


def _zeros(network: Network, sizes: Sequence[int]) -> NDArray[np.float32]:
    """A black image; an axis with a fixed size has that."""
    shape = (fixed or size for fixed, size in zip(_fixed(network), sizes, strict=True))
    return np.zeros((1, *shape, network.input_shape[-1] or 1), np.float32)


def output_sizes(network: Network, sizes: Sequence[int]) -> tuple[int, ...] | None:
    """Sizes of space that come out for these; None where the network fails."""
    try:
        return tuple(network(_zeros(network, sizes)).shape[1:-1])
    except Exception:
        # Whatever the runtime calls it, the answer is that this size does not fit.
        return None


def _multiples(network: Network) -> tuple[int, ...] | None:
    fixed = _fixed(network)
    n_space = len(fixed)
    lost = len(network.input_shape) - len(network.output_shape)

    def kept(sizes: Sequence[int]) -> bool:
        given = _zeros(network, sizes).shape[1:-1]
        # A projection takes one axis away; what takes more makes no image.
        wanted = {given} if not lost else set(itertools.combinations(given, n_space - 1))
        return output_sizes(network, sizes) in wanted

    common = next((m for m in MULTIPLES if all(kept((m * k,) * n_space) for k in (2, 3, 5))), None)
    if common is None:
        return None
    found = []
    for axis in range(n_space):
        tried = (m for m in MULTIPLES if m <= common)
        lines = (
            (m, [[m * k if a == axis else 2 * common for a in range(n_space)] for k in (2, 3, 5)])
            for m in tried
        )
        found.append(1 if fixed[axis] else next((m for m, sizes in lines if all(map(kept, sizes))), common))
    return tuple(found)


def _dropped(network: Network, multiple: Sequence[int]) -> int | None:
    """Which axis is gone; of a network that takes one away."""
    if len(network.output_shape) == len(network.input_shape):
        return None
    sizes = [fixed or m * k for fixed, m, k in zip(_fixed(network), multiple, (2, 3, 5), strict=False)]
    # Different sizes along every axis tell which one is gone.
    while len(set(sizes)) < len(sizes) and None in _fixed(network):
        sizes = [
            fixed or size * (2 + axis)
            for axis, (fixed, size) in enumerate(zip(_fixed(network), sizes, strict=True))
        ]
    out = output_sizes(network, sizes)
    gone = [axis for axis in range(len(sizes)) if (*sizes[:axis], *sizes[axis + 1 :]) == out]
    return gone[0] if gone else 0


def _places(multiple: int) -> list[int]:
    """Places of the pooling grid to light: all of a small one, ends and middle of a large one."""
    if multiple <= 8:
        return list(range(multiple))
    return [0, 1, 2, 3, multiple // 2 - 1, multiple // 2, multiple - 2, multiple - 1]


def _reach(network: Network, axis: int, multiple: Sequence[int], dropped: int | None) -> int | None:
    if axis == dropped:
        return None
    length = 32 * multiple[axis]
    while length <= LONGEST:
        reach, whole = _reach_within(network, axis, length, multiple, dropped)
        if not whole or _fixed(network)[axis]:
            return reach
        length *= 4
    return None


def _reach_within(
    network: Network, axis: int, length: int, multiple: Sequence[int], dropped: int | None
) -> tuple[int, bool]:
    """The reach along a line of pixels, and whether it shows at an end of the line."""
    black = _zeros(network, [length if a == axis else 2 * m for a, m in enumerate(multiple)])
    length = black.shape[1 + axis]
    # On black everything adds up; on noise, products with the image (softmax, gates) show as well.
    noise = np.random.default_rng(0).random(black.shape, np.float32)
    grounds = [(black, 1.0), (noise, 1e4), (noise, -1e4)]
    baselines = [network(black), *[network(noise)] * 2]
    out_axis = 1 + axis - (dropped is not None and dropped < axis)
    others = tuple(a for a in range(baselines[0].ndim) if a != out_axis)
    middle = [size // 2 for size in black.shape[1:-1]]
    reach = 0
    for shift in _places(multiple[axis]):
        place = length // 2 // multiple[axis] * multiple[axis] + shift
        index = (0, *(place if a == axis else at for a, at in enumerate(middle)))
        for (ground, light), baseline in zip(grounds, baselines, strict=True):
            lit = ground.copy()
            lit[index] += light
            changed = np.flatnonzero((network(lit) != baseline).any(axis=others))
            if changed.size:
                reach = max(reach, int(np.abs(changed - place).max()))
                if changed[0] == 0 or changed[-1] == length - 1:
                    return reach, True
    return reach, False
