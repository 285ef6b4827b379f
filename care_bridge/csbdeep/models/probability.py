"""What a probabilistic network says: a Laplace distribution for each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError

Array = NDArray[Any]


class ProbabilisticPrediction:
    """Independent Laplace distributions; methods are those of `scipy.stats.laplace`, in closed form.

    Parameters
    ----------
    loc : ndarray
        Means, in the image's intensities.
    scale : ndarray
        Widths: mean absolute deviations. Same shape.
    """

    def __init__(self, loc: Array, scale: Array) -> None:
        if loc.shape != scale.shape:
            raise InputError(f"means have shape {loc.shape}, widths {scale.shape}; they must be equal")
        self._loc, self._scale = loc, scale

    def __getitem__(self, indices: Any) -> ProbabilisticPrediction:
        return ProbabilisticPrediction(self._loc[indices], self._scale[indices])

    def __len__(self) -> int:
        return len(self._loc)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._loc.shape

    @property
    def ndim(self) -> int:
        return self._loc.ndim

    @property
    def size(self) -> int:
        return self._loc.size

    def mean(self) -> Array:
        """The restored image."""
        return self._loc

    def median(self) -> Array:
        """The same as the mean."""
        return self._loc

    def scale(self) -> Array:
        """Mean absolute deviation of each pixel."""
        return self._scale

    def var(self) -> Array:
        """Variance: ``2 scale ** 2``."""
        return np.asarray(2 * self._scale**2)

    def std(self) -> Array:
        """Standard deviation: ``sqrt(2) scale``."""
        return np.asarray(np.sqrt(2) * self._scale)

    def entropy(self) -> Array:
        """Differential entropy in nats: ``1 + ln(2 scale)``."""
        return np.asarray(1 + np.log(2 * self._scale))

    def pdf(self, x: Any) -> Array:
        """Probability density at `x`."""
        return np.asarray(np.exp(self.logpdf(x)))

    def logpdf(self, x: Any) -> Array:
        """Natural logarithm of the density at `x`."""
        return np.asarray(-np.abs(x - self._loc) / self._scale - np.log(2 * self._scale))

    def cdf(self, x: Any) -> Array:
        """Probability of at most `x`."""
        z = (x - self._loc) / self._scale
        return np.asarray(
            np.where(z < 0, 0.5 * np.exp(np.minimum(z, 0)), 1 - 0.5 * np.exp(-np.maximum(z, 0)))
        )

    def sf(self, x: Any) -> Array:
        """Probability of more than `x`."""
        z = (x - self._loc) / self._scale
        return np.asarray(
            np.where(z < 0, 1 - 0.5 * np.exp(np.minimum(z, 0)), 0.5 * np.exp(-np.maximum(z, 0)))
        )

    def logcdf(self, x: Any) -> Array:
        """Natural logarithm of `cdf`."""
        return np.asarray(np.log(self.cdf(x)))

    def logsf(self, x: Any) -> Array:
        """Natural logarithm of `sf`."""
        return np.asarray(np.log(self.sf(x)))

    def ppf(self, q: Any) -> Array:
        """Value that is not exceeded with probability `q`."""
        q = np.asarray(q)
        with np.errstate(divide="ignore"):
            z = np.where(q < 0.5, np.log(2 * np.minimum(q, 0.5)), -np.log(2 * (1 - np.maximum(q, 0.5))))
        return np.asarray(self._loc + self._scale * z)

    def isf(self, q: Any) -> Array:
        """Value that is exceeded with probability `q`."""
        return self.ppf(1 - np.asarray(q))

    def interval(self, confidence: float) -> tuple[Array, Array]:
        """Central interval that holds a share of the probability: ``mean -+ scale * -ln(1 - confidence)``."""
        if not 0 <= confidence < 1:
            raise InputError(f"confidence must lie within 0-1 (1 excluded); received {confidence}")
        half = -np.log1p(-confidence) * self._scale
        return self._loc - half, self._loc + half

    def stats(self, moments: str = "mv") -> tuple[Array, ...]:
        """Mean (m), variance (v), skewness (s) and excess kurtosis (k), those asked for."""
        known = {"m": self._loc, "v": self.var(), "s": np.zeros(self.shape), "k": np.full(self.shape, 3.0)}
        return tuple(known[letter] for letter in moments)

    def rvs(self, size: Any = None, random_state: Any = None) -> Array:
        """Random images.

        Parameters
        ----------
        size : int or tuple of int, optional
            None gives one, with the image's shape.
        random_state : int or Generator, optional

        Returns
        -------
        ndarray
        """
        rng = np.random.default_rng(random_state)
        return rng.laplace(self._loc, self._scale, self.shape if size is None else size)

    def sampling_generator(self, n: int | None = None) -> Iterator[Array]:
        """Random images one after another: n of them, or without end."""
        rng = np.random.default_rng()
        drawn = 0
        while n is None or drawn < n:
            yield self.rvs(random_state=rng)
            drawn += 1
