"""The BioImage.IO package: one model, written once, for the zoo, deepImageJ, bioimageio.core and Fiji."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.errors import InputError
from care_bridge.export import facts
from care_bridge.export.cost import inference_cost
from care_bridge.export.description import Subject, nickname, own_config, rdf
from care_bridge.export.graph import freeze, run
from care_bridge.export.metadata import FILE, ModelCard, check_card, left_from_example, read_card
from care_bridge.export.onnx import OPSET, check_against_keras, onnx_bytes
from care_bridge.export.probe import measure
from care_bridge.export.sample import (
    as_tensor,
    cover,
    given_back,
    prepared,
    scale_range,
    test_pair,
    write_tensors,
)
from care_bridge.export.savedmodel import bundle_bytes, check_written, describe, is_probabilistic
from care_bridge.export.source import Model, Source, open_source, own_percentiles, without_scale
from care_bridge.export.zoo_spec import RDF, as_yaml, save_package, validate
from care_bridge.files import atomic_file, scratch_folder
from care_bridge.images import Image
from care_bridge.inference.onnx import OnnxNetwork
from care_bridge.page import NOT_FOR_QUANTIFICATION

TENSORFLOW_1 = "1.15"
"""As a text of two numbers: with "1.15.0" deepImageJ may take the ONNX weights, and its engine ends Fiji."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


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
    warnings : tuple of str
        What stands in the package and should not be published: values of the example, a picture that was drawn here.
    """

    path: Path
    completeness: float
    to_fill: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    measure_cost: bool = True,
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
        Percentiles written down; None takes the model's own, as the bundle does.
    custom_objects : mapping, optional
        Layers of your own by name, for a Keras file that needs them.
    measure_cost : bool
        Say what a run costs on this machine where the metadata do not. Without it, exporting again gives equal bytes.

    Returns
    -------
    Package
        Where it lies, how complete its metadata are and what would complete them.

    Raises
    ------
    InputError
        All that is missing in the metadata at once; or what a format cannot hold. Nothing is left at `path`.
    NotInstalledError
        If the packages of the zoo are missing.

    Notes
    -----
    Weights: `keras_hdf5` (not of ensembles and projections, whose HDF5 Keras cannot read), `onnx` and
    `tensorflow_saved_model_bundle` (opens in "Run your network" as it is), with the `.keras` file attached. Output stays
    in normalised units: no reader can undo percentiles. A mean and deviation of the network's own (Noise2Void) are stated
    as `fixed_zero_mean_unit_variance`, and undone by `scale_linear`; those of several channels stay in the network.
    """
    subject = _subject(model, metadata, pmin, pmax, custom_objects)
    trial = _tried(subject, test_image, ground_truth)
    given = Path(path)
    target = given if given.suffix.lower() == ".zip" else given / f"{subject.source.name}.bioimageio.zip"
    with scratch_folder() as name, atomic_file(target) as part:
        parts = Path(name) / "parts"
        parts.mkdir()
        description = _write_parts(parts, subject, trial, measure_cost=measure_cost)
        packed = save_package(parts / RDF, Path(name) / "packed")
        # Read again, as every reader will.
        completeness = validate(packed / RDF)
        _zip(packed, part)
    return Package(target, completeness, facts.to_fill(description), _warnings(subject.card, trial))


def _warnings(card: ModelCard, trial: _Trial) -> tuple[str, ...]:
    told = []
    if left := left_from_example([vars(card)]):
        told.append(
            f"NOT YET YOURS: {FILE} still says what the example says: {', '.join(map(repr, left))}; "
            "write who made the model and what it is before you publish it"
        )
    if trial.drawn:
        told.append(
            f"NO REAL IMAGE: the cover, the sample and the test image are filaments drawn here, not {card.content}; "
            "give an image that the model is for: --test-image IMAGE.tif"
        )
    return tuple(told)


# --- the pieces


def _subject(model: Model, metadata: Any, pmin: float | None, pmax: float | None, custom: Any) -> Subject:
    source = open_source(model, custom_objects=custom)
    if source.scale is not None and len(source.scale.means) == 1:
        # Into the description, where every reader does what it says; deepImageJ's engine takes no lists there.
        source = without_scale(source)
    card = _card(metadata, source)
    low, high = own_percentiles(source, pmin=pmin, pmax=pmax)
    graph = freeze(source.network)
    return Subject(source, card, graph, measure(graph), low, high)


def _card(metadata: Any, source: Source) -> ModelCard:
    if isinstance(metadata, Mapping):
        return check_card(dict(metadata))
    if metadata is not None:
        return read_card(metadata)
    folder = source.path if source.path is not None and source.path.is_dir() else None
    folder = folder or (source.path.parent if source.path else Path())
    return read_card(folder / FILE)


@dataclass(frozen=True)
class _Trial:
    """The test image on its way through the network; tensors (batch, [z,] y, x, channel).

    `output` is the network's, `result` what readers give back.
    """

    tensor: NDArray[np.float32]
    normalised: NDArray[np.float32]
    output: NDArray[np.float32]
    result: NDArray[np.float32]
    truth: Image | None
    drawn: bool


def _tried(subject: Subject, image: Any, truth: Any) -> _Trial:
    source, low, high = subject.source, subject.pmin, subject.pmax
    picture, wanted = test_pair(image, truth, source, subject.geometry, low, high)
    tensor = as_tensor(picture, source)
    normalised = prepared(tensor, source, low, high)
    output = np.asarray(source.network(normalised, training=False), np.float32)
    return _Trial(tensor, normalised, output, given_back(output, source), wanted, image is None)


