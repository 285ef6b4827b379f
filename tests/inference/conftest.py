"""Networks without training: what prediction does around them is what is tested here."""

from __future__ import annotations

import numpy as np
import pytest

from care_bridge.config import CareConfig
from care_bridge.predictor import Runtime, UnhintedNetwork

pytest.importorskip("tensorflow")


class Same(UnhintedNetwork):
    """Gives back its input; a predictor.Network without any learning."""

    def __init__(self, channels: int = 1, *, rank: int = 4) -> None:
        self.runtime = Runtime("same")
        self.input_shape = self.output_shape = (None,) * (rank - 1) + (channels,)

    def __call__(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.copy()


@pytest.fixture
def same():
    return Same


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A folder with a small probabilistic 2-D model, first weights."""
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("models") / "model"
    config = CareConfig(unet_n_first=2, unet_n_depth=1, unet_kern_size=3, probabilistic=True)
    save_model(folder, config, build(config))
    return folder
