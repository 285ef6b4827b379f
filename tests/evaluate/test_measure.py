import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from care_bridge.errors import InputError
from care_bridge.evaluate import Pair, evaluate, report_page
from care_bridge.evaluate.applications import Verdict
from care_bridge.evaluate.evaluation import ALIGNED, INPUT, OWN, SINGLE
from care_bridge.evaluate.scores import score_image, summarise
from care_bridge.images import Image
from care_bridge.intervals import disagreement
from care_bridge.predictor import ImagesOnly


def test_every_method_has_a_row_for_every_image(found):
    assert found.methods == ("input", "once", "twice", SINGLE, "Gaussian", "median")
    assert len(found.rows) == len(found.methods) * 4
    assert len(found.series) == 4
    assert all(len(series) == 3 for series in found.series)


def test_the_ensemble_is_scored_as_the_mean_of_its_members(found, pairs, probabilistic):
    members = [probabilistic(sigma_px, 40.0).predict(pairs[0].source).data[0] for sigma_px in (0.9, 1.0, 1.1)]
    mean = pairs[0].source.replace(data=np.mean(members, axis=0))
    assert found.values("once", "nrmse")[0] == pytest.approx(
        score_image(mean, pairs[0].target).nrmse, rel=1e-5
    )
    single = [score_image(pairs[0].source.replace(data=one), pairs[0].target).nrmse for one in members]
    assert found.values(SINGLE, "nrmse")[0] == pytest.approx(np.mean(single), rel=1e-5)


def test_disagreement_is_reported_an_image(found, pairs, probabilistic):
    means = np.stack([probabilistic(s).predict(pairs[1].source).data[0] for s in (0.9, 1.0, 1.1)])
    expected = disagreement(means.astype(float), np.full(means.shape, 40.0)).mean()
    assert found.reliability.d_mean["cell_1.tif"] == pytest.approx(expected, rel=1e-3)


def test_calibration_names_its_two_intensity_scales(found):
    assert [curve.scale for curve in found.reliability.calibrations] == [OWN, ALIGNED]
    assert found.reliability.mended.scale.startswith(ALIGNED)


def test_what_the_advice_is_against_is_not_called_good(found):
    alone = replace(found, baselines=())
    assert alone.good
    against = replace(found.applications_verdict, applications=0, text="Do not apply: it raises NRMSE.")
    assert not replace(alone, applications_verdict=against).good


def test_a_hairs_breadth_is_not_called_better(found):
    def near(row):
        input_db = next(r.scores["psnr"] for r in found.rows if (r.image, r.method) == (row.image, "input"))
        return replace(row, scores={**row.scores, "psnr": input_db + 0.001}) if row.method == "once" else row

    hair = replace(found, rows=tuple(near(row) for row in found.rows), applications_verdict=None)
    assert "no better than its input" in hair.verdict
    assert not hair.good


def test_the_verdict_says_what_was_beaten(found):
    assert found.good == (
        found.summary("once", "psnr").mean
        > max(found.summary(name, "psnr").mean for name in (INPUT, "Gaussian", "median"))
    )
    assert "better than its input" in found.verdict
    assert "4 images are too few for a test" in found.verdict


def test_a_net_that_does_nothing_is_no_better_than_its_input(pairs):
    class Nothing(ImagesOnly):
        runtime = "none"

        def predict(self, image):
            return image.replace(data=image.data.astype(np.float32))

    found = evaluate(Nothing(), pairs[:2], baselines=(), applications=1)
    assert not found.good
    assert "no better than its input" in found.verdict


def test_without_training_images_the_filters_are_tuned_on_the_evaluated_ones_and_it_is_said(pairs, smoother):
    found = evaluate(smoother, pairs[:1], baselines=("median",))
    assert "flatters the filters" in found.settings["baselines tuned on"]


def test_training_images_choose_the_filters_and_know_strangers(found, pairs, smoother):
    assert found.settings["baselines tuned on"] == "2 training images"
    blurred = pairs[0].source.replace(data=gaussian_filter(pairs[0].source.data, 3))
    odd = evaluate(
        smoother, [Pair(blurred, pairs[0].target, "odd")], training=pairs[:2], baselines=(), applications=1
    )
    assert "sharpness" in " ".join(odd.foreign["odd"])


def test_a_single_image_has_no_interval_and_says_so(pairs, smoother):
    found = evaluate(smoother, pairs[:1], baselines=())
    assert math.isnan(found.summary("once", "psnr").low)
    assert "One image is too few for a test" in found.verdict


def test_numbers_are_json_without_nan(found):
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["summary"]["once"]["psnr"]["n"] == 4


