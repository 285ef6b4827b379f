"""The traps between Python and Fiji, each provoked and recognised. Numbers: docs/differences.md."""

from __future__ import annotations

import numpy as np
import pytest

from care_bridge.comparing import where
from care_bridge.comparing.conventions import conventions, explain, tried
from care_bridge.comparing.ladder import stepwise
from care_bridge.comparing.where import Geometry, diagnose, geometry_of
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.normalize import BIOIMAGEIO, CSBDEEP, FIJI, normalize
from care_bridge.plugin.emulation import EmulatedPlugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginError, PluginFailure, PluginRefusal
from care_bridge.predictor import ImagesOnly, PredictOptions, Runtime, UnhintedNetwork, apply_repeatedly
from care_bridge.tiling import FijiTiles

HALO = {"Z": 2, "Y": 2, "X": 2}
ONE_TILE = FijiTiles(n_tiles=1, block_multiple=1, overlap=0)


class Sharpen(UnhintedNetwork):
    """Looks two pixels far, and no function of it is linear."""

    def __init__(self, *, dims=2, channels=1, noise=0.0):
        self.dims, self.noise = dims, noise
        self.runtime = Runtime("numpy")
        self.input_shape = self.output_shape = (None,) * (dims + 1) + (channels,)

    def __call__(self, tensor):
        width = [(0, 0)] + [(2, 2)] * self.dims + [(0, 0)]
        views = np.lib.stride_tricks.sliding_window_view(
            np.pad(tensor, width), (5,) * self.dims, tuple(range(1, self.dims + 1))
        )
        mean = views.mean(tuple(range(-self.dims, 0)))
        # One neighbour stands out, so that exchanged and turned axes show.
        neighbour = views[(..., *range(self.dims))]
        result = np.tanh(2 * tensor - mean) + 0.3 * neighbour
        return (result + self.noise * np.random.default_rng(1).normal(size=result.shape)).astype(np.float32)


def picture(shape=(48, 48), axes="YX", top=4000, dtype=np.uint16, seed=0):
    random = np.random.default_rng(seed)
    return Image((random.gamma(2.0, 0.1, shape) * top).astype(dtype), axes)


def fiji_way(network, **changes):
    options = PredictOptions(rule=FIJI, denormalize=False, tiles=ONE_TILE).replace(**changes)
    return NetworkPredictor(network, options, size_multiple=1, halo=2)


def plugin(network, **changes):
    options = PluginOptions(nTiles=1, blockMultiple=1, overlap=0).replace(**changes)
    return EmulatedPlugin(network, options)


# ---- normalisation (traps 1-8, 33)


@pytest.mark.parametrize(
    ("changes", "cause", "word"),
    [
        ({"rule": CSBDEEP, "pmin": 3.0, "pmax": 99.8}, where.PERCENTILE_RULE, "csbdeep"),
        ({"rule": BIOIMAGEIO, "pmin": 3.0, "pmax": 99.8, "clip": False}, where.PERCENTILE_RULE, ""),
        ({"pmin": 2.0}, where.PERCENTILES, "2 and 99.8"),
        ({"pmin": 1.0}, where.PERCENTILES, "1 and 99.8"),
        ({"rule": None}, where.NOT_NORMALIZED, "does not normalise"),
        ({"denormalize": True}, where.NOT_SCALED_BACK, ""),
    ],
    ids=[
        "1 percentile rule",
        "33 bioimageio",
        "4 percentiles",
        "4 more",
        "8 not normalised again",
        "7 scaled back",
    ],
)
def test_normalisations_are_told_apart(changes, cause, word):
    network, image = Sharpen(), picture((12, 13))
    found = explain(fiji_way(network), fiji_way(network, **changes).predict(image), image)
    assert found.cause == cause
    assert word in found.words


