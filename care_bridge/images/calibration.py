"""Pixel sizes and frame intervals as OME-XML, ImageJ's description and the resolution tags give them."""

from __future__ import annotations

from typing import Any

from care_bridge.axes import SPACE
from care_bridge.images.units import SECONDS_PER_UNIT, UM_PER_UNIT, spelling

# Coarser "pixels a centimetre" are a printer's resolution (72 dpi is 353 um), not a microscope's.
_COARSEST_UM = 50.0


def calibration(file: Any) -> tuple[dict[str, float], str, float | None]:
    """Micrometres a pixel, the unit as spelt, seconds a frame."""
    if file.is_ome:
        return _ome_calibration(file.ome_metadata)
    if file.is_imagej:
        return _imagej_calibration(file)
    page = file.pages.first
    sizes = {}
    if _tag(page, "ResolutionUnit") == 3:
        sizes = {axis: size * 1e4 for axis, size in _resolution(page).items() if size * 1e4 <= _COARSEST_UM}
    return sizes, "micron" if sizes else "pixel", None


def _imagej_calibration(file: Any) -> tuple[dict[str, float], str, float | None]:
    meta = file.imagej_metadata
    interval = _positive(meta.get("finterval"))
    if interval is not None:
        interval *= SECONDS_PER_UNIT.get(str(meta.get("tunit", "")).lower(), 1.0)
    unit = spelling(meta.get("unit", ""))
    um = UM_PER_UNIT.get(unit.lower())
    if um is None:
        return {}, "pixel", interval
    sizes = _resolution(file.pages.first)
    spacing = _positive(meta.get("spacing"))
    if spacing is not None:
        sizes["Z"] = spacing
    # ImageJ adds yunit and zunit only where they differ from unit.
    factors = {
        "X": um,
        **{axis: UM_PER_UNIT.get(spelling(meta.get(f"{axis.lower()}unit", unit)).lower()) for axis in "YZ"},
    }
    return {axis: size * factor for axis, size in sizes.items() if (factor := factors[axis])}, unit, interval


def _ome_calibration(xml: str) -> tuple[dict[str, float], str, float | None]:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}, "pixel", None
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return {}, "pixel", None
    sizes, unit = {}, "pixel"
    for axis in SPACE:
        size = _positive(pixels.get(f"PhysicalSize{axis}"))
        spelt = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
        um = UM_PER_UNIT.get(spelt.lower())
        if size is not None and um is not None:
            sizes[axis], unit = size * um, spelt  # X comes last: its spelling wins
    interval = _positive(pixels.get("TimeIncrement"))
    if interval is not None:
        interval *= SECONDS_PER_UNIT.get(pixels.get("TimeIncrementUnit", "s").lower(), 1.0)
    return sizes, unit, interval


def _resolution(page: Any) -> dict[str, float]:
    """Size of a pixel from the resolution tags, in the unit that they are a number a."""
    sizes = {}
    for axis in "XY":
        value = _tag(page, f"{axis}Resolution")
        if value and value[0] > 0 and value[1] > 0:
            sizes[axis] = value[1] / value[0]
    return sizes


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _positive(value: Any) -> float | None:
    try:
        number = abs(float(value))  # ImageJ writes a negative spacing for stacks taken downwards
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None
