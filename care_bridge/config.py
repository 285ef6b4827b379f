"""What a network is and how it is trained: csbdeep's keys and defaults, and a block of our own."""

from __future__ import annotations

import difflib
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from care_bridge import n2v_keys, text
from care_bridge.axes import check_axes
from care_bridge.bundle import OwnNormalisation
from care_bridge.defaults import KIND, METHOD, PRECISION, SEED, TargetScale
from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.tiling import receptive_field

FORMAT_VERSION = 1
"""Version of our own block in config.json."""

BLOCK = "care_bridge"
"""Key of our own block in config.json."""

PMIN, PMAX = 2.0, 99.8
"""Percentiles that an image is normalised by when it is predicted; csbdeep's PercentileNormalizer."""

Kind = Literal["CARE", "UpsamplingCARE", "IsotropicCARE", "ProjectionCARE"]
"""csbdeep's classes: plain, upsampled along Z first, two rotated stacks combined, an axis projected away."""

Architecture = Literal["care", "fast", "resnet"]
"""csbdeep's U-Net, one that works at half the resolution along Y and X, or residual blocks; see `training.unet.build`."""

ARCHITECTURE: Final = "care"
"""csbdeep's network, which every reader of its folders knows."""

Method = Literal["care", "n2v", "cgan", "deblurgan", "cyclegan", "c2gan", "cin-gan"]
"""How a network learns: from pairs, from noisy images alone (Noise2Void), or with a critic: from pairs (cgan, deblurgan),
from images of which none belongs to another (cyclegan, c2gan), or to make defects of clean images (cin-gan)."""

OF_PAIRS = ("care", "cgan", "deblurgan")
"""Methods whose sources are pieces of what is restored afterwards, and whose targets belong to them pixel by pixel."""

UNPAIRED = ("cyclegan", "c2gan")
"""Methods whose sources are pieces of what is restored afterwards, and whose targets show something else."""

GANS = ("cgan", "deblurgan", *UNPAIRED, "cin-gan")
"""Methods in which a critic learns to tell what the network gives from what it should give."""

Manipulator = Literal[
    "uniform_withCP",
    "uniform_withoutCP",
    "normal_withoutCP",
    "normal_additive",
    "normal_fitted",
    "mean",
    "median",
    "identity",
]
"""What stands in a blind spot while Noise2Void trains, under the names of n2v; see `training.blind_spots`."""

CSBDEEP_CANNOT = "this network is not csbdeep's: open it with care_bridge.csbdeep.models.CARE(None, name)"
"""Key in the config.json of networks that csbdeep has no like of: csbdeep's refusal shows the keys it does not know."""

Sizes = int | tuple[int, ...]

_MOST_LEVELS, _MOST_CHANNELS, _MOST_KERNEL = 24, 1 << 16, 1 << 10
"""Beyond these, sizes and receptive fields are no numbers to reckon with; networks stay far below."""
_MOST_BLIND = 25.0
"""Percent of the pixels: every fourth is blind, and what is left hardly tells what was there."""
_BYTES_OF_NO_MACHINE = 1 << 40

_PROJECTION = ("proj_axis", "proj_n_depth", "proj_n_filt", "proj_n_conv_per_depth", "proj_kern", "proj_pool")
# Field here -> key in our own block of config.json; everything else is a top-level key of csbdeep's.
_OWN = {
    "kind": "class",
    "architecture": "architecture",
    "unet_pool": "unet_pool",
    "factor": "factor",
    "norm_pmin": "norm_pmin",
    "norm_pmax": "norm_pmax",
    "temperature": "temperature",
    "seed": "seed",
    "target_scale": "target_scale",
    "train_schedule": "train_schedule",
    "train_average": "train_average",
    "train_minutes": "train_minutes",
    "train_precision": "train_precision",
    "train_augment": "train_augment",
    "train_early_stopping": "train_early_stopping",
    "train_loss_bg_thresh": "train_loss_bg_thresh",
    "train_loss_bg_decay": "train_loss_bg_decay",
    "provenance": "provenance",
}
# The same, written for networks of Noise2Void alone.
_OWN_N2V = {
    "means": "means",
    "stds": "stds",
    "unet_batch_norm": "unet_batch_norm",
    "unet_blurpool": "unet_blurpool",
    "unet_narrow_up": "unet_narrow_up",
    "unet_per_channel": "unet_per_channel",
    "unet_top_skip": "unet_top_skip",
    "n2v_perc_pix": "n2v_perc_pix",
    "n2v_manipulator": "n2v_manipulator",
    "n2v_neighborhood_radius": "n2v_neighborhood_radius",
    "n2v_structmask": "n2v_structmask",
    "n2v_patch_shape": "n2v_patch_shape",
}
# The same, written for residual networks and those that learn with a critic.
_OWN_GAN = {
    name: name
    for name in (
        "resnet_n_blocks",
        "resnet_skips",
        "resnet_norm",
        "gan_loss",
        "gan_adversarial",
        "gan_l1",
        "gan_content",
        "gan_content_net",
        "gan_content_steps",
        "gan_critic_n_first",
        "gan_critic_n_depth",
        "gan_critic_steps",
        "gan_critic_conditional",
        "gan_vgg_file",
        "gan_vgg_sha256",
        "gan_freeze",
        "gan_cycle",
        "gan_identity",
        "gan_pool",
        "gan_saliency",
        "gan_slope",
        "gan_thresholds",
        "gan_style",
        "gan_noise",
        "gan_defects",
    )
}
_GAN_USUAL: Mapping[str, Any] = {
    "train_learning_rate": 4e-4,
    "train_batch_size": 8,
    "train_schedule": "linear",
}
_OF_CYCLES = {
    **_GAN_USUAL,
    "architecture": "resnet",
    "resnet_norm": "instance",
    "train_learning_rate": 2e-4,
    "train_batch_size": 4,
    "gan_adversarial": 1.0,
    "gan_l1": 0.0,
    "gan_content": 0.0,
    "gan_cycle": 10.0,
    "gan_pool": 50,
}
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "cgan": _GAN_USUAL,
    "deblurgan": {
        **_GAN_USUAL,
        "architecture": "resnet",
        "resnet_norm": "instance",
        "train_learning_rate": 1e-4,
        "gan_loss": "wgan-gp",
        "gan_critic_steps": 5,
        "gan_critic_conditional": False,
        "gan_adversarial": 1.0,
        "gan_content": 100.0,
        "gan_l1": 0.0,
    },
    "cyclegan": _OF_CYCLES,
    "cin-gan": {
        **_GAN_USUAL,
        "architecture": "resnet",
        "resnet_norm": "instance",
        "unet_residual": False,
        "train_learning_rate": 2e-4,
        "gan_loss": "wgan-gp",
        "gan_critic_steps": 3,
        "gan_adversarial": 0.02,
        "gan_content": 0.0,
        "gan_style": 3.0,
        "gan_noise": 5.0,
        "gan_l1": 10.0,
    },
    "c2gan": {**_OF_CYCLES, "gan_saliency": 50.0},
}
"""What a network that learns with a critic has where nothing else is said: the papers' rates, schedules and weights, and of
pairs csbdeep's U-Net, which restores them better (docs/methods.md)."""
_KEYS = _OWN | {"method": "method"} | _OWN_N2V | _OWN_GAN


