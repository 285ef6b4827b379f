"""Settings of papers, and how to shrink them for a quick look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from care_bridge.config import GANS, CareConfig
from care_bridge.defaults import PATCH_2D, PRESET
from care_bridge.errors import InputError
from care_bridge.words import counted

SMOKE_EPOCHS, SMOKE_STEPS, SMOKE_BATCH, SMOKE_FEATURES, SMOKE_KERNEL = 6, 50, 8, 8, 3
"""What `smoke` cuts settings down to: about a minute in 2-D on two cores."""
SMOKE_BLOCKS, SMOKE_CONTENT_STEPS = 2, 50
"""The same of networks that learn with a critic, whose own features are cut down as the network's."""


SHORT: Mapping[str, Any] = {
    "unet_kern_size": 3,
    "unet_n_first": 24,
    "train_schedule": "cosine",
    "train_average": 0.999,
    "train_learning_rate": 1.6e-3,
}
"""What a training of minutes has where neither a person nor a preset says otherwise: of csbdeep's networks the one that
learns fastest (kernel 3, 24 features: as good after 3 minutes as kernel 5 with 32 after 7), a rate that falls to zero, and
the average of the last steps. A cosine spends half its steps below half its rate, so it wants twice a plateau's: after 1,200
steps 1.6e-3 ended 0.45 dB above 8e-4 (one seed, 16 features, drawn structures); the average changed nothing."""


N2V2: Mapping[str, Any] = {"unet_blurpool": True, "unet_top_skip": False, "n2v_manipulator": "median"}
"""What makes N2V2 of Noise2Void (Hoeck et al. 2022, arXiv 2211.08512): against checkerboards in the result."""


@dataclass(frozen=True)
class Preset:
    """Settings for `CareConfig` and for cutting patches.

    Attributes
    ----------
    name : str
    source : str
        Where the numbers stand.
    patch_size : mapping of int to tuple of int
        By the number of space axes; a preset of a 3-D network has no 2-D one.
    validation_fraction : float
    settings : mapping
        Keys of `CareConfig`; what is absent is csbdeep's default.
    percentiles : (float, float), optional
        Those of every training patch, 0-100; None draws them as csbdeep does.
    """

    name: str
    source: str
    patch_size: Mapping[int, tuple[int, ...]]
    validation_fraction: float = 0.1
    settings: Mapping[str, Any] = field(default_factory=dict)
    percentiles: tuple[float, float] | None = None


def csbdeep() -> Preset:
    """The defaults of csbdeep: depth 2, 32 features, Adam 4e-4, batch 16, 100 epochs of 400 steps.

    Source: ``csbdeep.models.Config`` 0.8.2; patches of 64 x 64 and 16 x 64 x 64 as in its examples.
    """
    return Preset("csbdeep", "csbdeep 0.8.2, models/config.py", {2: PATCH_2D, 3: (16, 64, 64)})


def mito() -> Preset:
    """Mitochondria: patches of 32 x 32, learning rate 2e-4, batch 16, 1000 epochs of 500 steps, probabilistic.

    Source: "Semi-Synthetic Test Data Generation and CARE of Fluorescent Microscopy Images" (ECCV 2020
    submission 100), settings for mitochondria; 80 % of the patches train, 20 % validate. Its text also says
    that the rate falls from 0.002; its settings say 0.0002.
    """
    settings = {
        "probabilistic": True,
        "target_scale": "own",
        "train_learning_rate": 2e-4,
        "train_batch_size": 16,
        "train_epochs": 1000,
        "train_steps_per_epoch": 500,
    }
    return Preset("mito", "Semi-synthetic CARE (2020), mitochondria", {2: (32, 32)}, 0.2, settings)


def cardio() -> Preset:
    """Cardiomyocytes: as `mito` with patches of 16 x 16 and learning rate 4e-4.

    Source: "Semi-Synthetic Test Data Generation and CARE of Fluorescent Microscopy Images" (ECCV 2020
    submission 100), settings for cardiomyocytes.
    """
    settings = {**mito().settings, "train_learning_rate": 4e-4}
    return Preset("cardio", "Semi-synthetic CARE (2020), cardiomyocytes", {2: (16, 16)}, 0.2, settings)


