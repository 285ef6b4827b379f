"""Classical filters that a network has to beat, each tuned on the training images and on nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.evaluate.planes import Plane, plane_of
from care_bridge.images import Image
from care_bridge.metrics import nrmse
from care_bridge.noise import measure_noise
from care_bridge.predictor import ImagesOnly, Runtime
from care_bridge.progress import Progress, silent
from care_bridge.simulate import cores

Filter = Callable[..., Plane]

TUNING_CROPS = 4
"""Training pieces that a filter is tuned on: a tuning optimum is flat, more would only cost time."""

TUNING_CROP_PX = 192


def gaussian(plane: Plane, *, sigma_px: float) -> Plane:
    """Gaussian filter."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(plane, sigma_px, mode="reflect"))


def median(plane: Plane, *, size_px: int) -> Plane:
    """Median over a square."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(plane, size_px, mode="reflect"))


def non_local_means(plane: Plane, *, strength: float) -> Plane:
    """Non-local means, patches of 5 and a search radius of 6 pixels; strength in units of the noise."""
    from skimage.restoration import denoise_nl_means

    sigma = noise_sd(plane)
    # The fast variant wants a range near 1: its sums are float32.
    low, span = float(plane.min()), float(np.ptp(plane)) or 1.0
    restored = denoise_nl_means(
        (plane - low) / span,
        patch_size=5,
        patch_distance=6,
        h=max(strength * sigma / span, 1e-6),
        sigma=sigma / span,
        fast_mode=True,
    )
    return np.asarray(restored * span + low, np.float32)


def total_variation(plane: Plane, *, weight: float) -> Plane:
    """Total variation after Chambolle; weight in units of the noise."""
    from skimage.restoration import denoise_tv_chambolle

    sigma = noise_sd(plane) or 1.0
    return np.asarray(
        denoise_tv_chambolle(plane / sigma, weight=weight, max_num_iter=100) * sigma, np.float32
    )


def wiener(plane: Plane, *, sigma_px: float, noise_to_signal: float) -> Plane:
    """Wiener deconvolution with a Gaussian point-spread function and a constant noise-to-signal ratio."""
    rim = 16
    padded = np.pad(plane, rim, mode="reflect" if min(plane.shape) > rim else "edge")
    frequency = np.add.outer(np.fft.fftfreq(padded.shape[0]) ** 2, np.fft.rfftfreq(padded.shape[1]) ** 2)
    transfer = np.exp(-2 * np.pi**2 * sigma_px**2 * frequency)
    # Signal power of natural structure falls with the square of the frequency; the ratio is that at 0.1 / px.
    ratio = noise_to_signal * (frequency / 0.01)
    spectrum = np.fft.rfft2(padded) * transfer / (transfer**2 + ratio)
    restored = np.fft.irfft2(spectrum, s=padded.shape)[rim:-rim, rim:-rim]
    return np.asarray(restored, np.float32)


def richardson_lucy(plane: Plane, *, sigma_px: float, iterations: int) -> Plane:
    """Richardson-Lucy deconvolution with a Gaussian point-spread function, above the image's minimum."""
    from scipy.ndimage import gaussian_filter

    low = float(plane.min())
    observed = plane - low
    tiny = 1e-6 * (float(observed.max()) or 1.0)

    def blur(data: Plane) -> Plane:
        return np.asarray(gaussian_filter(data, sigma_px, mode="reflect"))

    estimate = lucy_steps(observed, blur(observed) + tiny, blur, iterations=iterations, tiny=tiny)
    return np.asarray(estimate + low, np.float32)


def lucy_steps(
    observed: Plane, estimate: Plane, blur: Callable[[Plane], Plane], *, iterations: int, tiny: float
) -> Plane:
    """Richardson's and Lucy's steps from an estimate, with a blur that is its own mirror image, as a Gaussian is."""
    for _ in range(iterations):
        estimate = estimate * blur(observed / (blur(estimate) + tiny))
    return estimate


def between_cores(plane: Plane, *, sigma_px: float) -> Plane:
    """Linear interpolation between the cores of a fibre bundle, `simulate.cores.between_cores`, then a Gaussian filter.

    An image without visible cores stays as it is.
    """
    try:
        found = cores.between_cores(plane)
    except InputError:
        return plane
    return gaussian(found, sigma_px=sigma_px) if sigma_px else found


