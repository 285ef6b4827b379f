"""What a probabilistic model says about its own errors, gathered image by image and judged over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from care_bridge.defaults import TargetScale
from care_bridge.evaluate.evaluation import ALIGNED, SCALES, Array, Reliability
from care_bridge.evaluate.pairs import Pair
from care_bridge.evaluate.planes import Plane, intensity_range, plane_of, slope
from care_bridge.evaluate.reliability import (
    Calibration,
    InputStatistics,
    aligned_truth,
    binned,
    block_correlation,
    calibrate,
    foreign,
    input_statistics,
    mixture_of,
)
from care_bridge.images import Image
from care_bridge.intervals import Mixture, disagreement, laplace_nll
from care_bridge.patches.fitting import FitSums, block_means
from care_bridge.predictor import Predictor

SAMPLE_PX = 65_536
"""Pixels an image that calibration is measured on."""

FAMILIAR_INPUTS, FAMILIAR_D = 8, 3
"""Training images whose statistics, and whose disagreement, say what is familiar."""


@dataclass(frozen=True)
class Answers:
    """On what scale a model answers, and how its intervals were calibrated.

    Attributes
    ----------
    target_scale : {"own", "source", "fitted"}
        As in config.json.
    temperature : float, optional
        The model's own; None for a model without.
    """

    target_scale: TargetScale = "own"
    temperature: float | None = None

    def of_source(self, source: Plane, truth: Plane) -> Array | None:
        """The truth in the grey levels of its source, as training had it; None where training had percentiles of its own."""
        if self.target_scale == "source":
            return truth.astype(np.float64)
        if self.target_scale == "own" or source.shape != truth.shape:
            return None
        sums = FitSums()
        sums.add(block_means(source, "YX"), block_means(truth, "YX"))
        fit = sums.fit()
        return fit.gain * truth.astype(np.float64) + fit.offset if fit.holds else None


@dataclass(frozen=True, eq=False)
class Certainty:
    """Pixels of one plane, in percentile ranges: predictions in the source's, the truth in its own or the source's too.

    Attributes
    ----------
    means, scales : ndarray, shape (members, pixels)
    truth : ndarray, shape (pixels,)
    correlation_scale, correlation_d : float
        Rank correlation of the predicted scale, and of D, with the absolute error; `correlation_d` is NaN for a
        single net.
    d_mean : float, optional
        Mean disagreement; None for a single net.
    """

    means: Array
    scales: Array
    truth: Array
    correlation_scale: float
    correlation_d: float
    d_mean: float | None


def certainty(
    pair: Pair,
    results: Sequence[Image],
    *,
    truth: Plane,
    error: Plane,
    answers: Answers = Answers(),
) -> tuple[Certainty | None, dict[str, Plane]]:
    """Sample what the members say of one plane.

    Parameters
    ----------
    pair : Pair
    results : sequence of Image
        What each member gave.
    truth, error : ndarray, shape (Y, X)
        The truth's plane, and the absolute error on it.
    answers : Answers
        Of an ensemble the temperature is put on its mixture; a single net has it in its widths.

    Returns
    -------
    Certainty, optional
        None where the model predicts no widths or the truth has holes.
    maps : dict of str to ndarray
        `scale` on the truth's intensities, and `D` of an ensemble.
    """
    temperature = answers.temperature if len(results) > 1 and answers.temperature else 1.0
    mixture = mixture_of(results, like=pair.source, pixels=plane_of, temperature=temperature)
    if mixture is None or not np.isfinite(truth).all():
        return None, {}
    spread = np.sqrt(mixture.variance / 2)
    maps = {"scale": (slope(mixture.mean, truth) * spread).astype(np.float32)}
    errors = np.asarray(error, np.float64)
    d_mean, correlation_d = None, math.nan
    if len(results) > 1:
        d = disagreement(mixture.means, mixture.scales)
        maps["D"] = d.astype(np.float32)
        d_mean, correlation_d = float(d.mean()), block_correlation(d, errors)

    source = plane_of(pair.source)
    source_low, source_high = intensity_range(source)
    unit = (source_high - source_low) or 1.0
    there = answers.of_source(source, truth)
    if there is None:
        low, high = intensity_range(truth)
        compared = (truth.astype(np.float64) - low) / ((high - low) or 1.0)
    else:
        compared = (there - source_low) / unit
    step = max(1, math.ceil(math.sqrt(truth.size / SAMPLE_PX)))
    pick = (..., slice(None, None, step), slice(None, None, step))
    found = Certainty(
        means=((mixture.means - source_low) / unit)[pick].reshape(len(results), -1),
        scales=(mixture.scales / unit)[pick].reshape(len(results), -1),
        truth=compared[pick].ravel(),
        correlation_scale=block_correlation(spread, errors),
        correlation_d=correlation_d,
        d_mean=d_mean,
    )
    return found, maps


def judge(
    found: Sequence[tuple[str, Certainty]],
    *,
    member_nrmse: Sequence[Sequence[float]],
    answers: Answers = Answers(),
) -> Reliability | None:
    """How sure the model is, and whether rightly so, over all images.

    Parameters
    ----------
    found : sequence of (str, Certainty)
        Images with their names; None comes of an empty one.
    member_nrmse : sequence of sequence of float
        Of each image, a member each; empty for a single net.
    answers : Answers
        What `certainty` was told.
    """
    each = [one for _, one in found]
    if not each:
        return None
    aligned = [aligned_truth(one.truth, one.means.mean(axis=0)) for one in each]
    means = np.concatenate([one.means for one in each], axis=1)
    scales = np.concatenate([one.scales for one in each], axis=1)
    own = np.concatenate([one.truth for one in each])
    fitted = np.concatenate(aligned)
    mixture = Mixture(means, scales)
    error = np.abs(fitted - mixture.mean)
    spread = np.sqrt(mixture.variance / 2)
    factor, mended = _mended(each, aligned)
    scale = SCALES[answers.target_scale]

    def calibrations(of: Mixture) -> tuple[Calibration, ...]:
        return (
            calibrate(own, of.means, of.scales, scale=scale),
            calibrate(fitted, of.means, of.scales, scale=ALIGNED),
        )

    temperature = answers.temperature
    return Reliability(
        members=means.shape[0],
        calibrations=calibrations(mixture),
        temperature=temperature,
        uncalibrated=() if temperature is None else calibrations(mixture.stretched(1 / temperature)),
        mended=mended,
        factor=factor,
        nll_single=float(laplace_nll(fitted, means, scales).mean()),
        nll_ensemble=float(mixture.nll(fitted).mean()),
        member_nrmse=tuple(np.mean(member_nrmse, axis=0).tolist()) if member_nrmse else (),
        by_scale=tuple(binned(spread, {"mean |error|": error}, name="scale")),
        by_intensity=tuple(binned(mixture.mean, {"scale": spread, "mean |error|": error}, name="intensity")),
        correlation_scale=_mean_known([one.correlation_scale for one in each]),
        correlation_d=_mean_known([one.correlation_d for one in each]),
        d_mean={name: one.d_mean for name, one in found if one.d_mean is not None},
    )


def _mended(each: Sequence[Certainty], aligned: Sequence[Array]) -> tuple[float, Calibration | None]:
    """Factor of the first half of the images, and the calibration that it gives on the others."""

    def joined(part: slice) -> tuple[Array, Array, Array]:
        return (
            np.concatenate(aligned[part]),
            np.concatenate([one.means for one in each[part]], axis=1),
            np.concatenate([one.scales for one in each[part]], axis=1),
        )

    half = max(1, len(each) // 2)
    factor = calibrate(*joined(slice(0, half)), scale=ALIGNED).factor
    if len(each) < 2:
        return factor, None
    truth, means, scales = joined(slice(half, None))
    return factor, calibrate(truth, means, factor * scales, scale=f"{ALIGNED}, scales x {factor:.3g}")


def _mean_known(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


@dataclass(frozen=True)
class TrainingInputs:
    """What training images look like, so that others are recognised.

    Attributes
    ----------
    statistics : tuple of InputStatistics
        Of training images and their quarters.
    d_mean : tuple of float
        Mean disagreement of an ensemble on some of them.
    """

    statistics: tuple[InputStatistics, ...] = ()
    d_mean: tuple[float, ...] = ()

    def oddities(self, source: Plane, d_mean: float | None) -> tuple[str, ...]:
        """Why a source is unlike the training images, a sentence each."""
        return tuple(
            foreign(input_statistics(source), self.statistics, d_mean=d_mean, d_reference=self.d_mean)
        )


def training_inputs(training: Sequence[Pair], members: Sequence[Predictor] = ()) -> TrainingInputs:
    """Look at some training pairs; the members of an ensemble predict a few of them."""
    if not training:
        return TrainingInputs()
    places = np.unique(np.linspace(0, len(training) - 1, FAMILIAR_INPUTS).astype(int))
    few = [training[place] for place in places]
    statistics = tuple(input_statistics(part) for pair in few for part in _parts(plane_of(pair.source)))
    d_mean = []
    for pair in few[:FAMILIAR_D] if len(members) > 1 else []:
        results = [member.predict(pair.source) for member in members]
        mixture = mixture_of(results, like=pair.source, pixels=plane_of)
        if mixture is not None:
            coarse = mixture.means[:, ::2, ::2], mixture.scales[:, ::2, ::2]
            d_mean.append(float(disagreement(*coarse).mean()))
    return TrainingInputs(statistics, tuple(d_mean))


def _parts(plane: Plane) -> list[Plane]:
    """A plane and its quarters: evaluated images may be smaller pieces than the training images."""
    height, width = (size // 2 for size in plane.shape)
    if min(height, width) < 64:
        return [plane]
    return [plane, *(plane[y : y + height, x : x + width] for y in (0, height) for x in (0, width))]
