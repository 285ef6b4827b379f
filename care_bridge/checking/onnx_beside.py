"""The network for ONNX Runtime in a bundle, held against the SavedModel beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from care_bridge.bundle import Bundle, read_onnx
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError, NotInstalledError

TOLERANCE = 2e-5
"""Largest difference, in parts of the output's range."""

RULE = "ONNX Runtime gives what TensorFlow gives"
_AGAIN = "export the model again"


def run_onnx(bundle: Bundle, findings: Findings) -> None:
    """Run both networks of an unpacked bundle on the same pixels; one that has no ONNX is as good as it was."""
    try:
        beside = read_onnx(bundle.path)
    except InputError as error:
        findings.add(RULE, False, str(error).replace(str(bundle.path), "it"), _AGAIN)
        return
    if not beside.onnx:
        # An older bundle, or a network that ONNX cannot hold: the plugin runs it all the same.
        findings.add(RULE, None, beside.why_not, "", decisive=False)
        return
    if beside.why_not:
        findings.add(RULE, False, beside.why_not, _AGAIN)
        return
    from care_bridge.inference.onnx import OnnxNetwork
    from care_bridge.opening import open_network

    try:
        network = OnnxNetwork(beside.onnx)
    except NotInstalledError as error:
        findings.add(RULE, None, "ONNX Runtime is not here", str(error), decisive=False)
        return
    except InputError as error:
        findings.add(RULE, False, str(error), _AGAIN)
        return
    multiples = beside.about.get("size_multiple") or {}
    difference = 0.0
    with open_network(bundle.path, runtime="tensorflow") as tensorflow:
        fixed = tensorflow.input_shape[1:-1]
        for factor in (2, 3):
            sizes = [
                size
                or int(multiples.get(axis, 1)) * max(factor, -(-8 * factor // int(multiples.get(axis, 1))))
                for axis, size in zip("ZYX"[-len(fixed) :], fixed, strict=True)
            ]
            image = np.random.default_rng(factor).random(
                (1, *sizes, tensorflow.input_shape[-1] or 1), np.float32
            )
            image = _as_used(image, beside.about.get("normalisation"))
            here, there = network(image), tensorflow(image)
            if here.shape != there.shape:
                findings.add(RULE, False, f"{here.shape} instead of {there.shape}", _AGAIN)
                return
            span = max(float(np.ptp(there)), 1e-6)
            difference = max(difference, float(np.abs(here - there).max()) / span)
    findings.add(
        RULE,
        difference <= TOLERANCE,
        f"largest difference {difference:.2g} of the range, {TOLERANCE:g} allowed ({network.runtime})",
        _AGAIN,
    )


def _as_used(image: NDArray[np.float32], normalisation: object) -> NDArray[np.float32]:
    """Pixels of 0 to 1, or around the mean that a network has in it: far from it, rounding is all there is."""
    stated = normalisation if isinstance(normalisation, Mapping) else {}
    try:
        mean, std = (np.asarray(stated[key], np.float32) for key in ("means", "stds"))
        return np.asarray(image * 2 * std + mean, np.float32)
    except (KeyError, TypeError, ValueError):
        return image
