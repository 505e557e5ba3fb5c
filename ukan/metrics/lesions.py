"""What is found: lesion by lesion, and image by image.

A lesion is a connected piece of a mask, corners included (8 neighbours, 26 in volumes). A true and a predicted one fit where
their IoU is at least 0.1, the rule of the PI-CAI challenge (Saha et al. 2024, Lancet Oncology 25; its published evaluation)
and of nnDetection (Baumgartner et al. 2021): any shared pixel would let one mask over the whole image find everything,
and an IoU of 0.5 would call small lesions missed for an outline that is a pixel or two off. Pairs are made one to one, as
many as can be and then those that overlap most, so that one piece finds one lesion only. A predicted piece that fits no
lesion is a false positive; a second piece that fits the same lesion is neither found nor false.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from ukan.metrics import Mask, bounding_box
from ukan.metrics.intervals import cluster_bootstrap
from ukan.metrics.objects import instances, shared_pixels

Interval = tuple[float, float] | None

MIN_IOU = 0.1


class Lesions(NamedTuple):
    """Counts of one case."""

    present: int
    found: int
    predicted: int
    false_positives: int


def lesions(truth: Mask, prediction: Mask) -> Lesions:
    """Count the lesions of one case's masks, (H, W) or (D, H, W)."""
    either = truth | prediction
    if not either.any():
        return Lesions(0, 0, 0, 0)
    box = bounding_box(either)
    shared, true_sizes, sizes = shared_pixels(instances(truth[box]), instances(prediction[box]))
    iou = shared / (true_sizes[:, None] + sizes - shared)
    fits = iou >= MIN_IOU
    # A pair that fits is worth more than all overlap together: first as many as can be, then the best of them.
    rows, columns = linear_sum_assignment(np.where(fits, iou + fits.size, 0), maximize=True)
    found = int(fits[rows, columns].sum())
    return Lesions(len(true_sizes), found, len(sizes), int((~fits.any(axis=0)).sum()))


class LesionScores(NamedTuple):
    """Lesions of all cases: summed counts, the two rates with their 95 % intervals over groups; nan where undefined."""

    counts: Lesions
    cases: int
    sensitivity: float
    sensitivity_interval95: Interval
    false_positives_per_image: float
    false_positives_per_image_interval95: Interval


def lesion_scores(cases: Sequence[Lesions], groups: Sequence[str]) -> LesionScores:
    """Lesions found over lesions present, and false positives an image, over cases (all of them, empty ones too)."""
    counts = np.array(cases, np.float64).reshape(len(cases), len(Lesions._fields))
    present, found, _, false = counts.T
    return LesionScores(
        Lesions(*(int(total) for total in counts.sum(axis=0))),
        len(cases),
        _share(found.sum(), present.sum()),
        cluster_bootstrap(found, groups, totals=present),
        _share(false.sum(), len(cases)),
        cluster_bootstrap(false, groups),
    )


class ImageScores(NamedTuple):
    """Is there anything in the image at all: counts, rates with their 95 % intervals over groups; nan where undefined."""

    with_object: int
    without_object: int
    true_positives: int
    true_negatives: int
    sensitivity: float
    sensitivity_interval95: Interval
    specificity: float
    specificity_interval95: Interval
    auroc: float


def image_scores(present: ArrayLike, scores: ArrayLike, threshold: float, groups: Sequence[str]) -> ImageScores:
    """Detection over all cases: whether an object is there (N,), against a score each (N,), the highest probability.

    An image is called where its score is above the threshold, that is where its mask is not empty. AUROC is the chance that
    an image with an object scores higher than one without (Mann-Whitney, ties a half); nan where one kind is absent.
    """
    there, score = np.asarray(present, bool), np.asarray(scores, np.float64)
    called = score > threshold
    positives, negatives = int(there.sum()), int((~there).sum())
    hits, rejections = int((called & there).sum()), int((~called & ~there).sum())
    ranks = rankdata(score)
    wins = float(ranks[there].sum()) - positives * (positives + 1) / 2
    return ImageScores(
        positives,
        negatives,
        hits,
        rejections,
        _share(hits, positives),
        cluster_bootstrap(called & there, groups, totals=there),
        _share(rejections, negatives),
        cluster_bootstrap(~called & ~there, groups, totals=~there),
        _share(wins, positives * negatives),
    )


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
