"""What is stored of the patches that a network was trained on, and what is said of an image that is held against it."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.files import atomic_file
from care_bridge.noise import NoiseRange

GUARD = "guard.npz"
"""The file in a model's folder."""

FORMAT_VERSION = 1
MOST_BYTES = 100_000

STRUCTURE, SPECTRUM = "structure", "spectrum"
WORDS = {
    STRUCTURE: "structure (features of the network's encoder)",
    SPECTRUM: "spectrum (blur, noise, pixel size)",
    "disagreement": "disagreement of the networks",
}

LIMIT = 0.95
"""Quantile of the distances of patches that were not trained on: as far as an image's middle tile may lie."""

_DIRECTIONS = 24
_WIDTH_FLOOR = 0.1
"""Features that hardly vary in training (share of the middle width) count no more than this for each of theirs."""

Features = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """Features of one kind over the training patches: a Gaussian, exact along few directions and round across them.

    Attributes
    ----------
    mean, width : ndarray, shape (features,)
        Every feature is taken from its mean in its widths.
    directions : ndarray, shape (k, features)
        Of most variance; unit vectors.
    variances : ndarray, shape (k,)
        Along them.
    rest : float
        Variance along each direction across them.
    held : ndarray
        Distances of patches that were not trained on, ascending.
    """

    mean: Features
    width: Features
    directions: Features
    variances: Features
    rest: float
    held: Features

    @property
    def limit(self) -> float:
        """Largest distance that is familiar."""
        return float(np.quantile(self.held, LIMIT))

    def distances(self, features: Features) -> Features:
        """Mahalanobis distance of each row, 1 for an average training patch."""
        z = (np.asarray(features, np.float64) - self.mean) / self.width
        along = z @ self.directions.T
        across = np.maximum(np.sum(z**2, axis=1) - np.sum(along**2, axis=1), 0)
        free = max(z.shape[1] - len(self.directions), 0)
        squared = np.sum(along**2 / self.variances, axis=1) + (across / self.rest if free else 0.0)
        return np.asarray(np.sqrt(squared / z.shape[1]))

    def ratio(self, features: Features) -> float:
        """How far an image's middle tile lies, as a share of `limit`: above 1 is foreign."""
        return float(np.median(self.distances(features))) / self.limit