def test_trap_2_pooled_channels():
    network, image = Sharpen(channels=2), picture((2, 20, 20), "CYX")
    image.data[1] //= 10
    own = NetworkPredictor(network, PredictOptions(pmin=3, denormalize=False), size_multiple=1)
    data, _ = normalize(image.data, rule=CSBDEEP, pmin=3, pmax=99.8)
    pooled = NetworkPredictor(network, PredictOptions(rule=None), size_multiple=1).predict(
        image.replace(data=data)
    )
    assert explain(own, pooled, image).cause == where.POOLING


def test_trap_3_the_floor_at_zero():
    network, image = Sharpen(), picture((24, 25))
    normalized, undo = normalize(image.data, rule=FIJI)
    assert (normalized == 0).sum() > 5
    factor = np.float32(1) / np.float32(undo.span[0])
    unfloored = image.replace(data=(image.data.astype(np.float32) - np.float32(undo.low[0])) * factor)
    candidate = fiji_way(network, rule=None).predict(unfloored)
    found = explain(fiji_way(network), candidate, image)
    assert found.cause == where.FLOOR
    assert "does not cut off at zero" in found.words


def test_traps_5_and_6_last_bits_and_constants_are_no_difference():
    network, image = Sharpen(), picture()
    ours = fiji_way(network).predict(image)
    _, undo = normalize(image.data, rule=FIJI)
    low, span = np.float32(undo.low[0]), np.float32(undo.span[0])
    divided = image.replace(data=np.maximum((image.data.astype(np.float32) - low) / span, 0))
    assert diagnose(ours, fiji_way(network, rule=None).predict(divided)).cause == where.AGREE
    flat = Image(np.full((9, 9), 7, np.uint8), "YX")
    assert diagnose(fiji_way(network).predict(flat), plugin(network).predict(flat)).max_abs == 0


def test_trap_33_deepimagejs_percentiles():
    network, image = Sharpen(channels=2), picture((2, 12, 13), "CYX")
    planes = []
    for plane in image.data.astype(np.float64):
        # JDLL: rank floor(156 x 0.03) = 4 and floor(156 x 0.998) = 155, eps 1e-6
        low, high = np.sort(plane, axis=None)[[4, 155]]
        planes.append((plane - low) / (high - low + 1e-6))
    candidate = fiji_way(network, rule=None).predict(image.replace(data=np.float32(planes)))
    found = explain(fiji_way(network), candidate, image)
    assert found.cause == where.DEEPIMAGEJ
    assert "floor(n p)" in found.words


def test_trap_19_planes_normalised_one_by_one():
    image = picture((4, 16, 16), "ZYX")
    image.data[2] //= 5
    network = Sharpen()
    stack = plugin(network).predict(image)
    each = NetworkPredictor(
        network, PredictOptions(rule=FIJI, normalize_by="frame", denormalize=False), size_multiple=1
    )
    found = explain(each, stack, image)
    assert (found.cause, "by image" in found.words) == (where.PERCENTILES, True)


# ---- geometry (traps 11-18)


def test_trap_11_filling_up_at_the_far_end():
    network, image = Sharpen(), picture((45, 48))
    tiles = FijiTiles(n_tiles=1, block_multiple=8, overlap=0)
    python = NetworkPredictor(network, PredictOptions(rule=FIJI, denormalize=False), size_multiple=8)
    candidate = plugin(network, blockMultiple=8).predict(image)
    geometry = geometry_of(image, tiles, space="YX", halo=HALO)
    found = diagnose(python.predict(image), candidate, geometry=geometry)
    assert found.cause == where.MIRRORED_BORDER
    assert found.to_border_px < 2
    assert found.to_seam_px is None


def cut(network, image, **changes):
    options = PluginOptions(nTiles=4, blockMultiple=8, overlap=8).replace(**changes)
    candidate = EmulatedPlugin(network, options).predict(image)
    geometry = geometry_of(image, options.tiles, space="YX", halo=HALO)
    return diagnose(fiji_way(network).predict(image), candidate, geometry=geometry)


