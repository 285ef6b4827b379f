"""`care-bridge sweep`: a table of time and quality over a grid of settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import PATCH_2D, PATCHES_PER_IMAGE, SEED
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.sweep import Sweep


def register(app: typer.Typer) -> None:
    app.command("sweep")(command(sweep))


def sweep(
    source: Path = typer.Argument(..., help="Folder of low-quality images."),
    target: Path = typer.Argument(..., help="Folder of high-quality images of the same names."),
    *,
    out: Path = typer.Option(..., "--out", help="Folder for the models, sweep.csv and sweep.png."),
    grid: list[str] = typer.Option(
        ..., "--grid", help="KEY=VALUE,VALUE,...: settings of config.json, or patch_size; may be repeated."
    ),
    settings: list[str] = typer.Option([], "--set", help="KEY=VALUE that all have in common."),
    patch_size: str = typer.Option(
        ",".join(map(str, PATCH_2D)), "--patch-size", help="Where the grid has none."
    ),
    test_source: Path | None = typer.Option(None, "--test-source", help="Other low-quality images."),
    test_target: Path | None = typer.Option(None, "--test-target", help="Their ground truth."),
    patches_per_image: int = typer.Option(
        PATCHES_PER_IMAGE, "--patches-per-image", min=1, help="Patches cut per pair."
    ),
    axes: str = typer.Option("", "--axes", help="Of the network; else the images' own."),
    processes: int = typer.Option(1, "--processes", min=1, help="How many to train at the same time."),
    seed: int = typer.Option(SEED, "--seed", min=0, help="Of every random draw."),
    quiet: bool = typer.Option(False, "--quiet", help="Say nothing; no progress bar."),
) -> int:
    """Train every combination of settings.

    Run it again to go on where it stopped.
    """
    load_tensorflow()
    from care_bridge.sweep import Sweep, run_sweep

    if (test_source is None) != (test_target is None):
        raise InputError("--test-source and --test-target belong together; give both or none")
    pairs = [_pair(text) for text in grid]
    if len({key for key, _ in pairs}) < len(pairs):
        raise InputError("--grid names a setting twice; give all its values at once, e.g. seed=1,2")
    wanted = Sweep(
        str(source),
        str(target),
        grid={key: [_value(part) for part in values.split(",")] for key, values in pairs},
        settings={key: _value(value) for key, value in map(_pair, settings)},
        patch_size=_sizes(patch_size),
        test_source=str(test_source or ""),
        test_target=str(test_target or ""),
        n_patches_per_image=patches_per_image,
        seed=seed,
        axes=axes,
    )
    _check(wanted)
    with progress_bar(quiet=quiet) as progress:
        rows = run_sweep(wanted, out, processes=processes, progress=progress)
    if not quiet:
        for row in rows:
            quality = f", {row.psnr:.2f} dB, SSIM {row.ssim:.3f}" if row.psnr is not None else ""
            typer.echo(f"{row.name}: {row.seconds:.0f} s, validation error {row.val_mae:.4g}{quality}")
        typer.echo(f"table and figure: {out / 'sweep.csv'}, {out / 'sweep.png'}")
    return DONE


def _check(sweep: Sweep) -> None:
    """Refuse an impossible combination before the first is trained."""
    from care_bridge.config import CareConfig
    from care_bridge.sweep import PATCH_SIZE
    from care_bridge.training.data import network_axes

    axes = network_axes(sweep.source, sweep.target, axes=sweep.axes or None)
    for point in sweep.points().values():
        CareConfig(
            axes, **{**sweep.settings, **{key: one for key, one in point.items() if key != PATCH_SIZE}}
        )


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
        if min(sizes) < 1:
            raise ValueError
        return sizes
    except ValueError:
        raise InputError(f"--patch-size {text!r} is not understood; give whole numbers, e.g. 64,64") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise InputError(f"{text!r} is not understood; give KEY=VALUE, e.g. train_batch_size=8,16")
    return key, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return tuple(int(part) for part in text.split("x")) if text.replace("x", "").isdigit() else text
