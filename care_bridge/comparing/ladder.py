"""The ladder: from the bare network to the second application, one convention a rung.

Each rung says how far the two sides are apart, both following Fiji, and what following csbdeep instead would change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from care_bridge.comparing.conventions import explain
from care_bridge.comparing.where import (
    NORMALIZATION,
    SHIFTED,
    Finding,
    Geometry,
    diagnose,
    geometry_of,
    residual,
)
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import FIJI, normalize
from care_bridge.predictor import HasVariants, PredictOptions, Predictor, mean_channels
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles


@dataclass(frozen=True, eq=False)
class Rung:
    """One step of the ladder.

    Attributes
    ----------
    title : str
        What was added at this step.
    difference : Finding
        Candidate - reference, both following Fiji's conventions: what the runtimes differ by.
    cost : Finding
        csbdeep's way - Fiji's way, both by the reference's network: what the convention changes.
    residual : ndarray
        Candidate - reference, in the order of the reference's axes.
    """

    title: str
    difference: Finding
    cost: Finding
    residual: NDArray[np.float64]


def stepwise(
    *,
    reference: NetworkPredictor,
    candidate: Predictor,
    image: Image,
    tiles: FijiTiles | None = None,
    pmin: float = 3.0,
    pmax: float = 99.8,
    clip: bool = False,
    geometry: Geometry | None = None,
    tolerance: float = 1e-5,
    progress: Progress = silent,
) -> tuple[Rung, ...]:
    """Climb from the bare network to the second application, one convention a rung.

    Parameters
    ----------
    reference : NetworkPredictor
        Python's network; its own options are csbdeep's side of each rung, apart from the scaling back.
    candidate : Predictor
        Fiji's side. The rungs that take its normalisation or tiles away need it to be a
        `predictor.HasVariants` and are left out otherwise: nothing is said of what did not run.
    image : Image
    tiles : FijiTiles, optional
        What the candidate is run with; None takes the plugin's defaults.
    pmin, pmax, clip
        The candidate's normalisation.
    geometry : Geometry, optional
        Where the candidate cuts; None works it out from `tiles`.
    tolerance : float
        Largest difference that is none, on the normalised scale.
    progress : Progress

    Returns
    -------
    tuple of Rung
        "network alone", "tiles", "normalisation", "second application, own result", "second application, same
        input", "second application, not normalised again".

    Raises
    ------
    InputError
        If the network projects: its ladder has no rungs.
    """
    tiles = tiles or FijiTiles()
    if reference.lost_axis:
        raise InputError("the ladder has no rungs for projection networks; compare the whole prediction")
    geometry = geometry or geometry_of(
        image, tiles, space=reference.space, halo=reference.halo, size_multiple=reference.size_multiple
    )
    fiji = PredictOptions(rule=FIJI, pmin=pmin, pmax=pmax, clip=clip, denormalize=False, tiles=tiles)
    sides = _Sides(reference, candidate, fiji, tiles)
    total = 6 if isinstance(candidate, HasVariants) else 3
    rungs: list[Rung] = []
    for rung in _climb(sides, image, _Judge(geometry, tolerance)):
        rungs.append(rung)
        progress(len(rungs), total, "comparing")
    return tuple(rungs)


@dataclass(frozen=True, eq=False)
class _Sides:
    """The same network here and there, with as much of the conventions as a rung wants."""

    reference: NetworkPredictor
    candidate: Predictor
    fiji: PredictOptions
    tiles: FijiTiles

    @property
    def here(self) -> NetworkPredictor:
        """Python following Fiji in everything."""
        return self.reference.with_options(self.fiji)

    @property
    def csbdeeps_way(self) -> NetworkPredictor:
        """The reference as it was given; csbdeep's defaults where it follows Fiji or nothing."""
        options = self.reference.options.replace(denormalize=False)
        if options.rule is None or options.rule is FIJI:
            options = PredictOptions(denormalize=False)
        return self.reference.with_options(options)

    def bare_here(self, tiles: FijiTiles | None) -> NetworkPredictor:
        """Python without normalisation."""
        return self.reference.with_options(PredictOptions(rule=None, denormalize=False, tiles=tiles))

    def there(self, *, normalized: bool, tiles: FijiTiles) -> Predictor:
        """Fiji's side; as it is where nothing can be chosen of it."""
        if isinstance(self.candidate, HasVariants):
            return self.candidate.variant(normalize=normalized, tiles=tiles)
        return self.candidate

    @property
    def one_tile(self) -> FijiTiles:
        multiple = max(self.reference.size_multiple.values())
        return FijiTiles(n_tiles=1, block_multiple=multiple, overlap=0)


