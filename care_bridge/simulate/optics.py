"""Point spread functions from what is printed on the objective, and from beads.

Own formulas on NumPy and SciPy. With alpha = asin(NA / n), k = 2 pi n / wavelength and an integral over the
aperture angle t from 0 to alpha:

- `vectorial`: Richards & Wolf, Proc. R. Soc. A 253 (1959) 358, averaged over the dipole's orientation,
  h = |I0|^2 + 2 |I1|^2 + |I2|^2;
- `scalar`: Debye's integral with the aplanatic factor sqrt(cos t), h = |I|^2;
- `gibson-lanni`: Gibson & Lanni, J. Opt. Soc. Am. A 9 (1992) 154: scalar, without apodisation, with the
  optical path through sample, coverslip and immersion;
- `gaussian`: Zhang, Zerubia & Olivo-Marin, Appl. Opt. 46 (2007) 1819.

Confocal is excitation times (emission convolved with the pinhole's disc), two-photon is excitation squared.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import interpolate, ndimage, special

from care_bridge.axes import SPACE, check_axes
from care_bridge.errors import InputError
from care_bridge.images import Image

Array = NDArray[np.float64]

_ANGLES = 400
"""Nodes of the Gauss-Legendre integral over the aperture; 400 hold 1e-9 of the peak up to 20 um of
defocus.
"""


class Optics(BaseModel):
    """What determines a point spread function.

    Attributes
    ----------
    na : float
        Numerical aperture; below `immersion_index`.
    immersion_index : float
        1.0 air, 1.33 water, 1.47 glycerol, 1.518 oil.
    emission_nm : float
        Wavelength of the light that is seen, in vacuum.
    excitation_nm : float, optional
        Wavelength of the laser; needed for `confocal` and `two-photon`.
    model : str
    microscope : str
    pinhole_au : float
        Diameter of the confocal pinhole in Airy units; 1 AU is 1.22 emission / NA in the sample.
    sample_index, coverslip_index, coverslip_design_index : float
        Refractive indices, for `gibson-lanni`.
    depth_um, coverslip_um, coverslip_design_um : float
        Depth of the object below the coverslip, real and intended thickness of the coverslip, for
        `gibson-lanni`.
    working_distance_um : float
        Immersion layer for which the objective was made, for `gibson-lanni`.
    immersion_design_index : float, optional
        Immersion for which the objective was made, for `gibson-lanni`; None: the one that is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    na: float = Field(gt=0)
    immersion_index: float = Field(ge=1, le=4)
    emission_nm: float = Field(ge=100, le=5000)
    excitation_nm: float | None = Field(default=None, ge=100, le=5000)
    model: Literal["vectorial", "scalar", "gibson-lanni", "gaussian"] = "vectorial"
    microscope: Literal["widefield", "confocal", "two-photon"] = "widefield"
    pinhole_au: float = Field(default=1.0, gt=0)
    sample_index: float = Field(default=1.33, ge=1, le=4)
    depth_um: float = Field(default=0.0, ge=0)
    coverslip_um: float = Field(default=170.0, ge=0)
    coverslip_design_um: float = Field(default=170.0, ge=0)
    coverslip_index: float = Field(default=1.5, ge=1, le=4)
    coverslip_design_index: float = Field(default=1.5, ge=1, le=4)
    working_distance_um: float = Field(default=150.0, ge=0)
    immersion_design_index: float | None = Field(default=None, ge=1, le=4)

    @model_validator(mode="after")
    def _possible(self) -> Optics:
        if self.na >= self.immersion_index:
            raise ValueError(
                f"na={self.na:g} is not below immersion_index={self.immersion_index:g}, which no "
                "objective can be; an NA of 1.4 needs oil (1.518), 1.2 water (1.33)"
            )
        if self.microscope != "widefield" and self.excitation_nm is None:
            raise ValueError(f"microscope={self.microscope!r} needs excitation_nm, the laser's wavelength")
        return self

    @property
    def lateral_fwhm_um(self) -> float:
        """Full width at half maximum across the optical axis, by the closed formulas for small apertures.

        Widefield 0.51 emission / NA. Confocal 0.37 excitation / NA for pinholes of up to 0.25 AU and
        0.51 excitation / NA from 1 AU on (Wilhelm et al., Confocal Laser Scanning Microscopy, Zeiss 2003), linear
        between. Two-photon 0.377 excitation / NA (Zipfel et al., Nat. Biotechnol. 21 (2003) 1369).
        """
        return self._laser_um * self._narrowing[0] * 0.51 / self.na

    @property
    def axial_fwhm_um(self) -> float:
        """Along the optical axis: 0.88 wavelength / (n - sqrt(n^2 - NA^2)) in widefield.

        Confocal 0.64 with small pinholes, growing to 0.88 at 3 AU; two-photon 0.626; sources as above.
        """
        n = self.immersion_index
        return float(self._laser_um * self._narrowing[1] * 0.88 / (n - np.sqrt(n**2 - self.na**2)))

    @property
    def _laser_um(self) -> float:
        widefield = self.microscope == "widefield" or self.excitation_nm is None
        return (self.emission_nm if widefield else self.excitation_nm or self.emission_nm) / 1000

    @property
    def _narrowing(self) -> tuple[float, float]:
        """Lateral and axial width as a share of widefield's at the same wavelength."""
        if self.microscope == "widefield":
            return 1.0, 1.0
        if self.microscope == "two-photon":
            return 0.377 / 0.51, 0.626 / 0.88
        lateral = np.interp(self.pinhole_au, [0.25, 1], [0.37 / 0.51, 1])
        axial = np.interp(self.pinhole_au, [0.25, 1, 2, 3], [0.64 / 0.88, 0.80, 0.96, 1])
        return float(lateral), float(axial)


