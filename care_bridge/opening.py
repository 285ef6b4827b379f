"""From a path to a predictor: the only place that opens a model, whatever its file and whatever runs it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from care_bridge.built import built, bundle_of
from care_bridge.bundle import read_onnx
from care_bridge.config import CareConfig, Kind, read_config
from care_bridge.defaults import LEVEL, LEVELS, PRECISION, TF1_VERSION
from care_bridge.errors import InputError
from care_bridge.levels import choose_level
from care_bridge.model_files import (
    ISOTROPIC,
    UPSAMPLING_KINDS,
    Source,
    factor_of,
    find_source,
    kind_of,
    runtime_of,
    stated_axes,
    stated_plugin_values,
)
from care_bridge.model_names import model_path
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import Network, PredictOptions, Predictor

if TYPE_CHECKING:
    from care_bridge.guard import Likeness
    from care_bridge.images import Image
    from care_bridge.inference.guard import Guard
    from care_bridge.noise import Noise
    from care_bridge.plugin.options import PluginOptions

RuntimeName = Literal["keras", "tensorflow", "onnx", "tf1", "imagej", "imagej-onnx", "fiji"]
RUNTIMES: tuple[str, ...] = get_args(RuntimeName)
"""What can execute a network; `predictor.runtime.name` says which did."""

_LEVEL_OF = {
    "keras": "emulation",
    "tensorflow": "emulation",
    "onnx": "emulation",
    "tf1": "tf1",
    "imagej": "imagej",
    "imagej-onnx": "onnx",
    "fiji": "fiji",
}
_NETWORK_RUNTIMES = ("keras", "tensorflow", "onnx", "tf1")
"""Those that give a bare network; in the others only images go in and out."""


def open_predictor(
    path: str | os.PathLike[str],
    level: str | None = None,
    *,
    runtime: str | None = None,
    options: PredictOptions | PluginOptions | None = None,
    version: str = TF1_VERSION,
    fiji: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
    factor: float | None = None,
    weights: str | None = None,
    precision: str = PRECISION,
) -> Predictor:
    """A model as a predictor: run by any runtime, used Python's own way or as Fiji's "Run your network" does.

    Two words choose, and the predictor's `runtime` says both again as its `name` and `level`:

    - `runtime` is what executes the network: `keras`, `tensorflow` (2, here), `onnx`, `tf1` (the plugin's TensorFlow
      in a worker), `imagej` (the same, asked by the real ImageJ), `imagej-onnx` (ONNX Runtime for Java, by our scripts
      in the real ImageJ), `fiji` (whatever a person's Fiji brings).
    - `level` is how much of Fiji is there around it: `fiji`, `imagej`, `tf1`, `emulation` do what the plugin does,
      with less and less of the real thing; `onnx` is our scripts without the plugin; `""` is none, Python's own way
      (csbdeep's, or what `options` say).

    Either may be left out. A level brings its runtime: `fiji`, `imagej` and `tf1` the one of the same name, `onnx`
    `imagej-onnx`, `emulation` TensorFlow for a bundle, else what the file is made for. A runtime alone is used Python's
    own way, but for `imagej`, `imagej-onnx` and `fiji`, which have none. Neither: the strongest level that is there, as
    level `best`.

    ==============  =====================================================
    runtime         levels
    ==============  =====================================================
    `keras`         `""`, `emulation`
    `tensorflow`    `""`, `emulation`
    `onnx`          `""`, `emulation`
    `tf1`           `""`, `tf1`
    `imagej`        `imagej`
    `imagej-onnx`   `onnx`
    `fiji`          `fiji`
    ==============  =====================================================

    Parameters
    ----------
    path : path
        A model folder (ours or csbdeep's; an ensemble's is averaged), a Keras file (.keras, .h5), a bundle (.zip) or a
        SavedModel folder, an .onnx file, or a BioImage.IO package (a zip, or unpacked). In a model folder,
        every runtime but Keras takes what was exported into it. Or the name of a model of the zoo (`model_names`), of
        which every runtime but Keras takes what is built once, in the cache folder (`built`).
    level : str, optional
        `best`, one of `levels.LEVELS`, or "". One asked for by name is never silently lowered. `best` beside a
        runtime is that runtime's own.
    runtime : str, optional
        One of `RUNTIMES`.
    options : PredictOptions or PluginOptions, optional
        Python's own way takes `PredictOptions`; None predicts as csbdeep, with the percentiles that the model states.
        A level takes `PluginOptions`, what one would type in the plugin's dialog; None takes its defaults, which are
        not the model's own percentiles (`own_plugin_options`).
    version : str
        The TensorFlow 1.x of `tf1` and `imagej`; a Fiji has its own.
    fiji : path, optional
        A Fiji folder; None takes `CARE_BRIDGE_FIJI`.
    kind : str, optional
        csbdeep's class, for its folders, which do not say whether they are UpsamplingCARE or IsotropicCARE; at a level
        of Fiji only the latter, which is run as by "Run your IsoNet". None takes the model's own.
    factor : float, optional
        Upsampling along Z for UpsamplingCARE and IsotropicCARE; None takes the model's own.
    weights : str, optional
        File of weights in a model folder, for Keras; None takes the best.
    precision : {"float32", "bfloat16"}
        What Keras computes a model folder's network in.

    Returns
    -------
    Predictor
        A context manager; its worker, if it has one, ends with it.

    Raises
    ------
    NotInstalledError
        If the level or runtime is not there; the message holds the command that adds it.
    InputError
        If there is no such model at `path`, or what is asked for does not fit together.
    """
    path = model_path(path)
    asked, runtime_asked = level, runtime
    level, runtime = _resolved(path, level, runtime, version=version, fiji=fiji)
    _check_keras_only(runtime, weights, precision)
    if level:
        named = level in (asked, _LEVEL_OF.get(runtime_asked or ""))
        ours = level == "onnx" and named  # our scripts do for every kind of model what its kind needs
        scale = None if ours else _isonet_scale(path, level, kind, factor)
        if ours:
            _check_factor(path, factor)
        if scale is not None and level in ("imagej", "onnx"):
            if named:
                raise InputError(
                    f'level {level!r} answers "Run your network" only, and an isotropic model needs "Run your '
                    'IsoNet"; use level fiji, onnx, tf1 or emulation'
                )
            level, runtime = ("tf1", "tf1") if level == "imagej" else ("emulation", _emulated_by(path))
        return _open_plugin(
            path,
            level,
            runtime,
            options=_plugin_options(options),
            version=version,
            fiji=fiji,
            scale=scale,
            weights=weights,
            precision=precision,
        )
    predictor, config = _open_with_config(
        path,
        _predict_options(options),
        runtime=runtime,
        version=version,
        weights=weights,
        precision=precision,
        asks_for_kind=kind is not None or factor is not None,
        bare=False,
    )
    if config is None:
        return predictor
    from care_bridge.inference.volumes import of_kind

    return of_kind(predictor, config if kind is None else config.replace(kind=kind), factor=factor)


def open_network_predictor(
    path: str | os.PathLike[str],
    options: PredictOptions | None = None,
    *,
    runtime: str | None = None,
    version: str = TF1_VERSION,
    weights: str | None = None,
    precision: str = PRECISION,
) -> NetworkPredictor:
    """The network of a model used Python's plain way, whatever its kind: what lies around it is left out.

    Parameters
    ----------
    path, options, version, weights, precision
        As for `open_predictor`.
    runtime : str, optional
        `keras`, `tensorflow`, `onnx` or `tf1`; None takes what the file is made for, see `runtime_of`.

    Returns
    -------
    NetworkPredictor
        A context manager, as of `open_predictor`.
    """
    path = model_path(path)
    chosen = _network_runtime(path, runtime)
    _check_keras_only(chosen, weights, precision)
    return _open_with_config(
        path,
        options or PredictOptions(),
        runtime=chosen,
        version=version,
        weights=weights,
        precision=precision,
        asks_for_kind=False,
        bare=True,
    )[0]


def open_network(
    path: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    version: str = TF1_VERSION,
    weights: str | None = None,
    precision: str = PRECISION,
) -> Network:
    """The bare network of a model, tensor in and tensor out.

    Parameters
    ----------
    path, version, weights, precision
        As for `open_predictor`.
    runtime : str, optional
        `keras`, `tensorflow`, `onnx` or `tf1`; None takes what the file is made for, see `runtime_of`.

    Returns
    -------
    Network
        A context manager; its worker, if it has one, ends with it.
    """
    path = model_path(path)
    runtime = _network_runtime(path, runtime)
    _check_keras_only(runtime, weights, precision)
    source = _source(path, runtime)
    with source.opening():
        return _network(source, runtime, version=version, weights=weights, precision=precision)


def open_members(
    path: str | os.PathLike[str],
    options: PredictOptions | None = None,
    *,
    kind: Kind | None = None,
    factor: float | None = None,
    precision: str = PRECISION,
) -> list[Predictor]:
    """The members of an ensemble's folder, a predictor each, in Keras; none for any other model.

    Parameters
    ----------
    path, options, kind, factor, precision
        As for `open_predictor`.

    Returns
    -------
    list of Predictor
        In the order of the members' numbers; each is to be closed.
    """
    path = model_path(path)
    if not (path / "config.json").is_file():
        return []
    from care_bridge.training.folder import members_of

    return [
        open_predictor(
            path / name, runtime="keras", options=options, kind=kind, factor=factor, precision=precision
        )
        for name in members_of(read_config(path))
    ]


@dataclass(frozen=True)
class Opening:
    """A model and how it is to be opened, which can be sent to another process; called there, it is opened.

    Attributes
    ----------
    path : Path
    how : mapping
        Further arguments of `open_predictor`.
    guarded : bool
        Whether images are to be held against the training's.
    """

    path: Path
    how: Mapping[str, Any]
    guarded: bool = False

    def __call__(self) -> tuple[Predictor, Callable[[Image, Sequence[Noise] | None], Likeness] | None]:
        """The predictor, and what says whether an image is familiar, where that is asked for and known."""
        if self.how.get("runtime") == "keras":
            from care_bridge.training.startup import load_tensorflow

            load_tensorflow()
        predictor = open_predictor(self.path, **self.how)
        guard = open_guard(self.path, opened=[predictor]) if self.guarded else None
        return predictor, guard.look if guard is not None and guard.familiar is not None else None


def open_guard(path: str | os.PathLike[str], *, opened: Sequence[Predictor] = ()) -> Guard:
    """What tells whether an image looks like what a model was trained on; of a model that cannot, it says so.

    Parameters
    ----------
    path : path
        As for `open_predictor`. Only a model's folder holds statistics of its training patches.
    opened : sequence of Predictor
        Its predictor in Keras, of its best weights and in float32, or those of its members (`open_members`), where they
        are open already: their networks are asked then. None: they are loaded.

    Returns
    -------
    Guard
        `Guard.look(image)` gives a `guard.Likeness`.
    """
    from care_bridge.inference.guard import open_guard as guard_of

    return guard_of(model_path(path), opened=opened)


def own_plugin_options(path: str | os.PathLike[str], **changes: Any) -> PluginOptions:
    """The plugin's defaults with a model's own percentiles, as a person should type them for it.

    Parameters
    ----------
    path : path
        Whatever `open_predictor` opens.
    **changes
        Options to set otherwise, under the plugin's own names; None changes nothing.
    """
    from care_bridge.plugin.options import PluginOptions

    return PluginOptions.told(stated_plugin_values(model_path(path)), **changes)


# --- what is asked for


def _resolved(
    path: str | os.PathLike[str],
    level: str | None,
    runtime: str | None,
    *,
    version: str,
    fiji: str | os.PathLike[str] | None,
) -> tuple[str, str]:
    """Level and runtime, both known and fitting."""
    if runtime is not None and runtime not in RUNTIMES:
        more = "; 'emulation' is a level" if runtime == "emulation" else ""
        raise InputError(f"runtime={runtime!r} is none of {', '.join(RUNTIMES)}{more}")
    if level not in (None, "", "best", *LEVELS):
        raise InputError(f"level={level!r} is none of best, {', '.join(LEVELS)}")
    if runtime is None:
        if level == "":
            return "", runtime_of(path)
        chosen = choose_level(level or LEVEL, fiji=fiji, version=version)
        if chosen == "onnx" and level != "onnx" and not _has_onnx(path):
            chosen = "emulation"
        if chosen == "emulation":
            return chosen, _emulated_by(path)
        return chosen, "imagej-onnx" if chosen == "onnx" else chosen
    if level is None:
        level = "" if runtime in _NETWORK_RUNTIMES else _LEVEL_OF[runtime]
    elif level == "best":
        level = _LEVEL_OF[runtime]
    fitting = ("", _LEVEL_OF[runtime]) if runtime in _NETWORK_RUNTIMES else (_LEVEL_OF[runtime],)
    if level not in fitting:
        raise InputError(
            f"level {level!r} does not go with runtime {runtime!r}, which has {' or '.join(map(repr, fitting))}"
        )
    if level and runtime not in ("keras", "onnx"):
        choose_level(level, fiji=fiji, version=version)
    return level, runtime


def _has_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether level `onnx` can run a model; what is wrong with one that cannot be read is told when it is opened."""
    try:
        return not read_onnx(bundle_of(path)).why_not
    except (InputError, OSError):
        return False


def _emulated_by(path: str | os.PathLike[str]) -> str:
    """TensorFlow for a bundle, also one in a model folder, since it is what Fiji gets; else what the file is for."""
    path = Path(path)
    return "tensorflow" if path.suffix.lower() == ".zip" or not path.is_file() else runtime_of(path)


def _network_runtime(path: str | os.PathLike[str], runtime: str | None) -> str:
    if runtime is None:
        return runtime_of(path)
    if runtime not in _NETWORK_RUNTIMES:
        raise InputError(
            f"runtime={runtime!r} gives no bare network; use one of {', '.join(_NETWORK_RUNTIMES)}"
        )
    return runtime


def _check_keras_only(runtime: str, weights: str | None, precision: str) -> None:
    given = {"weights": weights is not None, "precision": precision != PRECISION}
    wrong = [name for name, there in given.items() if there]
    if wrong and runtime != "keras":
        raise InputError(
            f"{' and '.join(wrong)} are for runtime 'keras'; a file that is exported for {runtime} holds its own"
        )


def _isonet_scale(
    path: str | os.PathLike[str], level: str, kind: str | None, factor: float | None
) -> float | None:
    """The scale factor for "Run your IsoNet"; None for a model that "Run your network" runs."""
    if (kind or kind_of(path)) != ISOTROPIC:
        if kind is not None or factor is not None:
            raise InputError(
                f"kind and factor are not for level {level!r}: the plugin runs the network alone, but for an {ISOTROPIC}"
            )
        return None
    factor = factor_of(path) if factor is None else factor
    if factor is None:
        raise InputError(
            f'{str(path)!r} is an {ISOTROPIC}, for "Run your IsoNet", and does not say by what factor Z is to be '
            "upsampled; give it as factor (--factor)"
        )
    if not factor >= 1:
        raise InputError(f'factor={factor:g}: "Run your IsoNet" takes at least 1')
    return factor


def _check_factor(path: str | os.PathLike[str], factor: float | None) -> None:
    """Our scripts take a model's own factor, and no other."""
    if factor is not None and factor != (own := factor_of(path)):
        raise InputError(
            f"factor={factor:g}: our scripts for Fiji take what the model says, {'nothing' if own is None else f'{own:g}'}; "
            "leave it out"
        )


def _predict_options(options: object) -> PredictOptions:
    if options is None:
        return PredictOptions()
    if not isinstance(options, PredictOptions):
        raise InputError(
            f"Python's own way takes PredictOptions; received {type(options).__name__} (name a level for the plugin's)"
        )
    return options


def _plugin_options(options: object) -> PluginOptions:
    from care_bridge.plugin.options import PluginOptions

    if options is None:
        return PluginOptions()
    if not isinstance(options, PluginOptions):
        raise InputError(
            f"a level of Fiji takes PluginOptions, what one types in the dialog; received {type(options).__name__}"
        )
    return options


# --- opening


def _source(path: str | os.PathLike[str], runtime: str) -> Source:
    """What a runtime opens of a path; of a model of the zoo what is built for it."""
    made = built(Path(path), runtime)
    return find_source(path, runtime) if made is None else Source(made, read_config(path))


def _open_plugin(
    path: str | os.PathLike[str],
    level: str,
    runtime: str,
    *,
    options: PluginOptions,
    version: str,
    fiji: str | os.PathLike[str] | None,
    scale: float | None,
    weights: str | None,
    precision: str,
) -> Predictor:
    source = _source(path, runtime)
    if source.normalisation is not None and options.normalizeInput:
        _warn_of_percentiles(path, source)
    if source.raw and options.normalizeInput:
        warnings.warn(
            f"{Path(path).name} takes grey levels as they are, its scale is in it; percentiles give it another scale: "
            "switch 'Normalize image' off (normalizeInput=false)",
            stacklevel=2,
        )
    opened: Predictor
    with source.opening():
        if level == "fiji":
            from care_bridge.java.pyimagej import FijiPlugin

            opened = FijiPlugin(source.file, options, fiji=fiji, scale=scale)
        elif level == "imagej":
            from care_bridge.java.imagej import ImageJPredictor

            opened = ImageJPredictor(source.file, options, tf1_version=version)
        elif level == "onnx":
            from care_bridge.java.imagej_onnx import ImageJOnnxPredictor

            opened = ImageJOnnxPredictor(source.file, options)
        else:
            from care_bridge.plugin.emulation import EmulatedPlugin
            from care_bridge.plugin.isotropic import EmulatedIsoNet

            network = _network(source, runtime, version=version, weights=weights, precision=precision)
            if scale is None:
                own = source.config
                widths = None if own is None else _gives_widths(network, own)
                opened = EmulatedPlugin(network, options, probabilistic=widths)
            else:
                opened = EmulatedIsoNet(network, options, scale=scale)
    source.live_with(opened)
    return opened


def _open_with_config(
    path: str | os.PathLike[str],
    options: PredictOptions,
    *,
    runtime: str,
    version: str,
    weights: str | None,
    precision: str,
    asks_for_kind: bool,
    bare: bool,
) -> tuple[NetworkPredictor, CareConfig | None]:
    """The network's predictor by what the model states, and its settings if they are there."""
    source = _source(path, runtime)
    with source.opening():
        if source.config is None and not bare:
            _check_whole(Path(path), asks_for_kind=asks_for_kind)
        network = _network(source, runtime, version=version, weights=weights, precision=precision)
    network, options = _on_its_own_scale(network, source, options, path=path, bare=bare)
    return _by_what_is_stated(network, source, options), source.config


def _on_its_own_scale(
    network: Network, source: Source, options: PredictOptions, *, path: str | os.PathLike[str], bare: bool
) -> tuple[Network, PredictOptions]:
    """A network that has its own mean and deviation is given them instead of percentiles, and never without a word."""
    from care_bridge.normalize import CSBDEEP
    from care_bridge.own_scale import OnItsOwnScale

    own = source.normalisation
    if own is None or options.rule is None:
        return network, options
    if bare or options.rule is not CSBDEEP or options.pmin is not None or options.pmax is not None:
        _warn_of_percentiles(path, source)
        return network, options
    warnings.warn(
        f"{Path(path).name} states its own {own}; images are normalised by them, not by percentiles",
        stacklevel=2,
    )
    return OnItsOwnScale(network, own, back=options.denormalize), options.replace(rule=None)


def _warn_of_percentiles(path: str | os.PathLike[str], source: Source) -> None:
    warnings.warn(
        f"{Path(path).name} states its own {source.normalisation}; percentiles give the network another scale: "
        "subtract the mean and divide by the deviation first, and normalise no more (rule none; in Fiji without "
        "'Normalize image')",
        stacklevel=3,
    )


def _by_what_is_stated(network: Network, source: Source, options: PredictOptions) -> NetworkPredictor:
    from care_bridge.inference.volumes import with_own_percentiles

    config = source.config
    if config is not None:
        return NetworkPredictor(
            network,
            with_own_percentiles(options, config),
            axes=config.axes,
            size_multiple=config.size_multiple,
            halo=config.halo,
            probabilistic=_gives_widths(network, config),
            lost_axis=config.proj_axis or "",
            features=config.unet_n_first,
        )
    if options.rule is not None and (source.raw or _takes_grey_levels(network)):
        if options.pmin is not None or options.pmax is not None:
            raise InputError(
                f"{source.file.name} takes grey levels as they are, its scale is in it; leave the percentiles out"
            )
        options = options.replace(rule=None)
    if options.rule is not None:
        pmin, pmax = _stated_by(network) if source.percentiles == (None, None) else source.percentiles
        options = options.replace(
            pmin=pmin if options.pmin is None else options.pmin,
            pmax=pmax if options.pmax is None else options.pmax,
        )
    return NetworkPredictor(network, options, axes=stated_axes(source.file, len(network.input_shape)))


def _stated_by(network: Network) -> tuple[float | None, float | None]:
    """Percentiles that an .onnx file of ours carries; nothing else can ask for them before it is opened."""
    if network.runtime.name != "onnx":
        return None, None
    from care_bridge.inference.onnx import OnnxNetwork

    return network.percentiles if isinstance(network, OnnxNetwork) else (None, None)


def _takes_grey_levels(network: Network) -> bool:
    """Whether an .onnx file of ours says that its scale is in it."""
    if network.runtime.name != "onnx":
        return False
    from care_bridge.inference.onnx import OnnxNetwork

    return isinstance(network, OnnxNetwork) and network.takes_grey_levels


def _gives_widths(network: Network, config: CareConfig) -> bool:
    """Whether a network gives widths beside its means: a probabilistic model's bundle of the means alone does not."""
    given = network.output_shape[-1]
    return config.probabilistic and given in (None, 2 * config.n_channel_out)


def _check_whole(path: Path, *, asks_for_kind: bool) -> None:
    if asks_for_kind:
        raise InputError(f"kind and factor need the model's config.json; name its folder, not {path}")
    if (own := kind_of(path)) in UPSAMPLING_KINDS:
        where = f", {str(path.parent)!r}" if (path.parent / "config.json").is_file() else ""
        raise InputError(
            f"{str(path)!r} is the bare network of a model of kind {own}, which upsamples stacks before the network "
            f"sees them; name the model's folder instead{where}"
        )


def _network(source: Source, runtime: str, *, version: str, weights: str | None, precision: str) -> Network:
    network = _load(source.file, runtime, version=version, weights=weights, precision=precision)
    source.live_with(network)
    return network


def _load(file: Path, runtime: str, *, version: str, weights: str | None, precision: str) -> Network:
    if runtime == "onnx":
        from care_bridge.inference.onnx import OnnxNetwork

        return OnnxNetwork(file)
    if runtime == "tf1":
        from care_bridge.java.tf1 import Tf1Network

        return Tf1Network(file, version)
    if runtime == "tensorflow":
        from care_bridge.inference.savedmodel import SavedModelNetwork

        return SavedModelNetwork(file)
    from care_bridge.export.source import KERAS_SUFFIXES, open_source
    from care_bridge.inference.keras import KerasNetwork

    if file.is_dir() or file.suffix.lower() not in KERAS_SUFFIXES:
        # A path without a known suffix that is not there is told as the missing folder it is meant to be.
        from care_bridge.training.folder import load_model

        return KerasNetwork(load_model(file, weights=weights, precision=precision).network)
    if weights is not None or precision != PRECISION:
        raise InputError(f"weights and precision are for a model folder; {str(file)!r} is a file")
    return KerasNetwork(open_source(file).network)


__all__: Sequence[str] = (
    "RUNTIMES",
    "UPSAMPLING_KINDS",
    "kind_of",
    "open_guard",
    "open_members",
    "open_network",
    "open_network_predictor",
    "open_predictor",
    "own_plugin_options",
    "runtime_of",
)
