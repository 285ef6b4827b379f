"""Looking into a bundle without TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from care_bridge.bundle import Meta, find_bundle, read_bundle, read_meta
from care_bridge.errors import InputError

WriteBundle = Callable[..., Path]


def test_names_shapes_ops_and_entries_are_read(tmp_path: Path, write_bundle: WriteBundle) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "a.zip", shape=(None, 3, None, 2)))
    assert bundle.entries == ("variables/", "saved_model.pb")
    (graph,) = bundle.graphs
    assert graph.tags == ("serve",)
    assert graph.ops == ("Add", "Placeholder")
    assert graph.producer == 27
    (feed,), (fetch,) = bundle.signature.inputs, bundle.signature.outputs
    assert (feed.key, feed.name, feed.dtype, feed.shape) == ("input", "input:0", 1, (None, 3, None, 2))
    assert (fetch.key, fetch.name) == ("output", "output:0")


def test_a_folder_is_read_as_well_and_loaded_in_place(tmp_path: Path, write_bundle: WriteBundle) -> None:
    shutil.unpack_archive(write_bundle(tmp_path / "a.zip"), tmp_path / "model")
    bundle = read_bundle(tmp_path / "model")
    assert bundle.entries == ("saved_model.pb", "variables/")
    assert bundle.unpack(tmp_path / "elsewhere") == tmp_path / "model"


@pytest.mark.parametrize("name", ["u2d_k3", "u2d_batch1", "proj3d", "u3d_2to2"])
def test_the_same_stands_there_for_tensorflow(shared: Path, name: str) -> None:
    # As TensorFlow 2.21's own saved_model_pb2 reads them.
    expected = {
        "u2d_k3": ((None, None, None, 1), (None, None, None, 1)),
        "u2d_batch1": ((1, None, None, 1), (None, None, None, 1)),
        "proj3d": ((None, None, None, None, 1), (None, None, None, 1)),
        "u3d_2to2": ((None, None, None, None, 2), (None, None, None, None, 2)),
    }
    signature = read_bundle(shared / "fiji-recorded" / "models" / f"{name}.zip").signature
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == expected[name]


def test_no_tensorflow_is_loaded() -> None:
    code = "import sys, care_bridge.bundle, care_bridge.java.tf1; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tensorflow", "jpype", "google.protobuf"} & set(loaded)


def test_a_zip_with_one_folder_too_deep_names_the_folder(tmp_path: Path, write_bundle: WriteBundle) -> None:
    with pytest.raises(InputError, match=r"lies in the folder 'model/' of the zip, one too deep for Fiji"):
        read_bundle(write_bundle(tmp_path / "a.zip", prefix="model/"))


def test_what_is_no_bundle_is_told_in_one_sentence(tmp_path: Path, write_bundle: WriteBundle) -> None:
    with pytest.raises(InputError, match="no such bundle"):
        read_bundle(tmp_path / "absent.zip")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(InputError, match="not a zip file"):
        read_bundle(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("rdf.yaml", "")
    with pytest.raises(InputError, match=r"a zip without saved_model\.pb"):
        read_bundle(tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"a folder without saved_model\.pb"):
        read_bundle(tmp_path)
    for content in (b"", b"\x12\xff\xff", b"\x0f", b"\x80" * 30):
        with zipfile.ZipFile(tmp_path / "damaged.zip", "w") as archive:
            archive.writestr("saved_model.pb", content)
        with pytest.raises(InputError, match=r"is damaged|holds no graph"):
            read_bundle(tmp_path / "damaged.zip")


def test_of_a_probabilistic_models_two_bundles_the_whole_network_is_taken(tmp_path: Path) -> None:
    for name in ("fiji.zip", "fiji_mean.zip"):
        (tmp_path / name).write_bytes(b"PK")
    assert find_bundle(tmp_path) == tmp_path / "fiji.zip"
    (tmp_path / "fiji.zip").unlink()
    assert find_bundle(tmp_path) == tmp_path / "fiji_mean.zip"


def test_a_zip_cut_short_is_told(tmp_path: Path, write_bundle: WriteBundle) -> None:
    path = write_bundle(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a zip file"):
        read_bundle(path)


def test_another_tag_or_signature_is_told_with_what_is_there(
    tmp_path: Path, write_bundle: WriteBundle
) -> None:
    tagged = read_bundle(write_bundle(tmp_path / "tag.zip", tag="train"))
    with pytest.raises(InputError, match="no graph has the tag 'serve'; tags found: train"):
        _ = tagged.signature
    named = read_bundle(write_bundle(tmp_path / "name.zip", signature="predict"))
    with pytest.raises(InputError, match="no signature 'serving_default'; signatures found: predict"):
        _ = named.signature


def test_an_entry_that_points_outside_is_not_unpacked(tmp_path: Path, write_bundle: WriteBundle) -> None:
    path = write_bundle(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "here")
    with pytest.raises(InputError, match=r"'\.\./outside\.txt' points outside"):
        read_bundle(path).unpack(tmp_path / "unpacked")
    assert not (tmp_path / "outside.txt").exists()


def with_meta(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("meta.json", text)
    return path


FULL = {
    "type": "CARE",
    "version": "0.8.2",
    "probabilistic": False,
    "axes": "ZYXC",
    "axes_div_by": [2, 4, 4, 1],
    "tile_overlap": [5, 22, 22, 0],
    "care_bridge": {"normalisation": {"pmin": 1, "pmax": 99.9}, "fiji": {"nTiles": 1, "tiles_allowed": True}},
}


def test_what_stands_beside_the_graph_is_read_from_zip_and_folder_alike(
    tmp_path: Path, write_bundle: WriteBundle
) -> None:
    path = with_meta(write_bundle(tmp_path / "a.zip"), json.dumps(FULL))
    bundle = read_bundle(path)
    meta = bundle.meta
    assert (meta.type, meta.version, meta.probabilistic, meta.axes) == ("CARE", "0.8.2", False, "ZYXC")
    assert (meta.size_multiple, meta.halo) == ({"Z": 2, "Y": 4, "X": 4}, {"Z": 5, "Y": 22, "X": 22})
    assert (meta.pmin, meta.pmax, meta.fiji) == (1, 99.9, {"nTiles": 1, "tiles_allowed": True})
    folder = bundle.unpack(tmp_path / "unpacked")
    assert read_bundle(folder).meta == read_meta(folder) == read_meta(path) == meta


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"somebody": "else\'s"}'])
def test_a_meta_of_somebody_else_says_nothing(tmp_path: Path, write_bundle: WriteBundle, text: str) -> None:
    path = with_meta(write_bundle(tmp_path / "a.zip"), text)
    assert read_bundle(path).meta == read_meta(path) == Meta()


def test_what_is_no_bundle_has_no_meta(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    for path in (tmp_path, tmp_path / "absent.zip", tmp_path / "text.zip"):
        assert read_meta(path) == Meta()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"type": 3}, "type in its meta.json is 3, and must be a text"),
        ({"probabilistic": "no"}, "probabilistic in its meta.json is 'no', and must be true or false"),
        ({"axes_div_by": 4}, "axes_div_by in its meta.json is 4, and must be a list of whole numbers"),
        ({"tile_overlap": [5, 22, 2.5, 0]}, "tile_overlap .* must be a list of whole numbers"),
        (
            {"axes_div_by": [4, 4]},
            "axes_div_by .* must be a list of 4 whole numbers, one for each of the axes ZYXC",
        ),
        ({"care_bridge": []}, r"care_bridge in its meta.json is \[\], and must be a block"),
        (
            {"care_bridge": {"normalisation": {"pmin": "2"}}},
            "care_bridge.normalisation.pmin .* must be a number",
        ),
        (
            {"care_bridge": {"fiji": {"nTiles": [1]}}},
            r"care_bridge.fiji.nTiles .* is \[1\], and must be a number",
        ),
    ],
)
def test_a_wrong_type_in_the_meta_is_one_sentence_that_names_the_key(
    tmp_path: Path, write_bundle: WriteBundle, changed: dict[str, object], sentence: str
) -> None:
    path = with_meta(write_bundle(tmp_path / "a.zip"), json.dumps(FULL | changed))
    bundle = read_bundle(path)  # the graph runs all the same
    assert bundle.signature.inputs
    with pytest.raises(InputError, match=rf"a\.zip: {sentence}") as caught:
        _ = bundle.meta
    assert "\n" not in str(caught.value)
