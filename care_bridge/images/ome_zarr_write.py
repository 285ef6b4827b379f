"""OME-Zarr, written: its arrays, the smaller copies that viewers show, and last what says that it is an image.

The metadata come last, so that what is unfinished is no image to any reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
from care_bridge.defaults import OME_ZARR, OME_ZARRS
from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.images.image import Channel
from care_bridge.images.ome_zarr import is_zarr, names_image
from care_bridge.images.units import UM_PER_UNIT
from care_bridge.progress import Progress, silent

STORED = "TCZYX"
"""Order of axes that the specification wants."""

Box = tuple[slice, ...]

_UNITS = {
    1.0: "micrometer", 1e-3: "nanometer", 1e-6: "picometer", 1e-4: "angstrom", 1e3: "millimeter", 1e4: "centimeter",
    1e6: "meter", 25400.0: "inch",
}  # fmt: skip
_KINDS = {"T": "time", "C": "channel"}
CHUNK_PX = {"Z": 32, "Y": 256, "X": 256}
_SHARD_PX = 1 << 24
_SMALL_SHARD_PX = 1 << 21  # eight times as much is read for one of a smaller copy
_SMALLEST_PX = 256
_ALIKE = 1.5  # Z is halved too where its pixels are no longer than so many times those of the plane
_COLOURS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


@dataclass(frozen=True)
class ZarrPlan:
    """What an OME-Zarr is to be.

    Attributes
    ----------
    axes : str
        In the order that is stored.
    shape : tuple of int
    dtype : dtype
    chunks : tuple of int
    shards : tuple of int, optional
        What is written at once, whole chunks; None where each chunk is a file.
    version : str
        One of `defaults.OME_ZARRS`.
    pixel_size_um, frame_interval_s, unit, name, channels
        As of `Image`.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    version: str = OME_ZARR
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_interval_s: float | None = None
    unit: str = "micron"
    name: str = ""
    channels: tuple[Channel, ...] = ()

    def replace(self, **changes: Any) -> ZarrPlan:
        """The same plan with some changed."""
        return replace(self, **changes)

    @property
    def block(self) -> tuple[int, ...]:
        """What one writer writes as a whole: two in one of these would lose pixels."""
        return self.shards or self.chunks


def plan_ome_zarr(
    axes: str, shape: Sequence[int], dtype: np.dtype[Any], *, version: str = OME_ZARR, **meaning: Any
) -> ZarrPlan:
    """Chunks of some megabytes, in shards of some ten where the version has them.

    Raises
    ------
    InputError
        If the version is none of `defaults.OME_ZARRS`, or there is an axis S.
    """
    if version not in OME_ZARRS:
        raise InputError(f"OME-Zarr {version!r} is not written; use one of {', '.join(OME_ZARRS)}")
    if "S" in axes:
        raise InputError("OME-Zarr has no axis S (a series of images); write them one by one")
    chunks = tuple(min(size, CHUNK_PX.get(letter, 1)) for letter, size in zip(axes, shape, strict=True))
    shards = _sharded(chunks, shape, _SHARD_PX) if version != "0.4" else None
    return ZarrPlan(axes, tuple(shape), np.dtype(dtype), chunks, shards, version, **meaning)


