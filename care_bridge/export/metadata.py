"""What people have to say about a model, read from one `model.toml`; every complaint at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from care_bridge import text
from care_bridge.errors import InputError

FILE = "model.toml"

MODALITIES = (
    "electron-microscopy",
    "cryo-electron-microscopy",
    "fluorescence-light-microscopy",
    "transmission-light-microscopy",
    "super-resolution-microscopy",
    "x-ray-microscopy",
    "force-microscopy",
    "high-content-imaging",
    "whole-slide-imaging",
    "other",
)
"""The zoo's tags of the category modality (bioimageio.spec, static/tag_categories.json)."""

CONTENTS = (
    "cells",
    "nuclei",
    "extracellular-vesicles",
    "tissue",
    "plant",
    "mitochondria",
    "vasculature",
    "cell-membrane",
    "brain",
    "whole-organism",
)
"""The zoo's tags of the category content."""

EXAMPLE = """\
name = "CARE denoising of nuclei - confocal - 2D"   # 5-64 letters, digits, _ + - ( ) and blanks
description = "What organism, stain and microscope; what low and high quality mean; what comes out."
license = "CC-BY-4.0"                               # SPDX
modality = "fluorescence-light-microscopy"
content = "nuclei"
task = "denoising"
version = "1.0.0"                                   # of the model
version_comment = "first upload"
git_repo = "https://github.com/jane-doe/nuclei"     # of the code that trained it
funded_by = "agency and grant, or none"

[[authors]]
name = "Jane Doe"
affiliation = "Institute"
orcid = "0000-0002-1825-0097"
github_user = "jane-doe"

[[packaged_by]]
name = "Jane Doe"
github_user = "jane-doe"

[uploader]
name = "Jane Doe"
email = "jane.doe@example.com"

[training_data]                                     # the published data set; evaluations name it
id = "nuclei-pairs"
source = "https://doi.org/10.5281/zenodo.1234567"

[environmental_impact]
hardware_type = "what it was trained on"
"""
"""A model.toml that makes a trained model's package complete enough for the zoo; other keys: `facts.TO_FILL`."""

_LEFT_AS_THEY_ARE = ("license", "modality", "content", "task", "version", "version_comment", "hardware_type")
"""Keys of the example whose values may be a model's own."""
_NOBODY = re.compile(r"(?i)jane[ ._-]doe")


def left_from_example(values: Any) -> tuple[str, ...]:
    """Values of `EXAMPLE` that stand unchanged in a model.toml or a description: nobody said them of this model.

    Parameters
    ----------
    values : object
        Blocks, lists and texts, as read from TOML or YAML.

    Returns
    -------
    tuple of str
        Each once, sorted.
    """
    example = text.parse(EXAMPLE, "TOML", name="the example")
    from_it = {said for key, said in _texts(example, set()) if key not in _LEFT_AS_THEY_ARE}
    found = {said for _, said in _texts(values, set()) if said in from_it or _NOBODY.search(said)}
    return tuple(sorted(found))


