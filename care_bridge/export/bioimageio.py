"""The BioImage.IO package: one model, written once, for the zoo, deepImageJ, bioimageio.core and Fiji."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import yaml
from numpy.typing import NDArray

from care_bridge import __version__
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.export import facts
from care_bridge.export.cost import inference_cost
from care_bridge.export.graph import freeze, run, signature
from care_bridge.export.metadata import FILE, ModelCard, check_card, read_card
from care_bridge.export.onnx import OPSET, check_against_keras, onnx_bytes
from care_bridge.export.probe import Geometry, measure, round_up
from care_bridge.export.savedmodel import bundle_bytes, check_written, describe
from care_bridge.export.source import Model, Source, open_source
from care_bridge.files import atomic_file
from care_bridge.images import Image, read_image
from care_bridge.inference.onnx import OnnxNetwork
from care_bridge.page import NOT_FOR_QUANTIFICATION
from care_bridge.training.folder import weights_in

RDF = "rdf.yaml"
FORMAT_VERSION = "0.5.10"
"""The last form that bioimageio.core 0.9 to 0.11 and deepImageJ all read."""

TENSORFLOW_1 = "1.15"
"""As a text of two numbers: with "1.15.0" deepImageJ may take the ONNX weights, and its engine ends Fiji."""

EPS = 1e-6
PMIN, PMAX = 3.0, 99.8
"""Percentiles written down: the plugin's defaults, so that Fiji and the package agree."""

RANK_TOLERANCE = 1e-6
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CARE = {
    "text": "Weigert et al., Content-aware image restoration: pushing the limits of fluorescence microscopy, "
    "Nature Methods 15, 1090-1097 (2018)",
    "doi": "10.1038/s41592-018-0216-7",
}


@dataclass(frozen=True)
class Package:
    """A package that was written.

    Attributes
    ----------
    path : Path
    completeness : float
        Share of the metadata that is filled, 0-1, by the zoo's own formula.
    to_fill : tuple of str
        Keys of model.toml that only people can fill and nobody did, each with what to write.
    """

    path: Path
    completeness: float
    to_fill: tuple[str, ...] = ()


