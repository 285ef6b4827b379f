"""Whether an image looks like what a network was trained on: what is stored of the training patches, and the likeness."""

from care_bridge.guard.tiles import spectrum, tiles_of
from care_bridge.guard.value import GUARD, Familiar, Group, Likeness, fit_group, read_familiar, write_familiar

__all__ = [
    "GUARD",
    "Familiar",
    "Group",
    "Likeness",
    "fit_group",
    "read_familiar",
    "spectrum",
    "tiles_of",
    "write_familiar",
]
