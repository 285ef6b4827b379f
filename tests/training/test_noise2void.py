"""Noise2Void: what is hidden and with what, that no pixel trains which validates, and that noise goes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter1d
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.training.blind_spots import BlindSpots, hide
from care_bridge.training.data import TrainingData
from care_bridge.training.noisy import data_from_noisy, noisy_axes

pytestmark = pytest.mark.tf

TINY = {
    "method": "n2v",
    "unet_n_depth": 1,
    "unet_n_first": 4,
    "train_epochs": 2,
    "train_steps_per_epoch": 4,
    "train_batch_size": 2,
}


def drawn(*patch: int, channels: int = 1, **settings: Any) -> tuple[Any, Any, Any]:
    """Patches of noise, and what `hide` makes of them: whole, source, target, mask."""
    axes = "YX" if len(patch) == 2 else "ZYX"
    config = CareConfig(axes, channels, channels, method="n2v", **settings)
    whole = np.random.default_rng(0).normal(size=(3, *patch, channels)).astype(np.float32)
    source, target = hide(whole, config, np.random.default_rng(1))
    np.testing.assert_array_equal(target[..., :channels], whole)
    return whole, source, target[..., channels:]


def blobs(*shape: int, sigma: float = 20.0, seed: int = 0) -> tuple[Any, Any]:
    """A smooth image in camera counts, and the same with white noise."""
    random = np.random.default_rng(seed)
    clean = gaussian_filter(random.random(shape), [0] * (len(shape) - 2) + [3, 3])
    clean = 500 + 100 * (clean - clean.mean()) / clean.std()
    return clean, np.asarray(clean + random.normal(0, sigma, shape), np.float32)


def tiff(path: Path, data: Any, axes: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_image(path, Image(np.asarray(data), axes))
    return path


def data_of(path: Path, patch_size: Any = (16, 16), **settings: Any) -> TrainingData:
    channel = settings.pop("channel", None)
    space, channels = noisy_axes(path, channel=channel)
    config = CareConfig(space, channels, channels, **{**TINY, **settings})
    return data_from_noisy(path, config, patch_size=patch_size, channel=channel)


# --- hiding


@pytest.mark.parametrize(
    "manipulator",
    [
        "uniform_withCP",
        "uniform_withoutCP",
        "normal_withoutCP",
        "normal_additive",
        "normal_fitted",
        "mean",
        "median",
        "identity",
    ],
)
@pytest.mark.parametrize("patch", [(64, 64), (16, 64, 64)])
def test_as_many_pixels_are_hidden_as_asked_for_and_no_other_changes(
    manipulator: str, patch: tuple[int, ...]
) -> None:
    # 1.5 %: boxes of 8 x 8 (1.56 %) and 4 x 4 x 4 (1.56 %) hold a spot each.
    whole, source, mask = drawn(*patch, n2v_manipulator=manipulator, n2v_neighborhood_radius=2)
    assert mask.mean() == 1 / 64
    assert (source == whole)[mask == 0].all()
    changed = (source != whole)[mask == 1].mean()
    # With the centre one in 25 (125 in 3-D) draws the pixel itself.
    if manipulator == "uniform_withCP":
        assert 0.85 < changed < 1
    else:
        assert changed == (manipulator != "identity")


def test_a_pixel_is_hidden_in_all_channels_at_once() -> None:
    whole, source, mask = drawn(32, 32, channels=3, n2v_manipulator="uniform_withoutCP")
    assert (mask == mask[..., :1]).all()
    assert ((source != whole) == (mask == 1)).all()


def test_mean_and_median_are_those_of_the_pixels_around() -> None:
    for name, reckon in {"mean": np.mean, "median": np.median}.items():
        whole, source, mask = drawn(16, 16, n2v_manipulator=name, n2v_neighborhood_radius=1)
        for at in np.argwhere(mask[..., 0]):
            number, y, x = (int(one) for one in at)
            window = whole[number, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, 0]
            without = np.delete(window.ravel(), np.flatnonzero(window.ravel() == whole[number, y, x, 0]))
            assert source[number, y, x, 0] == pytest.approx(reckon(without), abs=1e-6)


def test_structn2v_hides_the_neighbours_of_the_mask_too() -> None:
    whole, source, mask = drawn(32, 32, n2v_structmask=[[1, 1, 1, 1, 1]], n2v_perc_pix=0.4)
    hidden = source != whole
    for at in np.argwhere(mask[..., 0]):
        number, y, x = (int(one) for one in at)
        row = hidden[number, y, :, 0]
        for near in (x - 2, x - 1, x + 1, x + 2):
            assert not 0 <= near < 32 or row[near]
    # No more than five pixels a spot: spots at the border have fewer.
    assert hidden.sum() <= 5 * mask.sum()


def test_a_pixel_nearby_is_never_one_that_the_mask_hides() -> None:
    from care_bridge.training.blind_spots import stand_ins, struct_offsets

    config = CareConfig("YX", method="n2v", n2v_structmask=((1,) * 9,))
    rows = np.broadcast_to(np.arange(64.0)[None, :, None, None], (1, 64, 64, 1)).astype(np.float32)
    spots = tuple(np.full(200, at) for at in (0, 32, 32))
    found = stand_ins(
        rows,
        spots,
        "normal_withoutCP",
        radius=5,
        hidden=struct_offsets(config),
        rng=np.random.default_rng(0),
    )
    # The spot's own row is hidden over 4 pixels a side; a deviation of 4 reaches beyond: some come from it, most do not.
    assert 0 < (found == 32).mean() < 0.1
    assert 3 < found.std() < 5


def test_batches_hang_on_seed_and_step_alone(tmp_path: Path) -> None:
    data = data_of(tiff(tmp_path / "a.tif", blobs(64, 48)[1], "YX")).training
    assert isinstance(data, BlindSpots)
    first = data.batch_at(7, size=3, seed=2)
    data.batch_at(1, size=3, seed=2)
    for one, other in zip(first, data.batch_at(7, size=3, seed=2), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (data.batch_at(8, size=3, seed=2)[0] != first[0]).any()
    assert (data.batch_at(7, size=3, seed=3)[0] != first[0]).any()


def test_the_loss_is_that_of_the_hidden_pixels() -> None:
    from care_bridge.training.losses import mae, masked, mse

    target = np.array([[[[3.0, 1.0], [5.0, 0.0]]]], np.float32)  # 3 hidden, 5 not
    prediction = np.array([[[[1.0], [100.0]]]], np.float32)
    assert np.mean(masked(mse)(target, prediction)) == pytest.approx(4)
    assert np.mean(masked(mae)(target, prediction)) == pytest.approx(2)


# --- from files


@pytest.mark.parametrize(
    ("axes", "shape", "patch", "space"),
    [
        ("YX", (48, 40), (16, 16), "YX"),
        ("TYX", (3, 48, 40), (16, 16), "YX"),
        ("CYX", (2, 48, 40), (16, 16), "YX"),
        ("ZYX", (6, 48, 40), (4, 16, 16), "ZYX"),
        ("TZCYX", (2, 6, 2, 48, 40), (4, 16, 16), "ZYX"),
    ],
)
def test_images_movies_stacks_and_channels_are_learnt_from(
    axes: str, shape: tuple[int, ...], patch: tuple[int, ...], space: str, tmp_path: Path
) -> None:
    noisy = blobs(*shape)[1]
    data = data_of(tiff(tmp_path / "a.tif", noisy, axes), patch)
    channels = shape[axes.index("C")] if "C" in axes else 1
    assert (data.axes, data.n_channel_in) == (f"{space}C", channels)
    source, target = data.training.batch_at(0, size=2, seed=0)  # type: ignore[union-attr]
    assert source.shape == (2, *patch, channels)
    assert target.shape == (2, *patch, 2 * channels)
    assert data.means is not None
    assert data.stds is not None
    per_channel = np.moveaxis(noisy, axes.index("C"), 0) if "C" in axes else noisy[None]
    top = [one[..., :32, :].astype(float) for one in per_channel]  # the last 16 rows validate
    np.testing.assert_allclose(data.means, [one.mean() for one in top], rtol=1e-6)
    np.testing.assert_allclose(data.stds, [one.std() for one in top], rtol=1e-6)


def test_no_pixel_trains_that_validates(tmp_path: Path) -> None:
    rows = np.arange(64, dtype=np.float32)[:, None] + np.zeros((64, 32), np.float32)
    data = data_of(tiff(tmp_path / "a.tif", rows, "YX"))
    assert data.means is not None
    assert data.stds is not None

    def seen(target: Any) -> set[int]:
        return set(np.round(target[..., 0] * data.stds[0] + data.means[0]).astype(int).ravel().tolist())  # type: ignore[index]

    trains = set.union(*(seen(data.training.batch_at(step, size=8, seed=0)[1]) for step in range(20)))  # type: ignore[union-attr]
    validates = seen(data.validation.batch(np.arange(len(data.validation)))[1])
    assert trains == set(range(48))
    assert validates == set(range(48, 64))


def test_of_eight_files_whole_ones_validate(tmp_path: Path) -> None:
    for number in range(8):
        tiff(tmp_path / "noisy" / f"{number}.tif", blobs(20, 20, seed=number)[1] + 1000 * number, "YX")
    data = data_of(tmp_path / "noisy")
    assert isinstance(data.training, BlindSpots)
    assert len(data.training.images) == 7
    assert data.provenance["split"] == "no validation pixel is a training pixel"


def test_one_channel_of_several_can_be_learnt_alone(tmp_path: Path) -> None:
    noisy = np.stack([blobs(48, 40)[1], blobs(48, 40, seed=1)[1] + 1000])
    data = data_of(tiff(tmp_path / "a.tif", noisy, "CYX"), channel=1)
    assert data.means is not None
    assert 1450 < data.means[0] < 1550
    assert data.provenance["channel"] == 1


@pytest.mark.filterwarnings("error")
def test_noise_that_neighbours_share_is_said_with_the_mask_that_hides_it(tmp_path: Path) -> None:
    clean, noisy = blobs(128, 128)
    white = tiff(tmp_path / "white.tif", noisy, "YX")
    streaks = uniform_filter1d(np.random.default_rng(5).normal(0, 40, (128, 128)), 3, axis=1)
    rows = tiff(tmp_path / "rows.tif", np.asarray(clean + streaks, np.float32), "YX")
    data_of(white)
    with pytest.warns(UserWarning, match=r"along x\).*--struct-mask 1,9"):
        data_of(rows)
    data_of(rows, n2v_structmask=((1,) * 9,))


# --- training


def test_noise_goes_and_how_much_there_was_is_told(tmp_path: Path) -> None:
    from care_bridge.opening import open_predictor

    clean, noisy = blobs(160, 128, sigma=40.0)
    image = tiff(tmp_path / "noisy.tif", noisy, "YX")
    out = tmp_path / "model"
    size = "--features 8 --epochs 3 --steps 40 --batch-size 8 --learning-rate 0.003 --patch-size 32,32"
    words = ["train", str(image), "--method", "n2v", "--out", str(out), *size.split()]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    told = float(said.output.split("noise of a pixel: at most ")[1].split()[0])
    assert 40 * 0.95 < told < 40 * 1.25  # what was added, and the prediction's own error
    assert "no percentiles" in said.output
    with open_predictor(out, runtime="keras") as predictor:
        restored = predictor.predict(Image(noisy, "YX")).data
    before, after = (np.sqrt(np.mean((one - clean) ** 2)) for one in (noisy, restored))
    assert after < 0.6 * before


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"train_average": 0.9, "train_precision": "bfloat16"},
        {"train_average": 0.9, "unet_batch_norm": True, "unet_narrow_up": True},
    ],
)
def test_a_resumed_training_is_the_training(more: dict[str, Any], tmp_path: Path) -> None:
    from care_bridge.training.from_files import train_from_files

    image = tiff(tmp_path / "a.tif", blobs(48, 40)[1], "YX")
    settings = {**TINY, **more, "n2v_manipulator": "median", "unet_blurpool": True, "unet_top_skip": False}

    def weights(out: str, **how: Any) -> list[Any]:
        trained = train_from_files(image, out=tmp_path / out, patch_size=(16, 16), **how)
        assert trained.config.means is not None
        return list(trained.network.get_weights())

    whole = weights("whole", settings=settings)
    weights("parts", settings={**settings, "train_epochs": 1})
    # What it was begun with is in its config.json: nothing else is named.
    resumed = weights("parts", settings={"train_epochs": 2}, resume=True)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_of_another_model_and_ensembles_are_for_noisy_images_too(tmp_path: Path) -> None:
    from care_bridge.opening import open_predictor
    from care_bridge.training.from_files import train_from_files

    noisy = blobs(48, 40)[1]
    image = tiff(tmp_path / "a.tif", noisy, "YX")

    def trained(out: str, **how: Any) -> Any:
        return train_from_files(image, out=tmp_path / out, patch_size=(16, 16), settings=TINY, **how)

    both = trained("both", members=2)
    assert both.config.means is not None
    parts = []
    for place in (tmp_path / "both", tmp_path / "both" / "member_1", tmp_path / "both" / "member_2"):
        with open_predictor(place, runtime="keras") as predictor:
            parts.append(predictor.predict(Image(noisy, "YX")).data)
    assert np.abs(parts[1] - parts[2]).max() > 0.1
    np.testing.assert_allclose(parts[0], (parts[1] + parts[2]) / 2, rtol=1e-5)
    begun = trained("begun", start=tmp_path / "both" / "member_1").config.provenance["start"]
    assert (begun["source"], begun["fresh"]) == ("member_1", [])


def test_a_network_on_its_own_scale_is_the_bare_one_with_the_scale_around() -> None:
    from care_bridge.inference.keras import KerasNetwork
    from care_bridge.own_scale import OnItsOwnScale
    from care_bridge.training.unet import bare, build, mean_of

    config = CareConfig("YX", 2, 2, means=(500.0, 20000.0), stds=(40.0, 900.0), **TINY)
    network = build(config)
    plain = bare(config, network)
    assert config.own_scale is not None
    around = OnItsOwnScale(KerasNetwork(plain), config.own_scale)
    image = np.random.default_rng(0).normal(0, 1, (1, 16, 16, 2)).astype(np.float32) * (40, 900) + (
        500,
        20000,
    )
    image = image.astype(np.float32)
    np.testing.assert_allclose(around(image), network(image), rtol=1e-6)
    # Of an average of networks, which has no like of `build`, the scale is undone around it.
    average = bare(config, mean_of([network, network], probabilistic=False))
    normalised = (image - np.float32((500, 20000))) / np.float32((40, 900))
    np.testing.assert_allclose(average(normalised), plain(normalised), atol=1e-4)


def test_csbdeep_is_told_that_it_cannot_open_such_a_folder(tmp_path: Path) -> None:
    from care_bridge.csbdeep.models import CARE
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig("YX", means=(500.0,), stds=(40.0,), **TINY)
    save_model(tmp_path / "model", config, build(config, scaled=False))
    assert read_config(tmp_path / "model") == config
    assert config.to_json()["allow_new_parameters"] is False
    with pytest.raises(InputError, match="normalise by percentiles"):
        CARE(None, "model", basedir=tmp_path)


# --- what people do wrong


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"n2v_perc_pix": 60}, "less than or equal to 25"),
        ({"n2v_structmask": [[1, 1]]}, "must be odd"),
        ({"n2v_structmask": [1, 1, 1]}, "has 1 dimensions"),
        ({"n2v_structmask": [[1, 2, 1]]}, "nested lists of 0 and 1"),
        ({"probabilistic": True, "train_loss": "laplace"}, "not probabilistic"),
        ({"train_augment": ("intensity",)}, "intensity"),
        ({"means": (1.0,)}, "go together"),
        ({"means": (1.0,), "stds": (0.0,)}, "above 0"),
        ({"means": (1.0, 2.0), "stds": (1.0, 1.0)}, "each of the 1 channels"),
        ({"n2v_manipulator": "magic"}, "uniform_withCP"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        CareConfig("YX", **{**TINY, **settings})


def test_a_mask_that_leaves_nothing_to_fill_spots_with_is_refused(tmp_path: Path) -> None:
    image = tiff(tmp_path / "a.tif", blobs(48, 40)[1], "YX")
    with pytest.raises(InputError, match="nothing is left"):
        data_of(
            image,
            n2v_structmask=((1,) * 5,) * 5,
            n2v_manipulator="uniform_withoutCP",
            n2v_neighborhood_radius=2,
        )


def test_images_that_cannot_be_used_are_said_together(tmp_path: Path) -> None:
    noisy = blobs(48, 40)[1]
    tiff(tmp_path / "n" / "a.tif", noisy, "YX")
    tiff(tmp_path / "n" / "narrow.tif", noisy[:, :12], "YX")
    tiff(tmp_path / "n" / "two.tif", np.stack([noisy, noisy]), "CYX")
    with pytest.raises(InputError, match=r"(?s)'narrow.tif' has 12 pixels along X.*'two.tif' has 2 channels"):
        data_of(tmp_path / "n")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.full((48, 40), 7, np.uint16), "every pixel is 7"),
        (np.full((48, 40), np.nan, np.float32), "NaN"),
        (np.arange(17 * 40, dtype=np.uint16).reshape(17, 40), "no image has 18 rows"),
    ],
)
def test_constant_broken_and_small_images_are_refused(data: Any, why: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = tiff(tmp_path / "a.tif", data, "YX")
    with pytest.raises(InputError, match=why):
        data_of(image)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--method", "n2v", "TARGET"], "noisy images alone"),
        (["--method", "n2v", "--simulate", "denoise"], "leave out --simulate"),
        (["--method", "n2v", "--target-scale", "own"], "are for pairs"),
        (["--method", "n2w"], "care, n2v"),
        (["--n2v2"], "--method n2v"),
        (["--struct-mask", "1,9"], "--method n2v"),
        (["--method", "n2v", "--struct-mask", "1,8"], "must be odd"),
        (["--method", "n2v", "--kind", "UpsamplingCARE", "--network-axes", "ZYX"], "trains CARE networks"),
    ],
)
def test_a_command_line_that_cannot_be_is_one_sentence(words: list[str], why: str, tmp_path: Path) -> None:
    image = tiff(tmp_path / "a.tif", blobs(48, 40)[1], "YX")
    words = [str(tmp_path) if word == "TARGET" else word for word in words]
    done = CliRunner().invoke(app, ["train", str(image), *words, "--out", str(tmp_path / "m")])
    assert done.exit_code == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_shared_noise_is_outside_of_what_single_blind_spots_take_out(tmp_path: Path) -> None:
    from care_bridge.model_files import stated_noise
    from care_bridge.noise import measure_noise
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    clean, _ = blobs(128, 128)
    streaks = uniform_filter1d(np.random.default_rng(5).normal(0, 40, (128, 128)), 3, axis=1)
    noise = measure_noise(Image(np.asarray(clean + streaks, np.float32), "YX"))
    for mask, said in ((None, 1), (((1,) * 9,), 0)):
        # Trained on such noise: what was measured then stands in config.json.
        measured = {"data": {"noise": {"correlation": [noise.correlation] * 2}}}
        config = CareConfig(
            "YX", means=(500.0,), stds=(40.0,), n2v_structmask=mask, provenance=measured, **TINY
        )
        save_model(tmp_path / f"{said}", config, build(config, scaled=False))
        told = stated_noise(tmp_path / f"{said}").covers(noise)
        assert len([one for one in told if "share their noise" in one]) == said
