"""What a TIFF's series hold, against what its header says: planes that are there, letters for the dimensions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import AXES, check_axes
from care_bridge.errors import InputError

_MIN_IS_WHITE, _MIN_IS_BLACK, _PALETTE = 0, 1, 3  # PhotometricInterpretation
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_TABLE = "a palette"
# ImageJ's words for the order of a hyperstack's dimensions, fastest first, and ours, slowest first.
_ORDERS = {"ctz": "ZTC", "zct": "TCZ", "ztc": "CTZ", "tcz": "ZCT", "tzc": "CZT"}


class HeaderWarning(UserWarning):
    """A file's header says more, or less, than the file holds."""


@dataclass(frozen=True, eq=False)
class Layout:
    """One series of a file: what of it is there, and what the file calls it.

    Attributes
    ----------
    series : tifffile.TiffPageSeries
    axes : str
        tifffile's letters, of which Q and I mean nothing and S are the samples of a pixel.
    shape : tuple of int
        Of what is there.
    planes : tuple of tifffile.TiffPage, optional
        Those that are there and taken; None: the series as it is.
    """

    series: Any
    axes: str
    shape: tuple[int, ...]
    planes: tuple[Any, ...] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored, in the machine's byte order."""
        dtype: np.dtype[Any] = self.series.dtype.newbyteorder("=")
        return dtype

    def read(self) -> NDArray[Any]:
        """The pixels in `shape`, in the machine's byte order."""
        pages = self.planes
        data = self.series.asarray() if pages is None else np.stack([page.asarray() for page in pages])
        return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("=")).reshape(self.shape)


def full_size(file: Any) -> list[Any]:
    """A file's series without what is marked as a smaller copy (thumbnail, overview) or as a mask."""
    found = list(file.series)
    marked = [int(getattr(one.keyframe, "subfiletype", 0) or 0) & (_REDUCED | _MASK) for one in found]
    kept = [one for one, mark in zip(found, marked, strict=True) if not mark]
    return kept or found


def layout(file: Any, series: Any, path: Path) -> Layout:
    """What of a series is there, said in a `HeaderWarning` where it is not what the header says."""
    if file.is_imagej and series.kind in ("generic", "uniform"):
        # tifffile drops a header of ImageJ that does not fit, and with it which dimension is time.
        return _by_imagej(file, series, path)
    whole = Layout(series, series.axes, tuple(series.shape))
    if series.kind not in ("ome", "shaped", "imagej"):
        return whole
    n_leading = _leading(series)
    promised = prod(whole.shape[:n_leading])
    planes = _held(file, series, promised)
    if planes is None or len(planes) == promised:
        return whole
    if series.kind == "ome" and _names_other_files(file.ome_metadata):
        raise InputError(
            f"{str(path)!r} is one file of several that make up an OME-TIFF, and the others are not beside it; "
            "copy them there, or save the image as one file"
        )
    if not planes:
        raise InputError(
            f"{str(path)!r} is cut short: its header says {promised} planes, which would end behind the file's end; "
            "copy or save it again"
        )
    taken = _taken(whole.shape[:n_leading], len(planes))
    _say(
        path,
        {"ome": "OME-XML", "imagej": "ImageJ header"}.get(series.kind, "header"),
        whole.axes,
        whole.shape[n_leading:],
        whole.shape[:n_leading],
        taken,
        len(planes),
    )
    return Layout(series, whole.axes, (*taken, *whole.shape[n_leading:]), tuple(planes[: prod(taken)]))


