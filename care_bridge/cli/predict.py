"""`care-bridge predict`: restore images with a model, in the runtime and by the rule that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import PRECISION, PRECISIONS, TF1_VERSION, TF1_VERSIONS
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.plugin.options import PluginOptions
    from care_bridge.predictor import PredictOptions, Predictor

RUNTIMES = ("keras", "onnx", "tf1", "fiji")
RULES = ("csbdeep", "fiji", "bioimageio", "none")


# csbdeep's care_predict, and what this command said before.
_OLD = {
    "--axes": "--image-axes",
    "--input-axes": "--image-axes",
    "--norm-pmin": "--pmin",
    "--norm-pmax": "--pmax",
    "--output-dir": "--out",
    "--output-dtype": "--dtype",
}


def register(app: typer.Typer) -> None:
    app.command("predict", context_settings=old_spellings(_OLD))(command(predict))


def predict(
    model: Annotated[
        Path | None,
        typer.Argument(help="Model folder; a bundle (.zip) or .onnx for the runtimes that need one."),
    ] = None,
    images: Annotated[list[Path] | None, typer.Argument(help="TIFFs, or folders of them.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    applications: options.Applications = 1,
    runtime: Annotated[str, typer.Option(help=f"One of {', '.join(RUNTIMES)}.")] = "keras",
    tensorflow: options.Tensorflow = TF1_VERSION,
    rule: Annotated[
        str | None,
        typer.Option(
            help=f"Percentile rule: {', '.join(RULES)}; else fiji for --runtime fiji, csbdeep for all others."
        ),
    ] = None,
    n_tiles: Annotated[
        str | None,
        typer.Option(
            help="Tiles: one number an image axis (1,2,2), or one number for Y and X each; "
            "for --runtime fiji one number, the plugin's own."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type of the results; 'same' keeps the image's.")] = "float32",
    kind: Annotated[
        str | None,
        typer.Option(help="UpsamplingCARE or IsotropicCARE, for folders of csbdeep, which do not say."),
    ] = None,
    factor: options.Factor = None,
    precision: options.Precision = PRECISION,
    scale: Annotated[
        bool, typer.Option("--scale", help="Also write the widths of a probabilistic model.")
    ] = False,
    input_dir: Annotated[Path | None, typer.Option(help="Folder of images.")] = None,
    input_pattern: Annotated[str, typer.Option(help="Which files of a folder.")] = "*.tif*",
    image_axes: options.ImageAxes = None,
    pmin: options.Pmin = None,
    pmax: options.Pmax = None,
    norm_undo: Annotated[
        bool | None, typer.Option(help="Back to the raw range; the default but for --rule fiji.")
    ] = None,
    model_basedir: Annotated[Path | None, typer.Option(help="Folder that the model folder lies in.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Name of the model folder.")] = None,
    model_weights: Annotated[str | None, typer.Option(help="Weights file in the folder.")] = None,
    output_name: Annotated[
        str,
        typer.Option(
            help="Name of a result; knows {file_path} {file_name} {file_ext} {model_name} {model_weights}."
        ),
    ] = "{file_path}/{file_name}{file_ext}",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Predict, but save nothing.")] = False,
    quiet: options.Silent = False,
) -> int:
    """Restore images and write them as TIFF with their calibration.

    Options of csbdeep's care_predict work under their names there.
    """
    from care_bridge.files import writable_folder
    from care_bridge.inference.files import find_images, predict_files

    _check_known("--runtime", runtime, RUNTIMES)
    _check_known("--precision", precision, PRECISIONS)
    if runtime == "tf1":
        _check_known("--tensorflow", tensorflow, TF1_VERSIONS)
    _check_runtime(
        runtime,
        only_keras={"--model-weights": model_weights, "--precision": precision != PRECISION},
        not_fiji={"--kind": kind, "--factor": factor, "--norm-undo": norm_undo},
    )
    rule = rule or ("fiji" if runtime == "fiji" else "csbdeep")
    written_as = None if dtype == "same" else _dtype(dtype)
    predict_options = _options(rule, pmin, pmax, norm_undo, n_tiles)
    plugin_options = _plugin_options(predict_options, n_tiles) if runtime == "fiji" else None
    paths = list(images or [])
    if model_name is not None:
        paths, model = ([model, *paths] if model else paths), (model_basedir or Path()) / model_name
    if model is None:
        raise InputError("no model; give its folder, or --model-basedir and --model-name")
    if input_dir is not None:
        paths.append(input_dir)
    files = find_images(paths, pattern=input_pattern)
    if not files:
        raise InputError("no images; give TIFFs or a folder of them, or --input-dir")
    name = _name_of(model, output_name, model_weights, input_dir)
    for file in files:
        name(file)  # a name that cannot be is known before the network runs
    with (
        _opened(
            model,
            predict_options,
            plugin_options,
            runtime=runtime,
            tensorflow=tensorflow,
            kind=kind,
            factor=factor,
            weights=model_weights,
            precision=precision,
        ) as predictor,
        progress_bar(quiet=quiet) as progress,
    ):
        if not dry_run:
            writable_folder(out)
        done = predict_files(
            predictor,
            files,
            target=lambda file: out / name(file),
            axes=image_axes,
            applications=applications,
            dtype=written_as,
            scales=scale,
            save=not dry_run,
            provenance=f"care-bridge predict {model.name}, {predictor.runtime}, rule {rule}",
            progress=progress,
        )
    if not quiet:
        for one in done:
            for report in one.written:
                typer.echo(str(report))
            if dry_run:
                typer.echo(f"{one.source}: {one.shape}, not saved")
    return DONE


def _name_of(model: Path, pattern: str, weights: str | None, root: Path | None) -> Callable[[Path], str]:
    def name(file: Path) -> str:
        result = Path(_filled(file))
        if result.is_absolute() or ".." in result.parts or result.suffix.lower() not in (".tif", ".tiff"):
            raise InputError(
                f"--output-name {pattern!r} gives {str(result)!r} for {file.name}; give a name within --out that ends "
                "in .tif or .tiff"
            )
        return str(result)

    def _filled(file: Path) -> str:
        inside = root is not None and root.resolve() in file.resolve().parents
        folder = file.resolve().relative_to(root.resolve()).parent if inside and root else Path()
        try:
            return pattern.format(
                file_path=folder,
                file_name=file.stem,
                file_ext=file.suffix,
                model_name=model.stem,
                model_weights=Path(weights).stem if weights else None,
            )
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InputError(
                f"--output-name {pattern!r} is not understood ({error}); it knows {{file_path}}, {{file_name}}, "
                "{file_ext}, {model_name} and {model_weights}"
            ) from None

    return name


def _dtype(name: str) -> str:
    import numpy as np

    from care_bridge.images import DTYPES

    try:
        return DTYPES[DTYPES.index(np.dtype(name).name)]
    except (TypeError, ValueError):
        raise InputError(
            f"--dtype {name!r} is not a type that TIFF readers share; use one of {', '.join(DTYPES)} or same"
        ) from None


def _options(
    rule: str, pmin: float | None, pmax: float | None, undo: bool | None, n_tiles: str | None
) -> PredictOptions:
    from care_bridge.normalize import FIJI, PercentileRule
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles

    _check_known("--rule", rule, RULES)
    chosen = None if rule == "none" else PercentileRule(rule)
    tiles = None
    if n_tiles is not None:
        try:
            counts = tuple(int(part) for part in n_tiles.replace(",", " ").split())
        except ValueError:
            counts = ()
        if not counts or min(counts) < 1:
            raise InputError(f"--n-tiles {n_tiles!r} is not understood; give numbers from 1, e.g. 1,2,2")
        tiles = CsbdeepTiles({"Y": counts[0], "X": counts[0]} if len(counts) == 1 else counts)
    return PredictOptions(
        rule=chosen,
        pmin=pmin,
        pmax=pmax,
        denormalize=(chosen is not FIJI) if undo is None else undo,
        tiles=tiles,
    )


def _check_known(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{option} {value!r} is not known; use one of {', '.join(known)}")


def _check_runtime(runtime: str, *, only_keras: Mapping[str, Any], not_fiji: Mapping[str, Any]) -> None:
    problems = []
    if runtime != "keras":
        problems = [
            f"{option} is for --runtime keras; a file that is exported for {runtime} holds its own"
            for option, given in only_keras.items()
            if given
        ]
    if runtime == "fiji":
        problems += [
            f"{option} is not for --runtime fiji: the plugin runs the network alone and gives its own scale"
            for option, given in not_fiji.items()
            if given
        ]
    if problems:
        raise InputError("\n".join(problems))


@contextmanager
def _opened(
    model: Path,
    options: PredictOptions,
    plugin_options: PluginOptions | None,
    *,
    runtime: str,
    tensorflow: str,
    kind: str | None,
    factor: float | None,
    weights: str | None,
    precision: str,
) -> Iterator[Predictor]:
    from care_bridge.opening import UPSAMPLING_KINDS, kind_of, open_predictor

    if runtime == "keras":
        load_tensorflow()
    if runtime == "fiji" and (own := kind_of(model)) in UPSAMPLING_KINDS:
        raise InputError(
            f"{str(model)!r} is of kind {own}, which upsamples stacks before the network sees them, and 'Run your "
            "network' does not; use --runtime keras"
        )
    known: Any = kind  # whoever takes it says what is wrong with it
    with open_predictor(
        model,
        runtime=runtime,
        options=plugin_options or options,
        version=tensorflow,
        kind=known,
        factor=factor,
        weights=weights,
        precision=precision,
    ) as predictor:
        yield predictor


def _plugin_options(options: PredictOptions, n_tiles: str | None) -> PluginOptions:
    from care_bridge.normalize import FIJI
    from care_bridge.plugin.options import PluginOptions

    if options.rule not in (None, FIJI):
        raise InputError(
            f"--runtime fiji normalises as the plugin does, not by --rule {options.rule}; "
            "leave --rule out, or give none"
        )
    given: dict[str, Any] = {"normalizeInput": options.rule is not None}
    if options.pmin is not None:
        given["percentileBottom"] = options.pmin
    if options.pmax is not None:
        given["percentileTop"] = options.pmax
    if n_tiles is not None:
        if not n_tiles.strip().isdigit():
            raise InputError(f"--n-tiles {n_tiles!r}: the plugin of --runtime fiji takes one number, e.g. 4")
        given["nTiles"] = int(n_tiles)
    return PluginOptions(**given)
