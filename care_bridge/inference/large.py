"""Restoring images that memory cannot hold: read, restored and written piece by piece, and gone on with after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from care_bridge.cluster import Cluster, computing, held
from care_bridge.defaults import MEMORY_GIB, OME_ZARR
from care_bridge.errors import InputError
from care_bridge.files import sha256, write_text
from care_bridge.guard import Likeness
from care_bridge.images import (
    ZARR,
    Channel,
    Image,
    Volume,
    WriteReport,
    is_zarr,
    open_volume,
)
from care_bridge.images.ome_zarr_write import pyramid
from care_bridge.images.storage import DTYPES, for_storage
from care_bridge.images.target import Target, plan_target
from care_bridge.memory import free_bytes
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.noise import Noise
from care_bridge.normalize import PercentileRule, Undo
from care_bridge.piecewise import Pieces, Prepared
from care_bridge.predictor import Predictor, mean_channels, on_network_scale, scale_channels
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles
from care_bridge.unfinished import Unfinished, move_out, unfinished

Look = Callable[[Image, Sequence[Noise] | None], Likeness]
Opener = Callable[[], tuple[Predictor, Look | None]]
"""Gives a worker the predictor, and what says whether an image is familiar; its `repr` tells models apart."""

_COPIES = 6
"""So many times its pixels as float32 an image takes while it is restored in memory."""

_MODEL_FILES = (".h5", ".keras", ".onnx", ".zip", ".json", ".pb")


def restores_piecewise(predictor: Predictor) -> bool:
    """Whether a predictor can restore an image piece by piece: those of a bare network can, in csbdeep's tiles."""
    return isinstance(predictor, NetworkPredictor) and not isinstance(predictor.options.tiles, FijiTiles)


def fits_memory(shape: tuple[int, ...]) -> bool:
    """Whether an image of a shape can be restored in the memory that is free."""
    return _COPIES * 4 * prod(shape) <= free_bytes()


def predict_volume(
    predictor: Predictor,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    dtype: DTypeLike | None = np.float32,
    scales: bool = False,
    resume: bool = False,
    memory_gib: float = MEMORY_GIB,
    ome_zarr: str = OME_ZARR,
    shards: Mapping[str, int] | None = None,
    model: str = "",
    provenance: str = "",
    cluster: Cluster | None = None,
    opener: Opener | None = None,
    progress: Progress = silent,
) -> list[WriteReport]:
    """Restore an image of any size, to a file that appears when it is whole.

    Parameters
    ----------
    predictor : Predictor
        Of a bare network (`restores_piecewise`). With the same `n_tiles` in memory it gives the same bits.
    source : path
        OME-Zarr or TIFF.
    out : path
        A name ending in .zarr gives an OME-Zarr, .tif a TIFF (BigTIFF above 4 GB). What is unfinished lies beside it,
        in a folder of that name with ``.unfinished`` behind.
    axes, channel, series, dtype, scales, provenance
        As for `inference.files.predict_files`.
    resume : bool
        Go on where a run of the same job was ended, however it was.
    memory_gib : float
        What this process may take; decides how large tiles are where the predictor's options do not.
    ome_zarr : str
        Version that is written.
    shards : mapping of str to int, optional
        Pixels in a file of an OME-Zarr, along axes that are named; None: those of a tile.
    model : str
        What tells one model from another, e.g. of `model_state`; work is not gone on with by another.
    cluster : Cluster, optional
        Whose workers restore the pieces; all of them see the same files under the same names. None does it here.
    opener : callable, optional
        With a cluster: can be sent to its workers, and gives them the predictor (`opening.Opening`).
    progress : Progress

    Returns
    -------
    list of WriteReport
        Of the image, and of its widths where they are asked for.

    Raises
    ------
    InputError
        If something lies at `out` or it would replace the source, another run writes it, or there is unfinished work of
        another job; as `predictor.predict`.
    """
    given: dict[str, Any] = {
        "source": Path(source).absolute(),
        "out": Path(out).absolute(),
        "axes": axes,
        "channel": channel,
        "series": series,
        "dtype": dtype,
        "scales": scales,
        "memory_gib": memory_gib,
        "ome_zarr": ome_zarr,
        "shards": shards,
        "model": model,
    }
    job = plan_volume(predictor, **given)
    with unfinished(job.out, job.said, resume=resume) as work:
        ranges = find_ranges(job, work, progress)
        begin_targets(job, work, provenance)
        left = [number for number in range(job.pieces.n) if str(number) not in work.done]
        if cluster is None:
            restored = _restored(job, work.folder, ranges, left)
        elif opener is None:
            raise TypeError("a cluster's workers need an opener")
        else:
            sent = _Sent(opener, given, work.folder, ranges)
            restored = cluster.each(_restored_there, left, sent)
        for number, (piece, told) in enumerate(restored, start=1):
            work.mark(str(piece), told)
            progress(job.pieces.n - len(left) + number, job.pieces.n, "restoring: pieces")
        return finish(job, work, provenance, progress)


