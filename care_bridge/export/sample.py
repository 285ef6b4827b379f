"""The image that a package is tested with: cut or drawn so that every reader's percentiles agree; and its cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import move_axes
from care_bridge.errors import InputError
from care_bridge.export.source import Source
from care_bridge.images import Image, read_image
from care_bridge.reach import Geometry
from care_bridge.tiling import round_up

RANK_TOLERANCE = 1e-6
EPS = 1e-6
"""Added to the range of the percentiles, as bioimageio.core does unless told otherwise."""


def scale_range(tensor: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """What bioimageio.core makes of a tensor (batch, [z,] y, x, channel): percentiles over space."""
    axes = tuple(range(1, tensor.ndim - 1))
    bottom, top = (np.percentile(tensor, p, axis=axes, keepdims=True) for p in (low, high))
    return np.asarray((tensor - bottom) / (top - bottom + EPS), np.float32)


def prepared(tensor: NDArray[Any], source: Source, low: float, high: float) -> NDArray[np.float32]:
    """What readers make of a tensor by the description: percentiles, a bare network's own mean and deviation, nothing."""
    if source.scale is not None:
        return np.asarray(tensor, np.float32)
    own = source.outside
    if own is None:
        return scale_range(tensor, low, high)
    mean, std = (np.asarray(numbers, np.float32) for numbers in (own.means, own.stds))
    return np.asarray((tensor - mean) / std, np.float32)


