import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from care_bridge.errors import InputError
from care_bridge.page import (
    LUTS,
    Mark,
    Page,
    Picture,
    chart,
    csv_text,
    display_limits,
    number,
    png,
    shrink,
)


def decode(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(int)


def test_a_png_shows_the_limits_as_black_and_white():
    data = np.array([[-5.0, 0.0, 50.0, 100.0, 500.0]])
    grey = decode(png(data, limits=(0, 100)))[0, :, 0]
    assert grey.tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("lut", LUTS)
def test_every_look_up_table_gives_its_own_colours(lut):
    import matplotlib

    ramp = decode(png(np.linspace(0, 1, 256)[None], limits=(0, 1), lut=lut))[0, :, :3]
    expected = np.round(matplotlib.colormaps[lut](np.linspace(0, 1, 256))[:, :3] * 255)
    assert np.abs(ramp - expected).max() <= 1


def test_nan_is_transparent_and_nothing_else_is():
    data = np.array([[0.0, np.nan, 1.0]])
    assert decode(png(data, limits=(0, 1)))[0, :, 3].tolist() == [255, 0, 255]


def test_smooth_and_noisy_planes_come_back_whole():
    draw = np.random.default_rng(0)
    for plane in (
        np.add.outer(np.arange(40.0), np.arange(30.0)),
        draw.integers(0, 256, (40, 30)).astype(float),
    ):
        low, high = plane.min(), plane.max()
        expected = np.minimum((plane - low) / (high - low) * 256, 255).astype(np.uint8)
        assert (decode(png(plane, limits=(low, high)))[..., 0] == expected).all()


def test_smooth_planes_are_packed_as_differences():
    draw = np.random.default_rng(0)
    plane = np.add.outer(np.arange(200.0), draw.integers(0, 40, 300))
    index = np.minimum((plane - plane.min()) / np.ptp(plane) * 256, 255).astype(np.uint8)
    assert len(png(plane, limits=(plane.min(), plane.max()))) < 0.7 * len(zlib.compress(index.tobytes(), 6))


def test_png_chunks_carry_right_checksums():
    content = png(np.eye(5), limits=(0, 1))[8:]
    while content:
        (length,) = struct.unpack(">I", content[:4])
        body, crc, content = (
            content[4 : 8 + length],
            content[8 + length : 12 + length],
            content[12 + length :],
        )
        assert struct.pack(">I", zlib.crc32(body)) == crc


def test_a_stack_is_no_picture():
    with pytest.raises(InputError, match=r"needs shape \(Y, X\); received \(2, 3, 3\)"):
        png(np.zeros((2, 3, 3)), limits=(0, 1))


def test_an_unknown_look_up_table_is_said():
    with pytest.raises(InputError, match="lut='jet' is not one of gray"):
        png(np.eye(3), limits=(0, 1), lut="jet")


def test_large_planes_are_averaged_by_a_whole_factor():
    plane, factor = shrink(np.arange(64.0).reshape(8, 8), 4)
    assert factor == 2
    assert plane[0, 0] == np.mean([0, 1, 8, 9])


def test_a_thin_strip_keeps_a_line():
    assert shrink(np.ones((1, 5000)), 100)[0].shape == (1, 5000)


def test_limits_of_constant_and_empty_planes_have_a_width():
    assert display_limits(np.full((3, 3), 7.0)) == (7.0, 8.0)
    assert display_limits(np.full((3, 3), np.nan)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345, "12 345"), (-3, "−3"), (31.2345, "31.23"), (4.8e-7, "4.80e−7"), (0.0, "0"), (float("nan"), "–"),
     (float("-inf"), "−∞"), (0.00123, "0.001230"), (1e9, "1.00e9")],
)  # fmt: skip
def test_numbers_as_people_read_them(value, text):
    assert number(value) == text


def test_csv_keeps_numbers_whole_and_columns_of_all_rows():
    assert (
        csv_text([{"a": 0.1 + 0.2, "b": None}, {"a": 1, "c": "x,y"}])
        == 'a,b,c\n0.30000000000000004,,\n1,,"x,y"\n'
    )


def page():
    made = Page("A <b>title</b>", verdict="Good & well.", good=True)
    plane = np.arange(64.0 * 48).reshape(64, 48)
    made.slider(plane, plane[::-1], labels=("input", "restored"), pixel_um=0.1)
    made.section("Numbers", "First.\n\nSecond.")
    made.table(
        [{"image": "<x>", "ok": Mark("passed", True)}, {"image": "y", "ok": Mark("no", False)}], caption="T"
    )
    made.pictures([Picture(plane, "a"), Picture(plane, "error", limits=(0, 5), lut="magma", unit="counts")])
    figure, axes = chart()
    axes.plot([1, 2], [3, 4], color="black", label="<i>")
    axes.legend()
    made.figure(figure, caption="C", data=[{"x": 1}])
    made.settings({"seed": 1, "versions": {"numpy": "2"}, "none": None})
    made.attach("all.json", "{}")
    return made


def test_everything_that_people_wrote_is_escaped():
    html = page().html()
    assert "A &lt;b&gt;title&lt;/b&gt;" in html
    assert "&lt;x&gt;" in html
    assert "&lt;i&gt;" in html
    assert "<b>" not in html


def test_black_of_a_chart_is_the_pages_ink():
    html = page().html()
    chart_part = html[html.index("<svg") : html.index("</svg>")]
    assert "currentColor" in chart_part
    assert "#000000" not in chart_part


def test_marks_are_signs_as_well_as_colours():
    html = page().html()
    assert '<td class="good">✓ passed</td>' in html
    assert '<td class="bad">✗ no</td>' in html


def test_limits_and_scale_bar_are_stated():
    html = page().html()
    assert "Shown from 3 to 3068 (percentiles 0.1 and 99.9 of all together)" in html
    assert "Scale bar 0.5 µm" in html  # a fifth of 48 px of 0.1 µm, rounded down to 1, 2 or 5


def test_csvs_are_written_beside_the_page_on_wish(tmp_path):
    page().save(tmp_path / "p.html", data_folder=tmp_path / "p_data")
    assert sorted(file.name for file in (tmp_path / "p_data").iterdir()) == ["all.json", "c.csv", "t.csv"]


def test_equal_names_get_numbers(tmp_path):
    made = Page("x")
    for _ in range(2):
        made.table([{"a": 1}], name="t")
    made.save(tmp_path / "p.html", data_folder=tmp_path / "d")
    assert sorted(file.name for file in (tmp_path / "d").iterdir()) == ["t-2.csv", "t.csv"]


def test_the_same_page_is_written_twice_byte_for_byte():
    assert page().html() == page().html()


def test_a_slider_of_two_shapes_is_refused():
    with pytest.raises(InputError, match=r"one shape; received \(2, 2\) and \(3, 3\)"):
        Page("x").slider(np.ones((2, 2)), np.ones((3, 3)), labels=("a", "b"))
