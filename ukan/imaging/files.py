"""Raster images (png, jpg, bmp, tif) through Pillow."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ukan.errors import DataError
from ukan.paths import written_whole

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})

# What Pillow's decoders raise on damaged files, by experience: it is not OSError alone.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's; hidden files (and the `._x.png` that macOS leaves) are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def read_image(path: Path) -> NDArray[np.uint8]:
    """An 8-bit image as RGB (H, W, 3), as a viewer shows it: turned by its EXIF tag, palette resolved, alpha left out.

    Raises DataError where the file is damaged, or holds more than 8 bits a channel.
    """
    image = _open(path)
    if image.mode in _DEEP:
        raise DataError(f"{path}: {image.mode} image with more than 8 bits a channel; convert it to 8 bits")
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The grey values of a mask (H, W); colours become their lightness and alpha is left out."""
    image = _open(path)
    if image.mode in _DEEP:
        values = np.asarray(image)
        whole = values.astype(np.uint8)
        if not np.array_equal(values, whole):
            raise DataError(
                f"{path}: mask with values from {values.min():g} to {values.max():g}; whole 0 to 255 are expected"
            )
        return whole
    if image.mode in ("P", "PA"):
        return np.asarray(image.convert("RGB").convert("L"))
    return np.asarray(image.convert("L"))


def write_mask(path: Path, mask_HW: NDArray[np.bool_]) -> None:
    """A mask that any viewer shows: 0 and 255, one byte a pixel."""
    _save(path, Image.fromarray(mask_HW.astype(np.uint8) * 255), "PNG", compress_level=1)


def write_probabilities(path: Path, probabilities_HW: NDArray[np.float32]) -> None:
    """Probabilities as a 16-bit grey PNG: value / 65535."""
    _save(path, Image.fromarray(np.round(probabilities_HW * 65535).astype(np.uint16)), "PNG", compress_level=1)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """An 8-bit image (H, W) or (H, W, 3) as PNG."""
    _save(path, Image.fromarray(image), "PNG")


def write_jpeg(path: Path, image_HWC: NDArray[np.uint8]) -> None:
    _save(path, Image.fromarray(image_HWC), "JPEG", quality=90)


def _open(path: Path) -> Image.Image:
    try:
        with path.open("rb") as file:  # from a path, Pillow 13 maps uncompressed TIFFs and loses their orientation
            image = Image.open(file)
            raw_modes = {str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in image.tile}
            image.load()
        if image.mode not in _DEEP and any("16" in mode for mode in raw_modes):
            raise DataError(f"{path}: {min(raw_modes)} image with more than 8 bits a channel; convert it to 8 bits")
        return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except _DAMAGED as error:
        size = path.stat().st_size if path.exists() else 0
        why = "an empty file" if size == 0 else f"{error}"
        raise DataError(f"{path}: not readable as an image ({why}); replace or remove it") from error


def _save(path: Path, image: Image.Image, kind: str, **options: int) -> None:
    with written_whole(path) as temporary:
        image.save(temporary, kind, **options)