def bm3d(plane: Plane, *, strength: float) -> Plane:
    """BM3D after Anscombe's transform, for photons; strength in units of the noise.

    Notes
    -----
    Dabov, Foi, Katkovnik, Egiazarian 2007, of the package `bm3d`. Variance is taken to be gain * light + constant, as
    `measure_noise` finds it in the plane itself; so light / gain + constant / gain^2 has its own mean as its variance. Back
    by the exact unbiased inverse in closed form (Makitalo and Foi 2011). Where no gain can be told the noise is taken to
    be the same everywhere.
    """
    noise = measure_noise(Image(plane, "YX"))
    gain, constant = noise.gain, noise.variance_at_zero
    if gain is None or constant is None:
        sd = noise.noise_mean
        return _bm3d(plane, strength * sd) if sd > 0 else plane
    photons = plane.astype(np.float64) / gain + constant / gain**2
    even = 2 * np.sqrt(np.maximum(photons + 3 / 8, 0))
    found = np.maximum(_bm3d(even.astype(np.float32), strength).astype(np.float64), 2 * math.sqrt(3 / 8))
    root = math.sqrt(3 / 2)
    back = found**2 / 4 + root / (4 * found) - 11 / (8 * found**2) + 5 * root / (8 * found**3) - 1 / 8
    return np.asarray((back - constant / gain**2) * gain, np.float32)


def _bm3d(plane: Plane, sd: float) -> Plane:
    """White noise of one standard deviation taken from a plane."""
    from bm3d import bm3d as denoise

    # Its thresholds for similar blocks are meant for a range of 1.
    low, span = float(plane.min()), float(np.ptp(plane)) or 1.0
    return np.asarray(denoise((plane - low) / span, sd / span) * span + low, np.float32)


def has_bm3d() -> bool:
    """Whether a person has put the package `bm3d` here, and it loads."""
    try:
        import bm3d  # noqa: F401
    except (ImportError, OSError):  # it brings a compiled library
        return False
    return True


def at_hand() -> tuple[str, ...]:
    """Names of the filters that can be used here: all of `FILTERS` for any image, but BM3D only where its package is."""
    return tuple(name for name in FILTERS if name in SHIPPED or (name == BM3D and has_bm3d()))


def shows_cores(planes: Sequence[Plane]) -> bool:
    """Whether each plane shows the cores of a fibre bundle, so that `BETWEEN_CORES` says something."""
    try:
        return bool([cores.measured_pitch(plane) for plane in planes])
    except InputError:
        return False


def noise_sd(plane: NDArray[Any]) -> float:
    """Standard deviation of pixel-independent noise.

    Notes
    -----
    From the median absolute response of the second-difference mask whose squares sum to 36 (Immerkaer 1996):
    the median does not see edges.
    """
    from scipy.ndimage import convolve

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(convolve(np.asarray(plane, np.float32), mask, mode="reflect"))
    return float(np.median(response)) / 0.6745 / 6


BM3D = "BM3D"
BETWEEN_CORES = "between cores"

FILTERS: Mapping[str, tuple[Filter, tuple[Mapping[str, Any], ...]]] = {
    "Gaussian": (gaussian, tuple({"sigma_px": s} for s in (0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.2))),
    "median": (median, tuple({"size_px": s} for s in (3, 5, 7))),
    "non-local means": (non_local_means, tuple({"strength": s} for s in (0.5, 0.8, 1.2, 1.8, 2.7, 4.0, 6.0))),
    "total variation": (
        total_variation,
        tuple({"weight": w} for w in (0.3, 0.7, 1.2, 2.0, 3.0, 4.5, 7.0)),
    ),
    "Wiener": (
        wiener,
        tuple(
            {"sigma_px": s, "noise_to_signal": k}
            for s in (0.5, 1.0, 1.5)
            for k in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        ),
    ),
    "Richardson-Lucy": (
        richardson_lucy,
        tuple({"sigma_px": s, "iterations": n} for s in (0.7, 1.0, 1.5, 2.0) for n in (1, 3, 6, 12)),
    ),
    BETWEEN_CORES: (between_cores, tuple({"sigma_px": s} for s in (0.0, 0.6, 1.0, 1.6, 2.5, 4.0))),
    BM3D: (bm3d, tuple({"strength": s} for s in (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0))),
}
"""Name to filter and the settings that tuning tries."""

SHIPPED = tuple(name for name in FILTERS if name not in (BM3D, BETWEEN_CORES))
"""Those for any image that need nothing but what care_bridge stands on."""


