"""What the plugin makes of zips with something odd, against recordings of the real plugin."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from care_bridge.bundle import read_bundle
from care_bridge.errors import InputError, WorkerError
from care_bridge.plugin.emulation import run_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginError
from care_bridge.plugin.unzipping import Unpacked, unpack

SHARED = Path(os.environ.get("CARE_BRIDGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
ODD = SHARED / "fiji-recorded" / "unusual-zips"
RECORDED = json.loads((ODD / "results.json").read_text()) if (ODD / "results.json").exists() else {}
RUNS = ("64_t1", "64_t4", "40x44_t1")  # in this order, with one cache folder


def runs(path):
    """What the plugin unpacks, and why its first run and any later one find no network; "" where they do.

    A zip is unpacked once, so later runs go by what the first one left.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = unpack(path, folder)
        try:
            later = "" if read_bundle(folder).signature else "?"
        except InputError as error:
            later = str(error)
    return found, found.reason or later, later


@functools.cache
def tensorflow_2(name):
    from care_bridge.inference.savedmodel import SavedModelNetwork

    return SavedModelNetwork(ODD / f"{name}.zip")


@pytest.mark.tf
@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_zips_load_or_fail_as_in_the_plugin(name):
    found, first, later = runs(ODD / f"{name}.zip")
    refused_by_tensorflow = False
    for number, run in enumerate(RUNS):
        recorded = RECORDED[name]["1.15.0"][run]
        if later if number else first:
            assert recorded["output"] is None
            assert number or recorded["messages"][0].startswith(found.reason)
            continue
        if any("NodeDef mentions attr" in line for line in recorded["messages"]):
            refused_by_tensorflow = (
                True  # a matter of the graph: tests of the tables of operations and of TensorFlow 1.x
            )
            continue
        check_result(tensorflow_2(name), name, run, recorded)
    assert refused_by_tensorflow == (name in {"attrs_not_stripped_explicit_paddings", "keras3_export"})


def check_result(network, name, run, recorded):
    data = np.load(ODD / ("input_64.npy" if run.startswith("64") else "input_40x44.npy"))
    # tiles of 32 with margins of 16: what makes the halving network's tiles vanish ("/ by zero")
    options = PluginOptions(nTiles=4 if run.endswith("t4") else 1, blockMultiple=4, overlap=16)
    if recorded["output"] is None:
        with pytest.raises(PluginError) as caught:
            run_plugin(network, data, "YX", options=options)
        assert recorded["messages"][-1].endswith(caught.value.reason)
        return
    result = run_plugin(network, data, "YX", options=options)
    assert [result.axes, list(result.data.shape)] == recorded["output"]
    expected = np.load(ODD / f"{name}.{run}.npy")
    np.testing.assert_allclose(result.data, expected, rtol=0, atol=2e-5 * np.ptp(expected))


@pytest.fixture(scope="module")
def sessions(tf1_ready):
    from care_bridge.java.tf1 import Tf1Session

    with Tf1Session("1.15.0") as new, Tf1Session("1.12.0") as old:
        yield {"1.15.0": new, "1.12.0": old}


@pytest.mark.java
@pytest.mark.parametrize("version", ["1.15.0", "1.12.0"])
@pytest.mark.parametrize("name", [name for name in sorted(RECORDED) if not runs(ODD / f"{name}.zip")[1]])
def test_recorded_zips_load_or_fail_in_the_same_tensorflow(sessions, name, version):
    recorded = RECORDED[name][version]
    refusals = [line for run in RUNS for line in recorded[run]["messages"] if "NodeDef mentions attr" in line]
    if refusals:
        attribute = re.search(r"NodeDef mentions attr '(\w+)' not in Op<name=(\w+)", refusals[0]).group(0)
        with pytest.raises(WorkerError) as caught:
            sessions[version].open(ODD / f"{name}.zip")
        assert attribute in str(caught.value)
        return
    network = sessions[version].open(ODD / f"{name}.zip")
    for run in RUNS:
        check_result(network, name, run, recorded[run])


def write(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else "x")
    return path


@pytest.fixture
def unpacked(tmp_path):
    """Unpacks a file and gives what was left behind."""

    def run(path):
        folder = tmp_path / f"{path.stem}-cache"
        folder.mkdir()
        return unpack(path, folder)

    return run


def test_a_file_without_its_folders_entry_ends_the_unpacking(tmp_path, unpacked):
    found = unpacked(write(tmp_path / "a.zip", "saved_model.pb", "variables/variables.index", "meta.json"))
    assert found.files == ("saved_model.pb",)
    assert found.reason.startswith("java.io.FileNotFoundException: <model cache>/variables/variables.index")


def test_what_stands_before_it_decides_about_later_runs(tmp_path):
    late, _, late_later = runs(write(tmp_path / "late.zip", "saved_model.pb", "assets/x"))
    early, _, early_later = runs(write(tmp_path / "early.zip", "assets/x", "saved_model.pb"))
    assert "is damaged" in late_later  # it is there, though this one holds no model
    assert "without saved_model.pb" in early_later
    assert "an entry for every folder" in late.advice
    assert late.advice == early.advice


def test_with_its_entry_all_is_unpacked(tmp_path, unpacked):
    found = unpacked(write(tmp_path / "a.zip", "variables/", "variables/variables.index", "saved_model.pb"))
    assert found == Unpacked(("variables/variables.index", "saved_model.pb"))


