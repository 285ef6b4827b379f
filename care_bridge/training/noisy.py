"""From noisy images alone to what `fit.train` takes: patches with blind spots, and whether their noise is fit for them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.axes import move_axes
from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.images import Image, is_zarr, list_images, only_channel, read_image
from care_bridge.noise import CORRELATED, Noise, NoiseRange, measure_some
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import Arrays
from care_bridge.training.blind_spots import (
    SPLIT,
    VALIDATION,
    BlindSpots,
    NoisyImage,
    neighbourhood,
    struct_offsets,
)
from care_bridge.training.data import TrainingData

VALIDATION_FRACTION = 0.1
"""Share of the files, or of every image's rows, that only validates."""

SPLIT_BY_FILE = 8
"""From so many files on whole ones validate; of fewer the last rows of each image."""

VALIDATION_PATCHES = 64

ROWS_DIFFER = 0.2
"""From here on offsets of whole rows, as shares of a pixel's noise, are worth a warning."""


def noisy_files(noisy: str | os.PathLike[str]) -> list[Path]:
    """The image that a path is, or those of a folder.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(noisy)
    if not path.exists():
        raise InputError(
            f"no noisy images at {str(path)!r}; name a folder of .tif or .zarr images, or one image"
        )
    found = [path] if path.is_file() or is_zarr(path) else list_images(path)
    if not found:
        raise InputError(f"folder {str(path)!r} holds no .tif, .tiff or .zarr image")
    return found


def noisy_axes(
    noisy: str | os.PathLike[str], *, image_axes: str | None = None, channel: int | None = None
) -> tuple[str, int]:
    """Axes of the network that noisy images ask for, and their number of channels.

    ZYX where all of them are stacks along Z, else YX.
    """
    images = [read_image(file, image_axes, mapped=True) for file in noisy_files(noisy)]
    space = "ZYX" if all("Z" in image.axes for image in images) else "YX"
    return space, 1 if channel is not None else images[0].size("C")


def data_from_noisy(
    noisy: str | os.PathLike[str],
    config: CareConfig,
    *,
    patch_size: Sequence[int],
    image_axes: str | None = None,
    channel: int | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    progress: Progress = silent,
) -> TrainingData:
    """Patches with blind spots of noisy images to train on, and a fixed set of them, from other pixels, to validate.

    Parameters
    ----------
    noisy : path
        A folder of images of equal axes, or one of them: an image, a stack or a movie.
    config : CareConfig
        What is hidden and how, the axes, the size multiple and the seed; its means and stds are not looked at.
    patch_size : sequence of int
        Pixels along the space axes of `config`.
    image_axes : str, optional
        Of the files, where they do not say.
    channel : int, optional
        The only one to learn from, counted from 0; None learns from all together.
    validation_fraction : float
        Share of the files, or of each image's rows where they are few, that validates.
    progress : Progress

    Returns
    -------
    TrainingData
        With the mean and standard deviation of the pixels that train.

    Raises
    ------
    InputError
        For all files together: an image smaller than a patch, of other channels, with NaN, or constant.

    Warns
    -----
    UserWarning
        If neighbouring pixels, or whole rows, share the noise and nothing hides that.
    """
    space = config.axes.replace("C", "")
    if len(patch_size) != len(space):
        raise InputError(
            f"patch_size {tuple(patch_size)} has {len(patch_size)} numbers for a network along {space}; give {len(space)}"
        )
    if not 0 < validation_fraction < 1:
        raise InputError(f"validation_fraction must lie between 0 and 1; received {validation_fraction}")
    neighbourhood(config)
    files = noisy_files(noisy)
    images, hashes = _read(files, config, tuple(patch_size), image_axes, channel, progress)
    training, validation, least = _split(images, config, patch_size[-2], validation_fraction)
    means, stds = _scale(training, len(space))
    scaled = config.replace(means=means, stds=stds)

    def measured(number: int) -> Image:
        image = read_image(files[number], image_axes, mapped=True)
        return image if channel is None else only_channel(image, channel)

    held_out = BlindSpots(validation, scaled, [*patch_size[:-2], least, patch_size[-1]])
    fixed = held_out.batch_at(0, size=VALIDATION_PATCHES, seed=config.seed, purpose=VALIDATION)
    found = measure_some(len(files), measured)
    for sentence in shared_noise(found, config):
        warnings.warn(sentence, stacklevel=2)
    provenance: dict[str, Any] = {
        "source": hashes,
        "patch_size": [int(pixels) for pixels in patch_size],
        "validation_fraction": validation_fraction,
        "n_validation": VALIDATION_PATCHES,
        "noise": NoiseRange.of(found).as_dict(),
        "split": "no validation pixel is a training pixel",
    }
    provenance |= {"channel": channel} if channel is not None else {}
    provenance |= {"image_axes": image_axes} if image_axes is not None else {}
    return TrainingData(
        BlindSpots(training, scaled, patch_size),
        Arrays(*fixed),
        config.axes,
        config.n_channel_in,
        config.n_channel_out,
        provenance,
        means=means,
        stds=stds,
    )


def _read(
    files: Sequence[Path],
    config: CareConfig,
    patch_size: tuple[int, ...],
    image_axes: str | None,
    channel: int | None,
    progress: Progress,
) -> tuple[list[NoisyImage], dict[str, str]]:
    """Images as they are on the disk, and the SHA-256 of their files; all that cannot be used is said together."""
    problems: list[str] = []
    images, hashes = [], {}
    for number, file in enumerate(files):
        progress(number, len(files), "reading noisy images")
        try:
            images.append(_image(file, config, patch_size, image_axes, channel))
        except InputError as error:
            problems.append(str(error))
            continue
        hashes[file.name] = sha256(file)
    progress(len(files), len(files), "reading noisy images")
    if problems:
        raise InputError("\n".join(problems))
    return images, hashes


def _image(
    file: Path,
    config: CareConfig,
    patch_size: tuple[int, ...],
    image_axes: str | None,
    channel: int | None,
) -> NoisyImage:
    image = read_image(file, image_axes, mapped=True).replace(name=file.name)
    if not {"Y", "X"} <= set(image.axes):
        raise InputError(f"image {file.name!r} has axes {image.axes!r}; Y and X are needed")
    if channel is not None:
        image = only_channel(image, channel)
    if image.size("C") != config.n_channel_in:
        raise InputError(
            f"image {file.name!r} has {image.size('C')} channels, others have {config.n_channel_in}; leave it out, or "
            "learn from one channel (--channel)"
        )
    pixels = move_axes(image.data, image.axes, "STZYXC")
    for letter, wanted, size in zip(
        "ZYX"[-len(patch_size) :], patch_size, pixels.shape[-1 - len(patch_size) : -1], strict=True
    ):
        if size < wanted:
            raise InputError(
                f"image {file.name!r} has {size} pixels along {letter}; the patches have {wanted}: leave it out, or give "
                "a smaller --patch-size" + (" or --network-axes YX" if letter == "Z" else "")
            )
    return NoisyImage(pixels, (0, pixels.shape[-3]), file.name)


def _split(
    images: Sequence[NoisyImage], config: CareConfig, rows: int, fraction: float
) -> tuple[list[NoisyImage], list[NoisyImage], int]:
    """Images that train and that validate, and the rows of a patch that validates."""
    if len(images) >= SPLIT_BY_FILE:
        order = np.random.default_rng([config.seed, SPLIT]).permutation(len(images))
        held = set(order[: max(1, round(fraction * len(images)))].tolist())
        train = [image for number, image in enumerate(images) if number not in held]
        return train, [image for number, image in enumerate(images) if number in held], rows
    multiple = config.size_multiple["Y"]
    training, validation = [], []
    least = rows
    for image in images:
        height = image.rows[1]
        wanted = min(max(round(fraction * height), rows), height - rows) // multiple * multiple
        if wanted < multiple:
            training.append(image)
            continue
        training.append(image.only(0, height - wanted))
        validation.append(image.only(height - wanted, height))
        least = min(least, wanted)
    if not validation:
        raise InputError(
            f"no image has {rows + multiple} rows, so none can both train and validate; give larger images, "
            f"{SPLIT_BY_FILE} of them, or a smaller --patch-size"
        )
    return training, validation, least


def _scale(images: Sequence[NoisyImage], n_space: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the pixels that train."""
    count, mean, square = 0, np.zeros(1), np.zeros(1)
    for image in images:
        for plane in image.planes(n_space):
            pixels = np.asarray(plane, np.float64).reshape(-1, plane.shape[-1])
            here, spread = pixels.mean(axis=0), pixels.var(axis=0)
            if not np.isfinite(here).all():
                raise InputError(f"image {image.name!r} holds NaN or infinity; mend it, or leave it out")
            # Chan: the sums of squares would lose a small deviation beside a large mean.
            total = count + len(pixels)
            difference = here - mean
            mean = mean + difference * len(pixels) / total
            square = square + spread * len(pixels) + difference**2 * count * len(pixels) / total
            count = total
    std = np.sqrt(square / count)
    for number, one in enumerate(std):
        if not one > 1e-9 * max(abs(mean[number]), 1e-30):
            which = f" of channel {number}" if len(std) > 1 else ""
            raise InputError(f"every pixel{which} is {mean[number]:g}: there is no noise to learn from")
    return tuple(float(np.float32(one)) for one in mean), tuple(float(np.float32(one)) for one in std)


