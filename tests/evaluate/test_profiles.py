import json
import math
from pathlib import Path

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.evaluate.profiles import Line, compare_profiles, match_peaks, peaks, profile, structured_line

RECORDED = Path(__file__).parent / "data" / "plot_profile.json"


def recorded():
    return json.loads(RECORDED.read_text())


def image():
    """The picture that the recorded profiles were taken from: whole numbers up to 3 000, no symmetry."""
    y, x = np.mgrid[0:40, 0:50]
    return ((x * 37 + y * 91 + x * y * 5) % 3001).astype(np.uint16)


@pytest.mark.parametrize("case", recorded()["cases"], ids=lambda case: str(case["line"]))
def test_profile_is_plot_profiles(case):
    # recorded from ImageJ 1.54p, see tests/evaluate/data/README.md
    np.testing.assert_allclose(profile(image(), Line(*case["line"])), case["values"], atol=1e-4)


def test_a_line_out_of_the_image_is_refused():
    with pytest.raises(InputError, match=r"makeLine\(0, 0, 50, 10\) leaves the image of 50 x 40"):
        profile(image(), Line(0, 0, 50, 10))


def bumps(centres, widths, n=200):
    x = np.arange(n)
    return sum(
        np.exp(-((x - c) ** 2) / (2 * (w / 2.3548) ** 2)) for c, w in zip(centres, widths, strict=True)
    )


def test_peaks_of_gaussians_are_where_they_were_put_and_as_wide():
    found = peaks(bumps([40.3, 120.0], [8, 12]))
    assert [p.position_px for p in found] == [pytest.approx(40.3, abs=0.05), pytest.approx(120.0, abs=0.05)]
    assert [p.width_px for p in found] == [pytest.approx(8, rel=0.03), pytest.approx(12, rel=0.03)]


def test_a_shifted_and_widened_copy_is_matched_with_its_errors():
    truth, other = bumps([40, 90, 140], [8, 8, 8]), bumps([41, 91, 170], [10, 10, 10])
    found = compare_profiles(truth, other)
    assert (found.truth, found.found, found.matched) == (3, 3, 2)
    assert found.recall == pytest.approx(2 / 3)
    assert found.precision == pytest.approx(2 / 3)
    assert found.position_error_px == pytest.approx(1.0, abs=0.05)
    assert found.width_ratio == pytest.approx(1.25, rel=0.03)


def test_a_flat_profile_has_no_peak_and_no_recall():
    assert peaks(np.full(50, 3.0)) == []
    found = match_peaks([], [])
    assert found.matched == 0
    assert math.isnan(found.recall)


def test_the_chosen_line_crosses_structure_and_lies_inside(make_pair):
    plane = make_pair(4)[1].data
    line = structured_line(plane)
    assert all(float(v).is_integer() for v in (line.x1, line.y1, line.x2, line.y2))
    assert len(peaks(profile(plane, line))) >= 2


def test_a_tiny_plane_still_gets_a_line():
    profile(np.eye(5), structured_line(np.eye(5)))