def _sharded(chunks: tuple[int, ...], shape: Sequence[int], most_px: int) -> tuple[int, ...]:
    """Chunks joined from the last axis on, as long as they stay below a size."""
    shards = list(chunks)
    for number in reversed(range(len(shards))):
        most = -(-shape[number] // chunks[number])
        fits = max(1, most_px // math.prod(shards))
        shards[number] *= min(most, fits)
    return tuple(shards)


def create_level(folder: Path, plan: ZarrPlan, level: int = 0) -> Any:
    """An array, without pixels yet, as `level` of an image; returned as zarr has it."""
    import zarr

    where: dict[str, Any] = {"store": str(folder / str(level)), "shape": plan.shape, "dtype": plan.dtype}
    if plan.version == "0.4":
        from numcodecs import Blosc

        return zarr.create_array(
            **where,
            chunks=plan.chunks,
            zarr_format=2,
            compressors=Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
        )
    from zarr.codecs import BloscCodec

    return zarr.create_array(
        **where,
        chunks=plan.chunks,
        shards=plan.shards,
        zarr_format=3,
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=plan.dtype.itemsize),
        dimension_names=[letter.lower() for letter in plan.axes],
        fill_value=0,
    )


def open_level(folder: Path, level: int = 0) -> Any:
    """An array of an image that is being written, to be written into."""
    import zarr

    return zarr.open_array(store=str(folder / str(level)), mode="r+")


def boxes(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """All blocks of an array in C order, those at its ends cut."""
    counts = [-(-size // edge) for size, edge in zip(shape, block, strict=True)]
    for place in np.ndindex(*counts):
        yield tuple(
            slice(number * edge, min((number + 1) * edge, size))
            for number, edge, size in zip(place, block, shape, strict=True)
        )


# --- smaller copies


@dataclass(frozen=True)
class Level:
    """One size of a pyramid: what its array is, and how many pixels of the image are one of it, by axis."""

    plan: ZarrPlan
    factors: tuple[int, ...]


def pyramid(plan: ZarrPlan) -> list[Level]:
    """The sizes of an image, its own first; each half the one before, until a plane has at most 256 pixels a side."""
    levels = [Level(plan, (1,) * len(plan.axes))]
    sizes = dict(plan.pixel_size_um)
    while max(plan.shape[plan.axes.index(letter)] for letter in "YX") > _SMALLEST_PX:
        halved = "YX"
        z, x = sizes.get("Z"), sizes.get("X")
        if z is not None and x is not None and z <= _ALIKE * x:
            halved = SPACE
        steps = tuple(
            2 if letter in halved and size > 1 else 1
            for letter, size in zip(plan.axes, plan.shape, strict=True)
        )
        sizes = {letter: size * (2 if letter in halved else 1) for letter, size in sizes.items()}
        shape = tuple(-(-size // step) for size, step in zip(plan.shape, steps, strict=True))
        # Chunks stay whole parts of shards, whatever tiles the first level was written in.
        smaller = plan_ome_zarr(plan.axes, shape, plan.dtype, version=plan.version)
        shards = _sharded(smaller.chunks, shape, _SMALL_SHARD_PX) if smaller.shards else None
        plan = replace(plan, shape=shape, chunks=smaller.chunks, shards=shards)
        levels.append(Level(plan, tuple(a * b for a, b in zip(levels[-1].factors, steps, strict=True))))
    return levels


def write_pyramid(
    folder: Path,
    plan: ZarrPlan,
    *,
    finished: Callable[[int], object] = lambda level: None,
    first: int = 1,
    progress: Progress = silent,
) -> None:
    """Write the smaller copies of an image whose pixels are there, each from the one before.

    Parameters
    ----------
    folder : Path
    plan : ZarrPlan
    finished : callable
        Told the number of each level that is whole.
    first : int
        Where to go on.
    progress : Progress
    """
    import shutil

    levels = pyramid(plan)
    for number, (above, level) in enumerate(pairwise(levels), start=1):
        if number < first:
            continue
        shutil.rmtree(folder / str(number), ignore_errors=True)  # half of it is there after a kill
        source, target = open_level(folder, number - 1), create_level(folder, level.plan, number)
        steps = tuple(b // a for a, b in zip(above.factors, level.factors, strict=True))
        places = list(boxes(level.plan.shape, level.plan.block))
        for done, box in enumerate(places, start=1):
            wide = tuple(
                slice(part.start * step, min(part.stop * step, size))
                for part, step, size in zip(box, steps, above.plan.shape, strict=True)
            )
            target[box] = _means(np.asarray(source[wide]), steps)
            progress(done, len(places), f"smaller copies: {number} of {len(levels) - 1}")
        finished(number)


def _means(data: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Mean of each block; one that the image's end cuts is the mean of what is there."""
    wide = (
        np.float64
        if (data.dtype.itemsize > 2 and data.dtype.kind in "ui") or data.dtype.itemsize > 4
        else np.float32
    )
    result = data.astype(wide)
    for axis, step in enumerate(steps):
        if step == 1:
            continue
        if result.shape[axis] % step:
            last = result.take([-1], axis=axis)
            result = np.concatenate([result, last], axis=axis)
        shape = (*result.shape[:axis], result.shape[axis] // step, step, *result.shape[axis + 1 :])
        result = result.reshape(shape).mean(axis=axis + 1, dtype=wide)
    return (np.rint(result) if data.dtype.kind in "ui" else result).astype(data.dtype)


# --- what says that it is an image


def write_metadata(folder: Path, plan: ZarrPlan, *, provenance: str = "") -> None:
    """Say what an image is, whose arrays are all there."""
    levels = pyramid(plan)
    ome: dict[str, Any] = {
        "multiscales": [
            {
                **({"name": plan.name} if plan.name else {}),
                "axes": [_axis(letter, plan) for letter in plan.axes],
                "datasets": [
                    {"path": str(number), "coordinateTransformations": _transformations(plan, level)}
                    for number, level in enumerate(levels)
                ],
                "type": "mean",
            }
        ],
        "omero": {"channels": _omero(folder, plan, len(levels) - 1)},
    }
    own = {"care_bridge": {"provenance": provenance}} if provenance else {}
    if plan.version == "0.4":
        ome["multiscales"][0]["version"] = ome["omero"]["version"] = plan.version
        write_text(folder / ".zgroup", _json({"zarr_format": 2}))
        write_text(folder / ".zattrs", _json({**ome, **own}))
    else:
        attributes = {"ome": {"version": plan.version, **ome}, **own}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        write_text(folder / "zarr.json", _json(group))


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _axis(letter: str, plan: ZarrPlan) -> dict[str, str]:
    axis = {"name": letter.lower(), "type": _KINDS.get(letter, "space")}
    if letter in plan.pixel_size_um:
        axis["unit"] = _UNITS[UM_PER_UNIT.get(plan.unit.lower(), 1.0)]
    elif letter == "T" and plan.frame_interval_s is not None:
        axis["unit"] = "second"
    return axis


def _transformations(plan: ZarrPlan, level: Level) -> list[dict[str, Any]]:
    um = UM_PER_UNIT.get(plan.unit.lower(), 1.0)
    size = {letter: size / um for letter, size in plan.pixel_size_um.items()}
    if plan.frame_interval_s is not None:
        size["T"] = plan.frame_interval_s
    sizes = [size.get(letter, 1.0) for letter in plan.axes]
    found = [
        {"type": "scale", "scale": [one * factor for one, factor in zip(sizes, level.factors, strict=True)]}
    ]
    if max(level.factors) > 1:
        # The middle of a mean lies between the pixels that it is made of.
        shift = [one * (factor - 1) / 2 for one, factor in zip(sizes, level.factors, strict=True)]
        found.append({"type": "translation", "translation": shift})
    return found


def _omero(folder: Path, plan: ZarrPlan, coarsest: int) -> list[dict[str, Any]]:
    """Names, colours and contrast of the channels; the contrast from the smallest copy."""
    data = np.asarray(open_level(folder, coarsest)[...])
    at = plan.axes.find("C")
    count = plan.shape[at] if at >= 0 else 1
    found = []
    for number in range(count):
        own = data.take(number, axis=at) if at >= 0 else data
        finite = own[np.isfinite(own)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        limits = np.iinfo(plan.dtype) if plan.dtype.kind in "ui" else None
        channel = plan.channels[number] if plan.channels else Channel()
        plain = "FFFFFF" if count == 1 else _COLOURS[number % len(_COLOURS)]
        found.append(
            {
                "label": channel.name or f"Channel {number}",
                "color": channel.colour or plain,
                "active": True,
                "window": {
                    "min": low if limits is None else float(limits.min),
                    "max": high if limits is None else float(limits.max),
                    "start": low,
                    "end": high if high > low else low + 1,
                },
            }
        )
    return found


def check_replaceable(path: Path) -> None:
    """Refuse to put an image where something else lies than an image of this kind.

    Raises
    ------
    InputError
        If a file is there, or a folder that holds something and is no OME-Zarr.
    """
    if path.is_file():
        raise InputError(f"{str(path)!r} is a file, and an OME-Zarr is a folder; name another")
    if path.is_dir() and any(path.iterdir()) and not (is_zarr(path) and names_image(path)):
        raise InputError(
            f"{str(path)!r} is a folder that is no OME-Zarr image, so it is not replaced; name another"
        )
