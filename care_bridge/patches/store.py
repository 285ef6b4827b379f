"""Patches on a disk: csbdeep's .npz, or zarr where they do not fit into memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import zips
from care_bridge.axes import check_axes, move_axes
from care_bridge.errors import InputError
from care_bridge.files import atomic_file, atomic_folder
from care_bridge.patches.cutting import Batch, ImagePatches
from care_bridge.patches.origin import PatchOrigin
from care_bridge.patches.split import FRACTION, By, split_patches
from care_bridge.progress import Progress, silent

CHUNK = 64
"""Patches that are held in memory at a time while they are written."""


_CHUNK_BYTES = 1 << 18


class LeakingSplitWarning(UserWarning):
    """Validation patches overlap training patches, so the validation loss is too good."""


class StoredPatches:
    """Patches in arrays: in memory, or a zarr that is read batch by batch.

    Attributes
    ----------
    source, target : array, shape (n, [z,] y, x, channel)
    axes : str
        Of the sources, e.g. "SYXC".
    origin : PatchOrigin or None
        Where each patch comes from; None where the file does not say (csbdeep's own).
    names : tuple of str
        Of the images.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        *,
        axes: str,
        origin: PatchOrigin | None = None,
        names: Sequence[str] = (),
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self.source, self.target, self.axes = source, target, axes
        self.origin, self.names = origin, tuple(names)
        self._rows = np.arange(source.shape[0]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Without S and C."""
        return tuple(self.source.shape[1:-1])

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        """Patches, channels last."""
        rows = self._rows[np.asarray(indices)]
        if isinstance(self.source, np.ndarray):
            return np.asarray(self.source[rows], np.float32), np.asarray(self.target[rows], np.float32)
        return (
            np.asarray(self.source.oindex[rows], np.float32),
            np.asarray(self.target.oindex[rows], np.float32),
        )

    def load(self) -> Batch:
        """All patches, in memory."""
        return self.batch(np.arange(len(self)))

    def select(self, indices: NDArray[np.intp]) -> StoredPatches:
        """Some of the patches, in the order of `indices`."""
        return StoredPatches(
            self.source,
            self.target,
            axes=self.axes,
            origin=None if self.origin is None else self.origin.select(indices),
            names=self.names,
            rows=self._rows[indices],
        )

    def split(
        self, fraction: float = FRACTION, *, by: By = "auto", gap_px: int = 0, seed: int = 0
    ) -> tuple[StoredPatches, StoredPatches]:
        """Training and validation patches that share no pixel; see `split_patches`.

        Warns
        -----
        LeakingSplitWarning
            If the file does not say where patches come from. The last ones validate then, as csbdeep does it.
        """
        n = len(self)
        if self.origin is None:
            held = round(n * fraction)
            if not 0 < held < n:
                raise InputError(
                    f"{fraction:g} of {n} patches is {held}; give a fraction that leaves some of each"
                )
            warnings.warn(
                f"these {n} patches do not say which image they were cut from: the last {held} validate, and most "
                "of their pixels are training pixels too; make the patches anew to have them apart",
                LeakingSplitWarning,
                stacklevel=2,
            )
            return self.select(np.arange(n - held)), self.select(np.arange(n - held, n))
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


def save_patches(
    patches: ImagePatches | StoredPatches, path: str | os.PathLike[str], *, progress: Progress = silent
) -> Path:
    """Write patches as csbdeep's .npz, or as zarr with bounded memory.

    Parameters
    ----------
    patches : ImagePatches or StoredPatches
    path : path
        A name ending in .zarr gives a zarr group, written `CHUNK` patches at a time; any other an
        uncompressed .npz that csbdeep opens, for which all patches must fit into memory.
    progress : Progress

    Returns
    -------
    Path
        Where they lie: with the suffix .npz where the name had another.

    Notes
    -----
    Arrays X, Y and axes are csbdeep's (channel second, "SCYX"); image, position, source_range, target_range,
    group and names are ours, and csbdeep ignores them.
    """
    path = Path(path)
    if path.suffix == ".zarr":
        _save_zarr(patches, path, progress)
        return path
    path = path.with_suffix(".npz")
    source, target = patches.load()
    axes = "SC" + patches.axes[1:-1]
    for letter in getattr(patches, "reduced", ""):
        # csbdeep keeps the projected axis of targets, with size 1.
        target = np.expand_dims(target, patches.axes.index(letter))
    write_npz(
        path, np.moveaxis(source, -1, 1), np.moveaxis(target, -1, 1), axes, patches.origin, patches.names
    )
    return path


def write_npz(
    path: Path,
    x: NDArray[Any],
    y: NDArray[Any],
    axes: str,
    origin: PatchOrigin | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write csbdeep's training file, whole or not at all."""
    extra: dict[str, Any] = {}
    if origin is not None:
        extra = {name: getattr(origin, name) for name in origin.__dataclass_fields__} | {
            "names": np.array(names)
        }
    with atomic_file(path) as part, open(part, "wb") as file:
        np.savez(file, X=x, Y=y, axes=axes, **extra)


def load_patches(path: str | os.PathLike[str], *, axes: str | None = None) -> StoredPatches:
    """Read csbdeep's .npz.

    Parameters
    ----------
    path : path
    axes : str, optional
        Of X; needed where the file does not say.

    Raises
    ------
    InputError
        If it is no such file, lacks X, Y or axes, or its shapes do not fit; all problems at once.
    """
    path = Path(path)
    try:
        arrays = zips.arrays(path)
    except InputError as error:
        raise InputError(
            f"{str(path)!r} is not a training file of csbdeep (.npz), or cut short; copy it again, or cut patches anew "
            f"({error})"
        ) from error
    missing = [name for name in ("X", "Y") if name not in arrays]
    if missing:
        raise InputError(f"{str(path)!r} lacks {' and '.join(missing)}; a training file holds X, Y and axes")
    x, y = arrays["X"], arrays["Y"]
    if axes is None:
        if "axes" not in arrays:
            raise InputError(
                f"{str(path)!r} (X has shape {x.shape}) does not say what its dimensions mean; "
                f"give axes, e.g. axes={'SCZYX' if x.ndim == 5 else 'SCYX'!r}"
            )
        axes = str(arrays["axes"])
    axes = check_axes(axes, ndim=x.ndim)
    problems = []
    if y.ndim != x.ndim or len(x) != len(y):
        problems.append(f"X has shape {x.shape}, Y {y.shape}")
    if "C" not in axes or not axes.startswith("S"):
        problems.append(f"axes are {axes!r}; they must start with S and hold C")
    if problems:
        raise InputError(f"{str(path)!r} cannot be trained on: {'; '.join(problems)}")
    last = axes.replace("C", "") + "C"
    origin = None
    if all(name in arrays for name in PatchOrigin.__dataclass_fields__ if name != "group"):
        origin = PatchOrigin(
            **{name: arrays[name] for name in PatchOrigin.__dataclass_fields__ if name in arrays}
        )
    return StoredPatches(
        move_axes(x, axes, last),
        move_axes(y, axes, last),
        axes=last,
        origin=origin,
        names=[str(name) for name in arrays.get("names", ())],
    )


def open_patches(path: str | os.PathLike[str]) -> StoredPatches:
    """Open patches that `save_patches` wrote: a .zarr is read batch by batch, an .npz whole.

    Parameters
    ----------
    path : path

    Returns
    -------
    StoredPatches

    Raises
    ------
    InputError
        If the file holds no patches.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        return load_patches(path)
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        origin = None
        if attributes["origin"]:
            # Files from before pairs of equal targets were recognised have no group.
            there = [name for name in PatchOrigin.__dataclass_fields__ if name != "group" or name in group]
            origin = PatchOrigin(**{name: np.asarray(group[name]) for name in there})
        return StoredPatches(
            group["X"], group["Y"], axes=str(attributes["axes"]), origin=origin, names=attributes["names"]
        )
    except (KeyError, FileNotFoundError) as error:
        raise InputError(
            f"{str(path)!r} holds no patches ({error}); write them with create_patches"
        ) from error


def _save_zarr(patches: ImagePatches | StoredPatches, path: Path, progress: Progress) -> None:
    n = len(patches)
    with PatchWriter(path, n, patches.names) as writer:
        for start in range(0, n, CHUNK):
            progress(start, n, "writing patches")
            rows = np.arange(start, min(start + CHUNK, n))
            origin = None if patches.origin is None else patches.origin.select(rows)
            writer.append(*patches.batch(rows), axes=patches.axes, origin=origin)
    progress(n, n, "writing patches")


class PatchWriter:
    """A zarr group that patches are added to piece by piece; it appears when it is finished.

    Parameters
    ----------
    path : path
    n : int
        How many patches there will be.
    names : sequence of str
        Of the images.
    """

    def __init__(self, path: str | os.PathLike[str], n: int, names: Sequence[str]) -> None:
        self.n, self.names, self.row = n, tuple(names), 0
        self._folder = atomic_folder(path)
        self._arrays: list[Any] = []
        self._origins: list[PatchOrigin] = []

    def __enter__(self) -> PatchWriter:
        import zarr

        self._group = zarr.create_group(str(self._folder.__enter__()), overwrite=True)
        return self

    def append(
        self, source: NDArray[Any], target: NDArray[Any], *, axes: str, origin: PatchOrigin | None
    ) -> None:
        """Add patches, channels last."""
        if not self._arrays:
            self.axes = axes
            self._arrays = [
                _create(self._group, name, (self.n, *one.shape[1:]))
                for name, one in (("X", source), ("Y", target))
            ]
        for array, one in zip(self._arrays, (source, target), strict=True):
            array[self.row : self.row + len(one)] = one
        self.row += len(source)
        if origin is not None:
            self._origins.append(origin)

    def __exit__(self, *failure: Any) -> None:
        if failure[0] is None:
            try:
                self._finish()
            except BaseException as error:
                self._folder.__exit__(type(error), error, error.__traceback__)
                raise
        self._folder.__exit__(*failure)

    def _finish(self) -> None:
        if not self.row:
            raise InputError("there is no patch to write; give at least one pair of images")
        for array in self._arrays:
            if self.row < self.n:
                array.resize((self.row, *array.shape[1:]))
        attributes = {"axes": self.axes, "names": list(self.names), "origin": bool(self._origins)}
        self._group.attrs.update(attributes)
        for name in PatchOrigin.__dataclass_fields__ if self._origins else ():
            value = np.concatenate([getattr(origin, name) for origin in self._origins])
            chunks = tuple(max(1, size) for size in value.shape)
            array = self._group.create_array(name, shape=value.shape, chunks=chunks, dtype=value.dtype)
            if value.size:
                array[...] = value


def _create(group: Any, name: str, shape: tuple[int, ...]) -> Any:
    # A chunk is a file: many for few bytes are slow to write, large ones slow to pick patches from.
    rows = min(CHUNK, shape[0], max(1, _CHUNK_BYTES // (4 * int(np.prod(shape[1:])))))
    return group.create_array(name, shape=shape, chunks=(rows, *shape[1:]), dtype="f4", compressors=None)
