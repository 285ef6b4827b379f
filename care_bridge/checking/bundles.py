"""Judging a bundle: unpacked as the CSBDeep plugin unpacks it, run in TensorFlow 1.12 and 1.15 as it runs
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from care_bridge.bundle import SAVED_MODEL, SIGNATURE, TAG, Bundle, OwnNormalisation, read_bundle
from care_bridge.checking.onnx_beside import run_onnx
from care_bridge.checking.report import CheckReport, Findings
from care_bridge.checking.runs import run_bundle
from care_bridge.defaults import TF1_OF_FIJI
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder
from care_bridge.java.tf1 import Tf1Session
from care_bridge.plugin.unzipping import AGAIN, unpack

PBTXT = "saved_model.pbtxt"
_FLOAT = 1
_MOST_CHANNELS = 1024  # images of so many are made to try the network


def check_bundle(
    path: str | os.PathLike[str],
    *,
    versions: Sequence[str] = TF1_OF_FIJI,
    sessions: Sequence[Tf1Session] = (),
    image: NDArray[Any] | None = None,
) -> CheckReport:
    """Judge a bundle as "Run your network" would: accepted only where the result is full and right.

    Parameters
    ----------
    path : path
        A zip, or a SavedModel folder (which the plugin cannot open: only its graph is judged).
    versions : sequence of str
        TensorFlow releases to run it in; all must agree.
    sessions : sequence of Tf1Session
        Running ones to use.
    image : ndarray, optional
        Only packages take one.

    Notes
    -----
    Runs: an image of 64x64 pixels in one tile and in four, and one of 40x44 pixels, in every TensorFlow; a
    larger one in tiles with the block multiple and overlap that are recommended, against one tile; and the
    result fed back. Right is what the bare network gives for the same normalised pixels.
    """
    if image is not None:
        raise InputError(f"{path} is a bundle; it is judged on images of its own, so leave the image out")
    path = Path(path)
    findings = Findings()
    with scratch_folder() as folder:
        findings.unpacked(path, folder)
        bundle = _layout(path, folder, findings)
        again = "export the model again"
        if bundle is not None and _signature(bundle, findings):
            with findings.stage("What stands beside the graph makes sense", again, decisive=False):
                judge_normalisation(bundle.meta.normalisation, findings)
            with findings.stage("TensorFlow 1.x has every operation", again, decisive=False):
                _operations(bundle, findings, versions)
            with findings.stage("It runs to the end", again):
                run_bundle(bundle, findings, versions, sessions)
            with findings.stage("ONNX Runtime gives what TensorFlow gives", again):
                run_onnx(bundle, findings)
    return findings.report(path, "bundle")


# --- unpacking


def _layout(path: Path, folder: Path, findings: Findings) -> Bundle | None:
    if path.is_dir():
        findings.add("It is a zip", False, "it is a folder", "zip what is in it, with variables/ first")
        root = path
    else:
        found = unpack(path, folder)
        problem = found.reason
        if not problem and not found.files:
            problem = (
                "Java's reader finds no file in it; it reads from the first byte on, which must be an entry's"
            )
        findings.add(
            "The plugin unpacks the zip",
            not problem,
            problem or f"unpacked by the rules of the plugin's unzipper: {len(found.files)} files",
            f"{found.advice or AGAIN}; Fiji keeps a half-unpacked model for ever, so change the file too",
        )
        root = folder
    if not (root / SAVED_MODEL).is_file() and (root / PBTXT).is_file():
        _convert_pbtxt(root)
    deeper = sorted(file.relative_to(root).as_posix() for file in root.rglob(SAVED_MODEL))
    there = bool(deeper) and deeper[0] == SAVED_MODEL
    why = "found" if there else f"it lies at {deeper[0]}, too deep" if deeper else "there is none"
    if not findings.add(
        f"{SAVED_MODEL} lies at the root of the zip",
        there,
        why,
        "zip the files of the SavedModel, not the folder around them; a training folder is no bundle",
    ):
        return None
    try:
        bundle = read_bundle(root)
    except InputError as error:
        findings.add(f"{SAVED_MODEL} can be read", False, str(error), "export the model again")
        return None
    return dataclasses.replace(bundle, path=root)


def _convert_pbtxt(root: Path) -> None:
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    with contextlib.suppress(text_format.ParseError, UnicodeDecodeError):
        text_format.Parse((root / PBTXT).read_text(encoding="utf-8"), model)
        (root / SAVED_MODEL).write_bytes(model.SerializeToString())


# --- what the signature says


def _signature(bundle: Bundle, findings: Findings) -> bool:
    served = [graph for graph in bundle.graphs if TAG in graph.tags]
    tags = sorted({tag for graph in bundle.graphs for tag in graph.tags})
    if not findings.add(
        f"One graph has the tag {TAG!r}",
        bool(served),
        f"tags: {', '.join(tags) or 'none'}",
        "export with tag 'serve'",
    ):
        return False
    names = sorted(served[0].signatures)
    signature = served[0].signatures.get(SIGNATURE)
    if signature is None:
        findings.add(
            f"There is a signature {SIGNATURE!r}",
            False,
            f"signatures: {', '.join(names) or 'none'}",
            f"export with the signature key {SIGNATURE!r}",
        )
        return False
    inputs, outputs = signature.inputs, signature.outputs
    if not findings.add(
        "One input and one output",
        len(inputs) == 1 and len(outputs) == 1,
        f"inputs: {', '.join(t.key for t in inputs) or 'none'}; outputs: "
        f"{', '.join(t.key for t in outputs) or 'none'}",
        "export exactly one of each: with more, TensorFlow 1.12 and 1.15 choose different ones; concatenate "
        "outputs",
    ):
        return False
    types = (inputs[0].dtype, outputs[0].dtype)
    findings.add(
        "Input and output are float32",
        types[0] == _FLOAT,
        f"types {types} in TensorFlow's numbering, 1 is float32",
        "the plugin feeds float32 and nothing else: rebuild the model with dtype float32",
    )
    return _shapes(inputs[0].shape, outputs[0].shape, findings)


def _shapes(
    first: tuple[int | None, ...] | None, last: tuple[int | None, ...] | None, findings: Findings
) -> bool:
    if not findings.add(
        "The number of dimensions is written down",
        first is not None and last is not None,
        f"input {_words(first)}, output {_words(last)}",
        "write every dimension into the signature, -1 where it is free",
    ):
        return False
    assert first is not None
    assert last is not None
    good = findings.add(
        "The input has 4 or 5 dimensions (batch, [z,] y, x, channel)",
        len(first) in (4, 5),
        f"input {_words(first)}",
        "the plugin knows no axes for another number of dimensions",
    )
    good &= findings.add(
        "The output has as many dimensions as the input, or one less (a projection)",
        len(first) - len(last) in (0, 1),
        f"input {_words(first)}, output {_words(last)}",
        "export a network that gives an image",
    )
    if not good:
        return False
    if (channels := first[-1]) is not None and not findings.add(
        f"An image can have so many channels (at most {_MOST_CHANNELS})",
        1 <= channels <= _MOST_CHANNELS,
        f"input {_words(first)}",
        "write the number of channels that the network was trained with",
    ):
        return False
    findings.add(
        "Spatial sizes are free",
        all(size is None for size in first[1:-1]),
        f"input {_words(first)}",
        "write -1: fixed sizes are neither padded nor tiled, so only images of exactly that size run",
        decisive=False,
    )
    findings.add(
        "The batch size is free",
        first[0] is None,
        f"input {_words(first)}",
        "write -1: a fixed batch refuses every stack and time series",
        decisive=False,
    )
    findings.add(
        "The number of channels is fixed",
        first[-1] is not None,
        f"input {_words(first)}",
        "write it: otherwise an image with a wrong number of channels is not refused",
        decisive=False,
    )
    return good


def _words(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "of unknown rank"
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def judge_normalisation(own: OwnNormalisation | None, findings: Findings) -> None:
    """Warn where a network has a mean and standard deviation of its own, of which the plugin knows nothing."""
    if own is not None:
        findings.add(
            "Run your network normalises as it was trained",
            False,
            f"it states its own {own}; the plugin takes percentiles, and reads no such file",
            "in Fiji subtract the mean and divide by the deviation first, without 'Normalize image'",
            decisive=False,
        )


# --- operations


def _operations(bundle: Bundle, findings: Findings, versions: Sequence[str]) -> None:
    from care_bridge.export.graph import lacking
    from care_bridge.inference.savedmodel import graph_before, graph_in

    # What fills variables at the start of a training draws random numbers, and is not run here nor in Fiji.
    graph = graph_before(graph_in(bundle.path), bundle.signature.outputs[0].name)
    for version in versions:
        missing = lacking(graph, target=version)
        more = f"; and {len(missing) - 2} more" if len(missing) > 2 else ""
        # Not decisive: the runtime itself decides below; the table says what to mend.
        findings.add(
            f"TensorFlow {version} has every operation and attribute",
            not missing,
            "; ".join(missing[:2]) + more or f"{len(graph.node)} nodes held against the runtime's own list",
            _export_remedy(graph),
            decisive=False,
        )


def _export_remedy(graph: Any) -> str:
    variables = any(node.op == "VarHandleOp" for node in graph.node)
    if variables:
        return (
            "this was written by TensorFlow 2 (model.export or tf.saved_model.save); write it with "
            "`care-bridge export MODEL --format fiji`"
        )
    return "export the model with `care-bridge export MODEL --format fiji`"
