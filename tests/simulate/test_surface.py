from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.folder import write_pairs
from care_bridge.simulate.recipe import parse_recipe
from care_bridge.simulate.surface import FAR_PLANES, height_map, on_surface

STEPS = """\
name: sheet
sets:
  - name: plain
    steps:
      - {step: surface, planes: 12, blobs: 0, thickness: 0.8}
"""


def picture(side: int = 64) -> Image:
    data = np.random.default_rng(5).integers(50, 1000, (side, side)).astype(np.uint16)
    return Image(data, "YX", name="cell.tif", pixel_size_um={"Y": 0.25, "X": 0.25})


def test_a_sheet_keeps_its_share_of_the_planes_and_away_from_both_ends() -> None:
    for seed in range(5):
        height = height_map((96, 96), planes=16, span=0.5, period_px=40, rng=np.random.default_rng(seed))
        # 16 planes leave 13 between one free plane at either end, of which half is risen through.
        assert np.ptp(height) == pytest.approx(6.5)
        assert height.min() >= 1
        assert height.max() <= 14


def test_the_picture_lies_on_the_sheet_and_fades_above_and_below() -> None:
    rng = np.random.default_rng(2)
    flat = picture().data.astype(float)
    height = np.full(flat.shape, 5.0)
    stack = on_surface(flat, height, planes=12, thickness=1.0, rng=rng)
    np.testing.assert_allclose(stack[5], flat)
    # A Gaussian of one plane: exp(-1/2) one plane away.
    np.testing.assert_allclose(stack[6], flat * np.exp(-0.5))


def test_blobs_lie_off_the_sheet() -> None:
    height = np.full((64, 64), 8.0)
    empty = np.zeros((64, 64))
    empty[:8, :8] = 1.0
    stack = on_surface(
        empty, height, planes=16, thickness=0.5, blobs=40, blob_px=(2, 2), rng=np.random.default_rng(3)
    )
    planes = stack[:, 20:, 20:].max(axis=(1, 2))
    assert planes.max() > 0
    # Two pixels wide, two thirds of a plane along Z: what reaches the sheet from FAR_PLANES away is under 0.1 %.
    assert FAR_PLANES == 2.5
    assert planes[8] < 1e-3 * planes.max()


def test_sources_are_stacks_and_targets_flat_on_the_disk_too(tmp_path: Path) -> None:
    write_image(tmp_path / "clean" / "cell.tif", picture())
    (tmp_path / "sheet.yaml").write_text(
        STEPS + "      - {step: psf, optics: {na: 0.8, immersion_index: 1.33, emission_nm: 600}}\n"
        "      - {step: camera, photons: [50, 60]}\n",
        encoding="utf-8",
    )
    text = (
        (tmp_path / "sheet.yaml")
        .read_text(encoding="utf-8")
        .replace("planes: 12", "planes: 12, z_step_um: 0.5")
    )
    (tmp_path / "sheet.yaml").write_text(text, encoding="utf-8")
    out = write_pairs(tmp_path / "sheet.yaml", [tmp_path / "clean"], out=tmp_path / "out").folder
    source, target = (read_image(out / side / "cell_plain.tif") for side in ("source", "target"))
    assert (source.axes, source.shape) == ("ZYX", (12, 64, 64))
    assert source.pixel_size_um["Z"] == pytest.approx(0.5)
    assert (target.axes, target.shape) == ("YX", (64, 64))
    assert read_image(out / "psf" / "plain.tif").data.ndim == 3
    with pytest.raises(InputError, match="write tiff"):
        write_pairs(tmp_path / "sheet.yaml", [tmp_path / "clean"], out=tmp_path / "npz", file_format="npz")
    assert not (tmp_path / "npz").exists()


def test_a_stack_is_not_laid_onto_a_surface() -> None:
    stack = Image(np.ones((4, 32, 32), np.float32), "ZYX", name="stack.tif")
    with pytest.raises(InputError, match="flat images of one channel"):
        list(make_pairs(parse_recipe(STEPS, name="sheet.yaml"), [stack]))
    with pytest.raises(InputError, match="at most 1"):
        parse_recipe(STEPS.replace("blobs: 0", "span: [0.5, 1.5]"), name="sheet.yaml")