@dataclass(frozen=True, eq=False)
class _Judge:
    """Makes rungs of results."""

    geometry: Geometry
    tolerance: float

    def rung(
        self,
        title: str,
        *,
        here: Image,
        there: Image,
        csbdeeps_way: Image,
        cut: bool = True,
        way: tuple[NetworkPredictor, Image] | None = None,
    ) -> Rung:
        """Compare both sides, and Fiji's way with csbdeep's.

        With `way`, what gave `here` of which image, a difference of normalisation is looked into by running it
        under other conventions.
        """
        geometry = self.geometry if cut else Geometry(halo_px=self.geometry.halo_px)
        difference = diagnose(here, there, geometry=geometry, tolerance=self.tolerance)
        if difference.cause in (NORMALIZATION, SHIFTED) and way is not None:
            difference = explain(way[0], there, way[1], geometry=geometry, tolerance=self.tolerance)
        cost = diagnose(here, csbdeeps_way, geometry=geometry, tolerance=self.tolerance)
        return Rung(title, difference, cost, residual(here, there))


def _climb(sides: _Sides, image: Image, judge: _Judge) -> Iterator[Rung]:
    if isinstance(sides.candidate, HasVariants):
        yield from _without_normalisation(sides, image, judge)
    here, there = sides.here, sides.there(normalized=True, tiles=sides.tiles)
    own_way = sides.csbdeeps_way
    first, second, once = here.predict(image), there.predict(image), own_way.predict(image)
    yield judge.rung("normalisation", here=first, there=second, csbdeeps_way=once, way=(here, image))

    means_first, means_second = mean_channels(first, like=image), mean_channels(second, like=image)
    again = here.predict(means_first)
    yield judge.rung(
        "second application, own result",
        here=again,
        there=there.predict(means_second),
        csbdeeps_way=own_way.predict(mean_channels(once, like=image)),
    )
    yield judge.rung(
        "second application, same input",
        here=again,
        there=there.predict(means_first),
        csbdeeps_way=own_way.predict(means_first),
    )
    if isinstance(sides.candidate, HasVariants):
        yield judge.rung(
            "second application, not normalised again",
            here=sides.bare_here(sides.tiles).predict(means_first),
            there=sides.there(normalized=False, tiles=sides.tiles).predict(means_first),
            csbdeeps_way=again,
        )


def _without_normalisation(sides: _Sides, image: Image, judge: _Judge) -> Iterator[Rung]:
    """The two lowest rungs: the image normalised once, here, and given to both networks."""
    fiji = sides.fiji
    data, _ = normalize(image.data, rule=FIJI, pmin=fiji.pmin, pmax=fiji.pmax, clip=fiji.clip)
    fed = image.replace(data=data)
    padded = sides.bare_here(None).predict(fed)
    yield judge.rung(
        "network alone",
        here=sides.bare_here(sides.one_tile).predict(fed),
        there=sides.there(normalized=False, tiles=sides.one_tile).predict(fed),
        csbdeeps_way=padded,
        cut=False,
    )
    yield judge.rung(
        "tiles",
        here=sides.bare_here(sides.tiles).predict(fed),
        there=sides.there(normalized=False, tiles=sides.tiles).predict(fed),
        csbdeeps_way=padded,
    )
