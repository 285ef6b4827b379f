"""What a probabilistic network predicts of a pixel: a Laplace distribution, of an ensemble a mixture of them.

Means and scales are arrays of any shape; those of an ensemble have the members first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.defaults import INTERVAL
from care_bridge.errors import InputError

Array = NDArray[np.float64]

NODES = 128
"""Values a member at which disagreement is estimated; error below 0.01 (`disagreement`)."""


def laplace_interval(mean: Array, scale: Array, *, level: float) -> tuple[Array, Array]:
    """Central interval that holds a share of a Laplace distribution's mass: mean +- scale (-ln(1 - level)).

    Parameters
    ----------
    mean, scale : ndarray
    level : float
        0 to 1, without the ends.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1; received {level}")
    half = scale * -math.log1p(-level)
    return mean - half, mean + half


def laplace_cdf(value: Array, mean: Array, scale: Array) -> Array:
    """Share of a Laplace distribution's mass below a value."""
    z = (np.asarray(value, np.float64) - mean) / scale
    tail = 0.5 * np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, tail, 1 - tail))


def laplace_quantile(probability: Any, mean: Array, scale: Array) -> Array:
    """Inverse of `laplace_cdf`; probabilities between 0 and 1, without the ends."""
    p = np.asarray(probability, np.float64)
    if not ((p > 0) & (p < 1)).all():
        raise InputError("probabilities must lie between 0 and 1, without the ends")
    signed = np.where(p < 0.5, np.log(2 * p), -np.log(2 * (1 - p)))
    return np.asarray(mean + scale * signed)


def laplace_nll(value: Array, mean: Array, scale: Array) -> Array:
    """Negative log likelihood in nats, with the ln 2 that the published loss leaves out."""
    return np.asarray(np.abs(np.asarray(value, np.float64) - mean) / scale + np.log(2 * np.asarray(scale)))


@dataclass(frozen=True, eq=False)
class Mixture:
    """An ensemble as one distribution a pixel.

    Attributes
    ----------
    means, scales : ndarray, shape (members, ...)
    """

    means: Array
    scales: Array

    def __post_init__(self) -> None:
        means, scales = (np.asarray(a, np.float64) for a in (self.means, self.scales))
        if means.shape != scales.shape or means.ndim < 1:
            raise InputError(
                f"means have shape {means.shape}, scales {scales.shape}; give (members, ...) for both"
            )
        if not (scales > 0).all():
            raise InputError("scales must be positive; a Laplace distribution has no width otherwise")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "scales", scales)

    @property
    def mean(self) -> Array:
        return np.asarray(self.means.mean(axis=0))

    @property
    def variance(self) -> Array:
        """Mean of the members' variances plus the variance of their means."""
        return np.asarray((2 * self.scales**2).mean(axis=0) + self.means.var(axis=0))

    def cdf(self, value: Array) -> Array:
        return np.asarray(laplace_cdf(value, self.means, self.scales).mean(axis=0))

    def nll(self, value: Array) -> Array:
        """Negative log likelihood of the mixture in nats."""
        return -_log_mean_exp(-laplace_nll(value, self.means, self.scales))

    def quantile(self, probability: float, *, iterations: int = 60) -> Array:
        """By bisection between the members' own quantiles, which enclose the mixture's."""
        each = laplace_quantile(probability, self.means, self.scales)
        low, high = each.min(axis=0), each.max(axis=0)
        for _ in range(iterations):
            middle = (low + high) / 2
            below = self.cdf(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray((low + high) / 2)

    def stretched(self, factor: float) -> Mixture:
        """The same distribution with every distance from its mean multiplied: what a temperature does.

        Its standard deviation and all of its central intervals are multiplied, its mean and the members' disagreement stay.
        """
        mean = self.mean
        return Mixture(mean + factor * (self.means - mean), factor * self.scales)

    def coverage(self, truth: Array, levels: Sequence[float]) -> tuple[float, ...]:
        """Share of the pixels whose truth lies in the central interval of each mass: where |F(truth) - 1/2| <= mass / 2."""
        distance = np.abs(self.cdf(truth) - 0.5)
        return tuple(float(np.mean(distance <= level / 2)) for level in levels)

    def interval(self, level: float) -> tuple[Array, Array]:
        """Central interval of a share of the mixture's mass."""
        if not 0 < level < 1:
            raise InputError(f"level must lie between 0 and 1; received {level}")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)


