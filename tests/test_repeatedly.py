"""Feeding a predictor its own output (care_bridge/predictor.py)."""

from __future__ import annotations

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import (
    ImagesOnly,
    Runtime,
    UnhintedNetwork,
    apply_repeatedly,
    mean_channels,
    scale_channels,
)


class Doubling(ImagesOnly):
    """Twice the input; as a probabilistic net with a scale channel behind, if asked for."""

    runtime = Runtime("test")

    def __init__(self, *, probabilistic: bool = False) -> None:
        self.probabilistic = probabilistic
        self.seen: list[Image] = []

    def predict(self, image: Image) -> Image:
        self.seen.append(image)
        if not self.probabilistic:
            return image.replace(data=2 * image.data)
        mean = 2 * (image.data if "C" in image.axes else image.data[np.newaxis])
        axes = image.axes if "C" in image.axes else "C" + image.axes
        axis = axes.index("C")
        return image.replace(
            data=np.concatenate([mean, np.full_like(mean, 0.1)], axis=axis), axes=axes, has_widths=True
        )


def test_each_application_gets_the_one_befores_result() -> None:
    results = list(apply_repeatedly(Doubling(), Image(np.ones((3, 4)), "YX"), applications=3))
    assert [float(image.data[0, 0]) for image in results] == [2, 4, 8]


@pytest.mark.parametrize(("axes", "shape"), [("YX", (3, 4)), ("CYX", (2, 3, 4)), ("YXC", (3, 4, 2))])
def test_only_the_means_are_fed_on(axes: str, shape: tuple[int, ...]) -> None:
    net = Doubling(probabilistic=True)
    results = list(apply_repeatedly(net, Image(np.ones(shape), axes), applications=2))
    assert net.seen[1].axes == axes
    assert net.seen[1].shape == shape
    assert np.all(net.seen[1].data == 2)
    assert results[1].size("C") == 2 * results[0].size("C") / 2


def test_results_come_as_they_are_made() -> None:
    net = Doubling()
    next(iter(apply_repeatedly(net, Image(np.ones((3, 4)), "YX"), applications=5)))
    assert len(net.seen) == 1


def test_other_channel_counts_are_left_alone() -> None:
    image = Image(np.ones((3, 3, 4)), "CYX")
    assert mean_channels(image, like=image) is image


@pytest.mark.parametrize(("axes", "like"), [("CYX", "YX"), ("ZYXC", "ZYXC"), ("ZCYX", "ZYX")])
def test_a_probabilistic_result_comes_apart_into_means_and_widths_of_one_shape(axes: str, like: str) -> None:
    fed = Image(np.zeros([{"C": 2}.get(letter, 5) for letter in like]), like)
    channels = 4 if "C" in like else 2
    data = np.zeros([{"C": channels}.get(letter, 5) for letter in axes])
    image = Image(data, axes, has_widths=True)
    np.moveaxis(data, axes.index("C"), 0)[channels // 2 :] = 7
    means, widths = mean_channels(image, like=fed), scale_channels(image, like=fed)
    assert widths is not None
    assert (means.axes, means.shape) == (widths.axes, widths.shape) == (fed.axes, fed.shape)
    assert not means.data.any()
    assert np.all(widths.data == 7)


def test_twice_as_many_channels_are_no_widths_unless_the_predictor_says_so() -> None:
    fed, image = Image(np.zeros((3, 4)), "YX"), Image(np.ones((2, 3, 4)), "CYX")
    assert mean_channels(image, like=fed) is image
    assert scale_channels(image, like=fed) is None


def test_a_network_that_cannot_take_its_own_result_is_known_before_it_runs() -> None:
    class Merging(UnhintedNetwork):
        runtime = Runtime("test")
        input_shape, output_shape = (None, None, None, 2), (None, None, None, 1)

        def __call__(self, tensor: np.ndarray) -> np.ndarray:
            raise AssertionError("it ran")

    predictor = NetworkPredictor(Merging(), size_multiple=1, halo=0)
    with pytest.raises(
        InputError, match=r"--applications\): the network takes 2 channels and gives 1.*give 1"
    ):
        next(apply_repeatedly(predictor, Image(np.ones((2, 3, 4)), "CYX"), applications=2))


def test_a_result_of_means_only_has_no_widths() -> None:
    image = Image(np.ones((3, 3, 4)), "CYX")
    assert scale_channels(image, like=image) is None


def test_no_application_is_an_error() -> None:
    with pytest.raises(InputError, match="at least 1; received 0"):
        list(apply_repeatedly(Doubling(), Image(np.ones((3, 4)), "YX"), applications=0))
