"""Charts in the page's style, embedded as SVG."""

from __future__ import annotations

import io
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Line colours (Okabe and Ito 2008) without black and yellow, which vanish on a dark or a light page."""

# A colour that no chart uses: it becomes the page's text colour, light or dark.
_INK = "#010203"


def chart(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (6.4, 3.2)) -> tuple[Any, Any]:
    """Empty chart in the page's style.

    Parameters
    ----------
    rows, columns : int
        Number of axes.
    size : (float, float)
        Width and height in inches.

    Returns
    -------
    figure, axes
        As `matplotlib.pyplot.subplots` gives them, but without pyplot's global state.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    style = {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "lines.linewidth": 1.5,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns)
    return figure, axes


def svg(figure: Any) -> Any:
    """A chart as SVG whose black is the page's text colour."""
    import matplotlib
    from markupsafe import Markup
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_alpha(0)
    for artist in figure.findobj():
        if isinstance(artist, Text | Line2D) and _is_black(artist.get_color()):
            artist.set_color(_INK)
        if isinstance(artist, Line2D) and _is_black(artist.get_markeredgecolor()):
            artist.set_markeredgecolor(_INK)
        if isinstance(artist, Patch) and _is_black(artist.get_edgecolor()):
            artist.set_edgecolor(_INK)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "care_bridge"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Matplotlib has escaped the labels.
    return Markup(svg)


def _is_black(colour: Any) -> bool:
    from matplotlib.colors import to_rgba

    return tuple(to_rgba(colour)) == (0.0, 0.0, 0.0, 1.0)
