"""The tables of `care-bridge sweep` and `care-bridge cross-eval` go into the report of `care-bridge evaluate`."""

from __future__ import annotations

import csv

import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.images import write_image

pytestmark = pytest.mark.tf


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def folders(tmp_path, make_pair):
    for seed in range(2):
        for side, image in zip(("source", "target"), make_pair(seed, (64, 64)), strict=True):
            write_image(tmp_path / side / f"cell_{seed}.tif", image)
    return tmp_path / "source", tmp_path / "target"


def test_sweep_and_cross_evaluation_are_shown_in_one_report(folders, tmp_path):
    source, target = folders
    small = ("unet_n_depth=1", "unet_kern_size=3", "train_epochs=1", "train_steps_per_epoch=2")
    swept = run(
        "sweep", source, target, "--out", tmp_path / "sweep", "--patch-size", "16,16", "--patches-per-image", 8,
        "--grid", "unet_n_first=2,4", *(part for text in small for part in ("--set", text)), "--quiet",
        "--test-source", source, "--test-target", target,
    )  # fmt: skip
    assert swept.exit_code == 0, swept.output
    models = [
        folder for folder in sorted((tmp_path / "sweep").iterdir()) if (folder / "config.json").is_file()
    ]
    assert len(models) == 2
    crossed = run(
        "cross-eval", "--out", tmp_path / "cross", "--quiet", "--data", f"cells={source},{target}",
        *(part for number, folder in enumerate(models) for part in ("--model", f"model {number}={folder}")),
    )  # fmt: skip
    assert crossed.exit_code == 0, crossed.output

    report = tmp_path / "report.html"
    judged = run(
        "evaluate", models[0], source, target, "--out", report, "--no-baselines", "--quiet",
        "--sweep", tmp_path / "sweep" / "sweep.csv", "--cross", tmp_path / "cross" / "cross-eval.csv",
    )  # fmt: skip
    assert judged.exit_code in (0, 1), judged.output
    page = report.read_text(encoding="utf-8")
    assert "The best by nrmse is marked" in page
    assert "nrmse: a model a line, a data set a column" in page
    with (tmp_path / "cross" / "cross-eval.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"cells"}
    assert {"model 0", "model 1"} < {row["model"] for row in rows}
    assert all(row["model"] in page for row in rows)


def test_a_sweep_with_a_patch_size_that_is_none_is_one_sentence(folders, tmp_path):
    result = run("sweep", *folders, "--out", tmp_path / "out", "--grid", "seed=1", "--patch-size", "64;64")
    assert result.exit_code == 2, result.output
    assert (
        result.output
        == "care-bridge: --patch-size '64;64' is not understood; give whole numbers, e.g. 64,64\n"
    )
    assert not (tmp_path / "out").exists()
