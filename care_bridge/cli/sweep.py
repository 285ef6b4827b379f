"""`care-bridge sweep`: a table of time and quality over a grid of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._parse import pair, setting, sizes, value_of
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import PATCH_2D, PATCHES_PER_IMAGE, SEED
from care_bridge.errors import InputError
from care_bridge.words import counted, listed


def register(app: typer.Typer) -> None:
    app.command("sweep", context_settings=old_spellings({"--axes": "--network-axes"}))(command(sweep))


def sweep(
    source: Annotated[Path, Argument(help="Folder of low-quality images.")],
    target: Annotated[Path, Argument(help="Folder of high-quality images of the same names.")],
    *,
    out: Annotated[Path, Option(help="Folder for the models, sweep.csv and sweep.png.")],
    grid: Annotated[
        list[str],
        Option(help="KEY=VALUE,VALUE,...: settings of config.json, or patch_size; may be repeated."),
    ],
    settings: options.Settings = None,
    patch_size: Annotated[str, Option(help="Where the grid has none.")] = ",".join(map(str, PATCH_2D)),
    test_source: Annotated[Path | None, Option(help="Other low-quality images.")] = None,
    test_target: Annotated[Path | None, Option(help="Their ground truth.")] = None,
    patches_per_image: options.PatchesPerImage = PATCHES_PER_IMAGE,
    network_axes: options.NetworkAxes = None,
    processes: Annotated[int, Option(min=1, help="How many to train at the same time.")] = 1,
    seed: options.Seed = SEED,
    quiet: options.Silent = False,
) -> int:
    """Train every combination of settings.

    Run it again to go on where it stopped.
    """
    load_tensorflow()
    from care_bridge.sweep import Sweep, run_sweep, trained_and_tested

    if (test_source is None) != (test_target is None):
        raise InputError("--test-source and --test-target belong together; give both or none")
    pairs = [pair("--grid", text, "train_batch_size=8,16") for text in grid]
    if len({key for key, _ in pairs}) < len(pairs):
        raise InputError("--grid names a setting twice; give all its values at once, e.g. seed=1,2")
    wanted = Sweep(
        str(source),
        str(target),
        grid={key: [value_of(part) for part in values.split(",")] for key, values in pairs},
        settings=dict(map(setting, settings or [])),
        patch_size=sizes("--patch-size", patch_size) or PATCH_2D,
        test_source=str(test_source or ""),
        test_target=str(test_target or ""),
        n_patches_per_image=patches_per_image,
        seed=seed,
        axes=network_axes or "",
    )
    with progress_bar(quiet=quiet, lines_in_pipe=True) as progress:
        rows = run_sweep(wanted, out, processes=processes, progress=progress)
    if seen := trained_and_tested(wanted):
        typer.echo(
            f"{counted(len(seen), 'test image')} ({listed(seen)}) are trained on as well: the scores say which settings "
            "remember best, not which restore best",
            err=True,
        )
    if not quiet:
        for row in rows:
            quality = f", {row.psnr:.2f} dB, SSIM {row.ssim:.3f}" if row.psnr is not None else ""
            typer.echo(f"{row.name}: {row.seconds:.0f} s, validation error {row.val_mae:.4g}{quality}")
        typer.echo(f"table and figure: {out / 'sweep.csv'}, {out / 'sweep.png'}")
    return DONE
