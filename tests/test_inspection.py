"""Graphs of others: what is not known to compute only is refused by name, wherever in the graph it lies."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from care_bridge.bundle import read_bundle
from care_bridge.errors import InputError
from care_bridge.inspection import check_onnx
from care_bridge.java.pyimagej import FijiPlugin
from care_bridge.wire import fields


def varint(value: int) -> bytes:
    digits = b""
    while value > 0x7F:
        digits += bytes([value & 0x7F | 0x80])
        value >>= 7
    return digits + bytes([value])


def part(number: int, content: int | bytes | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


# --- TensorFlow


def node(name: str, op: str, *inputs: str, calls: str = "") -> bytes:
    """A NodeDef; `calls` is a function that an attribute names."""
    attribute = part(5, part(1, "f") + part(2, part(10, part(1, calls)))) if calls else b""
    return part(1, name) + part(2, op) + b"".join(part(3, source) for source in inputs) + attribute


def function(name: str, *nodes: bytes, arguments: tuple[str, ...] = ()) -> bytes:
    signature = part(1, name) + b"".join(part(2, part(1, word)) for word in arguments)
    return part(1, signature) + b"".join(part(3, one) for one in nodes)


ENDS = (node("input", "Placeholder"), node("output", "Identity", "input"))
SAVER = part(3, part(1, "file:0") + part(2, "saved:0") + part(3, "restored"))
OWN = (
    node("file", "Placeholder"),
    node("w", "VarHandleOp"),
    node("full", "StringJoin", "file"),
    node("shard", "ShardedFilename", "full"),
    node("save", "SaveV2", "shard", "w"),
    node("saved", "Identity", "full", "^save"),
    node("same", "Identity", "file"),
    node("values", "RestoreV2", "same"),
    node("assign", "AssignVariableOp", "w", "values"),
    node("restored", "NoOp", "^assign"),
)


def bundle(
    folder: Path,
    *nodes: bytes,
    functions: tuple[bytes, ...] = (),
    more: bytes = SAVER,
    output: str = "output",
) -> Path:
    graph = b"".join(part(1, one) for one in nodes)
    graph += part(2, b"".join(part(1, one) for one in functions))
    ends = [part(1, f"{name}:0") + part(2, 1) for name in ("input", output)]
    sides = [part(side, part(1, "x") + part(2, end)) for side, end in zip((1, 2), ends, strict=True)]
    meta = (
        part(1, part(4, "serve"))
        + part(2, graph)
        + part(5, part(1, "serving_default") + part(2, b"".join(sides)))
    )
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(part(1, 1) + part(2, meta + more))
    return folder


def test_a_bundle_that_computes_and_restores_its_own_variables_is_opened(tmp_path: Path) -> None:
    (graph,) = read_bundle(bundle(tmp_path, *ENDS, *OWN)).graphs
    assert "RestoreV2" in graph.ops


def test_what_tensorflow_2_writes_is_opened(tmp_path: Path) -> None:
    functions = (
        function("traced_save", node("s", "SaveV2", "prefix"), arguments=("prefix",)),
        function(
            "traced_restore",
            node("r", "RestoreV2", "i:output:0"),
            node("i", "Identity", "prefix"),
            arguments=("prefix",),
        ),
    )
    nodes = (
        node("file", "Placeholder"),
        node("saved", "StatefulPartitionedCall", "file", calls="traced_save"),
        node("restored", "StatefulPartitionedCall", "file", calls="traced_restore"),
    )
    (graph,) = read_bundle(bundle(tmp_path, *ENDS, *nodes, functions=functions)).graphs
    assert {"SaveV2", "RestoreV2", "StatefulPartitionedCall"} <= {*graph.ops}


REFUSED = [
    "WriteFile",
    "ReadFile",
    "PyFunc",
    "EagerPyFunc",
    "MatchingFiles",
    "PrintV2",
    "ImmutableConst",
    "MyOwnOp",
    "Save",
]


@pytest.mark.parametrize("op", REFUSED)
@pytest.mark.parametrize("place", ["used", "unused", "in a function", "in a second graph_def"])
def test_what_may_touch_more_than_numbers_is_refused_by_name(tmp_path: Path, op: str, place: str) -> None:
    functions: tuple[bytes, ...] = ()
    nodes, more = ENDS, SAVER
    if place == "used":
        nodes = (*ENDS[:1], node("bad", op, "input"), node("output", "Identity", "input", "^bad"))
    elif place == "unused":
        nodes = (*ENDS, node("bad", op))
    elif place == "in a function":
        functions = (function("inner", node("bad", op)),)
    else:
        more += part(2, part(1, node("bad", op)))  # protobuf's readers join the two
    with pytest.raises(InputError, match=rf"its graph holds {op} \(.+it was not opened") as caught:
        read_bundle(bundle(tmp_path, *nodes, functions=functions, more=more))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "functions", "more", "op"),
    [
        ((*ENDS[:1], *OWN, node("output", "Identity", "input", "^save")), (), b"", "SaveV2"),
        ((*ENDS[:1], *OWN, node("output", "Identity", "saved")), (), b"", "SaveV2"),
        (
            (*ENDS, *OWN, node("init", "NoOp", "^save")),
            (),
            part(4, part(1, "init_op") + part(2, part(1, part(1, "init")))),
            "SaveV2",
        ),
        ((*ENDS, *OWN, node("const", "Const"), node("other", "RestoreV2", "const")), (), b"", "RestoreV2"),
        (
            (*ENDS[:1], *OWN, node("output", "PartitionedCall", "input", calls="inner")),
            (function("inner", node("s", "SaveV2", "prefix"), arguments=("prefix",)),),
            b"",
            "SaveV2",
        ),
        (
            (*ENDS[:1], *OWN, node("output", "PartitionedCall", "input", calls="outer")),
            (
                function("outer", node("c", "PartitionedCall", calls="inner")),
                function("inner", node("s", "SaveV2", "prefix"), arguments=("prefix",)),
            ),
            b"",
            "SaveV2",
        ),
        (
            (*ENDS, *OWN, node("const", "Const"), node("other", "PartitionedCall", "const", calls="inner")),
            (function("inner", node("r", "RestoreV2", "prefix"), arguments=("prefix",)),),
            b"",
            "RestoreV2",
        ),
        (
            (*ENDS, *OWN),
            (function("inner", node("s", "SaveV2", "prefix"), arguments=("prefix",)),),
            part(7, part(1, part(4, part(1, "inner")))),
            "SaveV2",
        ),
    ],
    ids=[
        "the result waits for a save",
        "the result is behind a save",
        "a main op saves",
        "another file is restored",
        "a called function saves",
        "a function called by a called one saves",
        "a called function restores another file",
        "an object's function saves",
    ],
)
def test_saving_and_restoring_beyond_the_bundles_own_is_refused(
    tmp_path: Path, nodes: tuple[bytes, ...], functions: tuple[bytes, ...], more: bytes, op: str
) -> None:
    with pytest.raises(InputError, match=f"its graph holds {op}"):
        read_bundle(bundle(tmp_path, *nodes, functions=functions, more=SAVER + more))


HUGE = part(1, 1) + part(2, part(2, part(1, 10**6)) * 2)


@pytest.mark.parametrize(
    "content",
    [
        varint((1 << 40) | (2 << 3) | 2) + varint(1) + b"x",
        b"\xff" * 20,
        part(2, part(2, part(1, node("a", "NoOp")) + part(1, node("a", "Abs")))),
        part(2, 5),
        part(2, part(2, part(1, part(2, 7)))),
        part(2, part(2, part(1, node("huge", "Const") + part(5, part(1, "value") + part(2, part(8, HUGE)))))),
    ],
    ids=[
        "a number that others cut",
        "an endless number",
        "a name twice",
        "a number for a graph",
        "a number for an op",
        "a constant of 4 TB in 20 bytes",
    ],
)
def test_a_graph_that_others_would_read_otherwise_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(InputError, match=r"saved_model\.pb is damaged"):
        read_bundle(tmp_path)


def test_numbers_and_texts_of_a_message_come_in_their_order() -> None:
    assert [
        (n, v if isinstance(v, int) else bytes(v))
        for n, v in fields(memoryview(part(3, 300) + part(1, "ab")))
    ] == [
        (3, 300),
        (1, b"ab"),
    ]


def test_the_graph_that_fiji_finds_is_looked_at_as_well(tmp_path: Path) -> None:
    """Java reads a zip from its first byte on: what its list of entries leaves out, Fiji unpacks all the same."""
    bad = bundle(tmp_path / "bad", *ENDS, node("bad", "WriteFile")) / "saved_model.pb"
    good = bundle(tmp_path / "good", *ENDS) / "saved_model.pb"
    entries = []
    for name, file in (("good.zip", good), ("bad.zip", bad)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("saved_model.pb", file.read_bytes())
        entries.append((tmp_path / name).read_bytes().partition(b"PK\x01\x02"))
    (listed, mark, rest), (hidden, _, _) = entries
    path = tmp_path / "both.zip"
    # The list is the good one's, and begins behind the bad one now: its place stands six bytes before the end.
    path.write_bytes(
        listed + hidden + mark + rest[:-6] + struct.pack("<L", len(listed) + len(hidden)) + rest[-2:]
    )
    read_bundle(path)
    with pytest.raises(InputError, match=r"both\.zip: its graph holds WriteFile"):
        FijiPlugin(path)


# --- ONNX


def onnx_node(op: str, domain: str = "", *attributes: bytes) -> bytes:
    return part(4, op) + part(7, domain) + b"".join(part(5, one) for one in attributes)


def tensor(place: str) -> bytes:
    return part(13, part(1, "location") + part(2, place)) + part(14, 1)


def onnx(*parts: bytes, functions: bytes = b"") -> bytes:
    return part(1, 8) + part(7, b"".join(parts)) + functions


def test_a_network_of_standard_operations_and_own_functions_is_opened(tmp_path: Path) -> None:
    own = part(25, part(1, "Twice") + part(10, "mine") + part(7, onnx_node("Add")))
    check_onnx(onnx(part(1, onnx_node("Conv")), part(1, onnx_node("Twice", "mine")), functions=own))
    (tmp_path / "weights.bin").write_bytes(b"1")
    (tmp_path / "a.onnx").write_bytes(
        onnx(part(1, onnx_node("Conv", "ai.onnx")), part(5, tensor("weights.bin")))
    )
    check_onnx(tmp_path / "a.onnx")


NESTED = onnx_node("Foo", "mine")


@pytest.mark.parametrize(
    "model",
    [
        onnx(part(1, NESTED)),
        onnx(part(1, onnx_node("If", "", part(6, part(1, NESTED))))),
        onnx(part(1, onnx_node("If", "", part(11, part(1, NESTED))))),
        onnx(part(1, onnx_node("Add")), functions=part(25, part(1, "F") + part(10, "f") + part(7, NESTED))),
        onnx(part(1, onnx_node("Add")), functions=part(20, part(1, part(1, NESTED)))),
        onnx(part(1, onnx_node("Add")), functions=part(7, part(1, NESTED))),
    ],
    ids=["node", "branch", "one of several graphs", "function", "initialiser", "second graph"],
)
def test_onnx_operations_of_other_domains_are_refused_by_name(model: bytes) -> None:
    with pytest.raises(InputError, match=r"its graph holds mine\.Foo \(not known to compute only\)"):
        check_onnx(model)


@pytest.mark.parametrize(
    "place", ["../w.bin", "/etc/passwd", "a/../../w.bin", "C:\\w.bin", "..\\w.bin", "link", ".", "a\0b"]
)
@pytest.mark.parametrize("where", ["initialiser", "attribute", "sparse"])
def test_onnx_weights_outside_of_the_folder_are_refused(tmp_path: Path, place: str, where: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    held = {
        "initialiser": part(5, tensor(place)),
        "attribute": part(1, onnx_node("Constant", "", part(5, tensor(place)))),
        "sparse": part(15, part(1, tensor(place))),
    }
    (folder / "a.onnx").write_bytes(onnx(held[where]))
    with pytest.raises(InputError, match="no file in its own folder"):
        check_onnx(folder / "a.onnx")


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\xff" * 30, part(7, 3)])
def test_what_is_no_onnx_is_one_sentence(content: bytes) -> None:
    with pytest.raises(InputError, match="cannot be loaded: it is no ONNX file"):
        check_onnx(content)


def test_onnx_graphs_nested_without_end_are_one_sentence() -> None:
    graph = part(1, onnx_node("Add"))
    for _ in range(120):
        graph = part(1, onnx_node("If", "", part(6, graph)))
    with pytest.raises(InputError, match="nested too deep"):
        check_onnx(onnx(graph))
