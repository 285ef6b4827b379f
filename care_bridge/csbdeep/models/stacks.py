"""csbdeep's models of stacks: UpsamplingCARE, IsotropicCARE and ProjectionCARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.config import Kind
from care_bridge.csbdeep.arrays import array_of
from care_bridge.csbdeep.data.prepare import NoResizer, Normalizer, PadAndCropResizer, Resizer
from care_bridge.csbdeep.models.care import CARE, NORMALIZER, RESIZER, as_distribution
from care_bridge.csbdeep.models.config import ProjectionConfig
from care_bridge.csbdeep.models.probability import ProbabilisticPrediction
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.tiling import CsbdeepTiles

Array = NDArray[Any]


class UpsamplingCARE(CARE):
    """Restores stacks of low resolution along Z: first upsampled by linear interpolation, then restored."""

    _kind: Kind = "UpsamplingCARE"

    def predict(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> Array:
        """Upsample along Z by `factor`, as the training data were, and restore; see `CARE.predict`."""
        return self._predict_mean_and_scale(
            _upsampled(img, axes, factor), axes, normalizer, resizer, n_tiles
        )[0]

    def predict_probabilistic(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> ProbabilisticPrediction:
        """As `predict`, with a distribution for each pixel."""
        return as_distribution(
            self._predict_mean_and_scale(_upsampled(img, axes, factor), axes, normalizer, resizer, n_tiles)
        )


class IsotropicCARE(CARE):
    """Restores stacks to the same resolution along Z as in the plane: a 2-D network looks from two sides."""

    _kind: Kind = "IsotropicCARE"

    def predict(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
        batch_size: int = 8,
        *,
        n_tiles: Mapping[str, int] | None = None,
    ) -> Array:
        """Upsample along Z and restore.

        Parameters
        ----------
        img, axes, normalizer
            See `CARE.predict`.
        factor : float
            As the training data were made with.
        resizer : Resizer or None
            `PadAndCropResizer()`; None checks that sizes need no filling up.
        batch_size : int
            Slices at once.
        n_tiles : mapping of str to int, optional
            Tiles along Y and X, e.g. ``{"Y": 2, "X": 2}``; they bound the memory and change nothing.

        Returns
        -------
        ndarray
            See `CARE.predict`; Z has `factor` times the planes.
        """
        return self._isotropic(img, axes, factor, normalizer, resizer, batch_size, n_tiles)[0]

    def predict_probabilistic(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
        batch_size: int = 8,
        *,
        n_tiles: Mapping[str, int] | None = None,
    ) -> ProbabilisticPrediction:
        """As `predict`, with a distribution for each pixel."""
        return as_distribution(self._isotropic(img, axes, factor, normalizer, resizer, batch_size, n_tiles))

    def _isotropic(
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None,
        resizer: Resizer | None,
        batch_size: int,
        n_tiles: Mapping[str, int] | None,
    ) -> tuple[Array, Array | None]:
        from care_bridge.inference.volumes import IsotropicPredictor

        img = array_of(img, "img")
        normalizer, resizer = self._prepared(normalizer, resizer)
        axes = check_axes(axes, ndim=img.ndim)
        if not {"Z", "Y", "X"} <= set(axes):
            raise InputError(f"an isotropic model restores stacks; axes={axes!r} lack Z, Y or X")
        order = "".join(letter for letter in axes if letter not in "ZYXC") + "ZYXC"
        x = self._with_channels(move_axes(img, axes, order), axes, img.shape)
        multiple = max(self._settings.size_multiple.values())
        if isinstance(resizer, NoResizer):
            planes = round(x.shape[order.index("Z")] * factor)
            resizer.before(np.empty((planes, *x.shape[-3:-1]), bool), "ZYX", [multiple] * 3)
        elif not isinstance(resizer, PadAndCropResizer) or resizer.mode != "reflect":
            raise InputError(
                "isotropic prediction fills sizes up by reflection; use PadAndCropResizer() or None"
            )
        x = normalizer.before(x, order)
        predictor = IsotropicPredictor(
            self._network_predictor(None if n_tiles is None else CsbdeepTiles(n_tiles)),
            factor=factor,
            batch_size=batch_size,
        )
        result = predictor.predict(Image(x, order))
        return self._finish(result.data, result.axes, axes, normalizer)


class ProjectionParameters(NamedTuple):
    """What csbdeep's `proj_params` holds: the settings `proj_...` of a ProjectionCARE.

    Attributes
    ----------
    axis : str
        Which is projected.
    n_depth, n_filt, n_conv_per_depth : int
    kern, pool : tuple of int
        One number an axis of the stack.
    """

    axis: str
    n_depth: int
    n_filt: int
    n_conv_per_depth: int
    kern: tuple[int, ...]
    pool: tuple[int, ...]


class ProjectionCARE(CARE):
    """Restores stacks and projects them along one axis."""

    _kind: Kind = "ProjectionCARE"
    _config_class = ProjectionConfig

    @property
    def proj_params(self) -> ProjectionParameters:
        """The projecting part of the network."""
        settings = self._settings
        return ProjectionParameters(
            *(getattr(settings, f"proj_{name}") for name in ProjectionParameters._fields)
        )

    def _repr_extra(self) -> str:
        return f"├─ {self.proj_params}\n"


def _upsampled(img: Array, axes: str, factor: float) -> Array:
    from care_bridge.inference.volumes import upsample_z

    img = array_of(img, "img")
    letters = check_axes(axes, ndim=img.ndim)
    if "Z" not in letters:
        raise InputError(f"an upsampling model restores stacks; axes={axes!r} lack Z")
    return upsample_z(img, axis=letters.index("Z"), factor=factor)
