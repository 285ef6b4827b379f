"""Scores under each condition: read from subfolders or a table, in CSV, JSON and page; and what may be wrong with them."""

import csv
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.evaluate import Pair, evaluate, read_pairs, write_json, write_report
from care_bridge.evaluate.conditions import read_published
from care_bridge.evaluate.details import widths_sentence
from care_bridge.images import write_image

NOISE = {"C1": 60.0, "C2": 150.0, "C3": 400.0}
IMAGES = {"C1": 3, "C2": 3, "C3": 1}


@pytest.fixture
def folders(tmp_path, make_pair):
    """As the planaria of Weigert et al. lie on a disk: a folder a condition, truths that all share."""
    for condition, number in IMAGES.items():
        for seed in range(number):
            source, target = make_pair(seed, (48, 56), noise=NOISE[condition])
            write_image(tmp_path / "test" / condition / f"{seed}.tif", source)
            write_image(tmp_path / "test" / "GT" / f"{seed}.tif", target)
    return tmp_path / "test"


@pytest.fixture(scope="module")
def by_condition(make_pair, smoother):
    """Three conditions, one of which has a single image."""
    from dataclasses import replace

    from care_bridge.evaluate.conditions import Published

    pairs = [
        Pair(*make_pair(seed, noise=NOISE[name]), f"{name}/{seed}.tif", condition=name)
        for name, number in IMAGES.items()
        for seed in range(number)
    ]
    found = evaluate(smoother, pairs, baselines=("Gaussian",), applications=1, model="smoother")
    others = (Published("C1", "network of 2018", {"nrmse": 0.03768, "ssim": 0.70774}),)
    return replace(found, published=others)


def test_each_folder_is_a_condition_and_all_share_their_truths(folders):
    pairs = read_pairs(folders, folders / "GT", conditions="subfolders")
    assert [pair.name for pair in pairs][:4] == ["C1/0.tif", "C1/1.tif", "C1/2.tif", "C2/0.tif"]
    assert [pair.condition for pair in pairs] == ["C1"] * 3 + ["C2"] * 3 + ["C3"]
    assert pairs[0].hashes[1] == pairs[3].hashes[1]  # one truth for both


def test_truths_may_have_a_folder_for_each_condition_too(folders, tmp_path):
    for condition, number in IMAGES.items():
        for seed in range(number):
            whole = (folders / "GT" / f"{seed}.tif").read_bytes()
            (tmp_path / "truths" / condition).mkdir(parents=True, exist_ok=True)
            (tmp_path / "truths" / condition / f"{seed}.tif").write_bytes(whole)
    for seed in range(3):
        (folders / "GT" / f"{seed}.tif").unlink()
    (folders / "GT").rmdir()
    pairs = read_pairs(folders, tmp_path / "truths", conditions="subfolders")
    assert len(pairs) == 7


