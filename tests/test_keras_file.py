"""Keras and HDF5 files of others: no code, no other files, nothing endless, before Keras opens them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.keras_file import check_hdf5, check_keras_file


def config(layer: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Functional", "config": {"name": "net", "layers": [layer]}}


def write_h5(path: Path, layer: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config(layer))
    return path


def write_keras(path: Path, layer: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config(layer)))
    return path


WRITERS = {".h5": write_h5, ".keras": write_keras}

GOOD = [
    {
        "class_name": "Conv2D",
        "config": {"name": "c", "kernel_initializer": {"class_name": "GlorotUniform", "config": {}}},
    },
    {"module": "keras.layers", "class_name": "ReLU", "registered_name": None, "config": {"name": "r"}},
    {
        "module": "keras.src.ops.numpy",
        "class_name": "Multiply",
        "registered_name": "Multiply",
        "config": {"name": "m"},
    },
    {
        "class_name": "TimeDistributed",
        "config": {"name": "t", "layer": {"class_name": "Conv2D", "config": {}}},
    },
]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("layer", GOOD, ids=lambda layer: layer["class_name"])
def test_keras_own_layers_are_opened(tmp_path: Path, suffix: str, layer: dict[str, Any]) -> None:
    check_keras_file(WRITERS[suffix](tmp_path / f"a{suffix}", layer))


LAMBDA = {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAA=", None, None]}}
BAD = {
    "a Lambda": (LAMBDA, "layer 'l' is a Lambda, whose code is not run"),
    "a nested Lambda": ({"class_name": "TimeDistributed", "config": {"layer": LAMBDA}}, "is a Lambda"),
    "code for an activation": (
        {
            "class_name": "Activation",
            "config": {"activation": {"class_name": "__lambda__", "config": {"code": "x"}}},
        },
        "is a __lambda__",
    ),
    "another file's graph": ({"class_name": "TFSMLayer", "config": {"filepath": "/tmp/x"}}, "is a TFSMLayer"),
    "a layer of others": ({"class_name": "Odd", "config": {}}, "holds 'Odd', which is not part of Keras"),
    "a registered layer": (
        {"module": "mine", "class_name": "Conv2D", "registered_name": "mine>Odd", "config": {}},
        "not part of Keras",
    ),
    "a known name of another module": (
        {"module": "os", "class_name": "Add", "config": {}},
        "not part of Keras",
    ),
    "a function of Keras": (
        {
            "module": "keras.utils",
            "class_name": "function",
            "config": "get_file",
            "registered_name": "get_file",
        },
        "holds 'function'",
    ),
    "a function among operations": (
        {"module": "keras.src.ops.core", "class_name": "get_file"},
        "holds 'get_file'",
    ),
    "a vocabulary in a file": (
        {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
        "StringLookup",
    ),
    "no name": ({"class_name": 5, "config": {}}, "which is no name"),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("what", BAD)
def test_code_and_classes_of_others_are_refused_before_keras_opens_the_file(
    tmp_path: Path, suffix: str, what: str
) -> None:
    layer, said = BAD[what]
    with pytest.raises(InputError, match=said) as caught:
        check_keras_file(WRITERS[suffix](tmp_path / f"a{suffix}", layer))
    assert "\n" not in str(caught.value)


def test_classes_that_the_caller_brings_are_opened(tmp_path: Path) -> None:
    layer = {"module": "mine", "class_name": "Odd", "registered_name": "mine>Odd", "config": {}}
    check_keras_file(write_keras(tmp_path / "a.keras", layer), {"Odd": object})


def _external_link(file: h5py.File) -> None:
    file["w"] = h5py.ExternalLink("/etc/other.h5", "/w")


def _soft_link(file: h5py.File) -> None:
    file["w"] = h5py.SoftLink("/other")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("w", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "w", (4,))
    file.create_virtual_dataset("w", layout)


def _loop(file: h5py.File) -> None:
    file.create_group("a")["b"] = file["/"]


def _null(file: h5py.File) -> None:
    file.create_dataset("w", data=h5py.Empty("f4"))


def _objects(file: h5py.File) -> None:
    file.create_dataset("w", (2,), h5py.string_dtype())


def _references(file: h5py.File) -> None:
    file.create_dataset("w", (2,), h5py.ref_dtype)


def _type(file: h5py.File) -> None:
    file["w"] = np.dtype("f4")


def _endless(file: h5py.File) -> None:
    file.create_dataset("w", (1 << 40,), "f4", chunks=(1 << 16,))


HDF5 = {
    _external_link: "is a link to the file '/etc/other.h5'",
    _soft_link: "is a link to another place",
    _external_storage: "'/w' lie in another file",
    _virtual: "are put together of other files",
    _loop: "is there twice or holds itself",
    _null: "are empty",
    _objects: "not numbers",
    _references: "not numbers",
    _type: "neither a group nor data",
    _endless: "says it holds .* GB of weights",
}


@pytest.mark.parametrize("make", HDF5, ids=lambda make: make.__name__[1:])
@pytest.mark.parametrize("packed", [False, True], ids=["alone", "in a .keras file"])
def test_hdf5_that_reads_other_files_or_has_no_end_is_refused(
    tmp_path: Path, make: Callable[[h5py.File], None], packed: bool
) -> None:
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        make(file)
    if packed:
        path = tmp_path / "a.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    with pytest.raises(InputError, match=HDF5[make]) as caught:
        check_keras_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)], ids=len)
def test_what_is_no_hdf5_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.h5").write_bytes(content)
    with pytest.raises(InputError, match="is not an HDF5 file of weights"):
        check_hdf5(tmp_path / "w.h5")


def _no_text(file: h5py.File) -> None:
    file.attrs["layer_names"] = np.array([b"\xff\xfe"])


def _no_names(file: h5py.File) -> None:
    file.attrs["layer_names"] = h5py.Empty("S1")


def _numbers(file: h5py.File) -> None:
    file.attrs["layer_names"] = 3


def _missing(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"c"]


def _a_group(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"c"]
    file.create_group("c").create_group("w")
    file["c"].attrs["weight_names"] = [b"w"]


def _data_for_a_layer(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"c"]
    file.create_dataset("c", data=[1.0])
    file["c"].attrs["weight_names"] = [b"w"]


@pytest.mark.parametrize(
    "make",
    [_no_text, _no_names, _numbers, _missing, _a_group, _data_for_a_layer],
    ids=lambda make: make.__name__[1:],
)
def test_weights_with_damaged_names_are_one_sentence(
    tmp_path: Path, make: Callable[[h5py.File], None]
) -> None:
    from care_bridge.training.folder import read_weights

    with h5py.File(tmp_path / "w.h5", "w") as file:
        make(file)
    with pytest.raises(
        InputError,
        match=r"w\.h5' .*(is not an HDF5 file|holds no Keras layers)",
    ):
        read_weights(tmp_path / "w.h5")
