"""Learning from pairs, and from noisy images with blind spots: one network, one loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.batches import BatchSource
from care_bridge.training.learner import FIGURES, keep_average, translated
from care_bridge.training.losses import LOSSES, Loss, background_weighted, mae, masked, mse
from care_bridge.training.unet import build


class Supervised:
    """A network that is to give the target; see `learner.Learner`.

    Parameters
    ----------
    config : CareConfig
    foreground : float
        Share of target pixels above `train_loss_bg_thresh`.
    alpha : tf.Variable
        Strength of the background weighting.
    """

    batches_per_step = 1
    figures: tuple[str, ...] = FIGURES
    validated: tuple[str, ...] = FIGURES

    def __init__(self, config: CareConfig, *, foreground: float, alpha: Any) -> None:
        # Patches are on the network's own scale already.
        self.network = build(config, precision=config.train_precision, scaled=False)
        self.optimizer = keras.optimizers.Adam(learning_rate=config.train_learning_rate)
        self.optimizer.build(self.network.trainable_variables)
        # What batch normalisation has seen is averaged as well: it belongs to these weights.
        trained = self.network.weights if config.train_average else []
        self.average = [tf.Variable(np.asarray(weight), trainable=False) for weight in trained]
        loss = LOSSES[config.train_loss]
        if config.train_loss_bg_thresh:
            loss = background_weighted(
                loss, threshold=config.train_loss_bg_thresh, foreground=foreground, alpha=alpha
            )
        shown_errors: list[Loss] = [mae, mse]
        if config.method == "n2v":
            loss, shown_errors = masked(loss), [masked(error) for error in shown_errors]

        def figures(prediction: Any, target: Any) -> tuple[Any, Any]:
            value = tf.reduce_mean(loss(target, prediction))
            errors = [tf.reduce_mean(error(target, prediction)) for error in shown_errors]
            return value, tf.stack([value, *errors])

        def step(source: Any, target: Any, decay: Any) -> Any:
            with tf.GradientTape() as tape:
                value, shown = figures(self.network(source, training=True), target)
            gradients = tape.gradient(value, self.network.trainable_variables)
            self.optimizer.apply(gradients, self.network.trainable_variables)
            keep_average(self.average, trained, decay)
            return shown

        def evaluate(source: Any, target: Any) -> Any:
            return figures(self.network(source, training=False), target)[1]

        self._step, self._evaluate = translated(step), translated(evaluate)

    def begin(self, data: BatchSource) -> None:
        """Nothing comes before the first step."""

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        self.network.set_weights(weights)
        if self.average:
            for average, weight in zip(self.average, self.network.weights, strict=True):
                average.assign(weight)

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        shown = self._step(tf.constant(source), tf.constant(target), tf.constant(decay, tf.float32))
        return np.asarray(shown.numpy(), np.float32)

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        return np.asarray(self._evaluate(tf.constant(source), tf.constant(target)).numpy(), np.float32)

    def restore(self, source: Any) -> NDArray[np.float32]:
        return np.asarray(self.network(source, training=False), np.float32)

    @property
    def rate(self) -> float:
        return float(np.asarray(self.optimizer.learning_rate))

    def set_rate(self, rate: float) -> None:
        self.optimizer.learning_rate.assign(rate)

    def variables(self) -> list[Any]:
        return list(self.optimizer.variables)

    def parts(self) -> Iterator[tuple[str, keras.Model]]:
        return iter(())

    def deployed(self) -> keras.Model:
        return self.network
