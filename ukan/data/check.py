"""What is wrong or odd about cases that can be read: each by itself, and each among the others."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.duplicates import Pairs
from ukan.data.facts import Facts, spacing_text
from ukan.data.masks import MaskValues, Rule, misfit
from ukan.data.problems import Problem
from ukan.imaging import Geometry

MOST_LISTED = 1000
"""So many pairs of a kind are listed; more are counted."""


class Pair(NamedTuple):
    """Two cases whose pictures are alike."""

    kind: str
    one: str
    other: str
    likeness: float


def unusable(facts: Sequence[Facts], rule: Rule) -> dict[str, list[Problem]]:
    """{case: errors} that only the whole dataset shows: masks that do not follow its rule, another number of channels."""
    channels = Counter(fact.channels for fact in facts)
    # One channel and three are brought to one another when pictures are prepared; other numbers cannot be.
    usual = channels.most_common(1)[0][0]
    wanted = channels.keys() if channels.keys() <= {1, 3} else {usual}
    found: dict[str, list[Problem]] = {}
    for fact in facts:
        misfits = ((name, misfit(values, rule)) for name, values in zip(fact.case.masks, fact.mask_values, strict=True))
        errors = [Problem("error", why[0], name, why[1], why[2]) for name, why in misfits if why]
        if fact.channels not in wanted:
            what = f"{fact.channels} channels, most images have {usual}"
            errors.append(Problem("error", "another number of channels", fact.case.image, what, "give all images the same"))
        if errors:
            found[fact.case.case] = errors
    return found


def doubts(facts: Sequence[Facts], rule: Rule, groups: Sequence[int]) -> list[Problem]:
    """Everything odd about usable cases but the likeness of their pictures, which `groups` knows."""
    return [*_masks(facts, rule), *_sameness_of_masks(facts, groups), *_sizes(facts), *_depths(facts), *_volumes(facts)]


def _masks(facts: Sequence[Facts], rule: Rule) -> list[Problem]:
    if not any(fact.case.masks for fact in facts):
        return []
    problems = []
    for fact in facts:
        for name, values in zip(fact.case.masks, fact.mask_values, strict=True):
            problems += _odd_values(name, values, rule)
        share = fact.shares["half" if rule.rule == "half" else "nonzero"]
        if share == 0:
            do = "kept or left out by data.empty_cases"
            problems.append(Problem("note", "empty mask", fact.case.case, "no foreground", do))
        elif share > 0.95:
            what = f"{share:.0%} of the image is foreground"
            do = "check that it is not inverted"
            problems.append(Problem("warning", "mask covers the image", fact.case.case, what, do))
    empty = sum(problem.kind == "empty mask" for problem in problems)
    if empty > len(facts) / 2:
        what, do = f"{empty} of {len(facts)} masks are empty", "check that these are the right masks"
        problems.append(Problem("warning", "most masks are empty", "all cases", what, do))
    return problems + _lone_classes(facts, rule)


def _odd_values(name: str, values: MaskValues, rule: Rule) -> list[Problem]:
    if len(values) <= 2 or rule.rule in ("labels", "instances"):
        return []
    if rule.rule == "nonzero":
        do = "united into one foreground"
        return [Problem("warning", "mask with several values", name, f"{len(values)} values", do)]
    shown = sum(counted.pixels for value, counted in values.items() if value)
    greys = [counted for value, counted in values.items() if 32 <= value < 224]
    grey, flat = (sum(counts) / shown for counts in zip(*greys, strict=True)) if greys else (0.0, 0.0)
    if flat > 0.01:
        do = "cut at 128; if the greys are classes, store them as whole numbers"
        what = f"{flat:.0%} of what is not black is flat grey"
        return [Problem("warning", "mask with grey areas", name, what, do)]
    if grey > 0.5:
        what = f"{grey:.0%} of what is not black is grey"
        return [Problem("warning", "mask mostly of greys", name, what, "cut at 128; check that it is a mask")]
    return [Problem("note", "mask with greys", name, f"{len(values)} values", "cut at 128")]


def _lone_classes(facts: Sequence[Facts], rule: Rule) -> list[Problem]:
    """Values that are taken for classes and yet are in one mask only."""
    holding = Counter(value for fact in facts for values in fact.mask_values for value in values)
    lone = {value for value in rule.label_values if holding[value] == 1}
    if len(facts) < _FEW or not lone:
        return []
    do = "a mistake? name the classes with --set data.label_values=[...], and the mask becomes an error"
    return [
        Problem("warning", "class in one mask alone", name, f"value {value} is in no other mask", do)
        for fact in facts
        for name, values in zip(fact.case.masks, fact.mask_values, strict=True)
        for value in sorted(lone & values.keys())
    ]


def _sameness_of_masks(facts: Sequence[Facts], groups: Sequence[int]) -> list[Problem]:
    """One mask for pictures of different groups; or masks that hardly differ from case to case."""
    problems = []
    users: dict[str, dict[str, int]] = {}
    for fact, group in zip(facts, groups, strict=True):
        for digest in fact.mask_hashes if fact.outline.any() else ():
            users.setdefault(digest, {})[fact.case.case] = group
    for sharing in users.values():
        if len(set(sharing.values())) > 1:
            names = sorted(sharing)
            what, do = f"{len(names)} different pictures have the same mask, byte by byte", "check whose mask it is"
            problems.append(Problem("warning", "one mask for several", " | ".join(names[:5]), what, do))
    outlines = [fact.outline.ravel() for fact in facts if fact.outline.any()]
    if len(outlines) >= _FEW:
        outlines_NP = np.stack(outlines).astype(np.float32)
        mean_P = outlines_NP.mean(axis=0)
        dice_N = 2 * (outlines_NP @ mean_P) / ((outlines_NP**2).sum(axis=1) + (mean_P**2).sum())
        if np.median(dice_N) > 0.95:
            what = f"half of them agree with their mean by a Dice of {np.median(dice_N):.2f} or more"
            do = "check that these are masks of the images"
            problems.append(Problem("warning", "masks hardly differ", "all cases", what, do))
    return problems


_FEW = 5


def _sizes(facts: Sequence[Facts]) -> list[Problem]:
    """Images much larger, smaller, wider or higher than the rest: beyond three interquartile ranges, on a log scale."""
    width, height = (np.array([getattr(fact.case, side) for fact in facts], float) for side in ("width", "height"))
    sides, aspects = np.sqrt(width * height), width / height
    odd = _far(sides, 2.0) | _far(aspects, 1.75)
    usual = f"{np.median(width):.0f}x{np.median(height):.0f}"
    kind, do = "size far from the rest", "prepared like the rest; check that it belongs here"
    return [
        Problem("warning", kind, fact.case.image, f"{fact.case.width}x{fact.case.height}, median {usual}", do)
        for fact, far in zip(facts, odd, strict=True)
        if far
    ]


def _far(values: NDArray[np.float64], factor: float) -> NDArray[np.bool_]:
    """Whether values are off the median by more than `factor`, and three interquartile ranges, either way."""
    logs = np.log(values)
    low, middle, high = np.quantile(logs, (0.25, 0.5, 0.75))
    return np.abs(logs - middle) > max(3 * (high - low), np.log(factor))


def _depths(facts: Sequence[Facts]) -> list[Problem]:
    deep = [fact.case.image for fact in facts if fact.deep]
    if not 0 < len(deep) < len(facts):
        return []
    what = f"{len(deep)} of {len(facts)} images have more than 8 bits a value"
    return [Problem("warning", "different depths", deep[0], what, "only those are windowed; better store all alike")]


def _volumes(facts: Sequence[Facts]) -> list[Problem]:
    """Volumes cut across another axis than most, stored in another order, or with voxels of another size."""
    placed = [(fact.case.image, fact.geometry) for fact in facts if fact.geometry]
    if not placed:
        return []
    problems = []
    if len(placed) < len(facts):
        what = f"{len(facts) - len(placed)} of {len(facts)} images do not tell their spacing"
        problems.append(Problem("warning", "not all are volumes in space", "all cases", what, "distances in mm need it"))
    views = [_view(geometry) for _, geometry in placed]
    codes = [_code(geometry) for _, geometry in placed]
    usual_view, usual_code = (Counter(kinds).most_common(1)[0][0] for kinds in (views, codes))
    spacings = np.array([geometry.spacing_mm for _, geometry in placed])
    usual_mm = np.median(spacings, axis=0)
    for (name, geometry), view, code, spacing in zip(placed, views, codes, spacings, strict=True):
        if view != usual_view:
            what = f"{view} slices, most are {usual_view}"
            do = "a network of slices sees another view; leave it out, or resample it"
            problems.append(Problem("warning", "volume cut another way", name, what, do))
        elif code != usual_code:
            what = f"{code}, most are {usual_code}"
            problems.append(Problem("note", "volume stored another way", name, what, "turned alike"))
        if np.any(np.abs(np.log(spacing / usual_mm)) > np.log(1.5)):
            what = f"{spacing_text(geometry.spacing_mm)} mm, median {spacing_text(usual_mm)} mm (slices, rows, columns)"
            do = "slices are resized, not resampled: objects look larger or smaller than in the rest"
            problems.append(Problem("warning", "spacing far from the rest", name, what, do))
    return problems


def _view(geometry: Geometry) -> str:
    across = np.abs(geometry.affine[:3, geometry.axes[0]])
    return ("sagittal", "coronal", "axial")[int(across.argmax())]


def _code(geometry: Geometry) -> str:
    """Where the file's axes run to, as in NIfTI: RAS is towards the right, the front and the head."""
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    largest = np.abs(directions).argmax(axis=0)
    return "".join(("LR", "PA", "IS")[k][int(directions[k, axis] > 0)] for axis, k in enumerate(largest))


