"""A graph of others held against `operations` before any runtime sees it: TensorFlow's and ONNX's, with all they call."""

from __future__ import annotations

import math
import os
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from care_bridge.errors import InputError
from care_bridge.growth import Growth, Least, Step, of_onnx, of_tensor, of_tensorflow, small_image
from care_bridge.operations import (
    COMPUTING,
    ONNX_COMPUTING,
    ONNX_DOMAINS,
    RESTORING,
    SAVING,
    refusal,
)
from care_bridge.wire import MOST_LEVELS, fields, text
from care_bridge.zips import FREE_OF_RATIO, MOST_RATIO

# --- TensorFlow: field numbers as in graph.proto, node_def.proto, function.proto, attr_value.proto, saver.proto


@dataclass
class _Node:
    """A node: its operation, inputs, attributes, and the functions that these name."""

    op: str = ""
    inputs: list[str] = field(default_factory=list)
    attributes: dict[str, memoryview] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)


@dataclass
class _Body:
    """A graph, or a function with its arguments."""

    nodes: dict[str, _Node] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    def ops(self) -> set[str]:
        return {node.op for node in self.nodes.values()}

    def steps(self) -> dict[str, Step]:
        """The nodes without what only orders them."""
        return {
            name: Step(node.op, [_name(one) for one in node.inputs if one[:1] != "^"], node.attributes)
            for name, node in self.nodes.items()
        }


@dataclass
class Inspected:
    """What a graph holds.

    Attributes
    ----------
    ops : frozenset of str
        Operations of the graph and of all functions in its library, the functions' own names left out.
    forbidden : frozenset of str
        Those that are not known to compute only; saving and restoring are not where they are the bundle's own.
    too_much : str
        Why it would take too much memory, whatever the image; "" where it would not.
    """

    ops: frozenset[str]
    forbidden: frozenset[str]
    too_much: str = ""


def inspect_meta_graph(message: memoryview) -> Inspected:
    """Look at one graph of a SavedModel (a MetaGraphDef), with its library and its saver.

    Raises
    ------
    ValueError, IndexError, TypeError
        If it is damaged.
    """
    graph, save, objects = _Body(), "", b""
    library: dict[str, _Body] = {}
    roots: set[str] = set()
    files: set[str] = set()
    for number, part in fields(message):
        if number == 2:
            for inner, value in fields(part):
                if inner == 1:
                    _add(graph, value)
                elif inner == 2:
                    library |= dict(_function(one) for place, one in fields(value) if place == 1)
        elif number == 3:
            said = {place: text(value) for place, value in fields(part) if place in (1, 2, 3)}
            files.add(_name(said.get(1, "")))
            save = _name(said.get(2, ""))
            roots.add(_name(said.get(3, "")))
        elif number == 4:
            roots |= _texts_in(part)  # collections: which of them a loader runs is not told here
        elif number == 5:
            roots |= _ends(part)
        elif number == 7:
            objects += bytes(part)
    bodies = [graph, *library.values()]
    ops = {op for body in bodies for op in body.ops()} - set(library)
    forbidden = ops - COMPUTING - SAVING - {RESTORING}
    # A function under the name of an operation would hide it.
    forbidden |= set(library) & (SAVING | {RESTORING})
    if ops & (SAVING | {RESTORING}):
        own = _Own(graph, library, files)
        forbidden |= own.foreign_restores() | own.foreign_saves(roots - {save}, objects)
    growth = Growth(len(message))
    for body in bodies:
        growth.follow(body.steps(), of_tensorflow)
    return Inspected(frozenset(ops), frozenset(forbidden), growth.refusal)


def _add(body: _Body, message: memoryview) -> None:
    node, name = _Node(), ""
    for number, part in fields(message):
        if number == 1:
            name = text(part)
        elif number == 2:
            node.op = text(part)
        elif number == 3:
            node.inputs.append(text(part))
        elif number == 5:
            key = ""
            for place, value in fields(part):
                if place == 1:
                    key = text(value)
                elif place == 2:
                    node.attributes[key] = value
                    node.functions |= _named_in(value)
                    _check_constant(value, name)
    if name in body.nodes:
        raise ValueError(f"two nodes are called {name!r}")
    body.nodes[name] = node


def _check_constant(attribute: memoryview, name: str) -> None:
    """Refuse a tensor of a few bytes that is to fill the memory: one value may stand for all."""
    for number, tensor in fields(attribute):
        if number != 8:
            continue
        sizes = [
            next((size for place, size in fields(dimension) if place == 1), 0)
            for inner, shape in fields(tensor)
            if inner == 2
            for kind, dimension in fields(shape)
            if kind == 2
        ]
        if (count := math.prod(sizes)) > FREE_OF_RATIO and count > MOST_RATIO * len(tensor):
            raise ValueError(
                f"the constant {name!r} of {len(tensor)} bytes says that it has {count:.3g} values"
            )


def _named_in(attribute: memoryview) -> set[str]:
    """Functions that an attribute names, alone or in a list."""
    found: set[str] = set()
    for number, part in fields(attribute):
        if number == 10:
            found |= _named(part)
        elif number == 1:
            for inner, value in fields(part):
                if inner == 9:
                    found |= _named(value)
    return found


