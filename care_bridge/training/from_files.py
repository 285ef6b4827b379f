"""From two folders of images, or a file of patches, to a model folder: what `care-bridge train` does."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.config import GANS, OF_PAIRS, TARGET_SCALES, UNPAIRED, CareConfig, read_config
from care_bridge.defaults import KIND, METHOD, PATCHES_PER_IMAGE, PRESET, TargetScale
from care_bridge.errors import InputError
from care_bridge.files import sha256, writable_folder
from care_bridge.model_names import model_path
from care_bridge.noise import NoiseRange
from care_bridge.patches import Foreground, PatchPercentiles, pairs_from_folders
from care_bridge.progress import Progress, silent
from care_bridge.simulate.recipe import Recipe
from care_bridge.text import shown
from care_bridge.training import data as from_images
from care_bridge.training.batches import Arrays, BatchSource, PatchSource
from care_bridge.training.checkpoint import CHECKPOINT
from care_bridge.training.data import TrainingData
from care_bridge.training.defects import DEFECTS, Defects, data_from_defects
from care_bridge.training.folder import CareModel, load_model, weights_hashes, weights_in
from care_bridge.training.history import kept_epoch
from care_bridge.training.presets import Preset, get_preset, short, smoke
from care_bridge.training.temperature import Tempered, temper
from care_bridge.training.unpaired import Unpaired
from care_bridge.words import counted, duration

LONG_S = 600.0
"""Above this, training that is to show whether everything works is better made shorter."""

Say = Callable[[str], object]


def train_from_files(
    source: str | os.PathLike[str] | None,
    target: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    preset: str = PRESET,
    settings: Mapping[str, Any] | None = None,
    scaled_down: bool = False,
    axes: str | None = None,
    image_axes: str | None = None,
    source_suffix: str | None = None,
    target_suffix: str | None = None,
    channel: int | None = None,
    patch_size: Sequence[int] | None = None,
    n_patches_per_image: int = PATCHES_PER_IMAGE,
    validation_fraction: float | None = None,
    foreground: Foreground | None = Foreground(),  # noqa: B008 - a frozen value
    simulate: Recipe | str | os.PathLike[str] | None = None,
    members: int = 1,
    start: str | os.PathLike[str] | None = None,
    minutes: float | None = None,
    validate_on: Sequence[str | os.PathLike[str]] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = lambda _: None,
    progress: Progress = silent,
) -> CareModel:
    """Train a network, or an ensemble of them, on image pairs of equal name or on patches.

    Parameters
    ----------
    source : path, optional
        Folder of low-quality images, or a .npz or .zarr of patches; with `simulate` the clean images, or None. With
        ``method="n2v"`` among the settings a folder of noisy images, or one image, stack or movie.
    target : path, optional
        Folder of high-quality images of the same names; None for a file of patches.
    out : path
        The model folder.
    preset : str
        See `presets.PRESETS`.
    settings : mapping, optional
        Keys of `CareConfig` that differ from the preset's.
    scaled_down : bool
        Train for minutes only, and say so in everything that is written (`presets.smoke`).
    axes : str, optional
        Of the network; None takes the images' own.
    image_axes : str, optional
        Of the files, where they do not say.
    source_suffix, target_suffix, channel
        See `patches.pairs_from_folders`.
    patch_size : sequence of int, optional
        None takes the preset's.
    n_patches_per_image : int
    validation_fraction : float, optional
        Share of the patches that validates, 0-1; None takes the preset's.
    foreground : Foreground, optional
        Which patches are worth learning from; None takes empty background too.
    simulate : Recipe, or str or path, optional
        Recipe by which patches are simulated from clean images while the network trains; see `streams`.
    members : int
        How many networks; more than one make an ensemble.
    start : path, optional
        Model or package whose weights to start from.
    minutes : float, optional
        Train as long as this, all members together: as many epochs and steps as fit, by what a step takes here, and
        `presets.SHORT` for what nobody said otherwise. A training that is taken up keeps its plan.
    validate_on : (path, path), optional
        Of a method without pairs: folders of some pairs that tell which epoch was the best. None keeps the last one.
    resume, overwrite : bool
        What to do with a folder that holds a training: go on with it, or begin anew.
    say : callable
        Told in sentences what is trained and how each epoch went.
    progress : Progress

    Returns
    -------
    CareModel
        With the best weights; of an ensemble its mean.

    Raises
    ------
    InputError
        As early as it can be known; settings and folders before any patch is cut.
    """
    clock = time.monotonic()
    folder, source = Path(out), Path(source) if source is not None else None
    chosen = get_preset(preset)
    if folder.is_file():
        raise InputError(f"{str(folder)!r} is a file; name a folder for the model")
    if members > 1 and start is not None:
        raise InputError("--start gives all members the same weights; train one network from it instead")
    if start is not None:
        model_path(start)  # a name that is none is known before anything is read
    if minutes is not None:
        _check_minutes(minutes, scaled_down, settings or {})
    writable_folder(folder.parent)
    begun = training_begun(folder, ensemble=members > 1, resume=resume, overwrite=overwrite)
    if resume and not begun:
        say(f"no training was begun in {str(folder)!r}: it begins now")
    recorded = _recorded(folder, members) if begun and resume else None
    wanted = {**chosen.settings, **(settings or {})}
    if recorded is not None:
        made_of = recorded.provenance.get("data", {})
        settled = preset == PRESET or str(recorded.provenance.get("preset", "")).startswith(f"{preset} (")
        wanted = {**_settings(recorded), **({} if settled else chosen.settings), **(settings or {})}
        axes = axes or recorded.axes.replace("C", "")
        patch_size = patch_size or made_of.get("patch_size")
        if n_patches_per_image == PATCHES_PER_IMAGE:
            n_patches_per_image = made_of.get("n_patches_per_image", PATCHES_PER_IMAGE)
        if validation_fraction is None:
            validation_fraction = made_of.get("validation_fraction")
        if made_of.get("all_patches"):
            foreground = None
        if source_suffix is None and target_suffix is None:
            source_suffix, target_suffix = made_of.get("source_suffix"), made_of.get("target_suffix")
        channel = made_of.get("channel") if channel is None else channel
        if simulate is None and "recipe" in made_of:
            simulate = Recipe.model_validate(made_of["recipe"])
        say(f"settings from {folder / 'config.json'}")
    if source is None and simulate is None:
        raise InputError("name the images to train on, or give --simulate RECIPE to train on drawn samples")
    if simulate is not None and target is not None:
        raise InputError(f"--simulate makes the pairs itself; leave out the second folder, {str(target)!r}")
    if minutes is not None:
        wanted = short(wanted, minutes) if recorded is None else {**wanted, "train_minutes": float(minutes)}
    blind = wanted.get("method", METHOD) == "n2v"
    if blind:
        _check_blind(source, target, simulate, source_suffix or target_suffix, settings or {})
    alone = wanted.get("method") in (*UNPAIRED, "cin-gan")
    if alone:
        _check_alone(source, target, str(wanted["method"]), simulate, source_suffix or target_suffix)
    elif validate_on is not None:
        raise InputError(
            "--validate-on is for methods without pairs; of pairs a share validates (--validation)"
        )
    percentiles = _percentiles(chosen, {} if recorded is None else made_of)
    naming: dict[str, Any] = {
        "source_suffix": source_suffix,
        "target_suffix": target_suffix,
        "channel": channel,
    }
    if target is not None and source is not None and source.is_dir() and not alone:
        # A mistyped setting is said before minutes go into cutting patches.
        CareConfig(
            from_images.network_axes(source, target, axes=axes, image_axes=image_axes, **naming), **wanted
        )
    if blind:
        assert source is not None
        data = _noisy(
            source,
            chosen,
            axes=axes,
            image_axes=image_axes or (None if recorded is None else made_of.get("image_axes")),
            channel=channel,
            patch_size=patch_size,
            validation_fraction=validation_fraction,
            wanted=wanted,
            progress=progress,
        )
    elif alone:
        assert source is not None
        assert target is not None
        data = _alone(
            source,
            target,
            chosen,
            axes=axes,
            image_axes=image_axes,
            channel=channel,
            patch_size=patch_size,
            n_patches_per_image=n_patches_per_image,
            validation_fraction=validation_fraction,
            foreground=foreground,
            percentiles=percentiles,
            validate_on=validate_on,
            wanted=wanted,
            progress=progress,
        )
    elif simulate is not None:
        data = _simulated(
            simulate,
            source,
            chosen,
            axes=axes,
            image_axes=image_axes,
            channel=channel,
            patch_size=patch_size,
            validation_fraction=validation_fraction,
            wanted=wanted,
            asked_scale=(settings or {}).get("target_scale"),
            progress=progress,
        )
    else:
        assert source is not None
        data = _read(
            source,
            target,
            chosen,
            axes=axes,
            image_axes=image_axes,
            patch_size=patch_size,
            n_patches_per_image=n_patches_per_image,
            validation_fraction=chosen.validation_fraction
            if validation_fraction is None
            else validation_fraction,
            projected=str(wanted.get("proj_axis") or "Z") if wanted.get("kind") == "ProjectionCARE" else "",
            naming=naming,
            percentiles=percentiles,
            foreground=foreground,
            target_scale=wanted.get("target_scale"),
            seed=int(wanted.get("seed", 0)),
            progress=progress,
        )
    if (
        recorded is not None
        and recorded.target_scale == data.target_scale
        and made_of.get("target_scale_because")
    ):
        data.provenance.setdefault("target_scale_because", made_of["target_scale_because"])
    config = CareConfig(
        data.axes,
        data.n_channel_in,
        data.n_channel_out,
        **{
            **wanted,
            "target_scale": data.target_scale,
            "means": data.means,
            "stds": data.stds,
            **({"gan_thresholds": data.thresholds} if data.thresholds else {}),
            **({"gan_defects": data.defects} if data.defects else {}),
        },
        provenance={"data": data.provenance, "preset": f"{chosen.name} ({chosen.source})"},
    )
    if config.gan_vgg_file is not None and config.gan_vgg_sha256 is None:
        if not Path(config.gan_vgg_file).is_file():
            raise InputError(
                f"gan_vgg_file={config.gan_vgg_file!r} is not there; give a file of VGG16's weights"
            )
        config = config.replace(gan_vgg_sha256=sha256(config.gan_vgg_file))
    if recorded is not None and "plan" in recorded.provenance:
        config = config.replace(provenance={**config.provenance, "plan": recorded.provenance["plan"]})
    if recorded is not None and "notice" in recorded.provenance:
        config = config.replace(provenance={**config.provenance, "notice": recorded.provenance["notice"]})
    elif scaled_down:
        config = smoke(config)
    if "notice" in config.provenance:
        say(config.provenance["notice"])
    if minutes is not None and recorded is None:
        from care_bridge.training.fit import plan_epochs

        left = (60 * minutes - (time.monotonic() - clock)) / members
        config = plan_epochs(config, data.training, data.validation, seconds=left)
        say(_plan(config, minutes))
    say(
        f"{_many(data)} train, {len(data.validation)} validate ({data.provenance['split']}); "
        f"{config.train_epochs} epochs of {config.train_steps_per_epoch} steps of {config.train_batch_size} -> {folder}"
    )
    if data.thresholds:
        say(
            "objects are what is above {:.3g} in sources and {:.3g} in targets (normalised; Otsu)".format(
                *data.thresholds
            )
        )
    because = data.provenance.get("target_scale_because")
    if config.own_scale is not None:
        say(f"scale: the training pixels' own {config.own_scale}; no percentiles")
    else:
        say(
            f"target scale {config.target_scale!r}{f', since {because}' if because else ''}: "
            f"{TARGET_SCALES[config.target_scale]}"
        )
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "say": say, "progress": progress}
    model = (
        _train_members(config, data, folder, members, **how)
        if members > 1
        else _train_one(config, data, folder, start, **how)
    )
    remember_familiar(folder, data)
    tempered = temper(folder, [data.validation])
    if tempered is None:
        return model
    say(str(tempered))
    return load_model(folder)


def remember_familiar(folder: str | os.PathLike[str], data: TrainingData) -> Path | None:
    """Write into a model's folder what it was trained on, for the guard that notices what it does not know.

    Parameters
    ----------
    folder : path
        Of a trained model, or of an ensemble.
    data : TrainingData
        What it was trained on, and the noise of its sources.

    Returns
    -------
    Path or None
        None where nothing can be known of such a network, or of so few patches: see `familiar.learn_familiar`.
    """
    from care_bridge.guard import GUARD, write_familiar
    from care_bridge.training.ensemble import load_trained
    from care_bridge.training.familiar import learn_familiar

    config = read_config(folder)
    models = load_trained(folder)
    found = learn_familiar(
        [one.network for one in models],
        config,
        data.training,
        data.validation,
        noise=NoiseRange.from_dict(data.provenance.get("noise")),
        weights=weights_hashes(folder),
    )
    if found is None:
        (Path(folder) / GUARD).unlink(missing_ok=True)  # of another training
        return None
    return write_familiar(folder, found)


def familiar_from_files(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    *,
    image_axes: str | None = None,
    n_patches_per_image: int = PATCHES_PER_IMAGE,
    progress: Progress = silent,
    **naming: Any,
) -> Path:
    """Write what a model was trained on into its folder, from the images that it was trained on; `remember_familiar`.

    Parameters
    ----------
    folder : path
        Of a trained model, ours or csbdeep's, or of an ensemble.
    source, target : path, optional
        Folders of its training images; of a model whose patches were simulated the clean images alone, which are degraded
        by the recipe in its config.json, or none where they were drawn.
    image_axes : str, optional
        Of the files, where they do not say.
    n_patches_per_image : int
    progress : Progress
    **naming
        What says which file belongs to which, as for `data.data_from_folders`.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is no such model, it is of another kind than CARE, takes other channels than the images have, they give
        too few patches, or clean images are others than those that it was trained on.
    """
    config = read_config(folder)
    if config.kind != KIND or config.method not in OF_PAIRS:
        raise InputError(
            f"{str(folder)!r} is a {config.kind} of method {config.method!r}, whose training patches are no pieces of the "
            f"images that it restores; the guard is for {KIND} networks that were trained on pairs"
        )
    made_of = config.provenance.get("data")
    if isinstance(made_of, Mapping) and "recipe" in made_of:
        data = _simulated_again(config, made_of, source, target, image_axes=image_axes, progress=progress)
        return _remembered(folder, data)
    if source is None or target is None:
        raise InputError(
            f"{str(folder)!r} was trained on pairs (no recipe in its config.json); name the folders of both, SOURCE and "
            "TARGET"
        )
    data = from_images.data_from_folders(
        source,
        target,
        patch_size=_patch_size(config, made_of if isinstance(made_of, Mapping) else {}),
        axes=config.axes.replace("C", ""),
        image_axes=image_axes,
        n_patches_per_image=n_patches_per_image,
        target_scale="own",
        progress=progress,
        **naming,
    )
    if data.n_channel_in != config.n_channel_in:
        raise InputError(
            f"the images have {counted(data.n_channel_in, 'channel')}, and the network takes {config.n_channel_in}; name "
            "the images that it was trained on"
        )
    return _remembered(folder, data)


def _remembered(folder: str | os.PathLike[str], data: TrainingData) -> Path:
    written = remember_familiar(folder, data)
    if written is None:
        raise InputError(
            "the images give too few patches to know anything of; name more of them, or larger ones"
        )
    return written


def calibrate_from_files(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    *,
    image_axes: str | None = None,
    n_patches_per_image: int = PATCHES_PER_IMAGE,
    progress: Progress = silent,
    **naming: Any,
) -> Tempered:
    """Find the temperature of a model that was trained before, and write it into its config.json; `temperature.temper`.

    Parameters
    ----------
    folder : path
        Of a probabilistic model, ours or csbdeep's, or of an ensemble.
    source, target : path, optional
        Folders of pairs that it was not trained on; or those that it was, of which the blocks that validated are cut again.
        Of a model whose patches were simulated the clean images alone, as for `familiar_from_files`.
    image_axes, n_patches_per_image, progress, **naming
        As for `familiar_from_files`; training images are cut as they were.

    Returns
    -------
    Tempered

    Raises
    ------
    InputError
        If there is no such model, it predicts no widths, the images do not fit it, only some of them were trained on, or no
        temperature can be found.
    """
    config = read_config(folder)
    if not config.probabilistic:
        raise InputError(
            f"{str(folder)!r} predicts no widths, so it has no intervals to calibrate; train with --probabilistic"
        )
    told = config.provenance.get("data")
    made_of: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    if "recipe" in made_of:
        data = _simulated_again(config, made_of, source, target, image_axes=image_axes, progress=progress)
        parts = [data.validation]
    elif source is None or target is None:
        raise InputError(
            f"{str(folder)!r} was trained on pairs (no recipe in its config.json); name the folders of both, SOURCE and "
            "TARGET"
        )
    else:
        how: dict[str, Any] = {
            **naming,
            "patch_size": _patch_size(config, made_of),
            "axes": config.axes.replace("C", ""),
            "image_axes": image_axes,
            "n_patches_per_image": n_patches_per_image,
            "projected": config.proj_axis or "",
            "target_scale": config.target_scale,
            "seed": int(config.provenance.get("ensemble_seed", config.seed)),
            "progress": progress,
        }
        parts = _held_out(made_of, source, target, how)
    if {part.batch(np.arange(1))[0].shape[-1] for part in parts} != {config.n_channel_in}:
        raise InputError(
            f"the images have other channels than the {config.n_channel_in} that the network takes; name images as those "
            "that it was trained on"
        )
    found = temper(folder, parts)
    if found is None:
        raise InputError(
            "no temperature can be found on these images: they hold no pixel that the model errs on"
        )
    return found


def _held_out(
    made_of: Mapping[str, Any],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    how: dict[str, Any],
) -> list[PatchSource]:
    """Patches of images that were not trained on: all of them; of training images those that validated."""
    recorded = made_of.get("target")
    known = set(recorded.values()) if isinstance(recorded, Mapping) else set()
    names = ("source_suffix", "target_suffix", "channel")
    naming = {name: how[name] for name in names if how.get(name) is not None}
    pairs = pairs_from_folders(source, target, axes=how["image_axes"], **naming)
    seen = [pair.name for pair in pairs if sha256(pair.files[1]) in known]
    if not seen:
        data = from_images.data_from_folders(source, target, **how)
        assert not isinstance(data.training, BatchSource)
        return [data.training, data.validation]
    if len(seen) < len(pairs) or len(pairs) < len(known):
        raise InputError(
            f"{len(seen)} of {counted(len(pairs), 'pair')} are among the {len(known)} that the model was trained on; name "
            "all of those, whose validation blocks are then cut again, or others only"
        )
    again = {key: made_of[key] for key in ("n_patches_per_image", "validation_fraction") if key in made_of}
    again |= {name: made_of[name] for name in names if name in made_of}
    again |= {"foreground": None} if made_of.get("all_patches") else {}
    if "percentiles" in made_of:
        again["percentiles"] = _percentiles(get_preset(PRESET), made_of)
    return [from_images.data_from_folders(source, target, **(how | again)).validation]


def _patch_size(config: CareConfig, made_of: Mapping[str, Any]) -> Any:
    """Of the training patches, where it is known; else the default preset's."""
    space = config.axes.replace("C", "")
    size = made_of.get("patch_size")
    fits = isinstance(size, list) and len(size) == len(space) and all(isinstance(one, int) for one in size)
    return size if fits else get_preset(PRESET).patch_size[len(space)]


