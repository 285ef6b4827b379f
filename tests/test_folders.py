"""Folders as they are: one rule for what in them is an image (care_bridge/images/listing.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from care_bridge.errors import InputError
from care_bridge.images import Image, LeftOutWarning, check_levels, kept_dtype, list_images
from care_bridge.inference.files import find_images
from care_bridge.patches import (
    EmptyImageWarning,
    common_axes,
    pairs_from_arrays,
    pairs_from_folders,
    sample_patches,
)
from care_bridge.simulate.folder import find_images as clean_images

LEFT_OUT = ("._a.tif", "a.tif.txt", "notes.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for side in ("S", "T"):
        (tmp_path / side).mkdir()
        for name in ("a.tif", "B.TIF", "c.Tiff"):
            tifffile.imwrite(tmp_path / side / name, np.ones((8, 9), np.uint16))
    for name in LEFT_OUT:
        (tmp_path / "S" / name).write_bytes(b"no image")
    (tmp_path / "S" / ".DS_Store").write_bytes(b"")
    (tmp_path / "S" / "d.tif").mkdir()
    return tmp_path


READERS = {
    "list": lambda folder: [path.name for path in list_images(folder / "S")],
    "predict": lambda folder: [path.name for path in find_images([folder / "S"])],
    "train": lambda folder: [pair.name for pair in pairs_from_folders(folder / "S", folder / "T")],
    "simulate": lambda folder: [path.name for path in clean_images([folder / "S"])],
}


@pytest.mark.parametrize("reader", READERS)
def test_every_command_takes_the_same_files_of_a_folder_and_says_what_it_leaves(
    folder: Path, reader: str
) -> None:
    with pytest.warns(LeftOutWarning) as caught:
        names = READERS[reader](folder)
    assert sorted(names) == ["B.TIF", "a.tif", "c.Tiff"]
    assert len(caught) == 1
    said = str(caught[0].message)
    assert all(name in said for name in (*LEFT_OUT, "d.tif"))
    assert ".DS_Store" not in said


def test_a_pattern_of_ones_own_says_nothing_of_what_does_not_fit(folder: Path) -> None:
    assert [path.name for path in list_images(folder / "S", "b*.tif")] == ["B.TIF"]
    with pytest.raises(InputError, match="is not understood"):
        list_images(folder, "/*.tif")


def test_a_pattern_looks_into_folders_below_where_it_says_so(folder: Path) -> None:
    found = [path.relative_to(folder).as_posix() for path in list_images(folder, "t/**/*.tif")]
    assert found == ["T/B.TIF", "T/a.tif"]


def test_an_empty_field_among_the_pairs_is_left_out_and_named() -> None:
    images = [np.random.default_rng(seed).integers(0, 900, (32, 32)).astype(np.uint16) for seed in range(3)]
    images[1][:] = 0
    pairs = pairs_from_arrays(images, images, axes="YX", names=["0.tif", "1.tif", "2.tif"])
    with pytest.warns(EmptyImageWarning, match=r"1 of 3 image pairs are left out.*1\.tif.*--all-patches"):
        patches = sample_patches(pairs, patch_size=(8, 8), n_patches_per_image=4)
    assert sorted(set(patches.origin.image.tolist())) == [0, 2]
    with pytest.raises(InputError, match=r"1 of 1 image pairs cannot be used.*(?s:.)*--all-patches"):
        sample_patches(pairs[1:2], patch_size=(8, 8), n_patches_per_image=4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_planes_among_stacks_are_said_whatever_their_names(order: tuple[int, ...]) -> None:
    shapes = ["YX", "ZYX", "ZYX"]
    pairs = []
    for number in order:
        image = np.ones((4, 8, 8)[3 - len(shapes[number]) :], np.uint16)
        pairs += pairs_from_arrays([image], [image], axes=shapes[number], names=[f"{number}.tif"])
    with pytest.raises(InputError, match=r"1 YX \(e\.g\. 0\.tif\), 2 ZYX \(e\.g\. 1\.tif\).*--network-axes"):
        common_axes(pairs)


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ("bool", "uint8"),
        ("uint8", "uint8"),
        ("int8", "int8"),
        ("uint16", "uint16"),
        ("int16", "int16"),
        ("uint32", "uint32"),
        ("int32", "int32"),
        ("int64", "int32"),
        ("uint64", "uint32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_every_type_that_comes_in_has_one_that_readers_share(stored: str, kept: str) -> None:
    assert kept_dtype(Image(np.ones((2, 3), stored), "YX")) == kept


def test_numbers_that_no_shared_type_holds_are_refused_before_the_network_runs() -> None:
    with pytest.raises(InputError, match="dtype='float64'"):
        kept_dtype(Image(np.full((2, 3), 2**40), "YX"))


def test_floats_between_0_and_1_are_no_grey_levels() -> None:
    image = Image(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "YX")
    with pytest.raises(InputError, match="from 0 to 1, which are next to no grey levels as uint16"):
        check_levels(image, np.dtype(np.uint16))
    check_levels(image, np.dtype(np.float32))
    check_levels(image.replace(data=image.data * 4000), np.dtype(np.uint16))
