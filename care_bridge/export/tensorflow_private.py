"""The two functions of TensorFlow that freezing needs and that have no public name.

tests/export/test_neighbours.py tells when one of them moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def with_constants(function: Any) -> Any:
    """A concrete function whose variables became constants.

    `tf.compat.v1.graph_util.convert_variables_to_constants` is public, but knows variables of sessions only.
    """
    return convert_variables_to_constants_v2(function)


def op_defaults(op: str) -> Iterator[tuple[str, Any]]:
    """Attributes of an operation that have a default value in this TensorFlow, and that value.

    `tf.Operation.op_def` is public, but hangs on an operation with fitting inputs, and the graphs that are looked
    at here were often written by others.
    """
    definition = op_def_registry.get(op)
    for attr in definition.attr if definition else ():
        if attr.HasField("default_value"):
            yield attr.name, attr.default_value