def _simulated_again(
    config: CareConfig,
    made_of: Mapping[str, Any],
    clean: str | os.PathLike[str] | None,
    target: object,
    *,
    image_axes: str | None,
    progress: Progress,
) -> TrainingData:
    """The stream of patches that a model was trained on, from the same clean images by the same recipe and seed."""
    from care_bridge.training import streams

    if target is not None:
        raise InputError(
            "its patches were simulated from clean images, so name their folder alone, and no targets"
        )
    try:
        recipe = Recipe.model_validate(made_of["recipe"])
        how: dict[str, Any] = {
            "patch_size": [int(one) for one in made_of["patch_size"]],
            "validation_fraction": float(made_of["validation_fraction"]),
            "seed": int(made_of["stream_seed"]),
            "channel": made_of.get("channel"),
            "percentiles": PatchPercentiles(
                *(tuple(map(float, made_of["percentiles"][key])) for key in ("pmin", "pmax"))  # type: ignore[arg-type]
            ),
        }
        wanted = {str(name): str(sha) for name, sha in made_of["target"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"what config.json says of the simulated training patches is damaged ({' '.join(str(error).split())[:200]})"
        ) from None
    data = streams.data_from_stream(
        recipe, clean, axes=config.axes, image_axes=image_axes, progress=progress, **how
    )
    here = data.provenance["target"]
    others = sorted(set(here.values()) ^ set(wanted.values()))
    if others:
        names = sorted(name for name, sha in {**wanted, **here}.items() if sha in others)
        raise InputError(
            f"{str(clean)!r} does not hold the clean images that the model was trained on: {', '.join(names[:5])} "
            f"{'and others ' if len(names) > 5 else ''}are missing or are other files"
            if clean is not None
            else f"the model was trained on {counted(len(wanted), 'clean image')}, e.g. {names[0]}; name their folder"
        )
    return data


def _percentiles(preset: Preset, made_of: Mapping[str, Any]) -> PatchPercentiles:
    """Of the training patches: those that a begun training was begun with, else the preset's."""
    drawn = made_of.get("percentiles")
    if drawn is not None:
        try:
            (low, least), (most, high) = drawn["pmin"], drawn["pmax"]
            return PatchPercentiles((float(low), float(least)), (float(most), float(high)))
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"percentiles of this training's config.json are {shown(drawn)}; they must be two intervals, pmin and pmax"
            ) from None
    if made_of or preset.percentiles is None:
        return PatchPercentiles()
    low, high = preset.percentiles
    return PatchPercentiles((low, low), (high, high))


