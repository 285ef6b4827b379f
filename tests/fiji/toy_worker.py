"""A worker without Java that misbehaves on demand; started by test_worker.py."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from care_bridge.errors import InputError
from care_bridge.java.worker_process import Call


def start(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("fails"):
        print("looking for the thing", flush=True)
        raise InputError("the thing is not there")
    if settings.get("dies"):
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if settings.get("hangs"):
        time.sleep(1000)
    return {"toy": "1.0"}


def double(call: Call) -> dict[str, Any]:
    image = call.arrays["image"]
    np.multiply(image, 2, out=call.output("image", shape=image.shape, dtype=image.dtype))
    return {
        "mean": float(image.flat[:10].sum() / max(1, min(10, image.size))),
        "factor": call.arguments.get("factor"),
    }


def say(call: Call) -> dict[str, Any]:
    # Python's stdout, C's stdout, stderr: none of it may reach the protocol.
    print(call.arguments["text"], flush=True)
    os.write(1, b"from C\n")
    os.write(2, b"from stderr\n")
    return {}


def misbehave(call: Call) -> dict[str, Any]:
    how = call.arguments["how"]
    print(f"now: {how}", flush=True)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(7)
    elif how == "hang":
        time.sleep(1000)
    elif how == "input":
        raise InputError("the image is upside down")
    elif how == "bug":
        raise ZeroDivisionError("nothing to divide by")
    elif how == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        call.progress(child.pid, 0, "child")
        time.sleep(1000)
    elif how == "full disk":
        # A limit on the size of files stands in for a disk that is full.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        call.output("image", shape=(1 << 21,), dtype=np.uint8)
    return {}


def count(call: Call) -> dict[str, Any]:
    for done in range(3):
        time.sleep(call.arguments["pause_s"])
        call.progress(done + 1, 3, "counting")
    return {}


def ask(call: Call) -> dict[str, Any]:
    answer = call.ask("triple", arrays={"image": call.arrays["image"]}, extra="yes")
    call.output("image", shape=answer.arrays["image"].shape, dtype=np.float32)[...] = answer.arrays["image"]
    return {"heard": answer.values["heard"]}


HANDLERS = {"double": double, "say": say, "misbehave": misbehave, "count": count, "ask": ask}
