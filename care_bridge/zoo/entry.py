"""One model of the zoo: what its folder says of it, read and checked."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from care_bridge import text
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.model_files import ISOTROPIC, stated_noise
from care_bridge.model_names import CARD, DATASHEET, model_path, named_models, no_such_model
from care_bridge.noise import NoiseRange

RECIPE = "recipe.toml"
"""The commands that train it again."""

EVALUATION = "evaluation.json"
README = "README.md"
COVER = "cover.png"
FAILURE = "failure.png"

MOST_BYTES = 6 << 20
"""So large a model's folder may be."""

FAMILIES = {
    "denoise": "takes noise away and leaves the structure's sharpness",
    "restore": "takes noise away and draws one kind of structure as it was trained to",
    "deconvolve": "takes noise and blur away",
    "isotropic": "fills up stacks along Z",
    "remove": "takes away a pattern of the instrument",
    "project": "makes one plane of a stack",
}
"""What models do; only those of the first kind are chosen without being asked for by name."""

NOISES = ("white", "correlated", "any")
"""Noise that a model was trained for: independent from pixel to pixel, or shared by neighbours."""

CLASSES = ("A", "drawn")
"""What shipped models may be trained on: data whose author states a permissive licence, and what is drawn here."""

_KEYS = {
    "restores": str,
    "family": str,
    "noise": str,
    "neighbour_correlation": list,
    "photons": list,
    "structures": list,
    "sharpness": str,
    "detail_px": list,
    "limits": list,
    "sources": list,
}
_OPTIONAL = ("detail_px",)
_OF_SOURCE = ("name", "address", "licence", "class", "sha256", "credit", "used_for")


