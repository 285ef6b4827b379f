"""The files of a BioImage.IO package: its description, what it names, and whether that is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from care_bridge import text, zips
from care_bridge.checking.report import Findings, brief
from care_bridge.errors import InputError
from care_bridge.package import (
    RDF,
    Description,
    deeper_descriptions,
    description_file,
    descriptions_among,
    is_inside,
)

_TOO_OLD = ("0.1", "0.2", "0.3")
"""Formats of before 2021, which only imagej-modelzoo in Fiji reads."""


@dataclass(frozen=True)
class Unpacked:
    """A package that was laid out.

    Attributes
    ----------
    root : Path
        Its folder.
    file : Path
        The description.
    """

    root: Path
    file: Path


def unpack(path: Path, folder: Path, findings: Findings) -> Unpacked | None:
    """A package, unpacked where it is a zip; None where it has no description."""
    if path.is_dir():
        root = path
    elif path.suffix.lower() in (".yaml", ".yml"):
        root = path.parent
    else:
        try:
            root = zips.unpack(path, folder)
        except (InputError, OSError) as error:
            findings.add("The zip can be unpacked", False, str(error), "make it again")
            return None
    file = description_file(root, path)
    deeper = _deeper(root, path) if file is None else []
    found = "found" if file is not None and file.name == RDF else f"it is called {file.name}" if file else ""
    lost = f"{deeper[0]} lies one folder too deep" if deeper else "there is none at the root"
    findings.add(
        f"The description is called {RDF} and lies at the root",
        found == "found",
        found or lost,
        "zip what is in the folder instead of the folder"
        if deeper
        else f"call it {RDF}: deepImageJ finds no other name",
    )
    if file is None:
        return None
    others = [
        name
        for name in descriptions_among(part.name for part in root.iterdir() if part.is_file())
        if name != file.name
    ]
    if others:
        findings.add(
            "There is one description",
            False,
            f"{file.name} is judged; {', '.join(others)} lies beside it",
            "readers choose differently",
            decisive=False,
        )
    return Unpacked(root, file)


def _deeper(root: Path, path: Path) -> list[str]:
    if path.is_dir():
        return []
    return deeper_descriptions(part.relative_to(root).as_posix() for part in root.rglob("*.yaml"))


def read(file: Path, findings: Findings) -> dict[str, Any] | None:
    """The description; None where it is none of a model, or of a format that no reader takes any more."""
    try:
        rdf = text.read(file, "YAML")
    except InputError as error:
        findings.add("The description is YAML", False, brief(error, 600), "mend the text")
        return None
    if not isinstance(rdf, dict):
        findings.add(
            "It describes a model", False, f"it holds a {type(rdf).__name__}", "give a model's rdf.yaml"
        )
        return None
    version = text.shown(rdf.get("format_version")).strip("'")
    if version.startswith(_TOO_OLD):
        findings.add(
            "Its format is one that is read today",
            False,
            f"format_version {version}; bioimageio.core and deepImageJ read 0.4 and 0.5, imagej-modelzoo in Fiji alone "
            "those before",
            "export the model again; the bundle in it may still open in Run your network: give that to check",
        )
        return None
    if rdf.get("type") != "model":
        kind = f"type {text.shown(rdf['type'])}" if rdf.get("type") is not None else "it has no type"
        findings.add(
            "It describes a model", False, f"{kind}; format_version {version}", "give the rdf.yaml of a model"
        )
        return None
    try:
        text.checked(rdf, Description, name=f"{file.name} is not built as a description")
    except InputError as error:
        findings.add(
            "Every key holds what it is for", False, brief(error, 600), "mend these keys, or take them out"
        )
        return None
    return rdf


# --- what a description names


def listed(value: Any) -> list[Any]:
    """A list as it is; nothing for whatever else stands where one should."""
    return value if isinstance(value, list) else []


def first_tensor(rdf: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The first of the inputs or outputs; empty where there is none."""
    first = next(iter(listed(rdf.get(key))), None)
    return first if isinstance(first, Mapping) else {}


def _entries(value: Any, seen: set[int]) -> Iterator[Mapping[str, Any]]:
    """Every mapping with a source, wherever in the description; one that is referred to many times is met once."""
    if id(value) in seen:
        return
    if isinstance(value, Mapping):
        seen.add(id(value))
        if isinstance(value.get("source"), str):
            yield value
        for inner in value.values():
            yield from _entries(inner, seen)
    elif isinstance(value, list):
        seen.add(id(value))
        for inner in value:
            yield from _entries(inner, seen)


