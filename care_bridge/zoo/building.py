"""What is made of a model of the zoo: bundle, ONNX file, package; the same bytes each time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from care_bridge import zips
from care_bridge.bundle import SAVED_MODEL, read_bundle
from care_bridge.errors import InputError
from care_bridge.files import sha256, writable_folder, write_text
from care_bridge.model_names import model_path
from care_bridge.zoo.entry import Entry, models

SUMS = "SHA256SUMS"
"""Beside what was built: what `sha256sum -c` reads."""

SAMPLE, TRUTH = "sample.tif", "sample_truth.tif"
"""A real image in a model's folder that its package shows and is tested with, and what it should become."""


@dataclass(frozen=True)
class Built:
    """What was written of one model.

    Attributes
    ----------
    name : str
    bundle, onnx, package : Path
    means : Path or None
        A probabilistic model's bundle of its means alone, which can be applied twice; None of others.
    completeness : float
        Of the package's metadata, 0-1, by the zoo's own formula.
    notes : tuple of str
        What stands in the package and should not be published.
    """

    name: str
    bundle: Path
    onnx: Path
    package: Path
    completeness: float
    notes: tuple[str, ...] = ()
    means: Path | None = None

    def lines(self) -> Iterator[str]:
        """What there is to say, a line each."""
        for path in (self.bundle, self.means, self.onnx, self.package):
            if path is not None:
                yield f"wrote {path}"
        yield f"{self.name}: completeness {self.completeness:.2f} by the model zoo's formula"
        yield from self.notes


def build_model(entry: Entry, out: str | os.PathLike[str]) -> Built:
    """Write the bundle for Fiji, the ONNX file and the BioImage.IO package of a model.

    Parameters
    ----------
    entry : Entry
    out : path
        A folder; gets one of the model's name.

    Returns
    -------
    Built

    Raises
    ------
    InputError
        If the model's card is not complete enough for a package.
    """
    folder = writable_folder(Path(out) / entry.name)
    from care_bridge.export.onnx import write_onnx
    from care_bridge.export.savedmodel import means_path, write_bundle

    # Without the text how to run it, which names this place.
    bundle = write_bundle(entry.folder, folder / f"{entry.name}.fiji.zip", how_to=False)
    onnx = write_onnx(entry.folder, folder / f"{entry.name}.onnx")
    package, completeness, notes = write_zoo_package(entry, folder / f"{entry.name}.bioimageio.zip")
    means = means_path(bundle) if entry.config.probabilistic else None
    built = Built(entry.name, bundle, onnx, package, completeness, notes, means)
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    write_text(folder / SUMS, "".join(f"{sha256(file)}  {file.name}\n" for file in files))
    return built


def write_zoo_package(entry: Entry, path: Path) -> tuple[Path, float, tuple[str, ...]]:
    """The BioImage.IO package alone; where it lies, its completeness and what should not be published in it."""
    from care_bridge.export.bioimageio import write_package

    sample, truth = entry.folder / SAMPLE, entry.folder / TRUTH
    made = write_package(
        entry.folder,
        path,
        metadata=package_card(entry),
        test_image=sample if sample.is_file() else None,
        ground_truth=truth if sample.is_file() and truth.is_file() else None,
        measure_cost=False,
    )
    return made.path, made.completeness, made.warnings


def package_card(entry: Entry) -> dict[str, Any]:
    """model.toml with what the folder's other files say: limits, structures, cost, quality on images it never saw."""
    card: dict[str, Any] = dict(entry.card)
    if entry.limits:
        card.setdefault("out_of_scope_use", " ".join(entry.limits))
    if entry.structures:
        card.setdefault("target_structure", list(entry.structures))
    card["care_bridge"] = {**_facts(entry), **card.get("care_bridge", {})}
    cost = entry.evaluation.get("cost")
    for key, value in (cost if isinstance(cost, Mapping) else {}).items():
        card.setdefault(key, value)
    if found := evaluations(entry):
        card.setdefault("evaluations", found)
    return card


