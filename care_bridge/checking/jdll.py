"""What deepImageJ's engine (JDLL 0.6) makes of a package: its rules, its normalisation and its tiles in
NumPy.

The rules were seen in about 380 runs of JDLL 0.6.1 and 0.6.3. Formulas per axis (N size, h halo, s step):
tile ``t = floor((N + 2h) / s) * s``, at most three times the image; ``pad0 = max(h, ceil((t - N) / 2))``;
a later tile overwrites an earlier one; outside, the image is mirrored with its edge pixel repeated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.normalize import deepimagej_rank

Array = NDArray[Any]
Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]

LARGEST_TILE = 4096 * 4096 * 3
"""Pixels above which JDLL looks for a smaller tile for ever."""

NEWEST_OPSET = 17
"""Newest that JDLL's ONNX engines load."""

_STEPS = ("binarize", "clip", "ensure_dtype", "fixed_zero_mean_unit_variance", "scale_linear", "scale_range")
_PROCESSING = (*_STEPS, "sigmoid", "zero_mean_unit_variance")
_LETTERS = {"batch": "b", "channel": "c"}


class JdllError(InputError):
    """JDLL does not give a result.

    Attributes
    ----------
    stage : {"read", "create", "load", "run"}
        Where it stops.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


@dataclass(frozen=True)
class Axis:
    """One dimension of a tensor as JDLL reads it: `step` 0 is a fixed size of `min`."""

    letter: str
    min: int
    step: int
    halo: int
    channels: int | None = None


@dataclass(frozen=True)
class Description:
    """The part of an rdf.yaml that JDLL works by."""

    axes: tuple[Axis, ...]
    output_axes: tuple[Axis, ...]
    preprocessing: tuple[Mapping[str, Any], ...]
    postprocessing: tuple[Mapping[str, Any], ...]
    problems_at_run: tuple[str, ...]


# --- reading


def read(rdf: Mapping[str, Any]) -> Description:
    """Read a description as JDLL does.

    Raises
    ------
    JdllError
        With the first thing that stops it.
    """
    version = rdf.get("format_version")
    if not isinstance(version, str) or not version.startswith(("0.4", "0.5")):
        raise JdllError("read", f"format_version {version!r}: JDLL reads the texts 0.4.x and 0.5.x only")
    for key in ("documentation", "license"):
        if isinstance(rdf.get(key), Mapping):
            raise JdllError("read", f"{key} is a mapping (format 0.5.11 and later); JDLL needs a text")
    config = rdf.get("config") or {}
    nickname = (config.get("bioimageio") or {}).get("nickname") if isinstance(config, Mapping) else None
    if not isinstance(rdf.get("id"), str) and not isinstance(nickname, str):
        raise JdllError(
            "read", "neither id nor config.bioimageio.nickname: JDLL cannot read it (modelID is null)"
        )
    if version.startswith("0.4"):
        rdf = _newer(rdf)
    inputs, outputs = rdf.get("inputs") or [], rdf.get("outputs") or []
    if len(inputs) != 1 or len(outputs) != 1:
        raise JdllError("run", f"{len(inputs)} inputs and {len(outputs)} outputs; deepImageJ takes one image")
    late: list[str] = []
    halos = {str(axis.get("id")): int(axis.get("halo") or 0) for axis in outputs[0]["axes"]}
    first = tuple(_axis(axis, halos, late, is_input=True) for axis in inputs[0]["axes"])
    last = tuple(_axis(axis, halos, late, is_input=False) for axis in outputs[0]["axes"])
    kind = (
        (outputs[0].get("data") or {}).get("type", "float32")
        if isinstance(outputs[0].get("data"), Mapping)
        else "float32"
    )
    if kind != "float32":
        late.append(f"the output's data.type is {kind}; JDLL writes float32 only")
    steps = tuple(inputs[0].get("preprocessing") or ()), tuple(outputs[0].get("postprocessing") or ())
    for step in itertools.chain(*steps):
        late += _step_problems(step)
    return Description(first, last, steps[0], steps[1], tuple(late))


def _axis(axis: Mapping[str, Any], halos: Mapping[str, int], late: list[str], *, is_input: bool) -> Axis:
    kind, name = axis.get("type"), axis.get("id")
    if kind is None:
        raise JdllError("read", f"axis {name!r} has no type")
    if kind == "batch" or name == "batch":
        return Axis("b", 1, 0, 0)
    if kind == "channel" or name == "channel":
        names = axis.get("channel_names")
        if names is None:
            raise JdllError("read", "a channel axis without channel_names (this.channelNames is null)")
        return Axis("c", len(names), 0, 0, len(names))
    if kind == "time":
        raise JdllError("read", f"time axis {name!r}: JDLL takes x, y, z, batch and channel")
    if name not in ("x", "y", "z"):
        raise JdllError("read", f"axis id {name!r}: JDLL needs the ids x, y, z written out, in lower case")
    size = axis.get("size")
    if is_input and axis.get("halo"):
        late.append(f"a halo on the input axis {name}; it belongs to the output")
    if not is_input and float(axis.get("scale", 1.0)) != 1.0:
        late.append(
            f"scale {axis['scale']} on output axis {name}: JDLL takes it for a ratio of sizes; leave it at 1"
        )
    if not is_input and isinstance(size, Mapping) and size.get("offset"):
        late.append(f"a size offset on output axis {name}: JDLL counts it twice")
    least, step = _size(size, str(name)) if is_input else (1, 0)
    return Axis(str(name), least, step, halos.get(str(name), 0))


def _size(size: Any, name: str) -> tuple[int, int]:
    if isinstance(size, int):
        return size, 0
    if isinstance(size, Mapping) and "min" in size:
        least, step = int(size["min"]), int(size.get("step") or 0)
        if step and least % step:
            raise JdllError("read", f"the least size {least} of {name} is no multiple of its step {step}")
        return least, step
    raise JdllError("read", f"the size of input axis {name} is {size!r}; give a number or min and step")


def _step_problems(step: Mapping[str, Any]) -> list[str]:
    name, kwargs = step.get("id", step.get("name")), step.get("kwargs") or {}
    if name not in _PROCESSING:
        return [f"{name}: JDLL has no such processing step"]
    if name == "clip" and not {"min", "max"} <= set(kwargs):
        return ["clip with one limit: JDLL needs min and max"]
    return []


def _newer(rdf: Mapping[str, Any]) -> Mapping[str, Any]:
    """A 0.4 description in the words of 0.5, as far as JDLL looks."""
    newer = dict(rdf)
    names = {"b": "batch", "c": "channel"}
    for key in ("inputs", "outputs"):
        tensors = []
        for tensor in rdf.get(key) or ():
            letters, shape = str(tensor.get("axes", "")), tensor.get("shape")
            axes = []
            for number, letter in enumerate(letters):
                axis: dict[str, Any] = {"id": names.get(letter, letter), "type": names.get(letter, "space")}
                if isinstance(shape, Mapping) and "min" in shape:
                    axis["size"] = {"min": shape["min"][number], "step": shape["step"][number]}
                elif isinstance(shape, Sequence):
                    axis["size"] = shape[number]
                if letter == "c":
                    channels = axis.get("size", 1)
                    axis["channel_names"] = [
                        str(n) for n in range(channels["min"] if isinstance(channels, dict) else channels)
                    ]
                if key == "outputs":
                    axis["halo"] = (tensor.get("halo") or [0] * len(letters))[number]
                axes.append(axis)
            tensors.append({**tensor, "axes": axes, "data": {"type": tensor.get("data_type", "float32")}})
        newer[key] = tensors
    return newer


def smallest(axis: Axis, at_least: int) -> int:
    """The smallest size along an axis that fits its least size and step, and is not below a number."""
    if not axis.step:
        return axis.min
    return axis.min + max(0, -(-(at_least - axis.min) // axis.step)) * axis.step


def without_halo(description: Description) -> Description:
    """The same without halos, as the zoo's check of deepImageJ makes it."""
    axes = tuple(dataclasses.replace(axis, halo=0) for axis in description.axes)
    return dataclasses.replace(description, axes=axes)


