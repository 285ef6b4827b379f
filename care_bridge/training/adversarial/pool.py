"""Images that a generator made before: a critic that sees them too does not forget what it learnt of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

POOL = 15
"""Second entry of the seeds, see `content.CONTENT`."""


class Pool:
    """The last images that a generator made (Shrivastava et al. 2017), as CycleGAN uses them.

    Each new image takes a place; once the pool is full, half of them take the place of an older one, which is shown to the
    critic instead. Places and halves hang on seed and step alone.

    Parameters
    ----------
    size : int
        Images; 0 shows the critic the new ones alone.
    shape : sequence of int
        Of an image, (y, x, channel).
    seed : int
    what : int
        Tells pools of one run apart.
    """

    def __init__(self, size: int, shape: Sequence[int], *, seed: int, what: int) -> None:
        self.size, self._seed = size, [seed, POOL, what]
        self.images = tf.Variable(np.zeros((size, *shape), np.float32), trainable=False)

    def plan(self, number: int, count: int) -> Any:
        """For each image of step `number`: its place, whether it is stored there, whether the older one is shown."""
        if not self.size:
            return np.zeros((3, count), np.int32)
        random = np.random.default_rng([*self._seed, number])
        filled = min(number * count, self.size)
        fresh = np.arange(count) + filled < self.size
        place = np.where(fresh, np.arange(count) + filled, 0)
        # Places of one step differ, so that none is written twice.
        free = random.permutation(self.size)
        free = free[~np.isin(free, place[fresh])]
        older = ~fresh & (np.cumsum(~fresh) <= len(free))
        place[older] = free[: older.sum()]
        swap = older & (random.random(count) < 0.5)
        return np.stack([place, fresh | swap, swap]).astype(np.int32)

    def exchange(self, made: Any, plan: Any) -> Any:
        """What the critic is shown instead of `made`."""
        if not self.size:
            return made
        place, store, swap = plan[0], plan[1] == 1, plan[2] == 1
        older = tf.gather(self.images, place)
        wide = tf.reshape(swap, [-1, 1, 1, 1])
        shown = tf.where(wide, older, made)
        where = tf.reshape(tf.where(store), [-1])
        self.images.scatter_nd_update(tf.gather(place, where)[:, None], tf.gather(made, where))
        return shown
