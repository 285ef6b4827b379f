"""From files to patches, presets, fine-tuning, ensembles and sweeps."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.images import Image, write_image
from care_bridge.opening import open_predictor
from care_bridge.patches import LeakingSplitWarning
from care_bridge.predictor import PredictOptions
from care_bridge.sweep import Sweep, run_sweep, trained_and_tested
from care_bridge.tiling import CsbdeepTiles
from care_bridge.training.data import data_from_file, data_from_folders, network_axes
from care_bridge.training.ensemble import load_members, member_seed, train_ensemble
from care_bridge.training.fit import train
from care_bridge.training.folder import load_model, save_model
from care_bridge.training.presets import PRESETS, get_preset, smoke
from care_bridge.training.transfer import start_from
from care_bridge.training.unet import build

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four stacks (4 planes of 48 x 40) and their noisy versions, as TIFFs of equal names."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(4):
        target = np.zeros((4, 48, 40), np.float32)
        for _ in range(40):
            z, y, x = (int(random.integers(size)) for size in target.shape)
            target[z, y : y + 4, x : x + 4] = 1000
        source = target + random.normal(0, 300, target.shape).astype(np.float32)
        write_image(root / "target" / f"{number}.tif", Image(target, "ZYX"))
        write_image(root / "source" / f"{number}.tif", Image(source, "ZYX"))
    return root / "source", root / "target"


def test_stacks_train_3d_networks_and_planes_2d_ones(folders):
    stacks = data_from_folders(
        *folders, patch_size=(4, 16, 16), n_patches_per_image=6, validation_fraction=0.25
    )
    assert (stacks.axes, stacks.n_channel_in, stacks.n_channel_out) == ("ZYXC", 1, 1)
    assert stacks.training.batch(np.arange(2))[0].shape == (2, 4, 16, 16, 1)
    planes = data_from_folders(*folders, patch_size=(16, 16), axes="YX", n_patches_per_image=6)
    assert planes.axes == "YXC"
    assert planes.training.batch(np.arange(3))[0].shape == (3, 16, 16, 1)
    assert network_axes(*folders) == "ZYX"


def test_no_validation_pixel_is_a_training_pixel(tmp_path):
    # Every pixel of these images has its own value, so that patches can be traced to pixels.
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    for number in range(2):
        for folder in ("source", "target"):
            write_image(tmp_path / folder / f"{number}.tif", Image(image + 5000 * number, "YX"))
    data = data_from_folders(
        tmp_path / "source",
        tmp_path / "target",
        patch_size=(8, 8),
        n_patches_per_image=40,
        foreground=None,
        percentiles=None,
        validation_fraction=0.2,
    )
    seen = [
        set(part.batch(np.arange(len(part)))[0].ravel().tolist()) for part in (data.training, data.validation)
    ]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


def test_provenance_holds_the_hash_of_every_file(folders, tmp_path):
    data = data_from_folders(*folders, patch_size=(4, 16, 16), n_patches_per_image=4)
    assert sorted(data.provenance["source"]) == ["0.tif", "1.tif", "2.tif", "3.tif"]
    assert all(len(value) == 64 for value in data.provenance["target"].values())


def test_file_of_csbdeep_trains_with_a_warning_that_its_split_leaks(tmp_path):
    random = np.random.default_rng(0)
    x, y = (random.random((20, 1, 16, 16), np.float32) for _ in range(2))
    np.savez(tmp_path / "data.npz", X=x, Y=y, axes="SCYX")
    with pytest.warns(LeakingSplitWarning):
        data = data_from_file(tmp_path / "data.npz")
    assert data.axes == "YXC"
    assert data.training.batch(np.arange(2))[0].shape == (2, 16, 16, 1)
    assert data.provenance["split"].startswith("leaks")


def test_file_without_axes_or_not_there_is_one_sentence(folders, tmp_path):
    np.savez(tmp_path / "data.npz", X=np.zeros((4, 1, 8, 8)), Y=np.zeros((4, 1, 8, 8)))
    with pytest.raises(InputError, match="does not say what its dimensions mean"):
        data_from_file(tmp_path / "data.npz")
    with pytest.raises(InputError, match="no training patches at"):
        data_from_file(tmp_path / "nothing.npz")
    with pytest.raises(InputError, match=r"patch_size \(8, 8\) has 2 numbers for a network along ZYX"):
        data_from_folders(*folders, patch_size=(8, 8))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # "Semi-Synthetic Test Data Generation and CARE", section on training
        (
            "mito",
            {
                "train_learning_rate": 2e-4,
                "train_batch_size": 16,
                "train_epochs": 1000,
                "probabilistic": True,
            },
        ),
        ("cardio", {"train_learning_rate": 4e-4, "train_steps_per_epoch": 500, "probabilistic": True}),
        # "Exploring denoising for CARE", table of settings
        ("planaria", {"train_epochs": 200, "train_steps_per_epoch": 400, "train_learning_rate": 4e-4}),
        ("planaria", {"norm_pmin": 3.0, "norm_pmax": 99.8}),
        ("tribolium", {"train_epochs": 200, "norm_pmin": 3.0, "norm_pmax": 99.8}),
        ("csbdeep", {"train_epochs": 100, "unet_n_first": 32, "probabilistic": False}),
    ],
)
def test_presets_have_the_numbers_of_their_papers(name, expected):
    preset = get_preset(name)
    space = min(preset.patch_size)
    config = CareConfig("ZYX" if space == 3 else "YX", **preset.settings)
    assert {key: getattr(config, key) for key in expected} == expected
    assert "Source:" in PRESETS[name].__doc__
    assert get_preset("mito").patch_size == {2: (32, 32)}
    assert get_preset("planaria").patch_size == {3: (16, 64, 64)}


def test_unknown_preset_is_named():
    with pytest.raises(InputError, match="there are csbdeep, mito, cardio, planaria, tribolium"):
        get_preset("nuclei")


def test_smoke_says_so_in_what_is_written(patches, tmp_path):
    config = smoke(CareConfig("YX", **get_preset("mito").settings))
    assert config.train_epochs * config.train_steps_per_epoch <= 300
    assert config.train_reduce_lr["patience"] >= 1
    train(config.replace(train_epochs=1, train_steps_per_epoch=2, unet_n_depth=1), *patches, tmp_path)
    assert read_config(tmp_path).provenance["notice"] == (
        "smoke run: 6 epochs of 50 steps instead of 1000 of 500, 8 features instead of 32, batches of 8 instead of 16, "
        "kernel 3 instead of 5, the rate falls after 1 epoch on a plateau instead of 10; shows that training works, not how "
        "good it gets"
    )


def test_fine_tuning_takes_what_fits_and_names_the_rest(tmp_path):
    config = CareConfig(unet_n_first=4, unet_kern_size=3)
    other = build(config, seed=1)
    save_model(tmp_path / "model", config, other)
    same = start_from(tmp_path / "model", config)
    assert not same.fresh
    np.testing.assert_array_equal(same.weights[0], other.get_weights()[0])
    wider = start_from(
        tmp_path / "model",
        config.replace(n_channel_in=2, unet_residual=False, unet_input_shape=(None, None, 2)),
    )
    assert [text.split()[0] for text in wider.fresh] == ["down_level_0_no_0/kernel"]
    deeper = start_from(tmp_path / "model", config.replace(unet_n_depth=3))
    assert any(text.startswith("down_level_2_no_0/kernel") for text in deeper.fresh)
    assert "mean/kernel" in deeper.taken
    assert "at random: " in str(deeper)
    with pytest.raises(InputError, match=r"no weights of .* fit this network"):
        start_from(
            tmp_path / "model",
            config.replace(
                axes="ZYX", unet_pool=(2, 2, 2), unet_input_shape=(None,) * 3 + (1,), unet_n_first=7
            ),
        )


def test_a_network_of_stacks_starts_as_a_2d_one_applied_to_every_plane(tmp_path):
    flat = CareConfig(unet_n_first=4, unet_n_depth=2, unet_kern_size=3)
    other = build(flat, seed=1)
    save_model(tmp_path / "flat", flat, other)
    stacks = CareConfig("ZYX", unet_n_first=4, unet_n_depth=2, unet_kern_size=3, unet_pool=(1, 2, 2))
    started = start_from(tmp_path / "flat", stacks)
    assert not started.fresh
    network = build(stacks)
    network.set_weights(started.weights)
    stack = np.random.default_rng(0).random((1, 5, 16, 24, 1), np.float32)
    planes = [other(stack[:, plane]) for plane in range(5)]
    np.testing.assert_allclose(network(stack), np.stack(planes, axis=1), atol=1e-6)


def test_a_config_names_its_start_without_the_folders_above_it(folders, tmp_path):
    from typer.testing import CliRunner

    from care_bridge.cli import app

    begun = tmp_path / "private" / "begun"
    save_model(begun, config := CareConfig(unet_n_first=4, unet_n_depth=1, unet_kern_size=3), build(config))
    command = ["train", *map(str, folders), "--out", str(tmp_path / "model"), "--start", str(begun)]
    command += [
        "--features",
        "4",
        "--depth",
        "1",
        "--kernel",
        "3",
        "--network-axes",
        "YX",
        "--patch-size",
        "32,32",
    ]
    done = CliRunner().invoke(app, [*command, "--epochs", "1", "--steps", "1", "--quiet"])
    assert done.exit_code == 0, done.output
    start = read_config(tmp_path / "model").provenance["start"]
    assert (start["source"], start["sha256"]) == ("begun", sha256(begun / "weights_best.h5"))
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")


def test_a_fast_network_trains_from_the_command_line_and_predicts_any_size(folders, tmp_path):
    from typer.testing import CliRunner

    from care_bridge.cli import app

    command = ["train", *map(str, folders), "--out", str(tmp_path / "model"), "--architecture", "fast"]
    command += ["--features", "4", "--network-axes", "YX", "--epochs", "1", "--steps", "2", "--quiet"]
    refused = CliRunner().invoke(app, [*command, "--patch-size", "24,24"])
    assert refused.exit_code == 2
    assert "needs a multiple of 16" in refused.output
    done = CliRunner().invoke(app, [*command, "--patch-size", "32,32"])
    assert done.exit_code == 0, done.output
    config = load_model(tmp_path / "model").config
    assert (config.architecture, config.unet_n_depth, config.unet_kern_size) == ("fast", 3, 3)
    image = Image(np.random.default_rng(0).random((300, 45), np.float32), "YX")
    predictor = open_predictor(tmp_path / "model", runtime="keras")
    tiled = open_predictor(
        tmp_path / "model", runtime="keras", options=PredictOptions(tiles=CsbdeepTiles({"Y": 2}))
    )
    whole = predictor.predict(image).data
    assert whole.shape == image.shape
    np.testing.assert_allclose(tiled.predict(image).data, whole, atol=1e-5)


@pytest.mark.parametrize(("kept", "wanted"), [("care", "fast"), ("fast", "care")])
@pytest.mark.parametrize("kind", ["CARE", "ProjectionCARE"])
def test_fine_tuning_between_architectures_is_refused(tmp_path, kept, wanted, kind):
    sizes = {"unet_n_first": 4, "unet_n_depth": 3, "unet_kern_size": 3, "kind": kind}
    there, here = (
        CareConfig("YX" if kind == "CARE" else "ZYX", architecture=name, **sizes) for name in (kept, wanted)
    )
    network = build(there)
    save_model(tmp_path / "model", there, network)
    network.save(tmp_path / "model.keras")
    for place in ("model", "model/weights_best.h5", "model.keras"):
        assert not start_from(tmp_path / place, there).fresh
        with pytest.raises(
            InputError, match=f"are of architecture='{kept}' and cannot start one of '{wanted}'"
        ):
            start_from(tmp_path / place, here)


def test_fine_tuning_starts_from_keras_files_and_packages(tmp_path):
    config = CareConfig(unet_n_first=4, unet_kern_size=3)
    other = build(config, seed=1)
    other.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as package:
        package.writestr("rdf.yaml", "name: model")
        package.write(tmp_path / "model.keras", "weights/model.keras")
    for name in ("model.keras", "package.zip"):
        np.testing.assert_array_equal(start_from(tmp_path / name, config).weights[5], other.get_weights()[5])
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("saved_model.pb", "")
    with pytest.raises(InputError, match="a Fiji bundle has none"):
        start_from(tmp_path / "bundle.zip", config)
    with pytest.raises(InputError, match="no model at"):
        start_from(tmp_path / "nothing", config)


def test_ensemble_is_one_folder_to_go_on_with(patches, small, tmp_path):
    config = small.replace(train_epochs=1, train_steps_per_epoch=2)

    class StopError(Exception):
        pass

    def stop(done, total, what):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        train_ensemble(config, *patches, tmp_path, members=2, progress=stop)
    before = (tmp_path / "member_1" / "weights_best.h5").read_bytes()
    model = train_ensemble(config, *patches, tmp_path, members=2, resume=True)
    assert (tmp_path / "member_1" / "weights_best.h5").read_bytes() == before
    members = load_members(tmp_path)
    assert {member.config.seed for member in members} == {member_seed(3, 0), member_seed(3, 1)}
    x = patches[1][0][:1, ..., np.newaxis]
    mean = np.mean([member.network(x) for member in members], axis=0)
    np.testing.assert_allclose(model.network(x), mean, atol=1e-6)
    np.testing.assert_allclose(load_model(tmp_path).network(x), mean, atol=1e-6)
    with pytest.raises(InputError, match="is a single model"):
        load_members(tmp_path / "member_1")
    with pytest.raises(InputError, match="at least 2"):
        train_ensemble(config, *patches, tmp_path, members=1)


def test_sweep_makes_a_table_and_does_not_train_twice(folders, tmp_path):
    sweep = Sweep(
        *map(str, folders),
        grid={"train_batch_size": [2, 4], "patch_size": [8]},
        settings={"unet_n_first": 2, "unet_n_depth": 1, "train_epochs": 1, "train_steps_per_epoch": 2},
        patch_size=(16, 16),
        axes="YX",
        n_patches_per_image=8,
        test_source=str(folders[0]),
        test_target=str(folders[1]),
    )
    rows = run_sweep(sweep, tmp_path)
    assert [row.settings["train_batch_size"] for row in rows] == [2, 4]
    assert trained_and_tested(sweep) == sorted(file.name for file in folders[0].iterdir())
    table = (tmp_path / "sweep.csv").read_text().splitlines()
    assert table[0] == "train_batch_size,patch_size,seconds,epochs,val_loss,val_mae,psnr,nrmse,ssim"
    assert len(table) == 3
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    assert read_config(tmp_path / rows[0].name).provenance["data"]["patch_size"] == [8, 8]
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert run_sweep(sweep, tmp_path) == rows
    assert weights == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    settings = json.loads((tmp_path / "sweep-settings.json").read_text())
    assert settings["grid"]["train_batch_size"] == [2, 4]


def test_sweep_of_impossible_settings_is_named_before_training(folders, tmp_path):
    with pytest.raises(InputError, match="did you mean 'train_batch_size'"):
        run_sweep(Sweep(*map(str, folders), grid={"train_batchsize": [2]}), tmp_path)
    with pytest.raises(InputError, match="no values"):
        run_sweep(Sweep(*map(str, folders), grid={"train_batch_size": []}), tmp_path)
    (tmp_path / "sweep-settings.json").write_text(json.dumps({"seed": 9}))
    with pytest.raises(InputError, match="another"):
        run_sweep(Sweep(*map(str, folders), grid={"train_batch_size": [2]}), tmp_path)
