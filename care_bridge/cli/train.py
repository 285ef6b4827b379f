"""`care-bridge train`: from two folders of images, or a file of patches, to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer import Argument, Option

from care_bridge.cli import _options as options
from care_bridge.cli._parse import one_of, setting, sizes
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.defaults import (
    KIND,
    METHOD,
    PATCHES_PER_IMAGE,
    PRECISION,
    PRESET,
    SEED,
)
from care_bridge.errors import InputError


def register(app: typer.Typer) -> None:
    app.command("train", context_settings=old_spellings({"--axes": "--network-axes"}))(command(train))


def train(
    source: Annotated[
        Path | None,
        Argument(
            help="Folder of low-quality images, or one .npz or .zarr of patches; with --simulate the clean images; with "
            "--method n2v noisy ones, a folder or one file."
        ),
    ] = None,
    target: Annotated[Path | None, Argument(help="Folder of their high-quality partners.")] = None,
    *,
    out: Annotated[Path, Option(help="The model folder to write.")],
    method: Annotated[
        str,
        Option(
            help="care: from pairs. n2v: from noisy images alone (Noise2Void), where the noise of a pixel says nothing of "
            "its neighbours'. cgan, deblurgan: from pairs, with a critic. cyclegan, c2gan: from two folders that show "
            "other fields, with critics; of c2gan objects keep their place. cin-gan: makes defects, from a folder of clean "
            "images and one that holds a folder a defect."
        ),
    ] = METHOD,
    n2v2: Annotated[
        bool,
        Option(
            "--n2v2",
            help="Noise2Void against checkerboards: blurred pooling, no finest skip connection, blind spots filled with "
            "the median.",
        ),
    ] = False,
    manipulator: Annotated[
        str | None,
        Option(
            help="What fills blind spots: uniform_withCP (the default), uniform_withoutCP, normal_fitted, mean or median."
        ),
    ] = None,
    struct_mask: Annotated[
        str | None,
        Option(
            metavar="SIZES",
            help="Hide a box of pixels around each blind spot (structN2V), for noise that neighbours share: odd sizes, "
            "e.g. 1,9 for rows; other forms by --set n2v_structmask.",
        ),
    ] = None,
    simulate: Annotated[
        str | None,
        Option(
            metavar="RECIPE",
            help="Simulate every patch anew while training: denoise, denoise-correlated or a recipe file with `stream`; "
            "SOURCE holds clean images (and those of its folders), or is left out to train on drawn samples.",
        ),
    ] = None,
    preset: Annotated[str, Option(help="csbdeep, mito, cardio, planaria or tribolium.")] = PRESET,
    smoke: Annotated[bool, Option("--smoke", help="Scale everything down to minutes, and say so.")] = False,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on from where this folder's training stopped, with its settings; where none was begun, begin, "
            "and say so.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Train anew in a folder that holds a model.")
    ] = False,
    seed: options.Seed = SEED,
    ensemble: Annotated[int, Option(min=1, help="How many networks to train; the paper's: 5.")] = 1,
    probabilistic: Annotated[bool | None, Option(help="Predict a Laplace distribution a pixel.")] = None,
    kind: Annotated[str, Option(help="CARE, UpsamplingCARE, IsotropicCARE or ProjectionCARE.")] = KIND,
    architecture: Annotated[
        str | None,
        Option(
            help="care: csbdeep's U-Net, the default. fast: the same at half the resolution along Y and X, with depth 3, "
            "kernel 3 and 32 features unless given: a fraction of the cost; not for csbdeep itself. resnet: residual "
            "blocks, the default of methods with a critic."
        ),
    ] = None,
    factor: options.Factor = None,
    network_axes: options.NetworkAxes = None,
    image_axes: options.ImageAxes = None,
    channel: options.Channel = None,
    source_suffix: options.SourceSuffix = None,
    target_suffix: options.TargetSuffix = None,
    patch_size: Annotated[str | None, Option(help="E.g. 64,64; else the preset's.")] = None,
    patches_per_image: options.PatchesPerImage = PATCHES_PER_IMAGE,
    validation: Annotated[
        float | None, Option(help="Share of the patches that validates, 0-1; else the preset's.")
    ] = None,
    all_patches: Annotated[
        bool, Option("--all-patches", help="Take patches of empty background too.")
    ] = False,
    epochs: Annotated[int | None, Option(help="train_epochs")] = None,
    steps: Annotated[int | None, Option(help="train_steps_per_epoch")] = None,
    batch_size: Annotated[int | None, Option(help="train_batch_size")] = None,
    learning_rate: Annotated[float | None, Option(help="train_learning_rate")] = None,
    features: Annotated[int | None, Option(help="unet_n_first")] = None,
    depth: Annotated[int | None, Option(help="unet_n_depth")] = None,
    kernel: Annotated[str | None, Option(help="unet_kern_size, e.g. 3 or 1,3,3")] = None,
    pool: Annotated[str | None, Option(help="unet_pool, e.g. 1,2,2 for stacks of few planes")] = None,
    target_scale: Annotated[
        str | None,
        Option(
            help="How targets are scaled: source (by their source's percentiles: pairs in one unit), fitted (by gain and "
            "offset to their source: other units), own (csbdeep's). Default: by what the pairs are; it is said."
        ),
    ] = None,
    augment: Annotated[str, Option(help="Any of flips,rot90,intensity")] = "",
    schedule: Annotated[
        str | None,
        Option(help="How the learning rate falls: plateau (csbdeep's), or cosine, to zero at the last step."),
    ] = None,
    minutes: Annotated[
        float | None,
        Option(
            help="Train as long as this on this machine: epochs and steps are planned by what a step takes; kernel 3, 24 "
            "features, cosine and averaged weights where nothing else is said."
        ),
    ] = None,
    validate_on: Annotated[
        tuple[Path, Path] | None,
        Option(
            metavar="SOURCE TARGET",
            help="Of a method without pairs: folders of pairs that tell which epoch was the best; else the last is kept.",
        ),
    ] = None,
    early_stopping: Annotated[
        int | None, Option(help="Stop after so many epochs without a better validation loss.")
    ] = None,
    precision: options.Precision = PRECISION,
    start: Annotated[
        Path | None, Option(help="Model, package or name of `zoo list` whose weights to start from.")
    ] = None,
    settings: options.Settings = None,
    quiet: options.Silent = False,
) -> int:
    """Train a network on pairs of SOURCE and TARGET images, on images without partners, or on noisy images alone (--method).

    It restores what looks like SOURCE to what TARGET looks like.
    """
    from care_bridge.config import Method

    one_of("--method", method, get_args(Method))
    if method != "n2v" and not resume and (n2v2 or manipulator is not None or struct_mask is not None):
        raise InputError(
            "--n2v2, --manipulator and --struct-mask are for blind spots; add --method n2v, or leave them out"
        )
    kernels = sizes("--kernel", kernel)
    given = {
        **_blind(n2v2=n2v2, manipulator=manipulator, struct_mask=struct_mask),
        "method": method,
        "train_epochs": epochs,
        "train_steps_per_epoch": steps,
        "train_batch_size": batch_size,
        "train_learning_rate": learning_rate,
        "unet_n_first": features,
        "unet_n_depth": depth,
        "unet_kern_size": kernels[0] if kernels and len(kernels) == 1 else kernels,
        "unet_pool": sizes("--pool", pool),
        "probabilistic": probabilistic,
        "target_scale": target_scale,
        "train_schedule": schedule,
        "train_early_stopping": early_stopping,
        "factor": factor,
        "kind": kind,
        "architecture": architecture,
        "seed": seed,
        "train_precision": precision,
        "train_augment": tuple(part for part in augment.split(",") if part),
    }
    if resume:
        # These always have a value; one that is the default asks for nothing else than what was begun.
        usual = {
            "method": METHOD,
            "kind": KIND,
            "seed": SEED,
            "train_precision": PRECISION,
            "train_augment": (),
        }
        given = {key: value for key, value in given.items() if value != usual.get(key)}
    wanted = {key: value for key, value in given.items() if value is not None}
    wanted |= dict(map(setting, settings or []))
    patch = sizes("--patch-size", patch_size)
    load_tensorflow()
    from care_bridge.patches import Foreground
    from care_bridge.training.from_files import train_from_files

    with progress_bar(quiet=quiet, lines_in_pipe=True) as progress:
        train_from_files(
            source,
            target,
            out=out,
            preset=preset,
            settings=wanted,
            scaled_down=smoke,
            axes=network_axes,
            image_axes=image_axes,
            channel=channel,
            source_suffix=source_suffix,
            target_suffix=target_suffix,
            patch_size=patch,
            n_patches_per_image=patches_per_image,
            validation_fraction=validation,
            foreground=None if all_patches else Foreground(),
            simulate=simulate,
            members=ensemble,
            start=start,
            minutes=minutes,
            validate_on=validate_on,
            resume=resume,
            overwrite=overwrite,
            say=(lambda _: None) if quiet else typer.echo,
            progress=progress,
        )
    return DONE


def _blind(*, n2v2: bool, manipulator: str | None, struct_mask: str | None) -> dict[str, Any]:
    """Settings of what is for --method n2v alone."""
    given: dict[str, Any] = {"n2v_manipulator": manipulator}
    if n2v2:
        from care_bridge.training.presets import N2V2

        given = {**N2V2, **{key: value for key, value in given.items() if value is not None}}
    box = sizes("--struct-mask", struct_mask)
    if box is not None:
        mask: Any = 1
        for size in reversed(box):
            mask = (mask,) * size
        given["n2v_structmask"] = mask
    return given
