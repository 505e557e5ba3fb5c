"""Are probabilities what they say: expected calibration error over pixels, from tallies that add up over cases.

A tally is (3, 15): for 15 equal bins of the foreground probability the pixels in it, the sum of their probabilities and how
many of them are foreground. Tallies of cases add, so no pixel is kept, and cases are resampled cheaply by
`intervals.interval_of_sums(tallies, groups, ece)`.

Most pixels are background far from any object, where every network is sure and right: over whole images the error is small
for that reason alone. The same number over `near_object` stands beside it (Mehrtash et al. 2020, IEEE TMI 39, likewise look
at boxes around the objects only).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.metrics import Mask, bounding_box

BINS = 15

Tally = NDArray[np.float64]


def tally(probabilities: NDArray[np.floating], truth: Mask) -> Tally:
    """Pixels, summed probability and foreground pixels in each bin; arrays of one shape, any number of dimensions.

    A bin holds its lower bound; the last holds 1 too.
    """
    if probabilities.shape != truth.shape:
        raise ValueError(f"probabilities {probabilities.shape} and truth {truth.shape} must be of one shape")
    p = probabilities.ravel()
    bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    weights = (None, p, truth.ravel())
    return np.stack([np.bincount(bins, weight, minlength=BINS).astype(np.float64) for weight in weights])


def near_object(truth: Mask, prediction: Mask) -> tuple[slice, ...]:
    """The pixels near the object: the box around truth and prediction together, grown to twice its length along each axis.

    It is cut at the image's edge, and has no pixels where both masks are empty.
    """
    either = truth | prediction
    if not either.any():
        return (slice(0, 0),) * either.ndim
    box = []
    for side, length in zip(bounding_box(either), either.shape, strict=True):
        margin = -(-(side.stop - side.start) // 2)
        box.append(slice(max(0, side.start - margin), min(length, side.stop + margin)))
    return tuple(box)


def ece(tallies: Tally) -> NDArray[np.float64]:
    """Expected calibration error from tallies (..., 3, 15): shape (...), nan where there is no pixel.

    The mean over pixels of the gap between a bin's mean probability and its share of foreground (Guo et al. 2017,
    arXiv:1706.04599, equation 3, with the foreground's probability in the place of the winning class's).
    """
    pixels = tallies[..., 0, :].sum(axis=-1)
    gaps = np.abs(tallies[..., 1, :] - tallies[..., 2, :]).sum(axis=-1)
    return np.where(pixels > 0, gaps / np.where(pixels > 0, pixels, 1), np.nan)


class Reliability(NamedTuple):
    """A bin of a reliability plot; mean and share are nan where it has no pixel."""

    low: float
    high: float
    pixels: int
    mean_probability: float
    foreground_share: float


def reliability(tally: Tally) -> list[Reliability]:
    """The 15 rows of a reliability plot from a tally (3, 15)."""
    rows = []
    for k, (pixels, probability, foreground) in enumerate(tally.T):
        share = (probability / pixels, foreground / pixels) if pixels else (float("nan"), float("nan"))
        rows.append(Reliability(k / BINS, (k + 1) / BINS, int(pixels), float(share[0]), float(share[1])))
    return rows
