"""Judging a bundle: unpacked as the CSBDeep plugin unpacks it, run in TensorFlow 1.12 and 1.15 as it runs
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.bundle import SAVED_MODEL, SIGNATURE, TAG, Bundle, read_bundle
from care_bridge.checking.report import CheckReport, Findings
from care_bridge.defaults import TF1_OF_FIJI
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.java.tf1 import Tf1Network, Tf1Session
from care_bridge.plugin.emulation import PluginError, run_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.unzipping import AGAIN, unpack
from care_bridge.predictor import Network, Runtime, Tensor, UnhintedNetwork
from care_bridge.reach import measured_receptive_field, measured_size_multiple

TOLERANCE_ONCE, TOLERANCE_TWICE = 2e-5, 5e-5
"""Largest difference, in parts of the output's range, between runs that should agree."""

PBTXT = "saved_model.pbtxt"
_FLOAT = 1


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
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        bundle = _layout(path, Path(folder), findings)
        if bundle is not None and _signature(bundle, findings):
            _operations(bundle, findings, versions)
            _runs(bundle, findings, versions, sessions)
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


# --- operations


def _operations(bundle: Bundle, findings: Findings, versions: Sequence[str]) -> None:
    from care_bridge.export.graph import lacking
    from care_bridge.inference.savedmodel import graph_in

    graph = graph_in(bundle.path)
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


# --- really run


@dataclasses.dataclass(frozen=True)
class _Declared(UnhintedNetwork):
    """A network under the shapes that its signature declares; the plugin goes by those, TensorFlow by the
    graph.
    """

    network: Network
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]

    @property
    def runtime(self) -> Runtime:
        return self.network.runtime

    def __call__(self, tensor: Tensor) -> Tensor:
        return self.network(tensor)


def _runs(bundle: Bundle, findings: Findings, versions: Sequence[str], given: Sequence[Tf1Session]) -> None:
    results: dict[str, dict[str, NDArray[np.float32]]] = {}
    reach: _Reach | None = None
    for version in versions:
        with contextlib.ExitStack() as stack:
            try:
                session = next((s for s in given if s.version == version), None)
                session = session or stack.enter_context(Tf1Session(version))
                network = stack.enter_context(session.open(_free(bundle)))
            except NotInstalledError as error:
                findings.add(f"TensorFlow {version} loads and runs it", None, "it is not here", str(error))
                continue
            except (WorkerError, InputError) as error:
                findings.add(
                    f"TensorFlow {version} loads it",
                    False,
                    _brief(error, bundle),
                    "mend the operations named above",
                )
                continue
            findings.add(f"TensorFlow {version} loads it", True, f"loaded by {network.runtime}")
            reach = reach or _measure(bundle, network)
            results[version] = _run_in(bundle, network, reach, version, findings)
    _agree(results, findings)


@dataclasses.dataclass(frozen=True)
class _Reach:
    """What the network does to sizes, and how far it sees: pixels each side, None the whole image."""

    block: int
    pixels: int | None


def _measure(bundle: Bundle, network: Network) -> _Reach:
    from care_bridge.export.graph import with_ends_named
    from care_bridge.export.probe import measure
    from care_bridge.inference.savedmodel import graph_in

    rank = len(bundle.signature.inputs[0].shape or ())
    space = "ZYX"[-(rank - 2) :]
    ends = (tensors[0].name for tensors in (bundle.signature.inputs, bundle.signature.outputs))
    try:
        geometry = measure(with_ends_named(graph_in(bundle.path), *ends))
    except Exception:
        # A graph with variables or sizes of its own kind: ask the running network instead.
        free = _declared_free(bundle, network)
        multiple = measured_size_multiple(free, space)
        return _Reach(max(multiple.values()), max(measured_receptive_field(free, space, multiple).values()))
    return _Reach(geometry.block_multiple, geometry.overlap)


def _declared_free(bundle: Bundle, network: Network) -> _Declared:
    first, last = (tensors[0].shape or () for tensors in (bundle.signature.inputs, bundle.signature.outputs))
    return _Declared(network, (*[None] * (len(first) - 1), first[-1]), (*[None] * (len(last) - 1), last[-1]))


def _free(bundle: Bundle) -> Bundle:
    """The same bundle without declared shapes, so that the graph alone decides what it takes."""
    graphs = []
    for graph in bundle.graphs:
        signatures = {
            name: dataclasses.replace(
                signature,
                inputs=tuple(dataclasses.replace(tensor, shape=None) for tensor in signature.inputs),
                outputs=tuple(dataclasses.replace(tensor, shape=None) for tensor in signature.outputs),
            )
            for name, signature in graph.signatures.items()
        }
        graphs.append(dataclasses.replace(graph, signatures=signatures))
    return dataclasses.replace(bundle, graphs=tuple(graphs))


