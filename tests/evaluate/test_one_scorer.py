"""A pair has one PSNR, NRMSE and SSIM, whichever command is asked."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge import demo
from care_bridge.cli import app
from care_bridge.evaluate import evaluate
from care_bridge.evaluate.cross import score_pairs
from care_bridge.images import Image, read_image, write_image

SCORES = ("psnr", "nrmse", "ssim")
SHAPES = {"ZYX": (12, 40, 40), "TYX": (3, 40, 40), "CYX": (2, 40, 40)}


def run(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code in (0, 1), done.output
    return done


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=SHAPES)
def folders(request, tmp_path, make_pair):
    """One pair in two folders: a stack, frames of unequal brightness, or channels of unequal brightness."""
    axes, shape = request.param, SHAPES[request.param]
    source, target = make_pair(0, shape) if axes == "ZYX" else frames(make_pair, axes, shape)
    write_image(tmp_path / "source" / "pair.tif", source)
    write_image(tmp_path / "target" / "pair.tif", target)
    return tmp_path, axes


def frames(make_pair, axes, shape):
    both = [make_pair(seed, shape[1:]) for seed in range(shape[0])]
    return tuple(
        Image(np.stack([pair[side].data * (1 + 3 * k) for k, pair in enumerate(both)]), axes)
        for side in (0, 1)
    )


def test_every_scorer_gives_the_same_numbers_without_a_network(folders, smoother):
    from care_bridge.evaluate import read_pairs

    folder, axes = folders
    pairs = read_pairs(folder / "source", folder / "target")
    assert pairs[0].source.axes == axes
    evaluated = evaluate(smoother, pairs, applications=1, baselines=())
    crossed = score_pairs(smoother, pairs)
    shown = demo._score("restored", smoother.predict(pairs[0].source), pairs[0].target)
    for key, column in zip(SCORES, ("PSNR (dB)", "NRMSE", "SSIM"), strict=True):
        assert evaluated.summary("once", key).mean == getattr(crossed, key) == shown[column]


@pytest.mark.tf
def test_evaluate_sweep_cross_eval_and_the_demo_give_a_pair_the_same_numbers(folders):
    from care_bridge.opening import open_predictor

    folder, axes = folders
    sides = (folder / "source", folder / "target")
    network = {"ZYX": "ZYX", "TYX": "YX", "CYX": "YXC"}[axes]
    patch = {"ZYX": "8,16,16"}.get(axes, "16,16")
    small = ("unet_n_depth=1", "unet_kern_size=3", "train_epochs=1", "train_steps_per_epoch=2")
    run(
        "sweep", *sides, "--out", folder / "sweep", "--axes", network, "--patch-size", patch, "--quiet",
        "--patches-per-image", 8, "--grid", "unet_n_first=2", *(p for text in small for p in ("--set", text)),
        "--test-source", sides[0], "--test-target", sides[1],
    )  # fmt: skip
    model = folder / "sweep" / "unet_n_first-2"
    run("cross-eval", "--out", folder / "cross", "--quiet", "--data", f"pair={sides[0]},{sides[1]}",
        "--model", f"model={model}")  # fmt: skip
    run("evaluate", model, *sides, "--out", folder / "report.html", "--json", folder / "report.json",
        "--no-baselines", "--applications", 1, "--quiet")  # fmt: skip

    (swept,) = read_rows(folder / "sweep" / "sweep.csv")
    as_they_are, crossed = read_rows(folder / "cross" / "cross-eval.csv")
    summary = json.loads((folder / "report.json").read_text())["summary"]
    source, target = (read_image(side / "pair.tif") for side in sides)
    restored = demo._score("restored", open_predictor(model, runtime="keras").predict(source), target)
    for key, column, shown in zip(
        SCORES, ("psnr_db", "nrmse", "ssim"), ("PSNR (dB)", "NRMSE", "SSIM"), strict=True
    ):
        assert float(as_they_are[column]) == summary["input"][key]["mean"]
        assert float(swept[key]) == float(crossed[column]) == summary["once"][key]["mean"] == restored[shown]
