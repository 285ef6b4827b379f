"""What is known about a model, for `config.bioimageio`: from its training, from measuring, from model.toml.

Nothing is guessed: a key that nobody stated and nothing measured is left out, and `to_fill` names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.config import GANS, CareConfig
from care_bridge.errors import InputError
from care_bridge.export.metadata import ModelCard
from care_bridge.export.source import Source
from care_bridge.page import NOT_FOR_QUANTIFICATION
from care_bridge.words import counted

TOLERANCE_FACTOR = 10
"""How much more than the largest difference seen between weights formats a reader may find."""

TOLERANCE_FLOOR = 2e-5
"""Smallest tolerance, in parts of the output's range: what processors and threads make of one network."""

TO_FILL = {
    "version": ("version", "of the model, e.g. 1.0.0"),
    "version_comment": ("version_comment", "what is new in it"),
    "packaged_by": ("packaged_by", "[[packaged_by]] with a name: who made this package"),
    "git_repo": ("git_repo", "address of the code"),
    "uploader": ("uploader", '{ email = "..." }'),
    "training_data": ("training_data", '{ id = "...", source = "https://..." }: the published data set'),
    "parent": ("parent", '{ id = "..." }, if it was fine-tuned from a model of the zoo'),
    "funded_by": ("config.bioimageio.funded_by", "agency and grant"),
    "memory_requirements_training": ("config.bioimageio.memory_requirements_training", "as seen"),
    "evaluations": (
        "config.bioimageio.evaluations",
        "or training_data with id and source, and training by care-bridge or --ground-truth",
    ),
    "training.training_duration": ("config.bioimageio.training.training_duration", "hours"),
    "training.training_preprocessing": (
        "config.bioimageio.training.training_preprocessing",
        "normalisation and augmentation",
    ),
    "environmental_impact.hardware_type": (
        "config.bioimageio.environmental_impact.hardware_type",
        "what it was trained on",
    ),
    "environmental_impact.cloud_provider": (
        "config.bioimageio.environmental_impact.cloud_provider",
        "or own hardware",
    ),
    "environmental_impact.compute_region": (
        "config.bioimageio.environmental_impact.compute_region",
        "where it stood",
    ),
    "environmental_impact.co2_emitted": ("config.bioimageio.environmental_impact.co2_emitted", "kg"),
}
"""Keys of model.toml that only people know: where they go in the description, and what they hold."""