def _facts(entry: Entry) -> dict[str, Any]:
    """What a model was trained for, so that others can choose it as `care-bridge restore` does."""
    found = {
        "zoo_name": entry.name,
        "restores": entry.restores,
        "family": entry.family,
        "dimensions": entry.dimensions,
        "noise": entry.noise,
        "neighbour_correlation": list(entry.neighbour_correlation),
        "photons": list(entry.photons),
        "structures": list(entry.structures),
        "sharpness": entry.sharpness,
        "licences_of_training_data": sorted({str(source.get("licence")) for source in entry.sources}),
        "sources": [
            ", ".join(str(source[key]) for key in ("name", "address", "licence") if source.get(key))
            for source in entry.sources
        ],
        "sha256": entry.hashes(),
        "measured": entry.summary,
    }
    return {key: value for key, value in found.items() if value}


def evaluations(entry: Entry) -> list[dict[str, Any]]:
    """What evaluation.json holds in the form of the model zoo, a data set each."""
    found = []
    for one in entry.evaluation.get("sets", ()):
        means = one["mean"]
        ways = list(means)
        best = max(
            (way for way in ways if way not in ("input", "restored")), key=lambda way: means[way]["psnr"]
        )
        found.append(
            {
                "dataset_id": _identifier(one["name"]),
                "dataset_source": one["source"],
                "dataset_role": "independent",
                "sample_count": len(one["images"]),
                "evaluation_factors": [_short(way) for way in ways],
                "evaluation_factors_long": ways,
                "metrics": ["PSNR", "SSIM"],
                "metrics_long": [
                    "peak signal-to-noise ratio in dB, after the best linear fit to the ground truth",
                    "structural similarity, Gaussian window of 1.5 pixels",
                ],
                "results": [[round(means[way][key], 4) for way in ways] for key in ("psnr", "ssim")],
                "results_summary": (
                    f"On {len(one['images'])} images that training never saw: PSNR {means['input']['psnr']:.2f} dB before "
                    f"and {means['restored']['psnr']:.2f} dB after restoration; best filter ({best}) "
                    f"{means[best]['psnr']:.2f} dB."
                ),
            }
        )
    return found


def _identifier(name: str) -> str:
    """A name as the model zoo's identifiers are written: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "images"


def _short(way: str) -> str:
    return way if len(way) <= 16 else way[:16]


def bundles_of(named: Sequence[str], folder: Path) -> list[Path]:
    """A bundle of each model that is named, for a Fiji.

    Parameters
    ----------
    named : sequence of str
        `zoo` is every model that comes with this package. Else a bundle (.zip), a folder of bundles, a model folder or
        the name of one of the zoo's models; of the last two a bundle is written.
    folder : Path
        Bundles that are written are put here.

    Returns
    -------
    list of Path
        A probabilistic model's bundle of its means is among them.

    Raises
    ------
    InputError
        If a name is none of these, or a folder holds no bundle.
    """
    from care_bridge.export.savedmodel import write_bundle

    found: dict[Path, None] = {}
    for name in _single(named):
        folders: list[Path] = []
        path = Path(name)
        if name == "zoo":
            folders = [entry.folder for entry in models()]
        elif path.is_file():
            read_bundle(path)
            found[path] = None
        elif path.is_dir() and not (path / "config.json").is_file():
            there = [file for file in sorted(path.glob("*.zip")) if SAVED_MODEL in zips.names(file)]
            if not there:
                raise InputError(f"--models {name!r}: no bundle (.zip for Fiji) lies in this folder")
            found |= dict.fromkeys(there)
        else:
            folders = [model_path(name)]
        for model in folders:
            target = folder / model.resolve().name
            target.mkdir()
            write_bundle(model, target, how_to=False)
            # A probabilistic model's bundle of its means lies beside it.
            found |= dict.fromkeys(sorted(target.glob("*.zip")))
    return list(found)


def _single(named: Sequence[str]) -> list[str]:
    """The names one by one: several may stand in one text, with commas, where that is no path."""
    found: list[str] = []
    for text in named:
        found += [text] if Path(text).exists() else [name.strip() for name in text.split(",")]
    return found
