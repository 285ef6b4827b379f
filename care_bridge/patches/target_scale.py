"""Which scale the targets of a data set get: by what its pairs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from care_bridge.defaults import TargetScale
from care_bridge.errors import InputError
from care_bridge.patches.fitting import GreyFit
from care_bridge.patches.looking import Looked, check_pairs
from care_bridge.patches.pairs import ImagePair

LOOKED_AT = 32
"""Pairs of a data set that are looked at, evenly spread over it."""

SAME_UNIT = (0.5, 2.0)
"""Gains from target to source between which both are taken to be in one unit. An exposure or a camera gain that
differs is rarely nearer to 1, and a fit that is wrong by less (out-of-focus light, bleaching) hardly is further."""

SAME_OFFSET = 0.25
"""Largest difference of the black levels in one unit, as a share of the target's range."""

TOGETHER = 1.5
"""How far the gains of a data set in one unit may lie apart: 90th over 10th percentile of them."""

ALIKE = 0.5
"""Correlation (median) below which source and target are not taken to show the same structures."""


@dataclass(frozen=True)
class ChosenScale:
    """A scale for the targets, and why.

    Attributes
    ----------
    scale : {"source", "fitted", "own"}
    because : str
        A sentence without its full stop.
    """

    scale: TargetScale
    because: str


def choose_target_scale(
    pairs: Sequence[ImagePair], *, axes: str, patch_size: Sequence[int] | None = None, reduced: str = ""
) -> ChosenScale:
    """Whether targets are in their sources' unit, in another one, or show something else.

    Parameters
    ----------
    pairs : sequence of ImagePair
        Pairs with an `image` were written by ``care-bridge simulate``.
    axes : str
        Axes of the images without C.
    patch_size : sequence of int, optional
        That patches of these images are to have; None does not look whether they fit.
    reduced : str
        Axes that the targets lack.

    Returns
    -------
    ChosenScale
        "source" for pairs in one unit: those of ``simulate``, and those whose gain (`fitting.GreyFit`, median of up
        to `LOOKED_AT` pairs) lies within `SAME_UNIT` and whose black levels agree. "fitted" for other units.
        "own" where both hardly correlate, since no line then leads from one to the other.

    Raises
    ------
    InputError
        If the images do not go together, as `sample_patches` says it.
    """
    check_pairs(pairs, axes, tuple(patch_size or (1,) * len(axes)), reduced)
    fits = [fit for fit in _fits(pairs, axes, reduced) if not fit.constant]
    alike = float(np.median([fit.correlation for fit in fits])) if fits else 0.0
    rising = [fit for fit in fits if fit.gain > 0]
    if not rising or alike < ALIKE:
        return ChosenScale("own", f"source and target hardly agree (their correlation is {alike:.2f})")
    gains = [fit.gain for fit in rising]
    gain = float(np.median(gains))
    offset = float(np.median([_black(fit) for fit in rising]))
    least, most = np.percentile(gains, [10, 90])
    measured = f"the sources are {gain:.3g} times their targets"
    if any(one.source.size("C") != one.target.size("C") for one in pairs):
        return ChosenScale("fitted", "source and target have different channels")
    same = SAME_UNIT[0] <= gain <= SAME_UNIT[1] and most <= TOGETHER * least
    if same and all(pair.image for pair in pairs):
        return ChosenScale("source", f"the pairs were simulated, in one unit ({measured})")
    if same and abs(offset) <= SAME_OFFSET:
        return ChosenScale("source", f"source and target are in one unit ({measured})")
    if most > TOGETHER * least:
        measured += f", from {least:.3g} to {most:.3g}"
    elif SAME_UNIT[0] <= gain <= SAME_UNIT[1]:
        measured += f", with {100 * offset:.0f} % of the range between their black levels"
    return ChosenScale("fitted", f"source and target are in different units ({measured})")


def _fits(pairs: Sequence[ImagePair], axes: str, reduced: str) -> list[GreyFit]:
    found = []
    for index in np.unique(np.linspace(0, len(pairs) - 1, LOOKED_AT).astype(int)):
        try:
            looked = Looked(pairs[index], axes, (1,) * len(axes), reduced)
            found += [looked.fit(channel) for channel in range(pairs[index].target.size("C"))]
        except InputError:
            # Cutting patches says what is wrong, of all images at once.
            continue
    return found


def _black(fit: GreyFit) -> float:
    """The source's black level above the target's, as a share of the target's range; high levels follow the gain."""
    return (fit.gain * fit.low + fit.offset - fit.low) / (fit.gain * (fit.high - fit.low))
