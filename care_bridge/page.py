"""Self-contained HTML pages: pictures, sliders, tables and charts that open without a network.

A page is filled from top to bottom and written once::

    page = Page("Mitochondria, restored", verdict="Plainly better than its input.", good=True)
    page.slider(source, restored, labels=("input", "restored"))
    page.section("How good")
    page.table([{"image": "cell_1", "PSNR (dB)": 31.2}])
    page.save("report.html")
"""

from __future__ import annotations

import base64
import csv
import io
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.files import writable_folder, write_text

LUTS = ("gray", "cividis", "viridis", "magma", "inferno", "PuOr")
"""Look-up tables that people with any colour vision can read; PuOr is for signed differences."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Line colours (Okabe and Ito 2008) without black and yellow, which vanish on a dark or a light page."""

MAX_PX = 768
"""Longest side at which a picture is embedded; larger ones are averaged down by a whole factor."""

NOT_FOR_QUANTIFICATION = (
    "Restored images are not for intensity-based quantification (for example counting fluorophores): a network "
    "predicts what its training images make likely, and its intervals say how sure it is of that, not what is true."
)
"""In every report and every package (Weigert et al. 2018)."""

Limits = tuple[float, float]
Row = Mapping[str, Any]

# A colour that no chart uses: it becomes the page's text colour, light or dark.
_INK = "#010203"
_NAN_INDEX = 255


@dataclass(frozen=True, eq=False)
class Picture:
    """One plane to be shown.

    Attributes
    ----------
    data : ndarray, shape (Y, X)
        Intensities; NaN is shown as a hatched hole.
    label : str
    limits : (float, float), optional
        Values shown at the two ends of the look-up table. None shares limits with the pictures beside it;
        given, the picture gets a colour bar of its own.
    lut : str
        One of `LUTS`.
    unit : str
        What the values are counted in, written at the colour bar.
    """

    data: NDArray[Any]
    label: str
    limits: Limits | None = None
    lut: str = "gray"
    unit: str = ""


@dataclass(frozen=True)
class Mark:
    """A table cell that is good or bad, shown by a sign as well as by colour."""

    text: str
    good: bool

    def __str__(self) -> str:
        return self.text


