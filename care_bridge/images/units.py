"""Units of length and time as image files spell them."""

from __future__ import annotations

from typing import Any

UM_PER_UNIT = {
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre", "um", "\u00b5m", "\u03bcm"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
}
SECONDS_PER_UNIT = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("\u00b5s", "us", "usec"), 1e-6),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}
OME_UNIT = {
    1.0: "\u00b5m",
    1e-3: "nm",
    1e-6: "pm",
    1e-4: "\u00c5",
    1e3: "mm",
    1e4: "cm",
    1e6: "m",
    25400.0: "in",
}


def um_per_unit(unit: str) -> float | None:
    """Micrometres in a unit of length as files spell it ("micron", "nm", "\u00b5m"...); None for what is none."""
    return UM_PER_UNIT.get(spelling(unit).lower())


def spelling(unit: Any) -> str:
    # ImageJ writes letters beyond ASCII as \u00B5.
    return str(unit).strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")
