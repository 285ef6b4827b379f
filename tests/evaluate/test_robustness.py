import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.evaluate.robustness import Point, curves, degrade, valid_ranges
from care_bridge.images import Image


def test_noise_level_is_a_share_of_the_range():
    image = Image(np.linspace(0, 1000, 10_000).reshape(100, 100).astype(np.uint16), "YX")
    added = degrade(image, "noise", 0.1).data - image.data
    assert added.std() == pytest.approx(0.1 * 0.978 * 1000, rel=0.03)  # percentiles 2 to 99.8 of a ramp


def test_the_same_seed_gives_the_same_noise():
    image = Image(np.arange(64.0).reshape(8, 8), "YX")
    one, two, other = (degrade(image, "noise", 0.1, seed=seed).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_factor_saturates_and_rounds_as_a_camera_does():
    image = Image(np.array([[1, 3, 100, 200]], np.uint8), "YX")
    assert degrade(image, "factor", 2.0).data.tolist() == [[2, 6, 200, 255]]
    assert degrade(image, "factor", 0.5).data.tolist() == [[0, 2, 50, 100]]


def test_blur_leaves_planes_apart():
    data = np.zeros((3, 9, 9), np.float32)
    data[1, 4, 4] = 1
    blurred = degrade(Image(data, "ZYX"), "blur", 1.0).data
    assert blurred[0].max() == 0
    assert blurred[1].sum() == pytest.approx(1)


def test_an_unknown_change_is_said():
    with pytest.raises(InputError, match="change='rain' is not one of noise, blur, factor"):
        degrade(Image(np.ones((4, 4)), "YX"), "rain", 1)


def test_curves_of_a_filter_fall_with_noise_and_count_up(make_pair, smoother):
    seen = []
    points = curves(
        smoother,
        [make_pair(0)],
        levels={"noise": (0.0, 0.2)},
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert [p.level for p in points] == [0.0, 0.2]
    assert points[1].restored_nrmse > points[0].restored_nrmse
    assert seen == [(1, 2), (2, 2)]


def point(change, level, before, after):
    return Point(change, level, before, after, 0, 0)


def test_valid_range_ends_where_the_first_level_fails():
    line = [point("blur", level, 0.1, after) for level, after in ((0, 0.04), (1, 0.05), (2, 0.07), (3, 0.05))]
    (found,) = valid_ranges(line)
    assert str(found) == "blur: 0 to 1 px"  # 0.07 > 1.5 x 0.04


def test_a_network_that_never_helps_has_no_range():
    (found,) = valid_ranges([point("noise", 0.0, 0.03, 0.04)])
    assert str(found) == "noise: helps at no level tried"