@dataclass(frozen=True)
class Baseline(ImagesOnly):
    """A tuned filter; a `Predictor`, so that it is scored as a network is.

    Attributes
    ----------
    name : str
        A key of `FILTERS`.
    parameters : mapping
    tuned_on : str
        Which images chose the parameters.
    tuning_s : float
        How long that took.
    at_edge : bool
        Whether the chosen setting is the last one tried, so that a better one may lie beyond.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tuned_on: str = ""
    tuning_s: float = 0.0
    at_edge: bool = False

    @property
    def runtime(self) -> Runtime:
        from importlib.metadata import version

        names = ("bm3d",) if self.name == BM3D else ("scikit-image", "scipy")
        return Runtime(self.name, {name: version(name) for name in names})

    @property
    def settings(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.parameters.items())

    def predict(self, image: Image) -> Image:
        """Filter every plane by itself; float32."""
        function = FILTERS[self.name][0]
        outer = "".join(letter for letter in image.axes if letter not in "YX")
        planes = move_axes(image.data, image.axes, outer + "YX").astype(np.float32)
        result = np.empty_like(planes)
        for index in np.ndindex(*planes.shape[:-2]):
            result[index] = function(_without_holes(planes[index]), **self.parameters)
        return image.replace(data=move_axes(result, outer + "YX", image.axes))


def tune(
    pairs: Sequence[tuple[Image, Image]],
    *,
    tuned_on: str,
    names: Sequence[str] | None = None,
    progress: Progress = silent,
) -> list[Baseline]:
    """Choose each filter's setting by the lowest mean NRMSE over pieces of the training pairs.

    Parameters
    ----------
    pairs : sequence of (source, target)
        Training images. Tuning on the images that are scored flatters a filter.
    tuned_on : str
        What the report calls these images.
    names : sequence of str, optional
        Keys of `FILTERS`. None takes those that are `at_hand`, and interpolation between cores where the training
        sources show some.
    progress : Progress

    Raises
    ------
    InputError
        If there is no pair or a name is unknown.
    NotInstalledError
        If BM3D is asked for by name and its package is not there.
    """
    chosen = names is not None
    names = at_hand() if names is None else names
    unknown = sorted(set(names) - set(FILTERS))
    if unknown:
        raise InputError(f"no baseline is called {', '.join(unknown)}; there are {', '.join(FILTERS)}")
    if BM3D in names and not has_bm3d():
        raise NotInstalledError(
            "BM3D needs the package bm3d, which its authors allow for non-commercial use only: pip install bm3d"
        )
    pieces = tuning_pieces(pairs)
    if not chosen and shows_cores([source for source, _ in pieces]):
        names = (*names, BETWEEN_CORES)
    baselines = []
    total = sum(len(FILTERS[name][1]) for name in names)
    done = 0
    for name in names:
        function, settings = FILTERS[name]
        started = time.perf_counter()
        errors = []
        for parameters in settings:
            errors.append(float(np.mean([nrmse(function(s, **parameters), t) for s, t in pieces])))
            done += 1
            progress(done, total, "tuning baselines")
        best = settings[int(np.argmin(errors))]
        edge = any(
            len(tried := sorted({s[key] for s in settings})) > 1 and best[key] == tried[-1] for key in best
        )
        baselines.append(Baseline(name, best, tuned_on, time.perf_counter() - started, edge))
    return baselines


def tuning_pieces(pairs: Sequence[tuple[Image, Image]]) -> list[tuple[Plane, Plane]]:
    """The pieces that filters are tuned on: of evenly chosen pairs, the brightest piece of a middle plane."""
    if not pairs:
        raise InputError("no training pair to tune the baselines on")
    places = tuning_places(len(pairs))
    share = -(-TUNING_CROPS // len(places))
    pieces = []
    for place in places:
        source, target = (plane_of(image) for image in pairs[place])
        pieces += [(source[cut], target[cut]) for cut in _brightest(target, share)]
    usable = [(s, t) for s, t in pieces if np.isfinite(s).all() and np.isfinite(t).all() and np.ptp(t) > 0]
    if not usable:
        raise InputError("the training pairs hold no piece with structure to tune the baselines on")
    return usable


def tuning_places(count: int) -> list[int]:
    """Which of so many pairs settings are tuned on: some, from first to last."""
    return [
        int(place) for place in np.unique(np.linspace(0, count - 1, min(TUNING_CROPS, count)).astype(int))
    ]


def _brightest(plane: Plane, count: int) -> list[tuple[slice, slice]]:
    side = [min(TUNING_CROP_PX, size) for size in plane.shape]
    cuts = [
        (slice(y, y + side[0]), slice(x, x + side[1]))
        for y in range(0, plane.shape[0] - side[0] + 1, side[0])
        for x in range(0, plane.shape[1] - side[1] + 1, side[1])
    ]
    return sorted(cuts, key=lambda cut: -float(np.std(np.nan_to_num(plane[cut]))))[:count]


def _without_holes(plane: Plane) -> Plane:
    holes = ~np.isfinite(plane)
    if not holes.any():
        return plane
    return np.where(holes, np.float32(np.median(plane[~holes]) if not holes.all() else 0), plane)
