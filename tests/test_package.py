"""What is read of a BioImage.IO description: every key holds what it is for, or all complaints come at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from care_bridge.checking import check
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