# --- which weights


def choose_weights(weights: Mapping[str, Any]) -> str:
    """The weights format that JDLL takes, where its TensorFlow 1.15.0 and ONNX engines are installed.

    Raises
    ------
    JdllError
        If no engine fits.

    Notes
    -----
    The order is that of a Java HashMap over "<format>_v<version>".
    """
    candidates = []
    bundle, onnx = weights.get("tensorflow_saved_model_bundle"), weights.get("onnx")
    if isinstance(bundle, Mapping):
        version = bundle.get("tensorflow_version")
        if version is None:
            raise JdllError("read", "tensorflow_saved_model_bundle without tensorflow_version")
        if str(version).split(".")[0] == "1":
            candidates.append(f"tensorflow_saved_model_bundle_v{version}")
    if isinstance(onnx, Mapping):
        candidates.append(f"onnx_v{onnx.get('opset_version')}")
    if not candidates:
        raise JdllError(
            "create",
            f"no engine for {', '.join(weights) or 'no weights'}: Please install a compatible engine",
        )
    chosen = min(candidates, key=_bucket).rpartition("_v")[0]
    if chosen == "onnx" and int(weights["onnx"].get("opset_version") or 0) > NEWEST_OPSET:
        raise JdllError("load", f"it takes the ONNX weights, and their opset is newer than {NEWEST_OPSET}")
    return chosen


