"""Real files of Keras 2: opened, exported, and right in TensorFlow 1.12 and 1.15; or refused by layer and remedy."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError

pytestmark = pytest.mark.tf

FILES = Path(__file__).with_name("keras2")


@pytest.mark.java
@pytest.mark.parametrize("name", ["hard_sigmoid.h5", "arithmetic.keras", "nested.keras", "separable.h5"])
def test_a_model_of_keras_2_gives_in_tensorflow_1_what_keras_2_gave(
    name: str, tf1: Any, tmp_path: Path
) -> None:
    from care_bridge.export.savedmodel import write_bundle

    bundle = write_bundle(FILES / name, tmp_path / "net.zip", how_to=False)
    with np.load((FILES / name).with_suffix(".npz")) as recorded:
        image, expected = recorded["image"], recorded["output"]
    for session in tf1:
        with session.open(bundle) as network:
            assert np.abs(network(image) - expected).max() <= 1e-5 * max(1, np.ptp(expected))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("slicing.h5", "tf.__operators__.getitem.*SlicingOpLambda.*with a layer"),
        ("bilinear.h5", "smooth_up.*Keras 2.2.4 may place pixels.*nearest"),
    ],
)
def test_what_keras_3_cannot_do_alike_is_refused_by_layer_and_remedy(name: str, why: str) -> None:
    from care_bridge.export.source import open_source

    with pytest.raises(InputError, match=f"does not open: .*{why}"):
        open_source(FILES / name)


def test_a_lambda_in_a_file_of_keras_2_is_refused_by_its_name(tmp_path: Path) -> None:
    from care_bridge.export.source import open_source

    with (
        zipfile.ZipFile(FILES / "arithmetic.keras") as old,
        zipfile.ZipFile(tmp_path / "a.keras", "w") as new,
    ):
        for entry in old.namelist():
            content = old.read(entry)
            if entry == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1] |= {"class_name": "Lambda"}
                content = json.dumps(config).encode()
            new.writestr(entry, content)
    with pytest.raises(InputError, match=r"layer 'conv2d' is a Lambda.*build the model with a layer"):
        open_source(tmp_path / "a.keras")


def test_a_file_of_keras_2_that_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    from care_bridge.export.source import open_source

    (tmp_path / "a.h5").write_bytes((FILES / "separable.h5").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"a\.h5' does not open"):
        open_source(tmp_path / "a.h5")


def test_a_loop_is_refused_and_not_followed_for_ever() -> None:
    import keras

    from care_bridge.export.graph import freeze

    inputs = keras.Input((None, 16, 16, 1))
    looped = keras.layers.ConvLSTM2D(2, 3, padding="same", return_sequences=True, name="recurrent")(inputs)
    with pytest.raises(InputError, match=r"recurrent.*loops cannot be written down"):
        freeze(keras.Model(inputs, looped))


def test_channels_first_are_named_with_their_layer() -> None:
    import keras

    from care_bridge.export.graph import freeze

    inputs = keras.Input((1, None, None))
    layer = keras.layers.Conv2D(1, 3, padding="same", data_format="channels_first", name="first")
    with pytest.raises(InputError, match="'first' has channels first; rebuild it with channels last"):
        freeze(keras.Model(inputs, layer(inputs)))
