"""n2v's N2V_DataGenerator: noisy images from files, and patches of them."""  # noqa: N999 - n2v's name

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import check_axes, move_axes
from care_bridge.errors import InputError
from care_bridge.images import read_image

__all__ = ["N2V_DataGenerator"]

Array = NDArray[Any]

_JPEG = (".jpg", ".jpeg")


def _read(path: str | os.PathLike[str], dims: str) -> tuple[Array, str]:
    """Pixels of a TIFF or a PNG as float32, and their axes."""
    suffix = Path(path).suffix.lower()
    if suffix in _JPEG:
        raise InputError(
            f"{str(path)!r} is a JPEG: its compression makes neighbouring pixels share what is left of the noise, so "
            "Noise2Void cannot learn from it; go back to the file that the microscope wrote"
        )
    if suffix == ".png":
        from matplotlib.image import imread

        return np.asarray(imread(Path(path)), np.float32), dims
    image = read_image(path, dims)
    return np.asarray(image.data, np.float32), image.axes


class N2V_DataGenerator:  # noqa: N801 - n2v's name
    """Reads noisy images and cuts patches.

    Parameters
    ----------
    seed : int, optional
        Of what is drawn; None draws from ``numpy.random``, as n2v does.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random: Any = np.random if seed is None else np.random.RandomState(seed)

    def load_imgs(
        self,
        files: Iterable[str | os.PathLike[str]],
        dims: str = "YX",
        image_reader: Callable[[Any], Array] | None = None,
    ) -> list[Array]:
        """Read images, which may differ in size.

        Parameters
        ----------
        files : sequence of path
            TIFF, or PNG (of 0 to 1, as matplotlib reads it).
        dims : str
            What the dimensions of all files mean, of T, Z, Y, X and C.
        image_reader : callable, optional
            Gives the pixels of a path; None reads as said above.

        Returns
        -------
        list of ndarray
            float32, shape (t, [z,] y, x, channel); t is 1 without T.

        Raises
        ------
        InputError
            If `dims` is impossible or does not fit an image, or a file is a JPEG.
        """
        letters = check_axes(dims, argument="dims")
        if not {"Y", "X"} <= set(letters) <= set("TZYXC"):
            raise InputError(f"dims={dims!r}: Y and X are needed, and T, Z and C may be there")
        order = "TZYXC" if "Z" in letters else "TYXC"
        images = []
        for file in files:
            if image_reader is None:
                pixels, found = _read(file, letters)
            else:
                pixels, found = np.asarray(image_reader(file), np.float32), letters
            if pixels.ndim != len(found):
                raise InputError(
                    f"{str(file)!r} has {pixels.ndim} dimensions (shape {pixels.shape}); dims={dims!r}"
                )
            images.append(move_axes(pixels, found, order))
        return images

    def load_imgs_from_directory(
        self,
        directory: str | os.PathLike[str],
        filter: str = "*.tif",
        dims: str = "YX",
    ) -> list[Array]:
        """Read the images of a folder, sorted by name.

        Parameters
        ----------
        directory : path
        filter : str
            Which files.
        dims : str
            As for `load_imgs`.

        Returns
        -------
        list of ndarray

        Raises
        ------
        InputError
            If no file fits, or for what `load_imgs` refuses.
        """
        files = sorted(Path(directory).glob(filter))
        if not files:
            raise InputError(f"no file fits {filter!r} in {str(directory)!r}; give another folder or filter")
        return self.load_imgs(files, dims=dims)

    def generate_patches_from_list(
        self,
        data: Sequence[Array],
        num_patches_per_img: int | None = None,
        shape: Sequence[int] = (256, 256),
        augment: bool = True,
        shuffle: bool = False,
    ) -> Array:
        """Patches of several images, one image after another.

        Parameters
        ----------
        data : sequence of ndarray
            As `load_imgs` gives them.
        num_patches_per_img : int, optional
            At random places of every frame; None cuts each frame into as many as fit beside one another.
        shape : sequence of int
            ([z,] y, x).
        augment : bool
            Add each patch turned three times, and all mirrored: eight times as many. Not done where y and x differ.
        shuffle : bool
            Mix patches of all images, not only those of each frame.

        Returns
        -------
        ndarray, shape (n, [z,] y, x, channel)

        Raises
        ------
        InputError
            If an image is smaller than a patch.
        """
        patches = np.concatenate(
            [
                self.generate_patches(
                    frame[None], num_patches=num_patches_per_img, shape=shape, augment=augment
                )
                for image in data
                for frame in image
            ]
        )
        if shuffle:
            self._random.shuffle(patches)
        return patches

    def generate_patches(
        self,
        data: Array,
        num_patches: int | None = None,
        shape: Sequence[int] = (256, 256),
        augment: bool = True,
    ) -> Array:
        """Patches of one image, in random order.

        Parameters
        ----------
        data : ndarray, shape (t, [z,] y, x, channel)
            Random places are taken from its first frame.
        num_patches, shape, augment
            As for `generate_patches_from_list`.

        Returns
        -------
        ndarray, shape (n, [z,] y, x, channel)

        Raises
        ------
        InputError
            If the image is smaller than a patch.

        Warns
        -----
        UserWarning
            If patches are to be turned whose y and x differ.
        """
        space = data.shape[1:-1]
        if len(space) != len(shape) or any(size < wanted for size, wanted in zip(space, shape, strict=True)):
            raise InputError(
                f"an image has sizes {space}, patches {tuple(shape)}; give a smaller shape, one number an axis"
            )
        patches = _beside(data, shape) if num_patches is None else self._anywhere(data[0], shape, num_patches)
        if augment and shape[-2] == shape[-1]:
            turned = [np.rot90(patches, turns, axes=(-3, -2)) for turns in range(4)]
            patches = np.concatenate([*turned, *(np.flip(one, axis=-2) for one in turned)])
        elif augment:
            warnings.warn(
                f"patches of {tuple(shape)} cannot be turned in the plane; none are added", stacklevel=2
            )
        patches = np.array(patches)
        self._random.shuffle(patches)
        return patches

    def _anywhere(self, frame: Array, shape: Sequence[int], count: int) -> Array:
        room = [size - wanted + 1 for size, wanted in zip(frame.shape[:-1], shape, strict=True)]
        places = ([self._random.randint(0, most) for most in room] for _ in range(count))
        return np.stack([frame[_box(at, shape)] for at in places])


def _beside(frames: Array, shape: Sequence[int]) -> Array:
    starts = (
        range(0, size - wanted + 1, wanted) for size, wanted in zip(frames.shape[1:-1], shape, strict=True)
    )
    return np.concatenate([frames[(slice(None), *_box(at, shape))] for at in itertools.product(*starts)])


def _box(at: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(at, shape, strict=True))
