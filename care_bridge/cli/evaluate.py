"""`care-bridge evaluate`: how good is a model on images with a ground truth, how sure, and better than a filter?"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import APPLICATIONS, INTERVAL
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.evaluate.pairs import Pair
    from care_bridge.evaluate.profiles import Line
    from care_bridge.images import Image
    from care_bridge.predictor import Predictor


_OLD = {"--axes": "--image-axes", "--images": "--images-out", "--level": "--interval"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", context_settings=old_spellings(_OLD))(command(evaluate))


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="Model folder (a single net or an ensemble), ours or csbdeep's.")
    ],
    source: Annotated[Path, typer.Argument(help="Folder of images to restore, or one TIFF.")],
    target: Annotated[Path, typer.Argument(help="Folder of their ground truths, same names; or one TIFF.")],
    *,
    out: Annotated[Path, typer.Option(help="The report; its CSVs go into a folder beside it.")] = Path(
        "report.html"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all numbers as JSON.")] = None,
    train_source: Annotated[
        Path | None,
        typer.Option(help="Training images: filters are tuned on these, unlike inputs are flagged."),
    ] = None,
    train_target: Annotated[Path | None, typer.Option(help="Their targets, same names.")] = None,
    applications: options.Applications = APPLICATIONS,
    masks: Annotated[
        Path | None, typer.Option(help="Masks, same names: pixels that are not 0 count.")
    ] = None,
    line: Annotated[
        str | None,
        typer.Option(help="Profile line x1,y1,x2,y2 in pixels, as makeLine; chosen by itself when left out."),
    ] = None,
    image_axes: options.ImageAxes = None,
    baselines: Annotated[bool, typer.Option(help="Compare with tuned filters.")] = True,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also measure curves against noise, blur and intensity (takes longer)."
        ),
    ] = False,
    sweep: Annotated[
        Path | None, typer.Option(help="CSV of a grid of settings, to be shown as well.")
    ] = None,
    cross: Annotated[
        Path | None, typer.Option(help="CSV of models x data sets, to be shown as well.")
    ] = None,
    images_out: Annotated[
        Path | None,
        typer.Option(help="Folder for restored images; of probabilistic models also interval bounds and D."),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="Mass of the interval whose bounds are written.")
    ] = INTERVAL,
    quiet: options.NoBar = False,
) -> int:
    """Say whether a model beats its input and the best filter.

    Exit code 1 when it does not.
    """
    from care_bridge.evaluate import evaluate as measure
    from care_bridge.evaluate import read_pairs, write_json, write_report
    from care_bridge.evaluate.baselines import FILTERS
    from care_bridge.files import writable_folder

    if (train_source is None) != (train_target is None):
        raise InputError("--train-source and --train-target belong together; give both or none")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {str(out)!r} must end in .html")
    for file in (out, json_file):
        if file is not None and file.is_dir():
            raise InputError(f"{str(file)!r} is a folder, so no file can be written there; name a file")
    if json_file is not None and json_file.resolve() == out.resolve():
        raise InputError(f"--json and --out are the same file, {str(out)!r}; give two names")
    for option, read in (("SOURCE", source), ("TARGET", target), ("--masks", masks)):
        folder = read if read is None or read.is_dir() else read.parent
        if images_out is not None and folder is not None and images_out.resolve() == folder.resolve():
            raise InputError(
                f"--images-out {str(images_out)!r} is the folder of {option}: its images would be replaced"
            )
    for folder in (out.parent, json_file.parent if json_file else None, images_out):
        if folder is not None:
            writable_folder(folder)
    chosen = parse_line(line) if line else None
    tables = [read_table(path) if path else [] for path in (sweep, cross)]
    pairs = read_pairs(source, target, masks=masks, axes=image_axes)
    training = (
        read_pairs(train_source, train_target, axes=image_axes) if train_source and train_target else []
    )
    predictor, members = load_predictors(model)
    with progress_bar(quiet=quiet) as progress:
        found = measure(
            predictor,
            pairs,
            members=members,
            training=training,
            applications=applications,
            baselines=tuple(FILTERS) if baselines else (),
            robustness=robustness,
            line=chosen,
            model=model.name,
            settings={
                "source": source.name,
                "target": target.name,
                **model_hashes(model),
                "SHA-256 of sources and targets": {pair.name: " ".join(pair.hashes) for pair in pairs},
            },
            progress=progress,
        )
    report = write_report(found, out, sweep=tables[0], cross=tables[1])
    if json_file is not None:
        write_json(found, json_file)
    if images_out is not None:
        write_images(images_out, pairs, members or [predictor], interval)
    for name, notes in found.warnings.items():
        typer.echo(f"{name}: {'; '.join(notes)}", err=True)
    typer.echo(found.verdict)
    typer.echo(f"wrote {report}" + (f" and {json_file}" if json_file else ""))
    return DONE if found.good else NO


def parse_line(text: str) -> Line:
    """`x1,y1,x2,y2` as a line."""
    from care_bridge.evaluate.profiles import Line

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or numbers[:2] == numbers[2:]:
        raise InputError(
            f"--line {text!r} must be four numbers x1,y1,x2,y2 of a line with a length, e.g. 10,20,200,20"
        )
    return Line(*numbers)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {str(path)!r}: {error}") from error
    if not rows:
        raise InputError(f"the table {str(path)!r} has no row; give a CSV with a header line")
    return rows


def load_predictors(model: Path) -> tuple[Predictor, list[Predictor]]:
    """The model as a predictor, and its members if it is an ensemble."""
    if not model.is_dir():
        raise InputError(
            f"no model folder at {str(model)!r}; give one that holds config.json and weights_*.h5"
        )
    load_tensorflow()
    from care_bridge.opening import open_members, open_predictor

    members = open_members(model)
    return (members[0] if members else open_predictor(model, runtime="keras")), members


def write_images(folder: Path, pairs: Sequence[Pair], members: Sequence[Predictor], level: float) -> None:
    """Write restored images, and interval bounds and D where the model has them, as float32 TIFFs."""
    from care_bridge.evaluate.reliability import interval_images
    from care_bridge.images import write_image
    from care_bridge.predictor import scale_channels

    for pair in pairs:
        results = [member.predict(pair.source) for member in members]
        stem = pair.name.removesuffix(".tif").removesuffix(".tiff")
        if scale_channels(results[0], like=pair.source) is None:
            write_image(folder / f"{stem}.tif", mean_of_results(results))
            continue
        sure = interval_images(results, like=pair.source, level=level)
        named = {"": sure.mean, "-low": sure.low, "-high": sure.high, "-D": sure.disagreement}
        for suffix, image in named.items():
            if image is not None:
                write_image(folder / f"{stem}{suffix}.tif", image, provenance=f"interval of mass {level:g}")


def mean_of_results(results: Sequence[Image]) -> Image:
    """Mean of the members' results, float32."""
    import numpy as np

    return results[0].replace(data=np.mean([one.data for one in results], axis=0, dtype=np.float32))


def model_hashes(model: Path) -> Mapping[str, Any]:
    """SHA-256 of a model's settings and weights."""
    from care_bridge.files import sha256

    files = sorted([*model.glob("config.json"), *model.glob("**/weights_best.h5")])
    return {f"SHA-256 of {file.relative_to(model)}": sha256(file) for file in files}
