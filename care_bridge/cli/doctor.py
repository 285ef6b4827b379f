"""`care-bridge doctor`: what is here, which level that gives, and the command that adds what is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, NO, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import LEVEL, LEVELS, TF1_OF_FIJI

if TYPE_CHECKING:
    from care_bridge.levels import Survey


def register(app: typer.Typer) -> None:
    app.command("doctor")(command(doctor))


def doctor(
    what: str = typer.Argument(
        "all",
        help=f"With --install: tf1 ({' and '.join(TF1_OF_FIJI)}), tf1-all, tf1-VERSION, imagej, groovy, onnx or all.",
    ),
    *,
    install: bool = typer.Option(
        False, "--install", help="Fetch what is missing, pinned by SHA-256, into the cache folder."
    ),
    fiji: options.Fiji = None,
    level: str = typer.Option(
        LEVEL,
        "--level",
        help=f"Exit with 1 if this level is not there: best, {', '.join(LEVELS)}.",
    ),
    try_out: bool = typer.Option(
        False, "--try", help="Open a small bundle at each level and restore an image with it; 1 if one fails."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print all of it as JSON."),
    quiet: options.NoBar = False,
) -> int:
    """Say what is here and what is missing, and add it.

    Looks at Python, TensorFlow, Java, ImageJ and Fiji.
    """
    from care_bridge import levels
    from care_bridge.errors import InputError
    from care_bridge.java import runtimes

    if what != "all" and not install:
        raise InputError(f"{what!r} is something to fetch: care-bridge doctor --install {what}")
    if install:
        with progress_bar(quiet=quiet) as progress:
            runtimes.install(what, progress=progress)
    found = levels.survey(fiji)
    wanted = found.best if level == "best" else level
    reason = levels.why_not(wanted, fiji=fiji) if wanted else "no level is there"
    with progress_bar(quiet=quiet) as progress:
        damaged = runtimes.damaged(progress=progress)
    said = {**found.as_dict(), "damaged": damaged}
    typer.echo(json.dumps(said, indent=2) if as_json else _as_text(found, damaged))
    works = not try_out or _try_levels([name for name in LEVELS if not found.levels[name]], fiji)
    return DONE if works and not reason and not damaged else NO


def _try_levels(there: list[str], fiji: Path | None) -> bool:
    """Open a bundle at each level; one line for each on stderr, which --json leaves free."""
    from care_bridge.errors import NotInstalledError, WorkerError
    from care_bridge.trial import try_level

    if "emulation" in there:
        load_tensorflow()
    all_run = True
    for name in there:
        start = time.monotonic()
        try:
            said = f"runs: {try_level(name, fiji=fiji)}, {time.monotonic() - start:.1f} s"
        except (WorkerError, NotInstalledError) as error:
            said, all_run = f"DOES NOT RUN: {error}", False
        typer.echo(f"  {name:<11} {said}", err=True)
    return all_run


def _as_text(found: Survey, damaged: list[str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)
    absent = ", ".join(name for name, version in found.packages.items() if not version)
    tensorflow_1 = ", ".join(version for version, is_there in found.tensorflow_1.items() if is_there)
    lines = [
        f"care-bridge   {found.care_bridge} (Python {found.python}, {found.system})",
        f"packages      {packages}" + (f"; not installed: {absent}" if absent else ""),
        f"Java          {found.java or 'none'}" + (f" ({found.java_home})" if found.java_home else ""),
        f"TensorFlow 1  {tensorflow_1 or 'none'}",
        f"ImageJ        {'headless, ready' if found.imagej else 'none'}",
        f"ONNX Runtime  {found.onnxruntime or 'none'} for Java",
    ]
    if found.fiji is None:
        lines.append("Fiji          none named")
    else:
        fiji = found.fiji
        lines.append(
            f"Fiji          {fiji.path}: ImageJ {fiji.imagej or 'none'}, CSBDeep {fiji.plugin or 'none'}, "
            f"TensorFlow {fiji.tensorflow or 'none'}"
        )
    lines.append(f"cache         {found.cache}")
    lines += [
        f"CHANGED       {path}: not what was fetched; run: care-bridge doctor --install" for path in damaged
    ]
    lines += ["", "level         what it proves"]
    proves = {
        "fiji": "your own Fiji with the CSBDeep plugin gives this",
        "imagej": "macros really run in ImageJ; the network in the plugin's TensorFlow",
        "tf1": "the plugin's TensorFlow opens the bundle and computes this",
        "onnx": "our scripts really run in ImageJ, the network in ONNX Runtime, without the plugin",
        "emulation": "the plugin's arithmetic over today's TensorFlow gives this",
    }
    for level, reason in found.levels.items():
        lines.append(f"  {level:<11} {proves[level]}" if not reason else f"  {level:<11} NOT HERE: {reason}")
    lines += ["", f"best level    {found.best or 'none'}"]
    return "\n".join(lines)