def _named(rdf: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Every file that is named, and its hash where one is written."""
    seen: set[int] = set()
    found = [
        (str(entry["source"]), entry.get("sha256"))
        for key in ("inputs", "outputs", "weights", "attachments", "documentation", "covers", "icon")
        for entry in _entries(rdf.get(key), seen)
    ]
    names = [rdf.get("documentation"), *covers(rdf)]
    for key in ("test_inputs", "test_outputs", "sample_inputs", "sample_outputs"):
        names += listed(rdf.get(key))
    attached = rdf.get("attachments")
    names += listed(attached.get("files")) if isinstance(attached, Mapping) else []
    return [*found, *((name, None) for name in names if isinstance(name, str))]


def is_local(source: Any) -> TypeGuard[str]:
    """Whether a source is a file of the package."""
    return isinstance(source, str) and "://" not in source


def addresses(rdf: Mapping[str, Any]) -> list[str]:
    """Files that lie at an address, which nobody goes to here."""
    return sorted({name for name, _ in _named(rdf) if not is_local(name)})


def outside(root: Path, rdf: Mapping[str, Any]) -> list[str]:
    """Files that would lie outside of the package."""
    return sorted({name for name, _ in _named(rdf) if is_local(name) and not is_inside(root, name)})


def local_file(root: Path, source: Any) -> Path | None:
    """A file that the package holds; None for an address, what lies outside, and what is missing."""
    if not is_local(source) or not is_inside(root, source):
        return None
    return root / source if (root / source).is_file() else None


def check_files(root: Path, rdf: Mapping[str, Any], findings: Findings, *, decisive: bool) -> None:
    """Judge whether every file that is named is there, and is the one that was meant."""
    # Engines do not look at hashes; a package that was stripped for one is judged by what that engine does.
    named = _named(rdf)
    local = sorted({name for name, _ in named if is_local(name)})
    away = outside(root, rdf)
    if away:
        findings.add(
            "Every file lies in the package",
            False,
            f"outside of it: {', '.join(away)}",
            "put them into the package: whoever gets it has no such files",
        )
    for address in addresses(rdf):
        findings.add(
            f"{address} is the file that is meant",
            None,
            "not looked at: it lies at an address, and nothing is fetched here",
            "fetch it, put it into the package and name it there",
            decisive=False,
        )
    missing = [name for name in local if name not in away and not (root / name).is_file()]
    findings.add(
        "Every file that is named is there",
        not missing,
        f"missing: {', '.join(missing)}" if missing else f"{len(local) - len(away)} files",
        "put them into the package, or take their names out",
        decisive=decisive,
    )
    wrong = []
    for name, said in named:
        file = local_file(root, name)
        if said and file is not None and hashlib.sha256(file.read_bytes()).hexdigest() != said:
            wrong.append(name)
    findings.add(
        "Every hash is right",
        not wrong,
        f"another content than its sha256 says: {', '.join(wrong)}"
        if wrong
        else "SHA-256 of every file with one",
        "the file was changed or damaged: take it again, or write the new hash",
        decisive=decisive,
    )


def covers(rdf: Mapping[str, Any]) -> list[str]:
    """Sources of the pictures that the zoo shows."""
    covers = rdf.get("covers") or []
    given = covers if isinstance(covers, list) else [covers]
    sources = [cover.get("source") if isinstance(cover, Mapping) else cover for cover in given]
    return [source for source in sources if isinstance(source, str)]


def _test_source(rdf: Mapping[str, Any], which: str) -> Any:
    tensor = first_tensor(rdf, f"{which}s").get("test_tensor")
    source = tensor.get("source") if isinstance(tensor, Mapping) else tensor
    return source or next(iter(listed(rdf.get(f"test_{which}s"))), None)


def names_test_tensors(rdf: Mapping[str, Any]) -> bool:
    """Whether the description names what its model makes of what."""
    return bool(_test_source(rdf, "input"))


def test_tensor(root: Path, rdf: Mapping[str, Any], which: str) -> Path | None:
    """The test tensor "input" or "output"; None where it is not there."""
    return local_file(root, _test_source(rdf, which))


def has_test_tensors(root: Path, rdf: Mapping[str, Any]) -> bool:
    """Whether both test tensors are there."""
    return all(test_tensor(root, rdf, which) is not None for which in ("input", "output"))


def load_tensor(file: Path) -> NDArray[Any]:
    """The numbers of a .npy file.

    Raises
    ------
    InputError
        If it is none, or cut short, holds Python objects, or says that it is larger than its file.
    """
    try:
        # Mapped first: that takes no memory, and is refused where the file is too small.
        data: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        if not (isinstance(data, np.ndarray) and data.dtype.kind in "biuf"):
            raise ValueError("it holds no numbers")
        data = np.array(data)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError, TypeError, OverflowError) as error:
        raise InputError(
            f"{file.name} is no .npy file of numbers, or damaged ({brief(error, 120)})"
        ) from None
    return data
