"""One number that makes a probabilistic network's intervals hold what they say, found on patches that validate."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.defaults import INTERVAL
from care_bridge.intervals import Mixture, temperature_of
from care_bridge.training.batches import PatchSource
from care_bridge.training.ensemble import load_trained
from care_bridge.training.folder import find_weights, load_weights, members_of
from care_bridge.training.unet import build

MOST_PIXELS = 1 << 17
"""Drawn of all that validate: the share inside an interval is known to a fraction of a percent."""

MOST_PATCHES = 384

_BATCH = 16

_LEVELS = (0.5, INTERVAL)


@dataclass(frozen=True)
class Tempered:
    """What was found of a network's intervals.

    Attributes
    ----------
    temperature : float
        What its scales are multiplied by, from now on.
    before, after : mapping of float to float
        Share of the validation pixels in the central interval of a mass, without and with it.
    pixels : int
        How many were looked at.
    """

    temperature: float
    before: dict[float, float]
    after: dict[float, float]
    pixels: int

    def __str__(self) -> str:
        held = ", ".join(
            f"{100 * level:g} % held {100 * self.before[level]:.0f} % and hold {100 * self.after[level]:.0f} %"
            for level in _LEVELS
        )
        return (
            f"temperature {self.temperature:.4g}: intervals of {held} of {self.pixels} pixels that validate"
        )

    def as_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {
            "interval": INTERVAL,
            "pixels": self.pixels,
            **{
                name: {f"{level:g}": round(share, 4) for level, share in found.items()}
                for name, found in (("before", self.before), ("after", self.after))
            },
        }


CALIBRATION = "calibration"
"""Key in the provenance of config.json: how the temperature was found."""


def find_temperature(
    networks: Sequence[keras.Model], config: CareConfig, validation: Sequence[PatchSource]
) -> Tempered | None:
    """What a probabilistic network's scales are to be multiplied by.

    Parameters
    ----------
    networks : sequence of keras.Model
        One, or the members of an ensemble, whose mixture is looked at.
    config : CareConfig
        Of them.
    validation : sequence of PatchSource
        Normalised patches that were not trained on.

    Returns
    -------
    Tempered, optional
        Relative to the networks as they are. None where there is nothing to find: networks without widths, no patch, or
        errors that are no numbers.
    """
    if not config.probabilistic or not sum(map(len, validation)):
        return None
    truth, means, scales = _pixels(networks, config, validation)
    mixture = Mixture(means, scales)
    found = temperature_of(truth, mixture)
    if not math.isfinite(found):
        return None
    found = float(f"{found:.4g}")
    before, after = (
        dict(zip(_LEVELS, one.coverage(truth, _LEVELS), strict=True))
        for one in (mixture, mixture.stretched(found))
    )
    return Tempered(found, before, after, len(truth))


def _pixels(
    networks: Sequence[keras.Model], config: CareConfig, validation: Sequence[PatchSource]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(config.seed)
    total = sum(map(len, validation))
    half = config.n_channel_out
    truths, means, scales = [], [], []
    for part in validation:
        most = max(1, MOST_PATCHES * len(part) // total)
        chosen = np.sort(random.permutation(len(part))[:most])
        each = max(1, MOST_PIXELS * len(part) // (total * max(len(chosen), 1)))
        for start in range(0, len(chosen), _BATCH):
            source, target = part.batch(chosen[start : start + _BATCH])
            given = np.stack([np.asarray(one(source, training=False), np.float64) for one in networks])
            truth = np.asarray(target, np.float64).reshape(len(target), -1)
            here = random.permutation(truth.shape[1])[:each]
            truths.append(truth[:, here].ravel())
            flat = (len(networks), len(target), -1)
            means.append(given[..., :half].reshape(flat)[..., here].reshape(len(networks), -1))
            scales.append(given[..., half:].reshape(flat)[..., here].reshape(len(networks), -1))
    return np.concatenate(truths), np.concatenate(means, axis=1), np.concatenate(scales, axis=1)


def temper(folder: str | os.PathLike[str], validation: Sequence[PatchSource]) -> Tempered | None:
    """Find a model's temperature and write it into its config.json; that of an ensemble is the mixture's.

    Parameters
    ----------
    folder : path
        Of a trained model; what it had before is replaced.
    validation : sequence of PatchSource
        As for `find_temperature`.

    Returns
    -------
    Tempered, optional
        With the temperature that was written; None where there was nothing to find, and nothing was written.
    """
    config = read_config(folder)
    if not config.probabilistic:
        return None
    if members_of(config):
        networks = [one.network for one in load_trained(folder)]
    else:
        # Without the temperature that it may have already: what is found is that of the scales as they were trained.
        networks = [build(config.replace(temperature=None))]
        load_weights(networks[0], find_weights(folder))
    found = find_temperature(networks, config, validation)
    if found is None:
        return None
    provenance = {**config.provenance, CALIBRATION: found.as_dict()}
    write_config(Path(folder), config.replace(temperature=found.temperature, provenance=provenance))
    return found
