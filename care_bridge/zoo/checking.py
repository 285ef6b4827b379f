"""A model of the zoo held against its card, and its exports against every reader and level that is here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from care_bridge import text, zips
from care_bridge.checking import check
from care_bridge.checking.report import CheckReport, Findings, Rule
from care_bridge.config import OF_PAIRS, UNPAIRED
from care_bridge.defaults import KIND
from care_bridge.errors import InputError
from care_bridge.export.metadata import check_card, left_from_example
from care_bridge.files import scratch_folder
from care_bridge.guard import GUARD, read_familiar
from care_bridge.package import RDF
from care_bridge.zoo.building import build_model, package_card, write_zoo_package
from care_bridge.zoo.cards import card_text
from care_bridge.zoo.entry import COVER, EVALUATION, FAILURE, MOST_BYTES, README, RECIPE, Entry, models
from care_bridge.zoo.recipe import read_recipe

COMPLETE = 0.88
"""Completeness of the metadata by the zoo's own formula that our packages reach."""

CARD_AGAIN = "measure it and write its card again: care-bridge zoo card"


def check_model(entry: Entry, *, quick: bool = False) -> CheckReport:
    """Judge a model's folder, then all that is built of it.

    Parameters
    ----------
    entry : Entry
    quick : bool
        The folder alone; nothing is run.

    Returns
    -------
    CheckReport
        A row each: the card, licences and hashes; then the rows of `care-bridge check` for its bundle and package.
    """
    findings = Findings()
    integrity(entry, findings)
    if not quick:
        with findings.stage("It can be built", "mend what is named above"):
            _built(entry, findings)
    return findings.report(entry.folder, "model")


def integrity(entry: Entry, findings: Findings) -> None:
    """Rules for the folder of a model: whether everything is there and belongs together."""
    findings.add(
        "Its data sheet is complete", not entry.problems, "; ".join(entry.problems), "fill in datasheet.toml"
    )
    with findings.stage("Its card is complete", "fill in model.toml"):
        check_card(package_card(entry), where=str(entry.folder / "model.toml"))
        left = left_from_example([dict(entry.card)])
        findings.add(
            "Its card says who made it",
            not left,
            f"the example's own: {', '.join(map(repr, left))}" if left else ", ".join(entry.authors),
            "write the real authors and addresses into model.toml",
        )
        findings.add(
            "Its card says when it was made",
            bool(entry.card.get("timestamp")),
            "" if entry.card.get("timestamp") else "without timestamp, two builds differ",
            "give timestamp in model.toml",
        )
    _belongs(entry, findings)
    with findings.stage("Its recipe can be run", "mend recipe.toml"):
        steps = read_recipe(entry.folder)
        findings.add("Its recipe can be run", bool(steps), f"{len(steps)} steps" if steps else f"no {RECIPE}")
    size = sum(file.stat().st_size for file in entry.folder.rglob("*") if file.is_file())
    findings.add(
        "Its folder is small",
        size <= MOST_BYTES,
        f"{size / 2**20:.1f} MiB of {MOST_BYTES / 2**20:.0f}",
        "train a smaller network, or take files out that need not be there",
    )


def _belongs(entry: Entry, findings: Findings) -> None:
    """Whether weights, evaluation and card are those of one model."""
    measured = entry.evaluation.get("hashes")
    here = entry.hashes()
    if not isinstance(measured, Mapping):
        findings.add("It was measured on images it never saw", False, f"no {EVALUATION}", CARD_AGAIN)
    else:
        wrong = sorted(name for name in {*measured, *here} if measured.get(name) != here.get(name))
        findings.add(
            "Its weights are those that were measured",
            not wrong,
            f"{', '.join(wrong)}: not what {EVALUATION} and the card are of" if wrong else "by SHA-256",
            f"put the right weights there, or {CARD_AGAIN}",
        )
        seen = sorted(set(trained_on(entry)) & set(tested_on(entry)))
        findings.add(
            "It was tested on images it never saw",
            not seen,
            f"{len(seen)} test images are among its training images"
            if seen
            else f"{len(tested_on(entry))} files",
            "test it on others",
        )
        with findings.stage("Its card says what was measured", CARD_AGAIN):
            wanted = card_text(entry)
            readme = entry.folder / README
            same = readme.is_file() and readme.read_text(encoding="utf-8") == wanted
            findings.add(
                "Its card says what was measured",
                same,
                "" if same else f"{README} is not what model.toml, the data sheet and {EVALUATION} give",
                CARD_AGAIN,
            )
    _guarded(entry, findings)
    there = [name for name in (COVER, FAILURE) if (entry.folder / name).is_file()]
    findings.add(
        "It is shown, failures too",
        len(there) == 2,
        f"there: {', '.join(there) or 'none'}",
        CARD_AGAIN,
    )


def _guarded(entry: Entry, findings: Findings) -> None:
    """Whether it knows what it was trained on, and the guard is of these weights."""
    rule, remedy = (
        "Its guard is of these weights",
        f"care-bridge guard {entry.name} DATA, or the pairs of its recipe",
    )
    if entry.config.kind != KIND or entry.config.method not in (*OF_PAIRS, *UNPAIRED):
        return  # nothing is stored of such networks
    with findings.stage(rule, remedy):
        known = read_familiar(entry.folder)
        if known is None:
            said = f"no {GUARD}: nobody is told of images that it was not trained on"
        elif not known.weights:
            said = f"{GUARD} does not say of which weights it is"
        elif not set(known.weights) <= set(entry.hashes().values()):
            said = f"{GUARD} is of other weights"
        else:
            said = ""
        findings.add(rule, not said, said or "by SHA-256", remedy)


