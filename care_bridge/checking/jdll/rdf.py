"""An rdf.yaml as JDLL reads it: what stops it, and which weights it takes."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from care_bridge.errors import InputError

NEWEST_OPSET = 17
"""Newest that JDLL's ONNX engines load."""

AXES_KEYS = ("axes", "axis")
"""Both spellings of the argument of a processing step."""

_SETTINGS: dict[str, tuple[str, ...]] = {
    "binarize": ("threshold",),
    "clip": ("min", "max"),
    "ensure_dtype": (),
    "fixed_zero_mean_unit_variance": ("mean", "std", *AXES_KEYS),
    "scale_linear": ("gain", "offset", *AXES_KEYS),
    "scale_range": ("min_percentile", "max_percentile", "reference_tensor", "tensor_name", *AXES_KEYS),
    "sigmoid": (),
    "zero_mean_unit_variance": ("mean", "std", *AXES_KEYS),
}
"""Processing steps that JDLL has, with the arguments that it takes; any other ends the run."""

_NEEDED = {
    "binarize": ("threshold",),
    "clip": ("min", "max"),
    "fixed_zero_mean_unit_variance": ("mean", "std"),
}
_NO_EPS = ("ensure_dtype", "sigmoid")
_LISTS = ("mean", "std", "gain", "offset")
_TEXTS = ("name", "description", "license", "documentation", "git_repo", "type", "id")
_PERSON = ("affiliation", "email", "github_user", "name", "orcid")


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


_LETTERS = {"batch": "b", "channel": "c"}


@dataclass(frozen=True)
class Axis:
    """One dimension of a tensor as JDLL reads it.

    Attributes
    ----------
    letter : str
    min, step : int
        Sizes that a tile may have; `step` 0 is a fixed size of `min`.
    halo : int
        Of an input axis: what the outputs' halos ask of it.
    channels : int, optional
        Number of names, for a channel axis.
    reference : str, optional
        Of an output axis: the input axis that its size follows, as `scale * size + 2 * offset`.
    """

    letter: str
    min: int
    step: int
    halo: int
    channels: int | None = None
    reference: str | None = None
    scale: float = 1.0
    offset: float = 0.0


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
    _check_texts(rdf)
    tiled = _names_and_tiling(rdf, needs_name=not version.startswith("0.4"))
    if version.startswith("0.4"):
        rdf = _newer(rdf)
    inputs, outputs = rdf.get("inputs") or [], rdf.get("outputs") or []
    several = f"{len(inputs)} inputs and {len(outputs)} outputs; deepImageJ takes one image"
    if not inputs or not outputs:
        raise JdllError("run", several)
    for tensor in (*inputs[1:], *outputs[1:]):
        for axis in tensor["axes"]:  # what is wrong with them stops it before it runs
            _axis(axis, is_input=tensor in inputs)
    first = tuple(_axis(axis, is_input=True) for axis in inputs[0]["axes"])
    last = tuple(_axis(axis, is_input=False) for axis in outputs[0]["axes"])
    for tensor, which in ((inputs[0], "input"), (outputs[0], "output")):
        if tensor.get("id", tensor.get("name")) is None:
            raise JdllError("read", f"the {which} has no id")
        _text(tensor.get("description"), f"{which}s[0].description")
    first = _with_halos(first, last, outputs[0]["axes"], str(inputs[0].get("id", inputs[0].get("name"))))
    late = [several] if (len(inputs), len(outputs)) != (1, 1) else []
    late += [] if tiled else ["config.deepimagej without allow_tiling: true: JDLL then finds no tile size"]
    if not {"x", "y"} <= {axis.letter for axis in first}:
        late.append("the input has no axes x and y, so it is no image")
    kind = outputs[0]["data"].get("type") if isinstance(outputs[0].get("data"), Mapping) else None
    if isinstance(kind, str) and kind != "float32":
        # With int32 it runs, and the numbers are the bits of floats.
        late.append(f"the output's data.type is {kind}; JDLL writes float32 only")
    steps = (_steps(inputs[0].get("preprocessing")), _steps(outputs[0].get("postprocessing")))
    for step in itertools.chain(*steps):
        late += _step_problems(step)
    return Description(first, last, *steps, tuple(late))


def _text(value: Any, where: str) -> None:
    if value is not None and not isinstance(value, str):
        what = "a mapping (format 0.5.11 and later)" if isinstance(value, Mapping) else repr(value)
        raise JdllError("read", f"{where} is {what}; JDLL needs a text")


