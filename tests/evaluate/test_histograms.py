import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from care_bridge.errors import InputError
from care_bridge.evaluate.histograms import (
    distributions,
    made_by_writer,
    saturation,
    wasserstein_1,
)
from care_bridge.images import Image

values = arrays(float, st.integers(1, 40), elements=st.floats(-1000, 1000))


@given(first=values, second=values)
def test_distance_is_the_mean_gap_between_sorted_intensities(first, second):
    # Every value as often as the other image is large, so that both have equally many.
    gaps = np.sort(np.repeat(first, second.size)) - np.sort(np.repeat(second, first.size))
    assert wasserstein_1(first, second) == pytest.approx(np.abs(gaps).mean(), abs=1e-6)


def test_intensities_that_are_not_finite_do_not_count():
    assert wasserstein_1(np.array([np.nan, 1.0, np.inf]), np.array([[3.0], [3.0]])) == 2.0


def test_a_shift_costs_itself():
    data = np.random.default_rng(0).normal(size=(20, 20))
    assert wasserstein_1(data, data + 7) == pytest.approx(7)


def test_nothing_finite_is_said():
    with pytest.raises(InputError, match="no finite intensity"):
        wasserstein_1(np.array([np.nan]), np.ones(3))


def test_saturation_counts_both_ends_of_the_type():
    data = np.array([[0, 0, 5, 65535]], np.uint16)
    found = saturation(Image(data, "YX"))
    assert (found.at_low, found.at_high) == (0.5, 0.25)


def test_a_float_result_is_asked_what_a_type_would_clip():
    found = saturation(Image(np.array([[-3.0, 0.4, 254.6, 300.0]]), "YX"), dtype=np.dtype(np.uint8))
    assert (found.dtype, found.at_low, found.at_high) == ("uint8", 0.5, 0.5)


def test_a_heap_made_by_the_writer_is_named():
    truth = Image(np.arange(1000, dtype=np.uint16).reshape(20, 50) + 1, "YX")
    clipped = truth.data.copy()
    clipped[:2] = 65535
    sentence = made_by_writer(truth.replace(data=clipped), truth)
    assert sentence is not None
    assert "uint16 with 10 % at 65535" in sentence
    assert made_by_writer(truth, truth) is None
    assert made_by_writer(truth.replace(data=clipped.astype(np.float32)), truth) is None


def test_histograms_share_their_bins_and_have_area_one():
    draw = np.random.default_rng(0)
    rows = distributions({"input": draw.normal(size=500), "truth": draw.normal(3, 1, size=700)}, bins=50)
    width = rows[1]["intensity"] - rows[0]["intensity"]
    for name in ("input", "truth"):
        assert sum(row[name] for row in rows) * width == pytest.approx(1)
