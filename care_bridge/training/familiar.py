"""What a network's encoder makes of the patches that it was trained on, kept for the guard of the model's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from care_bridge.config import OF_PAIRS, UNPAIRED, CareConfig
from care_bridge.defaults import KIND
from care_bridge.guard import Familiar, fit_group, spectrum
from care_bridge.guard.value import SPECTRUM, STRUCTURE, Features
from care_bridge.intervals import disagreement
from care_bridge.noise import NoiseRange
from care_bridge.training.batches import BatchSource, PatchSource

MOST_PATCHES = 384
MOST_PIXELS = 1 << 25
FEWEST_PATCHES = 8
"""Of fewer, nothing is known."""

_BATCH = 16

_COARSE = 4
"""D is taken at every fourth pixel of a row and of a column: its mean is wanted, and neighbours have nearly the same."""

Encoder = Callable[[NDArray[np.float32]], Features]


def encoder_of(network: keras.Model, config: CareConfig) -> Encoder:
    """Features of tiles by a network's own encoder: each level's last channels, their means and standard deviations.

    Parameters
    ----------
    network : keras.Model
        As `unet.build(config)` gives it, of kind CARE.
    config : CareConfig

    Returns
    -------
    callable
        From tiles, shape (n, [z,] y, x, channel), to features, shape (n, features).
    """
    names = [f"down_level_{level}_no_1" for level in range(config.unet_n_depth)] + ["middle_0"]
    if config.architecture == "resnet":
        names = ["first", *(f"down_{level}" for level in range(config.unet_n_depth))]
        names += [f"block_{number}" for number in range(config.resnet_n_blocks)][-1:]
    outputs = []
    for name in names:
        layer = network.get_layer(name).output
        axes = tuple(range(1, len(layer.shape) - 1))
        outputs += [keras.ops.mean(layer, axis=axes), keras.ops.std(layer, axis=axes)]
    encoder = keras.Model(network.inputs[0], keras.ops.concatenate(outputs, axis=-1))

    def features(tiles: NDArray[np.float32]) -> Features:
        found = [
            np.asarray(encoder(tiles[start : start + _BATCH], training=False), np.float64)
            for start in range(0, len(tiles), _BATCH)
        ]
        return np.concatenate(found)

    return features


def spread_of(networks: Sequence[keras.Model], tiles: NDArray[np.float32], n_channel_out: int) -> Features:
    """How far an ensemble's networks are apart on each tile: the mean over pixels of D, of networks without widths that of
    their means' standard deviation.
    """
    found = []
    for start in range(0, len(tiles), _BATCH):
        part = tiles[start : start + _BATCH]
        each = np.stack([np.asarray(one(part, training=False), np.float64) for one in networks])
        means, scales = each[..., :n_channel_out], each[..., n_channel_out:]
        if scales.shape[-1]:
            coarse = (Ellipsis, slice(None, None, _COARSE), slice(None, None, _COARSE), slice(None))
            apart = disagreement(means[coarse], np.maximum(scales[coarse], 1e-12))
        else:
            apart = means.std(axis=0)
        found.append(apart.reshape(len(part), -1).mean(axis=1))
    return np.concatenate(found).astype(np.float64)


def learn_familiar(
    networks: Sequence[keras.Model],
    config: CareConfig,
    training: PatchSource | BatchSource,
    validation: PatchSource,
    *,
    noise: NoiseRange = NoiseRange(),  # noqa: B008 - a frozen value
    weights: tuple[str, ...] = (),
) -> Familiar | None:
    """What is familiar to a trained network, or to an ensemble, whose first network's encoder is asked.

    Parameters
    ----------
    networks : sequence of keras.Model
        One, or the members.
    config : CareConfig
    training, validation
        What it was trained on.
    noise : NoiseRange
        Of the training sources.
    weights : tuple of str
        SHA-256 of the networks' files.

    Returns
    -------
    Familiar or None
        None for networks other than of kind CARE, whose patches are no pieces of the images that are restored, for methods
        other than `OF_PAIRS` and `UNPAIRED` (patches of n2v have blind spots), and where there are fewer patches than
        `FEWEST_PATCHES`.

    Notes
    -----
    Each patch is flipped and turned at random: what lies another way round is no other structure.
    """
    if config.kind != KIND or config.method not in (*OF_PAIRS, *UNPAIRED):
        return None
    if len(validation) == 0:
        return None
    pixels = int(np.prod(validation.batch(np.arange(1))[0].shape))
    most = max(4 * FEWEST_PATCHES, min(MOST_PATCHES, MOST_PIXELS // pixels))
    seen = _sources(training, config, most, seed=config.seed)
    held = _sources(validation, config, most, seed=config.seed + 1)
    if len(seen) < FEWEST_PATCHES:
        return None
    encoder = encoder_of(networks[0], config)
    groups = {
        STRUCTURE: fit_group(encoder(seen), encoder(held)),
        SPECTRUM: fit_group(spectrum(seen), spectrum(held)),
    }
    spread = np.sort(spread_of(networks, held, config.n_channel_out)) if len(networks) > 1 else None
    return Familiar(tuple(seen.shape[1:-1]), groups, noise, spread, weights)


def _sources(patches: Any, config: CareConfig, most: int, *, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    if isinstance(patches, BatchSource):
        # Of a step that is never trained on.
        source = patches.batch_at(1 << 30, size=most, seed=seed)[0]
    else:
        chosen = np.sort(random.permutation(len(patches))[:most])
        source = patches.batch(chosen)[0]
    return np.stack([_turned(one, config.axes, random) for one in source]).astype(np.float32)


def _turned(patch: NDArray[Any], axes: str, random: np.random.Generator) -> NDArray[Any]:
    y, x = axes.index("Y"), axes.index("X")
    turns = int(random.integers(4))
    turned = np.rot90(patch, turns if patch.shape[y] == patch.shape[x] else 2 * (turns % 2), (y, x))
    return np.flip(turned, x) if random.random() < 0.5 else turned
