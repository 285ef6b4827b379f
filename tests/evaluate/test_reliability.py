import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from care_bridge.errors import InputError
from care_bridge.evaluate.reliability import (
    aligned_truth,
    binned,
    block_correlation,
    calibrate,
    foreign,
    input_statistics,
    interval_images,
)
from care_bridge.images import Image
from care_bridge.intervals import (
    Mixture,
    disagreement,
    laplace_cdf,
    laplace_interval,
    laplace_nll,
    laplace_quantile,
)

finite = st.floats(-50, 50)
positive = st.floats(0.2, 20)  # narrower ones underflow in scipy


@given(mean=finite, scale=positive, level=st.floats(0.01, 0.99))
def test_interval_holds_its_share_of_scipys_laplace(mean, scale, level):
    low, high = laplace_interval(np.array(mean), np.array(scale), level=level)
    there = stats.laplace(mean, scale)
    assert there.cdf(high) - there.cdf(low) == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize(
    ("level", "widths"), [(0.5, 0.693147), (0.68, 1.139434), (0.9, 2.302585), (0.95, 2.995732)]
)
def test_interval_widths_are_the_known_ones(level, widths):
    _, high = laplace_interval(np.array(0.0), np.array(1.0), level=level)
    assert float(high) == pytest.approx(widths, abs=1e-6)  # -ln(1 - level)


@given(mean=finite, scale=positive, value=finite, q=st.floats(0.001, 0.999))
def test_laplace_identities(mean, scale, value, q):
    there = stats.laplace(mean, scale)
    m, s = np.array(mean), np.array(scale)
    assert float(laplace_cdf(np.array(value), m, s)) == pytest.approx(there.cdf(value), abs=1e-6)
    assert float(laplace_quantile(q, m, s)) == pytest.approx(there.ppf(q), rel=1e-6, abs=1e-6)
    assert float(laplace_nll(np.array(value), m, s)) == pytest.approx(-there.logpdf(value), rel=1e-6)


def test_a_level_of_one_is_refused():
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        laplace_interval(np.zeros(2), np.ones(2), level=1.0)


def dense_disagreement(means, scales):
    """Trapezium on 400 001 points: another road to the same number."""
    z = np.linspace((means - 40 * scales).min(), (means + 40 * scales).max(), 400_001)
    each = np.exp(-np.abs(z - means[:, None]) / scales[:, None]) / (2 * scales[:, None])
    mixed = each.mean(axis=0)
    entropy = -np.trapezoid(np.where(mixed > 0, mixed * np.log(np.maximum(mixed, 1e-300)), 0), z)
    return (entropy - np.mean(1 + np.log(2 * scales))) / math.log(len(means))


def test_disagreement_is_within_a_hundredth_of_dense_integration_on_60_ensembles():
    draw = np.random.default_rng(7)
    worst = 0.0
    for _ in range(60):
        members = draw.integers(2, 8)
        means = draw.normal(0, draw.uniform(0.1, 5), members)
        scales = np.exp(draw.normal(0, 0.7, members))
        worst = max(worst, abs(float(disagreement(means, scales)) - dense_disagreement(means, scales)))
    assert worst < 0.01


def test_equal_members_agree_and_disjoint_members_do_not():
    assert disagreement(np.full((5, 3), 2.0), np.full((5, 3), 0.3)) == pytest.approx(0.0, abs=1e-6)
    apart = np.arange(5.0)[:, None] * 1e4
    assert disagreement(apart, np.ones((5, 1))) == pytest.approx(1.0, abs=1e-6)


@given(shift=finite, factor=st.floats(0.1, 10))
def test_disagreement_has_no_unit(shift, factor):
    means, scales = np.array([[0.0], [1.0], [1.5]]), np.array([[0.5], [1.0], [0.7]])
    same = disagreement(shift + factor * means, factor * scales)
    assert float(same[0]) == pytest.approx(float(disagreement(means, scales)[0]), abs=1e-5)


def test_disagreement_in_blocks_is_that_of_each_pixel(monkeypatch):
    draw = np.random.default_rng(1)
    means, scales = draw.normal(size=(3, 40, 50)), np.exp(draw.normal(size=(3, 40, 50)))
    whole = disagreement(means, scales, n=2048)  # several blocks
    assert whole[7, 9] == pytest.approx(float(disagreement(means[:, 7, 9], scales[:, 7, 9], n=2048)))
    assert whole.shape == (40, 50)


def test_one_member_cannot_disagree():
    with pytest.raises(InputError, match="at least two members; received 1"):
        disagreement(np.zeros((1, 4)), np.ones((1, 4)))


@pytest.fixture(scope="module")
def mixture():
    return Mixture(np.array([[0.0], [2.0], [3.0]]), np.array([[0.5], [1.0], [0.25]]))


def test_mixture_moments_are_those_of_draws(mixture):
    draw = np.random.default_rng(0)
    member = draw.integers(0, 3, 400_000)
    values = draw.laplace(mixture.means[member, 0], mixture.scales[member, 0])
    assert float(mixture.mean[0]) == pytest.approx(values.mean(), abs=0.01)
    assert float(mixture.variance[0]) == pytest.approx(values.var(), rel=0.02)
    low, high = mixture.interval(0.8)
    assert np.mean((values >= low) & (values <= high)) == pytest.approx(0.8, abs=0.005)


def test_mixture_quantile_inverts_its_cdf(mixture):
    for q in (0.01, 0.3, 0.5, 0.97):
        assert float(mixture.cdf(mixture.quantile(q))[0]) == pytest.approx(q, abs=1e-9)


