"""METRICS: arrays in, numbers out, by the rules of evidence. What one case and class scores, for pictures and volumes.

Truth and prediction are bool arrays of one shape with two or three dimensions; `spacing` is the distance between pixels
along each axis (mm where it is known), 1 along each where it is None. A stack of one slice is measured as the picture it is.

`measure` gives all of METRICS at once: outlines and distances between them are found once a case. Each can also be had
alone: `METRICS["hd95"].compute(truth, prediction, spacing)`.

Empty against empty is a Dice, IoU or surface Dice of 1, empty against something 0. Undefined, that is nan, are precision
where nothing is predicted, recall where nothing is there, specificity where everything is, and distances where either mask
is empty: nan is counted, never averaged in or dropped in silence; `penalised` is the distance to show beside it.

Its neighbours: `lesions` (which objects and images are found), `objects` (GlaS), `calibration`, `quality` (a predicted
Dice), `familiarity` (unlike the training images), `fidelity` and `memorisation` (generated images) and `intervals`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]
Spacing = Sequence[float]

TOLERANCE = 2.0
"""How far an outline may be off and still be right for `nsd`, in the unit of the spacing: 2 px, or 2 mm."""

ISIC_THRESHOLD = 0.65
"""Below it the ISIC 2018 challenge counts a segmentation as failed."""

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Pair:
    """Truth and prediction of one case and class, with what several metrics need found once and only when asked for."""

    truth: Mask
    prediction: Mask
    spacing: Spacing | None = None

    def __post_init__(self) -> None:
        if self.truth.shape != self.prediction.shape or self.truth.ndim not in (2, 3):
            raise ValueError(
                f"truth {self.truth.shape} and prediction {self.prediction.shape} must be of one shape in 2 or 3 dimensions"
            )
        if self.truth.dtype != bool or self.prediction.dtype != bool:
            raise ValueError(f"masks must be bool, not {self.truth.dtype} and {self.prediction.dtype}")
        if self.spacing is not None and len(self.spacing) != self.truth.ndim:
            raise ValueError(f"spacing {tuple(self.spacing)} does not fit {self.truth.ndim} dimensions")

    @cached_property
    def present(self) -> int:
        return int(np.count_nonzero(self.truth))

    @cached_property
    def predicted(self) -> int:
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def both(self) -> int:
        return int(np.count_nonzero(self.truth & self.prediction))

    @property
    def either(self) -> int:
        return self.present + self.predicted - self.both

    @property
    def diagonal(self) -> float:
        """Of the image, in the unit of the spacing."""
        truth, _, step = self._flat
        return float(np.linalg.norm(np.multiply(truth.shape, step)))

    @cached_property
    def distances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """From each outline pixel of the truth to the nearest of the prediction, and back. Neither mask may be empty.

        An outline is the pixels of a mask with a neighbour (of four, or six) outside it; beyond the image's edge is outside.
        """
        truth, prediction, step = self._flat
        # The rest of a large image costs nothing: only the box around both masks is looked at, and in it only outlines.
        box = bounding_box(truth | prediction)
        ours, theirs = outline(truth[box]), outline(prediction[box])
        return _nearest(ours, theirs, step), _nearest(theirs, ours, step)

    @property
    def _flat(self) -> tuple[Mask, Mask, NDArray[np.float64]]:
        """Without an axis of one slice, along which every pixel would lie on the image's edge, and so on the outline."""
        step = np.ones(self.truth.ndim) if self.spacing is None else np.asarray(self.spacing, np.float64)
        if self.truth.ndim == 3 and 1 in self.truth.shape:
            axis = self.truth.shape.index(1)
            return self.truth.squeeze(axis), self.prediction.squeeze(axis), np.delete(step, axis)
        return self.truth, self.prediction, step


