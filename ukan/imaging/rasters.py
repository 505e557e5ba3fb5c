"""Raster files (png, jpg, bmp, tif, gif) to arrays: Pillow decodes what has 8 bits a channel, OpenCV what has more."""

import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ukan.errors import DataError
from ukan.imaging.quiet import SILENCE

# What Pillow's decoders raise on damaged files, by experience: it is not OSError alone.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262  # tags of a TIFF
_SAMPLES, _PLANES, _EXTRA_SAMPLES, _FORMAT = 277, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # photometric
_UNSIGNED = 1  # format

warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters comes as an error


def read_colours(path: Path) -> NDArray[Any]:
    """The pages of an image, (D, H, W, C): uint8 RGB where a channel has at most 8 bits, else grey or RGB in its own type.

    As a viewer shows it: turned by its EXIF tag, palette resolved, alpha left out. Raises DataError where the file is
    damaged, or of a kind that cannot be read without loss.
    """
    return _read(path, _rgb)


def read_greys(path: Path) -> NDArray[Any]:
    """The pages of a mask, (D, H, W, C), 8-bit ones as `ukan.imaging.read_labels` wants them. Raises as `read_colours`."""
    return _read(path, _greys)


def _read(path: Path, from_8bit: Callable[[Image.Image], NDArray[np.uint8]]) -> NDArray[Any]:
    try:
        content = path.read_bytes()
        decode = _tiff_pages if content.startswith(_TIFF) else _one_page
        pages = [from_8bit(page) if isinstance(page, Image.Image) else page for page in decode(content)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        why = "its content is of no known image type" if content else "an empty file"
        raise DataError(f"{path}: not readable as an image ({why}); replace or remove it") from None
    except _DAMAGED as error:
        raise DataError(f"{path}: not readable as an image ({error}); replace or remove it") from error
    kinds = {f"{page.shape[1]}x{page.shape[0]} of {page.shape[2]} {page.dtype}" for page in pages}
    if len(kinds) > 1:
        raise DataError(f"{path}: pages of different kinds ({', '.join(sorted(kinds))}); save each as a file of its own")
    return np.stack(pages) if len(pages) > 1 else pages[0][None]


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    if image.mode in ("RGBa", "La"):  # premultiplied
        image = image.convert(image.mode.upper())
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _greys(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 1)."""
    if image.mode in ("P", "PA"):
        labels = np.asarray(image) if image.mode == "P" else np.asarray(image)[..., 0]
        colours = np.zeros((256, 3), np.uint8)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colours[: len(palette)] = palette
        used = colours[np.bincount(labels.ravel(), minlength=256) > 0]
        if (used == used[:, :1]).all():
            return colours[labels][..., :1]
        if not colours[0].any():
            return labels[..., None]
        image = image.convert("RGB")
    elif image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    return np.asarray(image if image.mode == "L" else image.convert("L"))[..., None]


def _one_page(content: bytes) -> list[Image.Image | NDArray[Any]]:
    """The picture of a file that is no TIFF: Pillow's, or an array (H, W, C) where a channel has more than 8 bits."""
    image = Image.open(BytesIO(content))
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":  # a telephone's JPEG with previews
        raise DataError(f"an animation of {frames} frames; save the one to use as PNG, or all as a multi-page TIFF")
    raw_modes = [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in image.tile]
    cut = next((raw for raw in raw_modes if raw.endswith(";16B") and image.mode not in _DEEP), "")
    image.load()
    if cut:  # Pillow keeps 8 of these 16 bits
        with SILENCE:
            (values,) = _by_opencv(content)
        return [values[..., :1] if cut.startswith("LA") else values]
    ImageOps.exif_transpose(image, in_place=True)
    return [np.asarray(image)[..., None] if image.mode in _DEEP else image]


def _tiff_pages(content: bytes) -> list[Image.Image | NDArray[Any]]:
    """The pages of a TIFF, thumbnails left out, as those of `_one_page`."""
    directories = list(_directories(content).values())
    wanted = [n for n, tags in enumerate(directories) if not (n and tags.get(_SUBFILE, 0) & 1)]
    tags = directories[0]
    photometric, samples = tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1)
    if photometric == _BLACK_IS_ZERO and samples == 3 and content.startswith((b"II*", b"MM\0*")):
        return _tiff_pages(_called_rgb(content))
    bits = max(max(directories[n].get(_BITS, (1,))) for n in wanted)
    unusual = f"a TIFF of an unusual kind (photometric {photometric}, {samples} samples of {bits} bits); save it as PNG"
    with SILENCE:
        if bits <= 8:
            try:
                image = Image.open(BytesIO(content))
            except UnidentifiedImageError:
                raise DataError(unusual) from None
            pages_8bit: list[Image.Image | NDArray[Any]] = []
            for n in wanted:
                image.seek(n)
                image.load()  # turns it as well
                pages_8bit.append(image.copy() if len(wanted) > 1 else image)
            return pages_8bit
        # Of others OpenCV makes something else without a word.
        grey = photometric == _BLACK_IS_ZERO and samples == 1
        negative = photometric == _WHITE_IS_ZERO and samples == 1 and tags.get(_FORMAT, (1,)) == (_UNSIGNED,)
        colour = photometric == _RGB and samples in (3, 4) and tags.get(_PLANES, 1) == 1
        if bits not in (16, 32, 64) or not (grey or negative or colour):
            raise DataError(unusual)
        if max(tags[_WIDTH] * tags[_LENGTH] for tags in directories) > 2 * (Image.MAX_IMAGE_PIXELS or 2**31):
            raise Image.DecompressionBombError("absurdly large")
        pages = _by_opencv(content)
    if len(pages) < len(directories):
        raise OSError(f"{len(pages)} of {len(directories)} pages are whole")
    return [np.iinfo(pages[n].dtype).max - pages[n] if negative else pages[n] for n in wanted]


