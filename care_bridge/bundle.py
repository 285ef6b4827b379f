"""What stands in a bundle (a TensorFlow SavedModel in a zip), read without loading TensorFlow.

Only the few messages of `saved_model.proto` that say what goes in and out are read; field numbers as in
tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.inspection import inspect_meta_graph
from care_bridge.operations import refusal
from care_bridge.text import parse
from care_bridge.wire import fields, text

SAVED_MODEL = "saved_model.pb"
META = "meta.json"
"""What csbdeep writes beside the graph, for people and for us; nobody in Fiji reads it."""
ONNX = "care_bridge.onnx"
"""The same network for ONNX Runtime; read by our scripts in Fiji, by nobody else."""
ONNX_META = "care_bridge.json"
"""What our scripts must know to run it: percentiles, axes, sizes, reach, and which SavedModel it belongs to."""
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
"""Names of a BioImage.IO description, in the order in which bioimageio.spec looks for them. A bundle may carry one (those
that were trained in Fiji do); "Run your network" does not read it."""

SIGNATURE = "serving_default"
TAG = "serve"
"""What the CSBDeep plugin asks for; no other signature or tag is tried."""

MEAN_SUFFIX = "_mean"
"""Ends the name of the bundle of the means that lies beside a probabilistic network's."""

_FLOAT = 1  # DT_FLOAT in types.proto


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes
    ----------
    key : str
        Its name in the signature.
    name : str
        The tensor in the graph, e.g. ``"input:0"``.
    dtype : int
        Number in TensorFlow's types.proto; 1 is float32.
    shape : tuple of int or None, or None
        Size of each dimension, None = any; None altogether where the rank is unknown.
    """

    key: str
    name: str
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs in the order in which they are written; the plugin takes the first of each."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class MetaGraph:
    """One graph of a SavedModel.

    Attributes
    ----------
    tags : tuple of str
    signatures : mapping of str to Signature
    ops : tuple of str
        Names of the operations that the graph and the functions in its library use, sorted.
    producer : int
        Version of the TensorFlow that wrote it, as the graph says.
    """

    tags: tuple[str, ...]
    signatures: Mapping[str, Signature]
    ops: tuple[str, ...]
    producer: int


@dataclass(frozen=True)
class OwnNormalisation:
    """A fixed mean and standard deviation that a network was trained on, instead of an image's percentiles.

    Attributes
    ----------
    means, stds : tuple of float
        One for all channels, or one each.
    file : str
        Where they are written.
    """

    means: tuple[float, ...]
    stds: tuple[float, ...]
    file: str

    def __str__(self) -> str:
        mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in (self.means, self.stds))
        return f"mean {mean} and standard deviation {std} ({self.file})"


@dataclass(frozen=True)
class Meta:
    """What the `meta.json` of a bundle says, and the description beside it; None, or empty, where it says nothing.

    Attributes
    ----------
    type : str, optional
        The csbdeep class that wrote it, such as "CARE".
    version : str, optional
        Of the package that wrote it.
    probabilistic : bool, optional
    axes : str, optional
        Of the network, such as "ZYXC".
    axes_div_by, tile_overlap : tuple of int, optional
        What sizes must be multiples of, and the receptive field in pixels a side; one for each of `axes`.
    pmin, pmax : float, optional
        Percentiles, 0-100, that the network was trained with.
    fiji : mapping
        What to type into "Run your network", under the plugin's own option names, and `tiles_allowed`.
    normalisation : OwnNormalisation, optional
        A mean and standard deviation of the network's own (Noise2Void), from `meta.json` or a description.
    provenance : mapping
        What it was trained on, as in config.json.
    """

    type: str | None = None
    version: str | None = None
    probabilistic: bool | None = None
    axes: str | None = None
    axes_div_by: tuple[int, ...] | None = None
    tile_overlap: tuple[int, ...] | None = None
    pmin: float | None = None
    pmax: float | None = None
    fiji: Mapping[str, bool | int | float] = field(default_factory=dict)
    normalisation: OwnNormalisation | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_multiple(self) -> dict[str, int] | None:
        """`axes_div_by` by axis of space; None where it, or what the axes are, is not said."""
        return self._by_axis(self.axes_div_by)

    @property
    def halo(self) -> dict[str, int] | None:
        """`tile_overlap` by axis of space; None where it, or what the axes are, is not said."""
        return self._by_axis(self.tile_overlap)

    def _by_axis(self, numbers: tuple[int, ...] | None) -> dict[str, int] | None:
        if self.axes is None or numbers is None:
            return None
        return {axis: number for axis, number in zip(self.axes, numbers, strict=True) if axis != "C"}


@dataclass(frozen=True)
class Bundle:
    """A bundle that was looked into.

    Attributes
    ----------
    path : Path
        The zip, or a folder that holds `saved_model.pb`.
    entries : tuple of str
        Names in the zip, in its order (the plugin's unzipping depends on it); folders end in "/".
    graphs : tuple of MetaGraph
    meta_json : bytes or None
        `meta.json` as it is written; None where there is none.
    description : tuple of str and bytes, or None
        A BioImage.IO description beside the graph, its name and as it is written.
    """

    path: Path
    entries: tuple[str, ...]
    graphs: tuple[MetaGraph, ...] = field(repr=False)
    meta_json: bytes | None = field(default=None, repr=False)
    description: tuple[str, bytes] | None = field(default=None, repr=False)

    @property
    def meta(self) -> Meta:
        """What its `meta.json` and its description say.

        Raises
        ------
        InputError
            If a value is not what its key stands for. The bundle runs nevertheless, in Fiji and here.
        """
        return _meta(self.meta_json, self.path, self.description)

    @property
    def signature(self) -> Signature:
        """The signature that the plugin runs.

        Raises
        ------
        InputError
            If there is no graph with tag `serve`, no `serving_default` in it, or nothing goes in or out.
        """
        served = [graph for graph in self.graphs if TAG in graph.tags]
        if not served:
            tags = sorted({tag for graph in self.graphs for tag in graph.tags})
            raise InputError(
                f"{self.path}: no graph has the tag {TAG!r}; tags found: {', '.join(tags) or 'none'}"
            )
        signature = served[0].signatures.get(SIGNATURE)
        if signature is None:
            names = ", ".join(served[0].signatures) or "none"
            raise InputError(f"{self.path}: no signature {SIGNATURE!r}; signatures found: {names}")
        if not signature.inputs or not signature.outputs:
            raise InputError(f"{self.path}: signature {SIGNATURE!r} has no input or no output")
        return signature

    def unpack(self, folder: Path) -> Path:
        """Lay the SavedModel into a folder; gives the folder to load, the bundle itself if it is one."""
        if self.path.is_dir():
            return self.path
        zips.unpack(self.path, folder)
        # A graph without variables may come without their folder; TensorFlow does not mind, zips lose it.
        (folder / "variables").mkdir(exist_ok=True)
        return folder


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Look into a bundle.

    Parameters
    ----------
    path : path
        A zip that "Run your network" opens, or a SavedModel folder.

    Returns
    -------
    Bundle
        Its entries, graphs and `meta.json`; no network is loaded.

    Raises
    ------
    InputError
        If it is not there, no zip, has no `saved_model.pb` at its top, or that one cannot be read; or if its graph
        holds an operation that is not known to compute only (see `operations`).
    """
    path = Path(path)
    if path.is_dir():
        if not (path / SAVED_MODEL).is_file():
            raise InputError(
                f"{path}: a folder without {SAVED_MODEL}; give the bundle (.zip) or a SavedModel folder"
            )
        entries = tuple(
            sorted(
                file.relative_to(path).as_posix() + ("/" if file.is_dir() else "") for file in path.rglob("*")
            )
        )
        content = (path / SAVED_MODEL).read_bytes()
    else:
        entries = _entries_of(path)
        content = zips.read(path, SAVED_MODEL) or b""
    meta_json, description = _beside(path)
    try:
        graphs = tuple(_meta_graph(part, path) for number, part in fields(memoryview(content)) if number == 2)
    except InputError:
        raise
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: its {SAVED_MODEL} is damaged ({error})") from error
    if not graphs:
        raise InputError(f"{path}: its {SAVED_MODEL} holds no graph")
    return Bundle(path, entries, graphs, meta_json, description)


def read_meta(path: str | os.PathLike[str]) -> Meta:
    """What the `meta.json` of a bundle and its description say, without a look at its graph.

    Parameters
    ----------
    path : path
        Of anything: what is no bundle, or has no `meta.json` that is one, says nothing. Opening it tells what is
        wrong with it; here it is only asked for advice.

    Raises
    ------
    InputError
        If a value is not what its key stands for.
    """
    path = Path(path)
    try:
        if path.is_dir() and not (path / SAVED_MODEL).is_file():
            return Meta()
        content, description = _beside(path)
    except (InputError, OSError):
        return Meta()
    return _meta(content, path, description)


@dataclass(frozen=True)
class OnnxBeside:
    """The network for ONNX Runtime that lies in a bundle beside its SavedModel.

    Attributes
    ----------
    onnx : bytes
        Empty where there is none.
    about : mapping
        What `care_bridge.json` says; empty where the bundle has none.
    why_not : str
        Why it is not to be run, with what would do: exported earlier, could not be written, or it is another
        network's than the SavedModel. "" where it is right.
    """

    onnx: bytes
    about: Mapping[str, Any]
    why_not: str


def read_onnx(path: str | os.PathLike[str]) -> OnnxBeside:
    """The network for ONNX Runtime in a bundle, held against what its JSON says of both networks.

    Parameters
    ----------
    path : path
        A bundle, zipped or unpacked.

    Raises
    ------
    InputError
        If it is no bundle, or its JSON cannot be read.
    """
    path = Path(path)
    wanted = (SAVED_MODEL, ONNX, ONNX_META)
    if path.is_dir():
        found = {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
    else:
        there = set(zips.names(path))
        found = {name: zips.read(path, name) or b"" for name in wanted if name in there}
    onnx = found.get(ONNX, b"")
    if ONNX_META not in found:
        return OnnxBeside(
            onnx, {}, "exported earlier, without ONNX: care-bridge export MODEL --format fiji writes both"
        )
    about = parse(found[ONNX_META], "JSON", name=f"{path}: its {ONNX_META}")
    if not isinstance(about, dict):
        raise InputError(f"{path}: its {ONNX_META} is no block of keys and values; export the model again")
    if not onnx:
        reason = about.get("no_onnx") or f"{ONNX} is gone; export the model again"
        return OnnxBeside(onnx, about, str(reason))
    for name, key in ((SAVED_MODEL, "saved_model_sha256"), (ONNX, "onnx_sha256")):
        if hashlib.sha256(found.get(name, b"")).hexdigest() != about.get(key):
            return OnnxBeside(
                onnx,
                about,
                f"its {name} is not the one that {ONNX_META} was written for, so the two networks may differ; "
                "export the model again",
            )
    return OnnxBeside(onnx, about, "")


def find_bundle(path: str | os.PathLike[str]) -> Path:
    """The bundle of a path: itself, or the one that lies in a model folder.

    Of a probabilistic model's two, ``NAME.zip`` and ``NAME_mean.zip``, the whole network is taken.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    path = Path(path)
    if not path.is_dir() or (path / SAVED_MODEL).is_file():
        return path
    zips = set(path.glob("*.zip"))
    means = {file.with_stem(file.stem + MEAN_SUFFIX) for file in zips}
    found = sorted(zips - means)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(
            f"{path} is a folder with not just one bundle in it (found: {names}); name the .zip, or write "
            f"one: care-bridge export {path} --format fiji --out {path / 'fiji.zip'}"
        )
    return found[0]


def _entries_of(path: Path) -> tuple[str, ...]:
    """The entries of a zip, refused where it holds no SavedModel at its root."""
    if not path.is_file():
        raise InputError(f"{path}: no such bundle; give the .zip that 'Run your network' opens")
    entries = zips.names(path)
    if SAVED_MODEL not in entries:
        deeper = [name for name in entries if name.endswith(f"/{SAVED_MODEL}")]
        if deeper:
            folder = deeper[0].removesuffix(SAVED_MODEL)
            raise InputError(
                f"{path}: {SAVED_MODEL} lies in the folder {folder!r} of the zip, one too deep for "
                "Fiji; zip the content of that folder instead of the folder"
            )
        raise InputError(f"{path}: a zip without {SAVED_MODEL} is no bundle")
    return entries


def _beside(path: Path) -> tuple[bytes | None, tuple[str, bytes] | None]:
    """`meta.json` and the description that lie beside a bundle's graph."""
    if path.is_dir():
        found = {
            name: (path / name).read_bytes() for name in (META, *DESCRIPTIONS) if (path / name).is_file()
        }
    else:
        there = set(zips.names(path))
        found = {name: zips.read(path, name) or b"" for name in (META, *DESCRIPTIONS) if name in there}
    described = next((name for name in DESCRIPTIONS if name in found), None)
    return found.get(META), None if described is None else (described, found[described])


# ---- a mean and a standard deviation of its own


_MEANS, _STDS = ("mean", "means"), ("std", "stds", "stdDev", "std_dev", "stddev")
"""How Noise2Void in Python and in Fiji, and BioImage.IO, write them."""


def own_normalisation(description: Any, file: str) -> OwnNormalisation | None:
    """The fixed mean and standard deviation that a BioImage.IO description, or a meta.json, normalises by.

    Parameters
    ----------
    description : object
        As read from YAML or JSON; anything.
    file : str
        Where it was written.

    Returns
    -------
    OwnNormalisation or None
        None where it states none: percentiles, or the mean of each image.

    Notes
    -----
    Format 0.2 of Fiji's writes ``prediction.preprocess[].kwargs``, later ones ``inputs[].preprocessing[].kwargs`` of
    ``zero_mean_unit_variance`` (mode fixed) or ``fixed_zero_mean_unit_variance``; a meta.json at its top.
    """
    for values in _settings_of_steps(description):
        mean, std = (_numbers(values, keys) for keys in (_MEANS, _STDS))
        if mean and std and len(mean) == len(std):
            return OwnNormalisation(mean, std, file)
    return None


def _settings_of_steps(description: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(description, Mapping):
        return
    prediction, inputs = description.get("prediction"), description.get("inputs")
    steps = [prediction.get("preprocess") if isinstance(prediction, Mapping) else None]
    for tensor in inputs if isinstance(inputs, list) else ():
        steps.append(tensor.get("preprocessing") if isinstance(tensor, Mapping) else None)
    for listed in steps:
        for step in listed if isinstance(listed, list) else ():
            if isinstance(step, Mapping) and isinstance(step.get("kwargs"), Mapping):
                yield step["kwargs"]
    yield description
    normalisation = description.get("normalisation", description.get("normalization"))
    if isinstance(normalisation, Mapping):
        yield normalisation


def _numbers(values: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[float, ...]:
    """Numbers under the first key that is there; none where they are not numbers. N2V writes them as texts."""
    given = next((values[key] for key in keys if values.get(key) is not None), None)
    listed: list[Any] = given if isinstance(given, list) else [given]
    try:
        numbers = tuple(float(number) for number in listed)
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


# ---- meta.json


def _meta(content: bytes | None, path: Path, description: tuple[str, bytes] | None = None) -> Meta:
    try:
        written = parse(content or b"{}", "JSON", name=f"{path}: its {META}")
    except InputError:
        written = {}
    if not isinstance(written, dict):
        written = {}
    normalised = own_normalisation(written, META)
    if normalised is None and description is not None:
        normalised = own_normalisation(_yaml(description[1]), description[0])
    values = _Values(path, "", written)
    own = values.block("care_bridge")
    normalisation = own.block("normalisation")
    axes = values.text("axes")
    numbers = {key: values.whole_numbers(key) for key in ("axes_div_by", "tile_overlap")}
    for key, found in numbers.items():
        if axes is not None and found is not None and len(found) != len(axes):
            raise values.wrong(key, f"a list of {len(axes)} whole numbers, one for each of the axes {axes}")
    training = own.values.get("training")
    made_of = training.get("provenance") if isinstance(training, dict) else None
    fiji = own.block("fiji")
    for key in fiji.values:
        fiji.number(key, or_bool=True)
    return Meta(
        type=values.text("type"),
        version=values.text("version"),
        probabilistic=values.boolean("probabilistic"),
        axes=axes,
        **numbers,
        pmin=normalisation.number("pmin"),
        pmax=normalisation.number("pmax"),
        fiji={key: value for key, value in fiji.values.items() if value is not None},
        normalisation=normalised,
        provenance=made_of if isinstance(made_of, dict) else {},
    )


def _yaml(content: bytes) -> Any:
    """What a YAML says; None where it is none: a bundle runs without its description."""
    try:
        return parse(content, "YAML", name="its description")
    except InputError:
        return None


@dataclass(frozen=True)
class _Values:
    """One block of meta.json, asked key by key for what each must be; a missing or null value is None."""

    path: Path
    within: str
    values: Mapping[str, Any]

    def block(self, key: str) -> _Values:
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "a block of keys and values")
        return _Values(self.path, f"{self.within}{key}.", value or {})

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def boolean(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, *, or_bool: bool = False) -> Any:
        value = self.values.get(key)
        if value is None or (or_bool and isinstance(value, bool)) or _is_number(value):
            return value
        raise self.wrong(key, "a number, or true or false" if or_bool else "a number")

    def whole_numbers(self, key: str) -> tuple[int, ...] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(_is_number(n) and n == int(n) for n in value):
            raise self.wrong(key, "a list of whole numbers")
        return tuple(int(number) for number in value)

    def wrong(self, key: str, wanted: str) -> InputError:
        received = repr(self.values[key])
        received = received if len(received) <= 60 else f"{received[:57]}..."
        return InputError(
            f"{self.path}: {self.within}{key} in its {META} is {received}, and must be {wanted}; export the model again"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ---- saved_model.pb


def _meta_graph(message: memoryview, path: Path) -> MetaGraph:
    inspected = inspect_meta_graph(message)
    if inspected.forbidden:
        raise InputError(f"{path}: {refusal(inspected.forbidden)}")
    if inspected.too_much:
        raise InputError(f"{path}: {inspected.too_much}")
    tags: list[str] = []
    signatures: dict[str, Signature] = {}
    producer = 0
    for number, part in fields(message):
        if number == 1:
            tags += [text(tag) for inner, tag in fields(part) if inner == 4]
        elif number == 2:
            for inner, value in fields(part):
                if inner == 4:
                    producer = next((version for place, version in fields(value) if place == 1), 0)
        elif number == 5:
            key, value = _entry(part)
            signatures[key] = _signature(value)
    return MetaGraph(tuple(tags), signatures, tuple(sorted(inspected.ops)), producer)


def _signature(message: memoryview) -> Signature:
    sides: dict[int, list[TensorInfo]] = {1: [], 2: []}
    for number, part in fields(message):
        if number in sides:
            sides[number].append(_tensor_info(*_entry(part)))
    return Signature(tuple(sides[1]), tuple(sides[2]))


def _tensor_info(key: str, message: memoryview) -> TensorInfo:
    name, dtype, sizes, known = "", _FLOAT, [], False
    for number, value in fields(message):
        if number == 1:
            name = text(value)
        elif number == 2:
            dtype = value
        elif number == 3:
            known = True
            for inner, part in fields(value):
                if inner == 2:
                    size = next((size for place, size in fields(part) if place == 1), 0)
                    sizes.append(size if size < 1 << 63 else -1)  # -1 is written as 2^64 - 1
                elif inner == 3 and part:
                    known = False
    shape = tuple(None if size < 0 else size for size in sizes) if known else None
    return TensorInfo(key, name, dtype, shape)


def _entry(message: memoryview) -> tuple[str, memoryview]:
    """Key and value of one entry of a map."""
    key, value = "", memoryview(b"")
    for number, part in fields(message):
        if number == 1:
            key = text(part)
        elif number == 2:
            value = part
    return key, value
