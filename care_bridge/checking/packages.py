"""Judging a BioImage.IO package: its files, bioimageio.core's tests, its bundle in TensorFlow 1.x,
deepImageJ.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from care_bridge.bundle import own_normalisation
from care_bridge.checking import jdll
from care_bridge.checking.deepimagej import check_in_deepimagej, read_as_jdll
from care_bridge.checking.package_files import (
    Unpacked,
    addresses,
    check_files,
    covers,
    first_tensor,
    has_test_tensors,
    is_local,
    listed,
    load_tensor,
    local_file,
    names_test_tensors,
    outside,
    read,
    test_tensor,
    unpack,
)
from care_bridge.checking.report import CheckReport, Findings, Rule, brief
from care_bridge.defaults import TF1_OF_FIJI
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.files import scratch_folder
from care_bridge.images.read import stored_shape
from care_bridge.model_files import RUN_FORMATS, check_weights
from care_bridge.opening import open_network
from care_bridge.package import RDF, weights_file, weights_of
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
    with scratch_folder() as folder:
        findings.unpacked(path, folder)
        # Neighbours change the current folder while they run.
        package = unpack(path.absolute(), folder, findings)
        rdf = None if package is None else read(package.file, findings)
        if package is not None and rdf is not None:
            _judge(
                package,
                rdf,
                findings,
                image=image,
                core=core,
                trust=trust,
                versions=versions,
                sessions=sessions,
            )
    return findings.report(path, "package")


def _judge(
    package: Unpacked,
    rdf: Mapping[str, Any],
    findings: Findings,
    *,
    image: NDArray[Any] | None,
    core: bool,
    trust: bool,
    versions: tuple[str, ...] | None,
    sessions: Any,
) -> None:
    root, complete = package.root, names_test_tensors(rdf)
    again = "look at the file that is named, and write it again"
    with findings.stage("The files can be looked at", again):
        check_files(root, rdf, findings, decisive=complete)
    if core:
        with findings.stage("bioimageio.core takes it", again):
            _core(package, rdf, findings, trust=trust)
    networks = {}
    with findings.stage("The weights open", again):
        networks = _networks(root, rdf, findings)
        _formats_agree(networks, rdf, findings)
    with findings.stage("deepImageJ's engine gives a result", again):
        _in_deepimagej(root, rdf, networks, image, findings)
    with findings.stage("Its description can be looked through", again, decisive=False):
        _advice(root, rdf, findings)
    with findings.stage("It says who made it", again, decisive=False):
        _made_up(rdf, findings)
    with findings.stage("Its pictures can be looked at", again):
        _sample(root, rdf, findings)
    with findings.stage("Run your network takes its bundle", again, decisive=complete):
        _bundle(root, rdf, findings, versions, sessions, decisive=complete)


# --- bioimageio.core


def _core(package: Unpacked, rdf: Mapping[str, Any], findings: Findings, *, trust: bool) -> None:
    from care_bridge.export.zoo_spec import validate

    root = package.root
    away = [*addresses(rdf), *outside(root, rdf)]
    rule = "bioimageio.spec finds it valid"
    try:
        completeness = validate(package.file, files=not away)
    except NotInstalledError as error:
        findings.add(rule, None, "not here", str(error))
        return
    except InputError as error:
        findings.add(rule, False, brief(error, 600), "mend these keys")
        return
    how = "with input and output checks" if not away else "without a look at files, for some lie elsewhere"
    findings.add(rule, True, f"validated offline {how}")
    findings.facts["completeness"] = round(completeness, 3)
    findings.add(
        f"Metadata are at least {COMPLETE:.0%} complete",
        completeness >= COMPLETE,
        f"{completeness:.2f} by the zoo's formula",
        "fill config.bioimageio, training_data, git_repo, uploader, evaluations",
        decisive=False,
    )
    if not has_test_tensors(root, rdf):
        lie = "lie at addresses or are missing" if names_test_tensors(rdf) else "are not in the package"
        findings.add(
            "bioimageio.core reproduces the test output",
            None,
            f"its test tensors {lie}: not looked at",
            "ship test_input.npy and test_output.npy",
            decisive=False,
        )
        return
    for weights, entry in weights_of(rdf).items():
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
        source = entry.get("source") if isinstance(entry, Mapping) else None
        if not is_local(source):
            findings.add(
                rule,
                None,
                f"not looked at: {source} is not in the package, and nothing is fetched for a check",
                "put the file into the package",
                decisive=False,
            )
            continue
        if not trusted and (refused := _refusal(root, entry, weights)):
            findings.add(rule, False, refused, "export the model again", decisive=weights in RUNNABLE)
            continue
        status, why = _test(package, rdf, weights, findings, copied=bool(away))
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


def _test(
    package: Unpacked, rdf: Mapping[str, Any], weights: str, findings: Findings, *, copied: bool
) -> tuple[str, str]:
    import io

    from care_bridge.export.zoo_spec import offline, urls

    here = Path.cwd()
    with scratch_folder() as scratch:
        findings.unpacked(package.root, scratch / "package")
        file = package.file
        if copied or file.name != RDF:
            file = _local_part(package, rdf, weights, scratch / "package")
        with offline(file):
            from bioimageio import spec
            from bioimageio.core import test_description

            # core unpacks bundles into the current folder and never removes them.
            os.chdir(scratch)
            try:
                with (
                    spec.ValidationContext(known_files=dict.fromkeys(urls(file)), perform_io_checks=True),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                    warnings.catch_warnings(),
                ):
                    warnings.simplefilter("ignore")
                    summary = test_description(file, weight_format=weights)  # type: ignore[arg-type,unused-ignore]
            finally:
                os.chdir(here)
    errors = [error.msg for detail in summary.details for error in detail.errors]
    return str(summary.status), brief("; ".join(errors))


def _local_part(package: Unpacked, rdf: Mapping[str, Any], weights: str, folder: Path) -> Path:
    """The package with one weights format and without what it does not hold, which bioimageio.core would fetch."""
    root = package.root
    folder.mkdir()
    for part in root.iterdir():
        if part == package.file or part.name == RDF:
            continue
        try:
            (folder / part.name).symlink_to(part, target_is_directory=part.is_dir())
        except OSError:  # Windows lets not everybody make links
            (shutil.copytree if part.is_dir() else shutil.copy2)(part, folder / part.name)
    kept = {key: value for key, value in rdf.items() if key not in ("attachments", "icon", "covers")}
    entry = dict(weights_of(rdf)[weights])
    entry.pop("parent", None)
    kept["weights"] = {weights: entry}
    kept["covers"] = [cover for cover in covers(rdf) if local_file(root, cover)]
    readme = folder / "documentation.md"
    readme.write_text("# Documentation\n\n## Validation\n", encoding="utf-8")
    kept["documentation"] = readme.name
    for key in ("inputs", "outputs"):
        kept[key] = [
            {name: value for name, value in tensor.items() if name != "sample_tensor"}
            if isinstance(tensor, Mapping)
            else tensor
            for tensor in listed(rdf.get(key))
        ]
    file = folder / RDF
    file.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


# --- the networks


def _networks(root: Path, rdf: Mapping[str, Any], findings: Findings) -> dict[str, Network]:
    found: dict[str, Network] = {}
    for name, runtime in RUNNABLE.items():
        entry = weights_of(rdf).get(name)
        if not isinstance(entry, Mapping) or not jdll.weights_file(root, entry).is_file():
            continue
        try:
            found[name] = open_network(jdll.weights_file(root, entry), runtime=runtime)
        except Exception as error:
            # Neighbours throw whatever they like at damaged weights; the other formats are opened all the same.
            missing = isinstance(error, NotInstalledError)
            findings.add(
                f"{name} opens here",
                None if missing else False,
                brief(error),
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


# --- deepImageJ


def _in_deepimagej(
    root: Path,
    rdf: Mapping[str, Any],
    networks: Mapping[str, Network],
    image: NDArray[Any] | None,
    findings: Findings,
) -> None:
    entries = [entry for entry in weights_of(rdf).values() if isinstance(entry, Mapping)]
    here = any(jdll.weights_file(root, entry).is_file() for entry in entries)
    if entries and not here and not all(is_local(entry.get("source")) for entry in entries):
        findings.add(
            "deepImageJ's engine gives a result",
            None,
            "not looked at: its weights lie at addresses, and nothing is fetched here",
            "put the weights into the package",
        )
        return
    check_in_deepimagej(root, rdf, networks, image, findings)


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
        for tensor in listed(rdf.get(key))
        if isinstance(tensor, Mapping)
        for axis in listed(tensor.get("axes"))
        if isinstance(axis, Mapping)
        for name in listed(axis.get("channel_names"))
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
        file = local_file(root, cover)
        if file is not None:
            with findings.stage(f"The cover {cover} is a picture", "write it again"):
                _cover(file, findings)


def _made_up(rdf: Mapping[str, Any], findings: Findings) -> None:
    """What our own example, or our own drawing, left in a package that is meant to be somebody's."""
    from care_bridge.export.metadata import left_from_example

    left = left_from_example({key: value for key, value in rdf.items() if key not in ("weights", "type")})
    findings.add(
        "It says who made it",
        not left,
        f"still as in care_bridge's example: {', '.join(map(repr, left))}"
        if left
        else "no values of an example",
        "write real names and a real description into model.toml and export again",
        decisive=False,
    )
    config = rdf.get("config")
    own = config.get("care_bridge") if isinstance(config, Mapping) else None
    drawn = isinstance(own, Mapping) and own.get("test_image") == "drawn"
    if drawn:
        findings.add(
            "Cover and sample show what the model is for",
            False,
            "they are filaments that care_bridge drew, since no image was given",
            "export again with --test-image: an image that the model is for",
            decisive=False,
        )


