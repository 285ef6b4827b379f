"""A page, filled from top to bottom and written once."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from care_bridge.errors import InputError
from care_bridge.files import writable_folder, write_text
from care_bridge.page.cells import Row, cell, columns_of, csv_text, plain_text
from care_bridge.page.charts import svg
from care_bridge.page.pictures import Limits, Picture, scale_bar, shared_limits, view_of

NOT_FOR_QUANTIFICATION = (
    "Restored images are not for intensity-based quantification (for example counting fluorophores): a network "
    "predicts what its training images make likely, and its intervals say how sure it is of that, not what is true."
)
"""In every report and every package (Weigert et al. 2018)."""


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
        columns = columns_of(rows)
        cells = [[cell(row.get(column), digits) for column in columns] for row in rows]
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
        rows = [(str(key), plain_text(value)) for key, value in values.items()]
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
        self._pieces.append({"kind": "figure", "svg": svg(figure), "caption": caption, "download": download})

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
        limits, stated = shared_limits([left, right], limits)
        views = [
            view_of(Picture(data, label, lut=lut), limits)
            for data, label in zip((left, right), labels, strict=True)
        ]
        piece = {"kind": "slider", "views": views, "caption": caption, "stated": stated, "link": link}
        self._pieces.append(piece | scale_bar(left.shape[1], pixel_um))

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
        limits, stated = shared_limits(shared, limits) if shared else ((0.0, 1.0), "")
        views = [view_of(picture, picture.limits or limits) for picture in pictures]
        piece = {
            "kind": "pictures",
            "views": views,
            "caption": caption,
            "stated": stated,
            "link": link,
            "width": width,
        }
        self._pieces.append(piece | scale_bar(pictures[0].data.shape[1] if pictures else 1, pixel_um))

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
