"""Damaged and hostile files through every reader, in this process: each ends in an image, a value or one sentence.

A short form runs with the tests; `make fuzz` runs the long one (CARE_BRIDGE_FUZZ cases of each kind, new ones each time).
A case that falls is written to `.fuzz/`; put it into `found/` as KIND-WHAT, where it is tried in every run.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from care_bridge.errors import InputError, NotInstalledError, WorkerError

# Damage -------------------------------------------------------------------------------------------------------------

CANARY = "care-bridge-canary"

_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True)
class Cut:
    """One change of bytes; places are shares of the length, 0-1, so that they fit any file."""

    how: str
    place: float
    other: float
    number: int
    width: int
    big: bool

    def apply(self, content: bytes) -> bytes:
        """The content with this change."""
        size = len(content)
        at, to = int(self.place * size), int(self.other * size)
        if self.how == "short":
            return content[:at]
        if self.how == "drop":
            return content[: min(at, to)] + content[max(at, to) :]
        if self.how == "repeat":
            return content[:at] + content[min(at, to) : max(at, to)][:65536] + content[at:]
        if self.how == "flip":
            number = (content[at] if at < size else 0) ^ (1 << self.number % 8)
            return content[:at] + bytes([number]) + content[at + 1 :]
        if self.how == "near":  # a number that is nearly the right one
            number = (content[at] if at < size else 0) + (1 if self.big else -1)
            return content[:at] + bytes([number % 256]) + content[at + 1 :]
        # A place of the same file, as offsets have it, or a number that programs stumble over.
        number = to if self.how == "point" else _NUMBERS[self.number % len(_NUMBERS)]
        packed = struct.pack((">" if self.big else "<") + _WIDTHS[self.width], number % (1 << 8 * self.width))
        return content[:at] + packed + content[at + self.width :]


shares = st.floats(0, 1, exclude_max=True)
cuts = st.builds(
    Cut,
    st.sampled_from(["flip", "flip", "near", "number", "number", "point", "short", "drop", "repeat"]),
    shares,
    shares,
    st.integers(0, 255),
    st.sampled_from(sorted(_WIDTHS)),
    st.booleans(),
)


def damaged(seeds: dict[str, bytes]) -> st.SearchStrategy[bytes]:
    """One of some whole files with one to six changes."""

    def apply(name: str, changes: list[Cut]) -> bytes:
        content = seeds[name]
        for change in changes:
            content = change.apply(content)
        return content

    return st.builds(apply, st.sampled_from(sorted(seeds)), st.lists(cuts, min_size=1, max_size=6))


def _nested(depth: int, *, mapping: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


odd_values = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            "",
            " ",
            "\0",
            "a\nb",
            "../../" + CANARY,
            "/" + CANARY,
            "~/" + CANARY,
            "\udc80",
            "nan",
            "1e999",
        ]
    ),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")]),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": []}}, ["YX"] * 50]),
    st.builds(_nested, st.sampled_from([5, 40, 90]), mapping=st.booleans()),
    st.integers(-3, 400),
    st.text(max_size=8),
    st.text("STCZYX", max_size=6),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        found += _places(below, (*path, key))
    return found


def changed_documents(document: Any) -> st.SearchStrategy[Any]:
    """A document with one to four values replaced, left out, or put under another name."""
    places = _places(document)

    def apply(changes: list[tuple[int, str, Any]]) -> Any:
        made = copy.deepcopy(document)
        for number, how, value in changes:
            *above, last = places[number]
            try:
                holder = made
                for key in above:
                    holder = holder[key]
                if how == "without":
                    del holder[last]
                elif how == "more" and isinstance(holder, dict):
                    holder[f"{last}_"] = value
                else:
                    holder[last] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        return made

    change = st.tuples(
        st.integers(0, len(places) - 1), st.sampled_from(["set", "set", "set", "without", "more"]), odd_values
    )
    return st.builds(apply, st.lists(change, min_size=1, max_size=4))


# What every case must keep to ----------------------------------------------------------------------------------------

SECONDS = 10
BYTES = 2 << 30


class TooSlowError(BaseException):
    """Raised in the middle of a case, so no reader may take it for damage."""


def _alarm(_signal: int, _frame: Any) -> None:
    raise TooSlowError(f"a case took more than {SECONDS} s")


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def limits() -> Iterator[None]:
    """End what takes too long, and fail where the process grew by more than it may."""
    before = _peak_bytes()
    handler = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    grown = _peak_bytes() - before
    assert grown < BYTES, f"a case took {grown / 2**30:.1f} GiB"


def said(call: Callable[[], Any]) -> str:
    """Call a reader; "" where it was content, else its sentence. Any other error goes on."""
    with limits():
        try:
            call()
        except (InputError, NotInstalledError, WorkerError) as error:
            message = str(error)
            assert message.strip()
            return message
        except OSError as error:
            if error.errno is None:  # what the command line cannot say in words either
                raise
            return str(error)
    return ""


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """Fail where a file appeared in a folder, beside it or above it."""

    def files() -> set[str]:
        found = {os.path.join(place, name) for place in (folder, folder.parent) for name in os.listdir(place)}
        return found | {
            name for name in ("/" + CANARY, os.path.expanduser("~/" + CANARY)) if os.path.exists(name)
        }

    before = files()
    yield
    assert files() == before, sorted(files() ^ before)


# Whole files ----------------------------------------------------------------------------------------------------


def tiffs() -> dict[str, bytes]:
    """As programs write them: ImageJ, OME, BigTIFF, tiles, several resolutions, colours, packed bits."""
    stack = np.arange(2 * 3 * 16 * 18, dtype=np.uint16).reshape(2, 3, 16, 18)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "imagej": (stack, {"imagej": True, "metadata": {"axes": "ZCYX", "spacing": 0.3, "unit": "micron"}}),
        "ome": (stack, {"ome": True, "metadata": {"axes": "CZYX", "PhysicalSizeX": 0.1}}),
        "big": (stack, {"bigtiff": True, "compression": "zlib", "metadata": {"axes": "TZYX"}}),
        "tiles": (stack[0], {"tile": (16, 16), "compression": "lzw", "predictor": True}),
        "motorola": (
            stack[0, 0],
            {"byteorder": ">", "metadata": None, "resolution": (1e4, 1e4, "CENTIMETER")},
        ),
        "zstd": (stack[0].astype(np.float32), {"compression": "zstd", "ome": True}),
        "colours": (np.zeros((16, 18, 3), np.uint8), {"photometric": "rgb"}),
        "bits": (np.ones((16, 18), bool), {"metadata": None}),
    }
    made = {}
    for name, (data, options) in kinds.items():
        file = io.BytesIO()
        tifffile.imwrite(file, data, **{"photometric": "minisblack"} | options)
        made[name] = file.getvalue()
    file = io.BytesIO()
    with tifffile.TiffWriter(file, ome=True) as writer:
        writer.write(stack[0, 0], subifds=1, metadata={"axes": "YX"})
        writer.write(stack[0, 0, ::2, ::2], subfiletype=1)
    return made | {"pyramid": file.getvalue()}


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def arrays(**values: Any) -> bytes:
    """An .npz of these arrays."""
    file = io.BytesIO()
    np.savez(file, **values)
    return file.getvalue()


META = {
    "name": "a",
    "axes": "YXC",
    "tilingAllowed": True,
    "care_bridge": {
        "n_channel_in": 1,
        "size_multiple": {"Y": 4, "X": 4},
        "halo": {"Y": 22, "X": 22},
        "fiji": {
            "nTiles": 1,
            "blockMultiple": 4,
            "overlap": 44,
            "percentileBottom": 3.0,
            "percentileTop": 99.8,
        },
    },
}
_AXES = [{"type": "batch"}, {"type": "channel", "channel_names": ["raw"]}]
_AXES += [{"type": "space", "id": axis, "size": {"min": 64, "step": 4}} for axis in "yx"]
RDF = {
    "format_version": "0.5.4",
    "type": "model",
    "name": "a",
    "description": "b",
    "authors": [{"name": "A", "orcid": "0000-0000-0000-0001"}],
    "cite": [{"text": "c", "doi": "10.1/2"}],
    "license": "MIT",
    "documentation": "README.md",
    "covers": ["cover.png"],
    "inputs": [
        {
            "id": "input",
            "axes": _AXES,
            "test_tensor": {"source": "in.npy", "sha256": "0" * 64},
            "data": {"type": "float32"},
            "preprocessing": [{"id": "scale_range", "kwargs": {"min_percentile": 3, "max_percentile": 99.8}}],
        }
    ],
    "outputs": [{"id": "output", "axes": _AXES, "test_tensor": {"source": "out.npy"}, "postprocessing": []}],
    "weights": {
        "keras_hdf5": {"source": "weights.h5", "tensorflow_version": "2.16"},
        "tensorflow_saved_model_bundle": {"source": "bundle.zip"},
        "onnx": {"source": "a.onnx", "opset_version": 17},
    },
    "config": {"care_bridge": {"config": {"axes": "YXC", "n_dim": 2}}, "bioimageio": {"nickname": "a"}},
}
CARD = {
    "name": "small network",
    "description": "restores",
    "modality": "fluorescence-light-microscopy",
    "content": "cells",
    "license": "MIT",
    "authors": [{"name": "A", "affiliation": "B", "orcid": "0000-0002-1825-0097"}],
    "cite": [{"text": "t", "doi": "10.1/2"}],
    "training": {"training_duration": 1.5},
}


def as_toml(value: Any) -> str:
    """A document as TOML, as far as TOML has its values; the others become text that TOML does not read."""

    def inline(part: Any) -> str:
        if isinstance(part, dict):
            return (
                "{"
                + ", ".join(f"{json.dumps(str(key))} = {inline(below)}" for key, below in part.items())
                + "}"
            )
        if isinstance(part, list):
            return "[" + ", ".join(map(inline, part)) + "]"
        return json.dumps(part)

    if not isinstance(value, dict):
        return inline(value)
    return "\n".join(f"{json.dumps(str(key))} = {inline(part)}" for key, part in value.items())


SNIPPETS = [
    "a: &a [*a]",
    "a: &a {b: *a}",
    "? [x, y]\n: 1",
    f"a: !!python/object/apply:os.mkdir [{CANARY}]",
    "a: !!set {x, y}",
    "a: 2020-01-01",
    "a: 12:30:45",
    "a: .inf",
    "a: 1_000e400",
    "a: !!binary aGVsbG8=",
    "<<: {a: 1}",
    "a: &x [1,2]\nb: &y [*x,*x,*x,*x,*x,*x]\nc: &z [*y,*y,*y,*y,*y,*y]\nd: [*z,*z,*z,*z,*z,*z,*z,*z]",
    "weights: [a]",
    "--- \n...\n---",
    "\ufeffa: 1",
    "[" * 3000,
    "a: " + "9" * 5000,
]
WORDS = [
    *(
        '"',
        "'",
        "\\",
        "\n",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ";",
        ",",
        "=",
        "+",
        "==",
        "//",
        "/*",
        "*/",
        "#@ File f\n",
    ),
    *(
        "function ",
        "f",
        "a",
        "var ",
        "for",
        "while",
        "if",
        "else",
        "return ",
        "1e999",
        "0x",
        "run(",
        "call(",
        "eval(",
    ),
    '"Run your network"',
    '"input=" + a',
    '"modelfile=[/a b.zip] ntiles="',
    "getTitle()",
    'open("C:\\a.tif")',
    "setBatchMode(true)",
    "\0",
    "\udcff",
    "\u2028",
    '"\\' * 40,
    "(" * 60,
    "IJ.run(imp, ",
]


# Readers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is damaged, what it is called, and who reads it."""

    content: Callable[[], st.SearchStrategy[bytes]]
    name: str
    readers: Callable[[Path], list[Callable[[], Any]]]
    cost: int = 1