class CareConfig(BaseModel):
    """Settings of one network and its training.

    The names and defaults are csbdeep's (``csbdeep.models.Config`` and ``ProjectionConfig``, 0.8.2), except
    `train_tensorboard`, which is off: TensorFlow no longer brings TensorBoard, and csbdeep stops without it.
    Defaults that hang on others (kernel 5 in 2-D and 3 in 3-D, depth 3 and kernel 3 of the fast architecture, residual
    when channels agree, `laplace` when probabilistic) are filled in on construction, so a config holds plain values.

    Attributes
    ----------
    axes : str
        Axes of the network's input, C last (added when missing); one of YX, ZYX, TYX and C.
    n_channel_in, n_channel_out : int
    probabilistic : bool
        Predict a Laplace distribution per pixel: a mean and a scale channel for every output channel.
    kind : str
        csbdeep's class, see `Kind`.
    architecture : {"care", "fast", "resnet"}
        csbdeep's U-Net; the same at half the resolution along Y and X, which costs a fraction; or a residual network, the
        usual generator of GANs.
    method : {"care", "n2v", "cgan", "deblurgan", "cyclegan", "c2gan", "cin-gan"}
        How it is trained: on pairs, on noisy images with blind spots, on pairs with a critic (cgan, deblurgan), or on two
        sets of images that do not belong together, there and back again; of c2gan objects keep their place (saliency).
        Of cin-gan clean images get one of several defects, with fresh noise in the last channel that goes in.
    means, stds : tuple of float, optional
        Of the training pixels, one for each channel; with them the network takes grey levels as they are and gives such
        back, and no percentiles are used. None for networks of percentiles.
    factor : float, optional
        Upsampling along Z that UpsamplingCARE and IsotropicCARE were trained for; None: the caller says.
    unet_residual : bool
        The network predicts the difference to its input.
    unet_n_depth : int
        How often it pools, at least 1.
    unet_kern_size : int or tuple of int
        Odd; one number for all axes or one per space axis.
    unet_pool : tuple of int
        Pooling per space axis, e.g. (1, 2, 2) for stacks of few planes. csbdeep knows only 2.
    unet_n_first : int
        Features of the first level; doubled a level.
    unet_last_activation : {"linear", "relu"}
    unet_batch_norm : bool
        Batch normalisation behind every convolution but the last, as the package n2v has it.
    unet_blurpool : bool or "n2v"
        Blur before every second pixel is dropped on the way down (N2V2); "n2v" as that package does, in 2-D.
    unet_narrow_up : bool
        The first convolution of each level on the way up has `unet_n_first` features, as the package n2v builds it.
    unet_per_channel : bool
        A U-Net for each channel alone, side by side in one network.
    unet_top_skip : bool
        Whether the finest level is handed over to the way up; N2V2 leaves it out.
    n2v_perc_pix : float
        Blind spots, in percent of the pixels of a patch.
    n2v_manipulator : str
        What stands in them, see `Manipulator`.
    n2v_neighborhood_radius : int
        Pixels a side that it is taken from.
    n2v_structmask : nested tuples of 0 and 1, optional
        Pixels around a blind spot that are hidden with it (structN2V), of odd sizes, the spot in the middle.
    n2v_patch_shape : tuple of int, optional
        Pixels of the patches that train, ([z,] y, x); None: as the call that trains says.
    unet_input_shape : tuple
        None for free sizes, channels last.
    resnet_n_blocks : int
        Residual blocks of two convolutions each, between the ways down and up.
    resnet_skips : bool
        Whether each level on the way down is handed over to the way up.
    resnet_norm : {"none", "instance"}
        What normalises between convolutions while a critic teaches; in the end it is part of them.
    gan_loss : {"lsgan", "bce", "wgan-gp"}
        What the critic learns by: squares, cross entropy, or Wasserstein's distance with a penalty on its gradient.
    gan_adversarial, gan_l1, gan_content : float
        Weights of what the generator learns by: to please the critic, the absolute error, and the difference of features
        of `gan_content_net`.
    gan_content_net : {"encoder", "filters", "random_vgg", "vgg16"}
        Whose features: an encoder that first learns, on the training targets, to take noise off; a bank of fixed filters;
        the first layers of VGG16 with random weights, or with those of `gan_vgg_file`.
    gan_vgg_file : str, optional
        Weights of VGG16 (Keras' vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5) that a person has; looked at while
        training alone.
    gan_vgg_sha256 : str, optional
        What that file must have; None takes the file's, and keeps it.
    gan_content_steps : int
        Steps that the encoder learns.
    gan_critic_n_first, gan_critic_n_depth, gan_critic_steps : int
        Features of the critic's first level, how often it goes down, and how many steps it does for one of the generator.
    gan_critic_conditional : bool
        Of pairs: whether the critic sees the source beside what is said to belong to it.
    gan_freeze : float
        Share of the training after which the generator normalises by statistics of the training patches, as it does
        ever after, instead of each patch's own; 0-1. From half of it on it passes over bit by bit.
    gan_cycle, gan_identity : float
        Of unpaired methods: weights of the absolute error there and back again, and of what is done to an image that is as
        it should be.
    gan_pool : int
        Images that were made before and are shown to the critics again; 0: none.
    gan_saliency, gan_slope : float
        First weight of objects that keep their place, which falls by e each epoch, and how steeply a pixel becomes one.
    gan_style, gan_noise : float
        Of cin-gan, whose `gan_l1` weighs images that were blurred before: weights of which features go together, and of as
        much noise as the defect has on the finest scale.
    gan_defects : tuple of str
        Names of the defects that one generator makes (cin-gan).
    gan_thresholds : (float, float), optional
        From which normalised intensity on a pixel of a source and of a target is an object's; None: Otsu's.
    train_loss : {"mae", "mse", "laplace"}
    train_epochs, train_steps_per_epoch, train_batch_size : int
    train_learning_rate : float
        Start of Adam's learning rate.
    train_tensorboard : bool
        Kept for csbdeep; not used here.
    train_checkpoint, train_checkpoint_last, train_checkpoint_epoch : str, optional
        File names of weights; the third is csbdeep's alone.
    train_reduce_lr : mapping, optional
        Arguments of ReduceLROnPlateau; None leaves the learning rate alone.
    norm_pmin, norm_pmax : float
        Percentiles for prediction, 0-100.
    target_scale : {"own", "source", "fitted"}
        How the targets of the patches were scaled, see `patches.sample_patches`; given the data's own record in
        `provenance`, that is what it says. With "source" and "fitted" the output lies on the input's grey levels.
    temperature : float, optional
        Of a probabilistic network, what its scales are multiplied by so that its intervals hold what they say
        (`training.temperature`); of an ensemble its mixture's. It is part of the network that is opened and exported; None,
        as in csbdeep's folders, is 1. Training ignores it.
    seed : int
        Every random draw of training comes from it: first weights, order of patches, augmentation.
    train_schedule : {"plateau", "cosine", "linear"}
        How the learning rate falls: by `train_reduce_lr`, as half a cosine to zero at the last planned step, or in a line
        to zero over the second half of the steps.
    train_average : float
        Decay of an exponential average of the weights, 0-1, e.g. 0.999; it is what is validated and kept. 0: none.
    train_minutes : float, optional
        The wall time that `train_epochs` and `train_steps_per_epoch` were planned for; None: they were given.
    train_precision : {"float32", "bfloat16"}
    train_augment : tuple of str
        Any of `flips`, `rot90`, `intensity`; applied to batches.
    train_early_stopping : int, optional
        Stop after so many epochs without a better validation loss; None never stops early.
    train_loss_bg_thresh, train_loss_bg_decay : float
        Background-weighted loss as csbdeep's ``prepare_for_training``: pixels at most the threshold
        (normalised target, 0-1) are background; 0 is off.
    proj_axis, proj_n_depth, proj_n_filt, proj_n_conv_per_depth, proj_kern, proj_pool
        The projecting part of ProjectionCARE; None for the other kinds.
    provenance : mapping
        What the model was made from: hashes of data, versions, preset.
    other : mapping
        Keys of other programs, found in a config.json and written back.

    Raises
    ------
    InputError
        One line a problem; an unknown key comes with the nearest known one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axes: str = "YXC"
    n_channel_in: int = Field(1, ge=1, le=_MOST_CHANNELS)
    n_channel_out: int = Field(1, ge=1, le=_MOST_CHANNELS)
    probabilistic: bool = False
    kind: Kind = KIND
    architecture: Architecture = ARCHITECTURE
    method: Method = METHOD
    means: tuple[float, ...] | None = None
    stds: tuple[float, ...] | None = None
    factor: float | None = Field(None, gt=0, allow_inf_nan=False)

    unet_residual: bool
    unet_n_depth: int = Field(ge=1, le=_MOST_LEVELS)
    unet_kern_size: Sizes
    unet_pool: tuple[int, ...]
    unet_n_first: int = Field(32, ge=1)
    unet_last_activation: Literal["linear", "relu"] = "linear"
    unet_batch_norm: bool = False
    unet_blurpool: bool | Literal["n2v"] = False
    unet_narrow_up: bool = False
    unet_per_channel: bool = False
    unet_top_skip: bool = True
    unet_input_shape: tuple[int | None, ...]

    n2v_perc_pix: float = Field(1.5, gt=0, le=_MOST_BLIND, allow_inf_nan=False)
    n2v_manipulator: Manipulator = "uniform_withCP"
    n2v_neighborhood_radius: int = Field(5, ge=1, le=_MOST_KERNEL)
    n2v_structmask: Any = None
    n2v_patch_shape: tuple[int, ...] | None = None

    resnet_n_blocks: int = Field(6, ge=0, le=_MOST_LEVELS)
    resnet_skips: bool = True
    resnet_norm: Literal["none", "instance"] = "none"
    gan_loss: Literal["lsgan", "bce", "wgan-gp"] = "lsgan"
    gan_adversarial: float = Field(0.1, ge=0, allow_inf_nan=False)
    gan_l1: float = Field(10.0, ge=0, allow_inf_nan=False)
    gan_content: float = Field(1.0, ge=0, allow_inf_nan=False)
    gan_content_net: Literal["encoder", "filters", "random_vgg", "vgg16"] = "encoder"
    gan_vgg_file: str | None = None
    gan_vgg_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    gan_content_steps: int = Field(200, ge=1)
    gan_critic_n_first: int = Field(32, ge=1, le=_MOST_CHANNELS)
    gan_critic_n_depth: int = Field(3, ge=1, le=_MOST_LEVELS)
    gan_critic_steps: int = Field(1, ge=1, le=_MOST_LEVELS)
    gan_critic_conditional: bool = True
    gan_freeze: float = Field(0.5, gt=0, le=1)
    gan_cycle: float = Field(0.0, ge=0, allow_inf_nan=False)
    gan_identity: float = Field(0.0, ge=0, allow_inf_nan=False)
    gan_pool: int = Field(0, ge=0, le=_MOST_KERNEL)
    gan_saliency: float = Field(0.0, ge=0, allow_inf_nan=False)
    gan_slope: float = Field(20.0, gt=0, allow_inf_nan=False)
    gan_thresholds: tuple[float, float] | None = None
    gan_style: float = Field(0.0, ge=0, allow_inf_nan=False)
    gan_noise: float = Field(0.0, ge=0, allow_inf_nan=False)
    gan_defects: tuple[str, ...] = ()

    train_loss: Literal["mae", "mse", "laplace"]
    train_epochs: int = Field(100, ge=1)
    train_steps_per_epoch: int = Field(400, ge=1)
    train_learning_rate: float = Field(4e-4, gt=0, allow_inf_nan=False)
    train_batch_size: int = Field(16, ge=1)
    train_tensorboard: bool = False
    train_checkpoint: str | None = "weights_best.h5"
    train_checkpoint_last: str | None = "weights_last.h5"
    train_checkpoint_epoch: str | None = "weights_now.h5"
    train_reduce_lr: dict[str, Any] | None = Field(
        default_factory=lambda: {"factor": 0.5, "patience": 10, "min_delta": 0}
    )

    norm_pmin: float = Field(PMIN, ge=0, le=100)
    norm_pmax: float = Field(PMAX, ge=0, le=100)
    temperature: float | None = Field(None, gt=0, allow_inf_nan=False)
    seed: int = Field(SEED, ge=0)
    target_scale: TargetScale = "own"
    train_schedule: Literal["plateau", "cosine", "linear"] = "plateau"
    train_average: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    train_minutes: float | None = Field(None, gt=0, allow_inf_nan=False)
    train_precision: Literal["float32", "bfloat16"] = PRECISION
    train_augment: tuple[Literal["flips", "rot90", "intensity"], ...] = ()
    train_early_stopping: int | None = Field(None, ge=1)
    train_loss_bg_thresh: float = Field(0.0, ge=0, le=1)
    train_loss_bg_decay: float = Field(0.06, ge=0, allow_inf_nan=False)

    proj_axis: str | None = None
    proj_n_depth: int | None = Field(None, ge=1, le=_MOST_LEVELS)
    proj_n_filt: int | None = Field(None, ge=1)
    proj_n_conv_per_depth: int | None = Field(None, ge=1, le=_MOST_LEVELS)
    proj_kern: tuple[int, ...] | None = None
    proj_pool: tuple[int, ...] | None = None

    provenance: dict[str, Any] = Field(default_factory=dict)
    other: dict[str, Any] = Field(default_factory=dict)

    def __init__(
        self, axes: str = "YX", n_channel_in: int = 1, n_channel_out: int = 1, **values: Any
    ) -> None:
        values.pop("n_dim", None)  # csbdeep writes it, and derives it from the axes all the same
        unknown = sorted(set(values) - set(type(self).model_fields))
        if unknown:
            raise InputError("\n".join(_unknown(key) for key in unknown))
        values = {"axes": axes, "n_channel_in": n_channel_in, "n_channel_out": n_channel_out, **values}
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError("\n".join(_explain(problem) for problem in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(values["axes"], str):
            raise ValueError(f"axes={text.shown(values['axes'])}: give letters, e.g. 'YX'")
        axes = check_axes(values["axes"]).replace("S", "")
        values["axes"] = axes if "C" in axes else axes + "C"
        n_dim = len(values["axes"]) - 1
        channels = values["n_channel_in"]
        blind = values.get("method") == "n2v"
        values = {**_USUAL.get(str(values.get("method")), {}), **values}
        values.setdefault("unet_residual", channels == values["n_channel_out"] and not blind)
        plain = values.get("architecture", ARCHITECTURE) == ARCHITECTURE
        values.setdefault("unet_n_depth", 3 if values.get("architecture") == "fast" else 2)
        values.setdefault("unet_kern_size", 5 if n_dim == 2 and plain and not blind else 3)
        values.setdefault(
            "train_loss", "mse" if blind else "laplace" if values.get("probabilistic") else "mae"
        )
        values.setdefault("unet_input_shape", (None,) * n_dim + (channels,))
        provenance = values.get("provenance")
        made_of = provenance.get("data") if isinstance(provenance, Mapping) else None
        if isinstance(made_of, Mapping) and "target_scale" in made_of:
            values.setdefault("target_scale", made_of["target_scale"])
        if values.get("kind") == "ProjectionCARE":
            where = values.setdefault("proj_axis", "Z")
            space = values["axes"].replace("C", "")
            values.setdefault("proj_n_depth", 4)
            values.setdefault("proj_n_filt", 8)
            values.setdefault("proj_n_conv_per_depth", 1)
            values.setdefault("proj_kern", (3,) * n_dim)
            values.setdefault("proj_pool", tuple(1 if letter == where else 2 for letter in space))
            n_dim -= 1
        if values.get("unet_pool") is None:
            values["unet_pool"] = (2,) * n_dim
        return values

    @field_validator("train_reduce_lr")
    @classmethod
    def _numbers(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        for key, value in (values or {}).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if key in ("factor", "patience", "min_delta", "epsilon", "cooldown", "min_lr") and not number:
                raise ValueError(f"{key} must be a number; received {text.shown(value)}")
        return values

    @field_validator("train_checkpoint", "train_checkpoint_last", "train_checkpoint_epoch")
    @classmethod
    def _in_the_folder(cls, name: str | None) -> str | None:
        if name is not None and (name in ("", ".", "..") or set(name) & set("/\\\0")):
            raise ValueError("give a file's name alone, e.g. weights_best.h5: it lies in the model's folder")
        return name

    @field_validator("n2v_structmask")
    @classmethod
    def _mask(cls, mask: Any) -> Any:
        if mask is None:
            return None
        try:
            shape, found = _mask_of(mask)
        except (TypeError, ValueError):
            raise ValueError("give nested lists of 0 and 1, one list a row, e.g. [[1, 1, 1, 1, 1]]") from None
        if not all(size % 2 for size in shape):
            raise ValueError(f"its sizes {shape} must be odd, so that the blind spot is its middle")
        return found

    @field_validator("axes")
    @classmethod
    def _net_axes(cls, axes: str) -> str:
        if not {"Y", "X"} <= set(axes):
            raise ValueError(f"{axes!r} lacks Y or X; a network needs both")
        if {"Z", "T"} <= set(axes):
            raise ValueError(f"{axes!r} holds Z and T; a network takes one of them, e.g. 'ZYX'")
        if axes[-1] != "C":
            raise ValueError(f"{axes!r} must end with C; channels are last")
        return axes

    @model_validator(mode="after")
    def _agree(self) -> CareConfig:
        n_space = self.n_dim - (self.kind == "ProjectionCARE")
        if isinstance(self.unet_kern_size, tuple) and len(self.unet_kern_size) != n_space:
            raise ValueError(
                f"unet_kern_size={self.unet_kern_size} needs {n_space} numbers for axes {self.axes!r}"
            )
        largest = max((*self.kernel, *self.unet_pool, *(self.proj_kern or ()), *(self.proj_pool or ())))
        if largest > _MOST_KERNEL:
            raise ValueError(f"a kernel or pooling of {largest} pixels is larger than any network's")
        even = [size for size in self.kernel if size < 1 or size % 2 == 0]
        if even:
            raise ValueError(f"unet_kern_size={self.unet_kern_size} must be odd, e.g. 3 or 5")
        if len(self.unet_pool) != n_space or min(self.unet_pool) < 1:
            raise ValueError(
                f"unet_pool={self.unet_pool} needs {n_space} numbers of at least 1, e.g. (1, 2, 2)"
            )
        if self.unet_residual and self.n_channel_in != self.n_channel_out:
            raise ValueError(
                f"unet_residual needs as many channels out ({self.n_channel_out}) as in ({self.n_channel_in})"
            )
        if (self.train_loss == "laplace") != self.probabilistic:
            raise ValueError(
                f"train_loss={self.train_loss!r} does not go with probabilistic={self.probabilistic}; "
                "'laplace' is the loss of probabilistic networks, 'mae' and 'mse' of the others"
            )
        if len(self.unet_input_shape) != len(self.axes) or self.unet_input_shape[-1] != self.n_channel_in:
            raise ValueError(
                f"unet_input_shape={self.unet_input_shape} must have {self.n_dim} sizes (None is free) and "
                f"{self.n_channel_in} channels for axes {self.axes!r}"
            )
        if self.weight_bytes > _BYTES_OF_NO_MACHINE:
            raise ValueError(too_large(self))
        if self.norm_pmin >= self.norm_pmax:
            raise ValueError(f"norm_pmin={self.norm_pmin} must be below norm_pmax={self.norm_pmax}")
        if self.kind == "ProjectionCARE":
            self._check_projection()
        elif any(getattr(self, key) is not None for key in _PROJECTION):
            raise ValueError(f"proj_axis and its like belong to kind='ProjectionCARE', not to {self.kind!r}")
        if self.temperature is not None and not self.probabilistic:
            raise ValueError(
                f"temperature={self.temperature:g} is of the scales of probabilistic networks; this one has none"
            )
        self._check_scale()
        self._check_variants()
        if self.method == "n2v":
            self._check_blind_spots()
        if self.method in GANS:
            self._check_gan()
        if self.architecture == "resnet" and (
            self.kind != KIND
            or self.probabilistic
            or any((self.unet_blurpool, self.unet_batch_norm, self.unet_narrow_up, self.unet_per_channel))
            or not self.unet_top_skip
            or self.means
        ):
            raise ValueError(
                f"architecture 'resnet' is for {KIND} networks that are not probabilistic, and has no pooling to blur, no "
                "skip connection to leave out, no batch normalisation and no mean of its own; use 'care'"
            )
        if self.kind == "IsotropicCARE" and self.n_dim != 2:
            raise ValueError(f"an IsotropicCARE network is 2-D, but axes={self.axes!r}")
        if self.kind == "UpsamplingCARE" and "Z" not in self.axes:
            raise ValueError(f"an UpsamplingCARE network upsamples Z, but axes={self.axes!r}")
        return self

    def _check_scale(self) -> None:
        if (self.means is None) != (self.stds is None):
            raise ValueError("means and stds go together: give both, or neither")
        if self.means is None or self.stds is None:
            return
        if not len(self.means) == len(self.stds) == self.n_channel_in == self.n_channel_out:
            raise ValueError(
                f"means {self.means} and stds {self.stds} must have a number for each of the {self.n_channel_in} channels "
                "that go in, and as many channels must come out"
            )
        if not all(map(math.isfinite, (*self.means, *self.stds))) or min(self.stds) <= 0:
            raise ValueError(f"means {self.means} must be finite, and stds {self.stds} above 0")
        if self.probabilistic or self.kind != KIND:
            raise ValueError(f"means and stds are for {KIND} networks that are not probabilistic")

    def _check_variants(self) -> None:
        if self.unet_blurpool == n2v_keys.BLURPOOL and (self.n_dim != 2 or set(self.unet_pool) != {2}):
            raise ValueError("unet_blurpool 'n2v' is for 2-D networks with unet_pool (2, 2); True blurs any")
        several = self.kind != KIND or self.architecture != ARCHITECTURE or self.probabilistic
        if self.unet_per_channel and (several or self.n_channel_in != self.n_channel_out):
            raise ValueError(
                f"unet_per_channel is for {KIND} networks of architecture {ARCHITECTURE!r} that are not probabilistic and "
                "give back the channels that go in"
            )

    def _check_blind_spots(self) -> None:
        if self.kind != KIND or self.probabilistic:
            raise ValueError(f"method 'n2v' trains {KIND} networks that are not probabilistic")
        if self.n_channel_in != self.n_channel_out:
            raise ValueError(
                f"method 'n2v' restores the channels that it sees: {self.n_channel_in} in, {self.n_channel_out} out"
            )
        if self.train_loss_bg_thresh:
            raise ValueError("train_loss_bg_thresh weighs a target's background; method 'n2v' has no targets")
        if "intensity" in self.train_augment:
            raise ValueError("train_augment 'intensity' is for percentiles, which method 'n2v' does not use")
        patch = self.n2v_patch_shape
        if patch is not None and (len(patch) != self.n_dim or min(patch) < 1):
            raise ValueError(f"n2v_patch_shape={patch} needs {self.n_dim} numbers of at least 1")
        shape = () if self.n2v_structmask is None else _mask_of(self.n2v_structmask)[0]
        if shape and len(shape) != self.n_dim:
            raise ValueError(
                f"n2v_structmask has {len(shape)} dimensions; axes {self.axes!r} need {self.n_dim}, channels left out"
            )

    def _check_gan(self) -> None:
        if self.n_dim != 2:
            raise ValueError(
                f"method {self.method!r} trains 2-D networks, but axes={self.axes!r}; give axes 'YX' (--network-axes YX) to "
                "learn from single planes"
            )
        if self.kind != KIND or self.probabilistic or self.means:
            raise ValueError(f"method {self.method!r} trains {KIND} networks that are not probabilistic")
        if self.train_loss_bg_thresh:
            raise ValueError(
                f"train_loss_bg_thresh belongs to other losses than those of method {self.method!r}"
            )
        if (self.gan_content_net == "vgg16") != (self.gan_vgg_file is not None):
            raise ValueError(
                "gan_content_net='vgg16' and gan_vgg_file go together: a file of VGG16's weights, which must be here"
            )
        if self.method == "cin-gan" and (self.n_channel_in != self.n_channel_out + 1 or self.unet_residual):
            raise ValueError(
                "method 'cin-gan' takes an image and a channel of noise, which is added to nothing: one channel more "
                "goes in than comes out, and unet_residual is off"
            )
        if self.method == "cin-gan" and (self.resnet_norm != "instance" or self.architecture != "resnet"):
            raise ValueError(
                "method 'cin-gan' tells defects apart by instance normalisation; leave resnet_norm and architecture"
            )
        if self.method in UNPAIRED:
            self._check_unpaired()
        elif not (self.gan_adversarial or self.gan_l1 or self.gan_content):
            raise ValueError("gan_adversarial, gan_l1 and gan_content are all 0: nothing is left to learn by")

    def _check_unpaired(self) -> None:
        if self.n_channel_in != self.n_channel_out:
            raise ValueError(
                f"method {self.method!r} goes there and back again, but {self.n_channel_in} channels go in and "
                f"{self.n_channel_out} come out; give as many"
            )
        if self.gan_l1:
            raise ValueError(f"gan_l1 needs pairs, which method {self.method!r} has none of; leave it at 0")
        if not (self.gan_adversarial and self.gan_cycle):
            raise ValueError(
                f"method {self.method!r} learns by gan_adversarial and gan_cycle; neither may be 0"
            )
        if (self.method == "c2gan") != bool(self.gan_saliency):
            raise ValueError(
                f"gan_saliency={self.gan_saliency:g} does not go with method {self.method!r}: it makes c2gan of cyclegan"
            )
        if self.target_scale != "own":
            raise ValueError(
                f"target_scale={self.target_scale!r} needs pairs; method {self.method!r} has its images' own"
            )

    def _check_projection(self) -> None:
        if self.n_dim != 3:
            raise ValueError(f"a ProjectionCARE network takes stacks, but axes={self.axes!r}; use e.g. 'ZYX'")
        if self.proj_axis is None or self.proj_axis not in self.axes.replace("C", ""):
            raise ValueError(f"proj_axis={self.proj_axis!r} is no space axis of {self.axes!r}")
        for name, sizes in (("proj_kern", self.proj_kern), ("proj_pool", self.proj_pool)):
            if sizes is None or len(sizes) != 3 or min(sizes) < 1:
                raise ValueError(f"{name}={sizes} needs 3 numbers of at least 1")

    @property
    def n_dim(self) -> int:
        """Space (and time) axes of the input: 2 or 3."""
        return len(self.axes) - 1

    @property
    def axes_out(self) -> str:
        """Axes of the network's output: those of the input, less a projected one."""
        return self.axes.replace(self.proj_axis, "") if self.proj_axis else self.axes

    @property
    def n_channel_predicted(self) -> int:
        """Channels of the network's output tensor: means, and as many scales when probabilistic."""
        return self.n_channel_out * (2 if self.probabilistic else 1)

    @property
    def n_channel_target(self) -> int:
        """Channels of what training holds the output against: Noise2Void's has a mask behind every channel."""
        return self.n_channel_out * (2 if self.method == "n2v" else 1)

    @property
    def own_scale(self) -> OwnNormalisation | None:
        """The mean and standard deviation that the network has of its own; None where percentiles are used."""
        if self.means is None or self.stds is None:
            return None
        return OwnNormalisation(self.means, self.stds, "config.json")

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel of the U-Net, a number for each space axis of its output."""
        if isinstance(self.unet_kern_size, tuple):
            return self.unet_kern_size
        return (self.unet_kern_size,) * (len(self.axes_out) - 1)

    @property
    def stride(self) -> tuple[int, ...]:
        """How much coarser than the image the U-Net works, a number for each space axis of its output."""
        fast = self.architecture == "fast"
        return tuple(2 if fast and letter in "YX" else 1 for letter in self.axes_out.replace("C", ""))

    @property
    def weight_bytes(self) -> int:
        """Memory that the U-Net's weights take, about; training takes four times as much, and the images."""
        area, features = math.prod(self.kernel), self.unet_n_first
        if self.architecture == "resnet":
            wide = math.prod(2 * size + 1 for size in self.kernel)
            between = sum(
                (4 + self.resnet_skips) * (features << level) ** 2 for level in range(self.unet_n_depth)
            )
            blocks = 2 * self.resnet_n_blocks * (features << self.unet_n_depth) ** 2
            return 4 * (
                wide * features * (self.n_channel_in + self.n_channel_out) + area * (between + blocks)
            )
        # The first convolution of the fast network looks at whole blocks of pixels.
        count = self.n_channel_in * self.unet_n_first * math.prod(self.stride)
        for level in range(self.unet_n_depth):
            here = features << level
            # Down: twice a convolution; up: one of both halves together, one back. The lowest level lies in between.
            count += here * here * (1 + 2 + 2 + 1)
        return 4 * area * count * (self.n_channel_in if self.unet_per_channel else 1)

    @property
    def size_multiple(self) -> dict[str, int]:
        """For each letter of `axes`: the network takes sizes that are a multiple of it."""
        unet = dict(zip(self.axes_out, self.unet_pool, strict=False))
        multiple = {
            letter: stride * pool**self.unet_n_depth
            for (letter, pool), stride in zip(unet.items(), self.stride, strict=True)
        }
        if self.proj_pool is not None and self.proj_n_depth is not None:
            for letter, pool in zip(self.axes, self.proj_pool, strict=False):
                multiple[letter] = max(pool**self.proj_n_depth, multiple.get(letter, 1))
        return {letter: multiple.get(letter, 1) for letter in self.axes}

    @property
    def halo(self) -> dict[str, int]:
        """For each letter of `axes`: how many pixels to a side an output pixel can depend on (0 for C).

        A projected axis has 0: it is never cut. csbdeep takes the larger of both parts of a ProjectionCARE
        network; they follow one another, so here they add up.
        """
        space = self.axes_out.replace("C", "")
        halo = receptive_field(
            n_depth=self.unet_n_depth,
            kern_size=self.kernel,
            pool=self.unet_pool,
            n_conv_per_depth=1 if self.architecture == "resnet" else 2,
            axes=space,
        )
        if self.architecture == "resnet":
            # That counts one convolution each for going down and up, and one on the lowest level, which has two a block.
            for letter, size, pool in zip(space, self.kernel, self.unet_pool, strict=True):
                lowest = (2 * self.resnet_n_blocks - 1) * (size // 2) * pool**self.unet_n_depth
                halo[letter] += lowest + 2 * size
        if self.unet_blurpool:
            # Two windows of three pixels before each pooling, on the way down only.
            for letter, pool in zip(space, self.unet_pool, strict=True):
                more = sum(2 * pool**level for level in range(self.unet_n_depth)) if pool > 1 else 0
                halo[letter] += more
        # In blocks of the stride; from one end of its own block to the far end of the last.
        halo = {
            letter: stride * (halo[letter] + 1) - 1 for letter, stride in zip(space, self.stride, strict=True)
        }
        if self.proj_axis and self.proj_kern and self.proj_pool:
            projecting = receptive_field(
                n_depth=self.proj_n_depth or 4,
                kern_size=self.proj_kern,
                pool=self.proj_pool,
                n_conv_per_depth=self.proj_n_conv_per_depth or 1,
                axes=self.axes,
            )
            last = dict(zip(self.axes, self.proj_kern, strict=False))
            halo = {letter: size + projecting[letter] + last[letter] // 2 for letter, size in halo.items()}
        return {letter: halo.get(letter, 0) for letter in self.axes}

    def replace(self, **changes: Any) -> CareConfig:
        """The same settings with some changed; checked again."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return CareConfig(**(kept | changes))

    def to_json(self) -> dict[str, Any]:
        """Content of config.json: csbdeep's keys, then our own block.

        csbdeep refuses keys that it does not know unless `allow_new_parameters` is set. It is, so that
        csbdeep opens the folder, except where it would build another network unawares (`unet_pool`, `architecture`).
        """
        values = self.model_dump(mode="json")
        other = values.pop("other")
        block = {"format_version": FORMAT_VERSION}
        block |= {key: values.pop(name) for name, key in _OWN.items()}
        if self.temperature is None:
            del block["temperature"]
        method = values.pop("method")
        blind = {key: values.pop(name) for name, key in _OWN_N2V.items()}
        gan = {key: values.pop(name) for name, key in _OWN_GAN.items()}
        if method != METHOD:
            block["method"] = method
        if any(getattr(self, name) != type(self).model_fields[name].default for name in _OWN_N2V):
            block |= blind
        if method in GANS or self.architecture == "resnet":
            block |= gan
        if self.kind != "ProjectionCARE":
            for key in _PROJECTION:
                del values[key]
        # csbdeep would build another network, or feed percentiles to one that has a mean and a deviation.
        ours = (
            self.architecture != ARCHITECTURE
            or any((self.unet_blurpool, self.unet_batch_norm, self.unet_narrow_up, self.unet_per_channel))
            or not self.unet_top_skip
            or self.means is not None
        )
        plain = set(self.unet_pool) == {2} and not ours
        told = {CSBDEEP_CANNOT: True} if ours else {}
        if n2v_keys.builds(vars(self)):
            values |= n2v_keys.keys_of(vars(self), self.n2v_patch_shape or self._patch_size)
        return {"n_dim": self.n_dim, **values, **other, **told, "allow_new_parameters": plain, BLOCK: block}

    @property
    def _patch_size(self) -> list[int]:
        """Of the patches that were trained on, where the provenance tells; else n2v's usual."""
        made_of = self.provenance.get("data")
        given = made_of.get("patch_size") if isinstance(made_of, Mapping) else None
        return list(given) if isinstance(given, list | tuple) else [64] * self.n_dim


TARGET_SCALES: Mapping[TargetScale, str] = {
    "source": "targets by the percentiles of their source: the output lies on the input's grey levels",
    "fitted": "targets fitted to their normalised source: the output lies on the input's grey levels",
    "own": "source and target each by their own percentiles, as csbdeep does: the output's contrast is the target's",
}
"""What each `target_scale` means, for what people read."""


def too_large(config: CareConfig) -> str:
    """What to say of a network that is larger than memory."""
    return (
        f"unet_n_depth={config.unet_n_depth}, unet_n_first={config.unet_n_first} and unet_kern_size="
        f"{config.unet_kern_size} make a network whose weights alone take {config.weight_bytes / 1e9:,.0f} GB; use "
        "smaller ones, e.g. 2, 32 and 5"
    )


def read_config(path: str | os.PathLike[str]) -> CareConfig:
    """Settings of a model folder: ours, csbdeep's or n2v's.

    Parameters
    ----------
    path : path
        The folder or its config.json.

    Returns
    -------
    CareConfig
        Keys that neither csbdeep nor we know are kept in `other`. csbdeep does not write its class; a folder
        with projection keys is a ProjectionCARE, any other a CARE.

    Raises
    ------
    InputError
        If there is no config.json, or it is not JSON, or a value is impossible, or it has a mean and a standard deviation
        where csbdeep's have percentiles and is not of Noise2Void.

    Warns
    -----
    UserWarning
        If an unknown key looks like a misspelt one.
    """
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    try:
        content = text.read(file, "JSON")
    except FileNotFoundError:
        folder = file.parent if file.name == "config.json" else file
        raise InputError(
            f"no config.json in {str(folder)!r}; a model folder holds config.json and weights_*.h5"
        ) from None
    return config_of(content, name=repr(str(file)))


def _of_noise2void(content: dict[str, Any], block: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same under our names where it is of n2v; where it is ours, without what is there for n2v alone."""
    if not n2v_keys.is_of_n2v(content):
        mean, std = (content.get(key, content.get(f"{key}s")) for key in ("mean", "std"))
        if mean is None or std is None:
            return content
        raise InputError(
            f"{name} has a mean and a standard deviation of its own ({text.shown(mean)} and {text.shown(std)}), but no "
            "n2v_... of Noise2Void: percentiles would feed its network another scale; restore with the program that "
            "trained it"
        )
    if "method" not in block:
        n2v_keys.check_channels(content, name)
        return n2v_keys.settings_of(content, name)
    return {
        key: value
        for key, value in content.items()
        if key not in n2v_keys.NAMES and key not in n2v_keys.OTHERS
    }


def config_of(content: Any, *, name: str) -> CareConfig:
    """Settings from what a config.json says; see `read_config`.

    Parameters
    ----------
    content : object
        As `text.read` gives it.
    name : str
        Where it stands, for messages.
    """
    if not isinstance(content, dict):
        raise InputError(f"{name} holds {type(content).__name__}, not settings; it is no model's config.json")
    content = dict(content)
    block = content.pop(BLOCK, {})
    if not isinstance(block, dict):
        raise InputError(
            f"{name}: {BLOCK} is {text.shown(block)}; it must be a block of keys and values, or be left out"
        )
    content = _of_noise2void(content, block, name)
    content.pop("allow_new_parameters", None)
    content.pop(CSBDEEP_CANNOT, None)
    version = block.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"{name} has format version {text.shown(version)}; this care_bridge reads up to {FORMAT_VERSION}"
        )
    values = {
        key: value for key, value in content.items() if key in CareConfig.model_fields or key == "n_dim"
    }
    other = {key: value for key, value in content.items() if key not in values}
    for key in other:
        near = _nearest(key)
        if near and near not in values:
            warnings.warn(f"{name}: key {key!r} is not known and was ignored; is it {near!r}?", stacklevel=2)
    if any(key in values for key in _PROJECTION):
        values["kind"] = "ProjectionCARE"
    values |= {name: block[key] for name, key in _KEYS.items() if key in block}
    try:
        return CareConfig(**values, other=other)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def write_config(path: str | os.PathLike[str], config: CareConfig) -> None:
    """Write config.json into a model folder, whole or not at all."""
    write_text(Path(path) / "config.json", json.dumps(config.to_json(), indent=1) + "\n")


def _mask_of(mask: Any) -> tuple[tuple[int, ...], Any]:
    """Shape of nested lists of 0 and 1, and the same as tuples; ValueError for anything else."""
    if isinstance(mask, int) and not isinstance(mask, bool) and mask in (0, 1):
        return (), mask
    if not isinstance(mask, list | tuple) or not mask:
        raise ValueError
    parts = [_mask_of(one) for one in mask]
    if len({shape for shape, _ in parts}) != 1:
        raise ValueError
    return (len(parts), *parts[0][0]), tuple(found for _, found in parts)


def _nearest(key: str) -> str | None:
    known = [name for name in CareConfig.model_fields if name != "other"]
    found = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return found[0] if found else None


def _unknown(key: str) -> str:
    near = _nearest(key)
    hint = f"did you mean {near!r}?" if near else "see CareConfig for the known ones"
    return f"unknown setting {key!r}; {hint}"


def _explain(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in problem["loc"][:1])
    if not where:
        return message
    message = message[0].lower() + message[1:]
    return (
        f"{where}={text.shown(problem['input'], 200)}: {message}"
        if problem["type"] != "missing"
        else f"{where} is missing"
    )