def test_trap_12_tiles_mirror_the_image_border():
    found = cut(Sharpen(), picture())
    assert found.cause == where.MIRRORED_BORDER
    assert found.to_border_px < 2


def test_trap_13_lost_rows():
    image = picture((49, 48))
    image.data[-1] = 60000  # what is lost is seen best where it mattered
    found = cut(Sharpen(), image, overlap=8)
    assert found.cause == where.LOST_ROWS
    assert "the last 1 of Y" in found.words
    assert found.worst[0] == 48


def test_trap_14_mirrored_twice_but_for_the_dimension_filled_up_last():
    image = picture((47, 47), dtype=np.float32)
    image.data[:] /= image.data.max()
    once = fiji_way(Sharpen(), rule=None).predict(image.replace(data=np.pad(image.data, 8, mode="symmetric")))
    options = PluginOptions(normalizeInput=False, nTiles=4, blockMultiple=8, overlap=8)
    candidate = EmulatedPlugin(Sharpen(), options).predict(image)
    geometry = geometry_of(image, options.tiles, space="YX", halo=HALO)
    found = diagnose(once.replace(data=once.data[8:-8, 8:-8]), candidate, geometry=geometry)
    assert found.cause == where.MIRRORED_BORDER
    # 47 is filled up to 48. Column 48 shows column 46 to the last tile, where one mirror would show 45, and
    # the network sees it from column 46. Rows are filled up after columns and mirrored once.
    assert set(np.nonzero(candidate.data != once.data[8:-8, 8:-8])[1]) == {46}


def test_trap_17_at_least_so_many_tiles():
    image, options = picture((72, 72)), PluginOptions(nTiles=8, blockMultiple=8, overlap=1)
    predictor = EmulatedPlugin(Sharpen(), options)
    assert predictor.plan(image).n_tiles == 9
    reference, candidate = fiji_way(Sharpen()).predict(image), predictor.predict(image)
    geometry = geometry_of(image, options.tiles, space="YX", halo=HALO)
    assert geometry.seams == {"X": [24, 48], "Y": [24, 48]}
    size = np.abs(candidate.data - reference.data)[4:-4, 4:-4]
    rows = {int(row) + 4 for row in np.nonzero(size.max(1) > 1e-3)[0]}
    assert {23, 24, 47, 48} <= rows


def test_trap_15_overlap_below_the_receptive_field():
    network, image = Sharpen(), picture()
    tiles = FijiTiles(n_tiles=4, block_multiple=8, overlap=1)
    reference = fiji_way(network).predict(image)
    candidate = fiji_way(network, tiles=tiles).predict(image)
    found = diagnose(reference, candidate, geometry=geometry_of(image, tiles, space="YX", halo=HALO))
    # the worst pixel lies at the image's border, which sees its mirror image; the seams are named too
    assert (found.cause, "near tile borders differ too" in found.words) == (where.MIRRORED_BORDER, True)
    inside = [result.replace(data=result.data[4:-4, 4:-4]) for result in (reference, candidate)]
    found = diagnose(*inside, geometry=Geometry(seams={"Y": [20], "X": [20]}, halo_px=HALO, overlap_px=1))
    assert found.cause == where.OVERLAP
    assert found.to_seam_px == 0
    assert "overlap of 1 px is below the receptive field of 2 px" in found.words


class Pooling(Sharpen):
    """Halves and doubles, so its sizes must be even."""

    def __call__(self, tensor):
        half = tensor[:, ::2, ::2]
        return tensor + half.repeat(2, 1).repeat(2, 2)


