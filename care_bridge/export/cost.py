"""What a run of an ONNX file costs on this machine, measured in a process of its own.

Run as ``python -m care_bridge.export.cost model.onnx image.npy``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

RUNS = 3
_PATIENCE_S = 120


def inference_cost(model: str | os.PathLike[str], image: str | os.PathLike[str]) -> dict[str, str]:
    """Time and peak memory of ONNX Runtime on one image, as sentences that name the machine.

    Parameters
    ----------
    model : path
        ONNX, one input.
    image : path
        .npy, shape as the network takes it.

    Returns
    -------
    dict
        `inference_time` (fastest of `RUNS`), and `memory_requirements_inference` where the system tells
        (Linux); empty when the run fails: a cost is only said when it was seen.
    """
    command = [sys.executable, "-m", "care_bridge.export.cost", os.fspath(model), os.fspath(image)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
        seen = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    what = f"{'x'.join(str(size) for size in seen['shape'][1:-1])} pixels"
    where = f"ONNX Runtime {seen['onnxruntime']}, {os.cpu_count()} CPU cores, {platform.machine()}"
    cost = {"inference_time": f"{seen['seconds']:.2g} s for {what} (fastest of {RUNS}, {where})"}
    if seen["peak_mb"] is not None:
        cost["memory_requirements_inference"] = (
            f"{seen['peak_mb']} MB of main memory for {what}, the whole process ({where}); no GPU needed"
        )
    return cost


def _measure(model: str, image: str) -> str:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = np.load(image)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: pixels})
        seconds.append(time.perf_counter() - start)
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return json.dumps(
        {
            "seconds": min(seconds),
            "peak_mb": round(int(peak.group(1)) / 1024) if peak else None,
            "shape": pixels.shape,
            "onnxruntime": onnxruntime.__version__,
        }
    )


if __name__ == "__main__":
    sys.stdout.write(_measure(*sys.argv[1:3]))