@dataclass(frozen=True, eq=False)
class _Sent:
    """What a worker needs to restore any piece of a volume."""

    opener: Opener
    given: dict[str, Any]
    folder: Path
    ranges: list[Undo]


def _restored_there(sent: _Sent, number: int) -> list[float]:
    """Restore and write one piece in a worker, which keeps the model and the plan for the next."""
    key = repr(sent.opener)
    predictor = held(f"model:{key}", sent.opener)[0]
    job = held(f"volume:{key}{sent.given}", lambda: plan_volume(predictor, **sent.given))
    prepared = job.pieces.prepare(number, sent.ranges)
    with computing:
        result = job.pieces.restore(prepared)
    return write_piece(job, sent.folder, number, result, prepared.part)


@dataclass(frozen=True, eq=False)
class VolumeJob:
    """A volume, how it is restored, and where that goes.

    Attributes
    ----------
    pieces : Pieces
    out : Path
    targets : dict of str to Target
        By the name that each has in the folder of unfinished work: the image, and its widths.
    said : dict
        What makes it another job if it changes, in plain values.
    """

    pieces: Pieces
    out: Path
    targets: dict[str, Target]
    said: dict[str, Any]

    @property
    def places(self) -> dict[str, Path]:
        """Where each target lies in the end."""
        image, *widths = self.targets
        found = {name: self.out.with_name(_with_scale(self.out.name)) for name in widths}
        return {**found, image: self.out}  # the image last: it says that all is done


def plan_volume(
    predictor: Predictor,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    dtype: DTypeLike | None = np.float32,
    scales: bool = False,
    memory_gib: float = MEMORY_GIB,
    ome_zarr: str = OME_ZARR,
    shards: Mapping[str, int] | None = None,
    model: str = "",
) -> VolumeJob:
    """What `predict_volume` does, before anything is read or written; the same on every machine."""
    if not isinstance(predictor, NetworkPredictor) or not restores_piecewise(predictor):
        raise InputError(
            "piece by piece only a network alone is run, not one that upsamples stacks, looks from two sides, or runs in "
            "Fiji; cut the image into parts"
        )
    source, out = Path(source), Path(out)
    _check_places(source, out)
    volume = open_volume(source, axes, series=series).only_channel(channel)
    pieces = Pieces(predictor, volume, memory_gib=memory_gib)
    kind = _kept(volume) if dtype is None else np.dtype(dtype)
    if kind.name not in DTYPES:
        raise InputError(f"dtype={kind} is not written; use one of {', '.join(DTYPES)}")
    if kind.kind in "ui" and on_network_scale(predictor):
        raise InputError(
            f"--dtype {kind}: the results stay normalised, in the range of about 0 to 1, which is next to no grey levels as "
            "whole numbers; write float32 (--dtype float32)"
        )
    mean, shape = _meaning(pieces)
    more: dict[str, Any] = {"cores": pieces.cores, "ome_zarr": ome_zarr, "shards": shards}
    targets = {"image" + out.suffix.lower(): plan_target(out, mean, shape, kind, **more)}
    if scales and predictor.probabilistic:
        targets["widths" + out.suffix.lower()] = plan_target(out, mean, shape, np.dtype(np.float32), **more)
    options = predictor.options
    said = {
        "model": model,
        "runtime": str(predictor.runtime),
        "source": str(source.resolve()),
        "source changed": _changed(source),
        "source shape": [volume.axes, *volume.shape, str(volume.dtype)],
        "channel": channel,
        "rule": None if options.rule is None else str(options.rule),
        "pmin": options.pmin,
        "pmax": options.pmax,
        "clip": options.clip,
        "denormalize": options.denormalize,
        "normalize_by": options.normalize_by,
        "border_px": options.border_px,
        "n_tiles": pieces.n_tiles,
        "results": {
            name: [
                target.format,
                str(target.dtype),
                *target.shape,
                *(target.zarr.block if target.zarr else ()),
            ]
            for name, target in targets.items()
        },
    }
    return VolumeJob(pieces, out, targets, said)


