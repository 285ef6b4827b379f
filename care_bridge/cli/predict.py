"""`care-bridge predict`: restore images with a model, in the runtime and by the rule that are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._guard import say_likeness, write_likeness
from care_bridge.cli._parse import one_of
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import (
    MEMORY_GIB,
    OME_ZARR,
    OME_ZARRS,
    PRECISION,
    PRECISIONS,
    RESULT_NAME,
    TF1_VERSION,
    TF1_VERSIONS,
)
from care_bridge.errors import InputError
from care_bridge.model_names import model_path

if TYPE_CHECKING:
    from care_bridge.images import WriteReport
    from care_bridge.plugin.options import PluginOptions
    from care_bridge.predictor import PredictOptions

RUNTIMES = ("keras", "onnx", "tf1", "imagej-onnx", "fiji")
IN_FIJI = ("imagej-onnx", "fiji")
"""Those that follow the plugin: its percentiles, its tiles, its scale."""
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


Rule = Annotated[
    str | None,
    Option(
        help=f"Percentile rule: {', '.join(RULES)}; else fiji for --runtime {' and '.join(IN_FIJI)}, csbdeep for all others."
    ),
]
NTiles = Annotated[
    str | None,
    Option(
        help="Tiles: one number an image axis (1,2,2), or one number for Y and X each; "
        f"for --runtime {' and '.join(IN_FIJI)} one number, as in Fiji."
    ),
]
OutputName = Annotated[
    str,
    Option(help="Name of a result; knows {file_path} {file_name} {file_ext} {model_name} {model_weights}."),
]


def register(app: typer.Typer) -> None:
    app.command("predict", context_settings=old_spellings(_OLD))(command(predict))


def predict(
    model: Annotated[
        Path | None,
        Argument(
            help="Model folder; a bundle (.zip) or .onnx for runtimes that need one; a name of `zoo list`."
        ),
    ] = None,
    images: Annotated[list[Path] | None, Argument(help="TIFFs or OME-Zarrs, or folders of them.")] = None,
    *,
    out: Annotated[
        Path,
        Option(
            help="Folder for the results; or of one image the result's own name, in .ome.zarr, .tif or .ome.tif."
        ),
    ],
    applications: options.Applications = 1,
    runtime: Annotated[str, Option(help=f"One of {', '.join(RUNTIMES)}.")] = "keras",
    tensorflow: options.Tensorflow = TF1_VERSION,
    rule: Rule = None,
    n_tiles: NTiles = None,
    dtype: Annotated[str, Option(help="Type of the results; 'same' keeps the image's.")] = "float32",
    scale_when_converting: options.Fill = False,
    kind: Annotated[
        str | None, Option(help="UpsamplingCARE or IsotropicCARE, for folders of csbdeep, which do not say.")
    ] = None,
    factor: options.Factor = None,
    precision: options.Precision = PRECISION,
    scale: Annotated[bool, Option("--scale", help="Also write the widths of a probabilistic model.")] = False,
    input_dir: Annotated[Path | None, Option(help="Folder of images.")] = None,
    input_pattern: Annotated[str, Option(help="Which files of a folder.")] = "*.tif*",
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    series: options.Series = None,
    pmin: options.Pmin = None,
    pmax: options.Pmax = None,
    norm_undo: Annotated[
        bool | None, Option(help="Back to the raw range; the default but for --rule fiji.")
    ] = None,
    model_basedir: Annotated[Path | None, Option(help="Folder that the model folder lies in.")] = None,
    model_name: Annotated[str | None, Option(help="Name of the model folder.")] = None,
    model_weights: Annotated[str | None, Option(help="Weights file in the folder.")] = None,
    output_name: OutputName = RESULT_NAME,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on where a run that was ended had begun to write; piece by piece, as large images are.",
        ),
    ] = False,
    memory: Annotated[
        float,
        Option(
            min=1.0,
            help="GiB that restoring piece by piece may take: decides how large tiles are, without --n-tiles.",
        ),
    ] = MEMORY_GIB,
    ome_zarr: Annotated[
        str, Option(help=f"Version of OME-Zarr that is written: {' or '.join(OME_ZARRS)}.")
    ] = OME_ZARR,
    cluster: options.ClusterAddress = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Predict, but save nothing.")] = False,
    quiet: options.Silent = False,
) -> int:
    """Restore images and write them as TIFF or OME-Zarr with their calibration.

    What is larger than memory, or goes to an OME-Zarr by name, is read, restored and written piece by piece, with the
    same bits as in memory with the same --n-tiles.

    The noise of each image is measured, and where the model was trained for another kind that is said.
    Options of csbdeep's care_predict work under their names there.
    """
    from care_bridge.cluster import open_cluster
    from care_bridge.files import writable_folder
    from care_bridge.images import ZARR
    from care_bridge.inference.files import Piecewise, find_images, predict_files, result_name
    from care_bridge.inference.large import model_state, restores_piecewise

    one_of("--precision", precision, PRECISIONS)
    one_of("--ome-zarr", ome_zarr, OME_ZARRS)
    one_of("--tensorflow", tensorflow, TF1_VERSIONS)
    _check_runtime(
        runtime,
        only_keras={"--model-weights": model_weights, "--precision": precision != PRECISION},
        not_fiji={"--norm-undo": norm_undo},
    )
    rule = rule or ("fiji" if runtime in IN_FIJI else "csbdeep")
    written_as = _dtype(dtype, fill=scale_when_converting)
    wanted: Any = _options(rule, pmin, pmax, norm_undo, n_tiles)
    if runtime in IN_FIJI:
        _check_fijis_own(wanted, n_tiles, runtime)
    model, paths = _named(model, images, model_basedir, model_name, input_dir)
    model = model_path(model)
    files = find_images(paths, pattern=input_pattern)
    alone = _names_result(out, files)

    def name(file: Path) -> Path:
        if alone:
            return Path(out.name)
        return result_name(file, output_name, model=model, weights=model_weights, root=input_dir)

    for file in files:
        name(file)  # a name that cannot be is known before the network is opened
    if runtime == "keras":
        load_tensorflow()
    elif runtime in IN_FIJI:
        _check_runs_in_fiji(model, runtime, kind=kind, factor=factor)
        wanted = _plugin_options(model, runtime, wanted, n_tiles)
    from care_bridge.model_files import stated_noise
    from care_bridge.opening import Opening, open_guard, open_predictor

    how: dict[str, Any] = {
        "runtime": runtime,
        "options": wanted,
        "version": tensorflow,
        "kind": kind,  # whoever takes it says what is wrong with it
        "factor": factor,
        "weights": model_weights,
        "precision": precision,
    }
    with (
        contextlib.nullcontext() if cluster is None else open_cluster(cluster) as workers,
        open_predictor(model, **how) as predictor,
        progress_bar(quiet=quiet) as progress,
    ):
        folder = out.parent if alone else out
        if not dry_run:
            writable_folder(folder)
        as_stored = model_weights is None and precision == PRECISION
        guard = open_guard(model, opened=[predictor] if as_stored else []) if runtime == "keras" else None
        done = predict_files(
            predictor,
            files,
            target=lambda file: folder / name(file),
            piecewise=Piecewise(
                always=resume
                or (alone and out.suffix == ZARR and restores_piecewise(predictor) and applications == 1),
                resume=resume,
                memory_gib=memory,
                ome_zarr=ome_zarr,
                model=model_state(model) if runtime not in IN_FIJI else "",
            ),
            axes=image_axes,
            channel=channel,
            series=series,
            applications=applications,
            dtype=written_as,
            fill=scale_when_converting,
            scales=scale,
            save=not dry_run,
            provenance=f"care-bridge predict {model.name}, {predictor.runtime}, rule {rule}",
            trained=None if quiet else stated_noise(model) if guard is None else guard.noise,
            note=lambda file, said: typer.echo(f"{file.name}: {said}", err=True),
            guard=guard.look if guard is not None and guard.familiar is not None else None,
            cluster=workers,
            opener=Opening(model.absolute(), how, guarded=guard is not None and guard.familiar is not None),
            problem=lambda _, why: typer.echo(f"care-bridge: {' '.join(why.split())}", err=True),
            progress=progress,
        )
    if guard is not None and not quiet:
        say_likeness(model, guard, done)
    if not dry_run:
        write_likeness(folder, done)
    if not quiet:
        typer.echo("\n".join(map(str, done)))
        say_clipped(report for each in done for report in each.written)
    if len(done) < len(files):
        left = len(files) - len(done)
        typer.echo(f"care-bridge: {left} of {len(files)} images could not be restored, see above", err=True)
        return NO
    return DONE


def say_clipped(reports: Iterable[WriteReport]) -> None:
    """Where much was clipped, name the option that would not."""
    many = [report.clipped for report in reports if report.many_clipped]
    if many:
        typer.echo(
            f"care-bridge: up to {100 * max(many):.3g} % of a result's pixels did not fit the type and were clipped; "
            "--scale-when-converting maps all of them into it, float32 keeps them as they are",
            err=True,
        )


def _named(
    model: Path | None,
    images: list[Path] | None,
    basedir: Path | None,
    name: str | None,
    input_dir: Path | None,
) -> tuple[Path, list[Path]]:
    """The model and where the images are, named our way or csbdeep's."""
    paths = list(images or [])
    if name is not None:
        # Then the first word is an image.
        paths, model = ([model, *paths] if model else paths), (basedir or Path()) / name
    if model is None:
        raise InputError("no model; give its folder, or --model-basedir and --model-name")
    if input_dir is not None:
        paths.append(input_dir)
    if not paths:
        raise InputError("no images; give TIFFs, OME-Zarrs or a folder of them, or --input-dir")
    return model, paths