def _read_tiff(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.images import read_header, read_image
    from care_bridge.images.read import stored_shape

    return [
        lambda: read_image(path),
        lambda: np.asarray(read_image(path, mapped=True).data).sum(),
        lambda: read_header(path),
        lambda: stored_shape(path),
    ]


def _read_bundle(path: Path) -> list[Callable[[], Any]]:
    from care_bridge import model_files, zips
    from care_bridge.bundle import read_bundle, read_meta
    from care_bridge.macros import for_model

    return [
        lambda: read_bundle(path),
        lambda: read_meta(path),
        lambda: zips.unpack(path, path.parent / "unpacked" / hashlib.md5(os.urandom(8)).hexdigest()),
        lambda: model_files.runtime_of(path),
        lambda: for_model(path),
    ]


def _read_config(path: Path) -> list[Callable[[], Any]]:
    from care_bridge import model_files
    from care_bridge.config import read_config

    return [
        lambda: read_config(path),
        lambda: model_files.runtime_of(path.parent),
        lambda: model_files.kind_of(path.parent),
        lambda: model_files.stated_percentiles(path.parent),
    ]


def _read_package(path: Path) -> list[Callable[[], Any]]:
    from care_bridge import model_files, package
    from care_bridge.checking.packages import check_package

    root = path.parent
    return [
        lambda: package.config_of_package(root, path),
        lambda: package.percentiles_of(package.read_description(root, path)),
        lambda: model_files.runtime_of(root),
        lambda: check_package(root, core=False, versions=()),
    ]


def _read_patches(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.patches import load_patches

    return [lambda: load_patches(path)]


def _read_weights(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.training.folder import read_weights

    return [lambda: read_weights(path)]


def _read_checkpoint(path: Path) -> list[Callable[[], Any]]:
    from care_bridge import zips

    return [lambda: zips.arrays(path)]


def _read_card(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.export.metadata import read_card

    return [lambda: read_card(path)]


def _read_recipe(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.simulate.recipe import load_recipe

    return [lambda: load_recipe(path)]


def _read_onnx(path: Path) -> list[Callable[[], Any]]:
    from care_bridge import model_files
    from care_bridge.inference.onnx import OnnxNetwork
    from care_bridge.inspection import check_onnx

    image = np.zeros((1, 16, 16, 1), np.float32)
    return [
        lambda: check_onnx(path),
        lambda: check_onnx(path.read_bytes()),
        lambda: model_files.find_source(path, "onnx"),
        lambda: OnnxNetwork(path, threads=1)(image),
    ]


def _read_macro(path: Path) -> list[Callable[[], Any]]:
    from care_bridge.macros import lint

    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    return [lambda: lint(text, ".ijm"), lambda: lint(text, ".groovy")]


def _bundle_seeds() -> dict[str, bytes]:
    return {"graph": _graph()}


def _graph() -> bytes:
    """A saved_model.pb that adds the image to itself, by the schema of protobuf."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    for name, op, inputs in (("input", "Placeholder", ()), ("output", "Add", ("input", "input"))):
        node = meta.graph_def.node.add(name=name, op=op, input=inputs)
        node.attr["dtype" if op == "Placeholder" else "T"].type = 1
    meta.graph_def.versions.producer = 27
    function = meta.graph_def.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="n", op="Relu")
    signature = meta.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    for tensors, name in ((signature.inputs, "input"), (signature.outputs, "output")):
        tensors[name].name, tensors[name].dtype = f"{name}:0", 1
        for size in (-1, -1, -1, 1):
            tensors[name].tensor_shape.dim.add(size=size)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _bundle(graph: bytes, meta: Any = META) -> bytes:
    return zipped(
        {"saved_model.pb": graph, "meta.json": json.dumps(meta).encode("utf-8", "replace"), "variables/": b""}
    )


def _weights() -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened.attrs["layer_names"] = np.array([b"conv", b"last"])
        for name in ("conv", "last"):
            group = opened.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()])
            group[f"{name}/kernel:0"] = np.ones((3, 3, 1, 4), np.float32)
            group[f"{name}/bias:0"] = np.ones(4, np.float32)
    return file.getvalue()


def _config() -> Any:
    from care_bridge.config import CareConfig

    return CareConfig(axes="YX").to_json()


def _as_json(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _yaml_texts() -> st.SearchStrategy[bytes]:
    whole = yaml.safe_dump(RDF)
    added = st.lists(st.tuples(st.integers(0, whole.count("\n")), st.sampled_from(SNIPPETS)), max_size=2)

    def put(changes: list[tuple[int, str]]) -> bytes:
        lines = whole.splitlines()
        for number, snippet in changes:
            lines.insert(number, snippet)
        return "\n".join(lines).encode()

    return added.map(put)


def _patches() -> dict[str, bytes]:
    pair = np.zeros((4, 1, 8, 8), np.float32)
    return {"pairs": arrays(X=pair, Y=pair, axes="SCYX"), "whole": arrays(X=pair, Y=pair.astype(np.uint16))}


def _checkpoint() -> dict[str, bytes]:
    return {"state": arrays(state=json.dumps({"epoch": 3, "seed": 1}), weight_0=np.ones((3, 3), np.float32))}


def _recipes() -> dict[str, Any]:
    from care_bridge.simulate.recipe import builtin_recipes, load_recipe

    return {
        name: json.loads(load_recipe(name).model_dump_json(exclude_none=True))
        for name in builtin_recipes()[:2]
    }


def _onnx() -> dict[str, bytes]:
    """Networks as our export writes them: convolutions with channels last outside, a graph with graphs in it."""
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[Any], **constants: Any) -> bytes:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None, 1]) for name in "xy"
        ]
        held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "a", ends[:1], ends[1:], held)
        own = helper.make_function(
            "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], _opsets()
        )
        made = helper.make_model(graph, opset_imports=_opsets(), ir_version=9, functions=[own])
        helper.set_model_props(made, {"care_bridge.pmin": "3", "care_bridge.pmax": "99.8"})
        content: bytes = made.SerializeToString(deterministic=True)
        return content

    node = helper.make_node
    network = [
        node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        node("Conv", ["first", "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
        node("Relu", ["conv"], ["relu"]),
        node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["pool", "", "factors"], ["large"], mode="nearest"),
        node("Concat", ["large", "relu"], ["both"], axis=1),
        node("Conv", ["both", "last"], ["out"]),
        node("Transpose", ["out"], ["y"], perm=[0, 2, 3, 1]),
    ]
    inner = [
        helper.make_graph(
            [node(op, ["x"], [op])], op, [], [helper.make_tensor_value_info(op, TensorProto.FLOAT, None)]
        )
        for op in ("Relu", "Neg")
    ]
    nested = [
        node("Constant", [], ["half"], value_float=0.5),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "half"], ["bright"]),
        node("If", ["bright"], ["one"], then_branch=inner[0], else_branch=inner[1]),
        node("Shape", ["one"], ["shape"]),
        node("Reshape", ["one", "flat"], ["row"]),
        node("Tile", ["row", "times"], ["again"]),
        node("Reshape", ["again", "shape"], ["back"]),
        node("Pad", ["back", "rim"], ["wide"]),
        node("Slice", ["wide", "starts", "ends", "axes"], ["cut"]),
        node("Twice", ["cut"], ["y"], domain="own"),
    ]
    return {
        "network": model(
            network,
            kernel=np.ones((2, 1, 3, 3), np.float32),
            bias=np.ones(2, np.float32),
            factors=np.array([1, 1, 2, 2], np.float32),
            last=np.ones((1, 4, 1, 1), np.float32),
        ),
        "nested": model(
            nested,
            flat=np.array([-1]),
            times=np.array([1]),
            rim=np.array([0, 1, 1, 0, 0, 1, 1, 0]),
            starts=np.array([1, 1]),
            ends=np.array([-1, -1]),
            axes=np.array([1, 2]),
        ),
    }


def _opsets() -> list[Any]:
    from onnx import helper

    return [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


# Of the standard, of ONNX Runtime, of TensorFlow, of nobody; with the sizes below each makes as much as it is asked for.
_OPERATIONS = """
    ConstantOfShape Tile Expand Range Pad Resize Upsample OneHot EyeLike RandomNormal RandomUniform Multinomial
    ConvTranspose MaxUnpool HannWindow CenterCropPad DFT Gather Gemm MatMul Reshape Slice ScatterND CumSum Loop If Scan
    SequenceMap StringConcat Split Unsqueeze Concat Einsum Unique NonZero TopK Where Conv MaxPool AveragePool LSTM
    com.microsoft.PythonOp com.microsoft.EPContext com.microsoft.Gelu com.microsoft.Tokenizer ai.onnx.ml.LabelEncoder
    .WriteFile .ReadFile .PyFunc mine.Anything ai.onnx.contrib.PyCustomOp \u00e9.\u00e9
"""
OPERATIONS = _OPERATIONS.split()
PLACES = (
    "../" + CANARY,
    "/" + CANARY,
    "/dev/zero",
    "/proc/self/mem",
    "a.onnx",
    ".",
    "",
    "\0",
    "C:\\a",
    "b/../../c",
)
_SIZES = (0, 1, -1, 2, 5, 1000, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))


@st.composite
def changed_onnx(draw: st.DrawFn) -> bytes:
    """A network with values of its messages replaced, left out or doubled, and with nodes that networks have not."""
    import onnx
    from onnx import helper

    model = onnx.load_from_string(_onnx()[draw(st.sampled_from(["network", "nested"]))])
    size = st.sampled_from(_SIZES)
    for _ in range(draw(st.integers(0, 2))):
        _add_node(draw, model.graph)
    if draw(st.integers(0, 5)) == 0:  # weights that lie elsewhere
        tensor = draw(st.sampled_from(list(model.graph.initializer)))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        for key, value in (("location", draw(st.sampled_from(PLACES))), ("offset", str(draw(size)))):
            tensor.external_data.add(key=key, value=value.encode("utf-8", "replace").decode())
    if draw(st.integers(0, 7)) == 0:  # a graph in a graph in a graph
        for _ in range(draw(st.sampled_from([1, 5, 20]))):
            outer = helper.make_graph([], "g", [], [])
            outer.node.add(op_type="If", output=["deep"]).attribute.append(
                helper.make_attribute("then_branch", model.graph)
            )
            model.graph.CopyFrom(outer)
    for _ in range(draw(st.integers(0, 4))):
        _change_message(draw, model)
    content: bytes = model.SerializePartialToString(deterministic=True)
    for cut in draw(st.lists(cuts, max_size=draw(st.sampled_from([0, 0, 2])))):
        content = cut.apply(content)
    return content


def _add_node(draw: st.DrawFn, graph: Any) -> None:
    from onnx import helper, numpy_helper

    number = len(graph.node)
    sizes = draw(st.lists(st.sampled_from(_SIZES), max_size=5))
    kind = draw(st.sampled_from([np.int64, np.int64, np.float32, np.int32]))
    with np.errstate(all="ignore"):
        graph.initializer.append(numpy_helper.from_array(np.array(sizes).astype(kind), f"sizes{number}"))
    graph.initializer.append(
        numpy_helper.from_array(np.array(draw(st.sampled_from(_SIZES)), np.int64), f"size{number}")
    )
    known = ["x", "", f"sizes{number}", f"sizes{number}", f"size{number}", f"size{number}"]
    known += [name for node in graph.node for name in node.output]
    domain, _, op = draw(st.sampled_from(OPERATIONS)).rpartition(".")
    made = helper.make_node(
        op, draw(st.lists(st.sampled_from(known), max_size=5)), [f"new{number}"], domain=domain
    )
    names = "shape axis axes pads scales to k depth output_shape kernel_shape strides group sample_size value_ints value"
    for name in draw(st.lists(st.sampled_from(names.split()), max_size=2, unique=True)):
        value = draw(
            st.sampled_from([sizes or [0], draw(st.sampled_from(_SIZES)), 0.5, "a", graph.initializer[-1]])
        )
        made.attribute.append(helper.make_attribute(name, value))
    graph.node.insert(draw(st.integers(0, number)), made)
    if draw(st.booleans()):  # in the way of the image, or nobody would compute it
        other = draw(st.sampled_from(list(graph.node)))
        if other.input:
            other.input[draw(st.integers(0, len(other.input) - 1))] = f"new{number}"


def _change_message(draw: st.DrawFn, message: Any) -> None:
    """Walk down a message by chance and change a field there."""
    while True:
        there = message.ListFields()
        below = [
            part
            for field, value in there
            if field.message_type is not None
            for part in ([value] if not _repeated(field) else list(value))
        ]
        if not below or draw(st.integers(0, 4)) == 0:
            break
        message = draw(st.sampled_from(below))
    fields = message.DESCRIPTOR.fields
    field = draw(st.sampled_from([one for one, _ in there] or list(fields)) | st.sampled_from(list(fields)))
    how = draw(st.sampled_from(["set", "set", "set", "without", "more"]))
    if how == "without":
        message.ClearField(field.name)
        return
    held = getattr(message, field.name)
    if field.message_type is not None:
        if _repeated(field):
            held.add().CopyFrom(held[0]) if len(held) and how == "more" else held.add()
        else:
            held.SetInParent()
        return
    odd = {
        field.CPPTYPE_STRING: ["", "x", "y", "a", "conv", "Loop", "\u00e9" * 40, "../" + CANARY],
        field.CPPTYPE_FLOAT: [0.0, -1.0, 1e30, float("nan"), float("inf")],
        field.CPPTYPE_DOUBLE: [0.0, -1.0, 1e300, float("nan")],
    }.get(field.cpp_type, [0, 1, 2, 3, 7, 16, 255, 2**31 - 1, 2**40, 2**63 - 1, -1, -(2**31)])
    value = draw(st.sampled_from(odd))
    if field.type == field.TYPE_BYTES:
        value = str(value).encode()
    try:
        if not _repeated(field):
            setattr(message, field.name, value)
        elif len(held) and how == "set":
            held[draw(st.integers(0, len(held) - 1))] = value
        else:
            held.append(value)
    except ValueError:
        return  # the field is narrower


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


KINDS = {
    "tiff": Kind(lambda: damaged(tiffs()), "a.tif", _read_tiff, 3),
    "ome": Kind(lambda: damaged(tiffs()), "a.ome.tif", _read_tiff, 3),
    "zip": Kind(lambda: damaged({"bundle": _bundle(_graph())}), "a.zip", _read_bundle, 6),
    "graph": Kind(lambda: damaged(_bundle_seeds()).map(_bundle), "a.zip", _read_bundle, 3),
    "meta": Kind(
        lambda: changed_documents(META).map(lambda meta: _bundle(_graph(), meta)), "a.zip", _read_bundle, 3
    ),
    "config": Kind(lambda: changed_documents(_config()).map(_as_json), "config.json", _read_config),
    "config-bytes": Kind(lambda: damaged({"a": _as_json(_config())}), "config.json", _read_config),
    "rdf": Kind(
        lambda: changed_documents(RDF).map(lambda value: yaml.safe_dump(value).encode("utf-8", "replace")),
        "rdf.yaml",
        _read_package,
        8,
    ),
    "rdf-text": Kind(_yaml_texts, "rdf.yaml", _read_package, 8),
    "h5": Kind(lambda: damaged({"a": _weights()}), "weights.h5", _read_weights, 2),
    "npz": Kind(lambda: damaged(_patches()), "a.npz", _read_patches),
    "checkpoint": Kind(lambda: damaged(_checkpoint()), "checkpoint.npz", _read_checkpoint),
    "toml": Kind(
        lambda: changed_documents(CARD).map(lambda value: as_toml(value).encode("utf-8", "replace")),
        "model.toml",
        _read_card,
    ),
    "toml-bytes": Kind(lambda: damaged({"a": as_toml(CARD).encode()}), "model.toml", _read_card),
    "recipe": Kind(
        lambda: st.sampled_from(sorted(_recipes())).flatmap(
            lambda name: changed_documents(_recipes()[name]).map(
                lambda value: as_toml(value).encode("utf-8", "replace")
            )
        ),
        "a.toml",
        _read_recipe,
        4,
    ),
    "onnx": Kind(changed_onnx, "a.onnx", _read_onnx, 3),
    "macro": Kind(
        lambda: st.lists(st.sampled_from(WORDS), max_size=60).map(
            lambda words: "".join(words).encode("utf-8", "surrogateescape")
        ),
        "a.ijm",
        _read_macro,
    ),
}
LONG = int(os.environ.get("CARE_BRIDGE_FUZZ", "0"))
SHORT = 240
FALLEN = Path(os.environ.get("CARE_BRIDGE_FUZZ_FALLEN", ".fuzz")).absolute()
FOUND = sorted((Path(__file__).parent / "found").glob("*-*"))


def try_out(kind: str, content: bytes, folder: Path) -> list[str]:
    """Every reader of a kind on one file; what each said."""
    place = folder / "in"
    place.mkdir(exist_ok=True)
    path = place / KINDS[kind].name
    path.write_bytes(content)
    try:
        with nothing_written(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [said(call) for call in KINDS[kind].readers(path)]
    except (Exception, TooSlowError):
        FALLEN.mkdir(parents=True, exist_ok=True)
        (FALLEN / f"{kind}-last").write_bytes(content)  # the smallest that hypothesis finds comes last
        raise


def cases(cost: int = 1) -> Any:
    """The settings of a run: few and quick, or as many as `make fuzz` asks for."""
    return settings(
        max_examples=LONG or SHORT // cost,
        derandomize=not LONG,
        database=None,
        deadline=None,
        print_blob=bool(LONG),
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.tf
@pytest.mark.timeout(36_000 if LONG else 300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_ends_in_a_value_or_a_sentence(kind: str, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    counted: Counter[str] = Counter()

    @cases(KINDS[kind].cost)
    @given(content=KINDS[kind].content())
    def run(content: bytes) -> None:
        counted["refused" if any(try_out(kind, content, tmp_path)) else "read"] += 1

    run()
    print(f"\nfuzz {kind}: {counted.total()} cases, {counted['refused']} refused by a reader")
    assert counted.total()


@pytest.mark.tf
def test_what_is_damaged_was_whole_before(tmp_path: Path) -> None:
    """Or only the first check of a reader would ever be tried."""
    whole = {
        "tiff": tiffs()["imagej"],
        "zip": _bundle(_graph()),
        "config": _as_json(_config()),
        "rdf": yaml.safe_dump(RDF).encode(),
        "h5": _weights(),
        "npz": _patches()["pairs"],
        "checkpoint": _checkpoint()["state"],
        "toml": as_toml(CARD).encode(),
        "recipe": as_toml(next(iter(_recipes().values()))).encode(),
    }
    told = {kind: try_out(kind, content, tmp_path)[0] for kind, content in whole.items()}
    assert not {kind: message for kind, message in told.items() if message}


@pytest.mark.tf
@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.name)
def test_what_fell_once_stands(file: Path, tmp_path: Path) -> None:
    try_out(file.name.rpartition("-")[0], file.read_bytes(), tmp_path)


# Command lines --------------------------------------------------------------------------------------------------

COMMANDS = ("advise", "check", "compare", "cross-eval", "evaluate", "export", "import", "predict", "macros")
# With sound arguments these work for minutes: they are stopped where their work would begin, see `stopped`.
WORKING = ("demo", "doctor", "simulate", "sweep", "train", "zoo")
NEVER = ("--install", "--try")  # fetches runtimes; starts every level there is
SUBCOMMANDS = {
    "macros": ["list", "lint", "for", "uninstall", "nix"],
    "zoo": ["list", "show", "build", "check", "stage", "card", "train", "index", "nix"],
}
ARGUMENTS = [
    "",
    " ",
    "-1",
    "0",
    "1e999",
    "nan",
    "99999999999999999999",
    "999999999",
    "YX",
    "ZZ",
    "--",
    "-",
    "\0",
    "\udcff",
    "a=b",
]
ARGUMENTS += [
    "=",
    "[]",
    "{x}",
    "../" + CANARY,
    "fiji",
    "tf1",
    "keras",
    "auto",
    "csbdeep",
    "1,2",
    "1x1",
    "'",
    '"',
    "%s",
]
FILES = ("bad.tif", "bad.zip", "bad.onnx", "bad.keras", "bad.h5", "rdf.yaml", "config.json", "empty", "nix")


def _options() -> dict[str, list[str]]:
    import typer

    from care_bridge.cli import app

    commands: Any = typer.main.get_command(app)

    def flags(command: Any) -> list[str]:
        below = getattr(command, "commands", {}).values()
        return [flag for option in command.params for flag in option.opts if flag.startswith("-")] + [
            flag for inner in below for flag in flags(inner)
        ]

    return {
        name: [flag for flag in flags(commands.commands[name]) if flag not in NEVER]
        for name in (*COMMANDS, *WORKING)
    }


def _writes_elsewhere(word: str) -> bool:
    """Whether a word names a place outside of the folder, where a sound --out would be written."""
    return "/" in word or "~" in word or word.endswith("..")


@st.composite
def command_lines(draw: st.DrawFn, commands: tuple[str, ...]) -> list[str]:
    """A command with arguments and options of its own, and of none."""
    command = draw(st.sampled_from(commands))
    words = [command]
    if command in SUBCOMMANDS:
        words.append(draw(st.sampled_from(SUBCOMMANDS[command])))
    value = st.one_of(st.sampled_from(ARGUMENTS), st.sampled_from(FILES), st.text(max_size=4))
    if command in WORKING:
        words += draw(st.sampled_from([[], ["--out", "out"], ["empty", "empty"], _RECIPE[command]]))
        value = value.filter(lambda word: not _writes_elsewhere(word))
    option = st.sampled_from(_options()[command] or ["--nix"])
    for flag in draw(st.lists(st.one_of(value, option), max_size=7)):
        words.append(flag)
        if flag.startswith("--") and draw(st.booleans()):
            words.append(draw(value))
    return words


_RECIPE: dict[str, list[str]] = {
    "demo": ["--epochs", "1"],
    "doctor": ["--json"],
    "simulate": ["tubules", "--out", "out"],
    "sweep": ["empty", "empty", "--out", "out", "--grid", "train_epochs=1,2"],
    "train": ["--simulate", "denoise", "--out", "out"],
    "zoo": ["model", "--out", "out"],
}


def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """End every command that works for long where its work would begin: nothing is drawn, trained or fetched."""
    from care_bridge import demo
    from care_bridge.simulate import folder
    from care_bridge.training import fit, from_files
    from care_bridge.zoo import building, checking, staging

    def stop(*_: Any, **__: Any) -> Any:
        raise InputError("the work would begin here")

    for module, name in (
        (demo, "_simulate"),
        (demo, "_train"),
        (folder, "_work"),
        (from_files, "_simulated"),
        (from_files, "_train_one"),
        (from_files, "_train_members"),
        (fit, "train"),
        (fit, "plan_epochs"),
        (building, "build_model"),
        (checking, "build_model"),
        (checking, "write_zoo_package"),
        (staging, "write_zoo_package"),
    ):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setattr(folder, "_pairs_of", lambda *_: iter(()))


def _lay_out(folder: Path) -> None:
    """Files to name, afresh: a command may have written beside them, or over them."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    noise = random.Random(0).randbytes(3000)
    starts = {"bad.tif": b"II*\0\x08\0\0\0", "bad.zip": b"PK\3\4", "bad.h5": b"\x89HDF\r\n\x1a\n"}
    for name in FILES:
        if "." in name:
            (folder / name).write_bytes(starts.get(name, b"") + noise)
    (folder / "empty").mkdir()
    (folder / "zoo" / "model").mkdir(parents=True)
    (folder / "zoo" / "model" / "config.json").write_bytes(noise)


@pytest.mark.tf
@pytest.mark.timeout(36_000 if LONG else 300)
@pytest.mark.parametrize("commands", [COMMANDS, WORKING], ids=["reading", "working"])
def test_a_command_line_ends_with_an_exit_code_and_a_sentence(
    commands: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from care_bridge.cli import app

    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CARE_BRIDGE_ZOO", str(folder / "zoo"))
    if commands is WORKING:
        stopped(monkeypatch)
    codes: Counter[int] = Counter()

    @cases(12)
    @given(words=command_lines(commands))
    def run(words: list[str]) -> None:
        _lay_out(folder)
        with limits(), nothing_written(tmp_path):
            done = CliRunner().invoke(app, words)
        codes[done.exit_code] += 1
        assert done.exit_code in (0, 1, 2), (words, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
        assert "Traceback" not in done.output
        if done.exit_code == 2:
            assert len(done.stderr.splitlines()) == 1, (words, done.stderr)

    run()
    print(f"\nfuzz command lines: {codes.total()} cases, exit codes {dict(codes)}")


def test_more_samples_than_a_folder_holds_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    from care_bridge.cli import app

    with limits():
        done = CliRunner().invoke(
            app, ["simulate", "tubules", "--out", str(tmp_path / "out"), "--count", "999999999"]
        )
    assert done.exit_code == 2
    assert "1000000" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
