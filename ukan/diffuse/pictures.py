"""Drawn images side by side."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukan.imaging import write_image

_GAP = 2


def write_grid(path: Path, images_NHWC: NDArray[np.uint8], targets_NHWM: NDArray[np.uint8] | None = None) -> None:
    """Images in rows, about as many rows as columns; each behind the mask it was drawn for, where there is one."""
    shown = [_shown(image) for image in images_NHWC]
    if targets_NHWM is not None:
        masks = [_shown(_grey(target)) for target in targets_NHWM]
        shown = [np.concatenate(pair, axis=1) for pair in zip(masks, shown, strict=True)]
    height, width = shown[0].shape[:2]
    columns = max(1, round((len(shown) * height / width) ** 0.5))
    rows = -(-len(shown) // columns)
    grid = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for number, image in enumerate(shown):
        top, left = (
            _GAP + place * (side + _GAP) for place, side in zip(divmod(number, columns), (height, width), strict=True)
        )
        grid[top : top + height, left : left + width] = image
    write_image(path, grid)


def _shown(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels: colours as they are, otherwise the first channel in grey."""
    return image_HWC if image_HWC.shape[2] == 3 else np.repeat(image_HWC[..., :1], 3, axis=2)


def _grey(target_HWM: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Masks of classes as one picture, each class in a grey of its own."""
    numbers = (
        target_HWM
        if target_HWM.shape[2] == 1
        else (target_HWM * np.arange(1, target_HWM.shape[2] + 1)).max(2, keepdims=True)
    )
    return (numbers.astype(np.float32) * 255 / max(1, int(numbers.max()))).astype(np.uint8)
