"""Object by object, as the GlaS challenge scores glands: F1 of detection, object Dice, object Hausdorff distance.

Sirinukunwattana et al. 2017 (Medical Image Analysis 35, arXiv:1603.00275), on evaluation; where the text leaves something
open, the MATLAB code published by the challenge decides. Inputs are instance maps: integers (H, W), 0 the background, one
number an object, not necessarily one piece.

- An object's partner is the one on the other side that shares most pixels with it; of equals the one of the smallest number.
- A predicted object is a true positive where it covers more than half of its partner's pixels (the paper writes "at least",
  its code tests "more than", which lets no two objects claim one gland), else a false positive. False negatives are the true
  objects that nothing claims.
- The Dice of an object without a partner is 0. Its Hausdorff distance is that to the nearest object of the other side, by
  that same distance. Distances are between whole objects, not between outlines, in pixels.
- Objects weigh by their area, each side adds up to a half. The challenge's sums run over all objects of all images of a
  test part; the same formulas over one image's objects give a score per image. Both come from `object_sums`, which add.
- Empty: without objects on either side F1 and Dice are 1 and the distance undefined (nan); with objects on one side only,
  F1 and Dice are 0, and the image's own distance undefined. Among many images' sums such objects cost the diagonal.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.integer]
Sums = NDArray[np.float64]

SUMS = (
    "true_positives",
    "false_positives",
    "false_negatives",
    "area_true",
    "area_predicted",
    "dice_true",
    "dice_predicted",
    "hausdorff_true",
    "hausdorff_predicted",
)
"""The columns of `object_sums`: counts, areas in pixels, and for each side the sum over objects of area times score."""


def instances(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Objects of a mask as an instance map: pieces that touch at a side, edge or corner are one (8 or 26 neighbours).

    Tiny pieces stay: removing them is a step of a method, and published ones differ in it.
    """
    return ndimage.label(mask, np.ones((3,) * mask.ndim), output=np.int32)[0]


def shared_pixels(truth: Labels, prediction: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels shared by each true and each predicted object (T, P), and areas (T,) and (P,), by their numbers."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} must be of one shape")
    anything = (truth != 0) | (prediction != 0)
    t_names, t = np.unique(np.append(truth[anything], 0), return_inverse=True)
    p_names, p = np.unique(np.append(prediction[anything], 0), return_inverse=True)
    if t_names[0] < 0 or p_names[0] < 0:
        raise ValueError("an instance map holds 0 and positive numbers only")
    table = np.bincount(t * len(p_names) + p, minlength=len(t_names) * len(p_names)).reshape(len(t_names), len(p_names))
    return table[1:, 1:], table[1:].sum(axis=1), table[:, 1:].sum(axis=0)


def object_sums(truth: Labels, prediction: Labels) -> Sums:
    """What one image adds to the challenge's scores: nine numbers named by SUMS. Add them over images as one likes."""
    shared, true_areas, areas = shared_pixels(truth, prediction)
    # Of a predicted object only its partner can be claimed, even where it covers most of a smaller object as well.
    claims = 2 * shared.max(axis=0) > true_areas[shared.argmax(axis=0)] if shared.size else np.zeros(0, bool)
    found = int(claims.sum())
    counts = [found, len(areas) - found, len(true_areas) - found]
    dices = 2 * shared / (true_areas[:, None] + areas)
    distances = _hausdorff(truth, prediction)
    diagonal = float(np.hypot(*truth.shape))
    true_scores = _sums_by_area(shared, dices, distances, true_areas, diagonal)
    scores = _sums_by_area(shared.T, dices.T, distances.T, areas, diagonal)
    by_side = [part for both in zip(true_scores, scores, strict=True) for part in both]
    return np.array([*counts, true_areas.sum(), areas.sum(), *by_side], np.float64)


def _sums_by_area(
    shared: NDArray[np.int64],
    dices: NDArray[np.float64],
    distances: NDArray[np.float64],
    areas: NDArray[np.int64],
    diagonal: float,
) -> tuple[float, float]:
    """Area times Dice and area times distance, summed over one side's objects, which are the rows."""
    if not shared.size:
        return 0.0, float(areas.sum() * diagonal)
    rows = np.arange(len(areas))
    partner = shared.argmax(axis=1)
    has_partner = shared[rows, partner] > 0
    dice = np.where(has_partner, dices[rows, partner], 0)
    distance = np.where(has_partner, distances[rows, partner], distances.min(axis=1))
    return float(areas @ dice), float(areas @ distance)


def _hausdorff(truth: Labels, prediction: Labels) -> NDArray[np.float64]:
    """Hausdorff distances (T, P) between all objects of two instance maps."""
    there, back = _directed(truth, prediction), _directed(prediction, truth)
    return np.maximum(there, back.T)


def _directed(here: Labels, there: Labels) -> NDArray[np.float64]:
    """The distance from the furthest pixel of each object here to the nearest of each object there."""
    order = np.flatnonzero(here)
    order = order[np.argsort(here.ravel()[order], kind="stable")]
    names, starts = np.unique(here.ravel()[order], return_index=True)
    others = np.unique(there[there != 0])
    furthest = np.zeros((len(names), len(others)))
    if not len(names):
        return furthest
    for column, name in enumerate(others):
        # OpenCV's exact transform (float32, right to some 1e-4 px) takes half the time of scipy's.
        away = cv2.distanceTransform((there != name).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        furthest[:, column] = np.maximum.reduceat(away.ravel()[order], starts)
    return furthest


def object_f1(sums: Sums) -> NDArray[np.float64]:
    """F1 of detection from sums (..., 9): shape (...). 1 where there is nothing on either side."""
    right, false, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    objects = 2 * right + false + missed
    return np.where(objects > 0, 2 * right / np.where(objects > 0, objects, 1), 1.0)


def object_dice(sums: Sums) -> NDArray[np.float64]:
    """Object Dice from sums (..., 9): shape (...). 1 where there is nothing on either side, 0 where there is on one."""
    true_area, area = sums[..., 3], sums[..., 4]
    halves = sums[..., 5] / np.maximum(true_area, 1) + sums[..., 6] / np.maximum(area, 1)
    return np.where(true_area + area > 0, halves / 2, 1.0)


def object_hausdorff(sums: Sums) -> NDArray[np.float64]:
    """Object Hausdorff distance in pixels from sums (..., 9): shape (...). nan where either side has no object at all."""
    true_area, area = sums[..., 3], sums[..., 4]
    halves = sums[..., 7] / np.maximum(true_area, 1) + sums[..., 8] / np.maximum(area, 1)
    return np.where((true_area > 0) & (area > 0), halves / 2, np.nan)
