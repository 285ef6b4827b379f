"""n2v's N2VConfig: a bag of settings, with the mean and standard deviation of what is to be learnt from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge import n2v_keys
from care_bridge.config import BLOCK, CSBDEEP_CANNOT, CareConfig, Kind
from care_bridge.csbdeep.arrays import array_of
from care_bridge.csbdeep.models import Config
from care_bridge.errors import InputError

_MISSPELT = 0.87
"""How alike a name that nobody knows and one of a setting have to be to call it misspelt."""


class N2VConfig(Config):
    """Settings of a network that learns from noisy images alone; n2v's names and defaults, `train_tensorboard` off.

    Parameters
    ----------
    X : ndarray, shape (n, [z,] y, x, channel)
        Noisy patches; their mean and standard deviation become the network's.
    kwargs
        n2v's others (`unet_n_depth`, `n2v_perc_pix`, `structN2Vmask`, `blurpool`...), and those of
        `care_bridge.config.CareConfig` (`seed`, `train_augment`, `train_precision`...). Names that nobody knows are
        kept, as n2v does, unless they look misspelt.

    Raises
    ------
    InputError
        If X has another number of dimensions, or a setting looks misspelt. Settings that do not go together are told
        by `is_valid`, and refused by the model.
    """

    def __init__(self, X: NDArray[Any], **kwargs: Any) -> None:
        X = array_of(X, "X")
        if X.ndim not in (4, 5):
            raise InputError(
                f"X has {X.ndim} dimensions (shape {X.shape}); give patches with channels last: (n, y, x, channel) or "
                "(n, z, y, x, channel)"
            )
        n_dim, channels = X.ndim - 2, X.shape[-1]
        values: dict[str, Any] = {
            "means": [str(np.mean(X[..., number])) for number in range(channels)],
            "stds": [str(np.std(X[..., number])) for number in range(channels)],
            "n_dim": n_dim,
            "axes": "ZYXC"[-1 - n_dim :],
            "n_channel_in": channels,
            "n_channel_out": channels,
            "unet_residual": False,
            "unet_n_depth": 2,
            "unet_kern_size": 5 if n_dim == 2 else 3,
            "unet_n_first": 32,
            "unet_last_activation": "linear",
            "unet_input_shape": (None,) * n_dim + (channels,),
            "train_loss": "mae",
            "train_epochs": 100,
            "train_steps_per_epoch": 400,
            "train_learning_rate": 0.0004,
            "train_batch_size": 16,
            "train_tensorboard": False,
            "train_checkpoint": "weights_best.h5",
            "train_reduce_lr": {"factor": 0.5, "patience": 10},
            "batch_norm": True,
            "n2v_perc_pix": 1.5,
            "n2v_patch_shape": (64,) * n_dim,
            "n2v_manipulator": "uniform_withCP",
            "n2v_neighborhood_radius": 5,
            "single_net_per_channel": True,
            "blurpool": False,
            "skip_skipone": False,
            "structN2Vmask": None,
            "probabilistic": False,
        }
        vars(self).update(values)
        self.update_parameters(**{key: value for key, value in kwargs.items() if key != "n_dim"})

    @classmethod
    def from_settings(cls, settings: CareConfig) -> N2VConfig:
        """The settings of a model folder.

        Parameters
        ----------
        settings : CareConfig
            Of method n2v.

        Returns
        -------
        N2VConfig
        """
        made = cls.__new__(cls)
        content = settings.to_json()
        for key in ("allow_new_parameters", BLOCK, CSBDEEP_CANNOT):
            content.pop(key, None)
        keys = n2v_keys.keys_of(vars(settings), settings.n2v_patch_shape or (64,) * settings.n_dim)
        vars(made).update({key: getattr(settings, key, value) for key, value in content.items()} | keys)
        # What n2v has no name for stands under ours.
        again = made.settings()
        fields = [key for key in CareConfig.model_fields if getattr(again, key) != getattr(settings, key)]
        vars(made).update({key: getattr(settings, key) for key in fields})
        return made

    def settings(self, kind: Kind | None = None) -> CareConfig:
        """As the rest of the package takes them, checked.

        Parameters
        ----------
        kind : str, optional
            As for `Config`; there is but one here.

        Returns
        -------
        CareConfig
        """
        values = {key: value for key, value in vars(self).items() if key != "n_dim"}
        if isinstance(values.get("structN2Vmask"), np.ndarray):
            values["structN2Vmask"] = values["structN2Vmask"].tolist()
        found = n2v_keys.settings_of(values, "this N2VConfig")
        ours = set(CareConfig.model_fields) - set(n2v_keys.NAMES) - set(n2v_keys.OTHERS)
        found |= {key: value for key, value in values.items() if key in ours}
        known = {key: value for key, value in found.items() if key in CareConfig.model_fields}
        return CareConfig(**known, other={key: value for key, value in found.items() if key not in known})

    def update_parameters(self, allow_new: bool = True, **kwargs: Any) -> None:
        """Change settings.

        Parameters
        ----------
        allow_new : bool
            Keep what nobody knows, unless it looks misspelt.
        kwargs
            Settings.

        Raises
        ------
        InputError
            If a setting is unknown and may not be, or looks misspelt.
        """
        problems = _unknown(kwargs, {*vars(self), *CareConfig.model_fields}, allow_new=allow_new)
        if problems:
            raise InputError("\n".join(problems))
        vars(self).update(kwargs)


def _unknown(given: Iterable[str], known: set[str], *, allow_new: bool) -> list[str]:
    found = []
    for key in sorted(set(given) - known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=_MISSPELT)
        if near or not allow_new:
            hint = f"did you mean {near[0]!r}?" if near else "see N2VConfig for the known ones"
            found.append(f"unknown setting {key!r}; {hint}")
    return found
