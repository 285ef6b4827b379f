"""The steps of a recipe: typed, closed values that each know how to change a pair.

A step changes the source; only those that crop, round or rescale touch the target. Numbers that vary are
intervals: ``[low, high]`` draws uniformly for every image and set, a single number is that number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from care_bridge.axes import SPACE
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.simulate import camera, degrade, fibre, isotropic, structures, surface
from care_bridge.simulate.optics import Optics, from_beads, psf
from care_bridge.simulate.pair import Pair


def _as_interval(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"an interval is [low, high]; received {list(value)}")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
Interval = Annotated[tuple[Finite, Finite], BeforeValidator(_as_interval), AfterValidator(_ordered)]
"""[low, high], drawn uniformly; a single number stands for itself."""


def _above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError(f"must be above 0; received {value[0]:g}")
    return value


def _not_negative(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] < 0:
        raise ValueError(f"must be 0 or more; received {value[0]:g}")
    return value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, dict | Optics) else value


EachOptics = Annotated[tuple[Optics, ...], BeforeValidator(_as_list)]
"""One for all channels, or one a channel."""

Positive = Annotated[Interval, AfterValidator(_above_zero)]
NotNegative = Annotated[Interval, AfterValidator(_not_negative)]
Share = Annotated[float, Field(ge=0, le=1)]
Drawn = Mapping[str, Any]


def _below_most(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > camera.NEIGHBOURS_MOST:
        raise ValueError(f"is at most {camera.NEIGHBOURS_MOST:g}; received {value[1]:g}")
    return value


def _at_most_all(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1:
        raise ValueError(f"is a share, at most 1; received {value[1]:g}")
    return value


class Closed(BaseModel):
    """Frozen values; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def draw(interval: tuple[float, float], rng: np.random.Generator) -> float:
    """A number of the interval. One draw is always taken, so that later draws do not depend on the width."""
    return float(rng.uniform(*interval))


def draw_log(interval: tuple[float, float], rng: np.random.Generator) -> float:
    """A number of the interval, each ratio as likely as any other of its size. One draw, as `draw`."""
    low, high = np.log(interval)
    return float(np.exp(rng.uniform(low, high)))


class Contrast(Closed):
    """Stretch linearly: percentile `pmin` becomes 0 and `pmax` 1, what lies outside is cut; each channel
    alone. `cut_above: false` leaves what is brighter than `pmax`.
    """

    step: Literal["contrast"] = "contrast"
    pmin: float = Field(default=0.1, ge=0, lt=100)
    pmax: float = Field(default=99.9, gt=0, le=100)
    cut_above: bool = True

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        data = np.asarray(image.data, dtype=np.float64)
        keep = tuple(index for index, letter in enumerate(image.axes) if letter in SPACE)
        low, high = np.percentile(data, [self.pmin, self.pmax], axis=keep, keepdims=True)
        if np.any(high <= low):
            raise InputError(
                f"image {pair.image!r} is constant between its percentiles {self.pmin:g} and "
                f"{self.pmax:g}, so its contrast cannot be stretched; leave it out"
            )
        stretched = np.clip((data - low) / (high - low), 0, 1 if self.cut_above else None)
        return _with_source(pair, stretched), {"low": _one(low), "high": _one(high)}


class Scale(Closed):
    """Divide by the white level, so that it becomes 1: for clean images whose grey values shall keep their
    meaning.
    """

    step: Literal["scale"] = "scale"
    white: float = Field(gt=0)

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        return _with_source(pair, np.asarray(pair.source.data, dtype=np.float64) / self.white), {}


