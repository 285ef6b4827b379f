"""What people type as one word and mean as several: sizes, pairs, settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from care_bridge.errors import InputError


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """The value, if it is known.

    Raises
    ------
    InputError
        With those that are.
    """
    if value not in known:
        raise InputError(f"{option} {value!r} is not known; use one of {', '.join(known)}")
    return value


def sizes(option: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers from 1 with commas between; None stays None."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} {text!r} is not understood; give whole numbers, e.g. 64,64")
    return numbers


def pair(option: str, text: str, example: str) -> tuple[str, str]:
    """Both sides of KEY=VALUE; the value may be empty."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"{option} {text!r} is not understood; give KEY=VALUE, e.g. {example}")
    return key, value


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE of `--set`, with the value read."""
    key, value = pair("--set", text, "train_loss=mse")
    return key, value_of(value)


def value_of(text: str) -> Any:
    """JSON where it is JSON, sizes where it is 3x3, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        parts = text.split("x")
        return tuple(map(int, parts)) if len(parts) > 1 and all(map(str.isdigit, parts)) else text
