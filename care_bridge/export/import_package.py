"""The way back: a model folder from a package, to train on and to predict with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.bundle import own_normalisation
from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.export.source import open_source
from care_bridge.files import atomic_folder, scratch_folder
from care_bridge.package import (
    CONFIG,
    RDF,
    config_of_package,
    held_weights,
    read_description,
    unpack_package,
    weights_file,
)
from care_bridge.training.folder import WEIGHTS_BEST, load_weights, save_model
from care_bridge.training.unet import build


def import_package(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Make a model folder of a BioImage.IO package.

    Parameters
    ----------
    path : path
        The package of `bioimageio.write_package`, or one of CSBDeep's networks with its config.json
        attached: a
        zip, or an unpacked folder.
    out : path
        The folder; must not exist or be empty.

    Returns
    -------
    Path
        A folder that trains on and predicts: the weights are those that were exported, bit for bit.

    Raises
    ------
    InputError
        If it is no package, its network's settings are not in it, or its weights are not Keras' or are
        damaged.
    """
    path, out = Path(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{str(out)!r} exists and is not empty; choose another folder, so that no model is lost"
        )
    with scratch_folder() as name:
        root = unpack_package(path, Path(name))
        rdf = read_description(root, path)
        config = _config(root, path)
        weights = weights_file(root, rdf, "keras_hdf5")
        if weights is None:
            raise InputError(
                f"{path} holds no Keras weights (keras_hdf5), only: {held_weights(rdf)}; they cannot train on"
            )
        # A mean and deviation that the description states are not in the network.
        network = build(config, scaled=own_normalisation(rdf, RDF) is None)
        load_weights(network, weights)
        _check_same(network, weights)
        with atomic_folder(out) as part:
            save_model(part, config, network, weights=WEIGHTS_BEST)
    return out


def _config(root: Path, path: Path) -> CareConfig:
    config = config_of_package(root, path)
    if config is not None:
        return config
    if (root / CONFIG).is_file():
        raise InputError(
            f"{path} holds a network that is not CARE's; open its .keras file with keras.models.load_model"
        )
    raise InputError(
        f"{path} does not say how its network is built ({CONFIG} or config.json); it was not made here"
    )


def _check_same(network: Any, weights: Path) -> None:
    """The rebuilt network must compute what the stored one does, not only hold weights of equal shapes."""
    stored = open_source(weights).network
    shape = (1, *(16 if size is None else size for size in network.inputs[0].shape[1:]))
    image = np.random.default_rng(0).random(shape, np.float32)
    off = float(
        np.abs(np.asarray(stored(image, training=False)) - np.asarray(network(image, training=False))).max()
    )
    if off > 1e-6:
        raise InputError(
            f"{weights.name} computes something else than its settings say (difference {off:.2g}); the "
            "package is damaged or was put together by hand"
        )
