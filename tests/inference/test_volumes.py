"""Upsampling along Z and looking at a stack from two sides."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import zoom

from care_bridge.config import CareConfig
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.inference.volumes import IsotropicPredictor, UpsamplingPredictor, of_kind, upsample_z
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import PredictOptions
from care_bridge.tiling import CsbdeepTiles, FijiTiles


@pytest.mark.parametrize("factor", [1, 2, 2.5, 3.3, 0.6])
@pytest.mark.parametrize("planes", [1, 2, 5])
def test_upsampling_is_what_scipy_gives(planes, factor):
    data = np.random.default_rng(0).random((planes, 3, 4)).astype(np.float32)
    expected = zoom(data, (factor, 1, 1), order=1)
    np.testing.assert_allclose(upsample_z(data, axis=0, factor=factor), expected, atol=1e-6)


def test_integer_stacks_are_not_rounded_to_grey_levels():
    data = np.array([0, 1], np.uint16).reshape(2, 1, 1)
    assert upsample_z(data, axis=0, factor=1.5).ravel().tolist() == [0.0, 0.5, 1.0]


def test_two_sides_of_a_network_that_changes_nothing_are_the_stack(same):
    options = PredictOptions(rule=None, denormalize=False)
    predictor = NetworkPredictor(same(), options, size_multiple=4, halo=3, probabilistic=False)
    stack = np.random.default_rng(0).random((5, 9, 7), np.float32)
    result = IsotropicPredictor(predictor, factor=2).predict(Image(stack, "ZYX", {"Z": 1.0, "Y": 0.1}))
    assert result.pixel_size_um == {"Z": 0.5, "Y": 0.1}
    np.testing.assert_allclose(result.data, upsample_z(stack, axis=0, factor=2), atol=1e-6)


def test_isotropic_keeps_frames_channels_and_order_of_axes(same):
    options = PredictOptions(rule=None, denormalize=False)
    predictor = NetworkPredictor(same(2), options, size_multiple=2, halo=1, probabilistic=False)
    stack = np.random.default_rng(0).random((2, 5, 2, 6, 4), np.float32)  # TZCYX
    result = IsotropicPredictor(predictor, factor=3).predict(Image(stack, "TZCYX"))
    assert result.axes == "TZCYX"
    np.testing.assert_allclose(result.data, upsample_z(stack, axis=1, factor=3), atol=1e-6)


def test_plain_upsampling_takes_any_predictor(same):
    predictor = NetworkPredictor(
        same(rank=5), PredictOptions(rule=None, denormalize=False), size_multiple=1, halo=0
    )
    stack = np.random.default_rng(0).random((3, 4, 4), np.float32)
    result = UpsamplingPredictor(predictor, factor=2).predict(Image(stack, "ZYX"))
    np.testing.assert_allclose(result.data, upsample_z(stack, axis=0, factor=2), atol=1e-6)


def test_wrong_use_is_named(same):
    flat = NetworkPredictor(same(), size_multiple=1, halo=0)
    with pytest.raises(InputError, match="needs a stack"):
        IsotropicPredictor(flat, factor=2).predict(Image(np.zeros((4, 4)), "YX"))
    with pytest.raises(InputError, match="takes 1 channels"):
        IsotropicPredictor(flat, factor=2).predict(Image(np.zeros((2, 3, 4, 4)), "CZYX"))
    with pytest.raises(InputError, match="factor=0 must be above 0"):
        UpsamplingPredictor(flat, factor=0)
    with pytest.raises(InputError, match="has a 2-D network"):
        IsotropicPredictor(NetworkPredictor(same(rank=5), size_multiple=1, halo=0), factor=2)
    with pytest.raises(InputError, match="no isotropic prediction"):
        IsotropicPredictor(NetworkPredictor(same(), PredictOptions(tiles=FijiTiles())), factor=2)
    cut = NetworkPredictor(same(), PredictOptions(tiles=CsbdeepTiles((2, 1, 1))), size_multiple=1, halo=0)
    with pytest.raises(InputError, match="give 1 for Z"):
        IsotropicPredictor(cut, factor=2).predict(Image(np.ones((4, 4, 4)), "ZYX"))


def test_kind_of_model_decides_and_asks_for_its_factor(same):
    flat = NetworkPredictor(same(), size_multiple=1, halo=0)
    isotropic = CareConfig("YX", kind="IsotropicCARE")
    assert of_kind(flat, CareConfig("YX")) is flat
    assert of_kind(flat, isotropic.replace(factor=4.0)).factor == 4.0
    assert of_kind(flat, isotropic.replace(factor=4.0), factor=2.0).factor == 2.0
    with pytest.raises(InputError, match="needs the factor"):
        of_kind(flat, isotropic)
    with pytest.raises(InputError, match="factor=2 is for"):
        of_kind(flat, CareConfig("YX"), factor=2.0)
