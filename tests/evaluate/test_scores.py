import math

import numpy as np
import pytest
from scipy import stats
from skimage.metrics import structural_similarity

from care_bridge.errors import InputError
from care_bridge.evaluate.scores import (
    MS_SSIM_WEIGHTS,
    fields,
    frc,
    frc_resolution_px,
    masked_ssim,
    ms_ssim,
    paired_test,
    score,
    score_image,
    summarise,
)
from care_bridge.images import Image
from care_bridge.metrics import UNIFORM, WEIGERT


@pytest.fixture(scope="module")
def pair(make_pair):
    source, target = make_pair(3, (190, 200))
    return source.data.astype(float), target.data.astype(float)


def test_scores_do_not_notice_scale_and_offset_of_the_prediction(pair):
    source, target = pair
    one, two = score(source, target).as_dict(), score(source * 3.7 - 500, target).as_dict()
    assert one == pytest.approx(two, rel=1e-6)


def test_nrmse_is_the_hand_made_one(pair):
    source, target = pair
    low, high = np.percentile(target, [0.1, 99.9])
    truth = (target - low) / (high - low)
    slope, offset = np.polyfit(source.ravel(), truth.ravel(), 1)  # least squares by another road
    error = math.sqrt(np.mean((slope * source + offset - truth) ** 2))
    found = score(source, target)
    assert found.nrmse == pytest.approx(error, rel=1e-9)
    assert found.psnr == pytest.approx(-20 * math.log10(error), rel=1e-9)
    assert found.pearson == pytest.approx(stats.pearsonr(source.ravel(), target.ravel()).statistic)


@pytest.mark.parametrize("setting", [WEIGERT, UNIFORM])
def test_ssim_with_a_hole_is_the_mean_of_skimages_map_over_whole_windows(pair, setting):
    source, target = (image / 2200 for image in pair)
    valid = np.ones(target.shape, bool)
    valid[40:70, 50:90] = False
    options = (
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        if setting is WEIGERT
        else {"win_size": 7, "use_sample_covariance": True}
    )
    _, local = structural_similarity(target, source, data_range=1.0, full=True, **options)
    rim = setting.width_px // 2
    counted = np.zeros(target.shape, bool)
    counted[rim:-rim, rim:-rim] = True
    counted[40 - rim : 70 + rim, 50 - rim : 90 + rim] = False
    assert masked_ssim(source, target, valid, setting=setting) == pytest.approx(
        local[counted].mean(), abs=1e-9
    )


def test_pixels_in_a_hole_change_no_score(pair):
    source, target = (image.copy() for image in pair)
    mask = np.ones(target.shape, bool)
    mask[30:60, 30:60] = False
    before = score(source, target, mask=mask).as_dict()
    source[30:60, 30:60], target[30:60, 30:60] = 1e6, np.nan
    after = score(source, target, mask=mask).as_dict()
    without_mask = score(source, target).as_dict()
    for key in ("nrmse", "ssim", "ssim_uniform", "pearson"):
        assert after[key] == pytest.approx(before[key]) == pytest.approx(without_mask[key])
    assert math.isnan(after["frc_px"])
    assert math.isnan(after["ms_ssim"])


def test_no_valid_pixel_is_said(pair):
    with pytest.raises(InputError, match="no pixel is left to score"):
        score(pair[0], np.full_like(pair[1], np.nan))


def test_a_mask_of_another_shape_is_said(pair):
    with pytest.raises(InputError, match=r"the mask has shape \(3, 3\)"):
        score(*pair, mask=np.ones((3, 3), bool))


@pytest.mark.tf
def test_ms_ssim_is_tensorflows(pair):
    import tensorflow as tf

    source, target = ((image[:176, :192] / 2200).astype(np.float32) for image in pair)
    expected = tf.image.ssim_multiscale(
        source[..., None], target[..., None], 1.0, power_factors=MS_SSIM_WEIGHTS
    )
    assert ms_ssim(source, target) == pytest.approx(float(expected), abs=2e-5)  # float32 there