def _directories(content: bytes) -> dict[int, ImageFileDirectory_v2]:
    """Where each page of a TIFF has its tags, and the tags."""
    file, header = BytesIO(content), content[: 16 if b"+" in content[:4] else 8]
    found: dict[int, ImageFileDirectory_v2] = {}
    at = ImageFileDirectory_v2(header).next
    while at and at not in found:  # a damaged file may go round in circles
        file.seek(at)
        found[at] = ImageFileDirectory_v2(header)
        found[at].load(file)
        at = found[at].next
    if not found or not all(_WIDTH in tags and _LENGTH in tags for tags in found.values()):
        raise UnidentifiedImageError
    return found


def _called_rgb(content: bytes) -> bytes:
    """A TIFF of three samples that are declared to be a grey and two unknowns (CVC-ClinicDB as published), declared RGB."""
    order = "<" if content.startswith(b"II") else ">"
    made = bytearray(content)
    for at in _directories(content):
        (count,) = struct.unpack_from(order + "H", content, at)
        end = at + 2 + 12 * count
        entries = {content[start : start + 2]: content[start : start + 12] for start in range(at + 2, end, 12)}
        entries[struct.pack(order + "H", _PHOTOMETRIC)] = struct.pack(order + "HHIHH", _PHOTOMETRIC, 3, 1, _RGB, 0)
        entries.pop(struct.pack(order + "H", _EXTRA_SAMPLES), None)
        table = struct.pack(order + "H", len(entries)) + b"".join(entries.values()) + content[end : end + 4]
        made[at : at + len(table)] = table
    return bytes(made)


def _by_opencv(content: bytes) -> list[NDArray[Any]]:
    """All pages, (H, W, C) grey or RGB, in their own type."""
    import cv2

    buffer = np.frombuffer(content, np.uint8)
    try:
        if content.startswith(_TIFF):  # turned by its own tag; alpha stays
            _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
        else:  # the flag for turning by EXIF also leaves alpha out
            pages = [cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)]
    except cv2.error as error:
        raise OSError(" ".join(str(error).split())) from error
    if any(page is None for page in pages) or not pages:
        raise OSError("it cannot be decoded")
    return [page[..., None] if page.ndim == 2 else page[..., 2::-1] for page in pages]