class Minimum(Closed):
    """ImageJ's minimum filter, slice by slice; then, if wanted, a black level that is taken off.

    Radius and structure are in pixels or in um. A radius above `largest_share` of the structure is refused.
    `black_level: auto` is the most frequent value of 256 bins.
    """

    step: Literal["minimum"] = "minimum"
    radius_px: float | None = Field(default=None, ge=0)
    radius_um: float | None = Field(default=None, ge=0)
    structure_px: float | None = Field(default=None, gt=0)
    structure_um: float | None = Field(default=None, gt=0)
    largest_share: float = Field(default=degrade.MINIMUM_SHARE, gt=0, le=1)
    black_level: float | Literal["auto"] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Minimum:
        if (self.radius_px is None) == (self.radius_um is None):
            raise ValueError("give either radius_px or radius_um")
        if self.structure_px is not None and self.structure_um is not None:
            raise ValueError("give structure_px or structure_um, not both")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        radius = _pixels(self.radius_px, self.radius_um, image, "radius_um")
        structure = _pixels(self.structure_px, self.structure_um, image, "structure_um")
        assert radius is not None
        data = degrade.minimum_filter(
            image.data,
            radius_px=radius,
            axes=image.axes,
            structure_px=structure,
            largest_share=self.largest_share,
        )
        drawn: dict[str, Any] = {"radius_px": radius}
        if image.pixel_size_um.get("X"):
            drawn["radius_um"] = radius * image.pixel_size_um["X"]
        if self.black_level is not None:
            black = _mode(data) if self.black_level == "auto" else self.black_level
            data = np.maximum(data - black, 0)
            drawn["black_level"] = black
        return _with_source(pair, data), drawn


class Blur(Closed):
    """Convolution with the microscope's point spread function: 3-D for stacks, the plane in focus for 2-D images.

    `optics` is one for all channels, or a list of one a channel. Instead, `measured` is a file that holds a point
    spread function on the images' pixels, and `beads` an image of beads to take it from.
    """

    step: Literal["psf"] = "psf"
    optics: EachOptics = ()
    measured: str | None = None
    beads: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Blur:
        if bool(self.optics) + (self.measured is not None) + (self.beads is not None) != 1:
            raise ValueError("give one of optics, measured and beads")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        return _with_source(pair, degrade.convolve(image.data, psf=self.kernel(image), axes=image.axes)), {}

    def kernel(self, image: Image) -> degrade.Array:
        """The point spread function for an image: one dimension a space axis, or one more of channels."""
        axes = "".join(letter for letter in image.axes if letter in SPACE)
        file = self.measured or self.beads
        if file is not None:
            from care_bridge.images import read_image

            there = read_image(file)
            if there.axes != axes:
                raise InputError(f"{file}: has axes {there.axes!r}, but the image has {axes!r}")
            return from_beads(there) if self.beads else np.maximum(there.data.astype(np.float64), 0)
        if len(self.optics) == 1:
            return psf(self.optics[0], pixel_size_um=image.pixel_size_um, axes=axes)
        if len(self.optics) != image.size("C"):
            raise InputError(
                f"optics has {len(self.optics)} entries for {image.size('C')} channels; give one each"
            )
        each = [psf(optics, pixel_size_um=image.pixel_size_um, axes=axes) for optics in self.optics]
        shape = tuple(max(sizes) for sizes in zip(*(kernel.shape for kernel in each), strict=True))
        return np.stack([_grown(kernel, shape) for kernel in each])


class PhotonNoise(Closed):
    """Poisson noise with `photons` at the brightest pixel, or at the white level 1.

    `photons: grey` takes the grey values themselves as photons, as csbdeep does.
    """

    step: Literal["poisson"] = "poisson"
    photons: Positive | Literal["grey"] = (50.0, 200.0)
    reference: Literal["brightest", "white"] = "brightest"

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        photons = 1.0 if self.photons == "grey" else draw(self.photons, rng)
        level = 1.0 if self.photons == "grey" or self.reference == "white" else None
        noisy = degrade.poisson(pair.source.data, photons=photons, reference=level, rng=rng)
        return _with_source(pair, noisy), {"photons": self.photons if self.photons == "grey" else photons}


class CameraNoise(Closed):
    """Gaussian noise: intensity * Normal(0, sigma). `clip_at_zero` follows csbdeep."""

    step: Literal["gaussian"] = "gaussian"
    sigma: NotNegative = (0.01, 0.03)
    intensity: NotNegative = (1.0, 1.0)
    clip_at_zero: bool = False

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        sigma, intensity = draw(self.sigma, rng), draw(self.intensity, rng)
        noisy = degrade.gaussian(pair.source.data, sigma=sigma, intensity=intensity, rng=rng)
        if self.clip_at_zero:
            noisy = np.maximum(noisy, 0)
        return _with_source(pair, noisy), {"sigma": sigma, "intensity": intensity}