def test_ms_ssim_of_one_scale_is_ssim_without_a_border(pair):
    source, target = (image[:16, :18] / 2200 for image in pair)
    weights = np.outer(*[np.exp(-(np.arange(-5, 6) ** 2) / 4.5)] * 2)
    weights /= weights.sum()
    local = []
    for y in range(6):
        for x in range(8):
            a, b = source[y : y + 11, x : x + 11], target[y : y + 11, x : x + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            vab = (weights * (a - ma) * (b - mb)).sum()
            local.append(
                (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
            )
    assert ms_ssim(source, target) == pytest.approx(np.mean(local), abs=1e-9)


def test_ms_ssim_of_equal_images_is_one(pair):
    assert ms_ssim(pair[1] / 2200, pair[1] / 2200) == pytest.approx(1.0)


def test_frc_finds_the_frequency_up_to_which_two_images_share_structure():
    draw = np.random.default_rng(0)
    size, limit = 256, 0.2  # cycles a pixel: a period of 5 px
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    common = draw.normal(size=(size, size))

    def image():
        own = draw.normal(size=(size, size))
        spectrum = np.where(radius < limit, np.fft.fft2(common), np.fft.fft2(own))
        return np.real(np.fft.ifft2(spectrum))

    frequency, correlation = frc(image(), image())
    assert frc_resolution_px(frequency, correlation) == pytest.approx(1 / limit, rel=0.03)
    assert correlation[frequency < 0.18] == pytest.approx(1.0, abs=0.02)


def test_frc_of_an_image_with_itself_reaches_nyquist(pair):
    frequency, correlation = frc(pair[0], pair[0])
    assert correlation == pytest.approx(1.0)
    assert frc_resolution_px(frequency, correlation) == 2.0


def test_fields_take_frames_and_channels_apart():
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = dict(fields(Image(data, "TCYX")))
    assert list(found) == ["T0 C0", "T0 C1", "T0 C2", "T1 C0", "T1 C1", "T1 C2"]
    np.testing.assert_array_equal(found["T1 C2"], data[1, 2])


def test_a_stack_of_one_plane_scores_as_that_plane(make_pair):
    source, target = make_pair(1)
    stacks = [image.replace(data=image.data[None], axes="ZYX") for image in (source, target)]
    assert score_image(*stacks) == score_image(source, target)


def test_a_thin_stack_is_scored_plane_by_plane(make_pair):
    source, target = make_pair(1, (4, 48, 48))
    found = score_image(source, target)
    single = [score(s, t).ssim for s, t in zip(source.data, target.data, strict=True)]
    assert found.ssim == pytest.approx(np.mean(single), abs=0.02)  # each plane aligned by itself here
    assert found.frc_px >= 2


def test_channels_that_do_not_fit_are_said(make_pair):
    source, target = make_pair(1)
    two = source.replace(data=np.stack([source.data, source.data]), axes="CYX")
    with pytest.raises(InputError, match=r"cell_1.tif: the prediction has axes CYX.*same channels"):
        score_image(two, target)


def test_summary_is_students_interval():
    values = [1.0, 2.0, 4.0, 5.0]
    found = summarise(values)
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_image_has_no_interval_and_says_so():
    found = summarise([0.5, float("nan")])
    assert found.n == 1
    assert math.isnan(found.low)
    assert "no interval" in str(found)


def test_six_images_all_better_are_significant_and_five_cannot_be():
    # 2 / 2**6: the smallest p-value of a two-sided signed-rank test with six pairs
    assert paired_test([2, 3, 4, 5, 6, 7.5], [1, 1.9, 2.7, 3.5, 4.4, 5.2]).p_value == pytest.approx(0.03125)
    five = paired_test([2, 3, 4, 5, 6], [1, 2, 3, 4, 5])
    assert math.isnan(five.p_value)
    assert "too few" in str(five)


def test_lower_is_better_counts_the_other_way():
    found = paired_test([0.1, 0.2, 0.5], [0.2, 0.3, 0.4], higher_is_better=False)
    assert (found.n, found.better) == (3, 2)
