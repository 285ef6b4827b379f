"""What stands in a BioImage.IO package, read without TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from care_bridge import text, zips
from care_bridge.bundle import SAVED_MODEL
from care_bridge.config import CareConfig, config_of, read_config
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
    rdf = text.parse(_content(file), "YAML", name=f"{path}: its {file.name}")
    if not isinstance(rdf, dict):
        raise InputError(f"{path}: its {file.name} describes nothing")
    text.checked(rdf, Description, name=f"{path}: its {file.name} is not built as a description")
    return rdf


def _content(file: Path) -> bytes:
    if (size := file.stat().st_size) > text.MOST_YAML_BYTES:
        raise InputError(
            f"{file.name} has {size:,} bytes, and at most {text.MOST_YAML_BYTES:,} are read; is it a description?"
        )
    return file.read_bytes()


class _Open(BaseModel):
    """Mappings in which more may stand than is read here."""

    model_config = ConfigDict(extra="allow")


def _in_the_package(name: str) -> str:
    parts = PureWindowsPath(name)
    if "\0" in name or len(name) > _LONGEST_NAME:
        raise ValueError("no file has such a name")
    if "://" not in name and (parts.is_absolute() or parts.root or parts.drive or ".." in parts.parts):
        raise ValueError("this lies outside of the package")
    return name


_LONGEST_NAME = 1000
_Name = Annotated[str, AfterValidator(_in_the_package)]


class _File(_Open):
    source: _Name | None = None
    sha256: str | None = None


class _Step(_Open):
    kwargs: dict[str, Any] | None = None


class _Tensor(_Open):
    axes: str | list[dict[str, Any] | str] | None = None
    preprocessing: list[_Step] | None = None
    postprocessing: list[_Step] | None = None
    test_tensor: _File | None = None
    sample_tensor: _File | None = None


class Description(_Open):
    """The kinds of what is read of a description, in any version of the format; what it means is the readers' matter."""

    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None
    weights: dict[str, _File | None] | None = None
    test_inputs: list[_Name] | None = None
    test_outputs: list[_Name] | None = None
    sample_inputs: list[_Name] | None = None
    sample_outputs: list[_Name] | None = None
    covers: _Name | list[_Name | dict[str, Any]] | None = None
    documentation: _Name | dict[str, Any] | None = None
    attachments: list[_File | _Name] | dict[str, Any] | None = None


def config_of_package(root: Path, path: str | os.PathLike[str]) -> CareConfig | None:
    """The network's settings, from `care_bridge.json` or csbdeep's `config.json`; None where neither is there.

    Raises
    ------
    InputError
        If `care_bridge.json` is damaged.
    """
    if (root / CONFIG).is_file():
        try:
            written = text.read(root / CONFIG, "JSON")
        except InputError as error:
            raise InputError(f"{path}: its {CONFIG} is damaged; take the package again ({error})") from None
        if not isinstance(written, dict) or "config" not in written:
            raise InputError(f"{path}: its {CONFIG} is damaged; take the package again")
        values = written["config"]
        return None if values is None else config_of(values, name=f"{path}: its {CONFIG}")
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
