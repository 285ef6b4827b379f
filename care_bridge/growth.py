"""How much a graph makes of its constants and a small image: told before a runtime makes it.

A few bytes can ask for any amount of memory: Fill with its sizes, Tile with its repeats, Range with its limit. What is not
followed counts as one, so that what is told of a tensor is the least that it holds for an image of 64x64 pixels, or of
16x16x16.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from care_bridge.wire import fields, text, varint
from care_bridge.zips import FREE_OF_RATIO, MOST_RATIO

Number = int | float

_MOST_KNOWN = 256  # numbers of a tensor that are followed; shapes and paddings have a few
_ENDLESS = 1 << 63


@dataclass(frozen=True)
class Least:
    """The least that is known of a tensor.

    Attributes
    ----------
    count : int
        It holds so many values at least.
    sizes : tuple of int, or None
        Each dimension has this size at least; None where not even their number is known.
    values : tuple of numbers, or None
        Its values, in their order, are not below these; None where they are not known.
    exact : bool
        Whether they are these.
    """

    count: int = 1
    sizes: tuple[int, ...] | None = None
    values: tuple[Number, ...] | None = None
    exact: bool = False


NOTHING = Least()


@dataclass
class Step:
    """A node: its operation, inputs, and attributes as they are written."""

    op: str
    inputs: list[str] = field(default_factory=list)
    attributes: dict[str, memoryview] = field(default_factory=dict)


Rule = Callable[[Step, Sequence[Least]], Least]


class Growth:
    """What the graphs of one file make of their constants and a small image.

    Parameters
    ----------
    size : int
        Bytes of the file: a network with large weights may make much of them.
    """

    def __init__(self, size: int) -> None:
        self._size, self._most = size, max(FREE_OF_RATIO, MOST_RATIO * size)
        self._made = 0
        self._largest = ("", "", 0)

    def follow(
        self, steps: Mapping[str, Step], rule: Rule, known: Mapping[str, Least] | None = None
    ) -> dict[str, Least]:
        """Count what a graph makes; gives what is known of its tensors.

        Parameters
        ----------
        steps : mapping of str to Step
            By the names that inputs have.
        rule : callable
            `of_tensorflow` or `of_onnx`.
        known : mapping of str to Least, optional
            Tensors from elsewhere.
        """
        outer = known or {}
        found: dict[str, Least] = {}
        for name in _in_order(steps):
            step = steps[name]
            given = [found.get(source) or outer.get(source, NOTHING) for source in step.inputs]
            found[name] = least = rule(step, given)
            if step.op not in _HELD:
                self._made += max(least.count - max((one.count for one in given), default=0), 0)
                if least.count > self._largest[2]:
                    self._largest = (name, step.op, least.count)
        return found

    @property
    def refusal(self) -> str:
        """Why the file is not to be run; "" where it may be."""
        if self._made <= self._most:
            return ""
        name, op, count = self._largest
        together = f", and with others {self._made:.2g}" if self._made > 2 * count else ""
        return (
            f"its operation {name!r} ({op}) makes {count:.2g} values of the smallest image{together}, and no network of "
            f"{self._size} bytes needs more than {self._most:.2g}, so it was not opened; export the network again without it"
        )


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


# What lies in the file already, or is the same tensor under another name.
_HELD = _words("""
    Const Constant Placeholder Identity Snapshot StopGradient PreventGradient CheckNumerics EnsureShape Reshape Squeeze
    ExpandDims Unsqueeze Flatten GuaranteeConst PlaceholderWithDefault
