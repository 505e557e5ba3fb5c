"""From the values of mask files to classes: one rule for a dataset, chosen from what its masks hold."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError
from ukan.imaging import read_labels
from ukan.plan import Case, MaskRule

_ASPECT_TOLERANCE = 0.02


def foreground(values: NDArray[np.integer], rule: MaskRule) -> NDArray[np.bool_]:
    """Where a mask's values say that there is something. For labels, any value above 0."""
    return values >= 128 if rule == "half" else values > 0


def fit_labels(labels_DHW: NDArray[np.integer], shape_DHW: tuple[int, int, int], where: str) -> NDArray[np.integer]:
    """Labels at the size of their image. Labels of another size but the same shape are resized by nearest value."""
    if labels_DHW.shape == shape_DHW:
        return labels_DHW
    (slices, mask_height, mask_width), (depth, height, width) = labels_DHW.shape, shape_DHW
    if slices != depth:
        raise DataError(f"{where}: mask of {slices} slices for an image of {depth}")
    if abs(mask_width * height / (mask_height * width) - 1) > _ASPECT_TOLERANCE:
        raise DataError(
            f"{where}: mask of {mask_width}x{mask_height} for an image of {width}x{height}: "
            "they differ in shape, not in scale alone"
        )
    resized = [cv2.resize(s, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for s in labels_DHW.astype(np.int32)]
    return np.stack(resized)


def read_truth(
    root: Path,
    case: Case,
    shape_DHW: tuple[int, int, int],
    rule: MaskRule,
    classes: Sequence[str],
    label_values: Sequence[int] = (),
) -> NDArray[np.bool_]:
    """What a case shows, (K, D, H, W): for each class everything inside any of its masks; nothing where it has none.

    Raises DataError where a mask cannot be read, does not fit its image, or is of a class that is none of `classes`.
    """
    truth = np.zeros((len(classes), *shape_DHW), bool)
    for number, name in enumerate(case.masks):
        labels = fit_labels(read_labels(root / name).values, shape_DHW, name)
        if rule == "labels":
            for k, value in enumerate(label_values):
                truth[k] |= labels == value
        elif not case.classes:
            truth[0] |= foreground(labels, rule)
        elif case.classes[number] in classes:
            truth[list(classes).index(case.classes[number])] |= foreground(labels, rule)
        else:
            raise DataError(f"{name}: of class {case.classes[number]!r}, which is none of {', '.join(classes)}")
    return truth


def read_instances(root: Path, case: Case, shape_DHW: tuple[int, int, int]) -> NDArray[np.integer]:
    """The objects of a case whose masks hold instance ids, as one map (D, H, W) of ids; those of further masks count on."""
    merged = np.zeros(shape_DHW, np.int64)
    for name in case.masks:
        labels = fit_labels(read_labels(root / name).values, shape_DHW, name)
        merged[labels > 0] = labels[labels > 0] + merged.max()
    return merged


class Counted(NamedTuple):
    """How many pixels of a mask hold a value, and how many of those have it all around them."""

    pixels: int
    inside: int


MaskValues = dict[int, Counted]
"""Every value of a mask. `inside` is counted only where there are more than two, and is 0 elsewhere."""


MEANING: dict[MaskRule, str] = {
    "nonzero": "everything above 0",
    "half": "everything from 128 on",
    "instances": "each number an object, all of one class",
    "labels": "each value a class",
}


class Rule(NamedTuple):
    """How a dataset's masks are read, and why."""

    rule: MaskRule
    label_values: tuple[int, ...]
    because: str
    lenient: bool = False
    """Whether what values there are is taken as meant (nonzero)."""


def count_values(labels_DHW: NDArray[np.integer]) -> MaskValues:
    """What values a mask holds, and how they lie: numbers of things fill areas, smeared greys run along borders."""
    low, high = (0, 255) if labels_DHW.dtype == np.uint8 else (int(labels_DHW.min()), int(labels_DHW.max()))
    if high - low >= 2**16:
        values, found = np.unique(labels_DHW, return_counts=True)
        return {int(value): Counted(int(count), 0) for value, count in zip(values, found, strict=True)}
    slices = np.subtract(labels_DHW, low, dtype=np.int64).astype(np.uint16) if low or high > 255 else labels_DHW
    counts = np.sum([_histogram(labels, high - low + 1) for labels in slices], axis=0)
    held = np.flatnonzero(counts)
    inside = np.zeros_like(counts)
    if len(held) > 2:
        square = np.ones((3, 3), np.uint8)
        for labels in slices:
            inside += np.bincount(labels[cv2.erode(labels, square) == cv2.dilate(labels, square)], minlength=len(counts))
    return {low + int(value): Counted(int(counts[value]), int(inside[value])) for value in held}


def _histogram(labels_HW: NDArray[np.integer], bins: int) -> NDArray[np.int64]:
    if labels_HW.dtype == np.uint8 and labels_HW.size < 2**24:  # up to there its float32 counts are exact
        return cv2.calcHist([labels_HW], [0], None, [bins], (0, bins)).ravel().astype(np.int64)
    return np.bincount(labels_HW.ravel(), minlength=bins)


def choose_rule(masks: Sequence[MaskValues], *, may_be_labels: bool = True) -> Rule:
    """The rule for masks with these values. `may_be_labels` is False where each class has masks of its own.

    One value beside 0 (or 1 in some and 255 in others), or 255 alone in most masks: everything above 0. Greys that run along
    borders, as JPEG and resizing make them: cut at half. Numbers that fill areas: objects, where masks count 1, 2, ... n and
    n varies; classes, where they are few. What then does not fit, 255 beside small numbers for one, `misfit` tells.
    """
    shown = [values for values in ({v for v in mask if v > 0} for mask in masks) if values]
    held: set[int] = set().union(*shown)
    listed = _some(held | {0})
    if not held:
        return Rule("nonzero", (), "every mask is empty")
    alone = all(len(values) == 1 for values in shown)
    if (alone and len(held) == 1) or held <= _WHITE:
        return Rule("nonzero", (), f"masks hold two values ({listed}): everything above 0")
    mostly_255 = sum(values == {255} for values in shown) > len(shown) / 2
    if not alone and not _are_numbers(masks, held, trust_few=not mostly_255):
        return Rule("half", (), f"masks hold greys between black and white ({listed}): cut at 128")
    if mostly_255:
        return Rule("nonzero", (), "most masks hold 0 and 255 alone: everything above 0")
    counting = [len(values) for values in shown if max(values) == len(values)]
    if len(counting) >= 0.9 * len(shown) and len(set(counting)) > 1 and max(counting) > _NESTED:
        because = f"masks count 1, 2, ... n, n up to {max(counting)}: objects of one class"
        return Rule("instances", (), f"{because} (if they are classes: --set data.mask_rule=labels)")
    if not may_be_labels:
        because = f"masks of one class each hold several values ({listed}): everything above 0"
        return Rule("nonzero", (), because, lenient=True)
    small = held - {255}
    classes = small if max(small) < _SMALL else held
    if len(classes) > _MANY:
        because = f"masks hold {len(classes)} different numbers: objects of one class"
        return Rule("instances", (), f"{because} (if they are classes: --set data.mask_rule=labels)")
    because = f"masks share {len(classes)} value(s) ({_some(classes)}): classes"
    doubt = len(counting) == len(shown) and len(set(counting)) > 1
    return Rule(
        "labels",
        tuple(sorted(classes)),
        because + (" (if they count objects of one class: --set data.mask_rule=instances)" if doubt else ""),
    )


_WHITE = {1, 255, 65535}
_NESTED = 3  # up to here, masks that count 1, 2, ... n may as well hold classes, one inside the other
_MANY = 32
_SMALL = 64


def _are_numbers(masks: Sequence[MaskValues], held: set[int], *, trust_few: bool) -> bool:
    """Whether values stand for things: most of them fill areas, or (trust_few) they are few and small."""
    if trust_few and max(held - {255}) < _SMALL and len(held) <= _MANY:
        return True
    pixels, inside = Counter[int](), Counter[int]()
    for mask in masks:
        if len(mask) > 2:
            for value, counted in mask.items():
                pixels[value] += counted.pixels
                inside[value] += counted.inside
    values = [value for value in pixels if value > 0]
    return sum(inside[value] >= _INSIDE * pixels[value] for value in values) > len(values) / 2


_INSIDE = 0.1  # measured: greys along a smeared border have 0 to 3 % of their pixels inside, discs 6 px wide 30 %


def misfit(values: MaskValues, rule: Rule) -> tuple[str, str, str] | None:
    """(kind, what, do) where a mask with these values cannot be read by the rule, otherwise None."""
    shown = sorted(value for value in values if value)
    classes = rule.label_values or (0,)
    strange = [value for value in shown if (value not in classes if rule.rule == "labels" else value < 0)]
    beside = (255 in strange and max(classes) < _SMALL) or (rule.rule == "nonzero" and shown == [1, 255])
    if beside and not rule.lenient:
        share = values[255].pixels / sum(counted.pixels for counted in values.values())
        do = "store what is to be ignored as 0; if 255 counts too: --set data.label_values=[1,2,255] with all the values"
        return "255 beside small numbers", f"{share:.1%} of the mask is 255: ignored, or a class?", do
    if strange:
        known = ", ".join(map(str, classes)) if rule.rule == "labels" else "0 and more"
        do = "correct the mask; or name all classes: --set data.mask_rule=labels --set data.label_values=[1,2,...]"
        return FITS_NO_RULE, f"values {_some(strange)} where {known} are expected", do
    if rule.rule == "nonzero" and len(shown) > 1 and not rule.lenient:
        do = "correct the mask; or count all that is above 0: --set data.mask_rule=nonzero"
        return FITS_NO_RULE, f"values {_some(shown)} where others hold one beside 0", do
    if rule.rule == "half" and shown and shown[-1] < 128:
        what = f"values up to {shown[-1]} where others reach white: it would come out empty"
        return FITS_NO_RULE, what, "store it as 0 and 255"
    if rule.rule == "half" and shown and shown[-1] > 255:
        return FITS_NO_RULE, f"greys up to {shown[-1]}: where to cut is unknown", "store it as 0 and 255"
    return None


FITS_NO_RULE = "label values that fit no rule"


def _some(values: Collection[int]) -> str:
    listed = sorted(values)
    return ", ".join(map(str, listed)) if len(listed) <= 6 else f"{listed[0]}, {listed[1]}, ... {listed[-1]}"
