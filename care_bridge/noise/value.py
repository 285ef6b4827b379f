"""What was measured of an image's noise, what a model was trained with, and whether the one fits the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

CORRELATED = 0.2
"""From here on neighbours share the noise; structure alone has been seen to give 0.1."""

CLEAN_DB = 34.0
"""From here on an image is good already: networks have lost against a light filter on such."""

LIGHTER = "Gaussian filter of 0.6 pixels (in Fiji: Process > Filters > Gaussian Blur, sigma 0.6)"
"""What an image that is good already may be given instead of a network."""

_SLACK = 0.12
"""So far outside a model's range correlation and rows are not worth a sentence: they are measured no better."""

_SLACK_PHOTONS = 2.0

_HOT = 1e-5
"""A smaller share of hot pixels is not worth a word."""


@dataclass(frozen=True)
class Noise:
    """What was measured in one channel of an image; grey levels are the image's own.

    Attributes
    ----------
    background, bright : float
        Grey level of the darkest twentieth of the image, and of percentile 99.8 (slightly smoothed).
    noise_background, noise_mean, noise_bright : float
        Standard deviation of the noise at the background, on average and at the bright end, in grey levels.
    gain : float or None
        Grey levels a photon: how the variance rises with brightness. None where that cannot be told.
    read_noise : float or None
        `noise_background` in photons; more than the camera's own where the background has light.
    variance_at_zero : float or None
        Of the line through variance against brightness, at grey level 0; negative where a camera adds an offset.
    photons : float or None
        From background to bright.
    correlation_x, correlation_y : float or None
        Of the noise of neighbouring pixels of a row, and of a column.
    rows, columns : float
        Standard deviation of offsets of whole rows or columns, as shares of the noise at a tenth of the way from
        background to bright; 0 where none stand out.
    hot_share : float
        Share of single pixels that stand far above all of their neighbours.
    saturated_share, lowest_share : float
        Share of pixels that are cut off at the largest value; share that has the smallest, from 1 % on.
    step : float
        Between one grey level and the next; 0 where values are as good as continuous.
    detail_px : float or None
        Half the period of the finest detail that stands out of the noise.
    unknown : tuple of str
        What cannot be told from this image and why; a sentence each.
    """

    background: float
    bright: float
    noise_background: float
    noise_mean: float
    noise_bright: float
    gain: float | None = None
    read_noise: float | None = None
    variance_at_zero: float | None = None
    photons: float | None = None
    correlation_x: float | None = None
    correlation_y: float | None = None
    rows: float = 0.0
    columns: float = 0.0
    hot_share: float = 0.0
    saturated_share: float = 0.0
    lowest_share: float = 0.0
    step: float = 0.0
    detail_px: float | None = None
    unknown: tuple[str, ...] = ()

    @property
    def correlation(self) -> float | None:
        """The larger of the two along the axes."""
        known = [one for one in (self.correlation_x, self.correlation_y) if one is not None]
        return max(known) if known else None

    @property
    def correlated(self) -> bool:
        """Whether neighbours share the noise."""
        return (self.correlation or 0.0) >= CORRELATED

    @property
    def snr(self) -> float:
        """Signal over noise at the bright end; infinite without noise."""
        return _ratio(self.bright - self.background, self.noise_bright)

    @property
    def decibel(self) -> float:
        """Range over average noise: about the PSNR that the image has already."""
        ratio = _ratio(self.bright - self.background, self.noise_mean)
        return 20 * math.log10(ratio) if 0 < ratio < math.inf else ratio if ratio else -math.inf

    @property
    def clean(self) -> bool:
        """Whether the image is good already, so that a network may do harm."""
        return self.decibel >= CLEAN_DB

    @property
    def quantised(self) -> bool:
        """Whether grey levels are too few to hold the noise at the background."""
        return self.step > 0 and self.noise_background < self.step / 2

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the attributes, and what follows from them; nothing infinite."""
        follows = {
            "correlated": self.correlated,
            "clean": self.clean,
            "quantised": self.quantised,
            "snr": self.snr if math.isfinite(self.snr) else None,
            "decibel": self.decibel if math.isfinite(self.decibel) else None,
        }
        return {**asdict(self), "unknown": list(self.unknown), **follows}

    def __str__(self) -> str:
        return "; ".join(self.sentences())

    def sentences(self) -> list[str]:
        """What was measured, in words."""
        told = []
        if self.photons is not None:
            # What is left of structure adds variance, which looks like fewer photons.
            about = "at least" if self.clean else "about"
            told.append(
                f"{about} {_count(self.photons)} photons at the bright end (gain {self.gain:.3g} grey levels)"
            )
        told.append(
            f"noise {self.noise_background:.3g} grey levels at the background ({self.background:.4g}), "
            f"{self.noise_bright:.3g} at the bright end ({self.bright:.4g}): {_decibel(self.decibel)}"
        )
        if self.correlation is not None:
            shared = "neighbours share the noise" if self.correlated else "white"
            told.append(f"{shared} ({self.correlation_x:.2f} along x, {self.correlation_y:.2f} along y)")
        for name, share in (("rows", self.rows), ("columns", self.columns)):
            if share >= _SLACK:
                told.append(f"{name} differ by {share:.2g} of a pixel's noise")
        if self.hot_share >= _HOT:
            told.append(f"{1e6 * self.hot_share:.2g} of a million pixels are hot")
        if self.saturated_share:
            told.append(f"{100 * self.saturated_share:.2g} % are saturated")
        if self.lowest_share:
            told.append(f"{100 * self.lowest_share:.2g} % have the lowest value")
        if self.quantised:
            told.append(f"grey levels ({self.step:g}) are coarser than the noise of the background")
        if self.detail_px is not None:
            told.append(f"details down to {self.detail_px:.1f} pixels stand out")
        return told + list(self.unknown)


@dataclass(frozen=True)
class NoiseRange:
    """Which noise a model was trained with, least and most; None where nobody knows.

    Attributes
    ----------
    photons, correlation, rows, decibel : (float, float) or None
        As `Noise` has them.
    """

    photons: tuple[float, float] | None = None
    correlation: tuple[float, float] | None = None
    rows: tuple[float, float] | None = None
    decibel: tuple[float, float] | None = None

    @classmethod
    def of(cls, measured: Iterable[Noise]) -> NoiseRange:
        """The range of some images.

        Parameters
        ----------
        measured : iterable of Noise

        Returns
        -------
        NoiseRange
        """
        each = list(measured)
        return cls(
            photons=_span(one.photons for one in each),
            correlation=_span(one.correlation for one in each),
            rows=_span(one.rows for one in each),
            decibel=_span(one.decibel if math.isfinite(one.decibel) else None for one in each),
        )

    @classmethod
    def from_dict(cls, recorded: object) -> NoiseRange:
        """What `as_dict` gave; whatever else stands there is as if nobody knew."""
        given = recorded if isinstance(recorded, Mapping) else {}
        return cls(**{key: _pair(given.get(key)) for key in ("photons", "correlation", "rows", "decibel")})

    def filled(self, other: NoiseRange) -> NoiseRange:
        """The same range, with what another says where it does not."""
        keys = ("photons", "correlation", "rows", "decibel")
        return NoiseRange(**{key: getattr(self, key) or getattr(other, key) for key in keys})

    def as_dict(self) -> dict[str, list[float]]:
        """For config.json: what is known."""
        return {key: [float(f"{one:.4g}") for one in value] for key, value in asdict(self).items() if value}

    def covers(self, noise: Noise) -> list[str]:
        """What of an image's noise lies outside, a sentence each; none where a model was trained for it.

        Parameters
        ----------
        noise : Noise

        Returns
        -------
        list of str
            What is unknown of either is not compared, and small differences are none: photons within a factor of 2,
            correlation and rows within 0.12.
        """
        return [*self.kind(noise), *self._light(noise)]

    def kind(self, noise: Noise) -> list[str]:
        """Of `covers` what is about the kind of the noise, and not about how much light there is."""
        said = self._shared(noise)
        if self.rows is not None and noise.rows > self.rows[1] + _SLACK:
            said.append(
                f"its rows differ by {noise.rows:.2g} of a pixel's noise, and the model was trained with "
                + (f"at most {self.rows[1]:.2g}" if self.rows[1] > 0 else "none of that")
            )
        return said

    def _shared(self, noise: Noise) -> list[str]:
        if self.correlation is None or noise.correlation is None:
            return []
        low, high = self.correlation
        if noise.correlated and noise.correlation > high + _SLACK:
            trained = "for white noise" if high < CORRELATED else f"with up to {high:.2f}"
            return [
                f"its neighbouring pixels share their noise (coefficient {noise.correlation:.2f}), and the model was "
                f"trained {trained}: it may take such noise for structure"
            ]
        if low >= CORRELATED and noise.correlation < low - _SLACK:
            return [
                f"its noise is whiter (coefficient {noise.correlation:.2f}) than the model was trained for "
                f"({low:.2f} to {high:.2f})"
            ]
        return []

    def _light(self, noise: Noise) -> list[str]:
        if noise.clean and not (self.decibel is not None and noise.decibel <= self.decibel[1] + 1):
            return [
                f"it is nearly clean ({_decibel(noise.decibel)}), and a network may do harm; if at all, a {LIGHTER} is "
                "lighter"
            ]
        if self.photons is None or noise.photons is None:
            return []
        low, high = self.photons
        if low / _SLACK_PHOTONS <= noise.photons <= high * _SLACK_PHOTONS:
            return []
        how = "dimmer" if noise.photons < low else "brighter"
        return [
            f"it is {how} (about {_count(noise.photons)} photons at the bright end) than what the model was trained on "
            f"({_count(low)} to {_count(high)})"
        ]


def _ratio(signal: float, noise: float) -> float:
    return signal / noise if noise > 0 else math.inf if signal > 0 else 0.0


def _decibel(value: float) -> str:
    return f"{value:.0f} dB" if math.isfinite(value) else "without noise" if value > 0 else "no signal"


def _count(value: float) -> str:
    """Two digits, never as a power of ten."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def _span(values: Iterable[float | None]) -> tuple[float, float] | None:
    known = [one for one in values if one is not None]
    return (min(known), max(known)) if known else None


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in value):
        return None
    return float(value[0]), float(value[1])