def _names_result(out: Path, files: list[Path]) -> bool:
    """Whether --out is the name of one image's result, and not a folder."""
    from care_bridge.images import TIFF, ZARR, is_zarr

    if out.suffix.lower() not in (*TIFF, ZARR) or (out.is_dir() and not is_zarr(out)):
        return False
    if len(files) > 1:
        raise InputError(
            f"--out {str(out)!r} names one image, and there are {len(files)} to be restored; give a folder for the results"
        )
    return True


def _dtype(name: str, *, fill: bool) -> str | None:
    if name == "same":
        return None
    import numpy as np

    from care_bridge.images import DTYPES

    try:
        dtype = DTYPES[DTYPES.index(np.dtype(name).name)]
    except (TypeError, ValueError):
        raise InputError(
            f"--dtype {name!r} is not a type that TIFF readers share; use one of {', '.join(DTYPES)} or same"
        ) from None
    if fill and dtype.startswith("float"):
        raise InputError(
            f"--scale-when-converting is for whole numbers, and {dtype} holds the values as they are; "
            "give --dtype uint8 or uint16"
        )
    return dtype


def _options(
    rule: str, pmin: float | None, pmax: float | None, undo: bool | None, n_tiles: str | None
) -> PredictOptions:
    from care_bridge.normalize import FIJI, PercentileRule
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles

    one_of("--rule", rule, RULES)
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