def test_trap_16_an_overlap_that_shifts_the_pooling():
    with pytest.raises(PluginFailure, match=r"broadcast|shape"):
        EmulatedPlugin(Pooling(), PluginOptions(nTiles=3, blockMultiple=3, overlap=2)).predict(
            picture((27, 24))
        )
    image = picture((24, 24))
    options = PluginOptions(nTiles=4, blockMultiple=4, overlap=3)
    candidate = EmulatedPlugin(Pooling(), options).predict(image)
    geometry = geometry_of(
        image, options.tiles, space="YX", halo={"Y": 1, "X": 1}, size_multiple={"Y": 2, "X": 2}
    )
    found = explain(fiji_way(Pooling()), candidate, image, geometry=geometry)
    assert found.cause == where.SHIFTED
    assert "margins of 3 px, where multiples of 2 along" in found.words
    even = EmulatedPlugin(Pooling(), options.replace(overlap=4)).predict(image)
    assert diagnose(fiji_way(Pooling()).predict(image), even).cause == where.AGREE


def test_trap_16_on_the_ladder():
    options = PluginOptions(nTiles=4, blockMultiple=4, overlap=3)
    rungs = stepwise(
        reference=NetworkPredictor(Pooling(), size_multiple=2, halo=1),
        candidate=EmulatedPlugin(Pooling(), options),
        image=picture((24, 24)),
        tiles=options.tiles,
    )
    cost = {rung.title: rung.cost.cause for rung in rungs}
    assert cost["tiles"] == where.SHIFTED


def test_trap_18_out_of_memory_changes_the_tiles():
    class Small(Sharpen):
        def __call__(self, tensor):
            if tensor.size > 1000:
                raise MemoryError("OOM when allocating tensor")
            return super().__call__(tensor)

    found = explain(
        fiji_way(Sharpen(), tiles=FijiTiles(4, 8, 8)),
        plugin(Small(), blockMultiple=8, overlap=8).predict(picture()),
        picture(),
        geometry=geometry_of(picture(), FijiTiles(8, 8, 8), space="YX", halo=HALO),
    )
    assert found.cause == where.AGREE  # one tile became 4: the same margins as asked for here


# ---- axes and numbers (traps 9, 20-27, 30, 32)


def test_trap_20_time_read_as_depth():
    network, image = Sharpen(dims=3), picture((6, 12, 12), "TYX")
    python = NetworkPredictor(network, PredictOptions(rule=FIJI, denormalize=False), size_multiple=1)
    found = explain(python, plugin(network).predict(image), image)
    assert (found.cause, "time as depth" in found.words) == (where.AXIS_ORDER, True)


@pytest.mark.parametrize(
    ("image", "network", "kind"),
    [
        (picture((2, 3, 8, 8), "TZYX"), Sharpen(), PluginRefusal),
        (picture((3, 8, 8), "CYX", 200, np.uint8), Sharpen(), PluginRefusal),
        (picture((2, 8, 8), "CYX"), Sharpen(), PluginRefusal),
        (picture((3, 1, 8, 8), "TCYX"), Sharpen(), PluginFailure),
    ],
    ids=["21 time and depth", "24 colours", "9 mean and scale", "23 single positions"],
)
def test_what_fiji_is_silent_about_is_an_error_with_its_reason(image, network, kind):
    with pytest.raises(kind) as caught:
        plugin(network).predict(image)
    assert isinstance(caught.value, PluginError)  # 32: nothing fails in silence
    assert caught.value.reason in str(caught.value)


def test_trap_22_exchanged_axes():
    image = picture((24, 24))
    turned = image.replace(data=image.data.T)
    result = fiji_way(Sharpen()).predict(turned)
    found = explain(fiji_way(Sharpen()), result, image)
    assert found.cause == where.AXIS_ORDER
    late = fiji_way(Sharpen()).predict(image)
    mixed = late.replace(data=late.data.T)
    assert diagnose(late, mixed).cause == where.AXIS_ORDER
    backwards = late.replace(data=late.data[::-1])
    assert "other direction" in diagnose(late, backwards).words


def test_trap_22_axes_of_unequal_size():
    one, other = picture((3, 24, 25), "ZYX"), picture((25, 24, 3), "ZYX")
    found = diagnose(one, other)
    assert (found.cause, found.max_abs) == (where.AXIS_ORDER, float("inf"))