def _check_minutes(minutes: float, scaled_down: bool, settings: Mapping[str, Any]) -> None:
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes must be above 0; received {minutes:g}")
    given = [key for key in ("train_epochs", "train_steps_per_epoch") if key in settings]
    if scaled_down or given:
        raise InputError(
            f"--minutes plans epochs and steps by itself; leave out {'--smoke' if scaled_down else ' and '.join(given)}, or "
            "--minutes"
        )


def _plan(config: CareConfig, minutes: float) -> str:
    """What was planned, and what of it is no setting of csbdeep's."""
    average = f", weights averaged (decay {config.train_average:g})" if config.train_average else ""
    rate = f"rate {config.train_learning_rate:g}"
    rate += ", falling to zero as a cosine" if config.train_schedule == "cosine" else ", halved on a plateau"
    return (
        f"planned for {minutes:g} min on this machine, where a step takes {config.provenance['plan']['step_seconds']:g} s: "
        f"kernel {config.unet_kern_size}, {config.unet_n_first} features, {rate}{average}"
    )


def _recorded(folder: Path, members: int) -> CareConfig | None:
    """The settings that a begun training was begun with; None where none are there."""
    for place in (folder, *(folder / f"member_{number + 1}" for number in range(members))):
        if (place / "config.json").is_file():
            return read_config(place)
    return None


