import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from care_bridge.errors import InputError
from care_bridge.evaluate.registration import pair_warnings, saturated_share, shift_between
from care_bridge.images import Image


@pytest.mark.parametrize("moved", [(0, 0), (3, -5), (1.5, 2.0), (0, -0.5)])
def test_shift_of_a_noisy_pair_is_found(make_pair, moved):
    source, target = make_pair(2, (128, 128))
    there = shift(target.data.astype(float), moved, order=1, mode="reflect")
    assert shift_between(source.data, there).zyx_px == pytest.approx(moved, abs=0.3)


def test_shift_of_a_stack_is_found():
    volume = gaussian_filter(np.random.default_rng(0).normal(size=(24, 64, 64)), 2)
    moved = np.roll(volume, (2, -3, 4), (0, 1, 2))
    assert shift_between(volume, moved).zyx_px == pytest.approx((2, -3, 4), abs=0.2)


def test_a_misregistered_pair_is_said_and_a_good_one_is_not(make_pair):
    source, target = make_pair(2, (128, 128))
    assert pair_warnings(source, target) == []
    (sentence,) = pair_warnings(source, target.replace(data=np.roll(target.data, 4, 1)))
    assert re.search(r"shifted by (3\.[89]|4\.[012]) px against the source \(Y ", sentence)
    assert "register the pair" in sentence


def test_a_saturated_truth_is_said(make_pair):
    source, target = make_pair(2)
    clipped = target.replace(data=np.minimum(target.data, 900))
    assert any("900: saturated" in sentence for sentence in pair_warnings(source, clipped))
    assert saturated_share(target) == 0


def test_the_end_of_the_type_counts_without_a_heap():
    data = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert saturated_share(Image(data, "YX")) == pytest.approx(1 / 256)


def test_bit_depths_and_holes_are_said(make_pair):
    source, target = make_pair(2)
    data = target.data.astype(np.float32)
    data[3, 4:6] = np.nan
    sentences = " ".join(pair_warnings(source, target.replace(data=data)))
    assert "source is uint16, target float32" in sentences
    assert "2 pixels are NaN" in sentences


def test_a_pair_of_one_image_is_said(make_pair):
    _, target = make_pair(2)
    assert pair_warnings(target, target)[0].startswith("source and target are the same image")


def test_unequal_shapes_are_said():
    with pytest.raises(InputError, match="they must be equal"):
        shift_between(np.zeros((4, 4)), np.zeros((4, 5)))
