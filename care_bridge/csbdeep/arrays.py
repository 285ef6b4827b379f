"""What people give where an image is wanted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from care_bridge.errors import InputError


def array_of(image: Any, argument: str) -> Any:
    """An image as an array; what has a shape stays what it is.

    Parameters
    ----------
    image : array or nested sequence of numbers
    argument : str
        What the caller calls it.

    Raises
    ------
    InputError
        For a path, saying how to read it.
    """
    if isinstance(image, str | os.PathLike):
        raise InputError(
            f"{argument} is a path, {str(image)!r}, where an array is needed; read it first: "
            f"{argument} = tifffile.imread({str(image)!r})"
        )
    return image if hasattr(image, "shape") else np.asarray(image)
