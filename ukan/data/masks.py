"""From the grey values of mask files to foreground: one rule for a dataset, chosen from what its masks hold."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError
from ukan.imaging import read_mask

MaskRule = Literal["nonzero", "half"]
_ASPECT_TOLERANCE = 0.02


def foreground(values_HW: NDArray[np.uint8], rule: MaskRule) -> NDArray[np.bool_]:
    return values_HW > 0 if rule == "nonzero" else values_HW >= 128


def fit_mask(mask_HW: NDArray[np.bool_], height: int, width: int, where: str) -> NDArray[np.bool_]:
    """A mask at the size of its image. A mask of another size but the same shape is resized by nearest value."""
    if mask_HW.shape == (height, width):
        return mask_HW
    mask_height, mask_width = mask_HW.shape
    if abs(mask_width * height / (mask_height * width) - 1) > _ASPECT_TOLERANCE:
        raise DataError(
            f"{where}: mask of {mask_width}x{mask_height} for an image of {width}x{height}: "
            "they differ in shape, not in scale alone"
        )
    resized = cv2.resize(mask_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(bool)


def united_mask(root: Path, masks: Sequence[str], height: int, width: int, rule: MaskRule) -> NDArray[np.bool_]:
    """Foreground (height, width) of a case: everything inside any of its masks; nothing where it has none."""
    united = np.zeros((height, width), bool)
    for name in masks:
        united |= fit_mask(foreground(read_mask(root / name), rule), height, width, name)
    return united


def choose_rule(values_of_masks: Sequence[tuple[int, ...]]) -> tuple[MaskRule, str]:
    """The rule for masks with these sets of grey values, and why.

    Two-valued masks (0/1, 0/255, or a mixture of both) count everything above 0. Masks with greys up to white (smeared by
    JPEG or resizing) are cut at half. Many small values are instance ids or classes: everything above 0.
    """
    counts = Counter(value for values in values_of_masks for value in values)
    if all(len([v for v in values if v > 0]) <= 1 for values in values_of_masks):
        return "nonzero", f"masks hold two values each ({_some(counts)})"
    if max(counts) >= 128:
        return "half", f"masks hold greys between black and white ({_some(counts)}): cut at 128"
    return "nonzero", f"masks hold small numbers ({_some(counts)}): instances or classes, all taken as foreground"


def _some(counts: Counter[int]) -> str:
    values = sorted(counts)
    return ", ".join(map(str, values)) if len(values) <= 6 else f"{values[0]}, {values[1]}, ... {values[-1]}"
