"""csbdeep's models: CARE, UpsamplingCARE, IsotropicCARE and ProjectionCARE."""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE, check_axes, move_axes
from care_bridge.config import CareConfig, Kind
from care_bridge.csbdeep.data.prepare import (
    NoNormalizer,
    NoResizer,
    Normalizer,
    PadAndCropResizer,
    PercentileNormalizer,
    Resizer,
)
from care_bridge.csbdeep.io import Column
from care_bridge.csbdeep.models.config import Config, ProjectionConfig
from care_bridge.csbdeep.models.probability import ProbabilisticPrediction
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.predictor import PredictOptions
from care_bridge.progress import Progress, bar, silent
from care_bridge.tiling import CsbdeepTiles

if TYPE_CHECKING:
    import keras

    from care_bridge.inference.keras import KerasPredictor
    from care_bridge.training.batches import PatchSource

Array = NDArray[Any]
Augmenter = Callable[[Array, Array], tuple[Array, Array]]

TRIES = 8
"""How often tiles are halved when memory runs out."""

# Told apart from what people give, so that nothing is kept in them between calls.
_NORMALIZER, _RESIZER = PercentileNormalizer(), PadAndCropResizer()


@dataclass(frozen=True)
class History:
    """How a training went, in the shape of Keras' own.

    Attributes
    ----------
    epoch : list of int
        From 0.
    history : dict of str to list of float
        loss, mae, mse, the same with `val_`, learning_rate, seconds.
    """

    epoch: list[int]
    history: dict[str, list[float]]


