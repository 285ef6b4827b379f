"""Fine-tuning: weights of another model as a start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import zips
from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder, sha256
from care_bridge.keras_file import check_keras_file
from care_bridge.model_names import model_path
from care_bridge.training.folder import find_weights, read_weights
from care_bridge.training.unet import BLOCKS, build

Named = Sequence[tuple[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Transfer:
    """Weights to start from.

    Attributes
    ----------
    weights : list of ndarray
        All weights of the new network, in its order.
    taken : tuple of str
        Names of those that came from the other model.
    fresh : tuple of str
        Names of those that did not fit and start at random, with both shapes.
    source : str
        Name of the folder, file or model of the zoo that they came from, without the folders above it: config.json
        travels, and a path would tell of one machine only.
    sha256 : str
        Of that file, or of the folder's file of weights; it tells two of one name apart.
    """

    weights: list[NDArray[np.float32]]
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    source: str
    sha256: str

    def __str__(self) -> str:
        text = f"{len(self.taken)} of {len(self.weights)} weights start from {self.source}"
        return f"{text}; at random: {'; '.join(self.fresh)}" if self.fresh else text

    def as_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "taken": list(self.taken),
            "fresh": list(self.fresh),
        }


def start_from(path: str | os.PathLike[str], config: CareConfig) -> Transfer:
    """Take over the weights of a model that fit a new network.

    Parameters
    ----------
    path : path
        A model folder (ours or csbdeep's), a file of weights (.h5, .keras), a BioImage.IO package (.zip) that
        holds one, or the name of a model of the zoo.
    config : CareConfig
        Of the new network; layers are matched by order where the number of weights agrees, else by name. A 2-D
        kernel becomes the middle plane of a 3-D one, the rest of which is 0: with no pooling
        along Z (`unet_pool` (1, 2, 2)) a 3-D network starts as the 2-D one applied to every plane.

    Raises
    ------
    InputError
        If there are no Keras weights at `path`, they are of the other architecture, or none fits.
    """
    found_at = model_path(path)
    stored = _stored(found_at)
    there = "fast" if any(BLOCKS in name.split("/") for name, _ in stored) else "care"
    if there != config.architecture:
        raise InputError(
            f"the weights of {str(path)!r} are of architecture={there!r} and cannot start one of "
            f"{config.architecture!r}, whose layers see other pixels; use --architecture {there}, or another start"
        )
    network = build(config)
    names = [variable.path for variable in network.weights]
    weights = [np.asarray(value) for value in network.get_weights()]
    # csbdeep's heads have passing names, so order comes first; another depth has other layers, known by name.
    by_name = {_plain(name): array for name, array in stored}
    taken, fresh = [], []
    for number, name in enumerate(names):
        found = stored[number][1] if len(stored) == len(names) else by_name.get(_plain(name))
        if found is not None:
            found = _along_z(found, weights[number].shape)
        if found is not None and found.shape == weights[number].shape:
            weights[number] = found.astype(np.float32)
            taken.append(name)
        else:
            seen = f"{found.shape} there" if found is not None else "not there"
            fresh.append(f"{name} ({weights[number].shape} here, {seen})")
    if not any(name.endswith("kernel") for name in taken):
        raise InputError(
            f"no weights of {str(path)!r} fit this network ({fresh[0]}, ...); use its settings: unet_n_depth, "
            "unet_n_first, unet_kern_size, axes"
        )
    file = find_weights(found_at) if found_at.is_dir() else found_at
    return Transfer(weights, tuple(taken), tuple(fresh), Path(os.path.abspath(found_at)).name, sha256(file))


def _along_z(kernel: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A 2-D kernel as the middle plane of a 3-D one that is 0 elsewhere, which then sees each plane by itself."""
    if kernel.ndim != 4 or kernel.shape != shape[1:]:
        return kernel
    stacked = np.zeros(shape, np.float32)
    stacked[shape[0] // 2] = kernel
    return stacked


def _plain(name: str) -> str:
    # Keras 2 wrote "layer/kernel:0", nested models put their own names in front.
    return "/".join(name.split(":", maxsplit=1)[0].split("/")[-2:])


def _stored(path: Path) -> Named:
    if path.is_dir():
        return read_weights(find_weights(path))
    if path.suffix in (".h5", ".hdf5"):
        return read_weights(path)
    if path.suffix == ".keras":
        return _of_keras(path)
    if zips.is_zip(path):
        return _of_package(path)
    if not path.exists():
        raise InputError(f"no model at {str(path)!r}; give a model folder, a file of weights or a package")
    raise InputError(f"{str(path)!r} is no model folder, .h5, .keras or package (.zip) with Keras weights")


def _of_keras(path: Path) -> Named:
    import keras

    check_keras_file(path)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{str(path)!r} does not open in Keras ({error})") from None
    return [
        (variable.path, np.asarray(value))
        for variable, value in zip(model.weights, model.get_weights(), strict=True)
    ]


def _of_package(path: Path) -> Named:
    found = sorted(name for name in zips.names(path) if name.endswith((".keras", ".h5", ".hdf5")))
    if not found:
        raise InputError(
            f"{str(path)!r} holds no .keras or .h5 weights; packages need keras_v3 or keras_hdf5 weights to "
            "be trained on, a Fiji bundle has none"
        )
    with scratch_folder() as folder:
        return _stored(zips.unpack(path, folder, only=found[:1]) / found[0])