def planaria() -> Preset:
    """Planaria stacks: patches of 16 x 64 x 64, learning rate 4e-4, batch 16, 200 epochs of 400 steps, percentiles 3, 99.8.

    Source: "Exploring denoising for CARE" (replication of Weigert et al. 2018): 3-D network with two pooling
    layers, kernel 3 and 32 features, rate halved after 10 epochs on a plateau, 80 % of the patches train. Its percentiles
    hold for training patches and at prediction.
    """
    low, high = 3.0, 99.8
    settings = {
        "target_scale": "own",
        "unet_n_depth": 2,
        "unet_kern_size": 3,
        "unet_n_first": 32,
        "train_learning_rate": 4e-4,
        "train_batch_size": 16,
        "train_epochs": 200,
        "train_steps_per_epoch": 400,
        "norm_pmin": low,
        "norm_pmax": high,
    }
    source = "Exploring denoising for CARE, planaria"
    return Preset("planaria", source, {3: (16, 64, 64)}, 0.2, settings, (low, high))


def tribolium() -> Preset:
    """Tribolium stacks: as `planaria`.

    Source: "Exploring denoising for CARE", which trains both in the same way (15,500 patches of 26 volumes).
    """
    return replace(planaria(), name="tribolium", source="Exploring denoising for CARE, tribolium")


PRESETS: Mapping[str, Callable[[], Preset]] = {
    "csbdeep": csbdeep,
    "mito": mito,
    "cardio": cardio,
    "planaria": planaria,
    "tribolium": tribolium,
}


def get_preset(name: str = PRESET) -> Preset:
    """A preset by its name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()


def short(settings: Mapping[str, Any], minutes: float) -> dict[str, Any]:
    """Settings for a training of so many minutes; what they hold already stays.

    Epochs and steps come later, from what a step takes (`fit.plan_epochs`).
    """
    if settings.get("method") in GANS:
        # Its own usual rate falls to zero as well, and larger ones let a critic win.
        return {**settings, "train_minutes": minutes}
    sizes = ("unet_kern_size", "unet_n_first")
    usual = {
        key: value
        for key, value in SHORT.items()
        if settings.get("architecture", "care") == "care" or key not in sizes
    }
    return {**usual, **settings, "train_minutes": minutes}


def smoke(config: CareConfig) -> CareConfig:
    """The same settings scaled down to minutes, with a notice that everything written from them carries.

    The patience on a plateau shrinks with the epochs, so that the learning rate still falls.
    """
    epochs, steps = min(config.train_epochs, SMOKE_EPOCHS), min(config.train_steps_per_epoch, SMOKE_STEPS)
    features = min(config.unet_n_first, SMOKE_FEATURES)
    less = []
    if (epochs, steps) != (config.train_epochs, config.train_steps_per_epoch):
        less.append(
            f"{epochs} epochs of {steps} steps instead of {config.train_epochs} of {config.train_steps_per_epoch}"
        )
    if features != config.unet_n_first:
        less.append(f"{features} features instead of {config.unet_n_first}")
    batch, kernel = min(config.train_batch_size, SMOKE_BATCH), config.unet_kern_size
    small = min(kernel, SMOKE_KERNEL) if isinstance(kernel, int) else kernel
    if batch != config.train_batch_size:
        less.append(f"batches of {batch} instead of {config.train_batch_size}")
    if small != kernel:
        less.append(f"kernel {small} instead of {kernel}")
    reduce = config.train_reduce_lr
    if reduce is not None:
        patience = reduce.get("patience", 10)
        reduce = {**reduce, "patience": max(1, round(patience * epochs / config.train_epochs))}
        if reduce["patience"] != patience:
            less.append(
                f"the rate falls after {counted(reduce['patience'], 'epoch')} on a plateau instead of {patience}"
            )
    smaller: dict[str, Any] = {}
    if config.method in GANS:
        smaller = {
            "resnet_n_blocks": min(config.resnet_n_blocks, SMOKE_BLOCKS),
            "gan_content_steps": min(config.gan_content_steps, SMOKE_CONTENT_STEPS),
            "gan_critic_n_first": min(config.gan_critic_n_first, SMOKE_FEATURES),
        }
        less += [
            f"{key} {value} instead of {getattr(config, key)}"
            for key, value in smaller.items()
            if value != getattr(config, key)
        ]
    notice = (
        f"smoke run: {', '.join(less) or 'small already'}; shows that training works, not how good it gets"
    )
    return config.replace(
        train_epochs=epochs,
        train_steps_per_epoch=steps,
        train_batch_size=batch,
        unet_n_first=features,
        unet_kern_size=small,
        train_reduce_lr=reduce,
        **smaller,
        provenance={**config.provenance, "notice": notice},
    )
