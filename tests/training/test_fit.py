"""Training: reproducible, to be killed and taken up again, and clear about what is wrong."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest

from care_bridge.config import BLOCK, write_config
from care_bridge.errors import InputError
from care_bridge.files import owned
from care_bridge.training import checkpoint
from care_bridge.training.fit import train
from care_bridge.training.folder import read_weights

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in ("weights_best.h5", "weights_last.h5")}


def test_loss_falls_and_the_folder_is_complete(trained):
    result, folder = trained
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        "config.json",
        "training/checkpoint.npz",
        "training/history.csv",
        "training/history.png",
        "weights_best.h5",
        "weights_last.h5",
    ]
    with open(folder / "training" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["learning_rate"] == "0.002"


def test_two_runs_from_one_seed_give_equal_files(trained, patches, small, tmp_path):
    train(small, *patches, tmp_path)
    assert _bytes(tmp_path) == _bytes(trained[1])
    train(small.replace(seed=4), *patches, tmp_path, overwrite=True)
    assert _bytes(tmp_path) != _bytes(trained[1])


def test_interrupted_in_any_epoch_it_goes_on_as_if_not(trained, patches, small, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total, what):
        if done == 8:  # within the second epoch
            raise StopError

    with pytest.raises(StopError):
        # a checkpoint after every step, so that the run goes on in the middle of an epoch
        train(small, *patches, tmp_path, progress=stop, checkpoint_every_s=0)
    state, _, _ = checkpoint.load_checkpoint(tmp_path)
    assert state.step == 7
    result = train(small, *patches, tmp_path, resume=True)
    assert _bytes(tmp_path) == _bytes(trained[1])
    assert [record["loss"] for record in result.history] == [record["loss"] for record in trained[0].history]


SCRIPT = """
    import sys
    import numpy as np
    from care_bridge.config import read_config
    from care_bridge.training.fit import train
    with np.load(sys.argv[1]) as file:
        data = [(file["a"], file["b"]), (file["c"], file["d"])]
    train(read_config(sys.argv[2]), *data, sys.argv[3], resume=True)
