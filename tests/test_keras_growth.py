"""What a Keras configuration asks for is told before Keras makes it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.keras_file import check_keras_file
from care_bridge.keras_growth import keras_growth, least_weights


def _words(text: str) -> list[str]:
    return text.split()


WORDS = _words("""
    class_name config layers name inbound_nodes build_config input_shape keras_history args batch_shape shape filters units
    kernel_size strides padding size pool_size axis target_shape repeats output_dim equation output_shape groups layer
    shared_axes depth_multiplier height width n pad_width num_classes num_heads key_dim dilation_rate input_dim part
""")
CLASSES = _words("""
    InputLayer Conv2D Conv3DTranspose SeparableConv1D DepthwiseConv2D ConvLSTM2D Dense LSTM Embedding EinsumDense PReLU
    MultiHeadAttention MaxPooling2D UpSampling2D ZeroPadding2D Concatenate Reshape Flatten Tile OneHot Pad Resizing Add
    BatchNormalization Bidirectional Functional Sequential Nix
""")


# Weights that Keras 3.15.1 itself counts (count_params); what is told may be less, never more.
@pytest.mark.tf
@pytest.mark.parametrize(
    "name", ["convolutions", "flat", "joined", "inside", "recurrent", "attention", "shared", "tiled", "3d"]
)
def test_what_is_told_of_a_model_is_never_more_than_keras_makes(name: str) -> None:
    import keras
    from keras import layers as of

    image, up = of.Input((None, None, 3)), of.UpSampling2D(2)
    within = keras.Sequential([of.Input((None, None, 5)), of.Dense(7)])
    row = of.Input((9, 4))
    models = {
        "convolutions": lambda: keras.Sequential(
            [
                of.Input((None, None, 2)),
                of.Conv2D(8, 3),
                of.Conv2DTranspose(4, 2, strides=2),
                of.DepthwiseConv2D(3, depth_multiplier=2),
                of.SeparableConv2D(6, 3),
            ]
        ),
        "flat": lambda: keras.Sequential(
            [of.Input((32, 32, 2)), of.MaxPooling2D(2), of.Flatten(), of.Dense(10)]
        ),
        "joined": lambda: keras.Model(
            image, of.Conv2D(4, 1)(of.Concatenate()([image, of.Conv2D(5, 1)(image)]))
        ),
        "inside": lambda: keras.Model(image, of.Conv2D(4, 1)(within(of.Conv2D(5, 1)(image)))),
        "recurrent": lambda: keras.Sequential(
            [of.Input((9, 4)), of.Bidirectional(of.LSTM(5, return_sequences=True)), of.GRU(3), of.Dense(2)]
        ),
        "attention": lambda: keras.Model(row, of.MultiHeadAttention(4, 8)(row, row)),
        "shared": lambda: keras.Model(image, of.Conv2D(2, 3)(up(up(up(image))))),
        "tiled": lambda: keras.Model(image, of.Conv2D(2, 3)(keras.ops.tile(image, [1, 1, 1, 4]))),
        "3d": lambda: keras.Sequential(
            [of.Input((None, None, None, 1)), of.Conv3D(8, 3), of.UpSampling3D((1, 2, 2)), of.Conv3D(2, 1)]
        ),
    }
    model = models[name]()
    configuration = json.loads(model.to_json())
    told = least_weights(configuration)
    assert 0.2 * model.count_params() < told <= model.count_params()
    assert keras_growth(configuration, size=1) == ""


@pytest.mark.tf
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("layer", "key", "value", "told"),
    [
        ("wide", "filters", 200_000_000, r"layers take .* weights at least \(most of them 'wide'"),
        ("wide", "kernel_size", [30_000, 30_000], r"layers take .* weights at least \(most of them 'wide'"),
        ("up", "size", [1_000_000, 1_000_000], "makes .* values of the smallest image"),
    ],
)
def test_a_file_that_asks_for_more_than_it_holds_is_refused_before_keras_makes_it(
    suffix: str, layer: str, key: str, value: Any, told: str, tmp_path: Path
) -> None:
    import keras
    from keras import layers as of

    model = keras.Sequential(
        [
            of.Input((None, None, 1)),
            of.Conv2D(4, 3, name="wide"),
            of.UpSampling2D(2, name="up"),
            of.Conv2D(1, 3, name="last"),
        ]
    )
    sound = tmp_path / f"sound{suffix}"
    model.save(sound)
    check_keras_file(sound)

    def ask(configuration: dict[str, Any]) -> dict[str, Any]:
        for one in configuration["config"]["layers"]:
            if one["config"]["name"] == layer:
                one["config"][key] = value
        return configuration

    hostile = tmp_path / f"hostile{suffix}"
    if suffix == ".h5":
        hostile.write_bytes(sound.read_bytes())
        with h5py.File(hostile, "r+") as file:
            file.attrs["model_config"] = json.dumps(ask(json.loads(file.attrs["model_config"])))
    else:
        with zipfile.ZipFile(sound) as whole, zipfile.ZipFile(hostile, "w") as other:
            for name in whole.namelist():
                content = whole.read(name)
                other.writestr(
                    name, json.dumps(ask(json.loads(content))) if name == "config.json" else content
                )
    with pytest.raises(InputError, match=told):
        check_keras_file(hostile)


def anything() -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([*WORDS, "a", "b"])
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
        ),
        max_leaves=30,
    )


@given(
    kinds=st.lists(st.sampled_from(CLASSES), max_size=4),
    parts=st.lists(st.dictionaries(st.sampled_from(WORDS), anything(), max_size=6), min_size=4, max_size=4),
    odd=anything(),
)
def test_a_configuration_of_any_kind_is_no_fault_of_ours(
    kinds: list[str], parts: list[dict[str, Any]], odd: Any
) -> None:
    layers = [
        {"class_name": kind, "config": part, "name": "ab"[index % 2], **(part if index % 2 else {})}
        for index, (kind, part) in enumerate(zip(kinds, parts, strict=False))
    ]
    first = {
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, None, None, 2]},
        "inbound_nodes": odd,
    }
    for row in (layers, [first, *layers]):
        whole = {"class_name": "Sequential", "config": {"layers": row, "output_layers": odd}}
        assert isinstance(keras_growth(whole, 1), str)
    assert isinstance(keras_growth(odd, 1), str)
