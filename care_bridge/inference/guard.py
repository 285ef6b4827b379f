"""The guard of a model's folder: does an image look like what the model was trained on?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from care_bridge.config import OF_PAIRS, UNPAIRED, CareConfig, read_config
from care_bridge.defaults import KIND
from care_bridge.errors import InputError
from care_bridge.guard import GUARD, Familiar, Likeness, read_familiar, spectrum, tiles_of
from care_bridge.guard.tiles import MOST_TILES
from care_bridge.guard.value import LIMIT, SPECTRUM, STRUCTURE
from care_bridge.images import Image
from care_bridge.inference.keras import KerasNetwork, KerasPredictor
from care_bridge.inference.volumes import with_own_percentiles
from care_bridge.model_files import stated_noise
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.noise import Noise, NoiseRange, measure_channels
from care_bridge.predictor import PredictOptions, Predictor
from care_bridge.training.ensemble import load_trained
from care_bridge.training.familiar import encoder_of, spread_of
from care_bridge.training.folder import members_of, weights_hashes
from care_bridge.training.unet import parts_of_mean

MOST_FRAMES = 4


class Guard:
    """Holds images against what a model was trained on.

    Parameters
    ----------
    familiar : Familiar or None
        None where nothing is known: then nothing can be said.
    predictor : NetworkPredictor, optional
        Normalises images as the model's patches were; needed where something is known.
    networks : sequence of keras.Model
        One, or the members of an ensemble.
    config : CareConfig, optional
        Of the networks.
    why : str
        Why nothing is known.
    noise : NoiseRange
        The noise that it was trained with, as far as anybody knows.
    """

    def __init__(
        self,
        familiar: Familiar | None,
        *,
        predictor: NetworkPredictor | None = None,
        networks: Sequence[keras.Model] = (),
        config: CareConfig | None = None,
        why: str = "",
        noise: NoiseRange = NoiseRange(),  # noqa: B008 - a frozen value
    ) -> None:
        self.familiar, self.noise, self._why = familiar, noise, why
        if familiar is not None:
            if predictor is None or config is None or not networks:
                raise InputError(
                    "what is familiar is held against a network; give predictor, networks and config"
                )
            self._networks = tuple(networks)
            self._channels = config.n_channel_out
            self._predictor = predictor
            self._encoder = encoder_of(networks[0], config)

    @property
    def unknown(self) -> Likeness:
        """What is said of every image where nothing was stored."""
        return Likeness({}, unknown=self._why)

    def look(self, image: Image, measured: Sequence[Noise] | None = None) -> Likeness:
        """Hold an image against the training patches.

        Parameters
        ----------
        image : Image
            As for the model's predictor; of many frames (or planes, for a 2-D network) up to `MOST_FRAMES` are looked at.
        measured : sequence of Noise, optional
            The image's noise, one a channel, where it was measured already.

        Returns
        -------
        Likeness
            Unknown where the model's folder holds no statistics, or the image is smaller than a training patch.
        """
        familiar = self.familiar
        if familiar is None:
            return self.unknown
        noise = _unlike(image, self.noise, measured)
        stack = self._predictor.normalized_stack(image)
        size = familiar.patch_size
        chosen = np.unique(np.linspace(0, len(stack) - 1, min(len(stack), MOST_FRAMES)).astype(int))
        tiles = np.concatenate(
            [
                tiles_of(np.nan_to_num(stack[number]), size, most=-(-MOST_TILES // len(chosen)))
                for number in chosen
            ]
        )
        if not len(tiles):
            have = " x ".join(map(str, stack.shape[1:-1]))
            return Likeness(
                {},
                noise,
                f"it has {have} pixels, and was to be held against training patches of {' x '.join(map(str, size))}",
            )
        ratios = {}
        if STRUCTURE in familiar.groups:
            ratios[STRUCTURE] = familiar.groups[STRUCTURE].ratio(self._encoder(tiles))
        if SPECTRUM in familiar.groups:
            ratios[SPECTRUM] = familiar.groups[SPECTRUM].ratio(spectrum(tiles))
        if familiar.disagreement is not None and len(self._networks) > 1:
            limit = float(np.quantile(familiar.disagreement, LIMIT))
            spread = float(np.median(spread_of(self._networks, tiles, self._channels)))
            ratios["disagreement"] = spread / limit if limit > 0 else 0.0
        return Likeness(ratios, noise, tiles=len(tiles))


def _unlike(image: Image, trained: NoiseRange, measured: Sequence[Noise] | None) -> tuple[str, ...]:
    if trained == NoiseRange():
        return ()
    try:
        each = measured or measure_channels(image)
    except InputError:
        return ()  # too small, or nothing in it: said by whatever restores it
    return tuple(dict.fromkeys(sentence for one in each for sentence in trained.covers(one)))


def open_guard(path: str | os.PathLike[str], *, opened: Sequence[Predictor] = ()) -> Guard:
    """The guard of a model.

    Parameters
    ----------
    path : path
        A model's folder, ours or csbdeep's, or an ensemble's. Anything else has none, and then nothing can be known.
    opened : sequence of Predictor
        Of the same folder in Keras, with its best weights in float32, or of each of its members: their networks are asked.
        None: they are loaded.

    Returns
    -------
    Guard

    Raises
    ------
    InputError
        If what is stored is damaged.
    """
    folder = Path(path)
    noise = stated_noise(folder)
    if not (folder / "config.json").is_file():
        return Guard(None, why="only a model's folder holds statistics of its training patches", noise=noise)
    config = read_config(folder)
    familiar = read_familiar(folder)
    if familiar is None:
        reason = (
            f"the folder holds no statistics of its training patches ({GUARD}); where its training images are still there: "
            f"care-bridge guard {folder} SOURCE TARGET"
        )
        if config.kind != KIND or config.method not in (*OF_PAIRS, *UNPAIRED):
            reason = f"there are no statistics of training patches for kind {config.kind}, method {config.method!r}"
        return Guard(None, why=reason, noise=noise)
    if not familiar.is_of(weights_hashes(folder)):
        reason = (
            f"{GUARD} was written for other weights than those that lie beside it; write it anew: care-bridge guard "
            f"{folder} SOURCE TARGET"
        )
        return Guard(None, why=reason, noise=noise)
    networks = _networks_of(opened, members_of(config))
    if networks is None:
        loaded = load_trained(folder)
        networks = [one.network for one in loaded]
        predictor: NetworkPredictor = KerasPredictor(loaded[0])
    else:
        first = opened[0]
        assert isinstance(first, NetworkPredictor)
        predictor = first.with_options(with_own_percentiles(PredictOptions(), config))
    return Guard(
        familiar, predictor=predictor, networks=networks, config=config, noise=noise.filled(familiar.noise)
    )


def _networks_of(opened: Sequence[Predictor], members: Sequence[str]) -> list[keras.Model] | None:
    """The networks in predictors of a folder, one a member; None where they are not all there."""
    models = [
        one.network.model
        for one in opened
        if isinstance(one, NetworkPredictor) and isinstance(one.network, KerasNetwork)
    ]
    if len(models) != len(opened) or not models:
        return None
    if len(members) > 1 and len(models) == 1:
        return parts_of_mean(models[0], len(members))
    return models if len(models) == max(len(members), 1) else None
