"""The card of a model: README.md, made of model.toml, the data sheet and what was measured, and of nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.page.pages import NOT_FOR_QUANTIFICATION
from care_bridge.zoo.entry import COVER, FAILURE, FAMILIES, README, Entry
from care_bridge.zoo.recipe import read_recipe

INPUT, RESTORED = "input", "restored"
"""What the image itself and the model's result are called among the ways that were measured."""


def write_card(entry: Entry) -> None:
    """Write README.md into a model's folder."""
    write_text(entry.folder / README, card_text(entry))


def card_text(entry: Entry) -> str:
    """README.md of a model; the same text each time.

    Raises
    ------
    InputError
        If evaluation.json is not what `care-bridge zoo card` writes.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("care_bridge", "templates"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pictures = entry.evaluation.get("pictures", {})
    try:
        sets = [_set(one) for one in entry.evaluation.get("sets", ())]
        worst = [line for one in entry.evaluation.get("sets", ()) for line in _worst(one)]
        text = environment.get_template("zoo_card.md.j2").render(
            entry=entry,
            family=FAMILIES.get(entry.family, ""),
            network=_network(entry),
            warning=NOT_FOR_QUANTIFICATION,
            cover=COVER if (entry.folder / COVER).is_file() else "",
            failure=FAILURE if (entry.folder / FAILURE).is_file() else "",
            captions={name: str(pictures.get(name, "")) for name in ("cover", "failure")},
            sets=sets,
            worst=worst,
            tuned=str(entry.evaluation.get("tuned", "")),
            sources=[{**_NOTHING, **source, "hashes": _hashes_of(source)} for source in entry.sources],
            hashes=entry.evaluation.get("hashes") or entry.hashes(),
            recipe=[f"care-bridge {' '.join(step)}" for step in read_recipe(entry.folder)],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(entry.folder)!r}: evaluation.json is not what `care-bridge zoo card` writes ({error!r}); measure again"
        ) from error
    return re.sub(r"\n{3,}", "\n\n", text)


def best_filter(means: Mapping[str, Mapping[str, float]]) -> str | None:
    """The way with the best PSNR beside the image and the model's result; None where there is no other."""
    others = [way for way in means if way not in (INPUT, RESTORED)]
    return max(others, key=lambda way: means[way]["psnr"], default=None)


_NOTHING = {"name": "no name", "address": "", "licence": "not said", "class": "not said", "credit": ""}


def _hashes_of(source: Mapping[str, Any]) -> list[str]:
    given = source.get("sha256", [])
    return [given] if isinstance(given, str) else [str(one) for one in given]


def _network(entry: Entry) -> str:
    config = entry.config
    fast = {"fast": ", at half the resolution (fast)", "resnet": ", a residual network"}.get(
        config.architecture, ""
    )
    return (
        f"{config.kind}{fast}, depth {config.unet_n_depth}, kernel {config.unet_kern_size}, {config.unet_n_first} "
        f"features at first; axes {config.axes}; percentiles {config.norm_pmin:g} and {config.norm_pmax:g}"
    )


def _set(one: Mapping[str, Any]) -> dict[str, Any]:
    means, images = one["mean"], one["images"]
    rows = []
    for way in means:
        better = sum(image["scores"][way]["psnr"] > image["scores"][INPUT]["psnr"] for image in images)
        rows.append(
            {
                "way": f"**{way}**" if way == RESTORED else way,
                "psnr": f"{means[way]['psnr']:.2f}",
                "ssim": f"{means[way]['ssim']:.3f}",
                "better": "-" if way == INPUT else f"{better} of {len(images)}",
            }
        )
    what = f"{one['what']} {one['source']}, licence {one['licence']}."
    return {"name": one["name"], "images": images, "rows": rows, "what": what.strip()}


def _worst(one: Mapping[str, Any]) -> list[str]:
    """A line for every test image on which the model is below its input or the best filter."""
    best = best_filter(one["mean"])
    lines = []
    for image in one["images"]:
        scores = {way: found["psnr"] for way, found in image["scores"].items()}
        for rival in (INPUT, best):
            if rival is not None and scores[RESTORED] < scores[rival]:
                lines.append(
                    f"On {image['name']} ({one['name']}) it is {scores[rival] - scores[RESTORED]:.1f} dB below "
                    f"{'the image as it was' if rival == INPUT else f'the {rival} filter'}."
                )
                break
    return lines
