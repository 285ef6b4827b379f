"""When the learning rate falls and when training stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from care_bridge.errors import InputError


@dataclass
class Plateau:
    """Keras' ReduceLROnPlateau, with a state that can be written down.

    Attributes
    ----------
    factor, patience, min_delta, cooldown, min_lr, monitor
        As Keras'.
    best, waited, cooling
        State: best value so far, epochs without a better one, epochs left to cool down.
    """

    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0
    monitor: str = "val_loss"
    best: float = math.inf
    waited: int = 0
    cooling: int = 0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Plateau:
        """From `train_reduce_lr`; `epsilon` is what old versions called `min_delta`."""
        values = dict(settings)
        if "epsilon" in values:
            values["min_delta"] = values.pop("epsilon")
        for key in ("verbose", "mode"):  # how it is shown; losses are always to fall
            values.pop(key, None)
        known = ("factor", "patience", "min_delta", "cooldown", "min_lr", "monitor")
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"train_reduce_lr holds {', '.join(unknown)}; it takes {', '.join(known)}")
        if not 0 < values.get("factor", 0.1) < 1:
            raise InputError(
                f"train_reduce_lr has factor {values['factor']}; use one between 0 and 1, e.g. 0.5"
            )
        return cls(**values)

    def next_rate(self, rate: float, logs: Mapping[str, float]) -> float:
        """Learning rate of the next epoch, from this epoch's figures."""
        if self.monitor not in logs:
            raise InputError(f"train_reduce_lr monitors {self.monitor!r}; there are {', '.join(logs)}")
        if self.cooling:
            self.cooling -= 1
            self.waited = 0
        if logs[self.monitor] < self.best - self.min_delta:
            self.best, self.waited = logs[self.monitor], 0
        elif not self.cooling:
            self.waited += 1
            if self.waited >= self.patience and rate > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.cooling, self.waited = self.cooldown, 0
        return rate


def cosine_rate(start: float, step: int, total: int) -> float:
    """Learning rate of a step (from 0): half a cosine from `start` to zero after `total` steps. Hangs on nothing else."""
    return start * 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))


def linear_rate(start: float, step: int, total: int) -> float:
    """Learning rate of a step (from 0): `start` for half the steps, then in a line to zero after `total` of them."""
    return start * min(1.0, 2 * max(0.0, 1 - step / total))


def average_decay(decay: float, step: int) -> float:
    """Decay of the weights' average in a step (from 0): grows to `decay`, so that the first, random ones are forgotten.

    At step t it averages over about the last t / 9, as TensorFlow's ExponentialMovingAverage with ``num_updates``.
    """
    return min(decay, (1 + step) / (10 + step))


@dataclass
class BestSoFar:
    """The lowest validation loss and how long ago it was."""

    value: float = math.inf
    waited: int = 0

    def improved(self, value: float) -> bool:
        """Whether `value` is the lowest yet; it is remembered."""
        if value < self.value:
            self.value, self.waited = value, 0
            return True
        self.waited += 1
        return False