def _check_texts(rdf: Mapping[str, Any]) -> None:
    for key in _TEXTS:
        _text(rdf.get(key), key)
    if rdf.get("name") is None:
        raise JdllError("read", "there is no name, and JDLL compares it with others")
    if "timestamp" in rdf and rdf["timestamp"] is None:
        raise JdllError("read", "timestamp is empty; leave the key out")
    people = [
        (key, person)
        for key in ("authors", "maintainers", "packaged_by")
        for person in _mappings(rdf.get(key))
    ]
    for key, person in people:
        for part in _PERSON:
            _text(person.get(part), f"{key}: {part}")
    for citation in _mappings(rdf.get("cite")):
        for part in ("text", "doi", "url"):
            _text(citation.get(part), f"cite: {part}")


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _names_and_tiling(rdf: Mapping[str, Any], *, needs_name: bool) -> bool:
    """Refuse a package without a name of its own; whether it may be tiled."""
    config = rdf.get("config")
    if config is None:
        return True  # JDLL invents a name then
    if not isinstance(config, Mapping):
        raise JdllError("read", f"config is {config!r}; JDLL needs a mapping")
    own = config.get("bioimageio")
    nickname = own.get("nickname") if isinstance(own, Mapping) else None
    _text(nickname, "config.bioimageio.nickname")
    if needs_name and rdf.get("id") is None and nickname is None:
        raise JdllError(
            "read", "neither id nor config.bioimageio.nickname: JDLL cannot read it (modelID is null)"
        )
    older = config.get("deepimagej")
    return older is None or (isinstance(older, Mapping) and older.get("allow_tiling") is True)


def _axis(axis: Mapping[str, Any], *, is_input: bool) -> Axis:
    kind, name = axis.get("type"), axis.get("id")
    if kind is None:
        raise JdllError("read", f"axis {name!r} has no type")
    _text(axis.get("description"), f"axis {name!r}: description")
    if not isinstance(axis.get("concatenable", False), bool):
        raise JdllError(
            "read", f"axis {name!r}: concatenable is {axis['concatenable']!r}; give true or false"
        )
    halo = int(_number_of(axis.get("halo"), 0, f"axis {name!r}: halo"))
    scale = _number_of(axis.get("scale"), 1.0, f"axis {name!r}: scale")
    size = axis.get("size")
    least, step = _size(size, str(name), checked=is_input)
    reference = (
        _LETTERS.get(size["axis_id"], size["axis_id"])
        if isinstance(size, Mapping) and "axis_id" in size
        else None
    )
    offset = _number_of(size.get("offset"), 0.0, "offset") if isinstance(size, Mapping) else 0.0
    if kind == "batch":
        return Axis("b", least, step, halo, None, reference, scale, offset)
    if kind == "channel" or name == "channel":
        names = axis.get("channel_names")
        if not isinstance(names, list):
            why = "without channel_names (this.channelNames is null)" if names is None else f"named {names!r}"
            raise JdllError("read", f"a channel axis {why}; give a list")
        return Axis("c", len(names), step, halo, len(names), reference, scale, offset)
    if kind == "time":
        raise JdllError("read", f"time axis {name!r}: JDLL takes x, y, z, batch and channel")
    if name not in ("x", "y", "z"):
        raise JdllError("read", f"axis id {name!r}: JDLL needs the ids x, y, z written out, in lower case")
    return Axis(str(name), least, step, halo, None, reference, scale, offset)


def _number_of(value: Any, default: float, where: str) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JdllError("read", f"{where} is {value!r}; JDLL needs a number")
    return float(value)


def _size(size: Any, name: str, *, checked: bool) -> tuple[int, int]:
    if size is None:
        return 1, 0
    if isinstance(size, Mapping):
        # What is no number counts as not written.
        least, step = (
            int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
            for value, default in ((size.get("min"), 1), (size.get("step"), 0))
        )
        if checked and step and least % step:
            raise JdllError("read", f"the least size {least} of {name} is no multiple of its step {step}")
        return least, step
    if isinstance(size, int) and not isinstance(size, bool):
        return size, 0
    if isinstance(size, float):
        raise JdllError("read", f"the size of axis {name} is {size!r}; JDLL needs a whole number")
    return 1, 0


