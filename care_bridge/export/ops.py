"""Which operations, attributes and defaults each TensorFlow 1.x has, taken from the real runtimes.

`benchmarks/take_op_tables.py` takes them again: every runtime is asked for its own list
(`org.tensorflow.TensorFlow.registeredOpList()`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, TypedDict

from care_bridge.defaults import TF1_VERSIONS
from care_bridge.errors import InputError

Attributes = dict[str, list[Any]]


class Op(TypedDict):
    """One operation: number of inputs (None for a list), and attribute -> [type, default, allowed values]."""

    inputs: int | None
    attrs: Attributes


@functools.cache
def op_table(version: str) -> Mapping[str, Op]:
    """Operations of a TensorFlow release.

    Parameters
    ----------
    version : str
        One of `defaults.TF1_VERSIONS`; "1.12" and "1.15.5" find the release of the same minor version.

    Raises
    ------
    InputError
        If there is no table for that release.
    """
    minor = ".".join(version.split(".")[:2])
    for target in TF1_VERSIONS:
        if target.startswith(minor + "."):
            text = (
                resources.files(__package__)
                .joinpath("op_tables", f"tf-{target}.json")
                .read_text(encoding="utf-8")
            )
            table: dict[str, Op] = json.loads(text)
            return table
    raise InputError(
        f"no table of operations for TensorFlow {version}; there are tables for {', '.join(TF1_VERSIONS)}"
    )


def table_of(op_list: bytes) -> dict[str, Op]:
    """The table of a serialised OpList, as a runtime gives it.

    Parameters
    ----------
    op_list : bytes
        Protocol buffer `tensorflow.OpList`.
    """
    from tensorflow.core.framework import op_def_pb2

    ops = op_def_pb2.OpList.FromString(op_list)
    table: dict[str, Op] = {}
    for op in sorted(ops.op, key=lambda op: op.name):
        attrs: Attributes = {}
        for attr in op.attr:
            default = plain_value(attr.default_value) if attr.HasField("default_value") else None
            allowed = plain_value(attr.allowed_values) if attr.HasField("allowed_values") else None
            attrs[attr.name] = [attr.type, default, allowed]
        listed = any(arg.number_attr or arg.type_list_attr for arg in op.input_arg)
        table[op.name] = {"inputs": None if listed else len(op.input_arg), "attrs": attrs}
    return table


def write_table(table: Mapping[str, Op]) -> str:
    """JSON with one operation a line, so that two tables can be compared by eye and by diff."""
    lines = [f"{json.dumps(name)}: {json.dumps(op, separators=(',', ':'))}" for name, op in table.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def plain_value(value: Any) -> Any:
    """An attribute's value (AttrValue) as plain JSON; types by name."""
    from tensorflow.core.framework import types_pb2

    kind = value.WhichOneof("value")
    if kind == "list":
        items = [*value.list.s, *value.list.i, *value.list.f, *value.list.b]
        return [_text(item) for item in items] + [types_pb2.DataType.Name(item) for item in value.list.type]
    if kind == "type":
        return types_pb2.DataType.Name(value.type)
    if kind in ("shape", "tensor", "func"):
        return str(getattr(value, kind)).strip()
    return None if kind is None else _text(getattr(value, kind))


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value