def _meaning(pieces: Pieces) -> tuple[Image, tuple[int, ...]]:
    """What is said of the means of a result, and their shape."""
    volume, channels = pieces.volume, pieces.shape[pieces.axes.index("C")] if "C" in pieces.axes else 1
    means = pieces.predictor.means_of(channels)
    sizes = dict(zip(pieces.axes, pieces.shape, strict=True))
    axes = pieces.axes
    if "C" in sizes:
        sizes["C"] = means
        if "C" not in volume.axes and means == 1:
            axes = axes.replace("C", "")
    kept: tuple[Channel, ...] = volume.channels if means == volume.size("C") else ()
    meaning = Image(
        np.broadcast_to(np.float32(0), [sizes[letter] for letter in axes]),
        axes,
        {letter: size for letter, size in volume.pixel_size_um.items() if letter in axes},
        frame_interval_s=volume.frame_interval_s,
        unit=volume.unit,
        name=volume.name,
        channels=kept,
    )
    return meaning, tuple(sizes[letter] for letter in axes)


def _kept(volume: Volume) -> np.dtype[Any]:
    if volume.dtype.kind == "f":
        return np.dtype(np.float64 if volume.dtype.itemsize > 4 else np.float32)
    if volume.dtype.itemsize > 4:
        raise InputError(
            f"image {volume.name!r} holds {volume.dtype}, which is not written; choose a type (--dtype float32)"
        )
    return volume.dtype


def _with_scale(name: str) -> str:
    stem, ending = name, ""
    for known in (".ome.zarr", ".zarr", ".ome.tiff", ".ome.tif", ".tiff", ".tif"):
        if name.lower().endswith(known):
            stem, ending = name[: -len(known)], name[-len(known) :]
            break
    return f"{stem}_scale{ending}"


def _check_places(source: Path, out: Path) -> None:
    one, other = source.resolve(), out.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(f"{str(out)!r} would replace the image to be restored; name another output")
    if out.suffix.lower() not in (".tif", ".tiff", ZARR):
        raise InputError(f"{str(out)!r} names no image; end it in .ome.zarr, .tif or .ome.tif")


def _changed(source: Path) -> list[str]:
    """When what describes an image was changed last; of a zarr the metadata, whose hashes they are."""
    if not is_zarr(source):
        return [str(source.stat().st_mtime_ns), str(source.stat().st_size)]
    names = ("zarr.json", ".zattrs", ".zarray", "0/zarr.json", "0/.zarray")
    return [sha256(source / name) for name in names if (source / name).is_file()]


def model_state(path: str | os.PathLike[str]) -> str:
    """What tells a model from another: the SHA-256 of its file, or of the weights and settings in its folder."""
    folder = Path(path)
    if folder.is_file():
        return sha256(folder)
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _MODEL_FILES and "training" not in file.relative_to(folder).parts
    )
    return " ".join(f"{file.relative_to(folder).as_posix()}={sha256(file)[:16]}" for file in files)


# --- its steps


def find_ranges(job: VolumeJob, work: Unfinished, progress: Progress) -> list[Undo]:
    """The range of the grey levels: found in a pass of its own, or as an earlier run found it."""
    file = work.folder / "ranges.json"
    if not file.is_file():
        found = job.pieces.ranges(progress)
        told = [
            {
                "rule": str(undo.rule), "pmin": undo.pmin, "pmax": undo.pmax, "low": undo.low.tolist(),
                "high": undo.high.tolist(),
            }
            for undo in found
        ]  # fmt: skip
        write_text(file, json.dumps(told, indent=1) + "\n")
    return [
        Undo(
            PercentileRule(one["rule"]),
            one["pmin"],
            one["pmax"],
            np.array(one["low"], np.float64),
            np.array(one["high"], np.float64),
        )
        for one in json.loads(file.read_text(encoding="utf-8"))
    ]


