"""What the package n2v writes into a model's config.json, and what its keys are called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from care_bridge import text
from care_bridge.errors import InputError

NAMES = {
    "batch_norm": "unet_batch_norm",
    "single_net_per_channel": "unet_per_channel",
    "structN2Vmask": "n2v_structmask",
    "n2v_perc_pix": "n2v_perc_pix",
    "n2v_manipulator": "n2v_manipulator",
    "n2v_neighborhood_radius": "n2v_neighborhood_radius",
}
"""n2v's key -> field of `config.CareConfig`, where only the name differs."""

OTHERS = ("means", "stds", "mean", "std", "blurpool", "skip_skipone", "n2v_patch_shape")
"""n2v's further keys, whose values are written otherwise."""

BLURPOOL = "n2v"
"""`unet_blurpool` of the networks that n2v builds."""

# What a key stands for in folders that are older than it (n2v 0.1 to 0.3).
_BEFORE: Mapping[str, Any] = {
    "batch_norm": True,
    "single_net_per_channel": False,
    "structN2Vmask": None,
    "blurpool": False,
    "skip_skipone": False,
}


def is_of_n2v(content: Mapping[str, Any]) -> bool:
    """Whether a config.json is of the package n2v: something of blind spots, and no block of ours."""
    return any(key.startswith("n2v_") for key in content)


def settings_of(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Settings of n2v under the names that they have here; keys that csbdeep has too stay as they are.

    Parameters
    ----------
    content : mapping
        Of config.json, or of an N2VConfig.
    name : str
        Where it stands, for messages.

    Raises
    ------
    InputError
        If the mean or the standard deviation is missing, or is no number.
    """
    given = {**_BEFORE, **content}
    found = {key: value for key, value in given.items() if key not in NAMES and key not in OTHERS}
    found |= {NAMES[key]: value for key, value in given.items() if key in NAMES}
    found["method"] = "n2v"
    channels = given.get("n_channel_in", 1)
    for key in ("mean", "std"):
        found[f"{key}s"] = _numbers(given.get(f"{key}s", given.get(key)), key, channels, name)
    # A switch that is no switch is left to be refused.
    blurred, no_skip = given["blurpool"], given["skip_skipone"]
    found["unet_blurpool"] = BLURPOOL if blurred is True else blurred
    found["unet_top_skip"] = not no_skip if isinstance(no_skip, bool) else no_skip
    # Since the version that wrote this key first, n2v builds another way up where the finest skip connection is kept.
    found["unet_narrow_up"] = "blurpool" in content and no_skip is False
    found["n2v_patch_shape"] = given.get("n2v_patch_shape")
    return found


def _numbers(values: Any, key: str, channels: Any, name: str) -> tuple[float, ...]:
    # n2v writes them as text, and before its version 0.2 one for all channels.
    listed = values if isinstance(values, list | tuple) else [values]
    try:
        numbers = tuple(float(value) for value in listed)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is of Noise2Void (n2v), whose networks expect images minus a mean, over a standard deviation; its "
            f"{key}s are {text.shown(values)}: numbers are needed, one for each channel"
        ) from None
    return numbers * channels if len(numbers) == 1 and isinstance(channels, int) else numbers


def builds(values: Mapping[str, Any]) -> bool:
    """Whether n2v (0.3.2 and 0.3.3) builds the network of these settings, fields of `config.CareConfig`."""
    kernel = values["unet_kern_size"]
    return (
        values["method"] == "n2v"
        and values["means"] is not None
        and values["architecture"] == "care"
        and set(values["unet_pool"]) == {2}
        and (isinstance(kernel, int) or len(set(kernel)) == 1)
        and values["unet_blurpool"] in (False, BLURPOOL)
        and (values["unet_narrow_up"] == values["unet_top_skip"] or values["unet_n_depth"] == 1)
        and not _confused(values["n_channel_in"], values["unet_per_channel"])
    )


def check_channels(content: Mapping[str, Any], name: str) -> None:
    """Refuse a network that n2v made for several channels of which it only ever looks at one.

    Raises
    ------
    InputError
        If it is one.

    Notes
    -----
    n2v 0.3 (nets/unet.py) cuts channel `i` out of its input in a function that looks `i` up when the network runs, under
    TensorFlow 2: after the loop, so each of the networks gets the last channel. Seen with n2v 0.3.3 on TensorFlow 2.13:
    changing any other channel of an image changes nothing. Folders without the key `blurpool` are of versions that mostly
    ran on TensorFlow 1, where each got its own.
    """
    if "blurpool" in content and _confused(
        content.get("n_channel_in", 1), content.get("single_net_per_channel")
    ):
        raise InputError(
            f"{name} is of n2v with single_net_per_channel: n2v 0.3 trained a network for each channel, but gave all of "
            "them the last channel, so they cannot restore the others; train anew, here or with single_net_per_channel=False"
        )


def _confused(channels: Any, per_channel: Any) -> bool:
    return per_channel is True and channels != 1


def keys_of(values: Mapping[str, Any], patch_shape: Any) -> dict[str, Any]:
    """n2v's keys for settings of ours; the reverse of `settings_of`.

    Parameters
    ----------
    values : mapping
        Fields of `config.CareConfig`.
    patch_shape : sequence of int
        Of the patches that were trained on.
    """
    keys = {key: values[field] for key, field in NAMES.items()}
    for key in ("means", "stds"):
        keys[key] = [str(number) for number in values[key]]
    keys["blurpool"] = bool(values["unet_blurpool"])
    keys["skip_skipone"] = not values["unet_top_skip"]
    kernel = values["unet_kern_size"]
    keys["unet_kern_size"] = kernel if isinstance(kernel, int) else kernel[0]
    keys["n2v_patch_shape"] = list(patch_shape)
    return keys
