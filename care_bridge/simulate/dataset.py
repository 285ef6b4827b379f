"""Training pairs from a recipe: one by one for training on the fly, or a folder of files with a manifest."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from care_bridge.axes import SPACE
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.patches.pairs import ImagePair, Stored
from care_bridge.simulate.degrade import snr_db
from care_bridge.simulate.pair import Pair
from care_bridge.simulate.recipe import CleanImages, Recipe, load_recipe
from care_bridge.simulate.steps import run_steps

_STRUCTURE, _DEGRADATION = 0, 1
"""First entry of the spawn keys, so that drawing a sample and degrading it never share random numbers."""


def make_pairs(
    recipe: Recipe | str | os.PathLike[str],
    clean_images: Iterable[Image] | None = None,
    seed: int | None = None,
    *,
    epoch: int = 0,
) -> Iterator[Pair]:
    """Every clean image through every set of a recipe.

    Parameters
    ----------
    recipe : Recipe, or str or path
        A recipe, the name of one that comes with the package, or a YAML or TOML file.
    clean_images : iterable of Image, optional
        Left out for recipes that draw their samples.
    seed : int, optional
        Instead of the recipe's.
    epoch : int
        Another number gives other draws from the same images and seed.

    Yields
    ------
    Pair
        Image by image, set by set. What is drawn for a pair depends on the seed, the epoch, the image's
        name (its position when it has none), the sample's number and the set: not on what was made before.

    Raises
    ------
    InputError
        If images are missing or not wanted, not finite, negative, saturated, or do not fit a step.
    """
    recipe = load_recipe(recipe)
    seed = recipe.seed if seed is None else seed
    if recipe.synthetic and clean_images is not None:
        raise InputError(f"recipe {recipe.name!r} draws its samples itself; leave the images out")
    if recipe.synthetic:
        for index in range(recipe.clean.images):  # type: ignore[union-attr]
            yield from make_sets(
                recipe, draw_clean(recipe, index, seed=seed, epoch=epoch), seed=seed, epoch=epoch
            )
        return
    if clean_images is None:
        raise InputError(f"recipe {recipe.name!r} degrades clean images; give some")
    found = False
    for index, image in enumerate(clean_images):
        found = True
        named = image.replace(name=stem(image.name) or f"image_{index:04d}")
        yield from make_sets(recipe, named, seed=seed, epoch=epoch)
    if not found:
        raise InputError(f"recipe {recipe.name!r} degrades clean images, but none were given")


def pair_stream(
    recipe: Recipe | str | os.PathLike[str],
    clean_images: Sequence[Image] | None = None,
    seed: int | None = None,
) -> Iterator[Pair]:
    """`make_pairs` without end: epoch 0, 1, 2, ... with new draws in each, for training on the fly.

    Parameters
    ----------
    recipe, clean_images, seed
        As for `make_pairs`.

    Yields
    ------
    Pair
        Never the last one.
    """
    recipe = load_recipe(recipe)
    for epoch in itertools.count():
        yield from make_pairs(recipe, clean_images, seed, epoch=epoch)


def image_pairs(
    recipe: Recipe | str | os.PathLike[str],
    clean_images: Sequence[Image] | None = None,
    seed: int | None = None,
    *,
    epochs: int = 1,
) -> list[ImagePair]:
    """Pairs for `patches.sample_patches` that are simulated when their pixels are asked for.

    Parameters
    ----------
    recipe, clean_images, seed
        As for `make_pairs`.
    epochs : int
        Each gives every image and set once more, with new draws.

    Returns
    -------
    list of ImagePair
        Memory holds only what `sample_patches` keeps (its `cache_bytes`); what it let go is made again, the same.

    Raises
    ------
    InputError
        If images are missing or not wanted.

    Notes
    -----
    The sets of one clean image share its pixels: to validate honestly, split the clean images and call this
    twice, rather than split the patches.
    """
    recipe = load_recipe(recipe)
    seed = recipe.seed if seed is None else seed
    if recipe.synthetic:
        if clean_images is not None:
            raise InputError(f"recipe {recipe.name!r} draws its samples itself; leave the images out")
        count = recipe.clean.images  # type: ignore[union-attr]
    else:
        if not clean_images:
            raise InputError(f"recipe {recipe.name!r} degrades clean images; give some")
        count = len(clean_images)

    @functools.lru_cache(maxsize=1)
    def made(index: int, epoch: int) -> tuple[Pair, ...]:
        if clean_images is None:
            clean = draw_clean(recipe, index, seed=seed, epoch=epoch)
        else:
            given = clean_images[index]
            clean = given.replace(name=stem(given.name) or f"image_{index:04d}")
        return tuple(make_sets(recipe, clean, seed=seed, epoch=epoch))

    def pixels(index: int, epoch: int, number: int, side: str) -> Any:
        return getattr(made(index, epoch)[number], side).data

    layouts: dict[Any, tuple[Pair, ...]] = {}
    pairs = []
    for epoch, index in itertools.product(range(epochs), range(count)):
        shape = None if clean_images is None else (clean_images[index].axes, clean_images[index].shape)
        # Shapes and types hang on the clean image's shape only: one trial each.
        if shape not in layouts:
            layouts[shape] = made(index, epoch)
        for number, like in enumerate(layouts[shape]):
            source, target = (
                Stored(
                    functools.partial(pixels, index, epoch, number, side),
                    image.axes,
                    image.shape,
                    image.dtype,
                )
                for side, image in (("source", like.source), ("target", like.target))
            )
            # Sets and epochs show the same clean image; a drawn one is another in every epoch.
            shown = "" if clean_images is None else f"clean image {index}"
            pairs.append(ImagePair(source, target, f"{index}_{like.set}_{epoch}", image=shown))
    return pairs


def draw_clean(recipe: Recipe, index: int, *, seed: int, epoch: int = 0) -> Image:
    """Sample number `index` of a recipe that draws its samples."""
    if isinstance(recipe.clean, CleanImages):
        raise InputError(f"recipe {recipe.name!r} degrades clean images; it draws none")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STRUCTURE, epoch, index)))
    return recipe.clean.make(index, rng)


def make_sets(recipe: Recipe, clean: Image, *, seed: int, epoch: int = 0) -> Iterator[Pair]:
    """One clean image, prepared once, through every set of a recipe."""
    clean, measured = check_clean(recipe, clean)
    key = _name_key(clean.name)
    start = Pair(source=clean, target=clean, parameters=measured, image=clean.name)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DEGRADATION, epoch, key)))
    prepared = run_steps(recipe.prepare, start, rng)
    target = prepared.source
    if target.dtype.kind != "f":
        target = target.replace(data=target.data.astype(np.float64))
    for number, each in enumerate(recipe.sets, start=1):
        sequence = np.random.SeedSequence(seed, spawn_key=(_DEGRADATION, epoch, key, number))
        pair = prepared.replace(source=target, target=target, set=each.name)
        pair = run_steps(each.steps, pair, np.random.default_rng(sequence))
        pair = pair.replace(parameters={**pair.parameters, "snr_db": snr_db(_flat(pair), pair.target.data)})
        yield pair.replace(
            source=_lean(pair.source).replace(name=pair.name),
            target=_lean(pair.target).replace(name=pair.name),
        )


def check_clean(recipe: Recipe, image: Image) -> tuple[Image, dict[str, Any]]:
    """A clean image with the recipe's channel and pixel size, and its saturated and negative share."""
    clean = recipe.clean
    name = image.name
    if not np.all(np.isfinite(image.data)):
        share = float(np.mean(~np.isfinite(image.data)))
        raise InputError(
            f"image {name!r} holds NaN or infinite values ({share:.2%} of its pixels); mend or leave it out"
        )
    if not isinstance(clean, CleanImages):
        return image, {}
    if clean.channel is not None:
        if clean.channel >= image.size("C"):
            raise InputError(
                f"channel={clean.channel}, but image {name!r} has {image.size('C')}; channels count from 0"
            )
        if "C" in image.axes:
            data = np.take(image.data, clean.channel, axis=image.axes.index("C"))
            image = image.replace(data=data, axes=image.axes.replace("C", ""))
    if clean.pixel_size_um is not None:
        sizes = {axis: size for axis, size in clean.pixel_size_um.items() if axis in image.axes}
        image = image.replace(pixel_size_um=sizes)
    if not {"Y", "X"} <= set(image.axes):
        raise InputError(f"image {name!r} has axes {image.axes!r}; Y and X are needed")
    if not set(image.axes) <= set(SPACE + "C"):
        raise InputError(f"image {name!r} has axes {image.axes!r}; give single frames (axes of ZYX and C)")
    negative = float(np.mean(image.data < 0))
    if negative > clean.negative_share:
        raise InputError(
            f"image {name!r} has {negative:.2%} negative pixels, which cannot be photons; add an "
            f"offset, or allow them by clean.negative_share (now {clean.negative_share:g})"
        )
    saturated = 0.0
    if image.dtype.kind in "iu":
        # Cameras of 10 to 14 bits saturate below the type's largest value.
        top = int(image.data.max())
        if top in {2**bits - 1 for bits in (8, 10, 12, 14, 15, 16)}:
            saturated = float(np.mean(image.data == top))
    if saturated > clean.saturated_share:
        raise InputError(
            f"image {name!r} has {saturated:.2%} saturated pixels (value {int(image.data.max())}); "
            f"take one that is not over-exposed, or allow it by clean.saturated_share (now {clean.saturated_share:g})"
        )
    return image, {"clean.saturated": saturated, "clean.negative": negative}


def stem(name: str) -> str:
    """A file's name without .tif, .tiff or .zarr, and .ome before it."""
    return re.sub(r"(\.ome)?\.(tiff?|zarr)$", "", name, flags=re.IGNORECASE)


def _name_key(name: str) -> int:
    # By name, not by position: adding an image to a folder leaves the others' draws as they were.
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _flat(pair: Pair) -> Any:
    """The source in its target's shape: of a stack with a flat target the brightest along Z."""
    source = pair.source
    return source.data if source.axes == pair.target.axes else source.data.max(axis=source.axes.index("Z"))


def _lean(image: Image) -> Image:
    return image.replace(data=image.data.astype(np.float32)) if image.dtype == np.float64 else image
