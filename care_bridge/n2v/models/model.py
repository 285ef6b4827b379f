"""n2v's N2V: a network that learns from noisy images alone, under the names and with the arguments of its notebooks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes
from care_bridge.config import CareConfig
from care_bridge.csbdeep.arrays import array_of
from care_bridge.csbdeep.data import Normalizer, Resizer
from care_bridge.csbdeep.models import CARE
from care_bridge.csbdeep.models._training import (
    Callbacks,
    History,
    learning_rate_of,
    model_folder,
    training_bar,
)
from care_bridge.csbdeep.models.care import RESIZER
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.n2v.models.config import N2VConfig
from care_bridge.noise import NoiseRange, measure_some

if TYPE_CHECKING:
    from care_bridge.export.bioimageio import Package
    from care_bridge.progress import Progress
    from care_bridge.training.batches import Arrays
    from care_bridge.training.blind_spots import BlindSpots
    from care_bridge.training.folder import CareModel

Array = NDArray[Any]


class N2V(CARE):
    """A network that takes noise out of images, and has seen nothing but noisy ones.

    Parameters
    ----------
    config : N2VConfig or None
        None opens the folder `basedir`/`name`, ours or n2v's.
    name : str, optional
        Of the folder; None takes the time.
    basedir : path or None
        Where the folder lies or will lie; None keeps everything in memory.

    Attributes
    ----------
    config : N2VConfig
    keras_model : keras.Model
        Takes and gives normalised pixels: less `config.means`, over `config.stds`.
    name : str
    basedir, logdir : Path or None
        `logdir` is the model's own folder.
    callbacks : list
        See `prepare_for_training`.

    Raises
    ------
    InputError
        If the settings are impossible, or the folder is of no Noise2Void.
    FileNotFoundError
        If there is no such model.

    Warns
    -----
    UserWarning
        If a model lies in the folder already, or there are no weights in a folder that is opened.
    """

    _config_class = N2VConfig
    _own_scale = True

    def train(  # type: ignore[override]
        self,
        X: Any,
        validation_X: Any,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> History:
        """Train from the present weights, and keep the best.

        Parameters
        ----------
        X : ndarray, shape (n, [z,] y, x, channel)
            Noisy patches; pieces of `n2v_patch_shape` are taken from them at random.
        validation_X : ndarray, shape (n, [z,] y, x, channel)
            Of other pixels.
        epochs, steps_per_epoch : int, optional
            None takes those of the config.
        progress : Progress, optional
            None draws a bar in a terminal or a notebook.

        Returns
        -------
        History

        Raises
        ------
        InputError
            If patches and network do not fit, or the loss became NaN; see `training.fit.train`.

        Warns
        -----
        UserWarning
            If neighbouring pixels share the noise and no mask hides that.
        """
        from care_bridge.training.fit import train
        from care_bridge.training.noisy import shared_noise

        changes = {"train_epochs": epochs, "train_steps_per_epoch": steps_per_epoch}
        settings = self._settings.replace(
            **{key: value for key, value in changes.items() if value is not None}
        )
        patches, held_out = (
            _patches(array, what, settings) for array, what in ((X, "X"), (validation_X, "validation_X"))
        )
        noise = measure_some(len(patches), lambda number: Image(patches[number], settings.axes))
        for sentence in shared_noise(noise, settings):
            warnings.warn(sentence, stacklevel=2)
        measured = {"data": {"noise": NoiseRange.of(noise).as_dict()}}
        settings = settings.replace(provenance={**settings.provenance, **measured})
        with model_folder(self.logdir) as out, training_bar(progress) as tell:
            result = train(
                settings,
                _blind_spots(patches, settings),
                _validation(held_out, settings),
                out,
                start=self.keras_model,
                overwrite=True,
                progress=tell,
            )
        self._use(self._without_scale(result.model))
        return History.of(result.history)

    def prepare_for_training(self, optimizer: Any = None, **kwargs: Any) -> None:
        """Set what n2v's method of this name sets; afterwards `callbacks` takes Keras' EarlyStopping.

        Parameters
        ----------
        optimizer : keras.optimizers.Adam, optional
            Its learning rate becomes `config.train_learning_rate`. None keeps that.
        kwargs
            `metrics`, which are the loss, mae and mse always.

        Raises
        ------
        InputError
            For other optimisers, an Adam with other changed settings, and other arguments.
        """
        unknown = sorted(set(kwargs) - {"metrics"})
        if unknown:
            raise InputError(f"prepare_for_training has no {', '.join(unknown)}; give settings to N2VConfig")
        if optimizer is not None:
            self.config.update_parameters(train_learning_rate=learning_rate_of(optimizer))
        self.callbacks = Callbacks(self.config)

    def predict(  # type: ignore[override]
        self,
        img: Array,
        axes: str,
        resizer: Resizer | None = RESIZER,
        n_tiles: Sequence[int] | int | None = None,
        tta: bool = False,
    ) -> Array:
        """Restore an image.

        Parameters
        ----------
        img : ndarray
            Grey levels as the camera gave them.
        axes : str
            Of `img`. Axes that the network lacks (frames of a movie) are restored one after another.
        resizer : Resizer or None
            None leaves the size.
        n_tiles : sequence of int, optional
            One number an image axis; None takes one tile. More are taken where memory runs out.
        tta : bool
            Restore the image in its eight positions (turned, mirrored) and average.

        Returns
        -------
        ndarray
            Axes and grey levels as in the input.
        """
        img = np.asarray(array_of(img, "img"), np.float32)
        scale = _OwnScale(self._settings)
        if not tta:
            return self._predict_mean_and_scale(img, axes, scale, resizer, n_tiles)[0]
        from care_bridge.n2v.utils.n2v_utils import tta_backward, tta_forward

        letters = check_axes(axes, ndim=img.ndim)
        plane = letters.index("Y"), letters.index("X")
        turned = tta_forward(np.moveaxis(img, plane, (0, 1)))
        restored = [
            self._predict_mean_and_scale(np.moveaxis(one, (0, 1), plane), axes, scale, resizer, n_tiles)[0]
            for one in turned
        ]
        return np.moveaxis(tta_backward([np.moveaxis(one, plane, (0, 1)) for one in restored]), (0, 1), plane)

    def export_TF(  # type: ignore[override]  # noqa: N802 - n2v's name
        self,
        name: str,
        description: str,
        authors: Sequence[str],
        test_img: Array,
        axes: str,
        patch_shape: Sequence[int] | None = None,
        license: str = "BSD-3-Clause",
        result_path: str | os.PathLike[str] | None = None,
        *,
        modality: str = "other",
        content: str = "cells",
    ) -> Package:
        """Write a package for the BioImage.IO zoo, and the bundle that "Run your network" in Fiji opens.

        Parameters
        ----------
        name, description : str
            Of the model, for people.
        authors : sequence of str
        test_img : ndarray
            What the package is tested with.
        axes : str
            Of `test_img`.
        patch_shape : sequence of int, optional
            Accepted for n2v's sake; the model's own stand in its config.json.
        license : str
            SPDX.
        result_path : path, optional
            Folder to write into; None: the model's own.
        modality, content : str
            What the zoo files the model under: how the images were taken, and what they show; `export.metadata` has
            the words. n2v does not ask.

        Returns
        -------
        Package
            `<folder>/<name of the folder>.bioimage.io.zip`; beside it lies TF_SavedModel.zip.

        Raises
        ------
        InputError
            If the model has no folder and `result_path` is not given, or the metadata are not complete.
        NotInstalledError
            If the packages of the zoo are missing; the bundle is written all the same.
        """
        from care_bridge.export.bioimageio import write_package
        from care_bridge.export.savedmodel import write_bundle

        if result_path is None and self.logdir is None:
            raise InputError("a model without basedir has no folder to export into; give result_path")
        folder = Path(result_path if result_path is not None else str(self.logdir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "name": name,
            "description": description,
            "authors": [{"name": author} for author in ([authors] if isinstance(authors, str) else authors)],
            "license": license,
            "modality": modality,
            "content": content,
        }
        model = self._with_scale()
        write_bundle(model, folder / "TF_SavedModel.zip")
        image = Image(np.asarray(array_of(test_img, "test_img"), np.float32), check_axes(axes))
        return write_package(
            model, folder / f"{folder.name}.bioimage.io.zip", metadata=card, test_image=image
        )

    def _with_scale(self) -> CareModel:
        """The model as everything outside of n2v's names has it: grey levels in and out."""
        from care_bridge.training.folder import CareModel
        from care_bridge.training.unet import build

        network = build(self._settings)
        network.set_weights(self.keras_model.get_weights())
        return CareModel(self._settings, network, self.logdir)