def test_mixture_likelihood_is_the_mean_density(mixture):
    value = np.array([1.3])
    density = np.mean(
        [stats.laplace(m, s).pdf(1.3) for m, s in zip(mixture.means, mixture.scales, strict=True)]
    )
    assert float(mixture.nll(value)[0]) == pytest.approx(-math.log(density))


def test_mixture_of_one_member_is_that_member():
    one = Mixture(np.array([[1.0]]), np.array([[2.0]]))
    assert float(one.quantile(0.9)[0]) == pytest.approx(
        float(laplace_quantile(0.9, np.array(1.0), np.array(2.0)))
    )


def test_scale_of_zero_is_refused():
    with pytest.raises(InputError, match="scales must be positive"):
        Mixture(np.zeros((2, 2)), np.zeros((2, 2)))


def test_calibration_of_truths_drawn_from_the_prediction_is_the_diagonal():
    draw = np.random.default_rng(2)
    mean, scale = draw.normal(size=200_000), np.exp(draw.normal(size=200_000))
    found = calibrate(draw.laplace(mean, scale), mean, scale, scale="drawn")
    assert found.largest < 0.005
    assert found.factor == pytest.approx(1.0, abs=0.01)
    assert found.at(0.9) == pytest.approx(0.9, abs=0.005)


def test_scales_half_as_wide_are_mended_by_the_factor():
    draw = np.random.default_rng(3)
    mean = np.zeros(100_000)
    truth = draw.laplace(mean, 2.0)
    found = calibrate(truth, mean, np.ones_like(mean), scale="drawn")
    assert found.factor == pytest.approx(2.0, rel=0.02)
    assert found.at(0.9) == pytest.approx(1 - 0.1**0.5, abs=0.01)  # exp(-2.303 / 2)
    assert calibrate(truth, mean, np.full_like(mean, found.factor), scale="drawn").largest < 0.01


def test_calibration_of_an_ensemble_is_its_mixtures():
    draw = np.random.default_rng(4)
    means = np.stack([np.zeros(50_000), np.full(50_000, 3.0)])
    scales = np.ones_like(means)
    chosen = draw.integers(0, 2, 50_000)
    truth = draw.laplace(np.take_along_axis(means, chosen[None], 0)[0], 1.0)
    assert calibrate(truth, means, scales, scale="drawn").largest < 0.01


def test_alignment_undoes_a_scale_shift():
    draw = np.random.default_rng(5)
    prediction = draw.normal(size=(40, 40))
    assert aligned_truth(prediction * 3 + 7, prediction) == pytest.approx(prediction)


def test_bins_hold_equally_many_pixels_in_order():
    rows = binned(np.arange(10.0), {"error": np.arange(10.0) * 2}, bins=5)
    assert [row["scale"] for row in rows] == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert [row["error"] for row in rows] == [1, 5, 9, 13, 17]


def test_block_correlation_sees_the_order_of_blocks():
    ramp = np.add.outer(np.arange(32.0), np.arange(32.0))
    assert block_correlation(ramp, ramp**3) == pytest.approx(1.0)
    assert block_correlation(ramp, -ramp) == pytest.approx(-1.0)
    assert math.isnan(block_correlation(ramp, np.ones_like(ramp)))


def test_a_familiar_input_is_not_foreign_and_a_blurred_or_noisier_one_is(make_pair):
    from scipy.ndimage import gaussian_filter

    training = [input_statistics(make_pair(seed)[0].data) for seed in range(4)]
    source = make_pair(9)[0].data.astype(float)
    assert foreign(input_statistics(source), training) == []
    assert "sharpness" in " ".join(foreign(input_statistics(gaussian_filter(source, 3)), training))
    noisier = source + np.random.default_rng(0).normal(0, 800, source.shape)
    assert "noise" in " ".join(foreign(input_statistics(noisier), training))


def test_much_disagreement_is_foreign(make_pair):
    own = input_statistics(make_pair(0)[0].data)
    reasons = foreign(own, [own], d_mean=0.09, d_reference=[0.03, 0.04])
    assert reasons == ["the networks disagree (mean D 0.090) more than on familiar images (up to 0.040)"]


def probabilistic_result(mean, scale):
    data = np.stack([np.full((3, 4), mean), np.full((3, 4), scale)])
    return Image(data, "CYX", {"X": 0.1}, has_widths=True)


def test_interval_images_of_a_single_net_are_laplaces():
    like = Image(np.zeros((3, 4)), "YX")
    sure = interval_images([probabilistic_result(5.0, 2.0)], like=like, level=0.5)
    assert sure.high.axes == "YX"
    assert sure.high.pixel_size_um == {"X": 0.1}
    assert sure.high.data == pytest.approx(5 + 2 * math.log(2))
    assert sure.low.data == pytest.approx(5 - 2 * math.log(2))
    assert sure.disagreement is None


def test_interval_images_of_an_ensemble_hold_its_mixture_and_d():
    like = Image(np.zeros((3, 4)), "YX")
    results = [probabilistic_result(mean, 1.0) for mean in (0.0, 4.0)]
    sure = interval_images(results, like=like, level=0.9)
    mixture = Mixture(np.array([[0.0], [4.0]]), np.ones((2, 1)))
    assert sure.mean.data == pytest.approx(2.0)
    assert sure.high.data == pytest.approx(float(mixture.quantile(0.95)[0]), rel=1e-5)
    assert sure.disagreement.data == pytest.approx(
        float(disagreement(mixture.means, mixture.scales)[0]), abs=1e-5
    )


def test_a_model_without_widths_has_no_interval_and_it_is_said():
    like = Image(np.zeros((3, 4)), "YX")
    with pytest.raises(InputError, match="train with --probabilistic"):
        interval_images([like], like=like)
