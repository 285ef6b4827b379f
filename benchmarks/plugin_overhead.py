"""What the plugin's arithmetic costs beside the network: 2048 x 2048 pixels in 9 tiles; percentiles of 500 Mpixel.

    python benchmarks/plugin_overhead.py [BUNDLE.zip] [--pixels 500000000]

Without a bundle, a CARE network with 8 features and kernel 3 is built, the smallest that is in use; larger ones hide
more. Targets: emulation under 10 % over the bare network, percentiles under 4 x one np.partition.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from care_bridge.images import Image
from care_bridge.normalize import FIJI, percentile_range
from care_bridge.plugin.emulation import EmulatedPlugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.predictor import UnhintedNetwork


class Timed(UnhintedNetwork):
    """A network that counts its own seconds."""

    def __init__(self, network):
        self.network, self.seconds = network, 0.0
        self.runtime, self.input_shape, self.output_shape = (
            network.runtime,
            network.input_shape,
            network.output_shape,
        )

    def __call__(self, tensor):
        start = time.perf_counter()
        result = self.network(tensor)
        self.seconds += time.perf_counter() - start
        return result


def network(bundle):
    if bundle:
        from care_bridge.inference.savedmodel import SavedModelNetwork

        return SavedModelNetwork(bundle)
    from care_bridge.config import CareConfig
    from care_bridge.inference.keras import KerasNetwork
    from care_bridge.training.unet import build

    return KerasNetwork(build(CareConfig(axes="YX", unet_n_first=8, unet_kern_size=3)))


def overhead(bundle):
    timed = Timed(network(bundle))
    image = Image(np.random.default_rng(0).integers(0, 60000, (2048, 2048)).astype(np.uint16), "YX")
    predictor = EmulatedPlugin(timed, PluginOptions(nTiles=9))
    assert predictor.plan(image).n_tiles == 9
    predictor.predict(image)  # the first call compiles
    best = []
    for _ in range(3):
        timed.seconds = 0.0
        start = time.perf_counter()
        predictor.predict(image)
        total = time.perf_counter() - start
        best.append((total / timed.seconds - 1, total, timed.seconds))
    share, total, inside = min(best)
    print(
        f"2048 x 2048, 9 tiles: {total:.2f} s, network {inside:.2f} s, overhead {share:.1%} (target < 10 %)"
    )


def percentiles(pixels):
    for dtype in (np.uint16, np.float32):
        data = np.random.default_rng(0).integers(0, 60000, pixels, dtype=np.uint16).astype(dtype)
        start = time.perf_counter()
        percentile_range(data, rule=FIJI)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        np.partition(data, (pixels // 33, pixels - pixels // 500))
        other = time.perf_counter() - start
        print(
            f"{pixels / 1e6:.0f} Mpixel {data.dtype}: {ours:.2f} s, one np.partition {other:.2f} s, "
            f"ratio {ours / other:.2f} (target < 4)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--pixels", type=int, default=500_000_000)
    arguments = parser.parse_args()
    overhead(arguments.bundle)
    percentiles(arguments.pixels)
