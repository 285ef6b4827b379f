"""Protocol buffers, read field by field without their classes: what a stranger's file holds, before anything loads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

MOST_LEVELS = 100
"""So deep messages are nested, as in protobuf's own readers."""


def text(part: Any) -> str:
    """A field that is a text."""
    if not isinstance(part, memoryview):
        raise ValueError(f"a number ({part}) where a text or a message is due")
    return bytes(part).decode("utf-8")


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and content (an int, or the bytes of a string or message) of each field of a message."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < tag < 1 << 32:
            # Other readers cut it to 32 bits, and would find another field there.
            raise ValueError(f"a field of number {number}")
        if wire == _VARINT:
            value, at = varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of unknown kind {wire}")
        if at + length > len(message):
            raise ValueError("it ends too early")
        yield number, message[at : at + length]
        at += length


def varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than ten bytes")