def _brief(error: Exception, bundle: Bundle) -> str:
    text = " ".join(str(error).replace(str(bundle.path), "it").split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _run_in(
    bundle: Bundle, network: Tf1Network, reach: _Reach, version: str, findings: Findings
) -> dict[str, NDArray[np.float32]]:
    first, last = (tensors[0].shape or () for tensors in (bundle.signature.inputs, bundle.signature.outputs))
    seen, free = _Declared(network, first, last), _declared_free(bundle, network)
    space = "ZYX"[-(len(first) - 2) :]
    channels, block = first[-1] or 1, reach.block
    results: dict[str, NDArray[np.float32]] = {}
    projects = len(last) < len(first)
    for name, sizes, tiles in _cases(space, projects):
        axes, image = _image(space, sizes, channels)
        options = PluginOptions(nTiles=tiles, blockMultiple=max(block, 4), overlap=_round(16, max(block, 4)))
        what = f"{'x'.join(map(str, sizes))} pixels, {tiles} tile{'s' * (tiles > 1)}"
        try:
            result = run_plugin(seen, image, axes, options=options).data
        except PluginError as error:
            findings.add(
                f"TensorFlow {version} gives a full result",
                False,
                f"{what}: {error.reason[:300]}",
                _sizes_remedy(error.reason),
            )
            continue
        results[name] = result
        problem = _wrong(free, image, axes, result, options, whole=tiles == 1, projects=projects)
        if problem:
            findings.add(f"TensorFlow {version} gives the right result", False, f"{what}: {problem}", _KEEP)
        else:
            findings.add(
                f"TensorFlow {version} gives a full and right result",
                True,
                f"{what}: all values as the network's",
            )
    if projects:
        findings.add(
            "It may be cut into tiles",
            False,
            "a projection sees whole stacks",
            "type nTiles=1",
            decisive=False,
        )
    elif len(results) == len(_cases(space, projects)):
        _seams(seen, space, channels, reach, version, findings)
        _twice(seen, results, space, channels, block, version, findings)
    return results


_KEEP = "Fiji cuts or mirrors what does not fit, without a word; export a network that keeps the image's size"


def _sizes_remedy(reason: str) -> str:
    if "zero" in reason:
        return _KEEP
    return "look for fixed sizes, missing placeholders or an operation that fails; export the model again"


def _cases(space: str, projects: bool) -> list[tuple[str, tuple[int, ...], int]]:
    if space == "YX":
        return [("64_t1", (64, 64), 1), ("64_t4", (64, 64), 4), ("40x44_t1", (40, 44), 1)]
    cases: list[tuple[str, tuple[int, ...], int]]
    cases = [("16x32_t1", (16, 32, 32), 1), ("12x24x28_t1", (12, 24, 28), 1)]
    return cases if projects else [*cases, ("16x32_t4", (16, 32, 32), 4)]


def _image(space: str, sizes: Sequence[int], channels: int) -> tuple[str, NDArray[np.float32]]:
    """Axes and pixels: waves and noise in camera counts; channels first, as Fiji has them."""
    image: NDArray[Any]
    random = np.random.default_rng(7)
    grid = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    waves = sum(np.sin(axis / (3 + number)) for number, axis in enumerate(grid))
    image = 400 + 90 * waves + random.normal(0, 25, (channels, *sizes))
    image = np.asarray(np.round(image), np.float32)
    return (f"C{space}", image) if channels > 1 else (space, image[0])


def _normalised(image: NDArray[np.float32], axes: str, options: PluginOptions) -> NDArray[np.float32]:
    from care_bridge.normalize import FIJI, normalize

    if not options.normalizeInput:
        return image
    low, high = options.percentileBottom, options.percentileTop
    return normalize(image, rule=FIJI, pmin=low, pmax=high, axes=axes)[0]


def _wrong(
    network: Network,
    image: NDArray[np.float32],
    axes: str,
    result: NDArray[np.float32],
    options: PluginOptions,
    *,
    whole: bool,
    projects: bool,
) -> str:
    """What is wrong with a result of the plugin; empty if nothing is."""
    if not np.isfinite(result).all():
        return f"{np.mean(~np.isfinite(result)):.1%} of the values are not numbers"
    pixels = _normalised(image, axes, options)
    tensor = pixels[..., None] if "C" not in axes else np.moveaxis(pixels, 0, -1)
    sizes = tensor.shape[:-1]
    block = options.blockMultiple
    pads = [(0, _round(size, block) - size) for size in sizes]
    if any(size is not None for size in network.input_shape[1:-1]):
        pads = [(0, 0)] * len(sizes)
    padded = np.pad(tensor, [*pads, (0, 0)], mode="symmetric")[None]
    bare = network(padded)[0]
    expected_sizes = padded.shape[2:-1] if projects else padded.shape[1:-1]
    if bare.shape[:-1] != expected_sizes:
        return f"the network makes {bare.shape[:-1]} pixels of {padded.shape[1:-1]}"
    kept = sizes[1:] if projects else sizes
    bare = bare[tuple(slice(size) for size in kept)]
    bare = np.moveaxis(bare, -1, 0 if "C" in axes else -1).squeeze()
    if sorted(result.shape) != sorted(bare.shape):
        return f"the result has shape {result.shape}, the image {image.shape}"
    if result.shape != bare.shape and bare.ndim == result.ndim:
        bare = np.moveaxis(bare, -1, 0)
    if not whole:
        return ""  # tiles see mirrored margins: looked at apart, with the overlap that is recommended
    off = float(np.abs(result - bare).max()) / max(float(np.ptp(bare)), 1e-6)
    return (
        "" if off <= TOLERANCE_ONCE else f"it differs from the network's own result by {off:.3g} of the range"
    )


def _round(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _seams(seen: Network, space: str, channels: int, reach: _Reach, version: str, findings: Findings) -> None:
    block = reach.block
    overlap = None if reach.pixels is None else _round(reach.pixels, block)
    findings.facts |= {"blockMultiple": block, "overlap": overlap}
    limit = 160 if space == "YX" else 48
    if overlap is None or overlap > limit:
        findings.add(
            f"Tiles show no seams in TensorFlow {version}",
            None,
            "an output pixel sees the whole image" if overlap is None else f"it sees {overlap} pixels far",
            "use one tile (nTiles=1)",
            decisive=False,
        )
        return
    side = _round(2 * overlap + 4 * block, 2 * block)
    sizes = (side,) * len(space) if space == "YX" else (_round(24, 2 * block), side, side)
    axes, image = _image(space, sizes, channels)
    one, tiled = (
        run_plugin(
            seen, image, axes, options=PluginOptions(nTiles=tiles, blockMultiple=block, overlap=overlap)
        ).data
        for tiles in (1, 4)
    )
    # Tiles see mirrored pixels outside the image, one tile sees zeros: only the rim may differ.
    inside = tuple(
        slice(overlap, -overlap or None) if size == side and overlap else slice(None) for size in one.shape
    )
    difference = float(np.abs(one - tiled)[inside].max(initial=0)) / max(float(np.ptp(one)), 1e-6)
    findings.add(
        f"Tiles show no seams in TensorFlow {version}",
        difference <= TOLERANCE_ONCE,
        f"{'x'.join(map(str, sizes))} pixels, 4 tiles, blockMultiple {block}, overlap {overlap}: differs by "
        f"{difference:.2g} of the range from one tile, a rim of {overlap} pixels left out",
        "use one tile (nTiles=1), or a larger overlap",
        decisive=False,
    )


def _twice(
    seen: Network,
    results: dict[str, NDArray[np.float32]],
    space: str,
    channels: int,
    block: int,
    version: str,
    findings: Findings,
) -> None:
    name = next(iter(results))
    once = results[name]
    out = once.shape[0 if once.ndim > len(space) else -1] if once.ndim > len(space) else 1
    if out != channels:
        findings.add(
            f"It can be applied twice in TensorFlow {version}",
            None,
            f"{channels} channels in, {out} out",
            "take the first channels of the result (the means of a probabilistic network) before the second "
            "run",
            decisive=False,
        )
        return
    axes = f"C{space}" if channels > 1 else space
    options = PluginOptions(nTiles=1, blockMultiple=max(block, 4), overlap=0)
    try:
        twice = run_plugin(seen, once, axes, options=options).data
    except PluginError as error:
        findings.add(f"It can be applied twice in TensorFlow {version}", False, error.reason[:300], _KEEP)
        return
    results["twice"] = twice
    findings.add(
        f"It can be applied twice in TensorFlow {version}",
        bool(np.isfinite(twice).all()) and twice.shape == once.shape,
        f"its own result fed back, normalised again: values {twice.min():.3g} to {twice.max():.3g}",
        "the second run gives values that are not numbers",
    )


def _agree(results: dict[str, dict[str, NDArray[np.float32]]], findings: Findings) -> None:
    if len(results) < 2:
        return
    versions = list(results)
    for twice in (False, True):
        off = 0.0
        compared = 0
        for name in results[versions[0]]:
            if (name == "twice") is not twice or name not in results[versions[-1]]:
                continue
            one, other = results[versions[0]][name], results[versions[-1]][name]
            off = max(off, float(np.abs(one - other).max()) / max(float(np.ptp(other)), 1e-6))
            compared += 1
        if compared:
            limit = TOLERANCE_TWICE if twice else TOLERANCE_ONCE
            findings.add(
                f"TensorFlow {versions[0]} and {versions[-1]} agree {'twice in a row' if twice else 'once'}",
                off <= limit,
                f"largest difference {off:.2g} of the range, {limit:g} allowed",
                "an operation behaves differently in the two; rebuild that layer",
            )