def test_trap_25_float32_loses_levels_of_uint32():
    image = Image(np.random.default_rng(0).integers(0, 50, (16, 16)).astype(np.uint32) + 2**26, "YX")
    python = NetworkPredictor(Sharpen(), PredictOptions(pmin=3, denormalize=False), size_multiple=1)
    cast = python.predict(image.replace(data=image.data.astype(np.float32)))
    found = explain(python, cast, image)
    assert (found.cause, "float32" in found.words) == (where.DTYPE, True)


def test_trap_26_signed_16_bit_without_its_offset():
    result = picture().replace(data=picture().data.astype(np.float32))
    found = diagnose(result, result.replace(data=result.data - 32768))
    assert (found.cause, "32768" in found.words) == (where.DTYPE, True)


@pytest.mark.parametrize(("bits", "word"), [(None, "rounded"), (8, "wrapped"), (16, "wrapped")])
def test_results_saved_as_integers_are_recognised(bits, word):
    values = np.random.default_rng(0).normal(100, 80, (32, 32)) * (1 if bits != 16 else 1000)
    saved = np.round(values) if bits is None else np.floor(values) % 2**bits
    found = diagnose(Image(values, "YX"), Image(saved, "YX"))
    assert (found.cause, word in found.words) == (where.DTYPE, True)


def test_trap_27_results_are_compared_by_the_names_of_their_axes():
    one = picture((2, 8, 9), "CYX")
    assert diagnose(one, one.replace(data=one.data.transpose(1, 2, 0), axes="YXC")).max_abs == 0


def test_trap_28_a_lost_pixel_size_is_no_difference_of_pixels():
    image = picture().replace(pixel_size_um={"Y": 0.1, "X": 0.1}, name="cells")
    ours, fijis = fiji_way(Sharpen()).predict(image), plugin(Sharpen()).predict(image)
    assert (ours.pixel_size_um, fijis.pixel_size_um) == ({"Y": 0.1, "X": 0.1}, {})
    assert (fijis.name, diagnose(ours, fijis).cause) == ("result", where.AGREE)


def test_trap_30_another_tensorflow():
    image = picture()
    found = diagnose(fiji_way(Sharpen()).predict(image), plugin(Sharpen(noise=1e-5)).predict(image))
    assert found.cause == where.OPERATION


def test_nan_on_one_side_is_named():
    image = picture(dtype=np.float32)
    result = fiji_way(Sharpen()).predict(image)
    broken = result.data.copy()
    broken[3, 4] = np.nan
    found = diagnose(result, result.replace(data=broken))
    assert (found.cause, found.worst) == (where.NAN, (3, 4))
    assert diagnose(result.replace(data=broken), result.replace(data=broken)).cause == where.AGREE


def test_a_scaled_result_is_called_so():
    image = picture(dtype=np.float32)
    found = diagnose(image, image.replace(data=image.data * 0.001 + 5))
    assert found.cause == where.NOT_SCALED_BACK
    assert "0.001 x the reference + 5" in found.words


def test_other_axes_cannot_be_compared():
    with pytest.raises(InputError, match="pixel by pixel"):
        diagnose(picture(), picture((2, 8, 8), "CYX"))


def test_a_finding_reads_as_a_sentence():
    one = picture(dtype=np.float32)
    data = one.data.copy()
    data[40, 7] += 500
    found = diagnose(one, one.replace(data=data), geometry=Geometry(seams={"Y": [32]}, halo_px=HALO))
    assert (found.worst, found.to_seam_px, found.to_border_px) == ((40, 7), 8, 7)
    assert "max 5.00e+02 at y=40 x=7, 8 px from a tile border, 7 px from the image border" in str(found)


# ---- the ladder


