"""Percentiles and normalisation by three readers' rules."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.normalize import (
    BIOIMAGEIO,
    CSBDEEP,
    FIJI,
    NotFinitePixelsWarning,
    SparseImageWarning,
    _by_counting,
    _by_digits,
    _unordered_quicksort_rank,
    fiji_rank,
    normalize,
    percentile_range,
    values_at_ranks,
)

STAIRS = np.arange(201, dtype=np.uint16).reshape(3, 67)


def test_fiji_takes_the_nearest_rank_and_rounds_halves_up():
    # Rank 200 * 0.25 / 100 = 0.5 -> 1 by Java's Math.round; NumPy would interpolate to 0.5.
    assert percentile_range(STAIRS, rule=FIJI, pmin=0.25, pmax=99.75) == (1.0, 200.0)
    assert percentile_range(STAIRS, rule=CSBDEEP, pmin=0.25, pmax=99.75) == (0.5, 199.5)


def test_fiji_counts_ranks_in_float32():
    # float32(2^24 + 2 - 1) is 2^24 + 2 (halves to even), so the last rank lies one beyond and is held back.
    assert fiji_rank(2**24 + 4, 100) == 2**24 + 3
    assert fiji_rank(2**24 + 4, 50) == 2**23 + 2
    assert fiji_rank(1000, 99.8) == 997


def test_fiji_cuts_off_at_zero_even_without_clip():
    normalized, _ = normalize(STAIRS, rule=FIJI, pmin=10, pmax=90)
    assert normalized.min() == 0 < np.count_nonzero(normalized == 0) - 1
    assert normalized.max() == np.float32(20 / 160) + 1
    assert normalize(STAIRS, rule=FIJI, pmin=10, pmax=90, clip=True)[0].max() == 1


def test_fiji_multiplies_by_the_reciprocal():
    data = np.float32([[3, 10, 17, 24]])
    normalized, _ = normalize(data, rule=FIJI, pmin=0, pmax=100)
    factor = np.float32(1) / np.float32(21)
    np.testing.assert_array_equal(normalized, (data - np.float32(3)) * factor)


@pytest.mark.parametrize("span", [0, 9e-8])
def test_fiji_does_not_scale_a_range_below_1e_7(span):
    data = np.linspace(0, span, 50, dtype=np.float32).reshape(5, 10)
    normalized, undo = normalize(data, rule=FIJI, pmin=0, pmax=100)
    np.testing.assert_array_equal(normalized, data)
    assert undo.span == 1


def test_fiji_takes_reversed_percentiles_as_a_range_not_to_be_scaled():
    normalized, _ = normalize(STAIRS, rule=FIJI, pmin=99.8, pmax=3)
    assert normalized.max() == 0  # floor((x - 200) * 1)


def test_fiji_pools_the_channels_and_csbdeep_does_not():
    data = np.stack([STAIRS, STAIRS * 100])
    assert normalize(data, rule=FIJI, axes="CYX")[1].low.size == 1
    _, undo = normalize(data, rule=CSBDEEP, axes="CYX", pmin=0, pmax=100)
    np.testing.assert_array_equal(undo.high, [200, 20000])


def test_fiji_refuses_more_pixels_than_a_java_int_counts():
    huge = np.broadcast_to(np.uint8(0), (2**16, 2**15))
    with pytest.raises(InputError, match="2147483648 pixels"):
        normalize(huge, rule=FIJI)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_csbdeep_is_followed_bit_for_bit(dtype):
    data = (np.random.default_rng(0).random((3, 50, 61)) * 200).astype(dtype)
    normalizer = pytest.importorskip("csbdeep.data").PercentileNormalizer()
    expected = normalizer.before(data, "CYX")
    normalized, undo = normalize(data, axes="CYX")
    np.testing.assert_array_equal(normalized, expected)
    raw = normalizer.after(expected, None, "CYX")[0]
    np.testing.assert_allclose(undo(normalized, "CYX"), raw, rtol=1e-6)


def test_bioimageio_divides_by_the_range_plus_1e_6():
    data = np.float32([[0, 1e-6]])
    assert normalize(data, rule=BIOIMAGEIO)[0][0, 1] == pytest.approx(0.5)


@given(
    values=st.lists(st.integers(0, 10), min_size=1, max_size=40),
    rank=st.integers(0, 39),
    share=st.floats(0, 1),
)
def test_nan_end_up_where_imglib2s_quicksort_leaves_them(values, rank, share):
    data = np.float32(values)
    data[np.random.default_rng(len(values)).random(data.size) < share] = np.nan
    rank %= data.size
    expected = list(data)
    _quicksort(expected, 0, len(expected) - 1)
    np.testing.assert_equal(_unordered_quicksort_rank(data, rank), float(expected[rank]))


def _quicksort(values, left, right):
    """imglib2 7.1.5, Util.quicksort: two pointers about the middle element."""
    if len(values) < 2:
        return
    i, j, pivot = left, right, values[(left + right) // 2]
    while True:
        while values[i] < pivot:
            i += 1
        while pivot < values[j]:
            j -= 1
        if i <= j:
            values[i], values[j] = values[j], values[i]
            i, j = i + 1, j - 1
        if i > j:
            break
    if left < j:
        _quicksort(values, left, j)
    if i < right:
        _quicksort(values, i, right)


def test_nan_is_left_out_of_the_percentiles_and_named():
    data = np.random.default_rng(1).random((40, 40)).astype(np.float32)
    expected = normalize(data)[0]
    data[3, 4] = np.nan
    with pytest.warns(NotFinitePixelsWarning, match="1 of 1600"):
        normalized, _ = normalize(data)
    assert np.isnan(normalized).sum() == 1
    np.testing.assert_allclose(np.nan_to_num(normalized, nan=expected[3, 4]), expected, atol=2e-3)


def test_an_image_of_nothing_but_nan_is_refused():
    with pytest.raises(InputError, match="every pixel is NaN"):
        normalize(np.full((4, 4), np.nan, np.float32))


def test_a_constant_image_becomes_zero_and_comes_back():
    for rule in (CSBDEEP, FIJI, BIOIMAGEIO):
        normalized, undo = normalize(np.full((8, 8), 7, np.uint8), rule=rule)
        assert not normalized.any()
        assert (undo(normalized) == 7).all()


def test_a_few_bright_pixels_stay_finite_and_visible():
    data = np.zeros((200, 200), np.uint16)
    data.ravel()[:20] = 5000
    with pytest.warns(SparseImageWarning, match="maximum"):
        normalized, undo = normalize(data)
    assert normalized.max() == 1
    assert np.count_nonzero(normalized) == 20
    np.testing.assert_allclose(undo(normalized), data)


def test_uint32_keeps_its_grey_levels():
    levels = np.uint32(2**26) + np.arange(50, dtype=np.uint32)  # float32 first would keep 7 to 13 of them
    normalized, _ = normalize(np.tile(levels, (50, 1)))
    assert np.unique(normalized).size == 50


def test_a_width_is_only_multiplied():
    _, undo = normalize(STAIRS, pmin=0, pmax=100)
    assert undo(np.float32([0.5]), scale=True) == 100
    assert undo(np.float32([0.5])) == 100
    _, undo = normalize(STAIRS + 1000, pmin=0, pmax=100)
    assert undo(np.float32([0.5]), scale=True) == 100
    assert undo(np.float32([0.5])) == 1100


def test_other_numbers_of_channels_have_no_way_back():
    _, undo = normalize(np.stack([STAIRS, STAIRS]), axes="CYX")
    three = np.ones((3, 4, 4), np.float32)
    np.testing.assert_array_equal(undo(three, "CYX"), three)


@pytest.mark.parametrize(("pmin", "pmax"), [(5, 5), (99, 1), (-1, 50), (1, 101)])
def test_percentiles_out_of_order_are_refused(pmin, pmax):
    with pytest.raises(InputError, match="0 <= pmin < pmax"):
        normalize(STAIRS, pmin=pmin, pmax=pmax)


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="empty"):
        normalize(np.zeros((0, 5)))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", ">u2", "u4", "i4", "i8", "f4", "f8", ">f4"])
def test_ranks_are_found_without_sorting(dtype):
    data = (np.random.default_rng(2).normal(size=1000) * 100).astype(dtype)
    ordered = np.sort(data)
    for rank in (0, 1, 499, 999):
        found = _by_digits(data, rank) if data.itemsize > 2 else _by_counting(data, [rank])[0]
        assert found == ordered[rank]


@given(seed=st.integers(0, 2**31))
@settings(max_examples=4, deadline=None)
def test_large_images_get_the_values_of_a_sort(seed):
    random = np.random.default_rng(seed)
    data = random.normal(size=(5, 1000, 1001)).astype(np.float32)[:, ::2]
    data = np.tile(data, (1, 2, 1))
    ranks = tuple(int(rank) for rank in random.integers(0, data.size, 2))
    np.testing.assert_array_equal(
        values_at_ranks(data, ranks), np.partition(data, ranks, axis=None)[list(ranks)]
    )


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_percentiles_cost_at_most_four_partitions(dtype):
    data = (np.random.default_rng(3).random(1 << 23) * 60000).astype(dtype)
    ranks = (data.size // 33, data.size - data.size // 500)
    start = time.perf_counter()
    np.partition(data.astype(np.float32), ranks)
    middle = time.perf_counter()
    values_at_ranks(data, ranks)
    assert time.perf_counter() - middle < 4 * (middle - start) + 0.05


def test_channels_at_the_fast_end_cost_no_more():
    last = np.random.default_rng(0).random((700, 700, 3)).astype(np.float32)
    first = np.ascontiguousarray(last.transpose(2, 0, 1))
    start = time.perf_counter()
    expected, _ = normalize(first, axes="CYX")
    middle = time.perf_counter()
    normalized, _ = normalize(last, axes="YXC")
    assert time.perf_counter() - middle < 10 * (middle - start) + 0.2
    np.testing.assert_array_equal(normalized, expected.transpose(1, 2, 0))


def test_nothing_is_said_about_an_ordinary_image():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rule in (CSBDEEP, FIJI, BIOIMAGEIO):
            normalize(STAIRS, rule=rule)
