"""The report as a person meets it: opened in a browser, dragged, zoomed, printed."""

import re

import pytest

from care_bridge.evaluate import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory, found):
    sweep = [{"batch": 8, "nrmse": 0.05}, {"batch": 16, "nrmse": 0.04}]
    cross = [{"model": "mito", "data": "nuclei", "nrmse": 0.05}]
    return write_report(found, tmp_path_factory.mktemp("report") / "report.html", sweep=sweep, cross=cross)


def box_of(browser, element):
    """Left, top, width and height of an element in the window."""
    return browser.js(f"(b => [b.left, b.top, b.width, b.height])({element}.getBoundingClientRect())")


def test_it_opens_without_network_and_without_a_complaint(browser, report):
    browser.open(report)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.js("document.title") == "How good is the restoration? three <smoothers> & co"


def test_the_first_screen_holds_picture_and_verdict(browser, report):
    browser.open(report, width=1200, height=900)
    assert browser.js("document.querySelector('#verdict').getBoundingClientRect().bottom") < 300
    assert browser.js("document.querySelector('.slider .view').getBoundingClientRect().bottom") <= 900
    assert browser.js("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_slider_follows_the_mouse_and_the_keyboard(browser, report):
    browser.open(report)
    box = browser.js(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('.slider .view').getBoundingClientRect())"
    )
    left, top, width, height = box
    middle = top + height / 2
    browser.drag((left + width / 2, middle), (left + width / 4, middle))
    split = "getComputedStyle(document.querySelector('.slider .view')).getPropertyValue('--split')"
    assert float(browser.js(split).rstrip("%")) == pytest.approx(25, abs=0.5)
    clip = browser.js("getComputedStyle(document.querySelector('.slider .right')).clipPath")
    assert float(re.search(r"([\d.]+)%\)$", clip).group(1)) == pytest.approx(25, abs=0.5)
    browser.js("document.querySelector('.slider input').focus()")
    for _ in range(2):
        browser.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="ArrowRight",
            code="ArrowRight",
            windowsVirtualKeyCode=39,
        )
    assert float(browser.js(split).rstrip("%")) == pytest.approx(26, abs=0.5)


def test_pictures_of_one_image_zoom_together_and_can_be_moved(browser, report):
    browser.open(report)
    figure = "[...document.querySelectorAll('figure')].find(f => !f.matches('.slider') && f.querySelector('[data-zoom]'))"
    browser.js(f"{figure}.querySelector('[data-zoom=in]').click()")
    link = browser.js(f"{figure}.querySelector('.view').dataset.link")
    script = (
        f"[...document.querySelectorAll('.view')].filter(v => v.dataset.link === {link!r})"
        ".map(v => v.querySelector('.stage').style.transform)"
    )
    moved = browser.js(script)
    assert len(moved) >= 6
    assert set(moved) == {"translate(-50%, -50%) scale(2)"}
    assert browser.js("document.querySelector('.slider .left .stage').style.transform") == ""
    browser.js(f"{figure}.scrollIntoView()")
    x, y = browser.js(
        f"(b => [b.left + b.width / 2, b.top + b.height / 2])({figure}.querySelector('.view').getBoundingClientRect())"
    )
    browser.drag((x, y), (x + 20, y))
    assert set(browser.js(script)) != set(moved)
    browser.js(f"{figure}.querySelector('[data-zoom=reset]').click()")
    assert set(browser.js(script)) == {"translate(0%, 0%) scale(1)"}


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(browser, report, dark):
    browser.open(report, dark=dark)
    colours = browser.js(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k].match(/[0-9]+/g).map(Number))"
    )

    def luminance(rgb):
        linear = [
            (v / 255 / 12.92) if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb[:3]
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink, paper = map(luminance, colours)
    assert (paper < 0.05) == dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG AAA
    # charts take the page's ink
    ink_of = "getComputedStyle(document.querySelector('{}')).color"
    assert browser.js(ink_of.format(".chart svg")) == browser.js(ink_of.format("body"))


def test_a_phone_scrolls_down_only(browser, report):
    browser.open(report, width=390, height=800)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    assert browser.js("document.querySelector('.slider .view').getBoundingClientRect().width") > 330


def test_print_shows_both_sides_of_the_slider_and_no_controls(browser, report):
    browser.open(report, media="print")
    boxes = browser.js(
        "[...document.querySelectorAll('.slider .layer')].map(l => l.getBoundingClientRect()).map(b => [b.left, b.right])"
    )
    assert boxes[0][1] <= boxes[1][0]
    assert browser.js("getComputedStyle(document.querySelector('.slider .right')).clipPath") == "none"
    assert browser.js("getComputedStyle(document.querySelector('.zoom')).display") == "none"
    assert browser.pdf().startswith(b"%PDF")


def test_the_csv_behind_a_chart_can_be_saved(browser, report):
    browser.open(report)
    found = "[...document.querySelectorAll('a.get')].find(a => a.download === 'profile.csv')"
    text = browser.js(f"atob({found}.href.split(',')[1])")
    assert text == (report.parent / "report_data" / "profile.csv").read_text()


def test_every_link_of_the_contents_leads_somewhere(browser, report):
    browser.open(report)
    assert browser.js("document.querySelectorAll('nav a').length") >= 9
    assert browser.js(
        "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))"
    )