def _settings(config: CareConfig) -> dict[str, Any]:
    """What a person sets of a config; the rest is read from the images."""
    found = config.model_dump() | {"seed": config.provenance.get("ensemble_seed", config.seed)}
    for key in ("axes", "n_channel_in", "n_channel_out", "means", "stds", "temperature", "provenance"):
        found.pop(key, None)
    return found


def training_begun(folder: Path, *, ensemble: bool, resume: bool, overwrite: bool) -> bool:
    """Whether a training was begun in a folder that is to be trained in.

    Raises
    ------
    InputError
        If the folder holds what is neither to be gone on with nor to be replaced. Training says so itself, but only
        after minutes, or for one member.
    """
    single = bool(weights_in(folder)) or (folder / CHECKPOINT).is_file()
    members = [one for one in folder.glob("member_*") if one.is_dir()]
    if not overwrite and (single if ensemble else members):
        raise InputError(
            f"{str(folder)!r} holds {'a single model' if ensemble else 'an ensemble'}, not "
            f"{'an ensemble' if ensemble else 'a single model'}; name another folder, or give --overwrite"
        )
    if not overwrite and not resume and (single or members):
        raise InputError(
            f"{str(folder)!r} holds a model already; go on training it (--resume), train anew in it "
            "(--overwrite), or name another folder"
        )
    begun = any((one / CHECKPOINT).is_file() for one in (folder, *members))
    if not overwrite and resume and single and not begun:
        raise InputError(
            f"{str(folder)!r} holds weights but no {CHECKPOINT} to go on from; train another folder from them "
            f"(--start {folder}), or anew in this one (--overwrite)"
        )
    return begun


