"""How well an activation map agrees with a mask (plausibility IoU, after Cambrin et al. 2024, arXiv:2408.07040).

A map is uint8, 0 to 255, its own least and largest value. What is active is above the map's threshold of Otsu (1979), which
sees the map alone: nothing is chosen on the masks. Map and truth are of one shape, with any number of dimensions.
"""

import numpy as np
from numpy.typing import NDArray

from ukan.metrics import iou

Map = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SCORES = ("iou", "iou_inverted", "iou_by_chance", "auroc")


def to_map(values: NDArray[np.floating]) -> Map:
    """Any values to 0 to 255, their least and their largest; 0 everywhere where all are equal."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    return np.round((values - low) * (255 / (high - low))).astype(np.uint8)


def otsu(values: Map) -> int:
    """The value that divides a map into two classes of the least variance within; the lower class includes it."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.nan_to_num(between).argmax())


def active(values: Map) -> Mask:
    """What is above the threshold; nothing where the map is even."""
    return values > otsu(values)


def plausibility(values: Map, truth: Mask) -> dict[str, float]:
    """SCORES of a map; all nan where the truth is empty, since every map that is not even is active somewhere.

    iou: of what is active. iou_inverted: of what is not, since the sign of a feature is arbitrary and a map may be low on
    the object; never the better of the two. iou_by_chance: what as many active pixels, laid out blindly, would have: a s /
    (a + s - a s) of the shares of active and true pixels. auroc: the chance that a pixel of the object has a higher value
    than one outside it; below 0.5 the map is low on the object, whatever the threshold. nan where the truth is everywhere.
    """
    if not truth.any():
        return dict.fromkeys(SCORES, float("nan"))
    found = active(values)
    a, s = float(found.mean()), float(truth.mean())
    inside, everywhere = (np.bincount(v.ravel(), minlength=256).astype(np.float64) for v in (values[truth], values))
    outside = everywhere - inside
    lower = outside.cumsum() - outside / 2  # ties count half
    pairs = inside.sum() * outside.sum()
    return {
        "iou": float(iou(truth, found)),
        "iou_inverted": float(iou(truth, ~found)),
        "iou_by_chance": a * s / (a + s - a * s),
        "auroc": float(inside @ lower / pairs) if pairs else float("nan"),
    }