def test_the_ladder_agrees_on_every_rung_and_prices_each_convention():
    network, image = Sharpen(), picture((49, 64))
    options = PluginOptions(nTiles=4, blockMultiple=8, overlap=8)
    rungs = stepwise(
        reference=NetworkPredictor(network, size_multiple=1, halo=2),
        candidate=EmulatedPlugin(network, options),
        image=image,
        tiles=options.tiles,
    )
    assert [rung.difference.cause for rung in rungs] == [where.AGREE] * 6
    assert [rung.difference.max_abs for rung in rungs] == [0] * 6
    cost = {rung.title: rung.cost for rung in rungs}
    assert cost["network alone"].max_abs == 0
    assert cost["tiles"].cause in (where.MIRRORED_BORDER, where.LOST_ROWS)
    assert cost["normalisation"].cause == where.NORMALIZATION
    assert cost["second application, not normalised again"].max_abs > 0.01
    assert all(rung.residual.shape == image.shape for rung in rungs)


def test_the_ladder_finds_the_rung_where_a_difference_comes_in():
    network, image = Sharpen(), picture((48, 64))
    options = PluginOptions(nTiles=1, blockMultiple=1, overlap=0, percentileBottom=1.0)
    rungs = stepwise(
        reference=NetworkPredictor(network, size_multiple=1, halo=2),
        candidate=EmulatedPlugin(network, options),
        image=image,
        tiles=options.tiles,
    )
    assert [rung.difference.cause for rung in rungs[:3]] == [
        where.AGREE,
        where.AGREE,
        where.PERCENTILES,
    ]
    assert "takes percentiles 1 and 99.8, not 3 and 99.8" in rungs[2].difference.words


def test_each_convention_has_its_price():
    network, image = Sharpen(), picture((48, 48))
    plugins_way = fiji_way(network)
    price = {}
    for convention, left in tried(conventions(plugins_way, image), plugins_way.predict(image)):
        price[convention.cause] = max(left, price.get(convention.cause, 0))
    assert price[where.NOT_NORMALIZED] > price[where.FLOOR] > 0
    assert price[where.PERCENTILES] > 0


def test_the_ladder_says_nothing_of_a_closed_sides_network_and_compares_whole_predictions():
    network, image = Sharpen(), picture((48, 64))

    class Closed(ImagesOnly):
        runtime = Runtime("fiji")

        def predict(self, picture):
            return EmulatedPlugin(network).predict(picture)

    rungs = stepwise(
        reference=NetworkPredictor(network, size_multiple=1, halo=2), candidate=Closed(), image=image
    )
    assert [rung.title for rung in rungs] == [
        "normalisation",
        "second application, own result",
        "second application, same input",
    ]
    assert [rung.difference.max_abs for rung in rungs] == [0] * 3


# ---- twice in a row


@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.0), ("uint16", 2.0)])
def test_saving_between_two_applications_costs_what_the_type_loses(tmp_path, dtype, most):
    def save(result):
        path = tmp_path / "between.tif"
        write_image(path, result, dtype=dtype)
        return read_image(path, axes=result.axes)

    predictor, image = plugin(Sharpen()), picture()
    first, direct = apply_repeatedly(predictor, image, applications=2)
    saved = predictor.predict(save(first))
    finding = diagnose(direct, saved)
    assert finding.max_abs <= most
    if dtype == "uint16":
        # Fiji's results lie near 0..1: as whole numbers almost nothing is left of them.
        assert np.unique(save(plugin(Sharpen()).predict(picture())).data).size <= 3
        assert finding.max_abs > 0.1
    else:
        np.testing.assert_array_equal(direct.data, saved.data)


def test_feeding_the_own_or_the_same_input_and_two_models_by_turns_remembers_nothing():
    one, two, image = plugin(Sharpen()), plugin(Sharpen(noise=0.1)), picture()
    first = one.predict(image)
    two.predict(image)
    again = one.predict(image)
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(one.predict(first).data, one.predict(again).data)
