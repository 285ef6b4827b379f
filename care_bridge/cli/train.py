"""`care-bridge train`: from two folders of images, or a file of patches, to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.defaults import PATCHES_PER_IMAGE, PRECISION, PRECISIONS, PRESET, SEED
from care_bridge.errors import InputError

if TYPE_CHECKING:
    from care_bridge.config import CareConfig
    from care_bridge.training.data import TrainingData
    from care_bridge.training.presets import Preset


def register(app: typer.Typer) -> None:
    app.command("train")(command(train))


def train(
    source: Path = typer.Argument(..., help="Folder of low-quality images, or one .npz or .zarr of patches."),
    target: Path | None = typer.Argument(None, help="Folder of high-quality images of the same names."),
    *,
    out: Path = typer.Option(..., "--out", help="The model folder to write."),
    preset: str = typer.Option(PRESET, "--preset", help="csbdeep, mito, cardio or planaria."),
    smoke: bool = typer.Option(False, "--smoke", help="Scale everything down to minutes, and say so."),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Go on from where this folder's training stopped; where none was begun, begin, and say so.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Train anew in a folder that holds a model."),
    seed: int = typer.Option(SEED, "--seed", min=0, help="Of every random draw."),
    ensemble: int = typer.Option(1, "--ensemble", min=1, help="How many networks to train; the paper's: 5."),
    probabilistic: bool | None = typer.Option(
        None, "--probabilistic/--no-probabilistic", help="Predict a Laplace distribution a pixel."
    ),
    kind: str = typer.Option("CARE", "--kind", help="CARE, UpsamplingCARE, IsotropicCARE or ProjectionCARE."),
    factor: float | None = typer.Option(None, "--factor", help="Upsampling along Z of the training data."),
    axes: str | None = typer.Option(None, "--axes", help="Of the network, e.g. YX; else the images' own."),
    image_axes: str | None = typer.Option(None, "--image-axes", help="Of the files, where they do not say."),
    patch_size: str | None = typer.Option(None, "--patch-size", help="E.g. 64,64; else the preset's."),
    patches_per_image: int = typer.Option(
        PATCHES_PER_IMAGE, "--patches-per-image", min=1, help="Patches cut per pair."
    ),
    validation: float | None = typer.Option(
        None, "--validation", help="Share of the patches that validates, 0-1; else the preset's."
    ),
    all_patches: bool = typer.Option(False, "--all-patches", help="Take patches of empty background too."),
    epochs: int | None = typer.Option(None, "--epochs", help="train_epochs"),
    steps: int | None = typer.Option(None, "--steps", help="train_steps_per_epoch"),
    batch_size: int | None = typer.Option(None, "--batch-size", help="train_batch_size"),
    learning_rate: float | None = typer.Option(None, "--learning-rate", help="train_learning_rate"),
    features: int | None = typer.Option(None, "--features", help="unet_n_first"),
    depth: int | None = typer.Option(None, "--depth", help="unet_n_depth"),
    kernel: str | None = typer.Option(None, "--kernel", help="unet_kern_size, e.g. 3 or 1,3,3"),
    pool: str | None = typer.Option(None, "--pool", help="unet_pool, e.g. 1,2,2 for stacks of few planes"),
    augment: str = typer.Option("", "--augment", help="Any of flips,rot90,intensity"),
    early_stopping: int | None = typer.Option(
        None, "--early-stopping", help="Stop after so many epochs without a better validation loss."
    ),
    precision: str = typer.Option(PRECISION, "--precision", help=" or ".join(PRECISIONS)),
    start: Path | None = typer.Option(None, "--start", help="Model or package whose weights to start from."),
    settings: list[str] = typer.Option([], "--set", help="Any other setting of config.json: KEY=VALUE."),
    quiet: bool = typer.Option(False, "--quiet", help="Say nothing; no progress bar."),
) -> int:
    """Train a network on pairs of SOURCE and TARGET images.

    It restores what looks like SOURCE to what TARGET looks like.
    """
    from care_bridge.files import writable_folder
    from care_bridge.training.presets import get_preset

    chosen = get_preset(preset)
    if out.is_file():
        raise InputError(f"--out {str(out)!r} is a file; name a folder for the model")
    writable_folder(out.parent)
    load_tensorflow()
    begun = _begun(out, ensemble=ensemble > 1, resume=resume, overwrite=overwrite)
    if resume and not begun and not quiet:
        typer.echo(f"no training was begun in {str(out)!r}: it begins now")
    given = {
        "train_epochs": epochs,
        "train_steps_per_epoch": steps,
        "train_batch_size": batch_size,
        "train_learning_rate": learning_rate,
        "unet_n_first": features,
        "unet_n_depth": depth,
        "unet_kern_size": _size("--kernel", kernel),
        "unet_pool": _sizes("--pool", pool),
        "probabilistic": probabilistic,
        "train_early_stopping": early_stopping,
        "factor": factor,
        "kind": kind,
        "seed": seed,
        "train_precision": precision,
        "train_augment": tuple(part for part in augment.split(",") if part),
    }
    wanted = {**chosen.settings, **{key: value for key, value in given.items() if value is not None}}
    wanted |= dict(_setting(text) for text in settings)
    if target is not None and source.is_dir():
        from care_bridge.config import CareConfig
        from care_bridge.training.data import network_axes

        # A mistyped setting is said before minutes go into cutting patches.
        CareConfig(network_axes(source, target, axes=axes, image_axes=image_axes), **wanted)
    with progress_bar(quiet=quiet) as progress:
        data = _data(
            source,
            target,
            chosen,
            axes=axes,
            image_axes=image_axes,
            patch_size=_sizes("--patch-size", patch_size),
            patches_per_image=patches_per_image,
            validation=chosen.validation_fraction if validation is None else validation,
            projected=str(wanted.get("proj_axis") or "Z") if kind == "ProjectionCARE" else "",
            all_patches=all_patches,
            seed=seed,
            progress=progress,
        )
        config = _config(data, wanted, chosen, smoke=smoke)
        if not quiet:
            _say_what(config, data, out)
        _train(
            config,
            data,
            out,
            ensemble,
            start=start,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            progress=progress,
        )
    return DONE


def _begun(out: Path, *, ensemble: bool, resume: bool, overwrite: bool) -> bool:
    """Whether a training was begun there; refuses what is said only after minutes else, or not at all."""
    from care_bridge.training.checkpoint import CHECKPOINT
    from care_bridge.training.folder import weights_in

    single = bool(weights_in(out)) or (out / CHECKPOINT).is_file()
    members = [folder for folder in out.glob("member_*") if folder.is_dir()]
    if not overwrite and (single if ensemble else members):
        raise InputError(
            f"--out {str(out)!r} holds {'a single model' if ensemble else 'an ensemble'}, not "
            f"{'an ensemble' if ensemble else 'a single model'}; name another folder, or give --overwrite"
        )
    if not overwrite and not resume and (single or members):
        raise InputError(
            f"--out {str(out)!r} holds a model already; go on training it (--resume), train anew in it "
            "(--overwrite), or name another folder"
        )
    begun = any((folder / CHECKPOINT).is_file() for folder in (out, *members))
    if not overwrite and resume and single and not begun:
        raise InputError(
            f"--out {str(out)!r} holds weights but no {CHECKPOINT} to go on from; train another folder from them "
            f"(--start {out}), or anew in this one (--overwrite)"
        )
    return begun


def _data(
    source: Path,
    target: Path | None,
    preset: Preset,
    *,
    patch_size: tuple[int, ...] | None,
    axes: str | None,
    image_axes: str | None,
    patches_per_image: int,
    validation: float,
    projected: str,
    all_patches: bool,
    seed: int,
    progress: Any,
) -> TrainingData:
    from care_bridge.patches import Foreground
    from care_bridge.training.data import data_from_file, data_from_folders, network_axes

    if target is None:
        if source.is_dir() and source.suffix != ".zarr":
            raise InputError(f"{str(source)!r} is a folder; name the folder of targets behind it")
        return data_from_file(source, axes=image_axes, validation_fraction=validation, seed=seed)
    if patch_size is None:
        space = network_axes(source, target, axes=axes, image_axes=image_axes)
        patch_size = preset.patch_size.get(len(space))
        if patch_size is None:
            raise InputError(
                f"preset {preset.name!r} has no patch size for {space} images; give --patch-size, or --axes"
            )
    return data_from_folders(
        source,
        target,
        patch_size=patch_size,
        axes=axes,
        image_axes=image_axes,
        n_patches_per_image=patches_per_image,
        validation_fraction=validation,
        projected=projected,
        foreground=None if all_patches else Foreground(),
        seed=seed,
        progress=progress,
    )


def _config(data: TrainingData, wanted: dict[str, Any], preset: Preset, *, smoke: bool) -> CareConfig:
    from care_bridge.config import CareConfig
    from care_bridge.training.presets import smoke as scaled_down

    config = CareConfig(
        data.axes,
        data.n_channel_in,
        data.n_channel_out,
        **wanted,
        provenance={"data": data.provenance, "preset": f"{preset.name} ({preset.source})"},
    )
    return scaled_down(config) if smoke else config


def _say_what(config: CareConfig, data: TrainingData, out: Path) -> None:
    if "notice" in config.provenance:
        typer.echo(config.provenance["notice"])
    typer.echo(
        f"{len(data.training)} patches train, {len(data.validation)} validate ({data.provenance['split']}); "
        f"{config.train_epochs} epochs of {config.train_steps_per_epoch} steps of {config.train_batch_size} -> {out}"
    )


def _train(
    config: CareConfig,
    data: TrainingData,
    out: Path,
    ensemble: int,
    *,
    start: Path | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    progress: Any,
) -> None:
    from care_bridge.training.ensemble import train_ensemble
    from care_bridge.training.fit import train as fit
    from care_bridge.training.transfer import start_from

    def show(record: dict[str, float], member: int = 0) -> None:
        if not quiet:
            name = f"member {member}, " if member else ""
            typer.echo(
                f"{name}epoch {record['epoch']:g}: loss {record['loss']:.4g}, validation {record['val_loss']:.4g}, "
                f"error {record['val_mae']:.4g}, rate {record['learning_rate']:g}, {record['seconds']:.0f} s"
            )

    if ensemble > 1:
        if start is not None:
            raise InputError("--start gives all members the same weights; train one network from it instead")
        train_ensemble(
            config,
            data.training,
            data.validation,
            out,
            members=ensemble,
            resume=resume,
            overwrite=overwrite,
            on_epoch=lambda member, record: show(record, member),
            progress=progress,
        )
        return
    weights = None
    if start is not None:
        transfer = start_from(start, config)
        weights = transfer.weights
        if not quiet:
            typer.echo(str(transfer))
        config = config.replace(provenance={**config.provenance, "start": transfer.as_dict()})
    fit(
        config,
        data.training,
        data.validation,
        out,
        start=weights,
        resume=resume,
        overwrite=overwrite,
        on_epoch=show,
        progress=progress,
    )


def _sizes(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} is not understood; give whole numbers, e.g. 64,64") from None


def _size(option: str, text: str | None) -> int | tuple[int, ...] | None:
    sizes = _sizes(option, text)
    return sizes[0] if sizes is not None and len(sizes) == 1 else sizes


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text!r} is not understood; give KEY=VALUE, e.g. train_loss=mse")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
