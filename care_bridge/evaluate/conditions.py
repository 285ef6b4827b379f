"""Under which condition an image was taken (exposure, depth, set): read from subfolders or a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import METRICS
from care_bridge.evaluate.tables import read_table
from care_bridge.images import list_images
from care_bridge.patches.pairing import same_place, stem
from care_bridge.text import read
from care_bridge.words import listed

SUBFOLDERS = "subfolders"
"""Instead of a table: each folder in the source folder is a condition."""

_COLUMNS = (("image", "condition"), ("name", "set"))
"""Of a table: a person's own, and those of the manifest that `care-bridge simulate` writes."""


@dataclass(frozen=True)
class Published:
    """Scores that others published for a condition, to stand beside ours.

    Attributes
    ----------
    condition, method : str
        `method` says whose and of what, e.g. "Weigert 2018, network".
    scores : mapping of str to float
        Some keys of `scores.METRICS`.
    """

    condition: str
    method: str
    scores: Mapping[str, float]


def condition_folders(source: Path, target: Path) -> list[tuple[str, Path, Path]]:
    """Each condition with its folders of sources and of truths.

    Parameters
    ----------
    source : Path
        Holds a folder for each condition; `target` may lie among them.
    target : Path
        Holds folders of the same names, or the truths that all conditions share.

    Raises
    ------
    InputError
        If there is no such folder, images lie beside them, or truths have folders for some conditions only.
    """
    if not source.is_dir() or not target.is_dir():
        raise InputError(
            f"conditions that are subfolders need two folders; received {str(source)!r} and {str(target)!r}"
        )
    loose = [path.name for path in list_images(source)]
    if loose:
        raise InputError(
            f"{listed(loose)} in {str(source)!r} without a condition; move every image into its condition's folder, "
            "or give a table"
        )
    folders = [path for path in _folders_in(source) if not same_place(path, target)]
    if not folders:
        raise InputError(
            f"{str(source)!r} holds no folder, and each condition should be one; or give a table of image and condition"
        )
    names = [folder.name for folder in folders]
    own = [name for name in names if (target / name).is_dir()]
    if own and own != names:
        raise InputError(
            f"{str(target)!r} has no folder for {listed([name for name in names if name not in own])}, but one for "
            f"{listed(own)}; give truths for each condition, or the same ones for all"
        )
    unknown = [path.name for path in _folders_in(target) if own and path.name not in names]
    if unknown:
        raise InputError(
            f"{str(target)!r} has truths for {listed(unknown)}, a condition of which {str(source)!r} has no images; "
            f"there are {listed(names, 9)}"
        )
    return [(folder.name, folder, target / folder.name if own else target) for folder in folders]


def read_conditions(path: str | os.PathLike[str], images: Sequence[str]) -> dict[str, str]:
    """The condition of each image, from a table.

    Parameters
    ----------
    path : path
        A CSV with the columns image and condition (or name and set, as a manifest of `care-bridge simulate` has);
        or a TOML of lines ``"cell.tif" = "C1"``. Rows of other images are passed over.
    images : sequence of str
        File names; a table may leave their ends out.

    Returns
    -------
    dict of str to str
        By image, in the order of `images`.

    Raises
    ------
    InputError
        If the table cannot be read or contradicts itself, or an image has no condition in it.
    """
    stated: dict[str, str] = {}
    for image, condition in _rows(Path(path)):
        if stated.setdefault(image, condition) != condition:
            raise InputError(
                f"{str(path)!r} gives {image!r} two conditions, {stated[image]!r} and {condition!r}; keep one"
            )
    found = {image: stated.get(image) or stated.get(stem(Path(image)), "") for image in images}
    without = [image for image, condition in found.items() if not condition]
    if without:
        raise InputError(
            f"{len(without)} of {len(images)} images have no condition in {str(path)!r}: {listed(without)}; add a row "
            "for each"
        )
    return found


def read_published(path: str | os.PathLike[str], conditions: Sequence[str]) -> list[Published]:
    """Published scores, a row a condition and method.

    Parameters
    ----------
    path : path
        A CSV with the columns condition and method, and at least one of those of `scores.METRICS` (nrmse, ssim, ...).
    conditions : sequence of str
        Those that are evaluated.

    Raises
    ------
    InputError
        If columns lack, a score is no number, or a condition is not among those that are evaluated.
    """
    rows = read_table(path)
    scores = [metric.key for metric in METRICS if metric.key in rows[0]]
    if not {"condition", "method"} <= rows[0].keys() or not scores:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(rows[0])}; it needs condition, method, and one of "
            f"{', '.join(metric.key for metric in METRICS)}, parted by commas"
        )
    unknown = list(dict.fromkeys(r["condition"] for r in rows if r["condition"] not in conditions))
    if unknown:
        raise InputError(
            f"{str(path)!r} names {listed(unknown)}, and no image has that condition; there are "
            f"{listed(conditions, 9) or 'none (give --conditions)'}"
        )
    return [
        Published(
            row["condition"],
            row["method"],
            {key: _number(row[key], key, path) for key in scores if row[key]},
        )
        for row in rows
    ]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Image and condition of each line of a table."""
    if path.suffix.lower() == ".toml":
        try:
            yield from _named(read(path, "TOML"), path)
        except OSError as error:
            raise InputError(f"cannot read the table {str(path)!r}: {error}") from error
        return
    rows = read_table(path)
    columns = next((pair for pair in _COLUMNS if set(pair) <= rows[0].keys()), None)
    if columns is None:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(map(str, rows[0]))}; it needs image and condition, parted by "
            f"commas (or write {SUBFOLDERS}, if each condition is a folder of SOURCE)"
        )
    for row in rows:
        yield (row[columns[0]] or "").strip(), (row[columns[1]] or "").strip()


def _named(table: Any, path: Path, before: str = "") -> Iterator[tuple[str, str]]:
    """Lines of a TOML; without quotes the dot of cell.tif makes a table of it, which is put together again."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _named(value, path, f"{before}.{key}" if before else key)
    elif isinstance(table, str | int):
        yield before, str(table)
    else:
        raise InputError(f"{str(path)!r}: {before!r} is {table!r}; write the name of a condition")


def _number(text: str, key: str, path: str | os.PathLike[str]) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{str(path)!r}: {key} is {text!r}; write a number") from None
