"""The files of a BioImage.IO package: its description, what it names, and whether that is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from care_bridge import text, zips
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError
from care_bridge.package import OTHER_NAMES, RDF, Description


def unpack(path: Path, folder: Path, findings: Findings) -> Path | None:
    """The folder of a package, unpacked where it is a zip; None where it has no description."""
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
    others = [name for name in OTHER_NAMES if (root / name).is_file()]
    found = (root / RDF).is_file()
    findings.add(
        f"The description is called {RDF}",
        found,
        "found" if found else f"only {', '.join(others) or 'nothing'} at the root",
        f"call it {RDF}: deepImageJ finds no other name",
    )
    if found and others:
        findings.add(
            "There is one description",
            False,
            f"{', '.join(others)} too",
            "readers choose differently",
            decisive=False,
        )
    return root if found else None


def read(root: Path, findings: Findings) -> dict[str, Any] | None:
    """The description; None where it is none of a model."""
    try:
        rdf = text.read(root / RDF, "YAML")
    except InputError as error:
        findings.add("The description is YAML", False, _said(error), "mend the text")
        return None
    if not isinstance(rdf, dict) or rdf.get("type") != "model":
        kind = rdf.get("type") if isinstance(rdf, dict) else type(rdf).__name__
        findings.add(
            "It describes a model", False, f"type {text.shown(kind)}", "give the rdf.yaml of a model"
        )
        return None
    try:
        text.checked(rdf, Description, name=f"{RDF} is not built as a description")
    except InputError as error:
        findings.add(
            "Every key holds what it is for", False, _said(error), "mend these keys, or take them out"
        )
        return None
    return rdf


def _said(error: InputError) -> str:
    return " ".join(str(error).split())[:600]


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping with a source, wherever in the description."""
    if isinstance(value, Mapping):
        if isinstance(value.get("source"), str):
            yield value
        for inner in value.values():
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def is_local(source: Any) -> TypeGuard[str]:
    """Whether a source is a file of the package."""
    return isinstance(source, str) and "://" not in source


def check_files(root: Path, rdf: Mapping[str, Any], findings: Findings, *, decisive: bool) -> None:
    """Judge whether every file that is named is there, and is the one that was meant."""
    # Engines do not look at hashes; a package that was stripped for one is judged by what that engine does.
    wanted = [
        entry for key in ("inputs", "outputs", "weights", "attachments") for entry in _entries(rdf.get(key))
    ]
    names: list[str] = [entry["source"] for entry in wanted if is_local(entry["source"])]
    names += [name for name in (rdf.get("documentation"), *covers(rdf)) if is_local(name)]
    for key in ("test_inputs", "test_outputs", "sample_inputs", "sample_outputs"):
        names += [name for name in rdf.get(key) or () if is_local(name)]
    missing = sorted({name for name in names if not (root / name).is_file()})
    findings.add(
        "Every file that is named is there",
        not missing,
        f"missing: {', '.join(missing)}" if missing else f"{len(set(names))} files",
        "put them into the package, or take their names out",
        decisive=decisive,
    )
    wrong = []
    for entry in wanted:
        file, said = root / entry["source"], entry.get("sha256")
        if said and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != said:
            wrong.append(entry["source"])
    findings.add(
        "Every hash is right",
        not wrong,
        f"another content than its sha256 says: {', '.join(wrong)}"
        if wrong
        else "SHA-256 of every file with one",
        "the file was changed or damaged: take it again, or write the new hash",
        decisive=decisive,
    )


def covers(rdf: Mapping[str, Any]) -> list[Any]:
    """Sources of the pictures that the zoo shows."""
    covers = rdf.get("covers") or []
    return list(covers) if isinstance(covers, list) else [covers]


def names_test_tensors(rdf: Mapping[str, Any]) -> bool:
    """Whether the description names what its model makes of what."""
    tensors = [tensor for tensor in rdf.get("inputs") or () if isinstance(tensor, Mapping)]
    return bool(rdf.get("test_inputs")) or any(tensor.get("test_tensor") for tensor in tensors)


def test_tensor(root: Path, rdf: Mapping[str, Any], which: str) -> Path | None:
    """The test tensor "input" or "output"; None where it is not there."""
    tensors = rdf.get(f"{which}s") or [{}]
    source = (tensors[0].get("test_tensor") or {}).get("source") if isinstance(tensors[0], Mapping) else None
    source = source or next(iter(rdf.get(f"test_{which}s") or ()), None)
    file = root / source if is_local(source) else None
    return file if file is not None and file.is_file() else None


def has_test_tensors(root: Path, rdf: Mapping[str, Any]) -> bool:
    """Whether both test tensors are there."""
    return all(test_tensor(root, rdf, which) is not None for which in ("input", "output"))
