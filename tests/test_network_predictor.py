"""Images brought to a network and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import BIOIMAGEIO, FIJI, normalize
from care_bridge.predictor import PredictOptions, Runtime, UnhintedNetwork
from care_bridge.reach import measured_receptive_field, measured_size_multiple
from care_bridge.tiling import CsbdeepTiles, FijiTiles, receptive_field

NUMPY = Runtime("numpy")
PLAIN = PredictOptions(rule=None)


class Function(UnhintedNetwork):
    """A network of one line."""

    def __init__(self, function, *, dims=2, channels=(1, 1), lost=0):
        self.function = function
        self.runtime = NUMPY
        self.input_shape = (None,) * (dims + 1) + (channels[0],)
        self.output_shape = (None,) * (dims + 1 - lost) + (channels[1],)

    def __call__(self, tensor):
        return self.function(tensor).astype(np.float32)


class IntegerUnet(UnhintedNetwork):
    """A U-Net's geometry in whole numbers, so that every difference shows: box filters, max pooling, nearest."""

    def __init__(self, *, n_depth, kern_size, pool):
        self.n_depth, self.kern_size, self.pool = n_depth, kern_size, pool
        self.runtime = NUMPY
        self.input_shape = self.output_shape = (None,) * (len(pool) + 1) + (1,)

    def convolve(self, x):
        for axis in range(1, x.ndim - 1):
            sums = np.cumsum(
                np.pad(
                    x,
                    [(0, 0)] * axis
                    + [(self.kern_size // 2 + 1, self.kern_size // 2)]
                    + [(0, 0)] * (x.ndim - axis - 1),
                ),
                axis=axis,
            )
            x = np.take(sums, range(self.kern_size, sums.shape[axis]), axis) - np.take(
                sums, range(sums.shape[axis] - self.kern_size), axis
            )
        return x % 251

    def pooled(self, x):
        for axis, factor in enumerate(self.pool, 1):
            x = np.maximum.reduce(
                [
                    x[(slice(None),) * axis + (slice(start, x.shape[axis] // factor * factor, factor),)]
                    for start in range(factor)
                ]
            )
        return x

    def level(self, x, depth):
        x = self.convolve(self.convolve(x))
        if depth == self.n_depth:
            return x
        up = self.level(self.pooled(x), depth + 1)
        for axis, factor in enumerate(self.pool, 1):
            up = up.repeat(factor, axis)
        return self.convolve(self.convolve(x + up))

    def __call__(self, tensor):
        return self.level(tensor.astype(np.int64), 0).astype(np.float32)


@given(
    n_depth=st.integers(1, 5),
    kern_size=st.sampled_from([3, 5, 7, 9]),
    n_tiles=st.tuples(st.integers(1, 5), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 700), st.integers(1, 70)),
)
@settings(max_examples=25, deadline=None)
def test_tiled_is_the_same_as_whole_for_any_depth_and_kernel(n_depth, kern_size, n_tiles, size):
    network = IntegerUnet(n_depth=n_depth, kern_size=kern_size, pool=(2, 2))
    image = Image(np.random.default_rng(0).integers(0, 250, size), "YX")
    halo = receptive_field(n_depth=n_depth, kern_size=kern_size)
    options = PLAIN.replace(border_px=0)
    whole = NetworkPredictor(network, options, size_multiple=2**n_depth).predict(image)
    tiled = NetworkPredictor(
        network, options.replace(tiles=CsbdeepTiles(n_tiles)), size_multiple=2**n_depth, halo=halo
    ).predict(image)
    np.testing.assert_array_equal(tiled.data, whole.data)


def test_tiled_is_the_same_as_whole_with_pooling_in_the_plane_only():
    network = IntegerUnet(n_depth=2, kern_size=3, pool=(1, 2, 2))
    image = Image(np.random.default_rng(0).integers(0, 250, (29, 61, 90)), "ZYX")
    halo = receptive_field(n_depth=2, kern_size=3, pool=(1, 2, 2), axes="ZYX")
    multiple = {"Z": 1, "Y": 4, "X": 4}
    whole = NetworkPredictor(network, PLAIN, size_multiple=multiple).predict(image)
    tiled = NetworkPredictor(
        network, PLAIN.replace(tiles=CsbdeepTiles((2, 1, 2))), size_multiple=multiple, halo=halo
    ).predict(image)
    np.testing.assert_array_equal(tiled.data, whole.data)


def test_a_halo_below_the_receptive_field_shows():
    network = IntegerUnet(n_depth=2, kern_size=3, pool=(2, 2))
    image = Image(np.random.default_rng(0).integers(0, 250, (160, 24)), "YX")
    whole = NetworkPredictor(network, PLAIN, size_multiple=4).predict(image)
    options = PLAIN.replace(tiles=CsbdeepTiles((4, 1)))
    tiled = NetworkPredictor(network, options, size_multiple=4, halo=8).predict(image)
    assert (tiled.data != whole.data).any()


def test_sizes_and_receptive_field_are_measured_when_nobody_says_them():
    network = IntegerUnet(n_depth=2, kern_size=3, pool=(2, 2))
    assert measured_size_multiple(network, "YX") == {"Y": 4, "X": 4}
    found = measured_receptive_field(network, "YX", {"Y": 4, "X": 4})
    assert 20 <= found["Y"] <= 23  # 2 x (2 x (1 + 2) + 4) = 20 for the filters, + 3 for pooling
    flat = IntegerUnet(n_depth=1, kern_size=3, pool=(1, 2, 2))
    assert measured_size_multiple(flat, "ZYX") == {"Z": 1, "Y": 2, "X": 2}


@pytest.mark.parametrize("axes", ["".join(order) for order in itertools.permutations("CYX")])
def test_any_order_of_axes_comes_back_in_its_own_order(axes):
    data = np.random.default_rng(0).random((2, 9, 13)).astype(np.float32)
    image = Image(data.transpose(["CYX".index(axis) for axis in axes]), axes)
    network = Function(lambda x: x[..., ::-1] + 1, channels=(2, 2))
    result = NetworkPredictor(network, PLAIN, size_multiple=4).predict(image)
    assert result.axes == axes
    expected = (data[::-1] + 1).transpose(["CYX".index(axis) for axis in axes])
    np.testing.assert_allclose(result.data, expected)


def test_new_channels_come_last_and_a_single_one_goes():
    image = Image(np.ones((8, 12), np.float32), "YX")
    two = Function(lambda x: np.concatenate([x, 3 * x], -1), channels=(1, 2))
    result = NetworkPredictor(two, PLAIN, size_multiple=1).predict(image)
    assert (result.axes, result.shape) == ("YXC", (8, 12, 2))
    one = Function(lambda x: x.sum(-1, keepdims=True), channels=(2, 1))
    result = NetworkPredictor(one, PLAIN, size_multiple=1).predict(Image(np.ones((2, 8, 12)), "CYX"))
    assert (result.axes, result.shape) == ("CYX", (1, 8, 12))


def test_sizes_are_reflected_half_before_and_half_after():
    seen = []
    network = Function(lambda x: seen.append(x) or x)
    image = Image(np.arange(5.0, dtype=np.float32)[np.newaxis].repeat(4, 0), "YX")
    result = NetworkPredictor(network, PLAIN, size_multiple=4).predict(image)
    np.testing.assert_array_equal(
        seen[0][0, 0, :, 0], [1, 0, 1, 2, 3, 4, 3, 2]
    )  # csbdeep: 3 missing, 1 and 2
    np.testing.assert_array_equal(result.data, image.data)


def test_a_border_keeps_zeros_away_from_the_image():
    blur = Function(lambda x: IntegerUnet(n_depth=0, kern_size=3, pool=(1, 1)).convolve(x))
    image = Image(np.ones((8, 8), np.int64), "YX")
    bare = NetworkPredictor(blur, PLAIN, size_multiple=1).predict(image)
    bordered = NetworkPredictor(blur, PLAIN.replace(border_px=1), size_multiple=1).predict(image)
    assert (bare.data[0, 0], bordered.data[0, 0]) == (4, 9)
    assert bordered.shape == image.shape


@pytest.mark.parametrize(("normalize_by", "equal"), [("frame", True), ("image", False)])
def test_frames_are_normalised_each_or_all_together(normalize_by, equal):
    frame = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    movie = Image(np.stack([frame, 10 * frame]), "TYX")
    options = PredictOptions(normalize_by=normalize_by, denormalize=False)
    result = NetworkPredictor(Function(lambda x: x), options, size_multiple=1).predict(movie)
    assert np.allclose(result.data[0], result.data[1], atol=1e-5) == equal


def test_a_series_of_movies_of_stacks_is_looped_through_a_flat_network():
    image = Image(np.random.default_rng(0).random((2, 3, 4, 8, 8)), "STZYX")
    result = NetworkPredictor(Function(lambda x: 2 * x), PLAIN, size_multiple=4).predict(image)
    assert result.axes == "STZYX"
    np.testing.assert_allclose(result.data, 2 * image.data, rtol=1e-6)


def test_the_result_is_in_the_range_of_the_input_and_widths_are_only_multiplied():
    data = np.random.default_rng(0).integers(1000, 2000, (32, 32)).astype(np.uint16)
    network = Function(lambda x: np.concatenate([x, 0 * x + 0.5], -1), channels=(1, 2))
    result = NetworkPredictor(network, size_multiple=1, probabilistic=True).predict(Image(data, "YX"))
    np.testing.assert_allclose(result.data[..., 0], data, rtol=1e-5)
    low, high = np.percentile(data, 2), np.percentile(data, 99.8)
    np.testing.assert_allclose(result.data[..., 1], (high - low) / 2, rtol=1e-5)


@pytest.mark.parametrize("rule", [FIJI, BIOIMAGEIO])
def test_another_rule_can_be_followed(rule):
    image = Image(np.random.default_rng(0).integers(0, 99, (20, 20)).astype(np.uint8), "YX")
    options = PredictOptions(rule=rule, pmin=5, pmax=95, denormalize=False)
    result = NetworkPredictor(Function(lambda x: x), options, size_multiple=1).predict(image)
    np.testing.assert_array_equal(result.data, normalize(image.data, rule=rule, pmin=5, pmax=95)[0])


def test_the_plugins_tiles_can_be_followed():
    # 97 rows in 3 tiles of 32: the last row is lost and mirrored, as in ../shared/fiji-recorded a01_default_97
    image = Image(np.arange(97 * 97, dtype=np.float32).reshape(97, 97), "YX")
    options = PLAIN.replace(tiles=FijiTiles())
    result = NetworkPredictor(Function(lambda x: x), options).predict(image)
    np.testing.assert_array_equal(result.data[:96, :96], image.data[:96, :96])
    np.testing.assert_array_equal(result.data[96], result.data[95])


def test_a_projection_loses_its_axis():
    network = Function(lambda x: x.max(1), dims=3, lost=1)
    image = Image(
        np.random.default_rng(0).random((5, 11, 7)), "ZYX", pixel_size_um={"Z": 1, "Y": 0.1, "X": 0.1}
    )
    predictor = NetworkPredictor(network, PLAIN, size_multiple={"Z": 1, "Y": 2, "X": 2})
    result = predictor.predict(image)
    assert (result.axes, set(result.pixel_size_um)) == ("YX", {"Y", "X"})
    np.testing.assert_allclose(result.data, image.data.max(0), rtol=1e-6)
    tiles = PLAIN.replace(tiles=CsbdeepTiles((1, 3, 2)))
    tiled = NetworkPredictor(network, tiles, size_multiple={"Z": 1, "Y": 2, "X": 2}, halo=0).predict(image)
    np.testing.assert_array_equal(tiled.data, result.data)


def test_a_network_over_time_takes_movies_as_volumes():
    network = Function(lambda x: x.cumsum(1), dims=3)
    image = Image(np.ones((4, 3, 3)), "TYX")
    result = NetworkPredictor(network, PLAIN, axes="TYXC", size_multiple=1).predict(image)
    np.testing.assert_array_equal(result.data[:, 0, 0], [1, 2, 3, 4])


def test_wrong_channels_and_axes_are_refused():
    network = Function(lambda x: x, channels=(1, 1))
    with pytest.raises(InputError, match=r"takes 1 channel, .* has 3"):
        NetworkPredictor(network, size_multiple=1).predict(Image(np.ones((3, 4, 4)), "CYX"))
    with pytest.raises(InputError, match="do not fit"):
        NetworkPredictor(network, axes="ZYXC")
    tiles = PredictOptions(tiles=CsbdeepTiles((2, 1, 1)))
    with pytest.raises(InputError, match="not T"):
        NetworkPredictor(network, tiles, size_multiple=1).predict(Image(np.ones((3, 4, 4)), "TYX"))


def test_images_smaller_than_the_multiple_come_back():
    for shape in ((1, 9), (3, 5), (1, 1)):
        image = Image(np.random.default_rng(0).random(shape), "YX")
        result = NetworkPredictor(Function(lambda x: x), PLAIN, size_multiple=8).predict(image)
        np.testing.assert_allclose(result.data, image.data, rtol=1e-6)


def test_running_out_of_memory_cuts_the_longest_axis_until_it_fits():
    seen = []

    def small_only(tensor):
        seen.append(tensor.shape[1:3])
        if tensor.size > 600:
            raise RuntimeError("OOM when allocating tensor with shape")
        return tensor + 1

    image = Image(np.random.default_rng(0).random((64, 32)), "YX")
    result = NetworkPredictor(Function(small_only), PLAIN, size_multiple=4, halo=0).predict(image)
    np.testing.assert_allclose(result.data, image.data + 1, rtol=1e-6)
    assert seen[:3] == [(64, 32), (32, 32), (16, 32)]


@pytest.mark.parametrize("tiles", [None, CsbdeepTiles((1, 2))])
def test_a_network_that_always_runs_out_of_memory_is_called_nine_times_and_given_up(tiles):
    calls, told = [], []

    def hungry(tensor):
        calls.append(tensor.shape)
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    predictor = NetworkPredictor(
        Function(hungry), PredictOptions(rule=None, tiles=tiles), size_multiple=1, halo=0
    )
    predictor.on_retry = lambda counts: told.append(dict(counts))
    with pytest.raises(MemoryError, match="even for tiles"):
        predictor.predict(Image(np.ones((64, 64)), "YX"))
    assert len(calls) == 9  # as csbdeep: once, and after each of eight doublings
    assert len(told) == 8
    assert max(told[-1].values()) >= 16


def test_other_failures_of_a_network_are_not_tried_again():
    def broken(tensor):
        raise RuntimeError("no such operation")

    with pytest.raises(RuntimeError, match="no such operation"):
        NetworkPredictor(Function(broken), PLAIN, size_multiple=4).predict(Image(np.ones((8, 8)), "YX"))
