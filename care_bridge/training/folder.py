"""Model folders: config.json and weights, in the layout that csbdeep reads and writes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.defaults import PRECISION, PRECISIONS
from care_bridge.errors import InputError
from care_bridge.files import atomic_file, sha256
from care_bridge.keras_file import check_hdf5
from care_bridge.text import shown
from care_bridge.training.unet import build, mean_of

MEMBERS = "members"
"""Key in the provenance of an ensemble's config.json: the names of its members' folders."""

WEIGHTS_BEST, WEIGHTS_LAST = "weights_best.h5", "weights_last.h5"


@dataclass(frozen=True, eq=False)
class CareModel:
    """A network with its settings.

    Attributes
    ----------
    config : CareConfig
    network : keras.Model
    path : Path, optional
        The folder it was read from; None when it is on no disk.
    """

    config: CareConfig
    network: keras.Model
    path: Path | None = None


def load_model(
    path: str | os.PathLike[str], *, weights: str | None = None, precision: str = PRECISION
) -> CareModel:
    """Open a model folder, ours or csbdeep's.

    Parameters
    ----------
    path : path
        A folder with config.json and weights; or an ensemble's folder, whose members are averaged.
    weights : str, optional
        File name of the weights in the folder. None takes the newest with `best` in its name, else the
        newest, as csbdeep does.
    precision : {"float32", "bfloat16"}
        What the network computes in.

    Returns
    -------
    CareModel
        Of an ensemble the average of its members.

    Raises
    ------
    InputError
        If the folder lacks its config or weights, the weights belong to another architecture, or the precision is
        unknown.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not known; use one of {', '.join(PRECISIONS)}")
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"no model folder at {str(folder)!r}; give one that holds config.json and weights_*.h5, or a "
            "name of `care-bridge zoo list`"
        )
    config = read_config(folder)
    members = members_of(config)
    if members:
        models = [load_model(folder / name, weights=weights, precision=precision) for name in members]
        network = mean_of(
            [model.network for model in models],
            probabilistic=config.probabilistic,
            temperature=config.temperature,
        )
        return CareModel(config, network, folder)
    network = build(config, precision=precision)
    load_weights(network, find_weights(folder, weights))
    return CareModel(config, network, folder)


def members_of(config: CareConfig) -> list[str]:
    """Names of the members' folders; empty for a single model.

    Raises
    ------
    InputError
        If they are no list of names of folders in the ensemble's own.
    """
    names = config.provenance.get(MEMBERS) or []
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        raise InputError(
            f"{MEMBERS} of this ensemble's config.json is {shown(names)}; it must be a list of the names of folders "
            "in its own"
        )
    return list(names)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def save_model(
    path: str | os.PathLike[str], config: CareConfig, network: keras.Model, *, weights: str = WEIGHTS_BEST
) -> CareModel:
    """Write config.json and weights into a folder; each file appears whole or not at all.

    Parameters
    ----------
    path : path
        Made when missing; other files in it stay.
    config : CareConfig
    network : keras.Model
        As `build(config)` gives it.
    weights : str
        File name of the weights.

    Returns
    -------
    CareModel
        The same network, with the folder as its path.
    """
    folder = Path(path)
    save_weights(network, folder / weights)
    write_config(folder, config)
    return CareModel(config, network, folder)


