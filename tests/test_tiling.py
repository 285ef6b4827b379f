"""Cutting images and putting them together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from care_bridge.errors import InputError
from care_bridge.tiling import (
    BATCH,
    NONE,
    SPATIAL,
    CsbdeepTiles,
    FijiTiles,
    mirrored,
    receptive_field,
    round_up,
    run_fiji_tiles,
)


@pytest.mark.parametrize(
    ("n_depth", "kern_size", "measured"),
    # csbdeep 0.8.2, internals/predict.py, tile_overlap: measured per depth and kernel
    [(1, 3, 9), (1, 5, 17), (2, 3, 22), (2, 5, 43), (3, 3, 46), (3, 5, 92), (4, 3, 94), (4, 5, 188)],
)
def test_the_receptive_field_is_never_below_what_csbdeep_measured(n_depth, kern_size, measured):
    found = receptive_field(n_depth=n_depth, kern_size=kern_size)["Y"]
    assert measured <= found <= measured + 2**n_depth


def test_the_receptive_field_is_counted_for_each_axis():
    found = receptive_field(n_depth=1, kern_size=(1, 3, 5), pool=(1, 2, 2), axes="ZYXC")
    # y: 2 convolutions x 1 pixel x (2 at size 1 + 1 at size 2) + 1 for pooling
    assert found == {"Z": 0, "Y": 9, "X": 17}


def test_a_kernel_for_each_axis_is_asked_for():
    with pytest.raises(InputError, match="2 entries for 3 axes"):
        receptive_field(n_depth=2, kern_size=(3, 3), axes="ZYX")


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    n_tiles=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    halo=st.integers(0, 9),
    multiple=st.sampled_from([1, 2, 4]),
)
def test_what_is_kept_of_all_tiles_is_the_image(shape, n_tiles, halo, multiple):
    shape = tuple(size * multiple for size in shape)
    image = np.arange(np.prod(shape)).reshape(shape)
    tiles = CsbdeepTiles(n_tiles).split(
        shape, "YX", halo={"Y": halo, "X": halo}, size_multiple={"Y": multiple, "X": multiple}
    )
    together = np.full(shape, -1)
    for tile in tiles:
        together[tile.write] = image[tile.read][tile.inner]
    np.testing.assert_array_equal(together, image)
    assert len({image[tile.read].shape for tile in tiles}) == 1
    for tile in tiles:
        for read, inner, size in zip(tile.read, tile.inner, shape, strict=True):
            assert read.start % multiple == 0
            # what is kept is a halo away from the tile's border, unless that is the image's
            assert inner.start >= halo or read.start == 0
            assert read.stop - read.start - inner.stop >= halo or read.stop == size


@pytest.mark.parametrize(
    ("n_tiles", "axes", "message"),
    [
        ((2,), "YX", "one per axis"),
        ((2, 2, 1), "CYX", "not C"),
        ((0, 1), "YX", "at least 1"),
        ({"T": 2}, "TYX", "not T"),
    ],
)
def test_impossible_tiles_are_refused(n_tiles, axes, message):
    with pytest.raises(InputError, match=message):
        CsbdeepTiles(n_tiles).counts(axes)


def layers(position, steps):
    """Where imglib2 reads: each step mirrors a whole interval, the last one first. (Views, extendMirrorDouble)"""
    for sizes in reversed(steps):
        position = tuple(int(mirrored(np.array(p), size)) for p, size in zip(position, sizes, strict=True))
    return position


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7)),
    tiles=st.builds(
        FijiTiles,
        n_tiles=st.integers(1, 13),
        block_multiple=st.sampled_from([1, 2, 4, 8]),
        overlap=st.integers(0, 12),
        batch_size=st.integers(1, 4),
    ),
)
@settings(deadline=None, max_examples=60)
def test_tiles_read_what_imglib2s_nested_views_read(shape, tiles):
    layout = tiles.layout(shape, [SPATIAL, SPATIAL, BATCH])
    steps, sizes = [], list(shape)
    for d in (2, 0, 1):  # batches first, then dimensions by their place; each step sees the sizes before it
        steps.append(tuple(sizes))
        sizes[d] = layout.filled[d]
    image = np.arange(np.prod(shape)).reshape(shape)
    for position in layout.positions():
        tile = layout.read(image, position)
        starts = [n * block - pad for n, block, pad in zip(position, layout.blocks, layout.pad, strict=True)]
        corners = np.array(list(np.ndindex(*tile.shape)))
        for corner in corners[:: max(1, len(corners) // 50)]:
            place = layers(tuple(int(s + c) for s, c in zip(starts, corner, strict=True)), steps)
            assert tile[tuple(corner)] == image[place]


def test_eight_tiles_of_a_square_image_are_nine_and_rows_are_lost():
    layout = FijiTiles().layout((97, 97), [SPATIAL, SPATIAL])
    assert layout.counts == (3, 3)
    assert layout.blocks == (32, 32)  # 97 // 3 = 32
    assert layout.lost == (1, 1)
    assert layout.seams(0) == [32, 64]


def test_lost_rows_are_copies_of_the_results_before_them():
    image = np.arange(98.0)[:, np.newaxis].repeat(65, 1)
    layout = FijiTiles().layout(image.shape, [SPATIAL, SPATIAL])
    result = run_fiji_tiles(layout, image, lambda tile: tile)
    np.testing.assert_array_equal(result[:96], image[:96])
    np.testing.assert_array_equal(result[96:], image[[95, 94]])


def test_one_tile_has_no_margin_and_is_filled_at_the_far_end():
    layout = FijiTiles(n_tiles=1, block_multiple=4).layout((5,), [SPATIAL])
    np.testing.assert_array_equal(layout.source(0, 0), [0, 1, 2, 3, 4, 4, 3, 2])


def test_all_but_the_last_filled_dimension_are_mirrored_twice():
    # 5 rows in 2 tiles of 4: filled to 8. Row 8 is mirrored to 7, then to 2; along the last dimension at once to 1.
    layout = FijiTiles(n_tiles=4, block_multiple=4, overlap=1).layout((5, 5), [SPATIAL, SPATIAL])
    assert layout.filled == (8, 8)
    np.testing.assert_array_equal(layout.source(0, 1), [3, 4, 4, 3, 2, 2])
    np.testing.assert_array_equal(layout.source(1, 1), [3, 4, 4, 3, 2, 1])


def test_batches_are_evened_out_and_never_get_margins():
    layout = FijiTiles(n_tiles=2, block_multiple=4, overlap=8, batch_size=3).layout(
        (16, 8, 7), [SPATIAL, SPATIAL, BATCH]
    )
    assert layout.counts == (2, 1, 3)
    assert layout.blocks == (8, 8, 3)
    assert layout.pad == (8, 0, 0)


def test_channels_are_left_alone():
    layout = FijiTiles().layout((64, 64, 3), [SPATIAL, SPATIAL, NONE])
    assert (layout.counts[2], layout.blocks[2], layout.pad[2]) == (1, 3, 0)


@pytest.mark.parametrize("name", ["n_tiles", "block_multiple", "batch_size"])
def test_fiji_tiles_must_be_whole_numbers_from_one(name):
    with pytest.raises(InputError, match=name):
        FijiTiles(**{name: 0})


def test_rounding_up():
    assert [round_up(size, 32) for size in (1, 32, 43)] == [32, 32, 64]
