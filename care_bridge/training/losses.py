"""Losses of csbdeep, as one number a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

Loss = Callable[[Any, Any], Any]
"""`loss(target, prediction)` of tensors, channels last, scales behind means; one number a pixel."""


def mae(target: Any, prediction: Any) -> Any:
    """Absolute error of the mean channels, for each pixel and channel."""
    return ops.abs(prediction[..., : target.shape[-1]] - target)


def mse(target: Any, prediction: Any) -> Any:
    """Squared error of the mean channels, for each pixel and channel."""
    return ops.square(prediction[..., : target.shape[-1]] - target)


def laplace(target: Any, prediction: Any) -> Any:
    """Negative log-likelihood of a Laplace distribution, for each pixel and channel.

    ``|mean - target| / scale + log(scale) + log(2)``; csbdeep, internals/losses.py.
    """
    channels = target.shape[-1]
    mean, scale = prediction[..., :channels], prediction[..., channels:]
    return ops.abs((mean - target) / scale) + ops.log(scale) + math.log(2.0)


LOSSES: dict[str, Loss] = {"mae": mae, "mse": mse, "laplace": laplace}


def background_weighted(loss: Loss, *, threshold: float, foreground: float, alpha: Any) -> Loss:
    """Weight pixels so that a rare foreground counts as much as the background.

    Parameters
    ----------
    loss : Loss
    threshold : float
        Target values (normalised) at most this are background.
    foreground : float
        Share of target pixels above the threshold, 0-1.
    alpha : scalar tensor or float
        1 weights fully, 0 not at all; csbdeep lowers it each epoch, see `next_alpha`.

    Notes
    -----
    csbdeep, internals/train.py ``prepare_model``: weights 0.5 / (0.1 + share of the other kind of pixel).
    """
    below, above = 0.5 / (0.1 + (1 - foreground)), 0.5 / (0.1 + foreground)

    def weighted(target: Any, prediction: Any) -> Any:
        factor = ops.where(target <= threshold, alpha * below + (1 - alpha), alpha * above + (1 - alpha))
        return factor * loss(target, prediction)

    return weighted


def masked(loss: Loss) -> Loss:
    """The loss where a mask is 1 alone, for targets whose second half of channels is that mask (Noise2Void).

    Its mean over all pixels is the loss's mean over those of the mask: ``sum(mask * loss) / sum(mask)``, as n2v,
    internals/n2v_losses.py.
    """

    def blind(target: Any, prediction: Any) -> Any:
        channels = target.shape[-1] // 2
        value, mask = target[..., :channels], target[..., channels:]
        return mask * loss(value, prediction) / ops.mean(mask)

    return blind


def next_alpha(alpha: float, *, epoch: int, decay: float) -> float:
    """Weighting of the epoch after `epoch` (0-based): ``alpha / (1 + decay * (epoch + 1))``, as csbdeep."""
    return alpha / (1.0 + decay * (epoch + 1))
