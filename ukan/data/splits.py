"""Who is trained on and who is scored, decided before training."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ukan.errors import DataError
from ukan.plan import Case, SplitPlan

Splits = list[dict[str, list[str]]]


def make_splits(cases: Sequence[Case], split: SplitPlan) -> Splits:
    """The folds of a plan: [{'train': names, 'val': names}, ...]. An official test part held out is in none of them.

    Raises DataError where there are too few groups.
    """
    if split.official_test == "hold_out":
        cases = [case for case in cases if case.split != "test"]
    if split.kind == "all":
        return [{"train": sorted(case.case for case in cases), "val": []}]
    if split.kind == "published":
        return [published_split([case.case for case in cases], seed, split.held_out) for seed in split.seeds]
    folds = grouped_folds(cases, split.folds, split.seeds[0])
    return folds if split.kind == "folds" else _shuffled(folds, split.seeds[0])


def published_split(names: Sequence[str], seed: int, held_out: float = 0.2) -> dict[str, list[str]]:
    """The split of the published U-KAN code: a share of the sorted names at random, blind to groups.

    Sorted are names of files (a-1.png before a.png). The order is the one drawn: the published metric pools batches of it.
    """
    from sklearn.model_selection import train_test_split

    if len(names) < 2:
        raise DataError(f"{len(names)} case(s): nothing could be held out; add cases")
    train, val = train_test_split(sorted(names, key=lambda name: f"{name}.png"), test_size=held_out, random_state=seed)
    return {"train": list(train), "val": list(val)}


def grouped_folds(cases: Sequence[Case], folds: int, seed: int) -> Splits:
    """Folds that keep every group on one side and spread classes, sizes of objects and empty masks evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    cases = sorted(cases, key=lambda case: case.case)
    groups = [case.group for case in cases]
    if (count := len(set(groups))) < 2:
        raise DataError(f"{len(cases)} case(s) in {count} group: nothing could be held out; add cases")
    if count < folds:
        raise DataError(f"{count} groups of cases cannot make {folds} folds; add cases, or --set split.folds={count}")
    names = np.array([case.case for case in cases])
    folding = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    made = [
        {"train": sorted(names[train].tolist()), "val": sorted(names[val].tolist())}
        for train, val in folding.split(names, _strata(cases, folds), groups)
    ]
    if any(not fold["val"] or not fold["train"] for fold in made):
        raise DataError(f"the groups are too uneven for {folds} folds; use --set split.folds={folds - 1}")
    return made


def _strata(cases: Sequence[Case], folds: int) -> list[str]:
    """For each case what is to be spread: class and size of the object (thirds, by share of the image), or empty.

    Strata of fewer cases than folds cannot be spread: they are made coarser, step by step.
    """
    shares = [case.foreground for case in cases if case.foreground > 0]
    cuts = np.quantile(shares, (1 / 3, 2 / 3)) if shares else np.zeros(2)
    strata = [
        f"{case.label}/{'empty' if case.foreground == 0 else np.searchsorted(cuts, case.foreground)}" for case in cases
    ]
    coarser: list[Callable[[Case], str]] = [
        lambda case: f"{case.label}/{'empty' if case.foreground == 0 else 'object'}",
        lambda case: case.label,
        lambda case: "",
    ]
    for name in coarser:
        counts = Counter(strata)
        strata = [s if counts[s] >= folds else name(case) for s, case in zip(strata, cases, strict=True)]
    if 0 < Counter(strata)[""] < folds:  # the last few join the largest
        largest = Counter(strata).most_common(1)[0][0]
        strata = [largest if s == "" else s for s in strata]
    return strata


def _shuffled(folds: Splits, seed: int) -> Splits:
    """Folds of the same sizes with the cases dealt at random, blind to groups: what leakage is worth shows beside them."""
    names = sorted(name for fold in folds for name in fold["val"])
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum([len(fold["val"]) for fold in folds])
    made = []
    for part in np.split(order, ends[:-1]):
        val = {names[i] for i in part}
        made.append({"train": [name for name in names if name not in val], "val": sorted(val)})
    return made


def choose_cases(cases: Sequence[Case], empty_cases: str) -> list[Case]:
    """The cases that take part."""
    chosen = [case for case in cases if empty_cases == "keep" or case.foreground > 0]
    if not chosen:
        raise DataError("every mask is empty: there is nothing to learn; check the masks, or --set data.empty_cases=keep")
    return chosen
