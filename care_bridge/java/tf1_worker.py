"""TensorFlow 1.x inside a worker process, as TF-Java: the library that the CSBDeep plugin itself calls."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError, WorkerError
from care_bridge.java import worker_java
from care_bridge.java.worker_process import Call
from care_bridge.memory import hold_to_free_memory

_LONGEST_BUFFER_BYTES = 2**31 - 1
"""A Java buffer is indexed by a 32-bit int."""

_models: dict[str, Any] = {}


def start(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the native library and the JVM, and pass one tensor through a graph of nothing."""
    library_folder = Path(settings["library_folder"])
    # Relative paths from here on: Java reads -D options in the locale's encoding, which may lack an umlaut.
    os.chdir(library_folder)
    _preload(library_folder)
    java = worker_java.start_jvm(
        classpath=[os.path.relpath(settings["jar"], library_folder)],
        heap_mb=settings["heap_mb"],
        java=settings["java"],
        # TensorFlow may crash on a tensor; Java's report goes with the worker instead of into the cache.
        options=["-Djava.library.path=.", f"-XX:ErrorFile={settings['worker_folder']}/crash.log"],
    )
    import jpype

    tensorflow = str(jpype.JClass("org.tensorflow.TensorFlow").version())
    if tensorflow != settings["version"]:
        raise WorkerError(f"TensorFlow {settings['version']} was asked for, and {tensorflow} answered")
    _canary()
    hold_to_free_memory()
    return {"tensorflow": tensorflow, "java": java}


def load(call: Call) -> dict[str, Any]:
    """Load an unpacked SavedModel under a key; `threads` 0 leaves the number to TensorFlow."""
    import jpype

    loader = jpype.JClass("org.tensorflow.SavedModelBundle").loader(call.arguments["folder"])
    options = _session_options(call.arguments["threads"])
    _models[call.arguments["key"]] = loader.withTags("serve").withConfigProto(options).load()
    return {}


def run(call: Call) -> dict[str, Any]:
    """Feed one tensor, fetch one tensor."""
    tensor = np.ascontiguousarray(call.arrays["input"], dtype=np.float32)
    session = _models[call.arguments["key"]].session()
    feed, fetch = call.arguments["feed"], call.arguments["fetch"]
    pieces = _pieces(tensor)
    output: NDArray[np.float32] | None = None
    for number, piece in enumerate(pieces):
        result = _run_one(session, feed, fetch, tensor[piece])
        try:
            shape = tuple(int(size) for size in result.shape())
            if len(pieces) == 1:
                _read_tensor(result, call.output("output", shape=shape, dtype=np.float32))
                return {}
            if output is None:
                output = call.output("output", shape=(len(tensor), *shape[1:]), dtype=np.float32)
            _read_tensor(result, output[piece])
        finally:
            result.close()
        call.progress(number + 1, len(pieces), "batches")
    return {}


def unload(call: Call) -> dict[str, Any]:
    """Forget a model."""
    model = _models.pop(call.arguments["key"], None)
    if model is not None:
        model.close()
    return {}


HANDLERS = {"load": load, "run": run, "unload": unload}


def _preload(folder: Path) -> None:
    """Load the part that the Java binding links to, so that the linker finds it by its name.

    Never RTLD_GLOBAL: its copy of BoringSSL would take the place of Python's OpenSSL.
    """
    if sys.platform == "win32":
        os.add_dll_directory(str(folder))
        return
    for library in sorted(folder.glob("libtensorflow_framework.*")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL)


def _canary() -> None:
    import jpype

    sent = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    graph = jpype.JClass("org.tensorflow.Graph")()
    float_type = jpype.JClass("org.tensorflow.DataType").FLOAT
    entry = graph.opBuilder("Placeholder", "input").setAttr("dtype", float_type).build()
    graph.opBuilder("Identity", "output").addInput(entry.output(0)).build()
    session = jpype.JClass("org.tensorflow.Session")(graph)
    result = _run_one(session, "input", "output", sent)
    received = np.empty_like(sent)
    _read_tensor(result, received)
    for closable in (result, session, graph):
        closable.close()
    if not np.array_equal(sent, received):
        raise WorkerError(
            "TensorFlow gives back other numbers than it was given; the transfer of arrays is broken"
        )


def _run_one(session: Any, feed: str, fetch: str, tensor: NDArray[np.float32]) -> Any:
    import jpype

    buffer = worker_java.direct_buffer(tensor).asFloatBuffer()
    shape = jpype.JArray(jpype.JLong)(list(tensor.shape))
    fed = jpype.JClass("org.tensorflow.Tensor").create(shape, buffer)
    try:
        return session.runner().feed(feed, fed).fetch(fetch).run().get(0)
    finally:
        fed.close()


def _read_tensor(tensor: Any, into: NDArray[np.float32]) -> None:
    if str(tensor.dataType()) != "FLOAT":
        raise InputError(f"the network's output is {tensor.dataType()}; the plugin needs FLOAT")
    if into.size:
        tensor.writeTo(worker_java.direct_buffer(into).asFloatBuffer())


def _pieces(tensor: NDArray[np.float32]) -> list[slice]:
    """Slices along the batch that fit a Java buffer, input and output alike; one where all fits."""
    if tensor.nbytes <= _LONGEST_BUFFER_BYTES:
        return [slice(None)]
    each = tensor.nbytes // len(tensor)
    if each > _LONGEST_BUFFER_BYTES:
        raise InputError(
            f"one tensor of shape {tensor.shape} takes {each / 2**30:.1f} GiB and Java passes at most 2 GiB "
            "at once; use more tiles"
        )
    step = max(1, _LONGEST_BUFFER_BYTES // 2 // each)
    return [slice(start, start + step) for start in range(0, len(tensor), step)]


def _session_options(threads: int) -> bytes:
    """A serialised ConfigProto: field 2 is intra_op_parallelism_threads, 5 inter_op_parallelism_threads."""
    if not threads:
        return b""
    if threads > 127:
        raise InputError(f"threads={threads} is more than 127")
    return bytes([2 << 3, threads, 5 << 3, threads])
