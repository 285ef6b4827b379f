"""What stands in a BioImage.IO package, read without TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from care_bridge import text, zips
from care_bridge.bundle import DESCRIPTIONS, SAVED_MODEL
from care_bridge.config import CareConfig, config_of, read_config
from care_bridge.errors import InputError

RDF = DESCRIPTIONS[0]
"""What every reader calls a description; the other names are found by some."""
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
    """Whether a path is a BioImage.IO package (a description in it, or the description itself).

    A zip that holds its package one folder too deep is one too: whoever reads it says where the description lies.
    A bundle is none, also where it carries a description: the plugin runs it as it is.
    """
    path = Path(path)
    if path.is_dir():
        return not (path / SAVED_MODEL).is_file() and description_among(_names_in(path)) is not None
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    with contextlib.suppress(InputError, OSError):
        entries = zips.names(path)
        if SAVED_MODEL in entries:
            return False
        if description_among(entries) is not None:
            return True
        deeper = deeper_descriptions(entries)
        return any(f"{PurePosixPath(name).parent}/{SAVED_MODEL}" not in entries for name in deeper)
    return False


def description_among(names: Iterable[str]) -> str | None:
    """The description among names of one folder, as bioimageio.spec chooses it; None where there is none.

    Parameters
    ----------
    names : iterable of str
        Those in folders are passed over.

    Notes
    -----
    ``rdf.yaml`` before ``bioimageio.yaml`` before ``model.yaml``; each also behind a name and a dot
    (``care.bioimageio.yaml``), the first in the order of letters.
    """
    found = descriptions_among(names)
    return found[0] if found else None


def descriptions_among(names: Iterable[str]) -> list[str]:
    """Every name that a description may have among names of one folder, the one that is read first in front."""
    plain = sorted(name for name in names if "/" not in name and not name.startswith("."))
    return [name for word in DESCRIPTIONS for name in plain if name == word or name.endswith(f".{word}")]


def deeper_descriptions(entries: Iterable[str]) -> list[str]:
    """Descriptions in folders of a zip, where readers do not look."""
    found = []
    for entry in entries:
        parts = PurePosixPath(entry).parts
        if len(parts) > 1 and "__MACOSX" not in parts and descriptions_among(parts[-1:]):
            found.append(entry)
    return sorted(found, key=lambda name: (name.count("/"), name))


def _names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_file()]


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


def description_file(root: Path, path: str | os.PathLike[str]) -> Path | None:
    """The description of an unpacked package: the file that was named, else what lies at the root; None for neither.

    Parameters
    ----------
    root : Path
        As `unpack_package` gives it.
    path : path
        What a person named.
    """
    path = Path(path)
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return path
    name = description_among(_names_in(root))
    return None if name is None else root / name


def read_description(root: Path, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the description of an unpacked package says.

    Parameters
    ----------
    root : Path
        As `unpack_package` gives it.
    path : path
        What a person named.

    Raises
    ------
    InputError
        If there is none at the root, it is no YAML, or no block of keys and values.
    """
    file = description_file(root, path)
    if file is None:
        deeper = deeper_descriptions(part.relative_to(root).as_posix() for part in root.rglob("*.yaml"))
        if deeper:
            raise InputError(
                f"{path}: its description lies at {deeper[0]}, one folder too deep for every reader; "
                f"zip what is in {PurePosixPath(deeper[0]).parent}/ instead of the folder"
            )
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


def weights_of(rdf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a description by format; empty where they are not written as a mapping."""
    held = rdf.get("weights")
    return held if isinstance(held, Mapping) else {}


def held_weights(rdf: Mapping[str, Any]) -> str:
    """Which weights a description names, for messages."""
    held = rdf.get("weights")
    if held is not None and not isinstance(held, Mapping):
        return f"none (its weights are a {type(held).__name__}, where a mapping of formats must stand)"
    return ", ".join(map(str, held or {})) or "none"


def weights_file(root: Path, rdf: Mapping[str, Any], weights: str) -> Path | None:
    """The file of a weights format, one of the values of `WEIGHTS`; None where the package lacks it.

    Files outside the package are not looked at: whoever made it had others at that place.
    """
    entry = weights_of(rdf).get(weights)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
        return None
    # A source may still be the address that a zip was made of; its last part is the file's name then.
    given = entry["source"], PurePosixPath(entry["source"]).name
    return next((root / name for name in given if is_inside(root, name) and (root / name).is_file()), None)


def is_inside(root: Path, name: str) -> bool:
    """Whether the name of a file stays within the folder of its package."""
    return bool(name) and (root / name).resolve().is_relative_to(root.resolve())


def percentiles_of(rdf: Mapping[str, Any]) -> tuple[float, float] | None:
    """Percentiles of the first input's `scale_range`, in any version of the format; None where there is none."""
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
        for step in rdf["inputs"][0]["preprocessing"]:
            if (step.get("id") or step.get("name")) == "scale_range":
                told = step["kwargs"]
                return float(told["min_percentile"]), float(told["max_percentile"])
    return None