def outline(mask: Mask) -> Mask:
    """Pixels of a mask (any number of dimensions) with a neighbour along an axis outside it; beyond the edge is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, before = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        along[1:] &= before[:-1]
        along[:-1] &= before[1:]
        along[0] = along[-1] = False
    return mask & ~inner


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _nearest(here: Mask, there: Mask, step: NDArray[np.float64]) -> NDArray[np.float64]:
    distances = np.zeros(np.count_nonzero(here))
    apart = ~there[here]  # where outlines share a pixel the distance is 0: most of them, in a good prediction
    if apart.any():
        # A tree of outline pixels, and not a distance map: outlines are a thin part of a picture, thinner of a volume.
        tree = KDTree(np.argwhere(there) * step, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(here)[apart] * step)[0]
    return distances


def _dice(pair: Pair) -> float:
    sizes = pair.present + pair.predicted
    return 2 * pair.both / sizes if sizes else 1.0


def _iou(pair: Pair) -> float:
    return pair.both / pair.either if pair.either else 1.0


def _precision(pair: Pair) -> float:
    return pair.both / pair.predicted if pair.predicted else NAN


def _recall(pair: Pair) -> float:
    return pair.both / pair.present if pair.present else NAN


def _specificity(pair: Pair) -> float:
    absent = pair.truth.size - pair.present
    return (pair.truth.size - pair.either) / absent if absent else NAN


def _iou_65(pair: Pair) -> float:
    """Thresholded Jaccard (Codella et al. 2019, arXiv:1902.03368): the IoU, 0 where it is below 0.65."""
    value = _iou(pair)
    return value if value >= ISIC_THRESHOLD else 0.0


def _hd95(pair: Pair) -> float:
    """The larger of the two directions' 95th percentiles (MONAI's definition), linear between distances."""
    if not pair.present or not pair.predicted:
        return NAN
    return float(max(np.percentile(distances, 95) for distances in pair.distances))


def _assd(pair: Pair) -> float:
    """Average symmetric surface distance: the mean over the pixels of both outlines together, as in MONAI."""
    if not pair.present or not pair.predicted:
        return NAN
    return float(np.concatenate(pair.distances).mean())


def _nsd(pair: Pair) -> float:
    """Normalised surface Dice at TOLERANCE (Nikolov et al. 2018, arXiv:1809.04430): the share of both outlines that fits.

    Outlines are counted in pixels, as MONAI does (Seidlitz et al. 2022), where Nikolov et al. weigh pieces of surface by
    their area: with thick slices, a pixel on a slice's outline counts as much as one on its face. It is a Dice, and 1
    where both are empty; MONAI gives nan there.
    """
    if not pair.present or not pair.predicted:
        return float(not pair.either)
    return float((np.concatenate(pair.distances) <= TOLERANCE).mean())


class Metric(NamedTuple):
    of: Callable[[Pair], float]
    unit: str
    """"" for a share, "length" for a distance: in px where the spacing is None, else in the spacing's unit (mm)."""
    higher_is_better: bool

    def compute(self, truth: Mask, prediction: Mask, spacing: Spacing | None = None) -> float:
        return self.of(Pair(truth, prediction, spacing))


METRICS: dict[str, Metric] = {
    "dice": Metric(_dice, "", True),
    "iou": Metric(_iou, "", True),
    "precision": Metric(_precision, "", True),
    "recall": Metric(_recall, "", True),
    "specificity": Metric(_specificity, "", True),
    "iou_65": Metric(_iou_65, "", True),
    "hd95": Metric(_hd95, "length", False),
    "assd": Metric(_assd, "length", False),
    "nsd": Metric(_nsd, "", True),
}

dice = METRICS["dice"].compute
iou = METRICS["iou"].compute


def measure(truth: Mask, prediction: Mask, spacing: Spacing | None = None) -> dict[str, float]:
    """All METRICS of one case and class, (H, W) or (D, H, W), in one pass."""
    pair = Pair(truth, prediction, spacing)
    return {name: metric.of(pair) for name, metric in METRICS.items()}


def penalised(value: float, truth: Mask, prediction: Mask, spacing: Spacing | None = None) -> float:
    """A distance with a price for what is missed or invented: 0 where both masks are empty, the diagonal where one is."""
    pair = Pair(truth, prediction, spacing)
    if pair.present and pair.predicted:
        return value
    return pair.diagonal if pair.present or pair.predicted else 0.0


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
