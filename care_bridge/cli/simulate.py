"""care-bridge simulate: training pairs from clean images, or from drawn structures."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.words import counted


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(command(simulate))


def simulate(
    words: list[str] = typer.Argument(
        None,
        metavar="RECIPE [IMAGE...]",
        help="A recipe that comes with the package (see --list), then clean images (TIFF, OME-Zarr) or folders of them. "
        "With --recipe only the images.",
    ),
    out: Path = typer.Option(None, "--out", help="Folder for the pairs: new or empty."),
    recipe: str = typer.Option(
        None, "--recipe", metavar="FILE", help="A recipe of your own, .yaml or .toml."
    ),
    seed: int = typer.Option(None, "--seed", min=0, help="Instead of the recipe's seed."),
    count: int = typer.Option(
        None, "--count", min=1, help="How many samples to draw, for synthetic recipes."
    ),
    pixel_size: float = typer.Option(
        None, "--pixel-size", help="Micrometres a pixel along Y and X, instead of what the files say."
    ),
    z_step: float = typer.Option(
        None, "--z-step", help="Micrometres a plane, instead of what the files say."
    ),
    channel: int = typer.Option(None, "--channel", min=0, help="Take one channel of the images, from 0."),
    like: Path = typer.Option(
        None,
        "--like",
        metavar="IMAGE",
        help="For recipes with a fibre bundle: a raw image through your own; pitch, cores and their profile are "
        "measured in it.",
    ),
    flat: Path = typer.Option(
        None,
        "--flat",
        metavar="IMAGE",
        help="With --like: an even sample through the same bundle, for each core's transmission and the illumination.",
    ),
    file_format: str = typer.Option(
        None, "--format", help="tiff (two folders; the default), npz (csbdeep's layout) or zarr."
    ),
    beads: Path = typer.Option(
        None,
        "--beads",
        help="For isotropic: a stack of beads of your microscope. It blurs by them, and they choose between isotropic and "
        "isotropic-confocal.",
    ),
    jobs: int = typer.Option(None, "--jobs", min=1, help="Processes; the result does not depend on it."),
    cluster: options.ClusterAddress = None,
    resume: bool = typer.Option(False, "--resume", help="Continue an interrupted run exactly."),
    show: bool = typer.Option(False, "--show", help="Print the whole recipe and make nothing."),
    list_recipes: bool = typer.Option(False, "--list", help="List the recipes that come with the package."),
    quiet: options.NoBar = False,
) -> int:
    """Make training pairs: clean images degraded as a microscope does, or samples drawn from nothing."""
    from care_bridge.cluster import open_cluster
    from care_bridge.errors import InputError
    from care_bridge.simulate.folder import write_pairs
    from care_bridge.simulate.recipe import builtin_recipes, dump_recipe, load_recipe

    if list_recipes:
        for name in builtin_recipes():
            typer.echo(f"{name:15} {load_recipe(name).about}")
        return DONE
    words = list(words or [])
    if recipe is None and not words:
        raise InputError(f"name a recipe ({', '.join(builtin_recipes())}) or give --recipe FILE")
    wanted = load_recipe(recipe if recipe is not None else words.pop(0))
    chosen = _changed(
        wanted if beads is None else _by_beads(wanted, beads),
        count=count,
        pixel_size=pixel_size,
        z_step=z_step,
        channel=channel,
        seed=seed,
    )
    if like is not None or flat is not None:
        chosen = _like(chosen, like, flat)
    if show:
        typer.echo(dump_recipe(chosen), nl=False)
        return DONE
    if out is None:
        raise InputError("say where the pairs go: --out DIR")
    # What is not given is left to the function's own defaults.
    given: dict[str, Any] = {"file_format": file_format, "jobs": jobs}
    given = {key: value for key, value in given.items() if value is not None}
    for said in (*chosen.out_of_order(), *(f"{chosen.name}: {one}" for one in chosen.expected())):
        typer.echo(f"care-bridge: {said}", err=True)
    with (
        contextlib.nullcontext() if cluster is None else open_cluster(cluster) as workers,
        progress_bar(quiet=quiet) as progress,
    ):
        summary = write_pairs(
            chosen, words, out=out, cluster=workers, resume=resume, progress=progress, **given
        )
    typer.echo(f"{counted(summary.pairs, 'pair')} in {summary.folder} ({summary.made} made now)")
    for name, snr in summary.snr_db.items():
        share = summary.clipped.get(name)
        cut = "" if share is None else f", {_percent(share)} of the pixels clipped"
        typer.echo(f"  {name}: median signal-to-noise ratio {snr:.1f} dB{cut}")
    return DONE


def _like(recipe: Any, like: Path | None, flat: Path | None) -> Any:
    """The recipe with a person's own fibre bundle; says what was measured."""
    from care_bridge.errors import InputError
    from care_bridge.simulate.cores import bundle_from_files
    from care_bridge.simulate.recipe import with_bundle

    if like is None:
        raise InputError("--flat belongs to the image of a bundle; add --like IMAGE")
    changed = with_bundle(recipe, like, flat)
    found = bundle_from_files(like, flat)
    told = (
        f"transmission of each known, spread {found.transmission_spread:.2f}"
        if flat is not None
        else f"{found.seen_share:.0%} of them seen, transmission drawn with a spread of {found.transmission_spread:.2f}"
    )
    typer.echo(
        f"{like.name}: {counted(len(found.centres_px), 'core')} {found.pitch_px:.2f} px apart, spots of "
        f"{found.mode_radius * found.pitch_px:.1f} px (standard deviation), {found.between:.0%} of the light between "
        f"cores; {told}",
        err=True,
    )
    return changed


