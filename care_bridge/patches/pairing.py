"""Which source file belongs to which target file, by their names alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from care_bridge.errors import InputError
from care_bridge.words import counted, listed

Pairs = list[tuple[Path, Path | None]]
"""Source files with their targets; None where there is none."""


def pair_files(
    sources: Sequence[Path],
    targets: Sequence[Path],
    *,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
) -> Pairs:
    """Pair files whose names are equal, or differ in one part that is the same for all.

    Parameters
    ----------
    sources, targets : sequence of Path
        Of two folders, or twice those of one folder that holds both.
    source_suffix, target_suffix : str, optional
        What the names of each side end with, without extension: ``_noisy`` and ``_gt`` pair ``cell_noisy.tif`` with
        ``cell_gt.tif``, and files that end otherwise belong to no pair. One left out, beside the other, is nothing. Both
        left out: names without extension are equal, or where no two are, one part of them is replaced: found if it
        pairs every source.

    Raises
    ------
    InputError
        If no source ends with the suffix, or names could be paired in several ways.
    """
    by_stem = {stem(file): file for file in targets}
    if source_suffix is not None or target_suffix is not None:
        return _by_suffix(sources, by_stem, source_suffix or "", target_suffix or "")
    here = [(file, by_stem.get(stem(file))) for file in sources]
    if any(partner is not None for _, partner in here):
        return here
    found = _differing_part([stem(file) for file in sources], by_stem)
    if found is None:
        return here
    return [(file, by_stem[found[stem(file)]]) for file in sources]


def same_place(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths are one folder or file, also by way of links."""
    return Path(first).resolve() == Path(second).resolve()


def stem(file: Path) -> str:
    """A file's name without what says that it is an image."""
    name = file.name
    for ending in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return file.stem


def _by_suffix(
    sources: Sequence[Path], by_stem: Mapping[str, Path], source_suffix: str, target_suffix: str
) -> Pairs:
    if source_suffix == target_suffix == "":
        raise InputError("the suffixes of source and target are both empty; give one, or leave both out")
    stems = {file: stem(file) for file in sources}
    # With nothing to tell sources by, what ends like a target is one.
    chosen = [
        file
        for file, stem in stems.items()
        if stem.endswith(source_suffix) and (source_suffix or not stem.endswith(target_suffix))
    ]
    if not chosen:
        raise InputError(
            f"none of {counted(len(sources), 'source file')} ends with {source_suffix!r} (without its extension); "
            f"there are {listed([file.name for file in sources])}"
        )
    cut = len(source_suffix)
    return [(file, by_stem.get(stems[file][: len(stems[file]) - cut] + target_suffix)) for file in chosen]


def _differing_part(stems: Sequence[str], targets: Mapping[str, Path]) -> dict[str, str] | None:
    """For each source stem its target's, if replacing one part of the name, the same for all, pairs all of them."""
    ways: dict[tuple[tuple[str, str], ...], None] = {}
    for target in targets:
        here, there = _middles(stems[0], target)
        # Numbers tell images apart, not sides: cell_1 is no partner of cell_2.
        digits = ["".join(filter(str.isdigit, part)) for part in (here, there)]
        if (all(digits) and digits[0] != digits[1]) or (here + there).isdigit() or len(here) == len(stems[0]):
            continue
        found = {stem: _replaced(stem, here, there, targets) for stem in stems}
        partners = [partner for partner in found.values() if partner is not None]
        if len(partners) == len(set(partners)) == len(stems):
            ways[tuple((stem, str(partner)) for stem, partner in found.items())] = None
    if len(ways) > 1:
        told = [f"{way[0][0]} with {way[0][1]}" for way in ways]
        raise InputError(
            f"sources and targets can be paired in several ways ({listed(told)}); say which by --source-suffix and "
            "--target-suffix"
        )
    return dict(next(iter(ways))) if ways else None


def _middles(first: str, second: str) -> tuple[str, str]:
    """What is left of two names without their common beginning and end."""
    start = _common(first, second)
    first, second = first[start:], second[start:]
    end = _common(first[::-1], second[::-1])
    return first[: len(first) - end], second[: len(second) - end]


def _common(first: str, second: str) -> int:
    """With how many equal letters two names begin."""
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


def _replaced(stem: str, here: str, there: str, targets: Mapping[str, Path]) -> str | None:
    """The target whose name has one `there` instead of one `here`; None unless there is exactly one."""
    if here:
        places = [place for place in range(len(stem)) if stem.startswith(here, place)]
        names = {stem[:place] + there + stem[place + len(here) :] for place in places}
    else:
        names = {stem[:place] + there + stem[place:] for place in range(len(stem) + 1)}
    found = names & targets.keys()
    return found.pop() if len(found) == 1 else None
