"""Learning with a critic: that it restores, goes on as if it had never stopped, and leaves a network of convolutions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image

pytestmark = pytest.mark.tf

TINY: dict[str, Any] = {
    "method": "cgan",
    "architecture": "resnet",
    "resnet_norm": "instance",
    "unet_n_depth": 1,
    "unet_n_first": 4,
    "resnet_n_blocks": 1,
    "gan_critic_n_first": 4,
    "gan_critic_n_depth": 2,
    "gan_content_steps": 4,
    "train_epochs": 3,
    "train_steps_per_epoch": 4,
    "train_batch_size": 4,
    "seed": 3,
}


def tiny(**settings: Any) -> CareConfig:
    return CareConfig("YX", **{**TINY, **settings})


def blobs(n: int, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs of 0 to 1 with noise of 0.2, and without."""
    random = np.random.default_rng(seed)
    clean = gaussian_filter(random.random((n, size, size)), (0, 2, 2))
    clean = (clean - clean.min()) / np.ptp(clean)
    return (clean + random.normal(0, 0.2, clean.shape)).astype(np.float32), clean.astype(np.float32)


@pytest.fixture(scope="module")
def pairs() -> tuple[Any, Any]:
    return blobs(48, 32, seed=0), blobs(12, 32, seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pairs: Any) -> tuple[Any, Path]:
    from care_bridge.training.fit import train

    folder = tmp_path_factory.mktemp("cgan") / "model"
    config = tiny(
        unet_n_first=8, train_epochs=6, train_steps_per_epoch=25, train_batch_size=8, train_learning_rate=1e-3
    )
    return train(config, *pairs, folder), folder


def weights_of(folder: Path) -> list[np.ndarray]:
    from care_bridge.training.folder import find_weights, read_weights

    return [array for _, array in read_weights(find_weights(folder, "weights_last.h5"))]


# --- training


def test_a_conditional_gan_takes_noise_off_pairs_that_it_never_saw(trained: Any, pairs: Any) -> None:
    result, _ = trained
    source, target = pairs[1]
    restored = np.asarray(result.model.network(source[..., None]))[..., 0]
    # Noise of 0.2 is an error of 0.16; a mean of all targets in place of a restored image is one of 0.12.
    assert np.abs(restored - target).mean() < 0.6 * np.abs(source - target).mean()


def test_what_validated_is_what_is_opened(trained: Any, pairs: Any) -> None:
    result, folder = trained
    source, target = pairs[1]
    restored = np.asarray(result.model.network(source[..., None]))[..., 0]
    kept = min(record["val_loss"] for record in result.history)
    assert np.abs(restored - target).mean() == pytest.approx(kept, rel=1e-4)
    assert not [layer for layer in result.model.network.layers if "norm" in layer.name]
    assert read_config(folder).method == "cgan"


def test_the_error_with_each_patchs_own_statistics_is_told_too(trained: Any) -> None:
    result, folder = trained
    with open(folder / "training" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.history)
    for key in ("val_mae_own", "adversarial", "content", "critic"):
        assert all(np.isfinite(float(row[key])) for row in rows)
    assert rows[0]["val_mae_own"] != rows[0]["val_mae"]


