"""A network with a mean and a standard deviation of its own around it, as Noise2Void trains them."""

from __future__ import annotations

import numpy as np

from care_bridge.bundle import OwnNormalisation
from care_bridge.errors import InputError
from care_bridge.predictor import Closable, Network, Runtime, Sizes, Tensor


class OnItsOwnScale(Closable):
    """A network that is given raw intensities: it takes off its own mean, divides by its own deviation, and goes back.

    Parameters
    ----------
    network : Network
        The bare one.
    normalisation : OwnNormalisation
        One mean and deviation for all channels, or one for each that goes in.
    back : bool
        Whether the result is brought back to raw intensities; not done where other channels come out than go in.

    Raises
    ------
    InputError
        If there are other numbers of means than channels, or a deviation is not above 0.
    """

    def __init__(self, network: Network, normalisation: OwnNormalisation, *, back: bool = True) -> None:
        self.network, self.back = network, back
        self._mean = np.asarray(normalisation.means, np.float32)
        self._std = np.asarray(normalisation.stds, np.float32)
        channels = network.input_shape[-1]
        if self._mean.size not in (1, channels) or (self._std <= 0).any():
            raise InputError(
                f"the network's own {normalisation} do not fit its {channels} channels; give one mean and one "
                "standard deviation above 0 for all, or for each"
            )

    @property
    def runtime(self) -> Runtime:
        """What executes the network."""
        return self.network.runtime

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """As the network's."""
        return self.network.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """As the network's."""
        return self.network.output_shape

    @property
    def size_multiple(self) -> Sizes | None:
        """As the network's."""
        return self.network.size_multiple

    @property
    def halo(self) -> Sizes | None:
        """As the network's."""
        return self.network.halo

    def __call__(self, tensor: Tensor) -> Tensor:
        """Raw intensities in, shape (batch, [z,] y, x, channel); raw intensities out, or normalised ones."""
        result = self.network((tensor - self._mean) / self._std)
        if not self.back or self._mean.size not in (1, result.shape[-1]):
            return result
        return np.asarray(result * self._std + self._mean, np.float32)

    def close(self) -> None:
        """End what runs the network."""
        self.network.close()