def to_fill(rdf: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of model.toml that would make a description more complete, each with what to write."""

    def missing(path: str) -> bool:
        value: Any = rdf
        for key in path.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return True
            value = value[key]
        return False

    return tuple(f"{key}: {hint}" for key, (path, hint) in TO_FILL.items() if missing(path))


def architecture(source: Source) -> str:
    """One line: the U-Net and its size."""
    config = source.config
    if config is None:
        return f"fully convolutional Keras model {source.name}"
    of = f"U-Net of CSBDeep ({config.kind})"
    if config.architecture == "fast":
        of = f"U-Net ({config.kind}) at half the resolution along Y and X"
    if config.method == "n2v":
        blurred = " with blurred pooling and no finest skip connection" if config.unet_blurpool else ""
        of = f"{of}{blurred}, trained by Noise2Void"
    if config.architecture == "resnet":
        of = f"network of {counted(config.resnet_n_blocks, 'residual block')}"
        if config.resnet_norm == "instance" and config.method in GANS:
            of += ", normalised by statistics of the training patches"
    if config.method in GANS:
        of = f"{of}, trained with a critic ({config.method})"
    return (
        f"{'residual ' if config.unet_residual else ''}{of}, depth "
        f"{config.unet_n_depth}, kernel {config.unet_kern_size}, {config.unet_n_first} features at first"
    )


def history(source: Source) -> list[dict[str, float]]:
    """Rows of training/history.csv; empty where the model has none."""
    from care_bridge.training.history import read_history

    if source.path is None or not source.path.is_dir():
        return []
    try:
        return read_history(source.path)
    except (InputError, ValueError):
        return []


def training(source: Source, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """How it was trained, in the zoo's keys: settings of config.json, duration and epochs of history.csv."""
    config = source.config
    if config is None:
        return {}
    schedule = (
        "constant" if not config.train_reduce_lr else f"on plateau: {json.dumps(config.train_reduce_lr)}"
    )
    if config.train_schedule == "cosine":
        schedule = "cosine, to zero at the last step"
    elif config.train_schedule == "linear":
        schedule = "constant for half the steps, then in a line to zero at the last"
    kept = "the weights of the best validation loss"
    if config.train_average:
        kept += f", each the exponential average of the last steps (decay {config.train_average:g})"
    known: dict[str, Any] = {
        "training_epochs": float(len(rows) or config.train_epochs),
        "training_batch_size": float(config.train_batch_size),
        "initial_learning_rate": config.train_learning_rate,
        "learning_rate_schedule": schedule,
        "loss_function": config.train_loss,
        "optimizer": "adam",
        "optimizer_kwargs": {"learning_rate": config.train_learning_rate},
        "regularization": f"none: no dropout, no weight decay; {kept}",
        "loss_function_kwargs": {},
    }
    if config.method in GANS:
        known["loss_function"] = f"{config.gan_loss} critic, features ({config.gan_content_net}) and mae"
        known["loss_function_kwargs"] = {
            "adversarial": config.gan_adversarial,
            "content": config.gan_content,
            "mae": config.gan_l1,
        }
        known["optimizer_kwargs"]["beta_1"] = 0.5
    if config.train_loss_bg_thresh:
        known["loss_function_kwargs"] = {
            "background_threshold": config.train_loss_bg_thresh,
            "background_decay": config.train_loss_bg_decay,
        }
    made_of = _data(config)
    if "patch_size" in made_of:
        size = "x".join(str(pixels) for pixels in made_of["patch_size"])
        augmented = ", ".join(config.train_augment) or "none"
        scale = f"by percentiles (target scale: {config.target_scale})"
        if config.own_scale is not None:
            scale = "by the mean and standard deviation of the training pixels"
        if config.method == "n2v":
            scale += f", blind spots ({config.n2v_manipulator}) in {config.n2v_perc_pix:g} % of them"
        known["training_preprocessing"] = (
            f"patches of {size} pixels, normalised {scale}: "
            f"{made_of.get('n_training', 'new ones each step')} for training, "
            f"{made_of.get('n_validation', '?')} for validation ({made_of.get('split', 'split not recorded')}); "
            f"augmentation: {augmented}"
        )
    if rows:
        known["training_duration"] = round(sum(row["seconds"] for row in rows) / 3600, 4)
    return known


def _units(source: Source) -> str:
    own = source.config.own_scale if source.config else None
    return "units of the normalised input" if own is None else "grey levels of the input"


def _data(config: CareConfig) -> dict[str, Any]:
    """What the training recorded: its own keys, and those of its data, which `care-bridge train` puts under "data"."""
    data = config.provenance.get("data")
    return {**config.provenance, **(data if isinstance(data, Mapping) else {})}


def provenance(source: Source) -> dict[str, Any]:
    """Seed, versions and data of the training, as config.json has them; hashes a line a file."""
    config = source.config
    if config is None:
        return {}
    made_of = _data(config)
    known: dict[str, Any] = {
        "seed": config.seed,
        "steps_per_epoch": config.train_steps_per_epoch,
        "target_scale": config.target_scale,
    }
    for key in ("fingerprint", "versions", "notice"):
        if made_of.get(key):
            known[key] = made_of[key]
    for key in ("source", "target"):
        if isinstance(made_of.get(key), Mapping):
            known[f"{key}_sha256"] = [f"{digest}  {name}" for name, digest in made_of[key].items()]
    return known


# --- how good


def validation_result(source: Source, rows: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """Errors on the validation patches in the epoch whose weights were kept; None if never trained here."""
    if not rows or source.config is None:
        return None
    best = min(rows, key=lambda row: row["val_loss"])
    mae, mse = (float(f"{best[key]:.4g}") for key in ("val_mae", "val_mse"))
    return {
        "dataset_role": "validation",
        "sample_count": int(_data(source.config).get("n_validation", 0)),
        "evaluation_factors": ["validation"],
        "evaluation_factors_long": ["validation patches of the training data, best epoch"],
        "metrics": ["MAE", "MSE"],
        "metrics_long": [
            "mean absolute error of normalised intensities",
            "mean squared error of normalised intensities",
        ],
        "results": [[mae], [mse]],
        "results_summary": f"On the validation patches of training (epoch {best['epoch']:g}, the best): mean "
        f"absolute error {mae}, mean squared error {mse}, of normalised intensities. They chose the weights, so "
        "they flatter.",
    }


def test_result(
    candidates: Sequence[NDArray[np.float32]], truth: NDArray[np.float32], *, role: str
) -> dict[str, Any]:
    """PSNR of the test image before and after, against its ground truth.

    Parameters
    ----------
    candidates : sequence of ndarray
        The normalised input and the output.
    truth : ndarray
        Same shape, its 0.1 and 99.9 percentiles at 0 and 1.
    role : str
        Of the image, in the zoo's words; "unknown" if nobody said whether training saw it.
    """
    found = []
    for candidate in candidates:
        # Scale and offset are free between two normalisations: the best linear fit is compared.
        slope, offset = np.polyfit(candidate.ravel(), truth.ravel(), 1)
        error = float(np.mean((slope * candidate + offset - truth) ** 2))
        found.append(round(10 * float(np.log10(1 / max(error, 1e-12))), 2))
    return {
        "dataset_role": role,
        "sample_count": 1,
        "evaluation_factors": ["input", "restored"],
        "evaluation_factors_long": ["the test image", "the test image restored"],
        "metrics": ["PSNR"],
        "metrics_long": ["peak signal-to-noise ratio in dB, after the best linear fit to the ground truth"],
        "results": [found],
        "results_summary": f"On the test image (role: {role}): PSNR {found[0]} dB before and {found[1]} dB after "
        "restoration, against its ground truth, after the best linear fit.",
    }


def named(results: Sequence[Mapping[str, Any]], card: ModelCard) -> list[dict[str, Any]]:
    """Evaluations with the data set they are of; the zoo's format takes none without its id and address."""
    given = [dict(entry) for entry in card.more.get("evaluations", [])]
    data = card.more.get("training_data") or {}
    if not {"id", "source"} <= set(data):
        return given
    names = {"dataset_id": str(data["id"]), "dataset_source": str(data["source"])}
    return [*given, *({**names, **entry} for entry in results)]


def tolerance(output: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """What a reader may differ by: `TOLERANCE_FACTOR` times what the weights formats differ by here.

    Parameters
    ----------
    output : ndarray
        The test output.
    others : sequence of ndarray
        What the other weights formats make of the test input.

    Notes
    -----
    At least `TOLERANCE_FLOOR` of the output's range; at most a hundredth of its maximum, which is the zoo's
    limit.
    """
    seen = max((float(np.abs(other - output).max()) for other in others), default=0.0)
    allowed = max(TOLERANCE_FACTOR * seen, TOLERANCE_FLOOR * float(np.ptp(output)))
    allowed = min(allowed, 0.01 * float(np.abs(output).max()))
    return {
        "relative_tolerance": 0.0,
        "absolute_tolerance": float(f"{allowed:.2g}"),
        "mismatched_elements_per_million": 0,
    }


# --- the typed block


def bioimageio_block(
    source: Source,
    card: ModelCard,
    *,
    nickname: str,
    tolerances: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, float]],
    cost: Mapping[str, str],
) -> dict[str, Any]:
    """`config.bioimageio`: what model.toml says, else what is known, else nothing."""
    more = card.more
    trained = {**training(source, rows), **more.get("training", {})}
    impact = dict(more.get("environmental_impact", {}))
    if "training_duration" in trained:
        impact.setdefault("hours_used", trained["training_duration"])
    block: dict[str, Any] = {
        "nickname": nickname,
        "reproducibility_tolerance": [dict(entry) for entry in tolerances],
        "funded_by": more.get("funded_by"),
        "architecture_type": "U-Net" if source.config is not None else more.get("architecture_type"),
        "architecture_description": architecture(source),
        "modality": card.modality,
        "target_structure": more.get("target_structure", [card.content]),
        "task": card.task,
        "out_of_scope_use": more.get(
            "out_of_scope_use",
            "Other microscopes, stains, structures or noise levels than it was trained on. "
            + NOT_FOR_QUANTIFICATION,
        ),
        "bias_risks_limitations": {
            "known_biases": more.get(
                "known_biases", "It knows only structures like those of its training images."
            ),
            "risks": "A restoration network can draw plausible structure where the signal is too low.",
            "limitations": f"The output is in {_units(source)}. {NOT_FOR_QUANTIFICATION}",
            "recommendations": "Validate on pairs of your own data before drawing conclusions.",
        },
        "model_parameter_count": int(source.network.count_params()),
        "training": trained,
        "inference_time": more.get("inference_time", cost.get("inference_time")),
        "memory_requirements_inference": more.get(
            "memory_requirements_inference", cost.get("memory_requirements_inference")
        ),
        "memory_requirements_training": more.get("memory_requirements_training"),
        "environmental_impact": impact,
        "evaluations": [dict(entry) for entry in evaluations],
    }
    return {key: value for key, value in block.items() if value not in (None, {}, [])}
