import csv
import json

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.evaluate import NOT_FOR_QUANTIFICATION, evaluate, report_page, write_json, write_report
from care_bridge.evaluate import report as report_module
from care_bridge.evaluate.tables import add_cross, add_sweep
from care_bridge.page import Page


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(found, folder / "report.html"), write_json(found, folder / "report.json")


def test_the_report_is_one_file_of_moderate_size_with_its_warning(written):
    html = written[0].read_text()
    assert len(html) < 10_000_000
    assert NOT_FOR_QUANTIFICATION in html
    assert "not for intensity-based quantification" in html


def test_nothing_in_it_points_to_a_network(written):
    html = written[0].read_text()
    for attribute in ('src="http', 'href="http', "url(http", "@import"):
        assert attribute not in html
    assert "default-src 'none'" in html


def test_names_are_escaped(written):
    html = written[0].read_text()
    assert "three &lt;smoothers&gt; &amp; co" in html
    assert "<smoothers>" not in html


def test_every_table_and_chart_has_its_csv_beside_it(written):
    folder = written[0].parent / "report_data"
    names = {file.stem for file in folder.glob("*.csv")}
    assert {
        "scores",
        "errors",
        "applications",
        "omissions",
        "profile",
        "peaks",
        "histogram",
        "saturation",
    } <= names
    assert {"calibration", "coverage", "robustness", "every-image"} <= names
    with (folder / "every-image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24  # six methods on four images


def test_json_holds_the_numbers_of_the_page(written, found):
    numbers = json.loads(written[1].read_text())
    assert numbers["verdict"] == found.verdict
    assert numbers["rows"][0]["psnr"] == found.rows[0].scores["psnr"]
    assert numbers == json.loads((written[0].parent / "report_data" / "evaluation.json").read_text())


def test_pictures_are_left_out_before_the_report_grows_too_large(found, written, tmp_path, monkeypatch):
    whole = written[0].stat().st_size
    monkeypatch.setattr(report_module, "LARGEST_BYTES", int(0.8 * whole))
    assert write_report(found, tmp_path / "less.html").stat().st_size < 0.8 * whole


def test_shown_images_are_called_what_they_are(found, pairs, smoother, written):
    html = written[0].read_text()
    errors = dict(zip(found.images, found.values("once", "nrmse"), strict=True))
    assert f"Worst image: {max(errors, key=errors.get)}" in html
    assert f"Best image: {min(errors, key=errors.get)}" in html
    assert f"Middle image: {found.shown[0].name}" in html
    html = report_page(evaluate(smoother, pairs[:2], baselines=())).html()
    assert html.count("Worst image:") == html.count("Best image:") == 1
    assert "Middle image" not in html


def test_a_report_that_is_no_html_is_refused(found, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.html"):
        write_report(found, tmp_path / "report.pdf")


def test_the_best_of_a_grid_is_marked():
    page = Page("grid")
    add_sweep(page, [{"batch": "8", "NRMSE": "0.05"}, {"batch": "16", "NRMSE": "0.04"}])
    html = page.html()
    assert html.index("✓ best") > html.index('<td class="n">8</td>')
    assert html.count("✓ best") == 1


def test_a_grid_by_psnr_takes_the_highest():
    page = Page("grid")
    add_sweep(page, [{"lr": 1e-3, "PSNR": 31.0}, {"lr": 1e-4, "PSNR": 29.0}])
    html = page.html()
    assert html.index("✓ best") < html.index("31.00")


def test_models_and_data_sets_make_a_matrix():
    page = Page("cross")
    rows = [
        {"model": m, "data": d, "nrmse": v}
        for m, d, v in (("mito", "mito", 0.03), ("mito", "z", 0.05), ("z", "mito", 0.06), ("z", "z", 0.02))
    ]
    add_cross(page, rows)
    assert '<tr><td>z</td><td class="n">0.06000</td><td class="n">0.02000</td></tr>' in page.html()


def test_a_cross_table_without_models_is_said():
    with pytest.raises(InputError, match="needs the columns model and data; found a"):
        add_cross(Page("x"), [{"a": 1}])


def test_an_unknown_deciding_column_is_said():
    with pytest.raises(InputError, match="no column 'loss'; there are a"):
        add_sweep(Page("x"), [{"a": np.float64(1)}], metric="loss")
