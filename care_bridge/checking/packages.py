"""Judging a BioImage.IO package: its files, bioimageio.core's tests, its bundle in TensorFlow 1.x,
deepImageJ.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.checking import jdll
from care_bridge.checking.deepimagej import check_in_deepimagej, read_as_jdll
from care_bridge.checking.package_files import (
    check_files,
    covers,
    has_test_tensors,
    is_local,
    names_test_tensors,
    read,
    test_tensor,
    unpack,
)
from care_bridge.checking.report import CheckReport, Findings, Rule
from care_bridge.defaults import TF1_OF_FIJI
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.model_files import RUN_FORMATS, check_weights
from care_bridge.opening import open_network
from care_bridge.package import RDF, weights_file
from care_bridge.predictor import Network

RUNNABLE = {"keras_hdf5": "keras", "tensorflow_saved_model_bundle": "tensorflow", "onnx": "onnx"}
"""Weights formats that are run here, and by which runtime."""
TOLERANCE = 1e-5
COVER_BYTES = 500_000
COMPLETE = 0.8


def check_package(
    path: str | os.PathLike[str],
    *,
    image: NDArray[Any] | None = None,
    core: bool = True,
    trust: bool = False,
    versions: tuple[str, ...] | None = None,
    sessions: Any = (),
) -> CheckReport:
    """Judge a package by every reader's rules.

    Parameters
    ----------
    path : path
        Zip, folder or rdf.yaml.
    image : ndarray, optional
        What deepImageJ is given, one dimension an input axis. None takes the test tensor, else waves.
    core : bool
        Run bioimageio.core's own tests of every weights format that runs here.
    trust : bool
        And of the others, which may run Python that lies in the package.
    versions, sessions
        As for `bundles.check_bundle`, for the bundle in the package.
    """
    path = Path(path)
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        root = unpack(path, Path(name), findings)
        rdf = None if root is None else read(root, findings)
        if root is not None and rdf is not None:
            complete = names_test_tensors(rdf)
            check_files(root, rdf, findings, decisive=complete)
            tested = has_test_tensors(root, rdf)
            if core:
                _core(root, rdf, findings, tested=tested, trust=trust)
            networks = _networks(root, rdf, findings)
            _formats_agree(networks, rdf, findings)
            check_in_deepimagej(root, rdf, networks, image, findings)
            _advice(root, rdf, findings)
            _bundle(root, rdf, findings, versions, sessions, decisive=complete)
    return findings.report(path, "package")


# --- bioimageio.core


def _core(
    root: Path, rdf: Mapping[str, Any], findings: Findings, *, tested: bool, trust: bool = False
) -> None:
    if not tested:
        findings.add(
            "bioimageio.core reproduces the test output",
            None,
            "the package has no test tensors",
            "ship test_input.npy and test_output.npy",
            decisive=False,
        )
        return
    from care_bridge.export.zoo_spec import validate

    try:
        completeness = validate(root / RDF)
    except NotInstalledError as error:
        findings.add("bioimageio.spec finds it valid", None, "not here", str(error))
        return
    except InputError as error:
        findings.add(
            "bioimageio.spec finds it valid", False, " ".join(str(error).split())[:600], "mend these keys"
        )
        return
    findings.add("bioimageio.spec finds it valid", True, "validated offline with input and output checks")
    findings.facts["completeness"] = round(completeness, 3)
    findings.add(
        f"Metadata are at least {COMPLETE:.0%} complete",
        completeness >= COMPLETE,
        f"{completeness:.2f} by the zoo's formula",
        "fill config.bioimageio, training_data, git_repo, uploader, evaluations",
        decisive=False,
    )
    for weights, entry in rdf["weights"].items():
        rule = f"bioimageio.core reproduces the test output from {weights}"
        trusted = trust and weights not in RUN_FORMATS
        if weights not in RUN_FORMATS and not trust:
            findings.add(
                rule,
                None,
                f"{weights} may run Python that lies in the package, which is not done with a file of others",
                "if you trust who made it: check --trust",
                decisive=False,
            )
            continue
        if not trusted and (refused := _refusal(root, entry, weights)):
            findings.add(rule, False, refused, "export the model again", decisive=weights in RUNNABLE)
            continue
        status, why = _test(root, weights)
        trusting = "; the package's own Python was run, because --trust was given" if trusted else ""
        findings.add(
            rule,
            status == "passed",
            f"test_description: {status}{trusting}{'; ' * bool(why)}{why}",
            "export the model again; only 'passed' is a pass",
            decisive=weights in RUNNABLE,
        )


def _refusal(root: Path, entry: Any, weights: str) -> str:
    """Why weights are not handed to bioimageio.core; "" where they are."""
    file = weights_file(root, {"weights": {weights: entry}}, weights)
    if file is None:
        return "its file is not in the package, and nothing is fetched for a check"
    try:
        check_weights(file, weights)
    except (InputError, OSError) as error:
        return " ".join(str(error).split())[:300]
    return ""


def _test(root: Path, weights: str) -> tuple[str, str]:
    import io

    from care_bridge.export.zoo_spec import offline, urls

    rdf, here = root / RDF, Path.cwd()
    with offline(rdf), tempfile.TemporaryDirectory(prefix="core-") as scratch:
        from bioimageio import spec
        from bioimageio.core import test_description

        # core unpacks bundles into the current folder and never removes them.
        os.chdir(scratch)
        try:
            with (
                spec.ValidationContext(known_files=dict.fromkeys(urls(rdf)), perform_io_checks=True),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                summary = test_description(rdf, weight_format=weights)  # type: ignore[arg-type,unused-ignore]
        finally:
            os.chdir(here)
    errors = [error.msg for detail in summary.details for error in detail.errors]
    return str(summary.status), " ".join("; ".join(errors).split())[:300]


# --- the networks


def _networks(root: Path, rdf: Mapping[str, Any], findings: Findings) -> dict[str, Network]:
    found: dict[str, Network] = {}
    for name, runtime in RUNNABLE.items():
        entry = (rdf.get("weights") or {}).get(name)
        if not isinstance(entry, Mapping) or not jdll.weights_file(root, entry).is_file():
            continue
        try:
            found[name] = open_network(jdll.weights_file(root, entry), runtime=runtime)
        except (InputError, NotInstalledError) as error:
            missing = isinstance(error, NotInstalledError)
            findings.add(
                f"{name} opens here",
                None if missing else False,
                " ".join(str(error).split())[:300],
                "export it again",
            )
    return found


def _formats_agree(networks: Mapping[str, Network], rdf: Mapping[str, Any], findings: Findings) -> None:
    if len(networks) < 2:
        return
    first, *others = networks
    for name in others:
        worst, problem = 0.0, ""
        for number in (1, 2, 3):
            shape = _shape(rdf, number, networks[first])
            image = np.random.default_rng(number).random(shape, np.float32)
            try:
                expected, received = networks[first](image), networks[name](image)
                worst = max(
                    worst, float(np.abs(expected - received).max()) / max(1.0, float(np.ptp(expected)))
                )
            except Exception as error:
                # Whatever a runtime throws, the formats do not agree then.
                problem = " ".join(str(error).split())[:200]
        findings.add(
            f"{name} gives what {first} gives",
            not problem and worst <= TOLERANCE,
            problem or f"three sizes: differs by {worst:.2g} of the range, {TOLERANCE:g} allowed",
            "export both again from one model",
        )


def _shape(rdf: Mapping[str, Any], number: int, network: Network) -> tuple[int, ...]:
    try:
        axes = read_as_jdll(rdf).axes
    except InputError:
        return (1, *(size or 32 * number for size in network.input_shape[1:-1]), network.input_shape[-1] or 1)
    sizes = []
    for axis in axes:
        if axis.letter in "bc":
            sizes.append(axis.channels or 1)
        else:
            sizes.append(axis.min if not axis.step else jdll.smallest(axis, 16) + axis.step * (number - 1))
    return tuple(sizes)


# --- advice


def _advice(root: Path, rdf: Mapping[str, Any], findings: Findings) -> None:
    with contextlib.suppress(InputError):
        description = read_as_jdll(rdf)
        odd = [axis.letter for axis in description.axes if axis.step and axis.halo % axis.step]
        findings.add(
            "Halos are multiples of the step",
            not odd,
            f"not along {', '.join(odd)}" if odd else "all of them",
            "round them up: other halos shift the pooling grid (differences of 0.06 were seen)",
            decisive=False,
        )
        thick = [axis for axis in description.axes if axis.letter == "z" and axis.halo > 8]
        findings.add(
            "Thin stacks run",
            not thick,
            f"halo along z is {thick[0].halo}" if thick else "the halo along z is small or absent",
            "give z a small halo: stacks thinner than about the halo fail in deepImageJ",
            decisive=False,
        )
    names = [
        str(name)
        for key in ("inputs", "outputs")
        for tensor in _listed(rdf.get(key))
        if isinstance(tensor, Mapping)
        for axis in _listed(tensor.get("axes"))
        if isinstance(axis, Mapping)
        for name in _listed(axis.get("channel_names"))
    ]
    odd_names = [name for name in names if not name.isidentifier()]
    findings.add(
        "Channel names are identifiers",
        not odd_names,
        f"not {', '.join(map(repr, odd_names))}" if odd_names else "all of them",
        "write them with letters, digits and _ only: bioimageio.core 0.9 and 0.10 refuse the description else",
        decisive=False,
    )
    for cover in covers(rdf):
        file = root / cover if is_local(cover) else None
        if file is not None and file.is_file():
            _cover(file, findings)
    _sample(root, rdf, findings)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _cover(file: Path, findings: Findings) -> None:
    from imageio.v3 import imread

    height, width = imread(file).shape[:2]
    good = file.stat().st_size < COVER_BYTES and round(width / height, 2) in (1.0, 2.0)
    findings.add(
        "The cover is below 500 kB and 2:1 or 1:1",
        good,
        f"{file.name}: {file.stat().st_size // 1000} kB, {width}x{height}",
        "make it smaller, or cut it to 2:1",
        decisive=False,
    )


def _sample(root: Path, rdf: Mapping[str, Any], findings: Findings) -> None:
    test = test_tensor(root, rdf, "input")
    sample = ((rdf.get("inputs") or [{}])[0].get("sample_tensor") or {}).get("source")
    if test is None or not is_local(sample) or not (root / sample).is_file():
        return
    from imageio.v3 import imread

    pixels, wanted = np.asarray(imread(root / sample)), np.load(test)
    findings.add(
        "The sample shows the pixels of the test input",
        pixels.size == wanted.size and bool(np.array_equal(pixels.squeeze(), wanted.squeeze())),
        f"{sample} against {test.name}",
        "the zoo's deepImageJ check runs the sample and compares it with the test output: ship the same "
        "pixels",
        decisive=False,
    )


# --- the bundle in it


def _bundle(
    root: Path, rdf: Mapping[str, Any], findings: Findings, versions: Any, sessions: Any, *, decisive: bool
) -> None:
    entry = (rdf.get("weights") or {}).get("tensorflow_saved_model_bundle")
    if not isinstance(entry, Mapping) or not (root / str(entry.get("source"))).is_file():
        return
    from care_bridge.checking.bundles import check_bundle

    inner = check_bundle(
        root / entry["source"], versions=TF1_OF_FIJI if versions is None else versions, sessions=sessions
    )
    for rule in inner.rules:
        # A package that was stripped for one engine need not open in Run your network as well.
        weighty = rule.decisive and decisive
        result = "warning" if rule.result == "failed" and not weighty else rule.result
        findings.rules.append(
            Rule(f"Run your network: {rule.rule}", result, rule.run, rule.remedy, decisive=weighty)
        )
    findings.facts["run_your_network"] = "accepted" if inner.accepted else inner.verdict
