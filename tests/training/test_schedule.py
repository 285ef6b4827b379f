"""The rate that falls as a cosine, the average of the weights, and trainings that are planned by their time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from care_bridge.config import CareConfig, read_config
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.training import checkpoint, fit
from care_bridge.training.fit import plan_epochs, train
from care_bridge.training.folder import read_weights
from care_bridge.training.presets import SHORT, get_preset, short
from care_bridge.training.schedule import average_decay, cosine_rate
from care_bridge.training.unet import build

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

COSINE = {"train_schedule": "cosine", "train_average": 0.9}


def test_cosine_begins_at_the_rate_passes_half_of_it_midway_and_ends_at_zero():
    assert [round(cosine_rate(8.0, step, 100), 6) for step in (0, 50, 100, 200)] == [8.0, 4.0, 0.0, 0.0]
    rates = [cosine_rate(1.0, step, 40) for step in range(41)]
    assert rates == sorted(rates, reverse=True)


def test_the_average_forgets_the_first_weights():
    assert average_decay(0.999, 0) == pytest.approx(0.1)
    assert average_decay(0.999, 10**6) == 0.999
    assert average_decay(0.0, 50) == 0.0


def weights_of(folder, name="weights_last.h5"):
    return [array for _, array in read_weights(folder / name)]


def test_rate_falls_to_zero_over_the_planned_steps_and_the_plateau_has_no_say(patches, small, tmp_path):
    config = small.replace(train_schedule="cosine", train_reduce_lr={"factor": 0.1, "patience": 1})
    history = train(config, *patches, tmp_path).history
    # The rate of each epoch's last step: steps 4, 9 and 14 of 15.
    expected = [cosine_rate(2e-3, step, 15) for step in (4, 9, 14)]
    assert [record["learning_rate"] for record in history] == pytest.approx(expected, rel=1e-5)


def test_kept_weights_are_the_average_that_was_validated(patches, small, tmp_path):
    """One step at a time, so that every step's weights are known: the average of them follows by hand."""
    steps = small.replace(train_epochs=1, train_steps_per_epoch=1)
    train(steps, *patches, tmp_path / "plain")
    first = weights_of(tmp_path / "plain")
    train(steps.replace(train_average=0.9), *patches, tmp_path / "averaged")
    begun = build(small)
    start = [
        np.asarray(weight) for weight in begun.get_weights()
    ]  # the seed decides them, so they are the run's
    decay = average_decay(0.9, 0)
    for kept, before, after in zip(weights_of(tmp_path / "averaged"), start, first, strict=True):
        np.testing.assert_allclose(kept, decay * before + (1 - decay) * after, atol=1e-7)
    # The run itself goes on from its own weights, not from the average.
    _, weights, _ = checkpoint.load_checkpoint(tmp_path / "averaged")
    for own, after in zip(weights, first, strict=True):
        np.testing.assert_array_equal(own, after)


