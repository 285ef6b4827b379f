"""care_predict: restores a folder of TIFFs with csbdeep's options; `care-bridge predict` does more."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from care_bridge.endings import ending, let_go_of_output, say
from care_bridge.errors import InputError
from care_bridge.surroundings import settle, settle_warnings

if TYPE_CHECKING:
    from care_bridge.csbdeep.models import CARE

REQUIRED = ("input_dir", "input_axes", "model_basedir", "model_name", "output_dir")


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of the console script `care_predict`.

    Parameters
    ----------
    words : sequence of str, optional
        Of the command line; None takes the process's own.

    Returns
    -------
    int
        Exit code: 0 done, otherwise as `endings` says.
    """
    settle_warnings(os.environ)
    settle(os.environ)
    words = sys.argv[1:] if words is None else words
    parser = _parser()
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    missing = [f"--{name.replace('_', '-')}" for name in REQUIRED if getattr(options, name) is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    try:
        _predict_all(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        message, code = ending(error)
        let_go_of_output()
        if message:
            say(message, program="care_predict")
        return code
    return 0


def _predict_all(options: argparse.Namespace) -> None:
    if not options.norm_undo and np.dtype(options.output_dtype).kind in "ui":
        raise InputError(
            f"--output-dtype {options.output_dtype} with --norm-undo no: values near 0-1 would all become 0 and 1; "
            "write float32"
        )
    if not options.quiet:
        print("Arguments\n---------")
        print("\n".join(f"{name}: {value}" for name, value in vars(options).items()), flush=True)
    folder = Path(options.input_dir)
    files = sorted(folder.glob(options.input_pattern))
    if not files:
        if not options.quiet:
            print(f"No files to process in {options.input_dir!r} with pattern {options.input_pattern!r}.")
        return
    outputs = [_output(file, options) for file in files]
    model = _model(options)
    for number, (file, output) in enumerate(zip(files, outputs, strict=True)):
        _predict(model, file, output, options)
        if not options.quiet:
            print(
                f"{number + 1} of {len(files)}. in : {file}\n{' ' * len(f'{number + 1} of {len(files)}')}  out: {output}"
            )


def _output(file: Path, options: argparse.Namespace) -> Path:
    weights = None if options.model_weights is None else Path(options.model_weights).stem
    name = options.output_name.format(
        file_path=file.relative_to(options.input_dir).parent,
        file_name=file.stem,
        file_ext=file.suffix,
        model_name=options.model_name,
        model_weights=weights,
    )
    output: Path = Path(options.output_dir) / name
    for path in (file, output):
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise InputError(f"{str(path)!r} is no TIFF; give another --input-pattern or --output-name")
    return output


def _model(options: argparse.Namespace) -> CARE:
    from care_bridge.csbdeep.models import CARE

    if options.gpu_memory_limit is not None:
        from care_bridge.csbdeep.utils.tf import limit_gpu_memory

        limit_gpu_memory(options.gpu_memory_limit)
    model = CARE(config=None, name=options.model_name, basedir=options.model_basedir)
    if options.model_weights is not None:
        model.load_weights(options.model_weights)
    return model


def _predict(model: CARE, file: Path, output: Path, options: argparse.Namespace) -> None:
    from care_bridge.csbdeep.data import PercentileNormalizer
    from care_bridge.images import read_image, write_image

    image = read_image(file, options.input_axes)
    tiles: Any = options.n_tiles
    if tiles is not None and len(tiles) == 1:
        tiles = tiles[0]
    normalizer = PercentileNormalizer(options.norm_pmin, options.norm_pmax, do_after=options.norm_undo)
    restored = model.predict(image.data, image.axes, normalizer=normalizer, n_tiles=tiles)
    if options.dry_run:
        return
    axes = image.axes if restored.ndim == image.data.ndim else image.axes + "C"
    output.parent.mkdir(parents=True, exist_ok=True)
    result = image.replace(data=restored, axes=axes)
    if options.imagej_tiff:
        report = write_image(output, result, options.output_dtype)
        if report.clipped:
            print(f"care_predict: {output}: {report}", file=sys.stderr)
    else:
        import tifffile

        tifffile.imwrite(output, restored.astype(options.output_dtype, copy=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="care_predict", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    switch: dict[str, Any] = {"type": _yes, "nargs": "?", "const": True, "metavar": "yes/no"}
    parser.add_argument("--quiet", default=False, help="say nothing", **switch)
    parser.add_argument("--gpu-memory-limit", type=float, help="share of the GPU's memory, 0-1")
    given = parser.add_argument_group("input")
    given.add_argument("--input-dir", help="folder of images")
    given.add_argument("--input-pattern", default="*.tif*", help="which files below it")
    given.add_argument("--input-axes", help="axes of the images, e.g. ZYX")
    given.add_argument("--norm-pmin", type=float, default=2, help="percentile that becomes 0")
    given.add_argument("--norm-pmax", type=float, default=99.8, help="percentile that becomes 1")
    given.add_argument("--norm-undo", default=True, help="bring results back to the image's range", **switch)
    given.add_argument("--n-tiles", type=int, nargs="+", help="tiles: a number for each image axis")
    model = parser.add_argument_group("model")
    model.add_argument("--model-basedir", help="folder that holds the model's folder")
    model.add_argument("--model-name", help="name of the model's folder")
    model.add_argument("--model-weights", help="name of a file of weights in it")
    output = parser.add_argument_group("output")
    output.add_argument("--output-dir", help="folder of results")
    output.add_argument(
        "--output-name",
        default="{model_name}/{file_path}/{file_name}{file_ext}",
        help="of each result; also {model_weights}",
    )
    output.add_argument("--output-dtype", default="float32", help="type of the pixels")
    output.add_argument("--imagej-tiff", default=True, help="write what ImageJ opens", **switch)
    output.add_argument("--dry-run", default=False, help="write nothing", **switch)
    return parser


def _yes(word: str) -> bool:
    known = {
        **dict.fromkeys(("yes", "true", "t", "y", "1"), True),
        **dict.fromkeys(("no", "false", "f", "n", "0"), False),
    }
    if word.lower() not in known:
        raise argparse.ArgumentTypeError(f"{word!r} is neither yes nor no")
    return known[word.lower()]


if __name__ == "__main__":
    sys.exit(main())