def _texts(values: Any, seen: set[int], key: str = "") -> Iterator[tuple[str, str]]:
    """Every text, with the key that it stands under."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping | list | tuple) and id(values) not in seen:
        seen.add(id(values))
        inner = values.items() if isinstance(values, Mapping) else ((key, value) for value in values)
        for name, value in inner:
            yield from _texts(value, seen, str(name))


_NAME = re.compile(r"[A-Za-z0-9_+\-() ]{5,128}")
_TABLES = (
    "training",
    "care_bridge",
    "environmental_impact",
    "training_data",
    "uploader",
    "parent",
    "pixel_size_um",
)
_ROLES = ("train", "validation", "test", "independent", "unknown")
_KEYS = (
    *("name", "description", "license", "modality", "content", "task", "nickname", "timestamp", "version"),
    *("version_comment", "git_repo", "uploader", "parent", "training_data", "training", "funded_by"),
    *("architecture_type", "target_structure", "out_of_scope_use", "known_biases", "inference_time"),
    *("memory_requirements_inference", "memory_requirements_training", "environmental_impact", "evaluations"),
    *("authors", "maintainers", "packaged_by", "cite", "tags", "links", "input_channels", "output_channels"),
    *("pixel_size_um", "test_image_role", "care_bridge"),
)
_LISTS = ("authors", "maintainers", "packaged_by", "cite", "tags", "evaluations", "target_structure", "links")


@dataclass(frozen=True)
class ModelCard:
    """Checked metadata of a model.

    Attributes
    ----------
    name, description, license, modality, content, task : str
    authors, maintainers, packaged_by, cite : tuple of mapping
        As in model.toml.
    more : mapping
        Every other key, e.g. tags, git_repo, training_data, version, out_of_scope_use, evaluations; see
        `facts.TO_FILL`. `test_image_role` says what training saw of the test image, in the zoo's words.
    """

    name: str
    description: str
    license: str
    modality: str
    content: str
    task: str
    authors: tuple[dict[str, Any], ...]
    maintainers: tuple[dict[str, Any], ...] = ()
    packaged_by: tuple[dict[str, Any], ...] = ()
    cite: tuple[dict[str, Any], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read and check a model.toml.

    Raises
    ------
    InputError
        If it is missing, is no TOML, or lacks something: every complaint at once, each with the key to fill.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no metadata at {str(path)!r}: a package needs to say whose and what the model is; "
            "`care-bridge export --example` prints a model.toml to fill (care_bridge.export.metadata.EXAMPLE)"
        )
    return check_card(text.read(path, "TOML"), where=str(path))


def check_card(values: dict[str, Any], *, where: str = FILE) -> ModelCard:
    """Metadata from plain values; see `read_card`."""
    problems = []
    values = dict(values)
    for key in sorted(set(values) - set(_KEYS)):
        like = difflib.get_close_matches(key, _KEYS, n=1)
        problems.append(
            f"{key}: no key of {FILE}" + (f"; {like[0]} is" if like else f"; keys: {', '.join(_KEYS)}")
        )
    for key in _LISTS:
        if key in values and not isinstance(values[key], list):
            problems.append(
                f"{key}: give a list ([[{key}]] or [...]); received {text.shown(values.pop(key))}"
            )
    for key in _TABLES:
        if key in values and not isinstance(values[key], dict):
            problems.append(
                f"{key}: give a table ([{key}] or {{...}}); received {text.shown(values.pop(key))}"
            )
    if values.get("test_image_role", "unknown") not in _ROLES:
        problems.append(
            f"test_image_role: one of {', '.join(_ROLES)}; received {text.shown(values['test_image_role'])}"
        )
    if not _NAME.fullmatch(str(values.get("name", ""))):
        problems.append(
            f"name: 5-128 letters, digits, blanks and _ + - ( ); received {text.shown(values.get('name', 'nothing'))}"
        )
    for key, what in (
        ("description", "what it restores, from what and for what"),
        ("license", "an SPDX name such as CC-BY-4.0"),
    ):
        if not isinstance(values.get(key), str) or not values[key].strip():
            problems.append(f"{key}: {what}")
    if len(str(values.get("description", ""))) > 1024:
        problems.append("description: at most 1024 letters")
    for key, allowed in (("modality", MODALITIES), ("content", CONTENTS)):
        if values.get(key) not in allowed:
            problems.append(
                f"{key}: one of {', '.join(allowed)}; received {text.shown(values.get(key, 'nothing'))}"
            )
    problems += _people(values)
    if problems:
        raise InputError(f"{where} is not complete:\n" + "\n".join(f"  {problem}" for problem in problems))
    known: dict[str, Any] = {
        key: values.pop(key)
        for key in ("name", "description", "license", "modality", "content")
        if key in values
    }
    people: dict[str, Any] = {
        key: tuple(values.pop(key, ())) for key in ("authors", "maintainers", "packaged_by", "cite")
    }
    task = values.pop("task", "denoising")
    return ModelCard(**known, task=task, more=values, **people)


_OF_PERSON = ("affiliation", "email", "github_user", "orcid")


def _people(values: dict[str, Any]) -> list[str]:
    problems = []
    if not values.get("authors"):
        problems.append("authors: at least one [[authors]] with a name")
    for key in ("authors", "maintainers", "packaged_by"):
        for number, person in enumerate(values.get(key, ())):
            where = f"{key}[{number}]"
            name = person.get("name") if isinstance(person, dict) else None
            if not isinstance(name, str) or not name.strip():
                came = person.get("name", "nothing") if isinstance(person, dict) else person
                problems.append(f"{where}.name: the person's name; received {text.shown(came)}")
                continue
            problems += [
                f"{where}.{part}: give a text; received {text.shown(value)}"
                for part, value in person.items()
                if part in _OF_PERSON and not isinstance(value, str)
            ]
            if "/" in person["name"]:
                problems.append(f"{where}.name: without a slash; received {person['name']!r}")
            orcid = person.get("orcid")
            if orcid is not None and not orcid_is_right(str(orcid)):
                problems.append(
                    f"{where}.orcid: {orcid!r} has a wrong check digit or form; 0000-0002-1825-0097"
                )
            if key == "maintainers" and not person.get("github_user"):
                problems.append(f"{where}.github_user: the zoo asks it of maintainers")
    for number, citation in enumerate(values.get("cite", ())):
        if (
            not isinstance(citation, dict)
            or not citation.get("text")
            or not (citation.get("doi") or citation.get("url"))
        ):
            problems.append(f"cite[{number}]: text, and doi or url")
            continue
        problems += [
            f"cite[{number}].{part}: give a text; received {text.shown(value)}"
            for part, value in citation.items()
            if part in ("text", "doi", "url") and not isinstance(value, str)
        ]
    return problems


def orcid_is_right(orcid: str) -> bool:
    """Whether an ORCID has the right form and check digit (ISO 7064, mod 11-2)."""
    if not re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", orcid):
        return False
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    return (12 - total % 11) % 11 == (10 if orcid[-1] == "X" else int(orcid[-1]))
