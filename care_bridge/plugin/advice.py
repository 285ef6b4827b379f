"""What to type into "Run your network" so that nothing shows of the tiles; needs neither TensorFlow nor Java."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import FIJI
from care_bridge.plugin.emulation import EmulatedPlugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import Plan, PluginError, plan
from care_bridge.predictor import PredictOptions
from care_bridge.progress import Progress, silent
from care_bridge.tiling import receptive_field, round_up

DEFAULT_MEMORY_BYTES = 2 * 1024**3
"""What the network may take beside the image."""

BYTES_PER_FEATURE = 24
"""Of one pixel and one feature of the first level: measured 20 in TensorFlow 2.21 (1024 x 1024 and 16 x 256 x 256)."""

_MOST_TILES = 4096
_MOST_MULTIPLES = 64
_WHOLE_COPIES = 4  # the image as float, normalised, sorted for the percentiles, and the result


@dataclass(frozen=True)
class Advice:
    """Values to type, and what they give.

    Attributes
    ----------
    options : PluginOptions
    plan : Plan
        How the plugin cuts this image with them.
    halo_px, size_multiple : int
        What the network needs: receptive field a side, and the multiple of its sizes; the largest of all
        axes.
    network_bytes : int
        What the network takes for one tile, estimated.
    image_bytes : int
        What the plugin takes for the whole image, whatever the tiles.
    fits : bool
        Whether `network_bytes` is within the memory that was given.
    notes : tuple of str
        What a person should know beside the values.
    """

    options: PluginOptions
    plan: Plan
    halo_px: int
    size_multiple: int
    network_bytes: int
    image_bytes: int
    fits: bool
    notes: tuple[str, ...]


def advise(
    shape: Sequence[int],
    axes: str,
    *,
    size_multiple: Mapping[str, int] | None = None,
    halo: Mapping[str, int] | None = None,
    n_depth: int = 2,
    kern_size: int | Sequence[int] = 5,
    pool: int | Sequence[int] = 2,
    n_first: int = 32,
    n_channel_out: int = 1,
    space: str = "YX",
    output_rank_lost: Literal[0, 1] = 0,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    options: PluginOptions | None = None,
) -> Advice:
    """nTiles, blockMultiple and overlap for no seams and no lost rows within a memory budget.

    Parameters
    ----------
    shape : sequence of int
        Sizes of the image, NumPy order.
    axes : str
        Letters of TCZYX, as for `plan.plan`.
    size_multiple, halo : mapping of str to int, optional
        What the network's sizes must be multiples of, and its receptive field in pixels a side, by axis.
        None works them out of the U-Net's `n_depth`, `kern_size` and `pool`.
    n_depth, kern_size, pool : int, or for the last two a sequence of int
        Of the U-Net, as `tiling.receptive_field` takes them.
    n_first : int
        Features of the first level; says how much memory a pixel takes.
    n_channel_out : int
        Output channels.
    space : str
        The network's axes of space: "YX" or "ZYX".
    output_rank_lost : int
        1 for a projection network.
    memory_bytes : int
        What the network may take.
    options : PluginOptions, optional
        Where the other options come from.

    Returns
    -------
    Advice
        With as few tiles as fit; one tile is best, because it has no margins that see a mirrored image.

    Raises
    ------
    PluginRefusal, PluginFailure
        If the plugin gives nothing for such an image, whatever the tiles.
    InputError
        If there is no memory to plan with.
    """
    if memory_bytes <= 0:
        raise InputError(f"memory_bytes={memory_bytes} must be more than nothing")
    if halo is None:
        halo = receptive_field(n_depth=n_depth, kern_size=kern_size, pool=pool, axes=space)
    if size_multiple is None:
        pools = [pool] * len(space) if isinstance(pool, int) else list(pool)
        size_multiple = {axis: factor**n_depth for axis, factor in zip(space, pools, strict=True)}
    multiple = math.lcm(*(size_multiple.get(axis, 1) for axis in space))
    reach = max(halo.get(axis, 0) for axis in space)
    overlap = round_up(reach, multiple)
    channels = dict(zip(axes.upper(), shape, strict=True)).get("C", 1)
    input_shape = (None,) * (len(space) + 1) + (channels,)
    output_shape = (None,) * (len(space) + 1 - output_rank_lost) + (n_channel_out,)
    base = (options or PluginOptions()).replace(overlap=overlap)

    def planned(n_tiles: int, block: int) -> Plan:
        return plan(
            shape,
            axes,
            input_shape=input_shape,
            output_shape=output_shape,
            options=base.replace(nTiles=n_tiles, blockMultiple=block),
        )

    most = 1 if output_rank_lost else _MOST_TILES
    best = _best(_without_loss(planned, multiple, most), n_first, memory_bytes)
    found, n_tiles, block = best or (planned(1, multiple), 1, multiple)
    taken = _network_bytes(found, n_first)
    return Advice(
        options=base.replace(nTiles=n_tiles, blockMultiple=block),
        plan=found,
        halo_px=reach,
        size_multiple=multiple,
        network_bytes=taken,
        image_bytes=_WHOLE_COPIES * 4 * math.prod(shape),
        fits=taken <= memory_bytes,
        notes=_notes(
            found, shape, axes, taken=taken, memory_bytes=memory_bytes, projection=bool(output_rank_lost)
        ),
    )


_Candidate = tuple[Plan, int, int]  # with its number of tiles and their multiple


def _without_loss(planned: Callable[[int, int], Plan], multiple: int, most: int) -> Iterator[_Candidate]:
    """Ways of cutting that lose no rows, with more and more tiles, until more of them cut no finer."""
    seen: set[tuple[int, ...]] = set()
    n_tiles = 1
    while n_tiles <= most:
        found = planned(n_tiles, multiple)
        assert found.layout is not None
        n_tiles = max(n_tiles, found.n_tiles)
        if found.layout.counts in seen:
            return
        seen.add(found.layout.counts)
        block = multiple
        while any(found.lost.values()) and block < _MOST_MULTIPLES * multiple:
            block += multiple
            found = planned(n_tiles, block)
        if not any(found.lost.values()):
            yield found, n_tiles, block
        n_tiles += 1


def _best(candidates: Iterable[_Candidate], n_first: int, memory_bytes: int) -> _Candidate | None:
    """The first that fits into the memory, else the one that needs the least."""
    best: _Candidate | None = None
    for candidate in candidates:
        taken = _network_bytes(candidate[0], n_first)
        if best is None or taken < _network_bytes(best[0], n_first):
            best = candidate
        if taken <= memory_bytes:
            break
    return best


def _network_bytes(found: Plan, n_first: int) -> int:
    assert found.layout is not None
    pixels = math.prod(
        block + 2 * pad
        for block, pad, axis in zip(found.layout.blocks, found.layout.pad, found.tile_axes, strict=False)
        if axis != "C"
    )
    return pixels * n_first * BYTES_PER_FEATURE


def _notes(
    found: Plan, shape: Sequence[int], axes: str, *, taken: int, memory_bytes: int, projection: bool
) -> tuple[str, ...]:
    notes = []
    if taken > memory_bytes:
        cure = (
            "a projection cannot be cut; crop the image"
            if projection
            else "crop the image, or give more memory"
        )
        notes.append(f"even the smallest tiles take about {_gib(taken)} of {_gib(memory_bytes)}; {cure}")
    if found.n_tiles > 1:
        notes.append("with more than one tile, the image's border sees its mirror image instead of zeros")
    else:
        sizes = dict(zip(axes.upper(), shape, strict=True))
        filled = [
            axis
            for axis, size in zip(found.tile_axes, found.layout.filled if found.layout else (), strict=False)
            if axis in sizes and axis != "C" and size != sizes[axis]
        ]
        if filled:
            notes.append(
                f"{' and '.join(filled)} are filled up by mirroring at the far end, where Python reflects half "
                "before and half after; crop to a multiple to have both the same"
            )
    if any(size == 1 for size in shape):
        notes.append("remove axes with a single position first (Image > Hyperstacks > Reduce Dimensionality)")
    return tuple(notes)


def _gib(count: float) -> str:
    return f"{count / 1024**3:.2g} GiB"


@dataclass(frozen=True)
class Expected:
    """How far Fiji's result will be from Python's, on the normalised scale.

    Attributes
    ----------
    what : str
        Which options: "advised" or "plugin's defaults".
    options : PluginOptions
    tiles_max, tiles_rmse : float
        Against Python with the same normalisation and no tiles: what tiles, margins and filling cost. NaN
        where the plugin gives no result.
    interior_max : float
        As tiles_max, at least a receptive field away from the image's border: what seams cost. NaN where nothing
        is that far away.
    csbdeep_max, csbdeep_rmse : float
        Against csbdeep's own prediction, brought to the same scale: what its other percentiles and Fiji's
        floor at zero cost too.
    reason : str
        Why the plugin gives no result; "" where it does.
    """

    what: str
    options: PluginOptions
    tiles_max: float
    tiles_rmse: float
    interior_max: float
    csbdeep_max: float
    csbdeep_rmse: float
    reason: str = ""


def expected_differences(
    predictor: NetworkPredictor,
    image: Image,
    advised: PluginOptions,
    *,
    progress: Progress = silent,
) -> tuple[Expected, ...]:
    """Run the network here as Fiji and as Python would, with the advised values and with the plugin's
    defaults.

    Parameters
    ----------
    predictor : NetworkPredictor
        Python's way; its options are not looked at.
    image : Image
    advised : PluginOptions
    progress : Progress

    Returns
    -------
    tuple of Expected
        Advised first.
    """
    python = predictor.with_options(PredictOptions(denormalize=False))
    same = PredictOptions(
        rule=FIJI, pmin=advised.percentileBottom, pmax=advised.percentileTop, denormalize=False
    )
    plain = predictor.with_options(same).predict(image)
    own = python.predict(image)
    defaults = PluginOptions(
        percentileBottom=advised.percentileBottom,
        percentileTop=advised.percentileTop,
        batchSize=advised.batchSize,
    )
    rows = []
    for number, (what, options) in enumerate((("advised", advised), ("plugin's defaults", defaults))):
        progress(number, 2, "comparing")
        rows.append(_expected(what, predictor, options, image, plain, own))
    progress(2, 2, "comparing")
    return tuple(rows)


def _expected(
    what: str, predictor: NetworkPredictor, options: PluginOptions, image: Image, plain: Image, own: Image
) -> Expected:
    try:
        result = EmulatedPlugin(predictor.network, options).predict(image)
    except PluginError as error:
        nothing = math.nan
        return Expected(what, options, nothing, nothing, nothing, nothing, nothing, error.reason)
    sizes = [np.abs(result.data.astype(np.float64) - _aligned(other, result)) for other in (plain, own)]
    halo = predictor.halo
    inside = sizes[0][
        tuple(
            slice(halo.get(axis, 0), max(size - halo.get(axis, 0), 0))
            for axis, size in zip(result.axes, result.shape, strict=True)
        )
    ]
    return Expected(
        what,
        options,
        tiles_max=float(sizes[0].max()),
        tiles_rmse=float(np.sqrt(np.mean(sizes[0] ** 2))),
        interior_max=float(inside.max()) if inside.size else math.nan,
        csbdeep_max=float(sizes[1].max()),
        csbdeep_rmse=float(np.sqrt(np.mean(sizes[1] ** 2))),
    )


def _aligned(image: Image, like: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Pixels with the axes of another image, which dropped those with one position and may order them otherwise."""
    kept = tuple(slice(None) if axis in like.axes else 0 for axis in image.axes)
    axes = "".join(axis for axis in image.axes if axis in like.axes)
    return image.data[kept].transpose([axes.index(axis) for axis in like.axes])
