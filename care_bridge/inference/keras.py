"""Networks and predictors that run in Keras."""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from care_bridge.config import CareConfig
from care_bridge.defaults import PRECISION
from care_bridge.errors import InputError
from care_bridge.inference.volumes import with_own_percentiles
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import PredictOptions, Runtime, Tensor, UnhintedNetwork
from care_bridge.training.folder import CareModel, load_model


class KerasNetwork(UnhintedNetwork):
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
        call = tf.function(lambda tensor: model(tensor, training=False), autograph=False)
        self._call = call.get_concrete_function(signature)

    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out."""
        if tensor.ndim != len(self.input_shape) or tensor.shape[-1] != self.input_shape[-1]:
            raise InputError(f"the network takes shape {self.input_shape}; received {tensor.shape}")
        result: Tensor = self._call(tf.constant(tensor, tf.float32)).numpy()
        return result


class KerasPredictor(NetworkPredictor):
    """Restores images with a Keras model the way csbdeep does, or the way that `options` say.

    Parameters
    ----------
    model : CareModel
    options : PredictOptions, optional
        None predicts as csbdeep, with the model's own percentiles.

    Attributes
    ----------
    config : CareConfig
    """

    def __init__(self, model: CareModel, options: PredictOptions | None = None) -> None:
        config = model.config
        super().__init__(
            KerasNetwork(model.network),
            with_own_percentiles(options or PredictOptions(), config),
            axes=config.axes,
            size_multiple=config.size_multiple,
            halo=config.halo,
            probabilistic=config.probabilistic,
            lost_axis=config.proj_axis or "",
            features=config.unet_n_first,
        )
        self.config: CareConfig = config

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        options: PredictOptions | None = None,
        *,
        weights: str | None = None,
        precision: str = PRECISION,
    ) -> KerasPredictor:
        """Open a model folder, ours or csbdeep's.

        Parameters
        ----------
        path : path
        options : PredictOptions, optional
            None predicts as csbdeep: percentiles 2 and 99.8 (or the model's own), reflected padding, no tiles.
        weights, precision
            See `training.folder.load_model`.

        Returns
        -------
        KerasPredictor
        """
        return cls(load_model(path, weights=weights, precision=precision), options)