class Page:
    """Pieces of a page in the order in which they were added; `save` writes them.

    Parameters
    ----------
    title : str
    verdict : str
        The answer in one or two sentences, right under the title.
    good : bool, optional
        How the verdict is coloured; None is neither good nor bad.
    """

    def __init__(self, title: str, *, verdict: str = "", good: bool | None = None) -> None:
        self.title = title
        self.verdict = verdict
        self.good = good
        self._pieces: list[dict[str, Any]] = []
        self._downloads: dict[str, str] = {}

    def section(self, title: str, text: str = "") -> None:
        """Start a section; it also appears in the contents at the top."""
        self._pieces.append({"kind": "section", "title": title, "anchor": f"s{len(self._pieces)}"})
        if text:
            self.text(text)

    def text(self, text: str, *, important: bool = False) -> None:
        """Add plain paragraphs; an empty line parts them."""
        paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
        self._pieces.append({"kind": "text", "paragraphs": paragraphs, "important": important})

    def table(
        self,
        rows: Iterable[Row],
        *,
        caption: str = "",
        name: str = "",
        digits: int = 4,
        data: Iterable[Row] = (),
    ) -> None:
        """Add a table and its CSV.

        Parameters
        ----------
        rows : iterable of mappings
            Column to value, in order; columns that only some rows have are empty in the others. Numbers are
            rounded for reading (the CSV keeps them whole); a `Mark` is shown as good or bad.
        caption : str
        name : str
            File name of the CSV without ".csv"; made from the caption when empty.
        digits : int
            Significant digits shown.
        data : iterable of mappings
            Rows for the CSV, where the shown ones are put into words. Empty takes the shown ones.
        """
        rows = [dict(row) for row in rows]
        columns = _columns(rows)
        cells = [[_cell(row.get(column), digits) for column in columns] for row in rows]
        heads = [
            {"text": column, "css": "n" if any(row[place]["css"] == "n" for row in cells) else ""}
            for place, column in enumerate(columns)
        ]
        download = self._download(name or caption or "table", csv_text(list(data) or rows))
        self._pieces.append(
            {"kind": "table", "columns": heads, "rows": cells, "caption": caption, "download": download}
        )

    def settings(self, values: Mapping[str, Any], *, caption: str = "") -> None:
        """Add a two-column table of names and values (settings, versions, hashes)."""
        rows = [(str(key), _plain(value)) for key, value in values.items()]
        self._pieces.append({"kind": "settings", "rows": rows, "caption": caption})

    def figure(self, figure: Any, *, caption: str = "", data: Iterable[Row] = (), name: str = "") -> None:
        """Add a chart and the numbers in it.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
            `chart` makes one in the page's style. It is embedded as SVG; black turns into the page's text
            colour.
        caption : str
        data : iterable of mappings
            What was plotted, offered as CSV.
        name : str
            File name of the CSV without ".csv"; made from the caption when empty.
        """
        rows = [dict(row) for row in data]
        download = self._download(name or caption or "figure", csv_text(rows)) if rows else None
        self._pieces.append({"kind": "figure", "svg": _svg(figure), "caption": caption, "download": download})

    def slider(
        self,
        left: NDArray[Any],
        right: NDArray[Any],
        *,
        labels: tuple[str, str],
        limits: Limits | None = None,
        lut: str = "gray",
        pixel_um: float | None = None,
        caption: str = "",
        link: str = "all",
    ) -> None:
        """Add a before/after slider.

        Parameters
        ----------
        left, right : ndarray, shape (Y, X)
            Of the same shape.
        labels : (str, str)
        limits : (float, float), optional
            Shown as black and white on both sides. None takes percentiles 0.1 and 99.9 of both together.
        lut : str
            One of `LUTS`.
        pixel_um : float, optional
            Micrometres a pixel, for the scale bar. None draws no bar.
        caption : str
        link : str
            Pictures with the same word zoom together.
        """
        if left.shape != right.shape:
            raise InputError(
                f"both sides of a slider need one shape; received {left.shape} and {right.shape}"
            )
        limits, stated = _shared_limits([left, right], limits)
        views = [
            _view(Picture(data, label, lut=lut), limits)
            for data, label in zip((left, right), labels, strict=True)
        ]
        piece = {"kind": "slider", "views": views, "caption": caption, "stated": stated, "link": link}
        self._pieces.append(piece | _scale_bar(left.shape[1], pixel_um))

    def pictures(
        self,
        pictures: Sequence[Picture],
        *,
        limits: Limits | None = None,
        pixel_um: float | None = None,
        caption: str = "",
        link: str = "all",
        width: int = 260,
    ) -> None:
        """Add pictures side by side that zoom together.

        Parameters
        ----------
        pictures : sequence of Picture
            Those without limits of their own share one pair.
        limits : (float, float), optional
            The shared pair. None takes percentiles 0.1 and 99.9 of all pictures that share it.
        pixel_um : float, optional
            Micrometres a pixel, for the scale bar.
        caption : str
        link : str
            Pictures with the same word zoom together; they should show the same field.
        width : int
            Smallest width of a picture on the page in CSS pixels; a phone shows one or two beside each other.
        """
        shared = [picture.data for picture in pictures if picture.limits is None]
        limits, stated = _shared_limits(shared, limits) if shared else ((0.0, 1.0), "")
        views = [_view(picture, picture.limits or limits) for picture in pictures]
        piece = {
            "kind": "pictures",
            "views": views,
            "caption": caption,
            "stated": stated,
            "link": link,
            "width": width,
        }
        self._pieces.append(piece | _scale_bar(pictures[0].data.shape[1] if pictures else 1, pixel_um))

    def attach(self, name: str, text: str) -> None:
        """Offer a text file (e.g. the JSON of all numbers) for download from the page."""
        href = self._download(Path(name).stem, text, suffix=Path(name).suffix)
        self._pieces.append({"kind": "attachment", "download": href})

    def html(self) -> str:
        """The whole page as one HTML text."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("care_bridge", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        state = {True: "good", False: "bad", None: "neutral"}[self.good]
        return environment.get_template("page.html.j2").render(
            title=self.title, verdict=self.verdict, state=state, pieces=self._pieces
        )

    def save(
        self, path: str | os.PathLike[str], *, data_folder: str | os.PathLike[str] | None = None
    ) -> Path:
        """Write the page.

        Parameters
        ----------
        path : path
            The HTML file.
        data_folder : path, optional
            Folder that also gets every CSV as a file. None leaves them inside the page only.

        Returns
        -------
        Path
            The HTML file.
        """
        path = Path(path)
        write_text(path, self.html())
        if data_folder is not None:
            folder = writable_folder(data_folder)
            for name, text in self._downloads.items():
                write_text(folder / name, text)
        return path

    def _download(self, title: str, text: str, *, suffix: str = ".csv") -> dict[str, str]:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:48] or "data"
        name, count = f"{stem}{suffix}", 2
        while name in self._downloads:
            name, count = f"{stem}-{count}{suffix}", count + 1
        self._downloads[name] = text
        kind = "application/json" if suffix == ".json" else "text/csv"
        encoded = base64.b64encode(text.encode()).decode()
        return {"name": name, "href": f"data:{kind};charset=utf-8;base64,{encoded}"}


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


def png(data: NDArray[Any], *, limits: Limits, lut: str = "gray") -> bytes:
    """Encode a plane as a PNG with 256 grey values or colours.

    Parameters
    ----------
    data : ndarray, shape (Y, X)
        NaN becomes transparent.
    limits : (float, float)
        Values at the two ends of the look-up table.
    lut : str
        One of `LUTS`.
    """
    import PIL.Image

    if data.ndim != 2:
        raise InputError(f"a picture needs shape (Y, X); received {data.shape}")
    if lut not in LUTS:
        raise InputError(f"lut={lut!r} is not one of {', '.join(LUTS)}")
    low, high = limits
    data = np.asarray(data, np.float64)
    holes = np.isnan(data)
    # With holes, the last of the 256 levels is theirs.
    levels = _NAN_INDEX if holes.any() else 256
    scaled = (np.clip(np.nan_to_num(data), low, high) - low) / ((high - low) or 1.0)
    index = np.minimum(scaled * levels, levels - 1).astype(np.uint8)
    index[holes] = _NAN_INDEX
    picture = PIL.Image.fromarray(index)
    if lut != "gray":
        picture.putpalette(_palette(lut, levels))
    file = io.BytesIO()
    picture.save(file, "PNG", **({"transparency": _NAN_INDEX} if holes.any() else {}))
    return file.getvalue()


def shrink(data: NDArray[Any], max_px: int = MAX_PX) -> tuple[NDArray[Any], int]:
    """Average a plane down by the smallest whole factor that makes its longest side at most `max_px`.

    Returns
    -------
    data : ndarray, shape (Y, X)
        Unchanged where it is small enough; a rim that does not fill a block is cut off.
    factor : int
    """
    factor = -(-max(data.shape) // max_px)
    # A strip thinner than the factor would vanish; a little too long a picture is better than none.
    factor = max(1, min(factor, *data.shape))
    if factor == 1:
        return data, 1
    height, width = (size // factor * factor for size in data.shape)
    blocks = np.asarray(data[:height, :width], np.float64).reshape(
        height // factor, factor, width // factor, factor
    )
    return blocks.mean(axis=(1, 3)), factor


def display_limits(*data: NDArray[Any], pmin: float = 0.1, pmax: float = 99.9) -> Limits:
    """Contrast limits that several pictures share: percentiles of all their finite values together."""
    values = np.concatenate([np.asarray(part, np.float64)[np.isfinite(part)].ravel() for part in data])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (pmin, pmax)))
    return (low, high) if high > low else (low, low + 1.0)


def csv_text(rows: Iterable[Row]) -> str:
    """Rows as CSV with a header line; columns in order of first appearance, numbers unrounded."""
    rows = [dict(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def number(value: Any, digits: int = 4) -> str:
    """A number as people read it: significant digits, exponents only where zeros would be counted."""
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace(",", " ").replace("-", "−")
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 6:
        return f"{value:.{max(digits - 2, 1)}e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{value:.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def _cell(value: Any, digits: int) -> dict[str, Any]:
    if isinstance(value, Mark):
        return {"text": ("✓ " if value.good else "✗ ") + value.text, "css": "good" if value.good else "bad"}
    if isinstance(value, bool | np.bool_):
        return {"text": "yes" if value else "no", "css": ""}
    if isinstance(value, numbers.Real):
        return {
            "text": number(value, digits),
            "css": "n",
        }
    return {"text": "" if value is None else str(value), "css": ""}


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(value) if isinstance(value, float) else str(value)


def _csv_value(value: Any) -> Any:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else value


def _shared_limits(data: Sequence[NDArray[Any]], limits: Limits | None) -> tuple[Limits, str]:
    if limits is not None:
        return limits, f"Shown from {_short(limits[0])} to {_short(limits[1])}"
    limits = display_limits(*data)
    rule = "percentiles 0.1 and 99.9 of all together" if len(data) > 1 else "percentiles 0.1 and 99.9"
    return limits, f"Shown from {_short(limits[0])} to {_short(limits[1])} ({rule})"


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _view(picture: Picture, limits: Limits) -> dict[str, Any]:
    if picture.data.ndim != 2:
        raise InputError(f"picture {picture.label!r} needs shape (Y, X); received {picture.data.shape}")
    data, factor = shrink(picture.data)
    return {
        "label": picture.label,
        "src": _data_uri(png(data, limits=limits, lut=picture.lut)),
        "height": data.shape[0],
        "width": data.shape[1],
        "factor": factor,
        "own_limits": picture.limits is not None,
        "low": _short(limits[0]),
        "high": _short(limits[1]),
        "unit": picture.unit,
        "bar": _data_uri(png(np.linspace(0, 1, 256)[None], limits=(0, 1), lut=picture.lut)),
    }


def _scale_bar(width_px: int, pixel_um: float | None) -> dict[str, Any]:
    if not pixel_um or not math.isfinite(pixel_um) or pixel_um <= 0:
        return {"bar_um": "", "bar_percent": 0.0}
    aim = width_px * pixel_um / 5
    base = 10.0 ** math.floor(math.log10(aim))
    length = max(step * base for step in (1, 2, 5) if step * base <= aim)
    return {"bar_um": f"{length:g} µm", "bar_percent": 100 * length / (width_px * pixel_um)}


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _palette(lut: str, levels: int) -> bytes:
    import matplotlib

    colours = (matplotlib.colormaps[lut](np.linspace(0, 1, levels))[:, :3] * 255).round().astype(np.uint8)
    return colours.tobytes() + b"\x00\x00\x00" * (256 - levels)


def _svg(figure: Any) -> Any:
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
