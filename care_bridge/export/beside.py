"""What lies in a bundle beside its SavedModel: the same network for ONNX Runtime, and what a script must know of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from care_bridge import text
from care_bridge.bundle import ONNX, ONNX_META
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.export.graph import INPUT, OUTPUT, freeze
from care_bridge.export.source import Source
from care_bridge.reach import Geometry

FORMAT_VERSION = 1


def beside(
    source: Source, geometry: Geometry, meta: Mapping[str, Any], saved_model: bytes
) -> dict[str, bytes]:
    """The entries `care_bridge.onnx` and `care_bridge.json` of a bundle.

    Parameters
    ----------
    source : Source
    geometry : Geometry
        What was measured of the network.
    meta : mapping
        Content of `meta.json`.
    saved_model : bytes
        Content of `saved_model.pb`.

    Returns
    -------
    dict of str to bytes
        By name. Where the network cannot be written as ONNX, or the packages for it are missing, there is only the
        JSON, whose `no_onnx` says why.
    """
    own = meta["care_bridge"]
    content, reason = _onnx(source, geometry, own, probabilistic=meta["probabilistic"])
    normalisation = {key: value for key, value in own["normalisation"].items() if key != "rule"}
    raw = source.scale is not None
    about = {
        "format_version": FORMAT_VERSION,
        "name": own["name"],
        **_said_by_people(source.path),
        "kind": meta["type"],
        "axes": meta["axes"],
        "axes_out": own["axes_out"],
        "n_channel_in": own["n_channel_in"],
        "n_channel_out": own["n_channel_out"],
        "probabilistic": meta["probabilistic"],
        "normalisation": {"rule": "none", **normalisation}
        if raw
        else {"rule": "fiji", "pmin": normalisation["pmin"], "pmax": normalisation["pmax"]},
        "range": "raw" if raw else "normalised",
        "size_multiple": own["size_multiple"],
        # The reach, a side; tiles are cut with so much around them. None: an output pixel sees the whole axis.
        "halo": dict(zip(source.space, geometry.receptive_field, strict=True)),
        "lost_axis": "" if geometry.dropped is None else source.space[geometry.dropped],
        "factor": source.config.factor if source.config else None,
        "bytes_per_pixel": _bytes_per_pixel(content, geometry) if content else None,
        "saved_model_sha256": hashlib.sha256(saved_model).hexdigest(),
        "onnx_sha256": hashlib.sha256(content).hexdigest() if content else None,
        "onnx_input": INPUT,
        "onnx_output": OUTPUT,
        "no_onnx": reason,
    }
    said = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    return ({ONNX: content} if content else {}) | {ONNX_META: said.encode()}


def why_no_onnx(entries: Mapping[str, bytes]) -> str:
    """Why `beside` gave no network; "" where it did."""
    return str(json.loads(entries[ONNX_META])["no_onnx"])


def _onnx(
    source: Source, geometry: Geometry, own: Mapping[str, Any], *, probabilistic: bool
) -> tuple[bytes, str]:
    """The network, and why there is none."""
    from care_bridge.export.onnx import check_against_keras, onnx_bytes

    graph = freeze(source.network, target=None)
    inside = source.scale is not None
    percentiles = None if inside else (own["normalisation"]["pmin"], own["normalisation"]["pmax"])
    try:
        content = onnx_bytes(
            graph,
            space=source.space,
            percentiles=percentiles,
            probabilistic=probabilistic,
            scale_inside=inside,
        )
        check_against_keras(content, source, graph, geometry)
    except (InputError, NotInstalledError) as error:
        return b"", str(error)
    return content, ""


def _bytes_per_pixel(content: bytes, geometry: Geometry) -> int:
    """Memory that a run takes for each pixel of the input: the most values that live at once, node by node."""
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(content)
    nodes = model.graph.node
    made = [name for node in nodes for name in node.output if name and name != OUTPUT]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    *_, channels = shape = session.get_inputs()[0].shape
    sizes = [
        fixed if isinstance(fixed, int) else multiple * -(-32 // multiple)
        for fixed, multiple in zip(shape[1:-1], geometry.size_multiple, strict=True)
    ]
    image = np.zeros((1, *sizes, channels), np.float32)
    wanted = [OUTPUT, *made]
    # The list alone is looked at, array by array: the values are of no interest.
    found = dict(zip(wanted, session.run(wanted, {INPUT: image}), strict=True))
    taken = {INPUT: image.nbytes} | {name: np.asarray(value).nbytes for name, value in found.items()}
    last = {name: number for number, node in enumerate(nodes) for name in node.input}
    live, most = image.nbytes, image.nbytes
    for number, node in enumerate(nodes):
        live += sum(taken.get(name, 0) for name in node.output)
        most = max(most, live)
        gone = {name for name in (*node.input, *node.output) if last.get(name, -1) <= number}
        live -= sum(taken.get(name, 0) for name in gone - {OUTPUT})
    return int(most // (image.nbytes // (4 * channels)))


def _said_by_people(folder: Path | None) -> dict[str, str]:
    """What a model restores, and its licence, from the model.toml and datasheet.toml in its folder; "" where neither is."""
    said = {"title": "", "restores": "", "licence": ""}
    if folder is None or not folder.is_dir():
        return said
    for file, keys in (
        ("model.toml", {"name": "title", "description": "restores", "license": "licence"}),
        ("datasheet.toml", {"restores": "restores"}),
    ):
        try:
            written = text.parse((folder / file).read_bytes(), "TOML", name=file)
        except (OSError, InputError):
            continue  # a model is exported without them, and a package says what is wrong with them
        said |= {ours: written[key] for key, ours in keys.items() if isinstance(written.get(key), str)}
    return said