# --- is it for this noise?


def sharing(found: Sequence[Noise], hidden: Sequence[int] = (0, 0)) -> str:
    """Letters of y and x along which neighbours share a pixel's noise, and are not hidden with it.

    Parameters
    ----------
    found : sequence of Noise
    hidden : sequence of int
        How far neighbours are hidden along each axis.
    """
    return "".join(
        letter
        for letter, reach in zip("yx", hidden[-2:], strict=True)
        if _shared(found, letter) >= CORRELATED and not reach
    )


def mask_against(along: str, n_dim: int) -> str:
    """A box for --struct-mask that hides neighbours along these axes, of a network of 2 or 3 dimensions."""
    wide = {"y": ("9", "1"), "x": ("1", "9"), "yx": ("5", "5")}[along]
    return ",".join(["1"] * (n_dim - 2) + [*wide])


def _shared(found: Sequence[Noise], letter: str) -> float:
    return max((getattr(one, f"correlation_{letter}") or 0.0 for one in found), default=0.0)


def shared_noise(found: Sequence[Noise], config: CareConfig) -> list[str]:
    """What of the noise blind spots do not hide, a sentence each with what would; none where pixels have their own.

    Parameters
    ----------
    found : sequence of Noise
        Of images to train on, or to restore.
    config : CareConfig
    """
    reach = np.abs(struct_offsets(config)).max(axis=0, initial=0)
    along = sharing(found, reach)
    said = []
    if along:
        how = " and ".join(f"{_shared(found, letter):.2f} along {letter}" for letter in along)
        said.append(
            f"neighbouring pixels share their noise ({how}): Noise2Void takes it for structure and keeps it; hide the "
            f"neighbours too (structN2V: --struct-mask {mask_against(along, config.n_dim)}), or train on pairs"
        )
    rows = max((max(one.rows, one.columns) for one in found), default=0.0)
    if rows >= ROWS_DIFFER and not reach[-2:].any():
        said.append(
            f"whole rows or columns are offset by {rows:.2g} of a pixel's noise: Noise2Void keeps such offsets, since the "
            "rest of the row tells them; take them out before, or train on pairs"
        )
    return said