@dataclass(frozen=True, eq=False)
class Entry:
    """A model that comes with this package.

    Attributes
    ----------
    name : str
        What commands call it by: the name of its folder.
    folder : Path
    config : CareConfig
    card : mapping
        model.toml: title, description, licence, authors, citations.
    restores : str
        One line.
    family : str
        One of `FAMILIES`.
    noise : str
        One of `NOISES`.
    neighbour_correlation : (float, float)
        Of the noise that it was trained with, least and most.
    photons : (float, float)
        At the bright end of its training images, fewest and most.
    structures : tuple of str
        "any", or what its training images show.
    sharpness : str
        How sharp its images are, in words.
    detail_px : (float, float)
        The finest details of its training images, least and most; (0, 0) where nobody said.
    limits : tuple of str
        What it is not for, a sentence each.
    sources : tuple of mapping
        What it was trained on: name, address, licence, class, sha256, credit.
    evaluation : mapping
        evaluation.json; empty where nothing was measured.
    problems : tuple of str
        What of the datasheet is missing or wrong.
    noise_range : NoiseRange
        What it was trained with, as `model_files.stated_noise` finds it: what an image's noise is held against.
    """

    name: str
    folder: Path
    config: CareConfig
    card: Mapping[str, Any]
    restores: str = ""
    family: str = ""
    noise: str = ""
    neighbour_correlation: tuple[float, float] = (0.0, 0.0)
    photons: tuple[float, float] = (0.0, 0.0)
    structures: tuple[str, ...] = ()
    sharpness: str = ""
    detail_px: tuple[float, float] = (0.0, 0.0)
    limits: tuple[str, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    noise_range: NoiseRange = NoiseRange()  # noqa: RUF009 - frozen

    @property
    def dimensions(self) -> str:
        """`2D` or `3D`: what it is given. A model that fills up stacks is 3-D, though its network sees slices."""
        return "3D" if self.config.kind == ISOTROPIC else f"{len(self.config.axes.replace('C', ''))}D"

    @property
    def title(self) -> str:
        """Its name in the zoo."""
        return str(self.card.get("name", self.name))

    @property
    def licence(self) -> str:
        """SPDX name."""
        return str(self.card.get("license", ""))

    @property
    def authors(self) -> tuple[str, ...]:
        """Names of its authors."""
        given = self.card.get("authors", ())
        people = given if isinstance(given, list | tuple) else ()
        return tuple(str(person.get("name", "")) for person in people if isinstance(person, Mapping))

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Its small pictures, the cover first."""
        found = sorted(self.folder.glob("*.png"), key=lambda file: (file.name != COVER, file.name))
        return tuple(found)

    @property
    def summary(self) -> str:
        """The quality that was measured, in one line; empty where nothing was."""
        sets = self.evaluation.get("sets", ())
        told = []
        for one in sets if isinstance(sets, list) else ():
            means = one.get("mean", {}) if isinstance(one, Mapping) else {}
            if {"input", "restored"} <= set(means):
                told.append(
                    f"{one.get('name')}: {means['input']['psnr']:.1f} to {means['restored']['psnr']:.1f} dB"
                )
        return "; ".join(told)

    def weights(self) -> Path:
        """Its weights file; of an ensemble the folder's members have theirs, see `hashes`."""
        from care_bridge.training.folder import find_weights

        return find_weights(self.folder)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of config.json and of every weights file, by their paths in the folder."""
        files = sorted([*self.folder.glob("**/config.json"), *self.folder.glob("**/*.h5")])
        return {file.relative_to(self.folder).as_posix(): sha256(file) for file in files}


def models() -> tuple[Entry, ...]:
    """The models that come with this package, and those of the folders in CARE_BRIDGE_ZOO, by name.

    Returns
    -------
    tuple of Entry
        Empty where none is shipped yet.

    Raises
    ------
    InputError
        If two have one name or title, or one cannot be read.
    """
    found = tuple(read_entry(folder, name) for name, folder in named_models().items())
    titles: dict[str, str] = {}
    for entry in found:
        if (twin := titles.setdefault(entry.title.lower(), entry.name)) != entry.name:
            raise InputError(
                f"the models {twin} and {entry.name} have one title, {entry.title!r}; change name in one {CARD}"
            )
    return found


def find(name: str | os.PathLike[str]) -> Entry:
    """A model of the zoo by its name, or one that lies in a folder as the zoo's do.

    Parameters
    ----------
    name : str or path
        As `care-bridge zoo list` shows it, or a folder.

    Returns
    -------
    Entry
        What its folder says of it.

    Raises
    ------
    InputError
        If there is none of that name, with the nearest.
    """
    known = named_models()
    if str(name) in known:
        return read_entry(known[str(name)], str(name))
    path = model_path(name)
    if (path / "config.json").is_file():
        return read_entry(path, path.resolve().name)
    raise InputError(no_such_model(str(name), known))


def read_entry(folder: str | os.PathLike[str], name: str | None = None) -> Entry:
    """What a model's folder says of it.

    Parameters
    ----------
    folder : path
        With config.json and model.toml; datasheet.toml and evaluation.json where they are.
    name : str, optional
        None takes the folder's.

    Returns
    -------
    Entry
        With all that is missing in its datasheet as its `problems`.

    Raises
    ------
    InputError
        If config.json or model.toml is missing, or a file is damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    card = _table(folder / CARD)
    if not card:
        raise InputError(f"{str(folder)!r} has no {CARD}: a model of the zoo says whose it is")
    told = _table(folder / DATASHEET)
    problems = _problems(told)
    good = {key: told[key] for key, kind in _KEYS.items() if isinstance(told.get(key), kind)}
    return Entry(
        name=name or folder.resolve().name,
        folder=folder,
        config=config,
        card=card,
        restores=good.get("restores", ""),
        family=good.get("family", ""),
        noise=good.get("noise", ""),
        neighbour_correlation=_range(good.get("neighbour_correlation")),
        photons=_range(good.get("photons")),
        structures=tuple(map(str, good.get("structures", ()))),
        sharpness=good.get("sharpness", ""),
        detail_px=_range(good.get("detail_px")),
        limits=tuple(map(str, good.get("limits", ()))),
        sources=tuple(one for one in good.get("sources", ()) if isinstance(one, Mapping)),
        evaluation=_evaluation(folder / EVALUATION),
        problems=tuple(problems),
        noise_range=stated_noise(folder),
    )


def _table(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    values = text.read(file, "TOML")
    return dict(values) if isinstance(values, Mapping) else {}


def _evaluation(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    values = text.read(file, "JSON")
    if not isinstance(values, Mapping):
        raise InputError(f"{str(file)!r} holds no table; measure the model again: care-bridge zoo card")
    return dict(values)


def _range(values: Any) -> tuple[float, float]:
    if (
        not isinstance(values, list)
        or len(values) != 2
        or not all(isinstance(one, int | float) for one in values)
    ):
        return (0.0, 0.0)
    return (float(values[0]), float(values[1]))


def _problems(told: Mapping[str, Any]) -> list[str]:
    """All that a datasheet lacks."""
    if not told:
        return [f"there is no {DATASHEET}: what was it trained on and for?"]
    problems = []
    for key in sorted(set(told) - set(_KEYS)):
        near = difflib.get_close_matches(key, _KEYS, n=1)
        problems.append(f"{key}: no key of {DATASHEET}" + (f"; {near[0]} is" if near else ""))
    for key, kind in _KEYS.items():
        value = told.get(key)
        if key in _OPTIONAL and value is None:
            continue
        if not isinstance(value, kind) or not value:
            what = "a text" if kind is str else "a list"
            problems.append(f"{key}: give {what}; received {text.shown(told.get(key, 'nothing'))}")
    for key, allowed in (("family", tuple(FAMILIES)), ("noise", NOISES)):
        if isinstance(told.get(key), str) and told[key] not in allowed:
            problems.append(f"{key}: one of {', '.join(allowed)}; received {text.shown(told[key])}")
    for key in ("neighbour_correlation", "photons", "detail_px"):
        values = told.get(key)
        if isinstance(values, list) and not (
            len(values) == 2
            and all(isinstance(one, int | float) for one in values)
            and values[0] <= values[1]
        ):
            problems.append(f"{key}: two numbers, the least and the most; received {text.shown(values)}")
    sources = told.get("sources")
    for number, source in enumerate(sources if isinstance(sources, list) else ()):
        problems += _problems_of_source(number, source)
    return problems


def _problems_of_source(number: int, source: Any) -> list[str]:
    where = f"sources[{number}]"
    if not isinstance(source, Mapping):
        return [f"{where}: give a table with {', '.join(_OF_SOURCE)}"]
    problems = [f"{where}.{key}: no key of a source" for key in source if key not in _OF_SOURCE]
    given = source.get("class")
    if given not in CLASSES:
        came = "no licence class is given" if given is None else f"received {text.shown(given)}"
        problems.append(
            f"{where}.class: {came}; shipped models are trained on class A (its author states a permissive "
            "licence) or on what is drawn here (drawn) only"
        )
    asked = ("name", "licence") if given == "drawn" else ("name", "address", "licence", "sha256")
    problems += [f"{where}.{key}: missing" for key in asked if not source.get(key)]
    hashes = source.get("sha256", [])
    for one in [hashes] if isinstance(hashes, str) else hashes:
        digest = str(one).split(maxsplit=1)[0] if str(one).strip() else ""
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            problems.append(
                f"{where}.sha256: 64 hexadecimal digits, and a file's name; received {text.shown(one)}"
            )
    return problems


def as_json(entry: Entry) -> str:
    """What `zoo show --json` prints."""
    return json.dumps(
        {
            "name": entry.name,
            "title": entry.title,
            "restores": entry.restores,
            "family": entry.family,
            "dimensions": entry.dimensions,
            "axes": entry.config.axes,
            "noise": entry.noise,
            "neighbour_correlation": list(entry.neighbour_correlation),
            "photons": list(entry.photons),
            "structures": list(entry.structures),
            "sharpness": entry.sharpness,
            "licence": entry.licence,
            "authors": list(entry.authors),
            "limits": list(entry.limits),
            "sources": [dict(source) for source in entry.sources],
            "hashes": entry.hashes(),
            "folder": str(entry.folder),
            "evaluation": dict(entry.evaluation),
        },
        indent=1,
    )
