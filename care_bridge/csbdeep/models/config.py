"""csbdeep's Config: a bag of settings that people read with vars() and change one by one."""

from __future__ import annotations

from typing import Any

from care_bridge.config import BLOCK, CSBDEEP_CANNOT, CareConfig, Kind
from care_bridge.errors import InputError

_NOT_SETTINGS = {BLOCK, "allow_new_parameters"}


class Config:
    """Settings of a CARE network; csbdeep's names and defaults, except `train_tensorboard`, which is off.

    Parameters
    ----------
    axes : str
        Of the network, e.g. "YX" or "ZYX"; C is added.
    n_channel_in, n_channel_out : int
    probabilistic : bool
        Predict a Laplace distribution for each pixel.
    allow_new_parameters : bool
        Keep settings that nobody knows.
    kwargs
        csbdeep's others (`unet_n_depth`, `train_epochs`...), and those of `care_bridge.config.CareConfig`
        (`seed`, `unet_pool`, `train_precision`, `train_augment`...).

    Raises
    ------
    InputError
        If the axes are impossible, or settings are unknown (it names the nearest known ones). Settings that do
        not go together are told by `is_valid`, and refused by the model.
    """

    _kind: Kind = "CARE"

    def __init__(
        self,
        axes: str = "YX",
        n_channel_in: int = 1,
        n_channel_out: int = 1,
        probabilistic: bool = False,
        allow_new_parameters: bool = False,
        **kwargs: Any,
    ) -> None:
        if "S" in axes.upper()[1:]:
            raise InputError(f"axes={axes!r}: the samples S must come first, e.g. 'SYXC'")
        known = {key: value for key, value in kwargs.items() if key in CareConfig.model_fields}
        unknown = {key: value for key, value in kwargs.items() if key not in known and key != "n_dim"}
        if unknown and not allow_new_parameters:
            CareConfig(**unknown)  # raises, with the nearest known names
        # csbdeep takes 0 channels for 1.
        channels = int(max(1, n_channel_in)), int(max(1, n_channel_out))
        basis: dict[str, Any] = {"probabilistic": bool(probabilistic), "kind": self._kind}
        try:
            settings = CareConfig(axes, *channels, **(basis | known))
        except InputError:
            # As csbdeep: what cannot be built is told by `is_valid` and refused by the model, not here.
            settings = CareConfig(axes, *channels, **basis)
            self._fill(settings, own=[])
            vars(self).update(known)
        else:
            self._fill(settings, own=[key for key in known if key in _own()])
        vars(self).update(unknown)

    @classmethod
    def from_settings(cls, settings: CareConfig) -> Config:
        """The settings of a model folder."""
        made = cls.__new__(cls)
        defaults = CareConfig(
            settings.axes,
            settings.n_channel_in,
            settings.n_channel_out,
            probabilistic=settings.probabilistic,
            kind=settings.kind,
        )
        made._fill(settings, own=[key for key in _own() if getattr(settings, key) != getattr(defaults, key)])
        return made

    def settings(self, kind: Kind | None = None) -> CareConfig:
        """As the rest of the package takes them, checked.

        Parameters
        ----------
        kind : str, optional
            csbdeep's class; None: CARE, or ProjectionCARE for a ProjectionConfig.

        Returns
        -------
        CareConfig
        """
        values = {key: value for key, value in vars(self).items() if key not in _NOT_SETTINGS}
        known = {key: value for key, value in values.items() if key in CareConfig.model_fields}
        other = {key: value for key, value in values.items() if key not in known and key != "n_dim"}
        return CareConfig(**(known | {"kind": kind or self._kind, "other": other}))

    def is_valid(self, return_invalid: bool = False) -> bool | tuple[bool, tuple[str, ...]]:
        """Whether a network can be built from these settings; with `return_invalid`, also what is wrong."""
        problems: tuple[str, ...] = ()
        try:
            self.settings()
        except InputError as error:
            problems = tuple(str(error).splitlines())
        return (not problems, problems) if return_invalid else not problems

    def update_parameters(self, allow_new: bool = False, **kwargs: Any) -> None:
        """Change settings; unknown ones only with `allow_new`."""
        known = CareConfig.model_fields.keys() | vars(self).keys()
        unknown = [key for key in kwargs if key not in known]
        if unknown and not allow_new:
            CareConfig(**{key: kwargs[key] for key in unknown})  # raises, with the nearest known names
        vars(self).update(kwargs)

    def _fill(self, settings: CareConfig, *, own: list[str]) -> None:
        content = settings.to_json()
        content.pop("allow_new_parameters")
        content.pop(BLOCK)
        content.pop(CSBDEEP_CANNOT, None)
        # JSON has lists where csbdeep's Config has tuples.
        vars(self).update(
            {key: getattr(settings, key, value) for key, value in content.items()}
            | {key: getattr(settings, key) for key in own}
        )

    def __repr__(self) -> str:
        content = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({content})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class ProjectionConfig(Config):
    """Settings of a network that restores and projects along one axis: `Config` and csbdeep's `proj_...`.

    Parameters
    ----------
    axes, n_channel_in, n_channel_out, probabilistic, allow_new_parameters, kwargs
        As for `Config`.
    """

    _kind: Kind = "ProjectionCARE"

    def __init__(
        self,
        axes: str = "ZYX",
        n_channel_in: int = 1,
        n_channel_out: int = 1,
        probabilistic: bool = False,
        allow_new_parameters: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(axes, n_channel_in, n_channel_out, probabilistic, allow_new_parameters, **kwargs)


def _own() -> set[str]:
    """Settings that csbdeep does not have; they show in vars() only where somebody set them."""
    plain = set(CareConfig().to_json()) | {key for key in CareConfig.model_fields if key.startswith("proj_")}
    return set(CareConfig.model_fields) - plain - {"kind", "other"}
