"""Bundles that TensorFlow 1.x code saved from a session, as Noise2Void in Fiji does: with training, and on a scale of
their own.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.bundle import own_normalisation, read_meta
from care_bridge.checking import check
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.opening import open_network, open_network_predictor, open_predictor
from care_bridge.plugin.options import PluginOptions
from care_bridge.predictor import PredictOptions

pytestmark = [
    pytest.mark.tf,
    # What TensorFlow says of its own older interface.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MEAN, STD = 400.0, 100.0
STEP = {
    "spec": "de.csbdresden.n2v.predict.N2VPrediction::preprocess",
    "kwargs": {"mean": [MEAN], "stdDev": [STD]},
}


def saved_from_a_session(
    folder: Path, *, padding: str = "SAME", training: bool = True
) -> Callable[[Any], Any]:
    """A SavedModel with variables, their initialisers and an optimiser; gives what it computes, in NumPy."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.float32, (None, None, None, 1), name="input")
        kernel = v1.get_variable(
            "kernel", (3, 3, 1, 1), initializer=v1.glorot_uniform_initializer(seed=1), use_resource=False
        )
        output = v1.nn.conv2d(given, kernel, [1, 1, 1, 1], padding, name="out")
        if training:
            target = v1.placeholder(tf.float32, (None, 64, 64, 2), name="target")
            loss = tf.reduce_mean((output - target[..., :1]) ** 2)
            v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"input": given}, {"output": output})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, strip_default_attrs=True
        )
        builder.save()
        weights = session.run(kernel)[..., 0, 0]

    def expected(tensor: Any) -> Any:
        from scipy.ndimage import correlate

        return correlate(tensor[0, ..., 0], weights, mode="constant")[None, ..., None]

    return expected


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Callable[[Any], Any]]:
    """A bundle (zip) that brings its training along, and what it computes."""
    expected = saved_from_a_session(tmp_path / "saved")
    return Path(shutil.make_archive(str(tmp_path / "trained"), "zip", tmp_path / "saved")), expected


def with_beside(bundle: Path, name: str, content: Any) -> Path:
    """The bundle with one more file at its root."""
    import zipfile

    made = bundle.with_stem(f"{bundle.stem}_{Path(name).stem}")
    shutil.copy(bundle, made)
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr(name, json.dumps(content))
    return made


def test_a_bundle_with_its_training_in_it_runs_by_what_its_output_hangs_on(trained: Any) -> None:
    bundle, expected = trained
    tensor = np.random.default_rng(0).random((1, 20, 30, 1), np.float32)
    np.testing.assert_allclose(open_network(bundle)(tensor), expected(tensor), atol=1e-5)
    predictor = open_network_predictor(bundle)
    assert (predictor.size_multiple, predictor.halo) == ({"Y": 1, "X": 1}, {"Y": 1, "X": 1})


def test_initialisers_of_variables_are_no_randomness(trained: Any) -> None:
    from care_bridge.export.graph import lacking
    from care_bridge.inference.savedmodel import graph_before, graph_in

    bundle, _ = trained
    graph = graph_in(bundle.with_name("saved"))
    assert any("random" in problem for problem in lacking(graph, target="1.15.0"))
    assert lacking(graph_before(graph, "out:0"), target="1.15.0") == []


@pytest.mark.java
def test_a_bundle_with_its_training_in_it_is_accepted_and_runs_alike_in_1_x(trained: Any, tf1: Any) -> None:
    bundle, expected = trained
    report = check(bundle, sessions=tf1)
    assert report.accepted, str(report)
    odd = [rule.rule for rule in report.rules if rule.result != "passed"]
    assert odd == ["ONNX Runtime gives what TensorFlow gives"], str(report)  # others write none: not run
    tensor = np.random.default_rng(0).random((1, 20, 30, 1), np.float32)
    with open_network(bundle, runtime="tf1") as network:
        np.testing.assert_allclose(network(tensor), expected(tensor), atol=1e-5)


@pytest.mark.java
def test_a_network_that_gives_back_smaller_tiles_is_a_row(tf1: Any, tmp_path: Path) -> None:
    saved_from_a_session(tmp_path / "saved", padding="VALID", training=False)
    report = check(shutil.make_archive(str(tmp_path / "valid"), "zip", tmp_path / "saved"), sessions=tf1)
    assert not report.accepted
    assert "the network makes (62, 62) pixels of (64, 64)" in report.verdict
    (seams, _) = [rule for rule in report.rules if rule.rule.startswith("Tiles show no seams")]
    assert (seams.result, "smaller tiles" in seams.run) == ("failed", True)


