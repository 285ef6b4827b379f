"""A model written down in the format that is wanted: what `care-bridge export` does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from care_bridge.bundle import read_onnx
from care_bridge.defaults import OLDEST_TF1
from care_bridge.errors import InputError
from care_bridge.model_names import model_path

SUFFIXES = {"fiji": ".zip", "onnx": ".onnx", "bioimageio": ".zip"}
"""What a file of each format ends in."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
    notes : tuple of str
        What a person should know or do next; a sentence or an item each.
    """

    path: Path
    notes: tuple[str, ...] = ()


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str = "fiji",
    oldest_tensorflow: str = OLDEST_TF1,
    pmin: float | None = None,
    pmax: float | None = None,
    metadata: str | os.PathLike[str] | None = None,
    test_image: str | os.PathLike[str] | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write a model for Fiji, ONNX Runtime or the model zoo.

    Parameters
    ----------
    model : path
        A model folder, a .keras or .h5 file, or the name of a model of the zoo, which needs `out`.
    out : path, optional
        A file, or a folder that exists; None writes beside the model.
    format : {"fiji", "onnx", "bioimageio"}
    oldest_tensorflow : str
        For Fiji: the oldest TensorFlow that must open it (`savedmodel.write_bundle`).
    pmin, pmax : float, optional
        For Fiji and the zoo: percentiles to normalise with, 0-100; None takes the model's own.
    metadata, test_image, ground_truth : path, optional
        For the zoo: see `bioimageio.write_package`.

    Returns
    -------
    Exported
        Where it lies and what to know about it.

    Raises
    ------
    InputError
        If the format is unknown, `out` is no name for it, or the model cannot be written so.
    """
    if format not in SUFFIXES:
        raise InputError(f"format={format!r} is none of {', '.join(SUFFIXES)}")
    named, model = model, model_path(model)
    if out is None and os.fspath(named) != str(model):
        raise InputError(
            f"{named!s} lies among the files of care_bridge, where nothing is written; say where it goes (--out)"
        )
    place = Path(out) if out is not None else (model if model.is_dir() else model.parent)
    if not place.is_dir() and place.suffix.lower() not in ("", SUFFIXES[format]):
        raise InputError(
            f"{str(place)!r}: {format} is written to a file ending in {SUFFIXES[format]}, or into a folder that exists"
        )
    if format == "fiji":
        from care_bridge.export.savedmodel import HOW_TO, write_bundle

        path = write_bundle(model, place, target=oldest_tensorflow, pmin=pmin, pmax=pmax)
        notes = [f"how to run it in Fiji: {path.with_name(HOW_TO)}"]
        if why := read_onnx(path).why_not:
            notes.append(f"without ONNX, so it needs TensorFlow 1.x in Fiji: {why}")
        return Exported(path, tuple(notes))
    if format == "onnx":
        from care_bridge.export.onnx import write_onnx

        return Exported(write_onnx(model, place))
    from care_bridge.export.bioimageio import write_package

    package = write_package(
        model,
        place,
        metadata=metadata,
        test_image=test_image,
        ground_truth=ground_truth,
        pmin=pmin,
        pmax=pmax,
    )
    notes = [*package.warnings, f"completeness {package.completeness:.2f} by the model zoo's formula"]
    if package.to_fill:
        notes.append("to fill in model.toml for more completeness:")
        notes += [f"  {line}" for line in package.to_fill]
    return Exported(package.path, tuple(notes))