@pytest.mark.parametrize(
    "settings",
    [
        {"train_augment": ("flips", "rot90")},
        {"gan_loss": "wgan-gp", "gan_critic_steps": 2, "gan_content_net": "filters", "train_average": 0.9},
    ],
    ids=["lsgan", "wgan-gp"],
)
def test_a_resumed_run_is_the_run(settings: dict[str, Any], pairs: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train

    config = tiny(**settings)
    train(config, *pairs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, *pairs, tmp_path / "parts", checkpoint_every_s=0, progress=_stop_after(6))
    train(config, *pairs, tmp_path / "parts", resume=True)
    for whole, parts in zip(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(whole, parts)
    assert len({array.tobytes() for array in weights_of(tmp_path / "whole")}) > 1


def _stop_after(step: int) -> Any:
    def progress(done: int, total: int, told: str = "") -> None:
        if done == step + 1:
            raise KeyboardInterrupt

    return progress


def test_another_critic_cannot_go_on_with_a_run(trained: Any, pairs: Any) -> None:
    from care_bridge.training.fit import train

    _, folder = trained
    with pytest.raises(InputError, match="gan_loss was 'lsgan' and is 'bce'"):
        train(read_config(folder).replace(gan_loss="bce"), *pairs, folder, resume=True)


def test_a_network_of_pairs_can_be_taken_up_with_a_critic(pairs: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train
    from care_bridge.training.unet import build

    config = tiny(train_learning_rate=1e-9, train_epochs=1, train_steps_per_epoch=1)
    start = build(config, seed=77)
    model = train(config, *pairs, tmp_path / "model", start=start).model
    source = pairs[1][0][..., None]
    np.testing.assert_allclose(model.network(source), start(source), atol=1e-5)


# --- the network


def test_folded_normalisation_gives_what_the_trained_network_gives(pairs: Any) -> None:
    from care_bridge.training.adversarial.generator import Generator

    generator = Generator(tiny(unet_n_depth=2), seed=5)
    random = np.random.default_rng(0)
    source = pairs[0][0][:8, ..., None]
    for norm in generator.norms.values():
        for weight in norm.weights:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    generator.passing.mix.assign(1.0)
    whole = np.asarray(generator.network(source, training=False))
    np.testing.assert_allclose(generator.deployed()(source), whole, atol=1e-5)
    generator.passing.mix.assign(0.0)
    assert np.abs(np.asarray(generator.network(source, training=False)) - whole).max() > 0.01


def test_instance_normalisation_is_that_of_each_patch_until_it_passes_over() -> None:
    from care_bridge.training.adversarial.generator import Passing, PassingNorm

    passing = Passing()
    norm = PassingNorm(passing, name="norm")
    random = np.random.default_rng(0)
    patches = random.normal([[[[3.0]]], [[[-5.0]]]], [[[[2.0]]], [[[0.5]]]], (2, 40, 40, 1)).astype(
        np.float32
    )
    passing.share.assign(1.0)
    own = np.asarray(norm(patches, training=True))
    np.testing.assert_allclose(own.mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(own.std((1, 2)), 1, atol=1e-3)
    # All pixels of both patches together, by the definition.
    assert float(norm.mean[0, 0]) == pytest.approx(patches.mean(), abs=1e-4)
    assert float(norm.variance[0, 0]) == pytest.approx(patches.var(), rel=1e-4)
    passing.mix.assign(1.0)
    frozen = np.asarray(norm(patches, training=False))
    np.testing.assert_allclose(frozen, (patches - patches.mean()) / patches.std(), atol=1e-3)


def test_normalisation_passes_over_between_a_quarter_and_half_of_the_steps() -> None:
    from care_bridge.training.adversarial.generator import passed

    assert [passed(step, 100, freeze=0.5) for step in (0, 25, 50, 99)] == [0, 0, 1, 1]
    assert passed(37, 100, freeze=0.5) == pytest.approx(0.48)
    assert passed(99, 100, freeze=1.0) < 1


def test_tiles_agree_with_the_whole_image(trained: Any, tmp_path: Path) -> None:
    from care_bridge.opening import open_predictor
    from care_bridge.predictor import PredictOptions
    from care_bridge.tiling import CsbdeepTiles

    _, folder = trained
    image = Image(blobs(1, 160, seed=4)[0][0], "YX")
    tiles = PredictOptions(tiles=CsbdeepTiles({"Y": 3, "X": 2}))
    with open_predictor(folder, runtime="keras") as whole:
        expected = whole.predict(image).data
    with open_predictor(folder, runtime="keras", options=tiles) as cut:
        np.testing.assert_allclose(cut.predict(image).data, expected, atol=1e-5)


# --- losses


def test_critics_are_judged_by_the_formulas_of_their_papers() -> None:
    from care_bridge.training.adversarial.critic import critic_loss, generator_loss

    real, made = np.array([[2.0], [0.5]], np.float32), np.array([[-1.0], [0.25]], np.float32)
    # Mao 2017: mean of squares, halved; Goodfellow 2014 from logits; Arjovsky 2017.
    assert float(critic_loss("lsgan", real, made)) == pytest.approx((1 + 0.25) / 4 + (1 + 0.0625) / 4)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    entropy = -(np.log(sigmoid(real)).mean() + np.log(1 - sigmoid(made)).mean()) / 2
    assert float(critic_loss("bce", real, made)) == pytest.approx(entropy, rel=1e-5)
    assert float(critic_loss("wgan-gp", real, made)) == pytest.approx(-0.375 - 1.25)
    assert float(generator_loss("lsgan", made)) == pytest.approx((4 + 0.5625) / 2)
    assert float(generator_loss("bce", made)) == pytest.approx(-np.log(sigmoid(made)).mean(), rel=1e-5)
    assert float(generator_loss("wgan-gp", made)) == pytest.approx(0.375)


def test_the_gradient_penalty_is_that_of_each_image_by_itself() -> None:
    import keras
    import tensorflow as tf

    from care_bridge.training.adversarial.critic import gradient_penalty

    # A critic that gives 3 times the mean of 4 pixels has a gradient of 3/4 at each: of length 1.5.
    inputs = keras.layers.Input((None, None, 1))
    critic = keras.Model(inputs, keras.layers.Rescaling(3.0)(inputs))
    real, made = (tf.random.normal([5, 2, 2, 1], seed=number) for number in (1, 2))
    found = gradient_penalty(critic, real, made, tf.constant([0, 1]))
    assert float(found) == pytest.approx(10 * (1.5 - 1) ** 2, rel=1e-4)


def test_deblurgan_is_a_setting_of_the_same_parts(pairs: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train

    config = CareConfig("YX", method="deblurgan")
    # Kupyn et al. 2018: 5 steps of the critic, weight 100, 1e-4; the critic sees sharp and restored images alone.
    assert (config.gan_loss, config.gan_critic_steps, config.gan_content) == ("wgan-gp", 5, 100.0)
    assert (config.gan_l1, config.train_learning_rate, config.architecture) == (0.0, 1e-4, "resnet")
    small = {key: value for key, value in TINY.items() if key != "method"}
    small |= {
        "method": "deblurgan",
        "train_epochs": 1,
        "train_steps_per_epoch": 2,
        "gan_content_net": "random_vgg",
    }
    result = train(CareConfig("YX", **small), *pairs, tmp_path / "model")
    assert np.isfinite(result.history[0]["content"])
    assert read_config(tmp_path / "model").gan_critic_conditional is False


def test_the_weights_of_vgg16_are_those_of_the_file_with_its_hash(tmp_path: Path) -> None:
    import keras

    from care_bridge.files import sha256
    from care_bridge.training.adversarial.content import Vgg

    inputs = layer = keras.layers.Input((None, None, 3))
    for block, features in ((1, 64), (1, 64), (2, 128), (2, 128), (3, 256), (3, 256), (3, 256), (4, 8)):
        layer = keras.layers.Conv2D(features, 3, name=f"block{block}_{len(str(layer.name))}_{id(layer)}")(
            layer
        )
    whole = keras.Model(inputs, layer)
    file = tmp_path / "vgg.weights.h5"
    from care_bridge.training.folder import save_weights

    save_weights(whole, file)
    config = tiny(gan_content_net="vgg16", gan_vgg_file=str(file), gan_vgg_sha256=sha256(file))
    found = Vgg(config).network.weights
    assert len(found) == 14  # seven convolutions, down to block3_conv3
    for one, other in zip(found, whole.weights, strict=False):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match="gan_vgg_sha256 asks for 0000"):
        Vgg(config.replace(gan_vgg_sha256="0" * 64))
    save_weights(keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)), file)
    with pytest.raises(InputError, match="other layers than VGG16's"):
        Vgg(config.replace(gan_vgg_sha256=None))
    with pytest.raises(InputError, match="go together"):
        tiny(gan_content_net="vgg16")


@pytest.mark.parametrize("kind", ["encoder", "filters", "random_vgg"])
def test_content_is_further_apart_the_more_is_changed(kind: str, pairs: Any) -> None:
    from care_bridge.training.adversarial.content import content_of
    from care_bridge.training.batches import Arrays, Passes

    source, target = (part[..., None] for part in pairs[0])
    content = content_of(tiny(gan_content_net=kind, gan_content_steps=30))
    content.learn(Passes(Arrays(source, target)))
    assert float(content.distance(target, target)) == 0
    little = float(content.distance(target + (source - target) / 4, target))
    assert 0 < little < float(content.distance(source, target))


def test_no_filter_but_the_gaussian_sees_a_constant() -> None:
    from care_bridge.training.adversarial.content import _bank

    bank = _bank(2.0)[:, :, 0]
    np.testing.assert_allclose(np.abs(bank).sum((0, 1)), 1, rtol=1e-5)
    assert bank[..., 0].sum() == pytest.approx(1)
    np.testing.assert_allclose(bank[..., 1:].sum((0, 1))[[0, 1, 3, 4, 5, 6]], 0, atol=1e-6)


# --- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": "ZYX"}, "2-D networks.*--network-axes YX"),
        ({"probabilistic": True}, "not probabilistic"),
        ({"kind": "IsotropicCARE"}, "CARE networks"),
        ({"train_loss_bg_thresh": 0.1}, "train_loss_bg_thresh"),
        ({"gan_adversarial": 0, "gan_l1": 0, "gan_content": 0}, "nothing is left"),
        ({"gan_los": "bce"}, "did you mean 'gan_loss'"),
        ({"unet_top_skip": False}, "no\n?.*skip connection"),
    ],
)
def test_settings_that_no_critic_can_learn_by_are_refused(settings: dict[str, Any], message: str) -> None:
    axes = settings.pop("axes", "YX")
    with pytest.raises(InputError, match=message):
        CareConfig(axes, **{**TINY, **settings})


