"""OME-Zarr, read: which array is the image, what its dimensions mean, and what is wrong with it.

Versions 0.1 to 0.5, of zarr 2 and 3, sharded or not. Only what describes an image is read of the metadata, pixels only
when they are asked for. Codecs are held against a list, because reading runs them, and one of them unpickles.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from care_bridge import text
from care_bridge.axes import AXES, SPACE, check_axes
from care_bridge.errors import InputError
from care_bridge.images.image import Channel
from care_bridge.images.layout import HeaderWarning, check_planes
from care_bridge.images.units import SECONDS_PER_UNIT, UM_PER_UNIT
from care_bridge.images.volume import Volume
from care_bridge.memory import free_bytes

ZARR = ".zarr"
"""End of the name of a folder that is an image."""

_ARRAY, _ATTRIBUTES, _GROUP, _NODE = ".zarray", ".zattrs", ".zgroup", "zarr.json"
# What only computes. Of zarr 2's, `pickle` runs code, and `json2`, `msgpack2` and the like are for objects.
_CODECS = {
    "astype", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32", "crc32c", "delta", "endian", "fixedscaleoffset",
    "gzip", "lz4", "lzma", "packbits", "quantize", "scale_offset", "sharding_indexed", "shuffle", "transpose", "zlib",
    "zstd",
}  # fmt: skip
_SECONDS = {
    **SECONDS_PER_UNIT,
    "millisecond": 1e-3,
    "microsecond": 1e-6,
    "nanosecond": 1e-9,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}


class _Axis(BaseModel):
    name: str
    type: str | None = None
    unit: str | None = None


class _Transformation(BaseModel):
    type: str
    scale: list[float | int] | None = None


class _Dataset(BaseModel):
    path: str
    transformations: list[_Transformation] | None = Field(None, alias="coordinateTransformations")


class _Multiscale(BaseModel):
    axes: list[_Axis | str] | None = None
    datasets: list[_Dataset]
    transformations: list[_Transformation] | None = Field(None, alias="coordinateTransformations")
    version: str | None = None
    name: str | None = None


class _Multiscales(BaseModel):
    multiscales: list[_Multiscale]


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder in which zarr keeps something, by its name or what lies in it."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    return folder.suffix.lower() == ZARR or any(
        (folder / name).is_file() for name in (_NODE, _ARRAY, _ATTRIBUTES, _GROUP)
    )


def names_image(folder: Path) -> bool:
    """Whether the metadata of a zarr say that it is an image."""
    try:
        return "multiscales" in _read_node(folder).ome
    except (InputError, OSError):
        return False


def open_ome_zarr(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | None = None
) -> Volume:
    """The image of an OME-Zarr, at full size, or of a zarr array alone.

    Parameters
    ----------
    path : path
    axes : str, optional
        As for `read_image`.
    series : int, optional
        Which of several images.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        If there is no image in it, or several and nobody says which; if its metadata or arrays are damaged or do not
        fit each other, or if nothing of its pixels is there.
    """
    path = Path(path)
    node = _read_node(path)
    if node.is_array:
        letters = axes or "".join(node.dimension_names or ())
        if not letters or not set(letters.upper()) <= set(AXES):
            raise InputError(
                f"{str(path)!r} is a zarr array that does not say what its dimensions mean; name the OME-Zarr that it "
                "lies in, or give axes, e.g. axes='ZYX' (--image-axes ZYX)"
            )
        return _volume(path, path, list(letters), axes, _Meaning())
    group, image, channels = _image_of(path, node, series)
    _check_version(group, node, image)
    array = _inside(group, image.datasets[0].path)
    for level in image.datasets[1:]:
        if not is_zarr(_inside(group, level.path)):
            warnings.warn(
                f"{str(path)!r}: {level.path!r}, one of its smaller copies, is missing (writing that was stopped?); the "
                "image itself is read",
                HeaderWarning,
                stacklevel=3,
            )
    if not is_zarr(array):
        raise InputError(
            f"{str(path)!r} names {image.datasets[0].path!r} as its image, which is missing (unfinished, or copied in "
            "part); write or copy it again"
        )
    names = _axis_names(image)
    return _volume(path, array, names, axes, _meaning(path, image, names, channels))


# --- what a folder is


@dataclass(frozen=True)
class _Node:
    """A group or an array, as its metadata say."""

    attributes: Mapping[str, Any]
    zarr_format: int
    is_array: bool = False
    dimension_names: tuple[str, ...] | None = None

    @property
    def ome(self) -> Mapping[str, Any]:
        """What OME-Zarr keeps: below a key of its own from 0.5 on."""
        own = self.attributes.get("ome")
        return own if isinstance(own, Mapping) else self.attributes


def _read_node(folder: Path) -> _Node:
    if not folder.is_dir():
        raise FileNotFoundError(f"no image at {str(folder)!r}")
    if (folder / _NODE).is_file():
        found = _mapping(folder / _NODE)
        names = found.get("dimension_names")
        known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        attributes = found.get("attributes") or {}
        if not isinstance(attributes, Mapping):
            attributes = {}
        return _Node(attributes, 3, found.get("node_type") == "array", tuple(names) if known else None)  # type: ignore[arg-type]
    if not any((folder / name).is_file() for name in (_ARRAY, _ATTRIBUTES, _GROUP)):
        raise InputError(
            f"{str(folder)!r} is no zarr: neither {_NODE} nor {_GROUP} lies in it (unfinished, or copied in part); "
            "name the folder that holds them"
        )
    attributes = _mapping(folder / _ATTRIBUTES) if (folder / _ATTRIBUTES).is_file() else {}
    return _Node(attributes, 2, (folder / _ARRAY).is_file())


def _mapping(file: Path) -> Mapping[str, Any]:
    found = text.read(file, "JSON")
    if not isinstance(found, Mapping):
        raise InputError(f"{str(file)!r} holds no mapping, so it describes no zarr; write the image again")
    return found


def _image_of(path: Path, node: _Node, series: int | None) -> tuple[Path, _Multiscale, tuple[Channel, ...]]:
    """The group that an image lies in, what it says, and what it says of channels."""
    ome = node.ome
    if "plate" in ome or "well" in ome:
        what = "plate" if "plate" in ome else "well"
        inside = next((str(found.relative_to(path)) for found in _fields(path)), "A/1/0")
        raise InputError(
            f"{str(path)!r} is a {what} of several images; name one of them, e.g. {str(path / inside)!r}"
        )
    images: list[tuple[Path, Mapping[str, Any], int]] = []
    if "multiscales" in ome:
        text.checked({"multiscales": ome["multiscales"]}, _Multiscales, name=f"{str(path)!r}")
        images = [(path, ome, number) for number in range(len(ome["multiscales"]))]
    else:
        for one in _numbered(path):
            own = _read_node(one).ome
            if "multiscales" in own:
                text.checked({"multiscales": own["multiscales"]}, _Multiscales, name=f"{str(one)!r}")
                images.append((one, own, 0))
    if not images or not images[0][1]["multiscales"]:
        raise InputError(
            f"{str(path)!r} is a zarr without an image: it says nothing of multiscales (OME-Zarr's word for one); "
            "name the group of an image, or an array in it with axes"
        )
    if series is None and len(images) > 1:
        raise InputError(
            f"{str(path)!r} holds {len(images)} images; choose one with series=0 (predict --series 0), or name it, "
            f"e.g. {str(images[0][0])!r}"
        )
    if series is not None and not 0 <= series < len(images):
        raise InputError(
            f"{str(path)!r} has {len(images)} image series; series={series} is none of 0-{len(images) - 1}"
        )
    group, own, number = images[series or 0]
    found = _Multiscale.model_validate(own["multiscales"][number])
    if not found.datasets:
        raise InputError(f"{str(path)!r} is unfinished: its multiscales name no array; write it again")
    return group, found, _channels(own)


def _numbered(path: Path) -> list[Path]:
    """Groups "0", "1", ... as bioformats2raw lays images side by side."""
    found = [entry for entry in path.iterdir() if entry.name.isdigit() and is_zarr(entry)]
    return sorted((one for one in found if not _read_node(one).is_array), key=lambda one: int(one.name))


def _fields(path: Path) -> Iterator[Path]:
    for pattern in ("*/*/0", "0"):
        yield from sorted(found for found in path.glob(pattern) if is_zarr(found))


def _channels(ome: Mapping[str, Any]) -> tuple[Channel, ...]:
    omero = ome.get("omero")
    listed = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(listed, list):
        return ()
    found = []
    for one in listed:
        entry = one if isinstance(one, Mapping) else {}
        colour = str(entry.get("color") or "")
        found.append(
            Channel(
                str(entry.get("label") or "")[:200],
                colour.upper() if re.fullmatch("[0-9a-fA-F]{6}", colour) else "",
            )
        )
    return tuple(found)


def _check_version(group: Path, node: _Node, image: _Multiscale) -> None:
    """Say where the version that is named is none of the store's; the pixels are the same."""
    said = image.version or str(node.ome.get("version", ""))
    wanted = 2 if said in ("0.1", "0.2", "0.3", "0.4") else 3 if said.startswith("0.5") else 0
    if said and wanted == 0:
        warnings.warn(
            f"{str(group)!r} says OME-Zarr {said}, which is not known here; read as 0.5",
            HeaderWarning,
            stacklevel=4,
        )
    elif said and wanted != _read_node(group).zarr_format:
        warnings.warn(
            f"{str(group)!r} says OME-Zarr {said}, which lies in zarr {wanted}, and this is zarr "
            f"{_read_node(group).zarr_format}; read as it lies",
            HeaderWarning,
            stacklevel=4,
        )