def given_back(output: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
    """What readers make of the network's output: nothing, or grey levels where they were given a mean and deviation."""
    own = source.outside
    if own is None:
        return output
    mean, std = (np.asarray(numbers, np.float32) for numbers in (own.means, own.stds))
    return np.asarray(output * std + mean, np.float32)


def ranks_agree(pixels: NDArray[Any], low: float, high: float) -> bool:
    """Whether linear, nearest-rank and floor percentiles of an image are the same two values."""
    values = np.sort(np.asarray(pixels, np.float64).ravel())
    n = values.size
    for p in (low, high):
        linear = float(np.percentile(values, p))
        nearest = values[
            int(np.clip(np.floor(np.float32(n - 1) * np.float32(p) / np.float32(100) + 0.5), 0, n - 1))
        ]
        floor = values[min(n - 1, int(n * p / 100))]
        span = max(values[-1] - values[0], 1e-12)
        if max(abs(linear - nearest), abs(linear - floor)) > RANK_TOLERANCE * span:
            return False
    return True


def test_pair(
    image: Any, truth: Any, source: Source, geometry: Geometry, low: float, high: float
) -> tuple[Image, Image | None]:
    if image is None:
        if truth is not None:
            raise InputError("a ground truth needs its test image; give both")
        return drawn_test_image(source, geometry, low, high), None
    picture = image if isinstance(image, Image) else read_image(image)
    wanted = None if truth is None else truth if isinstance(truth, Image) else read_image(truth)
    if wanted is not None and wanted.shape != picture.shape:
        raise InputError(
            f"the ground truth has shape {wanted.shape}, the test image {picture.shape}; give a pair"
        )
    return _crop(picture, wanted, source, geometry, low, high)


def _crop(
    image: Image, truth: Image | None, source: Source, geometry: Geometry, low: float, high: float
) -> tuple[Image, Image | None]:
    sizes = _test_sizes(source, geometry)
    limits = {axis: image.size(axis) for axis in source.space}
    chosen = {}
    for axis, multiple in zip(source.space, geometry.size_multiple, strict=True):
        chosen[axis] = min(sizes[axis], limits[axis] // multiple * multiple)
        if chosen[axis] < multiple:
            raise InputError(
                f"the test image has {limits[axis]} pixels along {axis}; at least {multiple} are needed"
            )
    cuts: list[dict[str, int]] = []
    for shift in range(0, 64, 7):
        cuts.append({axis: min(shift, limits[axis] - chosen[axis]) for axis in source.space})
    for start in cuts:
        index = tuple(
            slice(start[axis], start[axis] + chosen[axis]) if axis in chosen else slice(None)
            for axis in image.axes
        )
        part = image.replace(data=image.data[index])
        if ranks_agree(part.data, low, high) or start == cuts[-1]:
            return part, None if truth is None else truth.replace(data=truth.data[index])
    raise AssertionError


def _test_sizes(source: Source, geometry: Geometry) -> dict[str, int]:
    wanted = {"Z": 16, "Y": 128, "X": 128} if len(source.space) == 3 else {"Y": 256, "X": 256}
    least = halos(source, geometry)
    return {
        axis: round_up(max(wanted.get(axis, 16), 2 * least[axis.lower()] + 1), multiple)
        for axis, multiple in zip(source.space, geometry.size_multiple, strict=True)
    }


def halos(source: Source, geometry: Geometry) -> dict[str, int]:
    """Halo a space axis: the receptive field up to the next multiple of the step, one step along Z.

    Notes
    -----
    deepImageJ needs multiples of the step (others shift the pooling grid), and fails on stacks thinner than
    about the halo: so Z gets a small one of its own.
    """
    found = {}
    for axis, multiple, reach in zip(
        source.space, geometry.size_multiple, geometry.receptive_field, strict=True
    ):
        if source.space.index(axis) == geometry.dropped or reach is None:
            found[axis.lower()] = 0
        elif axis in "ZT":
            found[axis.lower()] = min(round_up(reach, multiple), max(multiple, 2))
        else:
            found[axis.lower()] = round_up(reach, multiple)
    return {
        axis: round_up(halo, m) for (axis, halo), m in zip(found.items(), geometry.size_multiple, strict=True)
    }


def drawn_test_image(source: Source, geometry: Geometry, low: float, high: float) -> Image:
    """Filaments of camera counts, in whole numbers, on which all percentiles agree."""
    sizes = _test_sizes(source, geometry)
    shape = tuple(sizes[axis] for axis in source.space)
    channels = source.network.inputs[0].shape[-1]
    for seed in range(50):
        random = np.random.default_rng(seed)
        grid = np.meshgrid(*(np.linspace(0, 1, size) for size in shape), indexing="ij")
        picture = np.zeros(shape)
        for _ in range(12):
            phase, slope, wave = random.random(3)
            line = grid[-2] - phase - (slope - 0.5) * grid[-1] - 0.1 * np.sin(6 * grid[-1] + 9 * wave)
            depth = np.exp(-(((grid[0] - random.random()) / 0.4) ** 2)) if len(shape) == 3 else 1.0
            picture += depth * np.exp(-((line / 0.012) ** 2))
        counts = random.poisson(12 + 60 * picture[..., None].repeat(channels, axis=-1))
        data = np.asarray(counts, np.uint16)
        if all(ranks_agree(data[..., channel], low, high) for channel in range(channels)):
            break
    axes = source.space + "C"
    return Image(data, axes, name="drawn filaments")


def as_tensor(image: Image, source: Source) -> NDArray[np.float32]:
    data = move_axes(image.data, image.axes, source.space + "C")
    channels = source.network.inputs[0].shape[-1]
    if data.shape[-1] != channels:
        raise InputError(f"the test image has {data.shape[-1]} channels, the network takes {channels}")
    return np.asarray(data[None], np.float32)


def write_tensors(folder: Path, tensor: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    from tifffile import imwrite

    for name, data in (("input", tensor), ("output", output)):
        np.save(folder / f"test_{name}.npy", data)
        imwrite(folder / f"sample_{name}.tif", data[0].squeeze(), metadata=None)


def cover(tensor: NDArray[np.float32], output: NDArray[np.float32]) -> bytes:
    """Input left, restored right, 2:1, each with its own contrast limits by the same percentiles; PNG."""
    from care_bridge.page import png

    halves = []
    for data in (tensor, output):
        plane = data[0, ..., 0]
        plane = plane.max(axis=0) if plane.ndim == 3 else plane
        side = min(plane.shape)
        plane = plane[:side, :side]
        low, high = np.percentile(plane, (1, 99.8))
        halves.append(np.clip((plane - low) / max(high - low, 1e-9), 0, 1).astype(np.float32))
    side = min(half.shape[0] for half in halves)
    return png(np.concatenate([half[:side, :side] for half in halves], axis=1), limits=(0.0, 1.0))