def likeness_problems(facts: Sequence[Facts], pairs: Pairs, given: Sequence[int]) -> tuple[list[Problem], list[Pair]]:
    """The pairs that are worth a look, worst first, as problems and as pairs. `given` are the groups known without them.

    Near-duplicates that are in one group anyway (frames of a video) are only counted, unless they have different classes or
    are on both sides of an official split.
    """
    first, second = pairs.first, pairs.second
    labels, splits, groups = (
        np.unique([str(value) for value in values], return_inverse=True)[1]
        for values in ([f.case.label for f in facts], [f.case.split == "test" for f in facts], given)
    )
    digests = np.unique([fact.digest for fact in facts], return_inverse=True)[1]
    same, across = digests[first] == digests[second], splits[first] != splits[second]
    torn = labels[first] != labels[second]
    expected = (groups[first] == groups[second]) & ~same & ~across & ~torn
    gravity = 4 * across + 2 * torn + same
    listed: list[Pair] = []
    problems: list[Problem] = []
    if expected.any():
        what = f"{expected.sum()} pairs of alike pictures"
        problems.append(Problem("note", "near-duplicates within groups", "all cases", what, "in one group anyway"))
    for grave in sorted(set(gravity[~expected].tolist()), reverse=True):
        chosen = np.flatnonzero(~expected & (gravity == grave))
        chosen = chosen[np.argsort(-pairs.likeness[chosen], kind="stable")]
        kind = "same picture twice" if grave & 1 else "near-duplicates"
        kind += " under two classes" * bool(grave & 2) + " across the official split" * bool(grave & 4)
        do = "kept in one group, on one side of every fold"
        if grave & 2:
            do = f"one of the two classes is wrong; {do}"
        if grave & 4:
            do = "the official test part is not independent of the rest: say so beside its scores, or remove one"
        for i in chosen[:MOST_LISTED]:
            one, other = facts[first[i]].case.case, facts[second[i]].case.case
            listed.append(Pair(kind, one, other, float(pairs.likeness[i])))
            where = f" in the {pairs.shared[i]:.0%} that they share" if pairs.shared[i] < 1 else ""
            problems.append(Problem("warning", kind, f"{one} | {other}", f"likeness {pairs.likeness[i]:.4f}{where}", do))
        if len(chosen) > MOST_LISTED:
            problems.append(Problem("warning", kind, "further pairs", f"{len(chosen) - MOST_LISTED} more", do))
    return problems, listed