def _inside(group: Path, name: str) -> Path:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or ":" in name:
        raise InputError(
            f"{str(group)!r} names {name!r} as its array, which is not in its folder; write the image again"
        )
    return group / name


# --- what the dimensions mean


@dataclass(frozen=True)
class _Meaning:
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_interval_s: float | None = None
    unit: str = "micron"
    channels: tuple[Channel, ...] = ()


def _axis_names(image: _Multiscale) -> list[str]:
    if image.axes is None:
        return list("tczyx")  # versions 0.1 and 0.2 have these five always
    return [axis if isinstance(axis, str) else axis.name for axis in image.axes]


def _meaning(path: Path, image: _Multiscale, names: Sequence[str], channels: tuple[Channel, ...]) -> _Meaning:
    scale = [1.0] * len(names)
    several = [*(image.datasets[0].transformations or ()), *(image.transformations or ())]
    for one in several:
        if one.type == "scale" and one.scale is not None:
            if len(one.scale) != len(names):
                raise InputError(
                    f"{str(path)!r} names {len(names)} axes ({', '.join(names)}) and {len(one.scale)} pixel sizes; write "
                    "the image again"
                )
            scale = [before * more for before, more in zip(scale, one.scale, strict=True)]
    units = [None if isinstance(axis, str) else axis.unit for axis in image.axes or names]
    sizes: dict[str, float] = {}
    unit, interval, unknown = "micron", None, []
    for name, factor, spelt in zip(names, scale, units, strict=True):
        letter = name.upper()
        if not 0 < factor < math.inf or letter not in (*SPACE, "T"):
            continue
        known = (_SECONDS if letter == "T" else UM_PER_UNIT).get((spelt or "pixel").lower())
        if known is None:
            unknown += [name] if factor != 1 else []
        elif letter == "T":
            interval = factor * known
        else:
            sizes[letter], unit = factor * known, spelt or unit
    if unknown:
        warnings.warn(
            f"{str(path)!r} gives sizes along {', '.join(unknown)} without a unit that is known; they are left out",
            HeaderWarning,
            stacklevel=4,
        )
    return _Meaning(sizes, interval, unit, channels)