""")


def _in_order(steps: Mapping[str, Step]) -> Iterator[str]:
    """Names, inputs first; without recursion, for graphs are as deep as their makers like."""
    begun: set[str] = set()
    for start in steps:
        stack = [] if start in begun else [(start, iter(steps[start].inputs))]
        begun.add(start)
        while stack:
            name, left = stack[-1]
            for source in left:
                if source in steps and source not in begun:
                    begun.add(source)
                    stack.append((source, iter(steps[source].inputs)))
                    break
            else:
                stack.pop()
                yield name


# --- what both have in common


def _sized(sizes: Iterable[int]) -> Least:
    sizes = tuple(min(size, _ENDLESS) for size in sizes)
    return Least(min(math.prod(sizes), _ENDLESS), sizes)


def _counted(count: Number) -> Least:
    return Least(_whole(count) if count > 1 else 1)


def _whole(number: Number) -> int:
    return int(number) if -_ENDLESS < number < _ENDLESS else _ENDLESS


def _shaped(shape: Least) -> Least:
    """A tensor whose shape is the value of another."""
    if shape.values is None or shape.count != len(shape.values):
        return NOTHING  # not even the number of its sizes is known
    lowest = 0 if shape.exact else 1
    return _sized(1 if size < 0 else max(_whole(size), lowest) for size in shape.values)


def _number(least: Least, default: Number = 1) -> Number:
    return least.values[0] if least.values else default


def _alike(least: Least) -> Least:
    return replace(least, values=None, exact=False)


def _flat(least: Least) -> Least:
    """The same values in another shape."""
    return replace(least, sizes=None)


def _broadcast(given: Sequence[Least]) -> Least:
    count = max((least.count for least in given), default=1)
    if not given or any(least.sizes is None for least in given):
        return Least(count)
    rank = max(len(least.sizes or ()) for least in given)
    padded = [(1,) * (rank - len(least.sizes or ())) + (least.sizes or ()) for least in given]
    return _sized(max(sizes) for sizes in zip(*padded, strict=True))


_ARITHMETIC = {
    "Add": "Add",
    "AddV2": "Add",
    "Sum": "Add",
    "Mul": "Mul",
    "Sub": "Sub",
    "Div": "Div",
    "RealDiv": "Div",
    "FloorDiv": "Div",
    "Maximum": "Max",
    "Max": "Max",
    "Minimum": "Min",
    "Min": "Min",
}


def _arithmetic(op: str, given: Sequence[Least]) -> Least:
    """A result of elementwise arithmetic, with its values where they are known."""
    result = _broadcast(given)
    if len(given) != 2 or given[0].values is None or given[1].values is None:
        return result
    (one, other), kind = given, _ARITHMETIC[op]
    a, b = one.values or (), other.values or ()
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return result
    length = max(len(a), len(b)) if a and b else 0
    a, b = (numbers * length if len(numbers) == 1 else numbers for numbers in (a, b))
    exact = one.exact and other.exact
    positive = all(number >= 0 for number in (*a, *b))
    if (
        (kind == "Mul" and not (exact or positive))
        or (kind == "Sub" and not other.exact)
        or (kind == "Div" and not (other.exact and positive and all(b)))
    ):
        return result
    calculate: dict[str, Callable[[Number, Number], Number]] = {
        "Add": lambda x, y: x + y,
        "Mul": lambda x, y: x * y,
        "Sub": lambda x, y: x - y,
        "Div": lambda x, y: x // y if isinstance(x, int) and isinstance(y, int) else x / y,
        "Max": max,
        "Min": min,
    }
    values = tuple(_clipped(calculate[kind](x, y)) for x, y in zip(a, b, strict=True))
    return (
        result if any(math.isnan(value) for value in values) else replace(result, values=values, exact=exact)
    )


def _clipped(number: Number) -> Number:
    return max(-_ENDLESS, min(number, _ENDLESS))


def _concat(parts: Sequence[Least], axis: int | None) -> Least:
    count = min(sum(part.count for part in parts), _ENDLESS)
    result = Least(count)
    sizes = [part.sizes for part in parts]
    if (
        axis is not None
        and parts
        and all(one is not None and len(one) == len(sizes[0] or ()) for one in sizes)
    ):
        known = [list(one or ()) for one in sizes]
        if -len(known[0]) <= axis < len(known[0]):
            joined = [max(column) for column in zip(*known, strict=True)]
            joined[axis] = sum(one[axis] for one in known)
            result = _sized(joined)
    values = [part.values for part in parts]
    together = tuple(number for one in values if one is not None for number in one)
    if all(one is not None for one in values) and len(together) <= _MOST_KNOWN:
        rows = all(one is None or len(one) <= 1 for one in sizes)
        if rows:  # of matrices other axes come first
            result = replace(result, values=together, exact=all(part.exact for part in parts))
    return result


def _padded(given: Least, before_and_after: Sequence[tuple[Number, Number]]) -> Least:
    added = [max(_whole(one) + _whole(other), 0) for one, other in before_and_after]
    sizes = given.sizes if given.sizes is not None and len(given.sizes) == len(added) else (1,) * len(added)
    grown = _sized(size + more for size, more in zip(sizes, added, strict=True))
    return grown if grown.count >= given.count else replace(grown, count=given.count)


def _repeated(given: Least, repeats: Least) -> Least:
    if repeats.values is None:
        return NOTHING
    times = [_whole(number) for number in repeats.values]
    if given.sizes is not None and len(given.sizes) == len(times):
        return _sized(size * number for size, number in zip(given.sizes, times, strict=True))
    return Least(min(given.count * math.prod(times), _ENDLESS))


def _ranged(start: Least, limit: Least, delta: Least) -> Least:
    if not (start.exact and limit.values and delta.exact and start.values and delta.values):
        return NOTHING
    first, last, step = start.values[0], limit.values[0], delta.values[0]
    if not step or (step < 0 and not limit.exact) or any(map(math.isnan, (first, last, step))):
        return NOTHING
    count = max(_whole(-((first - last) // step)), 0)
    if count > _MOST_KNOWN:
        return _sized([count])
    values = tuple(first + number * step for number in range(count))
    return Least(count, (count,), values if limit.exact else None, limit.exact)


def _multiplied(a: Least, b: Least, *, turned: tuple[bool, bool] = (False, False)) -> Least:
    if a.sizes is None or b.sizes is None or min(len(a.sizes), len(b.sizes)) < 2:
        return NOTHING
    rows = a.sizes[-1 if turned[0] else -2]
    columns = b.sizes[-2 if turned[1] else -1]
    outer = _broadcast([_sized(a.sizes[:-2]), _sized(b.sizes[:-2])])
    return _sized([*(outer.sizes or ()), rows, columns])


def _picked(given: Least, start: Least, end: Least) -> Least:
    """A stretch of a vector of numbers."""
    if not (given.values is not None and start.exact and end.exact and start.values and end.values):
        return NOTHING
    first, last = (_whole(number) for number in (start.values[0], end.values[0]))
    if given.count != len(given.values) and not (0 <= first < last <= _RANK or -_RANK <= first < last < 0):
        return NOTHING
    values = given.values[first:last]
    return Least(len(values), None, values, given.exact)


_RANK = 4
"""So many dimensions has an image and its batch at least."""


def _numbers(content: memoryview, code: str) -> tuple[Number, ...]:
    each = struct.calcsize(code)
    return struct.unpack(f"<{len(content) // each}{code}", content[: len(content) // each * each])


def _varints(part: Any) -> list[int]:
    if isinstance(part, int):
        return [_signed(part)]
    found, at = [], 0
    while at < len(part):
        value, at = varint(part, at)
        found.append(_signed(value))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _filled(sizes: Sequence[int], values: Sequence[Number]) -> Least:
    """A constant: the last of its values stands for those that are not written."""
    least = _sized(max(size, 0) for size in sizes)
    if not values or least.count > _MOST_KNOWN or any(map(math.isnan, values)):
        return least
    whole = (*values, *[values[-1]] * (least.count - len(values)))[: least.count]
    return replace(least, values=tuple(_clipped(number) for number in whole), exact=True)


# --- TensorFlow: field numbers as in attr_value.proto, tensor.proto, tensor_shape.proto

_CODES = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 17: "H", 19: "e", 22: "I", 23: "Q"}
_ELEMENTWISE = _words("""
    Abs Acos Acosh AddN Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh Betainc BiasAdd BitwiseAnd BitwiseOr
    BitwiseXor Ceil ClipByValue Clip Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumSum Dequantize Digamma
    DivNoNan Elu Equal Erf Erfc Exp Expm1 FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars Floor FloorMod Greater
    GreaterEqual Igamma Igammac Imag Inv Invert IsFinite IsInf IsNan LeakyRelu LeftShift Less LessEqual Lgamma Log Log1p
    LogicalAnd LogicalNot LogicalOr LogSoftmax Mod MulNoNan Neg NextAfter NotEqual OnesLike Polygamma PopulationCount Pow
    PRelu QuantizeAndDequantize QuantizeV2 Real Reciprocal Relu Relu6 RightShift Rint Round Rsqrt Select SelectV2 Selu
    Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Square SquaredDifference Tan Tanh TruncateDiv TruncateMod
    Xdivy Xlog1py Xlogy ZerosLike Zeta Not And Or Xor Gelu HardSigmoid HardSwish Mish ThresholdedRelu Celu Shrink
    RandomUniformLike RandomNormalLike Bernoulli EyeLike
