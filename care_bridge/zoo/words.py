"""What is said of models on a terminal, and which are meant."""

from __future__ import annotations

from collections.abc import Sequence

from care_bridge.errors import InputError
from care_bridge.page.pages import NOT_FOR_QUANTIFICATION
from care_bridge.zoo.entry import FAMILIES, Entry, find, models


def chosen(names: Sequence[str] | None) -> tuple[Entry, ...]:
    """The models of these names; all where none is named.

    Raises
    ------
    InputError
        If one is named twice, or there is none of a name.
    """
    if not names:
        return models()
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise InputError(f"{twice[0]!r} is named twice; name each model once")
    return tuple(map(find, names))


def as_text(entry: Entry) -> str:
    """All that is known of a model, for reading."""
    low, high = entry.neighbour_correlation
    rows = {
        "restores": entry.restores,
        "kind": f"{entry.family}: {FAMILIES.get(entry.family, '')}" if entry.family else "",
        "dimensions": f"{entry.dimensions}, axes {entry.config.axes}",
        "trained for noise": f"{entry.noise}, neighbours correlated by {low:g} to {high:g}"
        if entry.noise
        else "",
        "photons": f"{entry.photons[0]:g} to {entry.photons[1]:g} at the bright end"
        if any(entry.photons)
        else "",
        "structures": ", ".join(entry.structures),
        "sharpness": entry.sharpness,
        "measured": entry.summary or "nothing yet",
        "licence": entry.licence,
        "authors": ", ".join(entry.authors),
        "lies in": str(entry.folder),
    }
    lines = [entry.title, *(f"  {key:<18} {value}" for key, value in rows.items() if value)]
    lines += [f"  not for            {limit}" for limit in entry.limits]
    for source in entry.sources:
        where = f", {source['address']}" if source.get("address") else ""
        lines.append(
            f"  trained on         {source.get('name')} ({source.get('licence')}, class {source.get('class')}){where}"
        )
    lines += [f"  MISSING            {problem}" for problem in entry.problems]
    lines += ["", NOT_FOR_QUANTIFICATION]
    return "\n".join(lines)
