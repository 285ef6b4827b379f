"""`care-bridge macros`: the macros and scripts for Fiji."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._parse import one_of
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow

group = typer.Typer(
    no_args_is_help=True, help="Macros and scripts for Fiji: list, check, install, run, write."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("list")(command(list_macros))
    group.command("lint")(command(lint_file))
    group.command("install")(command(install))
    group.command("bundle")(command(bundle))
    group.command("uninstall")(command(uninstall))
    group.command("run")(command(run))
    group.command("for")(command(for_model))
    app.add_typer(group, name="macros")


def list_macros() -> int:
    """What there is, and what each is for."""
    from care_bridge.macros import macros_folder, shipped

    for entry in shipped():
        typer.echo(f"{entry.name:<24} {entry.kind:<7} {entry.purpose}")
    typer.echo(f"They lie in {macros_folder()}")
    return DONE


def lint_file(
    files: list[Path] = typer.Argument(help="ImageJ macros (.ijm, .txt), anybody's."),
) -> int:
    """Say what in a macro does not do what it seems to.

    Exit code 1 if there is something. Of scripts in other languages only calls of IJ.run are read.
    """
    from care_bridge.errors import InputError
    from care_bridge.macros import lint

    faults = unseen = 0
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; name a macro file")
        # As ImageJ reads it.
        text = file.read_bytes().decode("utf-8", errors="surrogateescape")
        findings = lint(text, file.suffix)
        faults += sum(finding.fault for finding in findings)
        unseen += sum(not finding.fault for finding in findings)
        for finding in findings:
            # Bytes that are not UTF-8 cannot be printed by every terminal.
            typer.echo(f"{file}: {finding}".encode(errors="replace").decode())
    if not faults:
        typer.echo("nothing found in what is checked" if unseen else "nothing found")
    return NO if faults else DONE


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        help="Also models: zoo (all that come with care-bridge), names of `zoo list` with commas, a bundle (.zip), a folder "
        "of bundles, or a model folder; may be repeated.",
    ),
]


def install(
    fiji: Annotated[Path, typer.Argument(help="Folder of a Fiji: the one with jars and plugins.")],
    *,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", help="onnx: also ONNX Runtime (89 MB, fetched once), which needs no TensorFlow."
        ),
    ] = None,
    models: Models = None,
    quiet: options.NoBar = False,
) -> int:
    """Put the scripts under Plugins > CARE bridge, and the macros in the macros folder.

    An earlier version is replaced. Models go to models/CARE_bridge, ONNX Runtime to lib/CARE_bridge. The scripts Train,
    Evaluate and Check Model run this Python.
    """
    from care_bridge.macros import fiji_root, install_onnx
    from care_bridge.macros import install as install_into
    from care_bridge.macros.shipped import install_models

    if engine is not None:
        one_of("--engine", engine, ("onnx",))
    fiji_root(fiji)  # known before anything is fetched or built
    if engine == "onnx":
        _fetch_onnx(quiet=quiet)
    with _bundles(models) as bundles:
        written = install_into(fiji, python=sys.executable)
        if engine == "onnx":
            written += install_onnx(fiji)
        if bundles:
            written += install_models(fiji, bundles)
    for folder in dict.fromkeys(path.parent for path in written):
        typer.echo(f"installed {sum(path.parent == folder for path in written)} files in {folder}")
    typer.echo(
        "restart Fiji: the scripts are in Plugins > CARE bridge, the macros for runMacro and for changing"
    )
    return DONE


def bundle(
    *,
    out: Annotated[
        Path,
        typer.Option("--out", help="The zip to write, e.g. care-bridge-fiji.zip (89 MB and the models)."),
    ],
    models: Models = None,
    quiet: options.NoBar = False,
) -> int:
    """Write one zip that a person without Python unpacks into a Fiji.

    It holds what `install --engine onnx` puts there.
    """
    from care_bridge.macros import write_fiji_zip

    _fetch_onnx(quiet=quiet)
    with _bundles(models) as bundles:
        path, names = write_fiji_zip(out, bundles)
    typer.echo(f"wrote {path}: {len(names)} files; unpack it into the folder of a Fiji and restart that")
    return DONE


def _fetch_onnx(*, quiet: bool) -> None:
    from care_bridge.java import runtimes

    with progress_bar(quiet=quiet) as progress:
        runtimes.install("onnx", progress=progress)


@contextmanager
def _bundles(named: Sequence[str] | None) -> Iterator[list[Path]]:
    """The bundles that are named, those that are written for it among them."""
    if not named:
        yield []
        return
    from care_bridge.files import scratch_folder

    load_tensorflow()
    from care_bridge.zoo.building import bundles_of

    with scratch_folder() as folder:
        bundles = bundles_of(named, Path(folder))
        if not bundles:
            typer.echo("no model is shipped yet")
        yield bundles


def uninstall(fiji: Path = typer.Argument(help="Folder of a Fiji: the one with jars and plugins.")) -> int:
    """Take the installed macros and scripts out again.

    Other files are left.
    """
    from care_bridge.macros import uninstall as uninstall_from

    typer.echo(f"removed {len(uninstall_from(fiji))} files")
    return DONE


def run(
    name: str = typer.Argument(help="Name of a macro or script, see `care-bridge macros list`."),
    settings: list[str] = typer.Argument(
        None,
        help="Its settings as KEY=VALUE, e.g. model=cell.zip ntiles=4; model may be a name of `zoo list`.",
    ),
    image: Path = typer.Option(
        None, "--image", help="Image in front, for scripts that work on the open image."
    ),
    timeout: float = typer.Option(
        None, "--timeout", min=1, help="Seconds without a sign of life before it is ended."
    ),
) -> int:
    """Run a macro or script, unchanged, in a headless ImageJ.

    The network runs in TensorFlow 1.x. Paths are made absolute.
    """
    from care_bridge.built import built
    from care_bridge.errors import InputError
    from care_bridge.macros import run as run_macro
    from care_bridge.model_names import model_path

    given = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} is no setting; write KEY=VALUE, e.g. model=cell.zip")
        path = key.lower() in ("model", "input", "output", "outputfolder", "python", "sentinel") and value
        given[key] = str(Path(value).absolute()) if path else value
        if path and key.lower() == "model":
            model = model_path(value)
            given[key] = str((built(model, "tf1") or model).absolute())
    if image is not None and not image.is_file():
        raise InputError(f"there is no image {str(image)!r}")
    result, ending = run_macro(name, given, image=image, timeout_s=timeout)
    for line in result.log.splitlines():
        if line.startswith("CARE bridge: ") and ending.status != "failed":
            typer.echo(line)
    for reason in result.plugin_failures:
        typer.echo(f"the plugin's own reason: {reason}", err=True)
    if ending.status in ("failed", "stopped"):
        raise InputError(ending.message)
    return DONE if ending.status == "done" else NO


def for_model(
    model: Path = typer.Argument(
        help="Bundle (.zip for Fiji), the model folder that holds it, or a name of `zoo list`."
    ),
    image: Path = typer.Argument(None, help="An image, whose size decides the number of tiles."),
    out: Path = typer.Option(None, "--out", help="Write the macro to this file (.ijm) too."),
) -> int:
    """Write a macro with this model's values, ready to paste.

    The call of the script and the deepImageJ equivalent come with it.
    """
    from care_bridge.errors import InputError
    from care_bridge.files import write_text
    from care_bridge.images import read_image
    from care_bridge.macros import for_model as write_for
    from care_bridge.model_names import model_path
    from care_bridge.zips import is_zip

    model = model_path(model)
    if not model.is_dir() and not is_zip(model):
        raise InputError(
            f"no bundle at {str(model)!r}; give the .zip for Fiji, or the model folder that holds it"
        )
    if out is not None and out.is_dir():
        raise InputError(f"--out {str(out)!r} is a folder; name a file, e.g. restore.ijm")
    made = write_for(model, None if image is None else read_image(image))
    typer.echo("// In a macro, the script installed by `care-bridge macros install` (safest):")
    typer.echo(made.script)
    typer.echo(
        "// The plugin itself, with its windows; before and after it, what it remembers is taken away:"
    )
    typer.echo(made.forget)
    typer.echo(made.line)
    typer.echo(made.forget)
    typer.echo("// deepImageJ, with the model's BioImage.IO package unpacked in this folder:")
    typer.echo(made.deepimagej)
    for note in made.notes:
        typer.echo(f"// {note}")
    if out is not None:
        write_text(out, made.macro)
        typer.echo(f"// written: {out}")
    return DONE