"""


def test_killed_at_any_moment_it_goes_on_as_if_not(patches, small, tmp_path):
    config = small.replace(
        train_epochs=30,
        train_steps_per_epoch=3,
        train_learning_rate=1e-2,
        train_augment=("flips",),
        train_reduce_lr={"factor": 0.5, "patience": 2, "min_delta": 0},
    )
    train(config, *patches, tmp_path / "whole")
    (a, b), (c, d) = patches
    np.savez(tmp_path / "data.npz", a=a, b=b, c=c, d=d)
    write_config(tmp_path, config)
    (tmp_path / "run.py").write_text(textwrap.dedent(SCRIPT))
    history = tmp_path / "killed" / "training" / "history.csv"
    killed = 0
    for epochs in (2, 13):
        command = [sys.executable, *(str(tmp_path / name) for name in ("run.py", "data.npz", ".", "killed"))]
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, env={**os.environ, "MPLBACKEND": "Agg"}
        )
        while process.poll() is None:
            if history.is_file() and len(history.read_text().splitlines()) > epochs:
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
            time.sleep(0.001)
    assert killed, "the run was over before it could be killed"
    # What a killed run leaves goes; what is not ours to take away, because its process may still run, stays.
    gone = owned(".part-").replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    for folder in (tmp_path / "killed", tmp_path / "killed" / "training"):
        for name in (f"{gone}abc_1234.h5", f"{owned('.part-')}abc_1234.h5", ".part-of_yours"):
            (folder / name).write_bytes(b"half")
    train(config, *patches, tmp_path / "killed", resume=True)
    for folder in (tmp_path / "killed", tmp_path / "killed" / "training"):
        assert {path.name for path in folder.glob(".part-*")} == {
            f"{owned('.part-')}abc_1234.h5",
            ".part-of_yours",
        }
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def test_a_run_begun_before_a_setting_was_there_goes_on_with_its_default(patches, small, tmp_path):
    train(small.replace(train_epochs=1), *patches, tmp_path)
    state, weights, optimizer = checkpoint.load_checkpoint(tmp_path)
    del state.settings[BLOCK]["architecture"]
    checkpoint.save_checkpoint(tmp_path, state, weights=weights, optimizer=optimizer)
    assert len(train(small.replace(train_epochs=2), *patches, tmp_path, resume=True).history) == 2
    with pytest.raises(InputError, match=r"other settings \(architecture was 'care' and is 'fast'\)"):
        train(small.replace(architecture="fast"), *patches, tmp_path, resume=True)


def test_full_disk_leaves_the_previous_checkpoint(patches, small, tmp_path, monkeypatch):
    real, calls = np.savez, []

    def full(file, **arrays):
        calls.append(1)
        if len(calls) < 4:  # at the start and after two epochs
            return real(file, **arrays)
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        train(small, *patches, tmp_path)
    monkeypatch.undo()
    state, _, _ = checkpoint.load_checkpoint(tmp_path)
    assert len(state.history) == 2
    assert not list(tmp_path.rglob(".part-*"))
    assert len(train(small, *patches, tmp_path, resume=True).history) == 3


def test_ctrl_c_keeps_what_was_finished(patches, small, tmp_path):
    def press(done, total, what):
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small, *patches, tmp_path, progress=press)
    assert (tmp_path / "weights_best.h5").is_file()
    assert len(train(small, *patches, tmp_path, resume=True).history) == 3


def test_more_epochs_go_on_where_the_run_ended(trained, patches, small, tmp_path):
    train(small.replace(train_epochs=2), *patches, tmp_path)
    train(small, *patches, tmp_path, resume=True)
    assert _bytes(tmp_path) == _bytes(trained[1])


@pytest.mark.parametrize(
    ("change", "other_data", "sentence"),
    [
        ({"train_batch_size": 8}, False, "train_batch_size was 4 and is 8"),
        ({"seed": 8}, False, "seed was 3 and is 8"),
        ({}, True, "the patches are others"),
    ],
)
def test_resuming_another_run_is_refused(trained, patches, small, change, other_data, sentence):
    training, validation = patches
    if other_data:
        training = (training[0] + 1, training[1])
    with pytest.raises(InputError, match=sentence):
        train(small.replace(**change), training, validation, trained[1], resume=True)


def test_a_trained_folder_is_not_overwritten_unasked(trained, patches, small):
    before = _bytes(trained[1])
    with pytest.raises(InputError, match="holds a model already"):
        train(small, *patches, trained[1])
    assert _bytes(trained[1]) == before


def test_damaged_checkpoint_is_one_sentence(patches, small, tmp_path):
    train(small, *patches, tmp_path)
    path = tmp_path / checkpoint.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        train(small, *patches, tmp_path, resume=True)


def test_early_stopping_is_off_unless_asked_for(patches, small, tmp_path):
    stuck = small.replace(train_learning_rate=1e-12, train_epochs=6, train_reduce_lr=None)
    assert len(train(stuck, *patches, tmp_path / "off").history) == 6
    result = train(stuck.replace(train_early_stopping=1), *patches, tmp_path / "on")
    assert result.stopped_early
    assert len(result.history) < 6
    again = train(stuck.replace(train_early_stopping=1), *patches, tmp_path / "on", resume=True)
    assert len(again.history) == len(result.history)


def test_on_epoch_can_end_training(patches, small, tmp_path):
    result = train(small, *patches, tmp_path, on_epoch=lambda record: record["epoch"] == 2)
    assert len(result.history) == 2
    assert result.stopped_early


def test_steps_equal_those_of_keras_fit(patches, small, tmp_path):
    """The same batches through Keras' own loop give the same weights to float32 rounding."""
    from care_bridge.training.batches import as_batches, batches
    from care_bridge.training.unet import build

    config = small.replace(train_epochs=1, train_steps_per_epoch=6)
    train(config, *patches, tmp_path)
    network = build(config)
    network.compile(keras.optimizers.Adam(config.train_learning_rate), "mae")
    for source, target in batches(as_batches(patches[0], config), config, start=0, stop=6):
        network.train_on_batch(source, target)
    for (_, ours), theirs in zip(
        read_weights(tmp_path / "weights_last.h5"), network.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_nan_in_the_patches_is_found_before_training(patches, small, tmp_path):
    (source, target), validation = patches
    source = source.copy()
    source[5, 3, 3] = np.nan
    with pytest.raises(InputError, match="training source patch 5 holds NaN"):
        train(small, (source, target), validation, tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_nan_while_training_names_its_reason(patches, small, tmp_path):
    (source, target), validation = patches
    with pytest.raises(InputError, match="use a lower train_learning_rate than 1e\\+30"):
        train(small.replace(train_learning_rate=1e30), (source, target), validation, tmp_path / "rate")
    huge = small.replace(train_loss="mse")
    with pytest.raises(InputError, match="few bright pixels"):
        train(huge, (source * np.float32(1e22), target), validation, tmp_path / "sparse")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda s, t: (s[:0], t[:0]), "no training patches"),
        (lambda s, t: (s, t[:-1]), "48 source patches, but 47 target patches"),
        (
            lambda s, t: (s[:, :15], t[:, :15]),
            "15 pixels along Y; the network needs a multiple of 2: use 14 or 16",
        ),
        (lambda s, t: (np.stack([s, s], -1), t), "have 2 channels; n_channel_in=1"),
        (lambda s, t: (s, t[:, :8]), "targets have size"),
        (lambda s, t: (s[:, 0], t[:, 0]), "takes 3 dimensions"),
    ],
)
def test_patches_that_do_not_fit_are_named(patches, small, tmp_path, break_it, sentence):
    with pytest.raises(InputError, match=sentence):
        train(small, break_it(*patches[0]), patches[1], tmp_path)


