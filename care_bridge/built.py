"""What a runtime or reader needs of a model that comes with this package: built once, into the cache folder."""

from __future__ import annotations

import functools
import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from care_bridge import __version__
from care_bridge.bundle import find_bundle
from care_bridge.cache import cache_folder
from care_bridge.files import atomic_folder, sha256, writable_folder
from care_bridge.model_names import is_shipped, model_path

_SUFFIX = {"keras": "", "onnx": ".onnx"}
"""Of the file that a runtime opens; all others open a bundle."""


def bundle_of(model: str | os.PathLike[str]) -> Path:
    """The bundle of a path or name: itself, the one that lies in a model folder, or what is built of a model of the zoo.

    Raises
    ------
    InputError
        If a folder holds none, or several; if a name is almost one.
    """
    path = model_path(model)
    return built(path, "tf1") or find_bundle(path)


def built(folder: Path, runtime: str) -> Path | None:
    """What is built of a model of the zoo for a runtime.

    Parameters
    ----------
    folder : Path
        Of a model.
    runtime : str
        As for `opening.open_predictor`.

    Returns
    -------
    Path or None
        A bundle or .onnx file in the cache folder; None where the folder is none of the zoo's, holds such a file, or is
        what the runtime opens.
    """
    suffix = _SUFFIX.get(runtime, ".zip")
    if not suffix or not is_shipped(folder) or any(folder.glob(f"*{suffix}")):
        return None
    folder = folder.resolve()
    place = cache_folder() / "zoo" / f"{folder.name}-{_digest(folder)}" / suffix[1:]
    file = place / f"{folder.name}{suffix}"
    if not file.is_file():
        writable_folder(place.parent)
        # A probabilistic model's bundle of its means lies beside the whole one.
        with atomic_folder(place) as part:
            _write(folder, part / file.name)
    return file


def _write(folder: Path, file: Path) -> None:
    from care_bridge.training.startup import load_tensorflow

    load_tensorflow()
    if file.suffix == ".onnx":
        from care_bridge.export.onnx import write_onnx

        write_onnx(folder, file)
    else:
        from care_bridge.export.savedmodel import write_bundle

        write_bundle(folder, file, how_to=False)


def _digest(folder: Path) -> str:
    """Of all that decides the bytes: the model, what writes it, and what that stands on."""
    files = [*folder.glob("**/config.json"), *folder.glob("**/*.h5")]
    parts = [f"{file.relative_to(folder).as_posix()} {sha256(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join([*parts, *_writers()]).encode()).hexdigest()[:16]


@functools.cache
def _writers() -> tuple[str, ...]:
    # A checkout's code changes without its version.
    code = sorted((Path(__file__).parent / "export").glob("*.py"))
    return (__version__, *map(_version, ("keras", "tensorflow")), *map(sha256, code))


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # TensorFlow has other names on some systems
        return name
