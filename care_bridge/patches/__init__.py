"""Training patches: where they may be cut, which are, on what scale, and which of them validate."""

from care_bridge.patches.cutting import ImagePatches
from care_bridge.patches.foreground import Foreground
from care_bridge.patches.origin import PatchOrigin
from care_bridge.patches.pairs import ImagePair, pairs_from_arrays, pairs_from_folders, pairs_from_zarr
from care_bridge.patches.sampling import EmptyImageWarning, TargetScaleWarning, common_axes, sample_patches
from care_bridge.patches.scale import PatchPercentiles
from care_bridge.patches.split import split_patches
from care_bridge.patches.store import (
    LeakingSplitWarning,
    StoredPatches,
    load_patches,
    open_patches,
    save_patches,
)
from care_bridge.patches.target_scale import ChosenScale, choose_target_scale

__all__ = [
    "ChosenScale",
    "EmptyImageWarning",
    "Foreground",
    "ImagePair",
    "ImagePatches",
    "LeakingSplitWarning",
    "PatchOrigin",
    "PatchPercentiles",
    "StoredPatches",
    "TargetScaleWarning",
    "choose_target_scale",
    "common_axes",
    "load_patches",
    "open_patches",
    "pairs_from_arrays",
    "pairs_from_folders",
    "pairs_from_zarr",
    "sample_patches",
    "save_patches",
    "split_patches",
]