def _bucket(text: str) -> int:
    """The place of a text in a java.util.HashMap of 16 buckets."""
    code = 0
    for letter in text.encode("utf-16-be")[1::2]:
        code = (31 * code + letter) & 0xFFFFFFFF
    return (code ^ (code >> 16)) & 15


# --- running


def predict(description: Description, network: Call, image: Array) -> NDArray[np.float32]:
    """What JDLL gives for an image.

    Parameters
    ----------
    description : Description
    network : callable
        The bare network, tensor to tensor.
    image : ndarray
        One dimension an input axis, in its order.

    Raises
    ------
    JdllError
        Where JDLL fails at run.
    """
    if image.ndim != len(description.axes):
        raise JdllError(
            "run", f"the image has {image.ndim} dimensions, the description {len(description.axes)}"
        )
    plans = [_plan(axis, size) for axis, size in zip(description.axes, image.shape, strict=True)]
    if description.problems_at_run:
        raise JdllError("run", description.problems_at_run[0])
    if math.prod(plan.tile for plan in plans) > LARGEST_TILE:
        raise JdllError(
            "run", f"a tile of more than {LARGEST_TILE} pixels: JDLL loops for ever; crop the image"
        )
    letters = "".join(axis.letter for axis in description.axes)
    tensor = process(image, letters, description.preprocessing)
    result = _tiled(description, network, tensor, plans)
    out_letters = "".join(axis.letter for axis in description.output_axes)
    return process(result, out_letters, description.postprocessing)


@dataclass(frozen=True)
class _Plan:
    tile: int
    pad: int
    keep: int
    starts: tuple[int, ...]


