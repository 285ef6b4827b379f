"""What lies at a model's path: the file that a runtime opens, and what the model says of itself; opens nothing."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from care_bridge import text
from care_bridge.bundle import (
    SAVED_MODEL,
    OwnNormalisation,
    find_bundle,
    own_normalisation,
    read_bundle,
    read_meta,
)
from care_bridge.config import CareConfig, Kind, read_config
from care_bridge.errors import InputError
from care_bridge.files import make_scratch_folder, scratch_folder
from care_bridge.inspection import check_onnx
from care_bridge.keras_file import check_keras_file
from care_bridge.model_names import DATASHEET
from care_bridge.noise import NoiseRange
from care_bridge.package import (
    RDF,
    WEIGHTS,
    config_of_package,
    held_weights,
    is_package,
    percentiles_of,
    read_description,
    unpack_package,
    weights_file,
)

ISOTROPIC: Kind = "IsotropicCARE"
"""The kind that Fiji runs by "Run your IsoNet"; all others by "Run your network"."""

RUN_FORMATS = (*dict.fromkeys(WEIGHTS.values()), "keras_v3")
"""Weights formats of packages that run here; others bring Python of their own, or need what is not here."""

UPSAMPLING_KINDS = ("UpsamplingCARE", ISOTROPIC)
"""Models that upsample stacks before the network sees them."""


def runtime_of(path: str | os.PathLike[str]) -> str:
    """What a file is made for: Keras for model folders and its own files, TensorFlow for bundles, ONNX Runtime.

    Raises
    ------
    InputError
        If there is no model at the path.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"there is no model at {str(path)!r}; give a model folder, a .keras or .h5 file, a bundle, "
            "or a name of `care-bridge zoo list`"
        )
    if path.is_dir() and (path / "config.json").is_file():
        return "keras"
    if is_package(path):
        with scratch_folder() as folder:
            root = unpack_package(path, Path(folder))
            rdf = read_description(root, path)
            orders = ("keras", "tensorflow", "onnx")
            found = next((name for name in orders if weights_file(root, rdf, WEIGHTS[name])), None)
        if found is None:
            raise InputError(f"{path} holds no weights that run here, only: {held_weights(rdf)}")
        return found
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if path.suffix.lower() == ".zip" or (path / SAVED_MODEL).is_file():
        return "tensorflow"
    return "keras"


def kind_of(path: str | os.PathLike[str]) -> str:
    """The csbdeep class of a model folder, or of a network that tells it or lies in its folder; "CARE" for others."""
    path = Path(path)
    if told := read_meta(path).type:
        return told
    for folder in (path, path.parent):
        if (folder / "config.json").is_file():
            return read_config(folder).kind
    return "CARE"


def factor_of(path: str | os.PathLike[str]) -> float | None:
    """Upsampling along Z that a model folder states, also of a network that lies in it; None where none does."""
    path = Path(path)
    for folder in (path, path.parent):
        if (folder / "config.json").is_file():
            return read_config(folder).factor
    return None