def test_progress_ends_at_its_total(pairs, smoother):
    seen = []
    evaluate(
        smoother,
        pairs[:2],
        baselines=("median",),
        progress=lambda done, total, what: seen.append((what, done, total)),
    )
    assert ("images", 2, 2) in seen
    assert ("tuning baselines", 3, 3) in seen


def test_holes_and_masks_leave_the_rest_evaluated(pairs, smoother):
    data = pairs[0].target.data.astype(np.float32)
    data[20:30, 20:30] = np.nan
    holey = Pair(pairs[0].source, pairs[0].target.replace(data=data), "holey")
    mask = np.zeros(data.shape, bool)
    mask[40:, :] = True
    found = evaluate(smoother, [holey, replace(pairs[1], mask=mask)], baselines=("median",))
    assert all(math.isfinite(value) for value in found.values("once", "psnr"))
    assert "100 pixels are NaN" in " ".join(found.warnings["holey"])
    assert [shown.name for shown in found.shown] == ["holey", "cell_1.tif"] or len(found.shown) == 2


def test_different_bit_depths_are_scored_and_said(pairs, smoother):
    eight = pairs[0].source.replace(data=(pairs[0].source.data // 16).astype(np.uint8))
    found = evaluate(smoother, [Pair(eight, pairs[0].target, "eight")], baselines=())
    assert found.values("once", "psnr")[0] > 20
    assert "source is uint8, target uint16" in " ".join(found.warnings["eight"])


def test_misregistered_and_saturated_pairs_are_said(pairs, smoother):
    moved = pairs[0].target.replace(data=np.roll(pairs[0].target.data, 4, 1))
    clipped = pairs[1].target.replace(data=np.minimum(pairs[1].target.data, 900))
    found = evaluate(
        smoother,
        [Pair(pairs[0].source, moved, "moved"), Pair(pairs[1].source, clipped, "clipped")],
        baselines=(),
    )
    assert "shifted by" in " ".join(found.warnings["moved"])
    assert "saturated" in " ".join(found.warnings["clipped"])
    assert "2 of 2 pairs" in found.verdict


def test_a_stack_of_one_plane_is_evaluated_like_the_plane(pairs, smoother):
    flat = evaluate(smoother, pairs[:1], baselines=())
    stack = Pair(
        *(i.replace(data=i.data[None], axes="ZYX") for i in (pairs[0].source, pairs[0].target)), "stack"
    )
    thick = evaluate(smoother, [stack], baselines=())
    assert thick.values("once", "ssim") == pytest.approx(flat.values("once", "ssim"))


def test_a_stack_is_evaluated_whole_and_shown_by_its_middle_plane(make_pair, smoother):
    source, target = make_pair(0, (6, 64, 64))
    found = evaluate(smoother, [Pair(source, target, "stack")], baselines=("Gaussian",))
    assert found.values("Gaussian", "psnr")[0] > found.values("input", "psnr")[0]
    assert found.shown[0].planes["truth"].shape == (64, 64)


def test_a_projection_is_scored_without_its_input(make_pair):
    source, target = make_pair(0, (6, 64, 64))

    class Projection(ImagesOnly):
        runtime = "none"

        def predict(self, image):
            return Image(image.data.astype(np.float32).mean(axis=0), "YX")

    flat = target.replace(data=target.data.mean(axis=0), axes="YX")
    found = evaluate(Projection(), [Pair(source, flat, "p")], applications=1)
    assert found.methods == ("once",)
    assert found.good


def test_channels_that_do_not_fit_are_said(pairs):
    class TwoChannels(ImagesOnly):
        runtime = "none"

        def predict(self, image):
            return Image(np.stack([image.data] * 3), "C" + image.axes)

    with pytest.raises(InputError, match="they must show the same field with the same channels"):
        evaluate(TwoChannels(), pairs[:1], baselines=(), applications=1)


def test_nothing_to_evaluate_is_said(smoother):
    with pytest.raises(InputError, match="no pair to evaluate"):
        evaluate(smoother, [])


def test_a_constant_truth_is_said(pairs, smoother):
    flat = pairs[0].target.replace(data=np.full_like(pairs[0].target.data, 7))
    with pytest.raises(InputError, match=r"flat: .*errors relative to its range are undefined"):
        evaluate(smoother, [Pair(pairs[0].source, flat, "flat")], baselines=())


def test_a_stack_with_a_blank_middle_plane_is_scored_without_pictures(make_pair, smoother):
    source, target = make_pair(0, (5, 48, 48))
    data = target.data.copy()
    data[2] = 100
    found = evaluate(smoother, [Pair(source, target.replace(data=data), "stack")], baselines=())
    assert math.isfinite(found.values("once", "psnr")[0])
    assert found.shown == ()
    assert "PSNR" in report_page(found).html()


def changed(found, method, **scores):
    """The evaluation with scores of a method raised by so much on every image."""
    rows = [
        replace(row, scores={key: value + scores.get(key, 0.0) for key, value in row.scores.items()})
        if row.method == method
        else row
        for row in found.rows
    ]
    return replace(found, rows=tuple(rows))


def test_the_headline_names_psnr_ssim_the_number_of_applications_and_the_best_filter(found):
    winner = changed(found, "once", psnr=10.0, ssim=0.5)
    winner = replace(winner, applications_verdict=Verdict(1, "Apply once: it lowers NRMSE."))
    assert winner.good
    first, *_ = winner.verdict.split(": ")
    assert first.startswith("Applied once, it gives ")
    assert "dB PSNR, SSIM " in first
    assert f"better than the best filter ({winner.best_filter}) (" in winner.verdict
    assert winner.verdict.endswith("Apply once.")


def test_a_network_that_loses_to_a_filter_is_never_advised_not_even_twice(found):
    loser = replace(
        changed(found, "Gaussian", psnr=20.0, ssim=0.5),
        applications_verdict=Verdict(2, "Apply twice: the second application lowers NRMSE."),
    )
    assert not loser.good
    for text in (loser.verdict, loser.applications_text, loser.to_dict()["applications_verdict"]["text"]):
        assert "Apply twice" not in text
    assert "Do not apply this network to such images: the best filter (Gaussian)" in loser.verdict
    assert loser.to_dict()["applications_verdict"]["applications"] == 0
    assert "Apply twice" not in report_page(loser).html()


def test_a_better_psnr_with_a_worse_ssim_is_no_better(found):
    mixed = changed(found, "once", psnr=20.0, ssim=-0.9)
    assert not replace(mixed, applications_verdict=None).good
    assert "no better than its input in SSIM, only in PSNR" in mixed.verdict


def test_twice_is_not_judged_where_the_whole_images_are_worse_for_it(found):
    twice = replace(changed(found, "twice", psnr=-5.0), applications_verdict=Verdict(2, "Apply twice: x."))
    assert twice.kept == "once"
    assert "Apply twice" not in twice.verdict


def test_two_images_have_no_interval(smoother, pairs):
    html = report_page(evaluate(smoother, pairs[:2], baselines=())).html()
    assert "2 images: there is no interval and no test" in html
    table = html[html.index("Scores") : html.index("Every image")]
    assert "\u00a0±\u00a0" not in table
    assert not math.isfinite(summarise([1.0, 2.0]).high)


def test_intervals_are_held_against_the_truth_on_the_scale_that_was_trained(pairs, probabilistic):
    """Of "fitted" the truth's own gain and offset do not matter; of "source" they do."""
    net = probabilistic(1.0, 40.0)
    others = [
        Pair(one.source, one.target.replace(data=one.target.data * 0.5 + 300), one.name) for one in pairs
    ]

    def held(some, scale):
        how = {"baselines": (), "applications": 1, "target_scale": scale}
        return evaluate(net, some, **how).reliability.calibrations[0]

    for scale, words in (
        ("own", OWN),
        ("source", "the source's grey levels"),
        ("fitted", "truth fitted to its source"),
    ):
        assert held(pairs, scale).scale == words
    same, moved = (held(some, "fitted").at(0.9) for some in (pairs, others))
    assert moved == pytest.approx(same, abs=0.01)
    same, moved = (held(some, "source").at(0.9) for some in (pairs, others))
    assert moved < same / 2


def test_a_temperature_stretches_an_ensembles_mixture_and_is_taken_out_of_a_single_nets_widths(
    pairs, probabilistic
):
    members = [probabilistic(sigma_px, 40.0) for sigma_px in (0.9, 1.0, 1.1)]
    how = {"baselines": (), "applications": 1}
    plain = evaluate(members[0], pairs, members=members, **how).reliability
    warm = evaluate(members[0], pairs, members=members, temperature=2.0, **how).reliability
    # Back by a half it is the very mixture again, up to the last bits.
    np.testing.assert_allclose(warm.uncalibrated[1].coverage, plain.calibrations[1].coverage, atol=1e-3)
    assert warm.calibrations[1].at(0.5) > plain.calibrations[1].at(0.5) + 0.1
    assert (plain.temperature, plain.uncalibrated) == (None, ())
    assert warm.d_mean == pytest.approx(plain.d_mean, abs=1e-3)
    single = evaluate(probabilistic(1.0, 80.0), pairs, temperature=2.0, **how).reliability
    cold = evaluate(probabilistic(1.0, 40.0), pairs, **how).reliability
    np.testing.assert_allclose(single.uncalibrated[1].coverage, cold.calibrations[1].coverage, atol=1e-3)
