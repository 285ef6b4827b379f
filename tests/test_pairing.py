"""Which file belongs to which: equal names, names that differ by a suffix, and pairs that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.images import Image, only_channel, write_image
from care_bridge.patches import pairs_from_folders
from care_bridge.patches.pairing import pair_files
from care_bridge.patches.pairs import equal_pixels
from care_bridge.training.data import data_from_folders, network_axes
from care_bridge.words import counted, listed


def names(*stems: str, ending: str = ".tif") -> list[Path]:
    return [Path(f"{stem}{ending}") for stem in stems]


@pytest.mark.parametrize(
    ("sources", "targets", "expected"),
    [
        (["a", "b"], ["b", "a"], [("a", "a"), ("b", "b")]),
        (["a_noisy", "b_noisy"], ["a_gt", "b_gt"], [("a_noisy", "a_gt"), ("b_noisy", "b_gt")]),
        (["c1_low", "c2_low"], ["c1_GT", "c2_GT"], [("c1_low", "c1_GT"), ("c2_low", "c2_GT")]),
        (["BPAE_R_noisy", "fish_noisy"], ["fish_gt_avg50", "BPAE_R_gt_avg50"], [
            ("BPAE_R_noisy", "BPAE_R_gt_avg50"), ("fish_noisy", "fish_gt_avg50")]),
        (["c1", "c2"], ["c1_gt", "c2_gt", "c3_gt"], [("c1", "c1_gt"), ("c2", "c2_gt")]),
        (["low_1", "low_2"], ["high_1", "high_2"], [("low_1", "high_1"), ("low_2", "high_2")]),
        (["x_raw_1", "x_raw_2"], ["x_clean_1", "x_clean_2"], [
            ("x_raw_1", "x_clean_1"), ("x_raw_2", "x_clean_2")]),
        (["one_noisy"], ["one_gt"], [("one_noisy", "one_gt")]),
        # No pairs: numbers tell images apart, and what differs must be the same for all.
        (["c1"], ["c2"], [("c1", None)]),
        (["a_noisy", "b_noisy"], ["a_gt", "c_gt"], [("a_noisy", None), ("b_noisy", None)]),
        # One equal name says that names are meant to be equal.
        (["a", "b"], ["a", "b_gt"], [("a", "a"), ("b", None)]),
    ],
)  # fmt: skip
def test_names_are_paired_by_what_all_of_them_differ_in(sources, targets, expected):
    found = pair_files(names(*sources), names(*targets))
    assert [(file.stem, partner and partner.stem) for file, partner in found] == expected


def test_an_extension_is_no_part_of_a_name():
    ((_, partner),) = pair_files(names("a", ending=".tif"), names("a", ending=".TIFF"))
    assert partner == Path("a.TIFF")
    ((_, partner),) = pair_files(names("a", ending=".ome.tif"), names("a_gt"))
    assert partner == Path("a_gt.tif")


def test_given_suffixes_choose_files_also_in_one_folder():
    both = names("a_noisy", "a_gt", "b_noisy", "b_gt", "notes")
    found = pair_files(both, both, source_suffix="_noisy", target_suffix="_gt")
    assert [(file.stem, partner.stem) for file, partner in found] == [
        ("a_noisy", "a_gt"),
        ("b_noisy", "b_gt"),
    ]
    found = pair_files(names("a", "a_gt"), names("a", "a_gt"), target_suffix="_gt")
    assert [(file.stem, partner.stem) for file, partner in found] == [("a", "a_gt")]
    with pytest.raises(InputError, match=r"none of 5 source files ends with '_low'"):
        pair_files(both, both, source_suffix="_low", target_suffix="_gt")


def test_names_that_pair_in_several_ways_are_refused():
    with pytest.raises(InputError, match="several ways"):
        pair_files(names("a_low", "b_low"), names("a_gt", "b_gt", "a_mask", "b_mask"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for stem in ("cell_a", "cell_b"):
        for folder, suffix in (("low", "_noisy"), ("high", "_gt")):
            image = Image(draw.integers(0, 999, (2, 32, 32)).astype(np.uint16), "CYX")
            write_image(tmp_path / folder / f"{stem}{suffix}.tif", image)
    return tmp_path


def test_a_pair_knows_its_two_files_and_takes_one_channel(folders: Path):
    pairs = pairs_from_folders(folders / "low", folders / "high", channel=1)
    assert [tuple(file.name for file in pair.files) for pair in pairs] == [
        ("cell_a_noisy.tif", "cell_a_gt.tif"),
        ("cell_b_noisy.tif", "cell_b_gt.tif"),
    ]
    assert (pairs[0].source.axes, pairs[0].source.shape) == ("YX", (32, 32))
    whole = pairs_from_folders(folders / "low", folders / "high")[0].source.open()
    np.testing.assert_array_equal(pairs[0].source.open(), whole[1])
    with pytest.raises(InputError, match=r"channel=2 is not in 'cell_a_noisy\.tif', which has channels 0-1"):
        pairs_from_folders(folders / "low", folders / "high", channel=2)


def test_training_hashes_the_files_of_a_pair_whatever_they_are_called(folders: Path):
    from care_bridge.files import sha256

    data = data_from_folders(
        folders / "low",
        folders / "high",
        patch_size=(8, 8),
        n_patches_per_image=20,
        channel=0,
        foreground=None,
    )
    assert data.n_channel_in == data.n_channel_out == 1
    assert data.provenance["target"] == {
        name: sha256(folders / "high" / name) for name in ("cell_a_gt.tif", "cell_b_gt.tif")
    }


def test_pairs_that_are_their_own_truth_are_refused_before_patches_are_cut(folders: Path):
    with pytest.raises(InputError, match="source and target are the same folder"):
        network_axes(folders / "low", folders / "low")
    (folders / "copy").mkdir()
    for file in (folders / "low").iterdir():
        (folders / "copy" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"2 of 2 image pairs cannot be used(.|\n)*hold the same pixels"):
        data_from_folders(folders / "low", folders / "copy", patch_size=(8, 8), look=True)


def test_equal_pixels_are_told_from_an_empty_field_and_from_nearly_equal_ones():
    image = np.arange(20.0).reshape(4, 5)
    assert equal_pixels(image, image.astype(np.float32))
    nearly = image.copy()
    nearly[3, 4] += 1
    assert not equal_pixels(image, nearly)
    assert not equal_pixels(np.zeros((4, 5)), np.zeros((4, 5)))
    image[0, 0] = np.nan
    assert equal_pixels(image, image.copy())


def test_an_image_without_channels_has_channel_0_only():
    image = Image(np.zeros((4, 5), np.uint8), "YX", name="a.tif")
    assert only_channel(image, 0) is only_channel(image, None) is image
    with pytest.raises(InputError, match="which has one channel, 0"):
        only_channel(image, 1)


def test_numbers_agree_with_their_nouns():
    assert [counted(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert counted(2, "patch") == "2 patches"
    assert counted(2, "axis", "axes") == "2 axes"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"


@pytest.mark.tf
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "{low}", "{copy}", "--out", "{new}", "--patch-size", "8,8"],
        ["train", "{low}", "{low}", "--out", "{new}", "--patch-size", "8,8"],
        ["evaluate", "model", "{low}", "{copy}", "--out", "{new}/r.html"],
        ["sweep", "{low}", "{copy}", "--out", "{new}", "--grid", "seed=1"],
        ["cross-eval", "--model", "model", "--data", "a={low},{copy}", "--out", "{new}"],
        ["cross-eval", "--model", "model", "--data", "a={low},{low}", "--out", "{new}"],
        ["demo", "--source", "{low}", "--target", "{copy}", "--out", "{new}"],
        ["demo", "--source", "{low}", "--target", "{low}", "--out", "{new}"],
    ],
)  # fmt: skip
def test_every_command_refuses_a_source_that_is_its_own_truth(arguments: list[str], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from care_bridge.cli import app

    draw = np.random.default_rng(0)
    for folder in ("low", "high"):
        for stem in "ab":
            write_image(
                tmp_path / folder / f"{stem}.tif",
                Image(draw.integers(0, 999, (64, 64)).astype(np.uint16), "YX"),
            )
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "low").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    places = {name: tmp_path / name for name in ("low", "high", "copy", "new")}
    result = CliRunner().invoke(app, [argument.format(**places) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert "the same folder" in result.stderr or "hold the same pixels" in result.stderr
    assert not list(tmp_path.glob("new/*"))
