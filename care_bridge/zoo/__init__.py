"""The trained models that come with this package: what there is, building, checking, their cards, choosing one."""

from care_bridge.zoo.entry import Entry, find, models

__all__ = ["Entry", "find", "models"]
