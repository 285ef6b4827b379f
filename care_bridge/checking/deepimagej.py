"""What deepImageJ makes of a BioImage.IO package: JDLL's rules, tiles and processing over its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.checking import jdll
from care_bridge.checking.package_files import load_tensor, test_tensor
from care_bridge.checking.report import Findings
from care_bridge.errors import InputError
from care_bridge.package import weights_of
from care_bridge.predictor import Network

_TEST_LIMIT = 1.5e-4
"""What the zoo's deepImageJ check allows between its result and the test output."""


def read_as_jdll(rdf: Mapping[str, Any]) -> jdll.Description:
    """What JDLL makes of a description; whatever it stumbles over is a `JdllError`."""
    try:
        return jdll.read(rdf)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise jdll.JdllError("read", f"the description is not built as one ({error!r})") from error


def _chosen_weights(rdf: Mapping[str, Any], root: Path) -> str:
    held = rdf.get("weights")
    if held is not None and not isinstance(held, Mapping):
        raise jdll.JdllError("read", f"weights is a {type(held).__name__}; JDLL needs a mapping of formats")
    return jdll.choose_weights(weights_of(rdf), root)


def check_in_deepimagej(
    root: Path,
    rdf: Mapping[str, Any],
    networks: Mapping[str, Network],
    image: NDArray[Any] | None,
    findings: Findings,
) -> None:
    """Judge what deepImageJ's engine makes of the package, on an image or the test input."""
    rule = "deepImageJ's engine gives a result"
    try:
        description = read_as_jdll(rdf)
        chosen = _chosen_weights(rdf, root)
        if chosen == "tensorflow_saved_model_bundle" and chosen not in networks:
            raise jdll.JdllError("load", "the TensorFlow bundle does not open: Could not find SavedModel")
        if chosen not in networks:
            raise jdll.JdllError("load", f"the weights {chosen} do not open")
        given = image if image is not None else _image(root, rdf, description)
        result = jdll.predict(description, networks[chosen], given)
    except jdll.JdllError as error:
        findings.facts["deepimagej"] = f"fails at {error.stage}"
        findings.add(
            rule,
            False,
            f"at {error.stage}: {error}",
            "change the description or the weights so that this rule holds",
        )
        return
    except InputError as error:
        findings.facts["deepimagej"] = "fails at run"
        findings.add(rule, False, f"at run: {error}", "export the model again")
        return
    findings.facts["deepimagej"] = f"runs with {chosen}"
    findings.add(
        rule,
        True,
        f"its tiles and normalisation in NumPy over {chosen}: {given.shape} -> {result.shape}, values "
        f"{result.min():.3g} to {result.max():.3g}",
    )
    findings.add(
        "deepImageJ takes the TensorFlow weights",
        chosen == "tensorflow_saved_model_bundle",
        f"it takes {chosen}",
        'its released ONNX engine ends Fiji after a run: write tensorflow_version: "1.15" and opset 17',
        decisive=False,
    )
    expected = test_tensor(root, rdf, "output")
    if expected is not None and image is None:
        _against_test(description, networks[chosen], given, load_tensor(expected), findings)


def _against_test(
    description: jdll.Description,
    network: Network,
    given: NDArray[Any],
    expected: NDArray[Any],
    findings: Findings,
) -> None:
    # The zoo's check takes the halo out first.
    try:
        result = jdll.predict(jdll.without_halo(description), network, given)
    except jdll.JdllError as error:
        findings.add("deepImageJ passes the zoo's check", False, str(error), "", decisive=False)
        return
    same = result.shape == expected.shape
    off = float(np.max(np.abs(result - expected) - 1e-4 * np.abs(expected))) if same else float("inf")
    findings.add(
        "deepImageJ passes the zoo's check",
        off <= _TEST_LIMIT,
        f"test input to test output, halo taken out: off by {max(off, 0):.2g}, {_TEST_LIMIT:g} allowed",
        "choose a test image on which all percentile definitions agree, its sizes multiples of the step",
        decisive=False,
    )


def _image(root: Path, rdf: Mapping[str, Any], description: jdll.Description) -> NDArray[Any]:
    file = test_tensor(root, rdf, "input")
    if file is not None:
        data = load_tensor(file)
        if data.ndim != len(description.axes):
            raise jdll.JdllError(
                "run", f"the test input has {data.ndim} dimensions, the description {len(description.axes)}"
            )
        return data
    shape = tuple(
        axis.channels or 1 if axis.letter in "bc" else jdll.smallest(axis, 24) for axis in description.axes
    )
    grid = np.indices(shape).sum(axis=0)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return np.asarray(400 + 90 * np.sin(grid / 5) + noise, np.float32)