def _with_halos(
    first: tuple[Axis, ...], last: tuple[Axis, ...], written: Sequence[Mapping[str, Any]], tensor: str
) -> tuple[Axis, ...]:
    """The input's axes with the halos that the output asks for; JDLL stops at the first that it cannot place."""
    halos = {axis.letter: axis.halo for axis in first}
    for axis, entry in zip(last, written, strict=True):
        if not axis.halo:
            continue
        if axis.reference is None:
            halos[axis.letter] = max(halos.get(axis.letter, 0), axis.halo)
            break
        if entry["size"]["tensor_id"] != tensor:
            raise JdllError(
                "read", f"axis {axis.letter} refers to {entry['size']['tensor_id']!r}, which is no input"
            )
        wanted = (axis.halo + axis.offset) / axis.scale
        if axis.reference not in halos or halos[axis.reference] > wanted:
            break
        halos[axis.reference] = int(wanted)
    return tuple(dataclasses.replace(axis, halo=halos[axis.letter]) for axis in first)


def _steps(steps: Any) -> tuple[Mapping[str, Any], ...]:
    """Those that JDLL carries out: it passes over `ensure_dtype` by its id, and what has no name."""
    return tuple(
        step for step in steps or () if step.get("id") != "ensure_dtype" and step_name(step) is not None
    )


def step_name(step: Mapping[str, Any]) -> str | None:
    """The name of a processing step in lower case with underlines; None where it has none."""
    name = step.get("name", step.get("id"))
    # Java's class is looked for in camel case, so both spellings are found.
    return (
        None
        if name is None
        else re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[0].lower()}", str(name))
    )


def _step_problems(step: Mapping[str, Any]) -> list[str]:
    name, kwargs = str(step_name(step)), step.get("kwargs") or {}
    if name not in _SETTINGS:
        return [f"{name}: JDLL has no such processing step"]
    if not isinstance(kwargs, Mapping):
        return [f"{name}: kwargs are {kwargs!r}; JDLL needs a mapping"]
    known = {*_SETTINGS[name], "mode", *(() if name in _NO_EPS else ("eps",))}
    problems = [f"{name}: JDLL knows no argument {key!r} of it" for key in kwargs if key not in known]
    lacking = [key for key in _NEEDED.get(name, ()) if key not in kwargs]
    if lacking:
        problems.append(f"{name} without {' and '.join(lacking)}: JDLL needs {' and '.join(_NEEDED[name])}")
    for key, value in kwargs.items():
        listed = isinstance(value, list) and key in _LISTS
        if key in known and key not in (*AXES_KEYS, "mode", "reference_tensor", "tensor_name") and not listed:
            if not _is_number(value):
                problems.append(f"{name}: {key} is {value!r}; JDLL needs a number")
            elif key in ("min_percentile", "max_percentile") and float(value) < 0:
                problems.append(f"{name}: a percentile below 0")
    return problems or _value_problems(name, kwargs)


def _is_number(value: Any) -> bool:
    """Whether JDLL takes it for one: a number, or a text that reads as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _value_problems(name: str, kwargs: Mapping[str, Any]) -> list[str]:
    """Combinations of mean and std, gain and offset, and axes that end JDLL's run."""
    axes = next((kwargs[key] for key in AXES_KEYS if key in kwargs), None)
    lists = [key for key in _LISTS if isinstance(kwargs.get(key), list)]
    if name == "zero_mean_unit_variance" and ({"mean", "std"} & set(kwargs) or kwargs.get("mode") == "fixed"):
        return [f"{name} with fixed values: use fixed_zero_mean_unit_variance"]
    if name == "fixed_zero_mean_unit_variance" and (lists or axes is not None):
        return [f"{name}: one mean and one std without axes are all that works"]
    if name == "scale_linear" and lists and axes is None:
        return [f"{name}: lists need an axis"]
    return []


