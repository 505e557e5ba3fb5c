"""Who is trained on and who is scored, decided before training."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ukan.errors import DataError
from ukan.plan import Case, SplitPlan

Splits = list[dict[str, list[str]]]


def make_splits(cases: Sequence[Case], split: SplitPlan) -> Splits:
    """The folds of a plan: [{'train': names, 'val': names}, ...]."""
    if split.kind == "published":
        return [published_split([case.case for case in cases], seed) for seed in split.seeds]
    return grouped_folds(cases, split.folds, split.seeds[0])


def published_split(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The split of the published U-KAN code: 20 % of the sorted names at random, blind to groups.

    The order is the one drawn: the published metric pools batches of it.
    """
    from sklearn.model_selection import train_test_split

    train, val = train_test_split(sorted(names), test_size=0.2, random_state=seed)
    return {"train": list(train), "val": list(val)}


def grouped_folds(cases: Sequence[Case], folds: int, seed: int) -> Splits:
    """Folds that keep every group on one side and spread classes and empty masks evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    cases = sorted(cases, key=lambda case: case.case)
    groups = [case.group for case in cases]
    if (count := len(set(groups))) < 2:
        raise DataError(f"{len(cases)} case(s) in {count} group: nothing could be held out; add cases")
    if count < folds:
        raise DataError(f"{count} groups of cases cannot make {folds} folds; add cases, or --set split.folds={count}")
    strata = [f"{case.label}/{'empty' if case.foreground == 0 else 'lesion'}" for case in cases]
    # Strata too small to be spread are one; where that is too small as well, it joins the largest: sklearn warns otherwise.
    rare = {stratum for stratum, count in Counter(strata).items() if count < folds}
    strata = ["rare" if stratum in rare else stratum for stratum in strata]
    if Counter(strata)["rare"] < folds:
        largest = Counter(strata).most_common(1)[0][0]
        strata = [largest if stratum == "rare" else stratum for stratum in strata]
    names = np.array([case.case for case in cases])
    folding = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    made = [
        {"train": sorted(names[train].tolist()), "val": sorted(names[val].tolist())}
        for train, val in folding.split(names, strata, groups)
    ]
    if any(not fold["val"] or not fold["train"] for fold in made):
        raise DataError(f"the groups are too uneven for {folds} folds; use --set split.folds={folds - 1}")
    return made


def choose_cases(cases: Sequence[Case], empty_cases: str) -> list[Case]:
    """The cases that take part."""
    chosen = [case for case in cases if empty_cases == "keep" or case.foreground > 0]
    if not chosen:
        raise DataError("every mask is empty: there is nothing to learn; check the masks, or --set data.empty_cases=keep")
    return chosen
