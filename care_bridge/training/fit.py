"""Training: from patches to a model folder, to be stopped and taken up again at any moment."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import care_bridge
from care_bridge import n2v_keys
from care_bridge.config import BLOCK, CSBDEEP_CANNOT, GANS, UNPAIRED, CareConfig, write_config
from care_bridge.errors import InputError
from care_bridge.files import clear_leftovers
from care_bridge.progress import Progress, silent
from care_bridge.training.batches import (
    Batch,
    BatchSource,
    Passes,
    PatchSource,
    as_batches,
    as_source,
    batches,
    fingerprint,
)
from care_bridge.training.checkpoint import CHECKPOINT, State, load_checkpoint, save_checkpoint
from care_bridge.training.defects import DEFECTS
from care_bridge.training.folder import (
    WEIGHTS_BEST,
    WEIGHTS_LAST,
    CareModel,
    load_model,
    save_model,
    save_weights,
    weights_in,
)
from care_bridge.training.history import draw_history, write_history
from care_bridge.training.learner import Learner
from care_bridge.training.losses import next_alpha
from care_bridge.training.schedule import BestSoFar, Plateau, average_decay, cosine_rate, linear_rate
from care_bridge.training.supervised import Supervised
from care_bridge.training.unpaired import Strangers

Data = PatchSource | tuple[NDArray[Any], NDArray[Any]]

FOREGROUND_PATCHES = 256
"""Patches of a stream from which the share of foreground is taken."""

CHECKPOINT_EVERY_S = 300.0
"""Seconds between checkpoints within a long epoch; one is written after every epoch as well."""

TRIED_STEPS = 3
"""Steps that are timed, and taken back, before training says how long it will take."""

MOST_TRIED = 10_000

MEASURED_S, MEASURED_SHARE = 15.0, 0.03
"""How long steps are timed to plan a training by its time: seconds, and share of that time, whichever is less."""

VALIDATING_SHARE, MOST_EPOCHS, FEWEST_STEPS = 0.1, 50, 10
"""Of a training that is planned by its time: share that may go into validation, and bounds of epochs and steps."""

CHECKPOINT_S, ENDING_S = 0.1, 2.0
"""What an epoch's files take, and drawing the history and reading the model back."""

FEW_VALIDATION = 0.05
"""csbdeep warns below this share of validation patches."""

