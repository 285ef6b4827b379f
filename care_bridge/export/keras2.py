"""Whole models of Keras 2, told in the words of Keras 3: what it renamed, dropped or changed without a word."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.export.layers import every_layer

_DROPPED = {
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SpatialDropout1D": ("noise_shape", "trainable"),
    "SpatialDropout2D": ("noise_shape", "trainable"),
    "SpatialDropout3D": ("noise_shape", "trainable"),
}
"""Arguments in files of Keras 2 that Keras 3 no longer takes; none of them changes a prediction."""

_MODELS = {"Functional": "Model", "Sequential": "Sequential"}
"""Models by their class: their public name in Keras 3, which makes Functional ones of keras.Model."""

_COMPOSED = {
    "add": "Add",
    "subtract": "Subtract",
    "multiply": "Multiply",
    "maximum": "Maximum",
    "minimum": "Minimum",
}
_ACTIVATIONS = ("relu", "elu", "selu", "sigmoid", "tanh", "softplus", "softsign")
_CALLED = ("TFOpLambda", "SlicingOpLambda")


def is_keras_2(path: Path) -> bool:
    """Whether Keras 2 (or tf_keras) wrote a file; False too for what is no model."""
    return _version(path).startswith("2.")


def load(path: Path, folder: Path, custom_objects: Mapping[str, Any]) -> keras.Model:
    """Open a model of Keras 2 in Keras 3.

    Parameters
    ----------
    path : Path
        .h5 or .keras.
    folder : Path
        An empty one, for a copy of the file in other words.
    custom_objects : mapping
        Layers by name.

    Raises
    ------
    InputError
        If a layer calls a TensorFlow function that has no layer of the same meaning.

    Notes
    -----
    `hard_sigmoid` is ``clip(0.2 x + 0.5, 0, 1)`` in Keras 2 and ``clip(x / 6 + 0.5, 0, 1)`` in Keras 3: it becomes a
    Rescaling and a ReLU, so that the model also means the same where it is written to.
    """
    copy = folder / f"copy{path.suffix.lower()}"
    if copy.suffix == ".keras":
        with zipfile.ZipFile(copy, "w") as new:
            for entry in zips.names(path):
                content = zips.read(path, entry) or b""
                if entry == "config.json":
                    config = in_words_of_keras_3(json.loads(content))
                    content = json.dumps(config).encode()
                new.writestr(entry, content)
    else:
        import h5py

        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            config = in_words_of_keras_3(json.loads(file.attrs["model_config"]))
            file.attrs["model_config"] = json.dumps(config)
    _refuse_old_upsampling(path, config)
    model = keras.models.load_model(copy, custom_objects=dict(custom_objects), compile=False, safe_mode=True)
    return _with_old_hard_sigmoid(model)


def _refuse_old_upsampling(path: Path, config: Mapping[str, Any]) -> None:
    """Before TensorFlow 2 interpolation placed pixels by their corners, and the file does not say so."""
    version = _version(path)
    if version == "2.3.0-tf" or not version.startswith(("2.0", "2.1.", "2.2.", "2.3.")):
        return
    for layer in _flat(config):
        if (
            layer["class_name"] == "UpSampling2D"
            and layer["config"].get("interpolation", "nearest") != "nearest"
        ):
            raise InputError(
                f"layer {layer['config'].get('name')!r} (UpSampling2D, {layer['config']['interpolation']}) of Keras "
                f"{version} may place pixels by the rule of TensorFlow 1, which Keras 3 does not have, so the result "
                "would differ; use interpolation='nearest' or a transposed convolution"
            )


def _flat(layer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield layer
    for inner in layer["config"].get("layers", ()):
        yield from _flat(inner)


def _version(path: Path) -> str:
    try:
        if zips.is_zip(path):
            return str(json.loads(zips.read(path, "metadata.json") or b"{}")["keras_version"])
        import h5py

        with h5py.File(path, "r") as file:
            version = file.attrs["keras_version"] if "model_config" in file.attrs else ""
            return version.decode() if isinstance(version, bytes) else str(version)
    except (OSError, KeyError, ValueError):
        return ""


def in_words_of_keras_3(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a layer or model of Keras 2 as Keras 3 reads it."""
    new = dict(layer)
    name = new["class_name"] = "Functional" if layer["class_name"] == "Model" else str(layer["class_name"])
    config = dict(layer["config"]) if isinstance(layer["config"], Mapping) else {"layers": layer["config"]}
    if "module" in layer:
        new["module"] = "keras" if name in _MODELS else str(layer["module"]).replace("tf_keras", "keras")
        if name in _MODELS:
            new["class_name"], new["registered_name"] = _MODELS[name], None
    for key in _DROPPED.get(name, ()):
        config.pop(key, None)
    if isinstance(config.get("dtype"), Mapping):
        config["dtype"] = config["dtype"]["config"]["name"]
    if name == "BatchNormalization" and isinstance(config.get("axis"), list):
        (config["axis"],) = config["axis"]
    if name == "Lambda":
        raise InputError(
            f"layer {config.get('name')!r} is a Lambda, whose code is not run from a file of others; build the model "
            "with a layer that does the same, e.g. Rescaling, Activation, Add"
        )
    if name == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    if name == "ThresholdedReLU":
        new["class_name"], config = "ReLU", {"name": config["name"], "threshold": config["theta"]}
    if name == "InputLayer":
        config = {
            "batch_shape" if key == "batch_input_shape" else key: value for key, value in config.items()
        }
        config = {key: value for key, value in config.items() if key not in ("sparse", "ragged")}
    if name in _MODELS:
        config["layers"] = _layers(config["layers"], name)
    for key, inner in config.items():
        if key == "layer" and isinstance(inner, Mapping) and "class_name" in inner:
            config[key] = in_words_of_keras_3(inner)
    new["config"] = config
    return new


