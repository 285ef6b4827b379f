"""What can be exported: a Keras model in memory, a model folder, or a Keras file of anybody's."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from care_bridge.bundle import OwnNormalisation
from care_bridge.config import PMAX, PMIN, CareConfig
from care_bridge.errors import InputError
from care_bridge.export import keras2
from care_bridge.files import scratch_folder
from care_bridge.keras_file import check_keras_file
from care_bridge.training.folder import CareModel, load_model
from care_bridge.training.unet import bare

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Source:
    """A network to be written down, with what is known about it.

    Attributes
    ----------
    network : keras.Model
    config : CareConfig, optional
        None for a model that is not CARE's.
    name : str
        Of the model folder, the file or the Keras model; file names are made of it.
    path : Path, optional
        Where it was read from.
    bare : bool
        Whether the mean and deviation of the config have been taken out of the network.
    """

    network: keras.Model
    config: CareConfig | None
    name: str
    path: Path | None = None
    bare: bool = False

    @property
    def scale(self) -> OwnNormalisation | None:
        """The mean and deviation of its own that are in the network, so that it takes grey levels; None without."""
        return None if self.config is None or self.bare else self.config.own_scale

    @property
    def outside(self) -> OwnNormalisation | None:
        """The mean and deviation of its own that are left to the reader; None where there are none."""
        return self.config.own_scale if self.config is not None and self.bare else None

    @property
    def space(self) -> str:
        """Axes of the input without channels, e.g. "ZYX"."""
        if self.config is not None:
            return self.config.axes.replace("C", "")
        return "ZYX"[-(len(self.network.inputs[0].shape) - 2) :]


def without_scale(source: Source) -> Source:
    """The same model with its mean and deviation left to the reader; itself where it has none in it."""
    if source.scale is None:
        return source
    assert source.config is not None
    return dataclasses.replace(source, network=bare(source.config, source.network), bare=True)


def on_scale_of(source: Source, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels of about 0 to 1 as the network is used to get them: as they are, or around its mean by its deviation."""
    own = source.scale
    if own is None:
        return tensor
    mean, std = (np.asarray(numbers, np.float32) for numbers in (own.means, own.stds))
    return np.asarray(tensor * 2 * std + mean, np.float32)


def own_percentiles(
    source: Source, *, pmin: float | None = None, pmax: float | None = None
) -> tuple[float, float]:
    """The percentiles that everything which leaves a model states: its bundle, ONNX file, package, macros and texts.

    Parameters
    ----------
    source : Source
    pmin, pmax : float, optional
        Given for this export, 0-100; None takes the model's own, and for a network without a config csbdeep's.

    Raises
    ------
    InputError
        If the lower is not below the upper, or they are given for a network with a mean and deviation of its own.
    """
    own = (source.config.norm_pmin, source.config.norm_pmax) if source.config else (PMIN, PMAX)
    scale = source.config.own_scale if source.config else None
    if scale is not None and (pmin not in (None, own[0]) or pmax not in (None, own[1])):
        raise InputError(f"{source.name!r} has its own {scale}, and takes no percentiles; leave them out")
    low, high = (own[0] if pmin is None else pmin), (own[1] if pmax is None else pmax)
    if not 0 <= low < high <= 100:
        raise InputError(f"pmin={low:g} must be below pmax={high:g}, both of 0-100")
    return float(low), float(high)


Model: TypeAlias = "keras.Model | CareModel | Source | str | os.PathLike[str]"
"""Whatever `open_source` opens."""


def open_source(model: Model, *, custom_objects: Mapping[str, Any] | None = None) -> Source:
    """Open whatever can be exported.

    Parameters
    ----------
    model : keras.Model, CareModel or path
        A path is a model folder (ours or csbdeep's), or a whole model of Keras 2 or 3 (.keras, .h5, .hdf5).
    custom_objects : mapping, optional
        Layers of your own by name, for a file that needs them.

    Raises
    ------
    InputError
        If there is nothing at the path, it holds code or classes that are not Keras' own, or Keras cannot open it; the
        message says what would help.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, CareModel):
        name = model.path.resolve().name if model.path else f"{model.config.kind}_{model.config.axes}"
        return Source(model.network, model.config, file_name(name), model.path)
    if isinstance(model, keras.Model):
        # Keras numbers unnamed models anew in every process; bundles must not change with that.
        return Source(
            model, None, file_name(re.sub(r"^(functional|sequential|model)(_\d+)?$", r"\1", model.name))
        )
    path = Path(model)
    if path.is_dir():
        opened = load_model(path)
        return Source(opened.network, opened.config, file_name(path.resolve().name), path)
    if not path.exists():
        raise InputError(
            f"no model at {str(path)!r}; give a model folder (config.json and weights), a .keras or .h5 "
            "file, or a name of `care-bridge zoo list`"
        )
    if path.suffix.lower() not in KERAS_SUFFIXES:
        raise InputError(
            f"{str(path)!r} is not a model that can be exported; give a model folder, or a Keras file "
            f"({', '.join(KERAS_SUFFIXES)})"
        )
    return Source(_load(path, dict(custom_objects or {})), None, file_name(path.stem), path)


def file_name(name: str) -> str:
    """A name that every file system, zip and macro takes: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "model"


def _load(path: Path, custom_objects: dict[str, Any]) -> keras.Model:
    check_keras_file(path, custom_objects)
    try:
        if keras2.is_keras_2(path):
            with scratch_folder() as folder:
                return keras2.load(path, Path(folder), custom_objects)
        return keras.models.load_model(path, custom_objects=custom_objects, compile=False, safe_mode=True)
    except Exception as error:
        if isinstance(error, InputError):
            raise InputError(f"{str(path)!r} does not open: {error}") from error
        reason = " ".join(str(error).split())
        raise InputError(f"{str(path)!r} does not open: {_why(reason)}") from error


def _why(reason: str) -> str:
    custom = re.search(r"(?:locate class|Unknown layer:?) ['\"]?([\w.>]+)", reason)
    failed = re.search(r"deserializing class '(\w+)' using config=\{'name': '([^']+)'", reason)
    if custom:
        return (
            f"it holds {custom.group(1)}, which is not part of Keras; in Python, load it with "
            "custom_objects and hand the model to write_bundle"
        )
    if "Lambda" in reason and ("safe_mode" in reason or "unsafe" in reason):
        return (
            "it holds a Lambda layer, whose code is not run from a file of others; in Python, load it with "
            "safe_mode=False if you trust it, and hand the model to write_bundle"
        )
    if "No model config found" in reason or "No model found" in reason:
        return (
            "it holds weights alone; give the folder with config.json, or save the whole model (model.save)"
        )
    if failed:
        said = reason.rpartition("Exception encountered: ")[2][:200]
        return (
            f"layer {failed.group(2)!r} ({failed.group(1)}) is none that this Keras can build ({said}); build the "
            "model without it, or save it with Keras 3"
        )
    return reason[:400] or "Keras gives no reason"
