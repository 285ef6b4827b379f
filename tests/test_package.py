"""What is read of a BioImage.IO description: every key holds what it is for, or all complaints come at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from care_bridge.checking import check
from care_bridge.checking.package_files import load_tensor
from care_bridge.errors import InputError
from care_bridge.package import read_description

SAYS = {
    "inputs: 5\noutputs: x\nweights: abc": ["inputs", "outputs", "weights"],
    "weights: [a]\ninputs: [1]\noutputs: [2]": ["weights", "inputs.0", "outputs.0"],
    "weights: {onnx: model.onnx}": ["weights.onnx"],
    "weights: {onnx: {source: 5}}": ["weights.onnx.source"],
    "weights: {onnx: {source: x, sha256: 7}}": ["weights.onnx.sha256"],
    "inputs: [{axes: 5}]": ["inputs.0.axes"],
    "inputs: [{axes: [5]}]": ["inputs.0.axes"],
    "inputs: [{preprocessing: scale_range}]": ["inputs.0.preprocessing"],
    "inputs: [{preprocessing: [{id: x, kwargs: [1]}]}]": ["inputs.0.preprocessing.0.kwargs"],
    "inputs: [{test_tensor: a.npy}]": ["inputs.0.test_tensor"],
    "test_inputs: 3.5\ncovers: {}": ["test_inputs", "covers"],
    "inputs: 2020-13-45": ["inputs"],
    "inputs: &a [*a]": ["holds itself"],
    "inputs: !!set {a}": ["is not read"],
}


@pytest.mark.parametrize("written", SAYS, ids=lambda text: text.replace("\n", " "))
def test_a_value_of_another_kind_is_said_with_its_place(tmp_path: Path, written: str) -> None:
    (tmp_path / "rdf.yaml").write_text(f"type: model\n{written}\n")
    with pytest.raises(InputError) as caught:
        read_description(tmp_path, tmp_path)
    report = check(tmp_path)
    assert not report.accepted
    for place in SAYS[written]:
        assert place in str(caught.value)
        assert place in report.rules[-1].run


@pytest.mark.parametrize(
    "source", ["../a.npy", "/etc/passwd", "C:/a.npy", "a\\0b", "x" * 2000], ids=lambda s: s[:12]
)
def test_files_outside_of_a_package_are_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "rdf.yaml").write_text(f'type: model\nweights: {{onnx: {{source: "{source}"}}}}\n')
    with pytest.raises(
        InputError, match=r"weights\.onnx\.source: (this lies outside|no file has such a name)"
    ):
        read_description(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\x93NUMPY\x01\x00\x02\x00{}", b"no array"],
    ids=["empty", "zip", "header", "text"],
)
def test_a_tensor_that_is_none_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.npy is no \.npy file of numbers"):
        load_tensor(tmp_path / "t.npy")


def test_a_tensor_of_objects_or_larger_than_its_file_is_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "l.npy", np.zeros(4, np.float32))
    long = (tmp_path / "l.npy").read_bytes().replace(b"(4,), }       ", b"(400000000,), }")
    (tmp_path / "l.npy").write_bytes(long)
    for name in ("o", "l"):
        with pytest.raises(InputError, match=rf"{name}\.npy is no \.npy file"):
            load_tensor(tmp_path / f"{name}.npy")
