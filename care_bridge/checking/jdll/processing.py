"""JDLL's processing steps in NumPy, faults included."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.checking.jdll.rdf import AXES_KEYS, step_name
from care_bridge.normalize import deepimagej_rank

Array = NDArray[Any]


def process(tensor: Array, letters: str, steps: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Apply processing steps as JDLL does, to the whole image, each result in float32."""
    result = np.asarray(tensor, np.float32)
    for step in steps:
        name, kwargs = step_name(step), step.get("kwargs") or {}
        values = np.asarray(result, np.float64)
        axes = next((kwargs[key] for key in AXES_KEYS if key in kwargs), None)
        parts = _parts(axes, letters, values.shape)
        if name == "scale_range":
            values = _scale_range(values, parts, kwargs)
        elif name == "zero_mean_unit_variance":
            values = _zero_mean(values, parts, float(kwargs.get("eps", 1e-6)))
        elif name == "fixed_zero_mean_unit_variance":
            eps = float(kwargs.get("eps", 1e-6))
            values = (values - float(kwargs["mean"])) / (float(kwargs["std"]) + eps)
        elif name == "scale_linear":
            gain, offset = (_first(kwargs.get(key, default)) for key, default in (("gain", 1), ("offset", 0)))
            if len(parts) > 1:
                gain, offset = float(np.float32(gain)), float(np.float32(offset))
            values = values * gain + offset
        elif name == "clip":
            low, high = float(kwargs["min"]), float(kwargs["max"])
            values = np.where(values >= high, high, np.where(values < low, low, values))
        elif name == "sigmoid":
            values = 1 / (1 + np.exp(-values))
        elif name == "binarize":
            values = (values >= float(kwargs["threshold"])).astype(np.float64)
        result = values.astype(np.float32)
    return result


def _first(value: Any) -> float:
    """Of lists JDLL takes the first number for every channel."""
    return float(value[0] if isinstance(value, list) else value)


def _parts(axes: Any, letters: str, shape: Sequence[int]) -> list[tuple[Any, ...]]:
    """The pieces that a step treats one by one.

    Notes
    -----
    A letter is pooled when it occurs anywhere in the names of the axes: "batch" holds the c of channel, "index" an
    x. Where no letter or every letter does, the whole image is one piece.
    """
    if axes is None:
        return [()]
    names = [axes] if isinstance(axes, str) else [str(name) for name in axes]
    joined = "".join("c" if name == "channel" else name for name in names).lower()
    looped = [number for number, letter in enumerate(letters) if letter not in joined]
    if not looped or len(looped) == len(letters):
        return [()]
    found = []
    # The first of the axes runs fastest.
    for index in itertools.product(*(range(shape[number]) for number in reversed(looped))):
        where: list[Any] = [slice(None)] * len(letters)
        for number, place in zip(reversed(looped), index, strict=True):
            where[number] = place
        found.append(tuple(where))
    return found


def _scale_range(
    values: NDArray[np.float64], parts: Sequence[tuple[Any, ...]], kwargs: Mapping[str, Any]
) -> NDArray[np.float64]:
    low, high = float(kwargs.get("min_percentile", 0)), float(kwargs.get("max_percentile", 100))
    eps = float(kwargs.get("eps", 1e-6))
    out = np.empty_like(values)
    for where in parts:
        part = values[where]
        ranked = np.sort(part, axis=None)
        bottom, top = (ranked[deepimagej_rank(ranked.size, p)] for p in (low, high))
        out[where] = (part - bottom) / (top - bottom + eps)
    return out


def _zero_mean(
    values: NDArray[np.float64], parts: Sequence[tuple[Any, ...]], eps: float
) -> NDArray[np.float64]:
    """Each piece's mean and deviation are taken off the whole image, one after the other: JDLL's own fault."""
    for where in parts:
        part = values[where]
        mean, std = (float(np.float32(f(part))) for f in (np.mean, np.std))
        values = ((values - mean) / (std + eps)).astype(np.float32).astype(np.float64)
    return values