def _read(
    source: Path,
    target: str | os.PathLike[str] | None,
    preset: Preset,
    *,
    axes: str | None,
    image_axes: str | None,
    patch_size: Sequence[int] | None,
    validation_fraction: float,
    seed: int,
    naming: Mapping[str, Any],
    target_scale: TargetScale | None,
    **cutting: Any,
) -> TrainingData:
    if target is None:
        if target_scale not in (None, "own"):
            raise InputError(
                f"target_scale={target_scale!r} needs images: the patches of {str(source)!r} have their scale already; "
                "name the folders of their images, or leave it out"
            )
        if source.is_dir() and source.suffix != ".zarr":
            raise InputError(f"{str(source)!r} is a folder; name the folder of targets behind it")
        return from_images.data_from_file(
            source, axes=image_axes, validation_fraction=validation_fraction, seed=seed
        )
    if patch_size is None:
        space = from_images.network_axes(source, target, axes=axes, image_axes=image_axes, **naming)
        patch_size = preset.patch_size.get(len(space))
        if patch_size is None:
            raise InputError(
                f"preset {preset.name!r} has no patch size for {space} images; give --patch-size, or --network-axes"
            )
    return from_images.data_from_folders(
        source,
        target,
        patch_size=patch_size,
        axes=axes,
        image_axes=image_axes,
        validation_fraction=validation_fraction,
        seed=seed,
        look=True,
        target_scale=target_scale,
        **naming,
        **cutting,
    )


