"""What stands in a bundle (a TensorFlow SavedModel in a zip), read without loading TensorFlow.

Only the few messages of `saved_model.proto` that say what goes in and out are read; field numbers as in
tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError

SAVED_MODEL = "saved_model.pb"
SIGNATURE = "serving_default"
TAG = "serve"

MEAN_SUFFIX = "_mean"
"""Ends the name of the bundle of the means that lies beside a probabilistic network's."""

_FLOAT = 1  # DT_FLOAT in types.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
        Names of the operations that the graph uses, sorted.
    producer : int
        Version of the TensorFlow that wrote it, as the graph says.
    """

    tags: tuple[str, ...]
    signatures: Mapping[str, Signature]
    ops: tuple[str, ...]
    producer: int


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
    """

    path: Path
    entries: tuple[str, ...]
    graphs: tuple[MetaGraph, ...] = field(repr=False)

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
        with zipfile.ZipFile(self.path) as archive:
            for name in self.entries:
                target = (folder / name).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise InputError(
                        f"{self.path}: the entry {name!r} points outside of the zip; it was not unpacked"
                    )
            archive.extractall(folder)
        # A graph without variables may come without their folder; TensorFlow does not mind, zips lose it.
        (folder / "variables").mkdir(exist_ok=True)
        return folder


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Look into a bundle.

    Parameters
    ----------
    path : path
        A zip that "Run your network" opens, or a SavedModel folder.

    Raises
    ------
    InputError
        If it is not there, no zip, has no `saved_model.pb` at its top, or that one cannot be read.
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
        entries, content = _read_zip(path)
    try:
        graphs = tuple(_meta_graph(part) for number, part in _fields(memoryview(content)) if number == 2)
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: its {SAVED_MODEL} is damaged ({error})") from error
    if not graphs:
        raise InputError(f"{path}: its {SAVED_MODEL} holds no graph")
    return Bundle(path, entries, graphs)


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


def _read_zip(path: Path) -> tuple[tuple[str, ...], bytes]:
    if not path.is_file():
        raise InputError(f"{path}: no such bundle; give the .zip that 'Run your network' opens")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = tuple(archive.namelist())
            if SAVED_MODEL not in entries:
                deeper = [name for name in entries if name.endswith(f"/{SAVED_MODEL}")]
                if deeper:
                    folder = deeper[0].removesuffix(SAVED_MODEL)
                    raise InputError(
                        f"{path}: {SAVED_MODEL} lies in the folder {folder!r} of the zip, one too deep for "
                        "Fiji; zip the content of that folder instead of the folder"
                    )
                raise InputError(f"{path}: a zip without {SAVED_MODEL} is no bundle")
            return entries, archive.read(SAVED_MODEL)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: not a zip file ({error}); give the bundle that was exported for Fiji"
        ) from error


def _meta_graph(message: memoryview) -> MetaGraph:
    tags: list[str] = []
    signatures: dict[str, Signature] = {}
    ops: set[str] = set()
    producer = 0
    for number, part in _fields(message):
        if number == 1:
            tags += [_text(tag) for inner, tag in _fields(part) if inner == 4]
        elif number == 2:
            for inner, value in _fields(part):
                if inner == 1:
                    ops.update(_text(op) for place, op in _fields(value) if place == 2)
                elif inner == 4:
                    producer = next((version for place, version in _fields(value) if place == 1), 0)
        elif number == 5:
            key, value = _entry(part)
            signatures[key] = _signature(value)
    return MetaGraph(tuple(tags), signatures, tuple(sorted(ops)), producer)


def _signature(message: memoryview) -> Signature:
    sides: dict[int, list[TensorInfo]] = {1: [], 2: []}
    for number, part in _fields(message):
        if number in sides:
            sides[number].append(_tensor_info(*_entry(part)))
    return Signature(tuple(sides[1]), tuple(sides[2]))


def _tensor_info(key: str, message: memoryview) -> TensorInfo:
    name, dtype, sizes, known = "", _FLOAT, [], False
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            dtype = value
        elif number == 3:
            known = True
            for inner, part in _fields(value):
                if inner == 2:
                    size = next((size for place, size in _fields(part) if place == 1), 0)
                    sizes.append(size if size < 1 << 63 else -1)  # -1 is written as 2^64 - 1
                elif inner == 3 and part:
                    known = False
    shape = tuple(None if size < 0 else size for size in sizes) if known else None
    return TensorInfo(key, name, dtype, shape)


def _entry(message: memoryview) -> tuple[str, memoryview]:
    """Key and value of one entry of a map."""
    key, value = "", memoryview(b"")
    for number, part in _fields(message):
        if number == 1:
            key = _text(part)
        elif number == 2:
            value = part
    return key, value


def _text(part: memoryview) -> str:
    return bytes(part).decode("utf-8")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and content (an int, or the bytes of a string or message) of each field of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of unknown kind {wire}")
        if at + length > len(message):
            raise ValueError("it ends too early")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
