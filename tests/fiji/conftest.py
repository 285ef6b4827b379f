"""Fixtures of the Java side: a Fiji of your own, and bundles made by hand."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from care_bridge.java.installation import find_fiji

WriteBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def fiji_ready() -> Path:
    """A person's own Fiji with the plugin, named in CARE_BRIDGE_FIJI."""
    found = find_fiji()
    if found is None:
        pytest.skip("no Fiji of your own is named in CARE_BRIDGE_FIJI")
    problems = found.problems()
    assert not problems, problems
    return found.path


def _field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % (1 << 64))
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = b""
    while value > 0x7F:
        digits += bytes([value & 0x7F | 0x80])
        value >>= 7
    return digits + bytes([value])


def _entry(key: str, value: bytes) -> bytes:
    return _field(1, key) + _field(2, value)


def _shape(sizes: tuple[int | None, ...]) -> bytes:
    return b"".join(_field(2, _field(1, -1 if size is None else size)) for size in sizes)


def _node(name: str, op: str, inputs: tuple[str, ...] = (), *, extra: bytes = b"") -> bytes:
    kind = "dtype" if op == "Placeholder" else "T"
    attributes = _field(5, _entry(kind, _field(6, 1))) + extra
    return _field(1, name) + _field(2, op) + b"".join(_field(3, source) for source in inputs) + attributes


@pytest.fixture(scope="session")
def write_bundle() -> WriteBundle:
    """A function that writes a bundle whose network adds the image to itself, without TensorFlow."""

    def write(
        path: Path,
        *,
        op: str = "Add",
        attribute: str = "",
        shape: tuple[int | None, ...] = (None, None, None, 1),
        tag: str = "serve",
        signature: str = "serving_default",
        versions: bytes = b"",
        prefix: str = "",
    ) -> Path:
        extra = _field(5, _entry(attribute, _field(5, 1))) if attribute else b""
        nodes = [
            _node("input", "Placeholder", extra=_field(5, _entry("shape", _field(7, _shape(shape))))),
            _node("output", op, ("input", "input"), extra=extra),
        ]
        graph = b"".join(_field(1, node) for node in nodes) + _field(4, versions or _field(1, 27))
        ends = [
            _field(1, f"{name}:0") + _field(2, 1) + _field(3, _shape(shape)) for name in ("input", "output")
        ]
        method = _field(3, "tensorflow/serving/predict")
        defined = _field(1, _entry("input", ends[0])) + _field(2, _entry("output", ends[1])) + method
        meta_graph = _field(1, _field(4, tag)) + _field(2, graph) + _field(5, _entry(signature, defined))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{prefix}variables/", "")
            archive.writestr(f"{prefix}saved_model.pb", _field(1, 1) + _field(2, meta_graph))
        return path

    return write
