"""The one reader of YAML, JSON and TOML that others wrote: plain values, or one sentence that names the file."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from care_bridge.errors import InputError

MOST_BYTES = 4 << 20
"""So long a text is read; descriptions and settings have a few kilobytes."""

MOST_YAML_BYTES = 512 << 10
"""YAML, and TOML, are read a hundred times slower than JSON."""

MOST_DEPTH = 60
MOST_VALUES = 200_000
"""So deep, and to so many values, a text may unfold; YAML's aliases make ten lines a billion of them."""

MOST_PROBLEMS = 20
"""So many complaints about one file are said."""

Format = Literal["YAML", "JSON", "TOML"]
_LARGEST = 1 << 63
_MOST_DOTS = 500


def read(path: str | os.PathLike[str], kind: Format) -> Any:
    """What a text file says; see `parse`.

    Raises
    ------
    InputError
        As `parse`, and for a file that is too long.
    FileNotFoundError
        If there is none.
    """
    file = Path(path)
    most = MOST_BYTES if kind == "JSON" else MOST_YAML_BYTES
    with open(file, "rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise InputError(
            f"{str(file)!r} has {file.stat().st_size:,} bytes of {kind}, and at most {most:,} are read; is it the file "
            "that was meant?"
        )
    return parse(content, kind, name=repr(str(file)))


def parse(content: bytes | str, kind: Format, *, name: str) -> Any:
    """What a text says, as mappings with texts as keys, lists, texts, numbers, truths and None.

    Parameters
    ----------
    content : bytes or str
        UTF-8, with or without a byte order mark.
    kind : {"YAML", "JSON", "TOML"}
    name : str
        What the text is, for messages.

    Returns
    -------
    object
        Dates are given as the text that they are written as; keys that are no text, as theirs.

    Raises
    ------
    InputError
        If it is not of that kind; or if it holds what no description needs: a key twice, more than `MOST_DEPTH` levels,
        an alias that holds itself or unfolds to more than `MOST_VALUES` values, whole numbers beyond 64 bits, YAML's
        sets, binaries and objects.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        # One that was cut out of half a letter can be neither shown nor written.
        text.encode("utf-8")
        return _plain(_READERS[kind](text.removeprefix("\ufeff")), name)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{name} is nested too deep; at most {MOST_DEPTH} levels are read") from None
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, IndexError) as error:
        # PyYAML lets through whatever Python says of a number, a date or a key.
        raise InputError(f"{name} is not {kind} and cannot be read ({_short(error)})") from None


def checked(values: Any, model: type[BaseModel], *, name: str) -> None:
    """Hold values against a model, for their kinds alone.

    Parameters
    ----------
    values : object
        As `parse` gives them.
    model : type
        Says of every key what it must be.
    name : str
        What the values are, for messages.

    Raises
    ------
    InputError
        With every complaint: the place, what is wrong and what came.
    """
    try:
        model.model_validate(values, strict=True)
    except ValidationError as error:
        raise InputError(f"{name}:\n" + "\n".join(problems(error))) from None


def problems(error: ValidationError) -> list[str]:
    """A line a complaint of pydantic: the place, what is wrong, what came."""
    lines = []
    for problem in error.errors():
        # pydantic also names the alternatives that it tried; people know only keys.
        place = [str(part) for part in problem["loc"] if not str(part)[:1].isupper() and "[" not in str(part)]
        message = str(problem["msg"]).removeprefix("Value error, ")
        lines.append(f"{'.'.join(place) or 'it'}: {_lower(message)}; received {shown(problem['input'])}")
    lines = list(dict.fromkeys(lines))
    more = len(lines) - MOST_PROBLEMS
    return [*lines[:MOST_PROBLEMS], f"and {more} more"] if more > 0 else lines


def shown(value: Any, most: int = 60) -> str:
    """A value as it is said in a message: in one line, cut where it is long."""
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"a list of {len(value)}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


# --- the three kinds


def _json(text: str) -> Any:
    import json

    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"the key {shown(_twice(key for key, _ in pairs))} is there twice")
    return found


def _twice(keys: Iterable[str]) -> str | None:
    """The first key that comes again; None where none does."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _toml(text: str) -> Any:
    import tomllib

    # tomllib takes the square of a dotted key's parts in time; a key stands in one line.
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {_MOST_DOTS} dots")
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node)
        return _of_node(loader, node, {})
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    finally:
        loader.dispose()


_READERS: dict[str, Callable[[str], Any]] = {"YAML": _yaml, "JSON": _json, "TOML": _toml}
_TAG = "tag:yaml.org,2002:"
_SCALARS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value"}


def _children(node: Any) -> list[Any]:
    if isinstance(node.value, str):
        return []
    return [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]


def _check_node(root: Any) -> None:
    """How deep and to how many values a document unfolds; each of its nodes is looked at once."""
    seen: dict[int, tuple[int, int] | None] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if id(node) not in seen:
            seen[id(node)] = None  # being looked at
            for child in _children(node):
                if id(child) in seen and seen[id(child)] is None:
                    line = child.start_mark.line + 1
                    raise ValueError(f"the anchor in line {line} holds itself")
                if id(child) not in seen:
                    stack.append(child)
            continue
        stack.pop()
        if seen[id(node)] is None:
            below = [seen[id(child)] or (0, 0) for child in _children(node)]
            depth, count = 1 + max((d for d, _ in below), default=0), 1 + sum(c for _, c in below)
            if depth > MOST_DEPTH:
                raise ValueError(f"it is nested {depth} levels deep, and at most {MOST_DEPTH} are read")
            if count > MOST_VALUES:
                line = node.start_mark.line + 1
                raise ValueError(
                    f"what begins in line {line} unfolds to {count:.3g} values, and at most {MOST_VALUES:,} are read"
                )
            seen[id(node)] = depth, count


def _of_node(loader: Any, node: Any, built: dict[int, Any]) -> Any:
    if id(node) in built:
        return built[id(node)]
    built[id(node)] = value = _value(loader, node, built)
    return value


def _value(loader: Any, node: Any, built: dict[int, Any]) -> Any:
    import yaml

    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        if kind in ("timestamp", "merge", "value"):
            return node.value
        return loader.construct_object(node)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_of_node(loader, entry, built) for entry in node.value]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        own = (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if (twice := _twice(key for key in own if key != "<<")) is not None:
            raise ValueError(f"the key {shown(twice)} is there twice (line {node.start_mark.line + 1})")
        loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"a key in line {key.start_mark.line + 1} is no text")
            name = _of_node(loader, key, built)
            found[name if isinstance(name, str) else str(key.value)] = _of_node(loader, value, built)
        return found
    raise ValueError(f"{node.tag.replace(_TAG, '!!')} in line {node.start_mark.line + 1} is not read")


# --- what they gave


def _plain(root: Any, name: str) -> Any:
    """The same values, checked for their depth and size; dates become texts."""
    if isinstance(root, str | int | float | None | datetime.date | datetime.time):
        return _scalar(root, name)
    count, stack = 0, [(root, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > MOST_DEPTH:
            raise InputError(f"{name} is nested too deep; at most {MOST_DEPTH} levels are read")
        count += len(value)
        if count > MOST_VALUES:
            raise InputError(f"{name} holds more than {MOST_VALUES:,} values; is it the file that was meant?")
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, dict | list):
                stack.append((inner, depth + 1))
            else:
                value[key] = _scalar(inner, name)
    return root


def _scalar(value: Any, name: str) -> Any:
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise InputError(f"{name} holds a whole number of {value.bit_length()} bits; at most 64 are read")
    if isinstance(value, str):
        value.encode("utf-8")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value
