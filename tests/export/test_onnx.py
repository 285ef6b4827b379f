"""ONNX: written, named, and run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError

pytestmark = pytest.mark.tf
onnx = pytest.importorskip("onnx")


def dimensions(value: Any) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    "name", ["leaky_strided_transposed", "fixed_size_with_bilinear_sequential", "custom_layer"]
)
def test_models_of_anybody_give_in_onnx_runtime_what_they_give_here(
    name: str, foreign: ModuleType, noise: Any, tmp_path: Path
) -> None:
    from care_bridge.export.graph import freeze, run
    from care_bridge.export.onnx import write_onnx
    from care_bridge.inference.onnx import OnnxNetwork

    model = foreign.seeded(foreign.ACCEPTED[name]())
    network = OnnxNetwork(write_onnx(model, tmp_path / "net.onnx"))
    for size in (16, 24, 40):
        image = noise(size, (1, size, size + 4, 1))
        assert np.abs(network(image) - run(freeze(model), image)).max() <= 1e-5


@pytest.mark.parametrize(
    "settings", [{}, {"probabilistic": True}, {"axes": "ZYX", "unet_pool": (1, 2, 2), "unet_n_depth": 1}]
)
def test_fast_networks_give_in_onnx_runtime_what_they_give_here(
    settings: dict[str, Any], noise: Any, tmp_path: Path
) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.onnx import write_onnx
    from care_bridge.inference.onnx import OnnxNetwork
    from care_bridge.reach import measured_size_multiple
    from care_bridge.training.folder import CareModel
    from care_bridge.training.unet import build

    config = CareConfig(architecture="fast", unet_n_first=8, seed=1, **settings)
    model = build(config)
    network = OnnxNetwork(write_onnx(CareModel(config, model), tmp_path / "net.onnx"))
    space = config.axes.replace("C", "")
    assert measured_size_multiple(network, space) == {axis: config.size_multiple[axis] for axis in space}
    for size in (16, 48):
        image = noise(size, (1, *(size,) * len(space), 1))
        once, there = np.asarray(model(image)), network(image)
        assert np.abs(there - once).max() <= 1e-5
        if not config.probabilistic:
            assert np.abs(network(there) - np.asarray(model(once))).max() <= 5e-5


def test_tensors_and_free_dimensions_are_named(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.onnx import write_onnx
    from care_bridge.inference.onnx import OnnxNetwork

    path = write_onnx(tiny, tmp_path)
    assert path.name == "tiny_care.onnx"
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    (tensor,), (result,) = model.graph.input, model.graph.output
    assert (tensor.name, dimensions(tensor)) == ("input", ["batch", "y", "x", 1])
    assert (result.name, dimensions(result)) == ("output", ["batch", "y", "x", 1])
    network = OnnxNetwork(path)
    assert network.input_shape == (None, None, None, 1)
    with pytest.raises(InputError, match="takes shape"):
        network(np.zeros((1, 8, 8, 2), np.float32))


def test_an_opset_that_readers_lack_is_refused(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.onnx import write_onnx

    with pytest.raises(InputError, match="17"):
        write_onnx(tiny, tmp_path, opset=18)


def test_a_file_that_is_no_onnx_is_one_sentence(tmp_path: Path) -> None:
    from care_bridge.inference.onnx import OnnxNetwork

    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be loaded"):
        OnnxNetwork(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="not there"):
        OnnxNetwork(tmp_path / "missing.onnx")


def test_names_and_equal_constants_of_the_converter_leave_no_trace() -> None:
    # tf2onnx keeps one of several equal constants by chance, and its names count on: seen in two runs of one model.
    import onnx
    from onnx import helper, numpy_helper

    from care_bridge.export.onnx import _rename, _sort

    def graph(first: str, second: str, between: str) -> Any:
        nodes = [
            helper.make_node("Add", ["in:0", first], [between], name=f"{between}_node"),
            helper.make_node("Mul", [between, second], ["out:0"]),
        ]
        ends = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("in:0", "out:0")
        ]
        constants = [
            numpy_helper.from_array(np.ones(1, np.float32), name) for name in dict.fromkeys((first, second))
        ]
        model = helper.make_model(helper.make_graph(nodes, "care", ends[:1], ends[1:], constants))
        _sort(model)
        _rename(model, {"in:0": "input", "out:0": "output"})
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    assert graph("const_ends__12", "const_starts__3", "sum__7") == graph("one__99", "one__99", "add__100")


def test_a_model_exported_twice_is_the_same_file(tiny: Path, tmp_path: Path) -> None:
    from care_bridge.export.onnx import write_onnx

    one, other = (write_onnx(tiny, tmp_path / name).read_bytes() for name in ("one.onnx", "other.onnx"))
    assert one == other
