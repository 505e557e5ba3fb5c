"""Masks drawn over images."""

import cv2
import numpy as np
from numpy.typing import NDArray

YELLOW = (255, 220, 0)


def draw_outline(
    image_HWC: NDArray[np.uint8],
    mask_HW: NDArray[np.bool_],
    colour: tuple[int, int, int] = YELLOW,
    *,
    line_px: int | None = None,
    tint: float = 0.25,
) -> NDArray[np.uint8]:
    """A copy of an RGB image with the mask tinted and outlined; the line is as wide as the image asks for by default."""
    drawn = image_HWC.copy()
    if tint:
        drawn[mask_HW] = ((1 - tint) * drawn[mask_HW] + tint * np.array(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, colour, line_px or max(1, round(max(mask_HW.shape) / 400)))
    return drawn
