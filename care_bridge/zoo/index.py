"""The page of all models: before and after, figures, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.page import NOT_FOR_QUANTIFICATION, Mark, Page
from care_bridge.zoo.cards import INPUT, RESTORED, best_filter
from care_bridge.zoo.entry import COVER, FAILURE, FAMILIES, Entry


def index_page(entries: Sequence[Entry]) -> Page:
    """The page of these models, self-contained; the same each time."""
    page = Page(
        "Trained models of care_bridge",
        verdict=f"{len(entries)} models come with the package; a name stands for its model in every command."
        if entries
        else "No model is shipped yet.",
    )
    page.text(NOT_FOR_QUANTIFICATION, important=True)
    if entries:
        page.table([_row(entry) for entry in entries], caption="models", name="models")
    for entry in entries:
        _section(page, entry)
    return page


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.name,
        "restores": entry.restores,
        "dimensions": entry.dimensions,
        "noise": entry.noise,
        "structures": ", ".join(entry.structures),
        "licence": entry.licence,
    }


def _section(page: Page, entry: Entry) -> None:
    page.section(entry.name, f"{entry.title}. {entry.restores}")
    captions = entry.evaluation.get("pictures", {})
    for file, name, before, after in (
        (COVER, "cover", "input", "restored"),
        (FAILURE, "failure", "input", "restored (where it gains least)"),
    ):
        panels = _panels(entry.folder / file)
        if panels:
            page.slider(
                panels[0],
                panels[1],
                labels=(before, after),
                limits=(0.0, 255.0),
                caption=str(captions.get(name, "")),
                link=f"{entry.name} {name}",
            )
    for tests in entry.evaluation.get("sets", ()):
        page.table(_scores(tests), caption=f"{tests['name']}: {len(tests['images'])} images it never saw")
    page.settings(
        {
            "kind": f"{entry.family}: {FAMILIES.get(entry.family, '')}",
            "noise": f"{entry.noise}, neighbours correlated by {entry.neighbour_correlation[0]:g} to "
            f"{entry.neighbour_correlation[1]:g}",
            "sharpness": entry.sharpness,
            "not for": " ".join(entry.limits),
            "licence": entry.licence,
            "authors": ", ".join(entry.authors),
            "restore": f"care-bridge predict {entry.name} cell.tif --out restored/",
            "write for Fiji": f"care-bridge zoo build {entry.name} --out built/",
            "train again": f"make zoo-{entry.name} DATA=folder",
        },
        caption=entry.name,
    )


def _scores(tests: Mapping[str, Any]) -> list[dict[str, Any]]:
    means = tests["mean"]
    best = best_filter(means)
    rows = []
    for way, found in means.items():
        psnr: Any = f"{found['psnr']:.2f}"
        if way == RESTORED:
            rivals = [means[one]["psnr"] for one in (INPUT, best) if one is not None]
            psnr = Mark(psnr, found["psnr"] >= max(rivals))
        rows.append({"": way, "PSNR (dB)": psnr, "SSIM": f"{found['ssim']:.3f}"})
    return rows


def _panels(file: Path) -> list[NDArray[np.float32]]:
    """The three panels of a cover; none where there is no such file."""
    import PIL.Image

    if not file.is_file():
        return []
    with PIL.Image.open(file) as picture:
        pixels = np.asarray(picture.convert("L"), np.float32)
    return list(np.split(pixels[:, : pixels.shape[1] // 3 * 3], 3, axis=1))