def psf(
    optics: Optics,
    *,
    pixel_size_um: Mapping[str, float],
    axes: str = "YX",
    shape: tuple[int, ...] | None = None,
    pixel_average: bool = True,
) -> Array:
    """A point spread function on the pixels of an image.

    Parameters
    ----------
    optics : Optics
    pixel_size_um : mapping of str to float
        Micrometres a pixel for each of `axes`.
    axes : str
        `YX` (the plane in focus) or `ZYX`; other orders and `ZX`, `ZY` work too.
    shape : tuple of int, optional
        Odd sizes in the order of `axes`. None takes what holds the central rings: six lateral and three axial
        half widths to each side.
    pixel_average : bool
        Average over the pixel's area (3 x 3 points), as a camera does; False takes the value at its middle.

    Returns
    -------
    ndarray of float64
        Sum 1; the brightest voxel is the middle one.

    Raises
    ------
    InputError
        If a pixel size is missing or not positive, a size is even, or a pixel is coarser than the function's
        full width at half maximum, so that it cannot be drawn.
    """
    axes = check_axes(axes)
    if set(axes) - set(SPACE):
        raise InputError(f"a point spread function has axes Z, Y and X only; received axes={axes!r}")
    sizes = [_pixel_size(pixel_size_um, axis) for axis in axes]
    for axis, size in zip(axes, sizes, strict=True):
        width = optics.axial_fwhm_um if axis == "Z" else optics.lateral_fwhm_um
        if size > width:
            raise InputError(
                f"pixels of {size:g} um along {axis} are too coarse for a point spread function that is "
                f"{width:.3g} um wide (full width at half maximum; NA {optics.na:g}, "
                f"{optics._laser_um * 1000:g} nm); use pixels of at most {width / 2:.2g} um, or "
                "check the pixel size"
            )
    if shape is None:
        shape = tuple(_default_size(optics, axis, size) for axis, size in zip(axes, sizes, strict=True))
    if len(shape) != len(axes) or any(length < 1 or length % 2 == 0 for length in shape):
        raise InputError(f"shape must have one odd size for each of axes {axes!r}; received {shape}")
    return _psf(optics, axes, tuple(sizes), tuple(int(length) for length in shape), pixel_average).copy()


