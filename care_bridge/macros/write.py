"""What a person pastes into Fiji for one model, with this model's values."""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.java.imagej import unpaired_brackets
from care_bridge.macros.lint import DEEPIMAGEJ, PLUGIN
from care_bridge.macros.shipped import macros_folder
from care_bridge.plugin.options import PluginOptions


@dataclass(frozen=True)
class Generated:
    """Lines for one model, ready to paste.

    Attributes
    ----------
    macro : str
        For the macro window: our restore_image with this model's values at the top.
    line : str
        The bare plugin call, every option given.
    script : str
        The call of the installed script Restore_Image, safer without a window.
    deepimagej : str
        The deepImageJ equivalent, for the model's BioImage.IO package.
    options : PluginOptions
    notes : tuple of str
        What a person should know of these values.
    """

    macro: str
    line: str
    script: str
    deepimagej: str
    options: PluginOptions
    notes: tuple[str, ...]


def for_model(model: str | os.PathLike[str], image: Image | None = None) -> Generated:
    """Write what a person pastes into Fiji for a model, and for an image's size where one is given.

    Parameters
    ----------
    model : path
        The bundle, or the model folder that holds it.
    image : Image, optional
        Decides the number of tiles; None takes one tile.

    Raises
    ------
    InputError
        If there is no bundle, or its path cannot be written into a macro.
    """
    from care_bridge.bundle import find_bundle

    bundle = Path(find_bundle(model)).absolute()
    path = bundle.as_posix()
    if unpaired_brackets(path):
        raise InputError(f"the plugin cannot take the single bracket in {path!r}; rename the folder or file")
    options, notes = _values(bundle, image)
    plain = {key: _written(value) for key, value in vars(options).items() if key != "modelFile"}
    plain["showProgressDialog"] = "false"
    listed = " ".join(f"{key.lower()}={value}" for key, value in plain.items())
    line = f'run("{PLUGIN}", "input=[" + getTitle() + "] {listed} modelfile=[{path}] modelurl=[]");'
    ours = " ".join(f"{key.lower()}={value}" for key, value in plain.items() if key != "showProgressDialog")
    script = f'run("Restore Image", "imp=[" + getTitle() + "] model=[{path}] {ours} bits=32 output=[] sentinel=[]");'
    package = bundle.with_suffix("")
    deepimagej = f'run("{DEEPIMAGEJ}", "model_path=[{package.as_posix()}] display_output=[all]");'
    return Generated(_macro(path, options), line, script, deepimagej, options, tuple(notes))


def _values(bundle: Path, image: Image | None) -> tuple[PluginOptions, list[str]]:
    options, notes = PluginOptions(), []
    written = _meta(bundle).get("care_bridge", {}).get("fiji", {})
    known = {key: value for key, value in written.items() if key in vars(options)}
    if known:
        options = PluginOptions.from_mapping(known)
    if image is None:
        if not known:
            notes.append(
                "the bundle does not say its values; these are the plugin's defaults, so look for seams"
            )
        return options, notes
    if not known:
        notes.append(
            "the bundle does not say its values; these are for csbdeep's usual network (depth 2, kernel 5)"
        )
    from care_bridge.plugin.advice import advise

    meta = _meta(bundle)
    axes = str(meta.get("axes", "YXC")).replace("C", "")
    needs: dict[str, Any] = {}
    if known and {"axes_div_by", "tile_overlap"} <= meta.keys():
        needs = {
            "size_multiple": dict(zip(axes, meta["axes_div_by"], strict=False)),
            "halo": dict(zip(axes, meta["tile_overlap"], strict=False)),
        }
    advice = advise(image.shape, image.axes, space=axes, options=options, **needs)
    return advice.options, [*notes, *advice.notes]


def _meta(bundle: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(bundle) as opened:
            meta = json.loads(opened.read("meta.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return meta if isinstance(meta, dict) else {}


def _macro(path: str, options: PluginOptions) -> str:
    text = (macros_folder() / "restore_image.ijm").read_text(encoding="ascii")
    values = {
        "model": f'"{path}"',
        "normalize": f'"{_written(options.normalizeInput)}"',
        "bottom": _written(options.percentileBottom),
        "top": _written(options.percentileTop),
        "clip": f'"{_written(options.clip)}"',
        "nTiles": _written(options.nTiles),
        "blockMultiple": _written(options.blockMultiple),
        "overlap": _written(options.overlap),
        "batchSize": _written(options.batchSize),
    }
    for name, value in values.items():
        setting = re.compile(rf"(?m)^var {name} = [^;]*;")
        changed = len(setting.findall(text))
        text = setting.sub(f"var {name} = {value};".replace("\\", r"\\"), text)
        if changed != 1:
            raise RuntimeError(f"restore_image.ijm has {changed} settings {name!r}")
    return text


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
