"""ONNX: the same network for ONNX Runtime, deepImageJ on Apple silicon, ilastik and the model zoo."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError, NotInstalledError
from care_bridge.export.graph import INPUT, OUTPUT, freeze, runner, signature
from care_bridge.export.probe import measure
from care_bridge.export.rewrites import rewrite
from care_bridge.export.source import Model, Source, on_scale_of, open_source, own_percentiles
from care_bridge.files import atomic_file
from care_bridge.inference.onnx import PMAX_KEY, PMIN_KEY, PROBABILISTIC_KEY, SCALE_KEY
from care_bridge.reach import Geometry

OPSET, IR_VERSION = 17, 8
"""Newest that deepImageJ's ONNX engines load (run: opset 18 does not)."""

ATTEMPTS = 3
"""How often tf2onnx is asked before its answer counts."""

TOLERANCE = 1e-5
"""Largest difference to Keras on a normalised image before exporting is refused."""

_INSTALL = "writing ONNX needs onnx, tf2onnx and onnxruntime: pip install 'care-bridge[zoo]'"


def write_onnx(
    model: Model,
    path: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    custom_objects: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as ONNX.

    Parameters
    ----------
    model : keras.Model, CareModel or path
        See `source.open_source`.
    path : path
        The file; a name without `.onnx` is a folder, and the file in it is called after the model.
    opset : int
        13 to 17.
    custom_objects : mapping, optional
        Layers of your own by name, for a Keras file that needs them.

    Returns
    -------
    Path
        Tensors `input` and `output`, channels last, free dimensions named batch, z, y, x. IR version 8.

    Raises
    ------
    InputError
        If the network cannot be written in this opset, changes the image's size, or ONNX Runtime does not
        give what Keras gives at three sizes.
    NotInstalledError
        If the packages for ONNX are missing.
    """
    if not 13 <= opset <= OPSET:
        raise InputError(f"opset={opset} is not between 13 and {OPSET}, which every reader loads")
    source = open_source(model, custom_objects=custom_objects)
    graph = freeze(source.network, target=None)
    geometry = measure(graph)
    content = onnx_bytes(
        graph,
        space=source.space,
        opset=opset,
        percentiles=own_percentiles(source) if source.scale is None else None,
        probabilistic=None if source.config is None else source.config.probabilistic,
        scale_inside=source.scale is not None,
    )
    check_against_keras(content, source, graph, geometry)
    given = Path(path)
    target = given if given.suffix.lower() == ".onnx" else given / f"{source.name}.onnx"
    with atomic_file(target) as part:
        part.write_bytes(content)
    return target


def onnx_bytes(
    graph: Any,
    *,
    space: str,
    opset: int = OPSET,
    percentiles: tuple[float, float] | None = None,
    probabilistic: bool | None = None,
    scale_inside: bool = False,
) -> bytes:
    """A frozen graph as a serialised ONNX model, checked by onnx.checker.

    The order in which tf2onnx's optimisers visit nodes is chance, and once in several hundred conversions they left
    a Reshape whose inferred rank contradicts the output's. Converting again mends that.

    Parameters
    ----------
    graph : GraphDef
        As `graph.freeze` gives it.
    space : str
        Axes between batch and channels, e.g. "ZYX"; they name the free dimensions.
    opset : int
    percentiles : tuple of two floats, optional
        Written into the file's metadata, for those who normalise its input.
    probabilistic : bool, optional
        Whether the second half of the output's channels are widths; written likewise.
    scale_inside : bool
        Whether the network takes grey levels as they are; written likewise.
    """
    told = {} if percentiles is None else dict(zip((PMIN_KEY, PMAX_KEY), map(repr, percentiles), strict=True))
    if probabilistic is not None:
        told[PROBABILISTIC_KEY] = str(probabilistic).lower()
    if scale_inside:
        told[SCALE_KEY] = "inside"
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(InputError):
            return _converted(graph, space=space, opset=opset, metadata=told)
    return _converted(graph, space=space, opset=opset, metadata=told)


def _converted(graph: Any, *, space: str, opset: int, metadata: Mapping[str, str]) -> bytes:
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise NotInstalledError(f"{_INSTALL} ({error})") from None
    from tensorflow.core.framework import graph_pb2

    inputs, outputs = signature(graph)
    # tf2onnx knows Erf (of GELU), not Erfc.
    copy = graph_pb2.GraphDef()
    copy.CopyFrom(rewrite(graph, has_op=lambda op, _=None: op != "Erfc"))
    try:
        with _quiet("tf2onnx", "tensorflow"):
            model, _ = tf2onnx.convert.from_graph_def(
                copy, name="care", input_names=[f"{INPUT}:0"], output_names=[f"{OUTPUT}:0"], opset=opset
            )
    except Exception as error:
        raise InputError(
            f"the network cannot be written as ONNX opset {opset}: {' '.join(str(error).split())[:300]}"
        ) from error
    _sort(model)
    _rename(model, {f"{INPUT}:0": INPUT, f"{OUTPUT}:0": OUTPUT})
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "care-bridge", ""
    kept = space[len(inputs) - len(outputs) :]
    for value, letters, shape in (
        (model.graph.input[0], space, inputs),
        (model.graph.output[0], kept, outputs),
    ):
        _name_dimensions(value, ["batch", *letters.lower(), "channel"], shape)
    # Inferred shapes of what lies between carry names such as unk__270, which help nobody.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(metadata))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the network cannot be written as ONNX opset {opset}: {reason}") from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep converters from writing to the console; what goes wrong comes as an exception."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _sort(model: Any) -> None:
    """Nodes and constants in the order in which the output needs them; tf2onnx's order is chance."""
    maker = {name: node for node in model.graph.node for name in node.output}
    order: dict[int, Any] = {}
    seen: dict[str, None] = {}
    stack = [(tensor.name, False) for tensor in reversed(model.graph.output)]
    while stack:
        name, ready = stack.pop()
        node = maker.get(name)
        if node is None or id(node) in order:
            seen.setdefault(name)
            continue
        if ready:
            order[id(node)] = node
            continue
        stack.append((name, True))
        stack.extend((reference, False) for reference in reversed(node.input) if reference)
    nodes = [_copy(node) for node in order.values()]
    constants = {tensor.name: _copy(tensor) for tensor in model.graph.initializer}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants[name] for name in seen if name in constants)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _rename(model: Any, names: Mapping[str, str]) -> None:
    """Name everything after its place in the graph: tf2onnx's names, and which of equal constants stays, are chance."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    equal: dict[tuple[Any, ...], str] = {}
    renamed = dict(names)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        for index, name in enumerate(node.input):
            tensor = constants.get(name)
            if tensor is not None and name not in renamed:
                content = (tensor.data_type, *tensor.dims, _without_name(tensor))
                renamed[name] = equal.setdefault(content, f"{node.name}_input_{index}")
        for index, name in enumerate(node.output):
            if name:
                renamed.setdefault(name, f"{node.name}_output_{index}")
        for references in (node.input, node.output):
            for index, name in enumerate(references):
                references[index] = renamed.get(name, name)
    for tensor in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        tensor.name = renamed.get(tensor.name, tensor.name)
    kept = {tensor.name: _copy(tensor) for tensor in reversed(model.graph.initializer)}
    used = dict.fromkeys(name for node in model.graph.node for name in node.input)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept[name] for name in used if name in kept)


def _without_name(tensor: Any) -> bytes:
    plain = _copy(tensor)
    plain.name = ""
    content: bytes = plain.SerializeToString(deterministic=True)
    return content


def _name_dimensions(value: Any, names: Sequence[str], shape: Sequence[int | None]) -> None:
    dims = value.type.tensor_type.shape.dim
    del dims[:]
    for name, size in zip(names, shape, strict=True):
        dim = dims.add()
        if size is None:
            dim.dim_param = name
        else:
            dim.dim_value = size


def check_against_keras(content: bytes, source: Source, graph: Any, geometry: Geometry) -> float:
    """Run ONNX Runtime at three sizes against Keras; the largest difference, in parts of the range."""
    from care_bridge.inference.onnx import OnnxNetwork

    network, keras_graph = OnnxNetwork(content), runner(graph)
    difference = 0.0
    for factor in (1, 2, 3):
        sizes = [multiple * max(factor, -(-12 * factor // multiple)) for multiple in geometry.size_multiple]
        shape = (1, *sizes, source.network.inputs[0].shape[-1])
        image = on_scale_of(source, np.random.default_rng(factor).random(shape, np.float32))
        expected = keras_graph(image)
        span = max(1.0, float(np.ptp(expected)))
        difference = max(difference, float(np.abs(network(image) - expected).max()) / span)
    if not difference <= TOLERANCE:
        raise InputError(
            f"ONNX Runtime differs from Keras by {difference:.3g} of the output's range for {source.name!r} "
            f"(at most {TOLERANCE} is accepted)"
        )
    return difference
