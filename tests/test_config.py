"""Settings: csbdeep's keys and defaults, our own block, and what people type wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from care_bridge.config import CareConfig, read_config, write_config
from care_bridge.errors import InputError

# csbdeep.models.Config(axes) of csbdeep 0.8.2, vars() written down, less train_tensorboard (see CareConfig).
CSBDEEP_2D = {
    "n_dim": 2,
    "axes": "YXC",
    "n_channel_in": 1,
    "n_channel_out": 1,
    "train_checkpoint": "weights_best.h5",
    "train_checkpoint_last": "weights_last.h5",
    "train_checkpoint_epoch": "weights_now.h5",
    "probabilistic": False,
    "unet_residual": True,
    "unet_n_depth": 2,
    "unet_kern_size": 5,
    "unet_n_first": 32,
    "unet_last_activation": "linear",
    "unet_input_shape": [None, None, 1],
    "train_loss": "mae",
    "train_epochs": 100,
    "train_steps_per_epoch": 400,
    "train_learning_rate": 0.0004,
    "train_batch_size": 16,
    "train_reduce_lr": {"factor": 0.5, "patience": 10, "min_delta": 0},
}


def test_defaults_are_those_of_csbdeep():
    ours = CareConfig("YX").to_json()
    assert {key: ours[key] for key in CSBDEEP_2D} == CSBDEEP_2D
    assert CareConfig("ZYX").unet_kern_size == 3
    assert CareConfig("YX", probabilistic=True).train_loss == "laplace"
    assert CareConfig("YX", 2, 1).unet_residual is False


def test_folder_gives_back_what_was_written(tmp_path):
    config = CareConfig(
        "ZYX", unet_pool=(1, 2, 2), unet_kern_size=(1, 3, 3), seed=7, train_augment=("flips",), norm_pmin=3.0
    )
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_csbdeep_is_kept_from_nets_that_it_would_build_differently():
    assert CareConfig("ZYX").to_json()["allow_new_parameters"] is True
    assert CareConfig("ZYX", unet_pool=(1, 2, 2)).to_json()["allow_new_parameters"] is False
    fast = CareConfig(architecture="fast").to_json()
    assert fast["allow_new_parameters"] is False
    assert any("open it with care_bridge.csbdeep.models.CARE(None, name)" in key for key in fast)


def test_the_fast_architecture_brings_its_own_sizes_and_keeps_those_that_are_given(tmp_path):
    fast = CareConfig(architecture="fast")
    assert (fast.unet_n_depth, fast.unet_kern_size, fast.unet_n_first) == (3, 3, 32)
    assert fast.size_multiple == {"Y": 16, "X": 16, "C": 1}
    assert CareConfig("ZYX", architecture="fast").size_multiple == {"Z": 8, "Y": 16, "X": 16, "C": 1}
    flat = CareConfig("ZYX", architecture="fast", unet_pool=(1, 2, 2))
    assert flat.size_multiple == {"Z": 1, "Y": 16, "X": 16, "C": 1}
    given = CareConfig(architecture="fast", unet_n_depth=2, unet_kern_size=5, unet_n_first=8)
    assert (given.unet_n_depth, given.unet_kern_size, given.unet_n_first) == (2, 5, 8)
    write_config(tmp_path, fast)
    assert read_config(tmp_path) == fast
    assert fast.other == read_config(tmp_path).other == {}
    # 36 weights for each feature of the first convolution, where csbdeep's of kernel 3 has 9.
    care = CareConfig(unet_n_depth=3, unet_kern_size=3)
    assert fast.weight_bytes - care.weight_bytes == 4 * (36 - 9) * 32


def test_folder_of_csbdeep_opens_and_keeps_keys_of_others(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({**CSBDEEP_2D, "train_tensorboard": True, "my_lab": {"note": 1}})
    )
    config = read_config(tmp_path)
    assert config.kind == "CARE"
    assert config.train_tensorboard is True
    assert config.to_json()["my_lab"] == {"note": 1}


def test_projection_keys_tell_the_kind(tmp_path):
    projection = {"axes": "ZYXC", "proj_axis": "Z", "proj_n_depth": 4, "proj_n_filt": 8}
    (tmp_path / "config.json").write_text(
        json.dumps(projection | {"proj_kern": [3, 3, 3], "proj_pool": [1, 2, 2]})
    )
    config = read_config(tmp_path)
    assert config.kind == "ProjectionCARE"
    assert config.axes_out == "YXC"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"unet_ndepth": 3}, "unknown setting 'unet_ndepth'; did you mean 'unet_n_depth'?"),
        ({"train_batchsize": 4}, "did you mean 'train_batch_size'?"),
        ({"unet_kern_size": 4}, "must be odd"),
        ({"train_epochs": 0}, "train_epochs=0"),
        ({"train_learning_rate": "fast"}, "train_learning_rate='fast'"),
        ({"axes": "ZX"}, "lacks Y or X"),
        ({"axes": "TZYX"}, "holds Z and T"),
        ({"axes": "YXQ"}, "holds Q"),
        ({"axes": "CYX"}, "must end with C"),
        ({"n_channel_in": 2, "unet_residual": True}, "unet_residual needs as many channels"),
        ({"train_loss": "laplace"}, "does not go with probabilistic=False"),
        ({"unet_pool": (1, 2, 2)}, "unet_pool=(1, 2, 2) needs 2 numbers"),
        ({"architecture": "quick"}, "architecture='quick': input should be 'care', 'fast' or 'resnet'"),
        ({"architecture": "fast", "unet_n_depth": 20, "unet_n_first": 4096}, "make a network whose weights"),
        ({"unet_input_shape": (None, 1)}, "must have 2 sizes"),
        ({"norm_pmin": 99.0, "norm_pmax": 2.0}, "must be below"),
        ({"proj_axis": "Z"}, "belong to kind='ProjectionCARE'"),
        ({"kind": "IsotropicCARE", "axes": "ZYX"}, "is 2-D"),
        ({"kind": "UpsamplingCARE"}, "upsamples Z"),
        ({"kind": "ProjectionCARE"}, "takes stacks"),
        ({"kind": "ProjectionCARE", "axes": "ZYX", "proj_kern": (3, 3)}, "proj_kern=(3, 3) needs 3 numbers"),
    ],
)
def test_wrong_setting_is_named(wrong, sentence):
    with pytest.raises(InputError) as caught:
        CareConfig(**wrong)
    assert sentence in str(caught.value)


def test_all_misspelt_settings_are_named_at_once():
    with pytest.raises(InputError) as caught:
        CareConfig(unet_ndepth=3, unet_nfirst=8)
    assert len(str(caught.value).splitlines()) == 2


def test_misspelt_key_in_a_file_is_pointed_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"axes": "YXC", "unet_ndepth": 3}))
    with pytest.warns(UserWarning, match="is it 'unet_n_depth'"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no config.json"),
        ("{", "is not JSON"),
        ("[]", "not settings"),
        ('{"axes": "YXC", "unet_n_depth": 0}', "unet_n_depth=0"),
        ('{"axes": "YXC", "care_bridge": {"format_version": 99}}', "format version 99"),
    ],
)
def test_broken_config_file_is_one_sentence(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_config(tmp_path)


def test_a_folder_that_is_not_there_is_named_and_not_the_one_around_it(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json in '.*nowhere'"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"no config\.json in {re.escape(repr(str(tmp_path)))}"):
        read_config(tmp_path / "config.json")


def test_sizes_and_halo_follow_depth_pool_and_projection():
    flat = CareConfig("ZYX", unet_n_depth=3, unet_pool=(1, 2, 2))
    assert flat.size_multiple == {"Z": 1, "Y": 8, "X": 8, "C": 1}
    # 2 convolutions of half-width 1 on 3 levels down, 3 up and 1 below, no pooling along Z: 2 * 7 = 14.
    assert flat.halo["Z"] == 14
    projection = CareConfig("ZYX", kind="ProjectionCARE")
    assert projection.size_multiple == {"Z": 1, "Y": 16, "X": 16, "C": 1}
    assert projection.halo["Z"] == 0
    assert projection.halo["Y"] > CareConfig("YX", unet_kern_size=3).halo["Y"]


def test_replace_checks_again():
    config = CareConfig("YX", unet_n_first=8)
    assert config.replace(train_epochs=3).unet_n_first == 8
    with pytest.raises(InputError, match="train_epochs"):
        config.replace(train_epochs=-1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("care_bridge", [], r"care_bridge is \[\]; it must be a block"),
        ("care_bridge", ["."], "it must be a block"),
        ("care_bridge", {"format_version": "9"}, "has format version '9'"),
        ("care_bridge", {"format_version": None}, "has format version None"),
        ("care_bridge", {"factor": float("inf")}, "factor=inf"),
        ("axes", 5, "axes=5: give letters"),
        ("axes", ["Y", "X"], "give letters"),
        ("unet_n_depth", 25, "unet_n_depth=25"),
        ("unet_n_depth", {}, "unet_n_depth=a mapping"),
        ("unet_n_depth", 12, None),
        ("unet_n_depth", 14, "weights alone take .* GB"),
        ("unet_n_first", 1_000_000, "weights alone take .* GB"),
        ("unet_kern_size", 2001, "larger than any network's"),
        ("n_channel_in", 10**15, "n_channel_in"),
        ("train_checkpoint", "../../weights.h5", "a file's name alone"),
        ("train_reduce_lr", {"factor": "half"}, "factor must be a number; received 'half'"),
        ("train_reduce_lr", [1], "train_reduce_lr"),
    ],
    ids=str,
)
def test_a_setting_of_another_kind_or_size_is_one_sentence(
    tmp_path: Path, key: str, value: object, said: str | None
) -> None:
    settings = CareConfig(unet_n_first=16, unet_kern_size=3).to_json()
    (tmp_path / "config.json").write_text(json.dumps(settings | {key: value}))
    if said is None:  # large, but a number; whether this machine holds it is seen where it is built
        assert read_config(tmp_path).weight_bytes > 1e11
        return
    with pytest.raises(InputError, match=said) as caught:
        read_config(tmp_path)
    assert len(str(caught.value)) < 500


def test_the_weights_of_a_network_are_reckoned_about_as_they_are() -> None:
    from care_bridge.training.unet import build

    for config in (CareConfig(), CareConfig("ZYX", unet_n_depth=3, unet_n_first=8)):
        counted = 4 * sum(int(np.prod(weight.shape)) for weight in build(config).weights)
        assert config.weight_bytes == pytest.approx(counted, rel=0.4)


def test_a_network_larger_than_memory_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from care_bridge.training import unet

    monkeypatch.setattr(unet.psutil, "virtual_memory", lambda: SimpleNamespace(total=8e9))
    with pytest.raises(InputError, match=r"unet_n_depth=12.*weights alone take .* GB.*this machine has 8 GB"):
        unet.build(CareConfig(unet_n_depth=12, unet_n_first=16, unet_kern_size=3))


@pytest.mark.parametrize(
    "names", [5, "one", [1], ["."], [".."], ["../other"], ["/tmp"], [""], {"a": 1}], ids=str
)
def test_members_are_names_of_folders_in_the_ensembles_own(names: object) -> None:
    from care_bridge.training.folder import members_of

    with pytest.raises(InputError, match="must be a list of the names of folders"):
        members_of(CareConfig(provenance={"members": names}))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"mean": "149.9", "std": "7.1"}, "a mean and a standard deviation of its own"),
        ({"n2v_patch_shape": [64, 64]}, r"of Noise2Void \(n2v\).*its means are None"),
        ({"n2v_perc_pix": 1.5, "means": ["1"], "stds": ["high"]}, r"its stds are \['high'\]"),
    ],
)
def test_a_folder_on_a_scale_of_its_own_that_is_not_told_is_refused(tmp_path, keys, why):
    settings = {"axes": "YXC", "n_channel_in": 1, "n_channel_out": 1, "n_dim": 2, **keys}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=rf"config\.json'.*{why}"):
        read_config(tmp_path)


def test_folders_of_the_first_versions_of_n2v_have_one_mean_as_text(tmp_path):
    # Keys of n2v's first commit on GitHub (074397b, 2019): no single_net_per_channel, mean and std alone.
    settings = {"axes": "YXC", "n_channel_in": 3, "n_channel_out": 3, "n_dim": 2, "unet_residual": False}
    settings |= {"mean": "149.9", "std": "7.5", "n2v_perc_pix": 1.5, "train_loss": "mae"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = read_config(tmp_path)
    assert config.means == (149.9,) * 3
    assert config.stds == (7.5,) * 3
    assert (config.unet_batch_norm, config.unet_per_channel, config.unet_narrow_up) == (True, False, False)
