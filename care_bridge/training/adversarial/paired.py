"""A generator that learns from pairs: a conditional GAN (Isola et al. 2017), or DeblurGAN (Kupyn et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.adversarial.content import Content, content_of
from care_bridge.training.adversarial.critic import Critic, adam, generator_loss
from care_bridge.training.adversarial.generator import Generator
from care_bridge.training.batches import BatchSource
from care_bridge.training.learner import FIGURES, keep_average, translated

CRITIC = 11
"""Second entry of the seeds, see `content.CONTENT`."""


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
        beside = config.n_channel_in if config.gan_critic_conditional else 0
        self.critic = Critic(config, beside + config.n_channel_out, what=CRITIC)
        self.optimizer = adam(config, self.network.trainable_variables)
        self.content: Content | None = content_of(config) if config.gan_content else None
        trained = self.network.weights if config.train_average else []
        self.average = [tf.Variable(np.asarray(weight), trainable=False) for weight in trained]
        self._step, self._evaluate = translated(self._learn), translated(self._judge)

    def begin(self, data: BatchSource) -> None:
        if self.content is not None:
            self.content.learn(data)

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        self.generator.start_from(list(weights))
        for average, weight in zip(self.average, self.network.weights, strict=bool(self.average)):
            average.assign(weight)

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        self.generator.in_step(number)
        shown = self._step(
            tf.constant(source),
            tf.constant(target),
            tf.constant(number, tf.int32),
            tf.constant(decay, tf.float32),
        )
        return np.asarray(shown.numpy(), np.float32)

    def _learn(self, source: Any, target: Any, number: Any, decay: Any) -> Any:
        config, times = self.config, self.config.gan_critic_steps
        *earlier, (source, target) = zip(tf.split(source, times), tf.split(target, times), strict=True)
        for part, (here, there) in enumerate(earlier):
            self._teach(here, there, self.network(here, training=False), number * times + part)
        with tf.GradientTape() as tape:
            made = tf.cast(self.network(source, training=True), tf.float32)
            critic = self._teach(source, target, tf.stop_gradient(made), number * times + times - 1)
            adversarial = generator_loss(config.gan_loss, self.critic.judge(self._shown(source, made)))
            content = tf.zeros(()) if self.content is None else self.content.distance(made, target)
            mae = tf.reduce_mean(tf.abs(made - target))
            loss = config.gan_adversarial * adversarial + config.gan_content * content + config.gan_l1 * mae
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        if self.average:
            keep_average(self.average, self.network.weights, decay)
        mse = tf.reduce_mean(tf.square(made - target))
        return tf.stack([loss, mae, mse, adversarial, content, critic])

    def _teach(self, source: Any, target: Any, made: Any, number: Any) -> Any:
        real, fake = self._shown(source, target), self._shown(source, tf.cast(made, tf.float32))
        return self.critic.learn(real, fake, number)

    def _shown(self, source: Any, image: Any) -> Any:
        """What the critic sees."""
        return tf.concat([source, image], -1) if self.config.gan_critic_conditional else image

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        mix = self.generator.passing.mix
        errors = []
        for how in (1.0, 0.0) if self.generator.norms else (1.0,):
            mix.assign(how)
            errors.append(self._evaluate(tf.constant(source), tf.constant(target)).numpy())
        (mae, mse), (own, _) = errors[0], errors[-1]
        return np.asarray([mae, mae, mse, own], np.float32)

    def _judge(self, source: Any, target: Any) -> Any:
        difference = tf.cast(self.network(source, training=False), tf.float32) - target
        return tf.stack([tf.reduce_mean(tf.abs(difference)), tf.reduce_mean(tf.square(difference))])

    def restore(self, source: Any) -> NDArray[np.float32]:
        self.generator.passing.mix.assign(1.0)
        return np.asarray(self.network(source, training=False), np.float32)

    @property
    def rate(self) -> float:
        return float(np.asarray(self.optimizer.learning_rate))

    def set_rate(self, rate: float) -> None:
        for optimizer in (self.optimizer, self.critic.optimizer):
            optimizer.learning_rate.assign(rate)

    def variables(self) -> list[Any]:
        learnt = [] if self.content is None else self.content.variables()
        return [*self.optimizer.variables, *self.critic.variables(), *learnt, self.generator.begun]

    def parts(self) -> Iterator[tuple[str, keras.Model]]:
        return iter(())

    def deployed(self) -> keras.Model:
        return self.generator.deployed()