""")
_SAME = _words("""
    Identity Snapshot StopGradient PreventGradient CheckNumerics EnsureShape GuaranteeConst PlaceholderWithDefault Cast
    DeepCopy Enter RefEnter RefIdentity Switch
""")
_MOVED = _words("""
    Transpose ConjugateTranspose Reverse ReverseV2 Roll RandomShuffle DepthToSpace SpaceToDepth BatchToSpace
    InplaceUpdate InplaceAdd InplaceSub TensorScatterAdd TensorScatterSub TensorScatterUpdate TensorScatterMax
    TensorScatterMin FFT FFT2D FFT3D IFFT IFFT2D IFFT3D Bitcast TensorListFromTensor ScatterND ScatterElements
    ReverseSequence Squeeze Flatten SpaceToBatchND
""")
# The operation, and which of its inputs is the shape of what it makes.
_BY_SHAPE = {
    name: place
    for place, names in (
        (
            0,
            """
            Fill Empty RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal ParameterizedTruncatedNormal
            RandomGamma RandomPoisson RandomPoissonV2 StatelessRandomUniform StatelessRandomUniformInt
            StatelessRandomNormal StatelessTruncatedNormal StatelessRandomUniformV2 StatelessRandomUniformIntV2
            StatelessRandomNormalV2 StatelessTruncatedNormalV2 Conv2DBackpropInput Conv3DBackpropInputV2
            DepthwiseConv2dNativeBackpropInput
            """,
        ),
        (1, "BroadcastTo RandomCrop"),
        (
            2,
            "ScatterNd ScatterNdNonAliasingAdd StatefulUniform StatefulStandardNormalV2 StatefulTruncatedNormal",
        ),
    )
    for name in names.split()
}
# The operation, and which of its inputs says how many values there are.
_BY_COUNT = {
    "LinSpace": 2,
    "Bincount": 1,
    "DenseBincount": 1,
    "TensorListReserve": 1,
    "TensorArray": 0,
    "TensorArrayV2": 0,
    "TensorArrayV3": 0,
    "HistogramFixedWidth": 2,
    "Multinomial": 1,
    "StatelessMultinomial": 1,
    "UnsortedSegmentSum": 2,
    "UnsortedSegmentMax": 2,
    "UnsortedSegmentMin": 2,
    "UnsortedSegmentProd": 2,
}
_BY_AREA = {
    "ResizeNearestNeighbor": 1,
    "ResizeBilinear": 1,
    "ResizeBicubic": 1,
    "ResizeArea": 1,
    "ScaleAndTranslate": 1,
    "FusedResizeAndPadConv2D": 1,
    "ImageProjectiveTransformV2": 2,
    "ImageProjectiveTransformV3": 2,
}
_BY_SPECTRUM = _words("RFFT RFFT2D RFFT3D IRFFT IRFFT2D IRFFT3D RFFTND IRFFTND FFTND IFFTND")
_PADDING = {"Pad": 1, "PadV2": 1, "MirrorPad": 1, "SpaceToBatch": 1, "FusedPadConv2D": 1}


def of_tensorflow(step: Step, given: Sequence[Least]) -> Least:
    """The least that a node of TensorFlow makes; see `refusal`."""
    op = step.op
    # A node of a damaged graph may lack inputs.
    at: Callable[[int], Least] = lambda place: given[place] if place < len(given) else NOTHING  # noqa: E731
    if op == "Const":
        return _constant(step)
    if op in ("Placeholder", "PlaceholderV2", "TemporaryVariable", "FakeParam"):
        return _stated(step)
    if op in _ARITHMETIC and op not in ("Max", "Min", "Sum"):  # those reduce here
        return _arithmetic(op, given)
    if op in _ELEMENTWISE:
        return _broadcast(given)
    if op in _SAME:
        return at(0)
    if op in ("Reshape", "Squeeze", "ExpandDims"):
        return _reshaped(op, at(0), at(1))
    if op in _MOVED:
        return _alike(_flat(at(0)))
    if op in ("Concat", "ConcatV2"):
        parts, axis = (given[1:], at(0)) if op == "Concat" else (given[:-1], given[-1] if given else NOTHING)
        return _concat(parts, _whole(axis.values[0]) if axis.values and axis.exact else None)
    if op in ("Pack", "ParallelConcat"):
        rows = [replace(part, sizes=(1, *part.sizes)) if part.sizes is not None else part for part in given]
        return _concat(rows, 0)
    if op in _BY_SHAPE:
        return _shaped(at(_BY_SHAPE[op]))
    if op in _BY_COUNT:
        return _counted(_number(at(_BY_COUNT[op])))
    if op in _BY_AREA:
        area = at(_BY_AREA[op])
        outer = at(0).sizes
        batch, channels = (outer[0], outer[-1]) if outer is not None and len(outer) == 4 else (1, 1)
        return _sized([batch, *(_shaped(area).sizes or ()), channels])
    if op in _BY_SPECTRUM:
        return _counted(_shaped(at(1)).count // 2)
    if op in _PADDING:
        numbers = at(_PADDING[op]).values or ()
        return _padded(at(0), list(zip(numbers[::2], numbers[1::2], strict=False)))
    return _others_of_tensorflow(step, at, given)


def _others_of_tensorflow(step: Step, at: Callable[[int], Least], given: Sequence[Least]) -> Least:
    op = step.op
    if op == "Tile":
        return _repeated(at(0), at(1))
    if op == "Range":
        return _ranged(at(0), at(1), at(2))
    if op == "OneHot":
        return Least(min(at(0).count * max(_whole(_number(at(1))), 1), _ENDLESS))
    if op == "CropAndResize":
        return Least(min((at(1).sizes or (1,))[0] * _shaped(at(3)).count, _ENDLESS))
    if op in ("DynamicStitch", "ParallelDynamicStitch"):
        places = [
            number for least in given[: len(given) // 2] if least.exact for number in least.values or ()
        ]
        return _counted(max(places, default=0) + 1)
    if op in ("Gather", "GatherV2"):
        return Least(at(1).count)
    if op in ("MatrixDiag", "Diag"):
        sizes = at(0).sizes or ()
        return _sized([*sizes, sizes[-1]] if op == "MatrixDiag" and sizes else [*sizes, *sizes])
    if op in ("MatrixDiagV2", "MatrixDiagV3"):
        return _counted(max(_number(at(2)), 1) * max(_number(at(3)), 1))
    if op in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        names = ("transpose_a", "transpose_b") if op == "MatMul" else ("adj_x", "adj_y")
        one, other = (_flag(step, name) for name in names)
        return _multiplied(at(0), at(1), turned=(one, other))
    if op in _CONVOLUTIONS or op in _POOLS:
        return _convolved(step, at(0), at(1) if op in _CONVOLUTIONS else None)
    if op in ("StridedSlice", "Slice"):
        return _sliced(step, at)
    if op in ("Shape", "ShapeN"):
        return _shape_of(at(0))
    if op == "Prod":
        return _product(at(0))
    return NOTHING


_CONVOLUTIONS = _words("Conv2D Conv3D DepthwiseConv2dNative")
_POOLS = _words("MaxPool AvgPool MaxPool3D AvgPool3D")


def _convolved(step: Step, image: Least, kernel: Least | None) -> Least:
    """What a convolution or pooling with channels last leaves; at least, without its rim."""
    if image.sizes is None or _text_of(step, "data_format")[:2] == "NC":
        return NOTHING
    strides, windows = _list_of(step, "strides"), _list_of(step, "ksize")
    rank = len(image.sizes)
    if len(strides) != rank or min(strides) < 1:
        return NOTHING
    channels = image.sizes[-1]
    if kernel is not None:
        if kernel.sizes is None or len(kernel.sizes) != rank:
            return NOTHING
        windows, channels = (1, *kernel.sizes[:-2], 1), kernel.sizes[-1]
        if step.op.startswith("Depthwise"):
            channels *= kernel.sizes[-2]
    rim = tuple(window - 1 for window in windows) if _text_of(step, "padding") != "SAME" else (0,) * rank
    if len(rim) != rank:
        return NOTHING
    sizes = [max(-((lost - size) // by), 1) for size, lost, by in zip(image.sizes, rim, strides, strict=True)]
    return _sized([*sizes[:-1], channels])


def _text_of(step: Step, name: str) -> str:
    found = fields(step.attributes.get(name, memoryview(b"")))
    return next((text(value) for number, value in found if number == 2), "")


def _list_of(step: Step, name: str) -> tuple[int, ...]:
    found = fields(step.attributes.get(name, memoryview(b"")))
    listed = (part for number, value in found if number == 1 for inner, part in fields(value) if inner == 3)
    return tuple(whole for part in listed for whole in _varints(part))


def _shape_of(given: Least) -> Least:
    """What is known of a shape: of an image only that no size is below one, however many it has."""
    if given.sizes is None:
        return Least(1, None, (1,) * 8)
    return Least(len(given.sizes), (len(given.sizes),), tuple(max(size, 1) for size in given.sizes))


def _product(given: Least) -> Least:
    if given.values is None or not (given.exact or all(number >= 0 for number in given.values)):
        return NOTHING
    return Least(1, None, (_clipped(math.prod(given.values)),), given.exact)


def _sliced(step: Step, at: Callable[[int], Least]) -> Least:
    start, end = at(1), at(2)
    if step.op == "Slice":
        length = (end.values or (-1,))[0]
        return (
            _picked(at(0), start, replace(end, values=((start.values or (0,))[0] + length,)))
            if length >= 0
            else NOTHING
        )
    masks = [_whole_of(step, name) for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")]
    if any(masks) or (at(3).values or (1,)) != (1,):
        return NOTHING
    if not _whole_of(step, "shrink_axis_mask"):
        return _picked(at(0), start, end)
    values = at(0).values
    place = _whole(_number(start, 0))
    if values is None or not start.exact or not -min(len(values), _RANK) <= place < len(values):
        return NOTHING
    return Least(1, (), (values[place],), at(0).exact)


def _reshaped(op: str, given: Least, other: Least) -> Least:
    flat = _flat(given)
    if op == "Reshape" and other.values is not None and all(size > 0 for size in other.values):
        return replace(flat, sizes=_shaped(other).sizes)
    if op == "Reshape" and other.exact and other.values is not None and given.sizes is not None:
        # ONNX: 0 is the input's size at that place, -1 what the others leave; an empty tensor of TensorFlow is no matter.
        copied = {
            place: size for place, size in enumerate(given.sizes) if other.values[place : place + 1] == (0,)
        }
        left = math.prod(size for place, size in enumerate(given.sizes) if place not in copied)
        known = math.prod(_whole(size) for size in other.values if size > 0)
        rest = max((left if copied else given.count) // max(known, 1), 1)
        return replace(
            flat,
            sizes=tuple(
                _whole(size) if size > 0 else copied.get(place, 1 if size == 0 else rest)
                for place, size in enumerate(other.values)
            ),
        )
    if op in ("ExpandDims", "Unsqueeze") and given.sizes is not None and other.exact and other.values:
        sizes = list(given.sizes)
        rank = len(sizes) + len(other.values)
        for place in sorted(_whole(axis) % rank for axis in other.values):
            sizes.insert(place, 1)
        return replace(flat, sizes=tuple(sizes))
    return flat


def _flag(step: Step, name: str) -> bool:
    return any(
        number == 5 and bool(value) for number, value in fields(step.attributes.get(name, memoryview(b"")))
    )


def _whole_of(step: Step, name: str) -> int:
    found = fields(step.attributes.get(name, memoryview(b"")))
    return next((value for number, value in found if number == 3 and isinstance(value, int)), 0)


def _stated(step: Step) -> Least:
    for number, shape in fields(step.attributes.get("shape", memoryview(b""))):
        if number == 7:
            known = list(fields(shape))
            if any(kind == 3 and value for kind, value in known):
                return NOTHING
            return _sized(_dimensions(shape)) if step.op == "FakeParam" else small_image(_dimensions(shape))
    return NOTHING


def small_image(sizes: Sequence[int]) -> Least:
    """What goes into a network for a small image, where its sizes are free."""
    side = 64 if len(sizes) < 5 else 16
    return _sized(size if size > 0 else side if place else 1 for place, size in enumerate(sizes))


def _dimensions(shape: memoryview) -> list[int]:
    return [
        _signed(next((size for place, size in fields(dimension) if place == 1), 0))
        for kind, dimension in fields(shape)
        if kind == 2
    ]


def _constant(step: Step) -> Least:
    sizes: list[int] = []
    values: list[Number] = []
    kind, content = 0, memoryview(b"")
    for number, tensor in fields(step.attributes.get("value", memoryview(b""))):
        if number != 8:
            continue
        for inner, part in fields(tensor):
            if inner == 1:
                kind = part
            elif inner == 2:
                sizes += _dimensions(part)
            elif inner == 4:
                content = part
            elif inner in (7, 10, 16, 17) and len(values) <= _MOST_KNOWN:
                values += _varints(part) if isinstance(part, int) or len(part) <= 10 * _MOST_KNOWN else []
            elif inner in (5, 6) and len(values) <= _MOST_KNOWN and len(part) <= 8 * _MOST_KNOWN:
                values += _numbers(part, "f" if inner == 5 else "d")
    if not values and kind in _CODES and len(content) <= 8 * _MOST_KNOWN:
        values += _numbers(content, _CODES[kind])
    return _filled(sizes, values)


# --- ONNX: field numbers as in onnx.proto

_ONNX_CODES = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 10: "e", 11: "d", 12: "I", 13: "Q"}


def of_onnx(step: Step, given: Sequence[Least]) -> Least:
    """The least that a node of ONNX makes; see `refusal`."""
    op = step.op
    at: Callable[[int], Least] = lambda place: given[place] if place < len(given) else NOTHING  # noqa: E731
    if op == "Constant":
        return _constant_of_onnx(step)
    if op in _ARITHMETIC:
        return _arithmetic(op, given)
    if op in _ELEMENTWISE:
        return _broadcast(given if op not in ("Clip", "CumSum", "EyeLike", "Bernoulli") else given[:1])
    if op == "Where":
        return _broadcast(given)
    if op in _SAME:
        return at(0)
    if op in ("Reshape", "Squeeze", "Unsqueeze"):
        axes = _ints(step, "axes")
        return _reshaped(op, at(0), Least(1, None, axes, exact=True) if axes else at(1))
    if op in _MOVED:
        return _alike(_flat(at(0)))
    if op == "Concat":
        axis = _ints(step, "axis")
        return _concat(given, axis[0] if axis else None)
    if op in ("ConstantOfShape", "Expand"):
        shaped = _shaped(at(0) if op == "ConstantOfShape" else at(1))
        return shaped if op == "ConstantOfShape" else _broadcast([at(0), shaped])
    if op in ("RandomUniform", "RandomNormal"):
        shape = _ints(step, "shape")
        return _sized(max(size, 0) for size in shape)
    if op in ("Resize", "Upsample"):
        return _resized(step, given)
    if op == "Pad":
        return _padded_by_onnx(step, at)
    return _others_of_onnx(step, at)


def _others_of_onnx(step: Step, at: Callable[[int], Least]) -> Least:
    op = step.op
    if op == "Tile":
        return _repeated(at(0), at(1))
    if op == "Range":
        return _ranged(at(0), at(1), at(2))
    if op == "OneHot":
        return Least(min(at(0).count * max(_whole(_number(at(1))), 1), _ENDLESS))
    if op == "Gather":
        if at(0).values is not None and at(1).exact and len(at(0).sizes or (1,)) == 1:
            values = at(0).values or ()
            places = [_whole(number) for number in at(1).values or ()]
            if all(-len(values) <= place < len(values) for place in places):
                return Least(len(places), at(1).sizes, tuple(values[place] for place in places), at(0).exact)
        return Least(at(1).count)
    if op in ("MatMul", "Gemm"):
        turned = [bool((_ints(step, name) or (0,))[0]) for name in ("transA", "transB")]
        return _multiplied(at(0), at(1), turned=(turned[0], turned[1]))
    if op == "Slice":
        return _picked(at(0), at(1), at(2)) if at(4).values in (None, (1,)) else NOTHING
    if op == "Shape":
        return _shape_of(at(0))
    if op == "ReduceProd":
        return _product(at(0))
    if op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        return _counted(_number(at(0)))
    if op == "MaxUnpool":
        return _shaped(at(2))
    if op == "CenterCropPad":
        return _shaped(at(1))
    if op == "ConvTranspose":
        return _sized(max(size, 1) for size in _ints(step, "output_shape"))
    if op == "Multinomial":
        return _counted((_ints(step, "sample_size") or (1,))[0])
    if op == "DFT":
        return _counted(_number(at(1)))
    if op == "AffineGrid":
        return _shaped(at(1))
    return NOTHING


def _resized(step: Step, given: Sequence[Least]) -> Least:
    """By sizes or by factors, which stand at other places in every generation of the standard."""
    sizes = given[3] if len(given) > 3 else NOTHING
    if sizes.values:
        return _shaped(sizes)
    factors = given[2] if len(given) > 2 else given[1] if len(given) == 2 else NOTHING
    numbers = factors.values or _floats(step, "scales")
    outer = given[0].sizes if given else None
    if outer is None or len(outer) != len(numbers):
        outer = (1,) * len(numbers)
    return _sized(max(_whole(size * number), 1) for size, number in zip(outer, numbers, strict=True))


def _padded_by_onnx(step: Step, at: Callable[[int], Least]) -> Least:
    numbers: Sequence[Number] = at(1).values or _ints(step, "pads") or _ints(step, "paddings")
    half = len(numbers) // 2
    return _padded(at(0), list(zip(numbers[:half], numbers[half:], strict=False)))


def _attribute(step: Step, *numbers: int) -> Callable[[str], list[Any]]:
    return lambda name: [
        part for number, part in fields(step.attributes.get(name, memoryview(b""))) if number in numbers
    ]


def _ints(step: Step, name: str) -> tuple[int, ...]:
    parts = _attribute(step, 3, 8)(name)
    return tuple(value for part in parts for value in _varints(part))[:_MOST_KNOWN]


def _floats(step: Step, name: str) -> tuple[Number, ...]:
    parts = _attribute(step, 2, 7)(name)
    return tuple(value for part in parts for value in _numbers(part, "f"))[:_MOST_KNOWN]


def _constant_of_onnx(step: Step) -> Least:
    for name in ("value_int", "value_ints"):
        if name in step.attributes:
            whole = _ints(step, name)
            return _filled([len(whole)] if name.endswith("s") else [], whole)
    for name in ("value_float", "value_floats"):
        if name in step.attributes:
            numbers = _floats(step, name)
            return _filled([len(numbers)] if name.endswith("s") else [], numbers)
    for tensor in _attribute(step, 5)("value"):
        return of_tensor(tensor)[1]
    return NOTHING


def of_tensor(tensor: memoryview) -> tuple[str, Least]:
    """Name of an ONNX tensor, and what is known of it."""
    name, kind, sizes, content = "", 0, [], memoryview(b"")
    values: list[Number] = []
    for number, part in fields(tensor):
        if number == 1:
            sizes += _varints(part)
        elif number == 2:
            kind = part
        elif number == 8:
            name = text(part)
        elif number == 9:
            content = part
        elif number in (5, 7, 11) and len(values) <= _MOST_KNOWN:
            values += _varints(part) if isinstance(part, int) or len(part) <= 10 * _MOST_KNOWN else []
        elif number in (4, 10) and len(values) <= _MOST_KNOWN and len(part) <= 8 * _MOST_KNOWN:
            values += _numbers(part, "f" if number == 4 else "d")
    if not values and kind in _ONNX_CODES and len(content) <= 8 * _MOST_KNOWN:
        values += _numbers(content, _ONNX_CODES[kind])
    return name, _filled(sizes, values)
