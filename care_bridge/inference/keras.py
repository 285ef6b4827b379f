"""Networks and predictors that run in Keras."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from care_bridge.errors import InputError
from care_bridge.predictor import NetworkPredictor, PredictOptions, Runtime, Tensor
from care_bridge.training.folder import CareModel, load_model

if TYPE_CHECKING:
    from care_bridge.config import CareConfig


class KerasNetwork:
    """A Keras model as a bare network; see `predictor.Network`.

    Parameters
    ----------
    model : keras.Model
        One float32 input and output, channels last.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.runtime = Runtime("keras", {"keras": keras.__version__, "tensorflow": tf.__version__})
        self.input_shape: tuple[int | None, ...] = tuple(model.input_shape)
        self.output_shape: tuple[int | None, ...] = tuple(model.output_shape)
        # One trace for all sizes; `model.predict` would trace for each and copy through its own loop.
        signature = tf.TensorSpec(self.input_shape, tf.float32)
        self._call = tf.function(lambda tensor: model(tensor, training=False), input_signature=[signature])

    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out."""
        if tensor.ndim != len(self.input_shape) or tensor.shape[-1] != self.input_shape[-1]:
            raise InputError(f"the network takes shape {self.input_shape}; received {tensor.shape}")
        result: Tensor = self._call(np.ascontiguousarray(tensor, np.float32)).numpy()
        return result


class KerasPredictor(NetworkPredictor):
    """Restores images with a Keras model the way csbdeep does, or the way that `options` say.

    Attributes
    ----------
    config : CareConfig
    """

    def __init__(self, model: CareModel, options: PredictOptions | None = None) -> None:
        super().__init__(KerasNetwork(model.network), options, axes=model.config.axes)
        self.config: CareConfig = model.config

    @classmethod
    def load(cls, path: str | os.PathLike[str], options: PredictOptions | None = None) -> KerasPredictor:
        """Open a model folder, ours or csbdeep's.

        Parameters
        ----------
        path : path
            See `training.folder.load_model`.
        options : PredictOptions, optional
            None predicts as csbdeep: percentiles 2 and 99.8, reflected padding, no tiles.
        """
        return cls(load_model(path), options)
