"""csbdeep's CARE: a network under the names and with the arguments that its notebooks use."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.config import CareConfig, Kind, read_config, write_config
from care_bridge.csbdeep.arrays import array_of
from care_bridge.csbdeep.data.prepare import (
    NoNormalizer,
    NoResizer,
    Normalizer,
    PadAndCropResizer,
    PercentileNormalizer,
    Resizer,
)
from care_bridge.csbdeep.models._training import (
    Augmenter,
    Callbacks,
    History,
    learning_rate_of,
    model_folder,
    patch_source,
    training_bar,
)
from care_bridge.csbdeep.models.config import Config
from care_bridge.csbdeep.models.probability import ProbabilisticPrediction
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.predictor import PredictOptions
from care_bridge.tiling import CsbdeepTiles
from care_bridge.training.startup import load_tensorflow

if TYPE_CHECKING:
    import keras

    from care_bridge.inference.keras import KerasPredictor
    from care_bridge.progress import Progress
    from care_bridge.training.folder import CareModel

Array = NDArray[Any]

# Told apart from what people give, so that nothing is kept in them between calls.
NORMALIZER, RESIZER = PercentileNormalizer(), PadAndCropResizer()


class NoModelError(InputError, FileNotFoundError):
    """There is no model folder; csbdeep raises FileNotFoundError."""


class CARE:
    """A network that restores images of low quality.

    Parameters
    ----------
    config : Config or None
        None opens the folder `basedir`/`name`, ours or csbdeep's.
    name : str, optional
        Of the folder; None takes the time.
    basedir : path or None
        Where the folder lies or will lie. config.json is written there at once, except over that of a trained
        model, which `train` replaces. None keeps everything in memory.

    Attributes
    ----------
    config : Config
    keras_model : keras.Model
    name : str
    basedir, logdir : Path or None
        `logdir` is the model's own folder.
    callbacks : list
        See `prepare_for_training`.

    Raises
    ------
    InputError
        If the settings are impossible.
    FileNotFoundError
        If there is no such model.

    Warns
    -----
    UserWarning
        If a model lies in the folder already, or there are no weights in a folder that is opened.
    """

    _kind: Kind = "CARE"
    _config_class: type[Config] = Config
    _own_scale = False
    """Whether the models have a mean and a standard deviation of their own, as those of Noise2Void."""

    def __init__(
        self, config: Config | None, name: str | None = None, basedir: str | os.PathLike[str] | None = "."
    ) -> None:
        if config is None and basedir is None:
            raise InputError("without a config the model is read from a folder; give its name and basedir")
        if config is not None and not isinstance(config, self._config_class):
            raise InputError(
                f"{type(self).__name__} takes a {self._config_class.__name__}; received a {type(config).__name__}"
            )
        self.name = name or datetime.datetime.now().strftime("%Y-%m-%d-%H-%M-%S.%f")
        self.basedir = None if basedir is None else Path(basedir)
        self.logdir = None if self.basedir is None else self.basedir / self.name
        self._predictor: KerasPredictor | None = None
        load_tensorflow()
        self.keras_model: keras.Model
        if config is None:
            self._open()
        else:
            self._make(config)
        self.callbacks = Callbacks(self.config)

    def __repr__(self) -> str:
        settings = self._settings
        return (
            f"{type(self).__name__}({self.name}): {settings.axes} → {settings.axes_out}\n"
            f"├─ Directory: {None if self.logdir is None else self.logdir.resolve()}\n"
            f"{self._repr_extra()}└─ {self.config}"
        )

    def _repr_extra(self) -> str:
        return ""

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
        changes = {"train_epochs": epochs, "train_steps_per_epoch": steps_per_epoch}
        settings = self._settings.replace(
            **{key: value for key, value in changes.items() if value is not None}
        )
        with model_folder(self.logdir) as out, training_bar(progress) as tell:
            result = train(
                settings,
                patch_source(array_of(X, "X"), array_of(Y, "Y"), settings, augmenter),
                patch_source(*validation_data, settings),
                out,
                start=self.keras_model,
                overwrite=True,
                progress=tell,
            )
        self._use(result.model.network)
        return History.of(result.history)

    def prepare_for_training(
        self,
        optimizer: Any = None,
        *,
        loss_bg_thresh: float = 0,
        loss_bg_decay: float = 0.06,
        Y: Array | None = None,
    ) -> None:
        """Set what csbdeep's method of this name sets; afterwards `callbacks` takes Keras' EarlyStopping.

        Parameters
        ----------
        optimizer : keras.optimizers.Adam, optional
            Its learning rate becomes `config.train_learning_rate`. None keeps that.
        loss_bg_thresh : float
            Normalised target intensity, 0-1, up to which a pixel is background; 0 is off.
        loss_bg_decay : float
            How fast the weighting fades from epoch to epoch.
        Y : ndarray, optional
            Accepted for csbdeep's sake; training looks at all targets itself.

        Raises
        ------
        InputError
            For other optimisers, and an Adam with other changed settings; it names the settings to use.
        """
        if optimizer is not None:
            self.config.update_parameters(train_learning_rate=learning_rate_of(optimizer))
        self.config.update_parameters(train_loss_bg_thresh=loss_bg_thresh, train_loss_bg_decay=loss_bg_decay)
        self.callbacks = Callbacks(self.config)

    def predict(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
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
        return self._predict_mean_and_scale(img, axes, normalizer, resizer, n_tiles)[0]

    def predict_probabilistic(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None = NORMALIZER,
        resizer: Resizer | None = RESIZER,
        n_tiles: Sequence[int] | int | None = None,
    ) -> ProbabilisticPrediction:
        """Restore an image, with a Laplace distribution for each pixel; see `predict`."""
        return as_distribution(self._predict_mean_and_scale(img, axes, normalizer, resizer, n_tiles))

    def export_TF(self, fname: str | os.PathLike[str] | None = None) -> Path:  # noqa: N802 - csbdeep's name
        """Write the bundle that "Run your network" in Fiji opens.

        Parameters
        ----------
        fname : path, optional
            Of the zip; None: TF_SavedModel.zip in the model's folder.

        Returns
        -------
        Path

        Raises
        ------
        InputError
            If the model has no folder and `fname` is not given, or Fiji's TensorFlow could not run it.
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

    def _make(self, config: Config) -> None:
        from care_bridge.training.folder import weights_in
        from care_bridge.training.unet import build

        self.config, settings = config, config.settings(self._kind)
        self.keras_model = build(settings, scaled=False)
        if self.logdir is None:
            return
        if self.logdir.exists():
            warnings.warn(f"a model lies at {str(self.logdir)!r} already; training replaces it", stacklevel=3)
        if not weights_in(self.logdir):
            self.logdir.mkdir(parents=True, exist_ok=True)
            write_config(self.logdir, settings)

    def _open(self) -> None:
        from care_bridge.training.folder import load_model, members_of, weights_in
        from care_bridge.training.unet import build

        assert self.logdir is not None
        if not (self.logdir / "config.json").is_file():
            raise NoModelError(
                f"no model folder with a config.json at {str(self.logdir)!r}; look at name and basedir"
            )
        settings = read_config(self.logdir)
        kind = settings.kind
        if settings.own_scale is not None and not self._own_scale:
            raise InputError(
                f"the model in {str(self.logdir)!r} is of Noise2Void, with its own {settings.own_scale}; csbdeep's classes "
                "normalise by percentiles: open it with care_bridge.n2v.models.N2V(None, name), or use care-bridge predict"
            )
        if settings.own_scale is None and self._own_scale:
            raise InputError(
                f"the model in {str(self.logdir)!r} has no mean and standard deviation of its own, so it is not of "
                "Noise2Void; open it with care_bridge.csbdeep.models.CARE(None, name)"
            )
        if (kind == "ProjectionCARE") != (self._kind == "ProjectionCARE"):
            raise InputError(f"the model in {str(self.logdir)!r} is a {kind}, not a {self._kind}")
        if kind not in ("CARE", self._kind):
            warnings.warn(f"the model in {str(self.logdir)!r} was trained as a {kind}", stacklevel=3)
        self.config = self._config_class.from_settings(settings)
        if weights_in(self.logdir) or members_of(settings):
            self.keras_model = self._without_scale(load_model(self.logdir))
        else:
            warnings.warn(
                f"no weights (*.h5) in {str(self.logdir)!r}; the network is untrained", stacklevel=3
            )
            self.keras_model = build(settings, scaled=False)

    def _without_scale(self, model: CareModel) -> keras.Model:
        """The network on normalised pixels, as csbdeep and n2v have it."""
        from care_bridge.training.unet import bare

        return bare(model.config, model.network)

    def _axes_div_by(self, query_axes: str) -> tuple[int, ...]:
        """What sizes must be multiples of, by axis; people who derive from csbdeep's class ask for it."""
        return tuple(self._settings.size_multiple.get(letter, 1) for letter in check_axes(query_axes))

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
        if normalizer is NORMALIZER:
            normalizer = PercentileNormalizer(settings.norm_pmin, settings.norm_pmax)
        if resizer is RESIZER:
            resizer = PadAndCropResizer()
        normalizer, resizer = normalizer or NoNormalizer(), resizer or NoResizer()
        if normalizer.do_after and settings.n_channel_in != settings.n_channel_out:
            warnings.warn(
                f"{settings.n_channel_in} channels go in and {settings.n_channel_out} come out: "
                "the result stays in normalised intensities",
                stacklevel=4,
            )
        return normalizer, resizer

    def _predict_mean_and_scale(
        self,
        img: Array,
        axes: str,
        normalizer: Normalizer | None,
        resizer: Resizer | None,
        n_tiles: Sequence[int] | int | None = None,
    ) -> tuple[Array, Array | None]:
        """Means and widths, axes as in the input."""
        settings, img = self._settings, array_of(img, "img")
        normalizer, resizer = self._prepared(normalizer, resizer)
        axes = check_axes(axes, ndim=img.ndim)
        order = "".join(letter for letter in axes if letter not in settings.axes) + settings.axes
        counts = _counts(n_tiles, axes, img.shape, settings.axes_out)
        x = self._with_channels(move_axes(img, axes, order), axes, img.shape)
        x = normalizer.before(x, order)
        x = resizer.before(x, order, [settings.size_multiple.get(letter, 1) for letter in order])
        result = self._run(Image(x, order), counts, axes)
        restored = resizer.after(result.data, result.axes)
        return self._finish(restored, result.axes, axes.replace(settings.proj_axis or "?", ""), normalizer)

    def _with_channels(self, x: Array, axes: str, shape: tuple[int, ...]) -> Array:
        if x.shape[-1] != self._settings.n_channel_in:
            raise InputError(
                f"the network takes {self._settings.n_channel_in} channels, the image (axes {axes!r}, shape {shape}) "
                f"has {x.shape[-1]}; name the channel axis C"
            )
        return x

    def _run(self, image: Image, counts: Mapping[str, int], axes: str) -> Image:
        predictor = self._network_predictor(
            CsbdeepTiles(counts) if max(counts.values(), default=1) > 1 else None
        )

        def say(tiles: Mapping[str, int]) -> None:
            # As csbdeep does: a notebook shows it below the cell.
            print(f"Out of memory, retrying with n_tiles = {tuple(tiles.get(axis, 1) for axis in axes)}")

        predictor.on_retry = say
        return predictor.predict(image)

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


def as_distribution(result: tuple[Array, Array | None]) -> ProbabilisticPrediction:
    """Means and widths as one; an error where there are no widths."""
    mean, scale = result
    if scale is None:
        raise InputError("this is not a probabilistic model; train one with Config(probabilistic=True)")
    return ProbabilisticPrediction(mean, scale)


def _counts(
    n_tiles: Sequence[int] | float | None, axes: str, shape: tuple[int, ...], cut: str
) -> dict[str, int]:
    if n_tiles is None:
        return {}
    if isinstance(n_tiles, Sequence | np.ndarray):
        return CsbdeepTiles(tuple(n_tiles)).counts(axes)
    # csbdeep's old way: a number alone is for the longest axis.
    longest = max(
        (letter for letter in axes if letter in cut and letter != "C"), key=lambda a: shape[axes.index(a)]
    )
    each: Any = tuple(n_tiles if letter == longest else 1 for letter in axes)
    counts = CsbdeepTiles(each).counts(axes)
    warnings.warn(
        f"n_tiles={n_tiles}: give a number for each image axis; {tuple(counts.values())} is taken",
        stacklevel=4,
    )
    return counts
