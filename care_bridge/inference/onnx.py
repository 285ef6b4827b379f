"""Networks that run in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from care_bridge.errors import InputError, NotInstalledError
from care_bridge.inspection import check_onnx
from care_bridge.predictor import Runtime, Tensor, UnhintedNetwork

PMIN_KEY, PMAX_KEY = "care_bridge.pmin", "care_bridge.pmax"
"""Metadata of an .onnx file: the percentiles, 0-100, that its input is normalised by."""

PROBABILISTIC_KEY = "care_bridge.probabilistic"
"""Metadata of an .onnx file: whether the second half of its output's channels are widths."""

SCALE_KEY = "care_bridge.scale"
"""Metadata of an .onnx file whose mean and deviation are in its graph: it takes grey levels as they are ("inside")."""


class OnnxNetwork(UnhintedNetwork):
    """An ONNX file as a bare network; see `predictor.Network`.

    Parameters
    ----------
    model : path or bytes
        A file, or its content. One float32 input and output, channels last.
    threads : int, optional
        How many threads compute; None leaves it to ONNX Runtime.

    Attributes
    ----------
    runtime : Runtime
    input_shape, output_shape : tuple of int or None
        As written in the file; None for free (named) dimensions.
    percentiles : tuple of two floats or None
        What the file says its input is normalised by; None where it says nothing.
    takes_grey_levels : bool
        Whether the file says that its scale is in it, so that nothing is to be normalised.

    Raises
    ------
    InputError
        If the file is not there or no ONNX, or has several inputs or outputs or another data type; or if it holds
        operations of others, or data outside of its folder (see `inspection`).
    NotInstalledError
        If ONNX Runtime is missing.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise NotInstalledError(
                "running ONNX needs onnxruntime: pip install 'care-bridge[zoo]'"
            ) from None
        name = "the ONNX model" if isinstance(model, bytes) else str(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise InputError(f"{name} is not there; give an .onnx file")
        check_onnx(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; while sizes are tried they are no errors at all
        # A worker that shares its machine with others is told so.
        threads = threads or int(os.environ.get("CARE_BRIDGE_THREADS") or 0)
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else os.fspath(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            # ONNX Runtime raises a class of its own for each kind of fault.
            raise InputError(f"{name} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InputError(
                f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; one image in, one out is needed"
            )
        if inputs[0].type != "tensor(float)":
            raise InputError(f"{name} takes {inputs[0].type}; float32 is needed")
        self._input, self._output = inputs[0].name, outputs[0].name
        self.percentiles = _percentiles(self._session.get_modelmeta().custom_metadata_map)
        self.runtime = Runtime("onnx", {"onnxruntime": onnxruntime.__version__})
        self.input_shape: tuple[int | None, ...] = _shape(inputs[0].shape)
        self.output_shape: tuple[int | None, ...] = _shape(outputs[0].shape)
        self.takes_grey_levels = self._session.get_modelmeta().custom_metadata_map.get(SCALE_KEY) == "inside"
        told = self._session.get_modelmeta().custom_metadata_map.get(PROBABILISTIC_KEY)
        self.probabilistic = None if told is None else told == "true"

    def __call__(self, tensor: Tensor) -> Tensor:
        """Shape (batch, [z,] y, x, channel) in, the same with the output's channels out."""
        if tensor.ndim != len(self.input_shape) or (
            self.input_shape[-1] is not None and tensor.shape[-1] != self.input_shape[-1]
        ):
            raise InputError(f"the network takes shape {self.input_shape}; received {tensor.shape}")
        fed = np.ascontiguousarray(tensor, np.float32)
        try:
            result: Tensor = self._session.run([self._output], {self._input: fed})[0]
        except Exception as error:
            raise InputError(
                f"ONNX Runtime fails on a tensor of shape {tensor.shape}: {_first_line(error)}"
            ) from error
        return result


def _percentiles(metadata: Mapping[str, str]) -> tuple[float | None, float | None]:
    try:
        low, high = float(metadata[PMIN_KEY]), float(metadata[PMAX_KEY])
    except (KeyError, ValueError):
        return None, None
    return (low, high) if 0 <= low < high <= 100 else (None, None)


def _shape(sizes: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
