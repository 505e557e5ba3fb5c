"""The real BUSI sample: its known quirks are found, nothing is refused, and the paper's splits have the paper's sizes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ukan.data.index import Index, index_folder
from ukan.data.splits import choose_cases, make_splits
from ukan.plan import Plan, SplitPlan
from ukan.stage.recipes import load_recipe


@pytest.fixture(scope="module")
def index(busi: Path) -> Index:
    return index_folder(busi)


def test_the_layout_is_recognised_and_no_case_is_lost(index: Index) -> None:
    assert (index.layout, index.dataset) == ("busi", "busi")
    assert index.errors == []
    f = index.fingerprint
    assert f is not None
    assert (f.cases, f.empty, f.labels) == (671, 24, {"benign": 437, "malignant": 210, "normal": 24})
    assert f.mask_rule == "nonzero" and f.colour == 0


def test_647_cases_have_a_lesion_and_the_normal_ones_have_none(index: Index) -> None:
    chosen = choose_cases(index.cases, "drop")
    assert len(chosen) == 647 and {case.label for case in chosen} == {"benign", "malignant"}
    assert all(case.foreground == 0 for case in index.cases if case.label == "normal")


def test_the_picture_under_two_classes_is_found_and_in_one_group(index: Index) -> None:
    same = [problem.where for problem in index.problems if problem.kind.startswith("same picture twice")]
    assert same == ["benign (433) | malignant (145)"]
    group = {case.case: case.group for case in index.cases}
    assert group["benign (433)"] == group["malignant (145)"]


def test_17_cases_have_several_masks_and_two_masks_have_alpha(index: Index) -> None:
    kinds = [problem.kind for problem in index.problems]
    assert kinds.count("several masks") == 17 and kinds.count("mask with alpha") == 2
    assert sum(len(case.masks) > 1 for case in index.cases) == 17
    assert sum(len(case.masks) for case in index.cases) == 671 + 18  # one of them has three


def test_a_united_mask_is_larger_than_each_of_its_parts(index: Index) -> None:
    from ukan.data.masks import read_truth

    for case in [case for case in index.cases if len(case.masks) > 1][:3]:
        shape = (1, case.height, case.width)
        parts = [
            read_truth(index.root, case._replace(masks=(mask,)), shape, "nonzero", ["lesion"])[0] for mask in case.masks
        ]
        assert case.foreground == pytest.approx(np.any(parts, axis=0).mean())
        assert all(case.foreground > part.mean() for part in parts)


def test_near_duplicates_stay_on_one_side_of_every_fold(index: Index) -> None:
    f = index.fingerprint
    assert f is not None and (f.near_duplicates, f.groups) == (177, 520)
    group = {case.case: case.group for case in index.cases}
    cases = choose_cases(index.cases, "drop")
    label = {case.case: case.label for case in cases}
    for fold in make_splits(cases, SplitPlan()):
        assert not {group[name] for name in fold["train"]} & {group[name] for name in fold["val"]}
        assert 120 <= len(fold["val"]) <= 140
        assert sum(label[name] == "malignant" for name in fold["val"]) == pytest.approx(42, abs=8)


@pytest.mark.parametrize("names", [(95, 96, 97), (98, 99), (65, 66), (106, 107)])
def test_crops_of_one_frame_are_one_group(index: Index, names: tuple[int, ...]) -> None:
    group = {case.case: case.group for case in index.cases}
    assert len({group[f"malignant ({number})"] for number in names}) == 1


def test_no_group_is_large(index: Index) -> None:
    assert max(Counter(case.group for case in index.cases).values()) == 7


def test_the_papers_splits_are_three_of_517_and_130(index: Index) -> None:
    split = SplitPlan(**load_recipe("paper/ukan-busi")["split"])
    splits = make_splits(choose_cases(index.cases, "drop"), split)
    assert [(len(fold["train"]), len(fold["val"])) for fold in splits] == [(517, 130)] * 3
    assert len({tuple(fold["val"]) for fold in splits}) == 3


def test_a_plan_from_the_recipe_holds_the_papers_choices_for_this_folder(busi: Path, index: Index) -> None:
    from ukan.data.layouts import LAYOUTS
    from ukan.models import model_sizes, model_stride, named_sizes
    from ukan.planning.segment import plan_segment

    assert index.fingerprint is not None
    common = {
        "name": "x",
        "empty_cases": LAYOUTS["busi"].EMPTY_CASES,
        "mask_rule_because": index.mask_rule_because,
        "activation_bytes": lambda *asked: 0,
        "model_sizes": model_sizes,
        "named_sizes": named_sizes,
        "model_stride": model_stride,
    }
    own = plan_segment(index.fingerprint, **common)
    paper = plan_segment(index.fingerprint, **common, recipe=load_recipe("paper/ukan-busi"))
    assert own.data.empty_cases == paper.data.empty_cases == "drop"
    assert own.data.channels == 1 and paper.data.channels == 3
    assert own.protocol == "honest" and paper.protocol == "paper"
    assert Plan.parse(paper.model_dump(mode="json"), "again") == paper