def write_package(
    model: Model,
    path: str | os.PathLike[str],
    *,
    metadata: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    test_image: str | os.PathLike[str] | Image | None = None,
    ground_truth: str | os.PathLike[str] | Image | None = None,
    pmin: float | None = None,
    pmax: float | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> Package:
    """Write a model as a package that the BioImage.IO readers and Fiji open.

    Parameters
    ----------
    model : keras.Model, CareModel or path
        See `source.open_source`.
    path : path
        The zip; a name without `.zip` is a folder, and the package in it is called after the model.
    metadata : path or mapping, optional
        model.toml, or its content. None looks for model.toml in the model folder.
    test_image : path or Image, optional
        Shown on the cover and shipped as test and sample; cropped so that all readers' percentiles agree.
        None draws one.
    ground_truth : path or Image, optional
        What the test image should become; makes an evaluation (PSNR before and after). None leaves the errors
        on the validation patches of training.
    pmin, pmax : float, optional
        Percentiles written down; None takes 3 and 99.8, Fiji's defaults.
    custom_objects : mapping, optional
        Layers of your own by name, for a Keras file that needs them.

    Raises
    ------
    InputError
        All that is missing in the metadata at once; or what a format cannot hold. Nothing is left at `path`.
    NotInstalledError
        If the packages of the zoo are missing.

    Notes
    -----
    Weights: `keras_hdf5`, `tensorflow_saved_model_bundle` (opens in "Run your network" as it is) and `onnx`,
    with the `.keras` file attached. Output stays in normalised units: no reader can undo percentiles.
    """
    source = open_source(model, custom_objects=custom_objects)
    card = _card(metadata, source)
    low, high = (PMIN if pmin is None else pmin), (PMAX if pmax is None else pmax)
    if not 0 <= low < high <= 100:
        raise InputError(f"pmin={low} must be below pmax={high}, both of 0-100")
    graph = freeze(source.network)
    geometry = measure(graph)
    image, truth = _test_pair(test_image, ground_truth, source, geometry, low, high)
    tensor = _tensor(image, source)
    normalised = scale_range(tensor, low, high)
    output = np.asarray(source.network(normalised, training=False), np.float32)
    meta = describe(source, graph, geometry, pmin=low, pmax=high)
    rows = facts.history(source)
    results = _results(card, source, rows, truth, normalised, output)
    given = Path(path)
    target = given if given.suffix.lower() == ".zip" else given / f"{source.name}.bioimageio.zip"
    with tempfile.TemporaryDirectory(prefix="package-") as name, atomic_file(target) as part:
        folder = Path(name) / "parts"
        folder.mkdir()
        weights, others = _write_weights(folder, source, graph, geometry, meta, normalised)
        _write_tensors(folder, tensor, output)
        (folder / "cover.png").write_bytes(cover(tensor, output))
        (folder / "care_bridge.json").write_text(json.dumps(_way_back(source, meta), indent=1) + "\n")
        block = facts.bioimageio_block(
            source,
            card,
            nickname=_nickname(card),
            tolerances=[facts.tolerance(output, others)],
            evaluations=facts.named(results, card),
            rows=rows,
            cost=inference_cost(folder / f"{source.name}.onnx", folder / "test_input.npy"),
        )
        own = _own(source, card, geometry, tensor, low, high, results)
        rdf = _rdf(source, card, geometry, graph, weights, low, high)
        rdf["config"] = {"bioimageio": block, "care_bridge": own}
        (folder / "README.md").write_text(readme(source, card, meta, block, results), encoding="utf-8")
        (folder / RDF).write_text(_yaml(rdf), encoding="utf-8")
        packed = _saved_by_spec(folder / RDF, Path(name) / "packed")
        # Read again, as every reader will.
        completeness = validate(packed / RDF)
        _zip(packed, part)
    return Package(target, completeness, facts.to_fill(rdf))


# --- the pieces


def _card(metadata: Any, source: Source) -> ModelCard:
    if isinstance(metadata, Mapping):
        return check_card(dict(metadata))
    if metadata is not None:
        return read_card(metadata)
    folder = source.path if source.path is not None and source.path.is_dir() else None
    folder = folder or (source.path.parent if source.path else Path())
    return read_card(folder / FILE)


def _write_weights(
    folder: Path,
    source: Source,
    graph: Any,
    geometry: Geometry,
    meta: Mapping[str, Any],
    normalised: NDArray[np.float32],
) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """Every weights format into `folder`: the entries for the description, and what each makes of the image."""
    # A clone without its training: compiled models do not open elsewhere.
    with _quiet_keras():
        source.network.save(folder / f"{source.name}.h5", include_optimizer=False)
        source.network.save(folder / f"{source.name}.keras", include_optimizer=False)
    bundle = folder / f"{source.name}.zip"
    bundle.write_bytes(bundle_bytes(graph, meta))
    to_bundle = check_written(bundle, source, geometry)
    content = onnx_bytes(freeze(source.network, target=None), space=source.space)
    (folder / f"{source.name}.onnx").write_bytes(content)
    to_onnx = check_against_keras(content, source, graph, geometry)
    others = [run(graph, normalised), OnnxNetwork(content)(normalised)]
    entries = {
        "keras_hdf5": {
            "source": f"{source.name}.h5",
            "tensorflow_version": tf.__version__,
            "comment": f"Whole model without its training, written by Keras {keras.__version__}.",
        },
        "tensorflow_saved_model_bundle": {
            "source": f"{source.name}.zip",
            "parent": "keras_hdf5",
            "tensorflow_version": TENSORFLOW_1,
            "comment": "Frozen graph without variables: runs in TensorFlow 1.12 to 2.x, and opens in Fiji's "
            f"Run your network; differs from Keras by {to_bundle:.1g} of the range. Written by TensorFlow "
            f"{tf.__version__}.",
        },
        "onnx": {
            "source": f"{source.name}.onnx",
            "parent": "keras_hdf5",
            "opset_version": OPSET,
            "comment": f"Differs from Keras by {to_onnx:.1g} of the range.",
        },
    }
    return entries, others


@contextmanager
def _quiet_keras() -> Iterator[None]:
    import logging

    import absl.logging

    logger = absl.logging.get_absl_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _way_back(source: Source, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `care-bridge import` needs to make a folder again."""
    config = source.config.to_json() if source.config else None
    return {"format_version": 1, "name": source.name, "config": config, "meta": dict(meta)}


def scale_range(tensor: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """What bioimageio.core makes of a tensor (batch, [z,] y, x, channel): percentiles over space."""
    axes = tuple(range(1, tensor.ndim - 1))
    bottom, top = (np.percentile(tensor, p, axis=axes, keepdims=True) for p in (low, high))
    return np.asarray((tensor - bottom) / (top - bottom + EPS), np.float32)


def ranks_agree(pixels: NDArray[Any], low: float, high: float) -> bool:
    """Whether linear, nearest-rank and floor percentiles of an image are the same two values."""
    values = np.sort(np.asarray(pixels, np.float64).ravel())
    n = values.size
    for p in (low, high):
        linear = float(np.percentile(values, p))
        nearest = values[
            int(np.clip(np.floor(np.float32(n - 1) * np.float32(p) / np.float32(100) + 0.5), 0, n - 1))
        ]
        floor = values[min(n - 1, int(n * p / 100))]
        span = max(values[-1] - values[0], 1e-12)
        if max(abs(linear - nearest), abs(linear - floor)) > RANK_TOLERANCE * span:
            return False
    return True


def _test_pair(
    image: Any, truth: Any, source: Source, geometry: Geometry, low: float, high: float
) -> tuple[Image, Image | None]:
    if image is None:
        if truth is not None:
            raise InputError("a ground truth needs its test image; give both")
        return drawn_test_image(source, geometry, low, high), None
    picture = image if isinstance(image, Image) else read_image(image)
    wanted = None if truth is None else truth if isinstance(truth, Image) else read_image(truth)
    if wanted is not None and wanted.shape != picture.shape:
        raise InputError(
            f"the ground truth has shape {wanted.shape}, the test image {picture.shape}; give a pair"
        )
    return _crop(picture, wanted, source, geometry, low, high)


def _crop(
    image: Image, truth: Image | None, source: Source, geometry: Geometry, low: float, high: float
) -> tuple[Image, Image | None]:
    sizes = _test_sizes(source, geometry)
    limits = {axis: image.size(axis) for axis in source.space}
    chosen = {}
    for axis, multiple in zip(source.space, geometry.size_multiple, strict=True):
        chosen[axis] = min(sizes[axis], limits[axis] // multiple * multiple)
        if chosen[axis] < multiple:
            raise InputError(
                f"the test image has {limits[axis]} pixels along {axis}; at least {multiple} are needed"
            )
    cuts: list[dict[str, int]] = []
    for shift in range(0, 64, 7):
        cuts.append({axis: min(shift, limits[axis] - chosen[axis]) for axis in source.space})
    for start in cuts:
        index = tuple(
            slice(start[axis], start[axis] + chosen[axis]) if axis in chosen else slice(None)
            for axis in image.axes
        )
        part = image.replace(data=image.data[index])
        if ranks_agree(part.data, low, high) or start == cuts[-1]:
            return part, None if truth is None else truth.replace(data=truth.data[index])
    raise AssertionError


def _test_sizes(source: Source, geometry: Geometry) -> dict[str, int]:
    wanted = {"Z": 16, "Y": 128, "X": 128} if len(source.space) == 3 else {"Y": 256, "X": 256}
    multiples = zip(source.space, geometry.size_multiple, strict=True)
    return {axis: round_up(wanted.get(axis, 16), multiple) for axis, multiple in multiples}


def drawn_test_image(source: Source, geometry: Geometry, low: float, high: float) -> Image:
    """Filaments of camera counts, in whole numbers, on which all percentiles agree."""
    sizes = _test_sizes(source, geometry)
    shape = tuple(sizes[axis] for axis in source.space)
    channels = source.network.inputs[0].shape[-1]
    for seed in range(50):
        random = np.random.default_rng(seed)
        grid = np.meshgrid(*(np.linspace(0, 1, size) for size in shape), indexing="ij")
        picture = np.zeros(shape)
        for _ in range(12):
            phase, slope, wave = random.random(3)
            line = grid[-2] - phase - (slope - 0.5) * grid[-1] - 0.1 * np.sin(6 * grid[-1] + 9 * wave)
            depth = np.exp(-(((grid[0] - random.random()) / 0.4) ** 2)) if len(shape) == 3 else 1.0
            picture += depth * np.exp(-((line / 0.012) ** 2))
        counts = random.poisson(12 + 60 * picture[..., None].repeat(channels, axis=-1))
        data = np.asarray(counts, np.uint16)
        if all(ranks_agree(data[..., channel], low, high) for channel in range(channels)):
            break
    axes = source.space + "C"
    return Image(data, axes, name="drawn filaments")


def _tensor(image: Image, source: Source) -> NDArray[np.float32]:
    from care_bridge.axes import move_axes

    data = move_axes(image.data, image.axes, source.space + "C")
    channels = source.network.inputs[0].shape[-1]
    if data.shape[-1] != channels:
        raise InputError(f"the test image has {data.shape[-1]} channels, the network takes {channels}")
    return np.asarray(data[None], np.float32)


def _write_tensors(folder: Path, tensor: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    from tifffile import imwrite

    for name, data in (("input", tensor), ("output", output)):
        np.save(folder / f"test_{name}.npy", data)
        imwrite(folder / f"sample_{name}.tif", data[0].squeeze(), metadata=None)


def cover(tensor: NDArray[np.float32], output: NDArray[np.float32]) -> bytes:
    """Input left, restored right, 2:1, each with its own contrast limits by the same percentiles; PNG."""
    from care_bridge.page import png

    halves = []
    for data in (tensor, output):
        plane = data[0, ..., 0]
        plane = plane.max(axis=0) if plane.ndim == 3 else plane
        side = min(plane.shape)
        plane = plane[:side, :side]
        low, high = np.percentile(plane, (1, 99.8))
        halves.append(np.clip((plane - low) / max(high - low, 1e-9), 0, 1).astype(np.float32))
    side = min(half.shape[0] for half in halves)
    return png(np.concatenate([half[:side, :side] for half in halves], axis=1), limits=(0.0, 1.0))


def _results(
    card: ModelCard,
    source: Source,
    rows: list[dict[str, float]],
    truth: Image | None,
    normalised: NDArray[np.float32],
    output: NDArray[np.float32],
) -> list[dict[str, Any]]:
    """What was measured: on the test image where there is a ground truth, else on the validation patches."""
    if truth is None:
        found = facts.validation_result(source, rows)
        return [] if found is None else [found]
    from care_bridge.axes import move_axes

    wanted = np.asarray(move_axes(truth.data, truth.axes, source.space + "C")[None], np.float32)
    if not normalised.shape == output.shape == wanted.shape:
        raise InputError(
            f"a ground truth of shape {wanted.shape} cannot be held against an input of {normalised.shape} and an "
            f"output of {output.shape}; leave it out and write [[evaluations]] into model.toml"
        )
    role = str(card.more.get("test_image_role", "unknown"))
    return [facts.test_result((normalised, output), scale_range(wanted, 0.1, 99.9), role=role)]


def _nickname(card: ModelCard) -> str:
    given = card.more.get("nickname")
    return str(given) if given else re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-")


def _written(source: Source) -> str:
    """When the weights were written; without a file, now."""
    seconds = None
    if source.path is not None and source.path.is_file():
        seconds = source.path.stat().st_mtime
    elif source.path is not None:
        seconds = max((file.stat().st_mtime for file in weights_in(source.path)), default=None)
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=0).isoformat()


def _rdf(
    source: Source,
    card: ModelCard,
    geometry: Geometry,
    graph: Any,
    weights: dict[str, Any],
    low: float,
    high: float,
) -> dict[str, Any]:
    inputs, outputs = signature(graph)
    space = source.space.lower()
    halo = halos(source, geometry)
    more = card.more
    authors = [dict(person) for person in card.authors]
    maintainers = [dict(person) for person in card.maintainers] or [
        p for p in authors if p.get("github_user")
    ]
    rdf: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": card.name,
        "description": card.description,
        "covers": ["cover.png"],
        "documentation": "README.md",
        "authors": authors,
        "packaged_by": [dict(person) for person in card.packaged_by],
        "maintainers": maintainers,
        "cite": [*card.cite, *([] if any("s41592-018-0216-7" in str(c) for c in card.cite) else [_CARE])],
        "license": card.license,
        "tags": _tags(card, len(space)),
        "links": more.get("links", ["deepimagej/deepimagej", "ilastik/ilastik"]),
        "timestamp": str(more.get("timestamp") or _written(source)),
        "attachments": [{"source": name} for name in (f"{source.name}.keras", "care_bridge.json")],
        "inputs": [_input(space, inputs, geometry, halo, low, high, more)],
        "outputs": [_output(space, outputs, geometry, halo, source, more)],
        "weights": {name: {**entry, "authors": authors} for name, entry in weights.items()},
    }
    for key in ("version", "version_comment"):
        if key in more:
            rdf[key] = str(more[key])
    for key in ("git_repo", "uploader", "parent"):
        if key in more:
            rdf[key] = more[key]
    if "training_data" in more:
        # Its address belongs to the evaluations: the format takes an id here, or a whole description.
        rdf["training_data"] = {key: value for key, value in more["training_data"].items() if key != "source"}
    return {key: value for key, value in rdf.items() if value not in ([], None)}


def _tags(card: ModelCard, n_dim: int) -> list[str]:
    fixed = [card.modality, f"{n_dim}d", card.content, "tensorflow", "fiji", "deepimagej", "unet"]
    task = [card.task] if card.task != "denoising" else ["denoising"]
    tags = [*fixed, *task, "image-restoration", "care", "csbdeep", *card.more.get("tags", [])]
    return list(dict.fromkeys(tags))


def halos(source: Source, geometry: Geometry) -> dict[str, int]:
    """Halo a space axis: the receptive field up to the next multiple of the step, one step along Z.

    Notes
    -----
    deepImageJ needs multiples of the step (others shift the pooling grid), and fails on stacks thinner than
    about the halo: so Z gets a small one of its own.
    """
    found = {}
    for axis, multiple, reach in zip(
        source.space, geometry.size_multiple, geometry.receptive_field, strict=True
    ):
        if source.space.index(axis) == geometry.dropped or reach is None:
            found[axis.lower()] = 0
        elif axis in "ZT":
            found[axis.lower()] = min(round_up(reach, multiple), max(multiple, 2))
        else:
            found[axis.lower()] = round_up(reach, multiple)
    return {
        axis: round_up(halo, m) for (axis, halo), m in zip(found.items(), geometry.size_multiple, strict=True)
    }


def _input(
    space: str, shape: Any, geometry: Geometry, halo: Mapping[str, int], low: float, high: float, more: Any
) -> dict[str, Any]:
    axes: list[dict[str, Any]] = [{"id": "batch", "type": "batch"}]
    for axis, step in zip(space, geometry.size_multiple, strict=True):
        least = round_up(2 * halo[axis] + 1, step)
        axes.append({"id": axis, "type": "space", "size": {"min": least, "step": step}, "concatenable": True})
    names = more.get("input_channels") or [f"channel {n}" for n in range(shape[-1])]
    names = names if shape[-1] > 1 or "input_channels" in more else ["low quality"]
    axes.append({"id": "channel", "type": "channel", "channel_names": identifiers(names)})
    return {
        "id": "input",
        "description": "image of low quality, in camera counts",
        "axes": axes,
        "test_tensor": {"source": "test_input.npy"},
        "sample_tensor": {"source": "sample_input.tif"},
        "data": {"type": "float32", "range": [0.0, None], "unit": "arbitrary unit"},
        "preprocessing": [
            {
                "id": "scale_range",
                "kwargs": {"axes": list(space), "min_percentile": low, "max_percentile": high, "eps": EPS},
            }
        ],
    }


def _output(
    space: str, shape: Any, geometry: Geometry, halo: Mapping[str, int], source: Source, more: Any
) -> dict[str, Any]:
    axes: list[dict[str, Any]] = [{"id": "batch", "type": "batch"}]
    for number, axis in enumerate(space):
        if number == geometry.dropped:
            continue
        size = {"tensor_id": "input", "axis_id": axis}
        entry: dict[str, Any] = {"id": axis, "type": "space", "size": size}
        if halo[axis]:
            entry["halo"] = halo[axis]
        axes.append(entry)
    names = more.get("output_channels") or _output_names(shape[-1], source)
    axes.append({"id": "channel", "type": "channel", "channel_names": identifiers(names)})
    return {
        "id": "output",
        "description": "restored image in normalised units: 0 and 1 are the input's two percentiles",
        "axes": axes,
        "test_tensor": {"source": "test_output.npy"},
        "sample_tensor": {"source": "sample_output.tif"},
        "data": {"type": "float32"},
    }


def identifiers(names: Iterable[Any]) -> list[str]:
    """Channel names as bioimageio.spec before 0.5.12 takes them: "GFP low SNR" becomes GFP_low_SNR.

    Notes
    -----
    Seen with bioimageio.core 0.9.6 and 0.10.4: "not a valid (Python) identifier" ends the whole description.
    """
    plain = [re.sub(r"\W+", "_", str(name)).strip("_") for name in names]
    return [name if name.isidentifier() else f"channel_{name or number}" for number, name in enumerate(plain)]


def _output_names(channels: int, source: Source) -> list[str]:
    if source.config is not None and source.config.probabilistic:
        half = channels // 2
        suffix = [""] if half == 1 else [f" {n}" for n in range(half)]
        return [f"{word}{s}" for word in ("mean", "scale") for s in suffix]
    return ["restored"] if channels == 1 else [f"restored {n}" for n in range(channels)]


def _own(
    source: Source,
    card: ModelCard,
    geometry: Geometry,
    tensor: NDArray[np.float32],
    low: float,
    high: float,
    results: list[dict[str, Any]],
) -> dict[str, Any]:
    """`config.care_bridge`: what the zoo has no key for."""
    own: dict[str, Any] = {
        "version": __version__,
        "keras_version": keras.__version__,
        "axes": f"{source.space}C",
        "percentiles": [low, high],
        "receptive_field_px": [
            reach if reach is not None else "whole image" for reach in geometry.receptive_field
        ],
        "test_image_percentiles_agree": all(
            ranks_agree(tensor[..., channel], low, high) for channel in range(tensor.shape[-1])
        ),
    }
    if "pixel_size_um" in card.more:
        own["pixel_size_um"] = card.more["pixel_size_um"]
    made_of = facts.provenance(source)
    if made_of:
        own["training"] = made_of
    if results:
        own["results"] = [entry["results_summary"] for entry in results]
    return own


def _yaml(rdf: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(rdf), sort_keys=False, allow_unicode=True)


def _saved_by_spec(rdf: Path, folder: Path) -> Path:
    """Let bioimageio.spec build the description, gather its files with their hashes and save them; then widen."""
    description, context = _description(rdf)
    from bioimageio import spec

    with offline(rdf), context, warnings.catch_warnings():
        # It warns of every mapping that it first takes for something else.
        warnings.simplefilter("ignore")
        spec.save_bioimageio_package_as_folder(description, output_path=folder)
    saved = folder / RDF
    saved.write_text(_yaml(widen(yaml.safe_load(saved.read_text(encoding="utf-8")))), encoding="utf-8")
    return folder


def widen(rdf: Mapping[str, Any]) -> dict[str, Any]:
    """A description as bioimageio.spec 0.5.12 saves it, in the form that older readers read too.

    Parameters
    ----------
    rdf : mapping

    Notes
    -----
    Since 0.5.11 `documentation` and `covers` are mappings with a hash: bioimageio.core up to 0.10 calls that
    invalid and deepImageJ stops with a ClassCastException (deepimagej-recorded). Every reader of 0.5 adds the
    `ensure_dtype` steps by itself, which nobody has to read then.
    """
    wide = {**rdf, "format_version": FORMAT_VERSION}
    if isinstance(wide.get("documentation"), Mapping):
        wide["documentation"] = wide["documentation"]["source"]
    wide["covers"] = [
        cover["source"] if isinstance(cover, Mapping) else cover for cover in wide.get("covers", [])
    ]
    for side, steps in (("inputs", "preprocessing"), ("outputs", "postprocessing")):
        tensors = [dict(tensor) for tensor in wide[side]]
        for tensor in tensors:
            kept = [step for step in tensor.pop(steps, []) if step["id"] != "ensure_dtype"]
            if kept:
                tensor[steps] = kept
        wide[side] = tensors
    return wide


def validate(rdf: Path) -> float:
    """Build bioimageio.spec's own description of a package, offline; its completeness, 0-1.

    Raises
    ------
    InputError
        Every complaint of the format at once.
    """
    return float(_description(rdf)[0].validation_summary.metadata_completeness)


def _description(rdf: Path) -> tuple[Any, Any]:
    """The description by bioimageio.spec's classes, and the context that it was built in."""
    try:
        with offline(rdf):
            from bioimageio import spec

            context = spec.ValidationContext(
                root=rdf.parent,
                file_name=rdf.name,
                known_files=dict.fromkeys(urls(rdf)),
                perform_io_checks=True,
            )
            with context, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                description = spec.load_description(rdf, format_version="latest")
    except ImportError as error:
        raise NotInstalledError(
            f"packages need bioimageio.core: pip install 'care-bridge[zoo]' ({error})"
        ) from None
    if not isinstance(description, spec.InvalidDescr):
        return description, context
    summary = description.validation_summary
    if "SerializationInfo" in str(summary.details):
        raise NotInstalledError(
            "this bioimageio.spec cannot work with the pydantic that is installed: pip install 'pydantic<2.14'"
        )
    problems = [
        f"{'.'.join(map(str, error.loc))}: {error.msg}"
        for detail in summary.details
        for error in detail.errors
    ]
    raise InputError("the package is not valid:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems)))


@contextmanager
def offline(rdf: Path) -> Iterator[None]:
    """Let bioimageio.spec ask nobody: GitHub names are taken as known while this lasts.

    What bioimageio.core writes into the environment meanwhile is taken back: `KERAS_BACKEND=torch` would end every
    process that is started later from this one and imports Keras.
    """
    before = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")}
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from bioimageio.spec._internal import constants

    names = {
        name.lower() for name in re.findall(r"github_user:\s*['\"]?([\w-]+)", rdf.read_text(encoding="utf-8"))
    }
    added = names - constants.KNOWN_GITHUB_USERS
    constants.KNOWN_GITHUB_USERS |= added
    try:
        yield
    finally:
        constants.KNOWN_GITHUB_USERS -= added
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def urls(rdf: Path) -> list[str]:
    """Every address in a description, as text."""
    return sorted(set(re.findall(r"https?://[^\s'\"<>]+", rdf.read_text(encoding="utf-8"))))


def _zip(folder: Path, path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for part in sorted(folder.iterdir(), key=lambda part: (part.name != RDF, part.name)):
            entry = zipfile.ZipInfo(part.name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, part.read_bytes())
    path.write_bytes(content.getvalue())


def readme(
    source: Source,
    card: ModelCard,
    meta: Mapping[str, Any],
    block: Mapping[str, Any],
    results: list[dict[str, Any]],
) -> str:
    """The package's README, from the same data as its metadata."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("care_bridge", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    own = meta["care_bridge"]
    return environment.get_template("package_readme.md.j2").render(
        card=card,
        bundle=f"{source.name}.zip",
        architecture=facts.architecture(source),
        fiji=own["fiji"],
        normalisation=own["normalisation"],
        outside=own["outside_the_graph"],
        parameters=own["training"]["parameters"],
        training=json.dumps(own["training"], indent=1),
        results=[
            str(entry["results_summary"])
            for entry in (*card.more.get("evaluations", []), *results)
            if entry.get("results_summary")
        ],
        block=block,
        warning=NOT_FOR_QUANTIFICATION,
    )
