"""Inside ImageJ's worker: images of Java as arrays, and arrays as images of Java."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.java import worker_java

_IMAGEJ_AXES = "TZCYX"


def array_from_imp(image: Any) -> tuple[NDArray[Any], str]:
    """The pixels of an ImagePlus now, and their axes."""
    return stacked(*planes_of(image))


def planes_of(image: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The Java arrays that an image has now, and its sizes T Z C Y X."""
    stack = image.getStack()
    planes = [stack.getPixels(number + 1) for number in range(int(stack.getSize()))]
    sizes = (
        image.getNFrames(),
        image.getNSlices(),
        image.getNChannels(),
        image.getHeight(),
        image.getWidth(),
    )
    return planes, tuple(int(size) for size in sizes)


def stacked(planes: list[Any], sizes: tuple[int, ...]) -> tuple[NDArray[Any], str]:
    """Planes of Java as one array without its axes of size 1; RGB becomes three channels, as in the plugin."""
    frames, slices, _, height, width = sizes
    arrays = [_plane(plane) for plane in planes]
    if arrays[0].dtype == np.int32:
        rgb = np.stack([a.view(np.uint8).reshape(height, width, 4)[..., 2::-1] for a in arrays])
        array = np.moveaxis(rgb.reshape(frames, slices, height, width, 3), -1, 2)
    else:
        array = np.stack(arrays).reshape(sizes)
    keep = tuple(
        slice(None) if size > 1 or letter in "YX" else 0
        for letter, size in zip(_IMAGEJ_AXES, array.shape, strict=True)
    )
    axes = "".join(
        letter for letter, index in zip(_IMAGEJ_AXES, keep, strict=True) if isinstance(index, slice)
    )
    return np.ascontiguousarray(array[keep]), axes


def _plane(pixels: Any) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(memoryview(pixels))
    return array.view({1: np.uint8, 2: np.uint16}.get(array.itemsize, array.dtype))


def imp_from_array(array: NDArray[Any], axes: str, title: str, *, folder: Path | None = None) -> Any:
    """An ImagePlus of an array; with a folder, a virtual stack whose planes lie in it."""
    import jpype

    index = tuple(np.newaxis if letter not in axes else slice(None) for letter in _IMAGEJ_AXES)
    order = [axes.index(letter) for letter in _IMAGEJ_AXES if letter in axes]
    full = array.transpose(order)[index]
    frames, slices, channels, height, width = full.shape
    planes = full.reshape(-1, height, width)
    stack = _stack(planes) if folder is None else _virtual_stack(planes, folder)
    image = jpype.JClass("ij.ImagePlus")(title, stack)
    image.setDimensions(channels, slices, frames)
    if frames > 1 or (slices > 1 and channels > 1):
        image.setOpenAsHyperStack(True)
    if channels > 1:
        composite = jpype.JClass("ij.CompositeImage")
        image = composite(image, composite.GRAYSCALE)
    return image


def _stack(planes: NDArray[Any]) -> Any:
    import jpype

    height, width = planes.shape[1:]
    stack = jpype.JClass("ij.ImageStack")(width, height)
    for plane in planes:
        stack.addSlice(_processor(plane))
    return stack


def _virtual_stack(planes: NDArray[Any], folder: Path) -> Any:
    """A stack that reads its planes again and again, as the plugin's: edits of a plane are lost."""
    import jpype

    height, width = planes.shape[1:]
    stack = jpype.JClass("ij.VirtualStack")(width, height, None, f"{folder}{os.sep}")
    for number, plane in enumerate(planes):
        image = jpype.JClass("ij.ImagePlus")("", _processor(plane))
        name = f"{number:05d}.tif"
        jpype.JClass("ij.io.FileSaver")(image).saveAsTiff(str(folder / name))
        stack.addSlice(name)
    stack.setBitDepth(32)
    return stack


def _processor(plane: NDArray[Any]) -> Any:
    import jpype

    height, width = plane.shape
    flat = np.ascontiguousarray(plane).reshape(-1)
    if flat.dtype == np.uint8:
        java: Any = jpype.JArray(jpype.JByte)(flat.view(np.int8))
        return jpype.JClass("ij.process.ByteProcessor")(width, height, java)
    if flat.dtype == np.uint16:
        java = jpype.JArray(jpype.JShort)(flat.view(np.int16))
        return jpype.JClass("ij.process.ShortProcessor")(width, height, java, None)
    java = jpype.JArray(jpype.JFloat)(flat.size)
    # Ten times as fast as JArray(JFloat)(array).
    worker_java.direct_buffer(flat.astype(np.float32, copy=False)).asFloatBuffer().get(java)
    return jpype.JClass("ij.process.FloatProcessor")(width, height, java, None)


def open_ids() -> list[int]:
    """Of every image that is open, in batch mode too."""
    import jpype

    ids = jpype.JClass("ij.WindowManager").getIDList()
    return [int(number) for number in ids] if ids is not None else []


def open_titles() -> list[str]:
    """Of every image that is open, in batch mode too."""
    import jpype

    window_manager = jpype.JClass("ij.WindowManager")
    return [str(window_manager.getImage(number).getTitle()) for number in open_ids()]
