"""Keras and HDF5 files of others, looked at before Keras or h5py reads what they point to: no code, no other files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import h5py

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder
from care_bridge.keras_growth import keras_growth
from care_bridge.text import parse, shown

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
"""Entries of a .keras file."""

_MOST_OBJECTS = 100_000

_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution2D
    Convolution3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense
    Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN ReLU
    RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
    SyncBatchNormalization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
# What layers hold: their models, first weights, penalties, types; calls of functions in Keras 2 are read by keras2.
_PARTS = """
    Functional Sequential Model Constant GlorotNormal GlorotUniform HeNormal HeUniform IdentityInitializer LecunNormal
    LecunUniform Ones OrthogonalInitializer Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    L1 L2 L1L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm DTypePolicy FloatDTypePolicy Policy TensorShape
    TFOpLambda SlicingOpLambda slice __tensor__ __keras_tensor__ __numpy__ __tuple__ __ellipsis__ __bytes__
"""
_KNOWN = frozenset((_LAYERS + _PARTS).split())
_OPERATIONS = ("keras.ops", "keras.src.ops.")
_CODE = {
    "Lambda": "whose code",
    "__lambda__": "whose code",
    "TFSMLayer": "whose graph of another file",
    "TorchModuleWrapper": "whose pickled Python",
    "JaxLayer": "whose code",
    "FlaxLayer": "whose code",
}


def check_keras_file(path: str | os.PathLike[str], known: Collection[str] = ()) -> None:
    """Look into a Keras file before Keras opens it.

    Parameters
    ----------
    path : path
        A .keras file or an .h5 file, a whole model or weights alone.
    known : collection of str
        Classes that the caller brings along, beside Keras' own.

    Raises
    ------
    InputError
        If its configuration holds code, a class that is not known to be Keras' own and to read no files, or layers of
        more weights or values than a file of its size needs; or as `check_hdf5`.
    """
    path = Path(path)
    if not zips.is_zip(path):
        config = check_hdf5(path)
    else:
        config = zips.read(path, CONFIG)
        if WEIGHTS in zips.names(path):
            with scratch_folder() as folder:
                check_hdf5(zips.unpack(path, folder, only=[WEIGHTS]) / WEIGHTS, name=f"{path}: its {WEIGHTS}")
    if config is None:
        return
    values = parse(config, "JSON", name=f"{str(path)!r}: its configuration")
    for entry in _with_class(values):
        _check_class(entry, set(known), path)
    if too_large := keras_growth(values, os.path.getsize(path)):
        raise InputError(f"{str(path)!r} does not open: {too_large}")


def _with_class(values: Any) -> Iterator[dict[str, Any]]:
    """Every mapping that names a class; how a model was compiled is not asked for, and not read by Keras."""
    stack = [values]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            stack += [inner for key, inner in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            stack += value


def _check_class(entry: dict[str, Any], known: set[str], path: Path) -> None:
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    config = entry.get("config")
    layer = config.get("name") if isinstance(config, dict) else None
    called = f"layer {shown(layer)}" if isinstance(layer, str) else "it"
    if (
        not isinstance(name, str)
        or not isinstance(module, str | None)
        or not isinstance(registered, str | None)
    ):
        raise InputError(
            f"{str(path)!r} does not open: {called} has the class {shown(name)}, which is no name"
        )
    if name in _CODE and name not in known:
        raise InputError(
            f"{str(path)!r} does not open: {called} is a {name}, {_CODE[name]} is not run from a file of others; build "
            "the model with a layer that does the same, e.g. Rescaling, Activation, Add, or, if you trust the file, load "
            "it in Python with safe_mode=False and hand the model to write_bundle"
        )
    if {name, registered} & known or str(registered).rpartition(">")[2] in known:
        return
    own = module is None or module == "builtins" or module.split(".")[0] in ("keras", "tf_keras")
    operation = str(module).startswith(_OPERATIONS) and name[:1].isupper() and name.isidentifier()
    if own and (operation or name in _KNOWN) and registered in (None, name, f"Custom>{name}"):
        return
    raise InputError(
        f"{str(path)!r} does not open: it holds {shown(name)}, which is not part of Keras or reads other files; in "
        "Python, load it with custom_objects and hand the model to write_bundle"
    )


def check_hdf5(path: str | os.PathLike[str], *, name: str | None = None) -> bytes | None:
    """Walk through an HDF5 file of weights without reading any; its `model_config`, None where there is none.

    Parameters
    ----------
    path : path
    name : str, optional
        What to call it in messages; None takes the path.

    Raises
    ------
    InputError
        If it is no HDF5 file or damaged; or if it holds links to other places or files, data that lie in other files,
        groups that hold themselves, data that are no numbers or text, or more than the file can hold.
    FileNotFoundError
        If there is none.
    """
    name = name or repr(str(path))
    try:
        with h5py.File(path, "r") as file:
            _walk(file, os.path.getsize(path), name)
            config = file.attrs.get("model_config")
    except (FileNotFoundError, InputError):
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        # h5py lets through whatever HDF5 says of a damaged file.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} does not open: it is not an HDF5 file of weights ({reason}); copy it again"
        ) from None
    if isinstance(config, str):
        return config.encode("utf-8", "surrogateescape")
    if config is None or isinstance(config, bytes):
        return config
    raise InputError(f"{name} has a model_config that is no text; save the model again")


def _walk(file: h5py.File, size: int, name: str) -> None:
    seen: set[int] = set()
    stack: list[h5py.Group] = [file]
    needed = 0
    while stack:
        group = stack.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise InputError(
                f"{name}: the group {shown(group.name)} is there twice or holds itself; save it again"
            )
        seen.add(address)
        for key in group:
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                what = getattr(link, "filename", None)
                where = f"the file {shown(what)}" if what else "another place"
                raise InputError(
                    f"{name}: {shown(key)} is a link to {where}; weights of others are read from their own file alone"
                )
            entry = group[key]
            if isinstance(entry, h5py.Group):
                stack.append(entry)
            elif isinstance(entry, h5py.Dataset):
                needed += _checked(entry, name)
            else:
                raise InputError(f"{name}: {shown(key)} is neither a group nor data; save it again")
        if len(seen) + len(stack) > _MOST_OBJECTS:
            raise InputError(f"{name} holds more than {_MOST_OBJECTS:,} groups; networks have some hundred")
    if needed > zips.FREE_OF_RATIO and needed > zips.MOST_RATIO * size:
        raise InputError(
            f"{name}: a file of {size / 1e6:.3g} MB that says it holds {needed / 1e9:.3g} GB of weights; it was not read"
        )


def _checked(data: h5py.Dataset, name: str) -> int:
    """Bytes that data take in memory."""
    called = f"{name}: the data {shown(data.name)}"
    properties = data.id.get_create_plist()
    if properties.get_external_count():
        raise InputError(
            f"{called} lie in another file; weights of others are read from their own file alone"
        )
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        raise InputError(
            f"{called} are put together of other files; weights of others are read from their own file alone"
        )
    if data.shape is None:
        raise InputError(f"{called} are empty; save it again")
    if data.dtype.kind not in "fiubSV" or data.dtype.hasobject:
        raise InputError(f"{called} are {data.dtype}, not numbers; save it again")
    return int(data.dtype.itemsize) * int(data.size)
