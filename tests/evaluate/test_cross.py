"""Models x data sets."""

import math

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.evaluate import Pair, read_pairs
from care_bridge.evaluate.cross import cross_evaluate, score_pairs
from care_bridge.evaluate.evaluation import INPUT
from care_bridge.evaluate.scores import score_image
from care_bridge.images import Image, write_image
from care_bridge.predictor import ImagesOnly


class Nothing(ImagesOnly):
    runtime = "none"

    def predict(self, image):
        return image.replace(data=image.data.astype(np.float32))


class Projection(ImagesOnly):
    runtime = "none"

    def predict(self, image):
        return Image(image.data.astype(np.float32).mean(axis=0), "YX")


def test_cross_evaluation_has_a_row_for_the_images_as_they_are(pairs, tmp_path):
    matrix = cross_evaluate({"same": Nothing()}, {"one": pairs, "two": pairs[:1]})
    # A network that changes nothing scores as its input, up to float32.
    assert matrix.cells["same", "two"].psnr == pytest.approx(matrix.cells[INPUT, "two"].psnr, abs=1e-3)
    assert matrix.images == {"one": 4, "two": 1}
    matrix.save(tmp_path)
    assert len((tmp_path / "cross-eval.csv").read_text().splitlines()) == 5
    assert (tmp_path / "cross-eval.png").stat().st_size > 5000
    with pytest.raises(InputError, match="cannot be called"):
        cross_evaluate({INPUT: Nothing()}, {"one": pairs})


def test_a_truth_of_another_size_is_said_with_its_name(pairs):
    cut = Pair(pairs[0].source, pairs[0].target.replace(data=pairs[0].target.data[:8]), "short.tif")
    with pytest.raises(InputError, match=r"^short\.tif: .*shape \(96, 96\).*they must show the same field"):
        score_pairs(Nothing(), [cut])


def test_a_projection_has_no_score_for_its_input(make_pair, tmp_path):
    source, target = make_pair(0, (6, 64, 64))
    flat = Pair(source, target.replace(data=target.data.mean(axis=0), axes="YX"), "p")
    matrix = cross_evaluate({"projection": Projection()}, {"one": [flat]})
    assert math.isnan(matrix.cells[INPUT, "one"].psnr)
    assert matrix.cells["projection", "one"].psnr > 20
    matrix.save(tmp_path)


def test_pixels_outside_a_mask_do_not_count(pairs, smoother):
    mask = np.zeros((96, 96), bool)
    mask[:, 48:] = True
    masked = Pair(pairs[0].source, pairs[0].target, "m", mask)
    expected = score_image(smoother.predict(pairs[0].source), pairs[0].target, mask=mask)
    assert score_pairs(smoother, [masked]).psnr == expected.psnr


def test_only_the_first_pairs_by_name_are_read_when_asked(make_pair, tmp_path):
    for seed in (2, 0, 1):
        for side, image in zip(("source", "target"), make_pair(seed), strict=True):
            write_image(tmp_path / side / f"cell_{seed}.tif", image)
    found = read_pairs(tmp_path / "source", tmp_path / "target", limit=2)
    assert [pair.name for pair in found] == ["cell_0.tif", "cell_1.tif"]
