"""From files to what `fit.train` takes: training and validation patches that share no pixel, and where they came from."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE, check_axes
from care_bridge.defaults import PATCHES_PER_IMAGE, SEED, TargetScale
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.images import Image
from care_bridge.noise import NoiseRange, measure_some
from care_bridge.patches import (
    ChosenScale,
    Foreground,
    PatchPercentiles,
    choose_target_scale,
    common_axes,
    load_patches,
    open_patches,
    pairs_from_folders,
    sample_patches,
)
from care_bridge.patches.pairs import EQUAL_PIXELS, ImagePair, equal_pixels
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import Arrays, Batch, BatchSource, PatchSource

IN_MEMORY_BYTES = 2 << 30
"""Patches up to this size are cut once and kept; more are cut while the network trains."""

VALIDATION_FRACTION = 0.1
"""Share of the patches that validates, as csbdeep's examples have it."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Patches to train on.

    Attributes
    ----------
    training : PatchSource or BatchSource
    validation : PatchSource
    axes : str
        Of the network: the patches' axes, C last.
    n_channel_in, n_channel_out : int
    provenance : dict
        Names and SHA-256 of the files, and how patches were cut from them; for config.json.
    target_scale : {"own", "source", "fitted"}
        See `patches.sample_patches`; for `CareConfig`, which takes it from `provenance` too.
    means, stds : tuple of float, optional
        By which the patches were scaled instead of percentiles; for `CareConfig`.
    thresholds : (float, float), optional
        Of what is an object in sources and in targets, of unpaired data; for `CareConfig`.
    defects : tuple of str
        Names of those that a generator is to make; for `CareConfig`.
    """

    training: PatchSource | BatchSource
    validation: PatchSource
    axes: str
    n_channel_in: int
    n_channel_out: int
    provenance: dict[str, Any]
    target_scale: TargetScale = "own"
    means: tuple[float, ...] | None = None
    stds: tuple[float, ...] | None = None
    thresholds: tuple[float, float] | None = None
    defects: tuple[str, ...] = ()


def data_from_folders(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    patch_size: Sequence[int],
    axes: str | None = None,
    image_axes: str | None = None,
    target_axes: str | None = None,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
    channel: int | None = None,
    look: bool = False,
    n_patches_per_image: int = PATCHES_PER_IMAGE,
    validation_fraction: float = VALIDATION_FRACTION,
    projected: str = "",
    foreground: Foreground | None = Foreground(),  # noqa: B008
    percentiles: PatchPercentiles | None = PatchPercentiles(),  # noqa: B008 - frozen values
    target_scale: TargetScale | None = None,
    seed: int = SEED,
    progress: Progress = silent,
) -> TrainingData:
    """Patches of image pairs of equal name.

    Parameters
    ----------
    source : path or several
    target : path
    patch_size : sequence of int
        Pixels along the network's space axes.
    axes : str, optional
        Of the network, e.g. "YX" to learn from the single planes of stacks. None takes the images' own, without
        time and channels.
    image_axes, target_axes : str, optional
        Of the files, where they do not say.
    source_suffix, target_suffix, channel, look
        See `patches.pairs_from_folders`.
    n_patches_per_image : int
    validation_fraction : float
        Share, 0-1; whole images where there are enough, else a block of every image.
    projected : str
        Axis that the targets lack ("Z" for a ProjectionCARE network).
    foreground, percentiles
        See `patches.sample_patches`.
    target_scale : {"own", "source", "fitted"}, optional
        See `patches.sample_patches`. None decides by what the pairs are (`patches.choose_target_scale`), and
        `provenance` says why.
    seed : int
    progress : Progress

    Returns
    -------
    TrainingData
        Patches that are cut when they are asked for, so that images need not fit into memory.

    Raises
    ------
    InputError
        For all files together: see `patches.pairs_from_folders` and `patches.sample_patches`.
    """
    pairs = pairs_from_folders(
        source,
        target,
        axes=image_axes,
        target_axes=target_axes,
        source_suffix=source_suffix,
        target_suffix=target_suffix,
        channel=channel,
        look=look,
    )
    space = space_axes("" if axes else common_axes(pairs), axes)
    # With the axes named, planes and stacks may lie in one folder: a plane is a stack of one.
    own = max(
        (pair.source.axes.replace("C", "") for pair in pairs), key=lambda letters: (len(letters), letters)
    )
    if len(patch_size) != len(space):
        raise InputError(
            f"patch_size {tuple(patch_size)} has {len(patch_size)} numbers for a network along {space}; give "
            f"{len(space)}"
        )
    size = dict(zip(space, (int(pixels) for pixels in patch_size), strict=True))
    # Frames, and planes for a 2-D network, count as so many images more: patches one pixel thick.
    cut = "".join(letter for letter in own if letter not in space) + space
    scale = ChosenScale(target_scale or "own", "") if target_scale or percentiles is None else None
    if scale is None and percentiles is not None and percentiles.relu_last:
        scale = ChosenScale("own", "targets start at 0")
    scale = scale or choose_target_scale(
        pairs, axes=cut, patch_size=[size.get(letter, 1) for letter in cut], reduced=projected
    )
    patches = sample_patches(
        pairs,
        patch_size=[size.get(letter, 1) for letter in cut],
        axes=cut,
        n_patches_per_image=n_patches_per_image,
        foreground=foreground,
        percentiles=percentiles,
        reduced=projected,
        target_scale=scale.scale,
        seed=seed,
        progress=progress,
    )
    training, validation = patches.split(validation_fraction, seed=seed)
    several = [source] if isinstance(source, str | os.PathLike) else list(source)
    provenance = {
        "source": hashes_of([pair.files[0] for pair in pairs], several=len(several) > 1),
        "target": hashes_of([pair.files[1] for pair in pairs], several=False),
        "patch_size": list(size.values()),
        "n_patches_per_image": n_patches_per_image,
        "validation_fraction": validation_fraction,
        "n_training": len(training),
        "n_validation": len(validation),
        "noise": _noise(pairs).as_dict(),
        "split": "no validation pixel is a training pixel",
    }
    if percentiles is not None:
        provenance["target_scale"] = scale.scale
        provenance |= {"target_scale_because": scale.because} if scale.because else {}
    if percentiles not in (None, PatchPercentiles()):
        assert percentiles is not None
        provenance["percentiles"] = {"pmin": list(percentiles.pmin), "pmax": list(percentiles.pmax)}
    # What `--resume` needs to cut the same patches again.
    said = {"source_suffix": source_suffix, "target_suffix": target_suffix, "channel": channel}
    provenance |= {key: value for key, value in said.items() if value is not None}
    provenance |= {"all_patches": True} if foreground is None else {}
    thick = tuple(1 + cut.index(letter) for letter in cut if letter not in space)
    parts: list[PatchSource] = [Thin(part, thick) if thick else part for part in (training, validation)]
    channels = pairs[0].source.size("C"), pairs[0].target.size("C")
    if 4 * math.prod(size.values()) * sum(channels) * len(patches) <= IN_MEMORY_BYTES:
        parts = [Arrays(*part.batch(np.arange(len(part)))) for part in parts]
    return TrainingData(parts[0], parts[1], space + "C", *channels, provenance, scale.scale)


def _noise(pairs: Sequence[ImagePair]) -> NoiseRange:
    def source(number: int) -> Image:
        stored = pairs[number].source
        return Image(np.asarray(stored.open()), stored.axes)

    return NoiseRange.of(measure_some(len(pairs), source))


def network_axes(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    axes: str | None = None,
    image_axes: str | None = None,
    **naming: Any,
) -> str:
    """Space axes that `data_from_folders` would train along: `axes`, or the images' own without time.

    Parameters
    ----------
    source, target, axes, image_axes
        As for `data_from_folders`.
    **naming
        What says which file belongs to which, as for `data_from_folders`.
    """
    pairs = pairs_from_folders(source, target, axes=image_axes, **naming)
    return space_axes("" if axes else common_axes(pairs), axes)


def data_from_file(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = SEED,
) -> TrainingData:
    """Patches of a file: csbdeep's .npz, or the .zarr that `patches.save_patches` writes.

    Parameters
    ----------
    path : path
    axes : str, optional
        Of X in an .npz that does not say, e.g. "SCYX".
    validation_fraction : float
    seed : int

    Returns
    -------
    TrainingData
        Patches and those of them that validate.

    Raises
    ------
    InputError
        If the file is not there or is no such file.

    Warns
    -----
    patches.LeakingSplitWarning
        If the file does not say which image a patch came from: its validation patches then share pixels with
        training patches.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(
            f"no training patches at {str(file)!r}; give a .npz of csbdeep, or two folders of images"
        )
    stored = open_patches(file) if file.suffix == ".zarr" else load_patches(file, axes=axes)
    if equal_pixels(stored.source, stored.target):
        raise InputError(f"{file.name}: {EQUAL_PIXELS}")
    training, validation = stored.split(validation_fraction, seed=seed)
    provenance = {
        "source": {file.name: sha256(file)} if file.is_file() else {file.name: ""},
        "patch_size": list(stored.patch_size),
        "validation_fraction": validation_fraction,
        "n_training": len(training),
        "n_validation": len(validation),
        "split": "no validation pixel is a training pixel"
        if stored.origin is not None
        else "leaks: the file does not say which image a patch came from",
    }
    last = stored.axes.replace("S", "")
    return TrainingData(
        training, validation, last, int(stored.source.shape[-1]), int(stored.target.shape[-1]), provenance
    )


def space_axes(image_axes: str, axes: str | None) -> str:
    return check_axes(axes).replace("C", "") if axes else "".join(a for a in image_axes if a in SPACE)


class Thin:
    """Patches without their dimensions of one pixel."""

    def __init__(self, patches: PatchSource, drop: tuple[int, ...]) -> None:
        self._patches, self._drop = patches, drop

    def __len__(self) -> int:
        return len(self._patches)

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        source, target = self._patches.batch(indices)
        return source.squeeze(self._drop), target.squeeze(self._drop)


def hashes_of(files: Sequence[Path], *, several: bool) -> dict[str, str]:
    """SHA-256 by name; with the folder's where there are several."""
    return {
        (f"{file.parent.name}/{file.name}" if several else file.name): sha256(file)
        for file in dict.fromkeys(files)
    }
