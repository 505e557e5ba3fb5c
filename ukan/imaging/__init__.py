"""Files to arrays and back. Arrays are (H, W, C), or (H, W) for masks, in the orientation a viewer shows."""

from ukan.imaging.files import (
    IMAGE_SUFFIXES,
    is_image_name,
    read_image,
    read_mask,
    write_image,
    write_jpeg,
    write_mask,
    write_probabilities,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "is_image_name",
    "read_image",
    "read_mask",
    "write_image",
    "write_jpeg",
    "write_mask",
    "write_probabilities",
]