_RUN_KEYS = ("train_epochs", "provenance")
# What may differ when a run is taken up again: more epochs, and notes.
_FOR_OTHERS = {"allow_new_parameters", CSBDEEP_CANNOT, *n2v_keys.NAMES, *n2v_keys.OTHERS} - set(
    CareConfig.model_fields
)
# What follows from the settings and is told to csbdeep or n2v; our own names of it are compared.


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What training gives.

    Attributes
    ----------
    model : CareModel
        With the best weights, in float32, read back from its folder.
    history : list of dict
        A record for each epoch: epoch (from 1), loss, mae, mse, the same of the validation patches with
        `val_`, learning_rate, seconds.
    stopped_early : bool
        Whether fewer epochs than `train_epochs` were wanted by early stopping or by `on_epoch`.
    """

    model: CareModel
    history: list[dict[str, float]]
    stopped_early: bool


def train(
    config: CareConfig,
    data: Data | BatchSource,
    validation: Data,
    out: str | os.PathLike[str],
    *,
    start: keras.Model | Sequence[NDArray[Any]] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_epoch: Callable[[dict[str, float]], bool | None] | None = None,
    on_estimate: Callable[[float], object] | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    progress: Progress = silent,
) -> TrainResult:
    """Train a network and write it into a folder.

    Parameters
    ----------
    config : CareConfig
        Everything that decides the result, the seed included.
    data, validation : pair of arrays or PatchSource
        Normalised source and target patches, shape (n, [z,] y, x, channel); or a `BatchSource` to train on, such as
        `streams.Stream`. Validation patches must come from
        other images, or other parts of them (`patches` splits so).
    out : path
        The model folder: config.json, weights_best.h5 (lowest validation loss), weights_last.h5 and
        training/ with history.csv, history.png and checkpoint.npz.
    start : keras.Model or sequence of arrays, optional
        Weights to start from (fine-tuning); None starts from random ones.
    resume : bool
        Go on from the folder's checkpoint: the result is that of a run without the stop. A folder without
        weights is trained from the start.
    overwrite : bool
        Train anew in a folder that holds a model.
    on_epoch : callable, optional
        Called with each epoch's record; returning True ends training after it.
    on_estimate : callable, optional
        Called before the first step with the seconds that training will take, from steps that are tried out and taken
        back; not called where it is nearly over.
    checkpoint_every_s : float
        Seconds between checkpoints within an epoch.
    progress : Progress

    Returns
    -------
    TrainResult
        The model with its best weights, and the history of its epochs.

    Raises
    ------
    InputError
        If the data do not fit the network, the folder is in use, the checkpoint belongs to another run, or
        the loss becomes NaN (with the reason that was found).

    Warns
    -----
    UserWarning
        If fewer than 5 % of the patches are for validation.
    """
    folder = Path(out)
    if isinstance(validation, Strangers) and (
        config.train_early_stopping or (config.train_schedule == "plateau" and config.train_reduce_lr)
    ):
        raise InputError(
            "train_early_stopping and train_schedule='plateau' wait for a validation loss, which needs pairs; leave them "
            "out, or give pairs that validate"
        )
    config = config.replace(
        temperature=None
    )  # the loss means the scales as they are; weights to come have another
    source = as_batches(data, config)
    held_out = as_source(validation, config, what="validation")
    stored_patches = len(source.patches) if isinstance(source, Passes) else 0
    if len(held_out) < FEW_VALIDATION * (stored_patches + len(held_out)):
        share = 100 * len(held_out) / (stored_patches + len(held_out))
        warnings.warn(f"only {share:.1f} % of all patches are for validation", stacklevel=2)
    state, stored = _take_up(
        folder, config, source.fingerprint() + fingerprint(held_out), resume=resume, overwrite=overwrite
    )
    run = _Run(config, source, held_out, state)
    if stored is not None:
        run.restore(*stored)
    else:
        run.begin(start)
    write_config(folder, _with_versions(config, state.data))
    if stored is None:
        run.save(folder)  # a run that is ended in its first epoch can be taken up as well
    left = config.train_epochs * config.train_steps_per_epoch - state.step
    if on_estimate is not None and not state.finished and left > 4 * TRIED_STEPS:
        on_estimate(run.seconds_left(left))
    try:
        early = _train_epochs(run, folder, on_epoch, checkpoint_every_s, progress)
    finally:
        if state.history:
            _write_record(folder, config, state)
    return TrainResult(load_model(folder), state.history, early)


def plan_epochs(
    config: CareConfig, data: Data | BatchSource, validation: Data, *, seconds: float
) -> CareConfig:
    """The same settings with as many epochs and steps as fit into a time, measured on this machine.

    Parameters
    ----------
    config : CareConfig
    data, validation
        As for `train`.
    seconds : float
        For measuring and training together.

    Returns
    -------
    CareConfig
        Its `provenance` holds under "plan" what was measured.

    Raises
    ------
    InputError
        If the time is too short for `FEWEST_STEPS` steps, or for what `train` refuses.
    """
    begun = time.monotonic()
    source, held_out = as_batches(data, config), as_source(validation, config, what="validation")
    run = _Run(config, source, held_out, State(settings={}, data=""))
    run.begin(None)
    times = run.times(min(MEASURED_S, MEASURED_SHARE * seconds))
    # Training translates its step once more.
    around = time.monotonic() - begun + times.first_s + ENDING_S
    left = seconds - around
    once = times.validation_s + CHECKPOINT_S
    epochs = int(np.clip(VALIDATING_SHARE * left / once, 1, MOST_EPOCHS))
    steps = int((left - epochs * once) / times.step_s)
    if steps < FEWEST_STEPS:
        needed = around + once + FEWEST_STEPS * times.step_s
        raise InputError(
            f"{seconds / 60:.2g} minutes are too short: a step takes {times.step_s:.2g} s here, and {FEWEST_STEPS} steps "
            f"are the least; give --minutes {math.ceil(needed / 6) / 10:g} or more, or a smaller network"
        )
    epochs = min(epochs, steps)
    plan = {
        "seconds": round(seconds, 1),
        "step_seconds": float(f"{times.step_s:.3g}"),
        "validation_seconds": float(f"{times.validation_s:.3g}"),
    }
    return config.replace(
        train_epochs=epochs,
        train_steps_per_epoch=steps // epochs,
        provenance={**config.provenance, "plan": plan},
    )


def _train_epochs(
    run: _Run,
    folder: Path,
    on_epoch: Callable[[dict[str, float]], bool | None] | None,
    checkpoint_every_s: float,
    progress: Progress,
) -> bool:
    config, state = run.config, run.state
    per_epoch = config.train_steps_per_epoch
    total = config.train_epochs * per_epoch
    saved = clock = time.monotonic()
    early = state.finished
    if not early:
        for batch in run.batches(total):
            run.step(batch)
            now = time.monotonic()
            state.seconds, clock = state.seconds + now - clock, now
            progress(state.step, total, _told(state, config))
            if state.step % per_epoch:
                if now - saved > checkpoint_every_s:
                    run.save(folder)
                    saved = now
                continue
            better, waited = run.end_epoch()
            if better and config.train_checkpoint:
                run.save_weights(folder / config.train_checkpoint)
            record = state.history[-1]
            if config.method in GANS:
                run.look(folder, record)
            patience = config.train_early_stopping
            early = patience is not None and waited >= patience
            early = (on_epoch is not None and on_epoch(record) is True) or early
            state.finished = early
            run.save(folder)
            write_history(folder, state.history)
            saved = clock = time.monotonic()
            if early:
                break
    run.save_weights(folder / (config.train_checkpoint_last or WEIGHTS_LAST))
    if not (folder / (config.train_checkpoint or WEIGHTS_BEST)).is_file():
        run.save_weights(folder / (config.train_checkpoint or WEIGHTS_BEST))
    return early


def _told(state: State, config: CareConfig) -> str:
    """What a bar says of a step: the epoch, its loss so far, and the validation loss of the one before."""
    per_epoch = config.train_steps_per_epoch
    steps = state.step % per_epoch or per_epoch
    epoch = (state.step - 1) // per_epoch + 1
    text = f"training: epoch {epoch} of {config.train_epochs}, loss {state.sums[0] / steps:.4g}"
    known = state.history and math.isfinite(state.history[-1]["val_loss"])
    return text + (f", validation {state.history[-1]['val_loss']:.4g}" if known else "")


@dataclass(frozen=True)
class _Times:
    """Seconds: of a step, of a validation, and of translating both for the machine."""

    step_s: float
    validation_s: float
    first_s: float


class _Run:
    """A way to learn, and where it stands."""

    def __init__(self, config: CareConfig, data: BatchSource, validation: PatchSource, state: State) -> None:
        self.config, self.data, self.validation, self.state = config, data, validation, state
        self.unpaired = isinstance(validation, Strangers)
        self._beside = "a target of others" if self.unpaired else "target"
        self._told = False
        self._alpha = tf.Variable(state.alpha, dtype=tf.float32, trainable=False)
        self.learner = self._learner()
        self.network, self.average = self.learner.network, self.learner.average
        self.plateau = None
        if config.train_schedule == "plateau" and config.train_reduce_lr is not None:
            self.plateau = Plateau.from_settings(config.train_reduce_lr)
            vars(self.plateau).update(state.plateau or {})
        self.best = BestSoFar(**state.best)
        if not state.step:
            state.sums = [0.0] * len(self.learner.figures)

    def _learner(self) -> Learner:
        config = self.config
        # Only those who want a critic build one.
        if config.method in UNPAIRED:
            from care_bridge.training.adversarial.cycle import Cycle

            return Cycle(config, self.data.batch_at(0, size=1, seed=config.seed)[0].shape[1:])
        if config.method == "cin-gan":
            from care_bridge.training.adversarial.cin import Cin

            return Cin(config)
        if config.method in GANS:
            from care_bridge.training.adversarial.paired import Paired

            return Paired(config)
        threshold = config.train_loss_bg_thresh
        foreground = _foreground(self.data, threshold, config.seed) if threshold else 1.0
        return Supervised(config, foreground=foreground, alpha=self._alpha)

    def step(self, batch: Batch) -> None:
        """One update of the weights."""
        source, target = batch
        config, number = self.config, self.state.step
        schedule = {"cosine": cosine_rate, "linear": linear_rate}.get(config.train_schedule)
        if schedule is not None:
            total = config.train_epochs * config.train_steps_per_epoch
            self.learner.set_rate(schedule(config.train_learning_rate, number, total))
        decay = average_decay(config.train_average, number)
        shown = self.learner.step(source, target, number=number, decay=decay)
        broken = [
            name
            for name, value in zip(self.learner.figures, shown, strict=True)
            if name not in ("mae", "mse") and not math.isfinite(value)
        ]
        if broken:
            raise InputError(self._diagnose(batch, broken[-1]))
        self.state.step += 1
        self.state.sums = [total + float(value) for total, value in zip(self.state.sums, shown, strict=True)]

    def batches(self, stop: int) -> Iterator[Batch]:
        """What the steps up to `stop` take."""
        return batches(
            self.data, self.config, start=self.state.step, stop=stop, per_step=self.learner.batches_per_step
        )

    def times(self, seconds: float = 0.0) -> _Times:
        """What a step and a validation take, from steps that are tried out; the network is as before afterwards.

        At least `TRIED_STEPS` steps, and `seconds` of them.
        """
        weights = self.network.get_weights()
        optimizer = [np.array(variable.numpy()) for variable in self._variables()]
        begun = time.monotonic()
        first_s = clock = 0.0
        tried = 0
        for number, (source, target) in enumerate(self.batches(self.state.step + MOST_TRIED)):
            self.learner.step(source, target, number=self.state.step + number, decay=1.0)
            now = time.monotonic()
            if number == 0:
                # The first one is translated for the machine, which is not what a step costs.
                first_s, clock = now - begun, now
            tried = number
            if tried >= TRIED_STEPS and now - clock >= seconds:
                break
        step_s = (time.monotonic() - clock) / tried
        self.restore(weights, optimizer)
        size = min(max(self.config.train_batch_size, 1), len(self.validation))
        source, target = self.validation.batch(np.arange(size))
        spent = []
        for _ in range(3):
            clock = time.monotonic()
            self.learner.evaluate(source, target)
            spent.append(time.monotonic() - clock)
        return _Times(step_s, min(spent[1:]) * len(self.validation) / size, first_s + spent[0])

    def seconds_left(self, steps: int) -> float:
        """How long so many steps and their validations will take."""
        times = self.times()
        return (
            times.step_s * steps + math.ceil(steps / self.config.train_steps_per_epoch) * times.validation_s
        )

    def end_epoch(self) -> tuple[bool, int]:
        """Validate, adapt the learning rate; was this epoch the best, and how long ago was the best?"""
        config, state = self.config, self.state
        epoch = state.step // config.train_steps_per_epoch
        learner = self.learner
        means = [total / config.train_steps_per_epoch for total in state.sums]
        record: dict[str, float] = {"epoch": epoch, **dict(zip(learner.figures, means, strict=True))}
        clock = time.monotonic()
        record |= {
            f"val_{name}": value for name, value in zip(learner.validated, self._validate(), strict=True)
        }
        rate = learner.rate
        record["learning_rate"] = float(f"{rate:.7g}")  # it is a float32
        record["seconds"] = round(state.seconds + time.monotonic() - clock, 3)
        if self.unpaired:
            record |= dict.fromkeys(("val_loss", "val_mae", "val_mse", "val_mae_own"), math.nan)
        elif not math.isfinite(record["val_loss"]):
            raise InputError(
                f"the validation loss became {record['val_loss']} in epoch {epoch}; start again with a "
                f"train_learning_rate below {rate:g}"
            )
        if self.plateau is not None:
            learner.set_rate(self.plateau.next_rate(rate, record))
            state.plateau = vars(self.plateau)
        if config.train_loss_bg_thresh:
            state.alpha = next_alpha(state.alpha, epoch=epoch - 1, decay=config.train_loss_bg_decay)
            self._alpha.assign(state.alpha)
        # Without pairs nothing says which epoch was the best, so the last one is kept.
        better = self.best.improved(record["val_loss"]) or self.unpaired
        state.best = dataclasses.asdict(self.best)
        state.history.append(record)
        state.sums, state.seconds = [0.0] * len(learner.figures), 0.0
        return better, 0 if self.unpaired else self.best.waited

    def look(self, folder: Path, record: dict[str, float]) -> None:
        """Draw samples of an epoch, and say where a side has collapsed."""
        from care_bridge.training.adversarial.looks import SHOWN, collapsed, critic_wins, draw_samples

        epoch, config = int(record["epoch"]), self.config
        source, target = self.validation.batch(np.arange(min(2 * SHOWN, len(self.validation))))
        with self.averaged():
            made = self.learner.restore(source)
        draw_samples(folder, epoch, {"source": source, "made of it": made, self._beside: target})
        how = collapsed(made, target)
        if how is not None:
            raise InputError(
                f"in epoch {epoch} the generator collapsed: {how}; begin anew with another --seed, a train_learning_rate "
                f"below {config.train_learning_rate:g} or a gan_adversarial below {config.gan_adversarial:g}"
            )
        if critic_wins(config.gan_loss, record["critic"]) and not self._told:
            self._told = True
            warnings.warn(
                f"in epoch {epoch} the critic wins (its loss is {record['critic']:.1g}): it tells made from real every time "
                "and nothing can be learnt from it; give it fewer gan_critic_n_first, or --set gan_loss=wgan-gp",
                stacklevel=4,
            )

    def begin(self, start: keras.Model | Sequence[NDArray[Any]] | None) -> None:
        """A fresh run, from random weights or from those of another model."""
        self.learner.begin(self.data)
        if start is not None:
            weights = start.get_weights() if isinstance(start, keras.Model) else start
            self.learner.start_from([np.asarray(weight) for weight in weights])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with the average of its weights, where one is kept; afterwards it is as before."""
        if not self.average:
            yield
            return
        own = [np.array(weight) for weight in self.network.weights]
        for weight, average in zip(self.network.weights, self.average, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self.network.weights, own, strict=True):
                weight.assign(value)

    def _validate(self) -> list[float]:
        with self.averaged():
            return self._errors()

    def _errors(self) -> list[float]:
        sums, n = np.zeros(len(self.learner.validated)), len(self.validation)
        size = max(self.config.train_batch_size, 1)
        for first in range(0, n, size):
            source, target = self.validation.batch(np.arange(first, min(first + size, n)))
            shown = self.learner.evaluate(source, target)
            sums += shown.astype(float) * len(source)
        return [float(value) for value in sums / n]

    def save(self, folder: Path) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            folder,
            self.state,
            weights=self.network.get_weights(),
            optimizer=[v.numpy() for v in self._variables()],
        )

    def restore(self, weights: list[NDArray[Any]], optimizer: list[NDArray[Any]]) -> None:
        """Take weights, the optimiser's variables and the average from a checkpoint."""
        self.network.set_weights(weights)
        for variable, value in zip(self._variables(), optimizer, strict=True):
            variable.assign(value)

    def _variables(self) -> list[Any]:
        return [*self.learner.variables(), *self.average]

    def save_weights(self, path: Path) -> None:
        """Write the weights, or their average where one is kept, as they are opened afterwards."""
        with self.averaged():
            save_weights(self.learner.deployed(), path)
            for name, network in self.learner.parts():
                config = self.config.replace(gan_defects=(name,))
                save_model(path.parent / DEFECTS / name, config, network, weights=path.name)

    def _diagnose(self, batch: Batch, figure: str) -> str:
        what = "the loss" if figure == "loss" else f"the {figure} loss"
        where = f"in step {self.state.step + 1} {what} became NaN or infinite"
        for name, array in zip(("source", "target"), batch, strict=True):
            if not np.isfinite(array).all():
                return f"{where}: a {name} patch holds NaN or infinity; mend or leave out its image"
        largest = float(np.abs(batch[0]).max()), float(np.abs(batch[1]).max())
        if max(largest) > 1e4:
            return (
                f"{where}: patches reach {max(largest):.3g}, where normalised ones stay near 0-1; an image "
                "with few bright pixels has equal percentiles: normalise it by others, or leave it out"
            )
        variables = self.network.trainable_variables
        broken = [variable.path for variable in variables if not np.isfinite(variable.numpy()).all()]
        layers = f" (first in {broken[0]})" if broken else ""
        return (
            f"{where}{layers}; the patches are sound, so use a lower train_learning_rate than "
            f"{self.learner.rate:g}"
        )