def temperature_of(truth: Array, mixture: Mixture, *, level: float = INTERVAL) -> float:
    """The factor on predicted scales by which their central interval of one mass holds that share of the pixels.

    Parameters
    ----------
    truth : ndarray, shape (pixels,)
        Of pixels that were not trained on, on the scale of the predictions.
    mixture : Mixture
        Predicted for them.
    level : float
        0 to 1, without the ends.

    Returns
    -------
    float
        1 where the intervals are calibrated already, above where they are too narrow. NaN where no factor does: no pixel,
        or so many that are met exactly.

    Notes
    -----
    Temperature scaling (Guo et al. 2017) has one number; there it minimises the likelihood. Here it is the split-conformal
    quantile of the scaled errors (Lei et al. 2018), since it is the interval that a person looks at.
    """
    low, high = mixture.interval(level)
    mean = mixture.mean
    error = np.asarray(truth, np.float64) - mean
    # The mean of a mixture may lie beside its middle, but hardly ever beside its interval.
    half = np.maximum(np.where(error > 0, high - mean, mean - low), np.finfo(np.float64).tiny)
    if not error.size:
        return math.nan
    found = float(np.quantile(np.abs(error) / half, level))
    return found if math.isfinite(found) and found > 0 else math.nan


def disagreement(means: Array, scales: Array, *, n: int = NODES) -> Array:
    """Disagreement D of an ensemble, pixel by pixel: 0 = all members agree, 1 = they exclude each other.

    Parameters
    ----------
    means, scales : ndarray, shape (members, ...)
        At least two members.
    n : int
        Nodes a member, an even number.

    Returns
    -------
    ndarray, shape (...)
        Between 0 and 1.

    Notes
    -----
    D = (1 / (M ln M)) sum_m KL(p_m || p) with p the mean of the p_m: the generalised Jensen-Shannon divergence
    over its largest value. Each member is cut into n parts of equal mass, and each expectation taken at the
    parts' means: no bounds of integration, never above 1, and exact in the tails, where the integrand is a
    straight line. (Middles instead of means err ten times as much on average.)
    """
    mixture = Mixture(means, scales)
    members = mixture.means.shape[0]
    if members < 2:
        raise InputError(f"disagreement needs at least two members; received {members}")
    shape = mixture.means.shape[1:]
    # float32 and blocks that fit into a core's cache: five times as fast, and right to 1e-5.
    centred = mixture.means - mixture.mean
    mu, s = (a.reshape(members, -1).astype(np.float32) for a in (centred, mixture.scales))
    result = np.empty(mu.shape[1])
    nodes = _standard_nodes(n).astype(np.float32)[:, None]
    block = max(1, 65_536 // n)
    for start in range(0, mu.shape[1], block):
        part = slice(start, start + block)
        centre, rate = mu[:, part], 1 / s[:, part]
        height = np.log(rate)
        total = np.zeros(centre.shape[1])
        for member in range(members):
            z = centre[member] + nodes / rate[member]
            relative = np.zeros_like(z)
            own = height[member] - np.abs(nodes)
            for other in range(members):
                if other == member:
                    relative += 1
                else:
                    log_other = height[other] - np.abs(z - centre[other]) * rate[other]
                    # Far from the other members nothing but the own term counts; exp must not overflow before.
                    relative += np.exp(np.minimum(log_other - own, 80))
            total += math.log(members) - np.log(relative).mean(axis=0)
        result[part] = total / (members * math.log(members))
    return np.clip(result, 0.0, 1.0).reshape(shape)


def _standard_nodes(n: int) -> Array:
    """Means of the standard Laplace distribution over n parts of equal mass, n even."""
    if n < 2 or n % 2:
        raise InputError(f"n must be an even number of at least 2; received {n}")
    ends = np.arange(1, n // 2 + 1) / n
    primitive = np.concatenate([[0.0], ends * (np.log(2 * ends) - 1)])
    lower = np.diff(primitive) * n
    return np.concatenate([lower, -lower[::-1]])


def _log_mean_exp(logs: Array) -> Array:
    # The first axis is averaged; the largest term is taken out so that nothing underflows.
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.mean(np.exp(logs - top), axis=0)))
