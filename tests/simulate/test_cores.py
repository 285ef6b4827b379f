"""The cores of a bundle in an image: bundles with known values, and the real ones of ../shared where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, spatial

from care_bridge.errors import InputError
from care_bridge.evaluate.baselines import BETWEEN_CORES, Baseline, shows_cores, tune
from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate import cores, fibre
from care_bridge.simulate.dataset import make_pairs
from care_bridge.simulate.recipe import load_recipe, parse_recipe, with_bundle

SIDE = 192
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "second" / "clean" / "fibre_bundle"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared images of bundles are not here")


def known(seed: int = 1, **changes: Any) -> fibre.Bundle:
    return fibre.bundle(
        (SIDE, SIDE),
        seed=seed,
        turn=True,
        **{"pitch_px": 7.0, "transmission_spread": 0.1, "dead_share": 0.0, "jitter": 0.05, **changes},
    )


def shown(
    bundle: fibre.Bundle,
    sample: Any = None,
    *,
    noise: float = 2.0,
    mode_radius: float = 0.22,
    halo: float = 0.4,
) -> Any:
    """Grey levels of a camera behind a bundle; an even sample where none is given."""
    sample = np.ones((SIDE, SIDE)) if sample is None else sample
    seen = fibre.through_bundle(
        sample, bundle, mode_radius=mode_radius, halo=halo, crosstalk=0.0, cladding=0.0
    )
    return 20 + 100 * seen + np.random.default_rng(0).normal(0, noise, seen.shape)


def bars() -> Any:
    """Broad dark and bright bars, as of a test target."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.where((x // 24 + y // 48) % 2, 1.0, 0.05)


def inner(points: Any) -> Any:
    return points[np.all((points > 10) & (points < SIDE - 10), axis=1)]


@pytest.mark.parametrize("pitch_px", [4.5, 7.0, 11.0])
def test_the_pitch_is_found_within_three_percent_whatever_the_sample(pitch_px: float) -> None:
    for sample in (None, bars()):
        found = cores.measured_pitch(shown(known(pitch_px=pitch_px), sample))
        assert found == pytest.approx(pitch_px, rel=0.03)


def test_cores_are_found_where_they_are() -> None:
    bundle = known()
    found, seen = cores.find_cores(shown(bundle), pitch_px=7.0)
    assert seen.mean() > 0.95  # a gap or two along the edges
    distance, _ = spatial.cKDTree(found).query(inner(bundle.centres_px))
    assert np.mean(distance < 0.7) > 0.98
    assert np.median(distance) < 0.25


def test_cores_in_the_dark_are_put_into_the_gaps() -> None:
    bundle = known()
    black = np.where(np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2)) < 40, 0.0, 1.0)
    image = shown(bundle, black, halo=0.0, noise=0.0)
    found, seen = cores.find_cores(image, pitch_px=7.0)
    in_hole = np.hypot(*(found - SIDE / 2).T) < 30
    assert in_hole.sum() == pytest.approx(np.pi * 30**2 / (np.sqrt(3) / 2 * 7**2), rel=0.35)
    assert not seen[in_hole].any()
    assert spatial.cKDTree(found).query(found, k=2)[0][:, 1].min() > 0.4 * 7


def test_a_flat_field_tells_transmission_illumination_and_profile() -> None:
    bundle = known(transmission_spread=0.15)
    light = np.exp(-((np.mgrid[:SIDE, :SIDE][1] - SIDE / 2) ** 2) / (2 * 120**2))
    flat, image = shown(bundle, light, noise=0.5), shown(bundle, light * bars())
    found = cores.measure_bundle(image, flat)
    assert found.pitch_px == pytest.approx(7, rel=0.03)
    assert found.mode_radius == pytest.approx(0.22, abs=0.04)
    assert found.transmission is not None
    assert found.illumination is not None
    near, which = spatial.cKDTree(bundle.centres_px).query(found.centres_px)
    assert np.median(near) < 0.3
    middle = (near < 0.7) & np.all((found.centres_px > 25) & (found.centres_px < SIDE - 25), axis=1)
    told, truth = found.transmission[middle], bundle.transmission[which][middle]
    assert np.corrcoef(told, truth)[0, 1] > 0.9
    assert told.std() == pytest.approx(truth.std(), rel=0.3)
    x = found.centres_px[middle, 1]
    lit = np.exp(-((x - SIDE / 2) ** 2) / (2 * 120**2))
    assert np.corrcoef(found.illumination[middle], lit)[0, 1] > 0.9