def _by_imagej(file: Any, series: Any, path: Path) -> Layout:
    whole = Layout(series, series.axes, tuple(series.shape))
    meta = file.imagej_metadata or {}
    letters = _ORDERS.get(str(meta.get("order", "")).lower(), "TZC")
    counts = {"T": meta.get("frames", 1), "Z": meta.get("slices", 1), "C": meta.get("channels", 1)}
    if prod(counts.values()) == 1 and meta.get("images", 1) > 1:
        counts["Z"] = meta["images"]  # ImageJ itself takes a plain stack for slices
    if not all(isinstance(count, int) and count > 0 for count in counts.values()):
        return whole
    sizes = [(letter, counts[letter]) for letter in letters if counts[letter] > 1]
    n_leading = len(whole.shape) - len(series.keyframe.shape)
    held = prod(whole.shape[:n_leading])
    if len(list(file.series)) > 1 or not sizes or held == prod(size for _, size in sizes):
        return whole
    promised = tuple(size for _, size in sizes)
    axes = "".join(letter for letter, _ in sizes) + series.keyframe.axes
    more = held > prod(promised)
    taken = (held // prod(promised[1:]), *promised[1:]) if more else _taken(promised, held)
    _say(path, "ImageJ header", axes, tuple(series.keyframe.shape), promised, taken, held)
    planes = None if prod(taken) == held else tuple(series.pages[number] for number in range(prod(taken)))
    return Layout(series, axes, (*taken, *series.keyframe.shape), planes)


def _leading(series: Any) -> int:
    """How many dimensions, from the first, count planes."""
    page = tuple(series.keyframe.shape)
    shape = tuple(series.shape)
    pixels, position = 1, len(shape)
    while position and pixels < prod(page):
        position -= 1
        pixels *= shape[position]
    return position


def _held(file: Any, series: Any, promised: int) -> list[Any] | None:
    """The promised planes up to the first that is missing; None where all lie in one block."""
    offset, first = series.dataoffset, series.keyframe
    if offset is not None:
        end = offset + series.nbytes
        # Small planes that lie apart may all end before the block would: then the next one begins inside it.
        apart = _begins(file, first.index + 1, after=offset + first.nbytes, before=end)
        if end <= file.filehandle.size and not apart:
            return None
    if series.kind == "shaped" and '"truncated": true' in first.description:
        return []  # one directory stands for all planes, and the block behind it is shorter
    planes: list[Any] = []
    for number in range(promised):
        try:
            page = series.pages[number] if series.kind == "ome" else file.pages[first.index + number]
        except IndexError:
            break
        if page is None or page.shape != first.shape or page.dtype != first.dtype:
            break
        planes.append(page)
    return planes


def _begins(file: Any, number: int, *, after: int, before: int) -> bool:
    """Whether a page is there whose pixels begin between two places in the file."""
    try:
        offsets = file.pages[number].dataoffsets
    except IndexError:
        return False
    return bool(offsets and after < offsets[0] < before)


def _names_other_files(xml: str) -> bool:
    """Whether OME-XML says that some planes lie in other files."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return False
    return len({one.text for one in root.iter() if one.tag.endswith("}UUID")}) > 1


def _taken(promised: tuple[int, ...], held: int) -> tuple[int, ...]:
    """The largest block of whole positions along the slowest axis that the planes fill."""
    for position in range(len(promised)):
        inner = prod(promised[position + 1 :])
        if held >= inner:
            return (*(1,) * position, held // inner, *promised[position + 1 :])
    return (1,) * len(promised)


def _say(
    path: Path,
    what: str,
    axes: str,
    page: tuple[int, ...],
    promised: tuple[int, ...],
    taken: tuple[int, ...],
    held: int,
) -> None:
    """Both numbers, and what is taken."""
    planes = prod(promised[: len(taken)])
    counts = ", ".join(
        f"{count} of {number} along {letter}" if count < number else f"{count} along {letter}"
        for letter, number, count in zip(axes, promised, taken, strict=False)
        if count != number
    )
    left = held - prod(taken)
    rest = f"; {left} plane{'s' * (left != 1)} of an unfinished {axes[0]} left out" if left else ""
    warnings.warn(
        f"{str(path)!r}: its {what} says axes {axes}, shape {(*promised, *page)}, {planes} planes, and the file holds "
        f"{held}{' (a recording that was stopped?)' if held < planes else ''}; taken: {counts}{rest}",
        HeaderWarning,
        stacklevel=2,
    )


# --- letters


def named(
    found: Layout, path: Path, axes: str | None, *, n_series: int, imagej: bool
) -> tuple[str, tuple[int, ...]]:
    """Letters in this package's alphabet for the dimensions of a series (or of several, stacked), and their sizes.

    Dimensions of size 1 other than Y and X are left out: files do not tell them from missing ones.

    Parameters
    ----------
    found : Layout
    path : Path
        For messages.
    axes : str, optional
        What the caller says that they mean.
    n_series : int
        So many are stacked along a new first dimension; 1 adds none.
    imagej : bool
        Whether ImageJ wrote the file, which takes a plain stack for slices.
    """
    stored, shape = found.axes, found.shape
    if n_series > 1:
        # n: what the format means by several series; I: planes that a program wrote one by one.
        stored, shape = ("n" if found.series.kind == "ome" else "I") + stored, (n_series, *shape)
    colours = _colours(found.series.keyframe, path)
    short = [(letter, size) for letter, size in zip(stored, shape, strict=True) if size > 1 or letter in "YX"]
    if axes is not None:
        letters, sizes = _given(check_axes(axes), stored, shape, short, path)
    else:
        if "S" in (letter for letter, _ in short):
            if colours:
                letters = "".join(letter for letter, _ in short).replace("C", "Z").replace("S", "C")
                raise InputError(
                    f"{str(path)!r} is a colour image ({colours}; shape {shape}), where each channel should be "
                    "one number a pixel; in Fiji use Image > Type > 16-bit, or Image > Color > Split Channels; "
                    f"axes={letters!r} (--image-axes) reads the colours as channels"
                )
        elif colours == _TABLE:
            raise InputError(
                f"{str(path)!r} is a colour image ({colours}): its numbers are places in a table and no intensities; "
                "in Fiji use Image > Type > 8-bit; "
                f"axes={''.join(letter for letter, _ in short)!r} (--image-axes) reads the numbers as they are"
            )
        letters, sizes = _said(short, shape, path, imagej=imagej)
    check_planes(letters, sizes, path)
    return letters, sizes


def _colours(page: Any, path: Path) -> str:
    """What kind of colours a page holds; "" for numbers that mean an intensity."""
    photometric = int(page.photometric)
    if photometric == _PALETTE:
        return "" if _is_ramp(page.colormap) else _TABLE
    if photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK):
        alpha = any(int(kind) in _ALPHA for kind in page.extrasamples)
        return "grey with transparency" if alpha else ""
    return (
        {2: "RGB", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}.get(photometric, "")
        if page.samplesperpixel > 1
        else ""
    )


def _is_ramp(colours: Any) -> bool:
    """Whether a colour table only shows intensities (ImageJ's Green, Fire...): it gets brighter on the whole."""
    if colours is None or np.ndim(colours) != 2:
        return True
    light = np.asarray(colours, np.float64).sum(axis=0)
    if light.size < 3 or np.ptp(light) == 0:
        return True
    return bool(abs(np.corrcoef(np.arange(light.size), light)[0, 1]) > 0.8)


def _given(
    axes: str, stored: str, shape: tuple[int, ...], short: list[tuple[str, int]], path: Path
) -> tuple[str, tuple[int, ...]]:
    """The caller's letters, on the dimensions as stored, or on those that are not of size 1."""
    letters = "".join(letter for letter, _ in short)
    # A stack of one plane is stored without its Z, so "ZYX" fits what the file calls "YX".
    left = "".join(letter for letter in axes if letter in letters)
    if len(axes) == len(shape):
        pairs = list(zip(axes, shape, strict=True))
    elif len(axes) == len(short):
        pairs = list(zip(axes, (size for _, size in short), strict=True))
    elif len(axes) > len(short) and left == letters:
        pairs = short
    elif len(axes) == sum(size > 1 for size in shape):
        pairs = list(zip(axes, (size for size in shape if size > 1), strict=True))
    else:
        raise InputError(
            f"{str(path)!r} has {len(shape)} dimensions (the file calls them {stored}, "
            f"shape {shape}), but axes={axes!r} names {len(axes)}"
        )
    pairs = [(letter, size) for letter, size in pairs if size > 1 or letter in "YX"]
    return "".join(letter for letter, _ in pairs), tuple(size for _, size in pairs)


def _said(
    short: list[tuple[str, int]], shape: tuple[int, ...], path: Path, *, imagej: bool
) -> tuple[str, tuple[int, ...]]:
    letters = "".join(letter for letter, _ in short)
    if "S" in letters and "C" not in letters:
        letters = letters.replace("S", "C")  # samples that are no colours
    letters = letters.replace("n", "S")
    if imagej and "Z" not in letters:
        letters = letters.replace("I", "Z")
    unknown = [letter for letter in letters if letter not in AXES]
    if unknown or len(set(letters)) < len(letters):
        example = {3: "YXC" if shape[-1] == 1 else "ZYX"}.get(len(letters), "TCZYX"[-len(letters) :])
        raise InputError(
            f"{str(path)!r} (shape {shape}) does not say what its dimensions mean; "
            f"give axes, e.g. axes={example!r} (--image-axes {example})"
        )
    return letters, tuple(size for _, size in short)


def check_planes(letters: str, sizes: tuple[int, ...], path: Path) -> None:
    """Refuse stacks of lines: what has a 1 where Y or X should be was written with its axes in another order."""
    thin = [letter for letter, size in zip(letters, sizes, strict=True) if size == 1]
    if len(letters) > 2 and thin:
        raise InputError(
            f"{str(path)!r} (shape {sizes}) would be a stack of planes with 1 pixel along {', '.join(thin)} by axes "
            f"{letters}; say what its dimensions mean, e.g. axes='YXC' (--image-axes YXC) where the last is a channel"
        )
