"""Which files of a folder are images: one rule for everything that is given folders."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from care_bridge.errors import InputError
from care_bridge.images.ome_zarr import ZARR, is_zarr

TIFF = (".tif", ".tiff")
"""Ends of names of images, in small letters; files are taken whatever the case."""

PATTERN = "*.tif*"
"""Files of a folder that are looked at when nobody says which; stands for folders ``*.zarr`` too."""

_NAMED = 5
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")


class LeftOutWarning(UserWarning):
    """Files of a folder are no images by their names."""


def list_images(
    folder: str | os.PathLike[str], pattern: str = PATTERN, *, suffixes: tuple[str, ...] = TIFF
) -> list[Path]:
    """The images of a folder in the order of their names, and one sentence about what else lies there.

    Parameters
    ----------
    folder : path
    pattern : str
        As for `Path.glob`, whatever the case of letters; with ``**/`` also in folders below. One that ends in
        ``*.tif*`` takes OME-Zarr too, which are folders whose names end in .zarr; nothing is looked for within.
    suffixes : tuple of str
        What else than TIFF is an image.

    Raises
    ------
    InputError
        If the pattern is none.

    Warns
    -----
    LeftOutWarning
        Names what fits the pattern but is hidden or no image by its name, e.g. ``._cell.tif`` of a Mac or
        ``cell.tif.txt``; without a pattern of the caller's own, what else lies in the folder too.
    """
    folder = Path(folder)
    try:
        fitting = sorted(
            path
            for one in _patterns(pattern)
            for path in folder.glob(_of_any_case(one))
            if not _within_zarr(path, folder)
        )
    except (ValueError, NotImplementedError):
        raise InputError(
            f"pattern {pattern!r} is not understood; give e.g. '*.tif' or 'cell_*.tif'"
        ) from None
    taken = [path for path in fitting if not _why_not(path, folder, suffixes)]
    others = [path for path in fitting if path not in set(taken)]
    if pattern == PATTERN:
        others += [path for path in _besides(folder) if path not in set(fitting)]
    _say(folder, [(path, _why_not(path, folder, suffixes)) for path in sorted(others)])
    return taken


def _why_not(path: Path, folder: Path, suffixes: tuple[str, ...]) -> str:
    """Why a path is no image; "" if it is one."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"
    if not path.is_file():
        if path.suffix.lower() == ZARR and is_zarr(path):
            return ""
        return "a folder" if path.is_dir() else "no file"
    return "" if path.suffix.lower() in suffixes else "no TIFF by its name"


def _patterns(pattern: str) -> Iterator[str]:
    yield pattern
    if pattern.endswith(PATTERN):
        yield pattern[: -len(PATTERN)] + "*" + ZARR


def _within_zarr(path: Path, folder: Path) -> bool:
    return any(part.lower().endswith(ZARR) for part in path.relative_to(folder).parts[:-1])


def _besides(folder: Path) -> Iterator[Path]:
    """Files of the folder itself that a person may have meant."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith(".") and path.name.lower() not in _OF_SYSTEMS:
            yield path


def _of_any_case(pattern: str) -> str:
    """The pattern with both cases of each letter, but for those in brackets."""
    parts = re.split(r"(\[[^]]*\])", pattern)
    return "".join(
        part
        if part.startswith("[")
        else re.sub("[a-zA-Z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", part)
        for part in parts
    )


def _say(folder: Path, left_out: list[tuple[Path, str]]) -> None:
    # What a run of ours was writing, or a system keeps, is nobody's image.
    named = [
        f"{path.relative_to(folder)} ({why})"
        for path, why in left_out
        if not path.name.startswith((".part-", ".DS_Store"))
    ]
    if named:
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        warnings.warn(
            f"left out of {str(folder)!r}: {', '.join(named[:_NAMED])}{more}", LeftOutWarning, stacklevel=3
        )