def _take_up(
    folder: Path, config: CareConfig, data: str, *, resume: bool, overwrite: bool
) -> tuple[State, tuple[list[NDArray[Any]], list[NDArray[Any]]] | None]:
    settings = config.to_json()
    if resume or overwrite:
        for place in (folder, folder / CHECKPOINT.parent):
            clear_leftovers(place)
    if resume:
        found = load_checkpoint(folder)
        if found is not None:
            state, weights, optimizer = found
            _check_same_run(folder, state, settings, data)
            # A run that stopped early is over, unless more epochs are asked for than before.
            state.finished = state.finished and state.settings["train_epochs"] == config.train_epochs
            state.settings = settings
            return state, (weights, optimizer)
    if not overwrite and (weights_in(folder) or (folder / CHECKPOINT).is_file()):
        way = (
            f"but no {CHECKPOINT} to go on from; start another folder from its weights (start)"
            if resume
            else "already; go on training it (resume)"
        )
        raise InputError(
            f"{str(folder)!r} holds a model {way}, train anew in it (overwrite), or choose another folder"
        )
    if overwrite and not resume:
        for stale in (*weights_in(folder), folder / CHECKPOINT):
            stale.unlink(missing_ok=True)
    return State(settings=settings, data=data), None


def _check_same_run(folder: Path, state: State, settings: dict[str, Any], data: str) -> None:
    # A setting that is younger than the checkpoint had its default.
    usual = {
        key: CareConfig.model_fields[key].default for key in settings[BLOCK] if key in CareConfig.model_fields
    }
    before = usual | state.settings | state.settings.get(BLOCK, {})
    now = settings | settings[BLOCK]
    problems = [
        f"{key} was {before.get(key)!r} and is {now[key]!r}"
        for key in sorted(now)
        if key not in (BLOCK, *_FOR_OTHERS, *_RUN_KEYS) and before.get(key) != now[key]
    ]
    if state.data != data:
        problems.append("the patches are others")
    if problems:
        raise InputError(
            f"{str(folder)!r} was trained with other settings ({'; '.join(problems)}); go on with the same, "
            "or start anew in another folder"
        )


def _foreground(data: BatchSource, threshold: float, seed: int) -> float:
    size = 64
    if isinstance(data, Passes):
        n = len(data.patches)
        parts = (data.patches.batch(np.arange(i, min(i + size, n)))[1] for i in range(0, n, size))
    else:
        parts = (data.batch_at(i, size=size, seed=seed)[1] for i in range(FOREGROUND_PATCHES // size))
    above = total = 0
    for target in parts:
        above, total = above + int(np.count_nonzero(target > threshold)), total + target.size
    return above / total


def _with_versions(config: CareConfig, fingerprint_of_data: str) -> CareConfig:
    versions = {
        "care_bridge": care_bridge.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    return config.replace(
        provenance={"fingerprint": fingerprint_of_data, **config.provenance, "versions": versions}
    )


def _write_record(folder: Path, config: CareConfig, state: State) -> None:
    write_history(folder, state.history)
    loss = config.method if config.method in GANS else config.train_loss
    draw_history(folder, state.history, loss=loss, title=str(config.provenance.get("notice", "")))
