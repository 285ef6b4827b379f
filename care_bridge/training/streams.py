"""Patches that are simulated while a network trains: none is seen twice, and each hangs on (seed, step) alone.

Source and target are in the same unit, the camera's grey levels, and on one scale: percentiles of the noisy source, as
`target_scale="source"` has it. At prediction percentiles come from a whole image, so here they do not come from the patch
but from pixels of all of the clean image, taken by the same camera.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from care_bridge.axes import move_axes
from care_bridge.defaults import SEED
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.images import Image, is_zarr, list_images, read_image
from care_bridge.patches import PatchPercentiles
from care_bridge.progress import Progress, silent
from care_bridge.simulate.camera import expected, expose
from care_bridge.simulate.dataset import check_clean
from care_bridge.simulate.recipe import CleanImages, Recipe, Views, load_recipe
from care_bridge.simulate.steps import Camera, Contrast, FibreBundle, draw, draw_log
from care_bridge.training.batches import Arrays, Batch
from care_bridge.training.data import TrainingData

VALIDATION_FRACTION = 0.15
"""Share of the clean images, or of every image's rows, that only validates."""

SPLIT_BY_FILE = 8
"""From so many clean files on whole ones validate; of fewer a strip of each."""

SAMPLE = 2048
"""Pixels of the whole clean image that a patch's percentiles are taken from."""

