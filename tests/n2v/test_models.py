"""Models under n2v's names, held against what n2v itself wrote and restored (README.md)."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.n2v.models import N2V, N2VConfig

pytestmark = pytest.mark.tf

TINY = {
    "unet_n_depth": 1,
    "unet_n_first": 4,
    "unet_kern_size": 3,
    "train_epochs": 1,
    "train_steps_per_epoch": 3,
    "train_batch_size": 4,
    "n2v_patch_shape": (16, 16),
}


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    """Patches of camera counts, every channel on its own level."""
    levels = 100.0 * np.arange(1, shape[-1] + 1)
    return np.asarray(np.random.default_rng(seed).normal(levels, 20, shape), np.float32)


def test_settings_are_n2vs(recorded: Path) -> None:
    # Written by n2v 0.3.3 for patches of which two thirds were in X; what make.py does not set has its default.
    theirs = json.loads((recorded / "plain" / "config.json").read_text())
    made = vars(N2VConfig(noisy(8, 16, 16, 1)))
    assert set(made) == set(theirs)
    set_there = {
        *("unet_n_first", "unet_kern_size", "train_epochs", "train_steps_per_epoch", "train_batch_size"),
        *("train_learning_rate", "train_loss", "n2v_perc_pix", "n2v_patch_shape", "means", "stds"),
    }
    for key in set(theirs) - set_there:
        assert json.loads(json.dumps(made[key])) == theirs[key], key
    assert made["unet_kern_size"] == 5
    assert N2VConfig(noisy(2, 8, 16, 16, 1)).unet_kern_size == 3
    assert made["n2v_patch_shape"] == (64, 64)
    assert (made["train_loss"], made["n2v_perc_pix"], made["unet_n_first"]) == ("mae", 1.5, 32)


def test_mean_and_deviation_are_those_of_each_channel() -> None:
    patches = noisy(8, 16, 16, 3)
    config = N2VConfig(patches)
    np.testing.assert_allclose([float(one) for one in config.means], patches.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose([float(one) for one in config.stds], patches.std(axis=(0, 1, 2)), rtol=1e-6)
    assert config.is_valid()
    assert config.settings().unet_per_channel is True


def test_misspelt_settings_are_named_and_notes_are_kept() -> None:
    patches = noisy(2, 16, 16, 1)
    with pytest.raises(InputError, match="did you mean 'train_epochs'"):
        N2VConfig(patches, train_epoch=3)
    config = N2VConfig(patches, my_note="hello", seed=4)
    assert config.settings().other == {"my_note": "hello"}
    assert config.settings().seed == 4
    config.unet_kern_size = 4
    assert config.is_valid(return_invalid=True)[0] is False
    with pytest.raises(InputError, match="see N2VConfig"):
        config.update_parameters(allow_new=False, something=1)
    with pytest.raises(InputError, match="3 dimensions"):
        N2VConfig(patches[..., 0])


@pytest.mark.parametrize("name", ["plain", "joint", "n2v2", "residual", "volume"])
def test_a_folder_of_n2v_opens_and_restores_as_there(recorded: Path, name: str) -> None:
    told = np.load(recorded / name / "io.npz")
    model = N2V(None, name, basedir=recorded)
    written = json.loads((recorded / name / "config.json").read_text())
    for key, value in written.items():
        shown = json.loads(json.dumps(getattr(model.config, key)))
        assert ([float(one) for one in shown] if key in ("means", "stds") else shown) == (
            [float(one) for one in value] if key in ("means", "stds") else value
        ), key
    image, axes = told["image"], str(told["axes"])
    restored = model.predict(image, axes)
    near = 1e-5 * np.ptp(told["prediction"])
    np.testing.assert_allclose(restored, told["prediction"], atol=near)
    if "C" in axes:
        first = model.predict(np.moveaxis(image, -1, 0), "CYX", n_tiles=(1, 2, 1))
        np.testing.assert_allclose(np.moveaxis(first, 0, -1), restored, atol=near)
    if name == "plain":
        np.testing.assert_allclose(model.predict(image, axes, tta=True), told["eightfold"], atol=near)


KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "each": ((16, 16, 2), {}),
    "N2V2": (
        (16, 16, 1),
        {"blurpool": True, "skip_skipone": True, "n2v_manipulator": "median", "unet_n_depth": 2},
    ),
    "struct": ((16, 16, 1), {"structN2Vmask": [[0, 1, 1, 1, 0]], "unet_residual": True, "batch_norm": False}),
    "volume": ((8, 16, 16, 1), {"n2v_patch_shape": (8, 16, 16)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_opened_again_as_it_was(kind: str, tmp_path: Path) -> None:
    from care_bridge.opening import open_predictor

    shape, more = KINDS[kind]
    patches = noisy(12, *shape)
    config = N2VConfig(patches[:8], **{**TINY, **more})
    model = N2V(config, "model", basedir=tmp_path)
    before = [weight.copy() for weight in model.keras_model.get_weights()]
    history = model.train(patches[:8], patches[8:])
    assert {"loss", "val_loss"} <= set(history.history)
    after = model.keras_model.get_weights()
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    axes = "YXC" if len(shape) == 3 else "ZYXC"
    image = noisy(*(6, 21, 18, 1) if axes == "ZYXC" else (21, 18, shape[-1]), seed=5)
    restored = model.predict(image, axes)
    assert 50 < restored.mean() < 250  # grey levels, around those of `noisy`
    again = N2V(None, "model", basedir=tmp_path)
    # What a folder says besides: csbdeep's names of files, and where the patches came from.
    more = set(vars(again.config)) - set(vars(config))
    assert more <= {"train_checkpoint_last", "train_checkpoint_epoch", "provenance"}
    found, wanted = (json.loads(json.dumps(vars(one))) for one in (again.config, config))
    assert found == {**wanted, **{key: found[key] for key in more}}
    np.testing.assert_allclose(again.predict(image, axes), restored, rtol=1e-5)
    with open_predictor(tmp_path / "model", runtime="keras") as predictor:
        np.testing.assert_allclose(predictor.predict(Image(image, axes)).data, restored, rtol=1e-4)


def test_epochs_and_steps_of_the_call_go_before_those_of_the_config(tmp_path: Path) -> None:
    patches = noisy(12, 16, 16, 1)
    model = N2V(N2VConfig(patches, **TINY), "a", basedir=None)
    model.prepare_for_training(metrics=())
    assert model.train(patches[:8], patches[8:], epochs=2, steps_per_epoch=1).epoch == [0, 1]


@pytest.mark.filterwarnings("error")
def test_noise_that_neighbours_share_is_said_and_a_mask_hides_it() -> None:
    from scipy.ndimage import uniform_filter1d

    white = np.random.default_rng(0).normal(100, 20, (10, 64, 64, 1)).astype(np.float32)
    rows = uniform_filter1d(white, 3, axis=2)
    quick = {**TINY, "train_steps_per_epoch": 1}
    with pytest.warns(UserWarning, match="along x"):
        N2V(N2VConfig(rows, **quick), "a", basedir=None).train(rows[:8], rows[8:])
    masked = N2VConfig(rows, **quick, structN2Vmask=[[1] * 9])
    N2V(masked, "a", basedir=None).train(rows[:8], rows[8:])


@pytest.mark.filterwarnings("ignore:.*states its own mean")
def test_export_writes_a_package_and_a_bundle_that_restore_as_the_model(tmp_path: Path) -> None:
    pytest.importorskip("bioimageio.spec")
    from care_bridge.opening import open_predictor

    patches = noisy(12, 32, 32, 1)
    model = N2V(N2VConfig(patches, **TINY), "my_model", basedir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(patches[:8], patches[8:])
    written = model.export_TF(
        name="Noise2Void - Test",
        description="A test.",
        authors=["Ada Tester"],
        test_img=patches[0],
        axes="YXC",
        patch_shape=(16, 16),
    )
    assert written.path == tmp_path / "my_model" / "my_model.bioimage.io.zip"
    image = noisy(40, 36, 1, seed=5)[..., 0]
    expected = model.predict(image, "YX")
    for path, runtime in (
        (written.path, "onnx"),
        (tmp_path / "my_model" / "TF_SavedModel.zip", "tensorflow"),
    ):
        with open_predictor(path, runtime=runtime) as predictor:
            np.testing.assert_allclose(predictor.predict(Image(image, "YX")).data, expected, rtol=1e-4)
    with zipfile.ZipFile(written.path) as package:
        told = package.read("rdf.yaml").decode()
    assert "fixed_zero_mean_unit_variance" in told
    assert "Ada Tester" in told


# --- what people do wrong


def test_folders_of_the_wrong_kind_are_refused_with_what_opens_them(recorded: Path, tmp_path: Path) -> None:
    from care_bridge.csbdeep.models import CARE, Config

    CARE(Config("YX", unet_n_first=4, unet_n_depth=1), "care", basedir=tmp_path)
    with pytest.raises(InputError, match=r"not of Noise2Void.*csbdeep.models.CARE"):
        N2V(None, "care", basedir=tmp_path)
    with pytest.raises(InputError, match=r"care_bridge.n2v.models.N2V\(None"):
        CARE(None, "plain", basedir=recorded)
    with pytest.raises(FileNotFoundError):
        N2V(None, "nowhere", basedir=tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # such patches have no noise of their own
@pytest.mark.parametrize(
    ("shape", "more", "why"),
    [
        ((16, 16), {}, "takes patches"),
        ((16, 16, 2), {}, "takes patches"),
        ((8, 8, 1), {}, "16 pixels along Y, and X has 8"),
        ((20, 16, 1), {"n2v_patch_shape": (20, 15)}, "15 pixels along X; the network needs a multiple of 2"),
    ],
)
def test_patches_that_do_not_fit_are_said_in_one_sentence(
    shape: tuple[int, ...], more: dict[str, Any], why: str
) -> None:
    model = N2V(N2VConfig(noisy(4, 16, 16, 1), **{**TINY, **more}), "a", basedir=None)
    patches = np.ones((4, *shape), np.float32) * np.arange(4).reshape(4, *(1,) * len(shape))
    with pytest.raises(InputError, match=why):
        model.train(patches, patches)


def test_other_arguments_of_preparing_are_refused() -> None:
    model = N2V(N2VConfig(noisy(4, 16, 16, 1), **TINY), "a", basedir=None)
    with pytest.raises(InputError, match="has no loss"):
        model.prepare_for_training(loss="mse")