# --- the array


def _volume(path: Path, place: Path, names: Sequence[str], axes: str | None, meaning: _Meaning) -> Volume:
    array = _open_array(path, place)
    shape = tuple(int(size) for size in array.shape)
    letters = _letters(path, names, shape, axes)
    kept = [
        number
        for number, (letter, size) in enumerate(zip(letters, shape, strict=True))
        if letter and (size > 1 or letter in "YX")
    ]
    found = "".join(letters[number] for number in kept)
    dtype = np.dtype(array.dtype).newbyteorder("=")
    block = tuple(int(size) for size in (getattr(array, "shards", None) or array.chunks))
    sizes = tuple(shape[number] for number in kept)
    check_planes(found, sizes, path)
    is_mask = dtype.kind == "b"

    def read_box(box: tuple[slice, ...]) -> NDArray[Any]:
        whole = [slice(0, 1)] * len(shape)
        for number, part in zip(kept, box, strict=True):
            whole[number] = part
        try:
            data = np.ascontiguousarray(array[tuple(whole)], dtype)
        except MemoryError as error:
            raise InputError(
                f"{str(path)!r} does not fit into memory (shape {shape}, {dtype}, blocks of {block}); cut it into parts"
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{str(path)!r}: its pixels cannot be decoded ({_line(error)}); write or copy it again"
            ) from error
        data = data.reshape([part.stop - part.start for part in box])
        # As one bit a pixel of a TIFF.
        return data.astype(np.uint8) * np.uint8(255) if is_mask else data

    size_of = dict(zip(found, sizes, strict=True))
    return Volume(
        path=path,
        axes=found,
        shape=sizes,
        dtype=np.dtype(np.uint8) if is_mask else dtype,
        read_box=read_box,
        block=tuple(block[number] for number in kept),
        pixel_size_um={letter: size for letter, size in meaning.pixel_size_um.items() if letter in found},
        frame_interval_s=meaning.frame_interval_s if "T" in found else None,
        unit=meaning.unit,
        name=path.name,
        channels=meaning.channels if len(meaning.channels) == size_of.get("C", 1) else (),
    )