def begin_targets(job: VolumeJob, work: Unfinished, provenance: str) -> None:
    """Make the empty images, where an earlier run has not."""
    for name, target in job.targets.items():
        if f"begun:{name}" not in work.done:
            _remove(work.folder / name)
            target.create(work.folder / name, provenance)
            work.mark(f"begun:{name}")


def write_piece(job: VolumeJob, folder: Path, number: int, result: Image, like: Image) -> list[float]:
    """Write the result of a piece into each target; how many pixels were below, above and no number in the image's."""
    box = job.pieces.box(number)
    told: list[float] = []
    for at, (name, target) in enumerate(job.targets.items()):
        part = mean_channels(result, like=like) if at == 0 else scale_channels(result, like=like)
        assert part is not None
        places = dict(zip(job.pieces.axes, box, strict=True))
        own = dict(zip(target.meaning.axes, target.shape, strict=True))
        where = tuple(
            slice(0, own["C"]) if letter == "C" else places[letter] for letter in target.meaning.axes
        )
        stored = for_storage(part, target.dtype)
        target.write(folder / name, where, stored.data)
        if at == 0:
            size = stored.data.size
            told = [stored.clipped_low * size, stored.clipped_high * size, stored.not_a_number * size]
    return told


def _restored(
    job: VolumeJob, folder: Path, ranges: Sequence[Undo], numbers: Sequence[int]
) -> Iterator[tuple[int, list[float]]]:
    """Restore pieces one after another; the next is read, and the last written, while the network runs."""
    pieces = job.pieces
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[Prepared] | None = None
        behind: tuple[int, Future[list[float]]] | None = None
        for at, number in enumerate(numbers):
            prepared = ahead.result() if ahead is not None else pieces.prepare(number, ranges)
            ahead = None
            if at + 1 < len(numbers):
                ahead = reader.submit(pieces.prepare, numbers[at + 1], ranges)
            result = pieces.restore(prepared)
            if behind is not None:
                yield behind[0], behind[1].result()
            behind = number, writer.submit(write_piece, job, folder, number, result, prepared.part)
        if behind is not None:
            yield behind[0], behind[1].result()


def finish(job: VolumeJob, work: Unfinished, provenance: str, progress: Progress) -> list[WriteReport]:
    """Write the smaller copies and the metadata, put all in its place, and say what became of the values."""
    for name, target in job.targets.items():
        whole = target.zarr is None or f"whole:{name}" in work.done
        if not whole and target.zarr is not None:
            levels = len(pyramid(target.zarr))
            first = next(level for level in range(1, levels + 1) if f"level:{name}:{level}" not in work.done)
            target.finish(
                work.folder / name,
                provenance=provenance,
                first=first,
                finished=lambda level, name=name: work.mark(f"level:{name}:{level}"),  # type: ignore[misc]
                progress=progress,
            )
            work.mark(f"whole:{name}")
    counts = [told for part, told in work.done.items() if part.isdigit()]
    places = job.places
    move_out(work, places)
    n = prod(next(iter(job.targets.values())).shape)
    low, high, missing = (sum(told[at] for told in counts) / n for at in range(3))
    reports = []
    for name, target in job.targets.items():
        shares = (low, high, missing) if places[name] == job.out else (0.0, 0.0, 0.0)
        reports.append(WriteReport(places[name], target.format, target.dtype.name, *shares))
    return reports


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def middle(volume: Volume) -> Image:
    """The middle of a volume, as much as is looked at for its noise: one frame, 16 planes, 1024 pixels a side."""
    most = {"Z": 16, "Y": 1024, "X": 1024, "C": volume.size("C")}
    box = []
    for letter, size in zip(volume.axes, volume.shape, strict=True):
        length = min(size, most.get(letter, 1))
        box.append(slice((size - length) // 2, (size - length) // 2 + length))
    return Image(volume.read_box(tuple(box)), volume.axes, volume.pixel_size_um, name=volume.name)