def group_problems(facts: Sequence[Facts], given: Sequence[int], chained: Sequence[int]) -> list[Problem]:
    """Groups on both sides of an official split, and a group that alike pictures made very large."""
    members: dict[int, list[Facts]] = {}
    for fact, group in zip(facts, given, strict=True):
        members.setdefault(group, []).append(fact)
    problems = []
    for inside in members.values():
        tested = sum(fact.case.split == "test" for fact in inside)
        if 0 < tested < len(inside):
            what = f"{tested} of its {len(inside)} cases are in the official test part"
            do = "the test part is not independent of the rest: say so beside its scores"
            problems.append(Problem("warning", "group across the official split", _names(inside), what, do))
    largest, given_largest = (Counter(groups).most_common(1)[0][1] for groups in (chained, given))
    if largest > max(given_largest, _FEW, len(facts) / 5):
        what = f"{largest} of {len(facts)} cases are chained into one group by alike pictures"
        do = "look at the pairs; a group is never divided, so folds become uneven"
        problems.append(Problem("warning", "very large group of near-duplicates", "all cases", what, do))
    return problems


def _names(facts: Iterable[Facts]) -> str:
    names = [fact.case.case for fact in facts]
    return " | ".join(names[:5]) + (" ..." if len(names) > 5 else "")
