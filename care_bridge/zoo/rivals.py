"""What a model is held against: the image as it is, and restorations that need no network, by what the model does.

Settings are tuned on training images, once for all; beside them stands the best setting for each truth, which nobody
can know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.evaluate import Pair
from care_bridge.evaluate.baselines import (
    BETWEEN_CORES,
    FILTERS,
    SHIPPED,
    TUNING_CROP_PX,
    Baseline,
    lucy_steps,
    shows_cores,
    tune,
    tuning_pieces,
    tuning_places,
)
from care_bridge.evaluate.planes import Plane, plane_of
from care_bridge.evaluate.scores import fields
from care_bridge.images import Image
from care_bridge.inference.volumes import upsample_z
from care_bridge.metrics import nrmse
from care_bridge.model_files import ISOTROPIC, UPSAMPLING_KINDS
from care_bridge.zoo.entry import Entry

ORACLE = "Gaussian, best for each truth"
"""The Gaussian whose width is chosen by the truth itself: no one can use it, and a network should beat it."""

ORACLE_3D = "Gaussian in 3-D, best for each truth"
"""The same with a width along Z too, for stacks: all other filters look at one plane at a time, a 3-D network does not."""

WIDTHS_Z = (0.0, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0)
"""Widths along Z that it may have, in planes: planes lie farther apart than pixels, or as far."""

ALONG_Z = "Richardson-Lucy along Z"
CUBIC = "cubic interpolation"
SURFACE = "surface where contrast is highest"
SMOOTHED = "maximum of the smoothed stack"
MEAN = "mean along Z"

SLICE_PX = 3
"""Slices along Z hold few pixels: each is shown as a square of so many."""

Way = Callable[[Image], Image]
Setting = Mapping[str, Any]
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Rivals:
    """What stands beside a model.

    Attributes
    ----------
    as_input : callable
        The source as it is, in the truth's shape.
    ways : mapping of str to callable
        From a source to what comes of it without a network.
    oracles : mapping of str to callable
        From a source to candidates, of which the best for the truth is taken.
    tuned : str
        How they were tuned, in words.
    plane : callable
        The plane that is shown of a restored image or a truth.
    """

    as_input: Way
    ways: Mapping[str, Way]
    oracles: Mapping[str, Callable[[Image], Iterable[Image]]]
    tuned: str
    plane: Callable[[Image], Plane] = plane_of


def rivals_of(entry: Entry, tuning: Sequence[Pair], *, tuned_on: str, stacks: bool = False) -> Rivals:
    """What a model is held against.

    Parameters
    ----------
    entry : Entry
    tuning : sequence of Pair
        Training images.
    tuned_on : str
        What these are, in words.
    stacks : bool
        Whether there are stacks among the test images.

    Returns
    -------
    Rivals
        For models that fill up stacks: interpolation, and deconvolution along Z. For projections: the maximum, plain,
        smoothed and filtered, and a surface. For all others six filters.
    """
    kind = entry.config.kind
    if kind in UPSAMPLING_KINDS:
        if entry.config.factor is None:
            raise InputError(
                f"{entry.name}: config.json says no factor, so nobody knows how many planes it makes"
            )
        return _filled(tuning, factor=entry.config.factor, tuned_on=tuned_on, sliced=kind == ISOTROPIC)
    if kind == "ProjectionCARE":
        return _projected(tuning, tuned_on=tuned_on)
    filters = _filters([(pair.source, pair.target) for pair in tuning], tuned_on)
    tuned = f"Filters are tuned on {tuned_on}, once for all images: {_settings(filters)}. {ORACLE}: a width that only "
    tuned += "the truth can tell." + (f" {ORACLE_3D}: one in the plane and one along Z." if stacks else "")
    return Rivals(
        as_input=lambda image: image,
        ways={one.name: one.predict for one in filters},
        oracles={ORACLE: gaussians, ORACLE_3D: _stacks_only},
        tuned=tuned,
    )


def error_of(image: Image, truth: Image) -> float:
    """NRMSE of an image of a truth's shape, which tells settings apart at a fraction of all scores' time."""
    given, wanted = ([field for _, field in fields(one)] for one in (image, truth))
    return float(np.mean([nrmse(one, other) for one, other in zip(given, wanted, strict=True)]))


def _filters(pairs: Sequence[tuple[Image, Image]], tuned_on: str) -> list[Baseline]:
    names = SHIPPED  # so that a card is the same wherever it is measured
    if shows_cores([source for source, _ in tuning_pieces(pairs)]):
        names = (*names, BETWEEN_CORES)
    return tune(pairs, tuned_on=tuned_on, names=names)


def _settings(filters: Iterable[Baseline]) -> str:
    return "; ".join(f"{one.name} {one.settings}" for one in filters)


def gaussians(image: Image) -> Iterator[Image]:
    """An image through the Gaussian of every width, plane by plane."""
    for parameters in FILTERS["Gaussian"][1]:
        yield Baseline("Gaussian", parameters).predict(image)


def _stacks_only(image: Image) -> Iterator[Image]:
    """A stack through every Gaussian of `ORACLE_3D`; nothing of other images."""
    from scipy.ndimage import gaussian_filter1d

    if image.size("Z") <= 1:
        return
    widths = [float(parameters["sigma_px"]) for parameters in FILTERS["Gaussian"][1]]
    for along_z in WIDTHS_Z:
        data = image.data.astype(np.float32)
        if along_z:
            data = gaussian_filter1d(data, along_z, axis=image.axes.index("Z"))
        for width in widths:
            blurred = data
            for letter in "YX":
                blurred = gaussian_filter1d(blurred, width, axis=image.axes.index(letter))
            yield image.replace(data=blurred)


# --- a method with settings


@dataclass(frozen=True)
class _Method:
    """A restoration with settings to try: from a stack's pixels (z, y, x) to pixels of the truth's shape."""

    name: str
    function: Callable[..., Volume]
    settings: tuple[Setting, ...]
    chosen: Setting = field(default_factory=dict)

    def predict(self, image: Image) -> Image:
        return self._with(image, self.chosen)

    def all(self, image: Image) -> Iterator[Image]:
        for setting in self.settings:
            yield self._with(image, setting)

    def tuned(self, pairs: Sequence[Pair]) -> _Method:
        """With the setting of the lowest mean error over the pairs."""

        def error(setting: Setting) -> float:
            return float(np.mean([error_of(self._with(pair.source, setting), pair.target) for pair in pairs]))

        return _Method(self.name, self.function, self.settings, min(self.settings, key=error))

    def __str__(self) -> str:
        return f"{self.name} {', '.join(f'{key}={value}' for key, value in self.chosen.items())}"

    def _with(self, image: Image, setting: Setting) -> Image:
        result = self.function(_stack(image), **setting)
        return image.replace(data=result, axes="ZYX" if result.ndim == 3 else "YX", pixel_size_um={})


def _grid(**values: Sequence[Any]) -> tuple[Setting, ...]:
    return tuple(dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))


def _few(pairs: Sequence[Pair]) -> list[Pair]:
    """The middles of some of the pairs from first to last: a tuning optimum is flat."""
    if not pairs:
        raise InputError("no training pair to tune on")
    found = [pairs[place] for place in tuning_places(len(pairs))]
    return [replace(pair, source=_middle(pair.source), target=_middle(pair.target)) for pair in found]


def _middle(image: Image) -> Image:
    cut = [slice(None)] * image.data.ndim
    for letter in "YX":
        size = image.size(letter)
        start = max(0, size - TUNING_CROP_PX) // 2
        cut[image.axes.index(letter)] = slice(start, start + TUNING_CROP_PX)
    return image.replace(data=image.data[tuple(cut)])


def _stack(image: Image) -> Volume:
    """The pixels of a stack (z, y, x)."""
    kept = "".join(
        letter for letter, size in zip(image.axes, image.shape, strict=True) if letter in "ZYX" or size > 1
    )
    if sorted(kept) != sorted("ZYX"):
        raise InputError(
            f"{image.name or 'the image'} has axes {image.axes} and shape {image.shape}; this model is measured on "
            "stacks of one channel and frame"
        )
    data = image.data.reshape([image.size(letter) for letter in kept])
    return np.asarray(data.transpose([kept.index(letter) for letter in "ZYX"]), np.float32)


# --- stacks that are filled up along Z


def _filled(tuning: Sequence[Pair], *, factor: float, tuned_on: str, sliced: bool) -> Rivals:
    def linear(image: Image) -> Image:
        return image.replace(
            data=upsample_z(_stack(image), axis=0, factor=factor), axes="ZYX", pixel_size_um={}
        )

    def cubic(image: Image) -> Image:
        return image.replace(data=_cubic(_stack(image), factor), axes="ZYX", pixel_size_um={})

    def deconvolved(stack: Volume, **setting: Any) -> Volume:
        return sharper_along_z(upsample_z(stack, axis=0, factor=factor), **setting)

    method = _Method(
        ALONG_Z,
        deconvolved,
        _grid(
            sigma_z_px=[factor * share for share in (0.4, 0.6, 0.8, 1.1)],
            iterations=(5, 15, 40),
            sigma_px=(0.0, 0.6, 1.0),
        ),
    ).tuned(_few(tuning))
    best = f"{ALONG_Z}, best for each truth"
    return Rivals(
        as_input=linear,
        ways={CUBIC: cubic, ALONG_Z: method.predict},
        oracles={best: method.all},
        tuned=(
            f"The input is interpolated linearly to as many planes as the truth has. {ALONG_Z}: on the interpolated "
            f"stack, with a Gaussian of sigma_z_px along Z, after a Gaussian of sigma_px in each plane; tuned on "
            f"{tuned_on}, once for all images: {method}. {best}: settings that only the truth can tell."
        ),
        plane=_slice_along_z if sliced else plane_of,
    )


def _cubic(stack: Volume, factor: float) -> Volume:
    """Cubic splines through the planes; first and last planes stay where they are, as in `upsample_z`."""
    from scipy.ndimage import zoom

    planes = round(len(stack) * factor)
    return np.asarray(zoom(stack, (planes / len(stack), 1, 1), order=3, mode="nearest"), np.float32)


def sharper_along_z(stack: Volume, *, sigma_z_px: float, iterations: int, sigma_px: float) -> Volume:
    """Richardson-Lucy with a Gaussian along Z alone, above the stack's minimum.

    Parameters
    ----------
    stack : ndarray, shape (z, y, x)
    sigma_z_px : float
        Of the Gaussian along Z, in planes of this stack.
    iterations : int
    sigma_px : float
        Of a Gaussian in each plane, against noise, before; 0 for none.
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    if sigma_px:
        stack = gaussian_filter(stack, (0, sigma_px, sigma_px))
    low = float(stack.min())
    observed = stack - low
    tiny = 1e-6 * (float(observed.max()) or 1.0)

    def blur(data: Volume) -> Volume:
        return np.asarray(gaussian_filter1d(data, sigma_z_px, axis=0))

    estimate = lucy_steps(observed, observed + tiny, blur, iterations=iterations, tiny=tiny)
    return np.asarray(estimate + low, np.float32)


