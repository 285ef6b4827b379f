"""The options of the CSBDeep plugin's command "Run your network", under the plugin's own names."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from care_bridge.errors import InputError
from care_bridge.plugin.quoting import Code, groovy_string, imagej_options, imagej_string
from care_bridge.tiling import FijiTiles

COMMAND = "Run your network"
"""Name of the plugin's command in Fiji's menu and in macros."""

_NODE, _MODEL = (
    groovy_string(text)
    for text in ("/de/csbdresden/csbdeep/commands/GenericNetwork", "GenericNetwork_modelfile")
)
_GROOVY = f"java.util.prefs.Preferences.userRoot().node({_NODE}).remove({_MODEL})"
FORGET = f'call("groovy.util.Eval.me", {imagej_string(_GROOVY)});'
"""The macro line that makes the plugin forget the model of its last run, which it takes whatever `modelfile=` says."""

LABELS = {
    "normalizeInput": "Normalize image",
    "percentileBottom": "Bottom percentile",
    "percentileTop": "Top percentile",
    "clip": "Clip",
    "nTiles": "Number of tiles",
    "blockMultiple": "Tile size has to be multiple of",
    "overlap": "Overlap between tiles",
    "batchSize": "Batch size",
    "modelFile": "Import model (.zip)",
}
"""What the options are called in the plugin's dialog."""


@dataclass(frozen=True)
class PluginOptions:
    """What a person types into the dialog; names and defaults are the plugin's.

    Attributes
    ----------
    normalizeInput : bool
        Whether the plugin normalises. The result stays on the normalised scale either way.
    percentileBottom, percentileTop : float
        Percentiles, 0-100, taken by nearest rank over the whole image.
    clip : bool
        Whether normalised values are cut off at 1 too; at 0 they always are.
    nTiles : int
        At least so many tiles.
    blockMultiple : int
        "Tile size has to be multiple of".
    overlap : int
        "Overlap between tiles": margin in pixels a side.
    batchSize : int
        Planes or frames at once.
    modelFile : str, optional
        The bundle.
    showProgressDialog : bool

    Notes
    -----
    CSBDeep/CSBDeep_fiji, GenericCoreNetwork.java. Percentiles are looked at no more here than there: outside 0-100 the
    rank is held within the image, and reversed ones give an image that is not scaled.
    """

    normalizeInput: bool = True  # noqa: N815
    percentileBottom: float = 3.0  # noqa: N815
    percentileTop: float = 99.8  # noqa: N815
    clip: bool = False
    nTiles: int = 8  # noqa: N815
    blockMultiple: int = 32  # noqa: N815
    overlap: int = 32
    batchSize: int = 1  # noqa: N815
    modelFile: str | None = None  # noqa: N815
    showProgressDialog: bool = True  # noqa: N815

    def __post_init__(self) -> None:
        problems = []
        for name in ("normalizeInput", "clip", "showProgressDialog"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name}={getattr(self, name)!r} must be true or false")
        for name in ("percentileBottom", "percentileTop"):
            value = getattr(self, name)
            if not _is_number(value):
                problems.append(f"{name}={value!r} must be a number, 0-100")
        for name, least in (("nTiles", 1), ("blockMultiple", 1), ("overlap", 0), ("batchSize", 1)):
            value = getattr(self, name)
            if not _is_number(value) or value != int(value) or value < least:
                problems.append(f"{name}={value!r} must be a whole number of at least {least}")
        if problems:
            raise InputError("\n".join(problems))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PluginOptions:
        """Options from names and values, such as those of a recorded run.

        Raises
        ------
        InputError
            For a name that the plugin does not have; the nearest is suggested.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        problems = []
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                problems.append(
                    f"the plugin has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        if problems:
            raise InputError("\n".join(problems))
        return cls(**values)

    @classmethod
    def told(cls, values: Mapping[str, Any], **changes: Any) -> PluginOptions:
        """Options that a bundle tells (`bundle.Meta.fiji`), the plugin's defaults for the others.

        Parameters
        ----------
        values : mapping
            Names that the plugin does not have are passed over.
        **changes
            Options to set otherwise; None changes nothing.

        Returns
        -------
        PluginOptions
        """
        known = {field.name for field in dataclasses.fields(cls)}
        told = {name: value for name, value in values.items() if name in known}
        return cls(**told | {name: value for name, value in changes.items() if value is not None})

    def values(self) -> dict[str, bool | int | float]:
        """Names and values in the types that the command declares; without the model."""
        defaults = vars(PluginOptions())
        return {
            name: type(defaults[name])(value) for name, value in vars(self).items() if name != "modelFile"
        }

    def typed(self) -> dict[str, str]:
        """As `values`, in the words of a macro; numbers to their last digit."""
        return {
            name: str(value).lower() if isinstance(value, bool) else repr(value)
            for name, value in self.values().items()
        }

    def macro_line(self, *, model: str | Code, source: str | Code = "") -> str:
        """The ImageJ macro line that runs the plugin, every option given.

        One that is left out takes the value of the last run, and a dialog without a window is an error in Java: the
        progress dialog is off whatever the options say.

        Parameters
        ----------
        model : str or Code
            Path of the bundle.
        source : str or Code
            Title of the image, e.g. ``Code("getTitle()")``; "" takes the active one.

        Returns
        -------
        str

        Raises
        ------
        InputError
            If ImageJ would read a part of the path or title as something else.
        """
        typed = self.replace(showProgressDialog=False).typed()
        paths: dict[str, str | Code] = {
            "modelfile": model.replace("\\", "/") if isinstance(model, str) else model,
            "modelurl": "",
        }
        if source:
            paths["input"] = source  # last: a title that holds an option is not looked at here
        options = imagej_options(paths, others={name.lower(): value for name, value in typed.items()})
        return f"run({imagej_string(COMMAND)}, {options});"

    def replace(self, **changes: Any) -> PluginOptions:
        """The same options with some changed."""
        return dataclasses.replace(self, **changes)

    @property
    def tiles(self) -> FijiTiles:
        """The part of the options that says how to cut."""
        return FijiTiles(
            n_tiles=self.nTiles,
            block_multiple=self.blockMultiple,
            overlap=self.overlap,
            batch_size=self.batchSize,
        )

    def with_tiles(self, tiles: FijiTiles, **changes: Any) -> PluginOptions:
        """The same options with other tiles, and with `changes`."""
        return self.replace(
            nTiles=tiles.n_tiles,
            blockMultiple=tiles.block_multiple,
            overlap=tiles.overlap,
            batchSize=tiles.batch_size,
            **changes,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