@dataclass(frozen=True)
class Source:
    """What a runtime opens, and what the model says of itself.

    Attributes
    ----------
    file : Path
        A model folder, a Keras file, a bundle or an .onnx file.
    config : CareConfig or None
    percentiles : tuple of two floats or None
        Where there is no config.
    normalisation : OwnNormalisation or None
        A mean and standard deviation that the network was trained on, instead of percentiles.
    unpacked : Path or None
        A folder of a package's files that goes when what was opened goes.
    package : Path or None
        The package that was unpacked there.
    raw : bool
        Whether the network takes grey levels as they are: its scale is in it.
    """

    file: Path
    config: CareConfig | None = None
    percentiles: tuple[float | None, float | None] = (None, None)
    normalisation: OwnNormalisation | None = None
    unpacked: Path | None = None
    package: Path | None = None
    raw: bool = False

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Where nothing is opened, remove what was unpacked, and name the package instead of where it was unpacked."""
        try:
            yield
        except BaseException as error:
            if self.unpacked is not None:
                shutil.rmtree(self.unpacked, ignore_errors=True)
                if isinstance(error, InputError):
                    error.args = (str(error).replace(str(self.unpacked), str(self.package)),)
            raise

    def live_with(self, opened: object) -> None:
        """Keep what was unpacked for as long as an object lives."""
        if self.unpacked is not None:
            weakref.finalize(opened, shutil.rmtree, self.unpacked, ignore_errors=True)


def find_source(path: str | os.PathLike[str], runtime: str) -> Source:
    """What a runtime opens of a path; a package's files are unpacked for as long as what was opened lives."""
    path = Path(path)
    folder = (path / "config.json").is_file()
    if not folder and is_package(path):
        return _in_package(path, runtime)
    file = path
    if runtime == "onnx":
        file = _onnx_file(path)
    elif runtime != "keras":
        file = find_bundle(path)
    elif path.suffix.lower() in (".zip", ".onnx") and path.is_file():
        of = "tf1" if path.suffix.lower() == ".zip" else "onnx"
        raise InputError(
            f"{str(path)!r} is a network for another runtime; add --runtime {of}, or name the model's folder"
        )
    if folder:
        config = read_config(path)
        return Source(file, config, raw=config.own_scale is not None)
    told = read_meta(file)
    return Source(
        file,
        percentiles=(told.pmin, told.pmax),
        normalisation=told.normalisation,
        raw=told.normalisation is None and told.fiji.get("normalizeInput") is False,
    )