def _named(message: memoryview) -> set[str]:
    return {text(part) for number, part in fields(message) if number == 1}


def _function(message: memoryview) -> tuple[str, _Body]:
    name, body = "", _Body()
    for number, part in fields(message):
        if number == 1:
            for inner, value in fields(part):
                if inner == 1:
                    name = text(value)
                elif inner == 2:
                    body.arguments += [text(word) for place, word in fields(value) if place == 1]
        elif number == 3:
            _add(body, part)
    return name, body


def _texts_in(collection: memoryview) -> set[str]:
    """Names of nodes in a collection: a list of them is field 1 of its value."""
    return {
        _name(text(word))
        for number, value in fields(collection)
        if number == 2
        for kind, listed in fields(value)
        if kind == 1
        for place, word in fields(listed)
        if place == 1
    }


def _ends(signature: memoryview) -> set[str]:
    """Nodes that a signature, an entry of a map, names as inputs and outputs."""
    return {
        _name(text(word))
        for number, value in fields(signature)
        if number == 2
        for side, entry in fields(value)
        if side in (1, 2)
        for inner, tensor in fields(entry)
        if inner == 2
        for place, word in fields(tensor)
        if place == 1
    }


def _name(tensor: str) -> str:
    return tensor.removeprefix("^").split(":", 1)[0]


# A checkpoint's name may be put together on the way to a restore; that alone touches no file.
_WRITING: frozenset[str] = SAVING - {"ShardedFilename"}


@dataclass
class _Own:
    """Whether what saves and restores in a graph is the bundle's own: TensorFlow's saver, for its variables."""

    graph: _Body
    library: Mapping[str, _Body]
    files: set[str]

    def foreign_restores(self) -> set[str]:
        """RestoreV2, where the name of a file does not come from the loader."""
        for where, body in (("", self.graph), *self.library.items()):
            for node in body.nodes.values():
                if node.op == RESTORING and not (
                    node.inputs and self._from_loader(where, node.inputs[0], frozenset())
                ):
                    return {RESTORING}
        return set()

    def _from_loader(self, where: str, tensor: str, seen: frozenset[tuple[str, str]]) -> bool:
        """Whether a text is the one that the loader feeds as the checkpoint's name."""
        name = _name(tensor)
        if (where, name) in seen or len(seen) > MOST_LEVELS:
            return False
        seen |= {(where, name)}
        body = self.library[where] if where else self.graph
        if not where and name in self.files and self.files != {""}:
            return True
        node = body.nodes.get(name)
        if node is not None:
            return (
                node.op == "Identity" and bool(node.inputs) and self._from_loader(where, node.inputs[0], seen)
            )
        if where and name in body.arguments:
            place = body.arguments.index(name)
            calls = list(self._calls(where))
            return bool(calls) and all(
                place < len(node.inputs) and self._from_loader(outer, node.inputs[place], seen)
                for outer, node in calls
            )
        return False

    def _calls(self, function: str) -> Iterator[tuple[str, _Node]]:
        for where, body in (("", self.graph), *self.library.items()):
            for node in body.nodes.values():
                if node.op == function or function in node.functions:
                    yield where, node

    def foreign_saves(self, roots: set[str], objects: bytes) -> set[str]:
        """What saves and is run by somebody who only opens or uses the network."""
        saving = {name for name, body in self.library.items() if body.ops() & SAVING}
        while True:
            more = {
                name
                for name, body in self.library.items()
                if any(node.functions & saving or node.op in saving for node in body.nodes.values())
            }
            if more <= saving:
                break
            saving |= more
        if any(name.encode() in objects for name in saving):
            return set(_WRITING & self._all_ops())
        seen: set[str] = set()
        stack = [name for name in roots if name in self.graph.nodes]
        while stack:
            name = stack.pop()
            if name in seen or name not in self.graph.nodes:
                continue
            seen.add(name)
            node = self.graph.nodes[name]
            if node.op in _WRITING or node.op in saving or node.functions & saving:
                return set(_WRITING & self._all_ops())
            stack += [_name(tensor) for tensor in node.inputs]
        return set()

    def _all_ops(self) -> set[str]:
        return {op for body in (self.graph, *self.library.values()) for op in body.ops()}


# --- ONNX: field numbers as in onnx.proto


def check_onnx(model: str | os.PathLike[str] | bytes) -> None:
    """Hold an ONNX model against `operations`, and its external data against its folder.

    Parameters
    ----------
    model : path or bytes
        A file, or its content, which may have no external data.

    Raises
    ------
    InputError
        If it is damaged, holds operations of other domains than the standard's, or names data outside of its folder.
    """
    name = "the ONNX model" if isinstance(model, bytes) else str(model)
    folder = None if isinstance(model, bytes) else Path(model).resolve().parent
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    seen = _Onnx()
    try:
        seen.read_model(memoryview(content))
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"{name} cannot be loaded: it is no ONNX file, or a damaged one ({error})") from None
    foreign = {
        f"{domain}.{op}" if domain else op
        for domain, op in seen.ops - seen.functions
        if domain not in ONNX_DOMAINS and f"{domain}.{op}" not in ONNX_COMPUTING
    }
    if foreign:
        raise InputError(f"{name}: {refusal(foreign)}")
    growth = Growth(len(content))
    for scope in seen.scopes:
        outer = ChainMap(scope.known, *(scope.outer.found.maps if scope.outer else ()))
        scope.found = ChainMap(growth.follow(scope.steps, of_onnx, outer), *outer.maps)
    if growth.refusal:
        raise InputError(f"{name}: {growth.refusal}")
    for place in sorted(seen.data):
        _check_data(place, folder, name)


