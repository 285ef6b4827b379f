"""csbdeep.data: raw images, transforms, patches, normalisers and resizers."""

from care_bridge.csbdeep.data.generate import (
    create_patches,
    create_patches_reduced_target,
    no_background_patches,
    norm_percentiles,
    sample_patches_from_multiple_stacks,
    sample_percentiles,
    shuffle_inplace,
)
from care_bridge.csbdeep.data.prepare import (
    NoNormalizer,
    NoResizer,
    Normalizer,
    PadAndCropResizer,
    PercentileNormalizer,
    Resizer,
)
from care_bridge.csbdeep.data.rawdata import RawData
from care_bridge.csbdeep.data.transform import (
    Transform,
    anisotropic_distortions,
    broadcast_target,
    crop_images,
    permute_axes,
)

__all__ = [
    "NoNormalizer",
    "NoResizer",
    "Normalizer",
    "PadAndCropResizer",
    "PercentileNormalizer",
    "RawData",
    "Resizer",
    "Transform",
    "anisotropic_distortions",
    "broadcast_target",
    "create_patches",
    "create_patches_reduced_target",
    "crop_images",
    "no_background_patches",
    "norm_percentiles",
    "permute_axes",
    "sample_patches_from_multiple_stacks",
    "sample_percentiles",
    "shuffle_inplace",
]
