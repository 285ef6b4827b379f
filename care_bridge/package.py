"""What stands in a BioImage.IO package, read without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from care_bridge import zips
from care_bridge.bundle import SAVED_MODEL
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError

RDF = "rdf.yaml"
OTHER_NAMES = ("bioimageio.yaml", "model.yaml")
"""Names that a description had before; not every reader finds them."""
CONFIG = "care_bridge.json"
"""The network's settings, in a package that was written here."""
WEIGHTS = {
    "keras": "keras_hdf5",
    "tensorflow": "tensorflow_saved_model_bundle",
    "tf1": "tensorflow_saved_model_bundle",
    "imagej": "tensorflow_saved_model_bundle",
    "fiji": "tensorflow_saved_model_bundle",
    "onnx": "onnx",
}
"""Which weights format each runtime runs."""


def is_package(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a BioImage.IO package (a description in it, or the description itself)."""
    path = Path(path)
    names = (RDF, *OTHER_NAMES)
    if path.is_dir():
        return any((path / name).is_file() for name in names)
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    with contextlib.suppress(InputError, OSError):
        entries = zips.names(path)
        # A bundle may carry an rdf.yaml that nobody reads.
        return bool({*entries} & {*names}) and SAVED_MODEL not in entries
    return False


def unpack_package(path: str | os.PathLike[str], folder: Path) -> Path:
    """The folder with the description: a package's own where it is unpacked already, else `folder`, filled.

    Parameters
    ----------
    path : path
        A zip, an unpacked folder, or the description in one.
    folder : Path
        Where a zip's files go.

    Raises
    ------
    InputError
        If it is not there, no zip, or an entry of it points outside.
    """
    path = Path(path)
    if path.is_dir():
        return path
    if not path.is_file():
        raise InputError(f"no package at {str(path)!r}; give a BioImage.IO zip or its folder")
    if path.suffix.lower() in (".yaml", ".yml"):
        return path.parent
    return zips.unpack(path, folder)


def read_description(root: Path, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the description of an unpacked package says.

    Parameters
    ----------
    root : Path
        As `unpack_package` gives it.
    path : path
        What a person named; for messages.
    """
    file = next((root / name for name in (RDF, *OTHER_NAMES) if (root / name).is_file()), None)
    if file is None:
        raise InputError(f"{path} holds no rdf.yaml; a bundle for Fiji holds no weights that can train on")
    try:
        rdf = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: its {file.name} is not YAML: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(rdf, dict):
        raise InputError(f"{path}: its {file.name} describes nothing")
    return rdf


def config_of_package(root: Path, path: str | os.PathLike[str]) -> CareConfig | None:
    """The network's settings, from `care_bridge.json` or csbdeep's `config.json`; None where neither is there.

    Raises
    ------
    InputError
        If `care_bridge.json` is damaged.
    """
    if (root / CONFIG).is_file():
        try:
            values = json.loads((root / CONFIG).read_text(encoding="utf-8"))["config"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: its {CONFIG} is damaged; take the package again") from None
        if values is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(values), encoding="utf-8")
            return read_config(folder)
    return read_config(root) if (root / "config.json").is_file() else None


def weights_file(root: Path, rdf: Mapping[str, Any], weights: str) -> Path | None:
    """The file of a weights format, one of the values of `WEIGHTS`; None where the package lacks it."""
    held = rdf.get("weights")
    entry = held.get(weights) if isinstance(held, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
        return None
    # A source may still be the address that a zip was made of; its last part is the file's name then.
    given = root / entry["source"], root / PurePosixPath(entry["source"]).name
    return next((file for file in given if file.is_file()), None)


def percentiles_of(rdf: Mapping[str, Any]) -> tuple[float, float] | None:
    """Percentiles of the first input's `scale_range`, in any version of the format; None where there is none."""
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
        for step in rdf["inputs"][0]["preprocessing"]:
            if (step.get("id") or step.get("name")) == "scale_range":
                told = step["kwargs"]
                return float(told["min_percentile"]), float(told["max_percentile"])
    return None
