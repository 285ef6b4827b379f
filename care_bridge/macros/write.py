"""What a person pastes into Fiji for one model, with this model's values."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from care_bridge.built import bundle_of
from care_bridge.bundle import read_meta
from care_bridge.images import Image
from care_bridge.macros.lint import DEEPIMAGEJ
from care_bridge.macros.shipped import macros_folder
from care_bridge.plugin.options import FORGET, PluginOptions
from care_bridge.plugin.quoting import Code, imagej_options, imagej_string, path_text


@dataclass(frozen=True)
class Generated:
    """Lines for one model, ready to paste.

    Attributes
    ----------
    macro : str
        For the macro window: our restore_image with this model's values at the top.
    line : str
        The bare plugin call, every option given.
    forget : str
        The line that belongs before and behind it: the plugin takes the model of its last run otherwise.
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
    forget: str
    script: str
    deepimagej: str
    options: PluginOptions
    notes: tuple[str, ...]


def for_model(model: str | os.PathLike[str], image: Image | None = None) -> Generated:
    """Write what a person pastes into Fiji for a model, and for an image's size where one is given.

    Parameters
    ----------
    model : path
        The bundle, the model folder that holds it, or the name of a model of the zoo.
    image : Image, optional
        Decides the number of tiles; None takes one tile.

    Returns
    -------
    Generated
        The macro, the bare line, the script's call and deepImageJ's, with what to know of their values.

    Raises
    ------
    InputError
        If there is no bundle, or its path cannot be written into a macro.
    """
    bundle = bundle_of(model).absolute()
    path = path_text(bundle)
    options, notes = _values(bundle, image)
    line = options.macro_line(model=path, source=Code("getTitle()"))
    ours = {key.lower(): value for key, value in options.typed().items() if key != "showProgressDialog"} | {
        "engine": "auto",
        "bits": "32",
        "output": "[]",
        "sentinel": "[]",
    }
    settings = imagej_options({"model": path, "imp": Code("getTitle()")}, others=ours)
    script = f"run({imagej_string('Restore Image')}, {settings});"
    package = imagej_options(
        {"model_path": path.removesuffix(bundle.suffix)}, others={"display_output": "[all]"}
    )
    deepimagej = f"run({imagej_string(DEEPIMAGEJ)}, {package});"
    return Generated(_macro(path, options), line, FORGET, script, deepimagej, options, tuple(notes))


def _values(bundle: Path, image: Image | None) -> tuple[PluginOptions, list[str]]:
    meta, notes = read_meta(bundle), []
    options = PluginOptions.told(meta.fiji)
    known = meta.fiji.keys() & vars(options).keys()
    if meta.normalisation is not None:
        options = options.replace(normalizeInput=False)
        notes.append(
            f"the bundle states its own {meta.normalisation}, which 'Run your network' does not read: subtract the mean "
            "and divide by the deviation first (Process > Math); the percentiles are switched off here"
        )
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

    axes = (meta.axes or "YXC").replace("C", "")
    needs: dict[str, Any] = {}
    if known and meta.size_multiple is not None and meta.halo is not None:
        needs = {"size_multiple": meta.size_multiple, "halo": meta.halo}
    advice = advise(image.shape, image.axes, space=axes, options=options, **needs)
    return advice.options, [*notes, *advice.notes]


def _macro(path: str, options: PluginOptions) -> str:
    text = (macros_folder() / "restore_image.ijm").read_text(encoding="ascii")
    typed = options.typed()
    values = {
        "model": imagej_string(path),
        "normalize": imagej_string(typed["normalizeInput"]),
        "bottom": typed["percentileBottom"],
        "top": typed["percentileTop"],
        "clip": imagej_string(typed["clip"]),
        **{name: typed[name] for name in ("nTiles", "blockMultiple", "overlap", "batchSize")},
    }
    for name, value in values.items():
        setting = re.compile(rf"(?m)^var {name} = [^;]*;")
        changed = len(setting.findall(text))
        text = setting.sub(lambda _: f"var {name} = {value};", text)  # noqa: B023 - called at once
        if changed != 1:
            raise RuntimeError(f"restore_image.ijm has {changed} settings {name!r}")
    return text