def _simulated(
    recipe: Recipe | str | os.PathLike[str],
    clean: Path | None,
    preset: Preset,
    *,
    axes: str | None,
    image_axes: str | None,
    channel: int | None,
    patch_size: Sequence[int] | None,
    validation_fraction: float | None,
    wanted: Mapping[str, Any],
    asked_scale: str | None,
    progress: Progress,
) -> TrainingData:
    from care_bridge.training import streams

    if asked_scale not in (None, "source"):
        raise InputError(
            f"--simulate makes source and target in one unit, scaled by the source (target_scale='source'); received "
            f"{asked_scale!r}; make pairs first, or leave it out"
        )
    if wanted.get("kind", KIND) != KIND:
        raise InputError(
            f"--simulate trains {KIND} networks; received kind {wanted['kind']!r}; make pairs first"
        )
    space = (axes or streams.stream_axes(clean, image_axes=image_axes)).replace("C", "")
    patch_size = patch_size or preset.patch_size.get(len(space))
    if patch_size is None:
        raise InputError(
            f"preset {preset.name!r} has no patch size for {space} images; give --patch-size, or --network-axes"
        )
    return streams.data_from_stream(
        recipe,
        clean,
        patch_size=patch_size,
        axes=space,
        image_axes=image_axes,
        channel=channel,
        validation_fraction=streams.VALIDATION_FRACTION
        if validation_fraction is None
        else validation_fraction,
        seed=int(wanted.get("seed", 0)),
        progress=progress,
    )


def _check_blind(
    source: Path | None,
    target: str | os.PathLike[str] | None,
    simulate: object,
    suffix: str | None,
    settings: Mapping[str, Any],
) -> None:
    if source is None or simulate is not None:
        raise InputError("method 'n2v' learns from noisy images: name them, and leave out --simulate")
    if target is not None:
        raise InputError(
            f"method 'n2v' learns from noisy images alone; leave out {str(target)!r}, or train on the pairs (method care)"
        )
    if suffix is not None or settings.get("target_scale") is not None:
        raise InputError(
            "--source-suffix, --target-suffix and --target-scale are for pairs; method 'n2v' has none"
        )