def _slice_along_z(image: Image) -> Plane:
    """The middle slice that holds Z and X."""
    stack = _stack(image)
    return np.kron(stack[:, stack.shape[1] // 2], np.ones((SLICE_PX, SLICE_PX), np.float32))


# --- stacks that become one plane


def _projected(tuning: Sequence[Pair], *, tuned_on: str) -> Rivals:
    def plain(how: Callable[[Volume], Volume]) -> Way:
        return lambda image: image.replace(data=how(_stack(image)), axes="YX", pixel_size_um={})

    brightest = plain(lambda stack: stack.max(axis=0))

    def through(baseline: Baseline) -> Way:
        return lambda image: baseline.predict(brightest(image))

    few = _few(tuning)
    filters = _filters([(brightest(pair.source), pair.target) for pair in tuning], tuned_on)
    smoothed = _Method(
        SMOOTHED,
        lambda stack, sigma_px, sigma_z_px: _smooth(stack, sigma_px, sigma_z_px).max(axis=0),
        _grid(sigma_px=(0.6, 1.0, 1.5), sigma_z_px=(0.0, 0.7, 1.4)),
    ).tuned(few)
    surface = _Method(
        SURFACE,
        surface_projection,
        _grid(reach_px=(6.0, 12.0, 25.0), planes=(0, 1), sigma_px=(0.6, 1.0, 1.5)),
    ).tuned(few)
    best = f"{SURFACE}, best for each truth"
    return Rivals(
        as_input=brightest,
        ways={
            MEAN: plain(lambda stack: stack.mean(axis=0)),
            SMOOTHED: smoothed.predict,
            SURFACE: surface.predict,
            **{one.name: through(one) for one in filters},
        },
        oracles={
            ORACLE: lambda image: gaussians(brightest(image)),
            best: surface.all,
        },
        tuned=(
            f"The input is the maximum along Z, and the filters are of it. {SURFACE}: the height at which the standard "
            "deviation within reach_px is highest, smoothed, and the mean of so many planes to either side, through a "
            f"Gaussian of sigma_px. Tuned on {tuned_on}, once for all images: {smoothed}; {surface}; {_settings(filters)}. "
            f"{ORACLE}: a width that only the truth can tell, as the settings of {best}."
        ),
    )


def _smooth(stack: Volume, sigma_px: float, sigma_z_px: float) -> Volume:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(stack, (sigma_z_px, sigma_px, sigma_px)), np.float32)


def surface_projection(stack: Volume, *, reach_px: float, planes: int, sigma_px: float) -> Volume:
    """Project the surface on which a stack shows most structure.

    Parameters
    ----------
    stack : ndarray, shape (z, y, x)
    reach_px : float
        Of the Gaussian window whose standard deviation tells where the surface is; the height is smoothed as wide.
    planes : int
        So many to either side of the surface are averaged.
    sigma_px : float
        Of a Gaussian on the result; 0 for none.

    Returns
    -------
    ndarray, shape (y, x)
    """
    from scipy.ndimage import gaussian_filter

    window = (0, reach_px, reach_px)
    # Noise alone has structure too, but the same in every plane.
    calm = gaussian_filter(stack, (0, 1, 1))
    contrast = gaussian_filter(calm**2, window) - gaussian_filter(calm, window) ** 2
    height = gaussian_filter(contrast.argmax(axis=0).astype(np.float32), reach_px)
    middle = np.clip(np.rint(height).astype(int), 0, len(stack) - 1)
    near = [
        np.take_along_axis(stack, np.clip(middle + step, 0, len(stack) - 1)[None], axis=0)[0]
        for step in range(-planes, planes + 1)
    ]
    result = np.mean(near, axis=0, dtype=np.float32)
    return np.asarray(gaussian_filter(result, sigma_px) if sigma_px else result, np.float32)