def _letters(path: Path, names: Sequence[str], shape: tuple[int, ...], axes: str | None) -> list[str]:
    """A letter a dimension as stored; "" for one of size 1 that means nothing."""
    if axes is not None:
        given = check_axes(axes)
        short = [number for number, size in enumerate(shape) if size > 1]
        if len(given) == len(shape):
            return list(given)
        if len(given) == len(short):
            return [given[short.index(number)] if number in short else "" for number in range(len(shape))]
        raise InputError(
            f"{str(path)!r} has {len(shape)} dimensions (it calls them {', '.join(names)}, shape {shape}), but "
            f"axes={axes!r} names {len(given)}"
        )
    if len(names) != len(shape):
        raise InputError(
            f"{str(path)!r} names {len(names)} axes ({', '.join(names)}), and its array has {len(shape)} dimensions "
            f"(shape {shape}); write the image again, or give axes (--image-axes)"
        )
    letters = [name.upper() for name in names]
    letters = [
        letter if letter in AXES else "" if size == 1 else letter
        for letter, size in zip(letters, shape, strict=True)
    ]
    known = [letter for letter in letters if letter]
    if set(known) - set(AXES) or len(set(known)) < len(known) or not set("YX") <= set(known):
        raise InputError(
            f"{str(path)!r} has axes {', '.join(names)} (shape {shape}), where each should be one of t, c, z, y, x and y "
            f"and x be there; give axes, e.g. axes={'TCZYX'[-len(shape) :]!r} (--image-axes {'TCZYX'[-len(shape) :]})"
        )
    return letters


def _open_array(path: Path, place: Path) -> Any:
    import zarr

    node = _read_node(place)
    if not node.is_array:
        raise InputError(
            f"{str(path)!r}: {str(place)!r} should be an array and is a group; write the image again"
        )
    described = _mapping(place / (_NODE if node.zarr_format == 3 else _ARRAY))
    unknown = sorted(set(_codecs(described)) - _CODECS)
    if unknown:
        raise InputError(
            f"{str(path)!r} is compressed by {', '.join(unknown)}, which is not read here; write it with blosc, zstd or gzip"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of codecs without a specification
            array: Any = zarr.open_array(store=str(place), mode="r", zarr_format=node.zarr_format)
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        block = tuple(getattr(array, "shards", None) or array.chunks)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{str(path)!r}: its array {place.name!r} cannot be opened ({_line(error)}); its metadata are damaged, or its "
            "chunks and shards disagree: write it again"
        ) from error
    if dtype.kind not in "buif":
        raise InputError(f"{str(path)!r} holds {dtype}; integers or floats can be restored")
    if not math.prod(shape):
        raise InputError(f"{str(path)!r} has shape {shape}, no pixel at all")
    if math.prod(block) * dtype.itemsize > free_bytes():
        raise InputError(
            f"{str(path)!r} lies in blocks of {block} {dtype}, each more than there is memory; if that cannot be, it is "
            "damaged, else write it in smaller chunks"
        )
    if not _has_chunk(place):
        raise InputError(
            f"{str(path)!r} is unfinished: nothing of its array {place.name!r} (shape {shape}) was written; write or copy "
            "it again"
        )
    return array


def _codecs(described: Mapping[str, Any]) -> Iterator[str]:
    """Names of everything that turns stored bytes into pixels, as an array's metadata list it."""
    listed = [
        described.get("compressor"),
        *(described.get("filters") or ()),
        *(described.get("codecs") or ()),
    ]
    for one in listed:
        if one is None:
            continue
        entry = one if isinstance(one, Mapping) else {"name": one}
        yield str(entry.get("id", entry.get("name"))).removeprefix("numcodecs.").lower()
        inside = entry.get("configuration")
        if isinstance(inside, Mapping):
            for key in ("codecs", "index_codecs"):
                yield from _codecs({"codecs": inside.get(key)})


def _has_chunk(place: Path) -> bool:
    """Whether a file lies below an array beside its metadata."""
    return any(not name.startswith((".z", _NODE)) for _, _, files in os.walk(place) for name in files)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