class CARE:
    """A network that restores images of low quality.

    Parameters
    ----------
    config : Config or None
        None opens the folder `basedir`/`name`, ours or csbdeep's.
    name : str, optional
        Of the folder; None takes the time.
    basedir : path or None
        Where the folder lies or will lie; it is written by `train`. None keeps everything in memory.

    Attributes
    ----------
    config : Config
    keras_model : keras.Model
    name : str
    basedir, logdir : Path or None
        `logdir` is the model's own folder.

    Raises
    ------
    InputError
        If the settings are impossible, or there is no such model.
    """

    _kind: Kind = "CARE"
    _config_class: type[Config] = Config

    def __init__(
        self, config: Config | None, name: str | None = None, basedir: str | os.PathLike[str] | None = "."
    ) -> None:
        if config is None and (basedir is None or name is None):
            raise InputError("without a config the model is read from a folder; give its name and basedir")
        if config is not None and not isinstance(config, self._config_class):
            raise InputError(
                f"{type(self).__name__} takes a {self._config_class.__name__}; received a {type(config).__name__}"
            )
        self.name = name or datetime.datetime.now().strftime("%Y-%m-%d-%H-%M-%S.%f")
        self.basedir = None if basedir is None else Path(basedir)
        self.logdir = None if self.basedir is None else self.basedir / self.name
        self._predictor: KerasPredictor | None = None
        if config is None:
            self._open()
            return
        from care_bridge.training.unet import build

        self.config = config
        if self.logdir is not None and self.logdir.exists():
            warnings.warn(f"a model lies at {str(self.logdir)!r} already; training replaces it", stacklevel=2)
        self.keras_model: keras.Model = build(config.settings(self._kind))

    def __repr__(self) -> str:
        settings = self._settings
        return (
            f"{type(self).__name__}({self.name}): {settings.axes} → {settings.axes_out}\n"
            f"├─ Directory: {None if self.logdir is None else self.logdir.resolve()}\n└─ {self.config}"
        )

    def train(
        self,
        X: Any,
        Y: Any,
        validation_data: tuple[Any, Any],
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        augmenter: Augmenter | None = None,
        *,
        progress: Progress | None = None,
    ) -> History:
        """Train from the present weights, and keep the best.

        Parameters
        ----------
        X, Y : ndarray, shape (n, [z,] y, x, channel)
            Source and target patches; what `io.load_training_data` gives of a .zarr stays on the disk.
        validation_data : (ndarray, ndarray)
        epochs, steps_per_epoch : int, optional
            None takes those of the config.
        augmenter : callable, optional
            Called with each pair of patches, gives a changed pair. The config's `train_augment` does flips,
            rotations and intensities faster, and repeats them exactly.
        progress : Progress, optional
            None draws a bar in a terminal or a notebook.

        Returns
        -------
        History

        Raises
        ------
        InputError
            If data and network do not fit, or the loss became NaN; see `training.fit.train`.
        """
        from care_bridge.training.fit import train

        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise InputError("validation_data must be a pair of arrays: sources and targets")
        settings = self._settings
        settings = settings.replace(
            train_epochs=settings.train_epochs if epochs is None else epochs,
            train_steps_per_epoch=settings.train_steps_per_epoch
            if steps_per_epoch is None
            else steps_per_epoch,
        )
        data = _source(X, Y, settings, augmenter)
        with _folder(self.logdir) as out, _bar(progress) as tell:
            result = train(
                settings,
                data,
                _source(*validation_data, settings),
                out,
                start=self.keras_model,
                overwrite=True,
                progress=tell,
            )
        self._use(result.model.network)
        keys = result.history[0] if result.history else {}
        return History(
            epoch=list(range(len(result.history))),
            history={key: [record[key] for record in result.history] for key in keys},
        )

    def prepare_for_training(
        self, *, loss_bg_thresh: float = 0, loss_bg_decay: float = 0.06, Y: Array | None = None
    ) -> None:
        """Weigh dark and bright pixels against each other, as csbdeep's method of this name.

        Parameters
        ----------
        loss_bg_thresh : float
            Normalised target intensity, 0-1, up to which a pixel is background; 0 is off.
        loss_bg_decay : float
            How fast the weighting fades from epoch to epoch.
        Y : ndarray, optional
            Accepted for csbdeep's sake; training looks at all targets itself.
        """
        self.config.update_parameters(train_loss_bg_thresh=loss_bg_thresh, train_loss_bg_decay=loss_bg_decay)

    def predict(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> Array:
        """Restore an image.

        Parameters
        ----------
        img : ndarray
        axes : str
            Of `img`. Axes that the network lacks (frames of a movie) are restored one after another, on one scale.
        normalizer : Normalizer or None
            None leaves the intensities.
        resizer : Resizer or None
            None leaves the size.
        n_tiles : sequence of int, optional
            One number an image axis; None takes one tile. More are taken where memory runs out.

        Returns
        -------
        ndarray
            Axes as in the input; several output channels of an image without C come last. Of a probabilistic
            network the means.
        """
        return self._restore(img, axes, normalizer, resizer, n_tiles)[0]

    def predict_probabilistic(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> ProbabilisticPrediction:
        """Restore an image, with a Laplace distribution for each pixel; see `predict`."""
        return _as_distribution(self._restore(img, axes, normalizer, resizer, n_tiles))

    def export_TF(self, fname: str | os.PathLike[str] | None = None) -> Path:  # noqa: N802 - csbdeep's name
        """Write the bundle that "Run your network" in Fiji opens.

        Parameters
        ----------
        fname : path, optional
            Of the zip; None: TF_SavedModel.zip in the model's folder.

        Returns
        -------
        Path
        """
        if fname is None and self.logdir is None:
            raise InputError("a model without basedir has no folder to export into; give fname")
        from care_bridge.export.savedmodel import write_bundle
        from care_bridge.training.folder import CareModel

        path = Path(fname) if fname is not None else Path(str(self.logdir)) / "TF_SavedModel.zip"
        if path.suffix != ".zip":
            path = path.with_name(f"{path.name}.zip")
        return write_bundle(CareModel(self._settings, self.keras_model, self.logdir), path)

    def load_weights(self, name: str = "weights_best.h5") -> None:
        """Read weights from the model's folder."""
        from care_bridge.training.folder import load_weights

        if self.logdir is None:
            raise InputError("a model without basedir has no folder to read weights from")
        load_weights(self.keras_model, self.logdir / name)
        self._predictor = None

    @property
    def _settings(self) -> CareConfig:
        return self.config.settings(self._kind)

    def _open(self) -> None:
        from care_bridge.training.folder import load_model

        assert self.logdir is not None
        model = load_model(self.logdir)
        kind = model.config.kind
        if (kind == "ProjectionCARE") != (self._kind == "ProjectionCARE"):
            raise InputError(f"the model in {str(self.logdir)!r} is a {kind}, not a {self._kind}")
        if kind not in ("CARE", self._kind):
            warnings.warn(f"the model in {str(self.logdir)!r} was trained as a {kind}", stacklevel=3)
        self.config = self._config_class.from_settings(model.config)
        self.keras_model = model.network

    def _use(self, network: keras.Model) -> None:
        self.keras_model, self._predictor = network, None

    def _network_predictor(self, tiles: CsbdeepTiles | None) -> KerasPredictor:
        from care_bridge.inference.keras import KerasPredictor
        from care_bridge.training.folder import CareModel

        if self._predictor is None or self._predictor.network.model is not self.keras_model:  # type: ignore[attr-defined]
            self._predictor = KerasPredictor(CareModel(self._settings, self.keras_model))
        self._predictor.options = PredictOptions(rule=None, tiles=tiles)
        return self._predictor

    def _prepared(self, normalizer: Normalizer | None, resizer: Resizer | None) -> tuple[Normalizer, Resizer]:
        settings = self._settings
        if normalizer is _NORMALIZER:
            normalizer = PercentileNormalizer(settings.norm_pmin, settings.norm_pmax)
        if resizer is _RESIZER:
            resizer = PadAndCropResizer()
        normalizer, resizer = normalizer or NoNormalizer(), resizer or NoResizer()
        if normalizer.do_after and settings.n_channel_in != settings.n_channel_out:
            warnings.warn(
                f"{settings.n_channel_in} channels go in and {settings.n_channel_out} come out: "
                "the result stays in normalised intensities",
                stacklevel=4,
            )
        return normalizer, resizer

    def _restore(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None,
        resizer: Resizer | None,
        n_tiles: Sequence[int] | int | None,
    ) -> tuple[Array, Array | None]:
        """Means and widths, axes as in the input."""
        settings = self._settings
        normalizer, resizer = self._prepared(normalizer, resizer)
        axes = check_axes(axes, ndim=img.ndim)
        order = "".join(letter for letter in axes if letter not in settings.axes) + settings.axes
        counts = _counts(n_tiles, axes, img.shape, settings.axes_out)
        x = self._with_channels(move_axes(img, axes, order), axes, img.shape)
        x = normalizer.before(x, order)
        x = resizer.before(x, order, [settings.size_multiple.get(letter, 1) for letter in order])
        result = self._run(Image(x, order), counts)
        restored = resizer.after(result.data, result.axes)
        return self._finish(restored, result.axes, axes.replace(settings.proj_axis or "?", ""), normalizer)

    def _with_channels(self, x: Array, axes: str, shape: tuple[int, ...]) -> Array:
        if x.shape[-1] != self._settings.n_channel_in:
            raise InputError(
                f"the network takes {self._settings.n_channel_in} channels, the image (axes {axes!r}, shape {shape}) "
                f"has {x.shape[-1]}; name the channel axis C"
            )
        return x

    def _run(self, image: Image, counts: dict[str, int]) -> Image:
        import tensorflow as tf

        cut = [letter for letter in self._settings.axes_out if letter in SPACE]
        for attempt in range(TRIES + 1):
            try:
                tiles = CsbdeepTiles(counts) if max(counts.values(), default=1) > 1 else None
                return self._network_predictor(tiles).predict(image)
            except tf.errors.ResourceExhaustedError:
                if attempt == TRIES:
                    raise MemoryError(f"memory does not do even for n_tiles {counts}; free some") from None
                longest = max(cut, key=lambda letter: image.size(letter) / counts.get(letter, 1))
                counts = {**counts, longest: 2 * counts.get(longest, 1)}
        raise AssertionError  # the loop returns or raises

    def _finish(
        self, restored: Array, order: str, axes: str, normalizer: Normalizer
    ) -> tuple[Array, Array | None]:
        settings = self._settings
        channel, n = order.index("C"), settings.n_channel_out
        mean: Array = restored
        scale: Array | None = None
        if settings.probabilistic:
            mean, scale = (restored.take(range(start, start + n), axis=channel) for start in (0, n))
        if normalizer.do_after and settings.n_channel_in == n:
            mean, scale = normalizer.after(mean, scale, order)
        wanted = axes if "C" in axes or n == 1 else axes + "C"
        return move_axes(mean, order, wanted), None if scale is None else move_axes(scale, order, wanted)


class UpsamplingCARE(CARE):
    """Restores stacks of low resolution along Z: first upsampled by linear interpolation, then restored."""

    _kind: Kind = "UpsamplingCARE"

    def predict(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> Array:
        """Upsample along Z by `factor`, as the training data were, and restore; see `CARE.predict`."""
        return self._restore(_upsampled(img, axes, factor), axes, normalizer, resizer, n_tiles)[0]

    def predict_probabilistic(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> ProbabilisticPrediction:
        """As `predict`, with a distribution for each pixel."""
        return _as_distribution(
            self._restore(_upsampled(img, axes, factor), axes, normalizer, resizer, n_tiles)
        )


class IsotropicCARE(CARE):
    """Restores stacks to the same resolution along Z as in the plane: a 2-D network looks from two sides."""

    _kind: Kind = "IsotropicCARE"

    def predict(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
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
        """
        return self._isotropic(img, axes, factor, normalizer, resizer, batch_size, n_tiles)[0]

    def predict_probabilistic(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        factor: float,
        normalizer: Normalizer | None = _NORMALIZER,
        resizer: Resizer | None = _RESIZER,
        batch_size: int = 8,
        *,
        n_tiles: Mapping[str, int] | None = None,
    ) -> ProbabilisticPrediction:
        """As `predict`, with a distribution for each pixel."""
        return _as_distribution(self._isotropic(img, axes, factor, normalizer, resizer, batch_size, n_tiles))

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


class ProjectionCARE(CARE):
    """Restores stacks and projects them along one axis."""

    _kind: Kind = "ProjectionCARE"
    _config_class = ProjectionConfig


def _upsampled(img: Array, axes: str, factor: float) -> Array:
    from care_bridge.inference.volumes import upsample_z

    letters = check_axes(axes, ndim=img.ndim)
    if "Z" not in letters:
        raise InputError(f"an upsampling model restores stacks; axes={axes!r} lack Z")
    return upsample_z(img, axis=letters.index("Z"), factor=factor)


def _as_distribution(result: tuple[Array, Array | None]) -> ProbabilisticPrediction:
    mean, scale = result
    if scale is None:
        raise InputError("this is not a probabilistic model; train one with Config(probabilistic=True)")
    return ProbabilisticPrediction(mean, scale)


def _counts(
    n_tiles: Sequence[int] | int | None, axes: str, shape: tuple[int, ...], cut: str
) -> dict[str, int]:
    if n_tiles is None:
        return {}
    if isinstance(n_tiles, int | np.integer):
        # csbdeep's old way: along the longest axis.
        longest = max(
            (letter for letter in axes if letter in cut and letter != "C"), key=lambda a: shape[axes.index(a)]
        )
        return {longest: int(n_tiles)}
    return CsbdeepTiles(tuple(n_tiles)).counts(axes)


class _Pairs:
    """Patches from anything that rows can be taken of, as training takes them."""

    def __init__(self, x: Any, y: Any, projected: int | None, augmenter: Augmenter | None = None) -> None:
        self.x, self.y, self.projected, self.augmenter = x, y, projected, augmenter

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        source, target = np.asarray(self.x[indices], np.float32), np.asarray(self.y[indices], np.float32)
        if self.projected is not None:
            target = target[(slice(None),) * self.projected + (0,)]
        if self.augmenter is not None:
            changed = [self.augmenter(x, y) for x, y in zip(source, target, strict=True)]
            source = np.stack([x for x, _ in changed]).astype(np.float32)
            target = np.stack([y for _, y in changed]).astype(np.float32)
        return source, target


def _source(
    x: Any, y: Any, settings: CareConfig, augmenter: Augmenter | None = None
) -> PatchSource | tuple[Array, Array]:
    """What `training.fit.train` takes; plain arrays stay arrays, so that they are checked whole."""
    if augmenter is None and not isinstance(x, Column):
        return x, y
    if len(x) != len(y):
        raise InputError(f"{len(x)} source and {len(y)} target patches; give one target a source")
    projected = None
    if settings.proj_axis and y.ndim == x.ndim:
        projected = 1 + settings.axes.index(settings.proj_axis)
    return _Pairs(x, y, projected, augmenter)


@contextmanager
def _folder(logdir: Path | None) -> Iterator[Path]:
    if logdir is not None:
        yield logdir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "model"


@contextmanager
def _bar(progress: Progress | None) -> Iterator[Progress]:
    if progress is not None or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield progress or silent
        return
    with bar() as show:
        yield show
