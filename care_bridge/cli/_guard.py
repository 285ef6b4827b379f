"""What `predict` and `restore` say of images that a model was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from care_bridge.inference.files import Restored
    from care_bridge.inference.guard import Guard

GUARD_JSON = "guard.json"
"""What was found, beside the results."""


def say_likeness(model: Path, guard: Guard, results: Sequence[Restored]) -> None:
    """Name the images that are foreign, or that nothing can be known of; once, where that is so of all."""
    if guard.familiar is None and results:
        typer.echo(f"{model.name}: {guard.unknown.sentence()}", err=True)
    for each in results:
        if each.likeness is not None and (said := each.likeness.sentence()):
            typer.echo(f"{each.source.name}: {said}", err=True)


def write_likeness(folder: Path, results: Sequence[Restored]) -> None:
    """Write what was found of every image beside the results; nothing where nobody could know."""
    import json

    from care_bridge.files import write_text

    found = {each.source.name: each.likeness.as_dict() for each in results if each.likeness is not None}
    if found:
        write_text(folder / GUARD_JSON, json.dumps(found, indent=1) + "\n")
