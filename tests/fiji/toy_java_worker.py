"""A worker with a JVM of 32 MiB, to be filled; started by test_tf1.py."""

from __future__ import annotations

from typing import Any

from care_bridge.java import worker_java
from care_bridge.java.worker_process import Call


def start(settings: dict[str, Any]) -> dict[str, Any]:
    return {"java": worker_java.start_jvm(classpath=[], heap_mb=32)}


def fill(call: Call) -> dict[str, Any]:
    import jpype

    arrays = [jpype.JArray(jpype.JByte)(1 << 20) for _ in range(call.arguments["mib"])]
    return {"arrays": len(arrays)}


def fail(call: Call) -> dict[str, Any]:
    import jpype

    error = jpype.JClass("java.lang.IllegalStateException")
    raise jpype.JClass("java.lang.RuntimeException")("outer", error("the innermost cause"))


HANDLERS = {"fill": fill, "fail": fail}