# --- a mean and a standard deviation of its own


@pytest.mark.parametrize(
    "description",
    [
        {"prediction": {"preprocess": [STEP]}},
        {
            "inputs": [
                {"preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": {"mean": MEAN, "std": STD}}]}
            ]
        },
        {
            "inputs": [
                {
                    "preprocessing": [
                        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                        {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": [MEAN], "std": [STD]}},
                    ]
                }
            ]
        },
        {"means": ["400.0"], "stds": ["100.0"]},
        {"mean": 400, "std": 100},
    ],
)
def test_every_way_of_writing_a_mean_and_a_deviation_is_read(description: Any) -> None:
    told = own_normalisation(description, "model.yaml")
    assert told is not None
    assert (told.means, told.stds) == ((MEAN,), (STD,))
    assert str(told) == "mean 400 and standard deviation 100 (model.yaml)"


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        "text",
        {},
        {"inputs": {"a": 1}, "prediction": []},
        {"inputs": [{"preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}]}]},
        {"inputs": [{"preprocessing": [{"id": "scale_range", "kwargs": {"min_percentile": 3.0}}]}]},
        {"mean": "low", "std": 1},
        {"mean": [1, 2], "std": 1},
    ],
)
def test_what_states_none_states_none(description: Any) -> None:
    assert own_normalisation(description, "model.yaml") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.yaml", {"format_version": "0.2.0-csbdeep", "prediction": {"preprocess": [STEP]}}),
        ("meta.json", {"type": "N2V", "means": [str(MEAN)], "stds": [str(STD)]}),
    ],
)
def test_an_image_is_brought_to_the_scale_that_the_bundle_states_and_back(
    name: str, content: Any, trained: Any
) -> None:
    bundle, expected = trained
    own = with_beside(bundle, name, content)
    assert read_meta(own).normalisation is not None
    image = Image(np.random.default_rng(0).normal(MEAN, STD, (24, 32)).astype(np.float32), "YX")
    with pytest.warns(UserWarning, match=rf"{own.name} states its own mean 400 .*{name}.*not by percentiles"):
        predictor = open_predictor(own, runtime="tensorflow")
    scaled = expected((image.data[None, ..., None] - MEAN) / STD)
    # csbdeep's padding reflects; away from the border nothing of it is seen.
    found, wanted = predictor.predict(image).data, (scaled * STD + MEAN)[0, ..., 0]
    np.testing.assert_allclose(found[2:-2, 2:-2], wanted[2:-2, 2:-2], rtol=1e-4)
    options = PredictOptions(denormalize=False)
    with pytest.warns(UserWarning, match="states its own"):
        normalised = open_predictor(own, runtime="tensorflow", options=options).predict(image)
    np.testing.assert_allclose(normalised.data[2:-2, 2:-2], scaled[0, 2:-2, 2:-2, 0], atol=1e-4)


def test_percentiles_beside_a_scale_of_its_own_are_never_taken_in_silence(trained: Any) -> None:
    own = with_beside(trained[0], "model.yaml", {"prediction": {"preprocess": [STEP]}})
    with pytest.warns(UserWarning, match="percentiles give the network another scale"):
        open_predictor(own, runtime="tensorflow", options=PredictOptions(pmin=1.0, pmax=99.8))
    with pytest.warns(UserWarning, match="percentiles give the network another scale"):
        open_predictor(own, "emulation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_predictor(own, runtime="tensorflow", options=PredictOptions(rule=None))
        open_predictor(own, "emulation", options=PluginOptions(normalizeInput=False))


def test_a_mean_for_other_channels_than_the_network_has_is_refused(trained: Any) -> None:
    own = with_beside(trained[0], "meta.json", {"means": [1, 2], "stds": [1, 1]})
    with (
        pytest.warns(UserWarning, match="states its own"),
        pytest.raises(InputError, match="do not fit its 1 channels"),
    ):
        open_predictor(own, runtime="tensorflow")


def test_lines_for_fiji_leave_percentiles_out_where_the_bundle_has_its_own_scale(trained: Any) -> None:
    from care_bridge.macros.write import for_model

    own = with_beside(trained[0], "model.yaml", {"prediction": {"preprocess": [STEP]}})
    made = for_model(own)
    assert "normalizeinput=false" in made.line
    assert any("mean 400 and standard deviation 100" in note for note in made.notes)
    report = check(own, versions=())
    (rule,) = [rule for rule in report.rules if rule.rule == "Run your network normalises as it was trained"]
    assert rule.result == "warning"
