"""From a model here and a bundle there to a parity report: opens both sides, compares, closes them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from care_bridge.built import bundle_of
from care_bridge.bundle import read_meta
from care_bridge.comparing import parity
from care_bridge.comparing.conventions import Convention
from care_bridge.comparing.ladder import Rung, stepwise
from care_bridge.comparing.report import ParityReport
from care_bridge.comparing.where import geometry_of
from care_bridge.config import PMAX, PMIN, CareConfig
from care_bridge.defaults import APPLICATIONS, LEVEL, TF1_VERSION, TOLERANCE, TOLERANCE_REPEATED
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.model_files import (
    ISOTROPIC,
    UPSAMPLING_KINDS,
    factor_of,
    kind_of,
    stated_plugin_values,
    takes_grey_levels,
)
from care_bridge.model_names import model_path
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import FIJI
from care_bridge.opening import open_predictor, runtime_of
from care_bridge.predictor import PredictOptions, Predictor
from care_bridge.progress import Progress, silent

if TYPE_CHECKING:
    from care_bridge.config import Kind
    from care_bridge.plugin.options import PluginOptions


def compare(
    *,
    reference: Predictor | str | os.PathLike[str],
    candidate: Predictor | str | os.PathLike[str],
    image: Image,
    applications: int = APPLICATIONS,
    tolerance: float = TOLERANCE,
    tolerance_repeated: float = TOLERANCE_REPEATED,
    level: str = LEVEL,
    version: str = TF1_VERSION,
    options: PluginOptions | None = None,
    fiji: str | os.PathLike[str] | None = None,
    factor: float | None = None,
    climb: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """Do Python and Fiji give the same image?

    Parameters
    ----------
    reference : Predictor or path
        Python's side. A path is a model folder, a Keras file, or a bundle run by TensorFlow 2. A predictor with
        `PredictOptions(rule=FIJI)` follows the plugin in everything else too (sizes filled up, result not scaled
        back); one with another rule is compared as it is, and the report names the conventions that differ.
    candidate : Predictor or path
        Fiji's side. A path is a bundle, a model folder with one in it, or the name of a model of the zoo, opened at
        `level`.
    image : Image
    applications : int
        How many times in a row.
    tolerance, tolerance_repeated : float
        See `parity.compare`. For networks that take grey levels, as those of Noise2Void, in parts of the image's range
        (percentiles 2 to 99.8).
    level : str
        How much of Fiji is wanted: `best`, `fiji`, `imagej`, `tf1`, `onnx` or `emulation`.
    version : str
        TensorFlow 1.x of the levels `imagej` and `tf1`.
    options : PluginOptions, optional
        What one would type in the plugin's dialog. None takes what the bundle recommends, else its defaults;
        percentiles from a reference that names them. Python's side follows the same conventions, so that
        networks and arithmetic are compared, not conventions.
    fiji : path, optional
        A Fiji folder; None takes `CARE_BRIDGE_FIJI`.
    factor : float, optional
        Upsampling along Z of isotropic models, whose stacks both sides restore as "Run your IsoNet" does; None takes
        what either side states.
    climb : bool
        Also climb the ladder of `ladder.stepwise`, from the bare network to the second application.
    progress : Progress

    Returns
    -------
    ParityReport

    Raises
    ------
    InputError, NotInstalledError, WorkerError
        From opening and running the two sides.
    """
    from care_bridge.plugin.emulation import EmulatedPlugin

    if isinstance(reference, str | os.PathLike):
        reference = model_path(reference)
    if isinstance(candidate, str | os.PathLike):
        candidate = model_path(candidate)
    with ExitStack() as stack:
        if options is None:
            bundle = candidate if isinstance(candidate, str | os.PathLike) else None
            model = reference if isinstance(reference, str | os.PathLike) else None
            options = recommended_options(bundle, model=model, **_percentiles_of(reference))
        sides = [side for side in (reference, candidate) if isinstance(side, str | os.PathLike)]
        kind: Kind | None = ISOTROPIC if any(kind_of(side) == ISOTROPIC for side in sides) else None
        if kind and factor is None:
            factor = next(filter(None, map(factor_of, sides)), None)
        if isinstance(candidate, str | os.PathLike):
            candidate = open_predictor(
                candidate, level, options=options, version=version, fiji=fiji, kind=kind, factor=factor
            )
        stack.callback(candidate.close)
        raw = any(map(takes_grey_levels, sides)) or _has_own_scale(reference)
        unit = _range_of(image) if raw else 1.0
        if isinstance(reference, str | os.PathLike):
            if candidate.runtime.level == "onnx" and any(kind_of(side) in UPSAMPLING_KINDS for side in sides):
                reference = _with_more_planes(reference, options)
            else:
                reference = open_reference(reference, options, kind=kind, factor=factor)
        elif isinstance(reference, NetworkPredictor) and reference.options.rule is FIJI:
            reference = EmulatedPlugin(reference.network, options)
        here = _as_network_predictor(reference)
        geometry = None
        rungs: tuple[Rung, ...] = ()
        if here is not None and not here.lost_axis:
            geometry = geometry_of(
                image, options.tiles, space=here.space, halo=here.halo, size_multiple=here.size_multiple
            )
        if climb:
            if raw:
                raise InputError(
                    "the ladder (--stepwise) puts a number on each way of normalising, and this network takes grey levels "
                    "as they are; leave it out"
                )
            if here is None:
                raise InputError(
                    "the ladder needs the reference's network; give a model folder, a Keras file or a bundle"
                )
            rungs = stepwise(
                reference=here,
                candidate=candidate,
                image=image,
                tiles=options.tiles,
                pmin=options.percentileBottom,
                pmax=options.percentileTop,
                clip=options.clip,
                geometry=geometry,
                tolerance=tolerance,
                progress=progress,
            )
        return parity.compare(
            reference=reference,
            candidate=candidate,
            image=image,
            rule=None if raw else FIJI,
            unit=unit,
            geometry=geometry,
            rungs=rungs,
            more_conventions=lambda fed: _plugins_way(here, options, fed),
            applications=applications,
            tolerance=tolerance,
            tolerance_repeated=tolerance_repeated,
            progress=progress,
        )


def open_reference(
    path: str | os.PathLike[str],
    options: PluginOptions,
    *,
    kind: Kind | None = None,
    factor: float | None = None,
) -> Predictor:
    """Python's side: the model run by Keras (a bundle: by TensorFlow 2), following the plugin's conventions."""
    runtime = runtime_of(path)
    return open_predictor(path, "emulation", runtime=runtime, options=options, kind=kind, factor=factor)


def _with_more_planes(path: str | os.PathLike[str], options: PluginOptions) -> Predictor:
    """Python's side of a model that fills up stacks: our scripts do it as `predict` does, the plugin does not."""
    return open_predictor(
        path,
        runtime="keras",
        options=PredictOptions(
            rule=FIJI,
            pmin=options.percentileBottom,
            pmax=options.percentileTop,
            clip=options.clip,
            denormalize=False,
            # An isotropic model's stacks are filled up as csbdeep does, which the script follows there.
            tiles=None if kind_of(path) == ISOTROPIC else dataclasses.replace(options.tiles, n_tiles=1),
        ),
    )


