"""One generator for several defects: it makes what it was shown, noise is noise, and each defect is a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, laplace
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image

pytestmark = pytest.mark.tf

TINY: dict[str, Any] = {
    "method": "cin-gan",
    "unet_n_depth": 1,
    "unet_n_first": 4,
    "resnet_n_blocks": 1,
    "gan_critic_n_first": 4,
    "gan_critic_n_depth": 1,
    "gan_critic_steps": 1,
    "gan_content_net": "filters",
    "train_epochs": 2,
    "train_steps_per_epoch": 3,
    "train_batch_size": 2,
}


def tiny(**settings: Any) -> CareConfig:
    return CareConfig("YX", 2, 1, **{**TINY, "gan_defects": ("blur", "noise"), **settings})


def fields(n: int, size: int, *, seed: int) -> np.ndarray:
    clean = gaussian_filter(np.random.default_rng(seed).random((n, size, size)), (0, 1.5, 1.5))
    return np.asarray((clean - clean.min()) / np.ptp(clean))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean/, and in defects/ one folder of blurred and one of noisy images, all of other fields."""
    found = tmp_path_factory.mktemp("cin")
    noise = np.random.default_rng(0).normal(0, 0.25, (4, 64, 64))
    kinds = {
        "clean": fields(4, 64, seed=1),
        "defects/blur": gaussian_filter(fields(4, 64, seed=2), (0, 2, 2)),
        "defects/noise": fields(4, 64, seed=3) + noise,
    }
    for name, images in kinds.items():
        (found / name).mkdir(parents=True)
        for number, image in enumerate(images):
            counts = np.clip(1000 + 3000 * image, 0, 65535).round().astype(np.uint16)
            write_image(found / name / f"{number}.tif", Image(counts, "YX"))
    return found


def data_of(place: Path) -> Any:
    from care_bridge.training.defects import data_from_defects

    return data_from_defects(place / "clean", place / "defects", patch_size=(16, 16), n_patches_per_image=16)


def test_a_step_has_one_defect_and_fresh_noise(place: Path) -> None:
    from care_bridge.training.defects import task_of

    data = data_of(place)
    assert (data.n_channel_in, data.n_channel_out, data.defects) == (2, 1, ("blur", "noise"))
    tasks = [task_of(step, 2, seed=0) for step in range(400)]
    assert 150 < sum(tasks) < 250  # 200 +- 10
    patches = [
        {one.tobytes() for one in part.batch(np.arange(len(part)))[0]} for part in data.training.defects
    ]
    for step in range(8):
        source, target = data.training.batch_at(step, size=3, seed=0)
        assert {one.tobytes() for one in target} <= patches[tasks[step]]
        # Of normal noise percentiles 2 and 99.8 are at 0 and 1.
        noise = source[..., 1]
        assert abs(noise.mean() - 2.0537 / 4.9319) < 0.05
        assert abs(noise.std() - 1 / 4.9319) < 0.05
    np.testing.assert_array_equal(
        data.training.batch_at(5, size=3, seed=0)[0], data.training.batch_at(5, size=3, seed=0)[0]
    )
    assert (
        data.training.batch_at(5, size=3, seed=0)[0] != data.training.batch_at(6, size=3, seed=0)[0]
    ).any()


def test_defects_share_all_but_their_normalisation(place: Path, tmp_path: Path) -> None:
    from care_bridge.training.fit import train
    from care_bridge.training.folder import load_model

    data = data_of(place)
    train(tiny(), data.training, data.validation, tmp_path / "model")
    blur, noise = (load_model(tmp_path / "model" / "defects" / name) for name in ("blur", "noise"))
    assert (blur.config.gan_defects, noise.config.gan_defects) == (("blur",), ("noise",))
    # The last convolution is followed by no normalisation, so nothing of a defect is folded into it.
    for one, other in zip(
        blur.network.get_layer("mean").get_weights(),
        noise.network.get_layer("mean").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    one, other = (model.network.get_layer("first").get_weights()[0] for model in (blur, noise))
    ratio = one / other
    # Of the same kernels each defect has its own factor a feature.
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1, :1, :1], ratio.shape), rtol=1e-3)
    assert np.ptp(ratio) > 0
    whole = load_model(tmp_path / "model")
    np.testing.assert_array_equal(whole.network.get_layer("first").get_weights()[0], one)


