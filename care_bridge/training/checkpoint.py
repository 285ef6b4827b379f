"""All that a training run must know to go on as if it had never stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.files import atomic_file
from care_bridge.training.schedule import BestSoFar, Plateau

CHECKPOINT = Path("training") / "checkpoint.npz"
"""Where it lies in a model folder."""


@dataclass
class State:
    """Where a run stands.

    The order of patches and their augmentation are no part of it: they follow from the seed and the step
    (`batches.batch_indices`).

    Attributes
    ----------
    settings : dict
        The run's config.json, to refuse going on with another.
    data : str
        Fingerprint of the training patches.
    step : int
        Steps done since the start of the run.
    sums : list of float
        Sums of the figures over the steps of the unfinished epoch, `learner.Learner.figures`.
    seconds : float
        Time spent on the unfinished epoch.
    history : list of dict
        A record for each finished epoch.
    alpha : float
        Strength of the background weighting.
    plateau, best : dict
        State of `schedule.Plateau` and `schedule.BestSoFar`.
    finished : bool
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    data: str
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    alpha: float = 1.0
    plateau: dict[str, Any] | None = None
    best: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def save_checkpoint(
    folder: str | os.PathLike[str], state: State, *, weights: Sequence[Any], optimizer: Sequence[Any]
) -> None:
    """Write a checkpoint into a model folder; on a full disk the previous one stays as it was.

    Parameters
    ----------
    folder : path
    state : State
    weights, optimizer : sequence of array
        All variables of the network and of its optimiser, learning rate included; behind the optimiser's those of the
        average of the weights, where one is kept.
    """
    arrays = {f"weights_{i}": np.asarray(array) for i, array in enumerate(weights)}
    arrays |= {f"optimizer_{i}": np.asarray(array) for i, array in enumerate(optimizer)}
    arrays["state"] = np.asarray(json.dumps(vars(state)))
    with atomic_file(Path(folder) / CHECKPOINT) as part, open(part, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_checkpoint(
    folder: str | os.PathLike[str],
) -> tuple[State, list[NDArray[Any]], list[NDArray[Any]]] | None:
    """State, weights and variables of the optimiser; None where there is no checkpoint.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return None
    try:
        arrays = zips.arrays(path)
        state = _state(str(arrays["state"]))
        groups = [
            [arrays[f"{name}_{i}"] for i in range(sum(key.startswith(f"{name}_") for key in arrays))]
            for name in ("weights", "optimizer")
        ]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error}); remove it to train from the start, or copy it again"
        ) from None
    return state, groups[0], groups[1]


def _state(text: str) -> State:
    """A state whose every value is what its name stands for."""
    try:
        state = _STATE.validate_json(text, strict=True)
        for values, kind in ((state.plateau, _PLATEAU), (state.best, _BEST)):
            if values:
                kind.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError(
            "; ".join(f"{'.'.join(map(str, at['loc']))}: {at['msg']}" for at in error.errors()[:3])
        ) from None
    if state.step < 0 or len(state.sums) < 3:
        raise ValueError(f"step {state.step} and {len(state.sums)} sums")
    return state


_STATE, _PLATEAU, _BEST = TypeAdapter(State), TypeAdapter(Plateau), TypeAdapter(BestSoFar)
