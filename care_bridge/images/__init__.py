"""Images: pixels, axis letters and pixel size, checked once; read from and written to TIFF and OME-Zarr."""

from care_bridge.images.image import Channel, Image, check_channel, only_channel
from care_bridge.images.layout import HeaderWarning
from care_bridge.images.listing import PATTERN, TIFF, LeftOutWarning, list_images
from care_bridge.images.ome_zarr import ZARR, is_zarr
from care_bridge.images.read import ImageHeader, open_volume, read_header, read_image, stored_shape
from care_bridge.images.storage import DTYPES, check_levels, kept_dtype
from care_bridge.images.units import um_per_unit
from care_bridge.images.volume import Volume
from care_bridge.images.write import IMAGEJ, OME, WriteReport, write_image

__all__ = [
    "DTYPES",
    "IMAGEJ",
    "OME",
    "PATTERN",
    "TIFF",
    "ZARR",
    "Channel",
    "HeaderWarning",
    "Image",
    "ImageHeader",
    "LeftOutWarning",
    "Volume",
    "WriteReport",
    "check_channel",
    "check_levels",
    "is_zarr",
    "kept_dtype",
    "list_images",
    "only_channel",
    "open_volume",
    "read_header",
    "read_image",
    "stored_shape",
    "um_per_unit",
    "write_image",
]