@functools.lru_cache(maxsize=16)
def _psf(
    optics: Optics, axes: str, sizes: tuple[float, ...], shape: tuple[int, ...], pixel_average: bool
) -> Array:
    thirds = np.array([-1.0, 0.0, 1.0]) / 3 if pixel_average else np.zeros(1)
    lateral = []
    for axis, size, length in zip(axes, sizes, shape, strict=True):
        if axis != "Z":
            centres = np.arange(length) - length // 2
            lateral.append((centres[:, None] + thirds).ravel() * size)
    radius: Array = np.abs(
        functools.reduce(np.hypot, np.meshgrid(*lateral, indexing="ij")) if lateral else np.zeros(1)
    )
    z_um: Array = np.zeros(1)
    if "Z" in axes:
        index = axes.index("Z")
        z_um = np.asarray((np.arange(shape[index]) - shape[index] // 2) * sizes[index], dtype=np.float64)
    planes = profile(optics, radius_um=radius.ravel(), z_um=z_um)
    volume = planes.reshape(len(z_um), *radius.shape)
    for index in range(1, len(lateral) + 1):
        length = volume.shape[index] // len(thirds)
        volume = volume.reshape(*volume.shape[:index], length, len(thirds), *volume.shape[index + 1 :])
        volume = np.asarray(volume.mean(axis=index + 1))
    order = "Z" + "".join(axis for axis in axes if axis != "Z")
    volume = volume.transpose([order.index(axis) for axis in axes]) if "Z" in axes else volume[0]
    volume = volume.reshape(shape)
    result: Array = volume / volume.sum()
    result.setflags(write=False)
    return result


def profile(optics: Optics, *, radius_um: Array, z_um: Array) -> Array:
    """The point spread function at distances from the optical axis and from the focus.

    Parameters
    ----------
    optics : Optics
    radius_um : ndarray, shape (r,)
    z_um : ndarray, shape (z,)
        Positive deeper into the sample. With index mismatch 0 is where the intensity on the axis is highest.

    Returns
    -------
    ndarray, shape (z, r)
        In units of its own peak, nearly: not scaled to sum 1.
    """
    radius_um, z_um = np.asarray(radius_um, dtype=np.float64), np.asarray(z_um, dtype=np.float64)
    emission = optics.emission_nm / 1000
    if optics.microscope == "widefield":
        return _at_radii(optics, emission, radius_um, z_um)
    assert optics.excitation_nm is not None
    excitation = _at_radii(optics, optics.excitation_nm / 1000, radius_um, z_um)
    if optics.microscope == "two-photon":
        return excitation**2
    pinhole = optics.pinhole_au * 0.61 * emission / optics.na
    return excitation * _at_radii(optics, emission, radius_um, z_um, pinhole_um=pinhole)


def _at_radii(
    optics: Optics, wavelength_um: float, radius_um: Array, z_um: Array, pinhole_um: float = 0.0
) -> Array:
    if optics.model == "gaussian":
        lateral, axial = gaussian_sigmas_um(optics, wavelength_um)
        # A disc spreads by a quarter of its radius squared in each direction.
        spread = lateral**2 + pinhole_um**2 / 4
        return np.asarray(np.exp(-(z_um[:, None] ** 2) / (2 * axial**2) - radius_um**2 / (2 * spread)))
    # The function is band limited to 2 NA / wavelength: forty samples a period make a spline exact enough.
    step = wavelength_um / (80 * optics.na)
    table_um = np.arange(0, float(radius_um.max(initial=0.0)) + pinhole_um + 5 * step, step)
    if optics.model == "gibson-lanni":
        table = _gibson_lanni(optics, wavelength_um, table_um, z_um)
    else:
        table = _focal_integrals(optics, wavelength_um, table_um, z_um)
    table /= table.max()
    if pinhole_um:
        table = table @ _disc_matrix(table_um, pinhole_um).T
        table /= table.max()
    spline = interpolate.CubicSpline(table_um, table, axis=1)
    return np.asarray(np.maximum(spline(radius_um), 0.0))


def gaussian_sigmas_um(optics: Optics, wavelength_um: float) -> tuple[float, float]:
    """Lateral and axial standard deviation of one beam's Gaussian approximation, in um.

    Zhang et al. 2007, Table 1, non-paraxial widefield, three-dimensional:
    with c = (n^2 - NA^2)^(1/2) / n, i.e. the cosine of the aperture angle,
    lateral = 1 / (n k) * ((4 - 7 c^1.5 + 3 c^3.5) / (7 (1 - c^1.5)))^(-1/2),
    axial = 5 sqrt(7) (1 - c^1.5) / (sqrt(6) n k * (4 c^5 - 25 c^3.5 + 42 c^2.5 - 25 c^1.5 + 4)^(1/2)).
    """
    c = np.sqrt(1 - (optics.na / optics.immersion_index) ** 2)
    wave_number = 2 * np.pi * optics.immersion_index / wavelength_um
    lateral = 1 / (wave_number * np.sqrt((4 - 7 * c**1.5 + 3 * c**3.5) / (7 * (1 - c**1.5))))
    polynomial = 4 * c**5 - 25 * c**3.5 + 42 * c**2.5 - 25 * c**1.5 + 4
    axial = 5 * np.sqrt(7) * (1 - c**1.5) / (np.sqrt(6) * wave_number * np.sqrt(polynomial))
    return float(lateral), float(axial)


def _focal_integrals(optics: Optics, wavelength_um: float, radius_um: Array, z_um: Array) -> Array:
    alpha = np.arcsin(optics.na / optics.immersion_index)
    nodes, weights = np.polynomial.legendre.leggauss(_ANGLES)
    angle, weights = alpha * (nodes + 1) / 2, weights * alpha / 2
    wave_number = 2 * np.pi * optics.immersion_index / wavelength_um
    cosine, sine = np.cos(angle), np.sin(angle)
    defocus = np.exp(1j * wave_number * z_um[:, None] * cosine)
    lens = weights * np.sqrt(cosine) * sine
    phase = wave_number * sine[:, None] * radius_um
    if optics.model == "scalar":
        return np.asarray(np.abs((defocus * lens) @ special.j0(phase)) ** 2)
    first = (defocus * lens * (1 + cosine)) @ special.j0(phase)
    second = (defocus * lens * sine) @ special.j1(phase)
    third = (defocus * lens * (1 - cosine)) @ special.jv(2, phase)
    return np.asarray(np.abs(first) ** 2 + 2 * np.abs(second) ** 2 + np.abs(third) ** 2)


def _gibson_lanni(optics: Optics, wavelength_um: float, radius_um: Array, z_um: Array) -> Array:
    nodes, weights = np.polynomial.legendre.leggauss(_ANGLES)
    rho, weights = (nodes + 1) / 2, weights / 2
    wave_number = 2 * np.pi / wavelength_um
    lens = weights * rho * np.exp(1j * wave_number * _mismatch_um(optics, rho))
    bessel = special.j0(wave_number * optics.na * rho[:, None] * radius_um)
    immersion = _path(optics.immersion_index, optics.na * rho)

    def on_axis(z: Array) -> Array:
        return np.asarray(np.abs(np.exp(-1j * wave_number * z[:, None] * immersion) @ lens) ** 2)

    # Mismatch moves the focus along the axis: find it, so that the result is centred.
    span = (
        2 * optics.depth_um + optics.axial_fwhm_um * 4 + abs(optics.coverslip_um - optics.coverslip_design_um)
    )
    focus = 0.0
    for _ in range(3):
        search = focus + np.linspace(-span, span, 801)
        focus = float(search[np.argmax(on_axis(search))])
        span /= 100
    # Focusing deeper takes the objective nearer: less immersion, hence the sign.
    shifted = np.exp(-1j * wave_number * (z_um + focus)[:, None] * immersion)
    return np.asarray(np.abs((shifted * lens) @ bessel) ** 2)


def _mismatch_um(optics: Optics, rho: Array) -> NDArray[np.complex128]:
    """Optical path, in um, beyond that of the conditions the objective was made for."""
    aperture = optics.na * rho
    design_index = optics.immersion_design_index or optics.immersion_index
    return (
        optics.depth_um * _path(optics.sample_index, aperture)
        + optics.coverslip_um * _path(optics.coverslip_index, aperture)
        - optics.coverslip_design_um * _path(optics.coverslip_design_index, aperture)
        + optics.working_distance_um
        * (_path(optics.immersion_index, aperture) - _path(design_index, aperture))
    )


def _path(index: float, aperture: Array) -> NDArray[np.complex128]:
    # Beyond the critical angle the root is imaginary: the wave decays with depth, as it should.
    return np.sqrt((index**2 - aperture**2).astype(np.complex128))


def _disc_matrix(radius_um: Array, disc_um: float) -> Array:
    """Convolution of a radial function with a disc of area 1, as a matrix (to, from) on a grid of radii.

    Entry: the arc of the circle `from` that lies in a disc around a point at distance `to`.
    """
    step = radius_um[1] - radius_um[0]
    to, source = radius_um[:, None], radius_um[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (to**2 + source**2 - disc_um**2) / (2 * to * source)
    inside = np.where(to + source <= disc_um, -1.0, np.where(np.abs(to - source) >= disc_um, 1.0, cosine))
    arc = 2 * np.arccos(np.clip(inside, -1, 1))
    return np.asarray(arc * source * step / (np.pi * disc_um**2))


def _pixel_size(pixel_size_um: Mapping[str, float], axis: str) -> float:
    size = pixel_size_um.get(axis)
    if size is None:
        known = ", ".join(sorted(pixel_size_um)) or "none"
        raise InputError(
            f"the pixel size along {axis} is not known (known: {known}); write it into the image with Fiji "
            f"(Image > Properties), or give pixel_size_um, e.g. {{{axis}: 0.1}} (--pixel-size, --z-step)"
        )
    if not np.isfinite(size) or size <= 0:
        raise InputError(f"the pixel size along {axis} must be above 0 um; received {size}")
    return float(size)


def _default_size(optics: Optics, axis: str, size: float) -> int:
    half = 1.5 * optics.axial_fwhm_um if axis == "Z" else 3 * optics.lateral_fwhm_um
    return 2 * int(np.ceil(half / size)) + 1


def from_beads(
    stack: Image,
    *,
    shape: tuple[int, ...] | None = None,
    threshold: float = 0.3,
    smooth_px: float = 1.0,
) -> Array:
    """A measured point spread function: the mean of well separated beads.

    Parameters
    ----------
    stack : Image
        Sub-resolution beads; axes YX or ZYX.
    shape : tuple of int, optional
        Odd sizes of the result, in the order of the image's axes. None takes a third of the image's, at most 31.
    threshold : float
        Beads are local maxima above this share of the range from background to maximum, 0-1.
    smooth_px : float
        Gaussian smoothing before maxima are looked for, in pixels.

    Returns
    -------
    ndarray of float64
        Sum 1, centred to a fraction of a pixel by its centroid, background (the median of the rim) taken off.

    Raises
    ------
    InputError
        If no bead is found that is away from the border and from others.
    """
    axes = stack.axes
    if set(axes) - set(SPACE):
        raise InputError(f"beads need axes YX or ZYX; {stack.name or 'the image'} has {axes!r}")
    if shape is None:
        shape = tuple(max(3, min(31, size // 3 // 2 * 2 + 1)) for size in stack.shape)
    if len(shape) != stack.data.ndim or any(length < 3 or length % 2 == 0 for length in shape):
        raise InputError(
            f"shape must have an odd size of 3 or more for each of axes {axes!r}; received {shape}"
        )
    data = np.asarray(stack.data, dtype=np.float64)
    smooth = ndimage.gaussian_filter(data, smooth_px)
    floor = float(np.median(smooth))
    level = floor + threshold * (float(smooth.max()) - floor)
    peaks = np.argwhere((smooth == ndimage.maximum_filter(smooth, size=3)) & (smooth > level))
    half = np.array(shape) // 2
    beads = []
    for peak in peaks:
        others = np.all(np.abs(peaks - peak) <= half, axis=1).sum() > 1
        if others or np.any(peak < half) or np.any(peak + half >= data.shape):
            continue
        beads.append(_centred(data, peak, half))
    if not beads:
        raise InputError(
            f"no bead stands alone in a box of {' x '.join(map(str, shape))} pixels ({len(peaks)} "
            "bright spots were seen); give a smaller shape or an image with fewer beads"
        )
    mean = np.mean([bead / bead.sum() for bead in beads], axis=0)
    return np.asarray(mean / mean.sum())


def _centred(data: Array, peak: NDArray[Any], half: NDArray[Any]) -> Array:
    box = tuple(slice(int(at - h), int(at + h + 1)) for at, h in zip(peak, half, strict=True))
    bead = data[box]
    rim = np.ones(bead.shape, dtype=bool)
    rim[tuple(slice(1, -1) for _ in bead.shape)] = False
    bead = np.maximum(bead - np.median(bead[rim]), 0.0)
    core = bead * (bead > 0.2 * bead.max())
    centre = np.array([(core * grid).sum() for grid in np.indices(core.shape)]) / core.sum()
    shift = np.clip(half - centre, -1, 1)
    return np.asarray(np.maximum(ndimage.shift(bead, shift, order=1, mode="nearest"), 0.0))