def test_a_loss_that_becomes_nan_is_named_with_the_side_that_lost(pairs: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train

    config = tiny(train_learning_rate=1e30, gan_loss="wgan-gp")
    with pytest.raises(InputError, match=r"in step \d+ the (critic |adversarial )?loss became NaN") as caught:
        train(config, *pairs, tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_sheet_of_samples_is_drawn_each_epoch(trained: Any) -> None:
    result, folder = trained
    sheets = sorted(file.name for file in (folder / "training" / "samples").iterdir())
    assert sheets == [f"epoch_{epoch:04}.png" for epoch in range(1, len(result.history) + 1)]


def test_a_generator_that_gives_one_grey_or_always_one_image_has_collapsed(pairs: Any) -> None:
    from care_bridge.training.adversarial.looks import collapsed, critic_wins

    target = pairs[1][1][..., None]
    assert collapsed(target, target) is None
    assert "one grey" in str(collapsed(np.full_like(target, 0.4), target))
    assert "the same image" in str(collapsed(np.broadcast_to(target[:1], target.shape), target))
    assert critic_wins("lsgan", 1e-4)
    assert not critic_wins("lsgan", 0.1)
    assert not critic_wins("wgan-gp", -3.0)


def test_training_ends_where_the_generator_collapsed(pairs: Any, tmp_path: Path) -> None:
    from care_bridge.training.fit import train
    from care_bridge.training.unet import build

    config = tiny(unet_residual=False, train_epochs=1, train_learning_rate=1e-9, gan_content=0.0)
    nothing = [np.zeros(weight.shape, np.float32) for weight in build(config).weights]
    with pytest.raises(
        InputError, match=r"in epoch \d+ the generator collapsed: it gives .*--seed"
    ) as caught:
        train(config, *pairs, tmp_path / "model", start=nothing)
    assert "\n" not in str(caught.value)


# --- the command and every reader


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source/, target/ and the model that the command made of them."""
    place = tmp_path_factory.mktemp("commanded")
    folders = _folders_of(place, seed=2)
    settings = [f"--set={key}={TINY[key]}" for key in TINY if key.startswith(("gan_", "resnet_"))]
    settings += [
        "--architecture=resnet",
        "--depth=1",
        "--features=4",
        "--batch-size=4",
        "--epochs=2",
        "--steps=4",
        "--patch-size=32,32",
    ]
    result = CliRunner().invoke(
        app,
        [
            "train",
            *folders,
            "--method=cgan",
            f"--out={place / 'model'}",
            *settings,
        ],
    )
    assert result.exit_code == 0, result.output
    assert "so that tiles agree: error" in result.output
    return place


def test_the_command_trains_resumes_and_predicts(commanded: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    config = read_config(commanded / "model")
    assert (config.method, config.architecture, config.train_schedule) == ("cgan", "resnet", "linear")
    assert CareConfig("YX", method="cgan").architecture == "care"
    folders = [str(commanded / "source"), str(commanded / "target")]
    again = run(app, ["train", *folders, f"--out={commanded / 'model'}", "--resume", "--quiet"])
    assert again.exit_code == 0, again.output
    predicted = run(
        app, ["predict", str(commanded / "model"), str(commanded / "source" / "0.tif"), f"--out={tmp_path}"]
    )
    assert predicted.exit_code == 0, predicted.output
    assert "cannot be known" not in predicted.output
    assert read_image(tmp_path / "0.tif").data.shape == (96, 96)


@pytest.mark.java
def test_exported_it_is_the_same_in_tensorflow_1_and_onnx_once_and_twice(
    commanded: Path, tf1_ready: None, tmp_path: Path
) -> None:
    from care_bridge.opening import open_predictor

    run = CliRunner().invoke
    model, image = str(commanded / "model"), str(commanded / "source" / "0.tif")
    bundle, onnx = str(tmp_path / "fiji.zip"), str(tmp_path / "model.onnx")
    for file, form in ((bundle, "fiji"), (onnx, "onnx")):
        exported = run(app, ["export", model, f"--format={form}", f"--out={file}"])
        assert exported.exit_code == 0, exported.output
    checked = run(app, ["check", bundle])
    assert checked.exit_code == 0, checked.output
    # 1e-5 after one application, 5e-5 after two: the tolerances of every model.
    for version in ("1.12.0", "1.15.0"):
        compared = run(app, ["compare", model, bundle, image, "--level=tf1", f"--tensorflow={version}"])
        assert compared.exit_code == 0, compared.output
    with open_predictor(model, runtime="keras") as here, open_predictor(onnx, runtime="onnx") as there:
        expected = here.predict(read_image(image)).data
        found = there.predict(read_image(image)).data
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


@pytest.mark.java
def test_its_package_passes_the_check_of_packages(commanded: Path, tf1_ready: None, tmp_path: Path) -> None:
    run = CliRunner().invoke
    package = str(tmp_path / "package.zip")
    (commanded / "model" / "model.toml").write_text(run(app, ["export", "--example"]).output)
    exported = run(app, ["export", str(commanded / "model"), "--format=bioimageio", f"--out={package}"])
    assert exported.exit_code == 0, exported.output
    checked = run(app, ["check", package])
    assert checked.exit_code == 0, checked.output


def test_it_is_evaluated_like_any_other(commanded: Path, tmp_path: Path) -> None:
    folders = _folders_of(tmp_path, seed=8)
    page = tmp_path / "report.html"
    evaluated = CliRunner().invoke(app, ["evaluate", str(commanded / "model"), *folders, f"--out={page}"])
    # 8 steps restore nothing: a verdict, not a mistake.
    assert evaluated.exit_code in (0, 1), evaluated.output
    assert "No verdict" not in evaluated.output
    assert page.is_file()


def _folders_of(place: Path, *, seed: int) -> list[str]:
    """Folders source and target of three pairs in camera counts."""
    for name, images in zip(("source", "target"), blobs(3, 96, seed=seed), strict=True):
        (place / name).mkdir()
        for number, image in enumerate(images):
            counts = np.clip(1000 + 3000 * image, 0, 65535).round().astype(np.uint16)
            write_image(place / name / f"{number}.tif", Image(counts, "YX"))
    return [str(place / "source"), str(place / "target")]