def save_weights(network: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write weights as csbdeep does: HDF5, a group a layer, in the network's order of layers."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = _names(layer.name for layer in network.layers)
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = keras.__version__.encode()
        for layer in network.layers:
            _write_group(file.create_group(layer.name), layer.weights)
        _write_group(file.create_group("top_level_model_weights"), [])
    # Through memory: HDF5 reports a full disk late and in its own words.
    with atomic_file(path) as part:
        part.write_bytes(content.getbuffer())


def read_weights(path: str | os.PathLike[str]) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and arrays of a weights file, in the order of the network that wrote it.

    Parameters
    ----------
    path : path
        HDF5 of csbdeep or Keras: weights alone, or a whole model.

    Raises
    ------
    InputError
        If the file is not there, is not HDF5, or holds no layers.
    """
    try:
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if not _attribute(root, "layer_names"):
                raise InputError(f"{str(path)!r} holds no Keras layers; weights_*.h5 of csbdeep are needed")
            return [
                (weight, _array(root[layer][weight]))
                for layer in _attribute(root, "layer_names")
                for weight in _attribute(root[layer], "weight_names")
            ]
    except FileNotFoundError:
        raise InputError(f"no weights at {str(path)!r}") from None
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        # h5py lets through whatever HDF5 says of names and types that do not fit.
        raise InputError(f"{str(path)!r} is not an HDF5 file of weights ({error}); copy it again") from None


def load_weights(network: keras.Model, path: str | os.PathLike[str]) -> None:
    """Fill a network from a weights file, by order: csbdeep's head layers have no lasting names.

    Raises
    ------
    InputError
        If the number or a shape of the weights differs; every difference is named.
    """
    stored = read_weights(path)
    wanted = network.weights
    problems = [
        f"{variable.path} has shape {tuple(variable.shape)} in the network, {array.shape} in the file"
        for variable, (_, array) in zip(wanted, stored, strict=False)
        if tuple(variable.shape) != array.shape
    ]
    if len(stored) != len(wanted):
        problems.insert(0, f"the network has {len(wanted)} weights, the file {len(stored)}")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise InputError(
            f"{str(path)!r} holds weights of another architecture than config.json says: {shown}; "
            "use the config.json that lay beside these weights"
        )
    broken = [name for name, array in stored if not np.isfinite(array).all()]
    if broken:
        raise InputError(f"{str(path)!r} holds NaN or infinity in {broken[0]}; its training went wrong")
    network.set_weights([array for _, array in stored])


def weights_in(path: str | os.PathLike[str]) -> list[Path]:
    """Weights files of a folder, newest first; what a killed process left half-written is none."""
    folder = Path(path)
    found = [file for file in (*folder.glob("*.h5"), *folder.glob("*.hdf5")) if not file.name.startswith(".")]
    return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)


def find_weights(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """The weights file of a model folder: `name`, or the newest with `best` in its name, or the newest.

    Raises
    ------
    InputError
        If it is not there.
    """
    folder = Path(path)
    found = weights_in(folder)
    if name is not None:
        if not (folder / name).is_file():
            there = ", ".join(sorted(file.name for file in found)) or "none"
            raise InputError(f"no weights {name!r} in {str(folder)!r}; there are: {there}")
        return folder / name
    if not found:
        raise InputError(
            f"no weights (*.h5) in {str(folder)!r}; train it first, or copy weights_best.h5 there"
        )
    return next((file for file in found if "best" in file.name), found[0])


def weights_hashes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """SHA-256 of the weights that are opened of a model's folder; of an ensemble's a member each.

    Raises
    ------
    InputError
        If the folder holds no model, or a member is missing.
    """
    folder = Path(path)
    names = members_of(read_config(folder))
    return tuple(sha256(find_weights(folder / name)) for name in names or ["."])


def _array(data: Any) -> NDArray[np.float32]:
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{data.name} is a group where weights are due")
    return np.asarray(data, np.float32)


def _write_group(group: h5py.Group, weights: list[Any]) -> None:
    # Paths, not names: the two weights of a nested model's layers would clash.
    group.attrs["weight_names"] = _names(weight.path for weight in weights)
    for weight in weights:
        group.create_dataset(weight.path, data=np.asarray(weight, np.float32))


def _names(names: Any) -> NDArray[np.bytes_]:
    return np.asarray([name.encode() for name in names] or np.empty(0, "S1"))


def _attribute(group: h5py.Group, name: str) -> list[str]:
    # Keras splits long lists into name0, name1, ...
    if name in group.attrs:
        values = list(group.attrs[name])
    else:
        parts = [key for key in group.attrs if key.startswith(name) and key[len(name) :].isdigit()]
        values = [
            value for key in sorted(parts, key=lambda k: int(k[len(name) :])) for value in group.attrs[key]
        ]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
