import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.evaluate import read_pairs
from care_bridge.files import sha256
from care_bridge.images import write_image


@pytest.fixture
def folders(tmp_path, make_pair):
    for seed in range(2):
        for side, image in zip(("source", "target"), make_pair(seed, (32, 40)), strict=True):
            (tmp_path / side).mkdir(exist_ok=True)
            write_image(tmp_path / side / f"cell_{seed}.tif", image)
    return tmp_path


def test_folders_are_paired_by_name_and_hashed(folders):
    pairs = read_pairs(folders / "source", folders / "target")
    assert [pair.name for pair in pairs] == ["cell_0.tif", "cell_1.tif"]
    assert pairs[1].hashes[1] == sha256(folders / "target" / "cell_1.tif")


def test_two_files_are_a_pair(folders):
    (pair,) = read_pairs(folders / "source" / "cell_0.tif", folders / "target" / "cell_1.tif")
    assert pair.source.shape == (32, 40)


def test_a_folder_and_a_file_are_refused(folders):
    with pytest.raises(InputError, match="give two of a kind"):
        read_pairs(folders / "source", folders / "target" / "cell_1.tif")


def test_a_missing_file_is_named(folders):
    with pytest.raises(InputError, match=r"no file or folder at .*nowhere"):
        read_pairs(folders / "nowhere", folders / "target")


def test_a_source_without_target_is_named(folders):
    (folders / "target" / "cell_1.tif").unlink()
    with pytest.raises(InputError, match=r"cell_1\.tif: has no target"):
        read_pairs(folders / "source", folders / "target")


def test_masks_are_found_by_name(folders, make_pair):
    image = make_pair(0, (32, 40))[0]
    (folders / "masks").mkdir()
    mask = np.zeros((32, 40), np.uint8)
    mask[5:10] = 255
    write_image(folders / "masks" / "cell_1.tif", image.replace(data=mask))
    first, second = read_pairs(folders / "source", folders / "target", masks=folders / "masks")
    assert first.mask is None
    assert second.mask.sum() == 5 * 40


def test_a_mask_that_does_not_fit_or_is_empty_is_named(folders, make_pair):
    image = make_pair(0, (32, 40))[0]
    for data, words in (
        (np.ones((9, 9), np.uint8), "has shape"),
        (np.zeros((32, 40), np.uint8), "is 0 everywhere"),
    ):
        write_image(folders / "mask.tif", image.replace(data=data))
        with pytest.raises(InputError, match=rf"mask\.tif' {words}"):
            read_pairs(
                folders / "source" / "cell_0.tif",
                folders / "target" / "cell_0.tif",
                masks=folders / "mask.tif",
            )