def _write_parts(folder: Path, subject: Subject, trial: _Trial, *, measure_cost: bool) -> dict[str, Any]:
    """Every file of the package into `folder`; the description that was written."""
    source, card = subject.source, subject.card
    meta = describe(source, subject.graph, subject.geometry, pmin=subject.pmin, pmax=subject.pmax)
    rows = facts.history(source)
    results = _results(card, source, rows, trial.truth, trial.normalised, trial.output)
    weights, others = _write_weights(folder, subject, meta, trial.normalised)
    write_tensors(folder, trial.tensor, trial.result)
    (folder / "cover.png").write_bytes(cover(trial.tensor, trial.result))
    (folder / "care_bridge.json").write_text(json.dumps(_way_back(source, meta), indent=1) + "\n")
    block = facts.bioimageio_block(
        source,
        card,
        nickname=nickname(card),
        tolerances=[facts.tolerance(trial.result, [given_back(other, source) for other in others])],
        evaluations=facts.named(results, card),
        rows=rows,
        cost=inference_cost(folder / f"{source.name}.onnx", folder / "test_input.npy")
        if measure_cost
        else {},
    )
    description = rdf(subject, weights)
    own = own_config(subject, trial.tensor, results, drawn=trial.drawn)
    description["config"] = {"bioimageio": block, "care_bridge": own}
    (folder / "README.md").write_text(readme(source, card, meta, block, results), encoding="utf-8")
    (folder / RDF).write_text(as_yaml(description), encoding="utf-8")
    return description


def _write_weights(
    folder: Path, subject: Subject, meta: Mapping[str, Any], normalised: NDArray[np.float32]
) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """Every weights format into `folder`: the entries for the description, and what each makes of the image."""
    source, graph, geometry = subject.source, subject.graph, subject.geometry
    # A clone without its training: compiled models do not open elsewhere.
    whole = not _operates(source.network)
    with _quiet_keras():
        if whole:
            source.network.save(folder / f"{source.name}.h5", include_optimizer=False)
        source.network.save(folder / f"{source.name}.keras", include_optimizer=False)
    _undate(folder / f"{source.name}.keras")
    bundle = folder / f"{source.name}.zip"
    bundle.write_bytes(bundle_bytes(graph, meta))
    to_bundle = check_written(bundle, source, geometry)
    content = onnx_bytes(
        freeze(source.network, target=None),
        space=source.space,
        percentiles=None if source.scale or source.bare else (subject.pmin, subject.pmax),
        probabilistic=None if source.config is None else source.config.probabilistic,
        scale_inside=source.scale is not None,
    )
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
    if not whole:
        # Keras writes such a network to HDF5 and does not read it again; the .keras file is attached all the same.
        del entries["keras_hdf5"], entries["tensorflow_saved_model_bundle"]["parent"]
        entries["onnx"]["parent"] = "tensorflow_saved_model_bundle"
    return entries, others


def _operates(network: keras.Model) -> bool:
    """Whether a network, or one in it, holds operations that are no layers (ensembles' means, projections' sums)."""
    return any(
        not isinstance(one, keras.layers.Layer) or (isinstance(one, keras.Model) and _operates(one))
        for one in network.operations
    )


@contextmanager
def _quiet_keras() -> Iterator[None]:
    logger = logging.getLogger("absl")  # Keras warns there that HDF5 is its older format
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _undate(keras_file: Path) -> None:
    """Take the moment of saving out of a .keras file: the package of the same model is the same bytes."""
    with zipfile.ZipFile(keras_file) as file:
        parts = {entry.filename: file.read(entry) for entry in file.infolist()}
    told = json.loads(parts["metadata.json"])
    told.pop("date_saved", None)
    parts["metadata.json"] = json.dumps(told).encode()
    # Where the parts of nested networks lay in memory, in the order in which they are named.
    numbers: dict[bytes, int] = {}
    parts["config.json"] = re.sub(
        rb'("shared_object_id": )(\d+)',
        lambda found: found[1] + str(numbers.setdefault(found[2], len(numbers))).encode(),
        parts["config.json"],
    )
    _write_zip(keras_file, parts, zipfile.ZIP_STORED)


def _way_back(source: Source, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `care-bridge import` needs to make a folder again."""
    config = source.config.to_json() if source.config else None
    return {"format_version": 1, "name": source.name, "config": config, "meta": dict(meta)}


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
    wanted = np.asarray(move_axes(truth.data, truth.axes, source.space + "C")[None], np.float32)
    if source.config is not None and is_probabilistic(source):
        output = output[..., : source.config.n_channel_out]  # the means
    if not normalised.shape == output.shape == wanted.shape:
        raise InputError(
            f"a ground truth of shape {wanted.shape} cannot be held against an input of {normalised.shape} and an "
            f"output of {output.shape}; leave it out and write [[evaluations]] into model.toml"
        )
    role = str(card.more.get("test_image_role", "unknown"))
    return [facts.test_result((normalised, output), scale_range(wanted, 0.1, 99.9), role=role)]


def _zip(folder: Path, path: Path) -> None:
    names = sorted((part.name for part in folder.iterdir()), key=lambda name: (name != RDF, name))
    _write_zip(path, {name: (folder / name).read_bytes() for name in names}, zipfile.ZIP_DEFLATED)


def _write_zip(path: Path, parts: Mapping[str, bytes], compression: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.compress_type = compression
            file.writestr(entry, data)
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
        outside_scale=source.outside,
        inside_scale=source.scale,
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