def _in_package(path: Path, runtime: str) -> Source:
    scratch = make_scratch_folder("care-bridge-package-")
    try:
        root = unpack_package(path, scratch)
        rdf = read_description(root, path)
        file = weights_file(root, rdf, WEIGHTS[runtime])
        if file is None:
            raise InputError(
                f"{path} holds no weights for {runtime} ({WEIGHTS[runtime]}), only: {held_weights(rdf)}"
            )
        config = config_of_package(root, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    own = own_normalisation(rdf, RDF)
    inside = own is None and config is not None and config.own_scale is not None
    return Source(file, config, percentiles_of(rdf) or (None, None), own, scratch, path, inside)


def check_weights(file: Path, weights: str) -> None:
    """Look into a package's weights before anybody's runtime opens them.

    Parameters
    ----------
    file : Path
    weights : str
        A format of `RUN_FORMATS`.

    Raises
    ------
    InputError
        If they hold what is not run from a file of others; see `bundle`, `inspection` and `keras_file`.
    """
    if weights == "onnx":
        check_onnx(file)
    elif weights == "tensorflow_saved_model_bundle":
        read_bundle(file)
    else:
        check_keras_file(file)


def _onnx_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise InputError(
            f"{path} has {len(found)} .onnx files; name one, or write one: "
            f"care-bridge export {path} --format onnx --out {path / 'model.onnx'}"
        )
    return found[0]


def stated_config(path: str | os.PathLike[str]) -> CareConfig | None:
    """The settings that a model folder or a package of ours carries; None where there are none."""
    path = Path(path)
    if (path / "config.json").is_file():
        return read_config(path)
    if is_package(path):
        with scratch_folder() as folder:
            return config_of_package(unpack_package(path, Path(folder)), path)
    return None


def stated_noise(path: str | os.PathLike[str]) -> NoiseRange:
    """Which noise a model was trained with, as far as anybody wrote it down.

    Parameters
    ----------
    path : path
        A model folder, a package, a bundle, or a network that lies in its folder.

    Returns
    -------
    NoiseRange
        By the recipe that its patches were simulated with, or what was measured of its sources, both in config.json (in
        a bundle meta.json); what these leave open by the data sheet of a model of the zoo.

    Raises
    ------
    InputError
        If a file of these is damaged.
    """
    path = Path(path)
    config = stated_config(path)
    folder = path if config is not None else path.parent
    if config is None and (folder / "config.json").is_file():
        config = read_config(folder)
    made_of = (read_meta(path).provenance if config is None else config.provenance).get("data")
    data = made_of if isinstance(made_of, Mapping) else {}
    # Sources of an isotropic network are planes that were blurred on purpose: their noise is not that of a stack.
    isotropic = config is not None and config.kind == "IsotropicCARE"
    measured = NoiseRange() if isotropic else NoiseRange.from_dict(data.get("noise"))
    found = _simulated(data.get("recipe")).filled(measured)
    if config is not None and config.method == "n2v" and config.n2v_structmask is None:
        # Whatever it was trained on: what neighbours or rows share is not hidden by single blind spots, and stays.
        found = replace(found, correlation=(0.0, 0.0), rows=(0.0, 0.0))
    sheet = text.read(folder / DATASHEET, "TOML") if (folder / DATASHEET).is_file() else None
    said = _of_sheet(sheet) if isinstance(sheet, Mapping) else NoiseRange()
    return found.filled(said)


def _simulated(recipe: Any) -> NoiseRange:
    """The noise of the one camera of a recipe for streams."""
    sets = recipe.get("sets") if isinstance(recipe, Mapping) else None
    steps = (
        [one.get("steps") for one in sets or () if isinstance(one, Mapping)] if isinstance(sets, list) else []
    )
    if len(steps) != 1 or not isinstance(steps[0], list) or len(steps[0]) != 1:
        return NoiseRange()
    camera = steps[0][0]
    if not isinstance(camera, Mapping) or camera.get("step") != "camera":
        return NoiseRange()
    photons, bright = camera.get("photons"), camera.get("bright_photons")
    if camera.get("bright_share") and isinstance(photons, list) and isinstance(bright, list):
        photons = [*photons[:1], *bright[1:]]
    shared = {"correlation": _had(camera, "neighbours"), "rows": _had(camera, "rows")}
    return NoiseRange.from_dict({"photons": photons, **shared})


def _had(camera: Mapping[str, Any], key: str) -> Any:
    """From none, unless every image has it, to the most."""
    share, given = camera.get(f"{key}_share"), camera.get(key)
    if share == 0:
        return [0.0, 0.0]
    return [0.0, *given[1:]] if isinstance(given, list) and share != 1 else given


def _of_sheet(sheet: Mapping[str, Any]) -> NoiseRange:
    given = {"photons": sheet.get("photons"), "correlation": sheet.get("neighbour_correlation")}
    return NoiseRange.from_dict({**given, **({"correlation": None} if sheet.get("noise") == "any" else {})})


def stated_percentiles(path: str | os.PathLike[str]) -> tuple[float | None, float | None]:
    """The percentiles that a model states, from its config.json, meta.json or rdf.yaml; None where it states none."""
    path = Path(path)
    if (path / "config.json").is_file():
        config = read_config(path)
        if config.own_scale is not None:
            return None, None
        return config.norm_pmin, config.norm_pmax
    if is_package(path):
        with scratch_folder() as folder:
            return percentiles_of(read_description(unpack_package(path, Path(folder)), path)) or (None, None)
    told = read_meta(path)
    return told.pmin, told.pmax


def stated_plugin_values(path: str | os.PathLike[str]) -> dict[str, bool | float]:
    """What a model states of how the plugin is to normalise, under the plugin's names; empty where it says nothing."""
    path = Path(path)
    if (path / "config.json").is_file() and read_config(path).own_scale is not None:
        return {"normalizeInput": False}
    pmin, pmax = stated_percentiles(path)
    told = {} if pmin is None else {"percentileBottom": pmin}
    told |= {} if pmax is None else {"percentileTop": pmax}
    if pmin is None and pmax is None and not is_package(path):
        switch = read_meta(path).fiji.get("normalizeInput")
        return {"normalizeInput": switch} if isinstance(switch, bool) else {}
    return dict(told)


def takes_grey_levels(path: str | os.PathLike[str]) -> bool:
    """Whether a model folder or a bundle says that its scale is in the network, so that nothing is to be normalised."""
    path = Path(path)
    return not is_package(path) and stated_plugin_values(path).get("normalizeInput") is False


def stated_axes(file: Path, rank: int) -> str | None:
    """Axes from a bundle's meta.json, where they fit; else None, which reads them from the rank."""
    axes = read_meta(file).axes
    return axes if axes and axes.endswith("C") and len(axes) == rank - 1 else None
