"""One generator that gives clean images one of several defects, each learnt from images that have it (CIN-GAN)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.training.adversarial.content import Content, content_of, style
from care_bridge.training.adversarial.critic import Critic, adam, generator_loss
from care_bridge.training.adversarial.generator import Generator
from care_bridge.training.batches import BatchSource
from care_bridge.training.defects import task_of
from care_bridge.training.learner import FIGURES, keep_average, translated

CRITIC = 16
"""Second entry of the seeds, see `content.CONTENT`."""

_LITTLE = 0.01
"""Of the normalised range: less noise than that is none."""

_SIGMA = 3.0
_REACH = 9


class Cin:
    """Generator with conditional instance normalisation, and one critic that is told the defect; see `learner.Learner`.

    Razdaibiedina et al. 2019, with conditional normalisation everywhere and with noise in the last channel that goes in:
    without it "noise" would be a pattern that hangs on the image alone. What the generator learns by: the critic, the style
    of images with the defect, and that blurred images stay as they are.

    Parameters
    ----------
    config : CareConfig
    """

    figures: tuple[str, ...] = (*FIGURES, "adversarial", "style", "noise", "critic")
    validated: tuple[str, ...] = FIGURES

    def __init__(self, config: CareConfig) -> None:
        if not config.gan_defects:
            raise InputError("method 'cin-gan' needs the names of the defects (gan_defects)")
        self.config = config
        self.batches_per_step = config.gan_critic_steps
        self.generator = Generator(config, seed=config.seed)
        self.network = self.generator.network
        self.critic = Critic(config, config.n_channel_out + len(config.gan_defects), what=CRITIC)
        self.optimizer = adam(config, self.network.trainable_variables)
        self.content: Content = content_of(config)
        trained = self.network.weights if config.train_average else []
        self.average = [tf.Variable(np.asarray(weight), trainable=False) for weight in trained]
        bell = np.exp(-(np.arange(-_REACH, _REACH + 1) ** 2) / (2 * _SIGMA**2))
        blur = np.outer(bell, bell) / bell.sum() ** 2
        self._blur = tf.constant(np.repeat(blur[:, :, None, None], config.n_channel_out, 2), tf.float32)
        self._step, self._evaluate = translated(self._learn), translated(self._judge)

    def begin(self, data: BatchSource) -> None:
        self.content.learn(data)

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        raise InputError(
            "method 'cin-gan' begins from random weights: a single network knows one defect; leave out --start"
        )

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        self.generator.in_step(number)
        self.generator.passing.task.assign(
            task_of(number, len(self.config.gan_defects), seed=self.config.seed)
        )
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
            made = tf.cast(self.network(here, training=False), tf.float32)
            self.critic.learn(self._told(there), self._told(made), number * times + part)
        clean = source[..., : config.n_channel_out]
        with tf.GradientTape() as tape:
            made = tf.cast(self.network(source, training=True), tf.float32)
            critic = self.critic.learn(
                self._told(target), self._told(tf.stop_gradient(made)), number * times + times - 1
            )
            adversarial = generator_loss(config.gan_loss, self.critic.judge(self._told(made)))
            alike = style(self.content, made, target)
            mae = tf.reduce_mean(tf.abs(self._blurred(made - clean)))
            noise = self._noise(source, made, target)
            loss = (
                config.gan_adversarial * adversarial
                + config.gan_style * alike
                + config.gan_noise * noise
                + config.gan_l1 * mae
            )
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        if self.average:
            keep_average(self.average, self.network.weights, decay)
        mse = tf.reduce_mean(tf.square(made - clean))
        return tf.stack([loss, mae, mse, adversarial, alike, noise, critic])

    def _noise(self, source: Any, made: Any, target: Any) -> Any:
        """How far what other noise changes is from what the defect has on the finest scale, as a share of that.

        Critic and style would be content with a pattern of the image in its place.
        """
        count = self.config.n_channel_out
        other = tf.concat([source[..., :count], tf.roll(source[..., count:], 1, 0)], -1)
        again = tf.cast(self.network(other, training=False), tf.float32)
        found = tf.reduce_mean(tf.abs(_finest(made - again))) / math.sqrt(2)
        wanted = tf.reduce_mean(tf.abs(_finest(target)))
        return tf.abs(found - wanted) / (wanted + _LITTLE)

    def _told(self, image: Any) -> Any:
        """An image with a channel for each defect, 1 for the one that it has."""
        which = tf.one_hot(self.generator.passing.task, len(self.config.gan_defects))
        return tf.concat([image, tf.zeros_like(image[..., :1]) + which], -1)

    def _blurred(self, image: Any) -> Any:
        return tf.nn.depthwise_conv2d(image, self._blur, [1, 1, 1, 1], "SAME")

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        self.generator.passing.mix.assign(1.0)
        return np.asarray(self._evaluate(tf.constant(source), tf.constant(target)).numpy(), np.float32)

    def _judge(self, source: Any, target: Any) -> Any:
        made = tf.cast(self.network(source, training=False), tf.float32)
        difference = made - source[..., : self.config.n_channel_out]
        mae = tf.reduce_mean(tf.abs(self._blurred(difference)))
        return tf.stack([mae, mae, tf.reduce_mean(tf.square(difference))])

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
        return [*self.optimizer.variables, *self.critic.variables(), *self.content.variables()]

    def deployed(self) -> keras.Model:
        return self.generator.deployed()

    def parts(self) -> Iterator[tuple[str, keras.Model]]:
        for task, name in enumerate(self.config.gan_defects):
            yield name, self.generator.deployed(task)


def _finest(image: Any) -> Any:
    """Neighbours' differences along both axes: white noise as strong as it is, of smooth images nearly nothing."""
    rows = image[:, 1:] - image[:, :-1]
    return (rows[:, :, 1:] - rows[:, :, :-1]) / 2