def fit_group(training: Features, held: Features) -> Group:
    """Describe features of training patches.

    Parameters
    ----------
    training, held : ndarray, shape (patches, features)
        Of patches that were trained on, and of others; at least 2 and 1.

    Returns
    -------
    Group

    Notes
    -----
    Probabilistic principal components (Tipping & Bishop 1999) on standardised features: with fewer patches than features
    the covariance itself has no inverse. The variances along the kept directions are drawn by a tenth to their mean.
    """
    mean, width = training.mean(axis=0), training.std(axis=0)
    width = np.maximum(width, max(_WIDTH_FLOOR * float(np.median(width)), 1e-6))
    z = (training - mean) / width
    _, singular, right = np.linalg.svd(z, full_matrices=False)
    variances = singular**2 / max(len(z) - 1, 1)
    n = z.shape[1]
    k = max(1, min(_DIRECTIONS, n, (len(z) - 1) // 4))
    total = float(variances.sum())
    rest = max((total - float(variances[:k].sum())) / max(n - k, 1), 1e-3)
    kept = 0.9 * variances[:k] + 0.1 * float(variances[:k].mean())
    made = Group(mean, width, right[:k], np.maximum(kept, 1e-3), rest, np.ones(1))
    made = _rounded(made)
    return replace(made, held=np.sort(made.distances(held)))


def _rounded(group: Group) -> Group:
    """As it comes back from a file, so that the limits are those of what is stored."""
    return Group(
        mean=group.mean.astype(np.float32).astype(np.float64),
        width=group.width.astype(np.float32).astype(np.float64),
        directions=group.directions.astype(np.float16).astype(np.float64),
        variances=group.variances.astype(np.float32).astype(np.float64),
        rest=float(np.float32(group.rest)),
        held=group.held,
    )


@dataclass(frozen=True, eq=False)
class Familiar:
    """What a network was trained on, as far as an image can be held against it.

    Attributes
    ----------
    patch_size : tuple of int
        Pixels along the network's space axes.
    groups : mapping of str to Group
        `structure` and `spectrum`.
    noise : NoiseRange
        Of the training sources; what nobody knows is None.
    disagreement : ndarray, optional
        Of an ensemble on patches that were not trained on: mean D (of networks without widths the standard deviation of
        their means), a patch each; ascending.
    weights : tuple of str
        SHA-256 of the weights whose encoder was asked, a member each; empty in files that do not say.
    """

    patch_size: tuple[int, ...]
    groups: Mapping[str, Group]
    noise: NoiseRange = field(default_factory=NoiseRange)
    disagreement: Features | None = None
    weights: tuple[str, ...] = ()

    def is_of(self, weights: Sequence[str]) -> bool:
        """Whether it was learnt with these weights, SHA-256 each; what does not say is taken to be."""
        return not self.weights or sorted(self.weights) == sorted(weights)


@dataclass(frozen=True)
class Likeness:
    """Whether an image looks like what a network was trained on.

    Attributes
    ----------
    ratios : mapping of str to float
        By what was compared: how far the image lies as a share of what is familiar; above 1 is foreign.
    noise : tuple of str
        What of its noise the model was not trained for, a sentence each.
    unknown : str
        Why it cannot be known; "" where it can.
    tiles : int
        How many pieces of the image were looked at.
    """

    ratios: Mapping[str, float]
    noise: tuple[str, ...] = ()
    unknown: str = ""
    tiles: int = 0

    @property
    def foreign(self) -> bool | None:
        """Whether it is unlike the training patches; None where that cannot be known."""
        if self.unknown and not self.ratios:
            return None
        return any(ratio > 1 for ratio in self.ratios.values())

    def sentence(self) -> str:
        """What a person is told.

        Returns
        -------
        str
            One sentence; "" where the image is familiar.
        """
        if self.foreign is None:
            return f"whether the model was trained on such images cannot be known: {self.unknown}"
        if not self.foreign:
            return ""
        outside = sorted(((r, name) for name, r in self.ratios.items() if r > 1), reverse=True)
        told = " and ".join(f"{WORDS[name]} {ratio:.1f} times" for ratio, name in outside)
        return (
            f"unlike what the model was trained on, so do not trust the result, nor its intervals: {told} as far from the "
            "training patches as familiar images are at most"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns
        -------
        dict
            The attributes, `foreign` and the sentence.
        """
        return {
            "foreign": self.foreign,
            "ratios": {name: float(f"{ratio:.4g}") for name, ratio in self.ratios.items()},
            "noise": list(self.noise),
            "unknown": self.unknown,
            "tiles": self.tiles,
            "sentence": self.sentence(),
        }


_PARTS = ("mean", "width", "directions", "variances", "rest", "held")


def write_familiar(folder: str | os.PathLike[str], familiar: Familiar) -> Path:
    """Write what is familiar into a model's folder, whole or not at all.

    Returns
    -------
    Path
        `GUARD`, at most 100 kB.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, group in familiar.groups.items():
        for part in _PARTS:
            kind = np.float16 if part == "directions" else np.float32
            arrays[f"{name}.{part}"] = np.asarray(getattr(group, part), kind)
    if familiar.disagreement is not None:
        arrays["disagreement"] = familiar.disagreement.astype(np.float32)
    about = {
        "format_version": FORMAT_VERSION,
        "patch_size": list(familiar.patch_size),
        "noise": familiar.noise.as_dict(),
        "weights": list(familiar.weights),
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # NumPy's own annotation
    if content.tell() > MOST_BYTES:
        raise AssertionError(f"{GUARD} has {content.tell()} bytes; fewer directions are to be kept")
    path = Path(folder) / GUARD
    with atomic_file(path) as place:
        place.write_bytes(content.getvalue())
    return path


def read_familiar(folder: str | os.PathLike[str]) -> Familiar | None:
    """What is familiar to the model of a folder; None where nothing was stored.

    Raises
    ------
    InputError
        If the file is damaged or of another version.
    """
    path = Path(folder) / GUARD
    if not path.is_file():
        return None
    arrays = zips.arrays(path)
    try:
        about = json.loads(bytes(arrays["about"]))
        if about["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path} is of version {about['format_version']}, and {FORMAT_VERSION} is known; write it anew: care-bridge "
                "guard"
            )
        size = tuple(int(pixels) for pixels in about["patch_size"])
        groups = {name: _group(arrays, name) for name in (STRUCTURE, SPECTRUM) if f"{name}.mean" in arrays}
        spread = arrays.get("disagreement")
        found = Familiar(
            size,
            groups,
            NoiseRange.from_dict(about["noise"]),
            None if spread is None else _finite(spread.astype(np.float64)),
            tuple(str(one) for one in about.get("weights", ())),
        )
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); write it anew: care-bridge guard") from None
    if not size or min(size) < 1 or math.prod(size) > 1 << 26 or not groups:
        raise InputError(f"{path} is damaged (patch size {size}); write it anew: care-bridge guard")
    return found


def _group(arrays: Mapping[str, NDArray[Any]], name: str) -> Group:
    parts = {part: _finite(arrays[f"{name}.{part}"].astype(np.float64)) for part in _PARTS}
    n = len(parts["mean"])
    shapes = {part: parts[part].shape for part in ("mean", "width", "directions")}
    if shapes != {"mean": (n,), "width": (n,), "directions": (len(parts["variances"]), n)}:
        raise ValueError(f"shapes {shapes}")
    if min(parts["width"].min(), parts["variances"].min(), parts["rest"].min(), parts["held"].max()) <= 0:
        raise ValueError(f"{name} has a width of 0")
    rest = float(parts.pop("rest"))
    return Group(**parts, rest=rest)


def _finite(values: Features) -> Features:
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values