def trained_on(entry: Entry) -> tuple[str, ...]:
    """SHA-256 of the files that a model was trained on, from its data sheet and its config.json."""
    from care_bridge.evaluate.pairs import files_trained_on

    told = [one for source in entry.sources for one in _listed(source.get("sha256"))]
    return (
        *(str(one).split(maxsplit=1)[0] for one in told if str(one).strip()),
        *files_trained_on(entry.folder),
    )


def tested_on(entry: Entry) -> tuple[str, ...]:
    """SHA-256 of the files that a model was measured on."""
    return tuple(
        str(one)
        for tests in _listed(entry.evaluation.get("sets"))
        for image in _listed(tests.get("images"))
        for one in _listed(image.get("sha256"))
    )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _built(entry: Entry, findings: Findings) -> None:
    with scratch_folder() as name:
        built = build_model(entry, name)
        findings.add(
            "Its metadata are complete",
            built.completeness >= COMPLETE,
            f"{built.completeness:.2f} by the model zoo's formula, of at least {COMPLETE}",
            "see the keys that `care-bridge export` names",
        )
        findings.add(
            "Its package shows real images",
            not built.notes,
            "; ".join(built.notes),
            "put sample.tif beside it",
        )
        for path in (built.bundle, built.package):
            _take_over(check(path), findings)
        if built.means is not None:
            _take_over(check(built.means), findings, kind="bundle of the means")
        _twice(entry, built.package, findings)


def _twice(entry: Entry, package: Path, findings: Findings) -> None:
    again, _, _ = write_zoo_package(entry, package.with_name("again.zip"))
    findings.add(
        "Built twice, its package is the same bytes",
        again.read_bytes() == package.read_bytes(),
        f"differ: {', '.join(different_parts(again, package))}"
        if again.read_bytes() != package.read_bytes()
        else "",
        "say timestamp and inference_time in model.toml",
    )


def _take_over(report: CheckReport, findings: Findings, *, kind: str | None = None) -> None:
    kind = kind or report.kind
    findings.rules += [
        Rule(f"{kind}: {rule.rule}", rule.result, rule.run, rule.remedy, rule.decisive)
        for rule in report.rules
    ]
    findings.facts |= {f"{kind}: {key}": value for key, value in report.facts.items()}


# --- packages that were built before


def check_package_of_zoo(path: str | os.PathLike[str]) -> CheckReport:
    """Whether a package is what is built of a model of the zoo here, part by part.

    Parameters
    ----------
    path : path
        A .zip that `care-bridge zoo build` wrote, here or elsewhere.

    Raises
    ------
    InputError
        If it is no package, or of no model of the zoo.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no package at {str(path)!r}")
    parts = _parts(path)
    told = text.parse(parts[RDF], "YAML", name=f"{path}: {RDF}") if RDF in parts else None
    if not isinstance(told, Mapping):
        raise InputError(f"{str(path)!r} is no package of the zoo: it has no {RDF}")
    entry = next((one for one in models() if one.title == told.get("name")), None)
    if entry is None:
        raise InputError(
            f"{str(path)!r} is of {told.get('name')!r}, which is no model of the zoo; see zoo list"
        )
    findings = Findings()
    with findings.stage(
        "Every part has the hash that the description states", "build it again: care-bridge zoo build"
    ):
        wrong = sorted(_wrong_hashes(told, parts))
        findings.add(
            "Every part has the hash that the description states",
            not wrong,
            f"changed by hand: {', '.join(wrong)}" if wrong else "by SHA-256",
            "build it again: care-bridge zoo build",
        )
    with (
        findings.stage("It is what is built here", "build it again: care-bridge zoo build"),
        scratch_folder() as name,
    ):
        mine, _, _ = write_zoo_package(entry, Path(name) / path.name)
        differ = different_parts(mine, path)
        findings.add(
            f"It is what is built here of {entry.name}",
            not differ,
            f"differ: {', '.join(differ)}" if differ else "byte by byte",
            "if it was built by other versions of TensorFlow or Keras, build it again here; else somebody changed it",
        )
    return findings.report(path, "package of the zoo")


def different_parts(one: Path, other: Path) -> list[str]:
    """Names of parts that differ between two zips, or that only one has."""
    first, second = _parts(one), _parts(other)
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def _parts(path: Path) -> dict[str, bytes]:
    found = {name: zips.read(path, name) for name in zips.names(path) if not name.endswith("/")}
    return {name: content for name, content in found.items() if content is not None}


def _wrong_hashes(told: Any, parts: Mapping[str, bytes]) -> set[str]:
    """Parts that are not as a description's entries of source and sha256 say."""
    wrong: set[str] = set()
    if isinstance(told, Mapping):
        source, stated = told.get("source"), told.get("sha256")
        if isinstance(source, str) and isinstance(stated, str):
            content = parts.get(source)
            if content is None or hashlib.sha256(content).hexdigest() != stated:
                wrong.add(source)
        for value in told.values():
            wrong |= _wrong_hashes(value, parts)
    elif isinstance(told, list):
        for value in told:
            wrong |= _wrong_hashes(value, parts)
    return wrong
