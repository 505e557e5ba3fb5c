"""Masks drawn over images, and the colours of classes."""

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

YELLOW = (255, 220, 0)


def _palette() -> tuple[tuple[int, int, int], ...]:
    """255 colours, none of them grey: six that the colour-blind tell apart (after Okabe and Ito), then hues a golden angle
    apart."""
    made = [YELLOW, (86, 180, 233), (213, 94, 0), (0, 158, 115), (204, 121, 167), (0, 114, 178)]
    for number in range(len(made), 255):
        hue = (0.145 + number * 0.6180339887) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6, 0.75)[number // 8 % 3], (1.0, 0.9, 0.6)[number // 24 % 3])
        made.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(made)


PALETTE = _palette()
"""The colours of the classes 1, 2, ..., RGB."""


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


def draw_classes(image_HWC: NDArray[np.uint8], masks_KHW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of an RGB image with each class tinted and outlined in its colour of `PALETTE`; later ones lie on top."""
    drawn = image_HWC
    for colour, mask_HW in zip(PALETTE, masks_KHW, strict=False):
        drawn = draw_outline(drawn, mask_HW, colour)
    return drawn
