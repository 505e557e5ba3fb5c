"""BUSI as published becomes cases with their class."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ukan.data.layouts import find_layout
from ukan.data.layouts.busi import find_cases
from ukan.errors import DataError

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]


def test_busi_is_recognised_and_its_masks_are_gathered_with_their_class(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["busi"])
    assert find_layout(root) == ("busi", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert [(case.case, case.label, case.masks) for case in cases] == [
        ("benign (1)", "benign", ("benign/benign (1)_mask.png",)),
        ("benign (10)", "benign", ("benign/benign (10)_mask.png", "benign/benign (10)_mask_1.png")),
        ("malignant (1)", "malignant", ("malignant/malignant (1)_mask.png",)),
        ("normal (1)", "normal", ("normal/normal (1)_mask.png",)),
    ]
    assert cases[0].image == "benign/benign (1).png"


def test_busi_without_the_normal_class_is_still_busi(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["busi"])
    for path in sorted((root / "normal").iterdir()):
        path.unlink()
    (root / "normal").rmdir()
    assert find_layout(root)[0] == "busi" and len(find_cases(root)[0]) == 3


def test_busi_with_missing_files_says_which(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["busi"])
    (root / "benign/benign (1)_mask.png").unlink()
    (root / "malignant/malignant (1).png").unlink()
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["benign (10)", "normal (1)"]
    assert {(p.kind, p.where, p.what) for p in problems} == {
        ("no mask", "benign/benign (1).png", "benign/benign (1)_mask.png is missing"),
        ("mask without image", "malignant/malignant (1)_mask.png", "no image malignant (1).png"),
    }


def test_two_class_folders_without_masks_are_not_busi(touch: Touch) -> None:
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(touch("benign/a.png", "malignant/b.png"))
