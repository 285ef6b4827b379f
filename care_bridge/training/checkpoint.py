"""All that a training run must know to go on as if it had never stopped."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.files import atomic_file

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
        Sums of the figures over the steps of the unfinished epoch.
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
        All variables of the network and of its optimiser, learning rate included.
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
        # Opened here: np.load leaves a file open that turns out to be damaged.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            state = State(**json.loads(str(file["state"])))
            groups = [
                [file[f"{name}_{i}"] for i in range(sum(key.startswith(f"{name}_") for key in file.files))]
                for name in ("weights", "optimizer")
            ]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error}); remove it to train from the start, or copy it again"
        ) from None
    return state, groups[0], groups[1]
