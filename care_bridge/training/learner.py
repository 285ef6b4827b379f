"""What a training run needs of a way to learn: a step, an evaluation, and all that must be remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.training.batches import BatchSource

FIGURES = ("loss", "mae", "mse")
"""What every way to learn tells of a step and of the patches that validate, in this order; more may follow."""


class Learner(Protocol):
    """A network that is trained, with everything that trains it.

    Attributes
    ----------
    network : keras.Model
        As it is trained; all its weights are what is averaged.
    average : list
        Variables of the average of its weights; empty where none is kept.
    figures, validated : tuple of str
        Names of what `step` and `evaluate` give; `FIGURES` first.
    batches_per_step : int
        How many batches a step takes.
    """

    network: keras.Model
    average: list[Any]
    figures: tuple[str, ...]
    validated: tuple[str, ...]
    batches_per_step: int

    def begin(self, data: BatchSource) -> None:
        """Whatever is to be learnt before the first step of a fresh run."""
        ...

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        """Take the weights of `deployed` of another model; their average begins with them."""
        ...

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        """One update of the weights in step `number` (from 0), and of their average; its figures."""
        ...

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        """Figures of patches that are not trained on."""
        ...

    def restore(self, source: Any) -> NDArray[np.float32]:
        """What the network as it is opened makes of patches."""
        ...

    @property
    def rate(self) -> float:
        """The learning rate."""
        ...

    def set_rate(self, rate: float) -> None:
        """Change the learning rate."""
        ...

    def variables(self) -> list[Any]:
        """All else that a resumed run needs: optimisers, and networks that are not kept afterwards."""
        ...

    def deployed(self) -> keras.Model:
        """The network as `unet.build` of its settings gives it, with the weights as they are now."""
        ...

    def parts(self) -> Iterator[tuple[str, keras.Model]]:
        """Names of what else comes out, and networks of the same settings; each is used before the next is asked for."""
        ...


def translated(function: Callable[..., Any]) -> Any:
    """The same, translated for the machine once for all sizes; no Python control flow is looked for, which costs seconds."""
    # Of several runs TensorFlow takes functions of equal code for one that is translated again and again, and warns.
    return tf.function(partial(function), reduce_retracing=True, autograph=False)


def keep_average(average: Sequence[Any], trained: Sequence[Any], decay: Any) -> None:
    """Bring an exponential average nearer to weights."""
    for mean, weight in zip(average, trained, strict=True):
        mean.assign_sub((mean - keras.ops.cast(weight, mean.dtype)) * (1 - decay))