def _noisy(
    noisy: Path,
    preset: Preset,
    *,
    axes: str | None,
    image_axes: str | None,
    channel: int | None,
    patch_size: Sequence[int] | None,
    validation_fraction: float | None,
    wanted: Mapping[str, Any],
    progress: Progress,
) -> TrainingData:
    from care_bridge.training import noisy as from_noisy

    found, channels = from_noisy.noisy_axes(noisy, image_axes=image_axes, channel=channel)
    space = (axes or found).replace("C", "")
    if space not in ("YX", "ZYX"):
        raise InputError(
            f"method 'n2v' trains along YX or ZYX; received axes {axes!r}; give --network-axes YX or ZYX"
        )
    patch_size = patch_size or wanted.get("n2v_patch_shape") or preset.patch_size.get(len(space))
    if patch_size is None:
        raise InputError(
            f"preset {preset.name!r} has no patch size for {space} images; give --patch-size, or --network-axes"
        )
    return from_noisy.data_from_noisy(
        noisy,
        CareConfig(space, channels, channels, **wanted),
        patch_size=patch_size,
        image_axes=image_axes,
        channel=channel,
        validation_fraction=from_noisy.VALIDATION_FRACTION
        if validation_fraction is None
        else validation_fraction,
        progress=progress,
    )


def _check_alone(
    source: Path | None, target: object, method: str, simulate: object, suffix: str | None
) -> None:
    if simulate is not None or source is None or target is None:
        raise InputError(
            f"method {method!r} learns from two folders: images as they are, and images as they should be, of other fields; "
            "name both, and leave out --simulate"
        )
    if suffix is not None:
        raise InputError(
            f"--source-suffix and --target-suffix say which images belong together; method {method!r} has no pairs"
        )


