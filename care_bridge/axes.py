"""Axis letters: what the dimensions of an array mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError

AXES = "STCZYX"
"""The letters: series, time, channel and the three of space. Upper case, each at most once."""

SPACE = "ZYX"


def check_axes(axes: str, *, ndim: int | None = None, argument: str = "axes") -> str:
    """Axes as upper-case letters, or an error that says what is wrong with them.

    Parameters
    ----------
    axes : str
        One letter of STCZYX a dimension, slowest first, as NumPy orders them; lower case is accepted.
    ndim : int, optional
        Number of dimensions that the letters must match. None does not look.
    argument : str
        What the caller calls this argument, for the message.

    Raises
    ------
    InputError
        If a letter is unknown or repeated, or the count is not `ndim`.
    """
    if not isinstance(axes, str) or not axes:
        raise InputError(f"{argument} must be a string such as 'YX' or 'ZCYX'; received {axes!r}")
    upper = axes.upper()
    unknown = sorted(set(upper) - set(AXES))
    if unknown:
        raise InputError(f"{argument}={axes!r} holds {', '.join(unknown)}; use letters of {AXES}")
    repeated = sorted({letter for letter in upper if upper.count(letter) > 1})
    if repeated:
        raise InputError(
            f"{argument}={axes!r} holds {', '.join(repeated)} more than once; give each letter once"
        )
    if ndim is not None and len(upper) != ndim:
        raise InputError(f"{argument}={axes!r} names {len(upper)} dimensions, but the array has {ndim}")
    return upper


def axes_dict(axes: str) -> dict[str, int | None]:
    """Position of every letter of STCZYX in `axes`; None for a letter that is not there.

    Parameters
    ----------
    axes : str

    Returns
    -------
    dict of str to int or None
    """
    axes = check_axes(axes)
    return {letter: (axes.index(letter) if letter in axes else None) for letter in AXES}


def move_axes(data: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """Reorder dimensions; those that only `target` has are added with size 1, those it lacks must have size 1.

    Parameters
    ----------
    data : ndarray
        One dimension a letter of `source`.
    source, target : str
        Axes before and after, e.g. "YX" and "CYX".

    Returns
    -------
    ndarray
        A view where NumPy can give one.

    Raises
    ------
    InputError
        If a dimension that `target` lacks has a size other than 1.
    """
    source = check_axes(source, ndim=data.ndim, argument="source axes")
    target = check_axes(target, argument="target axes")
    for letter, size in zip(source, data.shape, strict=True):
        if letter not in target and size != 1:
            raise InputError(
                f"axes {target!r} have no {letter}, but the image (axes {source!r}, shape {data.shape}) "
                f"has {size} of it; take one {letter} position, or use axes with {letter}"
            )
    index = tuple(slice(None) if letter in target else 0 for letter in source)
    data, source = data[index], "".join(letter for letter in source if letter in target)
    missing = "".join(letter for letter in target if letter not in source)
    data, source = data[(np.newaxis,) * len(missing)], missing + source
    return data.transpose([source.index(letter) for letter in target])