def _plan(axis: Axis, size: int) -> _Plan:
    if axis.letter == "b":
        return _Plan(1, 0, 1, tuple(range(size)))
    if axis.letter == "c":
        if axis.channels is not None and axis.channels != size:
            raise JdllError("run", f"the description has {axis.channels} channels, the image {size}")
        return _Plan(size, 0, size, (0,))
    halo, step = axis.halo, axis.step
    tile = axis.min
    if step:
        tile = (size + 2 * halo) // step * step
        if tile > 3 * size and tile - step >= axis.min:
            tile -= step
        if tile > 3 * size and -(-size // step) * step >= axis.min:
            tile = -(-size // step) * step
    if tile > 3 * size:
        raise JdllError(
            "run", f"a tile of {tile} along {axis.letter} is more than 3 times the image's {size}"
        )
    pad = max(halo, -((size - tile) // 2))
    after = max(halo, tile - size - pad)
    keep = tile - pad - after
    if keep <= 0 or tile - 2 * halo <= 0:
        raise JdllError("run", f"nothing is left of a tile of {tile} along {axis.letter} with halo {halo}")
    count = -(-size // (tile - 2 * halo))
    starts = tuple(min(keep * number, size - keep) - pad for number in range(count))
    return _Plan(tile, pad, keep, starts)


def _tiled(
    description: Description, network: Call, tensor: NDArray[np.float32], plans: Sequence[_Plan]
) -> NDArray[np.float32]:
    letters = [axis.letter for axis in description.axes]
    out_letters = [axis.letter for axis in description.output_axes]
    out: NDArray[np.float32] | None = None
    for starts in itertools.product(*(plan.starts for plan in plans)):
        piece = tensor
        for dimension, (plan, start) in enumerate(zip(plans, starts, strict=True)):
            place = _mirror(np.arange(start, start + plan.tile), tensor.shape[dimension])
            piece = np.take(piece, place, axis=dimension)
        result = network(np.ascontiguousarray(piece, np.float32))
        if result.ndim != len(out_letters):
            raise JdllError(
                "run", f"the network gives {result.ndim} dimensions, the description says {len(out_letters)}"
            )
        if out is None:
            out = np.empty(_out_shape(description, tensor.shape, letters), np.float32)
        read, write = [], []
        for dimension, letter in enumerate(out_letters):
            if letter == "c":
                wanted = out.shape[dimension]
                if result.shape[dimension] != wanted:
                    raise JdllError(
                        "run",
                        f"the output has {result.shape[dimension]} channels, the description {wanted} "
                        "(reads as "
                        "'Shared memory segment already exists')",
                    )
                read.append(slice(None))
                write.append(slice(None))
                continue
            plan, start = plans[letters.index(letter)], starts[letters.index(letter)]
            if result.shape[dimension] != plan.tile:
                raise JdllError(
                    "run", f"the network makes {result.shape[dimension]} of {plan.tile} along {letter}"
                )
            read.append(slice(plan.pad, plan.pad + plan.keep))
            write.append(slice(start + plan.pad, start + plan.pad + plan.keep))
        out[tuple(write)] = result[tuple(read)]
    assert out is not None
    return out


def _out_shape(description: Description, shape: Sequence[int], letters: Sequence[str]) -> tuple[int, ...]:
    return tuple(
        int(axis.channels or 1) if axis.letter == "c" else shape[letters.index(axis.letter)]
        for axis in description.output_axes
    )


def _mirror(places: Array, size: int) -> Array:
    folded = np.mod(places, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def process(tensor: Array, letters: str, steps: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Apply processing steps as JDLL does, to the whole image, each result in float32."""
    result = np.asarray(tensor, np.float32)
    for step in steps:
        name, kwargs = step.get("id", step.get("name")), step.get("kwargs") or {}
        values = np.asarray(result, np.float64)
        pooled = _pooled(kwargs.get("axes"), letters)
        if name == "scale_range":
            values = _scale_range(values, pooled, kwargs)
        elif name == "zero_mean_unit_variance":
            eps = float(kwargs.get("eps", 1e-6))
            mean, std = (f(values, axis=pooled, keepdims=True) for f in (np.mean, np.std))
            values = (values - mean) / (std + eps)
        elif name == "fixed_zero_mean_unit_variance":
            values = (values - float(kwargs.get("mean", 0))) / float(kwargs.get("std", 1))
        elif name == "scale_linear":
            values = values * _number(kwargs.get("gain", 1)) + _number(kwargs.get("offset", 0))
        elif name == "clip":
            values = np.clip(values, float(kwargs["min"]), float(kwargs["max"]))
        elif name == "sigmoid":
            values = 1 / (1 + np.exp(-values))
        elif name == "binarize":
            values = (values > float(kwargs.get("threshold", 0.5))).astype(np.float64)
        result = values.astype(np.float32)
    return result


def _number(value: Any) -> Any:
    return np.asarray(value, np.float64) if isinstance(value, list) else float(value)


def _pooled(axes: Any, letters: str) -> tuple[int, ...]:
    """Which dimensions are pooled. No axes: all; "batch" holds the letter c, so it pools channels as well."""
    if not axes:
        return tuple(range(len(letters)))
    names = list(axes) if isinstance(axes, str) else [str(name) for name in axes]
    wanted = {_LETTERS.get(name, name) for name in names}
    if "batch" in names:
        wanted |= {"b", "c"}
    return tuple(index for index, letter in enumerate(letters) if letter in wanted)


def _scale_range(
    values: NDArray[np.float64], pooled: tuple[int, ...], kwargs: Mapping[str, Any]
) -> NDArray[np.float64]:
    low, high = float(kwargs.get("min_percentile", 0)), float(kwargs.get("max_percentile", 100))
    eps = float(kwargs.get("eps", 1e-6))
    looped = tuple(axis for axis in range(values.ndim) if axis not in pooled)
    out = np.empty_like(values)
    for index in np.ndindex(*(values.shape[axis] for axis in looped)):
        where: list[Any] = [slice(None)] * values.ndim
        for axis, place in zip(looped, index, strict=True):
            where[axis] = place
        part = values[tuple(where)]
        ranked = np.sort(part, axis=None)
        bottom, top = (ranked[deepimagej_rank(ranked.size, p)] for p in (low, high))
        out[tuple(where)] = (part - bottom) / (top - bottom + eps)
    return out
