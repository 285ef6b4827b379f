"""Self-contained HTML pages: pictures, sliders, tables and charts that open without a network.

A page is filled from top to bottom and written once::

    page = Page("Mitochondria, restored", verdict="Plainly better than its input.", good=True)
    page.slider(source, restored, labels=("input", "restored"))
    page.section("How good")
    page.table([{"image": "cell_1", "PSNR (dB)": 31.2}])
    page.save("report.html")
"""

from care_bridge.page.cells import Mark, csv_text, number
from care_bridge.page.charts import COLOURS, chart
from care_bridge.page.pages import NOT_FOR_QUANTIFICATION, Page
from care_bridge.page.pictures import LUTS, MAX_PX, Picture, display_limits, png, shrink

__all__ = [
    "COLOURS",
    "LUTS",
    "MAX_PX",
    "NOT_FOR_QUANTIFICATION",
    "Mark",
    "Page",
    "Picture",
    "chart",
    "csv_text",
    "display_limits",
    "number",
    "png",
    "shrink",
]
