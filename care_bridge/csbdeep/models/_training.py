"""How the models of csbdeep's names train: data in, a history out, and what stands for Keras' callbacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.csbdeep.io import Column
from care_bridge.csbdeep.models.config import Config
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder
from care_bridge.progress import Progress, bar, silent

if TYPE_CHECKING:
    from care_bridge.training.batches import PatchSource

Array = NDArray[Any]
Augmenter = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class History:
    """How a training went, in the shape of Keras' own.

    Attributes
    ----------
    epoch : list of int
        From 0.
    history : dict of str to list of float
        loss, mae, mse, the same with `val_`, learning_rate, seconds.
    """

    epoch: list[int]
    history: dict[str, list[float]]

    @classmethod
    def of(cls, records: list[dict[str, float]]) -> History:
        """From a record for each epoch, as `training.fit.train` gives them."""
        keys = records[0] if records else {}
        return cls(list(range(len(records))), {key: [one[key] for one in records] for key in keys})


class Callbacks(list[Any]):
    """What csbdeep's models keep Keras' callbacks in: early stopping is taken over, others are refused by name.

    Parameters
    ----------
    config : Config
        Gets `train_early_stopping`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def append(self, callback: Any) -> None:
        """Take over an ``EarlyStopping(patience=...)``."""
        self.insert(len(self), callback)

    def extend(self, callbacks: Iterable[Any]) -> None:
        """`append` each."""
        for callback in callbacks:
            self.append(callback)

    def __iadd__(self, callbacks: Iterable[Any]) -> Callbacks:  # type: ignore[misc]
        self.extend(callbacks)
        return self

    def insert(self, position: SupportsIndex, callback: Any) -> None:
        """Take over an ``EarlyStopping(patience=...)``.

        Raises
        ------
        InputError
            For any other callback, naming the settings that there are instead.
        """
        name = type(callback).__name__
        if name != "EarlyStopping":
            raise InputError(
                f"{name}: training here runs without Keras' fit and its callbacks; the settings "
                "train_early_stopping, train_reduce_lr and train_learning_rate do what most are for, the best "
                "weights are always kept, and train(progress=...) tells of every step"
            )
        plain = (callback.monitor, callback.min_delta, callback.baseline) == ("val_loss", 0, None)
        if not plain:
            raise InputError(
                "EarlyStopping here looks at val_loss, without min_delta and baseline; give its patience only"
            )
        self._config.update_parameters(train_early_stopping=max(1, int(callback.patience)))
        super().insert(position, callback)


def learning_rate_of(optimizer: Any) -> float:
    """The rate of a Keras Adam as csbdeep takes it, which is all that may differ from its defaults here.

    Raises
    ------
    InputError
        For other optimisers, a schedule instead of a rate, or other changed settings.
    """
    name = type(optimizer).__name__
    way = "give Config(train_learning_rate=..., train_reduce_lr=...) instead"
    if name != "Adam":
        raise InputError(f"optimizer={name}: networks train with Adam here; {way}")
    given = optimizer.get_config()
    changed = [key for key, value in type(optimizer)().get_config().items() if given.get(key) != value]
    others = sorted(set(changed) - {"learning_rate", "name"})
    if others or not isinstance(given["learning_rate"], float | int):
        what = ", ".join(others) or "a schedule for its rate"
        raise InputError(f"optimizer=Adam with {what}: only its learning rate is taken over; {way}")
    return float(f"{given['learning_rate']:.7g}")  # Keras keeps it as a float32


class Pairs:
    """Patches from anything that rows can be taken of, as training takes them."""

    def __init__(self, x: Any, y: Any, projected: int | None, augmenter: Augmenter | None = None) -> None:
        self.x, self.y, self.projected, self.augmenter = x, y, projected, augmenter

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        source, target = np.asarray(self.x[indices], np.float32), np.asarray(self.y[indices], np.float32)
        if self.projected is not None:
            target = target[(slice(None),) * self.projected + (0,)]
        if self.augmenter is not None:
            changed = [self.augmenter(x, y) for x, y in zip(source, target, strict=True)]
            source = np.stack([x for x, _ in changed]).astype(np.float32)
            target = np.stack([y for _, y in changed]).astype(np.float32)
        return source, target


def patch_source(
    x: Any, y: Any, settings: CareConfig, augmenter: Augmenter | None = None
) -> PatchSource | tuple[Array, Array]:
    """What `training.fit.train` takes; plain arrays stay arrays, so that they are checked whole."""
    if augmenter is None and not isinstance(x, Column):
        return x, y
    if len(x) != len(y):
        raise InputError(f"{len(x)} source and {len(y)} target patches; give one target a source")
    projected = None
    if settings.proj_axis and y.ndim == x.ndim:
        projected = 1 + settings.axes.index(settings.proj_axis)
    return Pairs(x, y, projected, augmenter)


@contextmanager
def model_folder(logdir: Path | None) -> Iterator[Path]:
    """A model's own folder, or one that is gone afterwards."""
    if logdir is not None:
        yield logdir
        return
    with scratch_folder() as folder:
        yield Path(folder) / "model"


@contextmanager
def training_bar(progress: Progress | None) -> Iterator[Progress]:
    """What listens to a training: as given, or a bar in a terminal or a notebook."""
    if progress is not None or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield progress or silent
        return
    with bar() as show:
        yield show
