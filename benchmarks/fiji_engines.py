"""What the engine onnx of the scripts for Fiji costs beside the plugin's TensorFlow, by turns, in the same Java.

    python benchmarks/fiji_engines.py [--size 1024] [--turns 3] [--versions 1.15.0 1.12.0] [--kernel 5] [--planes 64]

Each engine runs the same image through csbdeep's default network (fresh weights) in a worker of its own with the same
Java runtime: the whole script Restore_Image (percentiles, tiles and the result as an image included) by ONNX Runtime, and
the bare session of each TensorFlow 1.x. Counted are CPU seconds of the worker process, the fewest of the turns, so that
another program's load counts for little; peak memory is the process' own (Linux).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1024 if found else float("nan")


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--versions", nargs="*", default=["1.15.0", "1.12.0"])
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--planes", type=int, default=1, help="a stack of so many; give no --versions then")
    given = parser.parse_args()

    from care_bridge.comparing.sides import recommended_options
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.images import Image
    from care_bridge.java.imagej import ImageJ
    from care_bridge.java.imagej_onnx import ImageJOnnxPredictor
    from care_bridge.java.tf1 import Tf1Session
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = CareConfig("YX", seed=1, unet_kern_size=given.kernel)
        save_model(folder / "net", config, build(config))
        bundle = write_bundle(folder / "net", folder / "net.zip", how_to=False)
        pixels = np.random.default_rng(0).poisson(200, (given.size, given.size)).astype(np.uint16)
        stack_of = np.broadcast_to(pixels, (given.planes, *pixels.shape))
        image = Image(pixels, "YX") if given.planes == 1 else Image(np.ascontiguousarray(stack_of), "ZYX")
        imagej = stack.enter_context(ImageJ(onnx=True))
        onnx = ImageJOnnxPredictor(bundle, recommended_options(bundle), imagej=imagej)
        engines: dict[str, tuple[int, Callable[[], object]]] = {
            "script, ONNX Runtime": (imagej.worker.pid, lambda: onnx.predict(image))
        }
        tensor = np.ascontiguousarray(pixels[None, ..., None] / 400, np.float32)
        for version in given.versions:
            session = Tf1Session(version)
            stack.callback(session.close)
            network = stack.enter_context(session.open(bundle))
            engines[f"TensorFlow {version}"] = (
                session.worker.pid,
                lambda network=network: network(tensor),
            )
        for _, run in engines.values() if given.planes == 1 else ():
            run()  # loading, and Java's compiler
        spent: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(given.turns):
            for name, (pid, run) in engines.items():
                start = cpu_seconds(pid)
                run()
                spent[name].append(cpu_seconds(pid) - start)
        first = min(next(iter(spent.values())))
        print(
            f"{given.planes} x {given.size} x {given.size}, kernel {given.kernel}, CPU seconds, least of {given.turns}"
        )
        for name, (pid, _) in engines.items():
            least = min(spent[name])
            print(
                f"  {name:22} {least:6.2f} s  the script takes {first / least:4.2f} of it; peak {peak_mb(pid):5.0f} MB"
            )


if __name__ == "__main__":
    main()
