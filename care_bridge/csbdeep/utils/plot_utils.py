"""Quick looks at images and training histories with matplotlib, as csbdeep's notebooks have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from care_bridge.normalize import CSBDEEP, normalize

__all__ = ["plot_history", "plot_some", "to_color"]

COLORS = ((0, 1, 0), (1, 0, 1), (0, 1, 1))
"""Green, magenta, cyan: colours of the first three channels."""


def plot_history(history: Any, *keys: str | Sequence[str], **kwargs: Any) -> None:
    """Draw a training's curves against its epochs.

    Parameters
    ----------
    history
        What `train` returned: `epoch`, a list, and `history`, a dict of lists.
    keys : str or sequence of str
        Curves; each sequence gets a panel of its own.
    logy : bool
        Logarithmic y axis.
    kwargs
        Of matplotlib's `plot`.
    """
    import matplotlib.pyplot as plt

    logy = kwargs.pop("logy", False)
    groups = [keys] if all(isinstance(key, str) for key in keys) else list(keys)
    plt.gcf()
    for position, group in enumerate(groups):
        panel = plt.subplot(1, len(groups), position + 1)
        for key in [group] if isinstance(group, str) else group:
            panel.plot(history.epoch, history.history[key], ".-", label=key, **kwargs)
        if logy:
            panel.set_yscale("log", nonpositive="clip")
        panel.set_xlabel("epoch")
        panel.legend(loc="best")
    plt.show()


def plot_some(*arr: Any, **kwargs: Any) -> None:
    """Draw lists of images as rows of a table; stacks as maximum projections, 2 or 3 channels in colour.

    Parameters
    ----------
    arr : sequence of images
        Each a list of 2-D or 3-D images; one row.
    title_list : sequence of sequence of str, optional
    pmin, pmax : float
        Percentiles that become black and white; 0 and 100 leave that to matplotlib.
    cmap : str
    kwargs
        Of matplotlib's `imshow`.
    """
    import matplotlib.pyplot as plt

    titles = kwargs.pop("title_list", None)
    pmin, pmax = kwargs.pop("pmin", 0), kwargs.pop("pmax", 100)
    kwargs.setdefault("cmap", "magma")
    rows = [_flat(np.asarray(images)) for images in arr]
    plt.gcf()
    for i, row in enumerate(rows):
        for j, image in enumerate(row[: len(rows[0])]):
            panel = plt.subplot(len(rows), len(rows[0]), i * len(rows[0]) + j + 1)
            if titles is not None and i < len(titles) and j < len(titles[i]):
                panel.set_title(titles[i][j], fontsize=8)
            scaled = image
            if (pmin, pmax) != (0, 100):
                scaled, _ = normalize(image, rule=CSBDEEP, pmin=pmin, pmax=pmax, clip=True)
            panel.imshow(np.squeeze(scaled), **kwargs)
            panel.axis("off")


def to_color(
    arr: NDArray[Any],
    pmin: float = 1,
    pmax: float = 99.8,
    gamma: float = 1.0,
    colors: Sequence[ArrayLike] = COLORS,
) -> NDArray[np.float64]:
    """Channels as one RGB image.

    Parameters
    ----------
    arr : ndarray
        2-D, or 3-D with the channels along its shortest dimension (at most three are shown).
    pmin, pmax : float
        Percentiles that become black and full colour; negative: 0 and 1 themselves.
    gamma : float
        Exponent of the result.
    colors : sequence of RGB triples, 0-1

    Returns
    -------
    ndarray
        Shape (Y, X, 3).
    """
    if arr.ndim not in (2, 3):
        raise ValueError(f"an image has 2 or 3 dimensions; received shape {arr.shape}")
    channels = arr[np.newaxis] if arr.ndim == 2 else np.moveaxis(arr, int(np.argmin(arr.shape)), 0)
    channels = channels.astype(np.float32)
    low = np.percentile(channels, pmin, axis=(1, 2), keepdims=True) if pmin >= 0 else 0.0
    high = np.percentile(channels, pmax, axis=(1, 2), keepdims=True) if pmax >= 0 else 1.0
    scaled = (channels - low) / (high - low + 1e-20)
    image = sum(one[..., np.newaxis] * np.asarray(color) for one, color in zip(scaled, colors, strict=False))
    result: NDArray[np.float64] = np.clip(image, 0, 1) ** gamma
    return result


def _flat(images: NDArray[Any]) -> NDArray[Any]:
    if 1 < images.shape[-1] <= 3:
        images = np.stack([to_color(image) for image in images])
    wanted = 3 if 1 <= images.shape[-1] <= 3 else 2
    return np.asarray(images.max(axis=tuple(range(1, 1 + max(0, images[0].ndim - wanted)))))