def _alone(
    source: Path,
    target: str | os.PathLike[str],
    preset: Preset,
    *,
    axes: str | None,
    image_axes: str | None,
    channel: int | None,
    patch_size: Sequence[int] | None,
    n_patches_per_image: int,
    validation_fraction: float | None,
    foreground: Foreground | None,
    percentiles: PatchPercentiles,
    validate_on: Sequence[str | os.PathLike[str]] | None,
    wanted: Mapping[str, Any],
    progress: Progress,
) -> TrainingData:
    from care_bridge.training import unpaired

    making = wanted["method"] == "cin-gan"
    # A mistyped setting is said before minutes go into cutting patches.
    CareConfig(axes or "YX", 2 if making else 1, 1, **wanted)
    seed = int(wanted.get("seed", 0))
    how: dict[str, Any] = {
        "patch_size": patch_size or preset.patch_size[2],
        # Of stacks and movies the single planes: the networks are 2-D.
        "axes": axes or "YX",
        "image_axes": image_axes,
        "channel": channel,
        "n_patches_per_image": n_patches_per_image,
        "foreground": foreground,
        "percentiles": percentiles,
        "seed": seed,
        "progress": progress,
    }
    share = preset.validation_fraction if validation_fraction is None else validation_fraction
    if making:
        if validate_on is not None:
            raise InputError(
                "method 'cin-gan' makes defects, which no pairs tell good from bad; leave out --validate-on"
            )
        return data_from_defects(source, target, validation_fraction=share, **how)
    data = unpaired.data_from_unpaired(source, target, validation_fraction=share, **how)
    assert isinstance(data.training, unpaired.Unpaired)
    if wanted["method"] == "c2gan" and wanted.get("gan_thresholds") is None:
        found = unpaired.otsu_thresholds(data.training, size=unpaired.LOOKED_AT, seed=seed)
        data = dataclasses.replace(data, thresholds=found)
    if validate_on is None:
        return data
    pairs = from_images.data_from_folders(*validate_on, target_scale="own", look=True, **how)
    assert not isinstance(pairs.training, BatchSource)
    parts = [part.batch(np.arange(len(part))) for part in (pairs.training, pairs.validation)]
    held = Arrays(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    told = {"validated_on": pairs.provenance["target"], "n_validation": len(held)}
    return dataclasses.replace(data, validation=held, provenance={**data.provenance, **told})


def _many(data: TrainingData) -> str:
    """How many patches train, in words."""
    if data.means is not None:
        return (
            f"new patches of {counted(len(data.provenance['source']), 'noisy file')}, with new blind spots,"
        )
    if isinstance(data.training, Defects):
        return f"{counted(len(data.training.clean), 'clean patch')} and those of {counted(len(data.defects), 'defect')}"
    if isinstance(data.training, Unpaired):
        return f"{counted(len(data.training.sources), 'patch')} and {len(data.training.targets)} that they do not belong to"
    if isinstance(data.training, BatchSource):
        return (
            f"new patches of {counted(len(data.provenance['target']), 'clean file')}, simulated one by one,"
        )
    return counted(len(data.training), "patch")


def _train_one(
    config: CareConfig,
    data: TrainingData,
    folder: Path,
    start: str | os.PathLike[str] | None,
    *,
    say: Say,
    **how: Any,
) -> CareModel:
    from care_bridge.training.fit import train
    from care_bridge.training.transfer import start_from

    def tell(record: dict[str, float]) -> None:
        say(_sentence(record))

    def estimate(seconds: float) -> None:
        say(_time(seconds))

    weights = None
    if start is not None:
        transfer = start_from(start, config)
        weights = transfer.weights
        say(str(transfer))
        config = config.replace(provenance={**config.provenance, "start": transfer.as_dict()})
    result = train(
        config,
        data.training,
        data.validation,
        folder,
        start=weights,
        on_epoch=tell,
        # Of a planned one it is known, and trying steps again would take of its time.
        on_estimate=None if config.train_minutes and not how["resume"] else estimate,
        **how,
    )
    say(_ending(folder, config, result.history, stopped_early=result.stopped_early))
    return result.model


def _train_members(
    config: CareConfig, data: TrainingData, folder: Path, members: int, *, say: Say, **how: Any
) -> CareModel:
    from care_bridge.training.ensemble import train_ensemble

    def tell(member: int, record: dict[str, float]) -> None:
        say(f"member {member}, {_sentence(record)}")

    def estimate(seconds: float) -> None:
        say(_time(seconds))

    model = train_ensemble(
        config,
        data.training,
        data.validation,
        folder,
        members=members,
        on_epoch=tell,
        on_estimate=None if config.train_minutes and not how["resume"] else estimate,
        **how,
    )
    say(_next(folder))
    return model


def _time(seconds: float) -> str:
    text = (
        f"this takes about {duration(seconds)} on this machine; stop it at any moment and go on with --resume"
    )
    return text + (" (--smoke ends within minutes)" if seconds > LONG_S else "")


def _ending(
    folder: Path, config: CareConfig, history: Sequence[Mapping[str, float]], *, stopped_early: bool
) -> str:
    kept = kept_epoch(history)
    if config.method == "cin-gan":
        made = ", ".join(str(folder / DEFECTS / name) for name in config.gan_defects)
        return f"a model for each defect, of an image with a channel of noise behind: {made}"
    if kept is None:
        return (
            f"kept epoch {len(history)}, the last: nothing says which was the best without pairs (--validate-on); curves: "
            f"{folder / 'training' / 'history.png'}\n{_next(folder)}"
        )
    early = "stopped early; " if stopped_early else ""
    noise = f"{noise_left(config, kept)}\n" if config.stds is not None else ""
    if config.method in GANS and config.architecture == "resnet" and config.resnet_norm == "instance":
        noise = f"{normalisation_cost(history)}\n"
    return (
        f"{early}kept epoch {kept['epoch']:g} of {len(history)} (validation loss {kept['val_loss']:.4g}; curves: "
        f"{folder / 'training' / 'history.png'})\n{noise}{_next(folder)}"
    )


def noise_left(config: CareConfig, kept: Mapping[str, float]) -> str:
    """The noise as a training with blind spots found it, in words.

    What hidden pixels differ by from what was predicted for them is their noise and the prediction's own error, so the
    noise is at most that.

    Parameters
    ----------
    config : CareConfig
        With stds.
    kept : mapping
        The record of the epoch whose weights were kept.
    """
    assert config.stds is not None
    share = math.sqrt(kept["val_mse"])
    of = (
        f"{share * config.stds[0]:.3g} grey levels"
        if len(config.stds) == 1
        else f"{share:.3g} of each channel's deviation, on average over the channels"
    )
    return f"noise of a pixel: at most {of} (standard deviation; from pixels that were hidden and validated)"


def normalisation_cost(history: Sequence[Mapping[str, float]]) -> str:
    """What it costs that a generator normalises by statistics of the training patches, in words.

    Parameters
    ----------
    history : sequence of mapping
        Records with val_mae and val_mae_own.
    """
    kept = min(record["val_mae"] for record in history)
    own = min(record["val_mae_own"] for record in history)
    return (
        f"normalisation by the training patches' statistics, so that tiles agree: error {kept:.4g}; by each patch's own at "
        f"best {own:.4g}"
    )


def _next(folder: Path) -> str:
    return "\n".join(
        (
            "next:",
            f"  care-bridge evaluate {folder} TEST_SOURCE TEST_TARGET   # how good, on images that it never saw",
            f"  care-bridge predict {folder} IMAGE --out restored       # restore here",
            f"  care-bridge export {folder} --format fiji               # restore in Fiji",
        )
    )


_TOLD = {"val_cycle": "there and back", "style": "style"}


def _sentence(record: Mapping[str, float]) -> str:
    if math.isnan(record["val_loss"]):
        told = next(name for name in _TOLD if name in record)
        return (
            f"epoch {record['epoch']:g}: loss {record['loss']:.4g}, {_TOLD[told]} {record[told]:.4g}, critic "
            f"{record['critic']:.4g}, rate {record['learning_rate']:g}, {record['seconds']:.0f} s"
        )
    return (
        f"epoch {record['epoch']:g}: loss {record['loss']:.4g}, validation {record['val_loss']:.4g}, "
        f"error {record['val_mae']:.4g}, rate {record['learning_rate']:g}, {record['seconds']:.0f} s"
    )