class Camera(Closed):
    """A whole camera; `camera.expose`. Source and target come out in its grey levels, offset included.

    Each `..._share` is the probability of an image to have that at all. `photons` at the white level, `gain` (grey
    levels a photon) are drawn log-uniformly; `read_noise` is in photons, `offset` in grey levels.

    Attributes
    ----------
    photons, bright_photons, bright_share
        Dim images, and those that are nearly clean already.
    neighbours, neighbours_share
        Correlation of the noise of neighbouring pixels.
    rows, rows_share
        Offsets of rows, as a share of the noise at a tenth of the white level.
    hot, hot_share
        Share of hot pixels.
    whole : bool
        Grey levels of 16 bits are whole numbers.
    bits_8_share, white_8, offset_8
        8-bit images: how often, and the grey levels of white and of no light.
    """

    step: Literal["camera"] = "camera"
    photons: Positive = (5.0, 200.0)
    bright_photons: Positive = (200.0, 2000.0)
    bright_share: Share = 0.15
    read_noise: NotNegative = (0.0, 2.0)
    gain: Positive = (0.5, 5.0)
    offset: NotNegative = (20.0, 500.0)
    neighbours: Annotated[NotNegative, AfterValidator(_below_most)] = (0.0, 0.8)
    neighbours_share: Share = 0.0
    rows: NotNegative = (0.05, 0.5)
    rows_share: Share = 0.0
    hot: NotNegative = (0.0, 2e-4)
    hot_share: Share = 0.1
    whole: bool = True
    bits_8_share: Share = 0.15
    white_8: Positive = (80.0, 240.0)
    offset_8: NotNegative = (2.0, 20.0)

    def draw(self, rng: np.random.Generator) -> camera.CameraSetting:
        """What one image is taken with. The same number of draws each time, whatever is had."""
        had = rng.random(5)
        dim, bright = draw_log(self.photons, rng), draw_log(self.bright_photons, rng)
        photons = bright if had[0] < self.bright_share else dim
        neighbours, rows, hot = (draw(each, rng) for each in (self.neighbours, self.rows, self.hot))
        gain, offset, read_noise = (
            draw_log(self.gain, rng),
            draw(self.offset, rng),
            draw(self.read_noise, rng),
        )
        white_8, offset_8 = draw(self.white_8, rng), draw(self.offset_8, rng)
        levels = 1 << 16 if self.whole else 0
        if had[4] < self.bits_8_share:
            gain, offset, levels = white_8 / photons, offset_8, 1 << 8
        return camera.CameraSetting(
            photons=photons,
            read_noise=read_noise,
            gain=gain,
            offset=offset,
            neighbours=neighbours if had[1] < self.neighbours_share else 0.0,
            rows=rows if had[2] < self.rows_share else 0.0,
            hot_share=hot if had[3] < self.hot_share else 0.0,
            levels=levels,
        )

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image, setting = pair.source, self.draw(rng)
        places = (image.axes.index("Y"), image.axes.index("X"))
        moved = np.moveaxis(image.data, places, (-2, -1))
        noisy = np.moveaxis(camera.expose(moved, setting, rng=rng), (-2, -1), places)
        target = pair.target.replace(data=camera.expected(pair.target.data, setting))
        drawn = dataclasses.asdict(setting)
        return pair.replace(source=image.replace(data=noisy), target=target), drawn


class Exposure(Closed):
    """Multiply by a factor; what exceeds the white level is cut off there. `white: null` cuts nothing."""

    step: Literal["intensity"] = "intensity"
    factor: Positive = (0.6, 1.2)
    white: float | None = Field(default=1.0, gt=0)

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        factor = draw(self.factor, rng)
        data = degrade.modulate(pair.source.data, factor=factor, white=self.white)
        over = (
            0.0 if self.white is None else float(np.mean(np.asarray(pair.source.data) * factor > self.white))
        )
        return _with_source(pair, data), {"factor": factor, "overexposed": over}


