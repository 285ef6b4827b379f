"""csbdeep.utils: axes, normalisation, pictures and downloads under csbdeep's names."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from care_bridge import zips
from care_bridge.axes import AXES, axes_dict, check_axes
from care_bridge.csbdeep.arrays import array_of
from care_bridge.csbdeep.utils.plot_utils import plot_history, plot_some, to_color
from care_bridge.errors import InputError
from care_bridge.files import scratch_folder
from care_bridge.metrics import normalize_minmse
from care_bridge.normalize import percentile_range

__all__ = [
    "Path",
    "axes_check_and_normalize",
    "axes_dict",
    "backend_channels_last",
    "download_and_extract_zip_file",
    "load_json",
    "move_image_axes",
    "normalize",
    "normalize_mi_ma",
    "normalize_minmse",
    "plot_history",
    "plot_some",
    "save_json",
    "to_color",
]


def axes_check_and_normalize(
    axes: str, length: int | None = None, disallowed: str | None = None, return_allowed: bool = False
) -> str | tuple[str, str]:
    """Axes as upper-case letters; see `care_bridge.axes.check_axes`.

    Parameters
    ----------
    axes : str
    length : int, optional
        How many letters there must be.
    disallowed : str, optional
        Letters that may not be there.
    return_allowed : bool
        Give all letters that there are as well.

    Returns
    -------
    str, or two

    Raises
    ------
    InputError
        If they are no axes, or not these.
    """
    axes = check_axes(axes, ndim=length)
    wrong = [letter for letter in axes if disallowed and letter in disallowed]
    if wrong:
        raise InputError(f"axes={axes!r} hold {', '.join(wrong)}, which cannot be used here")
    return (axes, AXES) if return_allowed else axes


def backend_channels_last() -> bool:
    """Whether channels are the last dimension of a network's arrays: always, here.

    Returns
    -------
    bool
    """
    return True


def move_image_axes(x: NDArray[Any], fr: str, to: str, adjust_singletons: bool = False) -> NDArray[Any]:
    """Reorder dimensions.

    Parameters
    ----------
    x : ndarray
    fr, to : str
        Axes before and after.
    adjust_singletons : bool
        Drop dimensions of size 1 that only `fr` has, and add those that only `to` has.

    Returns
    -------
    ndarray

    Raises
    ------
    InputError
        If the two hold different letters, or one that is dropped has a size other than 1.
    """
    fr, to = check_axes(fr, ndim=x.ndim), check_axes(to)
    from care_bridge.axes import move_axes

    if not adjust_singletons and set(fr) != set(to):
        raise InputError(f"an image with shape {x.shape} and axes {fr!r} cannot have axes {to!r}")
    return move_axes(x, fr, to)


def normalize(
    x: NDArray[Any],
    pmin: float = 3,
    pmax: float = 99.8,
    axis: int | tuple[int, ...] | None = None,
    clip: bool = False,
    eps: float = 1e-20,
    dtype: Any = np.float32,
) -> NDArray[Any]:
    """Scale so that two percentiles become 0 and 1.

    Parameters
    ----------
    x : ndarray
    pmin, pmax : float
        Percentiles, 0-100. Note csbdeep's 3 here, where its PercentileNormalizer has 2.
    axis : int or tuple of int, optional
        Dimensions that percentiles are taken over; None takes all.
    clip : bool
        Cut off at 0 and 1.
    eps : float
        Added to the range.
    dtype : type, optional
        None computes in the image's own.

    Returns
    -------
    ndarray
        In `dtype`.
    """
    x = array_of(x, "x")
    if axis is None:
        low, high = (np.asarray(value) for value in percentile_range(x, pmin=pmin, pmax=pmax))
    else:
        low, high = (np.nanpercentile(x, p, axis=axis, keepdims=True) for p in (pmin, pmax))
        # A few bright pixels on nothing: see care_bridge.normalize.
        high = np.where(high > low, high, np.nanmax(x, axis=axis, keepdims=True))
    return normalize_mi_ma(x, low, high, clip=clip, eps=eps, dtype=dtype)


def normalize_mi_ma(
    x: NDArray[Any],
    mi: ArrayLike,
    ma: ArrayLike,
    clip: bool = False,
    eps: float = 1e-20,
    dtype: Any = np.float32,
) -> NDArray[Any]:
    """``(x - mi) / (ma - mi + eps)``, in `dtype` (None: in the image's own).

    Images that float32 cannot hold (uint32, int32, 64 bit) are subtracted in float64 first.

    Parameters
    ----------
    x : ndarray
    mi, ma : float or ndarray
        What becomes 0 and 1; arrays as they broadcast.
    clip : bool
        Cut off at 0 and 1.
    eps : float
        Added to the range.
    dtype : type, optional

    Returns
    -------
    ndarray
    """
    low, high = np.asarray(mi), np.asarray(ma)
    if dtype is None:
        scaled = (x - low) / (high - low + eps)
    elif x.dtype.itemsize > 2 and x.dtype != np.float32:
        scaled = ((x - low.astype(np.float64)) / (high.astype(np.float64) - low + eps)).astype(dtype)
    else:
        low, high = low.astype(dtype), high.astype(dtype)
        scaled = (x.astype(dtype, copy=False) - low) / (high - low + dtype(eps))
    return np.asarray(np.clip(scaled, 0, 1) if clip else scaled)


def load_json(fpath: str | os.PathLike[str]) -> Any:
    """Content of a JSON file.

    Parameters
    ----------
    fpath : path

    Returns
    -------
    object
    """
    return json.loads(Path(fpath).read_text(encoding="utf-8"))


def save_json(data: Mapping[str, Any], fpath: str | os.PathLike[str], **kwargs: Any) -> None:
    """Write a JSON file, whole or not at all.

    Parameters
    ----------
    data : mapping
    fpath : path
    **kwargs
        Of `json.dumps`.
    """
    from care_bridge.files import write_text

    write_text(fpath, json.dumps(data, **kwargs))


def download_and_extract_zip_file(
    url: str, targetdir: str | os.PathLike[str] = ".", verbose: bool | int = True
) -> None:
    """Fetch a zip (or take one from this machine) and unpack it, unless its files are there already.

    Parameters
    ----------
    url : str
        http(s) or file address, or a path.
    targetdir : path
    verbose : bool or int
        Accepted for csbdeep's sake; nothing is printed.

    Raises
    ------
    InputError
        If the file cannot be fetched, is no zip, or holds names that lead out of `targetdir`.
    """
    parts = urllib.parse.urlparse(url)
    target = Path(targetdir)
    try:
        if parts.scheme in ("", "file"):
            _extract(Path(urllib.request.url2pathname(parts.path)), target)
            return
        with scratch_folder() as folder:
            file = Path(folder) / "download.zip"
            urllib.request.urlretrieve(url, file)
            _extract(file, target)
    except OSError as error:
        raise InputError(f"{url!r} cannot be fetched and unpacked: {error}") from error


def _extract(file: Path, target: Path) -> None:
    if not all((target / name).exists() for name in zips.names(file)):
        zips.unpack(file, target)
