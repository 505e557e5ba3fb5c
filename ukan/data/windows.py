"""Windows of an image, cut before it is resized: all of it, its middle, or places drawn at random.

For diffusion, whose published recipes train on the middle 400x400 of BUSI, the middle 288x288 of CVC-ClinicDB and five
windows of 64x64 of each image of GlaS.
"""

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukan.errors import UserError

Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the image; a negative top or left lies beyond its border."""
Crop = Literal["none", "square"] | tuple[int, int]
"""All of an image, its largest square, or a height and a width."""


def windows(size: tuple[int, int], crop: Crop, random_windows: int, name: str) -> list[Window]:
    """The windows of an image of this (height, width): one in its middle, or `random_windows` of them at random places.

    The middle is torchvision's CenterCrop to the pixel, also where a window reaches beyond the image. Random places depend
    on the image's name alone, and more windows begin with the places of fewer; they lie within the image, and in its middle
    along a side that is shorter than the window's. Raises UserError where random windows have no size.
    """
    if random_windows and crop == "none":
        raise UserError(
            f"data.random_windows={random_windows}: data.crop says no size; give it as square or [height, width]"
        )
    inner = size if crop == "none" else (min(size),) * 2 if crop == "square" else crop
    sides = list(zip(size, inner, strict=True))
    if not random_windows:
        top, left = (_middle(*side) for side in sides)
        return [(top, left, *inner)]
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest())
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    places = [
        [int(draw.integers(side - window + 1)) if side > window else _middle(side, window) for side, window in sides]
        for _ in range(random_windows)
    ]
    return [(top, left, *inner) for top, left in places]


def cut(array_HWC: NDArray[Any], window: Window) -> NDArray[Any]:
    """What a window shows of an array whose first two axes are height and width; 0 beyond its border."""
    top, left, height, width = window
    inside = array_HWC[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if inside.shape[:2] == (height, width):
        return inside
    shown = np.zeros((height, width, *array_HWC.shape[2:]), array_HWC.dtype)
    above, before = max(0, -top), max(0, -left)
    shown[above : above + inside.shape[0], before : before + inside.shape[1]] = inside
    return shown


def _middle(side: int, window: int) -> int:
    """Where a window begins in the middle of a side; a pixel that cannot be halved goes as it does in torchvision."""
    return round((side - window) / 2) if side >= window else -((window - side) // 2)
