"""Judging a BioImage.IO package: its files, bioimageio.core's tests, its bundle in TensorFlow 1.x,
deepImageJ.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import yaml
from numpy.typing import NDArray

from care_bridge import zips
from care_bridge.checking import jdll
from care_bridge.checking.report import CheckReport, Findings, Rule
from care_bridge.defaults import TF1_OF_FIJI
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.opening import open_network
from care_bridge.package import OTHER_NAMES, RDF
from care_bridge.predictor import Network

RUNNABLE = {"keras_hdf5": "keras", "tensorflow_saved_model_bundle": "tensorflow", "onnx": "onnx"}
"""Weights formats that are run here, and by which runtime."""
TOLERANCE = 1e-5
COVER_BYTES = 500_000
COMPLETE = 0.8
_TEST_LIMIT = 1.5e-4
"""What the zoo's deepImageJ check allows between its result and the test output."""


def check_package(
    path: str | os.PathLike[str],
    *,
    image: NDArray[Any] | None = None,
    core: bool = True,
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
        Run bioimageio.core's own tests of every weights format.
    versions, sessions
        As for `bundles.check_bundle`, for the bundle in the package.
    """
    path = Path(path)
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        root = _unpack(path, Path(name), findings)
        rdf = None if root is None else _read(root, findings)
        if root is not None and rdf is not None:
            complete = _names_test_tensors(rdf)
            _files(root, rdf, findings, decisive=complete)
            tested = _has_test_tensors(root, rdf)
            if core:
                _core(root, rdf, findings, tested=tested)
            networks = _networks(root, rdf, findings)
            _formats_agree(networks, rdf, findings)
            _deepimagej(root, rdf, networks, image, findings)
            _advice(root, rdf, findings)
            _bundle(root, rdf, findings, versions, sessions, decisive=complete)
    return findings.report(path, "package")


# --- files


def _unpack(path: Path, folder: Path, findings: Findings) -> Path | None:
    if path.is_dir():
        root = path
    elif path.suffix.lower() in (".yaml", ".yml"):
        root = path.parent
    else:
        try:
            root = zips.unpack(path, folder)
        except (InputError, OSError) as error:
            findings.add("The zip can be unpacked", False, str(error), "make it again")
            return None
    others = [name for name in OTHER_NAMES if (root / name).is_file()]
    found = (root / RDF).is_file()
    findings.add(
        f"The description is called {RDF}",
        found,
        "found" if found else f"only {', '.join(others) or 'nothing'} at the root",
        f"call it {RDF}: deepImageJ finds no other name",
    )
    if found and others:
        findings.add(
            "There is one description",
            False,
            f"{', '.join(others)} too",
            "readers choose differently",
            decisive=False,
        )
    return root if found else None


def _read(root: Path, findings: Findings) -> dict[str, Any] | None:
    try:
        rdf = yaml.safe_load((root / RDF).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        findings.add("The description is YAML", False, " ".join(str(error).split())[:300], "mend the text")
        return None
    if not isinstance(rdf, dict) or rdf.get("type") != "model":
        kind = rdf.get("type") if isinstance(rdf, dict) else type(rdf).__name__
        findings.add("It describes a model", False, f"type {kind!r}", "give the rdf.yaml of a model")
        return None
    return rdf


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping with a source, wherever in the description."""
    if isinstance(value, Mapping):
        if isinstance(value.get("source"), str):
            yield value
        for inner in value.values():
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _is_local(source: Any) -> TypeGuard[str]:
    return isinstance(source, str) and "://" not in source


def _files(root: Path, rdf: Mapping[str, Any], findings: Findings, *, decisive: bool) -> None:
    # Engines do not look at hashes; a package that was stripped for one is judged by what that engine does.
    wanted = [
        entry for key in ("inputs", "outputs", "weights", "attachments") for entry in _entries(rdf.get(key))
    ]
    names: list[str] = [entry["source"] for entry in wanted if _is_local(entry["source"])]
    names += [name for name in (rdf.get("documentation"), *_covers(rdf)) if _is_local(name)]
    for key in ("test_inputs", "test_outputs", "sample_inputs", "sample_outputs"):
        names += [name for name in rdf.get(key) or () if _is_local(name)]
    missing = sorted({name for name in names if not (root / name).is_file()})
    findings.add(
        "Every file that is named is there",
        not missing,
        f"missing: {', '.join(missing)}" if missing else f"{len(set(names))} files",
        "put them into the package, or take their names out",
        decisive=decisive,
    )
    wrong = []
    for entry in wanted:
        file, said = root / entry["source"], entry.get("sha256")
        if said and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != said:
            wrong.append(entry["source"])
    findings.add(
        "Every hash is right",
        not wrong,
        f"another content than its sha256 says: {', '.join(wrong)}"
        if wrong
        else "SHA-256 of every file with one",
        "the file was changed or damaged: take it again, or write the new hash",
        decisive=decisive,
    )


def _covers(rdf: Mapping[str, Any]) -> list[Any]:
    covers = rdf.get("covers") or []
    return list(covers) if isinstance(covers, list) else [covers]


def _names_test_tensors(rdf: Mapping[str, Any]) -> bool:
    tensors = [tensor for tensor in rdf.get("inputs") or () if isinstance(tensor, Mapping)]
    return bool(rdf.get("test_inputs")) or any(tensor.get("test_tensor") for tensor in tensors)


def _test_file(root: Path, rdf: Mapping[str, Any], which: str) -> Path | None:
    tensors = rdf.get(f"{which}s") or [{}]
    source = (tensors[0].get("test_tensor") or {}).get("source") if isinstance(tensors[0], Mapping) else None
    source = source or next(iter(rdf.get(f"test_{which}s") or ()), None)
    file = root / source if _is_local(source) else None
    return file if file is not None and file.is_file() else None


def _has_test_tensors(root: Path, rdf: Mapping[str, Any]) -> bool:
    return all(_test_file(root, rdf, which) is not None for which in ("input", "output"))


# --- bioimageio.core


def _core(root: Path, rdf: Mapping[str, Any], findings: Findings, *, tested: bool) -> None:
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
    for weights in rdf["weights"]:
        status, why = _test(root, weights)
        findings.add(
            f"bioimageio.core reproduces the test output from {weights}",
            status == "passed",
            f"test_description: {status}{'; ' * bool(why)}{why}",
            "export the model again; only 'passed' is a pass",
            decisive=weights in RUNNABLE,
        )


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
        axes = _read_as_jdll(rdf).axes
    except InputError:
        return (1, *(size or 32 * number for size in network.input_shape[1:-1]), network.input_shape[-1] or 1)
    sizes = []
    for axis in axes:
        if axis.letter in "bc":
            sizes.append(axis.channels or 1)
        else:
            sizes.append(axis.min if not axis.step else jdll.smallest(axis, 16) + axis.step * (number - 1))
    return tuple(sizes)


# --- deepImageJ


def _read_as_jdll(rdf: Mapping[str, Any]) -> jdll.Description:
    try:
        return jdll.read(rdf)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise jdll.JdllError("read", f"the description is not built as one ({error!r})") from error


def _deepimagej(
    root: Path,
    rdf: Mapping[str, Any],
    networks: Mapping[str, Network],
    image: NDArray[Any] | None,
    findings: Findings,
) -> None:
    rule = "deepImageJ's engine gives a result"
    try:
        description = _read_as_jdll(rdf)
        chosen = jdll.choose_weights(rdf.get("weights") or {}, root)
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
    expected = _test_file(root, rdf, "output")
    if expected is not None and image is None:
        _against_test(description, networks[chosen], given, np.load(expected), findings)


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
    file = _test_file(root, rdf, "input")
    if file is not None:
        data: NDArray[Any] = np.load(file)
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


# --- advice


def _advice(root: Path, rdf: Mapping[str, Any], findings: Findings) -> None:
    with contextlib.suppress(InputError):
        description = _read_as_jdll(rdf)
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
    for cover in _covers(rdf):
        file = root / cover if _is_local(cover) else None
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
    test = _test_file(root, rdf, "input")
    sample = ((rdf.get("inputs") or [{}])[0].get("sample_tensor") or {}).get("source")
    if test is None or not _is_local(sample) or not (root / sample).is_file():
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