def test_a_resumed_run_is_the_run_for_each_defect(place: Path, tmp_path: Path) -> None:
    from care_bridge.training.fit import train
    from care_bridge.training.folder import read_weights

    def stop(done: int, total: int, told: str = "") -> None:
        if done == 5:
            raise KeyboardInterrupt

    data, config = data_of(place), tiny(train_average=0.5)
    train(config, data.training, data.validation, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, data.training, data.validation, tmp_path / "parts", checkpoint_every_s=0, progress=stop)
    train(config, data.training, data.validation, tmp_path / "parts", resume=True)
    for name in ("blur", "noise"):
        files = [tmp_path / part / "defects" / name / "weights_last.h5" for part in ("whole", "parts")]
        for one, other in zip(*map(read_weights, files), strict=True):
            np.testing.assert_array_equal(one[1], other[1])


def test_what_is_made_is_what_was_shown_and_noise_is_noise(place: Path, tmp_path: Path) -> None:
    from care_bridge.training.defects import with_noise
    from care_bridge.training.fit import train
    from care_bridge.training.folder import load_model

    data = data_of(place)
    config = tiny(
        unet_n_first=16,
        gan_freeze=0.1,
        train_epochs=4,
        train_steps_per_epoch=120,
        train_batch_size=4,
        train_learning_rate=5e-3,
    )
    train(config, data.training, data.validation, tmp_path / "model")
    clean = data.validation.batch(np.arange(4))[0][..., :1]
    fine: dict[str, float] = {}
    for name in ("blur", "noise"):
        network = load_model(tmp_path / "model" / "defects" / name).network
        made = [np.asarray(network(with_noise(clean, np.random.default_rng(seed)))) for seed in (1, 2)]
        fine[name] = float(np.mean([np.abs(laplace(one[..., 0])).mean() for one in made[0]]))
        if name == "noise":
            # Other noise that goes in is other noise that comes out, and not a pattern of the image: 0.17 was seen.
            assert (made[0] - made[1]).std() / np.sqrt(2) > 0.08
    shown = data.training.defects[1].batch(np.arange(32))[0]
    wanted = float(np.mean([np.abs(laplace(one[..., 0])).mean() for one in shown]))
    # 0.66 of noise and 0.14 of blur were seen, where what was shown has 0.64 and 0.04, and clean patches 0.10.
    assert 0.6 < fine["noise"] / wanted < 1.5
    assert fine["noise"] > 2 * fine["blur"]


def test_the_command_makes_a_model_of_each_defect(place: Path, tmp_path: Path) -> None:
    from care_bridge.opening import open_predictor

    settings = [f"--set={key}={TINY[key]}" for key in TINY if key.startswith(("gan_", "resnet_"))]
    settings += [
        "--depth=1",
        "--features=4",
        "--batch-size=2",
        "--epochs=1",
        "--steps=2",
        "--patch-size=16,16",
    ]
    folders = [str(place / "clean"), str(place / "defects")]
    out = tmp_path / "model"
    trained = CliRunner().invoke(app, ["train", *folders, "--method=cin-gan", f"--out={out}", *settings])
    assert trained.exit_code == 0, trained.output
    assert "a model for each defect" in trained.output
    assert read_config(out).gan_defects == ("blur", "noise")
    clean = fields(1, 64, seed=9)[0]
    both = np.stack([clean, np.random.default_rng(0).standard_normal(clean.shape)]).astype(np.float32)
    with open_predictor(out / "defects" / "noise", runtime="keras") as predictor:
        assert predictor.predict(Image(both, "CYX")).data.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_channel_in": 1}, "one channel more goes in"),
        ({"resnet_norm": "none"}, "by instance normalisation"),
        ({"unet_residual": True}, "as many channels out"),
    ],
)
def test_settings_that_cannot_tell_defects_apart_are_refused(settings: dict[str, Any], message: str) -> None:
    channels = settings.pop("n_channel_in", 2)
    with pytest.raises(InputError, match=message):
        CareConfig("YX", channels, 1, **{**TINY, "gan_defects": ("blur",), **settings})


def test_a_folder_without_folders_of_defects_is_named(place: Path) -> None:
    from care_bridge.training.defects import data_from_defects

    with pytest.raises(InputError, match=r"holds no folders.*one a defect"):
        data_from_defects(place / "clean", place / "clean", patch_size=(16, 16))
