"""All layers of a Keras model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras


def every_layer(model: keras.Model) -> list[Any]:
    """The layers of a model, also those inside models and layers of it, each once, outer ones first.

    Notes
    -----
    `Model.layers` names the first floor only. What a layer of one's own holds is found among its attributes, since
    Keras tracks layers in attributes, lists and dictionaries.
    """
    found: dict[int, Any] = {}
    for layer in _inside(model):
        found.setdefault(id(layer), layer)
    return list(found.values())


def _inside(layer: Any, above: tuple[Any, ...] = ()) -> Iterator[Any]:
    held = layer.layers if isinstance(layer, keras.Model) else vars(layer).values()
    for inner in _layers_among(held):
        if not any(inner is one for one in above):
            yield inner
            yield from _inside(inner, (*above, layer))


def _layers_among(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, keras.Layer):
            yield value
        elif isinstance(value, Mapping):
            yield from _layers_among(value.values())
        elif isinstance(value, list | tuple):
            yield from _layers_among(value)