def test_without_a_flat_field_the_spread_is_estimated_and_structure_is_not_taken_for_it() -> None:
    for spread in (0.04, 0.12):
        found = cores.measure_bundle(shown(known(transmission_spread=spread), bars(), noise=0.5))
        assert found.transmission is None
        assert found.transmission_spread == pytest.approx(spread, abs=0.04)


def test_a_window_is_a_piece_of_the_bundle_and_covers_images_larger_than_it() -> None:
    measured = cores.measure_bundle(shown(known()), shown(known(), noise=0.5))
    rng = np.random.default_rng(3)
    for shape in ((64, 96), (500, 300)):
        bundle, light = measured.window(shape, rng=rng)
        assert len(light) == len(bundle.transmission) == len(bundle.centres_px)
        inside = np.all((bundle.centres_px >= 0) & (bundle.centres_px < shape), axis=1).sum()
        assert inside == pytest.approx(shape[0] * shape[1] / (np.sqrt(3) / 2 * 49), rel=0.08)
    first, second = (measured.window((64, 64), rng=rng)[0].centres_px[:20] for _ in range(2))
    assert not np.allclose(first, second)


def test_pairs_like_a_persons_bundle_have_its_honeycomb_and_hang_on_the_seed(
    tmp_path: Path, clean_image: Callable[..., Image]
) -> None:
    like, flat = tmp_path / "like.tif", tmp_path / "flat.tif"
    write_image(like, Image(shown(known(), bars()).astype(np.float32), "YX"))
    write_image(flat, Image(shown(known()).astype(np.float32), "YX"))
    recipe = with_bundle(load_recipe("fibre"), like, flat)
    ramp = np.mgrid[:128, :128][1] + 20.0
    clean = [clean_image(shape=(128, 128)).replace(data=ramp)]
    (pair,), (again,), (other,) = (list(make_pairs(recipe, clean, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(pair.source.data, again.source.data)
    assert not np.array_equal(pair.source.data, other.source.data)
    assert cores.measured_pitch(pair.source.data) == pytest.approx(7, rel=0.05)
    assert pair.parameters["fibre.pitch_px"] == pytest.approx(7, rel=0.03)


def test_what_a_bundle_shows_is_as_bright_as_its_target_and_the_target_has_no_honeycomb(
    clean_image: Callable[..., Image],
) -> None:
    recipe = parse_recipe(
        "name: f\nsets:\n- {name: b, steps: [{step: fibre, target: seen, cladding: 0.1, halo: 0.3}]}",
        name="f.yaml",
    )
    image = clean_image(shape=(160, 160))
    (pair,) = make_pairs(recipe, [image.replace(data=image.data.astype(float))])
    source, target = (np.asarray(one.data)[16:-16, 16:-16] for one in (pair.source, pair.target))
    assert source.mean() == pytest.approx(target.mean(), rel=0.03)
    assert fibre.lattice_power(source, pitch_px=8) > 30 * fibre.lattice_power(target, pitch_px=8)


def test_interpolation_takes_the_honeycomb_off_and_a_flat_fields_values_the_transmission() -> None:
    bundle = known(transmission_spread=0.15, jitter=0.03)
    smooth = 1 + 0.5 * np.sin(np.mgrid[:SIDE, :SIDE][0] / 15)
    image, flat = shown(bundle, smooth, noise=0.0) - 20, shown(bundle, noise=0.0) - 20
    wanted = smooth[12:-12, 12:-12]

    def error(found: Any) -> float:
        found = found[12:-12, 12:-12]
        return float(np.std(found / found.mean() - wanted / wanted.mean()))

    centres, _ = cores.find_cores(flat, pitch_px=7.0)
    values = cores.core_values(image, centres, pitch_px=7.0) / cores.core_values(flat, centres, pitch_px=7.0)
    plain, even = cores.between_cores(image), cores.between_cores(image, centres_px=centres, values=values)
    assert error(even) < 0.4 * error(plain) < 0.4 * error(image)
    assert error(cores.between_cores(cores.even_cores(image, flat))) < 0.6 * error(plain)
    before, after = (fibre.lattice_power(one, pitch_px=7) * np.var(one) for one in (image, plain))
    assert 10 * np.log10(before / after) > 15


def test_the_filter_between_cores_is_tuned_only_where_cores_are_seen() -> None:
    smooth = np.sin(np.mgrid[:SIDE, :SIDE][0] / 15) + 2
    pairs = []
    for seed in range(2):
        source = shown(known(seed), smooth).astype(np.float32)[:96, :96]
        pairs.append((Image(source, "YX"), Image(smooth.astype(np.float32)[:96, :96], "YX")))
    assert BETWEEN_CORES in [one.name for one in tune(pairs, tuned_on="two")]
    blurred = [(s.replace(data=ndimage.gaussian_filter(s.data, 7)), t) for s, t in pairs]
    assert BETWEEN_CORES not in [one.name for one in tune(blurred, tuned_on="two")]
    assert not shows_cores([])
    none = np.random.default_rng(0).normal(100, 3, (64, 64)).astype(np.float32)
    same = Baseline(BETWEEN_CORES, {"sigma_px": 1.0}).predict(Image(none, "YX"))
    np.testing.assert_array_equal(same.data, none)


@pytest.mark.parametrize(
    ("image", "flat", "words"),
    [
        (np.ones((16, 16)), None, "has 16 x 16 pixels; cores are found in planes of 48 x 48"),
        (np.random.default_rng(0).normal(100, 5, (128, 128)), None, "shows no cores 3 to 24 px apart"),
        (np.full((128, 128), 7.0), None, "shows no cores"),
        (
            shown(known()),
            np.ones((64, 64)),
            "flat field has 64 x 64 pixels, the image of the bundle 192 x 192",
        ),
        (shown(known()), np.ones((SIDE, SIDE)), "the flat field shows no cores"),
        (shown(known()), shown(known(pitch_px=10.0)), "cores are 9.9. px apart|cores are 10.* px apart"),
    ],
)
def test_what_is_no_bundle_is_refused_in_words(image: Any, flat: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cores.measure_bundle(image, flat)


def test_cores_in_one_corner_fill_no_image() -> None:
    black = np.zeros((SIDE, SIDE))
    black[:40, :40] = 1.0
    with pytest.raises(InputError, match=r"give an image that the bundle\s+fills|shows no cores"):
        cores.measure_bundle(shown(known(), black, noise=0.2, halo=0.0))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("flat: f.tif", "give like too"),
        ("like: b.tif, pitch_px: 5", "pitch_px is measured in the image that like names; leave pitch_px out"),
        ("like: b.tif, mode: random", "leave mode out"),
        ("halo: 1.5", "is a share, 0 to 1"),
        ("crosstalk: 0.2", "at most 1/6"),
    ],
)
def test_a_bundle_that_is_measured_is_not_drawn_too(step: str, words: str) -> None:
    text = f"name: f\nsets:\n  - name: b\n    steps:\n      - {{step: fibre, {step}}}\n"
    with pytest.raises(InputError, match=words):
        parse_recipe(text, name="f.yaml")


# Pitches were measured in these images by another hand (issue 16): 5.15, 5.35 and 9.95 px.
@real
@pytest.mark.parametrize(
    ("file", "pitch_px", "mode"),
    [
        ("bundle1_fujikura.tif", 5.15, 0.2),
        ("super_res_background.tif", 5.35, 0.2),
        ("bundle2_thin.tif", 9.95, 0.2),
    ],
)
def test_the_real_bundles_have_their_pitches(file: str, pitch_px: float, mode: float) -> None:
    image = read_image(REAL / file).data
    assert cores.measured_pitch(image) == pytest.approx(pitch_px, rel=0.02)
    middle = tuple(slice(size // 2 - 160, size // 2 + 160) for size in image.shape)
    found = cores.measure_bundle(image[middle])
    assert found.mode_radius == pytest.approx(mode, abs=0.06)
    assert 0.02 < found.transmission_spread < 0.2


@real
def test_real_cells_show_no_cores() -> None:
    for file in ("nuclei/scanR_nuclei.tif", "neuron/2p_neuron_slice1.tif", "membranes/maize_clsm.tif"):
        with pytest.raises(InputError, match="shows no cores"):
            cores.measured_pitch(read_image(REAL.parent / file).data)