PLUGINS_WAY = "the plugin's conventions"
"""Cause of a difference that vanishes when Python follows the plugin in everything at once."""


def _plugins_way(here: NetworkPredictor | None, options: PluginOptions, image: Image) -> Sequence[Convention]:
    from care_bridge.plugin.emulation import EmulatedPlugin

    if here is None:
        return ()
    words = (
        "follows the plugin in everything: nearest-rank percentiles over all channels, floor at zero, sizes filled up "
        "at the far end, result not scaled back (PredictOptions(rule=FIJI) in Python)"
    )
    return [Convention(PLUGINS_WAY, words, lambda: EmulatedPlugin(here.network, options).predict(image))]


def _has_own_scale(reference: object) -> bool:
    """Whether an opened predictor of a model folder has its scale in its network."""
    config = getattr(reference, "config", None)
    return isinstance(config, CareConfig) and config.own_scale is not None


def _range_of(image: Image) -> float:
    """From the lower to the upper percentile: what is one on the normalised scale."""
    low, high = np.percentile(image.data, (PMIN, PMAX))
    return float(high - low) if high > low else 1.0


def _percentiles_of(reference: Predictor | str | os.PathLike[str]) -> dict[str, float | None]:
    """The percentiles that a predictor with Fiji's rule was given; the dialog should hold the same."""
    options = None if isinstance(reference, str | os.PathLike) else reference.options
    if not isinstance(options, PredictOptions) or options.rule is not FIJI:
        return {}
    return {"percentileBottom": options.pmin, "percentileTop": options.pmax}


def _as_network_predictor(predictor: Predictor) -> NetworkPredictor | None:
    """The same network used the way of csbdeep; None where only images go in and out."""
    if isinstance(predictor, NetworkPredictor):
        return predictor
    return None if predictor.network is None else NetworkPredictor(predictor.network)


def recommended_options(
    bundle: str | os.PathLike[str] | None, *, model: str | os.PathLike[str] | None = None, **changes: Any
) -> PluginOptions:
    """The values that a bundle's meta.json tells people to type; the plugin's defaults where it tells none.

    Parameters
    ----------
    bundle : path, optional
        A bundle, a model folder with one in it, or the name of a model of the zoo.
    model : path, optional
        What the bundle was made of: its own percentiles are taken where the bundle tells none.
    **changes
        Options to set otherwise, under the plugin's own names; None changes nothing.

    Returns
    -------
    PluginOptions
    """
    from care_bridge.plugin.options import PluginOptions

    told = {} if model is None else stated_plugin_values(model_path(model))
    if bundle is not None:
        told |= read_meta(bundle_of(bundle)).fiji
    return PluginOptions.told(told, **changes)