class Round(Closed):
    """Whole grey values in source and target; 1 becomes the type's largest, 0 the `offset`.

    The offset is a camera's, in grey levels: room for noise below 0, which is cut without it.
    """

    step: Literal["round"] = "round"
    dtype: Literal["uint8", "uint16"] = "uint16"
    white: float = Field(default=1.0, gt=0)
    offset: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _leaves_room(self) -> Round:
        top = np.iinfo(self.dtype).max
        if self.offset >= top:
            raise ValueError(f"offset is below {top}, the largest {self.dtype}; received {self.offset}")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        def grey(image: Image) -> tuple[degrade.Array, float]:
            return degrade.quantize(image.data, dtype=self.dtype, white=self.white, offset=self.offset)

        (source, clipped), (target, _) = grey(pair.source), grey(pair.target)
        return pair.replace(
            source=pair.source.replace(data=source), target=pair.target.replace(data=target)
        ), {"clipped": clipped}


class Background(Closed):
    """Add smooth Perlin noise, as out-of-focus light: `amplitude` is a share of the brightest pixel there is.

    Stands before `psf` for light from the sample. Thin structures lose brightness by blurring and the
    background does not, so small amplitudes go a long way there.
    """

    step: Literal["background"] = "background"
    amplitude: NotNegative = (0.02, 0.1)
    period_share: Positive = (0.125, 0.5)
    octaves: int = Field(default=2, ge=1, le=8)

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        amplitude, share = draw(self.amplitude, rng), draw(self.period_share, rng)
        space = [index for index, letter in enumerate(image.axes) if letter in SPACE]
        shape = tuple(image.shape[index] for index in space)
        period = max(share * min(shape[-2:]), 2.0)
        data = np.array(image.data, dtype=np.float64)
        moved = np.moveaxis(data, space, range(-len(space), 0))
        for index in np.ndindex(*moved.shape[: -len(space)]):
            smooth = structures.perlin(shape, seed=rng, period_px=period, octaves=self.octaves)
            moved[index] += amplitude * float(moved[index].max()) * smooth
        return _with_source(pair, data), {"amplitude": amplitude, "period_px": period}


