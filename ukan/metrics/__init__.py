"""METRICS: arrays in, numbers out, by the rules of evidence. Each takes truth and prediction (H, W) of one image and class.

Empty against empty is a Dice and IoU of 1, empty against something 0. Precision is undefined (nan) where nothing is
predicted, recall where nothing is there, and distances where either is: nan is counted, never averaged in or dropped in
silence.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def dice(truth_HW: Mask, prediction_HW: Mask) -> float:
    both = int((truth_HW & prediction_HW).sum())
    sizes = int(truth_HW.sum()) + int(prediction_HW.sum())
    return 2 * both / sizes if sizes else 1.0


def iou(truth_HW: Mask, prediction_HW: Mask) -> float:
    both, either = int((truth_HW & prediction_HW).sum()), int((truth_HW | prediction_HW).sum())
    return both / either if either else 1.0


def precision(truth_HW: Mask, prediction_HW: Mask) -> float:
    predicted = int(prediction_HW.sum())
    return int((truth_HW & prediction_HW).sum()) / predicted if predicted else float("nan")


def recall(truth_HW: Mask, prediction_HW: Mask) -> float:
    present = int(truth_HW.sum())
    return int((truth_HW & prediction_HW).sum()) / present if present else float("nan")


def hd95_px(truth_HW: Mask, prediction_HW: Mask) -> float:
    """95th percentile of the distance between outlines, in pixels: the larger of the two directions (MONAI's definition).

    Outlines are the pixels of a mask with one of their four neighbours, or the image's edge, outside it.
    """
    if not truth_HW.any() or not prediction_HW.any():
        return float("nan")
    # Distances are only asked for inside the box around both masks: the rest of a large image costs nothing.
    box = ndimage.find_objects((truth_HW | prediction_HW).astype(np.uint8))[0]
    ours, theirs = _outline(truth_HW[box]), _outline(prediction_HW[box])
    there = ndimage.distance_transform_edt(~theirs)[ours]
    back = ndimage.distance_transform_edt(~ours)[theirs]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _outline(mask_HW: Mask) -> Mask:
    return mask_HW & ~ndimage.binary_erosion(mask_HW)


class Metric(NamedTuple):
    compute: Callable[[Mask, Mask], float]
    unit: str
    higher_is_better: bool


METRICS: dict[str, Metric] = {
    "dice": Metric(dice, "", True),
    "iou": Metric(iou, "", True),
    "precision": Metric(precision, "", True),
    "recall": Metric(recall, "", True),
    "hd95_px": Metric(hd95_px, "px", False),
}


def pooled_iou(truths: list[Mask], predictions: list[Mask], batch_size: int = 8) -> float:
    """IoU as U-KAN publishes it: over all pixels of a batch at once, then averaged over batches by their size."""
    total = 0.0
    for start in range(0, len(truths), batch_size):
        batch = slice(start, start + batch_size)
        both = sum(int((t & p).sum()) for t, p in zip(truths[batch], predictions[batch], strict=True))
        either = sum(int((t | p).sum()) for t, p in zip(truths[batch], predictions[batch], strict=True))
        total += (both + 1e-5) / (either + 1e-5) * len(truths[batch])  # smoothed as published
    return total / len(truths)


def dice_from_iou(value: float) -> float:
    """2 IoU / (1 + IoU): how the published code turns its pooled IoU into a Dice."""
    return 2 * value / (1 + value)
