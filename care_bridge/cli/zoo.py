"""`care-bridge zoo`: the trained models that come with this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow

group = typer.Typer(
    no_args_is_help=True, help="Trained models that come with this package: list, show, build, check, stage."
)

NONE_YET = "no model is shipped yet; folders of your own: CARE_BRIDGE_ZOO=FOLDER, one folder a model in it"

Names = Annotated[list[str] | None, Argument(help="Names of models; all when left out.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("list")(command(list_models))
    group.command("show")(command(show))
    group.command("build")(command(build))
    group.command("check")(command(check))
    group.command("stage")(command(stage))
    group.command("card")(command(card))
    group.command("train")(command(train))
    group.command("index")(command(index))
    app.add_typer(group, name="zoo")


def list_models() -> int:
    """What there is, and what each restores.

    A name stands for its model wherever a model folder is asked for.
    """
    from care_bridge.zoo import models

    found = models()
    if not found:
        typer.echo(NONE_YET)
        return DONE
    width = max(len(entry.name) for entry in found)
    for entry in found:
        typer.echo(f"{entry.name:<{width}}  {entry.dimensions}  {entry.noise or '-':<10}  {entry.restores}")
    return DONE


def show(
    name: Annotated[str, Argument(help="Name of a model, see `care-bridge zoo list`.")],
    *,
    json_output: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> int:
    """All that is known of one model: what it was trained for and on, how good it is, and what it is not for."""
    from care_bridge.zoo import find
    from care_bridge.zoo.entry import as_json
    from care_bridge.zoo.words import as_text

    entry = find(name)
    typer.echo(as_json(entry) if json_output else as_text(entry))
    return DONE


def build(
    names: Names = None,
    *,
    out: Annotated[Path, Option(help="Folder for the bundles, ONNX files and packages.")],
) -> int:
    """Write the bundle for Fiji, the ONNX file and the BioImage.IO package of each model.

    Written twice, they are the same bytes.
    """
    from care_bridge.files import writable_folder
    from care_bridge.zoo.words import chosen

    wanted = chosen(names)
    if not wanted:
        typer.echo(NONE_YET)
        return DONE
    writable_folder(out)
    load_tensorflow()
    from care_bridge.zoo.building import build_model

    for entry in wanted:
        for line in build_model(entry, out).lines():
            typer.echo(line)
    return DONE


def check(
    names: Annotated[
        list[str] | None, Argument(help="Names of models, or packages built from them; all when left out.")
    ] = None,
    *,
    quick: Annotated[
        bool, Option("--quick", help="Its folder only: card, licences, hashes; no reader is run.")
    ] = False,
    report: Annotated[Path | None, Option(help="Folder for a report of each model, .html and .json.")] = None,
) -> int:
    """Hold each model against its card, and its exports against every reader and level that is here.

    Exit code 1 when one is not accepted.
    """
    from care_bridge.zoo.words import chosen

    packages = [Path(name) for name in names or () if Path(name).suffix.lower() == ".zip"]
    others = [name for name in names or () if Path(name).suffix.lower() != ".zip"]
    wanted = chosen(others) if others or not packages else ()
    if not wanted and not packages:
        typer.echo(NONE_YET)
        return DONE
    if packages or not quick:
        load_tensorflow()
    from care_bridge.zoo.checking import check_model, check_package_of_zoo

    good = True
    reports = [(entry.name, check_model(entry, quick=quick)) for entry in wanted]
    reports += [(file.stem, check_package_of_zoo(file)) for file in packages]
    for name, found in reports:
        typer.echo(str(found))
        good &= found.accepted
        if report is not None:
            for suffix in (".html", ".json"):
                found.save(report / f"{name}{suffix}")
    return DONE if good else NO


def stage(
    name: Annotated[str, Argument(help="Name of a model, see `care-bridge zoo list`.")],
    *,
    out: Annotated[Path, Option(help="Folder to make; its content is what is uploaded.")],
) -> int:
    """Make the folder that the BioImage Model Zoo's upload wants, and say what a person still does.

    A model whose data sheet or card is not complete is refused.
    """
    from care_bridge.zoo import find

    entry = find(name)
    load_tensorflow()
    from care_bridge.zoo.staging import stage_model

    typer.echo(stage_model(entry, out))
    return DONE


def card(
    name: Annotated[str, Argument(help="Name of a model, or its folder.")],
    *,
    tests: Annotated[
        Path | None,
        Option(help="A tests.toml that names real pairs; measure anew. The card alone is written without."),
    ] = None,
    quiet: options.NoBar = False,
) -> int:
    """Measure a model on real pairs that it never saw, and write its evaluation, pictures and card.

    Filters are tuned on training images; docs/zoo.md says what stands in a tests.toml.
    """
    from care_bridge.zoo import find

    entry = find(name)
    if tests is not None:
        load_tensorflow()
        from care_bridge.zoo.evaluation import evaluate_model, read_tests

        with progress_bar(quiet=quiet) as progress:
            found = read_tests(tests, factor=entry.config.factor)
            entry = evaluate_model(entry, found, progress=progress)
        typer.echo(entry.summary)
    else:
        from care_bridge.zoo.cards import write_card

        write_card(entry)
    typer.echo(f"wrote {entry.folder / 'README.md'}")
    return DONE


def train(
    name: Annotated[str, Argument(help="Name of a model, or its folder.")],
    *,
    data: Annotated[
        Path | None, Option(help="Folder of the images that its data sheet names; none for drawn ones.")
    ] = None,
    out: Annotated[Path, Option(help="Folder for the new model and what comes between.")],
) -> int:
    """Train a model of the zoo again, by its recipe."""
    from care_bridge.zoo import find
    from care_bridge.zoo.recipe import train_again

    made = train_again(find(name).folder, data=data, out=out, say=typer.echo)
    typer.echo(f"the model is in {made}")
    return DONE


def index(
    *,
    out: Annotated[Path, Option(help="The page to write, .html.")] = Path("models.html"),
) -> int:
    """Write the page of all models: before and after, figures, commands."""
    from care_bridge.errors import InputError
    from care_bridge.zoo import models
    from care_bridge.zoo.index import index_page

    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out {str(out)!r} must be a file that ends in .html")
    typer.echo(f"wrote {index_page(models()).save(out)}")
    return DONE
