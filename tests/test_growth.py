"""Graphs of a few bytes that ask for all the memory there is: refused by name before a runtime sees them."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from care_bridge.bundle import read_bundle
from care_bridge.errors import InputError
from care_bridge.inspection import check_onnx
from tests.test_inspection import bundle, function, onnx, part

SIDE = 31_622
"""Squared it is a thousand million."""


def packed(*numbers: int) -> bytes:
    return b"".join(part(0, number)[1:] for number in (number % (1 << 64) for number in numbers))


# --- TensorFlow


def sizes_of(*sizes: int) -> bytes:
    return b"".join(part(2, part(1, size % (1 << 64))) for size in sizes)


def constant(name: str, numbers: list[Any], *sizes: int, kind: int = 3) -> bytes:
    """A Const of int32, or of float32 (kind 1), of these sizes; a vector where none are given."""
    shape = sizes_of(*(sizes or (len(numbers),)))
    content = struct.pack(f"<{len(numbers)}{'i' if kind == 3 else 'f'}", *numbers)
    return node(name, "Const", value=part(8, part(1, kind) + part(2, shape) + part(4, content)))


def scalar(name: str, number: float, kind: int = 3) -> bytes:
    content = part(7, int(number)) if kind == 3 else part(5, struct.pack("<f", number))
    return node(name, "Const", value=part(8, part(1, kind) + part(2, b"") + content))


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    written = b"".join(part(5, part(1, key) + part(2, value)) for key, value in attributes.items())
    return part(1, name) + part(2, op) + b"".join(part(3, source) for source in inputs) + written


IMAGE = node("input", "Placeholder", shape=part(7, sizes_of(-1, -1, -1, 1)))
OUTPUT = node("output", "Identity", "bomb")
AREA = constant("area", [SIDE, SIDE])
ONE = scalar("one", 1.0, kind=1)
PADS = constant("pads", [0, 0, SIDE // 2, SIDE // 2, SIDE // 2, SIDE // 2, 0, 0], 4, 2)
ROW, COLUMN = constant("row", [1.0], 1, 40_000, kind=1), constant("column", [1.0], 40_000, 1, kind=1)


def bomb(op: str, *inputs: str, **attributes: bytes) -> bytes:
    return node("bomb", op, *inputs, **attributes)


TENSORFLOW = {
    "Fill": (AREA, ONE, bomb("Fill", "area", "one")),
    "Tile": (constant("times", [1, 500, 500, 1]), bomb("Tile", "input", "times")),
    "Range": (
        *(scalar(name, number) for name, number in (("start", 0), ("end", 10**9), ("step", 1))),
        bomb("Range", "start", "end", "step"),
    ),
    "LinSpace": (ONE, scalar("n", 10**9), bomb("LinSpace", "one", "one", "n")),
    "BroadcastTo": (AREA, ONE, bomb("BroadcastTo", "one", "area")),
    "Pad": (PADS, bomb("Pad", "input", "pads")),
    "MirrorPad": (PADS, bomb("MirrorPad", "input", "pads")),
    "ResizeNearestNeighbor": (AREA, bomb("ResizeNearestNeighbor", "input", "area")),
    "ResizeBilinear": (AREA, bomb("ResizeBilinear", "input", "area")),
    "OneHot": (scalar("n", 10**9), ONE, bomb("OneHot", "one", "n", "one", "one")),
    "RandomUniform": (AREA, bomb("RandomUniform", "area")),
    "ScatterNd": (AREA, ONE, bomb("ScatterNd", "one", "one", "area")),
    "DynamicStitch": (constant("places", [10**9]), ONE, bomb("DynamicStitch", "places", "one")),
    "MatMul": (ROW, COLUMN, bomb("MatMul", "column", "row")),
    "Mul": (ROW, COLUMN, bomb("Mul", "column", "row")),
    "FakeParam": (bomb("FakeParam", shape=part(7, sizes_of(SIDE, SIDE))),),
}


@pytest.mark.parametrize("op", TENSORFLOW)
def test_an_operation_that_makes_a_thousand_million_values_is_refused_by_name(
    tmp_path: Path, op: str
) -> None:
    path = bundle(tmp_path, IMAGE, *TENSORFLOW[op], OUTPUT)
    with pytest.raises(InputError, match=rf"its operation 'bomb' \({op}\) makes .+ values") as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


def test_sizes_that_are_calculated_are_followed(tmp_path: Path) -> None:
    """As Keras calculates the sizes of a resize, with a factor of its own."""
    nodes = (
        node("shape", "Shape", "input"),
        *(constant(name, [number]) for name, number in (("from", 1), ("to", 3), ("step", 1))),
        node("middle", "StridedSlice", "shape", "from", "to", "step"),
        constant("factor", [500, 500]),
        node("area", "Mul", "middle", "factor"),
    )
    with pytest.raises(InputError, match="'bomb'"):
        read_bundle(bundle(tmp_path, IMAGE, *nodes, bomb("ResizeBicubic", "input", "area"), OUTPUT))


def test_what_grows_step_by_step_or_in_a_function_or_in_many_is_refused(tmp_path: Path) -> None:
    axis = constant("axis", [1])
    doubled = [node(f"n{i + 1}", "ConcatV2", f"n{i}", f"n{i}", "axis") for i in range(20)]
    begin = node("n0", "Identity", "input")
    with pytest.raises(InputError, match=r"'n20' \(ConcatV2\)"):
        read_bundle(bundle(tmp_path / "1", IMAGE, axis, begin, *doubled, node("output", "Relu", "n20")))
    inner = function("f", AREA, ONE, bomb("Fill", "area", "one"))
    with pytest.raises(InputError, match=r"'bomb' \(Fill\)"):
        read_bundle(bundle(tmp_path / "2", IMAGE, node("output", "Relu", "input"), functions=(inner,)))
    some = (constant("some", [1000, 1000]), ONE)
    many = [node(f"fill{i}", "Fill", "some", "one") for i in range(100)]
    with pytest.raises(InputError, match=r"and with others 1e\+08"):
        read_bundle(bundle(tmp_path / "3", IMAGE, *some, *many, node("output", "AddN", "fill1", "fill2")))


def test_what_grows_behind_a_convolution_is_followed(tmp_path: Path) -> None:
    kernel = constant("kernel", [1.0] * 18, 3, 3, 1, 2, kind=1)
    strides = part(1, part(3, packed(1, 2, 2, 1)))
    for padding, side in (("SAME", 32), ("VALID", 31)):
        convolved = node("c", "Conv2D", "input", "kernel", strides=strides, padding=part(2, padding))
        times = constant("times", [1, 500, 500, 1])
        nodes = (IMAGE, kernel, convolved, times, bomb("Tile", "c", "times"), OUTPUT)
        path = bundle(tmp_path / padding, *nodes)
        made = re.escape(f"{side * side * 500**2 * 2:.2g}")
        with pytest.raises(InputError, match=f"makes {made} values"):
            read_bundle(path)


def test_a_graph_as_deep_as_somebody_likes_is_followed_to_its_end(tmp_path: Path) -> None:
    chain = [node(f"n{i + 1}", "Relu", f"n{i}") for i in range(20_000)][::-1]
    last = node("output", "Relu", "n20000")
    read_bundle(bundle(tmp_path, last, *chain, node("n0", "Identity", "input"), IMAGE))


def test_a_circle_of_nodes_ends(tmp_path: Path) -> None:
    loop = (node("a", "Mul", "b", "input"), node("b", "Mul", "a", "input"))
    read_bundle(bundle(tmp_path, IMAGE, *loop, node("output", "Relu", "b")))


def test_a_network_that_doubles_sizes_and_pads_a_little_is_opened(tmp_path: Path) -> None:
    nodes = (
        node("shape", "Shape", "input"),
        *(constant(name, [number]) for name, number in (("from", 1), ("to", 3), ("step", 1))),
        node("middle", "StridedSlice", "shape", "from", "to", "step"),
        constant("factor", [2, 2]),
        node("area", "Mul", "middle", "factor"),
        node("larger", "ResizeNearestNeighbor", "input", "area"),
        constant("pads", [0, 0, 8, 8, 8, 8, 0, 0], 4, 2),
        node("output", "Pad", "larger", "pads"),
    )
    read_bundle(bundle(tmp_path, IMAGE, *nodes))


def test_numbers_that_multiply_without_end_are_followed_in_no_time(tmp_path: Path) -> None:
    squares = [node(f"n{i + 1}", "Mul", f"n{i}", f"n{i}") for i in range(2000)]
    with pytest.raises(InputError, match="'bomb'"):
        read_bundle(
            bundle(tmp_path, IMAGE, constant("n0", [9, 9]), *squares, ONE, bomb("Fill", "n2000", "one"))
        )


# --- ONNX


def onnx_constant(name: str, numbers: list[Any], *sizes: int, kind: int = 7) -> bytes:
    """An initialiser of int64, or of float32 (kind 1)."""
    content = struct.pack(f"<{len(numbers)}{'q' if kind == 7 else 'f'}", *numbers)
    return part(
        5, part(1, packed(*(sizes or (len(numbers),)))) + part(2, kind) + part(8, name) + part(9, content)
    )


def onnx_node(op: str, *inputs: str, output: str = "bomb", **attributes: bytes) -> bytes:
    written = b"".join(part(5, part(1, key) + value) for key, value in attributes.items())
    return part(1, b"".join(part(1, one) for one in inputs) + part(2, output) + part(4, op) + written)


def onnx_image(*sizes: int) -> bytes:
    dimensions = b"".join(part(1, part(1, size) if size else part(2, "free")) for size in sizes)
    return part(11, part(1, "x") + part(2, part(1, part(1, 1) + part(2, dimensions))))


X = onnx_image(0, 0, 0, 1)
ONNX_AREA = onnx_constant("area", [SIDE, SIDE])
ONNX = {
    "ConstantOfShape": (ONNX_AREA, onnx_node("ConstantOfShape", "area")),
    "Expand": (ONNX_AREA, onnx_constant("one", [1.0], kind=1), onnx_node("Expand", "one", "area")),
    "Tile": (onnx_constant("times", [1, 500, 500, 1]), onnx_node("Tile", "x", "times")),
    "Resize": (onnx_constant("f", [1, 500, 500, 1], kind=1), onnx_node("Resize", "x", "", "f")),
    "Resize to sizes": (onnx_constant("s", [1, SIDE, SIDE, 1]), onnx_node("Resize", "x", "", "", "s")),
    "Upsample": (onnx_constant("f", [1, 500, 500, 1], kind=1), onnx_node("Upsample", "x", "f")),
    "Range": (
        *(onnx_constant(name, [number]) for name, number in (("a", 0), ("z", 10**9), ("d", 1))),
        onnx_node("Range", "a", "z", "d"),
    ),
    "Pad": (onnx_constant("p", [0, SIDE, SIDE, 0, 0, 0, 0, 0]), onnx_node("Pad", "x", "p")),
    "Pad by an attribute": (onnx_node("Pad", "x", pads=part(8, packed(0, SIDE, SIDE, 0, 0, 0, 0, 0))),),
    "OneHot": (onnx_constant("n", [10**9]), onnx_node("OneHot", "n", "n", "n")),
    "RandomNormal": (onnx_node("RandomNormal", shape=part(8, packed(SIDE, SIDE))),),
    "MatMul": (
        onnx_constant("row", [1.0], 1, 40_000, kind=1),
        onnx_constant("column", [1.0], 40_000, 1, kind=1),
        onnx_node("MatMul", "column", "row"),
    ),
    "ConstantOfShape of Constant": (
        onnx_node("Constant", output="area", value_ints=part(8, packed(SIDE, SIDE))),
        onnx_node("ConstantOfShape", "area"),
    ),
    "ConstantOfShape of a product": (
        onnx_node("Shape", "x", output="shape"),
        onnx_constant("f", [1, 500, 500, 1]),
        onnx_node("Mul", "shape", "f", output="area"),
        onnx_node("ConstantOfShape", "area"),
    ),
}


@pytest.mark.parametrize("case", ONNX)
def test_an_onnx_operation_that_makes_a_thousand_million_values_is_refused_by_name(case: str) -> None:
    with pytest.raises(InputError, match=rf"its operation 'bomb' \({case.split(' ', maxsplit=1)[0]}\) makes"):
        check_onnx(onnx(X, *ONNX[case]))


def test_a_branch_that_takes_sizes_from_around_it_is_followed() -> None:
    inner = part(6, onnx_node("ConstantOfShape", "area"))
    with pytest.raises(InputError, match=r"'bomb' \(ConstantOfShape\)"):
        check_onnx(onnx(X, ONNX_AREA, onnx_node("If", "x", output="y", then_branch=inner)))


def test_an_onnx_network_that_doubles_sizes_is_opened() -> None:
    twice = onnx_constant("f", [1, 2, 2, 1], kind=1)
    check_onnx(onnx(X, twice, onnx_node("Resize", "x", "", "f"), onnx_node("Relu", "bomb", output="y")))


@pytest.mark.parametrize("sizes", [(-1, 1, 0, 0), (0, 0, -1, 0), (1, -1, 0, 0, 1)])
def test_an_onnx_reshape_that_keeps_sizes_and_computes_one_makes_nothing(sizes: tuple[int, ...]) -> None:
    """tf2onnx writes these around convolutions whose channels it moves."""
    moved = onnx_node("Reshape", "x", "sizes", output="moved")
    numbers = onnx_constant("sizes", list(sizes))
    check_onnx(onnx(onnx_image(0, 1, 0, 0), numbers, moved, onnx_node("Add", "moved", "moved", output="y")))
    times = onnx_constant("times", [1, 1, 500, 500, 1][: len(sizes)])
    with pytest.raises(InputError, match="'bomb'"):
        check_onnx(onnx(onnx_image(0, 1, 0, 0), numbers, moved, times, onnx_node("Tile", "moved", "times")))
