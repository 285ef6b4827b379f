"""A bundle really run: in TensorFlow 1.x, by the plugin's steps, in tiles and twice in a row."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.bundle import Bundle
from care_bridge.checking.report import Findings, brief
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.java.tf1 import Tf1Network, Tf1Session
from care_bridge.plugin.emulation import run_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginError
from care_bridge.predictor import Network, Runtime, Tensor, UnhintedNetwork
from care_bridge.reach import Geometry, measured_geometry
from care_bridge.tiling import round_up

TOLERANCE_ONCE, TOLERANCE_TWICE = 2e-5, 5e-5
"""Largest difference, in parts of the output's range, between runs that should agree."""


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


def run_bundle(
    bundle: Bundle, findings: Findings, versions: Sequence[str], given: Sequence[Tf1Session]
) -> None:
    """Run an unpacked bundle in every version, and hold the results against the bare network's and each other."""
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
            with findings.stage(f"TensorFlow {version} runs it to the end", "export the model again"):
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
    from care_bridge.inference.savedmodel import graph_before, graph_in

    rank = len(bundle.signature.inputs[0].shape or ())
    feed, fetch = (tensors[0].name for tensors in (bundle.signature.inputs, bundle.signature.outputs))
    try:
        geometry = measure(with_ends_named(graph_before(graph_in(bundle.path), fetch), feed, fetch))
    except Exception:
        # A graph with variables or sizes of its own kind: ask the running network instead.
        running = measured_geometry(_declared_free(bundle, network))
        geometry = running or Geometry((1,) * (rank - 2), (0,) * (rank - 2))
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
        options = PluginOptions(
            nTiles=tiles, blockMultiple=max(block, 4), overlap=round_up(16, max(block, 4))
        )
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
    pads = [(0, round_up(size, block) - size) for size in sizes]
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


def _seams(seen: Network, space: str, channels: int, reach: _Reach, version: str, findings: Findings) -> None:
    block = reach.block
    overlap = None if reach.pixels is None else round_up(reach.pixels, block)
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
    side = round_up(2 * overlap + 4 * block, 2 * block)
    sizes = (side,) * len(space) if space == "YX" else (round_up(24, 2 * block), side, side)
    axes, image = _image(space, sizes, channels)
    try:
        one, tiled = (
            run_plugin(
                seen, image, axes, options=PluginOptions(nTiles=tiles, blockMultiple=block, overlap=overlap)
            ).data
            for tiles in (1, 4)
        )
    except PluginError as error:
        findings.add(f"Tiles show no seams in TensorFlow {version}", False, brief(error), _KEEP)
        return
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
