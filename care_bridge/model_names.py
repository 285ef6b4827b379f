"""Names of the models that come with this package, and a name where a model's path is asked for."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from care_bridge.errors import InputError

VARIABLE = "CARE_BRIDGE_ZOO"
"""Folders of further models, one name a model; several as in PATH."""

CARD = "model.toml"
"""What makes a folder beside others a model of the zoo: who says whose it is."""

DATASHEET = "datasheet.toml"
"""What a model of the zoo was trained on and for; licences and hashes of every source."""

_HERE = Path(__file__).resolve().parent


def zoo_folders() -> tuple[Path, ...]:
    """Folders whose folders are models: ours, and those that `VARIABLE` names.

    Raises
    ------
    InputError
        If a folder that was named is none.
    """
    # In an installed package, and in a checkout.
    ours = next(
        (folder for folder in (_HERE / "zoo" / "models", _HERE.parent / "model_zoo") if folder.is_dir()), None
    )
    named = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip()]
    for folder in named:
        if not folder.is_dir():
            raise InputError(
                f"{VARIABLE} names {str(folder)!r}, and there is no such folder; mend or unset it"
            )
    return tuple(dict.fromkeys(folder.resolve() for folder in ([ours] if ours else []) + named))


def named_models() -> dict[str, Path]:
    """Name to folder of every model of the zoo, sorted.

    Raises
    ------
    InputError
        If two have one name, however it is written.
    """
    found: dict[str, Path] = {}
    for folder in zoo_folders():
        for card in sorted(folder.glob(f"*/{CARD}")):
            twin = next((name for name in found if name.lower() == card.parent.name.lower()), None)
            if twin is not None:
                raise InputError(
                    f"two models are called {twin!r}: {found[twin]} and {card.parent}; rename one folder, or take it "
                    f"out of {VARIABLE}"
                )
            found[card.parent.name] = card.parent
    return dict(sorted(found.items()))


def model_path(model: str | os.PathLike[str]) -> Path:
    """Where a model lies: what is there at the path, else the model of the zoo that has this name.

    Parameters
    ----------
    model : path or str
        A path, or a name such as `care-bridge zoo list` shows.

    Returns
    -------
    Path
        A path with a folder or an ending in it is given back as it is, there or not.

    Raises
    ------
    InputError
        If a bare word is not there and only almost a name. Whoever opens any other says that it is not there.

    Warns
    -----
    UserWarning
        If it is both: what lies here is taken.
    """
    path = Path(model)
    bare = len(path.parts) == 1 and path.name not in ("", "..") and str(model) == path.name
    if not bare:
        return path
    if path.exists():
        if path.name in named_models():
            warnings.warn(
                f"{path.name!r} lies here and is also the name of a model that comes with care_bridge; what lies here "
                "is used",
                stacklevel=2,
            )
        return path
    known = named_models()
    if path.name in known:
        return known[path.name]
    if not path.suffix and _nearest(path.name, known):
        raise InputError(no_such_model(path.name, known))
    return path


def is_shipped(folder: Path) -> bool:
    """Whether a folder is that of a model of the zoo."""
    return (folder / CARD).is_file() and folder.resolve().parent in zoo_folders()


def no_such_model(name: str, known: Mapping[str, Path]) -> str:
    """What to say of a name that no model has."""
    near = _nearest(name, known)
    if not known:
        hint = "no model is shipped yet"
    elif near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"there are {', '.join(known)}"
    return (
        f"there is no model at {name!r}, and no model of the zoo is called so ({hint}); give a model folder, a .keras "
        "or .h5 file, a bundle, or a name of `care-bridge zoo list`"
    )


def _nearest(name: str, known: Mapping[str, Path]) -> list[str]:
    wanted = name.lower()
    parts = [one for one in known if len(wanted) > 3 and wanted in one.lower()]
    return (parts or difflib.get_close_matches(wanted, known))[:3]
