"""Several networks on the same data: their mean, and how much they disagree.

One folder holds them: member_1, member_2, ... are model folders of their own, each of which csbdeep opens, and
config.json beside them says how many there are. Weigert et al. 2018 take about five.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.errors import InputError
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import BatchSource
from care_bridge.training.fit import Data, train
from care_bridge.training.folder import MEMBERS, CareModel, load_model, members_of

ENSEMBLE_SIZE = 5
"""Number of networks in the CARE paper."""

ENSEMBLE_SEED = "ensemble_seed"
"""Key in the provenance of a member's config.json: the seed that its own was drawn from."""


def train_ensemble(
    config: CareConfig,
    data: Data | BatchSource,
    validation: Data,
    out: str | os.PathLike[str],
    *,
    members: int = ENSEMBLE_SIZE,
    resume: bool = False,
    overwrite: bool = False,
    on_epoch: Callable[[int, dict[str, float]], bool | None] | None = None,
    on_estimate: Callable[[float], object] | None = None,
    progress: Progress = silent,
) -> CareModel:
    """Train networks that differ in their first weights and the order of patches, one after another.

    Parameters
    ----------
    config : CareConfig
        Its seed gives each member's.
    data, validation : pair of arrays or PatchSource
    out : path
        Folder for all of them.
    members : int
    resume : bool
        Leave finished members as they are and go on with the others.
    overwrite : bool
        Train anew in a folder that holds models.
    on_epoch : callable, optional
        Called with the member's number (from 1) and each epoch's record.
    on_estimate : callable, optional
        Called before the first step with the seconds that all members will take, see `fit.train`.
    progress : Progress
        Told about all members together.

    Returns
    -------
    CareModel
        The averaged network, see `unet.mean_of`.

    Raises
    ------
    InputError
        If there are fewer than 2 members, and for what `fit.train` refuses.
    """
    if members < 2:
        raise InputError(f"an ensemble has at least 2 members; received {members}")
    folder = Path(out)
    config = config.replace(temperature=None)
    names = [f"member_{number + 1}" for number in range(members)]
    told: list[float] = []
    for number, name in enumerate(names):

        def estimate(seconds: float, number: int = number) -> None:
            told.append(seconds * (members - number))
            if on_estimate is not None:
                on_estimate(told[0])

        one = config.replace(
            seed=member_seed(config.seed, number),
            provenance={**config.provenance, ENSEMBLE_SEED: config.seed},
        )

        def tell(record: dict[str, float], number: int = number) -> bool | None:
            return on_epoch(number + 1, record) if on_epoch is not None else None

        def show(done: int, total: int, what: str, number: int = number) -> None:
            progress(number * total + done, members * total, what)

        train(
            one,
            data,
            validation,
            folder / name,
            resume=resume,
            overwrite=overwrite,
            on_epoch=tell,
            on_estimate=None if told else estimate,
            progress=show,
        )
    write_config(folder, config.replace(provenance={**config.provenance, MEMBERS: names}))
    return load_model(folder)


def member_seed(seed: int, number: int) -> int:
    """Seed of a member (from 0), far from those of other members and other ensembles."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def load_members(path: str | os.PathLike[str]) -> list[CareModel]:
    """The members of an ensemble's folder, one model each.

    Raises
    ------
    InputError
        If the folder holds no ensemble, or a member is missing.
    """
    if not members_of(read_config(path)):
        raise InputError(f"{str(path)!r} is a single model; train with an ensemble to have members")
    return load_trained(path)


def load_trained(path: str | os.PathLike[str]) -> list[CareModel]:
    """What was trained into a model's folder: its one network, or every member's, weights to look at, not predictors.

    Raises
    ------
    InputError
        If the folder holds no model, or a member is missing.
    """
    names = members_of(read_config(path))
    return [load_model(Path(path) / name) for name in names] if names else [load_model(path)]
