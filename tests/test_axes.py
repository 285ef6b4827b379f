from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from care_bridge.axes import AXES, axes_dict, check_axes, move_axes
from care_bridge.errors import InputError

orders = st.lists(st.sampled_from(AXES), min_size=1, max_size=6, unique=True).map("".join)


@given(axes=orders)
def test_axes_come_back_upper_case(axes: str) -> None:
    assert check_axes(axes.lower(), ndim=len(axes)) == axes


@pytest.mark.parametrize(
    ("axes", "ndim", "message"),
    [
        ("YQ", None, "holds Q; use letters of STCZYX"),
        ("YXY", None, "holds Y more than once"),
        ("", None, "must be a string"),
        (None, None, "must be a string"),
        ("ZYX", 2, "names 3 dimensions, but the array has 2"),
    ],
)
def test_wrong_axes_are_named(axes, ndim, message) -> None:
    with pytest.raises(InputError, match=message):
        check_axes(axes, ndim=ndim)


def test_positions_of_letters() -> None:
    assert axes_dict("zyx") == {"S": None, "T": None, "C": None, "Z": 0, "Y": 1, "X": 2}


@given(source=orders, data=st.data())
def test_moving_axes_and_back_gives_the_array(source: str, data) -> None:
    target = "".join(data.draw(st.permutations(source)))
    array = np.arange(np.prod(range(2, 2 + len(source)))).reshape(range(2, 2 + len(source)))
    moved = move_axes(array, source, target)
    assert moved.shape == tuple(array.shape[source.index(letter)] for letter in target)
    assert np.array_equal(move_axes(moved, target, source), array)


def test_missing_axes_are_added_and_single_ones_dropped() -> None:
    assert move_axes(np.zeros((5, 6)), "YX", "CYX").shape == (1, 5, 6)
    assert move_axes(np.zeros((1, 5, 6)), "TYX", "YXC").shape == (5, 6, 1)
    with pytest.raises(InputError, match="has 2 of it"):
        move_axes(np.zeros((2, 5, 6)), "TYX", "YX")
