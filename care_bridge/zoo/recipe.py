"""How a model of the zoo was trained: commands of `care-bridge` that do it again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from care_bridge import text
from care_bridge.errors import InputError
from care_bridge.zoo.entry import RECIPE

COMMANDS = ("simulate", "train")
"""What a recipe may run."""

PLACES = ("data", "here", "work", "out")
"""Words in braces that stand for folders: the person's images, the model's folder, one for what comes between, the model."""

Step = tuple[str, ...]


def read_recipe(folder: str | os.PathLike[str]) -> tuple[Step, ...]:
    """The commands of a model's recipe.toml; none where it has none.

    Raises
    ------
    InputError
        If it is no list of `steps`, or a step is no command that a recipe may run.
    """
    file = Path(folder) / RECIPE
    if not file.is_file():
        return ()
    told = text.read(file, "TOML")
    steps = told.get("steps") if isinstance(told, dict) else None
    if not isinstance(steps, list) or not steps:
        raise InputError(f'{str(file)!r}: give steps = [["train", "{{data}}", "--out", "{{out}}", ...]]')
    for number, step in enumerate(steps):
        if not isinstance(step, list) or not step or step[0] not in COMMANDS:
            raise InputError(f"{str(file)!r}: steps[{number}] must begin with {' or '.join(COMMANDS)}")
    return tuple(tuple(str(word) for word in step) for step in steps)


def filled(steps: tuple[Step, ...], **places: str | os.PathLike[str]) -> tuple[Step, ...]:
    """Steps with the words of `PLACES` replaced by folders."""
    found = []
    for step in steps:
        words = []
        for word in step:
            for name, place in places.items():
                word = word.replace(f"{{{name}}}", os.fspath(place))  # noqa: PLW2901  (one after the other)
            words.append(word)
        found.append(tuple(words))
    return tuple(found)


def train_again(
    folder: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    say: Callable[[str], object],
) -> Path:
    """Run a model's recipe.

    Parameters
    ----------
    folder : path
        Of the model.
    data : path, optional
        Folder of the images that its data sheet names; None for recipes that draw theirs.
    out : path
        Gets the model as `model` and what comes between as `work`.
    say : callable
        Told each command before it runs.

    Returns
    -------
    Path
        The model's new folder.

    Raises
    ------
    InputError
        If there is no recipe, images are missing, or a command ended otherwise than well.
    """
    steps = read_recipe(folder)
    if not steps:
        raise InputError(f"{str(folder)!r} has no {RECIPE}, so nobody wrote down how it was trained")
    if data is None and any("{data}" in word for step in steps for word in step):
        raise InputError("this recipe trains on images; give their folder: --data FOLDER (make: DATA=FOLDER)")
    if data is not None and not Path(data).is_dir():
        raise InputError(f"there is no folder {str(data)!r}")
    model = Path(out) / "model"
    places = {"here": folder, "work": Path(out) / "work", "out": model} | (
        {} if data is None else {"data": data}
    )
    for step in filled(steps, **places):
        say(f"care-bridge {' '.join(step)}")
        done = subprocess.run([sys.executable, "-m", "care_bridge", *step], check=False)
        if done.returncode:
            raise InputError(f"`care-bridge {step[0]}` ended with {done.returncode}; see above")
    return model
