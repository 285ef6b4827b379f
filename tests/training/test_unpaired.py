"""Learning without pairs: no field in both folders, older images for the critics, and objects that keep their place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image

pytestmark = pytest.mark.tf

TINY: dict[str, Any] = {
    "method": "c2gan",
    "unet_n_depth": 1,
    "unet_n_first": 4,
    "resnet_n_blocks": 1,
    "gan_critic_n_first": 4,
    "gan_critic_n_depth": 1,
    "gan_pool": 6,
    "train_epochs": 2,
    "train_steps_per_epoch": 4,
    "train_batch_size": 2,
}


def tiny(**settings: Any) -> CareConfig:
    return CareConfig("YX", **{**TINY, **settings})


def fields(n: int, size: int, *, seed: int, noise: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    clean = gaussian_filter(random.random((n, size, size)), (0, 2, 2))
    clean = (clean - clean.min()) / np.ptp(clean)
    return np.asarray(clean + random.normal(0, noise, clean.shape), np.float32) if noise else clean


def folder(place: Path, images: Any, *, names: str = "{}.tif") -> Path:
    place.mkdir(parents=True)
    for number, image in enumerate(images):
        counts = np.clip(1000 + 3000 * np.asarray(image), 0, 65535).round().astype(np.uint16)
        write_image(place / names.format(number), Image(counts, "YX"))
    return place


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("domains")
    noisy, clean = fields(3, 64, seed=0, noise=0.2), fields(4, 64, seed=1)
    return folder(place / "noisy", noisy), folder(place / "clean", clean)


def data_of(noisy: Path, clean: Path, size: int = 16, **how: Any) -> Any:
    from care_bridge.training.unpaired import data_from_unpaired

    return data_from_unpaired(noisy, clean, patch_size=(size, size), axes="YX", **how)


# --- what is learnt from


def test_sources_and_targets_come_in_orders_of_their_own(domains: Any) -> None:
    data = data_of(*domains, n_patches_per_image=8)
    first = data.training.batch_at(5, size=4, seed=1)
    data.training.batch_at(0, size=4, seed=1)
    for one, other in zip(first, data.training.batch_at(5, size=4, seed=1), strict=True):
        np.testing.assert_array_equal(one, other)
    sources, targets = data.training.sources, data.training.targets
    # Each source meets another target in the second pass over all of them.
    met = [set(), set()]
    for number in range(2):
        for step in range(number * len(sources), (number + 1) * len(sources)):
            source, target = data.training.batch_at(step, size=1, seed=1)
            met[number].add((source.tobytes(), target.tobytes()))
    assert len(met[0]) == len(sources)
    assert len(met[0] & met[1]) < len(sources) / 2
    assert len(targets) > len(sources)


def test_no_pixel_validates_that_trains(domains: Any) -> None:
    data = data_of(*domains, n_patches_per_image=8, validation_fraction=0.3)
    assert len(data.validation)
    trained = {
        patch.tobytes() for patch in data.training.sources.batch(np.arange(len(data.training.sources)))[0]
    }
    assert not trained & {
        patch.tobytes() for patch in data.validation.batch(np.arange(len(data.validation)))[0]
    }


def test_a_noisy_and_a_clean_image_of_one_field_are_found(tmp_path: Path, domains: Any) -> None:
    clean = fields(3, 64, seed=5)
    noise = np.random.default_rng(6).normal(0, 0.2, clean.shape)
    target = folder(tmp_path / "target", clean)
    with pytest.raises(InputError, match=r"3 pairs of images show one field of view.*--method cgan"):
        data_of(folder(tmp_path / "source", clean + noise, names="other_{}.tif"), target)
    with pytest.raises(InputError, match="1 pair of images show one field"):
        data_of(folder(tmp_path / "one", [clean[1], fields(1, 64, seed=7)[0]]), target)
    data_of(folder(tmp_path / "others", fields(3, 64, seed=8, noise=0.2)), target)


def test_real_pairs_are_found_and_other_fields_are_not(shared: Path, tmp_path: Path) -> None:
    from care_bridge.patches import ImagePair
    from care_bridge.patches.pairs import in_file
    from care_bridge.training.unpaired import check_no_shared_field

    def pairs(names: list[str], kind: str) -> list[ImagePair]:
        stored = [in_file(shared / "data" / "pairs_fmd" / f"{name}_{kind}.tif") for name in names]
        return [ImagePair(one, one, name) for one, name in zip(stored, names, strict=True)]

    for name in ("BPAE_R", "BPAE_G", "BPAE_B", "fish", "mice"):
        with pytest.raises(InputError, match=f"{name} and {name}"):
            check_no_shared_field(pairs([name], "noisy"), pairs([name], "gt_avg50"))
    check_no_shared_field(pairs(["BPAE_R", "fish"], "noisy"), pairs(["mice"], "gt_avg50"))


def test_thresholds_lie_between_objects_and_background() -> None:
    from care_bridge.training.batches import Arrays
    from care_bridge.training.unpaired import Unpaired, otsu_thresholds

    random = np.random.default_rng(0)
    squares = np.zeros((8, 32, 32, 1), np.float32)
    squares[:, 8:24, 8:24] = 1.0
    noisy = (0.1 + 0.5 * squares + random.normal(0, 0.1, squares.shape)).astype(np.float32)
    data = Unpaired(Arrays(noisy, noisy), Arrays(squares, squares))
    low, high = otsu_thresholds(data, size=8, seed=0)
    assert 0.2 < low < 0.5
    assert 0.2 < high < 0.8


# --- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: (place / "empty").mkdir() or place / "empty", "holds no .tif"),
        (lambda place: place / "nowhere", "no images at"),
        (lambda place: folder(place / "small", fields(2, 12, seed=3)), "0.tif: is smaller than a patch"),
        (
            lambda place: folder(place / "flat", np.full((2, 64, 64), 0.5)),
            "constant: 0.tif .every pixel is 2500",
        ),
    ],
    ids=["empty", "missing", "smaller than a patch", "constant"],
)
def test_a_domain_that_cannot_be_learnt_from_is_named(
    make: Any, message: str, domains: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"(?s){message}"):
        data_of(domains[0], make(tmp_path))


def test_a_single_image_a_domain_is_enough_if_it_is_large(tmp_path: Path) -> None:
    data = data_of(
        folder(tmp_path / "noisy", fields(1, 96, seed=0, noise=0.2)),
        folder(tmp_path / "clean", fields(1, 96, seed=1)),
    )
    assert min(len(data.training.sources), len(data.training.targets), len(data.validation)) > 0


def test_clipped_images_are_told_of(domains: Any, tmp_path: Path) -> None:
    clipped = folder(tmp_path / "clipped", 40 * fields(2, 64, seed=4))
    with pytest.warns(UserWarning, match=r"clipped: 0.tif \(\d+ % at 65535\)"):
        data_of(domains[0], clipped)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data_of(*domains)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_channel_out": 2, "unet_residual": False}, "1 channels go in and 2 come out"),
        ({"gan_l1": 1.0}, "gan_l1 needs pairs"),
        ({"gan_cycle": 0.0}, "neither may be 0"),
        ({"gan_saliency": 0.0}, "makes c2gan of cyclegan"),
        ({"method": "cyclegan", "gan_saliency": 1.0}, "makes c2gan of cyclegan"),
        ({"target_scale": "source"}, "needs pairs"),
    ],
)
def test_settings_that_need_pairs_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**settings)


def test_waiting_for_a_validation_loss_needs_pairs(domains: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train

    data = data_of(*domains)
    for settings in ({"train_early_stopping": 2}, {"train_schedule": "plateau"}):
        with pytest.raises(InputError, match="needs pairs"):
            train(tiny(**settings), data.training, data.validation, tmp_path / "model")


# --- the pool


@given(size=st.integers(1, 12), count=st.integers(1, 6), steps=st.integers(1, 8))
def test_a_pool_stores_each_place_once_a_step_and_shows_nothing_that_was_not_made(
    size: int, count: int, steps: int
) -> None:
    from care_bridge.training.adversarial.pool import Pool

    pool = Pool(size, (1, 1, 1), seed=1, what=0)
    filled: set[int] = set()
    for number in range(steps):
        place, store, swap = pool.plan(number, count)
        stored = place[store == 1]
        assert len(set(stored.tolist())) == len(stored)
        assert set(place[swap == 1].tolist()) <= filled
        filled |= set(stored.tolist())
        assert len(filled) == min(size, (number + 1) * count)


def test_a_full_pool_shows_an_older_image_instead_of_every_second_new_one() -> None:
    from care_bridge.training.adversarial.pool import Pool

    pool = Pool(8, (1, 1, 1), seed=1, what=0)
    older = 0
    for number in range(200):
        made = np.full((2, 1, 1, 1), number, np.float32)
        shown = np.asarray(pool.exchange(made, pool.plan(number, 2)))
        assert (shown <= number).all()
        older += int((shown < number).sum())
    # 400 images, the first 8 fill it; half of the rest: 196 +- 10 (binomial deviation).
    assert abs(older - 196) < 40


# --- training


def test_what_is_inverted_is_no_longer_where_it_was() -> None:
    from care_bridge.training.adversarial.cycle import Cycle

    cycle = Cycle(tiny(gan_thresholds=(0.5, 0.5)), (16, 16, 1))
    image = np.zeros((1, 16, 16, 1), np.float32)
    image[:, 4:12, 4:12] = 1.0
    here = np.asarray(cycle._salient(image, 0.5))
    kept = np.abs(here - np.asarray(cycle._salient(0.3 + 0.4 * image, 0.5))).mean()
    inverted = np.abs(here - np.asarray(cycle._salient(1 - image, 0.5))).mean()
    assert kept < 0.1
    assert inverted > 0.8


@pytest.mark.parametrize("method", ["c2gan"])
def test_a_resumed_run_is_the_run_with_its_pool_and_both_critics(
    method: str, domains: Any, tmp_path: Path
) -> None:
    from care_bridge.training.fit import train
    from care_bridge.training.folder import find_weights, read_weights

    data = data_of(*domains, n_patches_per_image=8)
    config = tiny(train_epochs=3, gan_identity=1.0, train_average=0.5)

    def stop(done: int, total: int, told: str = "") -> None:
        if done == 7:
            raise KeyboardInterrupt

    train(config, data.training, data.validation, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, data.training, data.validation, tmp_path / "parts", checkpoint_every_s=0, progress=stop)
    result = train(config, data.training, data.validation, tmp_path / "parts", resume=True)
    assert all(np.isnan(record["val_loss"]) and np.isfinite(record["val_cycle"]) for record in result.history)
    for whole, parts in zip(
        *(read_weights(find_weights(tmp_path / name, "weights_best.h5")) for name in ("whole", "parts")),
        strict=True,
    ):
        np.testing.assert_array_equal(whole[1], parts[1])


def test_the_command_learns_without_pairs_and_pairs_tell_the_best_epoch(domains: Any, tmp_path: Path) -> None:
    run = CliRunner().invoke
    noisy, clean = map(str, domains)
    settings = [f"--set={key}={TINY[key]}" for key in TINY if key.startswith(("gan_", "resnet_"))]
    settings += [
        "--depth=1",
        "--features=4",
        "--batch-size=2",
        "--epochs=2",
        "--steps=4",
        "--patch-size=16,16",
    ]
    first = run(app, ["train", noisy, clean, "--method=c2gan", f"--out={tmp_path / 'model'}", *settings])
    assert first.exit_code == 0, first.output
    assert "objects are what is above" in first.output
    assert "kept epoch 2, the last" in first.output
    config = read_config(tmp_path / "model")
    assert config.gan_thresholds is not None
    assert config.architecture == "resnet"
    again = run(app, ["train", noisy, clean, f"--out={tmp_path / 'model'}", "--resume", "--epochs=3"])
    assert again.exit_code == 0, again.output
    predicted = run(app, ["predict", str(tmp_path / "model"), f"{noisy}/0.tif", f"--out={tmp_path / 'out'}"])
    assert predicted.exit_code == 0, predicted.output
    assert "cannot be known" not in predicted.output
    assert read_image(tmp_path / "out" / "0.tif").data.shape == (64, 64)

    truth = fields(2, 64, seed=9)
    noise = np.random.default_rng(3).normal(0, 0.2, truth.shape)
    pairs = [str(folder(tmp_path / "s", truth + noise)), str(folder(tmp_path / "t", truth))]
    known = run(
        app,
        [
            *("train", noisy, clean, "--method=cyclegan", f"--out={tmp_path / 'known'}", *settings),
            *("--validate-on", *pairs, "--early-stopping=5"),
        ],
    )
    assert known.exit_code == 0, known.output
    assert "validation loss" in known.output
    wrong = run(app, ["train", noisy, clean, f"--out={tmp_path / 'wrong'}", "--validate-on", *pairs])
    assert wrong.exit_code == 2
    assert "methods without pairs" in wrong.output
