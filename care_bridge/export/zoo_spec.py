"""The door to bioimageio.spec: what it saves, judges and asks for, and the form of the format that is written down.

What is not public in it stays in this module: `constants.KNOWN_GITHUB_USERS`, which keeps it from asking GitHub for
every author. tests/export/test_neighbours.py tells when that moved.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from care_bridge.errors import InputError, NotInstalledError

RDF = "rdf.yaml"
FORMAT_VERSION = "0.5.10"
"""The last form that bioimageio.core 0.9 to 0.11 and deepImageJ all read; see `widen`."""

_MINOR = "0.5"
"""What bioimageio.spec is asked for: the newest of 0.5 that it knows, and an error from one that left 0.5 behind."""


def as_yaml(rdf: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(rdf), sort_keys=False, allow_unicode=True)


def save_package(rdf: Path, folder: Path) -> Path:
    """Let bioimageio.spec build the description, gather its files with their hashes and save them; then widen."""
    description, context = _description(rdf)
    from bioimageio import spec

    with offline(rdf), context, warnings.catch_warnings():
        # It warns of every mapping that it first takes for something else.
        warnings.simplefilter("ignore")
        spec.save_bioimageio_package_as_folder(description, output_path=folder)
    saved = folder / RDF
    saved.write_text(as_yaml(widen(saved_by_spec(saved.read_text(encoding="utf-8")))), encoding="utf-8")
    return folder


class _Loader(yaml.SafeLoader):
    """Reads what a writer of YAML 1.2 wrote, where 3e-05 is a number; in YAML 1.1, which PyYAML reads, it is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def saved_by_spec(text: str) -> dict[str, Any]:
    """A description that bioimageio.spec wrote, with its numbers as numbers."""
    return dict(yaml.load(text, _Loader))


def widen(rdf: Mapping[str, Any]) -> dict[str, Any]:
    """A description as bioimageio.spec 0.5.12 saves it, in the form that older readers read too.

    Parameters
    ----------
    rdf : mapping

    Notes
    -----
    Since 0.5.11 `documentation` and `covers` are mappings with a hash: bioimageio.core up to 0.10 calls that
    invalid and deepImageJ stops with a ClassCastException (deepimagej-recorded). Every reader of 0.5 adds the
    `ensure_dtype` steps by itself, which nobody has to read then.
    """
    wide = {**rdf, "format_version": FORMAT_VERSION}
    if isinstance(wide.get("documentation"), Mapping):
        wide["documentation"] = wide["documentation"]["source"]
    wide["covers"] = [
        cover["source"] if isinstance(cover, Mapping) else cover for cover in wide.get("covers", [])
    ]
    for side, steps in (("inputs", "preprocessing"), ("outputs", "postprocessing")):
        tensors = [dict(tensor) for tensor in wide[side]]
        for tensor in tensors:
            kept = [step for step in tensor.pop(steps, []) if step["id"] != "ensure_dtype"]
            if kept:
                tensor[steps] = kept
        wide[side] = tensors
    return wide


def validate(rdf: Path, *, files: bool = True) -> float:
    """Build bioimageio.spec's own description of a package, offline; its completeness, 0-1.

    Parameters
    ----------
    rdf : Path
    files : bool
        Whether the files that it names are read too. Those at an address would be fetched then.

    Raises
    ------
    InputError
        Every complaint of the format at once.
    """
    return float(_description(rdf, files=files)[0].validation_summary.metadata_completeness)


def _description(rdf: Path, *, files: bool = True) -> tuple[Any, Any]:
    """The description by bioimageio.spec's classes, and the context that it was built in."""
    try:
        with offline(rdf):
            from bioimageio import spec

            context = spec.ValidationContext(
                root=rdf.parent,
                file_name=rdf.name,
                # Without a look at files, whatever is not known would count as missing.
                known_files=dict.fromkeys(urls(rdf)) if files else {},
                perform_io_checks=files,
            )
            with context, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                description = spec.load_description(rdf, format_version=_MINOR)
    except ImportError as error:
        raise NotInstalledError(
            f"packages need bioimageio.core: pip install 'care-bridge[zoo]' ({error})"
        ) from None
    if not isinstance(description, spec.InvalidDescr):
        return description, context
    summary = description.validation_summary
    if "SerializationInfo" in str(summary.details):
        raise NotInstalledError(
            "this bioimageio.spec cannot work with the pydantic that is installed: pip install 'pydantic<2.14'"
        )
    problems = [
        f"{'.'.join(map(str, error.loc))}: {error.msg}"
        for detail in summary.details
        for error in detail.errors
    ]
    raise InputError("the package is not valid:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems)))


@contextmanager
def offline(rdf: Path) -> Iterator[None]:
    """Let bioimageio.spec ask nobody: GitHub names are taken as known while this lasts.

    What bioimageio.core writes into the environment meanwhile is taken back: `KERAS_BACKEND=torch` would end every
    process that is started later from this one and imports Keras.
    """
    before = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")}
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from bioimageio.spec._internal import constants

    names = {
        name.lower() for name in re.findall(r"github_user:\s*['\"]?([\w-]+)", rdf.read_text(encoding="utf-8"))
    }
    added = names - constants.KNOWN_GITHUB_USERS
    constants.KNOWN_GITHUB_USERS |= added
    try:
        yield
    finally:
        constants.KNOWN_GITHUB_USERS -= added
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def urls(rdf: Path) -> list[str]:
    """Every address in a description, as text."""
    return sorted(set(re.findall(r"https?://[^\s'\"<>]+", rdf.read_text(encoding="utf-8"))))
