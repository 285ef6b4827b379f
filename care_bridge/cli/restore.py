"""`care-bridge restore`: restore images with the model that comes with this package and fits them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._guard import say_likeness, write_likeness
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli.predict import _dtype, say_clipped
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.inference.files import Restored
    from care_bridge.noise import Noise
    from care_bridge.zoo import Entry


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("restore")(command(restore))


def restore(
    images: Annotated[list[Path], Argument(help="TIFFs or OME-Zarrs, or folders of them.")],
    *,
    out: Annotated[Path, Option(help="Folder for the results.")] = Path("restored"),
    model: Annotated[
        str | None, Option(help="Take this model of `zoo list` for all images, whatever was measured.")
    ] = None,
    structure: Annotated[
        str | None, Option(help="What the images show, e.g. nuclei; a model for it goes before one for any.")
    ] = None,
    anyway: Annotated[bool, Option("--anyway", help="Restore images that are clean already, too.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    dtype: Annotated[str, Option(help="Type of the results; 'same' keeps the image's.")] = "float32",
    scale_when_converting: options.Fill = False,
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    series: options.Series = None,
    quiet: options.Silent = False,
) -> int:
    """Measure each image, choose the model that fits it, say why, and restore it.

    Images that are clean already are left, and no model is taken that changes the structure unless it is named. Exit code
    1 when an image was left.
    """
    from care_bridge.files import writable_folder
    from care_bridge.inference.files import find_images, predict_files
    from care_bridge.zoo import find, models

    written_as = _dtype(dtype, fill=scale_when_converting)
    named = None if model is None else find(model)
    entries = models() if named is None else (named,)
    if not entries:
        raise InputError(
            "no model is shipped yet; train one (care-bridge train), or name a folder of models: CARE_BRIDGE_ZOO"
        )
    files = find_images(images)
    plan = _plan(
        files,
        entries,
        named,
        structure=structure,
        anyway=anyway,
        axes=image_axes,
        channel=channel,
        series=series,
    )
    taken = sum(map(len, plan.values()))
    if dry_run or not plan:
        return DONE if taken == len(files) else NO
    load_tensorflow()
    from care_bridge.opening import open_guard, open_predictor

    writable_folder(out)
    done: list[Restored] = []
    for entry, some in plan.items():
        with (
            open_predictor(entry.folder, runtime="keras") as predictor,
            progress_bar(quiet=quiet) as progress,
        ):
            guard = open_guard(entry.folder, opened=[predictor])
            results = predict_files(
                predictor,
                list(some),
                target=partial(_target, out, entry),
                axes=image_axes,
                channel=channel,
                series=series,
                dtype=written_as,
                fill=scale_when_converting,
                provenance=f"care-bridge restore, {entry.name}, {predictor.runtime}",
                guard=guard.look if guard.familiar is not None else None,
                measured=some,
                problem=lambda _, why: typer.echo(f"care-bridge: {' '.join(why.split())}", err=True),
                progress=progress,
            )
        done += results
        if not quiet:
            say_likeness(entry.folder, guard, results)
            typer.echo("\n".join(map(str, results)))
            say_clipped(report for each in results for report in each.written)
    write_likeness(out, done)
    return DONE if len(done) == len(files) else NO


def _target(out: Path, entry: Entry, file: Path) -> Path:
    from care_bridge.inference.files import result_name

    return out / result_name(file, model=entry.folder)


def _plan(
    files: list[Path],
    entries: tuple[Entry, ...],
    named: Entry | None,
    *,
    structure: str | None,
    anyway: bool,
    axes: str | None,
    channel: int | None,
    series: int | None,
) -> dict[Entry, dict[Path, list[Noise]]]:
    """Which model restores which files, and their noise; what is said of each goes to stderr, so that results alone are
    printed.
    """
    from care_bridge.images import only_channel, read_image
    from care_bridge.noise import LIGHTER
    from care_bridge.zoo.choosing import choose

    plan: dict[str, dict[Path, list[Noise]]] = {}
    for file in files:
        try:
            image = only_channel(read_image(file, axes, series=series), channel)
            choice = choose(entries, image, structure=structure)
        except InputError as error:
            if len(files) == 1:
                raise
            typer.echo(f"care-bridge: {' '.join(str(error).split())}", err=True)
            continue
        entry = named or choice.entry
        if choice.clean and not anyway:
            typer.echo(
                f"{file.name}: left as it is, it is clean already ({choice.measured}); a network may do harm. If at all: "
                f"a {LIGHTER}. --anyway restores it",
                err=True,
            )
            continue
        if named is not None and choice.entry is None and named.family == "denoise":
            typer.echo(f"{file.name}: {named.name} as asked, though {choice.why}", err=True)
        elif named is not None:
            outside = "; ".join(named.noise_range.covers(choice.measured))
            mind = f"; mind that {outside}" if outside else ""
            typer.echo(f"{file.name}: {named.name} as asked; {choice.measured}{mind}", err=True)
        else:
            typer.echo(f"{file.name}: {choice.why}", err=True)
            if choice.possible:
                typer.echo(
                    f"{file.name}: possible, if you want its structure changed: --model "
                    f"{' or '.join(choice.possible)}",
                    err=True,
                )
        if entry is not None:
            plan.setdefault(entry.name, {})[file] = [choice.measured]
    by_name = {entry.name: entry for entry in entries}
    return {by_name[name]: some for name, some in plan.items()}