def test_a_nested_folder_entry_makes_its_parents_too(tmp_path, unpacked):
    assert unpacked(write(tmp_path / "a.zip", "a/b/", "a/x", "a/b/y")).files == ("a/x", "a/b/y")


def test_an_entry_that_leaves_the_folder_is_bad(tmp_path, unpacked):
    assert "Bad zip entry" in unpacked(write(tmp_path / "a.zip", "../x")).reason
    assert not (tmp_path / "x").exists()


def test_a_compression_that_java_cannot_read_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("saved_model.pb", "x")
    assert "invalid compression method" in runs(path)[0].reason


class Pipe(io.BytesIO):
    """What cannot be wound back, so that sizes are written behind the content."""

    def seekable(self):
        return False

    def tell(self):
        raise io.UnsupportedOperation


@pytest.mark.parametrize(
    ("method", "reason"), [(zipfile.ZIP_DEFLATED, ""), (zipfile.ZIP_STORED, "EXT descriptor")]
)
def test_sizes_behind_the_content_are_read_only_when_deflated(tmp_path, unpacked, method, reason):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.writestr("saved_model.pb", "x" * 100)
        archive.writestr("meta.json", "{}")
    (tmp_path / "a.zip").write_bytes(pipe.getvalue())
    found = unpacked(tmp_path / "a.zip")
    assert reason in found.reason
    assert len(found.files) == (0 if reason else 2)


def test_a_zip_that_was_cut_off_gives_what_stands_before_the_cut(tmp_path, unpacked):
    path = write(tmp_path / "whole.zip", "variables/", "saved_model.pb", "meta.json")
    data = path.read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(data[: data.index(b"meta.json") + 9])
    found = unpacked(cut)
    assert found.files == ("saved_model.pb", "meta.json")
    assert "unexpected EOF" in found.reason
    deflated = tmp_path / "deflated.zip"
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("saved_model.pb", np.random.default_rng(0).bytes(1000))
    deflated.write_bytes(deflated.read_bytes()[:500])
    assert "Unexpected end of ZLIB" in unpacked(deflated).reason


def test_a_changed_byte_is_seen(tmp_path, unpacked):
    path = write(tmp_path / "a.zip", "saved_model.pb")
    data = bytearray(path.read_bytes())
    data[data.index(b"saved_model.pb") + 14] ^= 1
    path.write_bytes(data)
    assert "invalid entry CRC" in unpacked(path).reason


@pytest.mark.parametrize("content", [b"", b"latin text", b"PK\x03\x04 cut off", b"#!/bin/sh\nPK\x03\x04"])
def test_what_is_no_zip_gives_no_model_and_no_exception(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    found, _, later = runs(path)
    assert found.reason in ("", "java.io.EOFException")
    assert "without saved_model.pb" in later


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        unpack(tmp_path / "none.zip", tmp_path)


def from_parts(path, *parts, how=zipfile.ZIP_DEFLATED, zip64=False):
    """A zip of (name, content), as `zipfile` streams it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_STORED if name.endswith("/") else how
            with archive.open(entry, "w", force_zip64=zip64) as file:
                file.write(content)
    return path


@pytest.fixture
def model(write_bundle, tmp_path):
    with zipfile.ZipFile(write_bundle(tmp_path / "whole.zip")) as archive:
        return archive.read("saved_model.pb")


# What follows is what the real plugin said to the same zips: CSBDeep 0.6.0, imagej-tensorflow 1.1.9, Java 17,
# TensorFlow 1.15.0; first and second run.


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_in_the_zip64_way_are_read(model, tmp_path, how):
    made = from_parts(tmp_path / "z.zip", ("variables/", b""), ("saved_model.pb", model), how=how, zip64=True)
    assert not runs(made)[1]


def test_a_name_from_the_root_lies_in_the_folder_for_java(model, tmp_path):
    assert not runs(from_parts(tmp_path / "z.zip", ("/saved_model.pb", model)))[1]
    found, _, _ = runs(from_parts(tmp_path / "y.zip", ("../saved_model.pb", model)))
    assert found.reason == "java.lang.RuntimeException: Bad zip entry"


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (22, "invalid entry size (expected 7 but got"),
        (18, "invalid entry compressed size (expected 7 but got"),
    ],
)
def test_a_wrong_size_ends_the_first_run_only(model, tmp_path, place, what):
    made = from_parts(tmp_path / "z.zip", ("saved_model.pb", model), how=zipfile.ZIP_DEFLATED)
    content = bytearray(made.read_bytes())
    content[place : place + 4] = (7).to_bytes(4, "little")
    made.write_bytes(content)
    found, _, later = runs(made)
    assert found.reason.startswith(f"java.util.zip.ZipException: {what}")
    assert later == ""


@pytest.mark.tf
@pytest.mark.parametrize("name", [name for name in sorted(RECORDED) if runs(ODD / f"{name}.zip")[1]])
def test_a_zip_that_the_plugin_gets_no_network_from_is_not_accepted(name):
    from care_bridge.checking.bundles import check_bundle

    assert not check_bundle(ODD / f"{name}.zip", versions=()).accepted


# What TensorFlow says: no meta graph def matching supplied tags; read less bytes than requested.
@pytest.mark.parametrize("content", [b"", b"junk"])
def test_what_is_no_graph_is_told_when_it_is_judged(tmp_path, content):
    from care_bridge.checking.bundles import check_bundle

    report = check_bundle(from_parts(tmp_path / "z.zip", ("saved_model.pb", content)))
    assert [found.rule for found in report.rules if found.result == "failed"] == [
        "saved_model.pb can be read"
    ]