def test_stopped_anywhere_it_goes_on_bit_for_bit(patches, small, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total, what):
        if done == 8:
            raise StopError

    config = small.replace(**COSINE)
    whole = train(config, *patches, tmp_path / "whole")
    with pytest.raises(StopError):
        train(config, *patches, tmp_path / "stopped", progress=stop, checkpoint_every_s=0)
    result = train(config, *patches, tmp_path / "stopped", resume=True)
    for name in ("weights_best.h5", "weights_last.h5"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for record, expected in zip(result.history, whole.history, strict=True):
        assert {**record, "seconds": 0} == {**expected, "seconds": 0}


def test_an_estimate_takes_the_average_back_too(patches, small, tmp_path):
    config = small.replace(**COSINE)
    train(config, *patches, tmp_path / "quiet")
    train(config, *patches, tmp_path / "told", on_estimate=lambda seconds: None)
    assert (tmp_path / "told" / "weights_best.h5").read_bytes() == (
        tmp_path / "quiet" / "weights_best.h5"
    ).read_bytes()


def test_bfloat16_is_averaged_in_float32(patches, small, tmp_path):
    config = small.replace(**COSINE, train_precision="bfloat16", train_epochs=1)
    train(config, *patches, tmp_path)
    assert all(np.isfinite(array).all() for array in weights_of(tmp_path))


def test_a_run_is_not_taken_up_with_another_schedule(patches, small, tmp_path):
    train(small, *patches, tmp_path)
    with pytest.raises(InputError, match=r"train_average was 0\.0 and is 0\.9; train_schedule was 'plateau'"):
        train(small.replace(**COSINE), *patches, tmp_path, resume=True)


@pytest.mark.parametrize(
    "values", [{"train_average": 1.0}, {"train_schedule": "steps"}, {"train_minutes": 0}]
)
def test_an_impossible_value_is_named(values):
    with pytest.raises(InputError, match=next(iter(values))):
        CareConfig("YX", **values)


def test_a_plan_takes_about_the_time_it_was_made_for(patches, small, tmp_path):
    begun = time.monotonic()
    config = plan_epochs(small.replace(**COSINE), *patches, seconds=12)
    assert config.train_epochs * config.train_steps_per_epoch > 100
    assert config.train_epochs > 1
    result = train(config, *patches, tmp_path)
    assert 3 < time.monotonic() - begun < 40  # a busy machine may take longer than it did while measured
    assert result.history[-1]["learning_rate"] < 0.01 * small.train_learning_rate


def test_a_time_too_short_says_how_much_is_needed(patches, small):
    with pytest.raises(InputError, match=r"minutes are too short: a step takes .* give --minutes \d"):
        plan_epochs(small, *patches, seconds=0.5)


def test_short_trainings_have_a_small_net_unless_something_else_was_said():
    assert short({}, 10) == {**SHORT, "train_minutes": 10}
    assert short({"unet_n_first": 8, "train_average": 0.0}, 10)["unet_n_first"] == 8
    assert short(get_preset("planaria").settings, 10)["unet_n_first"] == 32
    assert "unet_n_first" not in short({"architecture": "fast"}, 10)


@pytest.fixture
def folders(tmp_path):
    random = np.random.default_rng(0)
    for number in range(3):
        clean = np.full((48, 48), 100, np.float32)
        clean[10 : 20 + number, 5:30] = 900
        write_image(tmp_path / "target" / f"{number}.tif", Image(clean, "YX"))
        noisy = clean + random.normal(0, 50, clean.shape).astype(np.float32)
        write_image(tmp_path / "source" / f"{number}.tif", Image(noisy, "YX"))
    return tmp_path / "source", tmp_path / "target"


def test_minutes_are_planned_said_recorded_and_kept_when_taken_up(folders, tmp_path, monkeypatch):
    from care_bridge.training import from_files

    monkeypatch.setattr(fit, "MEASURED_S", 0.1)
    told: list[str] = []
    how = {"patch_size": (16, 16), "n_patches_per_image": 4, "out": tmp_path / "model"}
    settings = {"unet_n_first": 2, "unet_n_depth": 1, "train_batch_size": 2}
    from_files.train_from_files(*folders, **how, settings=settings, minutes=0.2, say=told.append)
    (line,) = (line for line in told if line.startswith("planned for 0.2 min"))
    assert line.endswith(
        "kernel 3, 2 features, rate 0.0016, falling to zero as a cosine, weights averaged (decay 0.999)"
    )
    config = read_config(tmp_path / "model")
    assert (config.train_minutes, config.train_schedule, config.unet_kern_size) == (0.2, "cosine", 3)
    assert config.provenance["plan"]["step_seconds"] > 0
    monkeypatch.setattr(fit, "plan_epochs", None)  # a plan is made once
    from_files.train_from_files(*folders, **how, resume=True)
    again = read_config(tmp_path / "model")
    assert (again.train_epochs, again.train_steps_per_epoch) == (
        config.train_epochs,
        config.train_steps_per_epoch,
    )
    assert again.provenance["plan"] == config.provenance["plan"]
    with pytest.raises(InputError, match=r"train_minutes was 0\.2 and is 3\.0"):
        from_files.train_from_files(*folders, **how, resume=True, minutes=3)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"minutes": -1}, "minutes must be above 0"),
        ({"minutes": 1, "scaled_down": True}, "leave out --smoke"),
        ({"minutes": 1, "settings": {"train_epochs": 3}}, "leave out train_epochs"),
    ],
)
def test_minutes_that_contradict_are_refused_before_anything_is_read(tmp_path, more, expected):
    from care_bridge.training.from_files import train_from_files

    with pytest.raises(InputError, match=expected):
        train_from_files(tmp_path / "a", tmp_path / "b", out=tmp_path / "model", **more)
