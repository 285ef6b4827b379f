"""Where patches are cut: positions and percentiles, drawn once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from care_bridge.axes import check_axes
from care_bridge.defaults import TargetScale
from care_bridge.errors import InputError
from care_bridge.patches.cutting import CACHE_BYTES, ImagePatches
from care_bridge.patches.foreground import Foreground
from care_bridge.patches.looking import Looked, NothingToSeeError, check_pairs
from care_bridge.patches.origin import PatchOrigin, shared_groups
from care_bridge.patches.pairs import ImagePair
from care_bridge.patches.scale import PatchPercentiles
from care_bridge.progress import Progress, silent

_NAMED = 5


class EmptyImageWarning(UserWarning):
    """Image pairs in which nothing is bright enough for a patch are left out."""


class TargetScaleWarning(UserWarning):
    """Targets that cannot be laid on their sources' scale keep their own."""


def sample_patches(
    pairs: Sequence[ImagePair],
    *,
    patch_size: Sequence[int],
    n_patches_per_image: int,
    axes: str | None = None,
    foreground: Foreground | None = Foreground(),  # noqa: B008
    percentiles: PatchPercentiles | None = PatchPercentiles(),  # noqa: B008 - frozen values
    reduced: str = "",
    target_scale: TargetScale = "own",
    seed: int = 0,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress = silent,
) -> ImagePatches:
    """Draw positions of patches and the percentiles of their scale; pixels are cut when they are asked for.

    Parameters
    ----------
    pairs : sequence of ImagePair
    patch_size : sequence of int
        Pixels along `axes`.
    n_patches_per_image : int
        Drawn without replacement, with where an image has fewer positions.
    axes : str, optional
        Space axes (and T) of a patch, e.g. "YX"; None takes the first source's own, without C. Channels are
        always taken all.
    foreground : Foreground, optional
        Which positions are worth drawing. None: all.
    percentiles : PatchPercentiles, optional
        Scale of each patch, from the whole image, channel by channel, source and target at the same
        percentiles. None leaves raw values.
    reduced : str
        Axes that the target lacks or has one plane of (projections); they are left out of the target patches.
    target_scale : {"own", "source", "fitted"}
        Scale of the target: its own percentiles (csbdeep); those of its source, for pairs in one unit; its source's
        after the gain and offset that fit it to its source best, for pairs in different units.
    seed : int
        Image number i draws from ``numpy.random.default_rng([seed, i])``, whatever the other images are.
    cache_bytes : int
        Memory for images that cannot be mapped.
    progress : Progress

    Returns
    -------
    ImagePatches

    Raises
    ------
    InputError
        With all images at once: smaller than a patch, other channels than the first, no finite value, or no position
        in any of them that passes the filter. Or if targets of other channels are to have their sources' percentiles.

    Warns
    -----
    EmptyImageWarning
        If some images are left out because no position passes the filter.
    TargetScaleWarning
        If some targets keep their own scale: their source is constant, or unlike them.
    """
    axes, size = _checked(pairs, patch_size, n_patches_per_image, axes, reduced)
    _check_scale(pairs, percentiles, target_scale)
    origins, problems, fingerprints = [], [], []
    empty: list[str] = []
    unfitted: list[str] = []
    for index, pair in enumerate(pairs):
        progress(index, len(pairs), "looking for patches")
        try:
            rng = np.random.default_rng([seed, index])
            looked = Looked(pair, axes, size, reduced)
            position = looked.positions(foreground, n_patches_per_image, rng)
            ranges = looked.ranges(percentiles, n_patches_per_image, rng, target_scale)
            if looked.unfitted:
                unfitted.append(f"{pair.name} ({looked.unfitted})")
            image = np.full(n_patches_per_image, index, np.int32)
            origins.append(PatchOrigin(image, position, *ranges))
            fingerprints.append(looked.fingerprint())
        except NothingToSeeError as error:
            empty.append(f"{pair.name}: {error}")
            fingerprints.append(f"empty {index}")  # no patch asks for it
        except InputError as error:
            problems.append(f"{pair.name}: {error}")
    if not origins:
        problems += empty
    elif empty and not problems:
        warnings.warn(
            f"{len(empty)} of {len(pairs)} image pairs are left out, since no patch of them passes the foreground "
            f"filter: {_some([one.split(':')[0] for one in empty])} (--all-patches takes empty background too)",
            EmptyImageWarning,
            stacklevel=2,
        )
    if problems:
        raise InputError(
            f"{len(problems)} of {len(pairs)} image pairs cannot be used:\n  " + "\n  ".join(problems)
        )
    if unfitted:
        warnings.warn(
            f"{len(unfitted)} of {len(pairs)} targets are scaled by their own percentiles, since they cannot be laid on "
            f"their source's scale: {_some(unfitted)}",
            TargetScaleWarning,
            stacklevel=2,
        )
    progress(len(pairs), len(pairs), "looking for patches")
    joined = _joined(origins)
    group = shared_groups(fingerprints, [pair.image for pair in pairs])[joined.image]
    joined = replace(joined, group=group)
    return ImagePatches(pairs, joined, patch_size=size, axes=axes, reduced=reduced, cache_bytes=cache_bytes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _check_scale(
    pairs: Sequence[ImagePair], percentiles: PatchPercentiles | None, target_scale: TargetScale
) -> None:
    if target_scale not in get_args(TargetScale):
        raise InputError(f"target_scale={target_scale!r}: give {', '.join(get_args(TargetScale))}")
    if target_scale != "own" and (percentiles is None or percentiles.relu_last):
        raise InputError(
            f"target_scale={target_scale!r} needs percentiles without relu_last; raw patches and targets that start at "
            "0 have a scale of their own (target_scale='own')"
        )
    channels = pairs[0].source.size("C"), pairs[0].target.size("C")
    if target_scale == "source" and channels[0] != channels[1]:
        raise InputError(
            f"target_scale='source' scales each channel by that of the source, but sources have {channels[0]} and "
            f"targets {channels[1]}; use 'fitted' (to the mean of the source's channels) or 'own'"
        )


def _checked(
    pairs: Sequence[ImagePair], patch_size: Sequence[int], n: int, axes: str | None, reduced: str
) -> tuple[str, tuple[int, ...]]:
    """Axes and size of a patch, once all that was asked for fits together."""
    if not pairs:
        raise InputError("no image pairs were given; give at least one")
    if n < 1:
        raise InputError(f"n_patches_per_image must be at least 1; received {n}")
    axes = check_axes(axes or common_axes(pairs))
    size = tuple(int(pixels) for pixels in patch_size)
    if len(size) != len(axes) or min(size) < 1:
        raise InputError(f"patch_size={size} does not fit axes {axes!r}; give one positive number a letter")
    if "C" in axes or not set(reduced) <= set(axes):
        raise InputError(f"axes={axes!r} must hold every letter of reduced={reduced!r} and no C")
    check_pairs(pairs, axes, size, reduced)
    return axes, size


def common_axes(pairs: Sequence[ImagePair]) -> str:
    """Axes of the sources without C, the same whatever their order.

    Raises
    ------
    InputError
        If some are planes and others stacks.
    """
    found: dict[str, list[str]] = {}
    for pair in pairs:
        found.setdefault(pair.source.axes.replace("C", ""), []).append(pair.name)
    if len({frozenset(axes) for axes in found}) > 1:
        kinds = ", ".join(f"{len(names)} {axes} (e.g. {min(names)})" for axes, names in sorted(found.items()))
        raise InputError(
            f"the images are of different kinds: {kinds}; name the axes to learn along (--network-axes), or put each "
            "kind in a folder of its own"
        )
    return min(found, key=lambda axes: (-len(found[axes]), axes))


def _joined(origins: Sequence[PatchOrigin]) -> PatchOrigin:
    names = PatchOrigin.__dataclass_fields__
    return PatchOrigin(*(np.concatenate([getattr(one, name) for one in origins]) for name in names))
