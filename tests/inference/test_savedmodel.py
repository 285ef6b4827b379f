"""Bundles run by TensorFlow 2."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest

from care_bridge.errors import InputError

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow")


def write(
    path,
    *,
    tag="serve",
    key="serving_default",
    shape=(None, None, None, 1),
    name="input:0",
    meta=None,
    folder="",
    features=1,
):
    """A bundle of a convolution and an addition, as TensorFlow 1 would read it."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = tf.Graph()
    with graph.as_default():
        fed = tf.compat.v1.placeholder(tf.float32, (None, None, None, 1), name="input")
        tf.identity(
            tf.nn.conv2d(fed, np.ones((1, 1, 1, features), np.float32), 1, "SAME") + 1.0, name="output"
        )
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append(tag)
    meta_graph.graph_def.CopyFrom(graph.as_graph_def())
    signature = meta_graph.signature_def[key]
    for side, tensor in ((signature.inputs["in"], name), (signature.outputs["out"], "output:0")):
        side.name, side.dtype = tensor, 1
        for size in shape:
            side.tensor_shape.dim.add(size=-1 if size is None else size)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}saved_model.pb", model.SerializeToString())
        if meta:
            archive.writestr("meta.json", meta)
    return path


@pytest.fixture
def network():
    from care_bridge.inference.savedmodel import SavedModelNetwork

    return SavedModelNetwork


def test_a_bundle_is_run_and_says_its_shape(network, tmp_path):
    plus_one = network(write(tmp_path / "a.zip"))
    assert plus_one.input_shape == plus_one.output_shape == (None, None, None, 1)
    result = plus_one(np.zeros((2, 3, 5, 1), np.float32))
    assert result.dtype == np.float32
    assert result.shape == (2, 3, 5, 1)
    assert (result == 1).all()
    assert str(plus_one.runtime) == f"tensorflow (tensorflow {tf.__version__})"


def test_a_size_in_the_signature_does_not_hold_back_the_graph(network, tmp_path):
    fixed = network(write(tmp_path / "a.zip", shape=(1, 8, 8, 1)))
    assert fixed.input_shape == (1, 8, 8, 1)
    assert fixed(np.zeros((1, 9, 4, 1), np.float32)).shape == (1, 9, 4, 1)


def test_a_tensor_name_without_number_is_understood(network, tmp_path):
    assert (
        network(write(tmp_path / "a.zip", name="input"))(np.zeros((1, 1, 1, 1), np.float32))[0, 0, 0, 0] == 1
    )


def test_what_csbdeep_writes_beside_the_graph_is_read(network, tmp_path):
    meta = '{"axes": "YXC", "axes_div_by": [4, 4, 1], "tile_overlap": [22, 22, 0]}'
    found = network(write(tmp_path / "a.zip", meta=meta))
    assert (found.size_multiple, found.halo) == ({"Y": 4, "X": 4}, {"Y": 22, "X": 22})
    assert network(write(tmp_path / "b.zip", meta='{"axes": "YX"}')).halo is None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"tag": "train"}, "no graph has the tag 'serve'; tags found: train"),
        ({"key": "predict"}, "no signature 'serving_default'; signatures found: predict"),
        ({"folder": "model/"}, "zip the content of that folder"),
        ({"name": "nothing:0"}, "cannot load it"),
    ],
)
def test_what_fiji_could_not_open_is_refused(network, tmp_path, made, message):
    with pytest.raises(InputError, match=message):
        network(write(tmp_path / "a.zip", **made))


def test_what_is_no_bundle_is_refused(network, tmp_path):
    with pytest.raises(InputError, match="no such bundle"):
        network(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="not a zip"):
        network(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "damaged.zip", "w") as archive:
        archive.writestr("saved_model.pb", b"\xff\xff\xff")
    with pytest.raises(InputError, match=r"saved_model\.pb"):
        network(tmp_path / "damaged.zip")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2, 2), "Shape must be rank 4 but is rank 2"),
        ((1, 2, 8, 8, 1), "Shape must be rank 4 but is rank 5"),
        # TensorFlow 2 takes it for two groups and, on some processors, overwrites memory; 1.x refuses it.
        ((1, 8, 8, 2), "input depth 2 does not fit a convolution of depth 1"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_with_a_reason_before_anything_is_computed(
    network, tmp_path, shape, reason
):
    with pytest.raises(InputError, match=rf"refuses a tensor of shape {re.escape(str(shape))}: {reason}"):
        network(write(tmp_path / "a.zip", features=2))(np.zeros(shape, np.float32))
