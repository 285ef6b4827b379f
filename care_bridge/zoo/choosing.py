"""Which model of the zoo fits an image: by its noise, dimensions, structure and sharpness; and why, or why none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.noise import Noise, measure_noise
from care_bridge.zoo.entry import Entry


@dataclass(frozen=True)
class Choice:
    """What was chosen for an image.

    Attributes
    ----------
    entry : Entry or None
        None where no model fits.
    measured : Noise
    why : str
        One sentence.
    possible : tuple of str
        Names of models that also change the structure, for those who ask for them by name.
    """

    entry: Entry | None
    measured: Noise
    why: str
    possible: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing should be done: it is good already, or holds nothing."""
        return self.measured.clean or not self.measured.bright > self.measured.background


def choose(entries: Sequence[Entry], image: Image, *, structure: str | None = None) -> Choice:
    """Choose a model for an image.

    Parameters
    ----------
    entries : sequence of Entry
        Of these only those that take noise away and leave the structure (family "denoise") are chosen.
    image : Image
    structure : str, optional
        What the image shows; a model for it is taken before one for any.

    Returns
    -------
    Choice

    Raises
    ------
    InputError
        If the image has several channels: each may want another model.
    """
    if image.size("C") > 1:
        raise InputError(
            f"{image.name or 'the image'} has {image.size('C')} channels, and each may want another model; name one: "
            "--channel 0"
        )
    measured = measure_noise(image)
    dimensions = "3D" if dict(zip(image.axes, image.shape, strict=True)).get("Z", 1) > 1 else "2D"
    possible = tuple(
        entry.name
        for entry in entries
        if entry.family != "denoise" and entry.dimensions == dimensions and _shows(entry, structure)
    )
    fitting, reasons = [], []
    for entry in entries:
        if entry.family != "denoise":
            continue
        against = _against(entry, measured, dimensions, structure)
        if against:
            reasons.append(f"not {entry.name}: {against}")
        else:
            fitting.append(entry)
    if not fitting:
        told = "; ".join(reasons) or "no model that only takes noise away is shipped yet"
        return Choice(None, measured, f"no model fits: {measured}; {told}", possible)
    best = min(fitting, key=lambda entry: _rank(entry, measured, structure))
    why = f"{best.name}: {measured}; it was trained for {best.noise} noise of {dimensions} images"
    if structure and structure in best.structures:
        why += f" of {structure}"
    if outside := best.noise_range.covers(measured):
        why += f"; mind that {'; '.join(outside)}"
    return Choice(best, measured, why, possible)


def _against(entry: Entry, measured: Noise, dimensions: str, structure: str | None) -> str:
    """Why a model does not fit; empty where it does."""
    if entry.dimensions != dimensions:
        return f"it is for {entry.dimensions} images"
    if other := entry.noise_range.kind(measured):
        return "; ".join(other)
    if not _shows(entry, structure):
        return f"it was trained on {', '.join(entry.structures)}"
    if entry.detail_px != (0.0, 0.0) and measured.detail_px is not None:
        finest, coarsest = entry.detail_px
        if not finest / 2 <= measured.detail_px <= coarsest * 2:
            return f"it was trained on details of {finest:g} to {coarsest:g} pixels"
    return ""


def _shows(entry: Entry, structure: str | None) -> bool:
    return structure is None or bool({"any", structure.lower()} & {one.lower() for one in entry.structures})


def _rank(entry: Entry, measured: Noise, structure: str | None) -> tuple[int, int, str]:
    """The lower the better: for this structure, for this noise, then by name."""
    own = structure is not None and structure.lower() in {one.lower() for one in entry.structures}
    # Unasked, a model of one structure stands behind those of any.
    first = 0 if own else 1 if "any" in entry.structures else 2
    wanted = "correlated" if measured.correlated else "white"
    return first, 0 if entry.noise == wanted else 1 if entry.noise == "any" else 2, entry.name