def _cover(file: Path, findings: Findings) -> None:
    height, width = _pixels(file).shape[:2]
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
    given = first_tensor(rdf, "inputs").get("sample_tensor")
    sample = given.get("source") if isinstance(given, Mapping) else None
    file = local_file(root, sample)
    if test is None or file is None:
        return
    pixels, wanted = _pixels(file), load_tensor(test)
    if not pixels.size:
        raise InputError(f"{sample} holds no pixels; is it damaged?")
    findings.add(
        "The sample shows the pixels of the test input",
        pixels.size == wanted.size and bool(np.array_equal(pixels.squeeze(), wanted.squeeze())),
        f"{sample} against {test.name}",
        "the zoo's deepImageJ check runs the sample and compares it with the test output: ship the same "
        "pixels",
        decisive=False,
    )


def _pixels(file: Path) -> NDArray[Any]:
    from imageio.v3 import imread

    if file.suffix.lower() in (".tif", ".tiff"):
        stored_shape(file)  # imageio follows directories in a circle for ever, and believes any size
    # Opened here: imageio leaves a file open that it cannot read.
    with file.open("rb") as opened:
        return np.asarray(imread(opened, extension=file.suffix.lower()))


# --- the bundle in it


def _bundle(
    root: Path, rdf: Mapping[str, Any], findings: Findings, versions: Any, sessions: Any, *, decisive: bool
) -> None:
    entry = weights_of(rdf).get("tensorflow_saved_model_bundle")
    file = local_file(root, entry.get("source")) if isinstance(entry, Mapping) else None
    if file is None:
        return
    from care_bridge.checking.bundles import check_bundle, judge_normalisation
    from care_bridge.checking.onnx_beside import RULE

    judge_normalisation(own_normalisation(rdf, RDF), findings)
    inner = check_bundle(file, versions=TF1_OF_FIJI if versions is None else versions, sessions=sessions)
    for rule in inner.rules:
        if rule.rule == RULE and rule.result == "not run":
            continue  # a package has its ONNX beside its bundle, not in it
        # A package that was stripped for one engine need not open in Run your network as well.
        weighty = rule.decisive and decisive
        result = "warning" if rule.result == "failed" and not weighty else rule.result
        findings.rules.append(
            Rule(f"Run your network: {rule.rule}", result, rule.run, rule.remedy, decisive=weighty)
        )
    findings.facts["run_your_network"] = "accepted" if inner.accepted else inner.verdict
