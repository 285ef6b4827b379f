"""What is used of other packages without their promise: each test says what to look at when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.tf

DESCRIPTION = "authors:\n- {name: A, github_user: nobody-that-is-known}\n"


def test_tensorflow_still_makes_constants_of_variables_and_knows_defaults() -> None:
    """Fails: look at care_bridge/export/tensorflow_private.py, and where TensorFlow moved these two."""
    import tensorflow as tf

    from care_bridge.export.tensorflow_private import op_defaults, with_constants

    variable = tf.Variable(3.0)
    traced = tf.function(lambda x: variable * x).get_concrete_function(tf.TensorSpec([], tf.float32))
    frozen = with_constants(traced)
    assert "VarHandleOp" not in {node.op for node in frozen.graph.as_graph_def().node}
    assert float(frozen(tf.constant(2.0))[0]) == 6.0
    assert dict(op_defaults("LeakyRelu"))["alpha"].f == pytest.approx(0.2)  # tensorflow/core/ops/nn_ops.cc
    assert list(op_defaults("an operation of somebody's own")) == []


def test_bioimageio_spec_still_takes_github_names_as_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails: look at `offline` in care_bridge/export/zoo_spec.py, and how bioimageio.spec checks github_user.

    As of bioimageio.spec 0.5.12: `_internal/field_validation.py`, `validate_github_user`.
    """
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("bioimageio.spec")
    from care_bridge.export.zoo_spec import offline

    asked: list[Any] = []

    def get(address: str, **_: Any) -> Any:
        asked.append(address)
        raise httpx.ConnectTimeout("no network here")

    monkeypatch.setattr(httpx, "get", get)
    rdf = tmp_path / "rdf.yaml"
    rdf.write_text(DESCRIPTION)
    with offline(rdf):
        from bioimageio.spec import ValidationContext
        from bioimageio.spec.generic.v0_3 import Maintainer

        with ValidationContext(perform_io_checks=True):
            Maintainer(name="A", github_user="nobody-that-is-known")
            assert asked == []
            # It does ask for others: else what `offline` does would be needless.
            Maintainer(name="A", github_user="somebody-else-again")
    assert asked == ["https://api.github.com/users/somebody-else-again"]


def test_bioimageio_spec_still_knows_format_0_5_and_writes_no_newer_one_than_was_looked_at() -> None:
    """Fails: compare what it saves with `widen` in care_bridge/export/zoo_spec.py, then move pyproject's bound."""
    spec = pytest.importorskip("bioimageio.spec")
    from care_bridge.export.zoo_spec import _MINOR

    versions = spec.get_resource_package_content, spec.model.ModelDescr.implemented_format_version
    assert versions[1].rpartition(".")[0] == _MINOR
    assert versions[1] in ("0.5.10", "0.5.11", "0.5.12")


def test_layers_are_found_on_every_floor() -> None:
    """As Keras' own `_flatten_layers`, which has no public name, found them (Keras 3.15)."""
    import keras

    from care_bridge.export.layers import every_layer

    class Held(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="held")
            self.pair = [keras.layers.Conv2D(1, 3, name="first"), {"a": keras.layers.ReLU(name="second")}]
            self._own = keras.layers.UpSampling2D(name="third")

        def call(self, tensor: Any) -> Any:
            return self._own(self.pair[1]["a"](self.pair[0](tensor)))

    inside = keras.Sequential([keras.Input((8, 8, 1)), Held()], name="inside")
    entry = keras.Input((8, 8, 1), name="entry")
    wrapped = keras.layers.TimeDistributed(keras.layers.Dense(1, name="dense"), name="wrapped")
    model = keras.Model(entry, wrapped(inside(entry)))
    found = [layer.name for layer in every_layer(model)]
    assert sorted(found) == ["dense", "entry", "first", "held", "inside", "second", "third", "wrapped"]
    assert found.index("inside") < found.index("held") < found.index("third")
