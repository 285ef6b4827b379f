"""A network in NumPy for tests of restoring piece by piece, and a run with it that can be killed.

    python tests/piecewise_network.py SOURCE OUT SECONDS [--resume]

restores SOURCE in tiles, each of which takes so many seconds at least.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from scipy.ndimage import correlate1d

from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import PredictOptions, Runtime, UnhintedNetwork
from care_bridge.tiling import CsbdeepTiles

KERNEL = np.array([0.3, 0.5, 0.2], np.float32)  # of no symmetry: a flipped or shifted tile shows


class Pooling(UnhintedNetwork):
    """A U-Net's geometry with one pooling by 2: sizes are multiples of 2, an output sees 9 pixels a side."""

    def __init__(
        self, *, rank: int = 5, channels: int = 1, widths: bool = False, seconds: float = 0.0
    ) -> None:
        self.runtime = Runtime("numpy", {"numpy": "any"})
        self.input_shape: tuple[int | None, ...] = (None,) * (rank - 1) + (channels,)
        self.output_shape: tuple[int | None, ...] = (None,) * (rank - 1) + (channels * (1 + widths),)
        self.size_multiple = 2
        self.halo = 9
        self.probabilistic = widths
        self.widths, self.seconds = widths, seconds

    def __call__(self, tensor: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        axes = range(1, tensor.ndim - 1)
        x = self._filtered(self._filtered(tensor, axes), axes)
        low = x
        for axis in axes:
            even, odd = (low.take(range(start, low.shape[axis], 2), axis=axis) for start in (0, 1))
            low = np.maximum(even, odd)
        low = self._filtered(self._filtered(low, axes), axes)
        for axis in axes:
            low = low.repeat(2, axis=axis)
        x = np.float32(0.6) * self._filtered(x + low, axes)
        return np.concatenate([x, np.abs(x) / 10], axis=-1) if self.widths else x

    @staticmethod
    def _filtered(x: np.ndarray, axes: range) -> np.ndarray:
        for axis in axes:
            x = correlate1d(x, KERNEL, axis=axis, mode="constant")
        return x


def predictor(tiles: dict[str, int] | None, *, axes: str | None = None, **network: Any) -> NetworkPredictor:
    """With csbdeep's percentiles and so many tiles."""
    options = PredictOptions(tiles=None if tiles is None else CsbdeepTiles(tiles))
    return NetworkPredictor(Pooling(**network), options, axes=axes)


if __name__ == "__main__":
    from care_bridge.inference.large import predict_volume

    source, out, seconds, *more = sys.argv[1:]
    if seconds == "memory":
        import resource

        import zarr  # noqa: F401 - part of what is there before

        class Half(Pooling):
            """Costs nothing."""

            def __call__(self, tensor: np.ndarray) -> np.ndarray:
                return tensor * np.float32(0.5)

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        made = NetworkPredictor(Half(), PredictOptions(tiles=CsbdeepTiles({"Z": 2, "Y": 8, "X": 8})))
        predict_volume(made, source, out)
        print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        sys.exit()
    predict_volume(
        predictor({"Z": 2, "Y": 4, "X": 3}, seconds=float(seconds)), source, out, resume="--resume" in more
    )
