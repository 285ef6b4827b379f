"""Two generators that learn from unpaired images: there and back again gives the image, and objects stay where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.config import CareConfig
from care_bridge.training.adversarial.content import Content, content_of
from care_bridge.training.adversarial.critic import Critic, adam, drawn, generator_loss
from care_bridge.training.adversarial.generator import Generator
from care_bridge.training.adversarial.pool import Pool
from care_bridge.training.batches import BatchSource
from care_bridge.training.learner import FIGURES, keep_average, translated
from care_bridge.training.unpaired import LOOKED_AT, Unpaired, otsu_thresholds

BACK, OF_TARGETS, OF_SOURCES = range(12, 15)
"""Second entries of the seeds, see `content.CONTENT`."""

_BELL = np.exp(-(np.arange(-3, 4) ** 2) / 2)
BLUR = np.outer(_BELL, _BELL) / _BELL.sum() ** 2
"""Of one pixel (sigma), before an image is held against a threshold: with noise, a steep slope would be noise as well."""


class Cycle:
    """Generators there and back, a critic for each domain, and what they learn by; see `learner.Learner`.

    CycleGAN (Zhu et al. 2017); with `gan_saliency` c2GAN (Li et al. 2021), whose objects keep their place: what is
    above a threshold of its domain before a mapping is above that of the other domain after it. The weight of that falls
    by e each epoch, so that it chooses the branch and the cycle keeps it.

    Parameters
    ----------
    config : CareConfig
    shape : sequence of int
        Of a patch, (y, x, channel).
    """

    figures: tuple[str, ...] = (*FIGURES, "adversarial", "identity", "content", "saliency", "critic")
    validated: tuple[str, ...] = (*FIGURES, "mae_own", "cycle")

    def __init__(self, config: CareConfig, shape: Sequence[int]) -> None:
        self.config = config
        self.batches_per_step = config.gan_critic_steps
        self.generator = Generator(config, seed=config.seed)
        self.back = Generator(config, seed=drawn(config.seed, BACK))
        self.network = self.generator.network
        channels = config.n_channel_out
        # Of the domain of targets, of that of sources.
        self.critics = [
            Critic(config, channels, what=what, name=name)
            for what, name in ((OF_TARGETS, "of_targets"), (OF_SOURCES, "of_sources"))
        ]
        self.pools = [Pool(config.gan_pool, shape, seed=config.seed, what=number) for number in range(2)]
        self._trained = [*self.network.trainable_variables, *self.back.network.trainable_variables]
        self.optimizer = adam(config, self._trained)
        self.content: Content | None = content_of(config) if config.gan_content else None
        self.thresholds = tf.Variable(config.gan_thresholds or (math.nan, math.nan), dtype=tf.float32)
        averaged = self.network.weights if config.train_average else []
        self.average = [tf.Variable(np.asarray(weight), trainable=False) for weight in averaged]
        self._step, self._evaluate = translated(self._learn), translated(self._judge)

    def begin(self, data: BatchSource) -> None:
        if self.content is not None:
            self.content.learn(data)
        if self.config.gan_saliency and self.config.gan_thresholds is None:
            assert isinstance(data, Unpaired)
            self.thresholds.assign(otsu_thresholds(data, size=LOOKED_AT, seed=self.config.seed))

    def start_from(self, weights: Sequence[NDArray[Any]]) -> None:
        self.generator.start_from(list(weights))
        for average, weight in zip(self.average, self.network.weights, strict=bool(self.average)):
            average.assign(weight)

    def step(self, source: Any, target: Any, *, number: int, decay: float) -> NDArray[np.float32]:
        config, size = self.config, len(source) // self.batches_per_step
        for generator in (self.generator, self.back):
            generator.in_step(number)
        strength = config.gan_saliency * math.exp(-number / config.train_steps_per_epoch)
        plans = np.stack([pool.plan(number, size) for pool in self.pools])
        shown = self._step(
            tf.constant(source),
            tf.constant(target),
            tf.constant(number, tf.int32),
            tf.constant(decay, tf.float32),
            tf.constant(strength, tf.float32),
            tf.constant(plans),
        )
        return np.asarray(shown.numpy(), np.float32)

    def _learn(self, source: Any, target: Any, number: Any, decay: Any, strength: Any, plans: Any) -> Any:
        config, times = self.config, self.config.gan_critic_steps
        there, back = self.network, self.back.network
        *earlier, (source, target) = zip(tf.split(source, times), tf.split(target, times), strict=True)
        for part, (here, real) in enumerate(earlier):
            made = (_float(there(here, training=False)), _float(back(real, training=False)))
            self._teach((real, here), made, number * times + part)
        with tf.GradientTape() as tape:
            made = _float(there(source, training=True))
            unmade = _float(back(target, training=True))
            again = _float(back(made, training=False)), _float(there(unmade, training=False))
            adversarial = sum(
                generator_loss(config.gan_loss, critic.judge(image))
                for critic, image in zip(self.critics, (made, unmade), strict=True)
            )
            mae = _apart(again[0], source)
            cycle = mae + _apart(again[1], target)
            identity = content = saliency = tf.zeros(())
            if config.gan_identity:
                identity = _apart(_float(there(target, training=False)), target)
                identity += _apart(_float(back(source, training=False)), source)
            if self.content is not None:
                content = self.content.distance(made, source) + self.content.distance(unmade, target)
            if config.gan_saliency:
                low, high = self.thresholds[0], self.thresholds[1]
                saliency = _apart(self._salient(source, low), self._salient(made, high))
                saliency += _apart(self._salient(target, high), self._salient(unmade, low))
            loss = (
                config.gan_adversarial * adversarial
                + config.gan_cycle * cycle
                + config.gan_identity * identity
                + config.gan_content * content
                + strength * saliency
            )
        self.optimizer.apply(tape.gradient(loss, self._trained), self._trained)
        if self.average:
            keep_average(self.average, self.network.weights, decay)
        made, unmade = (
            pool.exchange(image, plan)
            for pool, image, plan in zip(self.pools, (made, unmade), tf.unstack(plans), strict=True)
        )
        critic = self._teach((target, source), (made, unmade), number * times + times - 1)
        mse = tf.reduce_mean(tf.square(again[0] - source))
        return tf.stack([loss, mae, mse, adversarial, identity, content, saliency, critic])

    def _teach(self, real: Sequence[Any], made: Sequence[Any], number: Any) -> Any:
        return sum(
            critic.learn(one, other, number)
            for critic, one, other in zip(self.critics, real, made, strict=True)
        )

    def _salient(self, image: Any, threshold: Any) -> Any:
        """Near 1 where objects are, near 0 where background is."""
        grey = tf.reduce_mean(image, -1, keepdims=True)
        blurred = tf.nn.conv2d(grey, tf.constant(BLUR[:, :, None, None], tf.float32), 1, "SAME")
        return tf.sigmoid(self.config.gan_slope * (blurred - threshold))

    def evaluate(self, source: Any, target: Any) -> NDArray[np.float32]:
        errors = []
        for how in (1.0, 0.0) if self.generator.norms else (1.0,):
            for generator in (self.generator, self.back):
                generator.passing.mix.assign(how)
            errors.append(self._evaluate(tf.constant(source), tf.constant(target)).numpy())
        (mae, mse, cycle), (own, _, _) = errors[0], errors[-1]
        return np.asarray([mae, mae, mse, own, cycle], np.float32)

    def _judge(self, source: Any, target: Any) -> Any:
        made = _float(self.network(source, training=False))
        cycle = _apart(_float(self.back.network(made, training=False)), source)
        return tf.stack([_apart(made, target), tf.reduce_mean(tf.square(made - target)), cycle])

    def restore(self, source: Any) -> NDArray[np.float32]:
        self.generator.passing.mix.assign(1.0)
        return np.asarray(self.network(source, training=False), np.float32)

    @property
    def rate(self) -> float:
        return float(np.asarray(self.optimizer.learning_rate))

    def set_rate(self, rate: float) -> None:
        for optimizer in (self.optimizer, *(critic.optimizer for critic in self.critics)):
            optimizer.learning_rate.assign(rate)

    def variables(self) -> list[Any]:
        learnt = [] if self.content is None else self.content.variables()
        critics = [variable for critic in self.critics for variable in critic.variables()]
        pools = [pool.images for pool in self.pools]
        own = [self.thresholds, self.generator.begun]
        return [*self.optimizer.variables, *self.back.network.weights, *critics, *pools, *learnt, *own]

    def parts(self) -> Iterator[tuple[str, keras.Model]]:
        return iter(())

    def deployed(self) -> keras.Model:
        return self.generator.deployed()


def _float(tensor: Any) -> Any:
    return tf.cast(tensor, tf.float32)


def _apart(one: Any, other: Any) -> Any:
    return tf.reduce_mean(tf.abs(one - other))