_PLACES = 1 << 16
_SHRUNK = (1, 2, 3)
_STEPS, _VALIDATION, _DRAWN, _SAMPLE = range(2, 6)
"""Second entry of the seeds, so that what is drawn for one purpose tells nothing of another (0, 1: `batches`)."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CleanImage:
    """A clean image and which rows of it may be looked at.

    Attributes
    ----------
    planes : ndarray, shape (n, y, x) or (n, z, y, x)
        As read; mapped files stay on the disk.
    low, high : float
        What becomes 0 and 1.
    rows : (int, int)
        First row, and the one after the last.
    samples : mapping of int to ndarray
        `SAMPLE` pixels in the order of their brightness, 0-1, of the image made smaller by a whole factor.
    drawn : bool
    """

    planes: NDArray[Any]
    low: float
    high: float
    rows: tuple[int, int]
    samples: dict[int, Float32]
    drawn: bool = False

    @property
    def area(self) -> float:
        return float(len(self.planes) * (self.rows[1] - self.rows[0]) * self.planes.shape[-1])


class Stream:
    """Batches of simulated patches, each made from its step's number and a seed.

    Parameters
    ----------
    images : sequence of CleanImage
    camera : simulate.steps.Camera
    views : simulate.recipe.Views
    bundle : simulate.steps.FibreBundle, optional
        Before the camera; for patches along Y and X.
    patch_size : sequence of int
        (y, x) or (z, y, x).
    percentiles : PatchPercentiles
    """

    def __init__(
        self,
        images: Sequence[CleanImage],
        camera: Camera,
        views: Views,
        *,
        patch_size: Sequence[int],
        percentiles: PatchPercentiles,
        bundle: FibreBundle | None = None,
    ) -> None:
        self.bundle = bundle
        self.images, self.camera, self.views = list(images), camera, views
        self.patch_size, self.percentiles = tuple(patch_size), percentiles
        weights = np.array([image.area if views.choose == "area" else 1.0 for image in self.images])
        drawn = np.array([image.drawn for image in self.images])
        if drawn.any() and not drawn.all():
            share = np.where(drawn, views.drawn_share, 1 - views.drawn_share)
            weights = share * weights / np.where(drawn, weights[drawn].sum(), weights[~drawn].sum())
        self._cumulative = np.cumsum(weights / weights.sum())

    def batch_at(self, step: int, *, size: int, seed: int, purpose: int = _STEPS) -> Batch:
        """The patches of a step, shape (size, [z,] y, x, 1), on the scale of the sources' percentiles."""
        rng = np.random.default_rng([seed, purpose, step])
        sources = np.empty((size, *self.patch_size, 1), np.float32)
        targets = np.empty_like(sources)
        for number, (pmin, pmax) in enumerate(zip(*self.percentiles.draw(rng, size), strict=True)):
            self._make(rng, pmin, pmax, sources[number, ..., 0], targets[number, ..., 0])
        return sources, targets

    def fingerprint(self) -> str:
        """Of a few patches: does a resumed run have the same images and recipe?"""
        digest = hashlib.sha256()
        for array in self.batch_at(0, size=8, seed=0):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _make(
        self, rng: np.random.Generator, pmin: float, pmax: float, source: Float32, target: Float32
    ) -> None:
        views = self.views
        image = self.images[int(np.searchsorted(self._cumulative, rng.random(), side="right"))]
        clean, zoom = self._view(image, rng)
        nearest = min(_SHRUNK, key=lambda factor: abs(factor - 1 / zoom))
        sample = image.samples[nearest]
        if views.inverted_share and rng.random() < views.inverted_share:
            clean, sample = np.maximum(1 - clean, 0), np.maximum(1 - sample[::-1], 0)
        gamma, level = draw_log(views.gamma, rng), draw(views.level, rng)
        blur, blurred = draw(views.blur_px, rng), rng.random() < views.blur_share
        if blurred and blur > 0:
            plane = (0.0,) * (clean.ndim - 2) + (blur, blur)
            clean = ndimage.gaussian_filter(clean, plane, mode="nearest", truncate=3)
        # The level belongs to the white level, so that the photons are those of the brightest places.
        clean, sample = ((part**gamma + level) / (1 + level) for part in (clean, sample))
        light = clean
        if self.bundle is not None:
            light, clean, sample = self._through_bundle(clean, sample, rng)
        setting = self.camera.draw(rng)
        values = expose(sample, setting, rng=rng, scattered=True)
        low, high = np.percentile(values, (pmin, pmax))
        if not high > low:
            # Few bright pixels, or so little light that most grey levels are one.
            low, high = float(values.min()), max(float(values.max()), float(values.min()) + setting.gain)
        low, scale = np.float32(low), np.float32(high - low)
        source[...] = (expose(light, setting, rng=rng) - low) / scale
        target[...] = (expected(clean, setting) - low) / scale

    def _through_bundle(
        self, clean: Float32, sample: Float32, rng: np.random.Generator
    ) -> tuple[Float32, Float32, Float32]:
        """What a bundle shows of a patch and of the whole image's pixels, and what is wanted of the patch."""
        assert self.bundle is not None
        view = self.bundle.draw((clean.shape[-2], clean.shape[-1]), rng)
        shown, seen = view.through(clean, white=1.0), view.wanted(clean, white=1.0)
        wanted = seen if self.bundle.target == "seen" else clean
        # The honeycomb is the same all over: pixels of the whole image are as bright, against what is wanted there, as some
        # of the patch's that are not dark.
        dark = view.cladding
        even = (shown - dark) / np.maximum(seen - dark, 1e-6)
        even = even[seen - dark >= np.median(seen - dark)]
        levels = sample * rng.choice(even, size=sample.shape) + dark
        return (
            np.asarray(np.maximum(shown, 0), np.float32),
            np.asarray(wanted, np.float32),
            np.asarray(np.sort(levels), np.float32),
        )

    def _planes(self, stack: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Planes of a stack from a place along Z on, as far apart as `Views.plane_step` lets them be."""
        between = self.patch_size[0] - 1
        most = min(self.views.plane_step, (len(stack) - 1) // between if between else 1)
        step = int(rng.integers(most)) + 1 if most > 1 else 1
        first = int(rng.integers(len(stack) - between * step))
        return stack[first : first + between * step + 1 : step]

    def _view(self, image: CleanImage, rng: np.random.Generator) -> tuple[Float32, float]:
        """A place of a clean image, made smaller, flipped and turned; values from 0."""
        views, (first, last) = self.views, image.rows
        height, width = self.patch_size[-2:]
        turned = bool(views.turns and height == width and rng.random() < 0.5)
        flips = rng.random(3) < 0.5
        smallest = max(height / (last - first), width / image.planes.shape[-1])
        zoom = max(draw(views.zoom, rng), smallest)
        span = height / zoom, width / zoom
        best: NDArray[Any] | None = None
        contrast = -1.0
        for _ in range(views.places):
            plane = image.planes[int(rng.integers(len(image.planes)))]
            if plane.ndim == 3:
                plane = self._planes(plane, rng)
            y = first + rng.random() * (last - first - span[0])
            x = rng.random() * (plane.shape[-1] - span[1])
            rows, across = _whole(y, span[0], last), _whole(x, span[1], plane.shape[-1])
            crop = plane[..., rows, across]
            found = float(crop[..., ::4, ::4].std()) if views.places > 1 else 0.0
            if found > contrast:
                best, contrast, offsets = crop, found, (y - rows.start, x - across.start)
        assert best is not None
        scaled = (np.asarray(best, np.float32) - np.float32(image.low)) / np.float32(image.high - image.low)
        down = _area_means(np.maximum(scaled, 0), height, offsets[0], zoom, -2)
        clean = np.maximum(_area_means(down, width, offsets[1], zoom, -1), 0)
        if views.turns:
            clean = clean[..., :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
            if clean.ndim == 3 and flips[2]:
                clean = clean[::-1]
            clean = clean.swapaxes(-1, -2) if turned else clean
        return clean, zoom


def _whole(start: float, span: float, end: int) -> slice:
    return slice(int(start), min(int(np.ceil(start + span)), end))


def _area_means(data: Float32, size: int, start: float, zoom: float, axis: int) -> Float32:
    """Means over `size` larger pixels along an axis, the first from `start` on; from sums, so that no threads compete."""
    moved = np.moveaxis(data, axis, 0)
    edges = start + np.arange(size + 1) / zoom
    pixel = np.minimum(edges.astype(int), len(moved) - 1)
    before = np.cumsum(moved, axis=0, dtype=np.float64)
    share = (edges - pixel).reshape(-1, *(1,) * (moved.ndim - 1))
    sums = before[pixel] - (1 - share) * moved[pixel]
    return np.moveaxis(np.asarray(np.diff(sums, axis=0) * zoom, np.float32), 0, axis)


def data_from_stream(
    recipe: Recipe | str | os.PathLike[str],
    clean: str | os.PathLike[str] | None = None,
    *,
    patch_size: Sequence[int],
    axes: str,
    image_axes: str | None = None,
    channel: int | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    percentiles: PatchPercentiles = PatchPercentiles(),  # noqa: B008 - frozen values
    seed: int = SEED,
    progress: Progress = silent,
) -> TrainingData:
    """A stream of simulated patches to train on, and a fixed set of them, from other pixels, to validate.

    Parameters
    ----------
    recipe : Recipe, or str or path
        One with a `stream`, e.g. "denoise".
    clean : path, optional
        Folder of clean images, those of its folders too, or one image; None trains on the recipe's drawn samples.
    patch_size : sequence of int
        Pixels along `axes`.
    axes : str
        Of the network, YX or ZYX. For YX every plane of a stack and every frame is an image; every channel is.
    image_axes, channel
        See `patches.pairs_from_folders`.
    validation_fraction : float
        Share of the clean images, or of each where they are few, that validates.
    percentiles : PatchPercentiles
    seed : int
        Draws samples and the patches that validate. Those that train hang on `CareConfig.seed`.
    progress : Progress

    Returns
    -------
    TrainingData

    Raises
    ------
    InputError
        If the recipe is none for streams, or an image cannot be used: all of them are said, a line each.
    """
    recipe = load_recipe(recipe)
    contrast, bundle, camera, views = _stream_of(recipe)
    space = axes.replace("C", "")
    if space not in ("YX", "ZYX"):
        raise InputError(
            f"simulated patches lie along YX or ZYX; received axes {axes!r}; give --network-axes YX or ZYX"
        )
    if bundle is not None and space != "YX":
        raise InputError(
            f"recipe {recipe.name!r} looks through a fibre bundle, whose images are planes; give --network-axes YX"
        )
    if len(patch_size) != len(space):
        raise InputError(
            f"patch_size {tuple(patch_size)} has {len(patch_size)} numbers for a network along {space}; give {len(space)}"
        )
    if not 0 < validation_fraction < 1:
        raise InputError(f"validation_fraction must lie between 0 and 1; received {validation_fraction}")
    files = clean_files(clean) if clean is not None else []
    if not files and not views.drawn:
        raise InputError(f"recipe {recipe.name!r} degrades clean images; name a folder of them")
    opening = _Opening(recipe, contrast, tuple(patch_size), validation_fraction, image_axes, channel, seed)
    training, validation, hashes = opening.read(files, Path(clean) if clean is not None else None, progress)
    drawn = opening.draw(views, len(files), progress)
    training, validation = [*training, *drawn[0]], [*validation, *drawn[1]]
    how: dict[str, Any] = {"patch_size": patch_size, "percentiles": percentiles, "bundle": bundle}
    held = Stream(validation, camera, views, **how)
    fixed = held.batch_at(0, size=views.validation, seed=seed, purpose=_VALIDATION)
    provenance = {
        "target": hashes,
        "recipe": recipe.model_dump(mode="json"),
        "percentiles": {"pmin": list(percentiles.pmin), "pmax": list(percentiles.pmax)},
        "patch_size": [int(pixels) for pixels in patch_size],
        "validation_fraction": validation_fraction,
        "n_validation": views.validation,
        "stream_seed": seed,
        "target_scale": "source",
        "target_scale_because": "the patches are simulated",
        "split": "no validation pixel is a training pixel",
    }
    provenance |= {"channel": channel} if channel is not None else {}
    if bundle is not None and bundle.like is not None:
        shown = [bundle.like, *([bundle.flat] if bundle.flat is not None else [])]
        provenance["bundle"] = {Path(file).name: sha256(file) for file in shown}
    return TrainingData(
        Stream(training, camera, views, **how), Arrays(*fixed), space + "C", 1, 1, provenance, "source"
    )


def _stream_of(recipe: Recipe) -> tuple[Contrast, FibreBundle | None, Camera, Views]:
    """What a recipe says of patches; refuses what is for whole images only."""
    steps = recipe.sets[0].steps
    bundle = steps[0] if len(steps) == 2 and isinstance(steps[0], FibreBundle) else None
    camera = steps[-1]
    if (
        recipe.stream is None
        or len(recipe.sets) != 1
        or len(recipe.prepare) != 1
        or (len(steps) != 1 and bundle is None)
        or not isinstance(recipe.prepare[0], Contrast)
        or not isinstance(camera, Camera)
        or not isinstance(recipe.clean, CleanImages)
    ):
        raise InputError(
            f"recipe {recipe.name!r} is made for whole images: a stream takes one with `stream`, one `contrast` to "
            f"prepare and one set of one `camera`, which a `fibre` may stand before, e.g. denoise; or make pairs first "
            f"(care-bridge simulate {recipe.name} ... --out PAIRS) and train on them"
        )
    return recipe.prepare[0], bundle, camera, recipe.stream


def clean_files(clean: str | os.PathLike[str]) -> list[Path]:
    """The image that a path is, or those of a folder and the folders in it.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(clean)
    if path.is_file() or is_zarr(path):
        return [path]
    if not path.is_dir():
        raise InputError(f"no clean images at {str(path)!r}; name a folder of .tif images")
    files = list_images(path, "**/*.tif*")
    if not files:
        raise InputError(
            f"folder {str(path)!r} holds no .tif, .tiff or .zarr image, nor do the folders in it"
        )
    return files


def stream_axes(clean: str | os.PathLike[str] | None, *, image_axes: str | None = None) -> str:
    """Axes of the network that clean images ask for: ZYX where all of them are stacks along Z, else YX."""
    files = clean_files(clean) if clean is not None else []
    stacks = bool(files) and all("Z" in read_image(file, image_axes, mapped=True).axes for file in files)
    return "ZYX" if stacks else "YX"


@dataclass(frozen=True)
class _Opening:
    recipe: Recipe
    contrast: Contrast
    patch_size: tuple[int, ...]
    validation_fraction: float
    image_axes: str | None
    channel: int | None
    seed: int

    def read(
        self, files: Sequence[Path], folder: Path | None, progress: Progress
    ) -> tuple[list[CleanImage], list[CleanImage], dict[str, str]]:
        """Clean images that train and that validate, and the SHA-256 of their files."""
        problems: list[str] = []
        opened: list[list[CleanImage]] = []
        hashes: dict[str, str] = {}
        for number, file in enumerate(files):
            progress(number, len(files), "reading clean images")
            try:
                opened.append(self._file(file))
            except InputError as error:
                problems.append(str(error))
                continue
            name = (
                file.relative_to(folder).as_posix()
                if folder not in (None, file) and folder.is_dir()
                else file.name
            )
            hashes[name] = sha256(file)
        progress(len(files), len(files), "reading clean images")
        if problems:
            raise InputError("\n".join(problems))
        training, validation = self._split(opened)
        return training, validation, hashes

    def draw(
        self, views: Views, n_files: int, progress: Progress
    ) -> tuple[list[CleanImage], list[CleanImage]]:
        """Drawn samples that train and that validate."""
        if n_files and not views.drawn_share:
            return [], []
        todo = [(kind, index) for kind in views.drawn for index in range(kind.images)]
        drawn: list[list[CleanImage]] = []
        for number, (kind, index) in enumerate(todo):
            progress(number, len(todo), "drawing samples")
            rng = np.random.default_rng([self.seed, _DRAWN, number])
            flat = len(self.patch_size) == 2
            planes = max((self.patch_size[0] - 1) * views.plane_step + 1, 16)
            shape = kind.shape[-2:] if flat else (planes, *kind.shape[-2:])
            image = kind.model_copy(update={"shape": shape, "channels": 1}).make(index, rng)
            blur = draw(views.drawn_blur_px, rng)
            data = ndimage.gaussian_filter(image.data, blur, mode="reflect")
            drawn.append([self._clean(data[np.newaxis], f"{kind.kind} {index}", drawn=True)])
        if todo:
            progress(len(todo), len(todo), "drawing samples")
        return self._split(drawn)

    def _file(self, file: Path) -> list[CleanImage]:
        image = read_image(file, self.image_axes, mapped=True).replace(name=file.name)
        if not {"Y", "X"} <= set(image.axes):
            raise InputError(f"image {file.name!r} has axes {image.axes!r}; Y and X are needed")
        if len(self.patch_size) == 3 and image.size("Z") < self.patch_size[0]:
            raise InputError(
                f"image {file.name!r} has {image.size('Z')} planes along Z; the patches have {self.patch_size[0]}: "
                "leave it out, or give a smaller --patch-size or --network-axes YX"
            )
        if self.channel is not None and not self.channel < image.size("C"):
            raise InputError(
                f"channel={self.channel}, but image {file.name!r} has {image.size('C')}; channels count from 0"
            )
        moved = move_axes(image.data, image.axes, "CSTZYX")
        channels = range(len(moved)) if self.channel is None else [self.channel]
        flat = len(self.patch_size) == 2
        found = []
        for number in channels:
            size = moved.shape[3:] if not flat else moved.shape[4:]
            planes = moved[number].reshape(-1, *size)
            name = file.name if len(moved) == 1 else f"{file.name} channel {number}"
            found.append(self._clean(planes, name))
        return found

    def _clean(self, planes: NDArray[Any], name: str, *, drawn: bool = False) -> CleanImage:
        check_clean(self.recipe, Image(planes.reshape(-1, *planes.shape[-2:]), "ZYX", name=name))
        height, width = planes.shape[-2:]
        if height < self.patch_size[-2] or width < self.patch_size[-1]:
            raise InputError(
                f"image {name!r} has {height} x {width} pixels; the patches have {self.patch_size[-2]} x "
                f"{self.patch_size[-1]}: leave it out, or give a smaller --patch-size"
            )
        rng = np.random.default_rng([self.seed, _SAMPLE])
        places = [rng.integers(0, size, _PLACES) for size in planes.shape]
        values = np.asarray(planes[tuple(places)], np.float32)
        low, high = (float(one) for one in np.percentile(values, [self.contrast.pmin, self.contrast.pmax]))
        if not high > low:
            raise InputError(
                f"image {name!r} is constant between its percentiles {self.contrast.pmin:g} and "
                f"{self.contrast.pmax:g}, so its contrast cannot be stretched; leave it out"
            )
        samples = {}
        for factor in _SHRUNK:
            mean = np.zeros(_PLACES, np.float32)
            for down in range(factor):
                for right in range(factor):
                    near = [*places[:-2], np.minimum(places[-2] + down, height - 1)]
                    near.append(np.minimum(places[-1] + right, width - 1))
                    mean += planes[tuple(near)]
            shares = (np.arange(SAMPLE) + 0.5) / SAMPLE
            ordered = np.sort((mean / factor**2 - low) / (high - low))
            samples[factor] = np.maximum(ordered[(shares * _PLACES).astype(int)], 0)
        return CleanImage(planes, low, high, (0, height), samples, drawn)

    def _split(self, opened: Sequence[Sequence[CleanImage]]) -> tuple[list[CleanImage], list[CleanImage]]:
        """By file, so that planes of one field stay together; or a strip of each."""
        training: list[CleanImage] = []
        validation: list[CleanImage] = []
        if not opened:
            return training, validation
        if len(opened) >= SPLIT_BY_FILE:
            order = np.random.default_rng([self.seed, _VALIDATION]).permutation(len(opened))
            held = set(order[: max(1, round(self.validation_fraction * len(opened)))].tolist())
            for number, images in enumerate(opened):
                (validation if number in held else training).extend(images)
            return training, validation
        least = self.patch_size[-2]
        for image in (one for images in opened for one in images):
            height = image.rows[1]
            if height < 2 * least:
                training.append(image)
                continue
            cut = height - min(max(least, round(self.validation_fraction * height)), height - least)
            training.append(_rows(image, 0, cut))
            validation.append(_rows(image, cut, height))
        if not validation:
            raise InputError(
                f"no clean image has {2 * least} rows, so none can both train and validate; give larger images, "
                f"{SPLIT_BY_FILE} of them, or a smaller --patch-size"
            )
        return training, validation


def _rows(image: CleanImage, first: int, last: int) -> CleanImage:
    return CleanImage(image.planes, image.low, image.high, (first, last), image.samples, image.drawn)
