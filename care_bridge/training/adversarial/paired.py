"""A generator that learns from pairs, with a critic that sees the source beside what is said to belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.adversarial.content import Content, content_of
from care_bridge.training.adversarial.critic import (
    BETAS,
    build_critic,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from care_bridge.training.adversarial.generator import STATISTICS_DECAY, Generator, passed
from care_bridge.training.batches import BatchSource
from care_bridge.training.learner import FIGURES, keep_average
from care_bridge.training.schedule import average_decay

GENERATOR, CRITIC = 10, 11
"""Second entries of the seeds, see `content.CONTENT`."""


class Paired:
    """Generator, critic and what they learn by; see `learner.Learner`.

    Parameters
    ----------
    config : CareConfig
    """

    figures: tuple[str, ...] = (*FIGURES, "adversarial", "content", "critic")
    # The error with each patch's own statistics stands beside that of the network as it is opened.
    validated: tuple[str, ...] = (*FIGURES, "mae_own")

    def __init__(self, config: CareConfig) -> None:
        self.config = config
        self.batches_per_step = config.gan_critic_steps
        self.generator = Generator(config, seed=config.seed)
        self.network = self.generator.network
        self.critic = build_critic(
            config, config.n_channel_in + config.n_channel_out, seed=_drawn(config.seed, CRITIC)
        )
        first, second = BETAS[config.gan_loss]
        self.optimizers = [
            keras.optimizers.Adam(config.train_learning_rate, beta_1=first, beta_2=second) for _ in range(2)
        ]
        for optimizer, model in zip(self.optimizers, (self.network, self.critic), strict=True):
            optimizer.build(model.trainable_variables)
        self.content: Content | None = content_of(config) if config.gan_content else None
        trained = self.network.weights if config.train_average else []
        self.average = [tf.Variable(np.asarray(weight), trainable=False) for weight in trained]
        # 1 where the weights came from a network without layers that normalise: they are none from the start.
        self._passed = tf.Variable(0.0, trainable=False)
        self._step = tf.function(self._learn, reduce_retracing=True, autograph=False)
        self._evaluate = tf.function(self._judge, reduce_retracing=True, autograph=False)

    def begin(self, data: BatchSource) -> None:
        if self.content is not None:
            self.content.learn(data)

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        self.generator.start_from(list(weights))
        self._passed.assign(1.0)
        for average, weight in zip(self.average, self.network.weights, strict=bool(self.average)):
            average.assign(weight)

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        config, passing = self.config, self.generator.passing
        total = config.train_epochs * config.train_steps_per_epoch
        mix = max(passed(number, total, freeze=config.gan_freeze), float(self._passed.numpy()))
        passing.mix.assign(mix)
        # Once nothing is left of each patch's own, what the training patches have is a constant.
        passing.share.assign(0.0 if mix == 1 else 1 - average_decay(STATISTICS_DECAY, number))
        shown = self._step(
            tf.constant(source),
            tf.constant(target),
            tf.constant(number, tf.int32),
            tf.constant(decay, tf.float32),
        )
        return np.asarray(shown.numpy(), np.float32)

    def _learn(self, source: Any, target: Any, number: Any, decay: Any) -> Any:
        config, times = self.config, self.config.gan_critic_steps
        parts = list(zip(tf.split(source, times), tf.split(target, times), strict=True))
        for part in range(times - 1):
            here, there = parts[part]
            self._teach(here, there, self.network(here, training=False), number, part)
        source, target = parts[-1]
        with tf.GradientTape() as tape:
            made = tf.cast(self.network(source, training=True), tf.float32)
            critic = self._teach(source, target, tf.stop_gradient(made), number, times - 1)
            judged = self.critic(tf.concat([source, made], -1), training=True)
            adversarial = generator_loss(config.gan_loss, judged)
            content = tf.zeros(()) if self.content is None else self.content.distance(made, target)
            mae = tf.reduce_mean(tf.abs(made - target))
            loss = config.gan_adversarial * adversarial + config.gan_content * content + config.gan_l1 * mae
        variables = self.network.trainable_variables
        self.optimizers[0].apply(tape.gradient(loss, variables), variables)
        if self.average:
            keep_average(self.average, self.network.weights, decay)
        mse = tf.reduce_mean(tf.square(made - target))
        return tf.stack([loss, mae, mse, adversarial, content, critic])

    def _teach(self, source: Any, target: Any, made: Any, number: Any, part: int) -> Any:
        """One step of the critic; what it lost."""
        config, critic = self.config, self.critic
        real, fake = tf.concat([source, target], -1), tf.concat([source, tf.cast(made, tf.float32)], -1)
        with tf.GradientTape() as tape:
            loss = critic_loss(config.gan_loss, critic(real, training=True), critic(fake, training=True))
            if config.gan_loss == "wgan-gp":
                seed = tf.stack([tf.constant(config.seed % 2**31), number * config.gan_critic_steps + part])
                loss += gradient_penalty(critic, real, fake, seed)
        variables = critic.trainable_variables
        self.optimizers[1].apply(tape.gradient(loss, variables), variables)
        return loss

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        mix = self.generator.passing.mix
        errors = []
        for how in (1.0, 0.0):
            mix.assign(how)
            errors.append(self._evaluate(tf.constant(source), tf.constant(target)).numpy())
        (mae, mse), (own, _) = errors
        return np.asarray([mae, mae, mse, own], np.float32)

    def _judge(self, source: Any, target: Any) -> Any:
        difference = tf.cast(self.network(source, training=False), tf.float32) - target
        return tf.stack([tf.reduce_mean(tf.abs(difference)), tf.reduce_mean(tf.square(difference))])

    @property
    def rate(self) -> float:
        return float(np.asarray(self.optimizers[0].learning_rate))

    def set_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            optimizer.learning_rate.assign(rate)

    def variables(self) -> list[Any]:
        learnt = [] if self.content is None else self.content.variables()
        optimizers = [variable for optimizer in self.optimizers for variable in optimizer.variables]
        return [*optimizers, *self.critic.weights, *learnt, self._passed]

    def deployed(self) -> keras.Model:
        return self.generator.deployed()


def _drawn(seed: int, what: int) -> int:
    return int(np.random.default_rng([seed, what]).integers(2**31))
