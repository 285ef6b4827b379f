"""From two folders of images of which none belongs to another, to what a critic of each kind learns from."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage.filters import threshold_otsu

from care_bridge.axes import move_axes
from care_bridge.defaults import PATCHES_PER_IMAGE, SEED
from care_bridge.errors import InputError
from care_bridge.images import Image, list_images
from care_bridge.noise import NoiseRange, measure_some
from care_bridge.patches import Foreground, ImagePair, PatchPercentiles, common_axes, sample_patches
from care_bridge.patches.pairs import Stored, in_file
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import Arrays, Batch, PatchSource, batch_indices, fingerprint
from care_bridge.training.data import (
    IN_MEMORY_BYTES,
    VALIDATION_FRACTION,
    Thin,
    TrainingData,
    hashes_of,
    space_axes,
)
from care_bridge.words import counted

SAME_FIELD = 0.5
"""From this correlation on (of what is left between two blurs, at one place), two images show one field of view.

Five real pairs of a noisy and a clean image have 0.99 and more; of 60 real images all above it were channels of one field,
and of unlike fields two fibre bundles had 0.48, all others 0.3 at most."""

LOOKED_AT = 64
"""Patches of each domain that a threshold is taken from."""

_COMPARED = 96
_CLIPPED = 0.01
_OTHER_SEED = 1 << 20


@dataclass(frozen=True, eq=False)
class Unpaired:
    """Batches in which sources and targets have nothing to do with one another; see `batches.BatchSource`.

    Parameters
    ----------
    sources, targets : PatchSource
        Whose first images are taken alone.
    """

    sources: PatchSource
    targets: PatchSource

    def batch_at(self, step: int, *, size: int, seed: int) -> Batch:
        """Each domain in an order of its own, so that no source meets the same target again and again."""
        found = []
        for patches, own in ((self.sources, seed), (self.targets, seed + _OTHER_SEED)):
            chosen = batch_indices(step, n=len(patches), batch_size=size, seed=own)
            found.append(patches.batch(chosen)[0])
        return found[0], found[1]

    def fingerprint(self) -> str:
        """Of both domains."""
        both = fingerprint(self.sources) + fingerprint(self.targets)
        return hashlib.sha256(both.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Strangers:
    """Patches of two domains side by side that do not belong together: no error can be taken between them.

    Parameters
    ----------
    sources, targets : PatchSource
    """

    sources: PatchSource
    targets: PatchSource

    def __len__(self) -> int:
        return min(len(self.sources), len(self.targets))

    def batch(self, indices: NDArray[np.intp]) -> Batch:
        return self.sources.batch(indices)[0], self.targets.batch(indices)[0]


def data_from_unpaired(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
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
    """Patches of two folders, each on its images' own scale.

    Parameters
    ----------
    source, target : path
        Folders of images that show no field of view in common; names do not matter.
    patch_size : sequence of int
        Pixels along the network's space axes.
    axes, image_axes, channel, n_patches_per_image, validation_fraction, foreground, percentiles, seed
        As for `data.data_from_folders`.
    progress : Progress

    Returns
    -------
    TrainingData
        Training patches of both (`Unpaired`), and some of other places that validate (`Strangers`).

    Raises
    ------
    InputError
        If a folder holds no image, both share an image or a field of view, an image is constant, their channels differ, or
        for what `patches.sample_patches` refuses.

    Warns
    -----
    UserWarning
        If images are clipped: more than 1 % of their pixels have the largest number that they can hold.
    """
    domains = [domain_of(folder, image_axes, channel) for folder in (source, target)]
    check_no_shared_field(*domains)
    for pairs in domains:
        check_values(pairs)
    channels = {pair.source.size("C") for pairs in domains for pair in pairs}
    if len(channels) > 1:
        raise InputError(
            f"the images have {' and '.join(map(str, sorted(channels)))} channels; give images of equal channels, or learn "
            "from one (--channel)"
        )
    space = space_axes("" if axes else common_axes([*domains[0], *domains[1]]), axes)
    if len(patch_size) != len(space):
        raise InputError(
            f"patch_size {tuple(patch_size)} has {len(patch_size)} numbers for a network along {space}; give {len(space)}"
        )
    size = dict(zip(space, (int(pixels) for pixels in patch_size), strict=True))
    trains: list[PatchSource] = []
    validates: list[PatchSource] = []
    for number, pairs in enumerate(domains):
        parts = cut_domain(
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
        for part, kept in zip(parts, (trains, validates), strict=True):
            kept.append(part)
    provenance: dict[str, Any] = {
        "source": hashes_of([pair.files[0] for pair in domains[0]], several=False),
        "target": hashes_of([pair.files[0] for pair in domains[1]], several=False),
        "patch_size": list(size.values()),
        "n_patches_per_image": n_patches_per_image,
        "validation_fraction": validation_fraction,
        "n_training": len(trains[0]),
        "n_validation": min(map(len, validates)),
        "noise": _noise(domains[0]).as_dict(),
        "split": "no pairs; no validation pixel is a training pixel",
        "target_scale": "own",
    }
    provenance |= {"channel": channel} if channel is not None else {}
    provenance |= {"image_axes": image_axes} if image_axes is not None else {}
    provenance |= {"all_patches": True} if foreground is None else {}
    number = channels.pop()
    return TrainingData(
        Unpaired(trains[0], trains[1]),
        Strangers(validates[0], validates[1]),
        space + "C",
        number,
        number,
        provenance,
    )


def cut_domain(
    pairs: Sequence[ImagePair],
    size: Mapping[str, int],
    *,
    n_patches_per_image: int,
    validation_fraction: float,
    foreground: Foreground | None,
    percentiles: PatchPercentiles | None,
    seed: int,
    number: int,
    progress: Progress,
) -> tuple[PatchSource, PatchSource]:
    """Patches of one domain that train, and some of other places that validate; source and target are one image.

    Parameters
    ----------
    pairs : sequence of ImagePair
        As `domain_of` gives them.
    size : mapping of str to int
        Pixels of a patch by space axis.
    number : int
        Of the domain: each draws other places.
    n_patches_per_image, validation_fraction, foreground, percentiles, seed, progress
        As for `data_from_unpaired`.
    """
    own = max((pair.source.axes.replace("C", "") for pair in pairs), key=lambda a: (len(a), a))
    cut = "".join(letter for letter in own if letter not in size) + "".join(size)
    patches = sample_patches(
        pairs,
        patch_size=[size.get(letter, 1) for letter in cut],
        axes=cut,
        n_patches_per_image=n_patches_per_image,
        foreground=foreground,
        percentiles=percentiles,
        seed=seed + number,
        progress=progress,
    )
    thick = tuple(1 + cut.index(letter) for letter in cut if letter not in size)
    training, validation = (
        _kept(Thin(part, thick) if thick else part, math.prod(size.values()))
        for part in patches.split(validation_fraction, seed=seed)
    )
    return training, validation


def otsu_thresholds(data: Unpaired, *, size: int, seed: int) -> tuple[float, float]:
    """Where objects end and background begins in each domain: Otsu's threshold of its patches, on their own scale.

    Parameters
    ----------
    data : Unpaired
    size : int
        Patches that are looked at; those of a step that is never trained on.
    seed : int
    """
    batch = data.batch_at(1 << 30, size=size, seed=seed)
    # Blurred as where they are used, so that noise is no object.
    found = [threshold_otsu(gaussian_filter(part.mean(-1), (0, 1, 1))) for part in batch]
    return round(float(found[0]), 4), round(float(found[1]), 4)


def check_no_shared_field(sources: Sequence[ImagePair], targets: Sequence[ImagePair]) -> None:
    """Refuse domains that show the same field of view at the same place, equal files or noisy and clean.

    Raises
    ------
    InputError
        Naming them, and what pairs are for.
    """
    small = [np.stack([_between_blurs(pair.source) for pair in pairs]) for pairs in (sources, targets)]
    alike = np.abs(small[0] @ small[1].T)
    found = [
        f"{sources[row].name} and {targets[column].name} ({alike[row, column]:.2f})"
        for row, column in np.argwhere(alike >= SAME_FIELD)
        if sources[row].source.shape == targets[column].source.shape
    ]
    if found:
        raise InputError(
            f"{counted(len(found), 'pair')} of images show one field of view (correlation): {', '.join(found[:3])}"
            f"{' and others' if len(found) > 3 else ''}; unpaired methods need other fields in each folder: move them, or "
            "learn from them as pairs (--method cgan)"
        )


def _between_blurs(stored: Stored) -> NDArray[np.float64]:
    """One plane as a vector of length 1 without its slow changes and its finest ones; of equal pixels the same."""
    letters = "".join(letter for letter in stored.axes if letter not in "YX") + "YX"
    data = move_axes(np.asarray(stored.open()), stored.axes, letters)
    while data.ndim > 2:
        data = data[len(data) // 2]
    plane = np.asarray(data, np.float64)
    step = max(1, min(plane.shape) // _COMPARED)
    rows, columns = (size // step * step for size in plane.shape)
    binned = plane[:rows, :columns].reshape(rows // step, step, columns // step, step).mean((1, 3))
    binned = zoom(binned, [_COMPARED / size for size in binned.shape], order=1)
    kept = gaussian_filter(binned, 1) - gaussian_filter(binned, 8)
    # A few bright spots would be all of it.
    kept = np.tanh(kept / max(2 * kept.std(), 1e-30))
    kept -= kept.mean()
    return np.asarray((kept / max(float(np.linalg.norm(kept)), 1e-30)).ravel())


def domain_of(folder: str | os.PathLike[str], axes: str | None, channel: int | None) -> list[ImagePair]:
    """The images of a folder, or one image, each as its own partner."""
    path = Path(folder)
    if not path.exists():
        raise InputError(f"no images at {str(path)!r}; name a folder of .tif images, or one image")
    files = [path] if path.is_file() else list_images(path)
    if not files:
        raise InputError(f"folder {str(path)!r} holds no .tif or .tiff image; each domain needs some")
    stored = [in_file(file, axes, channel=channel) for file in files]
    return [
        ImagePair(image, image, file.name, image=str(number), files=(file, file))
        for number, (image, file) in enumerate(zip(stored, files, strict=True))
    ]


def check_values(pairs: Sequence[ImagePair]) -> None:
    """Refuse constant images, and warn of clipped ones."""
    said, flat = [], []
    for pair in pairs:
        pixels = np.asarray(pair.source.open())
        if pixels.size and pixels.min() == pixels.max():
            flat.append(f"{pair.name} (every pixel is {pixels.min():g})")
        if pair.source.dtype.kind not in "ui":
            continue
        most = np.iinfo(pair.source.dtype).max
        share = float(np.mean(pixels == most))
        if share > _CLIPPED:
            said.append(f"{pair.name} ({100 * share:.0f} % at {most})")
    if flat:
        raise InputError(
            f"constant: {', '.join(flat[:5])}{' and others' if len(flat) > 5 else ''}; leave them out"
        )
    if said:
        warnings.warn(
            f"clipped: {', '.join(said[:5])}{' and others' if len(said) > 5 else ''}; a critic learns that its domain is "
            "clipped, and what is restored will be",
            stacklevel=3,
        )


def _noise(pairs: Sequence[ImagePair]) -> NoiseRange:
    def image(number: int) -> Image:
        stored = pairs[number].source
        return Image(np.asarray(stored.open()), stored.axes)

    return NoiseRange.of(measure_some(len(pairs), image))


def _kept(part: PatchSource, pixels: int) -> PatchSource:
    """In memory, where there is room: source and target are one image, so only one is kept twice."""
    if 4 * pixels * len(part) > IN_MEMORY_BYTES:
        return part
    source, _ = part.batch(np.arange(len(part)))
    return Arrays(source, source)