def _check_runtime(runtime: str, *, only_keras: Mapping[str, Any], not_fiji: Mapping[str, Any]) -> None:
    one_of("--runtime", runtime, RUNTIMES)
    problems = []
    if runtime != "keras":
        problems = [
            f"{option} is for --runtime keras; a file that is exported for {runtime} holds its own"
            for option, given in only_keras.items()
            if given
        ]
    if runtime in IN_FIJI:
        problems += [
            f"{option} is not for --runtime {runtime}: Fiji runs the network alone and gives its own scale"
            for option, given in not_fiji.items()
            if given
        ]
    if problems:
        raise InputError("\n".join(problems))


def _check_runs_in_fiji(model: Path, runtime: str, *, kind: str | None, factor: float | None) -> None:
    from care_bridge.model_files import ISOTROPIC, kind_of

    if runtime == "imagej-onnx" and kind is None:
        return  # our scripts do for every kind of model what its kind needs
    own = kind or kind_of(model)
    if own == "UpsamplingCARE":
        raise InputError(
            f"{str(model)!r} is of kind {own}, which upsamples stacks before the network sees them, and 'Run your "
            "network' does not; use --runtime keras or imagej-onnx"
        )
    if own != ISOTROPIC and (kind is not None or factor is not None):
        option = "--kind" if factor is None else "--factor"
        raise InputError(f"{option} is not for --runtime {runtime} with a {own}: Fiji runs its network alone")


def _check_fijis_own(options: PredictOptions, n_tiles: str | None, runtime: str) -> None:
    from care_bridge.normalize import FIJI

    if options.rule not in (None, FIJI):
        raise InputError(
            f"--runtime {runtime} normalises as the plugin does, not by --rule {options.rule}; "
            "leave --rule out, or give none"
        )
    if n_tiles is not None and not n_tiles.strip().isdigit():
        raise InputError(f"--n-tiles {n_tiles!r}: --runtime {runtime} takes one number, e.g. 4")


def _plugin_options(model: Path, runtime: str, options: PredictOptions, n_tiles: str | None) -> PluginOptions:
    from care_bridge.comparing.sides import recommended_options
    from care_bridge.opening import own_plugin_options

    # The plugin's tiles are what a person sees in its dialog; our scripts cut as the model says.
    own = own_plugin_options if runtime == "fiji" else recommended_options
    return own(
        model,
        # None leaves it to what the model says.
        normalizeInput=False if options.rule is None else None,
        percentileBottom=options.pmin,
        percentileTop=options.pmax,
        nTiles=None if n_tiles is None else int(n_tiles),
    )
