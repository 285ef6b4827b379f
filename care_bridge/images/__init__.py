"""Images: pixels, axis letters and pixel size, checked once; read from and written to TIFF."""

from care_bridge.images.image import Image, check_channel, only_channel
from care_bridge.images.layout import HeaderWarning
from care_bridge.images.listing import PATTERN, TIFF, LeftOutWarning, list_images
from care_bridge.images.read import ImageHeader, read_header, read_image, stored_shape
from care_bridge.images.storage import DTYPES, check_levels, kept_dtype
from care_bridge.images.units import um_per_unit
from care_bridge.images.write import IMAGEJ, OME, WriteReport, write_image

__all__ = [
    "DTYPES",
    "IMAGEJ",
    "OME",
    "PATTERN",
    "TIFF",
    "HeaderWarning",
    "Image",
    "ImageHeader",
    "LeftOutWarning",
    "WriteReport",
    "check_channel",
    "check_levels",
    "kept_dtype",
    "list_images",
    "only_channel",
    "read_header",
    "read_image",
    "stored_shape",
    "um_per_unit",
    "write_image",
]