def _check_data(place: str, folder: Path | None, name: str) -> None:
    outside = InputError(
        f"{name} takes weights from {place!r}, which is no file in its own folder; it was not opened; save the model "
        "with its weights inside"
    )
    windows = PureWindowsPath(place)
    if folder is None or "\0" in place or windows.is_absolute() or windows.drive or ".." in windows.parts:
        raise outside
    file = (folder / place).resolve()
    if not file.is_relative_to(folder) or (file.exists() and not file.is_file()):
        raise outside


@dataclass
class _Scope:
    """Nodes and constants of one graph, and the one around it, whose tensors it sees."""

    outer: _Scope | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    known: dict[str, Least] = field(default_factory=dict)
    found: ChainMap[str, Least] = field(default_factory=ChainMap)


@dataclass
class _Onnx:
    """Operations with their domains, functions of the model's own, places of external data."""

    ops: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    scopes: list[_Scope] = field(default_factory=list)

    def read_model(self, message: memoryview) -> None:
        found = False
        for number, part in fields(message):
            if number == 7:
                found = True
                self.read_graph(part, 1)
            elif number == 20:
                for inner, graph in fields(part):
                    if inner in (1, 2):
                        self.read_graph(graph, 1)
            elif number == 25:
                self.read_function(part)
        if not found:
            raise ValueError("it holds no graph")

    def read_graph(self, message: memoryview, level: int, outer: _Scope | None = None) -> None:
        if level > MOST_LEVELS:
            raise ValueError("its graphs are nested too deep")
        scope = self.scope(outer)
        for number, part in fields(message):
            if number == 1:
                self.read_node(part, level, scope)
            elif number == 5:
                self.read_tensor(part)
                name, least = of_tensor(part)
                scope.known[name] = least
            elif number == 11:
                name, sizes = _input(part)
                scope.known.setdefault(name, small_image(sizes))
            elif number == 15:
                self.read_sparse(part)

    def scope(self, outer: _Scope | None = None) -> _Scope:
        self.scopes.append(_Scope(outer))
        return self.scopes[-1]

    def read_function(self, message: memoryview) -> None:
        names = {1: "", 10: ""}
        scope = self.scope()
        for number, part in fields(message):
            if number in names:
                names[number] = text(part)
            elif number == 7:
                self.read_node(part, 1, scope)
            elif number == 11:
                self.read_attribute(part, 1, scope)
        self.functions.add((names[10], names[1]))

    def read_node(self, message: memoryview, level: int, scope: _Scope) -> None:
        names = {4: "", 7: ""}
        step, outputs = Step(""), []
        for number, part in fields(message):
            if number in names:
                names[number] = text(part)
            elif number == 5:
                step.attributes[self.read_attribute(part, level, scope)] = part
            elif number == 1:
                step.inputs.append(text(part))
            elif number == 2:
                outputs.append(text(part))
        self.ops.add((names[7], names[4]))
        step.op = names[4] if names[7] in ONNX_DOMAINS else ""
        if outputs:
            scope.steps[outputs[0]] = step

    def read_attribute(self, message: memoryview, level: int, scope: _Scope) -> str:
        """Look into an attribute; gives its name."""
        name = ""
        for number, part in fields(message):
            if number == 1:
                name = text(part)
            elif number in (6, 11):
                self.read_graph(part, level + 1, scope)
            elif number in (5, 10):
                self.read_tensor(part)
            elif number in (22, 23):
                self.read_sparse(part)
        return name

    def read_sparse(self, message: memoryview) -> None:
        for number, part in fields(message):
            if number in (1, 2):
                self.read_tensor(part)

    def read_tensor(self, message: memoryview) -> None:
        for number, part in fields(message):
            if number == 13:
                self.data |= _locations(part)


def _input(message: memoryview) -> tuple[str, list[int]]:
    """Name and sizes of an input; 0 where they are free."""
    name, sizes = "", []
    for number, part in fields(message):
        if number == 1:
            name = text(part)
        elif number == 2:
            sizes = [
                next((size for place, size in fields(dimension) if place == 1), 0)
                for kind, tensor in fields(part)
                if kind == 1
                for inner, shape in fields(tensor)
                if inner == 2
                for one, dimension in fields(shape)
                if one == 1
            ]
    return name, [size if isinstance(size, int) and size < 1 << 63 else 0 for size in sizes]


def _locations(entry: Any) -> set[str]:
    words = {number: text(part) for number, part in fields(entry) if number in (1, 2)}
    return {words.get(2, "")} if words.get(1) == "location" else set()