class _OwnScale(Normalizer):
    """Less the mean of the training pixels, over their standard deviation, channel by channel; and back."""

    def __init__(self, settings: CareConfig) -> None:
        self._means, self._stds = (np.asarray(one, np.float32) for one in (settings.means, settings.stds))

    def before(self, x: Array, axes: str) -> Array:
        means, stds = self._along(axes)
        return np.asarray((x - means) / stds, np.float32)

    def after(self, mean: Array, scale: Array | None, axes: str) -> tuple[Array, Array | None]:
        means, stds = self._along(axes)
        return np.asarray(mean * stds + means, np.float32), None

    @property
    def do_after(self) -> bool:
        return True

    def _along(self, axes: str) -> tuple[Array, Array]:
        shape = [-1 if letter == "C" else 1 for letter in axes]
        return self._means.reshape(shape), self._stds.reshape(shape)


def _patches(array: Any, what: str, settings: CareConfig) -> Array:
    """Patches that fit the network, as they are."""
    found = array_of(array, what)
    if found.ndim != 1 + len(settings.axes) or found.shape[-1] != settings.n_channel_in or not len(found):
        raise InputError(
            f"{what} has shape {found.shape}; a network with axes {settings.axes!r} and {settings.n_channel_in} channels "
            "takes patches (n, " + ", ".join(settings.axes.lower().replace("c", "channel")) + ")"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError(f"{what} holds NaN or infinity; mend it, or leave it out")
    return np.asarray(found)


def _blind_spots(patches: Array, settings: CareConfig) -> BlindSpots:
    from care_bridge.training.blind_spots import BlindSpots, NoisyImage, neighbourhood

    neighbourhood(settings)
    wanted = settings.n2v_patch_shape or patches.shape[1:-1]
    too_large = [
        f"{size} pixels along {letter}, and X has {there}"
        for letter, size, there in zip(settings.axes, wanted, patches.shape[1:-1], strict=False)
        if size > there
    ]
    if too_large:
        raise InputError(f"n2v_patch_shape={tuple(wanted)} has {'; '.join(too_large)}; give a smaller one")
    return BlindSpots([NoisyImage(patches, (0, patches.shape[-3]), "X")], settings, wanted)


def _validation(patches: Array, settings: CareConfig) -> Arrays:
    """Patches with blind spots that are drawn once."""
    from care_bridge.training.batches import Arrays
    from care_bridge.training.blind_spots import VALIDATION, hide

    scaled = _OwnScale(settings).before(patches, "S" + settings.axes)
    return Arrays(*hide(scaled, settings, np.random.default_rng([settings.seed, VALIDATION])))
