"""Files to arrays and back. Images are stacks of slices (D, H, W, C), masks (D, H, W); an ordinary picture is one slice."""

from ukan.imaging.draw import PALETTE
from ukan.imaging.files import (
    read_image,
    read_labels,
    read_mask,
    read_picture,
    write_image,
    write_jpeg,
    write_labels_png,
    write_mask,
    write_pages,
    write_probabilities,
)
from ukan.imaging.find import find_images
from ukan.imaging.names import IMAGE_SUFFIXES, image_suffix, is_image_name, is_volume, stem_of
from ukan.imaging.picture import Geometry, Picture, to_8bit
from ukan.imaging.volumes import write_volume, write_volume_probabilities

__all__ = [
    "IMAGE_SUFFIXES",
    "PALETTE",
    "Geometry",
    "Picture",
    "find_images",
    "image_suffix",
    "is_image_name",
    "is_volume",
    "read_image",
    "read_labels",
    "read_mask",
    "read_picture",
    "stem_of",
    "to_8bit",
    "write_image",
    "write_jpeg",
    "write_labels_png",
    "write_mask",
    "write_pages",
    "write_probabilities",
    "write_volume",
    "write_volume_probabilities",
]
