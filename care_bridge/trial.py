"""Whether a level that is said to be there really runs: a bundle of a few bytes, opened and used at it."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

from care_bridge.bundle import ONNX, ONNX_META, SAVED_MODEL
from care_bridge.defaults import TF1_VERSION
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.files import scratch_folder
from care_bridge.levels import choose_level
from care_bridge.opening import open_predictor
from care_bridge.predictor import Runtime

SHAPE = (24, 20)
"""Of the image that is passed through, which is cut into two tiles."""


def try_level(
    level: str, *, fiji: str | os.PathLike[str] | None = None, version: str = TF1_VERSION
) -> Runtime:
    """Open a bundle at a level as a person would, restore an image with it, and look at the pixels.

    Parameters
    ----------
    level : str
        `best` or one of `levels.LEVELS`.
    fiji : path, optional
        A Fiji folder; None takes `CARE_BRIDGE_FIJI`.
    version : str
        The TensorFlow 1.x of levels `imagej` and `tf1`.

    Returns
    -------
    Runtime
        With the versions that answered.

    Raises
    ------
    NotInstalledError
        If the level is not there.
    WorkerError
        If it is there and does not run, or gives other pixels than the bundle's.
    """
    import numpy as np

    from care_bridge.images import Image
    from care_bridge.plugin.options import PluginOptions

    level = choose_level(level, fiji=fiji, version=version)
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    options = PluginOptions(normalizeInput=False, nTiles=2, blockMultiple=4, overlap=4)
    with scratch_folder() as folder:
        bundle = write_doubling_bundle(Path(folder) / "doubling.zip")
        try:
            with open_predictor(bundle, level, options=options, version=version, fiji=fiji) as predictor:
                result = predictor.predict(Image(image, "YX"))
                runtime = predictor.runtime
        except NotInstalledError:
            raise
        except InputError as error:  # the plugin's own refusals and failures are such
            raise WorkerError(f"it does not run a bundle of two nodes: {error}") from error
    if result.axes != "YX" or not np.array_equal(result.data, 2 * image):
        raise WorkerError(
            f"it gives other pixels than the bundle's: an image of shape {result.shape} and axes {result.axes}, "
            f"at most {np.max(result.data):g} where {2 * image.max():g} is right"
        )
    return runtime


def write_doubling_bundle(path: Path) -> Path:
    """Write a bundle whose network adds the image to itself, without TensorFlow and ONNX.

    Returns
    -------
    Path
        `path`, a zip as every TensorFlow from 1.12 on opens it, and our scripts with ONNX Runtime.
    """
    shape = b"".join(_field(2, _field(1, size)) for size in (-1, -1, -1, 1))
    kind, shape_of = _field(6, 1), _field(7, shape)  # float32
    nodes = (
        _node("input", "Placeholder", _entry("dtype", kind), _entry("shape", shape_of)),
        _node("output", "Add", _entry("T", kind), inputs=("input", "input")),
    )
    graph = b"".join(_field(1, node) for node in nodes) + _field(4, _field(1, 27))  # written by 1.12
    ends = (_field(1, f"{name}:0") + _field(2, 1) + _field(3, shape) for name in ("input", "output"))
    inputs, outputs = (
        _field(place, _entry(name, end))
        for place, name, end in zip((1, 2), ("input", "output"), ends, strict=True)
    )
    signature = inputs + outputs + _field(3, "tensorflow/serving/predict")
    meta_graph = _field(1, _field(4, "serve")) + _field(2, graph)
    meta_graph += _field(5, _entry("serving_default", signature))
    saved_model, onnx = _field(1, 1) + _field(2, meta_graph), _doubling_onnx()
    about = {
        "format_version": 1,
        "name": "doubling",
        "axes": "YXC",
        "n_channel_in": 1,
        "n_channel_out": 1,
        "normalisation": {"rule": "fiji", "pmin": 0.0, "pmax": 100.0},
        "size_multiple": {"Y": 1, "X": 1},
        "halo": {"Y": 0, "X": 0},
        "lost_axis": "",
        "saved_model_sha256": hashlib.sha256(saved_model).hexdigest(),
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "onnx_input": "input",
        "onnx_output": "output",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("variables/", "")
        archive.writestr(SAVED_MODEL, saved_model)
        archive.writestr(ONNX, onnx)
        archive.writestr(ONNX_META, json.dumps(about))
    return path


def _doubling_onnx() -> bytes:
    """The same network as a message of onnx.proto: IR version 8, opset 17."""
    sizes = b"".join(_field(1, _field(2, name)) for name in ("batch", "y", "x")) + _field(1, _field(1, 1))
    kind = _field(2, _field(1, _field(1, 1) + _field(2, sizes)))  # float32
    node = _field(1, "input") * 2 + _field(2, "output") + _field(4, "Add")
    graph = _field(1, node) + _field(2, "doubling") + _field(11, _field(1, "input") + kind)
    graph += _field(12, _field(1, "output") + kind)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 17))


def _node(name: str, op: str, *attributes: bytes, inputs: tuple[str, ...] = ()) -> bytes:
    fields = _field(1, name) + _field(2, op) + b"".join(_field(3, source) for source in inputs)
    return fields + b"".join(_field(5, attribute) for attribute in attributes)


def _entry(key: str, value: bytes) -> bytes:
    """One entry of a map."""
    return _field(1, key) + _field(2, value)


def _field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protobuf message: a number, or what has a length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % (1 << 64))
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = b""
    while value > 0x7F:
        digits += bytes([value & 0x7F | 0x80])
        value >>= 7
    return digits + bytes([value])
