"""From clean images and folders of images with a defect each to what one generator of all these defects learns from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.defaults import PATCHES_PER_IMAGE, SEED
from care_bridge.errors import InputError
from care_bridge.patches import Foreground, PatchPercentiles
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import Batch, PatchSource, batch_indices, fingerprint
from care_bridge.training.data import VALIDATION_FRACTION, TrainingData, hashes_of
from care_bridge.training.unpaired import (
    Strangers,
    check_no_shared_field,
    check_values,
    cut_domain,
    domain_of,
)

DEFECTS = "defects"
"""Folder in a model's folder that holds one for each defect, where one generator makes several."""

TASK, NOISE = 17, 18
"""Second entry of the seeds, as in `batches` (0, 1) and what follows it."""

LOW, HIGH = -2.0537, 2.8782
"""Percentiles 2 and 99.8 of normal noise: what the channel of noise is scaled by when an image with one is normalised."""

_OTHER_SEED = 1 << 20


def task_of(step: int, count: int, *, seed: int) -> int:
    """Which of so many defects a step is for; each as likely as another."""
    return int(np.random.default_rng([seed, TASK, step]).integers(count))


def with_noise(patches: NDArray[Any], random: np.random.Generator) -> NDArray[np.float32]:
    """Patches with normal noise as their last channel, scaled as it is when an image is normalised."""
    noise = (random.standard_normal((*patches.shape[:-1], 1)) - LOW) / (HIGH - LOW)
    return np.concatenate([patches, noise], axis=-1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Defects:
    """Batches of clean patches with noise, and of patches that have one of the defects; see `batches.BatchSource`.

    Parameters
    ----------
    clean : PatchSource
    defects : sequence of PatchSource
        Whose first images are taken alone.
    """

    clean: PatchSource
    defects: Sequence[PatchSource]

    def batch_at(self, step: int, *, size: int, seed: int) -> Batch:
        """Which defect it is follows from step and seed: `task_of`."""
        here = self.clean.batch(batch_indices(step, n=len(self.clean), batch_size=size, seed=seed))[0]
        there = self.defects[task_of(step, len(self.defects), seed=seed)]
        chosen = batch_indices(step, n=len(there), batch_size=size, seed=seed + _OTHER_SEED)
        return with_noise(here, np.random.default_rng([seed, NOISE, step])), there.batch(chosen)[0]

    def fingerprint(self) -> str:
        """Of all domains."""
        all_of_them = "".join(map(fingerprint, (self.clean, *self.defects)))
        return hashlib.sha256(all_of_them.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class WithNoise:
    """Clean patches with a channel of noise, the same for the same patch."""

    patches: PatchSource
    seed: int

    def __len__(self) -> int:
        return len(self.patches)

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        source, target = self.patches.batch(indices)
        noisy = [
            with_noise(one[None], np.random.default_rng([self.seed, NOISE, int(index), 1]))[0]
            for one, index in zip(source, indices, strict=True)
        ]
        return np.stack(noisy), target


def data_from_defects(
    clean: str | os.PathLike[str],
    defects: str | os.PathLike[str],
    *,
    patch_size: Sequence[int],
    axes: str | None = None,
    image_axes: str | None = None,
    channel: int | None = None,
    n_patches_per_image: int = PATCHES_PER_IMAGE,
    validation_fraction: float = VALIDATION_FRACTION,
    foreground: Foreground | None = Foreground(),  # noqa: B008
    percentiles: PatchPercentiles | None = PatchPercentiles(),  # noqa: B008 - frozen values
    seed: int = SEED,
    progress: Progress = silent,
) -> TrainingData:
    """Patches of a folder of clean images, and of the folders in another, each of which holds images with one defect.

    Parameters
    ----------
    clean, defects : path
    patch_size, axes, image_axes, channel, n_patches_per_image, validation_fraction, foreground, percentiles, seed, progress
        As for `unpaired.data_from_unpaired`.

    Returns
    -------
    TrainingData
        With the names of the defects, which are those of their folders.

    Raises
    ------
    InputError
        If there is no folder of a defect, a folder is empty or shows a field of the clean images, or for what
        `unpaired.data_from_unpaired` refuses.
    """
    place = Path(defects)
    names = sorted(one.name for one in place.iterdir() if one.is_dir()) if place.is_dir() else []
    if not names:
        raise InputError(
            f"{str(place)!r} holds no folders; method 'cin-gan' needs one a defect in it, e.g. {place / 'noise'} and "
            f"{place / 'blur'}"
        )
    domains = [
        domain_of(folder, image_axes, channel) for folder in (clean, *(place / name for name in names))
    ]
    for pairs in domains[1:]:
        check_no_shared_field(domains[0], pairs)
    for pairs in domains:
        check_values(pairs)
    channels = {pair.source.size("C") for pairs in domains for pair in pairs}
    if len(channels) > 1:
        raise InputError(
            f"the images have {' and '.join(map(str, sorted(channels)))} channels; give images of equal channels, or learn "
            "from one (--channel)"
        )
    space = check_axes(axes or "YX").replace("C", "")
    if len(patch_size) != len(space):
        raise InputError(
            f"patch_size {tuple(patch_size)} must have {len(space)} numbers for a network along {space}"
        )
    size = dict(zip(space, (int(pixels) for pixels in patch_size), strict=True))
    cut = [
        cut_domain(
            pairs,
            size,
            n_patches_per_image=n_patches_per_image,
            validation_fraction=validation_fraction,
            foreground=foreground,
            percentiles=percentiles,
            seed=seed,
            number=number,
            progress=progress,
        )
        for number, pairs in enumerate(domains)
    ]
    trains, validates = zip(*cut, strict=True)
    provenance: dict[str, Any] = {
        "source": hashes_of([pair.files[0] for pair in domains[0]], several=False),
        "target": hashes_of([pair.files[0] for pairs in domains[1:] for pair in pairs], several=True),
        "patch_size": list(size.values()),
        "n_patches_per_image": n_patches_per_image,
        "validation_fraction": validation_fraction,
        "n_training": len(trains[0]),
        "n_validation": min(map(len, validates)),
        "split": "no pairs; no validation pixel is a training pixel",
        "target_scale": "own",
    }
    provenance |= {"channel": channel} if channel is not None else {}
    provenance |= {"image_axes": image_axes} if image_axes is not None else {}
    provenance |= {"all_patches": True} if foreground is None else {}
    number = channels.pop()
    return TrainingData(
        Defects(trains[0], trains[1:]),
        Strangers(WithNoise(validates[0], seed), validates[1]),
        space + "C",
        number + 1,
        number,
        provenance,
        defects=tuple(names),
    )