def _by_beads(recipe: Any, beads: Path) -> Any:
    """The shipped isotropic recipe that fits a microscope's beads, or a recipe of one's own, blurred by the beads."""
    from care_bridge.errors import InputError
    from care_bridge.simulate import isotropic
    from care_bridge.simulate.recipe import load_recipe
    from care_bridge.simulate.steps import AxialBlur

    if not any(isinstance(step, AxialBlur) for each in recipe.sets for step in each.steps):
        raise InputError(
            f"--beads is for recipes with axial_psf, such as isotropic; recipe {recipe.name!r} has no such step"
        )
    if not beads.is_file():
        raise InputError(f"--beads: there is no file {str(beads)!r}")
    if recipe.name in isotropic.EXPECTED:
        recipe = load_recipe(isotropic.recipe_for(AxialBlur(beads=str(beads)).haze()))
    sets = tuple(
        each.model_copy(
            update={
                "steps": tuple(
                    AxialBlur(beads=str(beads), axis=step.axis) if isinstance(step, AxialBlur) else step
                    for step in each.steps
                )
            }
        )
        for each in recipe.sets
    )
    return recipe.model_copy(update={"sets": sets})


def _percent(share: float) -> str:
    """A share as it is read; never "0 %" of what is not none."""
    return "less than 0.01 %" if 0 < share < 1e-4 else f"{100 * share:.3g} %"


def _changed(
    recipe: Any,
    *,
    count: int | None,
    pixel_size: float | None,
    z_step: float | None,
    channel: int | None,
    seed: int | None,
) -> Any:
    """The recipe with what the options say instead."""
    from pydantic import ValidationError

    from care_bridge.errors import InputError
    from care_bridge.simulate.recipe import Recipe
    from care_bridge.text import problems

    values = recipe.model_dump()
    if seed is not None:
        values["seed"] = seed
    for option, value in (("--pixel-size", pixel_size), ("--z-step", z_step)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{option} must be above 0 um; received {value:g}")
    if recipe.synthetic and channel is not None:
        raise InputError(f"--channel is for clean images; recipe {recipe.name!r} draws its samples")
    if not recipe.synthetic and count is not None:
        raise InputError(f"--count is for recipes that draw their samples; {recipe.name!r} takes images")
    if count is not None:
        values["clean"]["images"] = count
    if channel is not None:
        values["clean"]["channel"] = channel
    sizes = dict(values["clean"]["pixel_size_um"] or {})
    if pixel_size is not None:
        sizes |= {"Y": pixel_size, "X": pixel_size}
    if z_step is not None:
        sizes["Z"] = z_step
    values["clean"]["pixel_size_um"] = sizes or None
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"recipe {recipe.name!r} with these options: {'; '.join(problems(error))}") from None
