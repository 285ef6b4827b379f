"""The plugin in NumPy against recordings of the real plugin, and against cases worked out by hand."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.normalize import NotFinitePixelsWarning
from care_bridge.plugin.emulation import EmulatedPlugin, run_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginFailure, PluginRefusal, plan
from care_bridge.predictor import Runtime, UnhintedNetwork, apply_repeatedly

SHARED = Path(os.environ.get("CARE_BRIDGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
RECORDED = SHARED / "fiji-recorded"
CASES = sorted(RECORDED.glob("cases*/*/case.json"))
TOLERANCE = 2e-5  # of the output's range, as the recordings' README says of other threads and TensorFlows
TILES_RUN = {"d02_default_33x70x65": (0, 11)}
"""Of recordings with many large tiles: which ones a network is run on. d02: 12 of 96 x 96 x 96, two seconds each."""

ONE_TILE = PluginOptions(nTiles=1, blockMultiple=4)


@functools.cache
def tensorflow_2(model: str):
    from care_bridge.inference.savedmodel import SavedModelNetwork

    return SavedModelNetwork(RECORDED / "models" / f"{model}.zip")


class OnSomeTiles(UnhintedNetwork):
    """A network that answers with NaN to all but some of its calls."""

    def __init__(self, network, numbers):
        self.network, self.numbers, self.calls = network, numbers, 0
        self.runtime, self.input_shape = network.runtime, network.input_shape
        self.output_shape = network.output_shape

    def __call__(self, tensor):
        self.calls += 1
        return self.network(tensor) if self.calls - 1 in self.numbers else np.full_like(tensor, np.nan)


def runs():
    for file in CASES:
        case = json.loads(file.read_text())
        for application in ("first", "second"):
            if application in case:
                name = f"{file.parent.parent.name.removeprefix('cases')}{file.parent.name}-{application}"
                yield pytest.param(file.parent, case, application, id=name)


def check_run(network, folder, case, application, *, nan_spreads_alike=True):
    """The emulation of one recorded application over a network."""
    run = case[application]
    options = PluginOptions.from_mapping(run["params"])
    first_file = "input2.npy" if (folder / "input2.npy").exists() else "output.npy"
    data = np.load(folder / ("input.npy" if application == "first" else first_file))
    if not run["output"]:
        with pytest.raises((PluginRefusal, PluginFailure)) as caught:
            run_plugin(network, data, run["in_axes"], options=options)
        said = [line for line in run["reason"] if "[ERROR]" in line]
        if said:
            assert isinstance(caught.value, PluginRefusal)
            assert said[-1].endswith(caught.value.reason)
        elif any("Index -1" in line for line in run["reason"]):
            assert run["reason"][-1].endswith(caught.value.reason)
        return
    expected = np.load(folder / ("output.npy" if application == "first" else "output2.npy"))
    numbers = TILES_RUN.get(folder.name)
    result = run_plugin(
        OnSomeTiles(network, numbers) if numbers else network, data, run["in_axes"], options=options
    )
    assert (result.axes, result.data.shape) == (run["out_axes"], tuple(run["out_shape"]))
    assert (result.name, result.data.dtype, result.plan.n_tiles) == ("result", np.float32, run["tiles"])
    if case["model"].startswith("coord"):
        np.testing.assert_array_equal(result.data, expected)
    finite = np.isfinite(expected) & np.isfinite(result.data)
    # Where NaN of the input spreads to depends on the vector instructions of TensorFlow's maximum: 4 of 1760
    # pixels in 1.15; in TensorFlow 2 on a processor with AMX all of them, since its kernels take NaN for 0 there
    # (as recorded with TF_ENABLE_ONEDNN_OPTS=0). Every other case must hold NaN in exactly the recorded pixels: none.
    if numbers:
        assert finite.mean() > 0.1
    else:
        has_nan = bool(np.isnan(data).any())
        if has_nan and not nan_spreads_alike:
            return
        allowed = 0.005 if has_nan else 0
        assert np.mean(np.isnan(result.data) != np.isnan(expected)) <= allowed
    span = np.ptp(expected[np.isfinite(expected)])
    np.testing.assert_allclose(
        result.data[finite], expected[finite], rtol=0, atol=TOLERANCE * max(span, 1e-30)
    )


@pytest.mark.tf
@pytest.mark.filterwarnings("ignore::care_bridge.normalize.NotFinitePixelsWarning")
@pytest.mark.parametrize(("folder", "case", "application"), list(runs()))
def test_recorded_runs_are_reproduced_by_tensorflow_2(folder, case, application):
    check_run(tensorflow_2(case["model"]), folder, case, application, nan_spreads_alike=False)


@pytest.fixture(scope="session")
def tensorflow_1(tf1_ready):
    """Networks of the recordings by (version, model), in one worker a version."""
    from care_bridge.java.tf1 import Tf1Session

    with Tf1Session("1.15.0") as new, Tf1Session("1.12.0") as old:
        sessions = {"1.15.0": new, "1.12.0": old}
        yield functools.cache(
            lambda version, model: sessions[version].open(RECORDED / "models" / f"{model}.zip")
        )


@pytest.mark.java
@pytest.mark.filterwarnings("ignore::care_bridge.normalize.NotFinitePixelsWarning")
@pytest.mark.parametrize(
    ("folder", "case", "application"), [run for run in runs() if run.values[0].name not in TILES_RUN]
)
def test_recorded_runs_are_reproduced_by_the_same_tensorflow(tensorflow_1, folder, case, application):
    check_run(tensorflow_1(case["tensorflow"], case["model"]), folder, case, application)


@pytest.mark.java
def test_through_tiles_is_the_same_as_tile_by_tile(shared, tensorflow_1):
    network = tensorflow_1("1.15.0", "u2d_k3")
    data = np.random.default_rng(0).random((61, 75)).astype(np.float32)
    options = PluginOptions(normalizeInput=False, nTiles=6, blockMultiple=4, overlap=24)
    result = run_plugin(network, data, "YX", options=options)
    layout, (rows, columns) = result.plan.layout, result.plan.layout.blocks[1::-1]
    for x, y, *_ in layout.positions():
        tile = data[np.ix_(layout.source(1, y), layout.source(0, x))]
        alone = network(tile[np.newaxis, :, :, np.newaxis])[0, 24 : 24 + rows, 24 : 24 + columns, 0]
        kept = result.data[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
        np.testing.assert_array_equal(kept, alone[: kept.shape[0], : kept.shape[1]])


@pytest.mark.tf
def test_recorded_runs_are_there(shared):
    assert len(CASES) >= 60


# ---- worked out by hand


class Toy(UnhintedNetwork):
    """A network in NumPy with a signature."""

    def __init__(self, function=lambda tensor: tensor, *, shape=(None, None, None, 1), out=None):
        self.function, self.input_shape, self.output_shape = function, shape, out or shape
        self.runtime = Runtime("numpy")
        self.seen = []

    def __call__(self, tensor):
        self.seen.append(tensor)
        return self.function(tensor)


FLAT, DEEP = (None, None, None, 1), (None, None, None, None, 1)


@pytest.mark.parametrize(
    ("axes", "shape", "network_shape", "fed", "out_axes", "out_shape"),
    [
        ("YX", (8, 12), FLAT, (1, 8, 12, 1), "YX", (8, 12)),
        ("XY", (12, 8), FLAT, (1, 8, 12, 1), "XY", (12, 8)),
        ("ZYX", (3, 8, 12), FLAT, (1, 8, 12, 1), "ZYX", (3, 8, 12)),
        ("TYX", (3, 8, 12), FLAT, (1, 8, 12, 1), "TYX", (3, 8, 12)),
        ("CYX", (2, 8, 12), (None, None, None, 2), (1, 8, 12, 2), "CYX", (2, 8, 12)),
        ("YXC", (8, 12, 2), (None, None, None, 2), (1, 8, 12, 2), "YXC", (8, 12, 2)),
        ("CYX", (1, 8, 12), FLAT, (1, 8, 12, 1), "YX", (8, 12)),
        ("ZYX", (4, 8, 12), DEEP, (1, 4, 8, 12, 1), "ZYX", (4, 8, 12)),
        ("TYX", (4, 8, 12), DEEP, (1, 4, 8, 12, 1), "TYX", (4, 8, 12)),
        ("TZYX", (3, 4, 8, 12), DEEP, (1, 4, 8, 12, 1), "TZYX", (3, 4, 8, 12)),
        ("YX", (8, 12), DEEP, (1, 4, 8, 12, 1), "YX", (8, 12)),
        ("??", (8, 12), FLAT, (1, 8, 12, 1), "YX", (8, 12)),
        ("???", (3, 8, 12), FLAT, (1, 8, 12, 1), "ZYX", (3, 8, 12)),
        ("SYX", (3, 8, 12), FLAT, (1, 8, 12, 1), "ZYX", (3, 8, 12)),
    ],
)
def test_axes_go_to_the_network_and_back(axes, shape, network_shape, fed, out_axes, out_shape):
    network = Toy(shape=network_shape)
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    result = run_plugin(network, data, axes, options=ONE_TILE.replace(normalizeInput=False))
    assert network.seen[0].shape == fed
    assert (result.axes, result.data.shape) == (out_axes, out_shape)
    np.testing.assert_array_equal(result.data, data.reshape(out_shape))


def test_a_new_channel_comes_last_in_fijis_order():
    network = Toy(lambda x: np.concatenate([x, -x], -1), out=(None, None, None, 2))
    result = run_plugin(network, np.ones((3, 8, 12)), "ZYX", options=ONE_TILE.replace(normalizeInput=False))
    assert (result.axes, result.data.shape) == ("CZYX", (2, 3, 8, 12))
    assert (result.data[1] == -1).all()


@pytest.mark.parametrize(
    ("axes", "shape", "network_shape", "reason"),
    [
        ("CYX", (3, 8, 8), FLAT, "Input axis of type Channel should have size 1 but has size 3"),
        ("YX", (8, 8), (None, None, None, 3), "Input should have axis of type Channel and size 3"),
        ("TZYX", (2, 2, 8, 8), FLAT, "Network is meant for 2D images"),
        ("ZYX", (4, 8, 8), (1, None, None, 1), "Input axis of type Z should have size 1 but has size 4"),
        ("???", (3, 8, 8), (None, None, None, 3), "Input should have axis of type Channel and size 3"),
    ],
)
def test_refusals_say_what_the_plugin_says(axes, shape, network_shape, reason):
    with pytest.raises(PluginRefusal, match=reason):
        run_plugin(Toy(shape=network_shape), np.ones(shape), axes)


def test_two_channels_into_three_are_not_refused_but_fail():
    def network(tensor):
        raise ValueError("input depth must be evenly divisible by filter depth: 2 vs 3")

    with pytest.raises(PluginFailure, match="2 vs 3"):
        run_plugin(Toy(network, shape=(None, None, None, 3)), np.ones((2, 8, 8)), "CYX")


@pytest.mark.parametrize("axes", ["TZYX", "TCYX", "ZCYX", "TZCYX"])
def test_a_single_position_before_a_longer_axis_fails(axes):
    shape = (3, *(1,) * (len(axes) - 3), 8, 8)
    with pytest.raises(PluginFailure, match="Index -1 out of bounds for length"):
        run_plugin(Toy(), np.ones(shape), axes)


def test_a_row_of_pixels_is_no_image():
    with pytest.raises(PluginFailure, match="Index -1"):
        run_plugin(Toy(), np.ones((44, 1)), "YX")


@pytest.mark.parametrize("shape", [(None, None, 1), (None,) * 5 + (1,), None])
def test_networks_of_other_ranks_fail(shape):
    network = Toy()
    network.input_shape = network.output_shape = shape
    with pytest.raises(PluginFailure, match="NullPointerException"):
        run_plugin(network, np.ones((8, 8)), "YX")


def test_shrinking_networks_give_half_an_image_and_its_mirror():
    half = Toy(lambda x: x[:, ::2, ::2])
    options = ONE_TILE.replace(normalizeInput=False)
    data = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    result = run_plugin(half, data, "YX", options=options)
    small = data[::2, ::2]
    np.testing.assert_array_equal(result.data, np.pad(small, ((0, 4), (0, 4)), mode="symmetric"))
    with pytest.raises(PluginFailure, match="by zero"):
        # tiles of 4 with margins of 2: 8 become 4, and 4 are cut off
        run_plugin(half, data, "YX", options=options.replace(nTiles=4, overlap=2))
    with pytest.raises(PluginFailure, match="IndexOutOfBoundsException"):
        # tiles of 4 with margins of 4: 12 become 6, and 8 are cut off (CSBDeep 0.6.0 with downscale2.zip)
        run_plugin(half, data, "YX", options=options.replace(nTiles=4, overlap=4))


def test_growing_networks_are_cropped():
    twice = Toy(lambda x: x.repeat(2, 1).repeat(2, 2))
    data = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    result = run_plugin(twice, data, "YX", options=ONE_TILE.replace(normalizeInput=False))
    np.testing.assert_array_equal(result.data, data.repeat(2, 0).repeat(2, 1)[:8, :8])


PROJECTION = {"shape": DEEP, "out": FLAT}


def test_projections_lose_their_depth():
    data = np.random.default_rng(0).random((4, 8, 12)).astype(np.float32)
    network = Toy(lambda x: x.max(1), **PROJECTION)
    result = run_plugin(network, data, "ZYX", options=ONE_TILE.replace(normalizeInput=False))
    assert result.axes == "YX"
    np.testing.assert_array_equal(result.data, data.max(0))


def test_a_tiled_projection_gives_its_first_slab():
    data = np.random.default_rng(0).random((16, 4, 4)).astype(np.float32)
    network = Toy(lambda x: x.max(1), **PROJECTION)
    options = PluginOptions(normalizeInput=False, nTiles=4, blockMultiple=4, overlap=0)
    result = run_plugin(network, data, "ZYX", options=options)
    assert result.plan.seams == {}
    np.testing.assert_array_equal(result.data, data[:4].max(0))


@pytest.mark.parametrize(
    ("axes", "shape", "out_axes"), [("TZYX", (2, 4, 8, 8), "ZYX"), ("TYX", (4, 8, 8), "TYX")]
)
def test_projections_of_movies_repeat_one_frame(axes, shape, out_axes):
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    network = Toy(lambda x: x.max(1), **PROJECTION)
    result = run_plugin(network, data, axes, options=ONE_TILE.replace(normalizeInput=False))
    assert result.axes == out_axes
    assert (result.data == result.data[0]).all()
    np.testing.assert_array_equal(result.data[0], data.reshape(-1, *shape[-3:])[0].max(0))


@pytest.mark.parametrize(
    ("axes", "shape", "sizes"),
    [("XZYT", (6, 10, 7, 2), "[7, 10, 0]"), ("?ZC?", (1, 1, 2, 31), "[31, 2, 0]")],
)
def test_a_projected_axis_that_is_not_the_slowest_fails(axes, shape, sizes):
    # CSBDeep 0.6.0 with proj3d.zip; TensorFlow 1.12.0 and 1.15.0
    with pytest.raises(PluginFailure, match="Expected only positive dimensions but got: ") as caught:
        run_plugin(Toy(lambda x: x.max(1), **PROJECTION), np.ones(shape), axes)
    assert caught.value.reason == (
        f"net.imglib2.exception.InvalidDimensionsException: Expected only positive dimensions but got: {sizes}"
    )


def test_nan_is_followed_with_a_warning():
    data = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    data[2, 3] = np.nan
    with pytest.warns(NotFinitePixelsWarning, match="no order"):
        result = run_plugin(Toy(), data, "YX", options=ONE_TILE)
    assert np.isnan(result.data[2, 3])


def test_more_than_two_billion_pixels_fail_as_in_java():
    huge = np.broadcast_to(np.uint8(0), (2**16, 2**15))
    with pytest.raises(PluginFailure, match="NegativeArraySizeException: -2147483648"):
        run_plugin(Toy(), huge, "YX")
    # 2^32 pixels overflow to an array of length 0
    with pytest.raises(PluginFailure, match="Index 0 out of bounds for length 0"):
        run_plugin(Toy(), np.broadcast_to(np.uint8(0), (2**17, 2**15)), "YX")


def test_out_of_memory_halves_the_batch_and_then_doubles_the_tiles():
    def small_only(tensor):
        if tensor.size > 40:
            raise RuntimeError("OOM when allocating tensor")
        return tensor

    options = PluginOptions(normalizeInput=False, nTiles=1, blockMultiple=4, overlap=0, batchSize=2)
    data = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    result = run_plugin(Toy(small_only), data, "ZYX", options=options)
    np.testing.assert_array_equal(result.data, data)
    assert result.plan.n_tiles == 2
    with pytest.raises(PluginFailure, match="Plugin exit"):
        run_plugin(Toy(small_only), np.ones((4, 64)), "YX", options=options.replace(blockMultiple=64))


def test_a_plan_says_where_the_seams_are_and_what_is_lost():
    found = plan((97, 97), "YX", input_shape=FLAT, output_shape=FLAT, options=PluginOptions())
    assert found.n_tiles == 9
    assert found.seams == {"X": [32, 64], "Y": [32, 64]}
    assert found.lost == {"X": 1, "Y": 1}


FLAT_2, DEEP_2 = (*FLAT[:-1], 2), (*DEEP[:-1], 2)


@given(
    pair=st.sampled_from(
        [
            ("YX", FLAT),
            ("ZYX", FLAT),
            ("TYX", FLAT),
            ("CYX", FLAT_2),
            ("CZYX", FLAT_2),
            ("ZYX", DEEP),
            ("TYX", DEEP),
            ("TZYX", DEEP),
            ("CZYX", DEEP_2),
            ("TCZYX", DEEP_2),
        ]
    ),
    data=st.data(),
    options=st.builds(
        PluginOptions,
        normalizeInput=st.just(False),
        nTiles=st.integers(1, 9),
        blockMultiple=st.sampled_from([1, 4, 8]),
        overlap=st.sampled_from([0, 3, 8]),
        batchSize=st.integers(1, 4),
    ),
)
@settings(max_examples=120, deadline=None)
def test_pixels_keep_their_place_whatever_the_axes_and_tiles(pair, data, options):
    """A network that answers with its input gives the image back, lost rows aside."""
    letters, network_shape = pair
    sizes = {"C": 2, "T": data.draw(st.integers(2, 4)), "Z": data.draw(st.integers(2, 9))}
    sizes |= {axis: data.draw(st.integers(2, 30)) for axis in "YX"}
    axes = "".join(data.draw(st.permutations(letters)))
    shape = tuple(sizes[axis] for axis in axes)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    result = run_plugin(Toy(shape=network_shape), image, axes, options=options)
    assert result.axes == axes
    lost = result.plan.lost
    kept = tuple(slice(0, size - lost.get(axis, 0)) for axis, size in zip(axes, shape, strict=True))
    np.testing.assert_array_equal(result.data[kept], image[kept])


def test_the_predictor_calls_its_result_result_and_can_be_fed_its_own():
    image = Image(
        np.random.default_rng(0).integers(0, 99, (8, 8)), "YX", pixel_size_um={"Y": 1, "X": 1}, name="cells"
    )
    predictor = EmulatedPlugin(
        Toy(lambda x: np.concatenate([x, x], -1), out=(None, None, None, 2)), ONE_TILE, probabilistic=True
    )
    first, second = apply_repeatedly(predictor, image, applications=2)
    assert (first.name, first.axes, first.pixel_size_um, first.dtype) == ("result", "CYX", {}, np.float32)
    assert second.shape == first.shape
    assert predictor.runtime.level == "emulation"


# ---- options


@pytest.mark.parametrize(
    "wrong",
    [
        {"nTiles": 0},
        {"overlap": -1},
        {"blockMultiple": 1.5},
        {"batchSize": 0},
        {"percentileTop": float("nan")},
        {"clip": 1},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PluginOptions(**wrong)


def test_percentiles_beyond_the_ends_are_held_within_the_image():
    data = np.arange(64.0).reshape(8, 8)
    result = run_plugin(
        Toy(), data, "YX", options=ONE_TILE.replace(percentileBottom=-5.0, percentileTop=150.0)
    )
    assert (result.data.min(), result.data.max()) == (0, 1)


def test_a_mistyped_option_gets_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'nTiles'"):
        PluginOptions.from_mapping({"ntiles": 3})


@pytest.mark.parametrize(
    ("axes", "held"), [("YXC", "CYX"), ("ZYXC", "CZYX"), ("TYXC", "CTYX"), ("XYC", "CXY")]
)
def test_channels_behind_the_pixels_are_held_in_front_as_in_fiji(axes, held):
    shape = tuple({"T": 3, "Z": 3, "Y": 12, "X": 9, "C": 2}[axis] for axis in axes)
    image = Image(np.random.default_rng(0).random(shape, dtype=np.float32), axes)
    predictor = EmulatedPlugin(Toy(shape=(None, None, None, 2)), ONE_TILE.replace(normalizeInput=False))
    result = predictor.predict(image)
    assert result.axes == held  # as a Fiji gave it, through pyimagej
    np.testing.assert_array_equal(result.data, np.moveaxis(image.data, -1, 0))
    assert predictor.plan(image).axes == held


@pytest.mark.parametrize(
    ("axes", "shape", "given"), [("YXC", (12, 9, 1), "YX"), ("ZYXC", (3, 12, 9, 1), "ZYX")]
)
def test_a_single_channel_behind_the_pixels_is_dropped_as_in_fiji(axes, shape, given):
    image = Image(np.random.default_rng(0).random(shape, dtype=np.float32), axes)
    result = EmulatedPlugin(Toy(), ONE_TILE.replace(normalizeInput=False)).predict(image)
    assert result.axes == given
    np.testing.assert_array_equal(result.data, image.data[..., 0])