class AxialBlur(Closed):
    """Blur lateral slices along `axis` as the microscope blurs along Z; `isotropic.axial_kernel`.

    Instead of `optics`, `beads` is a stack of beads of the microscope, with its pixel sizes.
    """

    step: Literal["axial_psf"] = "axial_psf"
    optics: Optics | None = None
    beads: str | None = None
    axis: Literal["Y", "X"] = "X"
    mode: isotropic.KernelMode = "split"

    @model_validator(mode="after")
    def _one(self) -> AxialBlur:
        if (self.optics is None) == (self.beads is None):
            raise ValueError("give one of optics and beads")
        if self.beads is not None and self.mode == "gaussian":
            raise ValueError("mode gaussian is for optics; of beads take split or full")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        # Every lateral slice for itself: planes are not space here.
        flat = image.axes.replace("Z", "T")
        return _with_source(pair, degrade.convolve(image.data, psf=self.kernel(image), axes=flat)), {
            "axis": self.axis
        }

    def kernel(self, image: Image) -> degrade.Array:
        """The kernel for an image's lateral slices, shape (y, x)."""
        y, x = image.pixel_size_um.get("Y"), image.pixel_size_um.get("X")
        if not x or (y and abs(y - x) > 0.01 * x):
            raise InputError(
                f"axial_psf needs square pixels of known size; image {image.name!r} has Y {y} um and X {x} um"
            )
        if self.optics is not None:
            kernel = isotropic.axial_kernel(self.optics, pixel_um=x, mode=self.mode)
        else:
            function = self.function(x)
            middle = [size // 2 for size in function.shape]
            kernel = function[:, middle[1]]
            if self.mode == "split":
                kernel = isotropic.split_kernel(kernel, function[middle[0]])
        return kernel if self.axis == "Y" else kernel.T

    def haze(self) -> float:
        """Light of other planes in a slice, `isotropic.haze`, of the microscope itself, whatever the images' pixels."""
        if self.optics is not None:
            return isotropic.haze(self.function(self.optics.lateral_fwhm_um / 3))
        return isotropic.haze(self.function(_read(self.beads).pixel_size_um.get("X", 0.1)))

    def function(self, pixel_um: float) -> degrade.Array:
        """The whole point spread function, shape (z, y, x), on cubic voxels."""
        if self.optics is not None:
            return psf(self.optics, pixel_size_um=dict.fromkeys("ZYX", pixel_um), axes="ZYX")
        return isotropic.cubic_psf(_read(self.beads), pixel_um=pixel_um)


class Subsample(Closed):
    """Keep every `factor`-th line along `axis` and interpolate back; both images are cropped to fit the
    factor.
    """

    step: Literal["subsample"] = "subsample"
    factor: float = Field(ge=1, le=isotropic.LARGEST_FACTOR)
    axis: Literal["Z", "Y", "X"] = "X"
    largest_crop: float = Field(default=isotropic.LARGEST_CROP, ge=0, lt=1)

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        if self.axis not in pair.source.axes:
            raise InputError(
                f"subsample along {self.axis}, but image {pair.image!r} has axes {pair.source.axes!r}"
            )
        dimension = pair.source.axes.index(self.axis)
        factor, size = isotropic.usable_factor(
            pair.source.shape[dimension], self.factor, largest_crop=self.largest_crop
        )
        source = isotropic.cropped(pair.source.data, size=size, dimension=dimension)
        target = isotropic.cropped(pair.target.data, size=size, dimension=dimension)
        source = isotropic.subsample(source, factor=factor, dimension=dimension)
        return pair.replace(
            source=pair.source.replace(data=source), target=pair.target.replace(data=target)
        ), {"factor": factor, "axis": self.axis}


def _a_share(value: tuple[float, float]) -> tuple[float, float]:
    if not (value[0] >= 0 and value[1] <= 1):
        raise ValueError(f"is a share, 0 to 1; received {list(value)}")
    return value


def _a_sixth(value: tuple[float, float]) -> tuple[float, float]:
    if not (value[0] >= 0 and value[1] <= 1 / 6):
        raise ValueError(f"is at most 1/6, all that a core has; received {list(value)}")
    return value


Shares = Annotated[Interval, AfterValidator(_a_share)]


class FibreBundle(Closed):
    """See the image through a fibre bundle, as bright on average as before; `fibre.bundle`, `fibre.through_bundle`.

    Attributes
    ----------
    mode : str
        `fixed` is one bundle for all images, drawn from `bundle_seed`; `random` draws cores, offset and rotation for each.
    like : str, optional
        An image taken through a person's own bundle: pitch, centres and profile are measured in it, and each image sees
        a random place of it, flipped and turned. Then none of the keys from `bundle_seed` to `dead_share`, `mode_radius`
        and `halo` is given.
    flat : str, optional
        An image of an even sample, taken as `like`: each core's transmission, and the illumination, which stays in the
        target too.
    target : str
        `clean` leaves it; `seen` blurs it by a core's own width and adds the cladding's light: what the cores would show
        if they stood everywhere, so that nothing is asked of a network that no core took in.
    """

    step: Literal["fibre"] = "fibre"
    mode: Literal["fixed", "random"] = "fixed"
    like: str | None = None
    flat: str | None = None
    bundle_seed: int = Field(default=0, ge=0)
    pitch_px: Positive = (8.0, 8.0)
    jitter: Annotated[NotNegative, AfterValidator(_a_share)] = (0.05, 0.05)
    transmission_spread: Shares = (0.1, 0.1)
    dead_share: float = Field(default=0.005, ge=0, lt=1)
    mode_radius: Positive = (0.28, 0.28)
    crosstalk: Annotated[Interval, AfterValidator(_a_sixth)] = (0.03, 0.03)
    cladding: NotNegative = (0.02, 0.02)
    halo: Shares = (0.0, 0.0)
    target: Literal["clean", "seen"] = "clean"

    @model_validator(mode="after")
    def _fits_together(self) -> FibreBundle:
        if self.like is None and self.flat is not None:
            raise ValueError("flat belongs to the image of a bundle; give like too")
        if self.like is not None:
            usual = {key: field.default for key, field in type(self).model_fields.items()}
            measured = ("mode", "bundle_seed", "pitch_px", "jitter", "transmission_spread", "dead_share", "mode_radius",
                        "halo")  # fmt: skip
            for key in measured:
                if getattr(self, key) != usual[key]:
                    raise ValueError(f"{key} is measured in the image that like names; leave {key} out")
        elif self.mode == "fixed" and self.pitch_px[0] != self.pitch_px[1]:
            raise ValueError(f"a fixed bundle has one pitch_px; received {list(self.pitch_px)}")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        places = (image.axes.index("Y"), image.axes.index("X"))
        view = self.draw((image.size("Y"), image.size("X")), rng)
        data, target = (np.array(one.data, dtype=np.float64) for one in (image, pair.target))
        moved, wanted = (np.moveaxis(one, places, (-2, -1)) for one in (data, target))
        for index in np.ndindex(*moved.shape[:-2]):
            white = float(np.max(moved[index], initial=0.0))
            if self.target == "seen":
                wanted[index] = view.wanted(wanted[index], white=white)
            moved[index] = view.through(moved[index], white=white)
        drawn = {key: getattr(view, key) for key in ("mode_radius", "crosstalk", "cladding", "halo")}
        pair = _with_source(pair, data).replace(target=pair.target.replace(data=target))
        return pair, {"pitch_px": view.cores.pitch_px, **drawn}

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> fibre.View:
        """The cores in front of one image, and how they pass light on."""
        pitch, jitter, spread, radius, crosstalk, cladding, halo = (
            draw(interval, rng)
            for interval in (
                self.pitch_px, self.jitter, self.transmission_spread, self.mode_radius, self.crosstalk, self.cladding,
                self.halo,
            )
        )  # fmt: skip
        illumination = None
        if self.like is not None:
            from care_bridge.simulate.cores import bundle_from_files

            measured = bundle_from_files(self.like, self.flat)
            cores, illumination = measured.window(shape, rng=rng)
            # An even image does not tell light of the neighbours from light of the cladding, so their shares are drawn.
            even = rng.random()
            radius, halo = measured.mode_radius, measured.between * even
            cladding += measured.between * (1 - even) * 0.5
        else:
            # A fixed bundle is drawn on a canvas of its own, so that images of other sizes see the same cores.
            random = self.mode == "random"
            cores = fibre.bundle(
                shape if random else tuple(-(-size // 1024) * 1024 for size in shape),
                seed=rng if random else self.bundle_seed,
                pitch_px=pitch,
                jitter=jitter,
                transmission_spread=spread,
                dead_share=self.dead_share,
                turn=random,
            )
        return fibre.View(cores, radius, crosstalk, cladding, halo, illumination)


class Thin(Closed):
    """A fraction of the photons: the clean image as counts with `photons` at its brightest pixel, or at the white level 1,
    thinned. `photons: grey` takes the grey values as counts. The result keeps the clean image's scale.
    """

    step: Literal["thin"] = "thin"
    fraction: Positive = (1 / 60, 0.5)
    photons: Annotated[float, Field(gt=0)] | Literal["grey"] = 1000.0
    reference: Literal["brightest", "white"] = "brightest"

    @model_validator(mode="after")
    def _a_fraction(self) -> Thin:
        if self.fraction[1] > 1:
            raise ValueError(f"fraction is at most 1; received {list(self.fraction)}")
        return self

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        fraction = draw(self.fraction, rng)
        data = np.asarray(pair.source.data, dtype=np.float64)
        level = 1.0 if self.reference == "white" else float(data.max(initial=0.0))
        scale = 1.0 if self.photons == "grey" or level <= 0 else self.photons / level
        counts = degrade.thin(data * scale, fraction=fraction, rng=rng)
        return _with_source(pair, counts / (fraction * scale)), {"fraction": fraction}


class Surface(Closed):
    """Lay a flat image onto a curved sheet in a stack; the target stays flat. `surface.on_surface`.

    Attributes
    ----------
    planes : int
        Of the stack.
    z_step_um : float, optional
        From plane to plane, for a `psf` that follows.
    span : interval
        Share of the planes between the sheet's lowest and highest place.
    period_px : interval
        How wide its hills are.
    thickness : interval
        Standard deviation of the sheet along Z, in planes.
    blobs : interval
        Round things above and below, to 10,000 pixels of the plane.
    blob_level : interval
        How bright they are, as a share of the image's bright end.
    """

    step: Literal["surface"] = "surface"
    planes: int = Field(default=16, ge=4, le=1024)
    z_step_um: float | None = Field(default=None, gt=0)
    span: Annotated[NotNegative, AfterValidator(_at_most_all)] = (0.2, 0.8)
    period_px: Positive = (80.0, 300.0)
    thickness: Positive = (0.5, 1.0)
    blobs: NotNegative = (0.0, 8.0)
    blob_level: Positive = (0.3, 1.2)

    def apply(self, pair: Pair, rng: np.random.Generator) -> tuple[Pair, Drawn]:
        image = pair.source
        if image.axes != "YX":
            raise InputError(
                f"surface lays flat images of one channel into stacks; image {image.name!r} has axes {image.axes!r}"
            )
        span, period, thickness, share = (
            draw(one, rng) for one in (self.span, self.period_px, self.thickness, self.blobs)
        )
        shape = (image.size("Y"), image.size("X"))
        height = surface.height_map(shape, planes=self.planes, span=span, period_px=period, rng=rng)
        blobs = round(share * shape[0] * shape[1] / 1e4)
        data = surface.on_surface(
            image.data,
            height,
            planes=self.planes,
            thickness=thickness,
            blobs=blobs,
            blob_level=self.blob_level,
            rng=rng,
        )
        drawn = {"span": span, "period_px": period, "thickness": thickness, "blobs": blobs}
        return pair.replace(source=self.stack(image).replace(data=data)), drawn

    def stack(self, image: Image) -> Image:
        """What an image's stack is like, without anything in it."""
        sizes = dict(image.pixel_size_um) | ({"Z": self.z_step_um} if self.z_step_um else {})
        data = np.broadcast_to(np.float32(0), (self.planes, *image.shape))
        return image.replace(data=data, axes="ZYX", pixel_size_um=sizes)


Step = Annotated[
    Contrast
    | Scale
    | Minimum
    | Background
    | Blur
    | AxialBlur
    | FibreBundle
    | PhotonNoise
    | CameraNoise
    | Camera
    | Thin
    | Subsample
    | Surface
    | Exposure
    | Round,
    Field(discriminator="step"),
]


def run_steps(steps: tuple[Step, ...], pair: Pair, rng: np.random.Generator) -> Pair:
    """Apply steps one after the other; what they draw is added to the pair's parameters as ``step.value``."""
    seen: dict[str, int] = {}
    for step in steps:
        pair, drawn = step.apply(pair, rng)
        seen[step.step] = seen.get(step.step, 0) + 1
        prefix = step.step if seen[step.step] == 1 else f"{step.step}{seen[step.step]}"
        pair = pair.replace(
            parameters={**pair.parameters, **{f"{prefix}.{key}": v for key, v in drawn.items()}}
        )
    return pair


def _read(file: str | None) -> Image:
    from care_bridge.images import read_image

    return read_image(str(file))


def _with_source(pair: Pair, data: degrade.Array) -> Pair:
    return pair.replace(source=pair.source.replace(data=data))


def _one(values: degrade.Array) -> float | str:
    flat = np.ravel(values)
    return float(flat[0]) if flat.size == 1 else " ".join(f"{value:.6g}" for value in flat)


def _pixels(px: float | None, um: float | None, image: Image, key: str) -> float | None:
    if um is None:
        return px
    size = image.pixel_size_um.get("X")
    if not size:
        raise InputError(
            f"{key}={um:g} needs the pixel size along X, which image {image.name!r} does not tell; "
            f"give pixel_size_um, or {key.replace('_um', '_px')}"
        )
    return um / size


def _mode(data: degrade.Array) -> float:
    counts, edges = np.histogram(data, bins=256)
    return float(edges[int(np.argmax(counts))])


def _grown(kernel: degrade.Array, shape: tuple[int, ...]) -> degrade.Array:
    # All sizes are odd, so the middles stay middles.
    return np.pad(
        kernel, [((wanted - size) // 2,) * 2 for size, wanted in zip(kernel.shape, shape, strict=True)]
    )