def _newer(rdf: Mapping[str, Any]) -> Mapping[str, Any]:
    """A 0.4 description in the words of 0.5, as far as JDLL looks."""
    newer = dict(rdf)
    names = {"b": "batch", "c": "channel"}
    for key in ("inputs", "outputs"):
        tensors = []
        for tensor in rdf.get(key) or ():
            letters, shape = tensor.get("axes"), tensor.get("shape")
            if not isinstance(letters, str):
                raise JdllError("read", f"{key}: axes are {letters!r}; format 0.4 has a text such as byxc")
            axes = []
            for number, letter in enumerate(letters):
                axis: dict[str, Any] = {"id": names.get(letter, letter), "type": names.get(letter, "space")}
                axis |= _older_size(shape, number, letter, is_input=key == "inputs")
                if letter == "c":
                    size = axis.get("size")
                    count = size.get("min", 1) if isinstance(size, Mapping) else size
                    axis["channel_names"] = [str(n) for n in range(count or 1)]
                if key == "outputs":
                    axis["halo"] = (tensor.get("halo") or [0] * len(letters))[number]
                axes.append(axis)
            kept = {name: value for name, value in tensor.items() if name != "id"}
            tensors.append({**kept, "axes": axes, "data": {"type": tensor.get("data_type", "float32")}})
        newer[key] = tensors
    return newer


def _older_size(shape: Any, number: int, letter: str, *, is_input: bool) -> dict[str, Any]:
    if isinstance(shape, list):
        return {"size": shape[number]}
    if not isinstance(shape, Mapping):
        raise JdllError(
            "read", f"shape is {shape!r}; give a list, or min and step, or reference_tensor and scale"
        )
    wanted = ("min", "step") if is_input else ("reference_tensor", "scale", "offset")
    for key in wanted:
        if shape.get(key) is None:
            raise JdllError("read", f"shape without {key}")
    if is_input:
        return {"size": {"min": shape["min"][number], "step": shape["step"][number]}}
    size = {"tensor_id": shape["reference_tensor"], "axis_id": letter, "offset": shape["offset"][number]}
    return {"size": size, "scale": shape["scale"][number]}


def smallest(axis: Axis, at_least: int) -> int:
    """The smallest size along an axis that fits its least size and step, and is not below a number."""
    if not axis.step:
        return axis.min
    return axis.min + max(0, -(-(at_least - axis.min) // axis.step)) * axis.step


def without_halo(description: Description) -> Description:
    """The same without halos, as the zoo's check of deepImageJ makes it."""
    first, last = (
        tuple(dataclasses.replace(axis, halo=0) for axis in axes)
        for axes in (description.axes, description.output_axes)
    )
    return dataclasses.replace(description, axes=first, output_axes=last)


# --- which weights


def choose_weights(weights: Mapping[str, Any], root: Path | None = None) -> str:
    """The weights format that JDLL takes, where its TensorFlow 1.15.0 and ONNX engines are installed.

    Parameters
    ----------
    weights : mapping
        As in rdf.yaml.
    root : Path, optional
        Folder of the package; formats whose file is not there are passed over.

    Raises
    ------
    JdllError
        If no engine fits.

    Notes
    -----
    The order is that of a Java HashMap over "<format>_v<version>".
    """
    candidates = []
    for name, entry in weights.items():
        if entry is None:
            continue
        if not isinstance(entry, Mapping):
            raise JdllError("read", f"weights.{name} is {entry!r}; JDLL needs a mapping")
        if root is not None and not weights_file(root, entry).is_file():
            continue
        if name == "tensorflow_saved_model_bundle":
            version = entry.get("tensorflow_version")
            if version is None:
                raise JdllError("read", f"{name} without tensorflow_version")
            if str(version).split(".")[0] == "1":
                candidates.append(f"{name}_v{version}")
        elif name == "onnx":
            candidates.append(f"{name}_v{entry.get('opset_version', NEWEST_OPSET)}")
    if not candidates:
        raise JdllError(
            "create",
            f"no engine for {', '.join(weights) or 'no weights'}: Please install a compatible engine",
        )
    chosen = min(candidates, key=_bucket).rpartition("_v")[0]
    if chosen == "onnx" and int(weights["onnx"].get("opset_version") or 0) > NEWEST_OPSET:
        raise JdllError("load", f"it takes the ONNX weights, and their opset is newer than {NEWEST_OPSET}")
    return chosen


def weights_file(root: Path, entry: Mapping[str, Any]) -> Path:
    """Where JDLL looks for a weights file: beside rdf.yaml, by the last part of the source, be that an address."""
    return root / PurePosixPath(str(entry.get("source"))).name


def _bucket(text: str) -> int:
    """The place of a text in a java.util.HashMap of 16 buckets."""
    code = 0
    for letter in text.encode("utf-16-be")[1::2]:
        code = (31 * code + letter) & 0xFFFFFFFF
    return (code ^ (code >> 16)) & 15