def test_five_planes_are_refused_with_the_cure_and_train_with_it(small, tmp_path):
    random = np.random.default_rng(0)
    data = tuple(random.random((4, 5, 8, 8), np.float32) for _ in range(2))
    deep = small.replace(
        axes="ZYX",
        unet_input_shape=(None, None, None, 1),
        unet_pool=(2, 2, 2),
        train_epochs=1,
        train_steps_per_epoch=1,
    )
    with pytest.raises(
        InputError, match=r"5 pixels along Z.*use 4 or 6, or pool less.*unet_pool=\(1, 2, 2\)"
    ):
        train(deep, data, data, tmp_path)
    result = train(deep.replace(unet_pool=(1, 2, 2)), data, data, tmp_path)
    assert result.model.network(data[0][:1, ..., np.newaxis]).shape == (1, 5, 8, 8, 1)


def test_few_validation_patches_are_pointed_out(patches, small, tmp_path):
    training, validation = patches
    with pytest.warns(UserWarning, match=r"only 2\.0 %"):
        train(small.replace(train_epochs=1), training, (validation[0][:1], validation[1][:1]), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"train_precision": "bfloat16"},
        {"train_loss_bg_thresh": 0.3},
        {"probabilistic": True, "train_loss": "laplace", "train_loss_bg_thresh": 0.3},
        {"train_loss": "mse", "train_augment": ("flips", "rot90", "intensity")},
        {"train_reduce_lr": None},
    ],
)
def test_every_way_of_training_runs_and_reloads(patches, small, tmp_path, settings):
    result = train(small.replace(train_epochs=1, **settings), *patches, tmp_path)
    assert np.isfinite(result.history[0]["val_loss"])
    assert np.isfinite(np.asarray(result.model.network(patches[1][0][:1, ..., np.newaxis]))).all()


def test_bfloat16_reaches_the_error_of_float32(trained, patches, small, tmp_path):
    result = train(small.replace(train_precision="bfloat16"), *patches, tmp_path)
    exact = trained[0].history[-1]["val_mae"]
    assert result.history[-1]["val_mae"] == pytest.approx(exact, rel=0.02)


def records(**losses):
    """Two epochs; the first has the lower validation loss."""
    plain = {
        "loss": 0.3,
        "mae": 0.3,
        "mse": 0.1,
        "val_mae": 0.2,
        "val_mse": 0.1,
        "learning_rate": 1e-3,
        "seconds": 1,
    }
    return [
        {"epoch": number, **plain, "val_loss": value, "val_mae": value, **losses}
        for number, value in ((1, 0.2), (2, 0.25))
    ]


def test_the_curves_show_a_loss_that_is_the_error_once_and_mark_the_kept_epoch(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from care_bridge.training.history import draw_history, kept_epoch

    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, part, **_: (drawn.append(figure), part.write_bytes(b"x"))
    )
    draw_history(tmp_path, records(), loss="mae")
    draw_history(tmp_path, records(loss=0.9), loss="mse")
    assert [len(figure.axes) for figure in drawn] == [2, 3]
    assert kept_epoch(records())["epoch"] == 1
    for figure in drawn:
        labels = [line.get_label() for line in figure.axes[0].lines]
        assert "kept: epoch 1" in labels


def test_the_time_is_told_before_the_first_step_and_changes_nothing(small, patches, tmp_path):
    told, steps = [], []
    config = small.replace(train_epochs=4, train_steps_per_epoch=5)
    with_estimate = train(
        config, *patches, tmp_path / "a",
        on_estimate=lambda seconds: told.append((seconds, len(steps))),
        progress=lambda done, total, what: steps.append(what),
    )  # fmt: skip
    without = train(config, *patches, tmp_path / "b")
    ((seconds, before),) = told
    assert seconds > 0
    assert before == 0
    for one, other in zip(
        with_estimate.model.network.get_weights(), without.model.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert steps[0].startswith("training: epoch 1 of 4, loss 0.")
    assert "validation" not in steps[0]
    assert "epoch 2 of 4" in steps[5]
    assert "validation 0." in steps[5]
