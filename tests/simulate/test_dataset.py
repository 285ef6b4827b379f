from __future__ import annotations

import numpy as np

from care_bridge.simulate.dataset import make_pairs


def test_tubules_give_pairs_of_equal_shape_and_the_same_ones_again() -> None:
    first = list(make_pairs("tubules", seed=1))[:2]
    again = list(make_pairs("tubules", seed=1))[:2]
    assert [pair.source.shape for pair in first] == [pair.target.shape for pair in first] == [(256, 256)] * 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.source.data, other.source.data)
        assert one.parameters == other.parameters
    assert not np.array_equal(first[0].target.data, first[1].target.data)