TABLES = {
    "table.csv": "image,condition,note\n0.tif,low,x\n1.tif,high,\n2.tif,low,\nother.tif,low,\n",
    "excel.csv": "\ufeffimage,condition\n0,low\n1,high\n2,low\n",
    "quoted.toml": '"0.tif" = "low"\n"1.tif" = "high"\n"2.tif" = "low"\n',
    "unquoted.toml": '0.tif = "low"\n1.tif = "high"\n2.tif = "low"\n',
    "manifest.csv": "name,image,set,seed\n0,clean,low,1\n1,clean,high,2\n2,clean,low,3\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_the_condition_of_each_image(folders, tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    pairs = read_pairs(folders / "C1", folders / "GT", conditions=tmp_path / name)
    assert [pair.condition for pair in pairs] == ["low", "high", "low"]
    assert [pair.name for pair in pairs] == ["0.tif", "1.tif", "2.tif"]


def test_means_of_a_condition_are_those_of_its_images_alone(by_condition):
    found = {(row.condition, row.method): row for row in by_condition.by_condition()}
    rows = [r for r in by_condition.rows if (r.condition, r.method) == ("C2", "once")]
    assert found["C2", "once"].images == 3
    assert found["C2", "once"].scores["ssim"].mean == pytest.approx(np.mean([r.scores["ssim"] for r in rows]))
    inputs = [found[name, "input"].scores["psnr"].mean for name in NOISE]
    assert inputs == sorted(inputs, reverse=True)  # each condition is noisier than the one before


def test_a_condition_with_one_image_is_said_and_has_no_spread(by_condition, tmp_path):
    assert "No interval for C3 (1 image)" in by_condition.condition_sentences()[-1]
    page = write_report(by_condition, tmp_path / "r.html")
    with (tmp_path / "r_data" / "conditions.csv").open() as file:
        rows = list(csv.DictReader(file))
    alone = [
        row for row in rows if (row["condition"], row["method"], row["metric"]) == ("C3", "once", "psnr")
    ]
    assert [row["sd"] for row in alone] == ["nan"]
    (cell,) = [
        line for line in page.read_text().split("<tr>") if line.startswith("<td>C3</td><td>restored</td>")
    ]
    assert "±" not in cell
    (cell,) = [
        line for line in page.read_text().split("<tr>") if line.startswith("<td>C2</td><td>restored</td>")
    ]
    assert "±" in cell


def test_published_scores_stand_beside_ours_in_page_csv_and_json(by_condition, tmp_path):
    page = write_report(by_condition, tmp_path / "r.html").read_text()
    assert "<td>C1</td><td>network of 2018</td>" in page
    assert "0.03768" in page
    numbers = json.loads(write_json(by_condition, tmp_path / "r.json").read_text())
    (other,) = [one for one in numbers["conditions"] if one["published"]]
    assert (other["condition"], other["scores"]["ssim"]["mean"]) == ("C1", 0.70774)
    assert {row["condition"] for row in numbers["rows"]} == set(NOISE)
    assert (tmp_path / "r_data" / "by-condition.csv").is_file()


def test_without_conditions_nothing_is_said_of_them(found, tmp_path):
    assert found.conditions == []
    assert found.condition_sentences() == []
    assert "By condition" not in write_report(found, tmp_path / "r.html").read_text()


def test_pairs_of_which_only_some_have_a_condition_are_refused(make_pair, smoother):
    pairs = [Pair(*make_pair(0), "a", condition="C1"), Pair(*make_pair(1), "b")]
    with pytest.raises(InputError, match=r"1 of 2 pairs have no condition: b;"):
        evaluate(smoother, pairs, baselines=())


BAD_TABLES = [
    ("image,condition\n0.tif,C1\n", "2 of 3 images have no condition in .*: 1.tif, 2.tif; add a row"),
    ("image,condition\n0.tif,\n1.tif,a\n2.tif,a\n", "1 of 3 images have no condition"),
    ("image,condition\n0.tif,C1\n0.tif,C2\n", "gives '0.tif' two conditions, 'C1' and 'C2'"),
    ("image;condition\n0.tif;C1\n", "has the columns image;condition; it needs image and condition, parted by commas"),
    ("image,condition\n", "has no row"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD_TABLES)
def test_a_table_that_does_not_say_it_for_all_is_refused(folders, tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_pairs(folders / "C1", folders / "GT", conditions=tmp_path / "bad.csv")


def test_a_toml_of_something_else_or_none_is_refused(folders, tmp_path):
    (tmp_path / "bad.toml").write_text('"0.tif" = ["C1"]\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"'0\.tif' is \['C1'\]; write the name of a condition"):
        read_pairs(folders / "C1", folders / "GT", conditions=tmp_path / "bad.toml")
    with pytest.raises(InputError, match="cannot read the table"):
        read_pairs(folders / "C1", folders / "GT", conditions=tmp_path / "none.toml")


def test_images_beside_the_folders_of_conditions_are_refused(folders):
    (folders / "loose.tif").write_bytes((folders / "C1" / "0.tif").read_bytes())
    with pytest.raises(InputError, match=r"loose\.tif in .* without a condition; move every image"):
        read_pairs(folders, folders / "GT", conditions="subfolders")


def test_truths_for_some_conditions_or_for_an_unknown_one_are_refused(folders, tmp_path):
    for name in ("C1", "C3"):
        (tmp_path / "truths" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no folder for C2, GT, but one for C1, C3"):
        read_pairs(folders, tmp_path / "truths", conditions="subfolders")
    for name in ("C2", "GT", "C4"):
        (tmp_path / "truths" / name).mkdir()
    with pytest.raises(
        InputError, match=r"has truths for C4, a condition of which .* has no images; there are C1"
    ):
        read_pairs(folders, tmp_path / "truths", conditions="subfolders")


def test_a_folder_without_folders_and_a_file_have_no_conditions(folders):
    with pytest.raises(InputError, match="need two folders"):
        read_pairs(folders / "C1" / "0.tif", folders / "GT" / "0.tif", conditions="subfolders")
    empty = folders / "C3" / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no folder, and each condition should be one"):
        read_pairs(empty, folders / "GT", conditions="subfolders")
    with pytest.raises(InputError, match="without a condition"):
        read_pairs(folders / "C3", folders / "GT", conditions="subfolders")


def test_published_scores_of_an_unknown_condition_or_without_scores_are_refused(tmp_path):
    table = tmp_path / "others.csv"
    table.write_text("condition,method,nrmse\nC9,theirs,0.1\n")
    with pytest.raises(InputError, match="names C9, and no image has that condition; there are C1, C2"):
        read_published(table, ["C1", "C2"])
    table.write_text("condition,method,rmse\nC1,theirs,0.1\n")
    with pytest.raises(InputError, match="it needs condition, method, and one of psnr, nrmse"):
        read_published(table, ["C1"])
    table.write_text("condition,method,nrmse\nC1,theirs,good\n")
    with pytest.raises(InputError, match="nrmse is 'good'; write a number"):
        read_published(table, ["C1"])


def test_how_much_peaks_are_widened_is_a_number_on_the_page(by_condition, tmp_path):
    # A Gaussian of 6 px blurred by one of 8 px is one of 10 px, that is 5/3 of its width.
    from dataclasses import replace

    from care_bridge.evaluate.profiles import compare_profiles

    x = np.arange(160)
    truth = np.exp(-((x - 80.0) ** 2) / (2 * 6.0**2))
    wider = np.exp(-((x - 80.0) ** 2) / (2 * 10.0**2))
    match = compare_profiles(truth, wider)
    assert match.truth_width_px == pytest.approx(6 * math.sqrt(8 * math.log(2)), rel=0.02)
    assert match.width_px == pytest.approx(10 * math.sqrt(8 * math.log(2)), rel=0.02)
    one = replace(by_condition.peaks[0], method="once", match=match)
    found = replace(by_condition, peaks=(one,))
    assert "are widened: full width at half maximum" in widths_sentence(found)
    assert "1.67 times" in widths_sentence(found)
    assert "1.67 times" in write_report(found, tmp_path / "r.html").read_text()


@pytest.mark.tf
def test_the_command_says_a_line_a_condition_and_refuses_what_is_unknown(folders, tmp_path):
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig("YX", unet_n_first=4, unet_kern_size=3, unet_n_depth=1)
    save_model(tmp_path / "tiny", config, build(config))
    others = tmp_path / "others.csv"
    others.write_text("condition,method,nrmse,ssim\nC1,theirs,0.03,0.9\n")
    words = ["evaluate", tmp_path / "tiny", folders, folders / "GT", "--conditions", "subfolders", "--quiet"]
    words += ["--out", tmp_path / "r.html", "--no-baselines", "--published", others, "--applications", "1"]
    result = CliRunner().invoke(app, [*map(str, words), "--images-out", str(tmp_path / "images")])
    assert result.exit_code in (0, 1), result.output
    assert "C1 (3 images): " in result.stdout
    assert "No interval for C3 (1 image)" in result.stdout
    assert (tmp_path / "images" / "C3" / "0.tif").is_file()
    others.write_text("condition,method,nrmse\nC7,theirs,0.03\n")
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2
    assert "C7" in result.stderr
    assert result.stderr.count("\n") == 1


def test_restored_images_of_a_condition_never_replace_the_truths(folders, tmp_path):
    truths = tmp_path / "restored" / "C1"
    truths.parent.mkdir()
    (folders / "GT").rename(truths)
    before = (truths / "0.tif").read_bytes()
    words = ["evaluate", "any", folders, truths, "--conditions", "subfolders", "--images-out", truths.parent]
    result = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert "is the folder of TARGET: its images would be replaced" in result.stderr
    assert (truths / "0.tif").read_bytes() == before
