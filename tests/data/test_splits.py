"""Splits: nobody is on both sides, everybody is held out once, and the published split is the published one."""

import math
import re

import numpy as np
import pytest

from ukan.data.splits import choose_cases, make_splits, published_split
from ukan.errors import DataError
from ukan.plan import Case, SplitPlan


def cases(count: int = 60, group_of: int = 1, empty: int = 0) -> list[Case]:
    """A third of the groups malignant; the first `empty` cases have an empty mask."""
    made = []
    for i in range(count):
        group = i // group_of
        label = "malignant" if group % 3 == 0 else "benign"
        made.append(Case(f"c{i:03}", f"{i}.png", ("m.png",), f"g{group}", label, foreground=0.1 * (i >= empty)))
    return made


def uneven() -> list[Case]:
    """40 cases in groups of 1 to 6, as duplicates and video sequences make them."""
    sizes = np.random.default_rng(0).integers(1, 7, 12)
    groups = np.repeat(np.arange(12), sizes)
    return [Case(f"c{i:03}", "", (), f"g{g}", "ab"[g % 2], foreground=0.1) for i, g in enumerate(groups)]


@pytest.mark.parametrize(
    "made", [cases(), cases(60, 4), cases(60, 1, 12), uneven()], ids=["single", "fours", "empty", "uneven"]
)
@pytest.mark.parametrize("folds", [2, 5])
def test_no_group_is_on_both_sides_and_every_case_is_held_out_exactly_once(made: list[Case], folds: int) -> None:
    group = {case.case: case.group for case in made}
    splits = make_splits(made, SplitPlan(folds=folds))
    assert len(splits) == folds
    for fold in splits:
        assert not {group[name] for name in fold["train"]} & {group[name] for name in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(group)
        assert fold["train"] == sorted(fold["train"]) and fold["val"] == sorted(fold["val"])
    assert sorted(name for fold in splits for name in fold["val"]) == sorted(group)


@pytest.mark.parametrize("group_of", [1, 2])
def test_classes_and_empty_masks_are_spread_evenly(group_of: int) -> None:
    made = cases(120, group_of, empty=30)
    of = {case.case: (case.label, case.foreground == 0) for case in made}
    for stratum in set(of.values()):
        whole = sum(value == stratum for value in of.values()) / 5
        for fold in make_splits(made, SplitPlan(folds=5)):
            assert abs(sum(of[name] == stratum for name in fold["val"]) - whole) <= 2 * group_of


@pytest.mark.parametrize("group_of", [1, 3])
def test_objects_of_all_sizes_are_spread_evenly(group_of: int) -> None:
    rng = np.random.default_rng(0)
    sizes = np.repeat(rng.permutation(np.geomspace(0.001, 0.6, 120 // group_of)), group_of)  # a group's objects are alike
    made = [case._replace(foreground=float(size)) for case, size in zip(cases(120, group_of), sizes, strict=True)]
    smallest, largest = np.quantile(sizes, (1 / 3, 2 / 3))
    for fold in make_splits(made, SplitPlan(folds=5)):
        held = [case.foreground for case in made if case.case in set(fold["val"])]
        for count in (sum(size <= smallest for size in held), sum(size > largest for size in held)):
            assert abs(count - 8) <= 2 * group_of


def test_strata_too_small_to_spread_warn_nobody_and_lose_nobody(recwarn: pytest.WarningsRecorder) -> None:
    made = [case._replace(label=f"kind {i % 17}", foreground=0.01 * (i % 23)) for i, case in enumerate(cases(60))]
    splits = make_splits(made, SplitPlan(folds=5))
    assert sorted(name for fold in splits for name in fold["val"]) == [case.case for case in made]
    assert not [warning for warning in recwarn if "populated" in str(warning.message)]


def test_a_class_of_fewer_cases_than_folds_is_no_obstacle() -> None:
    made = [case._replace(label="rare" if i < 2 else case.label) for i, case in enumerate(cases(40))]
    splits = make_splits(made, SplitPlan(folds=5))
    assert sorted(name for fold in splits for name in fold["val"]) == [case.case for case in made]


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_cases() -> None:
    made = cases()
    first = make_splits(made, SplitPlan(seeds=(0,)))
    assert make_splits(made[::-1], SplitPlan(seeds=(0,))) == first
    assert make_splits(made, SplitPlan(seeds=(1,))) != first


def test_too_few_groups_are_refused_with_what_to_type_and_that_works() -> None:
    made = cases(12, 4)
    with pytest.raises(DataError, match="3 groups? of cases cannot make 5 folds") as error:
        make_splits(made, SplitPlan(folds=5))
    answer = re.search(r"--set split\.folds=(\d+)", str(error.value))
    assert answer is not None
    assert len(make_splits(made, SplitPlan(folds=int(answer[1])))) == 3


def test_one_group_is_not_answered_with_a_number_of_folds_that_cannot_work_either() -> None:
    with pytest.raises(DataError, match="1 group") as error:
        make_splits(cases(6, 6), SplitPlan(folds=5))
    assert "split.folds" not in str(error.value)


# Official parts


def with_test_part() -> list[Case]:
    return [
        case._replace(split="test" if i % 4 == 0 else "val" if i % 4 == 1 else "train") for i, case in enumerate(cases())
    ]


@pytest.mark.parametrize(
    "split", [SplitPlan(), SplitPlan(kind="random"), SplitPlan(kind="published", seeds=(1, 2))], ids=lambda split: split.kind
)
def test_an_official_test_part_is_in_no_fold_unless_it_is_pooled(split: SplitPlan) -> None:
    made = with_test_part()
    outside = {case.case for case in made if case.split != "test"}
    for fold in make_splits(made, split):
        assert set(fold["train"]) | set(fold["val"]) == outside
    for fold in make_splits(made, split.model_copy(update={"official_test": "pool"})):
        assert set(fold["train"]) | set(fold["val"]) == {case.case for case in made}


# At random


def test_random_folds_have_the_sizes_of_the_grouped_ones_and_know_no_group() -> None:
    made = uneven()
    group = {case.case: case.group for case in made}
    grouped, dealt = (make_splits(made, SplitPlan(kind=kind)) for kind in ("folds", "random"))  # type: ignore[arg-type]
    assert [len(fold["val"]) for fold in dealt] == [len(fold["val"]) for fold in grouped]
    assert sorted(name for fold in dealt for name in fold["val"]) == sorted(group)
    for fold in dealt:
        assert not set(fold["train"]) & set(fold["val"]) and len(fold["train"]) + len(fold["val"]) == len(made)
    assert any({group[name] for name in fold["train"]} & {group[name] for name in fold["val"]} for fold in dealt)
    assert make_splits(made[::-1], SplitPlan(kind="random")) == dealt
    assert make_splits(made, SplitPlan(kind="random", seeds=(1,))) != dealt


# As published


@pytest.mark.parametrize(("count", "seed"), [(647, 2981), (165, 6142), (13, 1187)])
def test_the_published_split_is_sklearns_of_the_sorted_names(count: int, seed: int) -> None:
    from sklearn.model_selection import train_test_split

    names = [f"c ({i})" for i in range(count)]  # whose order as strings is not their order as numbers
    train, val = train_test_split(sorted(names), test_size=0.2, random_state=seed)
    shuffled = list(np.random.default_rng(0).permutation(names))
    assert published_split(shuffled, seed) == {"train": train, "val": val}
    # ... which is a permutation, the first fifth of it held out (scikit-learn's ShuffleSplit).
    order = np.random.RandomState(seed).permutation(count)
    held_out = math.ceil(0.2 * count)
    assert val == [sorted(names)[i] for i in order[:held_out]] and len(train) == count - held_out


def test_published_splits_are_one_for_each_seed_and_blind_to_groups() -> None:
    made = cases(50, 10)
    splits = make_splits(made, SplitPlan(kind="published", seeds=(2981, 6142, 1187)))
    assert splits == [published_split([case.case for case in made], seed) for seed in (2981, 6142, 1187)]
    assert splits == make_splits(
        [case._replace(group=case.case) for case in made], SplitPlan(kind="published", seeds=(2981, 6142, 1187))
    )


def test_a_published_split_holds_out_the_share_the_plan_says() -> None:
    made = cases(50)
    split = SplitPlan(kind="published", held_out=0.3, seeds=(7,))
    assert make_splits(made, split) == [published_split([case.case for case in made], 7, 0.3)]
    assert len(make_splits(made, split)[0]["val"]) == 15


def test_one_case_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 case"):
        make_splits(cases(1), SplitPlan(kind="published"))


# Who takes part


def test_empty_cases_are_kept_or_dropped_as_the_plan_says() -> None:
    made = cases(10, empty=4)
    assert choose_cases(made, "keep") == made and choose_cases(made, "drop") == made[4:]


def test_nothing_but_empty_masks_is_refused_only_where_they_are_dropped() -> None:
    made = cases(4, empty=4)
    assert choose_cases(made, "keep") == made
    with pytest.raises(DataError, match=r"data\.empty_cases=keep"):
        choose_cases(made, "drop")