def _layers(layers: list[Any], model: str) -> list[Any]:
    changed = [in_words_of_keras_3(layer) for layer in layers]
    if model == "Sequential":
        return _with_input(changed)
    # Keras 2 counts the building of a nested model as its first call; Keras 3 knows that of functional ones.
    nested = {layer["config"].get("name") for layer in changed if layer["class_name"] == "Sequential"}
    for layer in changed:
        if layer["class_name"] in _CALLED:
            _as_layer(layer)
        for node in layer.get("inbound_nodes", ()):
            for call in node:
                if isinstance(call, list) and len(call) > 1 and call[0] in nested and call[1]:
                    call[1] -= 1
    return changed


def _with_input(layers: list[Any]) -> list[Any]:
    """Keras 2 wrote the shape of a Sequential's input into its first layer."""
    first = layers[0]["config"] if layers else {}
    shape = first.pop("batch_input_shape", None) if isinstance(first, dict) else None
    for layer in layers[1:]:
        layer["config"].pop("batch_input_shape", None)
    if shape is None or layers[0]["class_name"] == "InputLayer":
        return layers
    entry: dict[str, Any] = {
        "class_name": "InputLayer",
        "config": {"batch_shape": shape, "name": "input_of_first"},
    }
    if "module" in layers[0]:
        entry |= {"module": "keras.layers", "registered_name": None}
    return [entry, *layers]


def _as_layer(layer: dict[str, Any]) -> None:
    """Write a call of a TensorFlow function in a functional model as the layer that does the same."""
    config = layer["config"]
    called = str(config.get("function", "")).rpartition(".")[2]
    (node,) = layer["inbound_nodes"][:1] or [[]]
    first = node[0] if node and isinstance(node[0], list) else node
    arguments = {key: value for key, value in (first[3] if len(first) > 3 else {}).items() if key != "name"}
    other = arguments.pop("y", None)
    new: dict[str, Any] | None = None
    inputs = [[*first[:3], {}]]
    if layer["class_name"] == "TFOpLambda" and not arguments:
        if called in _ACTIVATIONS and other is None:
            new = {"class_name": "Activation", "config": {"activation": called}}
        elif called in _COMPOSED and isinstance(other, list) and isinstance(other[0], str):
            new, inputs = {"class_name": _COMPOSED[called], "config": {}}, [*inputs, [*other[:3], {}]]
        elif isinstance(other, int | float):
            new = _rescaling(called, float(other))
    if new is None:
        raise InputError(
            f"layer {config.get('name')!r} calls the TensorFlow function {config.get('function')} outside of a Keras "
            f"layer ({layer['class_name']} of Keras 2), which Keras 3 cannot open; build the model with a layer "
            "instead, e.g. Add, Multiply, Rescaling, Concatenate, UpSampling2D, ZeroPadding2D"
        )
    layer["class_name"] = new["class_name"]
    layer.pop("build_config", None)
    if "module" in layer:
        layer |= {"module": "keras.layers", "registered_name": None}
    layer["config"] = {"name": config["name"], "dtype": config.get("dtype", "float32"), **new["config"]}
    layer["inbound_nodes"] = [inputs]


def _rescaling(called: str, number: float) -> dict[str, Any] | None:
    scales = {"add": (1.0, number), "subtract": (1.0, -number), "multiply": (number, 0.0)}
    if number:
        scales |= dict.fromkeys(("truediv", "divide"), (1 / number, 0.0))
    if called not in scales:
        return None
    scale, offset = scales[called]
    return {"class_name": "Rescaling", "config": {"scale": scale, "offset": offset}}


def _with_old_hard_sigmoid(model: keras.Model) -> keras.Model:
    hard = keras.activations.hard_sigmoid
    if not any(getattr(layer, "activation", None) is hard for layer in every_layer(model)):
        return model

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _with_old_hard_sigmoid(layer)(*args, **kwargs)
        if getattr(layer, "activation", None) is not hard:
            return layer(*args, **kwargs)
        layer.activation = keras.activations.linear
        steps = (
            keras.layers.Rescaling(0.2, 0.5, name=f"{layer.name}_scale"),
            keras.layers.ReLU(max_value=1.0, name=f"{layer.name}_clip"),
        )
        tensor = layer(*args, **kwargs)
        for step in steps:
            tensor = step(tensor)
        return tensor

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call, recursive=False
    )
