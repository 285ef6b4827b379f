"""Values to type in Fiji: no seams, no lost rows, within the memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.plugin.advice import advise, expected_differences
from care_bridge.plugin.plan import PluginRefusal
from care_bridge.predictor import Runtime, UnhintedNetwork


@given(
    shape=st.tuples(st.integers(2, 3000), st.integers(2, 3000)),
    n_depth=st.integers(1, 4),
    kern_size=st.sampled_from([3, 5, 7]),
    memory_mib=st.integers(10, 2000),
)
@settings(max_examples=60, deadline=None)
def test_advised_values_lose_no_rows_and_see_far_enough(shape, n_depth, kern_size, memory_mib):
    found = advise(shape, "YX", n_depth=n_depth, kern_size=kern_size, memory_bytes=memory_mib << 20)
    assert not found.plan.lost
    assert found.options.overlap >= found.halo_px
    assert found.options.overlap % 2**n_depth == 0
    assert found.options.blockMultiple % 2**n_depth == 0
    assert found.fits == (found.network_bytes <= memory_mib << 20)
    assert found.fits or "even the smallest tiles" in found.notes[0]


def test_one_tile_is_advised_where_it_fits():
    found = advise((512, 512), "YX")
    assert (found.options.nTiles, found.options.blockMultiple, found.options.overlap) == (1, 4, 44)
    assert found.notes == ()


def test_the_size_that_the_defaults_lose_rows_at_is_cut_otherwise():
    found = advise((97, 97), "YX", kern_size=3, memory_bytes=6 << 20)
    assert found.plan.n_tiles > 1
    assert not found.plan.lost


def test_a_filled_up_image_is_said_to_differ():
    assert "filled up" in advise((97, 96), "YX").notes[0]


def test_a_projection_gets_one_tile():
    found = advise((40, 500, 500), "ZYX", space="ZYX", kern_size=3, output_rank_lost=1, memory_bytes=1 << 20)
    assert found.options.nTiles == 1
    assert "cannot be cut" in found.notes[0]


def test_what_the_plugin_refuses_cannot_be_advised():
    with pytest.raises(PluginRefusal, match="Z or TIME"):
        advise((3, 4, 64, 64), "TZYX")


def test_memory_must_be_something():
    with pytest.raises(InputError, match="memory_bytes=0"):
        advise((64, 64), "YX", memory_bytes=0)


class Blur(UnhintedNetwork):
    """A mean of 5 x 5 pixels with zeros outside, as a convolution sees them."""

    runtime = Runtime("numpy")
    input_shape = output_shape = (None, None, None, 1)

    def __call__(self, tensor):
        padded = np.pad(tensor, ((0, 0), (2, 2), (2, 2), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
        return views.mean((-2, -1)).astype(np.float32)


def test_the_expected_difference_is_nothing_with_one_tile_and_only_at_the_border_with_more():
    image = Image(np.random.default_rng(0).integers(0, 1000, (96, 96)).astype(np.uint16), "YX")
    predictor = NetworkPredictor(Blur(), size_multiple=1, halo=2)
    one = advise(image.shape, "YX", size_multiple={}, halo={"Y": 2, "X": 2})
    advised, defaults = expected_differences(predictor, image, one.options)
    assert advised.tiles_max == 0
    assert advised.csbdeep_max > 0.001  # other percentiles, and no floor
    assert defaults.tiles_max > 0.1  # mirrored instead of zeros
    assert defaults.interior_max < 1e-6


def test_lost_rows_are_seen_in_the_expected_difference():
    image = Image(np.random.default_rng(0).integers(0, 1000, (98, 98)).astype(np.uint16), "YX")
    options = advise(image.shape, "YX", size_multiple={}, halo={"Y": 2, "X": 2}).options
    advised, defaults = expected_differences(
        NetworkPredictor(Blur(), size_multiple=1, halo=0), image, options
    )
    assert advised.tiles_max == 0 < defaults.tiles_max


@pytest.mark.tf
def test_the_command_prints_what_to_type(shared, tmp_path):
    from care_bridge.cli import app

    bundle = shared / "fiji-recorded" / "models" / "u2d_k3.zip"
    path = tmp_path / "cells.tif"
    write_image(path, Image(np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint8), "YX"))
    result = CliRunner().invoke(app, ["advise", str(bundle), str(path)])
    assert result.exit_code == 0
    assert "Number of tiles (nTiles)                          1" in result.output
    assert "Overlap between tiles (overlap)                   24" in result.output
    data = json.loads(CliRunner().invoke(app, ["advise", str(bundle), str(path), "--json"]).output)
    # Filled up to another size, a kernel of convolutions sums in another order: 2.3e-6 on a processor with AMX.
    assert data["expected"][0]["tiles_max"] < 1e-5
    result = CliRunner().invoke(app, ["advise", str(bundle), str(path), "--memory", "much"])
    assert result.exit_code == 2
