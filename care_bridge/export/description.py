"""What stands in a package's rdf.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from care_bridge import __version__
from care_bridge.export import facts
from care_bridge.export.graph import signature
from care_bridge.export.metadata import ModelCard
from care_bridge.export.sample import EPS, halos, ranks_agree
from care_bridge.export.source import Source
from care_bridge.export.zoo_spec import FORMAT_VERSION
from care_bridge.reach import Geometry
from care_bridge.tiling import round_up
from care_bridge.training.folder import weights_in

_CARE = {
    "text": "Weigert et al., Content-aware image restoration: pushing the limits of fluorescence microscopy, "
    "Nature Methods 15, 1090-1097 (2018)",
    "doi": "10.1038/s41592-018-0216-7",
}


@dataclass(frozen=True)
class Subject:
    """What every part of a package tells of.

    Attributes
    ----------
    source : Source
        The model.
    card : ModelCard
        What people wrote about it.
    graph : GraphDef
        The model, frozen.
    geometry : Geometry
        Its sizes and reach.
    pmin, pmax : float
        Percentiles written down, 0-100.
    """

    source: Source
    card: ModelCard
    graph: Any
    geometry: Geometry
    pmin: float
    pmax: float


def rdf(subject: Subject, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The description without its `config`; `weights` has an entry a format."""
    source, card, geometry = subject.source, subject.card, subject.geometry
    inputs, outputs = signature(subject.graph)
    space = source.space.lower()
    halo = halos(source, geometry)
    more = card.more
    authors = [dict(person) for person in card.authors]
    maintainers = [dict(person) for person in card.maintainers] or [
        p for p in authors if p.get("github_user")
    ]
    found: dict[str, Any] = {
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
        "inputs": [_input(subject, space, inputs, halo)],
        "outputs": [_output(subject, space, outputs, halo)],
        "weights": {name: {**entry, "authors": authors} for name, entry in weights.items()},
    }
    for key in ("version", "version_comment"):
        if key in more:
            found[key] = str(more[key])
    for key in ("git_repo", "uploader", "parent"):
        if key in more:
            found[key] = more[key]
    if "training_data" in more:
        # Its address belongs to the evaluations: the format takes an id here, or a whole description.
        found["training_data"] = {
            key: value for key, value in more["training_data"].items() if key != "source"
        }
    return {key: value for key, value in found.items() if value not in ([], None)}


def _tags(card: ModelCard, n_dim: int) -> list[str]:
    fixed = [card.modality, f"{n_dim}d", card.content, "tensorflow", "fiji", "deepimagej", "unet"]
    task = [card.task] if card.task != "denoising" else ["denoising"]
    tags = [*fixed, *task, "image-restoration", "care", "csbdeep", *card.more.get("tags", [])]
    return list(dict.fromkeys(tags))


def _input(subject: Subject, space: str, shape: Any, halo: Mapping[str, int]) -> dict[str, Any]:
    more = subject.card.more
    axes: list[dict[str, Any]] = [{"id": "batch", "type": "batch"}]
    for axis, step in zip(space, subject.geometry.size_multiple, strict=True):
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
        "preprocessing": _preprocessing(subject, space),
    }


def _preprocessing(subject: Subject, space: str) -> list[dict[str, Any]]:
    if subject.source.scale is not None:
        return []
    own = subject.source.outside
    if own is not None:
        return [
            {
                "id": "fixed_zero_mean_unit_variance",
                "kwargs": {"mean": own.means[0], "std": own.stds[0]},
            }
        ]
    return [
        {
            "id": "scale_range",
            "kwargs": {
                "axes": list(space),
                "min_percentile": subject.pmin,
                "max_percentile": subject.pmax,
                "eps": EPS,
            },
        }
    ]


def _output(subject: Subject, space: str, shape: Any, halo: Mapping[str, int]) -> dict[str, Any]:
    more = subject.card.more
    axes: list[dict[str, Any]] = [{"id": "batch", "type": "batch"}]
    for number, axis in enumerate(space):
        if number == subject.geometry.dropped:
            continue
        size = {"tensor_id": "input", "axis_id": axis}
        entry: dict[str, Any] = {"id": axis, "type": "space", "size": size}
        if halo[axis]:
            entry["halo"] = halo[axis]
        axes.append(entry)
    names = more.get("output_channels") or _output_names(shape[-1], subject.source)
    axes.append({"id": "channel", "type": "channel", "channel_names": identifiers(names)})
    found: dict[str, Any] = {
        "id": "output",
        "description": "restored image in normalised units: 0 and 1 are the input's two percentiles",
        "axes": axes,
        "test_tensor": {"source": "test_output.npy"},
        "sample_tensor": {"source": "sample_output.tif"},
        "data": {"type": "float32"},
    }
    if subject.source.config is not None and subject.source.config.own_scale is not None:
        found["description"] = "restored image in the grey levels of the input"
    own = subject.source.outside
    if own is not None:
        back = {"gain": own.stds[0], "offset": own.means[0]}
        found["postprocessing"] = [{"id": "scale_linear", "kwargs": back}]
    return found


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


def own_config(
    subject: Subject, tensor: NDArray[np.float32], results: list[dict[str, Any]], *, drawn: bool
) -> dict[str, Any]:
    """`config.care_bridge`: what the zoo has no key for."""
    source, low, high = subject.source, subject.pmin, subject.pmax
    own: dict[str, Any] = {
        "version": __version__,
        "keras_version": keras.__version__,
        "axes": f"{source.space}C",
        **({} if source.config and source.config.own_scale else {"percentiles": [low, high]}),
        "receptive_field_px": [
            reach if reach is not None else "whole image" for reach in subject.geometry.receptive_field
        ],
        "test_image": "drawn" if drawn else "given",
        "test_image_percentiles_agree": all(
            ranks_agree(tensor[..., channel], low, high) for channel in range(tensor.shape[-1])
        ),
    }
    if "pixel_size_um" in subject.card.more:
        own["pixel_size_um"] = subject.card.more["pixel_size_um"]
    own |= subject.card.more.get("care_bridge", {})
    made_of = facts.provenance(source)
    if made_of:
        own["training"] = made_of
    if results:
        own["results"] = [entry["results_summary"] for entry in results]
    return own


def nickname(card: ModelCard) -> str:
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
