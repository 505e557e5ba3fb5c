"""The door: one reader for images of every kind, one for masks, and what results are written with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ukan.errors import DataError
from ukan.imaging.draw import PALETTE
from ukan.imaging.names import is_volume
from ukan.imaging.picture import Picture
from ukan.imaging.rasters import read_colours, read_greys
from ukan.imaging.volumes import read_volume
from ukan.paths import written_whole


def read_picture(path: Path) -> Picture:
    """An image of any kind as a stack of slices (D, H, W, C).

    Ordinary pictures have D = 1, the pages of a TIFF are slices. 8-bit files come as uint8 RGB as a viewer shows them:
    turned by their EXIF tag, palette resolved, alpha left out. Deeper ones come in their own type, grey (C = 1) or RGB;
    volumes as `ukan.imaging.volumes.read_volume` has them. Raises DataError where the file is damaged, cannot be read
    without loss, or holds values that are no numbers.
    """
    picture = read_volume(path) if is_volume(path) else Picture(read_colours(path), None)
    if picture.values.dtype.kind == "f":
        _refuse_nan(path, picture.values)
    return picture


def read_labels(path: Path) -> Picture:
    """A mask of any kind as whole numbers (D, H, W).

    Grey values stay, colours become their lightness, alpha is left out. Of a palette: the greys where all colours in use are
    grey; the indices where index 0 is black; else the lightness. Raises DataError as `read_picture` does, and where values
    are not whole.
    """
    if is_volume(path):
        values, geometry = read_volume(path)
    else:
        values, geometry = read_greys(path), None
    if values.shape[-1] != 1:
        raise DataError(f"{path}: a mask of {values.shape[-1]} channels; one of grey values or labels is expected")
    labels = values[..., 0]
    if labels.dtype.kind == "f":
        _refuse_nan(path, labels)
        if not np.array_equal(labels, np.rint(labels)) or np.abs(labels).max() >= 2**31:
            lowest, highest = labels.min(), labels.max()
            raise DataError(
                f"{path}: a mask of values from {lowest:g} to {highest:g} that are not whole; is it a probability?"
            )
        labels = labels.astype(np.int32)
    return Picture(labels, geometry)


def read_image(path: Path) -> NDArray[np.uint8]:
    """An 8-bit picture as RGB (H, W, 3); DataError for deeper ones, and for more than one slice."""
    values = read_picture(path).values
    if values.dtype != np.uint8:
        raise DataError(f"{path}: {values.dtype} image with more than 8 bits a channel; convert it to 8 bits")
    if len(values) > 1:
        raise DataError(f"{path}: {len(values)} slices; a single picture is expected")
    return values[0]


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask (H, W) of values from 0 to 255; DataError for others, and for more than one slice."""
    values = read_labels(path).values
    if len(values) > 1:
        raise DataError(f"{path}: {len(values)} slices; a single mask is expected")
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise DataError(f"{path}: mask with values from {values.min():g} to {values.max():g}; whole 0 to 255 are expected")
    return values[0].astype(np.uint8, copy=False)


def write_mask(path: Path, mask_HW: NDArray[np.bool_]) -> None:
    """A mask that any viewer shows: 0 and 255, one byte a pixel."""
    _save(path, Image.fromarray(mask_HW.astype(np.uint8) * 255), "PNG", compress_level=1)


def write_labels_png(path: Path, labels_HW: NDArray[np.uint8]) -> None:
    """Labels as a palette PNG: the index is the label, 0 is black and the others are as `draw.PALETTE` has them."""
    image = Image.fromarray(labels_HW.astype(np.uint8, copy=False), "P")
    image.putpalette([value for colour in ((0, 0, 0), *PALETTE) for value in colour])
    _save(path, image, "PNG", compress_level=1)


def write_probabilities(path: Path, probabilities: NDArray[np.floating]) -> None:
    """Probabilities as 16 bits, value / 65535: (H, W) as a grey PNG, a stack (D, H, W) as a multi-page TIFF."""
    values = np.round(probabilities * 65535).astype(np.uint16)
    if values.ndim == 3:
        write_pages(path, values)
    else:
        _save(path, Image.fromarray(values), "PNG", compress_level=1)


def write_pages(path: Path, values_DHW: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """A stack without geometry as the grey pages of a TIFF."""
    first, *others = [Image.fromarray(values) for values in values_DHW]
    with written_whole(path) as temporary:
        first.save(temporary, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """An 8-bit image (H, W) or (H, W, 3) as PNG."""
    _save(path, Image.fromarray(image), "PNG")


def write_jpeg(path: Path, image_HWC: NDArray[np.uint8]) -> None:
    _save(path, Image.fromarray(image_HWC), "JPEG", quality=90)


def _refuse_nan(path: Path, values: NDArray[np.floating]) -> None:
    # A value that is no number makes the smallest or the largest one none, and no array of flags is needed.
    if np.isfinite(values.min()) and np.isfinite(values.max()):
        return
    places = np.argwhere(~np.isfinite(values))
    first = ", ".join(map(str, places[0][:3]))
    count = f"{len(places)} of {values.size} values are no numbers"
    raise DataError(f"{path}: {count} (the first at slice, row, column {first}); replace them")


def _save(path: Path, image: Image.Image, kind: str, **options: int) -> None:
    with written_whole(path) as temporary:
        image.save(temporary, kind, **options)
