"""Which method of training fits what a person has: pairs, two sets that are none, noisy images alone, clean ones alone."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from care_bridge.axes import move_axes
from care_bridge.config import Method
from care_bridge.evaluate.registration import SATURATED_SHARE, shift_between
from care_bridge.images import Image, only_channel, read_image
from care_bridge.noise import CLEAN_DB, Noise, measure_some
from care_bridge.patches.pairing import pair_files
from care_bridge.training.noisy import ROWS_DIFFER, mask_against, noisy_axes, noisy_files, sharing
from care_bridge.words import counted

SAME_PLACE = 0.3
"""Certainty of `shift_between` from which on two images show one place; real pairs had 0.95 to 0.98, others up to 0.25."""

NEARLY_GOOD_DB = 30.0
"""Images that are truths in published pairs have been seen to measure so little; see `noise.CLEAN_DB`."""

ALL_STRUCTURE = 0.8
"""Neighbours along both axes that share so much of what is called noise show structure, and no noise of pixels."""

FEW_PAIRS = 5
MOST_LOOKED_AT = 8

UNPAIRED = ("c2gan", "cyclegan", "cin-gan")
"""Methods for two sets that are no pairs, the safest first; those that are there are advised."""


@dataclass(frozen=True)
class MethodAdvice:
    """A method, why, and what to type.

    Attributes
    ----------
    have : {"pairs", "unpaired", "noisy", "clean"}
        What was found.
    method : str
        One of `config.Method`.
    reasons : tuple of str
    commands : tuple of str
        Lines to type, one after another.
    cautions : tuple of str
        What no method mends, or what to look at.
    """

    have: str
    method: str
    reasons: tuple[str, ...]
    commands: tuple[str, ...]
    cautions: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"method: {self.method}", *(f"  {reason}" for reason in self.reasons), "type:"]
        lines += [f"  {command}" for command in self.commands]
        return "\n".join(lines + [f"note: {caution}" for caution in self.cautions])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def advise_method(
    noisy: str | os.PathLike[str],
    clean: str | os.PathLike[str] | None = None,
    *,
    image_axes: str | None = None,
    channel: int | None = None,
) -> MethodAdvice:
    """Look at images, and say how to learn from them.

    Parameters
    ----------
    noisy : path
        Folder of images to be restored, or one image.
    clean : path, optional
        Folder of good images of the same kind, or one: of the same places, or of others.
    image_axes : str, optional
        Of the files, where they do not say.
    channel : int, optional
        The only one to look at, from 0.

    Returns
    -------
    MethodAdvice
        Names only methods that this version has.

    Raises
    ------
    InputError
        If there are no images, or they cannot be read.
    """
    files = noisy_files(noisy)
    found = _measured(files, image_axes, channel)
    n_dim = len(noisy_axes(noisy, image_axes=image_axes, channel=channel)[0])
    here = shlex.quote(os.fspath(noisy))
    cautions = _cautions(found, files)
    if clean is None:
        good = float(np.median([_decibel(one) for one in found]))
        if good >= CLEAN_DB:
            return _from_clean(here, good, cautions)
        if good >= NEARLY_GOOD_DB:
            cautions += (
                f"the images have {good:.0f} dB already; if they are what others should become, make pairs of them: "
                f"care-bridge simulate semisynthetic {here} --out pairs",
            )
        return _from_noisy(here, n_dim, found, cautions)
    there = shlex.quote(os.fspath(clean))
    truths = noisy_files(clean)
    cautions += _cautions(_measured(truths, image_axes, channel), truths)
    partners = [pair for pair in pair_files(files, truths) if pair[1] is not None]
    if len(files) == len(truths) == 1:
        partners = [(files[0], truths[0])]
    certainty = _certainty(partners, image_axes, channel)
    if certainty >= SAME_PLACE:
        return _from_pairs(here, there, len(partners), certainty, cautions)
    why = "no two names belong together"
    if partners:
        why = f"files of equal names show other places (their likeness is {certainty:.2f}; pairs reach 0.9)"
    return _from_unpaired(here, there, why, n_dim, found, cautions)


def _from_pairs(here: str, there: str, pairs: int, certainty: float, cautions: Sequence[str]) -> MethodAdvice:
    few = [
        f"{counted(pairs, 'pair')} {'is' if pairs == 1 else 'are'} few: what the network never saw it may draw wrongly; "
        "add pairs, or begin with a trained model (--start, care-bridge zoo list)"
    ]
    return MethodAdvice(
        "pairs",
        "care",
        (
            f"{counted(pairs, 'pair')} of the same places (likeness {certainty:.2f}): nothing teaches better than the truth",
        ),
        (f"care-bridge train {here} {there} --out MODEL",),
        (*cautions, *(few if pairs < FEW_PAIRS else [])),
    )


def _from_noisy(here: str, n_dim: int, found: Sequence[Noise], cautions: Sequence[str]) -> MethodAdvice:
    along = sharing(found)
    line = f"care-bridge train {here} --method n2v --out MODEL"
    notes = list(cautions)
    if any(max(one.rows, one.columns) >= ROWS_DIFFER for one in found):
        notes.append(
            "whole rows or columns are offset: noisy images alone do not tell that from structure, so it stays; take it "
            "out before, or train on pairs"
        )
    if along:
        shared = max(one.correlation or 0.0 for one in found)
        return MethodAdvice(
            "noisy",
            "n2v",
            (
                f"noisy images alone, and neighbouring pixels share their noise ({shared:.2f}): structN2V hides the "
                "neighbours with each pixel",
            ),
            (f"{line} --struct-mask {mask_against(along, n_dim)}",),
            tuple(notes),
        )
    return MethodAdvice(
        "noisy",
        "n2v",
        (
            "noisy images alone, and the noise of a pixel says nothing of its neighbours': Noise2Void learns from them",
        ),
        (line,),
        tuple(notes),
    )


def _from_clean(here: str, good: float, cautions: Sequence[str]) -> MethodAdvice:
    told = f"{good:.0f} dB" if math.isfinite(good) else "no noise of pixels"
    return MethodAdvice(
        "clean",
        "care",
        (f"the images are good already ({told}): made worse as a microscope does, they are pairs",),
        (
            f"care-bridge simulate semisynthetic {here} --out pairs",
            "care-bridge train pairs/source pairs/target --out MODEL",
        ),
        (
            *cautions,
            "what is simulated has to be like what is to be restored: look at the recipe (care-bridge simulate --show "
            "semisynthetic), and evaluate on real images",
        ),
    )


def _from_unpaired(
    here: str, there: str, why: str, n_dim: int, found: Sequence[Noise], cautions: Sequence[str]
) -> MethodAdvice:
    if not sharing(found) and not any(max(one.rows, one.columns) >= ROWS_DIFFER for one in found):
        alone = _from_noisy(here, n_dim, found, cautions)
        reasons = (f"{why}, so they are no pairs; the clean images are not needed:", *alone.reasons)
        return MethodAdvice("unpaired", alone.method, reasons, alone.commands, alone.cautions)
    method = next((name for name in UNPAIRED if name in get_args(Method)), None)
    shared = "noise that pixels or rows share, which noisy images alone do not tell from structure"
    if method is None:
        made = _from_clean(there, 0.0, cautions)
        reasons = (
            f"{why}, so they are no pairs; and the noisy ones have {shared}: pairs made of the clean images teach it, with "
            "a recipe that has such noise",
        )
        return MethodAdvice("unpaired", "care", reasons, made.commands, made.cautions)
    return MethodAdvice(
        "unpaired",
        method,
        (f"{why}, so they are no pairs; and the noisy ones have {shared}: {method} learns from both sets",),
        (f"care-bridge train {here} {there} --method {method} --out MODEL",),
        (
            *cautions,
            "such a network may draw what is not there: hold its results against real pairs before use",
        ),
    )


def _decibel(noise: Noise) -> float:
    shared = min(noise.correlation_x or 0.0, noise.correlation_y or 0.0)
    return math.inf if shared >= ALL_STRUCTURE else noise.decibel


def _measured(files: Sequence[Path], axes: str | None, channel: int | None) -> list[Noise]:
    return measure_some(len(files), lambda number: _read(files[number], axes, channel))


def _read(file: Path, axes: str | None, channel: int | None) -> Image:
    image = read_image(file, axes, mapped=True)
    return image if channel is None else only_channel(image, channel)


def _cautions(found: Sequence[Noise], files: Sequence[Path]) -> tuple[str, ...]:
    most = max((one.saturated_share for one in found), default=0.0)
    if most < SATURATED_SHARE:
        return ()
    where = files[0].parent.name if len(files) > 1 else files[0].name
    return (
        f"up to {100 * most:.2g} % of the pixels in {where!r} are cut off at the largest value: no method brings back what "
        "is above; expose shorter",
    )


def _certainty(pairs: Sequence[tuple[Path, Path | None]], axes: str | None, channel: int | None) -> float:
    """How surely files that may be pairs show the same places: the median of a few; 0 where there are none."""
    if not pairs:
        return 0.0
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_LOOKED_AT)).round().astype(int))
    return float(np.median([_likeness(pairs[number], axes, channel) for number in chosen]))


def _likeness(pair: tuple[Path, Path | None], axes: str | None, channel: int | None) -> float:
    here, there = (_plane(_read(file, axes, channel)) for file in pair if file is not None)
    return shift_between(here, there).certainty if here.shape == there.shape else 0.0


def _plane(image: Image) -> np.ndarray[Any, Any]:
    """The middle plane of the first channel and frame."""
    pixels = move_axes(image.data, image.axes, "STCZYX")
    return np.asarray(pixels[0, 0, 0, pixels.shape[3] // 2], np.float32)
